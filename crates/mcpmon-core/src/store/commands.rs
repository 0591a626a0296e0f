//! The port of what other processes ask for.

use async_trait::async_trait;

use super::StoreError;
use crate::monitor::MonitorCommand;

/// How other processes reach a running monitor: they only ever insert here.
#[async_trait]
pub trait CommandQueue: Send + Sync {
    /// Leaves a command for the monitor.
    ///
    /// # Errors
    ///
    /// When it could not be written.
    async fn submit(&self, command: &MonitorCommand) -> Result<(), StoreError>;

    /// Commands that no monitor took yet, oldest first; they stay where they are.
    ///
    /// # Errors
    ///
    /// When the queue cannot be read.
    async fn pending(&self) -> Result<Vec<MonitorCommand>, StoreError>;

    /// Takes every command left since the last call, oldest first. Cheap when there is none.
    ///
    /// # Errors
    ///
    /// When the queue cannot be read; nothing was taken.
    async fn take(&self) -> Result<Vec<MonitorCommand>, StoreError>;
}
