//! The async half of the store: every call is one blocking task of the runtime.
//!
//! A future that is dropped leaves its task running, so the work happens whole or not at all.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;
use mcpmon_core::alert::{AlertState, Silence};
use mcpmon_core::monitor::MonitorCommand;
use mcpmon_core::state::StatusChange;
use mcpmon_core::store::{
    AlertQuery, AlertRecord, AuditEntry, AuditQuery, Batch, CheckRecord, CommandQueue, Delivery,
    History, HistoryQuery, HostRecord, HoursQuery, IncidentLog, ListChange, ListRecord, Page,
    PrunePlan, Pruned, RecordQuery, Room, SampleStore, ServiceHours, Settlement, StoreError,
    StoredService, Summary, Transition,
};
use mcpmon_core::{ServiceName, Timestamp};
use tokio::sync::Semaphore;

use crate::aside::SetAside;
use crate::backup::{self, Draft};
use crate::database::{Database, OpenOptions};
use crate::holds::WriterHolds;
use crate::info::{IntegrityReport, StoreInfo};
use crate::mount::{self, FileSystem};
use crate::prune::PruneReport;
use crate::{baseline, file, incidents, pages, prune, questions, rollup, seal, services};

/// History in one SQLite file. Clones share it; the last one dropped closes it.
///
/// Times are kept to 10 µs, percentages and rates to two decimals. Needs a tokio runtime.
#[derive(Debug, Clone)]
pub struct SqliteStore {
    database: Arc<Database>,
    readers: Arc<Semaphore>,
}

impl SqliteStore {
    /// Opens the database at `path`; unless read-only, makes it and its directory where they are
    /// missing (for the owner alone), brings an older schema up to date, and takes it for this
    /// process. Blocks for as long as that takes.
    ///
    /// # Errors
    ///
    /// Says whose the file is, what is wrong with it, or who else writes it. Nothing was changed
    /// then.
    pub fn open(path: impl AsRef<Path>, options: OpenOptions) -> Result<Self, StoreError> {
        Database::open(path.as_ref(), options).map(Self::from_database)
    }

    /// Opens the database beside its monitor, or without one: to ask, and to leave commands.
    ///
    /// # Errors
    ///
    /// As [`SqliteStore::open`]; also where there is no database yet.
    pub fn reader(path: impl AsRef<Path>) -> Result<Self, StoreError> {
        Self::open(path, OpenOptions { read_only: true, ..OpenOptions::default() })
    }

    /// As [`SqliteStore::open`] for a monitor; but a file that is damaged, empty, another program's
    /// or a development version's is put aside under a dated name, unchanged, and a new database
    /// begun. Logs that, and returns where the file is now.
    ///
    /// # Errors
    ///
    /// As [`SqliteStore::open`]: what a newer build wrote, what somebody else has open, and what
    /// may not be touched is refused.
    pub fn open_or_begin(
        path: impl AsRef<Path>,
        options: OpenOptions,
        now: Timestamp,
    ) -> Result<(Self, Option<SetAside>), StoreError> {
        let (database, set_aside) = Database::open_or_begin(path.as_ref(), options, now)?;
        Ok((Self::from_database(database), set_aside))
    }

    fn from_database(database: Database) -> Self {
        let readers = database.options().readers;
        Self { database: Arc::new(database), readers: Arc::new(Semaphore::new(readers)) }
    }

    /// Writes a compact copy of one consistent view to `target`, a new file for the owner alone.
    /// Whoever writes the database goes on. Dropped before it is done, nothing remains of it.
    ///
    /// # Errors
    ///
    /// When `target` exists or cannot be written, or the database not be read.
    pub async fn backup(&self, target: impl AsRef<Path>) -> Result<(), StoreError> {
        let target = target.as_ref().to_path_buf();
        let draft = self.run(move |_| Draft::begin(&target)).await?;
        // The draft is kept here, so that it goes when this does.
        let copier = draft.copier();
        self.ask(move |database| copier.copy(database)).await?;
        self.run(move |_| draft.publish()).await
    }

