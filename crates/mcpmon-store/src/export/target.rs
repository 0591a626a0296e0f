//! The file an export ends in: there whole, or not at all.

use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use jiff::tz::TimeZone;
use mcpmon_core::Timestamp;
use tempfile::{NamedTempFile, PersistError};

use super::ExportError;

/// Where an export goes.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ExportTarget {
    /// The file. Without one a name is made up, of kind and local time.
    pub file: Option<PathBuf>,
    /// Where a made-up name is put; empty is the working directory.
    pub directory: PathBuf,
    /// Whether a file that exists is replaced.
    pub force: bool,
}

impl ExportTarget {
    /// This file.
    pub fn file(path: impl Into<PathBuf>) -> Self {
        Self { file: Some(path.into()), ..Self::default() }
    }

    /// A file with a made-up name in this directory.
    pub fn directory(path: impl Into<PathBuf>) -> Self {
        Self { directory: path.into(), ..Self::default() }
    }

    /// Replaces a file that exists.
    #[must_use]
    pub fn force(mut self) -> Self {
        self.force = true;
        self
    }

    pub(super) fn path(&self, made_up: &str) -> PathBuf {
        self.file.clone().unwrap_or_else(|| self.directory.join(made_up))
    }
}

/// `YYYYmmdd_HHMMSS` of a moment, in the machine's time zone.
pub(super) fn local_stamp(now: Timestamp) -> String {
    stamp_in(now, TimeZone::system())
}

fn stamp_in(now: Timestamp, zone: TimeZone) -> String {
    match jiff::Timestamp::from_millisecond(now.as_millis()) {
        Ok(at) => at.to_zoned(zone).strftime("%Y%m%d_%H%M%S").to_string(),
        Err(_) => now.as_millis().to_string(),
    }
}

/// A file being written beside its place. Dropped before it is finished, it leaves nothing.
pub(super) struct Draft<'a> {
    path: &'a Path,
    force: bool,
    out: BufWriter<NamedTempFile>,
}

impl<'a> Draft<'a> {
    /// Begins a file for `path`.
    pub(super) fn begin(path: &'a Path, force: bool) -> Result<Self, ExportError> {
        if !force && path.symlink_metadata().is_ok() {
            return Err(ExportError::Exists { path: path.to_path_buf() });
        }
        let directory = directory_of(path);
        // For the owner alone, as temporary files are made: history is nobody else's business.
        let file = tempfile::Builder::new()
            .prefix(".mcpmon-export-")
            .tempfile_in(directory)
            .map_err(|source| ExportError::File { path: path.to_path_buf(), source })?;
        Ok(Self { path, force, out: BufWriter::new(file) })
    }

    pub(super) fn writer(&mut self) -> &mut (dyn Write + Send) {
        &mut self.out
    }

    /// Gives the file its name, durably.
    pub(super) fn finish(self) -> Result<(), ExportError> {
        let failed = |source| ExportError::File { path: self.path.to_path_buf(), source };
        let file = self.out.into_inner().map_err(|error| failed(error.into_error()))?;
        file.as_file().sync_all().map_err(failed)?;
        let named =
            if self.force { file.persist(self.path) } else { file.persist_noclobber(self.path) };
        named.map_err(|PersistError { error, .. }| match error.kind() {
            std::io::ErrorKind::AlreadyExists => {
                ExportError::Exists { path: self.path.to_path_buf() }
            }
            _ => failed(error),
        })?;
        std::fs::File::open(directory_of(self.path))
            .and_then(|directory| directory.sync_all())
            .map_err(failed)
    }
}

fn directory_of(path: &Path) -> &Path {
    path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_made_up_name_has_local_time() {
        let now = Timestamp::from_millis(1_795_356_571_120);
        assert_eq!(stamp_in(now, TimeZone::UTC), "20261122_140931");
        let berlin = TimeZone::get("Europe/Berlin").unwrap();
        assert_eq!(stamp_in(now, berlin), "20261122_150931");
    }

    #[test]
    fn a_draft_that_is_not_finished_leaves_nothing() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("export.json");
        let mut draft = Draft::begin(&path, false).unwrap();
        draft.writer().write_all(b"half").unwrap();
        drop(draft);
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 0);
    }

    #[test]
    fn a_file_that_appeared_meanwhile_is_not_replaced() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("export.json");
        let draft = Draft::begin(&path, false).unwrap();
        std::fs::write(&path, "theirs").unwrap();
        assert!(matches!(draft.finish(), Err(ExportError::Exists { .. })));
        assert!(matches!(Draft::begin(&path, false), Err(ExportError::Exists { .. })));
        assert_eq!(std::fs::read(&path).unwrap(), b"theirs");
        let mut draft = Draft::begin(&path, true).unwrap();
        draft.writer().write_all(b"ours").unwrap();
        draft.finish().unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"ours");
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 1);
    }
}
