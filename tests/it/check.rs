//! `mcpmon check`: one round against real servers, with nothing kept.

use serde_json::{Value, json};

use crate::home::{Home, service};
use crate::peers::peer;

/// What a service is expected to be: status, revision, era, tools.
type Expected<'a> = (&'a str, &'a str, &'a str, u64);

#[track_caller]
fn expect(report: &Value, name: &str, (status, version, era, tools): Expected<'_>) {
    let found = service(report, name);
    let seen = (&found["status"], &found["protocol_version"], &found["era"], &found["tools_count"]);
    assert_eq!(
        json!([seen.0, seen.1, seen.2, seen.3]),
        json!([status, version, era, tools]),
        "{found:#}"
    );
    assert_eq!(found["failure"], Value::Null);
    assert!(found["latency_ms"].as_f64() > Some(0.0), "{found:#}");
    assert!(found["total_ms"].as_f64() >= found["latency_ms"].as_f64(), "{found:#}");
    assert!(!found["server"]["name"].as_str().unwrap().is_empty(), "{found:#}");
}

const LEGACY: &str = "2025-11-25";

#[tokio::test]
async fn a_clients_file_of_real_servers_is_checked_one_by_one() {
    let everything = peer!("everything");
    let everything_http = peer!("everything-http");
    let filesystem = peer!("filesystem");
    let time = peer!("time");
    let home = Home::new();
    let (_server, port) = everything_http.listen().await;
    let folder = home.work().display().to_string();
    let file = home.write(
        "mcp.json",
        json!({ "mcpServers": {
            "everything": everything.entry(),
            "files": filesystem.with(&[&folder]).entry(),
            "time": time.with(&["--local-timezone", "UTC"]).entry(),
            "remote": { "url": format!("http://127.0.0.1:{port}/mcp") },
            "absent": { "command": "no-such-program-anywhere", "args": [] },
        }})
        .to_string(),
    );
    let ran = home
        .run(&["check", "--mcp-config", file.to_str().unwrap(), "--output", "json"])
        .await
        .expect(1);
    let report = ran.json();
    assert_eq!(report["schema"], "mcpmon/check/v1");
    expect(&report, "everything", ("running", LEGACY, "legacy", 13));
    expect(&report, "files", ("running", LEGACY, "legacy", 14));
    expect(&report, "time", ("running", LEGACY, "legacy", 2));
    expect(&report, "remote", ("running", LEGACY, "legacy", 13));
    let absent = service(&report, "absent");
    assert_eq!(absent["status"], "stopped");
    assert_eq!(absent["failure"]["code"], "command_not_found", "{absent:#}");
    assert!(!absent["failure"]["next_step"].as_str().unwrap().is_empty());
    // Failing first, then by name.
    let names: Vec<&str> = report["services"]
        .as_array()
        .unwrap()
        .iter()
        .map(|service| service["service"].as_str().unwrap())
        .collect();
    assert_eq!(names, ["absent", "everything", "files", "remote", "time"]);
    assert_eq!(report["summary"]["running"], 4);
    assert_eq!(report["summary"]["stopped"], 1);
    assert!(!home.database().exists(), "`check` opens no database");
    assert_eq!(home.processes(), []);
}

#[tokio::test]
async fn several_sources_are_checked_together_and_one_command_by_itself() {
    let memory = peer!("memory");
    let home = Home::new();
    let store = home.path().join("memory.json").display().to_string();
    let mut entry = memory.entry();
    entry["env"] = json!({ "MEMORY_FILE_PATH": store });
    let one = home.write("one.json", json!({ "mcpServers": { "one": entry } }).to_string());
    // The same command with another file is another server.
    entry["env"]["MEMORY_FILE_PATH"] = json!(format!("{store}.too"));
    let two = home.write("two.json", json!({ "servers": { "two": entry } }).to_string());
    let ran = home
        .run(&[
            "check",
            "--mcp-config",
            one.to_str().unwrap(),
            "--mcp-config",
            two.to_str().unwrap(),
            "--output",
            "jsonl",
        ])
        .await
        .expect(0);
    let lines: Vec<Value> =
        ran.out.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines.len(), 2, "{ran}");
    assert!(lines.iter().all(|line| line["tools_count"] == 9), "{ran}");

    let mut args = vec!["check", "--output", "json", "--", memory.command.as_str()];
    args.extend(memory.args.iter().map(String::as_str));
    let report = home.run(&args).await.expect(0).json();
    assert_eq!(report["services"][0]["service"], "node", "named after the program");
}

#[tokio::test]
async fn the_table_puts_the_reason_beside_what_fails() {
    let home = Home::new();
    home.configure(
        "[services.gone]\ncommand = \"no-such-program-anywhere\"\n\
         [services.refused]\nurl = \"http://127.0.0.1:9/mcp\"\n",
    );
    let ran = home.run(&["check"]).await.expect(1);
    let line = |name: &str| {
        ran.out.lines().find(|line| line.contains(name)).unwrap_or_else(|| panic!("{ran}"))
    };
    assert!(line("gone").contains("stopped"), "{ran}");
    assert!(ran.out.contains("command_not_found"), "{ran}");
    assert!(line("refused").contains("stopped"), "{ran}");
    assert!(ran.out.contains("connection_refused"), "{ran}");
}

#[tokio::test]
async fn a_time_limit_is_one_deadline_for_the_whole_check() {
    let home = Home::new();
    let start = tokio::time::Instant::now();
    let ran = home
        .run(&["check", "--timeout", "1s", "--output", "json", "--", "sleep", "60"])
        .await
        .expect(1);
    assert!(start.elapsed().as_secs() < 15, "{:?}", start.elapsed());
    let failure = &ran.json()["services"][0]["failure"];
    assert_eq!(failure["code"], "handshake_timeout", "{ran}");
    assert_eq!(home.processes(), []);
}

#[tokio::test]
async fn a_named_service_alone_is_checked_and_an_unknown_name_is_an_error() {
    let home = Home::new();
    home.configure(
        "[services.a]\ncommand = \"no-such-a\"\n[services.b]\ncommand = \"no-such-b\"\n",
    );
    let report = home.run(&["check", "b", "--output", "json"]).await.expect(1).json();
    assert_eq!(report["summary"]["total"], 1);
    assert_eq!(report["services"][0]["service"], "b");
    home.run(&["check", "bb"]).await.expect(2).says(&["bb", "`b`"]);
}
