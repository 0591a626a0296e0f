//! What a rule looks through: the recent past of one service, in memory.
//!
//! Single observations are kept for up to an hour; a rule with a longer window gets minute
//! aggregates for up to a day. Both are rebuilt from the store at start, so that no rule runs SQL.

use std::collections::VecDeque;
use std::time::Duration;

use crate::check::CheckMeaning;
use crate::metrics::{ErrorRateSource, ProcessMetrics, ServiceMetrics};
use crate::service::ServiceName;
use crate::sketch::LatencySketch;
use crate::state::ServiceState;
use crate::status::Status;
use crate::time::Timestamp;

/// The window every question has that names no other.
pub const DEFAULT_WINDOW: Duration = Duration::from_secs(300);
/// How far back single observations reach.
pub const RING_SPAN: Duration = Duration::from_secs(3_600);
/// The longest window there is.
pub const LONGEST_WINDOW: Duration = Duration::from_secs(24 * 3_600);

const NO_LATENCY: u32 = u32::MAX;

#[derive(Debug, Clone, Copy)]
struct Entry {
    at: i64,
    /// In ticks of 10 µs.
    latency: u32,
    status: Status,
}

#[derive(Debug, Clone, Default)]
struct Minute {
    starts_at: i64,
    counted: u32,
    failed: u32,
    available: u32,
    latencies: LatencySketch,
}

/// The recent past of one service.
#[derive(Debug, Clone)]
pub struct Window {
    reach: Duration,
    entries: VecDeque<Entry>,
    minutes: VecDeque<Minute>,
    last_check: Option<Timestamp>,
    last_good: Option<Timestamp>,
    tools_count: Option<u32>,
    active_connections: Option<u32>,
    process: Option<ProcessMetrics>,
    tool_list_tokens: Option<u64>,
}

impl Default for Window {
    fn default() -> Self {
        Self::new(DEFAULT_WINDOW)
    }
}

impl Window {
    /// A window that can answer for spans up to `reach` (at most [`LONGEST_WINDOW`]).
    pub fn new(reach: Duration) -> Self {
        Self {
            reach: reach.clamp(DEFAULT_WINDOW, LONGEST_WINDOW),
            entries: VecDeque::new(),
            minutes: VecDeque::new(),
            last_check: None,
            last_good: None,
            tools_count: None,
            active_connections: None,
            process: None,
            tool_list_tokens: None,
        }
    }

    /// Answers for spans up to `reach` (at most [`LONGEST_WINDOW`]) from now on; what has fallen
    /// out already does not come back.
    pub fn set_reach(&mut self, reach: Duration) {
        self.reach = reach.clamp(DEFAULT_WINDOW, LONGEST_WINDOW);
    }

    /// Takes in one check that began at `at` and, if it was timed, its latency. A check that is no
    /// answer about the service itself is left out. Entries older than the reach fall out.
    pub fn record(&mut self, at: Timestamp, check: CheckMeaning, latency: Option<Duration>) {
        if !check.is_of_service() {
            return;
        }
        let status = check.status;
        self.last_check = self.last_check.max(Some(at));
        if status.is_available() {
            self.last_good = self.last_good.max(Some(at));
        }
        let ticks = latency.map_or(NO_LATENCY, |latency| {
            u32::try_from(latency.as_micros() / 10).unwrap_or(NO_LATENCY - 1).min(NO_LATENCY - 1)
        });
        self.entries.push_back(Entry { at: at.as_millis(), latency: ticks, status });
        if self.reach > RING_SPAN {
            self.aggregate(at, status, latency);
        }
        self.forget_before(at);
    }

    /// Failed checks that began between `since` and `until`, both included, are attributed to the
    /// monitor: they count no more.
    pub fn discount(&mut self, since: Timestamp, until: Timestamp) {
        let entries = self.entries.iter_mut().rev();
        let entries = entries.skip_while(|entry| entry.at > until.as_millis());
        for entry in entries.take_while(|entry| entry.at >= since.as_millis()) {
            if entry.status.is_failure() {
                entry.status = Status::Unknown;
                let minute = entry.at.div_euclid(60_000) * 60_000;
                let minute = self.minutes.iter_mut().rev().find(|of| of.starts_at == minute);
                if let Some(minute) = minute {
                    minute.counted = minute.counted.saturating_sub(1);
                    minute.failed = minute.failed.saturating_sub(1);
                }
            }
        }
    }

