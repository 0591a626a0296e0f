//! Random fleets, lived through and then replayed from what was stored: `rules test` has to send
//! exactly what the monitor sent.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use mcpmon_core::Timestamp;
use mcpmon_core::alert::Silence;
use mcpmon_core::monitor::MonitorCommand;
use mcpmon_core::service::FunctionalCheck;
use mcpmon_core::settings::MaintenanceWindow;
use mcpmon_engine::{MemoryStore, Replay, ReplayReport};
use mcpmon_testkit::FailingStore;

use super::fleet::{Behaviour, Dice};
use super::house::House;
use super::restarts::window;

const NAMES: [&str; 7] = ["a", "b", "c", "d", "e", "f", "g"];

struct Run {
    house: House,
    dice: Dice,
    /// For what [`Run::step`] does not do, which would else make another run of the same seed.
    more_dice: Dice,
    store: FailingStore<MemoryStore>,
    silences: Vec<Silence>,
}

impl Run {
    /// A fleet of which all that rules look at is stored.
    fn stored(seed: u64) -> Self {
        Self::new(seed, &[], false)
    }

    /// The same with processes among the services.
    fn with_processes(seed: u64) -> Self {
        Self::new(seed, &[], true)
    }

    /// A fleet in which some services also need one of these, which are no services.
    fn new(seed: u64, outside: &[&'static str], has_processes: bool) -> Self {
        let mut house = House::new(seed);
        let mut dice = Dice::new(seed);
        let mut more_dice = Dice::new(!seed);
        let store = FailingStore::new(Arc::new(MemoryStore::new()));
        house.store = Arc::new(store.clone());
        house.begin_at_full_second();
        house.settings.performance_monitoring.enabled = true;
        house.settings.monitoring.alert_cooldown = Duration::from_secs(dice.between(0, 3) * 100);
        house.settings.monitoring.health_check_retries = dice.between(1, 4) as u32;
        house.settings.service_monitoring.max_consecutive_failures = dice.between(1, 4) as u32;
        house.settings.service_monitoring.max_consecutive_successes = dice.between(1, 3) as u32;
        let heartbeat = Duration::from_secs(dice.between(2, 12));
        house.settings.service_monitoring.status_check_interval = heartbeat;
        house.settings.rules = rules(&mut dice);
        if has_processes {
            let restarted = serde_json::json!({ "name": "restarted", "when": "restarts % 4 == 3" });
            house.settings.rules.push(serde_json::from_value(restarted).unwrap());
        }
        let start = house.now();
        for _ in 0..dice.below(3) {
            house.settings.maintenance.push(maintenance(&mut dice, start));
        }
        let services = 3 + dice.below(4);
        for (count, name) in NAMES.iter().enumerate().take(services) {
            let mut needs = needs(&mut dice, count);
            if !outside.is_empty() && dice.below(2) == 0 {
                needs.insert(0, outside[dice.below(outside.len())]);
            }
            match has_processes && more_dice.below(2) == 0 {
                true => house.watch_process(name, &needs),
                false => house.watch(name, &needs),
            }
            if dice.below(3) == 0 {
                let call = serde_json::json!({ "tool": "t" });
                let call: FunctionalCheck = serde_json::from_value(call).unwrap();
                house.services[count].functional.push(call);
            }
        }
        house.start();
        Self { house, dice, more_dice, store, silences: Vec::new() }
    }

    fn service(&mut self) -> &'static str {
        NAMES[self.dice.below(self.house.services.len())]
    }

