//! Conversations over HTTP with servers of either era, and with servers that misbehave on cue.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use mcpmon_core::failure::{FailureCode, FindingCode};
use mcpmon_core::observation::Phases;
use mcpmon_core::secret::{Redactor, Secret};
use mcpmon_core::service::{HttpSpec, ProtocolChoice};
use mcpmon_core::status::Era;
use mcpmon_mcp::http::HttpClient;
use mcpmon_mcp::jsonrpc::RpcError;
use mcpmon_mcp::server::behaviour::Raw;
use mcpmon_mcp::server::{Answers, Behaviour, Eras, Fault, HttpOptions, Server};
use mcpmon_mcp::{Endings, Memory, Session, SessionOptions};
use serde_json::json;

use crate::{
    assert_code, only, open, open_by, options, over_http, over_http_with, prove, soon, spec, within,
};

const ERAS: [(Eras, Era); 3] =
    [(Eras::Modern, Era::Modern), (Eras::Legacy, Era::Legacy), (Eras::Both, Era::Modern)];

#[tokio::test]
async fn either_era_is_found_and_answers_in_json_and_in_events() {
    for (eras, era) in ERAS {
        for answers in [Answers::Json, Answers::Sse] {
            let server = Server::new(spec().eras(eras));
            let http = over_http_with(&server, HttpOptions::default().answers(answers)).await;
            let mut session = open(&http.url()).await.unwrap();
            assert_eq!(session.era(), era);
            let mut phases = Phases::default();
            session.prove_life(&mut phases, soon()).await.unwrap();
            let reading = session.read_lists(&mut phases, soon()).await.unwrap();
            assert_eq!(reading.lists.tools.len(), 1, "{eras:?} {answers:?}");
            assert!(phases.list_ms.is_some() && phases.connect_ms.is_none());
            assert_eq!(session.take_findings(), []);
            http.stop().await;
        }
    }
}

#[tokio::test]
async fn connections_are_reused_within_a_check() {
    let server = Server::new(spec());
    let http = over_http(&server).await;
    let client = Arc::new(HttpClient::new());
    let mut phases = Phases::default();
    let spec = crate::at(&http.url());
    let options = Arc::new(options());
    let mut session =
        Session::open_http(&client, &spec, &options, &mut Memory::default(), &mut phases, soon())
            .await
            .unwrap();
    assert!(phases.connect_ms.is_some() && phases.handshake_ms.is_some());
    assert!(phases.dns_ms.is_none() && phases.tls_ms.is_none());
    for _ in 0..3 {
        let mut phases = Phases::default();
        session.prove_life(&mut phases, soon()).await.unwrap();
        assert_eq!(phases.connect_ms, None);
    }
}

#[tokio::test]
async fn a_legacy_session_is_held_and_given_back_by_delete() {
    let server = Server::new(spec().eras(Eras::Legacy));
    let http = over_http(&server).await;
    let mut session = open(&http.url()).await.unwrap();
    assert!(session.is_kept_by_server());
    for _ in 0..3 {
        prove(&mut session).await.unwrap();
    }
    assert_eq!((server.requests_of("initialize"), server.sessions()), (1, 1));
    session.close(true, &mut Endings::default()).await;
    assert_eq!(server.sessions(), 0);
}

#[tokio::test]
async fn a_session_is_left_alone_where_asked_or_where_a_delete_would_hurt() {
    let server = Server::new(spec().eras(Eras::Legacy));
    let http = over_http(&server).await;
    open(&http.url()).await.unwrap().close(false, &mut Endings::default()).await;
    assert_eq!(server.sessions(), 1);
    let fragile = mcpmon_mcp::server::ServerSpec::new("old", "1.9.4").eras(Eras::Legacy);
    let server = Server::new(fragile.latest_legacy("2025-03-26"));
    let http = over_http(&server).await;
    open(&http.url()).await.unwrap().close(true, &mut Endings::default()).await;
    assert_eq!(server.sessions(), 1);
}

