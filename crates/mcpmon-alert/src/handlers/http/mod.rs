//! Handlers whose far side takes HTTP: a web hook of one's own, chats, pagers, Alertmanager.
//!
//! Each is a pure function from a notification to the bodies that are posted, and the answer its
//! far side gives; what they share (one request, its limits, what an answer means) is in
//! [`sender`], and what chats share besides in [`incoming`].

pub(crate) mod alertmanager;
pub(crate) mod discord;
mod incoming;
#[cfg(test)]
mod mentions;
pub(crate) mod ntfy;
pub(crate) mod pagerduty;
mod sender;
pub(crate) mod slack;
pub(crate) mod teams;
pub(crate) mod telegram;
#[cfg(test)]
mod testing;
pub(crate) mod webhook;

use std::time::Duration;

use super::registry::HandlerRegistry;

/// Alerts of a digest that a chat message writes out; the rest is counted.
const MOST_LINES: usize = 15;

fn half_a_minute() -> Duration {
    Duration::from_secs(30)
}

/// Adds every kind of this module.
pub(super) fn register(registry: &mut HandlerRegistry) {
    macro_rules! kinds {
        ($($kind:literal => $handler:ty),+ $(,)?) => { $(
            registry.register($kind, |settings| {
                Ok(Box::new(<$handler>::from_settings(settings)?))
            });
        )+ };
    }
    kinds! {
        "alertmanager" => alertmanager::AlertmanagerHandler,
        "discord" => discord::DiscordHandler,
        "ntfy" => ntfy::NtfyHandler,
        "pagerduty" => pagerduty::PagerDutyHandler,
        "slack" => slack::SlackHandler,
        "teams" => teams::TeamsHandler,
        "telegram" => telegram::TelegramHandler,
        "webhook" => webhook::WebhookHandler,
    }
}
