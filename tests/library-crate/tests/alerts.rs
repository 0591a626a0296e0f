//! docs/embedding.md shows this crate; what it says of itself holds.

use std::io::{self, Write};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use mcpmon_core::{Clock as _, ServiceMetrics, Status, SystemClock};
use mcpmon_library_example::{mail, manager};
use toml::Table;

#[derive(Clone, Default)]
struct Paper(Arc<Mutex<Vec<u8>>>);

impl Write for Paper {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().expect("nobody panicked with it").write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn service(status: Status, seconds: f64) -> ServiceMetrics {
    let metrics = ServiceMetrics::unknown("files".into());
    ServiceMetrics { status, avg_response_time: Some(seconds), ..metrics }
}

#[tokio::test]
async fn rules_and_handlers_work_on_numbers_of_ones_own() {
    let (paper, calls) = (Paper::default(), Arc::new(Mutex::new(Vec::new())));
    let called = Arc::clone(&calls);
    let mut manager = manager(paper.clone(), move |message| {
        called.lock().unwrap().push(message.to_owned());
        true
    });
    let begun = SystemClock.now();
    let at = |second| begun.saturating_add(Duration::from_secs(second));

    let down = manager.check(&service(Status::Stopped, 0.1), at(0)).await;
    assert_eq!((down.fired.len(), down.failed_deliveries().count()), (1, 0));
    let again = manager.check(&service(Status::Stopped, 0.1), at(10)).await;
    assert!(again.fired.is_empty(), "said once");
    let back = manager.check(&service(Status::Running, 9.0), at(20)).await;
    assert_eq!((back.resolved.len(), back.fired.len()), (1, 0), "slow, but not for long enough");
    let slow = manager.check(&service(Status::Running, 9.0), at(90)).await;
    assert_eq!(slow.fired[0].rule_name, "slow");

    let told = String::from_utf8(paper.0.lock().unwrap().clone()).unwrap();
    let words: Vec<&str> = told.lines().filter_map(|line| line.split(' ').nth(3)).collect();
    assert_eq!(words, ["ERROR:", "RESOLVED:", "WARNING:"], "{told}");
    assert_eq!(calls.lock().unwrap().len(), 3);
    assert_eq!(manager.history().count(), 2);
}

#[tokio::test]
async fn a_handler_that_fails_is_reported_and_stops_nobody() {
    let paper = Paper::default();
    let mut manager = manager(paper.clone(), |_| false);
    let outcome = manager.check(&service(Status::Error, 0.1), SystemClock.now()).await;
    let failed: Vec<_> = outcome.failed_deliveries().map(|report| &*report.handler).collect();
    assert_eq!(failed, ["phone"]);
    assert!(!paper.0.lock().unwrap().is_empty(), "the console was told");
}

#[test]
fn a_mail_handler_names_the_key_that_is_wrong() {
    assert!(mail("smtps://mail.example.com", "ops@example.com").is_ok());
    let error = mail("smtps://mail.example.com", "nobody").unwrap_err().to_string();
    assert!(error.starts_with("handler `mail`: ") && error.contains("`to`"), "{error}");
}

#[test]
fn it_needs_core_and_alert_alone() {
    let manifest: Table = toml::from_str(include_str!("../Cargo.toml")).unwrap();
    let needs: Vec<&String> = manifest["dependencies"].as_table().unwrap().keys().collect();
    assert_eq!(needs, ["mcpmon-alert", "mcpmon-core"]);
}

#[test]
fn the_page_shows_it() {
    let page = include_str!("../../../docs/embedding.md");
    assert!(page.contains(&format!("```rust\n{}```", include_str!("../src/lib.rs"))));
}
