//! One history, and every number in it the same wherever it is shown: by the monitor's own alerts,
//! `status`, `history`, exports, `rules test` and an imported copy.

use std::collections::BTreeMap;
use std::time::Duration;

use rustix::process::Signal;
use serde_json::Value;

use crate::home::{Home, until};

const PATIENCE: Duration = Duration::from_secs(60);
/// Numbers that every surface has, and that do not depend on the moment somebody looks.
const NUMBERS: [&str; 4] = ["total_checks", "failed_checks", "error_rate", "consecutive_failures"];

/// `calls` is well and one configured call of it always fails; `gone` is down, and so is `needy`,
/// which depends on it; `resting` is in maintenance, and `waits` fails and depends on it.
fn configuration() -> String {
    let program = env!("CARGO_BIN_EXE_mcpmon");
    format!(
        r#"
[monitoring]
check_interval = "2s"
health_check_timeout = "1s"

[service_monitoring]
status_check_interval = "1s"

[performance_monitoring]
enabled = false

[services.calls]
command = "{program}"
args = ["demo-server"]

[[services.calls.functional]]
tool = "add"
arguments = {{ a = 1, b = 2 }}
expect = {{ contains = "no such text" }}

[services.gone]
command = "false"

[services.needy]
command = "{program}"
args = ["demo-server", "--fail-rate", "1"]
depends_on = ["gone"]

[services.resting]
command = "{program}"
args = ["demo-server"]

[services.waits]
command = "{program}"
args = ["demo-server", "--fail-rate", "1"]
depends_on = ["resting"]

[[maintenance]]
services = ["resting"]
days = ["mon", "tue", "wed", "thu", "fri", "sat", "sun"]
start = "00:00"
duration = "24h"

[[rules]]
name = "numbers"
when = "total_checks >= 5"
level = "info"
message = "total={{{{ total_checks }}}} failed={{{{ failed_checks }}}} rate={{{{ error_rate }}}} row={{{{ consecutive_failures }}}}"
"#
    )
}

/// The numbers of a metrics object; a rate in thousandths.
fn numbers(metrics: &Value) -> Vec<u64> {
    let factor = |name: &str| if name == "error_rate" { 1_000.0 } else { 1.0 };
    let number = |name: &&str| metrics[*name].as_f64().map(|value| value * factor(name));
    NUMBERS.iter().map(|name| number(name).unwrap_or(f64::MAX) as u64).collect()
}

/// The services that are checked.
const CHECKED: [&str; 4] = ["calls", "gone", "needy", "waits"];

/// What `status` shows of each service; nothing where there is no history yet.
async fn status(home: &Home) -> BTreeMap<String, Vec<u64>> {
    let report: Value = match home.run(&["status", "--output", "json"]).await {
        ran if ran.out.starts_with('{') => ran.json(),
        _ => Value::Null,
    };
    let services = report["services"].as_array().cloned().unwrap_or_default();
    services
        .iter()
        .map(|one| (one["service"].as_str().unwrap().to_owned(), numbers(&one["metrics"])))
        .collect()
}

/// Rule, service and message of what was sent as firing, by what the monitor stored.
async fn sent(home: &Home) -> Vec<(String, String, String)> {
    let report = home.run(&["alerts", "--since", "1h", "--output", "json"]).await.json();
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let mut sent: Vec<_> = report["alerts"]
        .as_array()
        .unwrap()
        .iter()
        // Calls of tools are not stored.
        .filter(|alert| alert["scope"] == "service")
        .map(|alert| {
            (text(&alert["rule_name"]), text(&alert["service_name"]), text(&alert["message"]))
        })
        .collect();
    sent.sort();
    sent
}

async fn replayed(home: &Home) -> Vec<(String, String, String)> {
    let report = home.run(&["rules", "test", "--since", "1h", "--output", "json"]).await.json();
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let alerts = report["alerts"].as_array().unwrap().iter();
    let mut replayed: Vec<_> = alerts
        .map(|alert| (text(&alert["rule"]), text(&alert["service"]), text(&alert["message"])))
        .collect();
    replayed.sort();
    replayed
}

