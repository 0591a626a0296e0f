//! Watches one MCP server inside another program: `embed URL`, until Ctrl-C.

use std::error::Error;
use std::io::{Write as _, stderr};

use async_trait::async_trait;
use mcpmon_collect::McpProbeFactory;
use mcpmon_core::{Alert, DeliveryError, Handler, Notification, Receipt, ServiceSpec, Settings};
use mcpmon_engine::Monitor;

struct Banner;

#[async_trait]
impl Handler for Banner {
    fn name(&self) -> &str {
        "banner"
    }

    async fn deliver(&self, notice: &Notification) -> Result<Receipt, DeliveryError> {
        for Alert { message, .. } in &notice.alerts {
            writeln!(stderr(), "{:?}: {message}", notice.kind).map_err(DeliveryError::transient)?;
        }
        Ok(Receipt::accepted())
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let url = std::env::args().nth(1).ok_or("usage: embed URL")?;
    let monitor = Monitor::builder()
        .probe_factory(McpProbeFactory::new(&Settings::default()))
        .service(ServiceSpec::http("it", url))
        .handler(Banner)
        .start()
        .await?;
    tokio::signal::ctrl_c().await?;
    monitor.stop().await;
    Ok(())
}
