//! Everything the monitor knows at this moment, shared between the loop that changes it and those
//! who look at it.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use crate::baseline::Baseline;
use crate::needs::{Need, want_a_look};
use crate::reach::Reach;
use crate::signs::Signs;
use crate::startup::StartTimes;
use crate::watcher::Reins;
use mcpmon_core::contract::{
    HostReport, MonitorReport, ServiceReport, ServiceStatusReport, as_millis,
};
use mcpmon_core::monitor::Snapshot;
use mcpmon_core::observation::{CallObservation, Conversation, DependencyObservation};
use mcpmon_core::service::{ServiceName, ServiceSpec};
use mcpmon_core::state::{ChangeOrigin, StatusChange};
use mcpmon_core::store::{AlertRecord, CheckRecord, ServiceFacts, StoredService};
use mcpmon_core::window::DEFAULT_WINDOW;
use mcpmon_core::{
    CheckMeaning, Failure, FailureCode, Finding, FindingCode, Observation, Phases, Question,
    ServiceFold, ServiceMetrics, Status, Timestamp, ToolWindow,
};

/// Alerts shown in a snapshot, at most.
const SHOWN_ALERTS: usize = 200;
/// A finding on the error rate wants so many checks.
const ERROR_RATE_SAMPLES: u64 = 5;

/// One service and all that is known of it.
#[derive(Debug)]
pub(crate) struct Watched {
    pub(crate) spec: Arc<ServiceSpec>,
    pub(crate) generation: u64,
    /// Its watcher; `None` while it is not asked.
    pub(crate) reins: Option<Reins>,
    /// Its status, what is counted in a row, and the window its numbers are taken from.
    pub(crate) fold: ServiceFold,
    conversation: Conversation,
    last: Option<LastCheck>,
    /// When it was last checked, from what was stored.
    pub(crate) stored_check: Option<Timestamp>,
    /// Since when it has been watched.
    watched_since: Timestamp,
    /// Facts as last given to the store.
    pub(crate) facts: Option<ServiceFacts>,
    /// What shows over time.
    pub(crate) signs: Signs,
    /// Calls, by tool.
    pub(crate) tools: BTreeMap<String, ToolWindow>,
    /// What was last seen of what it depends on.
    pub(crate) looked_at: Vec<DependencyObservation>,
    /// How long its process took to start, from what was stored.
    pub(crate) starts: StartTimes,
    /// Whether it is checked: it is enabled, allowed to start and not in maintenance.
    pub(crate) is_checked: bool,
    /// Nobody looked for a while, or ever: it is not judged before it was asked.
    pub(crate) awaits_recheck: bool,
    /// Whether a maintenance window holds for it.
    pub(crate) maintained: bool,
    /// Whether attempts to repair it were given up.
    pub(crate) repair_given_up: bool,
    /// It was asked because others wait for what it says, and has not answered yet.
    pub(crate) is_awaited: bool,
    /// What those that depend on it knew of it when it was last judged who has to wait.
    pub(crate) standing: Standing,
    /// It depends on something of which nothing is known: a replay of the past has no word of what
    /// is no service.
    pub(crate) depends_on_unknown: bool,
    /// Whether its alerts wait for something it depends on.
    pub(crate) held_up: HeldUp,
    /// What is usual for it.
    pub(crate) baseline: Baseline,
    /// Whether a rule's inputs changed since rules last ran.
    pub(crate) dirty: bool,
    /// Which questions were answered at least once.
    pub(crate) answered: Answered,
}

/// What matters of a service to those that depend on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Standing {
    is_down: bool,
    is_unsure: bool,
}

/// Whether a service's alerts wait for something it depends on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum HeldUp {
    No,
    /// It is down, or may be.
    ByNeed,
    /// No longer, since then; but what is known of the service may come of it.
    UntilAsked(Timestamp),
}

/// Which questions of a service were answered at least once.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Answered {
    health: bool,
    function: bool,
    needs: bool,
}

impl Answered {
    /// It is not asked at all.
    pub(crate) const RESTS: Self = Self { health: true, function: true, needs: true };
}

#[derive(Debug, Clone, Copy)]
struct LastCheck {
    latency: Option<Duration>,
    total: Duration,
    phases: Phases,
}