    /// Puts a copy of `backup` in the place of the database at `path`; what stood there is put
    /// aside under a dated name, which is given. Blocks for as long as that takes.
    ///
    /// # Errors
    ///
    /// When the backup is none of ours, a development version's or not sound, when a monitor writes
    /// the database, or when files cannot be written.
    pub fn restore(
        backup: impl AsRef<Path>,
        path: impl AsRef<Path>,
        now: Timestamp,
    ) -> Result<Option<PathBuf>, StoreError> {
        backup::restore(backup.as_ref(), path.as_ref(), now)
    }

    /// What a plan would delete; deletes nothing.
    ///
    /// # Errors
    ///
    /// When the database cannot be read.
    pub async fn would_prune(&self, plan: &PrunePlan) -> Result<PruneReport, StoreError> {
        let plan = *plan;
        self.ask(move |database| {
            database.read(|connection, _| PruneReport::read(connection, &plan))
        })
        .await
    }

    /// Whether some process, this one included, has the database at `path` open for writing.
    pub fn is_in_use(path: impl AsRef<Path>) -> bool {
        file::locate(path.as_ref(), false).is_ok_and(|path| file::is_locked(&path))
    }

    /// What the file is on; `None` where the system does not say.
    pub fn file_system(&self) -> Option<FileSystem> {
        mount::of(self.path())
    }

    /// The file, its directory resolved.
    pub fn path(&self) -> &Path {
        self.database.path()
    }

    /// What the database holds.
    ///
    /// # Errors
    ///
    /// When it cannot be read.
    pub async fn info(&self) -> Result<StoreInfo, StoreError> {
        self.ask(StoreInfo::read).await
    }

    /// Whether the database is sound. Reads all of it.
    ///
    /// # Errors
    ///
    /// When it cannot be read at all; damage that was found is no error but the answer.
    pub async fn check(&self) -> Result<IntegrityReport, StoreError> {
        self.ask(IntegrityReport::read).await
    }

    /// How long transactions held the writer since this store was opened.
    pub fn writer_holds(&self) -> WriterHolds {
        self.database.holds()
    }

    #[cfg(test)]
    pub(crate) fn database(&self) -> &Database {
        &self.database
    }

    async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Database) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let database = Arc::clone(&self.database);
        match tokio::task::spawn_blocking(move || work(&database)).await {
            Ok(result) => result,
            Err(ended) => match ended.try_into_panic() {
                Ok(panic) => std::panic::resume_unwind(panic),
                Err(_) => Err(StoreError::Closed),
            },
        }
    }

    /// Runs a question; so many at once as there are readers.
    async fn ask<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Database) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let permit = Arc::clone(&self.readers).acquire_owned().await;
        let permit = permit.map_err(|_| StoreError::Closed)?;
        self.run(move |database| {
            let _permit = permit;
            work(database)
        })
        .await
    }
}

#[async_trait]
impl SampleStore for SqliteStore {
    async fn append(&self, batch: &Batch) -> Result<(), StoreError> {
        if batch.is_empty() {
            return Ok(());
        }
        let batch = batch.clone();
        self.run(move |database| {
            database.write(|transaction, mirror| services::append(transaction, mirror, &batch))
        })
        .await
    }

    async fn put_back(&self, batch: &Batch) -> Result<(), StoreError> {
        if batch.is_empty() {
            return Ok(());
        }
        let batch = batch.clone();
        self.run(move |database| {
            database.write(|transaction, mirror| services::put_back(transaction, mirror, &batch))
        })
        .await
    }

    async fn services(&self) -> Result<Vec<StoredService>, StoreError> {
        self.ask(|database| {
            database.read(|connection, words| services::services(connection, words))
        })
        .await
    }

    async fn checks(&self, query: &RecordQuery) -> Result<Page<CheckRecord>, StoreError> {
        let query = query.clone();
        self.ask(move |database| {
            database.read(|connection, words| pages::page(connection, words, &query))
        })
        .await
    }

    async fn changes(&self, query: &RecordQuery) -> Result<Page<StatusChange>, StoreError> {
        let query = query.clone();
        self.ask(move |database| {
            database.read(|connection, words| services::changes(connection, words, &query))
        })
        .await
    }

