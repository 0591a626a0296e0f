//! Opens a conversation: asks, reads what came, and does what [`crate::opening`] decides.

use std::sync::Arc;

use mcpmon_core::failure::{FailureCode, Finding, FindingCode, Phase};
use mcpmon_core::observation::Phases;
use mcpmon_core::service::{HttpSpec, ProtocolChoice, StdioSpec};
use mcpmon_core::status::Era;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::{Instant, timeout_at};

use super::events::{self, NoConversation};
use super::wire::{Turn, Wire, WireKind};
use super::{
    Agreed, Endings, Memory, Session, SessionOptions, WANTS_INPUT, identity, instructions,
};
use crate::child::{self, GRACE, Launch};
use crate::error::CallError;
use crate::http::{HttpChannel, HttpClient};
use crate::inbox::Payload;
use crate::lists::suspicious::Suspicions;
use crate::lists::{Known, TemplateSupport};
use crate::opening::{Ask, Next, Seen, Situation, furthest, next};
use crate::pipe::Pipe;
use crate::protocol::{self, Greeting, Params, methods};

/// Share of the whole time that one of two openings over HTTP may take, so that a mute server
/// leaves time for both.
const SHARE: f64 = 0.4;

/// What one opening request came to.
pub(super) struct Attempt {
    pub(super) seen: Seen,
    /// The greeting, or why there is none.
    outcome: Result<Greeting, CallError>,
}

impl Session {
    /// Opens a conversation over HTTP, by discovery first unless `memory` says otherwise. Where
    /// nothing takes a POST, the deprecated HTTP+SSE is looked for, at most hourly; where the path
    /// ends in `/sse`, or it was found last time, it comes first.
    ///
    /// # Errors
    ///
    /// The failure of the opening that got furthest.
    pub async fn open_http(
        client: &Arc<HttpClient>,
        spec: &HttpSpec,
        options: &Arc<SessionOptions>,
        memory: &mut Memory,
        phases: &mut Phases,
        deadline: Instant,
    ) -> Result<Self, CallError> {
        let channel = channel(client, spec, options)?;
        let has_events = options.protocol != ProtocolChoice::Modern;
        let mut prior = None;
        let mut may_look = has_events && memory.may_look(Instant::now());
        if has_events && memory.begins_with_events(channel.target().path()) {
            match Box::pin(events::open(channel.clone(), false, options, phases, deadline)).await {
                Ok((wire, agreed)) => {
                    memory.found(agreed.era, true);
                    return Ok(Self::opened(wire, agreed));
                }
                Err(NoConversation { error, may_be_another: true }) => {
                    (prior, may_look) = (Some(error), false);
                }
                Err(NoConversation { error, .. }) => return Err(error),
            }
        }
        let mut wire =
            Wire::new(WireKind::Http { channel: Box::new(channel), session: None }, options);
        let situation = Situation {
            choice: options.protocol,
            remembered: memory.era,
            may_look,
            ..Situation::default()
        };
        let ask = first_ask(situation.first_over_http());
        match over_http(&mut wire, situation, ask, prior, phases, deadline).await {
            Ok(agreed) => {
                memory.found(agreed.era, false);
                Ok(Self::opened(wire, agreed))
            }
            Err(NotOverHttp { error, look }) => match wire.kind {
                WireKind::Http { channel, .. } if look => {
                    let found = events::open(*channel, false, options, phases, deadline);
                    Self::last_resort(Box::pin(found).await, error, memory)
                }
                _ => Err(error),
            },
        }
    }

    /// What came of looking for an event stream because of `error`.
    fn last_resort(
        found: Result<(Wire, Agreed), NoConversation>,
        error: CallError,
        memory: &mut Memory,
    ) -> Result<Self, CallError> {
        match found {
            Ok((wire, agreed)) => {
                memory.found(agreed.era, true);
                Ok(Self::opened(wire, agreed))
            }
            // Where no stream is, what the POSTs met is what there is to tell.
            Err(NoConversation { error: events, may_be_another }) => {
                memory.looked_in_vain(Instant::now());
                Err(if may_be_another { error } else { events })
            }
        }
    }

    /// Opens a conversation over the deprecated HTTP+SSE and no other transport.
    ///
    /// # Errors
    ///
    /// Why there is no event stream, or no conversation on it.
    pub async fn open_events(
        client: &Arc<HttpClient>,
        spec: &HttpSpec,
        options: &Arc<SessionOptions>,
        phases: &mut Phases,
        deadline: Instant,
    ) -> Result<Self, CallError> {
        let channel = channel(client, spec, options)?;
        match events::open(channel, true, options, phases, deadline).await {
            Ok((wire, agreed)) => Ok(Self::opened(wire, agreed)),
            Err(NoConversation { error, .. }) => Err(error),
        }
    }

