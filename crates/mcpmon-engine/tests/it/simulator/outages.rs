//! Runs of one kind of trouble each: what is told, and that nothing else is.

use std::time::Duration;

use mcpmon_core::NotificationKind;

use super::fleet::Behaviour;
use super::house::House;
use super::oracle::{Excuses, verify};

/// How long troubles of the network last: a day in full, a few hours of it else.
fn long() -> u64 {
    if std::env::var_os("MCPMON_SOAK").is_some() { 86_400 } else { 3 * 3_600 }
}

const HALF_AN_HOUR: u64 = 1_800;

#[test]
fn two_hundred_services_whose_dependency_dies_are_one_alert_and_one_recovery() {
    let mut house = House::new(1);
    house.settings.monitoring.alert_cooldown = Duration::ZERO;
    house.watch("db", &[]);
    (0..200).for_each(|n| house.watch(&format!("s{n:03}"), &["db"]));
    house.start();
    house.wait(60);
    house.fleet.set("db", Behaviour::Down);
    house.wait(600);
    let ops = house.ops();
    assert_eq!(ops.told_of("service_down"), ["firing db fires x1"]);
    house.fleet.set("db", Behaviour::Well);
    house.wait(600);
    assert_eq!(ops.told_of("service_down"), ["firing db fires x1", "resolved db ended x1"]);
    assert_eq!(ops.heard().len(), 2, "nothing else is told");
    verify(&mut house, &Excuses::default());
}

#[test]
fn a_slow_death_of_a_dependency_is_one_alert_too() {
    // The dependents notice first, since the dependency is asked seldom and hangs.
    for late in [0, 9] {
        let mut house = House::new(late);
        house.watch("db", &[]);
        house.services[0].limits.check_interval = Duration::from_secs(60);
        house.services[0].limits.status_check_interval = Duration::from_secs(60);
        (0..20).for_each(|n| house.watch(&format!("s{n:02}"), &["db"]));
        house.start();
        house.wait(60 + late);
        house.fleet.set("db", Behaviour::Mute);
        house.wait(250);
        assert_eq!(house.ops().told_of("service_down"), ["firing db fires x1"], "{late}");
    }
}

#[test]
fn what_is_down_of_itself_is_told_although_its_dependency_is_well() {
    let mut house = House::new(2);
    house.watch("db", &[]);
    house.watch("a", &["db"]);
    house.start();
    house.wait(60);
    house.fleet.set("a", Behaviour::Down);
    house.wait(30);
    assert_eq!(house.ops().told_of("service_down"), ["firing a fires x1"]);
}

#[test]
fn what_stays_down_after_its_dependency_is_back_is_told_then() {
    let mut house = House::new(3);
    house.settings.monitoring.alert_cooldown = Duration::ZERO;
    house.watch("db", &[]);
    house.watch("a", &["db"]);
    house.start();
    house.wait(60);
    house.fleet.set("db", Behaviour::Down);
    house.fleet.set("a", Behaviour::Down);
    house.wait(300);
    house.fleet.set("db", Behaviour::Well);
    house.wait(60);
    let told = house.ops().told_of("service_down");
    assert_eq!(told, ["firing db fires x1", "resolved db ended x1", "firing a fires x1"]);
    house.fleet.set("a", Behaviour::Well);
    house.wait(60);
    verify(&mut house, &Excuses::default());
}

#[test]
fn an_alert_from_before_its_dependency_failed_still_resolves() {
    let mut house = House::new(4);
    house.settings.monitoring.alert_cooldown = Duration::ZERO;
    house.watch("db", &[]);
    house.watch("a", &["db"]);
    house.services[1].depends_on = vec!["db".to_owned()];
    house.start();
    house.wait(60);
    house.fleet.set("a", Behaviour::Down);
    house.wait(60);
    house.fleet.set("db", Behaviour::Down);
    house.wait(60);
    let ops = house.ops();
    assert_eq!(ops.told_of("service_down"), ["firing a fires x1", "firing db fires x1"]);
    // It is back although what it depends on is not.
    house.fleet.set_need("a", "nothing");
    house.fleet.set("a", Behaviour::Well);
    house.wait(60);
    assert_eq!(ops.told_of("service_down").last().unwrap(), "resolved a ended x1");
    house.fleet.set("db", Behaviour::Well);
    house.wait(60);
    verify(&mut house, &Excuses::default());
}

