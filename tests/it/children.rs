//! Processes of services, at their worst: nothing they do leaves anything behind.
#![cfg(target_os = "linux")]

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use mcpmon_collect::McpProbeFactory;
use mcpmon_core::{
    FailureCode, FindingCode, Observation, Probe, ProbeFactory as _, Question, ServiceSpec,
    Settings, Status,
};
use mcpmon_mcp::Guardian;
use mcpmon_testkit::Stream;
use rustix::process::{Pid, Signal, kill_process};
use tokio::time::Instant;

use crate::home::{Home, service, until};

const MCPMON: &str = env!("CARGO_BIN_EXE_mcpmon");
/// After `kill -9` of the monitor nothing may be alive for longer.
const GONE_WITHIN: Duration = Duration::from_secs(5);

fn is_soak() -> bool {
    std::env::var_os("MCPMON_SOAK").is_some()
}

/// Answers, and leaves three kinds of company behind: a child in its group, one in a session of
/// its own, and one that forked twice in a session of its own with no environment at all. None of
/// them, nor itself, minds SIGTERM or the end of its input.
fn stubborn(home: &Home) -> Vec<String> {
    let sleeper = home.write(
        "sleeper.sh",
        "trap '' TERM INT HUP\nwhile :; do sleep 600 </dev/null >/dev/null 2>&1; done\n",
    );
    let script = home.write(
        "stubborn.sh",
        format!(
            "trap '' TERM INT HUP\n\
             sh {sleeper} in-group </dev/null >/dev/null 2>&1 &\n\
             setsid sh {sleeper} own-session </dev/null >/dev/null 2>&1 &\n\
             (setsid sh -c 'env -i PATH=\"$PATH\" sh {sleeper} no-mark & exit 0' \
             </dev/null >/dev/null 2>&1 &)\n\
             {MCPMON} demo-server\n\
             while :; do sleep 600 </dev/null >/dev/null 2>&1; done\n",
            sleeper = sleeper.display(),
        ),
    );
    vec![script.display().to_string()]
}

/// Every process whose command line or environment names this home, and every child of the
/// guardian, zombies included.
fn alive(home: &Home, guardian: Option<u32>) -> Vec<(i32, String)> {
    let mut found = Vec::new();
    let wanted = home.path().display().to_string();
    for entry in std::fs::read_dir("/proc").unwrap().flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse::<i32>().ok()) else {
            continue;
        };
        let read = |file: &str| std::fs::read(entry.path().join(file)).unwrap_or_default();
        let text = |file: &str| String::from_utf8_lossy(&read(file)).replace('\0', " ");
        let (line, stat) = (text("cmdline"), text("stat"));
        let parent = stat.rsplit_once(") ").and_then(|(_, rest)| rest.split(' ').nth(1));
        let is_guarded =
            guardian.is_some() && parent == guardian.map(|id| id.to_string()).as_deref();
        if is_guarded || line.contains(&wanted) || text("environ").contains(&wanted) {
            found.push((pid, if line.is_empty() { stat } else { line }));
        }
    }
    found
}

async fn ask(probe: &mut Box<dyn Probe>, question: Question, within: Duration) -> Observation {
    probe.ask(question, (Instant::now() + within).into_std()).await
}

#[tokio::test]
async fn a_server_that_ignores_everything_and_forks_leaves_nothing() {
    let probes = if is_soak() { 1_000 } else { 20 };
    let home = Home::new();
    let guardian = Guardian::run_by(MCPMON);
    let factory = McpProbeFactory::new(&Settings::default()).with_guardian(guardian.clone());
    let args = stubborn(&home);
    let started = Instant::now();
    let width = 20;
    for round in 0..probes / width {
        let probing = (0..width).map(|number| {
            let spec = ServiceSpec::stdio(format!("{round}-{number}"), "sh", args.clone());
            let mut probe = factory.probe(&Arc::new(spec));
            tokio::spawn(async move {
                let seen = ask(&mut probe, Question::Health, Duration::from_secs(60)).await;
                assert_eq!(seen.raw_status(), Status::Running, "{seen:?}");
                probe.close().await;
            })
        });
        for probing in probing.collect::<Vec<_>>() {
            probing.await.unwrap();
        }
        // When the last of a round is over, whatever is left can only be theirs.
        assert_eq!(alive(&home, guardian.id().await), [], "after round {round}");
    }
    let id = guardian.id().await.unwrap();
    guardian.close().await;
    assert!(!std::path::Path::new(&format!("/proc/{id}")).exists(), "the guardian is gone too");
    println!(
        "{probes} probes of a server that ignores SIGTERM and forks grandchildren: 0 processes, 0 \
         zombies left, {:.0} s",
        started.elapsed().as_secs_f64()
    );
}

