//! What carries a conversation, behind one face: a process's pipes, or HTTP.

use std::sync::Arc;
use std::time::Duration;

use hyper::header::HeaderValue;
use mcpmon_core::failure::{FailureCode, Finding, FindingCode, Phase};
use mcpmon_core::observation::Phases;
use tokio::pin;
use tokio::time::{Instant, timeout};

use super::SessionOptions;
use crate::child::{self, ChildProcess};
use crate::error::CallError;
use crate::forensics::{self, Remains};
use crate::http::{EventStream, HttpAnswer, HttpChannel, NoAnswer, Post};
use crate::inbox::{Answer, Heard};
use crate::jsonrpc::{self, Id, Recall};
use crate::pipe::{Pipe, PipeError};
use crate::protocol::{self, Params, methods};

/// How long an answer may trail the end of the process that wrote it.
const LAST_ANSWER: Duration = Duration::from_millis(200);
/// How long a process that closed its output is given to be seen exiting.
const EXIT_AFTER_EOF: Duration = Duration::from_millis(500);

/// One request or notification, without its id.
#[derive(Debug)]
pub(super) struct Turn<'a> {
    pub(super) method: &'a str,
    pub(super) params: Params<'a>,
    /// The revision it is in, once one is chosen or tried.
    pub(super) version: Option<&'a str>,
    /// Whether it is in the manner of 2026-07-28.
    pub(super) modern: bool,
    pub(super) phase: Phase,
}

#[derive(Debug)]
pub(super) struct Wire {
    pub(super) kind: WireKind,
    pub(super) options: Arc<SessionOptions>,
    /// Oddities of the messages since they were last asked for.
    pub(super) notes: Vec<Finding>,
    /// Whether the server said on the way that a list is another now.
    pub(super) list_changed: bool,
    next_id: u64,
    /// Whether anything was ever answered.
    answered: bool,
}

#[derive(Debug)]
pub(super) enum WireKind {
    Process {
        pipe: Pipe,
        process: Option<ChildProcess>,
    },
    Http {
        channel: Box<HttpChannel>,
        session: Option<HeaderValue>,
    },
    /// The deprecated HTTP+SSE; `only` where the configuration allows nothing else.
    Events {
        stream: Box<EventStream>,
        only: bool,
    },
}

impl Wire {
    pub(super) fn new(kind: WireKind, options: &Arc<SessionOptions>) -> Self {
        Self {
            kind,
            options: Arc::clone(options),
            notes: Vec::new(),
            list_changed: false,
            next_id: 1,
            answered: false,
        }
    }

    /// Sends a request and gives what came back; a JSON-RPC error is an error here too.
    pub(super) async fn call(
        &mut self,
        turn: Turn<'_>,
        phases: &mut Phases,
        deadline: Instant,
    ) -> Result<Answer, CallError> {
        self.recall(turn, Recall::No, phases, deadline).await
    }

    /// The same, where the answer may be one that is remembered.
    pub(super) async fn recall(
        &mut self,
        turn: Turn<'_>,
        recall: Recall<'_>,
        phases: &mut Phases,
        deadline: Instant,
    ) -> Result<Answer, CallError> {
        let id = Id::from(self.next_id);
        self.next_id += 1;
        let message = turn.request(&id, &self.options);
        let called = match &mut self.kind {
            WireKind::Process { pipe, process } => {
                let asked = Asked { turn: &turn, answered: self.answered };
                asked.over_pipe(pipe, process.as_ref(), id, message, deadline).await
            }
            WireKind::Http { channel, session } => {
                if turn.method == methods::INITIALIZE {
                    *session = None;
                }
                let post = turn.post(message, session.as_ref());
                match channel.call(&post, &id, recall, phases, deadline).await {
                    Ok(got) => {
                        if turn.method == methods::INITIALIZE {
                            *session = session_named(&got);
                        }
                        Ok(self.note_http(got, turn.method))
                    }
                    Err(error) => Err(error),
                }
            }
            WireKind::Events { stream, .. } => {
                Box::pin(call_on_stream(stream, &turn, &id, message, phases, deadline)).await
            }
        };
        let answered = called.and_then(|answer| {
            if answer.sloppy_id || answer.batched {
                self.note_form(&answer, &turn);
            }
            match answer.payload {
                Ok(_) => Ok(answer),
                Err(error) => Err(CallError::from_rpc(turn.method, error, turn.phase)),
            }
        });
        self.answered |= match &answered {
            Ok(_) => true,
            Err(error) => error.rpc.is_some(),
        };
        answered.map_err(|error| error.redacted(&self.options.redactor))
    }

