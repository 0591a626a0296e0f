//! A changed configuration is taken up whole, or not at all.

use std::time::Duration;

use mcpmon_testkit::{ChildGuard, Stream};
use rustix::process::Signal;
use serde_json::Value;

use crate::home::{Home, service, until};

const PATIENCE: Duration = Duration::from_secs(60);

fn demo(name: &str) -> String {
    let mcpmon = env!("CARGO_BIN_EXE_mcpmon");
    format!(
        "[services.{name}]\ncommand = \"{mcpmon}\"\nargs = [\"demo-server\"]\n\
         env = {{ NAME = \"{name}\" }}\n"
    )
}

async fn started(home: &Home, services: &[&str]) -> ChildGuard {
    home.configure(services.iter().map(|name| demo(name)).collect::<String>());
    let up = home.start(&["up", "--interval", "1s"]);
    running(home, services).await;
    up
}

async fn running(home: &Home, services: &[&str]) -> Value {
    until(&format!("{services:?} to run"), PATIENCE, || async {
        let status = home.status().await?;
        (status["summary"]["running"] == services.len()
            && status["summary"]["total"] == services.len())
        .then_some(status)
    })
    .await
}

/// The process that serves `name`.
fn server(home: &Home, name: &str) -> Option<i32> {
    let marker = format!("NAME={name}");
    home.processes().into_iter().map(|(pid, _)| pid).find(|pid| {
        let environment = std::fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
        environment.split(|byte| *byte == 0).any(|variable| variable == marker.as_bytes())
    })
}

#[tokio::test]
async fn a_changed_file_adds_a_service_and_leaves_the_others_sessions_alone() {
    let home = Home::new();
    let _up = started(&home, &["one"]).await;
    let before = server(&home, "one").expect("a held process");
    home.configure(demo("one") + &demo("two"));
    running(&home, &["one", "two"]).await;
    assert_eq!(server(&home, "one"), Some(before), "its process was kept");

    home.configure(demo("two"));
    let status = running(&home, &["two"]).await;
    assert_eq!(status["summary"]["total"], 1, "{status:#}");
    until("the removed server to end", PATIENCE, || async {
        server(&home, "one").is_none().then_some(())
    })
    .await;
}

#[tokio::test]
async fn sighup_reloads_too() {
    let home = Home::new();
    let up = started(&home, &["one"]).await;
    let before = server(&home, "one").expect("a held process");
    home.configure(demo("one") + &demo("two"));
    up.signal(Signal::HUP).unwrap();
    running(&home, &["one", "two"]).await;
    assert_eq!(server(&home, "one"), Some(before), "its process was kept");
}

#[tokio::test]
async fn a_changed_service_is_opened_anew_and_its_history_goes_on() {
    let home = Home::new();
    let _up = started(&home, &["one"]).await;
    let before = server(&home, "one").expect("a held process");
    home.configure(
        demo("one").replace("\"demo-server\"", "\"demo-server\", \"--delay\", \"10ms\""),
    );
    until("another process", PATIENCE, || async {
        server(&home, "one").filter(|pid| *pid != before)
    })
    .await;
    until("checks from before and after", PATIENCE, || async {
        let status = home.status().await?;
        let one = status["services"].get(0)?;
        assert_eq!(one["metrics"]["failed_checks"], 0, "{status:#}");
        (one["status"] == "running" && one["metrics"]["total_checks"].as_u64() >= Some(3))
            .then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_broken_file_keeps_what_was_and_says_so() {
    let home = Home::new();
    let up = started(&home, &["one"]).await;
    let before = server(&home, "one").expect("a held process");
    home.configure(demo("one") + "[monitoring]\ncheck_intervall = 3\n");
    let line = up.line(Stream::Err, "check_intervall").await.expect("the mistake is told");
    assert!(line.contains("mcpmon.toml:"), "{line}");
    let status = until("the report to say so", PATIENCE, || async {
        home.status().await.filter(|status| status["monitor"]["reload_error"].is_string())
    })
    .await;
    assert_eq!(service(&status, "one")["status"], "running", "{status:#}");
    assert_eq!(server(&home, "one"), Some(before));

    home.configure(demo("one") + &demo("two"));
    running(&home, &["one", "two"]).await;
    until("the mistake to be forgotten", PATIENCE, || async {
        home.status().await.filter(|status| status["monitor"]["reload_error"].is_null())
    })
    .await;
}
