//! Values as they occur, for tests that care about one field of them: take one and write over
//! what matters, `CheckRecord { status: Status::Stopped, ..samples::check("files", at) }`.

use std::collections::BTreeMap;
use std::time::Duration;

use mcpmon_core::alert::{ALERT_SCHEMA, Alert, Notification, NotificationKind};
use mcpmon_core::failure::{Failure, FailureCode, Phase};
use mcpmon_core::metrics::{
    DiskMetrics, ErrorRateSource, NetworkMetrics, ProcessMetrics, ServiceMetrics, SystemMetrics,
};
use mcpmon_core::observation::{
    Conversation, ListedItem, Lists, Observation, Phases, Question, ServerIdentity,
};
use mcpmon_core::rule::MonitorFact;
use mcpmon_core::service::ServiceName;
use mcpmon_core::status::{Era, Level, Status};
use mcpmon_core::store::CheckRecord;
use mcpmon_core::subject::{Subject, SubjectKind};
use mcpmon_core::time::Timestamp;
use serde_json::json;

use crate::clock::START;

/// A good check of a modern HTTP service: 12 ms latency, 20 ms in all.
pub fn answered() -> Observation {
    Observation {
        latency: Some(Duration::from_millis(12)),
        total: Duration::from_millis(20),
        phases: Phases {
            dns_ms: Some(0.5),
            connect_ms: Some(1.5),
            handshake_ms: Some(6.0),
            ..Phases::default()
        },
        conversation: Conversation {
            protocol_version: Some("2026-07-28".to_owned()),
            era: Some(Era::Modern),
            server: Some(ServerIdentity { name: "sample".to_owned(), version: "1.2.3".to_owned() }),
        },
        tools_count: Some(2),
        active_connections: Some(0),
        ..Observation::answered()
    }
}

/// A good check that took this long to answer.
pub fn answered_in(latency: Duration) -> Observation {
    Observation { latency: Some(latency), total: latency + Duration::from_millis(8), ..answered() }
}

/// A good list check: `tools` as the server lists them.
pub fn listed(tools: &[&str]) -> Observation {
    Observation {
        lists: Some(lists(tools)),
        tools_count: Some(u32::try_from(tools.len()).unwrap_or(u32::MAX)),
        phases: Phases { list_ms: Some(4.0), ..answered().phases },
        ..answered()
    }
}

/// Lists with these tools; their `hash` tells equal lists from others, but is not the one of their
/// canonical form.
pub fn lists(tools: &[&str]) -> Lists {
    Lists {
        tools: tools
            .iter()
            .map(|name| ListedItem {
                name: (*name).to_owned(),
                definition: (&json!({"name": name, "inputSchema": {"type": "object"}})).into(),
                digest: None,
            })
            .collect(),
        hash: format!("sample:{}", tools.join(",")),
        ..Lists::default()
    }
}

/// A failed check of this code, in the phase it usually has.
pub fn failed(code: FailureCode) -> Observation {
    Observation { total: Duration::from_millis(5), ..Observation::failed(failure(code)) }
}

/// A failure of this code with some evidence, in a phase that suits it.
pub fn failure(code: FailureCode) -> Failure {
    use FailureCode as C;
    let phase = match code {
        C::CommandNotFound | C::CommandNotExecutable | C::SpawnFailed => Phase::Spawn,
        C::DnsFailed => Phase::Dns,
        C::ConnectionRefused | C::ConnectTimeout | C::NetworkUnreachable => Phase::Connect,
        C::TlsFailed | C::TlsCertificateExpired | C::TlsCertificateUntrusted => Phase::Tls,
        C::ConfigurationInvalid | C::MonitorOverloaded | C::MonitorOffline => Phase::Prepare,
        C::ResponseTimeout => Phase::Request,
        C::EndlessList => Phase::List,
        C::FunctionalError | C::FunctionalMismatch | C::FunctionalTimeout => Phase::Call,
        _ => Phase::Handshake,
    };
    Failure::new(code, phase, format!("{code}, as a sample")).with("sample", true)
}

/// The record of a good health check.
pub fn check(service: &str, at: Timestamp) -> CheckRecord {
    CheckRecord::new(service.into(), at, Question::Health, &answered())
}

/// The record of a failed health check.
pub fn failed_check(service: &str, at: Timestamp, code: FailureCode) -> CheckRecord {
    CheckRecord::new(service.into(), at, Question::Health, &failed(code))
}

/// A running service with 20 checks in its window, one of them failed, and no calls.
pub fn service_metrics(service: &str) -> ServiceMetrics {
    ServiceMetrics {
        status: Status::Running,
        uptime: 3_600.0,
        uptime_ratio: Some(0.95),
        last_check_time: Some(START),
        last_activity: Some(START),
        total_checks: 20,
        failed_checks: 1,
        total_requests: 20,
        failed_requests: 1,
        error_rate: 0.05,
        error_rate_source: ErrorRateSource::Checks,
        error_rate_samples: 20,
        avg_response_time: Some(0.02),
        p50_response_time: Some(0.018),
        p95_response_time: Some(0.06),
        p99_response_time: Some(0.08),
        active_connections: Some(1),
        tools_count: Some(2),
        tool_list_tokens: Some(180),
        ..ServiceMetrics::unknown(ServiceName::from(service))
    }
}

