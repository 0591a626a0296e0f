//! The loop: one task that holds all state and takes events one after the other.

use std::collections::HashMap;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::AtomicI64;
use std::time::Duration;

use mcpmon_core::contract::MonitorReport;
use mcpmon_core::monitor::MonitorEvent;
use mcpmon_core::service::{ServiceName, ServiceSpec};
use mcpmon_core::store::{AlertQuery, Batch, Retention, Store, StoreError};
use mcpmon_core::{Handler, ProbeFactory, Settings, Timestamp};
use tokio::sync::{Notify, broadcast, mpsc, watch};
use tokio::task::{JoinError, JoinHandle, JoinSet};
use tokio::time::{Instant, Interval, MissedTickBehavior, interval, timeout_at};

use crate::baseline;
use crate::buffer::SampleBuffer;
use crate::builder::{MonitorBuilder, StartError};
use crate::deliver::{Deliverer, Feeder};
use crate::failpoint::Failpoint;
use crate::handle::{Request, RunningMonitor, Shared};
use crate::handover::Departures;
use crate::judge::Judge;
use crate::lag::Lags;
use crate::maintain::Windows;
use crate::network::Network;
use crate::outbox::{Entry, Outbox};
use crate::pools::Pools;
use crate::pulse::Pulse;
use crate::reach::Reach;
use crate::recall::{
    Known, interrupted, last_step, recall_services, record_start, reported_changes,
};
use crate::remediate::{Acted, Repairs};
use crate::round::FirstRound;
use crate::schedule::Schedule;
use crate::upkeep::{self, HostNews};
use crate::watcher::Observed;
use crate::world::{Watched, World};

/// Rules run, and a batch is written, this often.
const TICK: Duration = Duration::from_secs(1);
/// A check that begins later than this is counted.
pub(crate) const LATE: Duration = Duration::from_secs(1);
/// Watchers have so long to end their sessions.
const CLOSE_WITHIN: Duration = Duration::from_secs(6);
/// The last batch, and beside it the last transitions and deliveries, have so long.
const FLUSH_WITHIN: Duration = Duration::from_millis(2_500);
/// All of it, and a moment.
pub(crate) const STOP_WITHIN: Duration = Duration::from_secs(9);
/// The machine is measured over a second; a disk that hangs must not hold the first round up.
const HOST_WITHIN: Duration = Duration::from_secs(5);
/// A handler may be away for so long, because it is renamed and named back or added only after the
/// start, until what waits for it is given up.
const GIVE_UP_AFTER: Duration = Duration::from_secs(300);
/// Events a slow subscriber may be behind before it misses some.
const EVENT_BACKLOG: usize = 4_096;
/// Results that may wait for the loop before watchers wait.
const REPORT_BACKLOG: usize = 1_024;

/// Everything that reaches the loop.
enum Event {
    Observed(Box<Observed>),
    Host(HostNews),
    Request(Request),
    Written(Batch, Result<(), StoreError>),
    Committed(Result<(), StoreError>),
    Acted(Result<Acted, JoinError>),
    Tick,
}

/// A batch on its way to the store.
pub(crate) struct Writing {
    pub(crate) batch: Arc<Batch>,
    pub(crate) task: JoinHandle<Result<(), StoreError>>,
    pub(crate) since: Instant,
}

