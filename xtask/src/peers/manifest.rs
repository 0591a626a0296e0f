//! `peers.json`: what is installed and how to start it, as `tests/peers/README.md` documents it.

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;

use anyhow::{Context as _, Result};
use serde::Serialize;

/// The whole file.
#[derive(Debug, Serialize)]
pub(super) struct Manifest {
    schema: &'static str,
    pub(super) peers: BTreeMap<String, Peer>,
}

impl Default for Manifest {
    fn default() -> Self {
        Self { schema: "mcpmon/peers/v1", peers: BTreeMap::new() }
    }
}

/// One peer; a command or a folder if it is there, else the reason why not.
#[derive(Debug, Default, Serialize)]
pub(super) struct Peer {
    pub(super) ok: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) version: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) command: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) args: Option<Vec<String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) env: Option<BTreeMap<String, String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) path: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) reason: Option<String>,
}

impl Peer {
    /// A program.
    pub(super) fn command(version: &str, command: &Path, args: Vec<String>) -> Self {
        Self {
            ok: true,
            version: Some(version.to_owned()),
            command: Some(command.display().to_string()),
            args: Some(args),
            env: Some(BTreeMap::new()),
            ..Self::default()
        }
    }

    /// A folder.
    pub(super) fn folder(version: &str, path: &Path) -> Self {
        Self {
            ok: true,
            version: Some(version.to_owned()),
            path: Some(path.display().to_string()),
            ..Self::default()
        }
    }

    /// Not there.
    pub(super) fn missing(reason: &str) -> Self {
        Self { reason: Some(reason.to_owned()), ..Self::default() }
    }

    /// Adds a variable to the program's environment.
    pub(super) fn with_env(mut self, name: &str, value: &str) -> Self {
        self.env.get_or_insert_default().insert(name.to_owned(), value.to_owned());
        self
    }
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.version, &self.reason) {
            (_, Some(reason)) => write!(f, "MISSING: {reason}"),
            (Some(version), None) => f.write_str(version),
            (None, None) => f.write_str("there"),
        }
    }
}

impl Manifest {
    /// Writes the file whole or not at all: a test may be reading it.
    pub(super) fn write(&self, path: &Path) -> Result<()> {
        let text = serde_json::to_string_pretty(self).context("peers.json cannot be rendered")?;
        let beside = path.with_extension("json.new");
        std::fs::write(&beside, text + "\n")
            .and_then(|()| std::fs::rename(&beside, path))
            .with_context(|| format!("cannot write `{}`", path.display()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_peer_has_a_reason_and_nothing_else() {
        assert_eq!(
            serde_json::to_string(&Peer::missing("`npm` is not on PATH")).unwrap(),
            r#"{"ok":false,"reason":"`npm` is not on PATH"}"#
        );
    }

    #[test]
    fn a_program_says_how_to_start_it() {
        let peer = Peer::command("1.2.3", Path::new("/bin/node"), vec!["a.js".to_owned()])
            .with_env("PORT", "0");
        assert_eq!(
            serde_json::to_string(&peer).unwrap(),
            r#"{"ok":true,"version":"1.2.3","command":"/bin/node","args":["a.js"],"env":{"PORT":"0"}}"#
        );
    }
}
