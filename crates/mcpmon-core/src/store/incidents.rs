//! The port of what was said: alerts, messages, silences, and what was done to services.

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

use super::StoreError;
use crate::alert::{Alert, AlertPhase, AlertState, Notification, Receipt, Silence};
use crate::remedy::{AuditEntry, AuditQuery};
use crate::service::ServiceName;
use crate::time::Timestamp;

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

impl Delivery {
    /// The alerts whose end it says.
    pub fn ends(&self) -> impl Iterator<Item = &str> {
        let alerts = self.notification.alerts.iter();
        alerts.filter(|alert| alert.resolved_at.is_some()).map(|alert| alert.id.as_str())
    }

    /// Whether it is worth saying still. That alerts fire is not, once they have ended: whoever was
    /// told of that end would take them for open for ever. `has_ended` says whether an alert has
    /// ended, `end_is_to_come` whether a message of its end has yet to reach the same handler.
    pub fn is_worth_reviving(
        &self,
        has_ended: impl Fn(&str) -> bool,
        end_is_to_come: impl Fn(&str) -> bool,
    ) -> bool {
        self.notification.alerts.iter().any(|alert| {
            alert.resolved_at.is_some() || !has_ended(&alert.id) || end_is_to_come(&alert.id)
        })
    }
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

    /// Records what became of several at once, as the members of a digest are. A store should make
    /// one transaction of it; this default makes one of each.
    ///
    /// # Errors
    ///
    /// When it could not be written; some of it may have been, and all of it may be given again.
    async fn settle_many(&self, settlements: &[(i64, Settlement)]) -> Result<(), StoreError> {
        for (delivery, settlement) in settlements {
            self.settle(*delivery, settlement).await?;
        }
        Ok(())
    }

    /// Gives up every message that waits for a handler not among `handlers`, since nobody is left
    /// to deliver it: it becomes a dead letter with `why`. Returns how many there were.
    ///
    /// # Errors
    ///
    /// When it could not be written; nothing was given up.
    async fn give_up_for_others(
        &self,
        handlers: &[String],
        at: Timestamp,
        why: &str,
    ) -> Result<u64, StoreError>;

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

    /// Queues what was given up for a handler once more: due at `now`, as if it was never tried,
    /// in its old place of the order. Gives how many messages that are. What says that alerts fire
    /// that have ended stays given up ([`Delivery::is_worth_reviving`]).
    ///
    /// # Errors
    ///
    /// When it could not be written; nothing was queued.
    async fn revive(&self, handler: &str, now: Timestamp) -> Result<u64, StoreError>;

    /// Forgets what was given up for a handler. Gives how many messages that were.
    ///
    /// # Errors
    ///
    /// When it could not be written; nothing was forgotten.
    async fn discard(&self, handler: &str) -> Result<u64, StoreError>;

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

    /// Records something that was done to a service, or replaces the entry of that id.
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
    async fn audit(&self, query: &AuditQuery) -> Result<Vec<AuditEntry>, StoreError>;
}