    fn step(&mut self) {
        let service = self.service();
        match self.dice.below(14) {
            0..=1 => self.house.fleet.set(service, Behaviour::Down),
            2..=4 => self.house.fleet.set(service, Behaviour::Well),
            5 => self.house.fleet.set(service, Behaviour::Mute),
            6 => self.house.fleet.set(service, Behaviour::Lossy(0.4)),
            7 => self.house.fleet.set(service, Behaviour::Toggling(2)),
            8 => {
                let millis = self.dice.between(500, 2_500);
                self.house.fleet.set(service, Behaviour::Slow(millis));
            }
            9 => self.house.fleet.set_calls(service, true),
            10 => self.house.fleet.set_calls(service, false),
            11 => self.silence(service),
            12 => {
                let seconds = self.dice.between(60, 900);
                self.house.sleep(seconds);
            }
            _ => {}
        }
        let millis = self.dice.between(500, 150_000);
        self.house.wait_millis(millis);
    }

    /// A process that dies young, a service that is disabled or enabled, a restart of the monitor,
    /// or nothing.
    fn intervene(&mut self) {
        let service = self.more_dice.below(self.house.services.len());
        match self.more_dice.below(9) {
            0..=1 => {
                let answers = self.more_dice.between(1, 6) as u32;
                self.house.fleet.set(NAMES[service], Behaviour::DiesYoung(answers));
            }
            2 => self.enable(service, false),
            3..=4 => self.enable(service, true),
            5 => self.restart(),
            _ => {}
        }
    }

    /// Sometimes so soon that no service was left alone for longer than it would be anyway.
    fn restart(&mut self) {
        match self.more_dice.below(2) {
            0 => self.house.stop(),
            _ => self.house.drop_it(),
        }
        let seconds = [0, 0, 1, 5, 15, 300][self.more_dice.below(6)];
        self.house.rest(seconds);
        self.house.rest_until_full_second();
        self.house.start();
    }

    fn enable(&mut self, service: usize, is_enabled: bool) {
        self.house.services[service].enabled = is_enabled;
        self.house.reload();
    }

    fn silence(&mut self, service: &str) {
        let now = self.house.now();
        let silence = Silence {
            id: format!("s-{}", self.silences.len()),
            matchers: [("service_name".to_owned(), service.to_owned())].into(),
            starts_at: now,
            ends_at: now.saturating_add(Duration::from_secs(self.dice.between(30, 600))),
            by: String::new(),
            comment: String::new(),
        };
        self.silences.push(silence.clone());
        self.house.command(MonitorCommand::Silence(silence)).unwrap();
    }

    fn acknowledge(&mut self) {
        let open = self.house.alerts(true);
        if open.is_empty() {
            return;
        }
        let alert = open[self.dice.below(open.len())].alert.id.clone();
        let (by, comment) = ("anna".to_owned(), String::new());
        // It may end in this very moment.
        let _ = self.house.command(MonitorCommand::Acknowledge { alert, by, comment });
    }

    fn replay(&mut self, until: Timestamp) -> ReplayReport {
        let store = Arc::clone(&self.house.store);
        let all = Timestamp::from_millis(i64::MIN);
        let replay = Replay {
            settings: self.house.settings.clone(),
            services: self.house.services.clone(),
            handlers: vec!["ops".to_owned()],
            since: mcpmon_testkit::START.saturating_sub(Duration::from_secs(10)),
            until,
            only: Default::default(),
            silences: self.house.ask(store.silences(all)).unwrap(),
        };
        self.house.ask(replay.run(&*store)).unwrap()
    }
}

/// What a service needs: usually one before it, sometimes two, sometimes in a circle.
fn needs(dice: &mut Dice, count: usize) -> Vec<&'static str> {
    match dice.below(5) {
        0 | 1 if count > 0 => vec![NAMES[dice.below(count)]],
        2 if count > 1 => vec![NAMES[dice.below(count)], NAMES[dice.below(count)]],
        3 if count == 0 && dice.below(4) == 0 => vec![NAMES[1]],
        _ => Vec::new(),
    }
}

fn maintenance(dice: &mut Dice, start: Timestamp) -> MaintenanceWindow {
    let begin = start.saturating_add(Duration::from_secs(dice.between(0, 1_500)));
    let services = vec![NAMES[dice.below(4)].to_owned()];
    MaintenanceWindow { services, ..window(begin, dice.between(20, 600)) }
}