    /// The number of the last request; zero before the first.
    pub(super) const fn last_id(&self) -> u64 {
        self.next_id - 1
    }

    /// Sends a notification.
    pub(super) async fn notify(
        &mut self,
        turn: Turn<'_>,
        phases: &mut Phases,
        deadline: Instant,
    ) -> Result<(), CallError> {
        let options = Arc::clone(&self.options);
        let params = turn.wire_params(&options);
        let message = jsonrpc::encode_notification(turn.method, params.as_ref());
        let told = match &mut self.kind {
            WireKind::Process { pipe, .. } => {
                pipe.notify(message, deadline).await.map_err(|error| {
                    let text = format!("`{}` could not be sent: {error}", turn.method);
                    CallError::new(FailureCode::ResponseTimeout, turn.phase, text)
                })
            }
            WireKind::Http { channel, session } => {
                let post = turn.post(message, session.as_ref());
                channel.notify(&post, phases, deadline).await
            }
            WireKind::Events { stream, .. } => {
                let post = turn.post(message, None);
                Box::pin(stream.notify(&post, phases, deadline)).await
            }
        };
        told.map_err(|error| error.redacted(&options.redactor))
    }

    fn note_http(&mut self, got: HttpAnswer, method: &str) -> Answer {
        self.list_changed |= got.list_changed;
        self.notes.extend(got.notes);
        if let Some(content) = got.odd_content {
            let text = format!("`{method}` was answered with content type `{content}`");
            self.notes.push(Finding::new(FindingCode::Nonconforming, text));
        }
        if got.answered_twice {
            let text = format!("`{method}` was answered twice");
            self.notes.push(Finding::new(FindingCode::DuplicateResponse, text));
        }
        got.answer
    }

    fn note_form(&mut self, answer: &Answer, turn: &Turn<'_>) {
        let method = turn.method;
        if answer.sloppy_id {
            let text = format!("`{method}` was answered under its id in another JSON type");
            self.notes.push(Finding::new(FindingCode::Nonconforming, text));
        }
        if let Some(version) = turn.version.filter(|version| !protocol::has_batches(version))
            && answer.batched
            && turn.method != methods::INITIALIZE
        {
            let text = format!("`{method}` was answered in a batch, which {version} does not have");
            self.notes.push(Finding::new(FindingCode::Nonconforming, text));
        }
    }
}

/// The session a handshake was answered with. Some servers name one on a refusal too.
fn session_named(got: &HttpAnswer) -> Option<HeaderValue> {
    let named = got.session.as_ref().filter(|_| got.answer.payload.is_ok())?;
    // Copied, because a header's value holds on to the whole buffer it was read into.
    HeaderValue::from_bytes(named.as_bytes()).ok()
}

async fn call_on_stream(
    stream: &mut EventStream,
    turn: &Turn<'_>,
    id: &Id,
    message: Vec<u8>,
    phases: &mut Phases,
    deadline: Instant,
) -> Result<Answer, CallError> {
    let started = Instant::now();
    let post = turn.post(message, None);
    match stream.call(&post, id, phases, deadline).await {
        Ok(answer) => Ok(answer),
        Err(NoAnswer::Because(error)) => Err(error),
        Err(NoAnswer::InTime) => {
            if turn.method != methods::INITIALIZE {
                stream.notify_now(cancellation(id));
            }
            let heard = stream.heard();
            let (code, text) = explain_silence(&heard, turn.phase, turn.method, started.elapsed());
            let error = CallError::new(code, turn.phase, text);
            Err(if heard.samples.is_empty() { error } else { error.with("events", heard.samples) })
        }
    }
}

