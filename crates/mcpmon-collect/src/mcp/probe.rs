//! Asks one MCP service one question at a time, and holds its session between them.
//!
//! What a session is differs (a process, an id, nothing), what a check is does not: have a
//! session, time one request on it, read the lists if that is the question. Findings of the last
//! reading of the lists stand until the next, so that a service with an invalid tool is not well
//! again at the next heartbeat.

mod calls;

use std::sync::Arc;
use std::time::{Duration, Instant as StdInstant};

use async_trait::async_trait;
use mcpmon_core::failure::{Failure, FailureCode, Finding, FindingCode, Phase};
use mcpmon_core::observation::{
    CallObservation, Conversation, Lists, Observation, Outcome, Phases, Question,
};
use mcpmon_core::probe::Probe;
use mcpmon_core::service::{ServiceSpec, StdioSpec, Transport};
use mcpmon_core::status::Status;
use mcpmon_core::time::Timestamp;
use mcpmon_mcp::child::Launch;
use mcpmon_mcp::error::{redact_fact, redact_failure, told};
use mcpmon_mcp::expiry;
use mcpmon_mcp::http::MAX_RETRY_AFTER;
use mcpmon_mcp::{CallError, Endings, Memory, Session, SessionOptions};
use tokio::time::{Instant, timeout, timeout_at};

use self::calls::Callable;
use super::Shared;
use super::places::{NoPlace, Standing, was_late};
use crate::dependency;

/// A start that takes longer than this is worth a finding.
const SLOW_START: Duration = Duration::from_secs(10);
/// Measuring a process tree may take this long.
const SAMPLE_LIMIT: Duration = Duration::from_secs(1);

/// The probe of one MCP service.
#[derive(Debug)]
pub struct McpProbe {
    shared: Arc<Shared>,
    spec: Arc<ServiceSpec>,
    options: Arc<SessionOptions>,
    held: Option<Held>,
    endings: Endings,
    /// How it was reached last, to open the next session the right way at once.
    memory: Memory,
    /// How its starts went, which decides who gets a place for a process first.
    standing: Standing,
    last_failure: Option<Failure>,
    /// When the configured token ends, if it says so.
    token_end: Option<Timestamp>,
    /// It said while it answered that a list is another now.
    list_changed: bool,
}

/// A session, and what is known on it.
#[derive(Debug)]
struct Held {
    session: Session,
    listed: Option<Listed>,
}

#[derive(Debug)]
struct Listed {
    tools_count: u32,
    tool_tokens: u64,
    findings: Vec<Finding>,
    ttl: Option<Duration>,
    callable: Callable,
}

impl Held {
    async fn read_lists(
        &mut self,
        spec: &ServiceSpec,
        check: &mut Check,
        deadline: Instant,
    ) -> Result<(), CallError> {
        let reading = self.session.read_changed_lists(&mut check.phases, deadline).await?;
        if let Some(reading) = reading {
            self.listed = Some(Listed {
                tools_count: u32::try_from(reading.lists.tools.len()).unwrap_or(u32::MAX),
                tool_tokens: reading.tool_tokens,
                findings: reading.findings,
                ttl: reading.ttl,
                callable: calls::callable(spec, &reading.lists),
            });
            check.lists = Some(reading.lists);
        }
        check.list_ttl = self.listed.as_ref().and_then(|listed| listed.ttl);
        Ok(())
    }

    async fn make_calls(
        &mut self,
        spec: &ServiceSpec,
        options: &SessionOptions,
        check: &mut Check,
        deadline: Instant,
    ) -> Result<(), CallError> {
        if self.listed.is_none() {
            self.read_lists(spec, check, deadline).await?;
        }
        let none = Callable::new();
        let tools = self.listed.as_ref().map_or(&none, |listed| &listed.callable);
        check.calls = calls::make(spec, options, tools, &mut self.session, deadline).await;
        Ok(())
    }
}

