//! Real processes: shell scripts that serve, fail, linger and leave others behind.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use mcpmon_core::failure::{FailureCode, Phase};
use mcpmon_core::observation::Phases;
use mcpmon_core::secret::{Redactor, Secret};
use mcpmon_core::service::StdioSpec;
use mcpmon_core::status::Era;
use mcpmon_mcp::child::Launch;
use mcpmon_mcp::{CallError, Endings, Session, SessionOptions};
use tokio::time::Instant;

use crate::{assert_code, options, prove, soon, within};

/// A legacy server in shell. `$child` is put where the server says its version; `$BEFORE` runs
/// first, `$ON_PING` before a ping is answered.
const SERVER: &str = r#"
eval "$BEFORE"
while read -r line; do
  id=${line#*\"id\":}; id=${id%%,*}
  case "$line" in
    *'"initialize"'*) printf '{"jsonrpc":"2.0","id":%s,"result":{"protocolVersion":"2025-06-18","capabilities":{},"serverInfo":{"name":"sh","version":"%s"}}}\n' "$id" "$child" ;;
    *'"ping"'*) eval "$ON_PING"; printf '{"jsonrpc":"2.0","id":%s,"result":{}}\n' "${id%\}}" ;;
  esac
done
eval "$AFTER"
"#;

pub(super) fn sh(script: &str) -> StdioSpec {
    StdioSpec {
        command: "sh".to_owned(),
        args: vec!["-c".to_owned(), script.to_owned()],
        ..StdioSpec::default()
    }
}

fn server(hooks: &[(&str, &str)]) -> StdioSpec {
    let env = hooks.iter().map(|(name, code)| ((*name).to_owned(), Secret::new(*code))).collect();
    StdioSpec { env, ..sh(SERVER) }
}

pub(super) struct Opened {
    pub(super) session: Result<Session, CallError>,
    phases: Phases,
    endings: Endings,
}

pub(super) async fn open(spec: &StdioSpec) -> Opened {
    open_with(spec, options(), None).await
}

async fn open_with(spec: &StdioSpec, options: SessionOptions, remembered: Option<Era>) -> Opened {
    let mut phases = Phases::default();
    let mut endings = Endings::default();
    let options = Arc::new(options);
    let deadline = soon();
    let launch = Launch::default();
    let session = Session::open_process(
        spec,
        &launch,
        &options,
        remembered,
        &mut endings,
        &mut phases,
        deadline,
    );
    let session = session.await;
    Opened { session, phases, endings }
}

/// The process id the server gives as its version.
fn child_of(session: &Session) -> u32 {
    session.conversation().server.unwrap().version.parse().unwrap()
}

/// Whether a process is there and more than a zombie nobody has reaped.
fn is_alive(pid: u32) -> bool {
    std::fs::read_to_string(format!("/proc/{pid}/stat"))
        .is_ok_and(|stat| !stat.rsplit(')').next().unwrap_or_default().starts_with(" Z"))
}

/// Waits until none of these processes is alive.
async fn gone(pids: &[u32]) {
    let gone = async {
        while pids.iter().any(|pid| is_alive(*pid)) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), gone).await.unwrap();
}

async fn close(session: Session, mut endings: Endings) {
    session.close(true, &mut endings).await;
    endings.all().await;
}

#[tokio::test]
async fn a_process_is_started_asked_and_ended() {
    let Opened { session, phases, endings } = open(&server(&[])).await;
    let mut session = session.unwrap();
    assert_eq!(session.era(), Era::Legacy);
    assert!(phases.spawn_ms.is_some() && phases.handshake_ms.is_some());
    prove(&mut session).await.unwrap();
    let pid = session.process_id().unwrap();
    assert!(is_alive(pid));
    close(session, endings).await;
    assert!(!is_alive(pid));
}

