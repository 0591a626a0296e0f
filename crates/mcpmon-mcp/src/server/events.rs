//! The server over the deprecated HTTP+SSE: a GET opens the stream, POSTs to the place it names
//! are answered on it.

use hyper::body::Incoming as Body;
use hyper::header::{ALLOW, HeaderValue};
use hyper::http::request::Parts;
use hyper::{Method, Response, StatusCode};

use super::Server;
use super::body::Out;
use super::dispatch::Via;
use super::gate::{check_host, check_origin};
use super::http::{Closed, EVENTS, HttpOptions, by_hand, event, plain, typed, whole};
use super::plan::{Plan, Reply};
use super::streams::Incoming;
use crate::jsonrpc;

/// Where to post to, below the path of the stream.
const MESSAGES: &str = "/messages";
const SESSION: &str = "session=";

pub(super) async fn exchange(
    server: &Server,
    options: &HttpOptions,
    head: Parts,
    body: Body,
) -> Result<Response<Out>, Closed> {
    let trusted = check_host(&head.headers, &options.allowed_hosts)
        .and_then(|()| check_origin(&head.headers, &options.allowed_hosts));
    if let Err(turned) = trusted {
        return Ok(plain(turned.status, turned.reason));
    }
    let below = head.uri.path().strip_prefix(options.path.as_str());
    match (below, &head.method) {
        (Some(""), &Method::GET) => Ok(open(server, options)),
        (Some(MESSAGES), &Method::POST) => match whole(body).await {
            Ok(body) => Ok(post(server, &head, &body)),
            Err(refusal) => Ok(*refusal),
        },
        (Some(""), _) => {
            let mut response = plain(StatusCode::METHOD_NOT_ALLOWED, "get the event stream first");
            response.headers_mut().insert(ALLOW, HeaderValue::from_static("GET"));
            Ok(response)
        }
        _ => Ok(plain(StatusCode::NOT_FOUND, "nothing is here")),
    }
}

fn open(server: &Server, options: &HttpOptions) -> Response<Out> {
    let incoming = Incoming::open(server);
    let place = format!("{}{MESSAGES}?{SESSION}{}", options.path, incoming.id());
    if let Some((_, stream)) = server.lock_streams().get(incoming.id()) {
        let _ = stream.send(format!("event: endpoint\ndata: {place}\n\n").into());
    }
    typed(200, EVENTS, Out::Stream(incoming))
}

fn post(server: &Server, head: &Parts, body: &[u8]) -> Response<Out> {
    let id = head.uri.query().and_then(|query| query.strip_prefix(SESSION)).unwrap_or_default();
    let Some((stage, stream)) = server.lock_streams().get(id) else {
        return plain(StatusCode::NOT_FOUND, "there is no such session");
    };
    let incoming = jsonrpc::parse(body);
    let Plan { stage, delay, asks, reply, .. } =
        server.plan(stage, Via::Events(&head.headers), incoming);
    server.lock_streams().moved(id, stage);
    let (events, ends) = match reply {
        Reply::Nothing | Reply::Hang => (Vec::new(), false),
        Reply::Send(answer) => {
            let messages = asks.iter().chain([&answer.body]);
            (messages.flat_map(|message| event(message)).collect(), false)
        }
        Reply::CutShort(answer) => {
            let mut half = event(&answer.body);
            half.truncate(half.len() / 2);
            (half, true)
        }
        Reply::Raw(raw) if raw.status != 200 => return by_hand(raw),
        Reply::Raw(raw) => (event(&raw.body), false),
        Reply::Close => (Vec::new(), true),
    };
    let (server, id) = (server.clone(), id.to_owned());
    tokio::spawn(async move {
        tokio::time::sleep(delay).await;
        if !events.is_empty() {
            // A client that went away wants no answer.
            let _ = stream.send(events.into());
        }
        if ends {
            server.lock_streams().close(&id);
        }
    });
    plain(StatusCode::ACCEPTED, "")
}
