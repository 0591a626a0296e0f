//! Reads what comes back on a POST until the message that answers it is there.

use std::time::Duration;

use bytes::Bytes;
use http_body_util::BodyExt as _;
use hyper::body::{Body as _, Incoming};
use hyper::header::{CONTENT_ENCODING, CONTENT_TYPE, HeaderMap, HeaderName};
use mcpmon_core::failure::{FailureCode, Phase};
use mcpmon_core::observation::Phases;
use tokio::time::{Instant, timeout};

use super::status::{self, Content};
use super::tls::{classify, tls_error_below};
use super::{Exchange, HttpAnswer, HttpChannel, Origin, Post};
use crate::error::CallError;
use crate::jsonrpc::{self, Id, Message, ParseError, Response};
use crate::pipe::{Answer, answer_to_server};
use crate::protocol::{headers, methods};
use crate::sse::SseParser;

/// Most of a body read that only serves as evidence.
const EVIDENCE: usize = 64 * 1024;
/// How long a stream is given to end after the answer, so that its connection can be used again.
const TAIL: Duration = Duration::from_millis(25);
/// Most requests of a server that are answered while it prepares one answer to us.
const MAX_ASKED: u32 = 16;

impl HttpChannel {
    pub(super) async fn read(
        &mut self,
        exchange: Exchange,
        post: &Post<'_>,
        id: &Id,
        deadline: Instant,
    ) -> Result<HttpAnswer, CallError> {
        let Exchange { response, sender, slot, sent } = exchange;
        let (head, mut body) = response.into_parts();
        if !head.status.is_success() {
            let (text, whole) = collect_some(&mut body).await;
            if whole {
                slot.give_back(sender);
            }
            let (status, headers) = (head.status, &head.headers);
            return Err(status::status_error(status, headers, &text, post.method, post.phase));
        }
        if let Some(encoding) = status::header(&head.headers, &CONTENT_ENCODING)
            && !encoding.eq_ignore_ascii_case("identity")
        {
            let message = format!("the answer is compressed ({encoding}), which was not asked for");
            return Err(CallError::new(FailureCode::UnexpectedContentType, post.phase, message));
        }
        let session = head.headers.get(HeaderName::from_static(headers::SESSION_ID)).cloned();
        let found = match status::content(&head.headers) {
            Content::EventStream => self
                .read_events(&mut body, post, id, sent, deadline)
                .await
                .map(|found| (found, None)),
            content @ (Content::Json | Content::Unnamed) => {
                self.read_json(&mut body, content, &head.headers, post, id, sent).await
            }
            content @ (Content::Html | Content::Other) => {
                let (text, _) = collect_some(&mut body).await;
                Err(status::content_error(content, &head.headers, &text, post.phase))
            }
        };
        let (found, odd_content) = found.map_err(|mut error| {
            error.status = Some(head.status.as_u16());
            error.with("http_status", head.status.as_u16())
        })?;
        if body.is_end_stream() || timeout(TAIL, drain(&mut body)).await == Ok(true) {
            slot.give_back(sender);
        }
        Ok(HttpAnswer {
            answer: found.answer,
            session,
            list_changed: found.list_changed,
            odd_content,
            answered_twice: found.answered_twice,
        })
    }

    async fn read_json(
        &self,
        body: &mut Incoming,
        content: Content,
        headers: &HeaderMap,
        post: &Post<'_>,
        id: &Id,
        sent: Instant,
    ) -> Result<(Found, Option<String>), CallError> {
        let text = collect(body, self.cap, post.phase, self.origin()).await?;
        let messages = match jsonrpc::parse(&text) {
            Ok(incoming) => incoming.into_messages(),
            Err(_) if content == Content::Unnamed => {
                return Err(status::content_error(content, headers, &text, post.phase));
            }
            Err(error) => return Err(status::parse_error(&error, &text, post.phase)),
        };
        let odd = (content == Content::Unnamed)
            .then(|| status::header(headers, &CONTENT_TYPE).unwrap_or_else(|| "none".to_owned()));
        let mut search = Search::new(id, sent);
        let alone = messages.len() == 1;
        for message in messages {
            search.take(message, alone);
        }
        search.finish(post, &text).map(|found| (found, odd))
    }

    async fn read_events(
        &mut self,
        body: &mut Incoming,
        post: &Post<'_>,
        id: &Id,
        sent: Instant,
        deadline: Instant,
    ) -> Result<Found, CallError> {
        let mut parser = SseParser::new(self.cap);
        let mut search = Search::new(id, sent);
        let (mut total, mut asked) = (0_usize, 0);
        while let Some(chunk) = next_chunk(body, post.phase, self.origin()).await? {
            total += chunk.len();
            if total > self.cap {
                return Err(too_large("the event stream", self.cap, post.phase));
            }
            parser.push(&chunk).map_err(|error| {
                CallError::new(FailureCode::TooLarge, post.phase, format!("the stream has {error}"))
            })?;
            while let Some(event) = parser.next_event() {
                if !event.is_message() || event.data.is_empty() {
                    continue;
                }
                for question in search.take_event(&event.data) {
                    asked += 1;
                    if asked <= MAX_ASKED {
                        // It is a whole exchange inside an exchange.
                        Box::pin(self.reply(question, post, deadline)).await;
                    }
                }
            }
            if search.found.is_some() {
                break;
            }
        }
        search.finish(post, b"")
    }