    async fn host(&self, query: &RecordQuery) -> Result<Page<HostRecord>, StoreError> {
        let query = query.clone();
        self.ask(move |database| database.read(|connection, _| services::host(connection, &query)))
            .await
    }

    async fn last_host(&self) -> Result<Option<HostRecord>, StoreError> {
        self.ask(|database| database.read(|connection, _| services::last_host(connection))).await
    }

    async fn list_changes(&self, query: &RecordQuery) -> Result<Page<ListChange>, StoreError> {
        let query = query.clone();
        self.ask(move |database| {
            database.read(|connection, words| services::list_changes(connection, words, &query))
        })
        .await
    }

    async fn lists(&self, service: &ServiceName) -> Result<Option<ListRecord>, StoreError> {
        let service = service.clone();
        self.ask(move |database| {
            database.read(|connection, words| services::lists(connection, words, &service))
        })
        .await
    }

    async fn history(&self, query: &HistoryQuery) -> Result<History, StoreError> {
        let query = query.clone();
        self.ask(move |database| {
            database.read(|connection, words| questions::history(connection, words, &query))
        })
        .await
    }

    async fn summaries(
        &self,
        since: Timestamp,
        until: Timestamp,
    ) -> Result<Vec<(ServiceName, Summary)>, StoreError> {
        self.ask(move |database| {
            database.read(|connection, words| questions::summaries(connection, words, since, until))
        })
        .await
    }

    async fn last_checks(
        &self,
        service: &ServiceName,
        count: usize,
    ) -> Result<Vec<CheckRecord>, StoreError> {
        let service = service.clone();
        let count = count.min(RecordQuery::LARGEST_PAGE);
        self.ask(move |database| {
            database.read(|connection, words| pages::last(connection, words, &service, count))
        })
        .await
    }

    async fn hours(&self, query: &HoursQuery) -> Result<Vec<ServiceHours>, StoreError> {
        let query = query.clone();
        self.ask(move |database| {
            database.read(|connection, words| baseline::hours(connection, words, &query))
        })
        .await
    }

    async fn prune(&self, plan: &PrunePlan) -> Result<Pruned, StoreError> {
        let plan = *plan;
        self.run(move |database| {
            // One step at a time: what is packed must still be as it was read.
            let _step = database.upkeep();
            // Before anything is deleted, and before it is packed with much that lies around it.
            let summed = database.read(|connection, words| rollup::next(connection, words))?;
            if let Some(step) = summed {
                database
                    .write_step(|transaction, mirror| rollup::place(transaction, mirror, &step))?;
                return Ok(Pruned { rows: 0, more: true });
            }
            let packed = database.read(|connection, words| seal::pack_next(connection, words))?;
            if let Some(slice) = packed {
                database.write_step(|transaction, _| seal::place(transaction, &slice))?;
                return Ok(Pruned { rows: 0, more: true });
            }
            let pruned = database
                .write_step(|transaction, mirror| prune::step(transaction, mirror, &plan))?;
            if pruned.rows > 0 || pruned.more {
                // What was deleted may leave pages to give back, or more to delete.
                return Ok(Pruned { more: true, ..pruned });
            }
            let more = database
                .write_step(|transaction, _| prune::give_back(transaction, plan.most_bytes))?;
            Ok(Pruned { rows: 0, more })
        })
        .await
    }

    async fn room(&self) -> Result<Option<Room>, StoreError> {
        self.run(|database| database.room().map(Some)).await
    }
}

#[async_trait]
impl IncidentLog for SqliteStore {
    async fn states(&self) -> Result<Vec<AlertState>, StoreError> {
        self.ask(|database| database.read(|connection, _| incidents::states(connection))).await
    }

    async fn commit(&self, transition: &Transition) -> Result<(), StoreError> {
        let transition = transition.clone();
        self.run(move |database| {
            database.write(|transaction, _| incidents::commit(transaction, &transition))
        })
        .await
    }

    async fn due(
        &self,
        handler: &str,
        now: Timestamp,
        limit: usize,
    ) -> Result<Vec<Delivery>, StoreError> {
        let handler = handler.to_owned();
        self.ask(move |database| {
            database.read(|connection, _| incidents::due(connection, &handler, now, limit))
        })
        .await
    }

