//! The recent calls of one tool, for the rules of scope `tool`: whoever made them.

use std::collections::VecDeque;
use std::time::Duration;

use crate::metrics::ToolMetrics;
use crate::service::ServiceName;
use crate::time::Timestamp;
use crate::window::RING_SPAN;

/// Calls remembered of one tool.
const MOST_CALLS: usize = 1_000;

/// The calls of one tool over the last hour, at most a thousand.
#[derive(Debug, Clone, Default)]
pub struct ToolWindow {
    calls: VecDeque<Call>,
    last_error: Option<String>,
}

#[derive(Debug, Clone, Copy)]
struct Call {
    at: Timestamp,
    duration: Duration,
    failed: bool,
}

impl ToolWindow {
    /// Takes in one call: how long it took and, if it failed, why.
    pub fn record(&mut self, at: Timestamp, duration: Duration, error: Option<String>) {
        let oldest = at.saturating_sub(RING_SPAN);
        while self.calls.front().is_some_and(|call| call.at < oldest)
            || self.calls.len() >= MOST_CALLS
        {
            self.calls.pop_front();
        }
        self.calls.push_back(Call { at, duration, failed: error.is_some() });
        self.last_error = error.or(self.last_error.take());
    }

    /// The numbers of the last `span` (at most [`RING_SPAN`]); a call is slow that took longer
    /// than `slow`.
    pub fn metrics(
        &self,
        (service, tool): (&ServiceName, &str),
        slow: Duration,
        span: Duration,
        now: Timestamp,
    ) -> ToolMetrics {
        let start = now.saturating_sub(span);
        let calls = self.calls.iter().rev().take_while(|call| call.at > start);
        let (mut failed, mut slow_calls) = (0_u64, 0_u64);
        let mut durations: Vec<Duration> = Vec::new();
        for call in calls {
            failed += u64::from(call.failed);
            slow_calls += u64::from(call.duration > slow);
            durations.push(call.duration);
        }
        durations.sort_unstable();
        let total = durations.len();
        let p95 = (total > 0).then(|| durations[(total * 95).div_ceil(100) - 1].as_secs_f64());
        let sum: Duration = durations.iter().sum();
        let mean = (total > 0).then(|| sum.as_secs_f64() / total as f64);
        ToolMetrics {
            service_name: service.clone(),
            tool_name: tool.to_owned(),
            total_calls: total as u64,
            failed_calls: failed,
            slow_calls,
            error_rate: if total > 0 { failed as f64 / total as f64 } else { 0.0 },
            avg_response_time: mean,
            p95_response_time: p95,
            last_error: self.last_error.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_millis(second * 1_000)
    }

    #[test]
    fn counts_what_lies_inside_the_span() {
        let mut window = ToolWindow::default();
        window.record(at(0), Duration::from_secs(9), Some("long ago".to_owned()));
        for second in 1..=20 {
            let error = (second == 10).then(|| "no".to_owned());
            window.record(at(100 + second), Duration::from_secs(second as u64), error);
        }
        let about = (&ServiceName::from("s"), "t");
        let seen = window.metrics(about, Duration::from_secs(15), Duration::from_secs(60), at(121));
        assert_eq!((seen.total_calls, seen.failed_calls, seen.slow_calls), (20, 1, 5));
        assert_eq!((seen.error_rate, seen.p95_response_time), (0.05, Some(19.0)));
        assert_eq!((seen.avg_response_time, seen.last_error.as_deref()), (Some(10.5), Some("no")));
    }

    #[test]
    fn is_bounded_in_time_and_number() {
        let mut window = ToolWindow::default();
        window.record(at(0), Duration::ZERO, None);
        for n in 0..2_000 {
            window.record(at(4_000 + n), Duration::ZERO, None);
        }
        assert_eq!(window.calls.len(), MOST_CALLS);
        let none = ToolWindow::default().metrics(
            (&ServiceName::from("s"), "t"),
            Duration::ZERO,
            RING_SPAN,
            at(0),
        );
        assert_eq!((none.total_calls, none.p95_response_time), (0, None));
    }
}
