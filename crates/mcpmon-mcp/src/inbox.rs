//! Where messages arrive on a conversation whose answers come whenever they like: a pipe, or the
//! event stream of the deprecated HTTP+SSE.
//!
//! It finds the answer to what was asked, answers what a server asks, and counts everything else,
//! to say afterwards why nothing came. It does no I/O: a reading task puts bytes in, the asking
//! side waits.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use mcpmon_core::text::truncate;
use serde_json::value::RawValue;
use tokio::sync::{Notify, oneshot};
use tokio::time::Instant;

use crate::error::{EXCERPT, excerpt};
use crate::jsonrpc::{self, Echo, Id, Incoming, Message, ParseError, Response, RpcError, codes};
use crate::protocol::methods;

/// Requests given up whose late answers are still known.
const GIVEN_UP: usize = 64;
const SAMPLES: usize = 5;

/// An answer to one request.
#[derive(Debug)]
pub struct Answer {
    /// The result, or the server's error.
    pub payload: Result<Payload, RpcError>,
    /// From the request written to the matching message parsed.
    pub latency: Duration,
    /// The id came back in another JSON type.
    pub sloppy_id: bool,
    /// It came in a batch.
    pub batched: bool,
}

/// The result in an answer.
#[derive(Debug)]
pub enum Payload {
    /// As it came; and, where it was a body of its own, by what the same one is known again.
    New(Box<RawValue>, Option<Echo>),
    /// The one the echo that was given with the question is of: its whole body, not taken apart.
    Same(Bytes),
}

impl Payload {
    /// The result, taken apart if that was not done yet.
    pub fn into_raw(self) -> Box<RawValue> {
        match self {
            Self::New(result, _) => result,
            Self::Same(body) => match jsonrpc::parse(&body) {
                Ok(Incoming::Single(Message::Response(Response {
                    payload: Ok(result), ..
                }))) => result.to_owned(),
                // An echo is only ever of a good response.
                _ => Box::default(),
            },
        }
    }
}

impl From<&RawValue> for Payload {
    fn from(result: &RawValue) -> Self {
        Self::New(result.to_owned(), None)
    }
}

/// Why no answer can come any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Unanswered {
    /// The far side closed its output.
    Ended,
    /// A message was over the cap.
    TooLarge,
}

/// What was heard, answers apart.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Heard {
    /// Valid JSON-RPC messages, answers included.
    pub messages: u64,
    /// Lines that have nothing to do with JSON-RPC: text, or a logger's JSON.
    pub noise: u64,
    /// Lines that begin like a message and are not JSON, or not UTF-8.
    pub broken: u64,
    /// JSON that means to be a JSON-RPC message and is none.
    pub misshapen: u64,
    /// Answers to what was never asked.
    pub stray: u64,
    /// Answers to what was answered before.
    pub duplicate: u64,
    /// Answers to what was given up.
    pub late: u64,
    /// Requests of the server.
    pub asked: u64,
    /// The first thing it asked for.
    pub first_asked: Option<String>,
    /// The first few lines that were no messages.
    pub samples: Vec<String>,
}

impl Heard {
    fn sample(&mut self, line: &[u8]) {
        if self.samples.len() < SAMPLES {
            self.samples.push(excerpt(line));
        }
    }
}

/// What the reading task and the asking side share.
#[derive(Debug, Default)]
pub(crate) struct Inbox {
    state: Mutex<State>,
    wake: Notify,
}

#[derive(Debug, Default)]
struct State {
    waiting: Option<Waiting>,
    last_answered: Option<Id>,
    given_up: Vec<Id>,
    heard: Heard,
    ended: Option<Unanswered>,
}

#[derive(Debug)]
struct Waiting {
    id: Id,
    reply: oneshot::Sender<Result<Reply, Unanswered>>,
}

#[derive(Debug)]
struct Reply {
    payload: Result<Payload, RpcError>,
    at: Instant,
    sloppy_id: bool,
    batched: bool,
}

/// An answer that is waited for.
#[derive(Debug)]
pub(crate) struct Expected(oneshot::Receiver<Result<Reply, Unanswered>>);

impl Expected {
    /// The answer, to a request written at `sent`.
    pub(crate) async fn answered(self, sent: Instant) -> Result<Answer, Unanswered> {
        let Reply { payload, at, sloppy_id, batched } =
            self.0.await.unwrap_or(Err(Unanswered::Ended))?;
        let latency = at.saturating_duration_since(sent);
        Ok(Answer { payload, latency, sloppy_id, batched })
    }
}

impl Inbox {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for the answer to `id` from now on, and for no other.
    pub(crate) fn expect(&self, id: &Id) -> Result<Expected, Unanswered> {
        let (reply, replied) = oneshot::channel();
        let mut state = self.state();
        if let Some(reason) = state.ended {
            return Err(reason);
        }
        state.waiting = Some(Waiting { id: id.clone(), reply });
        Ok(Expected(replied))
    }

