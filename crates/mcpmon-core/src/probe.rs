//! Ports towards what is watched: a probe asks one service, a factory makes probes.

use std::sync::Arc;
use std::time::Instant;

use async_trait::async_trait;

use crate::metrics::SystemMetrics;
use crate::observation::{Observation, Question};
use crate::service::ServiceSpec;

/// Asks one service one question at a time, and holds its session between questions.
///
/// A probe has no error: that a service could not be reached, and why, *is* the observation.
#[async_trait]
pub trait Probe: Send {
    /// Asks `question` and answers before `deadline`, which covers every phase.
    ///
    /// The probe keeps its own deadline, because only it can name the phase reached, cancel the
    /// request and keep or end the session. A caller that drops the future anyway (it should only
    /// as a backstop, a second after the deadline) may go on using the probe: the next question
    /// opens a new session where the old one cannot be trusted.
    async fn ask(&mut self, question: Question, deadline: Instant) -> Observation;

    /// Resolves when the service did something that makes a check due now: its process exited, or
    /// it said that its lists changed. Cancel-safe: dropping the future loses no event.
    ///
    /// The default never resolves.
    async fn woken(&mut self) {
        std::future::pending::<()>().await;
    }

    /// Ends the session: tells the server where the transport has a way to, closes the process's
    /// input, waits, and ends what does not go by itself. Awaited on removal, on stop and for a
    /// restart; after it nothing this probe started is alive, and the next question begins anew.
    async fn close(&mut self);
}

/// Turns a service's settings into a probe.
pub trait ProbeFactory: Send + Sync {
    /// A probe for this service. Does no I/O: what cannot work shows in the first observation.
    fn probe(&self, spec: &Arc<ServiceSpec>) -> Box<dyn Probe>;
}

/// Measures the machine the monitor runs on.
#[async_trait]
pub trait HostProbe: Send {
    /// One sample; rates and CPU are over the time since the last one, at least a second.
    async fn sample(&mut self) -> SystemMetrics;

    /// Whether this machine has a way out: an interface that is up, beside the loopback, and a
    /// route to more than itself. `None` where that cannot be known, which is the default.
    fn is_online(&mut self) -> Option<bool> {
        None
    }
}
