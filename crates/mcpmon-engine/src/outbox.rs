//! Alerts go out even when they cannot be written down.
//!
//! Transitions and their deliveries go to the incident log. While that fails, or does not answer,
//! they are kept in memory and delivered from there, and what was decided is written once the log
//! can be written again. Only a crash in that span may repeat or lose.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use mcpmon_core::Timestamp;
use mcpmon_core::alert::Receipt;
use mcpmon_core::store::{
    Delivery, IncidentLog, NewDelivery, Settlement, Store, StoreError, Transition,
};
use tokio::task::JoinHandle;

use crate::memory::MemoryStore;

/// Transitions that wait to be written, and messages taken over from the log, at most; the oldest
/// go first.
const MOST_OWED: usize = 10_000;
/// Messages that wait for another attempt and are looked up at start, at most.
const MOST_TRIED: usize = 1_000;
/// A store that takes longer to answer is one that cannot be used.
pub(crate) const ANSWER_WITHIN: Duration = Duration::from_secs(10);

/// Where a delivery is settled.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Origin {
    Log,
    Memory,
}

/// The outbox over the incident log, with memory behind it.
pub(crate) struct Outbox {
    log: Arc<dyn Store>,
    memory: MemoryStore,
    owed: Mutex<VecDeque<Transition>>,
    /// Settlements that could not be written: without them a message would go out again and again.
    unsettled: Mutex<HashMap<i64, Settlement>>,
    /// Handler and key of messages that memory delivers. A log that failed or did not answer may
    /// have written them all the same; its copies are not sent.
    taken_over: Mutex<VecDeque<(String, String)>>,
    /// Questions the log has not answered in time. Until it has, it is asked nothing more.
    overdue: Mutex<Vec<JoinHandle<()>>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The store does not answer.
pub(crate) fn unanswered() -> StoreError {
    StoreError::Other(format!("the store has not answered for {ANSWER_WITHIN:?}").into())
}

fn push_capped<T>(queue: &mut VecDeque<T>, item: T) {
    if queue.len() >= MOST_OWED {
        queue.pop_front();
    }
    queue.push_back(item);
}

impl Outbox {
    pub(crate) fn new(log: Arc<dyn Store>) -> Self {
        Self {
            log,
            memory: MemoryStore::new(),
            owed: Mutex::default(),
            unsettled: Mutex::default(),
            taken_over: Mutex::default(),
            overdue: Mutex::default(),
        }
    }

    /// Records a transition and queues its deliveries, in memory if need be. A log that is owed
    /// something gets this after it, so that what it says last is what was decided last.
    ///
    /// # Errors
    ///
    /// Why the log could not be written, unless it was known not to work; the deliveries are
    /// queued all the same.
    pub(crate) async fn commit(&self, mut transition: Transition) -> Result<(), StoreError> {
        let mut result = Ok(());
        if lock(&self.owed).is_empty() {
            let written = transition.clone();
            result = self.ask(async move |log| log.commit(&written).await).await;
            if result.is_ok() {
                return Ok(());
            }
        }
        let deliveries = std::mem::take(&mut transition.deliveries);
        self.take_over(&deliveries);
        let queued = Transition { deliveries, at: transition.at, ..Transition::default() };
        self.memory.commit(&queued).await?;
        push_capped(&mut lock(&self.owed), transition);
        result
    }

    fn take_over(&self, deliveries: &[NewDelivery]) {
        let mut taken_over = lock(&self.taken_over);
        for new in deliveries {
            push_capped(&mut taken_over, (new.handler.clone(), new.notification.key.clone()));
        }
    }

    /// Whether the log is owed anything.
    pub(crate) fn owes(&self) -> bool {
        !lock(&self.owed).is_empty() || !lock(&self.unsettled).is_empty()
    }

