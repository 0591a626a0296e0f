//! `xtask/words.toml`: how many names and comments still break each rule.
//!
//! Counts are kept by crate and not by file, so that moving code inside a crate changes nothing
//! and two branches seldom change the same line.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context as _, Result};
use serde::{Deserialize, Serialize};

use super::scan::{Hit, List, Subject};

/// The file, from the root of the workspace.
pub(super) const BASELINE_PATH: &str = "xtask/words.toml";

const HEADER: &str = "\
# Names and comments that break the rules of docs/architecture.md (\"Names\" and \"Prose\"), as many
# as there are. The numbers only shrink: `cargo xtask tidy words` lists every hit, and
# `cargo xtask tidy words --lower` writes lower counts here and never a higher one.
#
# After a merge conflict keep the higher number of each line and run it. Code that moves to another
# crate takes its hits along: raise the numbers of that crate by hand, by as many, and run it.
#
# `retired_words` may be no whole word of any name, `retired_names` are names in one crate. At 0
# a name is gone and may not come back. To retire another, add it with a number that is too high,
# run `--lower`, and give its replacement in the dictionary of docs/architecture.md.

";

/// The committed counts. What is not listed has the count 0.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, Serialize)]
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

/// A count that is not the committed one.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Change {
    pub(super) subject: Subject,
    pub(super) committed: usize,
    pub(super) found: usize,
}

impl Change {
    /// Returns whether there is more to change than before.
    pub(super) fn is_rise(&self) -> bool {
        self.found > self.committed
    }
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

    /// Writes the counts over the committed ones.
    ///
    /// # Errors
    ///
    /// If the file cannot be written.
    pub(super) fn write_to(&self, root: &Path) -> Result<()> {
        let path = root.join(BASELINE_PATH);
        std::fs::write(&path, self.to_toml()?)
            .with_context(|| format!("cannot write `{}`", path.display()))
    }

