//! The store through its public face, on real files.

#![expect(clippy::unwrap_used, reason = "what a test cannot go on without stops it")]

mod commands;
mod development;
mod exports;
mod files;
mod fixture;
mod history;
mod imports;
mod info;
mod keeping;
mod losses;
mod promises;

use std::path::Path;

use mcpmon_core::store::{Batch, CheckRecord, SampleStore};
use mcpmon_store::{OpenOptions, SqliteStore};

fn open(path: &Path) -> SqliteStore {
    SqliteStore::open(path, OpenOptions::default()).unwrap()
}

async fn append(store: &SqliteStore, checks: Vec<CheckRecord>) {
    store.append(&Batch { checks, ..Batch::default() }).await.unwrap();
}
