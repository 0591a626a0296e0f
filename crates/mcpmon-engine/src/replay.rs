//! Rules tried on the past: what would have been sent, had these rules been in force.
//!
//! Stored checks, changes of status and samples of the machine come back in the order in which they
//! were known, on virtual time, and go the way they go in a running monitor: the same window, rules,
//! alert states and routes. Status is taken as it was, since rules do not make it. Nothing is
//! written and no handler is called.
//!
//! What was never stored cannot come back: it is `no_data` to the rules that look at it, and the
//! report says so. A rule that asks for it must not look as if it were content. The same holds for
//! the time after the history ended: nothing is judged then, and nothing goes on.

mod ends;
mod past;
mod report;
mod tally;

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use mcpmon_alert::RuleSet;
use mcpmon_core::alert::Silence;
use mcpmon_core::rule::Scope;
use mcpmon_core::service::{ServiceName, ServiceSpec};
use mcpmon_core::state::ChangeOrigin;
use mcpmon_core::store::hours::hour_of;
use mcpmon_core::store::{
    CheckRecord, HostRecord, ListChange, RecordQuery, SampleStore, StoreError, StoredService,
    restarts_before,
};
use mcpmon_core::window::RING_SPAN;
use mcpmon_core::{Rule, Settings, Timestamp};

use self::ends::Ends;
use self::past::{Happening, Past};
use self::report::{Collector, MOST_NAMES};
pub use self::report::{ReplayReport, ReplayedAlert, ReplayedMessage, RuleSummary};
use self::tally::Tallied;
use crate::baseline;
use crate::intake::await_dependencies;
use crate::judge::Judge;
use crate::maintain::Windows;
use crate::needs::{self, Need};
use crate::records::Records;
use crate::world::Watched;

/// Rules run before the span that is asked for, so that what fires when it begins is known to fire
/// already.
const LEAD: Duration = Duration::from_secs(3_600);
/// A monitor evaluates rules this often, and notices within it that maintenance has ended.
const TICK: Duration = Duration::from_secs(1);
/// The machine is measured more often than this while a monitor runs.
const LONGEST_SILENCE_OF_HOST: Duration = Duration::from_secs(120);
/// A service that fails may be left alone for so long.
const LONGEST_SILENCE: Duration = Duration::from_secs(660);
/// Services whose baseline is asked for at once.
const AT_ONCE: usize = 200;
/// What a rule must look at for a baseline to be worth asking for.
const USUAL: [&str; 4] =
    ["usual_response_time", "usual_error_rate", "response_time_z", "error_rate_z"];

/// Rules and the past they are to be tried on.
#[derive(Debug, Clone)]
pub struct Replay {
    /// Rules, routes, cooldown, maintenance windows and thresholds.
    pub settings: Settings,
    /// What is known of services: labels, limits, dependencies. One that is stored and not named
    /// here has no labels and the settings' limits.
    pub services: Vec<ServiceSpec>,
    /// Names of the handlers there would be.
    pub handlers: Vec<String>,
    /// From this moment on.
    pub since: Timestamp,
    /// Before this moment.
    pub until: Timestamp,
    /// Only these services; all of them if empty.
    pub only: BTreeSet<ServiceName>,
    /// The silences there were, ended ones included.
    pub silences: Vec<Silence>,
}

/// Rules could not be tried.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReplayError {
    /// The rules cannot be used.
    #[error("{0}")]
    Rules(String),
    /// The past cannot be read.
    #[error("stored history could not be read: {0}")]
    Store(#[from] StoreError),
}

impl Replay {
    /// Tries the rules on what `store` remembers. Memory is bounded by the number of services and
    /// of alerts, not by the span.
    ///
    /// # Errors
    ///
    /// When the rules cannot be used or the store cannot be read.
    pub async fn run(self, store: &dyn SampleStore) -> Result<ReplayReport, ReplayError> {
        let rules = RuleSet::from_settings(&self.settings).map_err(|errors| {
            let texts: Vec<String> = errors.iter().map(ToString::to_string).collect();
            ReplayError::Rules(texts.join("\n"))
        })?;
        let stage = Stage::set(&self, &rules, store).await?;
        stage.play(store).await
    }
}

