//! Whether services that never answer disturb those that do.
//!
//! `mute-fleet [--mute N] [--good N] [--seconds N]` watches 1,000 services that take every request
//! and never answer, and 100 good ones, with a timeout of 10 s and an interval of 30 s, each at an
//! address of its own. Beside it, in the same process, a timer that does nothing shows how late the
//! machine itself lets things begin. Prints what was missed, what failed falsely and how late
//! checks began, then one JSON object. The lag is that of all checks, the good ones' among them.

use std::collections::HashMap;
use std::io::Write as _;
use std::time::Duration;

use mcpmon_benches::fleet::{FleetProcess, Manner, Speaks};
use mcpmon_benches::monitored::{Monitored, service_name};
use mcpmon_benches::spread::Spread;
use mcpmon_benches::{Failure, options};
use mcpmon_core::contract::StartLag;
use mcpmon_core::monitor::{EventStream, MonitorEvent, MonitorHandle as _};
use mcpmon_core::service::ServiceName;
use mcpmon_core::{ServiceSpec, Settings, Status, Timestamp};
use serde::Serialize;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until, timeout_at};

const INTERVAL: Duration = Duration::from_secs(30);
const TIMEOUT: Duration = Duration::from_secs(10);
/// The idle timer goes off so often.
const TICK: Duration = Duration::from_millis(50);
/// A gap between two checks of a service over this share of the interval is a missed one.
const MISSED: f64 = 1.5;

#[derive(Debug, Default)]
struct Good {
    last: Option<Timestamp>,
    checks: u64,
    missed: u64,
    failures: u64,
}

#[derive(Debug, Serialize)]
struct Report {
    schema: &'static str,
    mute: usize,
    good: usize,
    seconds: usize,
    good_checks: u64,
    mute_checks: u64,
    missed: u64,
    missed_told: u64,
    false_failures: u64,
    start_lag: StartLag,
    idle_timer_p50_ms: f64,
    idle_timer_p99_ms: f64,
    over_p50_ms: f64,
    over_p99_ms: f64,
}

#[tokio::main]
async fn main() -> Result<(), Failure> {
    tokio::spawn(run()).await?
}

async fn run() -> Result<(), Failure> {
    let defaults = [("mute", 1_000), ("good", 100), ("seconds", 240)];
    let [mute, good, seconds] = options::numbers(std::env::args().skip(1), defaults)?;
    let fleet =
        FleetProcess::start_like(mute + good, Manner { delay: Duration::ZERO, spread: true })?;
    let specs: Vec<_> = (0..mute + good)
        .map(|index| {
            let speaks = if index < good { Speaks::Both } else { Speaks::Nothing };
            ServiceSpec::http(service_name(index), fleet.own_url(speaks, index))
        })
        .collect();
    let mut settings = Settings::default();
    settings.monitoring.check_interval = INTERVAL;
    settings.monitoring.health_check_timeout = TIMEOUT;
    let ends = Instant::now() + Duration::from_secs(seconds as u64);
    let idle = tokio::spawn(idle_timer(ends));
    let monitored = Monitored::watch(specs, settings).await?;
    let mut events = monitored.monitor().subscribe();
    let (goods, mute_checks) = listen(&mut events, good, ends).await?;
    let monitor = monitored.monitor().snapshot().monitor.clone();
    let start_lag = monitor.start_lag.unwrap_or_default();
    let idle = idle.await?;
    monitored.stop().await;

    let sum = |count: fn(&Good) -> u64| goods.values().map(count).sum::<u64>();
    let report = Report {
        schema: "mcpmon/bench-mute-fleet/v1",
        mute,
        good,
        seconds,
        good_checks: sum(|good| good.checks),
        mute_checks,
        missed: sum(|good| good.missed) + (good - goods.len()) as u64,
        missed_told: monitor.missed_checks_total,
        false_failures: sum(|good| good.failures),
        start_lag,
        idle_timer_p50_ms: idle.at(0.5),
        idle_timer_p99_ms: idle.at(0.99),
        over_p50_ms: start_lag.p50_ms - idle.at(0.5),
        over_p99_ms: start_lag.p99_ms - idle.at(0.99),
    };
    print(&report)
}

/// What became of the good ones, and how many checks of mute ones ended.
async fn listen(
    events: &mut Box<dyn EventStream>,
    good: usize,
    ends: Instant,
) -> Result<(HashMap<ServiceName, Good>, u64), Failure> {
    let names: HashMap<ServiceName, usize> =
        (0..good).map(|index| (service_name(index), index)).collect();
    let (mut goods, mut mute_checks) = (HashMap::<ServiceName, Good>::new(), 0);
    while let Ok(event) = timeout_at(ends, events.next()).await {
        let check = match event {
            Some(MonitorEvent::Checked(check)) => check,
            Some(MonitorEvent::Missed { count }) => {
                return Err(format!("{count} events were missed, so nothing is known").into());
            }
            Some(_) => continue,
            None => return Err("the monitor stopped".into()),
        };
        if !names.contains_key(&check.service) {
            mute_checks += 1;
            continue;
        }
        let known = goods.entry(check.service).or_default();
        known.checks += 1;
        known.failures += u64::from(check.status != Status::Running);
        let gap = known.last.map(|last| check.at.since(last)).unwrap_or_default();
        known.missed += u64::from(gap > INTERVAL.mul_f64(MISSED));
        known.last = Some(check.at);
    }
    Ok((goods, mute_checks))
}

/// How late a timer that does nothing goes off, in milliseconds.
async fn idle_timer(ends: Instant) -> Spread {
    let mut ticks = interval(TICK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
    let mut late = Vec::new();
    while Instant::now() < ends {
        let due = ticks.tick().await;
        late.push(due.elapsed().as_secs_f64() * 1_000.0);
    }
    sleep_until(ends).await;
    Spread::of(late)
}

fn print(report: &Report) -> Result<(), Failure> {
    let mut out = std::io::stdout().lock();
    let Report { mute, good, seconds, start_lag, .. } = report;
    writeln!(out, "{mute} mute services and {good} good ones for {seconds} s")?;
    writeln!(
        out,
        "good: {} checks, {} missed, {} false failures; mute: {} checks",
        report.good_checks, report.missed, report.false_failures, report.mute_checks
    )?;
    writeln!(
        out,
        "start lag p50 {:.1} ms, p99 {:.1} ms, at most {:.1} ms; idle timer {:.1} ms, {:.1} ms",
        start_lag.p50_ms,
        start_lag.p99_ms,
        start_lag.max_ms,
        report.idle_timer_p50_ms,
        report.idle_timer_p99_ms
    )?;
    writeln!(
        out,
        "over the idle timer: p50 {:.1} ms (limit 20), p99 {:.1} ms (limit 250)",
        report.over_p50_ms, report.over_p99_ms
    )?;
    writeln!(out, "\n{}", serde_json::to_string(report)?)?;
    Ok(())
}
