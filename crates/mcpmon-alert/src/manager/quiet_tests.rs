//! What keeps a manager quiet, and what never may: flapping, dependencies, silences,
//! acknowledgements, escalation.

use std::collections::BTreeSet;
use std::time::Duration;

use mcpmon_core::alert::{Acknowledgement, AlertPhase, NotificationKind, Silence};
use mcpmon_core::metrics::ServiceMetrics;
use mcpmon_core::rule::MonitorFact;
use mcpmon_core::service::{ServiceLimits, ServiceName};
use mcpmon_core::settings::Settings;
use mcpmon_core::status::Status;
use mcpmon_core::time::Timestamp;
use mcpmon_testkit::{START, samples};

use super::*;
use crate::{
    DELIVERY_FAILING, DEPENDENCY_DOWN, FLAPPING, Routing, RuleSet, SERVICE_DOWN, STORAGE_FAILING,
};

fn at(second: u64) -> Timestamp {
    START.saturating_add(Duration::from_secs(second))
}

fn manager(settings: serde_json::Value) -> AlertManager {
    let settings: Settings = serde_json::from_value(settings).unwrap();
    let mut manager = AlertManager::with_config(settings.alert_config());
    for rule in RuleSet::from_settings(&settings).unwrap() {
        manager.add_shared_rule(rule);
    }
    let handlers = ["ops", "boss"];
    manager.set_routing(Routing::new(settings.routes, handlers));
    manager
}

/// One state of a service.
#[derive(Clone, Copy)]
struct Seen {
    down: bool,
    changes: u32,
    suppressed: bool,
}

const WELL: Seen = Seen { down: false, changes: 0, suppressed: false };
const DOWN: Seen = Seen { down: true, ..WELL };

/// What was told: rule, kind and handler.
fn judge(manager: &mut AlertManager, second: u64, seen: Seen) -> Vec<String> {
    let service = ServiceName::from("files");
    let (status, failures) = if seen.down { (Status::Stopped, 3) } else { (Status::Running, 0) };
    let metrics = ServiceMetrics {
        status,
        consecutive_failures: failures,
        error_rate: 0.0,
        ..samples::service_metrics("files")
    };
    let limits = ServiceLimits::default();
    let view = ServiceView {
        limits: Some(&limits),
        result_changes: seen.changes,
        suppressed: seen.suppressed,
        ..ServiceView::default()
    };
    told(manager.evaluate_service(&service, view, |_| &metrics, at(second)).transition)
}

fn told(transition: Option<Transition>) -> Vec<String> {
    let deliveries = transition.into_iter().flat_map(|transition| transition.deliveries);
    deliveries
        .map(|delivery| {
            let notification = delivery.notification;
            let rule = &notification.alerts[0].rule_name;
            format!("{rule} {} {}", notification.kind.as_str(), delivery.handler)
        })
        .filter(|line| line.ends_with("ops"))
        .map(|line| line.trim_end_matches(" ops").to_owned())
        .collect()
}

fn phase(manager: &AlertManager, rule: &str) -> Option<AlertPhase> {
    manager.book.states().find(|state| state.key.rule == rule).map(|state| state.phase)
}

#[test]
fn a_service_that_flaps_is_one_alert_and_its_being_down_none() {
    let mut manager = manager(serde_json::json!({}));
    assert!(judge(&mut manager, 0, Seen { changes: 5, ..WELL }).is_empty());
    assert_eq!(judge(&mut manager, 10, Seen { changes: 6, ..DOWN }), ["flapping firing"]);
    for second in 20..200 {
        let seen = Seen { down: second % 2 == 0, changes: 6 - second as u32 % 4, ..WELL };
        assert!(judge(&mut manager, second, seen).is_empty());
    }
    assert_eq!(phase(&manager, SERVICE_DOWN), None);
}

#[test]
fn what_flapped_while_nobody_was_told_hides_no_outage() {
    let mut manager = manager(serde_json::json!({}));
    manager.set_silences(vec![silence(&[("service_name", "files")], 0, 100)]);
    assert!(judge(&mut manager, 0, Seen { changes: 6, ..WELL }).is_empty());
    // It does not change any more, but flapping lasts half an hour.
    assert!(judge(&mut manager, 50, DOWN).is_empty());
    assert_eq!(judge(&mut manager, 100, DOWN), ["service_down firing"]);
    assert_eq!(judge(&mut manager, 200, WELL), ["service_down resolved"]);
}

