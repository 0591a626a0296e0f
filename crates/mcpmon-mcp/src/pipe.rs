//! JSON-RPC over a pair of byte streams: a process's pipes, or a duplex in a test.
//!
//! Two tasks carry it. One writes whole messages and nothing else, so that a request given up
//! never leaves half a line behind; one reads, so that a server that asks something between our
//! questions is answered at once, and noise never fills the pipe. What was heard is counted, to
//! say afterwards why nothing came.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde_json::value::RawValue;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _};
use tokio::sync::{Notify, mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout_at};

use crate::error::excerpt;
use crate::jsonrpc::{self, Id, Incoming, Message, ParseError, Response, RpcError, codes};
use crate::lines::{Line, LineReader};
use crate::protocol::methods;

/// Messages waiting to be written; more than a health check ever has in flight.
const QUEUE: usize = 64;
const SAMPLES: usize = 5;

/// An answer to one request.
#[derive(Debug)]
pub struct Answer {
    /// The result, or the server's error.
    pub payload: Result<Box<RawValue>, RpcError>,
    /// From the request written to the matching message parsed.
    pub latency: Duration,
    /// The id came back in another JSON type.
    pub sloppy_id: bool,
}

/// Why a request over a pipe has no answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PipeError {
    /// The deadline passed.
    #[error("no answer in time")]
    Timeout,
    /// The server closed its output.
    #[error("the output ended")]
    Ended,
    /// A line was over the cap.
    #[error("a line over the cap")]
    TooLarge,
}

/// What was heard on a pipe, answers apart.
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
struct Shared {
    state: Mutex<State>,
    wake: Notify,
}

#[derive(Debug, Default)]
struct State {
    waiting: Option<Waiting>,
    last_answered: Option<Id>,
    given_up: Vec<Id>,
    heard: Heard,
    ended: bool,
}

#[derive(Debug)]
struct Waiting {
    id: Id,
    reply: oneshot::Sender<Result<Reply, PipeError>>,
}

#[derive(Debug)]
struct Reply {
    payload: Result<Box<RawValue>, RpcError>,
    at: Instant,
    sloppy_id: bool,
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One conversation over a pair of streams.
#[derive(Debug)]
pub struct Pipe {
    outgoing: Option<mpsc::Sender<Vec<u8>>>,
    shared: Arc<Shared>,
    reader: JoinHandle<()>,
    writer: JoinHandle<()>,
}

impl Pipe {
    /// Starts to read `from` and write `to`; lines over `cap` bytes are refused.
    pub fn new<R, W>(from: R, to: W, cap: usize) -> Self
    where
        R: AsyncRead + Send + Unpin + 'static,
        W: AsyncWrite + Send + Unpin + 'static,
    {
        let shared = Arc::new(Shared::default());
        let (outgoing, queue) = mpsc::channel(QUEUE);
        let answers = outgoing.downgrade();
        let reader =
            Reader { lines: LineReader::new(from, cap), shared: Arc::clone(&shared), answers };
        Self {
            outgoing: Some(outgoing),
            shared,
            reader: tokio::spawn(reader.run()),
            writer: tokio::spawn(write(to, queue)),
        }
    }

    /// Sends a request and waits for its answer. One request at a time: `&mut` says so.
    ///
    /// # Errors
    ///
    /// [`PipeError`]. After a timeout the request is given up and a late answer counted.
    pub async fn call(
        &mut self,
        id: Id,
        message: Vec<u8>,
        deadline: Instant,
    ) -> Result<Answer, PipeError> {
        let (reply, replied) = oneshot::channel();
        {
            let mut state = self.shared.state();
            if state.ended {
                return Err(PipeError::Ended);
            }
            state.waiting = Some(Waiting { id: id.clone(), reply });
        }
        let sent = Instant::now();
        let exchange = async {
            self.queue(message).await?;
            replied.await.unwrap_or(Err(PipeError::Ended))
        };
        let outcome = match timeout_at(deadline, exchange).await {
            Ok(outcome) => outcome,
            Err(_) => Err(PipeError::Timeout),
        };
        let mut state = self.shared.state();
        state.waiting = None;
        match outcome {
            Ok(Reply { payload, at, sloppy_id }) => {
                Ok(Answer { payload, latency: at.saturating_duration_since(sent), sloppy_id })
            }
            Err(error) => {
                if state.given_up.len() == QUEUE {
                    state.given_up.remove(0);
                }
                state.given_up.push(id);
                Err(error)
            }
        }
    }

