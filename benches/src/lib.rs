//! Speed and memory of mcpmon, as ratios measured side by side.
//!
//! A figure in checks per second says more about the machine than about the monitor, so each is
//! taken beside a client that does the least that could be done, against the same fake [`fleet`],
//! in turns, in one run.

pub mod bare;
pub mod database;
pub mod fleet;
pub mod monitored;
pub mod options;
pub mod past;
pub mod spread;
pub mod stdio;
pub mod usage;

/// What a benchmark may fail with; it only has to be readable.
pub type Failure = Box<dyn std::error::Error + Send + Sync>;
