//! The promises of the ports, kept on disk.
use mcpmon_store::{OpenOptions, SqliteStore};
use mcpmon_testkit::store_conformance::{store_conformance, store_persistence};
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