/// All state, held by one task.
pub(crate) struct Engine {
    pub(crate) shared: Arc<Shared>,
    pub(crate) events: broadcast::Sender<MonitorEvent>,
    pub(crate) settings: Settings,
    pub(crate) windows: Windows,
    pub(crate) factory: Arc<dyn ProbeFactory>,
    pub(crate) judge: Judge,
    pub(crate) repairs: Repairs,
    pub(crate) buffer: SampleBuffer,
    pub(crate) pools: Pools,
    pub(crate) pulse: Pulse,
    pub(crate) network: Network,
    pub(crate) lags: Lags,
    pub(crate) generation: u64,
    /// Services that were watched a short while ago, and since when they are not.
    pub(crate) removed: HashMap<ServiceName, (Instant, Watched)>,
    pub(crate) reports: mpsc::Sender<Observed>,
    pub(crate) watchers: JoinSet<()>,
    pub(crate) leaving_watchers: Departures<ServiceName>,
    pub(crate) writing: Option<Writing>,
    /// Whether the last batch was written.
    pub(crate) store_works: bool,
    pub(crate) transitions: mpsc::UnboundedSender<Entry>,
    pub(crate) committed: mpsc::UnboundedReceiver<Result<(), StoreError>>,
    pub(crate) outbox: Arc<Outbox>,
    pub(crate) queued: Arc<Notify>,
    pub(crate) feeders: HashMap<String, Feeder>,
    /// Handlers came or went; what waits for those that are gone is given up then.
    pub(crate) give_up_at: Option<Instant>,
    pub(crate) deliverers: JoinSet<()>,
    pub(crate) leaving_deliverers: Departures<String>,
    pub(crate) host_enabled: watch::Sender<bool>,
    pub(crate) retention: watch::Sender<Retention>,
    pub(crate) first_round: FirstRound,
    pub(crate) first_round_over: watch::Sender<bool>,
    /// The same for the verdicts on what failed in it.
    pub(crate) first_verdicts: FirstRound,
    pub(crate) first_verdicts_over: watch::Sender<bool>,
    /// Transitions given to be written, and those answered for, since the start.
    pub(crate) commits_sent: u64,
    pub(crate) commits_done: u64,
    pub(crate) host_dirty: bool,
    /// The first round waits for the first sample of the machine until then.
    pub(crate) host_awaited_until: Option<Instant>,
}

/// Takes up what was stored, starts the loop and gives its handle.
pub(crate) async fn start(
    mut parts: MonitorBuilder,
    factory: Arc<dyn ProbeFactory>,
    store: Arc<dyn Store>,
) -> Result<RunningMonitor, StartError> {
    let handlers: Vec<String> =
        parts.handlers.iter().map(|handler| handler.name().to_owned()).collect();
    let mut judge = Judge::new(
        &parts.settings,
        parts.builtin_rules,
        std::mem::take(&mut parts.rules),
        &handlers,
    )?;
    let now = parts.clock.now();
    let is_watched = |name: &ServiceName| parts.services.iter().any(|spec| spec.name == *name);
    let states = store.states().await?;
    let reported = reported_changes(&states);
    let last_evaluation = states.iter().map(last_step).max();
    let ended = judge.restore(states, is_watched, now);
    judge.set_silences(store.silences(now).await?);
    let (events, _) = broadcast::channel(EVENT_BACKLOG);
    let report = MonitorReport {
        running: true,
        version: parts.version.clone(),
        started_at: Some(now),
        interval_seconds: Some(parts.settings.monitoring.check_interval.as_secs_f64()),
        ..MonitorReport::default()
    };
    let alerts = store.alerts(&AlertQuery { limit: 200, ..AlertQuery::default() }).await?;
    let reach = judge.reach();
    let world = World { report, reach_of_rules: reach, alerts: alerts.into(), ..World::default() };
    let shared = Arc::new(Shared {
        world: world.into(),
        events: events.downgrade(),
        clock: Arc::clone(&parts.clock),
        store: Arc::clone(&store),
        set_back_millis: AtomicI64::new(0),
    });

    let (requests, request_queue) = mpsc::unbounded_channel();
    let (reports, report_queue) = mpsc::channel(REPORT_BACKLOG);
    let (samples, sample_queue) = mpsc::channel(4);
    let (transitions, transition_queue) = mpsc::unbounded_channel();
    let (done, committed) = mpsc::unbounded_channel();
    let (host_enabled, host_switch) = watch::channel(parts.settings.performance_enabled());
    let (retention, retention_setting) = watch::channel(Retention::from_settings(&parts.settings));
    let (first_round_over, first_round) = watch::channel(false);
    let (first_verdicts_over, first_verdicts) = watch::channel(false);
    let outbox = Arc::new(Outbox::new(Arc::clone(&store)));
    let queued = Arc::new(Notify::new());

    let mut upkeep = JoinSet::new();
    upkeep.spawn(upkeep::prune(Arc::clone(&shared), retention_setting));
    upkeep.spawn(upkeep::take_commands(Arc::clone(&store), requests.clone()));
    upkeep.spawn(upkeep::pay(Arc::clone(&outbox)));
    upkeep.spawn(baseline::keep(Arc::clone(&shared)));
    let measures_host = parts.host.is_some() && parts.settings.performance_enabled();
    if let Some(host) = parts.host.take() {
        upkeep.spawn(upkeep::measure(host, host_switch, samples));
    }
    let committer =
        tokio::spawn(commit_all(Arc::clone(&outbox), transition_queue, done, Arc::clone(&queued)));

    let repairs = Repairs::new(parts.remedy.take(), &parts.settings, Arc::clone(&store));
    let mut engine = Engine {
        shared: Arc::clone(&shared),
        events,
        buffer: SampleBuffer::new(parts.settings.data_collection.metrics_buffer_size),
        pools: Pools::new(),
        pulse: Pulse::new(Instant::now().into_std(), now),
        network: Network::default(),
        lags: Lags::new(Instant::now().into_std()),
        windows: Windows::new(&parts.settings),
        settings: parts.settings,
        factory,
        judge,
        repairs,
        generation: 0,
        removed: HashMap::new(),
        reports,
        watchers: JoinSet::new(),
        leaving_watchers: Departures::default(),
        writing: None,
        store_works: true,
        transitions,
        committed,
        outbox,
        queued,
        feeders: HashMap::new(),
        give_up_at: Some(Instant::now() + GIVE_UP_AFTER),
        deliverers: JoinSet::new(),
        leaving_deliverers: Departures::default(),
        host_enabled,
        retention,
        first_round: FirstRound::Asking,
        first_round_over,
        first_verdicts: FirstRound::Asking,
        first_verdicts_over,
        commits_sent: 0,
        commits_done: 0,
        host_dirty: false,
        host_awaited_until: measures_host.then(|| Instant::now() + HOST_WITHIN),
    };
    engine.take_up(parts.services, &reported, last_evaluation, now).await?;
    engine.restore_repairs(now).await?;
    engine.record_ended(ended);
    for handler in parts.handlers {
        engine.feed(handler);
    }
    let ended = engine.judge.fed(|handler| engine.feeders.contains_key(handler), now);
    engine.record_ended(ended);
    let task =
        tokio::spawn(engine.run(report_queue, sample_queue, request_queue, upkeep, committer));
    Ok(RunningMonitor { shared, requests, first_round, first_verdicts, task: Some(task) })
}

