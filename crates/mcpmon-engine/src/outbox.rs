//! Alerts go out even when they cannot be written down.
//!
//! Transitions and their deliveries go to the incident log. While that fails, or does not answer,
//! they are kept in memory and delivered from there, and what was decided is written once the log
//! can be written again. Only a crash in that span may repeat or lose.

use std::collections::{BTreeSet, HashMap, HashSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use mcpmon_core::Timestamp;
use mcpmon_core::alert::Receipt;
use mcpmon_core::store::{
    Delivery, IncidentLog, NewDelivery, Settlement, Store, StoreError, Transition,
};
use tokio::task::JoinHandle;

use crate::memory::{Fate, MemoryStore};

/// Transitions that wait to be written, and messages taken over from the log, at most; the oldest
/// go first.
const MOST_OWED: usize = 10_000;
/// Messages that wait for another attempt and are looked up at start, at most.
const MOST_TRIED: usize = 1_000;
/// A store that takes longer to answer is one that cannot be used.
pub(crate) const ANSWER_WITHIN: Duration = Duration::from_secs(10);

/// Why messages are given up that nobody refused.
const NOBODY_LEFT: &str = "there is no handler of this name any more";

/// What is done to the outbox, in order.
#[derive(Debug)]
pub(crate) enum Entry {
    /// Alerts changed, and this is to be said of it.
    Transition(Box<Transition>),
    /// These are the handlers there are: what waits for others is given up.
    Handlers(Vec<String>, Timestamp),
}

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
    /// Messages that memory delivers.
    taken_over: Mutex<TakenOver>,
    /// The handlers there are, and since when, where what waits for others could not be given up.
    giving_up: Mutex<Option<(Vec<String>, Timestamp)>>,
    /// Questions the log has not answered in time. Until it has, it is asked nothing more.
    overdue: Mutex<Vec<JoinHandle<()>>>,
}

/// Handler and key of a message.
type Name = (String, String);

fn name_of(handler: &str, key: &str) -> Name {
    (handler.to_owned(), key.to_owned())
}

/// Messages that memory delivers, and whether the log was given them since. It may have written
/// them before it failed, too. Its copies are not sent; they are settled once memory's own are.
#[derive(Debug, Default)]
struct TakenOver {
    names: HashMap<Name, bool>,
    /// Oldest first, so that of too many the oldest go.
    order: VecDeque<Name>,
}

impl TakenOver {
    fn insert(&mut self, name: Name) {
        if self.order.len() >= MOST_OWED
            && let Some(oldest) = self.order.pop_front()
        {
            self.names.remove(&oldest);
        }
        if self.names.insert(name.clone(), false).is_none() {
            self.order.push_back(name);
        }
    }

    fn remove(&mut self, over: &HashSet<Name>) {
        if !over.is_empty() {
            self.names.retain(|name, _| !over.contains(name));
            self.order.retain(|name| !over.contains(name));
        }
    }

