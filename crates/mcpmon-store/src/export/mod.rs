//! History as files other programs read: JSON, JSON lines, CSV.
//!
//! Works over core's ports, so any store can be exported. Checks stream page by page through a
//! replay of each service's window; nothing whole is held in memory, and a file appears only when
//! it is complete. JSON lines hold all an import needs to give the same lines again
//! (`docs/adr/0064-json-lines-are-lossless.md`).

mod csv;
mod json;
mod lines;
mod replay;
mod spool;
mod subjects;
mod target;

use std::collections::{HashSet, VecDeque};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use mcpmon_core::store::{AlertQuery, AlertRecord};
use mcpmon_core::window::DEFAULT_WINDOW;
use mcpmon_core::{IncidentLog, SampleStore, ServiceName, StoreError, Timestamp};

pub(crate) use lines::ReadLine;
pub use replay::ExportRecord;
pub use target::ExportTarget;

/// The schema every JSON export names.
pub const EXPORT_SCHEMA: &str = "mcpmon/export/v1";

/// Snapshots between two words about progress.
const TELL_EVERY: u64 = 256;

/// Alerts read at once.
const ALERT_PAGE: usize = 500;

/// What is exported.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExportQuery {
    /// Only this service; a CSV file needs one.
    pub service: Option<ServiceName>,
    /// Checks from this moment on, itself included; alerts that fired or ended from it on, or that
    /// are still open.
    pub since: Option<Timestamp>,
    /// What happened before this moment, itself excluded: two exports that meet at a moment hold
    /// each check once.
    pub until: Option<Timestamp>,
    /// The span each snapshot's metrics look back over.
    pub window: Duration,
}

impl Default for ExportQuery {
    fn default() -> Self {
        Self { service: None, since: None, until: None, window: DEFAULT_WINDOW }
    }
}

/// An export could not be made. No file is left behind, and none was replaced.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ExportError {
    /// The history could not be read.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// There is a file already.
    #[error("`{path}` exists; give another name, or force it to be replaced")]
    Exists {
        /// The file.
        path: PathBuf,
    },
    /// The file could not be written.
    #[error("cannot write `{path}`: {source}")]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The output could not be written.
    #[error("cannot write the export: {0}")]
    Output(#[from] std::io::Error),
    /// CSV has room for one service only.
    #[error("a CSV file holds one service; name the service to export")]
    ServiceNeeded,
}

/// Exports what a store holds.
///
/// A snapshot is core's `ServiceMetrics` as they were at a check, with the check itself.
#[derive(Clone)]
pub struct Exporter<'a> {
    samples: &'a dyn SampleStore,
    incidents: &'a dyn IncidentLog,
    watcher: Option<Arc<dyn Fn(ExportProgress) + Send + Sync + 'a>>,
}

/// How far an export has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ExportProgress {
    /// Snapshots written.
    pub records: u64,
    /// The moment of the last of them; they come in order of time.
    pub at: Timestamp,
}

/// The shapes of an export.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Format {
    Json,
    JsonLines,
    Csv,
}

impl<'a> Exporter<'a> {
    /// Exports from these.
    pub fn new(samples: &'a dyn SampleStore, incidents: &'a dyn IncidentLog) -> Self {
        Self { samples, incidents, watcher: None }
    }

    /// Tells `watcher` every few hundred snapshots how far it has come; it is called between two of
    /// them, so it should be quick.
    #[must_use]
    pub fn watched(mut self, watcher: impl Fn(ExportProgress) + Send + Sync + 'a) -> Self {
        self.watcher = Some(Arc::new(watcher));
        self
    }

    /// Gives each snapshot of a query, in order of time.
    async fn each_record(
        &self,
        query: &ExportQuery,
        mut give: impl FnMut(&ExportRecord) -> Result<(), ExportError>,
    ) -> Result<(), ExportError> {
        let mut records = 0_u64;
        replay::each_record(self.samples, query, |record| {
            give(record)?;
            records += 1;
            if records.is_multiple_of(TELL_EVERY)
                && let Some(watcher) = &self.watcher
            {
                watcher(ExportProgress { records, at: record.timestamp });
            }
            Ok(())
        })
        .await
    }

    /// Writes one JSON object, `mcpmon/export/v1`, to a file: services with their snapshots, and
    /// alerts. Gives the file's path; `None`, and no file, where there is no data.
    ///
    /// # Errors
    ///
    /// When the history cannot be read or the file not be written, or when it exists and is not to
    /// be replaced.
    pub async fn to_json(
        &self,
        query: &ExportQuery,
        target: &ExportTarget,
        now: Timestamp,
    ) -> Result<Option<PathBuf>, ExportError> {
        self.to_file(Format::Json, query, target, now).await
    }

    /// Writes a JSON object a line to a file: a header, what the services are and how their status
    /// changed, snapshots in order of time, alerts. [`crate::import`] reads it back.
    ///
    /// # Errors
    ///
    /// As [`Exporter::to_json`].
    pub async fn to_jsonl(
        &self,
        query: &ExportQuery,
        target: &ExportTarget,
        now: Timestamp,
    ) -> Result<Option<PathBuf>, ExportError> {
        self.to_file(Format::JsonLines, query, target, now).await
    }

    /// Writes the snapshots of the query's service to a CSV file, one a row.
    ///
    /// # Errors
    ///
    /// As [`Exporter::to_json`]; also when the query names no service.
    pub async fn to_csv(
        &self,
        query: &ExportQuery,
        target: &ExportTarget,
        now: Timestamp,
    ) -> Result<Option<PathBuf>, ExportError> {
        self.to_file(Format::Csv, query, target, now).await
    }

