//! How much memory an export and an import of a large history take: a part of it, however large.
//!
//! Alone in its binary: the allocator counts everything the process does.

use std::alloc::System;
use std::io::{self, BufReader, Seek as _, SeekFrom, Write};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use mcpmon_core::Timestamp;
use mcpmon_core::store::{Batch, SampleStore};
use mcpmon_store::export::{ExportQuery, Exporter};
use mcpmon_store::import::Importer;
use mcpmon_store::{OpenOptions, SqliteStore};
use mcpmon_testkit::START;
use mcpmon_testkit::samples::check;
use stats_alloc::{INSTRUMENTED_SYSTEM, StatsAlloc};

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

const SERVICES: u64 = 40;
/// What may be held at once: a page of 10,000 checks, what is made of it, and a spool of 4 MiB.
const MOST: usize = 9 << 20;

/// Rows of the history: tens of megabytes as JSON, hundreds in the long form.
fn rows() -> u64 {
    if std::env::var_os("MCPMON_SOAK").is_some() { 240_000 } else { 20_000 }
}

fn held() -> usize {
    let stats = ALLOCATOR.stats();
    stats.bytes_allocated.wrapping_sub(stats.bytes_deallocated)
}

/// Counts what goes through it.
struct Counted<W>(W, u64);

impl<W: Write> Write for Counted<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.0.write(bytes)?;
        self.1 += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

#[tokio::test]
async fn a_large_history_goes_out_and_in_through_little_memory() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("mcpmon.db");
    let store = SqliteStore::open(&path, OpenOptions::default()).unwrap();
    let names: Vec<String> = (0..SERVICES).map(|n| format!("service-{n}")).collect();
    for rows in (0..rows()).collect::<Vec<_>>().chunks(10_000) {
        let moment = |n: u64| START.saturating_add(Duration::from_millis(n * 500));
        let checks = rows.iter().map(|n| check(&names[(n % SERVICES) as usize], moment(*n)));
        let batch = Batch { checks: checks.collect(), ..Batch::default() };
        store.append(&batch).await.unwrap();
    }
    let most = AtomicUsize::new(0);
    let look = || most.fetch_max(held(), Ordering::Relaxed);
    let exporter = Exporter::new(&store, &store).watched(|_| {
        look();
    });
    let query = ExportQuery::default();
    let before = held();
    let mut whole = Counted(io::sink(), 0);
    assert!(exporter.write_json(&query, Timestamp::default(), &mut whole).await.unwrap());
    let mut lines = Counted(io::BufWriter::new(tempfile::tempfile().unwrap()), 0);
    assert!(exporter.write_jsonl(&query, Timestamp::default(), &mut lines).await.unwrap());
    let exported = most.load(Ordering::Relaxed).saturating_sub(before);
    assert!(whole.1.min(lines.1) > 2 * MOST as u64, "too little to tell: {}", lines.1);
    assert!(exported < MOST, "{} bytes went out through {exported}", lines.1);

    let mut file = lines.0.into_inner().unwrap();
    file.seek(SeekFrom::Start(0)).unwrap();
    let second = directory.path().join("second.db");
    let second = SqliteStore::open(&second, OpenOptions::default()).unwrap();
    let before = held();
    let most = AtomicUsize::new(0);
    let importer = Importer::new(&second, &second).watched(|_| {
        most.fetch_max(held(), Ordering::Relaxed);
    });
    let done = importer.read_jsonl(&mut BufReader::new(file)).await.unwrap();
    assert_eq!(done.checks, rows());
    let most = most.load(Ordering::Relaxed).saturating_sub(before);
    assert!(most < MOST, "an import held {most} bytes");
}
