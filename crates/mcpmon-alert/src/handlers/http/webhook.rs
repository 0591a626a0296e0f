//! A web hook of one's own: our JSON, a template, or the shape Alertmanager posts.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use async_trait::async_trait;
use hmac::{Hmac, KeyInit as _, Mac as _};
use mcpmon_core::Secret;
use mcpmon_core::alert::{DeliveryError, Handler, Notification, Receipt};
use mcpmon_core::settings::{HandlerSettings, SettingsError};
use mcpmon_core::time::{Clock as _, SystemClock};
use reqwest::Method;
use reqwest::header::{AUTHORIZATION, HeaderMap, HeaderName, HeaderValue};
use serde::Deserialize;
use serde_json::{Value, json};
use sha2::Sha256;

use super::alertmanager::webhook_body;
use super::half_a_minute;
use super::sender::{Place, Sender, receipt, secret_header};
use crate::handlers::wording::headline;
use crate::message::BodyTemplate;

/// The schema of the JSON that is posted.
const SCHEMA: &str = "mcpmon/notification/v1";

/// Posts each notification to a URL.
///
/// | key | means | if not said |
/// |---|---|---|
/// | `url` | where to | |
/// | `format` | `json`, `alertmanager` | `json` |
/// | `template` | a body of one's own instead of `format`, in minijinja over `notification`, `alerts`, `alert` (the first), `kind`, `level`, `text` and the filter `json` | |
/// | `content_type` | of a `template`'s body | `application/json` |
/// | `method` | `POST` or `PUT` | `POST` |
/// | `headers` | sent with every request | none |
/// | `token` | sent as `Authorization: Bearer` | none |
/// | `secret` | signs: `X-Mcpmon-Signature: t=SECONDS,v1=HEX`, HMAC-SHA-256 over `SECONDS.BODY` | none |
/// | `ca_file` | PEM certificates trusted beside the system's | none |
/// | `timeout` | the whole delivery | `30s` |
///
/// `Idempotency-Key` is the notification's key: the same for every attempt at one message.
pub struct WebhookHandler {
    name: String,
    place: Place,
    sender: Sender,
    method: Method,
    headers: HeaderMap,
    body: Body,
    secret: Option<Secret>,
}

/// What is posted.
enum Body {
    Json,
    Alertmanager,
    Template { template: BodyTemplate, content_type: String },
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct WebhookSettings {
    url: Secret,
    #[serde(default)]
    format: Option<Format>,
    #[serde(default)]
    template: Option<String>,
    #[serde(default)]
    content_type: Option<String>,
    #[serde(default)]
    method: Verb,
    #[serde(default)]
    headers: BTreeMap<String, Secret>,
    #[serde(default)]
    token: Option<Secret>,
    #[serde(default)]
    secret: Option<Secret>,
    #[serde(default)]
    ca_file: Option<PathBuf>,
    #[serde(default = "half_a_minute", with = "mcpmon_core::duration")]
    timeout: Duration,
}

#[derive(Clone, Copy, PartialEq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Format {
    Json,
    Alertmanager,
}

#[derive(Clone, Copy, Default, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
enum Verb {
    #[default]
    Post,
    Put,
}

impl WebhookHandler {
    /// Reads the keys of kind `webhook`; opens no connection.
    ///
    /// # Errors
    ///
    /// When a key is missing or cannot be used; the message names it.
    pub fn from_settings(settings: &HandlerSettings) -> Result<Self, SettingsError> {
        let own: WebhookSettings = settings.parse()?;
        let place = Place::read(settings, "url", own.url.expose())?;
        let body = body(settings, own.format, own.template, own.content_type)?;
        let headers = headers(settings, &own.headers, own.token.as_ref())?;
        let hidden = own.headers.into_values().chain(own.token).chain(own.secret.clone());
        // The address of a web hook is often all that guards it.
        let hidden = hidden.chain([own.url]);
        let ca_file = own.ca_file.as_deref();
        let sender = Sender::new(settings, &[&place], own.timeout, ca_file, hidden)?;
        let method = match own.method {
            Verb::Post => Method::POST,
            Verb::Put => Method::PUT,
        };
        let name = settings.name.clone();
        Ok(Self { name, place, sender, method, headers, body, secret: own.secret })
    }

    fn written(&self, notification: &Notification) -> Result<(String, &str), DeliveryError> {
        match &self.body {
            Body::Json => Ok((own_json(notification).to_string(), "application/json")),
            Body::Alertmanager => {
                Ok((webhook_body(notification, &self.name).to_string(), "application/json"))
            }
            Body::Template { template, content_type } => {
                let body = template.render(&names(notification)).map_err(|error| {
                    DeliveryError::permanent(format!("`template` cannot be filled in: {error}"))
                })?;
                Ok((body, content_type))
            }
        }
    }
}

