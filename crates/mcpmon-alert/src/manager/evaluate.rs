//! The pure half: numbers in, one transition out.

use std::borrow::Borrow;
use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use mcpmon_core::alert::{
    ALERT_SCHEMA, Alert, AlertKey, AlertPhase, AlertState, Notification, NotificationKind, Silence,
};
use mcpmon_core::failure::{Failure, Finding, FindingCode};
use mcpmon_core::metrics::{ServiceMetrics, SystemMetrics, ToolMetrics};
use mcpmon_core::monitor::MonitorEvent;
use mcpmon_core::rule::{MonitorFact, RuleContext, RuleError, RuleInput, Scope, Usual, Verdict};
use mcpmon_core::service::{ServiceLimits, ServiceName};
use mcpmon_core::status::Level;
use mcpmon_core::store::{AlertRecord, ListChange, NewDelivery, Transition};
use mcpmon_core::subject::Subject;
use mcpmon_core::time::Timestamp;

use super::{AlertManager, Entry, ends_told, note_end, note_firing};
use crate::identity::{alert_id, notification_key};
use crate::machine::{self, Decision, Hush};
use crate::message::default_message;
use crate::routing::Routing;
use crate::rules::{FLAPPING, SERVICE_DOWN, TOOLS_CHANGED};

/// A rule that fails for every service at every check is one event a minute, not thousands.
const COMPLAINT_INTERVAL: Duration = Duration::from_secs(60);

/// What is to be told, and had nobody to be told to, is looked at again so often.
const LOOK_AGAIN: Duration = Duration::from_secs(60);

/// Where a change of lists comes from that the rule `tools_changed` reports.
#[derive(Debug, Clone, Copy, Default)]
pub enum ListChanges<'a> {
    /// The caller has findings alone: the rule fires while one reports a change.
    #[default]
    Findings,
    /// The caller hands on each stored change, one an evaluation: each is an alert of its own, and
    /// nothing else makes the rule fire.
    Each(Option<&'a ListChange>),
}

/// What rules may know of a service beside its numbers.
#[derive(Debug, Clone, Copy)]
pub struct ServiceView<'a> {
    /// Its labels.
    pub labels: &'a BTreeMap<String, String>,
    /// Its times and limits; the built-in rules need them.
    pub limits: Option<&'a ServiceLimits>,
    /// What is wrong with it now.
    pub failure: Option<&'a Failure>,
    /// What is odd about it now.
    pub findings: &'a [Finding],
    /// How often the raw result changed in its last 20 attempts.
    pub result_changes: u32,
    /// Since when it has its status.
    pub since: Option<Timestamp>,
    /// What is usual for it, once there is enough history.
    pub usual: Option<&'a Usual>,
    /// Whether attempts to repair it were given up.
    pub repair_given_up: bool,
    /// Whether something it depends on is down: then no alert of it begins.
    pub suppressed: bool,
    /// The change of its lists that is to be reported.
    pub list_changes: ListChanges<'a>,
}

