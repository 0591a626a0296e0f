//! Repairs: what was decided is recorded, carried out beside the loop, verified by checks, and
//! recorded again with what came of it.
//!
//! What to do is decided by [`mcpmon_alert::remediation`], once a second, from the service's state
//! and what was tried before; how, a [`Remedy`] knows. The loop never waits for either: an action
//! is a task of its own, and so is the writing of records. The attempts of the last hour are taken
//! up from those records at the start, so that a restart of the monitor lends nobody five more.

mod case;
mod record;

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use mcpmon_alert::remediation::{self, Decision, ProcessLife, Situation, WINDOW};
use mcpmon_core::monitor::MonitorEvent;
use mcpmon_core::remedy::{
    AuditEntry, AuditQuery, Grip, Remedy, RemedyReport, Repair, RepairOutcome,
};
use mcpmon_core::service::{RemediationSpec, ServiceName, ServiceSpec, Transport};
use mcpmon_core::settings::Settings;
use mcpmon_core::store::{Store, StoreError};
use mcpmon_core::{Observation, Question, Status, Timestamp};
use tokio::sync::oneshot;
use tokio::task::{JoinError, JoinHandle, JoinSet};
use tokio::time::{Instant, timeout};

use self::case::{Case, Next, Stage, Tried, Verification};
use self::record::Recorder;
use crate::handle::Shared;
use crate::judge::Judge;
use crate::needs;
use crate::panic::unpanicked;
use crate::run::Engine;
use crate::world::{HeldUp, Watched, World};

/// Actions carried out at once: when everything fails, it is seldom each service's own fault.
const AT_ONCE: usize = 4;
/// An action waits so long for its record to be written before it goes ahead without.
const RECORD_WITHIN: Duration = Duration::from_secs(5);
/// A remedy keeps its own limit; so much later it is no longer believed that it will.
const BACKSTOP: Duration = Duration::from_secs(30);
/// Services that are watched no longer and whose attempts are remembered, at most.
const MOST_GONE: usize = 1_000;
/// Records read at the start, at most.
const MOST_RECORDS: usize = 10_000;

/// Every repair there is, and what carries them out.
pub(crate) struct Repairs {
    /// Without one, nothing is decided.
    remedy: Option<Arc<dyn Remedy>>,
    /// What rules ask for, by their names, in the order of the settings.
    by_rule: Vec<(String, RemediationSpec)>,
    /// While no rule is judged, what fired last says nothing.
    rules_run: bool,
    cases: BTreeMap<ServiceName, Case>,
    acting: JoinSet<Acted>,
    recorder: Recorder,
}

/// An action that was carried out, or was tried.
pub(crate) struct Acted {
    service: ServiceName,
    /// Of the record of it.
    id: String,
    /// `Err`: it was not even begun, because of this.
    report: Result<RemedyReport, &'static str>,
}

/// What is to be done about a service now.
enum Step {
    /// Somebody changed what is tried, or it is well.
    Anew(RepairOutcome),
    Ask(Question),
    Settle(RepairOutcome),
    Begin {
        rule: Option<String>,
        action: Box<RemediationSpec>,
        decision: Decision,
    },
}

impl Repairs {
    pub(crate) fn new(
        remedy: Option<Arc<dyn Remedy>>,
        settings: &Settings,
        store: Arc<dyn Store>,
    ) -> Self {
        let mut repairs = Self {
            remedy,
            by_rule: Vec::new(),
            rules_run: true,
            cases: BTreeMap::new(),
            acting: JoinSet::new(),
            recorder: Recorder::new(store),
        };
        repairs.reconfigure(settings);
        repairs
    }

    /// Takes what rules ask for from new settings.
    pub(crate) fn reconfigure(&mut self, settings: &Settings) {
        let on = settings.rules.iter().filter(|rule| rule.enabled != Some(false));
        let asking = on.filter_map(|rule| Some((rule.name.clone(), rule.remediation.clone()?)));
        self.by_rule = asking.collect();
        self.rules_run = settings.monitoring.alerts_enabled;
    }

    /// The wall clock was set back by so much: nothing waits until it has caught up.
    pub(crate) fn set_back(&mut self, span: Duration) {
        self.cases.values_mut().for_each(|case| case.attempts.set_back(span));
    }

