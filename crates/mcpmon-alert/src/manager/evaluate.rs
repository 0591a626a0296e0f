//! The pure half: numbers in, one transition out.

use std::borrow::Borrow;
use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use mcpmon_core::alert::{
    ALERT_SCHEMA, Alert, AlertKey, AlertPhase, AlertState, Notification, NotificationKind,
};
use mcpmon_core::failure::Failure;
use mcpmon_core::metrics::{ServiceMetrics, SystemMetrics, ToolMetrics};
use mcpmon_core::monitor::MonitorEvent;
use mcpmon_core::rule::{RuleContext, RuleError, Scope, Subject, Verdict};
use mcpmon_core::service::{ServiceLimits, ServiceName};
use mcpmon_core::status::Level;
use mcpmon_core::store::{AlertRecord, NewDelivery, Transition};
use mcpmon_core::time::Timestamp;

use super::book::About;
use super::{AlertManager, Entry, note_end, note_firing};
use crate::identity::{alert_id, notification_key};
use crate::machine::{self, Decision};
use crate::message::default_message;
use crate::routing::Routing;

/// A rule that fails for every service at every check is one event a minute, not thousands.
const COMPLAINT_INTERVAL: Duration = Duration::from_secs(60);

/// What rules may know of a service beside its numbers.
#[derive(Debug, Clone, Copy)]
pub struct ServiceView<'a> {
    /// Its labels.
    pub labels: &'a BTreeMap<String, String>,
    /// Its times and limits; the built-in rules need them.
    pub limits: Option<&'a ServiceLimits>,
    /// What is wrong with it now.
    pub failure: Option<&'a Failure>,
}

impl Default for ServiceView<'_> {
    fn default() -> Self {
        static NO_LABELS: BTreeMap<String, String> = BTreeMap::new();
        Self { labels: &NO_LABELS, limits: None, failure: None }
    }
}

/// What came of an evaluation.
#[derive(Debug, Default)]
pub struct Evaluated {
    /// What must be recorded and sent, in one transaction; `None` if nothing changed.
    pub transition: Option<Transition>,
    /// Alerts that fired or ended, and rules that failed (each at most once a minute).
    pub events: Vec<MonitorEvent>,
    /// Every rule that could not be evaluated; its alert stays as it was.
    pub rule_errors: Vec<RuleError>,
    /// When this subject should be evaluated again although nothing new is known of it.
    pub next_due: Option<Timestamp>,
}

impl AlertManager {
    /// Judges one service. `metrics` is asked once for each window that a rule needs.
    pub fn evaluate_service<M: Borrow<ServiceMetrics>>(
        &mut self,
        service: &ServiceName,
        view: ServiceView<'_>,
        metrics: impl FnMut(Duration) -> M,
        now: Timestamp,
    ) -> Evaluated {
        let about = About::Service(service);
        self.evaluate(about, view, metrics, |m| Subject::Service(m.borrow()), now)
    }

    /// Judges one tool of a service.
    pub fn evaluate_tool<M: Borrow<ToolMetrics>>(
        &mut self,
        service: &ServiceName,
        tool: &str,
        view: ServiceView<'_>,
        metrics: impl FnMut(Duration) -> M,
        now: Timestamp,
    ) -> Evaluated {
        let about = About::Tool(service, tool);
        self.evaluate(about, view, metrics, |m| Subject::Tool(m.borrow()), now)
    }

    /// Judges the machine.
    pub fn evaluate_host(&mut self, metrics: &SystemMetrics, now: Timestamp) -> Evaluated {
        let view = ServiceView::default();
        self.evaluate(About::Host, view, |_| metrics, |m| Subject::Host(m), now)
    }

    fn evaluate<M>(
        &mut self,
        about: About<'_>,
        view: ServiceView<'_>,
        mut metrics: impl FnMut(Duration) -> M,
        subject: impl for<'m> Fn(&'m M) -> Subject<'m>,
        now: Timestamp,
    ) -> Evaluated {
        let mut out = Evaluated::default();
        if !self.config.enabled {
            return out;
        }
        let scope = about.scope();
        let mut states = self.book.take(about);
        let mut windows: Vec<(Duration, M)> = Vec::new();
        for entry in self.rules.iter_mut().filter(|entry| entry.scope == scope) {
            let applies = entry.rule.applies_to(view.labels);
            let at = states.iter().position(|state| state.key.rule == entry.rule.name());
            if !applies && at.is_none() {
                continue;
            }
            let slot = match windows.iter().position(|(span, _)| *span == entry.window) {
                Some(slot) => slot,
                None => {
                    windows.push((entry.window, metrics(entry.window)));
                    windows.len() - 1
                }
            };
            let firing = at.is_some_and(|at| states[at].phase == AlertPhase::Firing);
            let context = RuleContext {
                labels: view.labels,
                limits: view.limits,
                failure_code: view.failure.map(|failure| failure.code),
                firing,
                ..RuleContext::new(subject(&windows[slot].1), now)
            };
            let mut round = Round {
                about,
                context,
                failure: view.failure,
                routing: &self.routing,
                history: &mut self.history,
                out: &mut out,
            };
            round.judge(entry, applies, &mut states, at);
        }
        self.book.put(about, states);
        out
    }
}

