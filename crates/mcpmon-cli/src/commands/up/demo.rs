//! Three servers to look at when there are none: what a first start without any configuration
//! shows. They end with the monitor.

use std::net::SocketAddr;
use std::path::Path;

use mcpmon_core::ServiceSpec;
use mcpmon_mcp::server::HttpServer;

use crate::demo::{self, DemoEra, DemoOptions};
use crate::exit::CliError;

/// The demo services, and the one server among them that runs in this process.
pub(super) struct Demo {
    pub(super) services: Vec<ServiceSpec>,
    _modern: HttpServer,
}

impl Demo {
    /// Starts what is not started by a probe.
    pub(super) async fn start() -> Result<Self, CliError> {
        let options = DemoOptions {
            era: DemoEra::Modern,
            name: "demo-modern".to_owned(),
            ..DemoOptions::default()
        };
        let any_port = SocketAddr::from(([127, 0, 0, 1], 0));
        let modern = demo::listen(any_port, &options.server(), false).await?;
        let program = std::env::current_exe()
            .map_err(|error| CliError::io("cannot find this program itself", error))?;
        let mut services = vec![
            stdio(&program, "demo-legacy", &["--era", "legacy"]),
            ServiceSpec::http("demo-modern", modern.url()),
            stdio(&program, "demo-slow", &["--delay", "300ms"]),
        ];
        for service in &mut services {
            service.labels.insert("demo".to_owned(), "true".to_owned());
            service.origin = "started by mcpmon to have something to show".to_owned();
        }
        Ok(Self { services, _modern: modern })
    }
}

fn stdio(program: &Path, name: &str, knobs: &[&str]) -> ServiceSpec {
    let args = ["demo-server", "--name", name].into_iter().chain(knobs.iter().copied());
    ServiceSpec::stdio(name, program.to_string_lossy(), args)
}
