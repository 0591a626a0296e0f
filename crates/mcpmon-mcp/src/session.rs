//! A conversation with one server, whichever era it speaks and whatever carries it.
//!
//! A session is opened once and held: it is what makes a check cheap for the server and its
//! timing fair. It answers three questions: does the server live ([`Session::prove_life`]), what
//! does it offer ([`Session::read_lists`]), and who is it ([`Session::conversation`]).

mod call;
mod endings;
mod events;
mod memory;
mod open;
mod reopen;
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
use sha2::{Digest as _, Sha256};
use tokio::time::Instant;

pub use self::call::{Called, ListedTool};
pub use self::endings::Endings;
pub use self::memory::Memory;
use self::wire::{Turn, Wire, WireKind};
use crate::child::{self, ChildProcess, GRACE};
use crate::error::{CallError, told};
use crate::forensics::Remains;
use crate::inbox::{Answer, Heard, Payload};
use crate::jsonrpc::{Echo, Recall, codes};
use crate::lists::{Known, TemplateSupport};
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
    /// Whether a session id is given back by DELETE when it is of no more use.
    pub terminate_session: bool,
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
            terminate_session: true,
            redactor: Redactor::default(),
        }
    }
}

/// What an opened conversation agreed on.
#[derive(Debug, Clone)]
struct Agreed {
    era: Era,
    version: String,
    capabilities: Capabilities,
    server: Option<ServerIdentity>,
    /// The server's instructions for a model: without secrets, capped.
    instructions: Option<Box<str>>,
    /// What is suspicious in the last greeting.
    suspicion: Option<Finding>,
    /// Breaches seen in the handshake; they hold for as long as the session.
    findings: Vec<Finding>,
}

/// The last good answer to a discovery.
#[derive(Debug)]
enum Discovered {
    /// As a body that is known again.
    Echo(Echo),
    /// As text, where it did not come as a body of its own.
    Text(Box<RawValue>),
}

impl Discovered {
    fn new(result: Box<RawValue>, echo: Option<Echo>) -> Option<Self> {
        match echo {
            Some(echo) => Some(Self::Echo(echo)),
            None if result.get().len() <= LONGEST_DISCOVERED => Some(Self::Text(result)),
            None => None,
        }
    }

    fn echo(&self) -> Option<&Echo> {
        match self {
            Self::Echo(echo) => Some(echo),
            Self::Text(_) => None,
        }
    }

    fn is_text(&self, result: &RawValue) -> bool {
        matches!(self, Self::Text(text) if text.get() == result.get())
    }
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
    discovered: Option<Discovered>,
    /// The lists as they were read last.
    pub(crate) known_lists: Known,
    /// What requests for its resource templates led to.
    pub(crate) templates: TemplateSupport,
    /// Whether the end of the process was told by [`Session::woken`].
    told_of_exit: AtomicBool,
    /// It could not be opened again the way it was opened.
    lost: bool,
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

    /// The server's instructions for a model: without secrets, capped, otherwise as they came.
    pub fn instructions(&self) -> Option<&str> {
        self.agreed.instructions.as_deref()
    }

    /// What requests for the server's resource templates led to, for the next session
    /// ([`Session::set_template_support`]).
    pub fn template_support(&self) -> TemplateSupport {
        self.templates
    }

    /// Takes over what an earlier session with the same server learned about its resource
    /// templates.
    pub fn set_template_support(&mut self, support: TemplateSupport) {
        self.templates = support;
    }

    /// The process id of a server we started, which is its process group's too.
    pub fn process_id(&self) -> Option<u32> {
        match &self.wire.kind {
            WireKind::Process { process, .. } => process.as_ref().map(ChildProcess::id),
            WireKind::Http { .. } | WireKind::Events { .. } => None,
        }
    }

    /// Whether this session is one the server keeps: a process, a session id, or an event stream.
    pub fn is_kept_by_server(&self) -> bool {
        match &self.wire.kind {
            WireKind::Process { .. } => true,
            WireKind::Http { session, .. } => session.is_some(),
            WireKind::Events { stream, .. } => !stream.has_ended(),
        }
    }

