//! `mcpmon history`, `db` and an export that is read back, on the built program.

use std::time::Duration;

use serde_json::Value;

use crate::home::{Home, Ran, until};

/// Asserts that standard output has all of these.
#[track_caller]
fn prints(ran: &Ran, words: &[&str]) {
    for word in words {
        assert!(ran.out.contains(word), "standard output lacks `{word}`\n{ran}");
    }
}

#[tokio::test]
async fn a_service_has_a_history_for_people_and_programs() {
    let home = Home::new();
    home.run(&["up", "--once"]).await.expect(0);
    let page = home.run(&["history", "demo-legacy", "--since", "30d"]).await.expect(0);
    prints(&page, &["demo-legacy", "100% up", "1 check", "p95", "UPTIME"]);
    prints(&page, &["nothing is known before 20"]);
    let rows = page.out.lines().skip_while(|line| !line.starts_with("FROM")).count();
    assert!(rows <= 4, "a young history has few rows: {page}");
    let both = home.run(&["history", "demo-legacy", "demo-slow", "--output", "json"]).await;
    let both = both.expect(0).json();
    assert_eq!((&both["service"], &both["summary"]["total_checks"]), (&Value::Null, &2.into()));
    let long_ago = home.run(&["history", "demo-legacy", "--until", "7d", "--since", "9d"]).await;
    long_ago.expect(1).says(&["nothing is known of demo-legacy in that time"]);
    assert!(page.out.lines().all(|line| line.chars().count() <= 80), "{page}");
    assert!(!page.out.contains('\u{1b}'), "no colour in a pipe: {page}");
    let plain = {
        let mut command = home.command(["history", "demo-legacy", "--since", "1h"]);
        command.env("LC_ALL", "C");
        crate::home::run(command).await.expect(0)
    };
    assert!(plain.out.is_ascii(), "{plain}");

    let report =
        home.run(&["history", "demo-legacy", "--since", "1h", "--output", "json"]).await.expect(0);
    let report = report.json();
    assert_eq!(report["schema"], "mcpmon/history/v1");
    assert_eq!(report["summary"]["total_checks"], 1);
    let points = report["points"].as_array().unwrap();
    let checks: u64 = points.iter().filter_map(|point| point["total_checks"].as_u64()).sum();
    assert_eq!(checks, 1, "points add up to the whole");
    home.run(&["history", "demo-legasy"]).await.expect(2).says(&["demo-legacy"]);
    home.run(&["history", "demo-legacy", "--since", "1h", "--until", "2h"]).await.expect(2);
}

#[tokio::test]
async fn an_export_is_read_back_whole_and_only_once() {
    let home = Home::new();
    home.run(&["up", "--once"]).await.expect(0);
    home.run(&["export", "jsonl", "--file", "all.jsonl"]).await.expect(0);
    let exported = home.run(&["export", "jsonl", "--file", "-"]).await.expect(0);
    let checks = |text: &str| -> Vec<Value> {
        let lines = text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
        lines
            .filter(|line| line["record"] == "snapshot")
            .map(|line| line["check"].clone())
            .collect()
    };
    let before = checks(&exported.out);
    assert_eq!(before.len(), 3);

    std::fs::remove_file(home.database()).unwrap();
    let imported = home.run(&["import", "jsonl", "all.jsonl"]).await.expect(0);
    prints(&imported, &["imported 3 checks"]);
    let again = home.run(&["export", "jsonl", "--file", "-"]).await.expect(0);
    assert_eq!(checks(&again.out), before);
    let but_the_time = |text: &str| text.split_once('\n').map(|(_, rest)| rest.to_owned());
    assert_eq!(but_the_time(&again.out), but_the_time(&exported.out), "byte for byte");
    let twice = home.run(&["import", "all.jsonl"]).await.expect(0);
    prints(&twice, &["imported 0 checks, 0 status changes and 0 alerts"]);
    twice.says(&["were there already"]);
    let status = home.run(&["status"]).await.expect(0);
    prints(&status, &["no monitor running; last seen"]);
    assert!(!status.out.contains("1970"), "{status}");
    std::fs::write(home.work().join("bad.jsonl"), "{\"record\":\"snapshot\"}\n").unwrap();
    home.run(&["import", "jsonl", "bad.jsonl"]).await.expect(2).says(&["bad.jsonl", "line 1"]);
}