/// Writes transitions in order, at once.
async fn commit_all(
    outbox: Arc<Outbox>,
    mut transitions: mpsc::UnboundedReceiver<Entry>,
    done: mpsc::UnboundedSender<Result<(), StoreError>>,
    queued: Arc<Notify>,
) {
    while let Some(entry) = transitions.recv().await {
        let transition = match entry {
            Entry::Transition(transition) => *transition,
            Entry::Handlers(handlers, at) => {
                outbox.give_up_for_others(handlers, at).await;
                continue;
            }
        };
        let tells = !transition.deliveries.is_empty();
        if tells {
            Failpoint::BeforeCommit.pass();
        }
        let result = outbox.commit(transition).await;
        if tells {
            Failpoint::AfterCommit.pass();
        }
        queued.notify_waiters();
        if done.send(result).is_err() {
            return;
        }
    }
}

impl Engine {
    /// Watches `services`, with what the store knows of them.
    async fn take_up(
        &mut self,
        services: Vec<ServiceSpec>,
        reported: &HashMap<ServiceName, Timestamp>,
        last_evaluation: Option<Timestamp>,
        now: Timestamp,
    ) -> Result<(), StartError> {
        let spread = Schedule::spread(services.len(), self.settings.monitoring.check_interval);
        let mut watched = Known::new();
        for spec in services {
            let spec = Arc::new(spec);
            self.generation += 1;
            let mut one = Watched::new(Arc::clone(&spec), self.generation, self.judge.reach(), now);
            one.maintained = self.windows.holds(&spec, now);
            watched.insert(spec.name.clone(), one);
        }
        let store = Arc::clone(&self.shared.store);
        let reach = self.judge.reach();
        // What is watched no longer stays in the history, marked so.
        let recalled = recall_services(&*store, &mut watched, reported, reach, now).await?;
        for mut gone in recalled.others {
            gone.watched = false;
            self.buffer.batch.facts.push(gone);
        }
        let last_sample = store.last_host().await?.map(|sample| sample.at);
        // The last moment of which the monitor before this one stored anything.
        let ran_until = recalled.last_record.max(last_evaluation).max(last_sample);
        let ran_until = ran_until.unwrap_or(now).min(now);
        for (name, mut one) in watched {
            // Alerts are written at once and statuses with the next batch: after a crash what is
            // known of a service may be older than its alert, and must not be held against it. So
            // every service awaits a check now, which is stored for those who read the past.
            match interrupted(&mut one, ran_until, now) {
                Some(change) => self.note_change(Some(change)),
                None => {
                    let last_start = recalled.last_starts.get(&name).copied();
                    self.buffer
                        .batch
                        .changes
                        .extend(record_start(&mut one, ran_until, last_start, now));
                }
            }
            one.awaits_recheck = true;
            let ended = self.wake(&mut one, spread, now);
            self.record_ended(ended);
            self.shared.write().services.insert(name, one);
        }
        Ok(())
    }

