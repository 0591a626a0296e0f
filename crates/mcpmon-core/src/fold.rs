//! The state of one service, folded over its checks and its changes of status.
//!
//! A running monitor decides the status of a service from each observation
//! ([`ServiceFold::record`], [`ServiceFold::observe`]). Everything that reads the store afterwards takes the status from the
//! stored changes, since they were decided with limits the reader may not know, and counts the
//! stored checks ([`ServiceFold::apply_check`], [`ServiceFold::apply_change`]). Both count with the
//! same functions, so a number that the monitor put into an alert is the number that `status`, an
//! export and `rules test` show for that moment.
//!
//! Not every heartbeat is stored. [`ServiceFold::is_recorded`] decides which checks are, and only
//! those change the numbers: a heartbeat that is not stored repeats a good result and changes none.
//! A heartbeat that ends failures in a row, or that changes the status, is stored although its
//! result is that of the check before it: so it is once a crash-looping process has lived long
//! enough for its checks to count.
//!
//! In which order stored checks and changes count, [`StoredFold`] decides.

mod stored;

pub use stored::StoredFold;

use std::time::Duration;

use crate::check::CheckMeaning;
use crate::metrics::ServiceMetrics;
use crate::observation::{Observation, Question};
use crate::service::{ServiceLimits, ServiceName};
use crate::state::{ChangeOrigin, ServiceState, StatusChange};
use crate::status::Status;
use crate::store::{CheckRecord, ServiceFacts, StoredService};
use crate::time::Timestamp;
use crate::window::Window;

/// The state of one service and the window its numbers are taken from.
#[derive(Debug, Clone)]
pub struct ServiceFold {
    /// The status people see, its cause, and what is counted in a row.
    pub state: ServiceState,
    /// The recent past.
    pub window: Window,
    /// The raw status of the last check of the service itself.
    last_raw: Status,
}

impl ServiceFold {
    /// A service nobody has looked at, with a window that answers for spans up to `reach`.
    pub fn new(reach: Duration, now: Timestamp) -> Self {
        Self {
            state: ServiceState::new(now),
            window: Window::new(reach),
            last_raw: Status::Unknown,
        }
    }

    /// Takes up a service as the store last knew it: its status and its counters. The window stays
    /// empty; [`Self::refill_window`] fills it.
    pub fn restore(&mut self, stored: &StoredService) {
        let facts = &stored.facts;
        let state = &mut self.state;
        state.restore(stored.status, stored.since, stored.failure.clone());
        state.findings.clone_from(&stored.findings);
        state.seen = stored.last_check.is_some();
        state.available_since = facts.available_since.filter(|_| stored.status.is_available());
        self.restore_facts(facts);
        let failure = || stored.failure.as_ref().map(ToString::to_string);
        self.state.last_error = self.state.last_error.take().or_else(failure);
        if let Some(check) = &stored.last_check
            && check.meaning().is_of_service()
        {
            self.last_raw = check.status;
        }
    }

    fn restore_facts(&mut self, facts: &ServiceFacts) {
        let state = &mut self.state;
        state.restarts = facts.restarts;
        state.last_error.clone_from(&facts.last_error);
        state.consecutive_failures = facts.consecutive_failures;
        state.function.failures = facts.function_failures;
        self.window.note_tools(facts.tools_count, facts.tool_list_tokens);
    }

    /// Puts a check into the window that [`Self::restore`] counted already.
    pub fn refill_window(&mut self, check: &CheckRecord) {
        self.window.record(check.at, check.meaning(), check.latency);
        if check.meaning().is_of_service() {
            self.window.note_process(check.process);
        }
    }

