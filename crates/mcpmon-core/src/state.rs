//! From single checks to the status people see: a pure machine with hysteresis.
//!
//! One lost packet is not an outage and one lucky answer is not a recovery, so a service goes down
//! only after several failures in a row and comes back after several successes. What each check
//! saw is kept as it was; only the status waits.

use serde::{Deserialize, Serialize};

use crate::failure::{Failure, Finding};
use crate::observation::Observation;
use crate::service::{ServiceLimits, ServiceName};
use crate::status::Status;
use crate::time::Timestamp;

/// A service's status and what leads to its next change.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ServiceState {
    /// The status people see.
    pub status: Status,
    /// Since when.
    pub since: Timestamp,
    /// Since when it is available; `None` while it is not.
    pub available_since: Option<Timestamp>,
    /// Failed checks in a row.
    pub consecutive_failures: u32,
    /// Good checks in a row.
    pub consecutive_successes: u32,
    /// Checks in a row that failed by our own doing.
    pub consecutive_unknowns: u32,
    /// The last check's failure, while that matters: cleared by a good check once it is back.
    pub failure: Option<Failure>,
    /// The last check's findings.
    pub findings: Vec<Finding>,
    /// Why it last failed, however long ago.
    pub last_error: Option<String>,
    /// How often its process was started again.
    pub restarts: u64,
    /// Whether any check was ever counted.
    pub seen: bool,
}

/// The moment a status, its cause or its findings changed, and to what.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StatusChange {
    /// The service.
    pub service: ServiceName,
    /// When.
    pub at: Timestamp,
    /// What it was.
    pub from: Status,
    /// What it is now.
    pub status: Status,
    /// Since when it has this status: earlier than `at` when only cause or findings changed.
    pub since: Timestamp,
    /// Why, where something is wrong.
    pub failure: Option<Failure>,
    /// What is odd.
    pub findings: Vec<Finding>,
}

impl ServiceState {
    /// A service nobody has looked at.
    pub fn new(now: Timestamp) -> Self {
        Self {
            status: Status::Unknown,
            since: now,
            available_since: None,
            consecutive_failures: 0,
            consecutive_successes: 0,
            consecutive_unknowns: 0,
            failure: None,
            findings: Vec::new(),
            last_error: None,
            restarts: 0,
            seen: false,
        }
    }

    /// Takes in one check; says what changed, if anything did.
    pub fn observe(
        &mut self,
        service: &ServiceName,
        observation: &Observation,
        limits: &ServiceLimits,
        at: Timestamp,
    ) -> Option<StatusChange> {
        let before = (self.status, self.failure_code(), self.finding_codes());
        let raw = observation.raw_status();
        let next = self.count(raw, limits);
        if observation.restarted && self.seen {
            self.restarts += 1;
        }
        if raw != Status::Unknown {
            self.seen = true;
        }
        match observation.failure() {
            Some(failure) => {
                self.last_error = Some(failure.to_string());
                // A single failed check of a running service is no reason to show a cause yet.
                if next == raw || next.is_down() {
                    self.failure = Some(failure.clone());
                }
            }
            None if next.is_available() => self.failure = None,
            None => {}
        }
        if observation.failure().is_none() {
            self.findings.clone_from(&observation.findings);
        }
        let from = self.status;
        self.enter(next, at);
        let after = (self.status, self.failure_code(), self.finding_codes());
        (before != after).then(|| self.change(service, from, at))
    }

    /// Sets a status that no check decides: `starting`, `paused`, or `unknown` by our own doing.
    pub fn set(
        &mut self,
        service: &ServiceName,
        status: Status,
        failure: Option<Failure>,
        at: Timestamp,
    ) -> Option<StatusChange> {
        let from = self.status;
        if from == status && self.failure == failure {
            return None;
        }
        self.failure = failure;
        if status == Status::Paused {
            (self.consecutive_failures, self.consecutive_successes) = (0, 0);
        }
        self.enter(status, at);
        Some(self.change(service, from, at))
    }

    /// Counts a raw result and says which status follows.
    fn count(&mut self, raw: Status, limits: &ServiceLimits) -> Status {
        let undecided = !self.seen
            || matches!(self.status, Status::Unknown | Status::Starting | Status::Paused);
        match raw {
            Status::Running => {
                self.consecutive_failures = 0;
                self.consecutive_unknowns = 0;
                self.consecutive_successes = self.consecutive_successes.saturating_add(1);
                let enough = self.consecutive_successes >= limits.max_consecutive_successes;
                if undecided || enough || self.status.is_available() { raw } else { self.status }
            }
            // Rate limiting is neither a failure nor a success: the service is there.
            Status::Degraded => {
                self.consecutive_failures = 0;
                self.consecutive_unknowns = 0;
                self.consecutive_successes = self.consecutive_successes.saturating_add(1);
                let enough = self.consecutive_successes >= limits.max_consecutive_successes;
                if undecided || enough || self.status.is_available() { raw } else { self.status }
            }
            Status::Unknown | Status::Starting | Status::Paused => {
                self.consecutive_unknowns = self.consecutive_unknowns.saturating_add(1);
                let enough = self.consecutive_unknowns >= limits.max_consecutive_failures;
                if undecided || enough { Status::Unknown } else { self.status }
            }
            Status::Stopped | Status::Error | Status::AuthRequired => {
                self.consecutive_successes = 0;
                self.consecutive_unknowns = 0;
                self.consecutive_failures = self.consecutive_failures.saturating_add(1);
                let enough = self.consecutive_failures >= limits.max_consecutive_failures;
                let failing = self.status.is_down() || self.status == Status::AuthRequired;
                if undecided || enough || failing { raw } else { self.status }
            }
        }
    }