    /// Waits for the answer to `id` no longer; should it come, it is late.
    pub(crate) fn give_up(&self, id: Id) {
        let mut state = self.state();
        state.waiting = None;
        if state.given_up.len() == GIVEN_UP {
            state.given_up.remove(0);
        }
        state.given_up.push(id);
    }

    /// Takes what came in one line or event. What the server asks in it is answered by `answer`.
    pub(crate) fn take(&self, line: &[u8], mut answer: impl FnMut(Vec<u8>)) {
        match jsonrpc::parse(line) {
            Ok(Incoming::Single(message)) => self.take_message(message, false, &mut answer),
            Ok(Incoming::Batch(messages)) => {
                for message in messages {
                    match message {
                        Ok(message) => self.take_message(message, true, &mut answer),
                        Err(_) => self.state().heard.misshapen += 1,
                    }
                }
            }
            Err(error) => {
                let heard = &mut self.state().heard;
                match error {
                    // Loggers write JSON to standard output too.
                    ParseError::NotAMessage { .. } if !names_json_rpc(line) => heard.noise += 1,
                    ParseError::NotAMessage { .. } | ParseError::BatchTooLong => {
                        heard.misshapen += 1;
                    }
                    ParseError::NotJson { .. } if !line.trim_ascii_start().starts_with(b"{") => {
                        heard.noise += 1;
                    }
                    ParseError::NotJson { .. } | ParseError::NotUtf8 { .. } => heard.broken += 1,
                }
                heard.sample(line);
            }
        }
    }

    fn take_message(&self, message: Message<'_>, batched: bool, answer: &mut impl FnMut(Vec<u8>)) {
        let mut state = self.state();
        state.heard.messages += 1;
        match message {
            Message::Response(response) => state.take_response(response, batched),
            Message::Notification(told) => {
                drop(state);
                if methods::is_list_changed(&told.method) {
                    self.wake.notify_one();
                }
            }
            Message::Request(asked) => {
                state.heard.asked += 1;
                state.heard.first_asked.get_or_insert_with(|| truncate(&asked.method, EXCERPT));
                drop(state);
                answer(answer_to_server(&asked));
            }
        }
    }

    /// Tells the one who waits that no answer comes, though others may.
    pub(crate) fn refuse(&self, reason: Unanswered) {
        if let Some(waiting) = self.state().waiting.take() {
            let _ = waiting.reply.send(Err(reason));
        }
    }

    /// Nothing will come any more; the first reason given counts.
    pub(crate) fn end(&self, reason: Unanswered) {
        self.refuse(reason);
        self.state().ended.get_or_insert(reason);
        self.wake.notify_one();
    }

    /// What was heard since the last time this was asked.
    pub(crate) fn take_heard(&self) -> Heard {
        std::mem::take(&mut self.state().heard)
    }

    /// What was heard since [`Inbox::take_heard`].
    pub(crate) fn heard(&self) -> Heard {
        self.state().heard.clone()
    }

    /// Whether nothing will come any more.
    pub(crate) fn has_ended(&self) -> bool {
        self.state().ended.is_some()
    }

    /// Resolves when it ended or a list changed. Cancel-safe; each event wakes once.
    pub(crate) async fn woken(&self) {
        self.wake.notified().await;
    }
}

impl State {
    fn take_response(&mut self, response: Response<'_>, batched: bool) {
        let matches = |waiting: &Waiting| match &response.id {
            Some(id) => *id == waiting.id || id.is_sloppy_echo_of(&waiting.id),
            // An error that could not name its request belongs to the only one there is.
            None => response.payload.is_err(),
        };
        if self.waiting.as_ref().is_some_and(matches) {
            let Some(waiting) = self.waiting.take() else { return };
            let sloppy_id = response.id.as_ref().is_some_and(|id| *id != waiting.id);
            self.last_answered = Some(waiting.id);
            let payload = response.payload.map(Payload::from);
            let reply = Reply { payload, at: Instant::now(), sloppy_id, batched };
            let _ = waiting.reply.send(Ok(reply));
            return;
        }
        match &response.id {
            Some(id) if self.last_answered.as_ref() == Some(id) => self.heard.duplicate += 1,
            Some(id) if self.given_up.contains(id) => self.heard.late += 1,
            _ => self.heard.stray += 1,
        }
    }
}

fn names_json_rpc(line: &[u8]) -> bool {
    let key = b"\"jsonrpc\"";
    line.windows(key.len()).any(|part| part == key)
}

/// A monitor answers a ping, and has nothing else a server could ask for.
pub(crate) fn answer_to_server(asked: &jsonrpc::Request<'_>) -> Vec<u8> {
    #[derive(serde::Serialize)]
    struct Empty {}
    if asked.method == methods::PING {
        jsonrpc::encode_result(&asked.id, &Empty {})
    } else {
        let refusal = RpcError::new(codes::METHOD_NOT_FOUND, "this client only watches");
        jsonrpc::encode_error(Some(&asked.id), &refusal)
    }
}
