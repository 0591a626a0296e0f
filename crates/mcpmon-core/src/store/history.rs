//! What a span of time looked like: counts, latencies, and the time spent in each status.
//!
//! A status is what the stored changes say, but only while checks vouch for it: a check stands for
//! the time up to the next one, at most for [`reach`]. Beyond that nobody looked (asleep, not
//! running), which is `unknown`, never downtime. `paused` needs no voucher: nobody is to look then.
//! Everything here adds up: the summary of a day is that of its hours, merged.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{CheckRecord, RecordQuery, SampleStore, StoreError};
use crate::check::CheckMeaning;
use crate::failure::FailureCode;
use crate::service::ServiceName;
use crate::sketch::LatencySketch;
use crate::state::ChangeOrigin;
use crate::status::Status;
use crate::time::Timestamp;

/// Points an answer has at most; a finer step than that gives is widened.
pub const MOST_POINTS: usize = 10_000;
/// What a check vouches for where the interval is not known.
const USUAL_REACH: Duration = Duration::from_secs(600);
/// A check vouches for no longer than this, however seldom the service is asked.
pub const LONGEST_REACH: Duration = Duration::from_secs(3_600);
const REACH_MARGIN: Duration = Duration::from_secs(30);

/// How long a check vouches for its service's status, if no other comes: two intervals and 30 s.
pub fn reach(check_interval: Option<Duration>) -> Duration {
    let reach = check_interval
        .map_or(USUAL_REACH, |interval| interval.saturating_mul(2).saturating_add(REACH_MARGIN));
    reach.min(LONGEST_REACH)
}

/// A number for each status.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct PerStatus([u64; Status::WORST_FIRST.len()]);

impl PerStatus {
    fn place(status: Status) -> usize {
        Status::WORST_FIRST.iter().position(|known| *known == status).unwrap_or(0)
    }

    /// The number of a status.
    pub fn get(&self, status: Status) -> u64 {
        self.0[Self::place(status)]
    }

    /// Adds to the number of a status.
    pub fn add(&mut self, status: Status, more: u64) {
        let number = &mut self.0[Self::place(status)];
        *number = number.saturating_add(more);
    }

    /// Adds every number of `other`.
    pub fn merge(&mut self, other: &Self) {
        self.0
            .iter_mut()
            .zip(other.0)
            .for_each(|(number, more)| *number = number.saturating_add(more));
    }

    /// All together.
    pub fn sum(&self) -> u64 {
        self.0.iter().fold(0, |sum, number| sum.saturating_add(*number))
    }

    /// Each status with its number, worst first.
    pub fn iter(&self) -> impl Iterator<Item = (Status, u64)> + '_ {
        Status::WORST_FIRST.into_iter().zip(self.0)
    }
}

impl Serialize for PerStatus {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.iter().filter(|(_, number)| *number > 0))
    }
}

/// What a span of time looked like for one service.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Summary {
    /// Checks of the service by their raw status. Rounds of configured calls are left out, as
    /// [`CheckMeaning`] has it.
    pub checks: PerStatus,
    /// Those of them that failed, by their cause, the monitor's own faults included.
    pub codes: BTreeMap<FailureCode, u64>,
    /// Latencies.
    pub latency: LatencySketch,
    /// Milliseconds in each status.
    pub times: PerStatus,
}

impl Summary {
    /// Adds what `other` saw.
    pub fn merge(&mut self, other: &Self) {
        self.checks.merge(&other.checks);
        self.times.merge(&other.times);
        self.latency.merge(&other.latency);
        for (code, count) in &other.codes {
            *self.codes.entry(*code).or_default() += count;
        }
    }

    /// Counts one check with its failure code and latency, if it is an answer about the service
    /// itself.
    pub fn record(
        &mut self,
        check: CheckMeaning,
        code: Option<FailureCode>,
        latency: Option<Duration>,
    ) {
        if !check.is_of_service() {
            return;
        }
        self.checks.add(check.status, 1);
        if let Some(code) = code {
            *self.codes.entry(code).or_default() += 1;
        }
        if let Some(latency) = latency {
            self.latency.record(latency);
        }
    }

