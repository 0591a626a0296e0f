//! The monitor's side: starts the guardian when there is something to guard, and again when it is
//! lost.

use std::collections::HashMap;
use std::io;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::path::PathBuf;
use std::process::{ExitCode, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex as SyncMutex, MutexGuard, PoisonError};
use std::time::Duration;

use rustix::io::Errno;
use rustix::net::{Shutdown, shutdown};
use rustix::process::{Pid, Signal, kill_process_group};
use tokio::io::Interest;
use tokio::net::UnixStream;
use tokio::process::Child;
use tokio::sync::{Mutex, oneshot, watch};
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::line::{self, Command, Order, Report};
use super::{ARGUMENT, MARK, NAME, process, tree};
use crate::child::Lease;
use crate::forensics::Exit;

/// How long a guardian may take to end what it guards and itself.
const LONGEST_CLOSE: Duration = Duration::from_secs(10);
/// How long it may take to end one ward; a little more than it takes by its own watch.
const LONGEST_END: Duration = Duration::from_secs(6);

/// A handle to the guardian; clones share it.
///
/// The process is started with the first it has to guard. Dropped with its last clone, or when
/// this process ends in whatever way, everything it guards is killed.
#[derive(Debug, Clone)]
pub struct Guardian {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    program: PathBuf,
    current: Mutex<Option<Running>>,
}

impl Drop for Shared {
    fn drop(&mut self) {
        if let Some(running) = self.current.get_mut().take() {
            running.link.hang_up();
        }
    }
}

/// A guardian that was started.
#[derive(Debug)]
struct Running {
    link: Arc<Link>,
    /// Ends when the guardian has.
    task: JoinHandle<()>,
}

impl Guardian {
    /// To be called before anything else in `main`, in particular before any thread is started.
    ///
    /// Gives a handle, or, where this process is started to be a guardian, guards until its
    /// monitor is gone and gives the exit code.
    ///
    /// # Errors
    ///
    /// The exit code of a guardian that has done its work: to be returned at once.
    pub fn enter() -> Result<Self, ExitCode> {
        if std::env::args_os().nth(1).is_some_and(|argument| argument == ARGUMENT) {
            let socket = io::stdin().as_fd().try_clone_to_owned();
            return Err(socket.map_or(ExitCode::FAILURE, process::run));
        }
        Ok(Self::run_by("/proc/self/exe"))
    }

    /// A handle whose guardian is another program, which calls [`Guardian::enter`].
    pub fn run_by(program: impl Into<PathBuf>) -> Self {
        Self { shared: Arc::new(Shared { program: program.into(), current: Mutex::new(None) }) }
    }

    /// The process id of the guardian, while there is one.
    pub async fn id(&self) -> Option<u32> {
        let current = self.shared.current.lock().await;
        current.as_ref().filter(|running| running.link.is_open()).map(|running| running.link.pid)
    }

    /// Ends whatever it still guards, and waits until the guardian is gone. A process started
    /// afterwards starts a new one.
    pub async fn close(&self) {
        if let Some(running) = self.shared.current.lock().await.take() {
            running.link.hang_up();
            let _ = timeout(LONGEST_CLOSE, running.task).await;
        }
    }

    /// Starts a command under guard.
    pub(crate) async fn start(
        &self,
        command: &Command,
        lease: Option<Arc<dyn Lease>>,
    ) -> Result<Guarded, StartError> {
        let file = command.to_file().map_err(StartError::Refused)?;
        let link = self.link().await.map_err(StartError::NoGuardian)?;
        let (input, stdin) = io::pipe().map_err(StartError::Refused)?;
        let (stdout, output) = io::pipe().map_err(StartError::Refused)?;
        let (stderr, errors) = io::pipe().map_err(StartError::Refused)?;
        let (started, start) = oneshot::channel();
        let (exited, exit) = watch::channel(None);
        let id = link.next_id.fetch_add(1, Ordering::Relaxed);
        let entry = Entry { leader: None, started: Some(started), exited, ended: None, lease };
        link.entries().insert(id, entry);
        let ward = Ward { link: Arc::clone(&link), _guardian: self.clone(), id, over: false };
        let sent = [input.as_fd(), output.as_fd(), errors.as_fd(), file.as_fd()];
        link.send(&Order::Start(id), &sent).await.map_err(StartError::NoGuardian)?;
        drop((input, output, errors, file));
        // Closed by a guardian that is gone.
        let lost = || StartError::NoGuardian(io::ErrorKind::BrokenPipe.into());
        let leader = start.await.map_err(|_| lost())?.map_err(|errno| {
            StartError::Refused(io::Error::from_raw_os_error(errno.raw_os_error()))
        })?;
        let (stdin, stdout, stderr) = (stdin.into(), stdout.into(), stderr.into());
        Ok(Guarded { leader, stdin, stdout, stderr, exit, ward })
    }

