//! A service: one MCP server being watched, as the monitor knows it after every file was read.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::dependency::Dependency;
use crate::failure::Failure;
use crate::secret::Secret;

/// The name of a service, unique within one monitor. Cheap to copy about.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ServiceName(Arc<str>);

impl ServiceName {
    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl<T: Into<Arc<str>>> From<T> for ServiceName {
    fn from(name: T) -> Self {
        Self(name.into())
    }
}

impl fmt::Display for ServiceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl AsRef<str> for ServiceName {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

impl std::borrow::Borrow<str> for ServiceName {
    fn borrow(&self) -> &str {
        &self.0
    }
}

/// How a service is reached.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Transport {
    /// A child process of ours, spoken to over its standard streams.
    Stdio(StdioSpec),
    /// Streamable HTTP, or whatever first contact finds.
    Http(HttpSpec),
    /// The deprecated HTTP+SSE, because the configuration says so.
    Sse(HttpSpec),
}

impl Transport {
    /// The contract's spelling: `stdio`, `http` or `sse`.
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::Stdio(_) => "stdio",
            Self::Http(_) => "http",
            Self::Sse(_) => "sse",
        }
    }
}

/// A command to run: exact arguments, no shell.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct StdioSpec {
    /// The program: a path, or a name looked up on `PATH`.
    pub command: String,
    /// Its arguments.
    pub args: Vec<String>,
    /// Variables set for it beside the allow-listed environment.
    pub env: BTreeMap<String, Secret>,
    /// Its working directory; ours when `None`.
    pub cwd: Option<PathBuf>,
}

/// An MCP endpoint.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct HttpSpec {
    /// `http://…` or `https://…`.
    pub url: String,
    /// Headers sent with every request.
    pub headers: BTreeMap<String, Secret>,
}

/// Which way to open the conversation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum ProtocolChoice {
    /// Find out, and remember.
    #[default]
    Auto,
    /// `server/discover` only.
    Modern,
    /// `initialize` only.
    Legacy,
}

/// Whether the service is asked, or only seen through the tap.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum WatchMode {
    /// Asked on schedule.
    #[default]
    Active,
    /// Never asked and never started; judged by the calls the tap records.
    Passive,
}

/// Times and limits of one service: the monitor's settings with the service's own on top.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ServiceLimits {
    /// Start of one health check to the start of the next.
    #[serde(with = "crate::duration")]
    pub check_interval: Duration,
    /// Start of one heartbeat to the start of the next.
    #[serde(with = "crate::duration")]
    pub status_check_interval: Duration,
    /// Start of one list check to the start of the next.
    #[serde(with = "crate::duration")]
    pub list_interval: Duration,
    /// The whole check, one deadline.
    #[serde(with = "crate::duration")]
    pub health_check_timeout: Duration,
    /// Attempts in a row when a check fails, the first included.
    pub health_check_retries: u32,
    /// DNS, connect and TLS together.
    #[serde(with = "crate::duration")]
    pub connection_timeout: Duration,
    /// A command's start to its first answer.
    #[serde(with = "crate::duration")]
    pub startup_timeout: Duration,
    /// A configured call.
    #[serde(with = "crate::duration")]
    pub call_timeout: Duration,
    /// Failed checks in a row until it is down.
    pub max_consecutive_failures: u32,
    /// Good checks in a row until it is back.
    pub max_consecutive_successes: u32,
    /// Largest line, event or body, in bytes after decompression.
    pub max_body: u64,
    /// Above this the finding `slow_response` is made.
    #[serde(with = "crate::duration")]
    pub response_time_threshold: Duration,
    /// Above this the rule `high_error_rate` fires.
    pub error_rate_threshold: f64,
}

impl Default for ServiceLimits {
    fn default() -> Self {
        crate::settings::Settings::default().limits()
    }
}

