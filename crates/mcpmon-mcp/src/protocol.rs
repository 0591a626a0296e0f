//! The words of MCP's revisions: versions, methods, headers, `_meta` keys, and the shapes of what
//! is asked and answered.
//!
//! Only what a monitor asks is here. Answers are read leniently and their breaches noted, because
//! a breach is worth a finding and not a failure.

use std::fmt;

use mcpmon_core::observation::ServerIdentity;
use mcpmon_core::status::Era;
use mcpmon_core::text::{MAX_TEXT, truncate};
use serde::de::IgnoredAny;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use serde_json::{Map, Value};

use crate::jsonrpc::RpcError;

/// The revision without a handshake.
pub const MODERN: &str = "2026-07-28";
/// The newest revision with `initialize`.
pub const LATEST_LEGACY: &str = "2025-11-25";
/// Every revision with `initialize`, newest first.
pub const LEGACY: [&str; 4] = [LATEST_LEGACY, "2025-06-18", "2025-03-26", "2024-11-05"];

/// The era of a revision we know.
pub fn era_of(version: &str) -> Option<Era> {
    match version {
        MODERN => Some(Era::Modern),
        _ if LEGACY.contains(&version) => Some(Era::Legacy),
        _ => None,
    }
}

/// Whether requests of a revision name it in a header.
pub fn has_version_header(version: &str) -> bool {
    // Revisions are dates, so their order is that of their text.
    version >= "2025-06-18"
}

/// Whether messages of a revision may come in batches.
pub fn has_batches(version: &str) -> bool {
    version <= "2025-03-26"
}

/// Method names.
pub mod methods {
    /// Opens a legacy session.
    pub const INITIALIZE: &str = "initialize";
    /// Says that a legacy session is open.
    pub const INITIALIZED: &str = "notifications/initialized";
    /// Legacy proof of life, both ways.
    pub const PING: &str = "ping";
    /// What a modern server is and speaks.
    pub const DISCOVER: &str = "server/discover";
    /// The list of tools.
    pub const TOOLS_LIST: &str = "tools/list";
    /// Calls a tool.
    pub const TOOLS_CALL: &str = "tools/call";
    /// The list of prompts.
    pub const PROMPTS_LIST: &str = "prompts/list";
    /// The list of resources.
    pub const RESOURCES_LIST: &str = "resources/list";
    /// The list of resource templates.
    pub const TEMPLATES_LIST: &str = "resources/templates/list";
    /// What a message of ours that answers the server is called in words; no method has this name.
    pub const ANSWER: &str = "response";
    /// Gives up on a request.
    pub const CANCELLED: &str = "notifications/cancelled";
    /// The list of tools is another now.
    pub const TOOLS_CHANGED: &str = "notifications/tools/list_changed";
    /// The list of prompts is another now.
    pub const PROMPTS_CHANGED: &str = "notifications/prompts/list_changed";
    /// The list of resources is another now.
    pub const RESOURCES_CHANGED: &str = "notifications/resources/list_changed";

    /// Whether a request is for a list.
    pub fn is_list(method: &str) -> bool {
        matches!(method, TOOLS_LIST | PROMPTS_LIST | RESOURCES_LIST | TEMPLATES_LIST)
    }

    /// Whether a notification says that a list is another now.
    pub fn is_list_changed(method: &str) -> bool {
        matches!(method, TOOLS_CHANGED | PROMPTS_CHANGED | RESOURCES_CHANGED)
    }
}

/// HTTP header names, in the lower case HTTP libraries want.
pub mod headers {
    /// The revision of a request.
    pub const PROTOCOL_VERSION: &str = "mcp-protocol-version";
    /// The session, in revisions that have one.
    pub const SESSION_ID: &str = "mcp-session-id";
    /// The event after which a stream is to go on.
    pub const LAST_EVENT_ID: &str = "last-event-id";
    /// The method, again (2026-07-28).
    pub const METHOD: &str = "mcp-method";
    /// The tool, prompt or resource, again (2026-07-28).
    pub const NAME: &str = "mcp-name";
    /// What the header that repeats an argument begins with (2026-07-28).
    pub const PARAM_PREFIX: &str = "mcp-param-";
}

