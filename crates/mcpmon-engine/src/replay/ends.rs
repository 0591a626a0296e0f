//! Up to when anything is known.
//!
//! A check vouches for its service a while longer; a sample of the machine says nothing of what
//! comes after it. Past that nobody looked: whatever was so then may have ended or not.

use std::collections::HashMap;

use mcpmon_core::service::ServiceName;
use mcpmon_core::store::StoredService;
use mcpmon_core::{Subject, Timestamp};

use super::LONGEST_SILENCE;

/// The ends of all that was stored.
#[derive(Debug, Default)]
pub(super) struct Ends {
    services: HashMap<ServiceName, Timestamp>,
    /// When the machine was last measured, if it ever was.
    pub(super) host: Option<Timestamp>,
}

impl Ends {
    /// From what is stored of each service, and the machine's last sample.
    pub(super) fn of(stored: &[StoredService], host: Option<Timestamp>) -> Self {
        let monitor_ran_until = stored.iter().map(last_known).chain(host).max();
        let end = |stored: &StoredService| {
            let last = last_known(stored);
            let vouched = last.saturating_add(stored.facts.reach());
            let fails = stored.last_check.as_ref().is_some_and(|check| check.status.is_failure());
            // One that fails is asked less often than its interval says while a monitor runs.
            let left_alone = monitor_ran_until
                .filter(|_| fails)
                .map(|until| until.min(last.saturating_add(LONGEST_SILENCE)));
            left_alone.map_or(vouched, |until| until.max(vouched))
        };
        let services = stored.iter().map(|one| (one.facts.service.clone(), end(one))).collect();
        Self { services, host }
    }

    /// Whether nothing is known of a service at that moment, nor later.
    pub(super) fn has_ended(&self, service: &ServiceName, now: Timestamp) -> bool {
        self.services.get(service).is_some_and(|end| *end < now)
    }

    /// The end of what is known of a subject; `None` where nothing of it is stored.
    pub(super) fn of_subject(&self, subject: &Subject) -> Option<Timestamp> {
        match subject.service() {
            Some(service) => self.services.get(service).copied(),
            None => self.host.filter(|_| *subject == Subject::Host),
        }
    }
}

/// When a service's last check was over, or since when it is what it is.
fn last_known(stored: &StoredService) -> Timestamp {
    let check = stored.last_check.as_ref();
    check.map_or(stored.since, |check| check.at.saturating_add(check.total))
}
