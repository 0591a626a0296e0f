//! Where the bytes of a database are, and where they will be: by table, by resolution, by day.
//!
//! The forecast is a calculation over what is known now (services, their intervals, what a row has
//! taken so far), so that a person sees what a setting costs before the disk does.

use std::time::Duration;

use mcpmon_core::Timestamp;
use mcpmon_core::store::Retention;
use rusqlite::Connection;
use serde::{Deserialize, Serialize};

use crate::rollup::{self, Grain};
use crate::seal::SERVICE_BITS;

/// Bytes a row takes where too few are stored to say: `docs/adr/0050` and `0051`.
const USUAL: PerRow = PerRow { check: 8.0, quarter: 39.0, hour: 60.0 };
/// Rows a mean is worth taking over; a page holds hundreds, and most of a young file is half empty.
const MEANINGFUL: u64 = 5_000;
const DAY_SECS: f64 = 86_400.0;

/// What a table takes, its indexes included.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TableSize {
    /// Its name in the file.
    pub table: String,
    /// Bytes.
    pub bytes: u64,
}

/// What is there of one resolution.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Resolution {
    /// `raw`, `15m` or `1h`.
    pub resolution: String,
    /// Checks, or summaries of one service each.
    pub rows: u64,
    /// Bytes, indexes and all.
    pub bytes: u64,
    /// The first moment it says something of.
    pub oldest: Option<Timestamp>,
    /// The last moment it says something of.
    pub newest: Option<Timestamp>,
}

/// Every table, largest first. Reads a page's head of each page.
pub(crate) fn tables(connection: &Connection) -> rusqlite::Result<Vec<TableSize>> {
    let sql = "SELECT coalesce(schema.tbl_name, size.name), sum(size.pgsize)
               FROM dbstat AS size LEFT JOIN sqlite_schema AS schema ON schema.name = size.name
               WHERE size.aggregate = TRUE GROUP BY 1 ORDER BY 2 DESC, 1";
    let mut statement = connection.prepare(sql)?;
    let rows =
        statement.query_map([], |row| Ok(TableSize { table: row.get(0)?, bytes: row.get(1)? }))?;
    rows.collect()
}

/// The three resolutions, finest first.
pub(crate) fn resolutions(
    connection: &Connection,
    tables: &[TableSize],
    raw: (u64, Option<Timestamp>, Option<Timestamp>),
) -> rusqlite::Result<Vec<Resolution>> {
    let bytes = |names: &[&str]| {
        let of = tables.iter().filter(|size| names.contains(&size.table.as_str()));
        of.map(|size| size.bytes).sum()
    };
    let (rows, oldest, newest) = raw;
    let raw = Resolution {
        resolution: "raw".to_owned(),
        rows,
        bytes: bytes(&["head", "head_mark", "block", "chunk", "last_check"]),
        oldest,
        newest,
    };
    let summed = |grain: Grain, name: &str| {
        let table = grain.table();
        let count = format!("SELECT count(*), max(id) FROM {table}");
        let (rows, last): (u64, Option<i64>) =
            connection.query_row(&count, [], |row| Ok((row.get(0)?, row.get(1)?)))?;
        let end = last.map(|id| ((id >> SERVICE_BITS) + 1) * grain.length());
        Ok::<_, rusqlite::Error>(Resolution {
            resolution: name.to_owned(),
            rows,
            bytes: bytes(&[table]),
            oldest: rollup::oldest(connection, grain)?.map(Timestamp::from_millis),
            newest: end.map(Timestamp::from_millis),
        })
    };
    Ok(vec![raw, summed(Grain::Quarter, "15m")?, summed(Grain::Hour, "1h")?])
}

#[derive(Debug, Clone, Copy)]
struct PerRow {
    check: f64,
    quarter: f64,
    hour: f64,
}

