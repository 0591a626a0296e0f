//! The MCP probe through its port, against servers in this process and shell scripts.

#![expect(clippy::unwrap_used, reason = "a test that cannot be set up should say where")]

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use mcpmon_collect::McpProbeFactory;
use mcpmon_core::failure::{Failure, FailureCode, FindingCode, Phase};
use mcpmon_core::lists::HashForm;
use mcpmon_core::observation::{Observation, Question};
use mcpmon_core::probe::{Probe, ProbeFactory as _};
use mcpmon_core::secret::Secret;
use mcpmon_core::service::{HttpSpec, ServiceSpec, StdioSpec, Transport};
use mcpmon_core::settings::Settings;
use mcpmon_core::status::{Era, Status};
use mcpmon_mcp::server::behaviour::Raw;
use mcpmon_mcp::server::{
    Behaviour, Eras, Fault, HttpOptions, HttpServer, Server, ServerSpec, Tool, ToolOutput,
};
use serde_json::json;
use tokio::net::TcpListener;
use tokio::time::Instant;

/// A legacy server in shell; `$ON_PING` runs before a ping is answered, `$BEFORE` at the start.
const SERVER: &str = r#"
eval "$BEFORE"
while read -r line; do
  id=${line#*\"id\":}; id=${id%%,*}
  case "$line" in
    *'"initialize"'*) printf '{"jsonrpc":"2.0","id":%s,"result":{"protocolVersion":"2025-06-18","capabilities":{"tools":{}},"serverInfo":{"name":"sh","version":"1"}}}\n' "$id" ;;
    *'"ping"'*) eval "$ON_PING"; printf '{"jsonrpc":"2.0","id":%s,"result":{}}\n' "${id%\}}" ;;
    *'"tools/list"'*) printf '{"jsonrpc":"2.0","id":%s,"result":{"tools":[]}}\n' "${id%\}}" ;;
  esac
done
"#;

fn shell(name: &str, hooks: &[(&str, &str)]) -> ServiceSpec {
    let env: BTreeMap<_, _> =
        hooks.iter().map(|(name, code)| ((*name).to_owned(), Secret::new(*code))).collect();
    let stdio = StdioSpec {
        command: "sh".to_owned(),
        args: vec!["-c".to_owned(), SERVER.to_owned()],
        env,
        cwd: None,
    };
    ServiceSpec::new(name, Transport::Stdio(stdio))
}

fn server() -> ServerSpec {
    let hello = Tool::new("hello", "says hello", |_| Ok(ToolOutput::text("hello")));
    ServerSpec::new("fixture", "1.0.0").tool(hello)
}

async fn serve(server: &Server) -> HttpServer {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    HttpServer::start(listener, server.clone(), HttpOptions::default()).unwrap()
}

fn factory() -> McpProbeFactory {
    McpProbeFactory::new(&Settings::default())
}

fn probe(spec: ServiceSpec) -> Box<dyn Probe> {
    factory().probe(&Arc::new(spec))
}

async fn ask(probe: &mut Box<dyn Probe>, question: Question) -> Observation {
    ask_within(probe, question, 20_000).await
}

async fn ask_within(probe: &mut Box<dyn Probe>, question: Question, millis: u64) -> Observation {
    let deadline = Instant::now() + Duration::from_millis(millis);
    probe.ask(question, deadline.into_std()).await
}

#[track_caller]
fn code(observation: &Observation) -> FailureCode {
    observation.failure().unwrap().code
}

fn found(observation: &Observation) -> Vec<FindingCode> {
    observation.findings.iter().map(|finding| finding.code).collect()
}

