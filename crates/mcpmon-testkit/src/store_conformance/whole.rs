//! Promises about transactions: a write is there whole or not at all, whoever drops it, whatever
//! fails, and whoever reads meanwhile.

use std::future::Future;
use std::pin::pin;
use std::task::{Context, Poll, Waker};

use mcpmon_core::alert::AlertPhase;
use mcpmon_core::status::Status;
use mcpmon_core::store::{
    Batch, IncidentLog, RecordQuery, SampleStore, ServiceFacts, Store, Transition,
};

use super::{at, incidents, samples};
use crate::samples::check;
use crate::wait::within;

/// Lets a write begin, and goes away.
fn begin_and_drop(write: impl Future) {
    let mut write = pin!(write);
    let mut context = Context::from_waker(Waker::noop());
    // It may be done at once; what matters is that the rest happens without anybody waiting.
    let _: Poll<_> = write.as_mut().poll(&mut context);
}

const MEMBERS: usize = 40;

fn batch(service: &str, number: u64) -> Batch {
    let moment = |n: usize| at(number * 1_000 + n as u64);
    Batch {
        checks: (0..MEMBERS).map(|n| check(service, moment(n))).collect(),
        changes: vec![samples::change(service, moment(0), Status::Unknown, Status::Running)],
        facts: vec![samples::facts(service, u32::try_from(number).unwrap_or(u32::MAX))],
        ..Batch::default()
    }
}

async fn count_of(store: &impl SampleStore, service: &str) -> usize {
    let page = store.checks(&RecordQuery::of(service.into())).await.expect("a page is read");
    page.items.len()
}

async fn status_of(store: &impl SampleStore, service: &str) -> Option<Status> {
    let services = store.services().await.expect("services are read");
    let found = services.into_iter().find(|stored| stored.facts.service.as_str() == service);
    found.map(|stored| stored.status)
}

pub(super) async fn a_dropped_append_is_whole_or_nothing(store: &impl SampleStore) {
    drop(store.append(&batch("never", 1)));
    for attempt in 0..8 {
        begin_and_drop(store.append(&batch(&format!("dropped-{attempt}"), 1)));
    }
    // What comes after is not disturbed by it.
    store.append(&batch("after", 2)).await.expect("a batch is appended");
    assert_eq!(count_of(store, "after").await, MEMBERS);
    assert_eq!(count_of(store, "never").await, 0, "what was never begun did not happen");
    for attempt in 0..8 {
        let service = format!("dropped-{attempt}");
        let settled = async {
            loop {
                let (checks, status) =
                    (count_of(store, &service).await, status_of(store, &service).await);
                assert!(checks == 0 || checks == MEMBERS, "{checks} checks of one batch");
                if (checks == MEMBERS) == (status == Some(Status::Running)) {
                    return;
                }
                tokio::task::yield_now().await;
            }
        };
        within("a dropped batch to be there whole or not at all", settled).await;
    }
}

fn transition(rule: &str) -> Transition {
    let firing = incidents::firing(rule, "files", at(1_000));
    Transition {
        states: vec![incidents::state(&firing, AlertPhase::Firing)],
        alerts: vec![firing],
        deliveries: vec![incidents::message("ops", rule), incidents::message("chat", rule)],
        at: at(1_000),
    }
}

/// States, alerts and messages there are of a rule.
async fn parts_of(log: &impl IncidentLog, rule: &str) -> (usize, usize, usize) {
    let found = incidents::read(log).await;
    let states = found.states.iter().filter(|state| state.key.rule == rule).count();
    let alerts = found.alerts.iter().filter(|record| record.alert.rule_name == rule).count();
    let due = incidents::due(log, "chat", at(1_000)).await;
    let both = found.due.iter().chain(&due);
    (states, alerts, both.filter(|delivery| delivery.notification.key == rule).count())
}

pub(super) async fn a_dropped_commit_is_whole_or_nothing(log: &impl IncidentLog) {
    drop(log.commit(&transition("never")));
    for attempt in 0..8 {
        begin_and_drop(log.commit(&transition(&format!("dropped-{attempt}"))));
    }
    log.commit(&transition("after")).await.expect("a transition is committed");
    assert_eq!(parts_of(log, "after").await, (1, 1, 2));
    assert_eq!(parts_of(log, "never").await, (0, 0, 0), "what was never begun did not happen");
    for attempt in 0..8 {
        let rule = format!("dropped-{attempt}");
        let settled = async {
            // Three questions, so the write may fall between two of them, but not for long.
            while !matches!(parts_of(log, &rule).await, (0, 0, 0) | (1, 1, 2)) {
                tokio::task::yield_now().await;
            }
        };
        within("a dropped transition to be there whole or not at all", settled).await;
    }
}

