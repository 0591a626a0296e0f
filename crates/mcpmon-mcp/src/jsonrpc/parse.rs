//! Takes messages apart, leaving what nobody has asked for as the text it came in.

use std::borrow::Cow;
use std::fmt;

use serde::de::IgnoredAny;
use serde::{Deserialize, Deserializer};
use serde_json::Value;
use serde_json::value::RawValue;

use super::{
    Id, Incoming, MAX_BATCH, MAX_NAME, Message, Notification, Request, Response, RpcError, codes,
};

/// Why bytes are not a JSON-RPC message.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ParseError {
    /// The bytes are not UTF-8.
    #[error("not UTF-8 after {valid_up_to} bytes")]
    NotUtf8 {
        /// How many bytes were.
        valid_up_to: usize,
    },
    /// The text is not JSON.
    #[error("not JSON: {reason}")]
    NotJson {
        /// The parser's words, with line and column.
        reason: String,
    },
    /// JSON, but not a JSON-RPC 2.0 message.
    #[error("not a JSON-RPC 2.0 message: {reason}")]
    NotAMessage {
        /// What is wrong with it.
        reason: String,
        /// The id it bears, if one could be read, so that a server can answer it.
        id: Option<Id>,
    },
    /// More messages in one batch than [`MAX_BATCH`].
    #[error("a batch of more than {MAX_BATCH} messages")]
    BatchTooLong,
}

impl ParseError {
    fn shape(reason: impl Into<String>, id: Option<Id>) -> Self {
        Self::NotAMessage { reason: reason.into(), id }
    }

    /// The JSON-RPC error a server answers this with.
    pub fn to_rpc_error(&self) -> RpcError {
        let code = match self {
            Self::NotUtf8 { .. } | Self::NotJson { .. } => codes::PARSE_ERROR,
            Self::NotAMessage { .. } | Self::BatchTooLong => codes::INVALID_REQUEST,
        };
        RpcError::new(code, self.to_string())
    }
}

/// Takes one message, or a batch of them, apart.
///
/// # Errors
///
/// [`ParseError`] when the whole is not JSON-RPC; errors inside a batch are in the batch.
pub fn parse(bytes: &[u8]) -> Result<Incoming<'_>, ParseError> {
    let text = std::str::from_utf8(bytes)
        .map_err(|error| ParseError::NotUtf8 { valid_up_to: error.valid_up_to() })?;
    let text = text.trim_matches(|c: char| c.is_ascii_whitespace());
    if text.starts_with('[') { parse_batch(text) } else { parse_one(text).map(Incoming::Single) }
}

fn parse_batch(text: &str) -> Result<Incoming<'_>, ParseError> {
    let elements: Vec<&RawValue> = serde_json::from_str::<Elements<'_, MAX_BATCH>>(text)
        .map_err(|error| match error.classify() {
            serde_json::error::Category::Data => ParseError::BatchTooLong,
            _ => ParseError::NotJson { reason: error.to_string() },
        })?
        .0;
    if elements.is_empty() {
        return Err(ParseError::shape("an empty batch", None));
    }
    Ok(Incoming::Batch(elements.into_iter().map(|raw| parse_one(raw.get())).collect()))
}

/// The elements of an array, each as it came; reading stops at `CAP` instead of growing past it.
#[derive(Debug)]
pub(crate) struct Elements<'a, const CAP: usize>(pub(crate) Vec<&'a RawValue>);

impl<'de: 'a, 'a, const CAP: usize> Deserialize<'de> for Elements<'a, CAP> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Capped<const CAP: usize>;
        impl<'de, const CAP: usize> serde::de::Visitor<'de> for Capped<CAP> {
            type Value = Elements<'de, CAP>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an array")
            }

            fn visit_seq<A: serde::de::SeqAccess<'de>>(
                self,
                mut seq: A,
            ) -> Result<Self::Value, A::Error> {
                let mut elements = Vec::new();
                while let Some(element) = seq.next_element::<&'de RawValue>()? {
                    if elements.len() == CAP {
                        let message = format!("an array of more than {CAP} elements");
                        return Err(serde::de::Error::custom(message));
                    }
                    elements.push(element);
                }
                Ok(Elements(elements))
            }
        }
        deserializer.deserialize_seq(Capped::<CAP>)
    }
}

