//! Files over time: files that are none, copies, the bound in bytes.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::Duration;

use mcpmon_core::store::{Batch, HistoryQuery, ListChange, PrunePlan, RecordQuery, SampleStore};
use mcpmon_core::{StoreError, Timestamp};
use mcpmon_store::{OpenOptions, SetAsideCause, SqliteStore};
use mcpmon_testkit::START;
use mcpmon_testkit::samples::check;
use tempfile::TempDir;

use crate::{append, open};

fn at(seconds: u64) -> Timestamp {
    START.saturating_add(Duration::from_secs(seconds))
}

fn open_or_begin(path: &Path) -> (SqliteStore, Option<mcpmon_store::SetAside>) {
    SqliteStore::open_or_begin(path, OpenOptions::default(), START).unwrap()
}

#[tokio::test]
async fn what_is_no_database_is_set_aside_and_a_new_one_begun() {
    let sound = {
        let directory = TempDir::new().unwrap();
        let path = directory.path().join("mcpmon.db");
        let store = open(&path);
        append(&store, (0..2_000).map(|n| check("files", at(n))).collect()).await;
        drop(store);
        fs::read(&path).unwrap()
    };
    let mut foreign = sound.clone();
    foreign[68..72].copy_from_slice(&[0, 0, 0, 7]);
    let bad: [(&str, &[u8], SetAsideCause); 4] = [
        ("empty", b"", SetAsideCause::Damaged),
        ("no database", b"# Shopping list\n", SetAsideCause::Damaged),
        ("cut short", &sound[..sound.len() / 2], SetAsideCause::Damaged),
        ("another program's", &foreign, SetAsideCause::Foreign),
    ];
    for (what, bytes, cause) in bad {
        let directory = TempDir::new().unwrap();
        let path = directory.path().join("mcpmon.db");
        fs::write(&path, bytes).unwrap();
        let (store, aside) = open_or_begin(&path);
        let aside = aside.unwrap_or_else(|| panic!("{what} is set aside"));
        assert_eq!(fs::read(&aside.path).unwrap(), bytes, "{what}: nothing of it is lost");
        assert!(aside.path.to_str().unwrap().contains("mcpmon.db.set-aside-"), "{aside:?}");
        assert!(aside.reason.contains("mcpmon.db"), "{aside:?}");
        assert_eq!(aside.cause, cause, "{what}");
        let sentence = format!(
            "{}; it was set aside as `{}`, and a new history begins",
            aside.reason,
            aside.path.display()
        );
        assert_eq!(aside.to_string(), sentence);
        append(&store, vec![check("files", START)]).await;
        drop(store);
        let (store, aside) = open_or_begin(&path);
        assert_eq!(aside, None);
        assert_eq!(store.info().await.unwrap().checks, 1);
    }
}

#[tokio::test]
async fn what_is_not_ours_to_move_stays() {
    let directory = TempDir::new().unwrap();
    let path = directory.path().join("mcpmon.db");
    let running = open(&path);
    let refused = SqliteStore::open_or_begin(&path, OpenOptions::default(), START).unwrap_err();
    assert!(matches!(refused, StoreError::InUse { .. }), "{refused:?}");
    drop(running);
    let newer = rusqlite::Connection::open(&path).unwrap();
    newer.pragma_update(None, "user_version", 4_711).unwrap();
    drop(newer);
    let refused = SqliteStore::open_or_begin(&path, OpenOptions::default(), START).unwrap_err();
    assert!(matches!(refused, StoreError::NewerSchema { .. }), "{refused:?}");
    let link = directory.path().join("link.db");
    std::os::unix::fs::symlink(&path, &link).unwrap();
    let refused = SqliteStore::open_or_begin(&link, OpenOptions::default(), START).unwrap_err();
    assert!(matches!(refused, StoreError::Io { .. }), "{refused:?}");
    assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 3, "file, lock, link");
}

