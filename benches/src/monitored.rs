//! The whole of mcpmon towards a fleet: real probes, real store, real rules, nobody told.

use std::sync::Arc;
use std::time::Duration;

use mcpmon_collect::McpProbeFactory;
use mcpmon_core::monitor::{MonitorCommand, MonitorEvent, MonitorHandle as _};
use mcpmon_core::{Question, ServiceSpec, Settings, Status};
use mcpmon_engine::{Monitor, RunningMonitor};
use mcpmon_store::{OpenOptions, SqliteStore};
use tempfile::TempDir;

use crate::Failure;
use crate::fleet::{FleetProcess, Speaks};

/// A monitor at work, with its database in a directory of its own.
#[derive(Debug)]
pub struct Monitored {
    monitor: RunningMonitor,
    services: usize,
    // Last, so that the database is closed before its directory goes.
    _directory: TempDir,
}

/// Settings under which nothing is asked unless a command asks for it.
pub fn only_on_command() -> Settings {
    let seldom = Duration::from_secs(24 * 3_600);
    let mut settings = Settings::default();
    settings.monitoring.check_interval = seldom;
    settings.service_monitoring.status_check_interval = seldom;
    settings.service_monitoring.list_interval = seldom;
    settings
}

impl Monitored {
    /// Starts a monitor over the first `services` services of the fleet and waits until each was
    /// asked once and is well.
    ///
    /// # Errors
    ///
    /// When it does not start, or a service is not found well.
    pub async fn start(
        fleet: &FleetProcess,
        services: impl IntoIterator<Item = (Speaks, usize)>,
        settings: Settings,
    ) -> Result<Self, Failure> {
        let directory = tempfile::tempdir()?;
        let store = SqliteStore::open(directory.path().join("bench.db"), OpenOptions::default())?;
        let specs: Vec<_> = services
            .into_iter()
            .map(|(speaks, index)| {
                let name = format!("service-{index:05}");
                let mut spec = ServiceSpec::http(name, fleet.url(speaks, index));
                spec.limits = settings.limits();
                spec
            })
            .collect();
        let services = specs.len();
        let monitor = Monitor::builder()
            .probe_factory(McpProbeFactory::new(&settings))
            .settings(settings)
            .services(specs)
            .store(Arc::new(store))
            .start()
            .await?;
        let monitored = Self { monitor, services, _directory: directory };
        monitored.list_all().await?;
        monitored.monitor.first_round().await;
        monitored.check_all_running()?;
        Ok(monitored)
    }

    /// Checks every service once, list included, as fast as it can. Gives the number of checks.
    ///
    /// # Errors
    ///
    /// When the monitor stops, or more happens than can be counted.
    pub async fn sweep(&self) -> Result<usize, Failure> {
        let mut events = self.monitor.subscribe();
        self.list_all().await?;
        let mut checked = 0;
        while checked < self.services {
            match events.next().await {
                Some(MonitorEvent::Checked(check)) if check.question == Question::List => {
                    checked += 1;
                }
                Some(MonitorEvent::Missed { count }) => {
                    return Err(format!("{count} events were missed, so nothing is known").into());
                }
                Some(_) => {}
                None => return Err("the monitor stopped".into()),
            }
        }
        Ok(checked)
    }

    /// Says so if any service is not running.
    ///
    /// # Errors
    ///
    /// With the first service that is not, and why.
    pub fn check_all_running(&self) -> Result<(), Failure> {
        match self.monitor.services().first() {
            Some(worst) if worst.check.status != Status::Running => {
                let report = serde_json::to_string(&worst.check)?;
                Err(format!("a service of the fleet is not well: {report}").into())
            }
            _ => Ok(()),
        }
    }

    /// Ends the monitor.
    pub async fn stop(self) {
        self.monitor.stop().await;
    }

    async fn list_all(&self) -> Result<(), Failure> {
        let question = Question::List;
        Ok(self.monitor.command(MonitorCommand::CheckNow { service: None, question }).await?)
    }
}
