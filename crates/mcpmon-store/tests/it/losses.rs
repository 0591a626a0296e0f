//! What happens to the file behind the store's back while it is open.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use mcpmon_core::StoreError;
use mcpmon_core::store::{Batch, RecordQuery, SampleStore};
use mcpmon_store::{OpenOptions, SqliteStore};
use mcpmon_testkit::START;
use mcpmon_testkit::samples::check;
use rusqlite::Connection;
use tempfile::TempDir;

use crate::{append, open};

fn one(service: &str) -> Batch {
    Batch { checks: vec![check(service, START)], ..Batch::default() }
}

async fn services(store: &SqliteStore) -> Vec<String> {
    let page = store.checks(&RecordQuery::all()).await.unwrap();
    page.items.iter().map(|check| check.service.to_string()).collect()
}

/// Given again until it is written, as the engine does; meanwhile it is refused for this reason.
async fn written_at_last(store: &SqliteStore, batch: &Batch, reason: impl Fn(&StoreError) -> bool) {
    let mut refused = 0;
    while let Err(error) = store.append(batch).await {
        assert!(reason(&error) && refused < 500, "{error}");
        refused += 1;
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert!(refused > 0, "it was not noticed");
}

fn says_lost(error: &StoreError) -> bool {
    matches!(error, StoreError::Io { message, .. } if message.contains("moved or removed"))
}

#[tokio::test]
async fn a_file_that_was_removed_is_said_and_begun_anew() {
    let directory = TempDir::new().unwrap();
    let path = directory.path().join("mcpmon.db");
    let store = open(&path);
    append(&store, vec![check("before", START)]).await;
    assert_eq!(services(&store).await, ["before"]);
    fs::remove_file(&path).unwrap();

    written_at_last(&store, &one("after"), says_lost).await;
    assert_eq!(services(&store).await, ["after"]);
    assert!(SqliteStore::is_in_use(&path), "it is this monitor's again");
    assert_eq!(services(&SqliteStore::reader(&path).unwrap()).await, ["after"]);
    assert!(store.check().await.unwrap().ok);
}

#[tokio::test]
async fn a_directory_taken_away_is_waited_for_and_nothing_in_it_is_lost() {
    let root = TempDir::new().unwrap();
    let (directory, away) = (root.path().join("state"), root.path().join("away"));
    let path = directory.join("mcpmon.db");
    let store = open(&path);
    append(&store, vec![check("before", START)]).await;
    fs::rename(&directory, &away).unwrap();
    for _ in 0..3 {
        let refused = store.append(&one("after")).await.unwrap_err();
        assert!(matches!(refused, StoreError::Io { .. }), "{refused}");
    }
    assert!(!directory.exists(), "it may be a file system that is mounted again soon");
    fs::rename(&away, &directory).unwrap();
    written_at_last(&store, &one("after"), says_lost).await;
    assert_eq!(services(&store).await, ["before", "after"]);
    assert!(store.check().await.unwrap().ok);
}

#[tokio::test]
async fn a_file_in_the_place_of_the_open_one_is_taken_if_it_is_ours() {
    let directory = TempDir::new().unwrap();
    let (path, other) = (directory.path().join("mcpmon.db"), directory.path().join("other.db"));
    append(&open(&other), vec![check("other", START)]).await;
    let store = open(&path);
    append(&store, vec![check("before", START)]).await;
    let before = directory.path().join("before.db");
    fs::hard_link(&path, &before).unwrap();
    fs::rename(&other, &path).unwrap();
    written_at_last(&store, &one("after"), says_lost).await;
    assert_eq!(services(&store).await, ["other", "after"]);
    assert!(store.check().await.unwrap().ok);
    assert_eq!(services(&open(&before)).await, ["before"], "its log went into it");

    fs::remove_file(&path).unwrap();
    fs::write(&path, "another program's").unwrap();
    let refused = loop {
        let refused = store.append(&one("late")).await.unwrap_err();
        if !says_lost(&refused) {
            break refused;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    };
    assert!(matches!(refused, StoreError::Damaged { .. }), "{refused}");
    assert_eq!(fs::read(&path).unwrap(), b"another program's");
}

#[tokio::test]
async fn a_reader_gives_the_words_of_the_file_that_is_there() {
    let directory = TempDir::new().unwrap();
    let (path, other) = (directory.path().join("mcpmon.db"), directory.path().join("other.db"));
    append(&open(&path), vec![check("before", START)]).await;
    append(&open(&other), vec![check("other", START)]).await;
    let reader = SqliteStore::reader(&path).unwrap();
    assert_eq!(services(&reader).await, ["before"]);
    fs::rename(&other, &path).unwrap();
    // As many services as in the one before, under other names.
    assert_eq!(services(&reader).await, ["other"]);
}

fn files(directory: &Path) -> Vec<String> {
    let mut names: Vec<String> = fs::read_dir(directory)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned())
        .collect();
    names.sort();
    names
}

/// As after `kill -9` and the removal of the database alone.
#[tokio::test]
async fn a_log_whose_database_is_gone_is_put_aside_and_not_into_the_new_one() {
    let directory = TempDir::new().unwrap();
    let path = directory.path().join("mcpmon.db");
    let log = PathBuf::from(format!("{}-wal", path.display()));
    let store = open(&path);
    append(&store, vec![check("before", START)]).await;
    let left = fs::read(&log).unwrap();
    drop(store);
    fs::remove_file(&path).unwrap();
    fs::write(&log, &left).unwrap();

    let store = SqliteStore::open(&path, OpenOptions::default()).unwrap();
    assert_eq!(services(&store).await, Vec::<String>::new());
    store.append(&one("after")).await.unwrap();
    assert!(store.check().await.unwrap().ok);
    drop(store);
    assert_eq!(files(directory.path()), ["mcpmon.db", "mcpmon.db.lock", "mcpmon.db.lost-1-wal"]);
    assert_eq!(fs::read(directory.path().join("mcpmon.db.lost-1-wal")).unwrap(), left);
}

#[tokio::test]
async fn a_log_that_a_reader_held_up_is_cut_back_when_it_ends() {
    let directory = TempDir::new().unwrap();
    let path = directory.path().join("mcpmon.db");
    let store = open(&path);
    append(&store, vec![check("first", START)]).await;
    let other = Connection::open(&path).unwrap();
    other.execute_batch("BEGIN").unwrap();
    let count = |other: &Connection| {
        other.query_row("SELECT count(*) FROM service", [], |row| row.get::<_, u64>(0)).unwrap()
    };
    assert_eq!(count(&other), 1);
    let many = || (0..4_000).map(|n| check(&format!("s{}", n % 50), START)).collect::<Vec<_>>();
    let room = async || store.room().await.unwrap().unwrap();
    let longest = 24 << 20;
    while room().await.log_bytes < longest {
        append(&store, many()).await;
    }
    assert_eq!(count(&other), 1, "what it sees stays as it was");
    other.execute_batch("COMMIT").unwrap();
    let after = room().await;
    assert!(after.log_bytes < 1 << 20, "{after:?}");
    assert!(after.file_bytes > longest / 2 && after.free_bytes.is_some_and(|free| free > 0));
    assert!(store.check().await.unwrap().ok);
}
