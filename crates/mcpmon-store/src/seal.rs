//! Sealing: what leaves the head is packed by service.
//!
//! A *chunk* is a stretch of the head, whole runs of it, with about [`PER_SERVICE`] checks of each
//! service. Reading and packing happen beside the writer; only putting the blocks in their place
//! is a transaction, and a large chunk takes several: services are sealed in the order of their
//! numbers, the chunk says how far it came, and up to there a row of the head no longer counts.
//! Rows are deleted afterwards, in steps of retention's. At any moment, also after a crash between
//! any two steps, each check is in exactly one place that counts.

use mcpmon_core::Timestamp;
use rusqlite::{Connection, OptionalExtension, Transaction, params};

use crate::block;
use crate::head::{self, Mark, Pointers};
use crate::rollup::{self, Progress};
use crate::row::Row;
use crate::services::Words;

/// Checks of a service in one block, about.
const PER_SERVICE: i64 = if cfg!(test) { 8 } else { 128 };
/// Longest time between the checks of a chunk, in ms.
const LONGEST_CHUNK: i64 = 8 * 3_600_000;
/// Most checks of a chunk: one block could have them all.
const LARGEST_CHUNK: i64 = block::MOST_ROWS as i64 - 2_048;
/// Checks packed in one step, about.
const SLICE: i64 = if cfg!(test) { 40 } else { 65_536 };
/// Checks stay in the head until they are summed up and so much older, in ms, or until as many as
/// a chunk has are behind them. What is not summed up is asked for most, and is read from the head
/// without unpacking a block that lies mostly before it.
const SETTLING: i64 = rollup::QUARTER;
/// Bits of a block's id that are its service's number.
pub(crate) const SERVICE_BITS: u32 = 24;

/// A row of `chunk`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Chunk {
    pub(crate) id: i64,
    pub(crate) head_first: i64,
    pub(crate) head_last: i64,
    /// Services up to this number are sealed; `None` when all are.
    pub(crate) through: Option<i64>,
    pub(crate) min_at: i64,
    pub(crate) max_at: i64,
    /// Checks before this moment are gone.
    pub(crate) pruned: i64,
    pub(crate) checks: i64,
}

impl Chunk {
    const COLUMNS: &'static str =
        "id, head_first, head_last, through, min_at, max_at, pruned, checks";

    fn read(row: &rusqlite::Row<'_>) -> rusqlite::Result<Self> {
        Ok(Self {
            id: row.get(0)?,
            head_first: row.get(1)?,
            head_last: row.get(2)?,
            through: row.get(3)?,
            min_at: row.get(4)?,
            max_at: row.get(5)?,
            pruned: row.get(6)?,
            checks: row.get(7)?,
        })
    }

    /// Chunks with checks from `from` on and before `until`.
    pub(crate) fn between(
        connection: &Connection,
        from: i64,
        until: i64,
    ) -> rusqlite::Result<Vec<Self>> {
        let sql = format!(
            "SELECT {} FROM chunk WHERE max_at >= ?1 AND min_at < ?2 AND pruned <= max_at
             ORDER BY id",
            Self::COLUMNS
        );
        let mut statement = connection.prepare_cached(&sql)?;
        statement.query_map([from, until], Self::read)?.collect()
    }

    /// The chunk that is being sealed.
    pub(crate) fn unfinished(connection: &Connection) -> rusqlite::Result<Option<Self>> {
        let sql = format!(
            "SELECT {} FROM chunk WHERE through IS NOT NULL ORDER BY id LIMIT 1",
            Self::COLUMNS
        );
        connection.prepare_cached(&sql)?.query_row([], Self::read).optional()
    }

    /// The ids of its blocks.
    pub(crate) fn blocks(&self) -> (i64, i64) {
        (self.id << SERVICE_BITS, ((self.id + 1) << SERVICE_BITS) - 1)
    }
}

/// Which rows of the head count no more, because a block has them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Sealed {
    last: i64,
    through: i64,
}

impl Sealed {
    pub(crate) fn load(connection: &Connection) -> rusqlite::Result<Self> {
        let unfinished = Chunk::unfinished(connection)?;
        Ok(unfinished.map_or_else(Self::default, |chunk| Self {
            last: chunk.head_last,
            through: chunk.through.unwrap_or(0),
        }))
    }

    pub(crate) fn holds(&self, id: i64, service: i64) -> bool {
        id <= self.last && service <= self.through
    }
}

/// Blocks that are packed, to be put in their place.
#[derive(Debug)]
pub(crate) struct Slice {
    chunk: Chunk,
    is_new: bool,
    /// Services up to this number are in the slice, or were sealed before.
    through: i64,
    is_last: bool,
    blocks: Vec<PackedService>,
}

