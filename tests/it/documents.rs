//! The documents say what is so: keys, programs, links and examples are held against the code.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::Duration;

use mcpmon_core::Settings;
use mcpmon_testkit::{ChildGuard, Stream};
use tokio::process::Command;

use crate::home::{Home, until};
use crate::settings::{keys_of, schema};

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("..").canonicalize().unwrap()
}

fn read(path: &str) -> String {
    let path = root().join(path);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// README, CHANGELOG and everything under docs.
fn pages() -> Vec<(PathBuf, String)> {
    let mut pages = Vec::new();
    let mut folders = vec![root().join("docs")];
    for name in ["README.md", "CONTRIBUTING.md", "CHANGELOG.md"] {
        pages.push((root().join(name), read(name)));
    }
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap().flatten() {
            let path = entry.path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "md") {
                let text = std::fs::read_to_string(&path).unwrap();
                pages.push((path, text));
            }
        }
    }
    pages.sort();
    pages
}

/// The fenced blocks of this language.
fn blocks(text: &str, language: &str) -> Vec<String> {
    let mut blocks = Vec::new();
    let mut lines = text.lines();
    while let Some(line) = lines.next() {
        let Some(fence) = line.trim_start().strip_prefix("```") else { continue };
        let body: Vec<&str> =
            lines.by_ref().take_while(|line| !line.trim_start().starts_with("```")).collect();
        if fence.split(',').next() == Some(language) {
            blocks.push(body.join("\n") + "\n");
        }
    }
    blocks
}

#[tokio::test]
async fn every_settings_key_is_in_the_reference() {
    let reference = read("docs/configuration.md");
    let missing: Vec<String> = keys_of(&schema().await)
        .into_iter()
        .filter(|key| {
            let named = |key: &str| reference.contains(&format!("`{key}`"));
            !named(key) && !named(key.trim_start_matches("services.*."))
        })
        .collect();
    assert!(missing.is_empty(), "docs/configuration.md does not name {missing:#?}");
}

#[test]
fn every_configuration_shown_can_be_read() {
    let mut shown = 0;
    for (path, text) in pages() {
        for block in blocks(&text, "toml") {
            // A manifest is no configuration of ours.
            if block.contains("[dependencies]") {
                continue;
            }
            shown += 1;
            if let Err(error) = toml::from_str::<Settings>(&block) {
                panic!("{}: {error}\n{block}", path.display());
            }
        }
    }
    assert!(shown >= 4, "{shown}");
}

#[test]
fn the_pages_own_values_are_the_defaults() {
    let first = blocks(&read("docs/from-mcpstore.md"), "toml").swap_remove(0);
    assert_eq!(toml::from_str::<Settings>(&first).unwrap(), Settings::default());
}

#[test]
fn links_between_pages_lead_somewhere() {
    let mut broken = Vec::new();
    for (path, text) in pages() {
        for target in links(&text) {
            let file = target.split('#').next().unwrap_or_default();
            if file.is_empty() || file.contains("://") || file.starts_with("mailto:") {
                continue;
            }
            if !path.parent().unwrap_or(Path::new("/")).join(file).exists() {
                broken.push(format!("{}: {target}", path.display()));
            }
        }
    }
    assert!(broken.is_empty(), "{broken:#?}");
}

fn links(text: &str) -> Vec<&str> {
    let starts = text.match_indices("](").map(|(at, _)| &text[at + 2..]);
    starts.filter_map(|rest| rest.split_once(')')).map(|(target, _)| target).collect()
}

#[test]
fn the_embedding_page_shows_the_program_that_is_compiled() {
    let program = read("tests/examples/embed.rs");
    let shown = blocks(&read("docs/embedding.md"), "rust").swap_remove(0);
    assert_eq!(shown, program);
    let lines = program.lines().filter(|line| !line.trim().is_empty()).count();
    assert!(lines < 40, "{lines} lines");
}

