//! Telegram, through a bot. Messages go without a parse mode, so nothing in them is markup.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use async_trait::async_trait;
use mcpmon_core::Secret;
use mcpmon_core::alert::{DeliveryError, Handler, Notification, NotificationKind, Receipt};
use mcpmon_core::settings::{HandlerSettings, SettingsError};
use mcpmon_core::text::{for_terminal, truncate};
use reqwest::header::HeaderMap;
use serde::Deserialize;
use serde_json::{Value, json};

use super::sender::{Place, Sender, receipt};
use super::{MOST_LINES, half_a_minute};
use crate::handlers::wording::{headline, line};

/// Longest message (Telegram Bot API, `sendMessage`: 4,096 characters).
const LONGEST: usize = 4_000;

/// Sends to a Telegram chat through a bot.
///
/// | key | means | if not said |
/// |---|---|---|
/// | `token` | the bot's token | |
/// | `chat` | the chat's id, or `@channel` | |
/// | `topic` | a forum topic's `message_thread_id` | none |
/// | `quiet` | without a sound for `info` and `warning` | `false` |
/// | `url` | a Bot API server of one's own | `https://api.telegram.org` |
/// | `ca_file` | PEM certificates trusted beside the system's | none |
/// | `timeout` | the whole delivery | `30s` |
pub struct TelegramHandler {
    name: String,
    place: Place,
    sender: Sender,
    chat: Value,
    topic: Option<i64>,
    quiet: bool,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct TelegramSettings {
    token: Secret,
    chat: Chat,
    #[serde(default)]
    topic: Option<i64>,
    #[serde(default)]
    quiet: bool,
    #[serde(default = "bot_api")]
    url: String,
    #[serde(default)]
    ca_file: Option<PathBuf>,
    #[serde(default = "half_a_minute", with = "mcpmon_core::duration")]
    timeout: Duration,
}

#[derive(Deserialize)]
#[serde(untagged, expecting = "`chat` must be a number or `@channel`")]
enum Chat {
    Id(i64),
    Name(String),
}

fn bot_api() -> String {
    "https://api.telegram.org".to_owned()
}

impl TelegramHandler {
    /// Reads the keys of kind `telegram`; opens no connection.
    ///
    /// # Errors
    ///
    /// When a key is missing or cannot be used; the message names it.
    pub fn from_settings(settings: &HandlerSettings) -> Result<Self, SettingsError> {
        let own: TelegramSettings = settings.parse()?;
        let token = own.token.expose();
        if token.is_empty()
            || !token.chars().all(|c| c.is_ascii_alphanumeric() || ":_-".contains(c))
        {
            return Err(settings.error("`token`: not a bot's token such as `123456:ABC-DEF`"));
        }
        let chat = match own.chat {
            Chat::Id(id) => Value::from(id),
            Chat::Name(name) if name.parse::<i64>().is_ok() || name.starts_with('@') => {
                Value::from(name)
            }
            Chat::Name(name) => {
                let why = format!("`chat`: `{name}` is neither a number nor an `@channel`");
                return Err(settings.error(why));
            }
        };
        let path = format!("bot{token}/sendMessage");
        let place = Place::read(settings, "url", &own.url)?.join(&path);
        let ca_file = own.ca_file.as_deref();
        let sender = Sender::new(settings, &[&place], own.timeout, ca_file, [own.token])?;
        let name = settings.name.clone();
        Ok(Self { name, place, sender, chat, topic: own.topic, quiet: own.quiet })
    }

    fn body(&self, notification: &Notification) -> Value {
        let urgent = notification.level() >= mcpmon_core::Level::Error
            && notification.kind != NotificationKind::Resolved;
        let mut body = json!({
            "chat_id": self.chat,
            "text": text(notification),
            "link_preview_options": { "is_disabled": true },
            "disable_notification": self.quiet && !urgent,
        });
        if let Some(topic) = self.topic {
            body["message_thread_id"] = Value::from(topic);
        }
        body
    }
}

fn text(notification: &Notification) -> String {
    let mut lines: Vec<String> = Vec::new();
    if notification.alerts.len() > 1 {
        lines.push(for_terminal(&headline(notification)));
    }
    for alert in notification.alerts.iter().take(MOST_LINES) {
        lines.push(for_terminal(&truncate(&line(notification.kind, alert), 500)));
    }
    if let [alert] = notification.alerts.as_slice()
        && let Some(failure) = alert.failure.as_ref().filter(|_| alert.resolved_at.is_none())
    {
        lines.push(for_terminal(&format!("{}: {}", failure.code, failure.next_step)));
    }
    let left_out = notification.alerts.len().saturating_sub(MOST_LINES);
    if left_out > 0 {
        lines.push(format!("and {left_out} more; mcpmon alerts lists them"));
    }
    truncate(&unmentioning(&lines.join("\n")), LONGEST)
}

/// Telegram makes a mention of every `@name`, in plain text too, and tells whoever has that name.
/// Only where a word goes before it is it an address, and left alone.
fn unmentioning(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut is_after_a_word = false;
    for c in text.chars() {
        out.push(if c == '@' && !is_after_a_word { '\u{ff20}' } else { c });
        is_after_a_word = c.is_alphanumeric() || c == '_';
    }
    out
}

impl fmt::Debug for TelegramHandler {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TelegramHandler").field("name", &self.name).finish_non_exhaustive()
    }
}

