//! Rollups: what is left of a quarter of an hour, and of an hour, for each service.
//!
//! A quarter is summed up once checks of well after it are there, for all services, from single
//! checks and changes of status; an hour is its four quarters, merged. Both are appended in order,
//! like blocks. What comes in for a time already summed up (a clock that stepped back, an import)
//! marks its hours stale in the same transaction that appends it; until they are summed up anew,
//! questions take single checks for them. Summing up reads beside the writer.

use std::collections::HashMap;
use std::time::Duration;

use mcpmon_core::state::ChangeOrigin;
use mcpmon_core::store::history::{LATEST_DISCOUNT, LONGEST_REACH, Summarizer, reach};
use mcpmon_core::store::{Batch, Summary};
use mcpmon_core::{CheckMeaning, ServiceName, Status, Timestamp};
use rusqlite::{Connection, OptionalExtension, Transaction, params};

use crate::codec::{self, from_json};
use crate::database::Mirror;
use crate::pages::Source;
use crate::seal::SERVICE_BITS;
use crate::services::{Directory, Words};
use crate::summary;

/// Milliseconds of a quarter of an hour, and of an hour.
pub(crate) const QUARTER: i64 = 900_000;
pub(crate) const HOUR: i64 = 4 * QUARTER;
/// A quarter is summed up once there are checks of so much later, in ms: no check takes longer.
const GRACE: i64 = if cfg!(test) { 60_000 } else { 120_000 };
/// Services summed up in one step.
const SERVICES_AT_ONCE: i64 = if cfg!(test) { 2 } else { 2_000 };
/// Stale hours summed up anew in one step.
const STALE_AT_ONCE: i64 = 200;
/// Hours one late change can make stale; more would only be a clock that is far off.
const MOST_STALE: i64 = 24 * 31;
const LONGEST: i64 = LONGEST_REACH.as_millis() as i64;

/// The resolutions there are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Grain {
    Quarter,
    Hour,
}

impl Grain {
    pub(crate) fn table(self) -> &'static str {
        match self {
            Self::Quarter => "quarter",
            Self::Hour => "hour",
        }
    }

    /// The id before which everything lies that ends at `before` or earlier.
    pub(crate) fn first_id(self, before: Timestamp) -> i64 {
        before.as_millis().div_euclid(self.length()) << SERVICE_BITS
    }

    pub(crate) fn length(self) -> i64 {
        match self {
            Self::Quarter => QUARTER,
            Self::Hour => HOUR,
        }
    }
}

/// How far rollups have come: the first quarter that is not summed up, and in it the services
/// that are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Progress {
    /// Number of a quarter since 1970.
    pub(crate) quarter: i64,
    pub(crate) through: i64,
}

impl Progress {
    pub(crate) fn load(connection: &Connection) -> rusqlite::Result<Self> {
        let read = |key: &str| {
            let sql = "SELECT coalesce((SELECT value FROM meta WHERE key = ?1), 0)";
            connection.prepare_cached(sql)?.query_row([key], |row| row.get::<_, i64>(0))
        };
        Ok(Self { quarter: read("rollup_quarter")?, through: read("rollup_through")? })
    }

    fn save(self, transaction: &Transaction<'_>) -> rusqlite::Result<()> {
        let sql = "INSERT OR REPLACE INTO meta (key, value) VALUES (?1, ?2)";
        let mut save = transaction.prepare_cached(sql)?;
        save.execute(params!["rollup_quarter", self.quarter])?;
        save.execute(params!["rollup_through", self.through])?;
        Ok(())
    }

    /// Where what is summed up for every service ends, in ms.
    pub(crate) fn until(self) -> i64 {
        self.quarter.saturating_mul(QUARTER)
    }
}

/// Where summing up began, in ms: what was before has single records alone.
pub(crate) fn begin(connection: &Connection) -> rusqlite::Result<i64> {
    let sql = "SELECT coalesce((SELECT value FROM meta WHERE key = 'rollup_begin'), 0)";
    let quarter: i64 = connection.prepare_cached(sql)?.query_row([], |row| row.get(0))?;
    Ok(quarter.saturating_mul(QUARTER))
}

