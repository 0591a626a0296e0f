//! Rules run here: for what changed, and for what is due although nothing changed (a condition
//! that has held for long enough, a reminder).

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use mcpmon_alert::{AlertManager, Evaluated, Routing, RuleSet, ServiceView};
use mcpmon_core::alert::{Acknowledgement, Alert, AlertState, Silence};
use mcpmon_core::monitor::MonitorEvent;
use mcpmon_core::rule::MonitorFact;
use mcpmon_core::service::ServiceName;
use mcpmon_core::store::Transition;
use mcpmon_core::window::DEFAULT_WINDOW;
use mcpmon_core::{Rule, Settings, SystemMetrics, Timestamp};

use crate::builder::StartError;
use crate::facts::Fact;
use crate::needs;
use crate::panic::Guarded;
use crate::world::Watched;

/// Attempts over which changes of the raw result are counted.
const ATTEMPTS: usize = 20;
/// What is so is judged at least this often, though nothing of it changes.
const LOOK_AGAIN: Duration = Duration::from_secs(60);

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
    facts: BTreeMap<(&'static str, String), (MonitorFact, Option<Timestamp>)>,
    host_due: Option<Timestamp>,
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

/// The services of which something they depend on is down.
fn blocked(services: &BTreeMap<ServiceName, Watched>) -> BTreeSet<ServiceName> {
    let look = |name: &ServiceName| services.get(name).map(Watched::as_need);
    let dependent = services.iter().filter(|(_, watched)| !watched.spec.depends_on.is_empty());
    dependent
        .filter(|(name, _)| needs::blocker(name, &look).is_some())
        .map(|(name, _)| name.clone())
        .collect()
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

    /// Takes up stored states; those of rules and services that are gone end without a word.
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

    /// Judges what changed or is due.
    pub(crate) fn run(
        &mut self,
        services: &mut BTreeMap<ServiceName, Watched>,
        host: Option<(&SystemMetrics, bool)>,
        now: Timestamp,
    ) -> Judged {
        let mut judged = Judged::default();
        let blocked = blocked(services);
        for (name, watched) in services {
            // What was not looked at lately says nothing, and a reminder of it would lie.
            if watched.awaits_recheck || watched.maintained {
                continue;
            }
            let due = self.due.get(name).is_some_and(|due| *due <= now);
            if !std::mem::take(&mut watched.dirty) && !due {
                continue;
            }
            let view = ServiceView {
                labels: &watched.spec.labels,
                limits: Some(&watched.spec.limits),
                failure: watched.state.failure.as_ref(),
                findings: &watched.state.findings,
                result_changes: watched.window.result_changes(ATTEMPTS),
                since: Some(watched.state.since),
                suppressed: blocked.contains(name),
                ..ServiceView::default()
            };
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
        }
        let host_due = self.host_due.is_some_and(|due| due <= now);
        if let Some((metrics, _)) = host.filter(|(_, changed)| *changed || host_due) {
            let evaluated = self.manager.evaluate_host(metrics, now);
            self.host_due = evaluated.next_due;
            judged.add(evaluated);
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
        for ((rule, _), (known, _)) in gone {
            let over = MonitorFact { failing: Some(false), ..known };
            judged.add(self.manager.evaluate_fact(rule, &over, now));
        }
        judged
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
        worth_recording(self.manager.forget(service, now))
    }
}
