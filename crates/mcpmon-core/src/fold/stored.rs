//! The stored history of one service, folded in the order in which the monitor took it in.
//!
//! A check is stored under the moment it began, and the monitor takes it in when it has ended. A
//! change is stored under the moment from which on it holds, and the monitor takes it in when it
//! notices: the network was lost before that became known, and a monitor that did not run notices
//! that at its next start. A reader that orders records by the stored moments alone counts failed
//! checks after the change that discounts them.

use std::collections::VecDeque;
use std::time::Duration;

use super::ServiceFold;
use crate::failure::FailureCode;
use crate::state::{ChangeOrigin, StatusChange};
use crate::store::CheckRecord;
use crate::time::Timestamp;

/// Whether the monitor took in a change before the result of a check of the same service.
///
/// A change that this check or a later one made comes after it.
fn is_before_result(change: &StatusChange, check: &CheckRecord) -> bool {
    let ended = check.at.saturating_add(check.total);
    match change.origin {
        ChangeOrigin::Check => change.at < check.at,
        ChangeOrigin::Schedule => change.at <= ended,
        // The monitor notices an absence before it takes in what came meanwhile. The duration of a
        // check does not contain the time for which the machine slept.
        ChangeOrigin::Absent { noticed_at, .. } => change.at < ended || noticed_at <= ended,
        ChangeOrigin::NotRunning { noticed_at, .. } | ChangeOrigin::Started { noticed_at } => {
            noticed_at <= ended
        }
        // The check that shows that the network is gone is attributed to the monitor already. The
        // monitor notices up to a few milliseconds after that check has ended.
        ChangeOrigin::Offline { noticed_at, .. } => {
            let is_attributed = check.code == Some(FailureCode::MonitorOffline);
            noticed_at <= ended || (is_attributed && change.at <= ended)
        }
    }
}

/// A [`ServiceFold`] that is fed the stored checks and changes of one service.
///
/// Changes are given as they are stored, at the latest before the first check that ends after their
/// `at`. They wait here until the monitor had noticed them.
#[derive(Debug, Clone)]
pub struct StoredFold {
    /// The service as far as it was folded.
    pub fold: ServiceFold,
    pending: VecDeque<StatusChange>,
    /// Whether a change was applied: the status is that of the last check until then.
    has_change: bool,
}

impl StoredFold {
    /// A service of which nothing is known yet, with a window that answers for spans up to `reach`.
    pub fn new(reach: Duration) -> Self {
        Self {
            fold: ServiceFold::new(reach, Timestamp::default()),
            pending: VecDeque::new(),
            has_change: false,
        }
    }

    /// Takes up a change. `next_check` is the earliest moment at which a check that was not given
    /// yet can have begun: what was noticed before it is applied at once, so that changes of a
    /// service without checks do not pile up.
    pub fn add_change(&mut self, change: StatusChange, next_check: Timestamp) {
        self.pending.push_back(change);
        self.apply_changes(|change| change.noticed_at() < next_check);
    }

    /// Takes in a check: after the changes that the monitor noticed before it ended, and before the
    /// change that it made.
    pub fn apply_check(&mut self, check: &CheckRecord) {
        self.apply_changes(|change| is_before_result(change, check));
        if !self.has_change {
            self.assume_status(check);
        }
        self.fold.apply_check(check);
        let ended = check.at.saturating_add(check.total);
        self.apply_changes(|change| change.origin.is_check() && change.at <= ended);
    }

    /// Applies changes up to the last one that is due. Changes of one service are stored in the
    /// order in which the monitor noticed them, so what is stored before that one is due as well,
    /// also where the clock was set back after it was noticed.
    fn apply_changes(&mut self, is_due: impl Fn(&StatusChange) -> bool) {
        let due = self.pending.iter().rposition(is_due).map_or(0, |last| last + 1);
        for change in self.pending.drain(..due) {
            self.has_change = true;
            self.fold.apply_change(&change);
        }
    }

