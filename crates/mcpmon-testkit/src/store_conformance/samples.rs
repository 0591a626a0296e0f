//! Promises of `SampleStore`.

use std::time::Duration;

use mcpmon_core::failure::{FailureCode, Finding, FindingCode};
use mcpmon_core::lists::{ListHasher, ListKind};
use mcpmon_core::observation::{Conversation, Definition, ListedItem, Lists, ServerIdentity};
use mcpmon_core::state::StatusChange;
use mcpmon_core::status::Status;
use mcpmon_core::store::{
    Batch, CheckRecord, HostRecord, ListChange, ListRecord, Page, PrunePlan, RecordQuery,
    SampleStore, ServiceFacts, StoreError, StoredService,
};
use mcpmon_core::time::Timestamp;

use super::at;
use crate::hostile::HOSTILE;
use crate::samples::{
    answered, check, failed_check, failure, lists, process_metrics, system_metrics,
};

/// All that a store says of samples.
#[derive(Debug, PartialEq)]
pub(super) struct Everything {
    pub(super) checks: Vec<CheckRecord>,
    changes: Vec<StatusChange>,
    services: Vec<StoredService>,
    host: Vec<HostRecord>,
    lists: Option<ListRecord>,
    list_changes: Vec<ListChange>,
}

pub(super) async fn read(store: &impl SampleStore) -> Everything {
    let all = RecordQuery::all();
    Everything {
        checks: checks(store, &all).await,
        changes: every(&all, async |query| store.changes(query).await).await,
        services: store.services().await.expect("services are read"),
        host: every(&all, async |query| store.host(query).await).await,
        lists: store.lists(&"files".into()).await.expect("lists are read"),
        list_changes: every(&all, async |query| store.list_changes(query).await).await,
    }
}

/// Follows the cursors to the end.
async fn every<T>(
    query: &RecordQuery,
    page: impl AsyncFn(&RecordQuery) -> Result<Page<T>, StoreError>,
) -> Vec<T> {
    let mut query = query.clone();
    let mut found = Vec::new();
    loop {
        let Page { items, next } = page(&query).await.expect("a page is read");
        assert!(items.len() <= query.limit, "{} records on a page of {}", items.len(), query.limit);
        found.extend(items);
        match next {
            Some(_) => query.after = next,
            None => return found,
        }
    }
}

/// Checks in order of time; those of one moment by service, of one service as they were appended.
/// Which service comes first is a store's own affair.
async fn checks(store: &impl SampleStore, query: &RecordQuery) -> Vec<CheckRecord> {
    in_order(every(query, async |query| store.checks(query).await).await)
}

fn in_order(mut found: Vec<CheckRecord>) -> Vec<CheckRecord> {
    assert!(found.is_sorted_by_key(|check| check.at), "checks are in order of time");
    found.sort_by(|a, b| (a.at, &a.service).cmp(&(b.at, &b.service)));
    found
}

async fn append(store: &impl SampleStore, batch: Batch) {
    store.append(&batch).await.expect("a batch is appended");
}

pub(super) fn facts(service: &str, tools: u32) -> ServiceFacts {
    ServiceFacts {
        transport: "stdio".to_owned(),
        conversation: answered().conversation,
        tools_count: Some(tools),
        restarts: 3,
        available_since: Some(at(5)),
        watched: true,
        check_interval_ms: Some(30_000),
        tool_list_tokens: None,
        ..ServiceFacts::unknown(service.into())
    }
}

pub(super) fn change(
    service: &str,
    moment: Timestamp,
    from: Status,
    status: Status,
) -> StatusChange {
    let down = status.is_down().then(|| failure(FailureCode::ConnectionRefused));
    StatusChange {
        service: service.into(),
        at: moment,
        from,
        status,
        since: moment,
        failure: down,
        findings: vec![Finding::new(FindingCode::SlowStart, "took a while").with("seconds", 12)],
        origin: Default::default(),
    }
}

fn host(moment: Timestamp) -> HostRecord {
    HostRecord { at: moment, metrics: system_metrics() }
}

fn a_bit_of_everything() -> Batch {
    let started = CheckRecord {
        restarted: true,
        process: Some(process_metrics()),
        ..check("files", at(1_000))
    };
    Batch {
        list_changes: vec![list_change("files", 1_000)],
        checks: vec![started, failed_check("github", at(1_500), FailureCode::Unauthorized)],
        changes: vec![
            change("files", at(1_000), Status::Unknown, Status::Running),
            change("github", at(1_500), Status::Unknown, Status::Stopped),
        ],
        facts: vec![facts("files", 2), facts("github", 41)],
        lists: vec![ListRecord {
            service: "files".into(),
            at: at(1_000),
            lists: lists(&["read", "write"]),
        }],
        host: vec![host(at(0)), host(at(2_000))],
    }
}