#[test]
fn what_was_down_before_it_flapped_is_resolved_only_when_it_is_steady() {
    let mut manager = manager(serde_json::json!({ "monitoring": { "alert_cooldown": "10h" } }));
    assert_eq!(judge(&mut manager, 0, DOWN), ["service_down firing"]);
    assert_eq!(judge(&mut manager, 1, Seen { changes: 6, ..WELL }), ["flapping firing"]);
    assert!(judge(&mut manager, 2, Seen { changes: 2, ..WELL }).is_empty());
    let half_an_hour = 2 + 30 * 60;
    assert_eq!(
        judge(&mut manager, half_an_hour, WELL),
        ["flapping resolved", "service_down resolved"]
    );
}

#[test]
fn a_dependency_that_is_down_is_the_only_alert_and_never_keeps_an_end_back() {
    let mut manager = manager(serde_json::json!({}));
    assert_eq!(judge(&mut manager, 0, DOWN), ["service_down firing"]);
    let suppressed = Seen { suppressed: true, ..DOWN };
    assert!(judge(&mut manager, 1, suppressed).is_empty());
    assert_eq!(
        judge(&mut manager, 2, Seen { down: false, ..suppressed }),
        ["service_down resolved"]
    );
    for second in 400..410 {
        assert!(judge(&mut manager, second, suppressed).is_empty());
    }
    assert_eq!(phase(&manager, SERVICE_DOWN), Some(AlertPhase::Suppressed));
    assert!(judge(&mut manager, 420, WELL).is_empty());
}

fn database() -> Subject {
    Subject::Dependency("tcp://db:5432".to_owned())
}

fn depends(second: u64, failing: bool, manager: &mut AlertManager) -> Vec<String> {
    let fact = MonitorFact {
        subject: database(),
        failing: Some(failing),
        detail: "connection refused".to_owned(),
        affected: 200,
    };
    told(manager.evaluate_fact(DEPENDENCY_DOWN, &fact, at(second)).transition)
}

#[test]
fn a_dependency_is_one_alert_whatever_depends_on_it() {
    let mut manager = manager(serde_json::json!({}));
    assert!(depends(0, false, &mut manager).is_empty());
    assert_eq!(depends(1, true, &mut manager), ["dependency_down firing"]);
    assert_eq!(manager.open_subjects(DEPENDENCY_DOWN), [database()]);
    let alert = manager.open().next().unwrap().alert.clone().unwrap();
    assert_eq!(
        alert.message,
        "tcp://db:5432 is down: connection refused; 200 services depend on it"
    );
    // It is no service, so it is not forgotten with those that are no longer watched.
    let gone = manager.forget_unwatched(|_| false, at(2));
    assert!(gone.alerts.is_empty());
    assert_eq!(depends(3, false, &mut manager), ["dependency_down resolved"]);
}

/// A fact that is so, about each of these.
fn failing(subject: Subject) -> MonitorFact {
    MonitorFact {
        failing: Some(true),
        detail: "connection refused".to_owned(),
        ..MonitorFact::new(subject)
    }
}

#[test]
fn an_alert_about_a_dependency_or_a_handler_has_no_service() {
    let handler = Subject::Handler("ops".to_owned());
    for (rule, subject) in [(DEPENDENCY_DOWN, database()), (DELIVERY_FAILING, handler)] {
        // Who does not get through is not told so, hence another handler.
        let mut manager = manager(serde_json::json!({}));
        manager.set_routing(Routing::to_all(["screen", "ops"]));
        let fired = manager.evaluate_fact(rule, &failing(subject.clone()), at(0));
        let fired = fired.transition.unwrap();
        let alert = serde_json::to_value(&fired.alerts[0]).unwrap();
        assert_eq!(alert["service_name"], serde_json::Value::Null, "{alert}");
        assert_eq!(alert["tool_name"], serde_json::Value::Null, "{alert}");
        assert_eq!(alert["scope"], "monitor");
        assert_eq!(alert["subject"]["kind"], subject.kind().as_str());
        assert_eq!(alert["subject"]["name"].as_str(), subject.name());
        assert!(fired.alerts[0].message.contains(subject.name().unwrap()), "{alert}");
        let told: Vec<&str> = fired.deliveries.iter().map(|new| new.handler.as_str()).collect();
        let expected: &[&str] = match subject.handler() {
            Some(_) => &["screen"],
            None => &["screen", "ops"],
        };
        assert_eq!(told, expected);
    }
}

