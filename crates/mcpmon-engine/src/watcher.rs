//! One task per service: it owns the probe, keeps the timetable, and reports what was seen.
//!
//! A slow service delays nobody: it waits in its own task, and only its transport's pool bounds
//! how many ask at once.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use mcpmon_core::remedy::Grip;
use mcpmon_core::service::{ServiceName, ServiceSpec, Transport};
use mcpmon_core::{
    Clock, Failure, FailureCode, Observation, Phase, Probe, ProbeFactory, Question, Timestamp,
};
use tokio::sync::{mpsc, oneshot};
use tokio::time::{sleep, sleep_until, timeout};

use crate::handover::{Departure, Presence, presence};
use crate::panic::{BoxFuture, unpanicked};
use crate::pools::{Permit, Pool, Pools, YOUTH};
use crate::schedule::{Noted, Schedule};
use crate::signs;
use crate::startup::StartTimes;

/// A probe keeps its own deadline; so much later the engine no longer believes it will.
const BACKSTOP: Duration = Duration::from_secs(1);
/// A check nobody wants any more may end by itself for so long.
const LAST_ANSWER_WITHIN: Duration = Duration::from_secs(1);
/// A session that does not end in this time is dropped, which kills what it started.
const CLOSE_WITHIN: Duration = Duration::from_secs(10);
/// Longer than any deadline anybody means, and short enough for every clock.
const LONGEST_CHECK: Duration = Duration::from_secs(86_400);
/// What one question saw, on its way to the loop.
#[derive(Debug)]
pub(crate) struct Observed {
    pub(crate) service: ServiceName,
    /// Which watcher of that name it was: one that was replaced no longer counts.
    pub(crate) generation: u64,
    pub(crate) question: Question,
    pub(crate) at: Timestamp,
    /// When it began and ended, by the monotonic clock.
    pub(crate) span: (Instant, Instant),
    /// How late it began.
    pub(crate) lag: Duration,
    /// Rounds of the timetable that were skipped because this one took so long.
    pub(crate) missed: u32,
    /// The process asked is not to be trusted yet.
    pub(crate) unproven: bool,
    pub(crate) observation: Observation,
}

/// What a watcher is told.
#[derive(Debug)]
enum Order {
    /// Ask this now.
    Ask(Question),
    /// Check again within this time: what was known does not hold any longer.
    Recheck(Duration),
    /// From now on these are its times; the session goes on.
    Retime(Arc<ServiceSpec>),
    /// End what is held, and begin anew.
    Release(oneshot::Sender<()>),
}

/// The loop's end of a [`Watcher`]. Dropped, it sends the watcher away.
#[derive(Debug)]
pub(crate) struct Reins {
    orders: mpsc::UnboundedSender<Order>,
    departure: Departure,
}

impl Reins {
    /// Has it asked now.
    pub(crate) fn ask(&self, question: Question) {
        let _ = self.orders.send(Order::Ask(question));
    }

    /// Has it checked again within `spread`.
    pub(crate) fn recheck(&self, spread: Duration) {
        let _ = self.orders.send(Order::Recheck(spread));
    }

    /// Gives it other times and limits of its own, which are no affair of the probe.
    pub(crate) fn retime(&self, spec: Arc<ServiceSpec>) {
        let _ = self.orders.send(Order::Retime(spec));
    }

    /// What ends the session without sending the watcher away.
    pub(crate) fn grip(&self) -> Arc<dyn Grip> {
        Arc::new(Orders(self.orders.downgrade()))
    }

    /// Sends the watcher away; tells when its session is ended and it is gone.
    pub(crate) fn dismiss(self) -> Departure {
        self.departure
    }
}

/// Reaches a watcher as long as there is one, and keeps none.
struct Orders(mpsc::WeakUnboundedSender<Order>);

#[async_trait]
impl Grip for Orders {
    async fn release(&self) -> bool {
        let (done, released) = oneshot::channel();
        let Some(orders) = self.0.upgrade() else { return false };
        let sent = orders.send(Order::Release(done));
        // Held on to, it would keep a watcher that was sent away.
        drop(orders);
        sent.is_ok() && released.await.is_ok()
    }
}

/// What a watcher is and works with.
pub(crate) struct Assignment {
    pub(crate) spec: Arc<ServiceSpec>,
    pub(crate) generation: u64,
    pub(crate) spread: Duration,
    /// How long its process took to start before.
    pub(crate) starts: StartTimes,
    pub(crate) factory: Arc<dyn ProbeFactory>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) pools: Pools,
    pub(crate) reports: mpsc::Sender<Observed>,
    /// Who watched a service of this name before, and may still end its session.
    pub(crate) after: Option<Departure>,
}

/// Watches one service.
pub(crate) struct Watcher {
    work: Assignment,
    orders: mpsc::UnboundedReceiver<Order>,
    /// Who waits for the session to be ended.
    release: Option<oneshot::Sender<()>>,
    _presence: Presence,
}

