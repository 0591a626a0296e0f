//! The sections of the settings, each with its documented defaults.

use std::time::Duration;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error};

use super::checked;
use crate::bytesize::ByteSize;

/// `[monitoring]`: whether, how often and how long.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(default, deny_unknown_fields)]
pub struct MonitoringConfig {
    /// `false`: the monitor says so and checks nothing.
    pub enabled: bool,
    /// Start of one health check to the start of the next.
    #[serde(with = "checked::interval")]
    #[cfg_attr(feature = "schema", schemars(with = "String"))]
    pub check_interval: Duration,
    /// The whole check, one deadline.
    #[serde(with = "checked::limit")]
    #[cfg_attr(feature = "schema", schemars(with = "String"))]
    pub health_check_timeout: Duration,
    /// Attempts in a row, the first included: at once, after 2 s, after 5 s more.
    #[serde(deserialize_with = "checked::count")]
    pub health_check_retries: u32,
    /// `false`: no host or process probe, and none of their rules.
    pub performance_monitoring: bool,
    /// How long raw checks are kept.
    #[serde(deserialize_with = "checked::count")]
    pub metrics_retention_days: u32,
    /// How long 15-minute rollups are kept.
    #[serde(deserialize_with = "checked::count")]
    pub middle_retention_days: u32,
    /// How long hourly rollups are kept.
    #[serde(deserialize_with = "checked::count")]
    pub rollup_retention_days: u32,
    /// The database's size is held under this.
    #[serde(deserialize_with = "checked::size")]
    #[cfg_attr(feature = "schema", schemars(with = "String"))]
    pub max_database_size: ByteSize,
    /// `false`: no rule is evaluated, nothing is queued.
    pub alerts_enabled: bool,
    /// Least time between two notices of one rule about one service.
    #[serde(with = "crate::duration")]
    #[cfg_attr(feature = "schema", schemars(with = "String"))]
    pub alert_cooldown: Duration,
}

impl Default for MonitoringConfig {
    fn default() -> Self {
        Self {
            enabled: true,
            check_interval: Duration::from_secs(30),
            health_check_timeout: Duration::from_secs(10),
            health_check_retries: 3,
            performance_monitoring: true,
            metrics_retention_days: 7,
            middle_retention_days: 30,
            rollup_retention_days: 365,
            max_database_size: ByteSize(512_000_000),
            alerts_enabled: true,
            alert_cooldown: Duration::from_secs(300),
        }
    }
}

/// `[service_monitoring]`: how services are reached and when they count as down.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(default, deny_unknown_fields)]
pub struct ServiceMonitoringConfig {
    /// Start of one heartbeat to the start of the next.
    #[serde(with = "checked::interval")]
    #[cfg_attr(feature = "schema", schemars(with = "String"))]
    pub status_check_interval: Duration,
    /// DNS, connect and TLS together.
    #[serde(with = "checked::limit")]
    #[cfg_attr(feature = "schema", schemars(with = "String"))]
    pub connection_timeout: Duration,
    /// A command's start to its first answer; package runners download first.
    #[serde(with = "checked::limit")]
    #[cfg_attr(feature = "schema", schemars(with = "String"))]
    pub startup_timeout: Duration,
    /// Start of one reading of the lists to the start of the next.
    #[serde(with = "checked::interval")]
    #[cfg_attr(feature = "schema", schemars(with = "String"))]
    pub list_interval: Duration,
    /// Failed checks in a row until a service is down.
    #[serde(deserialize_with = "checked::count")]
    pub max_consecutive_failures: u32,
    /// Good checks in a row until it is back.
    #[serde(deserialize_with = "checked::count")]
    pub max_consecutive_successes: u32,
    /// Processes being started at once.
    #[serde(deserialize_with = "checked::count")]
    pub max_starting: u32,
    /// Processes held at once.
    #[serde(deserialize_with = "checked::count")]
    pub max_children: u32,
    /// Largest line, event or body, after decompression.
    #[serde(deserialize_with = "checked::size")]
    #[cfg_attr(feature = "schema", schemars(with = "String"))]
    pub max_body: ByteSize,
}

impl Default for ServiceMonitoringConfig {
    fn default() -> Self {
        Self {
            status_check_interval: Duration::from_secs(15),
            connection_timeout: Duration::from_secs(5),
            startup_timeout: Duration::from_secs(60),
            list_interval: Duration::from_secs(300),
            max_consecutive_failures: 3,
            max_consecutive_successes: 2,
            max_starting: 16,
            max_children: 256,
            max_body: ByteSize(16_000_000),
        }
    }
}

/// `[performance_monitoring]`: thresholds of response time and of the host.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(default, deny_unknown_fields)]
pub struct PerformanceMonitoringConfig {
    /// `false`: no host or process probe, and none of their rules.
    pub enabled: bool,
    /// A service slower than this is `degraded`, and `slow_response` fires.
    #[serde(with = "checked::limit")]
    #[cfg_attr(feature = "schema", schemars(with = "String"))]
    pub response_time_threshold: Duration,
    /// `high_cpu` fires above this, in percent.
    #[serde(deserialize_with = "checked::percent")]
    pub cpu_threshold: f64,
    /// `high_memory` fires above this, in percent.
    #[serde(deserialize_with = "checked::percent")]
    pub memory_threshold: f64,
    /// `disk_full` fires above this, in percent.
    #[serde(deserialize_with = "checked::percent")]
    pub disk_threshold: f64,
    /// File systems that are measured, by a path on them; `"all"`: every real one.
    pub disks: Disks,
}

