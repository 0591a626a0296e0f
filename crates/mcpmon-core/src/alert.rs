//! Alerts, their states, and the port of those who deliver them.

use std::collections::BTreeMap;
use std::error::Error as StdError;
use std::fmt;
use std::time::Duration;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::failure::Failure;
use crate::matchers::MatchedAlert;
use crate::rule::Scope;
use crate::service::ServiceName;
use crate::status::Level;
use crate::subject::Subject;
use crate::time::Timestamp;

/// The schema every alert names.
pub const ALERT_SCHEMA: &str = "mcpmon/alert/v1";

/// What a rule found about one subject, from firing to resolved. This JSON is what every handler,
/// webhook, export and API gives.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Alert {
    /// Always [`ALERT_SCHEMA`].
    #[serde(default = "alert_schema")]
    pub schema: String,
    /// Unique, and the same from firing to resolved.
    pub id: String,
    /// The rule.
    pub rule_name: String,
    /// What it is about. In JSON this is `subject`, and beside it `scope`, `service_name` and
    /// `tool_name`, which follow from it; when an alert is read, only `subject` counts.
    #[serde(flatten, with = "about")]
    pub subject: Subject,
    /// How bad it is.
    pub level: Level,
    /// What happened, rendered. May hold text from the server: escape it where it goes.
    pub message: String,
    /// When it fired.
    pub timestamp: Timestamp,
    /// When it ended.
    pub resolved_at: Option<Timestamp>,
    /// The snapshot that fired it: `ServiceMetrics`, `ToolMetrics` or `SystemMetrics`.
    pub metrics: Value,
    /// The service's failure at that moment.
    pub failure: Option<Failure>,
    /// The service's labels.
    pub labels: BTreeMap<String, String>,
    /// Who took it on, in order: the last of them has it, unless it got worse since. The newest
    /// [`Alert::MOST_ACKNOWLEDGEMENTS`].
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub acknowledgements: Vec<Acknowledgement>,
    /// Why it ended, where it did not end by itself: its service or its rule is gone, and nothing
    /// says that what was wrong is right now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended_because: Option<String>,
}

fn alert_schema() -> String {
    ALERT_SCHEMA.to_owned()
}

/// The fields of an alert's JSON that say what the alert is about.
mod about {
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    use crate::rule::Scope;
    use crate::subject::Subject;

    #[derive(Serialize)]
    struct Written<'a> {
        scope: Scope,
        service_name: Option<&'a str>,
        tool_name: Option<&'a str>,
        subject: &'a Subject,
    }

    #[derive(Deserialize)]
    struct Read {
        subject: Subject,
    }

    pub(super) fn serialize<S: Serializer>(
        subject: &Subject,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        let service_name = subject.service().map(|service| service.as_str());
        let (scope, tool_name) = (subject.scope(), subject.tool());
        Written { scope, service_name, tool_name, subject }.serialize(serializer)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Subject, D::Error> {
        Ok(Read::deserialize(deserializer)?.subject)
    }
}

impl Alert {
    /// Acknowledgements an alert remembers.
    pub const MOST_ACKNOWLEDGEMENTS: usize = 20;

    /// Notes that somebody took it on.
    pub fn acknowledge(&mut self, acknowledgement: Acknowledgement) {
        if self.acknowledgements.len() >= Self::MOST_ACKNOWLEDGEMENTS {
            self.acknowledgements.remove(0);
        }
        self.acknowledgements.push(acknowledgement);
    }

    /// The rule and subject it is about.
    pub fn key(&self) -> AlertKey {
        AlertKey { rule: self.rule_name.clone(), subject: self.subject.clone() }
    }

    /// The scope of its rule.
    pub fn scope(&self) -> Scope {
        self.subject.scope()
    }

    /// The service, for alerts about a service or a tool.
    pub fn service_name(&self) -> Option<&ServiceName> {
        self.subject.service()
    }

    /// The tool, for alerts about a tool.
    pub fn tool_name(&self) -> Option<&str> {
        self.subject.tool()
    }

