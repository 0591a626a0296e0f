//! Promises of `IncidentLog` and `CommandQueue`.

use mcpmon_core::alert::{
    Acknowledgement, Alert, AlertPhase, AlertState, NotificationKind, Receipt, Silence,
};
use mcpmon_core::monitor::MonitorCommand;
use mcpmon_core::observation::Question;
use mcpmon_core::store::{
    AlertQuery, AlertRecord, AuditEntry, AuditQuery, CommandQueue, Delivery, IncidentLog,
    NewDelivery, PrunePlan, Settlement, Store, StoreError, Transition,
};
use mcpmon_core::subject::{Subject, SubjectKind};
use mcpmon_core::time::Timestamp;
use mcpmon_core::{FailureCode, RepairOutcome};

use super::{at, samples};
use crate::hostile::HOSTILE;
use crate::samples::{alert, alert_about, check, notification, subjects};

const FIRING: AlertPhase = AlertPhase::Firing;

/// All that a log says.
#[derive(Debug, PartialEq)]
pub(super) struct Everything {
    pub(super) states: Vec<AlertState>,
    pub(super) alerts: Vec<AlertRecord>,
    pub(super) due: Vec<Delivery>,
    dead: Vec<Delivery>,
    silences: Vec<Silence>,
    audit: Vec<AuditEntry>,
}

pub(super) async fn read(log: &impl IncidentLog) -> Everything {
    Everything {
        states: log.states().await.expect("states are read"),
        alerts: log.alerts(&every_alert()).await.expect("alerts are read"),
        due: due(log, "ops", at(1_000_000)).await,
        dead: log.dead_letters(100).await.expect("dead letters are read"),
        silences: log.silences(at(0)).await.expect("silences are read"),
        audit: audit(log, AuditQuery::default()).await,
    }
}

pub(super) async fn fill(log: &impl IncidentLog) {
    let firing = firing("service_down", "files", at(1_000));
    let taken_on = AlertState { acknowledged: Some(acknowledged()), ..state(&firing, FIRING) };
    let transition = Transition {
        states: vec![taken_on],
        alerts: vec![firing],
        deliveries: vec![message("ops", "one"), message("ops", "two"), message("ops", "three")],
        at: at(1_000),
    };
    commit(log, transition).await;
    let first = due(log, "ops", at(1_000)).await;
    settle(log, &first[0], Settlement::Dead { at: at(2_000), error: "gone".to_owned() }).await;
    log.put_silence(&silence("s", at(60_000))).await.expect("a silence is put");
    log.record(&audited(at(1_000), "files")).await.expect("an entry is recorded");
}

pub(super) async fn queue_one_more(log: &impl IncidentLog) {
    let deliveries = vec![message("ops", "four")];
    commit(log, Transition { deliveries, at: at(3_000), ..Transition::default() }).await;
}

fn every_alert() -> AlertQuery {
    AlertQuery { limit: 1_000, ..AlertQuery::default() }
}

pub(super) async fn due(log: &impl IncidentLog, handler: &str, now: Timestamp) -> Vec<Delivery> {
    log.due(handler, now, 100).await.expect("due messages are read")
}

fn keys(deliveries: &[Delivery]) -> Vec<&str> {
    deliveries.iter().map(|delivery| delivery.notification.key.as_str()).collect()
}

async fn commit(log: &impl IncidentLog, transition: Transition) {
    log.commit(&transition).await.expect("a transition is committed");
}

async fn settle(log: &impl IncidentLog, delivery: &Delivery, settlement: Settlement) {
    log.settle(delivery.id, &settlement).await.expect("a delivery is settled");
}

pub(super) fn firing(rule: &str, service: &str, moment: Timestamp) -> Alert {
    let id = format!("{rule}-{service}-{}", moment.as_millis());
    Alert { id, timestamp: moment, ..alert(rule, service) }
}

pub(super) fn state(alert: &Alert, phase: AlertPhase) -> AlertState {
    AlertState {
        phase,
        alert: Some(alert.clone()),
        last_notified: Some(alert.timestamp),
        told: true,
        ..AlertState::new(alert.key(), alert.timestamp)
    }
}

