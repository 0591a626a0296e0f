//! What an export holds, and the file it ends in.

use std::time::Duration;

use mcpmon_core::failure::FailureCode;
use mcpmon_core::state::{ChangeOrigin, StatusChange};
use mcpmon_core::store::{
    Batch, CheckRecord, HistoryQuery, IncidentLog, ListRecord, SampleStore, ServiceFacts,
    Transition,
};
use mcpmon_core::{Alert, Status, Timestamp};
use mcpmon_store::SqliteStore;
use mcpmon_store::export::{ExportError, ExportQuery, ExportTarget, Exporter};
use mcpmon_testkit::samples::{
    alert, answered, check, failed_check, failure, lists, process_metrics, resolved_alert,
};
use mcpmon_testkit::{HOSTILE, START};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::open;

fn at(seconds: u64) -> Timestamp {
    START.saturating_add(Duration::from_secs(seconds))
}

fn change(service: &str, second: u64, from: Status, status: Status) -> StatusChange {
    StatusChange {
        service: service.into(),
        at: at(second),
        from,
        status,
        since: at(second),
        failure: status.is_down().then(|| failure(FailureCode::ConnectionRefused)),
        findings: Vec::new(),
        origin: Default::default(),
    }
}

fn facts(service: &str, restarts: u64) -> ServiceFacts {
    ServiceFacts {
        transport: "stdio".to_owned(),
        conversation: answered().conversation,
        tools_count: Some(2),
        restarts,
        ..ServiceFacts::unknown(service.into())
    }
}

/// Two services over five minutes: `files` fails from the third check to the sixth, `zeit-ü` is
/// well.
async fn history(directory: &TempDir) -> SqliteStore {
    let store = open(&directory.path().join("mcpmon.db"));
    let refused = |second| failed_check("files", at(second), FailureCode::ConnectionRefused);
    let mut checks: Vec<_> = (0..10)
        .map(|n| {
            let second = n * 30;
            if (2..6).contains(&n) { refused(second) } else { check("files", at(second)) }
        })
        .collect();
    checks[6].restarted = true;
    checks[6].process = Some(process_metrics());
    checks.insert(5, check("zeit-ü", at(131)));
    let batch = Batch {
        list_changes: Vec::new(),
        checks,
        changes: vec![
            change("files", 0, Status::Unknown, Status::Running),
            change("files", 120, Status::Running, Status::Stopped),
            change("zeit-ü", 131, Status::Unknown, Status::Running),
            change("files", 210, Status::Stopped, Status::Running),
        ],
        facts: vec![facts("files", 4), facts("zeit-ü", 0)],
        lists: vec![ListRecord {
            service: "files".into(),
            at: at(0),
            lists: lists(&["read", "write", "list"]),
        }],
        host: Vec::new(),
    };
    store.append(&batch).await.unwrap();
    let alerts = vec![resolved_alert("service_down", "files"), alert("slow", "zeit-ü")];
    let transition = Transition { alerts, at: START, ..Transition::default() };
    store.commit(&transition).await.unwrap();
    store
}

async fn json_of(store: &SqliteStore, query: &ExportQuery) -> Value {
    let mut out = Vec::new();
    assert!(Exporter::new(store, store).write_json(query, at(600), &mut out).await.unwrap());
    serde_json::from_slice(&out).unwrap()
}

fn column<'a>(json: &'a Value, service: &str, field: &str) -> Vec<&'a Value> {
    json["services"][service].as_array().unwrap().iter().map(|record| &record[field]).collect()
}

