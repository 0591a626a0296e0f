//! A store that forgets: everything of the last 24 hours, in memory.
//!
//! It stands in where a library user gives no store, and takes over the outbox while the real one
//! cannot be written.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use mcpmon_core::alert::{Alert, AlertKey, AlertPhase, AlertState, Silence};
use mcpmon_core::monitor::MonitorCommand;
use mcpmon_core::service::ServiceName;
use mcpmon_core::state::StatusChange;
use mcpmon_core::store::{
    AlertQuery, AlertRecord, AuditEntry, Batch, CheckRecord, CommandQueue, Cursor, Delivery,
    HostRecord, IncidentLog, ListRecord, Page, PrunePlan, Pruned, RecordQuery, SampleStore,
    ServiceFacts, Settlement, StoreError, StoredService, Transition,
};
use mcpmon_core::{Failure, Finding, Status, Timestamp};

/// How far back it remembers.
pub const MEMORY_SPAN: Duration = Duration::from_secs(24 * 3_600);

/// Deliveries that were given up, alerts and audit entries kept at most.
const KEPT_INCIDENTS: usize = 10_000;

/// A [`mcpmon_core::store::Store`] in memory that keeps 24 hours.
#[derive(Debug, Default)]
pub struct MemoryStore {
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    next_tie: i64,
    checks: VecDeque<(i64, CheckRecord)>,
    changes: VecDeque<(i64, StatusChange)>,
    host: VecDeque<(i64, HostRecord)>,
    services: BTreeMap<ServiceName, Known>,
    lists: BTreeMap<ServiceName, ListRecord>,
    states: BTreeMap<AlertKey, AlertState>,
    alerts: Vec<Alert>,
    next_delivery: i64,
    outbox: Vec<Delivery>,
    /// Keys once queued, so that a transition given twice queues nothing twice.
    queued: BTreeMap<(String, String), i64>,
    dead: Vec<Delivery>,
    silences: BTreeMap<String, Silence>,
    audit: Vec<AuditEntry>,
    commands: Vec<MonitorCommand>,
}

#[derive(Debug, Default)]
struct Known {
    facts: Option<ServiceFacts>,
    status: Status,
    since: Timestamp,
    failure: Option<Failure>,
    findings: Vec<Finding>,
    last_check: Option<CheckRecord>,
}

impl MemoryStore {
    /// An empty memory.
    pub fn new() -> Self {
        Self::default()
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    fn tie(&mut self) -> i64 {
        self.next_tie += 1;
        self.next_tie
    }

    /// Drops from the front only, as every append does it; a record out of order goes a little
    /// later than it might.
    fn forget_before(&mut self, start: Timestamp) {
        pop_older(&mut self.checks, start, |check| check.at);
        pop_older(&mut self.changes, start, |change| change.at);
        pop_older(&mut self.host, start, |sample| sample.at);
    }
}

fn pop_older<T>(records: &mut VecDeque<(i64, T)>, start: Timestamp, at: impl Fn(&T) -> Timestamp) {
    while records.front().is_some_and(|(_, record)| at(record) < start) {
        records.pop_front();
    }
}

/// Records arrive nearly, not strictly, in order of time.
fn drop_older<T>(
    records: &mut VecDeque<(i64, T)>,
    start: Timestamp,
    at: impl Fn(&T) -> Timestamp,
) -> u64 {
    let before = records.len();
    records.retain(|(_, record)| at(record) >= start);
    (before - records.len()) as u64
}

/// One page of records in order of time, ties in order of arrival.
fn page<T: Clone>(
    records: &VecDeque<(i64, T)>,
    query: &RecordQuery,
    at: impl Fn(&T) -> Timestamp,
    wanted: impl Fn(&T) -> bool,
) -> Page<T> {
    let limit = query.limit.clamp(1, RecordQuery::LARGEST_PAGE);
    let mut found: Vec<(Timestamp, i64, &T)> = records
        .iter()
        .map(|(tie, record)| (at(record), *tie, record))
        .filter(|(at, tie, record)| {
            query.since.is_none_or(|since| *at >= since)
                && query.until.is_none_or(|until| *at < until)
                && query.after.is_none_or(|after| (*at, *tie) > (after.at, after.tie))
                && wanted(record)
        })
        .collect();
    found.sort_by_key(|(at, tie, _)| (*at, *tie));
    let more = found.len() > limit;
    found.truncate(limit);
    let next = found.last().filter(|_| more).map(|(at, tie, _)| Cursor { at: *at, tie: *tie });
    Page { items: found.into_iter().map(|(_, _, record)| record.clone()).collect(), next }
}

#[async_trait]
impl SampleStore for MemoryStore {
    async fn append(&self, batch: &Batch) -> Result<(), StoreError> {
        let mut inner = self.lock();
        for check in &batch.checks {
            let tie = inner.tie();
            inner.services.entry(check.service.clone()).or_default().last_check =
                Some(check.clone());
            inner.checks.push_back((tie, check.clone()));
        }
        for change in &batch.changes {
            let tie = inner.tie();
            let known = inner.services.entry(change.service.clone()).or_default();
            known.status = change.status;
            known.since = change.since;
            known.failure.clone_from(&change.failure);
            known.findings.clone_from(&change.findings);
            inner.changes.push_back((tie, change.clone()));
        }
        for facts in &batch.facts {
            inner.services.entry(facts.service.clone()).or_default().facts = Some(facts.clone());
        }
        for record in &batch.lists {
            let known = inner.lists.get(&record.service);
            if known.is_none_or(|known| known.lists.hash != record.lists.hash) {
                inner.lists.insert(record.service.clone(), record.clone());
            }
        }
        for sample in &batch.host {
            let tie = inner.tie();
            inner.host.push_back((tie, sample.clone()));
        }
        let newest = inner.checks.back().map(|(_, check)| check.at);
        if let Some(newest) = newest.max(inner.host.back().map(|(_, sample)| sample.at)) {
            inner.forget_before(newest.saturating_sub(MEMORY_SPAN));
        }
        Ok(())
    }

