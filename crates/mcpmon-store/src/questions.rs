//! Spans of time, from rollups where they say it all and from single checks where they do not.
//!
//! A question is cut into cells, whole hours or quarters between its points' edges. A cell that is
//! summed up is taken from its rollup; the rest (what is newer, what is stale, what the edges cut)
//! from single records. Where single checks are gone, edges move out to the next whole cell.

use std::collections::HashMap;
use std::time::Duration;

use mcpmon_core::store::history::{self, points};
use mcpmon_core::store::{History, HistoryQuery, Summary};
use mcpmon_core::{ServiceName, Status, Timestamp};
use rusqlite::Connection;

use crate::rollup::{self, Grain, HOUR, Progress, QUARTER};
use crate::services::Words;

/// Where each resolution begins, in ms; what is summed up for everybody ends at `rolled`.
#[derive(Debug, Clone, Copy)]
struct Reach {
    raw: i64,
    quarters: i64,
    rolled: i64,
}

impl Reach {
    fn load(connection: &Connection) -> rusqlite::Result<Self> {
        let sql = "SELECT min(min_at) FROM
                       (SELECT min(min_at) AS min_at FROM head_mark WHERE kept > 0
                        UNION ALL SELECT min(max(min_at, pruned)) FROM chunk WHERE pruned <= max_at)";
        let oldest: Option<i64> =
            connection.prepare_cached(sql)?.query_row([], |row| row.get(0))?;
        let rolled = Progress::load(connection)?.until();
        // A clock that was far ahead for a while pruned everything; what came since is whole.
        let begins = |key, oldest: Option<i64>| {
            let from = rollup::pruned_before(connection, key)?;
            Ok::<_, rusqlite::Error>(from.map(|from| from.min(oldest.unwrap_or(i64::MAX))))
        };
        // Checks near the edge are vouched for by some that are gone.
        let raw =
            begins(rollup::RAW_FROM, oldest)?.map_or(i64::MIN, |raw| raw.saturating_add(HOUR));
        let oldest = rollup::oldest(connection, Grain::Quarter)?;
        let quarters = begins(rollup::QUARTERS_FROM, oldest)?.unwrap_or(i64::MIN);
        Ok(Self { raw, quarters, rolled })
    }

    /// The finest there is from `since` on.
    fn finest(self, since: i64) -> Option<Grain> {
        if since >= self.raw {
            None
        } else if since >= self.quarters {
            Some(Grain::Quarter)
        } else {
            Some(Grain::Hour)
        }
    }
}

/// The largest cell whose multiples all edges between the first and last are.
fn grain_of(step: Option<Duration>) -> Option<Grain> {
    let step = step.map_or(0, |step| i64::try_from(step.as_millis()).unwrap_or(0));
    match step {
        _ if step % HOUR == 0 => Some(Grain::Hour),
        _ if step % QUARTER == 0 => Some(Grain::Quarter),
        _ => None,
    }
}

/// A service's past in steps.
pub(crate) fn history(
    connection: &Connection,
    words: &Words,
    query: &HistoryQuery,
) -> rusqlite::Result<History> {
    let reach = Reach::load(connection)?;
    let mut query = query.clone();
    if let Some(finest) = reach.finest(query.since.as_millis()) {
        let length = finest.length();
        let whole = query.since.as_millis().div_euclid(length) * length;
        query.since = Timestamp::from_millis(whole);
        query.step = query.step.map(|step| widen(step, length));
    }
    let (edges, step) = history::edges(query.since, query.until, query.step);
    let mut summaries = vec![Summary::default(); edges.len().saturating_sub(1)];
    let (Some(since), Some(until)) = (edges.first().copied(), edges.last().copied()) else {
        return Ok(History { points: Vec::new(), step });
    };
    let service = words.number_of(&query.service).unwrap_or(0);
    let only = (service, service);
    let plan = Cells::plan(connection, reach, only, (since, until), grain_of(step))?;
    let point = |at: i64| edges.partition_point(|edge| *edge <= at) - 1;
    for (grain, number) in &plan.rolled {
        let mut found = Summary::default();
        rollup::each(connection, words, *grain, *number, only, |_, summary| found = summary)?;
        fill(&mut found, grain.length());
        summaries[point(number * grain.length())].merge(&found);
    }
    for (from, to) in &plan.raw {
        let mut inner = vec![*from];
        inner.extend(edges.iter().copied().filter(|edge| edge > from && edge < to));
        inner.push(*to);
        let found = rollup::from_records(connection, words, only, &inner)?.pop();
        let found = found.map_or_else(|| vec![Summary::default(); inner.len() - 1], |(_, all)| all);
        for (span, mut summary) in inner.windows(2).zip(found) {
            fill(&mut summary, span[1] - span[0]);
            summaries[point(span[0])].merge(&summary);
        }
    }
    Ok(History { points: points(&edges, summaries), step })
}

