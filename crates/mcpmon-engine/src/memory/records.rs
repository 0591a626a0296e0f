//! Records in order of time, one line of them for each service, so that a question about one
//! service or a short span reads only what it is about.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};

use mcpmon_core::Timestamp;
use mcpmon_core::state::StatusChange;
use mcpmon_core::store::{CheckRecord, Cursor, HostRecord, ListChange, Page, RecordQuery};

/// Where a record stands: its time, and what tells records of one time apart.
pub(super) type Place = (Timestamp, i64);

/// What has a time of its own.
pub(super) trait Timed {
    fn at(&self) -> Timestamp;
}

impl Timed for CheckRecord {
    fn at(&self) -> Timestamp {
        self.at
    }
}

impl Timed for StatusChange {
    fn at(&self) -> Timestamp {
        self.at
    }
}

impl Timed for ListChange {
    fn at(&self) -> Timestamp {
        self.at
    }
}

impl Timed for HostRecord {
    fn at(&self) -> Timestamp {
        self.at
    }
}

/// Records by time; those of one time as they came.
#[derive(Debug)]
pub(super) struct Series<T> {
    records: VecDeque<(i64, T)>,
}

impl<T> Default for Series<T> {
    fn default() -> Self {
        Self { records: VecDeque::new() }
    }
}

fn place<T: Timed>((tie, record): &(i64, T)) -> Place {
    (record.at(), *tie)
}

impl<T: Timed> Series<T> {
    pub(super) fn len(&self) -> usize {
        self.records.len()
    }

    /// Takes a record in. They come nearly in order, so that hardly anything is moved.
    pub(super) fn insert(&mut self, tie: i64, record: T) {
        let new = (tie, record);
        if self.records.back().is_none_or(|last| place(last) < place(&new)) {
            return self.records.push_back(new);
        }
        let before = self.records.partition_point(|known| place(known) < place(&new));
        self.records.insert(before, new);
    }

    /// The newest by time.
    pub(super) fn last(&self) -> Option<&T> {
        self.records.back().map(|(_, record)| record)
    }

    /// The newest `count`, oldest first.
    pub(super) fn newest(&self, count: usize) -> impl Iterator<Item = &T> {
        self.records.iter().skip(self.records.len().saturating_sub(count)).map(|(_, record)| record)
    }

    /// From a moment on, itself included, and before another.
    pub(super) fn between(&self, since: Timestamp, until: Timestamp) -> impl Iterator<Item = &T> {
        let end = self.records.partition_point(|known| known.1.at() < until);
        let start = self.records.partition_point(|known| known.1.at() < since).min(end);
        self.records.range(start..end).map(|(_, record)| record)
    }

    pub(super) fn places(&self) -> impl Iterator<Item = Place> + '_ {
        self.records.iter().map(place)
    }

    /// Drops what stands before a place; says how many went.
    pub(super) fn drop_before(&mut self, first: Place) -> u64 {
        let old = self.records.partition_point(|known| place(known) < first);
        self.records.drain(..old);
        old as u64
    }

    /// Drops the oldest, as many as there are beyond `count`.
    pub(super) fn keep_newest(&mut self, count: usize) {
        self.records.drain(..self.records.len().saturating_sub(count));
    }

    /// The same as [`Series::drop_before`], but the newest record stays: it shows how things came to
    /// be as they are.
    pub(super) fn drop_superseded(&mut self, before: Timestamp) -> u64 {
        let old = self.records.partition_point(|known| known.1.at() < before);
        let old = old.min(self.records.len().saturating_sub(1));
        self.records.drain(..old);
        old as u64
    }

    fn asked(&self, query: &RecordQuery) -> impl Iterator<Item = &(i64, T)> {
        let wanted = |known: &(i64, T)| {
            query.since.is_some_and(|since| known.1.at() < since)
                || query.after.is_some_and(|after| place(known) <= (after.at, after.tie))
        };
        let end = query.until.map_or(self.records.len(), |until| {
            self.records.partition_point(|known| known.1.at() < until)
        });
        let start = self.records.partition_point(wanted).min(end);
        self.records.range(start..end)
    }
}

/// One page of several series in order of time. Reads no further than the page goes.
pub(super) fn page<'a, T: Timed + Clone + 'a>(
    series: impl Iterator<Item = &'a Series<T>>,
    query: &RecordQuery,
) -> Page<T> {
    let limit = query.limit.clamp(1, RecordQuery::LARGEST_PAGE);
    let mut sources: Vec<_> = series.map(|series| series.asked(query).peekable()).collect();
    let mut heads: BinaryHeap<Reverse<(Place, usize)>> = BinaryHeap::new();
    for (source, records) in sources.iter_mut().enumerate() {
        heads.extend(records.peek().map(|head| Reverse((place(head), source))));
    }
    let mut items = Vec::new();
    let mut last = None;
    while items.len() < limit
        && let Some(Reverse((at, source))) = heads.pop()
    {
        let records = &mut sources[source];
        items.extend(records.next().map(|(_, record)| record.clone()));
        heads.extend(records.peek().map(|head| Reverse((place(head), source))));
        last = Some(Cursor { at: at.0, tie: at.1 });
    }
    Page { items, next: last.filter(|_| !heads.is_empty()) }
}
