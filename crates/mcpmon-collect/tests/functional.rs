//! Functional and dependency checks through the probe's port, against servers in this process and
//! a shell script.

#![expect(clippy::unwrap_used, reason = "a test that cannot be set up should say where")]

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use mcpmon_collect::McpProbeFactory;
use mcpmon_core::failure::FailureCode;
use mcpmon_core::observation::{Observation, Question};
use mcpmon_core::probe::{Probe, ProbeFactory as _};
use mcpmon_core::secret::Secret;
use mcpmon_core::service::{FunctionalCheck, ServiceSpec};
use mcpmon_core::settings::Settings;
use mcpmon_core::status::Status;
use mcpmon_mcp::server::behaviour::{Conduct, Raw};
use mcpmon_mcp::server::{Behaviour, Eras, Fault, Server, ServerSpec, Tool, ToolOutput};
use mcpmon_testkit::FixtureServer;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::Instant;

fn tools() -> ServerSpec {
    let echo = Tool::new("echo", "says it again", |arguments| {
        let text = arguments.get("text").and_then(Value::as_str).unwrap_or_default();
        Ok(ToolOutput::text(text))
    });
    let sum = Tool::new("sum", "adds", |_| Ok(ToolOutput::structured(json!({"n": 3}))))
        .output_schema(json!({"type": "object", "required": ["n"]}));
    let liar = Tool::new("liar", "breaks its word", |_| Ok(ToolOutput::structured(json!({}))))
        .output_schema(json!({"type": "object", "required": ["n"]}));
    let broken = Tool::new("broken", "fails", |_| Ok(ToolOutput::error("no such file")));
    let write = Tool::new("write", "changes things", |_| Ok(ToolOutput::text("done")));
    ServerSpec::new("fixture", "1.0.0")
        .tool(echo.read_only())
        .tool(sum.read_only())
        .tool(liar.read_only())
        .tool(broken.read_only())
        .tool(write)
}

async fn serving(eras: Eras) -> FixtureServer {
    FixtureServer::serving(Server::new(tools().eras(eras))).await
}

fn calls(calls: Value) -> Vec<FunctionalCheck> {
    serde_json::from_value(calls).unwrap()
}

fn probe(spec: ServiceSpec) -> Box<dyn Probe> {
    McpProbeFactory::new(&Settings::default()).probe(&Arc::new(spec))
}

async fn ask(probe: &mut Box<dyn Probe>, question: Question) -> Observation {
    let deadline = Instant::now() + Duration::from_secs(30);
    probe.ask(question, deadline.into_std()).await
}

/// Asks for these calls once, on a new session.
async fn call(fixture: &FixtureServer, configured: Value) -> Observation {
    call_at(fixture.service("it"), configured).await
}

/// A way to a server on which everything that is said to it is overheard.
async fn overheard(to: SocketAddr) -> (String, Arc<Mutex<Vec<u8>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/mcp", listener.local_addr().unwrap());
    let written: Arc<Mutex<Vec<u8>>> = Arc::default();
    let hearing = Arc::clone(&written);
    tokio::spawn(async move {
        while let Ok((near, _)) = listener.accept().await {
            let (mut from_client, mut to_client) = near.into_split();
            let far = TcpStream::connect(to).await.unwrap();
            let (mut from_server, mut to_server) = far.into_split();
            tokio::spawn(async move { tokio::io::copy(&mut from_server, &mut to_client).await });
            let hearing = Arc::clone(&hearing);
            tokio::spawn(async move {
                let mut buffer = [0; 4096];
                while let Ok(read @ 1..) = from_client.read(&mut buffer).await {
                    hearing.lock().unwrap().extend_from_slice(&buffer[..read]);
                    to_server.write_all(&buffer[..read]).await?;
                }
                to_server.shutdown().await
            });
        }
    });
    (url, written)
}

async fn call_at(mut spec: ServiceSpec, configured: Value) -> Observation {
    spec.functional = calls(configured);
    spec.limits.call_timeout = Duration::from_millis(500);
    let mut probe = probe(spec);
    let seen = ask(&mut probe, Question::Functional).await;
    probe.close().await;
    seen
}

