//! Where a secret comes from: written out, or named by a variable, a file or a command.

use std::fmt;
use std::path::PathBuf;

use serde::de::{self, MapAccess, Visitor};
use serde::ser::SerializeMap;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::secret::{REDACTED, Secret};

/// A secret's source, not yet read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SecretRef {
    /// The text itself, in which `${VAR}` is filled in.
    Text(Secret),
    /// The value of an environment variable.
    Env(String),
    /// What a file holds, without the last line break.
    File(PathBuf),
    /// What a command prints, without the last line break.
    Command(Vec<String>),
}

impl Default for SecretRef {
    fn default() -> Self {
        Self::Text(Secret::default())
    }
}

#[cfg(feature = "schema")]
impl schemars::JsonSchema for SecretRef {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "SecretRef".into()
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({
            "description": "text, or { env = NAME }, { file = PATH } or { command = [ARGV] }",
            "anyOf": [
                { "type": ["string", "number", "boolean"] },
                { "type": "object", "properties": { "env": { "type": "string" } },
                  "required": ["env"], "additionalProperties": false },
                { "type": "object", "properties": { "file": { "type": "string" } },
                  "required": ["file"], "additionalProperties": false },
                { "type": "object",
                  "properties": { "command": { "type": "array", "items": { "type": "string" } } },
                  "required": ["command"], "additionalProperties": false },
            ]
        })
    }
}

impl Serialize for SecretRef {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = match self {
            Self::Text(_) => return serializer.serialize_str(REDACTED),
            _ => serializer.serialize_map(Some(1))?,
        };
        match self {
            Self::Text(_) => {}
            Self::Env(name) => map.serialize_entry("env", name)?,
            Self::File(path) => map.serialize_entry("file", path)?,
            Self::Command(argv) => map.serialize_entry("command", argv)?,
        }
        map.end()
    }
}

impl<'de> Deserialize<'de> for SecretRef {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(RefVisitor)
    }
}

struct RefVisitor;

impl<'de> Visitor<'de> for RefVisitor {
    type Value = SecretRef;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("text, or { env = NAME }, { file = PATH } or { command = [ARGV] }")
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<SecretRef, E> {
        Ok(SecretRef::Text(Secret::new(text)))
    }

    fn visit_bool<E: de::Error>(self, value: bool) -> Result<SecretRef, E> {
        self.visit_str(if value { "true" } else { "false" })
    }

    fn visit_i64<E: de::Error>(self, value: i64) -> Result<SecretRef, E> {
        self.visit_str(&value.to_string())
    }

    fn visit_u64<E: de::Error>(self, value: u64) -> Result<SecretRef, E> {
        self.visit_str(&value.to_string())
    }

    fn visit_f64<E: de::Error>(self, value: f64) -> Result<SecretRef, E> {
        self.visit_str(&value.to_string())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<SecretRef, A::Error> {
        const KEYS: &[&str] = &["env", "file", "command"];
        let Some(key) = map.next_key::<String>()? else {
            return Err(de::Error::custom("expected one of env, file, command"));
        };
        let found = match key.as_str() {
            "env" => SecretRef::Env(map.next_value()?),
            "file" => SecretRef::File(map.next_value()?),
            "command" => SecretRef::Command(map.next_value()?),
            other => return Err(de::Error::unknown_field(other, KEYS)),
        };
        if let Some(second) = map.next_key::<String>()? {
            return Err(de::Error::custom(format_args!(
                "`{second}` beside `{key}`: give only one"
            )));
        }
        Ok(found)
    }
}