#[tokio::test]
async fn an_http_service_is_seen_whole() {
    for (eras, era, sessions) in [(Eras::Modern, Era::Modern, 0), (Eras::Legacy, Era::Legacy, 1)] {
        let http = serve(&Server::new(server().eras(eras))).await;
        let mut probe = probe(ServiceSpec::http("web", http.url()));
        let seen = ask(&mut probe, Question::List).await;
        assert_eq!(seen.raw_status(), Status::Running, "{seen:?}");
        assert_eq!(seen.conversation.era, Some(era));
        assert_eq!(seen.conversation.server.as_ref().unwrap().name, "fixture");
        let phases = seen.phases;
        assert!(phases.connect_ms.is_some() && phases.handshake_ms.is_some());
        assert!(phases.list_ms.is_some() && phases.spawn_ms.is_none());
        assert!(seen.latency.unwrap() <= seen.total);
        assert_eq!((seen.tools_count, seen.active_connections), (Some(1), Some(sessions)));
        let hash = &seen.lists.as_ref().unwrap().hash;
        assert_eq!(HashForm::of(hash), Some(HashForm::Second));
        assert_eq!((seen.restarted, seen.process), (false, None));
        assert_eq!(seen.findings, []);
        let again = ask(&mut probe, Question::Health).await;
        assert_eq!(again.phases.handshake_ms, None, "a session is held");
        assert_eq!((again.tools_count, again.lists), (Some(1), None));
        let again = ask(&mut probe, Question::List).await;
        assert!(again.phases.list_ms.is_some(), "the lists are read again");
        assert_eq!((again.tools_count, again.lists), (Some(1), None), "but are the same");
        probe.close().await;
    }
}

/// A legacy server with resources that exits on a request it does not know.
const FRAGILE: &str = r#"
while read -r line; do
  id=${line#*\"id\":}; id=${id%%,*}; id=${id%\}}
  case "$line" in
    *'"initialize"'*) printf '{"jsonrpc":"2.0","id":%s,"result":{"protocolVersion":"2025-06-18","capabilities":{"resources":{}},"serverInfo":{"name":"sh","version":"1"}}}\n' "$id" ;;
    *'"ping"'*) printf '{"jsonrpc":"2.0","id":%s,"result":{}}\n' "$id" ;;
    *'"resources/list"'*) printf '{"jsonrpc":"2.0","id":%s,"result":{"resources":[{"uri":"a:b","name":"r"}]}}\n' "$id" ;;
    *templates*) exit 3 ;;
  esac
done
"#;

#[tokio::test]
async fn a_server_that_exits_on_the_request_for_templates_is_well_and_gets_it_once() {
    let mut spec = shell("fragile", &[]);
    let Transport::Stdio(stdio) = &mut spec.transport else { panic!("a command") };
    stdio.args[1] = FRAGILE.to_owned();
    let mut probe = probe(spec);
    for (is_new, lists) in [(true, 1), (true, 1), (false, 0), (false, 0)] {
        let seen = ask(&mut probe, Question::List).await;
        assert_eq!(seen.raw_status(), Status::Running, "{seen:?}");
        assert_eq!(seen.restarted, is_new, "{seen:?}");
        assert_eq!(seen.lists.map_or(0, |lists| lists.resources.len()), lists);
        let finding = seen.findings.iter().find(|found| found.code == FindingCode::Nonconforming);
        assert!(finding.unwrap().message.contains("resource templates"), "{finding:?}");
    }
    probe.close().await;
}

#[tokio::test]
async fn a_health_check_costs_a_server_one_request() {
    let modern = Server::new(server().eras(Eras::Modern));
    let http = serve(&modern).await;
    let mut modern_probe = probe(ServiceSpec::http("m", http.url()));
    ask(&mut modern_probe, Question::Health).await;
    assert_eq!(modern.requests(), 2, "the first answer of all is not the timed one");
    ask(&mut modern_probe, Question::Health).await;
    ask(&mut modern_probe, Question::Heartbeat).await;
    assert_eq!((modern.requests_of("server/discover"), modern.requests()), (4, 4));

    let legacy = Server::new(server().eras(Eras::Legacy));
    let http = serve(&legacy).await;
    let mut legacy_probe = probe(ServiceSpec::http("l", http.url()));
    ask(&mut legacy_probe, Question::Health).await;
    let opened = legacy.requests();
    ask(&mut legacy_probe, Question::Health).await;
    assert_eq!(legacy.requests(), opened + 1);
    assert_eq!((legacy.requests_of("initialize"), legacy.requests_of("ping")), (1, 2));
    assert_eq!(legacy.sessions(), 1);
    legacy_probe.close().await;
    assert_eq!(legacy.sessions(), 0);
}

