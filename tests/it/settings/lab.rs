//! One service under a real monitor on virtual time, so that an hour of settings passes in a blink.
//!
//! Schedule, state, rules and delivery are the real ones; only the service, the machine and
//! whoever is told are scripted.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use mcpmon_core::monitor::{MonitorEvent, MonitorHandle as _};
use mcpmon_core::observation::{CallObservation, DependencyObservation};
use mcpmon_core::probe::HostProbe;
use mcpmon_core::{FailureCode, Question, ServiceSpec, Settings, SystemMetrics};
use mcpmon_engine::{MemoryStore, Monitor, RunningMonitor};
use mcpmon_testkit::{
    FailingStore, Operations, RecordingHandler, Script, ScriptedFactory, Step, StoreFault,
    TokioClock, samples,
};

/// The watched service's name.
const SERVICE: &str = "svc";

/// What the service does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Plot {
    /// Answers.
    Well,
    /// Answers, and holds a session that can be asked for a heartbeat.
    HoldsSession,
    /// Never answers.
    Hangs,
    /// Refuses every connection.
    Refused,
    /// Answers twice, is refused once, then answers again.
    FailsOnce,
    /// Answers, fails four times, then answers again.
    Recovers,
    /// Answers in three seconds.
    Slow,
    /// Fails one check in five.
    Unsteady,
    /// Its configured calls take four seconds.
    CallsSlowly,
    /// Its configured calls never end.
    CallsHang,
    /// Refuses connections, as does what it depends on.
    RefusedBeside,
}

impl Plot {
    fn play(self, script: &Script) {
        let refused = || Step::failed(FailureCode::ConnectionRefused);
        match self {
            Self::Well => {}
            Self::HoldsSession => {
                let mut held = samples::answered();
                held.active_connections = Some(1);
                script.usually(held);
            }
            Self::Hangs => {
                script.usually(Step::Hang);
            }
            Self::Refused => {
                script.usually(refused());
            }
            Self::FailsOnce => {
                script.then([Step::answered(), Step::answered(), refused()]);
            }
            Self::Recovers => {
                script.then([Step::answered()]);
                script.then((0..4).map(|_| refused()));
            }
            Self::Slow => {
                script.usually(samples::answered_in(Duration::from_secs(3)));
            }
            Self::CallsSlowly => {
                let mut called = samples::answered();
                called.calls.push(CallObservation {
                    tool: "t".to_owned(),
                    duration: Duration::from_secs(4),
                    failure: None,
                });
                script.usually_to(Question::Functional, called);
            }
            Self::CallsHang => {
                script.usually_to(Question::Functional, Step::Hang);
            }
            Self::RefusedBeside => {
                let mut looked = samples::answered();
                looked.dependencies.push(DependencyObservation {
                    dependency: "tcp://db:5432".to_owned(),
                    problem: Some("refused".to_owned()),
                });
                script.usually(refused()).usually_to(Question::Dependency, looked);
            }
            Self::Unsteady => {
                let round =
                    || (0..5).map(move |n| if n == 4 { refused() } else { Step::answered() });
                for _ in 0..200 {
                    script.then(round());
                }
            }
        }
    }
}

/// What is looked at, after so many virtual seconds.
#[derive(Debug, Clone, Copy)]
pub(super) enum Look {
    /// How often it was asked anything, to the nearest five.
    Asks(u64),
    /// How often it was asked this.
    AsksOf(Question, u64),
    /// How many asks had begun, exactly.
    AsksBegun(u64),
    /// After how many seconds the first check was over.
    FirstResult,
    /// After how many seconds the first round of configured calls was over.
    FirstCalls,
    /// The code of what is wrong.
    Code(u64),
    /// The status.
    Status(u64),
    /// What the handler `told` was told: kind, rule and level of each notice.
    Told(u64),
    /// How many notices it got.
    Notices(u64),
    /// What `other` was told.
    ToldOther(u64),
    /// The messages.
    Messages(u64),
    /// After how many seconds the first notice came, to the nearest minute.
    FirstNotice,
    /// When the alert ended, in minutes from its beginning.
    AlertLength(u64),
    /// Whether the machine was measured.
    Host(u64),
    /// Checks dropped while the store could not be written.
    Dropped(u64),
}

struct Machine {
    sampled: Arc<AtomicUsize>,
}

#[async_trait]
impl HostProbe for Machine {
    async fn sample(&mut self) -> SystemMetrics {
        self.sampled.fetch_add(1, Ordering::SeqCst);
        tokio::time::sleep(Duration::from_secs(1)).await;
        let mut metrics = samples::system_metrics();
        (metrics.cpu_percent, metrics.memory_percent) = (50.0, 50.0);
        metrics.disk_percent = Some(50.0);
        metrics
    }
}

struct Lab {
    monitor: RunningMonitor,
    script: Script,
    told: RecordingHandler,
    other: RecordingHandler,
    sampled: Arc<AtomicUsize>,
}

