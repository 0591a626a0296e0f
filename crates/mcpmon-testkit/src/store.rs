//! A store whose disk fails on cue.

use std::path::PathBuf;
use std::sync::Arc;

use async_trait::async_trait;
use mcpmon_core::alert::{AlertState, Silence};
use mcpmon_core::monitor::MonitorCommand;
use mcpmon_core::service::ServiceName;
use mcpmon_core::state::StatusChange;
use mcpmon_core::store::{
    AlertQuery, AlertRecord, AuditEntry, AuditQuery, Batch, CheckRecord, CommandQueue, Delivery,
    History, HistoryQuery, HostRecord, IncidentLog, ListChange, ListRecord, NewDelivery, Page,
    PrunePlan, Pruned, RecordQuery, Room, SampleStore, Settlement, Store, StoreError,
    StoredService, Summary, Transition,
};
use mcpmon_core::time::Timestamp;
use tokio::sync::watch;

use crate::wait::within;

/// How a [`FailingStore`] fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StoreFault {
    /// [`StoreError::Full`]: no space left.
    Full,
    /// [`StoreError::Busy`]: another program holds the file.
    Busy,
    /// [`StoreError::Io`].
    Io,
    /// [`StoreError::Closed`].
    Closed,
    /// Does not answer until [`FailingStore::recover`] is called, as a dead network disk.
    Stall,
}

impl StoreFault {
    fn error(self) -> StoreError {
        let path = PathBuf::from("/fake/mcpmon.db");
        match self {
            Self::Full => StoreError::Full { path },
            Self::Busy => StoreError::Busy { path },
            Self::Io | Self::Stall => {
                StoreError::Io { path, message: "input/output error".to_owned() }
            }
            Self::Closed => StoreError::Closed,
        }
    }
}

/// Which operations fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Operations {
    /// `append` and `prune` of samples.
    SampleWrites,
    /// Everything that writes alerts, deliveries, silences and audit.
    IncidentWrites,
    /// Everything that writes.
    Writes,
    /// Everything that reads.
    Reads,
    /// All of them.
    All,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    SampleWrite,
    IncidentWrite,
    CommandWrite,
    Read,
}

impl Operations {
    fn contain(self, kind: Kind) -> bool {
        match self {
            Self::SampleWrites => kind == Kind::SampleWrite,
            Self::IncidentWrites => kind == Kind::IncidentWrite,
            Self::Writes => kind != Kind::Read,
            Self::Reads => kind == Kind::Read,
            Self::All => true,
        }
    }
}

#[derive(Debug, Default)]
struct Condition {
    fault: Option<(Operations, StoreFault)>,
    /// Failures left; `None` is without end.
    left: Option<usize>,
    refused: usize,
    appended: usize,
    committed: usize,
    /// Every delivery that a committed transition queued, and when.
    queued: Vec<(Timestamp, NewDelivery)>,
}

/// Passes everything on to a real store, except while it is told to fail; what it refuses never
/// reaches that store. Clones share both.
#[derive(Debug)]
pub struct FailingStore<S: ?Sized> {
    inner: Arc<S>,
    condition: Arc<watch::Sender<Condition>>,
}

impl<S: ?Sized> Clone for FailingStore<S> {
    fn clone(&self) -> Self {
        Self { inner: Arc::clone(&self.inner), condition: Arc::clone(&self.condition) }
    }
}

impl<S: Store + ?Sized> FailingStore<S> {
    /// A store that works, until told otherwise.
    pub fn new(inner: Arc<S>) -> Self {
        Self { inner, condition: Arc::default() }
    }

    /// Fails these operations from now on.
    pub fn fail(&self, operations: Operations, fault: StoreFault) {
        self.set(Some((operations, fault)), None);
    }

    /// Fails the next `times` of these operations, and works again after them.
    pub fn fail_times(&self, operations: Operations, fault: StoreFault, times: usize) {
        self.set(Some((operations, fault)), Some(times));
    }

    /// Works again.
    pub fn recover(&self) {
        self.set(None, None);
    }

    /// Every delivery that committed transitions queued so far, with the moment of its transition:
    /// what was decided, before anything was grouped or sent.
    pub fn queued(&self) -> Vec<(Timestamp, NewDelivery)> {
        self.condition.borrow().queued.clone()
    }

    /// How many operations failed so far.
    pub fn refused(&self) -> usize {
        self.condition.borrow().refused
    }

    /// The store behind it, which has what was not refused.
    pub fn inner(&self) -> &Arc<S> {
        &self.inner
    }