#[test]
fn subjects_of_one_name_have_alerts_of_their_own() {
    let mut manager = manager(serde_json::json!({}));
    assert_eq!(judge(&mut manager, 0, DOWN), ["service_down firing"]);
    let dependency = failing(Subject::Dependency("files".to_owned()));
    let handler = failing(Subject::Handler("files".to_owned()));
    for (rule, fact) in [(DEPENDENCY_DOWN, &dependency), (DELIVERY_FAILING, &handler)] {
        let fired = told(manager.evaluate_fact(rule, fact, at(1)).transition);
        assert_eq!(fired, [format!("{rule} firing")]);
    }
    let ids: BTreeSet<String> =
        manager.open().filter_map(|state| Some(state.alert.as_ref()?.id.clone())).collect();
    assert_eq!(ids.len(), 3);
    // The service is gone; what only has its name is not.
    assert_eq!(told(Some(manager.forget(&"files".into(), at(2)))), ["service_down resolved"]);
    let ended = manager.forget_subject(DEPENDENCY_DOWN, &dependency.subject, at(3));
    assert_eq!(told(Some(ended)), ["dependency_down resolved"]);
    assert_eq!(manager.open_subjects(DELIVERY_FAILING), [handler.subject]);
}

#[test]
fn a_restart_takes_up_every_alert_by_its_subject() {
    let mut before = manager(serde_json::json!({}));
    let dependency = failing(Subject::Dependency("files".to_owned()));
    let handler = failing(Subject::Handler("files".to_owned()));
    let facts = [(DEPENDENCY_DOWN, &dependency), (DELIVERY_FAILING, &handler)];
    let mut states = Vec::new();
    for (rule, fact) in facts {
        states.extend(before.evaluate_fact(rule, fact, at(0)).transition.unwrap().states);
    }
    let stored = serde_json::to_string(&states).unwrap();
    let states: Vec<AlertState> = serde_json::from_str(&stored).unwrap();
    let mut after = manager(serde_json::json!({}));
    assert!(after.restore(states, at(1)).alerts.is_empty());
    // No service is watched, and neither of the two is one.
    assert!(after.forget_unwatched(|_| false, at(2)).alerts.is_empty());
    for (rule, fact) in facts {
        assert!(told(after.evaluate_fact(rule, fact, at(3)).transition).is_empty(), "{rule}");
        let over = MonitorFact { failing: Some(false), ..fact.clone() };
        let ended = after.evaluate_fact(rule, &over, at(4)).transition;
        assert_eq!(told(ended), [format!("{rule} resolved")]);
    }
}

#[test]
fn a_fact_about_what_has_rules_of_its_own_is_not_evaluated() {
    let mut manager = manager(serde_json::json!({}));
    for subject in
        [Subject::Service("files".into()), Subject::tool_of("files", "read"), Subject::Host]
    {
        for rule in [DEPENDENCY_DOWN, SERVICE_DOWN, "disk_full"] {
            let evaluated = manager.evaluate_fact(rule, &failing(subject.clone()), at(0));
            assert!(evaluated.transition.is_none(), "{rule} of {subject}");
        }
    }
}

#[test]
fn a_silence_chooses_by_the_kind_of_subject() {
    let quiet = |matchers: &[(&str, &str)]| {
        let mut manager = manager(serde_json::json!({}));
        manager.set_silences(vec![silence(matchers, 0, 100)]);
        let mut heard = judge(&mut manager, 1, DOWN);
        for (rule, subject) in [
            (DEPENDENCY_DOWN, Subject::Dependency("files".to_owned())),
            (DELIVERY_FAILING, Subject::Handler("files".to_owned())),
            (STORAGE_FAILING, Subject::Monitor),
        ] {
            heard.extend(told(manager.evaluate_fact(rule, &failing(subject), at(1)).transition));
        }
        heard.iter().map(|line| line.replace(" firing", "")).collect::<Vec<_>>()
    };
    let all = [SERVICE_DOWN, DEPENDENCY_DOWN, DELIVERY_FAILING, STORAGE_FAILING];
    for (matchers, silent) in [
        (("service_name", "files"), SERVICE_DOWN),
        (("dependency", "files"), DEPENDENCY_DOWN),
        (("handler", "files"), DELIVERY_FAILING),
        (("subject_kind", "monitor"), STORAGE_FAILING),
        (("subject_kind", "dependency"), DEPENDENCY_DOWN),
    ] {
        let left: Vec<&str> = all.into_iter().filter(|rule| *rule != silent).collect();
        assert_eq!(quiet(&[matchers]), left, "{matchers:?}");
    }
}

