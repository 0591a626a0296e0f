//! Every handler this crate can make keeps the promises of a handler, towards a far side on a
//! socket of its own. What can be configured is what is put through them: a kind that is missing
//! here fails the test.
#![cfg(all(unix, feature = "command", feature = "email", feature = "http"))]

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};

use futures_util::future::join_all;
use mcpmon_alert::{ConsoleHandler, ConsoleStyle, HandlerRegistry};
use mcpmon_core::settings::HandlerSettings;
use mcpmon_core::{Handler, Secret};
use mcpmon_testkit::{handler_conformance, handler_faults, handler_messages};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpListener, TcpStream};

const SECRET: &str = "c4n4ry-hunter22";

/// The kinds that reach their far side over TCP, each configured for one at this address.
fn over_tcp(address: SocketAddr) -> Vec<HandlerSettings> {
    let url = |path: &str| format!("http://{address}{path}");
    let of = |kind: &str| HandlerSettings::new("promise", kind).with("timeout", "5s");
    vec![
        of("alertmanager").with("url", url("")).with("token", SECRET),
        of("discord").with("url", url(&format!("/api/webhooks/1/{SECRET}"))),
        of("email")
            .with("smtp", format!("smtp://{address}"))
            .with("starttls", "none")
            .with("user", "mcpmon")
            .with("password", SECRET)
            .with("from", "mcpmon@example.com")
            .with("to", "ops@example.com"),
        of("ntfy").with("url", url("")).with("topic", "alerts").with("token", SECRET),
        of("pagerduty").with("url", url("")).with("routing_key", SECRET),
        of("slack").with("url", url(&format!("/services/T/{SECRET}"))),
        of("teams").with("url", url(&format!("/workflows/{SECRET}"))),
        of("telegram").with("url", url("")).with("token", SECRET).with("chat", 7),
        of("webhook").with("url", url("/hook")).with("token", SECRET).with("secret", SECRET),
    ]
}

fn registry() -> HandlerRegistry {
    let mut registry = HandlerRegistry::new();
    registry.register("console", ConsoleHandler::factory(ConsoleStyle::default(), std::io::sink));
    registry
}

fn built(settings: &HandlerSettings) -> Box<dyn Handler> {
    registry().build(settings).expect("good settings")
}

#[test]
fn no_kind_is_left_out() {
    let nowhere: SocketAddr = "127.0.0.1:9".parse().unwrap();
    let mut here: BTreeSet<String> =
        over_tcp(nowhere).into_iter().map(|settings| settings.kind).collect();
    here.extend(["command".to_owned(), "console".to_owned()]);
    assert_eq!(here, registry().kinds().map(str::to_owned).collect());
}

/// A far side that takes everything, over HTTP or SMTP, and keeps what it was told.
#[derive(Clone, Default)]
struct FarSide {
    heard: Arc<Mutex<String>>,
}

