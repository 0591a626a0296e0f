//! Maintenance windows: a service in one is `paused` and not asked, so that planned work is neither
//! an outage nor an alert. What fired before stays open until a check after it says more.

use std::sync::Arc;

use mcpmon_core::calendar::Maintenance;
use mcpmon_core::service::ServiceSpec;
use mcpmon_core::settings::Settings;
use mcpmon_core::{ServiceName, Timestamp};

use crate::run::Engine;
use crate::schedule::Schedule;

/// The windows of a configuration.
#[derive(Debug, Default)]
pub(crate) struct Windows(Vec<Maintenance>);

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
        Self(read.collect())
    }

    pub(crate) fn holds(&self, service: &ServiceSpec, now: Timestamp) -> bool {
        self.0.iter().any(|window| window.until(service, now).is_some())
    }
}

impl Engine {
    /// Pauses what a window has begun for, and asks again what one has ended for.
    pub(crate) fn see_maintenance(&mut self) {
        let shared = Arc::clone(&self.shared);
        let now = shared.clock.now();
        let changed: Vec<(ServiceName, bool)> = {
            let world = shared.read();
            let services = world.services.values();
            services
                .map(|watched| (watched, self.windows.holds(&watched.spec, now)))
                .filter(|(watched, holds)| watched.maintained != *holds)
                .map(|(watched, holds)| (watched.spec.name.clone(), holds))
                .collect()
        };
        let spread = Schedule::spread(changed.len(), self.settings.monitoring.check_interval);
        for (name, holds) in changed {
            tracing::info!(service = %name, begins = holds, "Maintenance");
            let mut world = shared.write();
            let Some(watched) = world.services.get_mut(&name) else { continue };
            watched.maintained = holds;
            watched.dirty = true;
            self.dismiss(watched);
            let ended = self.wake(watched, spread, now);
            drop(world);
            self.record_ended(ended);
        }
    }
}