#[tokio::test]
async fn the_command_gets_its_arguments_as_they_are_and_no_variables_but_its_own() {
    let mut spec = sh(r#"printf '%s|' "$@" "$OWN" "${CARGO_MANIFEST_DIR-unset}" >&2; exit 9"#);
    spec.args.extend(["x", "a b", "$HOME", "*", ";"].map(str::to_owned));
    spec.env = BTreeMap::from([("OWN".to_owned(), Secret::new("mine"))]);
    let error = assert_code(open(&spec).await.session, FailureCode::ExitedAtStart);
    assert_eq!(error.failure.evidence["stderr"][0], "a b|$HOME|*|;|mine|unset|");
    assert_eq!(error.failure.evidence["exit_status"], 9);
}

#[tokio::test]
async fn what_cannot_be_started_is_named_without_a_process() {
    for (command, code) in [
        ("no-such-program-anywhere", FailureCode::CommandNotFound),
        ("/no/such/program", FailureCode::CommandNotFound),
        ("/etc/passwd", FailureCode::CommandNotExecutable),
    ] {
        let spec = StdioSpec { command: command.to_owned(), ..StdioSpec::default() };
        let opened = open(&spec).await;
        let error = assert_code(opened.session, code);
        assert_eq!(error.failure.phase, Phase::Spawn);
        assert!(opened.phases.spawn_ms.is_some());
    }
}

#[tokio::test]
async fn an_end_at_the_start_is_explained_by_last_words() {
    use FailureCode as F;
    for (script, code) in [
        ("echo \"Error: Cannot find module 'zod'\" >&2; exit 1", F::MissingModule),
        ("echo 'GITHUB_TOKEN is not set' >&2; exit 1", F::MissingCredential),
        ("echo 'Usage: server [dir]'; exit 2", F::UsageError),
        ("no-such-program-inside", F::CommandNotFound),
        ("kill -SEGV $$", F::KilledBySignal),
        ("exit 0", F::ExitedAtStart),
    ] {
        let error = assert_code(open(&sh(script)).await.session, code);
        assert_eq!(error.failure.phase, Phase::Handshake, "{script}");
    }
    let error = open(&sh("kill -SEGV $$")).await.session.unwrap_err();
    assert_eq!(error.failure.evidence["signal"], "SIGSEGV");
}

#[tokio::test]
async fn secrets_do_not_come_back_in_last_words() {
    let mut spec = sh("echo \"bad key $API_KEY\" >&2; exit 1");
    let secret = Secret::new("k3y-of-the-house");
    spec.env = BTreeMap::from([("API_KEY".to_owned(), secret.clone())]);
    let options = SessionOptions { redactor: Redactor::new([&secret]), ..options() };
    let error = open_with(&spec, options, None).await.session.unwrap_err();
    assert!(!format!("{error:?}").contains("k3y-of-the-house"), "{error:?}");
    assert!(error.failure.message.contains("bad key ***"), "{error}");
}

#[tokio::test]
async fn an_exit_between_questions_is_told_and_wakes() {
    let Opened { session, endings, .. } =
        open(&server(&[("ON_PING", "echo dying >&2; exit 4")])).await;
    let mut session = session.unwrap();
    let error = assert_code(prove(&mut session).await, FailureCode::Exited);
    assert_eq!(error.failure.evidence["stderr"][0], "dying");
    assert!(session.has_ended());
    tokio::time::timeout(Duration::from_secs(10), session.woken()).await.unwrap();
    let error = assert_code(prove(&mut session).await, FailureCode::Exited);
    assert_eq!(error.failure.evidence["exit_status"], 4);
    close(session, endings).await;
}

#[tokio::test]
async fn a_process_killed_under_us_wakes_and_names_the_signal() {
    let Opened { session, endings, .. } = open(&server(&[])).await;
    let mut session = session.unwrap();
    let pid = i32::try_from(session.process_id().unwrap()).unwrap();
    let pid = rustix::process::Pid::from_raw(pid).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
    tokio::time::timeout(Duration::from_secs(10), session.woken()).await.unwrap();
    let error = assert_code(prove(&mut session).await, FailureCode::KilledBySignal);
    assert_eq!(error.failure.evidence["signal"], "SIGKILL");
    close(session, endings).await;
}

#[tokio::test]
async fn a_closed_output_is_told_from_an_exit() {
    let spec = sh("exec 1>&-; while read -r line; do :; done");
    let opened = open(&spec).await;
    assert_code(opened.session, FailureCode::ClosedOutput);
    let mut endings = opened.endings;
    endings.all().await;
}

#[tokio::test]
async fn what_ignores_every_request_to_go_is_killed_with_what_it_started() {
    let stubborn = r#"
        sh -c 'trap "" TERM HUP; while :; do sleep 1; done' </dev/null >/dev/null 2>&1 &
        child=$!
        trap "" TERM HUP"#;
    let spec = server(&[("BEFORE", stubborn), ("AFTER", "while :; do sleep 1; done")]);
    let Opened { session, endings, .. } = open(&spec).await;
    let session = session.unwrap();
    let (leader, child) = (session.process_id().unwrap(), child_of(&session));
    assert!(is_alive(leader) && is_alive(child));
    close(session, endings).await;
    assert!(!is_alive(leader));
    // Killed before `close` returned, but no child of ours to wait for.
    gone(&[child]).await;
}

#[tokio::test]
async fn what_a_leader_leaves_behind_is_ended_too() {
    let leaving = "sleep 1000 </dev/null >/dev/null 2>&1 & child=$!";
    let Opened { session, endings, .. } = open(&server(&[("BEFORE", leaving)])).await;
    let session = session.unwrap();
    let child = child_of(&session);
    assert!(is_alive(child));
    close(session, endings).await;
    gone(&[child]).await;
}

#[tokio::test]
async fn a_session_that_is_only_dropped_leaves_nothing_alive() {
    let leaving = "sleep 1000 </dev/null >/dev/null 2>&1 & child=$!";
    let opened = open(&server(&[("BEFORE", leaving)])).await;
    let session = opened.session.unwrap();
    let (leader, child) = (session.process_id().unwrap(), child_of(&session));
    drop(session);
    gone(&[leader, child]).await;
}

#[tokio::test]
async fn endings_nobody_waits_for_are_kills() {
    let spec = server(&[
        ("BEFORE", "trap '' TERM; sleep 1000 </dev/null >/dev/null 2>&1 & child=$!"),
        ("AFTER", "while :; do sleep 1; done"),
    ]);
    let Opened { session, mut endings, .. } = open(&spec).await;
    let session = session.unwrap();
    let (leader, child) = (session.process_id().unwrap(), child_of(&session));
    session.close(true, &mut endings).await;
    // Lets the ending begin, and wait.
    tokio::task::yield_now().await;
    let dropped = Instant::now();
    drop(endings);
    gone(&[leader, child]).await;
    assert!(dropped.elapsed() < Duration::from_secs(1), "{:?}", dropped.elapsed());
}

#[tokio::test]
async fn a_modern_only_process_is_asked_anew_on_a_fresh_one() {
    // Locked by its first message, as real servers are: a process asked `initialize` first never
    // answers a discovery.
    let modern = r#"
        read -r line
        case "$line" in
          *'"server/discover"'*) printf '{"jsonrpc":"2.0","id":1,"result":{"supportedVersions":["2026-07-28"],"capabilities":{},"resultType":"complete","ttlMs":0,"cacheScope":"private"}}\n' ;;
          *) printf '{"jsonrpc":"2.0","id":1,"error":{"code":-32022,"message":"no","data":{"supported":["2026-07-28"]}}}\n' ;;
        esac
        while read -r line; do :; done"#;
    let Opened { session, endings, .. } = open(&sh(modern)).await;
    let session = session.unwrap();
    assert_eq!(session.era(), Era::Modern);
    close(session, endings).await;
}

#[tokio::test]
async fn a_mute_process_is_timed_out_and_ended() {
    let mut phases = Phases::default();
    let mut endings = Endings::default();
    let options = Arc::new(options());
    let spec = sh("echo thinking >&2; while read -r line; do :; done");
    let deadline = within(500);
    let opened = Session::open_process(
        &spec,
        &Launch::default(),
        &options,
        None,
        &mut endings,
        &mut phases,
        deadline,
    )
    .await;
    let error = assert_code(opened, FailureCode::HandshakeTimeout);
    assert_eq!(error.failure.evidence["stderr"][0], "thinking");
    endings.all().await;
}
