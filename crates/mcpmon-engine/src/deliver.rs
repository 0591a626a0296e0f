//! One task per handler feeds it from the outbox; handlers never hold one another up.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use mcpmon_core::monitor::MonitorEvent;
use mcpmon_core::store::{Delivery, Settlement};
use mcpmon_core::{DeliveryError, Handler, Notification, Receipt};
use tokio::sync::{Notify, watch};
use tokio::time::Instant;

use crate::bundle::{self, Bundle, Recent};
use crate::failpoint::Failpoint;
use crate::handle::Shared;
use crate::handover::{Departure, Presence, presence};
use crate::outbox::Outbox;
use crate::panic::unpanicked;
use crate::retry::{self, Attempted};
use crate::turns::{Ticket, Turns};

/// One attempt.
const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(30);
/// The outbox is looked through at least this often, for retries that became due.
const LOOK_AGAIN: Duration = Duration::from_secs(1);
/// Messages taken at once.
const AT_ONCE: usize = 1_000;

/// How long a handler is fed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Feeding {
    GoesOn,
    /// What is due is tried once more.
    Ends,
}

/// The loop's end of a [`Deliverer`]. Dropped, it lets the attempt under way end, and no other
/// begin: an attempt that is cut off may have arrived, and would be made again.
pub(crate) struct Feeder {
    feeding: watch::Sender<Feeding>,
    departure: Departure,
}

impl Feeder {
    /// What is due is tried once more, then the deliverer goes.
    pub(crate) fn finish(&self) {
        self.feeding.send_replace(Feeding::Ends);
    }

    /// Sends the deliverer away; tells when it is gone.
    pub(crate) fn dismiss(self) -> Departure {
        self.departure
    }
}

/// Feeds one handler.
pub(crate) struct Deliverer {
    handler: Arc<dyn Handler>,
    outbox: Arc<Outbox>,
    /// Something was queued.
    queued: Arc<Notify>,
    shared: Arc<Shared>,
    feeding: watch::Receiver<Feeding>,
    /// Who fed a handler of this name before, and may still be at it.
    after: Option<Departure>,
    turns: Turns,
    recent: Recent,
    /// Messages that were due and had to wait for another of their alert, when last looked.
    held_up: usize,
    _presence: Presence,
}

impl Deliverer {
    pub(crate) fn new(
        handler: Arc<dyn Handler>,
        outbox: Arc<Outbox>,
        queued: Arc<Notify>,
        shared: Arc<Shared>,
        after: Option<Departure>,
    ) -> (Self, Feeder) {
        let (orders, feeding) = watch::channel(Feeding::GoesOn);
        let (presence, departure) = presence();
        let deliverer = Self {
            handler,
            outbox,
            queued,
            shared,
            feeding,
            after,
            turns: Turns::default(),
            recent: Recent::default(),
            held_up: 0,
            _presence: presence,
        };
        (deliverer, Feeder { feeding: orders, departure })
    }

    pub(crate) async fn run(mut self) {
        if let Some(after) = self.after.take() {
            after.wait().await;
        }
        self.take_up_turns().await;
        let queue = Arc::clone(&self.queued);
        while !self.is_dismissed() {
            let queued = queue.notified();
            let ends = *self.feeding.borrow_and_update() == Feeding::Ends;
            let more = self.deliver_due().await;
            if ends {
                return;
            }
            if more {
                continue;
            }
            tokio::select! {
                () = queued => {}
                () = tokio::time::sleep(LOOK_AGAIN) => {}
                _ = self.feeding.changed() => {}
            }
        }
    }

    fn is_dismissed(&self) -> bool {
        self.feeding.has_changed().is_err()
    }

    /// Messages that were tried before this task began have their turn before later ones.
    async fn take_up_turns(&mut self) {
        let now = Instant::now();
        // The newest first, so that the oldest of an alert is the one the others wait for.
        for (origin, delivery) in self.outbox.tried(self.handler.name()).await.into_iter().rev() {
            self.turns.tried((origin, delivery.id), &delivery.notification, now);
        }
    }