pub(super) fn message(handler: &str, key: &str) -> NewDelivery {
    NewDelivery {
        handler: handler.to_owned(),
        notification: notification(key, NotificationKind::Firing),
    }
}

fn acknowledged() -> Acknowledgement {
    Acknowledgement { by: "anna".to_owned(), comment: "on it".to_owned(), at: at(1_500) }
}

pub(super) async fn deliver(log: &impl IncidentLog, waiting: &Delivery) -> Result<(), StoreError> {
    let receipt = Receipt::accepted();
    log.settle(waiting.id, &Settlement::Delivered { at: at(2_000), receipt }).await
}

fn silence(id: &str, ends_at: Timestamp) -> Silence {
    Silence {
        id: id.to_owned(),
        matchers: [("team".to_owned(), "platform".to_owned())].into(),
        starts_at: at(0),
        ends_at,
        by: "anna".to_owned(),
        comment: "moving the racks".to_owned(),
    }
}

/// What was done to `service`, still under way.
fn audited(moment: Timestamp, service: &str) -> AuditEntry {
    AuditEntry {
        id: format!("{service}@{}", moment.as_millis()),
        at: moment,
        service: service.into(),
        action: "command".to_owned(),
        argv: vec!["mend".to_owned(), "a b".to_owned()],
        rule: Some("service_down".to_owned()),
        code: Some(FailureCode::ResponseTimeout),
        attempt: 2,
        dry_run: false,
        outcome: RepairOutcome::UnderWay,
        result: String::new(),
        exit_status: None,
        last_lines: Vec::new(),
        before: Some(check(service, moment)),
        after: None,
    }
}

async fn audit(log: &impl IncidentLog, query: AuditQuery) -> Vec<AuditEntry> {
    let query = AuditQuery { limit: if query.limit == 0 { 100 } else { query.limit }, ..query };
    log.audit(&query).await.expect("the audit trail is read")
}

pub(super) async fn an_empty_log_answers(store: &impl Store) {
    let found = read(store).await;
    assert!(found.states.is_empty() && found.alerts.is_empty() && found.due.is_empty());
    assert!(found.dead.is_empty() && found.silences.is_empty() && found.audit.is_empty());
    assert!(store.take().await.expect("commands are taken").is_empty());
    commit(store, Transition::default()).await;
}

pub(super) async fn a_transition_replaces_by_key_and_id(log: &impl IncidentLog) {
    let open = firing("service_down", "files", at(1_000));
    let other = firing("slow_response", "files", at(1_000));
    let transition = Transition {
        states: vec![state(&open, AlertPhase::Firing), state(&other, AlertPhase::Firing)],
        alerts: vec![open.clone(), other.clone()],
        deliveries: vec![message("ops", "down")],
        at: at(1_000),
    };
    commit(log, transition).await;
    let ended = Alert { resolved_at: Some(at(9_000)), ..open.clone() };
    let transition = Transition {
        states: vec![state(&ended, AlertPhase::Resolved)],
        alerts: vec![ended.clone()],
        at: at(9_000),
        ..Transition::default()
    };
    commit(log, transition).await;

    let mut states = log.states().await.expect("states are read");
    states.sort_by(|a, b| a.key.cmp(&b.key));
    let expected = [state(&ended, AlertPhase::Resolved), state(&other, AlertPhase::Firing)];
    assert_eq!(states, expected);
    let alerts = log.alerts(&every_alert()).await.expect("alerts are read");
    assert_eq!(alerts.len(), 2, "an alert is one from firing to resolved");
    for record in &alerts {
        let ended = record.alert.id == open.id;
        let phase = if ended { AlertPhase::Resolved } else { AlertPhase::Firing };
        assert_eq!(record.state, phase);
        assert_eq!(record.alert.resolved_at, ended.then(|| at(9_000)));
    }
    assert_eq!(keys(&due(log, "ops", at(1_000)).await), ["down"]);
}