impl Default for PerformanceMonitoringConfig {
    fn default() -> Self {
        Self {
            enabled: true,
            response_time_threshold: Duration::from_secs(1),
            cpu_threshold: 80.0,
            memory_threshold: 85.0,
            disk_threshold: 90.0,
            disks: Disks::Paths(vec!["/".to_owned()]),
        }
    }
}

/// Which file systems are measured.
#[derive(Debug, Clone, PartialEq, Eq)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[cfg_attr(feature = "schema", schemars(untagged))]
pub enum Disks {
    /// Every real one (`"all"`).
    All,
    /// Those that hold these paths.
    Paths(Vec<String>),
}

impl Disks {
    /// The paths named; none for `"all"`.
    pub fn paths(&self) -> &[String] {
        match self {
            Self::All => &[],
            Self::Paths(paths) => paths,
        }
    }
}

impl Serialize for Disks {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::All => serializer.serialize_str("all"),
            Self::Paths(paths) => paths.serialize(serializer),
        }
    }
}

impl<'de> Deserialize<'de> for Disks {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct DisksVisitor;
        impl<'de> serde::de::Visitor<'de> for DisksVisitor {
            type Value = Disks;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("\"all\" or a list of paths such as [\"/\"]")
            }

            fn visit_str<E: Error>(self, word: &str) -> Result<Disks, E> {
                match word {
                    "all" => Ok(Disks::All),
                    path if path.starts_with('/') => Ok(Disks::Paths(vec![path.to_owned()])),
                    other => {
                        Err(E::custom(format_args!("`{other}` is neither \"all\" nor a path")))
                    }
                }
            }

            fn visit_seq<A: serde::de::SeqAccess<'de>>(
                self,
                mut seq: A,
            ) -> Result<Disks, A::Error> {
                let mut paths = Vec::new();
                while let Some(path) = seq.next_element()? {
                    paths.push(path);
                }
                Ok(Disks::Paths(paths))
            }
        }
        deserializer.deserialize_any(DisksVisitor)
    }
}

/// `[tool_monitoring]`: thresholds of tool calls.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(default, deny_unknown_fields)]
pub struct ToolMonitoringConfig {
    /// A configured call, from request to result.
    #[serde(with = "checked::limit")]
    #[cfg_attr(feature = "schema", schemars(with = "String"))]
    pub call_timeout: Duration,
    /// `high_error_rate` and `tool_error_rate` fire above this share.
    #[serde(deserialize_with = "checked::share")]
    pub error_rate_threshold: f64,
    /// A call longer than this is slow.
    #[serde(with = "checked::limit")]
    #[cfg_attr(feature = "schema", schemars(with = "String"))]
    pub slow_call_threshold: Duration,
}

impl Default for ToolMonitoringConfig {
    fn default() -> Self {
        Self {
            call_timeout: Duration::from_secs(30),
            error_rate_threshold: 0.1,
            slow_call_threshold: Duration::from_secs(5),
        }
    }
}

/// How much the monitor says of itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum LogLevel {
    /// Everything, for mcpmon's developers.
    Trace,
    /// What it does and why.
    Debug,
    /// What happened.
    #[default]
    Info,
    /// What should not have happened.
    Warn,
    /// What someone must act on.
    Error,
}

impl LogLevel {
    /// The level's word.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Trace => "trace",
            Self::Debug => "debug",
            Self::Info => "info",
            Self::Warn => "warn",
            Self::Error => "error",
        }
    }
}

impl<'de> Deserialize<'de> for LogLevel {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let word = String::deserialize(deserializer)?;
        match word.to_ascii_lowercase().as_str() {
            "trace" => Ok(Self::Trace),
            "debug" => Ok(Self::Debug),
            "info" => Ok(Self::Info),
            "warn" | "warning" => Ok(Self::Warn),
            "error" => Ok(Self::Error),
            _ => {
                Err(D::Error::unknown_variant(&word, &["trace", "debug", "info", "warn", "error"]))
            }
        }
    }
}

/// What `mcpmon export` writes when nothing is said.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum ExportFormat {
    /// One indented object.
    #[default]
    Json,
    /// One object a line.
    Jsonl,
    /// A table of one service.
    Csv,
}

/// `[data_collection]`: buffer, log and export.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(default, deny_unknown_fields)]
pub struct DataCollectionConfig {
    /// Checks per service held in memory while the store fails, before the oldest are dropped and
    /// counted.
    #[serde(deserialize_with = "checked::count")]
    pub metrics_buffer_size: u32,
    /// How much is logged; any case, `warning` too.
    pub log_level: LogLevel,
    /// The format of `mcpmon export`.
    pub export_format: ExportFormat,
}

impl Default for DataCollectionConfig {
    fn default() -> Self {
        Self {
            metrics_buffer_size: 1_000,
            log_level: LogLevel::default(),
            export_format: ExportFormat::default(),
        }
    }
}

/// `[discover]`: which clients' files are followed.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(default, deny_unknown_fields)]
pub struct DiscoverConfig {
    /// Clients by name: `claude-desktop`, `claude-code`, `cursor`, `vscode`, `windsurf`, `zed`,
    /// `codex`, `gemini-cli`.
    pub clients: Vec<String>,
    /// Files in any client's format.
    pub import: Vec<String>,
}

/// Alerting's part of the settings, for those who use alerting alone.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(default, deny_unknown_fields)]
pub struct AlertConfig {
    /// `false`: no rule is evaluated.
    pub enabled: bool,
    /// Least time between two notices of one rule about one service.
    #[serde(with = "crate::duration")]
    #[cfg_attr(feature = "schema", schemars(with = "String"))]
    pub cooldown: Duration,
}

impl Default for AlertConfig {
    fn default() -> Self {
        super::Settings::default().alert_config()
    }
}
