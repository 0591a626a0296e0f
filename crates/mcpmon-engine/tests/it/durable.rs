//! Each promise the way from an alert to its handlers makes: written before it is sent, kept apart
//! by handler, tried again at a growing distance, given up in sight, sent once more when asked.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use mcpmon_alert::AlertRule;
use mcpmon_core::alert::{DeliveryError, Handler, Notification, NotificationKind, Receipt};
use mcpmon_core::monitor::{CommandError, MonitorCommand, MonitorHandle as _};
use mcpmon_core::store::{AlertQuery, IncidentLog as _, Store};
use mcpmon_core::{FailureCode, Level, ServiceMetrics, Subject, Timestamp};
use mcpmon_engine::{MemoryStore, RunningMonitor};
use mcpmon_testkit::{
    FailingStore, Operations, Reaction, RecordingHandler, ScriptedFactory, StoreFault,
};
use tokio::time::Instant;

use crate::{monitor, seconds, spec, told};

const EVER: Timestamp = Timestamp::from_millis(i64::MAX);

/// One service that is down, told to these handlers, kept in this store.
async fn down(store: &Arc<dyn Store>, handlers: &[&RecordingHandler]) -> RunningMonitor {
    let factory = ScriptedFactory::new();
    factory.script("a").usually(FailureCode::ConnectionRefused);
    let mut builder = monitor(&factory).store(Arc::clone(store)).service(spec("a"));
    for handler in handlers {
        builder = builder.handler((*handler).clone());
    }
    builder.start().await.expect("a monitor starts")
}

fn in_memory() -> (Arc<MemoryStore>, Arc<dyn Store>) {
    let store = Arc::new(MemoryStore::new());
    (Arc::clone(&store), store)
}

fn rules_of(told: &[Notification]) -> Vec<&str> {
    told.iter().map(|notification| notification.alerts[0].rule_name.as_str()).collect()
}

#[tokio::test(start_paused = true)]
async fn an_alert_is_never_written_without_its_messages() {
    let memory = Arc::new(MemoryStore::new());
    let failing = Arc::new(FailingStore::new(Arc::clone(&memory)));
    let store: Arc<dyn Store> = Arc::clone(&failing) as Arc<dyn Store>;
    let ops = RecordingHandler::new("ops");
    ops.usually(Reaction::Hang);
    // Neither half of the first write reaches the log.
    failing.fail_times(Operations::IncidentWrites, StoreFault::Io, 1);
    let monitor = down(&store, &[&ops]).await;
    ops.wait_for_attempts(1).await;
    monitor.stop().await;
    let open = AlertQuery { active: true, limit: 9, ..AlertQuery::default() };
    let alerts = memory.alerts(&open).await.unwrap();
    let states = memory.states().await.unwrap();
    assert!(alerts.iter().any(|record| record.alert.rule_name == "service_down"), "{alerts:?}");
    assert!(states.iter().any(|state| state.told_to == ["ops"]), "{states:?}");
    let waiting = memory.due("ops", EVER, 9).await.unwrap();
    let waiting: Vec<Notification> = waiting.into_iter().map(|left| left.notification).collect();
    assert!(rules_of(&waiting).contains(&"service_down"), "for the next start: {waiting:?}");
}

#[tokio::test(start_paused = true)]
async fn that_a_handler_fails_is_over_when_it_was_taken_away_while_nobody_ran() {
    let (memory, store) = in_memory();
    let [ops, broken] = ["ops", "broken"].map(RecordingHandler::new);
    broken.usually(Reaction::Later);
    let first = down(&store, &[&ops, &broken]).await;
    seconds(3_600).await;
    first.stop().await;
    let open = async || {
        let query = AlertQuery { active: true, limit: 99, ..AlertQuery::default() };
        let alerts = memory.alerts(&query).await.unwrap().into_iter().map(|open| open.alert);
        let of_rule = alerts.filter(|open| open.rule_name == mcpmon_alert::DELIVERY_FAILING);
        of_rule.map(|open| open.subject).collect::<Vec<_>>()
    };
    assert_eq!(open().await, [Subject::Handler("broken".to_owned())]);
    let second = down(&store, &[&ops]).await;
    seconds(60).await;
    assert!(open().await.is_empty());
    second.stop().await;
}

