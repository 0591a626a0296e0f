//! MCP over HTTP: one POST for one message, answered with JSON or with events.
//!
//! Built on hyper's connection and nothing above it, because a monitor must see what a client
//! library smooths over: what name, socket and TLS took, the status, the bytes behind a refusal,
//! and when exactly the matching message was there.

mod answer;
mod aside;
mod certificate;
mod connection;
mod dial;
mod endpoint;
mod pool;
mod reach;
mod status;
mod stream;
mod tls;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::header::{ACCEPT, CONTENT_TYPE, HeaderName, HeaderValue, LOCATION, USER_AGENT};
use hyper::{Method, Request, Response, StatusCode};
use mcpmon_core::failure::{FailureCode, Finding, Phase};
use mcpmon_core::observation::Phases;
use mcpmon_core::service::HttpSpec;
use rustls::ClientConfig;
use tokio::time::{Instant, timeout_at};

use self::connection::{AnswerBody, Connection};
use self::dial::dial;
pub use self::endpoint::{Endpoint, Origin, is_link_local};
pub use self::pool::{IDLE, MAX_PER_ORIGIN};
use self::pool::{Pool, Slot};
pub use self::status::MAX_RETRY_AFTER;
pub use self::stream::{EventStream, NoAnswer, NotOpened};
use self::tls::TlsSettings;
use crate::error::CallError;
use crate::inbox::Answer;
use crate::jsonrpc::{Id, Recall};
use crate::protocol::{self, headers};

/// Most redirects followed for one request.
const MAX_REDIRECTS: u32 = 5;

/// Connections and TLS settings, shared by every service.
#[derive(Debug, Default)]
pub struct HttpClient {
    pool: Arc<Pool>,
    tls: TlsSettings,
}

impl HttpClient {
    /// A client that trusts the machine's own roots.
    pub fn new() -> Self {
        Self::default()
    }

    /// A client with TLS settings of its own: a private authority, a client certificate.
    pub fn with_tls(config: Arc<ClientConfig>) -> Self {
        Self { pool: Arc::default(), tls: TlsSettings::with_config(config) }
    }
}

/// One message to post.
#[derive(Debug, Clone)]
pub struct Post<'a> {
    /// The JSON-RPC method in it, for headers and messages.
    pub method: &'a str,
    /// The message.
    pub body: Bytes,
    /// The revision to name in a header, once one is agreed.
    pub version: Option<&'a str>,
    /// The session, where there is one.
    pub session: Option<&'a HeaderValue>,
    /// Whether the headers of 2026-07-28 go with it.
    pub modern: bool,
    /// The tool, prompt or resource in it.
    pub name: Option<&'a str>,
    /// Arguments in it that modern headers repeat: the header's name after its prefix, the text.
    pub mirrored: &'a [(String, String)],
    /// How far the check has got.
    pub phase: Phase,
}

/// An answer, and what came with it.
#[derive(Debug)]
pub struct HttpAnswer {
    /// The message.
    pub answer: Answer,
    /// The session the server named.
    pub session: Option<HeaderValue>,
    /// The server said on the way that a list is another now.
    pub list_changed: bool,
    /// What `Content-Type` said, if that was not what the transport allows.
    pub odd_content: Option<String>,
    /// HTTP said failure and the message success, or the other way round.
    pub answered_twice: bool,
    /// What else is odd about it.
    pub notes: Vec<Finding>,
}

/// Posts messages to one endpoint.
#[derive(Debug, Clone)]
pub struct HttpChannel {
    client: Arc<HttpClient>,
    endpoint: Endpoint,
    cap: usize,
    connection_timeout: Duration,
    run: Run,
}

/// Requests that follow one another on one connection, which is then waited for only once.
#[derive(Debug, Default)]
struct Run {
    on: bool,
    slot: Option<Slot>,
}

impl Clone for Run {
    /// A connection is one channel's own.
    fn clone(&self) -> Self {
        Self::default()
    }
}

/// How far a request got, for the words of its timeout.
#[derive(Debug, Clone, Copy)]
enum Progress {
    Queued,
    Reaching,
    Sent,
    Answering,
}

/// The head of an answer, and what is needed to go on with the connection.
struct Exchange {
    response: Response<AnswerBody>,
    slot: Slot,
    sent: Instant,
}

impl HttpChannel {
    /// A channel to a service; bodies and events over `cap` bytes are refused, and reaching it may
    /// take `connection_timeout`.
    ///
    /// # Errors
    ///
    /// `configuration_invalid`.
    pub fn new(
        client: Arc<HttpClient>,
        spec: &HttpSpec,
        cap: usize,
        connection_timeout: Duration,
    ) -> Result<Self, CallError> {
        let mut endpoint = Endpoint::parse(spec)?;
        let fixed = &mut endpoint.headers;
        fixed.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        fixed.insert(ACCEPT, HeaderValue::from_static("application/json, text/event-stream"));
        let agent = HeaderValue::from_static(concat!("mcpmon/", env!("CARGO_PKG_VERSION")));
        fixed.entry(USER_AGENT).or_insert(agent);
        Ok(Self { client, endpoint, cap, connection_timeout, run: Run::default() })
    }

