//! Connections, by origin: at most 64 each, kept for 10 seconds after use.
//!
//! A monitor asks each service every half minute, so a kept socket would mostly be an idle one,
//! held open on both sides for nothing; and a dial each time is what measures DNS, connect and
//! TLS. So connections live for the few requests of one check, and what held them is given back.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, sleep};

use super::connection::Connection;
use super::endpoint::Origin;

/// Most connections to one origin.
pub const MAX_PER_ORIGIN: usize = 64;
/// How long a connection is kept for the next request.
pub const IDLE: Duration = Duration::from_secs(10);

const SWEEP: Duration = Duration::from_secs(1);

/// Connections to every origin.
#[derive(Debug, Default)]
pub(super) struct Pool {
    shelves: Mutex<Shelves>,
}

#[derive(Debug, Default)]
struct Shelves {
    by_origin: HashMap<Origin, Arc<Shelf>>,
    /// Whether a task is there that clears what was idle for too long.
    swept: bool,
}

/// Connections to one origin.
#[derive(Debug)]
struct Shelf {
    /// One for each connection in use. Since an idle one is always taken first, idle and used ones
    /// together never exceed it.
    slots: Arc<Semaphore>,
    idle: Mutex<Vec<Idle>>,
}

#[derive(Debug)]
struct Idle {
    connection: Connection,
    since: Instant,
}

/// The right to use one connection to an origin.
#[derive(Debug)]
pub(super) struct Slot {
    shelf: Arc<Shelf>,
    pool: Weak<Pool>,
    _permit: Option<OwnedSemaphorePermit>,
    /// The connection that goes with the right, between two requests of one check.
    held: Option<Connection>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Pool {
    /// Waits for the right to use a connection to `origin`.
    pub(super) async fn slot(self: &Arc<Self>, origin: &Origin) -> Slot {
        let shelf = lock(&self.shelves).shelf(origin);
        let permit = Arc::clone(&shelf.slots).acquire_owned().await.ok();
        Slot { shelf, pool: Arc::downgrade(self), _permit: permit, held: None }
    }

    fn start_sweeping(self: &Arc<Self>) {
        if std::mem::replace(&mut lock(&self.shelves).swept, true) {
            return;
        }
        let pool = Arc::downgrade(self);
        tokio::spawn(async move {
            // Should the runtime end before the last sweep, the next one's pool starts anew.
            let mut guard = SweepGuard { pool: Weak::clone(&pool), done: false };
            loop {
                sleep(SWEEP).await;
                let Some(pool) = pool.upgrade() else { return };
                if lock(&pool.shelves).sweep(Instant::now()) {
                    guard.done = true;
                    return;
                }
            }
        });
    }

    /// Connections kept idle, to all origins.
    #[cfg(test)]
    pub(super) fn idle(&self) -> usize {
        lock(&self.shelves).by_origin.values().map(|shelf| lock(&shelf.idle).len()).sum()
    }

    /// Origins something is kept for.
    #[cfg(test)]
    pub(super) fn origins(&self) -> usize {
        lock(&self.shelves).by_origin.len()
    }
}

struct SweepGuard {
    pool: Weak<Pool>,
    done: bool,
}

impl Drop for SweepGuard {
    fn drop(&mut self) {
        if !self.done
            && let Some(pool) = self.pool.upgrade()
        {
            lock(&pool.shelves).swept = false;
        }
    }
}

impl Shelves {
    fn shelf(&mut self, origin: &Origin) -> Arc<Shelf> {
        if let Some(shelf) = self.by_origin.get(origin) {
            return Arc::clone(shelf);
        }
        let shelf = Arc::new(Shelf {
            slots: Arc::new(Semaphore::new(MAX_PER_ORIGIN)),
            idle: Mutex::default(),
        });
        self.by_origin.insert(origin.clone(), Arc::clone(&shelf));
        shelf
    }

