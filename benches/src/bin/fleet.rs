//! The fake fleet as a process of its own: `helper-fleet SERVICES [DELAY_MS [spread]]` prints its
//! address and serves until its standard input ends.

use std::time::Duration;

use mcpmon_benches::Failure;
use mcpmon_benches::fleet::{self, Manner};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Failure> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let services = words.first().ok_or("usage: helper-fleet SERVICES")?.parse()?;
    let delay = words.get(1).map_or(Ok(0), |word| word.parse())?;
    let spread = words.get(2).is_some_and(|word| word == "spread");
    fleet::run(services, Manner { delay: Duration::from_millis(delay), spread }).await
}
