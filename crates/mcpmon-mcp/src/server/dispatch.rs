//! One message in, one answer out: MCP as a pure function of what the server offers, where the
//! conversation stands and, over HTTP, the headers. No I/O, no clock, no counters.

use hyper::HeaderMap;
use serde_json::{Map, Value, json};

use super::spec::{ServerSpec, Tool};
use crate::jsonrpc::{Message, Request, RpcError, codes, encode_error, encode_result};
use crate::protocol::{LEGACY, MODERN, era_of, headers, meta, methods};

use mcpmon_core::status::Era;

/// Where a conversation stands: on stdio one for the stream, over HTTP one for each session.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Stage {
    /// Nothing was agreed on.
    #[default]
    Fresh,
    /// `initialize` agreed on this revision.
    Legacy(&'static str),
    /// The client speaks without a handshake.
    Modern,
}

/// What carries a message.
#[derive(Debug, Clone, Copy)]
pub enum Via<'a> {
    /// Standard streams.
    Stdio,
    /// HTTP, with these headers.
    Http(&'a HeaderMap),
    /// The deprecated HTTP+SSE, with the headers of the POST.
    Events(&'a HeaderMap),
}

impl<'a> Via<'a> {
    pub(super) const fn headers(self) -> Option<&'a HeaderMap> {
        match self {
            Self::Stdio => None,
            Self::Http(headers) | Self::Events(headers) => Some(headers),
        }
    }
}

/// What follows from a message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Action {
    /// Where the conversation stands now.
    pub stage: Stage,
    /// What is answered; `None` to what wants no answer.
    pub answer: Option<Answer>,
}

/// An answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// The HTTP status it goes with.
    pub status: u16,
    /// The JSON-RPC response, one line without its end.
    pub body: Vec<u8>,
}

/// A refusal and the HTTP status it goes with.
struct Refusal(u16, RpcError);

impl From<RpcError> for Refusal {
    fn from(error: RpcError) -> Self {
        Self(200, error)
    }
}

fn refuse(status: u16, code: i64, message: impl Into<String>) -> Refusal {
    Refusal(status, RpcError::new(code, message))
}

type Params = Map<String, Value>;

/// Answers messages for one server.
#[derive(Debug, Clone, Copy)]
pub struct Dispatch<'a> {
    spec: &'a ServerSpec,
    tools: &'a [Tool],
}

impl<'a> Dispatch<'a> {
    /// A dispatch for what `spec` offers, with these tools in place of its own.
    pub fn new(spec: &'a ServerSpec, tools: &'a [Tool]) -> Self {
        Self { spec, tools }
    }

    /// Answers one message.
    pub fn handle(&self, stage: Stage, via: Via<'_>, message: &Message<'_>) -> Action {
        let Message::Request(request) = message else {
            return Action { stage, answer: None };
        };
        let params = read_params(request);
        let (stage, result) = if self.is_modern(stage, via, request, &params) {
            match self.modern(via, request, &params) {
                Ok(result) => {
                    (if matches!(via, Via::Http(_)) { stage } else { Stage::Modern }, Ok(result))
                }
                Err(refusal) => (stage, Err(refusal)),
            }
        } else {
            self.legacy(stage, via, request, &params)
        };
        let answer = match result {
            Ok(result) => Answer { status: 200, body: encode_result(&request.id, &result) },
            Err(Refusal(status, error)) => {
                Answer { status, body: encode_error(Some(&request.id), &error) }
            }
        };
        Action { stage, answer: Some(answer) }
    }

    /// Whether a request is to be answered as the modern era does.
    pub(super) fn speaks_modern(&self, stage: Stage, via: Via<'_>, request: &Request<'_>) -> bool {
        self.is_modern(stage, via, request, &read_params(request))
    }

    fn is_modern(
        &self,
        stage: Stage,
        via: Via<'_>,
        request: &Request<'_>,
        params: &Params,
    ) -> bool {
        if !(self.spec.eras.legacy() && self.spec.eras.modern()) {
            return self.spec.eras.modern();
        }
        match stage {
            Stage::Legacy(_) => false,
            Stage::Modern => true,
            Stage::Fresh => {
                let by_header = via.headers().and_then(|headers| version_header(headers));
                meta_of(params).is_some_and(|meta| meta.contains_key(meta::PROTOCOL_VERSION))
                    || by_header.is_some_and(|version| era_of(version) == Some(Era::Modern))
                    || request.method == methods::DISCOVER
            }
        }
    }

