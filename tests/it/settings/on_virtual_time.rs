//! Keys whose effect shows in the running loop: each row sets one key and nothing else, and says
//! what was seen without it and with it.

use mcpmon_core::Question;

use super::lab::{Look, Plot, observe};

struct Row {
    key: &'static str,
    /// The configuration without the key.
    base: &'static str,
    /// What is added to it.
    set: &'static str,
    plot: Plot,
    look: Look,
    without: &'static str,
    with: &'static str,
}

const fn row(
    key: &'static str,
    (base, set): (&'static str, &'static str),
    plot: Plot,
    look: Look,
    (without, with): (&'static str, &'static str),
) -> Row {
    Row { key, base, set, plot, look, without, with }
}

const MINUTE: u64 = 60;
const HOUR: u64 = 60 * MINUTE;

/// A rule that fires for every service, and no other rule in the way.
const ALWAYS: &str = "[[rules]]\nname = \"r\"\nwhen = \"total_checks >= 1\"\n";
/// A rule that fires while the service is down.
const DOWN: &str = "[[rules]]\nname = \"service_down\"\nenabled = false\n\
                    [[rules]]\nname = \"r\"\nwhen = \"status == 'stopped'\"\n";
/// Without the rule that a service fires which fails one check in five.
const NOT_FLAPPING: &str = "[[rules]]\nname = \"flapping\"\nenabled = false\n[tool_monitoring]\n";
/// A configured call.
const CALLED: &str = "[[services.svc.functional]]\ntool = \"t\"\n";
/// A configured call, a rule that fires where one is slow, and no other rule in the way.
const SLOW_CALLS: &str = "[[services.svc.functional]]\ntool = \"t\"\n\
                          [[rules]]\nname = \"slow_tool_calls\"\nenabled = false\n\
                          [[rules]]\nname = \"r\"\nscope = \"tool\"\nwhen = \"slow_calls > 0\"\n";
/// A route of its own for the handler `other`, beside one of everything for `told`.
const ROUTED: &str = "[[rules]]\nname = \"r\"\nwhen = \"total_checks >= 1\"\nlevel = \"info\"\n\
                      [[routes]]\nhandlers = [\"told\"]\n\
                      [[routes]]\nhandlers = [\"other\"]\n";

/// The same with hours, which hold when the test begins: on a Sunday at 14:09 UTC.
macro_rules! in_hours {
    ($hours:literal) => {
        concat!(
            "[[rules]]\nname = \"r\"\nwhen = \"total_checks >= 1\"\nlevel = \"info\"\n",
            "[[routes]]\nhandlers = [\"told\"]\n",
            "[[routes]]\nhandlers = [\"other\"]\ntimezone = \"UTC\"\n",
            $hours
        )
    };
}
/// Every day, all day.
const MAINTAINED: &str = "[[maintenance]]\nstart = \"00:00\"\nduration = \"24h\"\n";
/// Long over.
const WAS_MAINTAINED: &str = "[[maintenance]]\nat = \"2026-11-20T00:00\"\nduration = \"1h\"\n";

