//! The words every handler uses for the same thing, before they are escaped for where they go.

use mcpmon_core::alert::{Alert, Notification, NotificationKind};
#[cfg(any(feature = "email", feature = "http"))]
use mcpmon_core::status::Level;
#[cfg(feature = "http")]
use mcpmon_core::subject::SubjectKind;
use mcpmon_core::text::truncate;

use super::taken_on::acknowledged;

/// The word that stands for what happened to one alert.
pub(super) fn word(kind: NotificationKind, alert: &Alert) -> String {
    let level = alert.level.as_str().to_uppercase();
    match (kind, alert.resolved_at) {
        (NotificationKind::Test, _) => "TEST".to_owned(),
        (NotificationKind::Resolved, _) | (_, Some(_)) => match &alert.ended_because {
            None => "RESOLVED".to_owned(),
            Some(why) => format!("ENDED ({why})"),
        },
        (NotificationKind::Reminder, None) => format!("{level}, still firing"),
        (NotificationKind::Acknowledged, None) => format!("{level}, {}", acknowledged(alert)),
        (_, None) => level,
    }
}

/// One line about one alert: the word, and what the rule says.
pub(super) fn line(kind: NotificationKind, alert: &Alert) -> String {
    format!("{}: {}", word(kind, alert), alert.message)
}

/// One line about the whole notification.
pub(super) fn headline(notification: &Notification) -> String {
    match notification.alerts.as_slice() {
        [] => "no alert".to_owned(),
        [alert] => line(notification.kind, alert),
        [first, rest @ ..] => format!(
            "{} alerts, worst {}: {}, and {} more",
            notification.alerts.len(),
            notification.level().as_str().to_uppercase(),
            truncate(&first.message, 100),
            rest.len()
        ),
    }
}

/// What one alert is about, in as few words as name it.
#[cfg(feature = "http")]
pub(super) fn name_subject(alert: &Alert) -> String {
    match alert.subject.kind() {
        SubjectKind::Host => "this machine".to_owned(),
        SubjectKind::Monitor => "mcpmon".to_owned(),
        _ => alert.subject.to_string(),
    }
}

/// Whether nothing in it fires any more.
#[cfg(any(feature = "email", feature = "http"))]
pub(super) fn is_over(kind: NotificationKind, alert: &Alert) -> bool {
    kind == NotificationKind::Resolved || alert.resolved_at.is_some()
}

/// Red, amber, blue, or green once it is over; `#rrggbb`.
#[cfg(any(feature = "email", feature = "http"))]
pub(super) fn color(kind: NotificationKind, alert: &Alert) -> &'static str {
    if is_over(kind, alert) {
        return "#1a7f37";
    }
    match alert.level {
        Level::Info => "#0969da",
        Level::Warning => "#9a6700",
        Level::Error | Level::Critical => "#cf222e",
    }
}
