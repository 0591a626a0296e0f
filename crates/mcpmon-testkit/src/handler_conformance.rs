//! The promises of a handler, as one test.

use std::future::Future as _;
use std::pin::pin;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use mcpmon_core::alert::{Alert, Handler, Notification, NotificationKind};
use mcpmon_core::status::Level;
use mcpmon_core::subject::Subject;

use crate::hostile::HOSTILE;
use crate::samples;
use crate::wait::within;

const KINDS: [NotificationKind; 6] = [
    NotificationKind::Firing,
    NotificationKind::Reminder,
    NotificationKind::Acknowledged,
    NotificationKind::Resolved,
    NotificationKind::Digest,
    NotificationKind::Test,
];

/// Alerts of the largest digest a storm of a large fleet makes.
const STORM: usize = 500;

/// Checks that `handler` keeps the promises of [`Handler`]:
///
/// - its name is one line and always the same;
/// - every kind of notification, about every kind of subject, is taken or refused, in time; what
///   is well formed is never refused for good, whatever text the server put in it;
/// - the same notification may come again, under the same key and a later attempt;
/// - an end may come without a beginning, and a digest may hold hundreds of alerts, each with as
///   much text as a server can send, some over and some not;
/// - a delivery may be dropped before it ends, wherever it waits, and several may be under way at
///   once; neither keeps a later one from ending.
///
/// What a far side does wrong is [`handler_faults`](crate::handler_faults), what it is told is
/// [`handler_messages`](crate::handler_messages).
///
/// The handler may be one whose far side is not there: "later" is an answer. It sends a few dozen
/// messages, so let the far side be a fake.
///
/// # Panics
///
/// When a promise is broken; the message says which.
pub async fn handler_conformance(handler: &dyn Handler) {
    let name = handler.name().to_owned();
    assert!(!name.trim().is_empty(), "a handler has a name");
    assert!(!name.contains(['\n', '\r']), "a handler's name is one line");
    takes_every_kind(handler).await;
    takes_the_same_again(handler).await;
    takes_every_subject_and_level(handler).await;
    survives_hostile_text(handler).await;
    takes_a_storm(handler).await;
    survives_being_dropped(handler).await;
    delivers_several_at_once(handler).await;
    assert_eq!(handler.name(), name, "a handler's name stays the same");
}

/// One attempt that must be answered in time and, if `what` is well formed, not refused for good.
async fn attempt(handler: &dyn Handler, what: &str, notification: &Notification) {
    let answer = within(what, handler.deliver(notification)).await;
    if let Err(error) = answer {
        assert!(error.is_transient(), "{what} was refused for good: {error}");
        assert!(!error.to_string().is_empty(), "{what}: a refusal says why");
    }
}

async fn takes_every_kind(handler: &dyn Handler) {
    for kind in KINDS {
        let notification = samples::notification(&format!("kind-{}", kind.as_str()), kind);
        attempt(handler, &format!("a notification of kind {}", kind.as_str()), &notification).await;
    }
}

async fn takes_the_same_again(handler: &dyn Handler) {
    let notification = samples::notification("again", NotificationKind::Firing);
    for number in 1..=3 {
        let again = notification.clone().at_attempt(number);
        attempt(handler, &format!("attempt {number} of the same notification"), &again).await;
    }
}

async fn takes_every_subject_and_level(handler: &dyn Handler) {
    for level in Level::ALL {
        for subject in samples::subjects() {
            let what = format!("a {level} about a {}", subject.kind());
            let key = format!("{}-{level}", subject.kind());
            let alert = Alert { level, failure: None, ..samples::alert_about("rule", subject) };
            let notification = Notification::new(key, NotificationKind::Firing, vec![alert]);
            attempt(handler, &what, &notification).await;
        }
    }
}

async fn survives_hostile_text(handler: &dyn Handler) {
    for (number, text) in HOSTILE.iter().enumerate() {
        let key = format!("hostile-{number}");
        let mut notification = samples::notification(&key, NotificationKind::Firing);
        let alert = &mut notification.alerts[0];
        alert.message = (*text).to_owned();
        alert.subject = Subject::tool_of(*text, *text);
        alert.labels.insert((*text).to_owned(), (*text).to_owned());
        if let Some(failure) = &mut alert.failure {
            failure.message = (*text).to_owned();
            failure.evidence.insert((*text).to_owned(), (*text).into());
        }
        attempt(handler, &format!("hostile text number {number}"), &notification).await;
    }
}

async fn takes_a_storm(handler: &dyn Handler) {
    let alerts = (0..STORM).map(|number| {
        let service = format!("service-{number}");
        let mut alert = match number.is_multiple_of(3) {
            true => samples::resolved_alert("service_down", &service),
            false => samples::alert("service_down", &service),
        };
        alert.level = Level::ALL[number % Level::ALL.len()];
        alert.message = HOSTILE[number % HOSTILE.len()].to_owned();
        alert
    });
    let storm = Notification::new("storm", NotificationKind::Digest, alerts.collect());
    attempt(handler, &format!("a digest of {STORM} alerts"), &storm).await;
}

/// The pipeline cancels by dropping: before the first poll, at the first wait, and wherever it
/// stands a moment later.
async fn survives_being_dropped(handler: &dyn Handler) {
    let notification = samples::notification("dropped", NotificationKind::Firing);
    drop(handler.deliver(&notification));
    {
        let mut delivery = pin!(handler.deliver(&notification));
        let mut context = Context::from_waker(Waker::noop());
        // It may be done at once; what matters is that letting go of it is harmless.
        let _: Poll<_> = delivery.as_mut().poll(&mut context);
    }
    for millis in [1, 3, 10] {
        // Whether it was done by then does not matter either.
        let _ = tokio::time::timeout(Duration::from_millis(millis), handler.deliver(&notification))
            .await;
    }
    attempt(handler, "a delivery after some that were dropped", &notification).await;
}

async fn delivers_several_at_once(handler: &dyn Handler) {
    let [first, second, third] =
        ["one", "two", "three"].map(|key| samples::notification(key, NotificationKind::Firing));
    tokio::join!(
        attempt(handler, "the first of three at once", &first),
        attempt(handler, "the second of three at once", &second),
        attempt(handler, "the third of three at once", &third),
    );
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::handler::{Reaction, RecordingHandler};

    #[tokio::test]
    async fn a_handler_that_takes_everything_keeps_them() {
        handler_conformance(&RecordingHandler::new("ops")).await;
    }

    #[tokio::test]
    async fn a_handler_whose_far_side_is_gone_keeps_them_too() {
        let handler = RecordingHandler::new("ops");
        handler.usually(Reaction::Later);
        handler_conformance(&handler).await;
    }

    #[tokio::test]
    #[should_panic(expected = "refused for good")]
    async fn a_handler_that_refuses_what_is_well_formed_breaks_them() {
        let handler = RecordingHandler::new("ops");
        handler.usually(Reaction::Never);
        handler_conformance(&handler).await;
    }

    #[tokio::test]
    #[should_panic(expected = "has a name")]
    async fn a_handler_without_a_name_breaks_them() {
        handler_conformance(&RecordingHandler::new(" ")).await;
    }
}