    /// Its properties as matchers of routes compare them.
    pub fn as_matched(&self) -> MatchedAlert<'_> {
        MatchedAlert {
            rule: &self.rule_name,
            subject: &self.subject,
            level: self.level,
            labels: &self.labels,
        }
    }
}

/// Which state an alert belongs to: one per rule and subject.
///
/// `Display` writes the rule, the subject's kind and its names with `/` between them, `%` and `/`
/// within a part as `%25` and `%2F`: distinct keys have distinct texts.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct AlertKey {
    /// The rule's name.
    pub rule: String,
    /// What the alert is about.
    pub subject: Subject,
}

impl AlertKey {
    /// The key of a rule and a subject.
    pub fn new(rule: impl Into<String>, subject: Subject) -> Self {
        Self { rule: rule.into(), subject }
    }
}

impl fmt::Display for AlertKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_part(f, &self.rule)?;
        write!(f, "/{}", self.subject.kind())?;
        let service = self.subject.tool().and(self.subject.service());
        let names = service.map(ServiceName::as_str).into_iter().chain(self.subject.name());
        for name in names {
            f.write_str("/")?;
            write_part(f, name)?;
        }
        Ok(())
    }
}

fn write_part(f: &mut fmt::Formatter<'_>, part: &str) -> fmt::Result {
    for c in part.chars() {
        match c {
            '%' => f.write_str("%25")?,
            '/' => f.write_str("%2F")?,
            c => fmt::Write::write_char(f, c)?,
        }
    }
    Ok(())
}

/// Where an alert stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum AlertPhase {
    /// Its condition does not hold.
    #[default]
    Inactive,
    /// It holds, but not for long enough yet.
    Pending,
    /// It fires.
    Firing,
    /// It ended.
    Resolved,
    /// It changes too often to say either.
    Flapping,
    /// It would fire, but a dependency is down.
    Suppressed,
    /// It fires, and a silence keeps it from being told.
    Silenced,
    /// It fires, and somebody took it on.
    Acknowledged,
}

impl AlertPhase {
    /// The contract's spelling.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Inactive => "inactive",
            Self::Pending => "pending",
            Self::Firing => "firing",
            Self::Resolved => "resolved",
            Self::Flapping => "flapping",
            Self::Suppressed => "suppressed",
            Self::Silenced => "silenced",
            Self::Acknowledged => "acknowledged",
        }
    }
}

/// A rule's standing towards one subject; stored, so that a restart neither repeats nor forgets.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct AlertState {
    /// Rule and subject.
    pub key: AlertKey,
    /// Where it stands.
    pub phase: AlertPhase,
    /// Since when.
    pub since: Timestamp,
    /// The open alert, or the last one.
    pub alert: Option<Alert>,
    /// When a firing notice was last queued; the cooldown runs from here.
    #[serde(default)]
    pub last_notified: Option<Timestamp>,
    /// Whether the open alert was told to anyone: what was never told is never told as recovered.
    #[serde(default)]
    pub told: bool,
    /// The handlers it was told to: whoever heard of the alert hears of its end, whatever the
    /// routes say by then.
    #[serde(default)]
    pub told_to: Vec<String>,
    /// The level they were last told: whoever was told less hears that it got worse.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub told_level: Option<Level>,
    /// Since when the condition has ended although it fires on (`keep_firing`).
    #[serde(default)]
    pub ended: Option<Timestamp>,
    /// The moment of the newest list change that was reported under this key: each stored change is
    /// reported once, over restarts too.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reported_change: Option<Timestamp>,
    /// Who took it on, and until when nobody need be reminded.
    #[serde(default)]
    pub acknowledged: Option<Acknowledgement>,
}

impl AlertState {
    /// Where the alert stands for people: what fires may be acknowledged.
    pub fn shown_phase(&self) -> AlertPhase {
        match (self.phase, &self.acknowledged) {
            (AlertPhase::Firing, Some(_)) => AlertPhase::Acknowledged,
            (phase, _) => phase,
        }
    }

