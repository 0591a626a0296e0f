//! Services that behave as a run wants: well, down, lossy, toggling, or down with what they need.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use mcpmon_core::observation::DependencyObservation;
use mcpmon_core::{
    FailureCode, HostProbe, Observation, Probe, ProbeFactory, Question, ServiceName, ServiceSpec,
    SystemMetrics, Transport,
};
use mcpmon_testkit::samples;
use tokio::sync::watch;

/// How a service behaves.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Behaviour {
    Well,
    Down,
    /// Down, and it takes every check its whole time to find out.
    Mute,
    /// Each attempt is lost with this probability.
    Lossy(f64),
    /// The same, but the attempt after a lost one is good.
    LossyThenGood(f64),
    /// So many good attempts, then so many lost ones, and again.
    Toggling(u32),
    /// It answers, after so many milliseconds.
    Slow(u64),
    /// A process that answers so many times and dies, again and again.
    DiesYoung(u32),
}

/// Numbers that look like chance and are the same for the same seed.
#[derive(Debug, Clone)]
pub(crate) struct Dice(u64);

impl Dice {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ 0xd1b5_4a32_d192_ed03)
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// From 0 to 1.
    pub(crate) fn share(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1_u64 << 53) as f64
    }

    /// Below `end`.
    pub(crate) fn below(&mut self, end: usize) -> usize {
        (self.share() * end as f64) as usize
    }

    pub(crate) fn between(&mut self, from: u64, to: u64) -> u64 {
        from + (self.share() * (to - from) as f64) as u64
    }
}

#[derive(Debug)]
struct Member {
    behaviour: Behaviour,
    needs: Option<ServiceName>,
    dice: Dice,
    /// Whether its configured calls fail.
    calls_fail: bool,
    attempts: u32,
    lost_last: bool,
}

impl Member {
    fn new(service: &ServiceName, seed: u64) -> Self {
        let own = service
            .as_str()
            .bytes()
            .fold(seed, |seed, byte| seed.wrapping_mul(31).wrapping_add(u64::from(byte)));
        Self {
            behaviour: Behaviour::Well,
            needs: None,
            calls_fail: false,
            dice: Dice::new(own),
            attempts: 0,
            lost_last: false,
        }
    }

    fn loses(&mut self) -> bool {
        self.attempts += 1;
        let lost = match self.behaviour {
            Behaviour::Well | Behaviour::Slow(_) | Behaviour::DiesYoung(_) => false,
            Behaviour::Down | Behaviour::Mute => true,
            Behaviour::Lossy(share) => self.dice.share() < share,
            Behaviour::LossyThenGood(_) if self.lost_last => false,
            Behaviour::LossyThenGood(share) => self.dice.share() < share,
            Behaviour::Toggling(each) => (self.attempts - 1) / each % 2 == 1,
        };
        self.lost_last = lost;
        lost
    }
}

/// The fleet as its probes find it. Clones are the same fleet, over restarts too.
#[derive(Debug, Clone)]
pub(crate) struct Fleet {
    members: Arc<Mutex<BTreeMap<ServiceName, Member>>>,
    /// Dependencies that are no services and are down.
    outside: Arc<Mutex<BTreeSet<String>>>,
    seed: u64,
    samples: u64,
    wakes: Arc<watch::Sender<u64>>,
}

