//! `mcpmon demo-server`: a real MCP server to try a monitor on, with knobs for the ways in which
//! servers fail.
//!
//! Its failures are counted, never drawn by lot, so what was seen once can be shown again. On
//! stdio, standard input and output belong to the protocol and words go to standard error.

use std::io::{Read as _, Write as _};
use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::str::FromStr;
use std::time::Duration;

use clap::ValueEnum;
use mcpmon_core::time::{Clock as _, SystemClock};
use mcpmon_mcp::jsonrpc::{RpcError, codes};
use mcpmon_mcp::server::stdio::Ended;
use mcpmon_mcp::server::{
    Answers, Behaviour, Eras, Fault, HttpOptions, HttpServer, Prompt, Resource, Server, ServerSpec,
    Tool, ToolOutput,
};
use serde_json::{Map, Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream};
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};

use crate::exit::{CliError, Exit};

/// What `mcpmon demo-server` can be told.
#[derive(Debug, Clone, clap::Args)]
pub struct DemoOptions {
    /// Listen here instead of speaking on stdio; port 0 picks a free one and says which
    #[arg(long, value_name = "ADDR")]
    pub http: Option<SocketAddr>,
    /// Revisions of MCP to speak
    #[arg(long, value_enum, default_value_t)]
    pub era: DemoEra,
    /// What it calls itself
    #[arg(long, default_value = "demo")]
    pub name: String,
    /// Time every answer takes
    #[arg(long, value_name = "D", default_value = "0s", value_parser = mcpmon_core::duration::parse)]
    pub delay: Duration,
    /// Time from its start to its first word
    #[arg(long, value_name = "D", default_value = "0s", value_parser = mcpmon_core::duration::parse)]
    pub start_delay: Duration,
    /// Share of the requests that fail, from 0 to 1; 0.25 is every fourth
    #[arg(long, value_name = "P", value_parser = share)]
    pub fail_rate: Option<f64>,
    /// Requests answered well before all fail
    #[arg(long, value_name = "N")]
    pub fail_after: Option<u64>,
    /// Work for this long, fail for as long, and so on
    #[arg(long, value_name = "PERIOD", value_parser = mcpmon_core::duration::parse)]
    pub flap: Option<Duration>,
    /// How a request fails: an HTTP status, `error`, `hang`, `close` or `cut-short`
    #[arg(long, value_name = "HOW", default_value = "500")]
    pub fail_with: FailWith,
    /// How many tools to list; beyond the real ones they do nothing
    #[arg(long, value_name = "N", default_value_t = REAL_TOOLS)]
    pub tools: usize,
    /// Tools on one page of the list [default: all]
    #[arg(long, value_name = "N")]
    pub page_size: Option<NonZeroUsize>,
    /// Add a tool and take it away again, this long apart
    #[arg(long, value_name = "PERIOD", value_parser = mcpmon_core::duration::parse)]
    pub change_tools: Option<Duration>,
    /// Answer as an event stream (with --http)
    #[arg(long, requires = "http")]
    pub sse: bool,
}

/// Which revisions the demo server speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub enum DemoEra {
    /// Up to 2025-11-25: initialize, sessions, ping
    Legacy,
    /// 2026-07-28: server/discover, no sessions
    Modern,
    /// Either, as the client opens
    #[default]
    Both,
}

/// How the demo server fails when it does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FailWith {
    /// With this HTTP status; on stdio with an internal error that names it.
    Status(u16),
    /// With a JSON-RPC error.
    Error,
    /// By never answering.
    Hang,
    /// By closing the connection, on stdio by ending.
    Close,
    /// By stopping in the middle of an answer.
    CutShort,
}

impl FromStr for FailWith {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "error" => Ok(Self::Error),
            "hang" => Ok(Self::Hang),
            "close" => Ok(Self::Close),
            "cut-short" => Ok(Self::CutShort),
            _ => match text.parse() {
                Ok(status @ 400..=599) => Ok(Self::Status(status)),
                _ => Err(
                    "expected an HTTP status from 400 to 599, `error`, `hang`, `close` or `cut-short`"
                        .to_owned(),
                ),
            },
        }
    }
}