    /// Takes in a stored check.
    ///
    /// The text of the last error is that of the stored change that has its code, else the code
    /// alone: a check is stored without its message.
    pub fn apply_check(&mut self, check: &CheckRecord) {
        let meaning = check.meaning();
        self.refill_window(check);
        self.state.count_check(meaning, check.unproven, check.restarted);
        if meaning.is_of_service() {
            self.last_raw = check.status;
        }
        if let Some(code) = check.code
            && (meaning.is_of_service() || meaning.status.is_failure())
        {
            let failure = self.state.failure.as_ref().filter(|failure| failure.code == code);
            let text = failure.map_or_else(|| code.to_string(), ToString::to_string);
            self.state.last_error = Some(text);
        }
    }

    /// Takes in a stored change of status.
    pub fn apply_change(&mut self, change: &StatusChange) {
        self.discount(&change.origin);
        self.state.apply_change(change);
        if let Some(failure) = change.failure.as_ref().filter(|_| change.origin.is_check()) {
            self.state.last_error = Some(failure.to_string());
        }
    }

    /// Attributes failed checks to the monitor where a change says that its network was lost.
    pub fn discount(&mut self, origin: &ChangeOrigin) {
        if let Some((since, until)) = origin.discounted() {
            self.window.discount(since, until);
        }
    }

    /// Whether a check is stored and counted: all but a heartbeat that repeats a good result and
    /// changes no counter. `unproven` is that of [`Self::observe`].
    pub fn is_recorded(
        &self,
        question: Question,
        observation: &Observation,
        unproven: bool,
    ) -> bool {
        let raw = observation.raw_status();
        question != Question::Heartbeat
            || raw.is_failure()
            || raw != self.last_raw
            || observation.restarted
            || (raw.is_available() && self.state.ends_failures(unproven))
    }

    /// Takes the numbers of a check that began at `at`, and returns whether the check is to be
    /// stored. Decides no status: [`Self::observe`] does, once findings that need these numbers
    /// were added to the observation. `unproven` is that of [`Self::observe`].
    pub fn record(
        &mut self,
        question: Question,
        observation: &Observation,
        unproven: bool,
        at: Timestamp,
    ) -> bool {
        let check = CheckMeaning::of_observation(question, observation);
        let is_recorded = self.is_recorded(question, observation, unproven);
        if is_recorded {
            self.record_numbers(question, observation, at);
        }
        if check.is_of_service() {
            self.last_raw = check.status;
        }
        self.window.note_connections(observation.active_connections);
        self.window.note_tools(observation.tools_count, observation.tool_list_tokens);
        is_recorded
    }

    /// Takes the numbers of a check into the window. A check that [`Self::record`] left out and that
    /// changed the status all the same is to be recorded by this, and stored: a reader learns from
    /// the check when the change was known.
    pub fn record_numbers(&mut self, question: Question, observation: &Observation, at: Timestamp) {
        let check = CheckMeaning::of_observation(question, observation);
        self.window.record(at, check, observation.latency);
        if check.is_of_service() {
            self.window.note_process(observation.process);
        }
    }

    /// Decides the status that follows from a check; returns the change, if there is one.
    /// `unproven` says that the service's process is not to be trusted yet.
    pub fn observe(
        &mut self,
        service: &ServiceName,
        (question, observation): (Question, &Observation),
        unproven: bool,
        limits: &ServiceLimits,
        at: Timestamp,
    ) -> Option<StatusChange> {
        self.state.unproven = unproven;
        self.state.observe(service, question, observation, limits, at)
    }

    /// The numbers of `service` over the last `span`, seen at `now`.
    pub fn metrics(&self, service: &ServiceName, span: Duration, now: Timestamp) -> ServiceMetrics {
        self.window.metrics(service, &self.state, span, now)
    }

