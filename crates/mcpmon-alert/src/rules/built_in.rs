//! The built-in rules, written as a user would write them: `rules list` shows these very
//! conditions, and a `[[rules]]` entry of the same name changes any key of them.
//!
//! `null` is "cannot be told": a service we could not look at, or that is still starting or
//! paused, keeps whatever alert it has. A service that just came back has a window full of its
//! outage, which `service_down` has told already; hence `uptime >= window`. Thresholds come from
//! the settings: a service's own as names, those of tools and the host as numbers.

use std::time::Duration;

use mcpmon_core::rule::{RuleContext, RuleInput, Scope, Verdict};
use mcpmon_core::settings::{RuleSettings, Settings};
use mcpmon_core::status::{Level, Status};
use mcpmon_core::store::ListChange;

use super::condition_rule::Guard;

/// A built-in rule, and what makes it worse.
#[derive(Debug, Clone)]
pub(super) struct BuiltIn {
    pub(super) settings: RuleSettings,
    pub(super) worse: Option<(String, Level)>,
    pub(super) guard: Option<Guard>,
}

/// Above this, in percent, a disk is not a warning any more.
const DISK_CRITICAL: f64 = 95.0;

/// The rule the manager asks first: while it fires, [`SERVICE_DOWN`] says nothing.
pub const FLAPPING: &str = "flapping";
/// The rule that a service lists other tools, prompts, resources or instructions than before.
pub const TOOLS_CHANGED: &str = ListChange::RULE;
/// The rule that says nothing while its service flaps.
pub const SERVICE_DOWN: &str = "service_down";
/// Says that repairs of a service were tried too often.
pub const REMEDIATION_GAVE_UP: &str = "remediation_gave_up";
/// Judged by [`AlertManager::evaluate_fact`](crate::AlertManager::evaluate_fact), of each
/// dependency that is no service.
pub const DEPENDENCY_DOWN: &str = "dependency_down";
/// Judged by [`AlertManager::evaluate_fact`](crate::AlertManager::evaluate_fact).
pub const MONITOR_OFFLINE: &str = "monitor_offline";
/// Judged by [`AlertManager::evaluate_fact`](crate::AlertManager::evaluate_fact), of each handler;
/// told to every one but that.
pub const DELIVERY_FAILING: &str = "delivery_failing";
/// Judged by [`AlertManager::evaluate_fact`](crate::AlertManager::evaluate_fact).
pub const STORAGE_FAILING: &str = "storage_failing";

/// The built-in rules for these settings; none of the host's where it is not measured.
pub(super) fn rules(settings: &Settings) -> Vec<BuiltIn> {
    let mut rules = of_services();
    rules.extend(of_tools(settings));
    rules.extend(of_monitor());
    if settings.performance_enabled() {
        rules.extend(of_host(settings));
    }
    rules
}

/// Rules about slowness, which is no reason to repair anything.
pub(super) const OF_SLOWNESS: [&str; 3] =
    ["slow_response", "response_time_anomaly", "slow_tool_calls"];

/// Every name, also of those the settings leave out.
pub(super) const NAMES: [&str; 19] = [
    FLAPPING,
    SERVICE_DOWN,
    "auth_required",
    "high_error_rate",
    "slow_response",
    TOOLS_CHANGED,
    "not_monitored",
    REMEDIATION_GAVE_UP,
    "response_time_anomaly",
    "error_rate_anomaly",
    "slow_tool_calls",
    "tool_error_rate",
    DEPENDENCY_DOWN,
    DELIVERY_FAILING,
    MONITOR_OFFLINE,
    STORAGE_FAILING,
    "high_cpu",
    "high_memory",
    "disk_full",
];

