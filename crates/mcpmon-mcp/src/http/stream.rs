//! The deprecated HTTP+SSE transport: a GET whose event stream is the session, and POSTs to the
//! place the stream names, answered on the stream.
//!
//! The stream has a connection of its own: it never ends while all is well, so a place in the pool
//! would be gone for good. It is read by a task, as a process's output is, because a server may
//! ask something between our questions and stops serving those who do not read. A second task
//! posts our answers to it. What may arrive between two questions is capped, and so is how often a
//! server is answered, so that a stream without end costs no more than its cap.

use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::header::{ACCEPT, CONTENT_TYPE, HeaderValue};
use hyper::{Method, Request, Response, Uri};
use mcpmon_core::failure::{FailureCode, Phase};
use mcpmon_core::observation::Phases;
use tokio::pin;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout, timeout_at};

use super::answer::{self, next_chunk};
use super::connection::AnswerBody;
use super::dial::dial;
use super::status::{self, Content};
use super::{HttpChannel, MAX_REDIRECTS, Origin, Post};
use crate::error::CallError;
use crate::inbox::{Answer, Heard, Inbox, Unanswered};
use crate::jsonrpc::Id;
use crate::protocol::methods;
use crate::sse::{Event, SseParser};

/// What the first contact is called in messages.
const OPENING: &str = "GET";
/// Most requests of a server that are answered between two questions of ours.
const MAX_ASKED: u32 = 64;
/// Answers waiting to be posted.
const QUEUE: usize = 16;
/// How long posting one answer may take.
const ANSWER_LIMIT: Duration = Duration::from_secs(5);
/// How long a POST may go on once its answer is here, so that its connection can be used again.
const TAIL: Duration = Duration::from_millis(250);

/// Why the opening of a stream failed, and how far it came.
#[derive(Debug)]
pub struct NotOpened {
    /// The cause.
    pub error: CallError,
    /// Whether an event stream was there, so that this is the transport, and in trouble.
    pub was_there: bool,
}

/// Why there is no answer.
#[derive(Debug)]
pub enum NoAnswer {
    /// None came by the deadline.
    InTime,
    /// None can come, because.
    Because(CallError),
}

/// An open event stream, and where to post to.
#[derive(Debug)]
pub struct EventStream {
    inbox: Arc<Inbox>,
    /// Where the stream was found.
    home: HttpChannel,
    /// Where messages go.
    place: HttpChannel,
    answers: mpsc::Sender<Vec<u8>>,
    allowance: Arc<Allowance>,
    /// How it ended.
    end: Arc<OnceLock<CallError>>,
    version: Arc<OnceLock<String>>,
    reader: JoinHandle<()>,
    writer: JoinHandle<()>,
}

/// What a server has used up since it was last asked something.
#[derive(Debug, Default)]
struct Allowance {
    bytes: AtomicUsize,
    answers: AtomicU32,
}

impl Allowance {
    fn renew(&self) {
        self.bytes.store(0, Ordering::Relaxed);
        self.answers.store(0, Ordering::Relaxed);
    }

    fn takes(&self, bytes: usize, cap: usize) -> bool {
        let before = self.bytes.fetch_add(bytes, Ordering::Relaxed);
        before.saturating_add(bytes) <= cap
    }

    fn answers(&self) -> bool {
        self.answers.fetch_add(1, Ordering::Relaxed) < MAX_ASKED
    }
}

impl EventStream {
    /// Opens a stream at `home` and waits for its first event, which names the place to post to.
    ///
    /// # Errors
    ///
    /// Why there is no stream, or none of this transport. Dropping the future closes it.
    pub async fn open(
        mut home: HttpChannel,
        phases: &mut Phases,
        deadline: Instant,
    ) -> Result<Self, NotOpened> {
        let started = Instant::now();
        let silent = |channel: &HttpChannel, was_there| {
            let span = format!("{:.1} s", started.elapsed().as_secs_f64());
            let what = if was_there { "`endpoint` event on the stream" } else { "answer to `GET`" };
            let message = format!("no {what} of `{}` within {span}", channel.origin());
            let error = CallError::new(FailureCode::HandshakeTimeout, Phase::Handshake, message);
            NotOpened { error, was_there }
        };
        let got = match timeout_at(deadline, get(&mut home, phases, deadline)).await {
            Ok(got) => got.map_err(|error| NotOpened { error, was_there: false })?,
            Err(_) => return Err(silent(&home, false)),
        };
        let mut source = Source::new(got, &home);
        let place = match timeout_at(deadline, source.endpoint(&home)).await {
            Ok(place) => place.map_err(|error| NotOpened { error, was_there: true })?,
            Err(_) => return Err(silent(&home, true)),
        };
        phases.handshake_ms = Some(started.elapsed().as_secs_f64() * 1_000.0);
        Ok(Self::read(source, home, place))
    }

