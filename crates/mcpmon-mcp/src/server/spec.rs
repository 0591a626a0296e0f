//! What a server offers: a value, built once.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Map, Value, json};

use crate::jsonrpc::RpcError;
use crate::protocol::LATEST_LEGACY;

/// Which revisions a server speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Eras {
    /// `initialize`, sessions, `ping`.
    Legacy,
    /// `server/discover`, no sessions.
    Modern,
    /// Either, as the client opens.
    #[default]
    Both,
}

impl Eras {
    /// Whether it answers `initialize`.
    pub const fn legacy(self) -> bool {
        matches!(self, Self::Legacy | Self::Both)
    }

    /// Whether it answers `server/discover`.
    pub const fn modern(self) -> bool {
        matches!(self, Self::Modern | Self::Both)
    }
}

/// What a tool gave back.
#[derive(Debug, Clone, PartialEq)]
pub struct ToolOutput {
    /// The content blocks.
    pub content: Vec<Value>,
    /// The structured result, for tools with an `outputSchema`.
    pub structured: Option<Value>,
    /// Whether the tool itself failed.
    pub is_error: bool,
}

impl ToolOutput {
    /// One block of text.
    pub fn text(text: impl Into<String>) -> Self {
        let content = vec![json!({"type": "text", "text": text.into()})];
        Self { content, structured: None, is_error: false }
    }

    /// A failure of the tool, in words.
    pub fn error(text: impl Into<String>) -> Self {
        Self { is_error: true, ..Self::text(text) }
    }

    /// A structured result, with its JSON as text for clients that know no other.
    pub fn structured(value: Value) -> Self {
        let text = Self::text(value.to_string());
        Self { structured: Some(value), ..text }
    }
}

type Call = dyn Fn(&Map<String, Value>) -> Result<ToolOutput, RpcError> + Send + Sync;

/// A tool: its definition as listed, and what a call does.
#[derive(Clone)]
pub struct Tool {
    name: String,
    definition: Map<String, Value>,
    call: Arc<Call>,
}

impl Tool {
    /// A tool that takes any object; `call` answers with content, or with a JSON-RPC error for
    /// arguments it does not take.
    pub fn new(
        name: impl Into<String>,
        description: impl Into<String>,
        call: impl Fn(&Map<String, Value>) -> Result<ToolOutput, RpcError> + Send + Sync + 'static,
    ) -> Self {
        let name = name.into();
        let mut definition = Map::new();
        definition.insert("name".into(), name.clone().into());
        definition.insert("description".into(), description.into().into());
        definition.insert("inputSchema".into(), json!({"type": "object"}));
        Self { name, definition, call: Arc::new(call) }
    }

    /// Its `inputSchema`.
    #[must_use]
    pub fn input_schema(self, schema: Value) -> Self {
        self.with("inputSchema", schema)
    }

    /// Its `outputSchema`.
    #[must_use]
    pub fn output_schema(self, schema: Value) -> Self {
        self.with("outputSchema", schema)
    }

    /// Annotates it as one that changes nothing, here or elsewhere.
    #[must_use]
    pub fn read_only(self) -> Self {
        self.with(
            "annotations",
            json!({"readOnlyHint": true, "destructiveHint": false, "idempotentHint": true,
                   "openWorldHint": false}),
        )
    }

    /// Sets one key of the definition to anything, also to what no tool should have.
    #[must_use]
    pub fn with(mut self, key: &str, value: Value) -> Self {
        self.definition.insert(key.to_owned(), value);
        self
    }

    /// The name it is called by.
    pub fn name(&self) -> &str {
        &self.name
    }

    pub(super) fn definition(&self) -> Value {
        Value::Object(self.definition.clone())
    }

    pub(super) fn call(&self, arguments: &Map<String, Value>) -> Result<ToolOutput, RpcError> {
        (self.call)(arguments)
    }
}

impl fmt::Debug for Tool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tool").field("definition", &self.definition).finish_non_exhaustive()
    }
}

