//! How other processes reach the monitor.

use mcpmon_core::monitor::MonitorCommand;
use mcpmon_core::store::CommandQueue;
use mcpmon_store::SqliteStore;
use rusqlite::Connection;
use tempfile::TempDir;

use crate::open;

fn approve(service: &str) -> MonitorCommand {
    MonitorCommand::Approve { service: service.into() }
}

#[tokio::test]
async fn a_command_of_another_process_is_taken_once() {
    let directory = TempDir::new().unwrap();
    let path = directory.path().join("mcpmon.db");
    let monitor = open(&path);
    assert!(monitor.take().await.unwrap().is_empty());
    let other = SqliteStore::reader(&path).unwrap();
    for name in ["a", "b"] {
        other.submit(&approve(name)).await.unwrap();
    }
    monitor.submit(&approve("c")).await.unwrap();
    let taken = monitor.take().await.unwrap();
    assert_eq!(taken, ["a", "b", "c"].map(approve));
    assert!(monitor.take().await.unwrap().is_empty());
    other.submit(&approve("d")).await.unwrap();
    assert_eq!(monitor.take().await.unwrap(), [approve("d")]);
}

#[tokio::test]
async fn a_command_waits_for_a_monitor() {
    let directory = TempDir::new().unwrap();
    let path = directory.path().join("mcpmon.db");
    drop(open(&path));
    SqliteStore::reader(&path).unwrap().submit(&approve("a")).await.unwrap();
    assert_eq!(open(&path).take().await.unwrap(), [approve("a")]);
}

#[tokio::test]
async fn a_command_this_build_does_not_know_holds_up_no_other() {
    let directory = TempDir::new().unwrap();
    let path = directory.path().join("mcpmon.db");
    let monitor = open(&path);
    let newer = Connection::open(&path).unwrap();
    newer.execute(r#"INSERT INTO command (body) VALUES ('{"command":"levitate"}')"#, []).unwrap();
    monitor.submit(&approve("a")).await.unwrap();
    assert_eq!(monitor.take().await.unwrap(), [approve("a")]);
    assert!(monitor.take().await.unwrap().is_empty());
}

#[tokio::test]
async fn commands_nobody_takes_are_bounded() {
    let directory = TempDir::new().unwrap();
    let path = directory.path().join("mcpmon.db");
    drop(open(&path));
    let connection = Connection::open(&path).unwrap();
    let fill = "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 10000)
                INSERT INTO command (body) SELECT '{}' FROM n";
    connection.execute(fill, []).unwrap();
    drop(connection);
    let refused = SqliteStore::reader(&path).unwrap().submit(&approve("a")).await.unwrap_err();
    assert!(refused.to_string().contains("start the monitor"), "{refused}");
}