#[tokio::test(start_paused = true)]
async fn what_was_written_and_not_delivered_is_delivered_by_the_next_run() {
    let (memory, store) = in_memory();
    let ops = RecordingHandler::new("ops");
    ops.usually(Reaction::Later);
    let first = down(&store, &[&ops]).await;
    let key = ops.wait_for_attempts(2).await[0].key.clone();
    first.stop().await;
    assert_eq!(memory.due("ops", EVER, 9).await.unwrap().len(), 1, "it waits in the outbox");
    ops.usually(Reaction::Accept);
    let second = down(&store, &[&ops]).await;
    ops.wait_for(1).await;
    assert!(ops.attempts().iter().all(|attempt| attempt.key == key), "always the same key");
    let numbers: Vec<u32> = ops.attempts().iter().map(|attempt| attempt.attempt).collect();
    assert!(numbers.is_sorted_by(|a, b| a < b), "{numbers:?}: attempts are counted over a restart");
    seconds(120).await;
    assert_eq!(ops.delivered().len(), 1, "and once");
    second.stop().await;
}

#[tokio::test(start_paused = true)]
async fn no_handler_waits_for_another_and_each_has_its_own_account() {
    let (memory, store) = in_memory();
    let [well, busy, hung, broken] = ["well", "busy", "hung", "broken"].map(RecordingHandler::new);
    busy.usually(Reaction::Later);
    hung.usually(Reaction::Hang);
    broken.usually(Reaction::Panic);
    let begun = Instant::now();
    let monitor = down(&store, &[&broken, &hung, &busy, &well]).await;
    well.wait_for(1).await;
    // Three failed checks at once, 2 s and 5 s later, and 3 s for others of its cause.
    assert!(begun.elapsed() < Duration::from_secs(15), "{:?}", begun.elapsed());
    busy.wait_for_attempts(3).await;
    let waiting = async |handler| memory.due(handler, EVER, 9).await.unwrap().len();
    assert_eq!(told(&well, "service_down").len(), 1, "others' retries are none of its own");
    assert!(
        waiting("busy").await >= 1 && waiting("hung").await >= 1 && waiting("broken").await >= 1
    );
    busy.usually(Reaction::Accept);
    busy.wait_for(1).await;
    monitor.stop().await;
}

/// Refuses everything for now, and notes when it was asked.
#[derive(Clone)]
struct Busy {
    asked: Arc<Mutex<Vec<Instant>>>,
    wait: Option<Duration>,
}

#[async_trait]
impl Handler for Busy {
    fn name(&self) -> &str {
        "busy"
    }

    async fn deliver(&self, _: &Notification) -> Result<Receipt, DeliveryError> {
        self.asked.lock().expect("nobody panicked with it").push(Instant::now());
        let busy = DeliveryError::transient("busy");
        Err(match self.wait {
            Some(wait) => busy.after(wait),
            None => busy,
        })
    }
}

/// The pauses between attempts at one message, in seconds.
async fn pauses(wait: Option<Duration>, span: u64) -> Vec<f64> {
    let factory = ScriptedFactory::new();
    factory.script("a").usually(FailureCode::ConnectionRefused);
    let busy = Busy { asked: Arc::default(), wait };
    let monitor = monitor(&factory).service(spec("a")).handler(busy.clone()).start().await;
    let monitor = monitor.expect("a monitor starts");
    seconds(span).await;
    monitor.stop().await;
    let asked = busy.asked.lock().expect("nobody panicked with it");
    asked.windows(2).map(|pair| pair[1].duration_since(pair[0]).as_secs_f64()).collect()
}

