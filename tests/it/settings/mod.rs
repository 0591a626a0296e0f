//! Every settings key: it parses, it is shown, and changing it alone changes what happens.
//!
//! The proofs stand where they are cheapest and still honest: in the running loop on virtual time,
//! on the command line, or in a pure function the loop calls. A last test holds the lists against
//! the schema, so that no key is without one.

mod calls;
mod lab;
mod on_the_command_line;
mod on_virtual_time;
mod per_service;
mod repairs;

use std::collections::BTreeSet;
use std::time::Duration;

use mcpmon_core::store::{PrunePlan, Retention};
use mcpmon_core::{Settings, Timestamp};
use serde_json::Value;

use crate::home::Home;

/// Keys of which the schema itself says that they have no effect: what only a client needs is
/// accepted, so that a pasted block is valid.
const CLIENTS_OWN: &[&str] = &[
    "services.*.description",
    "services.*.autoApprove",
    "services.*.includeTools",
    "services.*.excludeTools",
    "services.*.trust",
    "services.*.timeout",
    "services.*.startup_timeout_sec",
    "services.*.dev",
    "services.*.auth",
];

/// Keys that say whose wall clock is meant; without them it is this machine's, which no test knows.
const TIME_ZONES: &[&str] = &["routes.*.timezone", "maintenance.*.timezone"];

#[test]
fn a_time_zone_says_whose_clock_is_meant() {
    // Sunday 14:09 in UTC is Monday 04:09 on Kiritimati.
    let now = mcpmon_testkit::START;
    let zones = [("UTC", true), ("Pacific/Kiritimati", false)];
    for (zone, is_sunday) in zones {
        let text = format!(
            "[[routes]]\nhandlers = [\"x\"]\ndays = [\"sun\"]\ntimezone = \"{zone}\"\n\
             [[maintenance]]\ndays = [\"sun\"]\nstart = \"00:00\"\nduration = \"24h\"\ntimezone = \"{zone}\"\n"
        );
        let settings: Settings = toml::from_str(&text).unwrap();
        let hours = mcpmon_core::calendar::Hours::read(&settings.routes[0]).unwrap().unwrap();
        assert_eq!(hours.contain(now), is_sunday, "{zone}");
        let window = mcpmon_core::calendar::Maintenance::read(&settings.maintenance[0]).unwrap();
        let spec = mcpmon_core::ServiceSpec::http("a", "http://a.test/mcp");
        assert_eq!(window.until(&spec, now).is_some(), is_sunday, "{zone}");
    }
}

/// Every key of the schema, with `*` for any name and any place in a list.
pub(crate) fn keys_of(schema: &Value) -> BTreeSet<String> {
    let mut keys = BTreeSet::new();
    walk(schema, schema, "", &mut keys);
    keys
}

fn walk(root: &Value, node: &Value, path: &str, keys: &mut BTreeSet<String>) {
    if let Some(reference) = node["$ref"].as_str() {
        let pointer = reference.trim_start_matches('#');
        return walk(root, root.pointer(pointer).unwrap(), path, keys);
    }
    let below =
        |name: &str| if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") };
    let options = node["anyOf"].as_array().into_iter().flatten();
    let objects: Vec<&Value> = options
        .filter(|option| option["$ref"].is_string() || option["properties"].is_object())
        .collect();
    if let Some(properties) = node["properties"].as_object() {
        for (name, property) in properties {
            walk(root, property, &below(name), keys);
        }
    } else if node["additionalProperties"]["$ref"].is_string() && path == "services" {
        walk(root, &node["additionalProperties"], &below("*"), keys);
    } else if is_object(root, &node["items"]) {
        walk(root, &node["items"], &below("*"), keys);
    } else if let [only] = objects.as_slice()
        && node["anyOf"]
            .as_array()
            .is_some_and(|all| all.iter().all(|one| one == *only || one["type"] == "null"))
    {
        walk(root, only, path, keys);
    } else {
        keys.insert(path.to_owned());
    }
}

/// Whether this describes a table, and not one of a few words.
fn is_object(root: &Value, node: &Value) -> bool {
    let pointer = node["$ref"].as_str().map(|reference| reference.trim_start_matches('#'));
    pointer.and_then(|pointer| root.pointer(pointer)).is_some_and(|it| it["properties"].is_object())
}

pub(crate) async fn schema() -> Value {
    Home::new().run(&["config", "schema"]).await.expect(0).json()
}

fn is_under(key: &str, listed: &str) -> bool {
    key == listed || key.strip_prefix(listed).is_some_and(|rest| rest.starts_with('.'))
}

#[tokio::test]
async fn every_key_has_a_proof_and_every_proof_a_key() {
    let keys = keys_of(&schema().await);
    let mut proven: BTreeSet<String> = BTreeSet::new();
    proven.extend(on_virtual_time::keys().map(str::to_owned));
    proven.extend(on_the_command_line::KEYS.iter().map(|key| (*key).to_owned()));
    proven.extend(per_service::keys());
    proven.extend(calls::KEYS.iter().map(|key| (*key).to_owned()));
    proven.extend(CLIENTS_OWN.iter().map(|key| (*key).to_owned()));
    proven.extend(TIME_ZONES.iter().map(|key| (*key).to_owned()));
    proven.extend(RETENTION.iter().map(|(key, _)| format!("monitoring.{key}")));
    proven.extend(repairs::KEYS.iter().map(|key| (*key).to_owned()));

    let unproven: Vec<&String> = keys.iter().filter(|key| !proven.contains(*key)).collect();
    assert!(unproven.is_empty(), "no proof that these do anything: {unproven:#?}");
    let gone: Vec<&String> = proven.iter().filter(|key| !keys.contains(*key)).collect();
    assert!(gone.is_empty(), "no such keys: {gone:#?}");
}

