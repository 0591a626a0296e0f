//! One request to one far side: its limits, and what its answer means.

use std::error::Error as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use mcpmon_core::alert::{DeliveryError, Receipt};
use mcpmon_core::settings::{HandlerSettings, SettingsError};
use mcpmon_core::text::{for_terminal, truncate};
use mcpmon_core::time::Timestamp;
use mcpmon_core::{Redactor, Secret};
use reqwest::header::{CONTENT_TYPE, HeaderMap, HeaderValue, RETRY_AFTER};
use reqwest::redirect::Policy;
use reqwest::{Client, Method, Url};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use rustls::{ClientConfig, RootCertStore};

/// Largest file of certificates that is read.
const LARGEST_CA_FILE: u64 = 1 << 20;
/// Parts of a path at least this long may be a key.
const LIKE_A_KEY: usize = 12;
/// As much of an answer as is read.
const LONGEST_ANSWER: usize = 16 * 1024;
/// As much of an answer as is shown.
const LONGEST_SHOWN: usize = 300;
/// Longest `Retry-After` that is passed on.
const LONGEST_WAIT: Duration = Duration::from_secs(3_600);

/// Where requests go: a URL that may itself be the secret, and a name for it that is not.
#[derive(Clone)]
pub(super) struct Place {
    url: Url,
    /// Scheme, host and port.
    name: String,
}

impl Place {
    /// Reads the URL under `key`.
    pub(super) fn read(
        settings: &HandlerSettings,
        key: &str,
        url: &str,
    ) -> Result<Self, SettingsError> {
        let wrong = |why: String| settings.error(format!("`{key}`: {why}"));
        let url = Url::parse(url.trim()).map_err(|error| {
            wrong(format!("not a URL such as `https://hooks.example.com/…`: {error}"))
        })?;
        if !matches!(url.scheme(), "http" | "https") {
            return Err(wrong(format!("`{}` is neither `http` nor `https`", url.scheme())));
        }
        let Some(host) = url.host_str() else {
            return Err(wrong("it names no host".to_owned()));
        };
        let name = match url.port() {
            Some(port) => format!("{}://{host}:{port}", url.scheme()),
            None => format!("{}://{host}", url.scheme()),
        };
        Ok(Self { url, name })
    }

    /// The same far side under a path of its own, whatever path the URL has.
    pub(super) fn join(&self, path: &str) -> Self {
        let mut url = self.url.clone();
        let base = url.path().trim_end_matches('/').to_owned();
        url.set_path(&format!("{base}/{}", path.trim_start_matches('/')));
        Self { url, name: self.name.clone() }
    }

    /// Scheme, host and port: what may be shown.
    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// What of the URL may be a key: a far side that says back what it was asked says only its
    /// path.
    fn hidden(&self) -> Vec<Secret> {
        let segments = self.url.path().split('/').filter(|part| part.len() >= LIKE_A_KEY);
        segments.chain(self.url.query()).map(Secret::new).collect()
    }

    fn is_loopback(&self) -> bool {
        let host = self.url.host_str().unwrap_or_default();
        let address = host.trim_matches(['[', ']']).parse::<std::net::IpAddr>();
        host == "localhost" || address.is_ok_and(|address| address.is_loopback())
    }
}

/// What the far side said.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) retry_after: Option<Duration>,
    /// The beginning of its body, as it came.
    pub(super) body: String,
}

impl Answer {
    /// The body as JSON; null if it is none.
    pub(super) fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.body).unwrap_or_default()
    }
}

/// Posts bodies to a far side.
pub(super) struct Sender {
    client: Client,
    timeout: Duration,
    redactor: Redactor,
}

impl Sender {
    /// A sender with the keys every kind has: `timeout` and `ca_file`. `secrets` never show in an
    /// error. Requests to this machine go by no proxy, whatever the environment says.
    pub(super) fn new(
        settings: &HandlerSettings,
        places: &[&Place],
        timeout: Duration,
        ca_file: Option<&Path>,
        secrets: impl IntoIterator<Item = Secret>,
    ) -> Result<Self, SettingsError> {
        if timeout.is_zero() {
            return Err(settings.error("`timeout`: it must be longer than 0"));
        }
        let tls = tls(ca_file).map_err(|why| settings.error(format!("`ca_file`: {why}")))?;
        let mut builder = Client::builder()
            .tls_backend_preconfigured(tls)
            .user_agent(concat!("mcpmon/", env!("CARGO_PKG_VERSION")))
            // A redirected POST would become a GET, or carry the message to a stranger.
            .redirect(Policy::none())
            .retry(reqwest::retry::never())
            // Alerts are rare: a connection kept through the night is dead when it is needed.
            .pool_max_idle_per_host(0);
        if places.iter().all(|place| place.is_loopback()) {
            builder = builder.no_proxy();
        }
        let client = builder
            .build()
            .map_err(|error| settings.error(format!("no HTTP client can be made: {error}")))?;
        let mut secrets: Vec<Secret> = secrets.into_iter().collect();
        secrets.extend(places.iter().flat_map(|place| place.hidden()));
        Ok(Self { client, timeout, redactor: Redactor::new(&secrets) })
    }

