//! The power goes at any moment: what was written and synced is recorded, played up to a point,
//! and from there on what no sync had made durable is dropped, torn or kept by lot. What was
//! reported committed is there then, and the file is sound. Twenty cuts in CI, two hundred with
//! `MCPMON_SOAK=1`.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::Duration;

use mcpmon_bad_disk::{Disk, Fault, Lots, Op, Replay, Trace};
use mcpmon_core::Timestamp;
use mcpmon_core::alert::Alert;
use mcpmon_core::store::{
    AlertQuery, Batch, CheckRecord, IncidentLog as _, NewDelivery, PrunePlan, RecordQuery,
    SampleStore as _, StoreError, Transition,
};
use mcpmon_core::{Notification, NotificationKind};
use mcpmon_store::{OpenOptions, SqliteStore};
use mcpmon_testkit::{START, samples};
use rusqlite::Connection;
use tempfile::TempDir;

/// Services, each with one check in every batch.
const SERVICES: i64 = 8;
/// Between the checks of one batch and the next.
const STEP: Duration = Duration::from_secs(60);
/// Checks older than this are pruned while others are written.
const KEPT: Duration = Duration::from_secs(3 * 3_600);
/// Batches between two alerts.
const BETWEEN_ALERTS: i64 = 7;

fn soak() -> bool {
    std::env::var_os("MCPMON_SOAK").is_some()
}

fn at(number: i64) -> Timestamp {
    Timestamp::from_millis(START.as_millis() + number * STEP.as_millis() as i64)
}

fn number_of(check: &CheckRecord) -> i64 {
    check.at.since(START).as_millis() as i64 / STEP.as_millis() as i64
}

fn batch(number: i64) -> Batch {
    let check = |service| {
        let mut check = samples::check(&format!("service-{service}"), at(number));
        check.latency = Some(Duration::from_micros(10_000 + (number * 7_919 % 5_000) as u64 * 10));
        check
    };
    Batch { checks: (0..SERVICES).map(check).collect(), ..Batch::default() }
}

fn alert(number: i64) -> Alert {
    let id = format!("alert-{number}");
    Alert { id, timestamp: at(number), ..samples::alert("service_down", "service-0") }
}

fn transition(number: i64) -> Transition {
    let alert = alert(number);
    let notification = Notification::new(&alert.id, NotificationKind::Firing, vec![alert.clone()]);
    Transition {
        alerts: vec![alert],
        deliveries: vec![NewDelivery { handler: "nobody".to_owned(), notification }],
        at: at(number),
        ..Transition::default()
    }
}

fn plan(number: i64) -> PrunePlan {
    PrunePlan { checks_before: Some(at(number).saturating_sub(KEPT)), ..PrunePlan::default() }
}

/// What somebody was told to be durable.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Promise {
    Batch(i64),
    Alert(i64),
}

impl Promise {
    fn note(self) -> u64 {
        match self {
            Self::Batch(number) => number as u64 * 2,
            Self::Alert(number) => number as u64 * 2 + 1,
        }
    }

    fn of(note: u64) -> Self {
        let number = (note / 2) as i64;
        if note.is_multiple_of(2) { Self::Batch(number) } else { Self::Alert(number) }
    }
}

/// Writes batches and alerts in four lives of a store, while it seals, sums up and prunes.
async fn recorded(batches: i64) -> Trace {
    let directory = TempDir::new().unwrap();
    let path = directory.path().join("mcpmon.db");
    drop(SqliteStore::open(&path, OpenOptions::default()).unwrap());
    let disk = Disk::at(directory.path()).unwrap();
    disk.record().unwrap();
    let lives = 4;
    for life in 0..lives {
        let store = SqliteStore::open(&path, OpenOptions::default()).unwrap();
        for number in life * batches / lives..(life + 1) * batches / lives {
            let keeping = async {
                // Some steps at a time, as the engine does.
                for _ in 0..4 {
                    if !store.prune(&plan(number)).await.unwrap().more {
                        break;
                    }
                }
            };
            let writing = async {
                store.append(&batch(number)).await.unwrap();
                disk.promise(Promise::Batch(number).note());
                if number % BETWEEN_ALERTS == 0 {
                    store.commit(&transition(number)).await.unwrap();
                    disk.promise(Promise::Alert(number).note());
                }
            };
            tokio::join!(keeping, writing);
        }
    }
    disk.recorded()
}

