//! Rules tried on the past say what a monitor said that lived through it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use mcpmon_core::alert::{Alert, NotificationKind};
use mcpmon_core::store::{AlertQuery, Batch, CheckRecord, IncidentLog as _, SampleStore as _};
use mcpmon_core::{FailureCode, Observation, Question, Settings, Timestamp};
use mcpmon_engine::{MemoryStore, Replay, ReplayReport};
use mcpmon_testkit::{RecordingHandler, START, ScriptedFactory, Step, TokioClock, samples};

use crate::{monitor, seconds, settings, spec};

const INTERVAL: u64 = 10;

fn replay(settings: &Settings, services: &[&str], span: u64) -> Replay {
    Replay {
        settings: settings.clone(),
        services: services.iter().map(|name| spec(name)).collect(),
        handlers: vec!["ops".to_owned()],
        since: START,
        until: START.saturating_add(Duration::from_secs(span)),
        only: Default::default(),
        silences: Vec::new(),
    }
}

fn after(millis: u64) -> Observation {
    Observation { latency: Some(Duration::from_millis(millis)), ..samples::answered() }
}

fn rules(json: serde_json::Value) -> Settings {
    let mut settings = settings();
    settings.rules = serde_json::from_value(json).expect("a test's own part works");
    settings
}

/// When alerts fired and ended, by rule and service, in seconds since the start.
type Spans = BTreeMap<(String, String), Vec<(u64, Option<u64>)>>;

fn second(at: Timestamp) -> u64 {
    at.since(START).as_secs()
}

fn lived(alerts: &[Alert]) -> Spans {
    let mut spans = Spans::new();
    for alert in alerts {
        let service = alert.service_name().map(ToString::to_string).unwrap_or_default();
        let span = (second(alert.timestamp), alert.resolved_at.map(second));
        spans.entry((alert.rule_name.clone(), service)).or_default().push(span);
    }
    spans.values_mut().for_each(|all| all.sort_unstable());
    spans
}

fn replayed(report: &ReplayReport) -> Spans {
    let mut spans = Spans::new();
    for alert in &report.alerts {
        let service = alert.service.as_ref().map(ToString::to_string).unwrap_or_default();
        let span = (second(alert.fired_at), alert.resolved_at.map(second));
        spans.entry((alert.rule.clone(), service)).or_default().push(span);
    }
    spans.values_mut().for_each(|all| all.sort_unstable());
    spans
}

/// Equal within one check.
#[track_caller]
fn assert_same(lived: &Spans, replayed: &Spans) {
    let names = |spans: &Spans| spans.iter().map(|(k, v)| (k.clone(), v.len())).collect::<Vec<_>>();
    assert_eq!(names(lived), names(replayed), "\n{lived:?}\n{replayed:?}");
    let near = |a: u64, b: u64| a.abs_diff(b) <= INTERVAL + 1;
    for (key, spans) in lived {
        for ((fired, ended), (other_fired, other_ended)) in spans.iter().zip(&replayed[key]) {
            let same_end = match (ended, other_ended) {
                (Some(a), Some(b)) => near(*a, *b),
                (a, b) => a == b,
            };
            let message = format!("{key:?}: {spans:?}, replayed {:?}", replayed[key]);
            assert!(near(*fired, *other_fired) && same_end, "{message}");
        }
    }
}

/// A generator that every run repeats.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % sides
    }
}

/// Phases of a service's life: well, slow, failing now and then, down, without credentials.
fn life(dice: &mut Dice) -> Vec<Step> {
    let mut steps = Vec::new();
    while steps.len() < 1_000 {
        let phase = dice.roll(6);
        for n in 0..20 + dice.roll(60) {
            steps.push(match phase {
                0..=2 => after(20 + dice.roll(10)).into(),
                3 => after(1_500 + dice.roll(100)).into(),
                4 if n % 4 == 0 => FailureCode::ServerError.into(),
                4 => after(20).into(),
                _ if n % 16 < 8 => FailureCode::ConnectionRefused.into(),
                _ => FailureCode::ConnectionReset.into(),
            });
        }
    }
    steps
}

