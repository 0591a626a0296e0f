//! Measures what the store takes: checks a second through the public trait, beside a bare loop
//! that appends rows of the same columns to a table without an index, in the same batches, in
//! turns; sealing and summing up run in between and are counted in. Also what a page, `services` and a step of pruning cost on the file that results.
//!
//! ```text
//! cargo run --release -p mcpmon-store --example ingest
//! ```

use std::error::Error;
use std::io::Write;
use std::path::Path;
use std::time::Duration;

use mcpmon_core::observation::{Observation, Phases, Question};
use mcpmon_core::store::{Batch, CheckRecord, PrunePlan, RecordQuery, SampleStore};
use mcpmon_core::{ServiceName, Timestamp};
use mcpmon_store::{OpenOptions, SqliteStore};
use rusqlite::{Connection, params};
use tokio::time::Instant;

const BATCH: usize = 1_000;
const BATCHES: usize = 50;
const ROUNDS: u64 = 20;
/// Batches between two rounds of sealing.
const UPKEEP_EVERY: usize = 100;
const SERVICES: usize = 1_000;
/// The last simulated half-minute.
const LAST: i64 = ROUNDS as i64 * BATCHES as i64;

/// What one part of the measurement took.
struct Timing {
    spans: Vec<Duration>,
}

impl Timing {
    fn at(&self, share: f64) -> f64 {
        let mut spans = self.spans.clone();
        spans.sort_unstable();
        let rank = (share * (spans.len() - 1) as f64).round() as usize;
        spans[rank].as_secs_f64() * 1_000.0
    }

    fn per_second(&self, things: usize) -> f64 {
        things as f64 / self.spans.iter().sum::<Duration>().as_secs_f64()
    }
}

fn batches(round: u64) -> Vec<Batch> {
    let names: Vec<ServiceName> =
        (0..SERVICES).map(|n| ServiceName::from(format!("service-{n}"))).collect();
    (0..BATCHES)
        .map(|batch| {
            let second = round * BATCHES as u64 + batch as u64;
            let checks = (0..BATCH).map(|n| {
                let at = Timestamp::from_millis((second * 30_000 + n as u64 * 30) as i64);
                let mut observation = Observation::answered();
                let spread = (n as u64 * 7_919 + second * 104_729) % 20_000;
                observation.latency = Some(Duration::from_micros(15_000 + spread));
                observation.total = Duration::from_micros(40_000 + spread);
                observation.phases = Phases {
                    connect_ms: Some(1.5 + spread as f64 / 1e4),
                    list_ms: Some(20.0),
                    ..Phases::default()
                };
                let name = names[n % SERVICES].clone();
                CheckRecord::new(name, at, Question::Health, &observation)
            });
            Batch { checks: checks.collect(), ..Batch::default() }
        })
        .collect()
}

fn bare(path: &Path) -> rusqlite::Result<Connection> {
    let connection = Connection::open(path)?;
    connection.execute_batch(
        "PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL;
         CREATE TABLE IF NOT EXISTS row (
             id INTEGER PRIMARY KEY, service INTEGER, at INTEGER, question INTEGER,
             status INTEGER, code INTEGER, latency INTEGER, total INTEGER, phases BLOB,
             restarted INTEGER, process BLOB)",
    )?;
    Ok(connection)
}

fn append_bare(connection: &mut Connection, batch: &Batch) -> rusqlite::Result<()> {
    let transaction = connection.transaction()?;
    let sql = "INSERT INTO row VALUES (NULL, ?1, ?2, 1, 1, NULL, ?3, ?4, ?5, 0, NULL)";
    let mut insert = transaction.prepare_cached(sql)?;
    for (number, check) in batch.checks.iter().enumerate() {
        let latency = check.latency.unwrap_or_default().as_micros() as i64 / 10;
        let total = check.total.as_micros() as i64 / 10;
        let phases: [u8; 5] = [36, 150, 1, 208, 15];
        let values =
            params![number as i64, check.at.as_millis(), latency, total, phases.as_slice()];
        insert.execute(values)?;
    }
    drop(insert);
    transaction.commit()
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let directory = tempfile::tempdir_in(".")?;
    let path = directory.path().join("mcpmon.db");
    let store = SqliteStore::open(&path, OpenOptions::default())?;
    let mut beside = bare(&directory.path().join("bare.db"))?;
    let (mut ours, mut theirs) = (Timing { spans: vec![] }, Timing { spans: vec![] });
    let mut upkeep = Duration::ZERO;
    for round in 0..ROUNDS {
        for batch in &batches(round) {
            let begun = Instant::now();
            store.append(batch).await?;
            ours.spans.push(begun.elapsed());
            // Sealing keeps up with what is appended: its time is the store's.
            if ours.spans.len() % UPKEEP_EVERY == 0 {
                let begun = Instant::now();
                while store.prune(&PrunePlan::default()).await?.more {}
                upkeep += begun.elapsed();
            }
            let begun = Instant::now();
            append_bare(&mut beside, batch)?;
            theirs.spans.push(begun.elapsed());
        }
    }
    let all = BATCH * BATCHES * ROUNDS as usize;
    let mut out = std::io::stdout();
    for (what, timing) in [("store", &ours), ("bare loop", &theirs)] {
        writeln!(
            out,
            "{what}: {:.0} checks/s, {BATCH} a batch, p50 {:.2} ms, p99 {:.2} ms",
            timing.per_second(all),
            timing.at(0.5),
            timing.at(0.99)
        )?;
    }
    writeln!(out, "ratio: {:.2}", ours.per_second(all) / theirs.per_second(all))?;
    let with_upkeep = all as f64 / (ours.spans.iter().sum::<Duration>() + upkeep).as_secs_f64();
    let ratio = with_upkeep / theirs.per_second(all);
    writeln!(out, "sealing included: {with_upkeep:.0} checks/s, ratio {ratio:.2}")?;

    let reader = SqliteStore::reader(&path)?;
    let mut questions = Timing { spans: vec![] };
    for _ in 0..20 {
        let begun = Instant::now();
        reader.services().await?;
        questions.spans.push(begun.elapsed());
    }
    writeln!(out, "services() of {SERVICES}: p50 {:.2} ms", questions.at(0.5))?;
    for (what, query) in [
        ("a page of all", RecordQuery::all()),
        ("last minute of all", RecordQuery::all().since(Timestamp::from_millis(LAST * 30_000))),
        ("one service, whole range", RecordQuery::of("service-7".into())),
    ] {
        let begun = Instant::now();
        let page = reader.checks(&query).await?;
        let span = begun.elapsed().as_secs_f64() * 1_000.0;
        writeln!(out, "{what}: {} checks in {span:.2} ms", page.items.len())?;
    }
    let info = reader.info().await?;
    writeln!(out, "{:.1} bytes a check", info.bytes_per_check.unwrap_or_default())?;

    let half = Timestamp::from_millis(LAST * 15_000);
    let plan = PrunePlan { checks_before: Some(half), ..PrunePlan::default() };
    let mut steps = Timing { spans: vec![] };
    loop {
        let begun = Instant::now();
        let more = store.prune(&plan).await?.more;
        steps.spans.push(begun.elapsed());
        if !more {
            break;
        }
    }
    let (count, p99) = (steps.spans.len(), steps.at(0.99));
    writeln!(out, "pruning: {count} steps, p50 {:.2} ms, p99 {p99:.2} ms", steps.at(0.5))?;
    Ok(())
}
