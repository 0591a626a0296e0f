//! What a check of a held stdio session costs us, and whether anything is started for it.
//!
//! `held-stdio [--services N] [--checks N]` holds a few small servers, has each asked many times,
//! one after the other, and prints our CPU per check (the whole pipeline; the servers' own is
//! theirs) and how many processes were started after the first ones, then one JSON object.

use std::io::Write as _;
use std::time::Duration;

use mcpmon_benches::monitored::{Monitored, next_check, only_on_command, service_name};
use mcpmon_benches::{Failure, options, usage};
use mcpmon_core::monitor::MonitorHandle as _;
use mcpmon_core::{Question, ServiceSpec};
use serde_json::json;
use tokio::time::sleep;

/// What a check may cost, in milliseconds.
const LIMIT: f64 = 0.3;
/// The store writes once a second; after this long all is written.
const SETTLE: Duration = Duration::from_millis(1_500);

#[tokio::main]
async fn main() -> Result<(), Failure> {
    tokio::spawn(run()).await?
}

async fn run() -> Result<(), Failure> {
    let [services, checks] =
        options::numbers(std::env::args().skip(1), [("services", 4), ("checks", 1_000)])?;
    let directory = tempfile::tempdir()?;
    let starts = directory.path().join("starts");
    let server = std::env::current_exe()?.with_file_name("helper-stdio");
    let specs: Vec<_> = (0..services)
        .map(|index| {
            let command = server.display().to_string();
            ServiceSpec::stdio(service_name(index), command, [starts.display().to_string()])
        })
        .collect();
    let monitored = Monitored::watch(specs, only_on_command()).await?;
    monitored.all_well().await?;
    let started = || std::fs::read_to_string(&starts).map(|lines| lines.lines().count());
    let before = started()?;

    let mut figures = Vec::new();
    for question in [Question::Health, Question::List] {
        let mut events = monitored.monitor().subscribe();
        let cpu = usage::cpu()?;
        for _ in 0..checks {
            monitored.ask(None, question).await?;
            for _ in 0..services {
                next_check(&mut events, question).await?;
            }
        }
        sleep(SETTLE).await;
        let cpu = usage::cpu()?.saturating_sub(cpu);
        figures.push((question, cpu.as_secs_f64() * 1e3 / (checks * services) as f64));
    }
    monitored.check_all_running()?;
    let spawns = started()? - before;
    monitored.stop().await;

    let mut out = std::io::stdout().lock();
    for (question, cpu) in &figures {
        let name = question.as_str();
        writeln!(out, "{name}: {cpu:.3} ms of CPU a check (limit {LIMIT})")?;
    }
    writeln!(out, "{before} processes for {services} services, {spawns} started after that")?;
    let [(_, health), (_, list)] = figures[..] else { return Err("two questions".into()) };
    let report = json!({
        "schema": "mcpmon/bench-held-stdio/v1", "services": services,
        "checks": checks * services, "health_cpu_ms_per_check": health,
        "list_cpu_ms_per_check": list, "limit_cpu_ms_per_check": LIMIT, "spawns": spawns,
    });
    writeln!(out, "\n{report}")?;
    Ok(())
}
