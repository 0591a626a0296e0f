//! The append-only head: checks in the order they came, and how a time is found among them.
//!
//! Rows carry no index but their number. They are nearly in order of time (a check is appended
//! when it ends, and checks last differently long), so a *mark* for each run of up to 1,024 rows
//! says which times it spans, at most [`SPAN`]. A question for a time range seeks in the marks and
//! reads whole runs; retention deletes runs from the front. When blocks sealed per service come,
//! they are a second source of the same pages.
//!
//! A service's last check is wanted by every `status`, also in other processes, but a row per
//! service and batch would cost a fifth of what can be appended (`examples/ingest.rs` with 1,000
//! services in each batch of 1,000: 0.62 of a bare loop's speed with it, 0.79 without). So the
//! pointers are brought up to date every [`POINTER_STRIDE`] checks, and readers look through the
//! few rows since.

use mcpmon_core::Timestamp;
use mcpmon_core::store::{CheckRecord, Cursor, Page, RecordQuery};
use rusqlite::{Connection, Row, Transaction, params};

use crate::codec;
use crate::packed;
use crate::services::{Directory, Words};

/// Longest time between the checks of one run, in ms: how far before a moment a run with checks
/// at that moment can begin.
pub(crate) const SPAN: i64 = 600_000;
/// Rows of one run.
const RUN: i64 = 1_024;
/// Rows appended between two updates of the last-check pointers.
const POINTER_STRIDE: i64 = 16_384;
/// Rows looked at for one page; a question that finds little says so and goes on with the next.
const SCAN_BUDGET: i64 = if cfg!(test) { 2_000 } else { 1_000_000 };

/// A run of rows and the times it spans.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Mark {
    pub(crate) first: i64,
    pub(crate) last: i64,
    pub(crate) kept: i64,
    pub(crate) min_at: i64,
    pub(crate) max_at: i64,
}

impl Mark {
    const COLUMNS: &'static str = "first, last, kept, min_at, max_at";

    fn begin(id: i64, at: i64) -> Self {
        Self { first: id, last: id, kept: 1, min_at: at, max_at: at }
    }

    pub(crate) fn read(row: &Row<'_>) -> rusqlite::Result<Self> {
        Ok(Self {
            first: row.get(0)?,
            last: row.get(1)?,
            kept: row.get(2)?,
            min_at: row.get(3)?,
            max_at: row.get(4)?,
        })
    }

