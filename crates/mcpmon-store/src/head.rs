//! The append-only head: checks in the order they came, and how a time is found among them.
//!
//! Checks are numbered. What an append brings is one row, which has the number of its first check
//! (`batch`), and there is no other index. Checks are nearly in order of time (one is appended when
//! it ends, and they last differently long), so a *mark* for each run of up to 1,024 checks says
//! which times it spans, at most [`SPAN`]. A row never reaches from one run into the next. A
//! question for a time range seeks in the marks and reads whole runs; sealing and retention take
//! runs from the front (`seal`, `prune`).
//!
//! A service's last check is wanted by every `status`, also in other processes, but a row per
//! service and batch would cost more than all else an append does. So the pointers are brought up
//! to date every [`POINTER_STRIDE`] checks, and readers look through the few checks since.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::atomic::{AtomicBool, Ordering};

use mcpmon_core::store::CheckRecord;
use rusqlite::{Connection, OptionalExtension, Row as SqlRow, Transaction, params};

use crate::batch::{BatchReader, BatchWriter, Packed};
use crate::block;
use crate::row::Row;
use crate::services::{Directory, Words};

/// Longest time between the checks of one run, in ms: how far before a moment a run with checks
/// at that moment can begin.
pub(crate) const SPAN: i64 = 600_000;
/// Checks of one run.
const RUN: i64 = 1_024;
/// Checks appended between two updates of the last-check pointers.
const POINTER_STRIDE: i64 = 16_384;

/// A run of checks and the times it spans.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Mark {
    pub(crate) first: i64,
    pub(crate) last: i64,
    pub(crate) kept: i64,
    pub(crate) min_at: i64,
    pub(crate) max_at: i64,
}

impl Mark {
    pub(crate) const COLUMNS: &'static str = "first, last, kept, min_at, max_at";

    fn begin(id: i64, at: i64) -> Self {
        Self { first: id, last: id, kept: 1, min_at: at, max_at: at }
    }

    pub(crate) fn read(row: &SqlRow<'_>) -> rusqlite::Result<Self> {
        Ok(Self {
            first: row.get(0)?,
            last: row.get(1)?,
            kept: row.get(2)?,
            min_at: row.get(3)?,
            max_at: row.get(4)?,
        })
    }

    /// Takes in the next check, if it fits.
    fn extend(&mut self, id: i64, at: i64) -> bool {
        let (min_at, max_at) = (self.min_at.min(at), self.max_at.max(at));
        if self.kept >= RUN || max_at.saturating_sub(min_at) > SPAN {
            return false;
        }
        (self.last, self.kept, self.min_at, self.max_at) = (id, self.kept + 1, min_at, max_at);
        true
    }

    fn write(&self, transaction: &Transaction<'_>) -> rusqlite::Result<()> {
        let sql = "INSERT INTO head_mark (first, last, kept, min_at, max_at)
                   VALUES (?1, ?2, ?3, ?4, ?5)
                   ON CONFLICT (first) DO UPDATE SET
                       last = excluded.last, kept = excluded.kept,
                       min_at = excluded.min_at, max_at = excluded.max_at";
        let values = params![self.first, self.last, self.kept, self.min_at, self.max_at];
        transaction.prepare_cached(sql)?.execute(values)?;
        Ok(())
    }
}

/// The end of the head, as the writer remembers it.
#[derive(Debug)]
pub(crate) struct Head {
    next: i64,
    open: Option<Mark>,
    /// Last check of each service since the pointers were written, by its number; 0 is none.
    recent: Vec<i64>,
    pointed_through: i64,
    /// The row being packed, and the number of its first check.
    batch: BatchWriter,
    batch_first: i64,
}

impl Head {
    pub(crate) fn load(connection: &Connection) -> rusqlite::Result<Self> {
        // The newest mark outlives its rows, so numbers are never given twice.
        let next = connection.query_row(
            "SELECT coalesce(max(last), 0) + 1 FROM head_mark",
            [],
            |row| row.get(0),
        )?;
        let open = connection
            .prepare(&format!(
                "SELECT {} FROM head_mark ORDER BY first DESC LIMIT 1",
                Mark::COLUMNS
            ))?
            .query_map([], Mark::read)?
            .next()
            .transpose()?;
        let pointed_through = pointed_through(connection)?;
        let mut head = Self {
            next,
            open,
            recent: Vec::new(),
            pointed_through,
            batch: BatchWriter::default(),
            batch_first: next,
        };
        each_sound(connection, pointed_through.saturating_add(1), i64::MAX, |id, packed| {
            head.remember(packed.service, id);
            Some(())
        })?;
        Ok(head)
    }

