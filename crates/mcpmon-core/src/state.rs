//! From single checks to the status people see: a pure machine with hysteresis.
//!
//! One lost packet is not an outage and one lucky answer is not a recovery, so a service goes down
//! only after several failures in a row and comes back after several successes. What each check
//! saw is kept as it was; only the status waits.
//!
//! Two questions have an answer of their own: whether the service is well ([`ServiceState::observe`])
//! and whether its configured calls work ([`ServiceState::observe_function`]). Each has its own
//! failures in a row, so that a good answer to one never hides the other; people see the worse.

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
    /// What its health checks alone make of it: `status`, but for configured calls that fail.
    pub health: Status,
    /// Why its health checks fail, where they do.
    pub health_failure: Option<Failure>,
    /// What its configured calls came to.
    pub function: FunctionState,
    /// Its process is not to be trusted yet, because those before it died young: a good check
    /// neither ends failures in a row nor counts as one of the successes that bring it back.
    pub unproven: bool,
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

/// What the configured calls of a service came to.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct FunctionState {
    /// Rounds of calls in a row that failed.
    pub failures: u32,
    /// Rounds in a row that went well.
    pub successes: u32,
    /// Why they fail, once they have failed often enough to count.
    pub failure: Option<Failure>,
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
            health: Status::Unknown,
            health_failure: None,
            function: FunctionState::default(),
            unproven: false,
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

    /// Takes up what was stored of a service: its status, and what makes it so.
    pub fn restore(&mut self, status: Status, since: Timestamp, failure: Option<Failure>) {
        self.status = status;
        self.since = since;
        self.last_error = failure.as_ref().map(ToString::to_string);
        if failure.as_ref().is_some_and(|failure| failure.code.is_of_function()) {
            // Calls are made of a service that is well; how well, the next check says.
            self.health = Status::Running;
            self.function.failure.clone_from(&failure);
        } else {
            self.health = status;
            self.health_failure.clone_from(&failure);
        }
        self.failure = failure;
    }

    /// Takes in one check; says what changed, if anything did.
    pub fn observe(
        &mut self,
        service: &ServiceName,
        observation: &Observation,
        limits: &ServiceLimits,
        at: Timestamp,
    ) -> Option<StatusChange> {
        let before = self.shown();
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
                    self.health_failure = Some(failure.clone());
                }
            }
            None if next.is_available() => self.health_failure = None,
            None => {}
        }
        if observation.failure().is_none() {
            self.findings.clone_from(&observation.findings);
        }
        self.health = next;
        self.show(service, &before, at)
    }

    /// Takes in one round of configured calls; says what changed, if anything did.
    ///
    /// What is wrong with the service itself (it could not be reached) belongs to
    /// [`Self::observe`]. A round that was not made, by our own doing, counts for nothing.
    pub fn observe_function(
        &mut self,
        service: &ServiceName,
        observation: &Observation,
        limits: &ServiceLimits,
        at: Timestamp,
    ) -> Option<StatusChange> {
        let before = self.shown();
        let raw = observation.raw_status();
        if observation.restarted && self.seen {
            self.restarts += 1;
        }
        let function = &mut self.function;
        match observation.failure() {
            Some(failure) if crate::window::is_failed(raw) => {
                function.successes = 0;
                function.failures = function.failures.saturating_add(1);
                self.last_error = Some(failure.to_string());
                let enough = function.failures >= limits.max_consecutive_failures;
                if enough || function.failure.is_some() {
                    function.failure = Some(failure.clone());
                }
            }
            None => {
                function.failures = 0;
                function.successes = function.successes.saturating_add(1);
                if function.successes >= limits.max_consecutive_successes {
                    function.failure = None;
                }
            }
            Some(_) => {}
        }
        self.show(service, &before, at)
    }

    /// Nobody looked from `at` on, by our own doing: it is `unknown` until the next check says
    /// more. What was well has to fail as often as ever until it counts as down; what was down
    /// stays so if it fails once more.
    pub fn interrupt(
        &mut self,
        service: &ServiceName,
        cause: Option<Failure>,
        at: Timestamp,
    ) -> Option<StatusChange> {
        if self.health.is_available() {
            self.consecutive_failures = 0;
        }
        self.set(service, Status::Unknown, cause, at)
    }

    /// The wall clock was set back by `span`: it has had its status for as long as before.
    pub fn set_back(&mut self, span: std::time::Duration) {
        self.since = self.since.saturating_sub(span);
        self.available_since = self.available_since.map(|since| since.saturating_sub(span));
    }

    /// Failures in a row of what makes it what it is now: of its checks, or of its calls.
    pub fn failures_in_a_row(&self) -> u32 {
        match &self.function.failure {
            Some(_) if self.health.is_available() => self.function.failures,
            _ => self.consecutive_failures,
        }
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
        self.failure.clone_from(&failure);
        (self.health, self.health_failure) = (status, failure);
        if status == Status::Paused {
            (self.consecutive_failures, self.consecutive_successes) = (0, 0);
            self.function = FunctionState::default();
        }
        self.enter(status, at);
        Some(self.change(service, from, at))
    }

    /// Counts a raw result and says which status follows.
    fn count(&mut self, raw: Status, limits: &ServiceLimits) -> Status {
        let undecided = !self.seen
            || matches!(self.health, Status::Unknown | Status::Starting | Status::Paused);
        match raw {
            // Rate limiting is no failure: the service is there.
            Status::Running | Status::Degraded => {
                self.consecutive_unknowns = 0;
                if self.unproven && !undecided {
                    return if self.health.is_available() { raw } else { self.health };
                }
                self.consecutive_failures = 0;
                self.consecutive_successes = self.consecutive_successes.saturating_add(1);
                let enough = self.consecutive_successes >= limits.max_consecutive_successes;
                if undecided || enough || self.health.is_available() { raw } else { self.health }
            }
            Status::Unknown | Status::Starting | Status::Paused => {
                self.consecutive_unknowns = self.consecutive_unknowns.saturating_add(1);
                let enough = self.consecutive_unknowns >= limits.max_consecutive_failures;
                if undecided || enough { Status::Unknown } else { self.health }
            }
            Status::Stopped | Status::Error | Status::AuthRequired => {
                self.consecutive_successes = 0;
                self.consecutive_unknowns = 0;
                self.consecutive_failures = self.consecutive_failures.saturating_add(1);
                let enough = self.consecutive_failures >= limits.max_consecutive_failures;
                let failing = self.health.is_down() || self.health == Status::AuthRequired;
                if undecided || enough || failing { raw } else { self.health }
            }
        }
    }

    /// Makes what people see the worse of health and function.
    fn show(
        &mut self,
        service: &ServiceName,
        before: &Shown,
        at: Timestamp,
    ) -> Option<StatusChange> {
        let from = self.status;
        let (status, failure) = match &self.function.failure {
            Some(failure) if self.health.is_available() => (failure.code.status(), Some(failure)),
            _ => (self.health, self.health_failure.as_ref()),
        };
        self.failure = failure.cloned();
        self.enter(status, at);
        (*before != self.shown()).then(|| self.change(service, from, at))
    }

    fn shown(&self) -> Shown {
        (self.status, self.failure_code(), self.finding_codes())
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

/// What of a state is worth a [`StatusChange`] when it is another.
type Shown = (Status, Option<crate::failure::FailureCode>, Vec<crate::failure::FindingCode>);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::failure::{FailureCode, FindingCode, Phase};

    fn observation(symbol: char) -> Observation {
        let failed = |code| Observation::failed(Failure::new(code, Phase::Connect, "no"));
        match symbol {
            '.' | ',' => Observation::answered(),
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

    /// One check a second (`.` good, `,` good by an unproven process, `~` slow, `x` refused, `e` error, `a` auth, `l` limited, `?`
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
                state.unproven = symbol == ',';
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
    fn a_process_not_to_be_trusted_yet_neither_ends_failures_nor_brings_back() {
        check(".x,x,x,x", "rrrrrsss");
        check("xxx,,,,..", "ssssssssr");
        check(",", "r");
    }

    /// Checks as in [`check`], and rounds of calls (`+` well, `-` failed, `o` not made).
    #[track_caller]
    fn check_function(steps: &str, statuses: &str) {
        let service = ServiceName::from("s");
        let limits = ServiceLimits {
            max_consecutive_failures: 2,
            max_consecutive_successes: 2,
            ..ServiceLimits::default()
        };
        let failed = |code| Observation::failed(Failure::new(code, Phase::Call, "no"));
        let mut state = ServiceState::new(Timestamp::default());
        let seen: String = steps
            .chars()
            .enumerate()
            .map(|(second, symbol)| {
                let at = Timestamp::from_millis(second as i64 * 1_000);
                let round = match symbol {
                    '+' => Some(Observation::answered()),
                    '-' => Some(failed(FailureCode::FunctionalMismatch)),
                    'o' => Some(failed(FailureCode::FunctionalRefused)),
                    _ => None,
                };
                match round {
                    Some(round) => state.observe_function(&service, &round, &limits, at),
                    None => state.observe(&service, &observation(symbol), &limits, at),
                };
                state.status.as_str().chars().next().unwrap()
            })
            .collect();
        assert_eq!(seen, statuses, "{steps}");
    }

    #[test]
    fn good_health_does_not_hide_calls_that_fail() {
        check_function(".-.-...+.+", "rrreeeeeer");
        check_function(".-+-+-+", "rrrrrrr");
    }

    #[test]
    fn calls_that_were_not_made_say_nothing() {
        check_function(".ooo.-o-", "rrrrrrre");
    }

    #[test]
    fn what_cannot_be_reached_is_told_before_what_its_calls_came_to() {
        check_function(".--xx..", "rreesse");
    }

    #[test]
    fn after_a_gap_the_next_check_decides_and_alarms_wait_for_failures_in_a_row() {
        let service = ServiceName::from("s");
        let limits = ServiceLimits::default();
        let mut state = ServiceState::new(Timestamp::default());
        let at = Timestamp::from_millis;
        for (millis, symbol) in [(0, '.'), (1, 'x'), (2, 'x')] {
            state.observe(&service, &observation(symbol), &limits, at(millis));
        }
        let change = state.interrupt(&service, None, at(3)).unwrap();
        assert_eq!(
            (change.from, change.status, change.at),
            (Status::Running, Status::Unknown, at(3))
        );
        assert_eq!(state.interrupt(&service, None, at(4)), None);
        state.observe(&service, &observation('x'), &limits, at(5));
        assert_eq!((state.status, state.failures_in_a_row()), (Status::Stopped, 1));
        for millis in [6, 7] {
            state.observe(&service, &observation('x'), &limits, at(millis));
        }
        state.interrupt(&service, None, at(8));
        state.observe(&service, &observation('x'), &limits, at(9));
        assert_eq!((state.status, state.failures_in_a_row()), (Status::Stopped, 4));
    }

    #[test]
    fn what_was_stored_of_failing_calls_is_taken_up_as_that() {
        let service = ServiceName::from("s");
        let limits = ServiceLimits::default();
        let failure = Failure::new(FailureCode::FunctionalMismatch, Phase::Call, "no");
        let mut state = ServiceState::new(Timestamp::default());
        state.seen = true;
        state.restore(Status::Error, Timestamp::default(), Some(failure.clone()));
        assert_eq!(state.observe(&service, &observation('.'), &limits, Timestamp::default()), None);
        assert_eq!((state.status, state.failure), (Status::Error, Some(failure)));
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
