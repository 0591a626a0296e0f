//! Prints the MCP servers this machine's clients are configured with, and how the machine is.
//!
//! `cargo run -p mcpmon-collect --example look_around`

use std::io::{self, Write};

use mcpmon_collect::{ClientKind, Environment, SampleHost, discover};
use mcpmon_core::SystemMetrics;
use mcpmon_core::service::ServiceLimits;
use mcpmon_core::settings::Disks;
use mcpmon_core::text::for_terminal;

#[tokio::main]
async fn main() -> io::Result<()> {
    let environment = Environment::of_process()?;
    let search = move || discover(&environment, &ClientKind::ALL, &ServiceLimits::default());
    let discovery = tokio::task::spawn_blocking(search).await?;
    let host = SystemMetrics::sample(&Disks::All).await;

    let mut out = io::stdout().lock();
    for service in &discovery.services {
        let (name, origin) = (for_terminal(service.name.as_str()), for_terminal(&service.origin));
        writeln!(out, "{name}: {} from {origin}", service.transport.as_str())?;
        if let Some(failure) = &service.invalid {
            writeln!(out, "  {}", for_terminal(&failure.message))?;
        }
    }
    for problem in discovery.problems() {
        writeln!(out, "skipped {}", for_terminal(&problem.to_string()))?;
    }
    let looked = discovery.files.len();
    writeln!(out, "{} services in {looked} places", discovery.services.len())?;
    writeln!(out, "CPU {:.1}%, memory {:.1}%", host.cpu_percent, host.memory_percent)?;
    for disk in &host.disks {
        writeln!(out, "disk {} {:.1}%", for_terminal(&disk.path), disk.percent)?;
    }
    Ok(())
}
