//! The sessions of legacy HTTP: ids nobody can guess, and no more of them than a cap.

use std::collections::{HashMap, VecDeque};
use std::hash::{BuildHasher, RandomState};

use super::dispatch::Stage;

/// Clients that never end their sessions must not fill our memory: the oldest goes.
const MOST_SESSIONS: usize = 10_000;

/// The open sessions of one server.
#[derive(Debug, Default)]
pub(super) struct Sessions {
    open: HashMap<String, Stage>,
    order: VecDeque<String>,
    opened: u64,
    // The standard library's random keys are the system's randomness; two of them make 128 bits.
    keys: [RandomState; 2],
}

impl Sessions {
    /// Opens a session and gives its id.
    pub(super) fn open(&mut self, stage: Stage) -> String {
        if self.order.len() >= MOST_SESSIONS
            && let Some(oldest) = self.order.pop_front()
        {
            self.open.remove(&oldest);
        }
        self.opened += 1;
        let [high, low] = &self.keys;
        let id = format!("{:016x}{:016x}", high.hash_one(self.opened), low.hash_one(self.opened));
        self.open.insert(id.clone(), stage);
        self.order.push_back(id.clone());
        id
    }

    /// Where a session stands, if it is open.
    pub(super) fn get(&self, id: &str) -> Option<Stage> {
        self.open.get(id).copied()
    }

    /// A session that is open stands here now.
    pub(super) fn set(&mut self, id: &str, stage: Stage) {
        if let Some(open) = self.open.get_mut(id) {
            *open = stage;
        }
    }

    /// Ends a session; `false` if there was none.
    pub(super) fn close(&mut self, id: &str) -> bool {
        self.order.retain(|open| open != id);
        self.open.remove(id).is_some()
    }

    pub(super) fn len(&self) -> usize {
        self.open.len()
    }

    pub(super) fn clear(&mut self) {
        self.open.clear();
        self.order.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_session_goes_when_there_are_too_many() {
        let mut sessions = Sessions::default();
        let first = sessions.open(Stage::Fresh);
        let second = sessions.open(Stage::Fresh);
        for _ in 2..=MOST_SESSIONS {
            sessions.open(Stage::Fresh);
        }
        assert_eq!(sessions.len(), MOST_SESSIONS);
        assert_eq!((sessions.get(&first), sessions.get(&second)), (None, Some(Stage::Fresh)));
        assert!(sessions.close(&second) && !sessions.close(&second));
    }
}
