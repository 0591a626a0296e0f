//! A secret reaches the one it is meant for, and nobody else: no output, no byte of the history, no
//! log and no mail has it, however it was written by the server that gave it back.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use mcpmon_testkit::Stream;
use serde_json::{Value, json};

use crate::careless::{Answer, Asked, Careless};
use crate::home::{Home, until};
use crate::mail::{self, Mailbox};
use crate::peers::{self, Peer};

/// Two secrets: one of a token's characters, and one whose encodings all differ.
const CANARIES: [&str; 2] = ["c4n4ry-7f3a9b2e-zwitschert", "tw1tt3r/9+q?\"&<\\>'~%41;k4n4r1e=="];

/// Standard base64, without padding.
fn base64(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut out = String::new();
    for chunk in bytes.chunks(3) {
        let byte = |at: usize| u32::from(chunk.get(at).copied().unwrap_or(0));
        let bits = byte(0) << 16 | byte(1) << 8 | byte(2);
        for place in 0..=chunk.len() {
            let index = usize::try_from(bits >> (18 - 6 * place) & 63).unwrap();
            out.push(char::from(ALPHABET[index]));
        }
    }
    out
}

fn percent(text: &str) -> String {
    text.bytes().fold(String::new(), |mut out, byte| {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => {
                out.push(char::from(byte));
            }
            _ => write!(out, "%{byte:02X}").unwrap(),
        }
        out
    })
}

/// A secret as servers, proxies and libraries write it into their texts.
fn forms(canary: &str) -> Vec<String> {
    let json = json!(canary).to_string();
    let url_safe = |text: String| text.replace('+', "-").replace('/', "_");
    let behind = |before: &str| base64(format!("{before}{canary} and more").as_bytes());
    vec![
        canary.to_owned(),
        json[1..json.len() - 1].to_owned(),
        json[1..json.len() - 1].replace('/', "\\/"),
        percent(canary),
        percent(canary).to_lowercase(),
        behind(""),
        behind("u"),
        behind("us"),
        url_safe(behind("u:")),
        base64(canary.as_bytes()),
        canary.bytes().map(|byte| format!("{byte:02x}")).collect(),
        canary.bytes().map(|byte| format!("{byte:02X}")).collect(),
        mcpmon_core::text::for_html(canary),
    ]
}

/// What must be found nowhere: every form, cut down to what does not hang on its neighbours, and
/// both halves of the secret as it is, which is what a cut at a cap would leave.
fn needles() -> Vec<(&'static str, String)> {
    let mut needles = Vec::new();
    for canary in CANARIES {
        let (first, second) = canary.split_at(canary.len() / 2);
        needles.push(("first half", first.to_owned()));
        needles.push(("second half", second.to_owned()));
        for form in forms(canary) {
            let ascii = form.is_ascii().then_some(form).unwrap();
            let middle = &ascii[ascii.len() / 6..ascii.len() / 2];
            needles.push(("form", middle.to_owned()));
        }
    }
    needles.sort();
    needles.dedup();
    needles
}

/// Everything a server knows of our secrets, as it would put it.
fn confession() -> String {
    let all: Vec<String> = CANARIES.iter().flat_map(|canary| forms(canary)).collect();
    all.join(" | ")
}

