//! Appends batches to a database for ever and says after each that it is durable: `committed N`.
//! Killed at any moment, what it said must be true.

use std::error::Error;
use std::io::Write as _;
use std::time::Duration;

use mcpmon_core::store::{Batch, CheckRecord, NewDelivery, Transition};
use mcpmon_core::{
    IncidentLog as _, Notification, NotificationKind, Observation, Phases, Question,
    SampleStore as _, ServiceName, Timestamp,
};
use mcpmon_store::{OpenOptions, SqliteStore};

/// Checks in a batch; the test counts them.
const CHECKS: usize = 25;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let path = arguments.next().ok_or("usage: append-batches DATABASE FIRST")?;
    let first: i64 = arguments.next().ok_or("usage: append-batches DATABASE FIRST")?.parse()?;
    let store = SqliteStore::open(path, OpenOptions::default())?;
    for number in first.. {
        store.append(&batch(number)).await?;
        say(&format!("committed {number}"))?;
        if number % 10 == 0 {
            store.commit(&transition(number)).await?;
            say(&format!("queued {number}"))?;
        }
    }
    Ok(())
}

fn at(number: i64) -> Timestamp {
    Timestamp::from_millis(1_795_356_571_000 + number * 1_000)
}

fn batch(number: i64) -> Batch {
    let check = |index: usize| {
        let service = ServiceName::from(format!("service-{index:02}"));
        let vary = (number as u64 * 7_919 + index as u64 * 104_729) % 5_000;
        CheckRecord::new(service, at(number), Question::Health, &answered(vary))
    };
    Batch { checks: (0..CHECKS).map(check).collect(), ..Batch::default() }
}

/// A good check over HTTP, with times as they vary from check to check.
fn answered(vary: u64) -> Observation {
    let millis = |base: u64| (base + vary) as f64 / 1_000.0;
    Observation {
        latency: Some(Duration::from_micros(12_000 + vary)),
        total: Duration::from_micros(20_000 + vary * 2),
        phases: Phases {
            dns_ms: Some(millis(300)),
            connect_ms: Some(millis(1_500)),
            handshake_ms: Some(millis(6_000)),
            ..Phases::default()
        },
        ..Observation::answered()
    }
}

fn transition(number: i64) -> Transition {
    let notification =
        Notification::new(format!("batch-{number}"), NotificationKind::Test, Vec::new());
    Transition {
        deliveries: vec![NewDelivery { handler: "nobody".to_owned(), notification }],
        at: at(number),
        ..Transition::default()
    }
}

/// The reader may be gone, which is no reason to panic.
fn say(line: &str) -> std::io::Result<()> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{line}")?;
    out.flush()
}