    fn read(source: Source, home: HttpChannel, place: Uri) -> Self {
        let mut channel = home.clone();
        channel.endpoint.target = place;
        let inbox = Arc::new(Inbox::default());
        let (allowance, end) = (Arc::<Allowance>::default(), Arc::<OnceLock<CallError>>::default());
        let version = Arc::<OnceLock<String>>::default();
        let (answers, queue) = mpsc::channel(QUEUE);
        let reader = Reader {
            inbox: Arc::clone(&inbox),
            answers: answers.downgrade(),
            allowance: Arc::clone(&allowance),
            end: Arc::clone(&end),
        };
        Self {
            reader: tokio::spawn(reader.run(source)),
            writer: tokio::spawn(post_answers(channel.clone(), queue, Arc::clone(&version))),
            inbox,
            home,
            place: channel,
            answers,
            allowance,
            end,
            version,
        }
    }

    /// Where the stream was found, to open another one there.
    pub fn home(&self) -> &HttpChannel {
        &self.home
    }

    /// Posts a request and waits for its answer on the stream.
    ///
    /// # Errors
    ///
    /// [`NoAnswer`]. The stream stands, unless [`EventStream::has_ended`].
    pub async fn call(
        &mut self,
        post: &Post<'_>,
        id: &Id,
        phases: &mut Phases,
        deadline: Instant,
    ) -> Result<Answer, NoAnswer> {
        self.allowance.renew();
        if let Some(version) = post.version {
            let _ = self.version.set(version.to_owned());
        }
        let Ok(expected) = self.inbox.expect(id) else {
            return Err(NoAnswer::Because(self.end_error(post)));
        };
        let exchange = async {
            // Reaching the place is no part of what the answer took.
            self.place.connect(phases, deadline).await?;
            let answered = expected.answered(Instant::now());
            let posted = self.place.notify(post, phases, deadline);
            pin!(answered, posted);
            tokio::select! {
                biased;
                answer = &mut answered => {
                    let _ = timeout(TAIL, posted).await;
                    Ok(answer)
                }
                posted = &mut posted => {
                    posted?;
                    Ok(answered.await)
                }
            }
        };
        let outcome = match timeout_at(deadline, exchange).await {
            Ok(Ok(Ok(answer))) => return Ok(answer),
            Ok(Ok(Err(_))) => NoAnswer::Because(self.end_error(post)),
            // Nothing but the deadline makes a POST time out once the place was reached.
            Ok(Err(error)) if is_silence(&error) => NoAnswer::InTime,
            Ok(Err(error)) => NoAnswer::Because(error),
            Err(_) => NoAnswer::InTime,
        };
        self.inbox.give_up(id.clone());
        Err(outcome)
    }

    /// Posts a notification; any success will do.
    ///
    /// # Errors
    ///
    /// As [`HttpChannel::notify`].
    pub async fn notify(
        &mut self,
        post: &Post<'_>,
        phases: &mut Phases,
        deadline: Instant,
    ) -> Result<(), CallError> {
        self.place.notify(post, phases, deadline).await
    }

    /// Has a message posted if there is room for it; never waits.
    pub fn notify_now(&self, message: Vec<u8>) {
        let _ = self.answers.try_send(message);
    }

    /// What was heard since the last time this was asked.
    pub fn take_heard(&self) -> Heard {
        self.inbox.take_heard()
    }

    /// What was heard since [`EventStream::take_heard`].
    pub fn heard(&self) -> Heard {
        self.inbox.heard()
    }