async fn lives_and_replays_the_same(seed: u64) {
    let names = ["a", "b", "c", "d"];
    let mut dice = Dice(seed);
    let fleet = ScriptedFactory::new();
    for name in names {
        fleet.script(name).then(life(&mut dice));
    }
    let settings = rules(serde_json::json!([
        { "name": "busy", "when": "avg_response_time > 0.5", "hold": "40s", "keep_firing": "1m" },
        { "name": "often", "when": "error_rate > 0.15 && error_rate_samples >= 10", "window": "10m" },
        { "name": "refused", "when": "failure_code == 'connection_refused'", "level": "info" },
    ]));
    let store = Arc::new(MemoryStore::new());
    let ops = RecordingHandler::new("ops");
    let running = monitor(&fleet)
        .settings(settings.clone())
        .clock(Arc::new(TokioClock::default()))
        .store(Arc::clone(&store) as Arc<_>)
        .services(names.map(spec))
        .handler(ops.clone())
        .start()
        .await
        .expect("a test's own part works");
    let span = 3_600;
    seconds(span).await;
    running.stop().await;
    let alerts = store
        .alerts(&AlertQuery { limit: 10_000, ..AlertQuery::default() })
        .await
        .expect("a test's own part works");
    let alerts: Vec<Alert> = alerts.into_iter().map(|record| record.alert).collect();
    assert!(alerts.len() > 10, "something happens");

    // What was seen last is judged a moment later, and once more when the monitor stops.
    let report =
        replay(&settings, &names, span + 3).run(&*store).await.expect("a test's own part works");
    assert_same(&lived(&alerts), &replayed(&report));
    assert_eq!(report.services, 4);
    // Every message goes to whom it went, and every end was told that had been told to begin.
    assert!(report.messages.iter().all(|message| message.handlers == ["ops"]));
    let count = |kind| report.messages.iter().filter(|message| message.kind == kind).count();
    assert!(count(NotificationKind::Resolved) > 3);
}

#[tokio::test(start_paused = true)]
async fn what_was_lived_through_is_replayed() {
    for seed in [1, 42] {
        lives_and_replays_the_same(seed).await;
    }
}

/// Checks of one service every minute from a moment on, so many hours; `millis` by minute.
async fn stored_from(begin: Timestamp, hours: u64, millis: impl Fn(u64) -> u64) -> MemoryStore {
    let store = MemoryStore::new();
    for hour in 0..hours {
        let minutes = hour * 60..(hour + 1) * 60;
        let checks = minutes.map(|minute| CheckRecord {
            latency: Some(Duration::from_millis(millis(minute))),
            ..samples::check("files", begin.saturating_add(Duration::from_secs(minute * 60)))
        });
        let change = mcpmon_core::state::StatusChange {
            service: "files".into(),
            at: begin,
            from: mcpmon_core::Status::Unknown,
            status: mcpmon_core::Status::Running,
            since: begin,
            failure: None,
            findings: Vec::new(),
            origin: Default::default(),
        };
        let changes = if hour == 0 { vec![change] } else { Vec::new() };
        store
            .append(&Batch { checks: checks.collect(), changes, ..Batch::default() })
            .await
            .expect("a test's own part works");
    }
    store
}

async fn stored(hours: u64, millis: impl Fn(u64) -> u64) -> MemoryStore {
    stored_from(START, hours, millis).await
}

#[tokio::test]
async fn a_rule_file_is_tried_and_says_what_it_would_send_and_what_it_cannot_tell() {
    let store = stored(4, |minute| if (100..130).contains(&minute) { 2_000 } else { 20 }).await;
    let settings = rules(serde_json::json!([
        { "name": "slow_response", "level": "error" },
        { "name": "blind", "when": "cpu_percent > 50.0" },
        { "name": "elsewhere", "when": "error_rate > 0.5", "match": { "team": "web" } },
    ]));
    let report = replay(&settings, &["files"], 4 * 3_600).run(&store).await.unwrap();
    let told: Vec<String> = report
        .messages
        .iter()
        .map(|told| {
            format!("{} {} {} {}", told.rule, told.kind.as_str(), told.level, told.handlers[0])
        })
        .collect();
    assert_eq!(told[0], "slow_response firing error ops");
    assert_eq!(told.last().unwrap(), "slow_response resolved error ops");
    assert!(told.len() > 2, "reminders: {told:?}");
    let summary = |name: &str| report.rules.iter().find(|rule| rule.rule == name).unwrap();
    let slow = summary("slow_response");
    assert_eq!((slow.fired, slow.open, slow.services_count), (1, 0, 1));
    assert!((1_500..2_400).contains(&slow.longest_seconds), "{slow:?}");
    assert_eq!(slow.silent_because, None);
    assert_eq!(summary("blind").silent_because.as_deref(), Some("without a value: cpu_percent"));
    assert!(summary("elsewhere").silent_because.as_ref().unwrap().contains("labels"));
    assert!(summary("tool_error_rate").silent_because.as_ref().unwrap().contains("not stored"));
    assert!(summary("high_cpu").silent_because.as_ref().unwrap().contains("no sample"));
    assert!(report.not_stored.iter().any(|what| what.contains("calls of tools")));
    let nobody = Replay { only: ["nobody".into()].into(), ..replay(&settings, &[], 14_400) };
    assert_eq!(nobody.run(&store).await.unwrap().messages, []);
}