#[tokio::test]
async fn a_forgotten_session_is_opened_again_once_and_told() {
    let server = Server::new(spec().eras(Eras::Legacy));
    let http = over_http(&server).await;
    let mut session = open(&http.url()).await.unwrap();
    prove(&mut session).await.unwrap();
    server.forget_sessions();
    prove(&mut session).await.unwrap();
    let findings = session.take_findings();
    assert_eq!(findings[0].code, FindingCode::SessionNotKept);
    assert_eq!(server.requests_of("initialize"), 2);
    prove(&mut session).await.unwrap();
    assert_eq!(session.take_findings(), []);
}

#[tokio::test]
async fn a_server_without_sessions_needs_none() {
    let server = Server::new(spec().eras(Eras::Legacy).sessions(false));
    let http = over_http(&server).await;
    let mut session = open(&http.url()).await.unwrap();
    assert!(!session.is_kept_by_server());
    prove(&mut session).await.unwrap();
    assert_eq!(session.take_findings(), []);
}

#[tokio::test]
async fn the_configured_era_is_the_only_one_tried() {
    let server = Server::new(spec());
    let http = over_http(&server).await;
    let legacy = open_by(&http.url(), None, only(ProtocolChoice::Legacy), soon()).await.unwrap();
    assert_eq!(legacy.era(), Era::Legacy);
    assert_eq!(server.requests_of("server/discover"), 0);
    let server = Server::new(spec().eras(Eras::Legacy));
    let http = over_http(&server).await;
    assert!(open_by(&http.url(), None, only(ProtocolChoice::Modern), soon()).await.is_err());
    assert_eq!(server.requests_of("initialize"), 0);
}

#[tokio::test]
async fn a_known_era_is_not_looked_up_again() {
    let server = Server::new(spec());
    let http = over_http(&server).await;
    open_by(&http.url(), Some(Era::Legacy), options(), soon()).await.unwrap();
    assert_eq!(server.requests_of("server/discover"), 0);
}

#[tokio::test]
async fn a_mute_discovery_leaves_time_for_the_other_opening() {
    let server = Server::new(spec().eras(Eras::Legacy));
    server.behave(Behaviour::failing(Fault::Hang).only_for(&["server/discover"]));
    let http = over_http(&server).await;
    let session = open_by(&http.url(), None, options(), within(2_000)).await.unwrap();
    assert_eq!(session.era(), Era::Legacy);
}

#[tokio::test]
async fn http_refusals_have_their_codes() {
    use FailureCode as F;
    let cases = [
        (401, F::Unauthorized),
        (403, F::Forbidden),
        (404, F::EndpointNotFound),
        (405, F::MethodNotAllowed),
        (429, F::RateLimited),
        (418, F::ClientError),
        (500, F::ServerError),
        (502, F::UpstreamUnavailable),
    ];
    for (status, code) in cases {
        let server = Server::new(spec()).behaving(Behaviour::failing(Fault::Status(status)));
        let http = over_http(&server).await;
        let error = assert_code(open(&http.url()).await, code);
        assert_eq!(error.failure.evidence["http_status"], status);
        let stops = matches!(status, 401 | 403 | 429);
        assert_eq!(server.requests_of("initialize") == 0, stops, "{status}");
    }
}

#[tokio::test]
async fn what_a_challenge_asks_for_and_how_long_to_wait_are_kept() {
    let raw = Raw::new("text/plain", "no")
        .status(401)
        .header("www-authenticate", "Bearer error=\"invalid_token\"");
    let server = Server::new(spec()).behaving(Behaviour::failing(raw.into()));
    let http = over_http(&server).await;
    let error = assert_code(open(&http.url()).await, FailureCode::Unauthorized);
    assert_eq!(error.failure.evidence["www_authenticate"], "Bearer error=\"invalid_token\"");
    let raw = Raw::new("text/plain", "later").status(503).header("retry-after", "17");
    server.behave(Behaviour::failing(raw.into()));
    let error = assert_code(open(&http.url()).await, FailureCode::RateLimited);
    assert_eq!(error.retry_after, Some(Duration::from_secs(17)));
}

