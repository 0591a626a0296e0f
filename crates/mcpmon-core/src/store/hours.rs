//! What each hour of a service was like, in a few numbers: what a baseline is made of.
//!
//! Medians throughout, so that neither an outage nor a slow minute moves what is usual.

use serde::{Deserialize, Serialize};

use super::Summary;
use crate::service::ServiceName;
use crate::time::Timestamp;

/// Milliseconds of an hour.
const HOUR: i64 = 3_600_000;

/// The number of the hour, since 1970 in UTC, that a moment lies in.
pub fn hour_of(at: Timestamp) -> i64 {
    at.as_millis().div_euclid(HOUR)
}

/// Where the hour of this number begins.
pub fn hour_begins(hour: i64) -> Timestamp {
    Timestamp::from_millis(hour.saturating_mul(HOUR))
}

/// Which hours are asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HoursQuery {
    /// Of these services; few at a time, so that no answer is large.
    pub services: Vec<ServiceName>,
    /// From the hour of this number on, as [`hour_of`] counts them.
    pub since: i64,
    /// Before the hour of this number.
    pub until: i64,
    /// Only hours of these times of day (UTC, 0 to 23); all of them if empty.
    pub times_of_day: Vec<i64>,
}

impl HoursQuery {
    /// Longest span that is answered, in hours: five weeks.
    pub const LONGEST: i64 = 35 * 24;

    /// The hours that are asked for, oldest first.
    pub fn hours(&self) -> impl Iterator<Item = i64> + '_ {
        let since = self.since.max(self.until.saturating_sub(Self::LONGEST));
        (since..self.until).filter(|hour| self.wants(*hour))
    }

    /// Whether the answer holds this hour, if there is anything of it.
    pub fn wants(&self, hour: i64) -> bool {
        let time_of_day = hour.rem_euclid(24);
        let since = self.since.max(self.until.saturating_sub(Self::LONGEST));
        (since..self.until).contains(&hour)
            && (self.times_of_day.is_empty() || self.times_of_day.contains(&time_of_day))
    }
}

/// One hour of one service.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
pub struct HourSample {
    /// The hour's number, as [`hour_of`] counts them.
    pub hour: i64,
    /// Checks that say something about the service.
    pub counted: u32,
    /// Those that say something against it.
    pub failed: u32,
    /// Checks that were timed.
    pub timed: u32,
    /// The median of their latencies, in seconds; meaningless where none was timed.
    pub latency: f64,
    /// The median of their distances from it, in seconds.
    pub latency_deviation: f64,
}

impl HourSample {
    /// What is left of an hour's summary.
    pub fn of(hour: i64, summary: &Summary) -> Self {
        let number = |checks: u64| u32::try_from(checks).unwrap_or(u32::MAX);
        let (latency, latency_deviation) =
            summary.latency.median_and_deviation().unwrap_or_default();
        Self {
            hour,
            counted: number(summary.counted()),
            failed: number(summary.failed()),
            timed: u32::try_from(summary.latency.count()).unwrap_or(u32::MAX),
            latency: latency.as_secs_f64(),
            latency_deviation: latency_deviation.as_secs_f64(),
        }
    }

    /// The share of its checks that failed; `None` where none counts.
    pub fn error_rate(&self) -> Option<f64> {
        (self.counted > 0).then(|| f64::from(self.failed) / f64::from(self.counted))
    }
}

/// A service and its hours, oldest first.
pub type ServiceHours = (ServiceName, Vec<HourSample>);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{CheckMeaning, Status};
    use std::time::Duration;

    #[test]
    fn an_hour_is_its_medians_and_counts() {
        let mut summary = Summary::default();
        for millis in [10, 12, 14, 16, 900] {
            summary.record(
                CheckMeaning::health(Status::Running),
                None,
                Some(Duration::from_millis(millis)),
            );
        }
        summary.record(CheckMeaning::health(Status::Error), None, None);
        summary.record(CheckMeaning::health(Status::Unknown), None, None);
        let sample = HourSample::of(7, &summary);
        assert_eq!((sample.counted, sample.failed, sample.timed), (6, 1, 5));
        assert!((sample.latency - 0.014).abs() < 0.000_2, "{sample:?}");
        assert!((sample.latency_deviation - 0.002).abs() < 0.000_3, "{sample:?}");
        assert!((sample.error_rate().unwrap() - 1.0 / 6.0).abs() < 1e-9);
        assert_eq!(HourSample::default().error_rate(), None);
    }

    #[test]
    fn only_the_hours_of_the_day_that_are_asked_for_are_meant() {
        let query =
            HoursQuery { services: Vec::new(), since: 24, until: 96, times_of_day: vec![3, 4] };
        assert_eq!(query.hours().collect::<Vec<_>>(), [27, 28, 51, 52, 75, 76]);
        let all = HoursQuery { since: i64::MIN, times_of_day: Vec::new(), ..query };
        assert_eq!(all.hours().count() as i64, HoursQuery::LONGEST);
        assert_eq!(hour_of(hour_begins(-5)), -5);
    }
}
