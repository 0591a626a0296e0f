use std::time::Duration;

use http_body_util::Full;
use hyper::Request;
use hyper::client::conn::http1 as client;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::super::{Behaviour, Eras, Fault, ServerSpec, Tool, ToolOutput, behaviour::Raw};
use super::*;
use crate::protocol::{MODERN, meta};

struct Heard {
    status: u16,
    headers: HeaderMap,
    body: Result<String, String>,
}

impl Heard {
    fn json(&self) -> Value {
        serde_json::from_str(self.body.as_ref().unwrap()).unwrap()
    }

    fn session(&self) -> Option<String> {
        session_header(&self.headers).map(str::to_owned)
    }
}

async fn start(server: &Server, options: HttpOptions) -> HttpServer {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    HttpServer::start(listener, server.clone(), options).unwrap()
}

/// One request on a connection of its own; `None` if the connection ends without an answer.
async fn send(
    server: &HttpServer,
    method: &str,
    extra: &[(&str, &str)],
    body: &str,
) -> Option<Heard> {
    let stream = TcpStream::connect(server.address()).await.unwrap();
    let (mut sender, connection) = client::handshake(TokioIo::new(stream)).await.unwrap();
    let connection = tokio::spawn(connection);
    let mut request = Request::builder()
        .method(method)
        .uri("/mcp")
        .header("host", server.address().to_string())
        .header("content-type", "application/json")
        .header("accept", "application/json, text/event-stream");
    for (name, value) in extra {
        request = request.header(*name, *value);
    }
    let request = request.body(Full::new(Bytes::from(body.to_owned()))).unwrap();
    let response = sender.send_request(request).await.ok()?;
    let (head, body) = response.into_parts();
    let body = match body.collect().await {
        Ok(whole) => Ok(String::from_utf8(whole.to_bytes().to_vec()).unwrap()),
        Err(error) => Err(error.to_string()),
    };
    connection.abort();
    Some(Heard { status: head.status.as_u16(), headers: head.headers, body })
}

async fn post(server: &HttpServer, extra: &[(&str, &str)], message: &Value) -> Heard {
    send(server, "POST", extra, &message.to_string()).await.expect("an answer")
}

fn request(method: &str, params: &Value) -> Value {
    json!({"jsonrpc": "2.0", "id": 1, "method": method, "params": params})
}

fn initialize() -> Value {
    request("initialize", &json!({"protocolVersion": "2025-11-25", "capabilities": {}}))
}

fn modern(method: &str) -> Value {
    let meta = json!({(meta::PROTOCOL_VERSION): MODERN, (meta::CLIENT_CAPABILITIES): {}});
    request(method, &json!({"_meta": meta}))
}

fn modern_headers(method: &str) -> [(&str, &str); 2] {
    [(headers::PROTOCOL_VERSION, MODERN), (headers::METHOD, method)]
}

fn spec() -> ServerSpec {
    ServerSpec::new("s", "1").tool(Tool::new("t", "", |_| Ok(ToolOutput::text("x"))))
}

#[tokio::test]
async fn a_legacy_session_lives_from_initialize_to_delete() {
    let server = Server::new(spec());
    let http = start(&server, HttpOptions::default()).await;
    let opened = post(&http, &[], &initialize()).await;
    assert_eq!(opened.json()["result"]["protocolVersion"], "2025-11-25");
    let id = opened.session().unwrap();
    let with = [(headers::SESSION_ID, id.as_str()), (headers::PROTOCOL_VERSION, "2025-11-25")];
    let told = json!({"jsonrpc": "2.0", "method": "notifications/initialized"});
    assert_eq!(post(&http, &with, &told).await.status, 202);
    assert_eq!(post(&http, &with, &request("ping", &json!({}))).await.json()["result"], json!({}));
    let listed = post(&http, &with, &request("tools/list", &json!({}))).await;
    assert_eq!(listed.json()["result"]["tools"][0]["name"], "t");
    assert_eq!(server.sessions(), 1);

    assert_eq!(send(&http, "DELETE", &with, "").await.unwrap().status, 200);
    assert_eq!(server.sessions(), 0);
    assert_eq!(post(&http, &with, &request("ping", &json!({}))).await.status, 404);
    assert_eq!(send(&http, "DELETE", &with, "").await.unwrap().status, 404);
    assert_eq!(server.requests_of("ping"), 2, "one that is refused was asked too");
}

#[tokio::test]
async fn messages_of_no_session_are_refused_with_an_id_of_null() {
    let server = Server::new(spec().eras(Eras::Legacy));
    let http = start(&server, HttpOptions::default()).await;
    for (extra, message) in [
        (&[] as &[_], request("tools/list", &json!({}))),
        (&modern_headers("server/discover"), modern("server/discover")),
        (&[(headers::PROTOCOL_VERSION, "1999-01-01")], request("ping", &json!({}))),
    ] {
        let heard = post(&http, extra, &message).await;
        assert_eq!((heard.status, &heard.json()["id"]), (400, &Value::Null));
        assert_eq!(heard.json()["error"]["code"], -32_000);
    }
    assert_eq!(server.requests(), 3);
    server.behave(Behaviour::failing(Fault::Status(418)));
    assert_eq!(post(&http, &[], &request("ping", &json!({}))).await.status, 418);
}