/// Keys of `_meta` (2026-07-28).
pub mod meta {
    /// The revision of this request.
    pub const PROTOCOL_VERSION: &str = "io.modelcontextprotocol/protocolVersion";
    /// Who asks.
    pub const CLIENT_INFO: &str = "io.modelcontextprotocol/clientInfo";
    /// What the asker can do.
    pub const CLIENT_CAPABILITIES: &str = "io.modelcontextprotocol/clientCapabilities";
    /// Who answers.
    pub const SERVER_INFO: &str = "io.modelcontextprotocol/serverInfo";
}

/// Who we say we are.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ClientInfo {
    /// Our name.
    pub name: String,
    /// Our version.
    pub version: String,
}

impl Default for ClientInfo {
    fn default() -> Self {
        Self { name: "mcpmon".to_owned(), version: env!("CARGO_PKG_VERSION").to_owned() }
    }
}

/// The client capabilities we announce: none, and always the same, since lists differ with them.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct NoCapabilities {}

/// What every modern request carries.
#[derive(Debug, Clone, Serialize)]
pub struct RequestMeta<'a> {
    #[serde(rename = "io.modelcontextprotocol/protocolVersion")]
    version: &'a str,
    #[serde(rename = "io.modelcontextprotocol/clientInfo")]
    client: &'a ClientInfo,
    #[serde(rename = "io.modelcontextprotocol/clientCapabilities")]
    capabilities: NoCapabilities,
}

/// The parameters of every request a monitor makes; what a method does not have stays out.
#[derive(Debug, Clone, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Params<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    protocol_version: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    capabilities: Option<NoCapabilities>,
    #[serde(skip_serializing_if = "Option::is_none")]
    client_info: Option<&'a ClientInfo>,
    #[serde(skip_serializing_if = "Option::is_none")]
    cursor: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    arguments: Option<&'a Map<String, Value>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    request_id: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'a str>,
    #[serde(skip)]
    mirrored: &'a [(String, String)],
    #[serde(rename = "_meta", skip_serializing_if = "Option::is_none")]
    meta: Option<RequestMeta<'a>>,
}

impl<'a> Params<'a> {
    /// Of `initialize`.
    pub fn initialize(version: &'a str, client: &'a ClientInfo) -> Self {
        Self {
            protocol_version: Some(version),
            capabilities: Some(NoCapabilities {}),
            client_info: Some(client),
            ..Self::default()
        }
    }

    /// Of a list: the page after `cursor`.
    pub fn page(cursor: Option<&'a str>) -> Self {
        Self { cursor, ..Self::default() }
    }

    /// Of `tools/call`.
    pub fn call(tool: &'a str, arguments: &'a Map<String, Value>) -> Self {
        Self { name: Some(tool), arguments: Some(arguments), ..Self::default() }
    }

    /// Of `notifications/cancelled`: the request that is given up, and why.
    pub fn cancelled(request: u64, reason: &'a str) -> Self {
        Self { request_id: Some(request), reason: Some(reason), ..Self::default() }
    }

    /// The same with arguments that a modern request over HTTP repeats as headers: each header's
    /// name after [`headers::PARAM_PREFIX`], and the argument's text.
    #[must_use]
    pub fn mirroring(mut self, arguments: &'a [(String, String)]) -> Self {
        self.mirrored = arguments;
        self
    }

    /// What [`Params::mirroring`] was given.
    pub const fn mirrored(&self) -> &'a [(String, String)] {
        self.mirrored
    }

    /// The same in a modern request.
    #[must_use]
    pub fn modern(mut self, version: &'a str, client: &'a ClientInfo) -> Self {
        self.meta = Some(RequestMeta { version, client, capabilities: NoCapabilities {} });
        self
    }

    /// What the header `Mcp-Name` repeats, if the method has it.
    pub const fn name(&self) -> Option<&'a str> {
        self.name
    }

    /// Whether there is nothing in it, so that `params` can be left out.
    pub const fn is_empty(&self) -> bool {
        self.protocol_version.is_none()
            && self.cursor.is_none()
            && self.name.is_none()
            && self.request_id.is_none()
            && self.meta.is_none()
    }
}