#[derive(Debug)]
struct PackedService {
    service: i64,
    checks: i64,
    packed: Vec<u8>,
    /// The check that was appended last, a block of its own; `None` where all were put back from
    /// before the service's last one.
    last: Option<Vec<u8>>,
}

/// Packs the next part of the head, if enough of it is there. Reads only.
pub(crate) fn pack_next(connection: &Connection, words: &Words) -> rusqlite::Result<Option<Slice>> {
    let unfinished = Chunk::unfinished(connection)?;
    let is_new = unfinished.is_none();
    let chunk = match unfinished {
        Some(chunk) => Some(chunk),
        None => next_chunk(connection, words)?,
    };
    let Some(chunk) = chunk else { return Ok(None) };
    let services = words.services_end() as i64 - 1;
    let begin = chunk.through.unwrap_or(0);
    let rows = (chunk.head_last - chunk.head_first + 1).max(1);
    let width = (SLICE.saturating_mul(services) / rows).max(1);
    let through = begin.saturating_add(width).min(services);
    let blocks = pack_services(connection, &chunk, begin, through)?;
    Ok(Some(Slice { chunk, is_new, through, is_last: through >= services, blocks }))
}

/// The next stretch of the head, once a whole one is there.
fn next_chunk(connection: &Connection, words: &Words) -> rusqlite::Result<Option<Chunk>> {
    let services = words.services_end() as i64 - 1;
    let enough = services.saturating_mul(PER_SERVICE).clamp(1, LARGEST_CHUNK);
    let ripe = Progress::load(connection)?.until().saturating_sub(SETTLING);
    let sql = format!("SELECT {} FROM head_mark ORDER BY first", Mark::COLUMNS);
    let mut statement = connection.prepare_cached(&sql)?;
    let mut marks = statement.query_map([], Mark::read)?;
    let Some(first) = marks.next().transpose()? else { return Ok(None) };
    let (mut all, mut behind, mut is_whole) = (first, 0, false);
    for mark in marks {
        let mark = mark?;
        let (low, high) = (all.min_at.min(mark.min_at), all.max_at.max(mark.max_at));
        // Only with a run behind it: the last one still grows.
        is_whole |= all.kept >= enough || high.saturating_sub(low) > LONGEST_CHUNK;
        if !is_whole {
            let kept = all.kept + mark.kept;
            all = Mark { last: mark.last, kept, min_at: low, max_at: high, ..all };
            continue;
        }
        behind += mark.kept;
        if all.max_at < ripe || behind >= enough {
            let newest = "SELECT coalesce(max(id), 0) + 1 FROM chunk";
            let id = connection.prepare_cached(newest)?.query_row([], |row| row.get(0))?;
            return Ok(Some(Chunk {
                id,
                head_first: all.first,
                head_last: all.last,
                through: Some(0),
                min_at: all.min_at,
                max_at: all.max_at,
                pruned: i64::MIN,
                checks: 0,
            }));
        }
    }
    Ok(None)
}

/// Packs the rows of services behind `begin` and up to `through`.
fn pack_services(
    connection: &Connection,
    chunk: &Chunk,
    begin: i64,
    through: i64,
) -> rusqlite::Result<Vec<PackedService>> {
    let width = usize::try_from(through - begin).unwrap_or(0);
    let mut rows: Vec<(Option<Row>, Vec<Row>)> = vec![(None, Vec::new()); width];
    let pointers = Pointers::load(connection)?;
    head::each_sound(connection, chunk.head_first, chunk.head_last, |id, packed| {
        let place = usize::try_from(packed.service - begin - 1).unwrap_or(usize::MAX);
        if let Some((last, rows)) = rows.get_mut(place) {
            let row = packed.row()?;
            if pointers.may_be_last(packed.service, id) {
                *last = Some(row);
            }
            rows.push(row);
        }
        Some(())
    })?;
    let packed = (begin + 1..).zip(rows).filter_map(|(service, (last, mut rows))| {
        if rows.is_empty() {
            return None;
        }
        let last = last.map(|last| block::pack(&[last]));
        // A stable sort: checks of one moment stay in the order they were appended.
        rows.sort_by_key(|row| row.at);
        let checks = rows.len() as i64;
        Some(PackedService { service, checks, packed: block::pack(&rows), last })
    });
    Ok(packed.collect())
}

