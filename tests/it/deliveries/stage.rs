//! Plays a declared time line: at these moments somebody falls or rises, and between those somebody
//! is told.
//!
//! Windows are as wide as a loaded machine needs: a run ends as soon as everything was seen, so only
//! one that fails takes their length. What must not come is caught all the same, since everything
//! that came is compared with what was declared, after a fresh alert went through behind it.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::Duration;

use mcpmon_testkit::{ChildGuard, FixtureServer, Stream};
use tokio::time::Instant;

use super::far_sides::{FarSide, News, Told};
use super::hook::Says;
use crate::home::{Home, until};

const PATIENCE: Duration = Duration::from_secs(90);
/// The service that falls at the end of every line.
const FRESH: &str = "fresh";

/// Something that is done at a moment.
#[derive(Debug, Clone)]
pub(super) enum Deed {
    /// A service is gone: nothing listens where it was.
    Falls(&'static str),
    /// It is back.
    Rises(&'static str),
    /// A web hook answers so from now on.
    Says(&'static str, Says),
    /// A far side is gone, as after `kill -9`.
    Goes(&'static str),
    /// It is back where it was, with these options in place of its own.
    Comes(&'static str, Vec<String>),
    /// The monitor is gone, as after `kill -9`.
    MonitorDies,
    /// It is started again.
    MonitorStarts,
}

/// One line of a time line. Times are seconds since every service was seen running.
#[derive(Debug, Clone)]
pub(super) enum Entry {
    At(f64, Deed),
    Between(f64, f64, Obligation),
    /// What cannot be avoided: so many messages come once more, under the same key.
    Doubles(&'static str, usize),
}

/// One far side learns one thing, once.
#[derive(Debug, Clone)]
pub(super) struct Obligation {
    far_side: &'static str,
    news: News,
    rule: &'static str,
    subject: String,
}

pub(super) fn at(second: f64, deed: Deed) -> Entry {
    Entry::At(second, deed)
}

pub(super) fn between(from: f64, to: f64, obligation: Obligation) -> Entry {
    Entry::Between(from, to, obligation)
}

/// That a service is down.
pub(super) fn down(far_side: &'static str, service: &'static str) -> Obligation {
    Obligation { far_side, news: News::Firing, rule: "service_down", subject: service.to_owned() }
}

/// That it is not any more.
pub(super) fn over(far_side: &'static str, service: &'static str) -> Obligation {
    Obligation { far_side, news: News::Resolved, rule: "service_down", subject: service.to_owned() }
}

/// What an alert about a handler is about, apart from a service of the handler's name.
pub(super) fn of_handler(handler: &str) -> String {
    format!("handler {handler}")
}

/// That a handler does not get through.
pub(super) fn mute(far_side: &'static str, handler: &'static str) -> Obligation {
    Obligation {
        far_side,
        news: News::Firing,
        rule: "delivery_failing",
        subject: of_handler(handler),
    }
}

/// That it gets through again.
pub(super) fn heard(far_side: &'static str, handler: &'static str) -> Obligation {
    Obligation {
        far_side,
        news: News::Resolved,
        rule: "delivery_failing",
        subject: of_handler(handler),
    }
}

/// The monitor, its services and its far sides.
pub(super) struct Stage {
    pub(super) home: Home,
    services: BTreeMap<&'static str, FixtureServer>,
    far_sides: BTreeMap<&'static str, FarSide>,
    /// Tables of the configuration beside those for services and far sides.
    more: String,
    up: Option<ChildGuard>,
}

impl Stage {
    pub(super) async fn new(services: &[&'static str]) -> Self {
        let mut running = BTreeMap::new();
        for name in services.iter().copied().chain([FRESH]) {
            running.insert(name, FixtureServer::start().await);
        }
        Self {
            home: Home::new(),
            services: running,
            far_sides: BTreeMap::new(),
            more: String::new(),
            up: None,
        }
    }

    pub(super) fn with(mut self, name: &'static str, far_side: FarSide) -> Self {
        self.far_sides.insert(name, far_side);
        self
    }

    pub(super) fn configured(mut self, toml: &str) -> Self {
        self.more.push_str(toml);
        self
    }

    pub(super) fn with_env(mut self, name: &str, value: impl Into<String>) -> Self {
        self.home = self.home.with_env(name, value);
        self
    }

    pub(super) fn far_side(&self, name: &str) -> &FarSide {
        &self.far_sides[name]
    }

    /// Writes the configuration that commands in [`Stage::home`] find.
    pub(super) fn configure(&self) {
        let mut toml = String::from(
            r#"
[monitoring]
check_interval = "1s"
health_check_retries = 1

[service_monitoring]
status_check_interval = "1s"
max_consecutive_failures = 1
max_consecutive_successes = 2   # a server that goes may answer once more on a line it has

[performance_monitoring]      # a loaded machine must not add alerts of its own
enabled = false
response_time_threshold = "30s"
"#,
        );
        for (name, server) in &self.services {
            let _ = writeln!(toml, "[services.{name}]\nurl = \"{}\"", server.url());
        }
        for (name, far_side) in &self.far_sides {
            toml.extend(far_side.handler(name));
        }
        toml.push_str(&self.more);
        self.home.configure(toml);
    }

    /// Starts the monitor and waits until it sees every service running.
    async fn begin(&mut self) {
        self.configure();
        self.start();
        until("every service to run", PATIENCE, async || {
            let status = self.home.status().await?;
            let summary = &status["summary"];
            (summary["total"] == self.services.len() && summary["running"] == summary["total"])
                .then_some(())
        })
        .await;
    }

    fn start(&mut self) {
        self.up = Some(self.home.start(&["up"]));
    }

    /// Plays the line, then has a fresh alert go through, then compares what came with what was
    /// declared.
    pub(super) async fn play(&mut self, line: &[Entry]) {
        self.begin().await;
        let begun = Instant::now();
        let mut deeds: Vec<(f64, Deed)> = line
            .iter()
            .filter_map(|entry| match entry {
                Entry::At(second, deed) => Some((*second, deed.clone())),
                _ => None,
            })
            .collect();
        deeds.sort_by(|(one, _), (other, _)| other.total_cmp(one));
        loop {
            let second = begun.elapsed().as_secs_f64();
            while let Some((_, deed)) = deeds.pop_if(|(at, _)| *at <= second) {
                self.act(deed).await;
            }
            let owed = self.judge(line, begun).owed;
            if deeds.is_empty() && owed.iter().all(|(to, _)| *to < second) {
                break;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        self.see_fresh().await;
        let judged = self.judge(line, begun);
        assert!(
            judged.owed.is_empty() && judged.unwanted.is_empty(),
            "never told, or not in time: {:#?}\nnot declared: {:#?}\n{}",
            judged.owed,
            judged.unwanted,
            self.account(begun)
        );
    }

    async fn act(&mut self, deed: Deed) {
        match deed {
            Deed::Falls(name) => self.service(name).stop().await,
            Deed::Rises(name) => self.service(name).restart().await,
            Deed::Says(name, says) => self.far_sides[name].says(says),
            Deed::Goes(name) => self.far_sides.get_mut(name).unwrap().stop().await,
            Deed::Comes(name, options) => {
                self.far_sides.get_mut(name).unwrap().start(&options).await;
            }
            Deed::MonitorDies => {
                self.up.take().unwrap().kill().await.unwrap();
            }
            Deed::MonitorStarts => self.start(),
        }
    }

    fn service(&mut self, name: &str) -> &mut FixtureServer {
        self.services.get_mut(name).unwrap()
    }

    /// What is told now is told behind everything that was told before.
    async fn see_fresh(&mut self) {
        self.service(FRESH).stop().await;
        let begun = Instant::now();
        loop {
            let misses = |far_side: &&FarSide| !far_side.told().iter().any(is_fresh);
            let missing = self.far_sides.values().filter(misses).count();
            if missing == 0 {
                return;
            }
            assert!(
                begun.elapsed() < PATIENCE,
                "a fresh alert did not reach {missing} of the far sides\n{}",
                self.account(begun)
            );
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    fn judge(&self, line: &[Entry], begun: Instant) -> Judged {
        let mut judged = Judged::default();
        let mut told: BTreeMap<&str, Vec<Told>> = self
            .far_sides
            .iter()
            .map(|(name, far_side)| {
                (*name, far_side.told().into_iter().filter(|told| !is_fresh(told)).collect())
            })
            .collect();
        let mut met: BTreeMap<&str, Vec<Told>> = BTreeMap::new();
        for entry in line {
            let Entry::Between(from, to, obligation) = entry else { continue };
            let arrived = told.get_mut(obligation.far_side).unwrap();
            let meets = |told: &Told| {
                let second = told.at.saturating_duration_since(begun).as_secs_f64();
                obligation.is(told) && *from <= second && second <= *to
            };
            match arrived.iter().position(meets) {
                Some(place) => {
                    met.entry(obligation.far_side).or_default().push(arrived.remove(place));
                }
                None => judged.owed.push((*to, obligation.clone())),
            }
        }
        for (name, rest) in told {
            let allowed = line.iter().filter_map(|entry| match entry {
                Entry::Doubles(far_side, count) if *far_side == name => Some(*count),
                _ => None,
            });
            let mut allowed: usize = allowed.sum();
            for told in rest {
                let again = met.get(name).into_iter().flatten().any(|met| met.says_as(&told));
                if again && allowed > 0 {
                    allowed -= 1;
                } else {
                    judged.unwanted.push((name.to_owned(), told));
                }
            }
        }
        judged
    }

    /// Everything that came, and what the monitor said of it.
    fn account(&self, begun: Instant) -> String {
        let mut account = String::from("what came:\n");
        for (name, far_side) in &self.far_sides {
            for told in far_side.told() {
                let second = told.at.saturating_duration_since(begun).as_secs_f64();
                let Told { news, rule, subject, key, .. } = &told;
                let _ = writeln!(account, "{second:7.2} {name}: {news:?} {rule} {subject} ({key})");
            }
        }
        if let Some(up) = &self.up {
            let _ = writeln!(account, "the monitor: {}", up.written(Stream::Err));
        }
        account
    }
}

#[derive(Debug, Default)]
struct Judged {
    /// With the second until which it was to be met.
    owed: Vec<(f64, Obligation)>,
    unwanted: Vec<(String, Told)>,
}

impl Obligation {
    fn is(&self, told: &Told) -> bool {
        (self.news, self.rule, &self.subject) == (told.news, told.rule.as_str(), &told.subject)
    }
}

impl Told {
    /// Whether the far side can tell that it is the same message.
    fn says_as(&self, other: &Self) -> bool {
        (self.news, &self.rule, &self.subject, &self.key)
            == (other.news, &other.rule, &other.subject, &other.key)
    }
}

fn is_fresh(told: &Told) -> bool {
    told.subject == FRESH
}