#[tokio::test]
async fn answers_that_are_no_messages_have_their_codes() {
    use FailureCode as F;
    let page = "<!doctype html><h1>Welcome</h1>";
    let other_id = r#"{"jsonrpc":"2.0","id":"x","result":{}}"#;
    let cases = [
        ("text/html; charset=utf-8", page, F::HtmlResponse),
        ("application/xml", "<a/>", F::UnexpectedContentType),
        ("text/plain", "OK", F::UnexpectedContentType),
        ("application/json", "{oops", F::InvalidJson),
        ("application/json", "{\"status\":\"ok\"}", F::NotMcp),
        ("application/json", "{\"jsonrpc\":\"2.0\"}", F::InvalidMessage),
        ("application/json", other_id, F::WrongResponseId),
        ("text/event-stream", ": nothing\n\n", F::StreamEnded),
        ("text/event-stream", "data: {oops\n\n", F::InvalidJson),
    ];
    for (content, body, code) in cases {
        let raw = Raw::new(content, body);
        let server = Server::new(spec()).behaving(Behaviour::failing(raw.into()));
        let http = over_http(&server).await;
        let error = assert_code(open(&http.url()).await, code);
        assert_eq!(error.failure.evidence["http_status"], 200, "{content}");
    }
}

#[tokio::test]
async fn trouble_on_an_open_session_is_told_as_what_it_is() {
    use FailureCode as F;
    let cases = [
        (Fault::Close, F::ConnectionReset),
        (Fault::CutShort, F::TruncatedResponse),
        (Fault::Status(500), F::ServerError),
        (Fault::Rpc(RpcError::new(-32_603, "boom")), F::RpcError),
    ];
    for (eras, _) in ERAS {
        for (fault, code) in cases.clone() {
            let server = Server::new(spec().eras(eras));
            let http = over_http(&server).await;
            let mut session = open(&http.url()).await.unwrap();
            prove(&mut session).await.unwrap();
            let handshakes = server.requests_of("initialize");
            let failing = Behaviour::failing(fault).only_for(&["ping", "server/discover"]);
            server.behave(failing);
            if eras == Eras::Both && code == F::RpcError {
                // A modern answer turned into a foreign one: the era is looked up again.
                continue;
            }
            let seen = prove(&mut session).await;
            if eras == Eras::Modern && code == F::RpcError {
                assert!(seen.is_err());
                continue;
            }
            assert_code(seen, code);
            assert_eq!(server.requests_of("initialize"), handshakes, "{eras:?} {code}");
            server.behave(Behaviour::well());
            prove(&mut session).await.unwrap();
        }
    }
}

#[tokio::test]
async fn a_service_that_falls_silent_is_timed_out_and_can_be_asked_again() {
    let server = Server::new(spec());
    let http = over_http(&server).await;
    let mut session = open(&http.url()).await.unwrap();
    server.behave(Behaviour::failing(Fault::Hang));
    let silent = session.prove_life(&mut Phases::default(), within(150)).await;
    assert_code(silent, FailureCode::ResponseTimeout);
    server.behave(Behaviour::well());
    prove(&mut session).await.unwrap();
}

#[tokio::test]
async fn a_server_that_changed_its_era_is_met_in_the_new_one() {
    let server = Server::new(spec().eras(Eras::Modern));
    let http = over_http(&server).await;
    let mut session = open(&http.url()).await.unwrap();
    assert_eq!(session.era(), Era::Modern);
    let address = http.address();
    http.stop().await;
    let older = Server::new(spec().eras(Eras::Legacy));
    let listener = tokio::net::TcpListener::bind(address).await.unwrap();
    let http = mcpmon_mcp::server::HttpServer::start(listener, older, HttpOptions::default());
    prove(&mut session).await.unwrap();
    assert_eq!(session.era(), Era::Legacy);
    http.unwrap().stop().await;
}

