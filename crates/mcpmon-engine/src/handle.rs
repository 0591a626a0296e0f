//! A running monitor as its owner holds it.

use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use async_trait::async_trait;
use mcpmon_core::contract::{MonitorReport, ServiceStatusReport};
use mcpmon_core::monitor::{
    CommandError, EventStream, MonitorCommand, MonitorEvent, MonitorHandle, Snapshot,
};
use mcpmon_core::service::{ServiceName, ServiceSpec};
use mcpmon_core::store::{
    AlertQuery, AlertRecord, CheckRecord, Page, RecordQuery, Store, StoreError,
};
use mcpmon_core::window::DEFAULT_WINDOW;
use mcpmon_core::{
    Clock, Handler, Rule, ServiceMetrics, Settings, Status, SystemMetrics, Timestamp,
};
use tokio::sync::{broadcast, mpsc, oneshot, watch};
use tokio::task::JoinHandle;

use crate::builder::StartError;
use crate::recall::{Known, recall_new};
use crate::world::World;

/// What can be exchanged in a running monitor in one go.
pub struct Change {
    /// The new settings: intervals, thresholds, rules, routes.
    pub settings: Settings,
    /// All services there are to be. Those that did not change keep their sessions.
    pub services: Vec<ServiceSpec>,
    /// All handlers there are to be.
    pub handlers: Vec<Arc<dyn Handler>>,
}

pub(crate) type Reply<T> = oneshot::Sender<T>;

/// What the loop is asked to do.
pub(crate) enum Request {
    /// With what the store knows of it.
    AddService(Box<ServiceSpec>, Known, Reply<Result<(), CommandError>>),
    RemoveService(ServiceName, Reply<Result<(), CommandError>>),
    AddRule(Arc<dyn Rule>, Reply<()>),
    RemoveRule(String, Reply<bool>),
    AddHandler(Arc<dyn Handler>, Reply<()>),
    RemoveHandler(String, Reply<bool>),
    /// With what the store knows of services that are new.
    Apply(Box<Change>, Known, Reply<Result<(), StartError>>),
    ReloadFailed(String),
    Command(MonitorCommand, Option<Reply<Result<(), CommandError>>>),
    Stop,
}

/// What handle and loop share.
pub(crate) struct Shared {
    pub(crate) world: RwLock<World>,
    /// Weak, because the loop holds the sender: when the loop ends, however it ends, so do events.
    pub(crate) events: broadcast::WeakSender<MonitorEvent>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) store: Arc<dyn Store>,
    /// How far the wall clock was set back since the start and has not been set forward again.
    pub(crate) set_back_millis: AtomicI64,
}

impl Shared {
    /// What the wall clock would show had nobody set it back: what was put off until then is due
    /// when it would have been.
    pub(crate) fn due_time(&self) -> Timestamp {
        let back = self.set_back_millis.load(Ordering::Relaxed);
        Timestamp::from_millis(self.clock.now().as_millis().saturating_add(back))
    }

    pub(crate) fn clock_was_set_back(&self, span: Duration) {
        let millis = i64::try_from(span.as_millis()).unwrap_or(i64::MAX);
        self.set_back_millis.fetch_add(millis, Ordering::Relaxed);
    }

    /// The wall clock ran on for `span` without us, or was set forward again.
    pub(crate) fn clock_ran_on(&self, span: Duration) {
        let millis = i64::try_from(span.as_millis()).unwrap_or(i64::MAX);
        let back = self.set_back_millis.load(Ordering::Relaxed);
        self.set_back_millis.store(back.saturating_sub(millis).max(0), Ordering::Relaxed);
    }

    pub(crate) fn read(&self) -> std::sync::RwLockReadGuard<'_, World> {
        self.world.read().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn write(&self) -> std::sync::RwLockWriteGuard<'_, World> {
        self.world.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// Tells whoever listens, if anybody does.
    pub(crate) fn tell(&self, event: MonitorEvent) {
        if let Some(events) = self.events.upgrade() {
            let _ = events.send(event);
        }
    }
}

