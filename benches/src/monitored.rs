//! The whole of mcpmon towards a fleet: real probes, real store, real rules, nobody told.

use std::sync::Arc;
use std::time::Duration;

use mcpmon_collect::McpProbeFactory;
use mcpmon_core::monitor::{EventStream, MonitorCommand, MonitorEvent, MonitorHandle as _};
use mcpmon_core::service::ServiceName;
use mcpmon_core::store::CheckRecord;
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
    // However slow the machine is today, it is not the fleet that is.
    settings.performance_monitoring.response_time_threshold = seldom;
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
        let specs = services.into_iter().map(|(speaks, index)| {
            ServiceSpec::http(service_name(index), fleet.url(speaks, index))
        });
        let monitored = Self::watch(specs, settings).await?;
        monitored.all_well().await?;
        Ok(monitored)
    }

    /// Starts a monitor over any services.
    ///
    /// # Errors
    ///
    /// When it does not start.
    pub async fn watch(
        specs: impl IntoIterator<Item = ServiceSpec>,
        settings: Settings,
    ) -> Result<Self, Failure> {
        let directory = tempfile::tempdir()?;
        let store = SqliteStore::open(directory.path().join("bench.db"), OpenOptions::default())?;
        let specs: Vec<_> = specs
            .into_iter()
            .map(|mut spec| {
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
        Ok(Self { monitor, services, _directory: directory })
    }

    /// Has every service asked once, and waits until each was found well.
    ///
    /// # Errors
    ///
    /// When one was not.
    pub async fn all_well(&self) -> Result<(), Failure> {
        self.ask(None, Question::List).await?;
        self.monitor.first_round().await;
        self.check_all_running()
    }

    /// The monitor itself.
    pub fn monitor(&self) -> &RunningMonitor {
        &self.monitor
    }

    /// Checks every service once, list included, as fast as it can. Gives the number of checks.
    ///
    /// # Errors
    ///
    /// When the monitor stops, or more happens than can be counted.
    pub async fn sweep(&self) -> Result<usize, Failure> {
        let mut events = self.monitor.subscribe();
        self.ask(None, Question::List).await?;
        for _ in 0..self.services {
            next_check(&mut events, Question::List).await?;
        }
        Ok(self.services)
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

    /// Has one service, or all of them, asked this now.
    ///
    /// # Errors
    ///
    /// When the monitor stopped.
    pub async fn ask(
        &self,
        service: Option<ServiceName>,
        question: Question,
    ) -> Result<(), Failure> {
        Ok(self.monitor.command(MonitorCommand::CheckNow { service, question }).await?)
    }
}

/// The name of the fleet's service of this number.
pub fn service_name(index: usize) -> ServiceName {
    ServiceName::from(format!("service-{index:05}").as_str())
}

/// The next check of this kind.
///
/// # Errors
///
/// When the monitor stops, or more happens than can be counted.
pub async fn next_check(
    events: &mut Box<dyn EventStream>,
    question: Question,
) -> Result<Box<CheckRecord>, Failure> {
    loop {
        match events.next().await {
            Some(MonitorEvent::Checked(check)) if check.question == question => return Ok(check),
            Some(MonitorEvent::Missed { count }) => {
                return Err(format!("{count} events were missed, so nothing is known").into());
            }
            Some(_) => {}
            None => return Err("the monitor stopped".into()),
        }
    }
}