impl Default for ServiceView<'_> {
    fn default() -> Self {
        static NO_LABELS: BTreeMap<String, String> = BTreeMap::new();
        Self {
            labels: &NO_LABELS,
            limits: None,
            failure: None,
            findings: &[],
            result_changes: 0,
            since: None,
            usual: None,
            repair_given_up: false,
            suppressed: false,
            list_changes: ListChanges::default(),
        }
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
        let subject = Subject::from(service);
        self.evaluate(&subject, view, metrics, |m| RuleInput::Service(m.borrow()), now)
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
        let subject = Subject::tool_of(service.clone(), tool);
        self.evaluate(&subject, view, metrics, |m| RuleInput::Tool(m.borrow()), now)
    }

    /// Judges the machine.
    pub fn evaluate_host(&mut self, metrics: &SystemMetrics, now: Timestamp) -> Evaluated {
        let view = ServiceView::default();
        self.evaluate(&Subject::Host, view, |_| metrics, |m| RuleInput::Host(m), now)
    }

    /// Evaluates the rule of this name on something the monitor knows of itself, of a dependency or
    /// of a handler. Returns nothing if that rule is switched off, or if the fact is about a
    /// subject that has rules of its own: a service, a tool or the host.
    pub fn evaluate_fact(&mut self, rule: &str, fact: &MonitorFact, now: Timestamp) -> Evaluated {
        if fact.subject.scope() != Scope::Monitor {
            return Evaluated::default();
        }
        let view = ServiceView::default();
        let is_meant = |name: &str| name == rule;
        self.evaluate_some(
            &fact.subject,
            view,
            |_| fact,
            |fact| RuleInput::Monitor(fact),
            is_meant,
            now,
        )
    }

    fn evaluate<M>(
        &mut self,
        subject: &Subject,
        view: ServiceView<'_>,
        metrics: impl FnMut(Duration) -> M,
        input: impl for<'m> Fn(&'m M) -> RuleInput<'m>,
        now: Timestamp,
    ) -> Evaluated {
        self.evaluate_some(subject, view, metrics, input, |_| true, now)
    }

    fn evaluate_some<M>(
        &mut self,
        subject: &Subject,
        view: ServiceView<'_>,
        mut metrics: impl FnMut(Duration) -> M,
        input: impl for<'m> Fn(&'m M) -> RuleInput<'m>,
        is_meant: impl Fn(&str) -> bool,
        now: Timestamp,
    ) -> Evaluated {
        let mut out = Evaluated::default();
        if !self.config.enabled {
            return out;
        }
        let scope = subject.scope();
        let mut states = self.book.take(subject);
        let mut windows: Vec<(Duration, M)> = Vec::new();
        let meant = |entry: &&mut Entry| entry.scope == scope && is_meant(entry.rule.name());
        for entry in self.rules.iter_mut().filter(meant) {
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
            let reports_each_change = entry.rule.name() == TOOLS_CHANGED
                && matches!(view.list_changes, ListChanges::Each(_));
            // While a dependency is down a change waits.
            let change = match view.list_changes {
                ListChanges::Each(change) if reports_each_change && applies => {
                    change.filter(|_| !view.suppressed)
                }
                _ => None,
            };
            // The rule decides with the finding of this change, whatever was found since.
            let findings = change.map(|change| with_change(view.findings, change));
            let context = RuleContext {
                labels: view.labels,
                limits: view.limits,
                failure_code: view.failure.map(|failure| failure.code),
                findings: findings.as_deref().unwrap_or(view.findings),
                result_changes: view.result_changes,
                status_seconds: view.since.map(|since| now.since(since).as_secs_f64()),
                usual: view.usual,
                repair_given_up: view.repair_given_up,
                firing,
                ..RuleContext::new(input(&windows[slot].1), now)
            };
            // What changes too often is told by one alert that says so; whether it is down cannot
            // be told meanwhile. One that nobody was told of hides nothing.
            let is_told = |state: &AlertState| {
                state.key.rule == FLAPPING && state.phase == AlertPhase::Firing && state.told
            };
            let is_flapping = entry.rule.name() == SERVICE_DOWN && states.iter().any(is_told);
            let mut round = Round {
                subject,
                context,
                failure: view.failure,
                is_flapping,
                suppressed: view.suppressed,
                reports_each_change,
                change,
                silences: &self.silences,
                routing: &self.routing,
                history: &mut self.history,
                out: &mut out,
            };
            round.judge(entry, applies, &mut states, at);
        }
        self.book.put(subject, states);
        out
    }
}

/// One rule's turn at one subject.
struct Round<'a> {
    subject: &'a Subject,
    context: RuleContext<'a>,
    failure: Option<&'a Failure>,
    is_flapping: bool,
    suppressed: bool,
    /// Whether this rule reports each change of lists, and nothing else makes it fire.
    reports_each_change: bool,
    /// The change that it may report now.
    change: Option<&'a ListChange>,
    silences: &'a [Silence],
    routing: &'a Routing,
    history: &'a mut VecDeque<Alert>,
    out: &'a mut Evaluated,
}

