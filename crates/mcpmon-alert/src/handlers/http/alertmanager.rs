//! Prometheus Alertmanager: every alert to every member of a cluster, by its API v2.
//!
//! Alertmanager forgets an alert that is not sent again before its end: that is how it notices a
//! client that died. So what fires is sent with an end a few minutes ahead and repeated until it is
//! over. Members of a cluster tell one another what they have notified of, not what fires: each
//! must be told.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use async_trait::async_trait;
use futures_util::future::join_all;
use mcpmon_core::Secret;
use mcpmon_core::alert::{Alert, DeliveryError, Handler, Notification, NotificationKind, Receipt};
use mcpmon_core::settings::{HandlerSettings, SettingsError};
use mcpmon_core::text::{for_terminal, truncate};
use mcpmon_core::time::{Clock as _, SystemClock, Timestamp};
use reqwest::header::{AUTHORIZATION, HeaderMap};
use serde::Deserialize;
use serde_json::{Value, json};

use super::half_a_minute;
use super::sender::{Place, Sender, secret_header};
use crate::handlers::wording::{self, is_over};

/// Alerts kept to be sent again, at most.
const MOST_OPEN: usize = 10_000;
/// An alert ends for Alertmanager when it was not repeated for so many times the interval, as
/// Prometheus does it.
const REPEATS_MISSED: u32 = 4;

/// Sends alerts to an Alertmanager, or to every member of a cluster.
///
/// | key | means | if not said |
/// |---|---|---|
/// | `url` | `http://alertmanager:9093`, or a list of every member | |
/// | `token` | sent as `Authorization: Bearer` | none |
/// | `resend` | what fires is sent again this often | `1m` |
/// | `link` | `generatorURL` of every alert | none |
/// | `ca_file` | PEM certificates trusted beside the system's | none |
/// | `timeout` | the whole delivery to one member | `30s` |
///
/// Labels are `alertname` (the rule), `severity`, `scope`, the name of what the alert is about
/// (`service`, `service` and `tool`, `dependency`, or `handler`), and the service's own labels;
/// annotations `summary`, `description` and `next_step`.
pub struct AlertmanagerHandler {
    inner: Arc<Inner>,
}

struct Inner {
    name: String,
    members: Vec<Place>,
    sender: Sender,
    headers: HeaderMap,
    resend: Duration,
    link: Option<String>,
    open: Mutex<Open>,
    /// One request at a time: a repetition under way must not overtake the end of what it repeats.
    turn: tokio::sync::Mutex<()>,
}

/// What was told and is not over.
#[derive(Default)]
struct Open {
    alerts: BTreeMap<String, Alert>,
    is_repeating: bool,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct AlertmanagerSettings {
    url: OneOrMore,
    #[serde(default)]
    token: Option<Secret>,
    #[serde(default = "a_minute", with = "mcpmon_core::duration")]
    resend: Duration,
    #[serde(default)]
    link: Option<String>,
    #[serde(default)]
    ca_file: Option<PathBuf>,
    #[serde(default = "half_a_minute", with = "mcpmon_core::duration")]
    timeout: Duration,
}

#[derive(Deserialize)]
#[serde(untagged, expecting = "`url` must be a URL or a list of URLs")]
enum OneOrMore {
    One(String),
    More(Vec<String>),
}

fn a_minute() -> Duration {
    Duration::from_secs(60)
}

impl AlertmanagerHandler {
    /// Reads the keys of kind `alertmanager`; opens no connection.
    ///
    /// # Errors
    ///
    /// When a key is missing or cannot be used; the message names it.
    pub fn from_settings(settings: &HandlerSettings) -> Result<Self, SettingsError> {
        let own: AlertmanagerSettings = settings.parse()?;
        let urls = match own.url {
            OneOrMore::One(url) => vec![url],
            OneOrMore::More(urls) => urls,
        };
        if urls.is_empty() {
            return Err(settings.error("`url`: no member is named"));
        }
        if own.resend < Duration::from_secs(1) {
            return Err(settings.error("`resend`: it must be at least 1s"));
        }
        let members = urls
            .iter()
            .map(|url| Ok(Place::read(settings, "url", url)?.join("api/v2/alerts")))
            .collect::<Result<Vec<Place>, SettingsError>>()?;
        let mut headers = HeaderMap::new();
        if let Some(token) = &own.token {
            let value = format!("Bearer {}", token.expose());
            headers.insert(AUTHORIZATION, secret_header(settings, "token", &value)?);
        }
        let places: Vec<&Place> = members.iter().collect();
        let ca_file = own.ca_file.as_deref();
        let sender = Sender::new(settings, &places, own.timeout, ca_file, own.token)?;
        let inner = Inner {
            name: settings.name.clone(),
            members,
            sender,
            headers,
            resend: own.resend,
            link: own.link,
            open: Mutex::default(),
            turn: tokio::sync::Mutex::default(),
        };
        Ok(Self { inner: Arc::new(inner) })
    }
}

impl Inner {
    fn open(&self) -> MutexGuard<'_, Open> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sends to every member at once. One that has it is enough for the cluster to notify, but
    /// each must have it for the cluster to survive: so none may be left out.
    async fn send(&self, alerts: &[Value]) -> Result<Receipt, DeliveryError> {
        let body = Value::from(alerts.to_vec());
        let posts = self.members.iter().map(async |member| {
            let headers = self.headers.clone();
            (member, self.sender.post_json(member, &body, headers).await)
        });
        let mut failed: Vec<(&Place, DeliveryError)> = Vec::new();
        for (member, result) in join_all(posts).await {
            if let Err(error) = result {
                failed.push((member, error));
            }
        }
        match failed.len() {
            0 => Ok(Receipt::accepted()),
            // Every error names its member.
            _ => {
                let told: Vec<String> = failed.iter().map(|(_, error)| error.to_string()).collect();
                let told = told.join("; ");
                let wait = failed.iter().filter_map(|(_, error)| error.retry_after()).max();
                let error = if failed.iter().any(|(_, error)| error.is_transient()) {
                    DeliveryError::transient(told)
                } else {
                    DeliveryError::permanent(told)
                };
                Err(match wait {
                    Some(wait) => error.after(wait),
                    None => error,
                })
            }
        }
    }

