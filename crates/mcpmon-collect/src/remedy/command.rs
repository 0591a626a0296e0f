//! One command, to its end or its limit.
//!
//! It gets exact arguments, no shell, no input, the allow-listed environment with a few variables
//! that say what is wrong, and a process group of its own. What it does not finish in time is ended
//! with everything in that group. What it leaves running after it exited by itself is left alone:
//! starting a daemon again is what many repairs are. That is also why it is no child of the
//! guardian, which would end such a daemon.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::process::{ExitStatus, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use mcpmon_core::duration;
use mcpmon_core::failure::FailureCode;
use mcpmon_core::remedy::{RemedyReport, Repair};
use mcpmon_core::secret::Redactor;
use mcpmon_core::service::{RemedyAction, StdioSpec};
use mcpmon_core::text::truncate;
use mcpmon_mcp::child;
use tokio::io::{AsyncRead, AsyncReadExt as _};
use tokio::process::{Child, Command};
use tokio::time::timeout;

use crate::environment::Variables;

/// As much of the end of what it writes as is kept, in bytes.
const KEPT: usize = 8 * 1024;
/// Of that, so many lines, each of so many characters.
const LINES: usize = 10;
const LINE: usize = 300;
/// What it wrote just before it ended is waited for so long; something it left running may hold
/// its output open for ever.
const LAST_WORDS: Duration = Duration::from_millis(200);

/// Where Docker's client finds its daemon, which is nothing secret.
const OF_DOCKER: [&str; 5] =
    ["DOCKER_HOST", "DOCKER_CONTEXT", "DOCKER_CONFIG", "DOCKER_CERT_PATH", "DOCKER_TLS_VERIFY"];

/// Runs `argv`; what it wrote is redacted by what the service keeps secret.
pub(super) async fn run(
    argv: &[String],
    repair: &Repair<'_>,
    variables: &Variables,
) -> RemedyReport {
    let environment = environment(repair, variables);
    let Some((program, args)) = argv.split_first() else {
        return RemedyReport::failed("the command names no program");
    };
    let named = StdioSpec { command: program.clone(), ..StdioSpec::default() };
    let path = match child::locate(&named, &environment) {
        Ok(path) => path,
        Err(error) => return RemedyReport::failed(error.failure.message),
    };
    let mut command = Command::new(path);
    command
        .args(args)
        .env_clear()
        .envs(environment)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true);
    #[cfg(unix)]
    command.process_group(0);
    let mut child = match command.spawn() {
        Ok(child) => child,
        Err(error) => return RemedyReport::failed(format!("`{program}` was not started: {error}")),
    };
    let group = Group::of(&child);
    let tail = Arc::new(Mutex::new(Tail::default()));
    let status = to_its_end(&mut child, &tail, repair.action.timeout).await;
    let limit = duration::format(repair.action.timeout);
    let error = match &status {
        Some(Ok(status)) => {
            group.leave_alone();
            (!status.success()).then(|| format!("`{program}` ended with {status}"))
        }
        Some(Err(error)) => Some(format!("`{program}` was lost: {error}")),
        None => Some(format!("`{program}` was not done within {limit} and was ended")),
    };
    let redactor = Redactor::new(repair.service.secrets());
    let tail = tail.lock().unwrap_or_else(PoisonError::into_inner);
    RemedyReport {
        error: error.map(|error| redactor.redact(&error)),
        exit_status: status.and_then(|status| status.ok()?.code()),
        last_lines: tail.lines(&redactor),
    }
}

/// How it ended; `None` if it did not in time. Output is read all the while, so that a command
/// that writes much never waits for us.
async fn to_its_end(
    child: &mut Child,
    tail: &Arc<Mutex<Tail>>,
    limit: Duration,
) -> Option<std::io::Result<ExitStatus>> {
    let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
    let reading = async { tokio::join!(keep(stdout, tail), keep(stderr, tail)) };
    tokio::pin!(reading);
    let ended = timeout(limit, async {
        tokio::select! {
            status = child.wait() => return (status, false),
            // It closed its output, and goes on.
            _ = &mut reading => {}
        }
        (child.wait().await, true)
    });
    let (status, has_read) = ended.await.ok()?;
    if !has_read {
        let _ = timeout(LAST_WORDS, reading).await;
    }
    Some(status)
}

async fn keep(stream: Option<impl AsyncRead + Unpin>, tail: &Arc<Mutex<Tail>>) {
    let Some(mut stream) = stream else { return };
    let mut piece = [0; 4096];
    while let Ok(read) = stream.read(&mut piece).await {
        if read == 0 {
            return;
        }
        tail.lock().unwrap_or_else(PoisonError::into_inner).push(&piece[..read]);
    }
}

/// What every child of ours may see, and what is wrong.
fn environment(repair: &Repair<'_>, variables: &Variables) -> BTreeMap<OsString, OsString> {
    let pairs = variables.iter().map(|(name, value)| (name.into(), value.into()));
    let mut environment = child::environment(pairs, &BTreeMap::new());
    if repair.action.action == RemedyAction::Docker {
        let known = OF_DOCKER.into_iter().filter_map(|name| Some((name, variables.get(name)?)));
        environment.extend(known.map(|(name, value)| (name.into(), value.into())));
    }
    let attempt = repair.attempt.to_string();
    let told = [
        ("MCPMON_SERVICE", repair.service.name.as_str()),
        ("MCPMON_FAILURE", repair.code.map_or("", FailureCode::as_str)),
        ("MCPMON_RULE", repair.rule.unwrap_or_default()),
        ("MCPMON_ATTEMPT", attempt.as_str()),
    ];
    environment.extend(told.map(|(name, value)| (name.into(), OsStr::new(value).to_owned())));
    environment
}

/// The end of what a command wrote, of both its outputs as they came.
#[derive(Debug, Default)]
struct Tail {
    bytes: Vec<u8>,
    is_cut: bool,
}

impl Tail {
    fn push(&mut self, piece: &[u8]) {
        self.bytes.extend_from_slice(piece);
        let surplus = self.bytes.len().saturating_sub(KEPT);
        self.is_cut |= surplus > 0;
        self.bytes.drain(..surplus);
    }

    fn lines(&self, redactor: &Redactor) -> Vec<String> {
        let text = redactor.redact(&String::from_utf8_lossy(&self.bytes));
        let lines: Vec<&str> = text.lines().filter(|line| !line.trim().is_empty()).collect();
        // Half a line may be half a secret.
        let whole = &lines[usize::from(self.is_cut).min(lines.len())..];
        let last = &whole[whole.len().saturating_sub(LINES)..];
        last.iter().map(|line| truncate(line, LINE)).collect()
    }
}

/// Ends a process group when it is dropped, unless it is to be left alone.
#[derive(Debug)]
struct Group {
    #[cfg(unix)]
    leader: Option<rustix::process::Pid>,
}

#[cfg(unix)]
impl Group {
    fn of(child: &Child) -> Self {
        let id = child.id().and_then(|id| i32::try_from(id).ok());
        Self { leader: id.and_then(rustix::process::Pid::from_raw) }
    }

    fn leave_alone(mut self) {
        self.leader = None;
    }
}

#[cfg(unix)]
impl Drop for Group {
    fn drop(&mut self) {
        if let Some(leader) = self.leader {
            // Gone already is as good.
            let _ = rustix::process::kill_process_group(leader, rustix::process::Signal::KILL);
        }
    }
}

#[cfg(not(unix))]
impl Group {
    fn of(_: &Child) -> Self {
        Self {}
    }

    fn leave_alone(self) {}
}
