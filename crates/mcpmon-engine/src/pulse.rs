//! Whether the monitor itself was there all the time: two clocks compared, at every turn of the
//! loop.
//!
//! The loop looks at least once a second. On Linux the monotonic clock stands still while the
//! machine sleeps and the wall clock does not, so what they disagree by was slept, or somebody set
//! the wall clock; both leave a span of it in which nobody looked. Where the monotonic clock itself
//! has run on for long between two looks, the process was kept from running.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use mcpmon_core::Timestamp;

/// The loop looks this often when nothing happens.
const BEAT: Duration = Duration::from_secs(1);
/// Clocks that disagree by less are being slewed, or read a moment apart.
const DISAGREEMENT: Duration = Duration::from_secs(5);
/// A look so much too late is no scheduling hiccup: a check's deadline may have passed meanwhile.
const LATE: Duration = Duration::from_secs(2);
/// Absences remembered; a check does not take longer than the oldest of them is ago.
const REMEMBERED: usize = 16;

/// What happened between two looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Lapse {
    /// Nobody looked for `span`: the machine slept for `slept` of it, or the process was kept from
    /// running. By the wall clock it began at `from`.
    Absent { from: Timestamp, span: Duration, slept: Duration },
    /// The wall clock was set back by so much.
    SetBack(Duration),
}

/// When the loop last looked, and when it could not.
#[derive(Debug)]
pub(crate) struct Pulse {
    last: (Instant, Timestamp),
    absences: VecDeque<(Instant, Instant)>,
}

impl Pulse {
    pub(crate) fn new(now: Instant, wall: Timestamp) -> Self {
        Self { last: (now, wall), absences: VecDeque::new() }
    }

    /// Looks at both clocks; says what happened since the look before, if anything did.
    pub(crate) fn look(&mut self, now: Instant, wall: Timestamp) -> Option<Lapse> {
        let (last_now, last_wall) = std::mem::replace(&mut self.last, (now, wall));
        let lapse = lapse(now.saturating_duration_since(last_now), last_wall, wall);
        if let Some(Lapse::Absent { .. }) = lapse {
            self.absences.push_back((last_now, now));
            if self.absences.len() > REMEMBERED {
                self.absences.pop_front();
            }
        }
        lapse
    }

    /// Whether the monitor was away at some time from `started` to `ended`: what did not come in
    /// time then may well have come.
    pub(crate) fn was_absent(&self, started: Instant, ended: Instant) -> bool {
        self.absences.iter().any(|(from, to)| started <= *to && ended >= *from)
    }
}

/// What follows from `elapsed` on the monotonic clock and what the wall clock showed before and
/// after.
fn lapse(elapsed: Duration, before: Timestamp, after: Timestamp) -> Option<Lapse> {
    let wall = after.since(before);
    let back = before.saturating_add(elapsed).since(after);
    if after < before && back > DISAGREEMENT {
        return Some(Lapse::SetBack(back));
    }
    let slept = wall.saturating_sub(elapsed);
    let (span, slept) =
        if slept > DISAGREEMENT { (wall, slept) } else { (elapsed, Duration::ZERO) };
    (!slept.is_zero() || elapsed > BEAT + LATE).then_some(Lapse::Absent {
        from: before,
        span,
        slept,
    })
}

/// Whether a service that is asked this often was left alone for longer than its timetable would
/// ever leave it: the span is unknown then.
pub(crate) fn is_gap(span: Duration, check_interval: Duration, check_timeout: Duration) -> bool {
    span > check_interval.saturating_mul(2).saturating_add(check_timeout)
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn secs(secs: u64) -> Duration {
        Duration::from_secs(secs)
    }

    /// Seconds that passed on the monotonic clock and on the wall clock, and what that means.
    #[track_caller]
    fn check(monotonic: f64, wall: f64, expected: Option<Lapse>) {
        let before = Timestamp::from_millis(1_000_000_000);
        let after = Timestamp::from_millis(1_000_000_000 + (wall * 1_000.0) as i64);
        assert_eq!(lapse(Duration::from_secs_f64(monotonic), before, after), expected);
    }

    #[test]
    fn clocks_that_agree_mean_that_the_loop_was_there() {
        let from = Timestamp::from_millis(1_000_000_000);
        check(1.0, 1.0, None);
        check(0.0, 0.4, None);
        check(1.0, 4.5, None);
        check(2.9, 2.9, None);
        check(1.0, -2.0, None);
        check(1.0, 3_601.0, Some(Lapse::Absent { from, span: secs(3_601), slept: secs(3_600) }));
        check(30.0, 30.0, Some(Lapse::Absent { from, span: secs(30), slept: Duration::ZERO }));
        check(30.0, 28.0, Some(Lapse::Absent { from, span: secs(30), slept: Duration::ZERO }));
        check(1.0, -3_599.0, Some(Lapse::SetBack(secs(3_600))));
    }

    #[test]
    fn a_check_over_an_absence_is_known_and_one_after_it_is_not() {
        let start = tokio::time::Instant::now().into_std();
        let wall = Timestamp::from_millis(0);
        let at = |second: u64| start + secs(second);
        let mut pulse = Pulse::new(start, wall);
        assert_eq!(pulse.look(at(1), wall.saturating_add(secs(1))), None);
        let lapse = pulse.look(at(20), wall.saturating_add(secs(20)));
        assert!(matches!(lapse, Some(Lapse::Absent { .. })));
        assert!(pulse.was_absent(at(0), at(5)));
        assert!(pulse.was_absent(at(15), at(20)));
        assert!(!pulse.was_absent(at(21), at(30)));
    }

    #[test]
    fn a_gap_is_longer_than_any_timetable_leaves_a_service_alone() {
        for (span, gap) in [(30, false), (70, false), (71, true)] {
            assert_eq!(is_gap(secs(span), secs(30), secs(10)), gap, "{span}");
        }
    }
}
