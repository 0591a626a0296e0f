//! What servers say reaches people as text: nothing of it moves a cursor, turns a line around,
//! starts a formula, ends a mail's header or becomes markup.
//!
//! One corpus, `mcpmon_testkit::HOSTILE`, in every place a server can put words: its name and
//! version, tools and their descriptions, errors, bodies, headers, standard error, and the names it
//! goes by in a client's file.

use std::time::Duration;

use mcpmon_core::text::is_deceptive;
use mcpmon_testkit::{HOSTILE, Stream};
use serde_json::{Map, Value, json};

use crate::careless::{Answer, Asked, Careless};
use crate::home::{Home, Ran, until};
use crate::mail::{self, Mailbox};
use crate::peers::peer;

const PATIENCE: Duration = Duration::from_secs(90);

fn text_of(asked: &Asked) -> (&str, &'static str) {
    let path = asked.head.split(' ').nth(1).unwrap_or_default().trim_start_matches('/');
    let (kind, number) = path.split_once('/').unwrap_or((path, "0"));
    (kind, HOSTILE[number.parse::<usize>().unwrap()])
}

/// The text as a header's value can have it on the wire.
fn in_header(text: &str) -> String {
    text.chars().filter(|c| !matches!(c, '\r' | '\n' | '\0')).take(2_000).collect()
}

fn answer(asked: &Asked) -> Answer {
    let (kind, text) = text_of(asked);
    match (kind, asked.method()) {
        ("body", _) => Answer::text("500 Internal Server Error", text),
        ("unauthorized", _) => Answer {
            headers: format!(
                "www-authenticate: Bearer realm=\"{}\", scope=\"{0}\"\r\n",
                in_header(text).replace('"', "'")
            ),
            ..Answer::text("401 Unauthorized", text)
        },
        ("type", _) => Answer {
            headers: format!("content-type: {}\r\n", in_header(text)),
            ..Answer::text("200 OK", text)
        },
        ("refusing", _) => asked.error(-32_603, text, &json!({ text: text })),
        ("version", "initialize") => asked.result(&json!({
            "protocolVersion": text, "capabilities": {}, "serverInfo": { "name": "x", "version": "1" },
        })),
        (_, "initialize") => asked.result(&json!({
            "protocolVersion": "2025-06-18",
            "capabilities": { "tools": {}, "prompts": {}, "resources": {}, text: {} },
            "serverInfo": { "name": text, "title": text, "version": text },
            "instructions": text,
        })),
        (_, "ping") => asked.result(&json!({})),
        (_, "tools/list") => asked.result(&json!({ "tools": [
            tool(text, text),
            tool("safe", "Fails with words of its own"),
        ]})),
        (_, "prompts/list") => {
            asked.result(&json!({ "prompts": [{ "name": text, "description": text }] }))
        }
        (_, "resources/list") => {
            asked.result(&json!({ "resources": [{ "uri": text, "name": text, "mimeType": text }] }))
        }
        (_, "tools/call") => asked.result(&json!({
            "isError": true, "content": [{ "type": "text", "text": text }],
        })),
        (_, method) if method.starts_with("notifications/") => Answer::text("202 Accepted", ""),
        _ => asked.error(-32_601, text, &Value::Null),
    }
}

fn tool(name: &str, description: &str) -> Value {
    json!({
        "name": name, "title": name, "description": description,
        "inputSchema": { "type": "object", "properties": { name: { "description": description } } },
        "annotations": { "readOnlyHint": true, "title": description },
    })
}

/// Every way to say every text, as services whose own names are plain.
fn services(server: &Careless) -> Map<String, Value> {
    let mut services = Map::new();
    for (number, text) in HOSTILE.iter().enumerate() {
        for kind in ["body", "unauthorized", "type", "refusing", "version", "lists"] {
            let mut entry = json!({ "url": server.url(&format!("{kind}/{number}")) });
            if kind == "lists" {
                entry["functional"] = json!([{ "tool": "safe" }]);
            }
            services.insert(format!("{kind}-{number}"), entry);
        }
        if !text.contains('\0') {
            let shell = "printf '%s\\n' \"$0\"; printf '%s\\n' \"$0\" >&2; exit 3";
            let args = json!(["-c", shell, text.replace("${", "$${")]);
            services.insert(format!("dying-{number}"), json!({ "command": "sh", "args": args }));
        }
    }
    services
}