impl About<'_> {
    fn scope(self) -> Scope {
        match self {
            Self::Service(_) => Scope::Service,
            Self::Tool(..) => Scope::Tool,
            Self::Host => Scope::Host,
        }
    }

    fn key(self, rule: &str) -> AlertKey {
        let (service, tool) = match self {
            Self::Service(service) => (Some(service.clone()), None),
            Self::Tool(service, tool) => (Some(service.clone()), Some(tool.to_owned())),
            Self::Host => (None, None),
        };
        AlertKey { rule: rule.to_owned(), service, tool }
    }
}

/// One rule's turn at one subject.
struct Round<'a> {
    about: About<'a>,
    context: RuleContext<'a>,
    failure: Option<&'a Failure>,
    routing: &'a Routing,
    history: &'a mut VecDeque<Alert>,
    out: &'a mut Evaluated,
}

impl Round<'_> {
    fn judge(
        &mut self,
        entry: &mut Entry,
        applies: bool,
        states: &mut Vec<AlertState>,
        at: Option<usize>,
    ) {
        let verdict = match applies.then(|| entry.rule.evaluate(&self.context)) {
            // It does not look at this service any more: what it said of it is over.
            None => Verdict::Ok,
            Some(Ok(verdict)) => verdict,
            Some(Err(error)) => {
                self.complain(entry, error);
                Verdict::NoData
            }
        };
        let at = match at {
            Some(at) => at,
            None if verdict != Verdict::Firing => return,
            None => {
                let key = self.about.key(entry.rule.name());
                states.push(AlertState::new(key, self.context.now));
                states.len() - 1
            }
        };
        let level = match verdict {
            Verdict::Firing => entry.rule.level(&self.context),
            _ => Level::Info,
        };
        let state = &mut states[at];
        let now = self.context.now;
        let decision = machine::step(state, verdict, level, &entry.timing, now);
        self.act(entry, state, decision, level);
        let due = machine::next_due(state, &entry.timing).filter(|due| *due > now);
        self.out.next_due = self.out.next_due.into_iter().chain(due).min();
        if decision == Decision::Quiet && machine::is_spent(state, &entry.timing, now) {
            states.swap_remove(at);
        }
    }

    fn act(&mut self, entry: &mut Entry, state: &mut AlertState, decision: Decision, level: Level) {
        match decision {
            Decision::Quiet => {}
            Decision::Open { tell } => {
                self.apply(state, decision);
                let alert = self.new_alert(entry, &state.key, level);
                note_firing(self.history, &alert);
                state.alert = Some(alert);
                if tell {
                    self.tell(state, NotificationKind::Firing, "");
                }
                self.record_alert(state);
            }
            Decision::Escalate => {
                self.apply(state, decision);
                self.make_worse(entry, state, level);
                let was_told = state.told;
                let detail = if was_told { level.as_str() } else { "" };
                self.tell(state, NotificationKind::Firing, detail);
                self.record_alert(state);
            }
            Decision::TellLate if self.has_receivers(state) => {
                self.apply(state, decision);
                self.tell(state, NotificationKind::Firing, "");
            }
            Decision::Remind if self.has_receivers(state) => {
                self.apply(state, decision);
                let moment = self.context.now.as_millis().to_string();
                self.tell(state, NotificationKind::Reminder, &moment);
            }
            // There is nobody to tell, so nothing happened.
            Decision::TellLate | Decision::Remind => return,
            Decision::Resolve { tell } => {
                self.apply(state, decision);
                if tell {
                    self.tell_end(state);
                }
                self.record_alert(state);
            }
            Decision::Pend | Decision::Lapse | Decision::Linger | Decision::Revive => {
                self.apply(state, decision);
            }
        }
        if decision != Decision::Quiet {
            let state = state.clone();
            self.transition().states.push(state);
        }
    }

    fn apply(&self, state: &mut AlertState, decision: Decision) {
        machine::apply(state, decision, self.context.now);
    }

    fn transition(&mut self) -> &mut Transition {
        let at = self.context.now;
        self.out.transition.get_or_insert_with(|| Transition { at, ..Transition::default() })
    }

    fn new_alert(&mut self, entry: &mut Entry, key: &AlertKey, level: Level) -> Alert {
        Alert {
            schema: ALERT_SCHEMA.to_owned(),
            id: alert_id(key, self.context.now),
            rule_name: key.rule.clone(),
            scope: entry.scope,
            service_name: key.service.clone(),
            tool_name: key.tool.clone(),
            level,
            message: self.message(entry),
            timestamp: self.context.now,
            resolved_at: None,
            metrics: snapshot(self.context.subject),
            failure: self.failure.cloned(),
            labels: self.context.labels.clone(),
        }
    }

    /// An alert that got worse is the same alert, told anew: with the numbers that made it worse.
    fn make_worse(&mut self, entry: &mut Entry, state: &mut AlertState, level: Level) {
        let message = self.message(entry);
        if let Some(alert) = &mut state.alert {
            alert.level = level;
            alert.message = message;
            alert.metrics = snapshot(self.context.subject);
            note_end(self.history, alert);
        }
    }

    fn message(&mut self, entry: &mut Entry) -> String {
        let rule = std::sync::Arc::clone(&entry.rule);
        let text = match rule.message(&self.context) {
            Ok(text) => text.into_owned(),
            Err(error) => {
                self.complain(entry, error);
                default_message(rule.name(), &self.context)
            }
        };
        mcpmon_core::text::truncate(&text, mcpmon_core::text::MAX_TEXT)
    }

    fn complain(&mut self, entry: &mut Entry, error: RuleError) {
        let now = self.context.now;
        let is_due = |last: Timestamp| now.since(last) >= COMPLAINT_INTERVAL || last > now;
        if entry.complained.is_none_or(is_due) {
            entry.complained = Some(now);
            self.out.events.push(MonitorEvent::RuleFailed {
                rule: error.rule.clone(),
                error: error.message.clone(),
            });
        }
        self.out.rule_errors.push(error);
    }

    fn has_receivers(&self, state: &AlertState) -> bool {
        let alert = state.alert.as_ref();
        alert.is_some_and(|alert| self.routing.receivers(alert).next().is_some())
    }

    fn tell(&mut self, state: &mut AlertState, kind: NotificationKind, detail: &str) {
        let Some(alert) = state.alert.clone() else {
            return;
        };
        let receivers: Vec<&str> = self.routing.receivers(&alert).collect();
        machine::note_told(state, receivers.iter().copied(), self.context.now);
        self.queue(&alert, kind, detail, receivers.into_iter());
    }

    /// The end is told to whoever was told that it fired and is still there.
    fn tell_end(&mut self, state: &AlertState) {
        let Some(alert) = &state.alert else { return };
        let routing = self.routing;
        let receivers =
            state.told_to.iter().map(String::as_str).filter(|handler| routing.has_handler(handler));
        self.queue(alert, NotificationKind::Resolved, "", receivers);
    }

    fn queue<'h>(
        &mut self,
        alert: &Alert,
        kind: NotificationKind,
        detail: &str,
        receivers: impl Iterator<Item = &'h str>,
    ) {
        let key = notification_key(&alert.id, kind, detail);
        let deliveries = receivers.map(|handler| NewDelivery {
            handler: handler.to_owned(),
            notification: Notification::new(key.clone(), kind, vec![alert.clone()]),
        });
        self.transition().deliveries.extend(deliveries);
    }

    fn record_alert(&mut self, state: &AlertState) {
        let Some(alert) = &state.alert else { return };
        self.transition().alerts.push(alert.clone());
        let record = Box::new(AlertRecord { alert: alert.clone(), state: state.phase });
        if alert.resolved_at.is_some() {
            note_end(self.history, alert);
            self.out.events.push(MonitorEvent::AlertResolved(record));
        } else {
            self.out.events.push(MonitorEvent::AlertFired(record));
        }
    }
}

/// The numbers as the alert carries them. A snapshot is plain data, so this cannot fail.
fn snapshot(subject: Subject<'_>) -> serde_json::Value {
    match subject {
        Subject::Service(metrics) => serde_json::to_value(metrics),
        Subject::Tool(metrics) => serde_json::to_value(metrics),
        Subject::Host(metrics) => serde_json::to_value(metrics),
        _ => Ok(serde_json::Value::Null),
    }
    .unwrap_or_default()
}
