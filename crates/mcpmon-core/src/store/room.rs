//! How much room a store takes and has: what is measured here, the monitor decides upon.

use serde::{Deserialize, Serialize};

/// Room on disk, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Room {
    /// What the store's file takes.
    pub file_bytes: u64,
    /// What its log takes: more than usual while a reader holds on to what is old.
    pub log_bytes: u64,
    /// What its file system has left; `None` where that is unknown.
    pub free_bytes: Option<u64>,
    /// How large its file system is.
    pub disk_bytes: Option<u64>,
}
