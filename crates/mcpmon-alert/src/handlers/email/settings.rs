//! The keys of kind `email`, and the server they lead to.

use std::path::PathBuf;
use std::time::Duration;

use lettre::message::Mailbox;
use lettre::transport::smtp::AsyncSmtpTransportBuilder;
use lettre::transport::smtp::authentication::Credentials;
use lettre::transport::smtp::client::{Certificate, Tls, TlsParameters};
use lettre::{AsyncSmtpTransport, Tokio1Executor};
use mcpmon_core::Secret;
use serde::Deserialize;

use super::render::Letterhead;
use crate::names::did_you_mean;

/// Largest file of certificates that is read.
const LARGEST_CA_FILE: u64 = 1 << 20;

/// The keys as they are written.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct EmailSettings {
    smtp: Secret,
    #[serde(default)]
    starttls: Option<StartTls>,
    #[serde(default)]
    user: Option<String>,
    #[serde(default)]
    password: Option<Secret>,
    #[serde(default)]
    ca_file: Option<PathBuf>,
    from: String,
    to: Recipients,
    #[serde(default = "half_a_minute", with = "mcpmon_core::duration")]
    timeout: Duration,
}

fn half_a_minute() -> Duration {
    Duration::from_secs(30)
}

/// One address or several.
#[derive(Debug, Deserialize)]
#[serde(untagged, expecting = "`to` must be an address or a list of addresses")]
enum Recipients {
    One(String),
    Several(Vec<String>),
}

/// Whether a plain connection is made a private one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum StartTls {
    /// Or nothing is sent.
    Required,
    /// Where the server offers it. A listener in between can take the offer away.
    Opportunistic,
    /// Never.
    None,
}

