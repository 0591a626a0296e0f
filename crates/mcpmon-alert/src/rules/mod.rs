//! Rules: written in a configuration ([`ConditionRule`]), built in, or a closure of a program that
//! uses this crate ([`AlertRule`]). All are core's [`mcpmon_core::Rule`], and nothing here is
//! private to ours.

mod built_in;
mod closure;
mod condition_rule;
mod set;

pub use built_in::{
    DELIVERY_FAILING, DEPENDENCY_DOWN, FLAPPING, MONITOR_OFFLINE, REMEDIATION_GAVE_UP,
    SERVICE_DOWN, STORAGE_FAILING, TOOLS_CHANGED,
};
pub use closure::AlertRule;
pub use condition_rule::ConditionRule;
pub use set::{RuleConfigError, RuleSet};
