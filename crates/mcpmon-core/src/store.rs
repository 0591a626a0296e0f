//! Ports of memory: what was seen ([`SampleStore`]), what was said ([`IncidentLog`]), and what
//! other processes ask for ([`CommandQueue`]).
//!
//! Every method that writes is one transaction and returns once it is durable: what was reported
//! committed is there after a crash. The futures may be dropped; the work then still happens whole
//! or not at all.

pub mod history;

use std::path::PathBuf;
use std::time::Duration;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

use crate::alert::{Alert, AlertPhase, AlertState, Notification, Receipt, Silence};
use crate::failure::{Failure, FailureCode, Finding};
use crate::metrics::{ProcessMetrics, SystemMetrics};
use crate::monitor::MonitorCommand;
use crate::observation::{Conversation, Lists, Observation, Phases, Question};
use crate::service::ServiceName;
use crate::state::StatusChange;
use crate::status::Status;
use crate::time::Timestamp;

pub use history::{History, HistoryPoint, HistoryQuery, PerStatus, Ranking, Summary};

/// The store could not do what it was asked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// The file was written by a newer mcpmon; opening it could lose data.
    #[error(
        "database `{path}` has schema {found}, but this build knows up to {known}; use the newer mcpmon that wrote it, or another file"
    )]
    NewerSchema {
        /// The file.
        path: PathBuf,
        /// Its schema.
        found: u32,
        /// The newest this build knows.
        known: u32,
    },
    /// The file belongs to another program.
    #[error("`{path}` is a database of another program; give another path for mcpmon's own")]
    Foreign {
        /// The file.
        path: PathBuf,
    },
    /// The file is no database, or a damaged one.
    #[error("database `{path}` is damaged: {message}")]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What was found.
        message: String,
    },
    /// Another monitor writes this file.
    #[error("database `{path}` is in use by another mcpmon; stop that one, or use another file")]
    InUse {
        /// The file.
        path: PathBuf,
    },
    /// The disk is full.
    #[error("no space left to write `{path}`")]
    Full {
        /// The file.
        path: PathBuf,
    },
    /// Another program holds the file for too long; trying later may help.
    #[error("database `{path}` is locked by another program")]
    Busy {
        /// The file.
        path: PathBuf,
    },
    /// The file or its directory cannot be read or written.
    #[error("cannot use `{path}`: {message}")]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        message: String,
    },
    /// The store was closed, or its thread is gone.
    #[error("the store is closed")]
    Closed,
    /// Anything else.
    #[error("{0}")]
    Other(#[source] Box<dyn std::error::Error + Send + Sync>),
}

/// One check as it is kept.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CheckRecord {
    /// The service.
    pub service: ServiceName,
    /// When it started.
    pub at: Timestamp,
    /// What was asked.
    pub question: Question,
    /// What this one check said, before any hysteresis.
    pub status: Status,
    /// Why, where it failed.
    pub code: Option<FailureCode>,
    /// One whole request on a ready session.
    #[serde(rename = "latency_ms", with = "millis::optional")]
    pub latency: Option<Duration>,
    /// The whole check.
    #[serde(rename = "total_ms", with = "millis")]
    pub total: Duration,
    /// Its parts.
    pub phases: Phases,
    /// Whether its process was started again for it; the first start of a monitor's life is none.
    pub restarted: bool,
    /// The service's process tree.
    pub process: Option<ProcessMetrics>,
}

impl CheckRecord {
    /// What is kept of an observation.
    pub fn new(
        service: ServiceName,
        at: Timestamp,
        question: Question,
        observation: &Observation,
    ) -> Self {
        Self {
            service,
            at,
            question,
            status: observation.raw_status(),
            code: observation.failure().map(|failure| failure.code),
            latency: observation.latency,
            total: observation.total,
            phases: observation.phases,
            restarted: observation.restarted,
            process: observation.process,
        }
    }
}

mod millis {
    use std::time::Duration;

