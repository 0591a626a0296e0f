//! Discord, by a channel's web hook. Its text is Markdown, so whatever formats or mentions is
//! escaped, and mentions are switched off besides.

use std::fmt;

use async_trait::async_trait;
use mcpmon_core::alert::{Alert, DeliveryError, Handler, Notification, Receipt};
use mcpmon_core::settings::{HandlerSettings, SettingsError};
use mcpmon_core::text::{for_markdown, for_terminal, truncate};
use serde_json::{Value, json};

use super::MOST_LINES;
use super::incoming::Incoming;
use crate::handlers::wording::{color, headline, line};

/// Most embeds of one message (Discord, "Message limits").
const MOST_EMBEDS: usize = 10;
/// Longest description of an embed that is worth reading, escapes included.
const LONGEST: usize = 1_500;

/// Posts to a Discord channel through its web hook.
///
/// | key | means | if not said |
/// |---|---|---|
/// | `url` | the web hook, which is itself the secret | |
/// | `ca_file` | PEM certificates trusted beside the system's | none |
/// | `timeout` | the whole delivery | `30s` |
pub struct DiscordHandler(Incoming);

impl DiscordHandler {
    /// Reads the keys of kind `discord`; opens no connection.
    ///
    /// # Errors
    ///
    /// When a key is missing or cannot be used; the message names it.
    pub fn from_settings(settings: &HandlerSettings) -> Result<Self, SettingsError> {
        Incoming::from_settings(settings).map(Self)
    }
}

fn body(notification: &Notification) -> Value {
    let room = MOST_LINES.min(MOST_EMBEDS);
    let embeds: Vec<Value> = notification
        .alerts
        .iter()
        .take(room)
        .map(|alert| {
            json!({
                "description": markdown(&line(notification.kind, alert)),
                "color": number(color(notification.kind, alert)),
                "footer": { "text": truncate(&for_terminal(&footer(alert)), 300) },
                "timestamp": alert.resolved_at.unwrap_or(alert.timestamp).to_string(),
            })
        })
        .collect();
    let left_out = notification.alerts.len().saturating_sub(room);
    let content = match left_out {
        0 => String::new(),
        left_out => {
            format!("{} (and {left_out} more below)", markdown(&headline(notification)))
        }
    };
    json!({
        "username": "mcpmon",
        "content": truncate(&content, LONGEST),
        "embeds": embeds,
        "allowed_mentions": { "parse": [] },
    })
}

fn markdown(text: &str) -> String {
    // Cut before it is escaped: a cut escape would format again.
    for_markdown(&truncate(text, LONGEST / 2))
}

fn footer(alert: &Alert) -> String {
    match alert.failure.as_ref().filter(|_| alert.resolved_at.is_none()) {
        Some(failure) => format!("{} · {} · {}", alert.rule_name, failure.code, failure.next_step),
        None => alert.rule_name.clone(),
    }
}

/// `#rrggbb` as Discord wants it.
fn number(color: &str) -> u32 {
    u32::from_str_radix(color.trim_start_matches('#'), 16).unwrap_or_default()
}

impl fmt::Debug for DiscordHandler {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DiscordHandler").field("name", &self.0.name()).finish_non_exhaustive()
    }
}

#[async_trait]
impl Handler for DiscordHandler {
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

    fn handler(far: &Far) -> DiscordHandler {
        let settings = HandlerSettings::new("chat", "discord").with("url", far.url("/hook"));
        DiscordHandler::from_settings(&settings).unwrap()
    }

    #[tokio::test]
    async fn says_what_happened_and_what_to_do() {
        let far = Far::that(Says::status(204, "")).await;
        let firing = samples::notification("k", NotificationKind::Firing);
        handler(&far).deliver(&firing).await.unwrap();
        let body = far.only().json();
        let embed = &body["embeds"][0];
        assert_eq!(embed["description"], r"ERROR\: files is stopped\: connection\_refused");
        assert_eq!(embed["color"], 0x00cf_222e);
        assert!(embed["footer"]["text"].as_str().unwrap().contains("service_down"));
    }

    #[test]
    fn nothing_a_server_says_mentions_formats_or_hides() {
        for text in HOSTILE {
            let mut firing = samples::notification("k", NotificationKind::Firing);
            firing.alerts[0].message = format!("@everyone {text}");
            let body = body(&firing);
            assert_eq!(body["allowed_mentions"], json!({ "parse": [] }));
            let said = body["embeds"][0]["description"].as_str().unwrap();
            assert!(said.contains(r"\@everyone") && !said.contains(is_deceptive), "{said:?}");
        }
    }

    #[test]
    fn a_storm_is_counted_not_poured_out() {
        let mut digest = samples::notification("k", NotificationKind::Digest);
        digest.alerts = vec![digest.alerts[0].clone(); 400];
        let body = body(&digest);
        assert_eq!(body["embeds"].as_array().unwrap().len(), MOST_EMBEDS);
        assert!(body["content"].as_str().unwrap().contains("390 more"));
    }

    #[tokio::test]
    async fn keeps_the_promises_of_a_handler() {
        let far = Far::that(Says::status(200, "{}")).await;
        handler_conformance(&handler(&far)).await;
    }
}
