//! The servers people run, each over every transport it has, checked by the program as it is
//! shipped. One row of [`servers`] is one server on one transport; the row says what has to come of
//! it.
//!
//! The Python SDK's 1.0 and 1.9 stand for what breaks when it is asked wrongly: the first ends at
//! the second message if the first was not `initialize`, the second answers everybody 500 once one
//! client has ended its session with DELETE.

use mcpmon_testkit::Stream;
use rustix::process::Signal;
use serde_json::{Value, json};

use crate::home::{Home, service};
use crate::peers::{Peer, peer};

/// How a server is reached.
#[derive(Debug, Clone, Copy)]
enum Over {
    Stdio,
    /// At this path.
    Http(&'static str),
    /// HTTP+SSE at this path, with `type` in the entry or found by the path's end.
    Sse(&'static str, Told),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Told {
    ByType,
    ByPath,
}

/// What has to come of it: revision, era, tools.
#[derive(Debug, Clone, Copy)]
struct Answers(&'static str, &'static str, u64);

const LEGACY: &str = "2025-11-25";
const MODERN: &str = "2026-07-28";
/// A loaded machine answers late, which is true and no fault of the server.
const BY_LOAD: [&str; 2] = ["slow_start", "slow_response"];

/// One test per row: `name: peer [arguments] over, protocol => expected;`
macro_rules! servers {
    ($($name:ident: $peer:literal [$($arg:literal)*] $over:expr, $protocol:literal => $answers:expr;)*) => {
        $(#[tokio::test]
        async fn $name() {
            let peer = peer!($peer).with(&[$($arg),*]);
            checked(peer, $over, $protocol, $answers).await;
        })*
    };
}

servers! {
    everything_on_stdio: "everything" [] Over::Stdio, "auto" => Answers(LEGACY, "legacy", 13);
    everything_over_http: "everything-http" [] Over::Http("/mcp"), "auto" => Answers(LEGACY, "legacy", 13);
    everything_over_sse: "everything-sse" [] Over::Sse("/sse", Told::ByType), "auto" => Answers(LEGACY, "legacy", 13);
    memory_on_stdio: "memory" [] Over::Stdio, "auto" => Answers(LEGACY, "legacy", 9);
    filesystem_on_stdio: "filesystem" ["/"] Over::Stdio, "auto" => Answers(LEGACY, "legacy", 14);
    time_on_stdio: "time" ["--local-timezone" "UTC"] Over::Stdio, "auto" => Answers(LEGACY, "legacy", 2);
    time_on_stdio_asked_the_modern_way: "time" ["--local-timezone" "UTC"] Over::Stdio, "modern" => Answers(MODERN, "modern", 2);

    ts_2_on_stdio: "ts-sdk" [] Over::Stdio, "auto" => Answers(LEGACY, "legacy", 2);
    ts_2_on_stdio_asked_the_modern_way: "ts-sdk" [] Over::Stdio, "modern" => Answers(MODERN, "modern", 2);
    ts_2_on_stdio_that_knows_the_new_era_only: "ts-sdk" ["--modern-only"] Over::Stdio, "auto" => Answers(MODERN, "modern", 2);
    ts_2_over_http: "ts-sdk" ["--http" "0"] Over::Http("/mcp"), "auto" => Answers(MODERN, "modern", 2);
    ts_2_over_http_asked_the_old_way: "ts-sdk" ["--http" "0"] Over::Http("/mcp"), "legacy" => Answers(LEGACY, "legacy", 2);
    ts_2_over_http_that_knows_the_new_era_only: "ts-sdk" ["--http" "0" "--modern-only"] Over::Http("/mcp"), "auto" => Answers(MODERN, "modern", 2);

    fastmcp_4_on_stdio: "fastmcp-modern" [] Over::Stdio, "auto" => Answers(LEGACY, "legacy", 3);
    fastmcp_4_on_stdio_asked_the_old_way: "fastmcp-modern" [] Over::Stdio, "legacy" => Answers(LEGACY, "legacy", 3);
    fastmcp_4_on_stdio_asked_the_modern_way: "fastmcp-modern" [] Over::Stdio, "modern" => Answers(MODERN, "modern", 3);
    fastmcp_4_over_http: "fastmcp-modern" ["--http" "0"] Over::Http("/mcp"), "auto" => Answers(MODERN, "modern", 3);
    fastmcp_4_over_http_asked_the_old_way: "fastmcp-modern" ["--http" "0"] Over::Http("/mcp"), "legacy" => Answers(LEGACY, "legacy", 3);
    fastmcp_4_over_sse: "fastmcp-modern" ["--sse" "0"] Over::Sse("/sse", Told::ByPath), "auto" => Answers(LEGACY, "legacy", 3);

    python_1_30_on_stdio: "fastmcp-legacy" [] Over::Stdio, "auto" => Answers(LEGACY, "legacy", 3);
    python_1_30_over_http: "fastmcp-legacy" ["--http" "0"] Over::Http("/mcp"), "auto" => Answers(LEGACY, "legacy", 3);
    python_1_30_over_sse: "fastmcp-legacy" ["--sse" "0"] Over::Sse("/sse", Told::ByPath), "auto" => Answers(LEGACY, "legacy", 3);

    python_1_9_on_stdio: "python-1.9" [] Over::Stdio, "auto" => Answers("2025-03-26", "legacy", 3);
    // `/mcp` is answered with 307 to `/mcp/`.
    python_1_9_over_http: "python-1.9" ["--http" "0"] Over::Http("/mcp"), "auto" => Answers("2025-03-26", "legacy", 3);
    python_1_9_over_http_with_the_slash: "python-1.9" ["--http" "0"] Over::Http("/mcp/"), "auto" => Answers("2025-03-26", "legacy", 3);
    python_1_9_over_sse: "python-1.9" ["--sse" "0"] Over::Sse("/sse", Told::ByType), "auto" => Answers("2025-03-26", "legacy", 3);

    python_1_0_on_stdio: "python-1.0" [] Over::Stdio, "auto" => Answers("2024-11-05", "legacy", 1);

    rmcp_on_stdio: "rmcp" [] Over::Stdio, "auto" => Answers(LEGACY, "legacy", 3);
    rmcp_on_stdio_asked_the_modern_way: "rmcp" [] Over::Stdio, "modern" => Answers(MODERN, "modern", 3);
    rmcp_over_http: "rmcp" ["--http" "0"] Over::Http("/mcp"), "auto" => Answers(MODERN, "modern", 3);
    rmcp_over_http_asked_the_old_way: "rmcp" ["--http" "0"] Over::Http("/mcp"), "legacy" => Answers(LEGACY, "legacy", 3);
}

async fn checked(peer: Peer, over: Over, protocol: &str, answers: Answers) {
    let home = Home::new();
    let (server, entry) = match over {
        Over::Stdio => (None, peer.entry()),
        Over::Http(path) => {
            let (server, port) = peer.listen().await;
            (Some(server), json!({ "url": at(port, path) }))
        }
        Over::Sse(path, told) => {
            let (server, port) = peer.listen().await;
            let entry = json!({ "url": at(port, path) });
            (Some(server), with(entry, "type", (told == Told::ByType).then_some("sse")))
        }
    };
    let found = check(&home, with(entry, "protocol", Some(protocol))).await;
    let findings: &[&str] = match over {
        Over::Stdio | Over::Http(_) => &[],
        Over::Sse(..) => &["deprecated_transport"],
    };
    expect(&found, answers, findings);
    assert_eq!(home.processes(), [], "what was started for the check has ended");
    drop(server);
}

fn at(port: u16, path: &str) -> String {
    format!("http://127.0.0.1:{port}{path}")
}

fn with(mut entry: Value, key: &str, value: Option<&str>) -> Value {
    if let Some(value) = value {
        entry[key] = value.into();
    }
    entry
}

/// What `mcpmon check` says of this entry. The time limit is that of a loaded machine.
async fn check(home: &Home, entry: Value) -> Value {
    let file = home.write("work/mcp.json", json!({ "services": { "it": entry } }).to_string());
    let file = file.to_str().unwrap();
    let ran = home.run(&["check", "--config", file, "--timeout", "90s", "--output", "json"]).await;
    service(&ran.json(), "it").clone()
}

#[track_caller]
fn expect(found: &Value, Answers(version, era, tools): Answers, findings: &[&str]) {
    let seen =
        json!([found["status"], found["protocol_version"], found["era"], found["tools_count"]]);
    assert_eq!(seen, json!(["running", version, era, tools]), "{found:#}");
    assert_eq!(found["failure"], Value::Null, "{found:#}");
    let codes = found["findings"].as_array().unwrap().iter();
    let codes = codes.map(|finding| finding["code"].as_str().unwrap());
    let codes: Vec<&str> = codes.filter(|code| !BY_LOAD.contains(code)).collect();
    assert_eq!(codes, findings, "{found:#}");
    assert!(found["latency_ms"].as_f64() > Some(0.0), "{found:#}");
    assert!(found["total_ms"].as_f64() >= found["latency_ms"].as_f64(), "{found:#}");
    assert!(!found["server"]["name"].as_str().unwrap().is_empty(), "{found:#}");
}

/// Streamable HTTP sessions that a Python server says are open now.
async fn open_sessions(server: &mcpmon_testkit::ChildGuard) -> u32 {
    server.signal(Signal::USR1).unwrap();
    let line = server.line(Stream::Out, "sessions ").await.unwrap();
    line.rsplit(' ').next().unwrap().parse().unwrap()
}

/// One DELETE there, and every client is answered 500 from then on.
#[tokio::test]
async fn python_1_9_answers_others_after_a_check_of_ours() {
    let (server, port) = peer!("python-1.9").with(&["--http", "0"]).listen().await;
    let home = Home::new();
    let entry = json!({ "url": at(port, "/mcp") });
    for _ in 0..2 {
        let found = check(&home, entry.clone()).await;
        expect(&found, Answers("2025-03-26", "legacy", 3), &[]);
    }
    assert!(open_sessions(&server).await >= 2, "the price: what is not ended stays open");
}

#[tokio::test]
async fn a_server_that_bears_it_has_its_session_ended_by_a_one_shot_check() {
    for (name, protocol) in [("fastmcp-legacy", "auto"), ("fastmcp-modern", "legacy")] {
        let peer = match crate::peers::find(name) {
            Ok(peer) => peer,
            Err(reason) => return crate::peers::skip(name, &reason),
        };
        let (server, port) = peer.with(&["--http", "0"]).listen().await;
        let home = Home::new();
        let entry = json!({ "url": at(port, "/mcp"), "protocol": protocol });
        for _ in 0..2 {
            expect(&check(&home, entry.clone()).await, Answers(LEGACY, "legacy", 3), &[]);
        }
        assert_eq!(open_sessions(&server).await, 0, "{name}");
    }
}
