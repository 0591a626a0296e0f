//! What is stored of a change of status, and what made it.

use serde::{Deserialize, Serialize};

use crate::failure::{Failure, Finding};
use crate::service::ServiceName;
use crate::status::Status;
use crate::time::Timestamp;

/// What made a status change.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
#[non_exhaustive]
pub enum ChangeOrigin {
    /// The result of a check, stored under the moment at which that check began.
    #[default]
    Check,
    /// The machine slept, or the monitor was kept from running, from the change's `at` on; or the
    /// network is back, and every service behind it is asked again.
    Absent {
        /// When the monitor noticed.
        noticed_at: Timestamp,
        /// How long the machine slept, in milliseconds.
        slept_ms: u64,
    },
    /// No monitor ran from the change's `at`, the service's last check, on.
    NotRunning {
        /// When a monitor started again.
        noticed_at: Timestamp,
        /// The last moment of which anything was stored by the monitor before it.
        #[serde(default)]
        ran_until: Timestamp,
    },
    /// A monitor started again so soon that the status stays what it was: nothing changed. The
    /// change's `at` is the last moment of which anything was stored by the monitor before it. A
    /// reader that evaluates rules needs to know, since rules wait for the first check after a
    /// start; to others it means nothing.
    Started {
        /// When the monitor started.
        noticed_at: Timestamp,
    },
    /// The monitor's own network was lost.
    Offline {
        /// Failed checks of the service that began from here on are attributed to the monitor.
        failed_since: Timestamp,
        /// Up to here: when the monitor noticed.
        noticed_at: Timestamp,
    },
    /// Checks of the service were started or stopped: it is enabled, paused or in maintenance.
    Schedule,
}

impl ChangeOrigin {
    /// Whether a check made the change.
    pub const fn is_check(&self) -> bool {
        matches!(self, Self::Check)
    }

    /// When the monitor noticed, where that may be later than the change's `at`.
    pub const fn noticed_at(&self) -> Option<Timestamp> {
        match self {
            Self::Absent { noticed_at, .. }
            | Self::NotRunning { noticed_at, .. }
            | Self::Started { noticed_at }
            | Self::Offline { noticed_at, .. } => Some(*noticed_at),
            Self::Check | Self::Schedule => None,
        }
    }

    /// Whether nobody watched for a while: rules wait until the service was asked again.
    pub const fn is_gap(&self) -> bool {
        matches!(self, Self::Absent { .. } | Self::NotRunning { .. } | Self::Started { .. })
    }

    /// The span, both ends included, in which failed checks of the service are attributed to the
    /// monitor.
    pub const fn discounted(&self) -> Option<(Timestamp, Timestamp)> {
        match self {
            Self::Offline { failed_since, noticed_at } => Some((*failed_since, *noticed_at)),
            _ => None,
        }
    }
}

/// The moment a status, its cause or its findings changed, and to what.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StatusChange {
    /// The service.
    pub service: ServiceName,
    /// When.
    pub at: Timestamp,
    /// What it was.
    pub from: Status,
    /// What it is now.
    pub status: Status,
    /// Since when it has this status: earlier than `at` when only cause or findings changed.
    pub since: Timestamp,
    /// Why, where something is wrong.
    pub failure: Option<Failure>,
    /// What is odd.
    pub findings: Vec<Finding>,
    /// What made the change.
    #[serde(default, skip_serializing_if = "ChangeOrigin::is_check")]
    pub origin: ChangeOrigin,
}

impl StatusChange {
    /// When the monitor noticed the change; for one that a check made, when that check began.
    ///
    /// What became known before this moment counted before the change, however early its `at` is.
    pub fn noticed_at(&self) -> Timestamp {
        self.origin.noticed_at().unwrap_or(self.at)
    }

    /// Whether status, cause or findings changed. A record of a start of the monitor is nothing
    /// to show to people.
    pub const fn is_change(&self) -> bool {
        !matches!(self.origin, ChangeOrigin::Started { .. })
    }

    /// The span in which no monitor ran, where the change reports one: from the last moment of which
    /// anything was stored to the next start.
    pub fn span_without_monitor(&self) -> Option<(Timestamp, Timestamp)> {
        match self.origin {
            ChangeOrigin::NotRunning { noticed_at, ran_until } => {
                Some((ran_until.max(self.at), noticed_at))
            }
            ChangeOrigin::Started { noticed_at } => Some((self.at, noticed_at)),
            _ => None,
        }
    }
}
