//! Rules and handlers on numbers of one's own: no engine, no store, no probe.

use std::io::Write;
use std::time::Duration;

use mcpmon_alert::{AlertManager, AlertRule, ConsoleHandler, EmailHandler, handler_fn};
use mcpmon_core::settings::{HandlerSettings, MonitoringConfig, SettingsError};
use mcpmon_core::{DeliveryError, Level, Notification, Receipt, ServiceMetrics};

/// Tells the console, and whoever `call` reaches.
pub fn manager(
    console: impl Write + Send + 'static,
    call: impl Fn(&str) -> bool + Send + Sync + 'static,
) -> AlertManager {
    let mut manager = AlertManager::new();
    let cooldown = MonitoringConfig::default().alert_cooldown;
    manager.add_rule(
        AlertRule::new("down", Level::Error, |m: &ServiceMetrics| m.status.is_down())
            .cooldown(cooldown),
    );
    manager.add_rule(
        AlertRule::new("slow", Level::Warning, |m| m.avg_response_time > Some(5.0))
            .hold(Duration::from_secs(60)),
    );
    manager.add_handler(ConsoleHandler::new(console).utc());
    manager.add_handler(handler_fn("phone", move |n: Notification| {
        match n.alerts.iter().all(|alert| call(&alert.message)) {
            true => Ok(Receipt::with_id(&n.key)),
            false => Err(DeliveryError::transient("nobody answers")),
        }
    }));
    manager
}

/// A mail handler, made as the configuration would make it.
///
/// # Errors
///
/// Names the key that is missing or wrong.
pub fn mail(server: &str, to: &str) -> Result<EmailHandler, SettingsError> {
    let settings = HandlerSettings::new("mail", "email");
    let settings = settings.with("smtp", server).with("from", "me@example.com").with("to", to);
    EmailHandler::from_settings(&settings)
}
