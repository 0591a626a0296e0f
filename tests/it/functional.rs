//! `mcpmon check --functional`: configured calls, made against real servers.

use mcpmon_testkit::FixtureServer;
use serde_json::{Value, json};

use crate::home::{Home, service};
use crate::peers::peer;

fn configure(home: &Home, entry: &Value) {
    home.configure(toml::to_string(&json!({ "services": { "it": entry } })).unwrap());
}

fn calls(report: &Value) -> Vec<(String, Option<String>)> {
    service(report, "it")["calls"]
        .as_array()
        .unwrap_or_else(|| panic!("{report:#}"))
        .iter()
        .map(|call| {
            let code = call["failure"]["code"].as_str().map(str::to_owned);
            (call["tool"].as_str().unwrap().to_owned(), code)
        })
        .collect()
}

#[tokio::test]
async fn calls_are_made_after_the_check_and_decide_its_result() {
    let fixture = FixtureServer::start().await;
    let home = Home::new();
    let echo = |wanted: &str| json!({"tool": "echo", "arguments": {"text": "hello"}, "expect": {"contains": wanted}});
    configure(&home, &json!({"url": fixture.url(), "functional": [echo("hello")]}));
    let report = home.run(&["check", "it", "--functional", "--output", "json"]).await.expect(0);
    let report = report.json();
    assert_eq!(calls(&report), [("echo".to_owned(), None)]);
    assert_eq!(service(&report, "it")["status"], "running");
    assert!(service(&report, "it")["calls"][0]["duration_ms"].as_f64() > Some(0.0));

    configure(&home, &json!({"url": fixture.url(), "functional": [echo("bye"), echo("hello")]}));
    let ran = home.run(&["check", "--functional", "--output", "json"]).await.expect(1);
    let found = ran.json();
    let mismatch = Some("functional_mismatch".to_owned());
    assert_eq!(calls(&found), [("echo".to_owned(), mismatch), ("echo".to_owned(), None)]);
    let found = service(&found, "it");
    assert_eq!(found["status"], "error");
    assert_eq!(found["failure"]["code"], "functional_mismatch");
    assert_eq!(found["failure"]["phase"], "call");
    assert_eq!(found["tools_count"], 2, "the check itself is told too");

    let table = home.run(&["check", "--functional"]).await.expect(1);
    assert!(table.out.contains("no text of `echo` contains `bye`"), "{table}");

    // Without the flag no call is made, and the contract is what it was.
    let report = home.run(&["check", "--output", "json"]).await.expect(0).json();
    assert_eq!(service(&report, "it").get("calls"), None);
}

#[tokio::test]
async fn a_tool_that_may_change_something_is_not_called_unless_that_is_allowed() {
    let everything = peer!("everything");
    let home = Home::new();
    let call = |tool: &str, allowed: bool| {
        json!({"tool": tool, "arguments": {"message": "hi"}, "allow_side_effects": allowed,
               "expect": {"contains": "hi"}})
    };
    let mut entry = everything.entry();
    entry["functional"] = json!([call("echo", true), call("no-such-tool", true)]);
    configure(&home, &entry);
    let ran = home.run(&["check", "--functional", "--output", "json"]).await.expect(1);
    let missing = Some("capability_missing".to_owned());
    let expected = [("echo".to_owned(), None), ("no-such-tool".to_owned(), missing)];
    assert_eq!(calls(&ran.json()), expected, "{ran}");
    assert_eq!(home.processes(), []);
}

#[tokio::test]
async fn the_example_of_the_design_holds_against_the_real_server() {
    let filesystem = peer!("filesystem");
    let home = Home::new();
    let folder = home.work().display().to_string();
    let mut entry = filesystem.with(&[&folder]).entry();
    entry["functional"] = json!([{
        "tool": "list_allowed_directories",
        "expect": {"is_error": false, "contains": "/", "output_schema": true, "within": "10s"},
    }]);
    configure(&home, &entry);
    let ran = home.run(&["check", "--functional", "--output", "json"]).await.expect(0);
    assert_eq!(calls(&ran.json()), [("list_allowed_directories".to_owned(), None)], "{ran}");
}

#[tokio::test]
async fn real_servers_of_both_eras_are_called() {
    let modern = peer!("fastmcp-modern");
    let legacy = peer!("fastmcp-legacy");
    for peer in [modern, legacy] {
        let home = Home::new();
        let mut entry = peer.entry();
        let call = json!({"tool": "add", "arguments": {"a": 2, "b": 3},
            "expect": {"contains": "5", "output_schema": true}});
        entry["functional"] = json!([call]);
        configure(&home, &entry);
        let ran = home.run(&["check", "--functional", "--output", "json"]).await.expect(0);
        assert_eq!(calls(&ran.json()), [("add".to_owned(), None)], "{ran}");
    }
}

#[tokio::test]
async fn calls_and_dependencies_that_cannot_be_are_errors_of_the_configuration() {
    let home = Home::new();
    home.configure(
        "[services.github]\nurl = \"http://127.0.0.1:9/\"\ndepends_on = [\"redis://x\"]\n",
    );
    home.run(&["check"]).await.expect(2).says(&["redis://x", "mcpmon.toml:3:"]);
    home.configure("[services.github]\nurl = \"http://127.0.0.1:9/\"\ndepends_on = [\"githib\"]\n");
    home.run(&["check"]).await.expect(2).says(&["did you mean `github`?"]);
}
