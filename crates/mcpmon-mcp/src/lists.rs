//! Reads tools, prompts and resources to the end, and says what is wrong with them.
//!
//! A list is a server's word for what it offers, so it is read whole or not at all: half a list
//! would look like a change. Pages, items and bytes are capped, and a cursor seen twice ends it.
//!
//! Asking is in `pages`; what pages mean is here, what makes a schema one in `schema` and an
//! annotation in `headers`, what texts give away in `suspicious`, what a model pays in `cost`.

mod cost;
pub(crate) mod headers;
mod pages;
mod schema;
pub(crate) mod suspicious;

use std::borrow::Cow;
use std::collections::{BTreeSet, HashSet};
use std::time::Duration;

use mcpmon_core::failure::{FailureCode, Finding, FindingCode, Phase};
use mcpmon_core::observation::{Definition, ListedItem, Lists};
use mcpmon_core::secret::Redactor;
use mcpmon_core::status::Era;
use mcpmon_core::text::{MAX_TEXT, truncate};
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::value::RawValue;
use serde_json::{Value, json};

pub use self::cost::TOOL_LIST_BUDGET;
pub(crate) use self::pages::Known;
use self::suspicious::Suspicions;
use crate::canonical::{self, Form};
use crate::error::{CallError, EXCERPT, excerpt, redact_finding};
use crate::jsonrpc::Elements;
use crate::protocol::{ModernMarks, methods};

/// Most pages of one list.
pub const MAX_PAGES: usize = 200;
/// Most items of one list.
pub const MAX_ITEMS: usize = 10_000;
/// Longest time a `ttlMs` is believed for.
pub const MAX_TTL: Duration = Duration::from_secs(3_600);
/// Largest definition kept whole, in bytes as it came.
const MAX_DEFINITION: usize = 64 * 1024;
/// Names quoted in a finding.
const QUOTED: usize = 10;

/// Every list of a service, and what is odd about them.
#[derive(Debug, Clone, PartialEq)]
pub struct Reading {
    /// The lists.
    pub lists: Lists,
    /// What is odd about them. Holds until they are read again.
    pub findings: Vec<Finding>,
    /// How long the server says they stay good, bounded by [`MAX_TTL`].
    pub ttl: Option<Duration>,
    /// What the tools cost a model that is given them, in tokens; an estimate.
    pub tool_tokens: u64,
}

/// One of the three lists.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Tools,
    Prompts,
    Resources,
}

impl Kind {
    const fn method(self) -> &'static str {
        match self {
            Self::Tools => methods::TOOLS_LIST,
            Self::Prompts => methods::PROMPTS_LIST,
            Self::Resources => methods::RESOURCES_LIST,
        }
    }

    const fn word(self) -> &'static str {
        match self {
            Self::Tools => "tools",
            Self::Prompts => "prompts",
            Self::Resources => "resources",
        }
    }

    const fn item(self) -> &'static str {
        match self {
            Self::Tools => "tool",
            Self::Prompts => "prompt",
            Self::Resources => "resource",
        }
    }

    /// The field an item is known by.
    const fn key(self) -> &'static str {
        match self {
            Self::Tools | Self::Prompts => "name",
            Self::Resources => "uri",
        }
    }
}

#[derive(Deserialize)]
#[serde(bound(deserialize = "'de: 'a"))]
struct Page<'a> {
    #[serde(default)]
    tools: Option<Elements<'a, MAX_ITEMS>>,
    #[serde(default)]
    prompts: Option<Elements<'a, MAX_ITEMS>>,
    #[serde(default)]
    resources: Option<Elements<'a, MAX_ITEMS>>,
    #[serde(rename = "nextCursor", default)]
    next_cursor: Option<String>,
    #[serde(rename = "resultType", default)]
    result_type: Option<Value>,
    #[serde(rename = "ttlMs", default)]
    ttl_ms: Option<Value>,
    #[serde(rename = "cacheScope", default)]
    cache_scope: Option<IgnoredAny>,
}

impl<'a> Page<'a> {
    fn take_marks(&mut self) -> ModernMarks {
        ModernMarks {
            result_type: self.result_type.take(),
            ttl_ms: self.ttl_ms.take(),
            cache_scope: self.cache_scope.take(),
        }
    }

    fn into_items(self, kind: Kind) -> Option<Vec<&'a RawValue>> {
        let items = match kind {
            Kind::Tools => self.tools,
            Kind::Prompts => self.prompts,
            Kind::Resources => self.resources,
        };
        items.map(|items| items.0)
    }
}

/// Lists while their pages are taken apart.
#[derive(Debug)]
struct Assembly {
    era: Era,
    redactor: Redactor,
    lists: Lists,
    /// By kind, what the hash is made of.
    forms: [Vec<Form>; 3],
    notes: Notes,
}

