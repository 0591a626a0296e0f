//! Long histories: pages, retention, the last check, what `db info` says.

use std::time::Duration;

use mcpmon_core::Timestamp;
use mcpmon_core::store::{
    Batch, CheckRecord, HostRecord, PrunePlan, RecordQuery, Retention, SampleStore,
};
use mcpmon_store::SqliteStore;
use mcpmon_testkit::START;
use mcpmon_testkit::samples::{check, system_metrics};
use proptest::prelude::*;
use tempfile::TempDir;

use crate::{append, open};

fn at(seconds: u64) -> Timestamp {
    START.saturating_add(Duration::from_secs(seconds))
}

async fn every(store: &SqliteStore, query: &RecordQuery) -> Vec<CheckRecord> {
    let mut query = query.clone();
    let mut found = Vec::new();
    loop {
        let page = store.checks(&query).await.unwrap();
        found.extend(page.items);
        query.after = page.next;
        if query.after.is_none() {
            assert!(found.is_sorted_by_key(|check| check.at));
            return in_order(found);
        }
    }
}

/// By time, then service, then as they were appended.
fn in_order(mut checks: Vec<CheckRecord>) -> Vec<CheckRecord> {
    checks.sort_by(|a, b| (a.at, &a.service).cmp(&(b.at, &b.service)));
    checks
}

/// Checks as they could come: mostly in order, with clocks that jump hours and back.
fn batches() -> impl Strategy<Value = Vec<Vec<(u8, i64)>>> {
    let check = (0..4_u8, prop_oneof![4 => 0..90_i64, 1 => -40_000..40_000_i64]);
    proptest::collection::vec(proptest::collection::vec(check, 0..40), 0..8)
}

fn edge() -> impl Strategy<Value = Option<i64>> {
    proptest::option::of(-1_000..1_000_i64)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn pages_equal_a_sorted_filter_of_what_was_appended(
        batches in batches(),
        service in proptest::option::of(0..4_u8),
        since in edge(),
        until in edge(),
        limit in 1..50_usize,
        before in edge(),
    ) {
        const SERVICES: [&str; 4] = ["a", "b", "c", "d"];
        let moment = |second: i64| Timestamp::from_millis(START.as_millis() + second * 1_000);
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let directory = TempDir::new().unwrap();
            let path = directory.path().join("mcpmon.db");
            let mut store = open(&path);
            let mut appended = Vec::new();
            for (number, batch) in batches.iter().enumerate() {
                let start = number as i64 * 60;
                let checks: Vec<_> = batch
                    .iter()
                    .map(|(service, second)| {
                        check(SERVICES[usize::from(*service)], moment(start + second))
                    })
                    .collect();
                append(&store, checks.clone()).await;
                appended.extend(checks);
                if number % 3 == 2 {
                    drop(store);
                    store = open(&path);
                }
            }
            appended = in_order(appended);
            let query = RecordQuery {
                service: service.map(|service| SERVICES[usize::from(service)].into()),
                since: since.map(moment),
                until: until.map(moment),
                limit,
                after: None,
            };
            let wanted = |check: &CheckRecord| {
                query.service.as_ref().is_none_or(|service| *service == check.service)
                    && query.since.is_none_or(|since| check.at >= since)
                    && query.until.is_none_or(|until| check.at < until)
            };
            let expected: Vec<_> = appended.iter().filter(|c| wanted(c)).cloned().collect();
            assert_eq!(every(&store, &query).await, expected);

            let plan = PrunePlan { checks_before: before.map(moment), ..PrunePlan::default() };
            while store.prune(&plan).await.unwrap().more {}
            appended.retain(|check| plan.checks_before.is_none_or(|before| check.at >= before));
            assert_eq!(every(&store, &RecordQuery::all()).await, appended);
            assert!(store.check().await.unwrap().ok);
        });
    }
}

#[test]
fn retention_is_a_plan() {
    let days = |days: u64| Duration::from_secs(days * 86_400);
    let now = Timestamp::from_millis(100 * 86_400_000);
    for ((raw, quarters, hours), expected) in
        [((7, 30, 365), (93, 70, -265)), ((1, 1, 30), (99, 99, 70)), ((0, 0, 0), (100, 100, 100))]
    {
        let (raw, quarters, hours) = (days(raw), days(quarters), days(hours));
        let plan = Retention { raw, quarters, hours, most_bytes: 5 }.plan(now);
        let day = |day: i64| Some(Timestamp::from_millis(day * 86_400_000));
        assert_eq!(plan.checks_before, day(expected.0));
        assert_eq!(plan.quarters_before, day(expected.1));
        assert_eq!((plan.hours_before, plan.incidents_before), (day(expected.2), day(expected.2)));
        assert_eq!(plan.most_bytes, Some(5));
    }
}