#[tokio::test]
async fn a_record_is_the_service_as_it_was_at_the_check() {
    let directory = TempDir::new().unwrap();
    let store = history(&directory).await;
    let json = json_of(&store, &ExportQuery::default()).await;
    assert_eq!(json["schema"], "mcpmon/export/v1");
    assert_eq!(json["export_time"], json!(at(600)));
    let names: Vec<_> = json["services"].as_object().unwrap().keys().collect();
    assert_eq!(names, ["files", "zeit-ü"]);

    let statuses: Vec<_> =
        column(&json, "files", "status").iter().map(|s| s.as_str().unwrap().to_owned()).collect();
    let (up, down) = ("running", "stopped");
    assert_eq!(statuses, [up, up, up, up, down, down, down, up, up, up]);
    let in_a_row: Vec<_> = column(&json, "files", "consecutive_failures");
    assert_eq!(json!(in_a_row), json!([0, 0, 1, 2, 3, 4, 0, 0, 0, 0]));
    let restarts = column(&json, "files", "restarts");
    assert_eq!(json!(restarts), json!([3, 3, 3, 3, 3, 3, 4, 4, 4, 4]));

    let seventh = &json["services"]["files"][6];
    assert_eq!(seventh["timestamp"], json!(at(180)));
    assert_eq!(seventh["last_check_time"], json!(at(180)));
    assert_eq!((&seventh["total_checks"], &seventh["failed_checks"]), (&json!(7), &json!(4)));
    assert_eq!(seventh["last_error"], json!(failure(FailureCode::ConnectionRefused).to_string()));
    assert_eq!(seventh["tools_count"], 3);
    assert_eq!(seventh["memory_bytes"], json!(process_metrics().memory_bytes));
    let check: CheckRecord = serde_json::from_value(seventh["check"].clone()).unwrap();
    assert!(check.restarted && check.status == Status::Running);
    let last = &json["services"]["files"][9];
    assert_eq!(last["uptime"], 60.0, "since the change that brought it back");

    let alerts = json["alerts"].as_array().unwrap();
    assert_eq!(alerts.len(), 2);
    assert!(alerts.iter().any(|alert| alert["state"] == "resolved"));
}

#[tokio::test]
async fn json_is_indented_and_keeps_what_is_not_ascii() {
    let directory = TempDir::new().unwrap();
    let store = history(&directory).await;
    let mut out = Vec::new();
    let exporter = Exporter::new(&store, &store);
    exporter.write_json(&ExportQuery::default(), at(600), &mut out).await.unwrap();
    let text = String::from_utf8(out).unwrap();
    let value: Value = serde_json::from_str(&text).unwrap();
    assert!(text.contains("\"zeit-ü\": [\n      {\n        \"timestamp\": "), "{text}");
    assert!(text.starts_with("{\n  \"schema\": \"mcpmon/export/v1\",\n  \"export_time\": "));
    assert!(text.ends_with("\n  ]\n}\n"));
    assert!(value["alerts"][0]["message"].is_string());

    // Without alerts, and without services: still whole.
    let early = ExportQuery { until: Some(at(0)), ..ExportQuery::default() };
    assert!(!exporter.write_json(&early, at(600), &mut Vec::new()).await.unwrap());
    let files = Some("files".into());
    let late = ExportQuery { service: files, since: Some(at(200)), ..ExportQuery::default() };
    let json = json_of(&store, &late).await;
    assert_eq!(json["alerts"], json!([]));
    assert_eq!(column(&json, "files", "timestamp").len(), 3);
}

#[tokio::test]
async fn a_range_begins_with_what_came_before_it() {
    let directory = TempDir::new().unwrap();
    let store = history(&directory).await;
    let whole = json_of(&store, &ExportQuery::default()).await;
    let query = ExportQuery {
        service: Some("files".into()),
        since: Some(at(150)),
        until: Some(at(240)),
        ..ExportQuery::default()
    };
    let part = json_of(&store, &query).await;
    assert_eq!(part["services"].as_object().unwrap().len(), 1);
    let records = part["services"]["files"].as_array().unwrap();
    assert_eq!(records[..], whole["services"]["files"].as_array().unwrap()[5..8]);
    let short = ExportQuery { window: Duration::from_secs(45), ..ExportQuery::default() };
    let short = json_of(&store, &short).await;
    assert_eq!(short["services"]["files"][6]["total_checks"], 2);
}