#[test]
fn a_store_that_fails_is_critical_and_survives_a_restart_once() {
    let mut before = manager(serde_json::json!({}));
    let fact =
        |failing| MonitorFact { failing: Some(failing), affected: 7, ..MonitorFact::default() };
    let fired = before.evaluate_fact(STORAGE_FAILING, &fact(true), at(0)).transition.unwrap();
    assert_eq!(fired.alerts[0].level, mcpmon_core::Level::Critical);
    let mut after = manager(serde_json::json!({}));
    after.restore(fired.states, at(1));
    assert!(told(after.evaluate_fact(STORAGE_FAILING, &fact(true), at(2)).transition).is_empty());
    let ended = after.evaluate_fact(STORAGE_FAILING, &fact(false), at(3)).transition;
    assert_eq!(told(ended), ["storage_failing resolved"]);
}

fn silence(matchers: &[(&str, &str)], from: u64, to: u64) -> Silence {
    Silence {
        id: "s".to_owned(),
        matchers: matchers.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect(),
        starts_at: at(from),
        ends_at: at(to),
        by: "me".to_owned(),
        comment: String::new(),
    }
}

#[test]
fn a_silence_keeps_what_it_matches_quiet_until_it_ends() {
    let mut manager = manager(serde_json::json!({}));
    manager.set_silences(vec![silence(&[("service_name", "files"), ("level", "error")], 0, 100)]);
    assert!(judge(&mut manager, 1, DOWN).is_empty());
    assert_eq!(phase(&manager, SERVICE_DOWN), Some(AlertPhase::Firing));
    assert_eq!(judge(&mut manager, 100, DOWN), ["service_down firing"]);
    assert_eq!(judge(&mut manager, 101, WELL), ["service_down resolved"]);
    manager.set_silences(vec![silence(&[("team", "other")], 400, 500)]);
    assert_eq!(judge(&mut manager, 450, DOWN), ["service_down firing"]);
}

#[test]
fn says_when_a_silence_ends_so_that_nothing_is_missed() {
    let mut manager = manager(serde_json::json!({}));
    manager.set_silences(vec![silence(&[], 0, 77)]);
    let metrics = ServiceMetrics {
        status: Status::Stopped,
        consecutive_failures: 9,
        ..samples::service_metrics("files")
    };
    let limits = ServiceLimits::default();
    let view = ServiceView { limits: Some(&limits), ..ServiceView::default() };
    let evaluated = manager.evaluate_service(&"files".into(), view, |_| &metrics, at(1));
    assert_eq!(evaluated.next_due, Some(at(77)));
}

fn acknowledge(manager: &mut AlertManager, second: u64) -> Vec<String> {
    let id = manager.open().next().unwrap().alert.clone().unwrap().id;
    let by_me =
        Acknowledgement { by: "me".to_owned(), comment: "on it".to_owned(), at: at(second) };
    told(manager.acknowledge(&id, by_me, at(second)))
}

#[test]
fn what_somebody_took_on_is_told_once_and_not_reminded_of() {
    let mut manager = manager(serde_json::json!({ "monitoring": { "alert_cooldown": "10s" } }));
    assert_eq!(judge(&mut manager, 0, DOWN), ["service_down firing"]);
    assert_eq!(judge(&mut manager, 10, DOWN), ["service_down reminder"]);
    assert_eq!(acknowledge(&mut manager, 11), ["service_down acknowledged"]);
    assert!(acknowledge(&mut manager, 12).is_empty());
    assert!(judge(&mut manager, 60, DOWN).is_empty());
    assert_eq!(judge(&mut manager, 61, WELL), ["service_down resolved"]);
    let nobody = Acknowledgement { by: String::new(), comment: String::new(), at: at(62) };
    assert!(manager.acknowledge("no such alert", nobody, at(62)).is_none());
}