    /// Takes in a check of a service.
    pub(crate) fn checked(
        &mut self,
        spec: &ServiceSpec,
        question: Question,
        at: Timestamp,
        started: Instant,
        observation: &Observation,
    ) {
        let is_asked = spec.remediation.is_some() || !self.by_rule.is_empty();
        if self.remedy.is_none() || !is_asked {
            return;
        }
        let case = match observation.raw_status().is_failure() {
            true => self.cases.entry(spec.name.clone()).or_default(),
            false => match self.cases.get_mut(&spec.name) {
                Some(case) => case,
                None => return,
            },
        };
        case.checked(&spec.name, question, at, started, observation);
    }

    /// The next action that is over; cancel-safe. `None` while none is under way.
    pub(crate) async fn next_acted(&mut self) -> Option<Result<Acted, JoinError>> {
        self.acting.join_next().await
    }

    /// Cancels what is under way, and says so. The handle ends when every record is written.
    pub(crate) fn end(&mut self) -> Option<JoinHandle<()>> {
        self.acting.abort_all();
        let cases = std::mem::take(&mut self.cases);
        for entry in cases.into_values().filter_map(|case| case.stage.into_entry()) {
            self.recorder.record(interrupted(entry, "the monitor stopped"));
        }
        self.recorder.end()
    }

    /// What is asked for a service, and by which rule; its own entry goes before every rule.
    fn asked<'a>(
        &'a self,
        spec: &'a ServiceSpec,
        firing: &HashMap<ServiceName, usize>,
    ) -> Option<(Option<&'a str>, &'a RemediationSpec)> {
        if let Some(own) = &spec.remediation {
            return Some((None, own));
        }
        let (rule, action) = self.by_rule.get(*firing.get(&spec.name)?)?;
        Some((Some(rule), action))
    }

    /// Which of the asking rules fires for a service: the first of the settings.
    fn firing(&self, judge: &Judge) -> HashMap<ServiceName, usize> {
        let mut firing = HashMap::new();
        let asking = self.by_rule.iter().enumerate().filter(|_| self.rules_run);
        for (index, (rule, _)) in asking {
            for service in judge.firing_for(rule) {
                firing.entry(service.clone()).or_insert(index);
            }
        }
        firing
    }

    /// What is configured now under what a case was opened for.
    fn configured<'a>(
        &'a self,
        spec: &'a ServiceSpec,
        rule: Option<&str>,
    ) -> Option<&'a RemediationSpec> {
        match rule {
            None => spec.remediation.as_ref(),
            Some(rule) => {
                self.by_rule.iter().find(|(name, _)| name == rule).map(|(_, action)| action)
            }
        }
    }

    /// What is to be done, service by service.
    fn plan(&self, world: &World, judge: &Judge, now: Timestamp) -> Vec<(ServiceName, Step)> {
        let firing = self.firing(judge);
        let mut free = AT_ONCE.saturating_sub(self.acting.len());
        let mut steps = Vec::new();
        for (name, watched) in &world.services {
            let case = self.cases.get(name);
            let step = match case {
                Some(case) => self.step_of_case(case, watched, now),
                None => None,
            };
            let step = step.or_else(|| {
                let case = case.filter(|case| matches!(case.stage, Stage::Rest))?;
                let (rule, action) = self.asked(&watched.spec, &firing)?;
                let situation = situation(world, watched, case);
                let decision = remediation::decide(&situation, action, &case.attempts, now);
                match decision {
                    Decision::Nothing(_) => return None,
                    Decision::Act { .. } if free == 0 => return None,
                    Decision::Act { .. } => free -= 1,
                    Decision::Say { .. } | Decision::GiveUp { .. } => {}
                }
                let (rule, action) = (rule.map(str::to_owned), Box::new(action.clone()));
                Some(Step::Begin { rule, action, decision })
            });
            steps.extend(step.map(|step| (name.clone(), step)));
        }
        steps
    }

    fn step_of_case(&self, case: &Case, watched: &Watched, now: Timestamp) -> Option<Step> {
        match case.next(Instant::now()) {
            Next::Ask(question) => return Some(Step::Ask(question)),
            Next::Settle(outcome) => return Some(Step::Settle(outcome)),
            Next::Wait => return None,
            Next::Decide => {}
        }
        if watched.fold.state.status.is_available() {
            let resumes = case.attempts.has_open() && case.attempts.may_resume(now);
            return resumes.then_some(Step::Anew(RepairOutcome::Resumed));
        }
        let tried = case.tried.as_ref()?;
        let configured = self.configured(&watched.spec, tried.rule.as_deref());
        let is_same = configured
            .is_some_and(|action| *tried == Tried::new(&watched.spec, action, &tried.rule));
        // What a maintenance window pauses is not changed by it.
        let is_switched_off = watched.fold.state.status == Status::Paused && !watched.maintained;
        (!is_same || is_switched_off).then_some(Step::Anew(RepairOutcome::Resumed))
    }
}