/// One configured call and what is expected of it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct FunctionalCheck {
    /// The tool to call.
    pub tool: String,
    /// Its arguments.
    #[serde(default)]
    pub arguments: serde_json::Map<String, serde_json::Value>,
    /// What must hold of the result.
    #[serde(default)]
    pub expect: Expectation,
    /// Allows a tool that is not annotated read-only.
    #[serde(default)]
    pub allow_side_effects: bool,
}

/// What must hold of a call's result; what is not named is not asked.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, default)]
pub struct Expectation {
    /// The result's `isError`; where nothing is said of it, a tool that fails is a failure.
    pub is_error: Option<bool>,
    /// Some text content contains this.
    pub contains: Option<String>,
    /// JSON pointers into `structuredContent` and the values they must have.
    pub pointers: BTreeMap<String, serde_json::Value>,
    /// `true`: the structured result matches the tool's `outputSchema`.
    pub output_schema: Option<bool>,
    /// The call takes at most this long.
    #[serde(with = "crate::duration::optional")]
    #[cfg_attr(feature = "schema", schemars(with = "Option<String>"))]
    pub within: Option<Duration>,
}

/// What may be done when a service lives but is wrong.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct RemediationSpec {
    /// What is done.
    pub action: RemedyAction,
    /// The command and its arguments, for [`RemedyAction::Command`]; no shell.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub command: Vec<String>,
    /// The unit, for [`RemedyAction::Systemd`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unit: Option<String>,
    /// Whether the unit is one of the user's own, for [`RemedyAction::Systemd`].
    #[serde(default)]
    pub user: bool,
    /// The container, for [`RemedyAction::Docker`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub container: Option<String>,
    /// How long the command may take before it is ended; `60s` if not said.
    #[serde(default = "RemediationSpec::usual_timeout", with = "crate::settings::limit")]
    #[cfg_attr(feature = "schema", schemars(with = "String"))]
    pub timeout: Duration,
    /// How long the service is given to be well again before the attempt counts as one that did
    /// not help; `30s` if not said.
    #[serde(default = "RemediationSpec::usual_patience", with = "crate::settings::limit")]
    #[cfg_attr(feature = "schema", schemars(with = "String"))]
    pub verify_within: Duration,
    /// Only says what would be done.
    #[serde(default)]
    pub dry_run: bool,
}

impl RemediationSpec {
    /// An action with usual times; what it needs beside that is to be filled in.
    pub fn new(action: RemedyAction) -> Self {
        Self {
            action,
            command: Vec::new(),
            unit: None,
            user: false,
            container: None,
            timeout: Self::usual_timeout(),
            verify_within: Self::usual_patience(),
            dry_run: false,
        }
    }

    const fn usual_timeout() -> Duration {
        Duration::from_secs(60)
    }

    const fn usual_patience() -> Duration {
        Duration::from_secs(30)
    }
}

/// What a remedy does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum RemedyAction {
    /// Ends the held process; the next check starts it again.
    Restart,
    /// Runs a command.
    Command,
    /// Has systemd restart a unit.
    Systemd,
    /// Has Docker restart a container.
    Docker,
}

impl RemedyAction {
    /// The contract's spelling.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Restart => "restart",
            Self::Command => "command",
            Self::Systemd => "systemd",
            Self::Docker => "docker",
        }
    }
}