fn widen(step: Duration, length: i64) -> Duration {
    let length = length.unsigned_abs();
    let step = u64::try_from(step.as_millis()).unwrap_or(u64::MAX);
    Duration::from_millis(step.div_ceil(length).max(1).saturating_mul(length))
}

/// Time nothing is known of is `unknown`.
fn fill(summary: &mut Summary, length: i64) {
    let known = summary.times.sum();
    summary.times.add(Status::Unknown, length.unsigned_abs().saturating_sub(known));
}

/// What is taken from where.
struct Cells {
    rolled: Vec<(Grain, i64)>,
    /// Spans of single records, apart and in order.
    raw: Vec<(i64, i64)>,
}

impl Cells {
    fn plan(
        connection: &Connection,
        reach: Reach,
        services: (i64, i64),
        (since, until): (i64, i64),
        grain: Option<Grain>,
    ) -> rusqlite::Result<Self> {
        let mut cells = Self { rolled: Vec::new(), raw: Vec::new() };
        let rolled_until = reach.rolled.min(until);
        let Some(grain) = grain.filter(|_| since < rolled_until) else {
            cells.push_raw(since, until);
            return Ok(cells);
        };
        let stale = rollup::stale_hours(connection, services, since, until)?;
        let is_stale = |at: i64| stale.binary_search(&at.div_euclid(HOUR)).is_ok();
        let begin = rollup::begin(connection)?;
        let mut at = since;
        while at < until {
            let hour_end = (at.div_euclid(HOUR) + 1) * HOUR;
            let quarter_end = (at.div_euclid(QUARTER) + 1) * QUARTER;
            // Stale or not: where single checks are gone, the rollup is all there is.
            let usable = at >= begin && !is_stale(at) || at < reach.raw;
            if usable && grain == Grain::Hour && at % HOUR == 0 && hour_end <= rolled_until {
                cells.rolled.push((Grain::Hour, at / HOUR));
                at = hour_end;
            } else if usable
                && at >= reach.quarters
                && at % QUARTER == 0
                && quarter_end <= rolled_until
            {
                cells.rolled.push((Grain::Quarter, at / QUARTER));
                at = quarter_end;
            } else {
                let end = quarter_end.min(until);
                cells.push_raw(at, end);
                at = end;
            }
        }
        Ok(cells)
    }

    fn push_raw(&mut self, from: i64, to: i64) {
        match self.raw.last_mut().filter(|(_, end)| *end == from) {
            Some((_, end)) => *end = to,
            None => self.raw.push((from, to)),
        }
    }
}

