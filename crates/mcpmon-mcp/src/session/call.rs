//! Calls one tool, once.
//!
//! A call may do something, so nothing here repeats one: not on another connection, not on a
//! session that was opened again. What is given back is the server's word, read but not judged;
//! whether it is what somebody expects is for the caller to say.

use std::time::Duration;

use mcpmon_core::failure::{FailureCode, Phase};
use mcpmon_core::observation::{ListedItem, Phases};
use mcpmon_core::status::Era;
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::value::RawValue;
use serde_json::{Map, Value};
use tokio::time::Instant;

use super::wire::{Turn, WireKind};
use super::{Session, WANTS_INPUT};
use crate::error::CallError;
use crate::inbox::Payload;
use crate::jsonrpc::{Elements, RpcError};
use crate::lists::headers::{ANNOTATION, is_token};
use crate::protocol::{Params, methods};

/// Most content blocks of one result.
const MAX_BLOCKS: usize = 10_000;
/// Most arguments that are repeated as headers.
const MAX_MIRRORED: usize = 64;
/// How long it may take to tell a server that a call was given up.
const GIVING_UP: Duration = Duration::from_millis(500);
/// Beyond these an integer is not the same number in every language (the revision's rule).
const SAFE_INTEGER: i64 = (1 << 53) - 1;

/// A tool as it was listed, as far as calling it needs.
#[derive(Debug, Clone, PartialEq)]
pub struct ListedTool {
    /// The name it is called by.
    pub name: String,
    /// Whether it is annotated as changing nothing (`readOnlyHint`).
    pub read_only: bool,
    /// Whether it can be run as a task only (`execution.taskSupport`), which a monitor does not do.
    pub needs_task: bool,
    /// What its structured result is promised to look like.
    pub output_schema: Option<Value>,
    mirrors: Vec<Mirror>,
}

/// An argument that a modern request repeats as a header (`x-mcp-header`).
#[derive(Debug, Clone, PartialEq, Eq)]
struct Mirror {
    header: String,
    path: Vec<String>,
}

impl ListedTool {
    /// Reads a tool of a list. What is missing or out of shape counts as not said.
    pub fn read(item: &ListedItem) -> Self {
        let mut definition = item.definition.value();
        let mut mirrors = Vec::new();
        find_mirrors(&definition["inputSchema"], &mut Vec::new(), &mut mirrors);
        Self {
            name: item.name.clone(),
            read_only: definition["annotations"]["readOnlyHint"] == true,
            needs_task: definition["execution"]["taskSupport"] == "required",
            output_schema: definition
                .get_mut("outputSchema")
                .map(Value::take)
                .filter(Value::is_object),
            mirrors,
        }
    }

    /// The arguments that go into headers too; what is absent, null or of no plain type does not.
    fn mirrored(&self, arguments: &Map<String, Value>) -> Vec<(String, String)> {
        let text_at = |path: &[String]| {
            let (first, rest) = path.split_first()?;
            let value = rest.iter().try_fold(arguments.get(first)?, |at, key| at.get(key))?;
            match value {
                Value::String(text) => Some(text.clone()),
                Value::Bool(truth) => Some(truth.to_string()),
                Value::Number(number) => {
                    let whole = number.as_i64()?;
                    (-SAFE_INTEGER..=SAFE_INTEGER).contains(&whole).then(|| whole.to_string())
                }
                Value::Null | Value::Array(_) | Value::Object(_) => None,
            }
        };
        let found = self.mirrors.iter();
        found.filter_map(|mirror| Some((mirror.header.clone(), text_at(&mirror.path)?))).collect()
    }
}

fn find_mirrors(schema: &Value, path: &mut Vec<String>, found: &mut Vec<Mirror>) {
    let Some(properties) = schema.get("properties").and_then(Value::as_object) else { return };
    for (name, property) in properties {
        path.push(name.clone());
        if let Some(header) = property.get(ANNOTATION).and_then(Value::as_str)
            && found.len() < MAX_MIRRORED
            && is_token(header)
        {
            found.push(Mirror { header: header.to_owned(), path: path.clone() });
        }
        find_mirrors(property, path, found);
        path.pop();
    }
}