async fn call_while_it_lives(
    pipe: &mut Pipe,
    process: Option<&ChildProcess>,
    id: Id,
    message: Vec<u8>,
    deadline: Instant,
) -> Result<Answer, PipeError> {
    let call = pipe.call(id, message, deadline);
    let Some(process) = process else { return call.await };
    pin!(call);
    tokio::select! {
        biased;
        called = &mut call => called,
        // What it started may hold its output open, so the end of that is not waited for.
        _ = process.exited() => {
            timeout(LAST_ANSWER, call).await.unwrap_or(Err(PipeError::Ended))
        }
    }
}

fn cancellation(id: &Id) -> Vec<u8> {
    #[derive(serde::Serialize)]
    #[serde(rename_all = "camelCase")]
    struct Cancelled<'a> {
        request_id: &'a Id,
        reason: &'static str,
    }
    let params = Cancelled { request_id: id, reason: "no answer in time" };
    jsonrpc::encode_notification(methods::CANCELLED, Some(&params))
}

impl Turn<'_> {
    fn wire_params<'b>(&'b self, options: &'b SessionOptions) -> Option<Params<'b>> {
        let params = match (self.modern, self.version) {
            (true, Some(version)) => self.params.clone().modern(version, &options.client),
            _ => self.params.clone(),
        };
        (!params.is_empty()).then_some(params)
    }

    fn request(&self, id: &Id, options: &SessionOptions) -> Vec<u8> {
        jsonrpc::encode_request(id, self.method, self.wire_params(options).as_ref())
    }

    fn post<'b>(&'b self, message: Vec<u8>, session: Option<&'b HeaderValue>) -> Post<'b> {
        Post {
            method: self.method,
            body: message.into(),
            // Before a handshake there is no agreed revision to name, and the oldest have no header
            // to name it in.
            version: self.version.filter(|version| {
                self.method != methods::INITIALIZE && protocol::has_version_header(version)
            }),
            session: session.filter(|_| !self.modern),
            modern: self.modern,
            name: self.params.name(),
            mirrored: self.params.mirrored(),
            phase: self.phase,
        }
    }
}

/// A request to a process, and what its silence may mean.
struct Asked<'a> {
    turn: &'a Turn<'a>,
    /// Whether the process ever answered anything.
    answered: bool,
}

impl Asked<'_> {
    async fn over_pipe(
        &self,
        pipe: &mut Pipe,
        process: Option<&ChildProcess>,
        id: Id,
        message: Vec<u8>,
        deadline: Instant,
    ) -> Result<Answer, CallError> {
        let started = Instant::now();
        let called = call_while_it_lives(pipe, process, id.clone(), message, deadline).await;
        let error = match called {
            Ok(answer) => return Ok(answer),
            Err(error) => error,
        };
        if error == PipeError::Timeout && self.turn.method != methods::INITIALIZE {
            pipe.notify_now(cancellation(&id));
        }
        Err(Box::pin(self.explain(error, started.elapsed(), &pipe.heard(), process)).await)
    }

    async fn explain(
        &self,
        error: PipeError,
        waited: Duration,
        heard: &Heard,
        process: Option<&ChildProcess>,
    ) -> CallError {
        let phase = self.turn.phase;
        match error {
            PipeError::TooLarge => {
                CallError::new(FailureCode::TooLarge, phase, "a line of its output is over the cap")
            }
            PipeError::Ended => self.explain_end(heard, process).await,
            PipeError::Timeout => {
                let (code, message) = explain_silence(heard, phase, self.turn.method, waited);
                let mut error = CallError::new(code, phase, message);
                if !heard.samples.is_empty() {
                    error = error.with("stdout", heard.samples.clone());
                }
                let stderr = process.map(ChildProcess::stderr).unwrap_or_default();
                if stderr.is_empty() { error } else { error.with("stderr", stderr) }
            }
        }
    }

    async fn explain_end(&self, heard: &Heard, process: Option<&ChildProcess>) -> CallError {
        let phase = self.turn.phase;
        let exit = match process {
            Some(process) => process.exit_within(EXIT_AFTER_EOF).await,
            None => None,
        };
        if process.is_some_and(ChildProcess::is_lost) {
            return child::lost(phase);
        }
        let stderr = match (process, exit) {
            (Some(process), Some(_)) => process.last_words().await,
            (Some(process), None) => process.stderr(),
            (None, _) => Vec::new(),
        };
        let mut error = match exit {
            Some(exit) => exit_error(
                &Remains { exit, stderr: &stderr, stdout: &heard.samples, answered: self.answered },
                phase,
            ),
            None => CallError::new(
                FailureCode::ClosedOutput,
                phase,
                "the process closed its standard output, but lives",
            ),
        };
        if !stderr.is_empty() {
            error = error.with("stderr", stderr);
        }
        if heard.samples.is_empty() { error } else { error.with("stdout", heard.samples.clone()) }
    }
}

