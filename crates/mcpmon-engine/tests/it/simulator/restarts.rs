//! A monitor that is started again, in order or not, repeats nothing and forgets nothing.

use std::time::Duration;

use mcpmon_core::alert::Silence;
use mcpmon_core::monitor::MonitorCommand;
use mcpmon_core::settings::{MaintenanceWindow, RuleSettings};
use mcpmon_core::{NotificationKind, Timestamp};

use super::fleet::Behaviour;
use super::house::House;
use super::oracle::{Excuses, verify};

/// How a life ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    Stopped,
    LetGo,
    Killed,
}

pub(crate) const ENDS: [End; 3] = [End::Stopped, End::LetGo, End::Killed];

/// Ends the monitor and starts it again after a while.
fn again(house: &mut House, end: End, rest: u64) {
    match end {
        End::Stopped => house.stop(),
        End::LetGo => house.drop_it(),
        End::Killed => house.kill(),
    }
    house.rest(rest);
    house.start();
}

/// Every scenario over houses that `make` builds, for each way to end and times without a monitor;
/// in a short form for one of these each.
pub(crate) fn all_over(make: impl Fn() -> House) {
    let soak = std::env::var_os("MCPMON_SOAK").is_some();
    for (end, rest) in ENDS.into_iter().flat_map(|end| [1, 90].map(|rest| (end, rest))) {
        if !soak && ![(End::Stopped, 90), (End::Killed, 1)].contains(&(end, rest)) {
            continue;
        }
        firing(make(), end, rest);
        over_while_nobody_looked(make(), end, rest);
        about_to_be_told(make(), end, rest);
        silenced(make(), end, rest);
        acknowledged(make(), end, rest);
        in_maintenance(make(), end, rest);
        flapping(make(), end, rest);
        suppressed(make(), end, rest);
        removed_meanwhile(make(), end, rest);
        pending(make(), end);
    }
}

fn with(mut house: House, services: &[&str]) -> House {
    house.settings.monitoring.alert_cooldown = Duration::ZERO;
    services.iter().for_each(|name| house.watch(name, &[]));
    house.start();
    house.wait(60);
    house
}

fn firing(house: House, end: End, rest: u64) {
    let mut house = with(house, &["a"]);
    house.fleet.set("a", Behaviour::Down);
    house.wait(60);
    again(&mut house, end, rest);
    house.wait(120);
    again(&mut house, end, rest);
    house.wait(120);
    assert_eq!(house.ops().told_of("service_down"), ["firing a fires x1"], "{end:?} {rest}");
    house.fleet.set("a", Behaviour::Well);
    house.wait(60);
    assert_eq!(house.ops().told_of("service_down").len(), 2);
    verify(&mut house, &Excuses::default());
}

fn over_while_nobody_looked(house: House, end: End, rest: u64) {
    let mut house = with(house, &["a"]);
    house.fleet.set("a", Behaviour::Down);
    house.wait(60);
    let fleet = house.fleet.clone();
    fleet.set("a", Behaviour::Well);
    again(&mut house, end, rest);
    house.wait(60);
    let told = house.ops().told_of("service_down");
    assert_eq!(told, ["firing a fires x1", "resolved a ended x1"], "{end:?} {rest}");
    verify(&mut house, &Excuses::default());
}

/// The alert is written and waits for others of its cause when the monitor ends.
fn about_to_be_told(house: House, end: End, rest: u64) {
    let mut house = with(house, &["a"]);
    house.fleet.set("a", Behaviour::Down);
    while house.alerts(true).is_empty() {
        house.wait(1);
    }
    assert!(house.ops().heard().is_empty(), "it waits for others of its cause");
    again(&mut house, end, rest);
    house.wait(60);
    assert_eq!(house.ops().told_of("service_down"), ["firing a fires x1"], "{end:?} {rest}");
    house.fleet.set("a", Behaviour::Well);
    house.wait(60);
    verify(&mut house, &Excuses::default());
}

fn silence(house: &House, service: &str, seconds: u64) -> Silence {
    Silence {
        id: "s-1".to_owned(),
        matchers: [("service_name".to_owned(), service.to_owned())].into(),
        starts_at: house.now(),
        ends_at: house.now().saturating_add(Duration::from_secs(seconds)),
        by: "me".to_owned(),
        comment: "known".to_owned(),
    }
}

fn silenced(house: House, end: End, rest: u64) {
    let mut house = with(house, &["a", "b"]);
    house.command(MonitorCommand::Silence(silence(&house, "a", 600))).unwrap();
    house.wait(1);
    house.fleet.set("a", Behaviour::Down);
    house.wait(60);
    again(&mut house, end, rest);
    house.wait(200);
    assert!(house.ops().heard().is_empty(), "{end:?} {rest}");
    house.wait(400);
    assert_eq!(house.ops().told_of("service_down"), ["firing a fires x1"], "{end:?} {rest}");
    house.fleet.set("a", Behaviour::Well);
    house.wait(60);
    verify(&mut house, &Excuses::default());
}

