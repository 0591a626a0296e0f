//! How records are asked for: page by page, so that no table is ever whole in memory.

use std::time::Duration;

use crate::service::ServiceName;
use crate::time::Timestamp;

/// Which records are asked for; oldest first.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct RecordQuery {
    /// Only of this service.
    pub service: Option<ServiceName>,
    /// From this moment on, itself included.
    pub since: Option<Timestamp>,
    /// Before this moment.
    pub until: Option<Timestamp>,
    /// At most so many; the store may give fewer and a cursor.
    pub limit: usize,
    /// Where the page before ended.
    pub after: Option<Cursor>,
}

impl RecordQuery {
    /// Pages are at most this long.
    pub const LARGEST_PAGE: usize = 10_000;

    /// Everything of one service since a moment.
    pub fn of(service: ServiceName) -> Self {
        Self { service: Some(service), limit: Self::LARGEST_PAGE, ..Self::default() }
    }

    /// Everything of every service.
    pub fn all() -> Self {
        Self { limit: Self::LARGEST_PAGE, ..Self::default() }
    }

    /// Only from this moment on.
    #[must_use]
    pub fn since(mut self, since: Timestamp) -> Self {
        self.since = Some(since);
        self
    }

    /// Only up to this moment, itself included. A reader that counts up to now asks this way: where
    /// the wall clock was set back, records are stored under moments that are yet to come.
    #[must_use]
    pub fn up_to(mut self, last: Timestamp) -> Self {
        self.until = Some(last.saturating_add(Duration::from_millis(1)));
        self
    }
}

/// Where a page ended; opaque, and good only for the query it came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cursor {
    /// Time of the last record.
    pub at: Timestamp,
    /// What tells records of one time apart.
    pub tie: i64,
}

/// A part of an answer, so that no table is ever whole in memory.
#[derive(Debug, Clone, PartialEq)]
pub struct Page<T> {
    /// The records.
    pub items: Vec<T>,
    /// Where to go on, if there may be more.
    pub next: Option<Cursor>,
}