async fn all_checks(store: &SqliteStore) -> Vec<CheckRecord> {
    let mut query = RecordQuery::all();
    let mut checks = Vec::new();
    loop {
        let page = store.checks(&query).await.unwrap();
        checks.extend(page.items);
        query.after = page.next;
        if query.after.is_none() {
            return checks;
        }
    }
}

/// Writes what a disk holds into a new directory.
fn laid_out(files: &BTreeMap<String, Vec<u8>>) -> TempDir {
    let directory = TempDir::new().unwrap();
    for (name, bytes) in files {
        if !name.ends_with("-shm") {
            std::fs::write(directory.path().join(name), bytes).unwrap();
        }
    }
    directory
}

fn integrity(database: &Path) -> String {
    let connection = Connection::open(database).unwrap();
    connection.query_row("PRAGMA integrity_check", [], |row| row.get(0)).unwrap()
}

/// Opens what is left as SQLite would, and as a monitor would.
async fn assert_kept(files: &BTreeMap<String, Vec<u8>>, promises: &[u64], place: &str) {
    let directory = laid_out(files);
    assert_eq!(integrity(&directory.path().join("mcpmon.db")), "ok", "{place}");

    let directory = laid_out(files);
    let path = directory.path().join("mcpmon.db");
    let store = SqliteStore::open(&path, OpenOptions::default()).unwrap();
    let report = store.check().await.unwrap();
    assert!(report.ok, "{place}: {:?}", report.problems);

    let (mut batches, mut alerts) = (BTreeSet::new(), BTreeSet::new());
    for promise in promises {
        match Promise::of(*promise) {
            Promise::Batch(number) => batches.insert(number),
            Promise::Alert(number) => alerts.insert(format!("alert-{number}")),
        };
    }
    let next = batches.last().map_or(0, |last| last + 1);
    let mut stored: BTreeMap<i64, i64> = BTreeMap::new();
    for check in all_checks(&store).await {
        *stored.entry(number_of(&check)).or_default() += 1;
    }
    let pruned = at(next).saturating_sub(KEPT);
    let lost: Vec<_> = batches
        .iter()
        .filter(|number| at(**number) >= pruned && stored.get(*number) != Some(&SERVICES))
        .collect();
    assert!(lost.is_empty(), "{place}: reported committed and lost, or there in part: {lost:?}");
    // The one under way is there whole or not at all.
    assert!(stored.get(&next).is_none_or(|checks| *checks == SERVICES), "{place}");
    assert!(stored.keys().all(|number| *number <= next), "{place}");

    let query = AlertQuery { limit: 10_000, ..AlertQuery::default() };
    let known: BTreeSet<_> =
        store.alerts(&query).await.unwrap().into_iter().map(|record| record.alert.id).collect();
    let due = store.due("nobody", Timestamp::from_millis(i64::MAX / 2), 10_000).await.unwrap();
    let due: BTreeSet<_> = due.into_iter().map(|delivery| delivery.notification.key).collect();
    assert!(alerts.is_subset(&known), "{place}: alerts lost");
    assert!(alerts.is_subset(&due), "{place}: deliveries lost");

    store.append(&batch(next + 1)).await.unwrap();
    assert!(store.check().await.unwrap().ok, "{place}: after it was written again");
}

