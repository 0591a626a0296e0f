//! Rules run here: for what changed, and for what is due although nothing changed (a condition
//! that has held for long enough, a reminder).

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use mcpmon_alert::{
    AlertManager, DELIVERY_FAILING, DEPENDENCY_DOWN, Evaluated, ListChanges, Routing, RuleSet,
    ServiceView,
};
use mcpmon_core::alert::{Acknowledgement, Alert, AlertPhase, AlertState, Silence};
use mcpmon_core::monitor::MonitorEvent;
use mcpmon_core::rule::MonitorFact;
use mcpmon_core::service::ServiceName;
use mcpmon_core::store::{AlertRecord, Transition};
use mcpmon_core::window::DEFAULT_WINDOW;
use mcpmon_core::{Rule, Settings, Subject, SystemMetrics, Timestamp};

use crate::builder::StartError;
use crate::facts::Fact;
use crate::needs;
use crate::panic::Guarded;
use crate::world::{HeldUp, Watched};

/// Attempts over which changes of the raw result are counted.
const ATTEMPTS: usize = 20;
/// What is so is judged at least this often, though nothing of it changes.
const LOOK_AGAIN: Duration = Duration::from_secs(60);
/// What waited for a dependency is asked again within this time once that is well.
const ASK_AGAIN_WITHIN: Duration = Duration::from_secs(2);

/// The alert manager, and when it wants to be asked.
pub(crate) struct Judge {
    manager: AlertManager,
    /// Rules given by the program, which no reload takes away.
    own_rules: Vec<Arc<dyn Rule>>,
    builtin: bool,
    /// Calls that take longer are slow.
    slow_call: Duration,
    due: HashMap<ServiceName, Timestamp>,
    /// What was last judged of the monitor itself, and when it is due again.
    facts: BTreeMap<(&'static str, Subject), (MonitorFact, Option<Timestamp>)>,
    host_due: Option<Timestamp>,
    /// Services came, went or need something else, or something they need was looked at.
    needs_changed: bool,
    /// Whether everything that services need was looked at once since the start.
    looked_around: bool,
}

/// What a round of judging came to.
#[derive(Debug, Default)]
pub(crate) struct Judged {
    pub(crate) transition: Option<Transition>,
    pub(crate) events: Vec<MonitorEvent>,
    pub(crate) rule_failures: u64,
}

impl Judged {
    /// Both.
    pub(crate) fn and(mut self, other: Self) -> Self {
        self.events.extend(other.events);
        self.rule_failures += other.rule_failures;
        self.transition = merged(self.transition.take(), other.transition);
        self
    }

    /// Takes in what ended because nobody looks any more.
    fn end(&mut self, transition: Transition) {
        let ended = transition.alerts.iter().map(|alert| {
            let record = AlertRecord { alert: alert.clone(), state: AlertPhase::Resolved };
            MonitorEvent::AlertResolved(Box::new(record))
        });
        self.events.extend(ended);
        self.transition = merged(self.transition.take(), worth_recording(transition));
    }