/// How long a check of each service vouches for it, by number.
pub(crate) struct Reaches(HashMap<i64, Duration>);

impl Reaches {
    pub(crate) fn load(connection: &Connection) -> rusqlite::Result<Self> {
        let sql = "SELECT id, json_extract(facts, '$.check_interval_ms') FROM service
                   WHERE facts IS NOT NULL";
        let mut statement = connection.prepare_cached(sql)?;
        let rows = statement.query_map([], |row| {
            let interval: Option<i64> = row.get(1)?;
            let interval = interval.and_then(|ms| u64::try_from(ms).ok());
            Ok((row.get(0)?, reach(interval.map(Duration::from_millis))))
        })?;
        Ok(Self(rows.collect::<Result<_, _>>()?))
    }

    pub(crate) fn of(&self, service: i64) -> Duration {
        self.0.get(&service).copied().unwrap_or_else(|| reach(None))
    }
}

/// Sums up single records of some services between edges, each service on its own.
pub(crate) fn from_records(
    connection: &Connection,
    words: &Words,
    services: (i64, i64),
    edges: &[i64],
) -> rusqlite::Result<Vec<(i64, Vec<Summary>)>> {
    let reaches = Reaches::load(connection)?;
    let (Some(from), Some(until)) = (edges.first(), edges.last()) else { return Ok(Vec::new()) };
    let longest = (services.0..=services.1).map(|service| reaches.of(service)).max();
    let longest = longest.unwrap_or_default().as_millis() as i64;
    let source = Source::new(connection, Some(services), from.saturating_sub(longest), *until)?;
    let mut found: HashMap<i64, Summarizer> = HashMap::new();
    let begin = |service| Summarizer::new(edges.to_vec(), reaches.of(service));
    source.each(|service, check| {
        let of_service = found.entry(service).or_insert_with(|| begin(service));
        let latency = check.latency.map(codec::to_duration);
        let (question, status) =
            (codec::to_question(check.question), codec::to_status(check.status));
        let code = words.code(check.code);
        let when = Timestamp::from_millis(check.at);
        of_service.check(when, CheckMeaning::of(question, status, code), code, latency);
    })?;
    // The status at the first edge, and every change behind it.
    let sql = "SELECT id FROM service WHERE id BETWEEN ?1 AND ?2";
    let mut all = connection.prepare_cached(sql)?;
    let all = all.query_map([services.0, services.1], |row| row.get::<_, i64>(0))?;
    for service in all {
        let service = service?;
        let changes = changes(connection, service, *from, *until)?;
        // Nobody asks a service that rests, and its time counts all the same.
        let rests = changes.iter().any(|(_, status)| *status == Status::Paused);
        if !rests && !found.contains_key(&service) {
            continue;
        }
        let of_service = found.entry(service).or_insert_with(|| begin(service));
        for (moment, status) in changes {
            of_service.change(Timestamp::from_millis(moment), status);
        }
        for origin in discounts(connection, service, *from, *until)? {
            of_service.discount(&origin);
        }
    }
    let mut found: Vec<_> =
        found.into_iter().map(|(service, sums)| (service, sums.finish())).collect();
    found.sort_by_key(|(service, _)| *service);
    Ok(found)
}

/// Changes of a service before `until`, from the last one before `from` on.
fn changes(
    connection: &Connection,
    service: i64,
    from: i64,
    until: i64,
) -> rusqlite::Result<Vec<(i64, Status)>> {
    let sql = "SELECT at, status FROM status_change WHERE service = ?1 AND at >= coalesce(
                   (SELECT max(at) FROM status_change WHERE service = ?1 AND at <= ?2), ?2)
                   AND at < ?3
               ORDER BY at, id";
    let mut statement = connection.prepare_cached(sql)?;
    let rows = statement.query_map([service, from, until], |row| {
        Ok((row.get(0)?, row.get_ref(1)?.as_str()?.parse().unwrap_or_default()))
    })?;
    rows.collect()
}

