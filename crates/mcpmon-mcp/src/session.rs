//! A conversation with one server, whichever era it speaks and whatever carries it.
//!
//! A session is opened once and held: it is what makes a check cheap for the server and its
//! timing fair. It answers three questions: does the server live ([`Session::prove_life`]), what
//! does it offer ([`Session::read_lists`]), and who is it ([`Session::conversation`]).

mod open;
mod wire;

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use mcpmon_core::failure::{FailureCode, Finding, FindingCode, Phase};
use mcpmon_core::observation::{Conversation, Phases, ServerIdentity};
use mcpmon_core::secret::Redactor;
use mcpmon_core::service::ProtocolChoice;
use mcpmon_core::status::Era;
use mcpmon_core::text::truncate;
use serde_json::value::RawValue;
use tokio::task::JoinSet;
use tokio::time::Instant;

use self::wire::{Turn, Wire, WireKind};
use crate::child::{ChildProcess, GRACE};
use crate::error::{CallError, told};
use crate::forensics::Remains;
use crate::jsonrpc::codes;
use crate::lists::Known;
use crate::opening::{Ask, Next, Seen, Situation, next};
use crate::pipe::{Answer, Pipe};
use crate::protocol::{self, Capabilities, ClientInfo, Params, methods};

/// What does not change from one session of a service to the next.
#[derive(Debug, Clone)]
pub struct SessionOptions {
    /// Who we say we are. The same every time: some servers' lists depend on it.
    pub client: ClientInfo,
    /// Which way to open the conversation.
    pub protocol: ProtocolChoice,
    /// Largest line, event or body, in bytes.
    pub max_body: usize,
    /// DNS, connect and TLS together.
    pub connection_timeout: Duration,
    /// Takes the service's secrets out of every error.
    pub redactor: Redactor,
}

impl Default for SessionOptions {
    fn default() -> Self {
        Self {
            client: ClientInfo::default(),
            protocol: ProtocolChoice::Auto,
            max_body: 16_000_000,
            connection_timeout: Duration::from_secs(5),
            redactor: Redactor::default(),
        }
    }
}

/// Processes that are being ended while nobody waits for them.
///
/// Ending a process takes seconds, a check has a deadline. Dropped with processes in it, they are
/// killed at once.
#[derive(Debug, Default)]
pub struct Endings(JoinSet<()>);

impl Endings {
    fn add(&mut self, mut pipe: Pipe, process: Option<ChildProcess>) {
        while self.0.try_join_next().is_some() {}
        self.0.spawn(async move {
            pipe.close_input(GRACE).await;
            if let Some(mut process) = process {
                process.end().await;
            }
        });
    }

    /// Waits until every one of them is gone.
    pub async fn all(&mut self) {
        while self.0.join_next().await.is_some() {}
    }
}

/// What an opened conversation agreed on.
#[derive(Debug, Clone)]
struct Agreed {
    era: Era,
    version: String,
    capabilities: Capabilities,
    server: Option<ServerIdentity>,
    /// Breaches seen in the handshake; they hold for as long as the session.
    findings: Vec<Finding>,
}

/// A conversation that is open.
#[derive(Debug)]
pub struct Session {
    wire: Wire,
    agreed: Agreed,
    /// Whether `notifications/initialized` got through (legacy).
    greeted: bool,
    /// Whether this session id, or process, answered after its handshake.
    proven: bool,
    /// `ping` was refused, though the server works (legacy).
    no_ping: bool,
    /// The last good answer to a discovery, so that the same one need not be read again (modern).
    discovered: Option<Box<RawValue>>,
    /// The lists as they were read last.
    pub(crate) known_lists: Known,
    /// Whether the end of the process was told by [`Session::woken`].
    told_of_exit: AtomicBool,
}

impl Session {
    /// Revision, era and identity.
    pub fn conversation(&self) -> Conversation {
        Conversation {
            protocol_version: Some(self.agreed.version.clone()),
            era: Some(self.agreed.era),
            server: self.agreed.server.clone(),
        }
    }

    /// The era spoken.
    pub fn era(&self) -> Era {
        self.agreed.era
    }

    /// The lists the server says it has.
    pub fn capabilities(&self) -> Capabilities {
        self.agreed.capabilities
    }