    fn add(&mut self, evaluated: Evaluated) {
        self.events.extend(evaluated.events);
        self.rule_failures += evaluated.rule_errors.len() as u64;
        self.transition = merged(self.transition.take(), evaluated.transition);
    }
}

/// Both, as one transaction.
fn merged(first: Option<Transition>, second: Option<Transition>) -> Option<Transition> {
    match (first, second) {
        (Some(mut first), Some(second)) => {
            first.states.extend(second.states);
            first.alerts.extend(second.alerts);
            first.deliveries.extend(second.deliveries);
            Some(first)
        }
        (first, second) => first.or(second),
    }
}

/// Has alerts of services wait whose dependencies are down, or may be; and those whose dependencies
/// are well again until they were asked once more, since what is known of them may come of it.
fn hold_up(services: &mut BTreeMap<ServiceName, Watched>, now: Timestamp) {
    let look = |name: &ServiceName| services.get(name).map(Watched::as_need);
    let dependent = services.iter().filter(|(_, watched)| {
        !watched.spec.depends_on.is_empty() || watched.held_up == HeldUp::ByNeed
    });
    let found: Vec<(ServiceName, bool)> = dependent
        .map(|(name, watched)| {
            let is_unknown = watched.depends_on_unknown || watched.awaits_looks();
            (name.clone(), is_unknown || needs::holds_up(name, &look))
        })
        .filter(|(name, waits)| (services[name].held_up == HeldUp::ByNeed) != *waits)
        .collect();
    for (name, waits) in found {
        let Some(watched) = services.get_mut(&name) else { continue };
        watched.held_up = match (waits, watched.is_checked) {
            (true, _) => HeldUp::ByNeed,
            (false, true) => HeldUp::UntilAsked(now),
            (false, false) => HeldUp::No,
        };
        if let (false, Some(reins)) = (waits, &watched.reins) {
            reins.recheck(ASK_AGAIN_WITHIN);
        }
    }
}

fn earlier(one: Option<Timestamp>, other: Option<Timestamp>) -> Option<Timestamp> {
    one.into_iter().chain(other).min()
}

/// A transition, unless it changes nothing.
pub(crate) fn worth_recording(transition: Transition) -> Option<Transition> {
    let nothing = transition.states.is_empty() && transition.alerts.is_empty();
    (!nothing || !transition.deliveries.is_empty()).then_some(transition)
}

fn guarded(rule: Arc<dyn Rule>) -> Arc<dyn Rule> {
    Arc::new(Guarded(rule))
}

impl Judge {
    pub(crate) fn new(
        settings: &Settings,
        builtin: bool,
        own_rules: Vec<Arc<dyn Rule>>,
        handlers: &[String],
    ) -> Result<Self, StartError> {
        let mut judge = Self {
            manager: AlertManager::with_config(settings.alert_config()),
            own_rules: own_rules.into_iter().map(guarded).collect(),
            builtin,
            slow_call: settings.tool_monitoring.slow_call_threshold,
            due: HashMap::new(),
            facts: BTreeMap::new(),
            host_due: None,
            needs_changed: true,
            looked_around: false,
        };
        judge.reconfigure(settings, handlers, Timestamp::default())?;
        Ok(judge)
    }

    /// Takes rules, routes and cooldown from new settings, or leaves everything as it was.
    pub(crate) fn reconfigure(
        &mut self,
        settings: &Settings,
        handlers: &[String],
        now: Timestamp,
    ) -> Result<Option<Transition>, StartError> {
        let mut rules: Vec<Arc<dyn Rule>> = Vec::new();
        if self.builtin {
            let set = RuleSet::from_settings(settings).map_err(|errors| {
                let texts: Vec<String> = errors.iter().map(ToString::to_string).collect();
                StartError::Rules(texts.join("; "))
            })?;
            rules.extend(set);
        }
        rules.extend(self.own_rules.iter().cloned());
        self.slow_call = settings.tool_monitoring.slow_call_threshold;
        self.manager.set_config(settings.alert_config());
        self.manager.set_routing(Routing::new(settings.routes.clone(), handlers));
        Ok(worth_recording(self.manager.set_rules(rules, now)))
    }

    /// Takes up stored states; alerts of rules and services that are gone end, and whoever was told
    /// of them is told that.
    pub(crate) fn restore(
        &mut self,
        states: Vec<AlertState>,
        is_watched: impl Fn(&ServiceName) -> bool,
        now: Timestamp,
    ) -> Option<Transition> {
        let orphans = self.manager.restore(states, now);
        let unwatched = self.manager.forget_unwatched(is_watched, now);
        merged(worth_recording(orphans), worth_recording(unwatched))
    }

    /// The longest window any rule looks through.
    pub(crate) fn reach(&self) -> Duration {
        self.manager.windows().last().copied().unwrap_or(DEFAULT_WINDOW)
    }

    /// What services need, or what is known of that, changed.
    pub(crate) fn needs_changed(&mut self) {
        self.needs_changed = true;
    }

    /// Finds out whose alerts have to wait, where anything that decides it changed.
    pub(crate) fn see_needs(
        &mut self,
        services: &mut BTreeMap<ServiceName, Watched>,
        now: Timestamp,
    ) {
        let mut changed = std::mem::take(&mut self.needs_changed);
        for watched in services.values_mut() {
            let standing = watched.stands();
            changed |= std::mem::replace(&mut watched.standing, standing) != standing;
        }
        if changed {
            hold_up(services, now);
        }
    }

    /// Evaluates the rules for every service whose inputs changed or for which something is due,
    /// with one view of what depends on what.
    pub(crate) fn run(
        &mut self,
        services: &mut BTreeMap<ServiceName, Watched>,
        now: Timestamp,
    ) -> Judged {
        self.see_needs(services, now);
        let all = services.iter_mut();
        all.fold(Judged::default(), |judged, (name, watched)| {
            judged.and(self.run_if_due(name, watched, now))
        })
    }

