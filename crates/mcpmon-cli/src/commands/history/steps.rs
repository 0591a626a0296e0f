//! Where the rows of a history begin and end, by the clock on the wall.
//!
//! A day is what people call one: from midnight to midnight where they live, 23 or 25 hours long
//! when the clocks change. Stores count in whole quarters and hours of UTC, so they are asked for
//! those, and what they answer is added up here. Sums are exact wherever local midnights fall on
//! quarters of an hour, which is everywhere today.

use std::time::Duration;

use jiff::ToSpan as _;
use jiff::civil::{Date, Time};
use jiff::tz::TimeZone;
use mcpmon_core::Timestamp;
use mcpmon_core::store::history::{MOST_POINTS, points};
use mcpmon_core::store::{History, Summary};

/// Rows a table has at most where no step is named.
const ROWS: u64 = 24;
/// Steps people count in, in seconds.
const USUAL: [u64; 13] = [
    60, 300, 900, 1_800, 3_600, 10_800, 21_600, 43_200, 86_400, 172_800, 604_800, 1_209_600,
    2_592_000,
];
const DAY: u64 = 86_400;
const HOUR: u64 = 3_600;
const QUARTER: u64 = 900;
/// A Monday, so that rows of seven days are weeks.
const FIRST_DAY: Date = Date::constant(1970, 1, 5);

/// The finest usual step that makes no more than [`ROWS`] rows.
pub(super) fn usual(span: Duration) -> Duration {
    let enough = |step: &&u64| span.as_secs() <= **step * ROWS;
    Duration::from_secs(*USUAL.iter().find(enough).unwrap_or(&USUAL[USUAL.len() - 1]))
}

/// Where rows begin and end if the zone matters to them: whole days, and parts of a day longer than
/// an hour. Between `since` and `until`, both included; in ms.
pub(super) fn local_edges(
    since: Timestamp,
    until: Timestamp,
    step: Duration,
    zone: &TimeZone,
) -> Option<Vec<i64>> {
    let seconds = step.as_secs();
    let is_local = seconds.is_multiple_of(DAY) || (seconds > HOUR && DAY.is_multiple_of(seconds));
    let rows = until.since(since).as_secs() / seconds.max(1);
    if step.subsec_nanos() > 0 || !is_local || rows >= MOST_POINTS as u64 - 2 {
        return None;
    }
    let first = jiff::Timestamp::from_millisecond(since.as_millis()).ok()?;
    let today = first.to_zoned(zone.clone()).date();
    let days = i64::try_from((seconds / DAY).max(1)).ok()?;
    let number = i64::from(FIRST_DAY.until(today).ok()?.get_days());
    let mut day = today.checked_sub((number.rem_euclid(days)).days()).ok()?;
    let mut edges = vec![since.as_millis()];
    loop {
        for part in 0..(DAY / seconds).max(1) {
            let hour = i8::try_from(part * seconds / HOUR).ok()?;
            let minute = i8::try_from(part * seconds % HOUR / 60).ok()?;
            let at = day.to_datetime(Time::new(hour, minute, 0, 0).ok()?);
            let at = zone.to_ambiguous_zoned(at).compatible().ok()?.timestamp().as_millisecond();
            if at >= until.as_millis() {
                edges.push(until.as_millis());
                return Some(edges);
            }
            // A time that the clocks skip is the next that exists: once.
            if edges.last().is_some_and(|last| at > *last) {
                edges.push(at);
            }
        }
        day = day.checked_add(days.days()).ok()?;
    }
}

/// The step a store is asked for so that its points can be added up between these edges.
pub(super) fn finest(edges: &[i64]) -> Duration {
    let inner = edges.get(1..edges.len().saturating_sub(1)).unwrap_or_default();
    let hour = i64::try_from(HOUR * 1_000).unwrap_or(i64::MAX);
    let is_whole = inner.iter().all(|edge| edge.rem_euclid(hour) == 0);
    Duration::from_secs(if is_whole { HOUR } else { QUARTER })
}

/// A span in parts that a store answers in steps of `step`, a quarter or an hour, without widening
/// them. They meet on whole hours, so that no point lies in two of them.
pub(super) fn stretches(
    since: Timestamp,
    until: Timestamp,
    step: Duration,
) -> Vec<(Timestamp, Timestamp)> {
    let hour = Duration::from_secs(HOUR).as_millis() as i64;
    let most = step.as_millis() as i64 * (MOST_POINTS as i64 - 2);
    let length = (most / hour - 1).max(1) * hour;
    let (mut begin, end) = (since.as_millis(), until.as_millis());
    let mut stretches = Vec::new();
    while begin < end {
        let next = (begin.div_euclid(hour) * hour).saturating_add(length).min(end);
        stretches.push((Timestamp::from_millis(begin), Timestamp::from_millis(next)));
        begin = next;
    }
    stretches
}

/// Adds a store's points up between other edges. A point belongs to where it begins.
pub(super) fn gather(history: &History, edges: &[i64], step: Duration) -> History {
    let mut sums = vec![Summary::default(); edges.len().saturating_sub(1)];
    for point in &history.points {
        let at = edges.partition_point(|edge| *edge <= point.at.as_millis());
        // What a store has only in whole hours may begin before the first edge.
        let place = at.saturating_sub(1).min(sums.len().saturating_sub(1));
        if let Some(sum) = sums.get_mut(place) {
            sum.merge(&point.summary);
        }
    }
    let mut points = points(edges, sums);
    if let (Some(first), Some(given)) = (points.first_mut(), history.points.first()) {
        first.at = first.at.min(given.at);
    }
    History { points, step: Some(step) }
}

