//! Secrets stay in memory: [`Secret`] hides itself, and [`Redactor`] takes secrets out of text by
//! value, in every encoding they are likely to come back in.

use std::fmt;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD, URL_SAFE, URL_SAFE_NO_PAD};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// What stands where a secret was.
pub const REDACTED: &str = "***";

/// A configured value nobody but its receiver may see: `Debug`, `Display` and serialization give
/// [`REDACTED`]. Comparing and hashing are by value, so that a changed secret is a changed service.
#[derive(Clone, PartialEq, Eq, Hash, Default)]
pub struct Secret(Arc<str>);

impl Secret {
    /// Hides `value`.
    pub fn new(value: impl Into<Arc<str>>) -> Self {
        Self(value.into())
    }

    /// The value itself. Give it to nothing but the far side it is meant for.
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// Whether there is nothing in it.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(REDACTED)
    }
}

impl fmt::Display for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(REDACTED)
    }
}

impl Serialize for Secret {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(REDACTED)
    }
}

impl<'de> Deserialize<'de> for Secret {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer).map(Self::new)
    }
}

/// Takes known secrets out of text before any sink sees it.
///
/// Looks for each value as it is, base64 (both alphabets, at each of the three offsets inside a
/// longer encoded text), hexadecimal, percent-encoded, JSON-escaped and HTML-escaped. Values
/// shorter than [`Redactor::SHORTEST`] are left alone: replacing every `1` in a message would
/// destroy it and hide nothing.
#[derive(Clone, Default)]
pub struct Redactor {
    /// Longest first, so that a secret inside another does not leave half of it behind.
    needles: Arc<Vec<String>>,
}

impl fmt::Debug for Redactor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Redactor").field("needles", &self.needles.len()).finish()
    }
}

impl Redactor {
    /// Values with fewer bytes than this are not looked for.
    pub const SHORTEST: usize = 6;

    /// A redactor for these values and their encoded forms.
    pub fn new<'a>(secrets: impl IntoIterator<Item = &'a Secret>) -> Self {
        let mut needles = Vec::new();
        for secret in secrets {
            let value = secret.expose();
            // `Bearer abc` is configured as one header value; the token alone is the secret too.
            let token = value.split_once(' ').map(|(_, token)| token.trim());
            for part in [Some(value), token].into_iter().flatten() {
                if part.len() >= Self::SHORTEST {
                    add_forms(part, &mut needles);
                }
            }
        }
        needles.sort_by(|a, b| b.len().cmp(&a.len()).then_with(|| a.cmp(b)));
        needles.dedup();
        Self { needles: Arc::new(needles) }
    }

    /// The text with every secret replaced by [`REDACTED`].
    pub fn redact(&self, text: &str) -> String {
        let mut out = text.to_owned();
        for needle in self.needles.iter() {
            if out.contains(needle.as_str()) {
                out = out.replace(needle.as_str(), REDACTED);
            }
        }
        out
    }

    /// Whether a secret is in the text, as it is or encoded.
    pub fn finds(&self, text: &str) -> bool {
        self.needles.iter().any(|needle| text.contains(needle.as_str()))
    }

    /// Redacts every string and number inside a JSON value, keys too.
    pub fn redact_json(&self, value: &mut serde_json::Value) {
        use serde_json::Value;
        match value {
            Value::String(text) => *text = self.redact(text),
            Value::Array(items) => items.iter_mut().for_each(|item| self.redact_json(item)),
            Value::Object(map) => {
                let entries = std::mem::take(map);
                for (key, mut item) in entries {
                    self.redact_json(&mut item);
                    map.insert(self.redact(&key), item);
                }
            }
            Value::Number(number) if self.finds(&number.to_string()) => {
                *value = Value::from(REDACTED);
            }
            Value::Null | Value::Bool(_) | Value::Number(_) => {}
        }
    }

    /// Whether there is nothing to look for.
    pub fn is_empty(&self) -> bool {
        self.needles.is_empty()
    }
}

fn json_escaped(text: &str) -> String {
    let json = serde_json::Value::from(text).to_string();
    json[1..json.len() - 1].to_owned()
}

