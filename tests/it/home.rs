//! An empty home for one test: it sees nothing of this machine's own configuration, and what it
//! leaves behind is found and ended.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::Output;
use std::time::Duration;

use mcpmon_testkit::ChildGuard;
use serde_json::Value;
use tempfile::TempDir;
use tokio::process::Command;

/// Longer than any command of these tests takes on a loaded machine.
const LONGEST_RUN: Duration = Duration::from_secs(120);

/// A home directory, and a working directory inside it in which commands run.
#[derive(Debug)]
pub(crate) struct Home {
    root: TempDir,
    variables: Vec<(String, String)>,
}

impl Home {
    pub(crate) fn new() -> Self {
        let root = tempfile::Builder::new().prefix("mcpmon-it-").tempdir().unwrap();
        std::fs::create_dir(root.path().join("work")).unwrap();
        Self { root, variables: Vec::new() }
    }

    /// Sets a variable for every command that is started from now on.
    pub(crate) fn with_env(mut self, name: &str, value: impl Into<String>) -> Self {
        self.variables.push((name.to_owned(), value.into()));
        self
    }

    pub(crate) fn path(&self) -> &Path {
        self.root.path()
    }

    /// Where commands run.
    pub(crate) fn work(&self) -> PathBuf {
        self.root.path().join("work")
    }

    /// Where the history is kept.
    pub(crate) fn database(&self) -> PathBuf {
        self.root.path().join(".local/state/mcpmon/mcpmon.db")
    }

    /// Writes a file, relative to the home.
    pub(crate) fn write(&self, relative: &str, text: impl AsRef<str>) -> PathBuf {
        let path = self.root.path().join(relative);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, text.as_ref()).unwrap();
        path
    }

    /// Writes the configuration that commands find by themselves.
    pub(crate) fn configure(&self, toml: impl AsRef<str>) -> PathBuf {
        self.write("work/mcpmon.toml", toml)
    }

    /// `mcpmon` with these arguments, in this home and no other.
    pub(crate) fn command<A: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = A>) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_mcpmon"));
        command.args(args).current_dir(self.work()).env_clear();
        for inherited in ["PATH", "TMPDIR"] {
            if let Some(value) = std::env::var_os(inherited) {
                command.env(inherited, value);
            }
        }
        command.env("HOME", self.path()).env("TZ", "UTC").env("LANG", "C.UTF-8");
        command.envs(self.variables.iter().map(|(name, value)| (name, value)));
        command
    }

    /// Starts a command that goes on until it is told to stop.
    pub(crate) fn start(&self, args: &[&str]) -> ChildGuard {
        ChildGuard::spawn(self.command(args)).unwrap()
    }

    /// Runs a command to its end.
    pub(crate) async fn run(&self, args: &[&str]) -> Ran {
        run(self.command(args)).await
    }

    /// What `mcpmon status --output json` says now; `None` while there is nothing to read.
    pub(crate) async fn status(&self) -> Option<Value> {
        let ran = self.run(&["status", "--output", "json"]).await;
        (ran.code == Some(0)).then(|| ran.json())
    }

    /// Every process that runs with this home: mcpmon's own and those it started.
    pub(crate) fn processes(&self) -> Vec<(i32, String)> {
        let marker = format!("HOME={}", self.path().display());
        let mut found = Vec::new();
        for entry in std::fs::read_dir("/proc").into_iter().flatten().flatten() {
            let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else {
                continue;
            };
            let environment = std::fs::read(entry.path().join("environ")).unwrap_or_default();
            if environment.split(|byte| *byte == 0).any(|variable| variable == marker.as_bytes()) {
                let line = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
                let line = String::from_utf8_lossy(&line).replace('\0', " ");
                found.push((pid, line.trim().to_owned()));
            }
        }
        found
    }
}

impl Drop for Home {
    fn drop(&mut self) {
        for (pid, _) in self.processes() {
            if let Some(pid) = rustix::process::Pid::from_raw(pid) {
                // It may have ended by itself meanwhile.
                let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
            }
        }
    }
}

/// What a command did.
#[derive(Debug)]
pub(crate) struct Ran {
    pub(crate) code: Option<i32>,
    pub(crate) out: String,
    pub(crate) err: String,
    line: String,
}

/// Runs a command to its end, with nothing on its standard input.
pub(crate) async fn run(mut command: Command) -> Ran {
    let line = format!("{:?}", command.as_std());
    command.stdin(std::process::Stdio::null()).kill_on_drop(true);
    let output = tokio::time::timeout(LONGEST_RUN, command.output())
        .await
        .unwrap_or_else(|_| panic!("{line} did not end within {LONGEST_RUN:?}"))
        .unwrap();
    Ran::of(&command, output)
}

impl Ran {
    /// What a command that has ended did.
    pub(crate) fn of(command: &Command, output: Output) -> Self {
        Self {
            code: output.status.code(),
            out: String::from_utf8(output.stdout).expect("standard output is UTF-8"),
            err: String::from_utf8(output.stderr).expect("standard error is UTF-8"),
            line: format!("{:?}", command.as_std()),
        }
    }

    /// Fails the test unless the command ended with this code, and without a panic.
    #[track_caller]
    pub(crate) fn expect(self, code: i32) -> Self {
        assert_eq!(self.code, Some(code), "exit code\n{self}");
        assert!(!self.err.contains("panicked at"), "{self}");
        assert!(!self.err.contains("RUST_BACKTRACE"), "{self}");
        self
    }

    /// Standard output as one JSON value.
    #[track_caller]
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.out).unwrap_or_else(|error| panic!("{error}\n{self}"))
    }

    /// Fails the test unless standard error has every one of these.
    #[track_caller]
    pub(crate) fn says(&self, words: &[&str]) {
        for word in words {
            assert!(self.err.contains(word), "standard error lacks {word:?}\n{self}");
        }
    }
}

impl std::fmt::Display for Ran {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { code, out, err, line } = self;
        write!(f, "{line}\ncode: {code:?}\n-- stdout --\n{out}\n-- stderr --\n{err}")
    }
}

/// The service of this name in a report.
#[track_caller]
pub(crate) fn service<'a>(report: &'a Value, name: &str) -> &'a Value {
    report["services"]
        .as_array()
        .into_iter()
        .flatten()
        .find(|service| service["service"] == name)
        .unwrap_or_else(|| panic!("no service `{name}` in {report:#}"))
}

/// Looks again and again until there is something to see: for what gives no sign by itself.
///
/// # Panics
///
/// After `longest`.
pub(crate) async fn until<T>(
    what: &str,
    longest: Duration,
    mut look: impl AsyncFnMut() -> Option<T>,
) -> T {
    let start = tokio::time::Instant::now();
    loop {
        if let Some(seen) = look().await {
            return seen;
        }
        assert!(start.elapsed() < longest, "waited {longest:?} in vain for {what}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}