impl Watched {
    pub(crate) fn new(
        spec: Arc<ServiceSpec>,
        generation: u64,
        window: Duration,
        now: Timestamp,
    ) -> Self {
        Self {
            spec,
            generation,
            reins: None,
            fold: ServiceFold::new(window, now),
            conversation: Conversation::default(),
            last: None,
            stored_check: None,
            watched_since: now,
            facts: None,
            signs: Signs::default(),
            tools: BTreeMap::new(),
            looked_at: Vec::new(),
            starts: StartTimes::default(),
            is_checked: false,
            awaits_recheck: true,
            maintained: false,
            repair_given_up: false,
            is_awaited: false,
            standing: Standing::default(),
            depends_on_unknown: false,
            held_up: HeldUp::No,
            baseline: Baseline::default(),
            dirty: true,
            answered: Answered::default(),
        }
    }

    /// Takes up what the store last knew.
    pub(crate) fn restore(&mut self, stored: &StoredService) {
        self.fold.restore(stored);
        self.watched_since = stored.facts.watched_since.unwrap_or(self.watched_since);
        self.signs.let_in = stored.facts.conversation.era.is_some();
        self.conversation.clone_from(&stored.facts.conversation);
        if let Some(check) = &stored.last_check {
            self.last = Some(LastCheck {
                latency: check.latency,
                total: check.total,
                phases: check.phases,
            });
            self.stored_check = Some(check.at);
        }
        self.facts = Some(stored.facts.clone());
    }

    /// Takes in a check that was stored before this monitor started and that the restored counters
    /// hold already.
    pub(crate) fn refill(&mut self, check: &CheckRecord) {
        self.fold.refill_window(check);
        self.learn_from(check);
    }

    /// Takes in a stored check, for a replay of the past.
    pub(crate) fn apply_check(&mut self, check: &CheckRecord) {
        self.fold.apply_check(check);
        self.learn_from(check);
        self.note_answer(check.question, check.meaning(), check.at);
        self.dirty = true;
    }

    fn learn_from(&mut self, check: &CheckRecord) {
        self.signs.replay(check);
        if check.status.is_available() {
            self.starts.learn(check.phases);
        }
    }

    /// Takes in a stored change of status, for a replay of the past.
    pub(crate) fn apply_change(&mut self, change: &StatusChange) {
        self.fold.apply_change(change);
        if change.origin.is_gap() {
            self.awaits_recheck = true;
        }
        if change.origin == ChangeOrigin::Schedule {
            // Only an entry that cannot be used has a failure without a check.
            match self.is_paused() || change.failure.is_some() {
                true => self.note_rest(),
                false => self.is_checked = true,
            }
        }
        self.dirty = true;
    }

    /// A monitor started, for a replay of the past: what is not stored of the service was forgotten.
    pub(crate) fn note_start(&mut self) {
        if self.is_checked {
            self.awaits_recheck = true;
            self.answered = Answered::default();
        }
        self.is_awaited = false;
        self.held_up = HeldUp::No;
    }

    /// Notes that a stored check that began at `at` answered a question: what was waited for is
    /// known.
    fn note_answer(&mut self, question: Question, check: CheckMeaning, at: Timestamp) {
        if question == Question::Functional {
            self.answered.function = true;
        }
        if !check.is_of_service() {
            return;
        }
        self.answered.health = true;
        self.awaits_recheck = false;
        self.is_awaited = false;
        if let HeldUp::UntilAsked(since) = self.held_up
            && since <= at
        {
            self.held_up = HeldUp::No;
        }
    }

    /// A maintenance window begins or ends.
    pub(crate) fn set_maintained(&mut self, holds: bool) {
        self.maintained = holds;
        self.is_awaited = !holds;
        self.dirty = true;
        if holds {
            self.note_rest();
        } else {
            // One that was disabled meanwhile stays paused.
            self.is_checked = self.spec.invalid.is_none() && !self.is_paused();
        }
    }

    /// Checks have stopped: nothing is known to be down, and nothing is waited for.
    pub(crate) fn note_rest(&mut self) {
        self.is_checked = false;
        self.answered = Answered::RESTS;
        self.awaits_recheck = false;
        self.is_awaited = false;
        self.looked_at.clear();
    }

    /// The wall clock was set back by `span`.
    pub(crate) fn set_back(&mut self, span: Duration) {
        self.fold.set_back(span);
        self.signs.drift.set_back(span);
        self.watched_since = self.watched_since.saturating_sub(span);
        if let HeldUp::UntilAsked(since) = &mut self.held_up {
            *since = since.saturating_sub(span);
        }
        self.dirty = true;
    }

    /// Whether it rests as `paused`: it is disabled, passive, not agreed to or under maintenance.
    pub(crate) fn is_paused(&self) -> bool {
        self.fold.state.status == Status::Paused
    }