impl Watcher {
    pub(crate) fn new(work: Assignment) -> (Self, Reins) {
        let (sender, orders) = mpsc::unbounded_channel();
        let (presence, departure) = presence();
        (
            Self { work, orders, release: None, _presence: presence },
            Reins { orders: sender, departure },
        )
    }

    /// Runs until it is sent away; then the probe is closed and nothing of it is alive.
    pub(crate) async fn run(mut self) {
        if let Some(after) = self.work.after.take() {
            after.wait().await;
        }
        if self.orders.is_closed() {
            return;
        }
        let mut probe = self.work.probe();
        self.watch(&mut probe).await;
        let closing = timeout(CLOSE_WITHIN, unpanicked(probe.close()));
        if !matches!(closing.await, Ok(Some(()))) {
            tracing::warn!(service = %self.work.spec.name, "Session was not ended in order");
        }
    }

    async fn watch(&mut self, probe: &mut Box<dyn Probe>) {
        let spawns = matches!(self.work.spec.transport, Transport::Stdio(_));
        let Assignment { spec, spread, starts, .. } = &self.work;
        let mut has_started = false;
        let start = tokio::time::Instant::now().into_std();
        let mut schedule = Schedule::new(spec, starts.clone(), start, *spread);
        let pool = self.work.pools.of(&spec.transport);
        let mut ready = !spawns;
        loop {
            if let Some(released) = self.release.take() {
                self.end_session(probe).await;
                ready = !spawns;
                schedule.released(tokio::time::Instant::now().into_std());
                let _ = released.send(());
            }
            let due = schedule.next(tokio::time::Instant::now().into_std());
            tokio::select! {
                biased;
                order = self.orders.recv() => match order {
                    Some(order) => {
                        self.obey(order, &mut schedule);
                        continue;
                    }
                    None => return,
                },
                () = sleep_until(due.at.into()) => {}
                woken = unpanicked(probe.woken()), if !schedule.is_woken() => {
                    if woken.is_none() {
                        *probe = self.work.probe();
                    }
                    schedule.woken(tokio::time::Instant::now().into_std());
                    continue;
                }
            }
            let Some(mut permit) = self.permit(&pool, &mut schedule).await else {
                return;
            };
            let question = due.question;
            let started = tokio::time::Instant::now().into_std();
            let at = self.work.clock.now();
            let start_up = (!ready).then(|| schedule.grace());
            let deadline = started + time_for(&self.work.spec, question, start_up);
            let mut meanwhile = Meanwhile { permit: &mut permit, wanted: Vec::new() };
            let asked = self.ask(probe, question, deadline, &mut meanwhile).await;
            let Some(mut observation) = asked else { return };
            let wanted = meanwhile.wanted;
            let ended = tokio::time::Instant::now().into_std();
            let Noted { unproven, missed, waited } =
                schedule.answered(question, &observation, started, ended);
            observation.findings.extend(waited.map(signs::waited));
            // The first start of a monitor's life is no restart of the service.
            let started_now = std::mem::replace(&mut observation.restarted, has_started);
            observation.restarted &= started_now;
            has_started |= started_now;
            if question != Question::Dependency {
                ready = !spawns || is_ready(&observation);
            }
            wanted.into_iter().for_each(|order| self.obey(order, &mut schedule));
            let observed = Observed {
                service: self.work.spec.name.clone(),
                generation: self.work.generation,
                question,
                at,
                span: (started, ended),
                missed,
                unproven,
                lag: started.saturating_duration_since(due.at),
                observation,
            };
            if self.work.reports.send(observed).await.is_err() {
                return;
            }
        }
    }

    /// Ends what is held; a probe that cannot is thrown away, which kills what it started.
    async fn end_session(&self, probe: &mut Box<dyn Probe>) {
        let closing = timeout(CLOSE_WITHIN, unpanicked(probe.close()));
        if !matches!(closing.await, Ok(Some(()))) {
            *probe = self.work.probe();
        }
    }

    fn obey(&mut self, order: Order, schedule: &mut Schedule) {
        match order {
            Order::Ask(question) => schedule.want(question),
            Order::Recheck(spread) => {
                schedule.recheck_within(spread, tokio::time::Instant::now().into_std());
            }
            // Who asked for it may have given up waiting, and the session may be well by now.
            Order::Release(released) if released.is_closed() => {}
            Order::Release(released) => self.release = Some(released),
            Order::Retime(spec) => {
                schedule.retime(&spec.limits, tokio::time::Instant::now().into_std());
                self.work.spec = spec;
            }
        }
    }

    /// A place in the transport's pool; `None` when sent away while waiting for it.
    async fn permit(&mut self, pool: &Pool, schedule: &mut Schedule) -> Option<Permit> {
        let entering = pool.clone().enter(schedule.is_failing());
        tokio::pin!(entering);
        loop {
            tokio::select! {
                biased;
                permit = &mut entering => return Some(permit),
                order = self.orders.recv() => match order {
                    Some(order) => self.obey(order, schedule),
                    None => return None,
                },
            }
        }
    }