impl FailWith {
    fn fault(self) -> Fault {
        match self {
            Self::Status(status) => Fault::Status(status),
            Self::Error => Fault::Rpc(RpcError::new(codes::INTERNAL_ERROR, "failing on purpose")),
            Self::Hang => Fault::Hang,
            Self::Close => Fault::Close,
            Self::CutShort => Fault::CutShort,
        }
    }
}

impl Default for DemoOptions {
    fn default() -> Self {
        Self {
            http: None,
            era: DemoEra::Both,
            name: "demo".to_owned(),
            delay: Duration::ZERO,
            start_delay: Duration::ZERO,
            fail_rate: None,
            fail_after: None,
            flap: None,
            fail_with: FailWith::Status(500),
            tools: REAL_TOOLS,
            page_size: None,
            change_tools: None,
            sse: false,
        }
    }
}

impl DemoOptions {
    /// The server they describe.
    pub fn server(&self) -> Server {
        let eras = match self.era {
            DemoEra::Legacy => Eras::Legacy,
            DemoEra::Modern => Eras::Modern,
            DemoEra::Both => Eras::Both,
        };
        let mut spec = ServerSpec::new(&self.name, env!("CARGO_PKG_VERSION"))
            .eras(eras)
            .instructions("A server to try mcpmon on. Nothing it does has an effect.")
            .prompt(Prompt {
                name: "greeting".to_owned(),
                description: "Says hello".to_owned(),
                text: "Hello from the demo server.".to_owned(),
            })
            .resource(Resource {
                uri: "demo://readme".to_owned(),
                name: "readme".to_owned(),
                text: "This server is for trying things out.".to_owned(),
            });
        if let Some(size) = self.page_size {
            spec = spec.page_size(size.get());
        }
        spec = tools(self.tools).into_iter().fold(spec, ServerSpec::tool);
        Server::new(spec).behaving(self.behaviour())
    }

    fn behaviour(&self) -> Behaviour {
        let fault = || self.fail_with.fault();
        let mut behaviour = Behaviour::slow(self.delay);
        if let Some(rate) = self.fail_rate {
            behaviour = behaviour.and(Behaviour::failing_at_rate(rate, fault()));
        }
        if let Some(requests) = self.fail_after {
            behaviour = behaviour.and(Behaviour::failing_after(requests, fault()));
        }
        if let Some(period) = self.flap {
            behaviour = behaviour.and(Behaviour::flapping(period, fault()));
        }
        behaviour
    }
}

/// Serves until the input ends (stdio) or a signal comes.
///
/// # Errors
///
/// When it cannot listen, or a stream breaks.
pub async fn run(options: DemoOptions) -> Result<Exit, CliError> {
    let server = options.server();
    let mut terminate = signal(SignalKind::terminate())
        .map_err(|error| CliError::io("cannot watch for SIGTERM", error))?;
    let mut interrupt = signal(SignalKind::interrupt())
        .map_err(|error| CliError::io("cannot watch for SIGINT", error))?;
    tokio::select! {
        ended = serve(&options, &server) => ended,
        never = change_tools(&options, &server) => match never {},
        _ = terminate.recv() => Ok(Exit::Ok),
        _ = interrupt.recv() => Ok(Exit::Interrupted),
    }
}

/// Starts the HTTP half in this process.
///
/// # Errors
///
/// When the address cannot be listened on.
pub async fn listen(
    address: SocketAddr,
    server: &Server,
    sse: bool,
) -> Result<HttpServer, CliError> {
    let refused = |error: std::io::Error| {
        let advice = "give another address, or port 0 for a free one";
        CliError::Failed(format!("cannot listen on {address}: {error}; {advice}"))
    };
    let listener = TcpListener::bind(address).await.map_err(refused)?;
    let answers = if sse { Answers::Sse } else { Answers::Json };
    let http = HttpOptions::default().answers(answers);
    HttpServer::start(listener, server.clone(), http).map_err(refused)
}

async fn serve(options: &DemoOptions, server: &Server) -> Result<Exit, CliError> {
    tokio::time::sleep(options.start_delay).await;
    match options.http {
        Some(address) => {
            let http = listen(address, server, options.sse).await?;
            // Whoever reads this line may be gone; the server is of use all the same.
            let _ = writeln!(std::io::stderr(), "listening on {}", http.url());
            std::future::pending().await
        }
        None => serve_stdio(server).await,
    }
}

