//! Messages about one alert reach a handler in the order they were queued: nobody is told that
//! something is over and then, by a second attempt, that it has begun.
//!
//! Other messages about the same subject keep their order too, but not at any price: a far side
//! that is busy for a moment does not turn cause and consequence around, and one message it never
//! takes silences no service. The tools of a service keep their order with the service. A digest
//! waits for no other alert's message: it is about many subjects.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use mcpmon_core::{Alert, Notification, Subject};
use tokio::time::Instant;

use crate::outbox::Origin;
use crate::retry::LONGEST_PAUSE;

/// A message that was not tried again for so long is not in the outbox any more, and holds up
/// nothing.
const LOST_AFTER: Duration = LONGEST_PAUSE.saturating_mul(3);

/// Messages about other alerts of a subject wait so long for one that was put off.
const SUBJECT_WAITS: Duration = Duration::from_secs(60);

/// The outbox's name for a message.
pub(crate) type Ticket = (Origin, i64);

/// Which messages wait for another attempt, by alert and by subject, and until when they hold up
/// others.
#[derive(Debug, Default)]
pub(crate) struct Turns {
    waiting: HashMap<String, (Ticket, Instant)>,
    subjects: HashMap<Subject, (Ticket, Instant)>,
}

impl Turns {
    /// Whether no earlier message about the same alerts or, for a single alert, its subject waits
    /// for another attempt, beside those that go out with this one.
    pub(crate) fn is_next(
        &self,
        tickets: &HashSet<Ticket>,
        message: &Notification,
        now: Instant,
    ) -> bool {
        let is_free = |waiting: Option<&(Ticket, Instant)>| {
            waiting.is_none_or(|(first, until)| tickets.contains(first) || *until <= now)
        };
        let subject = match message.alerts.as_slice() {
            [alert] => Some(in_order_with(alert)),
            _ => None,
        };
        message.alerts.iter().all(|alert| is_free(self.waiting.get(&alert.id)))
            && subject.is_none_or(|subject| is_free(self.subjects.get(&subject)))
    }

    /// The message will be tried again; later ones about its alerts wait for it.
    pub(crate) fn tried(&mut self, ticket: Ticket, message: &Notification, now: Instant) {
        for alert in &message.alerts {
            self.waiting.insert(alert.id.clone(), (ticket, now + LOST_AFTER));
            let held_by = self.subjects.entry(in_order_with(alert));
            // A second refusal holds up nobody for longer; after the span it is another's turn.
            held_by
                .and_modify(|(first, until)| {
                    if *first != ticket && *until <= now {
                        (*first, *until) = (ticket, now + SUBJECT_WAITS);
                    }
                })
                .or_insert((ticket, now + SUBJECT_WAITS));
        }
    }

    /// The message arrived, or was given up.
    pub(crate) fn settled(&mut self, ticket: Ticket, message: &Notification) {
        for alert in &message.alerts {
            if self.waiting.get(&alert.id).is_some_and(|(first, _)| *first == ticket) {
                self.waiting.remove(&alert.id);
            }
            let subject = in_order_with(alert);
            if self.subjects.get(&subject).is_some_and(|(first, _)| *first == ticket) {
                self.subjects.remove(&subject);
            }
        }
    }
}

/// The subject whose messages keep their order with those of this alert.
fn in_order_with(alert: &Alert) -> Subject {
    alert.service_name().map_or_else(|| alert.subject.clone(), Subject::from)
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

    /// Whether a message about `other` waits for one about `subject` that was put off.
    fn waits(subject: Subject, other: Subject) -> bool {
        let about = |key: &str, subject| {
            let alerts = vec![samples::alert_about(key, subject)];
            Notification::new(key, NotificationKind::Firing, alerts)
        };
        let now = Instant::now();
        let mut turns = Turns::default();
        turns.tried((Origin::Log, 1), &about("first", subject), now);
        !turns.is_next(&[(Origin::Log, 2)].into(), &about("second", other), now)
    }

    #[test]
    fn messages_wait_for_those_about_the_same_subject_and_no_other() {
        for subject in samples::subjects() {
            for other in samples::subjects() {
                // A tool keeps its order with its service.
                let is_expected = subject == other
                    || (subject.service().is_some() && subject.service() == other.service());
                assert_eq!(waits(subject.clone(), other.clone()), is_expected, "{subject} {other}");
            }
        }
    }

    #[test]
    fn another_alert_of_the_service_waits_a_minute_and_a_digest_not_at_all() {
        let (first, second) = ((Origin::Log, 1), (Origin::Log, 2));
        let down = samples::notification("down", NotificationKind::Firing);
        let mut slow = samples::notification("slow", NotificationKind::Firing);
        slow.alerts[0] = samples::alert("slow_response", "files");
        let mut digest = samples::notification("digest", NotificationKind::Digest);
        digest.alerts[0] = samples::alert("high_error_rate", "files");
        let now = Instant::now();
        let mut turns = Turns::default();
        turns.tried(first, &down, now);
        assert!(!turns.is_next(&[second].into(), &slow, now));
        assert!(turns.is_next(&[second].into(), &digest, now));
        // It goes on being refused, and holds up nobody for longer by that.
        turns.tried(first, &down, now + SUBJECT_WAITS / 2);
        assert!(turns.is_next(&[second].into(), &slow, now + SUBJECT_WAITS));
        turns.tried(first, &down, now + SUBJECT_WAITS);
        assert!(turns.is_next(&[second].into(), &slow, now + SUBJECT_WAITS));
        turns.settled(first, &down);
        assert!(turns.is_next(&[second].into(), &slow, now));
        assert!(turns.subjects.is_empty());
    }
}
