//! A server's process: started without a shell, in a process group of its own, and ended whole.
//!
//! Package runners put two or three processes between us and the server, so what is signalled is
//! always the group, also after its leader is gone. Under a [`Guardian`] what left the group is
//! ended too; without one, a task owns the leader and reaps it whatever becomes of this handle.
//! Dropping the handle kills the group at once.

mod meter;
mod program;

use std::collections::VecDeque;
use std::fmt::Debug;
use std::io;
use std::os::unix::process::ExitStatusExt as _;
use std::process::{ExitStatus, Stdio};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use mcpmon_core::failure::{FailureCode, Phase};
use mcpmon_core::service::StdioSpec;
use rustix::process::{Pid, Signal, kill_process_group, test_kill_process_group};
use tokio::process::{Child, ChildStderr, ChildStdin, ChildStdout, Command};
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout, timeout_at};

pub use self::meter::Metered;
pub use self::program::{environment, locate};
use crate::error::{CallError, excerpt};
use crate::forensics::Exit;
use crate::guardian::Guardian;
#[cfg(target_os = "linux")]
use crate::guardian::{self, Guarded, StartError, Ward};
use crate::lines::{Line, LineReader};

/// How long a process is given after its input closed, and again after SIGTERM.
pub const GRACE: Duration = Duration::from_secs(2);
/// How long to wait for what a process wrote just before it ended.
const LAST_WORDS_GRACE: Duration = Duration::from_millis(200);
/// How long what a leader started is given to follow it before it counts as left behind.
const FOLLOWERS_GRACE: Duration = Duration::from_millis(300);
const STDERR_LINES: usize = 40;
/// Most processes named that were left behind.
#[cfg(target_os = "linux")]
const MOST_NAMES: usize = 16;
/// How often a group is asked whether any of it is left; no event tells.
const GROUP_POLL: Duration = Duration::from_millis(20);

/// What is held for as long as anything of a process may be alive: a place among those that are
/// allowed, say.
pub trait Lease: Debug + Send + Sync {
    /// The process was started, under this id.
    fn started(&self, pid: u32) {
        let _ = pid;
    }
}

/// How a process is started, beside its command.
#[derive(Debug, Clone, Default)]
pub struct Launch<'a> {
    /// Who is to be its parent; without one this process is.
    pub guardian: Option<&'a Guardian>,
    /// Given back when nothing of it is alive any more.
    pub lease: Option<Arc<dyn Lease>>,
}

/// A started process, its input and its output.
#[derive(Debug)]
pub struct Started {
    /// The process.
    pub process: ChildProcess,
    /// Its standard input.
    pub stdin: ChildStdin,
    /// Its standard output, read no faster than is sane.
    pub stdout: Metered<ChildStdout>,
}

/// A running, or ended, process and its group.
#[derive(Debug)]
pub struct ChildProcess {
    group: Pid,
    exit: watch::Receiver<Option<Exit>>,
    stderr: Arc<Mutex<VecDeque<String>>>,
    /// Closes when standard error has.
    stderr_open: watch::Receiver<()>,
    ended: bool,
    #[cfg(target_os = "linux")]
    ward: Option<Ward>,
}

/// Starts a command: exact arguments, no shell, cleared environment.
///
/// Cancel-safe: what was started for a future that is dropped is killed.
///
/// # Errors
///
/// `command_not_found`, `command_not_executable`, `spawn_failed`, or `configuration_invalid` for
/// an empty command.
pub async fn start(spec: &StdioSpec, launch: &Launch<'_>) -> Result<Started, CallError> {
    let environment = environment(std::env::vars_os(), &spec.env);
    let path = locate(spec, &environment)?;
    #[cfg(target_os = "linux")]
    if let Some(guardian) = launch.guardian {
        let command = guardian::Command {
            program: path.clone(),
            name: spec.command.clone().into(),
            args: spec.args.iter().map(Into::into).collect(),
            environment: environment.clone().into_iter().collect(),
            directory: spec.cwd.clone(),
        };
        match guardian.start(&command, launch.lease.clone()).await {
            Ok(guarded) => return of_guardian(guarded).map_err(|error| spawn_error(&error, spec)),
            Err(StartError::Refused(error)) => return Err(spawn_error(&error, spec)),
            Err(StartError::NoGuardian(error)) => {
                tracing::warn!(%error, "No guardian; the process is started without one");
            }
        }
    }
    let mut command = Command::new(&path);
    command
        .arg0(&spec.command)
        .args(&spec.args)
        .env_clear()
        .envs(&environment)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0)
        // The group is ended by us; this only covers a runtime that is dropped with us in it.
        .kill_on_drop(true);
    if let Some(cwd) = &spec.cwd {
        command.current_dir(cwd);
    }
    let mut child = command.spawn().map_err(|error| spawn_error(&error, spec))?;
    let streams = (child.stdin.take(), child.stdout.take(), child.stderr.take());
    let group = child.id().and_then(|id| Pid::from_raw(i32::try_from(id).ok()?));
    let ((Some(stdin), Some(stdout), Some(stderr)), Some(group)) = (streams, group) else {
        // All four were asked for above; were one missing, the child could not be spoken to.
        let message = "the process started without its standard streams";
        return Err(CallError::new(FailureCode::SpawnFailed, Phase::Spawn, message));
    };
    if let Some(lease) = &launch.lease {
        lease.started(group.as_raw_nonzero().get().unsigned_abs());
    }
    let (exited, exit) = watch::channel(None);
    tokio::spawn(reap(child, exited, launch.lease.clone()));
    Ok(Started::new(group, exit, (stdin, stdout, stderr)))
}

