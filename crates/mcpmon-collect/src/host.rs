//! Measures the machine the monitor runs on: CPU, memory, swap, file systems, network, load.
//!
//! The numbers are those people know from `free`, `df` and `uptime`, so that an alert can be
//! checked by hand. CPU and rates need two readings; [`SysinfoHost`] keeps the last one, and waits
//! up to a second where it is missing or too young. Reading is blocking work on its own thread; the
//! arithmetic is in pure functions of two readings.

mod disks;
mod network;
#[cfg(target_os = "linux")]
mod online;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use mcpmon_core::metrics::{DiskMetrics, SystemMetrics};
use mcpmon_core::probe::HostProbe;
use mcpmon_core::settings::Disks;
use sysinfo::System;
use tokio::time::Instant;

use network::Counters;

/// CPU and rates are over at least this long: shorter spans measure our own reading.
const SHORTEST_SPAN: Duration = Duration::from_secs(1);

/// One sample of the host without keeping a probe.
pub trait SampleHost: Sized {
    /// Measures the host over one second; `disks` says which file systems.
    ///
    /// What the system does not tell is 0 or missing. Cancel-safe.
    fn sample(disks: &Disks) -> impl Future<Output = Self> + Send;
}

impl SampleHost for SystemMetrics {
    async fn sample(disks: &Disks) -> Self {
        SysinfoHost::new(disks.clone()).sample().await
    }
}

/// Measures the host again and again; CPU and rates are over the time since the sample before.
#[derive(Debug)]
pub struct SysinfoHost {
    disks: Disks,
    readings: Arc<Mutex<Readings>>,
    read_at: Option<Instant>,
}

impl SysinfoHost {
    /// A probe for the host and these file systems. Reads nothing yet.
    pub fn new(disks: Disks) -> Self {
        Self { disks, readings: Arc::new(Mutex::new(Readings::default())), read_at: None }
    }

    /// Runs `read` with the readings kept so far, on a thread that may block.
    async fn read<T: Default + Send + 'static>(
        &self,
        read: impl FnOnce(&mut Readings) -> T + Send + 'static,
    ) -> T {
        let readings = Arc::clone(&self.readings);
        tokio::task::spawn_blocking(move || {
            read(&mut readings.lock().unwrap_or_else(PoisonError::into_inner))
        })
        .await
        .unwrap_or_default()
    }
}

#[async_trait]
impl HostProbe for SysinfoHost {
    async fn sample(&mut self) -> SystemMetrics {
        let before = match self.read_at {
            Some(at) => at,
            None => {
                self.read(Readings::begin).await;
                *self.read_at.insert(Instant::now())
            }
        };
        tokio::time::sleep_until(before + SHORTEST_SPAN).await;
        let now = Instant::now();
        let (span, disks) = (now - before, self.disks.clone());
        let sample = self.read(move |readings| readings.sample(&disks, span)).await;
        self.read_at = Some(now);
        sample
    }

    #[cfg(target_os = "linux")]
    fn is_online(&mut self) -> Option<bool> {
        online::look()
    }
}

/// What has to be kept from one sample to the next.
#[derive(Debug, Default)]
struct Readings {
    system: Option<System>,
    counters: BTreeMap<String, Counters>,
    /// Paths whose file system could not be measured, so that each is told of once.
    unmeasured: BTreeSet<String>,
}

impl Readings {
    fn begin(&mut self) {
        self.system = System::new()
            .inspect_err(|error| tracing::warn!(%error, "This system cannot be measured"))
            .ok();
        if let Some(system) = &mut self.system {
            system.refresh_cpu_usage();
        }
        self.counters = network::read();
    }

