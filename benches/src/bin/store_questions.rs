//! How soon the store answers, while it is written.
//!
//! `store-questions [--services N] [--days N] [--rounds N]` makes the past of a fleet (100 services
//! for a week unless told; 500 and 31 are what is aimed at), opens the file anew, and asks what a
//! dashboard asks, round after round, while a check of every service is written each second and
//! summing up, sealing and retention are at work. Beside each question stands a bare `SELECT` of as
//! many bytes of the same file. Prints one JSON object.

use std::io::Write as _;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use mcpmon_benches::database::{BareSelect, Fsyncs};
use mcpmon_benches::past::{BEGIN, Past};
use mcpmon_benches::spread::quantiles;
use mcpmon_benches::{Failure, options};
use mcpmon_core::settings::Settings;
use mcpmon_core::sketch::LatencySketch;
use mcpmon_core::store::{Batch, HistoryQuery, Ranking, Retention, SampleStore};
use mcpmon_core::{ServiceName, Timestamp};
use mcpmon_store::{OpenOptions, SqliteStore};
use serde_json::{Value, json};
use tokio::task::JoinHandle;
use tokio::time::Instant;

/// Simulated time between two appends while the past is made, in ms.
const STEP: i64 = 600_000;
/// Simulated time that passes in a second of the questions, in ms: each service is asked once.
const SECOND: i64 = 30_000;
const DAY: Duration = Duration::from_secs(86_400);
/// Packed bytes a question reads of each service: a check, a summary.
const CHECK: usize = 7;
const SUMMARY: usize = 60;

#[tokio::main]
async fn main() -> Result<(), Failure> {
    let [services, days, rounds] = options::numbers(
        std::env::args().skip(1),
        [("services", 100), ("days", 7), ("rounds", 200)],
    )?;
    let directory = tempfile::tempdir()?;
    let path = directory.path().join("mcpmon.db");
    let past = make(&path, Past::new(services), days).await?;
    let begun = Instant::now();
    let store = SqliteStore::open(&path, OpenOptions::default())?;
    let known = store.services().await?;
    let opened = begun.elapsed();
    let now = BEGIN + days as i64 * 86_400_000;
    let names: Vec<_> = known.into_iter().map(|stored| stored.facts.service).collect();
    let done = Arc::new(AtomicBool::new(false));
    let writing = write_on(store.clone(), past, now, Arc::clone(&done));
    let mut fsyncs = Fsyncs::begin(directory.path())?;
    let asking = Asking {
        store: store.clone(),
        bare: BareSelect::open(&path)?,
        now: Timestamp::from_millis(now),
        names,
    };
    let mut questions = Questions::default();
    for round in 0..rounds {
        asking.one_round(round, &mut questions).await?;
        fsyncs.one()?;
    }
    done.store(true, Ordering::Relaxed);
    let appends = writing.await??;
    let holds = store.writer_holds();
    let figures = json!({
        "services": services,
        "days": days,
        "file_bytes": std::fs::metadata(&path)?.len(),
        "opened_and_listed_ms": opened.as_secs_f64() * 1e3,
        "questions": questions.figures(),
        "append_beside_ms": quantiles(&appends),
        "held_for_records_ms": quantiles(&holds.records),
        "held_for_upkeep_ms": quantiles(&holds.upkeep),
        "bare_fsync_ms": quantiles(fsyncs.so_far()),
    });
    writeln!(std::io::stdout(), "{}", serde_json::to_string_pretty(&figures)?)?;
    Ok(())
}

async fn make(path: &Path, mut past: Past, days: usize) -> Result<Past, Failure> {
    let store = SqliteStore::open(path, OpenOptions::default())?;
    let retention = Retention::from_settings(&Settings::default());
    let end = BEGIN + days as i64 * 86_400_000;
    for now in (BEGIN + STEP..=end).step_by(STEP as usize) {
        store.append(&past.until(now)).await?;
        while store.prune(&retention.plan(Timestamp::from_millis(now))).await?.more {}
    }
    Ok(past)
}

