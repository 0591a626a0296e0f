//! The structs behind the JSON contracts: what `--output json` and the API give, field by field.

mod ps;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::failure::{Failure, Finding};
use crate::metrics::{ServiceMetrics, SystemMetrics};
use crate::observation::{CallObservation, Conversation, Observation, Phases, ServerIdentity};
use crate::service::ServiceName;
use crate::state::StatusChange;
use crate::status::{Era, Status};
use crate::store::{AlertRecord, StoredService};
use crate::time::Timestamp;

pub use self::ps::{PsClient, PsFlag, PsProcess, PsReport, PsRole, PsServer};

/// How many services have each status. Serialized with all eight statuses and `total`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[expect(missing_docs, reason = "one count per status, named like it")]
pub struct Summary {
    pub total: u32,
    pub running: u32,
    pub degraded: u32,
    pub auth_required: u32,
    pub stopped: u32,
    pub error: u32,
    pub unknown: u32,
    pub starting: u32,
    pub paused: u32,
}

impl FromIterator<Status> for Summary {
    fn from_iter<I: IntoIterator<Item = Status>>(statuses: I) -> Self {
        let mut summary = Self::default();
        for status in statuses {
            summary.total += 1;
            *match status {
                Status::Running => &mut summary.running,
                Status::Degraded => &mut summary.degraded,
                Status::AuthRequired => &mut summary.auth_required,
                Status::Stopped => &mut summary.stopped,
                Status::Error => &mut summary.error,
                Status::Unknown => &mut summary.unknown,
                Status::Starting => &mut summary.starting,
                Status::Paused => &mut summary.paused,
            } += 1;
        }
        summary
    }
}

/// One service in `check/v1`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ServiceReport {
    /// Its name.
    pub service: ServiceName,
    /// `stdio`, `http` or `sse`.
    pub transport: String,
    /// Its status.
    pub status: Status,
    /// The revision spoken.
    pub protocol_version: Option<String>,
    /// The era spoken.
    pub era: Option<Era>,
    /// Who answered.
    pub server: Option<ServerIdentity>,
    /// Tools listed.
    pub tools_count: Option<u32>,
    /// One whole request on a ready session.
    pub latency_ms: Option<f64>,
    /// The whole check.
    pub total_ms: Option<f64>,
    /// Its parts.
    pub phases: Phases,
    /// Why it is not well.
    pub failure: Option<Failure>,
    /// What is odd.
    pub findings: Vec<Finding>,
    /// The configured calls, where they were asked for; the field is left out where not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub calls: Option<Vec<CallReport>>,
}

/// One configured call in `check/v1`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CallReport {
    /// The tool.
    pub tool: String,
    /// Request written to result parsed; zero for a call that was not made.
    pub duration_ms: f64,
    /// What is wrong with the result, or why it was not called.
    pub failure: Option<Failure>,
}

impl From<&CallObservation> for CallReport {
    fn from(call: &CallObservation) -> Self {
        Self {
            tool: call.tool.clone(),
            duration_ms: as_millis(call.duration),
            failure: call.failure.clone(),
        }
    }
}

impl ServiceReport {
    /// A service that was asked once: its status is the raw result.
    pub fn of_check(service: ServiceName, transport: &str, observation: &Observation) -> Self {
        let Conversation { protocol_version, era, server } = observation.conversation.clone();
        Self {
            service,
            transport: transport.to_owned(),
            status: observation.raw_status(),
            protocol_version,
            era,
            server,
            tools_count: observation.tools_count,
            latency_ms: observation.latency.map(as_millis),
            total_ms: Some(as_millis(observation.total)),
            phases: rounded(observation.phases),
            failure: observation.failure().cloned(),
            findings: observation.findings.clone(),
            calls: None,
        }
    }

    /// A service that was not asked.
    pub fn unasked(service: ServiceName, transport: &str, status: Status) -> Self {
        Self {
            service,
            transport: transport.to_owned(),
            status,
            protocol_version: None,
            era: None,
            server: None,
            tools_count: None,
            latency_ms: None,
            total_ms: None,
            phases: Phases::default(),
            failure: None,
            findings: Vec::new(),
            calls: None,
        }
    }

