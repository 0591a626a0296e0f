//! First contact over HTTP with servers of either era that refuse the wrong opening in all the
//! ways servers do.

use std::time::Duration;

use mcpmon_core::failure::FailureCode;
use mcpmon_core::observation::Phases;
use mcpmon_core::status::Era;
use mcpmon_mcp::jsonrpc::RpcError;
use mcpmon_mcp::server::behaviour::Raw;
use mcpmon_mcp::server::{Answers, Behaviour, Eras, Fault, HttpOptions, Server, ServerSpec};
use mcpmon_mcp::{Endings, SessionOptions};
use serde_json::json;

use crate::{
    assert_code, open, open_by, options, over_http, over_http_with, prove, soon, spec, within,
};

fn json_refusal(status: u16, body: &str) -> Fault {
    Raw::new("application/json", body.to_owned()).status(status).into()
}

fn rpc(code: i64) -> Fault {
    Fault::Rpc(RpcError::new(code, "no"))
}

fn unsupported(supported: &[&str]) -> Fault {
    Fault::Rpc(RpcError::new(-32_022, "no").with_data(&json!({ "supported": supported })))
}

#[tokio::test]
async fn no_refusal_of_a_discovery_is_a_failure_of_an_older_server() {
    let nameless = r#"{"jsonrpc":"2.0","id":null,"error":{"code":-32000,"message":"no session"}}"#;
    let named =
        r#"{"jsonrpc":"2.0","id":"server-error","error":{"code":-32600,"message":"no session"}}"#;
    let page = Raw::new("text/html", "<!doctype html>");
    for (name, refusal) in [
        ("400, an id of null", json_refusal(400, nameless)),
        ("400, an id of its own", json_refusal(400, named)),
        ("404 with -32601", json_refusal(404, &nameless.replace("-32000", "-32601"))),
        ("404", Fault::Status(404)),
        ("405", Fault::Status(405)),
        ("406", Fault::Status(406)),
        ("415", Fault::Status(415)),
        ("400", Fault::Status(400)),
        ("-32601", rpc(-32_601)),
        ("-32602", rpc(-32_602)),
        ("-32600", rpc(-32_600)),
        ("-32603", rpc(-32_603)),
        ("a page", page.clone().into()),
        ("a page with 404", page.status(404).into()),
        ("another API", Raw::new("application/json", r#"{"ok":true}"#).into()),
        ("nothing", Raw::new("application/json", "").into()),
        ("an empty stream", Raw::new("text/event-stream", "").into()),
        ("500", Fault::Status(500)),
        ("503", Fault::Status(503)),
        ("the connection closed", Fault::Close),
        ("half an answer", Fault::CutShort),
        ("the revision is known to be older", unsupported(&["2025-06-18"])),
    ] {
        let server = Server::new(spec().eras(Eras::Legacy));
        server.behave(Behaviour::failing(refusal).only_for(&["server/discover"]));
        let http = over_http(&server).await;
        let mut session = open(&http.url()).await.expect(name);
        prove(&mut session).await.expect(name);
        assert_eq!(session.era(), Era::Legacy, "{name}");
        assert_eq!(session.take_findings(), [], "{name}");
        let discoveries = server.requests_of("server/discover");
        // An idle connection may have been closed; only then is a request sent twice.
        assert!((1..=2).contains(&discoveries), "{name}: {discoveries}");
        assert_eq!(server.requests_of("initialize"), 1, "{name}");
        prove(&mut session).await.expect(name);
        assert_eq!(server.requests_of("server/discover"), discoveries, "{name}: not asked again");
    }
}

#[tokio::test]
async fn what_no_other_opening_could_change_ends_first_contact() {
    use FailureCode as F;
    for (refusal, code) in [
        (Fault::Status(401), F::Unauthorized),
        (Fault::Status(403), F::Forbidden),
        (Fault::Status(429), F::RateLimited),
        (rpc(-32_020), F::RpcError),
        (rpc(-32_021), F::RpcError),
        (unsupported(&["2031-01-01"]), F::UnsupportedProtocolVersion),
    ] {
        let server = Server::new(spec()).behaving(Behaviour::failing(refusal));
        let http = over_http(&server).await;
        assert_code(open(&http.url()).await, code);
        assert_eq!(server.requests_of("initialize"), 0, "{code}");
    }
}

#[tokio::test]
async fn a_modern_server_is_met_again_where_a_legacy_one_is_remembered() {
    let server = Server::new(spec().eras(Eras::Modern));
    let http = over_http(&server).await;
    let session = open_by(&http.url(), Some(Era::Legacy), options(), soon()).await.unwrap();
    assert_eq!(session.era(), Era::Modern);
    assert_eq!((server.requests_of("initialize"), server.requests_of("server/discover")), (1, 1));
}

#[tokio::test]
async fn a_mute_opening_takes_its_share_of_the_time_and_no_more() {
    let server = Server::new(spec().eras(Eras::Legacy));
    server.behave(Behaviour::failing(Fault::Hang).only_for(&["server/discover"]));
    let http = over_http(&server).await;
    let started = tokio::time::Instant::now();
    open_by(&http.url(), None, options(), within(1_000)).await.unwrap();
    let taken = started.elapsed().as_millis();
    assert!((400..900).contains(&taken), "{taken} ms");
}

#[tokio::test]
async fn a_session_that_cannot_be_used_is_given_back() {
    let result = r#"{"jsonrpc":"2.0","id":2,"result":{"protocolVersion":"1999-01-01","capabilities":{},"serverInfo":{"name":"s","version":"1"}}}"#;
    let (told, mut deleted) = tokio::sync::mpsc::unbounded_channel();
    let listener = crate::listener().await;
    let url = format!("http://{}/mcp", listener.local_addr().unwrap());
    tokio::spawn(async move {
        use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
        while let Ok((mut stream, _)) = listener.accept().await {
            let told = told.clone();
            tokio::spawn(async move {
                let mut buffer = [0; 16 * 1024];
                while let Ok(read @ 1..) = stream.read(&mut buffer).await {
                    let text = String::from_utf8_lossy(&buffer[..read]).into_owned();
                    let answer = if text.starts_with("DELETE") {
                        let _ = told.send(text.contains("mcp-session-id: abc"));
                        "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n".to_owned()
                    } else if text.contains("initialize") {
                        format!(
                            "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\nmcp-session-id: abc\r\ncontent-length: {}\r\n\r\n{result}",
                            result.len()
                        )
                    } else {
                        "HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\n".to_owned()
                    };
                    if stream.write_all(answer.as_bytes()).await.is_err() {
                        return;
                    }
                }
            });
        }
    });
    assert_code(open(&url).await, FailureCode::UnsupportedProtocolVersion);
    assert_eq!(deleted.recv().await, Some(true));
    let kept = SessionOptions { terminate_session: false, ..options() };
    assert_code(open_by(&url, None, kept, soon()).await, FailureCode::UnsupportedProtocolVersion);
    assert!(deleted.try_recv().is_err(), "the configuration forbids it");
}

#[tokio::test]
async fn a_session_is_left_alone_where_the_configuration_says_so() {
    let server = Server::new(spec().eras(Eras::Legacy));
    let http = over_http(&server).await;
    let kept = SessionOptions { terminate_session: false, ..options() };
    let session = open_by(&http.url(), None, kept, soon()).await.unwrap();
    session.close(true, &mut Endings::default()).await;
    assert_eq!(server.sessions(), 1);
}

#[tokio::test]
async fn only_the_old_sdk_of_that_version_is_spared_the_delete() {
    for (revision, left) in [("2025-03-26", 1), ("2025-11-25", 0)] {
        let offered = ServerSpec::new("old", "1.9.4").eras(Eras::Legacy).latest_legacy(revision);
        let server = Server::new(offered);
        let http = over_http(&server).await;
        open(&http.url()).await.unwrap().close(true, &mut Endings::default()).await;
        assert_eq!(server.sessions(), left, "{revision}");
    }
}

#[tokio::test]
async fn a_server_with_an_hour_of_ttl_that_dies_is_seen_at_the_next_question() {
    let server = Server::new(spec().eras(Eras::Modern).ttl(Duration::from_secs(3_600)));
    let http = over_http(&server).await;
    let mut session = open(&http.url()).await.unwrap();
    prove(&mut session).await.unwrap();
    session.read_lists(&mut Phases::default(), soon()).await.unwrap();
    server.behave(Behaviour::failing(Fault::Status(500)));
    assert_code(prove(&mut session).await, FailureCode::ServerError);
    let lists = session.read_changed_lists(&mut Phases::default(), soon()).await;
    assert_code(lists, FailureCode::ServerError);
}

#[tokio::test]
async fn an_answer_that_is_fetched_later_is_waited_for_as_the_server_asks_within_bounds() {
    use mcpmon_core::failure::FindingCode;
    for (retry, least, findings) in [
        (Duration::from_millis(150), 150, vec![]),
        (Duration::ZERO, 20, vec![FindingCode::ClampedHint]),
    ] {
        let server = Server::new(spec().eras(Eras::Legacy));
        let polled = HttpOptions::default().answers(Answers::Polled).retry(retry);
        let http = over_http_with(&server, polled).await;
        let mut session = open(&http.url()).await.unwrap();
        let latency = prove(&mut session).await.unwrap();
        assert!(latency >= Duration::from_millis(least), "{latency:?}");
        let found: Vec<_> = session.take_findings().iter().map(|found| found.code).collect();
        assert_eq!(found, findings);
        assert_eq!(server.requests_of("ping"), 1);
    }
}

#[tokio::test]
async fn a_stream_that_nobody_goes_on_with_has_ended() {
    let primer = Raw::new("text/event-stream", "id: 7\nretry: 20\ndata:\n\n");
    let server = Server::new(spec().eras(Eras::Legacy));
    let http = over_http(&server).await;
    let mut session = open(&http.url()).await.unwrap();
    prove(&mut session).await.unwrap();
    server.behave(Behaviour::failing(primer.into()).only_for(&["ping"]));
    let error = assert_code(prove(&mut session).await, FailureCode::StreamEnded);
    assert!(error.failure.message.contains("HTTP 405"), "{error}");
}
