//! The deprecated HTTP+SSE: where it is looked for, and what its stream, which is its session, can
//! do to us.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use mcpmon_core::failure::{FailureCode, FindingCode};
use mcpmon_core::observation::Phases;
use mcpmon_core::service::ProtocolChoice;
use mcpmon_core::status::Era;
use mcpmon_mcp::http::HttpClient;
use mcpmon_mcp::server::behaviour::Raw;
use mcpmon_mcp::server::{Behaviour, Eras, Fault, HttpOptions, HttpServer, Server};
use mcpmon_mcp::{CallError, Endings, Memory, Session, SessionOptions};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::Instant;

use crate::{
    assert_code, at, listener, only, open, options, over_http, over_http_with, prove, soon, spec,
    tool, within,
};

async fn serve(server: &Server) -> HttpServer {
    over_http_with(server, HttpOptions::default().event_stream().path("/sse")).await
}

fn legacy() -> Server {
    Server::new(spec().eras(Eras::Legacy))
}

/// With HTTP+SSE and nothing else.
async fn open_only(url: &str, deadline: Instant) -> Result<Session, CallError> {
    let options = SessionOptions { max_body: 20_000, ..options() };
    let client = Arc::new(HttpClient::new());
    let mut phases = Phases::default();
    Session::open_events(&client, &at(url), &Arc::new(options), &mut phases, deadline).await
}

async fn open_with(
    url: &str,
    options: SessionOptions,
    memory: &mut Memory,
) -> Result<Session, CallError> {
    let client = Arc::new(HttpClient::new());
    let mut phases = Phases::default();
    Session::open_http(&client, &at(url), &Arc::new(options), memory, &mut phases, soon()).await
}

/// A peer that answers each request with what `say` gives for its method, and keeps connections;
/// with the methods it was asked.
async fn scripted(
    say: impl Fn(&str) -> String + Clone + Send + 'static,
) -> (String, Arc<Mutex<Vec<String>>>) {
    let listener = listener().await;
    let url = format!("http://{}/mcp", listener.local_addr().unwrap());
    let asked = Arc::new(Mutex::new(Vec::new()));
    let heard = Arc::clone(&asked);
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(answer(stream, say.clone(), Arc::clone(&heard)));
        }
    });
    (url, asked)
}

async fn answer(
    mut stream: TcpStream,
    say: impl Fn(&str) -> String,
    heard: Arc<Mutex<Vec<String>>>,
) {
    let mut buffer = [0; 16 * 1024];
    // Requests here are small and come in one piece.
    while let Ok(read) = stream.read(&mut buffer).await {
        let text = String::from_utf8_lossy(&buffer[..read]).into_owned();
        let Some(method) = text.split(' ').next().filter(|method| !method.is_empty()) else {
            return;
        };
        heard.lock().unwrap().push(method.to_owned());
        if stream.write_all(say(method).as_bytes()).await.is_err() {
            return;
        }
    }
}

fn status(line: &str) -> String {
    format!("HTTP/1.1 {line}\r\ncontent-length: 0\r\n\r\n")
}

/// A stream that begins like this and stays open.
fn stream(events: &str) -> String {
    format!("HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n{events}")
}

#[tokio::test]
async fn it_is_asked_for_first_where_the_path_or_an_earlier_session_says_so() {
    let opened = "event: endpoint\ndata: /messages\n\n";
    let mut found = Memory::default();
    found.events = Some(true);
    let known_era = Memory::of_era(Era::Legacy);
    for (path, mut memory, asked_first) in [
        ("/sse", Memory::default(), &["GET", "POST"][..]),
        ("/mcp", found, &["GET", "POST"]),
        ("/mcp", Memory::default(), &["POST", "POST", "GET", "POST"]),
        ("/mcp", known_era, &["POST", "POST", "GET", "POST"]),
    ] {
        let http =
            over_http_with(&legacy(), HttpOptions::default().event_stream().path(path)).await;
        let session = open_with(&http.url(), options(), &mut memory).await.unwrap();
        assert_eq!(session.era(), Era::Legacy, "{path}");
        assert_eq!((memory.era, memory.events), (Some(Era::Legacy), Some(true)));

        let mut memory = match (path, asked_first[0]) {
            ("/mcp", "GET") => memory,
            _ => Memory::default(),
        };
        let mut first_post = path == "/mcp";
        let place = Arc::new(Mutex::new(0));
        let posts = Arc::clone(&place);
        first_post &= memory.events.is_none();
        let (url, asked) = scripted(move |method| {
            let mut posts = posts.lock().unwrap();
            match method {
                "GET" => stream(opened),
                _ if first_post && *posts < 2 => {
                    *posts += 1;
                    status("405 Method Not Allowed")
                }
                _ => status("500 Internal Server Error"),
            }
        })
        .await;
        let url = url.replace("/mcp", path);
        assert_code(open_with(&url, options(), &mut memory).await, FailureCode::ServerError);
        assert_eq!(*asked.lock().unwrap(), asked_first, "{path}");
    }
}