    /// Answers what a legacy server asked on the way; it may wait for that before it answers us.
    async fn reply(&mut self, answer: Vec<u8>, post: &Post<'_>, deadline: Instant) {
        let reply = Post {
            method: "response",
            body: answer.into(),
            modern: false,
            name: None,
            ..post.clone()
        };
        let mut phases = Phases::default();
        let mut progress = super::Progress::Queued;
        if let Ok(exchange) = self.exchange(&reply, &mut phases, deadline, &mut progress).await {
            let _ = acknowledged(exchange, &reply).await;
        }
    }
}

/// Reads the answer to a message that has none, of which only the status counts.
pub(super) async fn acknowledged(exchange: Exchange, post: &Post<'_>) -> Result<(), CallError> {
    let Exchange { response, sender, slot, .. } = exchange;
    let (head, mut body) = response.into_parts();
    if head.status.is_success() {
        if body.is_end_stream() || timeout(TAIL, drain(&mut body)).await == Ok(true) {
            slot.give_back(sender);
        }
        return Ok(());
    }
    let (text, whole) = collect_some(&mut body).await;
    if whole {
        slot.give_back(sender);
    }
    Err(status::status_error(head.status, &head.headers, &text, post.method, post.phase))
}

/// The answer, once it is found.
struct Found {
    answer: Answer,
    list_changed: bool,
    answered_twice: bool,
}

/// Looks for the message that answers `id` and remembers what else came.
struct Search<'a> {
    id: &'a Id,
    sent: Instant,
    found: Option<Answer>,
    list_changed: bool,
    answered_twice: bool,
    strays: u32,
    last_error: Option<(ParseError, Vec<u8>)>,
}

impl<'a> Search<'a> {
    fn new(id: &'a Id, sent: Instant) -> Self {
        Self {
            id,
            sent,
            found: None,
            list_changed: false,
            answered_twice: false,
            strays: 0,
            last_error: None,
        }
    }

    /// Takes one message; gives our answer if it is a request. An error `alone` in its body
    /// answers what was posted, whatever id it bears.
    fn take(&mut self, message: Result<Message<'_>, ParseError>, alone: bool) -> Option<Vec<u8>> {
        match message {
            Ok(Message::Response(response)) => self.take_response(response, alone),
            Ok(Message::Notification(told)) => {
                self.list_changed |= methods::is_list_changed(&told.method);
            }
            Ok(Message::Request(asked)) => return Some(answer_to_server(&asked)),
            Err(error) => self.last_error = Some((error, Vec::new())),
        }
        None
    }

    fn take_event(&mut self, data: &[u8]) -> Vec<Vec<u8>> {
        match jsonrpc::parse(data) {
            Ok(incoming) => {
                let messages = incoming.into_messages();
                let alone = messages.len() == 1;
                messages.into_iter().filter_map(|message| self.take(message, alone)).collect()
            }
            Err(error) => {
                let start = data[..data.len().min(EVIDENCE)].to_vec();
                self.last_error = Some((error, start));
                Vec::new()
            }
        }
    }

    fn take_response(&mut self, response: Response<'_>, alone: bool) {
        let exact = response.id.as_ref() == Some(self.id);
        let sloppy = response.id.as_ref().is_some_and(|id| id.is_sloppy_echo_of(self.id));
        let nameless = alone && response.payload.is_err();
        if !(exact || sloppy || nameless) {
            self.strays += 1;
        } else if self.found.is_some() {
            self.answered_twice = true;
        } else {
            let payload = response.payload.map(ToOwned::to_owned);
            self.found = Some(Answer { payload, latency: self.sent.elapsed(), sloppy_id: sloppy });
        }
    }

    fn finish(self, post: &Post<'_>, body: &[u8]) -> Result<Found, CallError> {
        let method = post.method;
        if let Some(answer) = self.found {
            return Ok(Found {
                answer,
                list_changed: self.list_changed,
                answered_twice: self.answered_twice,
            });
        }
        if self.strays > 0 {
            let message = format!("`{method}` was answered, but under another id than it bore");
            return Err(CallError::new(FailureCode::WrongResponseId, post.phase, message)
                .with_excerpt(body));
        }
        if let Some((error, data)) = self.last_error {
            return Err(status::parse_error(
                &error,
                if data.is_empty() { body } else { &data },
                post.phase,
            ));
        }
        if body.is_empty() {
            let message = format!("the event stream ended without an answer to `{method}`");
            return Err(CallError::new(FailureCode::StreamEnded, post.phase, message));
        }
        let message = format!("messages came back on `{method}`, but no answer");
        Err(CallError::new(FailureCode::InvalidMessage, post.phase, message).with_excerpt(body))
    }
}