#[tokio::test]
async fn the_embedding_program_tells_its_own_handler() {
    let mut command = Command::new(env!("CARGO_BIN_EXE_embed"));
    command.arg("http://127.0.0.1:9/mcp");
    let mut program = ChildGuard::spawn(command).unwrap();
    let line = program.line(Stream::Err, "Firing").await.expect("an alert");
    assert!(line.starts_with("Firing: it is down"), "{line}");
    program.signal(rustix::process::Signal::INT).unwrap();
    let status = program.wait_at_most(Duration::from_secs(10)).await.unwrap();
    assert_eq!(status.code(), Some(0));
}

#[test]
fn every_name_of_the_page_that_mcpstore_shows_is_mapped() {
    let page = read("docs/from-mcpstore.md");
    let names = [
        "MonitoringConfig",
        "AlertConfig",
        "enabled",
        "check_interval",
        "health_check_timeout",
        "health_check_retries",
        "performance_monitoring",
        "metrics_retention_days",
        "alerts_enabled",
        "alert_cooldown",
        "service_monitoring",
        "status_check_interval",
        "connection_timeout",
        "max_consecutive_failures",
        "response_time_threshold",
        "cpu_threshold",
        "memory_threshold",
        "disk_threshold",
        "tool_monitoring",
        "call_timeout",
        "error_rate_threshold",
        "slow_call_threshold",
        "data_collection",
        "metrics_buffer_size",
        "log_level",
        "export_format",
        "ServiceMetrics",
        "service_name",
        "status",
        "uptime",
        "last_check_time",
        "consecutive_failures",
        "total_requests",
        "failed_requests",
        "avg_response_time",
        "last_error",
        "get_service_metrics",
        "get_service_status",
        "get_service_info",
        "tools_count",
        "active_connections",
        "total_calls",
        "failed_calls",
        "last_activity",
        "error_rate",
        "SystemMetrics",
        "get_cpu_usage",
        "get_memory_usage",
        "get_disk_usage",
        "get_network_stats",
        "bytes_sent",
        "bytes_recv",
        "packets_sent",
        "packets_recv",
        "monitor_system_resources",
        "AlertLevel",
        "AlertRule",
        "condition",
        "cooldown",
        "last_triggered",
        "AlertManager",
        "add_rule",
        "add_handler",
        "check_alerts",
        "alert_history",
        "rule_name",
        "timestamp",
        "console_alert_handler",
        "email_alert_handler",
        "service_down",
        "high_error_rate",
        "slow_response",
        "MonitoringDashboard",
        "start_monitoring",
        "stop_monitoring",
        "_monitoring_loop",
        "metrics_history",
        "high_response_time",
        "print_dashboard",
        "list_services",
        "MonitoringExporter",
        "export_to_json",
        "export_to_csv",
        "export_time",
        "services",
        "alerts",
        "monitoring_data_YYYYmmdd_HHMMSS.json",
        "metrics_NAME_YYYYmmdd_HHMMSS.csv",
    ];
    let missing: Vec<&&str> = names.iter().filter(|name| !page.contains(**name)).collect();
    assert!(missing.is_empty(), "{missing:?}");
}

#[tokio::test]
async fn the_readme_shows_what_status_prints() {
    let home = Home::new();
    home.run(&["up", "--once"]).await.expect(0);
    let printed = until("a status", Duration::from_secs(10), || async {
        let ran = home.run(&["status"]).await;
        (ran.code == Some(0)).then_some(ran.out)
    })
    .await;
    let readme = read("README.md");
    let picture = blocks(&readme, "text").swap_remove(0);
    let words = |text: &str| -> BTreeSet<String> {
        text.split_whitespace()
            .filter(|word| word.chars().all(|c| c.is_alphabetic() || c == '-') && word.len() > 3)
            .map(str::to_lowercase)
            .collect()
    };
    // Names and times differ; the words of the page itself do not.
    for heading in ["services", "running", "tools", "error"] {
        assert!(
            words(&picture).contains(heading) == words(&printed).contains(heading),
            "{heading}\n{printed}"
        );
    }
}