fn situation<'a>(world: &World, watched: &'a Watched, case: &Case) -> Situation<'a> {
    let look = |name: &ServiceName| world.services.get(name).map(Watched::as_need);
    let spawns = matches!(watched.spec.transport, Transport::Stdio(_));
    let is_trusted = case.is_held && !watched.fold.state.unproven;
    let has_needs = !watched.spec.depends_on.is_empty();
    Situation {
        service: &watched.spec.name,
        status: watched.fold.state.status,
        failure: watched.fold.state.failure.as_ref(),
        failures_in_a_row: watched.fold.state.failures_in_a_row(),
        max_consecutive_failures: watched.spec.limits.max_consecutive_failures,
        in_maintenance: watched.maintained,
        // What a monitor before this one saw may not be so any more.
        awaits_recheck: watched.awaits_recheck || case.last.is_none(),
        blocked: watched.held_up != HeldUp::No
            || (has_needs && needs::holds_up(&watched.spec.name, &look)),
        process: spawns.then_some(match is_trusted {
            true => ProcessLife::Held,
            false => ProcessLife::LeftToProbing,
        }),
    }
}

fn given_up_among(world: &World) -> u64 {
    world.services.values().filter(|watched| watched.repair_given_up).count() as u64
}

fn interrupted(entry: AuditEntry, why: &str) -> AuditEntry {
    let result = format!("{why} before it was known whether it helped");
    AuditEntry { outcome: RepairOutcome::Interrupted, result, ..entry }
}

impl Engine {
    /// Takes up what was tried within the last hour, and what was given up.
    pub(crate) async fn restore_repairs(&mut self, now: Timestamp) -> Result<(), StoreError> {
        if self.repairs.remedy.is_none() {
            return Ok(());
        }
        let store = Arc::clone(&self.shared.store);
        let since = Some(now.saturating_sub(WINDOW));
        let query = AuditQuery { since, limit: MOST_RECORDS, service: None };
        let mut recent: HashMap<ServiceName, Vec<AuditEntry>> = HashMap::new();
        // Oldest first, as they happened.
        for entry in store.audit(&query).await?.into_iter().rev() {
            recent.entry(entry.service.clone()).or_default().push(entry);
        }
        let down: Vec<Arc<ServiceSpec>> = {
            let world = self.shared.read();
            let all = world.services.values();
            all.map(|watched| Arc::clone(&watched.spec)).collect()
        };
        for spec in down {
            let is_asked = spec.remediation.is_some() || !self.repairs.by_rule.is_empty();
            if !is_asked {
                continue;
            }
            let mut entries = recent.remove(&spec.name).unwrap_or_default();
            if entries.is_empty() && !self.is_available(&spec.name) {
                // Given up more than an hour ago.
                let service = Some(spec.name.clone());
                let query = AuditQuery { service, since: None, limit: 1 };
                entries = store.audit(&query).await?;
            }
            self.recall(&spec, entries, now);
        }
        Ok(())
    }

    fn is_available(&self, name: &ServiceName) -> bool {
        let world = self.shared.read();
        world.services.get(name).is_some_and(|watched| watched.fold.state.status.is_available())
    }

