//! What a store remembers, as a snapshot: for commands that read beside a running monitor, or
//! after it has ended.

use std::collections::HashMap;

use mcpmon_core::contract::{HostReport, MonitorReport, ServiceReport, ServiceStatusReport};
use mcpmon_core::monitor::Snapshot;
use mcpmon_core::state::ChangeOrigin;
use mcpmon_core::store::history::LATEST_DISCOUNT;
use mcpmon_core::store::{AlertQuery, CheckRecord, RecordQuery, Store, StoredService};
use mcpmon_core::window::DEFAULT_WINDOW;
use mcpmon_core::{ServiceFold, ServiceMetrics, ServiceName, StoreError, Timestamp};

use crate::silenced;

/// Alerts read for a snapshot; the page shows fewer, `status/v1` all of them.
const ALERTS: usize = 50;
/// Checks read of a service that was not checked within the window: the last of the service itself
/// is among them, since rounds of configured calls come no more often than its checks.
const LAST_CHECKS: usize = 4;

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
    let recent = Recent::read(store, now).await?;
    let mut services = Vec::new();
    for service in stored.iter().filter(|service| service.facts.watched) {
        services.push(ServiceStatusReport {
            check: ServiceReport::of_stored(service),
            since: service.since,
            metrics: Some(metrics(store, service, &recent, now).await?),
        });
    }
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

/// What was stored in the window of a snapshot.
#[derive(Default)]
struct Recent {
    checks: HashMap<ServiceName, Vec<CheckRecord>>,
    /// What made changes of status.
    origins: HashMap<ServiceName, Vec<ChangeOrigin>>,
}

impl Recent {
    async fn read(store: &dyn Store, now: Timestamp) -> Result<Self, StoreError> {
        let mut recent = Self::default();
        let begin = now.saturating_sub(DEFAULT_WINDOW);
        let mut query = RecordQuery::all().since(begin).up_to(now);
        loop {
            let page = store.checks(&query).await?;
            for check in page.items {
                recent.checks.entry(check.service.clone()).or_default().push(check);
            }
            match page.next {
                Some(cursor) => query.after = Some(cursor),
                None => break,
            }
        }
        // A change may be stored before the checks that it attributes to the monitor.
        let begin = begin.saturating_sub(LATEST_DISCOUNT);
        let mut query = RecordQuery::all().since(begin).up_to(now);
        loop {
            let page = store.changes(&query).await?;
            for change in page.items {
                recent.origins.entry(change.service).or_default().push(change.origin);
            }
            match page.next {
                Some(cursor) => query.after = Some(cursor),
                None => return Ok(recent),
            }
        }
    }
}

/// A service's numbers: counters as the store keeps them, and the window refilled with its stored
/// checks, as a monitor does that starts on them.
async fn metrics(
    store: &dyn Store,
    stored: &StoredService,
    recent: &Recent,
    now: Timestamp,
) -> Result<ServiceMetrics, StoreError> {
    let service = &stored.facts.service;
    let mut fold = ServiceFold::new(DEFAULT_WINDOW, stored.since);
    fold.restore(stored);
    if let Some(checks) = recent.checks.get(service) {
        checks.iter().for_each(|check| fold.refill_window(check));
    }
    if fold.window.last_check().is_none() && stored.last_check.is_some() {
        // Not checked lately: the time of the last check is still a number of the service. Checks
        // from before the clock was set back may be stored under later moments than now.
        let last = store.last_checks(service, LAST_CHECKS).await?;
        let is_past = |check: &&CheckRecord| check.at <= now;
        last.iter().filter(is_past).for_each(|check| fold.refill_window(check));
        if fold.window.last_check().is_none() {
            let last = stored.last_check.iter().filter(is_past);
            last.for_each(|check| fold.refill_window(check));
        }
    }
    for origin in recent.origins.get(service).into_iter().flatten() {
        fold.discount(origin);
    }
    Ok(fold.metrics(service, DEFAULT_WINDOW, now))
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
            transport: "http".to_owned(),
            conversation: samples::answered().conversation,
            tools_count: Some(13),
            watched,
            ..ServiceFacts::unknown(service.into())
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
            origin: ChangeOrigin::Check,
        }
    }

    #[tokio::test]
    async fn a_snapshot_counts_stored_checks_as_the_monitor_does() {
        let store = MemoryStore::new();
        let batch = Batch {
            list_changes: Vec::new(),
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
            facts: vec![
                facts("good", true),
                ServiceFacts { consecutive_failures: 1, ..facts("bad", true) },
                facts("gone", false),
            ],
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
    async fn failed_checks_are_discounted_by_a_change_from_before_the_window() {
        let store = MemoryStore::new();
        let offline = ChangeOrigin::Offline { failed_since: at(100), noticed_at: at(220) };
        let refused = |second| {
            let code = FailureCode::ConnectionRefused;
            samples::failed_check("far", at(second), code)
        };
        let batch = Batch {
            // The window of the snapshot begins at 200 s.
            checks: vec![refused(100), refused(160), refused(210), refused(300)],
            changes: vec![StatusChange {
                at: at(100),
                origin: offline,
                ..change("far", Status::Unknown)
            }],
            facts: vec![facts("far", true)],
            ..Batch::default()
        };
        store.append(&batch).await.unwrap();
        let seen = snapshot(&store, MonitorReport::default(), at(500)).await.unwrap();
        let far = seen.services[0].metrics.as_ref().unwrap();
        assert_eq!((far.total_checks, far.failed_checks), (1, 1));
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

    #[tokio::test]
    async fn after_the_clock_was_set_back_checks_of_later_moments_count_for_nothing() {
        let store = MemoryStore::new();
        let refused =
            |service, second| samples::failed_check(service, at(second), FailureCode::ServerError);
        let mut checks: Vec<_> = (3_601..3_607).map(|second| refused("good", second)).collect();
        checks.extend((3_601..3_607).map(|second| refused("idle", second)));
        // The clock is set back by an hour.
        checks.push(samples::check("idle", at(1)));
        checks.extend([samples::check("good", at(9)), samples::check("good", at(10))]);
        let offline = ChangeOrigin::Offline { failed_since: at(5), noticed_at: at(3_608) };
        let changes = vec![
            change("idle", Status::Running),
            change("good", Status::Running),
            StatusChange { at: at(3_608), origin: offline, ..change("good", Status::Unknown) },
        ];
        let facts = vec![facts("good", true), facts("idle", true)];
        store.append(&Batch { checks, changes, facts, ..Batch::default() }).await.unwrap();
        for (now, idle_checks) in [(10, 1), (400, 0)] {
            let seen = snapshot(&store, MonitorReport::default(), at(now)).await.unwrap();
            let of = |name: &str| {
                let mut services = seen.services.iter();
                let service = services.find(|one| one.check.service.as_str() == name).unwrap();
                let metrics = service.metrics.as_ref().unwrap();
                (metrics.total_checks, metrics.failed_checks, metrics.last_check_time)
            };
            let good_checks = if now == 10 { 2 } else { 0 };
            assert_eq!(of("good"), (good_checks, 0, Some(at(10))), "at {now} s");
            assert_eq!(of("idle"), (idle_checks, 0, Some(at(1))), "at {now} s");
        }
    }
}
