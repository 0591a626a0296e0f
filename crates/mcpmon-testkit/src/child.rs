//! Programs started by a test, which outlive none.

use std::io;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process_group};
use tokio::io::{AsyncBufReadExt, AsyncRead, BufReader};
use tokio::process::{Child, ChildStdin, Command};
use tokio::sync::watch;

use crate::wait::within;

/// Which of a child's outputs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stream {
    /// Standard output.
    Out,
    /// Standard error.
    Err,
}

/// A child in a process group of its own, killed with everything it started when the guard is
/// dropped, so also when the test fails. Its output is read all the time, so it never blocks on a
/// full pipe, and can be waited on line by line.
#[derive(Debug)]
pub struct ChildGuard {
    child: Child,
    group: Pid,
    out: watch::Receiver<Output>,
    err: watch::Receiver<Output>,
}

#[derive(Debug, Default)]
struct Output {
    text: String,
    ended: bool,
}

impl ChildGuard {
    /// Starts `command` with all three streams piped.
    ///
    /// # Errors
    ///
    /// When it cannot be started.
    pub fn spawn(mut command: Command) -> io::Result<Self> {
        let mut child = command
            .process_group(0)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()?;
        let group = child
            .id()
            .and_then(|id| i32::try_from(id).ok())
            .and_then(Pid::from_raw)
            .ok_or_else(|| io::Error::other("the child has no id"))?;
        let out = collect(child.stdout.take());
        let err = collect(child.stderr.take());
        Ok(Self { child, group, out, err })
    }

    /// Its process id, and that of its group.
    pub fn pid(&self) -> Pid {
        self.group
    }

    /// Its standard input, to write to or (by dropping it) to end. Once only.
    pub fn stdin(&mut self) -> Option<ChildStdin> {
        self.child.stdin.take()
    }

    /// Everything it wrote so far.
    pub fn written(&self, stream: Stream) -> String {
        self.output(stream).borrow().text.clone()
    }

    /// Waits for a whole line that contains `part` and gives it, or `None` once the stream ended
    /// without one.
    ///
    /// # Panics
    ///
    /// When neither happens in time (see [`within`]).
    pub async fn line(&self, stream: Stream, part: &str) -> Option<String> {
        let mut output = self.output(stream).clone();
        let found = |text: &str| text.lines().find(|line| line.contains(part)).map(str::to_owned);
        let what = format!("a line with {part:?}");
        let seen = output.wait_for(|output| output.ended || found(&output.text).is_some());
        match within(&what, seen).await {
            Ok(output) => found(&output.text),
            Err(_) => None,
        }
    }

    /// Sends a signal to the child alone.
    ///
    /// # Errors
    ///
    /// When the child is gone.
    pub fn signal(&self, signal: Signal) -> io::Result<()> {
        Ok(rustix::process::kill_process(self.group, signal)?)
    }

    /// Waits until it has ended.
    ///
    /// # Errors
    ///
    /// When it cannot be waited for.
    ///
    /// # Panics
    ///
    /// When it does not end in time (see [`within`]).
    pub async fn wait(&mut self) -> io::Result<ExitStatus> {
        within("the child to end", self.child.wait()).await
    }

    /// Waits until it has ended, at most this long by tokio's clock, which must not be paused here.
    ///
    /// # Errors
    ///
    /// [`io::ErrorKind::TimedOut`] when it has not, or that it cannot be waited for.
    pub async fn wait_at_most(&mut self, span: Duration) -> io::Result<ExitStatus> {
        match tokio::time::timeout(span, self.child.wait()).await {
            Ok(status) => status,
            Err(_) => Err(io::ErrorKind::TimedOut.into()),
        }
    }

    /// Kills it and everything in its group, as `kill -9` does, and reaps it.
    ///
    /// # Errors
    ///
    /// When it cannot be waited for.
    pub async fn kill(&mut self) -> io::Result<ExitStatus> {
        self.kill_group();
        self.child.wait().await
    }

    fn output(&self, stream: Stream) -> &watch::Receiver<Output> {
        match stream {
            Stream::Out => &self.out,
            Stream::Err => &self.err,
        }
    }

    fn kill_group(&self) {
        // What is gone already needs no killing.
        let _ = kill_process_group(self.group, Signal::KILL);
    }
}

impl Drop for ChildGuard {
    fn drop(&mut self) {
        self.kill_group();
    }
}

fn collect(stream: Option<impl AsyncRead + Unpin + Send + 'static>) -> watch::Receiver<Output> {
    let (send, receive) = watch::channel(Output::default());
    let Some(stream) = stream else { return receive };
    tokio::spawn(async move {
        let mut reader = BufReader::new(stream);
        let mut line = Vec::new();
        loop {
            line.clear();
            let read = reader.read_until(b'\n', &mut line).await;
            let ended = !matches!(read, Ok(bytes) if bytes > 0);
            send.send_modify(|output| {
                output.text.push_str(&String::from_utf8_lossy(&line));
                output.ended = ended;
            });
            if ended {
                return;
            }
        }
    });
    receive
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str) -> Command {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        command
    }

    #[tokio::test]
    async fn gives_lines_and_the_exit_status() {
        let mut child = ChildGuard::spawn(shell("echo ready; echo bad >&2; exit 3")).unwrap();
        assert_eq!(child.line(Stream::Out, "rea").await.as_deref(), Some("ready"));
        assert_eq!(child.line(Stream::Err, "bad").await.as_deref(), Some("bad"));
        assert_eq!(child.line(Stream::Out, "never").await, None);
        assert_eq!(child.wait().await.unwrap().code(), Some(3));
    }

    #[tokio::test]
    async fn kills_what_the_child_started_when_dropped() {
        let child = ChildGuard::spawn(shell("sleep 600 & echo $!; wait")).unwrap();
        let line = child.line(Stream::Out, "").await.unwrap();
        let grandchild = Pid::from_raw(line.trim().parse().unwrap()).unwrap();
        rustix::process::test_kill_process(grandchild).unwrap();
        drop(child);
        let gone = async {
            // A killed orphan is only gone once init has reaped it, and nothing tells us.
            while is_alive(grandchild) {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        within("the grandchild to be gone", gone).await;
    }

    fn is_alive(pid: Pid) -> bool {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", pid.as_raw_nonzero()));
        stat.is_ok_and(|stat| !stat.contains(") Z"))
    }
}
