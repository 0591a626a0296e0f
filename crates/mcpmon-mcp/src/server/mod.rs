//! A small, real MCP server of both eras, for demonstrations and as a fixture in tests.
//!
//! It is the other side of what a monitor does, so it is strict where the specification is (a
//! monitor that sends a wrong header must hear of it) and can be told to misbehave where servers
//! do. In layers, the pure ones first: [`ServerSpec`] says what it offers, [`Behaviour`] how well
//! it works, [`dispatch`] answers one message as a function of both, [`stdio`] and [`http`] only
//! read, wait and write. A [`Server`] ties them together and counts; its clones are the same
//! server, so a test keeps one to look at and to steer.

pub mod behaviour;
pub mod dispatch;
pub mod http;
pub mod spec;
pub mod stdio;

mod body;
mod events;
mod gate;
mod plan;
mod sessions;
mod streams;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use tokio::sync::watch;
use tokio::time::Instant;

pub use behaviour::{Asked, Behaviour, Conduct, Fault};
pub use http::{Answers, HttpOptions, HttpServer};
pub use spec::{Eras, Prompt, Resource, ResourceTemplate, ServerSpec, Tool, ToolOutput};

use dispatch::{Action, Dispatch, Stage, Via};
use sessions::Sessions;
use streams::Streams;

use crate::jsonrpc::{Id, Message, Request, Response};

/// Methods are counted by name up to this many names; what comes after them is one sum.
const MOST_COUNTED_METHODS: usize = 64;

/// A server: what it offers, how it behaves, and what it was asked. Clones are the same server.
#[derive(Debug, Clone)]
pub struct Server(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    spec: ServerSpec,
    tools: RwLock<Arc<[Tool]>>,
    behaviour: RwLock<Behaviour>,
    counts: watch::Sender<Counts>,
    tools_revision: watch::Sender<u64>,
    sessions: Mutex<Sessions>,
    streams: Mutex<Streams>,
    started: Instant,
}

#[derive(Debug, Default)]
struct Counts {
    requests: u64,
    by_method: BTreeMap<String, u64>,
    /// What the client said to what we asked it, by method: an error code, or a result.
    answers: BTreeMap<String, Option<i64>>,
    streams: usize,
}

impl Server {
    /// A server that works well.
    pub fn new(spec: ServerSpec) -> Self {
        Self(Arc::new(Inner {
            tools: RwLock::new(spec.tools.clone().into()),
            spec,
            behaviour: RwLock::new(Behaviour::well()),
            counts: watch::Sender::default(),
            tools_revision: watch::Sender::default(),
            sessions: Mutex::default(),
            streams: Mutex::default(),
            started: Instant::now(),
        }))
    }

    /// The same server, behaving like this from the start.
    #[must_use]
    pub fn behaving(self, behaviour: Behaviour) -> Self {
        self.behave(behaviour);
        self
    }

    /// What it offers; the tools may have been exchanged since.
    pub fn spec(&self) -> &ServerSpec {
        &self.0.spec
    }

    /// Behaves like this from now on; requests it is busy with are not touched.
    pub fn behave(&self, behaviour: Behaviour) {
        *self.0.behaviour.write().unwrap_or_else(PoisonError::into_inner) = behaviour;
    }

    /// Offers these tools from now on, and tells clients on stdio and on event streams so.
    pub fn set_tools(&self, tools: impl IntoIterator<Item = Tool>) {
        let tools = tools.into_iter().collect();
        *self.0.tools.write().unwrap_or_else(PoisonError::into_inner) = tools;
        self.0.tools_revision.send_modify(|revision| *revision += 1);
        self.lock_streams().tell_change();
    }

    /// Requests it was asked so far, notifications not counted.
    pub fn requests(&self) -> u64 {
        self.0.counts.borrow().requests
    }

    /// Requests of this method so far.
    pub fn requests_of(&self, method: &str) -> u64 {
        self.0.counts.borrow().of(method)
    }