    fn recall(&mut self, spec: &ServiceSpec, entries: Vec<AuditEntry>, now: Timestamp) {
        let mut case = Case::default();
        for entry in entries {
            let action = self.repairs.configured(spec, entry.rule.as_deref());
            let is_same = action.is_some_and(|action| {
                Tried::new(spec, action, &entry.rule) == Tried::of_record(&entry)
            });
            // What is tried was changed while nobody watched.
            if is_same {
                case.recall(&entry, now);
            }
            if entry.outcome == RepairOutcome::UnderWay {
                self.repairs.recorder.record(interrupted(entry, "the monitor ended"));
            }
        }
        let given_up = case.attempts.is_given_up();
        if case.tried.is_some() {
            self.repairs.cases.insert(spec.name.clone(), case);
            self.note_given_up(&spec.name, given_up);
        }
    }

    /// Decides about every service, and begins what was decided.
    pub(crate) fn see_repairs(&mut self) {
        if self.repairs.remedy.is_none() {
            return;
        }
        let now = self.shared.clock.now();
        let steps = {
            let world = self.shared.read();
            self.repairs.plan(&world, &self.judge, now)
        };
        for (name, step) in steps {
            match step {
                Step::Anew(outcome) => self.begin_anew(&name, outcome, now),
                Step::Ask(question) => {
                    if let Some(Stage::Verifying(verification)) =
                        self.repairs.cases.get_mut(&name).map(|case| &mut case.stage)
                    {
                        verification.asked(Instant::now());
                    }
                    let _ = self.ask_now(Some(name), question);
                }
                Step::Settle(outcome) => self.settle_repair(&name, outcome, now),
                Step::Begin { rule, action, decision } => {
                    self.begin_repair(&name, rule, &action, decision, now);
                }
            }
        }
        self.drop_gone_repairs(now);
    }

    /// What goes on for services that are watched no longer ends. What was tried for them counts on:
    /// one that comes back gets no more attempts than one that stayed.
    fn drop_gone_repairs(&mut self, now: Timestamp) {
        let mut ended = Vec::new();
        let mut gone = 0;
        let world = self.shared.read();
        self.repairs.cases.retain(|name, case| {
            if let Some(watched) = world.services.get(name) {
                return !matches!(case.stage, Stage::Rest)
                    || !case.attempts.is_spent(now)
                    || !watched.fold.state.status.is_available();
            }
            ended.extend(case.leave());
            let counts_on = case.attempts.counts_on(now) && gone < MOST_GONE;
            gone += usize::from(counts_on);
            counts_on
        });
        drop(world);
        for entry in ended {
            self.keep_record(interrupted(entry, "the service was taken away"));
        }
        self.see_given_up();
    }

    /// Services come and go with what was given up for them.
    fn see_given_up(&self) {
        let (came_back, count) = {
            let world = self.shared.read();
            let cases = self.repairs.cases.iter();
            let given_up = cases.filter(|(_, case)| case.attempts.is_given_up());
            let watched = given_up.filter_map(|(name, _)| world.services.get_key_value(name));
            let came_back = watched.filter(|(_, watched)| !watched.repair_given_up);
            let came_back: Vec<ServiceName> = came_back.map(|(name, _)| name.clone()).collect();
            (came_back, given_up_among(&world))
        };
        for name in &came_back {
            self.note_given_up(name, true);
        }
        if came_back.is_empty() && self.shared.read().report.repairs_given_up != count {
            self.shared.write().report.repairs_given_up = count;
        }
    }

    /// It is well, or something else is tried from now on.
    fn begin_anew(&mut self, name: &ServiceName, outcome: RepairOutcome, now: Timestamp) {
        let is_well = self.is_available(name);
        let Some(case) = self.repairs.cases.get_mut(name) else { return };
        let tried = case.tried.clone();
        let had_given_up = match is_well {
            true => case.attempts.recovered(),
            false => {
                case.tried = None;
                case.attempts.forget()
            }
        };
        if had_given_up {
            self.note_given_up(name, false);
            let mut entry = self.new_record(name, tried.unwrap_or_default(), 0, now);
            entry.id.push_str("-resumed");
            entry.outcome = outcome;
            entry.result = match is_well {
                true => "it is well again".to_owned(),
                false => "what is tried was changed".to_owned(),
            };
            tracing::info!(service = %name, why = %entry.result, "Repairs are made again when needed");
            self.keep_record(entry);
        }
    }