pub(super) async fn alerts_are_chosen_newest_first(log: &impl IncidentLog) {
    let of = |service: &str, second: u64| firing("service_down", service, at(second * 1_000));
    let ended =
        |alert: Alert, second: u64| Alert { resolved_at: Some(at(second * 1_000)), ..alert };
    let (a, b) = (ended(of("a", 1), 2), ended(of("b", 3), 8));
    let (c, d) = (of("c", 5), of("a", 7));
    let alerts = vec![c.clone(), a.clone(), d.clone(), b.clone()];
    commit(log, Transition { alerts, at: at(0), ..Transition::default() }).await;

    let check = async |query: AlertQuery, expected: &[&Alert]| {
        let found = log.alerts(&query).await.expect("alerts are read");
        let found: Vec<_> = found.iter().map(|record| &record.alert).collect();
        assert_eq!(found, expected, "{query:?}");
    };
    check(every_alert(), &[&d, &c, &b, &a]).await;
    check(AlertQuery { limit: 2, ..every_alert() }, &[&d, &c]).await;
    check(AlertQuery { active: true, ..every_alert() }, &[&d, &c]).await;
    check(AlertQuery { service: Some("a".into()), ..every_alert() }, &[&d, &a]).await;
    // Fired before, but ended since.
    check(AlertQuery { since: Some(at(5_000)), ..every_alert() }, &[&d, &c, &b]).await;
    check(AlertQuery { until: Some(at(5_000)), ..every_alert() }, &[&b, &a]).await;
    let none = AlertQuery { since: Some(at(8_001)), active: true, ..every_alert() };
    check(none, &[]).await;
}

pub(super) async fn messages_are_due_in_order_for_their_handler_alone(log: &impl IncidentLog) {
    let deliveries =
        vec![message("ops", "first"), message("chat", "first"), message("ops", "second")];
    commit(log, Transition { deliveries, at: at(5_000), ..Transition::default() }).await;
    let deliveries = vec![message("ops", "third")];
    commit(log, Transition { deliveries, at: at(6_000), ..Transition::default() }).await;

    assert!(due(log, "ops", at(4_999)).await.is_empty(), "not before its moment");
    assert_eq!(keys(&due(log, "ops", at(5_999)).await), ["first", "second"]);
    let all = due(log, "ops", at(6_000)).await;
    assert_eq!(keys(&all), ["first", "second", "third"]);
    assert!(all.is_sorted_by_key(|delivery| delivery.id), "numbers rise");
    assert_eq!((all[0].queued_at, all[0].due_at), (at(5_000), at(5_000)));
    assert_eq!(all[0].notification, notification("first", NotificationKind::Firing));
    assert_eq!(keys(&due(log, "chat", at(6_000)).await), ["first"]);
    assert!(due(log, "nobody", at(6_000)).await.is_empty());
    let two = log.due("ops", at(6_000), 2).await.expect("due messages are read");
    assert_eq!(keys(&two), ["first", "second"]);
}

pub(super) async fn a_settled_message_is_never_due_again(log: &impl IncidentLog) {
    let deliveries = ["one", "two", "three"].map(|key| message("ops", key)).to_vec();
    commit(log, Transition { deliveries, at: at(0), ..Transition::default() }).await;
    let all = due(log, "ops", at(0)).await;
    let receipt = Receipt::with_id("mail-7");
    settle(log, &all[0], Settlement::Delivered { at: at(1), receipt }).await;
    let dead = |moment, error: &str| Settlement::Dead { at: moment, error: error.to_owned() };
    settle(log, &all[1], dead(at(2), "no such user")).await;
    settle(log, &all[2], dead(at(3), "refused for good")).await;
    assert!(due(log, "ops", at(1_000_000)).await.is_empty());
    let letters = log.dead_letters(10).await.expect("dead letters are read");
    assert_eq!(keys(&letters), ["three", "two"], "newest first");
    assert_eq!(letters[1].last_error.as_deref(), Some("no such user"));
    let letters = log.dead_letters(1).await.expect("dead letters are read");
    assert_eq!(keys(&letters), ["three"]);
}

