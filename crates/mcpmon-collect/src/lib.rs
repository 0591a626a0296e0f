//! Probes for MCP servers, hosts and dependencies, and discovery from MCP clients' own files.
//!
//! Everything here turns something outside (a server, the machine, another program's file) into a
//! value of `mcpmon-core`. Nothing here decides when to look or what a value means.

pub mod census;
pub mod clients;
mod dependency;
pub mod entry;
pub mod environment;
mod functional;
pub mod host;
pub mod mcp;
pub mod process;
mod remedy;

pub use clients::{
    ClientKind, Discovery, FileOutcome, FileProblem, Search, SeenFile, discover, entries_from_json,
    read_file,
};
pub use entry::{EntryContext, EntryError, SecretError, resolve_secret, spec_from_entry};
pub use environment::{Environment, Os, Variables};
pub use host::{SampleHost, SysinfoHost};
pub use mcp::{McpProbe, McpProbeFactory};
pub use process::ProcessSampler;
pub use remedy::Mender;
