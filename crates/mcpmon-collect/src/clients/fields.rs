//! One entry of a client's file as a service: every client's names for the same few things.
//!
//! Names are accepted from any client, since people paste entries from one into another; what
//! differs in meaning is in the [`Dialect`]. Unknown keys are the client's own affair.

use std::collections::BTreeMap;
use std::path::Path;

use mcpmon_core::service::{HttpSpec, ServiceLimits, StdioSpec};
use mcpmon_core::settings::TransportKind;
use mcpmon_core::text::truncate;
use mcpmon_core::{Secret, ServiceSpec, Transport};
use serde_json::{Map, Value};

use super::kind::Dialect;
use crate::entry::Draft;
use crate::entry::expand::{Surroundings, Trouble};

/// Longest name taken from a file, in characters.
const LONGEST_NAME: usize = 200;

/// How the entries of one file are read.
pub(super) struct Reading<'a> {
    pub(super) dialect: Dialect,
    pub(super) limits: &'a ServiceLimits,
    pub(super) around: &'a Surroundings<'a>,
    /// The file, for people and messages.
    pub(super) file: &'a str,
    /// Where the services come from, for people.
    pub(super) origin: &'a str,
    /// The directory commands run in; ours when `None`.
    pub(super) cwd: Option<&'a Path>,
}

impl Reading<'_> {
    /// The service an entry describes; one that cannot be used says why.
    pub(super) fn service(&self, name: &str, entry: &Value) -> ServiceSpec {
        let name = if name.is_empty() { "unnamed" } else { name };
        let name = truncate(name, LONGEST_NAME);
        let mut draft = Draft::new(&name, self.file, self.dialect.syntax, self.around);
        let nothing = Map::new();
        let fields = entry.as_object().unwrap_or_else(|| {
            draft.fail("", Trouble::new("it is not a table of settings"));
            &nothing
        });
        let transport = self.transport(fields, &mut draft);
        ServiceSpec {
            enabled: is_enabled(fields),
            limits: self.limits.clone(),
            ..draft.finish(transport, self.origin.to_owned())
        }
    }

    fn transport(&self, fields: &Map<String, Value>, draft: &mut Draft<'_>) -> Transport {
        let declared = declared_kind(fields).unwrap_or_else(|trouble| {
            draft.fail("type", trouble);
            None
        });
        let has_command = is_given(fields.get("command"));
        let url = url(fields);
        let kind = match (has_command, url, declared) {
            (true, Some(_), None) => {
                draft.fail("", Trouble::new("it has both `command` and a URL, and no `type`"));
                TransportKind::Stdio
            }
            (true, None, Some(TransportKind::Http | TransportKind::Sse)) => {
                draft.fail("type", Trouble::new("this `type` needs a URL, but there is none"));
                TransportKind::Stdio
            }
            (false, Some((_, _, kind)), Some(TransportKind::Stdio)) => {
                draft
                    .fail("type", Trouble::new("this `type` needs a `command`, but there is none"));
                kind.unwrap_or(self.dialect.bare_url)
            }
            (_, _, Some(declared)) => declared,
            (true, None, None) => TransportKind::Stdio,
            (false, Some((_, _, kind)), None) => kind.unwrap_or(self.dialect.bare_url),
            (false, None, None) => {
                draft.fail("", unreachable_entry(fields));
                TransportKind::Stdio
            }
        };
        match kind {
            TransportKind::Stdio => Transport::Stdio(self.stdio(fields, draft)),
            TransportKind::Http => Transport::Http(http(fields, url, draft)),
            TransportKind::Sse => Transport::Sse(http(fields, url, draft)),
        }
    }

    fn stdio(&self, fields: &Map<String, Value>, draft: &mut Draft<'_>) -> StdioSpec {
        let mut env = BTreeMap::new();
        if let Some(path) = text_of(fields, &["envFile", "env_file"], draft) {
            draft.env_file("envFile", &path, &mut env);
        }
        for name in names_to_pass_on(fields) {
            // A name that is not set is passed on to nobody, as its client does.
            if let Some(value) = draft.variable_if_set(name) {
                env.insert(name.to_owned(), Secret::new(value));
            }
        }
        // Zed once wrote the whole command as one table.
        let inner = fields.get("command").and_then(Value::as_object).unwrap_or(fields);
        table(inner, &["env", "environment", "envs"], draft, &mut env);
        let (command, args) = command_line(fields, inner, draft);
        let cwd = text_of(fields, &["cwd", "workingDir"], draft);
        StdioSpec {
            command: draft.text("command", &command),
            args: draft.texts("args", args.iter().map(String::as_str)),
            env,
            cwd: match cwd {
                Some(cwd) => Some(draft.path("cwd", &cwd)),
                None => self.cwd.map(Path::to_owned),
            },
        }
    }
}

fn is_enabled(fields: &Map<String, Value>) -> bool {
    fields.get("enabled") != Some(&Value::Bool(false))
        && fields.get("disabled") != Some(&Value::Bool(true))
}

fn declared_kind(fields: &Map<String, Value>) -> Result<Option<TransportKind>, Trouble> {
    let keys = ["type", "transport", "transportType"];
    let Some(value) = keys.iter().find_map(|key| fields.get(*key)).filter(|value| !value.is_null())
    else {
        return Ok(None);
    };
    let word = value.as_str().unwrap_or_default();
    let plain: String = word.chars().filter(|c| !matches!(c, '-' | '_')).collect();
    match plain.to_ascii_lowercase().as_str() {
        "stdio" | "local" => Ok(Some(TransportKind::Stdio)),
        "http" | "streamablehttp" | "remote" | "httpurl" => Ok(Some(TransportKind::Http)),
        "sse" => Ok(Some(TransportKind::Sse)),
        _ => Err(Trouble::new(format!(
            "{value} is not a way mcpmon can reach a server (stdio, http or sse)"
        ))),
    }
}

