//! The server over streamable HTTP, on a listener the caller bound.
//!
//! A request is let in by its head (`gate`), planned, waited for and answered; sessions
//! exist only towards legacy clients.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Limited};
use hyper::body::Incoming;
use hyper::header::{ALLOW, CONTENT_TYPE, HeaderName, HeaderValue};
use hyper::http::request::Parts;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{HeaderMap, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{JoinHandle, JoinSet};

use super::Server;
use super::behaviour::Raw;
use super::body::Out;
use super::dispatch::{Answer, Dispatch, Stage, Via, version_header};
use super::events;
use super::gate::{self, Admitted};
use super::plan::{Plan, Reply};
use crate::jsonrpc::{self, Message, ParseError, RpcError, encode_error};
use crate::protocol::{LEGACY, headers, methods};

/// Largest body read, in bytes.
const MAX_BODY: usize = 4 << 20;
/// Connections served at once; more wait in the listener's queue.
const MOST_CONNECTIONS: usize = 4_096;
/// How long a client may take to send a request's head, or to leave a connection idle.
const HEAD_TIMEOUT: Duration = Duration::from_secs(30);
/// What a client of a revision without a version header speaks.
const UNSAID_VERSION: &str = "2025-03-26";

/// The content type of event streams.
pub(super) const EVENTS: &str = "text/event-stream";

const NO_SESSION: i64 = -32_000;
const UNKNOWN_SESSION: i64 = -32_001;

/// How answers are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Answers {
    /// As a JSON body.
    #[default]
    Json,
    /// As an event stream of one event, as most SDKs do.
    Sse,
    /// The same with an event without data before it, to have an id to go on from (2025-11-25).
    Primed,
    /// Only that first event; the answer is for those who come back (2025-11-25). `initialize` is
    /// answered at once.
    Polled,
}

/// How the server speaks HTTP.
#[derive(Debug, Clone)]
pub struct HttpOptions {
    pub(super) path: String,
    pub(super) answers: Answers,
    pub(super) allowed_hosts: Vec<String>,
    pub(super) event_stream: bool,
    pub(super) retry: Duration,
}

impl Default for HttpOptions {
    /// At `/mcp`, with JSON answers, for clients that name an address or `localhost`.
    fn default() -> Self {
        Self {
            path: "/mcp".to_owned(),
            answers: Answers::Json,
            allowed_hosts: Vec::new(),
            event_stream: false,
            retry: Duration::from_millis(50),
        }
    }
}

impl HttpOptions {
    /// How answers are written.
    #[must_use]
    pub fn answers(mut self, answers: Answers) -> Self {
        self.answers = answers;
        self
    }

    /// Speaks the deprecated HTTP+SSE in place of streamable HTTP.
    #[must_use]
    pub fn event_stream(mut self) -> Self {
        self.event_stream = true;
        self
    }

    /// How long clients are asked to stay away before they come back for an answer
    /// ([`Answers::Polled`]); 50 ms at first.
    #[must_use]
    pub fn retry(mut self, pause: Duration) -> Self {
        self.retry = pause;
        self
    }

    /// The path of the endpoint.
    #[must_use]
    pub fn path(mut self, path: impl Into<String>) -> Self {
        self.path = path.into();
        self
    }

    /// One host name more that clients may reach it by, without a port.
    #[must_use]
    pub fn allow_host(mut self, name: impl Into<String>) -> Self {
        self.allowed_hosts.push(name.into());
        self
    }
}

/// A server that listens. Dropping it stops it as [`HttpServer::stop`] does, without waiting.
#[derive(Debug)]
pub struct HttpServer {
    address: SocketAddr,
    path: String,
    task: JoinHandle<()>,
}