    fn enter(&mut self, status: Status, at: Timestamp) {
        if status == self.status {
            return;
        }
        match (self.status.is_available(), status.is_available()) {
            (false, true) => self.available_since = Some(at),
            (_, false) => self.available_since = None,
            (true, true) => {}
        }
        self.status = status;
        self.since = at;
    }

    fn failure_code(&self) -> Option<crate::failure::FailureCode> {
        self.failure.as_ref().map(|failure| failure.code)
    }

    fn finding_codes(&self) -> Vec<crate::failure::FindingCode> {
        self.findings.iter().map(|finding| finding.code).collect()
    }

    fn change(&self, service: &ServiceName, from: Status, at: Timestamp) -> StatusChange {
        StatusChange {
            service: service.clone(),
            at,
            from,
            status: self.status,
            since: self.since,
            failure: self.failure.clone(),
            findings: self.findings.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::failure::{FailureCode, FindingCode, Phase};

    fn observation(symbol: char) -> Observation {
        let failed = |code| Observation::failed(Failure::new(code, Phase::Connect, "no"));
        match symbol {
            '.' => Observation::answered(),
            '~' => {
                let mut slow = Observation::answered();
                slow.findings.push(Finding::new(FindingCode::SlowResponse, "slow"));
                slow
            }
            'x' => failed(FailureCode::ConnectionRefused),
            'e' => failed(FailureCode::ServerError),
            'a' => failed(FailureCode::Unauthorized),
            'l' => failed(FailureCode::RateLimited),
            '?' => failed(FailureCode::SpawnFailed),
            other => panic!("{other} is no observation"),
        }
    }

    /// One check a second (`.` good, `~` slow, `x` refused, `e` error, `a` auth, `l` limited, `?`
    /// our fault) and the status after each, by its first letter (`u`nknown).
    #[track_caller]
    fn check(checks: &str, statuses: &str) {
        let service = ServiceName::from("s");
        let limits = ServiceLimits {
            max_consecutive_failures: 3,
            max_consecutive_successes: 2,
            ..ServiceLimits::default()
        };
        let mut state = ServiceState::new(Timestamp::default());
        let seen: String = checks
            .chars()
            .enumerate()
            .map(|(second, symbol)| {
                let at = Timestamp::from_millis(second as i64 * 1_000);
                state.observe(&service, &observation(symbol), &limits, at);
                state.status.as_str().chars().next().unwrap()
            })
            .collect();
        assert_eq!(seen, statuses, "{checks}");
    }

    #[test]
    fn the_first_result_sets_the_status_at_once() {
        check(".", "r");
        check("x", "s");
        check("a", "a");
        check("~", "d");
    }

    #[test]
    fn goes_down_after_three_failures_in_a_row() {
        check(".xx.xxx", "rrrrrrs");
    }

    #[test]
    fn comes_back_after_two_successes_in_a_row() {
        check("xxx.x..", "ssssssr");
    }

    #[test]
    fn a_down_service_shows_its_newest_cause_at_once() {
        check("xxe", "sse");
    }

    #[test]
    fn degraded_and_running_change_at_once() {
        check(".~.", "rdr");
    }

    #[test]
    fn rate_limiting_never_counts_as_down() {
        check(".llllll", "rdddddd");
    }

    #[test]
    fn our_own_fault_is_not_downtime_and_needs_as_many_in_a_row() {
        check(".??.???", "rrrrrru");
        check("?x", "us");
    }

    #[test]
    fn the_change_names_cause_and_since() {
        let service = ServiceName::from("s");
        let limits = ServiceLimits::default();
        let mut state = ServiceState::new(Timestamp::default());
        let at = Timestamp::from_millis(5);
        let change = state.observe(&service, &observation('x'), &limits, at).unwrap();
        assert_eq!((change.from, change.status), (Status::Unknown, Status::Stopped));
        assert_eq!(change.since, at);
        assert_eq!(change.failure.unwrap().code, FailureCode::ConnectionRefused);
        let later = Timestamp::from_millis(9);
        assert_eq!(state.observe(&service, &observation('x'), &limits, later), None);
        let change = state.observe(&service, &observation('e'), &limits, later).unwrap();
        assert_eq!(change.since, later);
    }
}