pub(super) async fn fill(store: &impl SampleStore) {
    append(store, a_bit_of_everything()).await;
}

pub(super) async fn an_empty_store_answers(store: &impl SampleStore) {
    append(store, Batch::default()).await;
    let found = read(store).await;
    assert!(found.checks.is_empty() && found.changes.is_empty() && found.host.is_empty());
    assert!(found.services.is_empty() && found.lists.is_none());
    assert_eq!(store.last_host().await.expect("the machine is read"), None);
    let nobody = RecordQuery::of("nobody".into());
    assert!(checks(store, &nobody).await.is_empty());
}

pub(super) async fn what_was_appended_is_there(store: &impl SampleStore) {
    let batch = a_bit_of_everything();
    append(store, batch.clone()).await;
    let found = read(store).await;
    assert_eq!(found.checks, batch.checks);
    assert_eq!(found.changes, batch.changes);
    assert_eq!(found.host, batch.host);
    assert_eq!(found.lists.as_ref(), batch.lists.first());
    let stored: Vec<_> = batch
        .facts
        .into_iter()
        .zip(batch.changes)
        .zip(batch.checks)
        .map(|((facts, change), check)| StoredService {
            facts,
            status: change.status,
            since: change.since,
            failure: change.failure,
            findings: change.findings,
            last_check: Some(check),
        })
        .collect();
    assert_eq!(found.services, stored);
}

/// Sixty checks of three services, some at one moment, some appended late.
async fn scattered(store: &impl SampleStore) -> Vec<CheckRecord> {
    const SERVICES: [&str; 3] = ["files", "github", "time"];
    let mut appended = Vec::new();
    for batch in 0..6_usize {
        let checks: Vec<_> = (0..10_usize)
            .map(|n| {
                let order = batch * 10 + n;
                let late = if n % 4 == 3 { 1_700 } else { 0 };
                let moment = at((order as u64 / 3 * 500 + 5_000) - late);
                let latency = Some(Duration::from_micros(order as u64 * 1_230 + 10));
                CheckRecord { latency, ..check(SERVICES[order * 7 % 3], moment) }
            })
            .collect();
        append(store, Batch { checks: checks.clone(), ..Batch::default() }).await;
        appended.extend(checks);
    }
    // A stable sort: records of one moment and service stay in the order they were appended.
    appended.sort_by_key(|check| check.at);
    in_order(appended)
}

pub(super) async fn pages_are_complete_ordered_and_without_duplicates(store: &impl SampleStore) {
    let expected = scattered(store).await;
    for limit in [1, 7, 60, 1_000] {
        let found = checks(store, &RecordQuery { limit, ..RecordQuery::all() }).await;
        assert_eq!(found, expected, "all of them, {limit} to a page");
        let of_one = RecordQuery { limit, ..RecordQuery::of("github".into()) };
        let expected: Vec<_> =
            expected.iter().filter(|check| check.service.as_str() == "github").cloned().collect();
        assert_eq!(checks(store, &of_one).await, expected, "of one service, {limit} to a page");
    }
}

pub(super) async fn since_is_included_and_until_is_not(store: &impl SampleStore) {
    let expected = scattered(store).await;
    let (since, until) = (at(6_000), at(9_500));
    let inside: Vec<_> =
        expected.iter().filter(|check| check.at >= since && check.at < until).cloned().collect();
    assert!(inside.first().is_some_and(|first| first.at == since), "a check stands on the edge");
    assert!(expected.iter().any(|check| check.at == until), "a check stands on the edge");
    for limit in [2, 100] {
        let query = RecordQuery { until: Some(until), limit, ..RecordQuery::all().since(since) };
        assert_eq!(checks(store, &query).await, inside);
    }
}

pub(super) async fn pages_are_bounded(store: &impl SampleStore) {
    let all = RecordQuery::LARGEST_PAGE + 5;
    let many: Vec<_> = (0..all).map(|n| check("files", at(n as u64))).collect();
    append(store, Batch { checks: many, ..Batch::default() }).await;
    let query = RecordQuery { limit: usize::MAX, ..RecordQuery::all() };
    let page = store.checks(&query).await.expect("a page is read");
    assert!(page.items.len() <= RecordQuery::LARGEST_PAGE, "{}", page.items.len());
    let rest = RecordQuery { after: page.next, ..RecordQuery::all() };
    let rest = checks(store, &rest).await;
    assert_eq!(page.items.len() + rest.len(), all);
}

