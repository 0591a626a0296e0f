//! `kill -9` between deciding, sending and recording: nothing is lost, and only what the far side
//! had taken while nobody knew it comes once more. Ten kills in CI, two hundred with
//! `MCPMON_SOAK=1`.

use std::collections::BTreeMap;
use std::time::Duration;

use mcpmon_core::Timestamp;
use mcpmon_core::store::IncidentLog as _;
use mcpmon_store::SqliteStore;
use mcpmon_testkit::{ChildGuard, FixtureServer, Stream};
use tokio::task::{JoinSet, LocalSet};

use super::far_sides::{News, Told};
use super::hook::{Hook, Says};
use crate::home::{Home, until};

const PATIENCE: Duration = Duration::from_secs(120);
/// Kills in each lane; one service falls and rises for each two.
const CI: (usize, usize) = (5, 2);
const SOAK: (usize, usize) = (8, 25);

/// Where the monitor dies, and whether the message it was about must come once more.
const POINTS: [(&str, bool); 6] = [
    ("before_commit", false),
    ("after_commit", false),
    ("before_send", false),
    (IN_THE_MIDDLE, true),
    ("after_send", true),
    ("after_settle", false),
];
/// The far side has it, and its answer is not read: the test itself kills.
const IN_THE_MIDDLE: &str = "while_sending";

/// One monitor that is killed again and again, and the far side it tells.
struct Lane {
    home: Home,
    services: Vec<FixtureServer>,
    hook: Hook,
    up: ChildGuard,
}

impl Lane {
    async fn open(kills: usize) -> Self {
        let hook = Hook::open(&[]).await;
        let home = Home::new();
        let home = {
            let armed = home.path().join("failpoint").display().to_string();
            home.with_env("MCPMON_FAILPOINT_FILE", armed)
        };
        let mut toml = format!(
            "[monitoring]\ncheck_interval = \"1s\"\nhealth_check_retries = 1\n\
             [service_monitoring]\nmax_consecutive_failures = 1\nmax_consecutive_successes = 2\n\
             [performance_monitoring]\nenabled = false\n\
             [[handlers]]\nname = \"ops\"\ntype = \"webhook\"\nurl = \"{}\"\n\
             [[routes]]\nrules = [\"service_down\"]\nhandlers = [\"ops\"]\n",
            hook.url()
        );
        let mut services = Vec::new();
        // One more, for the alert at the end.
        for number in 0..=kills.div_ceil(2) {
            let server = FixtureServer::start().await;
            toml.push_str(&format!("[services.s{number}]\nurl = \"{}\"\n", server.url()));
            services.push(server);
        }
        home.configure(toml);
        let up = home.start(&["up"]);
        let lane = Self { home, services, hook, up };
        until("every service to run", PATIENCE, async || {
            let status = lane.home.status().await?;
            (status["summary"]["running"] == lane.services.len()).then_some(())
        })
        .await;
        lane
    }

    fn arm(&self, point: &str) {
        self.home.write("failpoint", point);
        self.hook.says(if point == IN_THE_MIDDLE { Says::TakesInSilence } else { Says::Well });
    }

    /// Messages with this news of this service.
    fn told(&self, service: usize, news: News) -> Vec<Told> {
        let service = format!("s{service}");
        let mut told = self.hook.told();
        told.retain(|told| told.subject == service && told.news == news);
        told
    }

    async fn wait_for(&self, service: usize, news: News, count: usize) {
        until(&format!("{news:?} of s{service}, {count} times"), PATIENCE, async || {
            (self.told(service, news).len() >= count).then_some(())
        })
        .await;
    }

    /// Waits until nothing is left to send or to strike out.
    async fn settled(&self) {
        until("everything to be struck out", PATIENCE, async || {
            let store = SqliteStore::reader(self.home.database()).ok()?;
            let ever = Timestamp::from_millis(i64::MAX);
            store.due("ops", ever, 1).await.ok()?.is_empty().then_some(())
        })
        .await;
    }

    async fn flip(&mut self, kill: usize) -> (usize, News) {
        let service = kill / 2;
        if kill.is_multiple_of(2) {
            self.services[service].stop().await;
            (service, News::Firing)
        } else {
            self.services[service].restart().await;
            (service, News::Resolved)
        }
    }

    /// Has the monitor die at a point, in the middle of telling what is flipped.
    async fn die(&mut self, kill: usize, point: &str) -> (usize, News) {
        self.arm(point);
        let (service, news) = self.flip(kill).await;
        if point == IN_THE_MIDDLE {
            self.wait_for(service, news, 1).await;
            self.up.kill().await.unwrap();
        } else {
            let died = tokio::time::timeout(PATIENCE, self.up.wait_at_most(PATIENCE)).await;
            let status = died.unwrap().unwrap_or_else(|_| {
                panic!("{point} was not passed: {}", self.up.written(Stream::Err))
            });
            assert!(!status.success() && status.code().is_none(), "{point}: {status:?}");
        }
        self.arm("");
        (service, news)
    }

    /// Gives, for each point, how often the monitor died there and how many messages came once
    /// more.
    async fn run(mut self, first: usize, kills: usize) -> BTreeMap<&'static str, (usize, usize)> {
        let mut tally = BTreeMap::new();
        for kill in 0..kills {
            let (point, comes_again) = POINTS[(first + kill) % POINTS.len()];
            self.settled().await;
            let (service, news) = self.die(kill, point).await;
            self.up = self.home.start(&["up"]);
            let expected = 1 + usize::from(comes_again);
            self.wait_for(service, news, expected).await;
            let (deaths, _) = tally.entry(point).or_insert((0, 0));
            *deaths += 1;
        }
        // A fresh one gets through, behind whatever was left to come.
        self.settled().await;
        let fresh = self.services.len() - 1;
        self.services[fresh].stop().await;
        self.wait_for(fresh, News::Firing, 1).await;
        for kill in 0..kills {
            let (point, comes_again) = POINTS[(first + kill) % POINTS.len()];
            let news = if kill.is_multiple_of(2) { News::Firing } else { News::Resolved };
            let told = self.told(kill / 2, news);
            assert_eq!(told.len(), 1 + usize::from(comes_again), "{point}: {told:#?}");
            assert!(told.iter().all(|again| again.key == told[0].key), "{point}: {told:#?}");
            tally.entry(point).or_insert((0, 0)).1 += told.len() - 1;
        }
        tally
    }
}

#[tokio::test]
async fn a_monitor_killed_anywhere_between_deciding_and_recording_loses_nothing() {
    let (lanes, kills) = if std::env::var_os("MCPMON_SOAK").is_some() { SOAK } else { CI };
    let mut all: BTreeMap<&str, (usize, usize)> = BTreeMap::new();
    let here = LocalSet::new();
    here.run_until(async {
        let mut running = JoinSet::new();
        for lane in 0..lanes {
            running
                .spawn_local(async move { Lane::open(kills).await.run(lane * kills, kills).await });
        }
        while let Some(tally) = running.join_next().await {
            for (point, (deaths, doubles)) in tally.unwrap() {
                let sum = all.entry(point).or_default();
                *sum = (sum.0 + deaths, sum.1 + doubles);
            }
        }
    })
    .await;
    for (point, (deaths, doubles)) in &all {
        println!("{point}: {deaths} kills, 0 messages lost, {doubles} came twice");
    }
    assert_eq!(all.values().map(|(deaths, _)| deaths).sum::<usize>(), lanes * kills);
}
