//! How long things are kept: decided here, carried out by the store.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::time::Timestamp;

/// What retention decided; printed by a dry run, carried out by the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct PrunePlan {
    /// Raw checks and host samples older than this go.
    pub checks_before: Option<Timestamp>,
    /// Summaries of 15 minutes and status changes older than this go. The last status of a service
    /// always stays.
    pub quarters_before: Option<Timestamp>,
    /// Summaries of an hour older than this go.
    pub hours_before: Option<Timestamp>,
    /// Resolved alerts, delivered notifications and changes of lists older than this go.
    pub incidents_before: Option<Timestamp>,
    /// The store is to be no larger than this, in bytes: what is too much goes oldest first, raw
    /// checks before summaries of 15 minutes, these before those of an hour, alerts and changes of
    /// lists last.
    pub most_bytes: Option<u64>,
}

/// How long things are kept, and in how much room.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Retention {
    /// Raw checks and host samples.
    pub raw: Duration,
    /// Summaries of 15 minutes, status changes.
    pub quarters: Duration,
    /// Summaries of an hour, alerts, deliveries.
    pub hours: Duration,
    /// Bytes of all together.
    pub most_bytes: u64,
}

impl Retention {
    /// What the settings say.
    pub fn from_settings(settings: &crate::settings::Settings) -> Self {
        let days = |days: u32| Duration::from_secs(u64::from(days) * 86_400);
        let monitoring = &settings.monitoring;
        Self {
            raw: days(monitoring.metrics_retention_days),
            quarters: days(monitoring.middle_retention_days),
            hours: days(monitoring.rollup_retention_days),
            most_bytes: monitoring.max_database_size.0,
        }
    }

    /// Decides what is due for deletion at `now`, without deleting it.
    pub fn plan(&self, now: Timestamp) -> PrunePlan {
        let before = |age: Duration| Some(now.saturating_sub(age));
        PrunePlan {
            checks_before: before(self.raw),
            quarters_before: before(self.quarters),
            hours_before: before(self.hours),
            incidents_before: before(self.hours),
            most_bytes: Some(self.most_bytes),
        }
    }
}

/// What one step of pruning did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Pruned {
    /// Rows deleted.
    pub rows: u64,
    /// Whether another step has more to do.
    pub more: bool,
}