#[tokio::test]
async fn what_a_server_left_behind_is_ended_and_told() {
    let home = Home::new();
    let guardian = Guardian::run_by(MCPMON);
    let factory = McpProbeFactory::new(&Settings::default()).with_guardian(guardian.clone());
    // Leaves a daemon, answers, and exits with its input closed or at the tool that ends it.
    let script = format!(
        "(setsid sleep 601 </dev/null >/dev/null 2>&1 &)\nsleep 602 </dev/null >/dev/null 2>&1 &\n\
         exec {MCPMON} demo-server"
    );
    let spec = ServiceSpec::stdio("leaves", "sh", ["-c".to_owned(), script]);
    let mut probe = factory.probe(&Arc::new(spec));
    let longest = Duration::from_secs(60);
    let seen = ask(&mut probe, Question::Health, longest).await;
    assert_eq!(seen.raw_status(), Status::Running, "{seen:?}");
    let server = until("the server", longest, async || {
        let all = alive(&home, guardian.id().await);
        all.iter().find(|(_, line)| line.contains("demo-server")).map(|(pid, _)| *pid)
    })
    .await;
    kill_process(Pid::from_raw(server).unwrap(), Signal::KILL).unwrap();
    until("the end of it to be seen and told", longest, async || {
        let seen = ask(&mut probe, Question::Health, longest).await;
        seen.findings.into_iter().find(|finding| finding.code == FindingCode::LeftoverProcess)
    })
    .await;
    probe.close().await;
    assert_eq!(alive(&home, guardian.id().await), []);
    guardian.close().await;
}

#[tokio::test]
async fn a_guardian_that_is_killed_is_said_and_replaced_and_leaves_nothing() {
    let home = Home::new();
    home.configure(format!("[services.one]\ncommand = \"{MCPMON}\"\nargs = [\"demo-server\"]\n"));
    let mut up = home.start(&["up", "--interval", "1s"]);
    let running =
        || async { home.status().await.filter(|status| status["summary"]["running"] == 1) };
    until("a running service", Duration::from_secs(60), running).await;
    let first = guardian_of(up.pid());
    let server = |home: &Home| {
        home.processes().into_iter().find(|(_, line)| line.contains("demo-server")).map(|it| it.0)
    };
    let before = server(&home).unwrap();
    kill_process(Pid::from_raw(first).unwrap(), Signal::KILL).unwrap();
    let after = until("the service under another guardian", Duration::from_secs(60), async || {
        server(&home).filter(|pid| *pid != before)
    })
    .await;
    assert_ne!(before, after);
    assert_ne!(guardian_of(up.pid()), first);
    assert!(!home.processes().iter().any(|(pid, _)| *pid == before));
    assert!(up.line(Stream::Err, "The guardian").await.is_some());
    let status = until("a running service again", Duration::from_secs(60), running).await;
    assert_eq!(service(&status, "one")["metrics"]["failed_checks"], 0, "no fault of the service");
    up.signal(Signal::TERM).unwrap();
    up.wait().await.unwrap();
    assert_eq!(home.processes(), []);
}

#[track_caller]
fn guardian_of(monitor: Pid) -> i32 {
    let line = format!("mcp-guardian\0__guardian\0{}\0", monitor.as_raw_nonzero());
    std::fs::read_dir("/proc")
        .unwrap()
        .flatten()
        .find(|entry| {
            std::fs::read(entry.path().join("cmdline")).is_ok_and(|found| found == line.as_bytes())
        })
        .and_then(|entry| entry.file_name().to_str()?.parse().ok())
        .expect("the monitor has a guardian")
}