    /// A service as the store last knew it.
    pub fn of_stored(stored: &StoredService) -> Self {
        let facts = &stored.facts;
        let last = stored.last_check.as_ref();
        let Conversation { protocol_version, era, server } = facts.conversation.clone();
        Self {
            service: facts.service.clone(),
            transport: facts.transport.clone(),
            status: stored.status,
            protocol_version,
            era,
            server,
            tools_count: facts.tools_count,
            latency_ms: last.and_then(|check| check.latency).map(as_millis),
            total_ms: last.map(|check| as_millis(check.total)),
            phases: rounded(last.map(|check| check.phases).unwrap_or_default()),
            failure: stored.failure.clone(),
            findings: stored.findings.clone(),
            calls: None,
        }
    }

    /// Failing first, then by name.
    pub fn order(&self) -> (usize, ServiceName) {
        let rank = Status::WORST_FIRST.iter().position(|status| *status == self.status);
        (rank.unwrap_or(usize::MAX), self.service.clone())
    }
}

/// Milliseconds to three decimals.
pub fn as_millis(span: std::time::Duration) -> f64 {
    span.as_micros() as f64 / 1_000.0
}

fn rounded(phases: Phases) -> Phases {
    let round = |millis: Option<f64>| millis.map(|millis| (millis * 1_000.0).round() / 1_000.0);
    Phases {
        spawn_ms: round(phases.spawn_ms),
        dns_ms: round(phases.dns_ms),
        connect_ms: round(phases.connect_ms),
        tls_ms: round(phases.tls_ms),
        handshake_ms: round(phases.handshake_ms),
        list_ms: round(phases.list_ms),
    }
}

/// `mcpmon/check/v1`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CheckReport {
    /// Always `mcpmon/check/v1`.
    pub schema: String,
    /// When the round began.
    pub checked_at: Timestamp,
    /// How many have each status.
    pub summary: Summary,
    /// Each service, failing first, then by name.
    pub services: Vec<ServiceReport>,
}

impl CheckReport {
    /// The contract's name.
    pub const SCHEMA: &'static str = "mcpmon/check/v1";

    /// Sorts and sums up a round.
    pub fn new(checked_at: Timestamp, mut services: Vec<ServiceReport>) -> Self {
        services.sort_by_cached_key(ServiceReport::order);
        let summary = services.iter().map(|service| service.status).collect();
        Self { schema: Self::SCHEMA.to_owned(), checked_at, summary, services }
    }
}

/// One service in `status/v1`: its check, since when, and its numbers.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ServiceStatusReport {
    /// As in `check/v1`.
    #[serde(flatten)]
    pub check: ServiceReport,
    /// Since when it has this status.
    pub since: Timestamp,
    /// Its numbers over the window; `None` where they could not be read.
    pub metrics: Option<ServiceMetrics>,
}

/// The monitor in `status/v1`.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct MonitorReport {
    /// Whether a monitor runs now.
    pub running: bool,
    /// Its version.
    pub version: String,
    /// Since when it runs.
    pub started_at: Option<Timestamp>,
    /// Start of one health check to the start of the next, in seconds.
    pub interval_seconds: Option<f64>,
    /// Checks run since it started.
    pub checks_total: u64,
    /// Checks begun late by more than a second since it started.
    pub late_checks_total: u64,
    /// Checks that were skipped since it started, because the one before was still under way.
    #[serde(default)]
    pub missed_checks_total: u64,
    /// How late checks begin, in milliseconds, over the last minutes; `None` before the first.
    #[serde(default)]
    pub start_lag: Option<StartLag>,
    /// Whether this machine's network is gone: services elsewhere are `unknown` then.
    #[serde(default)]
    pub offline: bool,
    /// Checks that wait in memory because the store cannot be written.
    pub waiting_samples: u64,
    /// Checks dropped for that reason since it started.
    pub dropped_samples_total: u64,
    /// Deliveries that failed since it started, by handler.
    pub delivery_failures_total: BTreeMap<String, u64>,
    /// Rules that failed to evaluate since it started.
    pub rule_failures_total: u64,
    /// Repairs carried out or tried since it started; what was only said is none.
    #[serde(default)]
    pub repairs_total: u64,
    /// Those of them that could not be carried out, or did not help.
    #[serde(default)]
    pub repairs_failed_total: u64,
    /// Services whose repair is given up now.
    #[serde(default)]
    pub repairs_given_up: u64,
    /// Why the last reload was not taken, until one is.
    pub reload_error: Option<String>,
    /// Why the store cannot be written, until it can.
    pub store_error: Option<String>,
    /// Bytes of memory that wait with those checks, and with everything else there is to write.
    #[serde(default)]
    pub waiting_bytes: u64,
    /// Why the store's disk is a worry though it can be written, until it is none any more.
    #[serde(default)]
    pub storage_warning: Option<String>,
    /// Bytes left on the store's disk; `None` where nobody knows.
    #[serde(default)]
    pub disk_free_bytes: Option<u64>,
    /// Bytes of the store's write-ahead log.
    #[serde(default)]
    pub log_bytes: Option<u64>,
}

