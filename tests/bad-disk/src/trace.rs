//! What was done to files, in order.

use std::collections::BTreeMap;

/// One thing done. Files are numbered, because a name may stand for one file after the other.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Op {
    /// A file was made under a name.
    Create {
        /// Its number.
        file: u32,
        /// Its name in the directory.
        name: String,
    },
    /// Bytes were written.
    Write {
        /// The file's number.
        file: u32,
        /// Where.
        offset: usize,
        /// What.
        data: Vec<u8>,
    },
    /// A file got another length.
    Truncate {
        /// The file's number.
        file: u32,
        /// The length.
        length: usize,
    },
    /// What was done to a file before is durable.
    Sync {
        /// The file's number.
        file: u32,
    },
    /// A name was taken away.
    Delete {
        /// The name.
        name: String,
        /// Whether the directory was synced with it.
        synced: bool,
    },
    /// Somebody was told that this is durable.
    Promise(u64),
}

/// What stood in a directory, durably, and what was done since.
#[derive(Debug, Clone, Default)]
pub struct Trace {
    /// Files at the beginning; each one's number is its place in order of names.
    pub files: BTreeMap<String, Vec<u8>>,
    /// What was done.
    pub ops: Vec<Op>,
}
