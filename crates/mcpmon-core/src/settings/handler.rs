//! `[[handlers]]`: one receiver. Its own keys are known only to the crate that makes the handler,
//! so they are kept as values and parsed by that crate's factory.

use std::collections::BTreeMap;
use std::fmt;

use serde::de::{DeserializeOwned, Error as _};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::{Map, Value};

use crate::secret::{REDACTED, Secret};

/// One configured handler: name, type and the type's own keys.
#[derive(Clone, PartialEq, Default)]
pub struct HandlerSettings {
    /// Its name, for routes and messages.
    pub name: String,
    /// Which kind of handler it is.
    pub kind: String,
    /// The kind's own keys; where a secret was filled in stands [`REDACTED`].
    values: Map<String, Value>,
    /// Which of them were given as `{ env = … }`, `{ file = … }` or `{ command = … }`.
    secrets: BTreeMap<String, Secret>,
}

/// A handler's settings cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("handler `{handler}`: {message}")]
pub struct SettingsError {
    /// The handler's name.
    pub handler: String,
    /// What is wrong, with the key's path.
    pub message: String,
}

impl HandlerSettings {
    /// Settings of a handler of this kind without keys of its own.
    pub fn new(name: impl Into<String>, kind: impl Into<String>) -> Self {
        Self { name: name.into(), kind: kind.into(), ..Self::default() }
    }

    /// Sets one of the kind's own keys.
    #[must_use]
    pub fn with(mut self, key: &str, value: impl Into<Value>) -> Self {
        self.values.insert(key.to_owned(), value.into());
        self
    }

    /// The kind's own keys as they were written; a secret that was filled in is [`REDACTED`].
    pub fn values(&self) -> &Map<String, Value> {
        &self.values
    }

    /// Fills in a secret's value for `key`; it shows nowhere but in what [`HandlerSettings::parse`]
    /// makes of it.
    pub fn resolve(&mut self, key: &str, secret: Secret) {
        self.values.insert(key.to_owned(), Value::from(REDACTED));
        self.secrets.insert(key.to_owned(), secret);
    }

    /// Every secret that was filled in.
    pub fn secrets(&self) -> impl Iterator<Item = &Secret> {
        self.secrets.values()
    }

    /// Reads the kind's own keys into its type. Secrets go into fields of type [`Secret`].
    ///
    /// # Errors
    ///
    /// [`SettingsError`] that names the handler and the key's path.
    pub fn parse<T: DeserializeOwned>(&self) -> Result<T, SettingsError> {
        let mut values = self.values.clone();
        for (key, secret) in &self.secrets {
            values.insert(key.clone(), Value::from(secret.expose()));
        }
        serde_path_to_error::deserialize(Value::Object(values)).map_err(|error| {
            let path = error.path().to_string();
            let message = error.into_inner();
            // A key that is missing or unknown is named by the message itself.
            match path.as_str() {
                "." => self.error(message.to_string()),
                path if message.to_string().contains(&format!("`{path}`")) => {
                    self.error(message.to_string())
                }
                path => self.error(format!("`{path}`: {message}")),
            }
        })
    }

    /// An error about these settings.
    pub fn error(&self, message: impl Into<String>) -> SettingsError {
        SettingsError { handler: self.name.clone(), message: message.into() }
    }
}

impl fmt::Debug for HandlerSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HandlerSettings")
            .field("name", &self.name)
            .field("kind", &self.kind)
            .field("keys", &self.values.keys().collect::<Vec<_>>())
            .finish()
    }
}

impl Serialize for HandlerSettings {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = self.values.clone();
        map.insert("name".to_owned(), Value::from(self.name.as_str()));
        map.insert("type".to_owned(), Value::from(self.kind.as_str()));
        map.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for HandlerSettings {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let mut values = Map::deserialize(deserializer)?;
        let mut take = |key: &'static str| match values.remove(key) {
            Some(Value::String(text)) => Ok(text),
            Some(_) => Err(D::Error::custom(format_args!("`{key}` of a handler must be text"))),
            None => Err(D::Error::missing_field(key)),
        };
        let (name, kind) = (take("name")?, take("type")?);
        Ok(Self { name, kind, values, secrets: BTreeMap::new() })
    }
}

#[cfg(feature = "schema")]
impl schemars::JsonSchema for HandlerSettings {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "HandlerSettings".into()
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({
            "type": "object",
            "description": "one receiver of alerts; further keys belong to its type",
            "properties": { "name": { "type": "string" }, "type": { "type": "string" } },
            "required": ["name", "type"],
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Pager {
        token: Secret,
        room: String,
    }

    fn pager(json: Value) -> HandlerSettings {
        serde_json::from_value(json).unwrap()
    }

    #[test]
    fn a_factory_reads_its_own_keys_and_secrets_stay_hidden() {
        let mut settings = pager(serde_json::json!({
            "name": "ops", "type": "pager", "room": "r1", "token": { "env": "TOKEN" }
        }));
        settings.resolve("token", Secret::new("hunter22"));
        let own: Pager = settings.parse().unwrap();
        assert_eq!((own.token.expose(), own.room.as_str()), ("hunter22", "r1"));
        let json = serde_json::to_string(&settings).unwrap();
        let shown = format!("{settings:?} {json} {:?}", settings.values());
        assert!(!shown.contains("hunter22"), "{shown}");
    }

    #[test]
    fn a_value_of_another_kind_is_told_with_its_key() {
        let settings = pager(serde_json::json!({
            "name": "ops", "type": "pager", "room": 7, "token": "t"
        }));
        let error = settings.parse::<Pager>().unwrap_err().to_string();
        assert!(error.starts_with("handler `ops`: `room`: "), "{error}");
    }

    #[test]
    fn an_unknown_key_names_handler_and_key() {
        let settings = pager(serde_json::json!({ "name": "ops", "type": "pager", "rom": "r" }));
        let error = settings.parse::<Pager>().unwrap_err().to_string();
        assert!(error.contains("`ops`") && error.contains("rom"), "{error}");
    }
}
