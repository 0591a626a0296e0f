//! What a database holds and whether it is sound: `db info`, `db check`.

use std::path::{Path, PathBuf};

use mcpmon_core::{StoreError, Timestamp};
use rusqlite::Connection;
use serde::{Deserialize, Serialize};

use crate::database::Database;
use crate::mount::{self, FileSystem};
use crate::rollup::Grain;
use crate::services::Words;
use crate::sizes::{self, Resolution, TableSize};
use crate::{block, file, head, schema, seal, summary};

/// Problems listed at most; a damaged file has one for every page.
const MOST_PROBLEMS: u32 = 100;
/// Checks a mean is worth giving over.
const MEANINGFUL: u64 = 1_000;

/// `mcpmon/db-info/v1`: what a database holds. Sizes are bytes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StoreInfo {
    /// Always [`StoreInfo::SCHEMA`].
    pub schema: String,
    /// The file.
    pub path: PathBuf,
    /// Whether a monitor writes it now.
    pub in_use: bool,
    /// The file's size.
    pub file_bytes: u64,
    /// Its write-ahead log's size.
    pub wal_bytes: u64,
    /// What it is on; `None` where the system does not say.
    pub file_system: Option<FileSystem>,
    /// Inside the file, free for what comes next.
    pub free_bytes: u64,
    /// The schema it has.
    pub schema_version: u32,
    /// The SQLite that reads it.
    pub sqlite_version: String,
    /// Services ever seen.
    pub services: u64,
    /// Raw checks.
    pub checks: u64,
    /// The oldest check.
    pub oldest_check: Option<Timestamp>,
    /// The newest check.
    pub newest_check: Option<Timestamp>,
    /// What the file takes for each check, everything else in it included; `None` below 1,000
    /// checks, where that says nothing.
    pub bytes_per_check: Option<f64>,
    /// Changes of status, cause or findings.
    pub status_changes: u64,
    /// Versions of tool lists.
    pub tool_lists: u64,
    /// Samples of the machine.
    pub host_samples: u64,
    /// Alerts.
    pub alerts: u64,
    /// Of these, not ended.
    pub open_alerts: u64,
    /// Messages.
    pub outbox: OutboxCounts,
    /// Commands no monitor has taken yet.
    pub commands: u64,
    /// Checks and their sums, finest first.
    pub resolutions: Vec<Resolution>,
    /// Every table, largest first.
    pub tables: Vec<TableSize>,
}

/// Messages by what became of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct OutboxCounts {
    /// To be delivered.
    pub queued: u64,
    /// Delivered.
    pub delivered: u64,
    /// Given up.
    pub dead: u64,
}

impl StoreInfo {
    /// The contract's name.
    pub const SCHEMA: &'static str = "mcpmon/db-info/v1";

    pub(crate) fn read(database: &Database) -> Result<Self, StoreError> {
        let path = database.path();
        let size = |path: &Path| std::fs::metadata(path).map_or(0, |file| file.len());
        database.read(|connection, _| {
            let pragma =
                |name| connection.pragma_query_value(None, name, |row| row.get::<_, u64>(0));
            let page_size = pragma("page_size")?;
            let free_bytes = pragma("freelist_count")? * page_size;
            let used_bytes = (pragma("page_count")? * page_size).saturating_sub(free_bytes);
            let sql = "SELECT coalesce(sum(kept), 0), min(min_at), max(max_at)
                       FROM head_mark WHERE kept > 0";
            let (in_head, oldest, newest): (u64, Option<i64>, Option<i64>) =
                connection.query_row(sql, [], |row| row.try_into())?;
            // A chunk that is being sealed is still counted in the head.
            let sql = "SELECT coalesce(sum(checks) FILTER (WHERE through IS NULL), 0),
                              min(max(min_at, pruned)), max(max_at)
                       FROM chunk WHERE pruned <= max_at";
            let (in_blocks, oldest_packed, newest_packed): (u64, Option<i64>, Option<i64>) =
                connection.query_row(sql, [], |row| row.try_into())?;
            let checks = in_head + in_blocks;
            let oldest = oldest.into_iter().chain(oldest_packed).min();
            let newest = newest.max(newest_packed);
            let count = |of: &str| count(connection, of);
            let oldest = oldest.map(Timestamp::from_millis);
            let newest = newest.map(Timestamp::from_millis);
            let tables = sizes::tables(connection)?;
            let resolutions = sizes::resolutions(connection, &tables, (checks, oldest, newest))?;
            Ok(Self {
                schema: Self::SCHEMA.to_owned(),
                path: path.to_path_buf(),
                in_use: file::is_locked(path),
                file_bytes: size(path),
                wal_bytes: size(&file::with_suffix(path, "-wal")),
                file_system: mount::of(path),
                free_bytes,
                schema_version: u32::try_from(pragma("user_version")?).unwrap_or(u32::MAX),
                sqlite_version: rusqlite::version().to_owned(),
                services: count("service")?,
                checks,
                oldest_check: oldest,
                newest_check: newest,
                bytes_per_check: (checks >= MEANINGFUL).then(|| used_bytes as f64 / checks as f64),
                status_changes: count("status_change")?,
                tool_lists: count("tool_list")?,
                host_samples: count("host")?,
                alerts: count("alert")?,
                open_alerts: count("alert WHERE resolved_at IS NULL")?,
                outbox: OutboxCounts {
                    queued: count("outbox WHERE state = 'queued'")?,
                    delivered: count("outbox WHERE state = 'delivered'")?,
                    dead: count("outbox WHERE state = 'dead'")?,
                },
                commands: count("command")?,
                resolutions,
                tables,
            })
        })
    }
}

