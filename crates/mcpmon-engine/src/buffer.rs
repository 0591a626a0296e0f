//! What was seen and is not written yet: a second's worth while the store works, and a bounded
//! past while it does not.
//!
//! Each service may have so many checks waiting (`metrics_buffer_size`), and all that waits may
//! take so many bytes. What is too much goes oldest first: checks, then samples of the machine and
//! changes of status, then what every service last said of itself, which will be said again.

use std::collections::{HashMap, HashSet};
use std::mem::size_of;

use mcpmon_core::failure::{Failure, Finding};
use mcpmon_core::lists::ListKind;
use mcpmon_core::service::ServiceName;
use mcpmon_core::state::StatusChange;
use mcpmon_core::store::{Batch, CheckRecord, HostRecord, ListChange, ListRecord, ServiceFacts};

/// Memory that everything waiting may take, in bytes. A batch on its way to the store is beside it.
const MOST_BYTES: usize = 64 << 20;
/// What a text of evidence, a disk or an interface is taken to weigh.
const SMALL: usize = 128;

/// Samples on their way to the store.
#[derive(Debug)]
pub(crate) struct SampleBuffer {
    pub(crate) batch: Batch,
    per_service: usize,
    most_bytes: usize,
    dropped: u64,
    unsaid: Unsaid,
}

/// Services of which what was last said was dropped; it has to be said again.
#[derive(Debug, Default)]
pub(crate) struct Unsaid {
    pub(crate) facts: Vec<ServiceName>,
    pub(crate) lists: Vec<ServiceName>,
}

impl SampleBuffer {
    pub(crate) fn new(per_service: u32) -> Self {
        Self {
            batch: Batch::default(),
            per_service: per_service as usize,
            most_bytes: MOST_BYTES,
            dropped: 0,
            unsaid: Unsaid::default(),
        }
    }

    /// What was dropped and has to be said again, since it was last asked for.
    pub(crate) fn take_unsaid(&mut self) -> Unsaid {
        std::mem::take(&mut self.unsaid)
    }

    /// How many checks one service may have waiting.
    pub(crate) fn set_limit(&mut self, per_service: u32) {
        self.per_service = per_service as usize;
    }

    pub(crate) fn waiting(&self) -> u64 {
        self.batch.checks.len() as u64
    }

    /// What everything waiting takes, about.
    pub(crate) fn bytes(&self) -> u64 {
        bytes_of(&self.batch) as u64
    }

    /// Records of every kind that were dropped.
    pub(crate) fn dropped(&self) -> u64 {
        self.dropped
    }

    /// Takes everything to be written.
    pub(crate) fn take(&mut self) -> Batch {
        std::mem::take(&mut self.batch)
    }

    /// Puts back what could not be written, before what came since, within the bounds.
    pub(crate) fn put_back(&mut self, mut failed: Batch) {
        let newer = self.take();
        failed.checks.extend(newer.checks);
        failed.changes.extend(newer.changes);
        failed.facts.extend(newer.facts);
        failed.lists.extend(newer.lists);
        failed.list_changes.extend(newer.list_changes);
        failed.host.extend(newer.host);
        self.batch = failed;
        self.bound();
    }

    /// Drops what is too much to be held.
    pub(crate) fn bound(&mut self) {
        let batch = &mut self.batch;
        self.dropped += keep_newest_of_each(&mut batch.checks, self.per_service);
        keep_last_of_each(&mut batch.facts, |facts| &facts.service);
        keep_last_of_each(&mut batch.lists, |record| &record.service);
        let mut excess = bytes_of(batch).saturating_sub(self.most_bytes);
        if excess == 0 {
            return;
        }
        let checks = relieve(&mut batch.checks, check_bytes, &mut excess).len();
        let host = relieve(&mut batch.host, host_bytes, &mut excess).len();
        let changes = relieve(&mut batch.changes, change_bytes, &mut excess).len();
        let lists = relieve(&mut batch.lists, list_bytes, &mut excess);
        let facts = relieve(&mut batch.facts, facts_bytes, &mut excess);
        let list_changes = relieve(&mut batch.list_changes, list_change_bytes, &mut excess);
        self.dropped += list_changes.len() as u64;
        self.dropped += (checks + host + changes + lists.len() + facts.len()) as u64;
        self.unsaid.lists.extend(lists.map(|record| record.service));
        self.unsaid.facts.extend(facts.map(|facts| facts.service));
    }
}

