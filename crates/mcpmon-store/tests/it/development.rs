//! Files of development versions, schemas 1 to 3: never read, never changed, kept under another
//! name.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::time::Duration;

use mcpmon_core::StoreError;
use mcpmon_core::store::{Batch, RecordQuery, SampleStore};
use mcpmon_store::{OpenOptions, SetAsideCause, SqliteStore};
use mcpmon_testkit::START;
use mcpmon_testkit::samples::check;
use rusqlite::Connection;
use tempfile::TempDir;

use crate::{append, open};

/// Every schema of development versions.
const SCHEMAS: [u32; 3] = [1, 2, 3];

fn development(schema: u32) -> PathBuf {
    format!("tests/data/development-{schema}.db").into()
}

/// The files in a directory by name, apart from the lock.
fn files(directory: &Path) -> BTreeMap<String, Vec<u8>> {
    let entries = fs::read_dir(directory).unwrap().map(Result::unwrap);
    entries
        .map(|entry| (entry.file_name().into_string().unwrap(), fs::read(entry.path()).unwrap()))
        .filter(|(name, _)| !name.ends_with(".lock"))
        .collect()
}

fn try_open(path: &Path) -> StoreError {
    SqliteStore::open(path, OpenOptions::default()).unwrap_err()
}

#[track_caller]
fn is_development(error: &StoreError, path: &Path) {
    assert!(matches!(error, StoreError::Development { .. }), "{error:?}");
    let sentence = format!(
        "database `{}` was written by a development version; this build cannot read it",
        path.display()
    );
    assert_eq!(error.to_string(), sentence);
}

/// Opens the file in `directory` in every way: what only reads or is strict refuses it and changes
/// nothing, a monitor keeps it and everything beside it as it was and begins a new history.
async fn check_kept(directory: &Path) {
    let directory = directory.canonicalize().unwrap();
    let path = directory.join("mcpmon.db");
    let before = files(&directory);
    assert_eq!(&before["mcpmon.db"][68..72], b"mcpm");
    for error in [SqliteStore::reader(&path).unwrap_err(), try_open(&path)] {
        is_development(&error, &path);
    }
    let reader = OpenOptions { read_only: true, ..OpenOptions::default() };
    is_development(&SqliteStore::open_or_begin(&path, reader, START).unwrap_err(), &path);
    assert_eq!(files(&directory), before, "nothing is changed or left beside it");

    let (store, aside) = SqliteStore::open_or_begin(&path, OpenOptions::default(), START).unwrap();
    let aside = aside.unwrap();
    assert_eq!(aside.cause, SetAsideCause::Development);
    let shown = path.display();
    let sentence = format!(
        "database `{shown}` was written by a development version; kept as \
         `{shown}.set-aside-20261122_140931`, and a new history begins"
    );
    assert_eq!(aside.to_string(), sentence);
    let kept: BTreeMap<String, Vec<u8>> = files(&directory)
        .into_iter()
        .filter_map(|(name, bytes)| {
            let part = name.strip_prefix("mcpmon.db.set-aside-20261122_140931")?;
            Some((format!("mcpmon.db{part}"), bytes))
        })
        .collect();
    assert_eq!(kept, before, "kept whole and unchanged");

    assert!(store.services().await.unwrap().is_empty(), "a new history");
    append(&store, vec![check("files", START)]).await;
    drop(store);
    let (store, aside) = SqliteStore::open_or_begin(&path, OpenOptions::default(), START).unwrap();
    assert_eq!(aside, None);
    let page = store.checks(&RecordQuery::all()).await.unwrap();
    assert_eq!(page.items, [check("files", START)]);
    assert_eq!(store.info().await.unwrap().schema_version, 1);
    assert!(store.check().await.unwrap().ok);
}

#[tokio::test]
async fn a_file_of_each_development_schema_is_kept_and_a_new_history_begun() {
    for schema in SCHEMAS {
        let bytes = fs::read(development(schema)).unwrap();
        assert_eq!(bytes[60..64], schema.to_be_bytes(), "the file is what its name says");
        let directory = TempDir::new().unwrap();
        fs::copy(development(schema), directory.path().join("mcpmon.db")).unwrap();
        check_kept(directory.path()).await;
    }
}