/// What a call gave back. Untrusted text.
#[derive(Debug, Clone)]
pub struct Called {
    /// Request written to result parsed.
    pub latency: Duration,
    /// Whether the tool says that it failed.
    pub is_error: bool,
    /// Every text in the content, embedded resources' too.
    pub texts: Vec<String>,
    /// The structured result as it came; large ones are better not taken apart.
    pub structured: Option<Box<RawValue>>,
    /// It is a promise of a result (a task), and no result.
    pub is_task: bool,
    /// The whole result as it came.
    pub result: Box<RawValue>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", bound(deserialize = "'de: 'a"))]
struct WireResult<'a> {
    #[serde(borrow, default)]
    content: Option<Elements<'a, MAX_BLOCKS>>,
    #[serde(borrow, default)]
    structured_content: Option<&'a RawValue>,
    #[serde(default)]
    is_error: Option<bool>,
    #[serde(default)]
    result_type: Option<Value>,
    #[serde(default)]
    task: Option<IgnoredAny>,
}

#[derive(Deserialize)]
struct WireBlock {
    #[serde(default)]
    text: Option<String>,
    #[serde(default)]
    resource: Option<WireResource>,
}

#[derive(Deserialize)]
struct WireResource {
    #[serde(default)]
    text: Option<String>,
}

fn texts_of(blocks: &[&RawValue]) -> Vec<String> {
    let text_of = |block: &&RawValue| {
        let block: WireBlock = serde_json::from_str(block.get()).ok()?;
        block.text.or_else(|| block.resource?.text)
    };
    blocks.iter().filter_map(text_of).collect()
}

impl Session {
    /// Calls a tool and gives its result, `isError` or not.
    ///
    /// When the deadline passes the server is told that the call is given up, where its revision
    /// has a word for that; telling it takes at most half a second more.
    ///
    /// # Errors
    ///
    /// Everything but a result: a JSON-RPC error (`rpc_error`), no answer in time
    /// (`response_timeout`), a server that asks for input from a user (`input_required`), a result
    /// out of shape (`invalid_message`), and every way for the connection to fail.
    pub async fn call_tool(
        &mut self,
        tool: &ListedTool,
        arguments: &Map<String, Value>,
        phases: &mut Phases,
        deadline: Instant,
    ) -> Result<Called, CallError> {
        let mirrored = match (self.agreed.era, &self.wire.kind) {
            (Era::Modern, WireKind::Http { .. }) => tool.mirrored(arguments),
            _ => Vec::new(),
        };
        let params = Params::call(&tool.name, arguments).mirroring(&mirrored);
        match self.ask(methods::TOOLS_CALL, params, Phase::Call, phases, deadline).await {
            Ok(answer) => self.read_called(answer.payload.map(Payload::into_raw), answer.latency),
            Err(error) => {
                if error.code() == FailureCode::ResponseTimeout {
                    self.give_up_call().await;
                }
                Err(error)
            }
        }
    }

    /// Over a pipe or an event stream the wire itself cancels, and in the modern era closing the connection does.
    async fn give_up_call(&mut self) {
        if self.agreed.era == Era::Modern || !matches!(self.wire.kind, WireKind::Http { .. }) {
            return;
        }
        let turn = Turn {
            method: methods::CANCELLED,
            params: Params::cancelled(self.wire.last_id(), "no answer in time"),
            version: Some(&self.agreed.version),
            modern: false,
            phase: Phase::Call,
        };
        let until = Instant::now() + GIVING_UP;
        // The call is over either way.
        let _ = self.wire.notify(turn, &mut Phases::default(), until).await;
    }

