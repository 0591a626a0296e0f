//! What a store remembers, as a snapshot: for commands that read beside a running monitor, or
//! after it has ended.

use std::collections::HashMap;

use mcpmon_core::contract::{HostReport, MonitorReport, ServiceReport, ServiceStatusReport};
use mcpmon_core::monitor::Snapshot;
use mcpmon_core::store::{AlertQuery, CheckRecord, RecordQuery, Store, StoredService};
use mcpmon_core::window::{DEFAULT_WINDOW, is_failed};
use mcpmon_core::{ServiceMetrics, ServiceName, ServiceState, StoreError, Timestamp, Window};

use crate::silenced;

/// Alerts read for a snapshot; the page shows fewer, `status/v1` all of them.
const ALERTS: usize = 50;

/// Everything a store knows at `now` of the services that are watched.
///
/// # Errors
///
/// When the store cannot be read.
pub(crate) async fn snapshot(
    store: &dyn Store,
    monitor: MonitorReport,
    now: Timestamp,
) -> Result<Snapshot, StoreError> {
    let stored = store.services().await?;
    let mut checks = recent_checks(store, now).await?;
    let mut services: Vec<ServiceStatusReport> = stored
        .iter()
        .filter(|service| service.facts.watched)
        .map(|service| {
            let own = checks.remove(&service.facts.service).unwrap_or_default();
            ServiceStatusReport {
                check: ServiceReport::of_stored(service),
                since: service.since,
                metrics: Some(metrics(service, &own, now)),
            }
        })
        .collect();
    services.sort_by_cached_key(|service| service.check.order());
    let host = store
        .last_host()
        .await?
        .map(|record| HostReport { at: record.at, metrics: record.metrics });
    let query = AlertQuery { limit: ALERTS, ..AlertQuery::default() };
    let mut alerts = store.alerts(&query).await?;
    silenced::mark(&mut alerts, &store.silences(now).await?, now);
    Ok(Snapshot { at: now, monitor, services, host, alerts })
}

async fn recent_checks(
    store: &dyn Store,
    now: Timestamp,
) -> Result<HashMap<ServiceName, Vec<CheckRecord>>, StoreError> {
    let mut checks: HashMap<ServiceName, Vec<CheckRecord>> = HashMap::new();
    let mut query = RecordQuery::all().since(now.saturating_sub(DEFAULT_WINDOW));
    loop {
        let page = store.checks(&query).await?;
        for check in page.items {
            checks.entry(check.service.clone()).or_default().push(check);
        }
        match page.next {
            Some(cursor) => query.after = Some(cursor),
            None => return Ok(checks),
        }
    }
}

/// A service's numbers, counted from its stored checks as the monitor counts them from memory.
fn metrics(stored: &StoredService, checks: &[CheckRecord], now: Timestamp) -> ServiceMetrics {
    let facts = &stored.facts;
    let mut window = Window::default();
    let mut state = ServiceState::new(stored.since);
    state.status = stored.status;
    state.available_since = facts.available_since;
    state.restarts = facts.restarts;
    state.last_error = stored.failure.as_ref().map(ToString::to_string);
    for check in checks {
        window.record(check.at, check.status, check.latency);
        if is_failed(check.status) {
            state.consecutive_failures = state.consecutive_failures.saturating_add(1);
        } else if check.status.is_available() {
            state.consecutive_failures = 0;
        }
    }
    if let (None, Some(last)) = (window.last_check(), &stored.last_check) {
        window.record(last.at, last.status, last.latency);
        state.consecutive_failures = u32::from(is_failed(last.status));
    }
    let process = stored.last_check.as_ref().and_then(|check| check.process);
    window.note(facts.tools_count, None, process);
    window.note_tool_list(facts.tool_list_tokens);
    window.metrics(&facts.service, &state, DEFAULT_WINDOW, now)
}

#[cfg(test)]
mod tests {
    use super::*;
    use mcpmon_core::state::StatusChange;
    use mcpmon_core::store::{Batch, HostRecord, SampleStore as _, ServiceFacts};
    use mcpmon_core::{FailureCode, Status};
    use mcpmon_engine::MemoryStore;
    use mcpmon_testkit::{START, samples};
    use std::time::Duration;

    fn at(seconds: u64) -> Timestamp {
        START.saturating_add(Duration::from_secs(seconds))
    }

    fn facts(service: &str, watched: bool) -> ServiceFacts {
        ServiceFacts {
            service: service.into(),
            transport: "http".to_owned(),
            conversation: samples::answered().conversation,
            tools_count: Some(13),
            restarts: 0,
            available_since: None,
            watched,
            check_interval_ms: None,
            tool_list_tokens: None,
        }
    }

    fn change(service: &str, status: Status) -> StatusChange {
        let (failure, findings) = (None, Vec::new());
        let from = Status::Unknown;
        StatusChange {
            service: service.into(),
            at: at(0),
            from,
            status,
            since: at(0),
            failure,
            findings,
        }
    }

    #[tokio::test]
    async fn a_snapshot_counts_stored_checks_as_the_monitor_does() {
        let store = MemoryStore::new();
        let batch = Batch {
            checks: vec![
                samples::check("good", at(1)),
                samples::failed_check("bad", at(1), FailureCode::ServerError),
                samples::check("bad", at(2)),
                samples::failed_check("bad", at(3), FailureCode::ServerError),
            ],
            changes: vec![
                change("good", Status::Running),
                change("bad", Status::Error),
                change("gone", Status::Running),
            ],
            facts: vec![facts("good", true), facts("bad", true), facts("gone", false)],
            lists: Vec::new(),
            host: vec![HostRecord { at: at(2), metrics: samples::system_metrics() }],
        };
        store.append(&batch).await.unwrap();
        let seen = snapshot(&store, MonitorReport::default(), at(10)).await.unwrap();
        let names: Vec<_> = seen.services.iter().map(|s| s.check.service.as_str()).collect();
        assert_eq!(names, ["bad", "good"], "failing first, and nothing that is no longer watched");
        let bad = seen.services[0].metrics.as_ref().unwrap();
        assert_eq!((bad.total_checks, bad.failed_checks, bad.consecutive_failures), (3, 2, 1));
        assert_eq!(bad.last_check_time, Some(at(3)));
        assert_eq!(seen.services[1].metrics.as_ref().unwrap().error_rate, 0.0);
        assert_eq!(seen.host.unwrap().at, at(2));
    }

    #[tokio::test]
    async fn a_service_whose_last_check_is_long_ago_keeps_its_time() {
        let store = MemoryStore::new();
        let batch = Batch {
            checks: vec![samples::check("good", at(1))],
            changes: vec![change("good", Status::Running)],
            facts: vec![facts("good", true)],
            ..Batch::default()
        };
        store.append(&batch).await.unwrap();
        let seen = snapshot(&store, MonitorReport::default(), at(3_600)).await.unwrap();
        let metrics = seen.services[0].metrics.as_ref().unwrap();
        assert_eq!((metrics.total_checks, metrics.last_check_time), (0, Some(at(1))));
    }
}