    /// Asks, and replaces a probe that panicked or kept no deadline; `None` when sent away and the
    /// answer does not come at once.
    async fn ask(
        &mut self,
        probe: &mut Box<dyn Probe>,
        question: Question,
        deadline: Instant,
        meanwhile: &mut Meanwhile<'_>,
    ) -> Option<Observation> {
        let asking = probe.ask(question, deadline);
        let message = match self.answer(asking, deadline, meanwhile).await? {
            Ok(Some(observation)) => return Some(observation),
            Ok(None) => "the probe panicked; this is a defect of the probe, not of the service",
            Err(Overdue) => "the probe did not keep its deadline; this machine may be overloaded",
        };
        *probe = self.work.probe();
        Some(overloaded(message))
    }

    async fn answer(
        &mut self,
        asking: BoxFuture<'_, Observation>,
        deadline: Instant,
        meanwhile: &mut Meanwhile<'_>,
    ) -> Option<Result<Option<Observation>, Overdue>> {
        let backstop = tokio::time::Instant::from_std(deadline) + BACKSTOP;
        let asking = unpanicked(asking);
        // One timer for both: nearly every check ends before either.
        let alarm = sleep(YOUTH);
        tokio::pin!(asking, alarm);
        loop {
            tokio::select! {
                biased;
                answer = &mut asking => return Some(Ok(answer)),
                order = self.orders.recv() => match order {
                    Some(order) => meanwhile.wanted.push(order),
                    None => return timeout(LAST_ANSWER_WITHIN, &mut asking).await.ok().map(Ok),
                },
                () = &mut alarm => {
                    if !meanwhile.permit.grow_up() {
                        return Some(Err(Overdue));
                    }
                    alarm.as_mut().reset(backstop);
                }
            }
        }
    }
}

impl Assignment {
    /// A new probe, or one that says that there is none.
    fn probe(&self) -> Box<dyn Probe> {
        let probe = catch_unwind(AssertUnwindSafe(|| self.factory.probe(&self.spec)));
        probe.unwrap_or_else(|_| Box::new(NoProbe))
    }
}

/// What is done and heard while a check goes on.
struct Meanwhile<'a> {
    permit: &'a mut Permit,
    /// What is wanted now wants an answer of its own.
    wanted: Vec<Order>,
}

/// A probe kept no deadline.
struct Overdue;

/// The whole time of a check; `start_up` is that of a process that has not answered yet.
fn time_for(spec: &ServiceSpec, question: Question, start_up: Option<Duration>) -> Duration {
    let usual = spec.limits.health_check_timeout;
    match question {
        Question::Functional => spec.functional_timeout(),
        Question::Dependency => usual,
        _ => start_up.unwrap_or(usual),
    }
    .min(LONGEST_CHECK)
}

/// Whether the next question goes to a process that was started before: one that is silent now
/// gets no second start-up time.
fn is_ready(observation: &Observation) -> bool {
    let is_held = observation.active_connections.is_some_and(|open| open > 0);
    is_held || observation.failure().is_none()
}

fn overloaded(message: &str) -> Observation {
    Observation::failed(Failure::new(FailureCode::MonitorOverloaded, Phase::Prepare, message))
}

/// Stands in where the factory panicked.
struct NoProbe;

#[async_trait]
impl Probe for NoProbe {
    async fn ask(&mut self, _: Question, _: Instant) -> Observation {
        overloaded("no probe could be made; this is a defect of the factory, not of the service")
    }

    async fn close(&mut self) {}
}

#[cfg(test)]
mod tests {
    use super::*;
    use mcpmon_testkit::{ScriptedFactory, TokioClock};

    #[tokio::test(start_paused = true)]
    async fn a_session_is_not_ended_for_somebody_who_no_longer_waits() {
        let (reports, _observed) = mpsc::channel(1);
        let work = Assignment {
            spec: Arc::new(ServiceSpec::stdio("a", "server", ["--stdio"])),
            generation: 1,
            spread: Duration::ZERO,
            starts: StartTimes::default(),
            factory: Arc::new(ScriptedFactory::new()),
            clock: Arc::new(TokioClock::default()),
            pools: Pools::new(),
            reports,
            after: None,
        };
        let now = tokio::time::Instant::now().into_std();
        let mut schedule = Schedule::new(&work.spec, StartTimes::default(), now, Duration::ZERO);
        let (mut watcher, _reins) = Watcher::new(work);
        let (done, released) = oneshot::channel();
        drop(released);
        watcher.obey(Order::Release(done), &mut schedule);
        assert!(watcher.release.is_none());
        let (done, _released) = oneshot::channel();
        watcher.obey(Order::Release(done), &mut schedule);
        assert!(watcher.release.is_some());
    }
}
