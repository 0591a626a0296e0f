//! Whether a value matches a JSON Schema, within a budget.
//!
//! Schema and value both come from the server, and matching is where a few hundred bytes can ask
//! for years of work: nested `anyOf`s over references double the paths at every level, and a
//! backtracking pattern does the same to a string. So this is a matcher of our own and not a
//! library's (ADR 0036): it counts what it does and gives up in time, follows no reference out of
//! the schema, and says "cannot be judged" rather than guess. Draft 2020-12, and of draft-07 what
//! differs. `format` and `content…` are annotations, as the newer drafts have it.

use std::collections::HashMap;

use regex_lite::{Regex, RegexBuilder};
use serde_json::{Map, Value};

/// Steps after which a match is given up; a hundredth of a second's worth.
const FUEL: u32 = 200_000;
/// Schemas inside schemas, references included. Bounds the stack.
const MAX_DEPTH: u32 = 200;
/// Memory a compiled pattern may take, in bytes.
const MAX_PATTERN: usize = 256 * 1024;
/// Longest string a pattern is tried on, in bytes.
const MAX_MATCHED: usize = 64 * 1024;

/// Why a value is not known to match.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Breach {
    /// It does not: where in the value (a JSON pointer), and what is wrong there.
    Mismatch { at: String, reason: String },
    /// That cannot be told, because of the schema.
    Unjudged(String),
}

/// Matches `value` against `schema`.
pub(super) fn check(schema: &Value, value: &Value) -> Result<(), Breach> {
    let draft = schema.get("$schema").and_then(Value::as_str).unwrap_or_default();
    let old = ["draft-07", "draft-06", "draft-04"].iter().any(|name| draft.contains(name));
    let judge = Judge {
        root: schema,
        lone_references: old,
        fuel: FUEL,
        depth: 0,
        patterns: HashMap::new(),
    };
    judge.run(value)
}

type Outcome = Result<(), Breach>;

struct Judge<'a> {
    root: &'a Value,
    /// Up to draft-07 what stands beside a `$ref` is not looked at.
    lone_references: bool,
    fuel: u32,
    depth: u32,
    patterns: HashMap<&'a str, Regex>,
}

/// Where in the value: a chain on the stack, made into text only when something is wrong there.
#[derive(Clone, Copy)]
struct At<'p> {
    parent: Option<&'p At<'p>>,
    step: Step<'p>,
}

#[derive(Clone, Copy)]
enum Step<'p> {
    Root,
    Key(&'p str),
    Index(usize),
}

impl<'p> At<'p> {
    const ROOT: At<'static> = At { parent: None, step: Step::Root };

    fn key(&'p self, key: &'p str) -> At<'p> {
        At { parent: Some(self), step: Step::Key(key) }
    }

    fn index(&'p self, index: usize) -> At<'p> {
        At { parent: Some(self), step: Step::Index(index) }
    }

    fn pointer(&self) -> String {
        let mut text = self.parent.map(At::pointer).unwrap_or_default();
        match self.step {
            Step::Root => {}
            Step::Key(key) => {
                text.push('/');
                text.push_str(&key.replace('~', "~0").replace('/', "~1"));
            }
            Step::Index(index) => text.push_str(&format!("/{index}")),
        }
        text
    }

    fn fails(&self, reason: impl Into<String>) -> Breach {
        Breach::Mismatch { at: self.pointer(), reason: reason.into() }
    }
}

fn unjudged(reason: impl Into<String>) -> Breach {
    Breach::Unjudged(reason.into())
}

impl<'a> Judge<'a> {
    fn run(mut self, value: &Value) -> Outcome {
        self.schema(self.root, value, &At::ROOT)
    }

    fn burn(&mut self, steps: usize) -> Outcome {
        let steps = u32::try_from(steps).unwrap_or(u32::MAX);
        match self.fuel.checked_sub(steps) {
            Some(left) => {
                self.fuel = left;
                Ok(())
            }
            None => Err(unjudged("it takes too many steps to match")),
        }
    }

    fn schema(&mut self, schema: &'a Value, value: &Value, at: &At<'_>) -> Outcome {
        self.burn(1)?;
        if self.depth == MAX_DEPTH {
            return Err(unjudged("its references go round, or too deep"));
        }
        self.depth += 1;
        let outcome = match schema {
            Value::Bool(true) => Ok(()),
            Value::Bool(false) => Err(at.fails("nothing may be here")),
            Value::Object(keywords) => self.keywords(keywords, value, at),
            _ => Err(unjudged("a part of it is neither an object nor a truth value")),
        };
        self.depth -= 1;
        outcome
    }

