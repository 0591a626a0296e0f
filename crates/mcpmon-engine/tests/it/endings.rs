//! Alerts whose service, need or reader goes away: they end, and whoever is to know of it does.

use std::sync::Arc;
use std::time::Duration;

use mcpmon_core::alert::NotificationKind;
use mcpmon_core::observation::DependencyObservation;
use mcpmon_core::settings::MaintenanceWindow;
use mcpmon_core::store::{Store, Transition};
use mcpmon_core::{FailureCode, Handler, Observation, Question, ServiceSpec, Status, Subject};
use mcpmon_engine::{Change, MemoryStore};
use mcpmon_testkit::{Reaction, RecordingHandler, ScriptedFactory, Step};

use crate::{monitor, seconds, settings, spec, told};

const BOTH: [NotificationKind; 2] = [NotificationKind::Firing, NotificationKind::Resolved];

fn change(services: Vec<ServiceSpec>, handlers: &[&RecordingHandler]) -> Change {
    let handlers = handlers.iter().map(|one| Arc::new((*one).clone()) as Arc<dyn Handler>);
    Change { settings: settings(), services, handlers: handlers.collect() }
}

#[tokio::test(start_paused = true)]
async fn whoever_was_told_of_an_alert_is_told_that_its_service_is_gone() {
    let factory = ScriptedFactory::new();
    factory.script("a").usually(FailureCode::ConnectionRefused);
    let ops = RecordingHandler::new("ops");
    let monitor = monitor(&factory).service(spec("a")).handler(ops.clone()).start().await.unwrap();
    seconds(30).await;
    assert_eq!(told(&ops, "service_down"), [NotificationKind::Firing]);
    monitor.remove_service("a").await.unwrap();
    seconds(10).await;
    assert_eq!(told(&ops, "service_down"), BOTH);
    let ended = ops.delivered()[1].alerts[0].ended_because.clone();
    assert_eq!(ended.as_deref(), Some("no longer monitored"));
    seconds(600).await;
    assert_eq!(ops.delivered().len(), 2, "once");
    monitor.stop().await;
}

#[tokio::test(start_paused = true)]
async fn an_alert_of_what_nobody_needs_after_a_restart_ends() {
    let factory = ScriptedFactory::new();
    let store: Arc<dyn Store> = Arc::new(MemoryStore::new());
    let ops = RecordingHandler::new("ops");
    let gone = DependencyObservation {
        dependency: "tcp://db:5432".to_owned(),
        problem: Some("connection refused".to_owned()),
    };
    let seen = Observation { dependencies: vec![gone], ..Observation::answered() };
    factory.script("a").usually_to(Question::Dependency, seen);
    let start = async |needs: &[&str]| {
        let mut needy = spec("a");
        needy.depends_on = needs.iter().map(|need| (*need).to_owned()).collect();
        let monitor = monitor(&factory).store(Arc::clone(&store)).service(needy);
        monitor.handler(ops.clone()).start().await.unwrap()
    };
    let first = start(&["tcp://db:5432"]).await;
    seconds(30).await;
    assert_eq!(told(&ops, "dependency_down"), [NotificationKind::Firing]);
    let alert = &ops.delivered()[0].alerts[0];
    assert_eq!(alert.subject, Subject::Dependency("tcp://db:5432".to_owned()));
    assert_eq!(alert.service_name(), None, "a dependency is no service");
    first.stop().await;
    // Who still needs it says nothing new; who needs it no longer ends it.
    let second = start(&["tcp://db:5432"]).await;
    seconds(60).await;
    assert_eq!(ops.delivered().len(), 1);
    second.stop().await;
    let third = start(&[]).await;
    seconds(30).await;
    assert_eq!(told(&ops, "dependency_down"), BOTH);
    third.stop().await;
}

#[tokio::test(start_paused = true)]
async fn without_those_that_could_not_be_reached_the_network_is_there() {
    let factory = ScriptedFactory::new();
    let ops = RecordingHandler::new("ops");
    let names = ["a", "b", "c"];
    let here = || ServiceSpec::http("here", "http://127.0.0.1:1/mcp");
    let services: Vec<ServiceSpec> = names.map(spec).into_iter().chain([here()]).collect();
    let monitor = monitor(&factory).handler(ops.clone()).services(services).start().await.unwrap();
    seconds(15).await;
    for name in names {
        factory.script(name).usually(FailureCode::DnsFailed);
    }
    seconds(60).await;
    assert_eq!(told(&ops, "monitor_offline"), [NotificationKind::Firing]);
    monitor.apply(change(vec![here()], &[&ops])).await.unwrap();
    seconds(10).await;
    assert_eq!(told(&ops, "monitor_offline"), BOTH);
    assert!(!monitor.report().offline);
    monitor.stop().await;
}

#[tokio::test(start_paused = true)]
async fn what_depends_on_a_service_under_maintenance_is_quiet_until_it_is_known_again() {
    let factory = ScriptedFactory::new();
    let ops = RecordingHandler::new("ops");
    let mut settings = settings();
    // The clock of these tests starts at 14:09:31.
    settings.maintenance.push(MaintenanceWindow {
        services: vec!["db".to_owned()],
        labels: std::collections::BTreeMap::new(),
        days: Vec::new(),
        start: Some("14:10".to_owned()),
        at: None,
        duration: Duration::from_secs(300),
        timezone: Some("UTC".to_owned()),
    });
    let mut needy = spec("a");
    needy.depends_on = vec!["db".to_owned()];
    let monitor = monitor(&factory)
        .settings(settings)
        .handler(ops.clone())
        .services([spec("db"), needy, spec("other")])
        .start()
        .await
        .unwrap();
    seconds(40).await;
    for name in ["db", "a"] {
        factory.script(name).usually(FailureCode::ConnectionRefused);
    }
    seconds(250).await;
    assert_eq!(monitor.service_status("a"), Some(Status::Error));
    let failure = monitor.service_info("a").unwrap().check.failure.unwrap();
    assert_eq!(failure.code, FailureCode::DependencyDown);
    assert!(ops.delivered().is_empty(), "planned work is no outage");
    // The work was not done in time: that is told, of what was worked on alone.
    seconds(120).await;
    let services: Vec<String> = ops
        .delivered()
        .iter()
        .filter_map(|message| message.alerts[0].service_name())
        .map(ToString::to_string)
        .collect();
    assert_eq!(services, ["db"]);
    monitor.stop().await;
}