    async fn services(&self) -> Result<Vec<StoredService>, StoreError> {
        let inner = self.lock();
        let stored = inner.services.iter().map(|(name, known)| StoredService {
            facts: known.facts.clone().unwrap_or_else(|| ServiceFacts {
                service: name.clone(),
                transport: String::new(),
                conversation: mcpmon_core::observation::Conversation::default(),
                tools_count: None,
                restarts: 0,
                available_since: None,
                watched: true,
                check_interval_ms: None,
            }),
            status: known.status,
            since: known.since,
            failure: known.failure.clone(),
            findings: known.findings.clone(),
            last_check: known.last_check.clone(),
        });
        Ok(stored.collect())
    }

    async fn checks(&self, query: &RecordQuery) -> Result<Page<CheckRecord>, StoreError> {
        let wanted =
            |check: &CheckRecord| query.service.as_ref().is_none_or(|s| *s == check.service);
        Ok(page(&self.lock().checks, query, |check| check.at, wanted))
    }

    async fn changes(&self, query: &RecordQuery) -> Result<Page<StatusChange>, StoreError> {
        let wanted =
            |change: &StatusChange| query.service.as_ref().is_none_or(|s| *s == change.service);
        Ok(page(&self.lock().changes, query, |change| change.at, wanted))
    }

    async fn host(&self, query: &RecordQuery) -> Result<Page<HostRecord>, StoreError> {
        Ok(page(&self.lock().host, query, |sample| sample.at, |_| true))
    }

    async fn last_host(&self) -> Result<Option<HostRecord>, StoreError> {
        Ok(self.lock().host.back().map(|(_, sample)| sample.clone()))
    }

    async fn lists(&self, service: &ServiceName) -> Result<Option<ListRecord>, StoreError> {
        Ok(self.lock().lists.get(service).cloned())
    }

    async fn prune(&self, plan: &PrunePlan) -> Result<Pruned, StoreError> {
        let mut inner = self.lock();
        let mut rows = 0;
        if let Some(before) = plan.checks_before {
            rows += drop_older(&mut inner.checks, before, |check| check.at);
            rows += drop_older(&mut inner.host, before, |sample| sample.at);
        }
        if let Some(before) = plan.quarters_before {
            rows += drop_older(&mut inner.changes, before, |change| change.at);
        }
        if let Some(before) = plan.incidents_before {
            let kept = inner.alerts.len();
            inner.alerts.retain(|alert| alert.resolved_at.is_none_or(|at| at >= before));
            rows += (kept - inner.alerts.len()) as u64;
        }
        Ok(Pruned { rows, more: false })
    }
}

#[async_trait]
impl IncidentLog for MemoryStore {
    async fn states(&self) -> Result<Vec<AlertState>, StoreError> {
        Ok(self.lock().states.values().cloned().collect())
    }