    /// Closes what was idle for too long at `now`; `true` once nothing is left to come back for.
    fn sweep(&mut self, now: Instant) -> bool {
        self.by_origin.retain(|_, shelf| {
            let mut idle = lock(&shelf.idle);
            idle.retain_mut(|idle| {
                now.saturating_duration_since(idle.since) < IDLE && idle.connection.is_ready()
            });
            // Somebody with a slot, or waiting for one, holds the shelf too.
            !idle.is_empty() || Arc::strong_count(shelf) > 1
        });
        self.swept = !self.by_origin.is_empty();
        if !self.swept {
            self.by_origin.shrink_to_fit();
        }
        !self.swept
    }
}

impl Slot {
    /// A connection that is kept and, as far as can be seen from here, still open.
    pub(super) fn take_idle(&mut self) -> Option<Connection> {
        if let Some(mut connection) = self.held.take()
            && connection.is_ready()
        {
            return Some(connection);
        }
        loop {
            let Idle { mut connection, since } = lock(&self.shelf.idle).pop()?;
            if since.elapsed() < IDLE && connection.is_ready() {
                return Some(connection);
            }
        }
    }

    /// Keeps the right and its connection together, for a next request at once.
    pub(super) fn hold(mut self, connection: Connection) -> Self {
        self.held = Some(connection);
        self
    }

    /// Gives up the right; a connection that goes with it is kept for whoever is next.
    pub(super) fn let_go(mut self) {
        if let Some(connection) = self.held.take() {
            self.give_back(connection);
        }
    }

    /// Keeps a connection for the next request.
    pub(super) fn give_back(self, mut connection: Connection) {
        if !connection.is_ready() {
            return;
        }
        lock(&self.shelf.idle).push(Idle { connection, since: Instant::now() });
        if let Some(pool) = self.pool.upgrade() {
            pool.start_sweeping();
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, DuplexStream, duplex};
    use tokio::time::timeout;

    use super::*;

    fn origin() -> Origin {
        Origin { secure: false, host: "h".to_owned(), port: 80 }
    }

    async fn connected() -> (Connection, DuplexStream) {
        let (near, far) = duplex(1_024);
        (Connection::over(near).await.unwrap(), far)
    }

    #[tokio::test(start_paused = true)]
    async fn an_idle_connection_is_used_again_for_ten_seconds_and_then_closed() {
        let pool = Arc::new(Pool::default());
        let (connection, mut far) = connected().await;
        pool.slot(&origin()).await.give_back(connection);
        sleep(Duration::from_secs(9)).await;
        let mut slot = pool.slot(&origin()).await;
        let connection = slot.take_idle().unwrap();
        slot.give_back(connection);
        let started = Instant::now();
        assert_eq!(far.read(&mut [0; 8]).await.unwrap(), 0);
        let kept = started.elapsed();
        assert!((10..=11).contains(&kept.as_secs()), "{kept:?}");
        assert_eq!((pool.idle(), pool.origins()), (0, 0));
        let (connection, _far) = connected().await;
        pool.slot(&origin()).await.give_back(connection);
        sleep(Duration::from_secs(12)).await;
        assert_eq!(pool.origins(), 0, "a second sweep follows a second use");
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_the_server_closed_is_not_used_again() {
        let pool = Arc::new(Pool::default());
        let (connection, far) = connected().await;
        let slot = pool.slot(&origin()).await;
        slot.give_back(connection);
        drop(far);
        sleep(Duration::from_millis(1)).await;
        assert!(pool.slot(&origin()).await.take_idle().is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn an_origin_has_at_most_its_number_of_connections() {
        let pool = Arc::new(Pool::default());
        let mut slots = Vec::new();
        for _ in 0..MAX_PER_ORIGIN {
            slots.push(pool.slot(&origin()).await);
        }
        let other = Origin { port: 81, ..origin() };
        assert!(timeout(Duration::from_secs(1), pool.slot(&other)).await.is_ok());
        assert!(timeout(Duration::from_secs(1), pool.slot(&origin())).await.is_err());
        slots.pop();
        assert!(timeout(Duration::from_secs(1), pool.slot(&origin())).await.is_ok());
    }
}
