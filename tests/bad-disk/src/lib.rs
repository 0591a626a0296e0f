//! A disk under SQLite that fails on cue, and remembers what was written and synced.
//!
//! A full disk, a write error, a sync that fails and a power cut cannot be had from a real disk
//! without privileges, and never at the moment one wants. So the tests put this between SQLite and
//! the system: as the default VFS of the process, over the one SQLite brings along, for the files
//! below named directories only. The store above runs unchanged and does not know.
//!
//! [`Disk`] is the handle: it sets a [`Fault`], and records a [`Trace`]. [`Replay`] plays a trace
//! up to any operation and says what the disk may hold if the power goes there.

mod disk;
mod fault;
mod replay;
mod trace;
mod vfs;

pub use disk::Disk;
pub use fault::Fault;
pub use replay::{Lots, Replay};
pub use trace::{Op, Trace};
