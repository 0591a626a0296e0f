//! Spans of time, from rollups where they say it all and from single checks where they do not.
//!
//! A question is cut into cells, whole hours or quarters between its points' edges. A cell that is
//! summed up is taken from its rollup; the rest (what is newer, what is stale, what the edges cut)
//! from single records. Where single checks are gone, edges move out to the next whole cell.

use std::collections::HashMap;
use std::ops::Range;
use std::time::Duration;

use mcpmon_core::store::history::{self, points};
use mcpmon_core::store::{History, HistoryQuery, Summary};
use mcpmon_core::{ServiceName, Status, Timestamp};
use rusqlite::Connection;

use crate::rollup::{self, Grain, HOUR, Progress, QUARTER};
use crate::services::Words;
use crate::summary::Adder;

/// Packed summaries held at once, of some sixty bytes each.
const HELD_ROWS: usize = if cfg!(test) { 16 } else { 1 << 16 };

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
    let mut found = rolled_up(connection, words, &plan.rolled, all)?;
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

/// The rollups of some cells, added up for each service.
fn rolled_up(
    connection: &Connection,
    words: &Words,
    cells: &[(Grain, i64)],
    (first, last): (i64, i64),
) -> rusqlite::Result<HashMap<i64, Summary>> {
    let mut found = HashMap::new();
    let mut adder = Adder::default();
    let mut bytes: Vec<u8> = Vec::new();
    let mut packed: Vec<(i64, Grain, i64, Range<usize>)> = Vec::new();
    // Rows lie cell by cell, and are added up service by service: of so many services at once as
    // can be held.
    let at_once = (HELD_ROWS / cells.len().max(1)).max(1) as i64;
    let mut begin = first;
    while begin <= last {
        let end = last.min(begin + at_once - 1);
        for (grain, number) in cells {
            rollup::each_packed(connection, *grain, *number, (begin, end), |service, row| {
                let from = bytes.len();
                bytes.extend_from_slice(row);
                packed.push((service, *grain, *number, from..bytes.len()));
            })?;
        }
        packed.sort_by_key(|(service, ..)| *service);
        for rows in packed.chunk_by(|(one, ..), (next, ..)| one == next) {
            for (service, grain, number, row) in rows {
                if adder.add(&bytes[row.clone()], words, grain.length()).is_none() {
                    rollup::warn_damaged(*grain, *number, *service);
                }
            }
            found.insert(rows[0].0, adder.finish());
        }
        packed.clear();
        bytes.clear();
        begin = end + 1;
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use mcpmon_core::FailureCode;
    use mcpmon_core::observation::Question;
    use mcpmon_core::state::{ChangeOrigin, StatusChange};
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
        minutes_behind(MIDNIGHT, minute)
    }

    fn minutes_behind(begin: i64, minute: i64) -> Timestamp {
        Timestamp::from_millis(begin + minute * 60_000)
    }

    /// Year, month and day.
    type Day = (i16, i8, i8);

    /// Zones whose clocks change, as rules rather than names, so that no table of zones is needed:
    /// by an hour in Europe and America, by half an hour on an island.
    const ZONES: [(&str, [Day; 2]); 3] = [
        ("CET-1CEST,M3.5.0,M10.5.0/3", [(2026, 3, 29), (2026, 10, 25)]),
        ("EST5EDT,M3.2.0,M11.1.0", [(2026, 3, 8), (2026, 11, 1)]),
        ("<+1030>-10:30<+11>-11,M10.1.0,M4.1.0", [(2026, 4, 5), (2026, 10, 4)]),
    ];

    /// Where the days around a change of the clocks begin, and how long the middle one is.
    fn days_around(zone: usize, change: usize) -> (Vec<i64>, Duration) {
        let (rule, changes) = ZONES[zone];
        let zone = jiff::tz::TimeZone::posix(rule).unwrap();
        let (year, month, day) = changes[change];
        let day = jiff::civil::date(year, month, day).at(0, 0, 0, 0);
        let begins = (-1..=2).map(|days| {
            let midnight = day.checked_add(jiff::Span::new().days(days)).unwrap();
            midnight.to_zoned(zone.clone()).unwrap().timestamp().as_millisecond()
        });
        let begins: Vec<i64> = begins.collect();
        let length = Duration::from_millis(begins[2].abs_diff(begins[1]));
        (begins, length)
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
        /// The monitor notices that its network was lost so many minutes ago. The change is stored
        /// later than that by a part of them, in percent, as it is behind another change.
        Offline {
            service: usize,
            minutes: i64,
            later: i64,
        },
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
            3 => (0..SERVICES.len(), 0..60_i64, prop_oneof![Just(0_i64), 0..100_i64])
                .prop_map(|(service, minutes, later)| Event::Offline { service, minutes, later }),
            1 => Just(Event::Restart),
            4 => (1..12_usize).prop_map(Event::Upkeep),
        ];
        proptest::collection::vec(event, 1..30)
    }

    /// Everything that was ever appended.
    struct Oracle {
        /// The moment minutes are counted from, in ms.
        begin: i64,
        checks: Vec<CheckRecord>,
        changes: Vec<StatusChange>,
    }

    impl Oracle {
        fn from(begin: i64) -> Self {
            Self { begin, checks: Vec::new(), changes: Vec::new() }
        }

        fn summaries(&self, service: &str, edges: &[i64]) -> Vec<Summary> {
            let mut sums = Summarizer::new(edges.to_vec(), reach(None));
            for check in self.checks.iter().filter(|check| check.service.as_str() == service) {
                sums.check(check.at, check.meaning(), check.code, check.latency);
            }
            for change in self.changes.iter().filter(|change| change.service.as_str() == service) {
                sums.change(change.at, change.status);
                sums.discount(&change.origin);
            }
            sums.finish()
        }

        async fn play(&mut self, path: &std::path::Path, events: &[Event]) -> SqliteStore {
            let mut store = SqliteStore::open(path, OpenOptions::default()).unwrap();
            let begin = self.begin;
            let at = |minute| minutes_behind(begin, minute);
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
                        origin: Default::default(),
                    }),
                    Event::Offline { service, minutes, later } => {
                        let moment = at(now - minutes + minutes * later / 100);
                        batch.changes.push(StatusChange {
                            service: SERVICES[*service].into(),
                            at: moment,
                            from: Status::Running,
                            status: Status::Unknown,
                            since: moment,
                            failure: None,
                            findings: Vec::new(),
                            origin: ChangeOrigin::Offline {
                                failed_since: at(now - minutes),
                                noticed_at: at(now),
                            },
                        });
                    }
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
                let mut oracle = Oracle::from(MIDNIGHT);
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

        /// Days of 23, 23.5, 24.5 and 25 hours, where clocks are put forward or back.
        #[test]
        fn days_on_which_clocks_change_are_exact_and_whole(
            events in events(),
            zone in 0..ZONES.len(),
            change in 0..2_usize,
            service in 0..SERVICES.len(),
            before in 0..1_500_i64,
        ) {
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            runtime.block_on(async {
                let (days, length) = days_around(zone, change);
                let usual = Duration::from_secs(86_400);
                assert_ne!(length, usual);
                let directory = tempfile::tempdir().unwrap();
                let mut oracle = Oracle::from(days[1] - before * 60_000);
                let store = oracle.play(&directory.path().join("mcpmon.db"), &events).await;
                let name = SERVICES[service];
                for is_summed_up in [false, true] {
                    while is_summed_up && store.prune(&PrunePlan::default()).await.unwrap().more {}
                    for (number, day) in days.windows(2).enumerate() {
                        let query = HistoryQuery {
                            service: name.into(),
                            since: Timestamp::from_millis(day[0]),
                            until: Timestamp::from_millis(day[1]),
                            step: None,
                        };
                        let found = store.history(&query).await.unwrap().whole();
                        let expected = oracle.summaries(name, day).remove(0);
                        assert_eq!(found, expected, "day {number}");
                        let whole = if number == 1 { length } else { usual };
                        assert_eq!(u128::from(found.times.sum()), whole.as_millis());
                        assert_eq!(found.uptime(), expected.uptime());
                    }
                }
            });
        }
    }
}