    /// Takes in the next row, if it fits.
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
    /// Last row of each service since the pointers were written, by its number; 0 is none.
    recent: Vec<i64>,
    pointed_through: i64,
    /// Reused for packing.
    scratch: (Vec<u8>, Vec<u8>),
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
        let mut head =
            Self { next, open, recent: Vec::new(), pointed_through, scratch: <_>::default() };
        each_since(connection, pointed_through, |service, id| head.remember(service, id))?;
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
        let sql = "INSERT INTO check_head VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11)";
        let mut insert = transaction.prepare_cached(sql)?;
        for check in checks {
            let id = self.next;
            let service = directory.service(transaction, &check.service)?;
            let code = match check.code {
                Some(code) => Some(directory.code(transaction, code)?),
                None => None,
            };
            let (phases, process) = &mut self.scratch;
            phases.clear();
            process.clear();
            packed::phases(phases, &check.phases);
            if let Some(tree) = &check.process {
                packed::process(process, tree);
            }
            let at = check.at.as_millis();
            insert.execute(params![
                id,
                service,
                at,
                codec::from_question(check.question)?,
                codec::from_status(check.status),
                code,
                check.latency.map(codec::from_duration),
                codec::from_duration(check.total),
                non_empty(phases),
                check.restarted,
                non_empty(process),
            ])?;
            self.next += 1;
            self.remember(service, id);
            if !self.open.as_mut().is_some_and(|open| open.extend(id, at)) {
                self.write_open(transaction)?;
                self.open = Some(Mark::begin(id, at));
            }
        }
        drop(insert);
        self.write_open(transaction)?;
        if self.next - self.pointed_through > POINTER_STRIDE {
            self.write_pointers(transaction)?;
        }
        Ok(())
    }

    fn remember(&mut self, service: i64, id: i64) {
        let at = usize::try_from(service).unwrap_or(0);
        if at >= self.recent.len() {
            self.recent.resize(at + 1, 0);
        }
        self.recent[at] = id;
    }

    fn write_open(&self, transaction: &Transaction<'_>) -> rusqlite::Result<()> {
        self.open.as_ref().map_or(Ok(()), |open| open.write(transaction))
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

fn non_empty(blob: &[u8]) -> Option<&[u8]> {
    (!blob.is_empty()).then_some(blob)
}

fn pointed_through(connection: &Connection) -> rusqlite::Result<i64> {
    let sql = "SELECT coalesce((SELECT value FROM meta WHERE key = 'last_check_through'), 0)";
    connection.prepare_cached(sql)?.query_row([], |row| row.get(0))
}

/// Gives service and number of every row behind `id`, in order.
fn each_since(
    connection: &Connection,
    id: i64,
    mut give: impl FnMut(i64, i64),
) -> rusqlite::Result<()> {
    let sql = "SELECT service, id FROM check_head WHERE id > ?1 ORDER BY id";
    let mut statement = connection.prepare_cached(sql)?;
    let mut rows = statement.query([id])?;
    while let Some(row) = rows.next()? {
        give(row.get(0)?, row.get(1)?);
    }
    Ok(())
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
    each_since(connection, pointed_through(connection)?, note)?;
    let sql = format!("SELECT {CHECK_COLUMNS} FROM check_head WHERE id = ?1");
    let mut statement = connection.prepare_cached(&sql)?;
    let mut check_of = |id: i64| {
        let mut rows = statement.query([id])?;
        rows.next()?.map_or(Ok(None), |row| read_check(row, words))
    };
    ids.into_iter().map(|id| if id == 0 { Ok(None) } else { check_of(id) }).collect()
}

const CHECK_COLUMNS: &str =
    "id, service, at, question, status, code, latency, total, phases, restarted, process";

/// A row as core's record; `None` for a service that is not in the directory.
fn read_check(row: &Row<'_>, words: &Words) -> rusqlite::Result<Option<CheckRecord>> {
    let Some(service) = words.service(row.get(1)?) else { return Ok(None) };
    let code: Option<i64> = row.get(5)?;
    let latency: Option<i64> = row.get(6)?;
    let blob = |at| row.get_ref(at).and_then(|value| Ok(value.as_blob_or_null()?));
    Ok(Some(CheckRecord {
        service: service.clone(),
        at: Timestamp::from_millis(row.get(2)?),
        question: codec::to_question(row.get(3)?),
        status: codec::to_status(row.get(4)?),
        code: code.and_then(|code| words.code(code)),
        latency: latency.map(codec::to_duration),
        total: codec::to_duration(row.get(7)?),
        phases: blob(8)?.map(packed::to_phases).unwrap_or_default(),
        restarted: row.get(9)?,
        process: blob(10)?.and_then(packed::to_process),
    }))
}

/// One page of checks, oldest first, ties in the order they were appended.
pub(crate) fn page(
    connection: &Connection,
    words: &Words,
    query: &RecordQuery,
) -> rusqlite::Result<Page<CheckRecord>> {
    let mut reading = Reading::new(query);
    let service = match &query.service {
        None => None,
        Some(name) => match words.number_of(name) {
            Some(number) => Some(number),
            None => return Ok(Page { items: Vec::new(), next: None }),
        },
    };
    let sql = "SELECT first, last, kept, min_at, max_at FROM head_mark
               WHERE min_at >= ?1 AND min_at < ?2 AND max_at >= ?3 ORDER BY min_at, first";
    let mut marks = connection.prepare_cached(sql)?;
    let begin = reading.from.saturating_sub(SPAN);
    let mut marks = marks.query([begin, reading.until, reading.from])?;
    let (mut scanned, mut start) = (0, None);
    while let Some(row) = marks.next()? {
        let mark = Mark::read(row)?;
        let start = *start.get_or_insert(mark.min_at.max(reading.from));
        if reading.is_settled_before(mark.min_at) {
            break;
        }
        // Only where the next page would begin later than this one did.
        if scanned > SCAN_BUDGET && mark.min_at > start {
            return Ok(reading.interrupted_before(mark.min_at));
        }
        scanned += mark.kept;
        reading.take_run(connection, words, service, &mark)?;
    }
    Ok(reading.finish())
}

/// A page being read: the earliest rows found so far, one more than are asked for.
struct Reading {
    from: i64,
    after: Option<(i64, i64)>,
    until: i64,
    limit: usize,
    found: Vec<(i64, i64, CheckRecord)>,
}

impl Reading {
    fn new(query: &RecordQuery) -> Self {
        let since = query.since.map_or(i64::MIN, Timestamp::as_millis);
        let after = query.after.map(|cursor| (cursor.at.as_millis(), cursor.tie));
        Self {
            from: since.max(after.map_or(i64::MIN, |(at, _)| at)),
            after,
            until: query.until.map_or(i64::MAX, Timestamp::as_millis),
            limit: query.limit.clamp(1, RecordQuery::LARGEST_PAGE),
            found: Vec::new(),
        }
    }

    fn take_run(
        &mut self,
        connection: &Connection,
        words: &Words,
        service: Option<i64>,
        mark: &Mark,
    ) -> rusqlite::Result<()> {
        let by_service = if service.is_some() { "AND service = ?5" } else { "AND ?5 IS NULL" };
        let sql = format!(
            "SELECT {CHECK_COLUMNS} FROM check_head
             WHERE id BETWEEN ?1 AND ?2 AND at >= ?3 AND at < ?4 {by_service} ORDER BY id"
        );
        let mut statement = connection.prepare_cached(&sql)?;
        let mut rows =
            statement.query(params![mark.first, mark.last, self.from, self.until, service])?;
        while let Some(row) = rows.next()? {
            let place = (row.get(2)?, row.get(0)?);
            if self.after.is_some_and(|after| place <= after) {
                continue;
            }
            if let Some(check) = read_check(row, words)? {
                self.found.push((place.0, place.1, check));
            }
        }
        Ok(())
    }

    /// Whether no run that begins at `min_at` or later can change the page any more.
    fn is_settled_before(&mut self, min_at: i64) -> bool {
        if self.found.len() <= self.limit {
            return false;
        }
        self.sort();
        self.found.truncate(self.limit + 1);
        self.found.last().is_some_and(|(at, ..)| *at < min_at)
    }

    fn sort(&mut self) {
        // Rows come nearly in order; a stable sort finds the runs.
        self.found.sort_by_key(|(at, id, _)| (*at, *id));
    }

    fn finish(mut self) -> Page<CheckRecord> {
        self.sort();
        let more = self.found.len() > self.limit;
        self.found.truncate(self.limit);
        let next = self
            .found
            .last()
            .filter(|_| more)
            .map(|(at, id, _)| Cursor { at: Timestamp::from_millis(*at), tie: *id });
        Page { items: self.found.into_iter().map(|(.., check)| check).collect(), next }
    }

    /// What is sure so far, and to go on where the reading stopped.
    fn interrupted_before(mut self, min_at: i64) -> Page<CheckRecord> {
        self.found.retain(|(at, ..)| *at < min_at);
        let mut page = self.finish();
        let frontier = Cursor { at: Timestamp::from_millis(min_at), tie: i64::MIN };
        page.next.get_or_insert(frontier);
        page
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use mcpmon_core::store::{Batch, SampleStore};
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
}
