//! A fake fleet: many MCP services behind one origin, at the least cost per request.
//!
//! Every answer but the echoed id is written once, at start, so that what is measured is the
//! client. `/s/{i}/mcp` speaks both eras, `/l/{i}/mcp` refuses the modern one as old servers do,
//! and `/m/{i}/mcp` takes everything and never answers. Services that take their time say
//! afterwards how long that was.

use std::convert::Infallible;
use std::io::{self, BufRead, BufReader, Write};
use std::net::SocketAddr;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use mcpmon_mcp::protocol::{LATEST_LEGACY, MODERN, headers, meta, methods};
use serde::{Deserialize, Serialize};
use serde_json::json;
use serde_json::value::RawValue;
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{Instant, sleep};

use crate::Failure;
use crate::spread::Spread;

/// Tools each service lists.
pub const TOOLS: usize = 10;
const MAX_BODY: usize = 64 * 1024;

/// Which path of the fleet: what its services speak.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Speaks {
    /// Both eras.
    Both,
    /// `initialize` only.
    Legacy,
    /// Nothing.
    Nothing,
}

/// What the services of a fleet are like.
#[derive(Debug, Clone, Copy, Default)]
pub struct Manner {
    /// How long each request takes them.
    pub delay: Duration,
    /// Whether each can be reached at an address of its own, all of them this machine's.
    pub spread: bool,
}

/// The path of a service's endpoint.
pub fn path(speaks: Speaks, service: usize) -> String {
    let group = match speaks {
        Speaks::Both => 's',
        Speaks::Legacy => 'l',
        Speaks::Nothing => 'm',
    };
    format!("/{group}/{service}/mcp")
}

/// A loopback address for each service, so that each is an origin.
pub fn host(service: usize) -> String {
    format!("127.{}.{}.{}", 1 + service / 62_500, 1 + service / 250 % 250, 1 + service % 250)
}

/// The answers, up to the id and from the id on.
#[derive(Debug)]
pub(crate) struct Answers {
    services: usize,
    discover: Vec<u8>,
    initialize: Vec<u8>,
    tools: Vec<u8>,
    ping: Vec<u8>,
    unknown: Vec<u8>,
    delay: Duration,
    /// How long requests took, in seconds, since that was last asked.
    took: Mutex<Vec<f64>>,
}

impl Answers {
    pub(crate) fn new(services: usize, delay: Duration) -> Self {
        let identity = json!({"name": "fleet", "version": "1.0.0"});
        let marks = json!({(meta::SERVER_INFO): identity});
        let tools: Vec<_> = (0..TOOLS)
            .map(|index| {
                json!({
                    "name": format!("tool_{index}"),
                    "description": "Reads one record of the archive and gives it back as text",
                    "inputSchema": {
                        "type": "object",
                        "properties": {
                            "id": {"type": "string", "description": "Which record"},
                            "fields": {"type": "array", "items": {"type": "string"}},
                        },
                        "required": ["id"],
                    },
                    "annotations": {"readOnlyHint": true},
                })
            })
            .collect();
        let result = |value: serde_json::Value| format!(",\"result\":{value}}}").into_bytes();
        Self {
            services,
            discover: result(json!({
                "supportedVersions": [MODERN], "capabilities": {"tools": {}},
                "resultType": "complete", "ttlMs": 0, "cacheScope": "public", "_meta": marks,
            })),
            initialize: result(json!({
                "protocolVersion": LATEST_LEGACY, "capabilities": {"tools": {}},
                "serverInfo": identity,
            })),
            tools: result(json!({
                "tools": tools,
                "resultType": "complete", "ttlMs": 0, "cacheScope": "public", "_meta": marks,
            })),
            ping: result(json!({})),
            unknown: b",\"error\":{\"code\":-32601,\"message\":\"no such method\"}}".to_vec(),
            delay,
            took: Mutex::default(),
        }
    }

    pub(crate) fn initialize(&self) -> &[u8] {
        &self.initialize
    }

    pub(crate) fn ping(&self) -> &[u8] {
        &self.ping
    }

    pub(crate) fn tools(&self) -> &[u8] {
        &self.tools
    }

