//! What one side of the pipeline benchmark costs alone: allocations, and a steady load to look at
//! with `strace -c -f`, `perf record` or the like.
//!
//! `cost [--era modern|legacy] [--side mcpmon|bare] [--services N] [--sweeps N]` prints one JSON
//! object.

use std::alloc::System;
use std::io::Write as _;
use std::time::Duration;

use mcpmon_benches::bare::BareClient;
use mcpmon_benches::fleet::{FleetProcess, Speaks};
use mcpmon_benches::monitored::{Monitored, only_on_command};
use mcpmon_benches::{Failure, usage};
use mcpmon_core::Era;
use serde_json::json;
use stats_alloc::{INSTRUMENTED_SYSTEM, Region, Stats, StatsAlloc};
use tokio::time::{Instant, sleep};

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

/// As many as the monitor opens to one origin.
const CONNECTIONS: usize = 64;
/// The store writes once a second; after this long all is written.
const SETTLE: Duration = Duration::from_millis(1_500);

#[derive(Debug)]
struct Options {
    era: Era,
    bare: bool,
    services: usize,
    sweeps: usize,
}

enum Side {
    Mcpmon(Monitored),
    Bare(BareClient),
}

#[tokio::main]
async fn main() -> Result<(), Failure> {
    let options = options(std::env::args().skip(1))?;
    // In a task: the thread that waits in `main` is none of the runtime's, and to wake it for each
    // event would cost more than the event.
    tokio::spawn(run(options)).await?
}

async fn run(options: Options) -> Result<(), Failure> {
    let fleet = FleetProcess::start(options.services)?;
    let whole = Region::new(ALLOCATOR);
    let mut side = if options.bare {
        let services = options.services;
        let client = BareClient::connect(fleet.address(), options.era, services, CONNECTIONS);
        Side::Bare(client.await?)
    } else {
        let speaks = if options.era == Era::Legacy { Speaks::Legacy } else { Speaks::Both };
        let services = (0..options.services).map(|index| (speaks, index));
        Side::Mcpmon(Monitored::start(&fleet, services, only_on_command()).await?)
    };
    let (allocated, cpu, begun) = (Region::new(ALLOCATOR), usage::cpu()?, Instant::now());
    let mut checks = 0;
    for _ in 0..options.sweeps {
        checks += match &mut side {
            Side::Mcpmon(monitored) => monitored.sweep().await?,
            Side::Bare(client) => client.sweep().await?,
        };
    }
    let elapsed = begun.elapsed();
    sleep(SETTLE).await;
    let (allocated, cpu) = (allocated.change(), usage::cpu()?.saturating_sub(cpu));
    let (resident, _) = usage::memory()?;
    let held = held(&whole.change());
    if let Side::Mcpmon(monitored) = side {
        monitored.check_all_running()?;
        monitored.stop().await;
    }
    let per_check = |count: f64| (count / checks as f64 * 10.0).round() / 10.0;
    let report = json!({
        "schema": "mcpmon/bench-cost/v1", "side": if options.bare { "bare" } else { "mcpmon" },
        "era": options.era, "services": options.services, "checks": checks,
        "checks_per_second": (checks as f64 / elapsed.as_secs_f64()).round(),
        "cpu_us_per_check": per_check(cpu.as_secs_f64() * 1e6),
        "allocations_per_check": per_check(allocated.allocations as f64),
        "reallocations_per_check": per_check(allocated.reallocations as f64),
        "bytes_allocated_per_check": per_check(allocated.bytes_allocated as f64),
        "held_bytes_per_service": held / options.services as i64,
        "resident_bytes": resident,
    });
    writeln!(std::io::stdout().lock(), "{report}")?;
    Ok(())
}

/// Bytes that were allocated and not freed again.
fn held(stats: &Stats) -> i64 {
    let signed = |bytes: usize| i64::try_from(bytes).unwrap_or(i64::MAX);
    signed(stats.bytes_allocated) - signed(stats.bytes_deallocated)
}

fn options(mut words: impl Iterator<Item = String>) -> Result<Options, Failure> {
    let mut options = Options { era: Era::Modern, bare: false, services: 1_000, sweeps: 25 };
    while let Some(word) = words.next() {
        let value = words.next().ok_or_else(|| format!("`{word}` wants a value"))?;
        match (word.as_str(), value.as_str()) {
            ("--era", "modern") => options.era = Era::Modern,
            ("--era", "legacy") => options.era = Era::Legacy,
            ("--side", "mcpmon") => options.bare = false,
            ("--side", "bare") => options.bare = true,
            ("--services", number) => options.services = number.parse()?,
            ("--sweeps", number) => options.sweeps = number.parse()?,
            _ => return Err(format!("`{word} {value}` is not known").into()),
        }
    }
    Ok(options)
}