/// Keys that say how long and in how much room the history is kept, with another value.
const RETENTION: &[(&str, &str)] = &[
    ("metrics_retention_days", "2"),
    ("middle_retention_days", "3"),
    ("rollup_retention_days", "4"),
    ("max_database_size", "\"1MB\""),
];

#[test]
fn retention_says_what_is_pruned() {
    let now = Timestamp::from_millis(1_795_356_571_120);
    let days = |days: u64| Some(now.saturating_sub(Duration::from_secs(days * 86_400)));
    let plan = |toml: &str| {
        let settings: Settings = toml::from_str(toml).unwrap();
        Retention::from_settings(&settings).plan(now)
    };
    let usual = PrunePlan {
        checks_before: days(7),
        quarters_before: days(30),
        hours_before: days(365),
        incidents_before: days(365),
        most_bytes: Some(512_000_000),
    };
    assert_eq!(plan(""), usual);
    for (key, value) in RETENTION {
        let expected = match *key {
            "metrics_retention_days" => PrunePlan { checks_before: days(2), ..usual },
            "middle_retention_days" => PrunePlan { quarters_before: days(3), ..usual },
            "rollup_retention_days" => {
                PrunePlan { hours_before: days(4), incidents_before: days(4), ..usual }
            }
            _ => PrunePlan { most_bytes: Some(1_000_000), ..usual },
        };
        assert_eq!(plan(&format!("[monitoring]\n{key} = {value}\n")), expected);
    }
}

/// A value other than the default for every simple key, as it is shown.
#[rustfmt::skip]
const SHOWN: &[(&str, &str, &str)] = &[
    ("monitoring", "enabled", "false"),
    ("monitoring", "check_interval", "\"1m\""),
    ("monitoring", "health_check_timeout", "\"4s\""),
    ("monitoring", "health_check_retries", "1"),
    ("monitoring", "performance_monitoring", "false"),
    ("monitoring", "metrics_retention_days", "2"),
    ("monitoring", "middle_retention_days", "3"),
    ("monitoring", "rollup_retention_days", "4"),
    ("monitoring", "max_database_size", "\"1MB\""),
    ("monitoring", "alerts_enabled", "false"),
    ("monitoring", "alert_cooldown", "\"20m\""),
    ("service_monitoring", "status_check_interval", "\"5s\""),
    ("service_monitoring", "connection_timeout", "\"1s\""),
    ("service_monitoring", "startup_timeout", "\"1s\""),
    ("service_monitoring", "list_interval", "\"10m\""),
    ("service_monitoring", "max_consecutive_failures", "1"),
    ("service_monitoring", "max_consecutive_successes", "1"),
    ("service_monitoring", "max_starting", "1"),
    ("service_monitoring", "max_children", "1"),
    ("service_monitoring", "max_body", "\"1MB\""),
    ("performance_monitoring", "enabled", "false"),
    ("performance_monitoring", "response_time_threshold", "\"4s\""),
    ("performance_monitoring", "cpu_threshold", "40.0"),
    ("performance_monitoring", "memory_threshold", "40.0"),
    ("performance_monitoring", "disk_threshold", "40.0"),
    ("performance_monitoring", "disks", "\"all\""),
    ("tool_monitoring", "call_timeout", "\"3s\""),
    ("tool_monitoring", "error_rate_threshold", "0.5"),
    ("tool_monitoring", "slow_call_threshold", "\"3s\""),
    ("data_collection", "metrics_buffer_size", "5"),
    ("data_collection", "log_level", "\"debug\""),
    ("data_collection", "export_format", "\"csv\""),
    ("discover", "clients", "[\"cursor\"]"),
    ("discover", "import", "[\"./mcp.json\"]"),
];

#[tokio::test]
async fn config_show_shows_each_key_as_it_is_set() {
    let home = Home::new();
    let defaults = serde_json::to_value(Settings::default()).unwrap();
    let mut text = String::new();
    let mut section = "";
    for (of, key, value) in SHOWN {
        if *of != section {
            section = of;
            text.push_str(&format!("[{section}]\n"));
        }
        text.push_str(&format!("{key} = {value}\n"));
    }
    home.write("work/mcp.json", "{}");
    home.configure(&text);
    let shown = home.run(&["config", "show", "--output", "json"]).await.expect(0).json();
    for (section, key, value) in SHOWN {
        let set: toml::Table = toml::from_str(&format!("x = {value}")).unwrap();
        let set = serde_json::to_value(&set["x"]).unwrap();
        assert_eq!(shown["settings"][section][key], set, "{section}.{key}");
        assert_ne!(defaults[section][key], set, "{section}.{key} is set to its default");
    }
    let simple: BTreeSet<String> = keys_of(&schema().await)
        .into_iter()
        .filter(|key| SHOWN.iter().any(|(section, ..)| is_under(key, section)))
        .collect();
    let tried: BTreeSet<String> =
        SHOWN.iter().map(|(section, key, _)| format!("{section}.{key}")).collect();
    assert_eq!(tried, simple);
    // What is shown can be read again.
    let text = home.run(&["config", "show"]).await.expect(0).out;
    home.configure(text);
    let again = home.run(&["config", "show", "--output", "json"]).await.expect(0).json();
    assert_eq!(again["settings"], shown["settings"]);
}