/// The failure an ended process is.
pub(super) fn exit_error(remains: &Remains<'_>, phase: Phase) -> CallError {
    let found = forensics::diagnose(remains);
    let mut error = CallError::new(found.code, phase, found.message);
    if let Some((key, name)) = found.subject {
        error = error.with(key, name);
    }
    if let Some(advice) = found.advice {
        error.failure.next_step = advice;
    }
    match remains.exit {
        forensics::Exit::Code(code) => error.with("exit_status", code),
        forensics::Exit::Signal(signal) => error.with("signal", forensics::signal_name(signal)),
        forensics::Exit::Unknown => error,
    }
}

/// Why nothing came in time, from what came instead.
fn explain_silence(
    heard: &Heard,
    phase: Phase,
    method: &str,
    waited: Duration,
) -> (FailureCode, String) {
    let span = format!("{:.1} s", waited.as_secs_f64());
    let opening = phase == Phase::Handshake;
    if heard.stray > 0 {
        let text = format!("`{method}` had no answer within {span}, but ids never asked had");
        (FailureCode::WrongResponseId, text)
    } else if heard.misshapen > 0 {
        let text = format!("no answer to `{method}` within {span}, only messages out of shape");
        (FailureCode::InvalidMessage, text)
    } else if heard.broken > 0 && heard.messages == 0 {
        let text = format!("no answer to `{method}` within {span}, only lines of broken JSON");
        (FailureCode::InvalidJson, text)
    } else if heard.noise > 0 && heard.messages == 0 && opening {
        let text = format!("no answer to `{method}` within {span}, only lines that are not MCP");
        (FailureCode::NotMcp, text)
    } else if opening {
        (FailureCode::HandshakeTimeout, format!("no answer to `{method}` within {span}"))
    } else {
        (FailureCode::ResponseTimeout, format!("no answer to `{method}` within {span}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn silence_is_explained_by_what_was_heard_instead() {
        use FailureCode as F;
        let heard = |noise, broken, misshapen, stray, messages| Heard {
            noise,
            broken,
            misshapen,
            stray,
            messages,
            ..Heard::default()
        };
        let cases = [
            (heard(0, 0, 0, 0, 0), Phase::Handshake, F::HandshakeTimeout),
            (heard(0, 0, 0, 0, 0), Phase::Request, F::ResponseTimeout),
            (heard(3, 0, 0, 0, 0), Phase::Handshake, F::NotMcp),
            (heard(3, 0, 0, 0, 0), Phase::Request, F::ResponseTimeout),
            (heard(3, 0, 0, 0, 1), Phase::Handshake, F::HandshakeTimeout),
            (heard(3, 1, 0, 0, 0), Phase::Handshake, F::InvalidJson),
            (heard(3, 1, 1, 0, 0), Phase::Request, F::InvalidMessage),
            (heard(0, 0, 0, 1, 1), Phase::Request, F::WrongResponseId),
        ];
        for (heard, phase, expected) in cases {
            let (code, text) = explain_silence(&heard, phase, "ping", Duration::from_secs(3));
            assert_eq!(code, expected, "{heard:?}");
            assert!(text.contains("3.0 s"), "{text}");
        }
    }
}
