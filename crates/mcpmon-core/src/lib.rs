//! The words mcpmon's parts share: types, settings and ports. No I/O, no runtime.
//!
//! A crate that extends mcpmon (a handler, a probe, a store) needs this crate and nothing else
//! of ours. What two crates need that never meet lives here too: the sketch of latencies, the
//! window a rule looks through, the redactor, and the structs behind the JSON contracts.

pub mod alert;
pub mod bytesize;
pub mod calendar;
pub mod call;
pub mod check;
pub mod contract;
pub mod dependency;
pub mod duration;
pub mod failure;
pub mod fold;
pub mod lists;
pub mod matchers;
pub mod metrics;
pub mod monitor;
pub mod observation;
pub mod probe;
pub mod remedy;
pub mod rule;
pub mod secret;
pub mod service;
pub mod settings;
pub mod sketch;
pub mod state;
pub mod status;
pub mod store;
pub mod subject;
pub mod text;
pub mod time;
pub mod tool_window;
pub mod window;

pub use alert::{
    Alert, AlertPhase, AlertState, DeliveryError, Handler, Notification, NotificationKind, Receipt,
};
pub use check::CheckMeaning;
pub use dependency::{Dependency, DependencyError};
pub use failure::{Failure, FailureCode, Finding, FindingCode, Phase};
pub use fold::{ServiceFold, StoredFold};
pub use metrics::{ServiceMetrics, SystemMetrics, ToolMetrics};
pub use observation::{Observation, Outcome, Phases, Question};
pub use probe::{HostProbe, Probe, ProbeFactory};
pub use remedy::{Remedy, RepairOutcome};
pub use rule::{Rule, RuleContext, Scope, Verdict};
pub use secret::{Redactor, Secret};
pub use service::{ServiceName, ServiceSpec, Transport};
pub use settings::Settings;
pub use state::ServiceState;
pub use status::{Era, Level, Status};
pub use store::{IncidentLog, SampleStore, StoreError};
pub use subject::{Subject, SubjectKind};
pub use time::{Clock, SystemClock, Timestamp};
pub use tool_window::ToolWindow;
pub use window::Window;