    /// Checks that are a result: those that the monitor's own faults spoiled are none.
    pub fn counted(&self) -> u64 {
        self.checks.iter().filter(|(status, _)| status.is_counted()).map(|(_, n)| n).sum()
    }

    /// Counted checks that failed.
    pub fn failed(&self) -> u64 {
        self.checks.iter().filter(|(status, _)| status.is_failure()).map(|(_, n)| n).sum()
    }

    /// The share of the time in which it was available, of that in which it was known to be or not
    /// to be: without `unknown`, `starting` and `paused`. `None` where there is no such time.
    pub fn uptime(&self) -> Option<f64> {
        let of = |wanted: fn(Status) -> bool| -> u64 {
            self.times.iter().filter(|(status, _)| wanted(*status)).map(|(_, ms)| ms).sum()
        };
        let (up, down) = (of(Status::is_available), of(Status::is_failure));
        (up + down > 0).then(|| up as f64 / (up + down) as f64)
    }
}

/// Which part of a service's past is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HistoryQuery {
    /// The service.
    pub service: ServiceName,
    /// From this moment on; a store that has only summaries of that time begins up to an hour
    /// earlier.
    pub since: Timestamp,
    /// Before this moment.
    pub until: Timestamp,
    /// The span of one point; `None` is the whole in one. Widened where the store has nothing so
    /// fine, or there would be more than [`MOST_POINTS`].
    pub step: Option<Duration>,
}

/// A service's past, in steps.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct History {
    /// Oldest first, without gaps. All but the first and last begin and end at multiples of
    /// `step`.
    pub points: Vec<HistoryPoint>,
    /// The step that was taken.
    pub step: Option<Duration>,
}

impl History {
    /// Adds the same time of another service. A point that does not lie in one of these is added to
    /// where it begins: stores give every service the same edges.
    pub fn merge(&mut self, other: &Self) {
        for point in &other.points {
            let at = self.points.partition_point(|own| own.at <= point.at).saturating_sub(1);
            match self.points.get_mut(at) {
                Some(own) => own.summary.merge(&point.summary),
                None => self.points.push(point.clone()),
            }
        }
    }

    /// All points as one.
    pub fn whole(&self) -> Summary {
        let mut whole = Summary::default();
        self.points.iter().for_each(|point| whole.merge(&point.summary));
        whole
    }
}

/// One step of a [`History`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HistoryPoint {
    /// Where it begins.
    pub at: Timestamp,
    /// Where it ends.
    pub until: Timestamp,
    /// What was in it.
    pub summary: Summary,
}

/// Where the points of a span begin and end, in ms: its edges, and multiples of the step between.
/// Also gives the step, widened until there are few enough.
pub fn edges(
    since: Timestamp,
    until: Timestamp,
    step: Option<Duration>,
) -> (Vec<i64>, Option<Duration>) {
    let (since, until) = (since.as_millis(), until.as_millis());
    if until <= since {
        return (Vec::new(), step);
    }
    let Some(step) = step else { return (vec![since, until], None) };
    let asked = i64::try_from(step.as_millis()).unwrap_or(i64::MAX).max(1);
    let least = until.saturating_sub(since) / (MOST_POINTS as i64 - 2) + 1;
    // A multiple of what was asked, so that edges stay where they are expected.
    let step = asked.saturating_mul((least + asked - 1) / asked.max(1)).max(asked);
    let mut edges = vec![since];
    let mut next = (since.div_euclid(step) + 1).saturating_mul(step);
    while next < until {
        edges.push(next);
        next = next.saturating_add(step);
    }
    edges.push(until);
    (edges, Some(Duration::from_millis(step.unsigned_abs())))
}

/// Adds up the records of one service between edges. Records may come in any order.
#[derive(Debug, Clone)]
pub struct Summarizer {
    edges: Vec<i64>,
    reach: i64,
    summaries: Vec<Summary>,
    seen: Vec<i64>,
    changes: Vec<(i64, Status)>,
    /// Failed checks, not counted yet: they may be the monitor's own fault.
    failed: Vec<FailedCheck>,
    /// Spans in which failed checks are attributed to the monitor.
    discounted: Vec<(i64, i64)>,
}

