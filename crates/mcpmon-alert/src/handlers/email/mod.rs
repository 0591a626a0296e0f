//! Alerts by mail, over SMTP.
//!
//! One connection for each message, opened and closed: alerts are rare, and a connection kept
//! through a quiet night is one more thing that is dead when it is needed.

mod render;
mod settings;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use lettre::transport::smtp::Error as SmtpError;
use lettre::{AsyncSmtpTransport, AsyncTransport as _, Tokio1Executor};
use mcpmon_core::alert::{DeliveryError, Handler, Notification, Receipt};
use mcpmon_core::settings::{HandlerSettings, SettingsError};
use mcpmon_core::text::{for_terminal, truncate};
use mcpmon_core::time::{Clock, SystemClock};

use render::Letterhead;
use settings::EmailSettings;

/// Sends each notification as one mail with a text and an HTML part.
///
/// | key | means | if not said |
/// |---|---|---|
/// | `smtp` | `smtp://host`, `smtps://host:465`, `smtp://user@host:587?starttls=required` | |
/// | `starttls` | `required`, `opportunistic` or `none`, instead of in the URL | `required` with a user, else `opportunistic` |
/// | `user`, `password` | credentials, instead of in the URL | none |
/// | `ca_file` | PEM certificates trusted beside the system's | none |
/// | `from`, `to` | addresses, `Name <name@example.com>` too; `to` may be a list | |
/// | `timeout` | the whole delivery | `30s` |
pub struct EmailHandler {
    name: String,
    letterhead: Letterhead,
    transport: AsyncSmtpTransport<Tokio1Executor>,
    server: String,
    timeout: Duration,
    clock: Arc<dyn Clock>,
}

impl EmailHandler {
    /// Reads the keys of kind `email`; opens no connection.
    ///
    /// # Errors
    ///
    /// When a key is missing or cannot be used; the message names it.
    pub fn from_settings(settings: &HandlerSettings) -> Result<Self, SettingsError> {
        let own: EmailSettings = settings.parse()?;
        let checked =
            own.check().map_err(|(key, message)| settings.error(format!("`{key}`: {message}")))?;
        Ok(Self {
            name: settings.name.clone(),
            letterhead: checked.letterhead,
            transport: checked.transport.build(),
            server: checked.server,
            timeout: checked.timeout,
            clock: Arc::new(SystemClock),
        })
    }

    /// Another clock for the date of mails.
    #[must_use]
    pub fn clock(mut self, clock: Arc<dyn Clock>) -> Self {
        self.clock = clock;
        self
    }

    fn failure(&self, error: &SmtpError) -> DeliveryError {
        let mut text = error.to_string();
        if error.is_tls() || text.contains("certificate") {
            text.push_str("; for a private authority, name its certificate in `ca_file`");
        } else if text.contains("STARTTLS") {
            text.push_str("; `starttls = \"none\"` sends in the clear");
        }
        // What a mail server says is a stranger's text.
        let text = truncate(&for_terminal(&text), 500);
        let message = format!("{}: {text}", self.server);
        if is_permanent(error) {
            DeliveryError::permanent(message)
        } else {
            DeliveryError::transient(message)
        }
    }
}

/// A `5xx` answer is final, and so is a server that cannot do what the settings ask for (no
/// STARTTLS, no known way to log in). Everything else (no connection, `4xx`, a certificate that
/// ran out) may be mended while we wait.
fn is_permanent(error: &SmtpError) -> bool {
    error.is_permanent() || error.is_client()
}

impl fmt::Debug for EmailHandler {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EmailHandler")
            .field("name", &self.name)
            .field("server", &self.server)
            .finish_non_exhaustive()
    }
}

#[async_trait]
impl Handler for EmailHandler {
    fn name(&self) -> &str {
        &self.name
    }

    async fn deliver(&self, notification: &Notification) -> Result<Receipt, DeliveryError> {
        let mail = self
            .letterhead
            .write(notification, self.clock.now())
            .map_err(DeliveryError::permanent)?;
        match tokio::time::timeout(self.timeout, self.transport.send(mail)).await {
            Ok(Ok(answer)) => {
                let said: Vec<&str> = answer.message().collect();
                Ok(Receipt::with_id(truncate(&for_terminal(&said.join(" ")), 200)))
            }
            Ok(Err(error)) => Err(self.failure(&error)),
            Err(_) => Err(DeliveryError::transient(format!(
                "{}: no answer within {}",
                self.server,
                mcpmon_core::duration::format(self.timeout)
            ))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use mcpmon_core::alert::NotificationKind;
    use mcpmon_testkit::{handler_conformance, samples};
    use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
    use tokio::net::{TcpListener, TcpStream};

    /// A mail server that takes everything, but answers one command its own way; an empty answer
    /// is silence.
    async fn server(command: &'static str, answer: &'static str) -> u16 {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(converse(stream, command, answer));
            }
        });
        port
    }

