//! Clocks that say what a test wants to hear.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use mcpmon_core::time::{Clock, Timestamp};
use tokio::time::Instant;

/// The moment fake clocks start at: 2026-11-22T14:09:31.120Z.
pub const START: Timestamp = Timestamp::from_millis(1_795_356_571_120);

/// A wall clock that only moves when it is told to. Clones show the same time.
#[derive(Debug, Clone)]
pub struct FakeClock(Arc<AtomicI64>);

impl FakeClock {
    /// A clock that stands at `now`.
    pub fn at(now: Timestamp) -> Self {
        Self(Arc::new(AtomicI64::new(now.as_millis())))
    }

    /// Moves it on, and says what it shows then.
    pub fn advance(&self, by: Duration) -> Timestamp {
        self.set(self.now().saturating_add(by))
    }

    /// Moves it back, as wall clocks do when they are corrected.
    pub fn step_back(&self, by: Duration) -> Timestamp {
        self.set(self.now().saturating_sub(by))
    }

    /// Moves it to `now`.
    pub fn set(&self, now: Timestamp) -> Timestamp {
        self.0.store(now.as_millis(), Ordering::SeqCst);
        now
    }
}

impl Default for FakeClock {
    /// A clock that stands at [`START`].
    fn default() -> Self {
        Self::at(START)
    }
}

impl Clock for FakeClock {
    fn now(&self) -> Timestamp {
        Timestamp::from_millis(self.0.load(Ordering::SeqCst))
    }
}

/// A wall clock that runs as tokio's clock does: under a paused runtime it jumps with the timers,
/// so that timestamps and waits stay in step, until it is told to leap. Clones show the same time.
#[derive(Debug, Clone)]
pub struct TokioClock {
    start: Timestamp,
    origin: Instant,
    leapt_millis: Arc<AtomicI64>,
}

impl TokioClock {
    /// A clock that shows `start` now.
    pub fn starting_at(start: Timestamp) -> Self {
        Self { start, origin: Instant::now(), leapt_millis: Arc::default() }
    }

    /// Leaps on while timers stand still, as over a suspend.
    pub fn advance(&self, by: Duration) -> Timestamp {
        self.leap(by, 1)
    }

    /// Leaps back, as when it is corrected.
    pub fn step_back(&self, by: Duration) -> Timestamp {
        self.leap(by, -1)
    }

    fn leap(&self, by: Duration, sign: i64) -> Timestamp {
        let millis = i64::try_from(by.as_millis()).unwrap_or(i64::MAX);
        self.leapt_millis.fetch_add(sign * millis, Ordering::SeqCst);
        self.now()
    }
}

impl Default for TokioClock {
    /// A clock that shows [`START`] now.
    fn default() -> Self {
        Self::starting_at(START)
    }
}

impl Clock for TokioClock {
    fn now(&self) -> Timestamp {
        let leapt = self.leapt_millis.load(Ordering::SeqCst);
        let running = self.start.saturating_add(self.origin.elapsed());
        Timestamp::from_millis(running.as_millis().saturating_add(leapt))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clones_of_a_fake_clock_show_the_same_time() {
        let clock = FakeClock::default();
        let other = clock.clone();
        clock.advance(Duration::from_secs(5));
        assert_eq!(other.now().since(START), Duration::from_secs(5));
        clock.step_back(Duration::from_secs(9));
        assert!(other.now() < START);
    }

    #[tokio::test(start_paused = true)]
    async fn a_tokio_clock_jumps_with_the_timers() {
        let clock = TokioClock::default();
        tokio::time::sleep(Duration::from_secs(3_600)).await;
        assert_eq!(clock.now().since(START), Duration::from_secs(3_600));
        clock.clone().advance(Duration::from_secs(60));
        assert_eq!(clock.now().since(START), Duration::from_secs(3_660));
        clock.step_back(Duration::from_secs(7_200));
        assert!(clock.now() < START);
    }
}
