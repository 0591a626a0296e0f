//! The guardian's own side: parent of every process that is watched, and of what they leave.
//!
//! One loop, which never waits for anything but its socket, its children and its own threads. A
//! start runs on a thread, because a program on a file system that hangs would hang the loop.

use std::collections::{HashMap, HashSet};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt as _;
use std::process::{ExitCode, Stdio};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use rustix::process::{
    Pid, Signal, WaitOptions, WaitStatus, getpid, kill_process_group, set_child_subreaper, setsid,
    wait, waitpid,
};
use tokio::net::UnixStream;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep};

use super::MARK;
use super::line::{self, Command, Order, Report};
use super::tree;
use crate::forensics::Exit;

/// Starts that may hang at once.
const THREADS: usize = 64;
const THREAD_STACK: usize = 128 * 1024;
/// A thread that started something goes when it has had nothing to do for so long.
const THREAD_IDLE: Duration = Duration::from_millis(500);
/// From one look at what is being ended to the next.
const LOOK_AGAIN: Duration = Duration::from_millis(10);
/// What can be killed is gone before this; what cannot is not waited for any longer.
const LONGEST_ENDING: Duration = Duration::from_secs(5);
/// The same, when all is ended.
const LONGEST_END: Duration = Duration::from_secs(30);

/// Guards what the partner at the other end of the socket orders, until that partner is gone; then
/// ends all of it.
pub(super) fn run(socket: OwnedFd) -> ExitCode {
    // In a session of its own no terminal reaches it, and no signal for the terminal's processes.
    let _ = setsid();
    let _ = rustix::thread::set_name(super::NAME);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .max_blocking_threads(THREADS)
        .thread_stack_size(THREAD_STACK)
        .thread_keep_alive(THREAD_IDLE)
        .build();
    let guarded = runtime.map(|runtime| {
        let guarded = runtime.block_on(guard(socket));
        runtime.shutdown_background();
        guarded
    });
    match guarded {
        Ok(Ok(())) => ExitCode::SUCCESS,
        // The partner sees the socket close, and says what that means.
        Ok(Err(_)) | Err(_) => ExitCode::FAILURE,
    }
}

async fn guard(socket: OwnedFd) -> io::Result<()> {
    set_child_subreaper(Some(getpid()))?;
    let mut ended = signal(SignalKind::child())?;
    // Watched, and so no longer deadly: it ends when its partner does, and not before.
    let _ignored = [
        SignalKind::interrupt(),
        SignalKind::terminate(),
        SignalKind::hangup(),
        SignalKind::quit(),
    ]
    .map(signal);
    let socket = line::watched(socket)?;
    let (started, mut starts) = mpsc::unbounded_channel();
    let mut guardian = Guarding {
        socket: &socket,
        wards: HashMap::new(),
        started,
        starting: HashMap::new(),
        mark: getpid().as_raw_nonzero().to_string(),
    };
    loop {
        tokio::select! {
            order = line::received(&socket) => match order {
                Some((order, descriptors)) => guardian.obey(&order, descriptors),
                None => break,
            },
            Some(start) = starts.recv() => guardian.take(start),
            _ = ended.recv() => {}
            () = sleep(LOOK_AGAIN), if guardian.is_ending() => {}
        }
        guardian.reap();
        guardian.go_on_ending();
    }
    let deadline = Instant::now() + LONGEST_END;
    while Instant::now() < deadline {
        while let Ok(start) = starts.try_recv() {
            guardian.take(start);
        }
        if guardian.end_all() {
            break;
        }
        sleep(LOOK_AGAIN).await;
    }
    Ok(())
}

/// What a start came to.
struct Start {
    id: u64,
    outcome: io::Result<i32>,
}

/// Something that was started.
struct Ward {
    leader: Pid,
    has_exited: bool,
    ending: Option<Ending>,
}

struct Ending {
    since: Instant,
    /// Killed outside its group, and what it was called.
    killed: HashSet<i32>,
    names: Vec<String>,
}

