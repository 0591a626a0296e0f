//! What may stand at the path, and who may touch it.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use mcpmon_core::StoreError;
use mcpmon_core::store::{Batch, RecordQuery, SampleStore};
use mcpmon_store::{OpenOptions, SqliteStore};
use mcpmon_testkit::START;
use mcpmon_testkit::samples::check;
use rusqlite::Connection;
use tempfile::TempDir;

use crate::{append, open};

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o777
}

fn try_open(path: &Path) -> StoreError {
    SqliteStore::open(path, OpenOptions::default()).expect_err("this file must be refused")
}

/// Opens the file for writing and for reading; both must refuse it and leave it as it was.
#[track_caller]
fn is_refused(path: &Path, expected: impl Fn(&StoreError) -> bool) {
    let before = fs::read(path).unwrap();
    let beside = |path: &Path| {
        let lock = format!("{}.lock", path.display());
        fs::read_dir(path.parent().unwrap())
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .filter(|entry| *entry != Path::new(&lock))
            .collect::<Vec<PathBuf>>()
    };
    let files = beside(path);
    for error in [try_open(path), SqliteStore::reader(path).unwrap_err()] {
        assert!(expected(&error), "{error:?}");
        let message = error.to_string();
        assert!(message.contains(path.file_name().unwrap().to_str().unwrap()), "{message}");
    }
    assert_eq!(fs::read(path).unwrap(), before, "nothing written");
    assert_eq!(beside(path), files, "nothing left beside it");
}

#[tokio::test]
async fn file_and_directory_are_the_owners_alone() {
    let directory = TempDir::new().unwrap();
    let path = directory.path().join("state/mcpmon/mcpmon.db");
    let store = open(&path);
    append(&store, vec![check("files", START)]).await;
    assert_eq!(mode(path.parent().unwrap()), 0o700);
    assert_eq!(mode(&directory.path().join("state")), 0o700);
    for suffix in ["", "-wal", "-shm", ".lock"] {
        let file = PathBuf::from(format!("{}{suffix}", path.display()));
        assert_eq!(mode(&file), 0o600, "{}", file.display());
    }
    drop(store);
    fs::set_permissions(&path, PermissionsExt::from_mode(0o644)).unwrap();
    let _store = open(&path);
    assert_eq!(mode(&path), 0o600, "a file others could read is closed to them");
}

#[tokio::test]
async fn a_second_monitor_is_refused_while_readers_go_on() {
    let directory = TempDir::new().unwrap();
    let path = directory.path().join("mcpmon.db");
    assert!(!SqliteStore::is_in_use(&path));
    let first = open(&path);
    assert!(SqliteStore::is_in_use(&path));
    let second = try_open(&path);
    assert!(matches!(second, StoreError::InUse { .. }), "{second:?}");

    let reader = SqliteStore::reader(&path).unwrap();
    append(&first, vec![check("files", START)]).await;
    let page = reader.checks(&RecordQuery::all()).await.unwrap();
    assert_eq!(page.items, [check("files", START)]);
    assert_eq!(reader.services().await.unwrap().len(), 1);

    drop(first);
    assert!(!SqliteStore::is_in_use(&path));
    append(&open(&path), vec![check("files", START)]).await;
    assert_eq!(reader.checks(&RecordQuery::all()).await.unwrap().items.len(), 2);
}

#[tokio::test]
async fn a_reader_writes_nothing() {
    let directory = TempDir::new().unwrap();
    let path = directory.path().join("mcpmon.db");
    let missing = SqliteStore::reader(&path).unwrap_err();
    assert!(missing.to_string().contains("there is no database yet"), "{missing}");
    assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 0);

    drop(open(&path));
    let reader = SqliteStore::reader(&path).unwrap();
    let batch = Batch { checks: vec![check("files", START)], ..Batch::default() };
    let refused = reader.append(&batch).await.unwrap_err();
    assert!(matches!(refused, StoreError::Io { .. }), "{refused:?}");
    assert!(reader.prune(&mcpmon_core::store::PrunePlan::default()).await.is_err());
}

#[test]
fn an_empty_file_is_not_adopted() {
    let directory = TempDir::new().unwrap();
    let path = directory.path().join("mcpmon.db");
    fs::write(&path, "").unwrap();
    is_refused(&path, |error| matches!(error, StoreError::Damaged { .. }));
}

#[test]
fn what_is_no_database_is_refused() {
    let directory = TempDir::new().unwrap();
    let path = directory.path().join("mcpmon.db");
    for contents in [&b"hello"[..], &[0; 8_192], b"SQLite format 3\0 and no more"] {
        fs::write(&path, contents).unwrap();
        is_refused(&path, |error| matches!(error, StoreError::Damaged { .. }));
    }
}

#[test]
fn another_programs_database_is_refused() {
    let directory = TempDir::new().unwrap();
    let path = directory.path().join("theirs.db");
    let theirs = Connection::open(&path).unwrap();
    theirs
        .execute_batch("PRAGMA journal_mode = WAL; CREATE TABLE browser_history (url TEXT)")
        .unwrap();
    theirs.close().unwrap();
    is_refused(&path, |error| matches!(error, StoreError::Foreign { .. }));
}