/// As after `kill -9` of a development version: what it wrote last is in the log alone.
#[tokio::test]
async fn its_log_is_kept_beside_it() {
    for schema in SCHEMAS {
        let (source, directory) = (TempDir::new().unwrap(), TempDir::new().unwrap());
        let path = source.path().join("mcpmon.db");
        fs::copy(development(schema), &path).unwrap();
        let killed = Connection::open(&path).unwrap();
        killed.execute("INSERT INTO meta (key, value) VALUES ('in the log', 1)", []).unwrap();
        for (name, bytes) in files(source.path()) {
            fs::write(directory.path().join(name), bytes).unwrap();
        }
        drop(killed);
        let names: Vec<String> = files(directory.path()).into_keys().collect();
        assert_eq!(names, ["mcpmon.db", "mcpmon.db-shm", "mcpmon.db-wal"]);
        assert!(!files(directory.path())["mcpmon.db-wal"].is_empty());
        check_kept(directory.path()).await;
    }
}

#[tokio::test]
async fn a_damaged_one_is_still_a_development_versions() {
    for schema in SCHEMAS {
        let whole = fs::read(development(schema)).unwrap();
        let mut garbled = whole.clone();
        garbled[100..].fill(0xa5);
        let mut numbered_oddly = whole.clone();
        numbered_oddly[60..64].copy_from_slice(&9_999_u32.to_be_bytes());
        for bytes in [&garbled, &numbered_oddly, &whole[..100], &whole[..whole.len() / 2]] {
            let directory = TempDir::new().unwrap();
            fs::write(directory.path().join("mcpmon.db"), bytes).unwrap();
            check_kept(directory.path()).await;
        }
    }
}

#[test]
fn one_that_a_development_version_has_open_is_left_alone() {
    let directory = TempDir::new().unwrap();
    let path = directory.path().join("mcpmon.db");
    fs::copy(development(3), &path).unwrap();
    let before = files(directory.path());
    let lock = File::create(directory.path().join("mcpmon.db.lock")).unwrap();
    lock.lock().unwrap();
    let refused = SqliteStore::open_or_begin(&path, OpenOptions::default(), START).unwrap_err();
    assert!(matches!(refused, StoreError::InUse { .. }), "{refused:?}");
    assert_eq!(files(directory.path()), before);
}

#[tokio::test]
async fn one_put_in_the_place_of_an_open_database_is_left_alone() {
    let directory = TempDir::new().unwrap();
    let path = directory.path().join("mcpmon.db");
    let store = open(&path);
    append(&store, vec![check("before", START)]).await;
    fs::rename(&path, directory.path().join("before.db")).unwrap();
    fs::copy(development(3), &path).unwrap();
    let batch = Batch { checks: vec![check("after", START)], ..Batch::default() };
    let refused = loop {
        match store.append(&batch).await.unwrap_err() {
            StoreError::Io { .. } => tokio::time::sleep(Duration::from_millis(20)).await,
            other => break other,
        }
    };
    assert!(matches!(refused, StoreError::Development { .. }), "{refused:?}");
    assert_eq!(fs::read(&path).unwrap(), fs::read(development(3)).unwrap());
}

#[tokio::test]
async fn one_is_no_backup_and_is_kept_when_a_backup_takes_its_place() {
    let directory = TempDir::new().unwrap();
    let directory = directory.path().canonicalize().unwrap();
    let (path, old) = (directory.join("mcpmon.db"), directory.join("old.db"));
    fs::copy(development(3), &old).unwrap();
    let store = open(&path);
    append(&store, vec![check("files", START)]).await;
    let copy = directory.join("copy.db");
    store.backup(&copy).await.unwrap();
    drop(store);
    let before = files(&directory);
    is_development(&SqliteStore::restore(&old, &path, START).unwrap_err(), &old);
    assert_eq!(files(&directory), before, "nothing is changed");

    let kept = SqliteStore::restore(&copy, &old, START).unwrap().unwrap();
    assert_eq!(kept, directory.join("old.db.before-restore-20261122_140931"));
    assert_eq!(fs::read(kept).unwrap(), fs::read(development(3)).unwrap());
    assert_eq!(open(&old).info().await.unwrap().checks, 1);
}
