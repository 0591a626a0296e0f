//! The loop through its public face, on virtual time, with scripted services and handlers.

use std::sync::Arc;
use std::time::Duration;

use mcpmon_core::alert::NotificationKind;
use mcpmon_core::monitor::{EventStream, MonitorCommand, MonitorEvent, MonitorHandle};
use mcpmon_core::service::{ServiceName, ServiceSpec};
use mcpmon_core::store::{AlertQuery, IncidentLog, RecordQuery, SampleStore, Store};
use mcpmon_core::{FailureCode, Question, Settings, Status};
use mcpmon_engine::{Change, MemoryStore, Monitor, MonitorBuilder, RunningMonitor, StartError};
use mcpmon_testkit::{
    FailingStore, Operations, Reaction, RecordingHandler, ScriptedFactory, Step, StoreFault,
    TokioClock, samples,
};

fn settings() -> Settings {
    let mut settings = Settings::default();
    settings.monitoring.check_interval = Duration::from_secs(10);
    settings
}

fn spec(name: &str) -> ServiceSpec {
    let mut spec = ServiceSpec::http(name, format!("http://{name}.test/mcp"));
    spec.limits = settings().limits();
    spec
}

fn monitor(factory: &ScriptedFactory) -> MonitorBuilder {
    Monitor::builder()
        .settings(settings())
        .probe_factory(factory.clone())
        .clock(Arc::new(TokioClock::default()))
}

async fn seconds(count: u64) {
    tokio::time::sleep(Duration::from_secs(count)).await;
}

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
    assert_eq!((told.rule_name.as_str(), told.service_name.as_deref_str()), ("service_down", "a"));
    assert_eq!(told.failure.as_ref().unwrap().code, FailureCode::ConnectionRefused);

    factory.script("a").usually(Step::answered());
    seconds(60).await;
    assert_eq!(monitor.service_status("a"), Some(Status::Running));
    assert_eq!((ops.count(NotificationKind::Resolved), ops.delivered().len()), (1, 2));
    monitor.stop().await;
}

trait NameText {
    fn as_deref_str(&self) -> &str;
}

impl NameText for Option<ServiceName> {
    fn as_deref_str(&self) -> &str {
        self.as_ref().map_or("", ServiceName::as_str)
    }
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
    let start = async || {
        let monitor = monitor(&factory).store(Arc::clone(&store)).service(spec("a"));
        monitor.handler(ops.clone()).start().await.unwrap()
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
async fn stop_closes_every_probe_even_one_that_is_being_asked() {
    let factory = ScriptedFactory::new();
    factory.script("busy").usually(Step::Hang);
    let services = (0..20).map(|n| spec(&format!("s{n}"))).chain([spec("busy")]);
    let monitor = monitor(&factory).services(services).start().await.unwrap();
    factory.script("busy").wait_for_asks(1).await;
    let before = tokio::time::Instant::now();
    monitor.stop().await;
    assert!(before.elapsed() < RunningMonitor::STOP_WITHIN);
    for n in 0..20 {
        assert_eq!(factory.script(&format!("s{n}")).closed(), 1);
    }
    assert_eq!(factory.script("busy").closed() + factory.script("busy").dropped(), 1);
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
    changed.limits.check_interval = Duration::from_secs(5);
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
    assert_eq!(ops.count(NotificationKind::Firing), 1);
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
    assert_eq!(ops.delivered().len(), 2, "{:?}", ops.delivered());
    let alerts = store.inner().alerts(&AlertQuery { limit: 9, ..AlertQuery::default() }).await;
    assert_eq!(alerts.unwrap().len(), 1);
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
