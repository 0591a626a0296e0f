//! A store that forgets: the last 24 hours, in memory, and in so much of it.
//!
//! It stands in where a library user gives no store, and takes over the outbox while the real one
//! cannot be written. It answers from what it holds, without copying it first: a question holds up
//! a writer for as long as it takes to count a day of one service.

mod incidents;
mod records;

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use mcpmon_core::monitor::MonitorCommand;
use mcpmon_core::observation::Lists;
use mcpmon_core::service::ServiceName;
use mcpmon_core::state::StatusChange;
use mcpmon_core::store::history::{LATEST_DISCOUNT, Summarizer, edges, points, reach};
use mcpmon_core::store::hours::hour_begins;
use mcpmon_core::store::{
    Batch, CheckRecord, CommandQueue, History, HistoryQuery, HostRecord, HourSample, HoursQuery,
    ListChange, ListRecord, Page, PrunePlan, Pruned, RecordQuery, SampleStore, ServiceFacts,
    ServiceHours, StoreError, StoredService, Summary,
};
use mcpmon_core::{Failure, Finding, Status, Timestamp};

pub(crate) use self::incidents::Fate;
use self::incidents::Incidents;
use self::records::{Place, Series, page};

/// How far back it remembers.
pub const MEMORY_SPAN: Duration = Duration::from_secs(24 * 3_600);
/// Checks it holds at most, of all services together: 100 services asked every 30 s for a day.
/// Beyond that the oldest go before they are a day old.
pub const MEMORY_CHECKS: usize = 300_000;

/// What is old is looked for once time has moved on by so much.
const FORGET_EVERY: Duration = Duration::from_secs(60);
/// Commands that may wait; more means that nobody takes them.
const MOST_COMMANDS: usize = 10_000;

/// A [`mcpmon_core::store::Store`] in memory that keeps 24 hours, and at most [`MEMORY_CHECKS`]
/// checks, [`ListChange::MOST_KEPT`] changes of lists of each service, 10,000 ended alerts and 10,000
/// messages that wait for their handler.
#[derive(Debug, Default)]
pub struct MemoryStore {
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    last_tie: i64,
    services: BTreeMap<ServiceName, Known>,
    /// Checks of all services.
    checks: usize,
    host: Series<HostRecord>,
    /// Up to when what is old was looked for.
    forgotten_at: Timestamp,
    incidents: Incidents,
    commands: Vec<MonitorCommand>,
}

