//! The names conditions and messages speak in, and their values.
//!
//! One table for both languages, read from the snapshot when a name is asked for: an evaluation
//! copies nothing it does not look at. The names are the fields of core's snapshots, which a test
//! compares them with, and a few that belong to the rule itself.

use std::collections::BTreeMap;
use std::time::Duration;

use mcpmon_core::failure::Finding;
use mcpmon_core::metrics::{ServiceMetrics, SystemMetrics, ToolMetrics};
use mcpmon_core::rule::{MonitorFact, RuleContext, RuleInput, Scope, Spread, Usual};
use mcpmon_core::subject::Subject;
use mcpmon_core::time::Timestamp;

/// The value of a name.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Variable<'a> {
    Bool(bool),
    Int(i64),
    Number(f64),
    Text(&'a str),
    /// Seconds since 1970 in conditions, RFC 3339 in messages.
    Time(Timestamp),
    Labels(&'a BTreeMap<String, String>),
    /// Codes of findings.
    Findings(&'a [Finding]),
}

const SERVICE: &[&str] = &[
    "service_name",
    "status",
    "uptime",
    "uptime_ratio",
    "last_check_time",
    "last_activity",
    "consecutive_failures",
    "total_checks",
    "failed_checks",
    "total_calls",
    "failed_calls",
    "total_requests",
    "failed_requests",
    "error_rate",
    "error_rate_source",
    "error_rate_samples",
    "avg_response_time",
    "p50_response_time",
    "p95_response_time",
    "p99_response_time",
    "throughput",
    "active_connections",
    "tools_count",
    "last_error",
    "restarts",
    "cpu_percent",
    "memory_bytes",
    "open_files",
    "tool_list_tokens",
    "firing",
    "now",
    "window",
    "labels",
    "failure_code",
    "findings",
    "result_changes",
    "status_seconds",
    "repair_given_up",
    "usual_response_time",
    "usual_error_rate",
    "response_time_z",
    "error_rate_z",
    "check_interval",
    "max_consecutive_failures",
    "response_time_threshold",
    "error_rate_threshold",
];

const TOOL: &[&str] = &[
    "service_name",
    "tool_name",
    "total_calls",
    "failed_calls",
    "slow_calls",
    "error_rate",
    "avg_response_time",
    "p95_response_time",
    "last_error",
    "firing",
    "now",
    "window",
    "labels",
    "failure_code",
    "max_consecutive_failures",
    "response_time_threshold",
    "error_rate_threshold",
];

const HOST: &[&str] = &[
    "cpu_percent",
    "memory_total_bytes",
    "memory_available_bytes",
    "memory_used_bytes",
    "memory_percent",
    "swap_total_bytes",
    "swap_used_bytes",
    "swap_free_bytes",
    "swap_percent",
    "disk_percent",
    "load_1m",
    "bytes_sent",
    "bytes_recv",
    "packets_sent",
    "packets_recv",
    "bytes_sent_per_second",
    "bytes_recv_per_second",
    "packets_sent_per_second",
    "packets_recv_per_second",
    "firing",
    "now",
    "window",
];

/// Of the built-in rules about the monitor itself; others cannot be written.
const MONITOR: &[&str] =
    &["subject", "subject_kind", "failing", "detail", "affected", "firing", "now", "window"];

/// Every name a rule of this scope may use.
pub fn names(scope: Scope) -> &'static [&'static str] {
    match scope {
        Scope::Service => SERVICE,
        Scope::Tool => TOOL,
        Scope::Host => HOST,
        Scope::Monitor => MONITOR,
        _ => &[],
    }
}

/// The names and values of one evaluation.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Variables<'a> {
    pub(crate) context: &'a RuleContext<'a>,
    pub(crate) window: Duration,
}