#[tokio::test]
async fn lines_are_records_in_order_of_time() {
    let directory = TempDir::new().unwrap();
    let store = history(&directory).await;
    let mut out = Vec::new();
    let exporter = Exporter::new(&store, &store);
    assert!(exporter.write_jsonl(&ExportQuery::default(), at(600), &mut out).await.unwrap());
    let text = String::from_utf8(out).unwrap();
    let lines: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let kinds: Vec<_> = lines.iter().map(|line| line["record"].as_str().unwrap()).collect();
    assert_eq!(kinds[..4], ["export", "service", "list", "service"]);
    assert_eq!(kinds[4..8], ["change"; 4]);
    assert_eq!(kinds[8..19], ["snapshot"; 11]);
    assert_eq!(kinds[19..], ["alert", "alert"]);
    let services: Vec<_> = lines[8..19].iter().map(|line| &line["service_name"]).collect();
    assert_eq!(services[5], "zeit-ü");
    let times: Vec<_> = lines[8..19].iter().map(|line| line["timestamp"].as_str()).collect();
    assert!(times.is_sorted());
}

fn rows(text: &str) -> (Vec<String>, Vec<csv::StringRecord>) {
    let mut reader = csv::Reader::from_reader(text.as_bytes());
    let header = reader.headers().unwrap().iter().map(str::to_owned).collect();
    (header, reader.records().map(Result::unwrap).collect())
}

#[tokio::test]
async fn a_table_has_every_field_in_sorted_columns() {
    let directory = TempDir::new().unwrap();
    let store = history(&directory).await;
    let query = ExportQuery { service: Some("files".into()), ..ExportQuery::default() };
    let mut out = Vec::new();
    assert!(Exporter::new(&store, &store).write_csv(&query, &mut out).await.unwrap());
    let (header, rows) = rows(std::str::from_utf8(&out).unwrap());
    assert!(header.is_sorted(), "{header:?}");
    for field in ["avg_response_time", "check_latency_ms", "error_rate", "status", "timestamp"] {
        assert!(header.iter().any(|name| name == field), "{field} in {header:?}");
    }
    assert_eq!(rows.len(), 10);
    let cell = |row: usize, field: &str| {
        let column = header.iter().position(|name| name == field).unwrap();
        rows[row].get(column).unwrap()
    };
    assert_eq!(cell(0, "status"), "running");
    assert_eq!(cell(0, "check_phases_dns_ms"), "0.5");
    assert_eq!(cell(0, "check_process_processes"), "");
    assert_eq!(cell(6, "check_process_processes"), "2");
    assert_eq!(cell(4, "check_code"), "connection_refused");
    assert_eq!(cell(4, "timestamp"), at(120).to_string());
    insta::assert_snapshot!(header.join("\n"));
}

/// A service that is well, is not reached because the network of the monitor is gone, is well
/// again, and is checked on after the monitor did not run for an hour.
async fn offline_and_stopped(directory: &TempDir) -> SqliteStore {
    let store = open(&directory.path().join("mcpmon.db"));
    let refused = |second| failed_check("files", at(second), FailureCode::ConnectionRefused);
    let offline = |second| failed_check("files", at(second), FailureCode::MonitorOffline);
    let well = |second| check("files", at(second));
    let checks = vec![
        well(0),
        refused(30),
        refused(60),
        offline(90),
        offline(120),
        well(150),
        well(180),
        refused(3_780),
        refused(3_810),
    ];
    let (up, unknown) = (Status::Running, Status::Unknown);
    let by = |second, from, status, origin| StatusChange {
        origin,
        ..change("files", second, from, status)
    };
    let lost = ChangeOrigin::Offline { failed_since: at(30), noticed_at: at(91) };
    let is_back = ChangeOrigin::Absent { noticed_at: at(150), slept_ms: 0 };
    let stopped = ChangeOrigin::NotRunning { noticed_at: at(3_779), ran_until: at(0) };
    let changes = vec![
        change("files", 0, unknown, up),
        by(30, up, unknown, lost),
        by(150, unknown, unknown, is_back),
        change("files", 150, unknown, up),
        by(180, up, unknown, stopped),
        change("files", 3_780, unknown, Status::Stopped),
    ];
    let facts = vec![facts("files", 0)];
    store.append(&Batch { checks, changes, facts, ..Batch::default() }).await.unwrap();
    store
}

