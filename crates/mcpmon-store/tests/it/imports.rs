//! JSON lines read back: whole, once, or not at all.

use std::io::Cursor;
use std::time::Duration;

use mcpmon_core::alert::{Acknowledgement, AlertPhase, AlertState};
use mcpmon_core::failure::FailureCode;
use mcpmon_core::state::StatusChange;
use mcpmon_core::store::{
    Batch, CheckRecord, IncidentLog, ListChange, ListRecord, PrunePlan, RecordQuery, SampleStore,
    ServiceFacts, Transition,
};
use mcpmon_core::{Finding, FindingCode, Status, Timestamp};
use mcpmon_store::SqliteStore;
use mcpmon_store::export::{ExportQuery, Exporter};
use mcpmon_store::import::{ImportError, Imported, Importer};
use mcpmon_testkit::samples::{
    alert, alert_about, answered, check, failed_check, failure, lists, process_metrics,
    resolved_alert, subjects,
};
use mcpmon_testkit::{HOSTILE, START};
use proptest::prelude::*;
use tempfile::TempDir;

use crate::open;

fn at(seconds: u64) -> Timestamp {
    START.saturating_add(Duration::from_secs(seconds))
}

fn facts(service: &str, restarts: u64) -> ServiceFacts {
    ServiceFacts {
        transport: "stdio".to_owned(),
        conversation: answered().conversation,
        tools_count: Some(2),
        restarts,
        check_interval_ms: Some(30_000),
        tool_list_tokens: Some(120),
        ..ServiceFacts::unknown(service.into())
    }
}

fn change(service: &str, at: Timestamp, from: Status, status: Status) -> StatusChange {
    StatusChange {
        service: service.into(),
        at,
        from,
        status,
        since: at,
        failure: status.is_down().then(|| failure(FailureCode::ConnectionRefused)),
        findings: vec![Finding::new(FindingCode::SlowResponse, "1.4 s")],
        origin: Default::default(),
    }
}

async fn lines_of(store: &SqliteStore, query: &ExportQuery) -> Vec<u8> {
    let mut out = Vec::new();
    Exporter::new(store, store).write_jsonl(query, at(9_999), &mut out).await.unwrap();
    out
}

async fn import(store: &SqliteStore, lines: &[u8]) -> Result<Imported, ImportError> {
    Importer::new(store, store).read_jsonl(&mut Cursor::new(lines)).await
}

/// A bit of everything, with names, moments and causes that are hard to keep apart.
async fn lived_in(store: &SqliteStore) {
    let names: Vec<&str> = ["zeta", "alpha"].into_iter().chain(HOSTILE.iter().copied()).collect();
    let mut batch = Batch::default();
    for (place, name) in names.iter().enumerate() {
        batch.facts.push(facts(name, place as u64 % 3));
        batch.changes.push(change(name, at(0), Status::Unknown, Status::Running));
        batch.changes.push(change(name, at(95), Status::Running, Status::Stopped));
        batch.changes.push(change(name, at(95), Status::Stopped, Status::Degraded));
    }
    let listed = lists(&["read", "\u{202e}write", "=1+1"]);
    batch.lists.push(ListRecord { service: "zeta".into(), at: at(10), lists: listed });
    for round in 0..40 {
        for name in &names {
            // Of one moment, as a restored clock or a coarse one gives them.
            let moment = at(round * 5);
            let mut one = match round % 7 {
                3 => failed_check(name, moment, FailureCode::ConnectionRefused),
                _ => check(name, moment),
            };
            one.total = Duration::from_micros(1_000 + round * 130);
            one.restarted = round == 20;
            one.process = (round % 4 == 0).then(process_metrics);
            batch.checks.push(one);
        }
    }
    store.append(&batch).await.unwrap();
    let open = alert("slow", "zeta");
    let mut state = AlertState::new(open.key(), at(3));
    state.phase = AlertPhase::Firing;
    state.alert = Some(open.clone());
    state.acknowledged =
        Some(Acknowledgement { by: "ada".to_owned(), comment: String::new(), at: at(5) });
    let alerts = vec![resolved_alert("service_down", "alpha"), open];
    let transition = Transition { states: vec![state], alerts, at: at(5), ..Transition::default() };
    store.commit(&transition).await.unwrap();
}

