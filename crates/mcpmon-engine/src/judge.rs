//! Rules run here: for what changed, and for what is due although nothing changed (a condition
//! that has held for long enough, a reminder).

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use mcpmon_alert::{AlertManager, Evaluated, Routing, RuleSet, ServiceView};
use mcpmon_core::alert::AlertState;
use mcpmon_core::monitor::MonitorEvent;
use mcpmon_core::service::ServiceName;
use mcpmon_core::store::Transition;
use mcpmon_core::window::DEFAULT_WINDOW;
use mcpmon_core::{Rule, Settings, SystemMetrics, Timestamp};

use crate::builder::StartError;
use crate::panic::Guarded;
use crate::world::Watched;

/// The alert manager, and when it wants to be asked.
pub(crate) struct Judge {
    manager: AlertManager,
    /// Rules given by the program, which no reload takes away.
    own_rules: Vec<Arc<dyn Rule>>,
    builtin: bool,
    due: HashMap<ServiceName, Timestamp>,
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
            due: HashMap::new(),
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
        for (name, watched) in services {
            let due = self.due.get(name).is_some_and(|due| *due <= now);
            if !std::mem::take(&mut watched.dirty) && !due {
                continue;
            }
            let view = ServiceView {
                labels: &watched.spec.labels,
                limits: Some(&watched.spec.limits),
                failure: watched.state.failure.as_ref(),
            };
            let metrics = |span| watched.metrics(span, now);
            let evaluated = self.manager.evaluate_service(name, view, metrics, now);
            match evaluated.next_due {
                Some(due) => drop(self.due.insert(name.clone(), due)),
                None => drop(self.due.remove(name)),
            }
            judged.add(evaluated);
        }
        let host_due = self.host_due.is_some_and(|due| due <= now);
        if let Some((metrics, _)) = host.filter(|(_, changed)| *changed || host_due) {
            let evaluated = self.manager.evaluate_host(metrics, now);
            self.host_due = evaluated.next_due;
            judged.add(evaluated);
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
