//! Spans in which nobody could look are `unknown`, and alarm nobody: suspend, clocks that are set,
//! a network of our own that is gone, a monitor that did not run.

use std::borrow::Cow;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use mcpmon_core::alert::NotificationKind;
use mcpmon_core::monitor::MonitorHandle;
use mcpmon_core::rule::{RuleContext, RuleError, RuleInput, RulePolicy, Verdict};
use mcpmon_core::state::{ChangeOrigin, StatusChange};
use mcpmon_core::store::{Batch, HistoryQuery, RecordQuery, SampleStore, Store};
use mcpmon_core::{Clock, FailureCode, HostProbe, Level, Rule, Status, SystemMetrics};
use mcpmon_engine::{MemoryStore, RunningMonitor};
use mcpmon_testkit::{Reaction, RecordingHandler, ScriptedFactory, Step, TokioClock, samples};

use crate::{monitor, seconds, spec, told};

const HOUR: Duration = Duration::from_secs(3_600);

/// A monitor of `a` over a store and a clock that go on when it ends.
async fn start_over(
    factory: &ScriptedFactory,
    clock: &TokioClock,
    store: &Arc<MemoryStore>,
) -> RunningMonitor {
    let store = Arc::clone(store) as Arc<dyn Store>;
    let monitor = monitor(factory).clock(Arc::new(clock.clone())).store(store);
    monitor.service(spec("a")).start().await.expect("it starts")
}

/// A machine that can be taken off its network.
#[derive(Debug, Clone, Default)]
struct Machine(Arc<AtomicU8>);

impl Machine {
    fn set_online(&self, online: bool) {
        self.0.store(if online { 1 } else { 2 }, Ordering::SeqCst);
    }
}

#[async_trait]
impl HostProbe for Machine {
    async fn sample(&mut self) -> SystemMetrics {
        samples::system_metrics()
    }

    fn is_online(&mut self) -> Option<bool> {
        match self.0.load(Ordering::SeqCst) {
            0 => None,
            state => Some(state == 1),
        }
    }
}

/// The statuses of a service's changes, oldest first.
async fn statuses(store: &MemoryStore, service: &str) -> Vec<Status> {
    let changes =
        store.changes(&RecordQuery::of(service.into())).await.expect("memory can be read");
    changes.items.iter().map(|change| change.status).collect()
}