    /// Waits until `count` operations have failed.
    ///
    /// # Panics
    ///
    /// When they do not in time (see [`within`]).
    pub async fn wait_for_refused(&self, count: usize) {
        self.wait(&format!("{count} refused operations"), |c| c.refused >= count).await;
    }

    /// Waits until `count` batches were appended.
    ///
    /// # Panics
    ///
    /// When they are not in time (see [`within`]).
    pub async fn wait_for_appended(&self, count: usize) {
        self.wait(&format!("{count} appended batches"), |c| c.appended >= count).await;
    }

    /// Waits until `count` transitions were committed.
    ///
    /// # Panics
    ///
    /// When they are not in time (see [`within`]).
    pub async fn wait_for_committed(&self, count: usize) {
        self.wait(&format!("{count} committed transitions"), |c| c.committed >= count).await;
    }

    async fn wait(&self, what: &str, done: impl FnMut(&Condition) -> bool) {
        let mut changes = self.condition.subscribe();
        // The sender is ours, so the wait can only end by the condition or by the cap.
        let _ = within(what, changes.wait_for(done)).await;
    }

    fn set(&self, fault: Option<(Operations, StoreFault)>, left: Option<usize>) {
        self.condition.send_modify(|condition| {
            condition.fault = fault;
            condition.left = left;
        });
    }

    async fn pass(&self, kind: Kind) -> Result<&S, StoreError> {
        let Some(fault) = self.fault_for(kind) else {
            return Ok(&self.inner);
        };
        if fault == StoreFault::Stall {
            let mut changes = self.condition.subscribe();
            let _ = changes.wait_for(|condition| condition.fault.is_none()).await;
            return Ok(&self.inner);
        }
        Err(fault.error())
    }

    fn fault_for(&self, kind: Kind) -> Option<StoreFault> {
        let mut found = None;
        self.condition.send_if_modified(|condition| {
            found = condition.meet(kind);
            found.is_some()
        });
        found
    }
}

impl Condition {
    /// Whether an operation of this kind fails now; one that does is counted.
    fn meet(&mut self, kind: Kind) -> Option<StoreFault> {
        let (operations, fault) = self.fault?;
        if !operations.contain(kind) || self.left == Some(0) {
            return None;
        }
        self.left = self.left.map(|left| left - 1);
        self.refused += 1;
        Some(fault)
    }
}

#[async_trait]
impl<S: Store + ?Sized> SampleStore for FailingStore<S> {
    async fn append(&self, batch: &Batch) -> Result<(), StoreError> {
        self.pass(Kind::SampleWrite).await?.append(batch).await?;
        self.condition.send_modify(|condition| condition.appended += 1);
        Ok(())
    }

    async fn services(&self) -> Result<Vec<StoredService>, StoreError> {
        self.pass(Kind::Read).await?.services().await
    }

    async fn checks(&self, query: &RecordQuery) -> Result<Page<CheckRecord>, StoreError> {
        self.pass(Kind::Read).await?.checks(query).await
    }

    async fn changes(&self, query: &RecordQuery) -> Result<Page<StatusChange>, StoreError> {
        self.pass(Kind::Read).await?.changes(query).await
    }

    async fn host(&self, query: &RecordQuery) -> Result<Page<HostRecord>, StoreError> {
        self.pass(Kind::Read).await?.host(query).await
    }

    async fn last_host(&self) -> Result<Option<HostRecord>, StoreError> {
        self.pass(Kind::Read).await?.last_host().await
    }

    async fn list_changes(&self, query: &RecordQuery) -> Result<Page<ListChange>, StoreError> {
        self.pass(Kind::Read).await?.list_changes(query).await
    }

    async fn lists(&self, service: &ServiceName) -> Result<Option<ListRecord>, StoreError> {
        self.pass(Kind::Read).await?.lists(service).await
    }

    async fn history(&self, query: &HistoryQuery) -> Result<History, StoreError> {
        self.pass(Kind::Read).await?.history(query).await
    }

    async fn summaries(
        &self,
        since: Timestamp,
        until: Timestamp,
    ) -> Result<Vec<(ServiceName, Summary)>, StoreError> {
        self.pass(Kind::Read).await?.summaries(since, until).await
    }

    async fn last_checks(
        &self,
        service: &ServiceName,
        count: usize,
    ) -> Result<Vec<CheckRecord>, StoreError> {
        self.pass(Kind::Read).await?.last_checks(service, count).await
    }

    async fn prune(&self, plan: &PrunePlan) -> Result<Pruned, StoreError> {
        self.pass(Kind::SampleWrite).await?.prune(plan).await
    }