/// A running monitor. Dropping it stops the loop without waiting; [`RunningMonitor::stop`] ends
/// sessions and processes and writes what is left.
pub struct RunningMonitor {
    pub(crate) shared: Arc<Shared>,
    pub(crate) requests: mpsc::UnboundedSender<Request>,
    pub(crate) first_round: watch::Receiver<bool>,
    pub(crate) first_verdicts: watch::Receiver<bool>,
    pub(crate) task: Option<JoinHandle<()>>,
}

impl std::fmt::Debug for RunningMonitor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RunningMonitor")
            .field("running", &self.is_running())
            .finish_non_exhaustive()
    }
}

impl RunningMonitor {
    /// Stops: no more checks, every session and process of ours ended, what was seen written, what
    /// is due delivered once more. Usually takes a moment, and [`Self::STOP_WITHIN`] at most: what
    /// hangs is left.
    pub async fn stop(mut self) {
        let _ = self.requests.send(Request::Stop);
        if let Some(task) = self.task.take() {
            let _ = task.await;
        }
    }

    /// Whether the loop still runs.
    pub fn is_running(&self) -> bool {
        self.task.as_ref().is_some_and(|task| !task.is_finished())
    }

    /// Waits until every service that is to be asked was asked once, and the results are stored
    /// and judged.
    pub async fn first_round(&self) {
        let mut first_round = self.first_round.clone();
        let _ = first_round.wait_for(|done| *done).await;
    }

    /// Waits, beyond [`Self::first_round`], until what failed in it was asked again as often as it
    /// takes to say that it is down, and that is stored and judged too. Where checks end by their
    /// deadlines that is a few of them in a row, so put a bound to it.
    pub async fn first_verdicts(&self) {
        let mut first_verdicts = self.first_verdicts.clone();
        let _ = first_verdicts.wait_for(|done| *done).await;
    }

    /// Every service, failing first, then by name.
    pub fn services(&self) -> Vec<ServiceStatusReport> {
        self.snapshot().services.clone()
    }

    /// The monitor itself, without its services.
    pub fn report(&self) -> MonitorReport {
        self.shared.read().report.clone()
    }

    /// A service's status; `None` if there is no such service.
    pub fn service_status(&self, name: &str) -> Option<Status> {
        self.shared.read().services.get(name).map(|watched| watched.fold.state.status)
    }

    /// All that is known of a service.
    pub fn service_info(&self, name: &str) -> Option<ServiceStatusReport> {
        let now = self.shared.clock.now();
        self.shared.read().services.get(name).map(|watched| watched.report(now))
    }

    /// A service's numbers over the last five minutes.
    pub fn service_metrics(&self, name: &str) -> Option<ServiceMetrics> {
        let now = self.shared.clock.now();
        let world = self.shared.read();
        world.services.get(name).map(|watched| watched.metrics(DEFAULT_WINDOW, now))
    }

    /// The machine, once it was measured.
    pub fn system_metrics(&self) -> Option<SystemMetrics> {
        self.shared.read().host.as_ref().map(|host| host.metrics.clone())
    }

    /// Stored checks.
    ///
    /// # Errors
    ///
    /// When the store cannot be read.
    pub async fn history(&self, query: &RecordQuery) -> Result<Page<CheckRecord>, StoreError> {
        self.shared.store.checks(query).await
    }

    /// Stored alerts, newest first.
    ///
    /// # Errors
    ///
    /// When the store cannot be read.
    pub async fn alerts(&self, query: &AlertQuery) -> Result<Vec<AlertRecord>, StoreError> {
        self.shared.store.alerts(query).await
    }

    /// Watches one service more. If it was watched before, its history goes on.
    ///
    /// # Errors
    ///
    /// [`CommandError::ServiceExists`], [`CommandError::Stopped`].
    pub async fn add_service(&self, service: ServiceSpec) -> Result<(), CommandError> {
        let known = self.recall_stored([&service]).await;
        self.ask(|reply| Request::AddService(Box::new(service), known, reply)).await?
    }

    /// Watches one service no more: its session is ended, its history stays.
    ///
    /// # Errors
    ///
    /// [`CommandError::NoSuchService`], [`CommandError::Stopped`].
    pub async fn remove_service(&self, name: &str) -> Result<(), CommandError> {
        self.ask(|reply| Request::RemoveService(ServiceName::from(name), reply)).await?
    }