    /// The status of a service whose changes were pruned is that of its check.
    fn assume_status(&mut self, check: &CheckRecord) {
        let state = &mut self.fold.state;
        match (state.status.is_available(), check.status.is_available()) {
            (false, true) => state.available_since = Some(check.at),
            (_, false) => state.available_since = None,
            (true, true) => {}
        }
        (state.status, state.health) = (check.status, check.status);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::observation::{Phases, Question};
    use crate::status::Status;

    fn at(second: u64) -> Timestamp {
        Timestamp::from_millis(second as i64 * 1_000)
    }

    /// A check that began at a second and took so many.
    fn check(second: u64, seconds: u64, code: Option<FailureCode>) -> CheckRecord {
        CheckRecord {
            service: "files".into(),
            at: at(second),
            question: Question::Health,
            status: code.map_or(Status::Running, |code| code.status()),
            code,
            latency: None,
            total: Duration::from_secs(seconds),
            phases: Phases::default(),
            restarted: false,
            unproven: false,
            process: None,
        }
    }

    fn change(second: u64, status: Status, origin: ChangeOrigin) -> StatusChange {
        StatusChange {
            service: "files".into(),
            at: at(second),
            from: Status::Unknown,
            status,
            since: at(second),
            failure: None,
            findings: Vec::new(),
            origin,
        }
    }

    const REFUSED: Option<FailureCode> = Some(FailureCode::ConnectionRefused);
    const OFFLINE: Option<FailureCode> = Some(FailureCode::MonitorOffline);

    #[test]
    fn a_change_is_taken_in_when_the_monitor_noticed_it() {
        let offline = ChangeOrigin::Offline { failed_since: at(10), noticed_at: at(40) };
        let not_running = ChangeOrigin::NotRunning { noticed_at: at(40), ran_until: at(0) };
        let slept = ChangeOrigin::Absent { noticed_at: at(40), slept_ms: 25_000 };
        let is_back = ChangeOrigin::Absent { noticed_at: at(10), slept_ms: 0 };
        for (origin, began, seconds, code, expected) in [
            (offline, 10, 1, REFUSED, false),
            (offline, 30, 1, REFUSED, false),
            (offline, 30, 1, OFFLINE, true),
            (offline, 39, 1, None, true),
            (offline, 5, 1, OFFLINE, false),
            (not_running, 10, 1, None, false),
            (not_running, 40, 1, None, true),
            // Ended before the machine slept; began before that; began after it.
            (slept, 9, 1, None, false),
            (slept, 9, 2, None, true),
            (slept, 41, 1, None, true),
            (is_back, 9, 0, None, false),
            (is_back, 9, 1, None, true),
            (ChangeOrigin::Schedule, 9, 2, None, true),
            (ChangeOrigin::Schedule, 8, 1, None, false),
            (ChangeOrigin::Check, 10, 1, None, false),
            (ChangeOrigin::Check, 9, 2, None, false),
            (ChangeOrigin::Check, 11, 1, None, true),
        ] {
            let change = change(10, Status::Unknown, origin);
            let check = check(began, seconds, code);
            assert_eq!(is_before_result(&change, &check), expected, "{origin:?}, {check:?}");
        }
    }

    /// Checks of a service that was well before, and what its last change is; then its status and
    /// its failures in a row after each check.
    #[track_caller]
    fn fold(change: StatusChange, checks: &[(u64, Option<FailureCode>)]) -> Vec<(Status, u32)> {
        let mut stored = StoredFold::new(Duration::from_secs(300));
        let up = self::change(0, Status::Running, ChangeOrigin::Check);
        stored.add_change(up, at(0));
        stored.apply_check(&check(0, 1, None));
        stored.add_change(change, at(1));
        let states = checks.iter().map(|(second, code)| {
            stored.apply_check(&check(*second, 1, *code));
            (stored.fold.state.status, stored.fold.state.consecutive_failures)
        });
        states.collect()
    }

    #[test]
    fn failed_checks_are_counted_before_the_change_that_discounts_them() {
        let offline = ChangeOrigin::Offline { failed_since: at(10), noticed_at: at(40) };
        let lost = change(10, Status::Unknown, offline);
        let found = fold(lost, &[(10, REFUSED), (20, REFUSED), (39, OFFLINE), (50, OFFLINE)]);
        let (running, unknown) = (Status::Running, Status::Unknown);
        assert_eq!(found, [(running, 1), (running, 2), (unknown, 0), (unknown, 0)]);
    }

    #[test]
    fn a_stop_of_the_monitor_is_after_the_check_it_is_stored_under() {
        let stopped = ChangeOrigin::NotRunning { noticed_at: at(500), ran_until: at(0) };
        let found = fold(change(10, Status::Unknown, stopped), &[(10, REFUSED), (500, REFUSED)]);
        assert_eq!(found, [(Status::Running, 1), (Status::Unknown, 1)]);
    }

    #[test]
    fn a_change_noticed_by_a_clock_that_was_set_back_holds_up_no_later_one() {
        let mut stored = StoredFold::new(Duration::from_secs(300));
        let ahead = ChangeOrigin::NotRunning { noticed_at: at(90_000), ran_until: at(0) };
        stored.add_change(change(10, Status::Unknown, ahead), at(0));
        stored.add_change(change(20, Status::Running, ChangeOrigin::Check), at(0));
        stored.apply_check(&check(20, 1, None));
        assert_eq!(stored.fold.state.status, Status::Running);
        stored.add_change(change(30, Status::Unknown, ahead), at(30));
        stored.add_change(change(40, Status::Paused, ChangeOrigin::Schedule), at(41));
        assert_eq!(stored.fold.state.status, Status::Paused);
        assert!(stored.pending.is_empty());
    }
}