/// What made changes of a service from a while before `from` to a while after `until`, where it may
/// attribute failed checks between them to the monitor.
fn discounts(
    connection: &Connection,
    service: i64,
    from: i64,
    until: i64,
) -> rusqlite::Result<Vec<ChangeOrigin>> {
    let sql = "SELECT origin FROM status_change
               WHERE service = ?1 AND at >= ?2 AND at < ?3 AND origin IS NOT NULL";
    let mut statement = connection.prepare_cached(sql)?;
    let furthest = LATEST_DISCOUNT.as_millis() as i64;
    let (from, until) = (from.saturating_sub(furthest), until.saturating_add(furthest));
    let mut rows = statement.query([service, from, until])?;
    let mut origins = Vec::new();
    while let Some(row) = rows.next()? {
        origins.extend(from_json::<ChangeOrigin>("origin", row.get_ref(0)?.as_str()?));
    }
    Ok(origins)
}

/// The newest moment there are checks of.
pub(crate) fn newest(connection: &Connection) -> rusqlite::Result<Option<i64>> {
    let sql = "SELECT max(max_at) FROM
                   (SELECT max(max_at) AS max_at FROM head_mark WHERE kept > 0
                    UNION ALL SELECT max(max_at) FROM chunk)";
    connection.prepare_cached(sql)?.query_row([], |row| row.get(0))
}

/// Summaries to be put in their place.
#[derive(Debug)]
pub(crate) struct Step {
    rows: Vec<(Grain, i64, i64, Summary)>,
    progress: Option<Progress>,
    /// Stale hours this step makes fresh.
    fresh: Vec<(i64, i64)>,
}

/// Sums up what is due next, stale hours first. Reads only.
pub(crate) fn next(connection: &Connection, words: &Words) -> rusqlite::Result<Option<Step>> {
    let progress = Progress::load(connection)?;
    // A quarter that was begun is finished first: what is stale of it can be mended only then.
    if progress.through == 0
        && let Some(step) = next_stale(connection, words, progress)?
    {
        return Ok(Some(step));
    }
    let Some((quarter, through)) = due(connection, progress)? else { return Ok(None) };
    let services = words.services_end() as i64 - 1;
    let last = through.saturating_add(SERVICES_AT_ONCE).min(services);
    let (begin, end) = (quarter * QUARTER, (quarter + 1) * QUARTER);
    let of_quarter = from_records(connection, words, (through + 1, last), &[begin, end])?;
    let mut rows = Vec::new();
    let ends_hour = end % HOUR == 0;
    let hour = begin.div_euclid(HOUR);
    let mut hours = match ends_hour {
        true => merged_quarters(connection, words, (through + 1, last), hour)?,
        false => HashMap::new(),
    };
    for (service, summaries) in of_quarter {
        for summary in summaries {
            if ends_hour {
                hours.entry(service).or_default().merge(&summary);
            }
            rows.push((Grain::Quarter, quarter, service, summary));
        }
    }
    let mut hours: Vec<_> = hours.into_iter().collect();
    hours.sort_by_key(|(service, _)| *service);
    rows.extend(hours.into_iter().map(|(service, summary)| (Grain::Hour, hour, service, summary)));
    let progress = match last >= services {
        true => Progress { quarter: quarter + 1, through: 0 },
        false => Progress { quarter, through: last },
    };
    Ok(Some(Step { rows, progress: Some(progress), fresh: Vec::new() }))
}