    /// Notes what fires on and what is over.
    fn note(&self, notification: &Notification) {
        let mut open = self.open();
        for alert in &notification.alerts {
            if is_over(notification.kind, alert) {
                open.alerts.remove(&alert.id);
            } else if open.alerts.len() < MOST_OPEN {
                open.alerts.insert(alert.id.clone(), alert.clone());
            }
        }
    }

    fn written(&self, kind: NotificationKind, alert: &Alert, now: Timestamp) -> Value {
        let over = is_over(kind, alert);
        let ends_at = if over {
            alert.resolved_at.unwrap_or(now)
        } else {
            now.saturating_add(self.resend * REPEATS_MISSED)
        };
        let mut value = json!({
            "labels": labels(alert),
            "annotations": annotations(kind, alert),
            "startsAt": alert.timestamp.to_string(),
            "endsAt": ends_at.to_string(),
        });
        if let Some(link) = &self.link {
            value["generatorURL"] = Value::from(link.as_str());
        }
        value
    }
}

/// Repeats what is open until nothing is, or the handler is gone.
async fn repeat(inner: Weak<Inner>, every: Duration) {
    loop {
        tokio::time::sleep(every).await;
        let Some(inner) = inner.upgrade() else { return };
        let _turn = inner.turn.lock().await;
        let now = SystemClock.now();
        let alerts: Vec<Value> = {
            let mut open = inner.open();
            open.is_repeating = !open.alerts.is_empty();
            if !open.is_repeating {
                return;
            }
            let still = |alert| inner.written(NotificationKind::Reminder, alert, now);
            open.alerts.values().map(still).collect()
        };
        // The next repetition is the next attempt.
        let _ = inner.send(&alerts).await;
    }
}

/// Label names as Alertmanager has them: `[a-zA-Z_][a-zA-Z0-9_]*`.
fn labels(alert: &Alert) -> BTreeMap<String, String> {
    let mut labels: BTreeMap<String, String> = alert
        .labels
        .iter()
        .map(|(name, value)| (label_name(name), value.clone()))
        .filter(|(_, value)| !value.is_empty())
        .collect();
    labels.insert("alertname".to_owned(), alert.rule_name.clone());
    labels.insert("severity".to_owned(), alert.level.as_str().to_owned());
    labels.insert("scope".to_owned(), alert.scope().to_string());
    let subject = &alert.subject;
    let names = [
        ("service", subject.service().map(|service| service.as_str())),
        ("tool", subject.tool()),
        ("dependency", subject.dependency()),
        ("handler", subject.handler()),
    ];
    for (label, name) in names {
        if let Some(name) = name {
            labels.insert(label.to_owned(), name.to_owned());
        }
    }
    labels.into_iter().map(|(name, value)| (name, truncate(&for_terminal(&value), 1_000))).collect()
}

fn label_name(name: &str) -> String {
    let mut name: String = name
        .chars()
        .take(100)
        .map(|c| if c.is_ascii_alphanumeric() || c == '_' { c } else { '_' })
        .collect();
    if name.is_empty() || name.starts_with(|c: char| c.is_ascii_digit()) {
        name.insert(0, '_');
    }
    name
}

fn annotations(kind: NotificationKind, alert: &Alert) -> BTreeMap<&'static str, String> {
    // Alertmanager knows no tests: who reads this must see that it is one.
    let summary = match kind {
        NotificationKind::Test => for_terminal(&wording::line(kind, alert)),
        _ => for_terminal(&alert.message),
    };
    let mut annotations = BTreeMap::from([("summary", summary)]);
    if let Some(failure) = &alert.failure {
        let what = format!("{} in {}: {}", failure.code, failure.phase, failure.message);
        annotations.insert("description", for_terminal(&what));
        annotations.insert("next_step", for_terminal(&failure.next_step));
    }
    annotations
}

