//! The configured calls of a service, one after the other on its session.
//!
//! A call needs the tool as it was listed last (is it there, is it read-only, what does it promise
//! to give), so the lists are read first where this session has not read them. Of the tools only
//! those that are configured are kept.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use mcpmon_core::failure::{Failure, FailureCode, Phase};
use mcpmon_core::observation::{CallObservation, Lists, Phases};
use mcpmon_core::service::{FunctionalCheck, ServiceSpec};
use mcpmon_mcp::error::{redact_failure, told};
use mcpmon_mcp::{ListedTool, Session, SessionOptions};
use tokio::task::spawn_blocking;
use tokio::time::Instant;

use crate::functional::{judge, no_result, refusal};

/// The tools of the last list that are configured to be called, by name.
pub(super) type Callable = BTreeMap<String, Arc<ListedTool>>;

/// Picks them out. Of several tools with one name the first counts, as it does for most clients.
pub(super) fn callable(spec: &ServiceSpec, lists: &Lists) -> Callable {
    let mut callable = Callable::new();
    for tool in &lists.tools {
        if spec.functional.iter().any(|check| check.tool == tool.name) {
            callable.entry(tool.name.clone()).or_insert_with(|| Arc::new(ListedTool::read(tool)));
        }
    }
    callable
}

/// Makes every configured call in order, each within `call_timeout`, and gives how each went. When
/// the session ends on the way, what comes after is not called.
pub(super) async fn make(
    spec: &ServiceSpec,
    options: &SessionOptions,
    tools: &Callable,
    session: &mut Session,
    deadline: Instant,
) -> Vec<CallObservation> {
    let mut calls = Vec::with_capacity(spec.functional.len());
    for check in &spec.functional {
        if session.has_ended() {
            break;
        }
        let tool = tools.get(&check.tool);
        let (duration, mut failure) = match (refusal(check, tool.map(Arc::as_ref)), tool) {
            (None, Some(tool)) => {
                let limit = Instant::now() + spec.limits.call_timeout;
                make_one(check, tool, options, session, limit.min(deadline)).await
            }
            (refused, _) => (Duration::ZERO, refused),
        };
        if let Some(failure) = &mut failure {
            redact_failure(failure, &options.redactor);
        }
        calls.push(CallObservation { tool: check.tool.clone(), duration, failure });
    }
    calls
}

async fn make_one(
    check: &FunctionalCheck,
    tool: &Arc<ListedTool>,
    options: &SessionOptions,
    session: &mut Session,
    deadline: Instant,
) -> (Duration, Option<Failure>) {
    let started = Instant::now();
    if started >= deadline {
        let text = format!("the check's time was over before `{}` was called", check.tool);
        let failure = Failure::new(FailureCode::MonitorOverloaded, Phase::Call, text);
        return (Duration::ZERO, Some(failure));
    }
    // What a new connection took belongs to no phase of the check.
    let mut phases = Phases::default();
    let called = match session.call_tool(tool, &check.arguments, &mut phases, deadline).await {
        Ok(called) => called,
        Err(error) => {
            let waited = started.elapsed();
            return (waited, Some(no_result(check, error, waited)));
        }
    };
    let duration = called.latency;
    let (check, tool, redactor) = (check.clone(), Arc::clone(tool), options.redactor.clone());
    let name = check.tool.clone();
    // A large result, or a schema made to be slow, must not hold up other services.
    let judged =
        spawn_blocking(move || judge(&check, &tool, &called, &|text| told(text, &redactor)));
    let failure = judged.await.unwrap_or_else(|_| {
        let text = format!("the result of `{name}` could not be judged by a mistake in mcpmon");
        Some(Failure::new(FailureCode::MonitorOverloaded, Phase::Call, text))
    });
    (duration, failure)
}

/// Why the check as a whole failed: the first call that did.
pub(super) fn first_failure(calls: &[CallObservation]) -> Option<Failure> {
    calls.iter().find_map(|call| call.failure.clone())
}
