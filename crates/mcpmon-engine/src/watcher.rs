//! One task per service: it owns the probe, keeps the timetable, and reports what was seen.
//!
//! A slow service delays nobody: it waits in its own task, and only its transport's pool bounds
//! how many ask at once.

use std::sync::Arc;
use std::time::{Duration, Instant};

use mcpmon_core::service::{ServiceName, ServiceSpec, Transport};
use mcpmon_core::{
    Clock, Failure, FailureCode, Observation, Phase, Probe, ProbeFactory, Question, Timestamp,
};
use tokio::sync::{Semaphore, mpsc};

use crate::panic::unpanicked;
use crate::schedule::Schedule;

/// A probe keeps its own deadline; so much later the engine no longer believes it will.
const BACKSTOP: Duration = Duration::from_secs(1);
/// Services of one transport asked at once. How many processes are started and held is the probe
/// factory's to bound: a service that waits for a place there must not keep one that has its
/// process from being asked.
const IN_FLIGHT: usize = 1_024;

/// How many ask at once, by transport.
#[derive(Debug, Clone)]
pub(crate) struct Pools {
    http: Arc<Semaphore>,
    stdio: Arc<Semaphore>,
}

impl Pools {
    pub(crate) fn new() -> Self {
        Self {
            http: Arc::new(Semaphore::new(IN_FLIGHT)),
            stdio: Arc::new(Semaphore::new(IN_FLIGHT)),
        }
    }

    fn of(&self, transport: &Transport) -> Arc<Semaphore> {
        match transport {
            Transport::Stdio(_) => Arc::clone(&self.stdio),
            Transport::Http(_) | Transport::Sse(_) => Arc::clone(&self.http),
        }
    }
}

/// What one question saw, on its way to the loop.
#[derive(Debug)]
pub(crate) struct Observed {
    pub(crate) service: ServiceName,
    /// Which watcher of that name it was: one that was replaced no longer counts.
    pub(crate) generation: u64,
    pub(crate) question: Question,
    pub(crate) at: Timestamp,
    /// How late it began.
    pub(crate) lag: Duration,
    pub(crate) observation: Observation,
}

/// What a watcher is told.
#[derive(Debug)]
pub(crate) enum Order {
    /// Ask this now.
    Ask(Question),
    /// End the session and go.
    Stop,
}

/// Everything a watcher needs.
pub(crate) struct Watcher {
    pub(crate) spec: Arc<ServiceSpec>,
    pub(crate) generation: u64,
    pub(crate) spread: Duration,
    pub(crate) factory: Arc<dyn ProbeFactory>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) pools: Pools,
    pub(crate) orders: mpsc::UnboundedReceiver<Order>,
    pub(crate) reports: mpsc::Sender<Observed>,
}

impl Watcher {
    /// Runs until it is told to stop; then the probe is closed and nothing of it is alive.
    pub(crate) async fn run(mut self) {
        let spawns = matches!(self.spec.transport, Transport::Stdio(_));
        let start = tokio::time::Instant::now().into_std();
        let mut schedule =
            Schedule::new(&self.spec.name, &self.spec.limits, spawns, start, self.spread);
        let mut probe = self.factory.probe(&self.spec);
        let mut ready = !spawns;
        loop {
            let due = schedule.next(tokio::time::Instant::now().into_std());
            let woken = tokio::select! {
                biased;
                order = self.orders.recv() => match order {
                    Some(Order::Ask(question)) => {
                        schedule.want(question);
                        continue;
                    }
                    Some(Order::Stop) | None => break,
                },
                () = tokio::time::sleep_until(due.at.into()) => false,
                () = probe.woken() => true,
            };
            // It exited, or its lists changed: reading the lists answers either.
            let question = if woken { Question::List } else { due.question };
            let pool = self.pools.of(&self.spec.transport);
            let Some(_permit) = self.permit(&pool).await else {
                break;
            };
            let started = tokio::time::Instant::now().into_std();
            let lag =
                if woken { Duration::ZERO } else { started.saturating_duration_since(due.at) };
            let at = self.clock.now();
            let deadline = started + self.time_for(question, ready);
            let observation = self.ask(&mut probe, question, deadline).await;
            ready = !spawns || observation.failure().is_none();
            let ended = tokio::time::Instant::now().into_std();
            schedule.answered(question, &observation, started, ended);
            let observed = Observed {
                service: self.spec.name.clone(),
                generation: self.generation,
                question,
                at,
                lag,
                observation,
            };
            if self.reports.send(observed).await.is_err() {
                break;
            }
        }
        probe.close().await;
    }

    /// A place in the transport's pool; `None` when told to stop while waiting for it.
    async fn permit(&mut self, pool: &Arc<Semaphore>) -> Option<tokio::sync::OwnedSemaphorePermit> {
        let acquire = Arc::clone(pool).acquire_owned();
        tokio::pin!(acquire);
        loop {
            tokio::select! {
                biased;
                permit = &mut acquire => return permit.ok(),
                order = self.orders.recv() => match order {
                    // Whatever is asked for is about to be asked.
                    Some(Order::Ask(_)) => {}
                    Some(Order::Stop) | None => return None,
                },
            }
        }
    }

    /// The whole time of a check. A process that has not answered yet may take its start-up time.
    fn time_for(&self, question: Question, ready: bool) -> Duration {
        let limits = &self.spec.limits;
        match question {
            Question::Functional => limits.call_timeout,
            _ if ready => limits.health_check_timeout,
            _ => limits.startup_timeout.max(limits.health_check_timeout),
        }
    }

    /// Asks, and replaces a probe that panicked or kept no deadline.
    async fn ask(
        &self,
        probe: &mut Box<dyn Probe>,
        question: Question,
        deadline: Instant,
    ) -> Observation {
        let backstop = tokio::time::Instant::from_std(deadline) + BACKSTOP;
        let asking = unpanicked(probe.ask(question, deadline));
        let message = match tokio::time::timeout_at(backstop, asking).await {
            Ok(Some(observation)) => return observation,
            Ok(None) => "the probe panicked; this is a defect of the probe, not of the service",
            Err(_) => "the probe did not keep its deadline; this machine may be overloaded",
        };
        *probe = self.factory.probe(&self.spec);
        Observation::failed(Failure::new(FailureCode::MonitorOverloaded, Phase::Prepare, message))
    }
}
