//! The built-in rules, written as a user would write them: `rules list` shows these very
//! conditions, and a `[[rules]]` entry of the same name changes any key of them.
//!
//! `null` is "cannot be told": a service we could not look at, or that is still starting or
//! paused, keeps whatever alert it has. A service that just came back has a window full of its
//! outage, which `service_down` has told already; hence `uptime >= window`. Thresholds come from
//! the settings: a service's own as names, the host's as numbers.

use std::time::Duration;

use mcpmon_core::rule::Scope;
use mcpmon_core::settings::{RuleSettings, Settings};
use mcpmon_core::status::Level;

/// A built-in rule, and what makes it worse.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct BuiltIn {
    pub(super) settings: RuleSettings,
    pub(super) worse: Option<(String, Level)>,
}

/// Above this, in percent, a disk is not a warning any more.
const DISK_CRITICAL: f64 = 95.0;

/// The built-in rules for these settings; none of the host's where it is not measured.
pub(super) fn rules(settings: &Settings) -> Vec<BuiltIn> {
    let mut rules = of_services();
    if settings.performance_enabled() {
        rules.extend(of_host(settings));
    }
    rules
}

/// Every name, also of those the settings leave out.
pub(super) const NAMES: [&str; 7] = [
    "service_down",
    "auth_required",
    "high_error_rate",
    "slow_response",
    "high_cpu",
    "high_memory",
    "disk_full",
];

fn of_services() -> Vec<BuiltIn> {
    vec![
        rule(
            "service_down",
            Level::Error,
            r#"status in ["unknown", "starting", "paused"] ? null : (status == "stopped" || status == "error") && (firing || consecutive_failures >= max_consecutive_failures)"#,
            "{{ service_name }} is down ({{ status }}){% if last_error %}: {{ last_error }}{% endif %}",
        ),
        rule(
            "auth_required",
            Level::Warning,
            r#"status in ["unknown", "starting", "paused"] ? null : status == "auth_required""#,
            "{{ service_name }} wants credentials{% if last_error %}: {{ last_error }}{% endif %}",
        ),
        rule(
            "high_error_rate",
            Level::Warning,
            r#"!(status in ["running", "degraded"]) || error_rate_samples < 5 ? null : error_rate > error_rate_threshold && (firing || uptime >= window)"#,
            "{{ service_name }}: {{ error_rate | percent(1) }} of {{ error_rate_samples }} {{ error_rate_source }} failed in {{ window | seconds }}",
        ),
        rule(
            "slow_response",
            Level::Warning,
            r#"!(status in ["running", "degraded"]) || total_checks - failed_checks < 3 ? null : avg_response_time > response_time_threshold * (firing ? 0.8 : 1.0)"#,
            "{{ service_name }} is slow: {{ avg_response_time | fixed(2) }}s on average in {{ window | seconds }}, more than {{ response_time_threshold | fixed(2) }}s",
        ),
    ]
}

fn of_host(settings: &Settings) -> Vec<BuiltIn> {
    let limits = &settings.performance_monitoring;
    let mut cpu = threshold("high_cpu", "cpu_percent", limits.cpu_threshold, 5.0, "CPU");
    // A machine that compiles is not in trouble; one that is busy for a minute may be.
    cpu.settings.hold = Some(Duration::from_secs(60));
    let memory = threshold("high_memory", "memory_percent", limits.memory_threshold, 2.0, "memory");
    let mut disk =
        threshold("disk_full", "disk_percent", limits.disk_threshold, 1.0, "the fullest disk");
    disk.worse = Some((format!("disk_percent >= {DISK_CRITICAL:?}"), Level::Critical));
    vec![cpu, memory, disk]
}

/// A rule that fires above `limit` percent and ends `slack` below it, so that a value that hangs
/// about the limit does not flap.
fn threshold(name: &str, value: &str, limit: f64, slack: f64, what: &str) -> BuiltIn {
    let end = (limit - slack).max(0.0);
    let mut built_in = rule(
        name,
        Level::Warning,
        &format!("{value} > (firing ? {end:?} : {limit:?})"),
        &format!("{what} at {{{{ {value} | fixed(1) }}}}%, more than {limit}%"),
    );
    built_in.settings.scope = Some(Scope::Host);
    built_in
}

fn rule(name: &str, level: Level, when: &str, message: &str) -> BuiltIn {
    BuiltIn {
        settings: RuleSettings {
            name: name.to_owned(),
            level: Some(level),
            when: Some(when.to_owned()),
            message: Some(message.to_owned()),
            ..RuleSettings::default()
        },
        worse: None,
    }
}
