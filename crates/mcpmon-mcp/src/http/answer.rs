//! Reads what comes back on a POST until the message that answers it is there.

use std::time::Duration;

use bytes::Bytes;
use hyper::header::{CONTENT_ENCODING, CONTENT_TYPE, HeaderMap, HeaderName};
use mcpmon_core::failure::{FailureCode, Finding, FindingCode, Phase};
use mcpmon_core::text::truncate;
use tokio::time::{Instant, timeout};

use super::connection::AnswerBody;
use super::status::{self, Content};
use super::tls::{classify, tls_error_below};
use super::{Exchange, HttpAnswer, HttpChannel, Origin, Post};
use crate::error::{CallError, EXCERPT};
use crate::inbox::{Answer, Payload, answer_to_server};
use crate::jsonrpc::{self, Echo, Id, Message, ParseError, Recall, Response};
use crate::protocol::{headers, methods};
use crate::sse::{Retry, SseParser};

/// Most of a body read that only serves as evidence.
const EVIDENCE: usize = 64 * 1024;
/// How long a stream is given to end after the answer, so that its connection can be used again.
const TAIL: Duration = Duration::from_millis(25);
/// Most requests of a server that are answered while it prepares one answer to us.
const MAX_ASKED: u32 = 16;
/// How often a stream that ended without the answer is taken up again.
const MAX_RESUMED: u32 = 16;

impl HttpChannel {
    pub(super) async fn read(
        &mut self,
        exchange: Exchange,
        post: &Post<'_>,
        id: &Id,
        recall: Recall<'_>,
        deadline: Instant,
    ) -> Result<HttpAnswer, CallError> {
        let Exchange { response, slot, sent } = exchange;
        let (head, mut body) = response.into_parts();
        if !head.status.is_success() {
            let (text, whole) = collect_some(&mut body).await;
            if whole {
                self.spare(slot, body.into_connection());
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
                let from = Whole { content, headers: &head.headers, recall };
                self.read_json(&mut body, from, post, id, sent, deadline).await
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
            self.spare(slot, body.into_connection());
        }
        Ok(HttpAnswer {
            answer: found.answer,
            session,
            list_changed: found.list_changed,
            odd_content,
            answered_twice: found.answered_twice,
            notes: found.notes,
        })
    }

    async fn read_json(
        &mut self,
        body: &mut AnswerBody,
        from: Whole<'_>,
        post: &Post<'_>,
        id: &Id,
        sent: Instant,
        deadline: Instant,
    ) -> Result<(Found, Option<String>), CallError> {
        let Whole { content, headers, recall } = from;
        let text = collect(body, self.cap, post.phase, self.origin()).await?;
        if let Recall::Expect(echo) = recall
            && content == Content::Json
            && echo.is_of(&text, id)
        {
            return Ok((Found::same(text, sent), None));
        }
        let incoming = match jsonrpc::parse(&text) {
            Ok(incoming) => incoming,
            Err(_) if content == Content::Unnamed => {
                return Err(status::content_error(content, headers, &text, post.phase));
            }
            Err(error) => return Err(status::parse_error(&error, &text, post.phase)),
        };
        let odd = (content == Content::Unnamed)
            .then(|| status::header(headers, &CONTENT_TYPE).unwrap_or_else(|| "none".to_owned()));
        let mut search = Search::new(id, sent);
        for question in search.take_incoming(incoming) {
            self.reply(question, &mut search, post, deadline).await;
        }
        let mut found = search.finish(post, &text)?;
        if !matches!(recall, Recall::No) {
            found.learn(&text, id);
        }
        Ok((found, odd))
    }

    async fn read_events(
        &mut self,
        body: &mut AnswerBody,
        post: &Post<'_>,
        id: &Id,
        sent: Instant,
        deadline: Instant,
    ) -> Result<Found, CallError> {
        let mut search = Search::new(id, sent);
        let mut heard = self.read_stream(body, &mut search, post, deadline).await;
        // A server of 2025-11-25 may close a stream and keep the answer for whoever comes back.
        for _ in 0..MAX_RESUMED {
            let Some(last_event) = search.resumable(&heard, post) else { break };
            tokio::time::sleep(search.pause()).await;
            let mut body = Box::pin(self.resume(post, &last_event, deadline)).await?;
            heard = self.read_stream(&mut body, &mut search, post, deadline).await;
        }
        heard?;
        search.finish(post, b"")
    }

    /// Reads one stream until the answer or its end.
    async fn read_stream(
        &mut self,
        body: &mut AnswerBody,
        search: &mut Search<'_>,
        post: &Post<'_>,
        deadline: Instant,
    ) -> Result<(), CallError> {
        let mut parser = SseParser::new(self.cap);
        while let Some(chunk) = next_chunk(body, post.phase, self.origin()).await? {
            search.total += chunk.len();
            if search.total > self.cap {
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
                    self.reply(question, search, post, deadline).await;
                }
            }
            search.note_stream(&parser);
            if search.found.is_some() {
                break;
            }
        }
        Ok(())
    }