pub(super) async fn a_digest_is_settled_whole(log: &impl IncidentLog) {
    let deliveries = ["one", "two", "three"].map(|key| message("ops", key)).to_vec();
    commit(log, Transition { deliveries, at: at(0), ..Transition::default() }).await;
    let all = due(log, "ops", at(0)).await;
    let retry = Settlement::Retry { due_at: at(5_000), error: "busy".to_owned() };
    let delivered = Settlement::Delivered { at: at(1), receipt: Receipt::accepted() };
    let dead = Settlement::Dead { at: at(1), error: "refused".to_owned() };
    let settlements =
        [(all[0].id, retry), (all[1].id, delivered), (all[2].id, dead), (i64::MAX, gone())];
    log.settle_many(&settlements).await.expect("several are settled at once");
    assert!(due(log, "ops", at(4_999)).await.is_empty());
    let again = due(log, "ops", at(5_000)).await;
    assert_eq!(keys(&again), ["one"]);
    assert_eq!(again[0].notification.attempt, 2);
    let letters = log.dead_letters(10).await.expect("dead letters are read");
    assert_eq!(keys(&letters), ["three"]);
    log.settle_many(&[]).await.expect("nothing is settled");
}

/// About a message that is no longer there.
fn gone() -> Settlement {
    Settlement::Delivered { at: at(1), receipt: Receipt::accepted() }
}

pub(super) async fn what_nobody_is_left_to_deliver_is_given_up(log: &impl IncidentLog) {
    let deliveries = vec![message("ops", "one"), message("old", "one"), message("old", "two")];
    commit(log, Transition { deliveries, at: at(0), ..Transition::default() }).await;
    let first = due(log, "old", at(0)).await.remove(0);
    settle(log, &first, Settlement::Delivered { at: at(1), receipt: Receipt::accepted() }).await;
    let given_up = log.give_up_for_others(&["ops".to_owned()], at(2), "no such handler").await;
    assert_eq!(given_up.expect("messages are given up"), 1, "what was delivered stays so");
    assert!(due(log, "old", at(9_000)).await.is_empty());
    assert_eq!(keys(&due(log, "ops", at(0)).await), ["one"]);
    let letters = log.dead_letters(10).await.expect("dead letters are read");
    assert_eq!((letters.len(), letters[0].handler.as_str()), (1, "old"));
    assert_eq!(letters[0].last_error.as_deref(), Some("no such handler"));
    let again = log.give_up_for_others(&["ops".to_owned()], at(3), "no such handler").await;
    assert_eq!(again.expect("messages are given up"), 0);
    let all = log.give_up_for_others(&[], at(4), "no such handler").await;
    assert_eq!(all.expect("messages are given up"), 1, "without handlers, all of them");
}

pub(super) async fn an_acknowledged_alert_is_shown_so(log: &impl IncidentLog) {
    let open = firing("service_down", "files", at(1_000));
    let mut taken_on = state(&open, AlertPhase::Firing);
    let by_me = Acknowledgement { by: "me".to_owned(), comment: String::new(), at: at(2_000) };
    taken_on.acknowledged = Some(by_me);
    let transition = Transition {
        states: vec![taken_on],
        alerts: vec![open],
        at: at(2_000),
        ..Transition::default()
    };
    commit(log, transition).await;
    let alerts = log.alerts(&every_alert()).await.expect("alerts are read");
    assert_eq!(alerts[0].state, AlertPhase::Acknowledged);
}

pub(super) async fn a_message_to_retry_waits_and_counts(log: &impl IncidentLog) {
    let deliveries = vec![message("ops", "one"), message("ops", "two")];
    commit(log, Transition { deliveries, at: at(0), ..Transition::default() }).await;
    let first = due(log, "ops", at(0)).await.remove(0);
    assert_eq!(first.notification.attempt, 1);
    let retry = Settlement::Retry { due_at: at(5_000), error: "busy".to_owned() };
    settle(log, &first, retry).await;
    assert_eq!(keys(&due(log, "ops", at(4_999)).await), ["two"], "nobody waits for another");
    let again = due(log, "ops", at(5_000)).await;
    assert_eq!(keys(&again), ["one", "two"]);
    assert_eq!((again[0].id, again[0].notification.attempt), (first.id, 2));
    assert_eq!((again[0].due_at, again[0].queued_at), (at(5_000), at(0)));
    assert_eq!(again[0].last_error.as_deref(), Some("busy"));
}

