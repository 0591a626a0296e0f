//! Codes and findings that come of several checks, by scripted sequences.

use mcpmon_core::monitor::MonitorHandle;
use mcpmon_core::service::ServiceSpec;
use mcpmon_core::store::SampleStore;
use mcpmon_core::{FailureCode, Finding, FindingCode, Observation, Secret, Status};
use mcpmon_engine::RunningMonitor;
use mcpmon_testkit::{ScriptedFactory, Step, samples};

use crate::{monitor, seconds, settings, spec};

fn code(monitor: &RunningMonitor) -> Option<FailureCode> {
    monitor.service_info("a")?.check.failure.map(|failure| failure.code)
}

fn findings(monitor: &RunningMonitor) -> Vec<FindingCode> {
    monitor
        .service_info("a")
        .expect("it is watched")
        .check
        .findings
        .iter()
        .map(|found| found.code)
        .collect()
}

fn stdio() -> ServiceSpec {
    let mut service = ServiceSpec::stdio("a", "server", Vec::<String>::new());
    service.limits = settings().limits();
    service
}

#[tokio::test(start_paused = true)]
async fn credentials_that_worked_and_are_refused_have_expired() {
    let factory = ScriptedFactory::new();
    let mut service = spec("a");
    service.secrets.push(Secret::new("s3cret"));
    let monitor = monitor(&factory).service(service).start().await.unwrap();
    seconds(15).await;
    factory.script("a").usually(FailureCode::Unauthorized);
    seconds(30).await;
    assert_eq!(monitor.service_status("a"), Some(Status::AuthRequired));
    let failure = monitor.service_info("a").unwrap().check.failure.unwrap();
    assert_eq!(failure.code, FailureCode::TokenExpired);
    assert_eq!(failure.evidence["code"], "unauthorized");
    monitor.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_session_that_is_lost_at_every_check_is_a_failure() {
    let factory = ScriptedFactory::new();
    let mut reopened = samples::answered();
    reopened.findings.push(Finding::new(FindingCode::SessionNotKept, "opened again"));
    factory.script("a").usually(reopened);
    let monitor = monitor(&factory).service(spec("a")).start().await.unwrap();
    seconds(15).await;
    assert_eq!(findings(&monitor), [FindingCode::SessionNotKept]);
    assert_eq!(monitor.service_status("a"), Some(Status::Running));
    seconds(40).await;
    assert_eq!(code(&monitor), Some(FailureCode::SessionLost));
    factory.script("a").usually(Step::answered());
    seconds(30).await;
    assert_eq!(monitor.service_status("a"), Some(Status::Running));
    monitor.stop().await;
}

#[tokio::test(start_paused = true)]
async fn lists_that_change_are_told_for_a_day_and_stored() {
    let factory = ScriptedFactory::new();
    factory.script("a").then([samples::listed(&["x"])]);
    let store = std::sync::Arc::new(mcpmon_engine::MemoryStore::new());
    let monitor = monitor(&factory).store(store.clone()).service(spec("a")).start().await.unwrap();
    seconds(15).await;
    assert_eq!(findings(&monitor), []);
    factory.script("a").then([samples::listed(&["x", "y"])]);
    factory.script("a").wake();
    seconds(15).await;
    assert_eq!(findings(&monitor), [FindingCode::ToolsChanged]);
    assert_eq!(monitor.service_status("a"), Some(Status::Running));
    assert_eq!(store.lists(&"a".into()).await.unwrap().unwrap().lists.tools.len(), 2);
    seconds(25 * 3_600).await;
    assert_eq!(findings(&monitor), []);
    monitor.stop().await;
}

#[tokio::test(start_paused = true)]
async fn lists_that_go_back_and_forth_degrade() {
    let factory = ScriptedFactory::new();
    factory.script("a").then([samples::listed(&["x"])]);
    let monitor = monitor(&factory).service(spec("a")).start().await.unwrap();
    for tools in [&["x", "y"][..], &["x"], &["x", "y"]] {
        seconds(15).await;
        factory.script("a").then([samples::listed(tools)]);
        factory.script("a").wake();
    }
    seconds(30).await;
    assert_eq!(findings(&monitor), [FindingCode::ToolsUnstable]);
    assert_eq!(monitor.service_status("a"), Some(Status::Degraded));
    monitor.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_server_that_answers_once_and_dies_goes_down_and_is_started_less_and_less() {
    let factory = ScriptedFactory::new();
    let started = || Observation { restarted: true, ..samples::answered() };
    for _ in 0..400 {
        factory.script("a").then([Step::from(started()), Step::failed(FailureCode::Exited)]);
    }
    let monitor = monitor(&factory).service(stdio()).start().await.unwrap();
    seconds(300).await;
    assert_eq!(monitor.service_status("a"), Some(Status::Stopped));
    assert_eq!(code(&monitor), Some(FailureCode::Exited));
    let before = factory.script("a").asked().len();
    seconds(3_600).await;
    let asked = factory.script("a").asked().len() - before;
    assert!(asked < 20, "{asked}");
    monitor.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_crash_now_and_then_leaves_a_server_running() {
    let factory = ScriptedFactory::new();
    let started = || Observation { restarted: true, ..samples::answered() };
    for _ in 0..5 {
        factory.script("a").then([Step::from(started())]);
        factory.script("a").then((0..60).map(|_| Step::answered()));
        factory.script("a").then([FailureCode::Exited]);
    }
    let monitor = monitor(&factory).service(stdio()).start().await.unwrap();
    for _ in 0..30 {
        seconds(100).await;
        assert!(monitor.service_status("a").is_some_and(Status::is_available));
    }
    monitor.stop().await;
}

#[tokio::test(start_paused = true)]
async fn what_asked_to_be_left_alone_and_was_says_so() {
    let factory = ScriptedFactory::new();
    let mut limited = samples::failed(FailureCode::RateLimited);
    limited.retry_after = Some(std::time::Duration::from_secs(60));
    factory.script("a").then([limited]);
    let monitor = monitor(&factory).service(spec("a")).start().await.unwrap();
    seconds(50).await;
    assert_eq!(factory.script("a").asked().len(), 1);
    assert_eq!(monitor.service_status("a"), Some(Status::Degraded));
    seconds(12).await;
    assert_eq!(findings(&monitor), [FindingCode::RetryAfterObeyed]);
    assert_eq!(monitor.snapshot().monitor.missed_checks_total, 0);
    monitor.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_service_is_starting_until_its_first_answer() {
    let factory = ScriptedFactory::new();
    let slow = std::time::Duration::from_secs(20);
    factory.script("a").then([Step::SeeAfter(slow, Box::new(samples::answered()))]);
    let monitor = monitor(&factory).service(stdio()).start().await.unwrap();
    seconds(15).await;
    assert_eq!(monitor.service_status("a"), Some(Status::Starting));
    seconds(8).await;
    assert_eq!(monitor.service_status("a"), Some(Status::Running));
    monitor.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_passive_service_is_paused_and_never_asked() {
    let factory = ScriptedFactory::new();
    let mut service = spec("a");
    service.mode = mcpmon_core::service::WatchMode::Passive;
    let monitor = monitor(&factory).service(service).start().await.unwrap();
    seconds(60).await;
    assert_eq!(monitor.service_status("a"), Some(Status::Paused));
    assert_eq!((factory.script("a").asked().len(), factory.script("a").probes()), (0, 0));
    monitor.stop().await;
}