/// One service.
#[derive(Debug, Default)]
struct Known {
    facts: Option<ServiceFacts>,
    status: Status,
    since: Timestamp,
    failure: Option<Failure>,
    findings: Vec<Finding>,
    /// The one appended last, whatever its time.
    last_check: Option<CheckRecord>,
    checks: Series<CheckRecord>,
    changes: Series<StatusChange>,
    lists: Option<ListRecord>,
    list_changes: Series<ListChange>,
    /// Whether anything but its lists was seen.
    is_seen: bool,
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
        self.last_tie += 1;
        self.last_tie
    }

    fn seen(&mut self, service: &ServiceName) -> &mut Known {
        let known = self.services.entry(service.clone()).or_default();
        known.is_seen = true;
        known
    }

    fn append(&mut self, batch: &Batch) {
        for check in &batch.checks {
            let tie = self.tie();
            let known = self.seen(&check.service);
            known.last_check = Some(check.clone());
            known.checks.insert(tie, check.clone());
            self.checks += 1;
        }
        for change in &batch.changes {
            let tie = self.tie();
            let known = self.seen(&change.service);
            known.status = change.status;
            known.since = change.since;
            known.failure.clone_from(&change.failure);
            known.findings.clone_from(&change.findings);
            known.changes.insert(tie, change.clone());
        }
        for facts in &batch.facts {
            self.seen(&facts.service).facts = Some(facts.clone());
        }
        for change in &batch.list_changes {
            let tie = self.tie();
            let known = self.services.entry(change.service.clone()).or_default();
            let next = change.at.saturating_add(Duration::from_millis(1));
            if known.list_changes.between(change.at, next).next().is_none() {
                known.list_changes.insert(tie, change.clone());
                known.list_changes.keep_newest(ListChange::MOST_KEPT);
            }
        }
        for record in &batch.lists {
            let known = self.services.entry(record.service.clone()).or_default();
            let mut record = record.clone();
            let key = |lists: &Lists| (lists.hash.clone(), lists.parts);
            if let Some(last) = &known.lists {
                record.lists.complete_from(&last.lists);
                if key(&last.lists) == key(&record.lists) {
                    continue;
                }
            }
            known.lists = Some(record);
        }
        for sample in &batch.host {
            let tie = self.tie();
            self.host.insert(tie, sample.clone());
        }
        let moments = batch.checks.iter().map(|check| check.at);
        let newest = moments.chain(batch.host.iter().map(|sample| sample.at)).max();
        if let Some(newest) = newest
            && (newest.since(self.forgotten_at) >= FORGET_EVERY || newest < self.forgotten_at)
        {
            self.forgotten_at = newest;
            self.forget_before(newest.saturating_sub(MEMORY_SPAN));
        }
        self.crowd_out(MEMORY_CHECKS);
    }

    fn forget_before(&mut self, start: Timestamp) {
        self.drop_checks((start, i64::MIN));
        self.host.drop_before((start, i64::MIN));
        for known in self.services.values_mut() {
            known.list_changes.drop_before((start, i64::MIN));
        }
        self.drop_changes(start);
    }

    fn drop_checks(&mut self, first: Place) -> u64 {
        let dropped = self.services.values_mut().map(|known| known.checks.drop_before(first)).sum();
        self.checks = self.services.values().map(|known| known.checks.len()).sum();
        dropped
    }

    fn drop_changes(&mut self, before: Timestamp) -> u64 {
        self.services.values_mut().map(|known| known.changes.drop_superseded(before)).sum()
    }

    /// Of more checks than `most` the oldest go, and a sixteenth beside them, so that a full memory
    /// is not searched at every append.
    fn crowd_out(&mut self, most: usize) -> u64 {
        if self.checks <= most {
            return 0;
        }
        let surplus = (self.checks - most + most / 16).min(self.checks);
        let mut places: Vec<Place> =
            self.services.values().flat_map(|known| known.checks.places()).collect();
        let first = if surplus < places.len() {
            *places.select_nth_unstable(surplus).1
        } else {
            (Timestamp::from_millis(i64::MAX), i64::MAX)
        };
        self.drop_checks(first)
    }
}

impl Known {
    fn reach(&self) -> Duration {
        self.facts.as_ref().map_or_else(|| reach(None), ServiceFacts::reach)
    }

    /// What is told of it between edges, the last of which is `until`.
    fn summaries(&self, edges: &[i64], until: Timestamp) -> Vec<Summary> {
        let mut summarizer = Summarizer::new(edges.to_vec(), self.reach());
        let ever = Timestamp::from_millis(i64::MIN);
        for change in self.changes.between(ever, until) {
            summarizer.change(change.at, change.status);
        }
        let first = edges.first().copied().map_or(ever, Timestamp::from_millis);
        // A change may be stored before the checks that it attributes to the monitor.
        let first = first.saturating_sub(LATEST_DISCOUNT);
        for change in self.changes.between(first, until.saturating_add(LATEST_DISCOUNT)) {
            summarizer.discount(&change.origin);
        }
        let first = summarizer.first_voucher();
        for check in self.checks.between(first, until) {
            summarizer.check(check.at, check.meaning(), check.code, check.latency);
        }
        summarizer.finish()
    }