/// The body Alertmanager posts to web hooks, version 4, as a receiver of ours would get it.
///
/// Source: Prometheus, "Alerting: webhook receiver".
pub(super) fn webhook_body(notification: &Notification, receiver: &str) -> Value {
    let over = |alert: &Alert| is_over(notification.kind, alert);
    let status = |over: bool| if over { "resolved" } else { "firing" };
    let all: Vec<BTreeMap<String, String>> = notification.alerts.iter().map(labels).collect();
    let common: BTreeMap<&String, &String> = all
        .first()
        .into_iter()
        .flatten()
        .filter(|(name, value)| all.iter().all(|labels| labels.get(*name) == Some(*value)))
        .collect();
    let alerts: Vec<Value> = notification
        .alerts
        .iter()
        .map(|alert| {
            let ends_at = alert.resolved_at.map(|at| at.to_string());
            json!({
                "status": status(over(alert)),
                "labels": labels(alert),
                "annotations": annotations(notification.kind, alert),
                "startsAt": alert.timestamp.to_string(),
                "endsAt": ends_at.unwrap_or_else(|| "0001-01-01T00:00:00Z".to_owned()),
                "generatorURL": "",
                "fingerprint": fingerprint(alert),
            })
        })
        .collect();
    json!({
        "version": "4",
        "groupKey": notification.key,
        "truncatedAlerts": 0,
        "status": status(notification.alerts.iter().all(over)),
        "receiver": receiver,
        "groupLabels": {},
        "commonLabels": common,
        "commonAnnotations": {},
        "externalURL": "",
        "alerts": alerts,
    })
}

fn fingerprint(alert: &Alert) -> String {
    let labels = labels(alert);
    let parts = labels.iter().flat_map(|(name, value)| [name.as_str(), value.as_str()]);
    format!("{:016x}", crate::identity::fnv1a(parts))
}

impl fmt::Debug for AlertmanagerHandler {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let members: Vec<&str> = self.inner.members.iter().map(Place::name).collect();
        f.debug_struct("AlertmanagerHandler")
            .field("name", &self.inner.name)
            .field("members", &members)
            .finish_non_exhaustive()
    }
}

#[async_trait]
impl Handler for AlertmanagerHandler {
    fn name(&self) -> &str {
        &self.inner.name
    }

    async fn deliver(&self, notification: &Notification) -> Result<Receipt, DeliveryError> {
        // Before it is sent: what one member has not heard of yet is repeated all the same, and what
        // is over is repeated no more. A test ends by itself.
        if notification.kind != NotificationKind::Test {
            self.resume_with(notification);
        }
        let _turn = self.inner.turn.lock().await;
        let now = SystemClock.now();
        let alerts: Vec<Value> = notification
            .alerts
            .iter()
            .map(|alert| self.inner.written(notification.kind, alert, now))
            .collect();
        self.inner.send(&alerts).await
    }

    fn resume(&self, firing: &[Alert]) {
        let notification = Notification::new("", NotificationKind::Reminder, firing.to_vec());
        self.resume_with(&notification);
    }
}

