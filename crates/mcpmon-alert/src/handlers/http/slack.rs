//! Slack, by an incoming web hook. Text goes as `plain_text`, in which nothing is markup.

use std::fmt;

use async_trait::async_trait;
use mcpmon_core::alert::{Alert, DeliveryError, Handler, Notification, Receipt};
use mcpmon_core::settings::{HandlerSettings, SettingsError};
use mcpmon_core::text::{for_slack, for_terminal, truncate};
use serde_json::{Value, json};

use super::MOST_LINES;
use super::incoming::Incoming;
use crate::handlers::wording::{color, headline, line};

/// Longest text of a section (Slack, "Section block").
const LONGEST_SECTION: usize = 2_900;
/// Longest fallback text that is worth sending.
const LONGEST_FALLBACK: usize = 300;

/// Posts to a Slack channel through an incoming web hook.
///
/// | key | means | if not said |
/// |---|---|---|
/// | `url` | the incoming web hook, which is itself the secret | |
/// | `ca_file` | PEM certificates trusted beside the system's | none |
/// | `timeout` | the whole delivery | `30s` |
pub struct SlackHandler(Incoming);

impl SlackHandler {
    /// Reads the keys of kind `slack`; opens no connection.
    ///
    /// # Errors
    ///
    /// When a key is missing or cannot be used; the message names it.
    pub fn from_settings(settings: &HandlerSettings) -> Result<Self, SettingsError> {
        Incoming::from_settings(settings).map(Self)
    }
}

fn body(notification: &Notification) -> Value {
    let shown = notification.alerts.iter().take(MOST_LINES);
    let mut attachments: Vec<Value> = shown
        .map(|alert| {
            json!({
                "color": color(notification.kind, alert),
                "blocks": [section(&line(notification.kind, alert)), section(&small_print(alert))],
            })
        })
        .collect();
    let left_out = notification.alerts.len().saturating_sub(MOST_LINES);
    if left_out > 0 {
        let text = format!("and {left_out} more; mcpmon alerts lists them");
        attachments.push(json!({ "blocks": [section(&text)] }));
    }
    json!({
        "text": for_slack(&truncate(&headline(notification), LONGEST_FALLBACK)),
        "attachments": attachments,
    })
}

fn section(text: &str) -> Value {
    let text = truncate(&for_terminal(text), LONGEST_SECTION);
    json!({ "type": "section", "text": { "type": "plain_text", "text": text, "emoji": false } })
}

fn small_print(alert: &Alert) -> String {
    let mut parts = vec![format!("rule {}", alert.rule_name)];
    if let Some(failure) = alert.failure.as_ref().filter(|_| alert.resolved_at.is_none()) {
        parts.push(failure.code.to_string());
        parts.push(failure.next_step.to_string());
    }
    parts.extend(alert.labels.iter().map(|(name, value)| format!("{name}={value}")));
    parts.join(" · ")
}

impl fmt::Debug for SlackHandler {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SlackHandler").field("name", &self.0.name()).finish_non_exhaustive()
    }
}

#[async_trait]
impl Handler for SlackHandler {
    fn name(&self) -> &str {
        self.0.name()
    }

    async fn deliver(&self, notification: &Notification) -> Result<Receipt, DeliveryError> {
        self.0.post(&body(notification)).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::handlers::http::testing::{Far, Says};
    use mcpmon_core::NotificationKind;
    use mcpmon_core::text::is_deceptive;
    use mcpmon_testkit::{HOSTILE, handler_conformance, samples};

    fn handler(far: &Far) -> SlackHandler {
        let settings = HandlerSettings::new("chat", "slack").with("url", far.url("/services/T/B"));
        SlackHandler::from_settings(&settings).unwrap()
    }

    #[tokio::test]
    async fn says_what_happened_and_what_to_do() {
        let far = Far::that(Says::status(200, "ok")).await;
        let firing = samples::notification("k", NotificationKind::Firing);
        handler(&far).deliver(&firing).await.unwrap();
        let body = far.only().json();
        assert_eq!(body["text"], "ERROR: files is stopped: connection_refused");
        assert_eq!(body["attachments"][0]["color"], "#cf222e");
        let fine = &body["attachments"][0]["blocks"][1]["text"]["text"];
        assert!(fine.as_str().unwrap().contains("rule service_down"), "{fine}");
    }

    #[test]
    fn nothing_a_server_says_is_markup_or_hidden() {
        for text in HOSTILE {
            let mut firing = samples::notification("k", NotificationKind::Firing);
            firing.alerts[0].message = (*text).to_owned();
            let body = body(&firing);
            let fallback = body["text"].as_str().unwrap();
            assert!(!fallback.contains(['<', '>']) && !fallback.contains(is_deceptive));
            let block = &body["attachments"][0]["blocks"][0]["text"];
            assert_eq!(block["type"], "plain_text");
            assert!(!block["text"].as_str().unwrap().contains(is_deceptive));
        }
    }

    #[test]
    fn a_storm_is_counted_not_poured_out() {
        let mut digest = samples::notification("k", NotificationKind::Digest);
        digest.alerts = vec![digest.alerts[0].clone(); 400];
        let body = body(&digest);
        assert_eq!(body["attachments"].as_array().unwrap().len(), MOST_LINES + 1);
        assert!(body.to_string().contains("and 385 more"));
    }

    #[tokio::test]
    async fn keeps_the_promises_of_a_handler() {
        let far = Far::that(Says::status(200, "ok")).await;
        handler_conformance(&handler(&far)).await;
    }
}