    /// Whether rules are evaluated for it now. A service that was not checked lately has no numbers
    /// of now, and one that rests gets none: an alert would report what is over. An entry that
    /// cannot be used is `unknown` and evaluated, since that is worth an alert.
    pub(crate) fn is_evaluated(&self) -> bool {
        !(self.awaits_recheck || self.maintained || self.is_paused())
    }

    /// Who asks it, if anybody does.
    pub(crate) fn reins(&self) -> Option<&Reins> {
        self.reins.as_ref()
    }

    /// The monitor did not watch from `at` on; rules wait until the service was asked again.
    pub(crate) fn interrupt(
        &mut self,
        cause: Option<Failure>,
        at: Timestamp,
        origin: ChangeOrigin,
    ) -> Option<StatusChange> {
        self.awaits_recheck = origin.is_gap();
        self.dirty = true;
        self.fold.discount(&origin);
        self.fold.state.interrupt(&self.spec.name, cause, at, origin)
    }

    /// Its monitoring has stopped: what is known of it is kept for when it is watched again.
    pub(crate) fn note_removed(&mut self) -> Option<ServiceFacts> {
        let facts = self.facts.as_mut()?;
        facts.watched = false;
        Some(facts.clone())
    }

    /// It is watched again, after another run or a while without; rules wait until it was asked.
    pub(crate) fn note_return(&mut self) {
        self.awaits_recheck = true;
        self.answered = Answered::default();
        self.is_awaited = false;
        self.held_up = HeldUp::No;
        self.looked_at.clear();
        self.repair_given_up = false;
    }

    /// Whether every question it is to be asked was answered once. Calls are not made of a service
    /// that is not well.
    pub(crate) fn was_asked(&self) -> bool {
        let Answered { health, function, needs } = self.answered;
        let calls = !self.spec.functional.is_empty() && self.fold.state.health.is_available();
        health && (function || !calls) && (needs || !want_a_look(&self.spec.depends_on))
    }

    /// Whether its checks in a row say all they will say soon: it is well, or failed as often as it
    /// is asked again at once.
    pub(crate) fn is_decided(&self) -> bool {
        let limits = &self.spec.limits;
        let enough = limits.max_consecutive_failures.min(limits.health_check_retries);
        let failures = self.fold.state.consecutive_failures;
        self.reins.is_none() || (!self.is_awaited && (failures == 0 || failures >= enough))
    }

    /// Decides the status that follows from a check whose numbers were recorded; returns the
    /// change, if there is one, and whether the check is to be stored. `is_recorded` is what
    /// [`ServiceFold::record`] returned.
    pub(crate) fn observe(
        &mut self,
        question: Question,
        observation: &Observation,
        (unproven, is_recorded): (bool, bool),
        at: Timestamp,
    ) -> (Option<StatusChange>, bool) {
        let spec = Arc::clone(&self.spec);
        if question == Question::Functional {
            self.record_calls(&observation.calls, at);
        }
        let check = (question, observation);
        let change = self.fold.observe(&spec.name, check, unproven, &spec.limits, at);
        if change.is_some() && !is_recorded {
            self.fold.record_numbers(question, observation, at);
        }
        let is_stored = is_recorded || change.is_some();
        if is_stored {
            self.note_answer(question, CheckMeaning::of_observation(question, observation), at);
            self.note_last(observation);
        }
        if observation.failure().is_none() {
            self.conversation.clone_from(&observation.conversation);
        }
        // A check that is not stored changes no input of a rule.
        self.dirty |= is_stored;
        (change, is_stored)
    }

    /// Takes in what was seen of what it depends on.
    pub(crate) fn looked(&mut self, dependencies: Vec<DependencyObservation>) {
        self.answered.needs = true;
        self.looked_at = dependencies;
    }

    /// Takes in configured calls.
    fn record_calls(&mut self, calls: &[CallObservation], at: Timestamp) {
        let made = calls.iter().filter(|call| {
            call.failure.as_ref().is_none_or(|why| why.code.status() != Status::Unknown)
        });
        for call in made {
            let error = call.failure.as_ref().map(ToString::to_string);
            let tool = self.tools.entry(call.tool.clone()).or_default();
            tool.record(at, call.duration, error);
        }
    }

