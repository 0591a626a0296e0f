//! The history as a command reads it, beside a monitor that may be writing.

use std::path::{Path, PathBuf};

use mcpmon_core::StoreError;
use mcpmon_core::contract::MonitorReport;
use mcpmon_core::store::Store;
use mcpmon_store::SqliteStore;

use crate::config::suggestion;
use crate::exit::CliError;
use crate::self_report;

/// The history, opened to be read.
#[derive(Debug)]
pub(crate) struct Archive {
    path: PathBuf,
    store: SqliteStore,
}

impl Archive {
    /// Opens the database beside whoever writes it.
    pub(crate) fn open(path: &Path) -> Result<Self, CliError> {
        if !path.exists() {
            return Err(CliError::Failed(format!(
                "there is no history at `{}` yet; `mcpmon up` writes one, `mcpmon up --once` a single \
                 round (`mcpmon paths` says where it is looked for)",
                path.display()
            )));
        }
        let store = SqliteStore::reader(path).map_err(|error| match error {
            StoreError::Damaged { .. } => CliError::Failed(format!(
                "{error}; `mcpmon up` sets it aside and begins anew, `mcpmon db restore FILE` puts a \
                 backup in its place"
            )),
            error => with_next_step(error, "`mcpmon up`"),
        })?;
        Ok(Self { path: path.to_owned(), store })
    }

    pub(crate) fn store(&self) -> &SqliteStore {
        &self.store
    }

    /// The same, for those who take any store.
    pub(crate) fn any(&self) -> &dyn Store {
        &self.store
    }

    /// The monitor that writes this history now, as it last reported itself.
    pub(crate) fn monitor(&self) -> MonitorReport {
        let running = SqliteStore::is_in_use(&self.path);
        let report = running.then(|| self_report::read(&self.path)).flatten();
        report.unwrap_or_else(|| MonitorReport {
            running,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            ..MonitorReport::default()
        })
    }
}

/// The error of a history that cannot be opened. For one of a development version it names the
/// command that begins a new history.
pub(crate) fn with_next_step(error: StoreError, command: &str) -> CliError {
    match error {
        StoreError::Development { .. } => CliError::Failed(format!(
            "{error}; {command} keeps it under another name and begins a new history"
        )),
        error => CliError::Store(error),
    }
}

/// There is no such service; perhaps another one was meant.
pub(crate) fn unknown_service<'a>(
    name: &str,
    known: impl Iterator<Item = &'a str> + Clone,
) -> CliError {
    CliError::Usage(format!("there is no service `{name}`{}", suggestion(name, known)))
}
