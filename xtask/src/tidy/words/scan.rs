//! From the files of the workspace to every hit of every list.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::num::NonZero;
use std::path::Path;

use anyhow::{Result, bail};
use serde::{Deserialize, Serialize};

use super::baseline::Baseline;
use super::comments::list_comment_lines;
use super::declarations::{Declaration, Declarations, Kind, read_declarations};
use super::names;
use crate::tidy::sources::Source;

/// What is counted by crate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum List {
    /// Functions whose name has no object: `check`, `run`.
    OneWordFunctions,
    /// Those of them that are a participle: `observed`, `kept`.
    BareParticiples,
    /// Lines of comments with a verb that only people can be the subject of.
    SpeechInComments,
}

impl fmt::Display for List {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::OneWordFunctions => "function names of one word",
            Self::BareParticiples => "function names that are a bare participle",
            Self::SpeechInComments => "comment lines with a verb of speech",
        })
    }
}

/// What a hit is counted under.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Subject {
    Listed { list: List, package: String },
    RetiredWord(String),
    RetiredName { package: String, name: String },
}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Listed { list, package } => write!(f, "{package}: {list}"),
            Self::RetiredWord(word) => write!(f, "names with the retired word `{word}`"),
            Self::RetiredName { package, name } => {
                write!(f, "{package}: declarations of the retired name `{name}`")
            }
        }
    }
}

/// A name or a comment that breaks a rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Hit {
    pub(super) subject: Subject,
    pub(super) path: String,
    /// Counted from 1.
    pub(super) line: usize,
    /// The name, or the line of the comment.
    pub(super) text: String,
}

impl fmt::Display for Hit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {}", self.path, self.line, self.text)
    }
}

/// Returns the crate a file is counted under, by its folder; `None` for what is not counted: other
/// files than Rust's, and tests.
pub(super) fn find_package(path: &str) -> Option<&str> {
    let mut parts = path.strip_prefix("crates/").unwrap_or(path).split('/');
    let package = parts.next()?;
    // A file beside the root manifest is of no crate.
    parts.next()?;
    let is_counted = path.ends_with(".rs") && !path.split('/').any(|part| part == "tests");
    is_counted.then_some(package)
}

/// Returns every hit in these files, sorted by subject, path and line.
///
/// # Errors
///
/// If a file is not Rust, with its path.
pub(super) fn scan_sources(sources: &[&Source], baseline: &Baseline) -> Result<Vec<Hit>> {
    let counted: Vec<(&str, &Source)> =
        sources.iter().filter_map(|source| Some((find_package(&source.path)?, *source))).collect();
    let read = read_in_threads(&counted)?;

    let mut fields: BTreeMap<&str, BTreeSet<(&str, &str)>> = BTreeMap::new();
    for (file, (package, _)) in read.iter().zip(&counted) {
        let of_package = fields.entry(package).or_default();
        of_package.extend(file.names.iter().filter_map(|declaration| match &declaration.kind {
            Kind::Field { owner } => Some((owner.as_str(), declaration.name.as_str())),
            _ => None,
        }));
    }
    let is_for_tests = |source: &Source| {
        let path = Path::new(&source.path);
        read.iter().any(|file| file.test_paths.iter().any(|tests| path.starts_with(tests)))
    };

    let retired_words: Vec<(&str, String)> =
        baseline.list_retired_words().map(|word| (word, names::delimit_words(word))).collect();

    let mut hits = Vec::new();
    for (file, (package, source)) in read.iter().zip(&counted) {
        if is_for_tests(source) {
            continue;
        }
        let fields = &fields[package];
        let retired_words = &retired_words;
        let scanner = Scanner { package, source, file, fields, retired_words, baseline };
        scanner.find_in_names(&mut hits);
        scanner.find_in_comments(&mut hits);
    }
    hits.sort_by(|a, b| (&a.subject, &a.path, a.line).cmp(&(&b.subject, &b.path, b.line)));
    Ok(hits)
}

/// Parsing is nearly all of the time of a scan, and no file needs another one for it.
fn read_in_threads(counted: &[(&str, &Source)]) -> Result<Vec<Declarations>> {
    let threads = std::thread::available_parallelism().map_or(1, NonZero::get);
    let per_thread = counted.len().div_ceil(threads).max(1);
    let parts: Vec<Result<Vec<Declarations>>> = std::thread::scope(|scope| {
        let running: Vec<_> = counted
            .chunks(per_thread)
            .map(|chunk| {
                scope.spawn(|| {
                    chunk
                        .iter()
                        .map(|(_, file)| read_declarations(&file.path, &file.text))
                        .collect()
                })
            })
            .collect();
        running
            .into_iter()
            .map(|thread| match thread.join() {
                Ok(part) => part,
                Err(_) => bail!("the parser panicked"),
            })
            .collect()
    });
    let mut read = Vec::with_capacity(counted.len());
    for part in parts {
        read.extend(part?);
    }
    Ok(read)
}

