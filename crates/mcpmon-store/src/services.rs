//! Services and what is known of each: its number in this file, facts, condition, changes, lists;
//! and the samples of the machine.

use std::borrow::Cow;
use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use mcpmon_core::lists::ListKind;
use mcpmon_core::observation::Lists;
use mcpmon_core::state::StatusChange;
use mcpmon_core::store::{
    Batch, Cursor, HostRecord, ListChange, ListRecord, Page, RecordQuery, ServiceFacts,
    StoredService,
};
use mcpmon_core::{FailureCode, ServiceName, Status, Timestamp};
use rusqlite::{Connection, OptionalExtension, Params, Row, Transaction, params};

use crate::codec::{from_json, to_json};
use crate::database::Mirror;
use crate::head;
use crate::packed;
use crate::rollup;

/// Lists kept of one service: a server whose list never settles must not fill the disk.
const KEPT_LISTS: i64 = 20;
/// Numbers count up from 1; one beyond this comes from damage, and must not size a list.
pub(crate) const LARGEST_NUMBER: usize = 1 << 24;

/// Numbers of services and codes, for the writer.
#[derive(Debug, Default)]
pub(crate) struct Directory {
    services: HashMap<ServiceName, i64>,
    codes: HashMap<FailureCode, i64>,
}

impl Directory {
    pub(crate) fn load(connection: &Connection) -> rusqlite::Result<Self> {
        let words = Words::load(connection)?;
        let services = words.services.into_iter().zip(0..);
        let codes = words.codes.into_iter().zip(0..);
        Ok(Self {
            services: services.filter_map(|(name, number)| Some((name?, number))).collect(),
            codes: codes.filter_map(|(code, number)| Some((code?, number))).collect(),
        })
    }

    /// The number of a service, which gets a row if it is new.
    pub(crate) fn service(
        &mut self,
        transaction: &Transaction<'_>,
        name: &ServiceName,
    ) -> rusqlite::Result<i64> {
        if let Some(number) = self.services.get(name) {
            return Ok(*number);
        }
        let sql = "INSERT INTO service (name) VALUES (?1)";
        let number = transaction.prepare_cached(sql)?.insert([name.as_str()])?;
        self.services.insert(name.clone(), number);
        Ok(number)
    }

    /// The number of a failure code in this file.
    pub(crate) fn code(
        &mut self,
        transaction: &Transaction<'_>,
        code: FailureCode,
    ) -> rusqlite::Result<i64> {
        if let Some(number) = self.codes.get(&code) {
            return Ok(*number);
        }
        let sql = "INSERT INTO failure_code (word) VALUES (?1)";
        let number = transaction.prepare_cached(sql)?.insert([code.as_str()])?;
        self.codes.insert(code, number);
        Ok(number)
    }
}

/// Names behind the numbers, for readers. Numbers are dense, so a list does.
#[derive(Debug, Default)]
pub(crate) struct Words {
    services: Vec<Option<ServiceName>>,
    codes: Vec<Option<FailureCode>>,
}

impl Words {
    fn load(connection: &Connection) -> rusqlite::Result<Self> {
        fn read<T>(
            connection: &Connection,
            sql: &str,
            word: impl Fn(&str) -> Option<T>,
        ) -> rusqlite::Result<Vec<Option<T>>> {
            let mut words = vec![None];
            let mut statement = connection.prepare_cached(sql)?;
            let mut rows = statement.query([])?;
            while let Some(row) = rows.next()? {
                let number: i64 = row.get(0)?;
                let at = usize::try_from(number)
                    .ok()
                    .filter(|at| (words.len()..LARGEST_NUMBER).contains(at))
                    .ok_or(rusqlite::Error::IntegralValueOutOfRange(0, number))?;
                words.resize_with(at, || None);
                words.push(word(row.get_ref(1)?.as_str()?));
            }
            Ok(words)
        }
        Ok(Self {
            services: read(connection, "SELECT id, name FROM service ORDER BY id", |name| {
                Some(ServiceName::from(name))
            })?,
            codes: read(connection, "SELECT id, word FROM failure_code ORDER BY id", |word| {
                word.parse().ok()
            })?,
        })
    }

