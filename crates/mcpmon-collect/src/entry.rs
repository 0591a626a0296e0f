//! Turns one written entry into a [`ServiceSpec`]: fills in variables, reads secrets' sources and
//! the entry's own files, and keeps why it cannot be used.
//!
//! An entry that contradicts itself is an error of the configuration and nothing starts
//! ([`EntryError`]). An entry that is right but cannot be used here and now (a variable is not set,
//! a file is missing) becomes a service that is `unknown` and says so, and stops nothing else.

pub(crate) mod env_file;
pub(crate) mod expand;
mod files;
mod written;

use std::cell::Cell;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use mcpmon_core::service::{HttpSpec, ServiceLimits, StdioSpec};
use mcpmon_core::settings::{SecretRef, ServiceEntry, TransportKind};
use mcpmon_core::{Failure, FailureCode, Phase, Secret, ServiceSpec, Transport};

use crate::environment::Variables;
use expand::{Surroundings, Syntax, Trouble, expand};
pub(crate) use files::{Unread, read as read_bytes, read_capped};
pub(crate) use written::secrets_in_arguments;

/// What the entries of our own configuration can refer to.
#[derive(Clone, Copy)]
pub struct EntryContext<'a> {
    /// The directory of the file; relative paths are below it.
    pub dir: &'a Path,
    /// The variables to fill in.
    pub vars: &'a Variables,
    /// The file, for people: its path, or where else the entry came from.
    pub origin: &'a str,
    /// Runs a secret's `{ command = […] }` and gives what it prints, or why not. Nothing here
    /// starts a process by itself.
    pub run: &'a dyn Fn(&[String]) -> Result<String, String>,
}

impl EntryContext<'_> {
    fn surroundings(&self) -> Surroundings<'_> {
        Surroundings {
            vars: self.vars,
            home: None,
            folder: self.dir,
            read: &read_capped,
            filled_in: Cell::new(0),
        }
    }
}

/// An entry contradicts itself; no environment could make it right.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("service `{service}`: {message}")]
pub struct EntryError {
    /// The service's name.
    pub service: String,
    /// What is wrong and what to do, a lowercase fragment.
    pub message: String,
}

/// A secret's source cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct SecretError {
    /// The variable that is not set, when that is why.
    pub variable: Option<String>,
    /// What is wrong, a lowercase fragment.
    pub message: String,
}

/// Reads a secret from where the configuration says it is. Reads files; may block.
///
/// # Errors
///
/// When a variable is not set, a file is missing, empty or over 1 MB, or the command fails or
/// prints nothing.
pub fn resolve_secret(
    source: &SecretRef,
    context: &EntryContext<'_>,
) -> Result<Secret, SecretError> {
    let around = context.surroundings();
    secret(source, &around, context.run, &mut Vec::new())
        .map_err(|trouble| SecretError { variable: trouble.variable, message: trouble.message })
}

fn secret(
    source: &SecretRef,
    around: &Surroundings<'_>,
    run: &dyn Fn(&[String]) -> Result<String, String>,
    secrets: &mut Vec<Secret>,
) -> Result<Secret, Trouble> {
    match source {
        SecretRef::Text(text) => {
            expand(text.expose(), Syntax::Own, around, secrets).map(Secret::new)
        }
        SecretRef::Env(name) => match around.vars.get(name) {
            Some(value) => Ok(Secret::new(value)),
            None => Err(Trouble::unset(name)),
        },
        SecretRef::File(path) => expand::file(&path.to_string_lossy(), around, secrets),
        SecretRef::Command(argv) => {
            let program = argv.first().map_or("", String::as_str);
            let printed = run(argv).map_err(|error| {
                Trouble::new(format!("its command `{program}` failed: {error}"))
            })?;
            match expand::without_last_break(&printed) {
                "" => Err(Trouble::new(format!("its command `{program}` printed nothing"))),
                value => Ok(Secret::new(value)),
            }
        }
    }
}

