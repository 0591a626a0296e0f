//! What one check counts as: a pure function of its question, its raw status and its failure code.
//!
//! A round of configured calls ([`Question::Functional`]) is an answer about the service's tools,
//! not about the service: beside good health, a call that always fails would otherwise read as an
//! error rate of one half and as flapping. It counts towards
//! [`FunctionState`](crate::state::FunctionState) alone. Where such a round could not reach the
//! service at all, it is a failed check of the service like any other.
//!
//! Windows, summaries, rollups, baselines, history, status and export count by this module; nothing
//! else decides it.

use crate::failure::FailureCode;
use crate::observation::{Observation, Question};
use crate::status::Status;

/// What a check is an answer about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum CheckAspect {
    /// Whether the service can be reached and answers rightly.
    Health,
    /// Whether its configured calls work.
    Function,
    /// What the service depends on; never a result of the service's own.
    Dependency,
}

/// What one check counts as.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct CheckMeaning {
    /// What it is an answer about.
    pub aspect: CheckAspect,
    /// Its raw status, before any hysteresis.
    pub status: Status,
}

impl CheckMeaning {
    /// The meaning of a stored check.
    pub fn of(question: Question, status: Status, code: Option<FailureCode>) -> Self {
        let aspect = match question {
            Question::Dependency => CheckAspect::Dependency,
            Question::Functional if code.is_none_or(FailureCode::is_of_function) => {
                CheckAspect::Function
            }
            _ => CheckAspect::Health,
        };
        Self { aspect, status }
    }

    /// The meaning of an observation that answers `question`.
    pub fn of_observation(question: Question, observation: &Observation) -> Self {
        let code = observation.failure().map(|failure| failure.code);
        Self::of(question, observation.raw_status(), code)
    }

    /// A health check with this raw status.
    pub const fn health(status: Status) -> Self {
        Self { aspect: CheckAspect::Health, status }
    }

    /// Whether it is an answer about the service itself.
    pub fn is_of_service(self) -> bool {
        self.aspect == CheckAspect::Health
    }

    /// Whether it is one of the checks that `total_checks` counts: an answer about the service that
    /// the monitor's own faults did not spoil.
    pub fn is_counted(self) -> bool {
        self.is_of_service() && (self.status.is_failure() || self.status.is_available())
    }

    /// Whether it is one of the checks that `failed_checks` counts.
    pub fn is_failed(self) -> bool {
        self.is_of_service() && self.status.is_failure()
    }

    /// Whether it found the service available.
    pub fn is_available(self) -> bool {
        self.is_of_service() && self.status.is_available()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A question, a code (`None` is a good check), and what the check counts as: `c`ounted,
    /// `f`ailed as well, `-` neither.
    #[track_caller]
    fn check(question: Question, code: Option<FailureCode>, counts: &str) {
        let status = code.map_or(Status::Running, FailureCode::status);
        let meaning = CheckMeaning::of(question, status, code);
        let seen = match (meaning.is_counted(), meaning.is_failed()) {
            (true, true) => "cf",
            (true, false) => "c",
            (false, _) => "-",
        };
        assert_eq!(seen, counts, "{question:?} {code:?}");
    }

    #[test]
    fn checks_of_the_service_count_and_its_calls_do_not() {
        for question in [Question::Heartbeat, Question::Health, Question::List] {
            check(question, None, "c");
            check(question, Some(FailureCode::ConnectionRefused), "cf");
            check(question, Some(FailureCode::Unauthorized), "cf");
            check(question, Some(FailureCode::RateLimited), "c");
            check(question, Some(FailureCode::MonitorOffline), "-");
        }
        check(Question::Functional, None, "-");
        check(Question::Functional, Some(FailureCode::FunctionalMismatch), "-");
        check(Question::Functional, Some(FailureCode::ConnectionRefused), "cf");
        check(Question::Functional, Some(FailureCode::MonitorOffline), "-");
        check(Question::Dependency, None, "-");
    }
}