    /// The wall clock was set back by `span`: everything keeps its age.
    pub fn set_back(&mut self, span: Duration) {
        self.window.set_back(span);
        self.state.set_back(span);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::failure::{Failure, FailureCode, Phase};
    use crate::window::DEFAULT_WINDOW;

    /// A monitor's fold, and the fold of a reader of what the monitor stored.
    struct Both {
        lived: ServiceFold,
        read: ServiceFold,
        now: Timestamp,
    }

    impl Both {
        fn new() -> Self {
            let fold = ServiceFold::new(DEFAULT_WINDOW, Timestamp::default());
            Self { lived: fold.clone(), read: fold, now: Timestamp::default() }
        }

        fn check(&mut self, question: Question, code: Option<FailureCode>, flags: (bool, bool)) {
            let (unproven, restarted) = flags;
            self.now = self.now.saturating_add(Duration::from_secs(5));
            let mut seen = match code {
                None => Observation::answered(),
                Some(code) => Observation::failed(Failure::new(code, Phase::Request, "no")),
            };
            seen.restarted = restarted;
            let service = ServiceName::from("s");
            let is_recorded = self.lived.record(question, &seen, unproven, self.now);
            let limits = ServiceLimits::default();
            let change =
                self.lived.observe(&service, (question, &seen), unproven, &limits, self.now);
            if change.is_some() && !is_recorded {
                self.lived.record_numbers(question, &seen, self.now);
            }
            if is_recorded || change.is_some() {
                let check = CheckRecord::new(service, self.now, question, &seen);
                self.read.apply_check(&CheckRecord { unproven, ..check });
            }
            if let Some(change) = change {
                self.read.apply_change(&change);
            }
        }

        fn interrupt(&mut self) {
            let origin = ChangeOrigin::Absent { noticed_at: self.now, slept_ms: 0 };
            let change = self.lived.state.interrupt(&"s".into(), None, self.now, origin);
            if let Some(change) = change {
                self.read.apply_change(&change);
            }
        }
    }

    /// What a rule may look at: status, failures in a row of checks and calls, restarts, checks.
    fn counters(fold: &ServiceFold) -> (Status, u32, u32, u64, u64) {
        let state = &fold.state;
        let metrics = fold.metrics(&"s".into(), DEFAULT_WINDOW, Timestamp::default());
        let failures = (state.consecutive_failures, state.function.failures);
        (state.status, failures.0, failures.1, state.restarts, metrics.total_checks)
    }

    proptest! {
        #[test]
        fn what_is_stored_of_checks_gives_the_counters_that_the_monitor_has(
            steps in proptest::collection::vec((0..10_u8, 0..4_u8, 0..8_u8), 1..60),
        ) {
            let mut both = Both::new();
            for (question, outcome, flags) in steps {
                let code = match outcome {
                    0 => Some(FailureCode::Exited),
                    1 => Some(FailureCode::SpawnFailed),
                    _ => None,
                };
                match question {
                    0 => both.interrupt(),
                    1 => {
                        let code = code.map(|_| FailureCode::FunctionalMismatch);
                        both.check(Question::Functional, code, (flags % 2 == 0, false));
                    }
                    2..=4 => both.check(Question::Health, code, (flags % 2 == 0, flags > 5)),
                    _ => both.check(Question::Heartbeat, code, (flags % 2 == 0, flags > 6)),
                }
                prop_assert_eq!(counters(&both.read), counters(&both.lived));
            }
        }
    }

    #[test]
    fn a_heartbeat_of_a_process_that_is_proven_now_ends_failures_in_a_row_for_a_reader_too() {
        let mut both = Both::new();
        let gone = Some(FailureCode::Exited);
        for (question, code, unproven) in [
            (Question::Health, None, false),
            (Question::Health, gone, true),
            (Question::Health, gone, true),
            (Question::Health, None, true),
            (Question::Heartbeat, None, true),
        ] {
            both.check(question, code, (unproven, false));
        }
        assert_eq!(both.lived.state.consecutive_failures, 2);
        both.check(Question::Heartbeat, None, (false, false));
        assert_eq!(both.lived.state.consecutive_failures, 0);
        assert_eq!(counters(&both.read), counters(&both.lived));
        both.check(Question::Health, gone, (true, false));
        assert_eq!(
            (both.lived.state.consecutive_failures, both.read.state.consecutive_failures),
            (1, 1)
        );
    }
}
