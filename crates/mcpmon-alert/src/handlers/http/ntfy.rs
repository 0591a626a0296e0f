//! ntfy: a push message by topic, published as JSON so that no server's text is ever a header.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use async_trait::async_trait;
use mcpmon_core::alert::{DeliveryError, Handler, Notification, NotificationKind, Receipt};
use mcpmon_core::settings::{HandlerSettings, SettingsError};
use mcpmon_core::text::{for_terminal, truncate};
use mcpmon_core::{Level, Secret};
use reqwest::header::{AUTHORIZATION, HeaderMap};
use serde::Deserialize;
use serde_json::{Value, json};

use super::sender::{Place, Sender, receipt, secret_header};
use super::{MOST_LINES, half_a_minute};
use crate::handlers::wording::{headline, is_over, line, name_subject};

/// Longest message: ntfy makes an attachment of what is over 4,096 bytes.
const LONGEST: usize = 3_500;

/// Publishes to an ntfy topic.
///
/// | key | means | if not said |
/// |---|---|---|
/// | `topic` | the topic; on a public server it is the secret | |
/// | `url` | the server | `https://ntfy.sh` |
/// | `token` | an access token | none |
/// | `click` | opened when the message is tapped | none |
/// | `ca_file` | PEM certificates trusted beside the system's | none |
/// | `timeout` | the whole delivery | `30s` |
///
/// Priorities: 5 for `critical`, 4 for `error`, 3 for `warning`, 2 for `info` and recoveries.
pub struct NtfyHandler {
    name: String,
    place: Place,
    sender: Sender,
    headers: HeaderMap,
    topic: Secret,
    click: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct NtfySettings {
    topic: Secret,
    #[serde(default = "public_server")]
    url: String,
    #[serde(default)]
    token: Option<Secret>,
    #[serde(default)]
    click: Option<String>,
    #[serde(default)]
    ca_file: Option<PathBuf>,
    #[serde(default = "half_a_minute", with = "mcpmon_core::duration")]
    timeout: Duration,
}

fn public_server() -> String {
    "https://ntfy.sh".to_owned()
}

impl NtfyHandler {
    /// Reads the keys of kind `ntfy`; opens no connection.
    ///
    /// # Errors
    ///
    /// When a key is missing or cannot be used; the message names it.
    pub fn from_settings(settings: &HandlerSettings) -> Result<Self, SettingsError> {
        let own: NtfySettings = settings.parse()?;
        let topic = own.topic.expose();
        let is_topic = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-');
        if topic.is_empty() || topic.len() > 64 || !topic.chars().all(is_topic) {
            return Err(settings.error("`topic`: 1 to 64 letters, digits, `_` and `-`"));
        }
        let place = Place::read(settings, "url", &own.url)?;
        let mut headers = HeaderMap::new();
        if let Some(token) = &own.token {
            let value = format!("Bearer {}", token.expose());
            headers.insert(AUTHORIZATION, secret_header(settings, "token", &value)?);
        }
        let hidden = own.token.into_iter().chain([own.topic.clone()]);
        let ca_file = own.ca_file.as_deref();
        let sender = Sender::new(settings, &[&place], own.timeout, ca_file, hidden)?;
        let name = settings.name.clone();
        Ok(Self { name, place, sender, headers, topic: own.topic, click: own.click })
    }

    fn body(&self, notification: &Notification) -> Value {
        let mut body = json!({
            "topic": self.topic.expose(),
            "title": truncate(&for_terminal(&title(notification)), 200),
            "message": message(notification),
            "priority": priority(notification),
            "tags": [tag(notification)],
        });
        if let Some(click) = &self.click {
            body["click"] = Value::from(click.as_str());
        }
        body
    }
}

fn title(notification: &Notification) -> String {
    match notification.alerts.as_slice() {
        [alert] => format!("{}: {}", name_subject(alert), alert.rule_name),
        _ => headline(notification),
    }
}

fn message(notification: &Notification) -> String {
    let mut lines: Vec<String> = notification
        .alerts
        .iter()
        .take(MOST_LINES)
        .map(|alert| for_terminal(&truncate(&line(notification.kind, alert), 400)))
        .collect();
    if let [alert] = notification.alerts.as_slice()
        && let Some(failure) = alert.failure.as_ref().filter(|_| alert.resolved_at.is_none())
    {
        lines.push(for_terminal(&failure.next_step));
    }
    let left_out = notification.alerts.len().saturating_sub(MOST_LINES);
    if left_out > 0 {
        lines.push(format!("and {left_out} more; mcpmon alerts lists them"));
    }
    let mut text = lines.join("\n");
    while text.len() > LONGEST {
        text = truncate(&text, text.chars().count() * 3 / 4);
    }
    text
}

fn all_over(notification: &Notification) -> bool {
    notification.alerts.iter().all(|alert| is_over(notification.kind, alert))
}

fn priority(notification: &Notification) -> u8 {
    if all_over(notification) {
        return 2;
    }
    match notification.level() {
        Level::Info => 2,
        Level::Warning => 3,
        Level::Error => 4,
        Level::Critical => 5,
    }
}

/// ntfy shows these short codes as pictures.
fn tag(notification: &Notification) -> &'static str {
    if notification.kind == NotificationKind::Test {
        return "loudspeaker";
    }
    if all_over(notification) {
        return "white_check_mark";
    }
    match notification.level() {
        Level::Info => "information_source",
        Level::Warning => "warning",
        Level::Error => "x",
        Level::Critical => "rotating_light",
    }
}

