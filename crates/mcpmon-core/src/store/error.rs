//! What a store can fail with.

use std::path::PathBuf;

/// The store could not do what it was asked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// The file was written by a newer mcpmon; opening it could lose data.
    #[error(
        "database `{path}` has schema {found}, but this build knows up to {known}; use the newer mcpmon that wrote it, or another file"
    )]
    NewerSchema {
        /// The file.
        path: PathBuf,
        /// Its schema.
        found: u32,
        /// The newest this build knows.
        known: u32,
    },
    /// The file belongs to another program.
    #[error("`{path}` is a database of another program; give another path for mcpmon's own")]
    Foreign {
        /// The file.
        path: PathBuf,
    },
    /// The file was written by a development version, whose schemas nothing reads any more.
    #[error("database `{path}` was written by a development version; this build cannot read it")]
    Development {
        /// The file.
        path: PathBuf,
    },
    /// The file is no database, or a damaged one.
    #[error("database `{path}` is damaged: {message}")]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What was found.
        message: String,
    },
    /// Another monitor writes this file.
    #[error("database `{path}` is in use by another mcpmon; stop that one, or use another file")]
    InUse {
        /// The file.
        path: PathBuf,
    },
    /// The disk is full.
    #[error("no space left to write `{path}`")]
    Full {
        /// The file.
        path: PathBuf,
    },
    /// Another program holds the file for too long; trying later may help.
    #[error("database `{path}` is locked by another program")]
    Busy {
        /// The file.
        path: PathBuf,
    },
    /// The file or its directory cannot be read or written.
    #[error("cannot use `{path}`: {message}")]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        message: String,
    },
    /// The store was closed, or its thread is gone.
    #[error("the store is closed")]
    Closed,
    /// Anything else.
    #[error("{0}")]
    Other(#[source] Box<dyn std::error::Error + Send + Sync>),
}