/// Which lists a server has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Capabilities {
    /// It has tools.
    pub tools: bool,
    /// It has prompts.
    pub prompts: bool,
    /// It has resources.
    pub resources: bool,
}

#[derive(Deserialize, Default)]
struct WireCapabilities {
    tools: Option<IgnoredAny>,
    prompts: Option<IgnoredAny>,
    resources: Option<IgnoredAny>,
}

impl From<WireCapabilities> for Capabilities {
    fn from(wire: WireCapabilities) -> Self {
        Self {
            tools: wire.tools.is_some(),
            prompts: wire.prompts.is_some(),
            resources: wire.resources.is_some(),
        }
    }
}

/// A result is not of the shape its method promises.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WrongShape(pub String);

impl fmt::Display for WrongShape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What a server said of itself, in either era.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Greeting {
    /// The revision it chose (`initialize`) or those it speaks (`server/discover`).
    pub versions: Vec<String>,
    /// What it has.
    pub capabilities: Capabilities,
    /// Who it is.
    pub server: Option<ServerIdentity>,
    /// Required fields that are missing.
    pub missing: Vec<&'static str>,
    /// The server will not go on without a user (2026-07-28).
    pub wants_input: bool,
    /// Its instructions for a model, as they came.
    pub instructions: Option<String>,
}

const LONGEST_VERSION: usize = 200;
const MOST_VERSIONS: usize = 32;

fn instructions(wire: Option<Value>) -> Option<String> {
    match wire {
        Some(Value::String(text)) => Some(text),
        _ => None,
    }
}

#[derive(Deserialize)]
struct WireIdentity {
    #[serde(default)]
    name: String,
    #[serde(default)]
    version: String,
}

