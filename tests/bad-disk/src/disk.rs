//! The handle of a directory whose files SQLite has on this disk.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rusqlite::ffi;

use crate::fault::{Attempt, Fault};
use crate::trace::{Op, Trace};
use crate::vfs;

/// A directory on a bad disk. Clones are the same one.
#[derive(Debug, Clone)]
pub struct Disk(Arc<State>);

#[derive(Debug)]
struct State {
    directory: PathBuf,
    works: Mutex<Works>,
}

#[derive(Debug, Default)]
struct Works {
    fault: Fault,
    /// A file whose words name the fault, looked at before each attempt.
    control: Option<PathBuf>,
    /// Attempts to write, truncate, sync or delete that are let through before `fault` stands.
    spared: u64,
    /// Attempts that meet the fault before it is over.
    lasts: Option<u64>,
    /// Attempts so far.
    attempts: u64,
    trace: Option<Trace>,
    /// Which file each name stands for now.
    names: BTreeMap<String, u32>,
    files: u32,
}

impl Disk {
    /// Puts what SQLite opens below `directory`, from now on and in this process, on this disk.
    ///
    /// # Errors
    ///
    /// When the directory is not there, or SQLite takes no VFS.
    pub fn at(directory: &Path) -> io::Result<Self> {
        let directory = directory.canonicalize()?;
        let disk = Self(Arc::new(State { directory, works: Mutex::default() }));
        vfs::serve(disk.clone())?;
        Ok(disk)
    }

    /// Sets the fault that stands from now on.
    pub fn set(&self, fault: Fault) {
        let mut works = self.works();
        (works.fault, works.spared, works.lasts) = (fault, 0, None);
    }

    /// Sets the fault that the `lasts` attempts meet which come after the next `spared`.
    pub fn fail_after(&self, spared: u64, fault: Fault, lasts: u64) {
        let mut works = self.works();
        (works.fault, works.spared, works.lasts) = (fault, spared, Some(lasts));
    }

    /// Whether a fault set with [`Disk::fail_after`] was met as often as it lasts.
    pub fn has_failed(&self) -> bool {
        self.works().lasts == Some(0)
    }

    /// Has the words in this file name the fault from now on.
    pub fn obey(&self, control: PathBuf) {
        self.works().control = Some(control);
    }

    /// Begins to record. What stands in the directory now counts as durable, and nobody may have
    /// it open.
    ///
    /// # Errors
    ///
    /// When it cannot be read.
    pub fn record(&self) -> io::Result<()> {
        let mut works = self.works();
        let mut files = BTreeMap::new();
        for entry in fs::read_dir(&self.0.directory)? {
            let entry = entry?;
            if let Ok(name) = entry.file_name().into_string() {
                files.insert(name, fs::read(entry.path())?);
            }
        }
        works.names = files.keys().cloned().zip(0..).collect();
        works.files = works.names.len() as u32;
        works.trace = Some(Trace { files, ops: Vec::new() });
        Ok(())
    }

    /// Notes that somebody was told so.
    pub fn promise(&self, number: u64) {
        self.works().note(Op::Promise(number));
    }

    /// Ends recording and gives what was recorded.
    pub fn recorded(&self) -> Trace {
        self.works().trace.take().unwrap_or_default()
    }

    fn works(&self) -> MutexGuard<'_, Works> {
        self.0.works.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The name a path has on this disk, if it is on it.
    pub(crate) fn name_of(&self, path: &Path) -> Option<String> {
        let inside = path.strip_prefix(&self.0.directory).ok()?;
        inside.to_str().map(str::to_owned)
    }

    /// The number of the file a name stands for, a new one if it was just made.
    pub(crate) fn opened(&self, name: &str, made: bool) -> u32 {
        let mut works = self.works();
        if !made && let Some(file) = works.names.get(name) {
            return *file;
        }
        let file = works.files;
        works.files += 1;
        works.names.insert(name.to_owned(), file);
        works.note(Op::Create { file, name: name.to_owned() });
        file
    }

    /// Does something through `perform`, which gives SQLite's code, unless the disk refuses.
    /// Nothing else happens on this disk meanwhile, so the trace has the order things happened in.
    pub(crate) fn attempt(
        &self,
        attempt: Attempt,
        op: impl FnOnce() -> Option<Op>,
        perform: impl FnOnce() -> i32,
    ) -> i32 {
        let mut works = self.works();
        let fault = works.meet();
        if let Some(code) = fault.refuses(attempt) {
            return code;
        }
        let delay = fault.delay().filter(|_| attempt == Attempt::Sync);
        if let Some(delay) = delay {
            // Readers and other files go on while one sync is slow.
            drop(works);
            std::thread::sleep(delay);
            works = self.works();
        }
        let code = perform();
        if code == ffi::SQLITE_OK
            && works.trace.is_some()
            && let Some(op) = op()
        {
            if let Op::Delete { name, .. } = &op {
                works.names.remove(name);
            }
            works.note(op);
        }
        code
    }
}

impl Works {
    fn note(&mut self, op: Op) {
        if let Some(trace) = &mut self.trace {
            trace.ops.push(op);
        }
    }

    /// The fault that this attempt meets.
    fn meet(&mut self) -> Fault {
        self.attempts += 1;
        if let Some(control) = &self.control {
            return Fault::read(&fs::read_to_string(control).unwrap_or_default());
        }
        if self.spared > 0 {
            self.spared -= 1;
            return Fault::None;
        }
        match &mut self.lasts {
            Some(0) => Fault::None,
            Some(left) => {
                *left -= 1;
                self.fault
            }
            None => self.fault,
        }
    }
}
