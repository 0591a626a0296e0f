//! A copy of the database, taken while it is written; and a copy put back.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use mcpmon_core::{StoreError, Timestamp};
use rusqlite::{Connection, InterruptHandle};
use tempfile::TempDir;

use crate::aside;
use crate::database::{Database, OpenOptions};
use crate::error::{damaged, store_error};
use crate::file::{self, Standing};

fn io_error(path: &Path, message: String) -> StoreError {
    StoreError::Io { path: path.to_path_buf(), message }
}

/// A copy being made, in a directory of its own: for the owner alone. Dropped before it was
/// published, copying ends and nothing of it remains.
pub(crate) struct Draft {
    target: PathBuf,
    copying: Arc<Copying>,
    directory: TempDir,
}

/// What copies, for whoever gives it up.
#[derive(Default)]
struct Copying(Mutex<Option<InterruptHandle>>);

impl Copying {
    fn is_by(&self, handle: Option<InterruptHandle>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = handle;
    }
}

impl Drop for Draft {
    fn drop(&mut self) {
        let copying = self.copying.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(handle) = &*copying {
            handle.interrupt();
        }
    }
}

/// Writes a draft's copy, wherever the draft itself is by then.
pub(crate) struct Copier {
    target: PathBuf,
    copy: PathBuf,
    copying: Arc<Copying>,
}

impl Draft {
    /// Begins a copy that is to become `target`, which must not exist.
    pub(crate) fn begin(target: &Path) -> Result<Self, StoreError> {
        let target = file::locate(target, false)?;
        if target.symlink_metadata().is_ok() {
            return Err(io_error(&target, "it is there already; name another file".into()));
        }
        let directory = tempfile::Builder::new()
            .prefix(".mcpmon-backup-")
            .tempdir_in(target.parent().unwrap_or(Path::new(".")))
            .map_err(|error| io_error(&target, format!("it cannot be created: {error}")))?;
        Ok(Self { target, copying: Arc::default(), directory })
    }

    pub(crate) fn copier(&self) -> Copier {
        Copier {
            target: self.target.clone(),
            copy: self.directory.path().join("copy.db"),
            copying: Arc::clone(&self.copying),
        }
    }

    /// Gives the finished copy its name.
    pub(crate) fn publish(self) -> Result<(), StoreError> {
        publish(&self.directory.path().join("copy.db"), &self.target)
            .map_err(|error| io_error(&self.target, error.to_string()))
    }
}

impl Copier {
    /// Writes a compact copy of one consistent view of the database. Whoever writes it goes on.
    pub(crate) fn copy(&self, database: &Database) -> Result<(), StoreError> {
        let Some(name) = self.copy.to_str() else {
            return Err(io_error(&self.target, "its path is no text".into()));
        };
        let copied = database.read_outside(|connection| {
            self.copying.is_by(Some(connection.get_interrupt_handle()));
            // Who was given up before this was heard finds no directory to write to.
            let copied = connection.execute("VACUUM INTO ?1", [name]);
            self.copying.is_by(None);
            copied.map(|_| ())
        });
        if copied.is_err()
            && let Some(directory) = self.copy.parent()
        {
            // What was written while the draft went would keep its directory.
            let _ = fs::remove_dir_all(directory);
        }
        copied
    }
}

fn publish(copy: &Path, target: &Path) -> std::io::Result<()> {
    use std::os::unix::fs::PermissionsExt;
    fs::set_permissions(copy, PermissionsExt::from_mode(0o600))?;
    file::publish(copy, target)
}

/// Puts a copy of `backup` in the place of the database at `path`. What stood there is put aside;
/// gives its new name.
///
/// # Errors
///
/// When the backup is none of ours or not sound, when a monitor writes the database, or when files
/// cannot be written. Then everything is as it was, unless the copy could not take its place: then
/// the error names where the database before is now.
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
    let before = match path.symlink_metadata() {
        Ok(_) => Some(aside::put_aside(&path, "before-restore", now, &lock)?),
        Err(_) => {
            // A log left by a database that was moved away would be put into the copy.
            aside::put_logs_aside(&path)?;
            None
        }
    };
    publish(&copy, &path).map_err(|error| {
        let before = before.as_ref().map_or_else(String::new, |before| {
            format!("; what was there before is `{}` now", before.display())
        });
        io_error(&path, format!("{error}{before}"))
    })?;
    drop(lock);
    // Opens it as a monitor would: an older schema is brought up to date now, not at next start.
    match Database::open(&path, OpenOptions::default()) {
        // A monitor that waited for the file has done so.
        Ok(_) | Err(StoreError::InUse { .. }) => Ok(before),
        Err(error) => Err(error),
    }
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