impl StartTls {
    const WORDS: [(&'static str, Self); 3] = [
        ("required", Self::Required),
        ("opportunistic", Self::Opportunistic),
        ("none", Self::None),
    ];

    fn from_word(word: &str) -> Option<Self> {
        Self::WORDS.into_iter().find(|(known, _)| *known == word).map(|(_, value)| value)
    }
}

/// What the keys come to.
pub(super) struct Checked {
    pub(super) letterhead: Letterhead,
    pub(super) transport: AsyncSmtpTransportBuilder,
    /// `host:port`, for messages; holds no secret.
    pub(super) server: String,
    pub(super) timeout: Duration,
}

type Problem = (String, String);

fn problem(key: &str, message: impl Into<String>) -> Problem {
    (key.to_owned(), message.into())
}

impl EmailSettings {
    /// Checks every key and opens nothing but `ca_file`.
    pub(super) fn check(self) -> Result<Checked, Problem> {
        let url = SmtpUrl::parse(self.smtp.expose()).map_err(|m| problem("smtp", m))?;
        if self.timeout.is_zero() {
            return Err(problem("timeout", "it must be longer than 0"));
        }
        let from = address("from", &self.from)?;
        let to = match &self.to {
            Recipients::One(one) => vec![address("to", one)?],
            Recipients::Several(all) => all
                .iter()
                .enumerate()
                .map(|(index, one)| address(&format!("to[{index}]"), one))
                .collect::<Result<_, _>>()?,
        };
        if to.is_empty() {
            return Err(problem("to", "nobody is named"));
        }
        let user = self.user.or(url.user);
        let password = self.password.or(url.password);
        let starttls = match (url.implicit_tls, self.starttls, url.starttls) {
            (true, None, None) => None,
            (true, ..) => {
                return Err(problem("starttls", "`smtps` is private from the first byte on"));
            }
            (false, Some(_), Some(_)) => {
                return Err(problem("starttls", "it stands in `smtp` too; give only one"));
            }
            (false, one, other) => Some(one.or(other).unwrap_or(match user {
                Some(_) => StartTls::Required,
                None => StartTls::Opportunistic,
            })),
        };
        let port = url.port.unwrap_or(match starttls {
            None => 465,
            Some(StartTls::Required) => 587,
            Some(_) => 25,
        });
        let tls = tls(&url.host, starttls, self.ca_file)?;
        let mut transport = AsyncSmtpTransport::<Tokio1Executor>::builder_dangerous(&url.host)
            .port(port)
            .tls(tls)
            .timeout(Some(self.timeout));
        match (user, password) {
            (Some(user), Some(password)) => {
                let secret = password.expose().to_owned();
                transport = transport.credentials(Credentials::new(user, secret));
            }
            (None, None) => {}
            (Some(_), None) => return Err(problem("password", "it is missing beside `user`")),
            (None, Some(_)) => {
                let message = "it is missing beside `password`; give it here or in `smtp`, as in `smtps://user@host`";
                return Err(problem("user", message));
            }
        }
        Ok(Checked {
            letterhead: Letterhead::new(from, to),
            transport,
            server: format!("{}:{port}", url.host),
            timeout: self.timeout,
        })
    }
}

fn address(key: &str, text: &str) -> Result<Mailbox, Problem> {
    text.trim().parse::<Mailbox>().map_err(|_| {
        let message = format!("`{text}` is not an address such as name@example.com");
        problem(key, message)
    })
}

fn tls(host: &str, starttls: Option<StartTls>, ca_file: Option<PathBuf>) -> Result<Tls, Problem> {
    if starttls == Some(StartTls::None) {
        return match ca_file {
            None => Ok(Tls::None),
            Some(_) => Err(problem("ca_file", "it does nothing with `starttls = \"none\"`")),
        };
    }
    // Name checks want the address itself, without the brackets of a URL.
    let mut builder = TlsParameters::builder(host.trim_matches(['[', ']']).to_owned());
    if let Some(path) = ca_file {
        let trouble =
            |message: String| problem("ca_file", format!("`{}`: {message}", path.display()));
        let size = std::fs::metadata(&path).map_err(|e| trouble(e.to_string()))?.len();
        if size > LARGEST_CA_FILE {
            return Err(trouble("it is too large for a file of certificates".to_owned()));
        }
        let pem = std::fs::read(&path).map_err(|e| trouble(e.to_string()))?;
        let is_empty = !pem.windows(11).any(|window| window == b"-----BEGIN ");
        if is_empty {
            return Err(trouble("it holds no PEM certificate".to_owned()));
        }
        let certificate = Certificate::from_pem(&pem).map_err(|e| trouble(e.to_string()))?;
        builder = builder.add_root_certificate(certificate);
    }
    let parameters = builder
        .build_rustls()
        .map_err(|error| problem("smtp", format!("no private connection can be made: {error}")))?;
    Ok(match starttls {
        None => Tls::Wrapper(parameters),
        Some(StartTls::Required) => Tls::Required(parameters),
        _ => Tls::Opportunistic(parameters),
    })
}

/// `smtp[s]://[user[:password]@]host[:port][/][?starttls=…]`.
#[derive(Debug, PartialEq, Eq)]
struct SmtpUrl {
    implicit_tls: bool,
    user: Option<String>,
    password: Option<Secret>,
    host: String,
    port: Option<u16>,
    starttls: Option<StartTls>,
}

impl SmtpUrl {
    fn parse(text: &str) -> Result<Self, String> {
        let (scheme, rest) = text.split_once("://").ok_or(
            "it must be a URL such as `smtps://mail.example.com` or `smtp://mail.example.com:587`",
        )?;
        let implicit_tls = match scheme {
            "smtp" => false,
            "smtps" => true,
            other => {
                let hint = did_you_mean(other, ["smtp", "smtps"]);
                return Err(format!("`{other}` is neither `smtp` nor `smtps`{hint}"));
            }
        };
        let (rest, query) = match rest.split_once('?') {
            Some((rest, query)) => (rest, Some(query)),
            None => (rest, None),
        };
        // The last `@`: a password may hold one although it should be percent-encoded.
        let (login, place) = match rest.rsplit_once('@') {
            Some((login, place)) => (Some(login), place),
            None => (None, rest),
        };
        let place = place.strip_suffix('/').unwrap_or(place);
        if place.contains('/') {
            return Err("nothing may follow the host and port but `?starttls=…`".to_owned());
        }
        let (host, port) = host_and_port(place)?;
        let (user, password) = match login.map(|login| login.split_once(':').unwrap_or((login, "")))
        {
            None => (None, None),
            Some((user, "")) => (Some(decoded(user)?), None),
            Some((user, password)) => (Some(decoded(user)?), Some(Secret::new(decoded(password)?))),
        };
        Ok(Self {
            implicit_tls,
            user: user.filter(|user| !user.is_empty()),
            password,
            host,
            port,
            starttls: query.map(starttls_of).transpose()?,
        })
    }
}

fn host_and_port(place: &str) -> Result<(String, Option<u16>), String> {
    let is_v6 = place.starts_with('[');
    let (host, port) = match place.rsplit_once(':') {
        Some((host, port)) if !is_v6 || host.ends_with(']') => (host, Some(port)),
        _ => (place, None),
    };
    let is_host = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
    let is_address = |c: char| c.is_ascii_hexdigit() || matches!(c, ':' | '.');
    let inner = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
    let is_valid = match inner {
        Some(inner) => !inner.is_empty() && inner.chars().all(is_address),
        None => !host.is_empty() && host.chars().all(is_host),
    };
    if !is_valid {
        return Err(format!("`{host}` is not a host"));
    }
    let port = match port.map(str::parse::<u16>) {
        None => None,
        Some(Ok(port)) if port > 0 => Some(port),
        Some(_) => return Err("the port must be a number from 1 to 65535".to_owned()),
    };
    Ok((inner.unwrap_or(host).to_owned(), port))
}

fn starttls_of(query: &str) -> Result<StartTls, String> {
    let words = StartTls::WORDS.map(|(word, _)| word);
    match query.split_once('=') {
        Some(("starttls", word)) => StartTls::from_word(word).ok_or_else(|| {
            let known = crate::names::listed(words);
            format!("`starttls={word}` is none of {known}")
        }),
        _ => Err(format!("`?{query}` is not known; there is `?starttls=required`")),
    }
}

/// Percent-decoding, as in every URL.
fn decoded(text: &str) -> Result<String, String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        if byte != b'%' {
            bytes.push(byte);
            continue;
        }
        let digits = [rest.next(), rest.next()]
            .map(|digit| digit.and_then(|digit| char::from(digit).to_digit(16)));
        let [Some(high), Some(low)] = digits else {
            return Err("a `%` in user or password must be written `%25`".to_owned());
        };
        bytes.push(u8::try_from(high * 16 + low).unwrap_or_default());
    }
    String::from_utf8(bytes).map_err(|_| "user or password is not UTF-8".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use mcpmon_core::settings::HandlerSettings;

    use crate::EmailHandler;

    fn ops() -> HandlerSettings {
        HandlerSettings::new("ops", "email")
            .with("smtp", "smtp://mail.example.com")
            .with("from", "mcpmon@example.com")
            .with("to", "ops@example.com")
    }

    #[test]
    fn a_url_is_taken_apart() {
        let url = SmtpUrl::parse("smtp://m%40x:p%3Aw@mail.example.com:2525?starttls=none").unwrap();
        assert_eq!(url.user.as_deref(), Some("m@x"));
        assert_eq!(url.password.as_ref().map(Secret::expose), Some("p:w"));
        assert_eq!((url.host.as_str(), url.port), ("mail.example.com", Some(2525)));
        assert_eq!(url.starttls, Some(StartTls::None));
        let v6 = SmtpUrl::parse("smtps://[::1]:465/").unwrap();
        assert_eq!((v6.host.as_str(), v6.port, v6.implicit_tls), ("::1", Some(465), true));
        let bare = SmtpUrl::parse("smtp://localhost").unwrap();
        assert_eq!((bare.user, bare.port, bare.starttls), (None, None, None));
    }

    #[tokio::test]
    async fn ports_and_privacy_follow_from_what_is_said() {
        for (keys, server, tls) in [
            (vec![], "mail.example.com:25", "Opportunistic"),
            (vec![("starttls", "required")], "mail.example.com:587", "Required"),
            (vec![("starttls", "none")], "mail.example.com:25", "None"),
            (vec![("user", "me"), ("password", "secret")], "mail.example.com:587", "Required"),
            (vec![("smtp", "smtps://mail.example.com")], "mail.example.com:465", "Wrapper"),
            (vec![("smtp", "smtp://h:2525?starttls=opportunistic")], "h:2525", "Opportunistic"),
        ] {
            let mut settings = ops();
            for (key, value) in keys {
                settings = settings.with(key, value);
            }
            let own: EmailSettings = settings.parse().unwrap();
            let checked = own.check().unwrap_or_else(|problem| panic!("{problem:?}"));
            assert_eq!(checked.server, server);
            let shown = format!("{:?}", checked.transport);
            assert!(shown.contains(&format!("tls: {tls}")), "{shown}");
        }
    }

    #[track_caller]
    fn reject(settings: &HandlerSettings, words: &[&str]) {
        let error = EmailHandler::from_settings(settings).expect_err("refused").to_string();
        for word in words.iter().chain(&["`ops`"]) {
            assert!(error.contains(word), "{error} does not say {word}");
        }
        assert!(!error.contains("hunter22"), "{error}");
    }

    #[test]
    fn what_cannot_work_is_told_with_its_key() {
        reject(&ops().with("smtp", "mail.example.com"), &["`smtp`", "smtps://"]);
        reject(&ops().with("smtp", "stmp://x"), &["`smtp`", "did you mean `smtp`"]);
        reject(&ops().with("smtp", "smtp://a b"), &["`smtp`", "not a host"]);
        reject(&ops().with("smtp", "smtp://h:0"), &["`smtp`", "65535"]);
        reject(&ops().with("smtp", "smtp://h?tls=yes"), &["`smtp`", "starttls=required"]);
        reject(&ops().with("smtp", "smtp://u:hunter22%@h"), &["`smtp`", "%25"]);
        reject(&ops().with("from", "nobody"), &["`from`", "name@example.com"]);
        let to = serde_json::json!(["a@example.com", "b"]);
        reject(&ops().with("to", to), &["`to[1]`"]);
        reject(&ops().with("to", serde_json::json!([])), &["`to`", "nobody"]);
        reject(&ops().with("to", 3), &["`to` must be"]);
        reject(&ops().with("starttls", "maybe"), &["maybe"]);
        reject(&ops().with("user", "me"), &["`password`"]);
        reject(&ops().with("password", "hunter22"), &["`user`"]);
        reject(&ops().with("timeout", "0s"), &["`timeout`"]);
        reject(&ops().with("ca_file", "/nonexistent.pem"), &["`ca_file`", "/nonexistent.pem"]);
        reject(&ops().with("sbuject", "x"), &["sbuject"]);
        let smtps = ops().with("smtp", "smtps://h").with("starttls", "required");
        reject(&smtps, &["`starttls`"]);
    }

    #[test]
    fn nothing_secret_is_shown() {
        let settings = ops().with("smtp", "smtp://me:hunter22@mail.example.com");
        let own: EmailSettings = settings.parse().unwrap();
        assert!(!format!("{own:?}").contains("hunter22"));
        let handler = EmailHandler::from_settings(&settings).unwrap();
        assert!(!format!("{handler:?}").contains("hunter22"));
    }
}
