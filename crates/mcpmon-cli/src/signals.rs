//! Signals that end or reload a command.

use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::exit::CliError;

/// Resolves when somebody wants the process to end (SIGINT, SIGTERM). Where signals cannot be
/// watched it never does, and the system ends the process as usual.
pub(crate) async fn interrupted() {
    match Ends::watch() {
        Ok(mut ends) => ends.next().await,
        Err(_) => std::future::pending().await,
    }
}

/// Signals that end the process.
#[derive(Debug)]
pub(crate) struct Ends {
    interrupt: Signal,
    terminate: Signal,
}

impl Ends {
    /// From now on these signals no longer end the process by themselves.
    pub(crate) fn watch() -> Result<Self, CliError> {
        Ok(Self {
            interrupt: watch(SignalKind::interrupt())?,
            terminate: watch(SignalKind::terminate())?,
        })
    }

    /// The next of them. Cancel-safe.
    pub(crate) async fn next(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }
}

/// SIGHUP: read the configuration again.
pub(crate) fn hang_up() -> Result<Signal, CliError> {
    watch(SignalKind::hangup())
}

fn watch(kind: SignalKind) -> Result<Signal, CliError> {
    signal(kind).map_err(|error| CliError::io("cannot watch for signals", error))
}