fn add_forms(value: &str, needles: &mut Vec<String>) {
    let json = json_escaped(value);
    // Some encoders escape the slash too.
    let slashed = json.replace('/', "\\/");
    for form in [value.to_owned(), json, slashed, crate::text::for_html(value)] {
        // An error that wraps another server's JSON has it escaped once more.
        needles.push(json_escaped(&form));
        needles.push(form);
    }
    let bytes = value.as_bytes();
    needles.push(bytes.iter().map(|byte| format!("{byte:02x}")).collect());
    needles.push(bytes.iter().map(|byte| format!("{byte:02X}")).collect());
    for engine in [&STANDARD, &STANDARD_NO_PAD, &URL_SAFE, &URL_SAFE_NO_PAD] {
        needles.push(engine.encode(bytes));
    }
    // Inside a longer encoded text the value starts at one of three offsets; what is left of it
    // after cutting the characters shared with its neighbours is still long enough to betray it.
    for offset in 0..3_usize {
        for engine in [&STANDARD_NO_PAD, &URL_SAFE_NO_PAD] {
            let mut padded = vec![0_u8; offset];
            padded.extend_from_slice(bytes);
            let encoded = engine.encode(&padded);
            let skip = if offset == 0 { 0 } else { offset + 1 };
            let keep = encoded.len() - usize::from(!padded.len().is_multiple_of(3));
            if keep > skip + Redactor::SHORTEST {
                needles.push(encoded[skip..keep].to_owned());
            }
        }
    }
    for upper in [true, false] {
        let mut encoded = String::new();
        for byte in bytes {
            match byte {
                b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => {
                    encoded.push(char::from(*byte));
                }
                _ if upper => encoded.push_str(&format!("%{byte:02X}")),
                _ => encoded.push_str(&format!("%{byte:02x}")),
            }
        }
        needles.push(encoded);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CANARY: &str = "s3cr3t/canary+\"value\"";

    #[test]
    fn a_secret_hides_itself() {
        let secret = Secret::new(CANARY);
        assert_eq!(format!("{secret:?} {secret}"), "*** ***");
        assert_eq!(serde_json::to_string(&secret).unwrap(), "\"***\"");
        assert_eq!(secret.expose(), CANARY);
    }

    #[test]
    fn is_found_in_every_encoding() {
        let redactor = Redactor::new([&Secret::new(CANARY)]);
        let forms = [
            CANARY.to_owned(),
            STANDARD.encode(CANARY),
            URL_SAFE_NO_PAD.encode(CANARY),
            STANDARD.encode(format!("user:{CANARY}")),
            STANDARD.encode(format!("me:{CANARY} and more")),
            STANDARD.encode(format!("x:{CANARY}")),
            serde_json::to_string(&CANARY).unwrap(),
            "s3cr3t%2Fcanary%2B%22value%22".to_owned(),
            "s3cr3t%2fcanary%2b%22value%22".to_owned(),
            r#"s3cr3t\/canary+\"value\""#.to_owned(),
            r#"s3cr3t/canary+\\\"value\\\""#.to_owned(),
            "s3cr3t/canary+&quot;value&quot;".to_owned(),
            "7333637233742f63616e6172792b2276616c756522".to_owned(),
            "7333637233742F63616E6172792B2276616C756522".to_owned(),
        ];
        for form in forms {
            let out = redactor.redact(&format!("before {form} after"));
            assert!(out.contains(REDACTED), "{form} was left in {out}");
            assert!(out.starts_with("before ") && out.ends_with(" after"), "{out}");
        }
    }

    #[test]
    fn the_token_of_a_bearer_header_is_a_secret_of_its_own() {
        let redactor = Redactor::new([&Secret::new("Bearer tok-12345")]);
        assert_eq!(redactor.redact("got tok-12345!"), "got ***!");
    }

    #[test]
    fn short_values_do_not_eat_the_text() {
        let redactor = Redactor::new([&Secret::new("1"), &Secret::new("")]);
        assert_eq!(redactor.redact("exit 1"), "exit 1");
    }

    #[test]
    fn json_is_redacted_in_keys_and_values() {
        let redactor = Redactor::new([&Secret::new("hunter22")]);
        let mut value = serde_json::json!({ "hunter22": ["a hunter22 b"] });
        redactor.redact_json(&mut value);
        assert_eq!(value, serde_json::json!({ "***": ["a *** b"] }));
    }

    #[test]
    fn a_number_that_is_a_secret_is_redacted_and_others_stay() {
        let redactor = Redactor::new([&Secret::new("31415926")]);
        let mut value = serde_json::json!([31_415_926, 314, true]);
        redactor.redact_json(&mut value);
        assert_eq!(value, serde_json::json!(["***", 314, true]));
    }
}