#[tokio::test]
async fn what_fires_when_the_span_begins_is_not_told_as_new() {
    let store = stored(4, |minute| if (100..200).contains(&minute) { 2_000 } else { 20 }).await;
    let all = replay(&settings(), &["files"], 4 * 3_600);
    let since = START.saturating_add(Duration::from_secs(150 * 60));
    let report = Replay { since, ..all }.run(&store).await.unwrap();
    let first = &report.alerts[0];
    assert!(first.fired_before && first.resolved_at.is_some(), "{first:?}");
    assert!(report.messages.iter().all(|told| told.kind != NotificationKind::Firing));
    assert_eq!(report.messages.last().unwrap().kind, NotificationKind::Resolved);
}

#[tokio::test]
async fn a_jump_beside_a_day_of_history_is_an_anomaly_in_a_replay_too() {
    let jump = 20 * 60..20 * 60 + 30;
    let store =
        stored(23, |minute| if jump.contains(&minute) { 400 } else { 20 + minute % 5 }).await;
    let report = replay(&settings(), &["files"], 23 * 3_600).run(&store).await.unwrap();
    let rules: Vec<(&str, u64)> =
        report.rules.iter().map(|rule| (rule.rule.as_str(), rule.fired)).collect();
    let fired: Vec<&(&str, u64)> = rules.iter().filter(|(_, fired)| *fired > 0).collect();
    assert_eq!(fired, [&("response_time_anomaly", 1)]);
    assert!(report.alerts[0].resolved_at.is_some());
}

/// The engine itself, with most of a day of history in its store.
#[tokio::test(start_paused = true)]
async fn one_anomaly_fires_and_ends() {
    let fleet = ScriptedFactory::new();
    let script = fleet.script("files");
    script.usually(after(20));
    let yesterday = START.saturating_sub(Duration::from_secs(20 * 3_600));
    let store = Arc::new(stored_from(yesterday, 20, |minute| 20 + minute % 5).await);
    let ops = RecordingHandler::new("ops");
    let running = monitor(&fleet)
        .store(Arc::clone(&store) as Arc<_>)
        .service(spec("files"))
        .handler(ops.clone())
        .start()
        .await
        .unwrap();
    seconds(900).await;
    assert_eq!(ops.delivered().len(), 0);
    script.usually(after(300));
    seconds(900).await;
    script.usually(after(22));
    seconds(1_800).await;
    let told = crate::told(&ops, "response_time_anomaly");
    assert_eq!(told.first(), Some(&NotificationKind::Firing));
    assert_eq!(told.last(), Some(&NotificationKind::Resolved));
    assert_eq!(told.iter().filter(|kind| **kind == NotificationKind::Firing).count(), 1);
    assert!(ops.delivered().iter().all(|told| told.alerts[0].rule_name == "response_time_anomaly"));
    running.stop().await;
}