    /// Posts JSON and gives the answer of a far side that took it.
    ///
    /// # Errors
    ///
    /// Transient where the far side was not reached, was busy or broken; permanent where it
    /// refused what it was given.
    pub(super) async fn post_json(
        &self,
        place: &Place,
        body: &serde_json::Value,
        headers: HeaderMap,
    ) -> Result<Answer, DeliveryError> {
        let body = body.to_string().into_bytes();
        self.send(place, Method::POST, "application/json", body, headers).await
    }

    /// Sends one request and gives the answer of a far side that took it.
    ///
    /// # Errors
    ///
    /// As [`Sender::post_json`].
    pub(super) async fn send(
        &self,
        place: &Place,
        method: Method,
        content_type: &str,
        body: Vec<u8>,
        headers: HeaderMap,
    ) -> Result<Answer, DeliveryError> {
        let content_type = HeaderValue::from_str(content_type).map_err(DeliveryError::permanent)?;
        let request = self
            .client
            .request(method, place.url.clone())
            .headers(headers)
            .header(CONTENT_TYPE, content_type)
            .body(body);
        let exchange = async {
            let response = request.send().await?;
            let status = response.status().as_u16();
            let retry_after = response.headers().get(RETRY_AFTER).and_then(read_retry_after);
            let body = beginning(response).await?;
            Ok::<Answer, reqwest::Error>(Answer { status, retry_after, body })
        };
        match tokio::time::timeout(self.timeout, exchange).await {
            Ok(Ok(answer)) => self.judge(place, answer),
            Ok(Err(error)) => Err(DeliveryError::transient(self.told(place, &unreached(error)))),
            Err(_) => {
                let waited = mcpmon_core::duration::format(self.timeout);
                let why = format!("no whole answer within {waited}");
                Err(DeliveryError::transient(self.told(place, &why)))
            }
        }
    }

    fn judge(&self, place: &Place, answer: Answer) -> Result<Answer, DeliveryError> {
        let why = match answer.status {
            200..=299 => return Ok(answer),
            300..=399 => format!(
                "{} is a redirect, which is not followed; write the address it leads to",
                answer.status
            ),
            status => format!("answered {status}: {}", answer.body.trim()),
        };
        let told = self.told(place, &why);
        let error = if is_transient(answer.status) {
            DeliveryError::transient(told)
        } else {
            DeliveryError::permanent(told)
        };
        Err(match answer.retry_after {
            Some(wait) => error.after(wait),
            None => error,
        })
    }

    /// What is said of a failure: a stranger's text, without our secrets.
    fn told(&self, place: &Place, why: &str) -> String {
        let why = self.redactor.redact(why);
        format!("{}: {}", place.name, truncate(&for_terminal(&why), LONGEST_SHOWN))
    }
}

/// Too early, too often, or broken: later may help. Everything else refuses what was sent.
fn is_transient(status: u16) -> bool {
    matches!(status, 408 | 425 | 429 | 500..=599)
}

/// Why there is no answer, without the URL, which may be the secret.
fn unreached(error: reqwest::Error) -> String {
    let error = error.without_url();
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(below) = cause {
        text = format!("{text}: {below}");
        cause = below.source();
    }
    if text.contains("certificate") || text.contains("UnknownIssuer") {
        text.push_str("; for a private authority, name its certificate in `ca_file`");
    }
    text
}

async fn beginning(mut response: reqwest::Response) -> Result<String, reqwest::Error> {
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await? {
        let room = LONGEST_ANSWER - body.len();
        body.extend_from_slice(&chunk[..chunk.len().min(room)]);
        if body.len() == LONGEST_ANSWER {
            break;
        }
    }
    Ok(String::from_utf8_lossy(&body).into_owned())
}

/// Seconds, or a date.
///
/// Source: RFC 9110, section 10.2.3.
fn read_retry_after(value: &HeaderValue) -> Option<Duration> {
    let text = value.to_str().ok()?.trim();
    if let Ok(seconds) = text.parse::<u64>() {
        return Some(Duration::from_secs(seconds).min(LONGEST_WAIT));
    }
    let date = jiff::fmt::rfc2822::parse(text).ok()?;
    let until = Timestamp::from_millis(date.timestamp().as_millisecond());
    // The far side's clock and ours may differ; what has passed already is no wait.
    let now = mcpmon_core::time::Clock::now(&mcpmon_core::SystemClock);
    Some(until.since(now).min(LONGEST_WAIT))
}