fn rules(dice: &mut Dice) -> Vec<mcpmon_core::settings::RuleSettings> {
    let hold = |dice: &mut Dice| format!("{}s", [0, 5, 20, 60][dice.below(4)]);
    let rules = serde_json::json!([
        { "name": "refused", "when": "failure_code == 'connection_refused'", "level": "info",
          "hold": hold(dice) },
        { "name": "often", "when": "error_rate > 0.3 && error_rate_samples >= 5",
          "window": "5m", "keep_firing": hold(dice), "cooldown": hold(dice) },
        { "name": "slow", "when": "avg_response_time > 0.4", "window": "2m", "hold": hold(dice) },
        { "name": "in_a_row", "when": "consecutive_failures >= 2", "cooldown": "90s" },
        { "name": "hot", "scope": "host", "when": "cpu_percent > 80.0", "hold": hold(dice) },
    ]);
    serde_json::from_value(rules).unwrap()
}

/// When alerts fired and ended, by rule and service, in seconds since the start.
type Spans = BTreeMap<(String, String), Vec<(u64, Option<u64>)>>;
/// How many messages there were, by rule, service and kind.
type Messages = BTreeMap<(String, String, &'static str), usize>;

fn second(at: Timestamp) -> u64 {
    at.since(mcpmon_testkit::START).as_secs()
}

fn lived(run: &Run, until: Timestamp) -> (Spans, Messages) {
    let (mut spans, mut messages) = (Spans::new(), Messages::new());
    let of = |alert: &mcpmon_core::Alert| {
        let service = alert.service_name().map(ToString::to_string).unwrap_or_default();
        (alert.rule_name.clone(), service)
    };
    for record in run.house.alerts(false) {
        let alert = record.alert;
        if alert.timestamp < until && is_compared(&alert.rule_name) {
            let ended = alert.resolved_at.filter(|at| *at < until);
            spans.entry(of(&alert)).or_default().push((second(alert.timestamp), ended.map(second)));
        }
    }
    for (at, queued) in run.store.queued() {
        let notification = queued.notification;
        let (rule, service) = of(&notification.alerts[0]);
        if at < until && is_compared(&rule) {
            *messages.entry((rule, service, notification.kind.as_str())).or_default() += 1;
        }
    }
    (spans, messages)
}

/// Rules about the monitor itself look at what is not stored.
fn is_compared(rule: &str) -> bool {
    !["monitor_offline", "storage_failing", "delivery_failing", "dependency_down"].contains(&rule)
}

fn replayed(report: &ReplayReport) -> (Spans, Messages) {
    let (mut spans, mut messages) = (Spans::new(), Messages::new());
    for alert in &report.alerts {
        let service = alert.service.as_ref().map(ToString::to_string).unwrap_or_default();
        let span = (second(alert.fired_at), alert.resolved_at.map(second));
        spans.entry((alert.rule.clone(), service)).or_default().push(span);
    }
    for message in &report.messages {
        let service = message.service.as_ref().map(ToString::to_string).unwrap_or_default();
        let key = (message.rule.clone(), service, message.kind.as_str());
        *messages.entry(key).or_default() += 1;
    }
    (spans, messages)
}

/// What two maps do not have alike, a line each.
fn difference<K: Ord + std::fmt::Debug, V: PartialEq + std::fmt::Debug>(
    one: &BTreeMap<K, V>,
    other: &BTreeMap<K, V>,
) -> String {
    let keys: std::collections::BTreeSet<&K> = one.keys().chain(other.keys()).collect();
    let unlike = keys.into_iter().filter(|key| one.get(key) != other.get(key));
    let lines = unlike.map(|key| format!("{key:?}: {:?}, {:?}\n", one.get(key), other.get(key)));
    lines.collect()
}

fn run(seed: u64) {
    let mut run = Run::stored(seed);
    (0..25).for_each(|_| run.step());
    compare(run, seed, 400);
}

/// Ends a run after so many seconds in which all is well, and compares it with its replay.
fn compare(mut run: Run, seed: u64, seconds: u64) {
    // Whatever is pending comes to an end before the moment up to which both are compared.
    let names: Vec<String> = run.house.services.iter().map(|spec| spec.name.to_string()).collect();
    for name in &names {
        run.house.fleet.set(name, Behaviour::Well);
        run.house.fleet.set_calls(name, false);
    }
    run.house.wait(seconds);
    let until = run.house.now();
    run.house.wait(30);
    run.house.stop();
    let (alerts, messages) = lived(&run, until);
    let report = run.replay(until);
    let (same_alerts, same_messages) = replayed(&report);
    for spans in [&alerts, &same_alerts] {
        assert!(!spans.is_empty(), "seed {seed}: a run in which nothing fires shows nothing");
    }
    let different = difference(&alerts, &same_alerts);
    assert!(different.is_empty(), "seed {seed}: alerts lived through, and replayed\n{different}");
    let different = difference(&messages, &same_messages);
    assert!(different.is_empty(), "seed {seed}: messages sent, and replayed\n{different}");
}

/// In this one a check begins between the monitor's last look and a sleep.
const CHECK_OVER_A_SLEEP: u64 = 80;

#[test]
fn a_replay_sends_exactly_what_the_monitor_sent() {
    match std::env::var_os("MCPMON_SOAK") {
        Some(_) => (0..200).for_each(run),
        None => (0..11).chain([CHECK_OVER_A_SLEEP]).for_each(run),
    }
}

/// Like [`run`], with processes, with services that are disabled and enabled again, and with restarts
/// of the monitor.
fn run_with_interventions(seed: u64) {
    let mut run = Run::with_processes(seed);
    for _ in 0..25 {
        run.intervene();
        run.step();
    }
    // What cannot start is started ten minutes apart at most.
    compare(run, seed, 1_000);
}

#[test]
fn a_replay_knows_crash_loops_restarts_and_services_that_are_disabled() {
    let fleets = if std::env::var_os("MCPMON_SOAK").is_some() { 100 } else { 8 };
    (0..fleets).for_each(run_with_interventions);
}

const OUTSIDE: [&str; 2] = ["tcp://db.test:1", "https://api.test"];

/// Like [`run`], with dependencies that are no services and acknowledgements: neither is stored.
fn run_with_unstored(seed: u64) {
    let mut run = Run::new(seed, &OUTSIDE, false);
    for _ in 0..25 {
        let outside = OUTSIDE[run.dice.below(OUTSIDE.len())];
        match run.dice.below(4) {
            0 => run.house.fleet.set_outside(outside, true),
            1 => run.house.fleet.set_outside(outside, false),
            2 => run.acknowledge(),
            _ => {}
        }
        run.step();
    }
    let until = run.house.now();
    run.house.wait(30);
    run.house.stop();
    let (alerts, messages) = lived(&run, until);
    let report = run.replay(until);
    let (same_alerts, same_messages) = replayed(&report);
    for (key, spans) in &same_alerts {
        let known = alerts.get(key).cloned().unwrap_or_default();
        let is_known = |span: &(u64, Option<u64>)| known.iter().any(|own| own.0 == span.0);
        assert!(
            spans.iter().all(is_known),
            "seed {seed}: one alert more: {key:?} {spans:?} {known:?}"
        );
    }
    let names = |what: &str| report.not_stored.iter().any(|line| line.contains(what));
    if same_alerts != alerts {
        assert!(names("dependencies that are no services"), "seed {seed}: {:?}", report.not_stored);
    }
    if same_messages != messages {
        assert!(names("acknowledgements"), "seed {seed}: {:?}", report.not_stored);
    }
}

#[test]
fn a_replay_without_all_inputs_raises_no_alert_more_and_names_what_it_lacks() {
    let fleets = if std::env::var_os("MCPMON_SOAK").is_some() { 50 } else { 4 };
    (0..fleets).for_each(run_with_unstored);
}