#[cfg(target_os = "linux")]
fn of_guardian(guarded: Guarded) -> io::Result<Started> {
    let Guarded { leader, stdin, stdout, stderr, exit, ward } = guarded;
    let streams = (
        ChildStdin::from_std(stdin.into())?,
        ChildStdout::from_std(stdout.into())?,
        ChildStderr::from_std(stderr.into())?,
    );
    let mut started = Started::new(leader, exit, streams);
    started.process.ward = Some(ward);
    Ok(started)
}

impl Started {
    fn new(
        group: Pid,
        exit: watch::Receiver<Option<Exit>>,
        (stdin, stdout, stderr): (ChildStdin, ChildStdout, ChildStderr),
    ) -> Self {
        let lines = Arc::new(Mutex::new(VecDeque::new()));
        let (open, stderr_open) = watch::channel(());
        tokio::spawn(keep_last_lines(Metered::new(stderr), Arc::clone(&lines), open));
        let process = ChildProcess {
            group,
            exit,
            stderr: lines,
            stderr_open,
            ended: false,
            #[cfg(target_os = "linux")]
            ward: None,
        };
        Self { process, stdin, stdout: Metered::new(stdout) }
    }
}

/// What is told of a service whose process was lost with its guardian.
pub(crate) fn lost(phase: Phase) -> CallError {
    let text = "the guardian of mcpmon's processes was ended from outside, and this one with it";
    CallError::new(FailureCode::MonitorOverloaded, phase, text)
}

fn spawn_error(error: &io::Error, spec: &StdioSpec) -> CallError {
    use rustix::io::Errno;
    let (code, message) = match Errno::from_io_error(error) {
        // The program itself was found a moment ago, so it is what its first line names.
        Some(Errno::NOENT) => (
            FailureCode::CommandNotFound,
            format!("the interpreter `{}` names in its first line is not there", spec.command),
        ),
        Some(Errno::ACCESS | Errno::PERM) => (
            FailureCode::CommandNotExecutable,
            format!("`{}` may not be executed: {error}", spec.command),
        ),
        Some(Errno::NOEXEC) => (
            FailureCode::CommandNotExecutable,
            format!(
                "`{}` is no program for this machine, nor a script with a first line that names its interpreter",
                spec.command
            ),
        ),
        Some(Errno::TOOBIG) => (
            FailureCode::ConfigurationInvalid,
            format!("the arguments and environment of `{}` are too long", spec.command),
        ),
        _ if error.kind() == io::ErrorKind::InvalidInput => (
            FailureCode::ConfigurationInvalid,
            format!("`{}` cannot be started: {error}", spec.command),
        ),
        _ => (
            FailureCode::SpawnFailed,
            format!("the system refused to start `{}`: {error}", spec.command),
        ),
    };
    CallError::new(code, Phase::Spawn, message).with("command", spec.command.as_str())
}

async fn reap(
    mut child: Child,
    exited: watch::Sender<Option<Exit>>,
    _lease: Option<Arc<dyn Lease>>,
) {
    let exit = child.wait().await.map_or(Exit::Unknown, read_status);
    exited.send_replace(Some(exit));
}

fn read_status(status: ExitStatus) -> Exit {
    match (status.code(), status.signal()) {
        (Some(code), _) => Exit::Code(code),
        (None, Some(signal)) => Exit::Signal(signal),
        (None, None) => Exit::Unknown,
    }
}