async fn next_chunk(
    body: &mut Incoming,
    phase: Phase,
    origin: &Origin,
) -> Result<Option<Bytes>, CallError> {
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| body_error(&error, phase, origin))?;
        if let Ok(data) = frame.into_data() {
            return Ok(Some(data));
        }
    }
    Ok(None)
}

/// A whole body of at most `cap` bytes.
async fn collect(
    body: &mut Incoming,
    cap: usize,
    phase: Phase,
    origin: &Origin,
) -> Result<Bytes, CallError> {
    let announced = body.size_hint().exact().unwrap_or(0);
    if announced > cap as u64 {
        return Err(too_large("the answer", cap, phase).with("content_length", announced));
    }
    let Some(first) = next_chunk(body, phase, origin).await? else { return Ok(Bytes::new()) };
    let Some(second) = next_chunk(body, phase, origin).await? else {
        // Nearly every answer is one chunk, which need not be copied.
        return if first.len() > cap {
            Err(too_large("the answer", cap, phase))
        } else {
            Ok(first)
        };
    };
    let mut text = Vec::with_capacity(usize::try_from(announced).unwrap_or(0).max(first.len() * 2));
    text.extend_from_slice(&first);
    let mut next = Some(second);
    while let Some(chunk) = next {
        if text.len() + chunk.len() > cap {
            return Err(too_large("the answer", cap, phase));
        }
        text.extend_from_slice(&chunk);
        next = next_chunk(body, phase, origin).await?;
    }
    Ok(text.into())
}

/// The start of a body that is only evidence, and whether that was all of it.
async fn collect_some(body: &mut Incoming) -> (Vec<u8>, bool) {
    let mut text = Vec::new();
    while text.len() < EVIDENCE {
        match body.frame().await {
            None => return (text, true),
            Some(Err(_)) => return (text, false),
            Some(Ok(frame)) => {
                if let Ok(data) = frame.into_data() {
                    text.extend_from_slice(&data[..data.len().min(EVIDENCE - text.len())]);
                }
            }
        }
    }
    (text, false)
}

/// Reads a body to its end; `false` if it does not come to a good one soon.
async fn drain(body: &mut Incoming) -> bool {
    let mut total = 0;
    while let Some(frame) = body.frame().await {
        match frame {
            Ok(frame) => total += frame.data_ref().map_or(0, Bytes::len),
            Err(_) => return false,
        }
        if total > EVIDENCE {
            return false;
        }
    }
    true
}

fn too_large(what: &str, cap: usize, phase: Phase) -> CallError {
    CallError::new(FailureCode::TooLarge, phase, format!("{what} is over {cap} bytes"))
}

fn body_error(error: &hyper::Error, phase: Phase, origin: &Origin) -> CallError {
    let reset = is_reset(error);
    let code = if reset { FailureCode::ConnectionReset } else { FailureCode::TruncatedResponse };
    let message = if reset {
        format!("`{origin}` cut the connection in the middle of its answer")
    } else {
        format!("the answer of `{origin}` ended early: {error}")
    };
    CallError::new(code, phase, message)
}

/// What it means that a connection that stood gave no head of an answer.
pub(super) fn cut_error(error: &hyper::Error, origin: &Origin) -> CallError {
    let (code, message) = if let Some(tls) = tls_error_below(error) {
        classify(tls, &origin.host)
    } else if error.is_parse_too_large() {
        (FailureCode::TooLarge, format!("the head of the answer of `{origin}` is too large"))
    } else if error.is_parse() {
        (FailureCode::NotMcp, format!("what answers at `{origin}` does not speak HTTP: {error}"))
    } else if error.is_incomplete_message() {
        (
            FailureCode::ConnectionReset,
            format!("`{origin}` closed the connection without an answer"),
        )
    } else {
        (FailureCode::ConnectionReset, format!("`{origin}` cut the connection: {error}"))
    };
    CallError::new(code, Phase::Connect, message)
}

fn is_reset(error: &hyper::Error) -> bool {
    let mut below: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(error) = below {
        if let Some(io) = error.downcast_ref::<std::io::Error>() {
            return matches!(
                io.kind(),
                std::io::ErrorKind::ConnectionReset
                    | std::io::ErrorKind::ConnectionAborted
                    | std::io::ErrorKind::BrokenPipe
            );
        }
        below = error.source();
    }
    false
}