fn count(connection: &Connection, of: &str) -> rusqlite::Result<u64> {
    connection.query_row(&format!("SELECT count(*) FROM {of}"), [], |row| row.get(0))
}

/// `mcpmon/db-check/v1`: whether a database is sound.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct IntegrityReport {
    /// Always [`IntegrityReport::SCHEMA`].
    pub schema: String,
    /// The file.
    pub path: PathBuf,
    /// Whether nothing is wrong with it.
    pub ok: bool,
    /// What is wrong; at most 100 of each kind.
    pub problems: Vec<String>,
    /// The mark that says whose file it is, in hexadecimal.
    pub application_id: String,
    /// The schema it has.
    pub schema_version: u32,
    /// The SQLite that read it.
    pub sqlite_version: String,
}

impl IntegrityReport {
    /// The contract's name.
    pub const SCHEMA: &'static str = "mcpmon/db-check/v1";

    /// Reads the whole file: seconds for each gigabyte.
    pub(crate) fn read(database: &Database) -> Result<Self, StoreError> {
        database.read(|connection, words| {
            let mut problems = integrity(connection)?;
            problems.extend(dangling(connection)?);
            problems.extend(marks(connection)?);
            problems.extend(blocks(connection)?);
            problems.extend(summaries(connection, words, Grain::Quarter)?);
            problems.extend(summaries(connection, words, Grain::Hour)?);
            let pragma =
                |name| connection.pragma_query_value(None, name, |row| row.get::<_, u32>(0));
            let application_id = pragma("application_id")?;
            if application_id != schema::APPLICATION_ID {
                problems.push("its application id is not mcpmon's".to_owned());
            }
            Ok(Self {
                schema: Self::SCHEMA.to_owned(),
                path: database.path().to_path_buf(),
                ok: problems.is_empty(),
                problems,
                application_id: format!("{application_id:#010x}"),
                schema_version: pragma("user_version")?,
                sqlite_version: rusqlite::version().to_owned(),
            })
        })
    }
}

fn integrity(connection: &Connection) -> rusqlite::Result<Vec<String>> {
    let mut statement = connection.prepare(&format!("PRAGMA integrity_check({MOST_PROBLEMS})"))?;
    let lines = statement.query_map([], |row| row.get::<_, String>(0))?;
    lines.filter(|line| !line.as_ref().is_ok_and(|line| line == "ok")).collect()
}

/// Rows that name a service or code there is none of.
fn dangling(connection: &Connection) -> rusqlite::Result<Vec<String>> {
    let mut statement = connection.prepare("PRAGMA foreign_key_check")?;
    let rows = statement.query_map([], |row| {
        let (table, row, parent) =
            (row.get::<_, String>(0)?, row.get::<_, Option<i64>>(1)?, row.get::<_, String>(2)?);
        Ok(format!("row {} of {table} names no {parent}", row.unwrap_or_default()))
    })?;
    rows.take(MOST_PROBLEMS as usize).collect()
}

/// Checks no mark leads to, which no question would find; or that cannot be unpacked.
fn marks(connection: &Connection) -> rusqlite::Result<Option<String>> {
    let marked: u64 =
        connection
            .query_row("SELECT coalesce(sum(kept), 0) FROM head_mark", [], |row| row.get(0))?;
    let mut there = 0_u64;
    let mut damage = None;
    head::each(connection, seal::head_from(connection)?, i64::MAX, |id, packed| {
        there += 1;
        if packed.row().is_none() {
            damage.get_or_insert_with(|| format!("check {id} cannot be unpacked"));
        }
        Ok(())
    })
    .or_else(|error| match error {
        rusqlite::Error::FromSqlConversionFailure(_, _, what) => {
            damage = Some(what.to_string());
            Ok(())
        }
        other => Err(other),
    })?;
    let differ = marked != there;
    let lost = || format!("{there} checks are there, but {marked} can be found by time");
    Ok(damage.or_else(|| differ.then(lost)))
}

/// Blocks that cannot be unpacked, or belong to no chunk.
fn blocks(connection: &Connection) -> rusqlite::Result<Vec<String>> {
    let mut problems = Vec::new();
    let mut statement = connection.prepare(
        "SELECT block.id, block.checks, chunk.id FROM block
         LEFT JOIN chunk ON chunk.id = block.id >> ?1 ORDER BY block.id",
    )?;
    let mut rows = statement.query([seal::SERVICE_BITS])?;
    while let Some(row) = rows.next()? {
        let id: i64 = row.get(0)?;
        if row.get::<_, Option<i64>>(2)?.is_none() {
            problems.push(format!("block {id} belongs to no chunk"));
        }
        if block::unpack(row.get_ref(1)?.as_blob()?).is_none() {
            problems.push(format!("block {id} cannot be unpacked"));
        }
        if problems.len() >= MOST_PROBLEMS as usize {
            break;
        }
    }
    Ok(problems)
}

/// Summaries of a quarter or an hour, with their sketches, that cannot be unpacked.
fn summaries(
    connection: &Connection,
    words: &Words,
    grain: Grain,
) -> rusqlite::Result<Vec<String>> {
    let mut problems = Vec::new();
    let table = grain.table();
    let mut statement = connection.prepare(&format!("SELECT id, summary FROM {table}"))?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        let packed = row.get_ref(1)?.as_blob()?;
        if summary::unpack(packed, words, grain.length()).is_none() {
            let id: i64 = row.get(0)?;
            problems.push(format!("row {id} of {table} cannot be unpacked"));
        }
        if problems.len() >= MOST_PROBLEMS as usize {
            break;
        }
    }
    Ok(problems)
}