/// One file with what its crate and the committed counts add to it.
struct Scanner<'a> {
    package: &'a str,
    source: &'a Source,
    file: &'a Declarations,
    /// Type and field of every field in the crate.
    fields: &'a BTreeSet<(&'a str, &'a str)>,
    /// Each as it is listed and as [`names::delimit_words`] returns it.
    retired_words: &'a [(&'a str, String)],
    baseline: &'a Baseline,
}

impl Scanner<'_> {
    fn find_in_names(&self, hits: &mut Vec<Hit>) {
        for declaration in &self.file.names {
            let Declaration { name, line, kind } = declaration;
            let mut add = |subject| hits.push(self.make_hit(subject, *line, name));
            if names::is_one_word(name) && self.is_unexcused_function(declaration) {
                add(self.make_listed(List::OneWordFunctions));
                if names::is_bare_participle(name) {
                    add(self.make_listed(List::BareParticiples));
                }
            }
            let words = names::delimit_words(name);
            for (retired, delimited) in self.retired_words {
                if words.contains(delimited) {
                    add(Subject::RetiredWord((*retired).to_owned()));
                }
            }
            if !matches!(kind, Kind::Field { .. } | Kind::Variant) {
                for retired in self.baseline.list_retired_names(self.package) {
                    if name == retired {
                        let package = self.package.to_owned();
                        add(Subject::RetiredName { package, name: retired.to_owned() });
                    }
                }
            }
        }
    }

    fn is_unexcused_function(&self, declaration: &Declaration) -> bool {
        let name = declaration.name.as_str();
        match &declaration.kind {
            Kind::FreeFunction => name != "main",
            Kind::Method { owner } => {
                let is_accessor = self.fields.contains(&(owner.as_str(), name));
                !is_accessor && !names::is_conventional_method(name)
            }
            Kind::Item | Kind::Field { .. } | Kind::Variant => false,
        }
    }

    fn find_in_comments(&self, hits: &mut Vec<Hit>) {
        for comment in list_comment_lines(&self.source.text) {
            let is_for_tests =
                self.file.test_lines.iter().any(|lines| lines.contains(&comment.line));
            if !is_for_tests && names::has_speech_verb(comment.text) {
                let subject = self.make_listed(List::SpeechInComments);
                hits.push(self.make_hit(subject, comment.line, comment.text));
            }
        }
    }

    fn make_listed(&self, list: List) -> Subject {
        Subject::Listed { list, package: self.package.to_owned() }
    }

    fn make_hit(&self, subject: Subject, line: usize, text: &str) -> Hit {
        Hit { subject, path: self.source.path.clone(), line, text: text.to_owned() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RETIRED: &str = "\
[retired_words]
told = 0

[retired_names.a]
World = 0
pulse = 0
";

    #[track_caller]
    fn check_files(files: &[(&str, &str)], expected: &[&str]) {
        let sources: Vec<Source> = files
            .iter()
            .map(|(path, text)| Source { path: (*path).to_owned(), text: (*text).to_owned() })
            .collect();
        let sources: Vec<&Source> = sources.iter().collect();
        let hits = scan_sources(&sources, &Baseline::parse_toml(RETIRED).unwrap()).unwrap();
        let hits: Vec<_> = hits
            .iter()
            .map(|hit| {
                let of = match &hit.subject {
                    Subject::Listed { list: List::OneWordFunctions, .. } => "one word",
                    Subject::Listed { list: List::BareParticiples, .. } => "participle",
                    Subject::Listed { list: List::SpeechInComments, .. } => "speech",
                    Subject::RetiredWord(_) => "word",
                    Subject::RetiredName { .. } => "name",
                };
                format!("{of}: {}:{}: {}", hit.path, hit.line, hit.text)
            })
            .collect();
        assert_eq!(hits, expected, "in {files:?}");
    }

    #[track_caller]
    fn check(text: &str, expected: &[&str]) {
        check_files(&[("crates/a/src/b.rs", text)], expected);
    }

    #[test]
    fn functions_of_one_word_are_hits_and_participles_twice() {
        check("fn main() {}\nfn run_tests() {}", &[]);
        check("fn check() {}", &["one word: crates/a/src/b.rs:1: check"]);
        check(
            "impl A { fn observed(&self) {} }",
            &[
                "one word: crates/a/src/b.rs:1: observed",
                "participle: crates/a/src/b.rs:1: observed",
            ],
        );
        check("trait A { fn deliver(&self); }", &["one word: crates/a/src/b.rs:1: deliver"]);
        check("impl Handler for A { fn deliver(&self) {} }", &[]);
    }

    #[test]
    fn a_method_may_have_a_name_of_std_and_a_free_function_may_not() {
        check("impl A { fn new() {} fn len(&self) {} }", &[]);
        check("fn read() {}", &["one word: crates/a/src/b.rs:1: read"]);
    }

    #[test]
    fn an_accessor_is_named_after_a_field_of_its_own_type() {
        check_files(
            &[
                ("crates/a/src/b.rs", "struct A { held: u8 }\nenum B { C { sent: u8 } }"),
                ("crates/a/src/c.rs", "impl A { fn held(&self) {} }\nimpl B { fn sent(&self) {} }"),
            ],
            &[],
        );
        check_files(
            &[
                ("crates/a/src/b.rs", "struct A { held: u8 }"),
                ("crates/a/src/c.rs", "impl B { fn held(&self) {} }"),
                ("crates/d/src/c.rs", "impl A { fn sum(&self) {}\nfn spans(&self) {} }"),
            ],
            &[
                "one word: crates/a/src/c.rs:1: held",
                "one word: crates/d/src/c.rs:2: spans",
                "participle: crates/a/src/c.rs:1: held",
            ],
        );
    }

    #[test]
    fn comments_with_speech_are_hits_in_every_form() {
        check(
            "//! A.\n/// What it says.\nfn run_it() {\n let a = 1; // told\n}\n/* a\n tells */",
            &[
                "speech: crates/a/src/b.rs:2: /// What it says.",
                "speech: crates/a/src/b.rs:4: // told",
                "speech: crates/a/src/b.rs:7: tells */",
            ],
        );
        check("const A: &str = \"// it says\";", &[]);
    }

    #[test]
    fn retired_words_are_found_in_every_kind_of_name() {
        check(
            "struct A {\n told_to: u8,\n}\nfn is_told() {}\nenum B { NotTold }\nmod untold {}",
            &[
                "word: crates/a/src/b.rs:2: told_to",
                "word: crates/a/src/b.rs:4: is_told",
                "word: crates/a/src/b.rs:5: NotTold",
            ],
        );
    }

    #[test]
    fn retired_names_are_found_whole_and_in_their_crate() {
        check(
            "struct World;\nmod pulse {}\nstruct Worldwide;\nenum B { World }\nstruct C { pulse: u8 }",
            &["name: crates/a/src/b.rs:1: World", "name: crates/a/src/b.rs:2: pulse"],
        );
        check_files(&[("crates/b/src/lib.rs", "struct World;")], &[]);
    }

    #[test]
    fn tests_are_left_out() {
        check(
            "#[cfg(test)]\nmod tests {\n // It says.\n fn check() {}\n}\n#[test]\nfn told() {}",
            &[],
        );
        check_files(
            &[
                ("crates/a/src/lib.rs", "#[cfg(test)]\nmod testing;\nmod other;"),
                ("crates/a/src/testing.rs", "fn check() {}"),
                ("crates/a/src/testing/deep.rs", "fn check() {} // It says."),
                ("crates/a/src/testing_not.rs", "fn check() {}"),
                ("crates/a/tests/it/main.rs", "fn check() {}"),
                ("tests/it/main.rs", "fn check() {}"),
                ("crates/a/src/a.md", "fn check() {}"),
            ],
            &["one word: crates/a/src/testing_not.rs:1: check"],
        );
    }

    #[test]
    fn files_are_counted_under_the_folder_of_their_crate() {
        for (path, package) in [
            ("crates/mcpmon-core/src/lib.rs", Some("mcpmon-core")),
            ("xtask/src/main.rs", Some("xtask")),
            ("benches/append.rs", Some("benches")),
            ("crates/mcpmon-core/tests/a.rs", None),
            ("tests/it/main.rs", None),
            ("crates/mcpmon-core/Cargo.toml", None),
            ("build.rs", None),
        ] {
            assert_eq!(find_package(path), package, "{path}");
        }
    }
}
