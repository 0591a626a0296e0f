//! `mcpmon/ps/v1`: the MCP server processes of a machine.

use serde::{Deserialize, Serialize};

use crate::service::ServiceName;
use crate::time::Timestamp;

/// `mcpmon/ps/v1`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PsReport {
    /// Always `mcpmon/ps/v1`.
    pub schema: String,
    /// When the machine was looked at.
    pub at: Timestamp,
    /// Each server with the processes it consists of, flagged ones first, then by client and age.
    pub servers: Vec<PsServer>,
}

impl PsReport {
    /// The contract's name.
    pub const SCHEMA: &'static str = "mcpmon/ps/v1";

    /// The contract's form of these servers.
    pub fn new(at: Timestamp, servers: Vec<PsServer>) -> Self {
        Self { schema: Self::SCHEMA.to_owned(), at, servers }
    }
}

/// One server: the process a client started, and everything below it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PsServer {
    /// The service it is an instance of, where a configured or found one has its command line.
    pub service: Option<ServiceName>,
    /// Who runs it; `None` where no known client is among its ancestors.
    pub client: Option<PsClient>,
    /// What is odd about it.
    pub flags: Vec<PsFlag>,
    /// Whether it belongs to the user who asks.
    pub own: bool,
    /// Its processes, parents before children; the first is the one that was started.
    pub processes: Vec<PsProcess>,
    /// What came of ending it, where that was asked for: `ended`, `killed`, `gone` (by itself,
    /// before), `kept` (no longer flagged) or `failed`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reaped: Option<String>,
}

/// A program that runs MCP servers.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct PsClient {
    /// `Claude`, `Cursor`, `VS Code`, …, or `mcpmon` itself.
    pub name: String,
    /// Its process that is nearest to the server.
    pub pid: u32,
}

/// What is odd about a server's processes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum PsFlag {
    /// Its client is gone.
    Orphan,
    /// The same client has started the same command again since.
    Duplicate,
}

impl PsFlag {
    /// The contract's spelling.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Orphan => "orphan",
            Self::Duplicate => "duplicate",
        }
    }
}

/// What a process is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PsRole {
    /// It starts the next one: `npx`, `uvx`, `docker`, a shell.
    Wrapper,
    /// It is the server, or something the server started.
    Server,
}

/// One process.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PsProcess {
    /// Its id.
    pub pid: u32,
    /// Its parent's, where there is one.
    pub parent: Option<u32>,
    /// What it is for.
    pub role: PsRole,
    /// Its command line, with what looks like a secret taken out. Untrusted text.
    pub command: String,
    /// Seconds since it was started.
    pub age_seconds: u64,
    /// Percent of one core over its life.
    pub cpu_percent: f64,
    /// Resident memory.
    pub memory_bytes: u64,
    /// Threads; `None` where the system does not tell.
    pub threads: Option<u64>,
    /// Open files; `None` where the system does not tell.
    pub open_files: Option<u64>,
}
