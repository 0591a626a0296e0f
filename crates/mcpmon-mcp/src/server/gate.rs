//! What an HTTP request must look like before its body is read: a pure decision on its head.

use hyper::header::{ACCEPT, CONTENT_TYPE, HOST, ORIGIN};
use hyper::http::request::Parts;
use hyper::{HeaderMap, Method, StatusCode};

use super::http::{Answers, HttpOptions};
use super::spec::ServerSpec;
use crate::protocol::headers;

/// What a request wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Admitted {
    /// To send a message.
    Post,
    /// To end a session.
    Delete,
    /// To go on with a stream that was closed.
    Resume,
}

/// Why a request is turned away.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct TurnedAway {
    pub(super) status: StatusCode,
    pub(super) reason: &'static str,
}

const fn turn_away(status: StatusCode, reason: &'static str) -> TurnedAway {
    TurnedAway { status, reason }
}

/// The methods this server takes, for `Allow`.
pub(super) fn allowed(spec: &ServerSpec) -> &'static str {
    if spec.eras.legacy() && spec.sessions { "POST, DELETE" } else { "POST" }
}

/// Decides whether a request is let in.
pub(super) fn admit(
    head: &Parts,
    spec: &ServerSpec,
    options: &HttpOptions,
) -> Result<Admitted, TurnedAway> {
    check_host(&head.headers, &options.allowed_hosts)?;
    check_origin(&head.headers, &options.allowed_hosts)?;
    if head.uri.path() != options.path {
        return Err(turn_away(StatusCode::NOT_FOUND, "nothing is here"));
    }
    if head.method == Method::DELETE && spec.eras.legacy() && spec.sessions {
        return Ok(Admitted::Delete);
    }
    if head.method == Method::GET
        && options.answers == Answers::Polled
        && head.headers.contains_key(headers::LAST_EVENT_ID)
    {
        return Ok(Admitted::Resume);
    }
    if head.method != Method::POST {
        return Err(turn_away(StatusCode::METHOD_NOT_ALLOWED, "send messages by POST"));
    }
    if !media(&head.headers, CONTENT_TYPE).any(|kind| kind == "application/json") {
        let status = StatusCode::UNSUPPORTED_MEDIA_TYPE;
        return Err(turn_away(status, "Content-Type must be application/json"));
    }
    let takes = |wanted: &str| {
        let group = wanted.split('/').next().unwrap_or(wanted);
        media(&head.headers, ACCEPT)
            .any(|kind| kind == wanted || kind == "*/*" || kind.strip_suffix("/*") == Some(group))
    };
    if !(takes("application/json") && takes("text/event-stream")) {
        let reason = "Accept must have both application/json and text/event-stream";
        return Err(turn_away(StatusCode::NOT_ACCEPTABLE, reason));
    }
    Ok(Admitted::Post)
}

/// The media types of a header, without their parameters, in lower case.
fn media(headers: &HeaderMap, name: hyper::header::HeaderName) -> impl Iterator<Item = String> {
    headers
        .get_all(name)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .filter_map(|entry| entry.split(';').next())
        .map(|kind| kind.trim().to_ascii_lowercase())
}

/// A web page that had its own name resolve to us still sends that name as Host, so an address, or
/// `localhost`, or a name we were told of, is no such page.
pub(super) fn check_host(headers: &HeaderMap, allowed: &[String]) -> Result<(), TurnedAway> {
    let host = headers.get(HOST).and_then(|host| host.to_str().ok());
    match host {
        Some(host) if is_trusted(host, allowed) => Ok(()),
        _ => Err(turn_away(StatusCode::FORBIDDEN, "this Host is not one of ours")),
    }
}

/// Browsers send Origin; a page of another site must not talk to us.
pub(super) fn check_origin(headers: &HeaderMap, allowed: &[String]) -> Result<(), TurnedAway> {
    let Some(origin) = headers.get(ORIGIN) else { return Ok(()) };
    let host = origin.to_str().ok().and_then(|origin| {
        origin.strip_prefix("http://").or_else(|| origin.strip_prefix("https://"))
    });
    match host {
        Some(host) if is_trusted(host, allowed) => Ok(()),
        _ => Err(turn_away(StatusCode::FORBIDDEN, "this Origin is not one of ours")),
    }
}

fn is_trusted(authority: &str, allowed: &[String]) -> bool {
    let name = without_port(authority);
    let address = name.trim_start_matches('[').trim_end_matches(']');
    name.eq_ignore_ascii_case("localhost")
        || address.parse::<std::net::IpAddr>().is_ok()
        || allowed.iter().any(|known| known.eq_ignore_ascii_case(name))
}

fn without_port(authority: &str) -> &str {
    match authority.rsplit_once(':') {
        Some((name, port)) if !port.is_empty() && port.bytes().all(|b| b.is_ascii_digit()) => name,
        _ => authority,
    }
}

#[cfg(test)]
mod tests {
    use super::super::spec::Eras;
    use super::*;

    const GOOD: [(&str, &str); 3] = [
        ("host", "127.0.0.1:8080"),
        ("content-type", "application/json; charset=utf-8"),
        ("accept", "application/json, text/event-stream"),
    ];

    /// The status a request is turned away with; 0 if it is let in.
    fn status(eras: Eras, method: &str, path: &str, changed: &[(&str, &str)]) -> u16 {
        let mut request = hyper::Request::builder().method(method).uri(path);
        let kept = GOOD.iter().filter(|(name, _)| changed.iter().all(|(other, _)| other != name));
        for (name, value) in kept.chain(changed.iter().filter(|(_, value)| !value.is_empty())) {
            request = request.header(*name, *value);
        }
        let (head, ()) = request.body(()).unwrap().into_parts();
        let options = HttpOptions::default().allow_host("mcp.example");
        match admit(&head, &ServerSpec::new("s", "1").eras(eras), &options) {
            Ok(_) => 0,
            Err(turned) => turned.status.as_u16(),
        }
    }

    #[test]
    fn lets_in_what_the_specification_asks_for() {
        let post = |changed: &[(&str, &str)]| status(Eras::Both, "POST", "/mcp", changed);
        let cases: [(&[(&str, &str)], u16); 15] = [
            (&[], 0),
            (&[("accept", "*/*")], 0),
            (&[("accept", "application/*, text/*")], 0),
            (&[("accept", "application/json")], 406),
            (&[("accept", "")], 406),
            (&[("content-type", "text/plain")], 415),
            (&[("content-type", "")], 415),
            (&[("host", "localhost:99")], 0),
            (&[("host", "[::1]:99")], 0),
            (&[("host", "mcp.example")], 0),
            (&[("host", "evil.example")], 403),
            (&[("host", "")], 403),
            (&[("origin", "http://localhost:3000")], 0),
            (&[("origin", "https://evil.example")], 403),
            (&[("origin", "null")], 403),
        ];
        for (changed, expected) in cases {
            assert_eq!(post(changed), expected, "{changed:?}");
        }
    }

    #[test]
    fn only_sessions_can_be_deleted_and_nothing_got() {
        assert_eq!(status(Eras::Both, "DELETE", "/mcp", &[]), 0);
        assert_eq!(status(Eras::Modern, "DELETE", "/mcp", &[]), 405);
        for eras in [Eras::Legacy, Eras::Modern, Eras::Both] {
            assert_eq!(status(eras, "GET", "/mcp", &[]), 405);
            assert_eq!(status(eras, "POST", "/", &[]), 404);
        }
    }
}