pub(super) async fn a_key_is_queued_once_for_a_handler(log: &impl IncidentLog) {
    let transition = Transition {
        deliveries: vec![message("ops", "one"), message("chat", "one")],
        at: at(0),
        ..Transition::default()
    };
    commit(log, transition.clone()).await;
    commit(log, transition.clone()).await;
    let queued = due(log, "ops", at(0)).await;
    assert_eq!(keys(&queued), ["one"]);
    assert_eq!(due(log, "chat", at(0)).await.len(), 1, "another handler gets its own");
    settle(log, &queued[0], Settlement::Delivered { at: at(1), receipt: Receipt::accepted() })
        .await;
    commit(log, transition).await;
    assert!(due(log, "ops", at(9)).await.is_empty(), "what was delivered is not queued again");
}

pub(super) async fn an_open_alert_stands_where_its_state_does(log: &impl IncidentLog) {
    let cases = [
        (AlertPhase::Firing, None, AlertPhase::Firing),
        (AlertPhase::Firing, Some(acknowledged()), AlertPhase::Acknowledged),
        (AlertPhase::Flapping, None, AlertPhase::Flapping),
        (AlertPhase::Suppressed, None, AlertPhase::Suppressed),
    ];
    let mut transition = Transition { at: at(1_000), ..Transition::default() };
    for (number, (phase, acknowledged, _)) in cases.iter().enumerate() {
        let alert = firing(&format!("rule-{number}"), "files", at(1_000));
        let acknowledged = acknowledged.clone();
        transition.states.push(AlertState { acknowledged, ..state(&alert, *phase) });
        transition.alerts.push(alert);
    }
    // What nothing is known of any more still fires: it has no end.
    transition.alerts.push(firing("rule-stray", "files", at(1_000)));
    commit(log, transition).await;
    let found = log.alerts(&every_alert()).await.expect("alerts are read");
    let shown = |rule: &str| {
        let record = found.iter().find(|record| record.alert.rule_name == rule);
        record.map(|record| record.state)
    };
    for (number, (phase, _, expected)) in cases.into_iter().enumerate() {
        assert_eq!(shown(&format!("rule-{number}")), Some(expected), "{phase:?}");
    }
    assert_eq!(shown("rule-stray"), Some(AlertPhase::Firing));
}

pub(super) async fn a_storm_is_queued_in_its_order(log: &impl IncidentLog) {
    let keys_of: Vec<String> = (0..2_000).map(|n| format!("message {n}")).collect();
    let deliveries = keys_of.iter().map(|key| message("ops", key)).collect();
    commit(log, Transition { deliveries, at: at(0), ..Transition::default() }).await;
    let found = log.due("ops", at(0), 5_000).await.expect("due messages are read");
    assert_eq!(keys(&found), keys_of);
}

pub(super) async fn what_was_given_up_can_be_sent_again_or_forgotten(log: &impl IncidentLog) {
    let deliveries = vec![
        message("ops", "one"),
        message("ops", "two"),
        message("ops", "three"),
        message("chat", "one"),
    ];
    commit(log, Transition { deliveries, at: at(0), ..Transition::default() }).await;
    let give_up = async |handler: &str, key: &str| {
        let waiting = due(log, handler, at(0)).await;
        let meant = waiting.iter().find(|waiting| waiting.notification.key == key);
        let retry = Settlement::Retry { due_at: at(0), error: "busy".to_owned() };
        settle(log, meant.expect("it waits"), retry).await;
        let dead = Settlement::Dead { at: at(1), error: "no such user".to_owned() };
        settle(log, meant.expect("it waits"), dead).await;
    };
    give_up("ops", "one").await;
    give_up("ops", "three").await;
    give_up("chat", "one").await;
    let revive = async |handler: &str| log.revive(handler, at(9)).await.expect("it is written");
    assert_eq!(revive("nobody").await, 0);
    assert_eq!(revive("ops").await, 2);
    assert_eq!(revive("ops").await, 0, "once");
    assert_eq!(keys(&due(log, "ops", at(8)).await), ["two"], "not before it was asked for");
    let again = due(log, "ops", at(9)).await;
    assert_eq!(keys(&again), ["one", "two", "three"], "in their old places");
    assert_eq!((again[0].notification.attempt, again[0].due_at), (1, at(9)));

    let letters = async || log.dead_letters(10).await.expect("dead letters are read");
    assert_eq!(letters().await.len(), 1, "another handler's stay");
    let discard = async |handler: &str| log.discard(handler).await.expect("it is written");
    assert_eq!((discard("chat").await, discard("chat").await), (1, 0));
    assert!(letters().await.is_empty() && due(log, "chat", at(9)).await.is_empty());
    assert_eq!(due(log, "ops", at(9)).await.len(), 3, "what waits is not given up");
}