    /// Starts a command and opens a conversation with it, by `initialize` first unless
    /// `remembered` says otherwise. A process that refuses the first opening is ended, and a fresh
    /// one asked the other way.
    ///
    /// # Errors
    ///
    /// Why it could not be started, why it ended, or the failure of the opening that got furthest.
    /// No process is left but in `endings`.
    pub async fn open_process(
        spec: &StdioSpec,
        launch: &Launch<'_>,
        options: &Arc<SessionOptions>,
        remembered: Option<Era>,
        endings: &mut Endings,
        phases: &mut Phases,
        deadline: Instant,
    ) -> Result<Self, CallError> {
        let mut situation =
            Situation { choice: options.protocol, remembered, ..Situation::default() };
        let mut ask = first_ask(situation.first_on_process());
        let mut prior = None;
        loop {
            let mut wire = match start(spec, launch, options, phases, deadline).await {
                Ok(wire) => wire,
                // What is known of it was learned from the one before.
                Err(error) if Instant::now() >= deadline => return Err(prior.unwrap_or(error)),
                Err(error) => return Err(error),
            };
            let attempt = attempt(&mut wire, &ask, phases, deadline).await;
            situation.count(&ask, &attempt.seen);
            match settle(&situation, &ask, attempt, prior.take(), options) {
                Settled::Open(agreed) => return Ok(Self::opened(wire, agreed)),
                Settled::Again(again, error) => {
                    end_before(wire, endings, deadline).await;
                    (ask, prior) = (again, error);
                }
                Settled::Failed(error) | Settled::Look(error) => {
                    if let WireKind::Process { pipe, process } = wire.kind {
                        endings.add(pipe, process);
                    }
                    return Err(error);
                }
            }
        }
    }

    /// Opens a conversation over streams that are there already, one opening and no other.
    ///
    /// # Errors
    ///
    /// Why the opening failed.
    pub async fn open_streams<R, W>(
        from: R,
        to: W,
        options: &Arc<SessionOptions>,
        phases: &mut Phases,
        deadline: Instant,
    ) -> Result<Self, CallError>
    where
        R: AsyncRead + Send + Unpin + 'static,
        W: AsyncWrite + Send + Unpin + 'static,
    {
        let pipe = Pipe::new(from, to, options.max_body);
        let mut wire = Wire::new(WireKind::Process { pipe, process: None }, options);
        let mut situation = Situation { choice: options.protocol, ..Situation::default() };
        let ask = first_ask(situation.first_on_process());
        let attempt = attempt(&mut wire, &ask, phases, deadline).await;
        situation.count(&ask, &attempt.seen);
        match settle(&situation, &ask, attempt, None, options) {
            Settled::Open(agreed) => Ok(Self::opened(wire, agreed)),
            Settled::Failed(error) | Settled::Look(error) | Settled::Again(_, Some(error)) => {
                Err(error)
            }
            Settled::Again(_, None) => Err(no_common_version(&[], options)),
        }
    }

    fn opened(wire: Wire, agreed: Agreed) -> Self {
        Self {
            wire,
            agreed,
            greeted: false,
            proven: false,
            no_ping: false,
            discovered: None,
            known_lists: Known::default(),
            templates: TemplateSupport::default(),
            told_of_exit: false.into(),
            lost: false,
        }
    }
}

impl Situation {
    pub(super) fn count(&mut self, ask: &Ask, seen: &Seen) {
        match ask {
            Ask::Discover(_) => self.discoveries += 1,
            Ask::Initialize(_) => self.handshakes += 1,
        }
        self.no_place += u8::from(*seen == Seen::NoSuchPlace);
    }
}

fn first_ask(era: Era) -> Ask {
    match era {
        Era::Modern => Ask::discover(),
        Era::Legacy => Ask::initialize(),
    }
}

fn channel(
    client: &Arc<HttpClient>,
    spec: &HttpSpec,
    options: &SessionOptions,
) -> Result<HttpChannel, CallError> {
    let (cap, reach) = (options.max_body, options.connection_timeout);
    HttpChannel::new(Arc::clone(client), spec, cap, reach)
        .map_err(|error| error.redacted(&options.redactor))
}

