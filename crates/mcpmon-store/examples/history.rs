//! Keeps a few checks, asks for them, and exports them; with this crate and core alone.
//!
//! ```text
//! cargo run -p mcpmon-store --example history
//! ```

use std::error::Error;
use std::io::Write;
use std::time::Duration;

use mcpmon_core::observation::{Observation, Question};
use mcpmon_core::store::{Batch, CheckRecord, RecordQuery, SampleStore};
use mcpmon_core::{Clock, SystemClock};
use mcpmon_store::export::{ExportQuery, ExportTarget, Exporter};
use mcpmon_store::{OpenOptions, SqliteStore};

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let directory = tempfile::tempdir()?;
    let store = SqliteStore::open(directory.path().join("mcpmon.db"), OpenOptions::default())?;

    let now = SystemClock.now();
    let checks = (0..5)
        .map(|n| {
            let at = now.saturating_sub(Duration::from_secs(30 * (4 - n)));
            let mut observation = Observation::answered();
            observation.latency = Some(Duration::from_millis(20 + n));
            observation.total = Duration::from_millis(60);
            CheckRecord::new("github".into(), at, Question::Health, &observation)
        })
        .collect();
    store.append(&Batch { checks, ..Batch::default() }).await?;

    let mut out = std::io::stdout();
    let page = store.checks(&RecordQuery::of("github".into())).await?;
    for check in &page.items {
        writeln!(out, "{} {} {:?}", check.at, check.status, check.latency)?;
    }

    let target = ExportTarget::directory(directory.path());
    let path = Exporter::new(&store, &store).to_json(&ExportQuery::default(), &target, now).await?;
    if let Some(path) = path {
        writeln!(out, "{} bytes in {}", std::fs::metadata(&path)?.len(), path.display())?;
    }
    writeln!(out, "{}", serde_json::to_string_pretty(&store.info().await?)?)?;
    Ok(())
}