/// TLS on ring with the machine's own roots and those of `ca_file`.
fn tls(ca_file: Option<&Path>) -> Result<ClientConfig, String> {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    if let Some(path) = ca_file {
        for certificate in certificates(path)? {
            roots.add(certificate).map_err(|error| format!("`{}`: {error}", path.display()))?;
        }
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?;
    Ok(builder.with_root_certificates(roots).with_no_client_auth())
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let trouble = |why: String| format!("`{}`: {why}", PathBuf::from(path).display());
    let size = std::fs::metadata(path).map_err(|error| trouble(error.to_string()))?.len();
    if size > LARGEST_CA_FILE {
        return Err(trouble("it is too large for a file of certificates".to_owned()));
    }
    let pem = std::fs::read(path).map_err(|error| trouble(error.to_string()))?;
    let found: Vec<_> = CertificateDer::pem_slice_iter(&pem)
        .collect::<Result<_, _>>()
        .map_err(|error| trouble(error.to_string()))?;
    if found.is_empty() {
        return Err(trouble("it holds no PEM certificate".to_owned()));
    }
    Ok(found)
}

/// A receipt with what the far side calls the message, if it said.
pub(super) fn receipt(id: Option<&str>) -> Receipt {
    match id.map(str::trim).filter(|id| !id.is_empty()) {
        Some(id) => Receipt::with_id(truncate(&for_terminal(id), 200)),
        None => Receipt::accepted(),
    }
}

/// A header that carries a secret: never shown by `Debug`.
pub(super) fn secret_header(
    settings: &HandlerSettings,
    key: &str,
    value: &str,
) -> Result<HeaderValue, SettingsError> {
    let mut header = HeaderValue::from_str(value).map_err(|_| {
        settings.error(format!("`{key}`: it holds a character no header may carry"))
    })?;
    header.set_sensitive(true);
    Ok(header)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::handlers::http::testing::{Far, Says};

    fn settings() -> HandlerSettings {
        HandlerSettings::new("ops", "webhook")
    }

    async fn posted(far: &Far) -> Result<Answer, DeliveryError> {
        let place = Place::read(&settings(), "url", &far.url("/hook/s3cr3t-path")).unwrap();
        let secret = [Secret::new("s3cr3t-path")];
        let sender =
            Sender::new(&settings(), &[&place], Duration::from_secs(2), None, secret).unwrap();
        sender.post_json(&place, &serde_json::json!({}), HeaderMap::new()).await
    }

    #[tokio::test]
    async fn an_answer_is_final_or_not_by_its_status() {
        for (status, is_transient) in [
            (400, false),
            (401, false),
            (404, false),
            (408, true),
            (410, false),
            (425, true),
            (429, true),
            (500, true),
            (503, true),
            (302, false),
            (307, false),
        ] {
            let far = Far::that(Says::status(status, "said s3cr3t-path \u{1b}[2J")).await;
            let error = posted(&far).await.unwrap_err();
            let told = error.to_string();
            assert_eq!(error.is_transient(), is_transient, "{status}: {told}");
            assert!(told.contains(&status.to_string()), "{told}");
            assert!(!told.contains("s3cr3t") && !told.contains('\u{1b}'), "{told}");
        }
    }

    #[tokio::test]
    async fn a_wish_to_be_left_alone_is_passed_on_within_bounds() {
        for (header, wait) in [("7", 7), ("999999", 3_600), ("Thu, 01 Jan 1970 00:00:00 GMT", 0)] {
            let far = Far::that(Says::status(429, "").with("Retry-After", header)).await;
            let error = posted(&far).await.unwrap_err();
            assert_eq!(error.retry_after(), Some(Duration::from_secs(wait)), "{header}");
        }
    }

    #[tokio::test]
    async fn silence_a_cut_and_a_closed_port_may_pass() {
        for says in [Says::nothing(), Says::hang_up(), Says::status(200, "half").cut_short()] {
            let far = Far::that(says).await;
            assert!(posted(&far).await.unwrap_err().is_transient());
        }
        let gone = Far::gone().await;
        let told = posted(&gone).await.unwrap_err().to_string();
        assert!(told.contains("refused") && !told.contains("s3cr3t"), "{told}");
    }

    #[tokio::test]
    async fn an_endless_answer_costs_no_memory() {
        let far = Far::that(Says::status(200, &"x".repeat(200_000))).await;
        assert_eq!(posted(&far).await.unwrap().body.len(), LONGEST_ANSWER);
    }

    #[test]
    fn a_place_that_is_none_is_told_with_its_key() {
        for (url, word) in [
            ("hooks.example.com", "not a URL"),
            ("ftp://x", "neither `http` nor `https`"),
            ("https://", "not a URL"),
        ] {
            let error = Place::read(&settings(), "url", url).err().unwrap().to_string();
            assert!(error.contains(word) && error.contains("`url`"), "{error}");
        }
    }
}
