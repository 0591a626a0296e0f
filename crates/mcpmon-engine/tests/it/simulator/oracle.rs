//! What has to come true, whatever happened: who was told of an alert is told of its end, nobody is
//! told anything twice, nothing is left waiting, and a fresh alert gets through.

use std::collections::BTreeMap;
use std::time::Duration;

use mcpmon_core::alert::{Alert, Silence};
use mcpmon_core::{NotificationKind, Timestamp};

use mcpmon_alert::{DELIVERY_FAILING, FLAPPING, SERVICE_DOWN};

use super::fleet::Behaviour;
use super::house::{House, Mood, Witness};

/// What a run did that excuses silence.
#[derive(Debug, Default)]
pub(crate) struct Excuses {
    pub(crate) silences: Vec<Silence>,
    /// Somebody was not there to be told: who, from when, until when.
    pub(crate) absences: Vec<(String, Timestamp, Timestamp)>,
    /// Messages that were given up because somebody would not take them, or was gone.
    pub(crate) may_give_up: bool,
}

impl Excuses {
    /// Whether a silence lay over all of an alert.
    fn silenced(&self, alert: &Alert) -> bool {
        let end = alert.resolved_at.unwrap_or(alert.timestamp);
        // What flapped is said to for half an hour more; its condition may be over before.
        let lingers = if alert.rule_name == FLAPPING { 1_800 } else { 0 };
        self.silences.iter().any(|silence| {
            // It is looked at once a second.
            let late = silence.ends_at.saturating_add(Duration::from_secs(2 + lingers));
            silence.covers(&alert.key(), alert.level, &alert.labels, alert.timestamp) && late >= end
        })
    }

    fn absent(&self, witness: &str, at: Timestamp, until: Timestamp) -> bool {
        let overlaps = |from: &Timestamp, to: &Timestamp| *from <= until && at <= *to;
        self.absences.iter().any(|(name, from, to)| name == witness && overlaps(from, to))
    }
}

/// What a witness heard of one alert.
#[derive(Debug, Default)]
struct Heard {
    begun: Vec<Timestamp>,
    ended: Vec<Timestamp>,
}

fn heard(witness: &Witness) -> BTreeMap<String, Heard> {
    let mut heard: BTreeMap<String, Heard> = BTreeMap::new();
    for (at, told) in witness.heard() {
        if matches!(told.kind, NotificationKind::Reminder | NotificationKind::Acknowledged) {
            continue;
        }
        for alert in &told.alerts {
            let known = heard.entry(alert.id.clone()).or_default();
            match alert.resolved_at {
                None => known.begun.push(at),
                Some(_) => known.ended.push(at),
            }
        }
    }
    heard
}

/// Holds a run to its obligations. The cooldown of the run must be nothing, so that every alert is
/// to be told; every service must be well, for long enough that nothing fires.
pub(crate) fn verify(house: &mut House, excuses: &Excuses) {
    let alerts = house.alerts(false);
    for record in &alerts {
        let alert = &record.alert;
        assert!(alert.resolved_at.is_some(), "all is well, and still fires: {alert:?}");
    }
    let mut doubles = 0;
    for witness in house.witnesses.clone() {
        let name = mcpmon_core::Handler::name(&witness).to_owned();
        let mut heard = heard(&witness);
        for record in &alerts {
            let alert = &record.alert;
            let end = alert.resolved_at.expect("checked above");
            let known = heard.remove(&alert.id).unwrap_or_default();
            doubles += known.begun.len().saturating_sub(1) + known.ended.len().saturating_sub(1);
            let told = !known.begun.is_empty() || !known.ended.is_empty();
            let was_absent = excuses.absent(&name, alert.timestamp, end);
            if !told {
                // Nobody is told of themselves that they cannot be told.
                let is_their_own = alert.rule_name == DELIVERY_FAILING
                    && alert.subject.handler().is_some_and(|of| of == name);
                let excused = excuses.silenced(alert) || was_absent || is_their_own;
                assert!(excused, "`{name}` was never told of {alert:?}");
                continue;
            }
            let is_told_its_end = !known.ended.is_empty() || was_absent;
            assert!(is_told_its_end, "`{name}` was not told the end of {alert:?}");
            if let (Some(begun), Some(ended)) = (known.begun.last(), known.ended.first()) {
                assert!(begun <= ended, "`{name}` heard the end of {alert:?} before its beginning");
            }
        }
        assert!(heard.is_empty(), "`{name}` was told of alerts there were not: {heard:?}");
        let far = Timestamp::from_millis(i64::MAX);
        let waiting = house.ask(house.store.due(&name, far, 100)).unwrap();
        assert!(waiting.is_empty(), "`{name}` is still to be told: {waiting:?}");
    }
    assert!(doubles <= house.kills, "{doubles} messages came twice after {} kills", house.kills);
    let dead = house.ask(house.store.dead_letters(10)).unwrap();
    assert!(excuses.may_give_up || dead.is_empty(), "given up: {dead:?}");
    a_fresh_alert_gets_through(house);
}

fn a_fresh_alert_gets_through(house: &mut House) {
    house.witnesses.iter().for_each(|witness| witness.is(Mood::Takes));
    house.watch("fresh", &[]);
    house.fleet.set("fresh", Behaviour::Down);
    house.reload();
    let before: Vec<usize> = house.witnesses.iter().map(|w| w.heard().len()).collect();
    house.wait(60);
    house.fleet.set("fresh", Behaviour::Well);
    house.wait(60);
    for (witness, before) in house.witnesses.iter().zip(before) {
        let heard = witness.heard().split_off(before);
        let fresh: Vec<&str> = heard
            .iter()
            .filter(|(_, told)| {
                told.alerts.iter().any(|alert| {
                    let is_down = alert.rule_name == SERVICE_DOWN;
                    is_down && alert.service_name().is_some_and(|name| name.as_str() == "fresh")
                })
            })
            .map(|(_, told)| told.kind.as_str())
            .collect();
        assert_eq!(fresh, ["firing", "resolved"], "a fresh alert gets through");
    }
}