    /// The wall clock was set back by `span`: what was seen keeps its age.
    pub fn set_back(&mut self, span: Duration) {
        let back = |at: Timestamp| at.saturating_sub(span);
        let millis = i64::try_from(span.as_millis()).unwrap_or(i64::MAX);
        self.entries.iter_mut().for_each(|entry| entry.at = entry.at.saturating_sub(millis));
        // A minute keeps beginning at a full one, as those to come will.
        let minutes = millis / 60_000 * 60_000;
        self.minutes.iter_mut().for_each(|minute| minute.starts_at -= minutes);
        self.last_check = self.last_check.map(back);
        self.last_good = self.last_good.map(back);
    }

    /// Notes the sessions that are known open; `None` where that cannot be known.
    pub fn note_connections(&mut self, active_connections: Option<u32>) {
        self.active_connections = active_connections;
    }

    /// Notes the service's process tree as the last stored check saw it; `None` where there was no
    /// process.
    pub fn note_process(&mut self, process: Option<ProcessMetrics>) {
        self.process = process;
    }

    /// Notes what was read of the list of tools: how many there are, and what the list costs a
    /// model in tokens. What was not read stays as it was.
    pub fn note_tools(&mut self, count: Option<u32>, list_tokens: Option<u64>) {
        self.tools_count = count.or(self.tools_count);
        self.tool_list_tokens = list_tokens.or(self.tool_list_tokens);
    }

    /// What its list of tools costs a model, as last looked at.
    pub fn tool_list_tokens(&self) -> Option<u64> {
        self.tool_list_tokens
    }

    /// When the service was last asked.
    pub fn last_check(&self) -> Option<Timestamp> {
        self.last_check
    }

    /// Tools last listed.
    pub fn tools_count(&self) -> Option<u32> {
        self.tools_count
    }

    /// How often the last `count` raw results went from well to failed or back; what was our own
    /// doing is none.
    pub fn result_changes(&self, count: usize) -> u32 {
        let counted = self.entries.iter().rev().filter(|entry| entry.status.is_counted());
        let mut changes = 0;
        let mut later = None;
        for failed in counted.take(count).map(|entry| entry.status.is_failure()) {
            changes += u32::from(later.replace(failed).is_some_and(|later| later != failed));
        }
        changes
    }