    /// A rule that has found nothing yet.
    pub fn new(key: AlertKey, now: Timestamp) -> Self {
        Self {
            key,
            phase: AlertPhase::Inactive,
            since: now,
            alert: None,
            last_notified: None,
            told: false,
            told_to: Vec::new(),
            told_level: None,
            ended: None,
            reported_change: None,
            acknowledged: None,
        }
    }
}

/// Someone took an alert on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Acknowledgement {
    /// Who.
    pub by: String,
    /// What they said.
    pub comment: String,
    /// When.
    pub at: Timestamp,
}

/// A time-boxed mute by label; the alerts still exist.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Silence {
    /// Unique.
    pub id: String,
    /// What must be equal, by name: `rule_name`, `level`, `subject_kind`, `service_name`,
    /// `tool_name`, `dependency`, `handler`, or a label of the service
    /// ([`MATCHER_NAMES`](crate::matchers::MATCHER_NAMES)).
    pub matchers: BTreeMap<String, String>,
    /// From when.
    pub starts_at: Timestamp,
    /// Until when.
    pub ends_at: Timestamp,
    /// Who.
    pub by: String,
    /// Why.
    pub comment: String,
}

impl Silence {
    /// Whether it holds at `now` for an alert of this rule, subject, level and labels.
    pub fn covers(
        &self,
        key: &AlertKey,
        level: Level,
        labels: &BTreeMap<String, String>,
        now: Timestamp,
    ) -> bool {
        let AlertKey { rule, subject } = key;
        let alert = MatchedAlert { rule, subject, level, labels };
        self.starts_at <= now && now < self.ends_at && alert.matches(&self.matchers)
    }
}

/// What a notification says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum NotificationKind {
    /// It fires.
    Firing,
    /// It ended.
    Resolved,
    /// It still fires.
    Reminder,
    /// Somebody took it on; nothing changed but that.
    Acknowledged,
    /// Several at once.
    Digest,
    /// Somebody tries the handler.
    Test,
}

impl NotificationKind {
    /// The contract's spelling.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Firing => "firing",
            Self::Resolved => "resolved",
            Self::Reminder => "reminder",
            Self::Acknowledged => "acknowledged",
            Self::Digest => "digest",
            Self::Test => "test",
        }
    }
}

/// One message to one handler, about one alert or several.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Notification {
    /// The same for every attempt at the same message, and for nothing else: whoever gets it twice
    /// can tell.
    pub key: String,
    /// What it says.
    pub kind: NotificationKind,
    /// What it is about; never empty.
    pub alerts: Vec<Alert>,
    /// Which attempt this is, from 1.
    pub attempt: u32,
}

impl Notification {
    /// A first attempt.
    pub fn new(key: impl Into<String>, kind: NotificationKind, alerts: Vec<Alert>) -> Self {
        Self { key: key.into(), kind, alerts, attempt: 1 }
    }

    /// The same message, tried again.
    #[must_use]
    pub fn at_attempt(mut self, attempt: u32) -> Self {
        self.attempt = attempt;
        self
    }

    /// The worst level in it.
    pub fn level(&self) -> Level {
        self.alerts.iter().map(|alert| alert.level).max().unwrap_or(Level::Info)
    }
}

/// The far side took a notification.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Receipt {
    /// What the far side calls it, if it said.
    pub id: Option<String>,
}

impl Receipt {
    /// Taken, without a word.
    pub fn accepted() -> Self {
        Self::default()
    }

    /// Taken, under this id.
    pub fn with_id(id: impl Into<String>) -> Self {
        Self { id: Some(id.into()) }
    }
}

/// The far side did not take a notification.
#[derive(Debug)]
pub struct DeliveryError {
    transient: bool,
    retry_after: Option<Duration>,
    source: Box<dyn StdError + Send + Sync>,
}

impl DeliveryError {
    /// Trying later may help.
    pub fn transient(source: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        Self { transient: true, retry_after: None, source: source.into() }
    }

