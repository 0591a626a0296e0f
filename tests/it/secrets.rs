//! A secret reaches the one it is meant for, and nobody else: no output, no byte of the history,
//! no log.

use std::path::Path;

use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

use crate::home::Home;

const CANARY: &str = "c4n4ry-7f3a9b2e-zwitschert";
/// Its start in base64, at the offset it has behind `mon:`.
const ENCODED: &str = "YzRuNHJ5LTdmM2E5YjJlLXp3aXRzY2hlcn";

/// A server that gives back in words what it was sent, as careless servers do.
async fn echo() -> (String, tokio::task::JoinHandle<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/mcp", listener.local_addr().unwrap());
    let serving = tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut head = Vec::new();
            while !head.windows(4).any(|end| end == b"\r\n\r\n") {
                match stream.read_buf(&mut head).await {
                    Ok(1..) => {}
                    _ => break,
                }
            }
            let head = String::from_utf8_lossy(&head).into_owned();
            let token = head
                .lines()
                .find_map(|line| line.strip_prefix("authorization: "))
                .unwrap_or("(none)");
            assert!(token.contains(CANARY), "the server itself must get it: {head}");
            let body =
                json!({ "error": format!("invalid token {token}"), "sent": head }).to_string();
            let answer = format!(
                "HTTP/1.1 401 Unauthorized\r\ncontent-type: application/json\r\n\
                 www-authenticate: Bearer error_description=\"{token}\"\r\n\
                 content-length: {}\r\nconnection: close\r\n\r\n{body}",
                body.len()
            );
            let _ = stream.write_all(answer.as_bytes()).await;
        }
    });
    (url, serving)
}

fn files(folder: &Path, found: &mut Vec<std::path::PathBuf>) {
    for entry in std::fs::read_dir(folder).unwrap().flatten() {
        match entry.file_type().unwrap().is_dir() {
            true => files(&entry.path(), found),
            false => found.push(entry.path()),
        }
    }
}

#[tokio::test]
async fn a_secret_is_in_no_output_no_history_and_no_log() {
    let (url, _serving) = echo().await;
    let home = Home::new().with_env("CANARY", CANARY).with_env("BASIC", format!("mon:{CANARY}"));
    home.write("work/.env", format!("FROM_FILE={CANARY}\n"));
    home.configure(format!(
        r#"
[data_collection]
log_level = "trace"

[services.web]
url = "{url}"
headers = {{ Authorization = "Bearer ${{CANARY}}" }}

[services.query]
url = "{url}?key=${{CANARY}}"
headers = {{ Authorization = "Bearer ${{CANARY}}" }}

[services.loud]
command = "sh"
args = ["-c", "echo \"my token is $TOKEN and $FROM_FILE\" >&2; echo \"$TOKEN\"; printf '%s' \"$BASIC\" | base64 >&2; exit 3"]
env = {{ TOKEN = "${{CANARY}}", BASIC = "${{BASIC}}" }}
env_file = ".env"

[services.argument]
command = "sh"
args = ["-c", "echo bad key $0 >&2; exit 3", "${{CANARY}}"]

[[handlers]]
name = "ops"
type = "email"
smtp = "smtp://mon@localhost:9"
password = {{ env = "CANARY" }}
from = "mcpmon@example.com"
to = ["ops@example.com"]

[[handlers]]
name = "console"
type = "console"
"#
    ));
    let mut said = Vec::new();
    for args in [
        ["check"].as_slice(),
        &["check", "--output", "json"],
        &["check", "--output", "jsonl"],
        &["up", "--once"],
        &["up", "--once"],
        &["status"],
        &["status", "--output", "json"],
        &["alerts"],
        &["alerts", "--output", "json"],
        &["tools", "--output", "json"],
        &["export", "json", "--file", "-"],
        &["export", "jsonl", "--file", "-"],
        &["export", "csv", "--service", "web", "--file", "-"],
        &["config", "check"],
        &["config", "show"],
        &["db", "info"],
        &["paths"],
    ] {
        let ran = home.run(args).await;
        assert!(matches!(ran.code, Some(0 | 1)), "{ran}");
        said.push((args.join(" "), format!("{}{}", ran.out, ran.err).into_bytes()));
    }
    let mut written = Vec::new();
    files(&home.path().join(".local"), &mut written);
    assert!(!written.is_empty());
    for path in written {
        said.push((path.display().to_string(), std::fs::read(&path).unwrap()));
    }
    for (what, bytes) in said {
        for needle in [CANARY, ENCODED] {
            let found = bytes.windows(needle.len()).position(|part| part == needle.as_bytes());
            if let Some(at) = found {
                let around = &bytes[at.saturating_sub(200)..(at + 60).min(bytes.len())];
                panic!("`{what}` has the secret: {}", String::from_utf8_lossy(around));
            }
        }
    }
}
