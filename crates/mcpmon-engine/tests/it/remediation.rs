//! Repairs through the whole loop, on virtual time: what is repaired and what never is, how often,
//! and what is kept of it.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use mcpmon_core::monitor::{MonitorEvent, MonitorHandle as _};
use mcpmon_core::remedy::{AuditEntry, AuditQuery, Remedy, RemedyReport, Repair, RepairOutcome};
use mcpmon_core::service::{RemediationSpec, RemedyAction, ServiceSpec};
use mcpmon_core::settings::RuleSettings;
use mcpmon_core::store::{IncidentLog as _, Store};
use mcpmon_core::{FailureCode, Level, NotificationKind, Observation, Status};
use mcpmon_engine::{Change, MemoryStore, MonitorBuilder};
use mcpmon_testkit::samples;
use mcpmon_testkit::{
    FailingStore, Operations, RecordingHandler, ScriptedFactory, Step, StoreFault,
};

use crate::{monitor, seconds, settings, spec, told};

const GAVE_UP: &str = "remediation_gave_up";

/// What a [`FakeRemedy`] does when it is applied.
#[derive(Debug, Clone, Copy)]
enum Effect {
    /// Ends what is held, and the service is well from then on.
    Mends,
    /// Ends what is held, which does not help.
    Nothing,
    Fails,
    Panics,
    Hangs,
}

/// Carries out what a test wants, and remembers it.
#[derive(Clone)]
struct FakeRemedy {
    factory: ScriptedFactory,
    effect: Arc<Mutex<Effect>>,
    applied: Arc<Mutex<Vec<(String, u32)>>>,
}

impl FakeRemedy {
    fn new(factory: &ScriptedFactory, effect: Effect) -> Self {
        Self {
            factory: factory.clone(),
            effect: Arc::new(Mutex::new(effect)),
            applied: Arc::default(),
        }
    }

    /// Which services were repaired, and as which attempt.
    fn applied(&self) -> Vec<(String, u32)> {
        self.applied.lock().expect("nobody panicked with it").clone()
    }

    fn set(&self, effect: Effect) {
        *self.effect.lock().expect("nobody panicked with it") = effect;
    }
}

#[async_trait]
impl Remedy for FakeRemedy {
    async fn apply(&self, repair: &Repair<'_>) -> RemedyReport {
        let name = repair.service.name.to_string();
        self.applied.lock().expect("nobody panicked with it").push((name.clone(), repair.attempt));
        let effect = *self.effect.lock().expect("nobody panicked with it");
        match effect {
            Effect::Mends => {
                assert!(repair.grip.release().await);
                self.factory.script(&name).usually(held(samples::answered()));
                RemedyReport::done()
            }
            Effect::Nothing => {
                assert!(repair.grip.release().await);
                RemedyReport::done()
            }
            Effect::Fails => RemedyReport {
                exit_status: Some(5),
                last_lines: vec!["no such unit".to_owned()],
                ..RemedyReport::failed("`mend` ended with exit status: 5")
            },
            Effect::Panics => panic!("the remedy panics on cue"),
            Effect::Hangs => std::future::pending().await,
        }
    }
}

/// As a held process answers.
fn held(mut observation: Observation) -> Step {
    observation.active_connections = Some(1);
    observation.into()
}

fn failing(code: FailureCode) -> Step {
    held(samples::failed(code))
}

/// A command whose process is restarted when it fails.
fn stdio(name: &str) -> ServiceSpec {
    let mut spec = ServiceSpec::stdio(name, "files-server", ["--port", "0"]);
    spec.limits = settings().limits();
    spec.remediation = Some(RemediationSpec::new(RemedyAction::Restart));
    spec
}

struct Bench {
    factory: ScriptedFactory,
    remedy: FakeRemedy,
    ops: RecordingHandler,
    store: Arc<MemoryStore>,
}

impl Bench {
    /// `a` is a held process with this failure, usually.
    fn new(failure: FailureCode, effect: Effect) -> Self {
        let factory = ScriptedFactory::new();
        factory.script("a").usually(failing(failure));
        Self {
            remedy: FakeRemedy::new(&factory, effect),
            factory,
            ops: RecordingHandler::new("ops"),
            store: Arc::new(MemoryStore::new()),
        }
    }