#[derive(Deserialize)]
struct Wire<'a> {
    #[serde(borrow, default, deserialize_with = "present")]
    jsonrpc: Option<&'a RawValue>,
    #[serde(borrow, default, deserialize_with = "present")]
    id: Option<&'a RawValue>,
    #[serde(borrow, default, deserialize_with = "present")]
    method: Option<&'a RawValue>,
    #[serde(borrow, default, deserialize_with = "present")]
    params: Option<&'a RawValue>,
    #[serde(borrow, default, deserialize_with = "present")]
    result: Option<&'a RawValue>,
    #[serde(borrow, default, deserialize_with = "present")]
    error: Option<&'a RawValue>,
}

/// Tells an absent key from one that is null.
fn present<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<&'de RawValue>, D::Error> {
    <&'de RawValue>::deserialize(deserializer).map(Some)
}

fn parse_one(text: &str) -> Result<Message<'_>, ParseError> {
    if !text.starts_with('{') {
        serde_json::from_str::<IgnoredAny>(text)
            .map_err(|error| ParseError::NotJson { reason: error.to_string() })?;
        return Err(ParseError::shape("not an object", None));
    }
    let wire: Wire<'_> = serde_json::from_str(text).map_err(|error| {
        // The parser stops at the first field out of shape, so what follows may not be JSON.
        match serde_json::from_str::<IgnoredAny>(text) {
            Ok(_) => ParseError::shape(error.to_string(), None),
            Err(syntax) => ParseError::NotJson { reason: syntax.to_string() },
        }
    })?;
    let id = match wire.id.map(RawValue::get) {
        None | Some("null") => None,
        Some(raw) => Some(parse_id(raw)?),
    };
    if wire.jsonrpc.is_none_or(|version| version.get() != "\"2.0\"") {
        return Err(ParseError::shape("`jsonrpc` is not \"2.0\"", id));
    }
    match (wire.method, wire.result, wire.error) {
        (Some(method), None, None) => parse_call(method, wire.params, wire.id.is_some(), id),
        (None, Some(result), None) => Ok(Message::Response(Response { id, payload: Ok(result) })),
        (None, None, Some(error)) => match serde_json::from_str(error.get()) {
            Ok(error) => Ok(Message::Response(Response { id, payload: Err(error) })),
            Err(reason) => Err(ParseError::shape(format!("`error`: {reason}"), id)),
        },
        // Some servers send `"error": null` beside a result, or the other way round.
        (None, Some(result), Some(error)) if error.get() == "null" => {
            Ok(Message::Response(Response { id, payload: Ok(result) }))
        }
        (None, Some(result), Some(error)) if result.get() == "null" => {
            match serde_json::from_str(error.get()) {
                Ok(error) => Ok(Message::Response(Response { id, payload: Err(error) })),
                Err(reason) => Err(ParseError::shape(format!("`error`: {reason}"), id)),
            }
        }
        (None, None, None) => {
            Err(ParseError::shape("none of `method`, `result` and `error` is there", id))
        }
        _ => Err(ParseError::shape("more than one of `method`, `result` and `error`", id)),
    }
}

fn parse_call<'a>(
    method: &'a RawValue,
    params: Option<&'a RawValue>,
    has_id: bool,
    id: Option<Id>,
) -> Result<Message<'a>, ParseError> {
    let method: Method<'a> = serde_json::from_str(method.get())
        .map_err(|_| ParseError::shape("`method` is not a string", id.clone()))?;
    let method = method.0;
    if method.len() > MAX_NAME {
        return Err(ParseError::shape("`method` is too long", id));
    }
    let params = params.filter(|params| params.get() != "null");
    if params.is_some_and(|params| !params.get().starts_with(['{', '['])) {
        return Err(ParseError::shape("`params` is neither object nor array", id));
    }
    match (has_id, id) {
        (false, _) => Ok(Message::Notification(Notification { method, params })),
        (true, Some(id)) => Ok(Message::Request(Request { id, method, params })),
        (true, None) => Err(ParseError::shape("`id` of a request is null", None)),
    }
}

