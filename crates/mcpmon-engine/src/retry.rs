//! What becomes of a delivery that failed: a pure decision.

use std::time::Duration;

use mcpmon_core::store::Settlement;
use mcpmon_core::{DeliveryError, Timestamp};

const FIRST_PAUSE: Duration = Duration::from_secs(1);
/// Between two attempts.
pub(crate) const LONGEST_PAUSE: Duration = Duration::from_secs(300);
/// A message nobody took for so many attempts (about a day) is given up.
const MOST_ATTEMPTS: u32 = 300;

/// Tries again later, or gives up.
pub(crate) fn after_failure(attempt: u32, error: &DeliveryError, now: Timestamp) -> Settlement {
    let text = error.to_string();
    if !error.is_transient() || attempt >= MOST_ATTEMPTS {
        return Settlement::Dead { at: now, error: text };
    }
    let doubled = FIRST_PAUSE * (1_u32 << attempt.saturating_sub(1).min(10));
    let pause = error.retry_after().unwrap_or(doubled).clamp(FIRST_PAUSE, LONGEST_PAUSE);
    Settlement::Retry { due_at: now.saturating_add(pause), error: text }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(attempt: u32, error: &DeliveryError, pause_secs: Option<i64>) {
        let settled = after_failure(attempt, error, Timestamp::from_millis(0));
        let due = match settled {
            Settlement::Retry { due_at, .. } => Some(due_at.as_millis() / 1_000),
            _ => None,
        };
        assert_eq!(due, pause_secs, "attempt {attempt}");
    }

    #[test]
    fn pauses_double_up_to_a_bound() {
        for (attempt, pause) in [(1, 1), (2, 2), (4, 8), (9, 256), (10, 300), (50, 300)] {
            check(attempt, &DeliveryError::transient("busy"), Some(pause));
        }
    }

    #[test]
    fn the_far_side_may_say_how_long_within_bounds() {
        let busy = |secs| DeliveryError::transient("busy").after(Duration::from_secs(secs));
        check(1, &busy(30), Some(30));
        check(1, &busy(86_400), Some(300));
        check(5, &busy(0), Some(1));
    }

    #[test]
    fn gives_up_at_once_or_at_last() {
        check(1, &DeliveryError::permanent("no such user"), None);
        check(MOST_ATTEMPTS, &DeliveryError::transient("busy"), None);
    }
}