/// A long time of services that behave so, checked every 30 s.
fn a_long_time_of(behaviour: Behaviour, services: usize, seed: u64) -> House {
    let mut house = House::new(seed);
    house.settings.monitoring.check_interval = Duration::from_secs(30);
    (0..services).for_each(|n| house.watch(&format!("s{n}"), &[]));
    house.start();
    house.wait(600);
    (0..services).for_each(|n| house.fleet.set(&format!("s{n}"), behaviour));
    house.wait(long());
    house
}

#[test]
fn lost_checks_whose_repetition_is_good_are_no_outage() {
    let house = a_long_time_of(Behaviour::LossyThenGood(0.3), 4, 5);
    assert_eq!(house.ops().told_of("service_down").len(), 0);
}

/// Of each service, how many alerts of these rules there were.
fn counts(house: &House, rule: &str) -> Vec<usize> {
    let alerts = house.alerts(false);
    house
        .services
        .iter()
        .map(|spec| {
            let of_it = alerts.iter().filter(|record| {
                record.alert.rule_name == rule && record.alert.service_name() == Some(&spec.name)
            });
            of_it.count()
        })
        .collect()
}

#[test]
fn loss_on_every_attempt_is_one_flapping_alert_and_no_outage() {
    let house = a_long_time_of(Behaviour::Lossy(0.3), 10, 6);
    assert_eq!(counts(&house, "service_down"), vec![0; 10]);
    assert_eq!(counts(&house, "flapping"), vec![1; 10]);
}

#[test]
fn a_service_that_toggles_every_two_checks_is_one_flapping_alert() {
    let mut house = House::new(7);
    house.watch("a", &[]);
    house.start();
    house.wait(60);
    house.fleet.set("a", Behaviour::Toggling(2));
    house.wait(2 * 3_600);
    assert_eq!((counts(&house, "flapping"), counts(&house, "service_down")), (vec![1], vec![0]));
    house.fleet.set("a", Behaviour::Well);
    house.wait(2 * HALF_AN_HOUR);
    let told = house.ops().heard();
    let of_flapping: Vec<NotificationKind> = told
        .iter()
        .filter(|(_, told)| told.alerts[0].rule_name == "flapping")
        .filter(|(_, told)| told.kind != NotificationKind::Reminder)
        .map(|(_, told)| told.kind)
        .collect();
    assert_eq!(of_flapping, [NotificationKind::Firing, NotificationKind::Resolved]);
}

#[test]
fn a_storm_of_a_thousand_services_is_told_within_seconds_and_every_obligation_is_met() {
    let mut house = House::new(8);
    house.settings.monitoring.alert_cooldown = Duration::ZERO;
    (0..1_000).for_each(|n| house.watch(&format!("s{n:04}"), &[]));
    house.start();
    house.wait(120);
    (0..1_000).for_each(|n| house.fleet.set(&format!("s{n:04}"), Behaviour::Down));
    house.fleet.wake_all();
    house.wait(400);
    let (ops, alerts) = (house.ops(), house.alerts(false));
    assert_eq!(alerts.len(), 1_000);
    let fired = alerts.iter().map(|record| record.alert.timestamp);
    let (first, last) = (fired.clone().min().unwrap(), fired.max().unwrap());
    // All die in one second; pauses between attempts and places spread what is seen of it.
    assert!(last.since(first) <= Duration::from_secs(6), "a storm: {:?}", last.since(first));
    let told = ops.heard();
    let waited = told[0].0.since(first);
    assert!(waited <= Duration::from_secs(5), "first told after {waited:?}");
    assert!(told.len() <= 3, "{} messages", told.len());
    (0..1_000).for_each(|n| house.fleet.set(&format!("s{n:04}"), Behaviour::Well));
    house.wait(900);
    let told = ops.heard();
    let count = |over: bool| {
        let alerts = told.iter().flat_map(|(_, told)| &told.alerts);
        alerts.filter(|alert| alert.resolved_at.is_some() == over).count()
    };
    assert_eq!((count(false), count(true)), (1_000, 1_000));
    assert!(told.len() <= 10, "{} messages", told.len());
    verify(&mut house, &Excuses::default());
}