/// A prompt that is one message of text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Prompt {
    /// Its name.
    pub name: String,
    /// What it is for.
    pub description: String,
    /// The message.
    pub text: String,
}

/// A resource that is some text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Resource {
    /// Where it is.
    pub uri: String,
    /// What it is called.
    pub name: String,
    /// What it holds.
    pub text: String,
}

/// A pattern of URIs, as it is listed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ResourceTemplate {
    /// The pattern (RFC 6570).
    pub uri_template: String,
    /// What it is called.
    pub name: String,
}

/// What a server offers.
#[derive(Debug, Clone)]
pub struct ServerSpec {
    pub(super) name: String,
    pub(super) version: String,
    pub(super) eras: Eras,
    pub(super) latest_legacy: &'static str,
    pub(super) instructions: Option<String>,
    pub(super) tools: Vec<Tool>,
    pub(super) prompts: Vec<Prompt>,
    pub(super) resources: Vec<Resource>,
    pub(super) templates: Vec<ResourceTemplate>,
    pub(super) page_size: usize,
    pub(super) ttl: Duration,
    pub(super) sessions: bool,
    pub(super) batched: bool,
    pub(super) asks: &'static [&'static str],
}

impl ServerSpec {
    /// A server of both eras that offers nothing yet.
    pub fn new(name: impl Into<String>, version: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            version: version.into(),
            eras: Eras::Both,
            latest_legacy: LATEST_LEGACY,
            instructions: None,
            tools: Vec::new(),
            prompts: Vec::new(),
            resources: Vec::new(),
            templates: Vec::new(),
            page_size: usize::MAX,
            ttl: Duration::ZERO,
            sessions: true,
            batched: false,
            asks: &[],
        }
    }

    /// The revisions it speaks; both eras at first.
    #[must_use]
    pub fn eras(mut self, eras: Eras) -> Self {
        self.eras = eras;
        self
    }

    /// The newest revision it agrees to in `initialize`; 2025-11-25 at first.
    #[must_use]
    pub fn latest_legacy(mut self, version: &'static str) -> Self {
        self.latest_legacy = version;
        self
    }

    /// What a model should know about it.
    #[must_use]
    pub fn instructions(mut self, text: impl Into<String>) -> Self {
        self.instructions = Some(text.into());
        self
    }

    /// One tool more.
    #[must_use]
    pub fn tool(mut self, tool: Tool) -> Self {
        self.tools.push(tool);
        self
    }

    /// One prompt more.
    #[must_use]
    pub fn prompt(mut self, prompt: Prompt) -> Self {
        self.prompts.push(prompt);
        self
    }

    /// One resource more.
    #[must_use]
    pub fn resource(mut self, resource: Resource) -> Self {
        self.resources.push(resource);
        self
    }

    /// One resource template more. A server without any does not know the request for them, as many
    /// do not.
    #[must_use]
    pub fn resource_template(mut self, template: ResourceTemplate) -> Self {
        self.templates.push(template);
        self
    }

    /// How many items a page of a list holds, at least one; all of them at first.
    #[must_use]
    pub fn page_size(mut self, items: usize) -> Self {
        self.page_size = items.max(1);
        self
    }

    /// How long it says its answers stay good (`ttlMs`); zero at first.
    #[must_use]
    pub fn ttl(mut self, ttl: Duration) -> Self {
        self.ttl = ttl;
        self
    }

    /// Puts each answer after the handshake into a batch of its own, as only 2025-03-26 allows; not
    /// at first.
    #[must_use]
    pub fn batched(mut self) -> Self {
        self.batched = true;
        self
    }

    /// Asks the client for these before it answers for a list; nothing at first. What the client
    /// says to it is in [`Server::answers`](super::Server::answers). Where answers are JSON bodies
    /// there is no way to ask.
    #[must_use]
    pub fn asks(mut self, methods: &'static [&'static str]) -> Self {
        self.asks = methods;
        self
    }

    /// Whether legacy HTTP has sessions; it has at first.
    #[must_use]
    pub fn sessions(mut self, sessions: bool) -> Self {
        self.sessions = sessions;
        self
    }
}