    fn monitor(&self) -> MonitorBuilder {
        monitor(&self.factory)
            .store(Arc::clone(&self.store) as Arc<dyn Store>)
            .remedy(self.remedy.clone())
            .handler(self.ops.clone())
    }

    /// What was recorded, oldest first.
    async fn audit(&self) -> Vec<AuditEntry> {
        let query = AuditQuery { limit: 1_000, ..AuditQuery::default() };
        let mut entries = self.store.audit(&query).await.expect("records are read");
        entries.reverse();
        entries
    }

    async fn outcomes(&self) -> Vec<RepairOutcome> {
        self.audit().await.into_iter().map(|entry| entry.outcome).collect()
    }
}

#[tokio::test(start_paused = true)]
async fn what_lives_and_fails_is_restarted_verified_and_recorded() {
    let bench = Bench::new(FailureCode::RpcError, Effect::Mends);
    let script = bench.factory.script("a").clone();
    script.usually(held(samples::answered()));
    let monitor = bench.monitor().service(stdio("a")).start().await.unwrap();
    let mut events = monitor.subscribe();
    seconds(30).await;
    assert_eq!(bench.audit().await, []);
    script.usually(failing(FailureCode::RpcError));
    seconds(60).await;
    assert_eq!(bench.remedy.applied(), [("a".to_owned(), 1)]);
    assert_eq!(script.closed(), 1, "ended through its probe");
    assert_eq!(script.probes(), 1, "which goes on being asked");
    assert_eq!(monitor.service_status("a"), Some(Status::Running));
    // It was well again before anybody could be told that it was down: that is one message.
    assert_eq!(told(&bench.ops, "service_down"), [NotificationKind::Resolved]);
    let [entry] = bench.audit().await.try_into().unwrap();
    assert_eq!((entry.outcome, entry.attempt), (RepairOutcome::Helped, 1));
    assert_eq!(entry.action, "restart");
    assert_eq!(entry.argv, ["files-server", "--port", "0"]);
    assert_eq!(entry.code, Some(FailureCode::RpcError));
    assert_eq!((entry.rule, entry.dry_run), (None, false));
    let (before, after) = (entry.before.unwrap(), entry.after.unwrap());
    assert_eq!((before.status, before.code), (Status::Error, Some(FailureCode::RpcError)));
    assert_eq!((after.status, after.code), (Status::Running, None));
    assert!(before.at < entry.at && entry.at <= after.at);
    let report = monitor.report();
    assert_eq!((report.repairs_total, report.repairs_failed_total), (1, 0));
    monitor.stop().await;
    let mut outcomes = Vec::new();
    while let Some(event) = events.next().await {
        if let MonitorEvent::Repair(entry) = event {
            outcomes.push(entry.outcome);
        }
    }
    assert_eq!(outcomes, [RepairOutcome::UnderWay, RepairOutcome::Helped]);
}

#[tokio::test(start_paused = true)]
async fn a_crash_loop_is_five_attempts_and_one_critical_alert() {
    let bench = Bench::new(FailureCode::RpcError, Effect::Nothing);
    let monitor = bench.monitor().service(stdio("a")).start().await.unwrap();
    seconds(2 * 3_600).await;
    let attempts: Vec<u32> = bench.remedy.applied().into_iter().map(|(_, n)| n).collect();
    assert_eq!(attempts, [1, 2, 3, 4, 5]);
    let mut expected = vec![RepairOutcome::DidNotHelp; 5];
    expected.push(RepairOutcome::GaveUp);
    assert_eq!(bench.outcomes().await, expected);
    let critical: Vec<_> = bench
        .ops
        .delivered()
        .into_iter()
        .flat_map(|message| message.alerts.into_iter().map(move |alert| (message.kind, alert)))
        .filter(|(_, alert)| alert.rule_name == GAVE_UP)
        .collect();
    let begun = critical.iter().filter(|(kind, _)| *kind == NotificationKind::Firing).count();
    assert_eq!(begun, 1);
    assert!(critical.iter().all(|(_, alert)| alert.level == Level::Critical));
    assert_eq!(monitor.report().repairs_given_up, 1);
    // Well again by other hands.
    bench.factory.script("a").usually(held(samples::answered()));
    seconds(60).await;
    assert_eq!(told(&bench.ops, GAVE_UP).last(), Some(&NotificationKind::Resolved));
    assert_eq!(bench.outcomes().await.last(), Some(&RepairOutcome::Resumed));
    assert_eq!(monitor.report().repairs_given_up, 0);
    // The next outage is met again.
    bench.factory.script("a").usually(failing(FailureCode::RpcError));
    seconds(60).await;
    assert_eq!(bench.remedy.applied().len(), 6 + 1, "{:?}", bench.remedy.applied());
    monitor.stop().await;
}

