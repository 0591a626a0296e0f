//! What a running monitor says of itself (since when it runs, what it could not write, deliver or
//! reload), for commands beside it: one small file next to the history, exchanged whole.
//!
//! It is no history and must not wait for the database, of whose troubles it tells.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use mcpmon_core::contract::MonitorReport;

/// More than a report ever is; what is larger is not ours.
const LARGEST: u64 = 1 << 20;

fn beside(database: &Path) -> PathBuf {
    database.with_extension("monitor.json")
}

/// The report of the monitor that writes this history, as it last was.
pub(crate) fn read(database: &Path) -> Option<MonitorReport> {
    let mut text = String::new();
    let file = File::open(beside(database)).ok()?;
    file.take(LARGEST).read_to_string(&mut text).ok()?;
    serde_json::from_str(&text).ok()
}

/// Keeps the file up to date; removed with the monitor.
#[derive(Debug)]
pub(crate) struct SelfReport {
    path: PathBuf,
    written: Option<MonitorReport>,
    /// The last one could not be written, which was said.
    failed: bool,
}

impl SelfReport {
    /// A report that stands next to this database.
    pub(crate) fn new(database: &Path) -> Self {
        Self { path: beside(database), written: None, failed: false }
    }

    /// Writes the report, if it says anything new.
    pub(crate) fn write(&mut self, report: MonitorReport) {
        if self.written.as_ref() == Some(&report) {
            return;
        }
        let exchanged = self.exchange(&report);
        let failed_before = std::mem::replace(&mut self.failed, exchanged.is_err());
        if let Err(error) = exchanged
            && !failed_before
        {
            tracing::warn!(path = %self.path.display(), %error, "The monitor's report was not written");
        }
        self.written = Some(report);
    }

    fn exchange(&self, report: &MonitorReport) -> io::Result<()> {
        let draft = self.path.with_extension("json.new");
        let mut file =
            OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&draft)?;
        file.write_all(&serde_json::to_vec(report)?)?;
        fs::rename(&draft, &self.path)
    }
}

impl Drop for SelfReport {
    fn drop(&mut self) {
        // It may never have been written; a reader looks first whether a monitor runs.
        let _ = fs::remove_file(&self.path);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn is_read_as_it_was_last_written_and_gone_with_the_monitor() {
        let folder = tempfile::tempdir().unwrap();
        let database = folder.path().join("mcpmon.db");
        assert_eq!(read(&database), None);
        let mut own = SelfReport::new(&database);
        for checks_total in [1, 7] {
            let report = MonitorReport { checks_total, ..MonitorReport::default() };
            own.write(report.clone());
            assert_eq!(read(&database), Some(report));
        }
        drop(own);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
    }

    #[test]
    fn what_is_no_report_is_not_believed() {
        let folder = tempfile::tempdir().unwrap();
        let database = folder.path().join("mcpmon.db");
        fs::write(beside(&database), "not a report").unwrap();
        assert_eq!(read(&database), None);
    }
}