pub(super) async fn that_an_alert_fires_is_not_said_again_after_its_end(log: &impl IncidentLog) {
    let open = firing("service_down", "open", at(0));
    let [told, untold] = ["told", "untold"].map(|service| firing("service_down", service, at(0)));
    let over = |alert: &Alert| Alert { resolved_at: Some(at(5)), ..alert.clone() };
    let saying = |key: &str, alerts: Vec<Alert>| {
        let mut new = message("ops", key);
        new.notification.alerts = alerts;
        new
    };
    let deliveries = vec![
        saying("open begins", vec![open.clone()]),
        saying("told begins", vec![told.clone()]),
        saying("untold begins", vec![untold.clone()]),
        saying("both begin", vec![told.clone(), open.clone()]),
        saying("told ends", vec![over(&told)]),
        saying("untold ends", vec![over(&untold)]),
    ];
    let alerts = vec![open, over(&told), over(&untold)];
    commit(log, Transition { alerts, deliveries, at: at(0), ..Transition::default() }).await;
    for waiting in due(log, "ops", at(0)).await {
        match waiting.notification.key.as_str() {
            "told ends" => deliver(log, &waiting).await.expect("it is written"),
            _ => {
                let dead = Settlement::Dead { at: at(6), error: "no such user".to_owned() };
                settle(log, &waiting, dead).await;
            }
        }
    }
    assert_eq!(log.revive("ops", at(9)).await.expect("it is written"), 4);
    let again = due(log, "ops", at(9)).await;
    assert_eq!(keys(&again), ["open begins", "untold begins", "both begin", "untold ends"]);
    let left = log.dead_letters(10).await.expect("dead letters are read");
    assert_eq!(keys(&left), ["told begins"]);
}

pub(super) async fn a_word_about_an_unknown_message_is_no_error(log: &impl IncidentLog) {
    for settlement in [
        Settlement::Delivered { at: at(1), receipt: Receipt::accepted() },
        Settlement::Retry { due_at: at(1), error: "busy".to_owned() },
        Settlement::Dead { at: at(1), error: "gone".to_owned() },
    ] {
        log.settle(4_711, &settlement).await.expect("it needs no word");
    }
    assert!(log.dead_letters(10).await.expect("dead letters are read").is_empty());
}

/// A service, a dependency and a handler may have one name. Their states and alerts are each their
/// own, also after a change, and only what is about the service is found by its name.
pub(super) async fn subjects_of_one_name_are_kept_apart(log: &impl IncidentLog) {
    let alerts = subjects().map(|subject| alert_about("rule", subject));
    let states = alerts.iter().map(|alert| state(alert, FIRING)).collect();
    let all = Transition { states, alerts: alerts.to_vec(), at: at(1_000), ..Default::default() };
    commit(log, all).await;
    let kinds_of = |found: Vec<AlertRecord>| {
        let mut kinds: Vec<SubjectKind> =
            found.iter().map(|record| record.alert.subject.kind()).collect();
        kinds.sort_unstable();
        kinds
    };
    let found = log.alerts(&every_alert()).await.expect("alerts are read");
    for record in &found {
        assert!(alerts.contains(&record.alert), "{:?} is not as it was", record.alert.subject);
    }
    assert_eq!(kinds_of(found), SubjectKind::ALL);
    let of_service = AlertQuery { service: Some("same".into()), ..every_alert() };
    let found = log.alerts(&of_service).await.expect("alerts are read");
    assert_eq!(kinds_of(found), [SubjectKind::Service, SubjectKind::Tool]);
    for changed in &alerts {
        let resolved = state(changed, AlertPhase::Resolved);
        let one = Transition { states: vec![resolved], at: at(2_000), ..Transition::default() };
        commit(log, one).await;
        let states = log.states().await.expect("states are read");
        assert_eq!(states.len(), SubjectKind::ALL.len());
        let phase = |state: &&AlertState| state.key == changed.key();
        let known = states.iter().find(phase).map(|state| state.phase);
        assert_eq!(known, Some(AlertPhase::Resolved), "{:?}", changed.subject);
        let states = vec![state(changed, FIRING)];
        let back = Transition { states, at: at(2_000), ..Transition::default() };
        commit(log, back).await;
        let firing = log.states().await.expect("states are read");
        assert!(firing.iter().all(|state| state.phase == FIRING), "{:?}", changed.subject);
    }
}

