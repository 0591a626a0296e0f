//! A file that cannot be used is put aside, so that monitoring goes on; it is never deleted.

use std::fmt;
use std::path::{Path, PathBuf};

use jiff::tz::TimeZone;
use mcpmon_core::{StoreError, Timestamp};

use crate::file::{WriterLock, with_suffix};

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

/// Renames a database and what belongs to it to a dated name beside it. The caller holds the
/// database at this located path and goes on holding it, so no other monitor begins a new one there
/// meanwhile.
///
/// # Errors
///
/// When one of the files cannot be renamed; then all are where they were.
pub(crate) fn put_aside(
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
        if !has_parts(&aside) {
            break;
        }
        aside = with_suffix(path, &format!(".{why}-{stamp}-{n}"));
    }
    rename_parts(path, &aside)?;
    Ok(aside)
}

fn has_parts(path: &Path) -> bool {
    PARTS.iter().any(|part| with_suffix(path, part).symlink_metadata().is_ok())
}

/// Renames a database and what belongs to it: all of it, or nothing.
///
/// # Errors
///
/// When a file cannot be renamed, for example because it is a mount point or immutable. The files
/// renamed before it are renamed back, since a log is worth nothing without its database.
fn rename_parts(from: &Path, to: &Path) -> Result<(), StoreError> {
    let mut renamed: Vec<&str> = Vec::new();
    // The log first: a database without its log is an older one, a log without its database
    // belongs to nothing.
    for part in PARTS.into_iter().rev() {
        match std::fs::rename(with_suffix(from, part), with_suffix(to, part)) {
            Ok(()) => renamed.push(part),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => {
                let left = rename_back(from, to, &renamed).map_or_else(String::new, |left| {
                    format!("; its log is `{}` now", left.display())
                });
                let message = format!("it cannot be put aside: {error}{left}");
                return Err(StoreError::Io { path: from.to_path_buf(), message });
            }
        }
    }
    Ok(())
}

/// Undoes [`rename_parts`] for the parts that were renamed. Returns the new path of one that cannot
/// be renamed back.
fn rename_back(from: &Path, to: &Path, renamed: &[&str]) -> Option<PathBuf> {
    let mut left = None;
    for part in renamed.iter().rev() {
        let new = with_suffix(to, part);
        if let Err(error) = std::fs::rename(&new, with_suffix(from, part)) {
            tracing::error!(path = %new.display(), %error, "Log cannot be renamed back");
            left = Some(new);
        }
    }
    left
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
    use std::collections::BTreeMap;

    use super::*;
    use crate::file;

    fn files(directory: &Path) -> BTreeMap<String, Vec<u8>> {
        let entries = std::fs::read_dir(directory).unwrap().map(Result::unwrap);
        let files = entries.filter(|entry| entry.path().is_file());
        files
            .map(|file| {
                (file.file_name().into_string().unwrap(), std::fs::read(file.path()).unwrap())
            })
            .collect()
    }

    #[test]
    fn a_database_that_is_put_aside_stays_held_and_takes_no_name_of_another_file() {
        let directory = tempfile::tempdir().unwrap();
        let path = file::locate(&directory.path().join("mcpmon.db"), true).unwrap();
        std::fs::write(&path, "old").unwrap();
        let now = Timestamp::from_millis(1_767_225_600_000);
        let name =
            |rest| directory.path().join(format!("mcpmon.db.before-restore-20260101_{rest}"));
        // A log alone, as somebody left it who moved the database itself away.
        std::fs::write(name("000000-wal"), "another's").unwrap();
        let lock = file::lock(&path).unwrap();
        let aside = put_aside(&path, "before-restore", now, &lock).unwrap();
        assert_eq!(aside.file_name(), name("000000-2").file_name());
        assert_eq!(std::fs::read(aside).unwrap(), b"old");
        assert_eq!(std::fs::read(name("000000-wal")).unwrap(), b"another's");
        assert!(!path.exists() && file::is_locked(&path));
    }

    #[test]
    fn a_database_that_cannot_be_renamed_keeps_its_log() {
        let directory = tempfile::tempdir().unwrap();
        let [path, aside] = ["mcpmon.db", "aside"].map(|name| directory.path().join(name));
        for part in ["", "-shm", "-wal"] {
            std::fs::write(with_suffix(&path, part), part).unwrap();
        }
        let before = files(directory.path());
        // A file cannot take the name of a directory, so the last of the renames fails.
        std::fs::create_dir(&aside).unwrap();
        let refused = rename_parts(&path, &aside).unwrap_err();
        assert!(refused.to_string().contains("cannot be put aside"), "{refused}");
        assert!(!refused.to_string().contains("its log is"), "{refused}");
        assert_eq!(files(directory.path()), before);

        std::fs::remove_dir(&aside).unwrap();
        rename_parts(&path, &aside).unwrap();
        let after = files(directory.path());
        assert_eq!(after.keys().collect::<Vec<_>>(), ["aside", "aside-shm", "aside-wal"]);
        assert!(after.values().eq(before.values()), "{after:?}");
    }
}