    /// The process id of a server we started, which is its process group's too.
    pub fn process_id(&self) -> Option<u32> {
        match &self.wire.kind {
            WireKind::Process { process, .. } => process.as_ref().map(ChildProcess::id),
            WireKind::Http { .. } => None,
        }
    }

    /// Whether this session is one the server keeps: a process, or a session id.
    pub fn is_kept_by_server(&self) -> bool {
        match &self.wire.kind {
            WireKind::Process { .. } => true,
            WireKind::Http { session, .. } => session.is_some(),
        }
    }

    /// Whether the far side is known to be gone, so that only a new session can help.
    pub fn has_ended(&self) -> bool {
        match &self.wire.kind {
            WireKind::Process { pipe, process } => {
                pipe.has_ended() || process.as_ref().is_some_and(|process| process.exit().is_some())
            }
            WireKind::Http { .. } => false,
        }
    }

    /// Resolves when the process ended, its output closed, or it said that a list changed.
    /// Cancel-safe. Over HTTP there is no such word between requests, and it never resolves.
    pub async fn woken(&self) {
        match &self.wire.kind {
            WireKind::Process { pipe, process: Some(process) }
                if !self.told_of_exit.load(Ordering::Relaxed) =>
            {
                tokio::select! {
                    () = pipe.woken() => {}
                    _ = process.exited() => self.told_of_exit.store(true, Ordering::Relaxed),
                }
            }
            WireKind::Process { pipe, .. } => pipe.woken().await,
            WireKind::Http { .. } => std::future::pending().await,
        }
    }

    /// Whether the server said, while it answered, that a list is another now; tells once.
    pub fn take_list_changed(&mut self) -> bool {
        std::mem::take(&mut self.wire.list_changed)
    }

    /// The oddities of the handshake, and those of the messages since this was last asked.
    pub fn take_findings(&mut self) -> Vec<Finding> {
        let mut findings = self.agreed.findings.clone();
        findings.append(&mut self.wire.notes);
        if let WireKind::Process { pipe, .. } = &self.wire.kind {
            findings.extend(noise_findings(&pipe.take_heard(), &self.wire.options.redactor));
        }
        findings
    }

    /// Asks the era's cheapest proof of life and gives how long one whole request took.
    ///
    /// A session the server has forgotten is opened again, once, and asked again.
    ///
    /// # Errors
    ///
    /// Why there is none. Unless [`Session::has_ended`], the session may be asked again.
    pub async fn prove_life(
        &mut self,
        phases: &mut Phases,
        deadline: Instant,
    ) -> Result<Duration, CallError> {
        match self.prove_once(phases, deadline).await {
            Ok(latency) => Ok(latency),
            Err(error) => match self.way_back(&error) {
                Some(ask) => {
                    Box::pin(self.reopen(ask, error, phases, deadline)).await?;
                    self.prove_once(phases, deadline).await
                }
                None => Err(error),
            },
        }
    }

    async fn prove_once(
        &mut self,
        phases: &mut Phases,
        deadline: Instant,
    ) -> Result<Duration, CallError> {
        self.report_end().await?;
        if !self.greeted && self.agreed.era == Era::Legacy {
            Box::pin(self.greet(phases, deadline)).await;
        }
        let proof = match self.agreed.era {
            Era::Modern => self.discover(phases, deadline).await,
            Era::Legacy if self.no_ping => self.first_page(phases, deadline).await,
            Era::Legacy => {
                match self
                    .ask(methods::PING, Params::default(), Phase::Request, phases, deadline)
                    .await
                {
                    Err(error) if is_ping_refusal(&error) && self.has_lists() => {
                        self.no_ping = true;
                        let text =
                            "`ping` is refused, though every revision with a handshake has it";
                        self.agreed.findings.push(Finding::new(FindingCode::Nonconforming, text));
                        self.first_page(phases, deadline).await
                    }
                    answered => answered.map(|answer| answer.latency),
                }
            }
        };
        self.proven |= proof.is_ok();
        proof
    }