async fn serve_stdio(server: &Server) -> Result<Exit, CliError> {
    let (output, written) = standard_output();
    let ended = server.serve_stdio(standard_input(), output).await;
    let ended = ended.map_err(|error| CliError::io("standard input or output broke", error))?;
    // The last answer is on its way through another thread; a reader that does not read it must
    // not keep us.
    let _ = tokio::time::timeout(Duration::from_secs(1), written).await;
    Ok(match ended {
        Ended::InputClosed => Exit::Ok,
        Ended::Crashed => Exit::NotWell,
    })
}

const STREAM_BUFFER: usize = 64 * 1024;

/// Standard input, read by a thread of its own: the runtime's own reader would keep the process
/// from ending on a signal until one line more came.
fn standard_input() -> DuplexStream {
    let (mut forward, input) = tokio::io::duplex(STREAM_BUFFER);
    let runtime = tokio::runtime::Handle::current();
    std::thread::spawn(move || {
        let mut stdin = std::io::stdin().lock();
        let mut chunk = [0; 8 * 1024];
        while let Ok(length @ 1..) = stdin.read(&mut chunk) {
            if runtime.block_on(forward.write_all(&chunk[..length])).is_err() {
                return;
            }
        }
    });
    input
}

/// Standard output, written by a thread for the same reason, and the moment everything is written.
fn standard_output() -> (DuplexStream, tokio::sync::oneshot::Receiver<()>) {
    let (output, mut forward) = tokio::io::duplex(STREAM_BUFFER);
    let (done, written) = tokio::sync::oneshot::channel();
    let runtime = tokio::runtime::Handle::current();
    std::thread::spawn(move || {
        let mut stdout = std::io::stdout().lock();
        let mut chunk = [0; 8 * 1024];
        while let Ok(length @ 1..) = runtime.block_on(forward.read(&mut chunk)) {
            if stdout.write_all(&chunk[..length]).and_then(|()| stdout.flush()).is_err() {
                return;
            }
        }
        let _ = done.send(());
    });
    (output, written)
}

enum Never {}

async fn change_tools(options: &DemoOptions, server: &Server) -> Never {
    let Some(period) = options.change_tools.filter(|period| !period.is_zero()) else {
        return std::future::pending().await;
    };
    let mut more = false;
    loop {
        tokio::time::sleep(period).await;
        more = !more;
        server.set_tools(tools(options.tools + usize::from(more)));
    }
}

const REAL_TOOLS: usize = 3;

/// The real tools, as many as wanted, and idle ones to make up the number.
fn tools(count: usize) -> Vec<Tool> {
    let real = [echo(), add(), now()];
    let idle = (REAL_TOOLS..count).map(|index| {
        let name = format!("idle_{:04}", index - REAL_TOOLS + 1);
        Tool::new(name, "Does nothing", |_| Ok(ToolOutput::text("done"))).read_only()
    });
    real.into_iter().take(count).chain(idle).collect()
}

fn echo() -> Tool {
    Tool::new("echo", "Gives a text back", |arguments| match arguments.get("text") {
        Some(Value::String(text)) => Ok(ToolOutput::text(text)),
        _ => Err(missing("text", "a string")),
    })
    .input_schema(json!({
        "type": "object",
        "properties": {"text": {"type": "string", "description": "What to give back"}},
        "required": ["text"],
    }))
    .read_only()
}

fn add() -> Tool {
    fn number(arguments: &Map<String, Value>, key: &str) -> Result<f64, RpcError> {
        arguments.get(key).and_then(Value::as_f64).ok_or_else(|| missing(key, "a number"))
    }
    Tool::new("add", "Adds two numbers", |arguments| {
        let sum = number(arguments, "a")? + number(arguments, "b")?;
        Ok(ToolOutput::structured(json!({"sum": sum})))
    })
    .input_schema(json!({
        "type": "object",
        "properties": {"a": {"type": "number"}, "b": {"type": "number"}},
        "required": ["a", "b"],
    }))
    .output_schema(json!({
        "type": "object",
        "properties": {"sum": {"type": "number"}},
        "required": ["sum"],
    }))
    .read_only()
}