    /// The same for some services: for a caller that knows that nothing of the others changed.
    pub(crate) fn run_some(
        &mut self,
        services: &mut BTreeMap<ServiceName, Watched>,
        names: &BTreeSet<ServiceName>,
        now: Timestamp,
    ) -> Judged {
        self.see_needs(services, now);
        let mut judged = Judged::default();
        for name in names {
            if let Some(watched) = services.get_mut(name) {
                judged = judged.and(self.run_if_due(name, watched, now));
            }
        }
        judged
    }

    fn run_if_due(&mut self, name: &ServiceName, watched: &mut Watched, now: Timestamp) -> Judged {
        if !watched.is_evaluated() {
            return Judged::default();
        }
        let due = self.due.get(name).is_some_and(|due| *due <= now);
        if !std::mem::take(&mut watched.dirty) && !due {
            return Judged::default();
        }
        let mut judged = Judged::default();
        loop {
            judged = judged.and(self.run_one(name, watched, now));
            // Each change of the lists is reported by itself, the oldest first. What depends on
            // something that is down is reported once that is known to be well.
            if watched.held_up != HeldUp::No || watched.signs.drift.next_unreported().is_none() {
                return judged;
            }
            watched.signs.drift.drop_reported(now);
            if watched.signs.drift.next_unreported().is_none() {
                return judged;
            }
        }
    }

    /// Judges the machine, if its numbers changed or something is due.
    pub(crate) fn run_host(
        &mut self,
        metrics: &SystemMetrics,
        changed: bool,
        now: Timestamp,
    ) -> Judged {
        let mut judged = Judged::default();
        if changed || self.host_due.is_some_and(|due| due <= now) {
            let evaluated = self.manager.evaluate_host(metrics, now);
            self.host_due = evaluated.next_due;
            judged.add(evaluated);
        }
        judged
    }

    /// The machine is judged next when its numbers change.
    pub(crate) fn put_off_host(&mut self) {
        self.host_due = None;
    }

    /// When something is due although nothing changes.
    pub(crate) fn next_due(&self) -> Option<Timestamp> {
        self.due.values().copied().chain(self.host_due).min()
    }

    /// The services for which something is due.
    pub(crate) fn due_at(&self, now: Timestamp) -> impl Iterator<Item = ServiceName> + '_ {
        self.due.iter().filter(move |(_, due)| **due <= now).map(|(name, _)| name.clone())
    }

    /// What was due for a service waits until something of it changes.
    pub(crate) fn put_off(&mut self, service: &ServiceName) {
        self.due.remove(service);
    }

    /// Judges one service and its tools; says when it is due again.
    fn run_one(&mut self, name: &ServiceName, watched: &Watched, now: Timestamp) -> Judged {
        let view = ServiceView {
            labels: &watched.spec.labels,
            limits: Some(&watched.spec.limits),
            failure: watched.fold.state.failure.as_ref(),
            findings: &watched.fold.state.findings,
            result_changes: watched.fold.window.result_changes(ATTEMPTS),
            since: Some(watched.fold.state.since),
            usual: watched.baseline.usual(now),
            repair_given_up: watched.repair_given_up,
            suppressed: watched.held_up != HeldUp::No,
            list_changes: ListChanges::Each(watched.signs.drift.next_unreported()),
        };
        let mut judged = Judged::default();
        let metrics = |span| watched.metrics(span, now);
        let evaluated = self.manager.evaluate_service(name, view, metrics, now);
        let mut next_due = evaluated.next_due;
        judged.add(evaluated);
        for (tool, window) in &watched.tools {
            let metrics = |span| window.metrics((name, tool), self.slow_call, span, now);
            let evaluated = self.manager.evaluate_tool(name, tool, view, metrics, now);
            next_due = earlier(next_due, evaluated.next_due);
            judged.add(evaluated);
        }
        match next_due {
            Some(due) => drop(self.due.insert(name.clone(), due)),
            None => drop(self.due.remove(name)),
        }
        judged
    }

    /// Rules, routes or silences changed: what is known is judged anew.
    pub(crate) fn run_facts_anew(&mut self) {
        for (_, due) in self.facts.values_mut() {
            *due = Some(Timestamp::default());
        }
    }