/// Keeps so many of each service's newest checks; says how many went.
fn keep_newest_of_each(checks: &mut Vec<CheckRecord>, per_service: usize) -> u64 {
    if checks.len() <= per_service {
        return 0;
    }
    let before = checks.len();
    let mut counts: HashMap<&ServiceName, usize> = HashMap::new();
    let mut keep = vec![false; before];
    for (at, check) in checks.iter().enumerate().rev() {
        let count = counts.entry(&check.service).or_default();
        *count += 1;
        keep[at] = *count <= per_service;
    }
    drop(counts);
    let mut keep = keep.into_iter();
    checks.retain(|_| keep.next().unwrap_or(true));
    (before - checks.len()) as u64
}

/// Keeps what was last said of each service; what was said before is not lost but out of date.
fn keep_last_of_each<T>(records: &mut Vec<T>, name: impl Fn(&T) -> &ServiceName) {
    let mut seen = HashSet::with_capacity(records.len());
    let mut keep: Vec<bool> =
        records.iter().rev().map(|record| seen.insert(name(record).clone())).collect();
    records.retain(|_| keep.pop().unwrap_or(true));
}

/// Takes the oldest records out until the excess is gone.
fn relieve<'a, T>(
    records: &'a mut Vec<T>,
    bytes: impl Fn(&T) -> usize,
    excess: &mut usize,
) -> std::vec::Drain<'a, T> {
    let mut count = 0;
    while let Some(record) = records.get(count)
        && *excess > 0
    {
        *excess = excess.saturating_sub(bytes(record));
        count += 1;
    }
    records.drain(..count)
}

fn bytes_of(batch: &Batch) -> usize {
    batch.checks.iter().map(check_bytes).sum::<usize>()
        + batch.host.iter().map(host_bytes).sum::<usize>()
        + batch.changes.iter().map(change_bytes).sum::<usize>()
        + batch.lists.iter().map(list_bytes).sum::<usize>()
        + batch.facts.iter().map(facts_bytes).sum::<usize>()
        + batch.list_changes.iter().map(list_change_bytes).sum::<usize>()
}

fn list_change_bytes(change: &ListChange) -> usize {
    size_of::<ListChange>() + change.hash_before.len() + change.hash.len()
}

/// The name is shared by all records of a service, and counted in none.
fn check_bytes(_: &CheckRecord) -> usize {
    size_of::<CheckRecord>()
}

fn host_bytes(record: &HostRecord) -> usize {
    let metrics = &record.metrics;
    size_of::<HostRecord>() + SMALL * (metrics.disks.len() + metrics.interfaces.len())
}

fn change_bytes(change: &StatusChange) -> usize {
    size_of::<StatusChange>()
        + change.failure.as_ref().map_or(0, failure_bytes)
        + change.findings.iter().map(finding_bytes).sum::<usize>()
}

fn failure_bytes(failure: &Failure) -> usize {
    failure.message.len() + failure.next_step.len() + evidence_bytes(&failure.evidence)
}

fn finding_bytes(finding: &Finding) -> usize {
    size_of::<Finding>() + finding.message.len() + evidence_bytes(&finding.evidence)
}

fn evidence_bytes(evidence: &serde_json::Map<String, serde_json::Value>) -> usize {
    let text = |value: &serde_json::Value| match value {
        serde_json::Value::String(text) => text.len(),
        serde_json::Value::Array(values) => SMALL * values.len(),
        serde_json::Value::Object(values) => SMALL * values.len(),
        _ => 0,
    };
    evidence.iter().map(|(key, value)| SMALL + key.len() + text(value)).sum()
}

