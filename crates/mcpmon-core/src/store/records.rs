//! What is kept: checks, facts of services, lists, samples of the machine; and the batch they come in.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::history;
use crate::check::CheckMeaning;
use crate::failure::{Failure, FailureCode, Finding, FindingCode};
use crate::metrics::{ProcessMetrics, SystemMetrics};
use crate::observation::{Conversation, Lists, Observation, Phases, Question};
use crate::service::ServiceName;
use crate::state::StatusChange;
use crate::status::Status;
use crate::time::Timestamp;

/// One check as it is kept.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CheckRecord {
    /// The service.
    pub service: ServiceName,
    /// When it started.
    pub at: Timestamp,
    /// What was asked.
    pub question: Question,
    /// What this one check said, before any hysteresis.
    pub status: Status,
    /// Why, where it failed.
    pub code: Option<FailureCode>,
    /// One whole request on a ready session.
    #[serde(rename = "latency_ms", with = "millis::optional")]
    pub latency: Option<Duration>,
    /// The whole check.
    #[serde(rename = "total_ms", with = "millis")]
    pub total: Duration,
    /// Its parts.
    pub phases: Phases,
    /// Whether its process was started again for it; the first start of a monitor's life is none.
    pub restarted: bool,
    /// Whether the service's process was not to be trusted yet, because those before it died
    /// young: a good check then neither ends failures in a row nor counts as a success.
    #[serde(default, skip_serializing_if = "is_false")]
    pub unproven: bool,
    /// The service's process tree.
    pub process: Option<ProcessMetrics>,
}

fn is_false(flag: &bool) -> bool {
    !flag
}

impl CheckRecord {
    /// What is kept of an observation.
    pub fn new(
        service: ServiceName,
        at: Timestamp,
        question: Question,
        observation: &Observation,
    ) -> Self {
        Self {
            service,
            at,
            question,
            status: observation.raw_status(),
            code: observation.failure().map(|failure| failure.code),
            latency: observation.latency,
            total: observation.total,
            phases: observation.phases,
            restarted: observation.restarted,
            unproven: false,
            process: observation.process,
        }
    }

    /// What this check counts as.
    pub fn meaning(&self) -> CheckMeaning {
        CheckMeaning::of(self.question, self.status, self.code)
    }
}

mod millis {
    use std::time::Duration;

    use serde::{Deserialize, Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(span: &Duration, s: S) -> Result<S::Ok, S::Error> {
        s.serialize_f64(span.as_secs_f64() * 1_000.0)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(d: D) -> Result<Duration, D::Error> {
        let millis = f64::deserialize(d)?;
        Duration::try_from_secs_f64(millis / 1_000.0).map_err(serde::de::Error::custom)
    }

    pub(super) mod optional {
        use super::*;

        pub(crate) fn serialize<S: Serializer>(
            span: &Option<Duration>,
            s: S,
        ) -> Result<S::Ok, S::Error> {
            match span {
                Some(span) => super::serialize(span, s),
                None => s.serialize_none(),
            }
        }

        pub(crate) fn deserialize<'de, D: Deserializer<'de>>(
            d: D,
        ) -> Result<Option<Duration>, D::Error> {
            #[derive(Deserialize)]
            struct Wrapped(#[serde(with = "super")] Duration);
            Ok(Option::<Wrapped>::deserialize(d)?.map(|wrapped| wrapped.0))
        }
    }
}

/// What is known of a service apart from its checks; written when it changes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ServiceFacts {
    /// The service.
    pub service: ServiceName,
    /// `stdio`, `http` or `sse`.
    pub transport: String,
    /// Revision, era and identity of the last good conversation.
    pub conversation: Conversation,
    /// Tools last listed.
    pub tools_count: Option<u32>,
    /// How often its process was started again.
    pub restarts: u64,
    /// Since when it is available.
    pub available_since: Option<Timestamp>,
    /// Failed checks in a row, configured calls left out.
    #[serde(default)]
    pub consecutive_failures: u32,
    /// Failed rounds of configured calls in a row.
    #[serde(default)]
    pub function_failures: u32,
    /// Why it last failed, however long ago.
    #[serde(default)]
    pub last_error: Option<String>,
    /// Since when it has been watched; `None` where that is not known.
    #[serde(default)]
    pub watched_since: Option<Timestamp>,
    /// Whether it is still watched; the history of one that is not stays.
    pub watched: bool,
    /// Start of one check to the start of the next, in ms: how long a check vouches for it.
    #[serde(default)]
    pub check_interval_ms: Option<u64>,
    /// What its list of tools costs a model that is given it, in tokens; an estimate.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tool_list_tokens: Option<u64>,
}

impl ServiceFacts {
    /// A service of which only checks are known.
    pub fn unknown(service: ServiceName) -> Self {
        Self {
            service,
            transport: String::new(),
            conversation: Conversation::default(),
            tools_count: None,
            restarts: 0,
            available_since: None,
            consecutive_failures: 0,
            function_failures: 0,
            last_error: None,
            watched_since: None,
            watched: true,
            check_interval_ms: None,
            tool_list_tokens: None,
        }
    }

    /// How long a check vouches for the service's status.
    pub fn reach(&self) -> Duration {
        history::reach(self.check_interval_ms.map(Duration::from_millis))
    }
}

/// A service's lists as they were read.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ListRecord {
    /// The service.
    pub service: ServiceName,
    /// When they were first seen so.
    pub at: Timestamp,
    /// The lists.
    pub lists: Lists,
}

/// One change of a service's lists: stored in the batch of the lists it leads to, and reported
/// once. The service and the moment name it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ListChange {
    /// The service.
    pub service: ServiceName,
    /// When the new lists were read; later than the service's change before.
    pub at: Timestamp,
    /// Hash of the canonical form of the lists before.
    pub hash_before: String,
    /// Hash of the canonical form of the new lists.
    pub hash: String,
    /// Tools before.
    pub tools_before: u32,
    /// Tools now.
    pub tools: u32,
    /// The lists go back and forth, and these were there within the last hour. Of several such
    /// changes in a row the first is reported, the others are stored alone.
    #[serde(default)]
    pub is_return: bool,
}

