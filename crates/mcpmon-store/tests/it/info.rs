//! What a database says of itself.

use std::time::Duration;

use mcpmon_core::Timestamp;
use mcpmon_core::store::{PrunePlan, SampleStore};
use mcpmon_testkit::START;
use mcpmon_testkit::samples::check;
use tempfile::TempDir;

use crate::{append, open};

fn at(seconds: u64) -> Timestamp {
    START.saturating_add(Duration::from_secs(seconds))
}

#[tokio::test]
async fn every_byte_belongs_to_a_table_and_every_check_to_a_resolution() {
    let directory = TempDir::new().unwrap();
    let store = open(&directory.path().join("mcpmon.db"));
    append(&store, (0..3_000).map(|n| check("files", at(n * 10))).collect()).await;
    while store.prune(&PrunePlan::default()).await.unwrap().more {}
    let info = store.info().await.unwrap();
    let all: u64 = info.tables.iter().map(|size| size.bytes).sum();
    let used = info.tables.iter().map(|size| size.bytes).max();
    assert!(used > Some(0) && info.tables.is_sorted_by(|a, b| a.bytes >= b.bytes));
    // What is in the write-ahead log is in no file yet.
    assert!(all + info.free_bytes <= info.file_bytes.max(all) + info.wal_bytes, "{info:?}");
    assert!(
        !info.tables.iter().any(|size| size.table.contains("_by_")),
        "indexes are their table's"
    );

    let names: Vec<_> = info.resolutions.iter().map(|one| one.resolution.as_str()).collect();
    assert_eq!(names, ["raw", "15m", "1h"]);
    let [raw, quarters, hours] = &info.resolutions[..] else { panic!("{info:?}") };
    assert_eq!((raw.rows, raw.oldest, raw.newest), (3_000, Some(at(0)), Some(at(29_990))));
    assert!(quarters.rows >= 30 && hours.rows >= 7, "{info:?}");
    assert!(quarters.rows > hours.rows && quarters.bytes > 0 && hours.bytes > 0);
    let quarter = Duration::from_secs(900);
    assert!(quarters.oldest.is_some_and(|from| from <= at(0) && at(0).since(from) < quarter));
    assert!(quarters.newest <= hours.newest.max(quarters.newest));
}

#[tokio::test]
async fn a_summary_that_cannot_be_read_is_a_problem() {
    let directory = TempDir::new().unwrap();
    let path = directory.path().join("mcpmon.db");
    let store = open(&path);
    append(&store, (0..3_000).map(|n| check("files", at(n * 10))).collect()).await;
    while store.prune(&PrunePlan::default()).await.unwrap().more {}
    assert!(store.check().await.unwrap().ok);
    drop(store);
    let sqlite = rusqlite::Connection::open(&path).unwrap();
    let broken = "UPDATE hour SET summary = x'ff' WHERE id = (SELECT max(id) FROM hour)";
    assert_eq!(sqlite.execute(broken, []).unwrap(), 1);
    drop(sqlite);
    let report = open(&path).check().await.unwrap();
    assert!(!report.ok);
    assert!(report.problems[0].contains("of hour cannot be unpacked"), "{:?}", report.problems);
}
