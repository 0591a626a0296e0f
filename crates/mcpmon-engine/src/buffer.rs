//! What was seen and is not written yet: a second's worth while the store works, and a bounded
//! past while it does not.

use std::collections::HashMap;

use mcpmon_core::service::ServiceName;
use mcpmon_core::store::{Batch, CheckRecord};

/// Checks of all services held in memory, at most: about 64 MB.
const MOST_CHECKS: usize = 250_000;
/// Changes of status, facts, lists and host samples held, at most each.
const MOST_OTHERS: usize = 10_000;

/// Samples on their way to the store.
#[derive(Debug)]
pub(crate) struct SampleBuffer {
    pub(crate) batch: Batch,
    per_service: usize,
    dropped: u64,
}

impl SampleBuffer {
    pub(crate) fn new(per_service: u32) -> Self {
        Self { batch: Batch::default(), per_service: per_service as usize, dropped: 0 }
    }

    /// How many checks one service may have waiting.
    pub(crate) fn set_limit(&mut self, per_service: u32) {
        self.per_service = per_service as usize;
    }

    pub(crate) fn waiting(&self) -> u64 {
        self.batch.checks.len() as u64
    }

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
        failed.host.extend(newer.host);
        self.batch = failed;
        self.bound();
    }

    /// Drops what is too much to be held.
    pub(crate) fn bound(&mut self) {
        let batch = &mut self.batch;
        self.dropped += drop_oldest(&mut batch.checks, self.per_service, MOST_CHECKS);
        keep_last_of_each(&mut batch.facts, |facts| facts.service.clone());
        keep_last_of_each(&mut batch.lists, |record| record.service.clone());
        keep_newest(&mut batch.changes, MOST_OTHERS);
        keep_newest(&mut batch.host, MOST_OTHERS);
    }
}

/// Keeps each service's newest checks, and the newest of all; says how many went.
fn drop_oldest(checks: &mut Vec<CheckRecord>, per_service: usize, total: usize) -> u64 {
    let before = checks.len();
    let mut counts: HashMap<&ServiceName, usize> = HashMap::new();
    let mut keep = vec![false; before];
    let mut kept = 0;
    for (at, check) in checks.iter().enumerate().rev() {
        let count = counts.entry(&check.service).or_default();
        *count += 1;
        if *count <= per_service && kept < total {
            keep[at] = true;
            kept += 1;
        }
    }
    drop(counts);
    let mut keep = keep.into_iter();
    checks.retain(|_| keep.next().unwrap_or(true));
    (before - checks.len()) as u64
}

fn keep_last_of_each<T>(records: &mut Vec<T>, name: impl Fn(&T) -> ServiceName) {
    let mut last: HashMap<ServiceName, usize> = HashMap::new();
    for (at, record) in records.iter().enumerate() {
        last.insert(name(record), at);
    }
    let mut at = 0;
    records.retain(|record| {
        at += 1;
        last.get(&name(record)) == Some(&(at - 1))
    });
}

fn keep_newest<T>(records: &mut Vec<T>, most: usize) {
    if records.len() > most {
        records.drain(..records.len() - most);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use mcpmon_core::{Observation, Question, Timestamp};

    fn check(service: &str, second: i64) -> CheckRecord {
        let at = Timestamp::from_millis(second * 1_000);
        CheckRecord::new(service.into(), at, Question::Health, &Observation::answered())
    }

    #[test]
    fn what_failed_goes_before_what_came_since() {
        let mut buffer = SampleBuffer::new(10);
        buffer.batch.checks.push(check("a", 2));
        buffer.put_back(Batch { checks: vec![check("a", 1)], ..Batch::default() });
        let times: Vec<i64> =
            buffer.batch.checks.iter().map(|c| c.at.as_millis() / 1_000).collect();
        assert_eq!(times, [1, 2]);
        assert_eq!(buffer.dropped(), 0);
    }

    #[test]
    fn the_oldest_of_a_service_go_first_and_are_counted() {
        let mut buffer = SampleBuffer::new(2);
        let checks = (0..5).map(|second| check("a", second)).chain([check("b", 9)]).collect();
        buffer.put_back(Batch { checks, ..Batch::default() });
        let left: Vec<(String, i64)> = buffer
            .batch
            .checks
            .iter()
            .map(|c| (c.service.to_string(), c.at.as_millis() / 1_000))
            .collect();
        assert_eq!(left, [("a".into(), 3), ("a".into(), 4), ("b".into(), 9)]);
        assert_eq!(buffer.dropped(), 3);
    }

    #[test]
    fn there_is_a_bound_on_all_services_together() {
        let mut checks: Vec<_> = (0..100).map(|n| check(&format!("s{n}"), n)).collect();
        assert_eq!(drop_oldest(&mut checks, 1_000, 40), 60);
        assert_eq!(checks[0].service.as_str(), "s60");
    }
}
