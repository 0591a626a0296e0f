//! Everything at once and by chance: outages, silences, acknowledgements, maintenance, reloads,
//! handlers in bad moods, restarts and kills. Whatever came of it, the oracle must be content.

use std::collections::BTreeMap;
use std::time::Duration;

use mcpmon_core::alert::Silence;
use mcpmon_core::monitor::MonitorCommand;
use mcpmon_core::{NotificationKind, Timestamp};

use super::fleet::{Behaviour, Dice};
use super::house::{House, Mood};
use super::oracle::{Excuses, verify};
use super::restarts::window;

const SERVICES: [&str; 6] = ["a", "b", "c", "d", "e", "z"];
/// What is down for so long, with nothing that excuses silence, is told.
const PATIENCE: Duration = Duration::from_secs(90);

struct Run {
    house: House,
    dice: Dice,
    excuses: Excuses,
    /// Since when a service has been down, or well, with a monitor looking at it all the time.
    steady_since: BTreeMap<&'static str, Timestamp>,
    maintained_until: Timestamp,
    log: Vec<String>,
}

impl Run {
    fn new(seed: u64) -> Self {
        let mut house = House::new(seed);
        house.settings.monitoring.alert_cooldown = Duration::ZERO;
        house.hire("chat");
        for name in SERVICES {
            // Two of them need the last.
            let needs: &[&str] = if ["d", "e"].contains(&name) { &["z"] } else { &[] };
            house.watch(name, needs);
        }
        house.start();
        let now = house.now();
        Self {
            house,
            dice: Dice::new(seed),
            excuses: Excuses::default(),
            steady_since: SERVICES.map(|name| (name, now)).into(),
            maintained_until: now,
            log: Vec::new(),
        }
    }

    fn note(&mut self, what: &str) {
        let at = self.house.now();
        self.log.push(format!("{at} {what}"));
    }

    fn unsettle(&mut self) {
        let now = self.house.now();
        self.steady_since.values_mut().for_each(|since| *since = now);
    }

    fn behave(&mut self, service: &'static str, behaviour: Behaviour) {
        if self.house.fleet.behaviour(service) == behaviour {
            return;
        }
        self.note(&format!("{service} {behaviour:?}"));
        self.house.fleet.set(service, behaviour);
        let now = self.house.now();
        self.steady_since.insert(service, now);
        if service == "z" {
            self.steady_since.extend([("d", now), ("e", now)]);
        }
    }

    fn step(&mut self) {
        let service = SERVICES[self.dice.below(SERVICES.len())];
        match self.dice.below(14) {
            0..=2 => self.behave(service, Behaviour::Down),
            3..=5 => self.behave(service, Behaviour::Well),
            6 => self.behave(service, Behaviour::Lossy(0.3)),
            7 => self.silence(service),
            8 => self.acknowledge(),
            9 => self.maintain(),
            10 => self.come_or_go(service),
            11 => self.change_mood(),
            12 => self.restart(),
            _ => self.swap_rule(),
        }
        let seconds = self.dice.between(1, 200);
        self.house.wait(seconds);
        self.look();
    }

    fn silence(&mut self, service: &str) {
        let now = self.house.now();
        let span = Duration::from_secs(self.dice.between(30, 600));
        let silence = Silence {
            id: format!("s-{}", self.excuses.silences.len()),
            matchers: [("service_name".to_owned(), service.to_owned())].into(),
            starts_at: now,
            ends_at: now.saturating_add(span),
            by: String::new(),
            comment: String::new(),
        };
        self.note(&format!("silence {service} {span:?}"));
        self.excuses.silences.push(silence.clone());
        self.house.command(MonitorCommand::Silence(silence)).unwrap();
    }

    fn acknowledge(&mut self) {
        let open = self.house.alerts(true);
        if open.is_empty() {
            return;
        }
        let alert = open[self.dice.below(open.len())].alert.id.clone();
        self.note(&format!("ack {alert}"));
        let (by, comment) = ("anna".to_owned(), String::new());
        // It may end in this very moment.
        let _ = self.house.command(MonitorCommand::Acknowledge { alert, by, comment });
    }

    fn maintain(&mut self) {
        let seconds = self.dice.between(60, 400);
        let now = self.house.now();
        self.note(&format!("maintenance of a for {seconds} s"));
        self.house.settings.maintenance = vec![window(now, seconds)];
        self.maintained_until = now.saturating_add(Duration::from_secs(seconds));
        self.house.reload();
        self.unsettle();
    }

    fn come_or_go(&mut self, service: &'static str) {
        let known = self.house.services.iter().position(|spec| spec.name.as_str() == service);
        self.note(&format!("{service} {}", if known.is_some() { "goes" } else { "comes" }));
        match known {
            Some(at) => drop(self.house.services.remove(at)),
            None => {
                let needs: &[&str] = if ["d", "e"].contains(&service) { &["z"] } else { &[] };
                self.house.watch(service, needs);
            }
        }
        self.house.reload();
        self.unsettle();
    }