    use serde::{Deserialize, Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(span: &Duration, s: S) -> Result<S::Ok, S::Error> {
        s.serialize_f64(span.as_secs_f64() * 1_000.0)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(d: D) -> Result<Duration, D::Error> {
        let millis = f64::deserialize(d)?;
        Duration::try_from_secs_f64(millis / 1_000.0).map_err(serde::de::Error::custom)
    }

    pub(super) mod optional {
        use super::*;

        pub(crate) fn serialize<S: Serializer>(
            span: &Option<Duration>,
            s: S,
        ) -> Result<S::Ok, S::Error> {
            match span {
                Some(span) => super::serialize(span, s),
                None => s.serialize_none(),
            }
        }

        pub(crate) fn deserialize<'de, D: Deserializer<'de>>(
            d: D,
        ) -> Result<Option<Duration>, D::Error> {
            #[derive(Deserialize)]
            struct Wrapped(#[serde(with = "super")] Duration);
            Ok(Option::<Wrapped>::deserialize(d)?.map(|wrapped| wrapped.0))
        }
    }
}

/// What is known of a service apart from its checks; written when it changes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ServiceFacts {
    /// The service.
    pub service: ServiceName,
    /// `stdio`, `http` or `sse`.
    pub transport: String,
    /// Revision, era and identity of the last good conversation.
    pub conversation: Conversation,
    /// Tools last listed.
    pub tools_count: Option<u32>,
    /// How often its process was started again.
    pub restarts: u64,
    /// Since when it is available.
    pub available_since: Option<Timestamp>,
    /// Whether it is still watched; the history of one that is not stays.
    pub watched: bool,
    /// Start of one check to the start of the next, in ms: how long a check vouches for it.
    #[serde(default)]
    pub check_interval_ms: Option<u64>,
}

impl ServiceFacts {
    /// How long a check vouches for the service's status.
    pub fn reach(&self) -> Duration {
        history::reach(self.check_interval_ms.map(Duration::from_millis))
    }
}

/// A service's lists as they were read.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ListRecord {
    /// The service.
    pub service: ServiceName,
    /// When they were first seen so.
    pub at: Timestamp,
    /// The lists.
    pub lists: Lists,
}

/// One sample of the machine.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct HostRecord {
    /// When.
    pub at: Timestamp,
    /// What.
    pub metrics: SystemMetrics,
}

/// What is written in one transaction.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Batch {
    /// Checks, in the order they ended.
    pub checks: Vec<CheckRecord>,
    /// Changes of status, cause or findings.
    pub changes: Vec<StatusChange>,
    /// Facts that changed.
    pub facts: Vec<ServiceFacts>,
    /// Lists that changed.
    pub lists: Vec<ListRecord>,
    /// Samples of the machine.
    pub host: Vec<HostRecord>,
}

impl Batch {
    /// Whether there is nothing to write.
    pub fn is_empty(&self) -> bool {
        self.checks.is_empty()
            && self.changes.is_empty()
            && self.facts.is_empty()
            && self.lists.is_empty()
            && self.host.is_empty()
    }
}

/// A service as the store last knew it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StoredService {
    /// What changes seldom.
    pub facts: ServiceFacts,
    /// Its status.
    pub status: Status,
    /// Since when.
    pub since: Timestamp,
    /// Why, where something is wrong.
    pub failure: Option<Failure>,
    /// What is odd.
    pub findings: Vec<Finding>,
    /// Its last check.
    pub last_check: Option<CheckRecord>,
}

/// Which records are asked for; oldest first.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct RecordQuery {
    /// Only of this service.
    pub service: Option<ServiceName>,
    /// From this moment on, itself included.
    pub since: Option<Timestamp>,
    /// Before this moment.
    pub until: Option<Timestamp>,
    /// At most so many; the store may give fewer and a cursor.
    pub limit: usize,
    /// Where the page before ended.
    pub after: Option<Cursor>,
}

impl RecordQuery {
    /// Pages are at most this long.
    pub const LARGEST_PAGE: usize = 10_000;

    /// Everything of one service since a moment.
    pub fn of(service: ServiceName) -> Self {
        Self { service: Some(service), limit: Self::LARGEST_PAGE, ..Self::default() }
    }

    /// Everything of every service.
    pub fn all() -> Self {
        Self { limit: Self::LARGEST_PAGE, ..Self::default() }
    }

    /// Only from this moment on.
    #[must_use]
    pub fn since(mut self, since: Timestamp) -> Self {
        self.since = Some(since);
        self
    }
}

/// Where a page ended; opaque, and good only for the query it came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cursor {
    /// Time of the last record.
    pub at: Timestamp,
    /// What tells records of one time apart.
    pub tie: i64,
}

/// A part of an answer, so that no table is ever whole in memory.
#[derive(Debug, Clone, PartialEq)]
pub struct Page<T> {
    /// The records.
    pub items: Vec<T>,
    /// Where to go on, if there may be more.
    pub next: Option<Cursor>,
}

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
    /// Resolved alerts and delivered notifications older than this go.
    pub incidents_before: Option<Timestamp>,
    /// The store is to be no larger than this, in bytes: what is too much goes oldest first, raw
    /// checks before summaries of 15 minutes, these before those of an hour, alerts last.
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