    /// Appends checks in their order.
    pub(crate) fn append(
        &mut self,
        transaction: &Transaction<'_>,
        directory: &mut Directory,
        checks: &[CheckRecord],
    ) -> rusqlite::Result<()> {
        if checks.is_empty() {
            return Ok(());
        }
        self.batch_first = self.next;
        for check in checks {
            let service = directory.service(transaction, &check.service)?;
            let code = match check.code {
                Some(code) => directory.code(transaction, code)?,
                None => 0,
            };
            self.push(transaction, service, &Row::of(check, code)?)?;
        }
        self.flush(transaction)?;
        if self.next - self.pointed_through > POINTER_STRIDE {
            self.write_pointers(transaction)?;
        }
        Ok(())
    }

    fn push(
        &mut self,
        transaction: &Transaction<'_>,
        service: i64,
        row: &Row,
    ) -> rusqlite::Result<()> {
        let id = self.next;
        if !self.open.as_mut().is_some_and(|open| open.extend(id, row.at)) {
            self.flush(transaction)?;
            self.open = Some(Mark::begin(id, row.at));
        }
        self.batch.push(service, row);
        self.remember(service, id);
        self.next += 1;
        Ok(())
    }

    /// Writes the checks of the run that is open, and its mark.
    fn flush(&mut self, transaction: &Transaction<'_>) -> rusqlite::Result<()> {
        if !self.batch.is_empty() {
            insert(transaction, self.batch_first, &self.batch)?;
            self.batch.clear();
        }
        self.batch_first = self.next;
        self.open.as_ref().map_or(Ok(()), |open| open.write(transaction))
    }

    /// What will be the last check of each service of a batch of the past, by number; 0 where one
    /// is that has left the head.
    pub(crate) fn last_of(
        &self,
        transaction: &Transaction<'_>,
        directory: &mut Directory,
        checks: &[CheckRecord],
    ) -> rusqlite::Result<HashMap<i64, i64>> {
        let mut last: HashMap<i64, (i64, i64)> = HashMap::new();
        let mut pointer =
            transaction.prepare_cached("SELECT head, packed FROM last_check WHERE service = ?1")?;
        for (id, check) in (self.next..).zip(checks) {
            let service = directory.service(transaction, &check.service)?;
            let (known, at) = match last.entry(service) {
                Entry::Occupied(known) => known.into_mut(),
                Entry::Vacant(new) => {
                    let recent = usize::try_from(service).ok().and_then(|at| self.recent.get(at));
                    let recent = recent.copied().filter(|id| *id != 0);
                    let known = pointer.query_row([service], |row| {
                        let packed = row.get_ref(1)?.as_blob_or_null()?.and_then(block::unpack);
                        Ok((row.get::<_, i64>(0)?, packed.and_then(|rows| rows.first().copied())))
                    });
                    let (pointed, packed) = known.optional()?.unwrap_or_default();
                    let known = recent.unwrap_or(pointed);
                    let in_head = rows_of_head(transaction, &[known])?.remove(&known);
                    let row = in_head.or(packed);
                    let known = if in_head.is_some() { known } else { 0 };
                    new.insert((known, row.map_or(i64::MIN, |row| row.at)))
                }
            };
            if check.at.as_millis() >= *at {
                (*known, *at) = (id, check.at.as_millis());
            }
        }
        Ok(last.into_iter().map(|(service, (id, _))| (service, id)).collect())
    }

    /// Makes these the last checks of their services, whatever was appended last.
    pub(crate) fn point_to(
        &mut self,
        transaction: &Transaction<'_>,
        last: HashMap<i64, i64>,
    ) -> rusqlite::Result<()> {
        if last.is_empty() {
            return Ok(());
        }
        for (service, id) in last {
            self.remember(service, id);
        }
        self.write_pointers(transaction)
    }

    fn remember(&mut self, service: i64, id: i64) {
        let at = usize::try_from(service).unwrap_or(0);
        if at >= self.recent.len() {
            self.recent.resize(at + 1, 0);
        }
        self.recent[at] = id;
    }

