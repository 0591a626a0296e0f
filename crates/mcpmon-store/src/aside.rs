//! A file that cannot be used is put aside, so that monitoring goes on; it is never deleted.

use std::fmt;
use std::path::{Path, PathBuf};

use jiff::tz::TimeZone;
use mcpmon_core::{StoreError, Timestamp};

use crate::file::{self, WriterLock, with_suffix};

/// Files that belong to a database.
const PARTS: [&str; 4] = ["", "-wal", "-shm", "-journal"];

/// A file that was put aside. Displayed, it is a sentence for people: what was wrong with the file,
/// where it is now, and that a new history begins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SetAside {
    /// What it is called now.
    pub path: PathBuf,
    /// Why, for programs.
    pub cause: SetAsideCause,
    /// What is wrong with it, with its old path.
    pub reason: String,
}

/// Why a file was put aside.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum SetAsideCause {
    /// It is no database, or a damaged one.
    Damaged,
    /// It is another program's database.
    Foreign,
    /// A development version wrote it.
    Development,
}

impl SetAside {
    pub(crate) fn new(path: PathBuf, cause: SetAsideCause, error: &StoreError) -> Self {
        let reason = match error {
            StoreError::Development { path } => {
                format!("database `{}` was written by a development version", path.display())
            }
            other => other.to_string(),
        };
        Self { path, cause, reason }
    }
}

impl fmt::Display for SetAside {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { path, cause, reason } = self;
        let moved = match cause {
            SetAsideCause::Development => "kept",
            SetAsideCause::Damaged | SetAsideCause::Foreign => "it was set aside",
        };
        write!(f, "{reason}; {moved} as `{}`, and a new history begins", path.display())
    }
}

/// The reason to put a file aside that could not be opened; `None` where a fresh start does not
/// help: what a newer build wrote, what another process has open and what may not be touched stays
/// where it is.
pub(crate) fn cause(error: &StoreError) -> Option<SetAsideCause> {
    match error {
        StoreError::Damaged { .. } => Some(SetAsideCause::Damaged),
        StoreError::Foreign { .. } => Some(SetAsideCause::Foreign),
        StoreError::Development { .. } => Some(SetAsideCause::Development),
        _ => None,
    }
}

/// Renames a database and what belongs to it to a dated name beside it.
///
/// # Errors
///
/// When another monitor has it, or its directory cannot be written; then it is where it was.
pub(crate) fn put_aside(path: &Path, why: &str, now: Timestamp) -> Result<PathBuf, StoreError> {
    let path = file::locate(path, false)?;
    let lock = file::lock(&path)?;
    put_aside_held(&path, why, now, &lock)
}

/// As [`put_aside`], for whoever holds the database at this located path already and goes on
/// holding it: nobody begins a new one there meanwhile.
///
/// # Errors
///
/// When its directory cannot be written; then it is where it was.
pub(crate) fn put_aside_held(
    path: &Path,
    why: &str,
    now: Timestamp,
    _held: &WriterLock,
) -> Result<PathBuf, StoreError> {
    let stamp = match jiff::Timestamp::from_millisecond(now.as_millis()) {
        Ok(at) => at.to_zoned(TimeZone::UTC).strftime("%Y%m%d_%H%M%S").to_string(),
        Err(_) => now.as_millis().to_string(),
    };
    let mut aside = with_suffix(path, &format!(".{why}-{stamp}"));
    for n in 2.. {
        if aside.symlink_metadata().is_err() {
            break;
        }
        aside = with_suffix(path, &format!(".{why}-{stamp}-{n}"));
    }
    // The log first: a database without its log is an older one, a log without its database
    // belongs to nothing.
    for part in PARTS.iter().rev() {
        let from = with_suffix(path, part);
        match std::fs::rename(&from, with_suffix(&aside, part)) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                let message = format!("it cannot be put aside: {error}");
                return Err(StoreError::Io { path: path.to_path_buf(), message });
            }
            _ => {}
        }
    }
    Ok(aside)
}

/// Renames logs that stand beside a database that is gone. SQLite would put them into the new one.
///
/// # Errors
///
/// When the directory cannot be written.
pub(crate) fn put_logs_aside(path: &Path) -> Result<(), StoreError> {
    for part in ["-wal", "-journal"] {
        let from = with_suffix(path, part);
        let Ok(metadata) = from.symlink_metadata() else { continue };
        if metadata.len() == 0 {
            remove(&from)?;
            continue;
        }
        let free = |n: u32| with_suffix(path, &format!(".lost-{n}{part}"));
        let aside = (1..).map(free).find(|aside| aside.symlink_metadata().is_err());
        let Some(aside) = aside else { continue };
        std::fs::rename(&from, &aside).map_err(|error| StoreError::Io {
            path: from.clone(),
            message: format!("its database is gone, and it cannot be put aside: {error}"),
        })?;
        tracing::error!(path = %aside.display(), "Log without its database put aside");
    }
    // Nothing is kept there; what the new database finds would be the old one's.
    remove(&with_suffix(path, "-shm"))
}

fn remove(path: &Path) -> Result<(), StoreError> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            let message = format!("it cannot be removed: {error}");
            Err(StoreError::Io { path: path.to_path_buf(), message })
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_holds_a_database_puts_it_aside_without_letting_it_go() {
        let directory = tempfile::tempdir().unwrap();
        let path = file::locate(&directory.path().join("mcpmon.db"), true).unwrap();
        std::fs::write(&path, "old").unwrap();
        let now = Timestamp::from_millis(1_767_225_600_000);
        let lock = file::lock(&path).unwrap();
        let refused = put_aside(&path, "before-restore", now).unwrap_err();
        assert!(matches!(refused, StoreError::InUse { .. }), "{refused:?}");
        let aside = put_aside_held(&path, "before-restore", now, &lock).unwrap();
        assert_eq!(std::fs::read(aside).unwrap(), b"old");
        assert!(!path.exists() && file::is_locked(&path));
    }
}