/// Puts packed blocks in their place, whose rows count no more.
pub(crate) fn place(transaction: &Transaction<'_>, slice: &Slice) -> rusqlite::Result<()> {
    let chunk = &slice.chunk;
    if slice.is_new {
        let sql = "INSERT INTO chunk
                   (id, head_first, head_last, through, min_at, max_at, pruned, checks)
                   VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, 0)";
        let values = params![
            chunk.id,
            chunk.head_first,
            chunk.head_last,
            chunk.through,
            chunk.min_at,
            chunk.max_at,
            chunk.pruned
        ];
        transaction.prepare_cached(sql)?.execute(values)?;
    }
    let mut insert =
        transaction.prepare_cached("INSERT INTO block (id, checks) VALUES (?1, ?2)")?;
    let mut last = transaction.prepare_cached(
        "INSERT INTO last_check (service, head, packed) VALUES (?1, 0, ?2)
         ON CONFLICT (service) DO UPDATE SET packed = excluded.packed",
    )?;
    let mut checks = 0;
    for service in &slice.blocks {
        insert.execute(params![chunk.id << SERVICE_BITS | service.service, service.packed])?;
        if let Some(packed) = &service.last {
            last.execute(params![service.service, packed])?;
        }
        checks += service.checks;
    }
    let through = (!slice.is_last).then_some(slice.through);
    let sql = "UPDATE chunk SET through = ?2, checks = checks + ?3 WHERE id = ?1";
    transaction.prepare_cached(sql)?.execute(params![chunk.id, through, checks])?;
    if slice.is_last {
        let sql = "DELETE FROM head_mark WHERE first BETWEEN ?1 AND ?2";
        transaction.prepare_cached(sql)?.execute([chunk.head_first, chunk.head_last])?;
        let sql = "INSERT OR REPLACE INTO meta (key, value) VALUES ('head_from', ?1)";
        transaction.prepare_cached(sql)?.execute([chunk.head_last + 1])?;
    }
    Ok(())
}

/// The first row of the head that counts; those before are sealed and wait to be deleted.
pub(crate) fn head_from(connection: &Connection) -> rusqlite::Result<i64> {
    let sql = "SELECT coalesce((SELECT value FROM meta WHERE key = 'head_from'), 0)";
    connection.prepare_cached(sql)?.query_row([], |row| row.get(0))
}

/// Deletes rows of the head that are sealed, with about `most` checks; says whether there were any.
pub(crate) fn clear_head(transaction: &Transaction<'_>, most: u64) -> rusqlite::Result<bool> {
    let sql = "SELECT min(first) FROM head";
    let first: Option<i64> = transaction.prepare_cached(sql)?.query_row([], |row| row.get(0))?;
    let until = first.map_or(i64::MIN, |first| first.saturating_add(most as i64));
    let until = until.min(head_from(transaction)?);
    let deleted =
        transaction.prepare_cached("DELETE FROM head WHERE first < ?1")?.execute([until])?;
    Ok(deleted > 0)
}

/// Takes what is older than `before` out of the chunks: whole blocks where a whole chunk is, at
/// most `most` of them; from the others by word. Says how many blocks and checks went.
pub(crate) fn prune(
    transaction: &Transaction<'_>,
    before: Timestamp,
    most: u64,
) -> rusqlite::Result<(u64, u64)> {
    let before = before.as_millis();
    let sql = "UPDATE chunk SET pruned = ?1 WHERE min_at < ?1 AND pruned < ?1";
    let touched = transaction.prepare_cached(sql)?.execute([before])?;
    if touched > 0 {
        rollup::note_pruned(transaction, rollup::RAW_FROM, Timestamp::from_millis(before))?;
    }
    let (mut blocks, mut checks) = (0, 0);
    // A chunk that is not whole yet goes when it is.
    let sql = format!(
        "SELECT {} FROM chunk WHERE max_at < ?1 AND through IS NULL ORDER BY id LIMIT 1",
        Chunk::COLUMNS
    );
    while blocks < most {
        let mut oldest = transaction.prepare_cached(&sql)?;
        let Some(chunk) = oldest.query_row([before], Chunk::read).optional()? else { break };
        let (first, last) = chunk.blocks();
        let left = (most - blocks) as i64;
        let mut select = transaction.prepare_cached(
            "SELECT id, checks FROM block WHERE id BETWEEN ?1 AND ?2 ORDER BY id LIMIT ?3",
        )?;
        let mut rows = select.query([first, last, left])?;
        let (mut found, mut end) = (0, None);
        while let Some(row) = rows.next()? {
            end = Some(row.get::<_, i64>(0)?);
            checks += block::count(row.get_ref(1)?.as_blob()?).unwrap_or(0);
            found += 1;
        }
        if let Some(end) = end {
            let sql = "DELETE FROM block WHERE id BETWEEN ?1 AND ?2";
            transaction.prepare_cached(sql)?.execute([first, end])?;
        }
        blocks += found;
        if found < left as u64 {
            transaction.prepare_cached("DELETE FROM chunk WHERE id = ?1")?.execute([chunk.id])?;
        }
    }
    Ok((blocks, checks))
}