    fn write_pointers(&mut self, transaction: &Transaction<'_>) -> rusqlite::Result<()> {
        let sql = "INSERT INTO last_check (service, head) VALUES (?1, ?2)
                   ON CONFLICT (service) DO UPDATE SET head = excluded.head";
        let mut upsert = transaction.prepare_cached(sql)?;
        for (service, id) in self.recent.iter_mut().enumerate().filter(|(_, id)| **id != 0) {
            upsert.execute(params![service as i64, *id])?;
            *id = 0;
        }
        self.pointed_through = self.next - 1;
        let sql = "INSERT OR REPLACE INTO meta (key, value) VALUES ('last_check_through', ?1)";
        transaction.prepare_cached(sql)?.execute([self.pointed_through])?;
        Ok(())
    }
}

fn insert(transaction: &Transaction<'_>, first: i64, batch: &BatchWriter) -> rusqlite::Result<()> {
    let sql = "INSERT INTO head (first, checks) VALUES (?1, ?2)";
    transaction.prepare_cached(sql)?.execute(params![first, batch.bytes()])?;
    Ok(())
}

/// The rows with the checks from one number to another.
const ROWS: &str = "SELECT first, checks FROM head
    WHERE first >= coalesce((SELECT max(first) FROM head WHERE first <= ?1), ?1)
      AND first <= ?2
    ORDER BY first";