fn now() -> Tool {
    Tool::new("now", "Tells the time, in UTC", |_| {
        Ok(ToolOutput::text(SystemClock.now().to_string()))
    })
    .input_schema(json!({"type": "object", "properties": {}}))
    .read_only()
}

fn missing(key: &str, kind: &str) -> RpcError {
    RpcError::new(codes::INVALID_PARAMS, format!("`{key}` must be {kind}"))
}

fn share(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(share) if (0.0..=1.0).contains(&share) => Ok(share),
        _ => Err("expected a share from 0 to 1, such as 0.25".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        options: DemoOptions,
    }

    fn parse(line: &str) -> Result<DemoOptions, clap::Error> {
        let words = std::iter::once("demo-server").chain(line.split_whitespace());
        Line::try_parse_from(words).map(|line| line.options)
    }

    #[test]
    fn an_empty_line_means_the_defaults() {
        let parsed = parse("").unwrap();
        assert_eq!(format!("{parsed:?}"), format!("{:?}", DemoOptions::default()));
    }

    #[test]
    fn knobs_are_checked_before_anything_starts() {
        for good in ["--fail-with 503", "--fail-with hang --fail-rate 1", "--delay 250ms"] {
            assert!(parse(good).is_ok(), "{good}");
        }
        for bad in ["--fail-with 200", "--fail-rate 1.5", "--delay soon", "--sse", "--page-size 0"]
        {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn the_number_of_tools_is_the_one_asked_for() {
        for count in [0, 2, 3, 200] {
            let tools = tools(count);
            assert_eq!(tools.len(), count);
            let names: std::collections::BTreeSet<_> = tools.iter().map(Tool::name).collect();
            assert_eq!(names.len(), count);
        }
    }

    /// Asks over stdio, in memory; the answers in the order they come.
    async fn ask(options: &DemoOptions, messages: &[Value]) -> Vec<Value> {
        let server = options.server();
        let (ours, theirs) = tokio::io::duplex(1 << 20);
        let (input, output) = tokio::io::split(theirs);
        let serving = tokio::spawn(async move { server.serve_stdio(input, output).await });
        let (mut read, mut write) = tokio::io::split(ours);
        for message in messages {
            write.write_all(format!("{message}\n").as_bytes()).await.unwrap();
        }
        write.shutdown().await.unwrap();
        serving.await.unwrap().unwrap();
        drop(write);
        let mut text = String::new();
        read.read_to_string(&mut text).await.unwrap();
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    fn initialize() -> Value {
        json!({"jsonrpc": "2.0", "id": 0, "method": "initialize",
               "params": {"protocolVersion": "2025-11-25", "capabilities": {}}})
    }

    fn call(name: &str, arguments: &Value) -> Value {
        json!({"jsonrpc": "2.0", "id": 1, "method": "tools/call",
               "params": {"name": name, "arguments": arguments}})
    }

    #[tokio::test(start_paused = true)]
    async fn its_tools_do_what_they_say() {
        let messages = [
            initialize(),
            call("echo", &json!({"text": "hi"})),
            call("add", &json!({"a": 1, "b": 2.5})),
            call("add", &json!({"a": 1})),
            call("now", &json!({})),
        ];
        let answers = ask(&DemoOptions::default(), &messages).await;
        assert_eq!(answers[1]["result"]["content"][0]["text"], "hi");
        assert_eq!(answers[2]["result"]["structuredContent"], json!({"sum": 3.5}));
        assert_eq!(answers[3]["error"]["code"], -32_602);
        let now = answers[4]["result"]["content"][0]["text"].as_str().unwrap();
        assert!(now.parse::<mcpmon_core::Timestamp>().is_ok(), "{now}");
    }

    #[tokio::test(start_paused = true)]
    async fn its_failing_knobs_work_together() {
        let options =
            parse("--fail-rate 0.5 --fail-after 5 --fail-with error --delay 10ms").unwrap();
        let mut messages = vec![initialize()];
        messages.extend((1..8).map(|id| json!({"jsonrpc": "2.0", "id": id, "method": "ping"})));
        let mut answers = ask(&options, &messages).await;
        answers.sort_by_key(|answer| answer["id"].as_u64());
        let seen: String = answers
            .iter()
            .map(|answer| if answer.get("error").is_some() { '!' } else { '.' })
            .collect();
        assert_eq!(seen, ".!.!.!!!");
    }
}
