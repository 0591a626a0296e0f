//! Lets a fleet be watched for a simulated time, with sealing, rollups and retention at work, and
//! says what the file takes.
//!
//! ```text
//! cargo run --release -p mcpmon-store --example year -- --services 500 --days 30 --file /tmp/fleet.db
//! ```

#[allow(dead_code, reason = "each example uses its part of it")]
mod fleet;

use std::error::Error;
use std::io::Write;
use std::path::PathBuf;
use std::time::Duration;

use fleet::{BEGIN, Fleet};
use mcpmon_core::Timestamp;
use mcpmon_core::settings::Settings;
use mcpmon_core::store::{Retention, SampleStore};
use mcpmon_store::{OpenOptions, SqliteStore};
use tokio::time::Instant;

/// One batch of simulated time, in ms.
const BATCH: i64 = 600_000;

struct Args {
    services: usize,
    days: i64,
    file: PathBuf,
}

fn args() -> Result<Args, Box<dyn Error>> {
    let mut args = Args { services: 500, days: 7, file: PathBuf::new() };
    let mut words = std::env::args().skip(1);
    while let Some(word) = words.next() {
        let value = words.next().ok_or("a value is missing")?;
        match word.as_str() {
            "--services" => args.services = value.parse()?,
            "--days" => args.days = value.parse()?,
            "--file" => args.file = value.into(),
            other => return Err(format!("{other} is no option").into()),
        }
    }
    Ok(args)
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let args = args()?;
    let directory = tempfile::tempdir_in(".")?;
    let path = match args.file.as_os_str().is_empty() {
        true => directory.path().join("mcpmon.db"),
        false => args.file.clone(),
    };
    let store = SqliteStore::open(&path, OpenOptions::default())?;
    let retention = Retention::from_settings(&Settings::default());
    let mut fleet = Fleet::new(args.services);
    let mut out = std::io::stdout();
    let (mut checks, mut writing) = (0, Duration::ZERO);
    let mut steps: Vec<Duration> = Vec::new();
    let (mut now, mut largest) = (BEGIN, 0);
    for day in 1..=args.days {
        while now < BEGIN + day * 86_400_000 {
            now += BATCH;
            let batch = fleet.until(now);
            checks += batch.checks.len();
            let begun = Instant::now();
            store.append(&batch).await?;
            loop {
                let step = Instant::now();
                let more = store.prune(&retention.plan(Timestamp::from_millis(now))).await?.more;
                steps.push(step.elapsed());
                if !more {
                    break;
                }
            }
            writing += begun.elapsed();
        }
        if day % 10 == 0 || day == args.days {
            let info = store.info().await?;
            let used = info.file_bytes - info.free_bytes;
            largest = largest.max(info.file_bytes);
            writeln!(
                out,
                "day {day}: {:.1} MB, {:.1} MB of it free; {} raw checks; {:.2} bytes each, all \
                 that is in the file counted; {:.0} checks/s",
                info.file_bytes as f64 / 1e6,
                info.free_bytes as f64 / 1e6,
                info.checks,
                used as f64 / info.checks.max(1) as f64,
                checks as f64 / writing.as_secs_f64(),
            )?;
        }
    }
    let info = store.info().await?;
    writeln!(out, "{}", serde_json::to_string_pretty(&info)?)?;
    steps.sort_unstable();
    let at = |share: f64| steps[(share * (steps.len() - 1) as f64) as usize].as_secs_f64() * 1e3;
    writeln!(out, "largest file: {:.1} MB", largest as f64 / 1e6)?;
    writeln!(
        out,
        "{} steps of upkeep: p50 {:.1} ms, p99 {:.1} ms, longest {:.1} ms",
        steps.len(),
        at(0.5),
        at(0.99),
        at(1.0)
    )?;
    Ok(())
}
