//! The manager: rules, the states of their alerts, and who is told. One type for the engine and
//! for programs that have numbers and want alerts.
//!
//! `evaluate_*` is the pure half: it takes numbers and `now` and returns what must be recorded and
//! sent, in one [`Transition`] for one transaction; it does no I/O. [`AlertManager::check`] is the
//! other half for programs without an outbox: it delivers to handlers held here.
//!
//! Where nothing fires, an evaluation allocates nothing per rule: a state exists only from the
//! first firing verdict until it says nothing that matters any more.

mod book;
mod check;
mod evaluate;

use std::collections::VecDeque;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use mcpmon_core::alert::{
    Acknowledgement, Alert, AlertPhase, AlertState, Handler, Notification, NotificationKind,
    Silence,
};
use mcpmon_core::rule::{Rule, Scope};
use mcpmon_core::service::{ServiceLimits, ServiceName};
use mcpmon_core::settings::AlertConfig;
use mcpmon_core::store::{NewDelivery, Transition};
use mcpmon_core::subject::Subject;
use mcpmon_core::time::Timestamp;

use crate::identity::notification_key;
use crate::machine::{self, Decision, Timing};
use crate::routing::Routing;
use book::Book;

#[cfg(test)]
mod quiet_tests;
#[cfg(test)]
mod tests;

pub use check::{CheckOutcome, DeliveryReport};
pub use evaluate::{Evaluated, ListChanges, ServiceView};

/// Why alerts end whose service, or what they are about, is gone.
const NOT_MONITORED: &str = "no longer monitored";
/// Why alerts end whose rule is gone.
const RULE_GONE: &str = "its rule is gone";

/// Alerts kept for [`AlertManager::history`].
const HISTORY: usize = 1_000;

/// Judges numbers by rules, keeps what each rule thinks of each subject, and says who is told.
pub struct AlertManager {
    config: AlertConfig,
    rules: Vec<Entry>,
    routing: Routing,
    handlers: Vec<Arc<dyn Handler>>,
    book: Book,
    history: VecDeque<Alert>,
    limits: ServiceLimits,
    silences: Vec<Silence>,
}

/// A rule with what is asked of it once rather than at every evaluation.
struct Entry {
    rule: Arc<dyn Rule>,
    scope: Scope,
    timing: Timing,
    window: Duration,
    /// When its failure was last made an event.
    complained: Option<Timestamp>,
}

impl AlertManager {
    /// A manager without rules or handlers, with the usual cooldown.
    pub fn new() -> Self {
        Self::with_config(AlertConfig::default())
    }

    /// The same with another cooldown for rules that have none, or switched off.
    pub fn with_config(config: AlertConfig) -> Self {
        Self {
            config,
            rules: Vec::new(),
            routing: Routing::default(),
            handlers: Vec::new(),
            book: Book::default(),
            history: VecDeque::new(),
            limits: ServiceLimits::default(),
            silences: Vec::new(),
        }
    }

    /// Adds a rule, or replaces the one of its name; the state of its alerts stays.
    pub fn add_rule(&mut self, rule: impl Rule + 'static) {
        self.add_shared_rule(Arc::new(rule));
    }

    /// The same for a rule that is shared.
    pub fn add_shared_rule(&mut self, rule: Arc<dyn Rule>) {
        let policy = rule.policy();
        let entry = Entry {
            scope: rule.scope(),
            timing: Timing::new(&policy, self.config.cooldown),
            window: policy.window,
            complained: None,
            rule,
        };
        let same = |known: &Entry| known.rule.name() == entry.rule.name();
        match self.rules.iter().position(same) {
            Some(at) => self.rules[at] = entry,
            None => self.rules.push(entry),
        }
    }

    /// Takes a rule away; `None` if there is no such rule. Its open alerts end, and whoever was
    /// told of them is told that. The transition is for whoever records and sends it.
    pub fn remove_rule(&mut self, name: &str, now: Timestamp) -> Option<Transition> {
        let at = self.rules.iter().position(|entry| entry.rule.name() == name)?;
        self.rules.remove(at);
        Some(self.end_where(|state| state.key.rule == name, RULE_GONE, now))
    }

    /// Exchanges all rules at once. States of rules that stay are kept; alerts of rules that are
    /// gone end, and whoever was told of them is told that.
    pub fn set_rules(
        &mut self,
        rules: impl IntoIterator<Item = Arc<dyn Rule>>,
        now: Timestamp,
    ) -> Transition {
        self.rules.clear();
        for rule in rules {
            self.add_shared_rule(rule);
        }
        self.end_orphans(now)
    }

    /// The rules, in the order they are evaluated.
    pub fn rules(&self) -> impl Iterator<Item = &Arc<dyn Rule>> {
        self.rules.iter().map(|entry| &entry.rule)
    }