    /// Whether the stream is over, and the session with it.
    pub fn has_ended(&self) -> bool {
        self.inbox.has_ended()
    }

    /// Resolves when the stream ended or a list changed. Cancel-safe; each event wakes once.
    pub async fn woken(&self) {
        self.inbox.woken().await;
    }

    fn end_error(&self, post: &Post<'_>) -> CallError {
        let mut error = self.end.get().cloned().unwrap_or_else(|| {
            let message = "the event stream ended";
            CallError::new(FailureCode::StreamEnded, post.phase, message)
        });
        error.failure.phase = post.phase;
        error.failure.message = format!(
            "{}, and with it the session; asked was `{}`",
            error.failure.message, post.method
        );
        error
    }
}

impl Drop for EventStream {
    fn drop(&mut self) {
        // With the reader goes the connection, which is how this transport ends a session.
        self.reader.abort();
        self.writer.abort();
    }
}

fn is_silence(error: &CallError) -> bool {
    matches!(error.code(), FailureCode::HandshakeTimeout | FailureCode::ResponseTimeout)
}

/// The head of a stream, and the connection it comes on.
struct Got {
    response: Response<AnswerBody>,
}

/// Asks for the stream on a connection of its own, following redirects to the same origin.
async fn get(
    home: &mut HttpChannel,
    phases: &mut Phases,
    deadline: Instant,
) -> Result<Got, CallError> {
    let post = opening();
    for _ in 0..=MAX_REDIRECTS {
        let limit = deadline.min(Instant::now() + home.connection_timeout);
        let connection = dial(&home.endpoint.origin, &home.client.tls, phases, limit).await?;
        let mut request = Request::new(Full::new(Bytes::new()));
        *request.method_mut() = Method::GET;
        *request.uri_mut() = home.endpoint.target.clone();
        *request.headers_mut() = home.endpoint.headers.clone();
        request.headers_mut().remove(CONTENT_TYPE);
        request.headers_mut().insert(ACCEPT, HeaderValue::from_static("text/event-stream"));
        let response = connection.send(request).await.map_err(|error| {
            let mut error = answer::cut_error(&error, &home.endpoint.origin);
            error.failure.phase = Phase::Handshake;
            error
        })?;
        if response.status().is_redirection() {
            home.follow(&response, &post)?;
            continue;
        }
        return admitted(response).await;
    }
    let message = format!("more than {MAX_REDIRECTS} redirects from `{}`", home.endpoint.origin);
    Err(CallError::new(FailureCode::RedirectLoop, Phase::Handshake, message))
}

async fn admitted(response: Response<AnswerBody>) -> Result<Got, CallError> {
    let content = status::content(response.headers());
    if response.status().is_success() && content == Content::EventStream {
        return Ok(Got { response });
    }
    let (head, mut body) = response.into_parts();
    let (text, _) = answer::collect_some(&mut body).await;
    if head.status.is_success() {
        let mut error = status::content_error(content, &head.headers, &text, Phase::Handshake);
        if error.code() == FailureCode::UnexpectedContentType {
            error.failure.message = "the answer to `GET` is no event stream".to_owned();
        }
        error.status = Some(head.status.as_u16());
        return Err(error.with("http_status", head.status.as_u16()));
    }
    Err(status::status_error(head.status, &head.headers, &text, OPENING, Phase::Handshake))
}

fn opening<'a>() -> Post<'a> {
    Post {
        method: OPENING,
        body: Bytes::new(),
        version: None,
        session: None,
        modern: false,
        name: None,
        mirrored: &[],
        phase: Phase::Handshake,
    }
}

impl HttpChannel {
    /// Sees to it that a connection lies ready for the next request.
    async fn connect(&self, phases: &mut Phases, deadline: Instant) -> Result<(), CallError> {
        let origin = &self.endpoint.origin;
        let Ok(mut slot) = timeout_at(deadline, self.client.pool.slot(origin)).await else {
            let message = format!("all connections to `{origin}` were in use");
            return Err(CallError::new(FailureCode::MonitorOverloaded, Phase::Prepare, message));
        };
        let sender = match slot.take_idle() {
            Some(sender) => sender,
            None => {
                let limit = deadline.min(Instant::now() + self.connection_timeout);
                dial(origin, &self.client.tls, phases, limit).await?
            }
        };
        slot.give_back(sender);
        Ok(())
    }
}

