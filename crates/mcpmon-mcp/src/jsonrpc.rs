//! JSON-RPC 2.0 as it comes over the wire, client and server half alike.
//!
//! Parsing takes the envelope apart and leaves `params`, `result` and `data` as the text they came
//! in: a monitor must see what a server really sent, and what nobody looks at need not be built.
//! Ids keep their JSON type, because a server that answers `"1"` to `1` is worth a finding. The
//! caps on size are the framing's; the ones here bound what a message of legal size can multiply
//! into.

mod echo;
mod encode;
mod parse;

use std::borrow::Cow;
use std::fmt;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use serde_json::{Number, Value};

pub use self::echo::{Echo, Recall};
pub use self::encode::{encode_error, encode_notification, encode_request, encode_result};
pub(crate) use self::parse::Elements;
pub use self::parse::{ParseError, parse};

/// Most messages taken from one batch.
pub const MAX_BATCH: usize = 1_000;
/// Longest id or method name, in bytes.
pub const MAX_NAME: usize = 1_024;

/// Error codes with an agreed meaning.
pub mod codes {
    /// The message is not JSON.
    pub const PARSE_ERROR: i64 = -32_700;
    /// JSON, but not a request.
    pub const INVALID_REQUEST: i64 = -32_600;
    /// No such method.
    pub const METHOD_NOT_FOUND: i64 = -32_601;
    /// The method is known, its parameters are not right.
    pub const INVALID_PARAMS: i64 = -32_602;
    /// The server broke.
    pub const INTERNAL_ERROR: i64 = -32_603;
    /// A resource does not exist (revisions before 2026-07-28).
    pub const RESOURCE_NOT_FOUND: i64 = -32_002;
    /// A header is missing or does not match the body (2026-07-28).
    pub const HEADER_MISMATCH: i64 = -32_020;
    /// The server needs a capability the client does not have (2026-07-28).
    pub const MISSING_CLIENT_CAPABILITY: i64 = -32_021;
    /// The revision is not spoken; `data.supported` lists those that are (2026-07-28).
    pub const UNSUPPORTED_PROTOCOL_VERSION: i64 = -32_022;

    /// Whether only a server of 2026-07-28 or later answers with this code. The standard codes say
    /// nothing: old servers use three of them for a method they do not know.
    pub const fn is_modern(code: i64) -> bool {
        matches!(code, HEADER_MISMATCH | MISSING_CLIENT_CAPABILITY | UNSUPPORTED_PROTOCOL_VERSION)
    }
}

/// The id of a request, with the JSON type it has on the wire.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize)]
#[serde(untagged)]
pub enum Id {
    /// A number, whole or not.
    Number(Number),
    /// A string.
    Text(String),
}

impl Id {
    /// Whether `self` is the same id in another JSON type (`"1"` or `1.0` for `1`). Equal ids are
    /// not loosely equal: this is for telling a sloppy echo from a wrong one.
    pub fn is_sloppy_echo_of(&self, asked: &Self) -> bool {
        self != asked && self.loose() == asked.loose()
    }

    fn loose(&self) -> Cow<'_, str> {
        match self {
            Self::Text(text) => Cow::Borrowed(text),
            Self::Number(number) => match number.as_f64() {
                Some(float) if float.fract() == 0.0 && float.abs() < 9e15 => {
                    Cow::Owned(format!("{float:.0}"))
                }
                _ => Cow::Owned(number.to_string()),
            },
        }
    }
}

impl From<u64> for Id {
    fn from(number: u64) -> Self {
        Self::Number(number.into())
    }
}

impl From<&str> for Id {
    fn from(text: &str) -> Self {
        Self::Text(text.to_owned())
    }
}

impl fmt::Display for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Number(number) => number.fmt(f),
            Self::Text(text) => write!(f, "{text:?}"),
        }
    }
}

/// A JSON-RPC error object.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct RpcError {
    /// What kind of error; see [`codes`].
    pub code: i64,
    /// What happened, for people. Untrusted when received.
    #[serde(default)]
    pub message: String,
    /// More about it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub data: Option<Box<RawValue>>,
}

impl RpcError {
    /// An error without data.
    pub fn new(code: i64, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), data: None }
    }

    /// Adds data.
    #[must_use]
    pub fn with_data(mut self, data: &impl Serialize) -> Self {
        self.data = serde_json::value::to_raw_value(data).ok();
        self
    }

    /// The error's data as a value, if it has any that parses.
    pub fn data_value(&self) -> Option<Value> {
        self.data.as_deref().and_then(|data| serde_json::from_str(data.get()).ok())
    }
}

impl fmt::Display for RpcError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.message, self.code)
    }
}

/// Something the far side wants answered.
#[derive(Debug, Clone)]
pub struct Request<'a> {
    /// To be echoed exactly.
    pub id: Id,
    /// What is asked.
    pub method: Cow<'a, str>,
    /// With what; an object or an array.
    pub params: Option<&'a RawValue>,
}

/// Something the far side only tells.
#[derive(Debug, Clone)]
pub struct Notification<'a> {
    /// What is told.
    pub method: Cow<'a, str>,
    /// With what.
    pub params: Option<&'a RawValue>,
}

/// An answer.
#[derive(Debug, Clone)]
pub struct Response<'a> {
    /// The id of what is answered; `None` when it was null or absent, as errors may have it.
    pub id: Option<Id>,
    /// The result, or the error.
    pub payload: Result<&'a RawValue, RpcError>,
}

/// One message.
#[derive(Debug, Clone)]
pub enum Message<'a> {
    /// Something to answer.
    Request(Request<'a>),
    /// Something told.
    Notification(Notification<'a>),
    /// An answer.
    Response(Response<'a>),
}

/// What one line, body or event held.
#[derive(Debug)]
pub enum Incoming<'a> {
    /// One message.
    Single(Message<'a>),
    /// A batch (revision 2025-03-26, and servers that take them on any); each element stands or
    /// falls alone. Never empty.
    Batch(Vec<Result<Message<'a>, ParseError>>),
}

impl<'a> Incoming<'a> {
    /// The messages in it; unreadable elements of a batch are errors of their own.
    pub fn into_messages(self) -> Vec<Result<Message<'a>, ParseError>> {
        match self {
            Self::Single(message) => vec![Ok(message)],
            Self::Batch(messages) => messages,
        }
    }
}