fn everybody(transition: Option<Transition>) -> Vec<(String, NotificationKind)> {
    let deliveries = transition.into_iter().flat_map(|transition| transition.deliveries);
    deliveries.map(|delivery| (delivery.handler, delivery.notification.kind)).collect()
}

fn judge_for_all(
    manager: &mut AlertManager,
    second: u64,
    down: bool,
) -> Vec<(String, NotificationKind)> {
    let status = if down { Status::Stopped } else { Status::Running };
    let metrics = ServiceMetrics {
        status,
        consecutive_failures: 3,
        error_rate: 0.0,
        ..samples::service_metrics("files")
    };
    let limits = ServiceLimits::default();
    let view = ServiceView { limits: Some(&limits), ..ServiceView::default() };
    everybody(manager.evaluate_service(&"files".into(), view, |_| &metrics, at(second)).transition)
}

fn escalating() -> AlertManager {
    manager(serde_json::json!({ "routes": [
        { "handlers": ["ops"] },
        { "handlers": ["boss"], "after": "15m" },
    ]}))
}

#[test]
fn what_nobody_takes_on_goes_to_the_next_and_both_hear_of_its_end() {
    let mut manager = escalating();
    assert_eq!(
        judge_for_all(&mut manager, 0, true),
        [("ops".to_owned(), NotificationKind::Firing)]
    );
    assert!(judge_for_all(&mut manager, 299, true).is_empty());
    let later = judge_for_all(&mut manager, 900, true);
    assert!(later.contains(&("boss".to_owned(), NotificationKind::Firing)), "{later:?}");
    let again = judge_for_all(&mut manager, 901, true);
    assert!(again.is_empty(), "{again:?}");
    let ended = judge_for_all(&mut manager, 902, false);
    assert_eq!(ended.len(), 2);
}

#[test]
fn what_somebody_took_on_goes_no_further() {
    let mut manager = escalating();
    judge_for_all(&mut manager, 0, true);
    acknowledge(&mut manager, 5);
    assert!(judge_for_all(&mut manager, 2_000, true).is_empty());
}

#[test]
fn a_route_takes_alerts_only_in_its_hours() {
    // START is a Sunday afternoon in UTC.
    let mut manager = manager(serde_json::json!({ "routes": [
        { "handlers": ["ops"], "days": ["mon"], "timezone": "UTC" },
        { "handlers": ["boss"], "days": ["sun"], "timezone": "UTC" },
    ]}));
    assert_eq!(
        judge_for_all(&mut manager, 0, true),
        [("boss".to_owned(), NotificationKind::Firing)]
    );
}

fn judge_disk(manager: &mut AlertManager, second: u64, percent: f64) -> Vec<String> {
    let metrics =
        mcpmon_core::SystemMetrics { disk_percent: Some(percent), ..samples::system_metrics() };
    let told = told(manager.evaluate_host(&metrics, at(second)).transition);
    told.into_iter().filter(|line| line.starts_with("disk_full")).collect()
}

#[test]
fn what_got_worse_while_nobody_was_there_is_told_when_somebody_is() {
    // START is a Sunday afternoon in UTC.
    let mut manager = manager(serde_json::json!({
        "monitoring": { "alert_cooldown": "7d" },
        "routes": [
            { "handlers": ["ops"], "levels": ["warning"] },
            { "handlers": ["ops"], "levels": ["critical"], "days": ["mon"], "timezone": "UTC" },
        ],
    }));
    assert_eq!(judge_disk(&mut manager, 0, 92.0), ["disk_full firing"]);
    assert!(judge_disk(&mut manager, 60, 97.0).is_empty());
    let shown = manager.open().next().unwrap().alert.clone().unwrap();
    assert_eq!(shown.level, mcpmon_core::Level::Critical, "it is known to be worse");
    assert!(judge_disk(&mut manager, 120, 97.0).is_empty());
    let monday = 12 * 3_600;
    assert_eq!(judge_disk(&mut manager, monday, 97.0), ["disk_full firing"]);
    assert!(judge_disk(&mut manager, monday + 60, 97.0).is_empty());
    assert_eq!(judge_disk(&mut manager, monday + 120, 50.0), ["disk_full resolved"]);
}