    /// The whole hours a baseline asks for.
    fn hours(&self, query: &HoursQuery) -> Vec<HourSample> {
        let since = query.since.max(query.until.saturating_sub(HoursQuery::LONGEST));
        let begins = (since..=query.until).map(|hour| hour_begins(hour).as_millis());
        let summaries = self.summaries(&begins.collect::<Vec<_>>(), hour_begins(query.until));
        let hours = (since..).zip(&summaries);
        hours
            .filter(|(hour, summary)| query.wants(*hour) && summary.checks.sum() > 0)
            .map(|(hour, summary)| HourSample::of(hour, summary))
            .collect()
    }

    fn stored(&self, name: &ServiceName) -> StoredService {
        StoredService {
            facts: self.facts.clone().unwrap_or_else(|| ServiceFacts::unknown(name.clone())),
            status: self.status,
            since: self.since,
            failure: self.failure.clone(),
            findings: self.findings.clone(),
            last_check: self.last_check.clone(),
        }
    }
}

/// The series a question is about: those of one service, or of all.
fn series_of<'a, T: 'a>(
    services: &'a BTreeMap<ServiceName, Known>,
    query: &RecordQuery,
    of: impl Fn(&'a Known) -> &'a Series<T>,
) -> Vec<&'a Series<T>> {
    match &query.service {
        Some(service) => services.get(service).map(of).into_iter().collect(),
        None => services.values().map(of).collect(),
    }
}

#[async_trait]
impl SampleStore for MemoryStore {
    async fn append(&self, batch: &Batch) -> Result<(), StoreError> {
        self.lock().append(batch);
        Ok(())
    }

    async fn services(&self) -> Result<Vec<StoredService>, StoreError> {
        let inner = self.lock();
        let seen = inner.services.iter().filter(|(_, known)| known.is_seen);
        Ok(seen.map(|(name, known)| known.stored(name)).collect())
    }

    async fn checks(&self, query: &RecordQuery) -> Result<Page<CheckRecord>, StoreError> {
        let inner = self.lock();
        let series = series_of(&inner.services, query, |known| &known.checks);
        Ok(page(series.into_iter(), query))
    }

    async fn changes(&self, query: &RecordQuery) -> Result<Page<StatusChange>, StoreError> {
        let inner = self.lock();
        let series = series_of(&inner.services, query, |known| &known.changes);
        Ok(page(series.into_iter(), query))
    }

    async fn list_changes(&self, query: &RecordQuery) -> Result<Page<ListChange>, StoreError> {
        let inner = self.lock();
        let series = series_of(&inner.services, query, |known| &known.list_changes);
        Ok(page(series.into_iter(), query))
    }

    async fn host(&self, query: &RecordQuery) -> Result<Page<HostRecord>, StoreError> {
        Ok(page(std::iter::once(&self.lock().host), query))
    }

    async fn last_host(&self) -> Result<Option<HostRecord>, StoreError> {
        Ok(self.lock().host.last().cloned())
    }

    async fn lists(&self, service: &ServiceName) -> Result<Option<ListRecord>, StoreError> {
        Ok(self.lock().services.get(service).and_then(|known| known.lists.clone()))
    }

    async fn history(&self, query: &HistoryQuery) -> Result<History, StoreError> {
        let (edges, step) = edges(query.since, query.until, query.step);
        let inner = self.lock();
        let nobody = Known::default();
        let known = inner.services.get(&query.service).unwrap_or(&nobody);
        Ok(History { points: points(&edges, known.summaries(&edges, query.until)), step })
    }

    async fn summaries(
        &self,
        since: Timestamp,
        until: Timestamp,
    ) -> Result<Vec<(ServiceName, Summary)>, StoreError> {
        let (edges, _) = edges(since, until, None);
        let inner = self.lock();
        let seen = inner.services.iter().filter(|(_, known)| known.is_seen);
        let whole = |known: &Known| known.summaries(&edges, until).pop().unwrap_or_default();
        Ok(seen.map(|(name, known)| (name.clone(), whole(known))).collect())
    }

    async fn last_checks(
        &self,
        service: &ServiceName,
        count: usize,
    ) -> Result<Vec<CheckRecord>, StoreError> {
        let inner = self.lock();
        let Some(known) = inner.services.get(service) else { return Ok(Vec::new()) };
        Ok(known.checks.newest(count.min(RecordQuery::LARGEST_PAGE)).cloned().collect())
    }

