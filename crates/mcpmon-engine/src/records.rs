//! Stored records one after the other, read page by page.

use std::collections::VecDeque;
use std::future::Future;
use std::pin::Pin;

use mcpmon_core::store::{Page, RecordQuery, SampleStore, StoreError};

type Pages<'s, T> = Pin<Box<dyn Future<Output = Result<Page<T>, StoreError>> + Send + 's>>;
type Fetch<T> = for<'s> fn(&'s dyn SampleStore, &'s RecordQuery) -> Pages<'s, T>;

/// The records of one kind that a query asks for.
pub(crate) struct Records<'a, T> {
    store: &'a dyn SampleStore,
    query: RecordQuery,
    fetch: Fetch<T>,
    page: VecDeque<T>,
    is_over: bool,
}

impl<'a, T> Records<'a, T> {
    /// `fetch` asks the store for a page of them.
    pub(crate) fn new(store: &'a dyn SampleStore, query: RecordQuery, fetch: Fetch<T>) -> Self {
        Self { store, query, fetch, page: VecDeque::new(), is_over: false }
    }

    /// Reads the next record and leaves it where it is.
    pub(crate) async fn peek(&mut self) -> Result<Option<&T>, StoreError> {
        while self.page.is_empty() && !self.is_over {
            let page = (self.fetch)(self.store, &self.query).await?;
            self.page = page.items.into();
            self.is_over = page.next.is_none();
            self.query.after = page.next;
        }
        Ok(self.page.front())
    }

    /// Takes out a record that was read.
    pub(crate) fn take_read(&mut self) -> Option<T> {
        self.page.pop_front()
    }

    /// Reads the next record and takes it out.
    pub(crate) async fn take_next(&mut self) -> Result<Option<T>, StoreError> {
        self.peek().await?;
        Ok(self.take_read())
    }
}