fn body(
    settings: &HandlerSettings,
    format: Option<Format>,
    template: Option<String>,
    content_type: Option<String>,
) -> Result<Body, SettingsError> {
    let Some(source) = template else {
        if content_type.is_some() {
            return Err(settings.error("`content_type`: it belongs to a `template`"));
        }
        return Ok(match format.unwrap_or(Format::Json) {
            Format::Json => Body::Json,
            Format::Alertmanager => Body::Alertmanager,
        });
    };
    if format.is_some() {
        return Err(settings.error("`format`: it does nothing beside a `template`"));
    }
    let content_type = content_type.unwrap_or_else(|| "application/json".to_owned());
    if HeaderValue::from_str(&content_type).is_err() {
        return Err(settings.error("`content_type`: no header may carry it"));
    }
    let template = BodyTemplate::compile(&source, &names(&sample()))
        .map_err(|error| settings.error(format!("`template`: {error}")))?;
    Ok(Body::Template { template, content_type })
}

fn headers(
    settings: &HandlerSettings,
    own: &BTreeMap<String, Secret>,
    token: Option<&Secret>,
) -> Result<HeaderMap, SettingsError> {
    let mut headers = HeaderMap::new();
    for (name, value) in own {
        let key = format!("headers.{name}");
        let name = HeaderName::try_from(name.as_str())
            .map_err(|_| settings.error(format!("`{key}`: not the name of a header")))?;
        headers.insert(name, secret_header(settings, &key, value.expose())?);
    }
    if let Some(token) = token {
        if headers.contains_key(AUTHORIZATION) {
            return Err(settings.error("`token`: `headers` has an `Authorization` already"));
        }
        let value = format!("Bearer {}", token.expose());
        headers.insert(AUTHORIZATION, secret_header(settings, "token", &value)?);
    }
    Ok(headers)
}

fn own_json(notification: &Notification) -> Value {
    json!({
        "schema": SCHEMA,
        "key": notification.key,
        "kind": notification.kind.as_str(),
        "level": notification.level(),
        "attempt": notification.attempt,
        "text": headline(notification),
        "alerts": notification.alerts,
    })
}

/// What a template may use.
fn names(notification: &Notification) -> Value {
    json!({
        "notification": notification,
        "kind": notification.kind.as_str(),
        "level": notification.level(),
        "text": headline(notification),
        "alert": notification.alerts.first(),
        "alerts": notification.alerts,
    })
}

/// What a template is tried with when it is read.
fn sample() -> Notification {
    use mcpmon_core::alert::{ALERT_SCHEMA, Alert, NotificationKind};
    let alert = Alert {
        schema: ALERT_SCHEMA.to_owned(),
        id: "0".to_owned(),
        rule_name: "sample".to_owned(),
        subject: mcpmon_core::Subject::Service("sample".into()),
        level: mcpmon_core::Level::Info,
        message: "a sample".to_owned(),
        timestamp: mcpmon_core::Timestamp::default(),
        resolved_at: None,
        metrics: json!({}),
        failure: None,
        labels: BTreeMap::new(),
        acknowledgements: Vec::new(),
        ended_because: None,
    };
    Notification::new("sample", NotificationKind::Test, vec![alert])
}

/// `t=SECONDS,v1=HEX`, so that a far side can refuse what is old as well as what is forged.
fn signature(secret: &Secret, seconds: i64, body: &str) -> String {
    let mut mac = Hmac::<Sha256>::new_from_slice(secret.expose().as_bytes())
        .expect("HMAC takes a key of any length");
    mac.update(format!("{seconds}.{body}").as_bytes());
    let digest = mac.finalize().into_bytes();
    let hex: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
    format!("t={seconds},v1={hex}")
}

impl fmt::Debug for WebhookHandler {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WebhookHandler")
            .field("name", &self.name)
            .field("place", &self.place.name())
            .finish_non_exhaustive()
    }
}

#[async_trait]
impl Handler for WebhookHandler {
    fn name(&self) -> &str {
        &self.name
    }

