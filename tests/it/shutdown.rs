//! Being told to stop: in time, cleanly, and with nothing left behind.

use std::time::Duration;

use mcpmon_mcp::server::{Behaviour, Conduct, Fault, Server};
use mcpmon_testkit::{FixtureServer, Stream};
use rustix::process::Signal;

use crate::home::{Home, service, until};

/// The promise of the command's documentation.
const STOPS_WITHIN: Duration = Duration::from_secs(10);

async fn stops_cleanly_after(signal: Signal) -> Duration {
    let home = Home::new();
    let mut up = home.start(&["up", "--interval", "1s"]);
    until("three running services", Duration::from_secs(60), || async {
        home.status().await.filter(|status| status["summary"]["running"] == 3)
    })
    .await;
    let before = home.processes();
    assert!(before.len() >= 3, "the monitor and its stdio services: {before:?}");

    up.signal(signal).unwrap();
    let told = tokio::time::Instant::now();
    let status = up.wait_at_most(STOPS_WITHIN).await.unwrap();
    let took = told.elapsed();
    assert_eq!(status.code(), Some(0), "{}", up.written(Stream::Err));
    assert_eq!(home.processes(), [], "nothing may outlive the monitor");

    let status = home.status().await.unwrap();
    assert_eq!(status["monitor"]["running"], false, "{status:#}");
    assert_eq!(service(&status, "demo-modern")["status"], "running", "as last seen");
    took
}

#[tokio::test]
async fn up_stops_cleanly_after_sigterm() {
    let took = stops_cleanly_after(Signal::TERM).await;
    println!("ended {:.2} s after SIGTERM", took.as_secs_f64());
}

#[tokio::test]
async fn up_stops_cleanly_after_ctrl_c() {
    let took = stops_cleanly_after(Signal::INT).await;
    println!("ended {:.2} s after Ctrl-C", took.as_secs_f64());
}

#[tokio::test]
async fn up_stops_in_time_while_a_server_does_not_answer_and_ignores_signals() {
    let home = Home::new();
    let stubborn = "trap '' TERM INT HUP; while :; do read -r line || sleep 1; done";
    home.configure(format!(
        "[services.stubborn]\ncommand = \"sh\"\nargs = [\"-c\", \"{stubborn}\"]\n"
    ));
    let mut up = home.start(&["up", "--interval", "1s"]);
    until("the server to be started", Duration::from_secs(30), || async {
        home.processes().iter().any(|(_, line)| line.contains("while :")).then_some(())
    })
    .await;
    up.signal(Signal::TERM).unwrap();
    let told = tokio::time::Instant::now();
    let status = up.wait_at_most(STOPS_WITHIN).await.unwrap();
    println!(
        "ended {:.2} s after SIGTERM, with a server that ignores it",
        told.elapsed().as_secs_f64()
    );
    assert_eq!(status.code(), Some(0), "{}", up.written(Stream::Err));
    assert_eq!(home.processes(), []);
}

#[tokio::test]
async fn up_does_not_wait_for_a_url_that_does_not_answer() {
    let server =
        FixtureServer::serving(Server::new(FixtureServer::spec()).behaving(Behaviour::new(|_| {
            Conduct { fault: Some(Fault::Hang), ..Conduct::default() }
        })))
        .await;
    let home = Home::new();
    home.configure(format!("[services.mute]\nurl = \"{}\"\n", server.url()));
    let mut up = home.start(&["up"]);
    server.wait_for("server/discover", 1).await;
    up.signal(Signal::TERM).unwrap();
    let told = tokio::time::Instant::now();
    let status = up.wait_at_most(STOPS_WITHIN).await.unwrap();
    let took = told.elapsed();
    println!("ended {:.2} s after SIGTERM, with a URL that does not answer", took.as_secs_f64());
    assert_eq!(status.code(), Some(0), "{}", up.written(Stream::Err));
    // The check itself has ten seconds, and would use them all.
    assert!(took < Duration::from_secs(5), "{took:?}");
}

#[tokio::test]
async fn nothing_outlives_a_monitor_that_was_killed() {
    let home = Home::new();
    let mut up = home.start(&["up", "--interval", "1s"]);
    until("three running services", Duration::from_secs(60), || async {
        home.status().await.filter(|status| status["summary"]["running"] == 3)
    })
    .await;
    // The monitor alone, not its group: nobody is left to clean up but the guardian.
    up.signal(Signal::KILL).unwrap();
    up.wait().await.unwrap();
    let killed = tokio::time::Instant::now();
    until("every child to be gone", Duration::from_secs(10), || async {
        home.processes().is_empty().then_some(())
    })
    .await;
    println!("every child gone {:.2} s after kill -9", killed.elapsed().as_secs_f64());
}

#[tokio::test]
async fn other_commands_end_at_once_with_130_when_interrupted() {
    let home = Home::new();
    let mut check = home.start(&["check", "--timeout", "60s", "--", "sleep", "600"]);
    until("the server to be started", Duration::from_secs(30), || async {
        home.processes().iter().any(|(_, line)| line == "sleep 600").then_some(())
    })
    .await;
    check.signal(Signal::INT).unwrap();
    let status = check.wait_at_most(STOPS_WITHIN).await.unwrap();
    assert_eq!(status.code(), Some(130), "{}", check.written(Stream::Err));
    assert_eq!(home.processes(), []);
}