    fn change_mood(&mut self) {
        let moods = [Mood::SaysLater, Mood::Hangs, Mood::Takes, Mood::Takes];
        let mood = moods[self.dice.below(moods.len())];
        let witness = self.house.witnesses[self.dice.below(2)].clone();
        self.note(&format!("{} {mood:?}", mcpmon_core::Handler::name(&witness)));
        witness.is(mood);
    }

    fn restart(&mut self) {
        let rest = self.dice.between(0, 120);
        let how = self.dice.below(3);
        self.note(&format!("restart {how} rest {rest}"));
        match how {
            0 => self.house.stop(),
            1 => self.house.drop_it(),
            _ => self.house.kill(),
        }
        self.house.rest(rest);
        self.house.start();
        self.unsettle();
    }

    /// A rule beside the built-in ones comes or goes.
    fn swap_rule(&mut self) {
        self.note("the rule comes or goes");
        let rules = &mut self.house.settings.rules;
        if rules.pop().is_none() {
            let rule = serde_json::json!({
                "name": "not_well", "when": "status == \"stopped\"", "level": "info",
            });
            rules.push(serde_json::from_value(rule).unwrap());
        }
        self.house.reload();
    }

    /// What is down for long is told, or an alert of it says why not; what is well for long has no
    /// alert that it is down.
    fn look(&self) {
        let now = self.house.now();
        let open = self.house.alerts(true);
        let watched =
            |name: &str| self.house.services.iter().any(|spec| spec.name.as_str() == name);
        for name in SERVICES.iter().filter(|name| watched(name)) {
            if now.since(self.steady_since[name]) < PATIENCE {
                continue;
            }
            let margin = self.maintained_until.saturating_add(PATIENCE);
            if *name == "a" && now < margin {
                continue;
            }
            let alerts: Vec<&str> = open
                .iter()
                .filter(|record| record.alert.service_name().is_some_and(|of| of.as_str() == *name))
                .map(|record| record.alert.rule_name.as_str())
                .collect();
            let needs_z = ["d", "e"].contains(name);
            let z_is_well = self.house.fleet.behaviour("z") == Behaviour::Well
                && now.since(self.steady_since["z"]) >= PATIENCE;
            // What nobody watches holds up nobody's alerts.
            let is_told = !needs_z || z_is_well || !watched("z");
            let is_clear = !needs_z || z_is_well;
            match self.house.fleet.behaviour(name) {
                Behaviour::Down if is_told => {
                    let told = alerts.contains(&"service_down") || self.heard_of_flapping(name);
                    assert!(told, "{name} is down and no alert says so at {now}");
                }
                Behaviour::Well if is_clear && !alerts.contains(&"flapping") => {
                    assert!(!alerts.contains(&"service_down"), "{name} is well at {now}");
                }
                _ => {}
            }
        }
    }

    /// Whether anybody heard that it flaps, or would not listen.
    fn heard_of_flapping(&self, service: &str) -> bool {
        self.house.witnesses.iter().any(|witness| {
            witness.mood() != Mood::Takes
                || witness.told_of("flapping").iter().any(|told| told.contains(service))
        })
    }

    /// All is well again, everybody listens, and so it stays until nothing fires.
    fn settle(&mut self) {
        self.house.settings.maintenance.clear();
        for name in SERVICES {
            self.behave(name, Behaviour::Well);
            if !self.house.services.iter().any(|spec| spec.name.as_str() == name) {
                let needs: &[&str] = if ["d", "e"].contains(&name) { &["z"] } else { &[] };
                self.house.watch(name, needs);
            }
        }
        self.house.witnesses.iter().for_each(|witness| witness.is(Mood::Takes));
        self.house.reload();
        // What flapped is quiet for half an hour; what could not be told is tried every 5 minutes.
        self.house.wait(3_600);
    }
}

/// Says what happened when a run fails.
#[expect(clippy::print_stderr, reason = "what a failed run did is what is to be seen of it")]
fn tell_story(seed: u64, log: &[String]) {
    eprintln!("seed {seed}:\n{}", log.join("\n"));
}

fn run(seed: u64, steps: usize) {
    let mut run = Run::new(seed);
    let told = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        (0..steps).for_each(|_| run.step());
        run.settle();
        verify(&mut run.house, &run.excuses);
    }));
    if let Err(panic) = told {
        tell_story(seed, &run.log);
        std::panic::resume_unwind(panic);
    }
    let messages = run.house.ops().heard();
    let firing = messages.iter().filter(|(_, told)| told.kind == NotificationKind::Firing);
    assert!(firing.count() > 0, "a run in which nothing happens shows nothing");
}

#[test]
fn whatever_happens_everybody_is_told_once_and_nothing_is_forgotten() {
    let (runs, steps) = if std::env::var_os("MCPMON_SOAK").is_some() { (400, 80) } else { (5, 30) };
    (0..runs).for_each(|seed| run(seed, steps));
}
