//! `xtask/words.toml`: how many names and comments still break each rule.
//!
//! Counts are kept by crate and not by file, so that moving code inside a crate changes nothing
//! and two branches seldom change the same line.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context as _, Result};
use serde::Deserialize;

use super::scan::List;

/// The file, from the root of the workspace.
pub(super) const BASELINE_PATH: &str = "xtask/words.toml";

/// The committed counts. What is not listed has the count 0.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Baseline {
    /// By crate.
    #[serde(default)]
    counts: BTreeMap<String, BTreeMap<List, usize>>,
    #[serde(default)]
    retired_words: BTreeMap<String, usize>,
    /// By crate.
    #[serde(default)]
    retired_names: BTreeMap<String, BTreeMap<String, usize>>,
}

impl Baseline {
    /// Reads the committed counts.
    ///
    /// # Errors
    ///
    /// If the file cannot be read or has another shape.
    pub(super) fn load_committed(root: &Path) -> Result<Self> {
        let path = root.join(BASELINE_PATH);
        let text = std::fs::read_to_string(&path)
            .with_context(|| format!("cannot read `{}`", path.display()))?;
        Self::parse_toml(&text).with_context(|| format!("`{}` is invalid", path.display()))
    }

    pub(super) fn parse_toml(text: &str) -> Result<Self, toml::de::Error> {
        toml::from_str(text)
    }

    /// Returns the words that no name may have anywhere, the ones that are gone included.
    pub(super) fn list_retired_words(&self) -> impl Iterator<Item = &str> {
        self.retired_words.keys().map(String::as_str)
    }

    /// Returns the names that `package` may not have, the ones that are gone included.
    pub(super) fn list_retired_names(&self, package: &str) -> impl Iterator<Item = &str> {
        self.retired_names
            .get(package)
            .into_iter()
            .flat_map(|names| names.keys().map(String::as_str))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unknown_list_is_an_error() {
        assert!(Baseline::parse_toml("[counts.a]\nlong_functions = 3\n").is_err());
        assert!(Baseline::parse_toml("[count.a]\none_word_functions = 3\n").is_err());
    }
}
