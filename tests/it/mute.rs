//! Many commands that never read and never answer, and a few good ones among them: the good ones
//! are asked in time, nothing is said of them that is not so, and there are never more processes
//! than allowed. Small in CI, a thousand with `MCPMON_SOAK=1`.
#![cfg(target_os = "linux")]

use std::collections::BTreeMap;
use std::time::Duration;

use mcpmon_collect::McpProbeFactory;
use mcpmon_core::monitor::{MonitorEvent, MonitorHandle as _};
use mcpmon_core::{Question, ServiceName, ServiceSpec, Settings, Status};
use mcpmon_engine::Monitor;
use mcpmon_mcp::Guardian;
use tokio::time::Instant;

const MCPMON: &str = env!("CARGO_BIN_EXE_mcpmon");

/// How large a fleet, and how it is watched.
struct Fleet {
    mute: usize,
    good: usize,
    max_children: u32,
    interval: Duration,
    timeout: Duration,
    watched_for: Duration,
    /// The last of the good ones has answered by then.
    all_met_within: Duration,
}

const SMALL: Fleet = Fleet {
    mute: 60,
    good: 8,
    max_children: 24,
    interval: Duration::from_secs(2),
    timeout: Duration::from_secs(8),
    watched_for: Duration::from_secs(25),
    all_met_within: Duration::from_secs(40),
};
const LARGE: Fleet = Fleet {
    mute: 1_000,
    good: 100,
    max_children: 256,
    interval: Duration::from_secs(30),
    timeout: Duration::from_secs(10),
    watched_for: Duration::from_secs(300),
    all_met_within: Duration::from_secs(120),
};

/// Running processes below the guardian, zombies included.
fn children(guardian: u32) -> usize {
    let parent = guardian.to_string();
    let is_its = |stat: String| {
        stat.rsplit_once(") ").and_then(|(_, rest)| rest.split(' ').nth(1)) == Some(&parent)
    };
    std::fs::read_dir("/proc")
        .unwrap()
        .flatten()
        .filter(|entry| std::fs::read_to_string(entry.path().join("stat")).is_ok_and(is_its))
        .count()
}

/// The value below which a share of all lies.
fn quantile(sorted: &[f64], share: f64) -> f64 {
    let last = sorted.len().saturating_sub(1);
    sorted.get((last as f64 * share).round() as usize).copied().unwrap_or(f64::NAN)
}

#[derive(Default)]
struct Seen {
    /// When each good service's checks began, in milliseconds.
    starts: BTreeMap<ServiceName, Vec<i64>>,
    met: BTreeMap<ServiceName, Duration>,
    failed: Vec<String>,
    unknown: usize,
}