    async fn room(&self) -> Result<Option<Room>, StoreError> {
        self.pass(Kind::Read).await?.room().await
    }
}

#[async_trait]
impl<S: Store + ?Sized> IncidentLog for FailingStore<S> {
    async fn states(&self) -> Result<Vec<AlertState>, StoreError> {
        self.pass(Kind::Read).await?.states().await
    }

    async fn commit(&self, transition: &Transition) -> Result<(), StoreError> {
        self.pass(Kind::IncidentWrite).await?.commit(transition).await?;
        self.condition.send_modify(|condition| {
            condition.committed += 1;
            let deliveries = transition.deliveries.iter().cloned();
            condition.queued.extend(deliveries.map(|delivery| (transition.at, delivery)));
        });
        Ok(())
    }

    async fn due(
        &self,
        handler: &str,
        now: Timestamp,
        limit: usize,
    ) -> Result<Vec<Delivery>, StoreError> {
        self.pass(Kind::Read).await?.due(handler, now, limit).await
    }

    async fn settle(&self, delivery: i64, settlement: &Settlement) -> Result<(), StoreError> {
        self.pass(Kind::IncidentWrite).await?.settle(delivery, settlement).await
    }

    async fn settle_many(&self, settlements: &[(i64, Settlement)]) -> Result<(), StoreError> {
        self.pass(Kind::IncidentWrite).await?.settle_many(settlements).await
    }

    async fn give_up_for_others(
        &self,
        handlers: &[String],
        at: Timestamp,
        why: &str,
    ) -> Result<u64, StoreError> {
        self.pass(Kind::IncidentWrite).await?.give_up_for_others(handlers, at, why).await
    }

    async fn alerts(&self, query: &AlertQuery) -> Result<Vec<AlertRecord>, StoreError> {
        self.pass(Kind::Read).await?.alerts(query).await
    }

    async fn dead_letters(&self, limit: usize) -> Result<Vec<Delivery>, StoreError> {
        self.pass(Kind::Read).await?.dead_letters(limit).await
    }

    async fn revive(&self, handler: &str, now: Timestamp) -> Result<u64, StoreError> {
        self.pass(Kind::IncidentWrite).await?.revive(handler, now).await
    }

    async fn discard(&self, handler: &str) -> Result<u64, StoreError> {
        self.pass(Kind::IncidentWrite).await?.discard(handler).await
    }

    async fn silences(&self, now: Timestamp) -> Result<Vec<Silence>, StoreError> {
        self.pass(Kind::Read).await?.silences(now).await
    }

    async fn put_silence(&self, silence: &Silence) -> Result<(), StoreError> {
        self.pass(Kind::IncidentWrite).await?.put_silence(silence).await
    }

    async fn record(&self, entry: &AuditEntry) -> Result<(), StoreError> {
        self.pass(Kind::IncidentWrite).await?.record(entry).await
    }

    async fn audit(&self, query: &AuditQuery) -> Result<Vec<AuditEntry>, StoreError> {
        self.pass(Kind::Read).await?.audit(query).await
    }
}

#[async_trait]
impl<S: Store + ?Sized> CommandQueue for FailingStore<S> {
    async fn submit(&self, command: &MonitorCommand) -> Result<(), StoreError> {
        self.pass(Kind::CommandWrite).await?.submit(command).await
    }

    async fn pending(&self) -> Result<Vec<MonitorCommand>, StoreError> {
        self.pass(Kind::Read).await?.pending().await
    }

    async fn take(&self) -> Result<Vec<MonitorCommand>, StoreError> {
        self.pass(Kind::Read).await?.take().await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_operations_named_fail_and_only_so_often() {
        let mut condition = Condition {
            fault: Some((Operations::SampleWrites, StoreFault::Full)),
            left: Some(2),
            ..Condition::default()
        };
        let kinds = [
            Kind::Read,
            Kind::SampleWrite,
            Kind::IncidentWrite,
            Kind::CommandWrite,
            Kind::SampleWrite,
            Kind::SampleWrite,
        ];
        let met = kinds.map(|kind| condition.meet(kind).is_some());
        assert_eq!(met, [false, true, false, false, true, false]);
        assert_eq!(condition.refused, 2);
    }

    #[test]
    fn writes_are_everything_but_reads() {
        let mut condition = Condition {
            fault: Some((Operations::Writes, StoreFault::Busy)),
            ..Condition::default()
        };
        for kind in [Kind::SampleWrite, Kind::IncidentWrite, Kind::CommandWrite] {
            assert_eq!(condition.meet(kind), Some(StoreFault::Busy));
        }
        assert_eq!(condition.meet(Kind::Read), None);
    }
}
