//! What the loop does about spans in which it could not look: the machine slept, the process was
//! kept from running, the wall clock was set back, or our own network is gone.
//!
//! Nothing is said of a service for such a span; after it the services are asked again before
//! anything is judged.

use std::sync::Arc;
use std::time::Duration;

use mcpmon_core::service::ServiceName;
use mcpmon_core::state::ChangeOrigin;
use mcpmon_core::{Failure, FailureCode, Observation, Outcome, Phase, Timestamp};

use crate::network::{Turn, Way, way};
use crate::pulse::{Lapse, is_gap};
use crate::run::Engine;
use crate::schedule::Schedule;
use crate::signs;
use crate::watcher::Observed;
use crate::world::Watched;

impl Engine {
    /// Looks at the clocks, and takes the consequences.
    pub(crate) fn see_time(&mut self) {
        let (now, wall) = (tokio::time::Instant::now().into_std(), self.shared.clock.now());
        match self.pulse.look(now, wall) {
            None => {}
            Some(Lapse::Absent { from, span, slept }) => self.was_absent(from, span, slept),
            Some(Lapse::SetBack(span)) => self.set_back(span),
        }
    }

    fn was_absent(&mut self, from: Timestamp, span: Duration, slept: Duration) {
        tracing::warn!(?span, "The machine slept, or mcpmon was kept from running");
        self.shared.clock_ran_on(span);
        let left_alone = |watched: &Watched| {
            let limits = &watched.spec.limits;
            is_gap(span, limits.check_interval, limits.health_check_timeout)
        };
        self.interrupt(from, slept, left_alone);
    }

    /// Ages stay what they were, so that nothing waits until the clock has caught up.
    fn set_back(&mut self, span: Duration) {
        tracing::warn!(?span, "The wall clock was set back");
        self.shared.clock_was_set_back(span);
        self.repairs.set_back(span);
        let removed = self.removed.values_mut().map(|(_, watched)| watched);
        self.shared.write().services.values_mut().chain(removed).for_each(|watched| {
            watched.set_back(span);
        });
    }

    /// Whatever was known of these services holds no longer, from `at` on: each is `unknown` until
    /// it was asked again, and is not judged before.
    fn interrupt(&mut self, at: Timestamp, slept: Duration, concerns: impl Fn(&Watched) -> bool) {
        let shared = Arc::clone(&self.shared);
        let slept_ms = u64::try_from(slept.as_millis()).unwrap_or(u64::MAX);
        let origin = ChangeOrigin::Absent { noticed_at: shared.clock.now(), slept_ms };
        let mut world = shared.write();
        let concerned: Vec<&mut Watched> = world
            .services
            .values_mut()
            .filter(|watched| watched.reins.is_some() && concerns(watched))
            .collect();
        let spread = Schedule::spread(concerned.len(), self.settings.monitoring.check_interval);
        for watched in concerned {
            let change = watched.interrupt(None, at, origin);
            if let Some(reins) = &watched.reins {
                reins.recheck(spread);
            }
            self.note_change(change);
        }
    }

    /// Puts down to ourselves what is ours, and learns from the rest whether the network is there.
    pub(crate) fn absolve(&mut self, service: &ServiceName, observed: &mut Observed) {
        let (started, ended) = observed.span;
        let Some(code) = observed.observation.failure().map(|failure| failure.code) else {
            let turn = self.network.heard(service, Way::Open, observed.at);
            return self.network_turned(turn);
        };
        if signs::is_of_absence(code) && self.pulse.was_absent(started, ended) {
            replace(&mut observed.observation, signs::away);
            if let Some(reins) = &self.shared.read().services.get(service).and_then(Watched::reins)
            {
                reins.recheck(Duration::ZERO);
            }
            return;
        }
        let turn = self.network.heard(service, way(Some(code)), observed.at);
        self.network_turned(turn);
        if self.network.explains(service, code) {
            replace(&mut observed.observation, signs::offline);
        }
    }

    /// Asks one service at each host that was not heard of, where this is the second failure in a
    /// row of one that could not be reached: is it that one, or our own network?
    pub(crate) fn ask_witnesses(&self, service: &ServiceName) {
        if self.network.is_offline() || !self.network.unreached().contains(service) {
            return;
        }
        let world = self.shared.read();
        for name in self.network.witnesses() {
            if let Some(reins) = world.services.get(&name).and_then(Watched::reins) {
                reins.recheck(Duration::ZERO);
            }
        }
    }

    /// The machine said whether it has a way out.
    pub(crate) fn told_of_network(&mut self, has_way_out: Option<bool>) {
        let turn = self.network.told(has_way_out, self.shared.clock.now());
        self.network_turned(turn);
    }

    /// Services may have gone whose silence was taken for our own network's.
    pub(crate) fn see_network(&mut self) {
        let turn = self.network.look(self.shared.clock.now());
        self.network_turned(turn);
    }

    fn network_turned(&mut self, turn: Option<Turn>) {
        let far_away: std::collections::BTreeSet<ServiceName> = match turn {
            None => return,
            Some(_) => self.network.far_away().cloned().collect(),
        };
        match turn {
            Some(Turn::Lost(since)) => {
                tracing::warn!(services = far_away.len(), "This machine's network is gone");
                let text = "this machine's network is gone; nothing is said of the service";
                let cause = Failure::new(FailureCode::MonitorOffline, Phase::Prepare, text);
                self.shared.write().report.offline = true;
                self.suspend(&far_away, &cause, since);
            }
            _ => {
                tracing::info!(services = far_away.len(), "This machine's network is back");
                self.shared.write().report.offline = false;
                let now = self.shared.clock.now();
                let at_last = |watched: &Watched| far_away.contains(&watched.spec.name);
                self.interrupt(now, Duration::ZERO, at_last);
            }
        }
    }

    /// These are `unknown` until the network is back; their timetables go on.
    fn suspend(
        &mut self,
        services: &std::collections::BTreeSet<ServiceName>,
        cause: &Failure,
        since: Timestamp,
    ) {
        let shared = Arc::clone(&self.shared);
        let mut world = shared.write();
        let origin = ChangeOrigin::Offline { failed_since: since, noticed_at: shared.clock.now() };
        for name in services {
            if let Some(watched) = world.services.get_mut(name) {
                let change = watched.interrupt(Some(cause.clone()), since, origin);
                self.note_change(change);
            }
        }
    }
}

fn replace(observation: &mut Observation, by: impl Fn(&Failure) -> Failure) {
    if let Outcome::Failed(failure) = &mut observation.outcome {
        *failure = by(failure);
    }
}