#[async_trait]
impl Handler for TelegramHandler {
    fn name(&self) -> &str {
        &self.name
    }

    async fn deliver(&self, notification: &Notification) -> Result<Receipt, DeliveryError> {
        let body = self.body(notification);
        let answer = self.sender.post_json(&self.place, &body, HeaderMap::new()).await?;
        let id = answer.json()["result"]["message_id"].as_i64().map(|id| id.to_string());
        Ok(receipt(id.as_deref()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::handlers::http::testing::{Far, Says};
    use mcpmon_core::text::is_deceptive;
    use mcpmon_testkit::{HOSTILE, handler_conformance, samples};

    fn settings(far: &Far) -> HandlerSettings {
        HandlerSettings::new("phone", "telegram")
            .with("url", far.url(""))
            .with("token", "123:AbC-d_e")
            .with("chat", -100_123)
    }

    #[tokio::test]
    async fn sends_to_the_chat_and_keeps_the_messages_id() {
        let far = Far::that(Says::status(200, r#"{"ok":true,"result":{"message_id":77}}"#)).await;
        let handler = TelegramHandler::from_settings(&settings(&far).with("quiet", true)).unwrap();
        let firing = samples::notification("k", NotificationKind::Firing);
        let receipt = handler.deliver(&firing).await.unwrap();
        assert_eq!(receipt.id.as_deref(), Some("77"));
        let request = far.only();
        assert_eq!(request.line, "POST /bot123:AbC-d_e/sendMessage HTTP/1.1");
        let body = request.json();
        assert_eq!(
            (&body["chat_id"], &body["disable_notification"]),
            (&json!(-100_123), &json!(false))
        );
        assert!(body["text"].as_str().unwrap().starts_with("ERROR: files is stopped"));
        assert!(body.get("parse_mode").is_none());
    }

    #[tokio::test]
    async fn a_refusal_does_not_show_the_token() {
        let said = r#"{"ok":false,"description":"Forbidden for bot123:AbC-d_e"}"#;
        let far = Far::that(Says::status(403, said)).await;
        let handler = TelegramHandler::from_settings(&settings(&far)).unwrap();
        let firing = samples::notification("k", NotificationKind::Firing);
        let error = handler.deliver(&firing).await.unwrap_err();
        let told = error.to_string();
        assert!(!error.is_transient() && told.contains("Forbidden"), "{told}");
        assert!(!told.contains("AbC-d_e"), "{told}");
    }

    #[test]
    fn nothing_a_server_says_is_hidden_and_a_storm_is_cut() {
        for hostile in HOSTILE {
            let mut firing = samples::notification("k", NotificationKind::Firing);
            firing.alerts[0].message = (*hostile).to_owned();
            assert!(!text(&firing).replace('\n', "").contains(is_deceptive));
        }
        let mut digest = samples::notification("k", NotificationKind::Digest);
        digest.alerts = vec![digest.alerts[0].clone(); 400];
        assert!(text(&digest).chars().count() <= LONGEST);
        assert!(text(&digest).contains("and 385 more"));
    }

    #[tokio::test]
    async fn keys_that_cannot_work_are_told() {
        let far = Far::gone().await;
        for (key, value) in [("token", "a/../b"), ("chat", "friends"), ("url", "x")] {
            let error = TelegramHandler::from_settings(&settings(&far).with(key, value));
            let told = error.unwrap_err().to_string();
            assert!(told.contains(&format!("`{key}`")), "{told}");
        }
    }

    #[tokio::test]
    async fn keeps_the_promises_of_a_handler() {
        let far = Far::that(Says::status(200, r#"{"ok":true}"#)).await;
        handler_conformance(&TelegramHandler::from_settings(&settings(&far)).unwrap()).await;
    }
}