/// The quarter to sum up now, and the services of it that are done.
fn due(connection: &Connection, progress: Progress) -> rusqlite::Result<Option<(i64, i64)>> {
    let newest = newest(connection)?;
    let sql = "SELECT min(min_at) FROM
                   (SELECT min(max(min_at, ?1)) AS min_at FROM head_mark
                        WHERE kept > 0 AND max_at >= ?1
                    UNION ALL SELECT min(max(min_at, pruned, ?1)) FROM chunk
                        WHERE max_at >= ?1 AND pruned <= max_at)";
    // From 1970 on where there is nothing yet: the first quarter is that of the oldest check.
    let from = if progress.quarter == 0 { i64::MIN } else { progress.until() };
    let oldest: Option<i64> =
        connection.prepare_cached(sql)?.query_row([from], |row| row.get(0))?;
    let (Some(newest), Some(mut oldest)) = (newest, oldest) else { return Ok(None) };
    let begins = progress.quarter == 0;
    if begins {
        // The time of a service that rests counts, and may lie before every check.
        let sql = "SELECT min(at) FROM status_change WHERE status = 'paused'";
        let rests: Option<i64> = connection.prepare_cached(sql)?.query_row([], |row| row.get(0))?;
        oldest = rests.map_or(oldest, |rests| rests.min(oldest));
    }
    // Rollups begin and go on with whole hours, whose quarters are all looked at.
    let next = oldest.div_euclid(HOUR) * 4;
    let may_skip = progress.quarter % 4 == 0 && progress.through == 0 && next > progress.quarter;
    let skips =
        begins || may_skip && !counts_between(connection, progress.until(), next * QUARTER)?;
    let (quarter, through) = if skips { (next, 0) } else { (progress.quarter, progress.through) };
    let end = (quarter + 1).saturating_mul(QUARTER);
    Ok((newest >= end.saturating_add(GRACE)).then_some((quarter, through)))
}

/// Whether a span without checks still has time that counts: vouched for by checks before it, or
/// at rest.
fn counts_between(connection: &Connection, from: i64, until: i64) -> rusqlite::Result<bool> {
    let sql =
        "SELECT EXISTS (SELECT 1 FROM head_mark WHERE kept > 0 AND max_at > ?1 AND min_at < ?2)
                   OR EXISTS (SELECT 1 FROM chunk WHERE max_at > ?1 AND min_at < ?2)
                   OR EXISTS (SELECT 1 FROM status_change WHERE status = 'paused' AND at < ?2)";
    let from = from.saturating_sub(LONGEST);
    connection.prepare_cached(sql)?.query_row([from, until], |row| row.get(0))
}

/// The quarters of an hour that are summed up already, merged, by service.
fn merged_quarters(
    connection: &Connection,
    words: &Words,
    services: (i64, i64),
    hour: i64,
) -> rusqlite::Result<HashMap<i64, Summary>> {
    let mut merged: HashMap<i64, Summary> = HashMap::new();
    for quarter in hour * 4..hour * 4 + 3 {
        each(connection, words, Grain::Quarter, quarter, services, |service, summary| {
            merged.entry(service).or_default().merge(&summary);
        })?;
    }
    // Quarters in which nobody looked have no row.
    for summary in merged.values_mut() {
        let missing = (3 * QUARTER).unsigned_abs().saturating_sub(summary.times.sum());
        summary.times.add(Status::Unknown, missing);
    }
    Ok(merged)
}

/// Gives the summaries of one quarter or hour.
pub(crate) fn each(
    connection: &Connection,
    words: &Words,
    grain: Grain,
    number: i64,
    services: (i64, i64),
    mut give: impl FnMut(i64, Summary),
) -> rusqlite::Result<()> {
    each_packed(connection, grain, number, services, |service, packed| {
        match summary::unpack(packed, words, grain.length()) {
            Some(summary) => give(service, summary),
            None => warn_damaged(grain, number, service),
        }
    })
}

/// Gives them as they are kept.
pub(crate) fn each_packed(
    connection: &Connection,
    grain: Grain,
    number: i64,
    services: (i64, i64),
    mut give: impl FnMut(i64, &[u8]),
) -> rusqlite::Result<()> {
    let sql = match grain {
        Grain::Quarter => "SELECT id, summary FROM quarter WHERE id BETWEEN ?1 AND ?2",
        Grain::Hour => "SELECT id, summary FROM hour WHERE id BETWEEN ?1 AND ?2",
    };
    let mut statement = connection.prepare_cached(sql)?;
    let id = |service: i64| number << SERVICE_BITS | service;
    let mut rows = statement.query([id(services.0), id(services.1)])?;
    while let Some(row) = rows.next()? {
        let service = row.get::<_, i64>(0)? & ((1 << SERVICE_BITS) - 1);
        give(service, row.get_ref(1)?.as_blob()?);
    }
    Ok(())
}

