//! Services named to deceive or to call somebody, in a real mail and in the bodies chats get.

use mcpmon_core::text::is_deceptive;
use serde_json::{Map, Value, json};

use super::far_sides::{FarSide, MailServer};
use super::hook::Hook;
use super::stage::Stage;
use crate::home::until;
use crate::peers::peer;

const PATIENCE: std::time::Duration = std::time::Duration::from_secs(90);

/// Each with a part that any message about it must show.
const NAMES: [(&str, &str); 8] = [
    ("@everyone n1", "everyone n1"),
    ("<!channel> n2", "n2"),
    ("<@U024BE7LH> n3", "n3"),
    ("<at>Everyone</at> n4", "n4"),
    ("n5\r\nBcc: all@example.com\r\n\r\nbody", "n5"),
    ("<img src=x onerror=\"alert('1')\"> n6", "n6"),
    ("\u{202e}n7\x1b[2J", "n7"),
    ("[n8](https://evil.example) `*_~", "n8"),
];

/// Every text in a value.
fn texts(value: &Value) -> Vec<&str> {
    match value {
        Value::String(text) => vec![text],
        Value::Array(items) => items.iter().flat_map(texts).collect(),
        Value::Object(fields) => fields.values().flat_map(texts).collect(),
        _ => Vec::new(),
    }
}

fn bodies(stage: &Stage, name: &str) -> Vec<Value> {
    match stage.far_side(name) {
        FarSide::Watched(hook) => hook.attempts().into_iter().map(|asked| asked.body).collect(),
        _ => panic!("`{name}` takes web hooks"),
    }
}

#[tokio::test]
async fn a_name_calls_nobody_and_stays_in_its_place() {
    let smtpd = peer!("smtpd");
    let mail = MailServer::open(&smtpd, &[], "", "").await;
    let mut stage = Stage::new(&[])
        .await
        .with("mail", FarSide::Mail(mail))
        .configured("[discover]\nimport = [\"clients.json\"]\n");
    for chat in ["slack", "discord", "teams", "telegram"] {
        let hook = Hook::open(&[]).await;
        let more = if chat == "telegram" { "token = \"1:a\"\nchat = 1\n" } else { "" };
        let table = format!(
            "[[handlers]]\nname = \"{chat}\"\ntype = \"{chat}\"\nurl = \"{}\"\n{more}",
            hook.url()
        );
        stage = stage.configured(&table).with(chat, FarSide::Watched(hook));
    }
    let services: Map<String, Value> = NAMES
        .iter()
        // What has one address is one service.
        .map(|(name, part)| ((*name).to_owned(), json!({ "url": format!("http://127.0.0.1:9/{}", part.replace(' ', "-")) })))
        .collect();
    stage.home.write("work/clients.json", json!({ "mcpServers": services }).to_string());
    stage.configure();
    let _up = stage.home.start(&["up", "--yes"]);

    let FarSide::Mail(mail) = stage.far_side("mail") else { panic!("it takes mail") };
    let shows = |text: &str| NAMES.iter().all(|(_, part)| text.contains(part));
    until("a mail about each of them", PATIENCE, async || {
        let mails = mail.mails();
        let all: String =
            mails.iter().map(|(_, mail)| mail["text"].as_str().unwrap_or_default()).collect();
        shows(&all).then_some(())
    })
    .await;
    for chat in ["slack", "discord", "teams", "telegram"] {
        until(&format!("{chat} to be told of each of them"), PATIENCE, async || {
            let all = bodies(&stage, chat);
            shows(&all.iter().flat_map(texts).collect::<String>()).then_some(())
        })
        .await;
    }

    for (_, mail) in mail.mails() {
        assert_eq!(mail["mail_from"], "mcpmon@example.com");
        assert_eq!(mail["rcpt_to"], json!(["ops@example.com"]));
        let raw = mail["raw"].as_str().unwrap();
        let (head, _) = raw.split_once("\r\n\r\n").unwrap();
        let named = |name: &str| {
            head.lines().filter(|line| line.to_ascii_lowercase().starts_with(name)).count()
        };
        assert_eq!((named("subject:"), named("bcc:"), named("to:")), (1, 0, 1), "{head}");
        let html = mail["html"].as_str().unwrap();
        assert!(!html.contains("<img") && !html.contains("<at>"), "{html}");
        for part in [html, mail["text"].as_str().unwrap()] {
            assert!(!part.chars().any(|c| !matches!(c, '\r' | '\n') && is_deceptive(c)), "{part}");
        }
    }
    for body in bodies(&stage, "slack") {
        assert!(!body["text"].as_str().unwrap().contains(['<', '>']), "{body:#}");
        let kinds = body["attachments"].as_array().unwrap().iter();
        let blocks = kinds.flat_map(|attachment| attachment["blocks"].as_array().unwrap());
        assert!(blocks.into_iter().all(|block| block["text"]["type"] == "plain_text"), "{body:#}");
    }
    for body in bodies(&stage, "discord") {
        assert_eq!(body["allowed_mentions"], json!({ "parse": [] }), "{body:#}");
    }
    for body in bodies(&stage, "teams") {
        assert!(!body.to_string().contains("\"entities\""), "{body:#}");
    }
    for body in bodies(&stage, "telegram") {
        assert!(body.get("parse_mode").is_none(), "{body:#}");
        // An address calls nobody.
        let text = body["text"].as_str().unwrap().replace("all@example.com", "");
        assert!(!text.contains('@'), "{body:#}");
    }
}