/// Everything that plays.
struct Stage<'a> {
    replay: &'a Replay,
    judge: Judge,
    tallies: Vec<Arc<Tallied>>,
    windows: Windows,
    cast: BTreeMap<ServiceName, Watched>,
    specs: HashMap<ServiceName, Arc<ServiceSpec>>,
    /// Services that are watched from some moment on, by that moment.
    joining: Vec<(Timestamp, ServiceName)>,
    /// When silences begin: every rule is evaluated anew then, as in a running monitor.
    silence_starts: Vec<Timestamp>,
    /// How often processes had been started again when the past that is read begins.
    restarts: HashMap<ServiceName, u64>,
    /// Changes of lists whose check was not replayed yet, the next one first.
    list_changes: HashMap<ServiceName, VecDeque<ListChange>>,
    /// Changes of lists that are to be reported, and from when on.
    list_news: VecDeque<(Timestamp, ListChange)>,
    /// Services that were no longer watched from some moment on.
    leaving: BTreeMap<ServiceName, Timestamp>,
    /// Up to when anything is known.
    ends: Ends,
    /// The last start of a monitor that was replayed.
    started_at: Option<Timestamp>,
    dirty: BTreeSet<ServiceName>,
    /// The machine's last sample since the last start.
    host: Option<HostRecord>,
    was_host_seen: bool,
    host_dirty: bool,
    wants_usual: bool,
    reach: Duration,
    collector: Collector,
}

impl<'a> Stage<'a> {
    async fn set(
        replay: &'a Replay,
        rules: &RuleSet,
        store: &dyn SampleStore,
    ) -> Result<Self, ReplayError> {
        let tallies: Vec<Arc<Tallied>> =
            rules.rules().iter().map(|rule| Arc::new(Tallied::new(Arc::clone(rule)))).collect();
        let counted = tallies.iter().map(|rule| Arc::clone(rule) as Arc<dyn Rule>).collect();
        // Whoever tries rules wants to know what they would do if they were switched on.
        let mut settings = replay.settings.clone();
        settings.monitoring.alerts_enabled = true;
        let mut judge = Judge::new(&settings, false, counted, &replay.handlers)
            .map_err(|error| ReplayError::Rules(error.to_string()))?;
        judge.set_silences(replay.silences.clone());
        let mut silence_starts: Vec<Timestamp> =
            replay.silences.iter().map(|silence| silence.starts_at).collect();
        silence_starts.sort_unstable_by(|a, b| b.cmp(a));
        let mut specs: HashMap<ServiceName, Arc<ServiceSpec>> = HashMap::new();
        for spec in &replay.services {
            specs.insert(spec.name.clone(), Arc::new(spec.clone()));
        }
        let stored = store.services().await?;
        let ends = Ends::of(&stored, store.last_host().await?.map(|sample| sample.at));
        let reach = judge.reach().max(RING_SPAN);
        let range = RecordQuery::all().since(lead_begins(replay).saturating_sub(reach));
        let restarts = restarts_before(store, &stored, &range).await?;
        let mut leaving = BTreeMap::new();
        let mut joining = Vec::new();
        for stored in stored {
            let name = &stored.facts.service;
            joining.extend(stored.facts.watched_since.map(|since| (since, name.clone())));
            leaving.extend(left_at(&stored).map(|at| (stored.facts.service.clone(), at)));
            let spec = || Arc::new(spec_of(&stored, &settings));
            specs.entry(stored.facts.service.clone()).or_insert_with(spec);
        }
        // The last to join first, so that the next can be popped.
        joining.sort_unstable_by(|a, b| b.cmp(a));
        Ok(Self {
            joining,
            silence_starts,
            restarts,
            list_changes: HashMap::new(),
            list_news: VecDeque::new(),
            windows: Windows::new(&settings),
            wants_usual: rules.rules().iter().any(|rule| rule.looks_at_any(&USUAL)),
            collector: Collector::new(replay.since, replay.until),
            replay,
            judge,
            tallies,
            cast: BTreeMap::new(),
            specs,
            leaving,
            ends,
            started_at: None,
            dirty: BTreeSet::new(),
            host: None,
            was_host_seen: false,
            host_dirty: false,
            reach,
        })
    }

