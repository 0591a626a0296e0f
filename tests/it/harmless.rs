//! What a check costs the server that is checked: how often it is started, what it is sent, what it
//! keeps in mind.
//!
//! A session that nobody ends costs a server 41 to 127 kB for ever, so a monitor that opened one
//! per check would eat hundreds of megabytes a day. Short in CI, 1,000 checks with `MCPMON_SOAK=1`.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use mcpmon_collect::McpProbeFactory;
use mcpmon_core::service::{ProtocolChoice, ServiceSpec};
use mcpmon_core::{Probe, ProbeFactory as _, Question, Secret, Settings, Timestamp, Transport};
use mcpmon_mcp::server::{Eras, Server};
use mcpmon_testkit::{ChildGuard, FixtureServer, Stream};
use rustix::process::Signal;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::process::Command;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use crate::home::{Home, service, until};
use crate::peers::{Peer, peer};

/// At the default intervals every tenth check also reads the lists.
const LIST_EVERY: usize = 10;
const WARM: usize = 40;
const LIMIT: Duration = Duration::from_secs(90);
/// What an allocator holds on to by chance, and what the TypeScript server keeps of each list it
/// gave. Sessions left behind by 150 checks would be 6 MB at least, by 1,000 checks 41 MB.
const ROOM: i64 = 3 * 1024 * 1024;

fn checks() -> usize {
    if std::env::var_os("MCPMON_SOAK").is_some() { 1_000 } else { 150 }
}

fn probe(spec: ServiceSpec) -> Box<dyn Probe> {
    let mut settings = Settings::default();
    settings.performance_monitoring.enabled = false;
    McpProbeFactory::new(&settings).probe(&Arc::new(spec))
}

async fn ask(probe: &mut dyn Probe, question: Question) {
    let seen = probe.ask(question, (Instant::now() + LIMIT).into_std()).await;
    assert!(seen.failure().is_none(), "{question:?}: {:#?}", seen.failure());
}

/// So many checks as the schedule makes them.
async fn check(probe: &mut dyn Probe, count: usize) {
    for number in 0..count {
        let list = number % LIST_EVERY == 0;
        ask(probe, if list { Question::List } else { Question::Health }).await;
    }
}

async fn fixture(eras: Eras) -> FixtureServer {
    FixtureServer::serving(Server::new(FixtureServer::spec().eras(eras))).await
}

/// Hears everything that is sent to a fixture, also what the fixture turns away unread.
struct Tapped {
    heard: Arc<Mutex<Vec<u8>>>,
    service: ServiceSpec,
    relay: JoinHandle<()>,
}

impl Tapped {
    async fn of(server: &FixtureServer) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = server.address().to_string();
        let here = listener.local_addr().unwrap().to_string();
        let heard = Arc::<Mutex<Vec<u8>>>::default();
        let ears = Arc::clone(&heard);
        let relay = tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let upstream = TcpStream::connect(&address).await.unwrap();
                tokio::spawn(relay(client, upstream, Arc::clone(&ears)));
            }
        });
        let url = server.url().replace(&server.address().to_string(), &here);
        Self { heard, service: ServiceSpec::http("it", url), relay }
    }

    /// HTTP requests by method, JSON-RPC messages by theirs, in one count.
    fn counts(&self) -> BTreeMap<String, u64> {
        let heard = String::from_utf8(self.heard.lock().unwrap().clone()).unwrap();
        let mut counts = BTreeMap::new();
        for (word, end) in [("POST ", ' '), ("GET ", ' '), ("DELETE ", ' '), ("\"method\":\"", '"')]
        {
            for (at, _) in heard.match_indices(word) {
                let named = heard[at + word.len()..].split(end).next().unwrap();
                let name = if end == '"' { named } else { word.trim_end() };
                *counts.entry(name.to_owned()).or_default() += 1;
            }
        }
        counts
    }
}

impl Drop for Tapped {
    fn drop(&mut self) {
        self.relay.abort();
    }
}

async fn relay(client: TcpStream, upstream: TcpStream, heard: Arc<Mutex<Vec<u8>>>) {
    let (mut asks, mut is_told) = client.into_split();
    let (mut answers, mut is_asked) = upstream.into_split();
    let back = async { tokio::io::copy(&mut answers, &mut is_told).await };
    let forth = async {
        let mut chunk = vec![0; 16 * 1024];
        loop {
            match asks.read(&mut chunk).await {
                Ok(read) if read > 0 => {
                    heard.lock().unwrap().extend_from_slice(&chunk[..read]);
                    if is_asked.write_all(&chunk[..read]).await.is_err() {
                        return;
                    }
                }
                _ => return,
            }
        }
    };
    tokio::select! {
        _ = back => {}
        () = forth => {}
    }
}