impl HttpServer {
    /// Serves on `listener` from now on, in a task of its own.
    ///
    /// # Errors
    ///
    /// When the listener has no address.
    pub fn start(listener: TcpListener, server: Server, options: HttpOptions) -> io::Result<Self> {
        let address = listener.local_addr()?;
        let path = options.path.clone();
        let task = tokio::spawn(accept(listener, server, Arc::new(options)));
        Ok(Self { address, path, task })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The endpoint's URL.
    pub fn url(&self) -> String {
        format!("http://{}{}", self.address, self.path)
    }

    /// Stops at once, as a killed process does: the port is free and every connection is closed
    /// when this returns.
    pub async fn stop(mut self) {
        self.task.abort();
        let _ = (&mut self.task).await;
    }
}

impl Drop for HttpServer {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn accept(listener: TcpListener, server: Server, options: Arc<HttpOptions>) {
    // Connections are children of this task, so ending it ends them.
    let mut connections = JoinSet::new();
    loop {
        let may_accept = connections.len() < MOST_CONNECTIONS;
        tokio::select! {
            accepted = listener.accept(), if may_accept => match accepted {
                Ok((stream, _)) => {
                    let (server, options) = (server.clone(), Arc::clone(&options));
                    connections.spawn(connection(stream, server, options));
                }
                // Out of descriptors, mostly: there will be some when a connection ends.
                Err(error) => {
                    tracing::warn!(%error, "Connection could not be accepted");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            },
            Some(_) = connections.join_next() => {}
        }
    }
}

async fn connection(stream: TcpStream, server: Server, options: Arc<HttpOptions>) {
    let _ = stream.set_nodelay(true);
    let service = service_fn(move |request| {
        let (server, options) = (server.clone(), Arc::clone(&options));
        async move { exchange(&server, &options, request).await }
    });
    // An error here is a client that went away, or a fault of ours on purpose.
    let _ = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .serve_connection(TokioIo::new(stream), service)
        .await;
}

/// Ends the connection without an answer.
#[derive(Debug, thiserror::Error)]
#[error("closed on purpose")]
pub(super) struct Closed;

async fn exchange(
    server: &Server,
    options: &HttpOptions,
    request: hyper::Request<Incoming>,
) -> Result<Response<Out>, Closed> {
    let (head, body) = request.into_parts();
    if options.event_stream {
        return events::exchange(server, options, head, body).await;
    }
    match gate::admit(&head, server.spec(), options) {
        Err(turned) => {
            let mut response = plain(turned.status, turned.reason);
            if turned.status == StatusCode::METHOD_NOT_ALLOWED {
                let allowed = HeaderValue::from_static(gate::allowed(server.spec()));
                response.headers_mut().insert(ALLOW, allowed);
            }
            Ok(response)
        }
        Ok(Admitted::Delete) => Ok(delete(server, &head)),
        Ok(Admitted::Resume) => Ok(resume(server, &head)),
        Ok(Admitted::Post) => match whole(body).await {
            Ok(body) => post(server, options, &head.headers, &body).await,
            Err(refusal) => Ok(*refusal),
        },
    }
}

/// A whole body. One over the cap is not read on, so the connection cannot go on either.
pub(super) async fn whole(body: Incoming) -> Result<Bytes, Box<Response<Out>>> {
    let body = Limited::new(body, MAX_BODY).collect().await;
    body.map(http_body_util::Collected::to_bytes)
        .map_err(|_| Box::new(plain(StatusCode::PAYLOAD_TOO_LARGE, "the body is too large")))
}

/// The answer that was kept for whoever comes back.
fn resume(server: &Server, head: &Parts) -> Response<Out> {
    let after = head.headers.get(headers::LAST_EVENT_ID).and_then(|id| id.to_str().ok());
    match after.and_then(|id| server.lock_streams().take_kept(id)) {
        Some(events) => typed(200, EVENTS, Out::whole(events)),
        None => plain(StatusCode::NOT_FOUND, "no stream goes on after this event"),
    }
}

fn delete(server: &Server, head: &Parts) -> Response<Out> {
    match session_header(&head.headers) {
        None => plain(StatusCode::BAD_REQUEST, "which session?"),
        Some(id) if server.lock_sessions().close(id) => plain(StatusCode::OK, ""),
        Some(_) => plain(StatusCode::NOT_FOUND, "there is no such session"),
    }
}

async fn post(
    server: &Server,
    options: &HttpOptions,
    headers: &HeaderMap,
    body: &[u8],
) -> Result<Response<Out>, Closed> {
    let incoming = jsonrpc::parse(body);
    let via = Via::Http(headers);
    let (before, plan) = match stage_of(server, headers, &incoming) {
        Ok(stage) => (stage, server.plan(stage, via, incoming)),
        Err(refusal) => (Stage::Fresh, server.plan_refused(via, &incoming, refusal)),
    };
    let handshake = before == Stage::Fresh;
    let Plan { stage, delay, asks, reply, .. } = plan;
    if !delay.is_zero() {
        tokio::time::sleep(delay).await;
    }
    let mut response = match reply {
        Reply::Nothing => plain(StatusCode::ACCEPTED, ""),
        // Errors with a status of their own come as JSON from every server, so that they can be read
        // without a parser for events.
        Reply::Send(answer) if options.answers == Answers::Json || answer.status != 200 => {
            json(answer.status, answer.body)
        }
        Reply::Send(answer) => {
            let legacy = matches!(stage, Stage::Legacy(_));
            let events: Vec<u8> =
                asks.iter().chain([&answer.body]).flat_map(|message| event(message)).collect();
            let events = match options.answers {
                Answers::Primed if legacy => [primer("0", None), events].concat(),
                Answers::Polled if legacy && !handshake => {
                    let id = server.lock_streams().keep(events);
                    primer(&id, Some(options.retry))
                }
                _ => events,
            };
            typed(200, EVENTS, Out::whole(events))
        }
        Reply::CutShort(answer) => {
            let bytes = Bytes::from(answer.body);
            typed(answer.status, "application/json", Out::half(&bytes))
        }
        Reply::Raw(raw) => by_hand(raw),
        Reply::Hang => std::future::pending().await,
        Reply::Close => return Err(Closed),
    };
    if before == Stage::Fresh && matches!(stage, Stage::Legacy(_)) && server.spec().sessions {
        let id = server.lock_sessions().open(stage);
        if let Ok(id) = HeaderValue::from_str(&id) {
            response.headers_mut().insert(headers::SESSION_ID, id);
        }
    }
    Ok(response)
}

/// Where the conversation stands that a message belongs to, or why it belongs to none.
fn stage_of(
    server: &Server,
    headers: &HeaderMap,
    incoming: &Result<jsonrpc::Incoming<'_>, ParseError>,
) -> Result<Stage, Answer> {
    let message = match incoming {
        Ok(jsonrpc::Incoming::Single(message)) => Some(message),
        Ok(jsonrpc::Incoming::Batch(_)) => None,
        // What cannot be read is refused as such, whoever sent it.
        Err(_) => return Ok(Stage::Fresh),
    };
    let dispatch = Dispatch::new(server.spec(), &[]);
    match message {
        Some(Message::Request(request)) => {
            if dispatch.speaks_modern(Stage::Fresh, Via::Http(headers), request) {
                return Ok(Stage::Modern);
            }
            if request.method == methods::INITIALIZE && session_header(headers).is_none() {
                return Ok(Stage::Fresh);
            }
        }
        // Without a request there is nothing to answer wrongly, and a modern client has no session.
        _ if !server.spec().eras.legacy() => return Ok(Stage::Modern),
        _ => {}
    }
    legacy_stage(server, headers)
}

fn legacy_stage(server: &Server, headers: &HeaderMap) -> Result<Stage, Answer> {
    let version = version_header(headers).unwrap_or(UNSAID_VERSION);
    let Some(version) = LEGACY.into_iter().find(|known| *known == version) else {
        if server.spec().eras.modern() {
            return Ok(Stage::Modern);
        }
        let text = format!("unsupported protocol version (supported: {})", LEGACY.join(", "));
        return Err(refusal(400, NO_SESSION, &text));
    };
    if !server.spec().sessions {
        return Ok(Stage::Legacy(version));
    }
    match session_header(headers) {
        None => Err(refusal(400, NO_SESSION, "no session: send `initialize` first")),
        Some(id) => server
            .lock_sessions()
            .get(id)
            .ok_or_else(|| refusal(404, UNKNOWN_SESSION, "there is no such session")),
    }
}

fn refusal(status: u16, code: i64, message: &str) -> Answer {
    Answer { status, body: encode_error(None, &RpcError::new(code, message)) }
}

fn session_header(headers: &HeaderMap) -> Option<&str> {
    headers.get(headers::SESSION_ID)?.to_str().ok()
}

/// An answer made by hand.
pub(super) fn by_hand(raw: Raw) -> Response<Out> {
    let mut response = Response::new(Out::whole(raw.body));
    set_status(&mut response, raw.status);
    for (name, value) in raw.headers {
        let pair = (HeaderName::try_from(name), HeaderValue::from_str(&value));
        if let (Ok(name), Ok(value)) = pair {
            response.headers_mut().append(name, value);
        }
    }
    response
}

/// A message as an event.
pub(super) fn event(message: &[u8]) -> Vec<u8> {
    [b"event: message\ndata: ", message, b"\n\n"].concat()
}

/// An event without data, to go on from.
fn primer(id: &str, retry: Option<Duration>) -> Vec<u8> {
    let retry = retry.map_or_else(String::new, |pause| format!("retry: {}\n", pause.as_millis()));
    format!("id: {id}\n{retry}data:\n\n").into_bytes()
}

fn json(status: u16, body: Vec<u8>) -> Response<Out> {
    typed(status, "application/json", Out::whole(body))
}

pub(super) fn plain(status: StatusCode, text: &'static str) -> Response<Out> {
    typed(status.as_u16(), "text/plain; charset=utf-8", Out::whole(text))
}

pub(super) fn typed(status: u16, content_type: &'static str, body: Out) -> Response<Out> {
    let mut response = Response::new(body);
    set_status(&mut response, status);
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}

fn set_status(response: &mut Response<Out>, status: u16) {
    *response.status_mut() =
        StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
}

#[cfg(test)]
#[path = "http_tests.rs"]
mod tests;
