//! Services that behave as a run wants: well, down, lossy, toggling, or down with what they need.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use async_trait::async_trait;
use mcpmon_core::{
    FailureCode, Observation, Probe, ProbeFactory, Question, ServiceName, ServiceSpec,
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
            dice: Dice::new(own),
            attempts: 0,
            lost_last: false,
        }
    }

    fn loses(&mut self) -> bool {
        self.attempts += 1;
        let lost = match self.behaviour {
            Behaviour::Well => false,
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
    seed: u64,
    wakes: Arc<watch::Sender<u64>>,
}

impl Fleet {
    pub(crate) fn new(seed: u64) -> Self {
        Self { members: Arc::default(), seed, wakes: Arc::default() }
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

    pub(crate) fn behaviour(&self, service: &str) -> Behaviour {
        self.lock().get(service).map_or(Behaviour::Well, |member| member.behaviour)
    }

    /// Every service is asked now, as when its process ends.
    pub(crate) fn wake_all(&self) {
        self.wakes.send_modify(|wakes| *wakes += 1);
    }

    fn loses(&self, service: &ServiceName) -> bool {
        let mut members = self.lock();
        let need = members.get(service).and_then(|member| member.needs.clone());
        let is_held_up = need.is_some_and(|need| {
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
        Box::new(FleetProbe { fleet: self.clone(), service: spec.name.clone(), wakes })
    }
}

struct FleetProbe {
    fleet: Fleet,
    service: ServiceName,
    wakes: watch::Receiver<u64>,
}

#[async_trait]
impl Probe for FleetProbe {
    async fn ask(&mut self, _: Question, deadline: Instant) -> Observation {
        if self.fleet.behaviour(self.service.as_str()) == Behaviour::Mute {
            tokio::time::sleep_until(deadline.into()).await;
            return samples::failed(FailureCode::ResponseTimeout);
        }
        match self.fleet.loses(&self.service) {
            true => samples::failed(FailureCode::ConnectionRefused),
            false => samples::answered(),
        }
    }

    async fn woken(&mut self) {
        if self.wakes.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
    }

    async fn close(&mut self) {}
}
