//! The server on a pair of streams, one message a line: what a child process speaks.

use std::collections::HashMap;
use std::io;
use std::time::Duration;

use serde::Deserialize;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::task::{AbortHandle, JoinSet};

use super::Server;
use super::dispatch::{Stage, Via};
use super::plan::{Plan, Reply};
use crate::jsonrpc::{self, Id, Incoming, Message, Notification, RpcError, codes};
use crate::lines::{Line, LineReader};
use crate::protocol::methods;

/// Longest line read, in bytes.
const MAX_LINE: usize = 4 << 20;
/// Answers that may be under way at once; reading waits for them beyond that.
const MOST_UNDER_WAY: usize = 256;
/// How long answers under way are waited for once the input has ended.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// Why a server on streams ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// Its input ended, as a client does that wants it to go.
    InputClosed,
    /// Its behaviour said so.
    Crashed,
}

impl Server {
    /// Serves one client until its input ends or its behaviour ends it. May be dropped at any
    /// time; nothing it started goes on.
    ///
    /// # Errors
    ///
    /// Those of the streams.
    pub async fn serve_stdio<R, W>(&self, input: R, output: W) -> io::Result<Ended>
    where
        R: AsyncRead + Unpin,
        W: AsyncWrite + Unpin,
    {
        let mut conversation = Conversation {
            server: self.clone(),
            stage: Stage::Fresh,
            output,
            under_way: JoinSet::new(),
            cancel: HashMap::new(),
        };
        conversation.run(LineReader::new(input, MAX_LINE)).await
    }
}

struct Conversation<W> {
    server: Server,
    stage: Stage,
    output: W,
    under_way: JoinSet<Done>,
    cancel: HashMap<Id, AbortHandle>,
}

/// An answer whose time has come.
struct Done {
    id: Option<Id>,
    asks: Vec<Vec<u8>>,
    reply: Reply,
}

impl<W: AsyncWrite + Unpin> Conversation<W> {
    async fn run<R>(&mut self, mut input: LineReader<R>) -> io::Result<Ended>
    where
        R: AsyncRead + Unpin,
    {
        let mut changes = self.server.tools_changes();
        loop {
            let may_read = self.under_way.len() < MOST_UNDER_WAY;
            let ended = tokio::select! {
                line = input.next(), if may_read => match line? {
                    None => return self.finish().await,
                    Some(Line::TooLong) => {
                        let error = RpcError::new(codes::INVALID_REQUEST, "the line is too long");
                        let plan = Plan::refusal(self.stage, None, &error);
                        self.carry_out(plan).await?
                    }
                    Some(Line::Text(line)) => self.take(line).await?,
                },
                Some(done) = self.under_way.join_next() => match done {
                    Ok(done) => self.say(done).await?,
                    // Cancelled by the client, which wants no answer then.
                    Err(_) => None,
                },
                Ok(()) = changes.changed() => {
                    self.tell_change().await?;
                    None
                }
            };
            if let Some(ended) = ended {
                return Ok(ended);
            }
        }
    }

    async fn take(&mut self, line: &[u8]) -> io::Result<Option<Ended>> {
        let incoming = jsonrpc::parse(line);
        if let Ok(Incoming::Single(Message::Notification(told))) = &incoming
            && let Some(id) = cancelled(told)
            && let Some(handle) = self.cancel.remove(&id)
        {
            handle.abort();
        }
        let plan = self.server.plan(self.stage, Via::Stdio, incoming);
        self.carry_out(plan).await
    }

    async fn carry_out(&mut self, plan: Plan) -> io::Result<Option<Ended>> {
        self.stage = plan.stage;
        let Plan { delay, asks, reply, id, .. } = plan;
        let done = Done { id: id.clone(), asks, reply };
        if delay.is_zero() {
            return self.say(done).await;
        }
        let handle = self.under_way.spawn(async move {
            tokio::time::sleep(delay).await;
            done
        });
        if let Some(id) = id {
            self.cancel.insert(id, handle);
        }
        Ok(None)
    }