async fn keep_last_lines(
    stderr: Metered<ChildStderr>,
    lines: Arc<Mutex<VecDeque<String>>>,
    _open: watch::Sender<()>,
) {
    let mut reader = LineReader::new(stderr, 16 * 1024);
    while let Ok(Some(line)) = reader.next().await {
        let text = match line {
            Line::Text(text) => excerpt(text),
            Line::TooLong => "(a line too long to keep)".to_owned(),
        };
        let mut lines = lock(&lines);
        if lines.len() == STDERR_LINES {
            lines.pop_front();
        }
        lines.push_back(text);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl ChildProcess {
    /// The process id of the group's leader, which is the group's too.
    pub fn id(&self) -> u32 {
        self.group.as_raw_nonzero().get().unsigned_abs()
    }

    /// How the leader ended, if it has.
    pub fn exit(&self) -> Option<Exit> {
        *self.exit.borrow()
    }

    /// Resolves when the leader has ended. Cancel-safe.
    pub async fn exited(&self) -> Exit {
        let mut exit = self.exit.clone();
        match exit.wait_for(Option::is_some).await {
            Ok(exit) => exit.unwrap_or(Exit::Unknown),
            // The task that reaps is gone with its runtime.
            Err(_) => Exit::Unknown,
        }
    }

    /// How the leader ended, if it does before long.
    pub async fn exit_within(&self, span: Duration) -> Option<Exit> {
        timeout(span, self.exited()).await.ok()
    }

    /// The last lines on standard error up to now.
    pub fn stderr(&self) -> Vec<String> {
        lock(&self.stderr).iter().cloned().collect()
    }

    /// The last lines of a process that has ended, waiting a moment for what is still in the pipe.
    pub async fn last_words(&self) -> Vec<String> {
        let mut open = self.stderr_open.clone();
        let _ = timeout(LAST_WORDS_GRACE, open.changed()).await;
        self.stderr()
    }

    /// Whether it was lost with its guardian: ended by us, in effect, and not by itself.
    pub fn is_lost(&self) -> bool {
        #[cfg(target_os = "linux")]
        return self.ward.as_ref().is_some_and(Ward::is_lost);
        #[cfg(not(target_os = "linux"))]
        false
    }

    /// Ends all of it: waits for the end of a process whose input was just closed, then asks its
    /// group with SIGTERM, then insists with SIGKILL, and has its guardian, if it has one, kill
    /// what had left the group. Returns once all of that is reaped, after at most twice [`GRACE`]
    /// and a moment.
    pub async fn end(&mut self) -> Leftovers {
        let mut left = Leftovers::default();
        if self.ended {
            return left;
        }
        let leader_left = timeout(GRACE, self.exited()).await.is_ok();
        // What the leader left behind gets its SIGTERM even if the leader went by itself.
        if !(leader_left && self.is_group_gone_soon().await) {
            if leader_left {
                left.add(names_of(self.group));
            }
            self.signal(Signal::TERM);
            self.group_gone_by(Instant::now() + GRACE).await;
        }
        if self.exit().is_some() && left.is_empty() && !self.is_group_gone() {
            left.add(names_of(self.group));
        }
        self.signal(Signal::KILL);
        let _ = timeout(GRACE, self.exited()).await;
        #[cfg(target_os = "linux")]
        if let Some(ward) = &mut self.ward {
            left.add(ward.end().await);
        }
        // Not before: a future that is dropped on the way leaves the rest to `drop`.
        self.ended = true;
        left
    }

    /// Processes that end because their leader did take a moment to.
    async fn is_group_gone_soon(&self) -> bool {
        if !self.is_group_gone() {
            self.group_gone_by(Instant::now() + FOLLOWERS_GRACE).await;
        }
        self.is_group_gone()
    }

    async fn group_gone_by(&self, deadline: Instant) {
        let gone = async {
            self.exited().await;
            while !self.is_group_gone() {
                sleep(GROUP_POLL).await;
            }
        };
        let _ = timeout_at(deadline, gone).await;
    }

    fn is_group_gone(&self) -> bool {
        test_kill_process_group(self.group).is_err()
    }

    fn signal(&self, signal: Signal) {
        // An error means that nobody is left, or nobody who may be signalled.
        let _ = kill_process_group(self.group, signal);
    }
}

impl Drop for ChildProcess {
    fn drop(&mut self) {
        if !self.ended {
            self.signal(Signal::KILL);
        }
    }
}

/// What a process left behind and had to be ended.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Leftovers(Vec<String>);

impl Leftovers {
    fn add(&mut self, names: Vec<String>) {
        self.0.extend(names);
    }

    /// Whether nothing was left behind.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The names of the processes, as the system has them: at most 15 bytes, chosen by the
    /// processes themselves.
    pub fn names(&self) -> &[String] {
        &self.0
    }
}

/// Whether a process or anything below it has work for a processor now; `None` where that cannot
/// be told. Blocks for about a tenth of a second.
#[cfg(target_os = "linux")]
pub fn is_working(pid: u32) -> Option<bool> {
    guardian::tree::is_working(i32::try_from(pid).ok()?)
}

/// Whether a process or anything below it has work for a processor now; `None` where that cannot
/// be told.
#[cfg(not(target_os = "linux"))]
pub fn is_working(_pid: u32) -> Option<bool> {
    None
}

/// The living processes of a group.
#[cfg(target_os = "linux")]
fn names_of(group: Pid) -> Vec<String> {
    let members = guardian::tree::members(group);
    members.into_iter().map(|process| process.name).take(MOST_NAMES).collect()
}

/// Elsewhere they are known to be there, and no more.
#[cfg(not(target_os = "linux"))]
fn names_of(_group: Pid) -> Vec<String> {
    vec!["unknown".to_owned()]
}