impl<'a> Variables<'a> {
    /// The value of `name`; `None` if it has none now, or no rule of this scope has such a name.
    pub(crate) fn get(&self, name: &str) -> Option<Variable<'a>> {
        match self.context.input {
            RuleInput::Service(metrics) => of_service(metrics, name),
            RuleInput::Tool(metrics) => of_tool(metrics, name),
            RuleInput::Host(metrics) => of_host(metrics, name),
            RuleInput::Monitor(fact) => of_monitor(fact, name),
            _ => None,
        }
        .or_else(|| self.of_rule(name))
    }

    /// A label of the service.
    pub(crate) fn label(&self, name: &str) -> Option<&'a str> {
        self.context.labels.get(name).map(String::as_str)
    }

    /// Whether a rule of this scope may use `name`, with or without a value now.
    pub(crate) fn knows(&self, name: &str) -> bool {
        let scope = match self.context.input {
            RuleInput::Service(_) => Scope::Service,
            RuleInput::Tool(_) => Scope::Tool,
            RuleInput::Monitor(_) => Scope::Monitor,
            _ => Scope::Host,
        };
        names(scope).contains(&name)
    }

    fn of_rule(&self, name: &str) -> Option<Variable<'a>> {
        let limits = self.context.limits;
        match name {
            "firing" => Some(Variable::Bool(self.context.firing)),
            "now" => Some(Variable::Time(self.context.now)),
            "window" => Some(Variable::Number(self.window.as_secs_f64())),
            _ if matches!(self.context.input, RuleInput::Host(_) | RuleInput::Monitor(_)) => None,
            "labels" => Some(Variable::Labels(self.context.labels)),
            // Empty rather than without value: a condition on the code of a service that has no
            // failure is decided, not unknown.
            "failure_code" => {
                Some(Variable::Text(self.context.failure_code.map_or("", |code| code.as_str())))
            }
            "findings" => Some(Variable::Findings(self.context.findings)),
            "result_changes" => Some(Variable::Int(self.context.result_changes.into())),
            "status_seconds" => number(self.context.status_seconds),
            "repair_given_up" => Some(Variable::Bool(self.context.repair_given_up)),
            "usual_response_time" => number(self.usual_response_time().map(|usual| usual.median)),
            "usual_error_rate" => number(self.usual_error_rate().map(|usual| usual.median)),
            "response_time_z" => {
                let usual = self.usual_response_time()?;
                let RuleInput::Service(m) = self.context.input else { return None };
                let timed = m.total_checks.saturating_sub(m.failed_checks);
                // A tenth of what is usual, or 5 ms, is no change anybody would feel.
                let floor = (usual.median / 10.0).max(0.005);
                number(Some(usual.z_of_median(m.p50_response_time?, timed, floor)))
            }
            "error_rate_z" => {
                let usual = self.usual_error_rate()?;
                let RuleInput::Service(m) = self.context.input else { return None };
                number(Some(usual.z_of_share(m.error_rate, m.error_rate_samples, 0.02)))
            }
            "check_interval" => {
                limits.map(|limits| Variable::Number(limits.check_interval.as_secs_f64()))
            }
            "max_consecutive_failures" => {
                limits.map(|limits| Variable::Int(limits.max_consecutive_failures.into()))
            }
            "response_time_threshold" => {
                limits.map(|limits| Variable::Number(limits.response_time_threshold.as_secs_f64()))
            }
            "error_rate_threshold" => {
                limits.map(|limits| Variable::Number(limits.error_rate_threshold))
            }
            _ => None,
        }
    }
}

impl Variables<'_> {
    fn usual_response_time(&self) -> Option<Spread> {
        self.context.usual?.response_time
    }

    fn usual_error_rate(&self) -> Option<Spread> {
        self.context.usual?.error_rate
    }
}

fn of_monitor<'a>(fact: &'a MonitorFact, name: &str) -> Option<Variable<'a>> {
    match name {
        // Empty for the monitor itself, which has no name.
        "subject" => Some(Variable::Text(fact.subject.name().unwrap_or_default())),
        "subject_kind" => Some(Variable::Text(fact.subject.kind().as_str())),
        "failing" => fact.failing.map(Variable::Bool),
        "detail" => Some(Variable::Text(&fact.detail)),
        "affected" => Some(int(fact.affected)),
        _ => None,
    }
}

fn int(count: u64) -> Variable<'static> {
    Variable::Int(i64::try_from(count).unwrap_or(i64::MAX))
}

fn number(value: Option<f64>) -> Option<Variable<'static>> {
    value.filter(|value| !value.is_nan()).map(Variable::Number)
}

