//! What a year of history takes, and whether it is all there.
//!
//! `store-year [--services N] [--days N]` lets a fleet be watched for so many simulated days (a
//! month of 100 services unless told), with summing up, sealing and retention at work as they are
//! by default. Then it says what the file took at most and which table takes what, asks for the
//! p50, p95 and p99 of every hour of every service, and says how long the writer was held beside a
//! bare fsync of the same run. Prints a line every ten days and one JSON object.
//!
//! A year of 500 services is 525,600,000 checks: about an hour.

use std::io::Write as _;
use std::time::Duration;

use mcpmon_benches::database::Fsyncs;
use mcpmon_benches::past::{BEGIN, Past};
use mcpmon_benches::spread::quantiles;
use mcpmon_benches::{Failure, options};
use mcpmon_core::settings::Settings;
use mcpmon_core::store::{Batch, HistoryQuery, Retention, SampleStore};
use mcpmon_core::{ServiceName, Timestamp};
use mcpmon_store::{OpenOptions, SqliteStore};
use serde_json::json;
use tokio::sync::mpsc;
use tokio::time::Instant;

/// Simulated time between two appends, in ms.
const STEP: i64 = 600_000;
const DAY: i64 = 86_400_000;
const HOUR: Duration = Duration::from_secs(3_600);

#[tokio::main]
async fn main() -> Result<(), Failure> {
    let [services, days] =
        options::numbers(std::env::args().skip(1), [("services", 100), ("days", 31)])?;
    let directory = tempfile::tempdir()?;
    let path = directory.path().join("mcpmon.db");
    let store = SqliteStore::open(&path, OpenOptions::default())?;
    let past = Past::new(services);
    let names = past.names();
    let end = BEGIN + days as i64 * DAY;
    let mut batches = made_beside(past, end);
    let mut fsyncs = Fsyncs::begin(directory.path())?;
    let retention = Retention::from_settings(&Settings::default());
    let mut out = std::io::stdout();
    let (mut checks, mut writing, mut largest) = (0, Duration::ZERO, 0);
    let mut day = 0;
    while let Some((now, batch)) = batches.recv().await {
        checks += batch.checks.len();
        let begun = Instant::now();
        store.append(&batch).await?;
        while store.prune(&retention.plan(Timestamp::from_millis(now))).await?.more {}
        writing += begun.elapsed();
        fsyncs.one()?;
        largest = largest.max(std::fs::metadata(&path)?.len());
        if (now - BEGIN) / (10 * DAY) > day {
            day = (now - BEGIN) / (10 * DAY);
            let rate = checks as f64 / writing.as_secs_f64();
            let size = largest as f64 / 1e6;
            writeln!(out, "day {}: {size:.1} MB at most, {rate:.0} checks/s", day * 10)?;
        }
    }
    let found = quantiles_of_every_hour(&store, &names, end).await?;
    let info = store.info().await?;
    let holds = store.writer_holds();
    let figures = json!({
        "services": services,
        "days": days,
        "checks": checks,
        "checks_per_second": (checks as f64 / writing.as_secs_f64()).round(),
        "largest_file_bytes": largest,
        "file_bytes": info.file_bytes,
        "free_bytes": info.free_bytes,
        "raw_checks": info.checks,
        "tables": info.tables,
        "hours": found.hours,
        "hours_with_quantiles": found.with_quantiles,
        "held_for_records_ms": quantiles(&holds.records),
        "held_for_upkeep_ms": quantiles(&holds.upkeep),
        "bare_fsync_ms": quantiles(fsyncs.so_far()),
    });
    writeln!(out, "{}", serde_json::to_string_pretty(&figures)?)?;
    Ok(())
}

/// Makes batches on a thread of its own, so that only the store's time is taken.
fn made_beside(mut past: Past, end: i64) -> mpsc::Receiver<(i64, Batch)> {
    let (sender, receiver) = mpsc::channel(2);
    tokio::task::spawn_blocking(move || {
        let mut now = BEGIN;
        while now < end {
            now += STEP;
            if sender.blocking_send((now, past.until(now))).is_err() {
                return;
            }
        }
    });
    receiver
}

/// Hours that were asked for, and those that have p50, p95 and p99 of their latencies.
#[derive(Default)]
struct Hours {
    hours: usize,
    with_quantiles: usize,
}

async fn quantiles_of_every_hour(
    store: &SqliteStore,
    names: &[ServiceName],
    end: i64,
) -> Result<Hours, Failure> {
    let mut found = Hours::default();
    for service in names {
        let query = HistoryQuery {
            service: service.clone(),
            since: Timestamp::from_millis(BEGIN),
            until: Timestamp::from_millis(end),
            step: Some(HOUR),
        };
        for point in store.history(&query).await?.points {
            let latency = &point.summary.latency;
            let has_all = [0.5, 0.95, 0.99].iter().all(|q| latency.quantile(*q).is_some());
            found.hours += 1;
            found.with_quantiles += usize::from(has_all);
        }
    }
    Ok(found)
}
