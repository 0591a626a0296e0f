//! From single checks to the status people see: a pure machine with hysteresis.
//!
//! One lost packet is not an outage and one lucky answer is not a recovery, so a service goes down
//! only after several failures in a row and comes back after several successes. What each check
//! saw is kept as it was; only the status waits.
//!
//! Two questions have an answer of their own: whether the service is well, and whether its
//! configured calls work. Each has its own failures in a row, so that a good answer to one never
//! hides the other; people see the worse.

mod change;

use serde::{Deserialize, Serialize};

pub use self::change::{ChangeOrigin, StatusChange};
use crate::check::{CheckAspect, CheckMeaning};
use crate::failure::{Failure, FailureCode, Finding, FindingCode};
use crate::observation::{Observation, Question};
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
    /// When status, cause or findings last changed. A check may begin before that and end after
    /// it: its change is stored under this moment, so that changes are ordered by their moments.
    pub changed_at: Timestamp,
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

impl ServiceState {
    /// A service nobody has looked at.
    pub fn new(now: Timestamp) -> Self {
        Self {
            status: Status::Unknown,
            since: now,
            changed_at: now,
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

    /// Takes up a stored status and its cause; counters stay as they are.
    pub fn restore(&mut self, status: Status, since: Timestamp, failure: Option<Failure>) {
        self.status = status;
        self.since = since;
        self.changed_at = since;
        if failure.as_ref().is_some_and(|failure| failure.code.is_of_function()) {
            // Calls are made of a service that is well; the next check decides how well.
            self.health = Status::Running;
            self.health_failure = None;
            self.function.failure.clone_from(&failure);
        } else {
            self.health = status;
            self.health_failure.clone_from(&failure);
            if status.is_available() {
                self.function.failure = None;
            }
        }
        self.failure = failure;
    }

    /// Takes up a change of status as it was stored, and what it did to the counters.
    ///
    /// The counters of checks are not among them: [`Self::count_check`] counts those.
    pub fn apply_change(&mut self, change: &StatusChange) {
        let was_available = self.status.is_available();
        let available_since = self.available_since;
        match change.origin {
            ChangeOrigin::Absent { .. }
            | ChangeOrigin::NotRunning { .. }
            | ChangeOrigin::Offline { .. } => self.discount_failures(),
            ChangeOrigin::Schedule => self.reset_counters(change.status),
            ChangeOrigin::Started { .. } => {}
            // A check made it, so the service was seen, whether or not that check is stored.
            ChangeOrigin::Check => self.seen |= change.status.is_counted(),
        }
        self.restore(change.status, change.since, change.failure.clone());
        self.changed_at = change.at;
        self.findings.clone_from(&change.findings);
        self.available_since = match (was_available, change.status.is_available()) {
            (true, true) => available_since,
            (false, true) => Some(change.since),
            (_, false) => None,
        };
    }

    /// Counts one check: what is in a row, what was restarted. `unproven` says that the service's
    /// process is not to be trusted yet. Decides no status.
    pub fn count_check(&mut self, check: CheckMeaning, unproven: bool, restarted: bool) {
        self.unproven = unproven;
        match check.aspect {
            CheckAspect::Health => self.count_health(check.status),
            CheckAspect::Function => self.count_function(check.status),
            CheckAspect::Dependency => return,
        }
        if restarted && self.seen {
            self.restarts += 1;
        }
        // A round of calls is only made of a service that was seen.
        self.seen |= check.is_of_service() && check.status != Status::Unknown;
    }

    /// Takes in the answer to `question` and decides the status that follows; returns the change,
    /// if there is one.
    ///
    /// A round of configured calls decides [`Self::function`] alone; where it could not reach the
    /// service, it is a check of the service's health. A round that was not made because of the
    /// monitor's own fault counts for nothing.
    pub fn observe(
        &mut self,
        service: &ServiceName,
        question: Question,
        observation: &Observation,
        limits: &ServiceLimits,
        at: Timestamp,
    ) -> Option<StatusChange> {
        let before = self.shown();
        let check = CheckMeaning::of_observation(question, observation);
        let is_undecided = self.is_undecided();
        self.count_check(check, self.unproven, observation.restarted);
        if let Some(failure) = observation.failure()
            && (check.is_of_service() || check.status.is_failure())
        {
            self.last_error = Some(failure.to_string());
        }
        match check.aspect {
            CheckAspect::Health => {
                self.health = self.decide_health(check.status, is_undecided, limits);
                self.keep_health_failure(check.status, observation);
            }
            CheckAspect::Function => self.keep_function_failure(check.status, observation, limits),
            CheckAspect::Dependency => return None,
        }
        self.show(service, &before, at)
    }

    /// Keeps why its health checks fail. A single failed check of a running service is no reason
    /// to show a cause yet.
    fn keep_health_failure(&mut self, raw: Status, observation: &Observation) {
        match observation.failure() {
            Some(failure) if self.health == raw || self.health.is_down() => {
                self.health_failure = Some(failure.clone());
            }
            Some(_) => {}
            None => {
                if self.health.is_available() {
                    self.health_failure = None;
                }
                self.findings.clone_from(&observation.findings);
            }
        }
    }

    /// Keeps why its configured calls fail, once they have failed often enough.
    fn keep_function_failure(
        &mut self,
        raw: Status,
        observation: &Observation,
        limits: &ServiceLimits,
    ) {
        let function = &mut self.function;
        match observation.failure() {
            Some(failure) if raw.is_failure() => {
                let is_enough = function.failures >= limits.max_consecutive_failures;
                if is_enough || function.failure.is_some() {
                    function.failure = Some(failure.clone());
                }
            }
            None if function.successes >= limits.max_consecutive_successes => {
                function.failure = None;
            }
            Some(_) | None => {}
        }
    }

    /// The monitor did not watch from `at` on, for the reason in `origin`: the status is `unknown`
    /// until the next check. A service that was available has to fail as often as ever before it
    /// counts as down; one that was down stays down if it fails once more.
    ///
    /// A span in which nobody watched is a change although the status was `unknown` before: who
    /// reads the history has to know of it.
    pub fn interrupt(
        &mut self,
        service: &ServiceName,
        cause: Option<Failure>,
        at: Timestamp,
        origin: ChangeOrigin,
    ) -> Option<StatusChange> {
        self.discount_failures();
        let is_another_absence = matches!(origin, ChangeOrigin::Absent { .. })
            && self.status == Status::Unknown
            && self.failure == cause;
        if is_another_absence {
            let at = at.max(self.changed_at);
            return Some(StatusChange { origin, ..self.change(service, self.status, at) });
        }
        self.set(service, Status::Unknown, cause, at, origin)
    }

    /// A monitor started at `noticed_at`, and the status stays what it was: the record of that. The
    /// monitor before it ran until `ran_until`.
    pub fn note_start(
        &mut self,
        service: &ServiceName,
        ran_until: Timestamp,
        noticed_at: Timestamp,
    ) -> StatusChange {
        let at = ran_until.max(self.changed_at);
        let origin = ChangeOrigin::Started { noticed_at };
        StatusChange { origin, ..self.change(service, self.status, at) }
    }

    fn discount_failures(&mut self) {
        if self.health.is_available() {
            self.consecutive_failures = 0;
        }
    }

    /// The wall clock was set back by `span`: it has had its status for as long as before.
    pub fn set_back(&mut self, span: std::time::Duration) {
        self.since = self.since.saturating_sub(span);
        self.changed_at = self.changed_at.saturating_sub(span);
        self.available_since = self.available_since.map(|since| since.saturating_sub(span));
    }

    /// Failures in a row of what makes it what it is now: of its checks, or of its calls.
    pub fn failures_in_a_row(&self) -> u32 {
        match &self.function.failure {
            Some(_) if self.health.is_available() => self.function.failures,
            _ => self.consecutive_failures,
        }
    }

    /// Sets a status because checks of the service start or stop: `starting`, `paused`, or
    /// `unknown` where its entry cannot be used.
    pub fn schedule(
        &mut self,
        service: &ServiceName,
        status: Status,
        failure: Option<Failure>,
        at: Timestamp,
    ) -> Option<StatusChange> {
        if self.status == status && self.failure == failure {
            return None;
        }
        self.reset_counters(status);
        self.set(service, status, failure, at, ChangeOrigin::Schedule)
    }

    fn reset_counters(&mut self, status: Status) {
        if status == Status::Paused {
            (self.consecutive_failures, self.consecutive_successes) = (0, 0);
            self.function = FunctionState::default();
        }
    }

    fn set(
        &mut self,
        service: &ServiceName,
        status: Status,
        failure: Option<Failure>,
        at: Timestamp,
        origin: ChangeOrigin,
    ) -> Option<StatusChange> {
        let from = self.status;
        if from == status && self.failure == failure {
            return None;
        }
        let at = at.max(self.changed_at);
        self.failure.clone_from(&failure);
        (self.health, self.health_failure) = (status, failure);
        self.enter(status, at);
        Some(StatusChange { origin, ..self.change(service, from, at) })
    }

    /// Whether the next result decides the status at once.
    fn is_undecided(&self) -> bool {
        !self.seen || matches!(self.health, Status::Unknown | Status::Starting | Status::Paused)
    }

    /// Whether a good check counts, given whether the service's process is unproven.
    fn counts_good_check(&self, unproven: bool) -> bool {
        !unproven || self.is_undecided()
    }

    /// Whether a good check ends failures in a row, given whether the service's process is
    /// unproven.
    pub fn ends_failures(&self, unproven: bool) -> bool {
        self.consecutive_failures > 0 && self.counts_good_check(unproven)
    }

    fn count_health(&mut self, raw: Status) {
        match raw {
            Status::Running | Status::Degraded => {
                self.consecutive_unknowns = 0;
                if !self.counts_good_check(self.unproven) {
                    return;
                }
                self.consecutive_failures = 0;
                self.consecutive_successes = self.consecutive_successes.saturating_add(1);
            }
            Status::Unknown | Status::Starting | Status::Paused => {
                self.consecutive_unknowns = self.consecutive_unknowns.saturating_add(1);
            }
            Status::Stopped | Status::Error | Status::AuthRequired => {
                self.consecutive_successes = 0;
                self.consecutive_unknowns = 0;
                self.consecutive_failures = self.consecutive_failures.saturating_add(1);
            }
        }
    }

    fn count_function(&mut self, raw: Status) {
        let function = &mut self.function;
        if raw.is_failure() {
            function.successes = 0;
            function.failures = function.failures.saturating_add(1);
        } else if raw.is_available() {
            function.failures = 0;
            function.successes = function.successes.saturating_add(1);
        }
    }

    /// The status that follows from a raw result, with the counters as they now are.
    fn decide_health(&self, raw: Status, is_undecided: bool, limits: &ServiceLimits) -> Status {
        let is_settled = match raw {
            // Rate limiting is no failure: the service is there.
            Status::Running | Status::Degraded => {
                let is_enough = self.consecutive_successes >= limits.max_consecutive_successes;
                self.health.is_available() || (is_enough && !self.unproven)
            }
            Status::Unknown | Status::Starting | Status::Paused => {
                let is_enough = self.consecutive_unknowns >= limits.max_consecutive_failures;
                return if is_undecided || is_enough { Status::Unknown } else { self.health };
            }
            Status::Stopped | Status::Error | Status::AuthRequired => {
                let is_enough = self.consecutive_failures >= limits.max_consecutive_failures;
                is_enough || self.health.is_failure()
            }
        };
        if is_undecided || is_settled { raw } else { self.health }
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
        let at = at.max(self.changed_at);
        self.enter(status, at);
        (*before != self.shown()).then(|| self.change(service, from, at))
    }

    fn shown(&self) -> Shown {
        let occasion = |finding: &Finding| finding.changed_at().map(str::to_owned);
        let findings = self.findings.iter().map(|finding| (finding.code, occasion(finding)));
        (self.status, self.failure.as_ref().map(|failure| failure.code), findings.collect())
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

    fn change(&mut self, service: &ServiceName, from: Status, at: Timestamp) -> StatusChange {
        self.changed_at = at;
        StatusChange {
            service: service.clone(),
            at,
            from,
            status: self.status,
            since: self.since,
            failure: self.failure.clone(),
            findings: self.findings.clone(),
            origin: ChangeOrigin::Check,
        }
    }
}

/// What of a state is worth a [`StatusChange`] when it is another: of a finding its code, and which
/// change it is about.
type Shown = (Status, Option<FailureCode>, Vec<(FindingCode, Option<String>)>);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::failure::{FailureCode, FindingCode, Phase};

    const GAP: ChangeOrigin =
        ChangeOrigin::Absent { noticed_at: Timestamp::from_millis(9), slept_ms: 0 };

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
                state.observe(&service, Question::Health, &observation(symbol), &limits, at);
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
                    Some(round) => {
                        state.observe(&service, Question::Functional, &round, &limits, at)
                    }
                    None => {
                        state.observe(&service, Question::Health, &observation(symbol), &limits, at)
                    }
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
            state.observe(&service, Question::Health, &observation(symbol), &limits, at(millis));
        }
        let change = state.interrupt(&service, None, at(3), GAP).unwrap();
        assert_eq!(
            (change.from, change.status, change.at),
            (Status::Running, Status::Unknown, at(3))
        );
        let again = state.interrupt(&service, None, at(4), GAP).unwrap();
        assert_eq!(
            (again.from, again.status, again.at, again.since, again.origin),
            (Status::Unknown, Status::Unknown, at(4), at(3), GAP)
        );
        state.observe(&service, Question::Health, &observation('x'), &limits, at(5));
        assert_eq!((state.status, state.failures_in_a_row()), (Status::Stopped, 1));
        for millis in [6, 7] {
            state.observe(&service, Question::Health, &observation('x'), &limits, at(millis));
        }
        state.interrupt(&service, None, at(8), GAP);
        state.observe(&service, Question::Health, &observation('x'), &limits, at(9));
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
        assert_eq!(
            state.observe(
                &service,
                Question::Health,
                &observation('.'),
                &limits,
                Timestamp::default()
            ),
            None
        );
        assert_eq!((state.status, state.failure), (Status::Error, Some(failure)));
    }

    #[test]
    fn the_change_names_cause_and_since() {
        let service = ServiceName::from("s");
        let limits = ServiceLimits::default();
        let mut state = ServiceState::new(Timestamp::default());
        let at = Timestamp::from_millis(5);
        let change =
            state.observe(&service, Question::Health, &observation('x'), &limits, at).unwrap();
        assert_eq!((change.from, change.status), (Status::Unknown, Status::Stopped));
        assert_eq!(change.since, at);
        assert_eq!(change.failure.unwrap().code, FailureCode::ConnectionRefused);
        let later = Timestamp::from_millis(9);
        assert_eq!(
            state.observe(&service, Question::Health, &observation('x'), &limits, later),
            None
        );
        let change =
            state.observe(&service, Question::Health, &observation('e'), &limits, later).unwrap();
        assert_eq!(change.since, later);
    }
}
