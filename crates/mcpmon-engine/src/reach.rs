//! Whether a handler gets through to its far side, from what its attempts came to.
//!
//! A handler that was refused something has lost it, and that is said at once. One that is put off
//! is tried again, and said only once it has not got through for a while. Said it is by others:
//! whoever cannot be reached cannot be told so.

use std::time::Duration;

use mcpmon_core::rule::MonitorFact;
use mcpmon_core::{DeliveryError, Subject, Timestamp};

/// Not getting through for so long is worth an alert.
const FAILING_AFTER: Duration = Duration::from_secs(60);
/// A refusal shows for so long even if the next message is taken: rules look each second.
const REFUSAL_SHOWS: Duration = Duration::from_secs(5);

/// What is known of one handler.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Reach {
    last: Last,
    /// When something was last refused.
    refused_at: Option<Timestamp>,
    error: String,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum Last {
    /// Nothing was tried yet.
    #[default]
    Untried,
    Arrived,
    /// So many failures in a row, the first of them then; whether one of them was final.
    Failed {
        since: Timestamp,
        count: u64,
        refused: bool,
    },
}

impl Reach {
    pub(crate) fn arrived(&mut self) {
        self.last = Last::Arrived;
    }

    pub(crate) fn failed(&mut self, error: &DeliveryError, now: Timestamp) {
        let is_final = !error.is_transient();
        if is_final {
            self.refused_at = Some(now);
        }
        self.error = error.to_string();
        self.last = match self.last {
            Last::Failed { since, count, refused } => {
                Last::Failed { since, count: count + 1, refused: refused || is_final }
            }
            _ => Last::Failed { since: now, count: 1, refused: is_final },
        };
    }

    /// As rules want it.
    pub(crate) fn fact(&self, handler: &str, now: Timestamp) -> MonitorFact {
        let was_refused = self.refused_at.is_some_and(|at| now.since(at) < REFUSAL_SHOWS);
        let (failing, affected) = match self.last {
            Last::Untried => (None, 0),
            Last::Arrived => (Some(was_refused), 0),
            Last::Failed { since, count, refused } => {
                let is_failing = refused || now.since(since) >= FAILING_AFTER;
                (is_failing.then_some(true), count)
            }
        };
        MonitorFact {
            subject: Subject::Handler(handler.to_owned()),
            failing,
            detail: if failing == Some(true) { self.error.clone() } else { String::new() },
            affected,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Attempts at seconds (`+` arrived, `-` put off, `!` refused), and what is said at a second.
    #[track_caller]
    fn check(attempts: &[(u64, char)], at: u64, failing: Option<bool>) {
        let second = |second: u64| Timestamp::default().saturating_add(Duration::from_secs(second));
        let mut reach = Reach::default();
        for (when, what) in attempts {
            match what {
                '+' => reach.arrived(),
                '-' => reach.failed(&DeliveryError::transient("busy"), second(*when)),
                _ => reach.failed(&DeliveryError::permanent("no"), second(*when)),
            }
        }
        assert_eq!(reach.fact("ops", second(at)).failing, failing, "{attempts:?} at {at}");
    }

    #[test]
    fn nothing_is_said_of_a_handler_that_was_not_tried() {
        check(&[], 100, None);
    }

    #[test]
    fn what_is_put_off_is_said_once_it_lasts() {
        check(&[(0, '-')], 0, None);
        check(&[(0, '-'), (50, '-')], 59, None);
        check(&[(0, '-'), (50, '-')], 60, Some(true));
        check(&[(0, '-'), (50, '-'), (61, '+')], 61, Some(false));
        check(&[(0, '-'), (30, '+'), (40, '-')], 70, None);
    }

    #[test]
    fn what_is_refused_is_said_at_once_and_until_something_arrives() {
        check(&[(0, '!')], 0, Some(true));
        check(&[(0, '!'), (10, '-')], 500, Some(true));
        check(&[(0, '!'), (10, '+')], 10, Some(false));
    }

    #[test]
    fn a_refusal_shows_though_the_next_message_is_taken() {
        check(&[(0, '!'), (0, '+')], 1, Some(true));
        check(&[(0, '!'), (0, '+')], 5, Some(false));
    }
}