#[tokio::test]
async fn pruning_takes_small_steps_and_gives_the_space_back() {
    let directory = TempDir::new().unwrap();
    let path = directory.path().join("mcpmon.db");
    let store = open(&path);
    for batch in 0..12 {
        let checks = (0..10_000).map(|n| check("files", at(batch * 1_000 + n / 10))).collect();
        append(&store, checks).await;
    }
    let host = (0..50).map(|n| HostRecord { at: at(n * 15), metrics: system_metrics() }).collect();
    store.append(&Batch { host, ..Batch::default() }).await.unwrap();
    let full = store.info().await.unwrap();
    assert_eq!((full.checks, full.host_samples), (120_000, 50));

    let plan = PrunePlan { checks_before: Some(at(11_990)), ..PrunePlan::default() };
    let (mut rows, mut steps) = (0, 0);
    loop {
        let pruned = store.prune(&plan).await.unwrap();
        rows += pruned.rows;
        steps += 1;
        if !pruned.more {
            break;
        }
    }
    assert!(steps > 20, "{steps}");
    assert_eq!(rows, 119_900 + 50);
    let left = store.info().await.unwrap();
    assert_eq!((left.checks, left.oldest_check), (100, Some(at(11_990))));
    assert!(left.free_bytes < full.file_bytes / 4, "{left:?}");
    drop(store);
    let size = std::fs::metadata(&path).unwrap().len();
    let before = full.file_bytes + full.wal_bytes;
    assert!(size < before / 2, "{size} of {before} bytes");
    assert!(!directory.path().join("mcpmon.db-wal").exists(), "closing leaves no log behind");
}

#[tokio::test]
async fn numbers_are_not_given_twice_after_everything_was_pruned() {
    let directory = TempDir::new().unwrap();
    let path = directory.path().join("mcpmon.db");
    let store = open(&path);
    append(&store, vec![check("gone", at(0)), check("files", at(1))]).await;
    let plan = PrunePlan { checks_before: Some(at(100)), ..PrunePlan::default() };
    while store.prune(&plan).await.unwrap().more {}
    drop(store);
    let store = open(&path);
    append(&store, vec![check("files", at(200))]).await;
    let services = store.services().await.unwrap();
    let last: Vec<_> = services.into_iter().map(|stored| stored.last_check).collect();
    assert_eq!(last, [Some(check("files", at(200))), None]);
    assert!(store.check().await.unwrap().ok);
}

#[tokio::test]
async fn the_last_check_is_right_before_and_after_its_pointer_is_written() {
    let directory = TempDir::new().unwrap();
    let path = directory.path().join("mcpmon.db");
    let store = open(&path);
    let reader = SqliteStore::reader(&path).unwrap();
    append(&store, vec![check("rare", at(0))]).await;
    for batch in 0..5 {
        // Each batch passes the stride or stays short of it.
        let checks: Vec<_> =
            (0..7_000).map(|n| check(["a", "b"][n % 2], at(batch * 7_000 + n as u64))).collect();
        let last = checks[checks.len() - 2..].to_vec();
        append(&store, checks).await;
        for services in [store.services().await.unwrap(), reader.services().await.unwrap()] {
            let found: Vec<_> =
                services.into_iter().filter_map(|stored| stored.last_check).collect();
            assert_eq!(found, [last[0].clone(), last[1].clone(), check("rare", at(0))]);
        }
    }
}

#[tokio::test]
async fn info_counts_what_is_there() {
    let directory = TempDir::new().unwrap();
    let path = directory.path().join("mcpmon.db");
    let store = open(&path);
    let empty = store.info().await.unwrap();
    assert_eq!((empty.checks, empty.bytes_per_check, empty.oldest_check), (0, None, None));
    append(&store, (0..5_000).map(|n| check("files", at(n))).collect()).await;
    let info = SqliteStore::reader(&path).unwrap().info().await.unwrap();
    assert_eq!((info.schema.as_str(), info.schema_version), ("mcpmon/db-info/v1", 1));
    assert_eq!((info.services, info.checks, info.in_use), (1, 5_000, true));
    assert_eq!((info.oldest_check, info.newest_check), (Some(at(0)), Some(at(4_999))));
    assert!(info.file_bytes + info.wal_bytes > 0);
    let each = info.bytes_per_check.unwrap();
    assert!((20.0..100.0).contains(&each), "{each} bytes a check");
    let json = serde_json::to_value(&info).unwrap();
    assert_eq!(json["outbox"]["queued"], 0);
}