/// Each call's tool and code, `ok` where nothing is wrong.
fn told(seen: &Observation) -> Vec<(&str, &str)> {
    let code = |failure: &mcpmon_core::Failure| failure.code.as_str();
    seen.calls
        .iter()
        .map(|call| (call.tool.as_str(), call.failure.as_ref().map_or("ok", code)))
        .collect()
}

#[tokio::test]
async fn every_call_is_made_in_order_and_the_first_failure_is_the_checks() {
    for eras in [Eras::Legacy, Eras::Modern] {
        let fixture = serving(eras).await;
        let seen = call(
            &fixture,
            json!([
                {"tool": "echo", "arguments": {"text": "hello"}, "expect": {"contains": "hell"}},
                {"tool": "sum", "expect": {"output_schema": true, "pointers": {"/n": 3}}},
                {"tool": "liar", "expect": {"output_schema": true}},
                {"tool": "broken"},
                {"tool": "broken", "expect": {"is_error": true}},
                {"tool": "write"},
                {"tool": "write", "allow_side_effects": true},
                {"tool": "gone"},
            ]),
        )
        .await;
        let expected = [
            ("echo", "ok"),
            ("sum", "ok"),
            ("liar", "functional_mismatch"),
            ("broken", "functional_tool_error"),
            ("broken", "ok"),
            ("write", "functional_refused"),
            ("write", "ok"),
            ("gone", "capability_missing"),
        ];
        assert_eq!(told(&seen), expected, "{eras:?}: {seen:#?}");
        let failure = seen.failure().unwrap();
        assert_eq!(failure.code, FailureCode::FunctionalMismatch);
        assert_eq!(failure.evidence["tool"], "liar");
        assert_eq!(failure.evidence["expectation"], "output_schema");
        assert_eq!(fixture.requests_of("tools/call"), 6, "what is refused is not called");
        assert!(seen.latency.is_some() && seen.tools_count == Some(5), "{seen:#?}");
    }
}

#[tokio::test]
async fn a_json_rpc_error_and_a_wish_for_input_have_their_own_codes() {
    let fixture = serving(Eras::Modern).await;
    let one = || json!([{"tool": "echo"}]);
    let answer = |result: Value| {
        Behaviour::new(move |asked| {
            let body = json!({"jsonrpc": "2.0", "id": asked.id, "result": result}).to_string();
            let raw = Raw::new("application/json", body);
            Conduct {
                fault: (asked.method == "tools/call").then(|| raw.into()),
                ..Conduct::default()
            }
        })
    };
    fixture.behave(answer(json!({"resultType": "input_required", "requestState": "x"})));
    let seen = call(&fixture, one()).await;
    assert_eq!(seen.failure().unwrap().code, FailureCode::InputRequired);
    fixture.behave(answer(json!({"resultType": "task", "taskId": "1"})));
    let seen = call(&fixture, one()).await;
    assert_eq!(seen.failure().unwrap().code, FailureCode::FunctionalMismatch);
    assert_eq!(seen.failure().unwrap().evidence["expectation"], "result");
    fixture.behave(answer(json!({"resultType": "complete", "content": 7})));
    let seen = call(&fixture, one()).await;
    assert_eq!(seen.failure().unwrap().code, FailureCode::InvalidMessage);
    let error = mcpmon_mcp::jsonrpc::RpcError::new(-32_603, "boom");
    fixture.behave(Behaviour::failing(Fault::Rpc(error)).only_for(&["tools/call"]));
    let seen = call(&fixture, one()).await;
    let failure = seen.failure().unwrap();
    assert_eq!(failure.code, FailureCode::FunctionalError);
    assert_eq!(failure.evidence["rpc_code"], -32_603);
    assert_eq!(failure.code.status(), Status::Error);
}

#[tokio::test]
async fn a_call_that_takes_too_long_is_given_up_and_the_server_is_told() {
    for (eras, cancelled) in [(Eras::Legacy, 1), (Eras::Modern, 0)] {
        let fixture = serving(eras).await;
        fixture.behave(Behaviour::failing(Fault::Hang).only_for(&["tools/call"]));
        let (url, written) = overheard(fixture.address()).await;
        let configured = json!([{"tool": "echo"}, {"tool": "sum"}]);
        let seen = call_at(ServiceSpec::http("it", url), configured).await;
        assert_eq!(told(&seen), [("echo", "functional_timeout"), ("sum", "functional_timeout")]);
        assert!(seen.calls[0].duration >= Duration::from_millis(500), "{seen:?}");
        // In the modern era closing the connection is the word for it.
        let written = String::from_utf8_lossy(&written.lock().unwrap()).into_owned();
        let told = written.matches("\"method\":\"notifications/cancelled\"").count();
        assert_eq!(told, 2 * cancelled, "{eras:?}: {written}");
    }
}

