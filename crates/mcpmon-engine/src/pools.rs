//! How many services are asked at once.
//!
//! By transport, because what a check holds open (a connection, its buffers) has to be bounded, and
//! what never answers must not hold all of it. And over all transports for the first moments of a
//! check: a thousand requests sent in the same instant are answered in a heap, and how long each
//! answer lay there would be told as that service's slowness. So only a few checks are young at a
//! time, and the others begin a little later, which is told as what it is: our lag. What is silent
//! for longer needs no CPU to be waited for, and stands in nobody's way.

use std::sync::Arc;
use std::time::Duration;

use mcpmon_core::Transport;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Services of one transport asked at once. How many processes are started and held is the probe
/// factory's to bound: a service that waits for a place there must not keep one that has its
/// process from being asked.
const IN_FLIGHT: usize = 1_024;
/// Of these, services that failed when they were last asked. The rest is for those that answer: a
/// thousand that are silent to their deadline make none of them late.
const FAILING: usize = 768;

/// Checks that are young at a time, of all transports.
const YOUNG: usize = 16;
/// So long a check is young, if it is not answered before.
pub(crate) const YOUTH: Duration = Duration::from_millis(10);

/// The places of all transports.
#[derive(Debug, Clone)]
pub(crate) struct Pools {
    http: Pool,
    stdio: Pool,
}

/// The places of one transport.
#[derive(Debug, Clone)]
pub(crate) struct Pool {
    all: Arc<Semaphore>,
    failing: Arc<Semaphore>,
    young: Arc<Semaphore>,
}

/// The right to ask, until it is dropped.
#[derive(Debug)]
pub(crate) struct Permit {
    _place: OwnedSemaphorePermit,
    _of_failing: Option<OwnedSemaphorePermit>,
    young: Option<OwnedSemaphorePermit>,
}

impl Permit {
    /// Lets another check begin; `false` if that was done before.
    pub(crate) fn grow_up(&mut self) -> bool {
        self.young.take().is_some()
    }
}

impl Pools {
    pub(crate) fn new() -> Self {
        let young = Arc::new(Semaphore::new(YOUNG));
        let pool = || Pool::new(IN_FLIGHT, FAILING, Arc::clone(&young));
        Self { http: pool(), stdio: pool() }
    }

    pub(crate) fn of(&self, transport: &Transport) -> Pool {
        match transport {
            Transport::Stdio(_) => self.stdio.clone(),
            Transport::Http(_) | Transport::Sse(_) => self.http.clone(),
        }
    }
}

impl Pool {
    fn new(all: usize, failing: usize, young: Arc<Semaphore>) -> Self {
        let places = |count| Arc::new(Semaphore::new(count));
        Self { all: places(all), failing: places(failing), young }
    }

    /// Waits for a place. Cancel-safe, but whoever is dropped loses its place in the queue.
    pub(crate) async fn enter(self, is_failing: bool) -> Permit {
        let of_failing = if is_failing { place(self.failing).await } else { None };
        let Some(all) = place(self.all).await else {
            // Pools are never closed.
            return std::future::pending().await;
        };
        let young = place(self.young).await;
        Permit { _place: all, _of_failing: of_failing, young }
    }
}

async fn place(places: Arc<Semaphore>) -> Option<OwnedSemaphorePermit> {
    places.acquire_owned().await.ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;
    use tokio::time::timeout;

    #[tokio::test(start_paused = true)]
    async fn those_that_fail_leave_room_for_those_that_answer() {
        let pool = Pool::new(3, 2, Arc::new(Semaphore::new(9)));
        let enter = |failing| timeout(Duration::from_secs(1), pool.clone().enter(failing));
        let first = enter(true).await.unwrap();
        let _second = enter(true).await.unwrap();
        assert!(enter(true).await.is_err());
        let well = enter(false).await.unwrap();
        assert!(enter(false).await.is_err());
        drop(well);
        drop(first);
        assert!(enter(true).await.is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn few_checks_of_all_transports_are_young_at_a_time() {
        let young = Arc::new(Semaphore::new(1));
        let (http, stdio) = (Pool::new(9, 9, Arc::clone(&young)), Pool::new(9, 9, young));
        let enter = |pool: &Pool| timeout(Duration::from_secs(1), pool.clone().enter(false));
        let mut first = enter(&http).await.unwrap();
        assert!(enter(&stdio).await.is_err());
        assert!(first.grow_up());
        assert!(!first.grow_up());
        assert!(enter(&stdio).await.is_ok());
    }
}
