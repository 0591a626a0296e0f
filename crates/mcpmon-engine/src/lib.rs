//! The monitoring loop as a library: schedule, ask, remember, judge, store, tell, shut down.
//!
//! The loop knows only ports: what asks a service, where samples are kept and who is told is
//! chosen by whoever builds the [`Monitor`]. One task holds all state and takes events one after
//! the other; everything that waits (probes, store, handlers) runs in tasks of its own.

mod baseline;
mod buffer;
mod builder;
mod bundle;
mod deliver;
mod drift;
mod facts;
mod failpoint;
mod gaps;
mod handle;
mod handover;
mod intake;
mod judge;
mod lag;
mod lives;
mod maintain;
mod memory;
mod needs;
mod network;
mod orders;
mod outbox;
mod panic;
mod pools;
mod pulse;
mod reach;
mod recall;
mod records;
mod remediate;
mod replay;
mod retry;
mod room;
mod round;
mod run;
mod schedule;
mod signs;
mod startup;
mod turns;
mod upkeep;
mod usage;
mod watcher;
mod world;

pub use builder::{Monitor, MonitorBuilder, StartError};
pub use handle::{Change, RunningMonitor};
pub use memory::{MEMORY_CHECKS, MEMORY_SPAN, MemoryStore};
pub use replay::{Replay, ReplayError, ReplayReport, ReplayedAlert, ReplayedMessage, RuleSummary};
