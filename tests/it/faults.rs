//! Faults of the place the history is kept in, met by the whole program: monitoring and telling go
//! on, what was seen waits, writing resumes by itself, and what waited is written once.
//!
//! The disk that fails is the one of `mcpmon-bad-disk`, below an otherwise unchanged `mcpmon`: what
//! the file `fault` says is wrong with it at once.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::Duration;

use mcpmon_core::store::{RecordQuery, SampleStore as _};
use mcpmon_core::{ServiceName, Timestamp};
use mcpmon_store::SqliteStore;
use mcpmon_testkit::{ChildGuard, Stream};
use rusqlite::Connection;
use rustix::process::Signal;
use serde_json::Value;
use tokio::process::Command;
use tokio::time::Instant;

use crate::home::{Home, until};

/// Soon after the fault is over, samples are written again.
const RESUMES: Duration = Duration::from_secs(10);
/// Longer than anything here takes on a loaded machine.
const PATIENCE: Duration = Duration::from_secs(60);
/// The services of the demo, checked once a second.
const SERVICES: u64 = 3;

fn soak() -> bool {
    std::env::var_os("MCPMON_SOAK").is_some()
}

async fn checks(home: &Home) -> u64 {
    let ran = home.run(&["db", "info", "--output", "json"]).await;
    if ran.code == Some(0) { ran.json()["checks"].as_u64().unwrap_or(0) } else { 0 }
}

async fn more_checks_than(home: &Home, before: u64) {
    until("more checks in the history", PATIENCE, async || {
        (checks(home).await > before).then_some(())
    })
    .await;
}

/// What the monitor says of itself in the file beside the history, which needs no database.
fn report(home: &Home) -> Option<Value> {
    let text = std::fs::read_to_string(home.database().with_extension("monitor.json")).ok()?;
    serde_json::from_str(&text).ok()
}

async fn report_where(home: &Home, what: &str, holds: impl Fn(&Value) -> bool) -> Value {
    until(what, PATIENCE, async || report(home).filter(|report| holds(report))).await
}

/// Rules that fired, as the history has them; none of the machine's, which may rightly be busy.
async fn fired(home: &Home) -> Vec<String> {
    let alerts = home.run(&["alerts", "--output", "json"]).await.expect(0).json();
    let alerts = alerts["alerts"].as_array().into_iter().flatten();
    let ours = alerts.filter(|alert| alert["scope"] != "host");
    ours.filter_map(|alert| alert["rule_name"].as_str().map(str::to_owned)).collect()
}

/// `mcpmon up` on the disk that fails.
fn on_a_bad_disk(home: &Home) -> ChildGuard {
    let directory = home.database().parent().unwrap().to_path_buf();
    std::fs::create_dir_all(&directory).unwrap();
    let plain = home.command(["up", "--interval", "1s"]);
    let plain = plain.as_std();
    let mut command = Command::new(env!("CARGO_BIN_EXE_mcpmon-on-a-bad-disk"));
    command.args(plain.get_args()).current_dir(plain.get_current_dir().unwrap()).env_clear();
    command.envs(plain.get_envs().filter_map(|(name, value)| Some((name, value?))));
    command.env("BAD_DISK", directory);
    ChildGuard::spawn(command).unwrap()
}

/// Every check there is, none of them twice, and the file sound.
async fn assert_whole(home: &Home) -> u64 {
    let store = SqliteStore::reader(home.database()).unwrap();
    let mut query = RecordQuery::all();
    let mut seen: BTreeSet<(ServiceName, Timestamp)> = BTreeSet::new();
    loop {
        let page = store.checks(&query).await.unwrap();
        for check in page.items {
            assert!(seen.insert((check.service.clone(), check.at)), "twice: {check:?}");
        }
        query.after = page.next;
        if query.after.is_none() {
            break;
        }
    }
    assert!(store.check().await.unwrap().ok);
    seen.len() as u64
}