/// What each row of [`offline_and_stopped`] is to show: status, uptime, failures in a row, checks
/// and failed checks of the last five minutes. As the monitor saw it then.
const OFFLINE_AND_STOPPED: [(&str, f64, u64, u64, u64); 9] = [
    ("running", 0.0, 0, 1, 0),
    ("running", 30.0, 1, 2, 1),
    ("running", 60.0, 2, 3, 2),
    // The monitor noticed: what failed before was its own network.
    ("unknown", 0.0, 0, 1, 0),
    ("unknown", 0.0, 0, 1, 0),
    ("running", 0.0, 0, 2, 0),
    // The last check before the monitor ended is that of a service that is well.
    ("running", 30.0, 0, 3, 0),
    ("stopped", 0.0, 1, 1, 1),
    ("stopped", 0.0, 2, 2, 2),
];

#[tokio::test]
async fn a_change_counts_from_when_the_monitor_noticed_it() {
    let directory = TempDir::new().unwrap();
    let store = offline_and_stopped(&directory).await;
    let query = ExportQuery { service: Some("files".into()), ..ExportQuery::default() };
    let number = |record: &Value, name: &str| record[name].as_u64().unwrap();
    let shown = |record: &Value| {
        let status = record["status"].as_str().unwrap().to_owned();
        let [in_a_row, checks, failed] = ["consecutive_failures", "total_checks", "failed_checks"]
            .map(|name| number(record, name));
        (status, record["uptime"].as_f64().unwrap(), in_a_row, checks, failed)
    };
    let expected = OFFLINE_AND_STOPPED.map(|(status, uptime, in_a_row, checks, failed)| {
        (status.to_owned(), uptime, in_a_row, checks, failed)
    });

    let json = json_of(&store, &query).await;
    let records = json["services"]["files"].as_array().unwrap();
    assert_eq!(records.iter().map(shown).collect::<Vec<_>>(), expected, "json");

    let mut out = Vec::new();
    let exporter = Exporter::new(&store, &store);
    exporter.write_jsonl(&query, at(600), &mut out).await.unwrap();
    let lines = std::str::from_utf8(&out).unwrap().lines();
    let lines = lines.map(|line| serde_json::from_str::<Value>(line).unwrap());
    let snapshots = lines.filter(|line| line["record"] == "snapshot");
    assert_eq!(snapshots.map(|line| shown(&line)).collect::<Vec<_>>(), expected, "jsonl");

    let mut out = Vec::new();
    exporter.write_csv(&query, &mut out).await.unwrap();
    let (header, rows) = rows(std::str::from_utf8(&out).unwrap());
    let cell = |row: &csv::StringRecord, field: &str| {
        row.get(header.iter().position(|name| name == field).unwrap()).unwrap().to_owned()
    };
    let table = rows.iter().map(|row| {
        let number = |field: &str| cell(row, field).parse::<f64>().unwrap();
        let count = |field: &str| number(field) as u64;
        let in_a_row = count("consecutive_failures");
        let (checks, failed) = (count("total_checks"), count("failed_checks"));
        (cell(row, "status"), number("uptime"), in_a_row, checks, failed)
    });
    assert_eq!(table.collect::<Vec<_>>(), expected, "csv");

    // `history` reports the same failures: those that no change attributes to the monitor.
    let (service, since, until) = ("files".into(), at(0), at(3_900));
    let whole = HistoryQuery { service, since, until, step: None };
    let whole = store.history(&whole).await.unwrap().whole();
    assert_eq!((whole.counted(), whole.failed()), (5, 2));
}