impl<'a> Round<'a> {
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
            Some(_) if self.is_flapping => Verdict::NoData,
            Some(Ok(verdict)) => verdict,
            Some(Err(error)) => {
                self.complain(entry, error);
                // A rule that cannot decide hides no change.
                if self.change.is_some() { Verdict::Firing } else { Verdict::NoData }
            }
        };
        self.change = self.change.filter(|_| verdict == Verdict::Firing);
        let is_firing = |at: usize| states[at].phase == AlertPhase::Firing;
        // A finding lasts for a day: it keeps an alert firing and begins none.
        let waits_for_change = self.reports_each_change && self.change.is_none();
        if waits_for_change && verdict == Verdict::Firing && !at.is_some_and(is_firing) {
            return;
        }
        let at = match at {
            Some(at) => at,
            None if verdict != Verdict::Firing => return,
            None => {
                let key = AlertKey::new(entry.rule.name(), self.subject.clone());
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
        let decision = match self.change {
            Some(change) => self.begin_anew(state, change),
            None => machine::step(state, verdict, level, &entry.timing, now),
        };
        let silenced_until = self.silenced_until(state, level);
        let hush = Hush { suppressed: self.suppressed, silenced: silenced_until.is_some() };
        let decision = machine::quieten(state, decision, hush);
        self.act(entry, state, decision, level);
        let silenced = silenced_until.is_some();
        if state.phase == AlertPhase::Firing && state.acknowledged.is_none() && !silenced {
            self.escalate(state);
        }
        let escalation = state
            .alert
            .as_ref()
            .filter(|_| state.phase == AlertPhase::Firing)
            .and_then(|alert| self.routing.next_escalation(alert, now));
        let due = machine::next_due(state, &entry.timing).filter(|due| *due > now);
        let is_untold = state.phase == AlertPhase::Firing
            && (!state.told || state.told_level < state.alert.as_ref().map(|alert| alert.level));
        // What waits for nothing but a route to open is looked at again although nothing of it
        // changes.
        let waits = is_untold && due.is_none() && self.routing.opens_by_hours();
        let again = waits.then(|| now.saturating_add(LOOK_AGAIN));
        let due = due.into_iter().chain(silenced_until).chain(escalation).chain(again);
        self.out.next_due = self.out.next_due.into_iter().chain(due).min();
        if decision == Decision::Quiet && machine::is_spent(state, &entry.timing, now) {
            states.swap_remove(at);
        }
    }

    /// A change of lists has an alert of its own, whatever was reported before and when: the alert
    /// of an earlier change ends with it, and who received that one receives its end.
    fn begin_anew(&mut self, state: &mut AlertState, change: &ListChange) -> Decision {
        if state.phase == AlertPhase::Firing {
            let tell = state.told;
            self.apply(state, Decision::Resolve { tell });
            if let Some(alert) = &mut state.alert {
                alert.ended_because = Some("the lists changed again".to_owned());
            }
            if tell {
                self.tell_end(state);
            }
            self.record_alert(state);
        }
        state.reported_change = Some(change.at);
        Decision::Open { tell: true }
    }

    fn act(&mut self, entry: &mut Entry, state: &mut AlertState, decision: Decision, level: Level) {
        let decision = self.if_anybody_listens(state, decision, level);
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
                let detail = if state.told { level.as_str() } else { "" };
                self.tell(state, NotificationKind::Firing, detail);
                self.record_alert(state);
            }
            Decision::TellLate => {
                self.apply(state, decision);
                self.tell(state, NotificationKind::Firing, "");
            }
            Decision::Remind => {
                self.apply(state, decision);
                let moment = self.context.now.as_millis().to_string();
                self.tell(state, NotificationKind::Reminder, &moment);
            }
            Decision::Resolve { tell } => {
                self.apply(state, decision);
                if tell {
                    self.tell_end(state);
                }
                self.record_alert(state);
            }
            Decision::Pend
            | Decision::Lapse
            | Decision::Suppress
            | Decision::Linger
            | Decision::Revive => self.apply(state, decision),
        }
        if decision != Decision::Quiet {
            let state = state.clone();
            self.transition().states.push(state);
        }
    }

    /// Where there is nobody to tell now, nothing is told yet, and it is decided again when a route
    /// may have opened. That it got worse is written down once all the same.
    fn if_anybody_listens(&self, state: &AlertState, decision: Decision, level: Level) -> Decision {
        let is_written = state.alert.as_ref().is_some_and(|alert| alert.level >= level);
        let waits = match decision {
            Decision::TellLate | Decision::Remind => true,
            Decision::Escalate => is_written,
            _ => false,
        };
        match (waits && !self.has_receivers(state), state.ended) {
            (false, _) => decision,
            (true, None) => Decision::Quiet,
            (true, Some(_)) => Decision::Revive,
        }
    }

    /// Until when a silence covers this alert, if one does.
    fn silenced_until(&self, state: &AlertState, level: Level) -> Option<Timestamp> {
        let now = self.context.now;
        let alert = state.alert.as_ref().filter(|_| state.phase == AlertPhase::Firing);
        let level = alert.map_or(level, |alert| alert.level.max(level));
        let labels = alert.map_or(self.context.labels, |alert| &alert.labels);
        let covers = |silence: &&Silence| silence.covers(&state.key, level, labels, now);
        self.silences.iter().filter(covers).map(|silence| silence.ends_at).max()
    }

    /// Tells those who are told of what nobody has taken on.
    fn escalate(&mut self, state: &mut AlertState) {
        let Some(alert) = state.alert.clone() else { return };
        let routing = self.routing;
        let due: Vec<&str> = routing
            .escalations(&alert, self.context.now)
            .filter(|handler| !state.told_to.iter().any(|told| told == handler))
            .collect();
        if due.is_empty() {
            return;
        }
        machine::note_told(state, due.iter().copied(), self.context.now);
        self.queue(&alert, NotificationKind::Firing, "unacknowledged", due.into_iter());
        let state = state.clone();
        self.transition().states.push(state);
    }

    fn apply(&self, state: &mut AlertState, decision: Decision) {
        machine::apply(state, decision, self.context.now);
    }

    fn transition(&mut self) -> &mut Transition {
        let at = self.context.now;
        self.out.transition.get_or_insert_with(|| Transition { at, ..Transition::default() })
    }

    fn new_alert(&mut self, entry: &mut Entry, key: &AlertKey, level: Level) -> Alert {
        let change = self.change;
        let message = match change {
            Some(change) => format!("{} ({})", self.message(entry), change.describe_change()),
            None => self.message(entry),
        };
        Alert {
            schema: ALERT_SCHEMA.to_owned(),
            // The same change has the same id and key if it is reported again after a crash.
            id: alert_id(key, change.map_or(self.context.now, |change| change.at)),
            rule_name: key.rule.clone(),
            subject: key.subject.clone(),
            level,
            message,
            timestamp: self.context.now,
            resolved_at: None,
            metrics: snapshot(self.context.input),
            failure: self.failure.cloned(),
            labels: self.context.labels.clone(),
            acknowledgements: Vec::new(),
            ended_because: None,
        }
    }

    /// An alert that got worse is the same alert, told anew: with the numbers that made it worse.
    fn make_worse(&mut self, entry: &mut Entry, state: &mut AlertState, level: Level) {
        let message = self.message(entry);
        if let Some(alert) = &mut state.alert {
            alert.level = level;
            alert.message = message;
            alert.metrics = snapshot(self.context.input);
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
        alert.is_some_and(|alert| self.routing.receivers(alert, self.context.now).next().is_some())
    }

    fn tell(&mut self, state: &mut AlertState, kind: NotificationKind, detail: &str) {
        let Some(alert) = state.alert.clone() else {
            return;
        };
        let receivers: Vec<&str> = self.routing.receivers(&alert, self.context.now).collect();
        machine::note_told(state, receivers.iter().copied(), self.context.now);
        self.queue(&alert, kind, detail, receivers.into_iter());
    }

    /// The end is told to whoever was told that it fired and is still there.
    fn tell_end(&mut self, state: &AlertState) {
        let ends = ends_told(state, self.routing);
        self.transition().deliveries.extend(ends);
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
        let record = Box::new(AlertRecord { alert: alert.clone(), state: state.shown_phase() });
        if alert.resolved_at.is_some() {
            note_end(self.history, alert);
            self.out.events.push(MonitorEvent::AlertResolved(record));
        } else {
            self.out.events.push(MonitorEvent::AlertFired(record));
        }
    }
}

/// What is odd about a service as its rule is to see it that reports this change: the finding of the
/// change itself in the place of any later one.
fn with_change(findings: &[Finding], change: &ListChange) -> Vec<Finding> {
    let others = findings.iter().filter(|finding| finding.code != FindingCode::ToolsChanged);
    others.cloned().chain([change.to_finding()]).collect()
}

/// The numbers as the alert carries them. A snapshot is plain data, so this cannot fail.
fn snapshot(input: RuleInput<'_>) -> serde_json::Value {
    match input {
        RuleInput::Service(metrics) => serde_json::to_value(metrics),
        RuleInput::Tool(metrics) => serde_json::to_value(metrics),
        RuleInput::Host(metrics) => serde_json::to_value(metrics),
        RuleInput::Monitor(fact) => serde_json::to_value(fact),
        _ => Ok(serde_json::Value::Null),
    }
    .unwrap_or_default()
}