    /// Writes what the log is owed, oldest first. One task does it at a time.
    ///
    /// # Errors
    ///
    /// Why the log still cannot be written.
    pub(crate) async fn pay(&self) -> Result<(), StoreError> {
        loop {
            let Some(first) = lock(&self.owed).front().cloned() else {
                break;
            };
            let written = first.clone();
            self.ask(async move |log| log.commit(&written).await).await?;
            // It may have gone meanwhile, because there was too much.
            lock(&self.owed).pop_front_if(|owed| *owed == first);
        }
        let unsettled: Vec<(i64, Settlement)> =
            lock(&self.unsettled).iter().map(|(id, settled)| (*id, settled.clone())).collect();
        for (id, settlement) in unsettled {
            let written = settlement.clone();
            self.ask(async move |log| log.settle(id, &written).await).await?;
            let mut unsettled = lock(&self.unsettled);
            // What was settled anew meanwhile is owed still.
            if unsettled.get(&id) == Some(&settlement) {
                unsettled.remove(&id);
            }
        }
        Ok(())
    }

    /// Messages due for a handler, from the log and from memory, oldest first; at least `limit` if
    /// there are so many.
    pub(crate) async fn due(
        &self,
        handler: &str,
        now: Timestamp,
        limit: usize,
    ) -> Vec<(Origin, Delivery)> {
        let mut found = self.due_in_log(handler, now, limit).await;
        if let Ok(due) = self.memory.due(handler, now, limit).await {
            found.extend(due.into_iter().map(|delivery| (Origin::Memory, delivery)));
        }
        found.sort_by_key(|(_, delivery)| delivery.queued_at);
        found
    }

    /// Messages that were tried and wait to be tried again.
    pub(crate) async fn tried(&self, handler: &str) -> Vec<(Origin, Delivery)> {
        let mut found = self.due(handler, Timestamp::from_millis(i64::MAX), MOST_TRIED).await;
        found.retain(|(_, delivery)| delivery.notification.attempt > 1);
        found
    }

    async fn due_in_log(
        &self,
        handler: &str,
        now: Timestamp,
        limit: usize,
    ) -> Vec<(Origin, Delivery)> {
        // What is settled already, but not in the log, must not fill the batch.
        let limit = limit + lock(&self.unsettled).len();
        let name = handler.to_owned();
        let mut due = match self.ask(async move |log| log.due(&name, now, limit).await).await {
            Ok(due) => due,
            Err(error) => {
                tracing::debug!(%handler, %error, "Outbox could not be read");
                return Vec::new();
            }
        };
        due.retain(|delivery| match lock(&self.unsettled).get(&delivery.id) {
            None => true,
            Some(Settlement::Retry { due_at, .. }) => *due_at <= now,
            Some(_) => false,
        });
        let (due, copies): (Vec<_>, Vec<_>) = due.into_iter().partition(|delivery| {
            let taken_over = lock(&self.taken_over);
            let key = &delivery.notification.key;
            !taken_over.iter().any(|(handler, taken)| *handler == delivery.handler && taken == key)
        });
        for copy in copies {
            let settlement = Settlement::Delivered { at: now, receipt: Receipt::accepted() };
            self.settle(Origin::Log, copy.id, settlement).await;
        }
        due.into_iter().map(|delivery| (Origin::Log, delivery)).collect()
    }

    /// Records what became of an attempt, and remembers it where it cannot be written.
    pub(crate) async fn settle(&self, origin: Origin, id: i64, settlement: Settlement) {
        if origin == Origin::Memory {
            // Memory does not fail.
            let _ = self.memory.settle(id, &settlement).await;
            return;
        }
        let written = settlement.clone();
        let result = self.ask(async move |log| log.settle(id, &written).await).await;
        let mut unsettled = lock(&self.unsettled);
        match result {
            Ok(()) => drop(unsettled.remove(&id)),
            Err(error) => {
                tracing::warn!(%error, "Delivery could not be recorded; kept in memory");
                unsettled.insert(id, settlement);
            }
        }
    }