    /// The last `count` raw results, newest last.
    pub fn last_results(&self, count: usize) -> impl Iterator<Item = Status> + '_ {
        let skip = self.entries.len().saturating_sub(count);
        self.entries.iter().skip(skip).map(|entry| entry.status)
    }

    /// The snapshot of `service` over the last `span`, seen at `now`.
    pub fn metrics(
        &self,
        service: &ServiceName,
        state: &ServiceState,
        span: Duration,
        now: Timestamp,
    ) -> ServiceMetrics {
        let sums = if span > RING_SPAN && self.reach > RING_SPAN {
            self.sum_minutes(span, now)
        } else {
            self.sum_entries(span, now)
        };
        let ratio = |part: u64, whole: u64| (whole > 0).then(|| part as f64 / whole as f64);
        let uptime = match state.available_since {
            Some(since) => now.since(since).as_secs_f64(),
            None => 0.0,
        };
        ServiceMetrics {
            service_name: service.clone(),
            status: state.status,
            uptime,
            uptime_ratio: ratio(sums.available, sums.counted),
            last_check_time: self.last_check,
            last_activity: self.last_good,
            consecutive_failures: state.failures_in_a_row(),
            total_checks: sums.counted,
            failed_checks: sums.failed,
            total_calls: 0,
            failed_calls: 0,
            total_requests: sums.counted,
            failed_requests: sums.failed,
            error_rate: ratio(sums.failed, sums.counted).unwrap_or(0.0),
            error_rate_source: ErrorRateSource::Checks,
            error_rate_samples: sums.counted,
            avg_response_time: sums.mean,
            p50_response_time: sums.p50,
            p95_response_time: sums.p95,
            p99_response_time: sums.p99,
            throughput: 0.0,
            active_connections: self.active_connections,
            tools_count: self.tools_count,
            last_error: state.last_error.clone(),
            restarts: state.restarts,
            cpu_percent: self.process.map(|process| process.cpu_percent),
            memory_bytes: self.process.map(|process| process.memory_bytes),
            open_files: self.process.and_then(|process| process.open_files),
            tool_list_tokens: self.tool_list_tokens,
        }
    }

    fn aggregate(&mut self, at: Timestamp, status: Status, latency: Option<Duration>) {
        let starts_at = at.as_millis().div_euclid(60_000) * 60_000;
        if self.minutes.back().is_none_or(|minute| minute.starts_at != starts_at) {
            self.minutes.push_back(Minute { starts_at, ..Minute::default() });
        }
        if let Some(minute) = self.minutes.back_mut() {
            minute.counted += u32::from(status.is_counted());
            minute.failed += u32::from(status.is_failure());
            minute.available += u32::from(status.is_available());
            if let Some(latency) = latency {
                minute.latencies.record(latency);
            }
        }
    }

    fn forget_before(&mut self, now: Timestamp) {
        let ring_start = now.saturating_sub(self.reach.min(RING_SPAN)).as_millis();
        while self.entries.front().is_some_and(|entry| entry.at < ring_start) {
            self.entries.pop_front();
        }
        let minutes_start = now.saturating_sub(self.reach).as_millis() - 60_000;
        while self.minutes.front().is_some_and(|minute| minute.starts_at < minutes_start) {
            self.minutes.pop_front();
        }
    }

    fn sum_entries(&self, span: Duration, now: Timestamp) -> Sums {
        let start = now.saturating_sub(span).as_millis();
        let mut sums = Sums::default();
        let mut latencies = Vec::new();
        for entry in self.entries.iter().rev().take_while(|entry| entry.at > start) {
            sums.counted += u64::from(entry.status.is_counted());
            sums.failed += u64::from(entry.status.is_failure());
            sums.available += u64::from(entry.status.is_available());
            if entry.latency != NO_LATENCY {
                latencies.push(entry.latency);
            }
        }
        if latencies.is_empty() {
            return sums;
        }
        latencies.sort_unstable();
        let at = |q: f64| {
            let rank = (q * latencies.len() as f64).ceil().max(1.0) as usize;
            Some(f64::from(latencies[rank - 1]) / 100_000.0)
        };
        let sum: u64 = latencies.iter().map(|ticks| u64::from(*ticks)).sum();
        sums.mean = Some(sum as f64 / latencies.len() as f64 / 100_000.0);
        (sums.p50, sums.p95, sums.p99) = (at(0.5), at(0.95), at(0.99));
        sums
    }

    fn sum_minutes(&self, span: Duration, now: Timestamp) -> Sums {
        let start = now.saturating_sub(span).as_millis();
        let mut sums = Sums::default();
        let mut sketch = LatencySketch::default();
        for minute in self.minutes.iter().rev().take_while(|minute| minute.starts_at > start) {
            sums.counted += u64::from(minute.counted);
            sums.failed += u64::from(minute.failed);
            sums.available += u64::from(minute.available);
            sketch.merge(&minute.latencies);
        }
        let at = |q: f64| sketch.quantile(q).map(|latency| latency.as_secs_f64());
        (sums.p50, sums.p95, sums.p99) = (at(0.5), at(0.95), at(0.99));
        sums.mean = sketch.mean().map(|latency| latency.as_secs_f64());
        sums
    }
}