fn of_service<'a>(m: &'a ServiceMetrics, name: &str) -> Option<Variable<'a>> {
    match name {
        "service_name" => Some(Variable::Text(m.service_name.as_str())),
        "status" => Some(Variable::Text(m.status.as_str())),
        "uptime" => number(Some(m.uptime)),
        "uptime_ratio" => number(m.uptime_ratio),
        "last_check_time" => m.last_check_time.map(Variable::Time),
        "last_activity" => m.last_activity.map(Variable::Time),
        "consecutive_failures" => Some(int(m.consecutive_failures.into())),
        "total_checks" => Some(int(m.total_checks)),
        "failed_checks" => Some(int(m.failed_checks)),
        "total_calls" => Some(int(m.total_calls)),
        "failed_calls" => Some(int(m.failed_calls)),
        "total_requests" => Some(int(m.total_requests)),
        "failed_requests" => Some(int(m.failed_requests)),
        "error_rate" => number(Some(m.error_rate)),
        "error_rate_source" => Some(Variable::Text(m.error_rate_source.as_str())),
        "error_rate_samples" => Some(int(m.error_rate_samples)),
        "avg_response_time" => number(m.avg_response_time),
        "p50_response_time" => number(m.p50_response_time),
        "p95_response_time" => number(m.p95_response_time),
        "p99_response_time" => number(m.p99_response_time),
        "throughput" => number(Some(m.throughput)),
        "active_connections" => m.active_connections.map(|count| int(count.into())),
        "tools_count" => m.tools_count.map(|count| int(count.into())),
        "last_error" => m.last_error.as_deref().map(Variable::Text),
        "restarts" => Some(int(m.restarts)),
        "cpu_percent" => number(m.cpu_percent),
        "memory_bytes" => m.memory_bytes.map(int),
        "open_files" => m.open_files.map(int),
        "tool_list_tokens" => m.tool_list_tokens.map(int),
        _ => None,
    }
}

fn of_tool<'a>(m: &'a ToolMetrics, name: &str) -> Option<Variable<'a>> {
    match name {
        "service_name" => Some(Variable::Text(m.service_name.as_str())),
        "tool_name" => Some(Variable::Text(&m.tool_name)),
        "total_calls" => Some(int(m.total_calls)),
        "failed_calls" => Some(int(m.failed_calls)),
        "slow_calls" => Some(int(m.slow_calls)),
        "error_rate" => number(Some(m.error_rate)),
        "avg_response_time" => number(m.avg_response_time),
        "p95_response_time" => number(m.p95_response_time),
        "last_error" => m.last_error.as_deref().map(Variable::Text),
        _ => None,
    }
}

fn of_host<'a>(m: &'a SystemMetrics, name: &str) -> Option<Variable<'a>> {
    let net = &m.network;
    match name {
        "cpu_percent" => number(Some(m.cpu_percent)),
        "memory_total_bytes" => Some(int(m.memory_total_bytes)),
        "memory_available_bytes" => Some(int(m.memory_available_bytes)),
        "memory_used_bytes" => Some(int(m.memory_used_bytes)),
        "memory_percent" => number(Some(m.memory_percent)),
        "swap_total_bytes" => Some(int(m.swap_total_bytes)),
        "swap_used_bytes" => Some(int(m.swap_used_bytes)),
        "swap_free_bytes" => Some(int(m.swap_free_bytes)),
        "swap_percent" => number(Some(m.swap_percent)),
        "disk_percent" => number(m.disk_percent),
        "load_1m" => number(Some(m.load_1m)),
        "bytes_sent" => Some(int(net.bytes_sent)),
        "bytes_recv" => Some(int(net.bytes_recv)),
        "packets_sent" => Some(int(net.packets_sent)),
        "packets_recv" => Some(int(net.packets_recv)),
        "bytes_sent_per_second" => number(Some(net.bytes_sent_per_second)),
        "bytes_recv_per_second" => number(Some(net.bytes_recv_per_second)),
        "packets_sent_per_second" => number(Some(net.packets_sent_per_second)),
        "packets_recv_per_second" => number(Some(net.packets_recv_per_second)),
        _ => None,
    }
}