/// Writes on: a second of the wall is half a minute of the fleet. Gives what appends took.
fn write_on(
    store: SqliteStore,
    mut past: Past,
    mut now: i64,
    done: Arc<AtomicBool>,
) -> JoinHandle<Result<LatencySketch, Failure>> {
    tokio::spawn(async move {
        let retention = Retention::from_settings(&Settings::default());
        let mut took = LatencySketch::default();
        let mut ticks = tokio::time::interval(Duration::from_secs(1));
        while !done.load(Ordering::Relaxed) {
            ticks.tick().await;
            now += SECOND;
            let batch: Batch = past.until(now);
            let begun = Instant::now();
            store.append(&batch).await?;
            took.record(begun.elapsed());
            while store.prune(&retention.plan(Timestamp::from_millis(now))).await?.more {}
        }
        Ok(took)
    })
}

/// One kind of question, beside a bare `SELECT` of as many bytes.
#[derive(Default)]
struct Question {
    ours: LatencySketch,
    bare: LatencySketch,
    bytes: usize,
}

impl Question {
    fn figures(&self, aim_ms: f64) -> Value {
        json!({
            "ms": quantiles(&self.ours),
            "aim_p50_ms": aim_ms,
            "bare_select_ms": quantiles(&self.bare),
            "bytes": self.bytes,
        })
    }
}

#[derive(Default)]
struct Questions {
    day: Question,
    month: Question,
    fleet: Question,
}

impl Questions {
    fn figures(&self) -> Value {
        json!({
            "24 h of one service in 288 points": self.day.figures(10.0),
            "30 d of one service by the hour": self.month.figures(25.0),
            "24 h of all services, slowest ten": self.fleet.figures(50.0),
        })
    }
}

struct Asking {
    store: SqliteStore,
    bare: BareSelect,
    now: Timestamp,
    names: Vec<ServiceName>,
}

impl Asking {
    async fn one_round(&self, round: usize, questions: &mut Questions) -> Result<(), Failure> {
        let service = &self.names[round * 7 % self.names.len()];
        let begun = Instant::now();
        self.one_service(service, DAY, Duration::from_secs(300), 288).await?;
        self.beside(&mut questions.day, begun.elapsed(), 2_880 * CHECK)?;

        let begun = Instant::now();
        self.one_service(service, DAY * 30, Duration::from_secs(3_600), 720).await?;
        self.beside(&mut questions.month, begun.elapsed(), 720 * SUMMARY)?;

        let begun = Instant::now();
        let all = self.store.summaries(self.now.saturating_sub(DAY), self.now).await?;
        let slowest = Ranking::Slowest.top(all, 10);
        let took = begun.elapsed();
        if slowest.len() < self.names.len().min(10) {
            return Err("services without latencies".into());
        }
        self.beside(&mut questions.fleet, took, self.names.len() * 24 * SUMMARY)
    }

    async fn one_service(
        &self,
        service: &ServiceName,
        span: Duration,
        step: Duration,
        least: usize,
    ) -> Result<(), Failure> {
        let query = HistoryQuery {
            service: service.clone(),
            since: self.now.saturating_sub(span),
            until: self.now,
            step: Some(step),
        };
        let points = self.store.history(&query).await?.points;
        let has_any = points.iter().any(|point| point.summary.latency.quantile(0.95).is_some());
        if points.len() < least || !has_any {
            return Err(format!("{} points where {least} were asked for", points.len()).into());
        }
        Ok(())
    }

    fn beside(&self, question: &mut Question, took: Duration, bytes: usize) -> Result<(), Failure> {
        question.ours.record(took);
        let begun = Instant::now();
        question.bytes = self.bare.read(bytes)?;
        question.bare.record(begun.elapsed());
        Ok(())
    }
}
