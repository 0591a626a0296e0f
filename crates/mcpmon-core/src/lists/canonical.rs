//! Writes a definition so that two that mean the same are the same text.
//!
//! What a model reads, a person approves and a call must obey is kept; what is only a way of
//! writing it down is not. Three kinds of strings are told apart: names and values that a call must
//! match are copied as they are, prose is normalised, and arrays that the specification defines as
//! sets are sorted. A keyword of JSON Schema is one only where a schema can stand: a property named
//! `required` is a name, and `required` inside a `default` is data.

use std::borrow::Cow;
use std::fmt::Write as _;

use serde_json::{Map, Number, Value};
use unicode_normalization::{IsNormalized, UnicodeNormalization as _, is_nfc_quick};

use super::ListKind;

/// The fields of a definition that belong to its form, in the order in which they are written.
/// What is not among them comes and goes without changing what the item is: `_meta`, `icons`,
/// `size`.
const FIELDS: [Field; 11] = [
    Field { name: "annotations", content: Content::Annotations },
    Field { name: "arguments", content: Content::Arguments },
    Field { name: "description", content: Content::Prose },
    Field { name: "execution", content: Content::Execution },
    Field { name: "inputSchema", content: Content::Schema },
    Field { name: "mimeType", content: Content::Verbatim },
    Field { name: "name", content: Content::Verbatim },
    Field { name: "outputSchema", content: Content::Schema },
    Field { name: "title", content: Content::Prose },
    Field { name: "uri", content: Content::Verbatim },
    Field { name: "uriTemplate", content: Content::Verbatim },
];

struct Field {
    name: &'static str,
    content: Content,
}

/// What stands in a field.
#[derive(Clone, Copy)]
enum Content {
    /// Values that must be matched exactly.
    Verbatim,
    /// Text that is read.
    Prose,
    /// A JSON Schema.
    Schema,
    /// Hints about a tool, or about who should see a resource.
    Annotations,
    /// How a tool is run.
    Execution,
    /// The arguments of a prompt.
    Arguments,
}

/// How strings are written inside a value of unknown structure.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Strings {
    Verbatim,
    Prose,
}

/// A field that has a meaning when it is absent, and that meaning as JSON.
type FilledIn = (&'static str, &'static str);

/// What a tool without hints promises.
///
/// Source: MCP 2025-03-26 to 2026-07-28, `ToolAnnotations`.
const TOOL_ANNOTATIONS: [FilledIn; 4] = [
    ("destructiveHint", "true"),
    ("idempotentHint", "false"),
    ("openWorldHint", "true"),
    ("readOnlyHint", "false"),
];

/// How a tool is run that does not define it.
///
/// Source: MCP 2025-11-25, `ToolExecution`.
const TOOL_EXECUTION: [FilledIn; 1] = [("taskSupport", "\"forbidden\"")];

/// Appends the canonical form of an item to `out`.
pub(super) fn write_item(kind: ListKind, definition: &Value, out: &mut String) {
    let Value::Object(object) = definition else {
        return write_value(definition, Strings::Prose, out);
    };
    let mut list = Separated::open(out, '{');
    for Field { name, content } in FIELDS {
        // A field that is null is as good as absent.
        let value = object.get(name).filter(|value| !value.is_null());
        match (content, value) {
            (Content::Annotations, _) if kind == ListKind::Tools => {
                write_filled(value, &TOOL_ANNOTATIONS, list.key(name));
            }
            (Content::Execution, _) if kind == ListKind::Tools => {
                write_filled(value, &TOOL_EXECUTION, list.key(name));
            }
            (_, None) => {}
            (Content::Annotations, Some(value)) => write_annotations(name, value, &mut list),
            (Content::Arguments, Some(value)) => write_arguments(name, value, &mut list),
            (Content::Schema, Some(value)) => write_schema(value, list.key(name)),
            (Content::Verbatim, Some(value)) => {
                write_value(value, Strings::Verbatim, list.key(name));
            }
            (Content::Prose | Content::Execution, Some(value)) => {
                write_value(value, Strings::Prose, list.key(name));
            }
        }
    }
    list.close('}');
}

