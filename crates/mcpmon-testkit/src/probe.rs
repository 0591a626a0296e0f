//! Probes that see what a test wants them to see.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use mcpmon_core::failure::FailureCode;
use mcpmon_core::observation::{Observation, Question};
use mcpmon_core::probe::{Probe, ProbeFactory};
use mcpmon_core::service::{ServiceName, ServiceSpec};
use tokio::sync::watch;

use crate::samples;
use crate::wait::within;

/// What a scripted probe does when it is asked once.
#[derive(Debug, Clone)]
pub enum Step {
    /// Gives this observation at once.
    See(Box<Observation>),
    /// Gives it after a while, or `response_timeout` at the deadline if that comes first.
    SeeAfter(Duration, Box<Observation>),
    /// Gives it once [`Script::release`] is called, or `response_timeout` at the deadline.
    SeeWhenReleased(Box<Observation>),
    /// Hears nothing until the deadline, then gives `response_timeout`, as a good probe does.
    Hang,
    /// Does not keep its own deadline; only dropping the future ends it.
    Overrun,
    /// Panics, as a probe with a bug does.
    Panic,
}

impl Step {
    /// A good check.
    pub fn answered() -> Self {
        Self::See(Box::new(samples::answered()))
    }

    /// A failed check.
    pub fn failed(code: FailureCode) -> Self {
        Self::See(Box::new(samples::failed(code)))
    }
}

impl From<Observation> for Step {
    fn from(observation: Observation) -> Self {
        Self::See(Box::new(observation))
    }
}

impl From<FailureCode> for Step {
    fn from(code: FailureCode) -> Self {
        Self::failed(code)
    }
}

/// What every probe of one service sees, and what became of them. Clones are the same script.
#[derive(Debug, Clone)]
pub struct Script(Arc<watch::Sender<Progress>>);

#[derive(Debug)]
struct Progress {
    steps: VecDeque<Step>,
    usual: Step,
    usual_to: HashMap<Question, Step>,
    asked: Vec<Question>,
    probes: usize,
    running: usize,
    most_running: usize,
    closed: usize,
    dropped: usize,
    wakes: usize,
    released: usize,
}

impl Default for Script {
    /// Every check is good.
    fn default() -> Self {
        Self(Arc::new(watch::Sender::new(Progress {
            steps: VecDeque::new(),
            usual: Step::answered(),
            usual_to: HashMap::new(),
            asked: Vec::new(),
            probes: 0,
            running: 0,
            most_running: 0,
            closed: 0,
            dropped: 0,
            wakes: 0,
            released: 0,
        })))
    }
}

impl Script {
    /// What the next asks see, one each; after them they see the usual again.
    pub fn then(&self, steps: impl IntoIterator<Item = impl Into<Step>>) -> &Self {
        self.0.send_modify(|p| p.steps.extend(steps.into_iter().map(Into::into)));
        self
    }

    /// What every ask sees that no step is left for; a good check at first.
    pub fn usually(&self, step: impl Into<Step>) -> &Self {
        self.0.send_modify(|p| p.usual = step.into());
        self
    }

    /// What every ask of this question sees, whatever steps are left and whatever is usual.
    pub fn usually_to(&self, question: Question, step: impl Into<Step>) -> &Self {
        self.0.send_modify(|p| drop(p.usual_to.insert(question, step.into())));
        self
    }

    /// Wakes the service's probes, as a child's exit or `list_changed` does: each sees it once.
    pub fn wake(&self) {
        self.0.send_modify(|p| p.wakes += 1);
    }

    /// Lets one [`Step::SeeWhenReleased`] go, now or when it comes.
    pub fn release(&self) {
        self.0.send_modify(|p| p.released += 1);
    }

    /// What was asked so far, in order.
    pub fn asked(&self) -> Vec<Question> {
        self.0.borrow().asked.clone()
    }

    /// Probes made for the service.
    pub fn probes(&self) -> usize {
        self.0.borrow().probes
    }

    /// Probes that were closed.
    pub fn closed(&self) -> usize {
        self.0.borrow().closed
    }

    /// Asks whose future was dropped before it was done.
    pub fn dropped(&self) -> usize {
        self.0.borrow().dropped
    }

    /// Asks running now.
    pub fn running(&self) -> usize {
        self.0.borrow().running
    }

    /// The most asks that ever ran at once.
    pub fn most_running(&self) -> usize {
        self.0.borrow().most_running
    }

    /// Waits until `count` asks have begun.
    ///
    /// # Panics
    ///
    /// When they do not come in time (see [`within`]).
    pub async fn wait_for_asks(&self, count: usize) {
        self.wait(&format!("{count} asks"), |p| p.asked.len() >= count).await;
    }

    /// Waits until `count` probes are closed.
    ///
    /// # Panics
    ///
    /// When they are not in time (see [`within`]).
    pub async fn wait_for_closed(&self, count: usize) {
        self.wait(&format!("{count} closed probes"), |p| p.closed >= count).await;
    }

    async fn wait(&self, what: &str, done: impl FnMut(&Progress) -> bool) {
        let mut changes = self.0.subscribe();
        // The sender is ours, so the wait can only end by the condition or by the cap.
        let _ = within(what, changes.wait_for(done)).await;
    }

    /// A probe that plays this script.
    pub fn probe(&self) -> ScriptedProbe {
        self.0.send_modify(|p| p.probes += 1);
        ScriptedProbe { wakes_seen: self.0.borrow().wakes, script: self.clone() }
    }