    pub(crate) fn unknown(&self) -> &[u8] {
        &self.unknown
    }

    fn took(&self) -> std::sync::MutexGuard<'_, Vec<f64>> {
        self.took.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn serve(listener: TcpListener, answers: Arc<Answers>) -> io::Result<()> {
    loop {
        let (stream, _) = listener.accept().await?;
        tokio::spawn(connection(stream, Arc::clone(&answers)));
    }
}

async fn connection(stream: TcpStream, answers: Arc<Answers>) {
    let _ = stream.set_nodelay(true);
    let service = service_fn(move |request| {
        let answers = Arc::clone(&answers);
        async move { Ok::<_, Infallible>(in_its_time(&answers, request).await) }
    });
    // A client that goes away is no event here.
    let _ = http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
}

#[derive(Deserialize)]
struct Asked<'a> {
    #[serde(borrow)]
    id: Option<&'a RawValue>,
    method: &'a str,
}

/// An exchange that takes as long as it is to, and is timed.
async fn in_its_time(answers: &Answers, request: Request<Incoming>) -> Response<Full<Bytes>> {
    if answers.delay.is_zero() {
        return exchange(answers, request).await;
    }
    let started = Instant::now();
    let response = exchange(answers, request).await;
    sleep(answers.delay).await;
    answers.took().push(started.elapsed().as_secs_f64());
    response
}

async fn exchange(answers: &Answers, request: Request<Incoming>) -> Response<Full<Bytes>> {
    let Some((speaks, service)) = which(request.uri().path(), answers.services) else {
        return empty(StatusCode::NOT_FOUND);
    };
    if speaks == Speaks::Nothing {
        std::future::pending::<()>().await;
    }
    match *request.method() {
        Method::POST => {}
        Method::DELETE => return empty(StatusCode::OK),
        _ => return empty(StatusCode::METHOD_NOT_ALLOWED),
    }
    let Ok(body) = Limited::new(request.into_body(), MAX_BODY).collect().await else {
        return empty(StatusCode::PAYLOAD_TOO_LARGE);
    };
    let body = body.to_bytes();
    let Ok(asked) = serde_json::from_slice::<Asked<'_>>(&body) else {
        return empty(StatusCode::BAD_REQUEST);
    };
    let Some(id) = asked.id else { return empty(StatusCode::ACCEPTED) };
    if speaks == Speaks::Legacy && asked.method == methods::DISCOVER {
        return json_answer(StatusCode::BAD_REQUEST, "null", &answers.unknown);
    }
    let (status, rest) = match asked.method {
        methods::DISCOVER => (StatusCode::OK, &answers.discover),
        methods::TOOLS_LIST => (StatusCode::OK, &answers.tools),
        methods::PING => (StatusCode::OK, &answers.ping),
        methods::INITIALIZE => (StatusCode::OK, &answers.initialize),
        _ => (StatusCode::NOT_FOUND, &answers.unknown),
    };
    let mut response = json_answer(status, id.get(), rest);
    if asked.method == methods::INITIALIZE
        && let Ok(session) = HeaderValue::try_from(format!("session-{service}"))
    {
        response.headers_mut().insert(headers::SESSION_ID, session);
    }
    response
}

fn which(path: &str, services: usize) -> Option<(Speaks, usize)> {
    let path = path.strip_suffix("/mcp")?;
    let (group, number) = path.strip_prefix('/')?.split_once('/')?;
    let speaks = match group {
        "s" => Speaks::Both,
        "l" => Speaks::Legacy,
        "m" => Speaks::Nothing,
        _ => return None,
    };
    let service = number.parse().ok().filter(|service| *service < services)?;
    Some((speaks, service))
}

fn json_answer(status: StatusCode, id: &str, rest: &[u8]) -> Response<Full<Bytes>> {
    const START: &[u8] = b"{\"jsonrpc\":\"2.0\",\"id\":";
    let mut body = Vec::with_capacity(START.len() + id.len() + rest.len());
    body.extend_from_slice(START);
    body.extend_from_slice(id.as_bytes());
    body.extend_from_slice(rest);
    let mut response = Response::new(Full::new(body.into()));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

fn empty(status: StatusCode) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::default());
    *response.status_mut() = status;
    response
}

