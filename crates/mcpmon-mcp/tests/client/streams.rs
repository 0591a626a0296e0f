//! Conversations over streams in memory, where time is paused.

use std::sync::Arc;
use std::time::Duration;

use mcpmon_core::failure::{FailureCode, FindingCode};
use mcpmon_core::observation::Phases;
use mcpmon_core::service::ProtocolChoice;
use mcpmon_core::status::Era;
use mcpmon_mcp::jsonrpc::{RpcError, codes};
use mcpmon_mcp::server::{Behaviour, Eras, Fault, Server};
use mcpmon_mcp::{CallError, Session, SessionOptions};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader, DuplexStream, split};
use tokio::time::Instant;

use crate::{assert_code, only, options, spec, within};

async fn open(far: DuplexStream, options: SessionOptions) -> Result<Session, CallError> {
    let (from, to) = split(far);
    let mut phases = Phases::default();
    Session::open_streams(from, to, &Arc::new(options), &mut phases, within(5_000)).await
}

/// A session with one of our own servers.
async fn with_server(server: &Server, options: SessionOptions) -> Result<Session, CallError> {
    let (near, far) = tokio::io::duplex(64 * 1024);
    let server = server.clone();
    tokio::spawn(async move {
        let (input, output) = split(near);
        let _ = server.serve_stdio(input, output).await;
    });
    open(far, options).await
}

/// A peer that answers each line with the lines `say` gives for the message.
fn scripted(mut say: impl FnMut(Value) -> Vec<Value> + Send + 'static) -> DuplexStream {
    let (near, far) = tokio::io::duplex(64 * 1024);
    tokio::spawn(async move {
        let (from, mut to) = split(near);
        let mut lines = BufReader::new(from).lines();
        while let Ok(Some(line)) = lines.next_line().await {
            for answer in say(serde_json::from_str(&line).unwrap()) {
                if to.write_all(format!("{answer}\n").as_bytes()).await.is_err() {
                    return;
                }
            }
        }
    });
    far
}

fn result(asked: &Value, result: &Value) -> Vec<Value> {
    vec![json!({"jsonrpc": "2.0", "id": asked["id"], "result": result})]
}

/// A legacy server whose lists are what `list` gives for a request.
fn legacy_with(mut list: impl FnMut(&Value) -> Value + Send + 'static) -> DuplexStream {
    scripted(move |asked| match asked["method"].as_str() {
        Some("initialize") => result(
            &asked,
            &json!({"protocolVersion": "2025-06-18", "capabilities": {"tools": {}},
                    "serverInfo": {"name": "scripted", "version": "1"}}),
        ),
        Some("ping") => result(&asked, &json!({})),
        Some("tools/list") => result(&asked, &list(&asked)),
        _ => Vec::new(),
    })
}

async fn prove(session: &mut Session) -> Result<Duration, CallError> {
    session.prove_life(&mut Phases::default(), within(5_000)).await
}

#[tokio::test(start_paused = true)]
async fn a_legacy_conversation_is_opened_proven_and_listed() {
    let server = Server::new(spec().eras(Eras::Legacy));
    let mut session = with_server(&server, options()).await.unwrap();
    assert_eq!(session.era(), Era::Legacy);
    let conversation = session.conversation();
    assert_eq!(conversation.protocol_version.as_deref(), Some("2025-11-25"));
    assert_eq!(conversation.server.unwrap().name, "fixture");
    prove(&mut session).await.unwrap();
    let reading = session.read_lists(&mut Phases::default(), within(5_000)).await.unwrap();
    assert_eq!(reading.lists.tools[0].name, "hello");
    assert_eq!(reading.findings, []);
    let asked = server.counts();
    assert_eq!((asked["initialize"], asked["ping"], asked["tools/list"]), (1, 1, 1));
    assert_eq!(session.take_findings(), []);
}

