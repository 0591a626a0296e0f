//! Ends processes, and only those that were meant.
//!
//! Between the look at the table and a person's yes a process may end and its id be given to
//! another. So each target is known by its start too, and looked at again right before every
//! signal; on Linux the signal goes to a descriptor of the process, taken before that look, which
//! no later process can inherit.

use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::table::identity;

/// How often it is looked whether a process is gone.
const LOOK: Duration = Duration::from_millis(50);
/// How long a killed process may take to be gone.
const AFTER_KILL: Duration = Duration::from_secs(2);

/// One process, not to be confused with a later one of its id.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Target {
    /// Its id.
    pub pid: u32,
    /// Its start.
    pub started: u64,
}

/// What came of ending a server's processes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reaped {
    /// They had ended before anything was done.
    Gone,
    /// They ended when they were asked to.
    Ended,
    /// So many of them had to be killed.
    Killed(usize),
    /// These could not be ended, and why.
    Failed(Vec<(u32, String)>),
}

/// Asks the processes to end (SIGTERM), waits up to `grace`, kills what is left (SIGKILL) and says
/// what came of it. Processes that are not the ones meant any more are left alone.
///
/// Cancel-safe: what was signalled stays so, nothing more is.
pub async fn reap(targets: &[Target], grace: Duration) -> Reaped {
    let held: Vec<Held> = targets.iter().filter_map(|target| Held::take(*target)).collect();
    if held.is_empty() {
        return Reaped::Gone;
    }
    let mut failed = signal_all(held.iter(), Signal::Term);
    wait_for_all(&held, grace).await;
    let left: Vec<&Held> = held.iter().filter(|held| held.is_there()).collect();
    if left.is_empty() {
        return Reaped::Ended;
    }
    let killed = left.len();
    failed.extend(signal_all(left.into_iter(), Signal::Kill));
    wait_for_all(&held, AFTER_KILL).await;
    let survivors: Vec<u32> =
        held.iter().filter(|held| held.is_there()).map(|held| held.target.pid).collect();
    if survivors.is_empty() {
        return Reaped::Killed(killed);
    }
    let why = |pid: u32| {
        let told = failed.iter().rev().find(|(failed, _)| *failed == pid);
        told.map_or_else(|| "it is still there".to_owned(), |(_, why)| why.clone())
    };
    Reaped::Failed(survivors.into_iter().map(|pid| (pid, why(pid))).collect())
}

fn signal_all<'a>(held: impl Iterator<Item = &'a Held>, signal: Signal) -> Vec<(u32, String)> {
    held.filter_map(|held| Some((held.target.pid, held.signal(signal).err()?))).collect()
}

async fn wait_for_all(held: &[Held], longest: Duration) {
    let until = Instant::now() + longest;
    while held.iter().any(Held::is_there) && Instant::now() < until {
        sleep(LOOK).await;
    }
}

#[derive(Debug, Clone, Copy)]
enum Signal {
    Term,
    Kill,
}

#[derive(Debug)]
struct Held {
    target: Target,
    #[cfg(target_os = "linux")]
    descriptor: std::os::fd::OwnedFd,
}

impl Held {
    fn is_there(&self) -> bool {
        identity(self.target.pid) == Some(self.target.started)
    }
}

#[cfg(unix)]
fn pid_of(target: Target) -> Option<rustix::process::Pid> {
    i32::try_from(target.pid).ok().filter(|pid| *pid > 1).and_then(rustix::process::Pid::from_raw)
}

#[cfg(unix)]
const fn number(signal: Signal) -> rustix::process::Signal {
    match signal {
        Signal::Term => rustix::process::Signal::TERM,
        Signal::Kill => rustix::process::Signal::KILL,
    }
}

#[cfg(target_os = "linux")]
impl Held {
    fn take(target: Target) -> Option<Self> {
        use rustix::process::{PidfdFlags, pidfd_open};
        let descriptor = pidfd_open(pid_of(target)?, PidfdFlags::empty()).ok()?;
        let held = Self { target, descriptor };
        held.is_there().then_some(held)
    }

    fn signal(&self, signal: Signal) -> Result<(), String> {
        if !self.is_there() {
            return Ok(());
        }
        let sent = rustix::process::pidfd_send_signal(&self.descriptor, number(signal));
        sent.map_err(|error| error.to_string())
    }
}

#[cfg(not(target_os = "linux"))]
impl Held {
    fn take(target: Target) -> Option<Self> {
        let held = Self { target };
        held.is_there().then_some(held)
    }

    #[cfg(unix)]
    fn signal(&self, signal: Signal) -> Result<(), String> {
        let Some(pid) = pid_of(self.target) else { return Ok(()) };
        if !self.is_there() {
            return Ok(());
        }
        rustix::process::kill_process(pid, number(signal)).map_err(|error| error.to_string())
    }

    #[cfg(not(unix))]
    fn signal(&self, _signal: Signal) -> Result<(), String> {
        Err("processes cannot be ended on this system yet".to_owned())
    }
}

#[cfg(target_os = "linux")]
#[cfg(test)]
mod tests {
    use std::process::Stdio;

    use tokio::io::AsyncReadExt as _;
    use tokio::process::{Child, Command};

    use super::*;

    const GRACE: Duration = Duration::from_secs(20);

    fn target(child: &Child) -> Target {
        let pid = child.id().unwrap();
        Target { pid, started: identity(pid).unwrap() }
    }

    fn sleeper() -> Child {
        Command::new("sleep").arg("600").kill_on_drop(true).spawn().unwrap()
    }

    /// A shell that ignores SIGTERM, once it does.
    async fn stubborn() -> Child {
        let mut child = Command::new("sh")
            .args(["-c", "trap '' TERM; echo ready; while :; do sleep 1; done"])
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let mut ready = [0; 6];
        child.stdout.as_mut().unwrap().read_exact(&mut ready).await.unwrap();
        child
    }

    #[tokio::test]
    async fn a_process_is_asked_first_and_killed_when_it_will_not_go() {
        let child = sleeper();
        assert_eq!(reap(&[target(&child)], GRACE).await, Reaped::Ended);
        let child = stubborn().await;
        let short = Duration::from_millis(300);
        assert_eq!(reap(&[target(&child)], short).await, Reaped::Killed(1));
    }

    #[tokio::test]
    async fn a_process_that_was_not_meant_is_left_alone() {
        let mut child = sleeper();
        let meant = target(&child);
        let earlier = Target { started: meant.started - 1, ..meant };
        assert_eq!(reap(&[earlier], GRACE).await, Reaped::Gone);
        assert_eq!(child.try_wait().unwrap(), None, "it lives");
        child.kill().await.unwrap();
        assert_eq!(reap(&[meant], GRACE).await, Reaped::Gone);
    }
}
