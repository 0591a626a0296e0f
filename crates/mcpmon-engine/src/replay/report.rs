//! What a replay came to.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use mcpmon_core::alert::{Alert, NotificationKind};
use mcpmon_core::monitor::MonitorEvent;
use mcpmon_core::rule::{Rule as _, Scope};
use mcpmon_core::service::ServiceName;
use mcpmon_core::status::Level;
use mcpmon_core::store::{CheckRecord, Transition};
use mcpmon_core::{Status, Subject, Timestamp};
use serde::Serialize;

use super::ends::Ends;
use super::tally::{Counts, Tallied};
use crate::judge::Judged;

/// Messages and alerts that are kept; a rule that says more than this needs no longer list.
const MOST: usize = 10_000;
/// Services named in a summary.
pub(super) const MOST_NAMES: usize = 20;

/// What would have been sent, and by which rules.
#[derive(Debug, Clone, PartialEq, Default, Serialize)]
#[non_exhaustive]
pub struct ReplayReport {
    /// The span that was looked at.
    pub since: Timestamp,
    /// Its end.
    pub until: Timestamp,
    /// Services there are stored checks of.
    pub services: usize,
    /// Stored checks of the span.
    pub checks: u64,
    /// The oldest of them, where there is any: the store may not reach back to `since`.
    pub first_check: Option<Timestamp>,
    /// Messages in the order they would have been sent, each once, with everybody who gets it.
    pub messages: Vec<ReplayedMessage>,
    /// Alerts that fired in the span, or fired already when it began.
    pub alerts: Vec<ReplayedAlert>,
    /// Messages and alerts beyond the 10,000 of each that are kept.
    pub left_out: u64,
    /// Each rule that is switched on.
    pub rules: Vec<RuleSummary>,
    /// What is not in the store, and so is `no_data`.
    pub not_stored: Vec<String>,
}

/// A message that would have been sent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct ReplayedMessage {
    /// When.
    pub at: Timestamp,
    /// What it says.
    pub kind: NotificationKind,
    /// How bad.
    pub level: Level,
    /// The alert it is about; the same in its recovery.
    pub alert: String,
    /// The rule.
    pub rule: String,
    /// The service, where it is about one.
    pub service: Option<ServiceName>,
    /// The tool, where it is about one.
    pub tool: Option<String>,
    /// What it is about.
    pub subject: Subject,
    /// What it says. May hold text of a server.
    pub message: String,
    /// Who gets it.
    pub handlers: Vec<String>,
}

/// An alert as it would have been.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct ReplayedAlert {
    /// Its id in this replay.
    pub id: String,
    /// The rule.
    pub rule: String,
    /// The service, where it is about one.
    pub service: Option<ServiceName>,
    /// The tool, where it is about one.
    pub tool: Option<String>,
    /// What it is about.
    pub subject: Subject,
    /// How bad, at its worst.
    pub level: Level,
    /// What it says. May hold text of a server.
    pub message: String,
    /// When it fired.
    pub fired_at: Timestamp,
    /// When it ended; `None` if it fired to the end of the span, or of what is known.
    pub resolved_at: Option<Timestamp>,
    /// It was still firing when the history of what it is about ended, which was then, before the
    /// end of the span.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub history_ended_at: Option<Timestamp>,
    /// Whether it fired before the span began.
    pub fired_before: bool,
}

/// What became of one rule.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct RuleSummary {
    /// Its name.
    pub rule: String,
    /// What it looks at.
    pub scope: Scope,
    /// Its level, when nothing makes it worse.
    pub level: Level,
    /// Alerts that fired in the span.
    pub fired: u64,
    /// Those that still fire at its end, or when the history ended.
    pub open: u64,
    /// Seconds the longest of them is known to have fired within the span.
    pub longest_seconds: u64,
    /// Services, or tools' services, it fired for; 20 at most, by name.
    pub services: Vec<ServiceName>,
    /// How many services that were.
    pub services_count: usize,
    /// Times it was asked, the hour before the span included.
    pub evaluations: u64,
    /// Times it could not tell.
    pub no_data: u64,
    /// Times it could not be evaluated.
    pub failed: u64,
    /// Why it never told anything, where it did not.
    pub silent_because: Option<String>,
}