const BATCHES: u64 = 25;

pub(super) async fn readers_see_each_batch_whole(store: &impl SampleStore) {
    let write = async {
        for number in 1..=BATCHES {
            store.append(&batch("files", number)).await.expect("a batch is appended");
            tokio::task::yield_now().await;
        }
    };
    let read = async || {
        let mut last = 0;
        while last < BATCHES as usize * MEMBERS {
            let found = count_of(store, "files").await;
            assert!(found.is_multiple_of(MEMBERS), "{found} checks: part of a batch");
            assert!(found >= last, "{found} checks after {last}: what was there is gone");
            last = found;
            tokio::task::yield_now().await;
        }
    };
    let facts = async {
        let mut last = None;
        while last != u32::try_from(BATCHES).ok() {
            let services = store.services().await.expect("services are read");
            let found = services.first().and_then(|stored| stored.facts.tools_count);
            assert!(found >= last, "{found:?} after {last:?}");
            last = found;
            tokio::task::yield_now().await;
        }
    };
    let together = async { tokio::join!(write, read(), read(), facts) };
    within("readers and a writer to get through together", together).await;
}

pub(super) async fn a_walk_over_pages_misses_nothing_while_more_is_written(
    store: &impl SampleStore,
) {
    for number in 1..=3 {
        store.append(&batch("files", number)).await.expect("a batch is appended");
    }
    let mut query = RecordQuery { limit: 7, ..RecordQuery::all() };
    let (mut found, mut number) = (Vec::new(), 4);
    loop {
        let page = store.checks(&query).await.expect("a page is read");
        found.extend(page.items);
        if number < 8 {
            store.append(&batch("github", number)).await.expect("a batch is appended");
            number += 1;
        }
        match page.next {
            Some(_) => query.after = page.next,
            None => break,
        }
    }
    let of_files = found.iter().filter(|check| check.service.as_str() == "files");
    let moments: Vec<_> = of_files.map(|check| check.at).collect();
    assert_eq!(moments.len(), 3 * MEMBERS);
    assert!(moments.is_sorted_by(|a, b| a < b), "each once, in order");
}

/// Everything there is to read, before and after.
async fn everything(store: &impl Store) -> (samples::Everything, incidents::Everything) {
    (samples::read(store).await, incidents::read(store).await)
}

pub(super) async fn what_fails_leaves_nothing_and_may_be_given_again<S: Store>(
    store: &S,
    fail: impl AsyncFn(&S),
    mend: impl AsyncFn(&S),
) {
    samples::fill(store).await;
    incidents::fill(store).await;
    let before = everything(store).await;
    let waiting = incidents::due(store, "ops", at(1_000_000)).await;
    let new = Batch {
        facts: vec![ServiceFacts { restarts: 9, ..samples::facts("files", 9) }],
        ..batch("files", 50)
    };
    fail(store).await;
    assert!(store.append(&new).await.is_err(), "an append that cannot be durable is refused");
    assert!(store.commit(&transition("new")).await.is_err(), "and so is a transition");
    assert!(incidents::deliver(store, &waiting[0]).await.is_err(), "and so is a settlement");
    assert!(store.revive("ops", at(9_000)).await.is_err());
    assert!(store.discard("ops").await.is_err());
    mend(store).await;
    assert_eq!(everything(store).await, before, "nothing of it was written");

    store.append(&new).await.expect("it may be given again");
    store.commit(&transition("new")).await.expect("it may be given again");
    assert_eq!(parts_of(store, "new").await, (1, 1, 2));
    let after = samples::read(store).await;
    assert_eq!(after.checks.len(), before.0.checks.len() + MEMBERS);
    assert!(incidents::deliver(store, &waiting[0]).await.is_ok());
    assert_eq!(
        incidents::due(store, "ops", at(1_000_000)).await.len(),
        waiting.len(),
        "one settled, one new"
    );
}