impl Fleet {
    pub(crate) fn new(seed: u64) -> Self {
        Self {
            members: Arc::default(),
            outside: Arc::default(),
            seed,
            samples: 0,
            wakes: Arc::default(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<ServiceName, Member>> {
        self.members.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn change(&self, service: &str, change: impl FnOnce(&mut Member)) {
        let name = ServiceName::from(service);
        let mut members = self.lock();
        change(members.entry(name.clone()).or_insert_with(|| Member::new(&name, self.seed)));
    }

    pub(crate) fn set(&self, service: &str, behaviour: Behaviour) {
        self.change(service, |member| {
            (member.behaviour, member.attempts, member.lost_last) = (behaviour, 0, false);
        });
    }

    /// It is down whenever `need` is.
    pub(crate) fn set_need(&self, service: &str, need: &str) {
        self.change(service, |member| member.needs = Some(need.into()));
    }

    /// Whether something that is no service is down from now on; what needs it is down as well.
    pub(crate) fn set_outside(&self, dependency: &str, is_down: bool) {
        let mut outside = self.outside.lock().unwrap_or_else(PoisonError::into_inner);
        match is_down {
            true => drop(outside.insert(dependency.to_owned())),
            false => drop(outside.remove(dependency)),
        }
    }

    fn is_outside_down(&self, dependency: &str) -> bool {
        let outside = self.outside.lock().unwrap_or_else(PoisonError::into_inner);
        outside.contains(dependency)
    }

    /// Whether its configured calls fail from now on.
    pub(crate) fn set_calls(&self, service: &str, fail: bool) {
        self.change(service, |member| member.calls_fail = fail);
    }

    pub(crate) fn behaviour(&self, service: &str) -> Behaviour {
        self.lock().get(service).map_or(Behaviour::Well, |member| member.behaviour)
    }

    /// Every service is asked now, as when its process ends.
    pub(crate) fn wake_all(&self) {
        self.wakes.send_modify(|wakes| *wakes += 1);
    }

    fn calls_fail(&self, service: &ServiceName) -> bool {
        self.lock().get(service).is_some_and(|member| member.calls_fail)
    }

    fn loses(&self, service: &ServiceName) -> bool {
        let mut members = self.lock();
        let need = members.get(service).and_then(|member| member.needs.clone());
        let is_held_up = need.is_some_and(|need| {
            if self.is_outside_down(need.as_str()) {
                return true;
            }
            let need = members.get(&need).map(|need| need.behaviour);
            matches!(need, Some(Behaviour::Down | Behaviour::Mute))
        });
        let member =
            members.entry(service.clone()).or_insert_with(|| Member::new(service, self.seed));
        member.loses() || is_held_up
    }
}

impl ProbeFactory for Fleet {
    fn probe(&self, spec: &Arc<ServiceSpec>) -> Box<dyn Probe> {
        let wakes = self.wakes.subscribe();
        let depends_on = spec.depends_on.clone();
        let process = matches!(spec.transport, Transport::Stdio(_)).then(Process::default);
        let (fleet, service) = (self.clone(), spec.name.clone());
        Box::new(FleetProbe { fleet, service, depends_on, process, wakes })
    }
}

#[async_trait]
impl HostProbe for Fleet {
    /// A machine that is busy in some minutes.
    async fn sample(&mut self) -> SystemMetrics {
        self.samples += 1;
        let busy = Dice::new(self.seed ^ (self.samples / 5)).share();
        SystemMetrics { cpu_percent: busy * 100.0, ..samples::system_metrics() }
    }
}

/// The process of a stdio service.
#[derive(Debug, Default)]
struct Process {
    is_alive: bool,
    /// How often it has answered.
    answers: u32,
}

impl Process {
    /// What a check sees of it that would see `seen` of a server that listens.
    fn ask(&mut self, behaviour: Behaviour, seen: Observation) -> Observation {
        let dies = match behaviour {
            Behaviour::DiesYoung(answers) => self.is_alive && self.answers >= answers,
            _ => seen.failure().is_some_and(|why| why.code == FailureCode::ConnectionRefused),
        };
        if dies {
            *self = Self::default();
            return samples::failed(FailureCode::Exited);
        }
        let has_started = !std::mem::replace(&mut self.is_alive, true);
        self.answers += 1;
        Observation { restarted: has_started, active_connections: Some(1), ..seen }
    }
}

struct FleetProbe {
    fleet: Fleet,
    service: ServiceName,
    depends_on: Vec<String>,
    /// `None` for a server that listens.
    process: Option<Process>,
    wakes: watch::Receiver<u64>,
}

impl FleetProbe {
    fn look_outside(&self) -> Observation {
        let outside = self.depends_on.iter().filter(|dependency| dependency.contains("://"));
        let dependencies = outside.map(|dependency| DependencyObservation {
            dependency: dependency.clone(),
            problem: self.fleet.is_outside_down(dependency).then(|| "refused".to_owned()),
        });
        Observation { dependencies: dependencies.collect(), ..samples::answered() }
    }
}

#[async_trait]
impl Probe for FleetProbe {
    async fn ask(&mut self, question: Question, deadline: Instant) -> Observation {
        if question == Question::Dependency {
            return self.look_outside();
        }
        let began = tokio::time::Instant::now();
        let behaviour = self.fleet.behaviour(self.service.as_str());
        let mut seen = if behaviour == Behaviour::Mute {
            tokio::time::sleep_until(deadline.into()).await;
            samples::failed(FailureCode::ResponseTimeout)
        } else if self.fleet.loses(&self.service) {
            samples::failed(FailureCode::ConnectionRefused)
        } else if question == Question::Functional && self.fleet.calls_fail(&self.service) {
            samples::failed(FailureCode::FunctionalMismatch)
        } else {
            samples::answered()
        };
        if let Some(process) = &mut self.process {
            seen = process.ask(behaviour, seen);
        }
        if let Behaviour::Slow(millis) = behaviour {
            tokio::time::sleep(Duration::from_millis(millis)).await;
            seen.latency = seen.latency.map(|_| Duration::from_millis(millis));
        }
        seen.total = began.elapsed();
        seen
    }

    async fn woken(&mut self) {
        if self.wakes.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
    }

    async fn close(&mut self) {}
}