#[tokio::test(start_paused = true)]
async fn attempts_wait_longer_and_longer() {
    let bench = Bench::new(FailureCode::RpcError, Effect::Nothing);
    let mut spec = stdio("a");
    spec.remediation.as_mut().unwrap().verify_within = Duration::from_secs(1);
    let monitor = bench.monitor().service(spec).start().await.unwrap();
    seconds(600).await;
    let at: Vec<_> = bench.audit().await.iter().map(|entry| entry.at).collect();
    let gaps: Vec<u64> = at.windows(2).map(|pair| pair[1].since(pair[0]).as_secs()).collect();
    assert_eq!(gaps.len(), 5, "five attempts and the end: {gaps:?}");
    for (gap, least) in gaps.iter().zip([1, 3, 12, 48]) {
        assert!(*gap >= least && *gap <= 2 * least + 6, "{gaps:?}");
    }
    assert!(gaps[4] < 10, "nothing is waited for once it is over: {gaps:?}");
    monitor.stop().await;
}

/// Never repaired: `change` makes the usual situation another.
async fn never(failure: Step, change: impl FnOnce(&mut ServiceSpec)) {
    let bench = Bench::new(FailureCode::RpcError, Effect::Mends);
    bench.factory.script("a").usually(failure);
    let mut spec = stdio("a");
    change(&mut spec);
    let monitor = bench.monitor().service(spec).start().await.expect("a monitor starts");
    seconds(1_200).await;
    assert_eq!(bench.remedy.applied(), []);
    assert_eq!(bench.audit().await, []);
    monitor.stop().await;
}

#[tokio::test(start_paused = true)]
async fn slowness_credentials_and_our_own_faults_are_never_repaired() {
    let slow = || {
        let mut slow = samples::answered_in(Duration::from_secs(9));
        let text = "answered in 9 s".to_owned();
        slow.findings =
            vec![mcpmon_core::Finding::new(mcpmon_core::FindingCode::SlowResponse, text)];
        held(slow)
    };
    never(slow(), |_| {}).await;
    never(failing(FailureCode::Unauthorized), |_| {}).await;
    never(failing(FailureCode::MonitorOverloaded), |_| {}).await;
    never(failing(FailureCode::RateLimited), |_| {}).await;
    // Nobody asked for it.
    never(failing(FailureCode::RpcError), |spec| spec.remediation = None).await;
}

#[tokio::test(start_paused = true)]
async fn a_process_that_exited_is_probings_affair() {
    never(samples::failed(FailureCode::Exited).into(), |_| {}).await;
}

#[tokio::test(start_paused = true)]
async fn a_service_behind_a_url_has_nothing_to_restart_but_may_have_a_command() {
    let restart = Some(RemediationSpec::new(RemedyAction::Restart));
    let url = |remediation: Option<RemediationSpec>| {
        move |spec: &mut ServiceSpec| {
            *spec = ServiceSpec { remediation, ..crate::spec("a") };
        }
    };
    never(failing(FailureCode::ConnectionRefused), url(restart)).await;
    let bench = Bench::new(FailureCode::ConnectionRefused, Effect::Mends);
    let mut docker = RemediationSpec::new(RemedyAction::Docker);
    docker.container = Some("files".to_owned());
    let mut service = spec("a");
    url(Some(docker))(&mut service);
    let monitor = bench.monitor().service(service).start().await.unwrap();
    seconds(60).await;
    let [entry] = bench.audit().await.try_into().unwrap();
    assert_eq!((entry.action.as_str(), entry.outcome), ("docker", RepairOutcome::Helped));
    assert_eq!(entry.argv, ["docker", "restart", "files"]);
    monitor.stop().await;
}