#[derive(Debug, Clone, Copy)]
struct FailedCheck {
    at: i64,
    point: usize,
    check: CheckMeaning,
    code: Option<FailureCode>,
    latency: Option<Duration>,
}

/// How far from a check, before it or behind it, a change may be stored that attributes the check to
/// the monitor ([`ChangeOrigin::discounted`]): it is stored where the discounted span begins, or
/// under the change before it. A reader of checks between two moments reads the changes from so
/// much earlier on.
pub const LATEST_DISCOUNT: Duration = Duration::from_secs(3_600);

impl Summarizer {
    /// Between `edges` (ms, rising), where a check vouches for `reach`.
    pub fn new(edges: Vec<i64>, reach: Duration) -> Self {
        let points = edges.len().saturating_sub(1);
        Self {
            edges,
            reach: i64::try_from(reach.as_millis()).unwrap_or(i64::MAX),
            summaries: vec![Summary::default(); points],
            seen: Vec::new(),
            changes: Vec::new(),
            failed: Vec::new(),
            discounted: Vec::new(),
        }
    }

    /// The earliest check that says something about the span.
    pub fn first_voucher(&self) -> Timestamp {
        let first = self.edges.first().copied().unwrap_or_default();
        Timestamp::from_millis(first.saturating_sub(self.reach))
    }

    /// Takes in a check, also one from before the first edge: it may vouch for what is behind. A
    /// round of configured calls vouches as well, and is not counted.
    pub fn check(
        &mut self,
        at: Timestamp,
        check: CheckMeaning,
        code: Option<FailureCode>,
        latency: Option<Duration>,
    ) {
        let at = at.as_millis();
        self.seen.push(at);
        let Some(point) = self.edges.partition_point(|edge| *edge <= at).checked_sub(1) else {
            return;
        };
        if check.is_failed() && point < self.summaries.len() {
            self.failed.push(FailedCheck { at, point, check, code, latency });
        } else if let Some(summary) = self.summaries.get_mut(point) {
            summary.record(check, code, latency);
        }
    }

    /// Takes in what made a change of status: failed checks may be attributed to the monitor by a
    /// change from [`LATEST_DISCOUNT`] before the first edge to as long after the last one.
    pub fn discount(&mut self, origin: &ChangeOrigin) {
        if let Some((since, until)) = origin.discounted() {
            self.discounted.push((since.as_millis(), until.as_millis()));
        }
    }

    /// Takes in a change of status, also one from before the first edge. Of two at one moment the
    /// later given counts.
    pub fn change(&mut self, at: Timestamp, status: Status) {
        self.changes.push((at.as_millis(), status));
    }

    /// The summaries between the edges.
    pub fn finish(mut self) -> Vec<Summary> {
        self.count_failed();
        self.seen.sort_unstable();
        self.changes.sort_by_key(|(at, _)| *at);
        let vouched = self.vouched();
        let (mut status, mut next) = (Status::Unknown, 0);
        let mut cover = 0;
        for (point, summary) in self.summaries.iter_mut().enumerate() {
            let (mut from, end) = (self.edges[point], self.edges[point + 1]);
            while from < end {
                while let Some((_, new)) = self.changes.get(next).filter(|(at, _)| *at <= from) {
                    (status, next) = (*new, next + 1);
                }
                let change = self.changes.get(next).map_or(i64::MAX, |(at, _)| *at);
                while vouched.get(cover).is_some_and(|(_, until)| *until <= from) {
                    cover += 1;
                }
                let (begin, until) = vouched.get(cover).copied().unwrap_or((i64::MAX, i64::MAX));
                let is_vouched = begin <= from;
                let to = end.min(change).min(if is_vouched { until } else { begin });
                let counts = is_vouched || status == Status::Paused;
                let told = if counts { status } else { Status::Unknown };
                summary.times.add(told, to.abs_diff(from));
                from = to;
            }
        }
        self.summaries
    }