    /// What those that depend on it have to know.
    pub(crate) fn as_need(&self) -> Need<'_> {
        let Standing { is_down, is_unsure } = self.stands();
        let problem = self.fold.state.failure.as_ref().map(|failure| failure.message.as_str());
        Need {
            depends_on: &self.spec.depends_on,
            looked_at: &self.looked_at,
            is_down,
            is_unsure,
            problem: if self.maintained { Some("it is under maintenance") } else { problem },
        }
    }

    /// How it stands towards those that depend on it. Under maintenance it may be down at any
    /// moment, and nobody looks; where our own network is gone, so is the way to it.
    pub(crate) fn stands(&self) -> Standing {
        let code = self.fold.state.failure.as_ref().map(|failure| failure.code);
        let is_down = self.maintained
            || self.fold.state.status.is_down()
            || code == Some(FailureCode::MonitorOffline);
        // It may be going down only until it has failed as often as that takes; and what asks for
        // credentials answers, however long it does.
        let failures = self.fold.state.consecutive_failures;
        let is_failing = failures > 0
            && failures < self.spec.limits.max_consecutive_failures
            && self.fold.state.status != Status::AuthRequired;
        let not_heard = self.is_awaited || self.awaits_recheck || !self.answered.health;
        let is_unsure = self.is_checked && !is_down && (is_failing || not_heard);
        Standing { is_down, is_unsure }
    }

    /// Whether what it depends on, and is no service, was not looked at yet.
    pub(crate) fn awaits_looks(&self) -> bool {
        self.is_checked && !self.answered.needs && want_a_look(&self.spec.depends_on)
    }

    fn note_last(&mut self, observation: &Observation) {
        self.last = Some(LastCheck {
            latency: observation.latency,
            total: observation.total,
            phases: observation.phases,
        });
    }

    /// The finding that too many of its checks fail, for a service that works now and has for the
    /// whole window: an outage that is over is no reason to call it degraded.
    pub(crate) fn error_rate_finding(&self, now: Timestamp) -> Option<Finding> {
        let since = self.fold.state.available_since?;
        if now.since(since) < DEFAULT_WINDOW {
            return None;
        }
        let metrics = self.metrics(DEFAULT_WINDOW, now);
        let limit = self.spec.limits.error_rate_threshold;
        let too_many =
            metrics.error_rate > limit && metrics.error_rate_samples >= ERROR_RATE_SAMPLES;
        too_many.then(|| {
            let percent = metrics.error_rate * 100.0;
            let message = format!(
                "{} of {} checks in 5 minutes failed ({percent:.1} %)",
                metrics.failed_checks, metrics.total_checks
            );
            Finding::new(FindingCode::HighErrorRate, message)
                .with("error_rate", metrics.error_rate)
                .with("samples", metrics.error_rate_samples)
        })
    }

    pub(crate) fn metrics(&self, span: Duration, now: Timestamp) -> ServiceMetrics {
        self.fold.metrics(&self.spec.name, span, now)
    }

    /// What the store should know of it, if that changed.
    pub(crate) fn changed_facts(&mut self) -> Option<ServiceFacts> {
        if self.is_told() {
            return None;
        }
        let facts = ServiceFacts {
            service: self.spec.name.clone(),
            transport: self.spec.transport.as_str().to_owned(),
            conversation: self.conversation.clone(),
            tools_count: self.fold.window.tools_count(),
            restarts: self.fold.state.restarts,
            available_since: self.fold.state.available_since,
            consecutive_failures: self.fold.state.consecutive_failures,
            function_failures: self.fold.state.function.failures,
            last_error: self.fold.state.last_error.clone(),
            watched_since: Some(self.watched_since),
            watched: true,
            check_interval_ms: interval_ms(&self.spec),
            tool_list_tokens: self.fold.window.tool_list_tokens(),
        };
        self.facts = Some(facts.clone());
        Some(facts)
    }

    /// Whether the store knows all of it. Asked after every check, so nothing is copied for it.
    fn is_told(&self) -> bool {
        let Some(facts) = &self.facts else { return false };
        let ServiceFacts {
            service,
            transport,
            conversation,
            tools_count,
            restarts,
            available_since,
            consecutive_failures,
            function_failures,
            last_error,
            watched_since,
            watched,
            check_interval_ms,
            tool_list_tokens,
        } = facts;
        *service == self.spec.name
            && *transport == self.spec.transport.as_str()
            && *conversation == self.conversation
            && *tools_count == self.fold.window.tools_count()
            && *restarts == self.fold.state.restarts
            && *available_since == self.fold.state.available_since
            && *consecutive_failures == self.fold.state.consecutive_failures
            && *function_failures == self.fold.state.function.failures
            && *last_error == self.fold.state.last_error
            && *watched_since == Some(self.watched_since)
            && *watched
            && *check_interval_ms == interval_ms(&self.spec)
            && *tool_list_tokens == self.fold.window.tool_list_tokens()
    }

    /// The status it has without being asked, if it is not to be asked.
    pub(crate) fn resting(&self) -> Option<(Status, Option<Failure>)> {
        resting(&self.spec).or_else(|| self.maintained.then_some((Status::Paused, None)))
    }

    pub(crate) fn report(&self, now: Timestamp) -> ServiceStatusReport {
        let name = self.spec.name.clone();
        let transport = self.spec.transport.as_str();
        let mut check = ServiceReport::unasked(name, transport, self.fold.state.status);
        check.protocol_version.clone_from(&self.conversation.protocol_version);
        check.era = self.conversation.era;
        check.server.clone_from(&self.conversation.server);
        check.tools_count = self.fold.window.tools_count();
        check.failure.clone_from(&self.fold.state.failure);
        check.findings.clone_from(&self.fold.state.findings);
        if let Some(last) = self.last {
            check.latency_ms = last.latency.map(as_millis);
            check.total_ms = Some(as_millis(last.total));
            check.phases = last.phases;
        }
        let metrics = self.metrics(DEFAULT_WINDOW, now);
        ServiceStatusReport { check, since: self.fold.state.since, metrics: Some(metrics) }
    }
}

