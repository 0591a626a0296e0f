//! The past, in the order in which it became known.
//!
//! A check is stored under the moment it began and known when it ended; a change of status is
//! stored under the moment of the check that made it. Three streams of pages are merged by time, and
//! what ends later than others waits a moment: never more than what one longest check spans.

use std::cmp::{Ordering, Reverse};
use std::collections::{BinaryHeap, HashMap, VecDeque};
use std::future::Future;
use std::pin::Pin;

use mcpmon_core::state::StatusChange;
use mcpmon_core::store::{CheckRecord, HostRecord, Page, RecordQuery, SampleStore, StoreError};
use mcpmon_core::{ServiceName, Status, Timestamp};

/// Something that was seen.
#[derive(Debug)]
pub(super) enum Happening {
    Host(HostRecord),
    Check(CheckRecord),
    Change {
        change: StatusChange,
        /// What the check said that made it, where a check did.
        raw: Option<Status>,
    },
}

type Pages<'s, T> = Pin<Box<dyn Future<Output = Result<Page<T>, StoreError>> + Send + 's>>;
type Fetch<T> = for<'s> fn(&'s dyn SampleStore, &'s RecordQuery) -> Pages<'s, T>;

/// One kind of record, page after page.
struct Stream<'a, T> {
    store: &'a dyn SampleStore,
    query: RecordQuery,
    fetch: Fetch<T>,
    page: VecDeque<T>,
    is_over: bool,
}

impl<'a, T> Stream<'a, T> {
    fn new(store: &'a dyn SampleStore, query: RecordQuery, fetch: Fetch<T>) -> Self {
        Self { store, query, fetch, page: VecDeque::new(), is_over: false }
    }

    async fn peek(&mut self) -> Result<Option<&T>, StoreError> {
        while self.page.is_empty() && !self.is_over {
            let page = (self.fetch)(self.store, &self.query).await?;
            self.page = page.items.into();
            self.is_over = page.next.is_none();
            self.query.after = page.next;
        }
        Ok(self.page.front())
    }
}

/// What waits until it became known.
struct Waiting {
    known_at: Timestamp,
    order: u64,
    happening: Happening,
}

impl Waiting {
    fn place(&self) -> (Timestamp, u64) {
        (self.known_at, self.order)
    }
}

impl PartialEq for Waiting {
    fn eq(&self, other: &Self) -> bool {
        self.place() == other.place()
    }
}

impl Eq for Waiting {}

impl PartialOrd for Waiting {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Waiting {
    fn cmp(&self, other: &Self) -> Ordering {
        self.place().cmp(&other.place())
    }
}

/// Everything that was stored of a span.
pub(super) struct Past<'a> {
    checks: Stream<'a, CheckRecord>,
    changes: Stream<'a, StatusChange>,
    host: Stream<'a, HostRecord>,
    waiting: BinaryHeap<Reverse<Waiting>>,
    order: u64,
    /// Each service's last check: when it began, when it was known, what it said.
    last: HashMap<ServiceName, (Timestamp, Timestamp, Status)>,
}

impl<'a> Past<'a> {
    pub(super) fn new(store: &'a dyn SampleStore, query: RecordQuery) -> Self {
        let changes = query.clone();
        let host = RecordQuery { service: None, ..query };
        Self {
            checks: Stream::new(store, query, |store, query| store.checks(query)),
            changes: Stream::new(store, changes, |store, query| store.changes(query)),
            host: Stream::new(store, host, |store, query| store.host(query)),
            waiting: BinaryHeap::new(),
            order: 0,
            last: HashMap::new(),
        }
    }

    /// When the next thing became known.
    pub(super) async fn next_at(&mut self) -> Result<Option<Timestamp>, StoreError> {
        self.settle().await?;
        Ok(self.waiting.peek().map(|Reverse(first)| first.known_at))
    }

    /// The next thing, if it was known by `until`.
    pub(super) async fn next_until(
        &mut self,
        until: Timestamp,
    ) -> Result<Option<Happening>, StoreError> {
        let is_known = self.next_at().await?.is_some_and(|at| at <= until);
        let first = if is_known { self.waiting.pop() } else { None };
        Ok(first.map(|Reverse(first)| first.happening))
    }

    /// Reads on until what waits first cannot be overtaken by what was not read.
    async fn settle(&mut self) -> Result<(), StoreError> {
        loop {
            let check = self.checks.peek().await?.map(|check| check.at);
            let change = self.changes.peek().await?.map(|change| change.at);
            let host = self.host.peek().await?.map(|sample| sample.at);
            let Some(next) = [check, change, host].into_iter().flatten().min() else {
                return Ok(());
            };
            if self.waiting.peek().is_some_and(|Reverse(first)| first.known_at < next) {
                return Ok(());
            }
            // A check comes before the change it made.
            if check == Some(next) {
                let Some(check) = self.checks.page.pop_front() else { return Ok(()) };
                let known_at = next.saturating_add(check.total);
                let told = (next, known_at, check.status);
                match self.last.get_mut(&check.service) {
                    Some(last) => *last = told,
                    None => drop(self.last.insert(check.service.clone(), told)),
                }
                self.wait(known_at, Happening::Check(check));
            } else if change == Some(next) {
                let Some(change) = self.changes.page.pop_front() else { return Ok(()) };
                let made_by = self.last.get(&change.service).filter(|last| last.0 == next);
                let known_at = made_by.map_or(next, |(_, known_at, _)| *known_at);
                let raw = made_by.map(|(_, _, raw)| *raw);
                self.wait(known_at, Happening::Change { change, raw });
            } else {
                let Some(sample) = self.host.page.pop_front() else { return Ok(()) };
                self.wait(next, Happening::Host(sample));
            }
        }
    }

    fn wait(&mut self, known_at: Timestamp, happening: Happening) {
        self.order += 1;
        self.waiting.push(Reverse(Waiting { known_at, order: self.order, happening }));
    }
}
