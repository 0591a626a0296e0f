//! Storms, maintenance, silences and acknowledgements, through the whole loop.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use mcpmon_core::alert::{AlertPhase, Silence};
use mcpmon_core::monitor::{CommandError, MonitorCommand, MonitorHandle as _};
use mcpmon_core::settings::MaintenanceWindow;
use mcpmon_core::store::{AlertQuery, Store};
use mcpmon_core::{FailureCode, NotificationKind, Question, Status};
use mcpmon_engine::MemoryStore;
use mcpmon_testkit::{RecordingHandler, START, ScriptedFactory, Step, samples};

use crate::{monitor, seconds, settings, spec};

fn told(ops: &RecordingHandler) -> Vec<(NotificationKind, usize)> {
    ops.delivered().iter().map(|message| (message.kind, message.alerts.len())).collect()
}

#[tokio::test(start_paused = true)]
async fn a_storm_is_one_digest_of_what_began_and_one_of_what_ended() {
    let factory = ScriptedFactory::new();
    let ops = RecordingHandler::new("ops");
    let names: Vec<String> = (0..200).map(|n| format!("s{n:03}")).collect();
    for name in &names {
        factory.script(name).usually(FailureCode::ConnectionRefused);
    }
    let services = names.iter().map(|name| spec(name));
    let monitor = monitor(&factory).handler(ops.clone()).services(services).start().await.unwrap();
    seconds(600).await;
    let begun: usize = told(&ops).iter().map(|(_, alerts)| alerts).sum();
    assert!(begun >= 200, "every service is told of");
    // Two digests, and reminders of each as one.
    assert!(told(&ops).len() <= 6, "{:?}", told(&ops));
    for name in &names {
        factory.script(name).usually(Step::answered());
    }
    seconds(900).await;
    let mut over: Vec<String> = ops
        .delivered()
        .iter()
        .flat_map(|message| &message.alerts)
        .filter(|alert| alert.resolved_at.is_some())
        .map(|alert| alert.service_name().unwrap().to_string())
        .collect();
    over.sort();
    assert_eq!(over, names, "whoever was told of it is told of its end, once");
    monitor.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_service_under_maintenance_is_paused_and_nothing_is_said_of_it() {
    let factory = ScriptedFactory::new();
    let ops = RecordingHandler::new("ops");
    let mut settings = settings();
    // The clock of these tests starts at 14:09:31.
    settings.maintenance.push(MaintenanceWindow {
        services: vec!["a".to_owned()],
        labels: BTreeMap::new(),
        days: Vec::new(),
        start: Some("14:10".to_owned()),
        at: None,
        duration: Duration::from_secs(60),
        timezone: Some("UTC".to_owned()),
    });
    let monitor = monitor(&factory)
        .settings(settings)
        .handler(ops.clone())
        .services([spec("a"), spec("b")])
        .start()
        .await
        .unwrap();
    seconds(15).await;
    assert_eq!(monitor.service_status("a"), Some(Status::Running));
    seconds(20).await;
    assert_eq!(monitor.service_status("a"), Some(Status::Paused));
    assert_eq!(monitor.service_status("b"), Some(Status::Running));
    factory.script("a").usually(FailureCode::ConnectionRefused);
    let asked = factory.script("a").asked().len();
    seconds(40).await;
    assert_eq!(factory.script("a").asked().len(), asked, "nobody asks");
    assert!(ops.delivered().is_empty());
    seconds(60).await;
    assert_eq!(monitor.service_status("a"), Some(Status::Stopped));
    assert_eq!(told(&ops), [(NotificationKind::Firing, 1)]);
    monitor.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_check_that_is_under_way_when_maintenance_begins_is_not_counted() {
    let factory = ScriptedFactory::new();
    let mut settings = settings();
    settings.maintenance.push(MaintenanceWindow {
        services: vec!["a".to_owned()],
        labels: BTreeMap::new(),
        days: Vec::new(),
        start: Some("14:10".to_owned()),
        at: None,
        duration: Duration::from_secs(60),
        timezone: Some("UTC".to_owned()),
    });
    let monitor = monitor(&factory).settings(settings).service(spec("a")).start().await.unwrap();
    let script = factory.script("a");
    seconds(27).await;
    script.then([Step::SeeWhenReleased(Box::new(samples::failed(FailureCode::ServerError)))]);
    let service = Some("a".into());
    let ask = MonitorCommand::CheckNow { service, question: Question::Health };
    monitor.command(ask).await.unwrap();
    while monitor.service_status("a") != Some(Status::Paused) {
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert_eq!(script.running(), 1, "the check is under way");
    let checks = monitor.service_metrics("a").unwrap().total_checks;
    script.release();
    seconds(30).await;
    assert_eq!(monitor.service_status("a"), Some(Status::Paused));
    assert_eq!(monitor.service_metrics("a").unwrap().total_checks, checks);
    monitor.stop().await;
}

fn silence(service: &str, seconds: u64) -> Silence {
    Silence {
        id: "s-1".to_owned(),
        matchers: BTreeMap::from([("service_name".to_owned(), service.to_owned())]),
        starts_at: START,
        ends_at: START.saturating_add(Duration::from_secs(seconds)),
        by: "me".to_owned(),
        comment: "known".to_owned(),
    }
}

#[tokio::test(start_paused = true)]
async fn a_silence_holds_over_a_restart_and_what_still_fires_is_told_when_it_ends() {
    let factory = ScriptedFactory::new();
    factory.script("a").usually(FailureCode::ConnectionRefused);
    let ops = RecordingHandler::new("ops");
    let store: Arc<dyn Store> = Arc::new(MemoryStore::new());
    let start = async || {
        let monitor = monitor(&factory).store(Arc::clone(&store)).service(spec("a"));
        monitor.handler(ops.clone()).start().await.unwrap()
    };
    let first = start().await;
    first.command(MonitorCommand::Silence(silence("a", 300))).await.unwrap();
    seconds(60).await;
    assert!(ops.delivered().is_empty());
    first.stop().await;
    let second = start().await;
    seconds(120).await;
    assert!(ops.delivered().is_empty());
    seconds(300).await;
    assert_eq!(told(&ops), [(NotificationKind::Firing, 1)]);
    second.stop().await;
}

#[tokio::test(start_paused = true)]
async fn what_somebody_takes_on_is_told_and_shown_and_not_reminded_of() {
    let factory = ScriptedFactory::new();
    factory.script("a").usually(FailureCode::ConnectionRefused);
    let ops = RecordingHandler::new("ops");
    let mut settings = settings();
    settings.monitoring.alert_cooldown = Duration::from_secs(30);
    let store: Arc<dyn Store> = Arc::new(MemoryStore::new());
    let monitor = monitor(&factory)
        .store(Arc::clone(&store))
        .settings(settings)
        .service(spec("a"))
        .handler(ops.clone())
        .start()
        .await
        .unwrap();
    ops.wait_for_attempts(1).await;
    seconds(1).await;
    let id = ops.delivered()[0].alerts[0].id.clone();
    let acknowledge = |alert: &str| MonitorCommand::Acknowledge {
        alert: alert.to_owned(),
        by: "me".to_owned(),
        comment: String::new(),
    };
    let refused = monitor.command(acknowledge("nonsense")).await;
    assert!(matches!(refused, Err(CommandError::NoSuchAlert(_))));
    monitor.command(acknowledge(&id)).await.unwrap();
    seconds(300).await;
    let kinds: Vec<NotificationKind> = told(&ops).into_iter().map(|(kind, _)| kind).collect();
    assert_eq!(kinds, [NotificationKind::Firing, NotificationKind::Acknowledged]);
    let query = AlertQuery { active: true, limit: 9, ..AlertQuery::default() };
    let shown = monitor.snapshot().alerts.iter().map(|record| record.state).collect::<Vec<_>>();
    assert_eq!(shown, [AlertPhase::Acknowledged]);
    assert_eq!(store.alerts(&query).await.unwrap().len(), 1);
    monitor.stop().await;
}