async fn start(
    spec: &StdioSpec,
    launch: &Launch<'_>,
    options: &Arc<SessionOptions>,
    phases: &mut Phases,
    deadline: Instant,
) -> Result<Wire, CallError> {
    let began = Instant::now();
    let started = timeout_at(deadline, child::start(spec, launch)).await.unwrap_or_else(|_| {
        // A file system that hangs: nothing of the server was even begun.
        let text = format!("`{}` could not be started in time", spec.command);
        Err(CallError::new(FailureCode::SpawnFailed, Phase::Spawn, text))
    });
    phases.spawn_ms = Some(began.elapsed().as_secs_f64() * 1_000.0);
    let started = started.map_err(|error| error.redacted(&options.redactor))?;
    let pipe = Pipe::new(started.stdout, started.stdin, options.max_body);
    Ok(Wire::new(WireKind::Process { pipe, process: Some(started.process) }, options))
}

/// Ends a process before its successor starts, so that never two of them run; what would take
/// longer than the check may is killed.
async fn end_before(wire: Wire, endings: &mut Endings, deadline: Instant) {
    if let WireKind::Process { pipe, process } = wire.kind {
        endings.add(pipe, process);
        if timeout_at(deadline, endings.all()).await.is_err() {
            endings.kill().await;
        }
    }
}

/// Why there is no conversation by POST.
pub(super) struct NotOverHttp {
    pub(super) error: CallError,
    /// Whether the deprecated transport is to be looked for.
    look: bool,
}

/// Opens a conversation over a channel, starting with `ask`; `prior` is the error that made it
/// necessary, if one did.
pub(super) async fn over_http(
    wire: &mut Wire,
    mut situation: Situation,
    mut ask: Ask,
    mut prior: Option<CallError>,
    phases: &mut Phases,
    deadline: Instant,
) -> Result<Agreed, NotOverHttp> {
    let options = Arc::clone(&wire.options);
    let share = deadline.saturating_duration_since(Instant::now()).mul_f64(SHARE);
    loop {
        // With nothing to fall back to, all the time there is belongs to this one.
        let alone = situation.remembered.is_some() || situation.is_last(&ask);
        let limit = if alone { deadline } else { deadline.min(Instant::now() + share) };
        let attempt = attempt(wire, &ask, phases, limit).await;
        situation.count(&ask, &attempt.seen);
        match settle(&situation, &ask, attempt, prior.take(), &options) {
            Settled::Open(agreed) => return Ok(agreed),
            Settled::Again(again, error) => (ask, prior) = (again, error),
            Settled::Look(error) => return Err(NotOverHttp { error, look: true }),
            Settled::Failed(error) => {
                give_back(wire, deadline).await;
                return Err(NotOverHttp { error, look: false });
            }
        }
    }
}

/// Ends a session that a handshake opened and that cannot be used: the next check would open
/// another one beside it.
async fn give_back(wire: &mut Wire, deadline: Instant) {
    if let WireKind::Http { channel, session } = &mut wire.kind
        && let Some(session) = session.take()
        && wire.options.terminate_session
    {
        let limit = deadline.min(Instant::now() + GRACE);
        Box::pin(channel.end_session(&session, None, limit)).await;
    }
}

impl Situation {
    fn is_last(&self, ask: &Ask) -> bool {
        use mcpmon_core::service::ProtocolChoice as Choice;
        match ask {
            Ask::Discover(_) => self.choice == Choice::Modern || self.handshakes > 0,
            Ask::Initialize(_) => self.choice == Choice::Legacy || self.discoveries > 0,
        }
    }
}

