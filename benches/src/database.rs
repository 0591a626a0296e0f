//! What stands beside the store: SQLite with nothing around it, and the disk with nothing at all.

use std::fs::File;
use std::io::Write as _;
use std::path::Path;
use std::time::Duration;

use mcpmon_core::sketch::LatencySketch;
use mcpmon_core::store::Batch;
use rusqlite::{Connection, OpenFlags, params};
use tokio::time::Instant;

use crate::Failure;

/// Appends rows of the same columns to a table without an index.
#[derive(Debug)]
pub struct BareLoop(Connection);

impl BareLoop {
    /// Makes a new database at `path`, as durable as the store's.
    ///
    /// # Errors
    ///
    /// When it cannot be written.
    pub fn create(path: &Path) -> Result<Self, Failure> {
        let connection = Connection::open(path)?;
        connection.execute_batch(
            "PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL;
             CREATE TABLE row (
                 id INTEGER PRIMARY KEY, service INTEGER, at INTEGER, question INTEGER,
                 status INTEGER, code INTEGER, latency INTEGER, total INTEGER, phases BLOB,
                 restarted INTEGER, process BLOB)",
        )?;
        Ok(Self(connection))
    }

    /// Appends a batch in one transaction.
    ///
    /// # Errors
    ///
    /// When it cannot be written.
    pub fn append(&mut self, batch: &Batch) -> Result<(), Failure> {
        let transaction = self.0.transaction()?;
        let sql = "INSERT INTO row VALUES (NULL, ?1, ?2, 1, 1, NULL, ?3, ?4, ?5, 0, NULL)";
        let mut insert = transaction.prepare_cached(sql)?;
        for (number, check) in (0_i64..).zip(&batch.checks) {
            let ticks = |span: Duration| span.as_micros() as i64 / 10;
            let (latency, total) = (ticks(check.latency.unwrap_or_default()), ticks(check.total));
            let phases: [u8; 5] = [36, 150, 1, 208, 15];
            let at = check.at.as_millis();
            insert.execute(params![number, at, latency, total, phases.as_slice()])?;
        }
        drop(insert);
        transaction.commit()?;
        Ok(())
    }
}

/// Reads packed checks, and nothing else, from a store's file.
#[derive(Debug)]
pub struct BareSelect(Connection);

impl BareSelect {
    /// Opens the store's file at `path`.
    ///
    /// # Errors
    ///
    /// When it cannot be read.
    pub fn open(path: &Path) -> Result<Self, Failure> {
        Ok(Self(Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_ONLY)?))
    }

    /// Reads about so many bytes; says how many.
    ///
    /// # Errors
    ///
    /// When the file cannot be read.
    pub fn read(&self, bytes: usize) -> Result<usize, Failure> {
        let mut statement = self.0.prepare_cached("SELECT checks FROM block ORDER BY id DESC")?;
        let mut rows = statement.query([])?;
        let mut read = 0;
        while read < bytes {
            let Some(row) = rows.next()? else { break };
            read += row.get_ref(0)?.as_blob()?.len();
        }
        Ok(read)
    }
}

/// Times a page that is appended to a file and synced: what no durable write can be faster than.
#[derive(Debug)]
pub struct Fsyncs {
    file: File,
    took: LatencySketch,
}

impl Fsyncs {
    /// Makes a file in `directory`.
    ///
    /// # Errors
    ///
    /// When it cannot be made.
    pub fn begin(directory: &Path) -> Result<Self, Failure> {
        let file = File::create(directory.join("fsync"))?;
        Ok(Self { file, took: LatencySketch::default() })
    }

    /// Takes one time.
    ///
    /// # Errors
    ///
    /// When the file cannot be written.
    pub fn one(&mut self) -> Result<(), Failure> {
        let begun = Instant::now();
        self.file.write_all(&[7; 4_096])?;
        self.file.sync_data()?;
        self.took.record(begun.elapsed());
        Ok(())
    }

    /// What they took.
    pub fn so_far(&self) -> &LatencySketch {
        &self.took
    }
}