#[tokio::test]
async fn hostile_names_and_words_are_only_text_in_a_table() {
    let directory = TempDir::new().unwrap();
    let store = open(&directory.path().join("mcpmon.db"));
    let exporter = Exporter::new(&store, &store);
    for hostile in HOSTILE {
        let mut down = change(hostile, 0, Status::Running, Status::Stopped);
        down.failure.as_mut().unwrap().message = (*hostile).to_owned();
        let checks = vec![failed_check(hostile, at(0), FailureCode::ConnectionRefused)];
        let batch = Batch { checks, changes: vec![down], ..Batch::default() };
        store.append(&batch).await.unwrap();
        let query = ExportQuery { service: Some((*hostile).into()), ..ExportQuery::default() };
        let mut out = Vec::new();
        exporter.write_csv(&query, &mut out).await.unwrap();
        let text = String::from_utf8(out).unwrap();
        assert_eq!(text.lines().count(), 2, "{hostile:?} broke a row: {text}");
        let (_, rows) = rows(&text);
        for cell in rows[0].iter() {
            assert!(!cell.chars().any(mcpmon_core::text::is_deceptive), "{cell:?}");
            let formula = cell.starts_with(['=', '+', '-', '@']) && cell.parse::<f64>().is_err();
            assert!(!formula, "{cell:?}");
        }
        let target = ExportTarget::directory(directory.path());
        let path = exporter.to_csv(&query, &target.force(), at(0)).await.unwrap().unwrap();
        assert_eq!(path.parent(), Some(directory.path()), "no name leads elsewhere");
    }
}

#[tokio::test]
async fn a_file_is_named_by_kind_service_and_time_and_not_replaced() {
    let directory = TempDir::new().unwrap();
    let store = history(&directory).await;
    let exporter = Exporter::new(&store, &store);
    let place = directory.path().join("out");
    std::fs::create_dir(&place).unwrap();
    let target = ExportTarget::directory(&place);
    let query = ExportQuery { service: Some("zeit-ü".into()), ..ExportQuery::default() };
    for (path, start, end) in [
        (
            exporter.to_json(&query, &target, at(0)).await.unwrap(),
            "monitoring_data_20261122_",
            ".json",
        ),
        (
            exporter.to_jsonl(&query, &target, at(0)).await.unwrap(),
            "monitoring_data_20261122_",
            ".jsonl",
        ),
        (
            exporter.to_csv(&query, &target, at(0)).await.unwrap(),
            "metrics_zeit-__20261122_",
            ".csv",
        ),
    ] {
        let path = path.unwrap();
        let name = path.file_name().unwrap().to_str().unwrap();
        assert!(name.starts_with(start) && name.ends_with(end), "{name}");
        assert!(std::fs::metadata(&path).unwrap().len() > 100);
    }
    let again = exporter.to_json(&query, &target, at(0)).await.unwrap_err();
    assert!(matches!(again, ExportError::Exists { .. }), "{again:?}");
    assert!(exporter.to_json(&query, &target.clone().force(), at(0)).await.is_ok());
    assert_eq!(std::fs::read_dir(&place).unwrap().count(), 3, "nothing is left beside them");

    let nowhere = ExportTarget::file(place.join("missing/file.json"));
    let error = exporter.to_json(&query, &nowhere, at(0)).await.unwrap_err();
    assert!(error.to_string().contains("missing/file.json"), "{error}");
    let of_all = exporter.to_csv(&ExportQuery::default(), &target, at(1)).await.unwrap_err();
    assert!(matches!(of_all, ExportError::ServiceNeeded));
}