/// One question while it is being answered.
#[derive(Debug, Default)]
struct Check {
    phases: Phases,
    findings: Vec<Finding>,
    latency: Option<Duration>,
    lists: Option<Lists>,
    list_ttl: Option<Duration>,
    started_process: bool,
    calls: Vec<CallObservation>,
}

impl McpProbe {
    pub(super) fn new(
        shared: Arc<Shared>,
        spec: Arc<ServiceSpec>,
        options: SessionOptions,
    ) -> Self {
        let token_end = match &spec.transport {
            Transport::Http(http) | Transport::Sse(http) => expiry::token_expires(http),
            Transport::Stdio(_) => None,
        };
        Self {
            shared,
            spec,
            options: Arc::new(options),
            held: None,
            endings: Endings::default(),
            memory: Memory::default(),
            standing: Standing::default(),
            last_failure: None,
            token_end,
            list_changed: false,
        }
    }

    async fn answer(
        &mut self,
        question: Question,
        check: &mut Check,
        deadline: Instant,
    ) -> Result<(), CallError> {
        self.let_go_of_what_was_lost().await;
        match question {
            Question::Heartbeat if self.held.is_none() => return Err(self.nothing_held()),
            // Boxed, like everything that is rare: a check's own future stays small.
            _ if self.held.is_none() => {
                Box::pin(self.open_session(check, deadline)).await?;
            }
            _ => {}
        }
        let Some(held) = &mut self.held else { return Err(self.nothing_held()) };
        if question == Question::List {
            held.session.begin_run();
        }
        let latency = held.session.prove_life(&mut check.phases, deadline).await?;
        check.latency = Some(latency);
        let threshold = self.spec.limits.response_time_threshold;
        check.findings.extend(slow_response(latency, threshold));
        match question {
            Question::List => held.read_lists(&self.spec, check, deadline).await,
            Question::Functional => {
                Box::pin(held.make_calls(&self.spec, &self.options, check, deadline)).await
            }
            _ => Ok(()),
        }
    }

    /// Says nothing of the service itself, whose session is left alone.
    async fn look_at_dependencies(&self, deadline: Instant) -> Observation {
        let started = Instant::now();
        let mut observation = Observation::answered();
        observation.dependencies = dependency::look(&self.spec, &self.shared.http, deadline).await;
        for seen in &mut observation.dependencies {
            seen.problem = seen.problem.as_deref().map(|text| told(text, &self.options.redactor));
        }
        observation.total = started.elapsed();
        observation
    }

    /// Why a heartbeat that has nothing to ask finds the service as it was found last.
    fn nothing_held(&self) -> CallError {
        match &self.last_failure {
            Some(failure) => CallError::from(failure.clone()),
            None => CallError::new(
                FailureCode::MonitorOverloaded,
                Phase::Prepare,
                "no session is held yet; a health check opens one",
            ),
        }
    }

    async fn open_session(
        &mut self,
        check: &mut Check,
        deadline: Instant,
    ) -> Result<(), CallError> {
        let spec = Arc::clone(&self.spec);
        let mut session = match &spec.transport {
            Transport::Stdio(stdio) => self.start_process(stdio, check, deadline).await?,
            Transport::Http(http) => {
                let (client, options) = (&self.shared.http, &self.options);
                let (memory, phases) = (&mut self.memory, &mut check.phases);
                let session = Session::open_http(client, http, options, memory, phases, deadline);
                session.await?
            }
            Transport::Sse(http) => {
                let (client, options) = (&self.shared.http, &self.options);
                let phases = &mut check.phases;
                let session = Session::open_events(client, http, options, phases, deadline);
                session.await?
            }
        };
        self.memory.era = Some(session.era());
        session.set_template_support(self.memory.templates);
        self.held = Some(Held { session, listed: None });
        Ok(())
    }

