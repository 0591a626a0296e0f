//! A process that answers once and dies, again and again, is not well because each start is good.
//!
//! A life is what lies between a good start and the exit. Short ones in a row are counted: after
//! two of them the next process has to live before its good checks count for anything, and starts
//! are spaced further and further apart. A long life makes good for all short ones.

use std::time::{Duration, Instant};

use mcpmon_core::{FailureCode, Observation};

/// A life is short that is shorter than so many intervals, within bounds.
const INTERVALS: u32 = 3;
const SHORTEST: Duration = Duration::from_secs(60);
const LONGEST: Duration = Duration::from_secs(600);
/// So many short lives are bad luck; more are a habit.
const BAD_LUCK: u32 = 1;

/// The lives of one service's processes.
#[derive(Debug, Clone, Default)]
pub(crate) struct Lives {
    born: Option<Instant>,
    short: u32,
}

impl Lives {
    /// Takes in a check that ended at `now`; `observation.restarted` says that it started a
    /// process. Says whether a process turned out to have died young.
    pub(crate) fn observe(
        &mut self,
        observation: &Observation,
        check_interval: Duration,
        now: Instant,
    ) -> bool {
        let enough = (check_interval.saturating_mul(INTERVALS)).clamp(SHORTEST, LONGEST);
        let is_short = |born: Instant| now.saturating_duration_since(born) < enough;
        let mut died_young = false;
        let has_ended = match observation.failure() {
            Some(failure) => matches!(
                failure.code,
                FailureCode::Exited | FailureCode::KilledBySignal | FailureCode::ClosedOutput
            ),
            // Replaced between two checks.
            None => observation.restarted,
        };
        if let Some(born) = self.born.take_if(|_| has_ended) {
            died_young = is_short(born);
            self.short = if died_young { self.short.saturating_add(1) } else { 0 };
        }
        if observation.failure().is_none() {
            let born = *self.born.get_or_insert(now);
            if !is_short(born) {
                self.short = 0;
            }
        }
        died_young
    }

    /// The process was ended by us: how long it lived says nothing of it.
    pub(crate) fn cut_short(&mut self) {
        self.born = None;
    }

    /// Whether the good checks of the process there is now count for nothing yet.
    pub(crate) fn is_unproven(&self) -> bool {
        self.habit() > 0
    }

    /// How far short lives have become a habit; 0 while they are not.
    pub(crate) fn habit(&self) -> u32 {
        self.short.saturating_sub(BAD_LUCK)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use mcpmon_core::{Failure, Phase};

    /// Lives in seconds, each begun 2 s after the one before ended, and how far a habit it is
    /// after each.
    #[track_caller]
    fn check(lives: &[u64], habits: &[u32]) {
        let interval = Duration::from_secs(30);
        let mut now = tokio::time::Instant::now().into_std();
        let mut seen = Lives::default();
        let mut found = Vec::new();
        for secs in lives {
            let mut started = Observation::answered();
            started.restarted = true;
            seen.observe(&started, interval, now);
            let end = now + Duration::from_secs(*secs);
            while now + interval < end {
                now += interval;
                seen.observe(&Observation::answered(), interval, now);
            }
            now = end;
            let gone = Failure::new(FailureCode::Exited, Phase::Request, "gone");
            seen.observe(&Observation::failed(gone), interval, now);
            found.push(seen.habit());
            now += Duration::from_secs(2);
        }
        assert_eq!(found, habits, "{lives:?}");
    }

    #[test]
    fn the_second_short_life_in_a_row_is_a_habit() {
        check(&[1, 1, 80, 5], &[0, 1, 2, 3]);
    }

    #[test]
    fn a_long_life_makes_good_for_all_short_ones() {
        check(&[1, 1, 1, 300, 1, 1], &[0, 1, 2, 0, 0, 1]);
    }

    #[test]
    fn a_process_proves_itself_while_it_lives() {
        let (interval, start) = (Duration::from_secs(30), tokio::time::Instant::now().into_std());
        let mut lives = Lives { born: None, short: 4 };
        let mut started = Observation::answered();
        started.restarted = true;
        for (secs, unproven) in [(0, true), (60, true), (90, false), (120, false)] {
            lives.observe(&started, interval, start + Duration::from_secs(secs));
            started.restarted = false;
            assert_eq!(lives.is_unproven(), unproven, "{secs}");
        }
    }

    #[test]
    fn a_process_that_was_replaced_unseen_ended_too() {
        let start = tokio::time::Instant::now().into_std();
        let mut lives = Lives::default();
        let mut started = Observation::answered();
        started.restarted = true;
        for secs in 0..3 {
            lives.observe(&started, Duration::from_secs(30), start + Duration::from_secs(secs));
        }
        assert_eq!(lives.habit(), 1);
    }
}