impl Assembly {
    fn new(era: Era, redactor: Redactor) -> Self {
        Self {
            era,
            redactor,
            lists: Lists::default(),
            forms: Default::default(),
            notes: Notes::default(),
        }
    }

    /// Takes the items of one page, and gives the cursor of the next.
    fn take_page(&mut self, kind: Kind, result: &RawValue) -> Result<Option<String>, CallError> {
        let method = kind.method();
        let error = |code, text| CallError::new(code, Phase::List, text).redacted(&self.redactor);
        let out_of_shape = |reason: String| {
            let text = format!("the result of `{method}` is out of shape: {reason}");
            CallError::new(FailureCode::InvalidMessage, Phase::List, text)
                .with_excerpt(result.get().as_bytes())
                .redacted(&self.redactor)
        };
        let mut page: Page<'_> =
            serde_json::from_str(result.get()).map_err(|error| out_of_shape(error.to_string()))?;
        if self.era == Era::Modern {
            let marks = page.take_marks();
            if marks.wants_input() {
                let text = format!("`{method}` wants input from a user");
                return Err(error(FailureCode::InputRequired, text));
            }
            self.notes.marks(kind, &marks);
        }
        let next = page.next_cursor.take();
        let page =
            page.into_items(kind).ok_or_else(|| out_of_shape(format!("no `{}`", kind.word())))?;
        let items = match kind {
            Kind::Tools => &mut self.lists.tools,
            Kind::Prompts => &mut self.lists.prompts,
            Kind::Resources => &mut self.lists.resources,
        };
        if items.len() + page.len() > MAX_ITEMS {
            let text = format!("`{method}` has more than {MAX_ITEMS} items");
            return Err(error(FailureCode::EndlessList, text));
        }
        for raw in page {
            if let Some((item, form)) =
                read_item(kind, self.era, raw, &self.redactor, &mut self.notes)
            {
                items.push(item);
                self.forms[kind as usize].push(form);
            }
        }
        Ok(next)
    }

    fn finish(self) -> Reading {
        let Self { redactor, mut lists, mut notes, forms, .. } = self;
        lists.hash = canonical::hash(forms);
        notes.duplicates(&lists.tools);
        let (ttl, tool_tokens) = (notes.ttl, notes.tokens);
        let too_large = cost::finding(tool_tokens, lists.tools.len());
        let mut findings = notes.into_findings();
        findings.extend(too_large);
        for finding in &mut findings {
            redact_finding(finding, &redactor);
        }
        Reading { lists, findings, ttl, tool_tokens }
    }
}

/// Takes one item, and the form it is hashed in.
///
/// Secrets a server repeats must not reach the store. They are taken out of what was parsed: in
/// the text, one with JSON's own punctuation would take the list's with it.
fn read_item(
    kind: Kind,
    era: Era,
    raw: &RawValue,
    redactor: &Redactor,
    notes: &mut Notes,
) -> Option<(ListedItem, Form)> {
    let hides = may_hide(redactor, raw.get());
    let read = serde_json::from_str::<Value>(raw.get())
        .map_err(|error| error.to_string())
        .map(|mut value| {
            if hides {
                redactor.redact_json(&mut value);
            }
            value
        })
        .and_then(|value| match value.get(kind.key()).and_then(Value::as_str) {
            Some(name) if !name.is_empty() => Ok((truncate(name, MAX_TEXT), value)),
            _ => Err(format!("no `{}`", kind.key())),
        });
    match read {
        Ok((name, value)) => {
            if kind == Kind::Tools {
                if let Some(reason) = tool_breach(&value, era) {
                    notes.invalid(format!("`{name}`: {reason}"));
                }
                notes.tokens += cost::of_tool(&value);
            }
            notes.suspicions.look_into(&format!("{} `{name}`", kind.item()), &value);
            let form = canonical::form(&name, &value);
            let definition =
                if hides { redacted(redactor, &name, &value) } else { capped(raw, &name, &value) };
            Some((ListedItem { name, definition, digest: None }, form))
        }
        Err(reason) => {
            // Before it is cut: half a secret would not be found any more.
            let text =
                if hides { Cow::Owned(redactor.redact(raw.get())) } else { raw.get().into() };
            let start = truncate(&excerpt(text.as_bytes()), EXCERPT);
            let what = format!("{start}: {reason}");
            if kind == Kind::Tools {
                notes.invalid(what);
            } else {
                notes.nonconforming.push(format!("an item of `{}`: {what}", kind.method()));
            }
            None
        }
    }
}

/// Whether a secret may be in this JSON: as text, or behind escapes nobody needs.
fn may_hide(redactor: &Redactor, json: &str) -> bool {
    !redactor.is_empty() && (redactor.finds(json) || json.contains("\\u"))
}