    /// Judges what the monitor knows of itself, where that changed or is due. What is known no
    /// longer (a dependency that nothing needs any more) is over.
    pub(crate) fn run_facts(&mut self, facts: Vec<Fact>, now: Timestamp) -> Judged {
        let mut judged = Judged::default();
        let mut gone = std::mem::take(&mut self.facts);
        for (rule, fact) in facts {
            let key = (rule, fact.subject.clone());
            let due = match gone.remove(&key) {
                Some((known, due)) if known == fact && due.is_none_or(|due| due > now) => due,
                _ => {
                    let evaluated = self.manager.evaluate_fact(rule, &fact, now);
                    // What fires and was told to nobody (a route that is closed now) is looked at
                    // again although nothing changes.
                    let again = now.saturating_add(LOOK_AGAIN);
                    let due =
                        earlier(evaluated.next_due, fact.failing.unwrap_or(false).then_some(again));
                    judged.add(evaluated);
                    due
                }
            };
            self.facts.insert(key, (fact, due));
        }
        for (rule, subject) in gone.into_keys() {
            judged.end(self.manager.forget_subject(rule, &subject, now));
        }
        judged
    }

    /// Everything that services need was looked at once: what an alert from before the start is
    /// about and nobody needs any more is over.
    pub(crate) fn looked_around(&mut self, now: Timestamp) -> Judged {
        let mut judged = Judged::default();
        if std::mem::replace(&mut self.looked_around, true) {
            return judged;
        }
        for subject in self.manager.open_subjects(DEPENDENCY_DOWN) {
            if !self.facts.contains_key(&(DEPENDENCY_DOWN, subject.clone())) {
                judged.end(self.manager.forget_subject(DEPENDENCY_DOWN, &subject, now));
            }
        }
        judged
    }

    /// The handlers of the start are fed: that a message to one that is gone since the last run
    /// did not get through is over.
    pub(crate) fn fed(
        &mut self,
        is_fed: impl Fn(&str) -> bool,
        now: Timestamp,
    ) -> Option<Transition> {
        let mut gone = self.manager.open_subjects(DELIVERY_FAILING);
        gone.retain(|subject| subject.handler().is_some_and(|handler| !is_fed(handler)));
        gone.iter().fold(None, |ended, subject| {
            let one = self.manager.forget_subject(DELIVERY_FAILING, subject, now);
            merged(ended, worth_recording(one))
        })
    }

    /// Whether [`Self::looked_around`] has still to be said.
    pub(crate) fn is_looking_around(&self) -> bool {
        !self.looked_around
    }

    pub(crate) fn add_rule(&mut self, rule: Arc<dyn Rule>) {
        let rule = guarded(rule);
        self.own_rules.retain(|known| known.name() != rule.name());
        self.own_rules.push(Arc::clone(&rule));
        self.manager.add_shared_rule(rule);
    }

    /// Takes a rule away; `None` if there is no such rule.
    pub(crate) fn remove_rule(&mut self, name: &str, now: Timestamp) -> Option<Transition> {
        self.own_rules.retain(|known| known.name() != name);
        self.manager.remove_rule(name, now)
    }

    /// Takes up the silences that were stored.
    pub(crate) fn set_silences(&mut self, silences: Vec<Silence>) {
        self.manager.set_silences(silences);
    }

    /// Adds a silence, or exchanges the one of its id; those that have ended are forgotten.
    pub(crate) fn silence(&mut self, silence: Silence, now: Timestamp) {
        let mut silences = self.manager.silences().to_vec();
        silences.retain(|known| known.id != silence.id && known.ends_at > now);
        silences.push(silence);
        self.manager.set_silences(silences);
    }

    /// Somebody takes an open alert on; `None` if there is no such alert.
    pub(crate) fn acknowledge(
        &mut self,
        alert: &str,
        acknowledgement: Acknowledgement,
        now: Timestamp,
    ) -> Option<Transition> {
        self.manager.acknowledge(alert, acknowledgement, now)
    }

    /// The services this rule's alerts fire for, those of their tools among them.
    pub(crate) fn firing_for<'a>(&'a self, rule: &'a str) -> impl Iterator<Item = &'a ServiceName> {
        let of_rule = self.manager.open().filter(move |state| state.key.rule == rule);
        of_rule.filter_map(|state| state.key.subject.service())
    }

    /// Alerts this handler was told of that still fire.
    pub(crate) fn open_for(&self, handler: &str) -> Vec<Alert> {
        self.manager.open_for(handler)
    }

    pub(crate) fn add_handler(&mut self, name: &str) {
        let mut routing = self.manager.routing().clone();
        routing.add_handler(name);
        self.manager.set_routing(routing);
    }

    pub(crate) fn remove_handler(&mut self, name: &str) {
        let mut routing = self.manager.routing().clone();
        routing.remove_handler(name);
        self.manager.set_routing(routing);
    }

    /// A service is no longer watched.
    pub(crate) fn forget(&mut self, service: &ServiceName, now: Timestamp) -> Option<Transition> {
        self.due.remove(service);
        self.needs_changed = true;
        worth_recording(self.manager.forget(service, now))
    }
}
