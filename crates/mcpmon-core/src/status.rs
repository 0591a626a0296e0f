//! The closed lists of words: what a service is, how bad an alert is, which era it speaks.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// What a service is now. The JSON spelling is a contract.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize,
)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    /// Not looked at yet, or we could not look by our own fault.
    #[default]
    Unknown,
    /// Inside its start-up grace.
    Starting,
    /// Works.
    Running,
    /// Works, with a degrading finding; or is rate limiting us.
    Degraded,
    /// Wants credentials it was not given.
    AuthRequired,
    /// Nothing is there: exited, refused, not found.
    Stopped,
    /// Something is there, but it is wrong.
    Error,
    /// In maintenance, disabled, or not consented to.
    Paused,
}

impl Status {
    /// Every status, in the order failing services are listed: worst first.
    pub const WORST_FIRST: [Self; 8] = [
        Self::Error,
        Self::Stopped,
        Self::AuthRequired,
        Self::Degraded,
        Self::Unknown,
        Self::Starting,
        Self::Paused,
        Self::Running,
    ];

    /// `stopped` and `error` together are "down".
    pub const fn is_down(self) -> bool {
        matches!(self, Self::Stopped | Self::Error)
    }

    /// Whether a check with this raw status counts against what it asked: down, or refusing the
    /// credentials.
    pub const fn is_failure(self) -> bool {
        self.is_down() || matches!(self, Self::AuthRequired)
    }

    /// Whether a raw status is a result at all: the monitor's own faults are none.
    pub const fn is_counted(self) -> bool {
        self.is_failure() || self.is_available()
    }

    /// Whether the service did its work when asked.
    pub const fn is_available(self) -> bool {
        matches!(self, Self::Running | Self::Degraded)
    }

    /// The contract's spelling.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Unknown => "unknown",
            Self::Starting => "starting",
            Self::Running => "running",
            Self::Degraded => "degraded",
            Self::AuthRequired => "auth_required",
            Self::Stopped => "stopped",
            Self::Error => "error",
            Self::Paused => "paused",
        }
    }
}

/// How bad an alert is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum Level {
    /// Worth knowing.
    Info,
    /// Worth a look.
    Warning,
    /// Someone's work is held up.
    Error,
    /// Someone must act now.
    Critical,
}

impl Level {
    /// Every level, lowest first.
    pub const ALL: [Self; 4] = [Self::Info, Self::Warning, Self::Error, Self::Critical];

    /// The contract's spelling.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Info => "info",
            Self::Warning => "warning",
            Self::Error => "error",
            Self::Critical => "critical",
        }
    }
}

/// Which way a server speaks MCP.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Era {
    /// `initialize`, sessions, `ping`: revisions 2024-11-05 to 2025-11-25.
    Legacy,
    /// `server/discover` and no session: revision 2026-07-28.
    Modern,
}

impl Era {
    /// The contract's spelling.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Legacy => "legacy",
            Self::Modern => "modern",
        }
    }
}

/// The word is none of the list.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{word}` is not a {what}")]
pub struct UnknownWord {
    word: String,
    what: &'static str,
}

impl UnknownWord {
    pub(crate) fn new(word: &str, what: &'static str) -> Self {
        Self { word: word.to_owned(), what }
    }
}

macro_rules! spelled {
    ($type:ty, $what:literal, $all:expr) => {
        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(self.as_str())
            }
        }

        impl FromStr for $type {
            type Err = UnknownWord;

            fn from_str(word: &str) -> Result<Self, UnknownWord> {
                $all.into_iter()
                    .find(|known| known.as_str() == word)
                    .ok_or_else(|| UnknownWord::new(word, $what))
            }
        }
    };
}

spelled!(Status, "status", Status::WORST_FIRST);
spelled!(Level, "level", Level::ALL);
spelled!(Era, "protocol era", [Era::Legacy, Era::Modern]);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_spelling_and_display_agree() {
        for status in Status::WORST_FIRST {
            let json = serde_json::to_value(status).unwrap();
            assert_eq!(json, status.as_str());
            assert_eq!(status.as_str().parse(), Ok(status));
        }
        for level in Level::ALL {
            assert_eq!(serde_json::to_value(level).unwrap(), level.as_str());
        }
        assert!("up".parse::<Status>().is_err());
    }

    #[test]
    fn levels_are_ordered() {
        assert!(Level::Info < Level::Warning && Level::Warning < Level::Error);
        assert!(Level::Error < Level::Critical);
    }
}
