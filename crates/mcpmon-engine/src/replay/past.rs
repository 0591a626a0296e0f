//! The past, in the order in which it became known.
//!
//! A check is stored under the moment it began and known when it ended; a change of status is
//! stored under the moment of the check that made it, or under the moment from which on the monitor
//! did not watch, and known when the monitor noticed. Three streams of pages are merged by time, and
//! what ends later than others waits a moment: never more than what one longest check spans.

use std::cmp::{Ordering, Reverse};
use std::collections::{BinaryHeap, HashMap, VecDeque};
use std::time::Duration;

use mcpmon_core::state::{ChangeOrigin, StatusChange};
use mcpmon_core::store::{CheckRecord, HostRecord, RecordQuery, SampleStore, StoreError};
use mcpmon_core::{ServiceName, Timestamp};

use crate::records::Records;

/// Something that was seen.
#[derive(Debug)]
pub(super) enum Happening {
    Host(HostRecord),
    Check(CheckRecord),
    Change(StatusChange),
}

/// A result is taken in after the tick of its own millisecond: a running monitor, too, evaluates
/// rules before it takes in what came at the same time.
fn after(at: Timestamp) -> Timestamp {
    at.saturating_add(Duration::from_millis(1))
}

/// A span in which nobody watched.
#[derive(Debug, Clone, Copy)]
struct Absence {
    from: Timestamp,
    noticed_at: Timestamp,
    /// The part of it in which the machine slept, and its monotonic clock stood still.
    slept_ms: u64,
}

impl Absence {
    fn is_within(&self, known_at: Timestamp) -> bool {
        after(self.from) < known_at && known_at <= self.noticed_at
    }

    /// When something was known that seems to have been known within the span: never before the
    /// monitor noticed, and a check that went on over a sleep took as much longer.
    fn put_off(&self, began: Timestamp, known_at: Timestamp) -> Timestamp {
        if !self.is_within(known_at) {
            return known_at;
        }
        let slept = if self.is_before_sleep(began) { self.slept_ms } else { 0 };
        known_at.saturating_add(Duration::from_millis(slept)).max(after(self.noticed_at))
    }

    /// Whether something that began then began before the machine slept. The span begins with the
    /// monitor's last look, so the machine may have been awake for the part of it that it did not
    /// sleep.
    fn is_before_sleep(&self, began: Timestamp) -> bool {
        let span = self.noticed_at.since(self.from);
        let awake = span.saturating_sub(Duration::from_millis(self.slept_ms));
        began <= self.from.saturating_add(awake)
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
    checks: Records<'a, CheckRecord>,
    changes: Records<'a, StatusChange>,
    host: Records<'a, HostRecord>,
    waiting: BinaryHeap<Reverse<Waiting>>,
    /// The span of the last sleep that was read.
    absent: Option<Absence>,
    /// Spans in which no monitor ran, without those that are over.
    without_monitor: VecDeque<(Timestamp, Timestamp)>,
    order: u64,
    /// Each service's last check: when it began, and when it was known.
    last: HashMap<ServiceName, (Timestamp, Timestamp)>,
}

impl<'a> Past<'a> {
    pub(super) fn new(store: &'a dyn SampleStore, query: RecordQuery) -> Self {
        let changes = query.clone();
        let host = RecordQuery { service: None, ..query };
        Self {
            checks: Records::new(store, query, |store, query| store.checks(query)),
            changes: Records::new(store, changes, |store, query| store.changes(query)),
            host: Records::new(store, host, |store, query| store.host(query)),
            waiting: BinaryHeap::new(),
            absent: None,
            without_monitor: VecDeque::new(),
            order: 0,
            last: HashMap::new(),
        }
    }