#[tokio::test]
async fn an_import_of_an_export_exports_the_same_bytes() {
    let directory = TempDir::new().unwrap();
    let first = open(&directory.path().join("first.db"));
    lived_in(&first).await;
    let whole = lines_of(&first, &ExportQuery::default()).await;
    assert!(String::from_utf8_lossy(&whole).contains("\"state\":\"acknowledged\""));

    let second = open(&directory.path().join("second.db"));
    let done = import(&second, &whole).await.unwrap();
    assert_eq!(lines_of(&second, &ExportQuery::default()).await, whole);
    assert_eq!((done.known, done.alerts), (0, 2));
    assert_eq!(done.oldest, Some(at(0)));

    // Packed away, it is still the same; and a second time adds nothing.
    while second.prune(&PrunePlan::default()).await.unwrap().more {}
    let again = import(&second, &whole).await.unwrap();
    assert_eq!((again.checks, again.changes, again.alerts), (0, 0, 0));
    assert_eq!(again.known, done.checks + done.changes + done.alerts);
    assert_eq!(lines_of(&second, &ExportQuery::default()).await, whole);
    let report = second.check().await.unwrap();
    assert!(report.ok, "{:?}", report.problems);

    let one = ExportQuery { service: Some("zeta".into()), ..ExportQuery::default() };
    let third = open(&directory.path().join("third.db"));
    let of_one = lines_of(&first, &one).await;
    import(&third, &of_one).await.unwrap();
    assert_eq!(lines_of(&third, &ExportQuery::default()).await, of_one);
}

#[tokio::test]
async fn two_ranges_that_meet_hold_every_check_once() {
    let directory = TempDir::new().unwrap();
    let store = open(&directory.path().join("mcpmon.db"));
    lived_in(&store).await;
    let snapshots = |lines: Vec<u8>| {
        let lines = String::from_utf8(lines).unwrap();
        lines.lines().filter(|line| line.contains("\"record\":\"snapshot\"")).count()
    };
    let all = snapshots(lines_of(&store, &ExportQuery::default()).await);
    let early = ExportQuery { until: Some(at(50)), ..ExportQuery::default() };
    let late = ExportQuery { since: Some(at(50)), ..ExportQuery::default() };
    let (early, late) = (lines_of(&store, &early).await, lines_of(&store, &late).await);
    // The range begins with the status it began with.
    let second = open(&directory.path().join("second.db"));
    import(&second, &late).await.unwrap();
    let first = second.changes(&RecordQuery::all()).await.unwrap().items.remove(0);
    assert_eq!((first.at, first.status), (at(0), Status::Running));
    import(&second, &early).await.unwrap();
    let found = snapshots(lines_of(&second, &ExportQuery::default()).await);
    assert_eq!((snapshots(early) + snapshots(late), found), (all, all));
}

#[tokio::test]
async fn the_past_does_not_become_the_present() {
    let directory = TempDir::new().unwrap();
    let old = open(&directory.path().join("old.db"));
    lived_in(&old).await;
    let lines = lines_of(&old, &ExportQuery::default()).await;
    let store = open(&directory.path().join("mcpmon.db"));
    let now = at(86_400);
    let batch = Batch {
        facts: vec![facts("zeta", 7)],
        changes: vec![change("zeta", now, Status::Stopped, Status::Running)],
        ..Batch::default()
    };
    store.append(&batch).await.unwrap();
    import(&store, &lines).await.unwrap();
    let services = store.services().await.unwrap();
    let of = |name: &str| services.iter().find(|s| s.facts.service.as_str() == name).unwrap();
    assert_eq!((of("zeta").status, of("zeta").since), (Status::Running, now));
    assert_eq!(of("zeta").facts.restarts, 7);
    assert_eq!((of("alpha").status, of("alpha").since), (Status::Degraded, at(95)));
}