fn interval_ms(spec: &ServiceSpec) -> Option<u64> {
    u64::try_from(spec.limits.check_interval.as_millis()).ok()
}

/// The status a service has without being asked: `paused` when disabled or not consented to,
/// `unknown` when its entry cannot be used; `None` when it is to be asked.
pub(crate) fn resting(spec: &ServiceSpec) -> Option<(Status, Option<Failure>)> {
    if let Some(failure) = &spec.invalid {
        return Some((Status::Unknown, Some(failure.clone())));
    }
    let passive = spec.mode == mcpmon_core::service::WatchMode::Passive;
    let paused = !spec.enabled || spec.paused_because.is_some() || passive;
    paused.then_some((Status::Paused, None))
}

/// The monitor's present.
#[derive(Debug, Default)]
pub(crate) struct World {
    pub(crate) services: BTreeMap<ServiceName, Watched>,
    pub(crate) host: Option<HostReport>,
    pub(crate) report: MonitorReport,
    /// The disk of the history is nearly full.
    pub(crate) is_disk_low: bool,
    /// Whether handlers get through, by name.
    pub(crate) reach: BTreeMap<String, Reach>,
    /// How far back the rules look.
    pub(crate) reach_of_rules: Duration,
    /// Newest first.
    pub(crate) alerts: VecDeque<AlertRecord>,
}

impl World {
    pub(crate) fn snapshot(&self, now: Timestamp) -> Snapshot {
        let mut services: Vec<ServiceStatusReport> =
            self.services.values().map(|watched| watched.report(now)).collect();
        services.sort_by_cached_key(|service| service.check.order());
        Snapshot {
            at: now,
            monitor: self.report.clone(),
            services,
            host: self.host.clone(),
            alerts: self.alerts.iter().cloned().collect(),
        }
    }

    /// Notes an alert as it now is.
    pub(crate) fn note_alert(&mut self, record: AlertRecord) {
        match self.alerts.iter_mut().find(|known| known.alert.id == record.alert.id) {
            Some(known) => *known = record,
            None => self.alerts.push_front(record),
        }
        self.alerts.truncate(SHOWN_ALERTS);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_finding_of_the_engine_does_not_make_every_heartbeat_recorded() {
        let spec = Arc::new(ServiceSpec::http("a", "http://a.test/mcp"));
        let mut watched = Watched::new(spec, 1, DEFAULT_WINDOW, Timestamp::default());
        let mut observation = Observation::answered();
        observation.findings.push(Finding::new(FindingCode::HighErrorRate, "too many"));
        let at = Timestamp::default();
        assert!(watched.fold.record(Question::Health, &Observation::answered(), false, at));
        watched.observe(Question::Health, &observation, (false, true), at);
        let gone = Failure::new(FailureCode::Exited, mcpmon_core::Phase::Request, "gone");
        let heartbeat =
            |seen: &Observation| watched.fold.is_recorded(Question::Heartbeat, seen, false);
        assert!(!heartbeat(&Observation::answered()));
        assert!(heartbeat(&Observation::failed(gone)));
    }
}