    async fn commit(&self, transition: &Transition) -> Result<(), StoreError> {
        let mut inner = self.lock();
        for state in &transition.states {
            inner.states.insert(state.key.clone(), state.clone());
        }
        for alert in &transition.alerts {
            match inner.alerts.iter_mut().find(|known| known.id == alert.id) {
                Some(known) => known.clone_from(alert),
                None => inner.alerts.push(alert.clone()),
            }
        }
        if inner.alerts.len() > KEPT_INCIDENTS {
            let surplus = inner.alerts.len() - KEPT_INCIDENTS;
            inner.alerts.drain(..surplus);
        }
        for new in &transition.deliveries {
            let key = (new.handler.clone(), new.notification.key.clone());
            if inner.queued.contains_key(&key) {
                continue;
            }
            inner.next_delivery += 1;
            let id = inner.next_delivery;
            inner.queued.insert(key, id);
            inner.outbox.push(Delivery {
                id,
                handler: new.handler.clone(),
                notification: new.notification.clone(),
                queued_at: transition.at,
                due_at: transition.at,
                last_error: None,
            });
        }
        if inner.queued.len() > KEPT_INCIDENTS {
            let oldest = inner.next_delivery - KEPT_INCIDENTS as i64 / 2;
            inner.queued.retain(|_, id| *id > oldest);
        }
        Ok(())
    }

    async fn due(
        &self,
        handler: &str,
        now: Timestamp,
        limit: usize,
    ) -> Result<Vec<Delivery>, StoreError> {
        let inner = self.lock();
        let due = inner
            .outbox
            .iter()
            .filter(|delivery| delivery.handler == handler && delivery.due_at <= now);
        Ok(due.take(limit).cloned().collect())
    }

    async fn settle(&self, delivery: i64, settlement: &Settlement) -> Result<(), StoreError> {
        let mut inner = self.lock();
        let Some(at) = inner.outbox.iter().position(|known| known.id == delivery) else {
            return Ok(());
        };
        match settlement {
            Settlement::Retry { due_at, error } => {
                let known = &mut inner.outbox[at];
                known.due_at = *due_at;
                known.last_error = Some(error.clone());
                known.notification.attempt += 1;
            }
            Settlement::Dead { error, .. } => {
                let mut known = inner.outbox.remove(at);
                known.last_error = Some(error.clone());
                inner.dead.push(known);
                if inner.dead.len() > KEPT_INCIDENTS {
                    inner.dead.remove(0);
                }
            }
            // Delivered, and whatever else ends it.
            _ => {
                inner.outbox.remove(at);
            }
        }
        Ok(())
    }

    async fn alerts(&self, query: &AlertQuery) -> Result<Vec<AlertRecord>, StoreError> {
        let inner = self.lock();
        let mut found: Vec<AlertRecord> = inner
            .alerts
            .iter()
            .filter(|alert| {
                let last = alert.resolved_at.unwrap_or(alert.timestamp).max(alert.timestamp);
                (!query.active || alert.resolved_at.is_none())
                    && query.since.is_none_or(|since| last >= since)
                    && query.until.is_none_or(|until| alert.timestamp < until)
                    && query.service.as_ref().is_none_or(|s| alert.service_name.as_ref() == Some(s))
            })
            .map(|alert| AlertRecord {
                alert: alert.clone(),
                state: match alert.resolved_at {
                    Some(_) => AlertPhase::Resolved,
                    None => AlertPhase::Firing,
                },
            })
            .collect();
        found.sort_by(|a, b| {
            b.alert.timestamp.cmp(&a.alert.timestamp).then_with(|| b.alert.id.cmp(&a.alert.id))
        });
        found.truncate(query.limit);
        Ok(found)
    }

    async fn dead_letters(&self, limit: usize) -> Result<Vec<Delivery>, StoreError> {
        Ok(self.lock().dead.iter().rev().take(limit).cloned().collect())
    }

    async fn silences(&self, now: Timestamp) -> Result<Vec<Silence>, StoreError> {
        let inner = self.lock();
        Ok(inner.silences.values().filter(|silence| silence.ends_at > now).cloned().collect())
    }

    async fn put_silence(&self, silence: &Silence) -> Result<(), StoreError> {
        self.lock().silences.insert(silence.id.clone(), silence.clone());
        Ok(())
    }

    async fn record(&self, entry: &AuditEntry) -> Result<(), StoreError> {
        let mut inner = self.lock();
        inner.audit.push(entry.clone());
        if inner.audit.len() > KEPT_INCIDENTS {
            inner.audit.remove(0);
        }
        Ok(())
    }

    async fn audit(&self, limit: usize) -> Result<Vec<AuditEntry>, StoreError> {
        Ok(self.lock().audit.iter().rev().take(limit).cloned().collect())
    }
}

#[async_trait]
impl CommandQueue for MemoryStore {
    async fn submit(&self, command: &MonitorCommand) -> Result<(), StoreError> {
        self.lock().commands.push(command.clone());
        Ok(())
    }

    async fn take(&self) -> Result<Vec<MonitorCommand>, StoreError> {
        Ok(std::mem::take(&mut self.lock().commands))
    }
}