/// Events as they come.
struct Source {
    /// Holds the connection, which ends with it.
    body: AnswerBody,
    parser: SseParser,
    origin: Origin,
    cap: usize,
}

impl Source {
    fn new(got: Got, home: &HttpChannel) -> Self {
        Self {
            body: got.response.into_body(),
            parser: SseParser::new(home.cap),
            origin: home.endpoint.origin.clone(),
            cap: home.cap,
        }
    }

    /// The next event, or how the stream ended. What it may hold is the allowance's affair.
    async fn next(&mut self, allowance: &Allowance) -> Result<Event, CallError> {
        loop {
            if let Some(event) = self.parser.next_event() {
                return Ok(event);
            }
            let phase = Phase::Request;
            let Some(chunk) = next_chunk(&mut self.body, phase, &self.origin).await? else {
                let message = "the event stream ended";
                return Err(CallError::new(FailureCode::StreamEnded, phase, message));
            };
            if !allowance.takes(chunk.len(), self.cap) {
                let message = format!("the event stream brought over {} bytes unasked", self.cap);
                return Err(CallError::new(FailureCode::TooLarge, phase, message));
            }
            self.parser.push(&chunk).map_err(|error| {
                CallError::new(
                    FailureCode::TooLarge,
                    phase,
                    format!("the event stream has {error}"),
                )
            })?;
        }
    }

    /// The place to post to, which the first event names.
    async fn endpoint(&mut self, home: &HttpChannel) -> Result<Uri, CallError> {
        let allowance = Allowance::default();
        let event = self.next(&allowance).await.map_err(|mut error| {
            error.failure.phase = Phase::Handshake;
            error
        })?;
        if event.kind != "endpoint" {
            let message = "the event stream does not begin with an `endpoint` event";
            return Err(CallError::new(FailureCode::InvalidMessage, Phase::Handshake, message)
                .with_excerpt(&event.data));
        }
        let place = String::from_utf8_lossy(&event.data);
        let place = place.trim();
        // Only a query, on the path of the stream itself.
        let place = match place.strip_prefix('?') {
            Some(query) => format!("{}?{query}", home.endpoint.target.path()),
            None => place.to_owned(),
        };
        home.endpoint.redirected(&place).map_err(|reason| {
            let message = format!(
                "the event stream of `{}` names `{place}` to post to, which is refused: {reason}",
                self.origin
            );
            CallError::new(FailureCode::RedirectRefused, Phase::Handshake, message)
                .with("endpoint", place)
        })
    }
}

struct Reader {
    inbox: Arc<Inbox>,
    answers: mpsc::WeakSender<Vec<u8>>,
    allowance: Arc<Allowance>,
    end: Arc<OnceLock<CallError>>,
}

impl Reader {
    async fn run(self, mut source: Source) {
        loop {
            match source.next(&self.allowance).await {
                Ok(event) if event.is_message() && !event.data.is_empty() => {
                    self.inbox.take(&event.data, |answer| {
                        if self.allowance.answers()
                            && let Some(answers) = self.answers.upgrade()
                        {
                            let _ = answers.try_send(answer);
                        }
                    });
                }
                Ok(_) => {}
                Err(error) => {
                    let reason = match error.code() {
                        FailureCode::TooLarge => Unanswered::TooLarge,
                        _ => Unanswered::Ended,
                    };
                    let _ = self.end.set(error);
                    return self.inbox.end(reason);
                }
            }
        }
    }
}

/// Posts our answers to a server, one after the other. What becomes of them is the server's loss.
async fn post_answers(
    mut place: HttpChannel,
    mut queue: mpsc::Receiver<Vec<u8>>,
    version: Arc<OnceLock<String>>,
) {
    while let Some(message) = queue.recv().await {
        let post = Post {
            method: methods::ANSWER,
            body: message.into(),
            version: version.get().map(String::as_str),
            phase: Phase::Request,
            ..opening()
        };
        let deadline = Instant::now() + ANSWER_LIMIT;
        let _ = place.notify(&post, &mut Phases::default(), deadline).await;
    }
}
