//! A rule that counts what it says, so that one that could never tell does not look content.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use mcpmon_alert::ConditionRule;
use mcpmon_core::rule::{Rule, RuleContext, RuleError, RulePolicy, Scope, Verdict};
use mcpmon_core::status::Level;

/// Why a rule could not tell is looked into so often.
const LOOKED_INTO: u64 = 1_000;

/// Names whose value comes of repairs, which are not replayed: never given up is what they would
/// say, and that is not known.
const OF_REPAIRS: [&str; 1] = ["repair_given_up"];

/// A rule of a configuration, and what it said.
#[derive(Debug)]
pub(super) struct Tallied {
    rule: Arc<ConditionRule>,
    is_of_repairs: bool,
    ok: AtomicU64,
    firing: AtomicU64,
    no_data: AtomicU64,
    failed: AtomicU64,
    /// Names that had no value when it could not tell.
    missing: Mutex<BTreeMap<&'static str, u64>>,
    error: Mutex<Option<String>>,
}

/// What a rule said, in numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Counts {
    pub(super) ok: u64,
    pub(super) firing: u64,
    pub(super) no_data: u64,
    pub(super) failed: u64,
}

impl Counts {
    pub(super) fn all(self) -> u64 {
        self.ok + self.firing + self.no_data + self.failed
    }
}

impl Tallied {
    pub(super) fn new(rule: Arc<ConditionRule>) -> Self {
        let zero = || AtomicU64::new(0);
        Self {
            is_of_repairs: rule.looks_at_any(&OF_REPAIRS),
            rule,
            ok: zero(),
            firing: zero(),
            no_data: zero(),
            failed: zero(),
            missing: Mutex::default(),
            error: Mutex::default(),
        }
    }

    pub(super) fn rule(&self) -> &ConditionRule {
        &self.rule
    }

    /// Whether it looks at what came of repairs, so that it cannot be judged here.
    pub(super) fn is_of_repairs(&self) -> bool {
        self.is_of_repairs
    }

    pub(super) fn counts(&self) -> Counts {
        let read = |count: &AtomicU64| count.load(Ordering::Relaxed);
        Counts {
            ok: read(&self.ok),
            firing: read(&self.firing),
            no_data: read(&self.no_data),
            failed: read(&self.failed),
        }
    }

    /// Why it could not tell, most frequent first.
    pub(super) fn missing(&self) -> Vec<&'static str> {
        let missing = self.missing.lock().unwrap_or_else(PoisonError::into_inner);
        let mut names: Vec<_> = missing.iter().map(|(name, count)| (*name, *count)).collect();
        names.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
        names.into_iter().map(|(name, _)| name).collect()
    }

    /// Why it failed, where it did.
    pub(super) fn error(&self) -> Option<String> {
        self.error.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Rule for Tallied {
    fn name(&self) -> &str {
        self.rule.name()
    }

    fn scope(&self) -> Scope {
        self.rule.scope()
    }

    fn level(&self, context: &RuleContext<'_>) -> Level {
        self.rule.level(context)
    }

    fn policy(&self) -> RulePolicy {
        self.rule.policy()
    }

    fn applies_to(&self, labels: &BTreeMap<String, String>) -> bool {
        self.rule.applies_to(labels)
    }

    fn evaluate(&self, context: &RuleContext<'_>) -> Result<Verdict, RuleError> {
        if self.is_of_repairs {
            self.no_data.fetch_add(1, Ordering::Relaxed);
            return Ok(Verdict::NoData);
        }
        let verdict = self.rule.evaluate(context);
        let count = match &verdict {
            Ok(Verdict::Ok) => &self.ok,
            Ok(Verdict::Firing) => &self.firing,
            Ok(Verdict::NoData) => &self.no_data,
            Err(error) => {
                let mut known = self.error.lock().unwrap_or_else(PoisonError::into_inner);
                known.get_or_insert_with(|| error.message.clone());
                &self.failed
            }
        };
        let before = count.fetch_add(1, Ordering::Relaxed);
        if verdict == Ok(Verdict::NoData) && before < LOOKED_INTO {
            let mut missing = self.missing.lock().unwrap_or_else(PoisonError::into_inner);
            for name in self.rule.without_value(context) {
                *missing.entry(name).or_default() += 1;
            }
        }
        verdict
    }

    fn message(&self, context: &RuleContext<'_>) -> Result<Cow<'_, str>, RuleError> {
        self.rule.message(context)
    }
}
