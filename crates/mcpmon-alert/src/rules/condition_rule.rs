//! A rule as it is written in a configuration.

use std::borrow::Cow;
use std::collections::BTreeMap;

use mcpmon_core::rule::{Rule, RuleContext, RuleError, RulePolicy, Scope, Verdict};
use mcpmon_core::settings::RuleSettings;
use mcpmon_core::status::Level;
use mcpmon_core::window::{DEFAULT_WINDOW, LONGEST_WINDOW, RING_SPAN};

use super::closure::has_all;
use crate::condition::{Condition, ExpressionError};
use crate::message::{Message, default_message};
use crate::variables::Variables;

/// A key of a rule that cannot be used, and why.
pub(crate) type KeyError = (&'static str, ExpressionError);

/// A rule with a condition in CEL and a message template, both read and checked.
#[derive(Debug)]
pub struct ConditionRule {
    name: String,
    scope: Scope,
    when: Condition,
    /// A second condition that makes it worse.
    worse: Option<(Condition, Level)>,
    level: Level,
    policy: RulePolicy,
    labels: BTreeMap<String, String>,
    message: Option<Message>,
    built_in: bool,
    guard: Option<Guard>,
}

/// What can be told without the condition, for a rule that nearly always has nothing to say: the
/// verdict the condition would give, or `None` where it must be asked.
pub(super) type Guard = fn(&RuleContext<'_>) -> Option<Verdict>;

impl ConditionRule {
    /// Reads a rule that is whole: every problem it has, with the key each belongs to.
    ///
    /// # Errors
    ///
    /// The keys that cannot be used.
    pub fn new(settings: &RuleSettings) -> Result<Self, Vec<(&'static str, ExpressionError)>> {
        Self::read(settings, None, false)
    }

    pub(super) fn read(
        settings: &RuleSettings,
        worse: Option<(&str, Level)>,
        built_in: bool,
    ) -> Result<Self, Vec<KeyError>> {
        let scope = settings.scope.unwrap_or_default();
        let mut errors: Vec<KeyError> = Vec::new();
        let mut note = |key, message: &str| errors.push((key, ExpressionError::new(message, None)));
        if settings.name.trim().is_empty() {
            note("name", "a rule needs a name");
        }
        if scope == Scope::Monitor && !built_in {
            note("scope", "rules can be written for `service`, `tool` and `host`");
            return Err(errors);
        }
        if !matches!(scope, Scope::Service | Scope::Tool) && !settings.labels.is_empty() {
            note("match", "the host has no labels; leave `match` out");
        }
        match (scope, settings.window) {
            (Scope::Host, Some(_)) => {
                note("window", "the host is judged as it is now; leave `window` out, `hold` waits");
            }
            (Scope::Tool, Some(window)) if window > RING_SPAN => {
                note("window", "calls of tools are remembered for an hour at most");
            }
            (_, Some(window)) if window > LONGEST_WINDOW => {
                note("window", "a window reaches back a day at most");
            }
            _ => {}
        }
        let mut keep = |key, result: Result<_, ExpressionError>| {
            result.map_err(|error| errors.push((key, error))).ok()
        };
        let source = settings.when.as_deref().unwrap_or_default();
        let when = keep("when", Condition::compile(source, scope));
        let worse = worse.and_then(|(source, level)| {
            let condition = keep("when", Condition::compile(source, scope))?;
            Some((condition, level))
        });
        let message =
            settings.message.as_deref().and_then(|source| match Message::compile(source, scope) {
                Ok(message) => Some(message),
                Err(error) => {
                    errors.push(("message", error));
                    None
                }
            });
        let Some(when) = when.filter(|_| errors.is_empty()) else {
            return Err(errors);
        };
        Ok(Self {
            name: settings.name.clone(),
            scope,
            when,
            worse,
            level: settings.level.unwrap_or(Level::Warning),
            policy: RulePolicy {
                hold: settings.hold.unwrap_or_default(),
                keep_firing: settings.keep_firing.unwrap_or_default(),
                cooldown: settings.cooldown,
                window: settings.window.unwrap_or(DEFAULT_WINDOW),
            },
            labels: settings.labels.clone(),
            message,
            built_in,
            guard: None,
        })
    }

    pub(super) fn guarded(self, guard: Option<Guard>) -> Self {
        Self { guard, ..self }
    }

    /// The condition as it was written.
    pub fn when(&self) -> &str {
        self.when.source()
    }

    /// The level it has when nothing makes it worse.
    pub fn base_level(&self) -> Level {
        self.level
    }

    /// The condition that makes it worse, and how bad it is then.
    pub fn worse(&self) -> Option<(&str, Level)> {
        self.worse.as_ref().map(|(condition, level)| (condition.source(), *level))
    }

    /// The labels a service must have.
    pub fn labels(&self) -> &BTreeMap<String, String> {
        &self.labels
    }

    /// The message's template, if it has one.
    pub fn template(&self) -> Option<&str> {
        self.message.as_ref().map(Message::source)
    }

    /// Whether it is one of ours, changed or not.
    pub fn is_built_in(&self) -> bool {
        self.built_in
    }

    /// Whether its condition, or what makes it worse, looks at one of these names.
    pub fn looks_at_any(&self, names: &[&str]) -> bool {
        let worse = self.worse.as_ref().map(|(condition, _)| condition);
        let mut conditions = std::iter::once(&self.when).chain(worse);
        conditions.any(|condition| condition.looks_at_any(names))
    }

    /// The names its condition looks at that have no value now: why it cannot tell, where it
    /// cannot.
    pub fn without_value(&self, context: &RuleContext<'_>) -> Vec<&'static str> {
        self.when.without_value(self.scope, &self.variables(context))
    }

    fn variables<'a>(&self, context: &'a RuleContext<'a>) -> Variables<'a> {
        Variables { context, window: self.policy.window }
    }

    fn error(&self, message: String) -> RuleError {
        RuleError { rule: self.name.clone(), message }
    }
}

impl Rule for ConditionRule {
    fn name(&self) -> &str {
        &self.name
    }

    fn scope(&self) -> Scope {
        self.scope
    }

    fn level(&self, context: &RuleContext<'_>) -> Level {
        let is_worse = |condition: &Condition| {
            condition.evaluate(&self.variables(context)) == Ok(Verdict::Firing)
        };
        match &self.worse {
            Some((condition, level)) if is_worse(condition) => *level,
            _ => self.level,
        }
    }

    fn policy(&self) -> RulePolicy {
        self.policy
    }

    fn applies_to(&self, labels: &BTreeMap<String, String>) -> bool {
        has_all(labels, &self.labels)
    }

    fn evaluate(&self, context: &RuleContext<'_>) -> Result<Verdict, RuleError> {
        if let Some(verdict) = self.guard.and_then(|guard| guard(context)) {
            return Ok(verdict);
        }
        self.when.evaluate(&self.variables(context)).map_err(|message| self.error(message))
    }

    fn message(&self, context: &RuleContext<'_>) -> Result<Cow<'_, str>, RuleError> {
        let text = match &self.message {
            Some(message) => {
                message.render(&self.variables(context)).map_err(|message| self.error(message))?
            }
            None => default_message(&self.name, context),
        };
        Ok(Cow::Owned(text))
    }
}
