//! The guardian: a process of our own that is the parent of every process a monitor starts, so
//! that nothing outlives the monitor, not even when that is killed.
//!
//! A program makes itself one by calling [`Guardian::enter`] before anything else: started anew
//! with a mark in its arguments, it becomes the guardian of the one that started it. On Linux the
//! guardian adopts whatever its children leave behind, however often that forked and whatever
//! session it made for itself. So it can end a service whole, wait for every process of it, and
//! end everything when the monitor is gone, which the closing of their socket tells. Elsewhere
//! there is nothing to adopt with, and processes are started without one.
//!
//! Why the guardian starts the processes itself: an orphan goes to the nearest ancestor that
//! adopts. Were the monitor that ancestor, it could not after its own end.

#[cfg(target_os = "linux")]
mod handle;
#[cfg(target_os = "linux")]
mod line;
#[cfg(target_os = "linux")]
mod process;
#[cfg(target_os = "linux")]
pub(crate) mod tree;

#[cfg(target_os = "linux")]
pub use self::handle::Guardian;
#[cfg(target_os = "linux")]
pub(crate) use self::{
    handle::{Guarded, StartError, Ward},
    line::Command,
};

/// In the environment of every process that a guardian starts, and of all it starts in turn: whose
/// it is.
pub const MARK: &str = "MCPMON_CHILD";
/// What a guardian is called in the process table. Not like the monitor: who kills that by name
/// means that one.
#[cfg(target_os = "linux")]
const NAME: &std::ffi::CStr = c"mcp-guardian";
/// The first argument of a program that is to be a guardian; the second is whose.
#[cfg(target_os = "linux")]
const ARGUMENT: &str = "__guardian";

/// On this system there is no guardian, and this does nothing.
#[cfg(not(target_os = "linux"))]
#[derive(Debug, Clone)]
pub struct Guardian(());

#[cfg(not(target_os = "linux"))]
impl Guardian {
    /// Gives a handle that does nothing.
    ///
    /// # Errors
    ///
    /// None.
    pub fn enter() -> Result<Self, std::process::ExitCode> {
        Ok(Self(()))
    }

    /// Does nothing.
    pub async fn close(&self) {}
}