    fn begin_repair(
        &mut self,
        name: &ServiceName,
        rule: Option<String>,
        action: &RemediationSpec,
        decision: Decision,
        now: Timestamp,
    ) {
        let found = {
            let world = self.shared.read();
            let watched = world.services.get(name);
            watched.and_then(|watched| {
                Some((Arc::clone(&watched.spec), watched.reins.as_ref()?.grip()))
            })
        };
        let (Some((spec, grip)), Some(remedy)) = (found, self.repairs.remedy.clone()) else {
            return;
        };
        let tried = Tried::new(&spec, action, &rule);
        let attempt = match decision {
            Decision::Act { attempt } | Decision::Say { attempt } => attempt,
            _ => 0,
        };
        let mut entry = self.new_record(name, tried.clone(), attempt, now);
        let Some(case) = self.repairs.cases.get_mut(name) else { return };
        case.tried = Some(tried);
        match decision {
            Decision::Nothing(_) => {}
            Decision::GiveUp { attempts } => {
                case.attempts.give_up();
                self.note_given_up(name, true);
                entry.id.push_str("-gave-up");
                entry.outcome = RepairOutcome::GaveUp;
                entry.result = format!(
                    "{attempts} attempts within an hour; no more until it is well again or its \
                     `remediation` is changed"
                );
                tracing::error!(service = %name, attempts, "Repair given up: somebody must look");
                self.keep_record(entry);
            }
            Decision::Say { .. } => {
                case.attempts.begin(now);
                entry.outcome = RepairOutcome::DryRun;
                entry.result = "only said, because of `dry_run = true`".to_owned();
                tracing::warn!(service = %name, action = %entry.action, argv = ?entry.argv, attempt,
                    code = entry.code.map(|code| code.as_str()), "Would repair (dry run)");
                self.keep_record(entry);
            }
            Decision::Act { .. } => {
                case.attempts.begin(now);
                tracing::warn!(service = %name, action = %entry.action, argv = ?entry.argv, attempt,
                    code = entry.code.map(|code| code.as_str()), "Repairing");
                self.shared.write().report.repairs_total += 1;
                let recorded = self.keep_record(entry.clone());
                let shared = Arc::clone(&self.shared);
                let job = Job { shared, remedy, spec, action: action.clone(), grip, rule, attempt };
                let task = self.repairs.acting.spawn(job.run(entry.clone(), recorded));
                if let Some(case) = self.repairs.cases.get_mut(name) {
                    case.stage = Stage::Acting { entry: Box::new(entry), task };
                }
            }
        }
    }

    /// An action is over: checks say whether it helped.
    pub(crate) fn acted(&mut self, acted: Result<Acted, JoinError>) {
        // Cancelled, because the service is gone.
        let Ok(Acted { service, id, report }) = acted else { return };
        let Some(case) = self.repairs.cases.get_mut(&service) else { return };
        let stage = std::mem::replace(&mut case.stage, Stage::Rest);
        let Stage::Acting { mut entry, task } = stage else {
            case.stage = stage;
            return;
        };
        if entry.id != id {
            case.stage = Stage::Acting { entry, task };
            return;
        }
        let report = match report {
            Ok(report) => report,
            Err(why) => {
                case.attempts.end(self.shared.clock.now());
                entry.outcome = RepairOutcome::Interrupted;
                entry.result = format!("{why} before anything was done");
                tracing::info!(%service, why, "Repair called off");
                self.keep_record(*entry);
                return;
            }
        };
        let patience = {
            let world = self.shared.read();
            let spec = world.services.get(&service).map(|watched| Arc::clone(&watched.spec));
            let configured =
                spec.as_ref().and_then(|spec| self.repairs.configured(spec, entry.rule.as_deref()));
            configured.map_or(Duration::ZERO, |action| action.verify_within)
        };
        entry.exit_status = report.exit_status;
        entry.last_lines = report.last_lines;
        if let Some(error) = report.error {
            tracing::warn!(%service, %error, "Repair could not be carried out");
            entry.outcome = RepairOutcome::Failed;
            entry.result = error;
        }
        let verification = Verification::new(entry, patience, Instant::now());
        let question = verification.question();
        if let Some(case) = self.repairs.cases.get_mut(&service) {
            case.stage = Stage::Verifying(Box::new(verification));
        }
        let _ = self.ask_now(Some(service), question);
    }