    /// Asks the log, and waits for its answer only so long. The question is a task of its own: a
    /// store that hangs must not be asked more and more, and what it was asked may still be done.
    async fn ask<T, F>(&self, question: impl FnOnce(Arc<dyn Store>) -> F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: Future<Output = Result<T, StoreError>> + Send + 'static,
    {
        if self.is_overdue() {
            return Err(unanswered());
        }
        let (answer, answered) = tokio::sync::oneshot::channel();
        let asking = question(Arc::clone(&self.log));
        let task = tokio::spawn(async move {
            let _ = answer.send(asking.await);
        });
        match tokio::time::timeout(ANSWER_WITHIN, answered).await {
            Ok(Ok(result)) => result,
            // The store panicked.
            Ok(Err(_)) => Err(StoreError::Closed),
            Err(_) => {
                lock(&self.overdue).push(task);
                Err(unanswered())
            }
        }
    }

    fn is_overdue(&self) -> bool {
        let mut overdue = lock(&self.overdue);
        overdue.retain(|task| !task.is_finished());
        !overdue.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use mcpmon_core::alert::NotificationKind;
    use mcpmon_core::store::{AlertQuery, AlertRecord};
    use mcpmon_testkit::{FailingStore, Operations, StoreFault, samples};

    fn transition(service: &str) -> Transition {
        let mut notification = samples::notification(service, NotificationKind::Firing);
        notification.alerts = vec![samples::alert("service_down", service)];
        Transition {
            alerts: notification.alerts.clone(),
            deliveries: vec![NewDelivery { handler: "ops".to_owned(), notification }],
            at: mcpmon_testkit::START,
            ..Transition::default()
        }
    }

    async fn alerts(store: &FailingStore<MemoryStore>) -> Vec<AlertRecord> {
        let query = AlertQuery { limit: 9, ..AlertQuery::default() };
        store.inner().alerts(&query).await.unwrap()
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_owed_is_written_in_order_once_the_log_works() {
        let store = Arc::new(FailingStore::new(Arc::new(MemoryStore::new())));
        let outbox = Outbox::new(Arc::clone(&store) as Arc<dyn Store>);
        store.fail_times(Operations::IncidentWrites, StoreFault::Full, 1);
        for service in ["a", "b", "c"] {
            let mut transition = transition(service);
            transition.alerts[0].id = "one".to_owned();
            let _ = outbox.commit(transition).await;
        }
        // The log works again, but what came later must not be written before what came first.
        assert_eq!(alerts(&store).await.len(), 0);
        outbox.pay().await.unwrap();
        assert!(!outbox.owes());
        let last = alerts(&store).await.remove(0).alert;
        assert_eq!(last.service_name, Some("c".into()));
    }

    #[tokio::test(start_paused = true)]
    async fn what_the_log_wrote_after_all_is_not_sent_twice() {
        let store = Arc::new(FailingStore::new(Arc::new(MemoryStore::new())));
        let outbox = Outbox::new(Arc::clone(&store) as Arc<dyn Store>);
        store.fail(Operations::All, StoreFault::Stall);
        assert!(outbox.commit(transition("a")).await.is_err());
        let now = mcpmon_testkit::START;
        let due = outbox.due("ops", now, 9).await;
        assert_eq!(due.iter().map(|(origin, _)| *origin).collect::<Vec<_>>(), [Origin::Memory]);
        store.recover();
        store.wait_for_committed(1).await;
        assert_eq!(store.inner().due("ops", now, 9).await.unwrap().len(), 1);
        let due = outbox.due("ops", now, 9).await;
        assert_eq!(due.iter().map(|(origin, _)| *origin).collect::<Vec<_>>(), [Origin::Memory]);
        assert!(store.inner().due("ops", now, 9).await.unwrap().is_empty());
        outbox.pay().await.unwrap();
        assert_eq!(alerts(&store).await.len(), 1);
    }
}
