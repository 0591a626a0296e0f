//! Keys that a service can set for itself: for that service they are the monitor's key of the same
//! meaning, so what is proven for one holds for the other.

use mcpmon_core::Settings;

/// The service's key, the section it overrides, and a value other than the default.
#[rustfmt::skip]
const ROWS: &[(&str, &str, &str)] = &[
    ("check_interval", "monitoring", "\"60s\""),
    ("health_check_timeout", "monitoring", "\"4s\""),
    ("health_check_retries", "monitoring", "1"),
    ("status_check_interval", "service_monitoring", "\"5s\""),
    ("list_interval", "service_monitoring", "\"10m\""),
    ("connection_timeout", "service_monitoring", "\"1s\""),
    ("startup_timeout", "service_monitoring", "\"1s\""),
    ("max_consecutive_failures", "service_monitoring", "1"),
    ("max_consecutive_successes", "service_monitoring", "1"),
    ("max_body", "service_monitoring", "\"1kB\""),
    ("call_timeout", "tool_monitoring", "\"3s\""),
    ("response_time_threshold", "performance_monitoring", "\"4s\""),
    ("error_rate_threshold", "tool_monitoring", "0.5"),
];

pub(super) fn keys() -> impl Iterator<Item = String> {
    ROWS.iter().map(|(key, ..)| format!("services.*.{key}"))
}

#[test]
fn a_service_may_set_any_interval_or_threshold_for_itself() {
    let defaults = Settings::default().limits();
    for (key, section, value) in ROWS {
        let global: Settings = toml::from_str(&format!("[{section}]\n{key} = {value}\n")).unwrap();
        let own: Settings = toml::from_str(&format!("[services.svc]\n{key} = {value}\n")).unwrap();
        let limits = own.services["svc"].limits(&defaults);
        assert_ne!(limits, defaults, "{key}");
        assert_eq!(limits, global.limits(), "{key}");
    }
}