    fn count_failed(&mut self) {
        for FailedCheck { at, point, check, code, latency } in self.failed.drain(..) {
            let is_ours =
                self.discounted.iter().any(|(since, until)| (since..=until).contains(&&at));
            match is_ours {
                true => {
                    let unknown = CheckMeaning { status: Status::Unknown, ..check };
                    self.summaries[point].record(unknown, None, latency);
                }
                false => self.summaries[point].record(check, code, latency),
            }
        }
    }

    /// Spans some check vouches for, rising and apart.
    fn vouched(&self) -> Vec<(i64, i64)> {
        let mut spans: Vec<(i64, i64)> = Vec::new();
        for at in &self.seen {
            let until = at.saturating_add(self.reach);
            match spans.last_mut().filter(|(_, end)| *end >= *at) {
                Some((_, end)) => *end = (*end).max(until),
                None => spans.push((*at, until)),
            }
        }
        spans
    }
}

/// Answers a [`HistoryQuery`] from single records alone: what any store can do, and what a store
/// with summaries must equal.
///
/// # Errors
///
/// When the store cannot be read.
pub async fn history_of_records(
    store: &(impl SampleStore + ?Sized),
    query: &HistoryQuery,
    reach: Duration,
) -> Result<History, StoreError> {
    let (edges, step) = edges(query.since, query.until, query.step);
    let mut summarizer = Summarizer::new(edges.clone(), reach);
    let of_service =
        || RecordQuery { until: Some(query.until), ..RecordQuery::of(query.service.clone()) };
    let discounts_end = query.until.saturating_add(LATEST_DISCOUNT);
    let mut page = RecordQuery { until: Some(discounts_end), ..of_service() };
    loop {
        let changes = store.changes(&page).await?;
        for change in &changes.items {
            if change.at < query.until {
                summarizer.change(change.at, change.status);
            }
            summarizer.discount(&change.origin);
        }
        match changes.next {
            Some(next) => page.after = Some(next),
            None => break,
        }
    }
    let mut page = of_service().since(summarizer.first_voucher());
    loop {
        let checks = store.checks(&page).await?;
        checks.items.iter().for_each(|check: &CheckRecord| {
            summarizer.check(check.at, check.meaning(), check.code, check.latency);
        });
        match checks.next {
            Some(next) => page.after = Some(next),
            None => break,
        }
    }
    Ok(History { points: points(&edges, summarizer.finish()), step })
}

/// Several services' past as one: checks and times are those of all of them, and a quantile is that
/// of all their latencies together, within the sketch's own bound. `query.service` is not looked at.
///
/// # Errors
///
/// When the store cannot be read.
pub async fn of_several(
    store: &(impl SampleStore + ?Sized),
    services: &[ServiceName],
    query: &HistoryQuery,
) -> Result<History, StoreError> {
    let mut whole: Option<History> = None;
    for service in services {
        let query = HistoryQuery { service: service.clone(), ..query.clone() };
        let one = store.history(&query).await?;
        match &mut whole {
            None => whole = Some(one),
            Some(whole) => whole.merge(&one),
        }
    }
    Ok(whole.unwrap_or(History { points: Vec::new(), step: query.step }))
}

/// Summaries with the edges they lie between.
pub fn points(edges: &[i64], summaries: Vec<Summary>) -> Vec<HistoryPoint> {
    let moment = Timestamp::from_millis;
    let spans = edges.windows(2).map(|pair| (moment(pair[0]), moment(pair[1])));
    spans.zip(summaries).map(|((at, until), summary)| HistoryPoint { at, until, summary }).collect()
}

/// By what services are ranked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Ranking {
    /// Largest p95 of latency first.
    Slowest,
    /// Most failed checks first.
    MostFailed,
    /// Least uptime first.
    LeastUptime,
}

