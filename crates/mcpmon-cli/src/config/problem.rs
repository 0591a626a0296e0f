//! What is wrong with a configuration, in words that say where and what to do.

use std::fmt;
use std::path::{Path, PathBuf};

use serde::Serialize;

use super::de::{ErrorKind, ReadError};
use super::tree::{self, Node, Position, Step};

/// One thing that is wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// The file, where there is one.
    pub path: Option<PathBuf>,
    /// Where in it.
    pub at: Option<Position>,
    /// What is wrong, and what to do.
    pub message: String,
}

impl Problem {
    /// A problem with a file as a whole.
    pub fn of_file(path: &Path, message: impl Into<String>) -> Self {
        Self { path: Some(path.to_owned()), at: None, message: message.into() }
    }

    pub(crate) fn at(path: &Path, at: Position, message: impl Into<String>) -> Self {
        Self { at: Some(at), ..Self::of_file(path, message) }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.path, self.at) {
            (Some(path), Some(at)) => write!(f, "{}:{at}: ", path.display())?,
            (Some(path), None) => write!(f, "{}: ", path.display())?,
            (None, _) => {}
        }
        f.write_str(&self.message)
    }
}

impl Serialize for Problem {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        use serde::ser::SerializeStruct as _;
        let mut object = serializer.serialize_struct("Problem", 4)?;
        object.serialize_field("path", &self.path)?;
        object.serialize_field("line", &self.at.map(|at| at.line))?;
        object.serialize_field("column", &self.at.map(|at| at.column))?;
        object.serialize_field("message", &self.message)?;
        object.end()
    }
}

/// A configuration cannot be used: everything that is wrong with it, in the order of the file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigError {
    problems: Vec<Problem>,
}

impl ConfigError {
    pub(crate) fn new(mut problems: Vec<Problem>) -> Self {
        problems.sort_by(|a, b| (&a.path, a.at).cmp(&(&b.path, b.at)));
        problems.dedup();
        Self { problems }
    }

    /// Everything that is wrong, in the order of the file.
    pub fn problems(&self) -> &[Problem] {
        &self.problems
    }
}

impl From<Problem> for ConfigError {
    fn from(problem: Problem) -> Self {
        Self::new(vec![problem])
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, problem) in self.problems.iter().enumerate() {
            if index > 0 {
                f.write_str("\n")?;
            }
            write!(f, "{problem}")?;
        }
        Ok(())
    }
}

impl std::error::Error for ConfigError {}

/// The word of `known` that was probably meant.
pub(crate) fn closest<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let word = word.to_lowercase();
    let allowed = (word.chars().count() / 3).max(1);
    known
        .into_iter()
        .map(|candidate| {
            let distance = strsim::damerau_levenshtein(&word, &candidate.to_lowercase());
            (distance, candidate)
        })
        .filter(|(distance, _)| *distance <= allowed)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

/// `; did you mean …?`, or what there is to choose from, or nothing.
pub(crate) fn suggestion<'a>(
    word: &str,
    known: impl IntoIterator<Item = &'a str> + Clone,
) -> String {
    if let Some(meant) = closest(word, known.clone()) {
        return format!("; did you mean `{meant}`?");
    }
    let known: Vec<&str> = known.into_iter().collect();
    match known.len() {
        0 => String::new(),
        1..=16 => format!("; there is {}", list(&known)),
        _ => "; `mcpmon config schema` lists what there is".to_owned(),
    }
}

fn list(words: &[&str]) -> String {
    let quoted: Vec<String> = words.iter().map(|word| format!("`{word}`")).collect();
    quoted.join(", ")
}

/// What was meant, if it is near; what there is instead would be too long a list.
pub(crate) fn near<'a>(word: &str, known: impl Iterator<Item = &'a str> + Clone) -> Option<String> {
    Some(suggestion(word, known)).filter(|words| words.contains("did you mean"))
}

/// Says what is wrong where the reader stopped.
pub(crate) fn describe(file: &Path, tree: &Node, error: &ReadError) -> Problem {
    let place = tree::spell(&error.path);
    match &error.kind {
        ErrorKind::UnknownKey { key, known } => {
            let parents = &error.path[..error.path.len().saturating_sub(1)];
            let inside = match tree::spell(parents) {
                place if place.is_empty() => String::new(),
                place => format!(" in `{place}`"),
            };
            let advice = match closest(key, known.iter().copied()) {
                None => elsewhere(key, parents)
                    .unwrap_or_else(|| suggestion(key, known.iter().copied())),
                Some(meant) => format!("; did you mean `{meant}`?"),
            };
            let at = tree.locate_key(&error.path);
            Problem::at(file, at, format!("unknown key `{key}`{inside}{advice}"))
        }
        ErrorKind::UnknownWord { word, known } => {
            let advice = suggestion(word, known.iter().copied());
            let message = format!("`{word}` cannot be used for `{place}`{advice}");
            Problem::at(file, tree.locate(&error.path), message)
        }
        ErrorKind::MissingKey(key) => {
            let inside = if place.is_empty() { "the file" } else { &place };
            let message = format!("`{inside}` lacks the key `{key}`; add it");
            Problem::at(file, tree.locate(&error.path), message)
        }
        ErrorKind::Other(message) => {
            let message = match place.as_str() {
                "" => message.clone(),
                place => format!("`{place}`: {message}"),
            };
            Problem::at(file, tree.locate(&error.path), message)
        }
    }
}

/// Whether another section has this key: the usual slip is a right key under a wrong heading.
fn elsewhere(key: &str, parents: &[Step]) -> Option<String> {
    let defaults = serde_json::to_value(mcpmon_core::Settings::default()).ok()?;
    let sections: Vec<&String> = defaults
        .as_object()?
        .iter()
        .filter(|(section, value)| {
            parents != [Step::from(section.as_str())].as_slice() && value.get(key).is_some()
        })
        .map(|(section, _)| section)
        .collect();
    match sections.as_slice() {
        [section] => Some(format!("; it belongs in `[{section}]`")),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_near_word_is_suggested() {
        let known = ["check_interval", "enabled"];
        assert_eq!(closest("check_intervall", known), Some("check_interval"));
        assert_eq!(closest("Enabeld", known), Some("enabled"));
        assert_eq!(closest("colour", known), None);
    }

    #[test]
    fn a_problem_reads_as_a_place_and_a_sentence() {
        let at = Position { line: 3, column: 7 };
        let problem = Problem::at(Path::new("m.toml"), at, "odd");
        assert_eq!(problem.to_string(), "m.toml:3:7: odd");
    }
}
