//! A far side that takes web hooks, and answers as a test wants.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::Value;
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;
use tokio::time::Instant;

use super::far_sides::{News, Told};
use super::stage::of_handler;
use crate::careless::{Asked, Careless};

/// Longer than any test.
const FOR_EVER: Duration = Duration::from_secs(3_600);

/// What it does with a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Says {
    /// Takes it.
    Well,
    /// Answers with this status and these header lines, and takes nothing.
    Status(&'static str, String),
    /// Never answers, and takes nothing.
    Nothing,
    /// Ends the connection without an answer, and takes nothing.
    HangsUp,
    /// Takes it, and never says so.
    TakesInSilence,
}

impl Says {
    pub(super) fn broken() -> Self {
        Self::Status("500 Internal Server Error", String::new())
    }

    pub(super) fn busy(seconds: u64) -> Self {
        Self::Status("429 Too Many Requests", format!("retry-after: {seconds}\r\n"))
    }

    pub(super) fn moved(to: &str) -> Self {
        Self::Status("307 Temporary Redirect", format!("location: {to}\r\n"))
    }
}

#[derive(Debug, Default)]
struct State {
    /// What it says to the next requests; after them, `otherwise`.
    next: VecDeque<Says>,
    otherwise: Option<Says>,
    attempts: Vec<Attempt>,
    told: Vec<Told>,
}

/// One request, taken or not.
#[derive(Debug, Clone)]
pub(super) struct Attempt {
    pub(super) at: Instant,
    /// `Idempotency-Key`.
    pub(super) key: String,
    pub(super) body: Value,
}

/// The running server.
pub(super) struct Hook {
    server: Careless,
    state: Arc<Mutex<State>>,
}

impl Hook {
    /// Says these things first, one to each request, and takes everything after.
    pub(super) async fn open(first: &[Says]) -> Self {
        let state = Arc::new(Mutex::new(State {
            next: first.iter().cloned().collect(),
            ..State::default()
        }));
        let shared = Arc::clone(&state);
        let server = Careless::accept(move |stream| converse(stream, Arc::clone(&shared))).await;
        Self { server, state }
    }

    pub(super) fn url(&self) -> String {
        self.server.url("hook")
    }

    /// From now on.
    pub(super) fn says(&self, says: Says) {
        let mut state = self.state.lock().unwrap();
        state.next.clear();
        state.otherwise = Some(says);
    }

    /// Everything that was asked of it.
    pub(super) fn attempts(&self) -> Vec<Attempt> {
        self.state.lock().unwrap().attempts.clone()
    }

    /// Everything it took.
    pub(super) fn told(&self) -> Vec<Told> {
        self.state.lock().unwrap().told.clone()
    }
}

async fn converse(mut stream: TcpStream, state: Arc<Mutex<State>>) {
    let Some(asked) = Asked::read(&mut stream).await else { return };
    let says = {
        let mut state = state.lock().unwrap();
        let says = state.next.pop_front().or_else(|| state.otherwise.clone());
        let says = says.unwrap_or(Says::Well);
        let key = asked.header("idempotency-key").unwrap_or_default().to_owned();
        let at = Instant::now();
        if matches!(says, Says::Well | Says::TakesInSilence) {
            state.told.extend(read(&asked.message, at, &key));
        }
        state.attempts.push(Attempt { at, key, body: asked.message });
        says
    };
    let (status, headers) = match says {
        Says::Well => ("200 OK", String::new()),
        Says::Status(status, headers) => (status, headers),
        Says::HangsUp => return,
        Says::Nothing | Says::TakesInSilence => return tokio::time::sleep(FOR_EVER).await,
    };
    let body = format!("the far side said {status}");
    let length = body.len();
    let answer = format!(
        "HTTP/1.1 {status}\r\n{headers}content-length: {length}\r\nconnection: close\r\n\r\n{body}"
    );
    // Who asked may be gone.
    let _ = stream.write_all(answer.as_bytes()).await;
}

/// What a body says, in mcpmon's own shape or Alertmanager's.
fn read(body: &Value, at: Instant, key: &str) -> Vec<Told> {
    let alerts = body["alerts"].as_array().into_iter().flatten();
    alerts
        .map(|alert| {
            let of_alertmanager = alert["labels"]["alertname"].is_string();
            let (rule, service, handler, over) = if of_alertmanager {
                let labels = &alert["labels"];
                let over = alert["status"] == "resolved";
                (&labels["alertname"], &labels["service"], &labels["handler"], over)
            } else {
                let over = body["kind"] == "resolved" || !alert["resolved_at"].is_null();
                let subject = &alert["subject"];
                let handler = match subject["kind"] == "handler" {
                    true => &subject["name"],
                    false => &Value::Null,
                };
                (&alert["rule_name"], &alert["service_name"], handler, over)
            };
            let subject = match (service.as_str(), handler.as_str()) {
                (Some(service), None) => service.to_owned(),
                (None, Some(handler)) => of_handler(handler),
                // Neither or both: whatever is expected, it is not this.
                _ => format!("{service} {handler}"),
            };
            Told {
                at,
                news: if over { News::Resolved } else { News::Firing },
                rule: rule.as_str().unwrap_or_default().to_owned(),
                subject,
                key: key.to_owned(),
            }
        })
        .collect()
}