    /// The line to a guardian that lives, started now if there is none.
    async fn link(&self) -> io::Result<Arc<Link>> {
        let mut current = self.shared.current.lock().await;
        if let Some(running) = current.as_ref().filter(|running| running.link.is_open()) {
            return Ok(Arc::clone(&running.link));
        }
        let running = start_guardian(&self.shared.program)?;
        let link = Arc::clone(&running.link);
        *current = Some(running);
        Ok(link)
    }
}

fn start_guardian(program: &PathBuf) -> io::Result<Running> {
    let (ours, theirs) = line::pair()?;
    let mut command = tokio::process::Command::new(program);
    command
        .arg0(NAME.to_string_lossy().as_ref())
        .arg(ARGUMENT)
        .arg(std::process::id().to_string())
        .env_remove(MARK)
        .stdin(Stdio::from(theirs))
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    let child = command.spawn()?;
    let link = Arc::new(Link {
        socket: line::watched(ours)?,
        pid: child.id().unwrap_or_default(),
        entries: SyncMutex::default(),
        next_id: AtomicU64::new(1),
        state: LinkState::default(),
    });
    let task = tokio::spawn(Arc::clone(&link).run(child));
    Ok(Running { link, task })
}

/// Why a start under guard failed.
#[derive(Debug)]
pub(crate) enum StartError {
    /// The command cannot be started.
    Refused(io::Error),
    /// There is no guardian to start it.
    NoGuardian(io::Error),
}

/// What was started under guard.
#[derive(Debug)]
pub(crate) struct Guarded {
    pub(crate) leader: Pid,
    pub(crate) stdin: OwnedFd,
    pub(crate) stdout: OwnedFd,
    pub(crate) stderr: OwnedFd,
    pub(crate) exit: watch::Receiver<Option<Exit>>,
    pub(crate) ward: Ward,
}

/// The guardian's hold on one process and all that came of it. Dropped, all of it is killed.
#[derive(Debug)]
pub(crate) struct Ward {
    link: Arc<Link>,
    /// The guardian stays for as long as it has a ward.
    _guardian: Guardian,
    id: u64,
    over: bool,
}

impl Ward {
    /// Has killed whatever is left of it, wherever it went, and gives the names of what had left
    /// its process group.
    pub(crate) async fn end(&mut self) -> Vec<String> {
        let (ended, end) = oneshot::channel();
        match self.link.entries().get_mut(&self.id) {
            Some(entry) => entry.ended = Some(ended),
            None => return Vec::new(),
        }
        if self.link.send(&Order::End(self.id), &[]).await.is_err() {
            return Vec::new();
        }
        self.over = true;
        timeout(LONGEST_END, end).await.ok().and_then(Result::ok).unwrap_or_default()
    }

    /// Whether the guardian was lost, and the process with it.
    pub(crate) fn is_lost(&self) -> bool {
        self.link.state.lost.load(Ordering::Relaxed)
    }
}

impl Drop for Ward {
    fn drop(&mut self) {
        if !self.over && self.link.is_open() {
            self.link.send_later(Order::End(self.id));
        }
    }
}

/// The line to one guardian.
#[derive(Debug)]
struct Link {
    socket: UnixStream,
    pid: u32,
    entries: SyncMutex<HashMap<u64, Entry>>,
    next_id: AtomicU64,
    state: LinkState,
}

#[derive(Debug, Default)]
struct LinkState {
    /// Hung up by us.
    closing: AtomicBool,
    /// Gone without having been told to.
    lost: AtomicBool,
    /// Gone.
    ended: AtomicBool,
}