    async fn converse(stream: TcpStream, command: &str, answer: &str) -> std::io::Result<()> {
        let mut stream = BufReader::new(stream);
        stream.write_all(b"220 mail.test\r\n").await?;
        let mut in_data = false;
        let mut line = String::new();
        loop {
            line.clear();
            if stream.read_line(&mut line).await? == 0 {
                return Ok(());
            }
            let verb = line.trim_end().split([' ', ':']).next().unwrap_or_default();
            if in_data && verb != "." {
                continue;
            }
            let usual = match verb {
                "EHLO" => "250-mail.test\r\n250 AUTH PLAIN",
                "AUTH" => "235 welcome",
                "DATA" => "354 go on",
                "." => "250 queued as 42",
                "QUIT" => "221 bye",
                _ => "250 ok",
            };
            let said = if verb == command { answer } else { usual };
            in_data = said.starts_with("354");
            if !said.is_empty() {
                stream.write_all(format!("{said}\r\n").as_bytes()).await?;
            }
        }
    }

    fn handler(smtp: &str) -> EmailHandler {
        let settings = HandlerSettings::new("ops", "email")
            .with("smtp", smtp)
            .with("from", "mcpmon@example.com")
            .with("to", "ops@example.com")
            .with("timeout", "1s");
        EmailHandler::from_settings(&settings).unwrap()
    }

    async fn delivered(smtp: &str) -> Result<Receipt, DeliveryError> {
        let notification = samples::notification("k", NotificationKind::Firing);
        handler(smtp).deliver(&notification).await
    }

    #[tokio::test]
    async fn what_the_server_says_becomes_the_receipt() {
        let port = server("", "").await;
        let login = format!("smtp://me:secret@127.0.0.1:{port}?starttls=none");
        let receipt = delivered(&login).await.unwrap();
        assert!(receipt.id.unwrap().contains("queued as 42"));
    }

    #[tokio::test]
    async fn a_refusal_is_final_or_not_by_its_code() {
        for (command, answer, is_transient) in [
            ("MAIL", "451 try later", true),
            ("RCPT", "550 no such user", false),
            ("DATA", "421 closing", true),
            (".", "554 looks like spam", false),
            ("AUTH", "535 wrong password", false),
            ("AUTH", "454 try later", true),
            ("MAIL", "", true),
            ("MAIL", "gibberish", true),
        ] {
            let port = server(command, answer).await;
            let login = format!("smtp://me:hunter22@127.0.0.1:{port}?starttls=none");
            let error = delivered(&login).await.unwrap_err();
            let told = error.to_string();
            assert_eq!(error.is_transient(), is_transient, "{command} {answer}: {told}");
            assert!(told.contains(&format!("127.0.0.1:{port}")), "{told}");
            assert!(!told.contains("hunter22"), "{told}");
            if let Some((code, words)) = answer.split_once(' ') {
                assert!(told.contains(code) && told.contains(words), "{told}");
            }
        }
    }

    #[tokio::test]
    async fn nothing_is_sent_in_the_clear_where_privacy_is_required() {
        let port = server("", "").await;
        let error =
            delivered(&format!("smtp://127.0.0.1:{port}?starttls=required")).await.unwrap_err();
        assert!(!error.is_transient());
        assert!(error.to_string().contains("STARTTLS"), "{error}");
    }

    #[tokio::test]
    async fn a_server_that_is_not_there_may_come_back() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        drop(listener);
        let error = delivered(&format!("smtp://127.0.0.1:{port}")).await.unwrap_err();
        assert!(error.is_transient(), "{error}");
    }

    #[tokio::test]
    async fn keeps_the_promises_of_a_handler() {
        let port = server("", "").await;
        handler_conformance(&handler(&format!("smtp://127.0.0.1:{port}"))).await;
    }
}
