//! JSON-RPC over a pair of byte streams: a process's pipes, or a duplex in a test.
//!
//! Two tasks carry it. One writes whole messages and nothing else, so that a request given up
//! never leaves half a line behind; one reads, so that a server that asks something between our
//! questions is answered at once, and noise never fills the pipe.

use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout_at};

use crate::inbox::{Answer, Heard, Inbox, Unanswered};
use crate::jsonrpc::Id;
use crate::lines::{Line, LineReader};

/// Messages waiting to be written; more than a health check ever has in flight.
const QUEUE: usize = 64;

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

impl From<Unanswered> for PipeError {
    fn from(reason: Unanswered) -> Self {
        match reason {
            Unanswered::Ended => Self::Ended,
            Unanswered::TooLarge => Self::TooLarge,
        }
    }
}

/// One conversation over a pair of streams.
#[derive(Debug)]
pub struct Pipe {
    outgoing: Option<mpsc::Sender<Vec<u8>>>,
    inbox: Arc<Inbox>,
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
        let inbox = Arc::new(Inbox::default());
        let (outgoing, queue) = mpsc::channel(QUEUE);
        let lines = LineReader::new(from, cap);
        let reader = read(lines, Arc::clone(&inbox), outgoing.downgrade());
        Self {
            outgoing: Some(outgoing),
            inbox,
            reader: tokio::spawn(reader),
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
        let expected = self.inbox.expect(&id)?;
        let sent = Instant::now();
        let exchange = async {
            self.queue(message).await?;
            Ok(expected.answered(sent).await?)
        };
        let outcome = timeout_at(deadline, exchange).await.unwrap_or(Err(PipeError::Timeout));
        if outcome.is_err() {
            self.inbox.give_up(id);
        }
        outcome
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
        self.inbox.take_heard()
    }

    /// What was heard since [`Pipe::take_heard`].
    pub fn heard(&self) -> Heard {
        self.inbox.heard()
    }

    /// Whether the server closed its output.
    pub fn has_ended(&self) -> bool {
        self.inbox.has_ended()
    }

    /// Resolves when the output ended or a list changed. Cancel-safe; each event wakes once.
    pub async fn woken(&self) {
        self.inbox.woken().await;
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

async fn read<R: AsyncRead + Unpin>(
    mut lines: LineReader<R>,
    inbox: Arc<Inbox>,
    answers: mpsc::WeakSender<Vec<u8>>,
) {
    while let Ok(Some(line)) = lines.next().await {
        match line {
            Line::Text(text) => inbox.take(text, |answer| {
                if let Some(answers) = answers.upgrade() {
                    let _ = answers.try_send(answer);
                }
            }),
            Line::TooLong => inbox.refuse(Unanswered::TooLarge),
        }
    }
    inbox.end(Unanswered::Ended);
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncBufReadExt as _, BufReader, DuplexStream, split};
    use tokio::time::sleep;

    use super::*;
    use crate::jsonrpc;
    use crate::protocol::methods;

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
        assert_eq!(answer.payload.unwrap().into_raw().get(), r#"{"a":1}"#);
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
