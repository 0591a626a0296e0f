//! Measures what a dashboard asks of a large file, while 500 checks a second are written and
//! sealing and pruning are at work; beside a bare `SELECT` of as many bytes.
//!
//! ```text
//! cargo run --release -p mcpmon-store --example year -- --services 500 --days 31 --file /tmp/month.db
//! cargo run --release -p mcpmon-store --example questions -- /tmp/month.db
//! ```

#[allow(dead_code, reason = "each example uses its part of it")]
mod fleet;

use std::error::Error;
use std::io::Write;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use mcpmon_core::observation::{Observation, Question};
use mcpmon_core::settings::Settings;
use mcpmon_core::store::{
    Batch, CheckRecord, HistoryQuery, Ranking, RecordQuery, Retention, SampleStore,
};
use mcpmon_core::{ServiceName, Timestamp};
use mcpmon_store::{OpenOptions, SqliteStore};
use rusqlite::{Connection, OpenFlags};
use tokio::time::Instant;

const ROUNDS: usize = 100;
const SERVICES: usize = 500;

/// Spans of one kind of work.
#[derive(Default)]
struct Timing(Vec<Duration>);

impl Timing {
    fn line(&mut self) -> String {
        self.0.sort_unstable();
        let at = |share: f64| {
            let place = (share * self.0.len().saturating_sub(1) as f64).round() as usize;
            self.0.get(place).map_or(0.0, |span| span.as_secs_f64() * 1e3)
        };
        format!("p50 {:.1} ms, p99 {:.1} ms, {} times", at(0.5), at(0.99), self.0.len())
    }
}

/// A second of the fleet: 500 checks.
fn second(at: Timestamp, names: &[ServiceName]) -> Batch {
    let checks = names.iter().map(|name| {
        let mut observation = Observation::answered();
        observation.latency = Some(Duration::from_micros(25_000));
        observation.total = Duration::from_micros(48_000);
        CheckRecord::new(name.clone(), at, Question::Health, &observation)
    });
    Batch { checks: checks.collect(), ..Batch::default() }
}

/// Reads about `bytes` of packed checks and nothing else.
fn bare(connection: &Connection, bytes: usize) -> rusqlite::Result<usize> {
    let mut statement = connection.prepare_cached("SELECT checks FROM block")?;
    let mut rows = statement.query([])?;
    let mut read = 0;
    while let Some(row) = rows.next()? {
        read += row.get_ref(0)?.as_blob()?.len();
        if read >= bytes {
            break;
        }
    }
    Ok(read)
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let path = PathBuf::from(std::env::args().nth(1).ok_or("name the file")?);
    let mut out = std::io::stdout();
    let begun = Instant::now();
    let store = SqliteStore::open(&path, OpenOptions::default())?;
    let services = store.services().await?;
    writeln!(
        out,
        "start-up, last state of {} services included: {:.0} ms",
        services.len(),
        begun.elapsed().as_secs_f64() * 1e3
    )?;
    let names: Vec<ServiceName> =
        services.iter().take(SERVICES).map(|stored| stored.facts.service.clone()).collect();
    let newest = store.info().await?.newest_check.ok_or("the file is empty")?;

    let done = Arc::new(AtomicBool::new(false));
    let writer = {
        let (store, done, names) = (store.clone(), Arc::clone(&done), names.clone());
        tokio::spawn(async move {
            let mut appends = Timing::default();
            let mut ticks = tokio::time::interval(Duration::from_secs(1));
            let mut at = newest;
            while !done.load(Ordering::Relaxed) {
                ticks.tick().await;
                // A second of the wall, half a minute of the fleet: so that chunks fill up.
                at = at.saturating_add(Duration::from_secs(30));
                let batch = second(at, &names);
                let begun = Instant::now();
                store.append(&batch).await?;
                appends.0.push(begun.elapsed());
            }
            Ok::<_, mcpmon_core::StoreError>(appends)
        })
    };
    let upkeep = {
        let (store, done) = (store.clone(), Arc::clone(&done));
        tokio::spawn(async move {
            let retention = Retention::from_settings(&Settings::default());
            let mut steps = 0_u64;
            while !done.load(Ordering::Relaxed) {
                let at = newest.saturating_add(Duration::from_secs(30 * steps));
                steps += u64::from(store.prune(&retention.plan(at)).await?.more);
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
            Ok::<_, mcpmon_core::StoreError>(steps)
        })
    };

    let back = |span: u64| newest.saturating_sub(Duration::from_secs(span));
    let of = |n: usize| names[n * 7 % names.len()].clone();
    let (mut day, mut month, mut fleet, mut last) = <(Timing, Timing, Timing, Timing)>::default();
    let mut floor = Timing::default();
    let raw = Connection::open_with_flags(&path, OpenFlags::SQLITE_OPEN_READ_ONLY)?;
    for n in 0..ROUNDS {
        let step = |seconds| Some(Duration::from_secs(seconds));
        let begun = Instant::now();
        let query =
            HistoryQuery { service: of(n), since: back(86_400), until: newest, step: step(300) };
        let points = store.history(&query).await?.points;
        assert!(points.len() >= 288 && points.iter().any(|p| p.summary.latency.count() > 0));
        day.0.push(begun.elapsed());
        let begun = Instant::now();
        let since = back(30 * 86_400);
        let query = HistoryQuery { service: of(n), since, until: newest, step: step(3_600) };
        assert!(store.history(&query).await?.points.len() >= 720);
        month.0.push(begun.elapsed());
        let begun = Instant::now();
        let all = store.summaries(back(86_400), newest).await?;
        assert!(!Ranking::Slowest.top(all, 10).is_empty());
        fleet.0.push(begun.elapsed());
        let begun = Instant::now();
        assert_eq!(store.last_checks(&of(n), 50).await?.len(), 50);
        last.0.push(begun.elapsed());
        let begun = Instant::now();
        bare(&raw, 20_000)?;
        floor.0.push(begun.elapsed());
    }
    let begun = Instant::now();
    let mut page = RecordQuery::of(of(3)).since(back(7 * 86_400));
    let mut checks = 0;
    loop {
        let found = store.checks(&page).await?;
        checks += found.items.len();
        page.after = found.next;
        if page.after.is_none() {
            break;
        }
    }
    let span = begun.elapsed().as_secs_f64() * 1e3;
    done.store(true, Ordering::Relaxed);
    writeln!(out, "24 h of one service, 288 points: {}", day.line())?;
    writeln!(out, "30 d of one service by the hour: {}", month.line())?;
    writeln!(out, "24 h of all services, slowest 10: {}", fleet.line())?;
    writeln!(out, "last 50 checks of one: {}", last.line())?;
    writeln!(out, "bare SELECT of 20 kB (24 h of one): {}", floor.line())?;
    writeln!(out, "every single check of one, 7 d: {checks} in {span:.1} ms")?;
    writeln!(out, "append of 500 beside all this: {}", writer.await??.line())?;
    writeln!(out, "{} steps of upkeep", upkeep.await??)?;
    Ok(())
}