    async fn deliver(&self, notification: &Notification) -> Result<Receipt, DeliveryError> {
        let (body, content_type) = self.written(notification)?;
        let mut headers = self.headers.clone();
        let key = mcpmon_core::text::for_header(&notification.key);
        if let Ok(key) = HeaderValue::from_str(&key) {
            headers.insert("idempotency-key", key);
        }
        if let Some(secret) = &self.secret {
            let seconds = SystemClock.now().as_millis().div_euclid(1_000);
            let signed = signature(secret, seconds, &body);
            headers.insert(
                "x-mcpmon-signature",
                HeaderValue::from_str(&signed).map_err(DeliveryError::permanent)?,
            );
        }
        let (method, place) = (self.method.clone(), &self.place);
        let answer =
            self.sender.send(place, method, content_type, body.into_bytes(), headers).await?;
        Ok(receipt(answer.json()["id"].as_str()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::handlers::http::testing::{Far, Request, Says};
    use mcpmon_core::alert::NotificationKind;
    use mcpmon_testkit::{handler_conformance, samples};

    fn settings(far: &Far) -> HandlerSettings {
        HandlerSettings::new("hook", "webhook").with("url", far.url("/in?key=s3cr3t"))
    }

    async fn posted(settings: &HandlerSettings, far: &Far) -> Request {
        let handler = WebhookHandler::from_settings(settings).unwrap();
        let firing = samples::notification("k-1", NotificationKind::Firing);
        handler.deliver(&firing).await.unwrap();
        far.only()
    }

    #[tokio::test]
    async fn posts_the_alert_as_its_contract_says_under_one_key() {
        let far = Far::that(Says::status(200, r#"{"id":"m-7"}"#)).await;
        let handler =
            WebhookHandler::from_settings(&settings(&far).with("token", "t0ken")).unwrap();
        let firing = samples::notification("k-1", NotificationKind::Firing);
        let receipt = handler.deliver(&firing).await.unwrap();
        assert_eq!(receipt.id.as_deref(), Some("m-7"));
        let request = far.only();
        assert_eq!(request.line, "POST /in?key=s3cr3t HTTP/1.1");
        assert_eq!(request.header("idempotency-key"), Some("k-1"));
        assert_eq!(request.header("authorization"), Some("Bearer t0ken"));
        let body = request.json();
        assert_eq!((&body["schema"], &body["kind"]), (&json!(SCHEMA), &json!("firing")));
        assert_eq!(body["alerts"][0], serde_json::to_value(&firing.alerts[0]).unwrap());
    }

    #[tokio::test]
    async fn a_signature_can_be_checked_by_the_far_side() {
        let far = Far::that(Says::status(204, "")).await;
        let request = posted(&settings(&far).with("secret", "hunter22"), &far).await;
        let header = request.header("x-mcpmon-signature").unwrap();
        let (time, _) = header.split_once(',').unwrap();
        let seconds: i64 = time.trim_start_matches("t=").parse().unwrap();
        assert_eq!(header, signature(&Secret::new("hunter22"), seconds, &request.body));
        assert_ne!(header, signature(&Secret::new("hunter23"), seconds, &request.body));
    }

    #[test]
    fn the_signature_is_the_hmac_every_language_has() {
        // Checked with `printf '1.{}' | openssl dgst -sha256 -hmac key`.
        let signed = signature(&Secret::new("key"), 1, "{}");
        assert_eq!(
            signed,
            "t=1,v1=1ba6b8171186efc613e8bcc0cbdab2748f24984d7c5a84faa2637afa0e40d224"
        );
    }

    #[tokio::test]
    async fn a_template_is_the_body_and_values_cannot_leave_their_string() {
        let far = Far::that(Says::status(200, "")).await;
        let template = r#"{"msg": {{ alert.message | json }}, "n": {{ alerts | length }}}"#;
        let handler =
            WebhookHandler::from_settings(&settings(&far).with("template", template)).unwrap();
        let mut firing = samples::notification("k", NotificationKind::Firing);
        firing.alerts[0].message = "\", \"n\": 9, \"x\": \"\n</script>".to_owned();
        handler.deliver(&firing).await.unwrap();
        let body = far.only().json();
        assert_eq!((&body["msg"], &body["n"]), (&json!(firing.alerts[0].message), &json!(1)));
    }

    #[tokio::test]
    async fn alertmanagers_shape_is_one_of_the_formats() {
        let far = Far::that(Says::status(200, "")).await;
        let body = posted(&settings(&far).with("format", "alertmanager"), &far).await.json();
        assert_eq!((&body["version"], &body["status"]), (&json!("4"), &json!("firing")));
        assert_eq!(body["alerts"][0]["labels"]["alertname"], "service_down");
    }

    #[tokio::test]
    async fn what_cannot_work_is_told_with_its_key() {
        let far = Far::gone().await;
        for (key, value, word) in [
            ("format", json!("xml"), "format"),
            ("template", json!("{{ alrt.message }}"), "alrt"),
            ("template", json!("{% if %}"), "template"),
            ("content_type", json!("text/plain"), "`content_type`"),
            ("method", json!("GET"), "GET"),
            ("headers", json!({ "bad name": "x" }), "headers.bad name"),
            ("token", json!("line\nbreak"), "`token`"),
            ("timeout", json!("0s"), "`timeout`"),
            ("ca_file", json!("/nowhere/ca.pem"), "`ca_file`"),
        ] {
            let error =
                WebhookHandler::from_settings(&settings(&far).with(key, value)).unwrap_err();
            let told = error.to_string();
            assert!(told.contains(word) && !told.contains("s3cr3t"), "{key}: {told}");
        }
    }

    #[tokio::test]
    async fn keeps_the_promises_of_a_handler() {
        let far = Far::that(Says::status(200, "ok")).await;
        handler_conformance(&WebhookHandler::from_settings(&settings(&far)).unwrap()).await;
    }
}