/// Gives the checks numbered from `first` to `last`, in order, with their numbers.
pub(crate) fn each(
    connection: &Connection,
    first: i64,
    last: i64,
    mut give: impl FnMut(i64, Packed<'_>) -> rusqlite::Result<()>,
) -> rusqlite::Result<()> {
    let mut statement = connection.prepare_cached(ROWS)?;
    let mut rows = statement.query([first, last])?;
    while let Some(row) = rows.next()? {
        let begin: i64 = row.get(0)?;
        for (id, packed) in (begin..).zip(BatchReader::new(row.get_ref(1)?.as_blob()?)) {
            let packed = packed.ok_or_else(|| damaged(begin))?;
            if (first..=last).contains(&id) {
                give(id, packed)?;
            }
        }
    }
    Ok(())
}

/// As [`each`], for what must go on: one damaged row must not stop upkeep for ever. What is
/// damaged, and what stands behind it in its row, is left out and said once; `give` answers `None`
/// for a check it finds damaged.
pub(crate) fn each_sound(
    connection: &Connection,
    first: i64,
    last: i64,
    mut give: impl FnMut(i64, Packed<'_>) -> Option<()>,
) -> rusqlite::Result<()> {
    let mut rows = connection.prepare_cached(ROWS)?;
    let mut rows = rows.query([first, last])?;
    while let Some(row) = rows.next()? {
        let begin: i64 = row.get(0)?;
        for (id, packed) in (begin..).zip(BatchReader::new(row.get_ref(1)?.as_blob()?)) {
            let is_asked = (first..=last).contains(&id);
            let given =
                packed.and_then(|packed| if is_asked { give(id, packed) } else { Some(()) });
            if given.is_none() {
                tell_damaged(id);
            }
        }
    }
    Ok(())
}

/// Says once that something cannot be unpacked, by its number.
pub(crate) fn tell_damaged(id: i64) {
    static TOLD: AtomicBool = AtomicBool::new(false);
    if !TOLD.swap(true, Ordering::Relaxed) {
        tracing::error!(
            number = id,
            "Checks in the database are damaged; they are left out of summaries, and there may be \
             more: `mcpmon db check` looks"
        );
    }
}

/// The error of a row of the head that cannot be unpacked, by the number of its first check.
pub(crate) fn damaged(first: i64) -> rusqlite::Error {
    let message = format!("checks from number {first} on cannot be unpacked");
    rusqlite::Error::FromSqlConversionFailure(1, rusqlite::types::Type::Blob, message.into())
}

/// Deletes checks from before a moment, run by run, until `most` are gone or none is left; says
/// how many went.
pub(crate) fn prune(
    transaction: &Transaction<'_>,
    before: i64,
    most: u64,
) -> rusqlite::Result<u64> {
    let mut gone = 0;
    let sql = format!(
        "SELECT {} FROM head_mark WHERE min_at < ?1 ORDER BY min_at LIMIT 1",
        Mark::COLUMNS
    );
    while gone < most {
        let mark = transaction.prepare_cached(&sql)?.query_row([before], Mark::read).optional()?;
        let Some(mark) = mark else { break };
        gone += prune_run(transaction, &mark, before)?;
    }
    Ok(gone)
}

/// Deletes the old checks of one run and puts its mark right: behind it, no check of the run is
/// older than `before`. Says how many went.
fn prune_run(transaction: &Transaction<'_>, mark: &Mark, before: i64) -> rusqlite::Result<u64> {
    let mut kept: Vec<(i64, i64, Row)> = Vec::new();
    each_sound(transaction, mark.first, mark.last, |id, packed| {
        if packed.at >= before {
            kept.push((id, packed.service, packed.row()?));
        }
        Some(())
    })?;
    let sql = "DELETE FROM head WHERE first BETWEEN ?1 AND ?2";
    transaction.prepare_cached(sql)?.execute([mark.first, mark.last])?;
    // Numbers stay what they were: a row is made of every stretch without a gap.
    for stretch in kept.chunk_by(|(one, ..), (next, ..)| one + 1 == *next) {
        let mut batch = BatchWriter::default();
        stretch.iter().for_each(|(_, service, row)| batch.push(*service, row));
        insert(transaction, stretch[0].0, &batch)?;
    }
    // The newest mark stays even when nothing of it is left: it knows which numbers were given.
    let newest = "SELECT NOT EXISTS (SELECT 1 FROM head_mark WHERE first > ?1)";
    let is_newest: bool =
        transaction.prepare_cached(newest)?.query_row([mark.first], |row| row.get(0))?;
    if kept.is_empty() && !is_newest {
        let sql = "DELETE FROM head_mark WHERE first = ?1";
        transaction.prepare_cached(sql)?.execute([mark.first])?;
    } else {
        let times = || kept.iter().map(|(_, _, row)| row.at);
        let min_at = times().min().unwrap_or(before);
        let max_at = times().max().unwrap_or(before);
        Mark { kept: kept.len() as i64, min_at, max_at, ..*mark }.write(transaction)?;
    }
    Ok(u64::try_from(mark.kept).unwrap_or(0).saturating_sub(kept.len() as u64))
}

/// How many checks are from before a moment.
pub(crate) fn count_before(connection: &Connection, before: i64) -> rusqlite::Result<u64> {
    let sql = format!("SELECT {} FROM head_mark WHERE min_at < ?1", Mark::COLUMNS);
    let mut statement = connection.prepare_cached(&sql)?;
    let mut marks = statement.query([before])?;
    let mut found = 0;
    while let Some(row) = marks.next()? {
        let mark = Mark::read(row)?;
        if mark.max_at < before {
            found += u64::try_from(mark.kept).unwrap_or(0);
            continue;
        }
        each(connection, mark.first, mark.last, |_, packed| {
            found += u64::from(packed.at < before);
            Ok(())
        })?;
    }
    Ok(found)
}

fn pointed_through(connection: &Connection) -> rusqlite::Result<i64> {
    let sql = "SELECT coalesce((SELECT value FROM meta WHERE key = 'last_check_through'), 0)";
    connection.prepare_cached(sql)?.query_row([], |row| row.get(0))
}

/// Which check is each service's last.
pub(crate) struct Pointers {
    through: i64,
    last: HashMap<i64, i64>,
}

impl Pointers {
    pub(crate) fn load(connection: &Connection) -> rusqlite::Result<Self> {
        let mut statement = connection.prepare_cached("SELECT service, head FROM last_check")?;
        let rows = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?;
        let last = rows.collect::<Result<_, _>>()?;
        Ok(Self { through: pointed_through(connection)?, last })
    }

    /// Whether a check in the head counts for its service's last one. What was put back from before
    /// that one has a higher number, but was passed over when the pointers were written.
    pub(crate) fn may_be_last(&self, service: i64, id: i64) -> bool {
        id > self.through || self.last.get(&service).is_none_or(|last| id <= *last)
    }
}

/// The last check of each service that has one left, by the service's number.
pub(crate) fn last_checks(
    connection: &Connection,
    words: &Words,
) -> rusqlite::Result<Vec<Option<CheckRecord>>> {
    let mut ids = vec![0; words.services_end()];
    let mut note = |service: i64, id: i64| {
        if let Some(known) = usize::try_from(service).ok().and_then(|at| ids.get_mut(at)) {
            *known = id;
        }
    };
    let mut statement = connection.prepare_cached("SELECT service, head FROM last_check")?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        note(row.get(0)?, row.get(1)?);
    }
    let behind = pointed_through(connection)?.saturating_add(1);
    each_sound(connection, behind, i64::MAX, |id, packed| {
        note(packed.service, id);
        Some(())
    })?;
    let mut found = rows_of_head(connection, &ids)?;
    let mut sealed =
        connection.prepare_cached("SELECT packed FROM last_check WHERE service = ?1")?;
    let mut check_of = |service: i64, in_head: Option<Row>| {
        let Some(name) = words.service(service) else { return Ok(None) };
        let row = match in_head {
            Some(row) => Some(row),
            // Checks leave the head in their order: what was sealed last is the newest then.
            None => {
                let packed = sealed.query_row([service], |row| {
                    Ok(row.get_ref(0)?.as_blob_or_null()?.and_then(block::unpack))
                });
                packed.optional()?.flatten().and_then(|rows| rows.into_iter().next())
            }
        };
        Ok(row.map(|row| row.record(name, words)))
    };
    (0..).zip(ids).map(|(service, id)| check_of(service, found.remove(&id))).collect()
}

/// The checks of these numbers that are still in the head.
fn rows_of_head(connection: &Connection, ids: &[i64]) -> rusqlite::Result<HashMap<i64, Row>> {
    let mut wanted: Vec<i64> = ids.iter().copied().filter(|id| *id > 0).collect();
    wanted.sort_unstable();
    let mut found = HashMap::with_capacity(wanted.len());
    // Each row of the head is unpacked once, however many of its checks are wanted.
    let sql = "SELECT first, checks FROM head WHERE first <= ?1 ORDER BY first DESC LIMIT 1";
    let mut statement = connection.prepare_cached(sql)?;
    while let Some(last) = wanted.last().copied() {
        let mut rows = statement.query([last])?;
        let Some(row) = rows.next()? else { break };
        let first: i64 = row.get(0)?;
        for (id, packed) in (first..).zip(BatchReader::new(row.get_ref(1)?.as_blob()?)) {
            let Some(packed) = packed else {
                tell_damaged(id);
                break;
            };
            if wanted.binary_search(&id).is_ok() {
                found.extend(packed.row().map(|row| (id, row)));
            }
        }
        wanted.truncate(wanted.partition_point(|id| *id < first));
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use mcpmon_core::Timestamp;
    use mcpmon_core::store::{Batch, PrunePlan, RecordQuery, SampleStore, StoredService};
    use mcpmon_testkit::START;
    use mcpmon_testkit::samples::check;

    use super::*;
    use crate::{OpenOptions, SqliteStore};

    /// Rows at these seconds, one after the other, fall into this many runs.
    #[track_caller]
    fn check_runs(seconds: impl IntoIterator<Item = i64>, runs: usize) {
        let mut found: Vec<Mark> = Vec::new();
        for (id, second) in (1..).zip(seconds) {
            if !found.last_mut().is_some_and(|mark| mark.extend(id, second * 1_000)) {
                found.push(Mark::begin(id, second * 1_000));
            }
        }
        assert_eq!(found.len(), runs, "{found:?}");
        assert!(found.iter().all(|mark| mark.max_at - mark.min_at <= SPAN && mark.kept <= RUN));
    }

    #[test]
    fn a_run_is_bounded_in_rows_and_in_time() {
        check_runs(0..100, 1);
        check_runs((0..100).map(|n| n * 60), 10);
        check_runs([0; 3_000], 3);
        check_runs([500, 10, 500, 0], 1);
        check_runs([0, 7_200, 1, 7_201], 4);
        check_runs([-300, 300, 301], 2);
    }

    #[tokio::test]
    async fn a_rare_service_is_found_by_pages_that_may_be_empty() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("mcpmon.db");
        let store = SqliteStore::open(path, OpenOptions::default()).unwrap();
        let at = |second| START.saturating_add(Duration::from_secs(second));
        let rare = [3, 9_000, 19_999];
        let checks = (0..20_000)
            .map(|second| check(if rare.contains(&second) { "rare" } else { "busy" }, at(second)))
            .collect();
        store.append(&Batch { checks, ..Batch::default() }).await.unwrap();
        let (mut found, mut pages) = (Vec::new(), 0);
        let mut query = RecordQuery::of("rare".into());
        loop {
            let page = store.checks(&query).await.unwrap();
            found.extend(page.items);
            pages += 1;
            query.after = page.next;
            if query.after.is_none() {
                break;
            }
        }
        assert_eq!(found, rare.map(|second| check("rare", at(second))));
        assert!((5..=12).contains(&pages), "{pages} pages, each a bounded part of the head");
    }

    fn last_check(services: &[StoredService], name: &str) -> Option<Timestamp> {
        let of = services.iter().find(|stored| stored.facts.service.as_str() == name);
        of.and_then(|stored| stored.last_check.as_ref()).map(|check| check.at)
    }

    #[tokio::test]
    async fn what_is_put_back_from_before_is_nobodys_last_check() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("mcpmon.db");
        let at = |second| START.saturating_add(Duration::from_secs(second));
        let of = |name: &str, second| check(name, at(second));
        let batch = |checks| Batch { checks, ..Batch::default() };
        let store = SqliteStore::open(&path, OpenOptions::default()).unwrap();
        store.append(&batch(vec![of("live", 90_000), of("gone", 10)])).await.unwrap();
        let past = |second| vec![of("live", second), of("gone", second), of("new", second)];
        // Out of order, as of two files one behind the other.
        for turn in [[40_000, 20_000], [60_000, 0]] {
            let past = turn.iter().flat_map(|begin| (0..900).flat_map(move |n| past(begin + n)));
            store.put_back(&batch(past.collect())).await.unwrap();
        }
        let expected = [("live", 90_000), ("gone", 60_899), ("new", 60_899)];
        let verify = async |store: &SqliteStore, when: &str| {
            let services = store.services().await.unwrap();
            for (name, second) in expected {
                assert_eq!(last_check(&services, name), Some(at(second)), "{name} {when}");
            }
        };
        verify(&store, "as written").await;
        drop(store);
        let store = SqliteStore::open(&path, OpenOptions::default()).unwrap();
        verify(&store, "opened again").await;
        while store.prune(&PrunePlan::default()).await.unwrap().more {}
        let blocks = |connection: &Transaction<'_>, _: &Words| {
            connection.query_row("SELECT count(*) FROM block", [], |row| row.get::<_, i64>(0))
        };
        assert!(store.database().read(blocks).unwrap() > 3);
        verify(&store, "packed").await;
        store.put_back(&batch(vec![of("live", 5)])).await.unwrap();
        verify(&store, "packed, and something put back").await;
        // A clock that was set back is another matter: what came last is what is now.
        store.append(&batch(vec![of("live", 70_000)])).await.unwrap();
        let services = store.services().await.unwrap();
        assert_eq!(last_check(&services, "live"), Some(at(70_000)));
        assert!(store.check().await.unwrap().ok);
    }

    #[tokio::test]
    async fn a_damaged_row_stops_neither_upkeep_nor_a_start() {
        // No batch; one that ends in the middle; one of a service with a number never given.
        for damage in ["07", "0101", "01ffffffffffff1f000401010000"] {
            let directory = tempfile::tempdir().unwrap();
            let path = directory.path().join("mcpmon.db");
            let at = |second| START.saturating_add(Duration::from_secs(second));
            let store = SqliteStore::open(&path, OpenOptions::default()).unwrap();
            for begin in 0..60 {
                let checks = (0..100).map(|n| check("files", at(begin * 100 + n))).collect();
                store.append(&Batch { checks, ..Batch::default() }).await.unwrap();
            }
            drop(store);
            let connection = Connection::open(&path).unwrap();
            for row in [1_001, 5_901] {
                let sql = format!("UPDATE head SET checks = x'{damage}' WHERE first = {row}");
                assert_eq!(connection.execute(&sql, []).unwrap(), 1);
            }
            drop(connection);

            let store = SqliteStore::open(&path, OpenOptions::default()).unwrap();
            assert!(!store.check().await.unwrap().ok, "{damage}");
            while store.prune(&PrunePlan::default()).await.unwrap().more {}
            let sums = |connection: &Transaction<'_>, _: &Words| {
                let sql = "SELECT (SELECT count(*) FROM quarter), (SELECT count(*) FROM chunk)";
                connection.query_row(sql, [], |row| Ok((row.get::<_, i64>(0)?, row.get(1)?)))
            };
            let (quarters, chunks): (i64, i64) = store.database().read(sums).unwrap();
            assert!(quarters >= 5 && chunks >= 1, "{damage}: {quarters} {chunks}");
            assert!(last_check(&store.services().await.unwrap(), "files").is_some());
            let plan = PrunePlan { checks_before: Some(at(6_000)), ..PrunePlan::default() };
            while store.prune(&plan).await.unwrap().more {}
            let report = store.check().await.unwrap();
            assert!(report.ok, "{damage}: {:?}", report.problems);
        }
    }
}
