//! The manager through its public face, on made-up time.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use mcpmon_core::alert::{Alert, AlertPhase, AlertState, NotificationKind};
use mcpmon_core::metrics::{ServiceMetrics, SystemMetrics, ToolMetrics};
use mcpmon_core::monitor::MonitorEvent;
use mcpmon_core::rule::Rule;
use mcpmon_core::service::{ServiceLimits, ServiceName};
use mcpmon_core::settings::{AlertConfig, RuleSettings, Settings};
use mcpmon_core::status::{Level, Status};
use mcpmon_core::store::Transition;
use mcpmon_core::time::Timestamp;
use mcpmon_testkit::{Reaction, RecordingHandler, START, samples};

use super::*;
use crate::{AlertRule, ConditionRule, Routing, RuleSet};

fn at(second: u64) -> Timestamp {
    START.saturating_add(Duration::from_secs(second))
}

fn failing() -> AlertRule {
    AlertRule::new("failing", Level::Warning, |m| m.error_rate > 0.5)
        .message("{{ service_name }} fails {{ error_rate | percent(0) }}")
        .unwrap()
}

fn written(json: serde_json::Value) -> ConditionRule {
    let settings: RuleSettings = serde_json::from_value(json).unwrap();
    ConditionRule::new(&settings).unwrap()
}

fn numbers(service: &str, error_rate: f64) -> ServiceMetrics {
    ServiceMetrics { error_rate, ..samples::service_metrics(service) }
}

fn manager(handlers: &[&str]) -> AlertManager {
    let mut manager = AlertManager::new();
    manager.add_rule(failing());
    manager.set_routing(Routing::to_all(handlers.iter().copied()));
    manager
}

/// Evaluates `files` at a second with this error rate.
fn evaluate(manager: &mut AlertManager, second: u64, rate: f64) -> Evaluated {
    let service = ServiceName::from("files");
    let metrics = numbers("files", rate);
    manager.evaluate_service(&service, ServiceView::default(), |_| &metrics, at(second))
}

fn told(evaluated: &Evaluated) -> Vec<(&str, NotificationKind)> {
    let deliveries = evaluated.transition.iter().flat_map(|t| &t.deliveries);
    deliveries.map(|delivery| (delivery.handler.as_str(), delivery.notification.kind)).collect()
}

fn only_state(transition: &Transition) -> &AlertState {
    let [state] = transition.states.as_slice() else {
        panic!("one state, not {:?}", transition.states);
    };
    state
}

#[test]
fn a_firing_and_its_end_are_one_transition_each() {
    let mut manager = manager(&["ops", "screen"]);
    assert!(evaluate(&mut manager, 0, 0.1).transition.is_none());

    let opened = evaluate(&mut manager, 10, 0.75);
    assert_eq!(
        told(&opened),
        [("ops", NotificationKind::Firing), ("screen", NotificationKind::Firing)]
    );
    let transition = opened.transition.as_ref().unwrap();
    let [alert] = transition.alerts.as_slice() else {
        panic!("one alert");
    };
    assert_eq!(alert.message, "files fails 75%");
    assert_eq!((alert.level, alert.timestamp), (Level::Warning, at(10)));
    assert_eq!(alert.metrics["error_rate"], 0.75);
    let state = only_state(transition);
    assert_eq!((state.phase, state.told), (AlertPhase::Firing, true));
    assert_eq!(state.told_to, ["ops", "screen"]);
    assert!(matches!(opened.events.as_slice(), [MonitorEvent::AlertFired(_)]));
    assert_eq!(manager.open().count(), 1);
    assert_eq!(opened.next_due, Some(at(310)));

    assert!(evaluate(&mut manager, 20, 0.75).transition.is_none());

    let ended = evaluate(&mut manager, 30, 0.0);
    let transition = ended.transition.as_ref().unwrap();
    let resolved = &transition.alerts[0];
    assert_eq!((&resolved.id, resolved.resolved_at), (&alert.id, Some(at(30))));
    assert_eq!(resolved.message, alert.message);
    let keys: Vec<&str> =
        transition.deliveries.iter().map(|delivery| delivery.notification.key.as_str()).collect();
    let key = format!("{}/resolved", alert.id);
    assert_eq!(keys, [key.as_str(); 2]);
    assert_eq!(manager.open().count(), 0);
    let history: Vec<Option<Timestamp>> = manager.history().map(|a| a.resolved_at).collect();
    assert_eq!(history, [Some(at(30))]);
}

