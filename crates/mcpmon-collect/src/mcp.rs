//! The probe of an MCP server: the factory with what all of them share.
//!
//! Shared are the HTTP client with its pools and TLS settings, and the places for processes: how
//! many may be starting at once, because a start costs a CPU second, and how many may be held,
//! because each costs tens of megabytes.

mod probe;

use std::sync::Arc;
use std::time::Duration;

use mcpmon_core::probe::{Probe, ProbeFactory};
use mcpmon_core::secret::Redactor;
use mcpmon_core::service::ServiceSpec;
use mcpmon_core::settings::Settings;
use mcpmon_mcp::SessionOptions;
use mcpmon_mcp::http::HttpClient;
use mcpmon_mcp::protocol::ClientInfo;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, timeout, timeout_at};

pub use self::probe::McpProbe;
use crate::process::ProcessSampler;

/// A start slot is given back after this long even if nothing was answered: a package runner that
/// downloads for a minute uses no CPU to speak of.
const START_SLOT: Duration = Duration::from_secs(5);

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
    /// Measures process trees; `None` where that is switched off.
    sampler: Option<ProcessSampler>,
    client: ClientInfo,
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
                sampler: settings.performance_enabled().then(ProcessSampler::new),
                client: ClientInfo::default(),
            }),
        }
    }

    /// The same with an HTTP client of its own: a private authority, a client certificate.
    #[must_use]
    pub fn with_http(mut self, client: Arc<HttpClient>) -> Self {
        Arc::make_mut(&mut self.shared).http = client;
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

/// Places for processes: being started, and held.
#[derive(Debug, Clone)]
struct Places {
    starting: Arc<Semaphore>,
    held: Arc<Semaphore>,
    max_starting: u32,
    max_held: u32,
}

/// The right to hold one process.
#[derive(Debug)]
struct Place {
    _permit: OwnedSemaphorePermit,
}

/// No place became free in time.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
enum NoPlace {
    #[error("{max} processes are held, as many as `max_children` allows")]
    Held { max: u32 },
    #[error("{max} processes are being started, as many as `max_starting` allows")]
    Starting { max: u32 },
}

impl Places {
    fn new(max_starting: u32, max_held: u32) -> Self {
        let semaphore = |places: u32| Arc::new(Semaphore::new(places as usize));
        Self {
            starting: semaphore(max_starting),
            held: semaphore(max_held),
            max_starting,
            max_held,
        }
    }

    /// Waits for the right to hold a process.
    async fn hold(&self, deadline: Instant) -> Result<Place, NoPlace> {
        let permit = timeout_at(deadline, Arc::clone(&self.held).acquire_owned()).await;
        match permit {
            Ok(Ok(permit)) => Ok(Place { _permit: permit }),
            _ => Err(NoPlace::Held { max: self.max_held }),
        }
    }

    /// Runs a start in a slot, which is given back when the start is over or has taken
    /// [`START_SLOT`].
    async fn start<F: Future>(&self, start: F, deadline: Instant) -> Result<F::Output, NoPlace> {
        let slot = match timeout_at(deadline, self.starting.acquire()).await {
            Ok(Ok(slot)) => slot,
            _ => return Err(NoPlace::Starting { max: self.max_starting }),
        };
        tokio::pin!(start);
        if let Ok(done) = timeout(START_SLOT, &mut start).await {
            return Ok(done);
        }
        drop(slot);
        Ok(start.await)
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::sleep;

    use super::*;

    fn in_(secs: u64) -> Instant {
        Instant::now() + Duration::from_secs(secs)
    }

    #[tokio::test(start_paused = true)]
    async fn a_start_slot_is_given_back_after_five_seconds() {
        let places = Places::new(1, 8);
        let slow = places.start(sleep(Duration::from_secs(60)), in_(90));
        let quick = async {
            sleep(Duration::from_secs(1)).await;
            let asked = Instant::now();
            places.start(async {}, in_(30)).await.unwrap();
            asked.elapsed()
        };
        let (slow, waited) = tokio::join!(slow, quick);
        assert_eq!(slow, Ok(()));
        assert_eq!(waited, Duration::from_secs(4));
    }

    #[tokio::test(start_paused = true)]
    async fn waiting_for_a_place_ends_with_the_deadline() {
        let places = Places::new(1, 1);
        let held = places.hold(in_(1)).await.unwrap();
        assert_eq!(places.hold(in_(3)).await.unwrap_err(), NoPlace::Held { max: 1 });
        drop(held);
        assert!(places.hold(in_(1)).await.is_ok());
        let long = places.start(sleep(Duration::from_secs(4)), in_(10));
        let refused = places.start(async {}, in_(2));
        let (_, refused) = tokio::join!(long, refused);
        assert_eq!(refused, Err(NoPlace::Starting { max: 1 }));
    }
}
