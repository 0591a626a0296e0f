//! Snapshots of numbers: of a service over a window, of a tool, of the machine. Their field names
//! are the variables of rules, the fields of the API and the columns of exports: contracts.

use serde::{Deserialize, Serialize};

use crate::service::ServiceName;
use crate::status::Status;
use crate::time::Timestamp;

/// What an error rate was counted over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ErrorRateSource {
    /// Real calls, seen through the tap.
    Calls,
    /// Our own checks, because no calls were seen.
    Checks,
}

impl ErrorRateSource {
    /// The contract's spelling.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Calls => "calls",
            Self::Checks => "checks",
        }
    }
}

/// A service over a window (5 minutes unless asked otherwise). `uptime`, `restarts` and
/// `consecutive_failures` know no window. Times are seconds; a value that does not exist is `None`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ServiceMetrics {
    /// Its name.
    pub service_name: ServiceName,
    /// Its status now.
    pub status: Status,
    /// Seconds since it became available; 0 while it is not.
    pub uptime: f64,
    /// Share of the window's checks that found it available.
    pub uptime_ratio: Option<f64>,
    /// When it was last asked.
    pub last_check_time: Option<Timestamp>,
    /// Its last real call, else its last good check.
    pub last_activity: Option<Timestamp>,
    /// Failed checks in a row, up to now.
    pub consecutive_failures: u32,
    /// Checks in the window.
    pub total_checks: u64,
    /// Of these, failed.
    pub failed_checks: u64,
    /// Real calls in the window.
    pub total_calls: u64,
    /// Of these, failed.
    pub failed_calls: u64,
    /// Checks and calls.
    pub total_requests: u64,
    /// Of these, failed.
    pub failed_requests: u64,
    /// Failed share of calls where there are any, else of checks.
    pub error_rate: f64,
    /// Which of the two it is.
    pub error_rate_source: ErrorRateSource,
    /// How many it was counted over.
    pub error_rate_samples: u64,
    /// Mean of `latency_ms`, in seconds.
    pub avg_response_time: Option<f64>,
    /// Median, in seconds.
    pub p50_response_time: Option<f64>,
    /// 95th percentile, in seconds.
    pub p95_response_time: Option<f64>,
    /// 99th percentile, in seconds.
    pub p99_response_time: Option<f64>,
    /// Real calls per second.
    pub throughput: f64,
    /// Sessions known open, ours and tapped; `None` where that cannot be known.
    pub active_connections: Option<u32>,
    /// Tools last listed.
    pub tools_count: Option<u32>,
    /// Why it last failed.
    pub last_error: Option<String>,
    /// How often its process was started again.
    pub restarts: u64,
    /// CPU of its process tree, percent of one core.
    pub cpu_percent: Option<f64>,
    /// Resident memory of its process tree.
    pub memory_bytes: Option<u64>,
    /// Open files of its process tree.
    pub open_files: Option<u64>,
    /// What its tool list costs a model, in tokens (estimated).
    pub tool_list_tokens: Option<u64>,
}

impl ServiceMetrics {
    /// A service that was not looked at yet: `unknown`, zeros and nothing.
    pub fn unknown(service_name: ServiceName) -> Self {
        Self {
            service_name,
            status: Status::Unknown,
            uptime: 0.0,
            uptime_ratio: None,
            last_check_time: None,
            last_activity: None,
            consecutive_failures: 0,
            total_checks: 0,
            failed_checks: 0,
            total_calls: 0,
            failed_calls: 0,
            total_requests: 0,
            failed_requests: 0,
            error_rate: 0.0,
            error_rate_source: ErrorRateSource::Checks,
            error_rate_samples: 0,
            avg_response_time: None,
            p50_response_time: None,
            p95_response_time: None,
            p99_response_time: None,
            throughput: 0.0,
            active_connections: None,
            tools_count: None,
            last_error: None,
            restarts: 0,
            cpu_percent: None,
            memory_bytes: None,
            open_files: None,
            tool_list_tokens: None,
        }
    }
}

/// One tool of a service over a window.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ToolMetrics {
    /// The service.
    pub service_name: ServiceName,
    /// The tool.
    pub tool_name: String,
    /// Calls in the window.
    pub total_calls: u64,
    /// Of these, failed.
    pub failed_calls: u64,
    /// Of these, slower than `slow_call_threshold`.
    pub slow_calls: u64,
    /// Failed share.
    pub error_rate: f64,
    /// Mean, in seconds.
    pub avg_response_time: Option<f64>,
    /// 95th percentile, in seconds.
    pub p95_response_time: Option<f64>,
    /// Why it last failed.
    pub last_error: Option<String>,
}

/// What a service's process tree uses.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
pub struct ProcessMetrics {
    /// Percent of one core, since the last sample.
    pub cpu_percent: f64,
    /// Resident memory.
    pub memory_bytes: u64,
    /// Open files; `None` where the system does not tell.
    pub open_files: Option<u64>,
    /// Processes in the tree.
    pub processes: u32,
    /// Threads in the tree; `None` where the system does not tell.
    #[serde(default)]
    pub threads: Option<u64>,
    /// Seconds since the tree's root was started; `None` where the system does not tell.
    #[serde(default)]
    pub age: Option<u64>,
}

/// One file system.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct DiskMetrics {
    /// Where it is mounted.
    pub path: String,
    /// Its size.
    pub total_bytes: u64,
    /// In use.
    pub used_bytes: u64,
    /// Free to an ordinary user.
    pub free_bytes: u64,
    /// Used share, in percent.
    pub percent: f64,
}

/// One network interface, or the sum of all.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct NetworkMetrics {
    /// The interface; empty for the sum.
    pub interface: String,
    /// Sent since boot.
    pub bytes_sent: u64,
    /// Received since boot.
    pub bytes_recv: u64,
    /// Sent since boot.
    pub packets_sent: u64,
    /// Received since boot.
    pub packets_recv: u64,
    /// Sent a second, since the last sample.
    pub bytes_sent_per_second: f64,
    /// Received a second.
    pub bytes_recv_per_second: f64,
    /// Sent a second.
    pub packets_sent_per_second: f64,
    /// Received a second.
    pub packets_recv_per_second: f64,
}

/// The machine the monitor runs on.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct SystemMetrics {
    /// All cores, over at least a second, 0 to 100.
    pub cpu_percent: f64,
    /// Physical memory.
    pub memory_total_bytes: u64,
    /// What could be given to a program without swapping.
    pub memory_available_bytes: u64,
    /// Total less available.
    pub memory_used_bytes: u64,
    /// Used share, in percent.
    pub memory_percent: f64,
    /// Swap space.
    pub swap_total_bytes: u64,
    /// Swap in use.
    pub swap_used_bytes: u64,
    /// Swap free.
    pub swap_free_bytes: u64,
    /// Used share, in percent; 0 without swap.
    pub swap_percent: f64,
    /// The file systems of `performance_monitoring.disks`.
    pub disks: Vec<DiskMetrics>,
    /// The fullest of them.
    pub disk_percent: Option<f64>,
    /// Each interface.
    pub interfaces: Vec<NetworkMetrics>,
    /// All interfaces but loopback, summed.
    pub network: NetworkMetrics,
    /// Load over the last minute.
    pub load_1m: f64,
}