    /// These words, or newer ones where the file has more. Rows are only ever added.
    pub(crate) fn refreshed(
        self: &Arc<Self>,
        connection: &Connection,
    ) -> rusqlite::Result<Arc<Self>> {
        let sql = "SELECT coalesce((SELECT max(id) FROM service), 0),
                          coalesce((SELECT max(id) FROM failure_code), 0)";
        let ends: (usize, usize) =
            connection.prepare_cached(sql)?.query_row([], |row| Ok((row.get(0)?, row.get(1)?)))?;
        if (self.services.len(), self.codes.len()) == (ends.0 + 1, ends.1 + 1) {
            return Ok(Arc::clone(self));
        }
        Self::load(connection).map(Arc::new)
    }

    /// One more than the highest number of a service.
    pub(crate) fn services_end(&self) -> usize {
        self.services.len()
    }

    pub(crate) fn service(&self, number: i64) -> Option<&ServiceName> {
        self.services.get(usize::try_from(number).ok()?)?.as_ref()
    }

    /// The code of a number; `None` also for a code of a newer build.
    pub(crate) fn code(&self, number: i64) -> Option<FailureCode> {
        *self.codes.get(usize::try_from(number).ok()?)?
    }

    pub(crate) fn number_of(&self, name: &ServiceName) -> Option<i64> {
        let number = self.services.iter().position(|known| known.as_ref() == Some(name))?;
        i64::try_from(number).ok()
    }
}

/// Writes a batch.
pub(crate) fn append(
    transaction: &Transaction<'_>,
    mirror: &mut Mirror,
    batch: &Batch,
) -> rusqlite::Result<()> {
    let Mirror { directory, head, rollups, newest } = mirror;
    rollup::note_late(transaction, directory, *rollups, *newest, batch)?;
    let last = batch.checks.iter().map(|check| check.at.as_millis()).max();
    *newest = last.map_or(*newest, |last| last.max(*newest));
    for facts in &batch.facts {
        let service = directory.service(transaction, &facts.service)?;
        let sql = "UPDATE service SET facts = ?2 WHERE id = ?1";
        transaction.prepare_cached(sql)?.execute(params![service, to_json(facts)?])?;
    }
    head.append(transaction, directory, &batch.checks)?;
    for change in &batch.changes {
        let service = directory.service(transaction, &change.service)?;
        append_change(transaction, service, change)?;
    }
    let mut relisted = BTreeSet::new();
    for change in &batch.list_changes {
        let service = directory.service(transaction, &change.service)?;
        append_list_change(transaction, service, change)?;
        relisted.insert(service);
    }
    for service in relisted {
        drop_old_list_changes(transaction, service)?;
    }
    for record in &batch.lists {
        let service = directory.service(transaction, &record.service)?;
        append_lists(transaction, service, record)?;
    }
    for sample in &batch.host {
        let sql = "INSERT INTO host (at, sample) VALUES (?1, ?2)";
        let values = params![sample.at.as_millis(), packed::host(&sample.metrics)];
        transaction.prepare_cached(sql)?.execute(values)?;
    }
    Ok(())
}

/// Writes a batch of the past: the condition of a service that has changed since stays, and so does
/// its last check.
pub(crate) fn put_back(
    transaction: &Transaction<'_>,
    mirror: &mut Mirror,
    batch: &Batch,
) -> rusqlite::Result<()> {
    let mut newest: HashMap<&ServiceName, i64> = HashMap::new();
    for change in &batch.changes {
        let at = newest.entry(&change.service).or_insert(i64::MIN);
        *at = (*at).max(change.at.as_millis());
    }
    // Of one moment the later written counts, and that is what the file says.
    let sql = "SELECT service.id, service.status, service.since, service.failure, service.findings
               FROM service
               WHERE name = ?1 AND EXISTS (
                   SELECT 1 FROM status_change AS later
                   WHERE later.service = service.id AND later.at > ?2)";
    let mut find = transaction.prepare(sql)?;
    let mut ahead: Vec<[rusqlite::types::Value; 5]> = Vec::new();
    for (service, at) in newest {
        let found = find.query_row(params![service.as_str(), at], |row| {
            Ok([row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?, row.get(4)?])
        });
        ahead.extend(found.optional()?);
    }
    let last = mirror.head.last_of(transaction, &mut mirror.directory, &batch.checks)?;
    append(transaction, mirror, batch)?;
    mirror.head.point_to(transaction, last)?;
    let sql = "UPDATE service SET status = ?2, since = ?3, failure = ?4, findings = ?5
               WHERE id = ?1";
    let mut restore = transaction.prepare(sql)?;
    for condition in ahead {
        restore.execute(rusqlite::params_from_iter(condition))?;
    }
    Ok(())
}