    /// It is known whether it helped, or never will be.
    fn settle_repair(&mut self, name: &ServiceName, outcome: RepairOutcome, now: Timestamp) {
        let Some(case) = self.repairs.cases.get_mut(name) else { return };
        let stage = std::mem::replace(&mut case.stage, Stage::Rest);
        case.attempts.end(now);
        let Some(mut entry) = stage.into_entry() else { return };
        entry.outcome = outcome;
        if entry.result.is_empty() {
            entry.result = case::in_words(outcome, entry.after.as_ref());
        }
        let failed = matches!(outcome, RepairOutcome::DidNotHelp | RepairOutcome::Failed);
        self.shared.write().report.repairs_failed_total += u64::from(failed);
        tracing::info!(service = %name, outcome = outcome.as_str(), attempt = entry.attempt,
            "Repair is over");
        self.keep_record(entry);
    }

    fn note_given_up(&self, name: &ServiceName, given_up: bool) {
        let mut world = self.shared.write();
        if let Some(watched) = world.services.get_mut(name) {
            watched.repair_given_up = given_up;
            watched.dirty = true;
        }
        world.report.repairs_given_up = given_up_among(&world);
    }

    fn new_record(
        &self,
        name: &ServiceName,
        tried: Tried,
        attempt: u32,
        now: Timestamp,
    ) -> AuditEntry {
        let world = self.shared.read();
        let failure =
            world.services.get(name).and_then(|watched| watched.fold.state.failure.as_ref());
        let case = self.repairs.cases.get(name);
        AuditEntry {
            id: format!("{name}@{}", now.as_millis()),
            at: now,
            service: name.clone(),
            action: tried.action,
            argv: tried.argv,
            rule: tried.rule,
            code: failure.map(|failure| failure.code),
            attempt,
            dry_run: tried.dry_run,
            outcome: RepairOutcome::UnderWay,
            result: String::new(),
            exit_status: None,
            last_lines: Vec::new(),
            before: case.and_then(|case| case.last.clone()),
            after: None,
        }
    }

    /// Has a record written and told; resolves once it is written.
    fn keep_record(&mut self, entry: AuditEntry) -> oneshot::Receiver<()> {
        self.tell(MonitorEvent::Repair(Box::new(entry.clone())));
        self.repairs.recorder.record(entry)
    }
}

/// One action, as a task.
struct Job {
    shared: Arc<Shared>,
    remedy: Arc<dyn Remedy>,
    spec: Arc<ServiceSpec>,
    action: RemediationSpec,
    grip: Arc<dyn Grip>,
    rule: Option<String>,
    attempt: u32,
}

impl Job {
    async fn run(self, entry: AuditEntry, recorded: oneshot::Receiver<()>) -> Acted {
        // Recorded before it is done. A store that does not work must not keep it from being done:
        // the record waits, and is written as soon as it can be.
        let _ = timeout(RECORD_WITHIN, recorded).await;
        if let Some(why) = self.called_off() {
            return Acted { service: entry.service, id: entry.id, report: Err(why) };
        }
        let repair = Repair {
            service: &self.spec,
            action: &self.action,
            rule: self.rule.as_deref(),
            code: entry.code,
            attempt: self.attempt,
            grip: &*self.grip,
        };
        let applying = unpanicked(self.remedy.apply(&repair));
        let report = match timeout(self.action.timeout + BACKSTOP, applying).await {
            Ok(Some(report)) => report,
            Ok(None) => RemedyReport::failed("the remedy panicked; this is a defect of the remedy"),
            Err(_) => RemedyReport::failed("the remedy did not keep its time limit"),
        };
        Acted { service: entry.service, id: entry.id, report: Ok(report) }
    }

    /// Why it is not to be done after all: writing its record may take a while.
    fn called_off(&self) -> Option<&'static str> {
        let world = self.shared.read();
        let watched = world.services.get(&self.spec.name)?;
        if watched.maintained {
            return Some("a maintenance window began");
        }
        watched.fold.state.status.is_available().then_some("it was well again")
    }
}