    /// Whom the past is read for: those who are asked for, and whom they depend on.
    fn wanted(&self) -> BTreeSet<ServiceName> {
        let look = |name: &ServiceName| self.configured_need(name);
        let only = &self.replay.only;
        only.iter().flat_map(|name| needs::all_of(name, &look)).chain(only.clone()).collect()
    }

    /// What a service depends on by its configuration.
    fn configured_need(&self, name: &ServiceName) -> Option<Need<'_>> {
        let spec = self.specs.get(name)?;
        Some(Need {
            depends_on: &spec.depends_on,
            looked_at: &[],
            is_down: false,
            is_unsure: false,
            problem: None,
        })
    }

    async fn play(mut self, store: &dyn SampleStore) -> Result<ReplayReport, ReplayError> {
        let begin = lead_begins(self.replay);
        let wanted = self.wanted();
        self.recall(store, begin.saturating_sub(self.reach), &wanted).await?;
        let query = RecordQuery {
            service: (wanted.len() == 1).then(|| wanted.first().cloned()).flatten(),
            until: Some(self.replay.until),
            ..RecordQuery::all().since(begin.saturating_sub(self.reach))
        };
        self.list_changes = list_changes(store, query.clone()).await?;
        let mut past = Past::new(store, query);
        let silence = match self.ends.host {
            Some(_) => LONGEST_SILENCE_OF_HOST,
            None => self.longest_silence(),
        };
        let mut now = begin;
        let mut hour = i64::MIN;
        let mut last_seen = begin;
        loop {
            let next = past.next_at().await?;
            let due = self.next_due();
            // Where nothing at all was seen for a while, no monitor ran that could have reminded.
            let ran_on = next.is_none_or(|next| next.since(last_seen) <= silence);
            let away_from = past.next_absence();
            let is_alive = |due: &Timestamp| {
                let ran = ran_on || away_from.is_some_and(|from| *due <= from);
                ran && due.since(last_seen) <= silence
            };
            let due = due.filter(|due| is_alive(due) && *due < self.replay.until);
            let join = self.joining.last().map(|(since, _)| *since);
            let join = join.filter(|since| (begin..self.replay.until).contains(since));
            let Some(next) = next.into_iter().chain(due).chain(join).min() else { break };
            let known_at = next.max(now);
            let tick = past.next_evaluation(known_at, next_tick(known_at)).await?;
            self.join_services(&wanted, tick);
            while let Some(happening) = past.next_until(tick).await? {
                last_seen = tick;
                self.happens(&happening, &wanted, tick);
            }
            self.offer_list_changes(tick);
            for name in self.update_maintenance(tick) {
                if !past.is_scheduled(&name, tick.saturating_add(TICK)).await? {
                    self.rest_service(&name, tick);
                }
            }
            self.start_silences(tick);
            now = tick;
            if now < begin || now >= self.replay.until {
                self.dirty.clear();
                continue;
            }
            if self.wants_usual && hour != hour_of(now) {
                hour = hour_of(now);
                self.renew_usual(store, hour).await?;
            }
            self.judge_at(now);
            // A due time that changed nothing must not come again at once.
            now = now.saturating_add(Duration::from_millis(1));
        }
        Ok(self.finish())
    }

    /// What every service was when the past that is read begins.
    async fn recall(
        &mut self,
        store: &dyn SampleStore,
        begin: Timestamp,
        wanted: &BTreeSet<ServiceName>,
    ) -> Result<(), ReplayError> {
        let query = RecordQuery { until: Some(begin), ..RecordQuery::all() };
        let mut changes = Records::new(store, query, |store, query| store.changes(query));
        while let Some(change) = changes.take_next().await? {
            self.happens(&Happening::Change(change), wanted, begin);
        }
        for watched in self.cast.values_mut() {
            watched.awaits_recheck = false;
            // A service that is down then failed often enough in a row before.
            let enough = watched.spec.limits.max_consecutive_failures;
            let state = &mut watched.fold.state;
            if state.function.failure.is_some() {
                state.function.failures = enough;
            } else if state.status.is_failure() {
                state.consecutive_failures = enough;
            }
        }
        self.dirty.clear();
        Ok(())
    }

    /// When rules are to be evaluated although nothing was seen.
    fn next_due(&self) -> Option<Timestamp> {
        let silence = self.silence_starts.last().copied();
        let change = self.list_news.front().map(|(from, _)| *from);
        let due = [self.judge.next_due(), self.windows.next_edge(), silence, change];
        due.into_iter().flatten().min()
    }

    /// Services that are watched from now on: those that depend on one wait for its first check.
    fn join_services(&mut self, wanted: &BTreeSet<ServiceName>, now: Timestamp) {
        while let Some((_, name)) = self.joining.pop_if(|(since, _)| *since <= now) {
            if wanted.is_empty() || wanted.contains(&name) {
                self.join_service(&name, now);
            }
        }
    }

    fn join_service(&mut self, name: &ServiceName, now: Timestamp) {
        let Some(spec) = self.specs.get(name) else { return };
        if self.cast.contains_key(name) {
            return;
        }
        let mut watched = Watched::new(Arc::clone(spec), 0, self.judge.reach(), now);
        watched.fold.state.restarts = self.restarts.get(name).copied().unwrap_or_default();
        watched.maintained = self.windows.holds(spec, now);
        watched.depends_on_unknown = needs::has_external(name, &|name| self.configured_need(name));
        // Whether it was checked then is what its changes report, not its entry of today.
        match watched.maintained {
            true => watched.note_rest(),
            false => watched.is_checked = true,
        }
        self.cast.insert(name.clone(), watched);
        self.dirty.insert(name.clone());
        self.judge.needs_changed();
    }

    fn offer_list_changes(&mut self, now: Timestamp) {
        while let Some((_, change)) = self.list_news.pop_front_if(|(from, _)| *from <= now) {
            if let Some(watched) = self.cast.get_mut(&change.service) {
                watched.signs.drift.offer_change(&change);
                watched.dirty = true;
                self.dirty.insert(change.service);
            }
        }
    }

    /// A check that was taken in at the evaluation at `now` changed lists. A monitor stores a change
    /// after that evaluation and reports it at the next one.
    fn expect_list_changes(&mut self, check: &CheckRecord, now: Timestamp) {
        let Some(changes) = self.list_changes.get_mut(&check.service) else { return };
        while let Some(change) = changes.pop_front_if(|change| change.at <= check.at) {
            self.list_news.push_back((now.saturating_add(TICK), change));
        }
    }

    /// Begins and ends maintenance. Returns the services of which maintenance has ended and that are
    /// paused nevertheless.
    fn update_maintenance(&mut self, now: Timestamp) -> Vec<ServiceName> {
        let mut paused = Vec::new();
        for (name, holds) in self.windows.find_changed(&self.cast, now) {
            if let Some(watched) = self.cast.get_mut(&name) {
                watched.set_maintained(holds);
                if !holds && watched.is_paused() {
                    paused.push(name.clone());
                }
                self.judge.needs_changed();
                self.dirty.insert(name);
            }
        }
        paused
    }

    /// A service was disabled while it was under maintenance, which has ended: nothing was stored of
    /// that, since it stays paused.
    fn rest_service(&mut self, name: &ServiceName, now: Timestamp) {
        if let Some(watched) = self.cast.get_mut(name) {
            watched.note_rest();
            self.end_alerts(name, now);
        }
    }

    /// A silence that begins has everything evaluated anew, in a running monitor too.
    fn start_silences(&mut self, now: Timestamp) {
        let mut has_begun = false;
        while self.silence_starts.pop_if(|start| *start <= now).is_some() {
            has_begun = true;
        }
        if has_begun {
            self.cast.values_mut().for_each(|watched| watched.dirty = true);
            self.dirty.extend(self.cast.keys().cloned());
            self.host_dirty = true;
        }
    }

    fn longest_silence(&self) -> Duration {
        let intervals = self.specs.values().map(|spec| spec.limits.check_interval);
        let usual = intervals.min().unwrap_or_default();
        usual.saturating_mul(3).max(LONGEST_SILENCE)
    }

    fn happens(&mut self, happening: &Happening, wanted: &BTreeSet<ServiceName>, now: Timestamp) {
        let name = match happening {
            Happening::Host(record) => {
                self.host_dirty = true;
                self.was_host_seen = true;
                self.host = Some(record.clone());
                return;
            }
            Happening::Check(check) => &check.service,
            Happening::Change(change) => &change.service,
        };
        if let Happening::Change(change) = happening
            && let Some((_, start)) = change.span_without_monitor()
        {
            self.start_monitor(start);
        }
        if !wanted.is_empty() && !wanted.contains(name) {
            return;
        }
        self.join_service(name, now);
        let Some(watched) = self.cast.get_mut(name) else { return };
        match happening {
            Happening::Check(check) => {
                watched.apply_check(check);
                await_dependencies(&mut self.cast, name);
                self.collector.count_check(check, now);
                self.expect_list_changes(check, now);
            }
            Happening::Change(change) => {
                watched.apply_change(change);
                if change.origin == ChangeOrigin::Schedule {
                    self.judge.needs_changed();
                    let is_disabled =
                        watched.is_paused() && !self.windows.holds(&watched.spec, change.at);
                    if is_disabled {
                        // A monitor does not wait for its next evaluation with that.
                        self.end_alerts(name, change.at);
                    }
                }
            }
            Happening::Host(_) => {}
        }
        self.dirty.insert(name.clone());
    }

    /// A monitor started: it knows what is stored, and waits for the rest.
    fn start_monitor(&mut self, start: Timestamp) {
        if self.started_at.replace(start) == Some(start) {
            return;
        }
        self.cast.values_mut().for_each(Watched::note_start);
        self.judge.needs_changed();
        self.host = None;
        self.host_dirty = false;
        self.judge.put_off_host();
    }

    /// Ends the alerts of a service that is not checked any more.
    fn end_alerts(&mut self, name: &ServiceName, now: Timestamp) {
        let ended = self.judge.forget(name, now);
        self.collector.note_ended(ended, now);
    }

    async fn renew_usual(&mut self, store: &dyn SampleStore, hour: i64) -> Result<(), ReplayError> {
        let names: Vec<ServiceName> = self.cast.keys().cloned().collect();
        for some in names.chunks(AT_ONCE) {
            for (name, hours) in baseline::ask(store, some, &[hour], hour).await? {
                if let Some(watched) = self.cast.get_mut(&name) {
                    hours.into_iter().for_each(|(hour, usual)| watched.baseline.put(hour, usual));
                }
            }
        }
        Ok(())
    }

    fn judge_at(&mut self, now: Timestamp) {
        let mut names = std::mem::take(&mut self.dirty);
        names.extend(self.judge.due_at(now));
        names.retain(|name| self.is_to_judge(name, now));
        let judged = self.judge.run_some(&mut self.cast, &names, now);
        self.collector.note(judged, now);
        let changed = std::mem::take(&mut self.host_dirty);
        let Some(host) = &self.host else { return };
        if !changed && self.ends.host.is_some_and(|last| host.at >= last) {
            return self.leave_host(now);
        }
        let judged = self.judge.run_host(&host.metrics, changed, now);
        self.collector.note(judged, now);
    }

    /// The machine was not measured any more: its rules are not asked again, and what they said
    /// last stays as it was.
    fn leave_host(&mut self, now: Timestamp) {
        let Some(host) = self.host.as_ref() else { return };
        for rule in self.tallies.iter().filter(|rule| rule.scope() == Scope::Host) {
            drop(self.judge.remove_rule(rule.name(), now));
        }
        // Nobody is left to ask, so nothing is due.
        drop(self.judge.run_host(&host.metrics, true, now));
    }

    /// Whether rules are evaluated for a service now. What was due for one that is not judged any
    /// more waits until something of it changes.
    fn is_to_judge(&mut self, name: &ServiceName, now: Timestamp) -> bool {
        if !self.replay.only.is_empty() && !self.replay.only.contains(name) {
            return false;
        }
        if self.leaving.get(name).is_some_and(|left| *left < now) {
            self.end_alerts(name, now);
            return false;
        }
        let is_judged = !self.ends.has_ended(name, now)
            && self.cast.get(name).is_some_and(Watched::is_evaluated);
        if !is_judged {
            self.judge.put_off(name);
        }
        is_judged
    }

    fn finish(self) -> ReplayReport {
        let Self { collector, tallies, cast, was_host_seen, replay, ends, .. } = self;
        let judged = |name: &&ServiceName| replay.only.is_empty() || replay.only.contains(*name);
        let services = cast.keys().filter(judged).count();
        let mut report = collector.finish(services, &tallies, &ends);
        let mut absent = Vec::new();
        let looks_at = |scope| tallies.iter().any(|rule| rule.scope() == scope);
        if looks_at(Scope::Tool) {
            absent.push("calls of tools: rules of scope `tool` have no data".to_owned());
        }
        if looks_at(Scope::Host) && !was_host_seen {
            absent.push("the machine's numbers: rules of scope `host` have no data".to_owned());
        }
        if looks_at(Scope::Monitor) {
            absent.push(
                "what the monitor knew of itself and of dependencies that are no services: \
                 `dependency_down`, `delivery_failing`, `monitor_offline` and `storage_failing` \
                 have no data"
                    .to_owned(),
            );
        }
        let blind: Vec<&str> = cast
            .iter()
            .filter(|(name, watched)| watched.depends_on_unknown && judged(name))
            .map(|(name, _)| name.as_str())
            .take(MOST_NAMES)
            .collect();
        if !blind.is_empty() {
            absent.push(format!(
                "whether dependencies that are no services were down: no alert begins for what \
                 depends on one ({}), and rules about these services have no data",
                blind.join(", ")
            ));
        }
        absent.push("heartbeats that changed nothing, and acknowledgements".to_owned());
        absent.extend(report.after_the_end());
        report.not_stored = absent;
        report
    }
}

