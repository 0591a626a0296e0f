//! The probe of an MCP server: the factory with what all of them share.
//!
//! Shared are the HTTP client with its pools and TLS settings, the places for processes, and the
//! guardian of those processes.

mod places;
mod probe;

use std::sync::Arc;

use mcpmon_core::probe::{Probe, ProbeFactory};
use mcpmon_core::secret::Redactor;
use mcpmon_core::service::ServiceSpec;
use mcpmon_core::settings::Settings;
use mcpmon_core::time::{Clock, SystemClock};
use mcpmon_mcp::http::HttpClient;
use mcpmon_mcp::protocol::ClientInfo;
use mcpmon_mcp::{Guardian, SessionOptions};

use self::places::Places;
pub use self::probe::McpProbe;
use crate::process::ProcessSampler;

/// Makes probes for MCP services.
///
/// ```
/// use std::sync::Arc;
/// use std::time::{Duration, Instant};
///
/// use mcpmon_collect::McpProbeFactory;
/// use mcpmon_core::probe::ProbeFactory as _;
/// use mcpmon_core::{FailureCode, Question, ServiceSpec, Settings};
///
/// # #[tokio::main(flavor = "current_thread")] async fn main() {
/// let factory = McpProbeFactory::new(&Settings::default());
/// let spec = ServiceSpec::stdio("files", "no-such-program", [""; 0]);
/// let mut probe = factory.probe(&Arc::new(spec));
/// # #[expect(clippy::disallowed_methods, reason = "as a caller without our lints writes it")]
/// let deadline = Instant::now() + Duration::from_secs(10);
/// let seen = probe.ask(Question::List, deadline).await;
/// probe.close().await;
/// assert_eq!(seen.failure().unwrap().code, FailureCode::CommandNotFound);
/// # }
/// ```
#[derive(Debug, Clone)]
pub struct McpProbeFactory {
    shared: Arc<Shared>,
}

/// What the probes of one monitor share.
#[derive(Debug, Clone)]
struct Shared {
    http: Arc<HttpClient>,
    places: Places,
    /// The parent of every process that is started; without one this process is.
    guardian: Option<Guardian>,
    /// Measures process trees; `None` where that is switched off.
    sampler: Option<ProcessSampler>,
    client: ClientInfo,
    /// For what ends on a day of the calendar: certificates and tokens.
    clock: Arc<dyn Clock>,
}

impl McpProbeFactory {
    /// A factory for a monitor with these settings; a service's own times and limits come with its
    /// spec.
    pub fn new(settings: &Settings) -> Self {
        let limits = &settings.service_monitoring;
        Self {
            shared: Arc::new(Shared {
                http: Arc::default(),
                places: Places::new(limits.max_starting, limits.max_children),
                guardian: None,
                sampler: settings.performance_enabled().then(ProcessSampler::new),
                client: ClientInfo::default(),
                clock: Arc::new(SystemClock),
            }),
        }
    }

    /// The same with an HTTP client of its own: a private authority, a client certificate.
    #[must_use]
    pub fn with_http(mut self, client: Arc<HttpClient>) -> Self {
        Arc::make_mut(&mut self.shared).http = client;
        self
    }

    /// The same with a guardian, so that no process outlives this one whatever becomes of it.
    #[must_use]
    pub fn with_guardian(mut self, guardian: Guardian) -> Self {
        Arc::make_mut(&mut self.shared).guardian = Some(guardian);
        self
    }

    /// Takes `max_starting` and `max_children` from these settings, for the probes that were made
    /// already too. What is held beyond a smaller bound is kept until it ends.
    pub fn resize(&self, settings: &Settings) {
        let limits = &settings.service_monitoring;
        self.shared.places.resize(limits.max_starting, limits.max_children);
    }

    /// The same by another clock, for tests of what ends on a day of the calendar.
    #[must_use]
    pub fn with_clock(mut self, clock: Arc<dyn Clock>) -> Self {
        Arc::make_mut(&mut self.shared).clock = clock;
        self
    }

    /// The same with a process sampler that is shared with others.
    #[must_use]
    pub fn with_sampler(mut self, sampler: ProcessSampler) -> Self {
        Arc::make_mut(&mut self.shared).sampler = Some(sampler);
        self
    }

    /// A probe for this service, by its own type.
    pub fn mcp_probe(&self, spec: &Arc<ServiceSpec>) -> McpProbe {
        let options = SessionOptions {
            client: self.shared.client.clone(),
            protocol: spec.protocol,
            max_body: usize::try_from(spec.limits.max_body).unwrap_or(usize::MAX),
            connection_timeout: spec.limits.connection_timeout,
            terminate_session: spec.terminate_session,
            redactor: Redactor::new(spec.secrets()),
        };
        McpProbe::new(Arc::clone(&self.shared), Arc::clone(spec), options)
    }
}

impl ProbeFactory for McpProbeFactory {
    fn probe(&self, spec: &Arc<ServiceSpec>) -> Box<dyn Probe> {
        Box::new(self.mcp_probe(spec))
    }
}
