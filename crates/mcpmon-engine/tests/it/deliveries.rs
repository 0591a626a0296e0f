//! What reaches handlers, and in which order, when things go wrong.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use mcpmon_core::alert::{DeliveryError, Handler, Notification, NotificationKind, Receipt};
use mcpmon_core::store::Store;
use mcpmon_core::{FailureCode, Status};
use mcpmon_engine::{Change, MemoryStore, RunningMonitor};
use mcpmon_testkit::{
    FailingStore, Operations, Reaction, RecordingHandler, ScriptedFactory, Step, StoreFault,
};

use crate::{monitor, seconds, settings, spec, told};

/// Takes its time over every message.
#[derive(Debug, Clone, Default)]
struct Slow {
    begun: Arc<AtomicUsize>,
    done: Arc<AtomicUsize>,
}

#[async_trait]
impl Handler for Slow {
    fn name(&self) -> &str {
        "slow"
    }

    async fn deliver(&self, _: &Notification) -> Result<Receipt, DeliveryError> {
        self.begun.fetch_add(1, Ordering::SeqCst);
        seconds(5).await;
        self.done.fetch_add(1, Ordering::SeqCst);
        Ok(Receipt::accepted())
    }
}

impl Slow {
    async fn until_begun(&self) {
        while self.begun.load(Ordering::SeqCst) == 0 {
            seconds(1).await;
        }
    }

    fn counts(&self) -> (usize, usize) {
        (self.begun.load(Ordering::SeqCst), self.done.load(Ordering::SeqCst))
    }
}

fn kinds(handler: &RecordingHandler) -> Vec<NotificationKind> {
    handler.delivered().iter().map(|notification| notification.kind).collect()
}

#[tokio::test(start_paused = true)]
async fn what_ends_while_its_beginning_is_put_off_waits_for_it_and_is_one_message() {
    let factory = ScriptedFactory::new();
    factory.script("a").usually(FailureCode::ConnectionRefused);
    let ops = RecordingHandler::new("ops").first([Reaction::LaterAfter(Duration::from_secs(120))]);
    let monitor = monitor(&factory).service(spec("a")).handler(ops.clone()).start().await.unwrap();
    ops.wait_for_attempts(1).await;
    factory.script("a").usually(Step::answered());
    seconds(60).await;
    assert_eq!(monitor.service_status("a"), Some(Status::Running));
    assert!(ops.delivered().is_empty());
    seconds(120).await;
    assert_eq!(kinds(&ops), [NotificationKind::Resolved]);
    monitor.stop().await;
}

#[tokio::test(start_paused = true)]
async fn what_ends_while_its_beginning_is_put_off_is_one_message_over_a_restart_too() {
    let factory = ScriptedFactory::new();
    factory.script("a").usually(FailureCode::ConnectionRefused);
    let ops = RecordingHandler::new("ops").first([Reaction::LaterAfter(Duration::from_secs(120))]);
    let store: Arc<dyn Store> = Arc::new(MemoryStore::new());
    let start = async || {
        let monitor = monitor(&factory).store(Arc::clone(&store)).service(spec("a"));
        monitor.handler(ops.clone()).start().await.unwrap()
    };
    let first = start().await;
    ops.wait_for_attempts(1).await;
    first.stop().await;
    factory.script("a").usually(Step::answered());
    let second = start().await;
    seconds(180).await;
    assert_eq!(kinds(&ops), [NotificationKind::Resolved]);
    second.stop().await;
}

