//! The port of judgement: a rule looks at values and gives a verdict. No I/O, no clock.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::failure::FailureCode;
use crate::metrics::{ServiceMetrics, SystemMetrics, ToolMetrics};
use crate::service::ServiceLimits;
use crate::status::Level;
use crate::time::Timestamp;

/// What a rule looks at.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize,
)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Scope {
    /// Each service.
    #[default]
    Service,
    /// Each tool of each service.
    Tool,
    /// The machine.
    Host,
    /// The monitor itself: its store, its network.
    Monitor,
}

impl Scope {
    /// The contract's spelling.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Service => "service",
            Self::Tool => "tool",
            Self::Host => "host",
            Self::Monitor => "monitor",
        }
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// What a rule found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// The condition does not hold.
    Ok,
    /// It holds.
    Firing,
    /// It cannot be told. Never the same as [`Verdict::Ok`]: it neither opens nor resolves.
    NoData,
}

/// The numbers a rule looks at, by scope.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub enum Subject<'a> {
    /// One service over the rule's window.
    Service(&'a ServiceMetrics),
    /// One tool over the rule's window.
    Tool(&'a ToolMetrics),
    /// The machine.
    Host(&'a SystemMetrics),
}

/// Everything a rule may look at.
#[derive(Debug, Clone, Copy)]
pub struct RuleContext<'a> {
    /// The numbers.
    pub subject: Subject<'a>,
    /// The service's labels; empty for the host.
    pub labels: &'a BTreeMap<String, String>,
    /// The service's times and limits; `None` where the caller has only numbers.
    pub limits: Option<&'a ServiceLimits>,
    /// The code of the failure the service has now.
    pub failure_code: Option<FailureCode>,
    /// Whether this rule's alert for this subject fires now, so that a condition can end at another
    /// point than it begins.
    pub firing: bool,
    /// Now.
    pub now: Timestamp,
}

impl<'a> RuleContext<'a> {
    /// A context of numbers alone.
    pub fn new(subject: Subject<'a>, now: Timestamp) -> Self {
        static NO_LABELS: BTreeMap<String, String> = BTreeMap::new();
        Self { subject, labels: &NO_LABELS, limits: None, failure_code: None, firing: false, now }
    }
}

/// A rule could not be evaluated; reported, and nothing else stops.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("rule `{rule}` could not be evaluated: {message}")]
pub struct RuleError {
    /// The rule's name.
    pub rule: String,
    /// Why.
    pub message: String,
}

/// When and how a rule's alert is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RulePolicy {
    /// How long the condition must hold before the alert fires.
    pub hold: Duration,
    /// How long it fires on after the condition ended.
    pub keep_firing: Duration,
    /// Least time between two notices for one subject; `None`: the monitor's `alert_cooldown`.
    pub cooldown: Option<Duration>,
    /// The span the numbers are over.
    pub window: Duration,
}

impl Default for RulePolicy {
    fn default() -> Self {
        Self {
            hold: Duration::ZERO,
            keep_firing: Duration::ZERO,
            cooldown: None,
            window: crate::window::DEFAULT_WINDOW,
        }
    }
}

/// A condition on numbers, and what is said when it holds.
pub trait Rule: Send + Sync + fmt::Debug {
    /// Its name, unique among the monitor's rules.
    fn name(&self) -> &str;

    /// What it looks at.
    fn scope(&self) -> Scope {
        Scope::Service
    }

    /// How bad it is. May look at the numbers: a disk at 95 % is worse than at 90 %.
    fn level(&self, context: &RuleContext<'_>) -> Level;

    /// When and how its alert is told.
    fn policy(&self) -> RulePolicy {
        RulePolicy::default()
    }

    /// Whether it looks at services with these labels at all.
    fn applies_to(&self, labels: &BTreeMap<String, String>) -> bool {
        let _ = labels;
        true
    }

    /// Whether the condition holds.
    ///
    /// # Errors
    ///
    /// When the condition itself is at fault; the alert then stays as it is.
    fn evaluate(&self, context: &RuleContext<'_>) -> Result<Verdict, RuleError>;

    /// What is said when it fires. Values from servers come out as they are: each sink escapes.
    ///
    /// # Errors
    ///
    /// When the message's template is at fault; the alert then says the rule's name.
    fn message(&self, context: &RuleContext<'_>) -> Result<Cow<'_, str>, RuleError>;
}