/// What a person sees has nothing in it that deceives.
#[track_caller]
fn is_plain(what: &str, text: &str) {
    let found = text.char_indices().find(|(_, c)| *c != '\n' && is_deceptive(*c));
    if let Some((at, c)) = found {
        let around: String = text[..at].chars().rev().take(120).collect();
        let before: String = around.chars().rev().collect();
        let after: String = text[at..].chars().take(40).collect();
        panic!("`{what}` has {c:?} after {before:?} and before {after:?}");
    }
}

/// What deceives is escaped as JSON escapes it, for JSON is shown on terminals too.
#[track_caller]
fn is_json(what: &str, text: &str) {
    is_plain(what, text);
    for value in serde_json::Deserializer::from_str(text).into_iter::<Value>() {
        assert!(value.is_ok(), "`{what}` is not JSON");
    }
}

/// The cells of a CSV file, quotes taken away.
fn cells(csv: &str) -> Vec<String> {
    let mut cells = vec![String::new()];
    let mut quoted = false;
    let mut last = ',';
    for c in csv.chars() {
        match c {
            '"' if quoted || matches!(last, ',' | '\n') => quoted = !quoted,
            '"' => quoted = true,
            ',' | '\n' if !quoted => cells.push(String::new()),
            c => cells.last_mut().unwrap().push(c),
        }
        last = c;
    }
    cells
}

#[track_caller]
fn has_no_formula(what: &str, csv: &str) {
    for cell in cells(csv) {
        let formula = cell.starts_with(['=', '+', '-', '@', '\t', '\r']);
        assert!(!formula || cell.parse::<f64>().is_ok(), "`{what}` has the cell {cell:?}");
    }
}

#[test]
fn cells_are_found_behind_quotes() {
    assert_eq!(cells("a,\"b,\"\"c\",d\n=1"), ["a", "b,c", "d", "=1"]);
}