    /// Gives one handler a task that feeds it.
    pub(crate) fn feed(&mut self, handler: Arc<dyn Handler>) {
        let name = handler.name().to_owned();
        self.stop_feeding(&name);
        self.outbox.is_there(&name);
        let open = self.judge.open_for(&name);
        if std::panic::catch_unwind(AssertUnwindSafe(|| handler.resume(&open))).is_err() {
            tracing::error!(handler = %name, "Handler panicked taking up open alerts");
        }
        let (deliverer, feeder) = Deliverer::new(
            handler,
            Arc::clone(&self.outbox),
            Arc::clone(&self.queued),
            Arc::clone(&self.shared),
            self.leaving_deliverers.take(&name),
        );
        self.deliverers.spawn(deliverer.run());
        self.shared.write().reach.insert(name.clone(), Reach::default());
        self.feeders.insert(name, feeder);
    }

    /// Gives up what waits for handlers that have been gone for a while.
    fn see_leftovers(&mut self) {
        if self.give_up_at.take_if(|at| *at <= Instant::now()).is_some() {
            let handlers = self.feeders.keys().cloned().collect();
            let _ = self.transitions.send(Entry::Handlers(handlers, self.shared.clock.now()));
        }
    }

    /// Gives one handler nothing more; says whether there was one. What it is taking now it may
    /// take to the end.
    pub(crate) fn stop_feeding(&mut self, name: &str) -> bool {
        let Some(feeder) = self.feeders.remove(name) else {
            return false;
        };
        self.leaving_deliverers.note(name.to_owned(), feeder.dismiss());
        self.give_up_at = Some(Instant::now() + GIVE_UP_AFTER);
        self.shared.write().reach.remove(name);
        true
    }