/// How late checks began, over the last five to ten minutes, in milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
pub struct StartLag {
    /// The median.
    pub p50_ms: f64,
    /// The 99th percentile.
    pub p99_ms: f64,
    /// The latest.
    pub max_ms: f64,
    /// Checks counted.
    pub checks: u64,
}

/// The machine in `status/v1`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct HostReport {
    /// When it was measured.
    pub at: Timestamp,
    /// What was measured.
    #[serde(flatten)]
    pub metrics: SystemMetrics,
}

/// `mcpmon/status/v1`.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct StatusReport {
    /// Always `mcpmon/status/v1`.
    pub schema: String,
    /// The moment.
    pub at: Timestamp,
    /// The span of the metrics, such as `5m`.
    pub window: String,
    /// The monitor itself.
    pub monitor: MonitorReport,
    /// How many services have each status.
    pub summary: Summary,
    /// Each service, failing first, then by name.
    pub services: Vec<ServiceStatusReport>,
    /// The machine.
    pub host: Option<HostReport>,
    /// The newest alerts, newest first.
    pub alerts: Vec<AlertRecord>,
}

impl StatusReport {
    /// The contract's name.
    pub const SCHEMA: &'static str = "mcpmon/status/v1";

    /// The contract's form of a snapshot.
    pub fn new(snapshot: &crate::monitor::Snapshot, window: std::time::Duration) -> Self {
        Self {
            schema: Self::SCHEMA.to_owned(),
            at: snapshot.at,
            window: crate::duration::format(window),
            monitor: snapshot.monitor.clone(),
            summary: snapshot.services.iter().map(|service| service.check.status).collect(),
            services: snapshot.services.clone(),
            host: snapshot.host.clone(),
            alerts: snapshot.alerts.clone(),
        }
    }
}

/// `mcpmon/alerts/v1`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct AlertsReport {
    /// Always `mcpmon/alerts/v1`.
    pub schema: String,
    /// Newest first.
    pub alerts: Vec<AlertRecord>,
}

impl AlertsReport {
    /// The contract's name.
    pub const SCHEMA: &'static str = "mcpmon/alerts/v1";

    /// The contract's form of these alerts.
    pub fn new(alerts: Vec<AlertRecord>) -> Self {
        Self { schema: Self::SCHEMA.to_owned(), alerts }
    }
}

/// `mcpmon/explain/v1`.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ExplainReport {
    /// Always `mcpmon/explain/v1`.
    pub schema: String,
    /// The service that was asked for; `None` where a code was, or nothing.
    pub service: Option<ExplainedService>,
    /// What the catalogue says: of the code that was asked for, of the service's failure and
    /// findings, or of every code.
    pub codes: Vec<ExplainedCode>,
}

impl ExplainReport {
    /// The contract's name.
    pub const SCHEMA: &'static str = "mcpmon/explain/v1";
}

/// What is known of a service, and what came before.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ExplainedService {
    /// As in `check/v1`, as last known.
    #[serde(flatten)]
    pub check: ServiceReport,
    /// Since when it has this status.
    pub since: Timestamp,
    /// When it was checked last; `None` if it never was.
    pub last_check_at: Option<Timestamp>,
    /// Whether it is still watched, and a monitor runs that does so.
    pub watched: bool,
    /// The last changes of status, cause or findings, newest first.
    pub changes: Vec<StatusChange>,
    /// What was last done to repair it, newest first.
    pub repairs: Vec<crate::remedy::AuditEntry>,
}

/// What a code names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CodeKind {
    /// Why a check did not find its service well.
    Failure,
    /// What is odd about a service that works.
    Finding,
}

/// One section of the catalogue, without its markup.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ExplainedCode {
    /// The code.
    pub code: String,
    /// What it names.
    pub kind: CodeKind,
    /// The status of a check with this failure; `None` for a finding.
    pub status: Option<Status>,
    /// Whether this finding can make a service `degraded`.
    pub degrading: bool,
    /// What it means, in a sentence.
    pub summary: String,
    /// What it means, the summary included.
    pub meaning: String,
    /// What is kept as evidence.
    pub evidence: Option<String>,
    /// Usual causes.
    pub usual_causes: Option<String>,
    /// What to do.
    pub next_step: Option<String>,
}
