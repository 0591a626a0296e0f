//! The port of judgement: a rule looks at values and gives a verdict. No I/O, no clock.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::failure::{FailureCode, Finding};
use crate::metrics::{ServiceMetrics, SystemMetrics, ToolMetrics};
use crate::service::ServiceLimits;
use crate::status::Level;
use crate::subject::Subject;
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

/// The numbers a rule is evaluated on, by scope.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub enum RuleInput<'a> {
    /// One service over the rule's window.
    Service(&'a ServiceMetrics),
    /// One tool over the rule's window.
    Tool(&'a ToolMetrics),
    /// The machine.
    Host(&'a SystemMetrics),
    /// Something the monitor knows of itself, or of what its services depend on.
    Monitor(&'a MonitorFact),
}

/// Something the monitor knows of itself, or of what its services depend on: that its store fails,
/// that a dependency is down.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MonitorFact {
    /// What it is about: the monitor itself, a dependency or a handler.
    pub subject: Subject,
    /// Whether it is so; `None` where that cannot be told.
    pub failing: Option<bool>,
    /// Why, for people. May hold text of a server.
    pub detail: String,
    /// Services concerned.
    pub affected: u64,
}

impl MonitorFact {
    /// A fact about `subject` of which nothing is known yet.
    pub const fn new(subject: Subject) -> Self {
        Self { subject, failing: None, detail: String::new(), affected: 0 }
    }
}

impl Default for MonitorFact {
    /// A fact about the monitor itself of which nothing is known yet.
    fn default() -> Self {
        Self::new(Subject::Monitor)
    }
}

/// What is usual for a service, by robust statistics: a few outliers do not move it.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
pub struct Usual {
    /// Of the median response time of an hour, in seconds.
    pub response_time: Option<Spread>,
    /// Of the failed share of an hour's checks.
    pub error_rate: Option<Spread>,
}

/// A middle and how far values lie from it.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
pub struct Spread {
    /// The median.
    pub median: f64,
    /// The median of the distances from it (MAD).
    pub deviation: f64,
    /// Values it is of.
    pub count: u32,
    /// How far single measurements lie from the middle of their hour (MAD): what a value made of
    /// few of them may be off by without meaning anything.
    #[serde(default)]
    pub noise: f64,
}

/// The deviation of a normal distribution is so many times its MAD.
const NORMAL: f64 = 1.4826;
/// The median of so many measurements is off by this times their deviation, over the square root
/// of their number.
const OF_MEDIAN: f64 = 1.2533;

impl Spread {
    /// The spread of these values; `None` if there are none. Reorders them.
    pub fn of(values: &mut [f64]) -> Option<Self> {
        let median = median(values)?;
        let mut distances: Vec<f64> = values.iter().map(|value| (value - median).abs()).collect();
        let deviation = median_or_zero(&mut distances);
        let count = u32::try_from(values.len()).unwrap_or(u32::MAX);
        Some(Self { median, deviation, count, noise: 0.0 })
    }

    /// How many robust standard deviations `value` lies above the median; `floor` is the least
    /// deviation that counts, so that a service that never varied is not alarmed by a hair.
    pub fn z(&self, value: f64, floor: f64) -> f64 {
        (value - self.median) / (NORMAL * self.deviation).max(floor).max(f64::MIN_POSITIVE)
    }

    /// The same for the median of `measured` measurements: the fewer they are, the further they
    /// may lie from what is usual by chance alone.
    pub fn z_of_median(&self, value: f64, measured: u64, floor: f64) -> f64 {
        let by_chance = OF_MEDIAN * NORMAL * self.noise / (measured.max(1) as f64).sqrt();
        let deviation = (NORMAL * self.deviation).hypot(by_chance);
        (value - self.median) / deviation.max(floor).max(f64::MIN_POSITIVE)
    }

    /// The same for a share of `measured` measurements.
    pub fn z_of_share(&self, value: f64, measured: u64, floor: f64) -> f64 {
        let share = self.median.clamp(0.0, 1.0);
        let by_chance = (share * (1.0 - share) / measured.max(1) as f64).sqrt();
        let deviation = (NORMAL * self.deviation).hypot(by_chance);
        (value - self.median) / deviation.max(floor).max(f64::MIN_POSITIVE)
    }
}

fn median(values: &mut [f64]) -> Option<f64> {
    if values.is_empty() {
        return None;
    }
    values.sort_unstable_by(f64::total_cmp);
    let middle = values.len() / 2;
    Some(match values.len() % 2 {
        0 => f64::midpoint(values[middle - 1], values[middle]),
        _ => values[middle],
    })
}

fn median_or_zero(values: &mut [f64]) -> f64 {
    median(values).unwrap_or_default()
}

/// Everything a rule may look at.
#[derive(Debug, Clone, Copy)]
pub struct RuleContext<'a> {
    /// The numbers.
    pub input: RuleInput<'a>,
    /// The service's labels; empty for the host.
    pub labels: &'a BTreeMap<String, String>,
    /// The service's times and limits; `None` where the caller has only numbers.
    pub limits: Option<&'a ServiceLimits>,
    /// The code of the failure the service has now.
    pub failure_code: Option<FailureCode>,
    /// What is odd about the service now.
    pub findings: &'a [Finding],
    /// How often the raw result changed in the service's last 20 attempts.
    pub result_changes: u32,
    /// Seconds the service has had its status.
    pub status_seconds: Option<f64>,
    /// What is usual for the service, once there is enough history.
    pub usual: Option<&'a Usual>,
    /// Whether attempts to repair the service were given up.
    pub repair_given_up: bool,
    /// Whether this rule's alert for this subject fires now, so that a condition can end at another
    /// point than it begins.
    pub firing: bool,
    /// Now.
    pub now: Timestamp,
}

impl<'a> RuleContext<'a> {
    /// A context of numbers alone.
    pub fn new(input: RuleInput<'a>, now: Timestamp) -> Self {
        static NO_LABELS: BTreeMap<String, String> = BTreeMap::new();
        Self {
            input,
            labels: &NO_LABELS,
            limits: None,
            failure_code: None,
            findings: &[],
            result_changes: 0,
            status_seconds: None,
            usual: None,
            repair_given_up: false,
            firing: false,
            now,
        }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_few_outliers_do_not_move_what_is_usual() {
        let mut values: Vec<f64> = (0..99).map(|n| 0.020 + f64::from(n % 10) * 0.001).collect();
        let calm = Spread::of(&mut values).unwrap();
        values.extend([9.0; 5]);
        let stormy = Spread::of(&mut values).unwrap();
        assert!((calm.median - stormy.median).abs() < 0.002, "{calm:?} {stormy:?}");
        assert!(stormy.z(0.025, 0.001) < 1.0 && stormy.z(0.2, 0.001) > 6.0);
    }

    #[test]
    fn a_service_that_never_varied_is_not_alarmed_by_a_hair() {
        let still = Spread::of(&mut [0.02; 50]).unwrap();
        assert_eq!(still.deviation, 0.0);
        assert!(still.z(0.0201, 0.001) < 1.0);
        assert_eq!(Spread::of(&mut []), None);
    }
}