#[tokio::test(start_paused = true)]
async fn after_a_suspend_services_are_unknown_until_asked_and_nobody_is_alarmed() {
    let (factory, clock) = (ScriptedFactory::new(), TokioClock::default());
    let ops = RecordingHandler::new("ops");
    let store = Arc::new(MemoryStore::new());
    let monitor = monitor(&factory)
        .clock(Arc::new(clock.clone()))
        .store(Arc::clone(&store) as Arc<dyn Store>)
        .handler(ops.clone())
        .services([spec("a"), spec("b")])
        .start()
        .await
        .unwrap();
    seconds(25).await;
    // What is asked first after the suspend is lost with its connection.
    for name in ["a", "b"] {
        factory.script(name).then([FailureCode::ConnectTimeout]);
    }
    clock.advance(HOUR);
    seconds(30).await;
    assert_eq!(monitor.service_status("a"), Some(Status::Running));
    assert_eq!(ops.delivered().len(), 0);
    monitor.stop().await;
    let seen = statuses(&store, "a").await;
    assert_eq!(
        seen[seen.len() - 4..seen.len() - 2],
        [Status::Running, Status::Unknown],
        "{seen:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn an_outage_over_a_suspend_is_told_once_and_its_end_once() {
    let (factory, clock) = (ScriptedFactory::new(), TokioClock::default());
    factory.script("a").usually(FailureCode::ConnectionRefused);
    let ops = RecordingHandler::new("ops");
    let monitor = monitor(&factory)
        .clock(Arc::new(clock.clone()))
        .handler(ops.clone())
        .service(spec("a"))
        .start()
        .await
        .unwrap();
    seconds(30).await;
    assert_eq!(ops.count(NotificationKind::Firing), 1);
    clock.advance(HOUR);
    factory.script("a").usually(Step::answered());
    seconds(60).await;
    assert_eq!(ops.count(NotificationKind::Firing), 1);
    assert_eq!(ops.count(NotificationKind::Resolved), 1);
    monitor.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_clock_set_back_holds_up_neither_retries_nor_windows() {
    let (factory, clock) = (ScriptedFactory::new(), TokioClock::default());
    let ops = RecordingHandler::new("ops");
    let monitor = monitor(&factory)
        .clock(Arc::new(clock.clone()))
        .handler(ops.clone())
        .service(spec("a"))
        .start()
        .await
        .unwrap();
    seconds(100).await;
    let before = monitor.service_metrics("a").unwrap();
    clock.step_back(HOUR);
    seconds(3).await;
    let after = monitor.service_metrics("a").unwrap();
    assert_eq!(after.total_checks, before.total_checks);
    assert!((after.uptime - before.uptime - 3.0).abs() < 1.5, "{} {}", after.uptime, before.uptime);
    ops.next([Reaction::LaterAfter(Duration::from_secs(20))]);
    factory.script("a").usually(FailureCode::ConnectionRefused);
    seconds(25).await;
    assert_eq!((ops.attempts().len(), ops.delivered().len()), (1, 0));
    clock.step_back(HOUR);
    seconds(25).await;
    assert_eq!(ops.count(NotificationKind::Firing), 1);
    monitor.stop().await;
}

#[tokio::test(start_paused = true)]
async fn without_a_way_out_services_elsewhere_are_unknown_and_asked_when_it_is_back() {
    let factory = ScriptedFactory::new();
    let (machine, ops) = (Machine::default(), RecordingHandler::new("ops"));
    machine.set_online(true);
    let mut here = spec("here");
    here.transport = mcpmon_core::ServiceSpec::http("here", "http://127.0.0.1:1/mcp").transport;
    let monitor = monitor(&factory)
        .host_probe(machine.clone())
        .handler(ops.clone())
        .services([spec("a"), here])
        .start()
        .await
        .unwrap();
    seconds(15).await;
    machine.set_online(false);
    factory.script("a").usually(FailureCode::DnsFailed);
    seconds(60).await;
    let info = monitor.service_info("a").unwrap().check;
    assert_eq!(info.status, Status::Unknown);
    assert_eq!(info.failure.unwrap().code, FailureCode::MonitorOffline);
    assert_eq!(monitor.service_status("here"), Some(Status::Running));
    assert!(monitor.report().offline);

    let asked = factory.script("a").asked().len();
    factory.script("a").usually(Step::answered());
    machine.set_online(true);
    seconds(3).await;
    assert!(factory.script("a").asked().len() > asked);
    assert_eq!(monitor.service_status("a"), Some(Status::Running));
    assert!(!monitor.report().offline);
    seconds(5).await;
    assert_eq!(told(&ops, "service_down"), []);
    let both = [NotificationKind::Firing, NotificationKind::Resolved];
    assert_eq!(told(&ops, "monitor_offline"), both);
    monitor.stop().await;
}

#[tokio::test(start_paused = true)]
async fn when_nothing_far_away_can_be_reached_it_is_our_own_network() {
    let factory = ScriptedFactory::new();
    let ops = RecordingHandler::new("ops");
    let names = ["a", "b", "c", "d"];
    let monitor =
        monitor(&factory).handler(ops.clone()).services(names.map(spec)).start().await.unwrap();
    seconds(15).await;
    for name in names {
        factory.script(name).usually(FailureCode::DnsFailed);
    }
    seconds(60).await;
    for name in names {
        let info = monitor.service_info(name).unwrap().check;
        assert_eq!(info.status, Status::Unknown, "{name}");
        assert_eq!(info.failure.unwrap().evidence["code"], "dns_failed", "{name}");
    }
    for name in names {
        factory.script(name).usually(Step::answered());
    }
    seconds(15).await;
    for name in names {
        assert_eq!(monitor.service_status(name), Some(Status::Running), "{name}");
    }
    // One alert for all of them.
    assert_eq!(told(&ops, "monitor_offline").len(), ops.delivered().len());
    monitor.stop().await;
}

#[tokio::test(start_paused = true)]
async fn one_host_that_cannot_be_reached_is_down_however_many_services_it_has() {
    let factory = ScriptedFactory::new();
    let monitor = monitor(&factory).services(["a", "b", "c"].map(spec)).start().await.unwrap();
    seconds(15).await;
    factory.script("a").usually(FailureCode::ConnectTimeout);
    seconds(60).await;
    assert_eq!(monitor.service_status("a"), Some(Status::Stopped));
    assert_eq!(monitor.service_status("b"), Some(Status::Running));
    assert!(!monitor.snapshot().monitor.offline);
    monitor.stop().await;
}

#[tokio::test(start_paused = true)]
async fn the_time_in_which_no_monitor_ran_is_unknown() {
    let (factory, clock) = (ScriptedFactory::new(), TokioClock::default());
    let store = Arc::new(MemoryStore::new());
    let start = || start_over(&factory, &clock, &store);
    let first = start().await;
    seconds(20).await;
    first.stop().await;
    let stopped_at = mcpmon_core::Clock::now(&clock);
    clock.advance(HOUR);
    let second = start().await;
    seconds(20).await;
    assert_eq!(second.service_status("a"), Some(Status::Running));
    assert!(second.service_metrics("a").unwrap().uptime < 60.0);
    second.stop().await;
    let changes = store.changes(&RecordQuery::of("a".into())).await.unwrap().items;
    let gap = changes.iter().rev().find(|change| change.status == Status::Unknown).unwrap();
    assert_eq!(gap.from, Status::Running);
    assert!(gap.at <= stopped_at && stopped_at.since(gap.at) < Duration::from_secs(15));
    assert_eq!(changes.last().unwrap().status, Status::Running);
}

/// Notes the most failed checks that its window of an hour ever held.
#[derive(Debug, Clone, Default)]
struct FailuresOfHour(Arc<AtomicU64>);

impl Rule for FailuresOfHour {
    fn name(&self) -> &str {
        "failures_of_hour"
    }

    fn level(&self, _: &RuleContext<'_>) -> Level {
        Level::Info
    }

    fn policy(&self) -> RulePolicy {
        RulePolicy { window: HOUR, ..RulePolicy::default() }
    }

    fn evaluate(&self, context: &RuleContext<'_>) -> Result<Verdict, RuleError> {
        if let RuleInput::Service(metrics) = context.input {
            self.0.fetch_max(metrics.failed_checks, Ordering::SeqCst);
        }
        Ok(Verdict::Ok)
    }

    fn message(&self, _: &RuleContext<'_>) -> Result<Cow<'_, str>, RuleError> {
        Ok("never sent".into())
    }
}

#[tokio::test(start_paused = true)]
async fn a_restarted_monitor_discounts_checks_by_a_change_from_before_its_windows() {
    let (factory, clock) = (ScriptedFactory::new(), TokioClock::default());
    let now = Clock::now(&clock);
    let ago = |minutes: u64| now.saturating_sub(Duration::from_secs(minutes * 60));
    let offline = ChangeOrigin::Offline { failed_since: ago(70), noticed_at: ago(50) };
    let batch = Batch {
        checks: [65, 55, 51, 45]
            .map(|minutes| samples::failed_check("a", ago(minutes), FailureCode::ConnectionRefused))
            .to_vec(),
        changes: vec![StatusChange {
            service: "a".into(),
            at: ago(70),
            from: Status::Running,
            status: Status::Unknown,
            since: ago(70),
            failure: None,
            findings: Vec::new(),
            origin: offline,
        }],
        ..Batch::default()
    };
    let store = Arc::new(MemoryStore::new());
    store.append(&batch).await.unwrap();
    let rule = FailuresOfHour::default();
    let monitor = monitor(&factory)
        .clock(Arc::new(clock))
        .store(store as Arc<dyn Store>)
        .rule(rule.clone())
        .service(spec("a"))
        .start()
        .await
        .unwrap();
    seconds(30).await;
    assert_eq!(rule.0.load(Ordering::SeqCst), 1);
    monitor.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_monitor_started_after_the_clock_was_set_back_counts_nothing_of_later_moments() {
    let (factory, clock) = (ScriptedFactory::new(), TokioClock::default());
    let store = Arc::new(MemoryStore::new());
    let start = || start_over(&factory, &clock, &store);
    let first = start().await;
    seconds(900).await;
    factory.script("a").usually(FailureCode::ConnectionRefused);
    seconds(3_300).await;
    factory.script("a").usually(Step::answered());
    seconds(20).await;
    first.stop().await;
    // To a moment at which the first monitor checked as well.
    clock.step_back(HOUR);
    let restarted_at = Clock::now(&clock);
    let known = store.changes(&RecordQuery::of("a".into())).await.unwrap().items;
    let second = start().await;
    seconds(25).await;
    let metrics = second.service_metrics("a").unwrap();
    assert_eq!((metrics.failed_checks, metrics.consecutive_failures), (0, 0));
    assert!(metrics.last_check_time.unwrap() <= Clock::now(&clock));
    assert!((1.0..60.0).contains(&metrics.uptime), "{}", metrics.uptime);
    second.stop().await;
    let changes = store.changes(&RecordQuery::of("a".into())).await.unwrap().items;
    let mut new = changes.iter().filter(|change| !known.contains(change));
    let gap = new.next().unwrap();
    let ChangeOrigin::NotRunning { noticed_at, ran_until } = gap.origin else { panic!("{gap:?}") };
    assert_eq!(noticed_at, restarted_at);
    assert!(ran_until <= restarted_at, "what is stored of the time ahead is no time that passed");
    assert_eq!((gap.at, gap.status), (restarted_at, Status::Unknown));
    let back = new.next().unwrap();
    assert_eq!(back.status, Status::Running);
    assert!(back.at.since(restarted_at) < Duration::from_secs(25));
}

#[tokio::test(start_paused = true)]
async fn a_stop_after_the_clock_was_set_back_is_not_hidden_by_earlier_checks_of_the_same_moment() {
    let (factory, clock) = (ScriptedFactory::new(), TokioClock::default());
    let store = Arc::new(MemoryStore::new());
    let start = || start_over(&factory, &clock, &store);
    let first = start().await;
    seconds(3_000).await;
    clock.step_back(HOUR / 2);
    seconds(60).await;
    first.stop().await;
    let stopped_at = Clock::now(&clock);
    clock.advance(HOUR / 6);
    let restarted_at = Clock::now(&clock);
    let second = start().await;
    seconds(25).await;
    second.stop().await;
    let changes = store.changes(&RecordQuery::of("a".into())).await.unwrap().items;
    let is_gap = |change: &&StatusChange| matches!(change.origin, ChangeOrigin::NotRunning { noticed_at, .. } if noticed_at == restarted_at);
    let gap = changes.iter().find(is_gap).unwrap();
    assert!(gap.at <= stopped_at && stopped_at.since(gap.at) < Duration::from_secs(15));
}

#[tokio::test(start_paused = true)]
async fn a_clock_corrected_by_seconds_before_a_start_is_no_gap() {
    let (factory, clock) = (ScriptedFactory::new(), TokioClock::default());
    let store = Arc::new(MemoryStore::new());
    let start = || start_over(&factory, &clock, &store);
    let first = start().await;
    seconds(60).await;
    first.stop().await;
    clock.step_back(Duration::from_secs(12));
    let second = start().await;
    assert_eq!(second.service_status("a"), Some(Status::Running));
    second.stop().await;
    assert!(!statuses(&store, "a").await.contains(&Status::Unknown));
}

/// What a reader of the history needs to know of it, and nothing that looks like an outage.
#[tokio::test(start_paused = true)]
async fn a_start_that_is_no_gap_is_stored_once_and_changes_nothing() {
    let (factory, clock) = (ScriptedFactory::new(), TokioClock::default());
    let store = Arc::new(MemoryStore::new());
    let start = || start_over(&factory, &clock, &store);
    let began = mcpmon_core::Clock::now(&clock);
    let first = start().await;
    seconds(20).await;
    first.stop().await;
    let stopped_at = mcpmon_core::Clock::now(&clock);
    // Nothing is checked by the next four: a monitor that starts again and again must not fill the
    // history.
    factory.script("a").usually(Step::Hang);
    for _ in 0..4 {
        seconds(1).await;
        start().await.stop().await;
    }
    let changes = store.changes(&RecordQuery::of("a".into())).await.unwrap().items;
    let [running, started] = &changes[..] else { panic!("{changes:?}") };
    assert_eq!(
        (running.status, started.from, started.status),
        (Status::Running, Status::Running, Status::Running)
    );
    assert_eq!((started.since, started.is_change()), (running.since, false));
    let (ran_until, started_at) = started.span_without_monitor().unwrap();
    assert!(
        ran_until <= stopped_at && stopped_at < started_at,
        "{ran_until} {stopped_at} {started_at}"
    );
    let query = HistoryQuery {
        service: "a".into(),
        since: began,
        until: mcpmon_core::Clock::now(&clock),
        step: None,
    };
    let whole = store.history(&query).await.unwrap().whole();
    assert_eq!(whole.uptime(), Some(1.0));
    factory.script("a").usually(Step::answered());
    let last = start().await;
    seconds(20).await;
    last.stop().await;
    start().await.stop().await;
    let changes = store.changes(&RecordQuery::of("a".into())).await.unwrap().items;
    assert_eq!(changes.len(), 3, "once more after it was checked: {changes:?}");
}