#[tokio::test]
async fn a_mistake_anywhere_changes_nothing_and_is_named() {
    let directory = TempDir::new().unwrap();
    let store = open(&directory.path().join("mcpmon.db"));
    lived_in(&store).await;
    let whole = String::from_utf8(lines_of(&store, &ExportQuery::default()).await).unwrap();
    let empty = open(&directory.path().join("empty.db"));
    let lines = whole.lines().count();
    let cut = whole.len() - 40;
    for (text, line, word) in [
        (String::new(), 1, "right file"),
        ("{}\n".to_owned(), 1, "mcpmon/export/v1"),
        (whole.replace("export/v1", "export/v9"), 1, "mcpmon/export/v1"),
        (whole[..cut].to_owned(), lines, "EOF"),
        (whole.replacen("\"record\":\"snapshot\"", "\"record\":\"rumour\"", 1), 0, "rumour"),
        (format!("{whole}\0\n"), lines + 1, "expected value"),
    ] {
        let error = import(&empty, text.as_bytes()).await.unwrap_err();
        let ImportError::Line { line: found, message } = &error else { panic!("{error}") };
        assert!(message.contains(word), "{message}");
        assert!(line == 0 || *found == line as u64, "{error}");
    }
    assert!(empty.services().await.unwrap().is_empty());
    assert!(empty.checks(&RecordQuery::all()).await.unwrap().items.is_empty());
    assert!(
        empty
            .alerts(&mcpmon_core::store::AlertQuery { limit: 9, ..<_>::default() })
            .await
            .unwrap()
            .is_empty()
    );
}

#[tokio::test]
async fn an_import_that_was_cut_short_is_finished_by_another() {
    let directory = TempDir::new().unwrap();
    let store = open(&directory.path().join("mcpmon.db"));
    lived_in(&store).await;
    let whole = String::from_utf8(lines_of(&store, &ExportQuery::default()).await).unwrap();
    let second = open(&directory.path().join("second.db"));
    // What a crash between two batches leaves is what a shorter file gives.
    let half: String =
        whole.lines().take(whole.lines().count() / 2).flat_map(|l| [l, "\n"]).collect();
    import(&second, half.as_bytes()).await.unwrap();
    import(&second, whole.as_bytes()).await.unwrap();
    assert_eq!(lines_of(&second, &ExportQuery::default()).await, whole.into_bytes());
}

/// A store with an alert that has been firing since before the range of [`firing_for_long`]'s query.
async fn firing_for_long(store: &SqliteStore) -> ExportQuery {
    let firing = mcpmon_core::Alert { timestamp: at(1), ..alert("slow", "zeta") };
    let states = vec![standing(&firing, AlertPhase::Firing)];
    let transition = Transition { states, alerts: vec![firing], at: at(1), ..<_>::default() };
    store.commit(&transition).await.unwrap();
    let batch = Batch { checks: vec![check("zeta", at(700))], ..Batch::default() };
    store.append(&batch).await.unwrap();
    ExportQuery { since: Some(at(600)), ..ExportQuery::default() }
}

#[tokio::test]
async fn an_alert_open_since_before_the_range_of_an_export_is_open_after_its_import() {
    let directory = TempDir::new().unwrap();
    let first = open(&directory.path().join("first.db"));
    let query = firing_for_long(&first).await;
    let lines = lines_of(&first, &query).await;
    let second = open(&directory.path().join("second.db"));
    assert_eq!(import(&second, &lines).await.unwrap().alerts, 1);
    let all = mcpmon_core::store::AlertQuery { limit: 9, ..<_>::default() };
    let expected = first.alerts(&all).await.unwrap();
    assert_eq!(second.alerts(&all).await.unwrap(), expected);
    assert_eq!(second.states().await.unwrap(), first.states().await.unwrap());
}