    /// Judges by one rule more; one of the same name is replaced.
    ///
    /// # Errors
    ///
    /// [`CommandError::Stopped`].
    pub async fn add_rule(&self, rule: impl Rule + 'static) -> Result<(), CommandError> {
        self.ask(|reply| Request::AddRule(Arc::new(rule), reply)).await
    }

    /// Judges by one rule less; says whether there was one.
    ///
    /// # Errors
    ///
    /// [`CommandError::Stopped`].
    pub async fn remove_rule(&self, name: &str) -> Result<bool, CommandError> {
        self.ask(|reply| Request::RemoveRule(name.to_owned(), reply)).await
    }

    /// Tells one handler more; one of the same name is replaced.
    ///
    /// # Errors
    ///
    /// [`CommandError::Stopped`].
    pub async fn add_handler(&self, handler: impl Handler + 'static) -> Result<(), CommandError> {
        self.ask(|reply| Request::AddHandler(Arc::new(handler), reply)).await
    }

    /// Tells one handler less; says whether there was one.
    ///
    /// # Errors
    ///
    /// [`CommandError::Stopped`].
    pub async fn remove_handler(&self, name: &str) -> Result<bool, CommandError> {
        self.ask(|reply| Request::RemoveHandler(name.to_owned(), reply)).await
    }

    /// Exchanges settings, services and handlers in one go; services that did not change keep
    /// their sessions.
    ///
    /// # Errors
    ///
    /// [`StartError`]: nothing was exchanged.
    pub async fn apply(&self, change: Change) -> Result<(), StartError> {
        let known = self.recall_stored(&change.services).await;
        let asked = self.ask(|reply| Request::Apply(Box::new(change), known, reply)).await;
        asked.unwrap_or(Err(StartError::Stopped))
    }

    /// Notes that a new configuration could not be used, for whoever looks at the monitor.
    pub fn reload_failed(&self, error: impl Into<String>) {
        let _ = self.requests.send(Request::ReloadFailed(error.into()));
    }

    /// How long [`RunningMonitor::stop`] takes at the very most.
    pub const STOP_WITHIN: Duration = crate::run::STOP_WITHIN;

    /// What the store knows of those that are not watched yet.
    async fn recall_stored(&self, services: impl IntoIterator<Item = &ServiceSpec>) -> Known {
        let (new, reach): (Vec<&ServiceSpec>, Duration) = {
            let world = self.shared.read();
            let is_new = |spec: &&ServiceSpec| !world.services.contains_key(&spec.name);
            (services.into_iter().filter(is_new).collect(), world.reach_of_rules)
        };
        recall_new(&*self.shared.store, new, reach, self.shared.clock.now()).await
    }

    async fn ask<T>(&self, request: impl FnOnce(Reply<T>) -> Request) -> Result<T, CommandError> {
        let (reply, answer) = oneshot::channel();
        self.requests.send(request(reply)).map_err(|_| CommandError::Stopped)?;
        answer.await.map_err(|_| CommandError::Stopped)
    }
}

impl Drop for RunningMonitor {
    fn drop(&mut self) {
        let _ = self.requests.send(Request::Stop);
    }
}

#[async_trait]
impl MonitorHandle for RunningMonitor {
    fn snapshot(&self) -> Arc<Snapshot> {
        let now = self.shared.clock.now();
        Arc::new(self.shared.read().snapshot(now))
    }

    fn subscribe(&self) -> Box<dyn EventStream> {
        Box::new(Events(self.shared.events.upgrade().map(|events| events.subscribe())))
    }

    async fn command(&self, command: MonitorCommand) -> Result<(), CommandError> {
        self.ask(|reply| Request::Command(command, Some(reply))).await?
    }
}

/// `None` once the monitor has stopped.
struct Events(Option<broadcast::Receiver<MonitorEvent>>);

#[async_trait]
impl EventStream for Events {
    async fn next(&mut self) -> Option<MonitorEvent> {
        match self.0.as_mut()?.recv().await {
            Ok(event) => Some(event),
            Err(broadcast::error::RecvError::Lagged(count)) => Some(MonitorEvent::Missed { count }),
            Err(broadcast::error::RecvError::Closed) => None,
        }
    }
}
