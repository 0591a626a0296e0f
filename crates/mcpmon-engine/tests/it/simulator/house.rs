//! A monitor over many lives: started, stopped and killed over one store, one fleet and the same
//! people who are told, on a clock that runs on from one life to the next.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use mcpmon_core::alert::{DeliveryError, Handler, Notification, Receipt};
use mcpmon_core::monitor::{CommandError, MonitorCommand, MonitorHandle as _};
use mcpmon_core::store::{AlertQuery, AlertRecord, Store};
use mcpmon_core::{Clock as _, ServiceSpec, Settings, Timestamp};
use mcpmon_engine::{Change, MemoryStore, Monitor, RunningMonitor};
use mcpmon_testkit::{START, TokioClock};
use tokio::runtime::Runtime;

use super::fleet::Fleet;

/// What a [`Witness`] does with what it is given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mood {
    Takes,
    SaysLater,
    Hangs,
}

/// Somebody who is told, and remembers what and when.
#[derive(Debug, Clone)]
pub(crate) struct Witness {
    name: String,
    clock: Arc<Mutex<Option<TokioClock>>>,
    seen: Arc<Mutex<Vec<(Timestamp, Notification)>>>,
    mood: Arc<Mutex<Mood>>,
}

fn locked<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Witness {
    pub(crate) fn is(&self, mood: Mood) {
        *locked(&self.mood) = mood;
    }

    pub(crate) fn mood(&self) -> Mood {
        *locked(&self.mood)
    }

    /// What it took, in order, and when.
    pub(crate) fn heard(&self) -> Vec<(Timestamp, Notification)> {
        locked(&self.seen).clone()
    }

    /// Messages about alerts of this rule, by kind, subject and number of alerts.
    pub(crate) fn told_of(&self, rule: &str) -> Vec<String> {
        let heard = self.heard();
        let of_rule = heard.iter().filter(|(_, told)| told.alerts[0].rule_name == rule);
        of_rule
            .map(|(_, told)| {
                let alert = &told.alerts[0];
                let over = if alert.resolved_at.is_some() { "ended" } else { "fires" };
                let kind = told.kind.as_str();
                let subject = &alert.subject;
                format!("{kind} {subject} {over} x{}", told.alerts.len())
            })
            .collect()
    }
}

#[async_trait]
impl Handler for Witness {
    fn name(&self) -> &str {
        &self.name
    }

    async fn deliver(&self, notification: &Notification) -> Result<Receipt, DeliveryError> {
        let mood = *locked(&self.mood);
        match mood {
            Mood::Takes => {
                let now = locked(&self.clock).as_ref().map_or(START, |clock| clock.now());
                locked(&self.seen).push((now, notification.clone()));
                Ok(Receipt::accepted())
            }
            Mood::SaysLater => Err(DeliveryError::transient("busy, try later")),
            Mood::Hangs => std::future::pending().await,
        }
    }
}

struct Life {
    runtime: Runtime,
    clock: TokioClock,
    monitor: RunningMonitor,
}

/// What the clock shows; it runs with the runtime's own, which only it knows.
fn now_in(runtime: &Runtime, clock: &TokioClock) -> Timestamp {
    let _inside = runtime.enter();
    clock.now()
}

impl Life {
    fn now(&self) -> Timestamp {
        now_in(&self.runtime, &self.clock)
    }
}

/// Everything that outlives a monitor.
pub(crate) struct House {
    pub(crate) store: Arc<dyn Store>,
    pub(crate) fleet: Fleet,
    pub(crate) settings: Settings,
    pub(crate) services: Vec<ServiceSpec>,
    pub(crate) witnesses: Vec<Witness>,
    /// Opens the store anew for each life; else it is the same over all of them.
    pub(crate) reopen: Option<Box<dyn Fn() -> Arc<dyn Store>>>,
    /// How often it was killed: each time one message may come twice.
    pub(crate) kills: usize,
    clock: Arc<Mutex<Option<TokioClock>>>,
    now: Timestamp,
    life: Option<Life>,
}

impl House {
    /// A house whose monitor does not run yet; checks every 10 s.
    pub(crate) fn new(seed: u64) -> Self {
        let mut settings = Settings::default();
        settings.monitoring.check_interval = Duration::from_secs(10);
        settings.performance_monitoring.enabled = false;
        let clock = Arc::default();
        let mut house = Self {
            store: Arc::new(MemoryStore::new()),
            fleet: Fleet::new(seed),
            settings,
            services: Vec::new(),
            witnesses: Vec::new(),
            reopen: None,
            kills: 0,
            clock,
            now: START,
            life: None,
        };
        house.hire("ops");
        house
    }

    /// The clock of the first start shows a full second, as the ticks of a replay do.
    pub(crate) fn begin_at_full_second(&mut self) {
        let millis = self.now.as_millis();
        self.now = Timestamp::from_millis(millis - millis.rem_euclid(1_000));
    }

    /// Somebody more is told, from the next start or reload on.
    pub(crate) fn hire(&mut self, name: &str) -> Witness {
        let witness = Witness {
            name: name.to_owned(),
            clock: Arc::clone(&self.clock),
            seen: Arc::default(),
            mood: Arc::new(Mutex::new(Mood::Takes)),
        };
        self.witnesses.push(witness.clone());
        witness
    }

    pub(crate) fn ops(&self) -> Witness {
        self.witnesses[0].clone()
    }