    /// Delivers what is due, in order; says whether more may wait that can be tried now.
    async fn deliver_due(&mut self) -> bool {
        let now = self.shared.due_time();
        // What has to wait, for its turn or for others of its cause, must not fill the batch.
        let limit = AT_ONCE + self.held_up;
        let due = self.outbox.due(self.handler.name(), now, limit).await;
        let full = due.len() >= limit;
        let ends = *self.feeding.borrow() == Feeding::Ends;
        let plan = bundle::plan(due, &self.recent, ends, now);
        let mut held_up = plan.waiting;
        let mut delivered = false;
        for bundle in plan.ready {
            if self.is_dismissed() {
                return false;
            }
            let members = bundle.members.iter();
            let tickets: HashSet<Ticket> =
                members.map(|(origin, delivery)| (*origin, delivery.id)).collect();
            if self.turns.is_next(&tickets, &bundle.notification, Instant::now()) {
                delivered |= self.attempt(&bundle).await;
            } else {
                held_up += tickets.len();
            }
        }
        let grown = held_up > self.held_up;
        self.held_up = held_up;
        full && (delivered || grown)
    }

    /// One attempt; says whether it arrived.
    async fn attempt(&mut self, bundle: &Bundle) -> bool {
        let notification = &bundle.notification;
        Failpoint::BeforeSend.pass();
        let delivering = unpanicked(self.handler.deliver(notification));
        let result = match tokio::time::timeout(ATTEMPT_TIMEOUT, delivering).await {
            Ok(Some(result)) => result,
            Ok(None) => Err(DeliveryError::transient("the handler panicked")),
            Err(_) => {
                let seconds = ATTEMPT_TIMEOUT.as_secs();
                Err(DeliveryError::transient(format!("no answer within {seconds} s")))
            }
        };
        match &result {
            Ok(_) => {
                Failpoint::AfterSend.pass();
                self.recent.note(bundle, self.shared.due_time());
                if let Some(reach) = self.shared.write().reach.get_mut(self.handler.name()) {
                    reach.arrived();
                }
            }
            Err(error) => self.failed(error),
        }
        // One alert that is refused must not take its whole digest along.
        if bundle.members.len() > 1 && result.as_ref().is_err_and(|error| !error.is_transient()) {
            let mut arrived = false;
            for single in bundle.singles() {
                arrived |= Box::pin(self.attempt(&single)).await;
            }
            return arrived;
        }
        self.settle(bundle, &result).await;
        result.is_ok()
    }

    fn failed(&self, error: &DeliveryError) {
        let handler = self.handler.name();
        tracing::warn!(%handler, %error, "Notification could not be delivered");
        let now = self.shared.clock.now();
        let mut world = self.shared.write();
        let failures = &mut world.report.delivery_failures_total;
        *failures.entry(handler.to_owned()).or_default() += 1;
        // One that was taken away meanwhile says nothing any more.
        if let Some(reach) = world.reach.get_mut(handler) {
            reach.failed(error, now);
        }
    }

    /// Records what became of a bundle's rows of the outbox, all at once.
    async fn settle(&mut self, bundle: &Bundle, result: &Result<Receipt, DeliveryError>) {
        let mut settled = Vec::with_capacity(bundle.members.len());
        let mut events = Vec::with_capacity(bundle.members.len());
        for (origin, delivery) in &bundle.members {
            let (settlement, event) = self.outcome(&bundle.notification, delivery, result);
            let ticket = (*origin, delivery.id);
            match settlement {
                Settlement::Retry { .. } => {
                    self.turns.tried(ticket, &delivery.notification, Instant::now());
                }
                _ => self.turns.settled(ticket, &delivery.notification),
            }
            settled.push((*origin, delivery.id, settlement));
            events.push(event);
        }
        self.outbox.settle(settled).await;
        Failpoint::AfterSettle.pass();
        events.into_iter().for_each(|event| self.shared.tell(event));
    }

    /// What an attempt at `sent` means for one row of the outbox.
    fn outcome(
        &self,
        sent: &Notification,
        delivery: &Delivery,
        result: &Result<Receipt, DeliveryError>,
    ) -> (Settlement, MonitorEvent) {
        let notification = &delivery.notification;
        let (handler, key) = (self.handler.name().to_owned(), notification.key.clone());
        match result {
            Ok(receipt) => {
                let (at, receipt) = (self.shared.clock.now(), receipt.clone());
                let event = MonitorEvent::Delivered { handler, key };
                (Settlement::Delivered { at, receipt }, event)
            }
            Err(error) => {
                let due_time = self.shared.due_time();
                let out = Attempted { handler: &handler, key: &sent.key, attempt: sent.attempt };
                let settlement = retry::after_failure(notification.attempt, out, error, due_time);
                let dead = matches!(settlement, Settlement::Dead { .. });
                let error = error.to_string();
                (settlement, MonitorEvent::DeliveryFailed { handler, key, error, dead })
            }
        }
    }
}