    fn modern(
        &self,
        via: Via<'_>,
        request: &Request<'_>,
        params: &Params,
    ) -> Result<Value, Refusal> {
        let method = request.method.as_ref();
        check_meta(method, params)?;
        if let Via::Http(headers) = via {
            check_headers(headers, method, params)?;
        }
        check_version(params)?;
        let result = match method {
            methods::DISCOVER => self.cached(json!({
                "supportedVersions": [MODERN],
                "capabilities": self.capabilities(None),
                "instructions": self.spec.instructions,
            })),
            method if self.has_list(method) => self.cached(self.list(method, params)?),
            _ => self.call(method, params).unwrap_or_else(|| {
                Err(refuse(404, codes::METHOD_NOT_FOUND, format!("no method `{method}`")))
            })?,
        };
        Ok(self.complete(result))
    }

    fn legacy(
        &self,
        stage: Stage,
        via: Via<'_>,
        request: &Request<'_>,
        params: &Params,
    ) -> (Stage, Result<Value, Refusal>) {
        let method = request.method.as_ref();
        match (method, stage) {
            (methods::PING, _) => (stage, Ok(json!({}))),
            (methods::INITIALIZE, Stage::Fresh) => match self.agree(params) {
                Ok(version) => (Stage::Legacy(version), Ok(self.greeting(version, via))),
                Err(refusal) => (stage, Err(refusal)),
            },
            (methods::INITIALIZE, _) => {
                let twice = refuse(400, codes::INVALID_REQUEST, "already initialized");
                (stage, Err(twice))
            }
            (method, at) if self.has_list(method) => {
                (stage, initialized(at).and_then(|()| self.list(method, params)))
            }
            (_, at) => {
                let result = self.call(method, params).unwrap_or_else(|| {
                    Err(refuse(200, codes::METHOD_NOT_FOUND, format!("no method `{method}`")))
                });
                (stage, initialized(at).and(result))
            }
        }
    }

