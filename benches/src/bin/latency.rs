//! Whether the latency we report is the services', or our own queue.
//!
//! `latency [--services N] [--rounds N]` asks services that take 20 ms: gently (100 services, 4 at
//! once) and in a sweep of all of them at once (1,000), all behind one origin and each at an
//! address of its own. The fleet, a process of its own, times itself; what is reported over that is
//! ours: the kernel's, the fleet's own queue's and the monitor's. Prints a table and one JSON
//! object.

use std::io::Write as _;
use std::time::Duration;

use mcpmon_benches::fleet::{FleetProcess, Manner, Speaks, Took};
use mcpmon_benches::monitored::{Monitored, next_check, only_on_command, service_name};
use mcpmon_benches::spread::Spread;
use mcpmon_benches::{Failure, options};
use mcpmon_core::monitor::MonitorHandle as _;
use mcpmon_core::{Question, ServiceSpec};
use serde::Serialize;
use serde_json::json;

const DELAY: Duration = Duration::from_millis(20);
/// The gentle round: so many services, so many at once.
const GENTLE: (usize, usize) = (100, 4);
/// How much more than the services took the median may be, in milliseconds.
const GENTLE_LIMIT: f64 = 1.0;
const SWEEP_LIMIT: f64 = 3.0;

#[derive(Debug, Serialize)]
struct Figures {
    origins: &'static str,
    round: &'static str,
    checks: usize,
    services: Took,
    p50_ms: f64,
    p99_ms: f64,
    over_p50_ms: f64,
    limit_ms: f64,
}

#[tokio::main]
async fn main() -> Result<(), Failure> {
    tokio::spawn(run()).await?
}

async fn run() -> Result<(), Failure> {
    let [services, rounds] =
        options::numbers(std::env::args().skip(1), [("services", 1_000), ("rounds", 3)])?;
    let mut all = Vec::new();
    for (spread, origins) in [(false, "one"), (true, "one each")] {
        let mut fleet = FleetProcess::start_like(services, Manner { delay: DELAY, spread })?;
        let specs = (0..services).map(|index| {
            let url = match spread {
                true => fleet.own_url(Speaks::Both, index),
                false => fleet.url(Speaks::Both, index),
            };
            ServiceSpec::http(service_name(index), url)
        });
        let specs: Vec<_> = specs.collect();
        let monitored = Monitored::watch(specs, only_on_command()).await?;
        monitored.all_well().await?;
        fleet.took()?;

        let gentle = gently(&monitored, services, rounds).await?;
        all.push(figures(origins, "gentle", gentle, fleet.took()?, GENTLE_LIMIT));
        let swept = sweeps(&monitored, services, rounds).await?;
        all.push(figures(origins, "sweep", swept, fleet.took()?, SWEEP_LIMIT));
        monitored.check_all_running()?;
        monitored.stop().await;
    }
    print(&all, services)
}

/// Latencies of rounds over some services, a few at once.
async fn gently(
    monitored: &Monitored,
    services: usize,
    rounds: usize,
) -> Result<Vec<f64>, Failure> {
    let mut events = monitored.monitor().subscribe();
    let (some, at_once) = (GENTLE.0.min(services), GENTLE.1.min(services));
    let turns: Vec<usize> = (0..rounds).flat_map(|_| 0..some).collect();
    let mut latencies = Vec::with_capacity(turns.len());
    for (turn, &service) in turns.iter().enumerate() {
        monitored.ask(Some(service_name(service)), Question::Health).await?;
        if turn + 1 >= at_once {
            latencies.push(latency(&mut events).await?);
        }
    }
    while latencies.len() < turns.len() {
        latencies.push(latency(&mut events).await?);
    }
    Ok(latencies)
}

/// Latencies of sweeps, in which every service is due at once.
async fn sweeps(
    monitored: &Monitored,
    services: usize,
    rounds: usize,
) -> Result<Vec<f64>, Failure> {
    let mut events = monitored.monitor().subscribe();
    let mut latencies = Vec::with_capacity(services * rounds);
    for _ in 0..rounds {
        monitored.ask(None, Question::Health).await?;
        for _ in 0..services {
            latencies.push(latency(&mut events).await?);
        }
    }
    Ok(latencies)
}

async fn latency(events: &mut Box<dyn mcpmon_core::monitor::EventStream>) -> Result<f64, Failure> {
    let check = next_check(events, Question::Health).await?;
    let latency = check.latency.ok_or("a check without a latency")?;
    Ok(latency.as_secs_f64() * 1_000.0)
}

fn figures(
    origins: &'static str,
    round: &'static str,
    latencies: Vec<f64>,
    services: Took,
    limit_ms: f64,
) -> Figures {
    let spread = Spread::of(latencies);
    let p50_ms = spread.at(0.5);
    Figures {
        origins,
        round,
        checks: spread.count(),
        services,
        p50_ms,
        p99_ms: spread.at(0.99),
        over_p50_ms: p50_ms - services.p50_ms,
        limit_ms,
    }
}

fn print(all: &[Figures], services: usize) -> Result<(), Failure> {
    let mut out = std::io::stdout().lock();
    let heads = ["origins", "round", "checks", "theirs p50", "ours p50", "over", "limit", "p99"];
    let row = |c: [String; 8]| {
        let [origins, round, checks, theirs, ours, over, limit, p99] = c;
        format!(
            "{origins:<10}{round:<8}{checks:>7}{theirs:>12}{ours:>10}{over:>8}{limit:>7}{p99:>9}"
        )
    };
    writeln!(out, "{}", row(heads.map(str::to_owned)))?;
    for f in all {
        let cells = [
            f.origins.to_owned(),
            f.round.to_owned(),
            f.checks.to_string(),
            format!("{:.2}", f.services.p50_ms),
            format!("{:.2}", f.p50_ms),
            format!("{:.2}", f.over_p50_ms),
            format!("{:.0}", f.limit_ms),
            format!("{:.2}", f.p99_ms),
        ];
        writeln!(out, "{}", row(cells))?;
    }
    let report = json!({"schema": "mcpmon/bench-latency/v1", "services": services, "rounds": all});
    writeln!(out, "\n{report}")?;
    Ok(())
}