/// Watches until every service that is checked was checked so often, is kept from running for a
/// while if that is asked for, and ends.
async fn watch(home: &Home, checks: u64, suspended: bool) {
    let mut up = home.start(&["up", "--yes"]);
    until("enough checks", PATIENCE, async || {
        let shown = status(home).await;
        let is_enough = |name: &&str| shown.get(*name).is_some_and(|own| own[0] >= checks);
        CHECKED.iter().all(is_enough).then_some(())
    })
    .await;
    if suspended {
        // Longer than two intervals and a check: whatever was known holds no longer.
        up.signal(Signal::STOP).unwrap();
        tokio::time::sleep(Duration::from_secs(7)).await;
        up.signal(Signal::CONT).unwrap();
        let is_noticed = async || {
            let ran = home.run(&["export", "jsonl", "--file", "-"]).await;
            ran.out.contains(r#""kind":"absent""#).then_some(())
        };
        until("the gap to be noticed", PATIENCE, is_noticed).await;
    }
    up.signal(Signal::TERM).unwrap();
    up.wait().await.unwrap();
}

/// The metrics `status` shows of each service that is checked.
async fn shown_metrics(home: &Home) -> BTreeMap<String, Value> {
    let report = home.run(&["status", "--output", "json"]).await.json();
    let services = report["services"].as_array().unwrap().iter();
    let named = services.map(|one| (one["service"].as_str().unwrap().to_owned(), one));
    let checked = named.filter(|(name, _)| CHECKED.contains(&name.as_str()));
    checked.map(|(name, one)| (name, one["metrics"].clone())).collect()
}

/// The row of an export in which a service was as `status` showed it before the monitor was started
/// again.
#[track_caller]
fn assert_row_before_stop(rows: &[Value], shown: &Value, name: &str) {
    let last = rows.iter().rfind(|row| row["last_check_time"] == shown["last_check_time"]);
    let last = last.unwrap_or_else(|| panic!("{name}: no row of {shown}"));
    assert_eq!(last["status"], shown["status"], "{name}: status at the last check before a stop");
    assert_eq!(numbers(last), numbers(shown), "{name}: export, status before the restart");
}

#[tokio::test]
async fn every_surface_shows_the_same_numbers() {
    let home = Home::new();
    home.configure(configuration());
    watch(&home, 4, true).await;
    let before_stop = shown_metrics(&home).await;
    home.run(&["silence", "gone", "--for", "1h"]).await.expect(0);
    // Longer than two intervals and a check: the next monitor notices that none ran.
    tokio::time::sleep(Duration::from_secs(7)).await;
    watch(&home, 7, false).await;
    let lines = home.run(&["export", "jsonl", "--file", "-"]).await.out;
    assert!(lines.contains(r#""kind":"not_running""#), "the stop was too short for a gap");

    let shown = status(&home).await;
    assert_eq!(shown["calls"][1..3], [0, 0], "calls are no failed checks: {shown:?}");
    assert!(shown["calls"][3] > 1, "and fail in a row: {shown:?}");
    let export = home.run(&["export", "json", "--file", "-"]).await.json();
    for name in CHECKED {
        let own = &shown[name];
        let since = ["history", name, "--since", "1h", "--output", "json"];
        let past = home.run(&since).await.json()["summary"].clone();
        let counted = [&past["total_checks"], &past["failed_checks"]].map(|n| n.as_u64().unwrap());
        assert_eq!(counted, own[..2], "{name}: history, status");
        let rows = export["services"][name].as_array().unwrap();
        assert_eq!(numbers(rows.last().unwrap()), *own, "{name}: export, status");
        assert_row_before_stop(rows, &before_stop[name], name);
        let csv = home.run(&["export", "csv", "--service", name, "--file", "-"]).await.out;
        let (head, row) = (csv.lines().next().unwrap(), csv.lines().last().unwrap());
        for (number, value) in ["total_checks", "failed_checks"].iter().zip(own) {
            let column = head.split(',').position(|column| column == *number).unwrap();
            // The columns that may hold a comma are behind none of these in a row that is quoted.
            if !row.contains('"') {
                assert_eq!(row.split(',').nth(column).unwrap(), value.to_string(), "{name} csv");
            }
        }
    }

    let file = home.work().join("copy.jsonl");
    let path = file.to_string_lossy().into_owned();
    home.run(&["export", "jsonl", "--file", &path]).await.expect(0);
    let copy = Home::new();
    copy.configure(configuration());
    copy.run(&["import", &path]).await.expect(0);
    assert_eq!(status(&copy).await, shown, "an imported copy");

    let (sent, again) = (sent(&home).await, replayed(&home).await);
    assert!(
        sent.iter()
            .any(|(rule, service, _)| (rule.as_str(), service.as_str()) == ("numbers", "calls"))
    );
    assert!(!sent.iter().any(|(rule, service, _)| rule == "service_down" && service == "waits"));
    let names = |alerts: &[(String, String, String)]| -> Vec<(String, String)> {
        alerts.iter().map(|(rule, service, _)| (rule.clone(), service.clone())).collect()
    };
    assert_eq!(names(&sent), names(&again), "sent, and by `rules test`");
    // The monitor evaluates at seconds of its own start and a replay at full ones: one check more
    // may have come in between. What failed and how often in a row is right in both.
    for (rule, service, text) in sent.iter().chain(&again).filter(|(rule, ..)| rule == "numbers") {
        let is_right = match service.as_str() {
            "calls" => text.contains("failed=0 rate=0.0") && !text.contains("row=0"),
            _ => text.contains("rate=1.0") && !text.contains("row=0"),
        };
        assert!(is_right, "{rule} {service}: {text}");
    }
}