    async fn discover(
        &mut self,
        phases: &mut Phases,
        deadline: Instant,
    ) -> Result<Duration, CallError> {
        let phase = Phase::Request;
        let answer =
            self.ask(methods::DISCOVER, Params::default(), phase, phases, deadline).await?;
        let Ok(result) = answer.payload else { return Ok(answer.latency) };
        if self.discovered.as_deref().is_some_and(|known| known.get() == result.get()) {
            return Ok(answer.latency);
        }
        let greeting = protocol::read_discover(&result).map_err(|shape| {
            let text = format!("the result of `{}` is out of shape: {shape}", methods::DISCOVER);
            self.error(FailureCode::InvalidMessage, phase, text)
        })?;
        if greeting.wants_input {
            return Err(self.error(FailureCode::InputRequired, phase, WANTS_INPUT.to_owned()));
        }
        self.agreed.capabilities = greeting.capabilities;
        let server = greeting.server.map(|server| identity(&server, &self.wire.options.redactor));
        self.agreed.server = server.or(self.agreed.server.take());
        self.discovered = Some(result).filter(|result| result.get().len() <= LONGEST_DISCOVERED);
        Ok(answer.latency)
    }

    fn has_lists(&self) -> bool {
        let Capabilities { tools, prompts, resources } = self.agreed.capabilities;
        tools || prompts || resources
    }

    async fn first_page(
        &mut self,
        phases: &mut Phases,
        deadline: Instant,
    ) -> Result<Duration, CallError> {
        let Capabilities { tools, prompts, .. } = self.agreed.capabilities;
        let method = match (tools, prompts) {
            (true, _) => methods::TOOLS_LIST,
            (false, true) => methods::PROMPTS_LIST,
            (false, false) => methods::RESOURCES_LIST,
        };
        let page = Params::page(None);
        Ok(self.ask(method, page, Phase::Request, phases, deadline).await?.latency)
    }

    /// A process that ended between two questions is told of at the next one.
    async fn report_end(&self) -> Result<(), CallError> {
        let WireKind::Process { process: Some(process), pipe } = &self.wire.kind else {
            return Ok(());
        };
        let Some(exit) = process.exit() else { return Ok(()) };
        let stderr = process.last_words().await;
        let samples = pipe.heard().samples;
        let remains = Remains { exit, stderr: &stderr, stdout: &samples, answered: true };
        let mut error = wire::exit_error(&remains, Phase::Request);
        if !stderr.is_empty() {
            error = error.with("stderr", stderr.clone());
        }
        Err(error.redacted(&self.wire.options.redactor))
    }

    /// Says that the session is open, until that got through. That it did not is no failure of its
    /// own: what is asked next meets the same trouble and names it better.
    async fn greet(&mut self, phases: &mut Phases, deadline: Instant) {
        let turn = Turn {
            method: methods::INITIALIZED,
            params: Params::default(),
            version: Some(&self.agreed.version),
            modern: false,
            phase: Phase::Handshake,
        };
        self.greeted = match self.wire.notify(turn, phases, deadline).await {
            Ok(()) => true,
            Err(error) => {
                let refused = error.status.is_some_and(|status| (400..500).contains(&status));
                if refused {
                    let text =
                        format!("`{}` is refused: {}", methods::INITIALIZED, error.failure.message);
                    self.agreed.findings.push(Finding::new(FindingCode::Nonconforming, text));
                }
                refused
            }
        };
    }

    /// Which way the conversation is opened again after this error, if it should be.
    fn way_back(&self, error: &CallError) -> Option<Ask> {
        let WireKind::Http { session, .. } = &self.wire.kind else { return None };
        match self.agreed.era {
            Era::Legacy => {
                let forgotten = match (error.status, session) {
                    (Some(404), _) => true,
                    // Several SDKs say 400 for a session they do not know (any more).
                    (Some(400), Some(_)) => self.proven,
                    (Some(400), None) => true,
                    _ => false,
                };
                forgotten.then(Ask::initialize)
            }
            Era::Modern => {
                let situation = Situation {
                    choice: self.wire.options.protocol,
                    remembered: Some(Era::Modern),
                    discoveries: 1,
                    handshakes: 0,
                };
                match next(&situation, &Ask::discover(), &Seen::from_error(error)) {
                    Next::Try(ask) => Some(ask),
                    _ => None,
                }
            }
        }
    }

