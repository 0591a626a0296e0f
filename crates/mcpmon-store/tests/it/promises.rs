//! The promises of the ports, kept on disk.

use std::time::Duration;

use mcpmon_store::{OpenOptions, SqliteStore};
use mcpmon_testkit::store_conformance::{store_conformance, store_faults, store_persistence};
use tempfile::TempDir;

#[tokio::test]
async fn keeps_the_promises_of_a_store() {
    let directory = TempDir::new().unwrap();
    let count = std::cell::Cell::new(0);
    store_conformance(async || {
        count.set(count.get() + 1);
        let path = directory.path().join(format!("{}.db", count.get()));
        SqliteStore::open(path, OpenOptions::default()).unwrap()
    })
    .await;
}

#[tokio::test]
async fn everything_outlives_the_process() {
    let directory = TempDir::new().unwrap();
    let path = directory.path().join("mcpmon.db");
    let open = || SqliteStore::open(&path, OpenOptions::default()).unwrap();
    store_persistence(
        async || open(),
        async |store: SqliteStore| {
            drop(store);
            open()
        },
    )
    .await;
}

/// Another program that holds the file makes every write fail, whole.
#[tokio::test]
async fn what_could_not_be_written_left_nothing() {
    let directory = TempDir::new().unwrap();
    let path = directory.path().join("mcpmon.db");
    let holder = std::cell::RefCell::new(None);
    let options = OpenOptions { busy_timeout: Duration::from_millis(50), ..OpenOptions::default() };
    store_faults(
        async || SqliteStore::open(&path, options).unwrap(),
        async |_| {
            let other = rusqlite::Connection::open(&path).unwrap();
            other.execute_batch("BEGIN IMMEDIATE").unwrap();
            holder.replace(Some(other));
        },
        async |_| drop(holder.take()),
    )
    .await;
}
