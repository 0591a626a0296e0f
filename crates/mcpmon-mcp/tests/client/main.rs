//! The client half against servers that work, servers of our own that misbehave on cue, and peers
//! that are not servers at all.

#![expect(clippy::unwrap_used, reason = "a test that cannot be set up should say where")]

mod events;
mod fallback;
mod http;
mod matrix;
mod process;
mod reach;
mod streams;
mod templates;
mod tls;

use std::sync::Arc;
use std::time::Duration;

use mcpmon_core::failure::FailureCode;
use mcpmon_core::observation::Phases;
use mcpmon_core::service::{HttpSpec, ProtocolChoice};
use mcpmon_core::status::Era;
use mcpmon_mcp::http::HttpClient;
use mcpmon_mcp::server::{HttpOptions, HttpServer, Server, ServerSpec, Tool, ToolOutput};
use mcpmon_mcp::{CallError, Memory, Session, SessionOptions};
use tokio::net::TcpListener;
use tokio::time::Instant;

/// Long enough never to be reached by what works.
fn soon() -> Instant {
    within(20_000)
}

fn within(millis: u64) -> Instant {
    Instant::now() + Duration::from_millis(millis)
}

fn options() -> SessionOptions {
    SessionOptions::default()
}

fn tool(name: &str) -> Tool {
    Tool::new(name, "says hello", |_| Ok(ToolOutput::text("hello")))
}

fn spec() -> ServerSpec {
    ServerSpec::new("fixture", "1.0.0").tool(tool("hello"))
}

async fn listener() -> TcpListener {
    TcpListener::bind("127.0.0.1:0").await.unwrap()
}

async fn over_http(server: &Server) -> HttpServer {
    over_http_with(server, HttpOptions::default()).await
}

async fn over_http_with(server: &Server, options: HttpOptions) -> HttpServer {
    HttpServer::start(listener().await, server.clone(), options).unwrap()
}

fn at(url: &str) -> HttpSpec {
    HttpSpec { url: url.to_owned(), ..HttpSpec::default() }
}

async fn open(url: &str) -> Result<Session, CallError> {
    open_by(url, None, options(), soon()).await
}

async fn open_by(
    url: &str,
    remembered: Option<Era>,
    options: SessionOptions,
    deadline: Instant,
) -> Result<Session, CallError> {
    let client = Arc::new(HttpClient::new());
    let mut phases = Phases::default();
    let options = Arc::new(options);
    let mut memory = remembered.map_or_else(Memory::default, Memory::of_era);
    Session::open_http(&client, &at(url), &options, &mut memory, &mut phases, deadline).await
}

async fn prove(session: &mut Session) -> Result<Duration, CallError> {
    session.prove_life(&mut Phases::default(), soon()).await
}

fn only(protocol: ProtocolChoice) -> SessionOptions {
    SessionOptions { protocol, ..options() }
}

#[track_caller]
fn assert_code<T>(outcome: Result<T, CallError>, code: FailureCode) -> CallError {
    match outcome {
        Ok(_) => panic!("expected {code}, but it worked"),
        Err(error) => {
            assert_eq!(error.code(), code, "{error:?}");
            error
        }
    }
}
