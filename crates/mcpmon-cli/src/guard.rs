//! The guardian of the processes a command starts: made the parent of all of them, and gone, with
//! every one of them, before the command is over.

use mcpmon_collect::McpProbeFactory;
use mcpmon_core::Settings;
use mcpmon_mcp::Guardian;

use crate::exit::{CliError, Exit};

/// What makes the probes of a command, under its guardian if it has one.
pub(crate) fn probes(settings: &Settings, guardian: Option<&Guardian>) -> McpProbeFactory {
    let probes = McpProbeFactory::new(settings);
    match guardian {
        Some(guardian) => probes.with_guardian(guardian.clone()),
        None => probes,
    }
}

/// Runs a command that starts processes, none of which is left when it is over.
pub(crate) async fn guarded(
    guardian: Option<&Guardian>,
    command: impl Future<Output = Result<Exit, CliError>>,
) -> Result<Exit, CliError> {
    let result = command.await;
    if let Some(guardian) = guardian {
        guardian.close().await;
    }
    result
}
