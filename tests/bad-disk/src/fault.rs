//! What a disk may do wrong, and what SQLite's own VFS says of each.

use std::time::Duration;

use rusqlite::ffi;

/// A fault that stands until it is taken away.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Fault {
    /// None.
    #[default]
    None,
    /// No file can grow; what is there can be written over.
    Full,
    /// Nothing can be written, made or deleted.
    ReadOnly,
    /// Every write and every sync ends with an input/output error.
    Broken,
    /// Every sync takes this long.
    Slow(Duration),
}

/// What is about to be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Attempt {
    /// To make a file.
    Create,
    /// To write; whether that makes the file larger.
    Write {
        grows: bool,
    },
    Truncate,
    Sync,
    Delete,
}

impl Fault {
    /// Reads the words a test leaves in a file: `full`, `read-only`, `broken`, `slow MILLIS`;
    /// anything else is none.
    pub(crate) fn read(words: &str) -> Self {
        match words.trim() {
            "full" => Self::Full,
            "read-only" => Self::ReadOnly,
            "broken" => Self::Broken,
            other => match other.strip_prefix("slow ").map(str::parse) {
                Some(Ok(millis)) => Self::Slow(Duration::from_millis(millis)),
                _ => Self::None,
            },
        }
    }

    /// The code SQLite's VFS would answer with; `None` where the attempt is let through.
    pub(crate) fn refuses(self, attempt: Attempt) -> Option<i32> {
        match (self, attempt) {
            (Self::None | Self::Slow(_), _) => None,
            (Self::Full, Attempt::Create) => Some(ffi::SQLITE_CANTOPEN),
            (Self::Full, Attempt::Write { grows: true }) => Some(ffi::SQLITE_FULL),
            (Self::Full, _) => None,
            (Self::ReadOnly, Attempt::Create) => Some(ffi::SQLITE_CANTOPEN),
            (Self::ReadOnly | Self::Broken, Attempt::Write { .. }) => Some(ffi::SQLITE_IOERR_WRITE),
            (Self::ReadOnly | Self::Broken, Attempt::Truncate) => Some(ffi::SQLITE_IOERR_TRUNCATE),
            (Self::Broken, Attempt::Create) => None,
            // A file system that was remounted has nothing left to sync.
            (Self::ReadOnly, Attempt::Sync) => None,
            (Self::Broken, Attempt::Sync) => Some(ffi::SQLITE_IOERR_FSYNC),
            (Self::ReadOnly | Self::Broken, Attempt::Delete) => Some(ffi::SQLITE_IOERR_DELETE),
        }
    }

    pub(crate) fn delay(self) -> Option<Duration> {
        match self {
            Self::Slow(span) => Some(span),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_name_faults() {
        for (words, fault) in [
            ("", Fault::None),
            ("full\n", Fault::Full),
            ("read-only", Fault::ReadOnly),
            ("broken", Fault::Broken),
            ("slow 1500", Fault::Slow(Duration::from_millis(1_500))),
            ("slow", Fault::None),
        ] {
            assert_eq!(Fault::read(words), fault, "{words:?}");
        }
    }

    #[test]
    fn a_full_disk_still_takes_what_fits_into_the_file() {
        assert_eq!(Fault::Full.refuses(Attempt::Write { grows: false }), None);
        assert!(Fault::Full.refuses(Attempt::Write { grows: true }).is_some());
        assert_eq!(Fault::Full.refuses(Attempt::Delete), None);
    }
}
