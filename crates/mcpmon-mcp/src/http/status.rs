//! What an HTTP answer means before its body is looked at as a message.

use std::time::Duration;

use hyper::StatusCode;
use hyper::header::{CONTENT_TYPE, DATE, HeaderMap, LOCATION, RETRY_AFTER, WWW_AUTHENTICATE};
use mcpmon_core::failure::{FailureCode, Phase};

use crate::error::{CallError, excerpt};
use crate::jsonrpc::{self, Incoming, Message, Response, RpcError};

/// Longest wait a server can ask for.
pub const MAX_RETRY_AFTER: Duration = Duration::from_secs(3_600);

/// What a body claims to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Content {
    /// One message, or a batch.
    Json,
    /// Events.
    EventStream,
    /// A web page.
    Html,
    /// Nothing, or something that may still be JSON.
    Unnamed,
    /// Something else.
    Other,
}

/// Reads `Content-Type`.
pub(super) fn content(headers: &HeaderMap) -> Content {
    let Some(value) = headers.get(CONTENT_TYPE) else { return Content::Unnamed };
    let value = value.to_str().unwrap_or("?");
    let media = value.split(';').next().unwrap_or_default().trim();
    let is = |wanted: &str| media.eq_ignore_ascii_case(wanted);
    if is("application/json") || media.to_ascii_lowercase().ends_with("+json") {
        Content::Json
    } else if is("text/event-stream") {
        Content::EventStream
    } else if is("text/html") || is("application/xhtml+xml") {
        Content::Html
    } else if is("text/plain") || media.is_empty() {
        Content::Unnamed
    } else {
        Content::Other
    }
}

/// A header's value as text.
pub(super) fn header(headers: &HeaderMap, name: &hyper::header::HeaderName) -> Option<String> {
    headers.get(name).map(|value| excerpt(value.as_bytes()))
}

/// The failure an answer with an error status is.
pub(super) fn status_error(
    status: StatusCode,
    headers: &HeaderMap,
    body: &[u8],
    method: &str,
    phase: Phase,
) -> CallError {
    let retry_after = retry_after(headers);
    let rpc = rpc_error(body);
    let code = status_code(status, retry_after.is_some());
    let told_by_status = status.is_server_error()
        || matches!(
            code,
            FailureCode::Unauthorized | FailureCode::Forbidden | FailureCode::RateLimited
        );
    let mut error = match rpc {
        Some(rpc) if !told_by_status => CallError::from_rpc(method, rpc, phase),
        rpc => {
            let reason = status.canonical_reason().map_or_else(String::new, |r| format!(" {r}"));
            let message = format!("`{method}` was answered with HTTP {}{reason}", status.as_u16());
            let mut error = CallError::new(code, phase, message).with_excerpt(body);
            error.rpc = rpc.map(Box::new);
            error
        }
    };
    error.status = Some(status.as_u16());
    error.retry_after = retry_after;
    error = error.with("http_status", status.as_u16());
    for (key, name) in [
        ("www_authenticate", WWW_AUTHENTICATE),
        ("retry_after", RETRY_AFTER),
        ("location", LOCATION),
        ("content_type", CONTENT_TYPE),
    ] {
        if let Some(value) = header(headers, &name) {
            error = error.with(key, value);
        }
    }
    error
}

fn status_code(status: StatusCode, says_when: bool) -> FailureCode {
    match status.as_u16() {
        401 => FailureCode::Unauthorized,
        403 => FailureCode::Forbidden,
        404 | 410 => FailureCode::EndpointNotFound,
        405 => FailureCode::MethodNotAllowed,
        429 => FailureCode::RateLimited,
        503 if says_when => FailureCode::RateLimited,
        502..=504 => FailureCode::UpstreamUnavailable,
        500.. => FailureCode::ServerError,
        _ => FailureCode::ClientError,
    }
}

