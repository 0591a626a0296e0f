//! A chat's incoming web hook: one URL, itself the secret, to which a JSON body is posted. Chats
//! differ in the body alone, so that is all each of them says.

use std::path::PathBuf;
use std::time::Duration;

use mcpmon_core::Secret;
use mcpmon_core::alert::{DeliveryError, Receipt};
use mcpmon_core::settings::{HandlerSettings, SettingsError};
use reqwest::header::HeaderMap;
use serde::Deserialize;
use serde_json::Value;

use super::half_a_minute;
use super::sender::{Place, Sender};

/// One channel's web hook.
pub(super) struct Incoming {
    name: String,
    place: Place,
    sender: Sender,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct IncomingSettings {
    url: Secret,
    #[serde(default)]
    ca_file: Option<PathBuf>,
    #[serde(default = "half_a_minute", with = "mcpmon_core::duration")]
    timeout: Duration,
}

impl Incoming {
    /// Reads `url`, `ca_file` and `timeout`; opens no connection.
    ///
    /// # Errors
    ///
    /// When a key is missing or cannot be used; the message names it.
    pub(super) fn from_settings(settings: &HandlerSettings) -> Result<Self, SettingsError> {
        let own: IncomingSettings = settings.parse()?;
        let place = Place::read(settings, "url", own.url.expose())?;
        let ca_file = own.ca_file.as_deref();
        let sender = Sender::new(settings, &[&place], own.timeout, ca_file, [own.url])?;
        Ok(Self { name: settings.name.clone(), place, sender })
    }

    /// The handler's name.
    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// Posts a body once. A chat gives nothing back that a message is known by.
    ///
    /// # Errors
    ///
    /// As [`Sender::post_json`].
    pub(super) async fn post(&self, body: &Value) -> Result<Receipt, DeliveryError> {
        self.sender.post_json(&self.place, body, HeaderMap::new()).await?;
        Ok(Receipt::accepted())
    }
}