pub(crate) fn warn_damaged(grain: Grain, number: i64, service: i64) {
    let table = grain.table();
    tracing::warn!(table, number, service, "Summary could not be read; left out");
}

fn next_stale(
    connection: &Connection,
    words: &Words,
    progress: Progress,
) -> rusqlite::Result<Option<Step>> {
    let sql = "SELECT hour, service FROM stale_hour ORDER BY hour, service LIMIT ?1";
    let mut statement = connection.prepare_cached(sql)?;
    let stale = statement.query_map([STALE_AT_ONCE], |row| Ok((row.get(0)?, row.get(1)?)))?;
    let fresh: Vec<(i64, i64)> = stale.collect::<Result<_, _>>()?;
    if fresh.is_empty() {
        return Ok(None);
    }
    let mut rows = Vec::new();
    for (hour, service) in &fresh {
        let edges: Vec<i64> = (0..=4).map(|n| hour * HOUR + n * QUARTER).collect();
        let only = (*service, *service);
        let Some((_, quarters)) = from_records(connection, words, only, &edges)?.pop() else {
            continue;
        };
        let mut whole = Summary::default();
        quarters.iter().for_each(|summary| whole.merge(summary));
        let done = |end: i64| end <= progress.until();
        for (number, summary) in (hour * 4..).zip(quarters) {
            if done((number + 1) * QUARTER)
                && !knows_more(connection, words, Grain::Quarter, number, *service, &summary)?
            {
                rows.push((Grain::Quarter, number, *service, summary));
            }
        }
        if done((hour + 1) * HOUR)
            && !knows_more(connection, words, Grain::Hour, *hour, *service, &whole)?
        {
            rows.push((Grain::Hour, *hour, *service, whole));
        }
    }
    Ok(Some(Step { rows, progress: None, fresh }))
}

/// Whether the stored summary was made from checks that are gone by now.
fn knows_more(
    connection: &Connection,
    words: &Words,
    grain: Grain,
    number: i64,
    service: i64,
    new: &Summary,
) -> rusqlite::Result<bool> {
    let mut more = false;
    each(connection, words, grain, number, (service, service), |_, stored| {
        more = stored.checks.sum() > new.checks.sum();
    })?;
    Ok(more)
}

/// Puts summaries in their place.
pub(crate) fn place(
    transaction: &Transaction<'_>,
    mirror: &mut Mirror,
    step: &Step,
) -> rusqlite::Result<()> {
    for (grain, number, service, summary) in &step.rows {
        let packed = summary::pack(transaction, &mut mirror.directory, summary, grain.length())?;
        let sql = match grain {
            Grain::Quarter => "INSERT OR REPLACE INTO quarter (id, summary) VALUES (?1, ?2)",
            Grain::Hour => "INSERT OR REPLACE INTO hour (id, summary) VALUES (?1, ?2)",
        };
        let id = number << SERVICE_BITS | service;
        transaction.prepare_cached(sql)?.execute(params![id, packed])?;
    }
    let mut delete =
        transaction.prepare_cached("DELETE FROM stale_hour WHERE hour = ?1 AND service = ?2")?;
    for (hour, service) in &step.fresh {
        delete.execute([hour, service])?;
    }
    if let Some(progress) = step.progress {
        let done = if progress.through == 0 { progress.quarter - 1 } else { progress.quarter };
        let sql = "INSERT OR IGNORE INTO meta (key, value) VALUES ('rollup_begin', ?1)";
        transaction.prepare_cached(sql)?.execute([done])?;
        progress.save(transaction)?;
        mirror.rollups = progress;
    }
    Ok(())
}

