//! What a service's processes use, over time: too much now, or more and more for hours.
//!
//! The limits are constants, meant for a machine that runs several servers beside people's work;
//! the thresholds of `[performance_monitoring]` are the machine's own.

use std::collections::VecDeque;
use std::time::Duration;

use mcpmon_core::metrics::ProcessMetrics;
use mcpmon_core::{Finding, FindingCode, Timestamp};

/// Use over this span is use now.
const NOW: Duration = Duration::from_secs(300);
/// Fewer samples, or over a shorter time, are a moment.
const FEWEST_SAMPLES: usize = 5;
const SHORTEST_NOW: Duration = Duration::from_secs(120);
const MOST_SAMPLES: usize = 64;
/// A tree that keeps a core busy for minutes works or spins; a server that waits for calls does
/// neither.
const HIGH_CPU_PERCENT: f64 = 90.0;
/// Ten to twenty times what a usual server takes.
const HIGH_MEMORY_BYTES: u64 = 1 << 30;

/// One point of the trend: the least that was used in this span, which garbage not collected yet
/// does not raise.
const POINT: Duration = Duration::from_secs(300);
/// Six hours of points.
const MOST_POINTS: usize = 72;
/// Three hours: shorter rises are caches that fill.
const FEWEST_POINTS: usize = 36;
/// A rise over the whole span has to be this large, absolutely and as a share of what there was.
const LEAST_GROWTH_BYTES: f64 = 32.0 * 1_048_576.0;
const LEAST_GROWTH: f64 = 0.25;
/// So large a share of all pairs of points has to rise.
const RISING_PAIRS: f64 = 0.75;

/// What one service's processes used.
#[derive(Debug, Clone, Default)]
pub(crate) struct Usage {
    recent: VecDeque<(Timestamp, ProcessMetrics)>,
    points: VecDeque<(Timestamp, u64)>,
    growing: Option<Finding>,
}

impl Usage {
    /// Takes in a sample of the process tree; `restarted` if it is another process than before.
    pub(crate) fn sample(&mut self, at: Timestamp, process: ProcessMetrics, restarted: bool) {
        if restarted {
            *self = Self::default();
        }
        while self.recent.front().is_some_and(|(first, _)| at.since(*first) > NOW) {
            self.recent.pop_front();
        }
        if self.recent.len() == MOST_SAMPLES {
            self.recent.pop_front();
        }
        self.recent.push_back((at, process));
        let memory = process.memory_bytes;
        match self.points.back_mut() {
            Some((began, least)) if at.since(*began) < POINT => *least = memory.min(*least),
            _ => {
                // What the point now complete adds to the trend.
                self.growing = growth(&self.points);
                self.points.push_back((at, memory));
            }
        }
        if self.points.len() > MOST_POINTS {
            self.points.pop_front();
        }
    }

    /// What is to be told of it.
    pub(crate) fn findings(&self) -> impl Iterator<Item = Finding> {
        let (cpu, memory) = self.now().unwrap_or((0.0, 0));
        let high_cpu = (cpu > HIGH_CPU_PERCENT).then(|| {
            let text = format!("its processes used {cpu:.0} % of a core over the last minutes");
            Finding::new(FindingCode::HighCpu, text).with("cpu_percent", cpu)
        });
        let high_memory = (memory > HIGH_MEMORY_BYTES).then(|| {
            let text = format!("its processes use {} MiB of memory", memory >> 20);
            Finding::new(FindingCode::HighMemory, text).with("memory_bytes", memory)
        });
        [high_cpu, high_memory, self.growing.clone()].into_iter().flatten()
    }

    /// Medians of CPU and memory over the last minutes.
    fn now(&self) -> Option<(f64, u64)> {
        let (first, last) = (self.recent.front()?.0, self.recent.back()?.0);
        if self.recent.len() < FEWEST_SAMPLES || last.since(first) < SHORTEST_NOW {
            return None;
        }
        let mut cpu: Vec<f64> = self.recent.iter().map(|(_, used)| used.cpu_percent).collect();
        let mut memory: Vec<u64> = self.recent.iter().map(|(_, used)| used.memory_bytes).collect();
        cpu.sort_by(f64::total_cmp);
        memory.sort_unstable();
        Some((cpu[cpu.len() / 2], memory[memory.len() / 2]))
    }
}