/// Keeps what was seen.
#[async_trait]
pub trait SampleStore: Send + Sync {
    /// Writes a batch in one transaction; returns once it is durable.
    ///
    /// # Errors
    ///
    /// Nothing of the batch was written; it may be given again.
    async fn append(&self, batch: &Batch) -> Result<(), StoreError>;

    /// Every service ever seen, as last known, by name.
    ///
    /// # Errors
    ///
    /// When the store cannot be read.
    async fn services(&self) -> Result<Vec<StoredService>, StoreError>;

    /// Checks, oldest first.
    ///
    /// # Errors
    ///
    /// When the store cannot be read.
    async fn checks(&self, query: &RecordQuery) -> Result<Page<CheckRecord>, StoreError>;

    /// Changes of status, oldest first.
    ///
    /// # Errors
    ///
    /// When the store cannot be read.
    async fn changes(&self, query: &RecordQuery) -> Result<Page<StatusChange>, StoreError>;

    /// Samples of the machine, oldest first; `query.service` is not looked at.
    ///
    /// # Errors
    ///
    /// When the store cannot be read.
    async fn host(&self, query: &RecordQuery) -> Result<Page<HostRecord>, StoreError>;

    /// The newest sample of the machine.
    ///
    /// # Errors
    ///
    /// When the store cannot be read.
    async fn last_host(&self) -> Result<Option<HostRecord>, StoreError>;

    /// A service's lists as last read.
    ///
    /// # Errors
    ///
    /// When the store cannot be read.
    async fn lists(&self, service: &ServiceName) -> Result<Option<ListRecord>, StoreError>;

    /// A service's past in steps: counts, latencies, time in each status. A service nobody has
    /// seen was `unknown` all the time.
    ///
    /// # Errors
    ///
    /// When the store cannot be read.
    async fn history(&self, query: &HistoryQuery) -> Result<History, StoreError> {
        let services = self.services().await?;
        let known = services.iter().find(|stored| stored.facts.service == query.service);
        let reach = known.map_or_else(|| history::reach(None), |stored| stored.facts.reach());
        history::history_of_records(self, query, reach).await
    }

    /// Every service's summary of a span, by name. A store may begin up to a quarter of an hour
    /// before `since` (an hour where it has nothing finer), to have less to read.
    ///
    /// # Errors
    ///
    /// When the store cannot be read.
    async fn summaries(
        &self,
        since: Timestamp,
        until: Timestamp,
    ) -> Result<Vec<(ServiceName, Summary)>, StoreError> {
        let mut summaries = Vec::new();
        for stored in self.services().await? {
            let reach = stored.facts.reach();
            let service = stored.facts.service;
            let query = HistoryQuery { service: service.clone(), since, until, step: None };
            let history = history::history_of_records(self, &query, reach).await?;
            summaries.push((service, history.whole()));
        }
        Ok(summaries)
    }

    /// The newest checks of a service, oldest first; at most [`RecordQuery::LARGEST_PAGE`].
    ///
    /// # Errors
    ///
    /// When the store cannot be read.
    async fn last_checks(
        &self,
        service: &ServiceName,
        count: usize,
    ) -> Result<Vec<CheckRecord>, StoreError> {
        let count = count.min(RecordQuery::LARGEST_PAGE);
        let mut query = RecordQuery::of(service.clone());
        let mut last = std::collections::VecDeque::new();
        loop {
            let page = self.checks(&query).await?;
            last.extend(page.items);
            last.drain(..last.len().saturating_sub(count));
            match page.next {
                Some(next) => query.after = Some(next),
                None => return Ok(last.into()),
            }
        }
    }

    /// Carries out one small step of a plan, so that nobody waits long for the writer.
    ///
    /// # Errors
    ///
    /// When the store cannot be written; what was deleted stays deleted.
    async fn prune(&self, plan: &PrunePlan) -> Result<Pruned, StoreError>;
}

/// A message that is to be delivered.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct NewDelivery {
    /// To whom.
    pub handler: String,
    /// What.
    pub notification: Notification,
}

/// A message in the outbox.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Delivery {
    /// The outbox's number for it; rising.
    pub id: i64,
    /// To whom.
    pub handler: String,
    /// What; its `attempt` is the next one's.
    pub notification: Notification,
    /// When it was queued.
    pub queued_at: Timestamp,
    /// Not before this moment.
    pub due_at: Timestamp,
    /// Why the last attempt failed.
    pub last_error: Option<String>,
}

/// What became of an attempt.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum Settlement {
    /// It arrived.
    Delivered {
        /// When.
        at: Timestamp,
        /// What the far side said.
        receipt: Receipt,
    },
    /// It is tried again.
    Retry {
        /// Not before this moment.
        due_at: Timestamp,
        /// Why it failed.
        error: String,
    },
    /// It is given up, and stays to be seen.
    Dead {
        /// When.
        at: Timestamp,
        /// Why.
        error: String,
    },
}

