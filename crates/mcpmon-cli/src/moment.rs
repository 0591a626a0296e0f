//! A moment as people name one on a command line: how long ago, or a date and time.

use std::str::FromStr;
use std::time::Duration;

use mcpmon_core::{Timestamp, duration};

/// `1h` (ago) or `2026-11-22T14:00:00Z`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Moment {
    Ago(Duration),
    At(Timestamp),
}

impl Moment {
    pub(crate) fn before(self, now: Timestamp) -> Timestamp {
        match self {
            Self::Ago(span) => now.saturating_sub(span),
            Self::At(at) => at,
        }
    }
}

impl FromStr for Moment {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if let Ok(span) = duration::parse(text) {
            return Ok(Self::Ago(span));
        }
        text.parse().map(Self::At).map_err(|_| {
            format!("`{text}` is neither a span such as 1h or 7d nor a time such as 2026-11-22T14:00:00Z")
        })
    }
}

/// A span of at least a second, for intervals.
pub(crate) fn interval(text: &str) -> Result<Duration, String> {
    let span = duration::parse(text).map_err(|error| error.to_string())?;
    if span < Duration::from_secs(1) {
        return Err("an interval must be at least 1s".to_owned());
    }
    Ok(span)
}

/// A time limit longer than nothing.
pub(crate) fn limit(text: &str) -> Result<Duration, String> {
    let span = duration::parse(text).map_err(|error| error.to_string())?;
    if span.is_zero() {
        return Err("a time limit must be longer than 0".to_owned());
    }
    Ok(span)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_and_times_are_moments() {
        let now: Timestamp = "2026-11-22T14:00:00Z".parse().unwrap();
        let hour_ago: Timestamp = "2026-11-22T13:00:00Z".parse().unwrap();
        assert_eq!("1h".parse::<Moment>().unwrap().before(now), hour_ago);
        assert_eq!("2026-11-22T13:00:00Z".parse::<Moment>().unwrap().before(now), hour_ago);
        assert!("yesterday".parse::<Moment>().is_err());
        assert!(interval("10ms").is_err() && interval("1s").is_ok());
        assert!(limit("0").is_err() && limit("10ms").is_ok());
    }
}