struct Guarding<'a> {
    socket: &'a UnixStream,
    wards: HashMap<u64, Ward>,
    started: mpsc::UnboundedSender<Start>,
    /// Starts on their threads, and whether each is to be ended as soon as it is over. Until it
    /// is, a child of this process may be of a start nobody was told of yet.
    starting: HashMap<u64, bool>,
    /// What marks the wards of this guardian: `mark.id`.
    mark: String,
}

impl Guarding<'_> {
    fn obey(&mut self, order: &str, descriptors: Vec<OwnedFd>) {
        match Order::parse(order) {
            Some(Order::Start(id)) => self.start(id, descriptors),
            Some(Order::End(id)) => self.end(id),
            None => {}
        }
    }

    fn end(&mut self, id: u64) {
        if let Some(ward) = self.wards.get_mut(&id) {
            ward.ending.get_or_insert_with(Ending::new);
        } else if let Some(unwanted) = self.starting.get_mut(&id) {
            *unwanted = true;
        } else {
            self.say(&Report::Ended(id, Vec::new()));
        }
    }

    fn start(&mut self, id: u64, descriptors: Vec<OwnedFd>) {
        let Ok([input, output, errors, file]) =
            <[OwnedFd; line::DESCRIPTORS]>::try_from(descriptors)
        else {
            return self.say(&Report::Refused(id, Errno::MFILE.raw_os_error()));
        };
        let mark = format!("{}.{id}", self.mark);
        let started = self.started.clone();
        self.starting.insert(id, false);
        tokio::task::spawn_blocking(move || {
            let outcome = match Command::from_file(file) {
                Some(command) => spawn(&command, &mark, [input, output, errors]),
                None => Err(io::ErrorKind::InvalidData.into()),
            };
            let _ = started.send(Start { id, outcome });
        });
    }

    fn take(&mut self, start: Start) {
        let Start { id, outcome } = start;
        let unwanted = self.starting.remove(&id).unwrap_or_default();
        let leader = outcome.map(|pid| (pid, Pid::from_raw(pid)));
        match leader {
            Ok((pid, Some(leader))) => {
                let ending = unwanted.then(Ending::new);
                self.wards.insert(id, Ward { leader, has_exited: false, ending });
                self.say(&Report::Started(id, pid));
            }
            Ok((_, None)) => self.say(&Report::Refused(id, Errno::SRCH.raw_os_error())),
            Err(error) => {
                let errno = error.raw_os_error().unwrap_or(Errno::INVAL.raw_os_error());
                self.say(&Report::Refused(id, errno));
            }
        }
    }

    /// Waits for everything that has ended: wards, and what was adopted.
    fn reap(&mut self) {
        let mut exits = Vec::new();
        for (id, ward) in &mut self.wards {
            if !ward.has_exited
                && let Ok(Some((_, status))) = waitpid(Some(ward.leader), WaitOptions::NOHANG)
            {
                ward.has_exited = true;
                exits.push(Report::Exited(*id, read(status)));
            }
        }
        exits.iter().for_each(|exit| self.say(exit));
        // The standard library waits for a child whose start failed, and must find it.
        if self.starting.is_empty() {
            while let Ok(Some((pid, status))) = wait(WaitOptions::NOHANG) {
                let is_its = |ward: &Ward| ward.leader == pid && !ward.has_exited;
                let found = self.wards.iter_mut().find(|(_, ward)| is_its(ward));
                if let Some((id, ward)) = found {
                    ward.has_exited = true;
                    let exit = Report::Exited(*id, read(status));
                    self.say(&exit);
                }
            }
        }
    }

    fn is_ending(&self) -> bool {
        self.wards.values().any(|ward| ward.ending.is_some())
    }

    /// Kills what is left of the wards that are to end, and tells of those of which nothing is.
    fn go_on_ending(&mut self) {
        if !self.is_ending() {
            return;
        }
        let adopted = self.adopted();
        let ending: Vec<u64> = self
            .wards
            .iter()
            .filter(|(_, ward)| ward.ending.is_some())
            .map(|(id, _)| *id)
            .collect();
        for id in ending {
            let alone = self.wards.len() == 1 && self.starting.is_empty();
            let mark = format!("{}.{id}", self.mark);
            let Some(ward) = self.wards.get_mut(&id) else { continue };
            let Some(ending) = &mut ward.ending else { continue };
            if !ward.has_exited {
                let _ = kill_process_group(ward.leader, Signal::KILL);
            }
            let group = ward.leader.as_raw_nonzero().get();
            let mut left = !ward.has_exited;
            for orphan in &adopted {
                // Without a mark it belongs to somebody; to whom is certain when there is only one.
                let is_its = orphan.group == group
                    || orphan.mark.as_deref().map_or(alone, |found| found == mark);
                if is_its {
                    left = true;
                    ending.kill(orphan, group);
                }
            }
            if !left || ending.since.elapsed() > LONGEST_ENDING {
                let names = std::mem::take(&mut ending.names);
                self.wards.remove(&id);
                self.say(&Report::Ended(id, names));
            }
        }
    }

    /// The children nobody here started: orphans of the wards.
    fn adopted(&self) -> Vec<Orphan> {
        let own: HashSet<i32> = self
            .wards
            .values()
            .filter(|ward| !ward.has_exited)
            .map(|ward| ward.leader.as_raw_nonzero().get())
            .collect();
        let children = tree::children(getpid().as_raw_nonzero().get());
        let orphans = children.into_iter().filter(|pid| !own.contains(pid));
        orphans
            .filter_map(|pid| {
                let process = tree::process(pid)?;
                let mark = tree::variable(pid, MARK);
                Some(Orphan { pid, group: process.group, process, mark })
            })
            .collect()
    }

    /// Kills everything below this process; says whether nothing is left.
    fn end_all(&mut self) -> bool {
        let us = getpid().as_raw_nonzero().get();
        tree::subtree(us).into_iter().skip(1).for_each(tree::kill);
        if !self.starting.is_empty() {
            return false;
        }
        loop {
            match wait(WaitOptions::NOHANG) {
                Ok(Some(_)) | Err(Errno::INTR) => {}
                Ok(None) => return false,
                Err(_) => return true,
            }
        }
    }

    /// A partner that is gone needs no report, and is seen to be gone where orders are read.
    fn say(&self, report: &Report) {
        loop {
            match line::send(self.socket, &report.encode(), &[]) {
                // A monitor that reads nothing for so long is stopped; it wants nothing either.
                Err(Errno::WOULDBLOCK) => {
                    let _ = poll(&mut [PollFd::new(self.socket, PollFlags::OUT)], None);
                }
                Err(Errno::INTR) => {}
                Ok(()) | Err(_) => return,
            }
        }
    }
}