fn identity(wire: Option<Value>) -> Option<ServerIdentity> {
    let wire: WireIdentity = serde_json::from_value(wire?).ok()?;
    Some(ServerIdentity {
        name: truncate(&wire.name, MAX_TEXT),
        version: truncate(&wire.version, MAX_TEXT),
    })
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct WireInitialize {
    protocol_version: String,
    #[serde(default)]
    capabilities: Option<WireCapabilities>,
    #[serde(default)]
    server_info: Option<Value>,
    #[serde(default)]
    instructions: Option<Value>,
}

/// Reads the result of `initialize`.
///
/// # Errors
///
/// [`WrongShape`] if there is no `protocolVersion`, or a field has the wrong type.
pub fn read_initialize(result: &RawValue) -> Result<Greeting, WrongShape> {
    let wire: WireInitialize = shape(result)?;
    let mut missing = Vec::new();
    if wire.capabilities.is_none() {
        missing.push("capabilities");
    }
    let server = identity(wire.server_info);
    if server.is_none() {
        missing.push("serverInfo");
    }
    Ok(Greeting {
        versions: vec![truncate(&wire.protocol_version, LONGEST_VERSION)],
        capabilities: wire.capabilities.unwrap_or_default().into(),
        server,
        missing,
        wants_input: false,
        instructions: instructions(wire.instructions),
    })
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct WireDiscover {
    supported_versions: Option<Vec<String>>,
    capabilities: Option<WireCapabilities>,
    server_info: Option<Value>,
    #[serde(rename = "_meta", default)]
    meta: Option<WireMeta>,
    result_type: Option<Value>,
    ttl_ms: Option<Value>,
    cache_scope: Option<IgnoredAny>,
    instructions: Option<Value>,
}

#[derive(Deserialize)]
struct WireMeta {
    #[serde(rename = "io.modelcontextprotocol/serverInfo", default)]
    server_info: Option<Value>,
}

/// The fields every modern result has.
#[derive(Debug, Default)]
pub struct ModernMarks {
    /// `complete`, `input_required`, `task`; absent means complete.
    pub result_type: Option<Value>,
    /// How long the answer stays good, in milliseconds.
    pub ttl_ms: Option<Value>,
    /// Who may keep it.
    pub cache_scope: Option<IgnoredAny>,
}

impl ModernMarks {
    /// Required fields that are missing.
    pub fn missing(&self) -> impl Iterator<Item = &'static str> {
        let marks = [
            ("resultType", self.result_type.is_none()),
            ("ttlMs", self.ttl_ms.is_none()),
            ("cacheScope", self.cache_scope.is_none()),
        ];
        marks.into_iter().filter(|(_, missing)| *missing).map(|(name, _)| name)
    }

    /// Whether the server will not go on without a user.
    pub fn wants_input(&self) -> bool {
        self.result_type.as_ref().and_then(Value::as_str) == Some("input_required")
    }
}

/// Reads the result of `server/discover`.
///
/// # Errors
///
/// [`WrongShape`] if it has neither `supportedVersions` nor `capabilities`, which is what an
/// answer to something else looks like.
pub fn read_discover(result: &RawValue) -> Result<Greeting, WrongShape> {
    let wire: WireDiscover = shape(result)?;
    let marks = ModernMarks {
        result_type: wire.result_type,
        ttl_ms: wire.ttl_ms,
        cache_scope: wire.cache_scope,
    };
    let wants_input = marks.wants_input();
    if wire.supported_versions.is_none() && wire.capabilities.is_none() && !wants_input {
        return Err(WrongShape("neither `supportedVersions` nor `capabilities`".to_owned()));
    }
    let mut missing: Vec<_> = marks.missing().collect();
    if wire.supported_versions.is_none() {
        missing.push("supportedVersions");
    }
    let from_meta = wire.meta.and_then(|meta| meta.server_info);
    Ok(Greeting {
        versions: capped_versions(wire.supported_versions.unwrap_or_default()),
        capabilities: wire.capabilities.unwrap_or_default().into(),
        server: identity(from_meta.or(wire.server_info)),
        missing,
        wants_input,
        instructions: instructions(wire.instructions),
    })
}

fn capped_versions(versions: Vec<String>) -> Vec<String> {
    versions
        .into_iter()
        .take(MOST_VERSIONS)
        .map(|version| truncate(&version, LONGEST_VERSION))
        .collect()
}

fn shape<'a, T: Deserialize<'a>>(result: &'a RawValue) -> Result<T, WrongShape> {
    serde_json::from_str(result.get()).map_err(|error| WrongShape(error.to_string()))
}

/// The revisions a refusal with -32022 lists.
pub fn supported_versions(error: &RpcError) -> Vec<String> {
    #[derive(Deserialize)]
    struct Data {
        supported: Vec<String>,
    }
    let data = error.data.as_deref().and_then(|data| serde_json::from_str(data.get()).ok());
    data.map_or_else(Vec::new, |data: Data| capped_versions(data.supported))
}

/// The value of the headers `Mcp-Name` and `Mcp-Param-…`: the text itself where a header can carry
/// it, else in the revision's base64 form.
pub fn header_name_value(name: &str) -> String {
    use base64::Engine as _;
    let plain = name.bytes().all(|byte| matches!(byte, 0x20..=0x7e))
        && name.trim() == name
        && !name.starts_with("=?base64?");
    if plain {
        name.to_owned()
    } else {
        format!("=?base64?{}?=", base64::engine::general_purpose::STANDARD.encode(name))
    }
}

/// Whether ending a session breaks the server for everybody: one DELETE makes Python SDK 1.8 and
/// 1.9 answer 500 from then on, and its servers report the SDK's version as their own.
/// They speak no revision with a version header, which tells them from others of that version.
pub fn is_broken_by_delete(server: Option<&ServerIdentity>, version: &str) -> bool {
    !has_version_header(version)
        && server.is_some_and(|server| {
            server.version.starts_with("1.8.") || server.version.starts_with("1.9.")
        })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn raw(value: &Value) -> Box<RawValue> {
        serde_json::value::to_raw_value(value).unwrap()
    }

    #[test]
    fn eras_are_known_by_revision() {
        assert_eq!(era_of(MODERN), Some(Era::Modern));
        assert!(LEGACY.iter().all(|version| era_of(version) == Some(Era::Legacy)));
        assert_eq!(era_of("1999-01-01"), None);
    }

    #[test]
    fn parameters_are_spelled_as_each_era_wants() {
        let client = ClientInfo { name: "m".into(), version: "1".into() };
        let initialize = serde_json::to_value(Params::initialize(LATEST_LEGACY, &client)).unwrap();
        assert_eq!(
            initialize,
            json!({"protocolVersion": "2025-11-25", "capabilities": {},
                   "clientInfo": {"name": "m", "version": "1"}})
        );
        let page = Params::page(Some("")).modern(MODERN, &client);
        assert_eq!(
            serde_json::to_value(page).unwrap(),
            json!({"cursor": "", "_meta": {
                (meta::PROTOCOL_VERSION): MODERN,
                (meta::CLIENT_INFO): {"name": "m", "version": "1"},
                (meta::CLIENT_CAPABILITIES): {}}})
        );
        assert!(Params::page(None).is_empty());
    }

    #[test]
    fn greetings_are_read_and_their_gaps_named() {
        let greeting = read_initialize(&raw(&json!({
            "protocolVersion": "2025-06-18", "capabilities": {"tools": {}, "prompts": null}})));
        let greeting = greeting.unwrap();
        assert_eq!(greeting.versions, ["2025-06-18"]);
        assert!(greeting.capabilities.tools && !greeting.capabilities.prompts);
        assert_eq!(greeting.missing, ["serverInfo"]);
        assert!(read_initialize(&raw(&json!({"capabilities": {}}))).is_err());

        let greeting = read_discover(&raw(&json!({
            "supportedVersions": [MODERN], "capabilities": {"resources": {}},
            "resultType": "complete", "ttlMs": 5, "cacheScope": "public",
            "_meta": {(meta::SERVER_INFO): {"name": "s", "version": "2"}}})));
        let greeting = greeting.unwrap();
        assert_eq!(greeting.server.unwrap().name, "s");
        assert!(greeting.missing.is_empty() && greeting.capabilities.resources);
        let greeting = read_discover(&raw(&json!({"capabilities": {}}))).unwrap();
        assert_eq!(greeting.missing, ["resultType", "ttlMs", "cacheScope", "supportedVersions"]);
        assert!(read_discover(&raw(&json!({"ok": true}))).is_err());
    }

    #[test]
    fn refusals_list_their_revisions() {
        let error = RpcError::new(-32_022, "no").with_data(&json!({"supported": ["a", "b"]}));
        assert_eq!(supported_versions(&error), ["a", "b"]);
        assert!(supported_versions(&RpcError::new(-32_022, "no")).is_empty());
    }

    #[test]
    fn names_no_header_can_carry_are_encoded() {
        assert_eq!(header_name_value("get_time"), "get_time");
        assert_eq!(header_name_value("zeit_\u{fc}"), "=?base64?emVpdF/DvA==?=");
        assert_eq!(header_name_value(" x"), "=?base64?IHg=?=");
    }

    #[test]
    fn the_versions_a_delete_breaks_are_known() {
        let broken = |server: &str, spoken: &str| {
            let server = ServerIdentity { name: String::new(), version: server.into() };
            is_broken_by_delete(Some(&server), spoken)
        };
        let old = "2025-03-26";
        assert!(broken("1.8.1", old) && broken("1.9.4", old));
        assert!(!broken("1.10.1", old) && !broken("1.30.0", old));
        assert!(!broken("1.9.4", LATEST_LEGACY), "another server of that version");
        assert!(!is_broken_by_delete(None, old));
    }
}
