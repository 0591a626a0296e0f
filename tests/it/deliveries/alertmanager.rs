//! Debian's Prometheus Alertmanager, alone and as a pair.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use mcpmon_testkit::{ChildGuard, Stream};
use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::far_sides::{FarSide, News, Told};
use super::hook::Hook;
use super::stage::{Deed, Entry, Stage, at, between, down, over};
use crate::home::until;
use crate::peers::{Peer, peer};

const PATIENCE: Duration = Duration::from_secs(60);
/// What it shows is looked at this often; an alert that lapses for longer is seen to.
const LOOK_AGAIN: Duration = Duration::from_millis(100);

/// A running Alertmanager, and what it shows.
pub(super) struct Alertmanager {
    peer: Peer,
    folder: PathBuf,
    /// Flags beside the folder and the addresses.
    flags: Vec<String>,
    address: String,
    cluster: Option<String>,
    running: Option<ChildGuard>,
    told: Arc<Mutex<Vec<Told>>>,
    looking: Option<JoinHandle<()>>,
}

impl Alertmanager {
    /// Starts one that notifies `hook`, with its files in `folder`; of a cluster if it is given a
    /// member of one, or `""` to begin one.
    pub(super) async fn open(
        peer: &Peer,
        folder: &Path,
        hook: &Hook,
        cluster: Option<&str>,
    ) -> Self {
        let folder = folder.to_owned();
        std::fs::create_dir_all(&folder).unwrap();
        let settings = format!(
            "route: {{ receiver: hook, group_by: ['...'], group_wait: 500ms, group_interval: 5s, \
             repeat_interval: 1h }}\nreceivers:\n  - name: hook\n    webhook_configs: [ {{ url: \
             '{}', send_resolved: true }} ]\n",
            hook.url()
        );
        std::fs::write(folder.join("alertmanager.yml"), settings).unwrap();
        // What a member sends is decided this long before it is sent; until then the others may have.
        let mut flags = vec![
            "--cluster.gossip-interval=50ms".to_owned(),
            "--cluster.peer-timeout=2s".to_owned(),
        ];
        if let Some(member) = cluster.filter(|member| !member.is_empty()) {
            flags.push(format!("--cluster.peer={member}"));
        }
        let mut alertmanager = Self {
            peer: peer.clone(),
            folder,
            flags,
            address: "127.0.0.1:0".to_owned(),
            cluster: cluster.map(|_| "127.0.0.1:0".to_owned()),
            running: None,
            told: Arc::default(),
            looking: None,
        };
        alertmanager.start().await;
        alertmanager
    }

    pub(super) async fn start(&mut self) {
        self.stop().await;
        // Its templates are three folders above it; a program of one's own has them built in.
        let beneath = Path::new(&self.peer.command).ancestors().nth(3).unwrap();
        let mut command = tokio::process::Command::new(&self.peer.command);
        command
            .current_dir(beneath)
            .args(&self.peer.args)
            .args(&self.flags)
            .arg(format!("--config.file={}", self.folder.join("alertmanager.yml").display()))
            .arg(format!("--storage.path={}", self.folder.join("data").display()))
            .arg(format!("--web.listen-address={}", self.address))
            .arg(format!("--cluster.listen-address={}", self.cluster.as_deref().unwrap_or("")));
        let child = ChildGuard::spawn(command).unwrap();
        let line = child.line(Stream::Err, "Listening on").await;
        let line = line.unwrap_or_else(|| panic!("{}", child.written(Stream::Err)));
        let address = line.rsplit_once("address=").unwrap().1.trim().to_owned();
        until("the Alertmanager to be ready", PATIENCE, async || {
            let status = get(&address, "/api/v2/status").await?;
            // `/-/ready` says yes before the members have found one another.
            let word = status["cluster"]["status"].as_str()?;
            matches!(word, "ready" | "disabled").then_some(())
        })
        .await;
        self.looking = Some(tokio::spawn(look(address.clone(), Arc::clone(&self.told))));
        if self.cluster.is_some() {
            self.cluster = Some(self.own_place(&address).await);
        }
        self.address = address;
        self.running = Some(child);
    }

