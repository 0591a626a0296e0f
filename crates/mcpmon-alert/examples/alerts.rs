//! Alerts for a program that has its own numbers: two rules, the console and a closure.
//!
//! ```text
//! cargo run -p mcpmon-alert --example alerts
//! ```

use std::error::Error;
use std::time::Duration;

use mcpmon_alert::{AlertManager, AlertRule, ConsoleHandler, handler_fn};
use mcpmon_core::{
    Clock as _, DeliveryError, Level, Notification, Receipt, ServiceMetrics, Status, SystemClock,
};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let mut manager = AlertManager::new();

    manager.add_rule(
        AlertRule::new("service_down", Level::Error, |m: &ServiceMetrics| m.status.is_down())
            .message("{{ service_name }} has stopped")?,
    );
    manager.add_rule(
        AlertRule::new("high_error_rate", Level::Warning, |m| m.error_rate > 0.1)
            .message("{{ service_name }}: error rate {{ error_rate | percent(2) }}")?,
    );
    manager.add_rule(
        AlertRule::new("slow_response", Level::Warning, |m| {
            m.avg_response_time.is_some_and(|seconds| seconds > 5.0)
        })
        .message("{{ service_name }} takes {{ avg_response_time | fixed(2) }}s")?
        .cooldown(Duration::from_secs(600)),
    );

    manager.add_handler(ConsoleHandler::new(std::io::stdout()));
    manager.add_handler(handler_fn("pager", |notification: Notification| async move {
        // Here a program calls whatever it pages people with.
        match notification.alerts.first() {
            Some(alert) => Ok(Receipt::with_id(&alert.id)),
            None => Err(DeliveryError::permanent("nothing to say")),
        }
    }));

    let mut metrics = ServiceMetrics::unknown("filesystem".into());
    metrics.status = Status::Running;
    metrics.error_rate = 0.25;
    metrics.avg_response_time = Some(0.2);
    let fired = manager.check(&metrics, SystemClock.now()).await;
    metrics.error_rate = 0.0;
    let ended = manager.check(&metrics, SystemClock.now()).await;

    // What failed is reported, and stopped nothing else.
    for report in fired.failed_deliveries().chain(ended.failed_deliveries()) {
        if let Err(error) = &report.result {
            return Err(format!("{}: {error}", report.handler).into());
        }
    }
    assert_eq!((fired.fired.len(), ended.resolved.len()), (1, 1));
    assert_eq!(manager.history().count(), 1);
    Ok(())
}
