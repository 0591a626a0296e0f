//! Codes and findings that no single check can see: set from what is known of a service over time.
//!
//! The check's own code is never lost: it stays in the evidence of the failure that replaces it.

use std::time::Duration;

use mcpmon_core::{
    Failure, FailureCode, Finding, FindingCode, Observation, Outcome, ServiceSpec, Timestamp,
};

use mcpmon_core::store::CheckRecord;

use crate::drift::Drift;
use crate::needs::Blocker;
use crate::usage::Usage;

/// Checks in a row that had to open the session again until the service is said to lose it.
const LOST_SESSIONS: u32 = 3;

/// What is remembered of one service for the sake of its codes.
#[derive(Debug, Default)]
pub(crate) struct Signs {
    pub(crate) drift: Drift,
    /// Only services with processes of ours have it.
    usage: Option<Box<Usage>>,
    lost_sessions: u32,
    /// Whether it ever let us in with the credentials it is given now.
    pub(crate) let_in: bool,
}

impl Signs {
    /// Names the failure of a check that is another, seen over time.
    pub(crate) fn amend(&mut self, spec: &ServiceSpec, observation: &mut Observation) {
        let reopened =
            observation.findings.iter().any(|found| found.code == FindingCode::SessionNotKept);
        match &observation.outcome {
            Outcome::Answered if reopened => {
                self.lost_sessions = self.lost_sessions.saturating_add(1);
            }
            Outcome::Answered => self.lost_sessions = 0,
            Outcome::Failed(_) => {}
        }
        match &mut observation.outcome {
            Outcome::Answered if reopened && self.lost_sessions >= LOST_SESSIONS => {
                let text = format!(
                    "it forgot the session between checks, {} times in a row",
                    self.lost_sessions
                );
                let lost =
                    Failure::new(FailureCode::SessionLost, mcpmon_core::Phase::Request, text);
                observation.outcome =
                    Outcome::Failed(lost.with("code", FindingCode::SessionNotKept.as_str()));
            }
            Outcome::Answered => self.let_in = true,
            Outcome::Failed(failure)
                if matches!(failure.code, FailureCode::Unauthorized | FailureCode::Forbidden)
                    && self.let_in
                    && has_credentials(spec) =>
            {
                let text = format!("credentials that worked do so no more: {}", failure.message);
                *failure = instead(failure, FailureCode::TokenExpired, text);
            }
            Outcome::Failed(_) => {}
        }
    }

    /// Takes in what a check saw of the service's processes.
    pub(crate) fn sample(&mut self, at: Timestamp, observation: &Observation) {
        if let Some(process) = observation.process {
            let usage = self.usage.get_or_insert_default();
            usage.sample(at, process, observation.restarted);
        }
    }

    /// Takes up a check that was stored before this monitor started.
    pub(crate) fn replay(&mut self, check: &CheckRecord) {
        self.let_in |= check.status.is_available();
        if let Some(process) = check.process {
            self.usage.get_or_insert_default().sample(check.at, process, check.restarted);
        }
    }

    /// What is to be told beside what the check itself found.
    pub(crate) fn findings(&mut self, now: Timestamp) -> impl Iterator<Item = Finding> {
        let drift = self.drift.finding(now);
        drift.into_iter().chain(self.usage.iter().flat_map(|usage| usage.findings()))
    }
}

/// Whether anything is sent that could stop being accepted.
fn has_credentials(spec: &ServiceSpec) -> bool {
    spec.secrets().next().is_some()
}

/// The failure under another code; what the check itself said stays in the evidence.
fn instead(failure: &Failure, code: FailureCode, message: impl Into<String>) -> Failure {
    let mut other = Failure::new(code, failure.phase, message);
    other.evidence.clone_from(&failure.evidence);
    other.with("code", failure.code.as_str())
}

/// Our own network is gone, and that is why.
pub(crate) fn offline(failure: &Failure) -> Failure {
    let text = "this machine's network is gone, or nothing far away can be reached";
    instead(failure, FailureCode::MonitorOffline, text)
}