/// A made-up subject of each scope in which every name has a value: what conditions and messages
/// are tried on when they are read, so that a wrong type is found then and not at night.
#[derive(Debug)]
pub(crate) struct Sample {
    service: ServiceMetrics,
    tool: ToolMetrics,
    host: SystemMetrics,
    fact: MonitorFact,
    usual: Usual,
    limits: mcpmon_core::service::ServiceLimits,
}

impl Sample {
    pub(crate) fn new() -> Self {
        let name = mcpmon_core::service::ServiceName::from("sample");
        let service = ServiceMetrics {
            uptime: 1.0,
            uptime_ratio: Some(1.0),
            last_check_time: Some(Timestamp::from_millis(1)),
            last_activity: Some(Timestamp::from_millis(1)),
            avg_response_time: Some(1.0),
            p50_response_time: Some(1.0),
            p95_response_time: Some(1.0),
            p99_response_time: Some(1.0),
            active_connections: Some(1),
            tools_count: Some(1),
            last_error: Some("error".to_owned()),
            cpu_percent: Some(1.0),
            memory_bytes: Some(1),
            open_files: Some(1),
            tool_list_tokens: Some(1),
            ..ServiceMetrics::unknown(name.clone())
        };
        let tool = ToolMetrics {
            service_name: name,
            tool_name: "tool".to_owned(),
            total_calls: 1,
            failed_calls: 1,
            slow_calls: 1,
            error_rate: 1.0,
            avg_response_time: Some(1.0),
            p95_response_time: Some(1.0),
            last_error: Some("error".to_owned()),
        };
        let host = SystemMetrics { disk_percent: Some(1.0), ..SystemMetrics::default() };
        let fact = MonitorFact {
            subject: Subject::Dependency("tcp://db:5432".to_owned()),
            failing: Some(true),
            detail: "refused".to_owned(),
            affected: 1,
        };
        let spread = Some(Spread { median: 1.0, deviation: 1.0, count: 100, noise: 1.0 });
        let usual = Usual { response_time: spread, error_rate: spread };
        let limits = mcpmon_core::service::ServiceLimits::default();
        Self { service, tool, host, fact, usual, limits }
    }

    pub(crate) fn context(&self, scope: Scope) -> RuleContext<'_> {
        let input = match scope {
            Scope::Tool => RuleInput::Tool(&self.tool),
            Scope::Host => RuleInput::Host(&self.host),
            Scope::Monitor => RuleInput::Monitor(&self.fact),
            _ => RuleInput::Service(&self.service),
        };
        RuleContext {
            limits: Some(&self.limits),
            usual: Some(&self.usual),
            status_seconds: Some(1.0),
            ..RuleContext::new(input, Timestamp::from_millis(1))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    const SCOPES: [Scope; 4] = [Scope::Service, Scope::Tool, Scope::Host, Scope::Monitor];

    #[test]
    fn every_name_has_a_value_in_the_sample_and_no_other_has() {
        let sample = Sample::new();
        for scope in SCOPES {
            let context = sample.context(scope);
            let variables = Variables { context: &context, window: Duration::from_secs(300) };
            for name in names(scope) {
                assert!(variables.get(name).is_some(), "{scope}: {name}");
                assert!(variables.knows(name));
            }
            assert_eq!(variables.get("nonsense"), None);
            assert!(!variables.knows("nonsense"));
        }
    }

    #[test]
    fn every_field_of_a_snapshot_is_a_name() {
        let sample = Sample::new();
        let fields = |value: serde_json::Value| -> BTreeSet<String> {
            value.as_object().unwrap().keys().cloned().collect()
        };
        let check = |scope: Scope, mut fields: BTreeSet<String>| {
            for flattened in ["disks", "interfaces", "network", "interface"] {
                fields.remove(flattened);
            }
            for name in fields {
                assert!(names(scope).contains(&name.as_str()), "{scope}: {name}");
            }
        };
        check(Scope::Service, fields(serde_json::to_value(&sample.service).unwrap()));
        check(Scope::Tool, fields(serde_json::to_value(&sample.tool).unwrap()));
        let mut host = fields(serde_json::to_value(&sample.host).unwrap());
        host.extend(fields(serde_json::to_value(&sample.host.network).unwrap()));
        check(Scope::Host, host);
    }
}