    fn to_toml(&self) -> Result<String> {
        let counts = toml::to_string(self).context("the counts cannot be written as TOML")?;
        Ok(format!("{HEADER}{counts}"))
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

    /// Returns how often each retired word and name is found, the ones that are gone included.
    pub(super) fn count_retired(&self, hits: &[Hit]) -> BTreeMap<Subject, usize> {
        let mut counts = self.list_counts();
        counts.retain(|subject, _| !matches!(subject, Subject::Listed { .. }));
        for (subject, count) in &mut counts {
            *count = hits.iter().filter(|hit| hit.subject == *subject).count();
        }
        counts
    }

    /// Returns every count that differs from the committed one.
    pub(super) fn compare_with(&self, hits: &[Hit]) -> Vec<Change> {
        let mut found: BTreeMap<Subject, usize> = BTreeMap::new();
        for hit in hits {
            *found.entry(hit.subject.clone()).or_default() += 1;
        }
        let mut committed = self.list_counts();
        for subject in found.keys() {
            committed.entry(subject.clone()).or_default();
        }
        committed
            .into_iter()
            .map(|(subject, committed)| {
                let found = found.get(&subject).copied().unwrap_or_default();
                Change { subject, committed, found }
            })
            .filter(|change| change.committed != change.found)
            .collect()
    }

    /// Takes over the counts that fell and leaves those that rose as they are.
    pub(super) fn lower_counts(&mut self, changes: &[Change]) {
        for change in changes.iter().filter(|change| !change.is_rise()) {
            match &change.subject {
                Subject::Listed { list, package } => {
                    let lists = self.counts.entry(package.clone()).or_default();
                    lists.insert(*list, change.found);
                    lists.retain(|_, count| *count > 0);
                }
                Subject::RetiredWord(word) => {
                    self.retired_words.insert(word.clone(), change.found);
                }
                Subject::RetiredName { package, name } => {
                    let names = self.retired_names.entry(package.clone()).or_default();
                    names.insert(name.clone(), change.found);
                }
            }
        }
        self.counts.retain(|_, lists| !lists.is_empty());
    }

    fn list_counts(&self) -> BTreeMap<Subject, usize> {
        let listed = self.counts.iter().flat_map(|(package, lists)| {
            lists.iter().map(|(list, count)| {
                (Subject::Listed { list: *list, package: package.clone() }, *count)
            })
        });
        let words = self
            .retired_words
            .iter()
            .map(|(word, count)| (Subject::RetiredWord(word.clone()), *count));
        let names = self.retired_names.iter().flat_map(|(package, names)| {
            names.iter().map(|(name, count)| {
                let subject = Subject::RetiredName { package: package.clone(), name: name.clone() };
                (subject, *count)
            })
        });
        listed.chain(words).chain(names).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const COMMITTED: &str = "\
[counts.a]
one_word_functions = 2
speech_in_comments = 1

[retired_words]
told = 1

[retired_names.a]
World = 1
";

    fn parse(text: &str) -> Baseline {
        Baseline::parse_toml(text).unwrap()
    }

    fn listed(list: List, package: &str) -> Subject {
        Subject::Listed { list, package: package.to_owned() }
    }

    fn hit(subject: Subject) -> Hit {
        Hit { subject, path: "a.rs".to_owned(), line: 1, text: "x".to_owned() }
    }

    fn retired_name() -> Subject {
        Subject::RetiredName { package: "a".to_owned(), name: "World".to_owned() }
    }

    #[test]
    fn counts_that_are_as_committed_are_no_change() {
        let one_word = listed(List::OneWordFunctions, "a");
        let hits = [
            hit(one_word.clone()),
            hit(one_word),
            hit(listed(List::SpeechInComments, "a")),
            hit(Subject::RetiredWord("told".to_owned())),
            hit(retired_name()),
        ];
        assert_eq!(parse(COMMITTED).compare_with(&hits), []);
    }

    #[test]
    fn what_rose_and_what_fell_is_known_with_both_numbers() {
        let hits = [
            hit(listed(List::OneWordFunctions, "a")),
            hit(listed(List::OneWordFunctions, "b")),
            hit(listed(List::SpeechInComments, "a")),
            hit(Subject::RetiredWord("told".to_owned())),
            hit(Subject::RetiredWord("told".to_owned())),
        ];
        let changes: Vec<_> = parse(COMMITTED)
            .compare_with(&hits)
            .into_iter()
            .map(|change| (change.subject, change.committed, change.found))
            .collect();
        assert_eq!(
            changes,
            [
                (listed(List::OneWordFunctions, "a"), 2, 1),
                (listed(List::OneWordFunctions, "b"), 0, 1),
                (Subject::RetiredWord("told".to_owned()), 1, 2),
                (retired_name(), 1, 0),
            ]
        );
    }

    #[test]
    fn lowering_takes_falls_alone_and_keeps_the_names_that_are_gone() {
        let mut baseline = parse(COMMITTED);
        let changes = baseline.compare_with(&[
            hit(listed(List::OneWordFunctions, "a")),
            hit(Subject::RetiredWord("told".to_owned())),
            hit(Subject::RetiredWord("told".to_owned())),
        ]);
        baseline.lower_counts(&changes);
        let written = baseline.to_toml().unwrap();
        assert!(written.starts_with("# Names and comments"), "{written}");
        assert_eq!(
            parse(&written),
            parse(
                "[counts.a]\none_word_functions = 1\n[retired_words]\ntold = 1\n\
                 [retired_names.a]\nWorld = 0\n"
            )
        );
    }

    #[test]
    fn a_crate_without_hits_has_no_line() {
        let mut baseline = parse("[counts.a]\nbare_participles = 3\n");
        let changes = baseline.compare_with(&[]);
        baseline.lower_counts(&changes);
        assert_eq!(baseline, Baseline::default());
    }

    #[test]
    fn retired_names_are_counted_even_if_none_is_found() {
        let told = Subject::RetiredWord("told".to_owned());
        let hits = [hit(told.clone()), hit(told.clone()), hit(listed(List::BareParticiples, "a"))];
        assert_eq!(parse(COMMITTED).count_retired(&hits), [(told, 2), (retired_name(), 0)].into());
    }

    #[test]
    fn an_unknown_list_is_an_error() {
        assert!(Baseline::parse_toml("[counts.a]\nlong_functions = 3\n").is_err());
        assert!(Baseline::parse_toml("[count.a]\none_word_functions = 3\n").is_err());
    }
}