pub(super) async fn facts_and_conditions_replace_those_before(store: &impl SampleStore) {
    fill(store).await;
    let known = facts("files", 7);
    let up = change("github", at(3_000), Status::Stopped, Status::Running);
    let batch = Batch { facts: vec![known.clone()], changes: vec![up.clone()], ..Batch::default() };
    append(store, batch).await;
    append(store, Batch { checks: vec![check("bare", at(3_500))], ..Batch::default() }).await;

    let services = store.services().await.expect("services are read");
    let names: Vec<_> = services.iter().map(|stored| stored.facts.service.as_str()).collect();
    assert_eq!(names, ["bare", "files", "github"], "every service, by name");
    let [bare, files, github] = &services[..] else { unreachable!("three names") };
    assert_eq!(files.facts, known);
    assert_eq!(files.status, Status::Running, "facts leave the condition alone");
    assert_eq!((github.status, github.since), (Status::Running, up.since));
    assert_eq!((&github.failure, &github.findings), (&None, &up.findings));
    assert_eq!(github.facts, facts("github", 41), "a condition leaves facts alone");
    assert_eq!(bare.status, Status::Unknown, "no single check sets a status");
    assert_eq!(bare.facts.conversation, Conversation::default());
    assert!(bare.last_check.is_some());
}

pub(super) async fn the_last_check_is_the_one_appended_last(store: &impl SampleStore) {
    let first = check("files", at(2_000));
    let second = failed_check("files", at(1_000), FailureCode::ResponseTimeout);
    let other = check("github", at(3_000));
    append(store, Batch { checks: vec![first, other.clone()], ..Batch::default() }).await;
    append(store, Batch { checks: vec![second.clone()], ..Batch::default() }).await;
    let services = store.services().await.expect("services are read");
    let last: Vec<_> = services.into_iter().map(|stored| stored.last_check).collect();
    assert_eq!(last, [Some(second), Some(other)]);
}

pub(super) async fn changes_are_pages_too(store: &impl SampleStore) {
    let changes: Vec<_> = (0..9)
        .map(|n| {
            let service = if n % 2 == 0 { "files" } else { "github" };
            change(service, at(n / 2 * 1_000), Status::Stopped, Status::Error)
        })
        .collect();
    append(store, Batch { changes: changes.clone(), ..Batch::default() }).await;
    for limit in [1, 4, 100] {
        let query = RecordQuery { limit, ..RecordQuery::all() };
        let found = every(&query, async |query| store.changes(query).await).await;
        assert_eq!(found, changes);
    }
    let query =
        RecordQuery { until: Some(at(3_000)), ..RecordQuery::of("files".into()).since(at(1_000)) };
    let found = every(&query, async |query| store.changes(query).await).await;
    assert_eq!(found, [changes[2].clone(), changes[4].clone()]);
}

pub(super) async fn lists_keep_the_moment_they_were_first_seen(store: &impl SampleStore) {
    let record = |moment, tools: &[&str]| ListRecord {
        service: "files".into(),
        at: moment,
        lists: lists(tools),
    };
    let first = record(at(1_000), &["read"]);
    append(store, Batch { lists: vec![first.clone()], ..Batch::default() }).await;
    let again = record(at(2_000), &["read"]);
    append(store, Batch { lists: vec![again], ..Batch::default() }).await;
    let read = async || store.lists(&"files".into()).await.expect("lists are read");
    assert_eq!(read().await, Some(first), "the same lists again are no change");
    let other = record(at(3_000), &["read", "write"]);
    append(store, Batch { lists: vec![other.clone()], ..Batch::default() }).await;
    assert_eq!(read().await, Some(other));
    let nobody = store.lists(&"nobody".into()).await.expect("lists are read");
    assert_eq!(nobody, None);
}