/// How long the monitor says nothing was written, and what became of it.
#[derive(Debug)]
struct Outcome {
    checked_meanwhile: u64,
    resumed_after: Duration,
    stored: u64,
}

/// A disk on which `words` are wrong for some seconds.
async fn disk_is(words: &str, says: &str, span: Duration) -> Outcome {
    let home = Home::new();
    let mut up = on_a_bad_disk(&home);
    more_checks_than(&home, SERVICES).await;
    home.write("fault", words);
    let failing = |report: &Value| report["store_error"].is_string();
    let told = report_where(&home, "the fault in the report", failing).await;
    assert!(told["store_error"].as_str().unwrap().contains(says), "{told:#}");
    // From memory: nothing could be written.
    let line = mcpmon_testkit::within("the alert", up.line(Stream::Out, "CRITICAL")).await;
    assert!(line.as_ref().is_some_and(|line| line.contains(says)), "{line:?}");
    tokio::time::sleep(span).await;
    let during = report_where(&home, "checks that wait", |report| {
        report["waiting_samples"].as_u64().unwrap_or(0) > span.as_secs()
    })
    .await;
    let checked = |report: &Value| report["checks_total"].as_u64().unwrap_or(0);
    assert!(during["waiting_bytes"].as_u64().unwrap() > 0, "{during:#}");
    assert_eq!(during["dropped_samples_total"], 0, "{during:#}");

    home.write("fault", "");
    let over = Instant::now();
    report_where(&home, "writing that resumed", |report| report["store_error"].is_null()).await;
    let resumed_after = over.elapsed();
    assert!(resumed_after < RESUMES, "{resumed_after:?}");
    let line = mcpmon_testkit::within("the recovery", up.line(Stream::Out, "RESOLVED")).await;
    assert!(line.is_some(), "{}", up.written(Stream::Out));
    up.signal(Signal::TERM).unwrap();
    assert_eq!(up.wait().await.unwrap().code(), Some(0), "{}", up.written(Stream::Err));
    let written = up.written(Stream::Out) + &up.written(Stream::Err);
    assert!(!written.contains("panicked"), "{written}");
    assert_eq!(fired(&home).await, ["storage_failing"], "one true alert and no false one");
    let status = home.status().await.unwrap();
    assert_eq!(status["summary"]["running"], SERVICES, "{status:#}");
    let stored = assert_whole(&home).await;
    assert!(stored >= checked(&during), "{stored} stored, {} made", checked(&during));
    Outcome { checked_meanwhile: checked(&during) - checked(&told), resumed_after, stored }
}

fn span() -> Duration {
    Duration::from_secs(if soak() { 60 } else { 4 })
}

fn print(fault: &str, outcome: &Outcome) {
    eprintln!(
        "{fault} for {:?}: {} checks made meanwhile, 0 lost, 0 twice ({} in all), resumed after \
         {:.1} s, 1 true alert, 0 false",
        span(),
        outcome.checked_meanwhile,
        outcome.stored,
        outcome.resumed_after.as_secs_f64(),
    );
}

#[tokio::test]
async fn a_full_disk_loses_nothing_and_is_told_from_memory() {
    print("full disk", &disk_is("full", "no space left", span()).await);
}

#[tokio::test]
async fn a_disk_that_became_read_only_loses_nothing_and_is_told_from_memory() {
    print("read-only disk", &disk_is("read-only", "can be written", span()).await);
}

#[tokio::test]
async fn write_errors_lose_nothing_and_are_told_from_memory() {
    print("write errors", &disk_is("broken", "can be written", span()).await);
}

#[tokio::test]
async fn a_slow_disk_makes_larger_batches_and_no_alert() {
    let home = Home::new();
    let up = on_a_bad_disk(&home);
    more_checks_than(&home, SERVICES).await;
    home.write("fault", "slow 1500");
    let before = checks(&home).await;
    more_checks_than(&home, before + 4 * SERVICES).await;
    home.write("fault", "");
    assert_eq!(fired(&home).await, Vec::<String>::new());
    let report = report(&home).unwrap();
    assert!(report["store_error"].is_null(), "{report:#}");
    drop(up);
}