fn append_change(
    transaction: &Transaction<'_>,
    service: i64,
    change: &StatusChange,
) -> rusqlite::Result<()> {
    let failure = change.failure.as_ref().map(to_json).transpose()?;
    let findings = to_json(&change.findings)?;
    let (status, since) = (change.status.as_str(), change.since.as_millis());
    let sql =
        "INSERT INTO status_change (service, at, was, status, since, failure, findings, origin)
               VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)";
    let (at, was) = (change.at.as_millis(), change.from.as_str());
    let origin = (!change.origin.is_check()).then(|| to_json(&change.origin)).transpose()?;
    let values = params![service, at, was, status, since, failure, findings, origin];
    transaction.prepare_cached(sql)?.execute(values)?;
    let sql = "UPDATE service SET status = ?2, since = ?3, failure = ?4, findings = ?5
               WHERE id = ?1";
    let values = params![service, status, since, failure, findings];
    transaction.prepare_cached(sql)?.execute(values)?;
    Ok(())
}

/// Adds lists, with what they lack from those before, unless they are what the service had already:
/// then the moment they were first seen stays.
fn append_lists(
    transaction: &Transaction<'_>,
    service: i64,
    record: &ListRecord,
) -> rusqlite::Result<()> {
    let mut lists = Cow::Borrowed(&record.lists);
    if let Some((_, last)) = last_lists(transaction, service)? {
        if ListKind::ALL.into_iter().any(|kind| !lists.covers_list(kind)) {
            lists.to_mut().complete_from(&last);
        }
        if (&last.hash, last.parts) == (&lists.hash, lists.parts) {
            return Ok(());
        }
    }
    let sql = "INSERT INTO tool_list (service, at, hash, lists) VALUES (?1, ?2, ?3, ?4)";
    let values = params![service, record.at.as_millis(), lists.hash, to_json(&lists)?];
    transaction.prepare_cached(sql)?.execute(values)?;
    let sql = "DELETE FROM tool_list WHERE service = ?1 AND id <= (
                   SELECT id FROM tool_list WHERE service = ?1
                   ORDER BY id DESC LIMIT 1 OFFSET ?2)";
    transaction.prepare_cached(sql)?.execute([service, KEPT_LISTS])?;
    Ok(())
}

/// Every service, by name.
pub(crate) fn services(
    connection: &Connection,
    words: &Words,
) -> rusqlite::Result<Vec<StoredService>> {
    let mut last = head::last_checks(connection, words)?;
    let sql = "SELECT id, name, facts, status, since, failure, findings FROM service ORDER BY name";
    let mut statement = connection.prepare_cached(sql)?;
    let mut rows = statement.query([])?;
    let mut services = Vec::with_capacity(last.len());
    while let Some(row) = rows.next()? {
        let id: usize = row.get(0)?;
        let name = ServiceName::from(row.get_ref(1)?.as_str()?);
        let facts =
            json_column(row, 2, "facts")?.unwrap_or_else(|| ServiceFacts::unknown(name.clone()));
        services.push(StoredService {
            facts: ServiceFacts { service: name, ..facts },
            status: status_column(row, 3)?,
            since: Timestamp::from_millis(row.get(4)?),
            failure: json_column(row, 5, "failure")?,
            findings: json_column(row, 6, "findings")?.unwrap_or_default(),
            last_check: last.get_mut(id).and_then(Option::take),
        });
    }
    Ok(services)
}