    /// Exchanges switch and cooldown; takes effect for rules without a cooldown of their own too.
    pub fn set_config(&mut self, config: AlertConfig) {
        self.config = config;
        for entry in &mut self.rules {
            entry.timing = Timing::new(&entry.rule.policy(), self.config.cooldown);
        }
    }

    /// Who is told of what. Without it, every handler is told everything.
    pub fn set_routing(&mut self, routing: Routing) {
        self.routing = routing;
    }

    /// Who is told of what.
    pub fn routing(&self) -> &Routing {
        &self.routing
    }

    /// The limits [`AlertManager::check`] judges by, which the built-in rules ask for.
    pub fn set_limits(&mut self, limits: ServiceLimits) {
        self.limits = limits;
    }

    /// Adds a handler that [`AlertManager::check`] delivers to, or replaces the one of its name.
    pub fn add_handler(&mut self, handler: impl Handler + 'static) {
        self.add_shared_handler(Arc::new(handler));
    }

    /// The same for a handler that is shared.
    pub fn add_shared_handler(&mut self, handler: Arc<dyn Handler>) {
        self.routing.add_handler(handler.name());
        let same = |known: &Arc<dyn Handler>| known.name() == handler.name();
        match self.handlers.iter().position(same) {
            Some(at) => self.handlers[at] = handler,
            None => self.handlers.push(handler),
        }
    }

    /// Takes a handler away; says whether there was one.
    pub fn remove_handler(&mut self, name: &str) -> bool {
        self.handlers.retain(|handler| handler.name() != name);
        self.routing.remove_handler(name)
    }

    /// The windows the rules of services look through, shortest first.
    pub fn windows(&self) -> Vec<Duration> {
        let mut windows: Vec<Duration> = self
            .rules
            .iter()
            .filter(|entry| entry.scope == Scope::Service)
            .map(|entry| entry.window)
            .collect();
        windows.sort_unstable();
        windows.dedup();
        windows
    }

    /// Whether any rule looks at this scope.
    pub fn looks_at(&self, scope: Scope) -> bool {
        self.config.enabled && self.rules.iter().any(|entry| entry.scope == scope)
    }

    /// Alerts that fired, oldest first, the last thousand; each as it ended, if it did.
    pub fn history(&self) -> impl DoubleEndedIterator<Item = &Alert> {
        self.history.iter()
    }

    /// States of alerts that fire now.
    pub fn open(&self) -> impl Iterator<Item = &AlertState> {
        self.book.states().filter(|state| state.phase == AlertPhase::Firing)
    }

    /// Takes up states as they were stored. Open alerts of rules that are gone end, in the
    /// transition that is returned; whoever was told of them is told that.
    pub fn restore(
        &mut self,
        states: impl IntoIterator<Item = AlertState>,
        now: Timestamp,
    ) -> Transition {
        for state in states {
            self.book.insert(state);
        }
        self.end_orphans(now)
    }

    /// A service is no longer watched: its open alerts and those of its tools end, its states are
    /// dropped. Whoever was told of an alert is told that it is over, and why.
    pub fn forget(&mut self, service: &ServiceName, now: Timestamp) -> Transition {
        let is_meant = |state: &AlertState| state.key.subject.service() == Some(service);
        self.end_where(is_meant, NOT_MONITORED, now)
    }

    /// What a rule looked at is no longer known, such as a dependency that no service has any more:
    /// the rule's alert about it ends in the same way.
    pub fn forget_subject(&mut self, rule: &str, subject: &Subject, now: Timestamp) -> Transition {
        let is_meant = |state: &AlertState| state.key.rule == rule && state.key.subject == *subject;
        self.end_where(is_meant, NOT_MONITORED, now)
    }

    /// What the open alerts of a rule are about, in order.
    pub fn open_subjects(&self, rule: &str) -> Vec<Subject> {
        let of_rule = self.open().filter(|state| state.key.rule == rule);
        let mut subjects: Vec<Subject> = of_rule.map(|state| state.key.subject.clone()).collect();
        subjects.sort_unstable();
        subjects
    }

    /// What nothing is said of for a while. Exchanges all silences.
    pub fn set_silences(&mut self, silences: Vec<Silence>) {
        self.silences = silences;
    }

    /// The silences there are, ended ones among them.
    pub fn silences(&self) -> &[Silence] {
        &self.silences
    }

