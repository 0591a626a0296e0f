//! Everything a handler can deliver to here, seen alike: what it was told, and when.

use std::sync::Mutex;

use mcpmon_testkit::ChildGuard;
use serde_json::Value;
use tempfile::NamedTempFile;
use tokio::time::Instant;

use super::alertmanager::Alertmanager;
use super::hook::{Hook, Says};
use super::stage::of_handler;
use crate::peers::Peer;

/// What a message says of one alert.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum News {
    Firing,
    Resolved,
}

/// One alert in one message that arrived.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Told {
    pub(super) at: Instant,
    pub(super) news: News,
    pub(super) rule: String,
    /// The service's name, or of a handler [`of_handler`].
    pub(super) subject: String,
    /// By which the far side can know a message it has already.
    pub(super) key: String,
}

/// Somebody who is told.
pub(super) enum FarSide {
    /// And keys of its handler, beside its URL.
    Hook(Hook, &'static str),
    /// No handler of ours leads there.
    Watched(Hook),
    Mail(MailServer),
    /// What an Alertmanager shows.
    Shown(Alertmanager),
}

impl FarSide {
    pub(super) fn told(&self) -> Vec<Told> {
        match self {
            Self::Hook(hook, _) | Self::Watched(hook) => hook.told(),
            Self::Mail(mail) => mail.told(),
            Self::Shown(alertmanager) => alertmanager.told(),
        }
    }

    /// The handler's table; none for what no handler leads to.
    pub(super) fn handler(&self, name: &str) -> Option<String> {
        let (kind, keys) = match self {
            Self::Hook(hook, keys) => ("webhook", format!("url = \"{}\"\n{keys}", hook.url())),
            Self::Mail(mail) => ("email", mail.keys.clone()),
            Self::Watched(_) | Self::Shown(_) => return None,
        };
        Some(format!("[[handlers]]\nname = \"{name}\"\ntype = \"{kind}\"\n{keys}\n"))
    }

    pub(super) fn says(&self, says: Says) {
        match self {
            Self::Hook(hook, _) | Self::Watched(hook) => hook.says(says),
            Self::Mail(_) | Self::Shown(_) => panic!("only a web hook says what it is told to say"),
        }
    }

    /// Ends it, as `kill -9` does.
    pub(super) async fn stop(&mut self) {
        match self {
            Self::Hook(..) | Self::Watched(_) => {
                panic!("a web hook does not stop; have it hang up")
            }
            Self::Mail(mail) => mail.stop().await,
            Self::Shown(alertmanager) => alertmanager.stop().await,
        }
    }

    /// Starts it where it was, with these options in place of the ones it had, if any.
    pub(super) async fn start(&mut self, options: &[String]) {
        match self {
            Self::Hook(..) | Self::Watched(_) => panic!("a web hook runs"),
            Self::Mail(mail) => mail.start(options).await,
            Self::Shown(alertmanager) => alertmanager.start().await,
        }
    }
}

/// A real mail server that can go and come back.
pub(super) struct MailServer {
    peer: Peer,
    port: u16,
    running: Option<ChildGuard>,
    /// Where it writes what it takes.
    out: NamedTempFile,
    /// What was read of that so far, and when.
    mails: Mutex<Vec<(Instant, Value)>>,
    /// Of the handler.
    keys: String,
}

impl MailServer {
    /// `options` are the server's; `user` (with `@` at its end, or nothing) and `keys` the
    /// handler's.
    pub(super) async fn open(peer: &Peer, options: &[String], user: &str, keys: &str) -> Self {
        let mut server = Self {
            peer: peer.clone(),
            port: 0,
            running: None,
            out: NamedTempFile::new().unwrap(),
            mails: Mutex::default(),
            keys: String::new(),
        };
        server.start(options).await;
        let port = server.port;
        server.keys = format!(
            "smtp = \"smtp://{user}localhost:{port}\"\nfrom = \"mcpmon@example.com\"\n\
             to = [\"ops@example.com\"]\n{keys}"
        );
        server
    }

    /// Every mail it took, and when it was first seen here.
    pub(super) fn mails(&self) -> Vec<(Instant, Value)> {
        let written = std::fs::read_to_string(self.out.path()).unwrap();
        let now = Instant::now();
        let mut mails = self.mails.lock().unwrap();
        let known = mails.len();
        let lines = written.lines().skip(known);
        // The last line may be in the middle of being written.
        mails.extend(lines.map_while(|line| Some((now, serde_json::from_str(line).ok()?))));
        mails.clone()
    }

    fn told(&self) -> Vec<Told> {
        self.mails().iter().flat_map(|(at, mail)| read(mail, *at)).collect()
    }

    pub(super) async fn stop(&mut self) {
        if let Some(mut child) = self.running.take() {
            child.kill().await.unwrap();
        }
    }

    async fn start(&mut self, options: &[String]) {
        self.stop().await;
        let (port, out) = (self.port.to_string(), self.out.path().display().to_string());
        let options: Vec<&str> = options.iter().map(String::as_str).collect();
        let peer = self.peer.clone().with(&["--port", &port, "--out", &out]).with(&options);
        let (child, port) = peer.listen().await;
        self.port = port;
        self.running = Some(child);
    }
}

/// What a mail says: its text has, for each alert, a line of its own and indented ones of its facts.
fn read(mail: &Value, at: Instant) -> Vec<Told> {
    let key = mail["headers"]["message-id"].as_str().unwrap_or_default();
    let mut told: Vec<Told> = Vec::new();
    for line in mail["text"].as_str().unwrap_or_default().lines() {
        if line.is_empty() {
            continue;
        }
        let Some(fact) = line.strip_prefix("  ") else {
            let news = if line.starts_with("RESOLVED") { News::Resolved } else { News::Firing };
            let (rule, subject, key) = (String::new(), String::new(), key.to_owned());
            told.push(Told { at, news, rule, subject, key });
            continue;
        };
        let Some(last) = told.last_mut() else { continue };
        if let Some(rule) = fact.strip_prefix("Rule: ") {
            rule.clone_into(&mut last.rule);
        } else if let Some(service) = fact.strip_prefix("Service: ") {
            service.clone_into(&mut last.subject);
        } else if let Some(handler) = fact.strip_prefix("Handler: ") {
            last.subject = of_handler(handler);
        }
    }
    told
}