pub(super) async fn hostile_text_is_kept_as_it_came(log: &impl IncidentLog) {
    let mut transition = Transition { at: at(1_000), ..Transition::default() };
    for (number, text) in HOSTILE.iter().enumerate() {
        let mut alert = firing(text, text, at(1_000));
        alert.id = alert_id(number);
        alert.message = (*text).to_owned();
        alert.subject = Subject::tool_of(*text, *text);
        alert.labels.insert((*text).to_owned(), (*text).to_owned());
        transition.states.push(state(&alert, FIRING));
        let mut new = message("ops", &alert_id(number));
        new.notification.alerts = vec![alert.clone()];
        transition.deliveries.push(new);
        transition.alerts.push(alert);
        let said = Silence { comment: (*text).to_owned(), ..silence(&alert_id(number), at(9_000)) };
        log.put_silence(&said).await.expect("a silence is put");
    }
    commit(log, transition.clone()).await;
    let mut alerts = log.alerts(&every_alert()).await.expect("alerts are read");
    alerts.sort_by_key(|record| transition.alerts.iter().position(|a| a.id == record.alert.id));
    let alerts: Vec<_> = alerts.into_iter().map(|record| record.alert).collect();
    assert_eq!(alerts, transition.alerts);
    let waiting = due(log, "ops", at(1_000)).await;
    let sent = waiting.into_iter().map(|waiting| waiting.notification);
    let queued = transition.deliveries.iter().map(|new| new.notification.clone());
    assert!(sent.eq(queued));
    let states = log.states().await.expect("states are read");
    assert_eq!(states.len(), transition.states.len());
    let silences = log.silences(at(1_000)).await.expect("silences are read");
    assert!(HOSTILE.iter().all(|text| silences.iter().any(|said| said.comment == *text)));
}

fn alert_id(number: usize) -> String {
    format!("hostile-{number}")
}

pub(super) async fn silences_end_and_are_replaced(log: &impl IncidentLog) {
    let (short, long) = (silence("short", at(1_000)), silence("long", at(9_000)));
    log.put_silence(&short).await.expect("a silence is put");
    log.put_silence(&long).await.expect("a silence is put");
    let ids = async |now| {
        let mut found = log.silences(now).await.expect("silences are read");
        found.sort_by(|a, b| a.id.cmp(&b.id));
        found
    };
    assert_eq!(ids(at(999)).await, [long.clone(), short.clone()]);
    assert_eq!(ids(at(1_000)).await, std::slice::from_ref(&long), "ended at its end");
    let later = Silence { starts_at: at(15_000), ..silence("later", at(16_000)) };
    log.put_silence(&later).await.expect("a silence is put");
    assert_eq!(
        ids(at(1_000)).await,
        [later, long.clone()],
        "one that is yet to begin has not ended"
    );
    let longer = Silence { ends_at: at(20_000), ..long };
    log.put_silence(&longer).await.expect("a silence is put");
    assert_eq!(ids(at(17_000)).await, [longer]);
}

pub(super) async fn the_audit_trail_is_newest_first(log: &impl IncidentLog) {
    let entries: Vec<_> = (0..4).map(|n| audited(at(n * 1_000), "files")).collect();
    for entry in &entries {
        log.record(entry).await.expect("an entry is recorded");
    }
    let newest: Vec<_> = entries.into_iter().rev().take(3).collect();
    assert_eq!(audit(log, AuditQuery { limit: 3, ..AuditQuery::default() }).await, newest);
}

