//! Carries out repairs: ends what is held of a service, or runs a command.
//!
//! Nothing is decided here, and nothing is tried twice. A restart only ends the process: starting
//! it again is the next check's affair, as it is after every other end, so there is one way in
//! which services are started.

mod command;

use async_trait::async_trait;
use mcpmon_core::remedy::{Remedy, RemedyReport, Repair};
use mcpmon_core::service::Transport;

use crate::environment::Variables;

/// Restarts what the monitor holds, and runs commands, with the allow-listed part of an
/// environment.
#[derive(Debug, Clone, Default)]
pub struct Mender {
    variables: Variables,
}

impl Mender {
    /// One whose commands see the allow-listed part of these variables, and are looked for on
    /// their `PATH`.
    pub fn new(variables: Variables) -> Self {
        Self { variables }
    }
}

#[async_trait]
impl Remedy for Mender {
    async fn apply(&self, repair: &Repair<'_>) -> RemedyReport {
        if let Some(argv) = repair.action.argv() {
            return command::run(&argv, repair, &self.variables).await;
        }
        if !matches!(repair.service.transport, Transport::Stdio(_)) {
            return RemedyReport::failed("there is no process of it to restart");
        }
        match repair.grip.release().await {
            true => RemedyReport::done(),
            false => RemedyReport::failed("nobody watches it any more"),
        }
    }
}
