//! The port of what was seen.

use async_trait::async_trait;

use super::history::{self, History, HistoryQuery, Summary};
use super::{
    Batch, CheckRecord, HostRecord, HoursQuery, ListChange, ListRecord, Page, PrunePlan, Pruned,
    RecordQuery, Room, ServiceHours, StoreError, StoredService,
};
use crate::service::ServiceName;
use crate::state::StatusChange;
use crate::time::Timestamp;

/// Keeps what was seen.
#[async_trait]
pub trait SampleStore: Send + Sync {
    /// Writes a batch in one transaction; returns once it is durable. Of each service's changes of
    /// lists the newest [`ListChange::MOST_KEPT`] stay.
    ///
    /// # Errors
    ///
    /// Nothing of the batch was written; it may be given again.
    async fn append(&self, batch: &Batch) -> Result<(), StoreError>;

    /// Writes a batch of the past, as an import has it: where a service's own changes go on behind
    /// those of the batch, its condition stays what it is, and a check from before its last one does
    /// not become its last. A store that keeps neither apart need not tell the two from each other.
    ///
    /// # Errors
    ///
    /// As [`SampleStore::append`].
    async fn put_back(&self, batch: &Batch) -> Result<(), StoreError> {
        self.append(batch).await
    }

    /// Every service ever seen, as last known, by name.
    ///
    /// # Errors
    ///
    /// When the store cannot be read.
    async fn services(&self) -> Result<Vec<StoredService>, StoreError>;

    /// Checks, oldest first.
    ///
    /// # Errors
    ///
    /// When the store cannot be read.
    async fn checks(&self, query: &RecordQuery) -> Result<Page<CheckRecord>, StoreError>;

    /// Changes of status, oldest first.
    ///
    /// # Errors
    ///
    /// When the store cannot be read.
    async fn changes(&self, query: &RecordQuery) -> Result<Page<StatusChange>, StoreError>;

    /// Samples of the machine, oldest first; `query.service` is not looked at.
    ///
    /// # Errors
    ///
    /// When the store cannot be read.
    async fn host(&self, query: &RecordQuery) -> Result<Page<HostRecord>, StoreError>;

    /// The newest sample of the machine.
    ///
    /// # Errors
    ///
    /// When the store cannot be read.
    async fn last_host(&self) -> Result<Option<HostRecord>, StoreError>;

    /// A service's lists as last read. A list that was not given with the last ones is here as it
    /// was before: a store completes what it appends ([`Lists::complete_from`]), so that the next
    /// monitor compares with all that is known.
    ///
    /// [`Lists::complete_from`]: crate::observation::Lists::complete_from
    ///
    /// # Errors
    ///
    /// When the store cannot be read.
    async fn lists(&self, service: &ServiceName) -> Result<Option<ListRecord>, StoreError>;

    /// Changes of lists, oldest first. A store that answers nothing forgets, at a restart, changes
    /// that were not reported yet.
    ///
    /// # Errors
    ///
    /// When the store cannot be read.
    async fn list_changes(&self, query: &RecordQuery) -> Result<Page<ListChange>, StoreError> {
        let _ = query;
        Ok(Page { items: Vec::new(), next: None })
    }

    /// A service's past in steps: counts, latencies, time in each status. A service nobody has
    /// seen was `unknown` all the time.
    ///
    /// # Errors
    ///
    /// When the store cannot be read.
    async fn history(&self, query: &HistoryQuery) -> Result<History, StoreError> {
        let services = self.services().await?;
        let known = services.iter().find(|stored| stored.facts.service == query.service);
        let reach = known.map_or_else(|| history::reach(None), |stored| stored.facts.reach());
        history::history_of_records(self, query, reach).await
    }

    /// Every service's summary of a span, by name. A store may begin up to a quarter of an hour
    /// before `since` (an hour where it has nothing finer), to have less to read.
    ///
    /// # Errors
    ///
    /// When the store cannot be read.
    async fn summaries(
        &self,
        since: Timestamp,
        until: Timestamp,
    ) -> Result<Vec<(ServiceName, Summary)>, StoreError> {
        let mut summaries = Vec::new();
        for stored in self.services().await? {
            let reach = stored.facts.reach();
            let service = stored.facts.service;
            let query = HistoryQuery { service: service.clone(), since, until, step: None };
            let history = history::history_of_records(self, &query, reach).await?;
            summaries.push((service, history.whole()));
        }
        Ok(summaries)
    }

    /// The newest checks of a service, oldest first; at most [`RecordQuery::LARGEST_PAGE`].
    ///
    /// # Errors
    ///
    /// When the store cannot be read.
    async fn last_checks(
        &self,
        service: &ServiceName,
        count: usize,
    ) -> Result<Vec<CheckRecord>, StoreError> {
        let count = count.min(RecordQuery::LARGEST_PAGE);
        let mut query = RecordQuery::of(service.clone());
        let mut last = std::collections::VecDeque::new();
        loop {
            let page = self.checks(&query).await?;
            last.extend(page.items);
            last.drain(..last.len().saturating_sub(count));
            match page.next {
                Some(next) => query.after = Some(next),
                None => return Ok(last.into()),
            }
        }
    }

    /// What whole hours of the past were like for some services, oldest first; hours nobody looked
    /// in are left out, and so may be the newest. Cheap: it is asked often, beside everything else.
    /// A store that answers nothing leaves the rules without what is usual.
    ///
    /// # Errors
    ///
    /// When the store cannot be read.
    async fn hours(&self, query: &HoursQuery) -> Result<Vec<ServiceHours>, StoreError> {
        let _ = query;
        Ok(Vec::new())
    }

    /// Carries out one small step of a plan, so that nobody waits long for the writer.
    ///
    /// # Errors
    ///
    /// When the store cannot be written; what was deleted stays deleted.
    async fn prune(&self, plan: &PrunePlan) -> Result<Pruned, StoreError>;

    /// How much room the store takes and has; `None` from a store that has no such bound. Cheap: it
    /// is asked every few seconds.
    ///
    /// # Errors
    ///
    /// When that cannot be found out.
    async fn room(&self) -> Result<Option<Room>, StoreError> {
        Ok(None)
    }
}