fn list_bytes(record: &ListRecord) -> usize {
    let lists = &record.lists;
    let items = ListKind::ALL.into_iter().flat_map(|kind| lists.items(kind));
    size_of::<ListRecord>()
        + lists.instructions.as_ref().map_or(0, String::len)
        + items.map(|item| SMALL + item.name.len() + item.definition.as_str().len()).sum::<usize>()
}

fn facts_bytes(facts: &ServiceFacts) -> usize {
    size_of::<ServiceFacts>() + facts.transport.len() + SMALL
}

#[cfg(test)]
mod tests {
    use super::*;
    use mcpmon_core::{Observation, Question, Timestamp};
    use mcpmon_testkit::samples;

    fn check(service: &str, second: i64) -> CheckRecord {
        let at = Timestamp::from_millis(second * 1_000);
        CheckRecord::new(service.into(), at, Question::Health, &Observation::answered())
    }

    fn seconds(buffer: &SampleBuffer) -> Vec<(String, i64)> {
        let second = |check: &CheckRecord| check.at.as_millis() / 1_000;
        buffer.batch.checks.iter().map(|c| (c.service.to_string(), second(c))).collect()
    }

    #[test]
    fn what_failed_goes_before_what_came_since() {
        let mut buffer = SampleBuffer::new(10);
        buffer.batch.checks.push(check("a", 2));
        buffer.put_back(Batch { checks: vec![check("a", 1)], ..Batch::default() });
        assert_eq!(seconds(&buffer), [("a".into(), 1), ("a".into(), 2)]);
        assert_eq!(buffer.dropped(), 0);
    }

    #[test]
    fn the_oldest_of_a_service_go_first_and_are_counted() {
        let mut buffer = SampleBuffer::new(2);
        let checks = (0..5).map(|second| check("a", second)).chain([check("b", 9)]).collect();
        buffer.put_back(Batch { checks, ..Batch::default() });
        assert_eq!(seconds(&buffer), [("a".into(), 3), ("a".into(), 4), ("b".into(), 9)]);
        assert_eq!(buffer.dropped(), 3);
    }

    #[test]
    fn all_services_together_stay_within_the_bytes_there_are() {
        let mut buffer = SampleBuffer::new(1_000);
        buffer.most_bytes = 40 * size_of::<CheckRecord>();
        let checks = (0..100).map(|n| check(&format!("s{n}"), n)).collect();
        buffer.put_back(Batch { checks, ..Batch::default() });
        assert_eq!(buffer.waiting(), 40);
        assert_eq!(buffer.dropped(), 60);
        assert_eq!(buffer.batch.checks[0].service.as_str(), "s60");
        assert!(buffer.bytes() <= buffer.most_bytes as u64);
    }

    #[test]
    fn a_huge_list_is_bounded_too_and_goes_after_the_checks() {
        let name = "x".repeat(10_000);
        let at = Timestamp::from_millis(0);
        let list = |service: &str| ListRecord {
            service: service.into(),
            at,
            lists: samples::lists(&[name.as_str()]),
        };
        let mut buffer = SampleBuffer::new(1_000);
        buffer.most_bytes = list_bytes(&list("a")) + list_bytes(&list("a")) / 2;
        let lists = vec![list("a"), list("b"), list("a")];
        buffer.put_back(Batch { checks: vec![check("a", 1)], lists, ..Batch::default() });
        let left: Vec<_> = buffer.batch.lists.iter().map(|list| list.service.to_string()).collect();
        assert_eq!((left, buffer.waiting()), (vec!["a".to_owned()], 0), "the newest list");
        assert_eq!(buffer.dropped(), 2);
        assert_eq!(buffer.take_unsaid().lists, ["b".into()], "to be said again");
        assert!(buffer.take_unsaid().lists.is_empty());
    }

    #[test]
    fn of_facts_the_last_of_each_service_stays() {
        let mut names: Vec<(ServiceName, u32)> =
            [("a", 1), ("b", 2), ("a", 3)].map(|(name, n)| (name.into(), n)).into();
        keep_last_of_each(&mut names, |(name, _)| name);
        assert_eq!(names, [("b".into(), 2), ("a".into(), 3)]);
    }
}