/// Writes an object with the fields it does not state, so that to state a default is no change.
fn write_filled(value: Option<&Value>, defaults: &[FilledIn], out: &mut String) {
    let stated = match value {
        None => &Map::new(),
        Some(Value::Object(stated)) => stated,
        Some(other) => return write_value(other, Strings::Prose, out),
    };
    let missing = |name: &str| stated.get(name).is_none_or(Value::is_null);
    let mut entries: Vec<(&str, Result<&Value, &str>)> = stated
        .iter()
        .filter(|(_, value)| !value.is_null())
        .map(|(name, value)| (name.as_str(), Ok(value)))
        .collect();
    let defaults = defaults.iter().filter(|(name, _)| missing(name));
    entries.extend(defaults.map(|(name, json)| (*name, Err(*json))));
    entries.sort_unstable_by_key(|(name, _)| *name);
    let mut list = Separated::open(out, '{');
    for (name, value) in entries {
        let out = list.key(name);
        match value {
            Ok(value) => write_value(value, Strings::Prose, out),
            Err(json) => out.push_str(json),
        }
    }
    list.close('}');
}

/// Writes the annotations of a prompt, resource or template. When its content was changed last is
/// no part of what it is, and whom it is for is a set.
fn write_annotations(name: &str, value: &Value, list: &mut Separated<'_>) {
    let Value::Object(object) = value else {
        return write_value(value, Strings::Prose, list.key(name));
    };
    let is_kept = |(key, value): &(&str, &Value)| *key != "lastModified" && !value.is_null();
    let mut entries = sorted(object).into_iter().filter(is_kept).peekable();
    if entries.peek().is_none() {
        return;
    }
    let mut list = Separated::open(list.key(name), '{');
    for (key, value) in entries {
        let out = list.key(key);
        match (key, value) {
            ("audience", Value::Array(items)) => write_set(items, out),
            _ => write_value(value, Strings::Prose, out),
        }
    }
    list.close('}');
}

/// Writes the arguments of a prompt, in their order: clients that offer prompts as commands fill
/// them in by position.
fn write_arguments(name: &str, value: &Value, list: &mut Separated<'_>) {
    let Value::Array(arguments) = value else {
        return write_value(value, Strings::Prose, list.key(name));
    };
    // Some SDKs write an empty list and others nothing for a prompt without arguments.
    if arguments.is_empty() {
        return;
    }
    let mut list = Separated::open(list.key(name), '[');
    for argument in arguments {
        let out = list.next();
        let Value::Object(object) = argument else {
            write_value(argument, Strings::Prose, out);
            continue;
        };
        let mut fields = Separated::open(out, '{');
        for (key, value) in sorted(object) {
            match (key, value) {
                ("_meta" | "icons", _) | (_, Value::Null) | ("required", Value::Bool(false)) => {}
                ("name", value) => write_value(value, Strings::Verbatim, fields.key(key)),
                (key, value) => write_value(value, Strings::Prose, fields.key(key)),
            }
        }
        fields.close('}');
    }
    list.close(']');
}

/// Writes a JSON Schema: of any draft, since servers use all of them.
fn write_schema(schema: &Value, out: &mut String) {
    let Value::Object(object) = schema else {
        return write_value(schema, Strings::Verbatim, out);
    };
    let mut list = Separated::open(out, '{');
    for (keyword, value) in sorted(object) {
        write_keyword(keyword, value, list.key(keyword));
    }
    list.close('}');
}

