//! Checks per second and CPU per check of the whole pipeline, beside a bare client that sends the
//! same requests to the same fleet in the same run.
//!
//! `pipeline [--services N] [--rounds N] [--sweeps N]` prints a table and then one JSON object.
//! Each round lets both sides check every service a few times, in turns; what counts is the median
//! of the rounds. The CPU of a round includes what the monitor does afterwards: its writing ends
//! within a second or so.

use std::io::Write as _;
use std::time::Duration;

use mcpmon_benches::bare::BareClient;
use mcpmon_benches::fleet::{FleetProcess, Speaks};
use mcpmon_benches::monitored::{Monitored, only_on_command};
use mcpmon_benches::{Failure, usage};
use mcpmon_core::Era;
use serde::Serialize;
use tokio::time::Instant;

/// As many as the monitor opens to one origin.
const CONNECTIONS: usize = 64;
/// The store writes once a second; after this long all of a round is written.
const SETTLE: Duration = Duration::from_millis(1_500);

#[derive(Debug, Clone, Copy)]
struct Options {
    services: usize,
    rounds: usize,
    sweeps: usize,
}

/// What one side did in one round.
#[derive(Debug, Clone, Copy, Serialize)]
struct Figures {
    checks_per_second: f64,
    cpu_us_per_check: f64,
}

#[derive(Debug, Serialize)]
struct Comparison {
    era: Era,
    mcpmon: Figures,
    bare: Figures,
    /// Checks per second, ours over the bare client's.
    throughput_ratio: f64,
    /// CPU per check, the bare client's over ours.
    cpu_ratio: f64,
}

#[derive(Debug, Serialize)]
struct Report {
    schema: &'static str,
    services: usize,
    rounds: usize,
    sweeps_per_round: usize,
    cpus: usize,
    eras: Vec<Comparison>,
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
    let mut eras = Vec::new();
    for era in [Era::Modern, Era::Legacy] {
        eras.push(compare(&fleet, era, options).await?);
    }
    let report = Report {
        schema: "mcpmon/bench-pipeline/v1",
        services: options.services,
        rounds: options.rounds,
        sweeps_per_round: options.sweeps,
        cpus: std::thread::available_parallelism()?.get(),
        eras,
    };
    print(&report)
}

fn options(mut words: impl Iterator<Item = String>) -> Result<Options, Failure> {
    let mut options = Options { services: 1_000, rounds: 5, sweeps: 5 };
    while let Some(word) = words.next() {
        let field = match word.as_str() {
            "--services" => &mut options.services,
            "--rounds" => &mut options.rounds,
            "--sweeps" => &mut options.sweeps,
            other => return Err(format!("unknown argument `{other}`").into()),
        };
        let value = words.next().and_then(|value| value.parse().ok()).filter(|value| *value > 0);
        *field = value.ok_or_else(|| format!("`{word}` wants a number above 0"))?;
    }
    Ok(options)
}

async fn compare(fleet: &FleetProcess, era: Era, options: Options) -> Result<Comparison, Failure> {
    let speaks = if era == Era::Legacy { Speaks::Legacy } else { Speaks::Both };
    let services = (0..options.services).map(|index| (speaks, index));
    let monitored = Monitored::start(fleet, services, only_on_command()).await?;
    let mut bare = BareClient::connect(fleet.address(), era, options.services, CONNECTIONS).await?;
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    for _ in 0..options.rounds {
        let begin = Begin::now()?;
        let mut checks = 0;
        for _ in 0..options.sweeps {
            checks += monitored.sweep().await?;
        }
        ours.push(begin.end(checks).await?);

        let begin = Begin::now()?;
        let mut checks = 0;
        for _ in 0..options.sweeps {
            checks += bare.sweep().await?;
        }
        theirs.push(begin.end(checks).await?);
    }
    monitored.check_all_running()?;
    monitored.stop().await;
    let (mcpmon, bare) = (median(&ours), median(&theirs));
    Ok(Comparison {
        era,
        mcpmon,
        bare,
        throughput_ratio: mcpmon.checks_per_second / bare.checks_per_second,
        cpu_ratio: bare.cpu_us_per_check / mcpmon.cpu_us_per_check,
    })
}

struct Begin {
    at: Instant,
    cpu: Duration,
}

impl Begin {
    fn now() -> Result<Self, Failure> {
        Ok(Self { cpu: usage::cpu()?, at: Instant::now() })
    }

    /// Time ends now; CPU is counted on until nothing of it is left to do. Both sides pay for the
    /// idle monitor in that while.
    async fn end(self, checks: usize) -> Result<Figures, Failure> {
        let elapsed = self.at.elapsed();
        tokio::time::sleep(SETTLE).await;
        let cpu = usage::cpu()?.saturating_sub(self.cpu);
        let checks = checks as f64;
        Ok(Figures {
            checks_per_second: checks / elapsed.as_secs_f64(),
            cpu_us_per_check: cpu.as_secs_f64() * 1e6 / checks,
        })
    }
}

fn median(rounds: &[Figures]) -> Figures {
    let middle = |figure: fn(&Figures) -> f64| {
        let mut figures: Vec<_> = rounds.iter().map(figure).collect();
        figures.sort_by(f64::total_cmp);
        figures[figures.len() / 2]
    };
    Figures {
        checks_per_second: middle(|round| round.checks_per_second),
        cpu_us_per_check: middle(|round| round.cpu_us_per_check),
    }
}

fn print(report: &Report) -> Result<(), Failure> {
    let mut out = std::io::stdout().lock();
    let Report { services, cpus, .. } = report;
    writeln!(out, "whole pipeline against {services} HTTP services, {cpus} CPUs\n")?;
    let heads = ["era", "checks/s", "bare", "ratio", "CPU us/check", "bare", "ratio"];
    let row = |cells: [String; 7]| {
        let [era, ours, bare, ratio, cpu, bare_cpu, cpu_ratio] = cells;
        format!("{era:<8}{ours:>10}{bare:>10}{ratio:>8}{cpu:>15}{bare_cpu:>10}{cpu_ratio:>8}")
    };
    writeln!(out, "{}", row(heads.map(str::to_owned)))?;
    for era in &report.eras {
        let cells = [
            era.era.as_str().to_owned(),
            format!("{:.0}", era.mcpmon.checks_per_second),
            format!("{:.0}", era.bare.checks_per_second),
            format!("{:.2}", era.throughput_ratio),
            format!("{:.0}", era.mcpmon.cpu_us_per_check),
            format!("{:.0}", era.bare.cpu_us_per_check),
            format!("{:.2}", era.cpu_ratio),
        ];
        writeln!(out, "{}", row(cells))?;
    }
    writeln!(out, "\n{}", serde_json::to_string(report)?)?;
    Ok(())
}