/// A child that was adopted.
struct Orphan {
    pid: i32,
    group: i32,
    process: tree::Process,
    mark: Option<String>,
}

impl Ending {
    fn new() -> Self {
        Self { since: Instant::now(), killed: HashSet::new(), names: Vec::new() }
    }

    fn kill(&mut self, orphan: &Orphan, group: i32) {
        for pid in tree::subtree(orphan.pid) {
            tree::kill(pid);
            if !self.killed.insert(pid) || orphan.process.is_zombie || orphan.group == group {
                continue;
            }
            if self.names.len() < line::MOST_NAMES
                && let Some(process) = tree::process(pid)
            {
                self.names.push(process.name);
            }
        }
    }
}

fn read(status: WaitStatus) -> Exit {
    match (status.exit_status(), status.terminating_signal()) {
        (Some(code), _) => Exit::Code(code),
        (None, Some(signal)) => Exit::Signal(signal),
        (None, None) => Exit::Unknown,
    }
}

fn spawn(command: &Command, mark: &str, streams: [OwnedFd; 3]) -> io::Result<i32> {
    let [input, output, errors] = streams.map(Stdio::from);
    let mut process = std::process::Command::new(&command.program);
    process
        .arg0(&command.name)
        .args(&command.args)
        .env_clear()
        .envs(command.environment.iter().map(|(name, value)| (name, value)))
        .env(MARK, mark)
        .stdin(input)
        .stdout(output)
        .stderr(errors)
        .process_group(0);
    if let Some(directory) = &command.directory {
        process.current_dir(directory);
    }
    // Not waited for here: `Guarding::reap` waits for every child of this process.
    let child = process.spawn()?;
    i32::try_from(child.id()).map_err(io::Error::other)
}