/// Every service's summary of a span, by name.
pub(crate) fn summaries(
    connection: &Connection,
    words: &Words,
    since: Timestamp,
    until: Timestamp,
) -> rusqlite::Result<Vec<(ServiceName, Summary)>> {
    let reach = Reach::load(connection)?;
    let (since, until) = (since.as_millis(), until.as_millis());
    if until <= since {
        return Ok(Vec::new());
    }
    let length = reach.finest(since).unwrap_or(Grain::Quarter).length();
    let since = since.div_euclid(length) * length;
    let last = words.services_end() as i64 - 1;
    let all = (1, last);
    let plan = Cells::plan(connection, reach, all, (since, until), Some(Grain::Hour))?;
    let mut found: HashMap<i64, Summary> = HashMap::new();
    for (grain, number) in &plan.rolled {
        rollup::each(connection, words, *grain, *number, all, |service, summary| {
            found.entry(service).or_default().merge(&summary);
        })?;
    }
    for (from, to) in &plan.raw {
        for (service, summaries) in rollup::from_records(connection, words, all, &[*from, *to])? {
            let whole = found.entry(service).or_default();
            summaries.iter().for_each(|summary| whole.merge(summary));
        }
    }
    let named = (1..=last).filter_map(|service| {
        let mut summary = found.remove(&service).unwrap_or_default();
        fill(&mut summary, until - since);
        Some((words.service(service)?.clone(), summary))
    });
    let mut named: Vec<_> = named.collect();
    named.sort_by(|(a, _), (b, _)| a.cmp(b));
    Ok(named)
}

#[cfg(test)]
mod tests {
    use mcpmon_core::FailureCode;
    use mcpmon_core::observation::Question;
    use mcpmon_core::state::StatusChange;
    use mcpmon_core::store::history::{Summarizer, reach};
    use mcpmon_core::store::{Batch, CheckRecord, PrunePlan, SampleStore};
    use mcpmon_testkit::samples;
    use proptest::prelude::*;

    use super::*;
    use crate::{OpenOptions, SqliteStore};

    /// Midnight of some day; minutes of it are what the tests count in.
    const MIDNIGHT: i64 = 20_000 * 24 * HOUR;
    const SERVICES: [&str; 3] = ["a", "b", "c"];

    fn at(minute: i64) -> Timestamp {
        Timestamp::from_millis(MIDNIGHT + minute * 60_000)
    }

    #[derive(Debug, Clone)]
    enum Event {
        /// All services are asked every minute, so many times.
        Asked {
            times: i64,
            latency: u64,
            fails: bool,
        },
        /// Nobody looks for so many minutes: asleep, or not running.
        Gap(i64),
        /// The clock jumps by so many minutes, mostly back.
        Step(i64),
        Status(usize, Status),
        Restart,
        Upkeep(usize),
    }

    fn events() -> impl Strategy<Value = Vec<Event>> {
        let statuses = [Status::Running, Status::Stopped, Status::Paused, Status::Unknown];
        let event = prop_oneof![
            6 => (1..50_i64, 1..60_000_u64, any::<bool>())
                .prop_map(|(times, latency, fails)| Event::Asked { times, latency, fails }),
            2 => (1..200_i64).prop_map(Event::Gap),
            1 => (-150..60_i64).prop_map(Event::Step),
            4 => (0..SERVICES.len(), 0..statuses.len())
                .prop_map(move |(service, status)| Event::Status(service, statuses[status])),
            1 => Just(Event::Restart),
            4 => (1..12_usize).prop_map(Event::Upkeep),
        ];
        proptest::collection::vec(event, 1..30)
    }

    /// Everything that was ever appended.
    #[derive(Default)]
    struct Oracle {
        checks: Vec<CheckRecord>,
        changes: Vec<StatusChange>,
    }

    impl Oracle {
        fn summaries(&self, service: &str, edges: &[i64]) -> Vec<Summary> {
            let mut sums = Summarizer::new(edges.to_vec(), reach(None));
            for check in self.checks.iter().filter(|check| check.service.as_str() == service) {
                sums.check(check.at, check.status, check.code, check.latency);
            }
            for change in self.changes.iter().filter(|change| change.service.as_str() == service) {
                sums.change(change.at, change.status);
            }
            sums.finish()
        }