/// The service that an entry of our own `[services.NAME]` describes. Reads files; may block.
///
/// A variable that is not set, or a file of the entry's own that cannot be read, makes a service
/// with [`ServiceSpec::invalid`]; the rest of the configuration is not touched by it.
///
/// # Errors
///
/// When the entry has both `command` and `url`, neither, or a `type` that does not fit.
pub fn spec_from_entry(
    name: &str,
    entry: &ServiceEntry,
    limits: &ServiceLimits,
    context: &EntryContext<'_>,
) -> Result<ServiceSpec, EntryError> {
    let kind =
        own_kind(entry).map_err(|message| EntryError { service: name.to_owned(), message })?;
    let around = context.surroundings();
    let mut draft = Draft::new(name, context.origin, Syntax::Own, &around);
    let transport = match kind {
        TransportKind::Stdio => Transport::Stdio(own_stdio(entry, context, &mut draft)),
        TransportKind::Http => Transport::Http(own_http(entry, context, &mut draft)),
        TransportKind::Sse => Transport::Sse(own_http(entry, context, &mut draft)),
    };
    let spec = draft.finish(transport, context.origin.to_owned());
    Ok(ServiceSpec {
        enabled: entry.is_enabled(),
        protocol: entry.protocol,
        mode: entry.mode,
        terminate_session: entry.terminate_session.unwrap_or(true),
        labels: entry.labels.clone(),
        depends_on: entry.depends_on.clone(),
        limits: entry.limits(limits),
        functional: entry.functional.clone(),
        remediation: entry.remediation.clone(),
        ..spec
    })
}

fn own_kind(entry: &ServiceEntry) -> Result<TransportKind, String> {
    use TransportKind::{Http, Sse, Stdio};
    match (&entry.command, &entry.url, entry.kind) {
        (Some(_), Some(_), _) => {
            Err("it has both `command` and `url`; keep the one it is reached by".to_owned())
        }
        (None, None, _) => {
            Err("it has neither `command` nor `url`; give the one it is reached by".to_owned())
        }
        (Some(_), None, None | Some(Stdio)) => Ok(Stdio),
        (None, Some(_), None | Some(Http)) => Ok(Http),
        (None, Some(_), Some(Sse)) => Ok(Sse),
        (Some(_), None, Some(Http | Sse)) => {
            Err("its `type` is reached by `url`, but it has `command`".to_owned())
        }
        (None, Some(_), Some(Stdio)) => {
            Err("its `type` is reached by `command`, but it has `url`".to_owned())
        }
    }
}

fn own_stdio(entry: &ServiceEntry, context: &EntryContext<'_>, draft: &mut Draft<'_>) -> StdioSpec {
    let command = entry.command.as_deref().unwrap_or_default();
    let mut env = BTreeMap::new();
    if let Some(path) = &entry.env_file {
        draft.env_file("env_file", &path.to_string_lossy(), &mut env);
    }
    own_secrets("env", &entry.env, context, draft, &mut env);
    StdioSpec {
        command: draft.text("command", command),
        args: draft.texts("args", entry.args.iter().map(String::as_str)),
        env,
        cwd: entry.cwd.as_ref().map(|cwd| draft.path("cwd", &cwd.to_string_lossy())),
    }
}

fn own_http(entry: &ServiceEntry, context: &EntryContext<'_>, draft: &mut Draft<'_>) -> HttpSpec {
    let mut headers = BTreeMap::new();
    own_secrets("headers", &entry.headers, context, draft, &mut headers);
    HttpSpec { url: draft.text("url", entry.url.as_deref().unwrap_or_default()), headers }
}

fn own_secrets(
    table: &str,
    sources: &BTreeMap<String, SecretRef>,
    context: &EntryContext<'_>,
    draft: &mut Draft<'_>,
    into: &mut BTreeMap<String, Secret>,
) {
    for (name, source) in sources {
        match secret(source, draft.around, context.run, &mut draft.secrets) {
            Ok(value) => {
                into.insert(name.clone(), value);
            }
            Err(trouble) => draft.fail(&format!("{table}.{name}"), trouble),
        }
    }
}

/// A service being read: what was filled in so far, and the first thing that was wrong.
///
/// Reading goes on after the first trouble, so that the service still shows where it would lead.
pub(crate) struct Draft<'a> {
    name: &'a str,
    file: &'a str,
    syntax: Syntax,
    around: &'a Surroundings<'a>,
    secrets: Vec<Secret>,
    failure: Option<Failure>,
}

impl<'a> Draft<'a> {
    pub(crate) fn new(
        name: &'a str,
        file: &'a str,
        syntax: Syntax,
        around: &'a Surroundings<'a>,
    ) -> Self {
        Self { name, file, syntax, around, secrets: Vec::new(), failure: None }
    }

    /// Notes why the entry cannot be used; the first reason is kept.
    pub(crate) fn fail(&mut self, key: &str, trouble: Trouble) {
        if self.failure.is_some() {
            return;
        }
        let message = format!(
            "`{}` in {}, {}: {}",
            self.name,
            self.file,
            if key.is_empty() { "whole entry".to_owned() } else { format!("`{key}`") },
            trouble.message
        );
        let mut failure = Failure::new(FailureCode::ConfigurationInvalid, Phase::Prepare, message)
            .with("file", self.file)
            .with("entry", self.name)
            .with("key", key);
        if let Some(variable) = trouble.variable {
            failure = failure.with("variable", variable);
        }
        if let Some(next_step) = trouble.next_step {
            failure = failure.advising(next_step);
        }
        self.failure = Some(failure);
    }