#[test]
fn a_restart_neither_repeats_nor_forgets() {
    let mut before = manager(&["ops"]);
    let opened = evaluate(&mut before, 0, 1.0);
    let stored = only_state(&opened.transition.unwrap()).clone();

    let mut after = manager(&["ops"]);
    let restored = after.restore([stored], at(5));
    assert_eq!((restored.states.len(), restored.alerts.len()), (0, 0));
    assert!(evaluate(&mut after, 10, 1.0).transition.is_none());
    assert_eq!(told(&evaluate(&mut after, 300, 1.0)), [("ops", NotificationKind::Reminder)]);
    assert_eq!(told(&evaluate(&mut after, 310, 0.0)), [("ops", NotificationKind::Resolved)]);
}

#[test]
fn a_restart_does_not_forget_how_long_a_condition_holds() {
    let with_hold = || {
        let mut manager = AlertManager::new();
        manager.add_rule(failing().hold(Duration::from_secs(60)));
        manager.set_routing(Routing::to_all(["ops"]));
        manager
    };
    let mut before = with_hold();
    let pending = evaluate(&mut before, 0, 1.0);
    assert_eq!(pending.next_due, Some(at(60)));
    let transition = pending.transition.unwrap();
    assert!(transition.alerts.is_empty() && transition.deliveries.is_empty());
    let mut after = with_hold();
    after.restore(transition.states, at(30));
    assert_eq!(told(&evaluate(&mut after, 60, 1.0)), [("ops", NotificationKind::Firing)]);
}

#[test]
fn the_end_goes_to_whoever_was_told_whatever_the_routes_say_by_then() {
    let mut manager = manager(&["ops", "gone"]);
    evaluate(&mut manager, 0, 1.0);
    manager.set_routing(Routing::to_all(["new", "ops"]));
    assert_eq!(told(&evaluate(&mut manager, 10, 0.0)), [("ops", NotificationKind::Resolved)]);
}

#[test]
fn an_alert_nobody_is_told_of_is_recorded_and_told_once_somebody_listens() {
    let mut manager = manager(&[]);
    let opened = evaluate(&mut manager, 0, 1.0);
    assert!(told(&opened).is_empty());
    assert_eq!(opened.transition.unwrap().alerts.len(), 1);
    let quiet = evaluate(&mut manager, 1, 1.0);
    assert!(quiet.transition.is_none() && quiet.next_due.is_none());
    manager.set_routing(Routing::to_all(["ops"]));
    assert_eq!(told(&evaluate(&mut manager, 2, 1.0)), [("ops", NotificationKind::Firing)]);
}

#[test]
fn what_gets_worse_is_the_same_alert_told_again() {
    let mut manager = AlertManager::new();
    let settings = Settings::default();
    manager.set_rules(RuleSet::from_settings(&settings).unwrap(), at(0));
    manager.set_routing(Routing::to_all(["ops"]));
    let mut disk_at = |second, percent| {
        let metrics = SystemMetrics { disk_percent: Some(percent), ..samples::system_metrics() };
        manager.evaluate_host(&metrics, at(second))
    };
    let warned = disk_at(0, 91.0);
    let first = warned.transition.unwrap().deliveries.remove(0).notification;
    assert_eq!(first.alerts[0].level, Level::Warning);
    let worse = disk_at(10, 96.0);
    let second = worse.transition.unwrap().deliveries.remove(0).notification;
    assert_eq!(second.alerts[0].level, Level::Critical);
    assert!(second.alerts[0].message.contains("96.0%"));
    assert_eq!(second.alerts[0].id, first.alerts[0].id);
    assert_ne!(second.key, first.key);
    assert!(disk_at(20, 97.0).transition.is_none());
    let ended = disk_at(30, 50.0).transition.unwrap();
    assert_eq!(ended.deliveries.len(), 1);
    assert_eq!(ended.alerts[0].subject, Subject::Host);
}