fn counts<const N: usize>(counts: [(&str, u64); N]) -> BTreeMap<String, u64> {
    counts.into_iter().map(|(method, count)| (method.to_owned(), count)).collect()
}

#[tokio::test]
async fn a_modern_server_is_asked_once_per_check_and_keeps_nothing() {
    for eras in [Eras::Modern, Eras::Both] {
        let server = fixture(eras).await;
        let tapped = Tapped::of(&server).await;
        let mut probe = probe(tapped.service.clone());
        check(probe.as_mut(), 100).await;
        // One opening, then one request per check, and the list with every tenth.
        let expected = counts([("POST", 111), ("server/discover", 101), ("tools/list", 10)]);
        assert_eq!(tapped.counts(), expected, "{eras:?}");
        assert_eq!(server.requests(), 111);
        probe.close().await;
        assert_eq!(tapped.counts(), expected, "there is nothing to say at the end");
        assert_eq!(server.sessions(), 0);
    }
}

#[tokio::test]
async fn an_older_server_is_pinged_on_one_session_that_is_ended() {
    let server = fixture(Eras::Legacy).await;
    let tapped = Tapped::of(&server).await;
    let mut probe = probe(tapped.service.clone());
    check(probe.as_mut(), 100).await;
    let mut expected = counts([
        ("POST", 113),
        ("server/discover", 1),
        ("initialize", 1),
        ("notifications/initialized", 1),
        ("ping", 100),
        ("tools/list", 10),
    ]);
    assert_eq!(tapped.counts(), expected);
    assert_eq!(server.sessions(), 1);
    probe.close().await;
    expected.insert("DELETE".to_owned(), 1);
    assert_eq!(tapped.counts(), expected);
    assert_eq!(server.sessions(), 0, "ended when nobody asks any more");
}

#[tokio::test]
async fn an_older_server_keeps_its_session_where_that_is_wanted() {
    let server = fixture(Eras::Legacy).await;
    let tapped = Tapped::of(&server).await;
    let mut spec = tapped.service.clone();
    spec.terminate_session = false;
    let mut probe = probe(spec);
    check(probe.as_mut(), 1).await;
    probe.close().await;
    assert_eq!(tapped.counts().get("DELETE"), None);
    assert_eq!(server.sessions(), 1);
}

#[tokio::test]
async fn a_session_that_was_lost_is_opened_again_once() {
    let server = fixture(Eras::Legacy).await;
    let tapped = Tapped::of(&server).await;
    let mut probe = probe(tapped.service.clone());
    ask(probe.as_mut(), Question::Health).await;
    server.forget_sessions();
    for _ in 0..10 {
        ask(probe.as_mut(), Question::Health).await;
    }
    // The ping that found the session gone is asked again on the new one.
    let expected = counts([
        ("POST", 17),
        ("server/discover", 1),
        ("initialize", 2),
        ("notifications/initialized", 2),
        ("ping", 12),
    ]);
    assert_eq!(tapped.counts(), expected);
    assert_eq!(server.sessions(), 1);
    probe.close().await;
}

/// A real server of the older era, and how it tells what it keeps.
struct Kept {
    server: ChildGuard,
    url: String,
    told: Told,
}

#[derive(Debug, Clone, Copy)]
enum Told {
    /// Node: a line for each session that opens and each that closes; at SIGUSR2 the heap in use
    /// after a collection. Its resident memory grows by garbage first.
    ByNode,
    /// Python: sessions at SIGUSR1; memory is what is resident.
    ByPython,
}

impl Kept {
    async fn start(peer: &Peer, told: Told) -> Self {
        let (server, port) = peer.listen().await;
        Self { server, url: format!("http://127.0.0.1:{port}/mcp"), told }
    }

    fn lines(&self, part: &str) -> Vec<String> {
        let written = self.server.written(Stream::Out);
        written.lines().filter(|line| line.contains(part)).map(str::to_owned).collect()
    }

    /// The number in the line with `part` that it writes when it is sent this signal.
    async fn asked(&self, signal: Signal, part: &str) -> i64 {
        let before = self.lines(part).len();
        self.server.signal(signal).unwrap();
        let line = until(&format!("a line with {part:?}"), LIMIT, async || {
            self.lines(part).get(before).cloned()
        })
        .await;
        line.rsplit(' ').next().unwrap().parse().unwrap()
    }