#[test]
fn a_newer_schema_is_refused() {
    let directory = TempDir::new().unwrap();
    let path = directory.path().join("mcpmon.db");
    drop(open(&path));
    let newer = Connection::open(&path).unwrap();
    newer.pragma_update(None, "user_version", 4_711).unwrap();
    newer.close().unwrap();
    is_refused(&path, |error| {
        matches!(error, StoreError::NewerSchema { found: 4_711, known: 1, .. })
    });
}

#[tokio::test]
async fn a_file_that_was_cut_short_is_refused() {
    let directory = TempDir::new().unwrap();
    let path = directory.path().join("mcpmon.db");
    let store = open(&path);
    append(&store, (0..2_000).map(|_| check("files", START)).collect()).await;
    drop(store);
    let whole = fs::read(&path).unwrap();
    fs::write(&path, &whole[..whole.len() / 2]).unwrap();
    let error = try_open(&path);
    assert!(matches!(error, StoreError::Damaged { .. }), "{error:?}");
    assert_eq!(fs::read(&path).unwrap(), &whole[..whole.len() / 2]);
}

#[tokio::test]
async fn damage_inside_is_found_by_the_check() {
    let directory = TempDir::new().unwrap();
    let path = directory.path().join("mcpmon.db");
    let store = open(&path);
    append(&store, (0..2_000).map(|_| check("files", START)).collect()).await;
    let report = store.check().await.unwrap();
    assert!(report.ok && report.problems.is_empty(), "{report:?}");
    assert_eq!(report.application_id, "0x6d6d6f6e");
    drop(store);

    let mut bytes = fs::read(&path).unwrap();
    let page = bytes.len() - 2 * 4_096;
    bytes[page..page + 512].fill(0xa5);
    fs::write(&path, bytes).unwrap();
    // Wherever it is met, it is called damage.
    match SqliteStore::reader(&path) {
        Err(error) => assert!(matches!(error, StoreError::Damaged { .. }), "{error:?}"),
        Ok(reader) => match reader.check().await {
            Err(error) => assert!(matches!(error, StoreError::Damaged { .. }), "{error:?}"),
            Ok(report) => assert!(!report.ok && !report.problems.is_empty(), "{report:?}"),
        },
    }
}

#[tokio::test]
async fn what_was_appended_survives_a_crash() {
    let directory = TempDir::new().unwrap();
    let path = directory.path().join("mcpmon.db");
    let store = open(&path);
    let crashed = directory.path().join("crashed.db");
    for batch in 0..20 {
        append(&store, vec![check("files", START); 50]).await;
        // As the files stand at this moment, with nothing closed.
        for suffix in ["", "-wal"] {
            let of = |path: &Path| format!("{}{suffix}", path.display());
            fs::copy(of(&path), of(&crashed)).unwrap();
        }
        let survivor = open(&crashed);
        let page = survivor.checks(&RecordQuery::all()).await.unwrap();
        assert_eq!(page.items.len(), (batch + 1) * 50);
        assert!(survivor.check().await.unwrap().ok);
        drop(survivor);
        for suffix in ["", "-wal", "-shm"] {
            let _ = fs::remove_file(format!("{}{suffix}", crashed.display()));
        }
    }
}

#[test]
fn links_are_not_followed() {
    let directory = TempDir::new().unwrap();
    let real = directory.path().join("real.db");
    drop(open(&real));
    let link = directory.path().join("link.db");
    symlink(&real, &link).unwrap();
    is_refused(&link, |error| matches!(error, StoreError::Io { .. }));

    let nowhere = directory.path().join("nowhere.db");
    symlink(directory.path().join("made-by-link.db"), &nowhere).unwrap();
    assert!(matches!(try_open(&nowhere), StoreError::Io { .. }));
    assert!(!directory.path().join("made-by-link.db").exists());

    // The directory may be reached by a link, as home directories are.
    let by_link = directory.path().join("here");
    symlink(directory.path(), &by_link).unwrap();
    drop(open(&by_link.join("real.db")));

    let locked = directory.path().join("locked.db");
    symlink(&real, directory.path().join("locked.db.lock")).unwrap();
    assert!(matches!(try_open(&locked), StoreError::Io { .. }));
}

#[test]
fn a_path_that_cannot_be_used_says_what_to_do() {
    let directory = TempDir::new().unwrap();
    let file = directory.path().join("file");
    fs::write(&file, "").unwrap();
    for (path, advice) in [
        (file.join("mcpmon.db"), "give another path"),
        (directory.path().to_path_buf(), "give another path"),
        (PathBuf::from("/"), "give the path of a database file"),
        (PathBuf::from("/proc/mcpmon/mcpmon.db"), "give another path"),
    ] {
        let error = try_open(&path);
        assert!(matches!(error, StoreError::Io { .. }), "{error:?}");
        let message = error.to_string();
        assert!(message.contains(advice) && message.contains('`'), "{message}");
    }
}