    /// As [`Exporter::to_json`], to any writer. Says whether there was data; nothing was written
    /// if not.
    ///
    /// # Errors
    ///
    /// When the history cannot be read or the output not be written.
    pub async fn write_json(
        &self,
        query: &ExportQuery,
        now: Timestamp,
        out: &mut (dyn Write + Send),
    ) -> Result<bool, ExportError> {
        json::write(self, query, now, out).await
    }

    /// As [`Exporter::to_jsonl`], to any writer.
    ///
    /// # Errors
    ///
    /// As [`Exporter::write_json`].
    pub async fn write_jsonl(
        &self,
        query: &ExportQuery,
        now: Timestamp,
        out: &mut (dyn Write + Send),
    ) -> Result<bool, ExportError> {
        lines::write(self, query, now, out).await
    }

    /// As [`Exporter::to_csv`], to any writer.
    ///
    /// # Errors
    ///
    /// As [`Exporter::write_json`]; also when the query names no service.
    pub async fn write_csv(
        &self,
        query: &ExportQuery,
        out: &mut (dyn Write + Send),
    ) -> Result<bool, ExportError> {
        csv::write(self, query, out).await
    }

    async fn to_file(
        &self,
        format: Format,
        query: &ExportQuery,
        target: &ExportTarget,
        now: Timestamp,
    ) -> Result<Option<PathBuf>, ExportError> {
        if format == Format::Csv && query.service.is_none() {
            return Err(ExportError::ServiceNeeded);
        }
        let path = target.path(&format.file_name(query, now));
        let mut draft = target::Draft::begin(&path, target.force)?;
        let out = draft.writer();
        let written = match format {
            Format::Json => self.write_json(query, now, out).await,
            Format::JsonLines => self.write_jsonl(query, now, out).await,
            Format::Csv => self.write_csv(query, out).await,
        };
        let any = written.map_err(|error| about_file(&path, error))?;
        if !any {
            return Ok(None);
        }
        draft.finish()?;
        Ok(Some(path))
    }

    /// Gives the alerts of a query, newest first, page by page, the open ones from before its range
    /// among them.
    async fn each_alert(
        &self,
        query: &ExportQuery,
        mut give: impl FnMut(&AlertRecord) -> Result<(), ExportError>,
    ) -> Result<(), ExportError> {
        let mut page = AlertQuery {
            active: false,
            since: query.since,
            until: query.until,
            service: query.service.clone(),
            limit: ALERT_PAGE,
        };
        let mut open = VecDeque::from(self.open_before(query).await?);
        // A page ends between alerts of one moment: the next begins with that moment again.
        let mut edge: (Option<Timestamp>, HashSet<String>) = (None, HashSet::new());
        loop {
            let records = self.incidents.alerts(&page).await?;
            let full = records.len() >= page.limit;
            let mut fresh = false;
            for record in records {
                let fired = record.alert.timestamp;
                if edge.0 != Some(fired) {
                    edge = (Some(fired), HashSet::new());
                }
                if edge.1.insert(record.alert.id.clone()) {
                    fresh = true;
                    // It may have ended since the open ones were read.
                    open.retain(|open| open.alert.id != record.alert.id);
                    while let Some(newer) = open.pop_front_if(|open| is_newer(open, &record)) {
                        give(&newer)?;
                    }
                    give(&record)?;
                }
            }
            match (fresh, full) {
                (true, _) => {
                    page.until = edge.0.map(|at| at.saturating_add(Duration::from_millis(1)));
                }
                (false, true) => page.limit *= 2,
                (false, false) => return open.iter().try_for_each(&mut give),
            }
        }
    }

    /// The open alerts that fired before a query's range, newest first. They are part of the range:
    /// an import of it has to know what the monitor still sends reminders of. There is at most one
    /// for each alert state.
    async fn open_before(&self, query: &ExportQuery) -> Result<Vec<AlertRecord>, StoreError> {
        let Some(since) = query.since else { return Ok(Vec::new()) };
        let open = AlertQuery {
            active: true,
            since: None,
            until: Some(query.until.map_or(since, |until| until.min(since))),
            service: query.service.clone(),
            limit: usize::MAX,
        };
        self.incidents.alerts(&open).await
    }
}

/// Whether one alert comes before another in an export.
fn is_newer(one: &AlertRecord, other: &AlertRecord) -> bool {
    (one.alert.timestamp, &one.alert.id) > (other.alert.timestamp, &other.alert.id)
}

impl Format {
    /// The file's name where none is given: local time, and nothing a file name could not hold.
    fn file_name(self, query: &ExportQuery, now: Timestamp) -> String {
        let stamp = target::local_stamp(now);
        match (self, &query.service) {
            (Self::Csv, Some(service)) => {
                let name = mcpmon_core::text::for_file_name(service.as_str());
                format!("metrics_{name}_{stamp}.csv")
            }
            (Self::Csv, None) => format!("metrics_{stamp}.csv"),
            (Self::Json, _) => format!("monitoring_data_{stamp}.json"),
            (Self::JsonLines, _) => format!("monitoring_data_{stamp}.jsonl"),
        }
    }
}

/// A failing output is the file's failure.
fn about_file(path: &Path, error: ExportError) -> ExportError {
    match error {
        ExportError::Output(source) => ExportError::File { path: path.to_path_buf(), source },
        other => other,
    }
}