pub(super) async fn attempt(
    wire: &mut Wire,
    ask: &Ask,
    phases: &mut Phases,
    deadline: Instant,
) -> Attempt {
    let options = Arc::clone(&wire.options);
    let (method, params, version, modern) = match ask {
        Ask::Discover(version) => (methods::DISCOVER, Params::default(), version, true),
        Ask::Initialize(version) => {
            (methods::INITIALIZE, Params::initialize(version, &options.client), version, false)
        }
    };
    let turn = Turn { method, params, version: Some(version), modern, phase: Phase::Handshake };
    let answer = match wire.call(turn, phases, deadline).await {
        Ok(answer) => answer,
        Err(error) => return Attempt { seen: Seen::from_error(&error), outcome: Err(error) },
    };
    phases.handshake_ms = Some(answer.latency.as_secs_f64() * 1_000.0);
    let Ok(result) = answer.payload.map(Payload::into_raw) else {
        // `Wire::call` gives a JSON-RPC error as an error.
        let error = CallError::new(FailureCode::InvalidMessage, Phase::Handshake, "no result");
        return Attempt { seen: Seen::Foreign, outcome: Err(error) };
    };
    let read =
        if modern { protocol::read_discover(&result) } else { protocol::read_initialize(&result) };
    match read {
        Ok(greeting) if greeting.wants_input => {
            let error = CallError::new(FailureCode::InputRequired, Phase::Handshake, WANTS_INPUT);
            Attempt { seen: Seen::Barred, outcome: Err(error) }
        }
        Ok(greeting) if modern => {
            Attempt { seen: Seen::Discovered(greeting.versions.clone()), outcome: Ok(greeting) }
        }
        Ok(greeting) => {
            let version = greeting.versions.first().cloned().unwrap_or_default();
            Attempt { seen: Seen::Initialized(version), outcome: Ok(greeting) }
        }
        Err(shape) => {
            let text = format!("the result of `{method}` is out of shape: {shape}");
            let error = CallError::new(FailureCode::InvalidMessage, Phase::Handshake, text)
                .with_excerpt(result.get().as_bytes())
                .redacted(&options.redactor);
            Attempt { seen: Seen::Foreign, outcome: Err(error) }
        }
    }
}

/// What an attempt leads to.
pub(super) enum Settled {
    Open(Agreed),
    Again(Ask, Option<CallError>),
    /// Look for the deprecated transport; this is told where it is not there.
    Look(CallError),
    Failed(CallError),
}

pub(super) fn settle(
    situation: &Situation,
    asked: &Ask,
    attempt: Attempt,
    prior: Option<CallError>,
    options: &SessionOptions,
) -> Settled {
    let step = next(situation, asked, &attempt.seen);
    let told = |error: Option<CallError>| match (prior, error) {
        (Some(prior), Some(error)) => Some(furthest(prior, error)),
        (prior, error) => error.or(prior),
    };
    match (step, attempt.outcome) {
        (Next::Modern(version), Ok(greeting)) => {
            Settled::Open(agreed(Era::Modern, version, greeting, options))
        }
        (Next::Legacy(version), Ok(greeting)) => {
            Settled::Open(agreed(Era::Legacy, version, greeting, options))
        }
        (Next::Try(ask), outcome) => Settled::Again(ask, told(outcome.err())),
        (Next::NoCommonVersion(theirs), outcome) => {
            let mut error = no_common_version(&theirs, options);
            error.rpc = outcome.err().and_then(|error| error.rpc);
            Settled::Failed(error)
        }
        (step, outcome) => {
            let error = told(outcome.err()).unwrap_or_else(|| no_common_version(&[], options));
            if step == Next::EventStream { Settled::Look(error) } else { Settled::Failed(error) }
        }
    }
}

fn no_common_version(theirs: &[String], options: &SessionOptions) -> CallError {
    let ours: Vec<&str> = std::iter::once(protocol::MODERN).chain(protocol::LEGACY).collect();
    let listed =
        if theirs.is_empty() { "none it would name".to_owned() } else { theirs.join(", ") };
    let text = format!("the server speaks {listed}; known here are {}", ours.join(", "));
    CallError::new(FailureCode::UnsupportedProtocolVersion, Phase::Handshake, text)
        .with("server_versions", theirs.to_vec())
        .with("client_versions", ours)
        .redacted(&options.redactor)
}

fn agreed(era: Era, version: String, greeting: Greeting, options: &SessionOptions) -> Agreed {
    let mut findings = Vec::new();
    if !greeting.missing.is_empty() {
        let method = match era {
            Era::Modern => methods::DISCOVER,
            Era::Legacy => methods::INITIALIZE,
        };
        let text = format!("the result of `{method}` lacks {}", greeting.missing.join(", "));
        findings.push(
            Finding::new(FindingCode::Nonconforming, text)
                .with("missing", greeting.missing.clone()),
        );
    }
    Agreed {
        era,
        version,
        capabilities: greeting.capabilities,
        suspicion: suspicion(&greeting),
        instructions: greeting.instructions.map(|text| instructions(&text, &options.redactor)),
        server: greeting.server.map(|server| identity(&server, &options.redactor)),
        findings,
    }
}

/// What is suspicious in a greeting.
pub(super) fn suspicion(greeting: &Greeting) -> Option<Finding> {
    let mut suspicions = Suspicions::default();
    if let Some(server) = &greeting.server {
        suspicions.look_at("the server's name", &server.name);
    }
    if let Some(text) = &greeting.instructions {
        suspicions.look_at("the server's instructions", text);
    }
    suspicions.into_finding()
}
