//! Of two tasks of one name, the later begins when the earlier is gone: no service is asked by two
//! probes at once, and no handler is fed by two tasks.

use std::collections::HashMap;
use std::convert::Infallible;
use std::hash::Hash;

use tokio::sync::oneshot;
use tokio::sync::oneshot::error::TryRecvError;

/// Held by a task for as long as it lives; it goes with the task, however that ends.
#[derive(Debug)]
pub(crate) struct Presence {
    _held: oneshot::Sender<Infallible>,
}

/// Tells when the task that holds the [`Presence`] is gone.
#[derive(Debug)]
pub(crate) struct Departure(oneshot::Receiver<Infallible>);

/// The two ends for one task.
pub(crate) fn presence() -> (Presence, Departure) {
    let (held, departure) = oneshot::channel();
    (Presence { _held: held }, Departure(departure))
}

impl Departure {
    /// Waits until the task is gone.
    pub(crate) async fn wait(self) {
        let _ = self.0.await;
    }

    fn is_over(&mut self) -> bool {
        self.0.try_recv() != Err(TryRecvError::Empty)
    }
}

/// Tasks that were told to go and may still be there, by name.
#[derive(Debug)]
pub(crate) struct Departures<K>(HashMap<K, Departure>);

impl<K> Default for Departures<K> {
    fn default() -> Self {
        Self(HashMap::new())
    }
}

impl<K: Hash + Eq> Departures<K> {
    /// Notes a task that was told to go, and forgets those that went.
    pub(crate) fn note(&mut self, name: K, departure: Departure) {
        self.0.retain(|_, departure| !departure.is_over());
        self.0.insert(name, departure);
    }

    /// The task of this name that may still be there, for its successor to wait for.
    pub(crate) fn take(&mut self, name: &K) -> Option<Departure> {
        self.0.remove(name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_departure_ends_with_the_task_and_leaves_nothing_behind() {
        let mut departures = Departures::default();
        let (present, departure) = presence();
        departures.note("a", departure);
        let (other, departure) = presence();
        drop(other);
        departures.note("b", departure);
        assert_eq!(departures.0.len(), 2);
        drop(present);
        departures.take(&"a").unwrap().wait().await;
        let (_present, departure) = presence();
        departures.note("c", departure);
        assert_eq!(departures.0.len(), 1);
    }
}
