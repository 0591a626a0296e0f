//! One service's repairs: what was tried, what goes on, and what its checks say of it.

use std::time::Duration;

use mcpmon_alert::remediation::Attempts;
use mcpmon_core::check::CheckAspect;
use mcpmon_core::remedy::{AuditEntry, RepairOutcome};
use mcpmon_core::secret::Redactor;
use mcpmon_core::service::{RemediationSpec, ServiceName, ServiceSpec, StdioSpec, Transport};
use mcpmon_core::store::CheckRecord;
use mcpmon_core::{FailureCode, Observation, Question, Status, Timestamp};
use tokio::task::AbortHandle;
use tokio::time::Instant;

/// From one check asked for to the next while it is found out whether a repair helped; doubled
/// each time.
const ASK_AGAIN_AFTER: Duration = Duration::from_secs(2);
/// A check that was asked for may take so long beyond the service's own patience: a start alone
/// may take a minute.
const LAST_ANSWER_AFTER: Duration = Duration::from_secs(180);

/// What is known of the repairs of one service.
#[derive(Default)]
pub(super) struct Case {
    pub(super) attempts: Attempts,
    pub(super) stage: Stage,
    /// What was tried last.
    pub(super) tried: Option<Tried>,
    /// Its last check in this monitor's life.
    pub(super) last: Option<CheckRecord>,
    /// Whether that check left a process or a session held.
    pub(super) is_held: bool,
}

/// What is tried, as far as a change of it means that somebody acted.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Tried {
    pub(super) action: String,
    pub(super) argv: Vec<String>,
    pub(super) rule: Option<String>,
    pub(super) dry_run: bool,
}

impl Tried {
    pub(super) fn new(spec: &ServiceSpec, action: &RemediationSpec, rule: &Option<String>) -> Self {
        let argv = action.argv().unwrap_or_else(|| match &spec.transport {
            Transport::Stdio(StdioSpec { command, args, .. }) => {
                std::iter::once(command).chain(args).cloned().collect()
            }
            Transport::Http(_) | Transport::Sse(_) => Vec::new(),
        });
        let redactor = Redactor::new(spec.secrets());
        Self {
            action: action.action.as_str().to_owned(),
            argv: argv.iter().map(|word| redactor.redact(word)).collect(),
            rule: rule.clone(),
            dry_run: action.dry_run,
        }
    }

    pub(super) fn of_record(entry: &AuditEntry) -> Self {
        Self {
            action: entry.action.clone(),
            argv: entry.argv.clone(),
            rule: entry.rule.clone(),
            dry_run: entry.dry_run,
        }
    }
}

/// What goes on.
#[derive(Default)]
pub(super) enum Stage {
    #[default]
    Rest,
    Acting {
        entry: Box<AuditEntry>,
        task: AbortHandle,
    },
    Verifying(Box<Verification>),
}

impl Stage {
    /// The record of what goes on, which is cancelled.
    pub(super) fn into_entry(self) -> Option<AuditEntry> {
        match self {
            Self::Rest => None,
            Self::Acting { entry, task } => {
                task.abort();
                Some(*entry)
            }
            Self::Verifying(verification) => Some(*verification.entry),
        }
    }
}

/// What the case wants.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// A decision; nothing goes on.
    Decide,
    Wait,
    Ask(Question),
    Settle(RepairOutcome),
}

impl Case {
    /// Takes in a check that began at `started`.
    pub(super) fn checked(
        &mut self,
        service: &ServiceName,
        question: Question,
        at: Timestamp,
        started: Instant,
        observation: &Observation,
    ) {
        let record = CheckRecord::new(service.clone(), at, question, observation);
        self.is_held = observation.active_connections.is_some_and(|open| open > 0);
        if let Stage::Verifying(verification) = &mut self.stage {
            verification.checked(&record, started);
        }
        self.last = Some(record);
    }

