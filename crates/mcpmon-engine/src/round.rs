//! When the first round is over: every service was asked, and all of it is judged and stored.
//!
//! Checks go on coming, so "nothing is waiting" may never be true of a large fleet. What counts is
//! that what was waiting when the last service had been asked is done with.

/// How far the first round is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum FirstRound {
    /// Some service was not asked yet.
    Asking,
    /// Everything of it was judged and handed to the store, which has not answered to all yet.
    Storing {
        /// Its last transition, counted from the start.
        commits: u64,
        /// Whether its last batch is still being written.
        batch: bool,
    },
    Over,
}

impl FirstRound {
    /// Everything seen so far was judged; its last transition is the `commits`th, and `batch` says
    /// whether anything of it is being written.
    pub(crate) fn judged(&mut self, commits: u64, batch: bool) {
        if *self == Self::Asking {
            *self = Self::Storing { commits, batch };
        }
    }

    /// Whether it still waits for services to be asked.
    pub(crate) fn is_asking(self) -> bool {
        self == Self::Asking
    }

    /// The batch being written was answered for: written, or known not to be.
    pub(crate) fn batch_done(&mut self) {
        if let Self::Storing { batch, .. } = self {
            *batch = false;
        }
    }

    /// Whether it is over now and was not before; `done` commits were answered for.
    pub(crate) fn ends(&mut self, done: u64) -> bool {
        let ends = matches!(*self, Self::Storing { commits, batch: false } if commits <= done);
        if ends {
            *self = Self::Over;
        }
        ends
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ends_once_when_what_it_saw_is_stored_whatever_came_since() {
        let mut round = FirstRound::Asking;
        assert!(!round.ends(9));
        round.judged(4, true);
        assert!(!round.ends(4));
        // Judged again with more on its way: that is the second round's.
        round.judged(7, true);
        round.batch_done();
        assert!(!round.ends(3));
        assert!(round.ends(4));
        assert!(!round.ends(5));
    }
}