impl Ranking {
    /// Sorts summaries and keeps the first `count`; services that have no such number go.
    pub fn top(
        self,
        mut all: Vec<(ServiceName, Summary)>,
        count: usize,
    ) -> Vec<(ServiceName, Summary)> {
        let weight = |summary: &Summary| match self {
            Self::Slowest => summary.latency.quantile(0.95).map(|p95| p95.as_secs_f64()),
            Self::MostFailed => Some(summary.failed() as f64).filter(|failed| *failed > 0.0),
            Self::LeastUptime => summary.uptime().map(|uptime| -uptime),
        };
        all.retain(|(_, summary)| weight(summary).is_some());
        all.sort_by(|(a, left), (b, right)| {
            let order = weight(right).partial_cmp(&weight(left));
            order.unwrap_or(std::cmp::Ordering::Equal).then_with(|| a.cmp(b))
        });
        all.truncate(count);
        all
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const STATUSES: [Status; 4] =
        [Status::Running, Status::Stopped, Status::Paused, Status::Degraded];

    proptest! {
        /// Millisecond for millisecond, as nobody would compute it.
        #[test]
        fn times_equal_a_walk_over_every_millisecond(
            checks in proptest::collection::vec(-50..200_i64, 0..12),
            changes in proptest::collection::vec((-50..200_i64, 0..STATUSES.len()), 0..8),
            reach in 1..40_u64,
            mut edges in proptest::collection::btree_set(0..150_i64, 2..6),
        ) {
            edges.insert(0);
            let edges: Vec<i64> = edges.into_iter().collect();
            let mut summarizer = Summarizer::new(edges.clone(), Duration::from_millis(reach));
            for at in &checks {
                summarizer.check(
                    Timestamp::from_millis(*at),
                    CheckMeaning::health(Status::Running),
                    None,
                    None,
                );
            }
            for (at, status) in &changes {
                summarizer.change(Timestamp::from_millis(*at), STATUSES[*status]);
            }
            let status_at = |now: i64| {
                let last = changes.iter().filter(|(at, _)| *at <= now).max_by_key(|(at, _)| *at);
                let status = last.map_or(Status::Unknown, |(_, status)| STATUSES[*status]);
                let vouched = checks.iter().any(|at| *at <= now && now < at + reach as i64);
                if vouched || status == Status::Paused { status } else { Status::Unknown }
            };
            for (span, summary) in edges.windows(2).zip(summarizer.finish()) {
                let mut times = PerStatus::default();
                (span[0]..span[1]).for_each(|now| times.add(status_at(now), 1));
                prop_assert_eq!(summary.times, times);
                let inside = checks.iter().filter(|at| (span[0]..span[1]).contains(*at));
                prop_assert_eq!(summary.checks.sum(), inside.count() as u64);
            }
        }
    }

    #[test]
    fn edges_are_multiples_of_the_step_and_bounded_in_number() {
        let at = Timestamp::from_millis;
        let step = |ms| Some(Duration::from_millis(ms));
        assert_eq!(edges(at(25), at(47), step(10)), (vec![25, 30, 40, 47], step(10)));
        assert_eq!(edges(at(20), at(40), step(10)), (vec![20, 30, 40], step(10)));
        assert_eq!(edges(at(20), at(40), None), (vec![20, 40], None));
        assert!(edges(at(40), at(40), step(10)).0.is_empty());
        let (many, widened) = edges(at(0), at(1_000_000), step(10));
        assert!(many.len() <= MOST_POINTS + 1 && widened > step(10), "{}", many.len());
    }

    #[test]
    fn our_own_absence_is_no_downtime() {
        let at = |second: i64| Timestamp::from_millis(second * 1_000);
        let mut summarizer = Summarizer::new(vec![0, 3_600_000], Duration::from_secs(90));
        summarizer.change(at(0), Status::Running);
        summarizer.change(at(600), Status::Stopped);
        // Asked every 30 s for 20 minutes, then asleep.
        (0..=40).for_each(|n| {
            summarizer.check(at(n * 30), CheckMeaning::health(Status::Running), None, None);
        });
        let summary = summarizer.finish().remove(0);
        assert_eq!(summary.times.get(Status::Running), 600_000);
        assert_eq!(summary.times.get(Status::Stopped), 690_000);
        assert_eq!(summary.times.get(Status::Unknown), 2_310_000);
        assert_eq!(summary.uptime(), Some(600.0 / 1_290.0));
    }
}