#[test]
fn cooldown_is_per_rule_and_service() {
    let mut manager = manager(&["ops"]);
    evaluate(&mut manager, 0, 1.0);
    let github = ServiceName::from("github");
    let metrics = numbers("github", 1.0);
    let view = ServiceView::default();
    let other = manager.evaluate_service(&github, view, |_| &metrics, at(1));
    assert_eq!(told(&other).len(), 1);
    evaluate(&mut manager, 2, 0.0);
    let again = evaluate(&mut manager, 3, 1.0);
    assert!(told(&again).is_empty());
    assert_eq!(again.transition.unwrap().alerts.len(), 1);
    assert_eq!(again.next_due, Some(at(300)));
    assert_eq!(told(&evaluate(&mut manager, 300, 1.0)).len(), 1);
}

#[test]
fn each_tool_has_its_own_alert() {
    let mut manager = AlertManager::new();
    manager.add_rule(written(serde_json::json!({
        "name": "tool", "scope": "tool", "when": "error_rate > 0.5",
        "message": "{{ tool_name }} of {{ service_name }}",
    })));
    manager.set_routing(Routing::to_all(["ops"]));
    let files = ServiceName::from("files");
    let mut call = |tool: &str, error_rate, second| {
        let metrics = ToolMetrics {
            service_name: files.clone(),
            tool_name: tool.to_owned(),
            total_calls: 10,
            failed_calls: 0,
            slow_calls: 0,
            error_rate,
            avg_response_time: None,
            p95_response_time: None,
            last_error: None,
        };
        let view = ServiceView::default();
        manager.evaluate_tool(&files, tool, view, |_| &metrics, at(second))
    };
    let read = call("read", 1.0, 0).transition.unwrap();
    assert_eq!(read.alerts[0].message, "read of files");
    assert_eq!(call("write", 1.0, 1).transition.unwrap().alerts.len(), 1);
    assert!(call("read", 1.0, 2).transition.is_none());
    assert_eq!(call("write", 0.0, 3).transition.unwrap().deliveries.len(), 1);
    assert_eq!(manager.open().count(), 1);
    let forgotten = manager.forget(&files, at(4));
    assert_eq!((forgotten.alerts.len(), forgotten.deliveries.len()), (1, 1));
    assert_eq!(manager.open().count(), 0);
}

#[test]
fn a_window_is_asked_for_once_however_many_rules_share_it() {
    let mut manager = AlertManager::new();
    for (name, window) in [("a", "5m"), ("b", "1h"), ("c", "5m")] {
        manager.add_rule(written(serde_json::json!({
            "name": name, "when": "error_rate > 0.5", "window": window
        })));
    }
    let labelled = failing().label("team", "web").window(Duration::from_secs(60));
    manager.add_rule(labelled);
    let spans = [60, 300, 3_600].map(Duration::from_secs);
    assert_eq!(manager.windows(), spans);
    let asked = RefCell::new(Vec::new());
    let metrics = |span| {
        asked.borrow_mut().push(span);
        numbers("files", 0.0)
    };
    let files = ServiceName::from("files");
    manager.evaluate_service(&files, ServiceView::default(), metrics, at(0));
    // The rule for labelled services is none of this one's affair.
    assert_eq!(*asked.borrow(), spans[1..]);
}

#[test]
fn a_rule_that_fails_is_told_once_a_minute_and_stops_nothing() {
    let mut manager = AlertManager::new();
    manager.add_rule(written(serde_json::json!({ "name": "broken", "when": "1 / restarts > 0" })));
    manager.add_rule(AlertRule::new("panics", Level::Info, |_| panic!("on purpose")));
    manager.add_rule(failing());
    let complaints = |evaluated: &Evaluated| {
        let is_complaint = |event: &&MonitorEvent| matches!(event, MonitorEvent::RuleFailed { .. });
        evaluated.events.iter().filter(is_complaint).count()
    };
    let first = evaluate(&mut manager, 0, 1.0);
    assert_eq!((first.rule_errors.len(), complaints(&first)), (2, 2));
    assert!(first.rule_errors[1].message.contains("on purpose"));
    assert_eq!(first.transition.as_ref().unwrap().alerts.len(), 1);
    let second = evaluate(&mut manager, 1, 1.0);
    assert_eq!((second.rule_errors.len(), complaints(&second)), (2, 0));
    assert_eq!(complaints(&evaluate(&mut manager, 61, 1.0)), 2);
}

