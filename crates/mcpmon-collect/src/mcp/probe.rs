//! Asks one MCP service one question at a time, and holds its session between them.
//!
//! What a session is differs (a process, an id, nothing), what a check is does not: have a
//! session, time one request on it, read the lists if that is the question. Findings of the last
//! reading of the lists stand until the next, so that a service with an invalid tool is not well
//! again at the next heartbeat.

use std::sync::Arc;
use std::time::{Duration, Instant as StdInstant};

use async_trait::async_trait;
use mcpmon_core::failure::{Failure, FailureCode, Finding, FindingCode, Phase};
use mcpmon_core::observation::{Conversation, Lists, Observation, Outcome, Phases, Question};
use mcpmon_core::probe::Probe;
use mcpmon_core::service::{ServiceSpec, Transport};
use mcpmon_core::status::Era;
use mcpmon_mcp::error::{redact_fact, redact_failure, told};
use mcpmon_mcp::http::MAX_RETRY_AFTER;
use mcpmon_mcp::{CallError, Endings, Session, SessionOptions};
use tokio::time::{Instant, timeout, timeout_at};

use super::{Place, Shared};

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
    /// The era it spoke last, to open the next session the right way at once.
    era: Option<Era>,
    last_failure: Option<Failure>,
    /// It said while it answered that a list is another now.
    list_changed: bool,
}

/// A session, and what is known on it.
#[derive(Debug)]
struct Held {
    session: Session,
    /// For a process.
    _place: Option<Place>,
    listed: Option<Listed>,
}

#[derive(Debug)]
struct Listed {
    tools_count: u32,
    findings: Vec<Finding>,
    ttl: Option<Duration>,
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
}

impl McpProbe {
    pub(super) fn new(
        shared: Arc<Shared>,
        spec: Arc<ServiceSpec>,
        options: SessionOptions,
    ) -> Self {
        Self {
            shared,
            spec,
            options: Arc::new(options),
            held: None,
            endings: Endings::default(),
            era: None,
            last_failure: None,
            list_changed: false,
        }
    }

    async fn answer(
        &mut self,
        question: Question,
        check: &mut Check,
        deadline: Instant,
    ) -> Result<(), CallError> {
        match question {
            Question::Heartbeat => {
                if self.held.is_none() {
                    return Err(self.nothing_held());
                }
            }
            // Boxed, like everything that is rare: a check's own future stays small.
            Question::Health | Question::List if self.held.is_none() => {
                Box::pin(self.open_session(check, deadline)).await?;
            }
            Question::Health | Question::List => {}
            _ => {
                let text = format!("a {} check is not this probe's to make", question.as_str());
                return Err(CallError::new(FailureCode::FunctionalRefused, Phase::Prepare, text));
            }
        }
        let Some(held) = &mut self.held else { return Err(self.nothing_held()) };
        let latency = held.session.prove_life(&mut check.phases, deadline).await?;
        check.latency = Some(latency);
        let threshold = self.spec.limits.response_time_threshold;
        check.findings.extend(slow_response(latency, threshold));
        if question == Question::List {
            let reading = held.session.read_changed_lists(&mut check.phases, deadline).await?;
            if let Some(reading) = reading {
                held.listed = Some(Listed {
                    tools_count: u32::try_from(reading.lists.tools.len()).unwrap_or(u32::MAX),
                    findings: reading.findings,
                    ttl: reading.ttl,
                });
                check.lists = Some(reading.lists);
            }
            check.list_ttl = held.listed.as_ref().and_then(|listed| listed.ttl);
        }
        Ok(())
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
        let (session, place) = match &spec.transport {
            Transport::Stdio(stdio) => {
                let overloaded = |error: super::NoPlace| {
                    CallError::new(
                        FailureCode::MonitorOverloaded,
                        Phase::Prepare,
                        error.to_string(),
                    )
                };
                let places = self.shared.places.clone();
                let place = places.hold(deadline).await.map_err(overloaded)?;
                self.wait_for_predecessor(deadline).await;
                check.started_process = true;
                let open = Session::open_process(
                    stdio,
                    &self.options,
                    self.era,
                    &mut self.endings,
                    &mut check.phases,
                    deadline,
                );
                let session = places.start(open, deadline).await.map_err(overloaded)??;
                check.findings.extend(slow_start(&check.phases));
                (session, Some(place))
            }
            Transport::Http(http) => {
                let client = &self.shared.http;
                let phases = &mut check.phases;
                let session =
                    Session::open_http(client, http, &self.options, self.era, phases, deadline);
                (session.await?, None)
            }
            Transport::Sse(_) => {
                return Err(CallError::new(
                    FailureCode::ConfigurationInvalid,
                    Phase::Prepare,
                    "`type` is `sse`: the deprecated HTTP+SSE transport cannot be asked yet",
                ));
            }
        };
        self.era = Some(session.era());
        self.held = Some(Held { session, _place: place, listed: None });
        Ok(())
    }

    /// A process may still be on its way out when its successor is due; two at once would be one
    /// too many.
    async fn wait_for_predecessor(&mut self, deadline: Instant) {
        if timeout_at(deadline, self.endings.all()).await.is_err() {
            self.endings = Endings::default();
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
            self.era = Some(held.session.era());
            self.list_changed |= held.session.take_list_changed();
            observation.findings.extend(held.session.take_findings());
            observation.conversation = held.session.conversation();
            if let Some(listed) = &held.listed {
                observation.findings.extend(listed.findings.iter().cloned());
                observation.tools_count = Some(listed.tools_count);
            }
        } else {
            observation.conversation = Conversation { era: self.era, ..Conversation::default() };
        }
        self.let_go_of_what_ended().await;
        observation.active_connections = Some(self.open_sessions());
        observation.process = self.sample().await;
        self.redact(&mut observation);
        self.last_failure = observation.failure().cloned();
        observation
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
            held.session.close(self.spec.terminate_session, &mut self.endings).await;
        }
        self.endings.all().await;
    }
}
