//! How services are asked: probes that misbehave, wakes, reloads and the end.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use mcpmon_core::monitor::MonitorHandle;
use mcpmon_core::probe::{Probe, ProbeFactory};
use mcpmon_core::service::ServiceSpec;
use mcpmon_core::store::{AlertQuery, IncidentLog as _, Store};
use mcpmon_core::{FailureCode, Observation, Question, Status};
use mcpmon_engine::{Change, MemoryStore};
use mcpmon_testkit::{START, ScriptedFactory, Step, samples};

use crate::{monitor, seconds, settings, spec};

/// What a [`Quirky`] probe does beside answering well.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Quirk {
    WakesAlways,
    WokenPanics,
    ClosesSlowly,
    CannotBeMade,
    HeldButSilent,
}

/// One kind of odd probes, and what happened to them in order.
#[derive(Debug, Clone)]
struct Odd {
    quirk: Quirk,
    log: Arc<Mutex<Vec<&'static str>>>,
    times: Arc<Mutex<Vec<Duration>>>,
}

impl Odd {
    fn new(quirk: Quirk) -> Self {
        Self { quirk, log: Arc::default(), times: Arc::default() }
    }

    fn log(&self, word: &'static str) {
        self.log.lock().expect("nobody panics with it").push(word);
    }

    fn logged(&self) -> Vec<&'static str> {
        self.log.lock().expect("nobody panics with it").clone()
    }
}

impl ProbeFactory for Odd {
    fn probe(&self, _: &Arc<ServiceSpec>) -> Box<dyn Probe> {
        assert!(self.quirk != Quirk::CannotBeMade, "no probe can be made, on cue");
        Box::new(Quirky(self.clone()))
    }
}

struct Quirky(Odd);

#[async_trait]
impl Probe for Quirky {
    async fn ask(&mut self, _: Question, deadline: Instant) -> Observation {
        self.0.log("ask");
        let span = deadline - tokio::time::Instant::now().into_std();
        self.0.times.lock().expect("nobody panics with it").push(span);
        let mut seen = match self.0.quirk {
            Quirk::HeldButSilent => samples::failed(FailureCode::ResponseTimeout),
            _ => samples::answered(),
        };
        seen.active_connections = Some(1);
        seen
    }

    async fn woken(&mut self) {
        match self.0.quirk {
            Quirk::WakesAlways => {}
            Quirk::WokenPanics => panic!("woken panics, on cue"),
            _ => std::future::pending().await,
        }
    }

    async fn close(&mut self) {
        if self.0.quirk == Quirk::ClosesSlowly {
            seconds(3).await;
        }
        self.0.log("closed");
    }
}