    /// The revision `initialize` ends up with: the client's if we speak it, else our newest.
    fn agree(&self, params: &Params) -> Result<&'static str, Refusal> {
        let Some(asked) = params.get("protocolVersion").and_then(Value::as_str) else {
            return Err(invalid_params("`protocolVersion` is missing"));
        };
        let newest = self.spec.latest_legacy;
        // Revisions are dates, so their order is that of their text.
        Ok(LEGACY.into_iter().find(|known| *known == asked && *known <= newest).unwrap_or(newest))
    }

    fn greeting(&self, version: &str, via: Via<'_>) -> Value {
        let mut greeting = json!({
            "protocolVersion": version,
            "capabilities": self.capabilities(Some(via)),
            "serverInfo": {"name": self.spec.name, "version": self.spec.version},
        });
        if let Some(text) = &self.spec.instructions {
            greeting["instructions"] = text.as_str().into();
        }
        greeting
    }

    /// Only on legacy stdio and event streams is there a way to say unasked that a list changed.
    fn capabilities(&self, legacy: Option<Via<'_>>) -> Value {
        let list_changed = matches!(legacy, Some(Via::Stdio | Via::Events(_)));
        let mut capabilities = json!({
            "tools": if list_changed { json!({"listChanged": true}) } else { json!({}) },
        });
        if !self.spec.prompts.is_empty() {
            capabilities["prompts"] = json!({});
        }
        if !self.spec.resources.is_empty() || !self.spec.templates.is_empty() {
            capabilities["resources"] = json!({});
        }
        capabilities
    }

    fn has_list(&self, method: &str) -> bool {
        methods::is_list(method)
            && (method != methods::TEMPLATES_LIST || !self.spec.templates.is_empty())
    }

    fn list(&self, method: &str, params: &Params) -> Result<Value, Refusal> {
        match method {
            methods::TOOLS_LIST => self.page("tools", self.tools, params, Tool::definition),
            methods::PROMPTS_LIST => self.page("prompts", &self.spec.prompts, params, |prompt| {
                json!({"name": prompt.name, "description": prompt.description})
            }),
            methods::TEMPLATES_LIST => {
                self.page("resourceTemplates", &self.spec.templates, params, |template| {
                    json!({"uriTemplate": template.uri_template, "name": template.name})
                })
            }
            _ => self.page("resources", &self.spec.resources, params, |resource| {
                json!({"uri": resource.uri, "name": resource.name, "mimeType": "text/plain"})
            }),
        }
    }

    fn page<T>(
        &self,
        key: &str,
        items: &[T],
        params: &Params,
        definition: impl Fn(&T) -> Value,
    ) -> Result<Value, Refusal> {
        let start = match params.get("cursor") {
            None | Some(Value::Null) => 0,
            Some(cursor) => cursor
                .as_str()
                .and_then(|cursor| cursor.strip_prefix(CURSOR))
                .and_then(|index| index.parse().ok())
                .filter(|start| *start < items.len())
                .ok_or_else(|| invalid_params("`cursor` is not one of ours"))?,
        };
        let end = start.saturating_add(self.spec.page_size).min(items.len());
        let page: Vec<Value> = items[start..end].iter().map(definition).collect();
        let mut result = json!({ (key): page });
        if end < items.len() {
            result["nextCursor"] = format!("{CURSOR}{end}").into();
        }
        Ok(result)
    }

    /// The methods that both eras answer alike; `None` for those we do not have.
    fn call(&self, method: &str, params: &Params) -> Option<Result<Value, Refusal>> {
        match method {
            methods::TOOLS_CALL => Some(self.call_tool(params)),
            PROMPTS_GET if !self.spec.prompts.is_empty() => Some(self.get_prompt(params)),
            RESOURCES_READ if !self.spec.resources.is_empty() => Some(self.read_resource(params)),
            _ => None,
        }
    }

    fn call_tool(&self, params: &Params) -> Result<Value, Refusal> {
        let name = text(params, "name")?;
        let tool = self.tools.iter().find(|tool| tool.name() == name);
        let tool = tool.ok_or_else(|| invalid_params(format!("no tool `{name}`")))?;
        let nothing = Map::new();
        let arguments = match params.get("arguments") {
            None | Some(Value::Null) => &nothing,
            Some(Value::Object(arguments)) => arguments,
            Some(_) => return Err(invalid_params("`arguments` is not an object")),
        };
        let output = tool.call(arguments)?;
        let mut result = json!({"content": output.content, "isError": output.is_error});
        if let Some(structured) = output.structured {
            result["structuredContent"] = structured;
        }
        Ok(result)
    }

    fn get_prompt(&self, params: &Params) -> Result<Value, Refusal> {
        let name = text(params, "name")?;
        let prompt = self.spec.prompts.iter().find(|prompt| prompt.name == name);
        let prompt = prompt.ok_or_else(|| invalid_params(format!("no prompt `{name}`")))?;
        Ok(json!({
            "description": prompt.description,
            "messages": [{"role": "user", "content": {"type": "text", "text": prompt.text}}],
        }))
    }

    fn read_resource(&self, params: &Params) -> Result<Value, Refusal> {
        let uri = text(params, "uri")?;
        let resource = self.spec.resources.iter().find(|resource| resource.uri == uri);
        let resource = resource.ok_or_else(|| invalid_params(format!("no resource `{uri}`")))?;
        Ok(json!({
            "contents": [{"uri": uri, "mimeType": "text/plain", "text": resource.text}],
        }))
    }

    fn cached(&self, mut result: Value) -> Value {
        result["ttlMs"] = u64::try_from(self.spec.ttl.as_millis()).unwrap_or(u64::MAX).into();
        result["cacheScope"] = "public".into();
        result
    }

    fn complete(&self, mut result: Value) -> Value {
        result["resultType"] = "complete".into();
        result["_meta"] = json!({
            (meta::SERVER_INFO): {"name": self.spec.name, "version": self.spec.version},
        });
        result
    }
}

const CURSOR: &str = "after-";
const PROMPTS_GET: &str = "prompts/get";
const RESOURCES_READ: &str = "resources/read";