/// Whether these points only ever rise, and by how much: the median of all slopes (Theil and Sen),
/// which no single peak moves.
fn growth(points: &VecDeque<(Timestamp, u64)>) -> Option<Finding> {
    if points.len() < FEWEST_POINTS {
        return None;
    }
    let hours = |at: Timestamp, from: Timestamp| at.since(from).as_secs_f64() / 3_600.0;
    let mut slopes = Vec::with_capacity(points.len() * points.len() / 2);
    for (n, (at, memory)) in points.iter().enumerate() {
        for (earlier, before) in points.iter().take(n) {
            let span = hours(*at, *earlier);
            if span > 0.0 {
                slopes.push((*memory as f64 - *before as f64) / span);
            }
        }
    }
    let rising = slopes.iter().filter(|slope| **slope > 0.0).count();
    if slopes.is_empty() || (rising as f64) < slopes.len() as f64 * RISING_PAIRS {
        return None;
    }
    let middle = slopes.len() / 2;
    let (_, slope, _) = slopes.select_nth_unstable_by(middle, f64::total_cmp);
    let slope = *slope;
    let quarter = points.len() / 4;
    let first = points.iter().take(quarter).map(|(_, memory)| *memory).max()?;
    let last = points.iter().rev().take(quarter).map(|(_, memory)| *memory).min()?;
    let span = hours(points.back()?.0, points.front()?.0);
    let least = LEAST_GROWTH_BYTES.max(first as f64 * LEAST_GROWTH);
    (last > first && slope * span >= least).then(|| {
        let text = format!(
            "its memory grew by {:.0} MiB an hour over the last {span:.0} hours",
            slope / 1_048_576.0
        );
        Finding::new(FindingCode::MemoryGrowing, text)
            .with("bytes_per_hour", slope.round())
            .with("memory_bytes", last)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    /// Samples every 30 s for so many hours; the codes told at the end.
    fn told(hours: u64, used: impl Fn(u64) -> (f64, u64)) -> Vec<FindingCode> {
        let mut usage = Usage::default();
        for n in 0..hours * 120 {
            let (cpu_percent, mib) = used(n);
            let process =
                ProcessMetrics { cpu_percent, memory_bytes: mib * MIB, ..Default::default() };
            let at = Timestamp::from_millis(0).saturating_add(Duration::from_secs(n * 30));
            usage.sample(at, process, n == 0);
        }
        usage.findings().map(|finding| finding.code).collect()
    }

    #[test]
    fn a_server_that_waits_for_calls_has_nothing_to_tell() {
        assert_eq!(told(8, |_| (0.5, 80)), []);
    }

    #[test]
    fn too_much_for_minutes_is_told_and_a_peak_is_not() {
        assert_eq!(told(1, |_| (100.0, 2_000)), [FindingCode::HighCpu, FindingCode::HighMemory]);
        assert_eq!(told(1, |n| (if n % 5 == 0 { 400.0 } else { 3.0 }, 80)), []);
    }

    #[test]
    fn memory_that_only_grows_is_told_whatever_its_noise() {
        let growing = [FindingCode::MemoryGrowing];
        assert_eq!(told(5, |n| (1.0, 80 + n / 4)), growing);
        assert_eq!(told(5, |n| (1.0, 80 + n / 4 + n * 7 % 30)), growing);
    }

    #[test]
    fn a_cache_that_fills_a_peak_and_a_sawtooth_do_not_grow() {
        assert_eq!(told(8, |n| (1.0, 80 + n.min(60) * 4)), []);
        assert_eq!(told(8, |n| (1.0, if n == 500 { 900 } else { 80 })), []);
        assert_eq!(told(8, |n| (1.0, 80 + n % 200)), []);
        assert_eq!(told(2, |n| (1.0, 80 + n)), []);
        assert_eq!(told(8, |n| (1.0, 80 + n / 100)), []);
    }

    #[test]
    fn another_process_begins_anew() {
        let mut usage = Usage::default();
        for n in 0..100_u64 {
            let at = Timestamp::from_millis(n as i64 * 300_000);
            let memory_bytes = (80 + n * 4) * MIB;
            usage.sample(at, ProcessMetrics { memory_bytes, ..Default::default() }, n == 90);
        }
        assert_eq!(usage.findings().count(), 0);
    }
}