    /// Whether the far side is known to be gone, so that only a new session can help.
    pub fn has_ended(&self) -> bool {
        match &self.wire.kind {
            WireKind::Process { pipe, process } => {
                pipe.has_ended() || process.as_ref().is_some_and(|process| process.exit().is_some())
            }
            // Where only the session is gone, the next question opens another one.
            WireKind::Http { .. } | WireKind::Events { .. } => self.lost,
        }
    }

    /// Whether its process was lost by our own doing, so that its end says nothing of the service.
    pub fn is_lost(&self) -> bool {
        match &self.wire.kind {
            WireKind::Process { process, .. } => {
                process.as_ref().is_some_and(ChildProcess::is_lost)
            }
            _ => false,
        }
    }

    /// Resolves when the process ended, its output closed, the event stream ended, or it said that a
    /// list changed. Cancel-safe. Over streamable HTTP there is no such word between requests, and it never resolves.
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
            WireKind::Events { stream, .. } => stream.woken().await,
            WireKind::Http { .. } => std::future::pending().await,
        }
    }

    /// Has the requests from here to [`Session::end_run`] follow one another on one connection
    /// over HTTP, so that a place among the connections of its origin is waited for once. Between
    /// the two nobody else has the connection.
    pub fn begin_run(&mut self) {
        if let WireKind::Http { channel, .. } = &mut self.wire.kind {
            channel.begin_run();
        }
    }

    /// Leaves the connection to others.
    pub fn end_run(&mut self) {
        if let WireKind::Http { channel, .. } = &mut self.wire.kind {
            channel.end_run();
        }
    }

    /// Whether the server said, while it answered, that a list is another now; tells once.
    pub fn take_list_changed(&mut self) -> bool {
        std::mem::take(&mut self.wire.list_changed)
    }

    /// The oddities of the handshake, and those of the messages since this was last asked.
    pub fn take_findings(&mut self) -> Vec<Finding> {
        let mut findings = self.agreed.findings.clone();
        findings.extend(self.agreed.suspicion.clone());
        findings.append(&mut self.wire.notes);
        let heard = match &self.wire.kind {
            WireKind::Process { pipe, .. } => pipe.take_heard(),
            WireKind::Events { stream, .. } => stream.take_heard(),
            WireKind::Http { .. } => return findings,
        };
        findings.extend(heard_findings(&heard, self.agreed.era, &self.wire.options.redactor));
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
        if let WireKind::Events { stream, .. } = &self.wire.kind
            && stream.has_ended()
        {
            Box::pin(self.reopen_stream(phases, deadline)).await?;
            return self.prove_once(phases, deadline).await;
        }
        match self.prove_once(phases, deadline).await {
            Ok(latency) => Ok(latency),
            Err(error) if self.is_stream_lost(&error) => {
                Box::pin(self.reopen_stream(phases, deadline)).await?;
                self.prove_once(phases, deadline).await
            }
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
        let known = self.discovered.take();
        let recall = Recall::from(known.as_ref().and_then(Discovered::echo));
        let params = Params::default();
        let answer =
            self.recall(methods::DISCOVER, params, phase, recall, phases, deadline).await?;
        let (result, echo) = match answer.payload {
            Ok(Payload::New(result, echo)) => (result, echo),
            Ok(Payload::Same(_)) => {
                self.discovered = known;
                return Ok(answer.latency);
            }
            Err(_) => return Ok(answer.latency),
        };
        if known.as_ref().is_some_and(|known| known.is_text(&result)) {
            self.discovered = known;
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
        self.agreed.suspicion = open::suspicion(&greeting);
        let redactor = &self.wire.options.redactor;
        let instructions = greeting.instructions.map(|text| instructions(&text, redactor));
        if self.agreed.instructions != instructions {
            self.agreed.instructions = instructions;
            // The lists contain them, so they changed although their pages may not have.
            self.known_lists = Known::default();
        }
        let server = greeting.server.map(|server| identity(&server, &self.wire.options.redactor));
        self.agreed.server = server.or(self.agreed.server.take());
        self.discovered = Discovered::new(result, echo);
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
        if process.is_lost() {
            return Err(child::lost(Phase::Request));
        }
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

    /// Sends a request in this session's revision.
    pub(crate) async fn ask(
        &mut self,
        method: &str,
        params: Params<'_>,
        phase: Phase,
        phases: &mut Phases,
        deadline: Instant,
    ) -> Result<Answer, CallError> {
        self.recall(method, params, phase, Recall::No, phases, deadline).await
    }

    /// The same, where the answer may be one that is remembered.
    pub(crate) async fn recall(
        &mut self,
        method: &str,
        params: Params<'_>,
        phase: Phase,
        recall: Recall<'_>,
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
        self.wire.recall(turn, recall, phases, deadline).await
    }

    pub(crate) fn error(&self, code: FailureCode, phase: Phase, message: String) -> CallError {
        CallError::new(code, phase, message).redacted(&self.wire.options.redactor)
    }

    pub(crate) fn max_body(&self) -> usize {
        self.wire.options.max_body
    }

    pub(crate) fn redactor(&self) -> &Redactor {
        &self.wire.options.redactor
    }

    /// Ends the session. A process has its input closed and is ended, in `endings` if it takes
    /// long; an event stream is closed; a session id is given back by DELETE if `terminate`, unless
    /// [`SessionOptions::terminate_session`] forbids it or that is known to hurt the server.
    pub async fn close(self, terminate: bool, endings: &mut Endings) {
        let version = self.agreed.version.as_str();
        match self.wire.kind {
            WireKind::Process { pipe, process } => endings.add(pipe, process),
            WireKind::Http { mut channel, session: Some(session) } => {
                let may = terminate && self.wire.options.terminate_session;
                if may && !protocol::is_broken_by_delete(self.agreed.server.as_ref(), version) {
                    let deadline = Instant::now() + GRACE;
                    let named = Some(version).filter(|named| protocol::has_version_header(named));
                    channel.end_session(&session, named, deadline).await;
                }
            }
            WireKind::Http { session: None, .. } | WireKind::Events { .. } => {}
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

/// Longest instructions kept whole, in characters.
const LONGEST_INSTRUCTIONS: usize = 64 * 1024;

/// Instructions as they are kept. Of absurdly long ones the beginning and a digest of the whole,
/// so that no change of them is missed.
fn instructions(text: &str, redactor: &Redactor) -> Box<str> {
    // Before it is cut: half a secret would not be found any more.
    let text = redactor.redact(text);
    let Some((end, _)) = text.char_indices().nth(LONGEST_INSTRUCTIONS) else {
        return text.into_boxed_str();
    };
    let digest = Sha256::digest(text.as_bytes());
    let digest = digest.iter().fold(String::new(), |hex, byte| format!("{hex}{byte:02x}"));
    let kept = &text[..end];
    format!("{kept}\u{2026} [cut; {} bytes, SHA-256 {digest}]", text.len()).into_boxed_str()
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

fn heard_findings(heard: &Heard, era: Era, redactor: &Redactor) -> Vec<Finding> {
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
    if let Some(asked) = heard.first_asked.as_ref().filter(|_| era == Era::Modern) {
        let asked = told(asked, redactor);
        let text = format!("the server asked for `{asked}`, which this revision forbids");
        findings.push(Finding::new(FindingCode::Nonconforming, text));
    }
    findings
}

#[cfg(test)]
mod tests {
    use mcpmon_core::secret::Secret;

    use super::*;

    #[test]
    fn instructions_are_kept_without_secrets_and_bounded_with_all_of_them_in_the_digest() {
        let redactor = Redactor::new([&Secret::new("hunter22")]);
        assert_eq!(&*instructions("use hunter22\r\n", &redactor), "use ***\r\n");
        let long = "\u{e9}".repeat(LONGEST_INSTRUCTIONS);
        assert_eq!(*instructions(&long, &redactor), *long);
        // A secret that the cut goes through.
        let kept = instructions(&format!("{}hunter22", &long[6..]), &redactor);
        assert!(kept.ends_with("\u{e9}***"), "{}", &kept[kept.len() - 20..]);
        let (one, two) = (format!("{long}one"), format!("{long}two"));
        let (one, two) = (instructions(&one, &redactor), instructions(&two, &redactor));
        assert_ne!(one, two);
        assert!(one.len() < long.len() + 200 && one.starts_with(&long));
    }
}