fn write_keyword(keyword: &str, value: &Value, out: &mut String) {
    match (keyword, value) {
        (
            "properties" | "patternProperties" | "$defs" | "definitions" | "dependentSchemas",
            Value::Object(schemas),
        ) => write_by_name(schemas, write_schema, out),
        (
            "additionalItems"
            | "additionalProperties"
            | "contains"
            | "contentSchema"
            | "else"
            | "if"
            | "items"
            | "not"
            | "propertyNames"
            | "then"
            | "unevaluatedItems"
            | "unevaluatedProperties",
            Value::Object(_),
        ) => write_schema(value, out),
        // In order: the place in `items` and `prefixItems` is the place in the array, and of the
        // others readers take the first that fits.
        ("allOf" | "anyOf" | "items" | "oneOf" | "prefixItems", Value::Array(schemas)) => {
            let mut list = Separated::open(out, '[');
            for schema in schemas {
                write_schema(schema, list.next());
            }
            list.close(']');
        }
        ("required" | "type", Value::Array(names)) => write_set(names, out),
        ("enum", Value::Array(values)) => write_set(values, out),
        ("dependentRequired", Value::Object(sets)) => write_by_name(sets, write_names, out),
        ("dependencies", Value::Object(either)) => write_by_name(either, write_dependency, out),
        // Values a call must match, and what points into the schema or identifies it.
        (
            "$anchor" | "$dynamicAnchor" | "$dynamicRef" | "$id" | "$recursiveRef" | "$ref"
            | "$schema" | "const" | "default" | "enum" | "example" | "examples" | "format" | "id"
            | "pattern" | "required" | "type" | "x-mcp-header",
            value,
        ) => write_value(value, Strings::Verbatim, out),
        // `title`, `description`, `$comment`, and what other vocabularies add for readers. Numbers
        // and truth values come here as well.
        (_, value) => write_value(value, Strings::Prose, out),
    }
}

/// Writes an object whose keys are names of properties, so that none of them is a keyword.
fn write_by_name(
    values: &Map<String, Value>,
    write: impl Fn(&Value, &mut String),
    out: &mut String,
) {
    let mut list = Separated::open(out, '{');
    for (name, value) in sorted(values) {
        write(value, list.key(name));
    }
    list.close('}');
}

fn write_names(value: &Value, out: &mut String) {
    match value {
        Value::Array(names) => write_set(names, out),
        other => write_value(other, Strings::Verbatim, out),
    }
}

/// Writes one of `dependencies` (drafts 3 to 7): names of properties, or a schema.
fn write_dependency(value: &Value, out: &mut String) {
    match value {
        Value::Object(_) => write_schema(value, out),
        other => write_names(other, out),
    }
}

/// Writes an array whose order and repetitions mean nothing. One that holds anything but scalars is
/// left in its order.
fn write_set(items: &[Value], out: &mut String) {
    if items.iter().any(|item| item.is_array() || item.is_object()) {
        let mut list = Separated::open(out, '[');
        for item in items {
            write_value(item, Strings::Verbatim, list.next());
        }
        return list.close(']');
    }
    // Nearly all of them hold strings only, which need no text of their own to be sorted.
    let strings: Option<Vec<&str>> = items.iter().map(Value::as_str).collect();
    let mut list = Separated::open(out, '[');
    match strings {
        Some(mut strings) => {
            strings.sort_unstable();
            strings.dedup();
            for text in strings {
                write_string(text, list.next());
            }
        }
        None => {
            let mut forms: Vec<String> = items
                .iter()
                .map(|item| {
                    let mut form = String::new();
                    write_value(item, Strings::Verbatim, &mut form);
                    form
                })
                .collect();
            forms.sort_unstable();
            forms.dedup();
            for form in forms {
                list.next().push_str(&form);
            }
        }
    }
    list.close(']');
}

/// Writes JSON with sorted keys, no spaces, and one spelling for each number.
fn write_value(value: &Value, strings: Strings, out: &mut String) {
    match value {
        Value::Object(object) => {
            let mut list = Separated::open(out, '{');
            for (key, value) in sorted(object) {
                write_value(value, strings, list.key(key));
            }
            list.close('}');
        }
        Value::Array(items) => {
            let mut list = Separated::open(out, '[');
            for item in items {
                write_value(item, strings, list.next());
            }
            list.close(']');
        }
        Value::Number(number) => write_number(number, out),
        Value::String(text) if strings == Strings::Prose => write_string(&normalized(text), out),
        Value::String(text) => write_string(text, out),
        Value::Bool(true) => out.push_str("true"),
        Value::Bool(false) => out.push_str("false"),
        Value::Null => out.push_str("null"),
    }
}

