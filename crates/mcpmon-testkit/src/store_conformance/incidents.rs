//! Promises of `IncidentLog` and `CommandQueue`.

use mcpmon_core::alert::{Alert, AlertPhase, AlertState, NotificationKind, Receipt, Silence};
use mcpmon_core::monitor::MonitorCommand;
use mcpmon_core::observation::Question;
use mcpmon_core::store::{
    AlertQuery, AlertRecord, AuditEntry, CommandQueue, Delivery, IncidentLog, NewDelivery,
    PrunePlan, Settlement, Store, Transition,
};
use mcpmon_core::time::Timestamp;

use super::{at, samples};
use crate::samples::{alert, check, notification};

/// All that a log says.
#[derive(Debug, PartialEq)]
pub(super) struct Everything {
    states: Vec<AlertState>,
    alerts: Vec<AlertRecord>,
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
        audit: log.audit(100).await.expect("the audit trail is read"),
    }
}

pub(super) async fn fill(log: &impl IncidentLog) {
    let firing = firing("service_down", "files", at(1_000));
    let transition = Transition {
        states: vec![state(&firing, AlertPhase::Firing)],
        alerts: vec![firing],
        deliveries: vec![message("ops", "one"), message("ops", "two"), message("ops", "three")],
        at: at(1_000),
    };
    commit(log, transition).await;
    let first = due(log, "ops", at(1_000)).await;
    settle(log, &first[0], Settlement::Dead { at: at(2_000), error: "gone".to_owned() }).await;
    log.put_silence(&silence("s", at(60_000))).await.expect("a silence is put");
    log.record(&audited(at(1_000), "restart")).await.expect("an entry is recorded");
}

pub(super) async fn queue_one_more(log: &impl IncidentLog) {
    let deliveries = vec![message("ops", "four")];
    commit(log, Transition { deliveries, at: at(3_000), ..Transition::default() }).await;
}

fn every_alert() -> AlertQuery {
    AlertQuery { limit: 1_000, ..AlertQuery::default() }
}

async fn due(log: &impl IncidentLog, handler: &str, now: Timestamp) -> Vec<Delivery> {
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

fn firing(rule: &str, service: &str, moment: Timestamp) -> Alert {
    let id = format!("{rule}-{service}-{}", moment.as_millis());
    Alert { id, timestamp: moment, ..alert(rule, service) }
}

fn state(alert: &Alert, phase: AlertPhase) -> AlertState {
    AlertState {
        phase,
        alert: Some(alert.clone()),
        last_notified: Some(alert.timestamp),
        told: true,
        ..AlertState::new(alert.key(), alert.timestamp)
    }
}

fn message(handler: &str, key: &str) -> NewDelivery {
    NewDelivery {
        handler: handler.to_owned(),
        notification: notification(key, NotificationKind::Firing),
    }
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

fn audited(moment: Timestamp, action: &str) -> AuditEntry {
    AuditEntry {
        at: moment,
        service: "files".into(),
        action: action.to_owned(),
        dry_run: false,
        before: Some(check("files", moment)),
        after: None,
        result: "done".to_owned(),
    }
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
    let longer = Silence { ends_at: at(20_000), ..long };
    log.put_silence(&longer).await.expect("a silence is put");
    assert_eq!(ids(at(10_000)).await, [longer]);
}

pub(super) async fn the_audit_trail_is_newest_first(log: &impl IncidentLog) {
    let entries: Vec<_> = (0..4).map(|n| audited(at(n * 1_000), &format!("action {n}"))).collect();
    for entry in &entries {
        log.record(entry).await.expect("an entry is recorded");
    }
    let newest: Vec<_> = entries.into_iter().rev().take(3).collect();
    assert_eq!(log.audit(3).await.expect("the audit trail is read"), newest);
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
    assert_eq!(take().await, commands[..3]);
    assert!(take().await.is_empty());
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