pub(super) async fn the_audit_trail_is_asked_by_service_and_time(log: &impl IncidentLog) {
    let of = |service: &str, n: u64| audited(at(n * 1_000), service);
    for entry in [of("files", 0), of("github", 1), of("files", 2), of("files", 3)] {
        log.record(&entry).await.expect("an entry is recorded");
    }
    let files = AuditQuery { service: Some("files".into()), ..AuditQuery::default() };
    let asked = audit(log, AuditQuery { since: Some(at(2_000)), ..files.clone() }).await;
    assert_eq!(asked, [of("files", 3), of("files", 2)], "from the moment on, itself included");
    let asked = audit(log, AuditQuery { limit: 1, ..files }).await;
    assert_eq!(asked, [of("files", 3)]);
    let asked = AuditQuery { since: Some(at(1_000)), limit: 10, service: None };
    assert_eq!(audit(log, asked).await.len(), 3);
    let nobody = AuditQuery { service: Some("nobody".into()), ..AuditQuery::default() };
    assert_eq!(audit(log, nobody).await, []);
}

pub(super) async fn an_audit_entry_replaces_the_one_of_its_id(log: &impl IncidentLog) {
    let (begun, other) = (audited(at(1_000), "files"), audited(at(1_000), "github"));
    let over = AuditEntry {
        outcome: RepairOutcome::DidNotHelp,
        result: "exited with 1".to_owned(),
        exit_status: Some(1),
        last_lines: vec!["no such\u{1b}[2J unit".to_owned()],
        after: Some(check("files", at(4_000))),
        ..begun.clone()
    };
    for entry in [&begun, &other, &over] {
        log.record(entry).await.expect("an entry is recorded");
    }
    let mut found = audit(log, AuditQuery::default()).await;
    found.sort_by(|a, b| a.id.cmp(&b.id));
    assert_eq!(found, [over, other]);
}

pub(super) async fn commands_are_taken_once_and_in_order(queue: &impl CommandQueue) {
    let commands = [
        MonitorCommand::CheckNow { service: Some("files".into()), question: Question::List },
        MonitorCommand::Approve { service: "github".into() },
        MonitorCommand::Silence(silence("s", at(1_000))),
        MonitorCommand::Approve { service: "github".into() },
    ];
    let take = async || queue.take().await.expect("commands are taken");
    let submit = async |command| queue.submit(command).await.expect("a command is left");
    assert!(take().await.is_empty());
    for command in &commands[..3] {
        submit(command).await;
    }
    let pending = async || queue.pending().await.expect("commands are looked at");
    assert_eq!(pending().await, commands[..3]);
    assert_eq!(take().await, commands[..3], "looking takes nothing");
    assert!(take().await.is_empty() && pending().await.is_empty());
    submit(&commands[3]).await;
    assert_eq!(take().await, commands[3..]);
    assert!(take().await.is_empty());
}

pub(super) async fn pruning_leaves_what_is_open(store: &impl Store) {
    let open = firing("service_down", "files", at(1_000));
    let old = Alert { resolved_at: Some(at(2_000)), ..firing("slow", "files", at(1_000)) };
    let recent = Alert { resolved_at: Some(at(8_000)), ..firing("slow", "files", at(3_000)) };
    let transition = Transition {
        states: vec![state(&open, AlertPhase::Firing)],
        alerts: vec![open.clone(), old, recent.clone()],
        deliveries: vec![message("ops", "one")],
        at: at(1_000),
    };
    commit(store, transition).await;
    samples::prune(
        store,
        PrunePlan {
            checks_before: Some(at(5_000)),
            incidents_before: Some(at(5_000)),
            ..PrunePlan::default()
        },
    )
    .await;
    let kept = store.alerts(&every_alert()).await.expect("alerts are read");
    let kept: Vec<_> = kept.into_iter().map(|record| record.alert).collect();
    assert_eq!(kept, [recent, open]);
    assert_eq!(store.states().await.expect("states are read").len(), 1);
    assert_eq!(
        due(store, "ops", at(1_000)).await.len(),
        1,
        "what was not said is still to be said"
    );
}
