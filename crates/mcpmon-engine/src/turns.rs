//! Messages about one alert reach a handler in the order they were queued: nobody is told that
//! something is over and then, by a second attempt, that it has begun.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use mcpmon_core::Notification;
use tokio::time::Instant;

use crate::outbox::Origin;
use crate::retry::LONGEST_PAUSE;

/// A message that was not tried again for so long is not in the outbox any more, and holds up
/// nothing.
const LOST_AFTER: Duration = LONGEST_PAUSE.saturating_mul(3);

/// The outbox's name for a message.
pub(crate) type Ticket = (Origin, i64);

/// Which messages wait for another attempt, by alert.
#[derive(Debug, Default)]
pub(crate) struct Turns {
    waiting: HashMap<String, (Ticket, Instant)>,
}

impl Turns {
    /// Whether no earlier message about the same alerts waits for another attempt, beside those
    /// that go out with this one.
    pub(crate) fn is_next(
        &self,
        tickets: &HashSet<Ticket>,
        message: &Notification,
        now: Instant,
    ) -> bool {
        message.alerts.iter().all(|alert| match self.waiting.get(&alert.id) {
            Some((first, until)) => tickets.contains(first) || *until <= now,
            None => true,
        })
    }

    /// The message will be tried again; later ones about its alerts wait for it.
    pub(crate) fn tried(&mut self, ticket: Ticket, message: &Notification, now: Instant) {
        for alert in &message.alerts {
            self.waiting.insert(alert.id.clone(), (ticket, now + LOST_AFTER));
        }
    }

    /// The message arrived, or was given up.
    pub(crate) fn settled(&mut self, ticket: Ticket, message: &Notification) {
        for alert in &message.alerts {
            if self.waiting.get(&alert.id).is_some_and(|(first, _)| *first == ticket) {
                self.waiting.remove(&alert.id);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use mcpmon_core::alert::NotificationKind;
    use mcpmon_testkit::samples;

    #[test]
    fn a_message_waits_for_an_earlier_one_of_its_alert_but_not_for_ever() {
        let (firing, resolved) = ((Origin::Log, 1), (Origin::Memory, 1));
        let about = |kind| samples::notification("key", kind);
        let end = about(NotificationKind::Resolved);
        let begin = about(NotificationKind::Firing);
        let now = Instant::now();
        let mut turns = Turns::default();
        assert!(turns.is_next(&[resolved].into(), &end, now));
        turns.tried(firing, &begin, now);
        assert!(turns.is_next(&[firing].into(), &begin, now));
        assert!(!turns.is_next(&[resolved].into(), &end, now));
        assert!(turns.is_next(&[resolved].into(), &end, now + LOST_AFTER));
        turns.settled(resolved, &end);
        assert!(!turns.is_next(&[resolved].into(), &end, now));
        turns.settled(firing, &begin);
        assert!(turns.is_next(&[resolved].into(), &end, now));
        assert!(turns.waiting.is_empty());
    }
}