#[tokio::test]
async fn a_streamable_server_at_a_path_that_ends_in_sse_is_found_all_the_same() {
    for eras in [Eras::Legacy, Eras::Modern] {
        let server = Server::new(spec().eras(eras));
        let http = over_http_with(&server, HttpOptions::default().path("/sse")).await;
        let mut memory = Memory::default();
        let mut session = open_with(&http.url(), options(), &mut memory).await.unwrap();
        prove(&mut session).await.unwrap();
        assert_eq!(memory.events, Some(false));
        assert_eq!(session.take_findings(), []);
    }
}

#[tokio::test]
async fn it_is_looked_for_once_where_nothing_takes_a_post_and_then_not_for_an_hour() {
    let (url, asked) = scripted(|_| status("405 Method Not Allowed")).await;
    let mut memory = Memory::default();
    for expected in [&["POST", "POST", "GET"][..], &["POST", "POST"], &["POST", "POST"]] {
        let opened = open_with(&url, options(), &mut memory).await;
        let error = assert_code(opened, FailureCode::MethodNotAllowed);
        assert!(error.failure.message.contains("initialize"), "{error}");
        assert_eq!(std::mem::take(&mut *asked.lock().unwrap()), expected);
    }
}

#[tokio::test]
async fn it_is_not_looked_for_where_something_takes_a_post_or_the_configuration_forbids_it() {
    let (url, asked) = scripted(|_| status("400 Bad Request")).await;
    assert_code(open(&url).await, FailureCode::ClientError);
    assert_eq!(*asked.lock().unwrap(), ["POST", "POST"]);
    let (url, asked) = scripted(|_| status("404 Not Found")).await;
    let opened = open_with(&url, only(ProtocolChoice::Modern), &mut Memory::default()).await;
    assert_code(opened, FailureCode::EndpointNotFound);
    assert_eq!(*asked.lock().unwrap(), ["POST"]);
}

#[tokio::test]
async fn the_place_to_post_to_may_be_relative_or_absolute_but_of_the_same_origin() {
    for (place, followed) in [
        ("/messages", true),
        ("messages?x=1", true),
        ("?x=1", true),
        ("http://127.0.0.2:9/messages", false),
        ("//evil.example/messages", false),
        ("https://127.0.0.1/messages", false),
    ] {
        let opening = stream(&format!("event: endpoint\ndata: {place}\n\n"));
        let (url, asked) = scripted(move |method| match method {
            "GET" => opening.clone(),
            _ => status("202 Accepted"),
        })
        .await;
        if followed {
            // It takes the message and never answers it.
            let opened = open_only(&url, within(300)).await;
            assert_code(opened, FailureCode::HandshakeTimeout);
            assert_eq!(*asked.lock().unwrap(), ["GET", "POST"], "{place}");
        } else {
            let error = assert_code(open_only(&url, soon()).await, FailureCode::RedirectRefused);
            assert_eq!(error.failure.evidence["endpoint"], place);
            assert_eq!(*asked.lock().unwrap(), ["GET"], "nothing is sent there");
        }
    }
}

#[tokio::test]
async fn what_is_no_such_stream_is_told_as_what_it_is() {
    use FailureCode as F;
    let page = "HTTP/1.1 200 OK\r\ncontent-type: text/html\r\ncontent-length: 6\r\n\r\n<html>";
    for (said, code) in [
        (status("404 Not Found"), F::EndpointNotFound),
        (status("405 Method Not Allowed"), F::MethodNotAllowed),
        (status("401 Unauthorized"), F::Unauthorized),
        (status("429 Too Many Requests"), F::RateLimited),
        (status("500 Internal Server Error"), F::ServerError),
        (page.to_owned(), F::HtmlResponse),
        (stream("data: {}\n\n"), F::InvalidMessage),
        (stream(&format!(": {}", "x".repeat(30_000))), F::TooLarge),
        (stream(&": x\n\n".repeat(10_000)), F::TooLarge),
    ] {
        let (url, _) = scripted(move |_| said.clone()).await;
        let error = assert_code(open_only(&url, soon()).await, code);
        assert_eq!(error.failure.phase, mcpmon_core::failure::Phase::Handshake, "{code}");
    }
    let (url, _) = scripted(|_| stream(": nothing\n\n")).await;
    assert_code(open_only(&url, within(200)).await, FailureCode::HandshakeTimeout);
}

#[tokio::test]
async fn a_stream_that_ended_between_two_questions_is_opened_again_and_told() {
    let server = legacy();
    let http = serve(&server).await;
    let mut session = open(&http.url()).await.unwrap();
    prove(&mut session).await.unwrap();
    session.take_findings();
    server.forget_sessions();
    session.woken().await;
    assert!(!session.is_kept_by_server() && !session.has_ended());
    prove(&mut session).await.unwrap();
    let findings: Vec<_> = session.take_findings().iter().map(|found| found.code).collect();
    assert_eq!(findings, [FindingCode::DeprecatedTransport, FindingCode::SessionNotKept]);
    assert_eq!((server.requests_of("initialize"), server.streams()), (2, 1));
    prove(&mut session).await.unwrap();
    assert_eq!(session.take_findings().len(), 1);
}