    async fn say(&mut self, done: Done) -> io::Result<Option<Ended>> {
        if let Some(id) = &done.id {
            self.cancel.remove(id);
        }
        for question in &done.asks {
            self.write(question, b"\n").await?;
        }
        match done.reply {
            Reply::Nothing | Reply::Hang => Ok(None),
            Reply::Send(answer) => self.write(&answer.body, b"\n").await.map(|()| None),
            Reply::Raw(raw) => self.write(&raw.body, b"\n").await.map(|()| None),
            Reply::CutShort(answer) => {
                self.write(&answer.body[..answer.body.len() / 2], b"").await?;
                Ok(Some(Ended::Crashed))
            }
            Reply::Close => Ok(Some(Ended::Crashed)),
        }
    }

    async fn tell_change(&mut self) -> io::Result<()> {
        if !matches!(self.stage, Stage::Legacy(_)) {
            return Ok(());
        }
        let told = jsonrpc::encode_notification(methods::TOOLS_CHANGED, None::<&()>);
        self.write(&told, b"\n").await
    }

    async fn write(&mut self, message: &[u8], end: &[u8]) -> io::Result<()> {
        self.output.write_all(message).await?;
        self.output.write_all(end).await?;
        self.output.flush().await
    }

    /// Says what is due soon, so that a script that pipes its questions in hears the answers.
    async fn finish(&mut self) -> io::Result<Ended> {
        let last_words = async {
            while let Some(done) = self.under_way.join_next().await {
                if let Ok(done) = done
                    && let Some(ended) = self.say(done).await?
                {
                    return Ok(ended);
                }
            }
            Ok(Ended::InputClosed)
        };
        tokio::time::timeout(LAST_WORDS, last_words).await.unwrap_or(Ok(Ended::InputClosed))
    }
}