#[rustfmt::skip]
const ROWS: &[Row] = &[
    row("monitoring.enabled", ("[monitoring]\n", "enabled = false"),
        Plot::Well, Look::Asks(10 * MINUTE), ("20", "0")),
    row("monitoring.check_interval", ("[monitoring]\n", "check_interval = \"60s\""),
        Plot::Well, Look::Asks(10 * MINUTE), ("20", "10")),
    row("monitoring.health_check_timeout", ("[monitoring]\n", "health_check_timeout = \"4s\""),
        Plot::Hangs, Look::FirstResult, ("10", "4")),
    row("monitoring.health_check_retries", ("[monitoring]\n", "health_check_retries = 1"),
        Plot::Refused, Look::AsksBegun(20), ("3", "1")),
    row("monitoring.performance_monitoring", ("[monitoring]\n", "performance_monitoring = false"),
        Plot::Well, Look::Host(MINUTE), ("true", "false")),
    row("monitoring.alerts_enabled", ("[monitoring]\n", "alerts_enabled = false"),
        Plot::Refused, Look::Told(MINUTE), ("firing service_down error", "")),
    row("monitoring.alert_cooldown", ("[monitoring]\n", "alert_cooldown = \"20m\""),
        Plot::Refused, Look::Notices(50 * MINUTE), ("10", "3")),

    row("service_monitoring.status_check_interval", ("[service_monitoring]\n", "status_check_interval = \"5s\""),
        Plot::HoldsSession, Look::Asks(10 * MINUTE), ("40", "120")),
    row("service_monitoring.list_interval", ("[service_monitoring]\n", "list_interval = \"10m\""),
        Plot::Well, Look::AsksOf(Question::List, HOUR), ("13", "7")),
    row("service_monitoring.max_consecutive_failures", ("[service_monitoring]\n", "max_consecutive_failures = 1"),
        Plot::FailsOnce, Look::Status(61), ("running", "stopped")),
    row("service_monitoring.max_consecutive_successes", ("[service_monitoring]\n", "max_consecutive_successes = 1"),
        Plot::Recovers, Look::Status(92), ("stopped", "running")),

    row("performance_monitoring.enabled", ("[performance_monitoring]\n", "enabled = false"),
        Plot::Well, Look::Host(MINUTE), ("true", "false")),
    row("performance_monitoring.response_time_threshold",
        ("[performance_monitoring]\n", "response_time_threshold = \"4s\""),
        Plot::Slow, Look::Told(4 * MINUTE), ("firing slow_response warning", "")),
    row("performance_monitoring.cpu_threshold", ("[performance_monitoring]\n", "cpu_threshold = 40"),
        Plot::Well, Look::Told(4 * MINUTE), ("", "firing high_cpu warning")),
    row("performance_monitoring.memory_threshold", ("[performance_monitoring]\n", "memory_threshold = 40"),
        Plot::Well, Look::Told(4 * MINUTE), ("", "firing high_memory warning")),
    row("performance_monitoring.disk_threshold", ("[performance_monitoring]\n", "disk_threshold = 40"),
        Plot::Well, Look::Told(4 * MINUTE), ("", "firing disk_full warning")),

    row("tool_monitoring.error_rate_threshold", (NOT_FLAPPING, "error_rate_threshold = 0.5"),
        Plot::Unsteady, Look::Told(10 * MINUTE), ("firing high_error_rate warning", "")),

    row("data_collection.metrics_buffer_size", ("[data_collection]\n", "metrics_buffer_size = 5"),
        Plot::Well, Look::Dropped(10 * MINUTE), ("false", "true")),

    row("rules.*.name", (ALWAYS, "[[rules]]\nname = \"another\"\nwhen = \"total_checks >= 1\""),
        Plot::Well, Look::Told(MINUTE), ("firing r warning", "firing r warning, firing another warning")),
    row("rules.*.enabled", (ALWAYS, "enabled = false"),
        Plot::Well, Look::Told(MINUTE), ("firing r warning", "")),
    row("rules.*.scope", ("[[rules]]\nname = \"r\"\nwhen = \"cpu_percent > 40.0\"\n", "scope = \"host\""),
        Plot::Well, Look::Told(MINUTE), ("", "firing r warning")),
    row("rules.*.when", ("[[rules]]\nname = \"service_down\"\n", "when = \"status == 'running'\""),
        Plot::Well, Look::Told(MINUTE), ("", "firing service_down error")),
    row("rules.*.window", ("[[rules]]\nname = \"r\"\nwhen = \"total_checks >= 15\"\n", "window = \"10m\""),
        Plot::Well, Look::Told(9 * MINUTE), ("", "firing r warning")),
    row("rules.*.level", (ALWAYS, "level = \"critical\""),
        Plot::Well, Look::Told(MINUTE), ("firing r warning", "firing r critical")),
    row("rules.*.hold", (ALWAYS, "hold = \"5m\""),
        Plot::Well, Look::FirstNotice, ("0", "5")),
    row("rules.*.keep_firing", (DOWN, "keep_firing = \"5m\""),
        Plot::Recovers, Look::AlertLength(30 * MINUTE), ("1", "6")),
    row("rules.*.cooldown", (ALWAYS, "cooldown = \"20m\""),
        Plot::Well, Look::Notices(50 * MINUTE), ("10", "3")),
    row("rules.*.match", (ALWAYS, "match = { team = \"web\" }"),
        Plot::Well, Look::Told(MINUTE), ("firing r warning", "")),
    row("rules.*.message", (ALWAYS, "message = \"look at {{ service_name }}\""),
        Plot::Well, Look::Messages(MINUTE), ("svc: r", "look at svc")),

    row("routes.*.levels", (ROUTED, "levels = [\"critical\"]"),
        Plot::Well, Look::ToldOther(MINUTE), ("firing r info", "")),
    row("routes.*.rules", (ROUTED, "rules = [\"service_down\"]"),
        Plot::Well, Look::ToldOther(MINUTE), ("firing r info", "")),
    row("routes.*.match", (ROUTED, "match = { team = \"web\" }"),
        Plot::Well, Look::ToldOther(MINUTE), ("firing r info", "")),
    row("routes.*.handlers", (ALWAYS, "[[routes]]\nhandlers = [\"told\"]"),
        Plot::Well, Look::ToldOther(MINUTE), ("firing r warning", "")),

    row("routes.*.days", (ROUTED, "days = [\"tue\", \"wed\"]"),
        Plot::Well, Look::ToldOther(MINUTE), ("firing r info", "")),
    row("routes.*.from", (in_hours!("until = \"20:00\"\n"), "from = \"15:00\""),
        Plot::Well, Look::ToldOther(MINUTE), ("firing r info", "")),
    row("routes.*.until", (in_hours!("from = \"01:00\"\n"), "until = \"14:00\""),
        Plot::Well, Look::ToldOther(MINUTE), ("firing r info", "")),
    row("routes.*.after", (ROUTED, "after = \"10m\""),
        Plot::Well, Look::ToldOther(MINUTE), ("firing r info", "")),

    row("maintenance.*.start", ("", MAINTAINED),
        Plot::Well, Look::Status(MINUTE), ("running", "paused")),
    row("maintenance.*.at", ("", "[[maintenance]]\nat = \"2026-11-20T00:00\"\nduration = \"100h\""),
        Plot::Well, Look::Status(MINUTE), ("running", "paused")),
    row("maintenance.*.duration",
        (WAS_MAINTAINED, "[[maintenance]]\nat = \"2026-11-20T00:00\"\nduration = \"100h\""),
        Plot::Well, Look::Status(MINUTE), ("running", "paused")),
    row("maintenance.*.days", (MAINTAINED, "days = [\"wed\"]"),
        Plot::Well, Look::Status(MINUTE), ("paused", "running")),
    row("maintenance.*.services", (MAINTAINED, "services = [\"another\"]"),
        Plot::Well, Look::Status(MINUTE), ("paused", "running")),
    row("maintenance.*.match", (MAINTAINED, "match = { team = \"web\" }"),
        Plot::Well, Look::Status(MINUTE), ("paused", "running")),

    row("tool_monitoring.call_timeout", (CALLED, "[tool_monitoring]\ncall_timeout = \"3s\""),
        Plot::CallsHang, Look::FirstCalls, ("40", "13")),
    row("tool_monitoring.slow_call_threshold",
        (SLOW_CALLS, "[tool_monitoring]\nslow_call_threshold = \"3s\""),
        Plot::CallsSlowly, Look::Told(MINUTE), ("", "firing r warning")),
    row("services.*.functional.*.tool", ("", CALLED),
        Plot::Well, Look::AsksOf(Question::Functional, 5 * MINUTE), ("0", "11")),
    row("services.*.depends_on", ("", "[services.svc]\ndepends_on = [\"tcp://db:5432\"]"),
        Plot::RefusedBeside, Look::Code(MINUTE), ("connection_refused", "dependency_down")),
    row("services.*.mode", ("", "[services.svc]\nmode = \"passive\""),
        Plot::Well, Look::Status(MINUTE), ("running", "paused")),
    row("services.*.labels", ("[[rules]]\nname = \"r\"\nwhen = \"total_checks >= 1\"\n\
                               match = { tier = \"1\" }\n", "[services.svc.labels]\ntier = \"1\""),
        Plot::Well, Look::Told(MINUTE), ("", "firing r warning")),
];

pub(super) fn keys() -> impl Iterator<Item = &'static str> {
    ROWS.iter().map(|row| row.key)
}

#[tokio::test(start_paused = true)]
async fn every_key_of_the_loop_changes_what_happens() {
    let mut wrong = Vec::new();
    for row in ROWS {
        let without = observe(row.base, row.plot, row.look).await;
        let with = observe(&format!("{}{}", row.base, row.set), row.plot, row.look).await;
        if (without.as_str(), with.as_str()) != (row.without, row.with) {
            wrong.push(format!(
                "{}: {:?}: without it {without:?} (expected {:?}), with it {with:?} (expected {:?})",
                row.key, row.look, row.without, row.with
            ));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
