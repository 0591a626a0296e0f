//! Retention, one small step at a time.
//!
//! A step deletes at most [`STEP`] rows or gives back at most [`PAGES`] pages, each in one short
//! transaction, so that appending never waits long. Runs of the head go from the front by their
//! marks; the newest mark stays even when its rows are gone, because it remembers which numbers
//! were given.

use mcpmon_core::Timestamp;
use mcpmon_core::store::{PrunePlan, Pruned};
use rusqlite::{Connection, OptionalExtension, Transaction, params};
use serde::{Deserialize, Serialize};

use crate::bound::{self, Cut};
use crate::database::Mirror;
use crate::head::{self, Head};
use crate::rollup::{self, Grain};
use crate::seal;

/// Rows one step deletes, give or take one run of the head.
pub(crate) const STEP: u64 = 5_000;
/// Sealed checks one step takes out of the head: some hundred pages.
const CLEARED: u64 = 16_384;
/// Blocks one step deletes.
const BLOCKS: u64 = 1_000;
/// Pages one step gives back.
const PAGES: u32 = 512;
/// Free pages not worth giving back: the next checks will fill them.
const SPARE: u64 = 256;
/// Of a hundred parts of the bound, those the file may have before every free page goes back.
const NEAR_BOUND: u64 = 95;

/// What a plan would delete.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PruneReport {
    /// Always [`PruneReport::SCHEMA`].
    pub schema: String,
    /// The plan.
    pub plan: PrunePlan,
    /// Checks older than the plan keeps, to the nearest packed block.
    pub checks: u64,
    /// Summaries of a quarter of an hour.
    pub quarters: u64,
    /// Summaries of an hour.
    pub hours: u64,
    /// Changes of status and of lists, alerts, messages and samples of the machine.
    pub others: u64,
    /// Bytes in use.
    pub used_bytes: u64,
    /// Bytes that have to go beyond all this, oldest checks first, for the bound to be kept.
    pub surplus_bytes: u64,
}

impl PruneReport {
    /// The contract's name.
    pub const SCHEMA: &'static str = "mcpmon/db-prune/v1";

    pub(crate) fn read(connection: &Connection, plan: &PrunePlan) -> rusqlite::Result<Self> {
        let count = |sql: &str, before: Option<Timestamp>, grain: Option<Grain>| {
            let Some(before) = before else { return Ok(0) };
            let before = match grain {
                Some(grain) => grain.first_id(before),
                None => before.as_millis(),
            };
            connection.query_row(sql, [before], |row| row.get::<_, u64>(0))
        };
        let in_blocks =
            "SELECT coalesce(sum(checks), 0) FROM chunk WHERE max_at < ?1 AND through IS NULL";
        let used_bytes = used_bytes(connection)?;
        let allowed = plan.most_bytes.map_or(u64::MAX, bound::allowed);
        let (raw, quarters) = (plan.checks_before, plan.quarters_before);
        let incidents = plan.incidents_before;
        Ok(Self {
            schema: Self::SCHEMA.to_owned(),
            plan: *plan,
            checks: raw
                .map_or(Ok(0), |before| head::count_before(connection, before.as_millis()))?
                + count(in_blocks, raw, None)?,
            quarters: count(
                "SELECT count(*) FROM quarter WHERE id < ?1",
                quarters,
                Some(Grain::Quarter),
            )?,
            hours: count(
                "SELECT count(*) FROM hour WHERE id < ?1",
                plan.hours_before,
                Some(Grain::Hour),
            )?,
            others: count("SELECT count(*) FROM host WHERE at < ?1", raw, None)?
                + count("SELECT count(*) FROM status_change WHERE at < ?1", quarters, None)?
                + count("SELECT count(*) FROM alert WHERE resolved_at < ?1", incidents, None)?
                + count("SELECT count(*) FROM outbox WHERE settled_at < ?1", incidents, None)?
                + count("SELECT count(*) FROM list_change WHERE at < ?1", incidents, None)?,
            used_bytes,
            surplus_bytes: used_bytes.saturating_sub(allowed),
        })
    }
}

/// Bytes of the file that hold something.
fn used_bytes(connection: &Connection) -> rusqlite::Result<u64> {
    let read = |pragma| connection.pragma_query_value(None, pragma, |row| row.get::<_, u64>(0));
    Ok(read("page_count")?.saturating_sub(read("freelist_count")?) * read("page_size")?)
}

