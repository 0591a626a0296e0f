//! Promises about numbers: quantiles within the sketch's bound, time in each status to the
//! millisecond, answers no larger than they may be.

use std::time::Duration;

use mcpmon_core::failure::FailureCode;
use mcpmon_core::sketch::LatencySketch;
use mcpmon_core::state::StatusChange;
use mcpmon_core::status::Status;
use mcpmon_core::store::history::MOST_POINTS;
use mcpmon_core::store::{
    Batch, CheckRecord, HistoryQuery, PrunePlan, Ranking, RecordQuery, SampleStore, ServiceFacts,
    Summary,
};

use super::{at, samples};
use crate::samples::{check, failed_check};

const SECOND: u64 = 1_000;
const MINUTE: u64 = 60 * SECOND;
const HOUR: u64 = 60 * MINUTE;

/// A service asked every 30 s: a check vouches for 90 s.
fn asked_every_half_minute(service: &str) -> ServiceFacts {
    ServiceFacts { check_interval_ms: Some(30 * SECOND), ..samples::facts(service, 2) }
}

fn became(service: &str, moment: u64, status: Status) -> StatusChange {
    StatusChange {
        service: service.into(),
        at: at(moment),
        from: Status::Unknown,
        status,
        since: at(moment),
        failure: None,
        findings: Vec::new(),
        origin: Default::default(),
    }
}

async fn append(store: &impl SampleStore, batch: Batch) {
    store.append(&batch).await.expect("a batch is appended");
}

async fn whole(store: &impl SampleStore, service: &str, since: u64, until: u64) -> Summary {
    let query =
        HistoryQuery { service: service.into(), since: at(since), until: at(until), step: None };
    store.history(&query).await.expect("a history is read").whole()
}

/// Latencies as servers have them: most near one value, some far above it; on the 10 µs grid.
fn latencies(count: u64) -> impl Iterator<Item = Duration> {
    let mut seed = 0x2545_f491_4f6c_dd1d_u64;
    (0..count).map(move |_| {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        let ticks = 2_000 + seed % 1_000 + if seed.is_multiple_of(37) { seed % 400_000 } else { 0 };
        Duration::from_micros(ticks * 10)
    })
}

pub(super) async fn quantiles_stay_within_the_bound(store: &impl SampleStore) {
    let all: Vec<(u64, Duration)> =
        latencies(2_000).enumerate().map(|(n, latency)| (n as u64 * 7_001, latency)).collect();
    let record = |(moment, latency): &(u64, Duration)| CheckRecord {
        latency: Some(*latency),
        total: *latency,
        ..check("files", at(*moment))
    };
    for part in all.chunks(171) {
        let checks = part.iter().map(record).collect();
        append(store, Batch { checks, ..Batch::default() }).await;
    }
    for (since, until) in [(0, 4 * HOUR), (HOUR, 2 * HOUR), (17 * MINUTE + 3, 2 * HOUR + 7_777)] {
        let mut inside: Vec<Duration> = all
            .iter()
            .filter(|(moment, _)| (since..until).contains(moment))
            .map(|(_, latency)| *latency)
            .collect();
        inside.sort_unstable();
        let found = whole(store, "files", since, until).await.latency;
        assert_eq!(found.count(), inside.len() as u64, "each check once, {since} to {until}");
        for q in [0.5, 0.95, 0.99, 1.0] {
            let rank = (q * inside.len() as f64).ceil() as usize;
            let exact = inside[rank - 1].as_secs_f64();
            let told = found.quantile(q).expect("there are latencies").as_secs_f64();
            let bound = exact * LatencySketch::RELATIVE_ERROR + 10e-6;
            assert!((told - exact).abs() <= bound, "p{q}: {told} s for {exact} s");
        }
    }
}

/// Ten minutes up, five down, five in maintenance, five up, then nobody looks for half an hour,
/// then five up.
async fn a_mixed_hour(store: &impl SampleStore) {
    let watched = (0..1_500).chain(3_300..3_600).step_by(30);
    let checks = watched.filter(|second| !(900..1_200).contains(second)).map(|second| {
        let moment = at(second * SECOND);
        match (600..900).contains(&second) {
            true => failed_check("files", moment, FailureCode::ServerError),
            false => check("files", moment),
        }
    });
    let changes = [
        (0, Status::Running),
        (600, Status::Error),
        (900, Status::Paused),
        (1_200, Status::Running),
    ];
    let changes = changes.map(|(second, status)| became("files", second * SECOND, status)).to_vec();
    let facts = vec![asked_every_half_minute("files")];
    append(store, Batch { checks: checks.collect(), changes, facts, ..Batch::default() }).await;
}

