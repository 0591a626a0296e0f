//! Alerts go out even when they cannot be written down.
//!
//! Transitions and their deliveries go to the incident log. While that fails, they are kept in
//! memory and delivered from there, and what was decided is written once the log can be written
//! again. Only a crash in that span may repeat or lose.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use mcpmon_core::Timestamp;
use mcpmon_core::store::{Delivery, IncidentLog, Settlement, Store, StoreError, Transition};

use crate::memory::MemoryStore;

/// Transitions that wait to be written, at most; the oldest go first.
const MOST_OWED: usize = 10_000;

/// Where a delivery is settled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
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
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Outbox {
    pub(crate) fn new(log: Arc<dyn Store>) -> Self {
        Self {
            log,
            memory: MemoryStore::new(),
            owed: Mutex::default(),
            unsettled: Mutex::default(),
        }
    }

    /// Records a transition and queues its deliveries, in memory if need be.
    ///
    /// # Errors
    ///
    /// Why the log could not be written; the deliveries are queued all the same.
    pub(crate) async fn commit(&self, mut transition: Transition) -> Result<(), StoreError> {
        let written = match self.pay().await {
            Ok(()) => self.log.commit(&transition).await,
            Err(error) => Err(error),
        };
        if let Err(error) = written {
            self.memory.commit(&transition).await?;
            transition.deliveries.clear();
            let mut owed = lock(&self.owed);
            if owed.len() >= MOST_OWED {
                owed.pop_front();
            }
            owed.push_back(transition);
            return Err(error);
        }
        Ok(())
    }

    /// Writes what the log is owed, oldest first. Cheap when it is owed nothing.
    pub(crate) async fn pay(&self) -> Result<(), StoreError> {
        loop {
            let Some(first) = lock(&self.owed).front().cloned() else {
                break;
            };
            self.log.commit(&first).await?;
            lock(&self.owed).pop_front();
        }
        let unsettled: Vec<(i64, Settlement)> =
            lock(&self.unsettled).iter().map(|(id, settled)| (*id, settled.clone())).collect();
        for (id, settlement) in unsettled {
            self.log.settle(id, &settlement).await?;
            lock(&self.unsettled).remove(&id);
        }
        Ok(())
    }

    /// Messages due for a handler, from the log and from memory.
    pub(crate) async fn due(
        &self,
        handler: &str,
        now: Timestamp,
        limit: usize,
    ) -> Vec<(Origin, Delivery)> {
        let mut found = Vec::new();
        match self.log.due(handler, now, limit).await {
            Ok(due) => {
                let unsettled = lock(&self.unsettled);
                found.extend(due.into_iter().filter_map(|delivery| {
                    let waits = match unsettled.get(&delivery.id) {
                        None => false,
                        Some(Settlement::Retry { due_at, .. }) => *due_at > now,
                        Some(_) => true,
                    };
                    (!waits).then_some((Origin::Log, delivery))
                }));
            }
            Err(error) => tracing::debug!(%handler, %error, "Outbox could not be read"),
        }
        if let Ok(due) = self.memory.due(handler, now, limit).await {
            found.extend(due.into_iter().map(|delivery| (Origin::Memory, delivery)));
        }
        found
    }

    /// Records what became of an attempt, and remembers it where it cannot be written.
    pub(crate) async fn settle(&self, origin: Origin, id: i64, settlement: Settlement) {
        let result = match origin {
            Origin::Memory => self.memory.settle(id, &settlement).await,
            Origin::Log => self.log.settle(id, &settlement).await,
        };
        let mut unsettled = lock(&self.unsettled);
        match result {
            Ok(()) if origin == Origin::Log => {
                unsettled.remove(&id);
            }
            Ok(()) => {}
            Err(error) => {
                tracing::warn!(%error, "Delivery could not be recorded; kept in memory");
                unsettled.insert(id, settlement);
            }
        }
    }
}