#[tokio::test]
async fn arguments_a_tool_wants_as_headers_are_repeated_there() {
    let region = Tool::new("region", "by region", |_| Ok(ToolOutput::text("ok")))
        .input_schema(json!({"type": "object", "properties": {
            "region": {"type": "string", "x-mcp-header": "Region"}}}))
        .read_only();
    let spec = ServerSpec::new("fixture", "1.0.0").tool(region).eras(Eras::Modern);
    let fixture = FixtureServer::serving(Server::new(spec)).await;
    let heard: Arc<Mutex<Vec<String>>> = Arc::default();
    let hearing = Arc::clone(&heard);
    fixture.behave(Behaviour::new(move |asked| {
        if asked.method == "tools/call" {
            let header = |name: &str| asked.header(name).unwrap_or("-").to_owned();
            let all = ["mcp-method", "mcp-name", "mcp-param-region"].map(header);
            hearing.lock().unwrap().extend(all);
        }
        Conduct::default()
    }));
    let configured = json!([{"tool": "region", "arguments": {"region": "z\u{fc}rich"}}]);
    let seen = call(&fixture, configured).await;
    assert_eq!(told(&seen), [("region", "ok")]);
    let expected = ["tools/call", "region", "=?base64?esO8cmljaA==?="];
    assert_eq!(*heard.lock().unwrap(), expected);
}

#[tokio::test]
async fn a_wrong_result_is_not_told_again_by_a_heartbeat() {
    let fixture = serving(Eras::Legacy).await;
    let mut spec = fixture.service("it");
    spec.functional = calls(json!([{"tool": "broken"}]));
    let mut probe = probe(spec);
    assert!(ask(&mut probe, Question::Functional).await.failure().is_some());
    assert_eq!(ask(&mut probe, Question::Heartbeat).await.failure(), None);
    assert_eq!(fixture.requests_of("initialize"), 1, "one session for all checks");
    assert_eq!(fixture.requests_of("tools/list"), 1);
    assert!(ask(&mut probe, Question::Functional).await.failure().is_some());
    assert_eq!(fixture.requests_of("tools/list"), 1, "the list is still known");
    probe.close().await;
}

#[tokio::test]
async fn secrets_in_results_reach_no_failure() {
    let fixture = serving(Eras::Legacy).await;
    let mut spec = fixture.service("it");
    spec.secrets.push(Secret::new("c4nary-of-a-service"));
    spec.functional = calls(json!([{
        "tool": "echo",
        "arguments": {"text": format!("{}c4nary-of-a-service", "x".repeat(195))},
        "expect": {"contains": "something else"},
    }]));
    let mut probe = probe(spec);
    let seen = ask(&mut probe, Question::Functional).await;
    assert_eq!(told(&seen), [("echo", "functional_mismatch")]);
    assert!(!format!("{seen:?}").contains("c4na"), "{seen:#?}");
    probe.close().await;
}

#[tokio::test]
async fn dependencies_are_looked_at_and_the_session_is_left_alone() {
    let fixture = serving(Eras::Legacy).await;
    let mut spec = fixture.service("it");
    let answering = serving(Eras::Legacy).await;
    let address = answering.address();
    spec.depends_on = vec![
        "another".to_owned(),
        format!("tcp://{address}"),
        format!("http://{address}/anything"),
        "env:MCPMON_NO_SUCH_VARIABLE".to_owned(),
    ];
    let mut probe = probe(spec);
    let seen = ask(&mut probe, Question::Dependency).await;
    assert_eq!(seen.failure(), None);
    let well: Vec<bool> = seen.dependencies.iter().map(|one| one.problem.is_none()).collect();
    assert_eq!(well, [true, true, false], "{seen:#?}");
    assert_eq!(fixture.requests(), 0);
    probe.close().await;
}