#[derive(Debug, Default)]
struct Sums {
    counted: u64,
    failed: u64,
    available: u64,
    mean: Option<f64>,
    p50: Option<f64>,
    p95: Option<f64>,
    p99: Option<f64>,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_millis(second * 1_000)
    }

    fn metrics(window: &Window, span: u64, now: i64) -> ServiceMetrics {
        let state = ServiceState::new(Timestamp::default());
        window.metrics(&ServiceName::from("s"), &state, Duration::from_secs(span), at(now))
    }

    #[test]
    fn counts_failures_and_latencies_inside_the_span_only() {
        let mut window = Window::default();
        window.record(at(0), CheckMeaning::health(Status::Stopped), None);
        for second in 1..=4 {
            let latency = Duration::from_millis(second as u64 * 10);
            window.record(at(second * 10), CheckMeaning::health(Status::Running), Some(latency));
        }
        let all = metrics(&window, 300, 40);
        assert_eq!((all.total_checks, all.failed_checks), (5, 1));
        assert!((all.error_rate - 0.2).abs() < 1e-9);
        assert_eq!(all.p50_response_time, Some(0.02));
        assert_eq!(all.p99_response_time, Some(0.04));
        assert!((all.avg_response_time.unwrap() - 0.025).abs() < 1e-9);
        let recent = metrics(&window, 15, 40);
        assert_eq!((recent.total_checks, recent.failed_checks), (2, 0));
    }

    #[test]
    fn changes_of_the_raw_result_are_counted_over_the_last_attempts() {
        for (results, last, changes) in
            [("", 20, 0), ("...", 20, 0), (".x.x", 20, 3), (".?.?x?x", 20, 1), (".x.x", 2, 1)]
        {
            let mut window = Window::default();
            for (second, symbol) in results.chars().enumerate() {
                let status = match symbol {
                    '.' => Status::Running,
                    'x' => Status::Error,
                    _ => Status::Unknown,
                };
                window.record(at(second as i64), CheckMeaning::health(status), None);
            }
            assert_eq!(window.result_changes(last), changes, "{results}");
        }
    }

    #[test]
    fn our_own_faults_are_not_counted() {
        let mut window = Window::default();
        window.record(at(1), CheckMeaning::health(Status::Unknown), None);
        let none = metrics(&window, 300, 2);
        assert_eq!((none.total_checks, none.uptime_ratio), (0, None));
        assert_eq!(none.last_check_time, Some(at(1)));
    }

    #[test]
    fn what_turns_out_to_be_our_own_doing_counts_no_more() {
        let mut window = Window::new(LONGEST_WINDOW);
        for (second, status) in [(1, Status::Stopped), (2, Status::Running), (3, Status::Stopped)] {
            window.record(at(second), CheckMeaning::health(status), None);
        }
        window.discount(at(2), at(3));
        let left = metrics(&window, 300, 4);
        assert_eq!((left.total_checks, left.failed_checks), (2, 1));
        window.record(at(100), CheckMeaning::health(Status::Running), None);
        let hours = metrics(&window, 7_200, 100);
        assert_eq!((hours.total_checks, hours.failed_checks), (3, 1));
    }

    #[test]
    fn ages_stay_what_they_are_when_the_clock_is_set_back() {
        let mut window = Window::default();
        window.record(at(4_000), CheckMeaning::health(Status::Running), None);
        window.set_back(Duration::from_secs(3_600));
        window.record(at(410), CheckMeaning::health(Status::Stopped), None);
        assert_eq!(metrics(&window, 300, 410).total_checks, 2);
        assert_eq!(metrics(&window, 300, 800).total_checks, 0);
        assert_eq!(metrics(&window, 300, 410).last_check_time, Some(at(410)));
    }

    #[test]
    fn a_longer_reach_keeps_what_a_shorter_one_would_drop() {
        let mut window = Window::default();
        window.record(at(0), CheckMeaning::health(Status::Running), None);
        window.set_reach(Duration::from_secs(1_800));
        window.record(at(1_000), CheckMeaning::health(Status::Running), None);
        assert_eq!(metrics(&window, 1_800, 1_000).total_checks, 2);
    }

    #[test]
    fn memory_is_bounded_by_the_reach() {
        let mut window = Window::new(LONGEST_WINDOW);
        for minute in 0..(48 * 60) {
            window.record(
                at(minute * 60),
                CheckMeaning::health(Status::Running),
                Some(Duration::from_millis(5)),
            );
        }
        assert!(window.entries.len() <= 61);
        assert!(window.minutes.len() <= 24 * 60 + 2);
        let day = metrics(&window, 24 * 3_600, 48 * 3_600);
        assert_eq!(day.total_checks, 24 * 60 - 1);
        assert!((day.p50_response_time.unwrap() - 0.005).abs() < 0.005 * 0.01);
    }
}