    /// The text filled in; as it was written where that cannot be.
    pub(crate) fn text(&mut self, key: &str, text: &str) -> String {
        match expand(text, self.syntax, self.around, &mut self.secrets) {
            Ok(text) => text,
            Err(trouble) => {
                self.fail(key, trouble);
                text.to_owned()
            }
        }
    }

    /// Several texts filled in.
    pub(crate) fn texts<'t>(
        &mut self,
        key: &str,
        texts: impl IntoIterator<Item = &'t str>,
    ) -> Vec<String> {
        let numbered = texts.into_iter().enumerate();
        numbered.map(|(at, text)| self.text(&format!("{key}[{at}]"), text)).collect()
    }

    /// A path filled in, below the folder where it is relative.
    pub(crate) fn path(&mut self, key: &str, text: &str) -> PathBuf {
        self.around.folder.join(self.text(key, text))
    }

    /// The value of a variable named as such (`bearer_token_env_var`), not by a template.
    pub(crate) fn variable(&mut self, key: &str, name: &str) -> Option<&'a str> {
        let value = self.variable_if_set(name);
        if value.is_none() {
            self.fail(key, Trouble::unset(name));
        }
        value
    }

    /// The same for a variable that may be left unset.
    pub(crate) fn variable_if_set(&mut self, name: &str) -> Option<&'a str> {
        let value = self.around.vars.get(name)?;
        self.secrets.push(Secret::new(value));
        Some(value)
    }

    /// Adds what a file of `NAME=value` lines sets.
    pub(crate) fn env_file(&mut self, key: &str, path: &str, into: &mut BTreeMap<String, Secret>) {
        let path = self.path(key, path);
        match (self.around.read)(&path) {
            Ok(text) => {
                let set = env_file::parse(&text).into_iter();
                into.extend(set.map(|(name, value)| (name, Secret::new(value))));
            }
            Err(error) => self.fail(
                key,
                Trouble::new(format!("its file `{}` cannot be read: {error}", path.display())),
            ),
        }
    }

    /// The service, with default limits and what is common to every entry.
    pub(crate) fn finish(mut self, transport: Transport, origin: String) -> ServiceSpec {
        if let Some((key, message)) = unusable(&transport) {
            self.fail(&key, Trouble::new(message));
        }
        self.secrets.extend(written::secrets(&transport));
        ServiceSpec {
            invalid: self.failure,
            origin,
            secrets: self.secrets,
            ..ServiceSpec::new(self.name, transport)
        }
    }
}

/// What no process or request could be made of, with its key.
fn unusable(transport: &Transport) -> Option<(String, String)> {
    let found = |key: &str, message: &str| Some((key.to_owned(), message.to_owned()));
    match transport {
        Transport::Stdio(stdio) => {
            if stdio.command.trim().is_empty() {
                return found("command", "it is empty");
            }
            let has_nul = |text: &str| text.contains('\0');
            let cwd = stdio.cwd.as_ref().map(|cwd| cwd.to_string_lossy());
            if has_nul(&stdio.command)
                || stdio.args.iter().any(|arg| has_nul(arg))
                || stdio.env.values().any(|value| has_nul(value.expose()))
                || cwd.is_some_and(|cwd| has_nul(&cwd))
            {
                return found("command", "it holds a NUL character, which no program can be given");
            }
            let bad = |name: &&String| name.is_empty() || name.contains(['=', '\0']);
            let name = stdio.env.keys().find(bad)?;
            Some((format!("env.{name}"), "this is not a variable's name".to_owned()))
        }
        Transport::Http(http) | Transport::Sse(http) => {
            let scheme = http.url.split_once("://").map(|(scheme, _)| scheme.to_ascii_lowercase());
            if !matches!(scheme.as_deref(), Some("http" | "https")) {
                return found("url", "it begins with neither http:// nor https://");
            }
            if http.url.contains(|c: char| c.is_control() || c == ' ') {
                return found("url", "it holds a space or a control character");
            }
            let bad = |(name, value): &(&String, &Secret)| {
                !is_header_name(name) || value.expose().contains(['\r', '\n', '\0'])
            };
            let (name, _) = http.headers.iter().find(bad)?;
            Some((format!("headers.{name}"), "this is not a valid HTTP header".to_owned()))
        }
    }
}

/// RFC 9110, section 5.6.2: a token.
fn is_header_name(name: &str) -> bool {
    !name.is_empty()
        && name
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte))
}

#[cfg(test)]
mod tests;
