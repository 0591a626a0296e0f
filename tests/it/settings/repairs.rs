//! Keys of a repair, each set alone: on the command that is run, on when it is, and on what is said
//! of it.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use mcpmon_core::remedy::{AuditEntry, AuditQuery, Remedy, RemedyReport, Repair, RepairOutcome};
use mcpmon_core::service::RemediationSpec;
use mcpmon_core::store::{IncidentLog as _, Store};
use mcpmon_core::{FailureCode, ServiceSpec, Settings};
use mcpmon_engine::{MemoryStore, Monitor};
use mcpmon_testkit::{ScriptedFactory, TokioClock, samples};

/// Every key proven here.
pub(super) const KEYS: &[&str] = &[
    "services.*.remediation.action",
    "services.*.remediation.command",
    "services.*.remediation.unit",
    "services.*.remediation.user",
    "services.*.remediation.container",
    "services.*.remediation.timeout",
    "services.*.remediation.verify_within",
    "services.*.remediation.dry_run",
    "rules.*.remediation.action",
    "rules.*.remediation.command",
    "rules.*.remediation.unit",
    "rules.*.remediation.user",
    "rules.*.remediation.container",
    "rules.*.remediation.timeout",
    "rules.*.remediation.verify_within",
    "rules.*.remediation.dry_run",
];

/// Remembers what it was to do, and does nothing.
#[derive(Clone, Default)]
struct Remembers(Arc<Mutex<Vec<RemediationSpec>>>);

#[async_trait]
impl Remedy for Remembers {
    async fn apply(&self, repair: &Repair<'_>) -> RemedyReport {
        self.0.lock().unwrap().push(repair.action.clone());
        RemedyReport::done()
    }
}

/// What was to be done, and what was recorded, within 40 seconds for a service that never works.
async fn observe(
    settings: Settings,
    remediation: Option<RemediationSpec>,
) -> (Vec<RemediationSpec>, Vec<AuditEntry>) {
    let factory = ScriptedFactory::new();
    let mut failed = samples::failed(FailureCode::RpcError);
    failed.active_connections = Some(1);
    factory.script("it").usually(failed);
    let store = Arc::new(MemoryStore::new());
    let remedy = Remembers::default();
    let mut service = ServiceSpec::stdio("it", "server", [""; 0]);
    service.limits = settings.limits();
    service.remediation = remediation;
    let monitor = Monitor::builder()
        .settings(settings)
        .probe_factory(factory)
        .store(Arc::clone(&store) as Arc<dyn Store>)
        .clock(Arc::new(TokioClock::default()))
        .remedy(remedy.clone())
        .service(service)
        .start()
        .await
        .unwrap();
    tokio::time::sleep(Duration::from_secs(40)).await;
    let query = AuditQuery { limit: 100, ..AuditQuery::default() };
    let entries = store.audit(&query).await.unwrap();
    monitor.stop().await;
    let done = remedy.0.lock().unwrap().clone();
    (done, entries)
}

/// The same settings asked for by the service's entry, and by a rule.
async fn both_ways(body: &str) -> Vec<(Vec<RemediationSpec>, Vec<AuditEntry>)> {
    let text = format!("[services.it]\ncommand = \"server\"\n[services.it.remediation]\n{body}");
    let settings: Settings = toml::from_str(&text).unwrap();
    let own = settings.services["it"].remediation.clone();
    let by_service = observe(Settings::default(), own).await;
    let text = format!("[[rules]]\nname = \"service_down\"\n[rules.remediation]\n{body}");
    let by_rule = observe(toml::from_str(&text).unwrap(), None).await;
    vec![by_service, by_rule]
}

#[tokio::test(start_paused = true)]
async fn each_key_of_a_repair_changes_what_is_done_or_said() {
    for (body, argv) in [
        ("action = \"restart\"", &["server"][..]),
        ("action = \"command\"\ncommand = [\"mend\", \"it\"]", &["mend", "it"]),
        ("action = \"systemd\"\nunit = \"it\"", &["systemctl", "restart", "it"]),
        (
            "action = \"systemd\"\nunit = \"it\"\nuser = true",
            &["systemctl", "--user", "restart", "it"],
        ),
        ("action = \"docker\"\ncontainer = \"it\"", &["docker", "restart", "it"]),
    ] {
        for (done, entries) in both_ways(body).await {
            assert!(!done.is_empty(), "{body}");
            assert_eq!(entries[0].argv, argv, "{body}");
        }
    }
    for (done, entries) in both_ways("action = \"restart\"\ndry_run = true").await {
        assert_eq!(done, []);
        assert_eq!(entries[0].outcome, RepairOutcome::DryRun);
    }
    // What the remedy keeps, it is told.
    for (done, _) in both_ways("action = \"restart\"\ntimeout = \"7s\"").await {
        assert_eq!(done[0].timeout, Duration::from_secs(7));
    }
    // A new attempt begins once it is known that the one before did not help.
    for (body, again) in [("", false), ("verify_within = \"2s\"", true)] {
        for (done, _) in both_ways(&format!("action = \"restart\"\n{body}")).await {
            assert_eq!(done.len() > 1, again, "{body}");
        }
    }
}