/// Marks the hours stale that a batch brings something new of.
pub(crate) fn note_late(
    transaction: &Transaction<'_>,
    directory: &mut Directory,
    progress: Progress,
    newest: i64,
    batch: &Batch,
) -> rusqlite::Result<()> {
    // The quarter that is due may be being summed up: its checks may have been read already.
    let end = (progress.quarter + 1).saturating_mul(QUARTER);
    let until = if newest >= end.saturating_add(GRACE) { end } else { progress.until() };
    let mut mark = |service: &ServiceName, from: i64, to: i64| {
        let service = directory.service(transaction, service)?;
        let sql = "INSERT OR IGNORE INTO stale_hour (hour, service) VALUES (?1, ?2)";
        let mut insert = transaction.prepare_cached(sql)?;
        let last = to.min(until - 1).div_euclid(HOUR);
        for hour in (from.div_euclid(HOUR)..=last).take(MOST_STALE as usize) {
            insert.execute([hour, service])?;
        }
        Ok::<_, rusqlite::Error>(())
    };
    if progress.quarter == 0 {
        return Ok(());
    }
    for check in &batch.checks {
        let at = check.at.as_millis();
        if at < until {
            mark(&check.service, at, at.saturating_add(LONGEST))?;
        }
    }
    for change in &batch.changes {
        let at = change.at.as_millis();
        if at < until {
            mark(&change.service, at, i64::MAX)?;
        }
        if let Some((since, noticed)) = change.origin.discounted() {
            mark(&change.service, since.as_millis(), noticed.as_millis())?;
        }
    }
    Ok(())
}

/// The hours of a service, or of any, that are stale between two moments.
pub(crate) fn stale_hours(
    connection: &Connection,
    services: (i64, i64),
    from: i64,
    until: i64,
) -> rusqlite::Result<Vec<i64>> {
    let sql = "SELECT DISTINCT hour FROM stale_hour
               WHERE hour >= ?1 AND hour <= ?2 AND service BETWEEN ?3 AND ?4 ORDER BY hour";
    let mut statement = connection.prepare_cached(sql)?;
    let values = [from.div_euclid(HOUR), until.div_euclid(HOUR), services.0, services.1];
    statement.query_map(values, |row| row.get(0))?.collect()
}

/// Deletes rollups older than `before`, at most `most`; says how many.
pub(crate) fn prune(
    transaction: &Transaction<'_>,
    grain: Grain,
    before: Timestamp,
    most: u64,
) -> rusqlite::Result<u64> {
    let end = grain.first_id(before);
    let table = grain.table();
    let sql =
        format!("SELECT max(id) FROM (SELECT id FROM {table} WHERE id < ?1 ORDER BY id LIMIT ?2)");
    let last: Option<i64> = transaction
        .prepare_cached(&sql)?
        .query_row(params![end, most as i64], |row| row.get(0))
        .optional()?
        .flatten();
    let Some(last) = last else { return Ok(0) };
    let sql = format!("DELETE FROM {table} WHERE id <= ?1");
    Ok(transaction.prepare_cached(&sql)?.execute([last])? as u64)
}

/// The key of the moment single checks were last pruned up to.
pub(crate) const RAW_FROM: &str = "raw_from";
/// The same of summaries of a quarter.
pub(crate) const QUARTERS_FROM: &str = "quarters_from";

/// Up to which moment something was pruned; `None` where all there ever was is there.
pub(crate) fn pruned_before(connection: &Connection, key: &str) -> rusqlite::Result<Option<i64>> {
    let sql = "SELECT value FROM meta WHERE key = ?1";
    connection.prepare_cached(sql)?.query_row([key], |row| row.get(0)).optional()
}

/// Notes that something was pruned up to a moment.
pub(crate) fn note_pruned(
    transaction: &Transaction<'_>,
    key: &str,
    before: Timestamp,
) -> rusqlite::Result<()> {
    let sql = "INSERT OR REPLACE INTO meta (key, value) VALUES (?1, ?2)";
    transaction.prepare_cached(sql)?.execute(params![key, before.as_millis()])?;
    Ok(())
}

/// Where the rollups of a grain begin, in ms; `None` where there are none.
pub(crate) fn oldest(connection: &Connection, grain: Grain) -> rusqlite::Result<Option<i64>> {
    let sql = format!("SELECT min(id) FROM {}", grain.table());
    let id: Option<i64> = connection.prepare_cached(&sql)?.query_row([], |row| row.get(0))?;
    Ok(id.map(|id| (id >> SERVICE_BITS) * grain.length()))
}
