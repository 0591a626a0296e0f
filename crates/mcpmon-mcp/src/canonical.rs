//! One hash for equal lists, whatever order, spacing or key order they came in.

use serde_json::{Number, Value};
use sha2::{Digest, Sha256};

/// What of a definition makes it what it is: what a model reads and what a call must obey. Fields
/// that come and go (`_meta`, icons, timestamps) do not.
const FIELDS: [&str; 10] = [
    "annotations",
    "arguments",
    "description",
    "inputSchema",
    "mimeType",
    "name",
    "outputSchema",
    "title",
    "uri",
    "uriTemplate",
];

/// The canonical form of one listed item, with its name before it, by which items are ordered.
pub type Form = (String, String);

/// The canonical form of an item.
pub fn form(name: &str, definition: &Value) -> Form {
    let mut form = String::new();
    write_item(definition, &mut form);
    (name.to_owned(), form)
}

/// SHA-256, in hexadecimal, over the canonical form of all lists of a service: tools, prompts and
/// resources.
pub fn hash(mut lists: [Vec<Form>; 3]) -> String {
    let mut hasher = Sha256::new();
    for (kind, forms) in ["tools", "prompts", "resources"].into_iter().zip(&mut lists) {
        hasher.update(kind);
        hasher.update("\n");
        forms.sort_unstable();
        for (_, form) in forms {
            hasher.update(form.as_bytes());
            hasher.update("\n");
        }
    }
    let digest = hasher.finalize();
    digest.iter().fold(String::with_capacity(64), |mut hex, byte| {
        const DIGITS: &[u8; 16] = b"0123456789abcdef";
        hex.push(char::from(DIGITS[usize::from(byte >> 4)]));
        hex.push(char::from(DIGITS[usize::from(byte & 15)]));
        hex
    })
}

fn write_item(definition: &Value, out: &mut String) {
    let Value::Object(object) = definition else {
        return write(definition, out);
    };
    out.push('{');
    for field in FIELDS {
        // A field that is null is as good as absent.
        if let Some(value) = object.get(field).filter(|value| !value.is_null()) {
            out.push('"');
            out.push_str(field);
            out.push_str("\":");
            write(value, out);
            out.push(',');
        }
    }
    out.push('}');
}

/// JSON with sorted keys, no spaces, and one spelling for each number.
fn write(value: &Value, out: &mut String) {
    match value {
        Value::Object(object) => {
            // Not left to the map's own order, which a feature of a distant crate decides.
            let mut keys: Vec<&String> = object.keys().collect();
            keys.sort_unstable();
            out.push('{');
            for (n, key) in keys.into_iter().enumerate() {
                if n > 0 {
                    out.push(',');
                }
                write(&Value::from(key.as_str()), out);
                out.push(':');
                write(&object[key], out);
            }
            out.push('}');
        }
        Value::Array(items) => {
            out.push('[');
            for (n, item) in items.iter().enumerate() {
                if n > 0 {
                    out.push(',');
                }
                write(item, out);
            }
            out.push(']');
        }
        Value::Number(number) => out.push_str(&spell(number)),
        Value::String(_) | Value::Bool(_) | Value::Null => out.push_str(&value.to_string()),
    }
}

fn spell(number: &Number) -> String {
    match number.as_f64() {
        // `1.0`, `1e0` and `1` are one number, and below 2^53 a float holds it exactly.
        Some(float) if number.is_f64() && float.fract() == 0.0 && float.abs() < 9e15 => {
            format!("{float:.0}")
        }
        _ => number.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn forms(values: &[Value]) -> Vec<Form> {
        let name = |value: &Value| value["name"].as_str().unwrap_or_default().to_owned();
        values.iter().map(|value| form(&name(value), value)).collect()
    }

    fn of_tools(values: &[Value]) -> String {
        hash([forms(values), Vec::new(), Vec::new()])
    }

    #[test]
    fn order_spacing_and_number_spelling_do_not_matter() {
        let a = json!({"name": "a", "inputSchema": {"type": "object", "maximum": 10}});
        let b = json!({"name": "b", "description": "x"});
        let a_again: Value = serde_json::from_str(
            r#"{ "inputSchema": {"maximum": 1e1, "type": "object"}, "_meta": {"t": 1}, "name": "a" }"#,
        )
        .unwrap();
        let first = of_tools(&[a, b.clone()]);
        assert_eq!(first, of_tools(&[b, a_again]));
        assert_eq!(first.len(), 64);
    }

    #[test]
    fn what_a_model_reads_matters() {
        let base = json!({"name": "a", "description": "x", "annotations": {"readOnlyHint": true}});
        let mut hashes = vec![of_tools(std::slice::from_ref(&base))];
        for (field, value) in [
            ("description", json!("y")),
            ("title", json!("T")),
            ("annotations", json!({"readOnlyHint": false})),
            ("inputSchema", json!({"type": "object"})),
            ("outputSchema", json!({})),
        ] {
            let mut changed = base.clone();
            changed[field] = value;
            hashes.push(of_tools(&[changed]));
        }
        hashes.push(hash([Vec::new(), forms(&[base]), Vec::new()]));
        let distinct: std::collections::BTreeSet<_> = hashes.iter().collect();
        assert_eq!(distinct.len(), hashes.len());
    }
}
