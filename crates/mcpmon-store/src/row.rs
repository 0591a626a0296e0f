//! A check in the file's own numbers: what head and blocks both hold.

use mcpmon_core::store::CheckRecord;
use mcpmon_core::{Phases, Status, Timestamp};

use crate::codec;
use crate::packed::{self, PackedProcess};
use crate::services::Words;

/// A check of some service. Durations are ticks of 10 µs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Row {
    pub(crate) at: i64,
    pub(crate) question: i64,
    pub(crate) status: i64,
    /// The file's number of the failure code; 0 is none.
    pub(crate) code: i64,
    pub(crate) latency: Option<i64>,
    pub(crate) total: i64,
    pub(crate) phases: [Option<i64>; 6],
    pub(crate) restarted: bool,
    pub(crate) unproven: bool,
    pub(crate) process: Option<PackedProcess>,
}

/// What summing up needs of a check.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Outcome {
    pub(crate) at: i64,
    pub(crate) question: i64,
    pub(crate) status: i64,
    pub(crate) code: i64,
    pub(crate) latency: Option<i64>,
}

impl Row {
    /// A check with the file's number of its failure code, 0 for none.
    ///
    /// # Errors
    ///
    /// A question this build has no number for.
    pub(crate) fn of(check: &CheckRecord, code: i64) -> rusqlite::Result<Self> {
        let Phases { spawn_ms, dns_ms, connect_ms, tls_ms, handshake_ms, list_ms } = check.phases;
        let phases = [spawn_ms, dns_ms, connect_ms, tls_ms, handshake_ms, list_ms];
        Ok(Self {
            at: check.at.as_millis(),
            question: codec::from_question(check.question)?,
            status: codec::from_status(check.status),
            code,
            latency: check.latency.map(codec::from_duration),
            total: codec::from_duration(check.total),
            phases: phases.map(|part| part.map(packed::to_hundredths)),
            restarted: check.restarted,
            unproven: check.unproven,
            process: check.process.as_ref().map(PackedProcess::of),
        })
    }

    pub(crate) fn status(&self) -> Status {
        codec::to_status(self.status)
    }

    /// As core's record of this service.
    pub(crate) fn record(&self, service: &mcpmon_core::ServiceName, words: &Words) -> CheckRecord {
        let [spawn_ms, dns_ms, connect_ms, tls_ms, handshake_ms, list_ms] =
            self.phases.map(|part| part.map(|ticks| ticks as f64 / 100.0));
        CheckRecord {
            service: service.clone(),
            at: Timestamp::from_millis(self.at),
            question: codec::to_question(self.question),
            status: self.status(),
            code: words.code(self.code),
            latency: self.latency.map(codec::to_duration),
            total: codec::to_duration(self.total),
            phases: Phases { spawn_ms, dns_ms, connect_ms, tls_ms, handshake_ms, list_ms },
            restarted: self.restarted,
            unproven: self.unproven,
            process: self.process.map(PackedProcess::metrics),
        }
    }
}