    /// When the next thing became known.
    pub(super) async fn next_at(&mut self) -> Result<Option<Timestamp>, StoreError> {
        self.settle(Timestamp::from_millis(i64::MIN)).await?;
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

    /// The span around `moment` in which nobody watched, without its ends: the machine slept, or no
    /// monitor ran.
    pub(super) async fn absence(
        &mut self,
        moment: Timestamp,
    ) -> Result<Option<(Timestamp, Timestamp)>, StoreError> {
        self.settle(moment).await?;
        let is_within = |(from, until): &(Timestamp, Timestamp)| *from < moment && moment < *until;
        let slept = self.absent.map(|absence| (absence.from, absence.noticed_at));
        let slept = slept.filter(is_within);
        Ok(slept.or_else(|| self.without_monitor.iter().copied().find(is_within)))
    }

    /// When rules are evaluated next, where that would be at `tick` and what is evaluated was known
    /// at `known_at`: a monitor that stops evaluates once more before it does.
    pub(super) async fn next_evaluation(
        &mut self,
        known_at: Timestamp,
        tick: Timestamp,
    ) -> Result<Timestamp, StoreError> {
        self.settle(tick).await?;
        let mut stops = self.without_monitor.iter().map(|(from, _)| after(*from));
        if let Some(stop) = stops.find(|stop| known_at <= *stop && *stop < tick) {
            return Ok(stop);
        }
        // Nothing was evaluated while nobody watched.
        let until = self.absence(tick).await?.map(|(_, until)| until);
        Ok(until.map_or(tick, super::next_tick))
    }

    /// Whether checks of a service are started or stopped up to `until`, as far as that is not taken
    /// out yet.
    pub(super) async fn is_scheduled(
        &mut self,
        service: &ServiceName,
        until: Timestamp,
    ) -> Result<bool, StoreError> {
        self.settle(until).await?;
        Ok(self.waiting.iter().any(|Reverse(waiting)| {
            let Happening::Change(change) = &waiting.happening else { return false };
            let is_meant = change.origin == ChangeOrigin::Schedule && change.service == *service;
            is_meant && waiting.known_at <= until
        }))
    }

    /// From when on nobody watched, if that is the next thing that became known.
    pub(super) fn next_absence(&self) -> Option<Timestamp> {
        let Reverse(first) = self.waiting.peek()?;
        let Happening::Change(change) = &first.happening else { return None };
        let without_monitor = change.span_without_monitor().map(|(from, _)| from);
        without_monitor.or_else(|| change.origin.is_gap().then_some(change.at))
    }

    /// Whatever came in while nobody watched was taken in once the monitor noticed.
    fn note_absence(&mut self, change: &StatusChange) {
        if let Some(span) = change.span_without_monitor()
            && self.without_monitor.back() != Some(&span)
        {
            self.without_monitor.retain(|(_, until)| *until >= span.0);
            self.without_monitor.push_back(span);
        }
        let ChangeOrigin::Absent { noticed_at, slept_ms } = change.origin else { return };
        let absence = Absence { from: change.at, noticed_at, slept_ms };
        self.absent = Some(absence);
        if self.waiting.iter().all(|Reverse(waiting)| !absence.is_within(waiting.known_at)) {
            return;
        }
        let waiting = std::mem::take(&mut self.waiting).into_iter().map(|Reverse(mut waiting)| {
            let known_at = &mut waiting.known_at;
            match &waiting.happening {
                Happening::Check(check) => {
                    *known_at = absence.put_off(check.at, *known_at);
                    if let Some(last) = self.last.get_mut(&check.service)
                        && last.0 == check.at
                    {
                        last.1 = *known_at;
                    }
                }
                Happening::Host(sample) => *known_at = absence.put_off(sample.at, *known_at),
                Happening::Change(_) => {}
            }
            Reverse(waiting)
        });
        self.waiting = waiting.collect();
    }

    /// When something that began and ended then was known, given what was read of absences.
    fn known_at(&self, began: Timestamp, ended: Timestamp) -> Timestamp {
        let known_at = after(ended);
        self.absent.map_or(known_at, |absence| absence.put_off(began, known_at))
    }

    /// Reads on until what waits first cannot be overtaken by what was not read, and to `moment`.
    async fn settle(&mut self, moment: Timestamp) -> Result<(), StoreError> {
        loop {
            let check = self.checks.peek().await?.map(|check| check.at);
            let change = self.changes.peek().await?.map(|change| change.at);
            let host = self.host.peek().await?.map(|sample| sample.at);
            let Some(next) = [check, change, host].into_iter().flatten().min() else {
                return Ok(());
            };
            let is_first = |Reverse(first): &Reverse<Waiting>| first.known_at < next;
            if next > moment && self.waiting.peek().is_some_and(is_first) {
                return Ok(());
            }
            // A check comes before the change it made.
            if check == Some(next) {
                let Some(check) = self.checks.take_read() else { return Ok(()) };
                let known_at = self.known_at(next, next.saturating_add(check.total));
                match self.last.get_mut(&check.service) {
                    Some(last) => *last = (next, known_at),
                    None => drop(self.last.insert(check.service.clone(), (next, known_at))),
                }
                self.wait(known_at, Happening::Check(check));
            } else if change == Some(next) {
                let Some(change) = self.changes.take_read() else { return Ok(()) };
                let made_by = self.last.get(&change.service);
                let made_by = made_by.filter(|(began, known)| (began..=known).contains(&&next));
                let known_at = match made_by {
                    Some((_, known_at)) if change.origin.is_check() => *known_at,
                    // Made by a heartbeat that is not stored.
                    None if change.origin.is_check() => self.known_at(next, next),
                    _ => change.noticed_at(),
                };
                self.note_absence(&change);
                self.wait(known_at, Happening::Change(change));
            } else {
                let Some(sample) = self.host.take_read() else { return Ok(()) };
                let known_at = self.known_at(next, next);
                self.wait(known_at, Happening::Host(sample));
            }
        }
    }

    fn wait(&mut self, known_at: Timestamp, happening: Happening) {
        self.order += 1;
        self.waiting.push(Reverse(Waiting { known_at, order: self.order, happening }));
    }
}