/// Everything the monitor knows about a service before it looks.
#[derive(Debug, Clone, PartialEq)]
pub struct ServiceSpec {
    /// Its name.
    pub name: ServiceName,
    /// How it is reached.
    pub transport: Transport,
    /// `false`: listed as `paused` and never asked.
    pub enabled: bool,
    /// Why it is `paused` although enabled (not consented to), for people.
    pub paused_because: Option<String>,
    /// Why its entry cannot be used; it is then `unknown` and never asked.
    pub invalid: Option<Failure>,
    /// Which way to open the conversation.
    pub protocol: ProtocolChoice,
    /// Asked, or only seen.
    pub mode: WatchMode,
    /// Whether a session is ended by DELETE when we are done with it.
    pub terminate_session: bool,
    /// For rules, silences and routes.
    pub labels: BTreeMap<String, String>,
    /// Other services by name, `tcp://`, `https://`, `file://` or `env:`.
    pub depends_on: Vec<String>,
    /// Its times and limits.
    pub limits: ServiceLimits,
    /// Its configured calls.
    pub functional: Vec<FunctionalCheck>,
    /// What may be done about it.
    pub remediation: Option<RemediationSpec>,
    /// Where it was read from, for people: file and position, or the client's name.
    pub origin: String,
    /// Values that were filled in from the environment, wherever they stand in the entry.
    pub secrets: Vec<Secret>,
}

impl ServiceSpec {
    /// A service with default times and limits.
    pub fn new(name: impl Into<ServiceName>, transport: Transport) -> Self {
        Self {
            name: name.into(),
            transport,
            enabled: true,
            paused_because: None,
            invalid: None,
            protocol: ProtocolChoice::Auto,
            mode: WatchMode::Active,
            terminate_session: true,
            labels: BTreeMap::new(),
            depends_on: Vec::new(),
            limits: ServiceLimits::default(),
            functional: Vec::new(),
            remediation: None,
            origin: String::new(),
            secrets: Vec::new(),
        }
    }

    /// A service reached by running a command.
    pub fn stdio<A: Into<String>>(
        name: impl Into<ServiceName>,
        command: impl Into<String>,
        args: impl IntoIterator<Item = A>,
    ) -> Self {
        let spec = StdioSpec {
            command: command.into(),
            args: args.into_iter().map(Into::into).collect(),
            ..StdioSpec::default()
        };
        Self::new(name, Transport::Stdio(spec))
    }

    /// A service reached at a URL.
    pub fn http(name: impl Into<ServiceName>, url: impl Into<String>) -> Self {
        let spec = HttpSpec { url: url.into(), headers: BTreeMap::new() };
        Self::new(name, Transport::Http(spec))
    }

    /// What it depends on, other services among it. Entries that mean nothing are left out: where
    /// the configuration is read they are errors.
    pub fn dependencies(&self) -> impl Iterator<Item = Dependency> {
        self.depends_on.iter().filter_map(|text| text.parse().ok())
    }

    /// The longest a functional check may take: what a health check may, a start where one is
    /// needed, and `call_timeout` for every call.
    pub fn functional_timeout(&self) -> Duration {
        let limits = &self.limits;
        let reach = match self.transport {
            Transport::Stdio(_) => limits.startup_timeout.max(limits.health_check_timeout),
            Transport::Http(_) | Transport::Sse(_) => limits.health_check_timeout,
        };
        let calls = u32::try_from(self.functional.len()).unwrap_or(u32::MAX);
        reach.saturating_add(limits.call_timeout.saturating_mul(calls))
    }

    /// Every value in the entry that must stay in memory: environment, headers, filled-in parts.
    pub fn secrets(&self) -> impl Iterator<Item = &Secret> {
        // What every client sends is no secret, and redacting it would only blind the evidence.
        const PUBLIC: [&str; 4] = ["accept", "accept-language", "content-type", "user-agent"];
        let of_transport = match &self.transport {
            Transport::Stdio(stdio) => &stdio.env,
            Transport::Http(http) | Transport::Sse(http) => &http.headers,
        };
        of_transport
            .iter()
            .filter(|(name, _)| !PUBLIC.contains(&name.to_ascii_lowercase().as_str()))
            .map(|(_, value)| value)
            .chain(&self.secrets)
    }

    /// Whether two entries describe the same server, whatever they are called: the same command,
    /// arguments, environment and directory, or the same URL and headers.
    pub fn same_server(&self, other: &Self) -> bool {
        self.transport == other.transport
    }
}
