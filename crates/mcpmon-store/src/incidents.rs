//! Alert states, alerts, the outbox, silences, the audit trail; and commands of other processes.
//!
//! These are few and read whole, so each is kept as the JSON of core's type, beside the columns it
//! is looked up by.

use std::collections::HashSet;

use mcpmon_core::alert::{AlertPhase, AlertState, Receipt, Silence};
use mcpmon_core::monitor::MonitorCommand;
use mcpmon_core::store::{
    AlertQuery, AlertRecord, AuditEntry, AuditQuery, Delivery, NewDelivery, Settlement, Transition,
};
use mcpmon_core::{Alert, Notification, Timestamp};
use rusqlite::{Connection, Params, Row, Transaction, TransactionBehavior, params};

use crate::codec::{from_json, to_json};
use crate::database::CommandWatch;

/// Commands that may wait for a monitor. More means that none has run for long, and that something
/// goes on asking it.
const MOST_COMMANDS: i64 = 10_000;

fn rows_of<T>(
    connection: &Connection,
    sql: &str,
    values: impl Params,
    mut read: impl FnMut(&Row<'_>) -> rusqlite::Result<Option<T>>,
) -> rusqlite::Result<Vec<T>> {
    let mut statement = connection.prepare_cached(sql)?;
    let mut rows = statement.query(values)?;
    let mut found = Vec::new();
    while let Some(row) = rows.next()? {
        found.extend(read(row)?);
    }
    Ok(found)
}

fn limit_of(limit: usize) -> i64 {
    i64::try_from(limit).unwrap_or(i64::MAX)
}

pub(crate) fn states(connection: &Connection) -> rusqlite::Result<Vec<AlertState>> {
    let sql = "SELECT state FROM alert_state ORDER BY key";
    rows_of(connection, sql, [], |row| Ok(from_json("alert state", row.get_ref(0)?.as_str()?)))
}

/// Records a transition and queues its deliveries.
pub(crate) fn commit(
    transaction: &Transaction<'_>,
    transition: &Transition,
) -> rusqlite::Result<()> {
    for state in &transition.states {
        let sql = "INSERT OR REPLACE INTO alert_state (key, alert, phase, state)
                   VALUES (?1, ?2, ?3, ?4)";
        let alert = state.alert.as_ref().map(|alert| alert.id.as_str());
        let values =
            params![to_json(&state.key)?, alert, state.shown_phase().as_str(), to_json(state)?];
        transaction.prepare_cached(sql)?.execute(values)?;
    }
    for alert in &transition.alerts {
        put_alert(transaction, alert)?;
    }
    for new in &transition.deliveries {
        queue(transaction, new, transition.at)?;
    }
    Ok(())
}

fn put_alert(transaction: &Transaction<'_>, alert: &Alert) -> rusqlite::Result<()> {
    let sql = "INSERT OR REPLACE INTO alert (id, service, fired_at, resolved_at, body)
               VALUES (?1, ?2, ?3, ?4, ?5)";
    let values = params![
        alert.id,
        alert.service_name().map(AsRef::<str>::as_ref),
        alert.timestamp.as_millis(),
        alert.resolved_at.map(Timestamp::as_millis),
        to_json(alert)?,
    ];
    transaction.prepare_cached(sql)?.execute(values)?;
    Ok(())
}

/// Queues a message, unless its handler was given one of this key before.
fn queue(transaction: &Transaction<'_>, new: &NewDelivery, at: Timestamp) -> rusqlite::Result<()> {
    let sql = "INSERT INTO outbox (handler, key, notification, queued_at, due_at, attempt, state)
               VALUES (?1, ?2, ?3, ?4, ?4, ?5, 'queued') ON CONFLICT (handler, key) DO NOTHING";
    let NewDelivery { handler, notification } = new;
    let body = to_json(notification)?;
    let values = params![handler, notification.key, body, at.as_millis(), notification.attempt];
    transaction.prepare_cached(sql)?.execute(values)?;
    Ok(())
}

const DELIVERY: &str = "id, handler, notification, queued_at, due_at, last_error, attempt";

fn read_delivery(row: &Row<'_>) -> rusqlite::Result<Option<Delivery>> {
    let notification = from_json::<Notification>("notification", row.get_ref(2)?.as_str()?);
    let Some(notification) = notification else { return Ok(None) };
    Ok(Some(Delivery {
        id: row.get(0)?,
        handler: row.get(1)?,
        notification: notification.at_attempt(row.get(6)?),
        queued_at: Timestamp::from_millis(row.get(3)?),
        due_at: Timestamp::from_millis(row.get(4)?),
        last_error: row.get(5)?,
    }))
}

/// Messages due for a handler, in the order they were queued.
pub(crate) fn due(
    connection: &Connection,
    handler: &str,
    now: Timestamp,
    limit: usize,
) -> rusqlite::Result<Vec<Delivery>> {
    let sql = format!(
        "SELECT {DELIVERY} FROM outbox INDEXED BY outbox_queued
         WHERE state = 'queued' AND handler = ?1 AND due_at <= ?2 ORDER BY id LIMIT ?3"
    );
    rows_of(connection, &sql, params![handler, now.as_millis(), limit_of(limit)], read_delivery)
}

/// Records what became of an attempt. A message that is no longer there needs no word.
pub(crate) fn settle(
    transaction: &Transaction<'_>,
    delivery: i64,
    settlement: &Settlement,
) -> rusqlite::Result<()> {
    match settlement {
        Settlement::Delivered { at, receipt } => {
            let Receipt { id, .. } = receipt;
            let sql = "UPDATE outbox SET state = 'delivered', settled_at = ?2, receipt = ?3
                       WHERE id = ?1";
            transaction.prepare_cached(sql)?.execute(params![delivery, at.as_millis(), id])?;
        }
        Settlement::Retry { due_at, error } => {
            let sql = "UPDATE outbox SET due_at = ?2, last_error = ?3, attempt = attempt + 1
                       WHERE id = ?1";
            transaction.prepare_cached(sql)?.execute(params![
                delivery,
                due_at.as_millis(),
                error
            ])?;
        }
        Settlement::Dead { at, error } => {
            let sql = "UPDATE outbox SET state = 'dead', settled_at = ?2, last_error = ?3
                       WHERE id = ?1";
            transaction.prepare_cached(sql)?.execute(params![delivery, at.as_millis(), error])?;
        }
        other => {
            let message = format!("no way to record {other:?}");
            return Err(rusqlite::Error::ToSqlConversionFailure(message.into()));
        }
    }
    Ok(())
}

/// Queued messages for handlers not among those of a JSON list.
const FOR_OTHERS: &str = "state = 'queued' AND handler NOT IN (SELECT value FROM json_each(?1))";

/// Whether any message waits for a handler not among these. A reader's question, so that the
/// writer is not asked where there is nothing to do.
pub(crate) fn waits_for_others(
    connection: &Connection,
    handlers: &[String],
) -> rusqlite::Result<bool> {
    let sql = format!("SELECT 1 FROM outbox WHERE {FOR_OTHERS} LIMIT 1");
    connection.prepare_cached(&sql)?.exists([to_json(&handlers)?])
}

/// Gives up what waits for handlers not among these; says how many messages that were.
pub(crate) fn give_up_for_others(
    transaction: &Transaction<'_>,
    handlers: &[String],
    at: Timestamp,
    why: &str,
) -> rusqlite::Result<u64> {
    let sql = format!(
        "UPDATE outbox SET state = 'dead', settled_at = ?2, last_error = ?3 WHERE {FOR_OTHERS}"
    );
    let values = params![to_json(&handlers)?, at.as_millis(), why];
    Ok(transaction.prepare_cached(&sql)?.execute(values)? as u64)
}

/// Messages that were given up, newest first.
pub(crate) fn dead_letters(
    connection: &Connection,
    limit: usize,
) -> rusqlite::Result<Vec<Delivery>> {
    let sql = format!(
        "SELECT {DELIVERY} FROM outbox WHERE state = 'dead'
         ORDER BY settled_at DESC, id DESC LIMIT ?1"
    );
    rows_of(connection, &sql, [limit_of(limit)], read_delivery)
}

/// Queues what was given up for a handler once more, under its old number.
pub(crate) fn revive(
    transaction: &Transaction<'_>,
    handler: &str,
    now: Timestamp,
) -> rusqlite::Result<u64> {
    let of_state = |state: &str| {
        let sql = format!("SELECT {DELIVERY} FROM outbox WHERE state = '{state}' AND handler = ?1");
        rows_of(transaction, &sql, [handler], read_delivery)
    };
    let (dead, queued) = (of_state("dead")?, of_state("queued")?);
    let to_come: HashSet<&str> = dead.iter().chain(&queued).flat_map(Delivery::ends).collect();
    let begun = dead.iter().flat_map(|letter| &letter.notification.alerts);
    let mut ended = HashSet::new();
    for alert in begun.filter(|alert| alert.resolved_at.is_none()) {
        let sql = "SELECT 1 FROM alert WHERE id = ?1 AND resolved_at IS NOT NULL";
        if transaction.prepare_cached(sql)?.exists([&alert.id])? {
            ended.insert(alert.id.as_str());
        }
    }
    let mut revived = 0;
    for letter in &dead {
        if letter.is_worth_reviving(|id| ended.contains(id), |id| to_come.contains(id)) {
            let sql = "UPDATE outbox SET state = 'queued', due_at = ?2, attempt = 1,
                              settled_at = NULL WHERE id = ?1";
            let values = params![letter.id, now.as_millis()];
            revived += transaction.prepare_cached(sql)?.execute(values)? as u64;
        }
    }
    Ok(revived)
}

/// Forgets what was given up for a handler.
pub(crate) fn discard(transaction: &Transaction<'_>, handler: &str) -> rusqlite::Result<u64> {
    let sql = "DELETE FROM outbox WHERE state = 'dead' AND handler = ?1";
    Ok(transaction.prepare_cached(sql)?.execute([handler])? as u64)
}

/// Alerts, newest first, each with where it stands.
pub(crate) fn alerts(
    connection: &Connection,
    query: &AlertQuery,
) -> rusqlite::Result<Vec<AlertRecord>> {
    // Spelled out rather than asked by a value, so that the index of open alerts serves.
    let active = if query.active { "AND resolved_at IS NULL" } else { "" };
    let sql = format!(
        "SELECT body, resolved_at,
                (SELECT phase FROM alert_state WHERE alert_state.alert = alert.id LIMIT 1)
         FROM alert
         WHERE fired_at < ?1 AND (fired_at >= ?2 OR resolved_at >= ?2)
           AND (?3 IS NULL OR service = ?3) {active}
         ORDER BY fired_at DESC, id DESC LIMIT ?4"
    );
    let values = params![
        query.until.map_or(i64::MAX, Timestamp::as_millis),
        query.since.map_or(i64::MIN, Timestamp::as_millis),
        query.service.as_ref().map(AsRef::<str>::as_ref),
        limit_of(query.limit),
    ];
    rows_of(connection, &sql, values, |row| {
        let alert = from_json::<Alert>("alert", row.get_ref(0)?.as_str()?);
        let resolved: Option<i64> = row.get(1)?;
        let phase = match (resolved, row.get_ref(2)?.as_str_or_null()?) {
            (Some(_), _) => AlertPhase::Resolved,
            (None, Some("flapping")) => AlertPhase::Flapping,
            (None, Some("suppressed")) => AlertPhase::Suppressed,
            (None, Some("acknowledged")) => AlertPhase::Acknowledged,
            (None, _) => AlertPhase::Firing,
        };
        Ok(alert.map(|alert| AlertRecord { alert, state: phase }))
    })
}

pub(crate) fn silences(connection: &Connection, now: Timestamp) -> rusqlite::Result<Vec<Silence>> {
    let sql = "SELECT body FROM silence WHERE ends_at > ?1 ORDER BY id";
    rows_of(connection, sql, [now.as_millis()], |row| {
        Ok(from_json("silence", row.get_ref(0)?.as_str()?))
    })
}

pub(crate) fn put_silence(
    transaction: &Transaction<'_>,
    silence: &Silence,
) -> rusqlite::Result<()> {
    let sql = "INSERT OR REPLACE INTO silence (id, ends_at, body) VALUES (?1, ?2, ?3)";
    let values = params![silence.id, silence.ends_at.as_millis(), to_json(silence)?];
    transaction.prepare_cached(sql)?.execute(values)?;
    Ok(())
}

pub(crate) fn record(transaction: &Transaction<'_>, entry: &AuditEntry) -> rusqlite::Result<()> {
    let sql = "INSERT INTO audit (at, body, key, service) VALUES (?1, ?2, ?3, ?4)
               ON CONFLICT (key) DO UPDATE SET at = excluded.at, body = excluded.body";
    let values = params![entry.at.as_millis(), to_json(entry)?, entry.id, entry.service.as_str()];
    transaction.prepare_cached(sql)?.execute(values)?;
    Ok(())
}

/// What was done, newest first.
pub(crate) fn audit(
    connection: &Connection,
    query: &AuditQuery,
) -> rusqlite::Result<Vec<AuditEntry>> {
    let read = |row: &Row<'_>| Ok(from_json("audit entry", row.get_ref(0)?.as_str()?));
    let since = query.since.map_or(i64::MIN, Timestamp::as_millis);
    let limit = limit_of(query.limit);
    // Two questions rather than one with a choice in it, so that each has its index.
    match &query.service {
        Some(service) => {
            let sql = "SELECT body FROM audit WHERE service = ?1 AND at >= ?2
                       ORDER BY at DESC, id DESC LIMIT ?3";
            rows_of(connection, sql, params![service.as_str(), since, limit], read)
        }
        None => {
            let sql = "SELECT body FROM audit WHERE at >= ?1 ORDER BY at DESC, id DESC LIMIT ?2";
            rows_of(connection, sql, params![since, limit], read)
        }
    }
}

/// Leaves a command; `false` where too many wait already.
pub(crate) fn submit(
    connection: &mut Connection,
    watch: &mut CommandWatch,
    command: &MonitorCommand,
) -> rusqlite::Result<bool> {
    let body = to_json(command)?;
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let sql = "INSERT INTO command (body)
               SELECT ?1 WHERE (SELECT count(*) FROM command) < ?2";
    let left = transaction.prepare_cached(sql)?.execute(params![body, MOST_COMMANDS])?;
    transaction.commit()?;
    watch.submitted |= left > 0;
    Ok(left > 0)
}

/// Takes every command. Looks at the queue only if some other connection wrote the file since it
/// was last found empty.
pub(crate) fn take(
    connection: &mut Connection,
    watch: &mut CommandWatch,
) -> rusqlite::Result<Vec<MonitorCommand>> {
    // Read before the queue: what comes in between is seen again, not missed.
    let version =
        connection.prepare_cached("PRAGMA data_version")?.query_row([], |row| row.get(0))?;
    if watch.seen == Some(version) && !watch.submitted {
        return Ok(Vec::new());
    }
    let mut commands = Vec::new();
    if waiting(connection)? {
        let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        commands = self::commands(&transaction)?;
        transaction.prepare_cached("DELETE FROM command")?.execute([])?;
        transaction.commit()?;
    }
    *watch = CommandWatch { seen: Some(version), submitted: false };
    Ok(commands)
}

/// Commands that wait, oldest first.
pub(crate) fn commands(connection: &Connection) -> rusqlite::Result<Vec<MonitorCommand>> {
    rows_of(connection, "SELECT body FROM command ORDER BY id", [], |row| {
        Ok(from_json("command", row.get_ref(0)?.as_str()?))
    })
}

fn waiting(connection: &Connection) -> rusqlite::Result<bool> {
    connection.prepare_cached("SELECT 1 FROM command LIMIT 1")?.exists([])
}