/// A ward, until nothing of it is left.
#[derive(Debug)]
struct Entry {
    leader: Option<Pid>,
    started: Option<oneshot::Sender<Result<Pid, Errno>>>,
    exited: watch::Sender<Option<Exit>>,
    ended: Option<oneshot::Sender<Vec<String>>>,
    lease: Option<Arc<dyn Lease>>,
}

impl Link {
    fn entries(&self) -> MutexGuard<'_, HashMap<u64, Entry>> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_open(&self) -> bool {
        !(self.state.closing.load(Ordering::Relaxed) || self.state.ended.load(Ordering::Relaxed))
    }

    fn hang_up(&self) {
        self.state.closing.store(true, Ordering::Relaxed);
        let _ = shutdown(&self.socket, Shutdown::Both);
    }

    async fn send(&self, order: &Order, descriptors: &[BorrowedFd<'_>]) -> io::Result<()> {
        let text = order.encode();
        let send = || Ok(line::send(&self.socket, &text, descriptors)?);
        self.socket.async_io(Interest::WRITABLE, send).await
    }

    /// Sends without a caller that could wait.
    fn send_later(self: &Arc<Self>, order: Order) {
        let text = order.encode();
        let sent = line::send(&self.socket, &text, &[]);
        if sent == Err(Errno::WOULDBLOCK)
            && let Ok(runtime) = tokio::runtime::Handle::try_current()
        {
            let link = Arc::clone(self);
            runtime.spawn(async move { link.send(&order, &[]).await });
        }
    }

    /// Takes reports until the guardian is gone, and waits for it.
    async fn run(self: Arc<Self>, mut child: Child) {
        while let Some((report, _)) = line::received(&self.socket).await {
            if let Some(report) = Report::parse(&report) {
                self.take(report);
            }
        }
        let closing = self.state.closing.load(Ordering::Relaxed);
        self.state.lost.store(!closing, Ordering::Relaxed);
        self.state.ended.store(true, Ordering::Relaxed);
        let entries = std::mem::take(&mut *self.entries());
        if !closing {
            tracing::warn!(
                guardian = self.pid,
                services = entries.len(),
                "The guardian of the services' processes was ended by somebody; they are ended \
                 too, and started again under a new one"
            );
            self.end_orphans(&entries).await;
        }
        if timeout(LONGEST_CLOSE, child.wait()).await.is_err() {
            tracing::warn!(guardian = self.pid, "The guardian does not end");
        }
        // Only now: a successor must not start beside what is still being ended.
        for entry in entries.into_values() {
            entry.exited.send_replace(Some(Exit::Unknown));
        }
    }

    /// Kills what a lost guardian guarded. What has left its group is found by its mark.
    async fn end_orphans(&self, entries: &HashMap<u64, Entry>) {
        for leader in entries.values().filter_map(|entry| entry.leader) {
            let _ = kill_process_group(leader, Signal::KILL);
        }
        let mark = format!("{}.", self.pid);
        let swept = tokio::task::spawn_blocking(move || {
            for process in tree::all() {
                if tree::variable(process.pid, MARK).is_some_and(|found| found.starts_with(&mark)) {
                    tree::kill(process.pid);
                }
            }
        });
        let _ = swept.await;
    }

    fn take(self: &Arc<Self>, report: Report) {
        let mut entries = self.entries();
        match report {
            Report::Started(id, pid) => {
                let Some(entry) = entries.get_mut(&id) else { return };
                entry.leader = Pid::from_raw(pid);
                if let (Some(lease), Ok(pid)) = (&entry.lease, u32::try_from(pid)) {
                    lease.started(pid);
                }
                if let (Some(started), Some(leader)) = (entry.started.take(), entry.leader) {
                    // Nobody waits for it any more: its ward ends it.
                    let _ = started.send(Ok(leader));
                }
            }
            Report::Refused(id, errno) => {
                if let Some(started) = entries.remove(&id).and_then(|entry| entry.started) {
                    let _ = started.send(Err(Errno::from_raw_os_error(errno)));
                }
            }
            Report::Exited(id, exit) => {
                if let Some(entry) = entries.get(&id) {
                    entry.exited.send_replace(Some(exit));
                }
            }
            Report::Ended(id, names) => {
                if let Some(ended) = entries.remove(&id).and_then(|entry| entry.ended) {
                    let _ = ended.send(names);
                }
            }
        }
    }
}