#[tokio::test(start_paused = true)]
async fn one_message_nobody_takes_holds_up_no_other_alert() {
    let factory = ScriptedFactory::new();
    factory.script("poison").usually(FailureCode::ConnectionRefused);
    let ops = RecordingHandler::new("ops");
    ops.usually(Reaction::LaterAfter(Duration::from_secs(300)));
    let mut settings = settings();
    settings.monitoring.alert_cooldown = Duration::from_secs(5);
    let services = [spec("poison"), spec("other")];
    let monitor = monitor(&factory).settings(settings).services(services).handler(ops.clone());
    let monitor = monitor.start().await.unwrap();
    // Reminders of the first pile up behind it.
    seconds(240).await;
    assert_eq!(ops.attempts().len(), 1);
    ops.usually(Reaction::Accept);
    factory.script("other").usually(FailureCode::ConnectionRefused);
    seconds(35).await;
    let told = ops.delivered();
    assert!(told.iter().any(|n| n.alerts[0].service_name().unwrap().as_str() == "other"));
    monitor.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_reload_delivers_nothing_twice() {
    let factory = ScriptedFactory::new();
    factory.script("a").usually(FailureCode::ConnectionRefused);
    let slow = Slow::default();
    let monitor = monitor(&factory).service(spec("a")).handler(slow.clone()).start().await.unwrap();
    slow.until_begun().await;
    let handlers: Vec<Arc<dyn Handler>> = vec![Arc::new(slow.clone())];
    let change = Change { settings: settings(), services: vec![spec("a")], handlers };
    monitor.apply(change).await.unwrap();
    seconds(30).await;
    assert_eq!(slow.counts(), (1, 1));
    monitor.stop().await;
}

#[tokio::test(start_paused = true)]
async fn nothing_is_delivered_after_stop() {
    let factory = ScriptedFactory::new();
    factory.script("a").usually(FailureCode::ConnectionRefused);
    let slow = Slow::default();
    let monitor = monitor(&factory).service(spec("a")).handler(slow.clone()).start().await.unwrap();
    slow.until_begun().await;
    monitor.stop().await;
    let counts = slow.counts();
    seconds(60).await;
    assert_eq!(slow.counts(), counts);
}

#[tokio::test(start_paused = true)]
async fn stop_ends_in_time_whatever_hangs() {
    let factory = ScriptedFactory::new();
    factory.script("a").usually(FailureCode::ConnectionRefused);
    let store = Arc::new(FailingStore::new(Arc::new(MemoryStore::new())));
    let ops = RecordingHandler::new("ops");
    ops.usually(Reaction::Hang);
    let monitor = monitor(&factory)
        .store(Arc::clone(&store) as Arc<dyn Store>)
        .services([spec("a"), spec("b")])
        .handler(ops.clone())
        .start()
        .await
        .unwrap();
    ops.wait_for_attempts(1).await;
    store.fail(Operations::All, StoreFault::Stall);
    factory.script("b").usually(Step::Overrun);
    factory.script("a").usually(Step::answered());
    seconds(30).await;
    let before = tokio::time::Instant::now();
    monitor.stop().await;
    assert!(before.elapsed() <= RunningMonitor::STOP_WITHIN, "{:?}", before.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_store_that_answers_nothing_holds_up_no_alert_and_doubles_none() {
    let factory = ScriptedFactory::new();
    let store = Arc::new(FailingStore::new(Arc::new(MemoryStore::new())));
    let ops = RecordingHandler::new("ops");
    let monitor = monitor(&factory)
        .store(Arc::clone(&store) as Arc<dyn Store>)
        .services([spec("a"), spec("b")])
        .handler(ops.clone())
        .start()
        .await
        .unwrap();
    monitor.first_round().await;
    store.fail(Operations::All, StoreFault::Stall);
    factory.script("a").usually(FailureCode::ConnectionRefused);
    seconds(60).await;
    assert_eq!(told(&ops, "service_down").len(), 1);
    assert!(monitor.snapshot_error().is_some());
    factory.script("b").usually(FailureCode::ConnectionRefused);
    seconds(60).await;
    assert_eq!(told(&ops, "service_down").len(), 2);
    store.recover();
    seconds(60).await;
    assert_eq!(told(&ops, "service_down"), [NotificationKind::Firing; 2]);
    let both = [NotificationKind::Firing, NotificationKind::Resolved];
    assert_eq!(told(&ops, "storage_failing"), both);
    assert_eq!(monitor.snapshot_error(), None);
    monitor.stop().await;
}

trait StoreTrouble {
    fn snapshot_error(&self) -> Option<String>;
}

impl StoreTrouble for RunningMonitor {
    fn snapshot_error(&self) -> Option<String> {
        use mcpmon_core::monitor::MonitorHandle as _;
        self.snapshot().monitor.store_error.clone()
    }
}
