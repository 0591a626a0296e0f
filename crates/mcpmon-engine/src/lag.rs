//! How late checks begin: the monitor's own queue, told apart from what services take.

use std::time::{Duration, Instant};

use mcpmon_core::contract::{StartLag, as_millis};
use mcpmon_core::sketch::LatencySketch;

/// The older half is forgotten this often.
const HALF: Duration = Duration::from_secs(300);

/// Start lags of the last five to ten minutes.
#[derive(Debug)]
pub(crate) struct Lags {
    recent: Half,
    before: Half,
    began: Instant,
}

#[derive(Debug, Default)]
struct Half {
    sketch: LatencySketch,
    max: Duration,
}

impl Lags {
    pub(crate) fn new(now: Instant) -> Self {
        Self { recent: Half::default(), before: Half::default(), began: now }
    }

    /// Counts one.
    pub(crate) fn record(&mut self, lag: Duration, now: Instant) {
        if now.saturating_duration_since(self.began) >= HALF {
            self.before = std::mem::take(&mut self.recent);
            self.began = now;
        }
        self.recent.sketch.record(lag);
        self.recent.max = self.recent.max.max(lag);
    }

    /// All of them together; `None` before the first.
    pub(crate) fn report(&self) -> Option<StartLag> {
        let mut all = self.before.sketch.clone();
        all.merge(&self.recent.sketch);
        Some(StartLag {
            p50_ms: as_millis(all.quantile(0.5)?),
            p99_ms: as_millis(all.quantile(0.99)?),
            max_ms: as_millis(self.recent.max.max(self.before.max)),
            checks: all.count(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_minutes_are_told_and_earlier_ones_forgotten() {
        let start = tokio::time::Instant::now().into_std();
        let mut lags = Lags::new(start);
        assert_eq!(lags.report(), None);
        for n in 1..=100 {
            lags.record(Duration::from_millis(n), start);
        }
        let told = lags.report().unwrap();
        assert_eq!((told.checks, told.max_ms), (100, 100.0));
        assert!((49.0..=51.0).contains(&told.p50_ms), "{told:?}");
        assert!((98.0..=100.0).contains(&told.p99_ms), "{told:?}");
        lags.record(Duration::from_millis(1), start + HALF);
        assert_eq!(lags.report().unwrap().checks, 101);
        lags.record(Duration::from_millis(1), start + HALF * 2);
        assert_eq!(lags.report().unwrap().checks, 2);
    }
}
