//! What reaches the far side of a handler, as one test.

use mcpmon_core::alert::{Handler, Notification, NotificationKind};

use crate::samples;
use crate::wait::within;

/// Checks what the far side of a handler is told:
///
/// - a test says that it is one, and nothing else does;
/// - an end can be told from a beginning, and a digest names every alert it has room for;
/// - what makes a repeated message known is the same at every attempt: the far side hears the same
///   words.
///
/// `heard` gives the text the far side took since it was last asked, decoded. The words looked for
/// are `test`, the services' names and the rule's messages, in upper or lower case.
///
/// # Panics
///
/// When a promise is broken; the message says which.
pub async fn handler_messages(handler: &dyn Handler, heard: impl AsyncFn() -> String) {
    let tell = async |notification: &Notification| {
        let what = format!("a {} to be taken", notification.kind.as_str());
        let answer = within(&what, handler.deliver(notification)).await;
        if let Err(error) = answer {
            panic!("a far side that is there refused a {}: {error}", notification.kind.as_str());
        }
        heard().await
    };
    let of = |kind| samples::notification(&format!("message-{}", kind_name(kind)), kind);

    let firing = tell(&of(NotificationKind::Firing)).await;
    assert_says(&firing, "files is stopped", "a beginning");
    assert!(!says(&firing, "test"), "a beginning looks like a test: {firing}");

    let again = tell(&of(NotificationKind::Firing).at_attempt(2)).await;
    assert_says(&again, "files is stopped", "a second attempt");

    let resolved = tell(&of(NotificationKind::Resolved)).await;
    assert_says(&resolved, "files", "an end");
    assert!(
        says(&resolved, "resolve") || resolved.contains("endsAt"),
        "an end says so: {resolved}"
    );
    assert_ne!(firing, resolved, "an end looks like a beginning");

    let digest = tell(&of(NotificationKind::Digest)).await;
    for service in ["files", "github", "time"] {
        assert_says(&digest, service, "a digest");
    }

    let test = tell(&of(NotificationKind::Test)).await;
    assert_says(&test, "test", "a test");
}

fn kind_name(kind: NotificationKind) -> &'static str {
    // The word itself would make anything that shows its key look like a test.
    match kind {
        NotificationKind::Test => "trial",
        kind => kind.as_str(),
    }
}

fn says(heard: &str, word: &str) -> bool {
    heard.to_lowercase().contains(word)
}

#[track_caller]
fn assert_says(heard: &str, word: &str, what: &str) {
    assert!(says(heard, word), "{what} does not say `{word}`: {heard}");
}