    fn owes(&self) -> bool {
        self.names.values().any(|is_written| !is_written)
    }
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
            giving_up: Mutex::default(),
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
        self.take_over(&Transition { deliveries, at: transition.at, ..Transition::default() });
        push_capped(&mut lock(&self.owed), transition);
        result
    }

    fn take_over(&self, queued: &Transition) {
        // Both under one lock: what is taken over and not in memory is taken to be delivered.
        let mut taken_over = lock(&self.taken_over);
        for new in &queued.deliveries {
            taken_over.insert(name_of(&new.handler, &new.notification.key));
        }
        self.memory.keep(queued);
    }

    /// Whether the log is owed anything.
    pub(crate) fn owes(&self) -> bool {
        !lock(&self.owed).is_empty()
            || !lock(&self.unsettled).is_empty()
            || lock(&self.taken_over).owes()
            || lock(&self.giving_up).is_some()
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
        self.hand_over().await?;
        let unsettled: Vec<(i64, Settlement)> =
            lock(&self.unsettled).iter().map(|(id, settled)| (*id, settled.clone())).collect();
        if !unsettled.is_empty() {
            let written = unsettled.clone();
            self.ask(async move |log| log.settle_many(&written).await).await?;
        }
        for (id, settlement) in unsettled {
            let mut unsettled = lock(&self.unsettled);
            // What was settled anew meanwhile is owed still.
            if unsettled.get(&id) == Some(&settlement) {
                unsettled.remove(&id);
            }
        }
        let giving_up = lock(&self.giving_up).clone();
        if let Some((handlers, at)) = giving_up {
            self.give_up_for_others(handlers, at).await;
        }
        Ok(())
    }

    /// Gives the log what memory still has to deliver, so that it outlives this process, and settles
    /// the log's copies of what memory has delivered. Memory goes on delivering what it has: an
    /// attempt may be under way.
    async fn hand_over(&self) -> Result<(), StoreError> {
        let (waiting, over) = {
            let taken_over = lock(&self.taken_over);
            let mut waiting = self.memory.waiting();
            let mut over: HashSet<Name> = taken_over.names.keys().cloned().collect();
            waiting.retain(|delivery| {
                let name = name_of(&delivery.handler, &delivery.notification.key);
                over.remove(&name);
                taken_over.names.get(&name) == Some(&false)
            });
            (waiting, over)
        };
        // What was queued together goes together, under its own time.
        for together in waiting.chunk_by(|one, other| one.queued_at == other.queued_at) {
            let deliveries = together.iter().map(|delivery| NewDelivery {
                handler: delivery.handler.clone(),
                notification: delivery.notification.clone(),
            });
            let deliveries: Vec<NewDelivery> = deliveries.collect();
            let at = together.first().map_or_else(Timestamp::default, |first| first.queued_at);
            let written = Transition { deliveries, at, ..Transition::default() };
            self.ask(async move |log| log.commit(&written).await).await?;
            let mut taken_over = lock(&self.taken_over);
            for delivery in together {
                let name = name_of(&delivery.handler, &delivery.notification.key);
                taken_over.names.entry(name).and_modify(|is_written| *is_written = true);
            }
        }
        // What memory had delivered before the log was asked: no copy of it comes later.
        let handlers: BTreeSet<String> = over.iter().map(|(handler, _)| handler.clone()).collect();
        for handler in handlers {
            let name = handler.clone();
            let everything = Timestamp::from_millis(i64::MAX);
            let queued =
                self.ask(async move |log| log.due(&name, everything, 2 * MOST_OWED).await).await?;
            self.without_copies(queued, None).await;
            let over = over.iter().filter(|(of, _)| *of == handler).cloned().collect();
            lock(&self.taken_over).remove(&over);
        }
        Ok(())
    }

    /// Of the log's messages those that memory does not deliver. Copies of what memory has settled
    /// are settled likewise.
    async fn without_copies(&self, due: Vec<Delivery>, now: Option<Timestamp>) -> Vec<Delivery> {
        let mut over = HashSet::new();
        let mut settled = Vec::new();
        let due: Vec<Delivery> = {
            let taken_over = lock(&self.taken_over);
            let is_ours = |delivery: &Delivery| {
                let name = name_of(&delivery.handler, &delivery.notification.key);
                if !taken_over.names.contains_key(&name) {
                    return true;
                }
                let at = now.unwrap_or(delivery.queued_at);
                let settlement = match self.memory.fate(&name) {
                    Fate::Waits => return false,
                    Fate::Delivered => Settlement::Delivered { at, receipt: Receipt::accepted() },
                    Fate::Dead(error) => Settlement::Dead { at, error },
                };
                settled.push((Origin::Log, delivery.id, settlement));
                over.insert(name);
                false
            };
            match taken_over.names.is_empty() {
                true => due,
                false => due.into_iter().filter(is_ours).collect(),
            }
        };
        if !settled.is_empty() {
            self.settle(settled).await;
            self.memory.forget_dead(&over);
            lock(&self.taken_over).remove(&over);
        }
        due
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
        // What is settled already, but not in the log, must not fill the batch, nor what memory
        // delivers.
        let limit = limit + lock(&self.unsettled).len() + lock(&self.taken_over).names.len();
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
        let due = self.without_copies(due, Some(now)).await;
        due.into_iter().map(|delivery| (Origin::Log, delivery)).collect()
    }

    /// Records what became of messages that went out together, and remembers it where it cannot be
    /// written.
    pub(crate) async fn settle(&self, settled: Vec<(Origin, i64, Settlement)>) {
        let (of_memory, of_log): (Vec<_>, Vec<_>) =
            settled.into_iter().partition(|(origin, ..)| *origin == Origin::Memory);
        let rows = |settled: Vec<(Origin, i64, Settlement)>| -> Vec<(i64, Settlement)> {
            settled.into_iter().map(|(_, id, settlement)| (id, settlement)).collect()
        };
        let (of_memory, of_log) = (rows(of_memory), rows(of_log));
        // Memory does not fail.
        let _ = self.memory.settle_many(&of_memory).await;
        if of_log.is_empty() {
            return;
        }
        let written = of_log.clone();
        let result = self.ask(async move |log| log.settle_many(&written).await).await;
        if let Err(error) = &result {
            tracing::warn!(%error, "Deliveries could not be recorded; kept in memory");
        }
        let mut unsettled = lock(&self.unsettled);
        for (id, settlement) in of_log {
            match &result {
                Ok(()) => drop(unsettled.remove(&id)),
                Err(_) => drop(unsettled.insert(id, settlement)),
            }
        }
    }

    /// Gives up what waits for handlers not among these: nobody is left to deliver it.
    pub(crate) async fn give_up_for_others(&self, handlers: Vec<String>, at: Timestamp) {
        // Memory does not fail.
        let in_memory = self.memory.give_up_for_others(&handlers, at, NOBODY_LEFT).await;
        let left = handlers.clone();
        let in_log =
            self.ask(async move |log| log.give_up_for_others(&left, at, NOBODY_LEFT).await).await;
        match in_log {
            Ok(in_log) => {
                *lock(&self.giving_up) = None;
                let all = in_log + in_memory.unwrap_or_default();
                let count = all.saturating_sub(self.bury_copies(&handlers));
                if count > 0 {
                    tracing::warn!(count, "Messages for handlers that are gone were given up");
                }
            }
            Err(error) => {
                tracing::debug!(%error, "Messages for handlers that are gone still wait");
                *lock(&self.giving_up) = Some((handlers, at));
            }
        }
    }

    /// Forgets what memory gave up for others than these, as the log has; says how many messages
    /// that were.
    fn bury_copies(&self, handlers: &[String]) -> u64 {
        let mut taken_over = lock(&self.taken_over);
        let written = taken_over.names.iter().filter(|(_, is_written)| **is_written);
        let written = written.filter(|((handler, _), _)| !handlers.contains(handler));
        let dead = written.filter(|(name, _)| matches!(self.memory.fate(name), Fate::Dead(_)));
        let dead: HashSet<Name> = dead.map(|(name, _)| name.clone()).collect();
        self.memory.forget_dead(&dead);
        taken_over.remove(&dead);
        dead.len() as u64
    }

    /// There is such a handler again: what waits for it is not given up.
    pub(crate) fn is_there(&self, handler: &str) {
        if let Some((handlers, _)) = &mut *lock(&self.giving_up) {
            handlers.push(handler.to_owned());
        }
    }

    /// Queues what was given up for a handler once more; says how many messages that are.
    ///
    /// # Errors
    ///
    /// Why the log could not be written.
    pub(crate) async fn revive(&self, handler: &str, now: Timestamp) -> Result<u64, StoreError> {
        let name = handler.to_owned();
        let in_log = self.ask(async move |log| log.revive(&name, now).await).await?;
        Ok(in_log + self.memory.revive(handler, now).await?)
    }

    /// Forgets what was given up for a handler; says how many messages that were.
    ///
    /// # Errors
    ///
    /// Why the log could not be written.
    pub(crate) async fn discard(&self, handler: &str) -> Result<u64, StoreError> {
        let name = handler.to_owned();
        let in_log = self.ask(async move |log| log.discard(&name).await).await?;
        Ok(in_log + self.memory.discard(handler).await?)
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
        assert_eq!(last.service_name(), Some(&"c".into()));
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
        // Not before it was delivered: until then the log's copy is all that outlives us.
        assert_eq!(store.inner().due("ops", now, 9).await.unwrap().len(), 1);
        outbox.settle(vec![(Origin::Memory, due[0].1.id, delivered())]).await;
        assert!(outbox.due("ops", now, 9).await.is_empty());
        assert!(store.inner().due("ops", now, 9).await.unwrap().is_empty());
        outbox.pay().await.unwrap();
        assert_eq!(alerts(&store).await.len(), 1);
        assert!(lock(&outbox.taken_over).names.is_empty());
    }

    fn delivered() -> Settlement {
        Settlement::Delivered { at: mcpmon_testkit::START, receipt: Receipt::accepted() }
    }

    #[tokio::test(start_paused = true)]
    async fn what_memory_still_has_to_deliver_is_written_once_the_log_works() {
        let store = Arc::new(FailingStore::new(Arc::new(MemoryStore::new())));
        let outbox = Outbox::new(Arc::clone(&store) as Arc<dyn Store>);
        store.fail_times(Operations::IncidentWrites, StoreFault::Full, 1);
        let _ = outbox.commit(transition("a")).await;
        let now = mcpmon_testkit::START;
        let due_at = now.saturating_add(Duration::from_secs(600));
        let (_, taken) = outbox.due("ops", now, 9).await.remove(0);
        let put_off = Settlement::Retry { due_at, error: "refused".to_owned() };
        outbox.settle(vec![(Origin::Memory, taken.id, put_off)]).await;
        assert!(outbox.owes());
        outbox.pay().await.unwrap();
        assert!(!outbox.owes());
        let kept = store.inner().due("ops", now, 9).await.unwrap();
        assert_eq!(kept[0].notification.key, taken.notification.key, "the next start has it");
        // Nobody sends the log's copy meanwhile, and it ends with memory's.
        assert!(outbox.due("ops", now, 9).await.is_empty());
        assert_eq!(outbox.due("ops", due_at, 9).await.len(), 1);
        outbox.settle(vec![(Origin::Memory, taken.id, delivered())]).await;
        outbox.pay().await.unwrap();
        assert!(store.inner().due("ops", due_at, 9).await.unwrap().is_empty());
        assert!(lock(&outbox.taken_over).names.is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn what_both_gave_up_is_one_dead_letter() {
        let store = Arc::new(FailingStore::new(Arc::new(MemoryStore::new())));
        let outbox = Outbox::new(Arc::clone(&store) as Arc<dyn Store>);
        store.fail_times(Operations::IncidentWrites, StoreFault::Full, 1);
        let _ = outbox.commit(transition("a")).await;
        outbox.pay().await.unwrap();
        outbox.give_up_for_others(Vec::new(), mcpmon_testkit::START).await;
        assert_eq!(outbox.revive("ops", mcpmon_testkit::START).await.unwrap(), 1);
    }
}