    /// Answers what a legacy server asked on the way; it may wait for that before it answers us.
    async fn reply(
        &self,
        answer: Vec<u8>,
        search: &mut Search<'_>,
        post: &Post<'_>,
        deadline: Instant,
    ) {
        search.replies += 1;
        // In the modern era there is no way to answer one, and nothing to answer.
        if post.modern || search.replies > MAX_ASKED {
            return;
        }
        Box::pin(self.answer_server(answer, post, deadline)).await;
    }
}

/// Reads the answer to a message that has none, of which only the status counts.
pub(super) async fn acknowledged(exchange: Exchange, post: &Post<'_>) -> Result<(), CallError> {
    let Exchange { response, slot, .. } = exchange;
    let (head, mut body) = response.into_parts();
    if head.status.is_success() {
        if body.is_end_stream() || timeout(TAIL, drain(&mut body)).await == Ok(true) {
            slot.give_back(body.into_connection());
        }
        return Ok(());
    }
    let (text, whole) = collect_some(&mut body).await;
    if whole {
        slot.give_back(body.into_connection());
    }
    Err(status::status_error(head.status, &head.headers, &text, post.method, post.phase))
}

/// What is known of a body before it is read.
struct Whole<'a> {
    content: Content,
    headers: &'a HeaderMap,
    recall: Recall<'a>,
}

/// The answer, once it is found.
struct Found {
    answer: Answer,
    list_changed: bool,
    answered_twice: bool,
    notes: Vec<Finding>,
}

impl Found {
    /// A body that is the one which came last, but for its id.
    fn same(body: Bytes, sent: Instant) -> Self {
        let answer = Answer {
            payload: Ok(Payload::Same(body)),
            latency: sent.elapsed(),
            sloppy_id: false,
            batched: false,
        };
        Self { answer, list_changed: false, answered_twice: false, notes: Vec::new() }
    }