#[tokio::test]
async fn nothing_fires_or_goes_on_after_the_history_ended() {
    let store = MemoryStore::new();
    let at = |second| START.saturating_add(Duration::from_secs(second));
    let check = |second| CheckRecord {
        status: mcpmon_core::Status::Stopped,
        code: Some(FailureCode::ConnectionRefused),
        ..samples::check("files", at(second))
    };
    let change = mcpmon_core::state::StatusChange {
        service: "files".into(),
        at: START,
        from: mcpmon_core::Status::Unknown,
        status: mcpmon_core::Status::Stopped,
        since: START,
        failure: None,
        findings: Vec::new(),
        origin: Default::default(),
    };
    let facts = mcpmon_core::store::ServiceFacts {
        transport: "http".to_owned(),
        conversation: Default::default(),
        tools_count: None,
        check_interval_ms: Some(INTERVAL * 1_000),
        tool_list_tokens: None,
        ..mcpmon_core::store::ServiceFacts::unknown("files".into())
    };
    let metrics = mcpmon_core::SystemMetrics { cpu_percent: 99.0, ..Default::default() };
    let batch = Batch {
        checks: [0, 10, 20, 30].map(check).into(),
        changes: vec![change],
        facts: vec![facts],
        host: vec![mcpmon_core::store::HostRecord { at: at(30), metrics }],
        ..Batch::default()
    };
    store.append(&batch).await.unwrap();
    let settings = rules(serde_json::json!([
        { "name": "hot", "scope": "host", "when": "cpu_percent > 90.0", "hold": "1m" },
    ]));
    let report = replay(&settings, &["files"], 434).run(&store).await.unwrap();
    let summary = |name: &str| report.rules.iter().find(|rule| rule.rule == name).unwrap();
    assert_eq!((summary("hot").fired, summary("hot").open), (0, 0), "one sample is no minute");
    let down = summary("service_down");
    assert_eq!((down.fired, down.open), (1, 1), "{down:?}");
    // Thirty seconds of checks, and the fifty the last one vouches for.
    assert!(down.longest_seconds <= 81, "{down:?}");
    let alert = report.alerts.iter().find(|alert| alert.rule == "service_down").unwrap();
    let ended = alert.history_ended_at.map(second);
    assert!(alert.resolved_at.is_none() && ended == Some(80), "{alert:?}");
    assert!(report.not_stored.iter().any(|what| what.contains("when the history ended (files")));
    let gave_up = summary("remediation_gave_up").silent_because.as_deref();
    assert_eq!(gave_up, Some("what came of repairs is not stored"));
}

/// A replay whose span begins long after the first restarts of a process counts those too.
#[tokio::test]
async fn restarts_from_before_the_span_are_counted() {
    let at = |minute: u64| START.saturating_add(Duration::from_secs(minute * 60));
    let checks = (0..300).map(|minute| CheckRecord {
        restarted: [10, 20, 30, 250].contains(&minute),
        ..samples::check("files", at(minute))
    });
    let facts = mcpmon_core::store::ServiceFacts {
        restarts: 4,
        ..mcpmon_core::store::ServiceFacts::unknown("files".into())
    };
    let store = stored(0, |_| 20).await;
    let batch = Batch { checks: checks.collect(), facts: vec![facts], ..Batch::default() };
    store.append(&batch).await.unwrap();
    let settings = rules(serde_json::json!([{ "name": "fourth", "when": "restarts == 4" }]));
    let all = replay(&settings, &["files"], 300 * 60);
    let report = Replay { since: at(200), ..all }.run(&store).await.unwrap();
    let fourth = report.alerts.iter().filter(|alert| alert.rule == "fourth");
    let fired: Vec<u64> = fourth.map(|alert| second(alert.fired_at) / 60).collect();
    assert_eq!(fired, [250]);
}

/// Lists whose check took seconds are known when it has ended, in a replay too.
#[tokio::test(start_paused = true)]
async fn a_change_of_lists_is_replayed_when_its_check_was_over() {
    let fleet = ScriptedFactory::new();
    let script = fleet.script("a");
    let listed =
        |tools: &[&str]| Observation { total: Duration::from_secs(8), ..samples::listed(tools) };
    let slow = |tools: &[&str]| Step::SeeAfter(Duration::from_secs(8), Box::new(listed(tools)));
    script.usually_to(Question::List, slow(&["one"]));
    let store = Arc::new(MemoryStore::new());
    let running = monitor(&fleet)
        .store(Arc::clone(&store) as Arc<_>)
        .service(spec("a"))
        .handler(RecordingHandler::new("ops"))
        .start()
        .await
        .unwrap();
    seconds(60).await;
    script.usually_to(Question::List, slow(&["one", "two"]));
    seconds(600).await;
    running.stop().await;
    let alerts = store.alerts(&AlertQuery { limit: 9, ..AlertQuery::default() }).await.unwrap();
    let report = replay(&settings(), &["a"], 660).run(&*store).await.unwrap();
    let [lived] = &alerts[..] else { panic!("{alerts:?}") };
    let [replayed] = &report.alerts[..] else { panic!("{:?}", report.alerts) };
    assert_eq!(
        (lived.alert.rule_name.as_str(), replayed.rule.as_str()),
        ("tools_changed", "tools_changed")
    );
    let fired_at = (second(lived.alert.timestamp), second(replayed.fired_at));
    assert!(fired_at.0.abs_diff(fired_at.1) <= 1, "{fired_at:?}");
}