#[tokio::test]
async fn a_history_whose_directory_is_taken_away_is_waited_for() {
    let home = Home::new();
    let up = home.start(&["up", "--interval", "1s"]);
    more_checks_than(&home, SERVICES).await;
    let state: PathBuf = home.database().parent().unwrap().to_path_buf();
    let away = state.with_file_name("away");
    std::fs::rename(&state, &away).unwrap();
    let line = mcpmon_testkit::within("the alert", up.line(Stream::Out, "CRITICAL")).await;
    assert!(line.is_some_and(|line| line.contains("mcpmon.db")));
    tokio::time::sleep(Duration::from_secs(2)).await;
    std::fs::rename(&away, &state).unwrap();
    let back = Instant::now();
    let line = mcpmon_testkit::within("the recovery", up.line(Stream::Out, "RESOLVED")).await;
    assert!(line.is_some(), "{}", up.written(Stream::Out));
    assert!(back.elapsed() < RESUMES, "{:?}", back.elapsed());
    let before = checks(&home).await;
    more_checks_than(&home, before).await;
    assert_eq!(fired(&home).await, ["storage_failing"]);
    assert_whole(&home).await;
    drop(up);
}

#[tokio::test]
async fn a_history_that_is_removed_is_told_and_begun_anew() {
    let home = Home::new();
    let up = home.start(&["up", "--interval", "1s"]);
    more_checks_than(&home, SERVICES).await;
    std::fs::remove_file(home.database()).unwrap();
    let line = mcpmon_testkit::within("the alert", up.line(Stream::Out, "CRITICAL")).await;
    assert!(line.is_some_and(|line| line.contains("moved or removed")));
    more_checks_than(&home, SERVICES).await;
    assert_whole(&home).await;
    drop(up);
}

/// Another program locks the file for `span`: no check is lost, no service is called down.
async fn locked_for(span: Duration) {
    let home = Home::new();
    let up = home.start(&["up", "--interval", "1s"]);
    more_checks_than(&home, SERVICES).await;
    let other = Connection::open(home.database()).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    let before = checks(&home).await;
    tokio::time::sleep(span).await;
    other.execute_batch("ROLLBACK").unwrap();
    drop(other);
    let begun = Instant::now();
    // What waited is written, not only what comes now: about one check a second and service.
    let waited = SERVICES * span.as_secs() / 2;
    more_checks_than(&home, before + waited).await;
    assert!(begun.elapsed() < RESUMES, "{:?}", begun.elapsed());
    let resumed = begun.elapsed();
    let status = home.status().await.unwrap();
    assert_eq!(status["summary"]["running"], SERVICES, "{status:#}");
    let alarms = status["alerts"].as_array().into_iter().flatten();
    // What the writer waits out is no fault; only a longer one may be told, and as just that.
    let may_be_told = span > Duration::from_secs(5);
    let is_true = |alert: &Value| {
        alert["scope"] == "host" || may_be_told && alert["rule_name"] == "storage_failing"
    };
    let false_alarms = alarms.filter(|alert| !is_true(alert)).count();
    assert_eq!(false_alarms, 0, "{status:#}");
    eprintln!("locked for {span:?}: written again after {:.1} s", resumed.as_secs_f64());
    drop(up);
}

#[tokio::test]
async fn a_file_locked_for_three_seconds_loses_nothing() {
    locked_for(Duration::from_secs(3)).await;
}

#[tokio::test]
async fn a_file_locked_for_a_minute_loses_nothing() {
    locked_for(Duration::from_secs(if soak() { 60 } else { 8 })).await;
}