#[tokio::test]
async fn an_open_alert_of_which_a_file_has_the_state_alone_is_imported_once() {
    let directory = TempDir::new().unwrap();
    let first = open(&directory.path().join("first.db"));
    let query = firing_for_long(&first).await;
    let lines = String::from_utf8(lines_of(&first, &query).await).unwrap();
    let is_kept = |line: &&str| !line.contains(r#""record":"alert","#);
    let old: String = lines.lines().filter(is_kept).flat_map(|line| [line, "\n"]).collect();
    assert_eq!(lines.lines().count(), old.lines().count() + 1);
    let second = open(&directory.path().join("second.db"));
    assert_eq!(import(&second, old.as_bytes()).await.unwrap().alerts, 1);
    let all = mcpmon_core::store::AlertQuery { limit: 9, ..<_>::default() };
    assert_eq!(second.alerts(&all).await.unwrap(), first.alerts(&all).await.unwrap());
    assert_eq!(import(&second, old.as_bytes()).await.unwrap().alerts, 0);
    assert_eq!(second.alerts(&all).await.unwrap().len(), 1);
}

fn standing(of: &mcpmon_core::Alert, phase: AlertPhase) -> AlertState {
    let mut state = AlertState::new(of.key(), at(3));
    state.phase = phase;
    state.alert = (phase == AlertPhase::Firing).then(|| of.clone());
    state
}

#[tokio::test]
async fn alerts_about_every_kind_of_subject_come_back_as_they_were() {
    let directory = TempDir::new().unwrap();
    let first = open(&directory.path().join("first.db"));
    let alerts = subjects().map(|subject| alert_about("rule", subject));
    let states = alerts.iter().map(|alert| standing(alert, AlertPhase::Firing)).collect();
    let all = Transition { states, alerts: alerts.to_vec(), at: at(5), ..Transition::default() };
    first.commit(&all).await.unwrap();
    let lines = lines_of(&first, &ExportQuery::default()).await;
    let second = open(&directory.path().join("second.db"));
    assert_eq!(import(&second, &lines).await.unwrap().alerts, 6);
    assert_eq!(lines_of(&second, &ExportQuery::default()).await, lines);
    assert_eq!(second.states().await.unwrap(), first.states().await.unwrap());

    // Of one service: neither a dependency nor a handler of its name.
    let service = Some("same".into());
    let of_service = lines_of(&first, &ExportQuery { service, ..ExportQuery::default() }).await;
    let of_service = String::from_utf8(of_service).unwrap();
    assert_eq!(of_service.matches(r#""record":"alert""#).count(), 2, "{of_service}");
    assert_eq!(of_service.matches(r#""record":"alert_state""#).count(), 2, "{of_service}");
}

#[tokio::test]
async fn an_alert_of_an_older_export_gets_its_subject_and_an_unclear_one_stops_the_import() {
    let directory = TempDir::new().unwrap();
    let first = open(&directory.path().join("first.db"));
    let dependency = mcpmon_core::Subject::Dependency("tcp://db:5432".to_owned());
    let open_alert = alert_about("dependency_down", dependency.clone());
    let states = vec![standing(&open_alert, AlertPhase::Firing)];
    let all = Transition { states, alerts: vec![open_alert], at: at(5), ..Transition::default() };
    first.commit(&all).await.unwrap();
    let lines = String::from_utf8(lines_of(&first, &ExportQuery::default()).await).unwrap();
    // As it was written when the name of a dependency stood in the place of a service's.
    let named = r#""subject":{"kind":"dependency","name":"tcp://db:5432"}"#;
    let old = lines
        .replace(
            &format!(r#""key":{{"rule":"dependency_down",{named}}}"#),
            r#""key":{"rule":"dependency_down","service":"tcp://db:5432","tool":null}"#,
        )
        .replace(
            &format!(r#""service_name":null,"tool_name":null,{named}"#),
            r#""service_name":"tcp://db:5432","tool_name":null"#,
        );
    // In the alert, in the state's key and in its alert; what is left stands in the metrics.
    assert_eq!((lines.matches(named).count(), old.matches(named).count()), (5, 2));
    let second = open(&directory.path().join("second.db"));
    import(&second, old.as_bytes()).await.unwrap();
    assert_eq!(second.states().await.unwrap(), first.states().await.unwrap());
    assert_eq!(lines_of(&second, &ExportQuery::default()).await, lines.as_bytes());

    let unclear = old.replace("dependency_down", "own_rule");
    let third = open(&directory.path().join("third.db"));
    let error = import(&third, unclear.as_bytes()).await.unwrap_err();
    assert!(error.to_string().contains("missing field `subject`"), "{error}");
    assert!(third.states().await.unwrap().is_empty());
}

#[tokio::test]
async fn an_alert_whose_subject_is_judged_here_does_not_stay_open() {
    let directory = TempDir::new().unwrap();
    let old = open(&directory.path().join("old.db"));
    lived_in(&old).await;
    let lines = lines_of(&old, &ExportQuery::default()).await;
    let store = open(&directory.path().join("mcpmon.db"));
    let now = standing(&alert("slow", "zeta"), AlertPhase::Resolved);
    let transition = Transition { states: vec![now], at: at(20_000), ..Transition::default() };
    store.commit(&transition).await.unwrap();
    for _ in 0..2 {
        import(&store, &lines).await.unwrap();
        let all = mcpmon_core::store::AlertQuery { limit: 9, ..<_>::default() };
        let active = mcpmon_core::store::AlertQuery { active: true, ..all.clone() };
        assert!(store.alerts(&active).await.unwrap().is_empty());
        let found = store.alerts(&all).await.unwrap();
        let ended = found.iter().find(|found| found.alert.rule_name == "slow").unwrap();
        assert_eq!((found.len(), ended.alert.resolved_at), (2, Some(at(9_999))));
        assert!(ended.alert.ended_because.is_some());
        assert_eq!(store.states().await.unwrap().len(), 1);
    }
}

fn list_change(moment: u64, is_return: bool) -> ListChange {
    ListChange {
        service: "zeta".into(),
        at: at(moment),
        hash_before: "c2:a".to_owned(),
        hash: "c2:b".to_owned(),
        tools_before: 1,
        tools: 2,
        is_return,
    }
}

async fn append_list_changes(store: &SqliteStore, list_changes: &[ListChange]) {
    let batch = Batch { list_changes: list_changes.to_vec(), ..Batch::default() };
    store.append(&batch).await.unwrap();
}

/// A history with three changes of lists that were reported, the last because they go back and forth.
async fn relisted(directory: &TempDir, phase: AlertPhase) -> SqliteStore {
    let store = open(&directory.path().join("first.db"));
    lived_in(&store).await;
    let changes = [(10, false), (20, false), (30, true)].map(|(at, back)| list_change(at, back));
    append_list_changes(&store, &changes).await;
    let alert = match phase {
        AlertPhase::Firing => alert("tools_changed", "zeta"),
        _ => resolved_alert("tools_changed", "zeta"),
    };
    let mut state = standing(&alert, phase);
    state.reported_change = Some(at(30));
    let (states, alerts) = (vec![state], vec![alert]);
    let reported = Transition { states, alerts, at: at(30), ..Transition::default() };
    store.commit(&reported).await.unwrap();
    store
}

async fn list_rule_states(store: &SqliteStore) -> Vec<AlertState> {
    let states = store.states().await.unwrap().into_iter();
    states.filter(|state| state.key.rule == ListChange::RULE).collect()
}

#[tokio::test]
async fn changes_of_lists_that_are_read_back_count_as_reported() {
    for phase in [AlertPhase::Firing, AlertPhase::Resolved] {
        let directory = TempDir::new().unwrap();
        let first = relisted(&directory, phase).await;
        let whole = lines_of(&first, &ExportQuery::default()).await;
        let second = open(&directory.path().join("second.db"));
        // Once cut short behind the changes, as by a crash, and twice whole.
        let text = String::from_utf8(whole.clone()).unwrap();
        let begin: String = text
            .split_inclusive('\n')
            .take_while(|line| !line.contains(r#""record":"snapshot""#))
            .collect();
        assert_eq!(begin.matches(r#""record":"list_change""#).count(), 3);
        for lines in [begin.as_bytes(), &whole, &whole] {
            import(&second, lines).await.unwrap();
            let states = list_rule_states(&second).await;
            assert_eq!(states.len(), 1);
            assert_eq!(states[0].reported_change, Some(at(30)), "{phase:?}");
        }
        if phase == AlertPhase::Firing {
            assert_eq!(list_rule_states(&second).await, list_rule_states(&first).await);
        }
        assert_eq!(lines_of(&second, &ExportQuery::default()).await, whole);
    }
}

#[tokio::test]
async fn an_import_hides_no_change_of_lists_that_is_still_to_be_reported() {
    let directory = TempDir::new().unwrap();
    let first = relisted(&directory, AlertPhase::Firing).await;
    let lines = lines_of(&first, &ExportQuery::default()).await;
    // The store's own changes, the newest of them that it reported, and that after the import.
    for (own, reported, after) in [
        (&[][..], None, Some(30)),
        (&[40], None, Some(30)),
        (&[40], Some(40), Some(40)),
        (&[15], None, Some(10)),
        (&[5], None, None),
        (&[5], Some(5), Some(30)),
        (&[10, 20], None, None),
    ] {
        let store = open(&directory.path().join(format!("{own:?}{reported:?}.db")));
        let changes: Vec<_> = own.iter().map(|moment| list_change(*moment, false)).collect();
        append_list_changes(&store, &changes).await;
        if let Some(reported) = reported {
            let mut state =
                standing(&resolved_alert("tools_changed", "zeta"), AlertPhase::Resolved);
            state.alert = Some(resolved_alert("tools_changed", "zeta"));
            state.reported_change = Some(at(reported));
            let known = Transition { states: vec![state], at: at(50), ..Transition::default() };
            store.commit(&known).await.unwrap();
        }
        import(&store, &lines).await.unwrap();
        let states = list_rule_states(&store).await;
        let found = states.iter().find_map(|state| state.reported_change);
        assert_eq!(found, after.map(at), "{own:?} {reported:?}");
    }
}

#[tokio::test]
async fn checks_that_differ_in_what_they_found_are_two() {
    let directory = TempDir::new().unwrap();
    let first = open(&directory.path().join("first.db"));
    let good = check("files", at(1));
    let bad = failed_check("files", at(1), FailureCode::ConnectionRefused);
    let checks = vec![
        CheckRecord { total: good.total, ..bad.clone() },
        CheckRecord { code: None, total: good.total, ..bad },
        CheckRecord { latency: Some(Duration::from_millis(77)), ..good.clone() },
        good,
    ];
    first
        .append(&Batch { checks, facts: vec![facts("files", 0)], ..<_>::default() })
        .await
        .unwrap();
    let whole = lines_of(&first, &ExportQuery::default()).await;
    let second = open(&directory.path().join("second.db"));
    let done = import(&second, &whole).await.unwrap();
    assert_eq!((done.checks, done.known), (4, 0));
    assert_eq!(import(&second, &whole).await.unwrap().known, 4);
}

#[tokio::test]
async fn exports_one_behind_the_other_are_read_and_each_says_what_it_is() {
    let directory = TempDir::new().unwrap();
    let first = open(&directory.path().join("first.db"));
    lived_in(&first).await;
    let whole = String::from_utf8(lines_of(&first, &ExportQuery::default()).await).unwrap();
    let second = open(&directory.path().join("second.db"));
    // A line may be long.
    let long = whole.replacen('\n', &format!("{}\n", " ".repeat(17 << 20)), 1);
    let done = import(&second, format!("{long}{whole}").as_bytes()).await.unwrap();
    assert_eq!(done.known, done.checks + done.changes + done.alerts);
    assert_eq!(lines_of(&second, &ExportQuery::default()).await, whole.as_bytes());

    let newer = whole.replacen("export/v1", "export/v9", 1);
    let error = import(&second, format!("{whole}{newer}").as_bytes()).await.unwrap_err();
    let line = whole.lines().count() as u64 + 1;
    assert!(matches!(error, ImportError::Line { line: found, .. } if found == line), "{error}");
}

/// An input in which a line is another when it is read for the second time.
struct Changing {
    text: Vec<u8>,
    at: usize,
}

impl std::io::Read for Changing {
    fn read(&mut self, out: &mut [u8]) -> std::io::Result<usize> {
        let read = std::io::Read::read(&mut &self.text[self.at..], out)?;
        self.at += read;
        Ok(read)
    }
}

impl std::io::BufRead for Changing {
    fn fill_buf(&mut self) -> std::io::Result<&[u8]> {
        Ok(&self.text[self.at..])
    }

    fn consume(&mut self, amount: usize) {
        self.at += amount;
    }
}

impl std::io::Seek for Changing {
    fn seek(&mut self, to: std::io::SeekFrom) -> std::io::Result<u64> {
        if let std::io::SeekFrom::Start(at) = to {
            self.at = at as usize;
            self.text.extend_from_slice(b"{\n");
        }
        Ok(self.at as u64)
    }
}

#[tokio::test]
async fn a_file_that_changes_while_it_is_read_is_not_said_to_have_changed_nothing() {
    let directory = TempDir::new().unwrap();
    let first = open(&directory.path().join("first.db"));
    lived_in(&first).await;
    let text = lines_of(&first, &ExportQuery::default()).await;
    let second = open(&directory.path().join("second.db"));
    let mut input = Changing { text, at: 0 };
    let error = Importer::new(&second, &second).read_jsonl(&mut input).await.unwrap_err();
    assert!(matches!(error, ImportError::Changed { .. }), "{error}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn any_latencies_and_order_come_back_as_they_were(
        checks in proptest::collection::vec((0..4_usize, 0..30_u64, 0..9_000_000_u64), 1..60),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let directory = TempDir::new().unwrap();
            let first = open(&directory.path().join("first.db"));
            let mut batch = Batch::default();
            for (place, (service, second, nanos_of_ten)) in checks.iter().enumerate() {
                let mut one = check(["d", "c", "b", "a"][*service], at(*second));
                one.latency = Some(Duration::from_nanos(nanos_of_ten * 10));
                // Told apart by their length, as any two real ones are.
                one.total = Duration::from_micros(*nanos_of_ten + place as u64 * 10);
                batch.checks.push(one);
            }
            let names: Vec<_> = batch.checks.iter().map(|check| check.service.clone()).collect();
            batch.facts = names.iter().map(|name| facts(name.as_str(), 0)).collect();
            first.append(&batch).await.unwrap();
            let whole = lines_of(&first, &ExportQuery::default()).await;
            let second = open(&directory.path().join("second.db"));
            import(&second, &whole).await.unwrap();
            assert_eq!(
                String::from_utf8(lines_of(&second, &ExportQuery::default()).await).unwrap(),
                String::from_utf8(whole).unwrap()
            );
        });
    }
}