fn answer(asked: &Asked) -> Answer {
    let said = asked.header("authorization").unwrap_or_default();
    assert!(said.ends_with(CANARIES[0]), "the server itself must get it: {}", asked.head);
    assert_eq!(asked.header("x-key"), Some(CANARIES[1]));
    let confession = confession();
    let path = asked.head.split([' ', '/', '?']).nth(2).unwrap_or_default();
    match (path, asked.method()) {
        ("unauthorized", _) => Answer {
            headers: format!(
                "content-type: application/json\r\nwww-authenticate: Bearer realm=\"{said}\", \
                 error_description=\"{confession}\"\r\n"
            ),
            ..Answer::text(
                "401 Unauthorized",
                json!({ "error": confession, "sent": asked.head }).to_string(),
            )
        },
        ("broken", _) => Answer::text("500 Internal Server Error", confession.as_str()),
        ("moved", _) => Answer {
            headers: format!("location: /elsewhere?key={}\r\n", percent(CANARIES[1])),
            ..Answer::text("302 Found", confession.as_str())
        },
        ("words", _) => Answer::text("200 OK", confession.as_str()),
        ("refusing", _) => asked.error(-32_603, &confession, &json!({ "why": confession })),
        ("wordy", _) => {
            // The cap of what is kept falls into one of them, wherever it is.
            asked.error(-32_603, &format!("{} ", CANARIES[0]).repeat(1_000), &Value::Null)
        }
        (_, "initialize") => asked.result(&json!({
            "protocolVersion": "2025-06-18",
            "capabilities": { "tools": {}, "prompts": {}, "resources": {} },
            "serverInfo": { "name": confession, "title": confession, "version": confession },
            "instructions": confession,
        })),
        (_, "ping") => asked.result(&json!({})),
        (_, "tools/list") => asked.result(&json!({ "tools": [
            { "name": confession, "title": confession, "description": confession,
              "inputSchema": { "type": "object", "description": confession } },
            { "name": "who", "description": confession, "inputSchema": { "type": "object" },
              "annotations": { "readOnlyHint": true } },
        ]})),
        (_, "prompts/list") => asked.result(&json!({ "prompts": [{ "name": confession }] })),
        (_, "resources/list") => {
            let uri = format!("file:///{}", percent(&confession));
            asked.result(&json!({ "resources": [{ "uri": uri, "name": confession }] }))
        }
        (_, "tools/call") => asked.result(&json!({
            "isError": true, "content": [{ "type": "text", "text": confession }],
            "structuredContent": { "said": confession },
        })),
        (_, method) if method.starts_with("notifications/") => Answer::text("202 Accepted", ""),
        _ => asked.error(-32_601, &confession, &Value::Null),
    }
}

/// Answers as a server does; what it says stands in files beside it.
const STDIO_SERVER: &str = r#"cat "$0.said" >&2
while read -r line; do id=${line#*\"id\":}; id=${id%%,*}; id=${id%\}}
case "$line" in
*'"initialize"'*) printf '{"jsonrpc":"2.0","id":%s,"result":%s}\n' "$id" "$(cat "$0.opening")";;
*'"tools/list"'*) cat "$0.said"; printf '{"jsonrpc":"2.0","id":%s,"result":%s}\n' "$id" "$(cat "$0.tools")";;
*'"ping"'*) printf '{"jsonrpc":"2.0","id":%s,"result":{}}\n' "$id";;
esac; done
"#;

/// A stdio server that works, and says in all it says what it was given.
fn write_stdio_server(home: &Home) -> PathBuf {
    let said = confession();
    home.write("work/server.said", format!("{said}\n"));
    let opening = json!({
        "protocolVersion": "2025-06-18", "capabilities": { "tools": {} },
        "serverInfo": { "name": said, "version": said }, "instructions": said,
    });
    home.write("work/server.opening", opening.to_string());
    let tool = json!({ "name": said, "description": said, "inputSchema": { "type": "object" } });
    home.write("work/server.tools", json!({ "tools": [tool] }).to_string());
    home.write("work/server", STDIO_SERVER)
}

