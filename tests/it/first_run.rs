//! From an empty home to watched services, with nothing configured.

use mcpmon_core::Status;
use rusqlite::{Connection, OpenFlags};
use serde_json::json;

use crate::home::{Home, service};

#[tokio::test]
async fn an_empty_home_gets_three_demo_services_checked_and_stored() {
    let home = Home::new();
    let ran = home.run(&["up", "--once"]).await.expect(0);
    ran.says(&["no services found; looked in:", ".cursor/mcp.json", "mcpmon init"]);

    let status = home.run(&["status", "--output", "json"]).await.expect(0).json();
    assert_eq!(status["schema"], "mcpmon/status/v1");
    assert_eq!(status["summary"]["total"], 3, "{status:#}");
    for (name, transport, era) in [
        ("demo-legacy", "stdio", "legacy"),
        ("demo-modern", "http", "modern"),
        ("demo-slow", "stdio", "legacy"),
    ] {
        let service = service(&status, name);
        assert_eq!(service["status"], "running", "{service:#}");
        assert_eq!(service["transport"], transport);
        assert_eq!(service["era"], era, "{service:#}");
        assert!(service["tools_count"].as_u64() > Some(0), "{service:#}");
        assert!(service["since"].is_string());
        assert_eq!(service["metrics"]["failed_checks"], 0);
    }
    assert_eq!(status["monitor"]["running"], json!(false));
    assert_eq!(home.processes(), []);
}

#[tokio::test]
async fn the_slow_demo_service_is_measured_as_slow() {
    let home = Home::new();
    home.run(&["up", "--once"]).await.expect(0);
    let status = home.status().await.unwrap();
    let slow = service(&status, "demo-slow")["latency_ms"].as_f64().unwrap();
    assert!((300.0..5_000.0).contains(&slow), "{slow}");
}

#[tokio::test]
async fn a_summary_counts_all_eight_statuses_and_adds_up() {
    let home = Home::new();
    home.run(&["up", "--once"]).await.expect(0);
    let summary = home.status().await.unwrap()["summary"].clone();
    let counted: u64 =
        Status::WORST_FIRST.iter().map(|status| summary[status.as_str()].as_u64().unwrap()).sum();
    assert_eq!(summary["total"], counted);
}

#[tokio::test]
async fn the_history_is_the_owners_alone() {
    use std::os::unix::fs::PermissionsExt as _;
    let home = Home::new();
    home.run(&["up", "--once"]).await.expect(0);
    let mode = std::fs::metadata(home.database()).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600, "{mode:o}");
    let database =
        Connection::open_with_flags(home.database(), OpenFlags::SQLITE_OPEN_READ_ONLY).unwrap();
    let check: String = database.query_row("PRAGMA integrity_check", [], |row| row.get(0)).unwrap();
    assert_eq!(check, "ok");
}

#[tokio::test]
async fn a_second_round_adds_to_the_first() {
    let home = Home::new();
    for round in 1..=2 {
        home.run(&["up", "--once"]).await.expect(0);
        let status = home.status().await.unwrap();
        let checks = service(&status, "demo-modern")["metrics"]["total_checks"].as_u64().unwrap();
        assert!(checks >= round, "{status:#}");
    }
}

#[tokio::test]
async fn status_before_any_monitor_ran_is_empty_and_says_what_to_do() {
    let home = Home::new();
    let ran = home.run(&["status"]).await;
    assert!(format!("{}{}", ran.out, ran.err).contains("mcpmon up"), "{ran}");
    assert!(!home.database().exists(), "a reader must not create the history");
}