/// A process tree of two processes.
pub fn process_metrics() -> ProcessMetrics {
    ProcessMetrics {
        cpu_percent: 1.5,
        memory_bytes: 64 << 20,
        open_files: Some(24),
        processes: 2,
        ..ProcessMetrics::default()
    }
}

/// A machine with one half-full disk, one interface and half of its memory used.
pub fn system_metrics() -> SystemMetrics {
    let network = NetworkMetrics {
        bytes_sent: 1_000_000,
        bytes_recv: 9_000_000,
        packets_sent: 10_000,
        packets_recv: 20_000,
        bytes_sent_per_second: 1_000.0,
        bytes_recv_per_second: 2_000.0,
        packets_sent_per_second: 10.0,
        packets_recv_per_second: 20.0,
        interface: String::new(),
    };
    SystemMetrics {
        cpu_percent: 12.5,
        memory_total_bytes: 16 << 30,
        memory_available_bytes: 8 << 30,
        memory_used_bytes: 8 << 30,
        memory_percent: 50.0,
        disks: vec![DiskMetrics {
            path: "/".to_owned(),
            total_bytes: 100 << 30,
            used_bytes: 50 << 30,
            free_bytes: 50 << 30,
            percent: 50.0,
        }],
        disk_percent: Some(50.0),
        interfaces: vec![NetworkMetrics { interface: "eth0".to_owned(), ..network.clone() }],
        network,
        load_1m: 0.42,
        ..SystemMetrics::default()
    }
}

/// An open alert of `rule` about `service`, level error, fired at [`START`].
pub fn alert(rule: &str, service: &str) -> Alert {
    let down = failure(FailureCode::ConnectionRefused);
    let metrics = ServiceMetrics {
        status: Status::Stopped,
        uptime: 0.0,
        consecutive_failures: 3,
        last_error: Some(down.to_string()),
        ..service_metrics(service)
    };
    Alert {
        schema: ALERT_SCHEMA.to_owned(),
        id: format!("{rule}-{service}-1"),
        rule_name: rule.to_owned(),
        subject: Subject::Service(service.into()),
        level: Level::Error,
        message: format!("{service} is stopped: connection_refused"),
        timestamp: START,
        resolved_at: None,
        metrics: serde_json::to_value(metrics).unwrap_or_default(),
        failure: Some(down),
        labels: BTreeMap::from([("team".to_owned(), "platform".to_owned())]),
        acknowledgements: Vec::new(),
        ended_because: None,
    }
}

/// One subject of every kind. The service, the dependency and the handler have one name, so that
/// whatever takes them for one another is found.
pub fn subjects() -> [Subject; 6] {
    [
        Subject::Service("same".into()),
        Subject::tool_of("same", "same"),
        Subject::Host,
        Subject::Monitor,
        Subject::Dependency("same".to_owned()),
        Subject::Handler("same".to_owned()),
    ]
}

/// An open alert of `rule` about `subject`, level error, fired at [`START`]. Labels and failure are
/// a service's, so only services and tools have them.
pub fn alert_about(rule: &str, subject: Subject) -> Alert {
    let about = match subject.service() {
        Some(service) => alert(rule, service.as_str()),
        None => Alert { failure: None, labels: BTreeMap::new(), ..alert(rule, "") },
    };
    let metrics = match subject.kind() {
        SubjectKind::Service | SubjectKind::Tool => about.metrics.clone(),
        SubjectKind::Host => serde_json::to_value(system_metrics()).unwrap_or_default(),
        _ => serde_json::to_value(MonitorFact::new(subject.clone())).unwrap_or_default(),
    };
    let id = format!("{rule}-{}-{}-1", subject.kind(), subject.name().unwrap_or_default());
    Alert { id, message: format!("{subject} fails"), metrics, subject, ..about }
}

/// The same alert a minute later, ended.
pub fn resolved_alert(rule: &str, service: &str) -> Alert {
    Alert {
        resolved_at: Some(START.saturating_add(Duration::from_secs(60))),
        ..alert(rule, service)
    }
}

/// A message of this kind about one alert (a digest: about three), first attempt.
pub fn notification(key: &str, kind: NotificationKind) -> Notification {
    let alerts = match kind {
        NotificationKind::Resolved => vec![resolved_alert("service_down", "files")],
        NotificationKind::Digest => {
            ["files", "github", "time"].map(|name| alert("service_down", name)).to_vec()
        }
        _ => vec![alert("service_down", "files")],
    };
    Notification::new(key, kind, alerts)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_are_consistent_in_themselves() {
        assert_eq!(answered().raw_status(), Status::Running);
        assert_eq!(failed(FailureCode::ConnectionRefused).raw_status(), Status::Stopped);
        assert_eq!(check("a", START).latency, answered().latency);
        assert!(resolved_alert("r", "s").resolved_at > Some(START));
        assert_eq!(notification("k", NotificationKind::Digest).alerts.len(), 3);
        let kinds = subjects().map(|subject| alert_about("r", subject).subject.kind());
        assert_eq!(kinds, SubjectKind::ALL);
        for code in FailureCode::ALL {
            assert_eq!(failed(*code).failure().map(|failure| failure.code), Some(*code));
        }
    }
}