impl ListChange {
    /// Changes that a store keeps of each service, the newest by time: years of changes that people
    /// make, three days of a server whose lists differ at every reading (each 5 minutes). They take
    /// about 400 bytes each.
    pub const MOST_KEPT: usize = 1_000;

    /// Name of the rule that reports changes. The [`AlertState`](crate::alert::AlertState) of this
    /// rule and the service has the newest change that was reported.
    pub const RULE: &'static str = "tools_changed";

    /// A monitor that starts reports stored changes that are not older than this: whoever comes back
    /// from a week away still hears of them.
    pub const REPORTED_WITHIN: Duration = Duration::from_secs(8 * 24 * 3_600);

    /// Whether it is reported, if the change before it was a return or not: that lists go back and
    /// forth is reported when it begins, not at each turn.
    pub const fn is_news(&self, is_return_before: bool) -> bool {
        !(self.is_return && is_return_before)
    }

    /// The finding that the lists changed: what rules see of this change.
    pub fn to_finding(&self) -> Finding {
        Finding::new(FindingCode::ToolsChanged, self.describe_change())
            .with("changed_at", self.at.to_string())
            .with("tools_before", self.tools_before)
            .with("tools", self.tools)
            .with("hash_before", self.hash_before.clone())
            .with("hash", self.hash.clone())
    }

    /// What changed, for people.
    pub fn describe_change(&self) -> String {
        let tools = if self.tools == 1 { "tool" } else { "tools" };
        if self.is_return {
            let now = self.tools;
            return format!("the lists go back and forth: {now} {tools}, as within the last hour");
        }
        match (self.tools_before, self.tools) {
            (before, now) if before == now => {
                format!("the lists are others than those stored before: {now} {tools}, as before")
            }
            (before, now) => format!("the lists are others: {now} {tools}, before {before}"),
        }
    }
}

/// One sample of the machine.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct HostRecord {
    /// When.
    pub at: Timestamp,
    /// What.
    pub metrics: SystemMetrics,
}

/// What is written in one transaction.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Batch {
    /// Checks, in the order they ended.
    pub checks: Vec<CheckRecord>,
    /// Changes of status, cause or findings.
    pub changes: Vec<StatusChange>,
    /// Facts that changed.
    pub facts: Vec<ServiceFacts>,
    /// Lists that changed.
    pub lists: Vec<ListRecord>,
    /// The changes that led to them.
    pub list_changes: Vec<ListChange>,
    /// Samples of the machine.
    pub host: Vec<HostRecord>,
}

impl Batch {
    /// Whether there is nothing to write.
    pub fn is_empty(&self) -> bool {
        self.checks.is_empty()
            && self.changes.is_empty()
            && self.facts.is_empty()
            && self.lists.is_empty()
            && self.list_changes.is_empty()
            && self.host.is_empty()
    }
}

/// A service as the store last knew it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StoredService {
    /// What changes seldom.
    pub facts: ServiceFacts,
    /// Its status.
    pub status: Status,
    /// Since when.
    pub since: Timestamp,
    /// Why, where something is wrong.
    pub failure: Option<Failure>,
    /// What is odd.
    pub findings: Vec<Finding>,
    /// Its last check.
    pub last_check: Option<CheckRecord>,
}
