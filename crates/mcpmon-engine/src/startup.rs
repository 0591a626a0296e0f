//! How long a start may take, learned from the starts before it.
//!
//! `startup_timeout` is made for a package runner's first download; a server that is usually there
//! after a second and says nothing today should not be waited for so long. What was learned is
//! trusted once: a start that outlasts it is given the whole time again, or an update that has to
//! be downloaded would be cut off for ever.

use std::collections::VecDeque;
use std::time::Duration;

use mcpmon_core::service::ServiceLimits;
use mcpmon_core::{Observation, Phases};

/// Starts remembered.
const REMEMBERED: usize = 5;
/// A start may take so many times as long as the slowest of those remembered.
const PATIENCE: u32 = 3;

/// The start-up times of one service.
#[derive(Debug, Clone, Default)]
pub(crate) struct StartTimes {
    last: VecDeque<Duration>,
    outlasted: bool,
}

impl StartTimes {
    /// Takes in a check that started a process.
    pub(crate) fn observe(&mut self, observation: &Observation) {
        match observation.failure() {
            None => self.learn(observation.phases),
            Some(failure) => self.outlasted |= failure.code.is_timeout(),
        }
    }

    /// Takes in the phases of a good check; those of one that started nothing teach nothing.
    pub(crate) fn learn(&mut self, phases: Phases) {
        let Some(spawn) = phases.spawn_ms else { return };
        let millis = spawn + phases.handshake_ms.unwrap_or(0.0);
        let Ok(took) = Duration::try_from_secs_f64(millis / 1_000.0) else { return };
        self.outlasted = false;
        self.last.push_back(took);
        if self.last.len() > REMEMBERED {
            self.last.pop_front();
        }
    }

    /// How long the next start may take.
    pub(crate) fn grace(&self, limits: &ServiceLimits) -> Duration {
        let floor = limits.health_check_timeout;
        let longest = limits.startup_timeout.max(floor);
        match self.last.iter().max() {
            Some(slowest) if !self.outlasted => {
                slowest.saturating_mul(PATIENCE).clamp(floor, longest)
            }
            _ => longest,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use mcpmon_core::{Failure, FailureCode, Phase};

    /// Starts by the seconds they took, `0` for one that was silent to its deadline; the grace of
    /// the next in seconds.
    #[track_caller]
    fn check(starts: &[u64], grace: u64) {
        let mut times = StartTimes::default();
        for secs in starts {
            let mut seen = match secs {
                0 => Observation::failed(Failure::new(
                    FailureCode::HandshakeTimeout,
                    Phase::Handshake,
                    "mute",
                )),
                _ => Observation::answered(),
            };
            seen.phases.spawn_ms = Some(5.0);
            seen.phases.handshake_ms = Some(*secs as f64 * 1_000.0 - 5.0);
            times.observe(&seen);
        }
        assert_eq!(times.grace(&ServiceLimits::default()).as_secs(), grace, "{starts:?}");
    }

    #[test]
    fn a_start_is_given_three_times_the_slowest_of_the_last_within_bounds() {
        check(&[], 60);
        check(&[1], 10);
        check(&[5], 15);
        check(&[5, 6, 5], 18);
        check(&[30], 60);
    }

    #[test]
    fn slow_starts_are_forgotten_in_time() {
        check(&[15, 5, 5, 5, 5], 45);
        check(&[15, 5, 5, 5, 5, 5], 15);
    }

    #[test]
    fn what_outlasted_its_grace_is_given_the_whole_time_until_it_answers() {
        check(&[1, 0], 60);
        check(&[1, 0, 0], 60);
        check(&[1, 0, 12], 36);
    }
}