    /// Sends a notification; it is written when its turn comes.
    ///
    /// # Errors
    ///
    /// [`PipeError::Timeout`] if the server reads nothing until the deadline.
    pub async fn notify(&mut self, message: Vec<u8>, deadline: Instant) -> Result<(), PipeError> {
        timeout_at(deadline, self.queue(message)).await.unwrap_or(Err(PipeError::Timeout))
    }

    /// Sends a notification if there is room to; never waits.
    pub fn notify_now(&self, message: Vec<u8>) {
        if let Some(outgoing) = &self.outgoing {
            let _ = outgoing.try_send(message);
        }
    }

    async fn queue(&self, message: Vec<u8>) -> Result<(), PipeError> {
        let outgoing = self.outgoing.as_ref().ok_or(PipeError::Ended)?;
        outgoing.send(message).await.map_err(|_| PipeError::Ended)
    }

    /// What was heard since the last time this was asked.
    pub fn take_heard(&self) -> Heard {
        std::mem::take(&mut self.shared.state().heard)
    }

    /// What was heard since [`Pipe::take_heard`].
    pub fn heard(&self) -> Heard {
        self.shared.state().heard.clone()
    }

    /// Whether the server closed its output.
    pub fn has_ended(&self) -> bool {
        self.shared.state().ended
    }

    /// Resolves when the output ended or a list changed. Cancel-safe; each event wakes once.
    pub async fn woken(&self) {
        self.shared.wake.notified().await;
    }