#[test]
fn what_nobody_could_be_told_is_looked_at_again() {
    let mut manager = manager(serde_json::json!({ "routes": [
        { "handlers": ["ops"], "days": ["mon"], "timezone": "UTC" },
    ]}));
    let fact = MonitorFact { failing: Some(true), ..MonitorFact::default() };
    let evaluated = manager.evaluate_fact(STORAGE_FAILING, &fact, at(0));
    assert_eq!(evaluated.next_due, Some(at(60)));
    assert!(told(evaluated.transition).is_empty());
    let monday = 12 * 3_600;
    let evaluated = manager.evaluate_fact(STORAGE_FAILING, &fact, at(monday));
    assert_eq!(told(evaluated.transition), ["storage_failing firing"]);
}

#[test]
fn whoever_was_told_of_an_alert_is_told_that_its_service_or_rule_is_gone() {
    let gone = |transition: Transition| {
        let why = transition.alerts[0].ended_because.clone();
        (told(Some(transition)), why)
    };
    let expected = |why: &str| (vec!["service_down resolved".to_owned()], Some(why.to_owned()));
    let firing = || {
        let mut manager = manager(serde_json::json!({}));
        assert_eq!(judge(&mut manager, 0, DOWN), ["service_down firing"]);
        manager
    };
    let mut of_service = firing();
    let ended = gone(of_service.forget(&"files".into(), at(1)));
    assert_eq!(ended, expected("no longer monitored"));
    assert!(of_service.forget(&"files".into(), at(2)).alerts.is_empty(), "once");
    let ended = gone(firing().remove_rule(SERVICE_DOWN, at(1)).unwrap());
    assert_eq!(ended, expected("its rule is gone"));
    let mut silent = manager(serde_json::json!({}));
    silent.set_silences(vec![silence(&[], 0, 100)]);
    assert!(judge(&mut silent, 0, DOWN).is_empty());
    let ended = silent.forget(&"files".into(), at(1));
    assert_eq!((ended.alerts.len(), ended.deliveries.len()), (1, 0), "nobody was told of it");
    let mut about_a_need = manager(serde_json::json!({}));
    depends(0, true, &mut about_a_need);
    let ended = about_a_need.forget_subject(DEPENDENCY_DOWN, &database(), at(1));
    assert_eq!(told(Some(ended)), ["dependency_down resolved"]);
}

#[test]
fn an_alert_says_who_took_it_on_and_the_next_is_told_too() {
    let mut manager = manager(serde_json::json!({}));
    judge(&mut manager, 0, DOWN);
    let mut take_on = |by: &str, comment: &str, second: u64| {
        let id = manager.open().next().unwrap().alert.clone().unwrap().id;
        let (by, comment) = (by.to_owned(), comment.to_owned());
        let transition =
            manager.acknowledge(&id, Acknowledgement { by, comment, at: at(second) }, at(second));
        let transition = transition.unwrap();
        let key = transition.deliveries.first().map(|new| new.notification.key.clone());
        let names: Vec<String> =
            transition.alerts[0].acknowledgements.iter().map(|known| known.by.clone()).collect();
        (key, names)
    };
    let (first, names) = take_on("anna", "on it", 1);
    assert_eq!(names, ["anna"]);
    assert_eq!(take_on("anna", "on it", 2), (None, vec!["anna".to_owned()]));
    let (second, names) = take_on("ben", "I have it", 3);
    assert_eq!(names, ["anna", "ben"]);
    assert!(first.is_some() && second.is_some() && first != second, "{first:?} {second:?}");
    let ended = manager.forget(&"files".into(), at(4));
    assert_eq!(ended.alerts[0].acknowledgements.len(), 2, "it is remembered");
}

#[test]
fn the_flapping_rule_is_asked_before_the_one_it_holds_back() {
    let names: Vec<String> =
        manager(serde_json::json!({})).rules().map(|rule| rule.name().to_owned()).collect();
    let place = |wanted: &str| names.iter().position(|name| name == wanted).unwrap();
    assert!(place(FLAPPING) < place(SERVICE_DOWN));
}