impl PerRow {
    /// What rows have taken so far, where there are enough of them.
    fn of(resolutions: &[Resolution]) -> Self {
        let mean = |name: &str, usual: f64| {
            let of = resolutions.iter().find(|one| one.resolution == name);
            of.filter(|one| one.rows >= MEANINGFUL)
                .map_or(usual, |one| one.bytes as f64 / one.rows as f64)
        };
        Self {
            check: mean("raw", USUAL.check),
            quarter: mean("15m", USUAL.quarter),
            hour: mean("1h", USUAL.hour),
        }
    }
}

/// How a database will grow, if the services that are watched stay the same.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Forecast {
    /// Checks a day, of all services.
    pub checks_per_day: f64,
    /// Bytes a day, as long as nothing is old enough to go.
    pub bytes_per_day: f64,
    /// What checks and summaries take once as much goes a day as comes.
    pub settles_at_bytes: f64,
    /// Whether that is more than `max_database_size`, so that the oldest goes before its time.
    pub exceeds_bound: bool,
}

impl Forecast {
    /// What is to be expected of services that are checked in these intervals; `None` if there are
    /// none.
    pub fn of(
        intervals: impl IntoIterator<Item = Duration>,
        resolutions: &[Resolution],
        retention: &Retention,
    ) -> Option<Self> {
        let (mut watched, mut checks_per_day) = (0.0, 0.0);
        for interval in intervals.into_iter().filter(|interval| !interval.is_zero()) {
            watched += 1.0;
            checks_per_day += DAY_SECS / interval.as_secs_f64();
        }
        if watched == 0.0 {
            return None;
        }
        let per_row = PerRow::of(resolutions);
        let raw = checks_per_day * per_row.check;
        let quarters = watched * 96.0 * per_row.quarter;
        let hours = watched * 24.0 * per_row.hour;
        let days = |span: Duration| span.as_secs_f64() / DAY_SECS;
        let settles_at_bytes = raw * days(retention.raw)
            + quarters * days(retention.quarters)
            + hours * days(retention.hours);
        Some(Self {
            checks_per_day,
            bytes_per_day: raw + quarters + hours,
            settles_at_bytes,
            exceeds_bound: settles_at_bytes > retention.most_bytes as f64,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn retention(most_bytes: u64) -> Retention {
        let days = |days: u64| Duration::from_secs(days * 86_400);
        Retention { raw: days(7), quarters: days(30), hours: days(365), most_bytes }
    }

    #[test]
    fn a_day_of_checks_and_their_sums_is_what_it_was_measured_to_be() {
        let services = || [Duration::from_secs(30); 500];
        let forecast = Forecast::of(services(), &[], &retention(512_000_000)).unwrap();
        assert_eq!(forecast.checks_per_day, 1_440_000.0);
        assert_eq!(forecast.bytes_per_day, 1_440_000.0 * 8.0 + 500.0 * (96.0 * 39.0 + 24.0 * 60.0));
        assert!(!forecast.exceeds_bound && forecast.settles_at_bytes > 300e6, "{forecast:?}");
        let tight = Forecast::of(services(), &[], &retention(100_000_000)).unwrap();
        assert!(tight.exceeds_bound);
    }

    #[test]
    fn what_is_stored_says_more_than_what_is_usual_once_there_is_enough() {
        let resolution = |rows| Resolution {
            resolution: "raw".to_owned(),
            rows,
            bytes: rows * 20,
            oldest: None,
            newest: None,
        };
        let daily = |rows| {
            let found =
                Forecast::of([Duration::from_secs(1)], &[resolution(rows)], &retention(1)).unwrap();
            found.bytes_per_day - 96.0 * USUAL.quarter - 24.0 * USUAL.hour
        };
        assert_eq!(daily(100), 86_400.0 * USUAL.check);
        assert_eq!(daily(10_000), 86_400.0 * 20.0);
    }

    #[test]
    fn nobody_watched_is_no_forecast() {
        assert_eq!(Forecast::of([], &[], &retention(1)), None);
    }
}
