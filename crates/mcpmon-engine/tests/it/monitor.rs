//! The loop as a whole: what is watched, judged and kept.

use std::borrow::Cow;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use mcpmon_core::alert::{AlertKey, NotificationKind};
use mcpmon_core::monitor::{EventStream, MonitorCommand, MonitorEvent, MonitorHandle};
use mcpmon_core::rule::{RuleContext, RuleError, RuleInput, RulePolicy, Verdict};
use mcpmon_core::store::{AlertQuery, IncidentLog, RecordQuery, SampleStore, Store};
use mcpmon_core::{
    Clock, FailureCode, Handler, HostProbe, Level, Question, Rule, Status, Subject, SystemMetrics,
    Timestamp,
};
use mcpmon_engine::{Change, MemoryStore, Monitor, StartError};
use mcpmon_testkit::{
    FailingStore, Operations, Reaction, RecordingHandler, ScriptedFactory, Step, StoreFault,
    TokioClock, samples,
};

use crate::{monitor, seconds, settings, spec, told};

async fn wait_for(
    events: &mut Box<dyn EventStream>,
    mut wanted: impl FnMut(&MonitorEvent) -> bool,
) {
    while let Some(event) = events.next().await {
        if wanted(&event) {
            return;
        }
    }
    panic!("the monitor stopped before the event came");
}

fn is(event: &MonitorEvent, service: &str, status: Status) -> bool {
    matches!(event, MonitorEvent::StatusChanged(change)
        if change.service.as_str() == service && change.status == status)
}