#[tokio::test(start_paused = true)]
async fn attempts_move_apart_and_the_far_side_may_say_how_far() {
    // The outbox is looked through each second, so a pause is up to one longer.
    let found = pauses(None, 100).await;
    for (number, pause) in found.iter().take(5).enumerate() {
        let usual = f64::from(1 << number);
        assert!(
            (0.8 * usual..=1.2 * usual + 1.1).contains(pause),
            "{number}: {pause} s, {found:?}"
        );
    }
    let found = pauses(Some(Duration::from_secs(40)), 200).await;
    assert!(found.len() >= 2, "{found:?}");
    assert!(found[0] >= 40.0 && found[0] <= 45.2, "{found:?}");
}

#[tokio::test(start_paused = true)]
async fn what_is_given_up_stays_in_sight_and_is_sent_once_more_when_asked() {
    let (memory, store) = in_memory();
    let [ops, other] = ["ops", "other"].map(RecordingHandler::new);
    ops.usually(Reaction::Never);
    let monitor = down(&store, &[&ops, &other]).await;
    let refused = ops.wait_for_attempts(1).await.remove(0);
    seconds(600).await;
    assert!(told(&ops, "service_down").is_empty());
    let tries = ops.attempts().iter().filter(|attempt| attempt.key == refused.key).count();
    assert_eq!(tries, 1, "a refusal for good is not tried again");
    let letters = memory.dead_letters(9).await.unwrap();
    let letter = letters.iter().find(|letter| letter.notification.key == refused.key).unwrap();
    assert_eq!(
        (letter.handler.as_str(), letter.last_error.as_deref()),
        ("ops", Some("no such mailbox"))
    );

    let redeliver = |handler: &str| MonitorCommand::Redeliver { handler: handler.to_owned() };
    let nobody = monitor.command(redeliver("nobody")).await;
    assert_eq!(nobody, Err(CommandError::NoSuchHandler("nobody".to_owned())));
    ops.usually(Reaction::Accept);
    monitor.command(redeliver("ops")).await.unwrap();
    let again = ops.wait_for(1).await.remove(0);
    assert_eq!(
        (again.key, again.attempt),
        (refused.key, 1),
        "the same message, from the beginning"
    );
    seconds(5).await;
    assert!(memory.dead_letters(9).await.unwrap().is_empty());
    monitor.stop().await;
}

#[tokio::test(start_paused = true)]
async fn what_is_given_up_can_be_forgotten() {
    let (memory, store) = in_memory();
    let ops = RecordingHandler::new("ops");
    ops.usually(Reaction::Never);
    let monitor = down(&store, &[&ops]).await;
    ops.wait_for_attempts(1).await;
    seconds(5).await;
    assert!(!memory.dead_letters(9).await.unwrap().is_empty());
    let forget = MonitorCommand::ForgetUndelivered { handler: "ops".to_owned() };
    monitor.command(forget).await.unwrap();
    seconds(5).await;
    assert!(memory.dead_letters(9).await.unwrap().is_empty());
    let attempts = ops.attempts().len();
    seconds(60).await;
    assert_eq!(ops.attempts().len(), attempts, "it is gone, not queued");
    monitor.stop().await;
}

#[tokio::test(start_paused = true)]
async fn messages_about_a_service_keep_their_order_through_a_short_refusal() {
    let factory = ScriptedFactory::new();
    factory.script("a").usually(FailureCode::ConnectionRefused);
    let ops = RecordingHandler::new("ops").first([Reaction::Later, Reaction::Later]);
    let also = AlertRule::new("also_down", Level::Warning, |m: &ServiceMetrics| m.status.is_down());
    let monitor =
        monitor(&factory).service(spec("a")).rule(also).handler(ops.clone()).start().await.unwrap();
    ops.wait_for(2).await;
    let (attempts, delivered) = (ops.attempts(), ops.delivered());
    let first = rules_of(&attempts)[0].to_owned();
    assert_eq!(rules_of(&attempts)[..3], [first.as_str(); 3], "nothing goes in between");
    assert_eq!(rules_of(&delivered)[0], first);
    assert_ne!(rules_of(&delivered)[1], first);
    assert!(delivered.iter().all(|told| told.kind == NotificationKind::Firing));
    monitor.stop().await;
}
