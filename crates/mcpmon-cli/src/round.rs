//! One round of checks outside the engine: every service asked once, a few at a time, no memory.
//!
//! `mcpmon check` must give the raw result and be done in a time that can be computed, so nothing
//! here retries, waits for grace, or holds a session: each probe is closed before the next service
//! gets its place.

use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt as _;
use mcpmon_core::contract::ServiceReport;
use mcpmon_core::observation::{Observation, Question};
use mcpmon_core::service::WatchMode;
use mcpmon_core::{
    Failure, FailureCode, Phase, Probe, ProbeFactory, ServiceSpec, Status, Transport,
};
use tokio::sync::{Semaphore, mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::Instant;

/// Services asked at once.
pub(crate) const WIDTH: usize = 16;
/// A probe keeps its own deadline; this much later it is not believed to.
const BACKSTOP: Duration = Duration::from_secs(1);
/// Ending a session or a process takes at most this long; with the backstop, five seconds.
const CLOSING: Duration = Duration::from_secs(4);

/// What a round is given.
pub(crate) struct Round {
    pub(crate) services: Vec<ServiceSpec>,
    pub(crate) factory: Arc<dyn ProbeFactory>,
    /// One deadline per service from when its check starts, in place of every other time limit.
    pub(crate) timeout: Option<Duration>,
    /// Whether the configured calls are made after each check that went well.
    pub(crate) functional: bool,
}

/// Runs the round. `done` hears each service's name as it ends. When `stop` resolves, what is open
/// is closed and nothing more is asked; the answer is then `None`.
pub(crate) async fn run(
    round: Round,
    done: &mpsc::UnboundedSender<String>,
    stop: impl Future<Output = ()>,
) -> Option<Vec<ServiceReport>> {
    let (stopping, stopped) = watch::channel(false);
    let places = Arc::new(Semaphore::new(WIDTH));
    let mut tasks = JoinSet::new();
    for spec in round.services {
        let check = Check {
            spec: Arc::new(with_timeout(spec, round.timeout)),
            factory: Arc::clone(&round.factory),
            timeout: round.timeout,
            functional: round.functional,
            stopped: stopped.clone(),
        };
        let (places, done) = (Arc::clone(&places), done.clone());
        tasks.spawn(async move {
            // The semaphore is never closed.
            let _place = places.acquire().await.ok()?;
            let report = check.run().await;
            let _ = done.send(check.spec.name.to_string());
            report
        });
    }
    let mut reports = Vec::with_capacity(tasks.len());
    tokio::pin!(stop);
    let mut interrupted = false;
    loop {
        tokio::select! {
            joined = tasks.join_next() => match joined {
                Some(Ok(report)) => reports.extend(report),
                // Panics are caught inside; a cancelled task has nothing to say.
                Some(Err(_)) => {}
                None => break,
            },
            () = &mut stop, if !interrupted => {
                interrupted = true;
                let _ = stopping.send(true);
            }
        }
    }
    (!interrupted).then_some(reports)
}

fn with_timeout(mut spec: ServiceSpec, timeout: Option<Duration>) -> ServiceSpec {
    if let Some(timeout) = timeout {
        spec.limits.connection_timeout = timeout;
        spec.limits.startup_timeout = timeout;
        spec.limits.health_check_timeout = timeout;
        spec.limits.call_timeout = spec.limits.call_timeout.min(timeout);
    }
    spec
}

struct Check {
    spec: Arc<ServiceSpec>,
    factory: Arc<dyn ProbeFactory>,
    timeout: Option<Duration>,
    functional: bool,
    stopped: watch::Receiver<bool>,
}

impl Check {
    async fn run(&self) -> Option<ServiceReport> {
        let transport = self.spec.transport.as_str();
        if let Some(report) = unasked(&self.spec) {
            return Some(report);
        }
        let mut stopped = self.stopped.clone();
        if *stopped.borrow() {
            return None;
        }
        let mut probe = self.factory.probe(&self.spec);
        let asked = tokio::select! {
            observation = self.check(probe.as_mut()) => Some(observation),
            _ = stopped.wait_for(|stopped| *stopped) => None,
        };
        let closing = AssertUnwindSafe(probe.close()).catch_unwind();
        let _ = tokio::time::timeout(CLOSING, closing).await;
        let observation = asked?;
        let mut report = ServiceReport::of_check(self.spec.name.clone(), transport, &observation);
        report.calls = self.functional.then(|| observation.calls.iter().map(Into::into).collect());
        Some(report)
    }

    /// The check, and after it the calls if it went well: of a server that cannot be asked they
    /// would only say so again.
    async fn check(&self, probe: &mut dyn Probe) -> Observation {
        let mut observation = self.ask(probe).await;
        let wanted = self.functional && !self.spec.functional.is_empty();
        if wanted && observation.failure().is_none() {
            let calls = u32::try_from(self.spec.functional.len()).unwrap_or(u32::MAX);
            let time = self.spec.limits.call_timeout.saturating_mul(calls);
            let called = self.ask_within(probe, Question::Functional, time).await;
            observation.total += called.total;
            observation.outcome = called.outcome;
            observation.calls = called.calls;
        }
        observation
    }

    async fn ask(&self, probe: &mut dyn Probe) -> Observation {
        let limits = &self.spec.limits;
        let time = self.timeout.unwrap_or(match self.spec.transport {
            Transport::Stdio(_) => limits.startup_timeout.max(limits.health_check_timeout),
            Transport::Http(_) | Transport::Sse(_) => limits.health_check_timeout,
        });
        self.ask_within(probe, Question::List, time).await
    }

    async fn ask_within(
        &self,
        probe: &mut dyn Probe,
        question: Question,
        time: Duration,
    ) -> Observation {
        let deadline = Instant::now() + time;
        let asking = AssertUnwindSafe(probe.ask(question, deadline.into_std()));
        let message =
            match tokio::time::timeout_at(deadline + BACKSTOP, asking.catch_unwind()).await {
                Ok(Ok(observation)) => return observation,
                Ok(Err(_)) => "the check failed by a mistake in mcpmon; please report it",
                Err(_) => "the check did not keep its deadline; this machine may be overloaded",
            };
        let code = FailureCode::MonitorOverloaded;
        Observation::failed(Failure::new(code, Phase::Prepare, message))
    }
}

/// The report of a service that is not to be asked.
fn unasked(spec: &ServiceSpec) -> Option<ServiceReport> {
    let report =
        |status| ServiceReport::unasked(spec.name.clone(), spec.transport.as_str(), status);
    if let Some(failure) = &spec.invalid {
        let mut report = report(Status::Unknown);
        report.failure = Some(failure.clone());
        return Some(report);
    }
    let passive = spec.mode == WatchMode::Passive;
    (!spec.enabled || spec.paused_because.is_some() || passive).then(|| report(Status::Paused))
}

#[cfg(test)]
mod tests {
    use super::*;
    use mcpmon_testkit::{ScriptedFactory, Step};

    fn service(name: &str) -> ServiceSpec {
        ServiceSpec::http(name, "http://127.0.0.1/mcp")
    }

    async fn round(
        factory: &ScriptedFactory,
        services: Vec<ServiceSpec>,
        timeout: Option<Duration>,
    ) -> Vec<ServiceReport> {
        let (done, _heard) = mpsc::unbounded_channel();
        let round =
            Round { services, factory: Arc::new(factory.clone()), timeout, functional: false };
        run(round, &done, std::future::pending()).await.unwrap()
    }

    fn status_of(reports: &[ServiceReport], name: &str) -> Status {
        reports.iter().find(|report| report.service.as_str() == name).unwrap().status
    }

    #[tokio::test(start_paused = true)]
    async fn a_round_of_hanging_services_ends_in_the_promised_time() {
        let factory = ScriptedFactory::new();
        let services: Vec<_> = (0..40)
            .map(|n| {
                let name = format!("s{n}");
                factory.script(&name).usually(if n % 2 == 0 { Step::Hang } else { Step::Overrun });
                service(&name)
            })
            .collect();
        let started = Instant::now();
        let reports = round(&factory, services, Some(Duration::from_secs(2))).await;
        assert_eq!(reports.len(), 40);
        assert!(started.elapsed() <= Duration::from_secs(3 * (2 + 5)), "{:?}", started.elapsed());
        assert!(factory.script("s0").most_running() <= 1);
    }

    #[tokio::test(start_paused = true)]
    async fn the_deadline_runs_from_when_a_check_starts_and_not_while_it_waits() {
        let factory = ScriptedFactory::new();
        let mut services = Vec::new();
        for n in 0..=WIDTH {
            let name = format!("s{n:02}");
            let answer = Box::new(mcpmon_testkit::samples::answered());
            factory.script(&name).usually(Step::SeeAfter(Duration::from_millis(900), answer));
            services.push(service(&name));
        }
        let reports = round(&factory, services, Some(Duration::from_secs(1))).await;
        assert!(reports.iter().all(|report| report.status == Status::Running));
    }

    #[tokio::test(start_paused = true)]
    async fn every_probe_is_closed_and_a_panic_is_one_row() {
        let factory = ScriptedFactory::new();
        factory.script("bad").usually(Step::Panic);
        let reports = round(&factory, vec![service("bad"), service("good")], None).await;
        assert_eq!(status_of(&reports, "bad"), Status::Unknown);
        assert_eq!(status_of(&reports, "good"), Status::Running);
        assert_eq!(factory.script("good").closed(), 1);
        assert_eq!(factory.script("bad").closed(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_not_to_be_asked_has_its_row_and_no_probe() {
        let factory = ScriptedFactory::new();
        let mut off = service("off");
        off.enabled = false;
        let mut broken = service("broken");
        let failure = Failure::new(FailureCode::ConfigurationInvalid, Phase::Prepare, "X is unset");
        broken.invalid = Some(failure.clone());
        let reports = round(&factory, vec![off, broken], None).await;
        assert_eq!(status_of(&reports, "off"), Status::Paused);
        assert_eq!(status_of(&reports, "broken"), Status::Unknown);
        assert_eq!(factory.script("off").probes() + factory.script("broken").probes(), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn an_interrupted_round_closes_what_is_open() {
        let factory = ScriptedFactory::new();
        factory.script("a").usually(Step::Hang);
        let (done, _heard) = mpsc::unbounded_channel();
        let round = Round {
            services: vec![service("a")],
            factory: Arc::new(factory.clone()),
            timeout: Some(Duration::from_secs(60)),
            functional: false,
        };
        let stop = tokio::time::sleep(Duration::from_secs(1));
        assert!(run(round, &done, stop).await.is_none());
        assert_eq!(factory.script("a").closed(), 1);
    }
}