fn read_params(request: &Request<'_>) -> Params {
    let params = request.params.map(|params| serde_json::from_str(params.get()));
    match params {
        Some(Ok(Value::Object(params))) => params,
        _ => Params::new(),
    }
}

fn invalid_params(message: impl Into<String>) -> Refusal {
    refuse(200, codes::INVALID_PARAMS, message)
}

fn text<'p>(params: &'p Params, key: &str) -> Result<&'p str, Refusal> {
    let value = params.get(key).and_then(Value::as_str);
    value.ok_or_else(|| invalid_params(format!("`{key}` is missing")))
}

fn initialized(stage: Stage) -> Result<(), Refusal> {
    match stage {
        Stage::Fresh => Err(refuse(400, codes::INVALID_REQUEST, "send `initialize` first")),
        Stage::Legacy(_) | Stage::Modern => Ok(()),
    }
}

pub(super) fn version_header(headers: &HeaderMap) -> Option<&str> {
    headers.get(headers::PROTOCOL_VERSION)?.to_str().ok()
}

fn meta_of(params: &Params) -> Option<&Map<String, Value>> {
    params.get("_meta")?.as_object()
}

fn asked_version(params: &Params) -> Option<&str> {
    meta_of(params)?.get(meta::PROTOCOL_VERSION)?.as_str()
}

fn check_meta(method: &str, params: &Params) -> Result<(), Refusal> {
    if method == methods::INITIALIZE && asked_version(params).is_none() {
        return Err(unsupported(params.get("protocolVersion").unwrap_or(&Value::Null)));
    }
    if asked_version(params).is_none() {
        let missing = format!("`_meta` lacks `{}`", meta::PROTOCOL_VERSION);
        return Err(refuse(400, codes::INVALID_PARAMS, missing));
    }
    let capabilities = meta_of(params).and_then(|meta| meta.get(meta::CLIENT_CAPABILITIES));
    if !capabilities.is_some_and(Value::is_object) {
        let missing = format!("`_meta` lacks `{}`", meta::CLIENT_CAPABILITIES);
        return Err(refuse(400, codes::INVALID_PARAMS, missing));
    }
    Ok(())
}

fn check_version(params: &Params) -> Result<(), Refusal> {
    match asked_version(params) {
        Some(MODERN) => Ok(()),
        other => Err(unsupported(&other.into())),
    }
}

fn unsupported(requested: &Value) -> Refusal {
    let error = RpcError::new(codes::UNSUPPORTED_PROTOCOL_VERSION, "unsupported protocol version")
        .with_data(&json!({"supported": [MODERN], "requested": requested}));
    Refusal(400, error)
}

/// The headers repeat what the body says, so that proxies need not read it; a difference is an
/// error, because somebody would be misled.
fn check_headers(headers: &HeaderMap, method: &str, params: &Params) -> Result<(), Refusal> {
    let repeated = match method {
        methods::TOOLS_CALL | PROMPTS_GET => params.get("name").and_then(Value::as_str),
        RESOURCES_READ => params.get("uri").and_then(Value::as_str),
        _ => None,
    };
    let pairs = [
        (headers::PROTOCOL_VERSION, asked_version(params)),
        (headers::METHOD, Some(method)),
        (headers::NAME, repeated),
    ];
    for (name, expected) in pairs {
        let Some(expected) = expected else { continue };
        let sent = headers.get(name).and_then(|value| value.to_str().ok()).map(decode_header);
        if sent.as_deref() != Some(expected) {
            let message = match sent {
                None => format!("header `{name}` is missing"),
                Some(_) => format!("header `{name}` differs from the body"),
            };
            return Err(refuse(400, codes::HEADER_MISMATCH, message));
        }
    }
    Ok(())
}

/// Undoes the base64 form of values that no header can carry.
fn decode_header(value: &str) -> String {
    use base64::Engine as _;
    let encoded = value.strip_prefix("=?base64?").and_then(|rest| rest.strip_suffix("?="));
    encoded
        .and_then(|text| base64::engine::general_purpose::STANDARD.decode(text).ok())
        .and_then(|bytes| String::from_utf8(bytes).ok())
        .unwrap_or_else(|| value.to_owned())
}

#[cfg(test)]
#[path = "dispatch_tests.rs"]
mod tests;