/// Not left to the map's own order, which a feature of a distant crate decides.
fn sorted(object: &Map<String, Value>) -> Vec<(&str, &Value)> {
    let mut entries: Vec<_> = object.iter().map(|(key, value)| (key.as_str(), value)).collect();
    entries.sort_unstable_by_key(|(key, _)| *key);
    entries
}

fn write_number(number: &Number, out: &mut String) {
    // Writing to a string cannot fail.
    let _ = match number.as_f64() {
        // `1.0`, `1e0` and `1` are one number, and below 2^53 a float holds it exactly.
        Some(float) if number.is_f64() && float.fract() == 0.0 && float.abs() < 9e15 => {
            // A sum with zero has no sign of its own at zero.
            write!(out, "{:.0}", float + 0.0)
        }
        _ => write!(out, "{number}"),
    };
}

/// Writes a JSON string. Any unambiguous way to escape would do; this one is JSON.
fn write_string(text: &str, out: &mut String) {
    out.push('"');
    let mut from = 0;
    for (at, byte) in text.bytes().enumerate() {
        if !matches!(byte, b'"' | b'\\' | 0..=0x1f) {
            continue;
        }
        out.push_str(&text[from..at]);
        match byte {
            b'"' => out.push_str("\\\""),
            b'\\' => out.push_str("\\\\"),
            b'\n' => out.push_str("\\n"),
            control => {
                let _ = write!(out, "\\u{control:04x}");
            }
        }
        from = at + 1;
    }
    out.push_str(&text[from..]);
    out.push('"');
}

/// White space that tools leave behind and take away again.
const WHITE_SPACE: [char; 4] = [' ', '\t', '\r', '\n'];

/// Prose as it reads: in Unicode's composed form (NFC), with `\n` as the end of a line, and without
/// white space at the end of a line or of the whole. Characters that only look like white space are
/// kept, as is everything at the beginning of a line.
pub(super) fn normalized(text: &str) -> Cow<'_, str> {
    let composed = if text.is_ascii() || is_nfc_quick(text.chars()) == IsNormalized::Yes {
        Cow::Borrowed(text)
    } else {
        Cow::Owned(text.nfc().collect())
    };
    if is_trimmed(&composed) {
        return composed;
    }
    let mut out = String::with_capacity(composed.len());
    for (number, line) in composed.trim_end_matches(WHITE_SPACE).split('\n').enumerate() {
        if number > 0 {
            out.push('\n');
        }
        out.push_str(line.trim_end_matches(WHITE_SPACE));
    }
    Cow::Owned(out)
}

fn is_trimmed(text: &str) -> bool {
    let mut before = b'\n';
    let lines_are = text.bytes().all(|byte| {
        let is_end = byte == b'\n' && matches!(before, b' ' | b'\t' | b'\r');
        before = byte;
        !is_end
    });
    lines_are && (text.is_empty() || !matches!(before, b' ' | b'\t' | b'\r' | b'\n'))
}

/// The members of an object or array, with commas between them.
struct Separated<'a> {
    out: &'a mut String,
    is_first: bool,
}

impl<'a> Separated<'a> {
    fn open(out: &'a mut String, bracket: char) -> Self {
        out.push(bracket);
        Self { out, is_first: true }
    }

    /// Begins the next member.
    fn next(&mut self) -> &mut String {
        if !std::mem::take(&mut self.is_first) {
            self.out.push(',');
        }
        self.out
    }

    /// Begins the next member of an object.
    fn key(&mut self, key: &str) -> &mut String {
        let out = self.next();
        write_string(key, out);
        out.push(':');
        out
    }

    fn close(self, bracket: char) {
        self.out.push(bracket);
    }
}
