//! Nobody is called by what a server is named, or says: not one person, not a channel, not everybody.

use mcpmon_core::NotificationKind;
use mcpmon_core::alert::{Alert, Handler, Notification};
use mcpmon_core::settings::HandlerSettings;
use mcpmon_core::subject::Subject;
use mcpmon_testkit::samples;
use serde_json::Value;

use super::discord::DiscordHandler;
use super::slack::SlackHandler;
use super::teams::TeamsHandler;
use super::telegram::TelegramHandler;
use super::testing::{Far, Says};

/// What calls somebody in one chat or another.
const CALLS: [&str; 12] = [
    "@everyone",
    "@here",
    "@channel",
    "<!channel>",
    "<!here|here>",
    "<!subteam^S012>",
    "<@U024BE7LH>",
    "<@&165511591545143296>",
    "<#C024BE7LR>",
    "@ops_on_call",
    "<at>Everyone</at>",
    "[call](tg://user?id=1) [link](https://evil.example)",
];

/// The text in every place a server's words can come to.
fn everywhere(kind: NotificationKind, text: &str) -> Notification {
    let mut notification = samples::notification(text, kind);
    let in_alert = |alert: &mut Alert| {
        alert.message = text.to_owned();
        alert.subject = Subject::tool_of(text, text);
        alert.labels.insert(text.to_owned(), text.to_owned());
        if let Some(failure) = &mut alert.failure {
            failure.message = text.to_owned();
            failure.next_step = text.to_owned();
        }
    };
    notification.alerts.iter_mut().for_each(in_alert);
    notification
}

/// Every body the handler posts about every text, alone and in a digest.
async fn bodies(far: &Far, handler: &dyn Handler) -> Vec<(&'static str, Value)> {
    let mut bodies = Vec::new();
    for text in CALLS {
        let mut digest = everywhere(NotificationKind::Digest, text);
        digest.alerts = vec![digest.alerts[0].clone(); 30];
        for notification in [
            everywhere(NotificationKind::Firing, text),
            everywhere(NotificationKind::Resolved, text),
            digest,
        ] {
            let before = far.requests().len();
            handler.deliver(&notification).await.unwrap();
            bodies.extend(far.requests()[before..].iter().map(|asked| (text, asked.json())));
        }
    }
    bodies
}

/// Every object in a value, the value itself among them.
fn objects(value: &Value) -> Vec<&serde_json::Map<String, Value>> {
    match value {
        Value::Object(fields) => {
            std::iter::once(fields).chain(fields.values().flat_map(objects)).collect()
        }
        Value::Array(items) => items.iter().flat_map(objects).collect(),
        _ => Vec::new(),
    }
}

fn settings(kind: &str, far: &Far) -> HandlerSettings {
    HandlerSettings::new("chat", kind).with("url", far.url("/hook"))
}

#[tokio::test]
async fn slack_gets_no_angle_bracket_where_it_reads_any() {
    let far = Far::that(Says::status(200, "ok")).await;
    let handler = SlackHandler::from_settings(&settings("slack", &far)).unwrap();
    for (text, body) in bodies(&far, &handler).await {
        assert!(!body["text"].as_str().unwrap().contains(['<', '>']), "{text}: {body:#}");
        assert!(body.get("link_names").is_none() && body.get("parse").is_none(), "{body:#}");
        for object in objects(&body["attachments"]) {
            // Plain text has no mentions; what has no type is no text.
            let kind = object.get("type").and_then(Value::as_str);
            assert!(kind != Some("mrkdwn"), "{text}: {object:?}");
            assert!(!object.contains_key("mrkdwn_in"), "{text}: {object:?}");
        }
    }
}

#[tokio::test]
async fn discord_is_told_to_call_nobody() {
    let far = Far::that(Says::status(204, "")).await;
    let handler = DiscordHandler::from_settings(&settings("discord", &far)).unwrap();
    for (text, body) in bodies(&far, &handler).await {
        assert_eq!(body["allowed_mentions"], serde_json::json!({ "parse": [] }), "{text}");
        let content = body["content"].as_str().unwrap();
        let unescaped = |at: usize| !content[..at].ends_with('\\');
        let calls = content.match_indices(['@', '<', '[']).any(|(at, _)| unescaped(at));
        assert!(!calls, "{text}: {content}");
    }
}

#[tokio::test]
async fn teams_gets_runs_of_text_and_no_entities() {
    let far = Far::that(Says::status(202, "")).await;
    let handler = TeamsHandler::from_settings(&settings("teams", &far)).unwrap();
    for (text, body) in bodies(&far, &handler).await {
        for object in objects(&body) {
            assert!(!object.contains_key("entities"), "{text}: {object:?}");
            // It reads Markdown; a run does not.
            let kind = object.get("type").and_then(Value::as_str);
            assert!(kind != Some("TextBlock"), "{text}: {object:?}");
        }
    }
}

#[tokio::test]
async fn telegram_gets_no_name_it_would_call() {
    let far = Far::that(Says::status(200, r#"{"ok":true}"#)).await;
    let settings = settings("telegram", &far).with("token", "1:a").with("chat", 1);
    let handler = TelegramHandler::from_settings(&settings).unwrap();
    for (text, body) in bodies(&far, &handler).await {
        assert!(body.get("parse_mode").is_none() && body.get("entities").is_none(), "{body:#}");
        assert!(!body["text"].as_str().unwrap().contains('@'), "{text}: {body:#}");
    }
    let mut firing = everywhere(NotificationKind::Firing, "no mail for ops@example.com");
    firing.alerts[0].failure = None;
    handler.deliver(&firing).await.unwrap();
    let last = far.requests().pop().unwrap().json();
    assert!(last["text"].as_str().unwrap().contains("ops@example.com"), "{last:#}");
}