/// From when on rules run.
fn lead_begins(replay: &Replay) -> Timestamp {
    replay.since.saturating_sub(LEAD)
}

/// The stored changes of lists of a span by service, oldest first.
async fn list_changes(
    store: &dyn SampleStore,
    query: RecordQuery,
) -> Result<HashMap<ServiceName, VecDeque<ListChange>>, StoreError> {
    let mut changes: HashMap<ServiceName, VecDeque<ListChange>> = HashMap::new();
    let mut stored = Records::new(store, query, |store, query| store.list_changes(query));
    while let Some(change) = stored.take_next().await? {
        changes.entry(change.service.clone()).or_default().push_back(change);
    }
    Ok(changes)
}

/// When a service that is not watched any more was last known to be.
fn left_at(stored: &StoredService) -> Option<Timestamp> {
    let last = stored.last_check.as_ref().map_or(stored.since, |check| check.at);
    (!stored.facts.watched).then(|| last.saturating_add(stored.facts.reach()))
}

/// A service of which only the store knows.
fn spec_of(stored: &StoredService, settings: &Settings) -> ServiceSpec {
    let mut spec = ServiceSpec::http(stored.facts.service.clone(), "");
    spec.limits = settings.limits();
    if let Some(millis) = stored.facts.check_interval_ms {
        spec.limits.check_interval = Duration::from_millis(millis);
    }
    spec
}

/// A monitor runs its rules once a second.
fn next_tick(at: Timestamp) -> Timestamp {
    let millis = at.as_millis();
    Timestamp::from_millis(millis.saturating_add((-millis).rem_euclid(1_000)))
}