impl AlertmanagerHandler {
    fn resume_with(&self, notification: &Notification) {
        self.inner.note(notification);
        let mut open = self.inner.open();
        if open.alerts.is_empty() || std::mem::replace(&mut open.is_repeating, true) {
            return;
        }
        tokio::spawn(repeat(Arc::downgrade(&self.inner), self.inner.resend));
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::handlers::http::testing::{Far, Says};
    use mcpmon_testkit::{HOSTILE, handler_conformance, samples, within};

    fn handler(url: impl Into<Value>, resend: &str) -> AlertmanagerHandler {
        let settings = HandlerSettings::new("am", "alertmanager")
            .with("url", url)
            .with("resend", resend)
            .with("timeout", "2s");
        AlertmanagerHandler::from_settings(&settings).unwrap()
    }

    fn moment(value: &Value) -> jiff::Timestamp {
        value.as_str().unwrap().parse().unwrap()
    }

    #[test]
    fn an_alert_is_labelled_by_what_it_is_about_from_its_beginning_to_its_end() {
        let expected = [
            json!({ "scope": "service", "service": "same", "team": "platform" }),
            json!({ "scope": "tool", "service": "same", "tool": "same", "team": "platform" }),
            json!({ "scope": "host" }),
            json!({ "scope": "monitor" }),
            json!({ "scope": "monitor", "dependency": "same" }),
            json!({ "scope": "monitor", "handler": "same" }),
        ];
        let mut fingerprints = BTreeSet::new();
        for (subject, mut expected) in samples::subjects().into_iter().zip(expected) {
            let firing = samples::alert_about("rule", subject);
            expected["alertname"] = "rule".into();
            expected["severity"] = "error".into();
            assert_eq!(json!(labels(&firing)), expected);
            let ended = Alert { resolved_at: Some(firing.timestamp), ..firing.clone() };
            assert_eq!(labels(&ended), labels(&firing));
            assert_eq!(fingerprint(&ended), fingerprint(&firing));
            fingerprints.insert(fingerprint(&firing));
            let notification = Notification::new("k", NotificationKind::Resolved, vec![ended]);
            let hook = &webhook_body(&notification, "am")["alerts"][0];
            assert_eq!(hook["labels"], expected);
            assert_eq!(hook["fingerprint"], fingerprint(&firing));
        }
        assert_eq!(fingerprints.len(), samples::subjects().len(), "they are kept apart");
    }

    #[tokio::test]
    async fn what_fires_ends_ahead_and_what_is_over_ended_then() {
        let far = Far::that(Says::status(200, "")).await;
        let handler = handler(far.url("/prefix/"), "1m");
        let firing = samples::notification("a", NotificationKind::Firing);
        handler.deliver(&firing).await.unwrap();
        let resolved = samples::notification("b", NotificationKind::Resolved);
        handler.deliver(&resolved).await.unwrap();
        let requests = far.requests();
        assert_eq!(requests[0].line, "POST /prefix/api/v2/alerts HTTP/1.1");
        let first = &requests[0].json()[0];
        assert_eq!(first["labels"]["alertname"], "service_down");
        assert_eq!(first["labels"]["severity"], "error");
        assert_eq!(first["labels"]["service"], "files");
        assert_eq!(first["labels"]["team"], "platform");
        assert!(moment(&first["endsAt"]) > moment(&first["startsAt"]));
        let last = &requests[1].json()[0];
        assert_eq!(last["labels"], first["labels"]);
        let end = resolved.alerts[0].resolved_at.unwrap().to_string();
        assert_eq!(last["endsAt"], Value::from(end));
    }

    #[tokio::test]
    async fn what_fires_is_sent_again_until_it_is_over() {
        let far = Far::that(Says::status(200, "")).await;
        let handler = handler(far.url(""), "1s");
        handler.resume(&samples::notification("a", NotificationKind::Firing).alerts);
        let repeated = async {
            while far.requests().is_empty() {
                tokio::task::yield_now().await;
            }
        };
        within("the first repetition", repeated).await;
        let resolved = samples::notification("b", NotificationKind::Resolved);
        handler.deliver(&resolved).await.unwrap();
        let repeats = async {
            while handler.inner.open().is_repeating {
                tokio::task::yield_now().await;
            }
        };
        within("the end of repetitions", repeats).await;
    }

    #[tokio::test]
    async fn every_member_is_told_and_one_that_is_not_there_is_tried_again() {
        let (up, down) = (Far::that(Says::status(200, "")).await, Far::gone().await);
        let handler = handler(vec![up.url(""), down.url("")], "1m");
        let firing = samples::notification("a", NotificationKind::Firing);
        let error = handler.deliver(&firing).await.unwrap_err();
        assert!(error.is_transient(), "{error}");
        assert_eq!(up.requests().len(), 1);
        assert_eq!(handler.inner.open().alerts.len(), 1, "repeated until it is over");
        let resolved = samples::notification("b", NotificationKind::Resolved);
        assert!(handler.deliver(&resolved).await.is_err());
        assert!(handler.inner.open().alerts.is_empty(), "what is over is repeated no more");
    }

    #[test]
    fn any_label_becomes_one_alertmanager_takes() {
        for (name, expected) in [("team", "team"), ("a.b/c", "a_b_c"), ("1st", "_1st"), ("", "_")] {
            assert_eq!(label_name(name), expected);
        }
        for text in HOSTILE {
            let name = label_name(text);
            assert!(name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_'), "{name}");
        }
    }

    #[tokio::test]
    async fn keeps_the_promises_of_a_handler() {
        let far = Far::that(Says::status(200, "")).await;
        handler_conformance(&handler(far.url(""), "1m")).await;
    }
}