    fn keywords(&mut self, schema: &'a Map<String, Value>, value: &Value, at: &At<'_>) -> Outcome {
        self.burn(schema.len())?;
        for keyword in ["$dynamicRef", "$recursiveRef", "unevaluatedProperties", "unevaluatedItems"]
        {
            if schema.get(keyword).is_some_and(|said| *said != Value::Bool(true)) {
                return Err(unjudged(format!("it uses `{keyword}`")));
            }
        }
        if let Some(reference) = schema.get("$ref") {
            self.schema(self.resolve(reference)?, value, at)?;
            if self.lone_references {
                return Ok(());
            }
        }
        self.general(schema, value, at)?;
        self.combined(schema, value, at)?;
        match value {
            Value::Object(object) => self.object(schema, object, at),
            Value::Array(items) => self.array(schema, items, at),
            Value::String(text) => self.string(schema, text, at),
            Value::Number(number) => number_fits(schema, number.as_f64().unwrap_or(f64::NAN))
                .map_err(|why| at.fails(why)),
            Value::Null | Value::Bool(_) => Ok(()),
        }
    }

    fn resolve(&self, reference: &Value) -> Result<&'a Value, Breach> {
        let text = reference.as_str().ok_or_else(|| unjudged("a `$ref` of it is no text"))?;
        let refused = || unjudged(format!("its `$ref` `{text}` leads out of it or nowhere"));
        let fragment = text.strip_prefix('#').ok_or_else(refused)?;
        if fragment.is_empty() || fragment.starts_with('/') {
            let decoded = percent_decoded(fragment).ok_or_else(refused)?;
            return self.root.pointer(&decoded).ok_or_else(refused);
        }
        let definitions = ["$defs", "definitions"].into_iter().filter_map(|key| self.root.get(key));
        definitions
            .filter_map(Value::as_object)
            .flat_map(Map::values)
            .find(|schema| schema.get("$anchor").and_then(Value::as_str) == Some(fragment))
            .ok_or_else(refused)
    }

    fn general(&mut self, schema: &'a Map<String, Value>, value: &Value, at: &At<'_>) -> Outcome {
        if let Some(wanted) = schema.get("type") {
            let fits = match wanted {
                Value::String(name) => is_of_type(value, name),
                Value::Array(names) => {
                    names.iter().filter_map(Value::as_str).any(|name| is_of_type(value, name))
                }
                _ => return Err(unjudged("a `type` of it is neither a name nor a list")),
            };
            if !fits {
                return Err(at.fails(format!("it is {}, not {wanted}", type_of(value))));
            }
        }
        if let Some(Value::Array(choices)) = schema.get("enum") {
            let mut found = false;
            for choice in choices {
                found = found || self.equal(choice, value)?;
            }
            if !found {
                return Err(at.fails("it is none of the values of `enum`"));
            }
        }
        match schema.get("const") {
            Some(only) if !self.equal(only, value)? => {
                Err(at.fails("it is not the value of `const`"))
            }
            _ => Ok(()),
        }
    }

    /// Equality as JSON Schema means it: `1` and `1.0` are one number.
    fn equal(&mut self, a: &Value, b: &Value) -> Result<bool, Breach> {
        self.burn(1)?;
        Ok(match (a, b) {
            (Value::Number(a), Value::Number(b)) => a == b || a.as_f64() == b.as_f64(),
            (Value::Array(a), Value::Array(b)) => {
                if a.len() != b.len() {
                    return Ok(false);
                }
                for (a, b) in a.iter().zip(b) {
                    if !self.equal(a, b)? {
                        return Ok(false);
                    }
                }
                true
            }
            (Value::Object(a), Value::Object(b)) => {
                if a.len() != b.len() {
                    return Ok(false);
                }
                for (key, a) in a {
                    match b.get(key) {
                        Some(b) if self.equal(a, b)? => {}
                        _ => return Ok(false),
                    }
                }
                true
            }
            (Value::String(a), Value::String(b)) => {
                self.burn(a.len() / 64)?;
                a == b
            }
            (a, b) => a == b,
        })
    }

    /// Whether it matches; only what cannot be judged is an error.
    fn matches(&mut self, schema: &'a Value, value: &Value, at: &At<'_>) -> Result<bool, Breach> {
        match self.schema(schema, value, at) {
            Ok(()) => Ok(true),
            Err(Breach::Mismatch { .. }) => Ok(false),
            Err(unjudged) => Err(unjudged),
        }
    }

    fn count(&mut self, schemas: &'a [Value], value: &Value, at: &At<'_>) -> Result<usize, Breach> {
        let mut count = 0;
        for schema in schemas {
            count += usize::from(self.matches(schema, value, at)?);
        }
        Ok(count)
    }

    fn combined(&mut self, schema: &'a Map<String, Value>, value: &Value, at: &At<'_>) -> Outcome {
        if let Some(Value::Array(all)) = schema.get("allOf") {
            for part in all {
                self.schema(part, value, at)?;
            }
        }
        if let Some(Value::Array(any)) = schema.get("anyOf")
            && self.count(any, value, at)? == 0
        {
            return Err(at.fails("it matches no schema of `anyOf`"));
        }
        if let Some(Value::Array(one)) = schema.get("oneOf") {
            let count = self.count(one, value, at)?;
            if count != 1 {
                return Err(at.fails(format!("it matches {count} schemas of `oneOf`, not one")));
            }
        }
        if let Some(not) = schema.get("not")
            && self.matches(not, value, at)?
        {
            return Err(at.fails("it matches the schema of `not`"));
        }
        if let Some(condition) = schema.get("if") {
            let branch = if self.matches(condition, value, at)? { "then" } else { "else" };
            if let Some(branch) = schema.get(branch) {
                self.schema(branch, value, at)?;
            }
        }
        Ok(())
    }

    fn object(
        &mut self,
        schema: &'a Map<String, Value>,
        object: &Map<String, Value>,
        at: &At<'_>,
    ) -> Outcome {
        counted(schema, "Properties", "members", object.len()).map_err(|why| at.fails(why))?;
        if let Some(Value::Array(required)) = schema.get("required") {
            self.burn(required.len())?;
            let missing =
                required.iter().filter_map(Value::as_str).find(|n| !object.contains_key(*n));
            if let Some(name) = missing {
                return Err(at.fails(format!("`{name}` is missing")));
            }
        }
        let named = schema.get("properties").and_then(Value::as_object);
        let patterns = schema.get("patternProperties").and_then(Value::as_object);
        for (key, member) in object {
            let at = at.key(key);
            self.burn(1)?;
            let mut is_named = false;
            if let Some(schema) = named.and_then(|named| named.get(key)) {
                is_named = true;
                self.schema(schema, member, &at)?;
            }
            for (pattern, schema) in patterns.into_iter().flatten() {
                if self.pattern(pattern, key)? {
                    is_named = true;
                    self.schema(schema, member, &at)?;
                }
            }
            if !is_named && let Some(schema) = schema.get("additionalProperties") {
                self.schema(schema, member, &at)?;
            }
            if let Some(schema) = schema.get("propertyNames") {
                self.schema(schema, &Value::String(key.clone()), &at)?;
            }
        }
        self.dependents(schema, object, at)
    }

    fn dependents(
        &mut self,
        schema: &'a Map<String, Value>,
        object: &Map<String, Value>,
        at: &At<'_>,
    ) -> Outcome {
        let keywords = ["dependentRequired", "dependentSchemas", "dependencies"];
        for table in keywords.iter().filter_map(|keyword| schema.get(*keyword)?.as_object()) {
            for (key, needed) in table.iter().filter(|(key, _)| object.contains_key(*key)) {
                match needed {
                    Value::Array(names) => {
                        self.burn(names.len())?;
                        let mut names = names.iter().filter_map(Value::as_str);
                        if let Some(name) = names.find(|name| !object.contains_key(*name)) {
                            return Err(at.fails(format!("`{name}` is missing beside `{key}`")));
                        }
                    }
                    needed => {
                        // The members were counted; the object as a value is what is matched.
                        self.burn(object.len())?;
                        self.schema(needed, &Value::Object(object.clone()), at)?;
                    }
                }
            }
        }
        Ok(())
    }

    fn array(&mut self, schema: &'a Map<String, Value>, items: &[Value], at: &At<'_>) -> Outcome {
        counted(schema, "Items", "items", items.len()).map_err(|why| at.fails(why))?;
        // Up to draft-07 a tuple is `items` as a list, and the rest `additionalItems`.
        let (tuple, rest) = match (schema.get("prefixItems"), schema.get("items")) {
            (Some(Value::Array(tuple)), rest) => (tuple.as_slice(), rest),
            (_, Some(Value::Array(tuple))) => (tuple.as_slice(), schema.get("additionalItems")),
            (_, rest) => (&[][..], rest),
        };
        for (index, item) in items.iter().enumerate() {
            if let Some(schema) = tuple.get(index).or(rest) {
                self.schema(schema, item, &at.index(index))?;
            }
        }
        if let Some(wanted) = schema.get("contains") {
            let mut count = 0_u64;
            for (index, item) in items.iter().enumerate() {
                count += u64::from(self.matches(wanted, item, &at.index(index))?);
            }
            let bound = |key: &str| schema.get(key).and_then(Value::as_u64);
            let (least, most) = (bound("minContains").unwrap_or(1), bound("maxContains"));
            if count < least || most.is_some_and(|most| count > most) {
                return Err(at.fails(format!("{count} items match the schema of `contains`")));
            }
        }
        if schema.get("uniqueItems") == Some(&Value::Bool(true)) {
            for (index, item) in items.iter().enumerate() {
                for earlier in &items[..index] {
                    if self.equal(earlier, item)? {
                        return Err(at.index(index).fails("it is there twice"));
                    }
                }
            }
        }
        Ok(())
    }

    fn string(&mut self, schema: &'a Map<String, Value>, text: &str, at: &At<'_>) -> Outcome {
        if schema.contains_key("minLength") || schema.contains_key("maxLength") {
            self.burn(text.len() / 64)?;
            let length = text.chars().count();
            counted(schema, "Length", "characters", length).map_err(|why| at.fails(why))?;
        }
        match schema.get("pattern").and_then(Value::as_str) {
            Some(pattern) if !self.pattern(pattern, text)? => {
                Err(at.fails(format!("it does not match the pattern `{pattern}`")))
            }
            _ => Ok(()),
        }
    }

    fn pattern(&mut self, pattern: &'a str, text: &str) -> Result<bool, Breach> {
        if text.len() > MAX_MATCHED {
            return Err(unjudged("a string is too long for its pattern"));
        }
        self.burn(1 + text.len() / 16)?;
        if !self.patterns.contains_key(pattern) {
            self.burn(100 + pattern.len())?;
            let built = RegexBuilder::new(pattern).size_limit(MAX_PATTERN).build();
            let regex =
                built.map_err(|_| unjudged(format!("its pattern `{pattern}` cannot be used")))?;
            self.patterns.insert(pattern, regex);
        }
        Ok(self.patterns.get(pattern).is_some_and(|regex| regex.is_match(text)))
    }
}