#[tokio::test(start_paused = true)]
async fn children_of_a_dependency_that_is_down_are_left_alone_until_it_is_well() {
    let bench = Bench::new(FailureCode::RpcError, Effect::Mends);
    bench.factory.script("base").usually(FailureCode::ConnectionRefused);
    let mut child = stdio("a");
    child.depends_on = vec!["base".to_owned()];
    let monitor = bench.monitor().services([child, spec("base")]).start().await.unwrap();
    seconds(600).await;
    assert_eq!(bench.remedy.applied(), []);
    bench.factory.script("base").usually(Step::answered());
    seconds(60).await;
    assert_eq!(bench.remedy.applied().len(), 1, "it still fails, now by itself");
    monitor.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_dependency_that_only_wants_credentials_is_waited_for_only_so_long() {
    let bench = Bench::new(FailureCode::RpcError, Effect::Mends);
    bench.factory.script("base").usually(FailureCode::Unauthorized);
    let mut child = stdio("a");
    child.depends_on = vec!["base".to_owned()];
    let monitor = bench.monitor().services([child, spec("base")]).start().await.unwrap();
    seconds(120).await;
    assert_eq!(monitor.service_status("base"), Some(Status::AuthRequired));
    assert_eq!(bench.remedy.applied().len(), 1);
    monitor.stop().await;
}

#[tokio::test(start_paused = true)]
async fn with_alerts_off_repairs_still_wait_for_dependencies_and_rules_ask_for_none() {
    let bench = Bench::new(FailureCode::RpcError, Effect::Nothing);
    for name in ["base", "c"] {
        bench.factory.script(name).usually(FailureCode::ConnectionRefused);
    }
    bench.factory.script("b").usually(failing(FailureCode::RpcError));
    let mut child = stdio("a");
    child.depends_on = vec!["base".to_owned()];
    let of_rule = ServiceSpec { remediation: None, ..stdio("b") };
    let services = vec![child, of_rule, spec("base")];
    let mut settings = settings();
    settings.rules.push(RuleSettings {
        name: "b_down".to_owned(),
        when: Some("status == 'error' && service_name == 'b'".to_owned()),
        remediation: Some(RemediationSpec::new(RemedyAction::Restart)),
        ..RuleSettings::default()
    });
    let monitor = bench.monitor().settings(settings.clone()).services(services.clone());
    let monitor = monitor.start().await.unwrap();
    seconds(30).await;
    let of = |name: &str| bench.remedy.applied().iter().filter(|(of, _)| of == name).count();
    assert_eq!(of("a"), 0);
    assert!((1..5).contains(&of("b")), "{}", of("b"));
    settings.monitoring.alerts_enabled = false;
    let handlers = vec![Arc::new(bench.ops.clone()) as Arc<dyn mcpmon_core::Handler>];
    monitor.apply(Change { settings, services, handlers }).await.unwrap();
    seconds(60).await;
    let before = of("b");
    bench.factory.script("base").usually(Step::answered());
    seconds(600).await;
    assert_eq!(of("b"), before, "nothing fires, so nothing asks");
    assert!(of("a") > 0, "what it waited for is well");
    monitor.stop().await;
}

#[tokio::test(start_paused = true)]
async fn what_becomes_well_before_its_repair_begins_is_left_alone() {
    let bench = Bench::new(FailureCode::RpcError, Effect::Nothing);
    let store = Arc::new(FailingStore::new(Arc::clone(&bench.store)));
    let monitor = bench
        .monitor()
        .store(Arc::clone(&store) as Arc<dyn Store>)
        .service(stdio("a"))
        .start()
        .await
        .unwrap();
    store.fail(Operations::IncidentWrites, StoreFault::Stall);
    while monitor.report().repairs_total == 0 {
        seconds(1).await;
    }
    bench.factory.script("a").usually(held(samples::answered()));
    let question = mcpmon_core::Question::Health;
    let check =
        mcpmon_core::monitor::MonitorCommand::CheckNow { service: Some("a".into()), question };
    monitor.command(check).await.unwrap();
    seconds(30).await;
    assert_eq!(bench.remedy.applied(), []);
    store.recover();
    seconds(30).await;
    assert_eq!(bench.outcomes().await, [RepairOutcome::Interrupted]);
    assert!(bench.audit().await[0].result.contains("well again"));
    monitor.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_service_that_comes_back_has_no_more_attempts_than_one_that_stayed() {
    let bench = Bench::new(FailureCode::RpcError, Effect::Nothing);
    let monitor = bench.monitor().service(stdio("a")).start().await.unwrap();
    seconds(90).await;
    let before = bench.remedy.applied().len();
    assert!((1..5).contains(&before), "{before}");
    for _ in 0..3 {
        monitor.remove_service("a").await.unwrap();
        seconds(5).await;
        assert_eq!(monitor.report().repairs_given_up, 0);
        monitor.add_service(stdio("a")).await.unwrap();
        seconds(500).await;
        assert_eq!(bench.remedy.applied().len(), 5);
        assert_eq!(monitor.report().repairs_given_up, 1);
    }
    let gave_up = bench.outcomes().await;
    let gave_up = gave_up.iter().filter(|outcome| **outcome == RepairOutcome::GaveUp);
    assert_eq!(gave_up.count(), 1);
    monitor.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_dry_run_only_says_it() {
    let bench = Bench::new(FailureCode::RpcError, Effect::Mends);
    let mut spec = stdio("a");
    spec.remediation.as_mut().unwrap().dry_run = true;
    let monitor = bench.monitor().service(spec).start().await.unwrap();
    seconds(3_000).await;
    assert_eq!(bench.remedy.applied(), []);
    assert_eq!(bench.factory.script("a").closed(), 0);
    let entries = bench.audit().await;
    assert_eq!(entries.len(), 5, "said no more often than it would be done");
    assert!(entries.iter().all(|e| e.dry_run && e.outcome == RepairOutcome::DryRun));
    assert_eq!(told(&bench.ops, GAVE_UP), []);
    assert_eq!(monitor.report().repairs_total, 0);
    monitor.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_restart_of_the_monitor_lends_no_attempts_and_forgets_no_giving_up() {
    let bench = Bench::new(FailureCode::RpcError, Effect::Nothing);
    let first = bench.monitor().service(stdio("a")).start().await.unwrap();
    seconds(90).await;
    let before = bench.remedy.applied().len();
    assert!((1..5).contains(&before), "{before}");
    first.stop().await;
    assert!(bench.outcomes().await.iter().all(|outcome| *outcome != RepairOutcome::UnderWay));
    let second = bench.monitor().service(stdio("a")).start().await.unwrap();
    seconds(1_500).await;
    assert_eq!(bench.remedy.applied().len(), 5);
    assert_eq!(second.report().repairs_given_up, 1);
    second.stop().await;
    // Hours later it is still given up, and still said once.
    seconds(2 * 3_600).await;
    let third = bench.monitor().service(stdio("a")).start().await.unwrap();
    seconds(1_200).await;
    assert_eq!(bench.remedy.applied().len(), 5);
    assert_eq!(third.report().repairs_given_up, 1);
    let begun = |kind: &&NotificationKind| **kind == NotificationKind::Firing;
    assert_eq!(told(&bench.ops, GAVE_UP).iter().filter(begun).count(), 1);
    third.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_change_of_what_is_tried_is_an_operator_acting_and_any_other_reload_is_none() {
    let bench = Bench::new(FailureCode::RpcError, Effect::Nothing);
    let monitor = bench.monitor().service(stdio("a")).start().await.unwrap();
    seconds(1_500).await;
    assert_eq!(bench.remedy.applied().len(), 5);
    let apply = async |service: ServiceSpec| {
        let handlers = vec![Arc::new(bench.ops.clone()) as Arc<dyn mcpmon_core::Handler>];
        let change = Change { settings: settings(), services: vec![service], handlers };
        monitor.apply(change).await.unwrap();
    };
    let mut relabelled = stdio("a");
    relabelled.labels.insert("team".to_owned(), "web".to_owned());
    apply(relabelled.clone()).await;
    seconds(300).await;
    assert_eq!(bench.remedy.applied().len(), 5);
    let mut changed = relabelled;
    let mut command = RemediationSpec::new(RemedyAction::Command);
    command.command = vec!["mend".to_owned()];
    changed.remediation = Some(command);
    bench.remedy.set(Effect::Mends);
    apply(changed).await;
    seconds(120).await;
    assert_eq!(bench.remedy.applied().len(), 6);
    assert_eq!(monitor.service_status("a"), Some(Status::Running));
    let outcomes = bench.outcomes().await;
    assert_eq!(outcomes[6..], [RepairOutcome::Resumed, RepairOutcome::Helped]);
    assert_eq!(told(&bench.ops, GAVE_UP).last(), Some(&NotificationKind::Resolved));
    monitor.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_rule_may_ask_for_the_service_it_fires_for() {
    let bench = Bench::new(FailureCode::RpcError, Effect::Mends);
    bench.factory.script("b").usually(failing(FailureCode::RpcError));
    let mut settings = settings();
    settings.rules.push(RuleSettings {
        name: "web_down".to_owned(),
        when: Some("status == 'error' && failure_code == 'rpc_error'".to_owned()),
        hold: Some(Duration::from_secs(60)),
        labels: [("team".to_owned(), "web".to_owned())].into(),
        remediation: Some(RemediationSpec::new(RemedyAction::Restart)),
        ..RuleSettings::default()
    });
    let of_team = |name: &str, team: &str| {
        let labels = [("team".to_owned(), team.to_owned())].into();
        ServiceSpec { remediation: None, labels, ..stdio(name) }
    };
    let services = [of_team("a", "web"), of_team("b", "data")];
    let monitor = bench.monitor().settings(settings).services(services).start().await.unwrap();
    seconds(50).await;
    assert_eq!(bench.remedy.applied(), [], "the rule holds back");
    seconds(60).await;
    assert_eq!(bench.remedy.applied(), [("a".to_owned(), 1)]);
    let [entry] = bench.audit().await.try_into().unwrap();
    assert_eq!(entry.rule.as_deref(), Some("web_down"));
    assert_eq!(monitor.service_status("a"), Some(Status::Running));
    monitor.stop().await;
}

#[tokio::test(start_paused = true)]
async fn maintenance_stops_repair_and_a_silence_does_not() {
    let maintenance = mcpmon_core::settings::MaintenanceWindow {
        services: vec!["a".to_owned()],
        labels: std::collections::BTreeMap::new(),
        days: Vec::new(),
        start: Some("14:00".to_owned()),
        at: None,
        duration: Duration::from_secs(3_600),
        timezone: Some("UTC".to_owned()),
    };
    let bench = Bench::new(FailureCode::RpcError, Effect::Mends);
    let mut windowed = settings();
    windowed.maintenance.push(maintenance);
    let monitor = bench.monitor().settings(windowed).service(stdio("a")).start().await.unwrap();
    seconds(600).await;
    assert_eq!(bench.remedy.applied(), []);
    monitor.stop().await;

    let bench = Bench::new(FailureCode::RpcError, Effect::Mends);
    let monitor = bench.monitor().service(stdio("a")).start().await.unwrap();
    let silence = mcpmon_core::alert::Silence {
        id: "s-1".to_owned(),
        matchers: [("service_name".to_owned(), "a".to_owned())].into(),
        starts_at: mcpmon_testkit::START,
        ends_at: mcpmon_testkit::START.saturating_add(Duration::from_secs(3_600)),
        by: "me".to_owned(),
        comment: String::new(),
    };
    monitor.command(mcpmon_core::monitor::MonitorCommand::Silence(silence)).await.unwrap();
    seconds(60).await;
    assert_eq!(bench.remedy.applied().len(), 1);
    assert_eq!(told(&bench.ops, "service_down"), []);
    monitor.stop().await;
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_carried_out_is_recorded_with_what_it_said() {
    let bench = Bench::new(FailureCode::RpcError, Effect::Fails);
    let monitor = bench.monitor().service(stdio("a")).start().await.unwrap();
    seconds(20).await;
    let entry = bench.audit().await.remove(0);
    assert_eq!((entry.outcome, entry.exit_status), (RepairOutcome::Failed, Some(5)));
    assert_eq!(entry.last_lines, ["no such unit"]);
    assert!(entry.result.contains("exit status: 5"));
    assert_eq!(entry.after.unwrap().code, Some(FailureCode::RpcError));
    assert!(monitor.report().repairs_failed_total >= 1);
    monitor.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_remedy_that_panics_or_hangs_holds_nobody_up() {
    let bench = Bench::new(FailureCode::RpcError, Effect::Panics);
    bench.factory.script("b").usually(held(samples::answered()));
    let monitor = bench.monitor().services([stdio("a"), stdio("b")]).start().await.unwrap();
    seconds(60).await;
    let first = bench.audit().await.remove(0);
    assert_eq!(first.outcome, RepairOutcome::Failed);
    assert!(first.result.contains("panicked"), "{}", first.result);
    bench.remedy.set(Effect::Hangs);
    let asked = bench.factory.script("b").asked().len();
    seconds(300).await;
    assert!(bench.factory.script("b").asked().len() > asked + 20);
    let last = bench.audit().await.pop().unwrap();
    assert!(
        bench.audit().await.iter().any(|entry| entry.result.contains("time limit")),
        "{last:?}"
    );
    monitor.stop().await;
}

#[tokio::test(start_paused = true)]
async fn when_everything_fails_only_a_few_are_repaired_at_once() {
    let bench = Bench::new(FailureCode::RpcError, Effect::Hangs);
    let names: Vec<String> = (0..40).map(|n| format!("s{n:02}")).collect();
    for name in &names {
        bench.factory.script(name).usually(failing(FailureCode::RpcError));
    }
    let services = names.iter().map(|name| stdio(name));
    let monitor = bench.monitor().services(services).start().await.unwrap();
    seconds(60).await;
    assert_eq!(bench.remedy.applied().len(), 4);
    monitor.stop().await;
    let outcomes = bench.outcomes().await;
    assert_eq!(outcomes, [RepairOutcome::Interrupted; 4], "a stop says so");
}

#[tokio::test(start_paused = true)]
async fn a_store_that_fails_keeps_no_repair_from_being_made_and_learns_of_it_later() {
    let bench = Bench::new(FailureCode::RpcError, Effect::Mends);
    let store = Arc::new(FailingStore::new(Arc::clone(&bench.store)));
    let monitor = bench
        .monitor()
        .store(Arc::clone(&store) as Arc<dyn Store>)
        .service(stdio("a"))
        .start()
        .await
        .unwrap();
    store.fail(Operations::IncidentWrites, StoreFault::Full);
    seconds(60).await;
    assert_eq!(bench.remedy.applied().len(), 1);
    assert_eq!(monitor.service_status("a"), Some(Status::Running));
    assert_eq!(bench.audit().await, []);
    store.recover();
    seconds(60).await;
    assert_eq!(bench.outcomes().await, [RepairOutcome::Helped]);
    monitor.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_service_that_is_taken_away_takes_its_repair_along() {
    let bench = Bench::new(FailureCode::RpcError, Effect::Hangs);
    let monitor = bench.monitor().service(stdio("a")).start().await.unwrap();
    seconds(30).await;
    assert_eq!(bench.outcomes().await, [RepairOutcome::UnderWay]);
    monitor.remove_service("a").await.unwrap();
    seconds(2).await;
    let entry = bench.audit().await.remove(0);
    assert_eq!(entry.outcome, RepairOutcome::Interrupted);
    assert!(entry.result.contains("taken away"), "{}", entry.result);
    monitor.stop().await;
}

#[tokio::test(start_paused = true)]
async fn failing_calls_are_verified_by_calls() {
    let bench = Bench::new(FailureCode::RpcError, Effect::Nothing);
    let script = bench.factory.script("a").clone();
    script.usually(held(samples::answered()));
    script.usually_to(mcpmon_core::Question::Functional, failing(FailureCode::FunctionalToolError));
    let mut spec = stdio("a");
    let check = serde_json::from_value(serde_json::json!({ "tool": "t" })).unwrap();
    spec.functional = vec![check];
    let monitor = bench.monitor().service(spec).start().await.unwrap();
    seconds(65).await;
    let entry = bench.audit().await.remove(0);
    assert_eq!(entry.code, Some(FailureCode::FunctionalToolError));
    assert_eq!(entry.outcome, RepairOutcome::DidNotHelp, "good health is no sign of good calls");
    assert_eq!(entry.after.unwrap().code, Some(FailureCode::FunctionalToolError));
    monitor.stop().await;
}