/// Deletes the next rows the plan names.
pub(crate) fn step(
    transaction: &Transaction<'_>,
    mirror: &mut Mirror,
    plan: &PrunePlan,
) -> rusqlite::Result<Pruned> {
    let mut step = Step { transaction, rows: 0 };
    if seal::clear_head(transaction, CLEARED)? {
        // Moved, not lost: these checks are in blocks.
        return Ok(Pruned { rows: 0, more: true });
    }
    if let Some(before) = plan.checks_before {
        let pruned = head::prune(transaction, before.as_millis(), step.left())?;
        if pruned > 0 {
            step.rows += pruned;
            mirror.head = Head::load(transaction)?;
            rollup::note_pruned(transaction, rollup::RAW_FROM, before)?;
        }
        let (blocks, checks) = seal::prune(transaction, before, BLOCKS)?;
        step.rows += checks;
        if blocks >= BLOCKS {
            return Ok(Pruned { rows: step.rows, more: true });
        }
        step.delete("host", "at < ?1", before)?;
    }
    if let Some(before) = plan.quarters_before {
        let quarters = rollup::prune(transaction, Grain::Quarter, before, step.left())?;
        if quarters > 0 {
            rollup::note_pruned(transaction, rollup::QUARTERS_FROM, before)?;
        }
        step.rows += quarters;
        // The newest change of a service says how it came to be as it is.
        let superseded = "at < ?1 AND EXISTS (
            SELECT 1 FROM status_change AS later
            WHERE later.service = status_change.service
              AND (later.at, later.id) > (status_change.at, status_change.id))";
        step.delete("status_change", superseded, before)?;
    }
    if let Some(before) = plan.hours_before {
        step.rows += rollup::prune(transaction, Grain::Hour, before, step.left())?;
    }
    if let Some(before) = plan.incidents_before {
        step.delete("alert", "resolved_at < ?1", before)?;
        step.delete("outbox", "settled_at < ?1", before)?;
        let superseded = "at < ?1 AND EXISTS (
            SELECT 1 FROM tool_list AS later
            WHERE later.service = tool_list.service AND later.id > tool_list.id)";
        step.delete("tool_list", superseded, before)?;
        step.delete("list_change", "at < ?1", before)?;
        step.delete("silence", "ends_at < ?1", before)?;
        step.delete("audit", "at < ?1", before)?;
    }
    if step.rows == 0
        && let Some(most) = plan.most_bytes
    {
        return squeeze(transaction, most);
    }
    Ok(Pruned { rows: step.rows, more: step.rows >= STEP })
}

/// Deletes what is oldest, if more than `most` bytes are in use.
fn squeeze(transaction: &Transaction<'_>, most: u64) -> rusqlite::Result<Pruned> {
    let first = |sql: &str| transaction.query_row(sql, [], |row| row.get::<_, Option<i64>>(0));
    let oldest = bound::Oldest {
        raw: first("SELECT max_at FROM chunk WHERE through IS NULL ORDER BY id LIMIT 1")
            .optional()?
            .flatten(),
        quarters: rollup::oldest(transaction, Grain::Quarter)?,
        hours: rollup::oldest(transaction, Grain::Hour)?,
        incidents: first(
            "SELECT min(at) FROM (SELECT min(resolved_at) AS at FROM alert
                                  UNION ALL SELECT min(at) FROM list_change)",
        )?,
    };
    let Some(cut) = bound::next_cut(most, used_bytes(transaction)?, oldest) else {
        return Ok(Pruned::default());
    };
    tracing::debug!(?cut, most, "Database is near its bound; the oldest goes");
    let mut step = Step { transaction, rows: 0 };
    match cut {
        Cut::Raw(before) => step.rows = seal::prune(transaction, before, BLOCKS)?.1.max(1),
        Cut::Quarters(before) => {
            step.rows = rollup::prune(transaction, Grain::Quarter, before, STEP)?;
            rollup::note_pruned(transaction, rollup::QUARTERS_FROM, before)?;
        }
        Cut::Hours(before) => step.rows = rollup::prune(transaction, Grain::Hour, before, STEP)?,
        Cut::Incidents(before) => {
            step.delete("outbox", "settled_at < ?1", before)?;
            step.delete("alert", "resolved_at < ?1", before)?;
            step.delete("list_change", "at < ?1", before)?;
        }
    }
    Ok(Pruned { rows: step.rows, more: step.rows > 0 })
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
}

/// Whether the file has many more free pages than it will soon fill.
fn worth_giving_back(
    transaction: &Transaction<'_>,
    most_bytes: Option<u64>,
) -> rusqlite::Result<bool> {
    let read = |pragma| transaction.pragma_query_value(None, pragma, |row| row.get::<_, u64>(0));
    let (free, all) = (read("freelist_count")?, read("page_count")?);
    let most = most_bytes.map_or(u64::MAX, |most| most / 100 * NEAR_BOUND);
    let is_near = all.saturating_mul(read("page_size")?) > most;
    Ok(free > SPARE && (free > all / 8 || is_near))
}

/// Gives free pages back to the file system, if there are many; says whether there were.
pub(crate) fn give_back(
    transaction: &Transaction<'_>,
    most_bytes: Option<u64>,
) -> rusqlite::Result<bool> {
    if !worth_giving_back(transaction, most_bytes)? {
        return Ok(false);
    }
    // The pragma gives back one page per step, so every step has to be taken.
    let mut statement = transaction.prepare(&format!("PRAGMA incremental_vacuum({PAGES})"))?;
    let mut rows = statement.query([])?;
    while rows.next()?.is_some() {}
    Ok(true)
}