    /// Where the other members reach it.
    async fn own_place(&self, address: &str) -> String {
        let status = get(address, "/api/v2/status").await.unwrap();
        let name = &status["cluster"]["name"];
        let peers = status["cluster"]["peers"].as_array().unwrap();
        let own = peers.iter().find(|peer| peer["name"] == *name).unwrap();
        own["address"].as_str().unwrap().to_owned()
    }

    pub(super) async fn stop(&mut self) {
        if let Some(looking) = self.looking.take() {
            looking.abort();
        }
        if let Some(mut child) = self.running.take() {
            child.kill().await.unwrap();
        }
    }

    /// Alerts that appeared there, and that went.
    pub(super) fn told(&self) -> Vec<Told> {
        self.told.lock().unwrap().clone()
    }

    pub(super) fn url(&self) -> String {
        format!("http://{}", self.address)
    }
}

impl Drop for Alertmanager {
    fn drop(&mut self) {
        if let Some(looking) = self.looking.take() {
            looking.abort();
        }
    }
}

/// Notes what appears and what goes. One that was started again has forgotten what fires: what is
/// told it then is news.
async fn look(address: String, told: Arc<Mutex<Vec<Told>>>) {
    let mut shown: BTreeSet<(String, String)> = BTreeSet::new();
    loop {
        if let Some(alerts) = get(&address, "/api/v2/alerts?active=true").await {
            let alerts = alerts.as_array().into_iter().flatten();
            let label =
                |alert: &Value, name| alert["labels"][name].as_str().unwrap_or_default().to_owned();
            let now: BTreeSet<(String, String)> =
                alerts.map(|alert| (label(alert, "alertname"), label(alert, "service"))).collect();
            let at = Instant::now();
            let mut told = told.lock().unwrap();
            let mut note = |news, (rule, service): &(String, String)| {
                let (rule, subject, key) = (rule.clone(), service.clone(), String::new());
                told.push(Told { at, news, rule, subject, key });
            };
            now.difference(&shown).for_each(|alert| note(News::Firing, alert));
            shown.difference(&now).for_each(|alert| note(News::Resolved, alert));
            shown = now;
        }
        tokio::time::sleep(LOOK_AGAIN).await;
    }
}

/// Asks for JSON over HTTP/1.0; `None` where there is no whole answer.
async fn get(address: &str, path: &str) -> Option<Value> {
    let mut stream = TcpStream::connect(address).await.ok()?;
    stream.write_all(format!("GET {path} HTTP/1.0\r\n\r\n").as_bytes()).await.ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.ok()?;
    serde_json::from_str(answer.split_once("\r\n\r\n")?.1).ok()
}

/// The handler for these members; what fires is sent again each second, and lapses after four.
fn handler(members: &[&Alertmanager]) -> String {
    let urls: Vec<String> = members.iter().map(|member| member.url()).collect();
    format!(
        "[[handlers]]\nname = \"am\"\ntype = \"alertmanager\"\nurl = {urls:?}\nresend = \"1s\"\n\
         timeout = \"5s\"\n[[routes]]\nrules = [\"service_down\"]\nhandlers = [\"am\"]\n"
    )
}

async fn an_alertmanager_shows_what_fires_for_as_long_as_it_does_and_no_longer() {
    let peer = peer!("alertmanager");
    let mut stage = Stage::new(&["a"]).await;
    let receiver = Hook::open(&[]).await;
    let folder = stage.home.path().join("am");
    let alertmanager = Alertmanager::open(&peer, &folder, &receiver, None).await;
    stage = stage
        .configured(&handler(&[&alertmanager]))
        .with("shown", FarSide::Shown(alertmanager))
        .with("receiver", FarSide::Watched(receiver));
    let line = [
        at(0.0, Deed::Falls("a")),
        between(0.0, 20.0, down("shown", "a")),
        between(0.0, 30.0, down("receiver", "a")),
        // Longer than an alert lives that is not sent again.
        at(16.0, Deed::Rises("a")),
        between(16.0, 50.0, over("shown", "a")),
        between(16.0, 60.0, over("receiver", "a")),
    ];
    stage.play(&line).await;
}

