//! From a server that dies to a mail in a mailbox, and back: once each, in time, across restarts.

use std::time::Duration;

use mcpmon_testkit::{ChildGuard, Stream};
use rustix::process::Signal;
use serde_json::Value;
use tokio::process::Command;

use crate::home::{Home, service, until};
use crate::mail::{self, Mailbox};
use crate::peers::peer;

const INTERVAL: Duration = Duration::from_secs(2);
/// The promise: from the moment a service dies to the moment somebody knows.
const TOLD_WITHIN: Duration = Duration::from_secs(3 * INTERVAL.as_secs() + 10);
const PATIENCE: Duration = Duration::from_secs(60);

/// A demo server that was started by hand.
struct Demo {
    child: ChildGuard,
    address: String,
}

impl Demo {
    async fn start(address: &str) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_mcpmon"));
        command.args(["demo-server", "--http", address]);
        let child = ChildGuard::spawn(command).unwrap();
        let line = child.line(Stream::Err, "listening on ").await;
        let line = line.unwrap_or_else(|| panic!("{}", child.written(Stream::Err)));
        let url = line.rsplit(' ').next().unwrap();
        let address = url.trim_start_matches("http://").split('/').next().unwrap().to_owned();
        Self { child, address }
    }

    async fn kill(&mut self) {
        self.child.kill().await.unwrap();
    }
}

fn configuration(address: &str, mailbox: &Mailbox) -> String {
    format!(
        r#"
[monitoring]
check_interval = "2s"

[performance_monitoring]      # a loaded machine must not add alerts of its own
enabled = false
response_time_threshold = "30s"

[services.demo]
url = "http://{address}/mcp"

[[handlers]]
name = "console"
type = "console"

[[handlers]]
name = "ops"
type = "email"
smtp = "smtp://{user}@localhost:{port}"
password = {{ env = "SMTP_PASSWORD" }}
from = "mcpmon@example.com"
to = ["ops@example.com"]
"#,
        user = mail::USER,
        port = mailbox.port,
    )
}

async fn until_status(home: &Home, wanted: &str) -> Value {
    until(&format!("the service to be {wanted}"), PATIENCE, || async {
        let status = home.status().await?;
        (status["services"][0]["status"] == wanted).then_some(status)
    })
    .await
}

/// Lines of the console handler about this rule.
fn told(up: &ChildGuard) -> Vec<String> {
    let written = up.written(Stream::Out) + &up.written(Stream::Err);
    written
        .lines()
        .filter(|line| line.contains("] ERROR: ") || line.contains("] RESOLVED: "))
        .map(str::to_owned)
        .collect()
}

fn subject(mail: &Value) -> &str {
    mail["headers"]["subject"].as_str().unwrap_or_default()
}