    /// Somebody takes an open alert on: whoever was told of it is told that, and nobody is reminded
    /// of it until it gets worse. `None` if no such alert is open.
    pub fn acknowledge(
        &mut self,
        alert: &str,
        acknowledgement: Acknowledgement,
        now: Timestamp,
    ) -> Option<Transition> {
        let is_meant = |state: &AlertState| {
            state.phase == AlertPhase::Firing
                && state.alert.as_ref().is_some_and(|known| known.id == alert)
        };
        let state = self.book.find_mut(is_meant)?;
        // Who takes on again what they have says nothing new.
        let says_the_same = state.acknowledged.as_ref().is_some_and(|known| {
            known.by == acknowledgement.by && known.comment == acknowledgement.comment
        });
        if let Some(alert) = state.alert.as_mut().filter(|_| !says_the_same) {
            alert.acknowledge(acknowledgement.clone());
        }
        state.acknowledged = Some(acknowledgement);
        let mut transition =
            Transition { at: now, states: vec![state.clone()], ..Transition::default() };
        let alert = state.alert.clone()?;
        // Of one alert more than one may be told: of the next person, or after it got worse.
        let detail = match alert.acknowledgements.len() {
            0 | 1 => String::new(),
            _ => now.as_millis().to_string(),
        };
        let key = notification_key(&alert.id, NotificationKind::Acknowledged, &detail);
        let told = state.told_to.iter().filter(|handler| self.routing.has_handler(handler));
        if !says_the_same {
            transition.deliveries.extend(told.map(|handler| NewDelivery {
                handler: handler.clone(),
                notification: Notification::new(
                    key.clone(),
                    NotificationKind::Acknowledged,
                    vec![alert.clone()],
                ),
            }));
        }
        transition.alerts.push(alert);
        Some(transition)
    }

    /// Alerts that were told to this handler and still fire.
    pub fn open_for(&self, handler: &str) -> Vec<Alert> {
        let told = |state: &&AlertState| state.told_to.iter().any(|told| told == handler);
        self.open().filter(told).filter_map(|state| state.alert.clone()).collect()
    }

    /// Forgets every service that `is_watched` does not know, after a restart or a reload. Only
    /// services and tools can be unwatched; other subjects keep their alerts.
    pub fn forget_unwatched(
        &mut self,
        is_watched: impl Fn(&ServiceName) -> bool,
        now: Timestamp,
    ) -> Transition {
        let is_gone = |state: &AlertState| {
            state.key.subject.service().is_some_and(|service| !is_watched(service))
        };
        self.end_where(is_gone, NOT_MONITORED, now)
    }

    fn end_orphans(&mut self, now: Timestamp) -> Transition {
        let known: Vec<Arc<dyn Rule>> = self.rules().cloned().collect();
        let is_known = |name: &str| known.iter().any(|rule| rule.name() == name);
        self.end_where(|state| !is_known(&state.key.rule), RULE_GONE, now)
    }

    fn end_where(
        &mut self,
        is_meant: impl Fn(&AlertState) -> bool,
        why: &str,
        now: Timestamp,
    ) -> Transition {
        let mut transition = Transition { at: now, ..Transition::default() };
        for mut state in self.book.extract(is_meant) {
            let decision = match state.phase {
                AlertPhase::Firing => Decision::Resolve { tell: state.told },
                AlertPhase::Pending | AlertPhase::Suppressed => Decision::Lapse,
                _ => continue,
            };
            machine::apply(&mut state, decision, now);
            let ends = matches!(decision, Decision::Resolve { .. });
            if let Some(alert) = state.alert.as_mut().filter(|_| ends) {
                alert.ended_because = Some(why.to_owned());
                transition.alerts.push(alert.clone());
                note_end(&mut self.history, alert);
            }
            if let Decision::Resolve { tell: true } = decision {
                transition.deliveries.extend(ends_told(&state, &self.routing));
            }
            transition.states.push(state);
        }
        transition
    }
}

/// The end of an alert, for whoever was told that it fired and is still there.
fn ends_told<'a>(
    state: &'a AlertState,
    routing: &'a Routing,
) -> impl Iterator<Item = NewDelivery> + 'a {
    let told = state.told_to.iter().filter(|handler| routing.has_handler(handler));
    state.alert.iter().flat_map(move |alert| {
        let key = notification_key(&alert.id, NotificationKind::Resolved, "");
        let notification = Notification::new(key, NotificationKind::Resolved, vec![alert.clone()]);
        told.clone().map(move |handler| NewDelivery {
            handler: handler.clone(),
            notification: notification.clone(),
        })
    })
}

/// Keeps an alert that fired, and drops the oldest where there are too many.
fn note_firing(history: &mut VecDeque<Alert>, alert: &Alert) {
    if history.len() == HISTORY {
        history.pop_front();
    }
    history.push_back(alert.clone());
}

/// Puts an alert's later shape in the place of its earlier one.
fn note_end(history: &mut VecDeque<Alert>, alert: &Alert) {
    if let Some(known) = history.iter_mut().rev().find(|known| known.id == alert.id) {
        known.clone_from(alert);
    }
}

impl Default for AlertManager {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for AlertManager {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let rules: Vec<&str> = self.rules.iter().map(|entry| entry.rule.name()).collect();
        f.debug_struct("AlertManager")
            .field("config", &self.config)
            .field("rules", &rules)
            .field("routing", &self.routing)
            .field("open", &self.open().count())
            .finish_non_exhaustive()
    }
}