#[tokio::test(start_paused = true)]
async fn what_waits_for_a_handler_that_is_gone_is_a_dead_letter_in_time() {
    let factory = ScriptedFactory::new();
    factory.script("a").usually(FailureCode::ConnectionRefused);
    let store: Arc<dyn Store> = Arc::new(MemoryStore::new());
    let (ops, old) = (RecordingHandler::new("ops"), RecordingHandler::new("old"));
    old.usually(Reaction::Later);
    let monitor = monitor(&factory)
        .store(Arc::clone(&store))
        .service(spec("a"))
        .handler(ops.clone())
        .handler(old.clone())
        .start()
        .await
        .unwrap();
    old.wait_for_attempts(1).await;
    monitor.apply(change(vec![spec("a")], &[&ops])).await.unwrap();
    seconds(240).await;
    assert!(store.dead_letters(9).await.unwrap().is_empty(), "it may come back");
    monitor.apply(change(vec![spec("a")], &[&ops, &old])).await.unwrap();
    seconds(400).await;
    assert!(store.dead_letters(9).await.unwrap().is_empty(), "it came back");
    monitor.apply(change(vec![spec("a")], &[&ops])).await.unwrap();
    let attempts = old.attempts().len();
    seconds(310).await;
    let dead = store.dead_letters(9).await.unwrap();
    assert!(!dead.is_empty() && dead.iter().all(|letter| letter.handler == "old"));
    let why = dead[0].last_error.as_deref();
    assert_eq!(why, Some("there is no handler of this name any more"));
    assert_eq!(old.attempts().len(), attempts);
    monitor.stop().await;
}

#[tokio::test(start_paused = true)]
async fn what_waits_from_an_earlier_run_is_given_up_too() {
    let factory = ScriptedFactory::new();
    let store: Arc<dyn Store> = Arc::new(MemoryStore::new());
    let message = mcpmon_testkit::samples::notification("k", NotificationKind::Firing);
    let waiting =
        mcpmon_core::store::NewDelivery { handler: "old".to_owned(), notification: message };
    let transition = Transition {
        deliveries: vec![waiting],
        at: mcpmon_testkit::START,
        ..Transition::default()
    };
    store.commit(&transition).await.unwrap();
    let monitor =
        monitor(&factory).store(Arc::clone(&store)).service(spec("a")).start().await.unwrap();
    seconds(310).await;
    assert_eq!(store.dead_letters(9).await.unwrap().len(), 1);
    monitor.stop().await;
}

#[tokio::test(start_paused = true)]
async fn the_first_verdicts_are_in_when_what_failed_was_asked_often_enough() {
    let factory = ScriptedFactory::new();
    factory.script("down").usually(FailureCode::ConnectionRefused);
    factory.script("once").then([Step::failed(FailureCode::ResponseTimeout)]);
    let store: Arc<dyn Store> = Arc::new(MemoryStore::new());
    let monitor = monitor(&factory)
        .store(Arc::clone(&store))
        .services(["well", "down", "once"].map(spec))
        .handler(RecordingHandler::new("ops"))
        .start()
        .await
        .unwrap();
    monitor.first_round().await;
    let open = async || {
        let query = mcpmon_core::store::AlertQuery { limit: 9, ..Default::default() };
        store.alerts(&query).await.unwrap().len()
    };
    assert_eq!(open().await, 0);
    let before = tokio::time::Instant::now();
    monitor.first_verdicts().await;
    assert_eq!(open().await, 1, "what is down was judged");
    assert!(before.elapsed() < Duration::from_secs(15), "{:?}", before.elapsed());
    monitor.stop().await;
}

#[tokio::test(start_paused = true)]
async fn no_alert_begins_of_a_service_that_is_disabled() {
    let factory = ScriptedFactory::new();
    factory.script("a").usually(FailureCode::ConnectionRefused);
    let ops = RecordingHandler::new("ops");
    let mut settings = settings();
    let often = serde_json::json!([{ "name": "often", "when": "error_rate > 0.3" }]);
    settings.rules = serde_json::from_value(often).unwrap();
    let monitor = monitor(&factory).settings(settings.clone()).service(spec("a"));
    let monitor = monitor.handler(ops.clone()).start().await.unwrap();
    seconds(30).await;
    assert_eq!(told(&ops, "often"), [NotificationKind::Firing]);
    let mut disabled = spec("a");
    disabled.enabled = false;
    let reload = async |service: ServiceSpec| {
        let settings = settings.clone();
        let change = Change { settings, ..change(vec![service], &[&ops]) };
        monitor.apply(change).await.unwrap();
    };
    reload(disabled).await;
    seconds(120).await;
    assert_eq!(told(&ops, "often"), BOTH, "it fires no more, however its last checks were");
    reload(spec("a")).await;
    seconds(30).await;
    assert_eq!(told(&ops, "often").len(), 3, "and does once it is checked again");
    monitor.stop().await;
}
