//! Repairs by the real program: of a server that lives and fails, and of none that should be left
//! alone.

use std::path::Path;
use std::time::Duration;

use mcpmon_testkit::Stream;
use rustix::process::Signal;
use serde_json::{Value, json};

use crate::home::{Home, service, until};

const PATIENCE: Duration = Duration::from_secs(60);

/// A demo server over stdio, restarted when it lives and fails.
fn restarted(args: &[&str]) -> Value {
    let args: Vec<&str> = [&["demo-server"][..], args].concat();
    json!({
        "command": env!("CARGO_BIN_EXE_mcpmon"),
        "args": args,
        "remediation": { "action": "restart" },
    })
}

fn configure(home: &Home, services: &Value) {
    let configuration = json!({
        "monitoring": { "check_interval": "1s" },
        "service_monitoring": { "max_consecutive_failures": 2, "max_consecutive_successes": 1 },
        // A loaded machine must not add alerts of its own.
        "performance_monitoring": { "enabled": false, "response_time_threshold": "100ms" },
        "services": services,
    });
    home.configure(toml::to_string(&configuration).unwrap());
}

/// What `explain` knows of a service.
async fn explained(home: &Home, name: &str) -> Value {
    let ran = home.run(&["explain", name, "--output", "json"]).await.expect(0);
    ran.json()["service"].clone()
}

/// The newest repair of a service, once it has this outcome.
async fn repaired(home: &Home, name: &str, outcome: &str) -> Value {
    until(&format!("{name} to be {outcome}"), PATIENCE, async || {
        let ran = home.run(&["explain", name, "--output", "json"]).await;
        let report: Value = serde_json::from_str(&ran.out).ok()?;
        let repairs = report["service"]["repairs"].as_array()?;
        repairs.iter().find(|repair| repair["outcome"] == outcome).cloned()
    })
    .await
}

#[tokio::test]
async fn a_server_that_lives_and_fails_is_restarted_verified_and_told_of() {
    let home = Home::new();
    configure(&home, &json!({ "it": restarted(&["--fail-after", "12", "--fail-with", "error"]) }));
    let mut up = home.start(&["up"]);
    let repair = repaired(&home, "it", "helped").await;
    assert_eq!((&repair["attempt"], &repair["action"]), (&json!(1), &json!("restart")));
    assert_eq!(repair["argv"][1], "demo-server");
    assert_eq!(repair["dry_run"], false);
    assert_eq!(
        (&repair["before"]["status"], &repair["before"]["code"]),
        (&json!("error"), &repair["code"])
    );
    assert_eq!(
        (&repair["after"]["status"], &repair["after"]["code"]),
        (&json!("running"), &Value::Null)
    );
    let status = until("the status to follow", PATIENCE, async || {
        let status = home.status().await?;
        (service(&status, "it")["status"] == "running").then_some(status)
    })
    .await;
    assert_eq!(service(&status, "it")["metrics"]["restarts"], 1);
    until("the recovery to be told", PATIENCE, async || {
        let written = up.written(Stream::Out) + &up.written(Stream::Err);
        written
            .lines()
            .any(|line| line.contains("RESOLVED") && line.contains("it is down"))
            .then_some(())
    })
    .await;
    let written = up.written(Stream::Out);
    for words in ["repair of it: restart begins", "repair of it: restart helped"] {
        assert!(written.contains(words), "{words:?} is not in\n{written}");
    }
    let page = home.run(&["explain", "it"]).await.expect(0).out;
    assert!(page.contains("\nRepairs\n") && page.contains("restart helped"), "{page}");
    up.signal(Signal::TERM).unwrap();
    assert_eq!(up.wait().await.unwrap().code(), Some(0));
}

#[tokio::test]
async fn the_slow_the_blocked_and_the_dry_are_left_alone() {
    let home = Home::new();
    let failing = ["--fail-after", "8", "--fail-with", "error"];
    let mut dry = restarted(&failing);
    dry["remediation"]["dry_run"] = json!(true);
    let mut blocked = restarted(&failing);
    // Nothing listens on the port of nobody.
    blocked["depends_on"] = json!(["tcp://127.0.0.1:1"]);
    let slow = restarted(&["--delay", "300ms"]);
    configure(&home, &json!({ "dry": dry, "blocked": blocked, "slow": slow }));
    let mut up = home.start(&["up"]);
    let said = repaired(&home, "dry", "dry_run").await;
    assert_eq!((&said["dry_run"], &said["after"]), (&json!(true), &Value::Null));
    until("the other to be down too", PATIENCE, async || {
        let status = home.status().await?;
        let code = service(&status, "blocked")["failure"]["code"].clone();
        (code == "dependency_down").then_some(())
    })
    .await;
    // As long again as it took to decide about the other.
    let checks = |status: &Value| service(status, "blocked")["metrics"]["total_checks"].as_u64();
    let before = checks(&home.status().await.unwrap()).unwrap();
    until("more checks", PATIENCE, async || {
        (checks(&home.status().await?)? >= before + 4).then_some(())
    })
    .await;
    let status = home.status().await.unwrap();
    assert_eq!(service(&status, "slow")["status"], "degraded");
    for name in ["slow", "blocked", "dry"] {
        assert_eq!(service(&status, name)["metrics"]["restarts"], 0, "{name}");
    }
    assert_eq!(explained(&home, "slow").await["repairs"], json!([]));
    assert_eq!(explained(&home, "blocked").await["repairs"], json!([]));
    up.signal(Signal::TERM).unwrap();
    assert_eq!(up.wait().await.unwrap().code(), Some(0));
}

#[tokio::test]
async fn a_service_behind_a_url_is_repaired_by_a_command() {
    let home = Home::new();
    let log = home.work().join("mended");
    let script =
        format!("echo \"$MCPMON_SERVICE $MCPMON_FAILURE\" >> {}; echo done", log.display());
    configure(
        &home,
        &json!({ "it": {
            "url": "http://127.0.0.1:1/mcp",
            "remediation": { "action": "command", "command": ["sh", "-c", script], "verify_within": "1s" },
        } }),
    );
    let mut up = home.start(&["up"]);
    let repair = repaired(&home, "it", "did_not_help").await;
    assert_eq!((&repair["exit_status"], &repair["last_lines"]), (&json!(0), &json!(["done"])));
    let first = |path: &Path| {
        let text = std::fs::read_to_string(path).unwrap();
        text.lines().next().map(str::to_owned)
    };
    assert_eq!(first(&log).as_deref(), Some("it connection_refused"));
    up.signal(Signal::TERM).unwrap();
    assert_eq!(up.wait().await.unwrap().code(), Some(0));
}