type Url<'a> = (&'static str, &'a str, Option<TransportKind>);

/// The key, the text and, where the key says it, the transport.
fn url(fields: &Map<String, Value>) -> Option<Url<'_>> {
    let keys =
        [("httpUrl", Some(TransportKind::Http)), ("url", None), ("serverUrl", None), ("uri", None)];
    keys.into_iter().find_map(|(key, kind)| {
        let text = fields.get(key)?.as_str()?;
        (!text.is_empty()).then_some((key, text, kind))
    })
}

fn unreachable_entry(fields: &Map<String, Value>) -> Trouble {
    if fields.get("source").and_then(Value::as_str) == Some("extension")
        || is_given(fields.get("settings"))
    {
        return Trouble {
            variable: None,
            message: "an extension of the client starts it, by a command only the client knows"
                .to_owned(),
            next_step: Some("write the service in mcpmon.toml, with its command or URL".to_owned()),
        };
    }
    Trouble::new("it has neither `command` nor a URL")
}

fn is_given(value: Option<&Value>) -> bool {
    match value {
        None | Some(Value::Null) => false,
        Some(Value::String(text)) => !text.is_empty(),
        Some(Value::Array(items)) => !items.is_empty(),
        Some(_) => true,
    }
}

/// Program and arguments: apart, in one list, or in a table of their own.
fn command_line(
    fields: &Map<String, Value>,
    inner: &Map<String, Value>,
    draft: &mut Draft<'_>,
) -> (String, Vec<String>) {
    let args = list(inner, "args", draft);
    match fields.get("command") {
        Some(Value::Array(_)) => {
            let mut words = list(fields, "command", draft).into_iter();
            (words.next().unwrap_or_default(), words.chain(args).collect())
        }
        Some(Value::Object(_)) => (text_of(inner, &["path"], draft).unwrap_or_default(), args),
        _ => (text_of(fields, &["command"], draft).unwrap_or_default(), args),
    }
}

fn http(fields: &Map<String, Value>, url: Option<Url<'_>>, draft: &mut Draft<'_>) -> HttpSpec {
    let mut headers = BTreeMap::new();
    table(fields, &["headers", "http_headers"], draft, &mut headers);
    if let Some(options) = fields.get("requestOptions").and_then(Value::as_object) {
        table(options, &["headers"], draft, &mut headers);
    }
    if let Some(named) = fields.get("env_http_headers").and_then(Value::as_object) {
        for (header, variable) in named {
            let key = format!("env_http_headers.{header}");
            match variable.as_str() {
                Some(variable) => {
                    if let Some(value) = draft.variable(&key, variable) {
                        headers.insert(header.clone(), Secret::new(value));
                    }
                }
                None => draft.fail(&key, Trouble::new("this is not a variable's name")),
            }
        }
    }
    if let Some(variable) = text_of(fields, &["bearer_token_env_var"], draft)
        && let Some(token) = draft.variable("bearer_token_env_var", &variable)
    {
        headers.insert("Authorization".to_owned(), Secret::new(format!("Bearer {token}")));
    }
    let (key, url, _) = url.unwrap_or(("url", "", None));
    HttpSpec { url: draft.text(key, url), headers }
}

/// The names of `env_vars`: variables of ours that the client hands on.
fn names_to_pass_on(fields: &Map<String, Value>) -> impl Iterator<Item = &str> {
    let names = fields.get("env_vars").and_then(Value::as_array);
    names
        .into_iter()
        .flatten()
        .filter_map(|name| name.as_str().or_else(|| name.get("name")?.as_str()))
}

/// The text under the first of these keys that is there.
fn text_of(fields: &Map<String, Value>, keys: &[&str], draft: &mut Draft<'_>) -> Option<String> {
    let (key, value) = keys.iter().find_map(|key| Some((*key, fields.get(*key)?)))?;
    if value.is_null() {
        return None;
    }
    let text = scalar(value);
    if text.is_none() {
        draft.fail(key, Trouble::new("this is not text"));
    }
    text
}

fn list(fields: &Map<String, Value>, key: &str, draft: &mut Draft<'_>) -> Vec<String> {
    match fields.get(key) {
        None | Some(Value::Null) => Vec::new(),
        Some(Value::Array(items)) => {
            let texts: Vec<String> = items.iter().filter_map(scalar).collect();
            if texts.len() != items.len() {
                draft.fail(key, Trouble::new("this is not a list of texts"));
            }
            texts
        }
        Some(_) => {
            draft.fail(key, Trouble::new("this is not a list of texts"));
            Vec::new()
        }
    }
}

/// Adds the texts of a table, filled in; a null unsets.
fn table(
    fields: &Map<String, Value>,
    keys: &[&str],
    draft: &mut Draft<'_>,
    into: &mut BTreeMap<String, Secret>,
) {
    let Some((key, value)) = keys.iter().find_map(|key| Some((*key, fields.get(*key)?))) else {
        return;
    };
    let Some(items) = value.as_object() else {
        if !value.is_null() {
            draft.fail(key, Trouble::new("this is not a table of texts"));
        }
        return;
    };
    for (name, value) in items {
        let path = format!("{key}.{name}");
        match scalar(value) {
            Some(text) => {
                let text = draft.text(&path, &text);
                into.insert(name.clone(), Secret::new(text));
            }
            None if value.is_null() => {
                into.remove(name);
            }
            None => draft.fail(&path, Trouble::new("this is not text")),
        }
    }
}

fn scalar(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        Value::Bool(truth) => Some(truth.to_string()),
        Value::Null | Value::Array(_) | Value::Object(_) => None,
    }
}
