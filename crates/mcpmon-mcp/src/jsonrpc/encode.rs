//! Writes messages, each on one line.

use serde::{Serialize, Serializer};
use serde_json::Value;

use super::{Id, RpcError, codes};

#[derive(Serialize)]
struct Outgoing<'a, P, R> {
    jsonrpc: &'static str,
    #[serde(skip_serializing_if = "WireId::is_absent")]
    id: WireId<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    method: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    params: Option<P>,
    #[serde(skip_serializing_if = "Option::is_none")]
    result: Option<R>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<&'a RpcError>,
}

enum WireId<'a> {
    Absent,
    Null,
    Is(&'a Id),
}

impl WireId<'_> {
    const fn is_absent(&self) -> bool {
        matches!(self, Self::Absent)
    }
}

impl Serialize for WireId<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Absent | Self::Null => serializer.serialize_none(),
            Self::Is(id) => id.serialize(serializer),
        }
    }
}

const VERSION: &str = "2.0";

/// A request on one line, without the line's end.
pub fn encode_request(id: &Id, method: &str, params: Option<&impl Serialize>) -> Vec<u8> {
    encode(&Outgoing::<_, ()> {
        jsonrpc: VERSION,
        id: WireId::Is(id),
        method: Some(method),
        params,
        result: None,
        error: None,
    })
}

/// A notification on one line, without the line's end.
pub fn encode_notification(method: &str, params: Option<&impl Serialize>) -> Vec<u8> {
    encode(&Outgoing::<_, ()> {
        jsonrpc: VERSION,
        id: WireId::Absent,
        method: Some(method),
        params,
        result: None,
        error: None,
    })
}

/// A good answer on one line, without the line's end.
pub fn encode_result(id: &Id, result: &impl Serialize) -> Vec<u8> {
    encode(&Outgoing::<(), _> {
        jsonrpc: VERSION,
        id: WireId::Is(id),
        method: None,
        params: None,
        result: Some(result),
        error: None,
    })
}

/// A refusal on one line, without the line's end; without an id it bears `"id": null`.
pub fn encode_error(id: Option<&Id>, error: &RpcError) -> Vec<u8> {
    encode(&Outgoing::<(), ()> {
        jsonrpc: VERSION,
        id: id.map_or(WireId::Null, WireId::Is),
        method: None,
        params: None,
        result: None,
        error: Some(error),
    })
}

fn encode(message: &impl Serialize) -> Vec<u8> {
    // Only a type whose own `Serialize` fails, or a map with keys that are no strings, could fail
    // here; the far side then gets an error it can name instead of half a message.
    serde_json::to_vec(message).unwrap_or_else(|error| {
        let text = format!("could not be written as JSON: {error}");
        let error = Value::from(text);
        format!(
            r#"{{"jsonrpc":"2.0","id":null,"error":{{"code":{},"message":{error}}}}}"#,
            codes::INTERNAL_ERROR
        )
        .into_bytes()
    })
}

#[cfg(test)]
mod tests {
    use super::super::parse;
    use super::*;

    #[test]
    fn what_is_written_is_read_back() {
        let id = Id::from(3);
        let params = serde_json::json!({"a": 1});
        let texts = [
            (
                encode_request(&id, "ping", None::<&Value>),
                r#"{"jsonrpc":"2.0","id":3,"method":"ping"}"#,
            ),
            (
                encode_notification("n", Some(&params)),
                r#"{"jsonrpc":"2.0","method":"n","params":{"a":1}}"#,
            ),
            (encode_result(&id, &params), r#"{"jsonrpc":"2.0","id":3,"result":{"a":1}}"#),
            (
                encode_error(None, &RpcError::new(-32_600, "no")),
                r#"{"jsonrpc":"2.0","id":null,"error":{"code":-32600,"message":"no"}}"#,
            ),
        ];
        for (bytes, text) in texts {
            assert_eq!(String::from_utf8(bytes.clone()).unwrap(), text);
            assert!(parse(&bytes).is_ok(), "{text}");
        }
    }
}