fn of_services() -> Vec<BuiltIn> {
    let mut flapping = rule(
        FLAPPING,
        Level::Warning,
        r#"status in ["starting", "paused"] ? null : result_changes >= (firing ? 3 : 6)"#,
        "{{ service_name }} is flapping: its result changed {{ result_changes }} times in 20 attempts",
    );
    // What is steady for a moment only is not steady.
    flapping.settings.keep_firing = Some(Duration::from_secs(30 * 60));
    flapping.guard = Some(steady);
    let mut slow = rule(
        "response_time_anomaly",
        Level::Warning,
        r#"!(status in ["running", "degraded"]) || total_checks - failed_checks < 5 ? null : response_time_z > (firing ? 3.0 : 6.0) && p50_response_time > usual_response_time * (firing ? 1.25 : 1.5)"#,
        "{{ service_name }} is slower than usual: half of its answers took {{ p50_response_time | seconds }} or more in {{ window | seconds }}, usually {{ usual_response_time | seconds }}",
    );
    let mut failing = rule(
        "error_rate_anomaly",
        Level::Warning,
        r#"!(status in ["running", "degraded"]) || error_rate_samples < 10 ? null : error_rate_z > (firing ? 3.0 : 6.0) && error_rate > usual_error_rate + (firing ? 0.02 : 0.05) && (firing || uptime >= window)"#,
        "{{ service_name }} fails more than usual: {{ error_rate | percent(1) }} of {{ error_rate_samples }} {{ error_rate_source }} in {{ window | seconds }}, usually {{ usual_error_rate | percent(1) }}",
    );
    for anomaly in [&mut slow, &mut failing] {
        anomaly.settings.hold = Some(Duration::from_secs(120));
        anomaly.guard = Some(nothing_usual);
    }
    let mut changed = rule(
        TOOLS_CHANGED,
        Level::Info,
        r#""tools_changed" in findings || "tools_unstable" in findings"#,
        "{{ service_name }}: its tools, prompts, resources or instructions are not those it listed before; `mcpmon tools {{ service_name }}` shows them",
    );
    changed.guard = Some(nothing_found);
    let mut forgotten = rule(
        "not_monitored",
        Level::Warning,
        r#"status == "paused" ? null : status == "unknown" && status_seconds > 10.0 * check_interval"#,
        "{{ service_name }} has not been monitored for {{ status_seconds | seconds }}{% if last_error %}: {{ last_error }}{% endif %}",
    );
    forgotten.guard = Some(known);
    let mut gave_up = rule(
        REMEDIATION_GAVE_UP,
        Level::Critical,
        "repair_given_up",
        "{{ service_name }} stays down: it was repaired too often within an hour, and nothing more is tried until it is well again{% if last_error %}: {{ last_error }}{% endif %}",
    );
    gave_up.guard = Some(still_tried);
    vec![
        flapping,
        slow,
        failing,
        changed,
        forgotten,
        gave_up,
        rule(
            SERVICE_DOWN,
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

fn of_tools(settings: &Settings) -> Vec<BuiltIn> {
    let tools = &settings.tool_monitoring;
    let slow = tools.slow_call_threshold.as_secs_f64();
    let mut rules = vec![
        rule(
            "slow_tool_calls",
            Level::Warning,
            &format!(
                "total_calls < 3 ? null : p95_response_time > {slow:?} * (firing ? 0.8 : 1.0)"
            ),
            &format!(
                "{{{{ service_name }}}}/{{{{ tool_name }}}} is slow: 95% of {{{{ total_calls }}}} calls took up to {{{{ p95_response_time | seconds }}}}, more than {slow}s"
            ),
        ),
        rule(
            "tool_error_rate",
            Level::Warning,
            "total_calls < 5 ? null : error_rate > error_rate_threshold",
            "{{ service_name }}/{{ tool_name }}: {{ error_rate | percent(1) }} of {{ total_calls }} calls failed{% if last_error %}: {{ last_error }}{% endif %}",
        ),
    ];
    for rule in &mut rules {
        rule.settings.scope = Some(Scope::Tool);
    }
    rules
}

/// What the monitor knows of itself and of dependencies that are no services.
fn of_monitor() -> Vec<BuiltIn> {
    let mut rules = vec![
        rule(
            DEPENDENCY_DOWN,
            Level::Error,
            "failing",
            "{{ subject }} is down{% if detail %}: {{ detail }}{% endif %}; {{ affected }} {% if affected == 1 %}service depends{% else %}services depend{% endif %} on it",
        ),
        rule(
            DELIVERY_FAILING,
            Level::Error,
            "failing",
            "handler {{ subject }} does not get through{% if detail %}: {{ detail }}{% endif %}",
        ),
        rule(
            MONITOR_OFFLINE,
            Level::Critical,
            "failing",
            "this machine has no network{% if detail %}: {{ detail }}{% endif %}; {{ affected }} services cannot be told about",
        ),
        rule(
            STORAGE_FAILING,
            Level::Critical,
            "failing",
            "the history is failing{% if detail %}: {{ detail }}{% endif %}{% if affected %}; {{ affected }} checks wait in memory{% endif %}",
        ),
    ];
    for rule in &mut rules {
        rule.settings.scope = Some(Scope::Monitor);
    }
    rules
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
        guard: None,
    }
}

/// The status, where the rule looks at a service.
fn status(context: &RuleContext<'_>) -> Option<Status> {
    match context.input {
        RuleInput::Service(metrics) => Some(metrics.status),
        _ => None,
    }
}

fn steady(context: &RuleContext<'_>) -> Option<Verdict> {
    let resting = matches!(status(context)?, Status::Starting | Status::Paused);
    (!resting && context.result_changes < 3).then_some(Verdict::Ok)
}

fn nothing_usual(context: &RuleContext<'_>) -> Option<Verdict> {
    context.usual.is_none().then_some(Verdict::NoData)
}

fn nothing_found(context: &RuleContext<'_>) -> Option<Verdict> {
    context.findings.is_empty().then_some(Verdict::Ok)
}

fn still_tried(context: &RuleContext<'_>) -> Option<Verdict> {
    (!context.repair_given_up).then_some(Verdict::Ok)
}

fn known(context: &RuleContext<'_>) -> Option<Verdict> {
    let is_known = !matches!(status(context)?, Status::Unknown | Status::Paused);
    is_known.then_some(Verdict::Ok)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ConditionRule;
    use mcpmon_core::failure::{Finding, FindingCode};
    use mcpmon_core::metrics::ServiceMetrics;
    use mcpmon_core::rule::{Rule as _, Usual};
    use mcpmon_core::time::Timestamp;
    use mcpmon_testkit::samples;

    const STATUSES: [Status; 8] = [
        Status::Unknown,
        Status::Starting,
        Status::Running,
        Status::Degraded,
        Status::AuthRequired,
        Status::Stopped,
        Status::Error,
        Status::Paused,
    ];

    /// Every guarded rule, by its condition and by its guard, over every kind of context.
    #[test]
    fn a_guard_says_what_its_condition_would() {
        let findings = [Finding::new(FindingCode::ToolsChanged, "")];
        let limits = mcpmon_core::service::ServiceLimits::default();
        let usual = Usual::default();
        let guarded = of_services().into_iter().filter(|built_in| built_in.guard.is_some());
        let mut decided = 0;
        for built_in in guarded {
            let guard = built_in.guard.unwrap();
            let rule = ConditionRule::read(&built_in.settings, None, true).unwrap();
            for status in STATUSES {
                let metrics = ServiceMetrics { status, ..samples::service_metrics("s") };
                for (result_changes, flag, is_usual) in
                    [(0, false, false), (2, true, true), (3, false, true), (9, true, false)]
                {
                    let now = Timestamp::default();
                    let context = RuleContext {
                        limits: Some(&limits),
                        result_changes,
                        findings: if flag { &findings } else { &[] },
                        repair_given_up: flag,
                        usual: is_usual.then_some(&usual),
                        status_seconds: Some(1e6),
                        ..RuleContext::new(RuleInput::Service(&metrics), now)
                    };
                    if let Some(verdict) = guard(&context) {
                        decided += 1;
                        let condition = rule.evaluate(&context);
                        let name = rule.name();
                        assert_eq!(condition, Ok(verdict), "{name} {status} {result_changes}");
                    }
                }
            }
        }
        assert!(decided > 20);
    }
}