pub(super) async fn uptime_is_exact_and_counts_neither_absence_nor_maintenance(
    store: &impl SampleStore,
) {
    a_mixed_hour(store).await;
    let found = whole(store, "files", 0, HOUR).await;
    // The last check before the absence, at 1,470 s, vouches for 90 s.
    let expected = [
        (Status::Running, 600 + 360 + 300),
        (Status::Error, 300),
        (Status::Paused, 300),
        (Status::Unknown, 3_300 - 1_560),
    ];
    for (status, seconds) in expected {
        assert_eq!(found.times.get(status), seconds * SECOND, "{status}");
    }
    assert_eq!(found.times.sum(), HOUR, "no moment is without a status");
    assert_eq!(found.uptime(), Some(1_260.0 / 1_560.0));
    let absent = whole(store, "files", 1_560 * SECOND, 3_300 * SECOND).await;
    assert_eq!((absent.uptime(), absent.checks.sum()), (None, 0), "nobody looked");
}

pub(super) async fn a_status_is_known_although_its_change_is_older_than_retention(
    store: &impl SampleStore,
) {
    append(store, Batch { changes: vec![became("files", 0, Status::Running)], ..Batch::default() })
        .await;
    let checks = (0..60).map(|n| check("files", at(5 * HOUR + n * MINUTE))).collect();
    append(store, Batch { checks, ..Batch::default() }).await;
    let before = Some(at(4 * HOUR));
    let plan = PrunePlan { checks_before: before, quarters_before: before, ..PrunePlan::default() };
    samples::prune(store, plan).await;
    let found = whole(store, "files", 5 * HOUR, 6 * HOUR).await;
    assert_eq!(found.times.get(Status::Running), HOUR);
}

pub(super) async fn what_went_is_told_as_it_was_or_not_at_all(store: &impl SampleStore) {
    a_mixed_hour(store).await;
    let before = whole(store, "files", 0, HOUR).await;
    samples::prune(store, PrunePlan { checks_before: Some(at(HOUR)), ..PrunePlan::default() })
        .await;
    // What is left may begin with the whole hour the span lies in.
    let after = whole(store, "files", 0, HOUR).await;
    let sum = after.times.sum();
    assert!((HOUR..2 * HOUR).contains(&sum), "{sum} ms: no moment is without a status");
    for (status, millis) in after.times.iter().filter(|(status, _)| *status != Status::Unknown) {
        assert!(
            millis <= before.times.get(status),
            "{status}: {millis} ms, and no more than before"
        );
    }
    assert!(after.checks.sum() <= before.checks.sum());
    let raw = store.checks(&RecordQuery::all()).await.expect("a page is read");
    assert!(raw.items.is_empty(), "raw checks are gone");
}

pub(super) async fn a_step_too_fine_is_widened(store: &impl SampleStore) {
    a_mixed_hour(store).await;
    let query = HistoryQuery {
        service: "files".into(),
        since: at(0),
        until: at(HOUR),
        step: Some(Duration::from_millis(1)),
    };
    let found = store.history(&query).await.expect("a history is read");
    assert!(found.points.len() <= MOST_POINTS, "{} points", found.points.len());
    assert!(found.step > query.step, "{:?}", found.step);
    assert_eq!(found.whole(), whole(store, "files", 0, HOUR).await);
}

pub(super) async fn services_are_ranked_by_their_summaries(store: &impl SampleStore) {
    let mut batch = Batch::default();
    for (place, service) in ["a", "b", "c", "d"].into_iter().enumerate() {
        let failing = 20 * place as u64;
        for minute in 0..60_u64 {
            let moment = at(minute * MINUTE);
            let latency = Some(Duration::from_millis(100 - 20 * place as u64));
            batch.checks.push(match minute < failing {
                true => failed_check(service, moment, FailureCode::ResponseTimeout),
                false => CheckRecord { latency, ..check(service, moment) },
            });
        }
        let status = if failing > 0 { Status::Error } else { Status::Running };
        batch.changes.push(became(service, 0, status));
        batch.changes.push(became(service, failing * MINUTE + 1, Status::Running));
    }
    append(store, batch).await;
    let all = store.summaries(at(0), at(HOUR)).await.expect("summaries are read");
    let top = |ranking: Ranking, count| {
        let top = ranking.top(all.clone(), count);
        top.iter().map(|(name, _)| name.as_str().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(top(Ranking::MostFailed, 2), ["d", "c"]);
    assert_eq!(top(Ranking::MostFailed, 9), ["d", "c", "b"]);
    assert_eq!(top(Ranking::LeastUptime, 3), ["d", "c", "b"]);
    // The one that failed throughout has no latency.
    assert_eq!(top(Ranking::Slowest, 9), ["a", "b", "c"]);
}

pub(super) async fn the_last_checks_are_bounded(store: &impl SampleStore) {
    let most = RecordQuery::LARGEST_PAGE;
    let many: Vec<_> = (0..most + 3).map(|n| check("files", at(n as u64))).collect();
    append(store, Batch { checks: many.clone(), ..Batch::default() }).await;
    let last = store.last_checks(&"files".into(), usize::MAX).await.expect("checks are read");
    assert_eq!(last.len(), most);
    assert_eq!((last.first(), last.last()), (many.get(3), many.last()), "the newest of them");
}
