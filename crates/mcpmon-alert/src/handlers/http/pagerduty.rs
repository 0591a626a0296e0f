//! PagerDuty, by its Events API v2: an alert triggers an incident under its own id, and the same id
//! acknowledges and resolves it. Events with one dedup key are safe to repeat.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use async_trait::async_trait;
use futures_util::future::join_all;
use mcpmon_core::alert::{Alert, DeliveryError, Handler, Notification, NotificationKind, Receipt};
use mcpmon_core::settings::{HandlerSettings, SettingsError};
use mcpmon_core::text::{for_terminal, truncate};
use mcpmon_core::{Level, Secret};
use reqwest::header::HeaderMap;
use serde::Deserialize;
use serde_json::{Value, json};

use super::half_a_minute;
use super::sender::{Place, Sender, receipt};
use crate::handlers::wording::is_over;

/// Events under way at once: a digest must not take minutes.
const AT_ONCE: usize = 8;
/// Longest summary (PagerDuty, "PD-CEF": 1,024 characters).
const LONGEST_SUMMARY: usize = 1_000;

/// Sends events to a PagerDuty service.
///
/// | key | means | if not said |
/// |---|---|---|
/// | `routing_key` | the integration key of the service | |
/// | `url` | another region's or one's own endpoint | `https://events.pagerduty.com` |
/// | `ca_file` | PEM certificates trusted beside the system's | none |
/// | `timeout` | each event | `30s` |
///
/// `firing`, `reminder` and `test` trigger, `acknowledged` acknowledges, `resolved` resolves.
pub struct PagerDutyHandler {
    name: String,
    place: Place,
    sender: Sender,
    routing_key: Secret,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct PagerDutySettings {
    routing_key: Secret,
    #[serde(default = "events_api")]
    url: String,
    #[serde(default)]
    ca_file: Option<PathBuf>,
    #[serde(default = "half_a_minute", with = "mcpmon_core::duration")]
    timeout: Duration,
}

fn events_api() -> String {
    "https://events.pagerduty.com".to_owned()
}

impl PagerDutyHandler {
    /// Reads the keys of kind `pagerduty`; opens no connection.
    ///
    /// # Errors
    ///
    /// When a key is missing or cannot be used; the message names it.
    pub fn from_settings(settings: &HandlerSettings) -> Result<Self, SettingsError> {
        let own: PagerDutySettings = settings.parse()?;
        if own.routing_key.is_empty() {
            return Err(settings.error("`routing_key`: it is empty"));
        }
        let place = Place::read(settings, "url", &own.url)?.join("v2/enqueue");
        let hidden = [own.routing_key.clone()];
        let ca_file = own.ca_file.as_deref();
        let sender = Sender::new(settings, &[&place], own.timeout, ca_file, hidden)?;
        Ok(Self { name: settings.name.clone(), place, sender, routing_key: own.routing_key })
    }

    fn event(&self, kind: NotificationKind, alert: &Alert) -> Value {
        let action = action(kind, alert);
        let mut event = json!({
            "routing_key": self.routing_key.expose(),
            "event_action": action,
            "dedup_key": dedup_key(kind, alert),
        });
        if action == "trigger" {
            event["payload"] = payload(kind, alert);
            event["client"] = Value::from("mcpmon");
        }
        event
    }
}

fn action(kind: NotificationKind, alert: &Alert) -> &'static str {
    match kind {
        _ if is_over(kind, alert) => "resolve",
        NotificationKind::Acknowledged => "acknowledge",
        _ => "trigger",
    }
}

/// A test is an incident of its own.
fn dedup_key(kind: NotificationKind, alert: &Alert) -> String {
    match kind {
        NotificationKind::Test => format!("test-{}", alert.id),
        _ => alert.id.clone(),
    }
}

fn payload(kind: NotificationKind, alert: &Alert) -> Value {
    let subject = &alert.subject;
    // What is affected: the monitor itself where it is no other system.
    let service = subject.service().map(|service| service.as_str());
    let source = service.or(subject.dependency()).unwrap_or("mcpmon");
    let component = subject.tool().or(subject.handler());
    let mark = if kind == NotificationKind::Test { "TEST: " } else { "" };
    let mut details =
        json!({ "rule": alert.rule_name, "labels": alert.labels, "subject": subject });
    if let Some(failure) = &alert.failure {
        details["failure"] = json!({
            "code": failure.code,
            "phase": failure.phase,
            "message": for_terminal(&failure.message),
            "next_step": failure.next_step,
        });
    }
    json!({
        "summary": truncate(&for_terminal(&format!("{mark}{}", alert.message)), LONGEST_SUMMARY),
        "source": for_terminal(source),
        "severity": severity(kind, alert.level),
        "timestamp": alert.timestamp.to_string(),
        "component": component.map(for_terminal),
        "group": subject.kind(),
        "class": alert.rule_name,
        "custom_details": details,
    })
}

