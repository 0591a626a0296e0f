//! Pages somebody through a gateway: one line of JSON over TCP, one line back.

use std::time::Duration;

use async_trait::async_trait;
use mcpmon_core::settings::{HandlerSettings, SettingsError};
use mcpmon_core::{DeliveryError, Handler, Notification, Receipt, Secret, text};
use tokio::io::{self, AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::TcpStream;

/// The keys of `type = "pager"`.
#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Keys {
    gateway: String,
    token: Secret,
}

/// Pages through the gateway at one address.
pub struct Pager {
    name: String,
    keys: Keys,
}

impl Pager {
    /// A pager for one entry under `[[handlers]]`.
    ///
    /// # Errors
    ///
    /// Names the key that is missing, unknown or of another type.
    pub fn from_settings(settings: &HandlerSettings) -> Result<Self, SettingsError> {
        Ok(Self { name: settings.name.clone(), keys: settings.parse()? })
    }

    async fn exchange(&self, page: &serde_json::Value) -> io::Result<String> {
        let mut gateway = TcpStream::connect(&self.keys.gateway).await?;
        gateway.write_all(format!("{page}\n").as_bytes()).await?;
        let mut answer = String::new();
        BufReader::new(gateway.take(1_000)).read_line(&mut answer).await?;
        Ok(answer)
    }
}

#[async_trait]
impl Handler for Pager {
    fn name(&self) -> &str {
        &self.name
    }

    async fn deliver(&self, notification: &Notification) -> Result<Receipt, DeliveryError> {
        let messages: Vec<_> = notification.alerts.iter().map(|a| a.message.as_str()).collect();
        let page = serde_json::json!({
            "token": self.keys.token.expose(),
            "once": notification.key,
            "kind": notification.kind.as_str(),
            "text": text::for_terminal(&text::truncate(&messages.join("; "), 400)),
        });
        let answer = self.exchange(&page).await.map_err(DeliveryError::transient)?;
        match answer.trim().split_once(' ') {
            Some(("ok", id)) => Ok(Receipt::with_id(id)),
            Some(("busy", seconds)) => {
                let wait = Duration::from_secs(seconds.parse().unwrap_or(60));
                Err(DeliveryError::transient("the gateway is busy").after(wait))
            }
            _ if answer.is_empty() => Err(DeliveryError::transient("the gateway hung up")),
            _ => Err(DeliveryError::permanent(format!("refused: {}", text::for_terminal(&answer)))),
        }
    }
}