/// The definition without secrets; without anything but the name if one is still in its structure,
/// as of a secret that is JSON itself.
fn redacted(redactor: &Redactor, name: &str, value: &Value) -> Definition {
    match serde_json::value::to_raw_value(value) {
        Ok(raw) if !redactor.finds(raw.get()) => capped(&raw, name, value),
        _ => (&json!({ "name": name, "cut": true })).into(),
    }
}

/// What is wrong with a tool's definition, so that clients refuse it.
fn tool_breach(tool: &Value, era: Era) -> Option<String> {
    let Some(input) = tool.get("inputSchema") else {
        return Some("no `inputSchema`".to_owned());
    };
    if let Some(reason) = schema::breach("inputSchema", input) {
        return Some(reason);
    }
    if input.get("type").and_then(Value::as_str) != Some("object") {
        return Some("the type of `inputSchema` is not `object`".to_owned());
    }
    if era == Era::Modern
        && let Some(reason) = headers::breach(input)
    {
        return Some(reason);
    }
    if let Some(reason) =
        tool.get("outputSchema").and_then(|output| schema::breach("outputSchema", output))
    {
        return Some(reason);
    }
    let described = tool.get("description").is_none_or(Value::is_string);
    (!described).then(|| "`description` is not a string".to_owned())
}

/// The definition, or of an absurdly large one what a person would look for.
fn capped(raw: &RawValue, name: &str, value: &Value) -> Definition {
    if raw.get().len() <= MAX_DEFINITION {
        return raw.into();
    }
    let text = |key: &str| value.get(key).and_then(Value::as_str).map(|t| truncate(t, MAX_TEXT));
    (&json!({ "name": name, "description": text("description"), "cut": true })).into()
}

/// Oddities, gathered over all pages so that each is told once.
#[derive(Debug, Default)]
struct Notes {
    invalid: Vec<String>,
    invalid_count: usize,
    nonconforming: Vec<String>,
    missing: BTreeSet<&'static str>,
    duplicates: BTreeSet<String>,
    suspicions: Suspicions,
    tokens: u64,
    ttl: Option<Duration>,
    clamped: Option<String>,
}

impl Notes {
    fn invalid(&mut self, what: String) {
        self.invalid_count += 1;
        if self.invalid.len() < QUOTED {
            self.invalid.push(what);
        }
    }

    fn refused(&mut self, kind: Kind, reason: &str) {
        let word = kind.word();
        self.nonconforming.push(format!("{word} are announced, but {reason}"));
    }

    fn marks(&mut self, kind: Kind, marks: &ModernMarks) {
        self.missing.extend(marks.missing());
        if kind == Kind::Tools
            && let Some(hint) = &marks.ttl_ms
        {
            match hint.as_f64() {
                Some(millis) if (0.0..=MAX_TTL.as_millis() as f64).contains(&millis) => {
                    self.ttl = Some(Duration::from_secs_f64(millis / 1_000.0));
                }
                Some(millis) => {
                    self.ttl = Some(if millis > 0.0 { MAX_TTL } else { Duration::ZERO });
                    self.clamped = Some(format!("`ttlMs` of {hint} is out of bounds"));
                }
                None => self.nonconforming.push(format!("`ttlMs` is no number: {hint}")),
            }
        }
    }

    fn duplicates(&mut self, tools: &[ListedItem]) {
        let mut seen = HashSet::with_capacity(tools.len());
        for tool in tools {
            if !seen.insert(tool.name.as_str()) && self.duplicates.len() < QUOTED {
                self.duplicates.insert(tool.name.clone());
            }
        }
    }

    fn into_findings(self) -> Vec<Finding> {
        let mut findings = Vec::new();
        if self.invalid_count > 0 {
            let text = match self.invalid_count {
                1 => format!("a tool is out of shape: {}", self.invalid[0]),
                count => format!("{count} tools are out of shape, the first {}", self.invalid[0]),
            };
            findings.push(Finding::new(FindingCode::InvalidTool, text).with("tools", self.invalid));
        }
        if !self.duplicates.is_empty() {
            let names: Vec<String> = self.duplicates.into_iter().collect();
            let text = format!("several tools are named {}", names.join(", "));
            findings.push(Finding::new(FindingCode::DuplicateToolNames, text).with("names", names));
        }
        if !self.missing.is_empty() {
            let missing: Vec<&str> = self.missing.into_iter().collect();
            let text = format!("list results lack {}", missing.join(", "));
            findings.push(Finding::new(FindingCode::Nonconforming, text).with("missing", missing));
        }
        findings.extend(
            self.nonconforming
                .into_iter()
                .take(QUOTED)
                .map(|text| Finding::new(FindingCode::Nonconforming, text)),
        );
        findings.extend(self.suspicions.into_finding());
        findings.extend(self.clamped.map(|text| Finding::new(FindingCode::ClampedHint, text)));
        findings
    }
}

