//! How fast the store takes checks, through the public trait.
//!
//! `store-ingest [--services N] [--batch N] [--batches N]`: batches of the past of a fleet (1,000
//! services, 1,000 checks each unless told), each one durable transaction, in turns with a loop
//! that appends rows of the same columns to a table without an index. Summing up and sealing run in
//! between and are counted in. Prints one JSON object; the ratios are what counts, and that of CPU times
//! holds on a machine with other work as well.

use std::io::Write as _;
use std::time::Duration;

use mcpmon_benches::database::BareLoop;
use mcpmon_benches::past::{BEGIN, Past};
use mcpmon_benches::spread::quantiles;
use mcpmon_benches::{Failure, options, usage};
use mcpmon_core::sketch::LatencySketch;
use mcpmon_core::store::{Batch, PrunePlan, SampleStore};
use mcpmon_store::{OpenOptions, SqliteStore};
use serde_json::{Value, json};
use tokio::time::Instant;

/// Batches between two rounds of summing up and sealing.
const UPKEEP_EVERY: usize = 100;
/// What a checks-per-second figure is to reach with sealing.
const AIM: f64 = 200_000.0;

/// Times of one kind of work, on the wall and of the processor.
#[derive(Default)]
struct Took {
    all: Duration,
    cpu: Duration,
    each: LatencySketch,
}

/// A piece of work that has begun.
struct Begun(Instant, Duration);

impl Begun {
    fn now() -> Result<Self, Failure> {
        Ok(Self(Instant::now(), usage::cpu()?))
    }
}

impl Took {
    fn add(&mut self, begun: &Begun) -> Result<(), Failure> {
        let took = begun.0.elapsed();
        self.all += took;
        self.cpu += usage::cpu()?.saturating_sub(begun.1);
        self.each.record(took);
        Ok(())
    }

    fn figures(&self, checks: usize) -> Value {
        json!({
            "per_second": (checks as f64 / self.all.as_secs_f64()).round(),
            "cpu_us_per_check": self.cpu.as_secs_f64() * 1e6 / checks as f64,
            "ms": quantiles(&self.each),
        })
    }
}

#[tokio::main]
async fn main() -> Result<(), Failure> {
    let [services, size, batches] = options::numbers(
        std::env::args().skip(1),
        [("services", 1_000), ("batch", 1_000), ("batches", 1_000)],
    )?;
    let directory = tempfile::tempdir()?;
    let store = SqliteStore::open(directory.path().join("mcpmon.db"), OpenOptions::default())?;
    let mut bare = BareLoop::create(&directory.path().join("bare.db"))?;
    let mut past = Past::new(services);
    let (mut now, mut ready) = (BEGIN, Batch::default());
    let (mut ours, mut theirs) = <(Took, Took)>::default();
    let mut upkeep = Took::default();
    for number in 1..=batches {
        while ready.checks.len() < size {
            now += 30_000;
            let more = past.until(now);
            ready.checks.extend(more.checks);
            ready.changes.extend(more.changes);
        }
        let rest = ready.checks.split_off(size);
        let batch = std::mem::replace(&mut ready, Batch { checks: rest, ..Batch::default() });
        let begun = Begun::now()?;
        store.append(&batch).await?;
        ours.add(&begun)?;
        if number % UPKEEP_EVERY == 0 {
            let begun = Begun::now()?;
            while store.prune(&PrunePlan::default()).await?.more {}
            upkeep.add(&begun)?;
        }
        let begun = Begun::now()?;
        bare.append(&batch)?;
        theirs.add(&begun)?;
    }
    let checks = size * batches;
    let (wall, cpu) = (ours.all + upkeep.all, ours.cpu + upkeep.cpu);
    let figures = json!({
        "services": services,
        "checks": checks,
        "bare_loop": theirs.figures(checks),
        "append": ours.figures(checks),
        "upkeep": upkeep.figures(checks),
        "with_upkeep_per_second": (checks as f64 / wall.as_secs_f64()).round(),
        "aim_with_upkeep_per_second": AIM,
        "speed_over_bare": theirs.all.as_secs_f64() / wall.as_secs_f64(),
        "cpu_over_bare": cpu.as_secs_f64() / theirs.cpu.as_secs_f64(),
        "held_for_upkeep_ms": quantiles(&store.writer_holds().upkeep),
    });
    writeln!(std::io::stdout(), "{}", serde_json::to_string_pretty(&figures)?)?;
    Ok(())
}
