//! Changes of a service's lists: each is reported, whatever happens to the service, the store or the
//! clock meanwhile.

use std::sync::Arc;
use std::time::Duration;

use mcpmon_core::alert::NotificationKind;
use mcpmon_core::settings::RuleSettings;
use mcpmon_core::store::{
    AlertQuery, AlertRecord, IncidentLog as _, ListChange, RecordQuery, SampleStore as _,
};
use mcpmon_core::{FindingCode, Settings, Status, Timestamp};
use mcpmon_engine::{Change, MemoryStore, MonitorBuilder, RunningMonitor};
use mcpmon_testkit::{
    FailingStore, Operations, RecordingHandler, ScriptedFactory, StoreFault, TokioClock, samples,
};

use crate::{monitor, seconds, settings, spec};

const RULE: &str = "tools_changed";
const DAY: u64 = 24 * 3_600;

struct Stage {
    factory: ScriptedFactory,
    store: Arc<MemoryStore>,
    clock: TokioClock,
    ops: RecordingHandler,
}

impl Stage {
    fn new() -> Self {
        let factory = ScriptedFactory::new();
        factory.script("a").then([samples::listed(&["x"])]);
        Self {
            factory,
            store: Arc::new(MemoryStore::new()),
            clock: TokioClock::default(),
            ops: RecordingHandler::new("ops"),
        }
    }

    fn monitor(&self) -> MonitorBuilder {
        monitor(&self.factory)
            .store(self.store.clone())
            .clock(Arc::new(self.clock.clone()))
            .handler(self.ops.clone())
    }

    async fn start(&self) -> RunningMonitor {
        let monitor = self.monitor().service(spec("a")).start().await.unwrap();
        seconds(15).await;
        monitor
    }

    /// The machine sleeps for so many seconds, and everything is asked again.
    async fn sleep(&self, span: u64) {
        self.clock.advance(Duration::from_secs(span));
        seconds(60).await;
    }

    async fn list(&self, tools: &[&str]) {
        self.factory.script("a").then([samples::listed(tools)]);
        self.factory.script("a").wake();
        seconds(6).await;
    }

    async fn changes(&self) -> Vec<ListChange> {
        self.store.list_changes(&RecordQuery::all()).await.unwrap().items
    }

    async fn alerts(&self) -> Vec<AlertRecord> {
        let query = AlertQuery { limit: 100, ..AlertQuery::default() };
        let mut alerts = self.store.alerts(&query).await.unwrap();
        alerts.retain(|record| record.alert.rule_name == RULE);
        alerts.reverse();
        alerts
    }

    /// What was told of changes: the kind, and the alert's id.
    fn told(&self) -> Vec<(NotificationKind, String)> {
        let told = self.ops.delivered();
        let alerts = told.iter().flat_map(|told| told.alerts.iter().map(|one| (told.kind, one)));
        let of_rule = alerts.filter(|(_, alert)| alert.rule_name == RULE);
        of_rule.map(|(kind, alert)| (kind, alert.id.clone())).collect()
    }

    fn count(&self, kind: NotificationKind) -> usize {
        self.told().iter().filter(|(told, _)| *told == kind).count()
    }
}

#[tokio::test(start_paused = true)]
async fn each_change_of_lists_is_an_alert_of_its_own_and_hides_no_later_one() {
    let stage = Stage::new();
    let monitor = stage.start().await;
    stage.list(&["x", "y"]).await;
    stage.list(&["x", "y", "z"]).await;
    seconds(600).await;
    let changes = stage.changes().await;
    let tools: Vec<_> = changes.iter().map(|change| (change.tools_before, change.tools)).collect();
    assert_eq!(tools, [(1, 2), (2, 3)]);
    let alerts = stage.alerts().await;
    let [first, second] = &alerts[..] else { panic!("{alerts:?}") };
    assert!(first.alert.resolved_at.is_some() && first.alert.message.contains("2 tools, before 1"));
    assert!(second.alert.resolved_at.is_none());
    assert!(second.alert.message.contains("3 tools, before 2"), "{}", second.alert.message);
    let (first, second) = (first.alert.id.clone(), second.alert.id.clone());
    let mut told = stage.told();
    let order =
        |(kind, id): &(NotificationKind, String)| (*id == second, kind.as_str() != "firing");
    told.sort_by_key(order);
    assert_eq!(
        told[..3],
        [
            (NotificationKind::Firing, first.clone()),
            (NotificationKind::Resolved, first),
            (NotificationKind::Firing, second.clone()),
        ],
        "whoever was told of the first is told that it is over"
    );
    assert!(
        told[3..].iter().all(|(kind, id)| (*kind, id) == (NotificationKind::Reminder, &second))
    );
    monitor.stop().await;
}

