//! A copy of the database, taken while it is written; and a copy put back.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use mcpmon_core::{StoreError, Timestamp};
use rusqlite::Connection;

use crate::aside;
use crate::database::{Database, OpenOptions};
use crate::error::{damaged, store_error};
use crate::file::{self, Standing};

fn io_error(path: &Path, message: String) -> StoreError {
    StoreError::Io { path: path.to_path_buf(), message }
}

/// Writes a compact copy of one consistent view of the database to `target`, which must not exist.
/// Whoever writes the database goes on.
pub(crate) fn backup(database: &Database, target: &Path) -> Result<(), StoreError> {
    let target = file::locate(target, false)?;
    if target.symlink_metadata().is_ok() {
        return Err(io_error(&target, "it is there already; name another file".into()));
    }
    let directory = target.parent().unwrap_or(Path::new("."));
    // Made in a directory of its own: for the owner alone, and gone whole if it fails.
    let draft = tempfile::Builder::new()
        .prefix(".mcpmon-backup-")
        .tempdir_in(directory)
        .map_err(|error| io_error(&target, format!("it cannot be created: {error}")))?;
    let copy = draft.path().join("copy.db");
    let name = copy.to_str().ok_or_else(|| io_error(&target, "its path is no text".into()))?;
    database.read_outside(|connection| {
        connection.execute("VACUUM INTO ?1", [name])?;
        Ok(())
    })?;
    publish(&copy, &target).map_err(|error| io_error(&target, error.to_string()))
}

fn publish(copy: &Path, target: &Path) -> std::io::Result<()> {
    use std::os::unix::fs::PermissionsExt;
    let file = File::open(copy)?;
    file.set_permissions(PermissionsExt::from_mode(0o600))?;
    file.sync_all()?;
    fs::rename(copy, target)?;
    File::open(target.parent().unwrap_or(Path::new(".")))?.sync_all()
}

/// Puts a copy of `backup` in the place of the database at `path`. What stood there is put aside;
/// gives its new name.
///
/// # Errors
///
/// When the backup is none of ours or not sound, when a monitor writes the database, or when files
/// cannot be written. Then everything is as it was.
pub(crate) fn restore(
    backup: &Path,
    path: &Path,
    now: Timestamp,
) -> Result<Option<PathBuf>, StoreError> {
    let backup = file::locate(backup, false)?;
    if file::examine(&backup)? == Standing::Missing {
        return Err(io_error(&backup, "there is no such file".into()));
    }
    let path = file::locate(path, true)?;
    let lock = file::lock(&path)?;
    let directory = path.parent().unwrap_or(Path::new("."));
    let draft = tempfile::Builder::new()
        .prefix(".mcpmon-restore-")
        .tempdir_in(directory)
        .map_err(|error| io_error(&path, format!("it cannot be created: {error}")))?;
    let copy = draft.path().join("copy.db");
    fs::copy(&backup, &copy).map_err(|error| io_error(&path, error.to_string()))?;
    make_ready(&copy)
        .map_err(|error| store_error(&backup, error))?
        .map_or(Ok(()), |problem| Err(damaged(&backup, &problem)))?;
    drop(lock);
    let before = match path.symlink_metadata() {
        Ok(_) => Some(aside::put_aside(&path, "before-restore", now)?),
        Err(_) => None,
    };
    publish(&copy, &path).map_err(|error| io_error(&path, error.to_string()))?;
    // Opens it as a monitor would: an older schema is brought up to date now, not at next start.
    drop(Database::open(&path, OpenOptions::default())?);
    Ok(before)
}

/// Reads all of a copy and gives it the log mode databases have; says what is wrong with it.
fn make_ready(copy: &Path) -> rusqlite::Result<Option<String>> {
    let connection = Connection::open(copy)?;
    let verdict: String =
        connection.query_row("PRAGMA integrity_check(1)", [], |row| row.get(0))?;
    if verdict != "ok" {
        return Ok(Some(verdict));
    }
    connection.pragma_update(None, "synchronous", "FULL")?;
    connection.pragma_update_and_check(None, "journal_mode", "WAL", |_| Ok(()))?;
    connection.close().map_err(|(_, error)| error)?;
    Ok(None)
}