#[tokio::test(start_paused = true)]
async fn a_storm_of_wakes_is_answered_at_the_pace_of_the_timetable() {
    let odd = Odd::new(Quirk::WakesAlways);
    let monitor = monitor(&odd).service(spec("a")).start().await.unwrap();
    seconds(100).await;
    let asked = odd.logged().len();
    assert!((10..40).contains(&asked), "{asked}");
    monitor.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_probe_whose_wake_panics_is_replaced_and_asked_on() {
    let odd = Odd::new(Quirk::WokenPanics);
    let monitor = monitor(&odd).service(spec("a")).start().await.unwrap();
    seconds(100).await;
    let asked = odd.logged().len();
    assert!((10..40).contains(&asked), "{asked}");
    assert_eq!(monitor.service_status("a"), Some(Status::Running));
    monitor.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_factory_that_panics_leaves_the_service_unknown_and_says_why() {
    let odd = Odd::new(Quirk::CannotBeMade);
    let monitor = monitor(&odd).service(spec("a")).start().await.unwrap();
    monitor.first_round().await;
    let info = monitor.service_info("a").unwrap().check;
    assert_eq!(info.status, Status::Unknown);
    assert_eq!(info.failure.unwrap().code, FailureCode::MonitorOverloaded);
    monitor.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_service_is_never_asked_by_two_probes_at_once() {
    let odd = Odd::new(Quirk::ClosesSlowly);
    let monitor = monitor(&odd).service(spec("a")).start().await.unwrap();
    monitor.first_round().await;
    let mut changed = spec("a");
    changed.terminate_session = false;
    let change = Change { settings: settings(), services: vec![changed], handlers: Vec::new() };
    monitor.apply(change).await.unwrap();
    monitor.remove_service("a").await.unwrap();
    monitor.add_service(spec("a")).await.unwrap();
    seconds(8).await;
    assert_eq!(odd.logged(), ["ask", "closed", "ask"]);
    monitor.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_reload_does_not_wait_for_an_answer_nobody_wants_any_more() {
    let factory = ScriptedFactory::new();
    factory.script("a").then([Step::Hang]);
    let monitor = monitor(&factory).service(spec("a")).start().await.unwrap();
    factory.script("a").wait_for_asks(1).await;
    let mut changed = spec("a");
    changed.terminate_session = false;
    let change = Change { settings: settings(), services: vec![changed], handlers: Vec::new() };
    monitor.apply(change).await.unwrap();
    seconds(3).await;
    assert_eq!(monitor.service_status("a"), Some(Status::Running));
    assert_eq!((factory.script("a").most_running(), factory.script("a").closed()), (1, 1));
    monitor.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_reload_that_changes_every_service_asks_them_one_after_the_other() {
    let factory = ScriptedFactory::new();
    let names: Vec<String> = (0..200).map(|n| format!("s{n}")).collect();
    let monitor = monitor(&factory).services(names.iter().map(|n| spec(n))).start().await.unwrap();
    monitor.first_round().await;
    let services = names.iter().map(|name| {
        let mut spec = spec(name);
        spec.terminate_session = false;
        spec
    });
    let change =
        Change { settings: settings(), services: services.collect(), handlers: Vec::new() };
    let asks = || names.iter().map(|name| factory.script(name).asked().len()).sum::<usize>();
    let before = asks();
    monitor.apply(change).await.unwrap();
    tokio::time::sleep(Duration::from_millis(500)).await;
    let asked = asks() - before;
    assert!((5..60).contains(&asked), "{asked}");
    monitor.stop().await;
}

#[tokio::test(start_paused = true)]
async fn stop_closes_every_probe_even_one_that_is_being_asked() {
    let factory = ScriptedFactory::new();
    factory.script("busy").usually(Step::Hang);
    let services = (0..20).map(|n| spec(&format!("s{n}"))).chain([spec("busy")]);
    let monitor = monitor(&factory).services(services).start().await.unwrap();
    factory.script("busy").wait_for_asks(1).await;
    let before = tokio::time::Instant::now();
    monitor.stop().await;
    assert!(before.elapsed() < Duration::from_secs(3), "{:?}", before.elapsed());
    for n in 0..20 {
        assert_eq!(factory.script(&format!("s{n}")).closed(), 1);
    }
    assert_eq!(factory.script("busy").closed(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_process_that_runs_but_says_nothing_gets_no_second_start_up_time() {
    let odd = Odd::new(Quirk::HeldButSilent);
    let mut service = ServiceSpec::stdio("a", "server", Vec::<String>::new());
    service.limits = settings().limits();
    let monitor = monitor(&odd).service(service).start().await.unwrap();
    seconds(20).await;
    let times: Vec<u64> = odd.times.lock().unwrap().iter().map(Duration::as_secs).collect();
    assert_eq!(times[..3], [60, 10, 10]);
    monitor.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_slow_check_does_not_make_the_next_one_late() {
    let factory = ScriptedFactory::new();
    let mut service = spec("a");
    service.limits.check_interval = Duration::from_secs(4);
    service.limits.status_check_interval = Duration::from_secs(2);
    let mut held = samples::answered();
    held.active_connections = Some(1);
    factory.script("a").usually(Step::SeeAfter(Duration::from_secs(5), Box::new(held)));
    let monitor = monitor(&factory).service(service).start().await.unwrap();
    seconds(100).await;
    assert_eq!(monitor.snapshot().monitor.late_checks_total, 0);
    monitor.stop().await;
}

#[tokio::test(start_paused = true)]
async fn rules_are_evaluated_while_sessions_end() {
    let odd = Odd::new(Quirk::ClosesSlowly);
    let mut settings = settings();
    let held = serde_json::json!([{ "name": "held", "when": "total_checks > 0", "hold": "10s" }]);
    settings.rules = serde_json::from_value(held).unwrap();
    let store = Arc::new(MemoryStore::new());
    let monitor = monitor(&odd).settings(settings).store(Arc::clone(&store) as Arc<dyn Store>);
    let monitor = monitor.service(spec("a")).start().await.unwrap();
    tokio::time::sleep(Duration::from_millis(10_500)).await;
    monitor.stop().await;
    let alerts = store.alerts(&AlertQuery { limit: 9, ..AlertQuery::default() }).await.unwrap();
    let [held] = &alerts[..] else { panic!("{alerts:?}") };
    let after = held.alert.timestamp.since(START);
    // Its session ends at 13.5 s.
    assert!((10..12).contains(&after.as_secs()), "{after:?}");
}
