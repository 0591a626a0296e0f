//! Which schema a file has, and how an older one becomes the newest.

use std::path::Path;
use std::sync::LazyLock;

use mcpmon_core::StoreError;
use rusqlite::Connection;
use rusqlite_migration::{M, Migrations};

use crate::error::{damaged, store_error};

/// `mmon`: marks a file as ours, in the header's `application_id`.
pub(crate) const APPLICATION_ID: u32 = 0x6d6d_6f6e;

/// `mcpm`: marks the files of development versions, schemas 1 to 3, which nothing reads any more.
pub(crate) const DEVELOPMENT_ID: u32 = 0x6d63_706d;

/// The schema this build writes; `user_version` of the file.
pub(crate) const NEWEST: u32 = STEPS.len() as u32;

/// Oldest first. A step that was released is never changed.
const STEPS: &[&str] = &[include_str!("../migrations/001_first.sql")];

static MIGRATIONS: LazyLock<Migrations<'static>> =
    LazyLock::new(|| Migrations::new(STEPS.iter().map(|sql| M::up(sql)).collect()));

/// The oldest SQLite without the race that can lose a WAL at its reset.
const OLDEST_SQLITE: (i32, &str) = (3_051_003, "3.51.3");

/// Refuses to run on an SQLite that can lose data.
///
/// # Errors
///
/// When the SQLite built in is too old.
pub(crate) fn assert_sqlite() -> Result<(), StoreError> {
    let (oldest, name) = OLDEST_SQLITE;
    if rusqlite::version_number() >= oldest {
        return Ok(());
    }
    let found = rusqlite::version();
    let message =
        format!("built with SQLite {found}, which can lose data; build with {name} or newer");
    Err(StoreError::Other(message.into()))
}

/// Brings a database to [`NEWEST`] in one transaction.
///
/// # Errors
///
/// When it cannot be written; it then is as it was.
pub(crate) fn migrate(path: &Path, connection: &mut Connection) -> Result<(), StoreError> {
    MIGRATIONS.to_latest(connection).map_err(|error| match error {
        rusqlite_migration::Error::RusqliteError { err, .. } => store_error(path, err),
        rusqlite_migration::Error::SpecifiedSchemaVersion(error) => {
            StoreError::Other(Box::new(error))
        }
        other => StoreError::Other(Box::new(other)),
    })
}

/// Checks whose file this is by its `application_id`.
///
/// # Errors
///
/// A development version's database, or another program's.
pub(crate) fn verify_owner(path: &Path, application: i64) -> Result<(), StoreError> {
    let path = || path.to_path_buf();
    if application == i64::from(APPLICATION_ID) {
        Ok(())
    } else if application == i64::from(DEVELOPMENT_ID) {
        Err(StoreError::Development { path: path() })
    } else {
        Err(StoreError::Foreign { path: path() })
    }
}

/// Checks what the file's header said against what SQLite reads, its log included.
///
/// # Errors
///
/// As [`verify_owner`]; also a newer schema than this build knows.
pub(crate) fn verify(path: &Path, connection: &Connection) -> Result<u32, StoreError> {
    let read = |pragma| connection.pragma_query_value(None, pragma, |row| row.get::<_, i64>(0));
    verify_owner(path, read("application_id").map_err(|error| store_error(path, error))?)?;
    let version = read("user_version").map_err(|error| store_error(path, error))?;
    let found = u32::try_from(version).map_err(|_| damaged(path, "its schema has no number"))?;
    if found > NEWEST {
        return Err(StoreError::NewerSchema { path: path.to_path_buf(), found, known: NEWEST });
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_file_becomes_the_newest_schema_and_stays_it() {
        let path = Path::new(":memory:");
        let mut connection = Connection::open_in_memory().unwrap();
        migrate(path, &mut connection).unwrap();
        assert_eq!(verify(path, &connection).unwrap(), NEWEST);
        migrate(path, &mut connection).unwrap();
        assert_eq!(verify(path, &connection).unwrap(), NEWEST);
        let tables: i64 = connection
            .query_row("SELECT count(*) FROM sqlite_schema WHERE type = 'table'", [], |row| {
                row.get(0)
            })
            .unwrap();
        assert!(tables >= 15, "{tables}");
    }

    #[test]
    fn the_sqlite_built_in_is_new_enough() {
        assert_sqlite().unwrap();
    }
}
