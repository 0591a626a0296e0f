//! `mcpmon ps`: real trees of processes, found, flagged and ended.
//!
//! This machine's other processes are seen too, so each test asks by name for what is its own.

use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use serde_json::Value;
use tokio::process::{Child, Command};

use crate::home::{Home, until};

const LONG: Duration = Duration::from_secs(60);

/// Goes on whatever is closed or said to it, as a forgotten server does.
const SERVER: &str = "#!/bin/sh\ntrap '' HUP\nwhile :; do sleep 1; done\n";

/// A server's program, and a configuration that has it as a service.
fn server(home: &Home, service: &str) -> PathBuf {
    use std::os::unix::fs::PermissionsExt as _;
    let path = home.write(&format!("bin/mcp-server-{service}"), SERVER);
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
    home.configure(format!(
        "[services.{service}]\ncommand = \"{}\"\nargs = [\"--api-key\", \"hunter2hunter2\"]\n",
        path.display()
    ));
    path
}

/// A client that starts the server so many times, each behind a pipe of its own.
fn client(home: &Home, server: &std::path::Path, copies: usize) -> Child {
    let one = format!("sleep 600 | {} --api-key hunter2hunter2 &", server.display());
    let script = format!("{} wait", format!("{one} ").repeat(copies));
    let mut command = Command::new("sh");
    command.arg0("claude").args(["-c", &script]).env("HOME", home.path());
    command.stdin(Stdio::null()).stdout(Stdio::null()).kill_on_drop(true);
    command.spawn().unwrap()
}

/// The servers of this service, once there are so many.
async fn servers(home: &Home, service: &str, count: usize) -> Vec<Value> {
    until("the servers", LONG, async || {
        let ran = home.run(&["ps", service, "--output", "json"]).await;
        let servers = (ran.code == Some(0)).then(|| ran.json()["servers"].as_array().cloned());
        servers.flatten().filter(|servers| servers.len() == count)
    })
    .await
}

fn pid(server: &Value) -> i32 {
    i32::try_from(server["processes"][0]["pid"].as_i64().unwrap()).unwrap()
}

fn kill(pid: i32) {
    let pid = rustix::process::Pid::from_raw(pid).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
}

fn parent(pid: i32) -> Option<i32> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat.rsplit_once(')')?.1.split_ascii_whitespace().nth(1)?.parse().ok()
}

#[tokio::test]
async fn a_server_is_shown_below_its_client_and_without_its_secrets() {
    let home = Home::new();
    let path = server(&home, "shown");
    let client = client(&home, &path, 1);
    let found = &servers(&home, "shown", 1).await[0];
    assert_eq!(found["client"]["name"], "Claude", "{found:#}");
    assert_eq!(found["client"]["pid"], client.id().unwrap());
    assert_eq!(found["flags"], serde_json::json!([]));
    assert_eq!(found["own"], true);
    let process = &found["processes"][0];
    assert!(process["command"].as_str().unwrap().ends_with("--api-key ***"), "{process:#}");
    assert!(process["memory_bytes"].as_u64() > Some(10_000), "{process:#}");
    assert_eq!(process["threads"], 1);

    let ran = home.run(&["ps", "shown"]).await.expect(0);
    assert!(ran.out.contains("Claude") && ran.out.contains("shown: "), "{ran}");
    assert!(!ran.out.contains("hunter2"), "{ran}");
    let ran = home.run(&["ps", "shown", "--reap", "--yes"]).await.expect(0);
    ran.says(&["nothing of yours is flagged"]);
    home.run(&["ps", "no-such-service"]).await.expect(2).says(&["no-such-service"]);
    home.run(&["ps", "--yes"]).await.expect(2);
}

#[tokio::test]
async fn a_server_whose_client_is_gone_is_flagged_and_ended_after_a_yes() {
    let home = Home::new();
    let path = server(&home, "forgotten");
    let mut client = client(&home, &path, 1);
    let found = servers(&home, "forgotten", 1).await;
    let (server, starter) = (pid(&found[0]), parent(pid(&found[0])).unwrap());
    // The client, and what it had at the other end of the pipe.
    let writer = home.processes().into_iter().find(|(_, line)| line == "sleep 600").unwrap().0;
    client.kill().await.unwrap();
    kill(writer);
    let adopter =
        until("another parent", LONG, async || parent(server).filter(|parent| *parent != starter))
            .await;
    if adopter != 1 {
        eprintln!("skipped: orphans of this session go to process {adopter}, and not to the first");
        return;
    }
    let found = servers(&home, "forgotten", 1).await;
    assert_eq!(found[0]["flags"], serde_json::json!(["orphan"]), "{found:#?}");
    assert_eq!(found[0]["client"], Value::Null);

    let ran = home.run(&["ps", "forgotten", "--reap"]).await.expect(2);
    ran.says(&["--yes"]);
    assert_eq!(parent(server), Some(1), "nothing is ended without a yes");
    let args = ["ps", "forgotten", "--reap", "--yes", "--output", "json"];
    let ran = home.run(&args).await.expect(0);
    assert_eq!(ran.json()["servers"][0]["reaped"], "ended", "{ran}");
    ran.says(&[&server.to_string(), "ended"]);
    until("the end of it", LONG, async || parent(server).is_none().then_some(())).await;
}

#[tokio::test]
async fn of_two_copies_one_client_started_the_older_is_ended() {
    let home = Home::new();
    let path = server(&home, "twice");
    let _client = client(&home, &path, 2);
    let found = servers(&home, "twice", 2).await;
    let flagged: Vec<&Value> =
        found.iter().filter(|server| server["flags"] == serde_json::json!(["duplicate"])).collect();
    assert_eq!(flagged.len(), 1, "{found:#?}");
    let older = pid(flagged[0]);
    home.run(&["ps", "twice", "--reap", "--yes"]).await.expect(0).says(&[&older.to_string()]);
    let left = servers(&home, "twice", 1).await;
    assert_ne!(pid(&left[0]), older);
    assert_eq!(left[0]["flags"], serde_json::json!([]), "the last copy is in use");
}

#[tokio::test]
async fn an_ordinary_machine_is_shown_whole() {
    let home = Home::new();
    let report = home.run(&["ps", "--output", "json"]).await.expect(0).json();
    assert_eq!(report["schema"], "mcpmon/ps/v1");
    assert!(report["servers"].is_array());
}