#[tokio::test(start_paused = true)]
async fn a_modern_conversation_needs_no_handshake() {
    let server = Server::new(spec().eras(Eras::Modern));
    let mut session = with_server(&server, only(ProtocolChoice::Modern)).await.unwrap();
    assert_eq!(session.era(), Era::Modern);
    prove(&mut session).await.unwrap();
    let reading = session.read_lists(&mut Phases::default(), within(5_000)).await.unwrap();
    assert_eq!(reading.lists.tools.len(), 1);
    assert!(reading.ttl.is_some());
    assert_eq!(server.requests_of("initialize"), 0);
    assert_eq!(session.take_findings(), []);
}

#[tokio::test(start_paused = true)]
async fn latency_is_the_servers_own_time() {
    let server = Server::new(spec()).behaving(Behaviour::slow(Duration::from_millis(250)));
    let mut session = with_server(&server, options()).await.unwrap();
    let latency = prove(&mut session).await.unwrap();
    assert!((250..260).contains(&latency.as_millis()), "{latency:?}");
}

#[tokio::test(start_paused = true)]
async fn a_mute_server_is_told_apart_by_where_it_falls_silent() {
    let server = Server::new(spec()).behaving(Behaviour::failing(Fault::Hang));
    let started = Instant::now();
    assert_code(with_server(&server, options()).await, FailureCode::HandshakeTimeout);
    assert_eq!(started.elapsed(), Duration::from_secs(5));
    let server = Server::new(spec());
    let mut session = with_server(&server, options()).await.unwrap();
    server.behave(Behaviour::failing(Fault::Hang));
    assert_code(prove(&mut session).await, FailureCode::ResponseTimeout);
    server.behave(Behaviour::well());
    prove(&mut session).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_request_given_up_is_cancelled() {
    let (told, mut heard) = tokio::sync::mpsc::unbounded_channel();
    let far = scripted(move |asked| {
        let method = asked["method"].as_str().unwrap().to_owned();
        let _ = told.send(asked.clone());
        match method.as_str() {
            "initialize" => result(
                &asked,
                &json!({"protocolVersion": "2025-11-25", "capabilities": {},
                        "serverInfo": {"name": "s", "version": "1"}}),
            ),
            _ => Vec::new(),
        }
    });
    let mut session = open(far, options()).await.unwrap();
    assert_code(prove(&mut session).await, FailureCode::ResponseTimeout);
    let mut last = Value::Null;
    while last["method"] != "notifications/cancelled" {
        last = heard.recv().await.unwrap();
    }
    assert_eq!(last["params"]["requestId"], 2);
}

#[tokio::test(start_paused = true)]
async fn a_refusal_keeps_the_servers_words() {
    let error = RpcError::new(codes::INTERNAL_ERROR, "database is locked");
    let server = Server::new(spec()).behaving(Behaviour::failing(Fault::Rpc(error)));
    let error = assert_code(with_server(&server, options()).await, FailureCode::RpcError);
    assert_eq!(error.failure.evidence["rpc_code"], -32_603);
    assert!(error.failure.message.contains("database is locked"));
}

#[tokio::test(start_paused = true)]
async fn a_version_nobody_knows_names_both_sides() {
    let far = scripted(|asked| {
        result(&asked, &json!({"protocolVersion": "1999-01-01", "capabilities": {}}))
    });
    let error = assert_code(open(far, options()).await, FailureCode::UnsupportedProtocolVersion);
    assert!(error.failure.message.contains("1999-01-01"));
    assert!(error.failure.message.contains("2025-11-25"));
}

#[tokio::test(start_paused = true)]
async fn ids_never_asked_are_not_taken_for_answers() {
    let far = scripted(|_| vec![json!({"jsonrpc": "2.0", "id": 4_711, "result": {}})]);
    assert_code(open(far, options()).await, FailureCode::WrongResponseId);
}

#[tokio::test(start_paused = true)]
async fn a_program_that_only_logs_is_not_mcp() {
    let far = scripted(|_| vec![json!("listening"), json!({"level": 30, "msg": "ready"})]);
    let error = assert_code(open(far, options()).await, FailureCode::NotMcp);
    assert!(error.failure.evidence["stdout"].to_string().contains("listening"));
}

#[tokio::test(start_paused = true)]
async fn a_refused_ping_is_odd_but_no_failure_where_lists_work() {
    let far = scripted(|asked| match asked["method"].as_str() {
        Some("ping") => {
            let error = json!({"code": -32_601, "message": "Method not found"});
            vec![json!({"jsonrpc": "2.0", "id": asked["id"], "error": error})]
        }
        Some("initialize") => result(
            &asked,
            &json!({"protocolVersion": "2025-06-18", "capabilities": {"tools": {}},
                    "serverInfo": {"name": "s", "version": "1"}}),
        ),
        Some("tools/list") => result(&asked, &json!({"tools": []})),
        _ => Vec::new(),
    });
    let mut session = open(far, options()).await.unwrap();
    prove(&mut session).await.unwrap();
    prove(&mut session).await.unwrap();
    let findings = session.take_findings();
    assert_eq!(findings.len(), 1);
    assert_eq!(findings[0].code, FindingCode::Nonconforming);
}

#[tokio::test(start_paused = true)]
async fn every_page_is_read() {
    let server = Server::new(
        spec().eras(Eras::Legacy).tool(crate::tool("b")).tool(crate::tool("c")).page_size(1),
    );
    let mut session = with_server(&server, options()).await.unwrap();
    let reading = session.read_lists(&mut Phases::default(), within(5_000)).await.unwrap();
    assert_eq!(reading.lists.tools.len(), 3);
    assert_eq!(server.requests_of("tools/list"), 3);
}

#[tokio::test(start_paused = true)]
async fn a_list_without_end_is_given_up() {
    let rounds = legacy_with(|_| json!({"tools": [], "nextCursor": "again"}));
    let mut session = open(rounds, options()).await.unwrap();
    let reading = session.read_lists(&mut Phases::default(), within(5_000)).await;
    let error = assert_code(reading, FailureCode::EndlessList);
    assert!(error.failure.message.contains("goes round"));
    let mut page = 0;
    let endless = legacy_with(move |_| {
        page += 1;
        json!({"tools": [], "nextCursor": format!("{page}")})
    });
    let mut session = open(endless, options()).await.unwrap();
    let reading = session.read_lists(&mut Phases::default(), within(60_000)).await;
    assert_code(reading, FailureCode::EndlessList);
}

#[tokio::test(start_paused = true)]
async fn odd_tools_are_found_and_the_rest_still_listed() {
    let schema = json!({"type": "object"});
    let tools = json!([
        {"name": "a", "inputSchema": schema}, {"name": "a", "inputSchema": schema},
        {"name": "b"}, {"description": "nameless"}, 7,
    ]);
    let far = legacy_with(move |_| json!({"tools": tools}));
    let mut session = open(far, options()).await.unwrap();
    let reading = session.read_lists(&mut Phases::default(), within(5_000)).await.unwrap();
    let names: Vec<_> = reading.lists.tools.iter().map(|tool| tool.name.as_str()).collect();
    assert_eq!(names, ["a", "a", "b"]);
    let codes: Vec<_> = reading.findings.iter().map(|finding| finding.code).collect();
    assert_eq!(codes, [FindingCode::InvalidTool, FindingCode::DuplicateToolNames]);
    assert!(reading.findings[0].message.contains('3'), "{:?}", reading.findings[0]);
}

#[tokio::test(start_paused = true)]
async fn a_list_result_out_of_shape_is_an_invalid_message() {
    for list in [json!({}), json!({"tools": {}}), json!({"tools": [], "nextCursor": 5})] {
        let far = legacy_with(move |_| list.clone());
        let mut session = open(far, options()).await.unwrap();
        let reading = session.read_lists(&mut Phases::default(), within(5_000)).await;
        assert_code(reading, FailureCode::InvalidMessage);
    }
}

#[tokio::test(start_paused = true)]
async fn a_changed_list_wakes() {
    let server = Server::new(spec().eras(Eras::Legacy));
    let mut session = with_server(&server, options()).await.unwrap();
    prove(&mut session).await.unwrap();
    server.set_tools([crate::tool("other")]);
    session.woken().await;
    let reading = session.read_lists(&mut Phases::default(), within(5_000)).await.unwrap();
    assert_eq!(reading.lists.tools[0].name, "other");
}