#[tokio::test]
async fn a_death_and_a_recovery_are_told_once_each_on_console_and_by_mail() {
    let smtpd = peer!("smtpd");
    let certificates = peer!("certificates");
    let mailbox = Mailbox::open(smtpd, &certificates, &[]).await;
    let home = Home::new()
        .with_env("SMTP_PASSWORD", mail::PASSWORD)
        .with_env("SSL_CERT_FILE", mailbox.authority.display().to_string());
    let mut demo = Demo::start("127.0.0.1:0").await;
    let address = demo.address.clone();
    home.configure(configuration(&address, &mailbox));

    let mut up = home.start(&["up", "--interval", "2s"]);
    until_status(&home, "running").await;
    assert_eq!(mailbox.mails().len(), 0);

    demo.kill().await;
    let died = tokio::time::Instant::now();
    let mail = mailbox.wait_for(1, TOLD_WITHIN).await;
    until("a line on the console", TOLD_WITHIN, || async { told(&up).first().cloned() }).await;
    let took = died.elapsed();
    assert!(took <= TOLD_WITHIN, "{took:?}");
    println!("told {:.1} s after the server died (interval {INTERVAL:?})", took.as_secs_f64());

    assert_eq!(mail["user"], mail::USER, "{mail:#}");
    assert_eq!(mail["tls"], true, "sent after STARTTLS");
    assert_eq!(mail["rcpt_to"][0], "ops@example.com");
    assert!(subject(&mail).contains("demo"), "{mail:#}");
    for part in ["text", "html"] {
        let text = mail[part].as_str().unwrap();
        assert!(text.contains("connection_refused"), "{text}");
    }

    // A restart in the middle repeats nothing.
    up.signal(Signal::TERM).unwrap();
    assert_eq!(up.wait().await.unwrap().code(), Some(0));
    assert_eq!(told(&up).len(), 1, "{:?}", told(&up));
    let up = home.start(&["up", "--interval", "2s"]);
    let checks = |status: &Value| service(status, "demo")["metrics"]["total_checks"].as_u64();
    let before = checks(&home.status().await.unwrap());
    until("checks after the restart", PATIENCE, || async {
        (checks(&home.status().await?) >= before.map(|before| before + 3)).then_some(())
    })
    .await;
    assert_eq!(
        mailbox.mails().len(),
        1,
        "{:?}",
        mailbox.mails().iter().map(subject).collect::<Vec<_>>()
    );
    assert_eq!(told(&up), Vec::<String>::new());

    let _demo = Demo::start(&address).await;
    let back = tokio::time::Instant::now();
    let mail = mailbox.wait_for(2, TOLD_WITHIN).await;
    println!("told {:.1} s after it was back", back.elapsed().as_secs_f64());
    assert!(subject(&mail).to_lowercase().contains("resolved"), "{mail:#}");
    until_status(&home, "running").await;
    let before = checks(&home.status().await.unwrap());
    until("some checks more", PATIENCE, || async {
        (checks(&home.status().await?) >= before.map(|before| before + 3)).then_some(())
    })
    .await;
    assert_eq!(
        mailbox.mails().len(),
        2,
        "{:?}",
        mailbox.mails().iter().map(subject).collect::<Vec<_>>()
    );
    assert_eq!(told(&up).len(), 1, "{:?}", told(&up));

    let alerts = home.run(&["alerts", "--output", "json"]).await.expect(0).json();
    assert_eq!(alerts["schema"], "mcpmon/alerts/v1");
    assert_eq!(alerts["alerts"].as_array().map(Vec::len), Some(1), "{alerts:#}");
    let alert = &alerts["alerts"][0];
    assert_eq!(
        (&alert["rule_name"], &alert["state"]),
        (&"service_down".into(), &"resolved".into())
    );
    assert_eq!(alert["schema"], "mcpmon/alert/v1");
    assert_eq!(alert["metrics"]["consecutive_failures"].as_u64(), Some(3), "{alert:#}");
}

#[tokio::test]
async fn a_mail_server_that_says_later_gets_the_mail_later_and_once() {
    let smtpd = peer!("smtpd");
    let certificates = peer!("certificates");
    let mailbox = Mailbox::open(smtpd, &certificates, &["--defer", "1"]).await;
    let home = Home::new()
        .with_env("SMTP_PASSWORD", mail::PASSWORD)
        .with_env("SSL_CERT_FILE", mailbox.authority.display().to_string());
    home.configure(configuration("127.0.0.1:9", &mailbox));
    let _up = home.start(&["up", "--interval", "1s"]);
    let mail = mailbox.wait_for(1, PATIENCE).await;
    assert!(subject(&mail).contains("demo"), "{mail:#}");
    assert_eq!(mailbox.mails().len(), 1);
}

#[tokio::test]
async fn a_handler_that_fails_stops_no_other_and_is_reported() {
    let home = Home::new();
    home.configure(
        r#"
[services.demo]
url = "http://127.0.0.1:9/mcp"
[[handlers]]
name = "ops"
type = "email"
smtp = "smtp://localhost:9"
from = "mcpmon@example.com"
to = ["ops@example.com"]
[[handlers]]
name = "console"
type = "console"
"#,
    );
    let up = home.start(&["up", "--interval", "1s"]);
    until("a line on the console", PATIENCE, || async { told(&up).first().cloned() }).await;
    until("the failure in the report", PATIENCE, || async {
        let status = home.status().await?;
        (status["monitor"]["delivery_failures_total"]["ops"].as_u64() > Some(0)).then_some(())
    })
    .await;
}

#[tokio::test]
async fn without_any_handler_the_console_is_told() {
    let home = Home::new();
    home.configure("[services.demo]\nurl = \"http://127.0.0.1:9/mcp\"\n");
    let up = home.start(&["up", "--interval", "1s"]);
    let line = until("a line", PATIENCE, || async { told(&up).first().cloned() }).await;
    let (icon, rest) = line.split_once(' ').unwrap();
    assert_eq!(icon, "❌", "{line}");
    let (time, rest) = rest.strip_prefix('[').and_then(|rest| rest.split_once("] ")).unwrap();
    assert!(time.len() == 19 && time.as_bytes()[10] == b' ', "{line}");
    assert!(rest.starts_with("ERROR: ") && rest.contains("demo"), "{line}");
}