/// The request a notification takes back.
fn cancelled(told: &Notification<'_>) -> Option<Id> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Cancelled {
        request_id: serde_json::Value,
    }
    if told.method != methods::CANCELLED {
        return None;
    }
    let cancelled: Cancelled = serde_json::from_str(told.params?.get()).ok()?;
    match cancelled.request_id {
        serde_json::Value::Number(number) => Some(Id::Number(number)),
        serde_json::Value::String(text) => Some(Id::Text(text)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};
    use tokio::io::{AsyncBufReadExt, BufReader, DuplexStream};

    use super::super::{Behaviour, Fault, ServerSpec, Tool, ToolOutput};
    use super::*;

    struct Client {
        lines: tokio::io::Lines<BufReader<tokio::io::ReadHalf<DuplexStream>>>,
        input: Option<tokio::io::WriteHalf<DuplexStream>>,
        server: tokio::task::JoinHandle<io::Result<Ended>>,
    }

    fn connect(server: &Server) -> Client {
        let (ours, theirs) = tokio::io::duplex(1 << 16);
        let (read, write) = tokio::io::split(theirs);
        let server = server.clone();
        let server = tokio::spawn(async move { server.serve_stdio(read, write).await });
        let (read, write) = tokio::io::split(ours);
        Client { lines: BufReader::new(read).lines(), input: Some(write), server }
    }

    impl Client {
        async fn send(&mut self, message: &Value) {
            let line = format!("{message}\n");
            self.input.as_mut().unwrap().write_all(line.as_bytes()).await.unwrap();
        }

        async fn receive(&mut self) -> Option<Value> {
            let line = self.lines.next_line().await.unwrap()?;
            Some(serde_json::from_str(&line).unwrap())
        }

        async fn initialize(&mut self) {
            let params = json!({"protocolVersion": "2025-11-25", "capabilities": {}});
            self.send(&json!({"jsonrpc": "2.0", "id": 0, "method": "initialize",
                              "params": params}))
                .await;
            assert_eq!(self.receive().await.unwrap()["result"]["protocolVersion"], "2025-11-25");
        }
    }

    fn ping(id: u64) -> Value {
        json!({"jsonrpc": "2.0", "id": id, "method": "ping"})
    }

    fn tool(name: &str) -> Tool {
        Tool::new(name, "", |_| Ok(ToolOutput::text("")))
    }

    #[tokio::test(start_paused = true)]
    async fn slow_requests_do_not_hold_up_quick_ones_and_can_be_cancelled() {
        let slow = Behaviour::slow(Duration::from_secs(5)).only_for(&["tools/list"]);
        let server = Server::new(ServerSpec::new("s", "1")).behaving(slow);
        let mut client = connect(&server);
        client.initialize().await;
        for id in [1, 2] {
            client.send(&json!({"jsonrpc": "2.0", "id": id, "method": "tools/list"})).await;
        }
        client.send(&ping(3)).await;
        assert_eq!(client.receive().await.unwrap()["id"], 3);
        client
            .send(&json!({"jsonrpc": "2.0", "method": "notifications/cancelled",
                          "params": {"requestId": 1}}))
            .await;
        assert_eq!(client.receive().await.unwrap()["id"], 2);
        client.send(&ping(4)).await;
        assert_eq!(client.receive().await.unwrap()["id"], 4);
        assert_eq!(server.requests_of("tools/list"), 2);
    }

    #[tokio::test(start_paused = true)]
    async fn says_what_is_due_soon_after_its_input_ends() {
        let server = Server::new(ServerSpec::new("s", "1"))
            .behaving(Behaviour::slow(Duration::from_millis(900)).only_for(&["ping"]));
        let mut client = connect(&server);
        client.send(&ping(1)).await;
        client.input.as_mut().unwrap().shutdown().await.unwrap();
        assert_eq!(client.receive().await.unwrap()["id"], 1);
        assert_eq!(client.server.await.unwrap().unwrap(), Ended::InputClosed);
    }

    #[tokio::test]
    async fn ends_on_cue_in_the_middle_of_an_answer() {
        let server = Server::new(ServerSpec::new("s", "1"))
            .behaving(Behaviour::failing_after(1, Fault::CutShort));
        let mut client = connect(&server);
        client.initialize().await;
        client.send(&ping(1)).await;
        let half = client.lines.next_line().await.unwrap().unwrap();
        assert!(serde_json::from_str::<Value>(&half).is_err(), "{half}");
        assert_eq!(client.server.await.unwrap().unwrap(), Ended::Crashed);
    }

    #[tokio::test]
    async fn tells_legacy_clients_that_its_tools_changed() {
        let server = Server::new(ServerSpec::new("s", "1").tool(tool("a")));
        let mut client = connect(&server);
        client.initialize().await;
        server.set_tools([tool("a"), tool("b")]);
        let told = client.receive().await.unwrap();
        assert_eq!(told["method"], "notifications/tools/list_changed");
        client.send(&json!({"jsonrpc": "2.0", "id": 1, "method": "tools/list"})).await;
        assert_eq!(client.receive().await.unwrap()["result"]["tools"].as_array().unwrap().len(), 2);
    }

    #[tokio::test]
    async fn refuses_what_is_no_message_and_goes_on() {
        let server = Server::new(ServerSpec::new("s", "1"));
        let mut client = connect(&server);
        client.input.as_mut().unwrap().write_all(b"hello\n").await.unwrap();
        assert_eq!(client.receive().await.unwrap()["error"]["code"], -32_700);
        client.send(&json!([ping(1)])).await;
        assert_eq!(client.receive().await.unwrap()["error"]["code"], -32_600);
        client.send(&ping(2)).await;
        assert_eq!(client.receive().await.unwrap()["result"], json!({}));
    }

    #[tokio::test]
    async fn answers_batches_in_the_revision_that_has_them() {
        let server = Server::new(ServerSpec::new("s", "1").latest_legacy("2025-03-26"));
        let mut client = connect(&server);
        client
            .send(&json!({"jsonrpc": "2.0", "id": 0, "method": "initialize",
                          "params": {"protocolVersion": "2025-11-25"}}))
            .await;
        assert_eq!(client.receive().await.unwrap()["result"]["protocolVersion"], "2025-03-26");
        let told = json!({"jsonrpc": "2.0", "method": "notifications/initialized"});
        client.send(&json!([ping(1), told, ping(2), 3])).await;
        let answers = client.receive().await.unwrap();
        let ids: Vec<_> = answers.as_array().unwrap().iter().map(|answer| &answer["id"]).collect();
        assert_eq!(ids, [&json!(1), &json!(2), &Value::Null]);
    }
}
