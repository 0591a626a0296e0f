//! A new configuration for a running monitor: read whole, then exchanged in one go.

use std::path::PathBuf;

use mcpmon_core::monitor::MonitorHandle as _;
use mcpmon_engine::{Change, RunningMonitor};

use super::{Plan, Read, Taken, Up, has_console};
use crate::config::ConfigError;
use crate::exit::CliError;
use crate::output::{self, count};

/// What a taken configuration changes for those who show and follow it.
pub(super) struct Reloaded {
    pub(super) console: bool,
    pub(super) followed: Vec<PathBuf>,
    pub(super) line: String,
}

impl Up<'_> {
    /// Reads the configuration again and gives it to the monitor. What is wrong with it is said,
    /// and the old one stays. A file that says what it said before is passed over unless somebody
    /// asked for it: clients rewrite theirs all day long.
    pub(super) async fn reload(
        &mut self,
        monitor: &RunningMonitor,
        asked_for: bool,
    ) -> Option<Reloaded> {
        match self.take_up(monitor, asked_for).await {
            Ok(reloaded) => reloaded,
            Err(error) => {
                output::say(&format!("{error}\nthe configuration stays as it was"));
                monitor.reload_failed(error.to_string());
                None
            }
        }
    }

    async fn take_up(
        &mut self,
        monitor: &RunningMonitor,
        asked_for: bool,
    ) -> Result<Option<Reloaded>, CliError> {
        let read = self.read_again().await?;
        let failed_before = monitor.snapshot().monitor.reload_error.is_some();
        let says_the_same = self.taken.as_ref() == Some(&Taken::of(&read.config));
        if says_the_same && !asked_for && !failed_before {
            return Ok(None);
        }
        let plan = self.plan(read).await?;
        let Plan { settings, mut services, handlers, followed } = plan;
        let mut line =
            format!("configuration read again: watching {}", count(services.len(), "service"));
        if !settings.monitoring.enabled {
            services.clear();
            line = "configuration read again: monitoring is switched off, nothing is checked"
                .to_owned();
        }
        let (console, level) = (has_console(&settings), settings.data_collection.log_level);
        if let Some(probes) = &self.probes {
            probes.resize(&settings);
        }
        monitor
            .apply(Change { settings, services, handlers })
            .await
            .map_err(|error| CliError::Failed(error.to_string()))?;
        self.logging.set(level);
        Ok(Some(Reloaded { console, followed, line }))
    }

    /// Off the runtime's own threads: files may be on slow disks, and secrets come from commands.
    async fn read_again(&self) -> Result<Read, CliError> {
        let (args, surroundings) = (self.args.clone(), self.surroundings.clone());
        let read = move || args.read(&surroundings);
        let read: Result<Read, ConfigError> = tokio::task::spawn_blocking(read)
            .await
            .map_err(|error| CliError::Failed(format!("cannot read the configuration: {error}")))?;
        Ok(read?)
    }
}
