//! Whether a schema is a JSON Schema.
//!
//! Clients hand a tool's schema to a validator, and to a model's provider that validates it too;
//! one that is none loses them the tool, or the whole list. This knows the keywords' shapes of
//! drafts 4 to 2020-12 at once and lets pass what any of them allows. It is written out because
//! what people need is the place and the reason, in a sentence.

use serde_json::{Map, Value};

/// Schemas nested deeper than this are not looked at further.
const DEEPEST: usize = 64;

/// Where a schema is none and why; `None` if it is one.
pub(super) fn breach(place: &str, schema: &Value) -> Option<String> {
    let mut path = vec![place.to_owned()];
    let reason = check(schema, schema, &mut path)?;
    Some(format!("`{}` {reason}", path.join(".")))
}

type Path = Vec<String>;

fn check(schema: &Value, root: &Value, path: &mut Path) -> Option<String> {
    if path.len() > DEEPEST {
        return None;
    }
    let object = match schema {
        Value::Bool(_) if path.len() > 1 => return None,
        Value::Object(object) => object,
        _ => return Some("is not an object".to_owned()),
    };
    for (key, value) in object {
        path.push(key.clone());
        let reason = match key.as_str() {
            "type" => of_type(value),
            "properties" | "patternProperties" | "$defs" | "definitions" | "dependentSchemas" => {
                of_schemas(value, root, path)
            }
            "items" if value.is_array() => of_array(value, root, path),
            "prefixItems" | "allOf" | "anyOf" | "oneOf" => of_array(value, root, path),
            "items"
            | "additionalProperties"
            | "additionalItems"
            | "unevaluatedProperties"
            | "unevaluatedItems"
            | "contains"
            | "propertyNames"
            | "not"
            | "if"
            | "then"
            | "else" => check(value, root, path),
            "required" => of_names(value),
            "enum" => (!value.is_array()).then(|| "is not a list".to_owned()),
            "minimum" | "maximum" | "multipleOf" => {
                (!value.is_number()).then(|| "is not a number".to_owned())
            }
            "exclusiveMinimum" | "exclusiveMaximum" => {
                (!value.is_number() && !value.is_boolean()).then(|| "is not a number".to_owned())
            }
            "minLength" | "maxLength" | "minItems" | "maxItems" | "minProperties"
            | "maxProperties" => {
                let is_count = value.as_f64().is_some_and(|n| n >= 0.0 && n.fract() == 0.0);
                (!is_count).then(|| "is not a count".to_owned())
            }
            "uniqueItems" => (!value.is_boolean()).then(|| "is not true or false".to_owned()),
            "$ref" => of_reference(value, root),
            "pattern" | "format" | "$id" | "$schema" | "$comment" | "title" | "description" => {
                (!value.is_string()).then(|| "is not a string".to_owned())
            }
            _ => None,
        };
        if reason.is_some() {
            return reason;
        }
        path.pop();
    }
    None
}

fn of_type(value: &Value) -> Option<String> {
    const TYPES: [&str; 7] = ["array", "boolean", "integer", "null", "number", "object", "string"];
    let is_type = |word: &Value| word.as_str().is_some_and(|word| TYPES.contains(&word));
    match value {
        Value::Array(words) if !words.is_empty() && words.iter().all(is_type) => None,
        word if is_type(word) => None,
        _ => Some("names no type of JSON".to_owned()),
    }
}

fn of_schemas(value: &Value, root: &Value, path: &mut Path) -> Option<String> {
    let Value::Object(schemas) = value else {
        return Some("is not an object".to_owned());
    };
    each(schemas, root, path)
}

fn each(schemas: &Map<String, Value>, root: &Value, path: &mut Path) -> Option<String> {
    for (name, schema) in schemas {
        path.push(name.clone());
        if let Some(reason) = check(schema, root, path) {
            return Some(reason);
        }
        path.pop();
    }
    None
}

fn of_array(value: &Value, root: &Value, path: &mut Path) -> Option<String> {
    let Some(schemas) = value.as_array().filter(|schemas| !schemas.is_empty()) else {
        return Some("is not a list of schemas".to_owned());
    };
    for (at, schema) in schemas.iter().enumerate() {
        path.push(at.to_string());
        if let Some(reason) = check(schema, root, path) {
            return Some(reason);
        }
        path.pop();
    }
    None
}

fn of_names(value: &Value) -> Option<String> {
    let is_names = value.as_array().is_some_and(|names| names.iter().all(Value::is_string));
    (!is_names).then(|| "is not a list of names".to_owned())
}

/// A reference into the schema itself has to lead somewhere; others are not followed.
fn of_reference(value: &Value, root: &Value) -> Option<String> {
    let Some(reference) = value.as_str() else {
        return Some("is not a string".to_owned());
    };
    let pointer = reference.strip_prefix('#').filter(|p| p.is_empty() || p.starts_with('/'))?;
    let pointer = pointer.replace("%24", "$").replace("%20", " ");
    root.pointer(&pointer).is_none().then(|| "refers to nothing".to_owned())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_any_draft_allows_is_a_schema() {
        for schema in [
            json!({}),
            json!({"type": "object", "properties": {"a": true, "b": {"type": ["string", "null"]}}}),
            json!({"type": "object", "properties": {"type": {"type": "string"}, "required": {}}}),
            json!({"$ref": "#/$defs/A", "$defs": {"A": {"items": [{"type": "number"}, {}]}}}),
            json!({"minimum": 0, "exclusiveMinimum": true, "maxLength": 10.0, "enum": [1, null]}),
            json!({"anyOf": [{"$ref": "https://example.com/s"}, {"$ref": "#named"}], "x-more": 1}),
            json!({"$schema": "https://json-schema.org/draft/2020-12/schema", "default": null}),
        ] {
            assert_eq!(breach("s", &schema), None, "{schema}");
        }
    }

    #[test]
    fn what_none_allows_is_told_with_its_place() {
        for (schema, place) in [
            (json!(null), "`s` is not an object"),
            (json!(true), "`s` is not an object"),
            (json!({"type": "str"}), "`s.type` names no type of JSON"),
            (json!({"type": []}), "`s.type` names no type of JSON"),
            (json!({"properties": []}), "`s.properties` is not an object"),
            (json!({"properties": {"a": "string"}}), "`s.properties.a` is not an object"),
            (
                json!({"properties": {"a": {"required": true}}}),
                "`s.properties.a.required` is not a list of names",
            ),
            (json!({"items": {"enum": "a"}}), "`s.items.enum` is not a list"),
            (json!({"anyOf": []}), "`s.anyOf` is not a list of schemas"),
            (json!({"anyOf": [{}, {"pattern": 1}]}), "`s.anyOf.1.pattern` is not a string"),
            (json!({"minimum": "1"}), "`s.minimum` is not a number"),
            (json!({"minItems": -1}), "`s.minItems` is not a count"),
            (json!({"description": null}), "`s.description` is not a string"),
            (json!({"items": {"$ref": "#/$defs/Gone"}}), "`s.items.$ref` refers to nothing"),
        ] {
            assert_eq!(breach("s", &schema).as_deref(), Some(place), "{schema}");
        }
    }

    #[test]
    fn a_tower_of_schemas_is_not_climbed_to_the_top() {
        let mut schema = json!({"type": 1});
        for _ in 0..100 {
            schema = json!({"not": schema});
        }
        assert_eq!(breach("s", &schema), None);
    }
}
