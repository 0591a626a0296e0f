//! Resident memory of a monitor with its default settings at rest over 100 services, half of each
//! era.
//!
//! `idle-memory [--services N] [--seconds N]` watches for a while (two minutes if not said, so
//! that every check interval has come round), then prints what is resident and one JSON object.

use std::io::Write as _;
use std::time::Duration;

use mcpmon_benches::fleet::{FleetProcess, Speaks};
use mcpmon_benches::monitored::Monitored;
use mcpmon_benches::{Failure, usage};
use mcpmon_core::Settings;
use serde_json::json;

/// What 100 services may cost, in bytes.
const LIMIT: u64 = 64 << 20;

#[tokio::main]
async fn main() -> Result<(), Failure> {
    let (mut services, mut seconds) = (100_usize, 120_u64);
    let mut words = std::env::args().skip(1);
    while let Some(word) = words.next() {
        let value = words.next().ok_or_else(|| format!("`{word}` wants a number"))?;
        match word.as_str() {
            "--services" => services = value.parse()?,
            "--seconds" => seconds = value.parse()?,
            other => return Err(format!("unknown argument `{other}`").into()),
        }
    }
    let fleet = FleetProcess::start(services)?;
    let both = (0..services)
        .map(|index| (if index % 2 == 0 { Speaks::Both } else { Speaks::Legacy }, index));
    let monitored = Monitored::start(&fleet, both, Settings::default()).await?;
    tokio::time::sleep(Duration::from_secs(seconds)).await;
    let (resident, highest) = usage::memory()?;
    monitored.check_all_running()?;
    monitored.stop().await;

    let mut out = std::io::stdout().lock();
    let mebibytes = |bytes: u64| bytes / (1 << 20);
    writeln!(
        out,
        "{services} services at rest for {seconds} s: {} MiB resident, {} MiB at the highest",
        mebibytes(resident),
        mebibytes(highest),
    )?;
    let report = json!({
        "schema": "mcpmon/bench-idle-memory/v1", "services": services, "seconds": seconds,
        "resident_bytes": resident, "highest_bytes": highest, "limit_bytes": LIMIT,
        "within_limit": resident <= LIMIT,
    });
    writeln!(out, "\n{report}")?;
    Ok(())
}
