//! What [`crate::export`] wrote as JSON lines, read back.
//!
//! Works over core's ports, as the export does. A check is known again by everything it says, so
//! reading a file twice adds nothing; lines are bounded, and what is read is written in batches.

use std::collections::HashSet;
use std::io::{BufRead, Read};

use mcpmon_core::alert::Alert;
use mcpmon_core::store::{AlertQuery, Batch, CheckRecord, RecordQuery, Transition};
use mcpmon_core::{IncidentLog, SampleStore, ServiceName, StoreError, Timestamp};
use serde::Deserialize;

use crate::export::EXPORT_SCHEMA;

/// Longest line, in bytes.
const LONGEST_LINE: u64 = 16 << 20;
/// Checks of one batch.
const BATCH: usize = 5_000;

/// A file could not be read back. What was read before the line stays.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ImportError {
    /// The history could not be read or written.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The input could not be read.
    #[error("cannot be read: {0}")]
    Input(#[from] std::io::Error),
    /// A line is not what an export writes.
    #[error("line {line}: {message}")]
    Line {
        /// Its number, from 1.
        line: u64,
        /// What is wrong with it.
        message: String,
    },
}

/// What was read back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Imported {
    /// Checks added.
    pub checks: u64,
    /// Alerts added.
    pub alerts: u64,
    /// Checks and alerts that were there already.
    pub known: u64,
}

#[derive(Deserialize)]
#[serde(tag = "record", rename_all = "snake_case")]
enum Line {
    Export { schema: String },
    Snapshot { check: CheckRecord },
    Alert(Alert),
}

/// Puts exports back into a store.
pub struct Importer<'a> {
    samples: &'a dyn SampleStore,
    incidents: &'a dyn IncidentLog,
}

impl<'a> Importer<'a> {
    /// Puts them into these.
    pub fn new(samples: &'a dyn SampleStore, incidents: &'a dyn IncidentLog) -> Self {
        Self { samples, incidents }
    }

    /// Reads JSON lines to their end.
    ///
    /// # Errors
    ///
    /// At the first line that is not an export's, or when the store cannot be written.
    pub async fn read_jsonl(
        &self,
        input: &mut (dyn BufRead + Send),
    ) -> Result<Imported, ImportError> {
        let mut done = Imported::default();
        let mut checks = Vec::new();
        let mut text = Vec::new();
        for line in 1.. {
            text.clear();
            let read = (&mut *input).take(LONGEST_LINE).read_until(b'\n', &mut text)?;
            if read == 0 {
                break;
            }
            let wrong = |message: String| ImportError::Line { line, message };
            if read as u64 == LONGEST_LINE {
                return Err(wrong(format!("longer than {LONGEST_LINE} bytes")));
            }
            if text.trim_ascii().is_empty() {
                continue;
            }
            let record = serde_json::from_slice(&text).map_err(|error| wrong(error.to_string()))?;
            match (line, record) {
                (1, Line::Export { schema }) if schema == EXPORT_SCHEMA => {}
                (1, _) => {
                    return Err(wrong(format!("not the first line of `{EXPORT_SCHEMA}`")));
                }
                (_, Line::Export { .. }) => {}
                (_, Line::Snapshot { check }) => checks.push(check),
                (_, Line::Alert(alert)) => self.add_alert(alert, &mut done).await?,
            }
            if checks.len() >= BATCH {
                self.add_checks(std::mem::take(&mut checks), &mut done).await?;
            }
        }
        self.add_checks(checks, &mut done).await?;
        Ok(done)
    }

    async fn add_checks(
        &self,
        checks: Vec<CheckRecord>,
        done: &mut Imported,
    ) -> Result<(), ImportError> {
        let moments = checks.iter().map(|check| check.at);
        let (Some(first), Some(last)) = (moments.clone().min(), moments.max()) else {
            return Ok(());
        };
        let mut known = self.known_between(first, last).await?;
        let all = checks.len() as u64;
        let new: Vec<_> =
            checks.into_iter().filter(|check| known.insert(identity(check))).collect();
        done.checks += new.len() as u64;
        done.known += all - new.len() as u64;
        self.samples.append(&Batch { checks: new, ..Batch::default() }).await?;
        Ok(())
    }

    async fn known_between(
        &self,
        first: Timestamp,
        last: Timestamp,
    ) -> Result<HashSet<Identity>, ImportError> {
        let until = last.saturating_add(std::time::Duration::from_millis(1));
        let mut query = RecordQuery { until: Some(until), ..RecordQuery::all().since(first) };
        let mut known = HashSet::new();
        loop {
            let page = self.samples.checks(&query).await?;
            known.extend(page.items.iter().map(identity));
            match page.next {
                Some(next) => query.after = Some(next),
                None => return Ok(known),
            }
        }
    }

    async fn add_alert(&self, alert: Alert, done: &mut Imported) -> Result<(), ImportError> {
        let millisecond = std::time::Duration::from_millis(1);
        let query = AlertQuery {
            since: Some(alert.timestamp),
            until: Some(alert.timestamp.saturating_add(millisecond)),
            limit: 1_000,
            ..AlertQuery::default()
        };
        let there = self.incidents.alerts(&query).await?;
        if there.iter().any(|record| record.alert.id == alert.id) {
            done.known += 1;
            return Ok(());
        }
        done.alerts += 1;
        let at = alert.timestamp;
        let transition = Transition { alerts: vec![alert], at, ..Transition::default() };
        Ok(self.incidents.commit(&transition).await?)
    }
}

type Identity = (ServiceName, Timestamp, &'static str, u128);

/// What no two checks of a service have in common.
fn identity(check: &CheckRecord) -> Identity {
    // As exact as a store keeps it.
    let ticks = (check.total.as_nanos() + 5_000) / 10_000;
    (check.service.clone(), check.at, check.question.as_str(), ticks)
}
