//! A panic in one probe, handler or rule is a defect of that one, and takes no other with it.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use mcpmon_core::rule::{RuleContext, RuleError, RulePolicy, Scope, Verdict};
use mcpmon_core::{Level, Rule};

/// Runs the future; `None` if it panicked. What it held may then be in any state and should be
/// thrown away.
pub(crate) async fn unpanicked<T>(future: BoxFuture<'_, T>) -> Option<T> {
    Unpanicked(future).await
}

/// What an `async fn` of a port gives.
pub(crate) type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

struct Unpanicked<'a, T>(BoxFuture<'a, T>);

impl<T> Future for Unpanicked<'_, T> {
    type Output = Option<T>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        match catch_unwind(AssertUnwindSafe(|| self.0.as_mut().poll(context))) {
            Ok(poll) => poll.map(Some),
            Err(_) => Poll::Ready(None),
        }
    }
}

/// A rule of somebody else's: its panic is an error of that rule, not the end of the loop.
#[derive(Debug)]
pub(crate) struct Guarded(pub(crate) Arc<dyn Rule>);

impl Guarded {
    fn try_to<T>(&self, work: impl FnOnce(&dyn Rule) -> T) -> Result<T, RuleError> {
        catch_unwind(AssertUnwindSafe(|| work(&*self.0))).map_err(|_| RuleError {
            rule: self.0.name().to_owned(),
            message: "the rule panicked; this is a defect of the rule".to_owned(),
        })
    }
}

impl Rule for Guarded {
    fn name(&self) -> &str {
        self.0.name()
    }

    fn scope(&self) -> Scope {
        self.0.scope()
    }

    fn level(&self, context: &RuleContext<'_>) -> Level {
        self.try_to(|rule| rule.level(context)).unwrap_or(Level::Warning)
    }

    fn policy(&self) -> RulePolicy {
        self.0.policy()
    }

    fn applies_to(&self, labels: &BTreeMap<String, String>) -> bool {
        self.try_to(|rule| rule.applies_to(labels)).unwrap_or(true)
    }

    fn evaluate(&self, context: &RuleContext<'_>) -> Result<Verdict, RuleError> {
        self.try_to(|rule| rule.evaluate(context))?
    }

    fn message(&self, context: &RuleContext<'_>) -> Result<Cow<'_, str>, RuleError> {
        self.try_to(|rule| rule.message(context).map(|text| Cow::Owned(text.into_owned())))?
    }
}
