//! A file that cannot be used is put aside, so that monitoring goes on; it is never deleted.

use std::path::{Path, PathBuf};

use jiff::tz::TimeZone;
use mcpmon_core::{StoreError, Timestamp};

use crate::file::{self, with_suffix};

/// Files that belong to a database.
const PARTS: [&str; 4] = ["", "-wal", "-shm", "-journal"];

/// A file that was put aside.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SetAside {
    /// What it is called now.
    pub path: PathBuf,
    /// What is wrong with it.
    pub reason: String,
}

/// Whether a fresh start helps: the file is none of ours, or cannot be read as one. What a newer
/// build wrote, what somebody else has open and what may not be touched stays where it is.
pub(crate) fn is_hopeless(error: &StoreError) -> bool {
    matches!(error, StoreError::Damaged { .. } | StoreError::Foreign { .. })
}

/// Renames a database and what belongs to it to a dated name beside it.
///
/// # Errors
///
/// When another monitor has it, or its directory cannot be written; then it is where it was.
pub(crate) fn put_aside(path: &Path, why: &str, now: Timestamp) -> Result<PathBuf, StoreError> {
    let path = file::locate(path, false)?;
    let _lock = file::lock(&path)?;
    let stamp = match jiff::Timestamp::from_millisecond(now.as_millis()) {
        Ok(at) => at.to_zoned(TimeZone::UTC).strftime("%Y%m%d_%H%M%S").to_string(),
        Err(_) => now.as_millis().to_string(),
    };
    let mut aside = with_suffix(&path, &format!(".{why}-{stamp}"));
    for n in 2.. {
        if aside.symlink_metadata().is_err() {
            break;
        }
        aside = with_suffix(&path, &format!(".{why}-{stamp}-{n}"));
    }
    // The log first: a database without its log is an older one, a log without its database
    // belongs to nothing.
    for part in PARTS.iter().rev() {
        let from = with_suffix(&path, part);
        match std::fs::rename(&from, with_suffix(&aside, part)) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                let message = format!("it cannot be put aside: {error}");
                return Err(StoreError::Io { path, message });
            }
            _ => {}
        }
    }
    Ok(aside)
}