#[test]
fn a_rule_that_is_gone_takes_its_alerts_with_it() {
    let mut manager = manager(&["ops"]);
    let opened = evaluate(&mut manager, 0, 1.0);
    let state = only_state(&opened.transition.unwrap()).clone();
    let transition = manager.remove_rule("failing", at(5)).unwrap();
    assert_eq!(only_state(&transition).phase, AlertPhase::Resolved);
    assert_eq!(transition.alerts[0].resolved_at, Some(at(5)));
    assert_eq!(transition.deliveries[0].notification.kind, NotificationKind::Resolved);
    assert!(manager.remove_rule("failing", at(5)).is_none());

    let none: [Arc<dyn Rule>; 0] = [];
    let mut manager = self::manager(&["ops"]);
    manager.set_rules(none, at(6));
    let transition = manager.restore([state], at(7));
    assert_eq!(transition.alerts[0].resolved_at, Some(at(7)));
}

#[test]
fn a_service_that_is_gone_is_forgotten() {
    let mut manager = manager(&["ops"]);
    evaluate(&mut manager, 0, 1.0);
    let kept = manager.forget_unwatched(|service| service.as_str() == "files", at(1));
    assert!(kept.states.is_empty());
    let gone = manager.forget_unwatched(|_| false, at(2));
    assert_eq!((gone.alerts.len(), gone.deliveries.len()), (1, 1));
    // It comes back as if it were new.
    assert_eq!(told(&evaluate(&mut manager, 3, 1.0)).len(), 1);
}

#[test]
fn a_service_that_loses_a_rules_label_ends_its_alert() {
    let mut manager = AlertManager::new();
    manager.add_rule(failing().label("team", "web"));
    manager.set_routing(Routing::to_all(["ops"]));
    let labels = BTreeMap::from([("team".to_owned(), "web".to_owned())]);
    let files = ServiceName::from("files");
    let metrics = numbers("files", 1.0);
    let view = ServiceView { labels: &labels, ..ServiceView::default() };
    let opened = manager.evaluate_service(&files, view, |_| &metrics, at(0));
    assert_eq!(opened.transition.unwrap().alerts[0].labels, labels);
    let without = ServiceView::default();
    let ended = manager.evaluate_service(&files, without, |_| &metrics, at(1));
    assert_eq!(told(&ended), [("ops", NotificationKind::Resolved)]);
}

#[test]
fn switched_off_nothing_is_judged() {
    let mut manager =
        AlertManager::with_config(AlertConfig { enabled: false, ..AlertConfig::default() });
    manager.add_rule(failing());
    assert!(evaluate(&mut manager, 0, 1.0).transition.is_none());
    assert!(!manager.looks_at(Scope::Service));
}

#[test]
fn what_ended_is_not_kept_for_ever() {
    let mut manager = manager(&["ops"]);
    for second in 0..50 {
        let service = ServiceName::from(format!("service-{second}"));
        for (offset, rate) in [(0, 1.0), (10, 0.0), (400, 0.0)] {
            let metrics = numbers(service.as_str(), rate);
            let now = at(second + offset);
            manager.evaluate_service(&service, ServiceView::default(), |_| &metrics, now);
        }
    }
    assert_eq!(manager.book.states().count(), 0);
    for second in 0..(HISTORY as u64 + 20) {
        evaluate(&mut manager, second * 1_000, 1.0);
        evaluate(&mut manager, second * 1_000 + 500, 0.0);
    }
    assert_eq!(manager.history().count(), HISTORY);
}

