//! What the loop does with what it hears: checks, samples of the machine, verdicts, and the store's
//! answers.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use mcpmon_core::alert::AlertPhase;
use mcpmon_core::contract::HostReport;
use mcpmon_core::monitor::MonitorEvent;
use mcpmon_core::service::ServiceName;
use mcpmon_core::state::StatusChange;
use mcpmon_core::store::{
    AlertRecord, Batch, CheckRecord, HostRecord, ListChange, ListRecord, StoreError, Transition,
};
use mcpmon_core::{Observation, Outcome, Question, SystemMetrics};
use tokio::time::Instant;

use crate::buffer::Unsaid;
use crate::facts;
use crate::failpoint::Failpoint;
use crate::needs;
use crate::outbox::{ANSWER_WITHIN, Entry, unanswered};
use crate::run::{Engine, LATE, Writing};
use crate::signs;
use crate::watcher::Observed;
use crate::world::{Watched, World};

/// Marks what a service depends on, down to the last, as awaited at the service's first failure:
/// it is asked before that failure counts as an outage. Returns the names that were marked.
pub(crate) fn await_dependencies(
    services: &mut BTreeMap<ServiceName, Watched>,
    service: &ServiceName,
) -> Vec<ServiceName> {
    let is_first_failure =
        services.get(service).is_some_and(|one| one.fold.state.consecutive_failures == 1);
    if !is_first_failure {
        return Vec::new();
    }
    let look = |name: &ServiceName| services.get(name).map(Watched::as_need);
    let mut awaited: Vec<ServiceName> = needs::all_of(service, &look).into_iter().collect();
    awaited.retain(|name| services.get(name).is_some_and(|watched| watched.is_checked));
    for name in &awaited {
        if let Some(watched) = services.get_mut(name) {
            watched.is_awaited = true;
        }
    }
    awaited
}

/// Has services asked at once.
pub(crate) fn recheck_now(services: &BTreeMap<ServiceName, Watched>, names: &[ServiceName]) {
    for reins in names.iter().filter_map(|name| services.get(name)?.reins.as_ref()) {
        reins.recheck(Duration::ZERO);
    }
}

impl Engine {
    /// Takes in one check.
    pub(crate) fn observed(&mut self, mut observed: Observed) {
        let service = observed.service.clone();
        if !self.is_wanted(&observed) {
            return;
        }
        if observed.question == Question::Dependency {
            return self.looked(observed);
        }
        self.absolve(&service, &mut observed);
        self.amend(&service, &mut observed.observation);
        let Observed { question, at, unproven, span, mut observation, .. } = observed;
        let shared = Arc::clone(&self.shared);
        let mut world = shared.write();
        let Some(watched) = world.services.get_mut(&service) else {
            return;
        };
        let raw = observation.raw_status();
        tracing::debug!(%service, question = question.as_str(), status = %raw,
            code = observation.failure().map(|failure| failure.code.as_str()),
            total = ?observation.total, "Checked");
        let is_recorded = watched.fold.record(question, &observation, unproven, at);
        watched.signs.sample(at, &observation);
        // Before the findings: the change is one of them.
        let drift = &mut watched.signs.drift;
        let news = observation.lists.as_ref().map(|lists| drift.compare_lists(&service, lists, at));
        if observation.failure().is_none() {
            observation.findings.extend(watched.error_rate_finding(at));
            observation.findings.extend(watched.signs.findings(at));
        }
        let (change, is_stored) =
            watched.observe(question, &observation, (unproven, is_recorded), at);
        self.repairs.checked(&watched.spec, question, at, span.0.into(), &observation);
        if is_stored {
            let record = CheckRecord {
                unproven,
                ..CheckRecord::new(service.clone(), at, question, &observation)
            };
            if self.events.receiver_count() > 0 {
                self.tell(MonitorEvent::Checked(Box::new(record.clone())));
            }
            self.buffer.batch.checks.push(record);
        }
        if let (Some(news), Some(lists)) = (news, observation.lists)
            && news.is_stored
        {
            self.buffer.batch.list_changes.extend(news.change);
            self.buffer.batch.lists.push(ListRecord { service: service.clone(), at, lists });
        }
        self.buffer.batch.facts.extend(watched.changed_facts());
        let failures = watched.fold.state.consecutive_failures;
        if is_stored {
            let awaited = await_dependencies(&mut world.services, &service);
            recheck_now(&world.services, &awaited);
        }
        drop(world);
        self.note_change(change);
        if failures == 2 {
            self.ask_witnesses(&service);
        }
    }

    /// Counts a check, unless whom it is about is gone or was replaced.
    fn is_wanted(&mut self, observed: &Observed) -> bool {
        let mut world = self.shared.write();
        let watched = world.services.get(&observed.service);
        if watched.is_none_or(|watched| watched.generation != observed.generation) {
            return false;
        }
        let report = &mut world.report;
        report.checks_total += 1;
        report.missed_checks_total += u64::from(observed.missed);
        if observed.lag > LATE {
            report.late_checks_total += 1;
        }
        self.lags.record(observed.lag, observed.span.1);
        true
    }