    async fn reopen(
        &mut self,
        ask: Ask,
        error: CallError,
        phases: &mut Phases,
        deadline: Instant,
    ) -> Result<(), CallError> {
        let had_session = self.agreed.era == Era::Legacy && self.is_kept_by_server();
        let situation = Situation {
            choice: self.wire.options.protocol,
            remembered: Some(self.agreed.era),
            discoveries: u8::from(self.agreed.era == Era::Modern),
            handshakes: 0,
        };
        self.agreed =
            open::over_http(&mut self.wire, situation, ask, Some(error), phases, deadline).await?;
        (self.greeted, self.proven, self.no_ping) = (false, false, false);
        // The same words may mean another thing in another era.
        (self.discovered, self.known_lists) = (None, Known::default());
        if had_session {
            let text = "the server forgot the session; a new one was opened";
            self.wire.notes.push(Finding::new(FindingCode::SessionNotKept, text));
        }
        Ok(())
    }

    /// Sends a request in this session's revision.
    pub(crate) async fn ask(
        &mut self,
        method: &str,
        params: Params<'_>,
        phase: Phase,
        phases: &mut Phases,
        deadline: Instant,
    ) -> Result<Answer, CallError> {
        let turn = Turn {
            method,
            params,
            version: Some(&self.agreed.version),
            modern: self.agreed.era == Era::Modern,
            phase,
        };
        self.wire.call(turn, phases, deadline).await
    }

    pub(crate) fn error(&self, code: FailureCode, phase: Phase, message: String) -> CallError {
        CallError::new(code, phase, message).redacted(&self.wire.options.redactor)
    }

    pub(crate) fn redactor(&self) -> &Redactor {
        &self.wire.options.redactor
    }

    /// Ends the session. A process has its input closed and is ended, in `endings` if it takes
    /// long; a session id is given back by DELETE if `terminate` and if that is known not to hurt
    /// the server.
    pub async fn close(self, terminate: bool, endings: &mut Endings) {
        match self.wire.kind {
            WireKind::Process { pipe, process } => endings.add(pipe, process),
            WireKind::Http { mut channel, session: Some(session) } => {
                if terminate && !protocol::is_broken_by_delete(self.agreed.server.as_ref()) {
                    let deadline = Instant::now() + GRACE;
                    channel.end_session(&session, &self.agreed.version, deadline).await;
                }
            }
            WireKind::Http { session: None, .. } => {}
        }
    }
}

/// Longest name or version of a server that is told, in characters.
const LONGEST_IDENTITY: usize = 200;

fn identity(server: &ServerIdentity, redactor: &Redactor) -> ServerIdentity {
    ServerIdentity {
        name: truncate(&told(&server.name, redactor), LONGEST_IDENTITY),
        version: truncate(&told(&server.version, redactor), LONGEST_IDENTITY),
    }
}

/// Longest answer to a discovery that is remembered, in bytes.
const LONGEST_DISCOVERED: usize = 4 * 1024;

const WANTS_INPUT: &str = "the server wants input from a user before it goes on";

/// Whether it is `ping` that the server does not know, and not the session.
fn is_ping_refusal(error: &CallError) -> bool {
    match error.rpc_code() {
        Some(codes::METHOD_NOT_FOUND) => true,
        Some(codes::INVALID_PARAMS) => !matches!(error.status, Some(400 | 404)),
        _ => false,
    }
}

fn noise_findings(heard: &crate::pipe::Heard, redactor: &Redactor) -> Vec<Finding> {
    let mut findings = Vec::new();
    let noise = heard.noise + heard.broken + heard.misshapen;
    if noise > 0 {
        let lines = if noise == 1 { "line" } else { "lines" };
        let text = format!("{noise} {lines} on standard output that are no MCP messages");
        let samples: Vec<_> = heard.samples.iter().map(|line| told(line, redactor)).collect();
        findings.push(Finding::new(FindingCode::StdoutNoise, text).with("stdout", samples));
    }
    if heard.duplicate > 0 {
        let text = format!("{} requests were answered twice", heard.duplicate);
        findings.push(Finding::new(FindingCode::DuplicateResponse, text));
    }
    if heard.stray > 0 {
        let text = format!("{} answers came to what was never asked", heard.stray);
        findings.push(Finding::new(FindingCode::Nonconforming, text));
    }
    findings
}
