//! Writes the database `tests/data/schema-1.db`, which the tests read back. See the README beside it.
//!
//! ```text
//! cargo run -p mcpmon-store --example write_fixture
//! ```

#[path = "../tests/it/fixture/records.rs"]
mod records;

use std::error::Error;
use std::path::{Path, PathBuf};

use mcpmon_store::{OpenOptions, SqliteStore};

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let usual = || Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/schema-1.db");
    let target = std::env::args_os().nth(1).map_or_else(usual, PathBuf::from);
    let directory = tempfile::tempdir()?;
    let path = directory.path().join("mcpmon.db");
    let store = SqliteStore::open(&path, OpenOptions::default())?;
    records::write(&store).await?;
    // Closed, so that the log is in the file.
    drop(store);
    std::fs::write(target, std::fs::read(path)?)?;
    Ok(())
}