#[derive(Deserialize)]
#[serde(transparent)]
struct Method<'a>(#[serde(borrow)] Cow<'a, str>);

fn parse_id(raw: &str) -> Result<Id, ParseError> {
    if raw.len() > MAX_NAME {
        return Err(ParseError::shape("`id` is too long", None));
    }
    let value: Value = serde_json::from_str(raw)
        .map_err(|error| ParseError::shape(format!("`id`: {error}"), None))?;
    match value {
        Value::Number(number) => Ok(Id::Number(number)),
        Value::String(text) => Ok(Id::Text(text)),
        _ => Err(ParseError::shape("`id` is neither number nor string", None)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One word for what a text parses to.
    fn kind(text: &[u8]) -> String {
        match parse(text) {
            Ok(Incoming::Single(message)) => name(&message).to_owned(),
            Ok(Incoming::Batch(messages)) => messages
                .iter()
                .map(|m| m.as_ref().map_or("bad", name))
                .collect::<Vec<_>>()
                .join(","),
            Err(ParseError::NotUtf8 { .. }) => "not-utf8".to_owned(),
            Err(ParseError::NotJson { .. }) => "not-json".to_owned(),
            Err(ParseError::NotAMessage { .. }) => "not-a-message".to_owned(),
            Err(ParseError::BatchTooLong) => "batch-too-long".to_owned(),
        }
    }

    fn name(message: &Message<'_>) -> &'static str {
        match message {
            Message::Request(_) => "request",
            Message::Notification(_) => "notification",
            Message::Response(Response { payload: Ok(_), .. }) => "result",
            Message::Response(Response { payload: Err(_), .. }) => "error",
        }
    }

    #[test]
    fn tells_messages_apart() {
        let cases: [(&str, &str); 24] = [
            (r#"{"jsonrpc":"2.0","id":1,"method":"ping"}"#, "request"),
            (r#"{"jsonrpc":"2.0","id":"a","method":"x","params":{}}"#, "request"),
            (r#"{"jsonrpc":"2.0","method":"notifications/initialized"}"#, "notification"),
            (r#"{"jsonrpc":"2.0","id":1,"result":{}}"#, "result"),
            (r#"{"jsonrpc":"2.0","id":1,"result":null}"#, "result"),
            (r#"{"jsonrpc":"2.0","id":1,"result":{},"error":null}"#, "result"),
            (r#"{"jsonrpc":"2.0","id":1,"error":{"code":-32601,"message":"no"}}"#, "error"),
            (r#"{"jsonrpc":"2.0","id":null,"error":{"code":-32000}}"#, "error"),
            (r#"{"jsonrpc":"2.0","error":{"code":-32000,"message":"x"}}"#, "error"),
            (r#"{"jsonrpc":"2.0","id":1,"result":null,"error":{"code":1}}"#, "error"),
            (r#"[{"jsonrpc":"2.0","id":1,"result":{}},{"a":1}]"#, "result,bad"),
            (" {\"jsonrpc\":\"2.0\",\"method\":\"x\"}\r\n", "notification"),
            (r#"{"jsonrpc":"2.0","id":1,"error":"no"}"#, "not-a-message"),
            (r#"{"jsonrpc":"1.0","id":1,"result":{}}"#, "not-a-message"),
            (r#"{"id":1,"result":{}}"#, "not-a-message"),
            (r#"{"jsonrpc":"2.0","id":{},"result":{}}"#, "not-a-message"),
            (r#"{"jsonrpc":"2.0","id":null,"method":"x"}"#, "not-a-message"),
            (r#"{"jsonrpc":"2.0","id":1,"method":"x","params":3}"#, "not-a-message"),
            (r#"{"jsonrpc":"2.0","id":1}"#, "not-a-message"),
            (r#"{"jsonrpc":"2.0","id":1,"id":2,"result":{}}"#, "not-a-message"),
            ("[]", "not-a-message"),
            ("17", "not-a-message"),
            ("Server listening on port 3000", "not-json"),
            (r#"{"jsonrpc":"2.0","id":1,"id":2,"#, "not-json"),
        ];
        for (text, expected) in cases {
            assert_eq!(kind(text.as_bytes()), expected, "{text}");
        }
        assert_eq!(kind(b"{\"jsonrpc\":\"2.0\",\"x\":\"\xff\"}"), "not-utf8");
        assert_eq!(kind(b""), "not-json");
    }

    #[test]
    fn a_batch_is_capped_before_it_grows() {
        let many = format!("[{}1]", "1,".repeat(MAX_BATCH));
        assert_eq!(kind(many.as_bytes()), "batch-too-long");
    }

    #[test]
    fn ids_keep_their_type_and_sloppy_echoes_are_known() {
        let id = |raw: &str| parse_id(raw).unwrap();
        assert_eq!(id("7"), Id::from(7));
        assert_ne!(id("\"7\""), Id::from(7));
        for sloppy in ["\"7\"", "7.0"] {
            assert!(id(sloppy).is_sloppy_echo_of(&Id::from(7)), "{sloppy}");
        }
        assert!(!id("7").is_sloppy_echo_of(&Id::from(7)));
        assert!(!id("8").is_sloppy_echo_of(&Id::from(7)));
        assert_eq!(id("18446744073709551615"), Id::from(u64::MAX));
    }

    #[test]
    fn an_unreadable_request_still_gives_its_id_for_the_refusal() {
        let Err(ParseError::NotAMessage { id, .. }) =
            parse(br#"{"jsonrpc":"2.0","id":9,"method":4}"#)
        else {
            panic!("expected a refusal");
        };
        assert_eq!(id, Some(Id::from(9)));
    }

    proptest::proptest! {
        #[test]
        fn any_bytes_are_a_message_or_refused_with_a_code(
            bytes in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..300),
            text in "[\\[\\]{}\":,a-z0-9\\\\ \n.-]{0,120}",
        ) {
            for bytes in [bytes.as_slice(), text.as_bytes()] {
                if let Err(error) = parse(bytes) {
                    let code = error.to_rpc_error().code;
                    let codes = [codes::PARSE_ERROR, codes::INVALID_REQUEST];
                    proptest::prop_assert!(codes.contains(&code), "{}", error);
                }
            }
        }

        #[test]
        fn fields_in_any_shape_and_order_never_make_two_messages_of_one(
            fields in proptest::collection::vec((
                proptest::sample::select(vec!["jsonrpc", "id", "method", "params", "result", "error", "x"]),
                proptest::sample::select(vec![
                    "\"2.0\"", "1", "null", "\"a\"", "{}", "[]", "1e400", "{\"code\":1}",
                    "{\"code\":-1,\"message\":\"m\"}", "\"\\ud800\"",
                ]),
            ), 0..7),
        ) {
            let pairs: Vec<String> =
                fields.iter().map(|(key, value)| format!("\"{key}\":{value}")).collect();
            let one = format!("{{{}}}", pairs.join(","));
            let alone = kind(one.as_bytes());
            let doubled = kind(format!("[{one},{one}]").as_bytes());
            match alone.as_str() {
                "not-json" => proptest::prop_assert!(matches!(&*doubled, "not-json" | "bad,bad"), "{}: {}", one, doubled),
                "not-a-message" => proptest::prop_assert_eq!(doubled, "bad,bad"),
                _ => proptest::prop_assert_eq!(doubled, format!("{alone},{alone}")),
            }
        }
    }
}