/// The JSON-RPC error in a body, whatever id it bears: real servers send null, `"server-error"`
/// or none.
pub(super) fn rpc_error(body: &[u8]) -> Option<RpcError> {
    match jsonrpc::parse(body) {
        Ok(Incoming::Single(Message::Response(Response { payload: Err(error), .. }))) => {
            Some(error)
        }
        _ => None,
    }
}

/// A success that is no message, told by what it claims to be.
pub(super) fn content_error(
    content: Content,
    headers: &HeaderMap,
    body: &[u8],
    phase: Phase,
) -> CallError {
    let (code, message) = match content {
        Content::Html => (FailureCode::HtmlResponse, "a web page came where MCP was expected"),
        Content::Unnamed if body.is_empty() => (
            FailureCode::UnexpectedContentType,
            "an empty answer came where a message was expected",
        ),
        _ => (FailureCode::UnexpectedContentType, "the answer is neither JSON nor an event stream"),
    };
    let mut error = CallError::new(code, phase, message).with_excerpt(body);
    if let Some(value) = header(headers, &CONTENT_TYPE) {
        error = error.with("content_type", value);
    }
    error
}

/// A body that claims to be JSON and is no message.
pub(super) fn parse_error(error: &jsonrpc::ParseError, body: &[u8], phase: Phase) -> CallError {
    use jsonrpc::ParseError as E;
    let code = match error {
        E::NotUtf8 { .. } | E::NotJson { .. } => FailureCode::InvalidJson,
        // JSON that does not even name JSON-RPC is another API, not a broken server.
        E::NotAMessage { .. } if phase == Phase::Handshake && !names_json_rpc(body) => {
            FailureCode::NotMcp
        }
        _ => FailureCode::InvalidMessage,
    };
    CallError::new(code, phase, format!("the answer is {error}")).with_excerpt(body)
}

fn names_json_rpc(body: &[u8]) -> bool {
    excerpt(body).contains("jsonrpc")
}

/// How long the server asked to be left alone, at most [`MAX_RETRY_AFTER`]. A date is measured
/// from the server's own `Date`, so that no clock of ours is compared with one of theirs.
pub(super) fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let text = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    let seconds = match text.parse::<u64>() {
        Ok(seconds) => seconds,
        Err(_) => {
            let then = http_date(text)?;
            let now = http_date(headers.get(DATE)?.to_str().ok()?)?;
            u64::try_from(then - now).unwrap_or(0)
        }
    };
    Some(Duration::from_secs(seconds).min(MAX_RETRY_AFTER))
}

/// Seconds since 1970 of a date such as `Sun, 06 Nov 1994 08:49:37 GMT`, the only form servers may
/// send (RFC 9110, 5.6.7).
fn http_date(text: &str) -> Option<i64> {
    const MONTHS: [&str; 12] =
        ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    let mut parts = text.split(", ").nth(1)?.split(' ');
    let day: i64 = parts.next()?.parse().ok().filter(|day| (1..=31).contains(day))?;
    let name = parts.next()?;
    let month = i64::try_from(MONTHS.iter().position(|month| *month == name)?).ok()? + 1;
    let year: i64 = parts.next()?.parse().ok().filter(|year| (1970..=9999).contains(year))?;
    let mut clock = parts.next()?.split(':').map(|part| part.parse::<i64>().ok());
    let (hour, minute, second) = (clock.next()??, clock.next()??, clock.next()??);
    // Days since 1970 of a civil date, with years that begin in March.
    let years = if month <= 2 { year - 1 } else { year };
    let era = years / 400;
    let of_era = years % 400;
    let of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    let days = era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719_468;
    Some(days * 86_400 + hour * 3_600 + minute * 60 + second)
}

#[cfg(test)]
mod tests {
    use hyper::header::HeaderValue;

    use super::*;

    fn headers(pairs: &[(hyper::header::HeaderName, &str)]) -> HeaderMap {
        pairs
            .iter()
            .map(|(name, value)| (name.clone(), HeaderValue::from_str(value).unwrap()))
            .collect()
    }

