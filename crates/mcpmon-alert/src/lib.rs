//! Rules, alert states and handlers of mcpmon.
//!
//! Numbers come in as core's snapshots, verdicts become notices, and handlers deliver them:
//!
//! ```text
//! ServiceMetrics -> Rule -> Verdict -> AlertState -> Notification -> Handler
//! ```
//!
//! [`AlertManager`] is the whole of it. A program that has numbers adds [`AlertRule`]s and
//! handlers and calls [`AlertManager::check`]; the engine reads a [`RuleSet`] and a [`Routing`]
//! from settings and uses the pure half, `evaluate_*`, which does no I/O and returns what must be
//! recorded and sent. Without its default features the crate is rules and states alone.

#[cfg(doctest)]
#[doc = include_str!("../README.md")]
mod readme {}

mod condition;
mod handlers;
mod identity;
pub mod machine;
mod manager;
mod message;
mod names;
pub mod remediation;
mod routing;
mod rules;
mod variables;

pub use condition::{Condition, ExpressionError, Location};
#[cfg(feature = "command")]
pub use handlers::command::CommandHandler;
#[cfg(feature = "console")]
pub use handlers::console::{ConsoleHandler, ConsoleStyle};
#[cfg(feature = "email")]
pub use handlers::email::EmailHandler;
#[cfg(feature = "http")]
pub use handlers::http::{
    alertmanager::AlertmanagerHandler, discord::DiscordHandler, ntfy::NtfyHandler,
    pagerduty::PagerDutyHandler, slack::SlackHandler, teams::TeamsHandler,
    telegram::TelegramHandler, webhook::WebhookHandler,
};
pub use handlers::{
    BuildErrors, FnHandler, HandlerFactory, HandlerRegistry, IntoDelivery, handler_fn,
};
pub use identity::notification_key;
pub use manager::{
    AlertManager, CheckOutcome, DeliveryReport, Evaluated, ListChanges, ServiceView,
};
pub use message::Message;
pub use routing::{RouteConfigError, Routing, handlers_or_console};
pub use rules::{
    AlertRule, ConditionRule, DELIVERY_FAILING, DEPENDENCY_DOWN, FLAPPING, MONITOR_OFFLINE,
    REMEDIATION_GAVE_UP, RuleConfigError, RuleSet, SERVICE_DOWN, STORAGE_FAILING, TOOLS_CHANGED,
};
pub use variables::names as names_of_scope;
