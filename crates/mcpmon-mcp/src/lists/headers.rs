//! What makes an `x-mcp-header` annotation one that clients refuse the whole tool for.
//!
//! Since `2026-07-28` a tool may ask that an argument is repeated as the header `Mcp-Param-NAME`
//! (SEP-2243). A name that is no header name, one given twice, or one on an argument that has no
//! plain text form makes clients leave the tool out: to their users it is gone.

use std::collections::HashSet;

use serde_json::Value;

/// The annotation.
pub(crate) const ANNOTATION: &str = "x-mcp-header";
/// Types with one text form in every language; `number` has several.
const PLAIN: [&str; 3] = ["string", "integer", "boolean"];
/// Arguments nested deeper are not looked into.
const MAX_DEPTH: usize = 32;
const MAX_NAME: usize = 100;

/// What is wrong with the annotations of a tool's arguments.
pub(super) fn breach(input_schema: &Value) -> Option<String> {
    breach_below(input_schema, &mut HashSet::new(), MAX_DEPTH)
}

fn breach_below(schema: &Value, seen: &mut HashSet<String>, depth: usize) -> Option<String> {
    let properties = schema.get("properties").and_then(Value::as_object)?;
    for (argument, property) in properties {
        if let Some(header) = property.get(ANNOTATION)
            && let Some(reason) = refusal(header, property, seen)
        {
            return Some(format!("`{ANNOTATION}` of `{argument}` {reason}"));
        }
        if let Some(deeper) = depth.checked_sub(1)
            && let Some(reason) = breach_below(property, seen, deeper)
        {
            return Some(reason);
        }
    }
    None
}

fn refusal(header: &Value, property: &Value, seen: &mut HashSet<String>) -> Option<String> {
    let Some(name) = header.as_str() else { return Some("is no text".to_owned()) };
    if !is_token(name) {
        return Some("is not the name of a header".to_owned());
    }
    if !seen.insert(name.to_ascii_lowercase()) {
        return Some(format!("names `{name}` a second time"));
    }
    match property.get("type").and_then(Value::as_str) {
        Some(kind) if !PLAIN.contains(&kind) => {
            Some(format!("is on the type `{kind}`, which has no one form as a header"))
        }
        // Without a type of its own nothing is promised, and nothing broken.
        _ => None,
    }
}

/// RFC 9110, section 5.6.2.
pub(crate) fn is_token(text: &str) -> bool {
    let allowed = |b: u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b);
    !text.is_empty() && text.len() <= MAX_NAME && text.bytes().all(allowed)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn of(properties: &Value) -> Option<String> {
        breach(&json!({"type": "object", "properties": properties}))
    }

    #[test]
    fn annotations_clients_obey_are_no_breach() {
        for good in [
            json!({"a": {"type": "string", "x-mcp-header": "Region"}}),
            json!({"a": {"type": "integer", "x-mcp-header": "A"},
                "b": {"type": "boolean", "x-mcp-header": "B"}}),
            json!({"a": {"x-mcp-header": "A"}}),
            json!({"deep": {"type": "object", "properties": {
                "a": {"type": "string", "x-mcp-header": "A"}}}}),
            json!({"x-mcp-header": {"type": "number"}}),
            json!([]),
        ] {
            assert_eq!(of(&good), None, "{good}");
        }
    }

    #[test]
    fn annotations_clients_refuse_are_told_with_their_argument() {
        let one = |kind: &str, name: Value| json!({"a": {"type": kind, "x-mcp-header": name}});
        for bad in [
            one("string", json!("")),
            one("string", json!("My Region")),
            one("string", json!("Region:Primary")),
            one("string", json!("R\u{e9}gion")),
            one("string", json!("Region\t1")),
            one("string", json!(7)),
            one("object", json!("Data")),
            one("array", json!("Items")),
            one("null", json!("Nil")),
            one("number", json!("Score")),
            json!({"b": {"type": "string", "x-mcp-header": "MyField"},
                "a": {"type": "string", "x-mcp-header": "myfield"}}),
            json!({"deep": {"type": "object", "properties": one("number", json!("Score"))}}),
        ] {
            let reason = of(&bad).unwrap_or_else(|| panic!("{bad} is accepted"));
            assert!(reason.starts_with("`x-mcp-header` of `"), "{reason}");
        }
    }
}
