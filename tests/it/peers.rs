//! The real programs these tests talk to, as `tests/peers/README.md` describes them.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::path::PathBuf;

use mcpmon_testkit::{ChildGuard, Stream};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::process::Command;

/// A peer that is installed.
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct Peer {
    #[serde(default)]
    pub(crate) command: String,
    #[serde(default)]
    pub(crate) args: Vec<String>,
    #[serde(default)]
    env: BTreeMap<String, String>,
    /// Where the files are, for a peer that is a folder.
    #[serde(default)]
    pub(crate) path: PathBuf,
}

/// Gives a peer, or leaves the test: loudly, and failing it where peers are required.
macro_rules! peer {
    ($name:literal) => {
        match $crate::peers::find($name) {
            Ok(peer) => peer,
            Err(reason) => return $crate::peers::skip($name, &reason),
        }
    };
}
pub(crate) use peer;

fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../target/peers")
}

pub(crate) fn find(name: &str) -> Result<Peer, String> {
    let path = folder().join("peers.json");
    let text = std::fs::read_to_string(&path)
        .map_err(|_| "`cargo xtask peers` has not been run".to_owned())?;
    let manifest: Value = serde_json::from_str(&text).map_err(|error| error.to_string())?;
    let entry = &manifest["peers"][name];
    if entry["ok"] != true {
        return Err(entry["reason"].as_str().unwrap_or("it is not listed").to_owned());
    }
    Peer::deserialize(entry).map_err(|error| error.to_string())
}

pub(crate) fn skip(peer: &str, reason: &str) {
    // nextest runs a test on the main thread, whose name says nothing.
    let test = std::env::var("NEXTEST_TEST_NAME")
        .unwrap_or_else(|_| std::thread::current().name().unwrap_or("a test").to_owned());
    let line = format!("{test}: {peer}: {reason}");
    let required = std::env::var("MCPMON_PEERS").is_ok_and(|value| value == "required");
    assert!(!required, "a peer is missing: {line}");
    eprintln!("SKIPPED, a peer is missing: {line}");
    let log =
        std::fs::OpenOptions::new().create(true).append(true).open(folder().join("skipped.log"));
    if let Ok(mut log) = log {
        let _ = writeln!(log, "{line}");
    }
}

impl Peer {
    /// With these arguments more.
    pub(crate) fn with(mut self, args: &[&str]) -> Self {
        self.args.extend(args.iter().map(|arg| (*arg).to_owned()));
        self
    }

    /// As an entry of a client's file.
    pub(crate) fn entry(&self) -> Value {
        json!({ "command": self.command, "args": self.args, "env": self.env })
    }

    /// Starts it by hand.
    pub(crate) fn start(&self) -> ChildGuard {
        let mut command = Command::new(&self.command);
        command.args(&self.args).envs(&self.env);
        ChildGuard::spawn(command).unwrap()
    }

    /// Starts it by hand, and says on which port it listens.
    pub(crate) async fn listen(&self) -> (ChildGuard, u16) {
        let child = self.start();
        let Some(line) = child.line(Stream::Out, "listening ").await else {
            panic!("the peer ended: {}", child.written(Stream::Err));
        };
        let port = line.rsplit(' ').next().and_then(|port| port.parse().ok());
        (child, port.unwrap_or_else(|| panic!("no port in {line:?}")))
    }
}