    /// Remembers a body that held a good answer and nothing else.
    fn learn(&mut self, body: &[u8], id: &Id) {
        let plain = !(self.list_changed || self.answered_twice) && self.notes.is_empty();
        let Answer { payload, sloppy_id, batched, .. } = &mut self.answer;
        if let Ok(Payload::New(_, echo)) = payload
            && plain
            && !(*sloppy_id || *batched)
        {
            *echo = Echo::of(body, id);
        }
    }
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
    /// The first thing the server asked for.
    asked: Option<String>,
    /// How often it asked.
    replies: u32,
    /// Bytes of event streams so far.
    total: usize,
    /// Where to take a stream up again, and after how long.
    last_event: Option<String>,
    retry: Option<Retry>,
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
            asked: None,
            replies: 0,
            total: 0,
            last_event: None,
            retry: None,
        }
    }

    fn note_stream(&mut self, parser: &SseParser) {
        if let Some(id) = parser.last_id() {
            self.last_event = Some(id.to_owned());
        }
        self.retry = parser.retry_ms().map(Retry::from_millis).or(self.retry);
    }

    /// The event to go on after, if a stream that ended like this can be taken up again.
    fn resumable(&self, heard: &Result<(), CallError>, post: &Post<'_>) -> Option<String> {
        let cut = match heard {
            Ok(()) => true,
            Err(error) => {
                matches!(
                    error.code(),
                    FailureCode::ConnectionReset | FailureCode::TruncatedResponse
                )
            }
        };
        let open = self.found.is_none() && self.strays == 0 && self.last_error.is_none();
        if !cut || !open || post.modern {
            return None;
        }
        self.last_event.clone().filter(|id| !id.is_empty())
    }

    fn pause(&self) -> Duration {
        self.retry.map_or(Retry::DEFAULT, |retry| retry.pause)
    }

    /// Takes one message; gives our answer if it is a request. An error `alone` in its body
    /// answers what was posted, whatever id it bears.
    fn take(
        &mut self,
        message: Result<Message<'_>, ParseError>,
        alone: bool,
        batched: bool,
    ) -> Option<Vec<u8>> {
        match message {
            Ok(Message::Response(response)) => self.take_response(response, alone, batched),
            Ok(Message::Notification(told)) => {
                self.list_changed |= methods::is_list_changed(&told.method);
            }
            Ok(Message::Request(asked)) => {
                self.asked.get_or_insert_with(|| truncate(&asked.method, EXCERPT));
                return Some(answer_to_server(&asked));
            }
            Err(error) => self.last_error = Some((error, Vec::new())),
        }
        None
    }

    fn take_event(&mut self, data: &[u8]) -> Vec<Vec<u8>> {
        match jsonrpc::parse(data) {
            Ok(incoming) => self.take_incoming(incoming),
            Err(error) => {
                let start = data[..data.len().min(EVIDENCE)].to_vec();
                self.last_error = Some((error, start));
                Vec::new()
            }
        }
    }

    fn take_incoming(&mut self, incoming: jsonrpc::Incoming<'_>) -> Vec<Vec<u8>> {
        let batched = matches!(incoming, jsonrpc::Incoming::Batch(_));
        let messages = incoming.into_messages();
        let alone = messages.len() == 1;
        messages.into_iter().filter_map(|message| self.take(message, alone, batched)).collect()
    }

    fn take_response(&mut self, response: Response<'_>, alone: bool, batched: bool) {
        let exact = response.id.as_ref() == Some(self.id);
        let sloppy = response.id.as_ref().is_some_and(|id| id.is_sloppy_echo_of(self.id));
        let nameless = alone && response.payload.is_err();
        if !(exact || sloppy || nameless) {
            self.strays += 1;
        } else if self.found.is_some() {
            self.answered_twice = true;
        } else {
            let payload = response.payload.map(Payload::from);
            let latency = self.sent.elapsed();
            self.found = Some(Answer { payload, latency, sloppy_id: sloppy, batched });
        }
    }

    fn finish(self, post: &Post<'_>, body: &[u8]) -> Result<Found, CallError> {
        let method = post.method;
        if let Some(answer) = self.found {
            let mut notes = Vec::new();
            if let Some(asked) = self.asked.filter(|_| post.modern) {
                let text = format!("the server asked for `{asked}`, which this revision forbids");
                notes.push(Finding::new(FindingCode::Nonconforming, text));
            }
            if let Some(retry) = self.retry.filter(|retry| retry.is_clamped()) {
                let text = format!("`retry` of {} ms is out of bounds", retry.asked_ms);
                notes.push(Finding::new(FindingCode::ClampedHint, text));
            }
            return Ok(Found {
                notes,
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

pub(super) async fn next_chunk(
    body: &mut AnswerBody,
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
    body: &mut AnswerBody,
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
pub(super) async fn collect_some(body: &mut AnswerBody) -> (Vec<u8>, bool) {
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
async fn drain(body: &mut AnswerBody) -> bool {
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