/// Something mcpmon did to a service.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct AuditEntry {
    /// When.
    pub at: Timestamp,
    /// The service.
    pub service: ServiceName,
    /// What was done.
    pub action: String,
    /// Whether it was only said.
    pub dry_run: bool,
    /// The check before.
    pub before: Option<CheckRecord>,
    /// The check after.
    pub after: Option<CheckRecord>,
    /// What came of it.
    pub result: String,
}

/// What is written in one transaction when alerts change.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Transition {
    /// States as they are now; replace those of the same key.
    pub states: Vec<AlertState>,
    /// Alerts that fired or ended; replace those of the same id.
    pub alerts: Vec<Alert>,
    /// Messages to send because of it.
    pub deliveries: Vec<NewDelivery>,
    /// When.
    pub at: Timestamp,
}

/// Which alerts are asked for; newest first.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct AlertQuery {
    /// Only those that fire.
    pub active: bool,
    /// Only those that fired or ended from this moment on.
    pub since: Option<Timestamp>,
    /// Only those that fired before this moment; also how a long history is paged.
    pub until: Option<Timestamp>,
    /// Only of this service.
    pub service: Option<ServiceName>,
    /// At most so many.
    pub limit: usize,
}

/// An alert with where it stands.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct AlertRecord {
    /// The alert.
    #[serde(flatten)]
    pub alert: Alert,
    /// Where it stands.
    pub state: AlertPhase,
}

/// Keeps what was decided and what must be said.
#[async_trait]
pub trait IncidentLog: Send + Sync {
    /// Every alert state there is, to be taken up at start.
    ///
    /// # Errors
    ///
    /// When the log cannot be read.
    async fn states(&self) -> Result<Vec<AlertState>, StoreError>;

    /// Records a transition *and* its deliveries in one transaction; returns once it is durable.
    ///
    /// # Errors
    ///
    /// Nothing of it was written; it may be given again.
    async fn commit(&self, transition: &Transition) -> Result<(), StoreError>;

    /// Messages due for one handler, oldest first.
    ///
    /// # Errors
    ///
    /// When the log cannot be read.
    async fn due(
        &self,
        handler: &str,
        now: Timestamp,
        limit: usize,
    ) -> Result<Vec<Delivery>, StoreError>;

    /// Records what became of an attempt.
    ///
    /// # Errors
    ///
    /// When it could not be written; the message may then be delivered again.
    async fn settle(&self, delivery: i64, settlement: &Settlement) -> Result<(), StoreError>;

    /// Alerts, newest first.
    ///
    /// # Errors
    ///
    /// When the log cannot be read.
    async fn alerts(&self, query: &AlertQuery) -> Result<Vec<AlertRecord>, StoreError>;

    /// Messages that were given up, newest first.
    ///
    /// # Errors
    ///
    /// When the log cannot be read.
    async fn dead_letters(&self, limit: usize) -> Result<Vec<Delivery>, StoreError>;

    /// Silences that have not ended at `now`.
    ///
    /// # Errors
    ///
    /// When the log cannot be read.
    async fn silences(&self, now: Timestamp) -> Result<Vec<Silence>, StoreError>;

    /// Adds a silence, or replaces the one of that id.
    ///
    /// # Errors
    ///
    /// When it could not be written.
    async fn put_silence(&self, silence: &Silence) -> Result<(), StoreError>;

    /// Records something that was done to a service.
    ///
    /// # Errors
    ///
    /// When it could not be written.
    async fn record(&self, entry: &AuditEntry) -> Result<(), StoreError>;

    /// What was done, newest first.
    ///
    /// # Errors
    ///
    /// When the log cannot be read.
    async fn audit(&self, limit: usize) -> Result<Vec<AuditEntry>, StoreError>;
}

/// How other processes reach a running monitor: they only ever insert here.
#[async_trait]
pub trait CommandQueue: Send + Sync {
    /// Leaves a command for the monitor.
    ///
    /// # Errors
    ///
    /// When it could not be written.
    async fn submit(&self, command: &MonitorCommand) -> Result<(), StoreError>;

    /// Takes every command left since the last call, oldest first. Cheap when there is none.
    ///
    /// # Errors
    ///
    /// When the queue cannot be read; nothing was taken.
    async fn take(&self) -> Result<Vec<MonitorCommand>, StoreError>;
}

/// Everything a monitor remembers with.
pub trait Store: SampleStore + IncidentLog + CommandQueue {}

impl<T: SampleStore + IncidentLog + CommandQueue> Store for T {}