#[tokio::test(flavor = "multi_thread")]
async fn commands_that_never_read_delay_no_good_one() {
    let fleet = if std::env::var_os("MCPMON_SOAK").is_some() { LARGE } else { SMALL };
    let mut settings = Settings::default();
    settings.monitoring.check_interval = fleet.interval;
    settings.monitoring.health_check_timeout = fleet.timeout;
    settings.service_monitoring.startup_timeout = fleet.timeout;
    settings.service_monitoring.max_children = fleet.max_children;
    settings.performance_monitoring.enabled = false;
    let limits = settings.limits();
    let mute = (0..fleet.mute)
        .map(|number| ServiceSpec::stdio(format!("mute-{number}"), "sleep", ["6000".to_owned()]));
    let good = (0..fleet.good)
        .map(|number| ServiceSpec::stdio(format!("good-{number}"), MCPMON, ["demo-server"]));
    let services = mute.chain(good).map(|mut service| {
        service.limits = limits.clone();
        service
    });
    let guardian = Guardian::run_by(MCPMON);
    let factory = McpProbeFactory::new(&settings).with_guardian(guardian.clone());
    let monitor = Monitor::builder()
        .probe_factory(factory)
        .services(services.collect::<Vec<_>>())
        .settings(settings)
        .start()
        .await
        .unwrap();
    let began = Instant::now();
    let mut events = monitor.subscribe();
    let mut seen = Seen::default();
    let mut most = 0;
    let mut look = tokio::time::interval(Duration::from_millis(200));
    let mut watched_until = None;
    loop {
        let met_all = seen.met.len() == fleet.good;
        if met_all && watched_until.is_none() {
            watched_until = Some(Instant::now() + fleet.watched_for);
        }
        if watched_until.is_some_and(|until| Instant::now() >= until) {
            break;
        }
        assert!(
            met_all || began.elapsed() < fleet.all_met_within,
            "{} of {} good ones have answered after {:?}; unknown {}",
            seen.met.len(),
            fleet.good,
            began.elapsed(),
            seen.unknown
        );
        tokio::select! {
            event = events.next() => match event.expect("the monitor runs") {
                MonitorEvent::Checked(check) => seen.take(&check, began.elapsed()),
                MonitorEvent::Missed { .. } => panic!("an event was missed"),
                _ => {}
            },
            _ = look.tick() => {
                if let Some(guardian) = guardian.id().await {
                    most = most.max(children(guardian));
                }
            }
        }
    }
    let id = guardian.id().await.unwrap();
    let stopping = Instant::now();
    monitor.stop().await;
    let left = children(id);
    guardian.close().await;
    let lags = seen.lags(&fleet);
    println!("{}", seen.report(&fleet, &lags, most, left, stopping.elapsed()));
    assert!(seen.failed.is_empty(), "{:#?}", seen.failed);
    assert_eq!(left, 0);
    assert!(most <= fleet.max_children as usize, "{most} children");
    assert!(quantile(&lags, 0.99) < 1.0, "{lags:?}");
    // Nobody's check was left out either.
    let rounds = fleet.watched_for.as_secs_f64() / fleet.interval.as_secs_f64();
    let expected = rounds * 0.8 * fleet.good as f64;
    assert!(lags.len() as f64 >= expected, "{} checks, {expected} expected", lags.len());
}

impl Seen {
    fn take(&mut self, check: &mcpmon_core::store::CheckRecord, after: Duration) {
        if !check.service.as_str().starts_with("good-") || check.question == Question::Heartbeat {
            return;
        }
        match check.status {
            Status::Running => {
                if !self.met.contains_key(&check.service) {
                    // It may have waited for its place, which is told apart.
                    self.met.insert(check.service.clone(), after);
                    return;
                }
                self.starts.entry(check.service.clone()).or_default().push(check.at.as_millis());
            }
            Status::Unknown => self.unknown += 1,
            _ => self.failed.push(format!("{check:?}")),
        }
    }

    /// From one start to the next, less the interval: the lag, give or take twice the jitter of
    /// 1.5 %. In order.
    fn lags(&self, fleet: &Fleet) -> Vec<f64> {
        let interval = fleet.interval.as_secs_f64();
        let starts = self.starts.values().flat_map(|starts| starts.windows(2));
        let mut lags: Vec<f64> =
            starts.map(|pair| (pair[1] - pair[0]) as f64 / 1_000.0 - interval).collect();
        lags.sort_by(f64::total_cmp);
        lags
    }

    fn report(
        &self,
        fleet: &Fleet,
        lags: &[f64],
        most: usize,
        left: usize,
        stopped: Duration,
    ) -> String {
        let last_met = self.met.values().max().copied().unwrap_or_default();
        format!(
            "{} mute and {} good commands, max_children {}: the good ones were met within {:.1} s, \
             then {} checks began late by p50 {:.3} s, p99 {:.3} s; {} failures, {} without a \
             place; at most {most} children, {left} left after a stop of {:.1} s",
            fleet.mute,
            fleet.good,
            fleet.max_children,
            last_met.as_secs_f64(),
            lags.len(),
            quantile(lags, 0.5),
            quantile(lags, 0.99),
            self.failed.len(),
            self.unknown,
            stopped.as_secs_f64(),
        )
    }
}