impl Lab {
    async fn start(toml: &str, plot: Plot, store_fails: bool) -> Self {
        let settings: Settings =
            toml::from_str(toml).unwrap_or_else(|error| panic!("{toml}: {error}"));
        let factory = ScriptedFactory::new();
        let script = factory.script(SERVICE);
        plot.play(&script);
        let mut service = ServiceSpec::http(SERVICE, "http://127.0.0.1:1/mcp");
        service.limits = settings.limits();
        service.labels.insert("team".to_owned(), "platform".to_owned());
        if let Some(entry) = settings.services.get(SERVICE) {
            service.limits = entry.limits(&service.limits);
            service.labels.extend(entry.labels.clone());
            service.functional.clone_from(&entry.functional);
            service.depends_on.clone_from(&entry.depends_on);
            service.mode = entry.mode;
        }
        let store = FailingStore::new(Arc::new(MemoryStore::new()));
        let (told, other) = (RecordingHandler::new("told"), RecordingHandler::new("other"));
        let sampled = Arc::new(AtomicUsize::new(0));
        let monitor = Monitor::builder()
            .settings(settings)
            .service(service)
            .probe_factory(factory)
            .host_probe(Machine { sampled: Arc::clone(&sampled) })
            .store(Arc::new(store.clone()))
            .handler(told.clone())
            .handler(other.clone())
            .clock(Arc::new(TokioClock::default()))
            .start()
            .await
            .unwrap();
        if store_fails {
            store.fail(Operations::SampleWrites, StoreFault::Full);
        }
        Self { monitor, script, told, other, sampled }
    }

    async fn pass(&self, seconds: u64) {
        tokio::time::sleep(Duration::from_secs(seconds)).await;
    }
}

fn notices(handler: &RecordingHandler) -> String {
    let mut told: Vec<String> = Vec::new();
    for notification in handler.delivered() {
        for alert in &notification.alerts {
            told.push(format!(
                "{} {} {}",
                notification.kind.as_str(),
                alert.rule_name,
                alert.level
            ));
        }
    }
    told.join(", ")
}

/// Runs a monitor with these settings over a service that does this, and says what was seen.
pub(super) async fn observe(toml: &str, plot: Plot, look: Look) -> String {
    let lab = Lab::start(toml, plot, matches!(look, Look::Dropped(_))).await;
    let started = tokio::time::Instant::now();
    let seen = match look {
        Look::Asks(seconds) => {
            lab.pass(seconds).await;
            ((lab.script.asked().len() + 2) / 5 * 5).to_string()
        }
        Look::AsksOf(question, seconds) => {
            lab.pass(seconds).await;
            lab.script.asked().iter().filter(|asked| **asked == question).count().to_string()
        }
        Look::AsksBegun(seconds) => {
            lab.pass(seconds).await;
            lab.script.asked().len().to_string()
        }
        Look::FirstResult => {
            let mut events = lab.monitor.subscribe();
            while !matches!(events.next().await, Some(MonitorEvent::Checked(_)) | None) {}
            started.elapsed().as_secs().to_string()
        }
        Look::FirstCalls => {
            let mut events = lab.monitor.subscribe();
            let is_call = |event: &Option<MonitorEvent>| match event {
                Some(MonitorEvent::Checked(check)) => check.question == Question::Functional,
                Some(_) => false,
                None => true,
            };
            while !is_call(&events.next().await) {}
            started.elapsed().as_secs().to_string()
        }
        Look::Code(seconds) => {
            lab.pass(seconds).await;
            let failure = lab.monitor.service_info(SERVICE).and_then(|info| info.check.failure);
            failure.map_or_else(String::new, |failure| failure.code.to_string())
        }
        Look::Status(seconds) => {
            lab.pass(seconds).await;
            lab.monitor.service_status(SERVICE).unwrap().to_string()
        }
        Look::Told(seconds) => {
            lab.pass(seconds).await;
            notices(&lab.told)
        }
        Look::Notices(seconds) => {
            lab.pass(seconds).await;
            lab.told.delivered().len().to_string()
        }
        Look::ToldOther(seconds) => {
            lab.pass(seconds).await;
            notices(&lab.other)
        }
        Look::Messages(seconds) => {
            lab.pass(seconds).await;
            let alerts = lab.told.delivered().into_iter().flat_map(|notice| notice.alerts);
            alerts.map(|alert| alert.message).collect::<Vec<_>>().join(", ")
        }
        Look::FirstNotice => {
            lab.told.wait_for(1).await;
            ((started.elapsed().as_secs() + 30) / 60).to_string()
        }
        Look::AlertLength(seconds) => {
            lab.pass(seconds).await;
            let ended = lab
                .told
                .delivered()
                .into_iter()
                .flat_map(|notice| notice.alerts)
                .find_map(|alert| alert.resolved_at.map(|ended| ended.since(alert.timestamp)));
            ended.map_or_else(|| "none".to_owned(), |span| ((span.as_secs() + 30) / 60).to_string())
        }
        Look::Host(seconds) => {
            lab.pass(seconds).await;
            (lab.sampled.load(Ordering::SeqCst) > 0).to_string()
        }
        Look::Dropped(seconds) => {
            lab.pass(seconds).await;
            let dropped = lab.monitor.snapshot().monitor.dropped_samples_total;
            (dropped > 0).to_string()
        }
    };
    lab.monitor.stop().await;
    seen
}