#[tokio::test(start_paused = true)]
async fn one_outage_is_one_alert_and_one_recovery() {
    let factory = ScriptedFactory::new();
    let ops = RecordingHandler::new("ops");
    let monitor = monitor(&factory).service(spec("a")).handler(ops.clone()).start().await.unwrap();
    monitor.first_round().await;
    assert_eq!(monitor.service_status("a"), Some(Status::Running));

    factory.script("a").usually(FailureCode::ConnectionRefused);
    seconds(60).await;
    assert_eq!(monitor.service_status("a"), Some(Status::Stopped));
    assert_eq!((ops.count(NotificationKind::Firing), ops.delivered().len()), (1, 1));
    let told = &ops.delivered()[0].alerts[0];
    assert_eq!(told.key(), AlertKey::new("service_down", Subject::Service("a".into())));
    assert_eq!(told.failure.as_ref().unwrap().code, FailureCode::ConnectionRefused);

    factory.script("a").usually(Step::answered());
    seconds(60).await;
    assert_eq!(monitor.service_status("a"), Some(Status::Running));
    assert_eq!((ops.count(NotificationKind::Resolved), ops.delivered().len()), (1, 2));
    monitor.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_lost_answer_that_comes_again_alarms_nobody() {
    let factory = ScriptedFactory::new();
    let ops = RecordingHandler::new("ops");
    let monitor = monitor(&factory).service(spec("a")).handler(ops.clone()).start().await.unwrap();
    monitor.first_round().await;
    for _ in 0..20 {
        factory.script("a").then([FailureCode::ResponseTimeout]);
        seconds(30).await;
    }
    assert_eq!(
        ops.delivered().iter().filter(|n| n.alerts[0].rule_name == "service_down").count(),
        0
    );
    monitor.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_restart_repeats_nothing_and_tells_the_recovery() {
    let factory = ScriptedFactory::new();
    factory.script("a").usually(FailureCode::ConnectionRefused);
    let store: Arc<dyn Store> = Arc::new(MemoryStore::new());
    let ops = RecordingHandler::new("ops");
    let clock = TokioClock::default();
    let start = async || {
        let monitor = monitor(&factory).clock(Arc::new(clock.clone())).service(spec("a"));
        monitor.store(Arc::clone(&store)).handler(ops.clone()).start().await.unwrap()
    };
    let first = start().await;
    seconds(40).await;
    assert_eq!(ops.delivered().len(), 1);
    first.stop().await;

    let second = start().await;
    assert_eq!(second.service_status("a"), Some(Status::Stopped));
    seconds(40).await;
    assert_eq!(ops.delivered().len(), 1);
    factory.script("a").usually(Step::answered());
    seconds(40).await;
    assert_eq!(ops.count(NotificationKind::Resolved), 1);
    second.stop().await;
}

#[tokio::test(start_paused = true)]
async fn every_check_is_stored_before_the_first_round_is_called_over() {
    let factory = ScriptedFactory::new();
    factory.script("b").usually(FailureCode::ConnectionRefused);
    let store = Arc::new(MemoryStore::new());
    let monitor = monitor(&factory)
        .store(Arc::clone(&store) as Arc<dyn Store>)
        .services([spec("a"), spec("b")])
        .start()
        .await
        .unwrap();
    monitor.first_round().await;
    let stored = store.services().await.unwrap();
    let statuses: Vec<_> = stored.iter().map(|s| (s.facts.service.as_str(), s.status)).collect();
    assert_eq!(statuses, [("a", Status::Running), ("b", Status::Stopped)]);
    assert!(stored.iter().all(|service| service.last_check.is_some()));
    monitor.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_slow_service_delays_nobody() {
    let factory = ScriptedFactory::new();
    for n in 0..50 {
        factory.script(&format!("slow{n}")).usually(Step::Hang);
    }
    let services = (0..50).map(|n| spec(&format!("slow{n}"))).chain([spec("good")]);
    let monitor = monitor(&factory).services(services).start().await.unwrap();
    seconds(100).await;
    let asked = factory.script("good").asked().len();
    assert!((9..=11).contains(&asked), "{asked}");
    assert_eq!(monitor.snapshot().monitor.late_checks_total, 0);
    monitor.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_probe_that_panics_or_overruns_is_our_fault_and_is_replaced() {
    let factory = ScriptedFactory::new();
    factory.script("a").then([Step::Panic, Step::Overrun]);
    let monitor = monitor(&factory).services([spec("a"), spec("b")]).start().await.unwrap();
    monitor.first_round().await;
    let info = monitor.service_info("a").unwrap().check;
    assert_eq!(info.status, Status::Unknown);
    assert_eq!(info.failure.unwrap().code, FailureCode::MonitorOverloaded);
    seconds(60).await;
    assert_eq!(monitor.service_status("a"), Some(Status::Running));
    assert_eq!(monitor.service_status("b"), Some(Status::Running));
    assert_eq!(factory.script("a").probes(), 3);
    monitor.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_wake_makes_a_check_due_now() {
    let factory = ScriptedFactory::new();
    let monitor = monitor(&factory).service(spec("a")).start().await.unwrap();
    monitor.first_round().await;
    factory.script("a").then([FailureCode::Exited]);
    factory.script("a").wake();
    factory.script("a").wait_for_asks(2).await;
    assert_eq!(factory.script("a").asked()[1], Question::List);
    monitor.stop().await;
}

#[tokio::test(start_paused = true)]
async fn unusable_and_disabled_services_rest_and_stop_nothing() {
    let factory = ScriptedFactory::new();
    let mut invalid = spec("invalid");
    invalid.invalid = Some(samples::failure(FailureCode::ConfigurationInvalid));
    let mut disabled = spec("disabled");
    disabled.enabled = false;
    let monitor =
        monitor(&factory).services([invalid, disabled, spec("good")]).start().await.unwrap();
    monitor.first_round().await;
    assert_eq!(monitor.service_status("invalid"), Some(Status::Unknown));
    assert_eq!(monitor.service_status("disabled"), Some(Status::Paused));
    assert_eq!(monitor.service_status("good"), Some(Status::Running));
    assert!(factory.script("invalid").asked().is_empty());
    assert!(factory.script("disabled").asked().is_empty());
    monitor.stop().await;
}

#[tokio::test(start_paused = true)]
async fn services_come_and_go_at_run_time() {
    let factory = ScriptedFactory::new();
    let monitor = monitor(&factory).service(spec("a")).start().await.unwrap();
    let mut events = monitor.subscribe();
    monitor.add_service(spec("b")).await.unwrap();
    assert!(monitor.add_service(spec("b")).await.is_err());
    wait_for(&mut events, |event| is(event, "b", Status::Running)).await;
    monitor.remove_service("a").await.unwrap();
    assert!(monitor.remove_service("a").await.is_err());
    factory.script("a").wait_for_closed(1).await;
    assert_eq!(monitor.services().len(), 1);
    monitor.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_reload_keeps_the_sessions_of_what_did_not_change() {
    let factory = ScriptedFactory::new();
    let monitor = monitor(&factory).services([spec("same"), spec("old")]).start().await.unwrap();
    monitor.first_round().await;
    let mut changed = spec("old");
    changed.terminate_session = false;
    let change = Change {
        settings: settings(),
        services: vec![spec("same"), changed, spec("new")],
        handlers: Vec::new(),
    };
    monitor.apply(change).await.unwrap();
    seconds(30).await;
    assert_eq!(factory.script("same").probes(), 1);
    assert_eq!((factory.script("old").probes(), factory.script("old").closed()), (2, 1));
    assert_eq!(monitor.service_status("new"), Some(Status::Running));
    monitor.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_new_interval_is_kept_without_opening_sessions_anew() {
    let factory = ScriptedFactory::new();
    let slow = |name| {
        let mut spec = spec(name);
        spec.limits.check_interval = Duration::from_secs(3_600);
        spec
    };
    let monitor = monitor(&factory).services([slow("a"), slow("b")]).start().await.unwrap();
    monitor.first_round().await;
    let change =
        Change { settings: settings(), services: vec![spec("a"), spec("b")], handlers: Vec::new() };
    monitor.apply(change).await.unwrap();
    seconds(55).await;
    for name in ["a", "b"] {
        assert_eq!(factory.script(name).probes(), 1);
        let asked = factory.script(name).asked().len();
        assert!((6..=7).contains(&asked), "{name} was asked {asked} times");
    }
    monitor.stop().await;
}

#[tokio::test(start_paused = true)]
async fn only_a_later_start_is_a_restart() {
    let factory = ScriptedFactory::new();
    let started = || {
        let mut observation = samples::answered();
        observation.restarted = true;
        observation
    };
    factory.script("a").then([started(), samples::answered(), started()]);
    let store = Arc::new(MemoryStore::new());
    let run = async || {
        let monitor = monitor(&factory).store(Arc::clone(&store) as Arc<dyn Store>);
        monitor.service(spec("a")).start().await.unwrap()
    };
    let first = run().await;
    seconds(45).await;
    assert_eq!(first.service_metrics("a").unwrap().restarts, 1);
    first.stop().await;
    factory.script("a").then([started()]);
    let second = run().await;
    second.first_round().await;
    assert_eq!(second.service_metrics("a").unwrap().restarts, 1, "our own start is none of its");
    let checks = store.checks(&RecordQuery::of("a".into())).await.unwrap().items;
    assert_eq!(checks.iter().filter(|check| check.restarted).count(), 1);
    second.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_handler_that_fails_is_tried_again_and_holds_nobody_up() {
    let factory = ScriptedFactory::new();
    factory.script("a").usually(FailureCode::ConnectionRefused);
    let busy = RecordingHandler::new("busy").first([Reaction::Later, Reaction::Panic]);
    let stuck = RecordingHandler::new("stuck");
    stuck.usually(Reaction::Hang);
    let good = RecordingHandler::new("good");
    let monitor = monitor(&factory)
        .service(spec("a"))
        .handler(busy.clone())
        .handler(stuck.clone())
        .handler(good.clone())
        .start()
        .await
        .unwrap();
    seconds(20).await;
    assert_eq!(good.delivered().len(), 1);
    assert_eq!(busy.delivered().len(), 1);
    let attempts: Vec<u32> = busy.attempts().iter().map(|n| n.attempt).collect();
    assert_eq!(attempts, [1, 2, 3]);
    assert!(stuck.delivered().is_empty());
    let failures = monitor.snapshot().monitor.delivery_failures_total.clone();
    assert_eq!(failures.get("busy"), Some(&2), "{failures:?}");
    monitor.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_full_disk_stops_neither_probing_nor_alerts_and_is_made_up_for() {
    let factory = ScriptedFactory::new();
    let store = Arc::new(FailingStore::new(Arc::new(MemoryStore::new())));
    let ops = RecordingHandler::new("ops");
    let monitor = monitor(&factory)
        .store(Arc::clone(&store) as Arc<dyn Store>)
        .service(spec("a"))
        .handler(ops.clone())
        .start()
        .await
        .unwrap();
    monitor.first_round().await;
    store.fail(Operations::Writes, StoreFault::Full);
    factory.script("a").usually(FailureCode::ConnectionRefused);
    seconds(60).await;
    assert_eq!(told(&ops, "service_down"), [NotificationKind::Firing]);
    assert_eq!(told(&ops, "storage_failing"), [NotificationKind::Firing]);
    let report = monitor.snapshot().monitor.clone();
    assert!(report.store_error.unwrap().contains("no space"));
    assert!(report.waiting_samples > 0);

    store.recover();
    seconds(5).await;
    assert_eq!(monitor.snapshot().monitor.store_error, None);
    let failed = store.inner().checks(&RecordQuery::of("a".into())).await.unwrap();
    assert!(failed.items.iter().filter(|check| check.code.is_some()).count() >= 5);
    factory.script("a").usually(Step::answered());
    seconds(60).await;
    let both = [NotificationKind::Firing, NotificationKind::Resolved];
    for rule in ["service_down", "storage_failing"] {
        assert_eq!(told(&ops, rule), both, "{rule}");
    }
    let alerts = store.inner().alerts(&AlertQuery { limit: 9, ..AlertQuery::default() }).await;
    assert_eq!(alerts.unwrap().len(), 2);
    monitor.stop().await;
}

#[tokio::test(start_paused = true)]
async fn another_process_can_ask_for_a_check() {
    let factory = ScriptedFactory::new();
    let store: Arc<dyn Store> = Arc::new(MemoryStore::new());
    let monitor =
        monitor(&factory).store(Arc::clone(&store)).service(spec("a")).start().await.unwrap();
    monitor.first_round().await;
    let command =
        MonitorCommand::CheckNow { service: Some("a".into()), question: Question::Health };
    store.submit(&command).await.unwrap();
    seconds(2).await;
    assert_eq!(factory.script("a").asked().len(), 2);
    monitor.stop().await;
}

#[tokio::test(start_paused = true)]
async fn alerts_can_be_switched_off() {
    let factory = ScriptedFactory::new();
    factory.script("a").usually(FailureCode::ConnectionRefused);
    let ops = RecordingHandler::new("ops");
    let mut settings = settings();
    settings.monitoring.alerts_enabled = false;
    let monitor = monitor(&factory).settings(settings).service(spec("a"));
    let monitor = monitor.handler(ops.clone()).start().await.unwrap();
    seconds(60).await;
    assert!(ops.attempts().is_empty());
    monitor.stop().await;
}

#[tokio::test]
async fn what_cannot_be_started_says_why() {
    let started = Monitor::builder().start().await;
    assert!(matches!(started, Err(StartError::NoProbeFactory)));
    let twice = Monitor::builder()
        .probe_factory(ScriptedFactory::new())
        .services([spec("a"), spec("a")])
        .start()
        .await;
    assert!(matches!(twice, Err(StartError::DuplicateService(name)) if name.as_str() == "a"));
}

#[tokio::test(start_paused = true)]
async fn alerts_of_what_is_no_longer_watched_are_over() {
    let factory = ScriptedFactory::new();
    for name in ["removed", "disabled", "unloaded"] {
        factory.script(name).usually(FailureCode::ConnectionRefused);
    }
    let services = ["removed", "disabled", "unloaded"].map(spec);
    let monitor = monitor(&factory).services(services).start().await.unwrap();
    seconds(40).await;
    let open =
        || monitor.snapshot().alerts.iter().filter(|a| a.alert.resolved_at.is_none()).count();
    assert_eq!(open(), 3);
    monitor.remove_service("removed").await.unwrap();
    assert_eq!(open(), 2);
    let mut disabled = spec("disabled");
    disabled.enabled = false;
    let change = Change { settings: settings(), services: vec![disabled], handlers: Vec::new() };
    monitor.apply(change).await.unwrap();
    assert_eq!(open(), 0);
    monitor.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_service_disabled_while_nobody_looked_leaves_no_alert_open() {
    let factory = ScriptedFactory::new();
    factory.script("a").usually(FailureCode::ConnectionRefused);
    let store: Arc<dyn Store> = Arc::new(MemoryStore::new());
    let first = monitor(&factory).store(Arc::clone(&store)).service(spec("a"));
    let first = first.start().await.unwrap();
    seconds(40).await;
    first.stop().await;
    let query = AlertQuery { active: true, limit: 9, ..AlertQuery::default() };
    assert_eq!(store.alerts(&query).await.unwrap().len(), 1);
    let mut disabled = spec("a");
    disabled.enabled = false;
    let second = monitor(&factory).store(Arc::clone(&store)).service(disabled);
    let second = second.start().await.unwrap();
    second.first_round().await;
    assert!(store.alerts(&query).await.unwrap().is_empty());
    assert!(second.snapshot().alerts.iter().all(|a| a.alert.resolved_at.is_some()));
    second.stop().await;
}

/// A clock, and a rule, with a defect that shows on cue.
#[derive(Debug, Clone, Default)]
struct Defect(Arc<AtomicBool>, TokioClock);

impl Clock for Defect {
    fn now(&self) -> Timestamp {
        assert!(!self.0.load(Ordering::SeqCst), "a defect, on cue");
        self.1.now()
    }
}

impl Rule for Defect {
    fn name(&self) -> &str {
        "defect"
    }

    fn level(&self, _: &RuleContext<'_>) -> Level {
        Level::Info
    }

    fn evaluate(&self, _: &RuleContext<'_>) -> Result<Verdict, RuleError> {
        panic!("a defect, on cue")
    }

    fn message(&self, _: &RuleContext<'_>) -> Result<Cow<'_, str>, RuleError> {
        Ok("never said".into())
    }
}

#[tokio::test(start_paused = true)]
async fn events_end_when_the_loop_does_however_it_does() {
    let factory = ScriptedFactory::new();
    let defect = Defect::default();
    let monitor = monitor(&factory).clock(Arc::new(defect.clone())).service(spec("a"));
    let monitor = monitor.start().await.unwrap();
    monitor.first_round().await;
    let mut events = monitor.subscribe();
    defect.0.store(true, Ordering::SeqCst);
    let drained = async { while events.next().await.is_some() {} };
    tokio::time::timeout(Duration::from_secs(60), drained).await.unwrap();
    assert!(!monitor.is_running());
    assert!(monitor.subscribe().next().await.is_none());
}

#[tokio::test(start_paused = true)]
async fn a_rule_that_panics_is_reported_and_stops_nothing() {
    let factory = ScriptedFactory::new();
    factory.script("a").usually(FailureCode::ConnectionRefused);
    let ops = RecordingHandler::new("ops");
    let monitor = monitor(&factory).rule(Defect::default()).service(spec("a"));
    let monitor = monitor.handler(ops.clone()).start().await.unwrap();
    monitor.add_rule(Defect::default()).await.unwrap();
    seconds(60).await;
    assert!(monitor.is_running());
    assert_eq!(ops.count(NotificationKind::Firing), 1);
    assert!(monitor.snapshot().monitor.rule_failures_total > 0);
    monitor.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_reload_with_a_name_twice_changes_nothing() {
    let factory = ScriptedFactory::new();
    let monitor = monitor(&factory).service(spec("a")).start().await.unwrap();
    let twice = vec![spec("b"), spec("b")];
    let change = Change { settings: settings(), services: twice, handlers: Vec::new() };
    let refused = monitor.apply(change).await;
    assert!(matches!(refused, Err(StartError::DuplicateService(name)) if name.as_str() == "b"));
    assert_eq!(monitor.service_status("b"), None);
    let ops = || Arc::new(RecordingHandler::new("ops")) as Arc<dyn Handler>;
    let handlers = vec![ops(), ops()];
    let change = Change { settings: settings(), services: Vec::new(), handlers };
    assert!(matches!(monitor.apply(change).await, Err(StartError::DuplicateHandler(_))));
    assert_eq!(monitor.service_status("a"), Some(Status::Running));
    monitor.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_machine_that_is_not_measured_any_more_is_not_shown() {
    let factory = ScriptedFactory::new();
    let monitor = monitor(&factory).host_probe(Host).service(spec("a")).start().await.unwrap();
    seconds(20).await;
    assert!(monitor.system_metrics().is_some());
    let mut settings = settings();
    settings.performance_monitoring.enabled = false;
    let change = Change { settings, services: vec![spec("a")], handlers: Vec::new() };
    monitor.apply(change).await.unwrap();
    assert_eq!(monitor.system_metrics(), None);
    monitor.stop().await;
}

struct Host;

#[async_trait]
impl HostProbe for Host {
    async fn sample(&mut self) -> SystemMetrics {
        samples::system_metrics()
    }
}

/// Notes the most checks its window ever held.
#[derive(Debug, Clone, Default)]
struct LongWindow(Arc<AtomicU64>);

impl Rule for LongWindow {
    fn name(&self) -> &str {
        "long_window"
    }

    fn level(&self, _: &RuleContext<'_>) -> Level {
        Level::Info
    }

    fn policy(&self) -> RulePolicy {
        RulePolicy { window: Duration::from_secs(900), ..RulePolicy::default() }
    }

    fn evaluate(&self, context: &RuleContext<'_>) -> Result<Verdict, RuleError> {
        if let RuleInput::Service(metrics) = context.input {
            self.0.fetch_max(metrics.total_checks, Ordering::SeqCst);
        }
        Ok(Verdict::Ok)
    }

    fn message(&self, _: &RuleContext<'_>) -> Result<Cow<'_, str>, RuleError> {
        Ok("never said".into())
    }
}

#[tokio::test(start_paused = true)]
async fn a_rule_added_later_looks_through_its_whole_window() {
    let factory = ScriptedFactory::new();
    let monitor = monitor(&factory).service(spec("a")).start().await.unwrap();
    monitor.first_round().await;
    let rule = LongWindow::default();
    monitor.add_rule(rule.clone()).await.unwrap();
    seconds(900).await;
    let most = rule.0.load(Ordering::SeqCst);
    assert!((80..=95).contains(&most), "{most}");
    monitor.stop().await;
}

#[tokio::test(start_paused = true)]
async fn the_first_round_ends_even_where_the_store_does_not_answer() {
    let factory = ScriptedFactory::new();
    let store = Arc::new(FailingStore::new(Arc::new(MemoryStore::new())));
    let monitor = monitor(&factory)
        .store(Arc::clone(&store) as Arc<dyn Store>)
        .services([spec("a"), spec("b")])
        .start()
        .await
        .unwrap();
    store.fail(Operations::All, StoreFault::Stall);
    tokio::time::timeout(Duration::from_secs(60), monitor.first_round()).await.unwrap();
    assert!(monitor.snapshot().monitor.store_error.is_some());
    monitor.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_store_that_does_not_answer_is_no_reason_to_hold_everything() {
    let factory = ScriptedFactory::new();
    let store = Arc::new(FailingStore::new(Arc::new(MemoryStore::new())));
    let mut settings = settings();
    settings.data_collection.metrics_buffer_size = 5;
    let monitor = monitor(&factory)
        .settings(settings)
        .store(Arc::clone(&store) as Arc<dyn Store>)
        .service(spec("a"))
        .start()
        .await
        .unwrap();
    monitor.first_round().await;
    store.fail(Operations::SampleWrites, StoreFault::Stall);
    seconds(300).await;
    let report = monitor.snapshot().monitor.clone();
    assert_eq!(report.waiting_samples, 5);
    assert!(report.dropped_samples_total > 15);
    monitor.stop().await;
}