    /// Takes in what was seen of what a service depends on.
    fn looked(&mut self, observed: Observed) {
        if let Some(watched) = self.shared.write().services.get_mut(&observed.service) {
            watched.looked(observed.observation.dependencies);
        }
        self.judge.needs_changed();
    }

    /// Names the failure of a check that is another, seen over time and over the fleet.
    fn amend(&mut self, service: &ServiceName, observation: &mut Observation) {
        let shared = Arc::clone(&self.shared);
        let mut world = shared.write();
        if let Some(watched) = world.services.get_mut(service) {
            let spec = Arc::clone(&watched.spec);
            watched.signs.amend(&spec, observation);
        }
        let is_down = observation.raw_status().is_down();
        let look = |name: &ServiceName| world.services.get(name).map(Watched::as_need);
        // A call that was answered wrongly was answered: no dependency explains that.
        if let Outcome::Failed(failure) = &mut observation.outcome
            && is_down
            && !failure.code.is_of_function()
            && let Some(blocker) = needs::blocker(service, &look)
        {
            *failure = signs::blocked(failure, &blocker);
        }
    }

    /// Tells whoever listens, if anybody does.
    pub(crate) fn tell(&self, event: MonitorEvent) {
        let _ = self.events.send(event);
    }

    pub(crate) fn note_change(&mut self, change: Option<StatusChange>) {
        if let Some(change) = change {
            tracing::debug!(service = %change.service, from = %change.from, status = %change.status,
                "Status changed");
            self.tell(MonitorEvent::StatusChanged(Box::new(change.clone())));
            self.buffer.batch.changes.push(change);
        }
    }

    pub(crate) fn measured(&mut self, metrics: SystemMetrics) {
        if !self.settings.performance_enabled() {
            return;
        }
        let at = self.shared.clock.now();
        self.buffer.batch.host.push(HostRecord { at, metrics: metrics.clone() });
        self.shared.write().host = Some(HostReport { at, metrics });
        self.host_dirty = true;
        self.host_awaited_until = None;
    }

    /// Runs rules for what changed, and hands on what came of it.
    pub(crate) fn judge_services(&mut self) {
        if !self.settings.monitoring.alerts_enabled {
            // Repairs wait for dependencies all the same.
            let now = self.shared.clock.now();
            return self.judge.see_needs(&mut self.shared.write().services, now);
        }
        let now = self.shared.clock.now();
        let shared = Arc::clone(&self.shared);
        let mut world = shared.write();
        let World { services, host, .. } = &mut *world;
        let changed = std::mem::take(&mut self.host_dirty);
        let mut judged = self.judge.run(services, now);
        if let Some(host) = host {
            judged = judged.and(self.judge.run_host(&host.metrics, changed, now));
        }
        judged = judged.and(self.judge.run_facts(facts::of(&world, &self.network, now), now));
        if self.judge.is_looking_around() && !world.services.values().any(Watched::awaits_looks) {
            judged = judged.and(self.judge.looked_around(now));
        }
        world.report.rule_failures_total += judged.rule_failures;
        for event in judged.events {
            match &event {
                MonitorEvent::AlertFired(record) | MonitorEvent::AlertResolved(record) => {
                    world.note_alert(AlertRecord::clone(record));
                }
                MonitorEvent::RuleFailed { rule, error } => {
                    tracing::warn!(%rule, %error, "Rule failed");
                }
                _ => {}
            }
            self.tell(event);
        }
        drop(world);
        self.record(judged.transition);
    }

    /// Has a transition written at once, and its deliveries queued.
    pub(crate) fn record(&mut self, transition: Option<Transition>) {
        if let Some(transition) = transition {
            self.commits_sent += 1;
            let _ = self.transitions.send(Entry::Transition(Box::new(transition)));
        }
    }

    /// Records alerts that ended without a word, because their rule or service is gone.
    pub(crate) fn record_ended(&mut self, transition: Option<Transition>) {
        for alert in transition.iter().flat_map(|transition| &transition.alerts) {
            let record = AlertRecord { alert: alert.clone(), state: AlertPhase::Resolved };
            self.shared.write().note_alert(record.clone());
            self.tell(MonitorEvent::AlertResolved(Box::new(record)));
        }
        self.record(transition);
    }