    /// Takes up a record; oldest first.
    pub(super) fn recall(&mut self, entry: &AuditEntry, now: Timestamp) {
        self.tried = Some(Tried::of_record(entry));
        match entry.outcome {
            RepairOutcome::GaveUp => self.attempts.give_up(),
            RepairOutcome::Resumed => drop(self.attempts.recovered()),
            // A clock that was set back since must not make it wait.
            outcome => self.attempts.recall(entry.at.min(now), outcome == RepairOutcome::Helped),
        }
    }

    /// The service is watched no longer: what goes on ends, and its record is given back. What was
    /// tried is kept.
    pub(super) fn leave(&mut self) -> Option<AuditEntry> {
        (self.last, self.is_held) = (None, false);
        std::mem::take(&mut self.stage).into_entry()
    }

    pub(super) fn next(&self, now: Instant) -> Next {
        match &self.stage {
            Stage::Rest => Next::Decide,
            Stage::Acting { .. } => Next::Wait,
            Stage::Verifying(verification) => verification.next(now),
        }
    }
}

/// Finds out whether a repair helped.
#[derive(Debug)]
pub(super) struct Verification {
    entry: Box<AuditEntry>,
    /// Only what is asked from then on counts.
    since: Instant,
    /// Until then it may still become well.
    ends: Instant,
    ask_again: Instant,
    pause: Duration,
    is_well: bool,
}

impl Verification {
    pub(super) fn new(entry: Box<AuditEntry>, patience: Duration, now: Instant) -> Self {
        Self {
            entry,
            since: now,
            ends: now + patience,
            ask_again: now + ASK_AGAIN_AFTER,
            pause: ASK_AGAIN_AFTER,
            is_well: false,
        }
    }

    /// What tells: calls, where calls were what failed.
    pub(super) fn question(&self) -> Question {
        match self.entry.code.is_some_and(FailureCode::is_of_function) {
            true => Question::Functional,
            false => Question::Health,
        }
    }

    pub(super) fn asked(&mut self, now: Instant) {
        self.pause *= 2;
        self.ask_again = now + self.pause;
    }

    fn checked(&mut self, record: &CheckRecord, started: Instant) {
        let is_of_calls = record.meaning().aspect == CheckAspect::Function;
        let wants_calls = self.question() == Question::Functional;
        // Good health says nothing of calls that failed, nor calls of health; what keeps calls
        // from being made says something of both.
        let is_meant = match record.status.is_available() {
            true => is_of_calls == wants_calls,
            false => wants_calls || !is_of_calls,
        };
        if started < self.since || record.status == Status::Unknown || !is_meant || self.is_well {
            return;
        }
        self.is_well = record.status.is_available();
        self.entry.after = Some(record.clone());
    }

    fn next(&self, now: Instant) -> Next {
        let could_not = self.entry.outcome == RepairOutcome::Failed;
        match (&self.entry.after, could_not) {
            (Some(_), true) => Next::Settle(RepairOutcome::Failed),
            (Some(_), false) if self.is_well => Next::Settle(RepairOutcome::Helped),
            (Some(_), false) if now >= self.ends => Next::Settle(RepairOutcome::DidNotHelp),
            (None, _) if now >= self.ends + LAST_ANSWER_AFTER => {
                let outcome =
                    if could_not { RepairOutcome::Failed } else { RepairOutcome::Unverified };
                Next::Settle(outcome)
            }
            _ if now >= self.ask_again => Next::Ask(self.question()),
            _ => Next::Wait,
        }
    }
}

/// What came of a repair that was carried out, for people.
pub(super) fn in_words(outcome: RepairOutcome, after: Option<&CheckRecord>) -> String {
    let code = after.and_then(|check| check.code).map_or("", FailureCode::as_str);
    match outcome {
        RepairOutcome::Helped => "the check after it was good".to_owned(),
        RepairOutcome::DidNotHelp => format!("the checks after it failed: {code}"),
        _ => "no check after it could tell whether it helped".to_owned(),
    }
}
