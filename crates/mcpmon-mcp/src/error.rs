//! Why a request was not answered rightly.
//!
//! A caller does two things with it: report it, so it *is* a core [`Failure`]; and decide what to
//! try next, so the facts that decide (the JSON-RPC error, the HTTP status) stay beside it.

use std::time::Duration;

use mcpmon_core::failure::{Failure, FailureCode, Finding, Phase};
use mcpmon_core::secret::Redactor;
use mcpmon_core::text::{MAX_TEXT, truncate};
use serde_json::Value;

use crate::forensics::{self, Wanted};
use crate::jsonrpc::RpcError;

/// Longest text of a server told as evidence, in characters. Until its secrets are taken out it is
/// held longer ([`MAX_TEXT`]), so that no cut leaves the first half of one behind.
pub const EXCERPT: usize = 500;

/// A request that was not answered rightly, and why.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{failure}")]
pub struct CallError {
    /// The cause, ready to be reported.
    pub failure: Box<Failure>,
    /// The JSON-RPC error, if that is what came.
    pub rpc: Option<Box<RpcError>>,
    /// The HTTP status, if there was one.
    pub status: Option<u16>,
    /// How long the server asked to be left alone.
    pub retry_after: Option<Duration>,
}

impl CallError {
    /// An error of this kind.
    pub fn new(code: FailureCode, phase: Phase, message: impl Into<String>) -> Self {
        Self {
            failure: Box::new(Failure::new(code, phase, message)),
            rpc: None,
            status: None,
            retry_after: None,
        }
    }

    /// The far side answered `method` with a JSON-RPC error.
    pub fn from_rpc(method: &str, error: RpcError, phase: Phase) -> Self {
        let text = truncate(&error.message, MAX_TEXT);
        let code = error.code;
        let built = match forensics::missing_credential(&text) {
            Some(wanted) if phase == Phase::Handshake => {
                let name = wanted.name();
                let message = format!("`{method}` was refused for want of {name}: {text}");
                let refused = Self::new(FailureCode::MissingCredential, phase, message);
                match &wanted {
                    Wanted::Variable(name) => refused.with("variable", name.as_str()),
                    Wanted::Word(_) => refused,
                }
            }
            _ => Self::new(
                FailureCode::RpcError,
                phase,
                format!("`{method}` was answered with error {code}: {text}"),
            ),
        };
        let mut built = built.with("rpc_code", code).with("rpc_message", text);
        if let Some(data) = &error.data {
            built = built.with("rpc_data", truncate(data.get(), MAX_TEXT));
        }
        built.rpc = Some(Box::new(error));
        built
    }

    /// The cause's code.
    pub fn code(&self) -> FailureCode {
        self.failure.code
    }

    /// The JSON-RPC error code, if that is what came.
    pub fn rpc_code(&self) -> Option<i64> {
        self.rpc.as_ref().map(|error| error.code)
    }

    /// Adds one fact.
    #[must_use]
    pub fn with(mut self, key: &str, fact: impl Into<Value>) -> Self {
        self.failure.evidence.insert(key.to_owned(), fact.into());
        self
    }

    /// Adds the start of what was read, as text.
    #[must_use]
    pub fn with_excerpt(self, bytes: &[u8]) -> Self {
        if bytes.is_empty() { self } else { self.with("excerpt", excerpt(bytes)) }
    }

    /// The same as people may see it: without secrets, and no text longer than [`EXCERPT`].
    #[must_use]
    pub fn redacted(mut self, redactor: &Redactor) -> Self {
        redact_failure(&mut self.failure, redactor);
        self
    }
}

impl From<Failure> for CallError {
    fn from(failure: Failure) -> Self {
        Self { failure: Box::new(failure), rpc: None, status: None, retry_after: None }
    }
}

/// Takes every secret out of a failure's message and evidence, then cuts what is long.
pub fn redact_failure(failure: &mut Failure, redactor: &Redactor) {
    failure.message = told(&failure.message, redactor);
    failure.next_step = told(&failure.next_step, redactor);
    failure.evidence.values_mut().for_each(|fact| redact_fact(fact, redactor));
}

/// Takes every secret out of a finding's message and evidence, then cuts what is long.
pub fn redact_finding(finding: &mut Finding, redactor: &Redactor) {
    finding.message = told(&finding.message, redactor);
    finding.evidence.values_mut().for_each(|fact| redact_fact(fact, redactor));
}

/// Takes every secret out of one fact, then cuts what is long.
pub fn redact_fact(fact: &mut Value, redactor: &Redactor) {
    match fact {
        Value::String(text) => *text = told(text, redactor),
        Value::Array(facts) => facts.iter_mut().for_each(|fact| redact_fact(fact, redactor)),
        Value::Object(facts) => facts.values_mut().for_each(|fact| redact_fact(fact, redactor)),
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

/// A server's text as people may see it.
pub fn told(text: &str, redactor: &Redactor) -> String {
    if redactor.is_empty() {
        truncate(text, EXCERPT)
    } else {
        truncate(&redactor.redact(text), EXCERPT)
    }
}

/// The start of some bytes as text, at most [`MAX_TEXT`] characters.
pub fn excerpt(bytes: &[u8]) -> String {
    // A character is at most four bytes, so what lies beyond can be left out before decoding.
    let start = &bytes[..bytes.len().min(4 * MAX_TEXT)];
    truncate(&String::from_utf8_lossy(start), MAX_TEXT)
}

#[cfg(test)]
mod tests {
    use mcpmon_core::secret::Secret;

    use super::*;

    #[test]
    fn a_json_rpc_error_keeps_its_code_and_words() {
        let error =
            CallError::from_rpc("initialize", RpcError::new(-32_603, "boom"), Phase::Handshake);
        assert_eq!(error.code(), FailureCode::RpcError);
        assert_eq!(error.rpc_code(), Some(-32_603));
        assert_eq!(error.failure.evidence["rpc_message"], "boom");
    }

    #[test]
    fn a_refusal_for_want_of_a_credential_is_told_apart() {
        let error = RpcError::new(-32_603, "GITHUB_TOKEN is not set");
        let error = CallError::from_rpc("initialize", error, Phase::Handshake);
        assert_eq!(error.code(), FailureCode::MissingCredential);
        assert!(error.failure.message.contains("GITHUB_TOKEN"));
    }

    #[test]
    fn secrets_leave_message_and_evidence() {
        let redactor = Redactor::new([&Secret::new("sup3rs3cret")]);
        let error = CallError::new(FailureCode::ServerError, Phase::Request, "bad sup3rs3cret")
            .with_excerpt(b"<p>sup3rs3cret</p>")
            .redacted(&redactor);
        assert!(!format!("{error:?}").contains("sup3rs3cret"));
    }

    #[test]
    fn no_cut_leaves_half_a_secret_behind() {
        let redactor = Redactor::new([&Secret::new("sup3rs3cret")]);
        for before in EXCERPT - 12..EXCERPT + 2 {
            let body = format!("{}sup3rs3cret", ".".repeat(before));
            let error = CallError::new(FailureCode::ServerError, Phase::Request, body.as_str())
                .with_excerpt(body.as_bytes())
                .redacted(&redactor);
            assert!(!format!("{error:?}").contains("sup3"), "{before}");
            assert!(error.failure.message.chars().count() <= EXCERPT);
        }
    }

    #[test]
    fn excerpts_are_cut_at_characters() {
        assert_eq!(excerpt("\u{e9}".repeat(2_500).as_bytes()).chars().count(), MAX_TEXT);
        assert_eq!(excerpt(b"a\xffb"), "a\u{fffd}b");
    }
}
