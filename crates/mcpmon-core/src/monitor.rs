//! The port of those who look at a running monitor and tell it what to do: terminal, web page,
//! MCP endpoint.

use std::sync::Arc;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

use crate::alert::Silence;
use crate::contract::{HostReport, MonitorReport, ServiceStatusReport};
use crate::observation::Question;
use crate::remedy::AuditEntry;
use crate::service::ServiceName;
use crate::state::StatusChange;
use crate::store::{AlertRecord, CheckRecord};
use crate::time::Timestamp;

/// Everything the monitor knows at one moment.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Snapshot {
    /// The moment.
    pub at: Timestamp,
    /// The monitor itself.
    pub monitor: MonitorReport,
    /// Its services, failing first, then by name.
    pub services: Vec<ServiceStatusReport>,
    /// The machine, if it is measured.
    pub host: Option<HostReport>,
    /// The newest alerts, newest first.
    pub alerts: Vec<AlertRecord>,
}

/// Something happened in the monitor.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(tag = "event", rename_all = "snake_case")]
#[non_exhaustive]
pub enum MonitorEvent {
    /// A check ended.
    Checked(Box<CheckRecord>),
    /// A status, its cause or its findings changed.
    StatusChanged(Box<StatusChange>),
    /// An alert fired.
    AlertFired(Box<AlertRecord>),
    /// An alert ended.
    AlertResolved(Box<AlertRecord>),
    /// A repair began, went on or ended, or repairs were given up or taken up again.
    Repair(Box<AuditEntry>),
    /// A handler took a notification.
    Delivered {
        /// The handler.
        handler: String,
        /// The notification's key.
        key: String,
    },
    /// A handler did not take a notification.
    DeliveryFailed {
        /// The handler.
        handler: String,
        /// The notification's key.
        key: String,
        /// Why.
        error: String,
        /// Whether it is given up.
        dead: bool,
    },
    /// A rule could not be evaluated.
    RuleFailed {
        /// The rule.
        rule: String,
        /// Why.
        error: String,
    },
    /// The store could not be written; samples wait in memory.
    StoreFailed {
        /// Why.
        error: String,
        /// Checks waiting.
        waiting: u64,
        /// Checks dropped so far.
        dropped: u64,
    },
    /// The store can be written again.
    StoreRecovered,
    /// Services, rules or handlers were exchanged.
    Reloaded {
        /// Services watched now.
        services: u32,
    },
    /// The subscriber was too slow and missed this many events.
    Missed {
        /// How many.
        count: u64,
    },
}

/// What can be asked of a running monitor, also from another process.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "command", rename_all = "snake_case")]
#[non_exhaustive]
pub enum MonitorCommand {
    /// Ask now; every service if none is named.
    CheckNow {
        /// Which.
        service: Option<ServiceName>,
        /// What.
        question: Question,
    },
    /// Say nothing of matching alerts for a while.
    Silence(Silence),
    /// Somebody takes an alert on.
    Acknowledge {
        /// The alert's id.
        alert: String,
        /// Who.
        by: String,
        /// What they say.
        comment: String,
    },
    /// Messages this handler was to get and that were given up are sent once more.
    Redeliver {
        /// The handler.
        handler: String,
    },
    /// Messages this handler was to get and that were given up are forgotten.
    ForgetUndelivered {
        /// The handler.
        handler: String,
    },
    /// A discovered command may be started from now on.
    Approve {
        /// Which.
        service: ServiceName,
    },
}

/// The monitor could not do it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CommandError {
    /// There is no such service.
    #[error("there is no service `{0}`")]
    NoSuchService(ServiceName),
    /// There is no such alert.
    #[error("there is no open alert `{0}`")]
    NoSuchAlert(String),
    /// There is no such handler.
    #[error("there is no handler `{0}`")]
    NoSuchHandler(String),
    /// A service of this name is watched already.
    #[error("there is a service `{0}` already")]
    ServiceExists(ServiceName),
    /// This monitor does not know how.
    #[error("this monitor cannot {0} yet")]
    Unsupported(&'static str),
    /// The monitor has stopped.
    #[error("the monitor has stopped")]
    Stopped,
    /// It could not be recorded.
    #[error("could not be recorded: {0}")]
    Store(String),
}

/// A running monitor, as cli, web and MCP endpoint hold it.
#[async_trait]
pub trait MonitorHandle: Send + Sync {
    /// Everything known now.
    fn snapshot(&self) -> Arc<Snapshot>;

    /// Events from now on.
    fn subscribe(&self) -> Box<dyn EventStream>;

    /// Carries out a command.
    ///
    /// # Errors
    ///
    /// [`CommandError`] says why not.
    async fn command(&self, command: MonitorCommand) -> Result<(), CommandError>;
}

/// Events of a monitor, one after the other.
#[async_trait]
pub trait EventStream: Send {
    /// The next event; `None` once the monitor has stopped. Cancel-safe.
    async fn next(&mut self) -> Option<MonitorEvent>;
}