    async fn hours(&self, query: &HoursQuery) -> Result<Vec<ServiceHours>, StoreError> {
        let inner = self.lock();
        let services = query.services.iter().filter_map(|name| {
            let known = inner.services.get(name)?;
            Some((name.clone(), known.hours(query)))
        });
        Ok(services.filter(|(_, hours)| !hours.is_empty()).collect())
    }

    async fn prune(&self, plan: &PrunePlan) -> Result<Pruned, StoreError> {
        let mut inner = self.lock();
        let mut rows = 0;
        if let Some(before) = plan.checks_before {
            rows += inner.drop_checks((before, i64::MIN));
            rows += inner.host.drop_before((before, i64::MIN));
        }
        if let Some(before) = plan.quarters_before {
            rows += inner.drop_changes(before);
        }
        if let Some(before) = plan.incidents_before {
            rows += inner.incidents.prune(before);
            let services = inner.services.values_mut();
            rows += services
                .map(|known| known.list_changes.drop_before((before, i64::MIN)))
                .sum::<u64>();
        }
        if let Some(most) = plan.most_bytes {
            let each = size_of::<(i64, CheckRecord)>() as u64;
            rows += inner.crowd_out(usize::try_from(most / each).unwrap_or(usize::MAX));
        }
        Ok(Pruned { rows, more: false })
    }
}

#[async_trait]
impl CommandQueue for MemoryStore {
    async fn submit(&self, command: &MonitorCommand) -> Result<(), StoreError> {
        let mut inner = self.lock();
        if inner.commands.len() >= MOST_COMMANDS {
            return Err(StoreError::Other("too many commands wait already".into()));
        }
        inner.commands.push(command.clone());
        Ok(())
    }

    async fn pending(&self) -> Result<Vec<MonitorCommand>, StoreError> {
        Ok(self.lock().commands.clone())
    }

    async fn take(&self) -> Result<Vec<MonitorCommand>, StoreError> {
        Ok(std::mem::take(&mut self.lock().commands))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use mcpmon_testkit::{START, samples};

    fn checks(of: impl Iterator<Item = u64>) -> Batch {
        let at = |second| START.saturating_add(Duration::from_secs(second));
        Batch { checks: of.map(|s| samples::check("files", at(s))).collect(), ..Batch::default() }
    }

    async fn held(store: &MemoryStore) -> (Timestamp, Timestamp, usize) {
        let inner = store.lock();
        let series = &inner.services[&ServiceName::from("files")].checks;
        let first = series.places().next().unwrap().0;
        assert_eq!(inner.checks, series.len());
        (first, series.last().unwrap().at, series.len())
    }

    #[tokio::test]
    async fn a_day_is_held_and_the_day_before_is_not() {
        let store = MemoryStore::new();
        store.append(&checks((0..48 * 60).map(|minute| minute * 60))).await.unwrap();
        let (first, last, count) = held(&store).await;
        assert_eq!(last.since(first), MEMORY_SPAN);
        assert_eq!(count, 24 * 60 + 1);
    }

    #[tokio::test]
    async fn a_day_of_too_much_is_cut_at_its_old_end() {
        let store = MemoryStore::new();
        let most = MEMORY_CHECKS as u64;
        for part in 0..6 {
            // Several to a second: what is dropped is told apart by more than its time.
            let range = part * most / 4..(part + 1) * most / 4;
            store.append(&checks(range.map(|n| n / 100))).await.unwrap();
            let (_, last, count) = held(&store).await;
            assert!(count <= MEMORY_CHECKS, "{count}");
            let newest =
                START.saturating_add(Duration::from_secs(((part + 1) * most / 4 - 1) / 100));
            assert_eq!(last, newest);
        }
        assert!(held(&store).await.2 >= MEMORY_CHECKS * 15 / 16 - 1);
    }
}