async fn ran(home: &Home, args: &[&str]) -> Ran {
    let ran = home.run(args).await;
    assert!(matches!(ran.code, Some(0 | 1)), "{args:?}: {:?}\n{}", ran.code, ran.err);
    let what = args.join(" ");
    is_plain(&format!("{what} (standard error)"), &ran.err);
    let machine = args.iter().any(|word| matches!(*word, "json" | "jsonl"));
    match machine {
        true => is_json(&what, &ran.out),
        false => is_plain(&what, &ran.out),
    }
    ran
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_a_server_says_reaches_a_terminal_or_a_cell_unescaped() {
    let server = Careless::serve(answer).await;
    let home = Home::new();
    let configuration = json!({
        "data_collection": { "log_level": "debug" },
        "monitoring": { "health_check_retries": 1, "health_check_timeout": "30s" },
        "service_monitoring": {
            "max_consecutive_failures": 1, "max_children": 8, "max_starting": 2,
        },
        "services": services(&server),
        "handlers": [{ "name": "console", "type": "console" }],
    });
    home.configure(toml::to_string(&configuration).unwrap());
    // A client's file names what it likes.
    let mut named = Map::new();
    for (number, text) in HOSTILE.iter().enumerate() {
        let url = server.url(&format!("body/{number}"));
        named.insert((*text).to_owned(), json!({ "url": format!("{url}#{number}") }));
    }
    let clients = home.write("clients.json", json!({ "mcpServers": named }).to_string());
    let clients = clients.to_str().unwrap();

    ran(&home, &["check", "--functional"]).await;
    ran(&home, &["check", "--output", "json"]).await;
    ran(&home, &["check", "--output", "jsonl"]).await;
    ran(&home, &["check", "--mcp-config", clients]).await;
    ran(&home, &["up", "--once", "--yes"]).await;
    let seen = ran(&home, &["status"]).await;
    assert!(seen.out.contains("lists-0"), "{seen}");
    ran(&home, &["status", "--output", "json"]).await;
    let tools = ran(&home, &["tools"]).await;
    assert!(tools.out.contains("[2J"), "the text itself is shown\n{tools}");
    ran(&home, &["tools", "--output", "json"]).await;
    ran(&home, &["alerts"]).await;
    ran(&home, &["alerts", "--output", "json"]).await;
    ran(&home, &["ps"]).await;
    ran(&home, &["export", "json", "--file", "-"]).await;
    ran(&home, &["export", "jsonl", "--file", "-"]).await;
    for (number, text) in HOSTILE.iter().enumerate() {
        for kind in ["body", "unauthorized", "refusing", "lists", "dying"] {
            let name = format!("{kind}-{number}");
            if kind != "dying" || !text.contains('\0') {
                ran(&home, &["explain", &name]).await;
            }
        }
        let name = format!("body-{number}");
        let csv = ran(&home, &["export", "csv", "--service", &name, "--file", "-"]).await;
        has_no_formula("export csv", &csv.out);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_a_server_says_becomes_a_header_or_markup_of_a_mail() {
    let smtpd = peer!("smtpd");
    let certificates = peer!("certificates");
    let mailbox = Mailbox::open(smtpd, &certificates, &[]).await;
    let server = Careless::serve(answer).await;
    let home = Home::new()
        .with_env("SMTP_PASSWORD", mail::PASSWORD)
        .with_env("SSL_CERT_FILE", mailbox.authority.display().to_string());
    let mut services = Map::new();
    for number in 0..HOSTILE.len() {
        for kind in ["body", "refusing"] {
            let url = server.url(&format!("{kind}/{number}"));
            services.insert(format!("{kind}-{number}"), json!({ "url": url }));
        }
    }
    let count = services.len();
    let configuration = json!({
        "monitoring": {
            "check_interval": "2s", "health_check_retries": 1, "health_check_timeout": "30s",
        },
        "service_monitoring": { "max_consecutive_failures": 1 },
        "services": services,
        "handlers": [{
            "name": "ops", "type": "email",
            "smtp": format!("smtp://{}@localhost:{}", mail::USER, mailbox.port),
            "password": { "env": "SMTP_PASSWORD" },
            "from": "mcpmon@example.com", "to": ["ops@example.com"],
        }],
    });
    home.configure(toml::to_string(&configuration).unwrap());
    let up = home.start(&["up", "--yes"]);
    until("a mail about every service", PATIENCE, || async {
        let mails = mailbox.mails();
        let named = |name: &str| {
            mails.iter().any(|mail| mail["text"].as_str().is_some_and(|text| text.contains(name)))
        };
        (0..HOSTILE.len())
            .all(|number| named(&format!("body-{number}")) && named(&format!("refusing-{number}")))
            .then_some(())
    })
    .await;
    let mails = mailbox.mails();
    println!("{} mails about {count} services", mails.len());
    let mut headers: Vec<&str> = Vec::new();
    for mail in &mails {
        for (name, value) in mail["headers"].as_object().unwrap() {
            headers.push(name);
            is_plain(name, value.as_str().unwrap());
            assert!(value.as_str().unwrap().chars().count() <= 998, "{name}");
        }
        assert_eq!(mail["rcpt_to"], json!(["ops@example.com"]));
        is_plain("the text part", &mail["text"].as_str().unwrap().replace("\r\n", "\n"));
        let html = mail["html"].as_str().unwrap();
        for tag in ["<script", "<img", "<svg", "onerror=\"", "javascript:"] {
            assert!(!html.contains(tag), "{tag} is in\n{html}");
        }
        is_plain("the HTML part", &html.replace("\r\n", "\n"));
    }
    headers.sort_unstable();
    headers.dedup();
    assert!(!headers.iter().any(|name| matches!(*name, "bcc" | "cc")), "{headers:?}");
    is_plain("the monitor's log", &(up.written(Stream::Out) + &up.written(Stream::Err)));
}