impl FarSide {
    async fn open() -> (SocketAddr, Self) {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("an address");
        let far = Self::default();
        let taking = far.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let far = taking.clone();
                tokio::spawn(async move { far.converse(stream).await });
            }
        });
        (address, far)
    }

    fn hear(&self, text: &str) {
        self.heard.lock().unwrap_or_else(PoisonError::into_inner).push_str(text);
    }

    /// What was said since this was last asked.
    fn taken(&self) -> String {
        std::mem::take(&mut *self.heard.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Who speaks first wants HTTP; who waits wants to be greeted.
    async fn converse(&self, stream: TcpStream) -> std::io::Result<()> {
        let mut first = [0];
        let wait = std::time::Duration::from_millis(50);
        match tokio::time::timeout(wait, stream.peek(&mut first)).await {
            Ok(_) => self.take_requests(BufReader::new(stream)).await,
            Err(_) => self.take_mail(BufReader::new(stream)).await,
        }
    }

    async fn take_requests(&self, mut stream: BufReader<TcpStream>) -> std::io::Result<()> {
        loop {
            let (mut length, mut path) = (0, String::new());
            if stream.read_line(&mut path).await? == 0 {
                return Ok(());
            }
            loop {
                let mut header = String::new();
                stream.read_line(&mut header).await?;
                match header.trim_end().to_lowercase().split_once(": ") {
                    Some(("content-length", value)) => length = value.parse().unwrap_or(0),
                    // What ntfy says stands in headers.
                    Some((name, value)) if name.starts_with("x-") || name == "title" => {
                        self.hear(&format!("{value}\n"));
                    }
                    Some(_) => {}
                    None => break,
                }
            }
            let mut body = vec![0; length];
            stream.read_exact(&mut body).await?;
            self.hear(&String::from_utf8_lossy(&body));
            let answer = match path.contains("/services/") {
                true => "ok",
                false => {
                    r#"{"ok":true,"result":{"message_id":7},"id":"7","status":"success","dedup_key":"7"}"#
                }
            };
            let head = format!("HTTP/1.1 200 ok\r\ncontent-length: {}\r\n\r\n", answer.len());
            stream.write_all(format!("{head}{answer}").as_bytes()).await?;
        }
    }

    async fn take_mail(&self, mut stream: BufReader<TcpStream>) -> std::io::Result<()> {
        stream.write_all(b"220 mail.test\r\n").await?;
        let (mut is_mail, mut mail, mut line) = (false, String::new(), String::new());
        loop {
            line.clear();
            if stream.read_line(&mut line).await? == 0 {
                return Ok(());
            }
            if is_mail && line != ".\r\n" {
                mail.push_str(&line);
                continue;
            }
            let verb = line.trim_end().split([' ', ':']).next().unwrap_or_default();
            let answer = match verb {
                "EHLO" => "250-mail.test\r\n250 AUTH PLAIN",
                "AUTH" => "235 welcome",
                "DATA" => "354 go on",
                "QUIT" => "221 bye",
                _ => "250 queued as 42",
            };
            if verb == "." {
                self.hear(&std::mem::take(&mut mail).replace("=\r\n", ""));
            }
            is_mail = verb == "DATA";
            stream.write_all(format!("{answer}\r\n").as_bytes()).await?;
        }
    }
}

#[tokio::test]
async fn every_kind_keeps_the_promises_of_a_handler() {
    let (address, _far) = FarSide::open().await;
    let nowhere = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let all = over_tcp(address).into_iter().chain(over_tcp(nowhere));
    let kept = all.map(async |settings| handler_conformance(&*built(&settings)).await);
    join_all(kept).await;
}

#[tokio::test]
async fn every_kind_says_what_happened() {
    let (address, far) = FarSide::open().await;
    for settings in over_tcp(address) {
        far.taken();
        handler_messages(&*built(&settings), async || far.taken()).await;
    }
}

#[tokio::test]
async fn no_kind_is_undone_by_a_far_side_that_misbehaves_or_tells_its_secret() {
    let nowhere: SocketAddr = "127.0.0.1:9".parse().unwrap();
    let withstood = over_tcp(nowhere).into_iter().map(async |HandlerSettings { kind, .. }| {
        let make = |address| {
            let all = over_tcp(address);
            built(all.iter().find(|settings| settings.kind == kind).expect("one of each kind"))
        };
        handler_faults(&Secret::new(SECRET), make).await;
    });
    join_all(withstood).await;
}

#[tokio::test]
async fn a_command_keeps_them_too() {
    let folder = std::env::temp_dir().join(format!("mcpmon-promises-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let heard = folder.join("heard");
    let script = format!("cat >> '{}'; echo took it", heard.display());
    let settings = HandlerSettings::new("script", "command")
        .with("command", vec!["sh".to_owned(), "-c".to_owned(), script])
        .with("timeout", "10s");
    let handler = built(&settings);
    handler_conformance(&*handler).await;
    let taken = || {
        let text = std::fs::read_to_string(&heard).unwrap_or_default();
        std::fs::remove_file(&heard).ok();
        text
    };
    taken();
    handler_messages(&*handler, async || taken()).await;
    std::fs::remove_dir_all(&folder).unwrap();
}

#[tokio::test]
async fn the_console_keeps_them_too() {
    #[derive(Clone, Default)]
    struct Paper(Arc<Mutex<Vec<u8>>>);
    impl std::io::Write for Paper {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().expect("nobody panicked with it").extend_from_slice(bytes);
            Ok(bytes.len())
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }
    let paper = Paper::default();
    let handler = ConsoleHandler::new(paper.clone());
    let taken = async || {
        let text = std::mem::take(&mut *paper.0.lock().unwrap());
        String::from_utf8(text).unwrap()
    };
    handler_messages(&handler, taken).await;
    handler_conformance(&handler).await;
}