    async fn run(
        mut self,
        mut reports: mpsc::Receiver<Observed>,
        mut samples: mpsc::Receiver<HostNews>,
        mut requests: mpsc::UnboundedReceiver<Request>,
        upkeep: JoinSet<()>,
        committer: JoinHandle<()>,
    ) {
        let mut ticks = interval(TICK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
        let mut samples_open = true;
        loop {
            let event = tokio::select! {
                biased;
                request = requests.recv() => match request {
                    Some(Request::Stop) | None => break,
                    Some(request) => Event::Request(request),
                },
                _ = ticks.tick() => Event::Tick,
                result = finished(&mut self.writing) => Event::Written(result.0, result.1),
                Some(result) = self.committed.recv() => Event::Committed(result),
                Some(observed) = reports.recv() => Event::Observed(Box::new(observed)),
                sample = samples.recv(), if samples_open => match sample {
                    Some(news) => Event::Host(news),
                    None => {
                        samples_open = false;
                        continue;
                    }
                },
                Some(_) = self.watchers.join_next() => continue,
                Some(acted) = self.repairs.next_acted() => Event::Acted(acted),
                Some(_) = self.deliverers.join_next() => continue,
            };
            self.see_time();
            self.take(event);
        }
        self.stop(reports, ticks, upkeep, committer).await;
    }

    fn take(&mut self, event: Event) {
        match event {
            Event::Observed(observed) => self.observed(*observed),
            Event::Host(HostNews::Measured(metrics)) => self.measured(*metrics),
            Event::Host(HostNews::WayOut(known)) => self.told_of_network(known),
            Event::Request(request) => self.request(request),
            Event::Written(batch, result) => self.written(batch, result),
            Event::Committed(result) => {
                self.commits_done += 1;
                if let Err(error) = result {
                    self.store_failed(&error);
                }
                self.see_first_round();
            }
            Event::Acted(acted) => self.acted(acted),
            Event::Tick => {
                self.see_maintenance();
                self.see_network();
                self.see_leftovers();
                self.judge_services();
                self.see_repairs();
                self.write();
                self.see_recovery();
                self.see_round_judged();
                self.shared.write().report.start_lag = self.lags.report();
            }
        }
    }

    /// Ends sessions and processes, writes what was seen, delivers what is due.
    async fn stop(
        mut self,
        mut reports: mpsc::Receiver<Observed>,
        mut ticks: Interval,
        mut upkeep: JoinSet<()>,
        committer: JoinHandle<()>,
    ) {
        for watched in self.shared.write().services.values_mut() {
            watched.reins = None;
        }
        let records = self.repairs.end();
        let closing_ends = Instant::now() + CLOSE_WITHIN;
        while !self.watchers.is_empty() {
            tokio::select! {
                _ = self.watchers.join_next() => {}
                Some(observed) = reports.recv() => self.observed(observed),
                // A session that takes long to end delays no alert.
                _ = ticks.tick() => self.judge_services(),
                () = tokio::time::sleep_until(closing_ends) => {
                    tracing::warn!("Some sessions did not end in time and were dropped");
                    self.watchers.abort_all();
                    break;
                }
            }
        }
        upkeep.abort_all();
        while let Ok(observed) = reports.try_recv() {
            self.observed(observed);
        }
        self.judge_services();
        let Self { shared, buffer, writing, transitions, feeders, deliverers, outbox, .. } = self;
        // Lets the committer end once everything is written.
        drop(transitions);
        let flush_ends = Instant::now() + FLUSH_WITHIN;
        let samples = timeout_at(flush_ends, flush(buffer, writing, &*shared.store));
        let messages =
            timeout_at(flush_ends, last_messages(committer, feeders, deliverers, outbox));
        let repairs = timeout_at(flush_ends, async {
            if let Some(records) = records {
                let _ = records.await;
            }
        });
        let (samples, messages, repairs) = tokio::join!(samples, messages, repairs);
        if repairs.is_err() {
            tracing::error!("The last records of repairs could not be written in time");
        }
        if samples.is_err() {
            tracing::error!("The last samples could not be written in time");
        }
        if messages.is_err() {
            tracing::warn!("Some notifications wait in the outbox for the next start");
        }
        shared.write().report.running = false;
    }
}

/// Writes what is left to write, after what is being written.
async fn flush(mut buffer: SampleBuffer, writing: Option<Writing>, store: &dyn Store) {
    if let Some(writing) = writing
        && let Ok(Err(_)) = writing.task.await
    {
        buffer.put_back(Arc::unwrap_or_clone(writing.batch));
    }
    if buffer.batch.is_empty() {
        return;
    }
    if let Err(error) = store.append(&buffer.take()).await {
        tracing::error!(%error, "The last samples could not be written");
    }
}

/// Has the last transitions written, and what is due then tried once more.
async fn last_messages(
    committer: JoinHandle<()>,
    feeders: HashMap<String, Feeder>,
    mut deliverers: JoinSet<()>,
    outbox: Arc<Outbox>,
) {
    let _ = committer.await;
    feeders.values().for_each(Feeder::finish);
    // A handler that hangs must not keep the log from getting what it is owed, nor the log the
    // handlers; what was delivered meanwhile is settled after it.
    let delivered = async { while deliverers.join_next().await.is_some() {} };
    let (paid, ()) = tokio::join!(outbox.pay(), delivered);
    let result = match paid {
        Ok(()) => outbox.pay().await,
        Err(error) => Err(error),
    };
    if let Err(error) = result {
        tracing::warn!(%error, "Some notifications could not be kept for the next start");
    }
}

/// The result of the batch being written, which is taken then; never, while none is.
async fn finished(writing: &mut Option<Writing>) -> (Batch, Result<(), StoreError>) {
    let result = match writing {
        None => std::future::pending().await,
        Some(writing) => (&mut writing.task).await,
    };
    let batch = writing.take().map(|writing| writing.batch).unwrap_or_default();
    match result {
        Ok(result) => (Arc::unwrap_or_clone(batch), result),
        // The store panicked: the batch is lost with it, and said so; what changed is reported.
        Err(_) => {
            let list_changes = batch.list_changes.clone();
            (Batch { list_changes, ..Batch::default() }, Err(StoreError::Closed))
        }
    }
}