    async fn start_process(
        &mut self,
        stdio: &StdioSpec,
        check: &mut Check,
        deadline: Instant,
    ) -> Result<Session, CallError> {
        let overloaded = |why: NoPlace| {
            let code = FailureCode::MonitorOverloaded;
            CallError::new(code, Phase::Prepare, why.to_string())
        };
        self.wait_for_predecessor(deadline).await;
        let shared = Arc::clone(&self.shared);
        let asked = Instant::now();
        let taken = shared.places.take(self.standing, deadline).await;
        let place = Arc::new(taken.map_err(overloaded)?);
        let had_place = Instant::now();
        check.started_process = true;
        let launch =
            Launch { guardian: shared.guardian.as_ref(), lease: Some(Arc::clone(&place) as _) };
        let open = Session::open_process(
            stdio,
            &launch,
            &self.options,
            self.memory.era,
            &mut self.endings,
            &mut check.phases,
            deadline,
        );
        let opened = match shared.places.start(&place, open).await {
            Ok(opened) => opened,
            Err(yielded) => {
                self.standing = self.standing.after_failure();
                return Err(overloaded(yielded));
            }
        };
        match &opened {
            Ok(_) => {
                shared.places.answered(&place);
                self.standing = Standing::Proven;
                check.findings.extend(slow_start(&check.phases));
            }
            // What is our own trouble says nothing of the service.
            Err(error) if error.code().status() == Status::Unknown => {}
            Err(error) if error.code().is_timeout() && was_late(asked, had_place, deadline) => {
                return Err(overloaded(NoPlace::Late { waited: had_place - asked }));
            }
            Err(_) => self.standing = self.standing.after_failure(),
        }
        opened
    }

    /// A process may still be on its way out when its successor is due; two at once would be one
    /// too many.
    async fn wait_for_predecessor(&mut self, deadline: Instant) {
        if timeout_at(deadline, self.endings.all()).await.is_err() {
            self.endings.kill().await;
        }
    }

    /// Takes what a check left behind, and gives what it saw.
    async fn observe(
        &mut self,
        check: Check,
        outcome: Result<(), CallError>,
        started: Instant,
    ) -> Observation {
        let total = started.elapsed();
        let retry_after = outcome.as_ref().err().and_then(|error| error.retry_after);
        let mut observation = match outcome {
            Ok(()) => Observation::answered(),
            Err(error) => Observation::failed(*error.failure),
        };
        observation.total = total;
        observation.findings = check.findings;
        observation.latency = check.latency;
        observation.phases = check.phases;
        observation.lists = check.lists;
        observation.list_ttl = check.list_ttl;
        observation.restarted = check.started_process;
        observation.retry_after = retry_after.map(|span| span.min(MAX_RETRY_AFTER));
        if let Some(held) = &mut self.held {
            held.session.end_run();
            self.memory.era = Some(held.session.era());
            self.memory.templates = held.session.template_support();
            self.list_changed |= held.session.take_list_changed();
            observation.findings.extend(held.session.take_findings());
            observation.conversation = held.session.conversation();
            if let Some(listed) = &held.listed {
                observation.findings.extend(listed.findings.iter().cloned());
                observation.tools_count = Some(listed.tools_count);
                observation.tool_list_tokens = Some(listed.tool_tokens);
            }
        } else {
            let era = self.memory.era;
            observation.conversation = Conversation { era, ..Conversation::default() };
        }
        self.note_what_ends(&mut observation);
        self.let_go_of_what_ended().await;
        observation.findings.extend(self.endings.take_findings());
        observation.active_connections = Some(self.open_sessions());
        observation.process = self.sample().await;
        self.redact(&mut observation);
        self.last_failure = observation.failure().cloned();
        // A wrong result says nothing of the session, so no heartbeat repeats it.
        if let (Outcome::Answered, Some(failure)) =
            (&observation.outcome, calls::first_failure(&check.calls))
        {
            observation.outcome = Outcome::Failed(failure);
        }
        observation.calls = check.calls;
        observation
    }

