//! How long the writer was held: what everybody else who writes had to wait at most.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use mcpmon_core::sketch::LatencySketch;

/// How long transactions held the writer, from the moment they had it to the end of their commit,
/// since the database was opened. Those that failed count as well.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct WriterHolds {
    /// What the monitor writes: checks, alerts, silences.
    pub records: LatencySketch,
    /// Steps of summing up, sealing, retention, and giving pages back.
    pub upkeep: LatencySketch,
}

/// What the writer is held for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Purpose {
    Record,
    Upkeep,
}

/// Counts holds of a database.
#[derive(Debug, Default)]
pub(crate) struct HoldCounter(Mutex<WriterHolds>);

impl HoldCounter {
    pub(crate) fn count(&self, purpose: Purpose, held: Duration) {
        let mut holds = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match purpose {
            Purpose::Record => holds.records.record(held),
            Purpose::Upkeep => holds.upkeep.record(held),
        }
    }

    pub(crate) fn so_far(&self) -> WriterHolds {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}
