//! What one run of a probe saw. Being unable to reach a service is a measurement, not an error.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use serde_json::value::RawValue;

use crate::failure::{Failure, Finding};
use crate::lists::ListParts;
use crate::metrics::ProcessMetrics;
use crate::status::{Era, Status};

/// What a probe is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Question {
    /// The era's cheapest proof of life, on a session that is held.
    Heartbeat,
    /// Reach it, shake hands if need be, time one request.
    Health,
    /// A health check, and all its lists read.
    List,
    /// The configured calls.
    Functional,
    /// What it depends on.
    Dependency,
}

impl Question {
    /// The contract's spelling.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Heartbeat => "heartbeat",
            Self::Health => "health",
            Self::List => "list",
            Self::Functional => "functional",
            Self::Dependency => "dependency",
        }
    }
}

/// How long each part of a check took, in milliseconds; a part that was not run has no time.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Phases {
    /// Starting the process.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub spawn_ms: Option<f64>,
    /// Resolving the name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dns_ms: Option<f64>,
    /// Opening the connection.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub connect_ms: Option<f64>,
    /// The TLS handshake.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tls_ms: Option<f64>,
    /// First request written to first answer parsed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub handshake_ms: Option<f64>,
    /// Reading every page of the lists.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub list_ms: Option<f64>,
}

/// Who the server says it is. Untrusted text.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct ServerIdentity {
    /// Its name.
    pub name: String,
    /// Its version.
    pub version: String,
}

/// What a conversation established about a service; changes seldom.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Conversation {
    /// The revision spoken.
    pub protocol_version: Option<String>,
    /// The era spoken.
    pub era: Option<Era>,
    /// Who answered.
    pub server: Option<ServerIdentity>,
}

/// One tool, prompt, resource or resource template as the server lists it. Untrusted text.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ListedItem {
    /// The name it is called by (a resource's URI, a template's pattern of URIs).
    pub name: String,
    /// The whole definition as it came, capped.
    pub definition: Definition,
    /// The digest of the whole definition ([`crate::lists::CanonicalDigest`]), where only a part of it
    /// is kept: lists are compared by all that was listed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub digest: Option<String>,
}

/// The JSON of a listed item, kept as the text it came in: a tree of values takes ten times the
/// memory, and most definitions are only stored. Untrusted text.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Definition(Box<RawValue>);

impl Definition {
    /// The definition as text.
    pub fn as_str(&self) -> &str {
        self.0.get()
    }

    /// The definition taken apart; null if it is nested deeper than can be read.
    pub fn value(&self) -> Value {
        serde_json::from_str(self.0.get()).unwrap_or_default()
    }
}

impl From<&RawValue> for Definition {
    fn from(raw: &RawValue) -> Self {
        Self(raw.to_owned())
    }
}

impl From<&Value> for Definition {
    fn from(value: &Value) -> Self {
        // What is a value already is always JSON.
        Self(serde_json::value::to_raw_value(value).unwrap_or_default())
    }
}

impl PartialEq for Definition {
    fn eq(&self, other: &Self) -> bool {
        self.as_str() == other.as_str()
    }
}

/// The lists of a service. Each is whole, or empty because it was not given ([`Self::covers_list`]).
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Lists {
    /// Its tools, in the server's order.
    pub tools: Vec<ListedItem>,
    /// Its prompts.
    pub prompts: Vec<ListedItem>,
    /// Its resources.
    pub resources: Vec<ListedItem>,
    /// Its resource templates. None where it has no such list.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub resource_templates: Vec<ListedItem>,
    /// Its instructions for a model, from its greeting: redacted, capped, otherwise as they came.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub instructions: Option<String>,
    /// `c2:` and SHA-256 over the canonical form of all of it ([`crate::lists`]), in hexadecimal:
    /// equal lists have equal hashes whatever order or spacing they came in.
    pub hash: String,
    /// What each part comes to. `None` if whoever read them made no such digests: then every list
    /// was read to its end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parts: Option<ListParts>,
}

/// Whether the service was found well.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// It answered rightly.
    Answered,
    /// It did not, because.
    Failed(Failure),
}

/// What one question to a probe saw, with no time of day on it yet.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Observation {
    /// Well, or why not.
    pub outcome: Outcome,
    /// What is odd about it.
    pub findings: Vec<Finding>,
    /// One whole request on a ready session: written to matching answer parsed. Never a process's
    /// first answer.
    pub latency: Option<Duration>,
    /// The whole check.
    pub total: Duration,
    /// Its parts.
    pub phases: Phases,
    /// Revision, era and identity, as far as the conversation got.
    pub conversation: Conversation,
    /// Every list, when the question was [`Question::List`] and they are not the ones this probe
    /// gave last: what was read and found unchanged is not given again.
    pub lists: Option<Lists>,
    /// Number of tools last listed on this session, if any were.
    pub tools_count: Option<u32>,
    /// What those tools cost a model that is given them, in tokens; an estimate.
    pub tool_list_tokens: Option<u64>,
    /// Whether a process was started for this check (or started again).
    pub restarted: bool,
    /// Sessions this probe holds open now; `None` where that cannot be known.
    pub active_connections: Option<u32>,
    /// The service's process tree, for a stdio service.
    pub process: Option<ProcessMetrics>,
    /// How long the server asked to be left alone (`Retry-After`), already bounded.
    pub retry_after: Option<Duration>,
    /// How long the server says its lists stay good (`ttlMs`), already bounded.
    pub list_ttl: Option<Duration>,
    /// The configured calls that were made, when the question was [`Question::Functional`].
    pub calls: Vec<CallObservation>,
    /// What it depends on and could be looked at, when the question was
    /// [`Question::Dependency`]. Other services are not among them: the engine knows those.
    pub dependencies: Vec<DependencyObservation>,
}

/// One configured call, as it went.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CallObservation {
    /// The tool called.
    pub tool: String,
    /// Request written to result parsed.
    pub duration: Duration,
    /// What is wrong with the result, if anything is.
    pub failure: Option<Failure>,
}

/// One thing a service depends on, as it was found.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DependencyObservation {
    /// As the configuration names it: `tcp://db:5432`, `env:TOKEN`.
    pub dependency: String,
    /// Why it is down; `None` while it is well.
    pub problem: Option<String>,
}

impl Observation {
    /// An observation with this outcome and nothing else known yet.
    pub fn new(outcome: Outcome) -> Self {
        Self {
            outcome,
            findings: Vec::new(),
            latency: None,
            total: Duration::ZERO,
            phases: Phases::default(),
            conversation: Conversation::default(),
            lists: None,
            tools_count: None,
            tool_list_tokens: None,
            restarted: false,
            active_connections: None,
            process: None,
            retry_after: None,
            list_ttl: None,
            calls: Vec::new(),
            dependencies: Vec::new(),
        }
    }

    /// The service answered.
    pub fn answered() -> Self {
        Self::new(Outcome::Answered)
    }

    /// The service was not found well.
    pub fn failed(failure: Failure) -> Self {
        Self::new(Outcome::Failed(failure))
    }

    /// Why it was not found well.
    pub fn failure(&self) -> Option<&Failure> {
        match &self.outcome {
            Outcome::Answered => None,
            Outcome::Failed(failure) => Some(failure),
        }
    }

    /// The status this one check alone gives the service.
    pub fn raw_status(&self) -> Status {
        match &self.outcome {
            Outcome::Failed(failure) => failure.code.status(),
            Outcome::Answered if self.findings.iter().any(Finding::is_degrading) => {
                Status::Degraded
            }
            Outcome::Answered => Status::Running,
        }
    }
}