/// Lists of one tool, and of resources where they were given.
fn with_resources(tool: &str, resources: Option<&[&str]>) -> Lists {
    let mut lists = Lists::default();
    let mut hasher = ListHasher::new();
    let mut add = |kind: ListKind, name: &str| {
        let definition = serde_json::json!({ (kind.key()): name });
        hasher.add(kind, name, &definition);
        let definition = Definition::from(&definition);
        let item = ListedItem { name: name.to_owned(), definition, digest: None };
        lists.items_mut(kind).push(item);
    };
    add(ListKind::Tools, tool);
    resources.into_iter().flatten().for_each(|uri| add(ListKind::Resources, uri));
    if resources.is_none() {
        hasher.mark_unknown(ListKind::Resources);
    }
    lists.set_parts(hasher.finish());
    lists
}

pub(super) async fn lists_that_were_not_given_stay_as_they_were(store: &impl SampleStore) {
    for (second, tool, resources, seen_at, seen) in [
        (1, "t", None, 1, None),
        (2, "t", Some(&[][..]), 2, Some(&[][..])),
        (3, "t", Some(&["r:"][..]), 3, Some(&["r:"][..])),
        (4, "t", None, 3, Some(&["r:"][..])),
        (5, "u", None, 5, Some(&["r:"][..])),
        (6, "u", Some(&["r:"][..]), 5, Some(&["r:"][..])),
    ] {
        let lists = with_resources(tool, resources);
        let record = ListRecord { service: "files".into(), at: at(second * 1_000), lists };
        append(store, Batch { lists: vec![record], ..Batch::default() }).await;
        let found = store.lists(&"files".into()).await.expect("lists are read");
        let found = found.map(|record| (record.at, record.lists));
        let expected = (at(seen_at * 1_000), with_resources(tool, seen));
        assert_eq!(found, Some(expected), "second {second}");
    }
}

fn list_change(service: &str, moment: u64) -> ListChange {
    ListChange {
        service: service.into(),
        at: at(moment),
        hash_before: "c2:a".to_owned(),
        hash: "c2:b".to_owned(),
        tools_before: 1,
        tools: 2,
        is_return: false,
    }
}

pub(super) async fn every_change_of_lists_is_kept_once(store: &impl SampleStore) {
    let changes =
        [list_change("files", 1_000), list_change("github", 1_000), list_change("files", 2_000)];
    let batch = Batch { list_changes: changes.to_vec(), ..Batch::default() };
    append(store, batch.clone()).await;
    store.put_back(&batch).await.expect("the past is taken");
    let found = every(&RecordQuery::all(), async |query| store.list_changes(query).await).await;
    assert_eq!(found, changes);
    let query = RecordQuery::of("files".into()).since(at(1_500));
    let found = every(&query, async |query| store.list_changes(query).await).await;
    assert_eq!(found, [changes[2].clone()]);
    let nobody = RecordQuery::of("nobody".into());
    assert!(every(&nobody, async |query| store.list_changes(query).await).await.is_empty());
}

pub(super) async fn the_newest_changes_of_lists_are_kept(store: &impl SampleStore) {
    let moments = 1..=ListChange::MOST_KEPT as u64 + 10;
    let mut changes: Vec<_> = moments.map(|n| list_change("files", n * 1_000)).collect();
    changes.push(list_change("github", 1_000));
    for changes in changes.chunks(400) {
        let batch = Batch { list_changes: changes.to_vec(), ..Batch::default() };
        append(store, batch).await;
    }
    // An import brings older ones after newer ones.
    let old = Batch { list_changes: vec![list_change("files", 500)], ..Batch::default() };
    store.put_back(&old).await.expect("the past is taken");
    let query = RecordQuery::of("files".into());
    let found = every(&query, async |query| store.list_changes(query).await).await;
    assert_eq!(found.len(), ListChange::MOST_KEPT, "a server may never settle");
    assert_eq!(found, changes[10..changes.len() - 1], "the oldest go");
    let query = RecordQuery::of("github".into());
    let found = every(&query, async |query| store.list_changes(query).await).await;
    assert_eq!(found.len(), 1, "each service has its own");
    let plan = PrunePlan { incidents_before: Some(at(20_000)), ..PrunePlan::default() };
    while store.prune(&plan).await.expect("it is pruned").more {}
    let found = every(&RecordQuery::all(), async |query| store.list_changes(query).await).await;
    assert_eq!(found, changes[19..changes.len() - 1], "what is older than its retention goes");
}