/// The built-in rules on a service that dies, stays dead, and comes back.
#[test]
fn an_outage_is_one_alert_and_one_recovery() {
    let mut manager = AlertManager::new();
    manager.set_rules(RuleSet::from_settings(&Settings::default()).unwrap(), at(0));
    manager.set_routing(Routing::to_all(["ops"]));
    let limits = ServiceLimits::default();
    let failure = samples::failure(mcpmon_core::FailureCode::ConnectionRefused);
    let files = ServiceName::from("files");
    let mut said = Vec::new();
    for check in 0_u32..600 {
        let second = u64::from(check) * 2;
        let is_dead = (100..130).contains(&check);
        let failures_in_window = check.saturating_sub(99).min(30);
        let metrics = ServiceMetrics {
            status: match check {
                103..130 => Status::Stopped,
                130 => Status::Stopped,
                _ => Status::Running,
            },
            uptime: match check {
                0..100 => 7_200.0,
                100..131 => 0.0,
                _ => f64::from(check - 131) * 2.0,
            },
            consecutive_failures: if is_dead { check - 99 } else { 0 },
            error_rate: if check < 250 { f64::from(failures_in_window) / 150.0 } else { 0.0 },
            error_rate_samples: 150,
            last_error: is_dead.then(|| failure.to_string()),
            ..samples::service_metrics("files")
        };
        let view = ServiceView {
            limits: Some(&limits),
            failure: is_dead.then_some(&failure),
            ..ServiceView::default()
        };
        let evaluated = manager.evaluate_service(&files, view, |_| &metrics, at(second));
        assert!(evaluated.rule_errors.is_empty());
        said.extend(evaluated.transition.into_iter().flat_map(|t| t.deliveries));
    }
    let said: Vec<(NotificationKind, String)> = said
        .into_iter()
        .map(|delivery| delivery.notification)
        .map(|notification| (notification.kind, notification.alerts[0].rule_name.clone()))
        .collect();
    let down = "service_down".to_owned();
    assert_eq!(
        said,
        [(NotificationKind::Firing, down.clone()), (NotificationKind::Resolved, down)]
    );
}

async fn check(manager: &mut AlertManager, second: u64, rate: f64) -> CheckOutcome {
    manager.check(&numbers("files", rate), at(second)).await
}

#[tokio::test]
async fn a_check_tells_every_handler_and_reports_those_that_fail() {
    let (good, bad) = (RecordingHandler::new("good"), RecordingHandler::new("bad"));
    bad.usually(Reaction::Never);
    let panics = RecordingHandler::new("panics").first([Reaction::Panic]);
    let mut manager = AlertManager::new();
    manager.add_rule(failing());
    manager.add_handler(bad.clone());
    manager.add_handler(panics);
    manager.add_handler(good.clone());
    let outcome = check(&mut manager, 0, 1.0).await;
    assert_eq!(outcome.fired.len(), 1);
    let failed: Vec<&str> = outcome.failed_deliveries().map(|r| r.handler.as_str()).collect();
    assert_eq!(failed, ["bad", "panics"]);
    let ended = check(&mut manager, 1, 0.0).await;
    assert_eq!(ended.resolved.len(), 1);
    // Who was never told of the beginning is not told of the end.
    assert_eq!(ended.deliveries.len(), 1);
    let kinds: Vec<NotificationKind> = good.delivered().iter().map(|n| n.kind).collect();
    assert_eq!(kinds, [NotificationKind::Firing, NotificationKind::Resolved]);
    assert!(manager.remove_handler("good"));
    assert!(!manager.remove_handler("good"));
}

#[tokio::test]
async fn a_notice_that_may_succeed_later_is_tried_at_the_next_check() {
    let ops = RecordingHandler::new("ops").first([Reaction::Later]);
    let mut manager = AlertManager::new();
    manager.add_rule(failing());
    manager.add_handler(ops.clone());
    assert_eq!(check(&mut manager, 0, 1.0).await.failed_deliveries().count(), 1);
    assert_eq!(check(&mut manager, 1, 1.0).await.failed_deliveries().count(), 0);
    assert_eq!(ops.count(NotificationKind::Firing), 1);
    let keys: Vec<String> = ops.attempts().into_iter().map(|n| n.key).collect();
    assert_eq!(keys[0], keys[1]);
    check(&mut manager, 2, 1.0).await;
    assert_eq!(ops.attempts().len(), 2);
}

#[tokio::test]
async fn the_built_in_rules_work_on_numbers_alone() {
    let ops = RecordingHandler::new("ops");
    let mut manager = AlertManager::new();
    manager.set_rules(RuleSet::from_settings(&Settings::default()).unwrap(), at(0));
    manager.add_handler(ops.clone());
    let down = ServiceMetrics {
        status: Status::Stopped,
        consecutive_failures: 3,
        last_error: Some("connection refused".to_owned()),
        ..samples::service_metrics("files")
    };
    manager.check(&down, at(1)).await;
    let messages: Vec<String> =
        ops.delivered().iter().map(|n| n.alerts[0].message.clone()).collect();
    assert_eq!(messages, ["files is down (stopped): connection refused"]);
    let rules: Vec<String> =
        manager.history().map(|alert: &Alert| alert.rule_name.clone()).collect();
    assert_eq!(rules, ["service_down"]);
}