    /// Closes the server's input, after what is queued was written if that takes no longer than
    /// `patience`.
    pub async fn close_input(&mut self, patience: Duration) {
        self.outgoing = None;
        if tokio::time::timeout(patience, &mut self.writer).await.is_err() {
            self.writer.abort();
        }
    }
}

impl Drop for Pipe {
    fn drop(&mut self) {
        self.reader.abort();
        self.writer.abort();
    }
}

async fn write<W: AsyncWrite + Unpin>(mut to: W, mut queue: mpsc::Receiver<Vec<u8>>) {
    while let Some(mut message) = queue.recv().await {
        message.push(b'\n');
        // A server that closed its input says so by ending its output too, or by silence; the
        // queue then closes and the asking side learns it from there.
        if to.write_all(&message).await.is_err() || to.flush().await.is_err() {
            return;
        }
    }
    let _ = to.shutdown().await;
}

struct Reader<R> {
    lines: LineReader<R>,
    shared: Arc<Shared>,
    answers: mpsc::WeakSender<Vec<u8>>,
}

impl<R: AsyncRead + Unpin> Reader<R> {
    async fn run(mut self) {
        while let Ok(Some(line)) = self.lines.next().await {
            match line {
                Line::Text(text) => take_line(&self.shared, &self.answers, text),
                Line::TooLong => {
                    if let Some(waiting) = self.shared.state().waiting.take() {
                        let _ = waiting.reply.send(Err(PipeError::TooLarge));
                    }
                }
            }
        }
        let mut state = self.shared.state();
        state.ended = true;
        state.waiting = None;
        drop(state);
        self.shared.wake.notify_one();
    }
}

fn take_line(shared: &Shared, answers: &mpsc::WeakSender<Vec<u8>>, line: &[u8]) {
    match jsonrpc::parse(line) {
        Ok(Incoming::Single(message)) => take_message(shared, answers, message),
        Ok(Incoming::Batch(messages)) => {
            for message in messages {
                match message {
                    Ok(message) => take_message(shared, answers, message),
                    Err(_) => shared.state().heard.misshapen += 1,
                }
            }
        }
        Err(error) => {
            let heard = &mut shared.state().heard;
            match error {
                // Loggers write JSON to standard output too.
                ParseError::NotAMessage { .. } if !names_json_rpc(line) => heard.noise += 1,
                ParseError::NotAMessage { .. } | ParseError::BatchTooLong => heard.misshapen += 1,
                ParseError::NotJson { .. } if !line.trim_ascii_start().starts_with(b"{") => {
                    heard.noise += 1;
                }
                ParseError::NotJson { .. } | ParseError::NotUtf8 { .. } => heard.broken += 1,
            }
            heard.sample(line);
        }
    }
}

fn names_json_rpc(line: &[u8]) -> bool {
    let key = b"\"jsonrpc\"";
    line.windows(key.len()).any(|part| part == key)
}

fn take_message(shared: &Shared, answers: &mpsc::WeakSender<Vec<u8>>, message: Message<'_>) {
    let mut state = shared.state();
    state.heard.messages += 1;
    match message {
        Message::Response(response) => state.take_response(response),
        Message::Notification(told) => {
            drop(state);
            if methods::is_list_changed(&told.method) {
                shared.wake.notify_one();
            }
        }
        Message::Request(asked) => {
            drop(state);
            let answer = answer_to_server(&asked);
            if let Some(answers) = answers.upgrade() {
                let _ = answers.try_send(answer);
            }
        }
    }
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

impl State {
    fn take_response(&mut self, response: Response<'_>) {
        let matches = |waiting: &Waiting| match &response.id {
            Some(id) => *id == waiting.id || id.is_sloppy_echo_of(&waiting.id),
            // An error that could not name its request belongs to the only one there is.
            None => response.payload.is_err(),
        };
        if self.waiting.as_ref().is_some_and(matches) {
            let Some(waiting) = self.waiting.take() else { return };
            let sloppy_id = response.id.as_ref().is_some_and(|id| *id != waiting.id);
            self.last_answered = Some(waiting.id);
            let payload = response.payload.map(ToOwned::to_owned);
            let _ = waiting.reply.send(Ok(Reply { payload, at: Instant::now(), sloppy_id }));
            return;
        }
        match &response.id {
            Some(id) if self.last_answered.as_ref() == Some(id) => self.heard.duplicate += 1,
            Some(id) if self.given_up.contains(id) => self.heard.late += 1,
            _ => self.heard.stray += 1,
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncBufReadExt as _, BufReader, DuplexStream, split};
    use tokio::time::sleep;

    use super::*;

    const CAP: usize = 1_000;

    fn pipe() -> (Pipe, DuplexStream) {
        let (near, far) = tokio::io::duplex(4 * 1024);
        let (from, to) = split(near);
        (Pipe::new(from, to, CAP), far)
    }

    fn in_(secs: u64) -> Instant {
        Instant::now() + Duration::from_secs(secs)
    }

    fn ping(id: u64) -> (Id, Vec<u8>) {
        let id = Id::from(id);
        let message = jsonrpc::encode_request(&id, methods::PING, None::<&()>);
        (id, message)
    }

    /// Answers each line the pipe sends with what `say` gives for it.
    fn serve(far: DuplexStream, mut say: impl FnMut(String) -> String + Send + 'static) {
        tokio::spawn(async move {
            let (from, mut to) = split(far);
            let mut lines = BufReader::new(from).lines();
            while let Ok(Some(line)) = lines.next_line().await {
                if to.write_all(say(line).as_bytes()).await.is_err() {
                    return;
                }
            }
        });
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_is_found_among_noise_and_other_messages() {
        let (mut pipe, far) = pipe();
        serve(far, |_| {
            concat!(
                "Server starting...\n",
                "{\"broken\": \n",
                "{\"hello\":1}\n",
                "{\"jsonrpc\":\"2.0\"}\n",
                "{\"jsonrpc\":\"2.0\",\"method\":\"notifications/message\",\"params\":{}}\n",
                "{\"jsonrpc\":\"2.0\",\"id\":99,\"result\":{}}\n",
                "{\"jsonrpc\":\"2.0\",\"id\":\"1\",\"result\":{\"a\":1}}\n",
                "{\"jsonrpc\":\"2.0\",\"id\":1,\"result\":{}}\n",
            )
            .to_owned()
        });
        let (id, message) = ping(1);
        let answer = pipe.call(id, message, in_(5)).await.unwrap();
        assert_eq!(answer.payload.unwrap().get(), r#"{"a":1}"#);
        assert!(answer.sloppy_id);
        sleep(Duration::from_millis(1)).await;
        let heard = pipe.take_heard();
        assert_eq!((heard.noise, heard.broken, heard.misshapen, heard.stray), (2, 1, 1, 1));
        assert_eq!((heard.duplicate, heard.messages), (1, 4));
        assert_eq!(heard.samples[0], "Server starting...");
        assert_eq!(pipe.take_heard(), Heard::default());
    }

    #[tokio::test(start_paused = true)]
    async fn a_mute_server_times_out_and_its_late_answer_is_known_as_such() {
        let (mut pipe, mut far) = pipe();
        let (id, message) = ping(1);
        let started = Instant::now();
        assert_eq!(pipe.call(id, message, in_(3)).await.unwrap_err(), PipeError::Timeout);
        assert_eq!(started.elapsed(), Duration::from_secs(3));
        far.write_all(b"{\"jsonrpc\":\"2.0\",\"id\":1,\"result\":{}}\n").await.unwrap();
        let (id, message) = ping(2);
        assert_eq!(pipe.call(id, message, in_(3)).await.unwrap_err(), PipeError::Timeout);
        assert_eq!(pipe.heard().late, 1);
    }

    #[tokio::test(start_paused = true)]
    async fn a_server_that_reads_nothing_does_not_hold_us_past_the_deadline() {
        let (near, _far) = tokio::io::duplex(16);
        let (from, to) = split(near);
        let mut pipe = Pipe::new(from, to, CAP);
        for n in 0..3 {
            let (id, message) = ping(n);
            assert_eq!(pipe.call(id, message, in_(1)).await.unwrap_err(), PipeError::Timeout);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn the_end_of_the_output_is_told_at_once_and_wakes() {
        let (mut pipe, far) = pipe();
        let (id, message) = ping(1);
        let end = async move {
            sleep(Duration::from_secs(1)).await;
            drop(far);
        };
        let started = Instant::now();
        let (answer, ()) = tokio::join!(pipe.call(id, message, in_(60)), end);
        assert_eq!(answer.unwrap_err(), PipeError::Ended);
        assert_eq!(started.elapsed(), Duration::from_secs(1));
        pipe.woken().await;
        assert!(pipe.has_ended());
    }

    #[tokio::test(start_paused = true)]
    async fn a_line_over_the_cap_fails_its_request_alone() {
        let (mut pipe, far) = pipe();
        serve(far, |line| {
            if line.contains("\"id\":1,") {
                format!("{{\"jsonrpc\":\"2.0\",\"id\":1,\"result\":\"{}\"}}\n", "x".repeat(CAP))
            } else {
                "{\"jsonrpc\":\"2.0\",\"id\":2,\"result\":{}}\n".to_owned()
            }
        });
        let (id, message) = ping(1);
        assert_eq!(pipe.call(id, message, in_(5)).await.unwrap_err(), PipeError::TooLarge);
        let (id, message) = ping(2);
        assert!(pipe.call(id, message, in_(5)).await.is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn what_the_server_asks_is_answered_between_questions() {
        let (pipe, far) = pipe();
        let (from, mut to) = split(far);
        let mut lines = BufReader::new(from).lines();
        to.write_all(b"{\"jsonrpc\":\"2.0\",\"id\":\"p\",\"method\":\"ping\"}\n").await.unwrap();
        assert_eq!(
            lines.next_line().await.unwrap().unwrap(),
            r#"{"jsonrpc":"2.0","id":"p","result":{}}"#
        );
        to.write_all(b"{\"jsonrpc\":\"2.0\",\"id\":7,\"method\":\"roots/list\"}\n").await.unwrap();
        assert!(lines.next_line().await.unwrap().unwrap().contains("-32601"));
        to.write_all(b"{\"jsonrpc\":\"2.0\",\"method\":\"notifications/tools/list_changed\"}\n")
            .await
            .unwrap();
        pipe.woken().await;
    }

    #[tokio::test(start_paused = true)]
    async fn closing_the_input_reaches_the_server() {
        let (mut pipe, far) = pipe();
        pipe.notify(b"{}".to_vec(), in_(1)).await.unwrap();
        pipe.close_input(Duration::from_secs(1)).await;
        let mut lines = BufReader::new(far).lines();
        assert_eq!(lines.next_line().await.unwrap().as_deref(), Some("{}"));
        assert_eq!(lines.next_line().await.unwrap(), None);
    }
}