#[tokio::test]
async fn what_cannot_be_imported_is_named_with_what_to_do() {
    let home = Home::new();
    home.run(&["up", "--once"]).await.expect(0);
    home.run(&["export", "json", "--file", "all.json"]).await.expect(0);
    home.run(&["export", "csv", "--service", "demo-slow", "--file", "one.csv"]).await.expect(0);
    home.run(&["db", "backup", "copy.db"]).await.expect(0);
    for (args, word) in [
        (&["import", "nowhere.jsonl"][..], "there is no file `nowhere.jsonl`"),
        (&["import", "all.json"], "mcpmon export jsonl"),
        (&["import", "one.csv"], "mcpmon export jsonl"),
        (&["import", "csv", "one.csv"], "mcpmon export jsonl"),
        (&["import", "copy.db"], "mcpmon db restore"),
        (&["import", "jsonl"], "mcpmon import jsonl FILE"),
        (&["import", "."], "folder"),
    ] {
        home.run(args).await.expect(2).says(&[word]);
    }
}

#[tokio::test]
async fn nothing_is_imported_beside_a_running_monitor() {
    let home = Home::new();
    home.run(&["up", "--once"]).await.expect(0);
    home.run(&["export", "jsonl", "--file", "all.jsonl"]).await.expect(0);
    let _monitor = home.start(&["up"]);
    let is_running = async || {
        let status = home.status().await?;
        (status["monitor"]["running"] == true).then_some(())
    };
    until("the monitor to run", Duration::from_secs(60), is_running).await;
    home.run(&["import", "all.jsonl"]).await.expect(3).says(&["in use", "stop that one"]);
}

#[tokio::test]
async fn the_database_says_what_it_takes_and_will_take() {
    let home = Home::new();
    home.run(&["db", "info"]).await.expect(3).says(&["mcpmon up"]);
    home.run(&["up", "--once"]).await.expect(0);
    let info = home.run(&["db", "info"]).await.expect(0);
    prints(&info, &["single checks", "15-minute sums", "hourly sums", "write-ahead log"]);
    prints(&info, &["pruned next  nothing", "a day (8,640 checks)", "of 512.0 MB"]);
    home.configure("[monitoring]\nmetrics_retention_days = 3\n");
    let info = home.run(&["db", "info", "--output", "json"]).await.expect(0).json();
    assert_eq!(info["retention"]["raw_seconds"], 3 * 86_400);
    assert_eq!(info["resolutions"][0]["rows"], info["checks"]);
}

#[tokio::test]
async fn a_backup_is_restored_and_what_was_there_is_kept() {
    let home = Home::new();
    home.run(&["up", "--once"]).await.expect(0);
    prints(&home.run(&["db", "backup", "copy.db"]).await.expect(0), &["copy.db"]);
    home.run(&["up", "--once"]).await.expect(0);
    let restored = home.run(&["db", "restore", "copy.db"]).await.expect(0);
    prints(&restored, &["restored"]);
    restored.says(&["before-restore"]);
    let info = home.run(&["db", "info", "--output", "json"]).await.expect(0).json();
    assert_eq!(info["checks"], 3);
    prints(&home.run(&["db", "check"]).await.expect(0), &["sound"]);
    home.run(&["db", "restore", "nowhere.db"]).await.expect(3).says(&["nowhere.db"]);
}

#[tokio::test]
async fn pruning_can_be_tried_without_deleting() {
    let home = Home::new();
    home.run(&["up", "--once"]).await.expect(0);
    let exported = home.run(&["export", "jsonl", "--file", "-"]).await.expect(0).out;
    let begin = exported.find("\"at\":\"").unwrap();
    let old = exported.replace(&exported[begin..begin + 10], "\"at\":\"2020");
    std::fs::write(home.work().join("old.jsonl"), old).unwrap();
    home.run(&["import", "jsonl", "old.jsonl"]).await.expect(0);
    let checks = async || {
        let info = home.run(&["db", "info", "--output", "json"]).await.expect(0).json();
        info["checks"].as_u64()
    };
    assert_eq!(checks().await, Some(6));
    let report = home.run(&["db", "prune", "--dry-run", "--output", "json"]).await.expect(0).json();
    assert_eq!((&report["schema"], &report["checks"]), (&"mcpmon/db-prune/v1".into(), &3.into()));
    assert_eq!(checks().await, Some(6), "nothing was deleted");
    let pruned = home.run(&["db", "prune"]).await.expect(0);
    prints(&pruned, &["single checks"]);
    pruned.says(&["pruned"]);
    assert_eq!(checks().await, Some(3));
}