impl fmt::Debug for NtfyHandler {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NtfyHandler")
            .field("name", &self.name)
            .field("place", &self.place.name())
            .finish_non_exhaustive()
    }
}

#[async_trait]
impl Handler for NtfyHandler {
    fn name(&self) -> &str {
        &self.name
    }

    async fn deliver(&self, notification: &Notification) -> Result<Receipt, DeliveryError> {
        let body = self.body(notification);
        let answer = self.sender.post_json(&self.place, &body, self.headers.clone()).await?;
        Ok(receipt(answer.json()["id"].as_str()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::handlers::http::testing::{Far, Says};
    use mcpmon_testkit::{HOSTILE, handler_conformance, samples};

    fn handler(far: &Far) -> NtfyHandler {
        let settings = HandlerSettings::new("push", "ntfy")
            .with("url", far.url(""))
            .with("topic", "my-s3cr3t-topic")
            .with("token", "tk_abcdef");
        NtfyHandler::from_settings(&settings).unwrap()
    }

    #[tokio::test]
    async fn publishes_with_a_priority_and_keeps_the_messages_id() {
        let far = Far::that(Says::status(200, r#"{"id":"hwQ2YpKdmg"}"#)).await;
        let handler = handler(&far);
        let firing = samples::notification("k", NotificationKind::Firing);
        let receipt = handler.deliver(&firing).await.unwrap();
        assert_eq!(receipt.id.as_deref(), Some("hwQ2YpKdmg"));
        let request = far.only();
        assert_eq!(request.header("authorization"), Some("Bearer tk_abcdef"));
        let body = request.json();
        assert_eq!((&body["priority"], &body["tags"]), (&json!(4), &json!(["x"])));
        assert_eq!(body["title"], "files: service_down");
        let over = handler.body(&samples::notification("k", NotificationKind::Resolved));
        assert_eq!((&over["priority"], &over["tags"]), (&json!(2), &json!(["white_check_mark"])));
    }

    #[test]
    fn a_title_names_what_the_alert_is_about() {
        let titles = samples::subjects().map(|subject| {
            let alerts = vec![samples::alert_about("rule", subject)];
            title(&Notification::new("k", NotificationKind::Firing, alerts))
        });
        let expected = [
            "same: rule",
            "same/same: rule",
            "this machine: rule",
            "mcpmon: rule",
            "dependency same: rule",
            "handler same: rule",
        ];
        assert_eq!(titles, expected);
    }

    #[tokio::test]
    async fn a_refusal_does_not_show_topic_or_token() {
        let far = Far::that(Says::status(403, "no my-s3cr3t-topic for tk_abcdef")).await;
        let firing = samples::notification("k", NotificationKind::Firing);
        let told = handler(&far).deliver(&firing).await.unwrap_err().to_string();
        assert!(!told.contains("s3cr3t") && !told.contains("tk_abcdef"), "{told}");
    }

    #[test]
    fn a_message_never_becomes_an_attachment() {
        for text in HOSTILE {
            let mut digest = samples::notification("k", NotificationKind::Digest);
            digest.alerts = vec![digest.alerts[0].clone(); 400];
            for alert in &mut digest.alerts {
                alert.message = text.repeat(4);
            }
            assert!(message(&digest).len() <= LONGEST);
        }
    }

    #[tokio::test]
    async fn keeps_the_promises_of_a_handler() {
        let far = Far::that(Says::status(200, "{}")).await;
        handler_conformance(&handler(&far)).await;
    }
}
