//! The loop through its public face, on virtual time, with scripted services and handlers.

mod causes;
mod deliveries;
mod durable;
mod endings;
mod function;
mod gaps;
#[expect(clippy::unwrap_used, reason = "a run that cannot go on fails")]
mod lists;
mod memory_store;
mod monitor;
mod quiet;
mod remediation;
mod replay;
#[expect(clippy::unwrap_used, reason = "a run that cannot go on fails")]
mod simulator;
mod watching;

use std::sync::Arc;
use std::time::Duration;

use mcpmon_core::Settings;
use mcpmon_core::alert::NotificationKind;
use mcpmon_core::probe::ProbeFactory;
use mcpmon_core::service::ServiceSpec;
use mcpmon_engine::{Monitor, MonitorBuilder};
use mcpmon_testkit::{RecordingHandler, TokioClock};

fn settings() -> Settings {
    let mut settings = Settings::default();
    settings.monitoring.check_interval = Duration::from_secs(10);
    settings
}

fn spec(name: &str) -> ServiceSpec {
    let mut spec = ServiceSpec::http(name, format!("http://{name}.test/mcp"));
    spec.limits = settings().limits();
    spec
}

fn monitor(factory: &(impl ProbeFactory + Clone + 'static)) -> MonitorBuilder {
    Monitor::builder()
        .settings(settings())
        .probe_factory(factory.clone())
        .clock(Arc::new(TokioClock::default()))
}

async fn seconds(count: u64) {
    tokio::time::sleep(Duration::from_secs(count)).await;
}

/// What a handler was told of one rule, in order.
fn told(ops: &RecordingHandler, rule: &str) -> Vec<NotificationKind> {
    let told = ops.delivered();
    told.iter().filter(|told| told.alerts[0].rule_name == rule).map(|told| told.kind).collect()
}
