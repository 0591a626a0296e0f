//! The port of the tap: real calls between a client and a service, as they were seen to pass.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::service::ServiceName;
use crate::time::Timestamp;

/// How a call ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum CallOutcome {
    /// With a result.
    Ok,
    /// With a result that says `isError`.
    ToolError,
    /// With a JSON-RPC error.
    RpcError,
    /// Without an answer: the transport failed.
    TransportError,
    /// The client took it back.
    Cancelled,
    /// The server wants input first.
    InputRequired,
    /// The server took it on as a task.
    Task,
    /// Nothing came before the connection ended.
    Lost,
}

impl CallOutcome {
    /// Whether it counts against the service.
    pub const fn is_failure(self) -> bool {
        matches!(self, Self::ToolError | Self::RpcError | Self::TransportError | Self::Lost)
    }
}

/// One call. Neither arguments nor results are ever kept.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CallRecord {
    /// The service.
    pub service: ServiceName,
    /// The JSON-RPC method.
    pub method: String,
    /// The tool, for `tools/call`. Untrusted text.
    pub tool: Option<String>,
    /// When the request passed.
    pub at: Timestamp,
    /// Request to answer.
    pub duration: Duration,
    /// Of this, spent waiting for the client.
    pub client_wait: Duration,
    /// How it ended.
    pub outcome: CallOutcome,
}

/// Takes calls in. Never waits: a tap must not slow what it listens to.
pub trait CallSink: Send + Sync {
    /// Takes one call, or drops and counts it.
    fn record(&self, call: CallRecord);
}