#[tokio::test]
async fn a_process_is_started_once_held_and_ended() {
    let mut probe = probe(shell("files", &[]));
    let seen = ask(&mut probe, Question::List).await;
    assert_eq!(seen.raw_status(), Status::Running, "{seen:?}");
    assert!(seen.restarted && seen.phases.spawn_ms.is_some());
    assert_eq!((seen.active_connections, seen.tools_count), (Some(1), Some(0)));
    assert!(seen.process.unwrap().processes >= 1);
    let again = ask(&mut probe, Question::Heartbeat).await;
    assert_eq!((again.restarted, again.phases.spawn_ms), (false, None));
    probe.close().await;
    let heartbeat = ask(&mut probe, Question::Heartbeat).await;
    assert!(heartbeat.failure().is_some() && !heartbeat.restarted, "a heartbeat starts nothing");
}

#[tokio::test]
async fn a_held_process_that_exits_fails_one_check_and_is_started_again() {
    let mut probe = probe(shell("files", &[("ON_PING", "exit 3")]));
    for _ in 0..2 {
        let seen = ask(&mut probe, Question::Health).await;
        assert_eq!(code(&seen), FailureCode::Exited);
        assert!(seen.restarted, "{seen:?}");
        assert_eq!(seen.active_connections, Some(0));
    }
    probe.close().await;
}

#[tokio::test]
async fn a_held_process_that_is_killed_wakes() {
    // `$$` is the shell that serves, also inside the parentheses.
    let killer = "( sleep 0.3; kill -9 $$ ) </dev/null >/dev/null 2>&1 &";
    let mut probe = probe(shell("dying", &[("BEFORE", killer)]));
    assert_eq!(ask(&mut probe, Question::Health).await.raw_status(), Status::Running);
    tokio::time::timeout(Duration::from_secs(10), probe.woken()).await.unwrap();
    assert_eq!(code(&ask(&mut probe, Question::Heartbeat).await), FailureCode::KilledBySignal);
    probe.close().await;
}

#[tokio::test]
async fn a_mute_service_is_answered_for_within_the_deadline() {
    let held = Server::new(server()).behaving(Behaviour::failing(Fault::Hang));
    let http = serve(&held).await;
    for spec in [ServiceSpec::http("web", http.url()), shell("sh", &[("BEFORE", "read -r line")])] {
        let mut probe = probe(spec);
        let started = Instant::now();
        let seen = ask_within(&mut probe, Question::Health, 600).await;
        assert_eq!(code(&seen), FailureCode::HandshakeTimeout);
        let took = started.elapsed();
        assert!(took < Duration::from_millis(1_600), "a second past its deadline: {took:?}");
        probe.close().await;
    }
}

#[tokio::test]
async fn a_slow_answer_is_degraded_by_the_services_own_threshold() {
    let slow = Server::new(server()).behaving(Behaviour::slow(Duration::from_millis(60)));
    let http = serve(&slow).await;
    let mut spec = ServiceSpec::http("web", http.url());
    spec.limits.response_time_threshold = Duration::from_millis(30);
    let mut quick = probe(spec.clone());
    let seen = ask(&mut quick, Question::Health).await;
    assert_eq!(found(&seen), [FindingCode::SlowResponse]);
    assert_eq!(seen.raw_status(), Status::Degraded);
    assert!(seen.latency.unwrap() >= Duration::from_millis(60));
    spec.limits.response_time_threshold = Duration::from_secs(5);
    let mut patient = probe(spec);
    assert_eq!(ask(&mut patient, Question::Health).await.raw_status(), Status::Running);
}

#[tokio::test]
async fn findings_of_the_lists_stand_until_they_are_read_again() {
    let broken = Tool::new("broken", "x", |_| Ok(ToolOutput::text(""))).input_schema(json!("no"));
    let host = Server::new(server().tool(broken));
    let http = serve(&host).await;
    let mut probe = probe(ServiceSpec::http("web", http.url()));
    assert_eq!(found(&ask(&mut probe, Question::List).await), [FindingCode::InvalidTool]);
    let seen = ask(&mut probe, Question::Health).await;
    assert_eq!(
        (found(&seen), seen.raw_status()),
        (vec![FindingCode::InvalidTool], Status::Degraded)
    );
    host.set_tools([]);
    ask(&mut probe, Question::List).await;
    let seen = ask(&mut probe, Question::Health).await;
    assert_eq!((found(&seen), seen.tools_count), (vec![], Some(0)));
}