    async fn settle(&self, delivery: i64, settlement: &Settlement) -> Result<(), StoreError> {
        let settlement = settlement.clone();
        self.run(move |database| {
            database.write(|transaction, _| incidents::settle(transaction, delivery, &settlement))
        })
        .await
    }

    async fn settle_many(&self, settlements: &[(i64, Settlement)]) -> Result<(), StoreError> {
        if settlements.is_empty() {
            return Ok(());
        }
        let settlements = settlements.to_vec();
        self.run(move |database| {
            database.write(|transaction, _| {
                let mut all = settlements.iter();
                all.try_for_each(|(id, settled)| incidents::settle(transaction, *id, settled))
            })
        })
        .await
    }

    async fn give_up_for_others(
        &self,
        handlers: &[String],
        at: Timestamp,
        why: &str,
    ) -> Result<u64, StoreError> {
        let (handlers, why) = (handlers.to_vec(), why.to_owned());
        self.run(move |database| {
            let waiting = database
                .read(|connection, _| incidents::waits_for_others(connection, &handlers))?;
            if !waiting {
                return Ok(0);
            }
            database.write(|transaction, _| {
                incidents::give_up_for_others(transaction, &handlers, at, &why)
            })
        })
        .await
    }

    async fn alerts(&self, query: &AlertQuery) -> Result<Vec<AlertRecord>, StoreError> {
        let query = query.clone();
        self.ask(move |database| {
            database.read(|connection, _| incidents::alerts(connection, &query))
        })
        .await
    }

    async fn dead_letters(&self, limit: usize) -> Result<Vec<Delivery>, StoreError> {
        self.ask(move |database| {
            database.read(|connection, _| incidents::dead_letters(connection, limit))
        })
        .await
    }

    async fn revive(&self, handler: &str, now: Timestamp) -> Result<u64, StoreError> {
        let handler = handler.to_owned();
        self.run(move |database| {
            database.write(|transaction, _| incidents::revive(transaction, &handler, now))
        })
        .await
    }

    async fn discard(&self, handler: &str) -> Result<u64, StoreError> {
        let handler = handler.to_owned();
        self.run(move |database| {
            database.write(|transaction, _| incidents::discard(transaction, &handler))
        })
        .await
    }

    async fn silences(&self, now: Timestamp) -> Result<Vec<Silence>, StoreError> {
        self.ask(move |database| {
            database.read(|connection, _| incidents::silences(connection, now))
        })
        .await
    }

    async fn put_silence(&self, silence: &Silence) -> Result<(), StoreError> {
        let silence = silence.clone();
        self.run(move |database| {
            database.write(|transaction, _| incidents::put_silence(transaction, &silence))
        })
        .await
    }

    async fn record(&self, entry: &AuditEntry) -> Result<(), StoreError> {
        let entry = entry.clone();
        self.run(move |database| {
            database.write(|transaction, _| incidents::record(transaction, &entry))
        })
        .await
    }

    async fn audit(&self, query: &AuditQuery) -> Result<Vec<AuditEntry>, StoreError> {
        let query = query.clone();
        self.ask(move |database| {
            database.read(|connection, _| incidents::audit(connection, &query))
        })
        .await
    }
}

#[async_trait]
impl CommandQueue for SqliteStore {
    async fn submit(&self, command: &MonitorCommand) -> Result<(), StoreError> {
        let command = command.clone();
        self.run(move |database| {
            let left = database.write_commands(|connection, watch| {
                incidents::submit(connection, watch, &command)
            })?;
            if left {
                return Ok(());
            }
            let path = database.path().to_path_buf();
            let message = "too many commands wait in it already; start the monitor that takes them";
            Err(StoreError::Io { path, message: message.to_owned() })
        })
        .await
    }

    async fn pending(&self) -> Result<Vec<MonitorCommand>, StoreError> {
        self.ask(|database| database.read(|connection, _| incidents::commands(connection))).await
    }

    async fn take(&self) -> Result<Vec<MonitorCommand>, StoreError> {
        self.run(|database| database.write_commands(incidents::take)).await
    }
}