async fn an_alert_lives_on_in_a_restart_and_in_an_alertmanager_that_forgot_it() {
    let peer = peer!("alertmanager");
    let mut stage = Stage::new(&["a"]).await;
    let receiver = Hook::open(&[]).await;
    let folder = stage.home.path().join("am");
    let alertmanager = Alertmanager::open(&peer, &folder, &receiver, None).await;
    stage =
        stage.configured(&handler(&[&alertmanager])).with("shown", FarSide::Shown(alertmanager));
    let line = [
        at(0.0, Deed::Falls("a")),
        between(0.0, 20.0, down("shown", "a")),
        // What fires is forgotten with the process, and sent again by whoever knows it.
        at(12.0, Deed::Goes("shown")),
        at(12.5, Deed::Comes("shown", Vec::new())),
        between(12.5, 40.0, down("shown", "a")),
        // A monitor that is gone for longer than an alert lives: it lapses, as for any client that
        // died, and is there again with the monitor.
        at(20.0, Deed::MonitorDies),
        between(20.0, 40.0, over("shown", "a")),
        at(30.0, Deed::MonitorStarts),
        between(30.0, 60.0, down("shown", "a")),
        at(40.0, Deed::Rises("a")),
        between(40.0, 70.0, over("shown", "a")),
    ];
    stage.play(&line).await;
}

async fn a_pair_of_alertmanagers_both_know_and_one_of_them_tells() {
    let peer = peer!("alertmanager");
    let mut stage = Stage::new(&["a", "b"]).await;
    let receiver = Hook::open(&[]).await;
    let folder = stage.home.path();
    let one = Alertmanager::open(&peer, &folder.join("one"), &receiver, Some("")).await;
    let member = one.cluster.clone();
    let two = Alertmanager::open(&peer, &folder.join("two"), &receiver, member.as_deref()).await;
    stage = stage
        .configured(&handler(&[&one, &two]))
        .with("one", FarSide::Shown(one))
        .with("two", FarSide::Shown(two))
        .with("receiver", FarSide::Watched(receiver));
    let line = [
        at(0.0, Deed::Falls("a")),
        between(0.0, 20.0, down("one", "a")),
        between(0.0, 20.0, down("two", "a")),
        between(0.0, 30.0, down("receiver", "a")),
        at(9.0, Deed::Rises("a")),
        between(9.0, 30.0, over("one", "a")),
        between(9.0, 30.0, over("two", "a")),
        between(9.0, 40.0, over("receiver", "a")),
        // The other has it and tells it.
        at(22.0, Deed::Goes("two")),
        at(23.0, Deed::Falls("b")),
        between(23.0, 45.0, down("one", "b")),
        between(23.0, 50.0, down("receiver", "b")),
        // What it missed is sent to it again.
        at(31.0, Deed::Comes("two", Vec::new())),
        between(31.0, 60.0, down("two", "b")),
        at(38.0, Deed::Rises("b")),
        between(38.0, 65.0, over("one", "b")),
        between(38.0, 65.0, over("two", "b")),
        between(38.0, 75.0, over("receiver", "b")),
        // One that has just joined may send what it decided before it heard of the others: that is
        // between them.
        Entry::Doubles("receiver", 2),
    ];
    stage.play(&line).await;
}

/// Beside each other, since most of each line is waiting.
#[tokio::test]
async fn alertmanagers_show_what_fires_for_as_long_as_it_does() {
    tokio::join!(
        an_alertmanager_shows_what_fires_for_as_long_as_it_does_and_no_longer(),
        an_alert_lives_on_in_a_restart_and_in_an_alertmanager_that_forgot_it(),
        a_pair_of_alertmanagers_both_know_and_one_of_them_tells()
    );
}