    #[test]
    fn each_status_has_its_code() {
        use FailureCode as F;
        let later = headers(&[(RETRY_AFTER, "7")]);
        let none = HeaderMap::new();
        let rpc = br#"{"jsonrpc":"2.0","id":null,"error":{"code":-32000,"message":"no"}}"#;
        let cases: [(u16, &HeaderMap, &[u8], F); 16] = [
            (400, &none, b"", F::ClientError),
            (401, &none, b"", F::Unauthorized),
            (401, &none, rpc, F::Unauthorized),
            (403, &none, b"", F::Forbidden),
            (404, &none, b"<html>", F::EndpointNotFound),
            (410, &none, b"", F::EndpointNotFound),
            (404, &none, rpc, F::RpcError),
            (405, &none, b"", F::MethodNotAllowed),
            (429, &none, b"", F::RateLimited),
            (500, &none, b"", F::ServerError),
            (500, &none, rpc, F::ServerError),
            (502, &none, b"", F::UpstreamUnavailable),
            (503, &none, b"", F::UpstreamUnavailable),
            (503, &later, b"", F::RateLimited),
            (504, &none, b"", F::UpstreamUnavailable),
            (418, &none, b"", F::ClientError),
        ];
        for (status, headers, body, code) in cases {
            let status = StatusCode::from_u16(status).unwrap();
            let error = status_error(status, headers, body, "ping", Phase::Request);
            assert_eq!(error.code(), code, "{status}");
            assert_eq!(error.failure.evidence["http_status"], status.as_u16());
        }
    }

    #[test]
    fn a_wait_is_read_as_seconds_or_as_a_date_and_bounded() {
        let secs = |pairs: &[(hyper::header::HeaderName, &str)]| {
            retry_after(&headers(pairs)).map(|span| span.as_secs())
        };
        assert_eq!(secs(&[(RETRY_AFTER, "30")]), Some(30));
        assert_eq!(secs(&[(RETRY_AFTER, "999999")]), Some(3_600));
        let date = (DATE, "Sun, 22 Nov 2026 23:59:50 GMT");
        let then = |text| (RETRY_AFTER, text);
        assert_eq!(secs(&[date.clone(), then("Mon, 23 Nov 2026 00:00:20 GMT")]), Some(30));
        assert_eq!(secs(&[date.clone(), then("Sun, 22 Nov 2026 23:00:00 GMT")]), Some(0));
        assert_eq!(secs(&[date, then("soon")]), None);
        assert_eq!(secs(&[then("Sun, 22 Nov 2026 23:59:50 GMT")]), None);
        assert_eq!(http_date("Sun, 06 Nov 1994 08:49:37 GMT"), Some(784_111_777));
        assert_eq!(http_date("Thu, 29 Feb 2024 00:00:00 GMT"), Some(1_709_164_800));
    }

    #[test]
    fn content_types_are_read_leniently() {
        for (text, expected) in [
            ("application/json", Content::Json),
            ("Application/JSON; charset=utf-8", Content::Json),
            ("application/problem+json", Content::Json),
            ("text/event-stream", Content::EventStream),
            ("text/html; charset=utf-8", Content::Html),
            ("text/plain", Content::Unnamed),
            ("application/xml", Content::Other),
        ] {
            assert_eq!(content(&headers(&[(CONTENT_TYPE, text)])), expected, "{text}");
        }
        assert_eq!(content(&HeaderMap::new()), Content::Unnamed);
    }

    #[test]
    fn json_of_another_api_is_not_mcp_only_at_first_contact() {
        let body = br#"{"status":"ok"}"#;
        let error = jsonrpc::parse(body).unwrap_err();
        assert_eq!(parse_error(&error, body, Phase::Handshake).code(), FailureCode::NotMcp);
        assert_eq!(parse_error(&error, body, Phase::Request).code(), FailureCode::InvalidMessage);
        let error = jsonrpc::parse(b"{oops").unwrap_err();
        assert_eq!(
            parse_error(&error, b"{oops", Phase::Handshake).code(),
            FailureCode::InvalidJson
        );
    }
}