fn json_column<T: serde::de::DeserializeOwned>(
    row: &Row<'_>,
    at: usize,
    what: &'static str,
) -> rusqlite::Result<Option<T>> {
    let text = row.get_ref(at)?.as_str_or_null()?;
    Ok(text.and_then(|text| from_json(what, text)))
}

fn status_column(row: &Row<'_>, at: usize) -> rusqlite::Result<Status> {
    Ok(row.get_ref(at)?.as_str()?.parse().unwrap_or_default())
}

/// One page of changes, oldest first.
pub(crate) fn changes(
    connection: &Connection,
    words: &Words,
    query: &RecordQuery,
) -> rusqlite::Result<Page<StatusChange>> {
    const COLUMNS: &str = "at, id, service, was, status, since, failure, findings, origin";
    let read = |row: &Row<'_>| {
        let service = words.service(row.get(2)?);
        let Some(service) = service else { return Ok(None) };
        Ok(Some(StatusChange {
            service: service.clone(),
            at: Timestamp::from_millis(row.get(0)?),
            from: status_column(row, 3)?,
            status: status_column(row, 4)?,
            since: Timestamp::from_millis(row.get(5)?),
            failure: json_column(row, 6, "failure")?,
            findings: json_column(row, 7, "findings")?.unwrap_or_default(),
            origin: json_column(row, 8, "origin")?.unwrap_or_default(),
        }))
    };
    let bounds = Bounds::of(query);
    let (Bounds { from, until, after: (at, tie), limit }, rows) = (bounds, bounds.limit as i64 + 1);
    let order = "at >= ?1 AND at < ?2 AND (at, id) > (?3, ?4) ORDER BY at, id LIMIT ?5";
    match &query.service {
        None => {
            let sql = format!("SELECT {COLUMNS} FROM status_change WHERE {order}");
            page(connection, &sql, params![from, until, at, tie, rows], limit, read)
        }
        Some(name) => {
            let sql = format!("SELECT {COLUMNS} FROM status_change WHERE service = ?6 AND {order}");
            let number = words.number_of(name).unwrap_or(0);
            page(connection, &sql, params![from, until, at, tie, rows, number], limit, read)
        }
    }
}

/// One page of the machine's samples, oldest first.
pub(crate) fn host(
    connection: &Connection,
    query: &RecordQuery,
) -> rusqlite::Result<Page<HostRecord>> {
    let Bounds { from, until, after: (at, tie), limit } = Bounds::of(query);
    let sql = "SELECT at, id, sample FROM host
               WHERE at >= ?1 AND at < ?2 AND (at, id) > (?3, ?4) ORDER BY at, id LIMIT ?5";
    page(connection, sql, params![from, until, at, tie, limit as i64 + 1], limit, read_host)
}

/// The newest sample of the machine.
pub(crate) fn last_host(connection: &Connection) -> rusqlite::Result<Option<HostRecord>> {
    let sql = "SELECT at, id, sample FROM host ORDER BY at DESC, id DESC LIMIT 1";
    let newest = connection.prepare_cached(sql)?.query_row([], read_host).optional()?;
    Ok(newest.flatten())
}

fn read_host(row: &Row<'_>) -> rusqlite::Result<Option<HostRecord>> {
    let metrics = packed::to_host(row.get_ref(2)?.as_blob()?);
    let at = Timestamp::from_millis(row.get(0)?);
    Ok(metrics.map(|metrics| HostRecord { at, metrics }))
}

/// Adds a change of lists, unless it is there: an import may bring it again.
fn append_list_change(
    transaction: &Transaction<'_>,
    service: i64,
    change: &ListChange,
) -> rusqlite::Result<()> {
    let sql = "INSERT OR IGNORE INTO list_change (service, at, body) VALUES (?1, ?2, ?3)";
    let values = params![service, change.at.as_millis(), to_json(change)?];
    transaction.prepare_cached(sql)?.execute(values)?;
    Ok(())
}