/// A reader that keeps a transaction open holds the log up: the log's growth is bounded by what is
/// written, it is in the monitor's report, and it is cut back once the reader ends.
#[tokio::test]
async fn a_reader_that_holds_on_is_seen_in_the_log_and_the_log_shrinks_again() {
    let span = Duration::from_secs(if soak() { 600 } else { 6 });
    let home = Home::new();
    let up = home.start(&["up", "--interval", "1s"]);
    more_checks_than(&home, SERVICES).await;
    let other = Connection::open(home.database()).unwrap();
    other.execute_batch("BEGIN").unwrap();
    let count = |table: &str| -> u64 {
        let sql = format!("SELECT count(*) FROM {table}");
        other.query_row(&sql, [], |row| row.get(0)).unwrap()
    };
    let held = count("service");
    let before = checks(&home).await;
    tokio::time::sleep(span).await;
    more_checks_than(&home, before + span.as_secs()).await;
    assert_eq!(count("service"), held);
    let log = home.database().with_extension("db-wal");
    let longest = std::fs::metadata(&log).unwrap().len();
    let seen = report_where(&home, "the log in the report", |report| {
        report["log_bytes"].as_u64().is_some_and(|bytes| bytes > 0)
    })
    .await;
    assert!(seen["store_error"].is_null(), "{seen:#}");
    other.execute_batch("COMMIT").unwrap();
    drop(other);
    let before = checks(&home).await;
    more_checks_than(&home, before + 2 * SERVICES).await;
    let after = std::fs::metadata(&log).unwrap().len();
    assert!(after <= 16 << 20, "{after}");
    assert_eq!(fired(&home).await, Vec::<String>::new());
    println!("reader for {span:?}: log at most {longest} bytes, then {after}");
    drop(up);
}

#[tokio::test]
async fn a_damaged_history_is_set_aside_and_told_once() {
    let home = Home::new();
    home.write(".local/state/mcpmon/mcpmon.db", "not a database at all");
    let strict = home.run(&["up", "--once", "--strict"]).await.expect(3);
    strict.says(&["mcpmon.db"]);
    assert_eq!(std::fs::read(home.database()).unwrap(), b"not a database at all");

    let up = home.start(&["up", "--interval", "1s"]);
    let told = mcpmon_testkit::within("the alert", up.line(Stream::Out, "set aside")).await;
    assert!(told.as_ref().is_some_and(|line| line.contains("CRITICAL")), "{told:?}");
    more_checks_than(&home, SERVICES).await;
    let alerts = home.run(&["alerts", "--output", "json"]).await.expect(0).json();
    assert_eq!(alerts["alerts"].as_array().map(Vec::len), Some(1), "{alerts:#}");
    drop(up);
    let again = home.run(&["up", "--once"]).await.expect(0);
    assert!(!again.err.contains("set aside"), "{again}");
    let alerts = home.run(&["alerts", "--output", "json"]).await.expect(0).json();
    assert_eq!(alerts["alerts"].as_array().map(Vec::len), Some(1), "{alerts:#}");
}

#[tokio::test]
async fn a_backup_is_taken_beside_the_monitor_and_never_over_a_file() {
    let home = Home::new();
    let up = home.start(&["up", "--interval", "1s"]);
    more_checks_than(&home, SERVICES).await;
    home.run(&["db", "backup", "copy.db"]).await.expect(0);
    let copy = home.work().join("copy.db");
    let taken = std::fs::read(&copy).unwrap();
    home.run(&["db", "backup", "copy.db"]).await.expect(2).says(&["copy.db", "already"]);
    assert_eq!(std::fs::read(&copy).unwrap(), taken);
    home.run(&["db", "check"]).await.expect(0);
    home.run(&["db", "restore", "copy.db"]).await.expect(3).says(&["in use"]);
    drop(up);
    until("the monitor's end", PATIENCE, async || home.processes().is_empty().then_some(())).await;
    home.run(&["db", "restore", "copy.db"]).await.expect(0);
    assert!(checks(&home).await >= SERVICES);
    home.run(&["db", "check"]).await.expect(0);
}