#[tokio::test]
async fn the_guardian_minds_no_signal_of_the_terminal_and_costs_little() {
    let home = Home::new();
    home.configure(format!("[services.one]\ncommand = \"{MCPMON}\"\nargs = [\"demo-server\"]\n"));
    let mut up = home.start(&["up", "--interval", "1s"]);
    until("a running service", Duration::from_secs(60), || async {
        home.status().await.filter(|status| status["summary"]["running"] == 1)
    })
    .await;
    let guardian = Pid::from_raw(guardian_of(up.pid())).unwrap();
    for signal in [Signal::INT, Signal::HUP, Signal::TERM, Signal::QUIT] {
        kill_process(guardian, signal).unwrap();
    }
    let status =
        std::fs::read_to_string(format!("/proc/{}/status", guardian.as_raw_nonzero())).unwrap();
    let own: u64 = status
        .lines()
        .find_map(|line| line.strip_prefix("RssAnon:")?.split_whitespace().next()?.parse().ok())
        .unwrap();
    println!("the guardian's own memory: {own} kB");
    assert!(own < 3_000, "{own} kB\n{status}");
    up.signal(Signal::TERM).unwrap();
    let ended = up.wait().await.unwrap();
    assert_eq!(ended.code(), Some(0), "{}", up.written(Stream::Err));
    assert!(!up.written(Stream::Err).contains("guardian"), "{}", up.written(Stream::Err));
    assert_eq!(home.processes(), []);
}

#[tokio::test]
async fn a_pipe_after_check_ends_with_it() {
    let home = Home::new();
    let script = format!("{MCPMON} check -- {MCPMON} demo-server 2>&1 | cat");
    let mut command = home.command(["unused"]);
    let environment: Vec<_> =
        command.as_std().get_envs().map(|(k, v)| (k.to_owned(), v.unwrap().to_owned())).collect();
    command = tokio::process::Command::new("sh");
    command.args(["-c", &script]).env_clear().envs(environment).current_dir(home.work());
    let ran = crate::home::run(command).await.expect(0);
    assert!(ran.out.contains("running"), "{ran}");
    assert_eq!(home.processes(), []);
}

#[tokio::test]
async fn a_hundred_children_are_gone_after_kill_9_of_the_monitor() {
    let home = Home::new();
    let args = stubborn(&home);
    let mut config = "[service_monitoring]\nmax_starting = 64\n".to_owned();
    for number in 0..90 {
        config.push_str(&format!(
            "[services.quiet-{number}]\ncommand = \"sleep\"\nargs = [\"{}\"]\n",
            6_000 + number
        ));
    }
    for number in 0..10 {
        config.push_str(&format!(
            "[services.stubborn-{number}]\ncommand = \"sh\"\nargs = [\"{}\"]\n",
            args[0]
        ));
    }
    home.configure(config);
    let mut up = home.start(&["up"]);
    let started = until("a hundred children", Duration::from_secs(120), || async {
        let all = alive(&home, None);
        let of = |part: &str| all.iter().filter(|(_, line)| line.contains(part)).count();
        let escaped: BTreeSet<_> =
            ["in-group", "own-session", "no-mark"].map(of).into_iter().collect();
        (of("sleep 60") >= 90 && escaped == BTreeSet::from([10])).then_some(all.len())
    })
    .await;
    let guardian = guardian_of(up.pid());
    up.signal(Signal::KILL).unwrap();
    up.wait().await.unwrap();
    let killed = Instant::now();
    until("every child to be gone", GONE_WITHIN, || async {
        let of_guardian = std::path::Path::new(&format!("/proc/{guardian}")).exists();
        (alive(&home, None).is_empty() && !of_guardian).then_some(())
    })
    .await;
    println!(
        "{started} processes of 100 services, 0 alive {:.2} s after kill -9 of the monitor",
        killed.elapsed().as_secs_f64()
    );
}

#[tokio::test]
async fn a_flood_costs_little_and_is_named() {
    let home = Home::new();
    let guardian = Guardian::run_by(MCPMON);
    let factory = McpProbeFactory::new(&Settings::default()).with_guardian(guardian.clone());
    for redirect in ["", " >&2"] {
        let spec =
            ServiceSpec::stdio("flood", "sh", ["-c".to_owned(), format!("yes{redirect}; :")]);
        let mut probe = factory.probe(&Arc::new(spec));
        let seen = ask(&mut probe, Question::Health, Duration::from_secs(8)).await;
        let code = seen.failure().unwrap().code;
        assert!(
            matches!(code, FailureCode::NotMcp | FailureCode::HandshakeTimeout),
            "{redirect:?}: {seen:?}"
        );
        probe.close().await;
    }
    assert_eq!(alive(&home, guardian.id().await), []);
    guardian.close().await;
}