    /// Hands the buffer to the store, unless the batch before is still being written.
    pub(crate) fn write(&mut self) {
        if let Some(Writing { since, batch, .. }) = &self.writing {
            let (since, batch) = (*since, Arc::clone(batch));
            self.buffer.bound();
            self.see_dropped();
            if since.elapsed() > ANSWER_WITHIN {
                // What cannot be stored is reported all the same, from memory.
                let waiting = self.buffer.batch.list_changes.clone();
                self.offer_list_changes(&batch.list_changes);
                self.offer_list_changes(&waiting);
                self.store_works = false;
                self.store_failed(&unanswered());
                self.batch_done();
            }
            return;
        }
        if self.buffer.batch.is_empty() {
            return;
        }
        let batch = Arc::new(self.buffer.take());
        let (store, appended) = (Arc::clone(&self.shared.store), Arc::clone(&batch));
        let task = tokio::spawn(async move {
            let has_list_change = !appended.list_changes.is_empty();
            if has_list_change {
                Failpoint::BeforeStore.pass();
            }
            let result = store.append(&appended).await;
            if has_list_change {
                Failpoint::AfterStore.pass();
            }
            result
        });
        self.writing = Some(Writing { batch, task, since: Instant::now() });
    }

    pub(crate) fn written(&mut self, batch: Batch, result: Result<(), StoreError>) {
        // What cannot be stored is reported all the same, from memory.
        self.offer_list_changes(&batch.list_changes);
        match result {
            Ok(()) => {
                self.store_works = true;
                self.see_recovery();
            }
            Err(error) => {
                self.store_works = false;
                self.buffer.put_back(batch);
                self.see_dropped();
                self.store_failed(&error);
            }
        }
        self.batch_done();
        self.see_first_round();
    }

    /// Hands changes of lists on to be reported, now that they are stored: reported before, a change
    /// would be made and reported again after a crash.
    fn offer_list_changes(&mut self, changes: &[ListChange]) {
        if changes.is_empty() {
            return;
        }
        let mut world = self.shared.write();
        for change in changes {
            // One that was just removed reports it when it is watched again.
            let removed = self.removed.get_mut(&change.service).map(|(_, watched)| watched);
            if let Some(watched) = world.services.get_mut(&change.service).or(removed) {
                watched.signs.drift.offer_change(change);
                watched.dirty = true;
            }
        }
    }

    /// Has what was dropped said again, as soon as there is a word of its service.
    fn see_dropped(&mut self) {
        let Unsaid { facts, lists } = self.buffer.take_unsaid();
        if facts.is_empty() && lists.is_empty() {
            return;
        }
        let mut world = self.shared.write();
        for name in facts {
            if let Some(watched) = world.services.get_mut(&name) {
                watched.facts = None;
            }
        }
        for name in lists {
            if let Some(watched) = world.services.get_mut(&name) {
                watched.signs.drift.was_dropped();
            }
        }
    }

    /// Says so once samples can be written again and the incident log is owed nothing.
    pub(crate) fn see_recovery(&mut self) {
        if !self.store_works || self.outbox.owes() {
            return;
        }
        let mut world = self.shared.write();
        let recovered = world.report.store_error.take().is_some();
        world.report.waiting_samples = 0;
        world.report.waiting_bytes = 0;
        drop(world);
        if recovered {
            self.tell(MonitorEvent::StoreRecovered);
        }
    }

    pub(crate) fn store_failed(&mut self, error: &StoreError) {
        let (waiting, dropped) = (self.buffer.waiting(), self.buffer.dropped());
        let bytes = self.buffer.bytes();
        let mut world = self.shared.write();
        let report = &mut world.report;
        report.waiting_samples = waiting;
        report.waiting_bytes = bytes;
        report.dropped_samples_total = dropped;
        let error = error.to_string();
        if report.store_error.as_ref() != Some(&error) {
            tracing::error!(%error, waiting, dropped, "Store cannot be written; samples wait in memory");
            report.store_error = Some(error.clone());
        }
        drop(world);
        self.tell(MonitorEvent::StoreFailed { error, waiting, dropped });
    }

    /// Notes, right after everything was judged and what was seen handed on, whether that was the
    /// whole first round, and whether what failed in it was asked often enough to say that it is
    /// down.
    pub(crate) fn see_round_judged(&mut self) {
        // A store that does not work must not keep it from ending.
        let handed_on = self.buffer.batch.is_empty() || !self.store_works;
        let host_known = self.host_awaited_until.is_none_or(|until| Instant::now() >= until);
        if handed_on && host_known && self.first_verdicts.is_asking() {
            let (asked, decided) = {
                let world = self.shared.read();
                let asked = world.services.values().all(Watched::was_asked);
                (asked, asked && world.services.values().all(Watched::is_decided))
            };
            let is_writing = self.writing.is_some() && self.store_works;
            if asked {
                self.first_round.judged(self.commits_sent, is_writing);
            }
            if decided {
                self.first_verdicts.judged(self.commits_sent, is_writing);
            }
        }
        self.see_first_round();
    }

    /// Says so once every service was asked, and what came of it is stored and judged.
    pub(crate) fn see_first_round(&mut self) {
        if self.first_round.ends(self.commits_done) {
            self.first_round_over.send_replace(true);
        }
        if self.first_verdicts.ends(self.commits_done) {
            self.first_verdicts_over.send_replace(true);
        }
    }

    /// The batch being written was answered for.
    fn batch_done(&mut self) {
        self.first_round.batch_done();
        self.first_verdicts.batch_done();
    }
}
