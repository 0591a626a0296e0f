//! Promises of the questions `SampleStore` answers about spans of time.

use std::time::Duration;

use mcpmon_core::failure::FailureCode;
use mcpmon_core::state::StatusChange;
use mcpmon_core::status::Status;
use mcpmon_core::store::history::{history_of_records, reach};
use mcpmon_core::store::{
    Batch, CheckRecord, HistoryQuery, PrunePlan, Ranking, SampleStore, Summary,
};

use super::{at, samples};
use crate::samples::{check, failed_check};

const MINUTE: u64 = 60_000;
const HOUR: u64 = 60 * MINUTE;

/// Six hours of two services asked each minute, with an outage, and an hour in which nobody looks.
async fn fill(store: &impl SampleStore) {
    let mut batch = Batch::default();
    for minute in (0..120).chain(180..360_u64) {
        let down = (200..230).contains(&minute);
        let moment = at(minute * MINUTE);
        let latency = Some(Duration::from_millis(10 + minute));
        batch.checks.push(match down {
            true => failed_check("files", moment, FailureCode::ConnectionRefused),
            false => CheckRecord { latency, ..check("files", moment) },
        });
        batch.checks.push(check("github", moment));
    }
    let change = |service: &str, minute, from, status| StatusChange {
        service: service.into(),
        at: at(minute * MINUTE),
        from,
        status,
        since: at(minute * MINUTE),
        failure: None,
        findings: Vec::new(),
        origin: Default::default(),
    };
    batch.changes = vec![
        change("files", 0, Status::Unknown, Status::Running),
        change("github", 0, Status::Unknown, Status::Running),
        change("files", 202, Status::Running, Status::Stopped),
        change("files", 231, Status::Stopped, Status::Running),
    ];
    store.append(&batch).await.expect("a batch is appended");
}

fn query(since: u64, until: u64, step: Option<u64>) -> HistoryQuery {
    HistoryQuery {
        service: "files".into(),
        since: at(since),
        until: at(until),
        step: step.map(Duration::from_millis),
    }
}

async fn whole(store: &impl SampleStore, since: u64, until: u64) -> Summary {
    store.history(&query(since, until, None)).await.expect("a history is read").whole()
}

pub(super) async fn a_history_is_what_its_records_say(store: &impl SampleStore) {
    fill(store).await;
    let all = whole(store, 0, 6 * HOUR).await;
    assert_eq!((all.checks.sum(), all.failed()), (300, 30));
    assert_eq!(all.codes.get(&FailureCode::ConnectionRefused), Some(&30));
    assert_eq!(all.latency.count(), 270);
    assert_eq!(all.times.sum(), 6 * HOUR, "no moment is without a status");
    assert_eq!(all.times.get(Status::Stopped), 29 * MINUTE);
    // The last check before the hour without any vouches for ten minutes of it.
    assert_eq!(all.times.get(Status::Unknown), 51 * MINUTE);
    let median = all.latency.quantile(0.5).map(|latency| latency.as_secs_f64());
    assert!(median.is_some_and(|median| (0.1..0.4).contains(&median)), "{median:?}");

    for (since, until, step) in [
        (7 * MINUTE, 5 * HOUR, Some(5 * MINUTE)),
        (0, 6 * HOUR, Some(HOUR)),
        (99, 12_345_678, None),
    ] {
        let query = query(since, until, step);
        let found = store.history(&query).await.expect("a history is read");
        let expected = history_of_records(store, &query, reach(None)).await.expect("it is read");
        assert_eq!(found, expected);
    }
    samples::prune(store, PrunePlan::default()).await;
    assert_eq!(whole(store, 0, 6 * HOUR).await, all, "upkeep changes no answer");
}

pub(super) async fn points_cover_the_span_and_add_up(store: &impl SampleStore) {
    fill(store).await;
    let (since, until) = (7 * MINUTE, 5 * HOUR);
    let found = store.history(&query(since, until, Some(HOUR))).await.expect("it is read");
    assert_eq!(found.points.first().map(|point| point.at), Some(at(since)));
    assert_eq!(found.points.last().map(|point| point.until), Some(at(until)));
    assert!(found.points.windows(2).all(|pair| pair[0].until == pair[1].at), "no gaps");
    assert_eq!(found.whole(), whole(store, since, until).await);
    let none = store.history(&query(until, since, Some(HOUR))).await.expect("it is read");
    assert!(none.points.is_empty());
    let nobody = HistoryQuery { service: "nobody".into(), ..query(0, HOUR, None) };
    let nobody = store.history(&nobody).await.expect("it is read").whole();
    assert_eq!((nobody.checks.sum(), nobody.times.get(Status::Unknown)), (0, HOUR));
}

pub(super) async fn summaries_are_those_of_every_service(store: &impl SampleStore) {
    fill(store).await;
    let all = store.summaries(at(0), at(6 * HOUR)).await.expect("summaries are read");
    let names: Vec<_> = all.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, ["files", "github"]);
    let files = whole(store, 0, 6 * HOUR).await;
    assert_eq!((all[0].1.checks, &all[0].1.latency), (files.checks, &files.latency));
    let worst = Ranking::MostFailed.top(all.clone(), 10);
    assert_eq!(worst.len(), 1, "a service without failures is not among the failing");
    let slowest = Ranking::Slowest.top(all, 1);
    assert_eq!(slowest[0].0.as_str(), "files");
}

pub(super) async fn the_last_checks_are_the_newest(store: &impl SampleStore) {
    fill(store).await;
    let moments = async |count| {
        let last = store.last_checks(&"files".into(), count).await.expect("checks are read");
        last.iter().map(|check| check.at).collect::<Vec<_>>()
    };
    assert_eq!(moments(2).await, [at(358 * MINUTE), at(359 * MINUTE)]);
    assert_eq!(moments(1_000).await.len(), 300);
    assert!(moments(0).await.is_empty());
    let none = store.last_checks(&"nobody".into(), 5).await.expect("checks are read");
    assert!(none.is_empty());
}
