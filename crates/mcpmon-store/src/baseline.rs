//! The question of baselines: what hours of some services were like, from the rollups of an hour.
//!
//! Rollups lie hour by hour, and within one by service, so a question is one short range for each
//! hour and services that lie together are read together. What is not summed up yet is left out:
//! a baseline of weeks does not want the last minutes.

use std::collections::HashMap;

use mcpmon_core::store::{HourSample, HoursQuery, ServiceHours};
use rusqlite::Connection;

use crate::rollup::{self, Grain};
use crate::services::Words;

/// Services whose numbers lie no further apart are read in one go: rows between them cost less than
/// finding the next.
const NEAR: i64 = 16;

/// The hours that are asked for, by service.
pub(crate) fn hours(
    connection: &Connection,
    words: &Words,
    query: &HoursQuery,
) -> rusqlite::Result<Vec<ServiceHours>> {
    let named: HashMap<i64, usize> = (0..)
        .zip(&query.services)
        .filter_map(|(place, name)| Some((words.number_of(name)?, place)))
        .collect();
    let mut found: Vec<Vec<HourSample>> = vec![Vec::new(); query.services.len()];
    let mut numbers: Vec<i64> = named.keys().copied().collect();
    numbers.sort_unstable();
    let ranges = ranges(&numbers);
    for hour in query.hours() {
        for range in &ranges {
            rollup::each(connection, words, Grain::Hour, hour, *range, |service, summary| {
                if let Some(place) = named.get(&service) {
                    found[*place].push(HourSample::of(hour, &summary));
                }
            })?;
        }
    }
    let answer = query.services.iter().cloned().zip(found);
    Ok(answer.filter(|(_, hours)| !hours.is_empty()).collect())
}

/// Sorted numbers as ranges of near ones.
fn ranges(numbers: &[i64]) -> Vec<(i64, i64)> {
    let near = |a: &i64, b: &i64| b - a <= NEAR;
    let runs = numbers.chunk_by(near);
    runs.filter_map(|run| Some((*run.first()?, *run.last()?))).collect()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use mcpmon_core::store::hours::{hour_begins, hour_of};
    use mcpmon_core::store::{Batch, CheckRecord, PrunePlan, SampleStore as _};
    use mcpmon_core::{FailureCode, Timestamp};
    use mcpmon_testkit::{START, samples};

    use super::*;
    use crate::{OpenOptions, SqliteStore};

    fn at(hour: i64, minute: u64) -> Timestamp {
        hour_begins(hour).saturating_add(Duration::from_secs(minute * 60))
    }

    #[test]
    fn numbers_that_lie_together_are_one_range() {
        assert_eq!(ranges(&[1, 2, 9, 40, 41]), [(1, 9), (40, 41)]);
        assert_eq!(ranges(&[]), []);
    }

    #[tokio::test]
    async fn hours_are_answered_from_rollups_for_whom_and_when_it_was_asked() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("mcpmon.db");
        let store = SqliteStore::open(path, OpenOptions::default()).unwrap();
        let first = hour_of(START) / 24 * 24;
        let mut batch = Batch::default();
        for hour in first..first + 50 {
            for minute in 0..6 {
                let at = at(hour, minute * 10);
                let millis = 10 + (hour - first) as u64;
                let latency = Some(Duration::from_millis(millis));
                batch.checks.push(CheckRecord { latency, ..samples::check("a", at) });
                batch.checks.push(samples::failed_check("b", at, FailureCode::ServerError));
            }
        }
        store.append(&batch).await.unwrap();
        while store.prune(&PrunePlan::default()).await.unwrap().more {}
        let query = HoursQuery {
            services: vec!["b".into(), "nobody".into(), "a".into()],
            since: first,
            until: first + 49,
            times_of_day: vec![3],
        };
        let found = store.hours(&query).await.unwrap();
        let names: Vec<&str> = found.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names, ["b", "a"]);
        let hours: Vec<i64> = found[1].1.iter().map(|sample| sample.hour - first).collect();
        assert_eq!(hours, [3, 27]);
        let sample = found[1].1[1];
        assert_eq!((sample.counted, sample.failed, sample.timed), (6, 0, 6));
        assert!((sample.latency - 0.037).abs() < 0.000_4, "{sample:?}");
        assert_eq!(found[0].1[0].error_rate(), Some(1.0));
    }
}
