//! The floor of a one-shot check: `helper-once FLEET_ADDRESS SERVICES CONNECTIONS` sends every
//! service what a first check sends (discovery, discovery on the open connection, the list of
//! tools), reads the answers and ends.

use mcpmon_benches::Failure;
use mcpmon_benches::bare::BareClient;
use mcpmon_core::Era;

#[tokio::main]
async fn main() -> Result<(), Failure> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let [fleet, services, connections] = &words[..] else {
        return Err("usage: helper-once FLEET_ADDRESS SERVICES CONNECTIONS".into());
    };
    let client =
        BareClient::connect(fleet.parse()?, Era::Modern, services.parse()?, connections.parse()?);
    client.await?.first_sweep().await?;
    Ok(())
}