impl ReplayReport {
    /// What cannot be told because the history ended before the span, where something fired then.
    pub(super) fn after_the_end(&self) -> Option<String> {
        let ended = self.alerts.iter().filter_map(|alert| {
            let subject = alert.subject.service().map_or("the machine", ServiceName::as_str);
            Some((subject, alert.history_ended_at?))
        });
        let ended: BTreeMap<&str, Timestamp> = ended.collect();
        let named: Vec<String> =
            ended.iter().take(MOST_NAMES).map(|(subject, at)| format!("{subject}: {at}")).collect();
        let more = ended.len() - named.len();
        let more = if more > 0 { format!(" and {more} more") } else { String::new() };
        (!named.is_empty()).then(|| {
            let named = named.join(", ");
            format!(
                "how alerts ended that were still firing when the history ended ({named}{more})"
            )
        })
    }
}

#[derive(Debug, Default)]
struct OfRule {
    fired: u64,
    longest: Duration,
    services: BTreeSet<ServiceName>,
}

/// Gathers what comes of a replay.
#[derive(Debug)]
pub(super) struct Collector {
    report: ReplayReport,
    open: BTreeMap<String, ReplayedAlert>,
    rules: BTreeMap<String, OfRule>,
}

impl Collector {
    pub(super) fn new(since: Timestamp, until: Timestamp) -> Self {
        Self {
            report: ReplayReport { since, until, ..ReplayReport::default() },
            open: BTreeMap::new(),
            rules: BTreeMap::new(),
        }
    }

    pub(super) fn count_check(&mut self, check: &CheckRecord, now: Timestamp) {
        if now >= self.report.since && check.status != Status::Unknown {
            self.report.checks += 1;
            self.report.first_check.get_or_insert(check.at);
        }
    }

    /// Takes in what a round of judging came to.
    pub(super) fn note(&mut self, judged: Judged, now: Timestamp) {
        for event in judged.events {
            match event {
                MonitorEvent::AlertFired(record) => self.fired(&record.alert),
                MonitorEvent::AlertResolved(record) => self.resolved(&record.alert, now),
                _ => {}
            }
        }
        if let Some(transition) = judged.transition.filter(|_| now >= self.report.since) {
            self.told(transition, now);
        }
    }

    /// Alerts that ended because what they were about is gone.
    pub(super) fn note_ended(&mut self, ended: Option<Transition>, now: Timestamp) {
        let Some(ended) = ended else { return };
        ended.alerts.iter().for_each(|alert| self.resolved(alert, now));
        if now >= self.report.since {
            self.told(ended, now);
        }
    }

    fn fired(&mut self, alert: &Alert) {
        if let Some(known) = self.open.get_mut(&alert.id) {
            known.level = alert.level;
            known.message.clone_from(&alert.message);
            return;
        }
        let fired_before = alert.timestamp < self.report.since;
        if !fired_before {
            let of_rule = self.rules.entry(alert.rule_name.clone()).or_default();
            of_rule.fired += 1;
            of_rule.services.extend(alert.service_name().cloned());
        }
        let new = ReplayedAlert {
            id: alert.id.clone(),
            rule: alert.rule_name.clone(),
            service: alert.service_name().cloned(),
            tool: alert.tool_name().map(str::to_owned),
            subject: alert.subject.clone(),
            level: alert.level,
            message: alert.message.clone(),
            fired_at: alert.timestamp,
            resolved_at: None,
            history_ended_at: None,
            fired_before,
        };
        self.open.insert(alert.id.clone(), new);
    }

    fn resolved(&mut self, alert: &Alert, now: Timestamp) {
        let Some(mut known) = self.open.remove(&alert.id) else { return };
        if now < self.report.since {
            return;
        }
        known.resolved_at = Some(now);
        self.keep(known, now);
    }

    fn keep(&mut self, alert: ReplayedAlert, ended: Timestamp) {
        let since = alert.fired_at.max(self.report.since);
        let of_rule = self.rules.entry(alert.rule.clone()).or_default();
        of_rule.longest = of_rule.longest.max(ended.since(since));
        if self.report.alerts.len() < MOST {
            self.report.alerts.push(alert);
        } else {
            self.report.left_out += 1;
        }
    }