    fn begin(&self, question: Question) -> Step {
        let mut step = Step::Hang;
        self.0.send_modify(|p| {
            p.asked.push(question);
            p.running += 1;
            p.most_running = p.most_running.max(p.running);
            step = match p.usual_to.get(&question) {
                Some(step) => step.clone(),
                None => p.steps.pop_front().unwrap_or_else(|| p.usual.clone()),
            };
        });
        step
    }

    async fn released(&self) {
        let mut changes = self.0.subscribe();
        let _ = changes.wait_for(|p| p.released > 0).await;
        self.0.send_modify(|p| p.released = p.released.saturating_sub(1));
    }
}

/// Plays a [`Script`].
#[derive(Debug)]
pub struct ScriptedProbe {
    script: Script,
    wakes_seen: usize,
}

/// Counts an ask out, however it ends.
struct Running<'a> {
    script: &'a Script,
    done: bool,
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        self.script.0.send_modify(|p| {
            p.running -= 1;
            p.dropped += usize::from(!self.done);
        });
    }
}

#[async_trait]
impl Probe for ScriptedProbe {
    async fn ask(&mut self, question: Question, deadline: Instant) -> Observation {
        let step = self.script.begin(question);
        let mut running = Running { script: &self.script, done: false };
        let seen = tokio::time::timeout_at(deadline.into(), async {
            match step {
                Step::See(seen) => Some(*seen),
                Step::SeeAfter(wait, seen) => {
                    tokio::time::sleep(wait).await;
                    Some(*seen)
                }
                Step::SeeWhenReleased(seen) => {
                    self.script.released().await;
                    Some(*seen)
                }
                Step::Hang => std::future::pending().await,
                Step::Overrun => None,
                Step::Panic => panic!("the probe panics on cue"),
            }
        })
        .await;
        let seen = match seen {
            Ok(Some(seen)) => seen,
            Ok(None) => std::future::pending().await,
            Err(_) => samples::failed(FailureCode::ResponseTimeout),
        };
        running.done = true;
        seen
    }

    async fn woken(&mut self) {
        let mut changes = self.script.0.subscribe();
        let seen = self.wakes_seen;
        if changes.wait_for(|p| p.wakes > seen).await.is_ok() {
            self.wakes_seen += 1;
        }
    }

    async fn close(&mut self) {
        self.script.0.send_modify(|p| p.closed += 1);
    }
}

/// Makes [`ScriptedProbe`]s, one [`Script`] for each name. Clones share their scripts.
#[derive(Debug, Clone, Default)]
pub struct ScriptedFactory {
    scripts: Arc<Mutex<BTreeMap<ServiceName, Script>>>,
}

impl ScriptedFactory {
    /// A factory whose services are all well.
    pub fn new() -> Self {
        Self::default()
    }

    /// The script of a service, whether it is watched yet or not.
    pub fn script(&self, service: &str) -> Script {
        let mut scripts = self.scripts.lock().unwrap_or_else(PoisonError::into_inner);
        scripts.entry(service.into()).or_default().clone()
    }
}

impl ProbeFactory for ScriptedFactory {
    fn probe(&self, spec: &Arc<ServiceSpec>) -> Box<dyn Probe> {
        Box::new(self.script(spec.name.as_str()).probe())
    }
}

#[cfg(test)]
mod tests {
    use mcpmon_core::status::Status;

    use super::*;

    fn deadline(span: Duration) -> Instant {
        (tokio::time::Instant::now() + span).into_std()
    }

    #[tokio::test(start_paused = true)]
    async fn plays_its_steps_and_then_the_usual() {
        let factory = ScriptedFactory::new();
        let script = factory.script("a");
        script.then([FailureCode::ConnectionRefused]).then([Step::Hang]);
        let mut probe = factory.probe(&Arc::new(ServiceSpec::http("a", "http://127.0.0.1/mcp")));
        let second = Duration::from_secs(1);
        for expected in [Status::Stopped, Status::Error, Status::Running] {
            let seen = probe.ask(Question::Health, deadline(second)).await;
            assert_eq!(seen.raw_status(), expected);
        }
        probe.close().await;
        assert_eq!(script.asked(), [Question::Health; 3]);
        assert_eq!((script.probes(), script.closed(), script.dropped()), (1, 1, 0));
    }

    #[tokio::test(start_paused = true)]
    async fn an_overrunning_probe_ends_only_when_dropped() {
        let script = Script::default();
        script.usually(Step::Overrun);
        let mut probe = script.probe();
        let ask = probe.ask(Question::Health, deadline(Duration::from_secs(1)));
        assert!(tokio::time::timeout(Duration::from_secs(60), ask).await.is_err());
        assert_eq!((script.dropped(), script.running()), (1, 0));
    }

    #[tokio::test]
    async fn a_wake_is_seen_once_by_each_probe() {
        let script = Script::default();
        let mut probe = script.probe();
        script.wake();
        within("the wake", probe.woken()).await;
        tokio::select! {
            biased;
            () = probe.woken() => panic!("woken twice"),
            () = std::future::ready(()) => {}
        }
    }

    #[tokio::test]
    async fn a_released_step_goes_on() {
        let script = Script::default();
        script.then([Step::SeeWhenReleased(Box::new(samples::answered()))]);
        let mut probe = script.probe();
        let ask = tokio::spawn(async move {
            probe.ask(Question::List, deadline(Duration::from_secs(60))).await
        });
        script.wait_for_asks(1).await;
        assert_eq!(script.running(), 1);
        script.release();
        assert_eq!(within("the answer", ask).await.unwrap().raw_status(), Status::Running);
    }
}
