//! Microsoft Teams, by a workflow's web hook, as an Adaptive Card. Text goes as text runs, the one
//! element in which nothing is Markdown.

use std::fmt;

use async_trait::async_trait;
use mcpmon_core::alert::{Alert, DeliveryError, Handler, Notification, Receipt};
use mcpmon_core::settings::{HandlerSettings, SettingsError};
use mcpmon_core::text::{for_terminal, truncate};
use serde_json::{Value, json};

use super::MOST_LINES;
use super::incoming::Incoming;
use crate::handlers::wording::{headline, is_over, line};

/// Longest text of one alert.
const LONGEST: usize = 1_000;

/// Posts to a Teams channel through a workflow's web hook.
///
/// | key | means | if not said |
/// |---|---|---|
/// | `url` | the web hook, which is itself the secret | |
/// | `ca_file` | PEM certificates trusted beside the system's | none |
/// | `timeout` | the whole delivery | `30s` |
pub struct TeamsHandler(Incoming);

impl TeamsHandler {
    /// Reads the keys of kind `teams`; opens no connection.
    ///
    /// # Errors
    ///
    /// When a key is missing or cannot be used; the message names it.
    pub fn from_settings(settings: &HandlerSettings) -> Result<Self, SettingsError> {
        Incoming::from_settings(settings).map(Self)
    }
}

fn body(notification: &Notification) -> Value {
    let mut content = vec![json!({
        "type": "RichTextBlock",
        "inlines": [run(&headline(notification), true, "default")],
    })];
    if notification.alerts.len() > 1 {
        let shown = notification.alerts.iter().take(MOST_LINES);
        content.extend(shown.map(|alert| {
            let text = line(notification.kind, alert);
            json!({ "type": "RichTextBlock", "inlines": [run(&text, false, tone(notification, alert))] })
        }));
    } else if let Some(alert) = notification.alerts.first() {
        let facts = facts(alert);
        content.extend(facts.into_iter().map(|(name, value)| {
            json!({
                "type": "RichTextBlock",
                "spacing": "Small",
                "inlines": [run(&format!("{name}: "), true, "default"), run(&value, false, "default")],
            })
        }));
    }
    let left_out = notification.alerts.len().saturating_sub(MOST_LINES);
    if left_out > 0 {
        let text = format!("and {left_out} more; mcpmon alerts lists them");
        content.push(json!({ "type": "RichTextBlock", "inlines": [run(&text, false, "default")] }));
    }
    json!({
        "type": "message",
        "summary": truncate(&for_terminal(&headline(notification)), 300),
        "attachments": [{
            "contentType": "application/vnd.microsoft.card.adaptive",
            "content": {
                "$schema": "http://adaptivecards.io/schemas/adaptive-card.json",
                "type": "AdaptiveCard",
                "version": "1.4",
                "msteams": { "width": "Full" },
                "body": content,
            },
        }],
    })
}

fn run(text: &str, bold: bool, color: &str) -> Value {
    let text = truncate(&for_terminal(text), LONGEST);
    let weight = if bold { "Bolder" } else { "Default" };
    json!({ "type": "TextRun", "text": text, "weight": weight, "color": color })
}

fn tone(notification: &Notification, alert: &Alert) -> &'static str {
    use mcpmon_core::Level;
    if is_over(notification.kind, alert) {
        return "good";
    }
    match alert.level {
        Level::Info => "accent",
        Level::Warning => "warning",
        Level::Error | Level::Critical => "attention",
    }
}

fn facts(alert: &Alert) -> Vec<(&'static str, String)> {
    let mut facts = vec![("Rule", alert.rule_name.clone())];
    if let Some(failure) = &alert.failure {
        facts.push(("Failure", format!("{} in {}", failure.code, failure.phase)));
        if alert.resolved_at.is_none() {
            facts.push(("Next step", failure.next_step.to_string()));
        }
    }
    let labels: Vec<String> =
        alert.labels.iter().map(|(name, value)| format!("{name}={value}")).collect();
    if !labels.is_empty() {
        facts.push(("Labels", labels.join(", ")));
    }
    facts
}

impl fmt::Debug for TeamsHandler {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TeamsHandler").field("name", &self.0.name()).finish_non_exhaustive()
    }
}

#[async_trait]
impl Handler for TeamsHandler {
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

    fn handler(far: &Far) -> TeamsHandler {
        let settings = HandlerSettings::new("chat", "teams").with("url", far.url("/hook"));
        TeamsHandler::from_settings(&settings).unwrap()
    }

    #[tokio::test]
    async fn says_what_happened_and_what_to_do() {
        let far = Far::that(Says::status(202, "")).await;
        let firing = samples::notification("k", NotificationKind::Firing);
        handler(&far).deliver(&firing).await.unwrap();
        let body = far.only().json();
        let card = &body["attachments"][0]["content"];
        assert_eq!(card["type"], "AdaptiveCard");
        let first = &card["body"][0]["inlines"][0]["text"];
        assert_eq!(first, "ERROR: files is stopped: connection_refused");
        assert!(card.to_string().contains("Next step"));
    }

    #[test]
    fn nothing_a_server_says_is_markup_or_hidden() {
        for text in HOSTILE {
            let mut firing = samples::notification("k", NotificationKind::Firing);
            firing.alerts[0].message = (*text).to_owned();
            let card = &body(&firing)["attachments"][0]["content"]["body"];
            for block in card.as_array().unwrap() {
                assert_eq!(block["type"], "RichTextBlock");
                for run in block["inlines"].as_array().unwrap() {
                    assert!(!run["text"].as_str().unwrap().contains(is_deceptive));
                }
            }
        }
    }

    #[test]
    fn a_storm_is_counted_not_poured_out() {
        let mut digest = samples::notification("k", NotificationKind::Digest);
        digest.alerts = vec![digest.alerts[0].clone(); 400];
        let body = body(&digest).to_string();
        assert!(body.contains("and 385 more") && body.len() < 10_000);
    }

    #[tokio::test]
    async fn keeps_the_promises_of_a_handler() {
        let far = Far::that(Says::status(200, "{}")).await;
        handler_conformance(&handler(&far)).await;
    }
}
