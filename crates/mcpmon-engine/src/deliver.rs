//! One task per handler feeds it from the outbox; handlers never hold one another up.

use std::sync::Arc;
use std::time::Duration;

use mcpmon_core::monitor::MonitorEvent;
use mcpmon_core::store::{Delivery, Settlement};
use mcpmon_core::{DeliveryError, Handler};
use tokio::sync::{Notify, watch};

use crate::handle::Shared;
use crate::outbox::{Origin, Outbox};
use crate::panic::unpanicked;
use crate::retry;

/// One attempt.
const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(30);
/// The outbox is looked through at least this often, for retries that became due.
const LOOK_AGAIN: Duration = Duration::from_secs(1);
/// Messages taken at once.
const AT_ONCE: usize = 16;

/// Feeds one handler.
pub(crate) struct Deliverer {
    pub(crate) handler: Arc<dyn Handler>,
    pub(crate) outbox: Arc<Outbox>,
    /// Something was queued.
    pub(crate) queued: Arc<Notify>,
    pub(crate) shared: Arc<Shared>,
    /// Set when the monitor stops: what is due is tried once more, then the task ends.
    pub(crate) stopping: watch::Receiver<bool>,
}

impl Deliverer {
    pub(crate) async fn run(mut self) {
        loop {
            let queued = self.queued.notified();
            let stopping = *self.stopping.borrow();
            let progressed = self.deliver_due().await;
            if stopping {
                return;
            }
            if progressed {
                continue;
            }
            tokio::select! {
                () = queued => {}
                () = tokio::time::sleep(LOOK_AGAIN) => {}
                changed = self.stopping.changed() => if changed.is_err() { return },
            }
        }
    }

    /// Delivers what is due, in order; says whether a full batch was taken and more may wait.
    async fn deliver_due(&self) -> bool {
        let due = self.outbox.due(self.handler.name(), self.shared.clock.now(), AT_ONCE).await;
        let full = due.len() >= AT_ONCE;
        let mut delivered = false;
        for (origin, delivery) in due {
            delivered |= self.attempt(origin, &delivery).await;
        }
        full && delivered
    }

    /// One attempt; says whether it arrived.
    async fn attempt(&self, origin: Origin, delivery: &Delivery) -> bool {
        let notification = &delivery.notification;
        let delivering = unpanicked(self.handler.deliver(notification));
        let result = match tokio::time::timeout(ATTEMPT_TIMEOUT, delivering).await {
            Ok(Some(result)) => result,
            Ok(None) => Err(DeliveryError::transient("the handler panicked")),
            Err(_) => {
                let seconds = ATTEMPT_TIMEOUT.as_secs();
                Err(DeliveryError::transient(format!("no answer within {seconds} s")))
            }
        };
        let (handler, key) = (self.handler.name().to_owned(), notification.key.clone());
        let now = self.shared.clock.now();
        let (settlement, event) = match result {
            Ok(receipt) => (
                Settlement::Delivered { at: now, receipt },
                MonitorEvent::Delivered { handler, key },
            ),
            Err(error) => {
                let settlement = retry::after_failure(notification.attempt, &error, now);
                let dead = matches!(settlement, Settlement::Dead { .. });
                tracing::warn!(%handler, %error, dead, "Notification could not be delivered");
                let error = error.to_string();
                let failures = &mut self.shared.write().report.delivery_failures_total;
                *failures.entry(handler.clone()).or_default() += 1;
                (settlement, MonitorEvent::DeliveryFailed { handler, key, error, dead })
            }
        };
        let arrived = matches!(settlement, Settlement::Delivered { .. });
        self.outbox.settle(origin, delivery.id, settlement).await;
        let _ = self.shared.events.send(event);
        arrived
    }
}