    /// Scheme, host and port.
    pub fn origin(&self) -> &Origin {
        &self.endpoint.origin
    }

    /// Path and query requests go to, after redirects.
    pub fn target(&self) -> &hyper::Uri {
        &self.endpoint.target
    }

    /// Posts a request and reads until its answer is there. Times of reaching the service are
    /// noted in `phases` if a connection had to be opened.
    ///
    /// # Errors
    ///
    /// Every way there is not to get an answer by `deadline`. Dropping the future closes the
    /// connection, which is how this transport cancels.
    pub async fn call(
        &mut self,
        post: &Post<'_>,
        id: &Id,
        recall: Recall<'_>,
        phases: &mut Phases,
        deadline: Instant,
    ) -> Result<HttpAnswer, CallError> {
        let started = Instant::now();
        let mut progress = Progress::Queued;
        let exchange = async {
            let exchange = self.exchange(post, phases, deadline, &mut progress).await?;
            progress = Progress::Answering;
            self.read(exchange, post, id, recall, deadline).await
        };
        match timeout_at(deadline, exchange).await {
            Ok(outcome) => outcome,
            Err(_) => Err(self.timeout_error(progress, post, started)),
        }
    }

    /// Posts a notification, or an answer of ours; any success will do.
    ///
    /// # Errors
    ///
    /// As [`HttpChannel::call`].
    pub async fn notify(
        &mut self,
        post: &Post<'_>,
        phases: &mut Phases,
        deadline: Instant,
    ) -> Result<(), CallError> {
        let started = Instant::now();
        let mut progress = Progress::Queued;
        let exchange = async {
            let exchange = self.exchange(post, phases, deadline, &mut progress).await?;
            progress = Progress::Answering;
            answer::acknowledged(exchange, post).await
        };
        match timeout_at(deadline, exchange).await {
            Ok(outcome) => outcome,
            Err(_) => Err(self.timeout_error(progress, post, started)),
        }
    }

    /// Has the requests from here to [`HttpChannel::end_run`] follow one another on one
    /// connection, as long as that stays good.
    pub fn begin_run(&mut self) {
        self.run.on = true;
    }

    /// Leaves the connection to others.
    pub fn end_run(&mut self) {
        self.run.on = false;
        if let Some(slot) = self.run.slot.take() {
            slot.let_go();
        }
    }

    /// The connection can take another request: ours, or anybody's.
    fn spare(&mut self, slot: Slot, connection: Connection) {
        if self.run.on && self.run.slot.is_none() {
            self.run.slot = Some(slot.hold(connection));
        } else {
            slot.give_back(connection);
        }
    }

    /// Ends a session by DELETE. Whatever the server says to it, we are done.
    pub async fn end_session(
        &mut self,
        session: &HeaderValue,
        version: Option<&str>,
        deadline: Instant,
    ) {
        let post = Post {
            method: "DELETE",
            body: Bytes::new(),
            version,
            session: Some(session),
            modern: false,
            name: None,
            mirrored: &[],
            phase: Phase::Request,
        };
        let build = || {
            let mut request = self.request(&post)?;
            *request.method_mut() = Method::DELETE;
            request.headers_mut().remove(CONTENT_TYPE);
            Ok(request)
        };
        let exchange = async {
            let slot = self.client.pool.slot(&self.endpoint.origin).await;
            let mut progress = Progress::Reaching;
            self.send(slot, build, true, &mut Phases::default(), deadline, &mut progress).await
        };
        let _ = timeout_at(deadline, exchange).await;
    }

    async fn exchange(
        &mut self,
        post: &Post<'_>,
        phases: &mut Phases,
        deadline: Instant,
        progress: &mut Progress,
    ) -> Result<Exchange, CallError> {
        // A call may have done something before its connection was cut.
        let repeatable = post.name.is_none();
        for _ in 0..=MAX_REDIRECTS {
            *progress = Progress::Queued;
            let slot = match self.run.slot.take() {
                Some(slot) => slot,
                None => self.client.pool.slot(&self.endpoint.origin).await,
            };
            *progress = Progress::Reaching;
            let build = || self.request(post);
            let exchange =
                self.send(slot, build, repeatable, phases, deadline, progress).await.map_err(
                    // A connection has its own phases; once it stands, the request's phase counts.
                    |mut error| {
                        if matches!(*progress, Progress::Sent) {
                            error.failure.phase = post.phase;
                        }
                        error
                    },
                )?;
            if !exchange.response.status().is_redirection() {
                return Ok(exchange);
            }
            self.follow(&exchange.response, post)?;
        }
        let message =
            format!("more than {MAX_REDIRECTS} redirects from `{}`", self.endpoint.origin);
        Err(CallError::new(FailureCode::RedirectLoop, post.phase, message)
            .with("location", self.endpoint.target.to_string()))
    }