#[tokio::test]
async fn a_backup_is_taken_while_it_is_written_and_put_back() {
    let directory = TempDir::new().unwrap();
    let path = directory.path().join("mcpmon.db");
    let copy = directory.path().join("copy.db");
    let store = open(&path);
    append(&store, (0..3_000).map(|n| check("files", at(n))).collect()).await;
    store.prune(&PrunePlan::default()).await.unwrap();
    let reader = SqliteStore::reader(&path).unwrap();
    let (backup, ()) = tokio::join!(reader.backup(&copy), async {
        append(&store, vec![check("files", at(5_000))]).await;
    });
    backup.unwrap();
    assert!(reader.backup(&copy).await.is_err(), "no file is written over");
    assert_eq!(fs::metadata(&copy).unwrap().permissions().mode() & 0o777, 0o600);

    append(&store, vec![check("later", at(9_000))]).await;
    let busy = SqliteStore::restore(&copy, &path, START).unwrap_err();
    assert!(matches!(busy, StoreError::InUse { .. }), "{busy:?}");
    drop((store, reader));
    let before = SqliteStore::restore(&copy, &path, START).unwrap().unwrap();
    let store = open(&path);
    assert!((3_000..=3_001).contains(&store.info().await.unwrap().checks));
    assert!(store.check().await.unwrap().ok);
    append(&store, vec![check("files", at(10_000))]).await;
    let before = SqliteStore::reader(&before).unwrap();
    assert_eq!(before.info().await.unwrap().services, 2, "what was replaced is still there");
    drop(store);

    let damaged = directory.path().join("damaged.db");
    let bytes = fs::read(&copy).unwrap();
    fs::write(&damaged, [&bytes[..8_192], &vec![7; bytes.len() - 8_192]].concat()).unwrap();
    let files = fs::read_dir(directory.path()).unwrap().count();
    SqliteStore::restore(&damaged, &path, START).unwrap_err();
    assert_eq!(fs::read_dir(directory.path()).unwrap().count(), files, "nothing was moved");
    assert_eq!(open(&path).info().await.unwrap().services, 1);
}

/// As after `kill -9`, with the database alone moved away before a copy is put in its place.
#[tokio::test]
async fn a_log_left_beside_is_not_put_into_what_is_restored() {
    let directory = TempDir::new().unwrap();
    let (path, copy) = (directory.path().join("mcpmon.db"), directory.path().join("copy.db"));
    let log = directory.path().join("mcpmon.db-wal");
    let store = open(&path);
    append(&store, vec![check("kept", START)]).await;
    store.backup(&copy).await.unwrap();
    append(&store, (0..3_000).map(|n| check("later", at(n))).collect()).await;
    let left = fs::read(&log).unwrap();
    assert!(left.len() > 8_192, "a log with something in it");
    drop(store);
    fs::rename(&path, directory.path().join("moved.db")).unwrap();
    fs::write(&log, &left).unwrap();

    assert_eq!(SqliteStore::restore(&copy, &path, START).unwrap(), None);
    let store = open(&path);
    assert_eq!(store.info().await.unwrap().checks, 1);
    assert!(store.check().await.unwrap().ok);
    assert_eq!(fs::read(directory.path().join("mcpmon.db.lost-1-wal")).unwrap(), left);
}

#[tokio::test]
async fn a_backup_given_up_leaves_nothing() {
    let directory = TempDir::new().unwrap();
    let store = open(&directory.path().join("mcpmon.db"));
    append(&store, (0..30_000).map(|n| check(&format!("s{}", n % 40), at(n))).collect()).await;
    let target = directory.path().join("copies");
    fs::create_dir(&target).unwrap();
    let begun = || {
        let mut inside = fs::read_dir(&target).unwrap().map(|entry| entry.unwrap().path());
        inside.any(|draft| draft.join("copy.db").exists())
    };
    let mut backup = Box::pin(store.backup(target.join("copy.db")));
    while !begun() {
        tokio::select! {
            biased;
            done = &mut backup => panic!("never seen to begin: {done:?}"),
            () = tokio::task::yield_now() => {}
        }
    }
    drop(backup);
    // The question that copied is over when the next ones have all been answered.
    store.check().await.unwrap();
    assert_eq!(fs::read_dir(&target).unwrap().count(), 0, "neither a copy nor a part of one");
}