#[tokio::test]
async fn without_sessions_legacy_requests_stand_alone() {
    let server = Server::new(spec().sessions(false));
    let http = start(&server, HttpOptions::default()).await;
    assert_eq!(post(&http, &[], &initialize()).await.session(), None);
    assert_eq!(post(&http, &[], &request("ping", &json!({}))).await.status, 200);
    assert_eq!(send(&http, "DELETE", &[], "").await.unwrap().status, 405);
}

#[tokio::test]
async fn modern_requests_need_no_session_beside_legacy_ones() {
    let server = Server::new(spec());
    let http = start(&server, HttpOptions::default()).await;
    let heard = post(&http, &modern_headers("server/discover"), &modern("server/discover")).await;
    assert_eq!(heard.json()["result"]["supportedVersions"], json!([MODERN]));
    assert_eq!(heard.session(), None);
    let heard = post(&http, &modern_headers("ping"), &modern("ping")).await;
    assert_eq!((heard.status, heard.json()["error"]["code"].as_i64()), (404, Some(-32_601)));
    let get = send(&http, "GET", &[], "").await.unwrap();
    assert_eq!((get.status, get.headers[ALLOW].to_str().unwrap()), (405, "POST, DELETE"));
    assert_eq!(post(&http, &[], &initialize()).await.status, 200);
}

#[tokio::test]
async fn a_modern_only_server_names_its_revision_to_old_clients() {
    let http = start(&Server::new(spec().eras(Eras::Modern)), HttpOptions::default()).await;
    let heard = post(&http, &[], &initialize()).await;
    assert_eq!((heard.status, heard.json()["error"]["code"].as_i64()), (400, Some(-32_022)));
    let told = json!({"jsonrpc": "2.0", "method": "notifications/cancelled"});
    assert_eq!(post(&http, &[], &told).await.status, 202);
    for method in ["GET", "DELETE"] {
        let heard = send(&http, method, &[], "").await.unwrap();
        assert_eq!((heard.status, heard.headers[ALLOW].to_str().unwrap()), (405, "POST"));
    }
}

#[tokio::test]
async fn answers_as_an_event_stream_when_asked_to() {
    let server = Server::new(spec());
    let http = start(&server, HttpOptions::default().answers(Answers::Sse)).await;
    let heard = post(&http, &[], &initialize()).await;
    assert_eq!(heard.headers[CONTENT_TYPE], "text/event-stream");
    let body = heard.body.unwrap();
    let data = body.strip_prefix("event: message\ndata: ").unwrap().strip_suffix("\n\n").unwrap();
    assert_eq!(serde_json::from_str::<Value>(data).unwrap()["id"], 1);
}

#[tokio::test]
async fn goes_wrong_on_cue() {
    let server = Server::new(spec());
    let http = start(&server, HttpOptions::default()).await;
    let discover = || post_modern(&http);

    server.behave(Behaviour::failing(Fault::Status(503)));
    assert_eq!(discover().await.unwrap().status, 503);
    let error = RpcError::new(-32_603, "no");
    server.behave(Behaviour::failing(Fault::Rpc(error)));
    assert_eq!(discover().await.unwrap().json()["error"]["code"], -32_603);
    server.behave(Behaviour::failing(Fault::Close));
    assert!(discover().await.is_none());
    server.behave(Behaviour::failing(Fault::CutShort));
    assert!(discover().await.unwrap().body.is_err());
    let raw = Raw::new("text/html", "<html>").status(401).header("www-authenticate", "Bearer");
    server.behave(Behaviour::failing_when(raw.into(), |a| a.header("authorization").is_none()));
    let heard = discover().await.unwrap();
    assert_eq!((heard.status, heard.body.as_deref()), (401, Ok("<html>")));
    assert_eq!(heard.headers["www-authenticate"], "Bearer");
    server.behave(Behaviour::failing(Fault::Hang));
    let hanging = tokio::time::timeout(Duration::from_millis(50), discover());
    assert!(hanging.await.is_err());
    server.behave(Behaviour::well());
    assert_eq!(discover().await.unwrap().status, 200);
    assert_eq!(server.requests_of("server/discover"), 7);
}

async fn post_modern(http: &HttpServer) -> Option<Heard> {
    let body = modern("server/discover").to_string();
    send(http, "POST", &modern_headers("server/discover"), &body).await
}

#[tokio::test]
async fn too_large_and_unreadable_bodies_are_refused() {
    let http = start(&Server::new(spec()), HttpOptions::default()).await;
    let large = "x".repeat(MAX_BODY + 1);
    if let Some(heard) = send(&http, "POST", &[], &large).await {
        assert_eq!(heard.status, 413);
    }
    let heard = send(&http, "POST", &[], "{").await.unwrap();
    assert_eq!((heard.status, heard.json()["error"]["code"].as_i64()), (400, Some(-32_700)));
}

#[tokio::test]
async fn stopping_frees_the_port_and_closes_connections() {
    let server = Server::new(spec()).behaving(Behaviour::failing(Fault::Hang));
    let http = start(&server, HttpOptions::default()).await;
    let address = http.address();
    let mut idle = TcpStream::connect(address).await.unwrap();
    idle.write_all(b"POST").await.unwrap();
    http.stop().await;
    let mut byte = [0];
    assert!(matches!(idle.read(&mut byte).await, Ok(0) | Err(_)));
    TcpListener::bind(address).await.expect("the port is free");
}