    /// The request, built anew for each attempt, which is cheaper than keeping one to clone.
    fn request(&self, post: &Post<'_>) -> Result<Request<Full<Bytes>>, CallError> {
        let value = |text: &str| {
            HeaderValue::from_str(text).map_err(|_| {
                let message = format!("`{text}` cannot be sent as a header");
                CallError::new(FailureCode::InvalidMessage, post.phase, message)
            })
        };
        let mut request = Request::new(Full::new(post.body.clone()));
        *request.method_mut() = Method::POST;
        *request.uri_mut() = self.endpoint.target.clone();
        *request.headers_mut() = self.endpoint.headers.clone();
        let map = request.headers_mut();
        if let Some(version) = post.version {
            map.insert(HeaderName::from_static(headers::PROTOCOL_VERSION), value(version)?);
        }
        if let Some(session) = post.session {
            map.insert(HeaderName::from_static(headers::SESSION_ID), session.clone());
        }
        if post.modern {
            map.insert(HeaderName::from_static(headers::METHOD), value(post.method)?);
            if let Some(name) = post.name {
                let name = value(&protocol::header_name_value(name))?;
                map.insert(HeaderName::from_static(headers::NAME), name);
            }
            for (name, text) in post.mirrored {
                let name = HeaderName::try_from(format!("{}{name}", headers::PARAM_PREFIX))
                    .map_err(|_| {
                        let message = format!("`{name}` cannot be part of a header's name");
                        CallError::new(FailureCode::InvalidMessage, post.phase, message)
                    })?;
                map.insert(name, value(&protocol::header_name_value(text))?);
            }
        }
        Ok(request)
    }

    async fn send(
        &self,
        mut slot: Slot,
        build: impl Fn() -> Result<Request<Full<Bytes>>, CallError>,
        repeatable: bool,
        phases: &mut Phases,
        deadline: Instant,
        progress: &mut Progress,
    ) -> Result<Exchange, CallError> {
        if let Some(connection) = slot.take_idle() {
            *progress = Progress::Sent;
            let sent = Instant::now();
            match connection.send(build()?).await {
                Ok(response) => return Ok(Exchange { response, slot, sent }),
                // The server closed it while it lay idle, which is its right.
                Err(error) if error.is_canceled() || (repeatable && !error.is_parse()) => {}
                Err(error) => return Err(answer::cut_error(&error, &self.endpoint.origin)),
            }
            *progress = Progress::Reaching;
        }
        let limit = deadline.min(Instant::now() + self.connection_timeout);
        // Boxed, so that the many requests on open connections carry no room for it.
        let dialled = Box::pin(dial(&self.endpoint.origin, &self.client.tls, phases, limit));
        let connection = dialled.await?;
        *progress = Progress::Sent;
        let sent = Instant::now();
        match connection.send(build()?).await {
            Ok(response) => Ok(Exchange { response, slot, sent }),
            Err(error) => Err(answer::cut_error(&error, &self.endpoint.origin)),
        }
    }

    /// Goes where a redirect leads from now on, if that may be.
    fn follow<B>(&mut self, response: &Response<B>, post: &Post<'_>) -> Result<(), CallError> {
        let location = status::header(response.headers(), &LOCATION).unwrap_or_default();
        let keeps_method = matches!(
            response.status(),
            StatusCode::TEMPORARY_REDIRECT | StatusCode::PERMANENT_REDIRECT
        );
        let target = if keeps_method {
            self.endpoint.redirected(&location)
        } else {
            Err("it does not keep the request's method")
        };
        match target {
            Ok(target) => {
                self.endpoint.target = target;
                Ok(())
            }
            Err(reason) => {
                let code = response.status().as_u16();
                let message = format!(
                    "`{}` redirects (HTTP {code}) to `{location}`, which is not followed: {reason}",
                    self.endpoint.origin
                );
                let mut error = CallError::new(FailureCode::RedirectRefused, post.phase, message)
                    .with("http_status", code)
                    .with("location", location);
                error.status = Some(code);
                Err(error)
            }
        }
    }

    fn timeout_error(&self, progress: Progress, post: &Post<'_>, started: Instant) -> CallError {
        let origin = &self.endpoint.origin;
        let span = format!("{:.1} s", started.elapsed().as_secs_f64());
        let method = post.method;
        let timeout = if post.phase == Phase::Handshake {
            FailureCode::HandshakeTimeout
        } else {
            FailureCode::ResponseTimeout
        };
        let (code, phase, message) = match progress {
            Progress::Queued => (
                FailureCode::MonitorOverloaded,
                Phase::Prepare,
                format!("all {MAX_PER_ORIGIN} connections to `{origin}` were in use for {span}"),
            ),
            Progress::Reaching => (
                FailureCode::ConnectTimeout,
                Phase::Connect,
                format!("`{origin}` was not reached within {span}"),
            ),
            Progress::Sent => {
                (timeout, post.phase, format!("no answer to `{method}` within {span}"))
            }
            Progress::Answering => (
                timeout,
                post.phase,
                format!("the answer to `{method}` began, but was not whole within {span}"),
            ),
        };
        CallError::new(code, phase, message)
    }
}
