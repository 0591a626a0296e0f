//! What becomes of a delivery that failed: a pure decision.

use std::time::Duration;

use mcpmon_core::store::Settlement;
use mcpmon_core::{DeliveryError, Timestamp};

const FIRST_PAUSE: Duration = Duration::from_secs(1);
/// Between two attempts.
pub(crate) const LONGEST_PAUSE: Duration = Duration::from_secs(300);
/// A message nobody took for so many attempts (about a day) is given up.
const MOST_ATTEMPTS: u32 = 300;

/// A pause of ours is up to this share longer or shorter, so that the monitors of a fleet, or the
/// handlers of one, do not come back to a far side in step.
const JITTER_SHARE: f64 = 0.2;

/// What went out: one message, or the digest it was part of. Its members fail together and are
/// tried again together.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Attempted<'a> {
    pub(crate) handler: &'a str,
    /// Of what went out.
    pub(crate) key: &'a str,
    /// Of what went out: the highest of its members.
    pub(crate) attempt: u32,
}

/// Tries a message again later, or gives it up: it was tried `tries` times, the last of them in
/// what went out.
pub(crate) fn after_failure(
    tries: u32,
    out: Attempted<'_>,
    error: &DeliveryError,
    now: Timestamp,
) -> Settlement {
    let text = error.to_string();
    if !error.is_transient() || tries >= MOST_ATTEMPTS {
        return Settlement::Dead { at: now, error: text };
    }
    let pause = match error.retry_after() {
        // Not before it was asked for, but not in step either.
        Some(wait) => wait.clamp(FIRST_PAUSE, LONGEST_PAUSE).mul_f64(1.0 + out.share() / 10.0),
        None => {
            let doubled = FIRST_PAUSE * (1_u32 << out.attempt.saturating_sub(1).min(10));
            let jittered = 1.0 - JITTER_SHARE + 2.0 * JITTER_SHARE * out.share();
            doubled.min(LONGEST_PAUSE).mul_f64(jittered)
        }
    };
    Settlement::Retry { due_at: now.saturating_add(pause), error: text }
}

impl Attempted<'_> {
    /// 0 to 1, the same for the same attempt.
    fn share(&self) -> f64 {
        let mut hash = 0xcbf2_9ce4_8422_2325_u64;
        let attempt = self.attempt.to_le_bytes();
        let parts = self.handler.bytes().chain([0xff]).chain(self.key.bytes()).chain(attempt);
        for byte in parts {
            hash = (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
        }
        // The low bits of short texts are the ones that differ.
        (hash.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 11) as f64 / (1_u64 << 53) as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OPS: Attempted<'_> = Attempted { handler: "ops", key: "k", attempt: 1 };

    /// The pause after a failed attempt, in seconds; `None` if it is given up.
    fn pause(out: Attempted<'_>, error: &DeliveryError) -> Option<f64> {
        match after_failure(out.attempt, out, error, Timestamp::from_millis(0)) {
            Settlement::Retry { due_at, .. } => Some(due_at.as_millis() as f64 / 1_000.0),
            _ => None,
        }
    }

    #[track_caller]
    fn check(attempt: u32, error: &DeliveryError, least: f64, most: f64) {
        for key in ["a", "b", "service_down/files/7/firing"] {
            let found = pause(Attempted { key, attempt, ..OPS }, error).unwrap();
            assert!((least..=most).contains(&found), "attempt {attempt}: {found} s");
        }
    }

    #[test]
    fn pauses_double_up_to_a_bound_give_or_take_a_fifth() {
        for (attempt, usual) in [(1, 1.0), (2, 2.0), (4, 8.0), (9, 256.0), (10, 300.0), (50, 300.0)]
        {
            check(attempt, &DeliveryError::transient("busy"), 0.8 * usual, 1.2 * usual);
        }
    }

    #[test]
    fn messages_do_not_come_back_in_step() {
        let keys: Vec<String> = (0..100).map(|n| format!("alert-{n}/firing")).collect();
        let busy = DeliveryError::transient("busy");
        let mut pauses: Vec<f64> = keys
            .iter()
            .filter_map(|key| pause(Attempted { key, attempt: 8, ..OPS }, &busy))
            .collect();
        pauses.sort_by(f64::total_cmp);
        assert!(pauses[0] < 110.0 && pauses[99] > 145.0, "{} to {}", pauses[0], pauses[99]);
        let longest = pauses.windows(2).map(|pair| pair[1] - pair[0]).fold(0.0, f64::max);
        assert!(longest < 8.0, "a gap of {longest} s");
        let again = Attempted { key: &keys[7], attempt: 8, ..OPS };
        assert_eq!(pause(again, &busy), pause(again, &busy), "a decision, not a die");
    }

    #[test]
    fn the_far_side_may_say_how_long_within_bounds() {
        let busy = |secs| DeliveryError::transient("busy").after(Duration::from_secs(secs));
        check(1, &busy(30), 30.0, 33.0);
        check(1, &busy(86_400), 300.0, 330.0);
        check(5, &busy(0), 1.0, 1.1);
    }

    #[test]
    fn gives_up_at_once_or_at_last() {
        assert_eq!(pause(OPS, &DeliveryError::permanent("no such user")), None);
        let last = Attempted { attempt: MOST_ATTEMPTS, ..OPS };
        assert_eq!(pause(last, &DeliveryError::transient("busy")), None);
        // A young member of an old digest is not given up with it.
        let young = after_failure(2, last, &DeliveryError::transient("busy"), Timestamp::default());
        assert!(matches!(young, Settlement::Retry { .. }));
    }
}
