//! A database as a build of this schema wrote it, read back: what is in files stays readable.
//!
//! `tests/data/README.md` says how the file is written.

mod records;

use std::fs;
use std::path::Path;

use mcpmon_core::alert::AlertPhase;
use mcpmon_core::store::{
    AlertQuery, AlertRecord, AuditQuery, CheckRecord, CommandQueue, HistoryQuery, IncidentLog,
    PrunePlan, RecordQuery, SampleStore, StoredService,
};
use mcpmon_core::{FailureCode, Status};
use mcpmon_store::{OutboxCounts, SqliteStore};
use mcpmon_testkit::samples::{alert, resolved_alert};
use rusqlite::Connection;
use tempfile::TempDir;

use crate::open;
use records::at;

const FIXTURE: &str = "tests/data/schema-1.db";

/// A copy of the fixture, which may be written.
fn copy(directory: &TempDir) -> SqliteStore {
    let path = directory.path().join("mcpmon.db");
    fs::copy(FIXTURE, &path).unwrap();
    open(&path)
}

#[tokio::test]
async fn every_kind_of_record_in_the_fixture_is_read_back() {
    let directory = TempDir::new().unwrap();
    let store = copy(&directory);
    holds_every_record(&store).await;
    // Summed up and packed by this build, it says the same.
    while store.prune(&PrunePlan::default()).await.unwrap().more {}
    holds_every_record(&store).await;
}

#[tokio::test]
async fn what_this_build_writes_is_read_back_as_the_fixture_is() {
    let directory = TempDir::new().unwrap();
    let store = open(&directory.path().join("mcpmon.db"));
    records::write(&store).await.unwrap();
    holds_every_record(&store).await;
}

async fn holds_every_record(store: &SqliteStore) {
    let mut checks = records::checks();
    checks.push(records::late_check());
    let key = |check: &CheckRecord| (check.at, check.service.to_string());
    checks.sort_by_key(key);
    let mut found = store.checks(&RecordQuery::all()).await.unwrap().items;
    found.sort_by_key(key);
    assert_eq!(found, checks);
    assert_eq!(store.changes(&RecordQuery::all()).await.unwrap().items, records::changes());
    assert_eq!(store.services().await.unwrap(), services());
    assert_eq!(store.lists(&"files".into()).await.unwrap(), Some(records::list()));
    let changes = store.list_changes(&RecordQuery::all()).await.unwrap();
    assert_eq!(changes.items, [records::list_change()]);
    assert_eq!(store.host(&RecordQuery::all()).await.unwrap().items, [records::host()]);

    assert_eq!(store.states().await.unwrap(), [records::alert_state()]);
    let query = AlertQuery { limit: 10, ..AlertQuery::default() };
    let alerts = [
        AlertRecord {
            alert: resolved_alert("slow_response", "github"),
            state: AlertPhase::Resolved,
        },
        AlertRecord { alert: alert("service_down", "files"), state: AlertPhase::Acknowledged },
    ];
    assert_eq!(store.alerts(&query).await.unwrap(), alerts);
    outbox(store).await;
    assert_eq!(store.silences(at(0)).await.unwrap(), [records::silence()]);
    let query = AuditQuery { service: Some("files".into()), limit: 10, ..AuditQuery::default() };
    assert_eq!(store.audit(&query).await.unwrap(), [records::audit_entry()]);
    assert_eq!(store.pending().await.unwrap(), [records::command()]);

    let query = HistoryQuery {
        service: "files".into(),
        since: at(0),
        until: at(records::MINUTES * 60),
        step: None,
    };
    let whole = store.history(&query).await.unwrap().whole();
    assert_eq!(whole.checks.get(Status::Running), records::MINUTES - 3);
    assert_eq!(whole.checks.get(Status::Stopped), 3);
    let report = store.check().await.unwrap();
    assert!(report.ok, "{:?}", report.problems);
    assert_eq!((report.application_id.as_str(), report.schema_version), ("0x6d6d6f6e", 1));
}

/// The services as last known.
fn services() -> Vec<StoredService> {
    let (checks, changes) = (records::checks(), records::changes());
    let stored = records::facts().into_iter().map(|facts| {
        let change = changes.iter().rfind(|change| change.service == facts.service).unwrap();
        StoredService {
            status: change.status,
            since: change.since,
            failure: change.failure.clone(),
            findings: change.findings.clone(),
            last_check: checks.iter().rfind(|check| check.service == facts.service).cloned(),
            facts,
        }
    });
    stored.collect()
}

/// One message was delivered, one was given up, one waits for its second attempt.
async fn outbox(store: &SqliteStore) {
    let counts = store.info().await.unwrap().outbox;
    assert_eq!(counts, OutboxCounts { queued: 1, delivered: 1, dead: 1 });
    assert!(store.due("chat", at(119), 10).await.unwrap().is_empty());
    let due = store.due("chat", at(120), 10).await.unwrap();
    assert_eq!(due.len(), 1);
    assert_eq!(due[0].notification, records::notification("chat").at_attempt(2));
    assert_eq!((due[0].queued_at, due[0].due_at), (at(60), at(120)));
    assert_eq!(due[0].last_error.as_deref(), Some("too many requests"));
    let dead = store.dead_letters(10).await.unwrap();
    assert_eq!(dead.len(), 1);
    assert_eq!(dead[0].notification, records::notification("mail"));
    assert_eq!(dead[0].last_error.as_deref(), Some("no such mailbox"));
}

/// The statements that make tables and indexes, and how many rows each table has.
fn schema_of(path: &Path) -> (Vec<String>, Vec<(String, u64)>) {
    let connection = Connection::open(path).unwrap();
    let texts = |sql: &str| -> Vec<String> {
        let mut statement = connection.prepare(sql).unwrap();
        let rows = statement.query_map([], |row| row.get(0)).unwrap();
        rows.map(Result::unwrap).collect()
    };
    let statements = texts("SELECT sql FROM sqlite_schema WHERE sql IS NOT NULL ORDER BY name");
    let tables = texts("SELECT name FROM sqlite_schema WHERE type = 'table' ORDER BY name");
    let count = |table: String| {
        let sql = format!("SELECT count(*) FROM {table}");
        let rows = connection.query_row(&sql, [], |row| row.get(0)).unwrap();
        (table, rows)
    };
    (statements, tables.into_iter().map(count).collect())
}

#[test]
fn the_fixture_has_the_schema_of_this_build_and_a_row_in_every_table() {
    let directory = TempDir::new().unwrap();
    let path = directory.path().join("mcpmon.db");
    drop(open(&path));
    let (statements, _) = schema_of(&path);
    fs::copy(FIXTURE, &path).unwrap();
    let (found, tables) = schema_of(&path);
    assert_eq!(found, statements, "write {FIXTURE} anew, as tests/data/README.md says");
    let empty: Vec<_> = tables.iter().filter(|(_, rows)| *rows == 0).collect();
    assert!(tables.len() >= 19 && empty.is_empty(), "add records to fixture/records.rs: {empty:?}");
}

#[tokio::test]
async fn a_failure_code_of_the_fixture_is_still_that_code() {
    let directory = TempDir::new().unwrap();
    let store = copy(&directory);
    let query = RecordQuery::of("files".into()).since(at(6_000));
    let checks = store.checks(&query).await.unwrap().items;
    let codes: Vec<_> = checks.iter().take(4).map(|check| check.code).collect();
    let refused = Some(FailureCode::ConnectionRefused);
    assert_eq!(codes, [refused, refused, refused, None]);
}