    async fn sessions(&self) -> i64 {
        let of = |part: &str| i64::try_from(self.lines(part).len()).unwrap();
        match self.told {
            Told::ByNode => of("Session initialized with ID") - of("Transport closed for session"),
            Told::ByPython => self.asked(Signal::USR1, "sessions ").await,
        }
    }

    /// Bytes of memory it has in use.
    async fn memory(&self) -> i64 {
        match self.told {
            Told::ByNode => self.asked(Signal::USR2, "kept ").await,
            Told::ByPython => {
                let pid = self.server.pid().as_raw_nonzero();
                let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
                let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
                line.trim().trim_end_matches(" kB").parse::<i64>().unwrap() * 1024
            }
        }
    }
}

/// Something else that pings: see `tests/peers/ping.py`.
struct Pings(ChildGuard);

impl Pings {
    async fn open(python: &Peer, url: &str, count: usize) -> Self {
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/peers/ping.py");
        let mut command = Command::new(&python.command);
        command.args(["-B", script, url, &WARM.to_string(), &count.to_string()]);
        let child = ChildGuard::spawn(command).unwrap();
        assert!(child.line(Stream::Out, "ready").await.is_some(), "{}", child.written(Stream::Err));
        Self(child)
    }

    async fn go(&mut self) -> tokio::process::ChildStdin {
        let mut input = self.0.stdin().unwrap();
        input.write_all(b"go\n").await.unwrap();
        let done = self.0.line(Stream::Out, "done").await;
        assert!(done.is_some(), "{}", self.0.written(Stream::Err));
        input
    }
}

/// Checks one instance and pings another, and compares what they hold after it.
async fn grows_no_more_than_by_pings(peer: Peer, told: Told, python: Peer) {
    let count = checks();
    let watched = Kept::start(&peer, told).await;
    let pinged = Kept::start(&peer, told).await;
    let mut spec = ServiceSpec::http("it", watched.url.as_str());
    spec.protocol = ProtocolChoice::Legacy;
    let mut probe = probe(spec);
    check(probe.as_mut(), WARM).await;
    let mut pings = Pings::open(&python, &pinged.url, count).await;
    let before = (watched.memory().await, pinged.memory().await);

    check(probe.as_mut(), count).await;
    let _open = pings.go().await;
    let by_checks = watched.memory().await - before.0;
    let by_pings = pinged.memory().await - before.1;
    eprintln!("{count} checks: {} kB, {count} pings: {} kB", by_checks / 1024, by_pings / 1024);
    assert_eq!(watched.sessions().await, 1);
    assert_eq!(pinged.sessions().await, 1);
    assert!(by_checks <= by_pings + ROOM, "{by_checks} bytes by checks, {by_pings} by pings");

    probe.close().await;
    let ended = async || (watched.sessions().await == 0).then_some(());
    until("the session to be ended", LIMIT, ended).await;
}

#[tokio::test]
async fn the_python_sdk_grows_no_more_than_by_pings() {
    let peer = peer!("fastmcp-legacy");
    let python = peer.clone();
    grows_no_more_than_by_pings(peer.with(&["--http", "0"]), Told::ByPython, python).await;
}

#[tokio::test]
async fn fastmcp_grows_no_more_than_by_pings() {
    let peer = peer!("fastmcp-modern").with(&["--http", "0"]);
    grows_no_more_than_by_pings(peer, Told::ByPython, peer!("fastmcp-legacy")).await;
}

#[tokio::test]
async fn the_typescript_sdk_grows_no_more_than_by_pings() {
    let peer = peer!("everything-http");
    grows_no_more_than_by_pings(peer, Told::ByNode, peer!("fastmcp-legacy")).await;
}

/// Starts of this program over many checks, with heartbeats between them.
async fn starts(program: &str, args: &[String], env: &[(&str, String)]) -> usize {
    let home = Home::new();
    let log = home.path().join("starts");
    let script = r#"echo started >> "$0"; exec "$@""#;
    let words = ["-c", script, log.to_str().unwrap(), program].map(str::to_owned);
    let mut spec = ServiceSpec::stdio("it", "sh", words.into_iter().chain(args.iter().cloned()));
    if let Transport::Stdio(stdio) = &mut spec.transport {
        let env = env.iter().map(|(name, value)| ((*name).to_owned(), Secret::new(value.as_str())));
        stdio.env.extend(env);
    }
    let mut probe = probe(spec);
    for _ in 0..5 {
        check(probe.as_mut(), LIST_EVERY).await;
        ask(probe.as_mut(), Question::Heartbeat).await;
    }
    probe.close().await;
    std::fs::read_to_string(&log).unwrap().lines().count()
}