pub(super) async fn the_machine_is_remembered(store: &impl SampleStore) {
    let samples: Vec<_> = (0..5).map(|n| host(at(n * 15_000))).collect();
    append(store, Batch { host: samples.clone(), ..Batch::default() }).await;
    let query = RecordQuery { limit: 2, ..RecordQuery::of("files".into()) };
    let found = every(&query, async |query| store.host(query).await).await;
    assert_eq!(found, samples, "the service of a query is not looked at");
    let query = RecordQuery { until: Some(at(45_000)), ..RecordQuery::all().since(at(15_000)) };
    let found = every(&query, async |query| store.host(query).await).await;
    assert_eq!(found, samples[1..3]);
    let last = store.last_host().await.expect("the machine is read");
    assert_eq!(last.as_ref(), samples.last());
}

/// Carries a plan out to its end.
pub(super) async fn prune(store: &impl SampleStore, plan: PrunePlan) {
    for _ in 0..10_000 {
        if !store.prune(&plan).await.expect("a step is taken").more {
            return;
        }
    }
    panic!("pruning comes to no end");
}

pub(super) async fn pruning_takes_what_is_old_and_leaves_the_last_status(store: &impl SampleStore) {
    let expected = scattered(store).await;
    let moments = [at(1_000), at(4_000), at(7_000), at(20_000)];
    let changes: Vec<_> = moments
        .iter()
        .map(|moment| change("files", *moment, Status::Running, Status::Stopped))
        .collect();
    let old = vec![change("github", at(2_000), Status::Unknown, Status::Stopped)];
    append(store, Batch { changes: old, ..Batch::default() }).await;
    let samples = moments.map(host).to_vec();
    append(store, Batch { changes, host: samples, ..Batch::default() }).await;

    prune(store, PrunePlan::default()).await;
    assert_eq!(read(store).await.checks, expected, "an empty plan takes nothing");

    let before = at(7_000);
    prune(store, PrunePlan { checks_before: Some(before), ..PrunePlan::default() }).await;
    let found = read(store).await;
    let kept: Vec<_> = expected.into_iter().filter(|check| check.at >= before).collect();
    assert_eq!(found.checks, kept);
    assert!(found.host.iter().all(|sample| sample.at >= before) && found.host.len() == 2);
    assert_eq!(found.changes.len(), 5, "what the plan does not name stays");

    prune(store, PrunePlan { quarters_before: Some(before), ..PrunePlan::default() }).await;
    let found = read(store).await;
    assert!(!found.changes.iter().any(|change| change.at == at(1_000)));
    let github = found.services.iter().find(|stored| stored.facts.service.as_str() == "github");
    let github = github.expect("a service is never forgotten");
    assert_eq!((github.status, github.since), (Status::Stopped, at(2_000)));
    assert_eq!(github.failure.as_ref(), Some(&failure(FailureCode::ConnectionRefused)));

    // What comes after takes its place as before.
    append(store, Batch { checks: vec![check("files", at(90_000))], ..Batch::default() }).await;
    assert_eq!(read(store).await.checks.len(), kept.len() + 1);
}

pub(super) async fn hostile_text_is_kept_as_it_came(store: &impl SampleStore) {
    let names = HOSTILE.iter().zip(0..);
    let mut batch = Batch::default();
    for (text, number) in names {
        let mut known = facts(text, number);
        known.conversation.server =
            Some(ServerIdentity { name: (*text).to_owned(), version: (*text).to_owned() });
        let mut down = change(text, at(1_000), Status::Running, Status::Stopped);
        if let Some(failure) = &mut down.failure {
            failure.message = (*text).to_owned();
            failure.evidence.insert("stderr".to_owned(), (*text).into());
        }
        batch.checks.push(failed_check(text, at(1_000), FailureCode::ServerError));
        batch.lists.push(ListRecord {
            service: (*text).into(),
            at: at(1_000),
            lists: lists(&[text]),
        });
        batch.facts.push(known);
        batch.changes.push(down);
    }
    append(store, batch.clone()).await;
    let services = store.services().await.expect("services are read");
    assert_eq!(services.len(), HOSTILE.len(), "each is a service of its own");
    for (number, text) in HOSTILE.iter().enumerate() {
        let stored = services.iter().find(|stored| stored.facts.service.as_str() == *text);
        let stored = stored.expect("it is there under its name");
        assert_eq!(stored.facts, batch.facts[number]);
        assert_eq!(stored.failure, batch.changes[number].failure);
        assert_eq!(stored.last_check.as_ref(), Some(&batch.checks[number]));
        let found = store.lists(&(*text).into()).await.expect("lists are read");
        assert_eq!(found.as_ref(), Some(&batch.lists[number]));
        assert_eq!(checks(store, &RecordQuery::of((*text).into())).await.len(), 1);
    }
}