fn configuration(home: &Home, server: &Careless, mailbox: Option<&Mailbox>) -> String {
    let headers = json!({ "Authorization": "Bearer ${CANARY}", "X-Key": { "env": "SECOND" } });
    let mut services = serde_json::Map::new();
    for path in ["unauthorized", "broken", "moved", "words", "refusing", "wordy", "working"] {
        let mut entry = json!({ "url": server.url(path), "headers": headers });
        if path == "working" {
            entry["functional"] = json!([{ "tool": "who", "expect": { "contains": "nothing" } }]);
        }
        services.insert(path.to_owned(), entry);
    }
    let query = format!("{}?key=${{CANARY}}", server.url("broken"));
    services.insert("query".to_owned(), json!({ "url": query, "headers": headers }));
    let variables = json!({ "TOKEN": "${CANARY}", "SECOND": { "env": "SECOND" } });
    let sh = |args: Value| json!({ "command": "sh", "args": args, "env": variables, "env_file": "secrets.env" });
    let path = write_stdio_server(home).display().to_string();
    services.insert("talking".to_owned(), sh(json!([path])));
    let loud = format!(
        "cat '{path}.said' >&2; echo \"my token is $TOKEN and $FROM_FILE\" >&2; echo \"$TOKEN\"; exit 3"
    );
    services.insert("loud".to_owned(), sh(json!(["-c", loud])));
    // Longer than any line that is kept, so that a cut falls into the secret somewhere.
    let long =
        "i=0; while [ $i -lt 3000 ]; do printf '%s ' \"$TOKEN\" >&2; i=$((i+1)); done; exit 3";
    services.insert("long".to_owned(), sh(json!(["-c", long])));
    services.insert(
        "argument".to_owned(),
        sh(json!(["-c", "echo bad key $0 >&2; exit 3", "${CANARY}"])),
    );
    let mut handlers = vec![json!({ "name": "console", "type": "console" })];
    if let Some(mailbox) = mailbox {
        handlers.push(json!({
            "name": "ops", "type": "email",
            "smtp": format!("smtp://{}@localhost:{}", mail::USER, mailbox.port),
            "password": { "env": "SMTP_PASSWORD" },
            "from": "mcpmon@example.com", "to": ["ops@example.com"],
        }));
    }
    toml::to_string(&json!({
        "data_collection": { "log_level": "trace" },
        "monitoring": {
            "check_interval": "2s", "health_check_retries": 1, "health_check_timeout": "30s",
        },
        "service_monitoring": { "max_consecutive_failures": 1 },
        "services": services,
        "handlers": handlers,
    }))
    .unwrap()
}

fn files(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).unwrap().flatten() {
        match entry.file_type().unwrap().is_dir() {
            true => files(&entry.path(), found),
            false => found.push(entry.path()),
        }
    }
}

/// What was said where.
#[derive(Default)]
struct Said(Vec<(String, Vec<u8>)>);

impl Said {
    async fn run(&mut self, home: &Home, args: &[&str]) {
        let ran = home.run(args).await;
        assert!(matches!(ran.code, Some(0 | 1)), "{args:?}: {:?}", ran.code);
        self.0.push((args.join(" "), format!("{}{}", ran.out, ran.err).into_bytes()));
    }

    /// Every file of the history, the write-ahead log too.
    fn take_files(&mut self, home: &Home, when: &str) {
        let mut written = Vec::new();
        files(&home.path().join(".local"), &mut written);
        assert!(!written.is_empty());
        for path in written {
            // What SQLite keeps for a moment may be gone again.
            let bytes = std::fs::read(&path).unwrap_or_default();
            self.0.push((format!("{} {when}", path.display()), bytes));
        }
    }

    fn has_no_secret(&self) {
        let mut found = Vec::new();
        for (what, bytes) in &self.0 {
            for (kind, needle) in needles() {
                let at = bytes.windows(needle.len()).position(|part| part == needle.as_bytes());
                if let Some(at) = at {
                    let around = &bytes[at.saturating_sub(120)..(at + 60).min(bytes.len())];
                    let around = String::from_utf8_lossy(around).into_owned();
                    found.push(format!("`{what}` has the {kind} {needle:?}: {around}"));
                }
            }
        }
        assert!(found.is_empty(), "{} finds\n{}", found.len(), found.join("\n"));
    }
}

