//! What SQLite says, as what a caller can do about it.

use std::path::Path;

use mcpmon_core::StoreError;
use rusqlite::{Error, ErrorCode};

/// The port's error for SQLite's, about the database at `path`.
pub(crate) fn store_error(path: &Path, error: Error) -> StoreError {
    let path = path.to_path_buf();
    let Error::SqliteFailure(failure, _) = &error else {
        return match error {
            Error::FromSqlConversionFailure(..)
            | Error::IntegralValueOutOfRange(..)
            | Error::InvalidColumnType(..)
            | Error::Utf8Error(..) => damaged(&path, &error.to_string()),
            other => StoreError::Other(Box::new(other)),
        };
    };
    match failure.code {
        ErrorCode::DiskFull => StoreError::Full { path },
        ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked => StoreError::Busy { path },
        ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase => damaged(&path, &error.to_string()),
        ErrorCode::ReadOnly
        | ErrorCode::PermissionDenied
        | ErrorCode::SystemIoFailure
        | ErrorCode::CannotOpen => StoreError::Io {
            path,
            message: format!("{error}; check that it and its directory can be written"),
        },
        _ => StoreError::Other(Box::new(error)),
    }
}

/// The file cannot be trusted; says what to do with it.
pub(crate) fn damaged(path: &Path, what: &str) -> StoreError {
    StoreError::Damaged {
        path: path.to_path_buf(),
        message: format!("{what}; move it away to start afresh, or put a backup in its place"),
    }
}