#[cfg(test)]
mod tests {
    use mcpmon_core::Status;
    use mcpmon_core::store::history::edges;

    use super::*;

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    /// Hours between the edges of a span of local time, by step.
    #[track_caller]
    fn check(zone: &str, since: &str, until: &str, step_hours: u64, hours: &[f64]) {
        let zone = TimeZone::get(zone).unwrap();
        let step = Duration::from_secs(step_hours * HOUR);
        let edges = local_edges(at(since), at(until), step, &zone).unwrap();
        let found: Vec<_> = edges.windows(2).map(|e| (e[1] - e[0]) as f64 / 3_600_000.0).collect();
        assert_eq!(found, hours, "{since} to {until} in {zone:?}");
    }

    #[test]
    fn a_day_is_what_the_clock_on_the_wall_makes_of_it() {
        let berlin = "Europe/Berlin";
        check(berlin, "2026-03-27T23:00:00Z", "2026-03-30T22:00:00Z", 24, &[24.0, 23.0, 24.0]);
        check(berlin, "2026-10-23T22:00:00Z", "2026-10-26T23:00:00Z", 24, &[24.0, 25.0, 24.0]);
        check(berlin, "2026-10-24T22:00:00Z", "2026-10-25T23:00:00Z", 12, &[13.0, 12.0]);
        check(berlin, "2026-03-28T23:00:00Z", "2026-03-29T10:00:00Z", 3, &[2.0, 3.0, 3.0, 3.0]);
        check(berlin, "2026-11-22T10:30:00Z", "2026-11-23T12:00:00Z", 24, &[12.5, 13.0]);
        check("Asia/Kolkata", "2026-11-22T00:00:00Z", "2026-11-23T18:30:00Z", 24, &[18.5, 24.0]);
        // Midnight does not exist on the day the clocks change in Beirut.
        check("Asia/Beirut", "2026-03-27T22:00:00Z", "2026-03-29T21:00:00Z", 24, &[24.0, 23.0]);
    }

    #[test]
    fn seven_days_are_a_week_and_hours_know_no_zone() {
        let zone = TimeZone::get("Europe/Berlin").unwrap();
        let week = Duration::from_secs(7 * DAY);
        let (since, until) = (at("2026-11-18T12:00:00Z"), at("2026-12-02T12:00:00Z"));
        let edges = local_edges(since, until, week, &zone).unwrap();
        let mondays = [at("2026-11-22T23:00:00Z"), at("2026-11-29T23:00:00Z")];
        assert_eq!(edges[1..3], mondays.map(Timestamp::as_millis));
        for hours in [1_u64, 5, 7] {
            let step = Duration::from_secs(hours * HOUR);
            assert_eq!(local_edges(since, until, step, &zone), None, "{hours} h");
        }
    }

    #[test]
    fn days_add_up_to_the_hours_they_have() {
        let zone = TimeZone::get("Europe/Berlin").unwrap();
        let (since, until) = (at("2026-10-24T05:20:00Z"), at("2026-10-26T10:00:00Z"));
        let day = Duration::from_secs(DAY);
        let local = local_edges(since, until, day, &zone).unwrap();
        let (fine, step) = edges(since, until, Some(finest(&local)));
        let hours = fine.windows(2).map(|edge| {
            let mut summary = Summary::default();
            summary.times.add(Status::Running, edge[1].abs_diff(edge[0]));
            summary
        });
        let hourly = History { points: points(&fine, hours.collect()), step };
        let daily = gather(&hourly, &local, day);
        for point in &daily.points {
            let known = Duration::from_millis(point.summary.times.sum());
            assert_eq!(known, point.until.since(point.at), "{}", point.at);
        }
        assert_eq!(daily.whole(), hourly.whole());
        assert_eq!(daily.points.len(), 3);
    }

    #[test]
    fn years_are_asked_for_in_parts_as_fine_as_a_midnight_needs() {
        let (since, until) = (at("2024-02-03T04:05:06Z"), at("2026-11-23T12:00:00Z"));
        let day = Duration::from_secs(DAY);
        for (zone, step) in [("Asia/Kolkata", QUARTER), ("Europe/Berlin", HOUR)] {
            let zone = TimeZone::get(zone).unwrap();
            let step = Duration::from_secs(step);
            let local = local_edges(since, until, day, &zone).unwrap();
            assert_eq!(finest(&local), step);
            let parts = stretches(since, until, step);
            assert!(parts.len() > 1 && parts.windows(2).all(|pair| pair[0].1 == pair[1].0));
            assert_eq!((parts[0].0, parts[parts.len() - 1].1), (since, until));
            let mut fine = Vec::new();
            for (since, until) in parts {
                let (edges, taken) = edges(since, until, Some(step));
                assert_eq!(taken, Some(step), "not widened");
                fine.extend(edges);
            }
            let inner = &local[1..local.len() - 1];
            assert!(inner.iter().all(|midnight| fine.binary_search(midnight).is_ok()));
        }
        assert_eq!(stretches(until, until, day), []);
    }

    #[test]
    fn about_two_dozen_rows_if_no_step_is_named() {
        for (hours, step) in [(1, 300), (24, 3_600), (24 * 7, 43_200), (24 * 30, 172_800)] {
            assert_eq!(usual(Duration::from_secs(hours * 3_600)).as_secs(), step, "{hours} h");
        }
    }
}
