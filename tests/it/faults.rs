//! Faults of the place the history is kept in: monitoring and telling go on, and writing resumes
//! by itself.

use std::time::Duration;

use mcpmon_testkit::Stream;
use rusqlite::Connection;
use tokio::time::Instant;

use crate::home::{Home, until};

/// Soon after the fault is over, samples are written again.
const RESUMES: Duration = Duration::from_secs(10);

fn soak() -> bool {
    std::env::var_os("MCPMON_SOAK").is_some()
}

async fn checks(home: &Home) -> u64 {
    let ran = home.run(&["db", "info", "--output", "json"]).await;
    if ran.code == Some(0) { ran.json()["checks"].as_u64().unwrap_or(0) } else { 0 }
}

async fn more_checks_than(home: &Home, before: u64) {
    until("more checks in the history", Duration::from_secs(60), async || {
        (checks(home).await > before).then_some(())
    })
    .await;
}

/// Another program locks the file for `span`: no check is lost, no service is called down.
async fn locked_for(span: Duration) {
    let home = Home::new();
    let up = home.start(&["up", "--interval", "1s"]);
    more_checks_than(&home, 3).await;
    let other = Connection::open(home.database()).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    let before = checks(&home).await;
    tokio::time::sleep(span).await;
    other.execute_batch("ROLLBACK").unwrap();
    drop(other);
    let begun = Instant::now();
    // What waited is written, not only what comes now: about one check a second and service.
    let waited = 3 * span.as_secs() / 2;
    more_checks_than(&home, before + waited).await;
    assert!(begun.elapsed() < RESUMES, "{:?}", begun.elapsed());
    let status = home.status().await.unwrap();
    assert_eq!(status["summary"]["running"], 3, "{status:#}");
    let alarms = status["alerts"].as_array().into_iter().flatten();
    // What the writer waits out is no fault; only a longer one may be told, and as just that.
    let may_be_told = span > Duration::from_secs(5);
    let is_true = |rule: &serde_json::Value| may_be_told && rule == "storage_failing";
    let false_alarms = alarms.filter(|alert| !is_true(&alert["rule_name"])).count();
    assert_eq!(false_alarms, 0, "{status:#}");
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
    more_checks_than(&home, 3).await;
    let alerts = home.run(&["alerts", "--output", "json"]).await.expect(0).json();
    assert_eq!(alerts["alerts"].as_array().map(Vec::len), Some(1), "{alerts:#}");
    drop(up);
    let again = home.run(&["up", "--once"]).await.expect(0);
    assert!(!again.err.contains("set aside"), "{again}");
    let alerts = home.run(&["alerts", "--output", "json"]).await.expect(0).json();
    assert_eq!(alerts["alerts"].as_array().map(Vec::len), Some(1), "{alerts:#}");
}
