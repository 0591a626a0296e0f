//! Maintenance windows: a service in one is `paused` and not asked, so that planned work is neither
//! an outage nor an alert. What fired before stays open until a check after it says more; what
//! depends on it raises no alert meanwhile, since planned work on what one needs is no outage
//! either.
//!
//! Windows are looked at when one of them begins or ends, when they or the services change, and
//! when the clock does: a service costs nothing between two edges.

use std::collections::BTreeMap;
use std::sync::Arc;

use mcpmon_core::calendar::Maintenance;
use mcpmon_core::service::ServiceSpec;
use mcpmon_core::settings::Settings;
use mcpmon_core::{ServiceName, Timestamp};

use crate::run::Engine;
use crate::schedule::Schedule;
use crate::world::Watched;

/// The windows of a configuration, and when they want to be looked at.
#[derive(Debug, Default)]
pub(crate) struct Windows {
    all: Vec<Maintenance>,
    looked: Option<Looked>,
}

#[derive(Debug, Clone, Copy)]
struct Looked {
    at: Timestamp,
    next_edge: Option<Timestamp>,
}

impl Windows {
    /// Those that can be read; the configuration's reader has told of the others.
    pub(crate) fn new(settings: &Settings) -> Self {
        let read = settings.maintenance.iter().filter_map(|window| {
            let read = Maintenance::read(window);
            if let Err(error) = &read {
                tracing::warn!(%error, "Maintenance window cannot be used");
            }
            read.ok()
        });
        Self { all: read.collect(), looked: None }
    }

    pub(crate) fn holds(&self, service: &ServiceSpec, now: Timestamp) -> bool {
        self.all.iter().any(|window| window.until(service, now).is_some())
    }

    /// Services, or what is known of them, changed.
    pub(crate) fn look_again(&mut self) {
        self.looked = None;
    }

    /// The services for which a window begins or ends, and whether one holds now. Looks only where
    /// anything may have changed.
    pub(crate) fn find_changed(
        &mut self,
        services: &BTreeMap<ServiceName, Watched>,
        now: Timestamp,
    ) -> Vec<(ServiceName, bool)> {
        if !self.are_due(now) {
            return Vec::new();
        }
        let all = services.values();
        all.map(|watched| (watched, self.holds(&watched.spec, now)))
            .filter(|(watched, holds)| watched.maintained != *holds)
            .map(|(watched, holds)| (watched.spec.name.clone(), holds))
            .collect()
    }

    /// When a window begins or ends next, as far as that was looked up.
    pub(crate) fn next_edge(&self) -> Option<Timestamp> {
        self.looked.and_then(|looked| looked.next_edge)
    }

    /// Whether anything may have changed since they were last looked at; notes that they are now.
    fn are_due(&mut self, now: Timestamp) -> bool {
        let is_due = match self.looked {
            None => true,
            // A clock that was set back may lie before an edge again.
            Some(Looked { at, .. }) if now < at => true,
            Some(Looked { next_edge, .. }) => next_edge.is_some_and(|edge| edge <= now),
        };
        if is_due {
            let next_edge = self.all.iter().filter_map(|window| window.next_edge(now)).min();
            self.looked = Some(Looked { at: now, next_edge });
        }
        is_due
    }
}

impl Engine {
    /// Pauses what a window has begun for, and asks again what one has ended for.
    pub(crate) fn see_maintenance(&mut self) {
        let shared = Arc::clone(&self.shared);
        let now = shared.clock.now();
        let changed = self.windows.find_changed(&shared.read().services, now);
        let spread = Schedule::spread(changed.len(), self.settings.monitoring.check_interval);
        for (name, holds) in changed {
            tracing::info!(service = %name, begins = holds, "Maintenance");
            let mut world = shared.write();
            let Some(watched) = world.services.get_mut(&name) else { continue };
            // The result of a check that is under way is not taken in: it would end the pause.
            self.generation += 1;
            watched.generation = self.generation;
            watched.maintained = holds;
            // Whether it is back, its next check says.
            watched.is_awaited = !holds;
            watched.dirty = true;
            self.dismiss(watched);
            let ended = self.wake(watched, spread, now);
            drop(world);
            self.record_ended(ended);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use mcpmon_core::settings::MaintenanceWindow;

    #[test]
    fn windows_are_looked_at_when_something_may_have_changed() {
        let mut settings = Settings::default();
        settings.maintenance.push(MaintenanceWindow {
            services: Vec::new(),
            labels: std::collections::BTreeMap::new(),
            days: Vec::new(),
            start: Some("02:00".to_owned()),
            at: None,
            duration: std::time::Duration::from_secs(3_600),
            timezone: Some("UTC".to_owned()),
        });
        let at = |text: &str| -> Timestamp { text.parse().unwrap() };
        let mut windows = Windows::new(&settings);
        for (moment, due) in [
            ("2026-11-22T00:00:00Z", true),
            ("2026-11-22T01:59:59Z", false),
            ("2026-11-22T02:00:00Z", true),
            ("2026-11-22T02:00:01Z", false),
            // The clock is set back before the window, and on over it.
            ("2026-11-22T01:00:00Z", true),
            ("2026-11-22T09:00:00Z", true),
            ("2026-11-22T09:00:01Z", false),
        ] {
            assert_eq!(windows.are_due(at(moment)), due, "{moment}");
        }
        windows.look_again();
        assert!(windows.are_due(at("2026-11-22T09:00:02Z")));
        let mut none = Windows::new(&Settings::default());
        assert!(none.are_due(at("2026-11-22T00:00:00Z")));
        assert!(!none.are_due(at("2027-11-22T00:00:00Z")));
    }
}
