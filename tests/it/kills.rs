//! `kill -9` while the history is written: nothing that was reported committed is lost, and the
//! file is sound. Ten times in CI, two hundred with `MCPMON_SOAK=1`.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::Duration;

use mcpmon_core::store::{CheckRecord, IncidentLog as _, RecordQuery, SampleStore as _};
use mcpmon_core::{ServiceName, Timestamp};
use mcpmon_store::SqliteStore;
use mcpmon_testkit::{ChildGuard, Stream};
use rusqlite::{Connection, OpenFlags};
use rustix::process::Signal;
use tokio::process::Command;

use crate::home::{Home, until};

/// Checks in each batch of `append-batches`.
const CHECKS: usize = 25;

fn kills() -> u32 {
    if std::env::var_os("MCPMON_SOAK").is_some() { 200 } else { 10 }
}

/// Moments that look drawn by lot and are the same every time.
struct Moments(u64);

impl Moments {
    fn next(&mut self, from: u64, to: u64) -> Duration {
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        Duration::from_micros(from * 1_000 + (self.0 >> 33) % ((to - from) * 1_000))
    }
}

#[track_caller]
fn assert_sound(database: &Path) {
    let connection =
        Connection::open_with_flags(database, OpenFlags::SQLITE_OPEN_READ_ONLY).unwrap();
    let said: String =
        connection.query_row("PRAGMA integrity_check", [], |row| row.get(0)).unwrap();
    assert_eq!(said, "ok");
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

fn numbers(written: &str, word: &str) -> Vec<i64> {
    let number = |line: &str| line.strip_prefix(word)?.trim().parse().ok();
    // The last line may be cut short by the kill; it was not reported then.
    let whole = written.rsplit_once('\n').map_or("", |(whole, _)| whole);
    whole.lines().filter_map(number).collect()
}

#[tokio::test]
async fn every_batch_reported_committed_survives_a_kill() {
    let home = Home::new();
    let database = home.path().join("mcpmon.db");
    let mut moments = Moments(20_261_122);
    let (mut committed, mut queued) = (BTreeSet::new(), BTreeSet::new());
    for _ in 0..kills() {
        let first = committed.last().map_or(0, |last| last + 1);
        let mut command = Command::new(env!("CARGO_BIN_EXE_append-batches"));
        command.arg(&database).arg(first.to_string());
        let mut writer = ChildGuard::spawn(command).unwrap();
        let begun = writer.line(Stream::Out, "committed").await;
        assert!(begun.is_some(), "{}", writer.written(Stream::Err));
        tokio::time::sleep(moments.next(0, 250)).await;
        writer.kill().await.unwrap();
        // The end of the pipe, so that nothing it said is missed.
        assert_eq!(writer.line(Stream::Out, "never said").await, None);
        committed.extend(numbers(&writer.written(Stream::Out), "committed "));
        queued.extend(numbers(&writer.written(Stream::Out), "queued "));

        assert_sound(&database);
        let store = SqliteStore::reader(&database).unwrap();
        let mut stored: BTreeMap<i64, usize> = BTreeMap::new();
        for check in all_checks(&store).await {
            *stored.entry((check.at.as_millis() - 1_795_356_571_000) / 1_000).or_default() += 1;
        }
        for (number, checks) in &stored {
            assert_eq!(*checks % CHECKS, 0, "batch {number} is there in part");
        }
        let lost: Vec<_> = committed.iter().filter(|number| !stored.contains_key(number)).collect();
        assert!(lost.is_empty(), "reported committed and lost: {lost:?}");
        let due = store.due("nobody", Timestamp::from_millis(i64::MAX / 2), 10_000).await.unwrap();
        let due: BTreeSet<_> = due.into_iter().map(|delivery| delivery.notification.key).collect();
        let lost: Vec<_> =
            queued.iter().filter(|number| !due.contains(&format!("batch-{number}"))).collect();
        assert!(lost.is_empty(), "reported queued and lost: {lost:?}");
    }
    println!(
        "{} kills while appending: {} batches of {CHECKS} checks and {} notifications reported \
         committed, none lost, file sound each time",
        kills(),
        committed.len(),
        queued.len(),
    );
}

#[tokio::test]
async fn a_monitor_that_is_killed_loses_nothing_a_reader_saw() {
    let home = Home::new();
    let mut moments = Moments(7);
    let mut seen: BTreeSet<(ServiceName, Timestamp)> = BTreeSet::new();
    for round in 0..kills() {
        let mut up = home.start(&["up", "--interval", "1s"]);
        until("checks of this round", Duration::from_secs(60), async || {
            let store = SqliteStore::reader(home.database()).ok()?;
            let checks = all_checks(&store).await;
            let new: BTreeSet<_> =
                checks.into_iter().map(|check| (check.service, check.at)).collect();
            let lost: Vec<_> = seen.difference(&new).collect();
            assert!(lost.is_empty(), "round {round} lost {lost:?}");
            (new.len() > seen.len()).then(|| seen.extend(new))
        })
        .await;
        tokio::time::sleep(moments.next(0, 1_500)).await;
        up.signal(Signal::KILL).unwrap();
        up.wait().await.unwrap();
        assert_sound(&home.database());
        until("the guardian to clean up", Duration::from_secs(10), || async {
            home.processes().is_empty().then_some(())
        })
        .await;
    }
    let status = home.status().await.unwrap();
    assert_eq!(status["monitor"]["running"], false, "{status:#}");
    println!("{} kills of `mcpmon up`: {} checks seen by readers, none lost", kills(), seen.len());
}
