//! The append-only head: checks in the order they came, and how a time is found among them.
//!
//! Rows carry no index but their number. They are nearly in order of time (a check is appended
//! when it ends, and checks last differently long), so a *mark* for each run of up to 1,024 rows
//! says which times it spans, at most [`SPAN`]. A question for a time range seeks in the marks and
//! reads whole runs; sealing and retention take runs from the front (`seal`, `prune`).
//!
//! A service's last check is wanted by every `status`, also in other processes, but a row per
//! service and batch would cost a fifth of what can be appended (`examples/ingest.rs` with 1,000
//! services in each batch of 1,000: 0.62 of a bare loop's speed with it, 0.79 without). So the
//! pointers are brought up to date every [`POINTER_STRIDE`] checks, and readers look through the
//! few rows since.

use mcpmon_core::store::CheckRecord;
use rusqlite::{Connection, OptionalExtension, Row as SqlRow, Transaction, params};

use crate::block;
use crate::codec;
use crate::packed;
use crate::row::Row;
use crate::services::{Directory, Words};

/// Longest time between the checks of one run, in ms: how far before a moment a run with checks
/// at that moment can begin.
pub(crate) const SPAN: i64 = 600_000;
/// Rows of one run.
const RUN: i64 = 1_024;
/// Rows appended between two updates of the last-check pointers.
const POINTER_STRIDE: i64 = 16_384;

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

    pub(crate) fn read(row: &SqlRow<'_>) -> rusqlite::Result<Self> {
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
    let sql = format!("SELECT {} FROM check_head WHERE id = ?1", Row::COLUMNS);
    let mut of_head = connection.prepare_cached(&sql)?;
    let mut sealed =
        connection.prepare_cached("SELECT packed FROM last_check WHERE service = ?1")?;
    let mut check_of = |service: i64, id: i64| {
        let Some(name) = words.service(service) else { return Ok(None) };
        let row = match of_head.query_row([id], |row| Row::read(row, 0)).optional()? {
            Some(row) => Some(row),
            // Rows leave the head in their order: what was sealed last is the newest then.
            None => {
                let packed = sealed.query_row([service], |row| {
                    Ok(row.get_ref(0)?.as_blob_or_null()?.and_then(block::unpack))
                });
                packed.optional()?.flatten().and_then(|rows| rows.into_iter().next())
            }
        };
        Ok(row.map(|row| row.record(name, words)))
    };
    (0..).zip(ids).map(|(service, id)| check_of(service, id)).collect()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use mcpmon_core::store::{Batch, RecordQuery, SampleStore};
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