/// A fleet in a process of its own, which ends with this value, or with us.
#[derive(Debug)]
pub struct FleetProcess {
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
    address: SocketAddr,
}

/// How long the services took.
#[derive(Debug, Clone, Copy, Deserialize, Serialize)]
pub struct Took {
    /// Requests answered.
    pub requests: usize,
    /// Half of them took no longer, in milliseconds.
    pub p50_ms: f64,
    /// 99 of 100 took no longer, in milliseconds.
    pub p99_ms: f64,
}

impl FleetProcess {
    /// Starts the program `helper-fleet` that was built beside this one.
    ///
    /// # Errors
    ///
    /// When it was not built, or does not say where it listens.
    pub fn start(services: usize) -> Result<Self, Failure> {
        Self::start_like(services, Manner::default())
    }

    /// The same, with services of this manner.
    ///
    /// # Errors
    ///
    /// As [`FleetProcess::start`].
    pub fn start_like(services: usize, manner: Manner) -> Result<Self, Failure> {
        let program = std::env::current_exe()?.with_file_name("helper-fleet");
        // It ends when its standard input does, so it cannot outlive us.
        let mut child = Command::new(&program)
            .arg(services.to_string())
            .arg(manner.delay.as_millis().to_string())
            .arg(if manner.spread { "spread" } else { "one" })
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(|error| {
                let program = program.display();
                format!("cannot start {program}: {error}; build it with `cargo build --bins`")
            })?;
        let (input, output) = child.stdin.take().zip(child.stdout.take()).ok_or("no pipes")?;
        let mut output = BufReader::new(output);
        let mut line = String::new();
        output.read_line(&mut line)?;
        let address = line.trim().parse();
        let address = address.map_err(|_| format!("the fleet does not listen: {line:?}"))?;
        Ok(Self { child, input, output, address })
    }

    /// How long its services took since this was last asked. Only those that take their time
    /// are timed.
    ///
    /// # Errors
    ///
    /// When it is gone.
    pub fn took(&mut self) -> Result<Took, Failure> {
        self.input.write_all(b"took\n")?;
        let mut line = String::new();
        self.output.read_line(&mut line)?;
        Ok(serde_json::from_str(&line)?)
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The URL of a service.
    pub fn url(&self, speaks: Speaks, service: usize) -> String {
        format!("http://{}{}", self.address, path(speaks, service))
    }

    /// The URL of a service at an address of its own.
    pub fn own_url(&self, speaks: Speaks, service: usize) -> String {
        format!("http://{}:{}{}", host(service), self.address.port(), path(speaks, service))
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }
}

impl Drop for FleetProcess {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What the program `helper-fleet` does: says where it listens, serves until its input ends, and
/// tells how long its services took whenever a line comes.
///
/// # Errors
///
/// When it cannot listen.
pub async fn run(services: usize, manner: Manner) -> Result<(), Failure> {
    let everywhere = if manner.spread { "0.0.0.0:0" } else { "127.0.0.1:0" };
    let listener = TcpListener::bind(everywhere).await?;
    let port = listener.local_addr()?.port();
    writeln!(io::stdout(), "127.0.0.1:{port}")?;
    let answers = Arc::new(Answers::new(services, manner.delay));
    let (ended, input_ended) = tokio::sync::oneshot::channel();
    std::thread::spawn({
        let answers = Arc::clone(&answers);
        move || {
            for _ in io::stdin().lock().lines().map_while(Result::ok) {
                let told = tell(&std::mem::take(&mut *answers.took()));
                if writeln!(io::stdout(), "{told}").is_err() {
                    break;
                }
            }
            let _ = ended.send(());
        }
    });
    tokio::select! {
        served = serve(listener, answers) => Ok(served?),
        _ = input_ended => Ok(()),
    }
}

fn tell(took: &[f64]) -> serde_json::Value {
    let spread = Spread::of(took.iter().map(|seconds| seconds * 1_000.0));
    json!(Took { requests: took.len(), p50_ms: spread.at(0.5), p99_ms: spread.at(0.99) })
}