    /// Trying again will not help.
    pub fn permanent(source: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        Self { transient: false, retry_after: None, source: source.into() }
    }

    /// The far side said how long to wait.
    #[must_use]
    pub fn after(mut self, wait: Duration) -> Self {
        self.retry_after = Some(wait);
        self
    }

    /// Whether trying later may help.
    pub fn is_transient(&self) -> bool {
        self.transient
    }

    /// How long the far side asked to wait.
    pub fn retry_after(&self) -> Option<Duration> {
        self.retry_after
    }
}

impl fmt::Display for DeliveryError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.source)?;
        let mut cause = self.source.source();
        while let Some(error) = cause {
            write!(f, ": {error}")?;
            cause = error.source();
        }
        Ok(())
    }
}

impl StdError for DeliveryError {}

/// Tells somebody. Knows nothing of retry, silence or cooldown: the pipeline does.
#[async_trait]
pub trait Handler: Send + Sync {
    /// The configured name, for routes, messages and metrics.
    fn name(&self) -> &str;

    /// Delivers one notification (one alert, or a digest of several), once.
    ///
    /// The caller retries, times out, and drops the future to cancel it. After a crash the same
    /// notification may come again under the same key, so the message should be safe to repeat.
    ///
    /// # Errors
    ///
    /// [`DeliveryError::transient`] if trying later may help, [`DeliveryError::permanent`] if not.
    async fn deliver(&self, notification: &Notification) -> Result<Receipt, DeliveryError>;