fn severity(kind: NotificationKind, level: Level) -> &'static str {
    match level {
        _ if kind == NotificationKind::Test => "info",
        Level::Info => "info",
        Level::Warning => "warning",
        Level::Error => "error",
        Level::Critical => "critical",
    }
}

impl fmt::Debug for PagerDutyHandler {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PagerDutyHandler").field("name", &self.name).finish_non_exhaustive()
    }
}

#[async_trait]
impl Handler for PagerDutyHandler {
    fn name(&self) -> &str {
        &self.name
    }

    /// One event for each alert: an incident each, which each can be resolved. Should one fail, all
    /// are sent again; those that arrived are recognised.
    async fn deliver(&self, notification: &Notification) -> Result<Receipt, DeliveryError> {
        let events: Vec<Value> =
            notification.alerts.iter().map(|alert| self.event(notification.kind, alert)).collect();
        let mut answers = Vec::with_capacity(events.len());
        for some in events.chunks(AT_ONCE) {
            let posts = some
                .iter()
                .map(|event| self.sender.post_json(&self.place, event, HeaderMap::new()));
            answers.extend(join_all(posts).await);
        }
        let mut last = None;
        for answer in answers {
            last = answer?.json()["dedup_key"].as_str().map(str::to_owned);
        }
        Ok(receipt(last.as_deref()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::handlers::http::testing::{Far, Says};
    use mcpmon_testkit::{handler_conformance, samples};

    fn handler(far: &Far) -> PagerDutyHandler {
        let settings = HandlerSettings::new("pager", "pagerduty")
            .with("url", far.url(""))
            .with("routing_key", "R0UT1NG");
        PagerDutyHandler::from_settings(&settings).unwrap()
    }

    #[tokio::test]
    async fn one_incident_is_triggered_acknowledged_and_resolved() {
        let far = Far::that(Says::status(202, r#"{"status":"success","dedup_key":"d"}"#)).await;
        let handler = handler(&far);
        for (kind, action) in [
            (NotificationKind::Firing, "trigger"),
            (NotificationKind::Reminder, "trigger"),
            (NotificationKind::Acknowledged, "acknowledge"),
            (NotificationKind::Resolved, "resolve"),
        ] {
            let notification = samples::notification("k", kind);
            handler.deliver(&notification).await.unwrap();
            let request = far.requests().pop().unwrap();
            assert_eq!(request.line, "POST /v2/enqueue HTTP/1.1");
            let event = request.json();
            assert_eq!(event["event_action"], action);
            assert_eq!(event["dedup_key"], Value::from(notification.alerts[0].id.as_str()));
            assert_eq!(event["routing_key"], "R0UT1NG");
            assert_eq!(event.get("payload").is_some(), action == "trigger");
        }
    }

    #[test]
    fn an_incident_names_what_is_affected() {
        let expected = [
            ("same", None, "service"),
            ("same", Some("same"), "tool"),
            ("mcpmon", None, "host"),
            ("mcpmon", None, "monitor"),
            ("same", None, "dependency"),
            ("mcpmon", Some("same"), "handler"),
        ];
        for (subject, (source, component, group)) in samples::subjects().into_iter().zip(expected) {
            let alert = samples::alert_about("rule", subject);
            let payload = payload(NotificationKind::Firing, &alert);
            assert_eq!(payload["source"], source, "{payload}");
            assert_eq!(payload["component"].as_str(), component, "{payload}");
            assert_eq!(payload["group"], group, "{payload}");
            assert_eq!(payload["custom_details"]["subject"]["kind"], group);
            let ended = Alert { resolved_at: Some(alert.timestamp), ..alert.clone() };
            let key = |kind, alert| dedup_key(kind, alert);
            let (begin, end) = (NotificationKind::Firing, NotificationKind::Resolved);
            assert_eq!(key(begin, &alert), key(end, &ended));
        }
    }

    #[tokio::test]
    async fn every_alert_of_a_digest_is_an_incident_and_a_test_resolves_none() {
        let far = Far::that(Says::status(202, "{}")).await;
        let handler = handler(&far);
        handler.deliver(&samples::notification("k", NotificationKind::Digest)).await.unwrap();
        assert_eq!(far.requests().len(), 3);
        handler.deliver(&samples::notification("k", NotificationKind::Test)).await.unwrap();
        let test = far.requests().pop().unwrap().json();
        assert!(test["dedup_key"].as_str().unwrap().starts_with("test-"));
        assert!(test["payload"]["summary"].as_str().unwrap().starts_with("TEST: "));
    }

    #[tokio::test]
    async fn keeps_the_promises_of_a_handler() {
        let far = Far::that(Says::status(202, "{}")).await;
        handler_conformance(&handler(&far)).await;
    }
}