/// Deletes a service's oldest changes of lists, as many as there are beyond
/// [`ListChange::MOST_KEPT`]: a server whose lists never settle must not fill the disk.
fn drop_old_list_changes(transaction: &Transaction<'_>, service: i64) -> rusqlite::Result<()> {
    let sql = "DELETE FROM list_change WHERE service = ?1 AND at <= (
                   SELECT at FROM list_change WHERE service = ?1
                   ORDER BY at DESC LIMIT 1 OFFSET ?2)";
    transaction.prepare_cached(sql)?.execute(params![service, ListChange::MOST_KEPT as i64])?;
    Ok(())
}

/// One page of changes of lists, oldest first.
pub(crate) fn list_changes(
    connection: &Connection,
    words: &Words,
    query: &RecordQuery,
) -> rusqlite::Result<Page<ListChange>> {
    const COLUMNS: &str = "at, id, body";
    let read = |row: &Row<'_>| json_column(row, 2, "list change");
    let bounds = Bounds::of(query);
    let (Bounds { from, until, after: (at, tie), limit }, rows) = (bounds, bounds.limit as i64 + 1);
    let order = "at >= ?1 AND at < ?2 AND (at, id) > (?3, ?4) ORDER BY at, id LIMIT ?5";
    match &query.service {
        None => {
            let sql = format!("SELECT {COLUMNS} FROM list_change WHERE {order}");
            page(connection, &sql, params![from, until, at, tie, rows], limit, read)
        }
        Some(name) => {
            let Some(service) = words.number_of(name) else {
                return Ok(Page { items: Vec::new(), next: None });
            };
            let sql = format!("SELECT {COLUMNS} FROM list_change WHERE service = ?6 AND {order}");
            page(connection, &sql, params![from, until, at, tie, rows, service], limit, read)
        }
    }
}

/// A service's newest lists.
pub(crate) fn lists(
    connection: &Connection,
    words: &Words,
    service: &ServiceName,
) -> rusqlite::Result<Option<ListRecord>> {
    let Some(number) = words.number_of(service) else { return Ok(None) };
    let last = last_lists(connection, number)?;
    Ok(last.map(|(at, lists)| ListRecord { service: service.clone(), at, lists }))
}

fn last_lists(
    connection: &Connection,
    service: i64,
) -> rusqlite::Result<Option<(Timestamp, Lists)>> {
    let sql = "SELECT at, lists FROM tool_list WHERE service = ?1 ORDER BY id DESC LIMIT 1";
    let mut statement = connection.prepare_cached(sql)?;
    let last = statement.query_row([service], |row| {
        let at = Timestamp::from_millis(row.get(0)?);
        Ok(json_column(row, 1, "lists")?.map(|lists| (at, lists)))
    });
    Ok(last.optional()?.flatten())
}

/// A query's edges in numbers.
#[derive(Debug, Clone, Copy)]
struct Bounds {
    from: i64,
    until: i64,
    after: (i64, i64),
    limit: usize,
}

impl Bounds {
    fn of(query: &RecordQuery) -> Self {
        let after = query.after.map_or((i64::MIN, i64::MIN), |at| (at.at.as_millis(), at.tie));
        let since = query.since.map_or(i64::MIN, Timestamp::as_millis);
        Self {
            from: since.max(after.0),
            until: query.until.map_or(i64::MAX, Timestamp::as_millis),
            after,
            limit: query.limit.clamp(1, RecordQuery::LARGEST_PAGE),
        }
    }
}

/// Reads a page with `sql`, which asks for one row more than `limit` and gives time and number
/// first. Rows that `read` leaves out still count, so that a page always gets on.
fn page<T>(
    connection: &Connection,
    sql: &str,
    values: impl Params,
    limit: usize,
    read: impl Fn(&Row<'_>) -> rusqlite::Result<Option<T>>,
) -> rusqlite::Result<Page<T>> {
    let mut statement = connection.prepare_cached(sql)?;
    let mut rows = statement.query(values)?;
    let (mut items, mut last) = (Vec::new(), None);
    for _ in 0..limit {
        let Some(row) = rows.next()? else { return Ok(Page { items, next: None }) };
        last = Some(Cursor { at: Timestamp::from_millis(row.get(0)?), tie: row.get(1)? });
        items.extend(read(row)?);
    }
    let next = if rows.next()?.is_some() { last } else { None };
    Ok(Page { items, next })
}