fn home() -> Home {
    let home = Home::new()
        .with_env("CANARY", CANARIES[0])
        .with_env("SECOND", CANARIES[1])
        .with_env("SMTP_PASSWORD", mail::PASSWORD);
    home.write("work/secrets.env", format!("FROM_FILE={}\n", CANARIES[0]));
    home
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_secret_is_in_no_output_no_history_and_no_log() {
    let server = Careless::serve(answer).await;
    let home = home();
    home.configure(configuration(&home, &server, None));
    let mut said = Said::default();
    for args in [
        ["check", "--functional"].as_slice(),
        &["check", "--output", "json"],
        &["check", "--output", "jsonl"],
        &["up", "--once"],
        &["up", "--once"],
        &["status"],
        &["status", "--output", "json"],
        &["alerts"],
        &["alerts", "--output", "json"],
        &["tools"],
        &["tools", "--output", "json"],
        &["ps"],
        &["ps", "--output", "json"],
        &["export", "json", "--file", "-"],
        &["export", "jsonl", "--file", "-"],
        &["config", "check"],
        &["config", "show"],
        &["db", "info"],
        &["paths"],
    ] {
        said.run(&home, args).await;
    }
    for service in [
        "unauthorized",
        "broken",
        "moved",
        "words",
        "refusing",
        "wordy",
        "working",
        "query",
        "loud",
    ] {
        said.run(&home, &["explain", service]).await;
        said.run(&home, &["explain", service, "--output", "json"]).await;
        said.run(&home, &["export", "csv", "--service", service, "--file", "-"]).await;
    }
    said.take_files(&home, "at the end");
    said.has_no_secret();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_secret_is_in_nothing_a_running_monitor_writes_or_sends() {
    let server = Careless::serve(answer).await;
    let mailbox = match (peers::find("smtpd"), peers::find("certificates")) {
        (Ok(smtpd), Ok(certificates)) => Some(open(smtpd, &certificates).await),
        _ => None,
    };
    let mut home = home().with_env("RUST_LOG", "trace");
    if let Some((_, authority)) = &mailbox {
        home = home.with_env("SSL_CERT_FILE", authority);
    }
    let mailbox = mailbox.map(|(mailbox, _)| mailbox);
    home.configure(configuration(&home, &server, mailbox.as_ref()));
    let mut up = home.start(&["up", "--yes"]);
    until("word of every service that fails", Duration::from_secs(120), || async {
        let told = match &mailbox {
            Some(mailbox) => json!(mailbox.mails()).to_string(),
            None => up.written(Stream::Out) + &up.written(Stream::Err),
        };
        let failing = ["unauthorized", "broken", "moved", "words", "refusing", "loud", "argument"];
        failing.iter().all(|name| told.contains(name)).then_some(())
    })
    .await;
    until("the history of all of them", Duration::from_secs(60), || async {
        let status = home.status().await?;
        status["services"].as_array()?.iter().all(|one| one["status"] != "unknown").then_some(())
    })
    .await;
    let mut said = Said::default();
    // While it runs, the latest is in the write-ahead log.
    said.take_files(&home, "while it runs");
    assert!(said.0.iter().any(|(what, _)| what.contains("-wal")), "there is a write-ahead log");
    up.signal(rustix::process::Signal::TERM).unwrap();
    up.wait().await.unwrap();
    said.take_files(&home, "after the end");
    said.0.push(("up, standard output".into(), up.written(Stream::Out).into_bytes()));
    said.0.push(("up, standard error".into(), up.written(Stream::Err).into_bytes()));
    for mail in mailbox.iter().flat_map(Mailbox::mails) {
        said.0.push(("a mail".into(), mail.to_string().into_bytes()));
        for part in ["raw", "text", "html"] {
            let text = mail[part].as_str().unwrap_or_default();
            said.0.push((format!("a mail, {part}"), text.as_bytes().to_vec()));
        }
    }
    said.has_no_secret();
}

async fn open(smtpd: Peer, certificates: &Peer) -> (Mailbox, String) {
    let mailbox = Mailbox::open(smtpd, certificates, &[]).await;
    let authority = mailbox.authority.display().to_string();
    (mailbox, authority)
}