#[cfg(test)]
mod tests {
    use mcpmon_core::secret::Secret;

    use super::*;

    #[test]
    fn tools_clients_would_refuse_are_named() {
        let ok = json!({"name": "a", "inputSchema": {"type": "object"}});
        assert_eq!(tool_breach(&ok, Era::Modern), None);
        for bad in [
            json!({"name": "a"}),
            json!({"name": "a", "inputSchema": null}),
            json!({"name": "a", "inputSchema": {"type": "string"}}),
            json!({"name": "a", "inputSchema": {"type": "object", "properties": []}}),
            json!({"name": "a", "inputSchema": {"type": "object", "required": [1]}}),
            json!({"name": "a", "inputSchema": {"type": "object"}, "outputSchema": true}),
            json!({"name": "a", "inputSchema": {"type": "object"}, "description": 3}),
        ] {
            assert!(tool_breach(&bad, Era::Legacy).is_some(), "{bad}");
        }
        let number = json!({"a": {"type": "number", "x-mcp-header": "A"}});
        let schema = json!({"type": "object", "properties": number});
        let annotated = json!({"name": "a", "inputSchema": schema});
        assert!(tool_breach(&annotated, Era::Modern).is_some());
        assert_eq!(tool_breach(&annotated, Era::Legacy), None, "it means nothing there");
    }

    /// What a page with this one tool comes to for a service with this secret.
    fn read_with_secret(secret: &str, tool: &Value) -> Reading {
        let redactor = Redactor::new([&Secret::new(secret)]);
        let mut assembly = Assembly::new(Era::Legacy, redactor);
        let page = serde_json::value::to_raw_value(&json!({ "tools": [tool] })).unwrap();
        assembly.take_page(Kind::Tools, &page).unwrap();
        assembly.finish()
    }

    #[test]
    fn a_secret_with_the_punctuation_of_json_does_not_break_the_list() {
        let schema = json!({"type": "object"});
        let tool = json!({"name": "a", "description": "d", "inputSchema": schema});
        for secret in [r#""inputSchema":"#, r#"{"type":"object"}"#, r#"","description":"#] {
            let reading = read_with_secret(secret, &tool);
            assert_eq!(reading.lists.tools.len(), 1, "{secret}");
            assert_eq!(reading.lists.tools[0].name, "a");
            assert_eq!(reading.findings, [], "{secret}");
            let kept = reading.lists.tools[0].definition.as_str();
            assert!(!kept.contains(secret), "{kept}");
        }
    }

    #[test]
    fn a_secret_is_found_behind_escapes_and_in_a_broken_item() {
        let text = r#"{"tools":[{"name":"a","description":"\u0068unter22","inputSchema":{"type":"object"}},
            {"title":"hunter22"},{"name":"b","inputSchema":{"type":"hunter22"}}]}"#;
        let page = RawValue::from_string(text.to_owned()).unwrap();
        let mut assembly = Assembly::new(Era::Legacy, Redactor::new([&Secret::new("hunter22")]));
        assembly.take_page(Kind::Tools, &page).unwrap();
        let reading = assembly.finish();
        assert_eq!(reading.lists.tools[0].definition.value()["description"], "***");
        let said = format!("{:?} {:?}", reading.lists, reading.findings);
        assert!(said.contains("out of shape"), "{said}");
        assert!(!said.contains("unter22"), "{said}");
    }

    #[test]
    fn an_absurd_definition_is_cut_and_says_so() {
        let value = json!({"name": "a", "description": "d".repeat(MAX_DEFINITION)});
        let raw = serde_json::value::to_raw_value(&value).unwrap();
        let cut = capped(&raw, "a", &value);
        assert_eq!(cut.value()["cut"], true);
        assert!(cut.as_str().len() < 3 * MAX_TEXT);
        let whole = json!({"name": "a"});
        let raw = serde_json::value::to_raw_value(&whole).unwrap();
        assert_eq!(capped(&raw, "a", &whole).value(), whole);
    }

    #[test]
    fn hints_are_bounded() {
        let ttl = |value: Value| {
            let mut notes = Notes::default();
            let marks = ModernMarks { ttl_ms: Some(value), ..ModernMarks::default() };
            notes.marks(Kind::Tools, &marks);
            (notes.ttl.map(|ttl| ttl.as_millis()), notes.clamped.is_some())
        };
        assert_eq!(ttl(json!(1_500)), (Some(1_500), false));
        assert_eq!(ttl(json!(1e300)), (Some(3_600_000), true));
        assert_eq!(ttl(json!(-5)), (Some(0), true));
        assert_eq!(ttl(json!("soon")), (None, false));
    }
}