fn is_of_type(value: &Value, name: &str) -> bool {
    match name {
        "integer" => {
            value.is_i64() || value.is_u64() || value.as_f64().is_some_and(|n| n.fract() == 0.0)
        }
        name => type_of(value) == name,
    }
}

fn type_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

/// `min…` and `max…` of what can be counted.
fn counted(
    schema: &Map<String, Value>,
    what: &str,
    word: &str,
    count: usize,
) -> Result<(), String> {
    let bound = |prefix: &str| schema.get(&format!("{prefix}{what}")).and_then(Value::as_f64);
    let number = count as f64;
    let out = bound("min").is_some_and(|min| number < min)
        || bound("max").is_some_and(|max| number > max);
    if out { Err(format!("it has {count} {word}, out of the schema's bounds")) } else { Ok(()) }
}

fn number_fits(schema: &Map<String, Value>, number: f64) -> Result<(), String> {
    let bound = |key: &str| schema.get(key).and_then(Value::as_f64);
    // In draft-04 the exclusive ones are truth values that sharpen the others.
    let sharp = |key: &str| schema.get(key) == Some(&Value::Bool(true));
    let (min, max) = (bound("minimum"), bound("maximum"));
    let low = min.is_some_and(|min| number < min || (number == min && sharp("exclusiveMinimum")))
        || bound("exclusiveMinimum").is_some_and(|min| number <= min);
    let high = max.is_some_and(|max| number > max || (number == max && sharp("exclusiveMaximum")))
        || bound("exclusiveMaximum").is_some_and(|max| number >= max);
    if low || high {
        return Err(format!("{number} is out of the schema's bounds"));
    }
    match bound("multipleOf") {
        Some(unit) if unit > 0.0 => {
            let share = number / unit;
            let off = (share - share.round()).abs();
            // 0.3 is a multiple of 0.1, though not in binary.
            if off > 1e-9 * share.abs().max(1.0) {
                return Err(format!("{number} is no multiple of {unit}"));
            }
            Ok(())
        }
        _ => Ok(()),
    }
}

fn percent_decoded(text: &str) -> Option<String> {
    if !text.contains('%') {
        return Some(text.to_owned());
    }
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&byte, after)) = rest.split_first() {
        rest = after;
        if byte != b'%' {
            bytes.push(byte);
            continue;
        }
        let (digits, after) = rest.split_at_checked(2)?;
        bytes.push(u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()?);
        rest = after;
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
#[path = "schema_tests.rs"]
mod tests;
