//! `[services.NAME]`: one service as it is written, a superset of a client's entry.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::checked;
use super::secret_ref::SecretRef;
use crate::bytesize::ByteSize;
use crate::service::{FunctionalCheck, ProtocolChoice, RemediationSpec, ServiceLimits, WatchMode};

/// How a service is reached, when the entry says so.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub enum TransportKind {
    /// A command's standard streams.
    #[serde(rename = "stdio", alias = "local")]
    Stdio,
    /// Streamable HTTP.
    #[serde(
        rename = "http",
        alias = "streamable-http",
        alias = "streamableHttp",
        alias = "streamable_http",
        alias = "remote"
    )]
    Http,
    /// The deprecated HTTP+SSE.
    #[serde(rename = "sse")]
    Sse,
}

/// One service as it is written. A block pasted from a client's file is valid: what only the
/// client needs (approvals, its own time limits) is accepted and has no effect here.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(default, deny_unknown_fields)]
pub struct ServiceEntry {
    /// How it is reached; else a command means stdio and a URL HTTP.
    #[serde(rename = "type", alias = "transport", skip_serializing_if = "Option::is_none")]
    pub kind: Option<TransportKind>,
    /// The program: a path, or a name looked up on `PATH`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub command: Option<String>,
    /// Its arguments.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub args: Vec<String>,
    /// Variables set for it.
    #[serde(alias = "environment", alias = "envs", skip_serializing_if = "BTreeMap::is_empty")]
    pub env: BTreeMap<String, SecretRef>,
    /// A file of `NAME=value` lines set for it.
    #[serde(alias = "envFile", skip_serializing_if = "Option::is_none")]
    pub env_file: Option<PathBuf>,
    /// Its working directory; relative to this file.
    #[serde(alias = "workingDir", skip_serializing_if = "Option::is_none")]
    pub cwd: Option<PathBuf>,
    /// Its endpoint.
    #[serde(
        alias = "serverUrl",
        alias = "httpUrl",
        alias = "uri",
        skip_serializing_if = "Option::is_none"
    )]
    pub url: Option<String>,
    /// Headers sent with every request.
    #[serde(alias = "http_headers", skip_serializing_if = "BTreeMap::is_empty")]
    pub headers: BTreeMap<String, SecretRef>,
    /// `false`: listed as `paused` and never asked.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub enabled: Option<bool>,
    /// A client's way to say `enabled = false`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub disabled: Option<bool>,
    /// For people; has no effect.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// Which way to open the conversation.
    pub protocol: ProtocolChoice,
    /// Asked, or only seen through the tap.
    pub mode: WatchMode,
    /// Whether a session is ended by DELETE when we are done with it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub terminate_session: Option<bool>,
    /// For rules, silences and routes.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// What it cannot work without.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub depends_on: Vec<String>,
    /// Calls to try.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub functional: Vec<FunctionalCheck>,
    /// What may be done when it lives but is wrong.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub remediation: Option<RemediationSpec>,

    /// Instead of `monitoring.check_interval`.
    #[serde(with = "checked::optional_interval", skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "schema", schemars(with = "Option<String>"))]
    pub check_interval: Option<Duration>,
    /// Instead of `service_monitoring.status_check_interval`.
    #[serde(with = "checked::optional_interval", skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "schema", schemars(with = "Option<String>"))]
    pub status_check_interval: Option<Duration>,
    /// Instead of `service_monitoring.list_interval`.
    #[serde(with = "checked::optional_interval", skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "schema", schemars(with = "Option<String>"))]
    pub list_interval: Option<Duration>,
    /// Instead of `monitoring.health_check_timeout`.
    #[serde(with = "checked::optional_limit", skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "schema", schemars(with = "Option<String>"))]
    pub health_check_timeout: Option<Duration>,
    /// Instead of `monitoring.health_check_retries`.
    #[serde(deserialize_with = "checked::optional_count", skip_serializing_if = "Option::is_none")]
    pub health_check_retries: Option<u32>,
    /// Instead of `service_monitoring.connection_timeout`.
    #[serde(with = "checked::optional_limit", skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "schema", schemars(with = "Option<String>"))]
    pub connection_timeout: Option<Duration>,
    /// Instead of `service_monitoring.startup_timeout`.
    #[serde(with = "checked::optional_limit", skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "schema", schemars(with = "Option<String>"))]
    pub startup_timeout: Option<Duration>,
    /// Instead of `tool_monitoring.call_timeout`.
    #[serde(with = "checked::optional_limit", skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "schema", schemars(with = "Option<String>"))]
    pub call_timeout: Option<Duration>,
    /// Instead of `service_monitoring.max_consecutive_failures`.
    #[serde(deserialize_with = "checked::optional_count", skip_serializing_if = "Option::is_none")]
    pub max_consecutive_failures: Option<u32>,
    /// Instead of `service_monitoring.max_consecutive_successes`.
    #[serde(deserialize_with = "checked::optional_count", skip_serializing_if = "Option::is_none")]
    pub max_consecutive_successes: Option<u32>,
    /// Instead of `service_monitoring.max_body`.
    #[serde(deserialize_with = "checked::optional_size", skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "schema", schemars(with = "Option<String>"))]
    pub max_body: Option<ByteSize>,
    /// Instead of `performance_monitoring.response_time_threshold`.
    #[serde(with = "checked::optional_limit", skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "schema", schemars(with = "Option<String>"))]
    pub response_time_threshold: Option<Duration>,
    /// Instead of `tool_monitoring.error_rate_threshold`.
    #[serde(deserialize_with = "checked::optional_share", skip_serializing_if = "Option::is_none")]
    pub error_rate_threshold: Option<f64>,

    /// A client's own; no effect here.
    #[serde(rename = "autoApprove", alias = "alwaysAllow", skip_serializing)]
    pub auto_approve: Option<serde_json::Value>,
    /// A client's own; no effect here.
    #[serde(rename = "includeTools", alias = "enabled_tools", skip_serializing)]
    pub include_tools: Option<serde_json::Value>,
    /// A client's own; no effect here.
    #[serde(
        rename = "excludeTools",
        alias = "disabled_tools",
        alias = "disabledTools",
        skip_serializing
    )]
    pub exclude_tools: Option<serde_json::Value>,
    /// A client's own; no effect here.
    #[serde(skip_serializing)]
    pub trust: Option<serde_json::Value>,
    /// A client's own; no effect here.
    #[serde(skip_serializing)]
    pub timeout: Option<serde_json::Value>,
    /// A client's own; no effect here.
    #[serde(alias = "tool_timeout_sec", skip_serializing)]
    pub startup_timeout_sec: Option<serde_json::Value>,
    /// A client's own; no effect here.
    #[serde(alias = "sandbox", alias = "watchPaths", alias = "source", skip_serializing)]
    pub dev: Option<serde_json::Value>,
    /// A client's own; no effect here.
    #[serde(alias = "oauth", skip_serializing)]
    pub auth: Option<serde_json::Value>,
}

impl ServiceEntry {
    /// The entry's times and limits on top of the monitor's.
    pub fn limits(&self, defaults: &ServiceLimits) -> ServiceLimits {
        let mut limits = defaults.clone();
        macro_rules! take {
            ($($field:ident),+) => { $( if let Some(own) = self.$field { limits.$field = own; } )+ };
        }
        take!(
            check_interval,
            status_check_interval,
            list_interval,
            health_check_timeout,
            health_check_retries,
            connection_timeout,
            startup_timeout,
            call_timeout,
            max_consecutive_failures,
            max_consecutive_successes,
            response_time_threshold,
            error_rate_threshold
        );
        if let Some(size) = self.max_body {
            limits.max_body = size.0;
        }
        limits
    }

    /// Whether it is to be asked: neither `enabled = false` nor `disabled = true`.
    pub fn is_enabled(&self) -> bool {
        self.enabled.unwrap_or(true) && !self.disabled.unwrap_or(false)
    }
}
