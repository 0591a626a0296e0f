//! The fake fleet as a process of its own: `helper-fleet SERVICES` prints its address and serves
//! until its standard input ends.

use mcpmon_benches::{Failure, fleet};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Failure> {
    let services = std::env::args().nth(1).ok_or("usage: helper-fleet SERVICES")?.parse()?;
    fleet::run(services).await
}