#[tokio::test]
async fn redirects_are_followed_on_the_same_origin_only() {
    let server = Server::new(spec());
    let http = over_http(&server).await;
    let redirect = |status: u16, location: &str| {
        let location = location.to_owned();
        Behaviour::failing_when(
            Raw::new("text/plain", "").status(status).header("location", location).into(),
            |asked| asked.number == 1,
        )
    };
    for (status, location, code) in [
        (307, "/mcp".to_owned(), None),
        (308, http.url(), None),
        (302, "/login".to_owned(), Some(FailureCode::RedirectRefused)),
        (307, "http://127.0.0.2:9/mcp".to_owned(), Some(FailureCode::RedirectRefused)),
        (308, "https://127.0.0.1/mcp".to_owned(), Some(FailureCode::RedirectRefused)),
    ] {
        let server = Server::new(spec()).behaving(redirect(status, &location));
        let http = over_http(&server).await;
        let location_is_own = code.is_none();
        let server_location = if location.starts_with("http") && location_is_own {
            server.behave(redirect(status, &http.url()));
            http.url()
        } else {
            location
        };
        let opened = open(&http.url()).await;
        match code {
            None => assert!(opened.is_ok(), "{status} {server_location}: {opened:?}"),
            Some(code) => {
                let error = assert_code(opened, code);
                assert_eq!(error.failure.evidence["location"], server_location);
            }
        }
    }
    let round = Raw::new("text/plain", "").status(307).header("location", "/mcp");
    server.behave(Behaviour::failing(round.into()));
    assert_code(open(&http.url()).await, FailureCode::RedirectLoop);
    assert_eq!(server.requests(), 6);
}

#[tokio::test]
async fn bodies_and_events_over_the_cap_are_refused() {
    let big = format!(r#"{{"jsonrpc":"2.0","id":1,"result":"{}"}}"#, "x".repeat(50_000));
    let small = SessionOptions { max_body: 10_000, ..options() };
    for (content, body) in [
        ("application/json", big.clone()),
        ("text/event-stream", format!("data: {big}\n\n")),
        ("text/event-stream", ": keep alive\n\n".repeat(5_000)),
    ] {
        let server = Server::new(spec());
        server.behave(Behaviour::failing(Raw::new(content, body).into()));
        let http = over_http(&server).await;
        let opened = open_by(&http.url(), None, small.clone(), soon()).await;
        assert_code(opened, FailureCode::TooLarge);
    }
}

#[tokio::test]
async fn modern_refusals_are_not_taken_for_an_older_server() {
    let error = RpcError::new(-32_020, "header mismatch");
    let server = Server::new(spec()).behaving(Behaviour::failing(Fault::Rpc(error)));
    let http = over_http(&server).await;
    let error = assert_code(open(&http.url()).await, FailureCode::RpcError);
    assert_eq!(error.rpc_code(), Some(-32_020));
    assert_eq!(server.requests_of("initialize"), 0);
    let unsupported = RpcError::new(-32_022, "no").with_data(&json!({"supported": ["2031-01-01"]}));
    server.behave(Behaviour::failing(Fault::Rpc(unsupported)));
    let error = assert_code(open(&http.url()).await, FailureCode::UnsupportedProtocolVersion);
    assert!(error.failure.message.contains("2031-01-01"));
}

#[tokio::test]
async fn configured_headers_are_sent_and_never_told() {
    let (secret, token) = ("Bearer sup3rs3cret", "sup3rs3cret");
    let server = Server::new(spec());
    server.behave(Behaviour::new(|asked| {
        let sent = asked.header("authorization").unwrap_or("none").to_owned();
        let fault = Raw::new("text/plain", format!("bad credentials: {sent}")).status(401);
        mcpmon_mcp::server::Conduct { fault: Some(fault.into()), ..Default::default() }
    }));
    let http = over_http(&server).await;
    let headers = BTreeMap::from([("Authorization".to_owned(), Secret::new(secret))]);
    let spec = HttpSpec { url: http.url(), headers };
    let redactor = Redactor::new([&Secret::new(secret)]);
    let options = Arc::new(SessionOptions { redactor, ..options() });
    let client = Arc::new(HttpClient::new());
    let opened = Session::open_http(
        &client,
        &spec,
        &options,
        &mut Memory::default(),
        &mut Phases::default(),
        soon(),
    )
    .await;
    let error = assert_code(opened, FailureCode::Unauthorized);
    let text = serde_json::to_string(&error.failure).unwrap();
    assert!(text.contains("bad credentials: ***") && !text.contains(token), "{text}");
}