        async fn play(&mut self, path: &std::path::Path, events: &[Event]) -> SqliteStore {
            let mut store = SqliteStore::open(path, OpenOptions::default()).unwrap();
            let mut now = 0;
            for event in events {
                let mut batch = Batch::default();
                match event {
                    Event::Asked { times, latency, fails } => {
                        for n in 0..*times {
                            now += 1;
                            for (place, service) in (0_u64..).zip(SERVICES) {
                                let micros = latency * 10 * (place + 1) + n as u64 * 500;
                                let check = CheckRecord {
                                    latency: Some(Duration::from_micros(micros)),
                                    question: Question::Health,
                                    ..samples::check(service, at(now))
                                };
                                let code = FailureCode::ConnectionRefused;
                                batch.checks.push(match *fails && n % 7 == 0 {
                                    true => samples::failed_check(service, at(now), code),
                                    false => check,
                                });
                            }
                        }
                    }
                    Event::Gap(minutes) => now += minutes,
                    Event::Step(minutes) => now += minutes,
                    Event::Status(service, status) => batch.changes.push(StatusChange {
                        service: SERVICES[*service].into(),
                        at: at(now),
                        from: Status::Unknown,
                        status: *status,
                        since: at(now),
                        failure: None,
                        findings: Vec::new(),
                    }),
                    Event::Restart => {
                        drop(store);
                        store = SqliteStore::open(path, OpenOptions::default()).unwrap();
                    }
                    Event::Upkeep(steps) => {
                        for _ in 0..*steps {
                            store.prune(&PrunePlan::default()).await.unwrap();
                        }
                    }
                }
                store.append(&batch).await.unwrap();
                self.checks.extend(batch.checks);
                self.changes.extend(batch.changes);
            }
            store
        }
    }

    #[track_caller]
    fn assert_equal(found: &History, expected: &[Summary]) {
        assert_eq!(found.points.len(), expected.len());
        for (point, expected) in found.points.iter().zip(expected) {
            assert_eq!(&point.summary, expected, "from {} to {}", point.at, point.until);
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]

        /// Across clocks that step, sleep, maintenance and restarts.
        #[test]
        fn every_answer_equals_the_one_from_single_records(
            events in events(),
            service in 0..SERVICES.len(),
            since in -30..400_i64,
            span in 1..900_i64,
            step in proptest::option::of(prop_oneof![Just(5_i64), Just(15), Just(45), Just(60), Just(180)]),
        ) {
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            runtime.block_on(async {
                let directory = tempfile::tempdir().unwrap();
                let mut oracle = Oracle::default();
                let store = oracle.play(&directory.path().join("mcpmon.db"), &events).await;
                let name = SERVICES[service];
                let query = |since: i64, until: i64| HistoryQuery {
                    service: name.into(),
                    since: at(since),
                    until: at(until),
                    step: step.map(|minutes| Duration::from_secs(minutes as u64 * 60)),
                };
                let asked = query(since, since + span);
                let (edges, _) = history::edges(asked.since, asked.until, asked.step);
                let expected = oracle.summaries(name, &edges);
                assert_equal(&store.history(&asked).await.unwrap(), &expected);

                while store.prune(&PrunePlan::default()).await.unwrap().more {}
                assert_equal(&store.history(&asked).await.unwrap(), &expected);

                let all = store.summaries(at(0), at(600)).await.unwrap();
                for (name, summary) in all {
                    let whole = oracle.summaries(name.as_str(), &[MIDNIGHT, at(600).as_millis()]);
                    assert_eq!(summary.times, whole[0].times, "{name}");
                    assert_eq!(summary, whole[0], "{name}");
                }

                // Without single checks, whole hours say the same.
                let plan = PrunePlan { checks_before: Some(at(300)), ..PrunePlan::default() };
                while store.prune(&plan).await.unwrap().more {}
                let hours = HistoryQuery { step: Some(Duration::from_secs(3_600)), ..query(0, 300) };
                let (edges, _) = history::edges(hours.since, hours.until, hours.step);
                let progress = oracle.checks.iter().map(|check| check.at).max();
                if progress.is_some_and(|newest| newest > at(320)) {
                    let found = store.history(&hours).await.unwrap();
                    assert_equal(&found, &oracle.summaries(name, &edges));
                }
                let report = store.check().await.unwrap();
                assert!(report.ok, "{:?}", report.problems);
            });
        }
    }
}
