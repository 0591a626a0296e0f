//! mcpmon: monitors MCP servers; which of them work, how well, what changed, and why not.
//!
//! This crate chooses the parts and puts them together: it reads the configuration, builds probes,
//! store, rules and handlers, runs the engine, and talks to people. It is a library, so that a
//! program of a few lines can be the whole command with one handler more:
//!
//! ```no_run
//! fn main() -> std::process::ExitCode {
//!     mcpmon_cli::App::new().run()
//! }
//! ```
//!
//! Only this crate knows mcpmon's own configuration format, prints, or chooses exit codes.

mod app;
mod commands;
pub mod config;
mod consent;
pub mod demo;
mod exit;
mod guard;
mod history;
mod logging;
mod moment;
pub mod output;
mod paths;
mod round;
mod self_report;
mod signals;
mod silenced;

pub use app::App;
pub use exit::{CliError, Exit};
pub use output::{StatusOptions, render_status, render_status_with};
pub use paths::{NoHome, Paths};