#[tokio::test]
async fn the_file_is_held_under_its_bound_by_what_is_oldest() {
    const BOUND: u64 = 900_000;
    let directory = TempDir::new().unwrap();
    let path = directory.path().join("mcpmon.db");
    let store = open(&path);
    let plan = PrunePlan { most_bytes: Some(BOUND), ..PrunePlan::default() };
    let mut largest = 0;
    for round in 0..96_u64 {
        let checks = (0..2_500).map(|n| {
            let latency =
                Some(Duration::from_micros((n * 7_919 + round * 104_729) % 90_000 + 9_000));
            mcpmon_core::store::CheckRecord { latency, ..check("files", at(round * 2_500 + n)) }
        });
        append(&store, checks.collect()).await;
        while store.prune(&plan).await.unwrap().more {}
        largest = largest.max(fs::metadata(&path).unwrap().len());
    }
    assert!(largest < BOUND, "{largest} bytes");
    let info = store.info().await.unwrap();
    assert_eq!(info.newest_check, Some(at(239_999)));
    assert!(info.oldest_check > Some(at(0)), "the oldest went");
    let all =
        HistoryQuery { service: "files".into(), since: at(0), until: at(240_000), step: None };
    let whole = store.history(&all).await.unwrap().whole();
    assert!(whole.checks.sum() > info.checks, "rollups remember what checks do not");
    let report = store.would_prune(&plan).await.unwrap();
    assert_eq!((report.checks, report.surplus_bytes), (0, 0), "{report:?}");
    let plan = PrunePlan { checks_before: Some(at(240_000)), ..plan };
    let report = store.would_prune(&plan).await.unwrap();
    assert_eq!(report.checks, info.checks);
    assert!(store.check().await.unwrap().ok);
}

#[tokio::test]
async fn changes_of_lists_are_under_the_bound_as_well() {
    const BOUND: u64 = 700_000;
    let directory = TempDir::new().unwrap();
    let path = directory.path().join("mcpmon.db");
    let store = open(&path);
    let newest = at(3_600 * (ListChange::MOST_KEPT as u64 - 1));
    for service in ["files", "github", "search"] {
        let changes = (0..ListChange::MOST_KEPT as u64).map(|hour| ListChange {
            service: service.into(),
            at: at(3_600 * hour),
            hash_before: format!("c2:{hour:064x}"),
            hash: format!("c2:{:064x}", hour + 1),
            tools_before: 7,
            tools: 8,
            is_return: false,
        });
        let batch = Batch { list_changes: changes.collect(), ..Batch::default() };
        store.append(&batch).await.unwrap();
    }
    let plan = PrunePlan { most_bytes: Some(BOUND), ..PrunePlan::default() };
    let report = store.would_prune(&plan).await.unwrap();
    assert!(report.surplus_bytes > 0, "{report:?}");
    let outdated = PrunePlan { incidents_before: Some(at(36_000)), ..plan };
    assert_eq!(store.would_prune(&outdated).await.unwrap().others, 30);

    while store.prune(&plan).await.unwrap().more {}
    assert_eq!(store.would_prune(&plan).await.unwrap().surplus_bytes, 0);
    assert!(fs::metadata(&path).unwrap().len() < BOUND);
    let left = store.list_changes(&RecordQuery::all()).await.unwrap().items;
    assert!(left[0].at > at(0), "the oldest went");
    assert_eq!(left[left.len() - 1].at, newest, "the newest stay");
}