fn demo(era: &str) -> Vec<String> {
    ["demo-server", "--era", era].map(str::to_owned).to_vec()
}

#[tokio::test]
async fn a_process_is_started_once_for_all_checks() {
    assert_eq!(starts(env!("CARGO_BIN_EXE_mcpmon"), &demo("legacy"), &[]).await, 1);
    assert_eq!(starts(env!("CARGO_BIN_EXE_mcpmon"), &demo("both"), &[]).await, 1);
}

#[tokio::test]
async fn a_process_of_the_new_era_alone_is_started_twice() {
    assert_eq!(starts(env!("CARGO_BIN_EXE_mcpmon"), &demo("modern"), &[]).await, 2);
}

#[tokio::test]
async fn the_first_python_sdk_is_started_once_and_stays_alive() {
    let peer = peer!("python-1.0");
    assert_eq!(starts(&peer.command, &peer.args, &[]).await, 1);
}

#[tokio::test]
async fn the_rust_sdk_is_started_once() {
    let peer = peer!("rmcp");
    assert_eq!(starts(&peer.command, &peer.args, &[]).await, 1);
}

#[tokio::test]
async fn the_typescript_sdk_without_the_older_era_is_started_twice() {
    let peer = peer!("ts-sdk").with(&["--modern-only"]);
    let prefix = peer.entry()["env"]["NODE_PREFIX"].as_str().unwrap().to_owned();
    assert_eq!(starts(&peer.command, &peer.args, &[("NODE_PREFIX", prefix)]).await, 2);
}

/// The whole monitor, not the probe alone.
#[tokio::test]
async fn a_monitor_holds_one_session_and_ends_it_when_it_stops() {
    let server = fixture(Eras::Legacy).await;
    let home = Home::new();
    home.configure(format!("[services.it]\nurl = \"{}\"\n", server.url()));
    let mut up = home.start(&["up", "--interval", "1s"]);
    server.wait_for("ping", 12).await;
    assert_eq!(server.requests_of("initialize"), 1);
    assert!(server.requests_of("tools/list") <= 2, "{:?}", server.counts());
    assert_eq!(server.sessions(), 1);
    up.signal(Signal::TERM).unwrap();
    assert!(up.wait().await.unwrap().success());
    assert_eq!(server.sessions(), 0);
}

/// "Good for an hour" is said of an answer, never of the server.
#[tokio::test]
async fn an_answer_that_is_good_for_an_hour_hides_no_death() {
    let hour = Duration::from_secs(3_600);
    let spec = FixtureServer::spec().eras(Eras::Modern);
    let mut lasting = FixtureServer::serving(Server::new(spec.clone().ttl(hour))).await;
    let mut plain = FixtureServer::serving(Server::new(spec)).await;
    let home = Home::new();
    home.configure(format!(
        "[services.lasting]\nurl = \"{}\"\n[services.plain]\nurl = \"{}\"\n",
        lasting.url(),
        plain.url()
    ));
    let _up = home.start(&["up", "--interval", "1s"]);
    let both = async |wanted: &str| {
        until(&format!("both services to be {wanted}"), LIMIT, async || {
            let status = home.status().await?;
            let is = |name: &str| service(&status, name)["status"] == wanted;
            (status["services"].as_array()?.len() == 2 && is("lasting") && is("plain"))
                .then_some(status)
        })
        .await
    };
    both("running").await;
    // Several checks, so that whoever would answer from memory has something to remember.
    let discoveries = lasting.requests_of("server/discover");
    lasting.wait_for("server/discover", discoveries + 3).await;
    tokio::join!(lasting.stop(), plain.stop());
    let status = both("stopped").await;
    let moment = |name: &str| {
        let text = service(&status, name)["since"].as_str().unwrap();
        text.parse::<Timestamp>().unwrap()
    };
    let apart = moment("lasting").since(moment("plain"));
    assert!(apart < Duration::from_secs(2), "{apart:?} later than the other\n{status:#}");
    assert_eq!(service(&status, "lasting")["failure"]["code"], "connection_refused");
}