#[tokio::test]
async fn a_power_cut_costs_nothing_that_was_reported_committed() {
    let (batches, cuts) = if soak() { (800, 200) } else { (200, 20) };
    let trace = recorded(batches).await;
    let syncs = trace.ops.iter().filter(|op| matches!(op, Op::Sync { .. })).count();
    let mut lots = Lots::new(20_261_122);
    let mut places: Vec<u64> = (0..cuts).map(|_| lots.below(trace.ops.len() as u64)).collect();
    places.sort_unstable();
    let mut replay = Replay::of(&trace);
    let (mut played, mut unsynced, mut batches_kept) = (0, 0, 0);
    for place in places {
        for op in &trace.ops[played..place as usize] {
            replay.step(op);
        }
        played = place as usize;
        unsynced += replay.unsynced();
        let words = format!("cut before operation {place} of {}", trace.ops.len());
        assert_kept(&replay.cut(&mut lots), replay.promises(), &words).await;
        batches_kept += replay.promises().len();
    }
    assert!(unsynced > 0, "no cut met a write that was not synced");
    println!(
        "{cuts} power cuts in a trace of {} operations ({syncs} syncs, {batches} batches): \
         {unsynced} unsynced writes dropped, torn or kept, {batches_kept} promises looked up, \
         0 broken, 0 corrupt files",
        trace.ops.len(),
    );
}

/// That the test above can fail: with the syncs left out of the same trace, promises break.
#[tokio::test]
async fn without_syncs_a_power_cut_would_cost_something() {
    let mut trace = recorded(60).await;
    trace.ops.retain(|op| !matches!(op, Op::Sync { .. }));
    let mut replay = Replay::of(&trace);
    trace.ops.iter().for_each(|op| replay.step(op));
    let mut lost = 0;
    for seed in 0..20 {
        let directory = laid_out(&replay.cut(&mut Lots::new(seed)));
        let path = directory.path().join("mcpmon.db");
        let kept = match SqliteStore::open(&path, OpenOptions::default()) {
            Ok(store) => match store.checks(&RecordQuery::all()).await {
                Ok(page) => page.items.len() as i64,
                Err(_) => -1,
            },
            Err(_) => -1,
        };
        lost += i32::from(kept != 60 * SERVICES);
    }
    assert!(lost > 0);
}

/// Tries again until it is written, as the engine does.
async fn written(store: &SqliteStore, batch: &Batch) -> u32 {
    for refused in 0.. {
        match store.append(batch).await {
            Ok(()) => return refused,
            Err(StoreError::Full { .. } | StoreError::Io { .. }) if refused < 50 => {}
            Err(error) => panic!("{error:?}"),
        }
    }
    unreachable!("it is tried until it is written, or the test fails")
}

/// Each write, truncation, sync and deletion of a store's life fails once, in its turn: what was
/// refused is written once when it is given again, and nothing else is lost.
#[tokio::test]
async fn whichever_write_fails_what_is_given_again_is_stored_once() {
    let (mut places, mut refusals, mut place) = (0_u32, 0, 0);
    let stride = if soak() { 1 } else { 11 };
    for fault in [Fault::Broken, Fault::Full] {
        for lasts in [1, 3] {
            place = 0;
            loop {
                let directory = TempDir::new().unwrap();
                let path = directory.path().join("mcpmon.db");
                drop(SqliteStore::open(&path, OpenOptions::default()).unwrap());
                let disk = Disk::at(directory.path()).unwrap();
                let store = SqliteStore::open(&path, OpenOptions::default()).unwrap();
                disk.fail_after(place, fault, lasts);
                for number in 0..30 {
                    refusals += written(&store, &batch(number)).await;
                    // What upkeep could not do it does at its next turn.
                    let _ = store.prune(&plan(number)).await;
                }
                let failed = disk.has_failed();
                disk.set(Fault::None);
                drop(store);
                let store = SqliteStore::open(&path, OpenOptions::default()).unwrap();
                let checks = all_checks(&store).await;
                assert_eq!(checks.len() as i64, 30 * SERVICES, "{fault:?} at {place}");
                let report = store.check().await.unwrap();
                assert!(report.ok, "{fault:?} at {place}: {:?}", report.problems);
                if !failed {
                    break;
                }
                places += 1;
                place += stride;
            }
        }
    }
    assert!(place > 30, "the fault was met at {place} places only");
    println!("{places} lives with a fault: {refusals} batches refused, each stored once at last");
}