    /// Watches one service more, from the next start or reload on.
    pub(crate) fn watch(&mut self, name: &str, depends_on: &[&str]) {
        self.watch_spec(ServiceSpec::http(name, format!("http://{name}.test/mcp")), depends_on);
    }

    /// The same for a process that is spoken to over its pipes.
    pub(crate) fn watch_process(&mut self, name: &str, depends_on: &[&str]) {
        self.watch_spec(ServiceSpec::stdio(name, "server", ["--stdio"]), depends_on);
    }

    fn watch_spec(&mut self, mut spec: ServiceSpec, depends_on: &[&str]) {
        spec.limits = self.settings.limits();
        spec.depends_on = depends_on.iter().map(|need| (*need).to_owned()).collect();
        if let Some(need) = depends_on.first() {
            self.fleet.set_need(spec.name.as_str(), need);
        }
        self.services.push(spec);
    }

    pub(crate) fn now(&self) -> Timestamp {
        self.life.as_ref().map_or(self.now, Life::now)
    }

    pub(crate) fn start(&mut self) {
        if let Some(reopen) = &self.reopen {
            // One opens it at a time.
            self.store = Arc::new(MemoryStore::new());
            self.store = reopen();
        }
        let mut builder = tokio::runtime::Builder::new_current_thread();
        let runtime = builder.enable_all().start_paused(true).build().unwrap();
        let (start, settings) = (self.now, self.settings.clone());
        let (clock, monitor) = runtime.block_on(async {
            let clock = TokioClock::starting_at(start);
            let mut monitor = Monitor::builder()
                .settings(settings)
                .services(self.services.clone())
                .store(Arc::clone(&self.store))
                .probe_factory(self.fleet.clone())
                .host_probe(self.fleet.clone())
                .clock(Arc::new(clock.clone()));
            for witness in &self.witnesses {
                monitor = monitor.handler(witness.clone());
            }
            *locked(&self.clock) = Some(clock.clone());
            (clock, monitor.start().await.unwrap())
        });
        self.life = Some(Life { runtime, clock, monitor });
    }

    fn life(&self) -> &Life {
        self.life.as_ref().expect("the monitor runs")
    }

    /// Lets so many seconds pass.
    pub(crate) fn wait(&self, seconds: u64) {
        self.wait_millis(seconds * 1_000);
    }

    pub(crate) fn wait_millis(&self, millis: u64) {
        self.life()
            .runtime
            .block_on(async { tokio::time::sleep(Duration::from_millis(millis)).await });
    }

    /// The machine sleeps for so many seconds.
    pub(crate) fn sleep(&self, seconds: u64) {
        self.life().clock.advance(Duration::from_secs(seconds));
    }

    pub(crate) fn monitor(&self) -> &RunningMonitor {
        &self.life().monitor
    }

    /// Stops the monitor in order.
    pub(crate) fn stop(&mut self) {
        let life = self.life.take().expect("the monitor runs");
        let Life { runtime, clock, monitor } = life;
        runtime.block_on(monitor.stop());
        self.now = now_in(&runtime, &clock);
    }

    /// Lets go of the monitor, which ends by itself.
    pub(crate) fn drop_it(&mut self) {
        let Life { runtime, clock, monitor } = self.life.take().expect("the monitor runs");
        drop(monitor);
        runtime.block_on(async { tokio::time::sleep(RunningMonitor::STOP_WITHIN).await });
        self.now = now_in(&runtime, &clock);
    }

    /// Ends the monitor where it stands, as `kill -9` does.
    pub(crate) fn kill(&mut self) {
        let Life { runtime, clock, monitor } = self.life.take().expect("the monitor runs");
        self.now = now_in(&runtime, &clock);
        self.kills += 1;
        drop(runtime);
        drop(monitor);
    }

    /// Time in which no monitor runs.
    pub(crate) fn rest(&mut self, seconds: u64) {
        self.now = self.now.saturating_add(Duration::from_secs(seconds));
    }

    /// The next start shows a full second, as [`Self::begin_at_full_second`] has it.
    pub(crate) fn rest_until_full_second(&mut self) {
        let millis = self.now.as_millis();
        self.now = Timestamp::from_millis(millis + (-millis).rem_euclid(1_000));
    }

    /// Has the monitor take settings, services and witnesses as they are now.
    pub(crate) fn reload(&self) {
        let handlers: Vec<Arc<dyn Handler>> =
            self.witnesses.iter().map(|w| Arc::new(w.clone()) as Arc<dyn Handler>).collect();
        let (settings, services) = (self.settings.clone(), self.services.clone());
        let change = Change { settings, services, handlers };
        self.life().runtime.block_on(self.monitor().apply(change)).unwrap();
    }

    pub(crate) fn command(&self, command: MonitorCommand) -> Result<(), CommandError> {
        self.life().runtime.block_on(self.monitor().command(command))
    }

    /// Runs a question to the store, whether or not a monitor runs.
    pub(crate) fn ask<T>(&self, question: impl Future<Output = T>) -> T {
        match &self.life {
            Some(life) => life.runtime.block_on(question),
            None => {
                let mut builder = tokio::runtime::Builder::new_current_thread();
                builder.enable_all().build().unwrap().block_on(question)
            }
        }
    }

    /// Alerts as they are kept, oldest first.
    pub(crate) fn alerts(&self, active: bool) -> Vec<AlertRecord> {
        let query = AlertQuery { active, limit: 100_000, ..AlertQuery::default() };
        let mut alerts = self.ask(self.store.alerts(&query)).unwrap();
        alerts.reverse();
        alerts
    }
}