#[tokio::test]
async fn no_data_is_no_file() {
    let directory = TempDir::new().unwrap();
    let store = history(&directory).await;
    let exporter = Exporter::new(&store, &store);
    let place = directory.path().join("out");
    std::fs::create_dir(&place).unwrap();
    let target = ExportTarget::directory(&place);
    let query = ExportQuery { service: Some("nobody".into()), ..ExportQuery::default() };
    assert_eq!(exporter.to_json(&query, &target, at(0)).await.unwrap(), None);
    assert_eq!(exporter.to_jsonl(&query, &target, at(0)).await.unwrap(), None);
    assert_eq!(exporter.to_csv(&query, &target, at(0)).await.unwrap(), None);
    let mut out = Vec::new();
    assert!(!exporter.write_csv(&query, &mut out).await.unwrap());
    assert!(!exporter.write_jsonl(&query, at(0), &mut out).await.unwrap());
    assert!(out.is_empty());
    assert_eq!(std::fs::read_dir(&place).unwrap().count(), 0);
}

#[tokio::test]
async fn every_alert_of_a_storm_is_exported_once() {
    let directory = TempDir::new().unwrap();
    let store = history(&directory).await;
    // More than a page of them at one moment, and as many before it.
    let alerts = (0..2_300_u64)
        .map(|n| Alert {
            id: format!("storm-{n}"),
            timestamp: at(if n % 2 == 0 { 100 } else { n / 100 }),
            ..alert("storm", "files")
        })
        .collect();
    let transition = Transition { alerts, at: START, ..Transition::default() };
    store.commit(&transition).await.unwrap();
    let json = json_of(&store, &ExportQuery::default()).await;
    let alerts = json["alerts"].as_array().unwrap();
    let ids: std::collections::HashSet<_> =
        alerts.iter().map(|alert| alert["id"].as_str().unwrap()).collect();
    assert_eq!((alerts.len(), ids.len()), (2_302, 2_302));
}

#[tokio::test]
async fn an_alert_that_is_open_since_before_a_range_is_in_it() {
    let directory = TempDir::new().unwrap();
    let store = open(&directory.path().join("mcpmon.db"));
    let alert_at = |rule: &str, second, ended: Option<u64>| Alert {
        id: format!("{rule}-{second}"),
        timestamp: at(second),
        resolved_at: ended.map(at),
        ..alert(rule, "files")
    };
    let alerts = vec![
        alert_at("gone", 10, Some(20)),
        alert_at("first", 30, None),
        alert_at("ended", 40, Some(150)),
        alert_at("second", 50, None),
        alert_at("inside", 120, None),
        Alert { id: "other".to_owned(), timestamp: at(60), ..alert("first", "other") },
    ];
    let transition = Transition { alerts, at: START, ..Transition::default() };
    store.commit(&transition).await.unwrap();
    let files = Some("files".into());
    let query =
        ExportQuery { service: files, since: Some(at(100)), until: None, ..Default::default() };
    let exporter = Exporter::new(&store, &store);
    let mut out = Vec::new();
    assert!(exporter.write_jsonl(&query, at(600), &mut out).await.unwrap());
    let lines = std::str::from_utf8(&out).unwrap().lines();
    let lines = lines.map(|line| serde_json::from_str::<Value>(line).unwrap());
    let in_lines: Vec<_> = lines.filter(|line| line["record"] == "alert").collect();
    let in_object = json_of(&store, &query).await["alerts"].as_array().unwrap().clone();
    for alerts in [in_lines, in_object] {
        let rules: Vec<_> = alerts.iter().map(|alert| alert["rule_name"].as_str()).collect();
        assert_eq!(rules, ["inside", "second", "ended", "first"].map(Some));
    }

    // Nothing but an open alert is data as well, and one from behind the range is not.
    let late = ExportQuery { since: Some(at(500)), ..query.clone() };
    let mut out = Vec::new();
    assert!(exporter.write_jsonl(&late, at(600), &mut out).await.unwrap());
    assert_eq!(String::from_utf8(out).unwrap().matches(r#""record":"alert""#).count(), 3);
    let early = ExportQuery { since: Some(at(25)), until: Some(at(28)), ..query };
    assert!(!exporter.write_jsonl(&early, at(600), &mut Vec::new()).await.unwrap());
}