fn acknowledged(house: House, end: End, rest: u64) {
    let mut house = house;
    house.settings.monitoring.alert_cooldown = Duration::from_secs(60);
    house.watch("a", &[]);
    house.start();
    house.wait(60);
    house.fleet.set("a", Behaviour::Down);
    house.wait(30);
    let alert = house.alerts(true)[0].alert.id.clone();
    let (by, comment) = ("anna".to_owned(), "on it".to_owned());
    house.command(MonitorCommand::Acknowledge { alert, by, comment }).unwrap();
    house.wait(5);
    again(&mut house, end, rest);
    house.wait(300);
    let ops = house.ops();
    let kinds: Vec<NotificationKind> = ops.heard().iter().map(|(_, told)| told.kind).collect();
    let both = [NotificationKind::Firing, NotificationKind::Acknowledged];
    assert_eq!(kinds, both, "{end:?} {rest}");
    let by: Vec<String> = ops.heard()[1].1.alerts[0]
        .acknowledgements
        .iter()
        .map(|taken_on| format!("{}: {}", taken_on.by, taken_on.comment))
        .collect();
    assert_eq!(by, ["anna: on it"]);
    house.fleet.set("a", Behaviour::Well);
    house.wait(60);
    assert_eq!(ops.heard().last().unwrap().1.kind, NotificationKind::Resolved);
    assert_eq!(ops.heard().len(), 3);
}

/// A window from now on.
pub(crate) fn window(from: Timestamp, seconds: u64) -> MaintenanceWindow {
    let text = from.to_string();
    MaintenanceWindow {
        services: vec!["a".to_owned()],
        labels: std::collections::BTreeMap::new(),
        days: Vec::new(),
        start: None,
        at: Some(text.split('.').next().expect("a moment has a second").to_owned()),
        duration: Duration::from_secs(seconds),
        timezone: Some("UTC".to_owned()),
    }
}

fn in_maintenance(mut house: House, end: End, rest: u64) {
    house.settings.maintenance.push(window(house.now(), 600));
    let mut house = with(house, &["a"]);
    house.fleet.set("a", Behaviour::Down);
    again(&mut house, end, rest);
    house.wait(300);
    assert!(house.ops().heard().is_empty() && house.alerts(false).is_empty(), "{end:?} {rest}");
    house.wait(400);
    assert_eq!(house.ops().told_of("service_down"), ["firing a fires x1"], "{end:?} {rest}");
    house.fleet.set("a", Behaviour::Well);
    house.wait(60);
    verify(&mut house, &Excuses::default());
}

fn flapping(house: House, end: End, rest: u64) {
    let mut house = with(house, &["a"]);
    house.fleet.set("a", Behaviour::Toggling(2));
    house.wait(600);
    again(&mut house, end, rest);
    house.wait(600);
    assert_eq!(house.ops().told_of("flapping"), ["firing a fires x1"], "{end:?} {rest}");
    house.fleet.set("a", Behaviour::Well);
    house.wait(900);
    again(&mut house, end, rest);
    house.wait(1_800);
    let told = ["firing a fires x1", "resolved a ended x1"];
    assert_eq!(house.ops().told_of("flapping"), told, "{end:?} {rest}");
    assert!(house.ops().told_of("service_down").is_empty());
    verify(&mut house, &Excuses::default());
}

fn suppressed(mut house: House, end: End, rest: u64) {
    (0..5).for_each(|n| house.watch(&format!("s{n}"), &["z"]));
    let mut house = with(house, &["z"]);
    house.fleet.set("z", Behaviour::Down);
    house.wait(60);
    again(&mut house, end, rest);
    house.wait(120);
    assert_eq!(house.ops().told_of("service_down"), ["firing z fires x1"], "{end:?} {rest}");
    house.fleet.set("z", Behaviour::Well);
    again(&mut house, end, rest);
    house.wait(120);
    assert_eq!(house.ops().heard().len(), 2, "{end:?} {rest}");
    verify(&mut house, &Excuses::default());
}

fn removed_meanwhile(house: House, end: End, rest: u64) {
    let mut house = with(house, &["a", "b"]);
    house.fleet.set("a", Behaviour::Down);
    house.wait(60);
    house.services.remove(0);
    again(&mut house, end, rest);
    house.wait(30);
    let ops = house.ops();
    let told = ["firing a fires x1", "resolved a ended x1"];
    assert_eq!(ops.told_of("service_down"), told, "{end:?} {rest}");
    let why = ops.heard()[1].1.alerts[0].ended_because.clone();
    assert_eq!(why.as_deref(), Some("no longer monitored"));
    again(&mut house, end, rest);
    house.wait(30);
    assert_eq!(ops.heard().len(), 2, "{end:?} {rest}");
    verify(&mut house, &Excuses::default());
}

/// A condition has to hold for five minutes; those before the restart count.
fn pending(mut house: House, end: End) {
    let rule = serde_json::json!({
        "name": "down_for_long", "when": "status == \"stopped\"", "hold": "5m", "level": "error",
    });
    let rule: RuleSettings = serde_json::from_value(rule).unwrap();
    house.settings.rules.push(rule);
    let mut house = with(house, &["a"]);
    let began = house.now();
    house.fleet.set("a", Behaviour::Down);
    house.wait(150);
    again(&mut house, end, 1);
    house.wait(60);
    assert!(house.ops().told_of("down_for_long").is_empty(), "{end:?}");
    house.wait(180);
    assert_eq!(house.ops().told_of("down_for_long"), ["firing a fires x1"], "{end:?}");
    let heard = house.ops().heard();
    let told = heard.iter().find(|(_, told)| told.alerts[0].rule_name == "down_for_long");
    let after = told.expect("it was told").0.since(began);
    let due = Duration::from_secs(300)..Duration::from_secs(335);
    assert!(due.contains(&after), "{end:?}: told after {after:?}");
    house.fleet.set("a", Behaviour::Well);
    house.wait(60);
    verify(&mut house, &Excuses::default());
}