    /// A session whose process was lost by our own doing is opened again without a word.
    async fn let_go_of_what_was_lost(&mut self) {
        if let Some(held) = self.held.take_if(|held| held.session.is_lost()) {
            Box::pin(held.session.close(false, &mut self.endings)).await;
        }
    }

    /// Certificates and tokens that end soon, or have ended.
    fn note_what_ends(&self, observation: &mut Observation) {
        let (Transport::Http(http) | Transport::Sse(http)) = &self.spec.transport else { return };
        let now = self.shared.clock.now();
        let certificate = self.shared.http.certificate_end(http);
        let soon = certificate.and_then(|end| expiry::certificate_finding(end, now));
        observation.findings.extend(soon);
        if let Some(end) = self.token_end {
            observation.findings.extend(expiry::token_finding(end, now));
            if let Outcome::Failed(failure) = &mut observation.outcome {
                expiry::blame_token(failure, end, now);
            }
        }
    }

    async fn let_go_of_what_ended(&mut self) {
        if let Some(held) = self.held.take_if(|held| held.session.has_ended()) {
            Box::pin(held.session.close(false, &mut self.endings)).await;
        }
    }

    fn open_sessions(&self) -> u32 {
        u32::from(self.held.as_ref().is_some_and(|held| held.session.is_kept_by_server()))
    }

    async fn sample(&self) -> Option<mcpmon_core::metrics::ProcessMetrics> {
        let sampler = self.shared.sampler.as_ref()?;
        let pid = self.held.as_ref()?.session.process_id()?;
        timeout(SAMPLE_LIMIT, sampler.tree(pid)).await.ok()?
    }

    /// Errors, identity and lists were redacted where they arose; what is left are the words of
    /// findings, and of failures that came with the configuration.
    fn redact(&self, observation: &mut Observation) {
        let redactor = &self.options.redactor;
        if let Outcome::Failed(failure) = &mut observation.outcome {
            redact_failure(failure, redactor);
        }
        for finding in &mut observation.findings {
            finding.message = told(&finding.message, redactor);
            finding.evidence.values_mut().for_each(|fact| redact_fact(fact, redactor));
        }
    }
}

fn slow_response(latency: Duration, threshold: Duration) -> Option<Finding> {
    (latency > threshold).then(|| {
        let text = format!(
            "answered in {:.1} s, over `response_time_threshold` of {}",
            latency.as_secs_f64(),
            mcpmon_core::duration::format(threshold)
        );
        Finding::new(FindingCode::SlowResponse, text)
            .with("latency_ms", latency.as_secs_f64() * 1_000.0)
    })
}

fn slow_start(phases: &Phases) -> Option<Finding> {
    let millis = phases.spawn_ms.unwrap_or(0.0) + phases.handshake_ms.unwrap_or(0.0);
    (millis > SLOW_START.as_secs_f64() * 1_000.0).then(|| {
        let text = format!("took {:.1} s from start to first answer", millis / 1_000.0);
        Finding::new(FindingCode::SlowStart, text).with("start_ms", millis)
    })
}

#[async_trait]
impl Probe for McpProbe {
    async fn ask(&mut self, question: Question, deadline: StdInstant) -> Observation {
        let started = Instant::now();
        if question == Question::Dependency {
            return self.look_at_dependencies(Instant::from_std(deadline)).await;
        }
        let mut check = Check::default();
        let outcome = match &self.spec.invalid {
            Some(failure) => Err(CallError::from(failure.clone())),
            None => self.answer(question, &mut check, Instant::from_std(deadline)).await,
        };
        self.observe(check, outcome, started).await
    }

    async fn woken(&mut self) {
        if std::mem::take(&mut self.list_changed) {
            return;
        }
        match &self.held {
            Some(held) => held.session.woken().await,
            None => std::future::pending().await,
        }
    }

    async fn close(&mut self) {
        if let Some(held) = self.held.take() {
            held.session.close(true, &mut self.endings).await;
        }
        self.endings.all().await;
    }
}