    fn read_called(
        &self,
        payload: Result<Box<RawValue>, RpcError>,
        latency: Duration,
    ) -> Result<Called, CallError> {
        let Ok(result) = payload else {
            // `ask` gives errors of the server as errors.
            return Err(self.out_of_shape("an error", ""));
        };
        let wire: WireResult<'_> = serde_json::from_str(result.get())
            .map_err(|error| self.out_of_shape(&error.to_string(), result.get()))?;
        let kind = wire.result_type.as_ref().and_then(Value::as_str).unwrap_or("complete");
        if kind == "input_required" {
            return Err(self.error(
                FailureCode::InputRequired,
                Phase::Call,
                WANTS_INPUT.to_owned(),
            ));
        }
        let is_task = kind == "task" || (wire.task.is_some() && wire.content.is_none());
        if wire.content.is_none() && wire.structured_content.is_none() && !is_task {
            let reason = "neither `content` nor `structuredContent`";
            return Err(self.out_of_shape(reason, result.get()));
        }
        Ok(Called {
            latency,
            is_error: wire.is_error.unwrap_or(false),
            texts: wire.content.map(|blocks| texts_of(&blocks.0)).unwrap_or_default(),
            structured: wire
                .structured_content
                .filter(|raw| raw.get() != "null")
                .map(ToOwned::to_owned),
            is_task,
            result,
        })
    }

    fn out_of_shape(&self, reason: &str, result: &str) -> CallError {
        let text = format!("the result of `{}` is out of shape: {reason}", methods::TOOLS_CALL);
        CallError::new(FailureCode::InvalidMessage, Phase::Call, text)
            .with_excerpt(result.as_bytes())
            .redacted(self.redactor())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn tool(definition: &Value) -> ListedTool {
        ListedTool::read(&ListedItem {
            name: "t".into(),
            definition: definition.into(),
            digest: None,
        })
    }

    #[test]
    fn a_tool_is_read_only_by_its_word_alone() {
        for (definition, read_only) in [
            (json!({"annotations": {"readOnlyHint": true}}), true),
            (json!({"annotations": {"readOnlyHint": "true"}}), false),
            (json!({"annotations": {"destructiveHint": false}}), false),
            (json!({"annotations": []}), false),
            (json!([]), false),
        ] {
            assert_eq!(tool(&definition).read_only, read_only, "{definition}");
        }
        assert!(tool(&json!({"execution": {"taskSupport": "required"}})).needs_task);
        assert_eq!(tool(&json!({"outputSchema": true})).output_schema, None);
    }

    #[test]
    fn annotated_arguments_are_repeated_as_text() {
        let tool = tool(&json!({"inputSchema": {"type": "object", "properties": {
            "region": {"type": "string", "x-mcp-header": "Region"},
            "count": {"type": "integer", "x-mcp-header": "Count"},
            "deep": {"type": "object", "properties": {
                "dry": {"type": "boolean", "x-mcp-header": "Dry-Run"}}},
            "ratio": {"type": "number", "x-mcp-header": "Ratio"},
            "gone": {"type": "string", "x-mcp-header": "Gone"},
            "bad": {"type": "string", "x-mcp-header": "a b\r\nEvil"},
            "plain": {"type": "string"},
        }}}));
        let arguments = json!({"region": "z\u{fc}rich", "count": 3, "deep": {"dry": true},
            "ratio": 0.5, "gone": null, "bad": "x", "plain": "x"});
        let mut mirrored = tool.mirrored(arguments.as_object().unwrap());
        mirrored.sort();
        let text = |name: &str, text: &str| (name.to_owned(), text.to_owned());
        let expected = [text("Count", "3"), text("Dry-Run", "true"), text("Region", "z\u{fc}rich")];
        assert_eq!(mirrored, expected);
    }

    #[test]
    fn every_text_of_a_result_is_heard() {
        let blocks = [
            json!({"type": "text", "text": "one"}),
            json!({"type": "image", "data": "AAAA", "mimeType": "image/png"}),
            json!({"type": "resource", "resource": {"uri": "file:///a", "text": "two"}}),
            json!(7),
        ];
        let raw: Vec<Box<RawValue>> =
            blocks.iter().map(|block| serde_json::value::to_raw_value(block).unwrap()).collect();
        let raw: Vec<&RawValue> = raw.iter().map(AsRef::as_ref).collect();
        assert_eq!(texts_of(&raw), ["one", "two"]);
    }
}