    fn sample(&mut self, disks: &Disks, span: Duration) -> SystemMetrics {
        let mut metrics = SystemMetrics::default();
        if let Some(system) = &mut self.system {
            system.refresh_cpu_usage();
            system.refresh_memory();
            metrics.cpu_percent = f64::from(system.global_cpu_usage()).clamp(0.0, 100.0);
            fill_memory(&mut metrics, system.total_memory(), system.available_memory());
            fill_swap(&mut metrics, system.total_swap(), system.free_swap());
            metrics.load_1m = System::load_average().map_or(0.0, |load| load.one);
        }
        let counters = network::read();
        (metrics.interfaces, metrics.network) = network::rates(&counters, &self.counters, span);
        self.counters = counters;
        metrics.disks = self.measure(disks);
        metrics.disk_percent = fullest(&metrics.disks);
        metrics
    }

    fn measure(&mut self, disks: &Disks) -> Vec<DiskMetrics> {
        let (found, failed) = disks::measure(disks);
        for (path, error) in failed {
            if self.unmeasured.insert(path.clone()) {
                tracing::warn!(%path, %error, "The file system of this path cannot be measured");
            }
        }
        found
    }
}

fn fill_memory(metrics: &mut SystemMetrics, total: u64, available: u64) {
    let available = available.min(total);
    metrics.memory_total_bytes = total;
    metrics.memory_available_bytes = available;
    metrics.memory_used_bytes = total - available;
    metrics.memory_percent = percent(total - available, total);
}

fn fill_swap(metrics: &mut SystemMetrics, total: u64, free: u64) {
    let free = free.min(total);
    metrics.swap_total_bytes = total;
    metrics.swap_free_bytes = free;
    metrics.swap_used_bytes = total - free;
    metrics.swap_percent = percent(total - free, total);
}

fn fullest(disks: &[DiskMetrics]) -> Option<f64> {
    disks.iter().map(|disk| disk.percent).reduce(f64::max)
}

/// `part` of `whole` in percent; 0 of nothing.
fn percent(part: u64, whole: u64) -> f64 {
    if whole == 0 {
        return 0.0;
    }
    part as f64 / whole as f64 * 100.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn used_memory_is_what_free_calls_used() {
        let mut metrics = SystemMetrics::default();
        for (total, available, used, share) in [
            (16_000, 4_000, 12_000, 75.0),
            (16_000, 16_000, 0, 0.0),
            // Some containers report more available than there is.
            (16_000, 20_000, 0, 0.0),
            (0, 0, 0, 0.0),
        ] {
            fill_memory(&mut metrics, total, available);
            assert_eq!(metrics.memory_used_bytes, used);
            assert_eq!(metrics.memory_percent, share);
            fill_swap(&mut metrics, total, available);
            assert_eq!(metrics.swap_used_bytes, used);
            assert_eq!(metrics.swap_percent, share);
        }
    }

    #[test]
    fn the_fullest_disk_counts() {
        let disk = |percent| DiskMetrics { percent, ..DiskMetrics::default() };
        assert_eq!(fullest(&[disk(20.0), disk(91.5), disk(3.0)]), Some(91.5));
        assert_eq!(fullest(&[]), None);
    }

    #[tokio::test]
    async fn measures_this_machine_alone_and_again() {
        let disks = Disks::Paths(vec!["/".to_owned()]);
        let first = SystemMetrics::sample(&disks).await;
        assert!(first.memory_total_bytes > 1 << 20, "{first:?}");
        assert!((0.0..=100.0).contains(&first.cpu_percent), "{first:?}");
        assert!(first.memory_percent > 0.0 && first.memory_percent <= 100.0);
        assert_eq!(first.disks.len(), 1, "{first:?}");
        assert_eq!(first.disk_percent, Some(first.disks[0].percent));

        let started = Instant::now();
        let mut host = SysinfoHost::new(Disks::Paths(Vec::new()));
        let (_, again) = (host.sample().await, host.sample().await);
        assert!(started.elapsed() >= 2 * SHORTEST_SPAN, "each is over a second");
        assert_eq!((again.disks.len(), again.disk_percent), (0, None));
    }
}
