//! `[[rules]]`, `[[routes]]` and `[[maintenance]]`: what is judged, who is told, when not to look.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::checked;
use crate::rule::Scope;
use crate::service::RemediationSpec;
use crate::status::Level;

/// One rule as it is written: a new one, or changes to a built-in one of that name.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct RuleSettings {
    /// Its name; that of a built-in rule changes that rule.
    pub name: String,
    /// `false`: not evaluated.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub enabled: Option<bool>,
    /// What it looks at; `service` if not said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scope: Option<Scope>,
    /// The condition, in CEL. A new rule needs one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub when: Option<String>,
    /// The span its numbers are over; `5m` if not said, a day at most.
    #[serde(default, with = "checked::optional_limit", skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "schema", schemars(with = "Option<String>"))]
    pub window: Option<Duration>,
    /// How bad it is; `warning` if not said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub level: Option<Level>,
    /// How long the condition must hold before it fires; `0s` if not said.
    #[serde(default, with = "crate::duration::optional", skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "schema", schemars(with = "Option<String>"))]
    pub hold: Option<Duration>,
    /// How long it fires on after the condition ended; `0s` if not said.
    #[serde(default, with = "crate::duration::optional", skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "schema", schemars(with = "Option<String>"))]
    pub keep_firing: Option<Duration>,
    /// Least time between two notices; `monitoring.alert_cooldown` if not said.
    #[serde(default, with = "crate::duration::optional", skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "schema", schemars(with = "Option<String>"))]
    pub cooldown: Option<Duration>,
    /// Only services with all of these labels.
    #[serde(default, rename = "match", skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// What is said, a template over the same names.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// What may be done about a service that is down and for which this fires, where the service's
    /// own entry asks for nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub remediation: Option<RemediationSpec>,
}

/// One route: alerts that match go to its handlers.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct RouteSettings {
    /// Only these levels; all if empty.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub levels: Vec<Level>,
    /// Only these rules; all if empty.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub rules: Vec<String>,
    /// Only alerts that all of these choose: labels of the service, or properties of the alert such
    /// as `service_name` and `dependency` ([`MATCHER_NAMES`](crate::matchers::MATCHER_NAMES)).
    #[serde(default, rename = "match", skip_serializing_if = "BTreeMap::is_empty")]
    pub matchers: BTreeMap<String, String>,
    /// Names of handlers.
    pub handlers: Vec<String>,
    /// Only on these days; every day if empty.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub days: Vec<Weekday>,
    /// Only from this local time on, `HH:MM`; with `until` before it, over midnight.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<String>,
    /// Only until this local time, `HH:MM`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<String>,
    /// The IANA time zone of `days`, `from` and `until`; the machine's own if not said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timezone: Option<String>,
    /// Escalation: only what has fired for this long and was acknowledged by nobody.
    #[serde(default, with = "checked::optional_limit", skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "schema", schemars(with = "Option<String>"))]
    pub after: Option<Duration>,
}

/// A day of the week.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
#[expect(missing_docs, reason = "the days of the week need no explanation")]
pub enum Weekday {
    Mon,
    Tue,
    Wed,
    Thu,
    Fri,
    Sat,
    Sun,
}

/// A span in which some services are `paused`: weekly, or once.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct MaintenanceWindow {
    /// Names of services; all if empty.
    #[serde(default)]
    pub services: Vec<String>,
    /// Only services with all of these labels.
    #[serde(default, rename = "match", skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// On these days; every day if empty.
    #[serde(default)]
    pub days: Vec<Weekday>,
    /// Local time it begins on each of its days, `HH:MM`. Either this or `at`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub start: Option<String>,
    /// Local date and time it begins, once: `2026-12-24T18:00`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub at: Option<String>,
    /// How long it lasts.
    #[serde(with = "checked::limit")]
    #[cfg_attr(feature = "schema", schemars(with = "String"))]
    pub duration: Duration,
    /// An IANA time zone; the machine's own if not said.
    #[serde(default)]
    pub timezone: Option<String>,
}