    /// Requests by method so far.
    pub fn counts(&self) -> BTreeMap<String, u64> {
        self.0.counts.borrow().by_method.clone()
    }

    /// Waits until it was asked `count` requests of this method in all. Cancel-safe.
    pub async fn wait_for_requests(&self, method: &str, count: u64) {
        let mut changes = self.0.counts.subscribe();
        // The sender is ours, so the wait ends by the condition alone.
        let _ = changes.wait_for(|counts| counts.of(method) >= count).await;
    }

    /// What the client said to what it was asked, by method: the code of its error, or `None` for a
    /// result.
    pub fn answers(&self) -> BTreeMap<String, Option<i64>> {
        self.0.counts.borrow().answers.clone()
    }

    /// Waits until the client said something to `count` of the methods it was asked. Cancel-safe.
    pub async fn wait_for_answers(&self, count: usize) {
        let mut changes = self.0.counts.subscribe();
        let _ = changes.wait_for(|counts| counts.answers.len() >= count).await;
    }

    /// Event streams of HTTP+SSE open now.
    pub fn streams(&self) -> usize {
        self.0.counts.borrow().streams
    }

    /// Waits until `count` event streams are open. Cancel-safe.
    pub async fn wait_for_streams(&self, count: usize) {
        let mut changes = self.0.counts.subscribe();
        let _ = changes.wait_for(|counts| counts.streams == count).await;
    }

    /// Legacy HTTP sessions open now.
    pub fn sessions(&self) -> usize {
        self.lock_sessions().len()
    }

    /// Forgets every legacy HTTP session and ends every event stream, as a restarted server does.
    pub fn forget_sessions(&self) {
        self.lock_sessions().clear();
        self.lock_streams().clear();
    }

    fn lock_streams(&self) -> std::sync::MutexGuard<'_, Streams> {
        self.0.streams.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn lock_sessions(&self) -> std::sync::MutexGuard<'_, Sessions> {
        self.0.sessions.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Answers one message; the only state is `stage`, which the answer may move.
    fn answer(&self, stage: Stage, via: Via<'_>, message: &Message<'_>) -> Action {
        let tools = Arc::clone(&self.0.tools.read().unwrap_or_else(PoisonError::into_inner));
        Dispatch::new(&self.0.spec, &tools).handle(stage, via, message)
    }

    /// Counts a request and decides how it is treated.
    fn conduct(&self, request: &Request<'_>, via: Via<'_>) -> Conduct {
        let (mut number, mut of_method) = (0, 0);
        self.0.counts.send_modify(|counts| {
            counts.requests += 1;
            number = counts.requests;
            of_method = counts.add(&request.method);
        });
        let behaviour = self.0.behaviour.read().unwrap_or_else(PoisonError::into_inner).clone();
        behaviour.conduct(&Asked {
            method: &request.method,
            id: &request.id,
            params: request.params,
            headers: via.headers(),
            number,
            of_method,
            up: self.0.started.elapsed(),
        })
    }

    /// Notes what the client said to something we asked, whose id is the method.
    fn note_answer(&self, response: &Response<'_>) {
        let Some(Id::Text(method)) = &response.id else { return };
        if !self.0.spec.asks.contains(&method.as_str()) {
            return;
        }
        let code = response.payload.as_ref().err().map(|error| error.code);
        self.0.counts.send_modify(|counts| {
            counts.answers.insert(method.clone(), code);
        });
    }

    fn tools_changes(&self) -> watch::Receiver<u64> {
        self.0.tools_revision.subscribe()
    }
}

impl Counts {
    fn of(&self, method: &str) -> u64 {
        self.by_method.get(method).copied().unwrap_or(0)
    }

    /// Names come from the client, so the map must not grow with them.
    fn add(&mut self, method: &str) -> u64 {
        let known = self.by_method.contains_key(method);
        let name = if known || self.by_method.len() < MOST_COUNTED_METHODS { method } else { "" };
        let count = self.by_method.entry(name.to_owned()).or_default();
        *count += 1;
        *count
    }
}