    /// Takes up what this handler was told of before the monitor was restarted and still fires.
    /// Called once, before the first delivery, for far sides that forget what is not repeated to
    /// them. Must not block; the default does nothing.
    fn resume(&self, firing: &[Alert]) {
        let _ = firing;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_delivery_error_tells_its_whole_cause() {
        let io = std::io::Error::other("connection refused");
        let error = DeliveryError::transient(io).after(Duration::from_secs(7));
        assert_eq!(error.to_string(), "connection refused");
        assert!(error.is_transient());
        assert_eq!(error.retry_after(), Some(Duration::from_secs(7)));
        assert!(!DeliveryError::permanent("no such user").is_transient());
    }

    #[test]
    fn a_silence_covers_what_matches_in_its_time() {
        let key = AlertKey::new("slow", Subject::Service("a".into()));
        let labels = BTreeMap::from([("team".to_owned(), "x".to_owned())]);
        let silence = |matchers: &[(&str, &str)]| Silence {
            id: "s".to_owned(),
            matchers: matchers.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect(),
            starts_at: Timestamp::from_millis(10),
            ends_at: Timestamp::from_millis(20),
            by: String::new(),
            comment: String::new(),
        };
        for (matchers, at, covered) in [
            (&[][..], 10, true),
            (&[][..], 20, false),
            (&[][..], 9, false),
            (&[("team", "x"), ("service_name", "a")], 15, true),
            (&[("team", "y")], 15, false),
            (&[("rule_name", "slow"), ("level", "error")], 15, true),
            (&[("level", "warning")], 15, false),
            (&[("tool_name", "t")], 15, false),
        ] {
            let now = Timestamp::from_millis(at);
            let covers = silence(matchers).covers(&key, Level::Error, &labels, now);
            assert_eq!(covers, covered, "{matchers:?} at {at}");
        }
    }

    #[test]
    fn a_silence_of_a_service_covers_no_handler_of_that_name() {
        let silence = Silence {
            id: "s".to_owned(),
            matchers: BTreeMap::from([("service_name".to_owned(), "ops".to_owned())]),
            starts_at: Timestamp::from_millis(0),
            ends_at: Timestamp::from_millis(1),
            by: String::new(),
            comment: String::new(),
        };
        let covers = |subject: Subject| {
            let (labels, now) = (BTreeMap::new(), Timestamp::from_millis(0));
            silence.covers(&AlertKey::new("r", subject), Level::Error, &labels, now)
        };
        assert!(covers(Subject::Service("ops".into())));
        assert!(covers(Subject::tool_of("ops", "t")));
        assert!(!covers(Subject::Handler("ops".to_owned())));
        assert!(!covers(Subject::Dependency("ops".to_owned())));
    }

    #[test]
    fn a_key_reads_as_a_path() {
        for (subject, text) in [
            (Subject::Service("a".into()), "slow/service/a"),
            (Subject::tool_of("a/b", "c%d"), "slow/tool/a%2Fb/c%25d"),
            (Subject::Host, "slow/host"),
            (Subject::Monitor, "slow/monitor"),
            (Subject::Dependency("tcp://db:5432".to_owned()), "slow/dependency/tcp:%2F%2Fdb:5432"),
            (Subject::Handler("a".to_owned()), "slow/handler/a"),
        ] {
            assert_eq!(AlertKey::new("slow", subject).to_string(), text);
        }
    }

    /// Names that are easily taken for one another.
    fn names() -> impl Strategy<Value = String> {
        prop_oneof!["[a/%:]{0,4}", "(service|tool|host|handler)(/a)?", ".{0,6}"]
    }

    fn keys() -> impl Strategy<Value = AlertKey> {
        let subject = prop_oneof![
            names().prop_map(|name| Subject::Service(name.into())),
            (names(), names()).prop_map(|(service, tool)| Subject::tool_of(service, tool)),
            Just(Subject::Host),
            Just(Subject::Monitor),
            names().prop_map(Subject::Dependency),
            names().prop_map(Subject::Handler),
        ];
        (names(), subject).prop_map(|(rule, subject)| AlertKey { rule, subject })
    }

    proptest! {
        #[test]
        fn distinct_keys_have_distinct_texts(one in keys(), other in keys()) {
            prop_assert_eq!(one == other, one.to_string() == other.to_string());
        }

        #[test]
        fn a_key_is_read_back_as_it_was_written(key in keys()) {
            let json = serde_json::to_string(&key).unwrap();
            prop_assert_eq!(serde_json::from_str::<AlertKey>(&json).unwrap(), key);
        }
    }

    #[test]
    fn an_alert_in_json_names_its_service_only_where_it_is_about_one() {
        for (subject, scope, service, tool) in [
            (Subject::Service("a".into()), "service", Some("a"), None),
            (Subject::tool_of("a", "t"), "tool", Some("a"), Some("t")),
            (Subject::Host, "host", None, None),
            (Subject::Monitor, "monitor", None, None),
            (Subject::Dependency("tcp://db:1".to_owned()), "monitor", None, None),
            (Subject::Handler("ops".to_owned()), "monitor", None, None),
        ] {
            let alert = Alert {
                schema: ALERT_SCHEMA.to_owned(),
                id: "id".to_owned(),
                rule_name: "rule".to_owned(),
                subject,
                level: Level::Error,
                message: String::new(),
                timestamp: Timestamp::from_millis(0),
                resolved_at: None,
                metrics: serde_json::json!({ "total_checks": 3, "error_rate": 0.5 }),
                failure: None,
                labels: BTreeMap::new(),
                acknowledgements: Vec::new(),
                ended_because: None,
            };
            let json = serde_json::to_value(&alert).unwrap();
            assert_eq!(json["scope"], scope);
            assert_eq!(json["service_name"].as_str(), service, "{json}");
            assert_eq!(json["tool_name"].as_str(), tool, "{json}");
            assert_eq!(json["subject"], serde_json::to_value(&alert.subject).unwrap());
            assert!(json.get("service_name").is_some() && json.get("tool_name").is_some());
            let mut read = json.clone();
            assert_eq!(serde_json::from_value::<Alert>(read.clone()).unwrap(), alert);
            // A reader that builds the JSON by hand need not repeat itself.
            for derived in ["scope", "service_name", "tool_name"] {
                read.as_object_mut().unwrap().remove(derived);
            }
            assert_eq!(serde_json::from_value::<Alert>(read).unwrap(), alert);
        }
    }
}
