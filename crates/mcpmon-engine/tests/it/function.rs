//! Configured calls and what a service depends on, beside its health.

use std::time::Duration;

use mcpmon_core::observation::{CallObservation, DependencyObservation};
use mcpmon_core::service::{FunctionalCheck, ServiceSpec};
use mcpmon_core::{FailureCode, Observation, Question, Status};
use mcpmon_testkit::{ScriptedFactory, Step, samples};

use crate::{monitor, seconds, spec};

fn with_calls(name: &str) -> ServiceSpec {
    let mut spec = spec(name);
    let check: FunctionalCheck = serde_json::from_str(r#"{"tool": "t"}"#).expect("it is one");
    spec.functional.push(check);
    spec
}

fn call(failure: Option<FailureCode>) -> Observation {
    let mut seen = match failure {
        Some(code) => samples::failed(code),
        None => samples::answered(),
    };
    let failure = seen.failure().cloned();
    seen.calls =
        vec![CallObservation { tool: "t".into(), duration: Duration::from_secs(9), failure }];
    seen
}

#[tokio::test(start_paused = true)]
async fn good_health_does_not_hide_calls_that_fail() {
    let factory = ScriptedFactory::new();
    factory
        .script("a")
        .usually_to(Question::Functional, call(Some(FailureCode::FunctionalMismatch)));
    let monitor = monitor(&factory).service(with_calls("a")).start().await.unwrap();
    monitor.first_round().await;
    assert_eq!(factory.script("a").asked()[..2], [Question::List, Question::Functional]);
    assert_eq!(monitor.service_status("a"), Some(Status::Running));
    seconds(40).await;
    let info = monitor.service_info("a").unwrap();
    assert_eq!(info.check.status, Status::Error);
    assert_eq!(info.check.failure.unwrap().code, FailureCode::FunctionalMismatch);
    assert!(info.metrics.unwrap().consecutive_failures >= 3);
    factory.script("a").usually_to(Question::Functional, call(None));
    seconds(40).await;
    assert_eq!(monitor.service_status("a"), Some(Status::Running));
    monitor.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_call_that_is_refused_is_a_note_and_no_status() {
    let factory = ScriptedFactory::new();
    factory
        .script("a")
        .usually_to(Question::Functional, call(Some(FailureCode::FunctionalRefused)));
    let monitor = monitor(&factory).service(with_calls("a")).start().await.unwrap();
    seconds(60).await;
    assert_eq!(monitor.service_status("a"), Some(Status::Running));
    monitor.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_service_that_cannot_be_reached_is_not_called() {
    let factory = ScriptedFactory::new();
    factory.script("a").usually(FailureCode::ConnectionRefused);
    let monitor = monitor(&factory).service(with_calls("a")).start().await.unwrap();
    monitor.first_round().await;
    seconds(60).await;
    assert!(!factory.script("a").asked().contains(&Question::Functional));
    monitor.stop().await;
}

#[tokio::test(start_paused = true)]
async fn rules_see_the_tools_that_were_called() {
    let factory = ScriptedFactory::new();
    factory.script("a").usually_to(Question::Functional, call(None));
    let ops = mcpmon_testkit::RecordingHandler::new("ops");
    let mut settings = crate::settings();
    settings.rules.push(
        serde_json::from_str(r#"{"name": "slow", "scope": "tool", "when": "slow_calls > 2"}"#)
            .unwrap(),
    );
    let monitor = monitor(&factory)
        .settings(settings)
        .handler(ops.clone())
        .service(with_calls("a"))
        .start()
        .await
        .unwrap();
    seconds(60).await;
    let told = ops.delivered();
    let slow = told.iter().find(|told| told.alerts[0].rule_name == "slow").expect("it fired");
    assert_eq!(slow.alerts[0].tool_name(), Some("t"));
    monitor.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_service_down_beside_what_it_needs_names_that() {
    let factory = ScriptedFactory::new();
    let mut front = spec("front");
    front.depends_on = vec!["middle".to_owned()];
    let mut middle = spec("middle");
    middle.depends_on = vec!["tcp://db:5432".to_owned()];
    let look = |problem: Option<&str>| Observation {
        dependencies: vec![DependencyObservation {
            dependency: "tcp://db:5432".to_owned(),
            problem: problem.map(str::to_owned),
        }],
        ..samples::answered()
    };
    factory.script("middle").usually_to(Question::Dependency, look(None));
    let monitor = monitor(&factory).services([front, middle]).start().await.unwrap();
    monitor.first_round().await;
    assert!(factory.script("middle").asked().contains(&Question::Dependency));
    factory.script("middle").usually_to(Question::Dependency, look(Some("refused")));
    factory.script("middle").usually(FailureCode::ServerError);
    factory.script("front").usually(FailureCode::UpstreamUnavailable);
    seconds(40).await;
    for (name, own) in [("middle", "server_error"), ("front", "upstream_unavailable")] {
        let failure = monitor.service_info(name).unwrap().check.failure.unwrap();
        assert_eq!(failure.code, FailureCode::DependencyDown, "{name}");
        assert_eq!(failure.evidence["dependency"], "tcp://db:5432", "{name}");
        assert_eq!(failure.evidence["code"], own, "{name}");
    }
    factory.script("middle").usually_to(Question::Dependency, look(None));
    factory.script("middle").usually(Step::answered());
    seconds(60).await;
    let failure = monitor.service_info("front").unwrap().check.failure.unwrap();
    assert_eq!(failure.code, FailureCode::UpstreamUnavailable);
    monitor.stop().await;
}

#[tokio::test(start_paused = true)]
async fn what_a_service_needs_is_asked_before_it_counts_as_down() {
    let factory = ScriptedFactory::new();
    let mut front = spec("front");
    front.depends_on = vec!["back".to_owned()];
    let mut back = spec("back");
    back.limits.check_interval = Duration::from_secs(600);
    let monitor = monitor(&factory).services([front, back]).start().await.unwrap();
    monitor.first_round().await;
    for name in ["front", "back"] {
        factory.script(name).usually(FailureCode::ConnectionRefused);
    }
    seconds(30).await;
    let failure = monitor.service_info("front").unwrap().check.failure.unwrap();
    assert_eq!(failure.code, FailureCode::DependencyDown);
    monitor.stop().await;
}