#[tokio::test]
async fn a_stream_that_ends_at_every_question_is_a_failure_after_one_more_try() {
    let server = legacy();
    let http = serve(&server).await;
    let mut session = open(&http.url()).await.unwrap();
    // The second time it is found ended, so that opening it again is the one more try.
    for (fault, asked) in [(Fault::Close, 2), (Fault::CutShort, 1)] {
        server.behave(Behaviour::failing(fault).only_for(&["ping"]));
        let (pings, handshakes) = (server.requests_of("ping"), server.requests_of("initialize"));
        let error = assert_code(prove(&mut session).await, FailureCode::StreamEnded);
        assert!(error.failure.message.contains("`ping`"), "{error}");
        assert_eq!(server.requests_of("ping") - pings, asked);
        assert_eq!(server.requests_of("initialize") - handshakes, 1);
    }
    server.behave(Behaviour::well());
    prove(&mut session).await.unwrap();
}

#[tokio::test]
async fn trouble_on_the_stream_is_told_as_what_it_is() {
    use FailureCode as F;
    let server = legacy();
    let http = serve(&server).await;
    let mut session = open_only(&http.url(), soon()).await.unwrap();
    let raw = |body: String| Fault::Raw(Raw::new("", body));
    let other_id = r#"{"jsonrpc":"2.0","id":"x","result":{}}"#;
    for (fault, code) in [
        (Fault::Status(500), F::ServerError),
        (Fault::Status(401), F::Unauthorized),
        (Fault::Hang, F::ResponseTimeout),
        (raw(other_id.to_owned()), F::WrongResponseId),
        (raw("{oops".to_owned()), F::InvalidJson),
        (raw(r#"{"jsonrpc":"2.0"}"#.to_owned()), F::InvalidMessage),
    ] {
        server.behave(Behaviour::failing(fault).only_for(&["ping"]));
        let seen = session.prove_life(&mut Phases::default(), within(300)).await;
        assert_code(seen, code);
        assert_eq!(server.requests_of("initialize"), 1, "{code}");
        server.behave(Behaviour::well());
        prove(&mut session).await.unwrap();
        session.take_findings();
    }
    server.behave(Behaviour::failing(raw("x".repeat(30_000))).only_for(&["ping"]));
    assert_code(prove(&mut session).await, F::TooLarge);
    assert!(!session.is_kept_by_server(), "what floods us is hung up on");
}

#[tokio::test]
async fn a_changed_list_wakes() {
    let server = legacy();
    let http = serve(&server).await;
    let mut session = open(&http.url()).await.unwrap();
    prove(&mut session).await.unwrap();
    server.set_tools([tool("other")]);
    session.woken().await;
    let reading = session.read_lists(&mut Phases::default(), soon()).await.unwrap();
    assert_eq!(reading.lists.tools[0].name, "other");
}

#[tokio::test]
async fn slow_answers_are_timed_and_the_deadline_is_kept() {
    let server = legacy();
    server.behave(Behaviour::slow(Duration::from_millis(120)).only_for(&["ping"]));
    let http = serve(&server).await;
    let mut session = open(&http.url()).await.unwrap();
    let latency = prove(&mut session).await.unwrap();
    assert!(latency >= Duration::from_millis(120), "{latency:?}");
    session.close(true, &mut Endings::default()).await;
    server.wait_for_streams(0).await;
}

#[tokio::test]
async fn a_session_whose_server_moved_to_streamable_http_is_given_up_for_a_new_one() {
    let old = legacy();
    let http = over_http_with(&old, HttpOptions::default().event_stream()).await;
    let mut memory = Memory::default();
    let mut session = open_with(&http.url(), options(), &mut memory).await.unwrap();
    prove(&mut session).await.unwrap();
    let (url, address) = (http.url(), http.address());
    http.stop().await;
    let server = legacy();
    let listener = tokio::net::TcpListener::bind(address).await.unwrap();
    let http = HttpServer::start(listener, server.clone(), HttpOptions::default()).unwrap();
    assert_code(prove(&mut session).await, FailureCode::MethodNotAllowed);
    assert!(session.has_ended());
    let mut session = open_with(&url, options(), &mut memory).await.unwrap();
    prove(&mut session).await.unwrap();
    assert_eq!((memory.events, server.sessions()), (Some(false), 1));
    http.stop().await;
}

#[tokio::test]
async fn a_server_that_answers_posts_is_never_asked_for_a_stream() {
    let server = Server::new(spec());
    let http = over_http(&server).await;
    let mut memory = Memory::default();
    open_with(&http.url(), options(), &mut memory).await.unwrap();
    assert_eq!(memory.events, Some(false));
}