/// The monitor was away while the check ran: what did not come in time may have come.
pub(crate) fn away(failure: &Failure) -> Failure {
    let text = "this machine slept, or mcpmon was kept from running, while the check ran";
    instead(failure, FailureCode::MonitorOverloaded, text)
}

/// It is down beside something it needs.
pub(crate) fn blocked(failure: &Failure, blocker: &Blocker) -> Failure {
    let Blocker { dependency, problem } = blocker;
    let text = format!("`{dependency}`, which it depends on, is down: {problem}");
    instead(failure, FailureCode::DependencyDown, text)
        .with("dependency", dependency.as_str())
        .with("message", failure.message.as_str())
        .advising(format!("repair `{dependency}` first"))
}

/// Whether this failure may come of the monitor having been away: a deadline passed meanwhile, or
/// a connection did not live through it.
pub(crate) fn is_of_absence(code: FailureCode) -> bool {
    code.is_timeout()
        || code.is_of_reach()
        || matches!(
            code,
            FailureCode::ConnectionReset
                | FailureCode::TruncatedResponse
                | FailureCode::StreamEnded
        )
}

/// It asked to be left alone for so long, and was.
pub(crate) fn waited(span: Duration) -> Finding {
    let text =
        format!("it asked to be left alone for {} and was", mcpmon_core::duration::format(span));
    Finding::new(FindingCode::RetryAfterObeyed, text)
        .with("retry_after_seconds", span.as_secs_f64())
}

#[cfg(test)]
mod tests {
    use super::*;
    use mcpmon_core::{Phase, Secret};

    fn spec(credentials: bool) -> ServiceSpec {
        let mut spec = ServiceSpec::http("a", "https://a.test/mcp");
        if credentials {
            spec.secrets.push(Secret::new("token"));
        }
        spec
    }

    /// Checks in turn (`.` good, `s` good with the session opened again, `u` 401, `f` 403, `x`
    /// refused) and the code of each, by its first letters.
    #[track_caller]
    fn check(credentials: bool, checks: &str, codes: &str) {
        let (spec, mut signs) = (spec(credentials), Signs::default());
        let seen: Vec<&str> = checks
            .chars()
            .map(|symbol| {
                let failed = |code| Observation::failed(Failure::new(code, Phase::Request, "no"));
                let mut seen = match symbol {
                    'u' => failed(FailureCode::Unauthorized),
                    'f' => failed(FailureCode::Forbidden),
                    'x' => failed(FailureCode::ConnectionRefused),
                    _ => Observation::answered(),
                };
                if symbol == 's' {
                    seen.findings.push(Finding::new(FindingCode::SessionNotKept, "again"));
                }
                signs.amend(&spec, &mut seen);
                seen.failure().map_or("-", |failure| failure.code.as_str())
            })
            .collect();
        assert_eq!(seen.join(" "), codes, "{checks}");
    }

    #[test]
    fn credentials_that_worked_and_do_so_no_more_have_expired() {
        check(true, "u.uf", "unauthorized - token_expired token_expired");
        check(false, ".uf", "- unauthorized forbidden");
        check(true, ".x.", "- connection_refused -");
    }

    #[test]
    fn a_session_lost_three_checks_running_is_a_failure_until_one_is_kept() {
        check(false, "sssss.s", "- - session_lost session_lost session_lost - -");
        check(false, "s.ss.s", "- - - - - -");
        check(false, "ssxs", "- - connection_refused session_lost");
    }

    #[test]
    fn the_checks_own_code_and_evidence_stay() {
        let own = Failure::new(FailureCode::ServerError, Phase::Request, "status 500")
            .with("http_status", 500);
        let blocker = Blocker { dependency: "db".to_owned(), problem: "refused".to_owned() };
        let told = blocked(&own, &blocker);
        assert_eq!(told.code, FailureCode::DependencyDown);
        assert_eq!(told.evidence["code"], "server_error");
        assert_eq!(told.evidence["http_status"], 500);
        assert_eq!(told.evidence["dependency"], "db");
        assert_eq!(told.phase, Phase::Request);
    }
}
