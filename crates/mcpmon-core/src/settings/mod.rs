//! Typed settings with their defaults: what a configuration file says, whole and checked.
//!
//! Reading files, finding positions and resolving secrets is the command's affair; a library user
//! builds these with `..Default::default()` or from any serde format. Limits are checked while a
//! value is read, so that an error carries the place of the value.

mod checked;
mod handler;
mod rules;
mod secret_ref;
mod sections;
mod service;

pub(crate) use checked::limit;
pub use handler::{HandlerSettings, SettingsError};
pub use rules::{MaintenanceWindow, RouteSettings, RuleSettings, Weekday};
pub use secret_ref::SecretRef;
pub use sections::{
    AlertConfig, DataCollectionConfig, DiscoverConfig, Disks, ExportFormat, LogLevel,
    MonitoringConfig, PerformanceMonitoringConfig, ServiceMonitoringConfig, ToolMonitoringConfig,
};
pub use service::{ServiceEntry, TransportKind};

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::service::ServiceLimits;

/// Everything a configuration file can say.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// Whether, how often and how long.
    pub monitoring: MonitoringConfig,
    /// How services are reached and when they count as down.
    pub service_monitoring: ServiceMonitoringConfig,
    /// Thresholds of response time and of the host.
    pub performance_monitoring: PerformanceMonitoringConfig,
    /// Thresholds of tool calls.
    pub tool_monitoring: ToolMonitoringConfig,
    /// Buffer, log and export.
    pub data_collection: DataCollectionConfig,
    /// Which clients' files are followed.
    pub discover: DiscoverConfig,
    /// The services, by name.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub services: BTreeMap<String, ServiceEntry>,
    /// A block pasted from a client's file: read as that client would, unknown keys ignored.
    #[serde(rename = "mcpServers", skip_serializing_if = "serde_json::Map::is_empty")]
    pub mcp_servers: serde_json::Map<String, serde_json::Value>,
    /// Rules: new ones, and changes to built-in ones by name.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub rules: Vec<RuleSettings>,
    /// When not to look.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub maintenance: Vec<MaintenanceWindow>,
    /// Who is told, and how.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub handlers: Vec<HandlerSettings>,
    /// Which alerts go to whom; without any, all go to all.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub routes: Vec<RouteSettings>,
}

impl Settings {
    /// The times and limits of a service that says nothing of its own.
    pub fn limits(&self) -> ServiceLimits {
        ServiceLimits {
            check_interval: self.monitoring.check_interval,
            status_check_interval: self.service_monitoring.status_check_interval,
            list_interval: self.service_monitoring.list_interval,
            health_check_timeout: self.monitoring.health_check_timeout,
            health_check_retries: self.monitoring.health_check_retries,
            connection_timeout: self.service_monitoring.connection_timeout,
            startup_timeout: self.service_monitoring.startup_timeout,
            call_timeout: self.tool_monitoring.call_timeout,
            max_consecutive_failures: self.service_monitoring.max_consecutive_failures,
            max_consecutive_successes: self.service_monitoring.max_consecutive_successes,
            max_body: self.service_monitoring.max_body.0,
            response_time_threshold: self.performance_monitoring.response_time_threshold,
            error_rate_threshold: self.tool_monitoring.error_rate_threshold,
        }
    }

    /// Alerting's part of the settings.
    pub fn alert_config(&self) -> AlertConfig {
        AlertConfig {
            enabled: self.monitoring.alerts_enabled,
            cooldown: self.monitoring.alert_cooldown,
        }
    }

    /// Whether host and processes are measured and judged: either switch turns it off.
    pub fn performance_enabled(&self) -> bool {
        self.monitoring.performance_monitoring && self.performance_monitoring.enabled
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn read(json: serde_json::Value) -> Result<Settings, String> {
        serde_json::from_value(json).map_err(|error| error.to_string())
    }

    #[test]
    fn an_empty_file_has_the_documented_defaults() {
        let settings = read(serde_json::json!({})).unwrap();
        assert_eq!(settings, Settings::default());
        assert_eq!(settings.monitoring.check_interval, Duration::from_secs(30));
        assert_eq!(settings.service_monitoring.max_body.to_string(), "16MB");
        assert_eq!(settings.performance_monitoring.disks.paths(), ["/"]);
        assert_eq!(settings.data_collection.log_level, LogLevel::Info);
    }

    #[test]
    fn unknown_keys_and_senseless_values_are_errors() {
        for (json, word) in [
            (serde_json::json!({ "monitorin": {} }), "monitorin"),
            (serde_json::json!({ "monitoring": { "check_intervall": 1 } }), "check_intervall"),
            (serde_json::json!({ "monitoring": { "check_interval": "10ms" } }), "1s"),
            (serde_json::json!({ "monitoring": { "check_interval": "soon" } }), "soon"),
            (serde_json::json!({ "monitoring": { "health_check_retries": 0 } }), "at least 1"),
            (serde_json::json!({ "monitoring": { "metrics_retention_days": -1 } }), "-1"),
            (serde_json::json!({ "monitoring": { "health_check_timeout": 0 } }), "longer than 0"),
            (serde_json::json!({ "performance_monitoring": { "cpu_threshold": 180 } }), "100"),
            (serde_json::json!({ "tool_monitoring": { "error_rate_threshold": 10 } }), "1"),
            (serde_json::json!({ "data_collection": { "export_format": "xml" } }), "xml"),
            (serde_json::json!({ "service_monitoring": { "max_body": 0 } }), "at least 1"),
            (serde_json::json!({ "services": { "a": { "comand": "x" } } }), "comand"),
        ] {
            let error = read(json.clone()).unwrap_err();
            assert!(error.contains(word), "{json}: {error}");
        }
    }

    #[test]
    fn words_are_read_in_any_case_and_warning_too() {
        for (word, level) in [("INFO", LogLevel::Info), ("Warning", LogLevel::Warn)] {
            let json = serde_json::json!({ "data_collection": { "log_level": word } });
            assert_eq!(read(json).unwrap().data_collection.log_level, level);
        }
    }

    #[test]
    fn either_switch_turns_performance_monitoring_off() {
        for json in [
            serde_json::json!({ "monitoring": { "performance_monitoring": false } }),
            serde_json::json!({ "performance_monitoring": { "enabled": false } }),
        ] {
            assert!(!read(json).unwrap().performance_enabled());
        }
    }

    #[test]
    fn settings_survive_being_written_and_read() {
        let settings = Settings::default();
        let json = serde_json::to_value(&settings).unwrap();
        assert_eq!(read(json).unwrap(), settings);
    }
}