    fn told(&mut self, transition: Transition, now: Timestamp) {
        let mut keys: Vec<(String, usize)> = Vec::new();
        for delivery in transition.deliveries {
            let notification = delivery.notification;
            if let Some((_, at)) = keys.iter().find(|(key, _)| *key == notification.key) {
                self.report.messages[*at].handlers.push(delivery.handler);
                continue;
            }
            let Some(alert) = notification.alerts.first() else { continue };
            if self.report.messages.len() >= MOST {
                self.report.left_out += 1;
                continue;
            }
            self.report.messages.push(ReplayedMessage {
                at: now,
                kind: notification.kind,
                level: alert.level,
                alert: alert.id.clone(),
                rule: alert.rule_name.clone(),
                service: alert.service_name().cloned(),
                tool: alert.tool_name().map(str::to_owned),
                subject: alert.subject.clone(),
                message: alert.message.clone(),
                handlers: vec![delivery.handler],
            });
            keys.push((notification.key, self.report.messages.len() - 1));
        }
    }

    pub(super) fn finish(
        mut self,
        services: usize,
        rules: &[Arc<Tallied>],
        ends: &Ends,
    ) -> ReplayReport {
        let ReplayReport { since, until, .. } = self.report;
        let open: Vec<ReplayedAlert> = std::mem::take(&mut self.open).into_values().collect();
        let mut open_of: BTreeMap<String, u64> = BTreeMap::new();
        for mut alert in open {
            alert.history_ended_at = ends.of_subject(&alert.subject).filter(|end| *end < until);
            let ended = alert.history_ended_at.unwrap_or(until);
            // Whether it fired in the span at all is not known.
            if ended < since {
                continue;
            }
            *open_of.entry(alert.rule.clone()).or_default() += 1;
            self.keep(alert, ended);
        }
        self.report.alerts.sort_by(|a, b| (a.fired_at, &a.id).cmp(&(b.fired_at, &b.id)));
        self.report.services = services;
        self.report.rules = rules
            .iter()
            .map(|rule| {
                let of_rule = self.rules.remove(rule.name()).unwrap_or_default();
                let open = open_of.get(rule.name()).copied().unwrap_or_default();
                summary(rule, &of_rule, open)
            })
            .collect();
        self.report
    }
}

fn summary(rule: &Tallied, of_rule: &OfRule, open: u64) -> RuleSummary {
    let counts = rule.counts();
    RuleSummary {
        rule: rule.name().to_owned(),
        scope: rule.scope(),
        level: rule.rule().base_level(),
        fired: of_rule.fired,
        open,
        longest_seconds: of_rule.longest.as_secs(),
        services: of_rule.services.iter().take(MOST_NAMES).cloned().collect(),
        services_count: of_rule.services.len(),
        evaluations: counts.all(),
        no_data: counts.no_data,
        failed: counts.failed,
        silent_because: silent_because(rule, counts),
    }
}

/// Why a rule never said that anything is well or wrong; `None` if it did.
fn silent_because(rule: &Tallied, counts: Counts) -> Option<String> {
    if counts.ok + counts.firing > 0 {
        return None;
    }
    if rule.is_of_repairs() {
        return Some("what came of repairs is not stored".to_owned());
    }
    if let Some(error) = rule.error() {
        return Some(format!("it could not be evaluated: {error}"));
    }
    if counts.no_data > 0 {
        let missing = rule.missing();
        return Some(match missing.is_empty() {
            true => "its condition gave `null` every time: too few samples, or a status that \
                     cannot be told"
                .to_owned(),
            false => format!("without a value: {}", missing.join(", ")),
        });
    }
    Some(match rule.scope() {
        Scope::Tool => "calls of tools are not stored".to_owned(),
        Scope::Monitor => "what the monitor knew of itself is not stored".to_owned(),
        Scope::Host => "no sample of the machine is stored of this span".to_owned(),
        _ if !rule.rule().labels().is_empty() => {
            "no service with checks has the labels it wants".to_owned()
        }
        _ => "no check is stored of this span".to_owned(),
    })
}