#[tokio::test]
async fn noise_on_standard_output_is_a_finding_and_no_failure() {
    let mut probe = probe(shell("noisy", &[("BEFORE", "echo Starting\\ server")]));
    let seen = ask(&mut probe, Question::Health).await;
    assert_eq!(
        (seen.raw_status(), found(&seen)),
        (Status::Running, vec![FindingCode::StdoutNoise])
    );
    assert_eq!(seen.findings[0].evidence["stdout"][0], "Starting server");
    assert_eq!(found(&ask(&mut probe, Question::Health).await), []);
    probe.close().await;
}

#[tokio::test]
async fn a_changed_list_wakes() {
    let host = Server::new(server().eras(Eras::Legacy));
    let http = serve(&host).await;
    let changed = r#"{"jsonrpc":"2.0","method":"notifications/tools/list_changed"}"#;
    host.behave(Behaviour::new(move |asked| {
        let answer = format!(r#"{{"jsonrpc":"2.0","id":{},"result":{{}}}}"#, asked.id);
        let body = format!("data: {changed}\n\ndata: {answer}\n\n");
        let fault = (asked.method == "ping").then(|| Raw::new("text/event-stream", body).into());
        mcpmon_mcp::server::Conduct { fault, ..Default::default() }
    }));
    let mut probe = probe(ServiceSpec::http("web", http.url()));
    assert_eq!(ask(&mut probe, Question::Health).await.raw_status(), Status::Running);
    tokio::time::timeout(Duration::from_secs(10), probe.woken()).await.unwrap();
    probe.close().await;
}

#[tokio::test]
async fn a_forgotten_session_is_one_finding_and_a_wait_is_kept() {
    let host = Server::new(server().eras(Eras::Legacy));
    let http = serve(&host).await;
    let mut probe = probe(ServiceSpec::http("web", http.url()));
    ask(&mut probe, Question::Health).await;
    host.forget_sessions();
    let seen = ask(&mut probe, Question::Health).await;
    assert_eq!(
        (seen.raw_status(), found(&seen)),
        (Status::Running, vec![FindingCode::SessionNotKept])
    );
    let raw = Raw::new("text/plain", "later").status(429).header("retry-after", "90000");
    host.behave(Behaviour::failing(raw.into()));
    let seen = ask(&mut probe, Question::Health).await;
    assert_eq!((code(&seen), seen.raw_status()), (FailureCode::RateLimited, Status::Degraded));
    assert_eq!(seen.retry_after, Some(Duration::from_secs(3_600)));
}

#[tokio::test]
async fn an_entry_that_cannot_be_used_is_told_as_it_is() {
    let mut spec = ServiceSpec::http("web", "http://127.0.0.1:9/");
    let reason = "`TOKEN` is not set";
    spec.invalid = Some(Failure::new(FailureCode::ConfigurationInvalid, Phase::Prepare, reason));
    let seen = ask(&mut probe(spec), Question::Health).await;
    assert_eq!(seen.failure().unwrap().message, reason);
    assert_eq!(seen.raw_status(), Status::Unknown);
    let seen = ask(&mut probe(ServiceSpec::http("web", "gopher://x")), Question::Health).await;
    assert_eq!(code(&seen), FailureCode::ConfigurationInvalid);
}

#[tokio::test]
async fn no_more_processes_are_held_than_allowed() {
    let mut settings = Settings::default();
    settings.service_monitoring.max_children = 1;
    let factory = McpProbeFactory::new(&settings);
    let mut first = factory.probe(&Arc::new(shell("a", &[])));
    let mut second = factory.probe(&Arc::new(shell("b", &[])));
    assert_eq!(ask(&mut first, Question::Health).await.raw_status(), Status::Running);
    let seen = ask_within(&mut second, Question::Health, 200).await;
    assert_eq!((code(&seen), seen.raw_status()), (FailureCode::MonitorOverloaded, Status::Unknown));
    first.close().await;
    assert_eq!(ask(&mut second, Question::Health).await.raw_status(), Status::Running);
    second.close().await;
}

#[tokio::test]
async fn a_question_that_was_dropped_does_not_spoil_the_next() {
    let host = Server::new(server());
    let http = serve(&host).await;
    let mut web = probe(ServiceSpec::http("web", http.url()));
    let mut process = probe(shell("sh", &[("ON_PING", "sleep 0.3")]));
    ask(&mut web, Question::Health).await;
    ask(&mut process, Question::Health).await;
    host.behave(Behaviour::slow(Duration::from_millis(300)));
    for probe in [&mut web, &mut process] {
        let dropped =
            tokio::time::timeout(Duration::from_millis(100), ask(probe, Question::Health)).await;
        assert!(dropped.is_err());
        assert_eq!(ask(probe, Question::Health).await.raw_status(), Status::Running);
    }
    process.close().await;
}

#[tokio::test]
async fn no_secret_leaves_with_an_observation() {
    let secret = "t0p-secret-value";
    let leaking = Tool::new(format!("tool-{secret}"), secret, |_| Ok(ToolOutput::text("")));
    let host = Server::new(ServerSpec::new(secret, "1").tool(leaking));
    let http = serve(&host).await;
    let headers = BTreeMap::from([("X-Key".to_owned(), Secret::new(secret))]);
    let spec = ServiceSpec::new("web", Transport::Http(HttpSpec { url: http.url(), headers }));
    let seen = ask(&mut probe(spec), Question::List).await;
    assert_eq!(seen.raw_status(), Status::Running);
    let text = serde_json::to_string(&seen).unwrap();
    assert!(!text.contains(secret) && text.contains("tool-***"), "{text}");
}

#[tokio::test]
async fn the_deprecated_transport_is_watched_on_one_stream_that_is_ended_with_the_probe() {
    for (path, configured) in [("/mcp", true), ("/sse", false), ("/mcp", false)] {
        let fixture = Server::new(server().eras(Eras::Legacy));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let options = HttpOptions::default().event_stream().path(path);
        let http = HttpServer::start(listener, fixture.clone(), options).unwrap();
        let mut spec = ServiceSpec::http("old", http.url());
        if configured {
            let place = HttpSpec { url: http.url(), ..HttpSpec::default() };
            spec.transport = Transport::Sse(place);
        }
        let mut probe = probe(spec);
        for question in [Question::List, Question::Health, Question::Heartbeat] {
            let seen = ask(&mut probe, question).await;
            assert_eq!(seen.raw_status(), Status::Running, "{path} {seen:?}");
            assert_eq!((seen.tools_count, seen.active_connections), (Some(1), Some(1)));
            assert_eq!(found(&seen), [FindingCode::DeprecatedTransport]);
        }
        let asked = fixture.counts();
        assert_eq!((asked["initialize"], asked["ping"], asked["tools/list"]), (1, 3, 1));
        fixture.forget_sessions();
        let seen = ask(&mut probe, Question::Health).await;
        assert_eq!(
            found(&seen),
            [FindingCode::DeprecatedTransport, FindingCode::SessionNotKept],
            "{seen:?}"
        );
        assert_eq!((seen.active_connections, fixture.streams()), (Some(1), 1));
        probe.close().await;
        fixture.wait_for_streams(0).await;
    }
}

#[tokio::test]
async fn a_configured_event_stream_that_is_none_is_told_as_what_it_is() {
    let http = serve(&Server::new(server())).await;
    let mut spec = ServiceSpec::http("new", http.url());
    spec.transport = Transport::Sse(HttpSpec { url: http.url(), ..HttpSpec::default() });
    let mut probe = probe(spec);
    let seen = ask(&mut probe, Question::Health).await;
    assert_eq!(code(&seen), FailureCode::MethodNotAllowed);
    assert_eq!(seen.active_connections, Some(0));
}
