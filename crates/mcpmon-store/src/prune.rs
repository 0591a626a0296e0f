//! Retention, one small step at a time.
//!
//! A step deletes at most [`STEP`] rows or gives back at most [`PAGES`] pages, each in one short
//! transaction, so that appending never waits long. Runs of the head go from the front by their
//! marks; the newest mark stays even when its rows are gone, because it remembers which numbers
//! were given.

use mcpmon_core::Timestamp;
use mcpmon_core::store::{PrunePlan, Pruned};
use rusqlite::{OptionalExtension, Transaction, params};

use crate::database::Mirror;
use crate::head::{Head, Mark};

/// Rows one step deletes, give or take one run of the head.
pub(crate) const STEP: u64 = 5_000;
/// Pages one step gives back.
const PAGES: u32 = 512;
/// Free pages not worth giving back: the next checks will fill them.
const SPARE: i64 = 256;

/// Deletes the next rows the plan names.
pub(crate) fn step(
    transaction: &Transaction<'_>,
    mirror: &mut Mirror,
    plan: &PrunePlan,
) -> rusqlite::Result<Pruned> {
    let mut step = Step { transaction, rows: 0 };
    if let Some(before) = plan.checks_before {
        if step.prune_head(before)? > 0 {
            mirror.head = Head::load(transaction)?;
        }
        step.delete("host", "at < ?1", before)?;
    }
    if let Some(before) = plan.incidents_before {
        step.delete("alert", "resolved_at < ?1", before)?;
        step.delete("outbox", "settled_at < ?1", before)?;
        // The newest change of a service says how it came to be as it is.
        let superseded = "at < ?1 AND EXISTS (
            SELECT 1 FROM status_change AS later
            WHERE later.service = status_change.service
              AND (later.at, later.id) > (status_change.at, status_change.id))";
        step.delete("status_change", superseded, before)?;
        let superseded = "at < ?1 AND EXISTS (
            SELECT 1 FROM tool_list AS later
            WHERE later.service = tool_list.service AND later.id > tool_list.id)";
        step.delete("tool_list", superseded, before)?;
        step.delete("silence", "ends_at < ?1", before)?;
        step.delete("audit", "at < ?1", before)?;
    }
    let more = step.rows >= STEP || worth_giving_back(transaction)?;
    Ok(Pruned { rows: step.rows, more })
}

struct Step<'a> {
    transaction: &'a Transaction<'a>,
    rows: u64,
}

impl Step<'_> {
    fn left(&self) -> u64 {
        STEP.saturating_sub(self.rows)
    }

    fn delete(&mut self, table: &str, condition: &str, before: Timestamp) -> rusqlite::Result<()> {
        if self.left() == 0 {
            return Ok(());
        }
        let sql = format!(
            "DELETE FROM {table} WHERE rowid IN (
                 SELECT rowid FROM {table} WHERE {condition} LIMIT ?2)"
        );
        let values = params![before.as_millis(), self.left() as i64];
        self.rows += self.transaction.prepare_cached(&sql)?.execute(values)? as u64;
        Ok(())
    }

    /// Deletes checks, run by run; says how many.
    fn prune_head(&mut self, before: Timestamp) -> rusqlite::Result<u64> {
        let start = self.rows;
        let before = before.as_millis();
        while self.left() > 0 {
            let sql = "SELECT first, last, kept, min_at, max_at FROM head_mark
                       WHERE min_at < ?1 ORDER BY min_at LIMIT 1";
            let mark =
                self.transaction.prepare_cached(sql)?.query_row([before], Mark::read).optional()?;
            let Some(mark) = mark else { break };
            self.prune_run(&mark, before)?;
        }
        Ok(self.rows - start)
    }

    /// Deletes the old checks of one run and puts its mark right: behind it, no check of the run
    /// is older than `before`.
    fn prune_run(&mut self, mark: &Mark, before: i64) -> rusqlite::Result<()> {
        let sql = "DELETE FROM check_head WHERE id BETWEEN ?1 AND ?2 AND at < ?3";
        let values = [mark.first, mark.last, before];
        self.rows += self.transaction.prepare_cached(sql)?.execute(values)? as u64;
        let sql = "SELECT count(*), min(at), max(at) FROM check_head WHERE id BETWEEN ?1 AND ?2";
        let (kept, min_at, max_at) =
            self.transaction.prepare_cached(sql)?.query_row([mark.first, mark.last], |row| {
                Ok((
                    row.get::<_, i64>(0)?,
                    row.get::<_, Option<i64>>(1)?,
                    row.get::<_, Option<i64>>(2)?,
                ))
            })?;
        let newest = "SELECT NOT EXISTS (SELECT 1 FROM head_mark WHERE first > ?1)";
        let newest: bool =
            self.transaction.prepare_cached(newest)?.query_row([mark.first], |row| row.get(0))?;
        if kept == 0 && !newest {
            let sql = "DELETE FROM head_mark WHERE first = ?1";
            self.transaction.prepare_cached(sql)?.execute([mark.first])?;
            return Ok(());
        }
        let sql = "UPDATE head_mark SET kept = ?2, min_at = ?3, max_at = ?4 WHERE first = ?1";
        let (min_at, max_at) = (min_at.unwrap_or(before), max_at.unwrap_or(before));
        let values = params![mark.first, kept, min_at, max_at];
        self.transaction.prepare_cached(sql)?.execute(values)?;
        Ok(())
    }
}

/// Whether the file has many more free pages than it will soon fill.
fn worth_giving_back(transaction: &Transaction<'_>) -> rusqlite::Result<bool> {
    let read = |pragma| transaction.pragma_query_value(None, pragma, |row| row.get::<_, i64>(0));
    let (free, all) = (read("freelist_count")?, read("page_count")?);
    Ok(free > SPARE && free > all / 8)
}

/// Gives free pages back to the file system, if there are many; says whether there were.
pub(crate) fn give_back(transaction: &Transaction<'_>) -> rusqlite::Result<bool> {
    if !worth_giving_back(transaction)? {
        return Ok(false);
    }
    // The pragma gives back one page per step, so every step has to be taken.
    let mut statement = transaction.prepare(&format!("PRAGMA incremental_vacuum({PAGES})"))?;
    let mut rows = statement.query([])?;
    while rows.next()?.is_some() {}
    Ok(true)
}