#[tokio::test(start_paused = true)]
async fn lists_that_go_back_and_forth_are_reported_once_and_do_not_look_well() {
    let stage = Stage::new();
    let monitor = stage.start().await;
    for _ in 0..3 {
        stage.list(&["x", "bad"]).await;
        stage.list(&["x"]).await;
    }
    stage.list(&["x", "bad"]).await;
    seconds(60).await;
    let returns: Vec<bool> = stage.changes().await.iter().map(|change| change.is_return).collect();
    assert_eq!(returns, [false, false, true, true, true, true, true]);
    let alerts = stage.alerts().await;
    assert_eq!(alerts.len(), 3, "two changes, and that they go back and forth");
    let last = &alerts[2].alert;
    assert!(last.resolved_at.is_none() && last.message.contains("back and forth"), "{last:?}");
    stage.sleep(2 * 3_600).await;
    assert_eq!(stage.alerts().await.len(), 3);
    assert!(stage.alerts().await[2].alert.resolved_at.is_none(), "the lists are still others");
    monitor.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_change_while_the_service_was_away_is_reported_when_it_is_back() {
    let stage = Stage::new();
    let monitor = stage.start().await;
    monitor.remove_service("a").await.unwrap();
    seconds(5).await;
    stage.factory.script("a").then([samples::listed(&["x", "y"])]);
    monitor.add_service(spec("a")).await.unwrap();
    seconds(15).await;
    assert_eq!((stage.changes().await.len(), stage.count(NotificationKind::Firing)), (1, 1));

    // So long ago that only the store knows.
    monitor.remove_service("a").await.unwrap();
    monitor.add_service(spec("b")).await.unwrap();
    seconds(900).await;
    let query = RecordQuery::of("b".into());
    let changes = stage.store.changes(&query).await.unwrap().items;
    let statuses: Vec<Status> = changes.iter().map(|change| change.status).collect();
    assert_eq!(statuses, [Status::Running], "one that is new was never paused");
    monitor.remove_service("b").await.unwrap();
    stage.factory.script("a").then([samples::listed(&["x", "y", "z"])]);
    let change = Change {
        settings: settings(),
        services: vec![spec("a")],
        handlers: vec![Arc::new(stage.ops.clone())],
    };
    monitor.apply(change).await.unwrap();
    seconds(15).await;
    assert_eq!((stage.changes().await.len(), stage.count(NotificationKind::Firing)), (2, 2));
    let info = monitor.service_info("a").unwrap();
    let watched = stage.store.services().await.unwrap();
    let facts = &watched.iter().find(|stored| stored.facts.service.as_str() == "a").unwrap().facts;
    assert!(facts.watched && info.check.status.is_available());
    assert!(facts.watched_since.unwrap() < Timestamp::from_millis(i64::MAX));
    monitor.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_change_is_reported_while_the_store_does_not_answer() {
    let stage = Stage::new();
    let store = FailingStore::new(Arc::clone(&stage.store));
    let monitor =
        stage.monitor().store(Arc::new(store.clone())).service(spec("a")).start().await.unwrap();
    seconds(15).await;
    store.fail(Operations::Writes, StoreFault::Stall);
    stage.list(&["x", "y"]).await;
    seconds(30).await;
    stage.list(&["x", "y", "z"]).await;
    seconds(30).await;
    assert_eq!(stage.count(NotificationKind::Firing), 2);
    store.recover();
    seconds(30).await;
    assert_eq!((stage.changes().await.len(), stage.count(NotificationKind::Firing)), (2, 2));
    monitor.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_change_that_nobody_was_told_of_is_reported_days_later_and_stands_for_a_day() {
    let stage = Stage::new();
    let monitor = stage.start().await;
    stage.list(&["x", "y"]).await;
    monitor.stop().await;
    // As though the monitor had ended between storing it and reporting it.
    let mut states = stage.store.states().await.unwrap();
    states.retain(|state| state.key.rule != RULE);
    let again = Arc::new(MemoryStore::new());
    let batch = mcpmon_core::store::Batch {
        list_changes: stage.changes().await,
        lists: stage.store.lists(&"a".into()).await.unwrap().into_iter().collect(),
        ..Default::default()
    };
    again.append(&batch).await.unwrap();
    let stage = Stage { store: again, ops: RecordingHandler::new("ops"), ..stage };
    stage.clock.advance(Duration::from_secs(3 * DAY));
    stage.factory.script("a").then([samples::listed(&["x", "y"])]);
    let monitor = stage.start().await;
    stage.sleep(DAY - 600).await;
    assert_eq!(
        stage.told().len(),
        stage.count(NotificationKind::Firing) + stage.count(NotificationKind::Reminder)
    );
    assert_eq!(stage.count(NotificationKind::Firing), 1);
    stage.sleep(1_200).await;
    assert_eq!(stage.count(NotificationKind::Resolved), 1);
    monitor.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_later_change_is_the_one_that_is_shown_and_a_restart_does_not_end_it_early() {
    let stage = Stage::new();
    let monitor = stage.start().await;
    stage.list(&["x", "y"]).await;
    stage.sleep(20 * 3_600).await;
    stage.list(&["x", "y", "z"]).await;
    let hash = |monitor: &RunningMonitor| {
        let info = monitor.service_info("a").unwrap();
        let findings = info.check.findings;
        let changed = findings.into_iter().find(|found| found.code == FindingCode::ToolsChanged);
        changed.map(|found| found.evidence["tools"].clone())
    };
    assert_eq!(hash(&monitor), Some(3.into()));
    monitor.stop().await;
    let stored = stage.store.services().await.unwrap();
    assert_eq!(stored[0].findings[0].evidence["tools"], 3, "stored as it is shown");
    let monitor = stage.start().await;
    stage.sleep(10 * 3_600).await;
    assert_eq!((hash(&monitor), stage.count(NotificationKind::Resolved)), (Some(3.into()), 1));
    monitor.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_condition_of_ones_own_decides_which_changes_are_reported() {
    let stage = Stage::new();
    let mut settings: Settings = settings();
    let rule = serde_json::json!({ "name": RULE, "when": "'tools_changed' in findings && tools_count == 0" });
    settings.rules.push(serde_json::from_value::<RuleSettings>(rule).unwrap());
    let monitor = stage.monitor().settings(settings).service(spec("a")).start().await.unwrap();
    seconds(15).await;
    stage.list(&["x", "y"]).await;
    assert_eq!(stage.told(), []);
    stage.list(&[]).await;
    seconds(60).await;
    let firing = stage.count(NotificationKind::Firing);
    assert_eq!((firing, stage.changes().await.len()), (1, 2), "{:?}", stage.told());
    monitor.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_clock_that_is_set_back_makes_no_change_a_return() {
    let stage = Stage::new();
    stage.clock.advance(Duration::from_secs(DAY));
    let monitor = stage.start().await;
    stage.list(&["x", "y"]).await;
    stage.clock.step_back(Duration::from_secs(DAY));
    stage.sleep(5 * 3_600).await;
    stage.list(&["x"]).await;
    stage.sleep(5 * 3_600).await;
    stage.list(&["x", "y"]).await;
    let returns: Vec<bool> = stage.changes().await.iter().map(|change| change.is_return).collect();
    assert_eq!(returns, [false; 3]);
    assert_eq!(stage.count(NotificationKind::Firing), 3);
    monitor.stop().await;
}
