//! A rule whose condition is a closure over a service's numbers.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use mcpmon_core::metrics::ServiceMetrics;
use mcpmon_core::rule::{Rule, RuleContext, RuleError, RuleInput, RulePolicy, Scope, Verdict};
use mcpmon_core::status::Level;

use crate::condition::ExpressionError;
use crate::message::{Message, default_message};
use crate::variables::Variables;

type Test = dyn Fn(&ServiceMetrics) -> bool + Send + Sync;
type Words = dyn Fn(&ServiceMetrics) -> String + Send + Sync;

#[derive(Clone)]
enum Saying {
    Default,
    Template(Message),
    Closure(Arc<Words>),
}

/// A rule for programs: a name, a level, and whether it holds for a service's numbers.
///
/// ```
/// use mcpmon_alert::AlertRule;
/// use mcpmon_core::{Level, ServiceMetrics};
///
/// # fn main() -> Result<(), mcpmon_alert::ExpressionError> {
/// let rule = AlertRule::new("slow", Level::Warning, |m: &ServiceMetrics| {
///     m.avg_response_time.is_some_and(|seconds| seconds > 5.0)
/// })
/// .message("{{ service_name }} takes {{ avg_response_time | fixed(2) }}s")?
/// .cooldown(std::time::Duration::from_secs(300));
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct AlertRule {
    name: String,
    level: Level,
    test: Arc<Test>,
    saying: Saying,
    policy: RulePolicy,
    labels: BTreeMap<String, String>,
}

impl AlertRule {
    /// A rule that fires for a service while `test` is true of it.
    ///
    /// A test that panics is a failed rule: reported, and the alert stays as it is.
    pub fn new(
        name: impl Into<String>,
        level: Level,
        test: impl Fn(&ServiceMetrics) -> bool + Send + Sync + 'static,
    ) -> Self {
        Self {
            name: name.into(),
            level,
            test: Arc::new(test),
            saying: Saying::Default,
            policy: RulePolicy::default(),
            labels: BTreeMap::new(),
        }
    }

    /// What is said when it fires: a template over the names of the snapshot. Without one, the
    /// service's name and the rule's.
    ///
    /// # Errors
    ///
    /// When the template cannot be read or names what a snapshot does not have.
    pub fn message(mut self, template: &str) -> Result<Self, ExpressionError> {
        self.saying = Saying::Template(Message::compile(template, Scope::Service)?);
        Ok(self)
    }

    /// What is said when it fires, made by a closure.
    #[must_use]
    pub fn message_fn(
        mut self,
        words: impl Fn(&ServiceMetrics) -> String + Send + Sync + 'static,
    ) -> Self {
        self.saying = Saying::Closure(Arc::new(words));
        self
    }

    /// Least time between two notices about one service; the manager's if not said.
    #[must_use]
    pub fn cooldown(mut self, cooldown: Duration) -> Self {
        self.policy.cooldown = Some(cooldown);
        self
    }

    /// How long the test must be true before the alert fires.
    #[must_use]
    pub fn hold(mut self, hold: Duration) -> Self {
        self.policy.hold = hold;
        self
    }

    /// How long it fires on after the test became false.
    #[must_use]
    pub fn keep_firing(mut self, keep_firing: Duration) -> Self {
        self.policy.keep_firing = keep_firing;
        self
    }

    /// The span the numbers are over, where the monitor makes them; 5 minutes if not said.
    #[must_use]
    pub fn window(mut self, window: Duration) -> Self {
        self.policy.window = window;
        self
    }

    /// Only for services with this label.
    #[must_use]
    pub fn label(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.labels.insert(name.into(), value.into());
        self
    }

    fn error(&self, message: String) -> RuleError {
        RuleError { rule: self.name.clone(), message }
    }

    /// Calls a closure of the user; its panic must not end the evaluation of other rules.
    fn guarded<T>(&self, call: impl FnOnce() -> T) -> Result<T, RuleError> {
        catch_unwind(AssertUnwindSafe(call)).map_err(|panic| {
            let reason = panic
                .downcast_ref::<&str>()
                .copied()
                .or_else(|| panic.downcast_ref::<String>().map(String::as_str))
                .unwrap_or("no reason given");
            self.error(format!("its closure panicked: {reason}"))
        })
    }
}

impl fmt::Debug for AlertRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AlertRule")
            .field("name", &self.name)
            .field("level", &self.level)
            .field("policy", &self.policy)
            .finish_non_exhaustive()
    }
}

impl Rule for AlertRule {
    fn name(&self) -> &str {
        &self.name
    }

    fn level(&self, _: &RuleContext<'_>) -> Level {
        self.level
    }

    fn policy(&self) -> RulePolicy {
        self.policy
    }

    fn applies_to(&self, labels: &BTreeMap<String, String>) -> bool {
        has_all(labels, &self.labels)
    }

    fn evaluate(&self, context: &RuleContext<'_>) -> Result<Verdict, RuleError> {
        let RuleInput::Service(metrics) = context.input else {
            return Ok(Verdict::NoData);
        };
        Ok(match self.guarded(|| (self.test)(metrics))? {
            true => Verdict::Firing,
            false => Verdict::Ok,
        })
    }

    fn message(&self, context: &RuleContext<'_>) -> Result<Cow<'_, str>, RuleError> {
        match (&self.saying, context.input) {
            (Saying::Template(template), _) => template
                .render(&Variables { context, window: self.policy.window })
                .map(Cow::Owned)
                .map_err(|message| self.error(message)),
            (Saying::Closure(words), RuleInput::Service(metrics)) => {
                self.guarded(|| words(metrics)).map(Cow::Owned)
            }
            _ => Ok(Cow::Owned(default_message(&self.name, context))),
        }
    }
}

/// Whether `labels` holds every one of `wanted`.
pub(crate) fn has_all(
    labels: &BTreeMap<String, String>,
    wanted: &BTreeMap<String, String>,
) -> bool {
    wanted.iter().all(|(name, value)| labels.get(name) == Some(value))
}
