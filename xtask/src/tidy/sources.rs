//! What a file of the repository may look like.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};

use super::Complaints;

/// A file of text and its path from the root, with forward slashes.
#[derive(Debug)]
pub(super) struct Source {
    pub(super) path: String,
    pub(super) text: String,
}

/// Folders that are made, not written.
const MADE: &[&str] = &["target", ".git", "node_modules", "__pycache__", ".mcpmon-home"];

/// Names under which anything can be put, and then is.
const NAMELESS: &[&str] = &["utils", "util", "common", "helpers", "misc"];

/// Lock files hold what others wrote.
const LOCKS: &[&str] = &["Cargo.lock", "package-lock.json"];

/// Marks of unfinished work, put together here so that this file has none.
const UNFINISHED: &[&str] = &[
    concat!("TO", "DO"),
    concat!("FIX", "ME"),
    concat!("todo", "!("),
    concat!("unimplemented", "!("),
    concat!("#[ig", "nore"),
];

/// Reads every text file of the repository.
pub(super) fn read(root: &Path) -> Result<Vec<Source>> {
    let mut sources = Vec::new();
    let mut folders = vec![root.to_owned()];
    while let Some(folder) = folders.pop() {
        let entries = std::fs::read_dir(&folder)
            .with_context(|| format!("cannot list `{}`", folder.display()))?;
        for entry in entries {
            let entry = entry.with_context(|| format!("cannot list `{}`", folder.display()))?;
            let kind = entry.file_type().context("cannot tell what a file is")?;
            let name = entry.file_name();
            if kind.is_dir() {
                if !MADE.iter().any(|made| name == *made) {
                    folders.push(entry.path());
                }
            } else if kind.is_file()
                // What is not UTF-8 is not text.
                && let Ok(text) = std::fs::read_to_string(entry.path())
            {
                sources.push(Source { path: relative(root, &entry.path()), text });
            }
        }
    }
    sources.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(sources)
}

fn relative(root: &Path, path: &Path) -> String {
    let relative: PathBuf = path.strip_prefix(root).unwrap_or(path).to_owned();
    relative
        .components()
        .map(|part| part.as_os_str().to_string_lossy())
        .collect::<Vec<_>>()
        .join("/")
}

/// Paths of this machine that have no business in the repository: the clone's own and the home.
pub(super) fn private_paths(root: &Path) -> Vec<String> {
    let home = std::env::var_os("HOME").map(PathBuf::from);
    [Some(root.to_owned()), home]
        .into_iter()
        .flatten()
        .filter(|path| path.parent().is_some())
        .map(|path| path.display().to_string())
        .collect()
}

/// Checks every file on its own.
pub(super) fn check(sources: &[Source], private_paths: &[String]) -> Complaints {
    sources.iter().flat_map(|source| check_one(source, private_paths)).collect()
}

fn check_one(source: &Source, private_paths: &[String]) -> Complaints {
    let path = Path::new(&source.path);
    let file = path.file_name().unwrap_or_default().to_string_lossy();
    if LOCKS.contains(&file.as_ref()) {
        return Complaints::new();
    }
    let mut complaints = Complaints::new();
    if path.extension().is_some_and(|extension| extension == "rs") {
        if !is_tests_of_a_module(path) {
            complaints.extend(without_words(source));
        }
        complaints.extend(without_name(path));
    }
    complaints.extend(unfinished(source));
    complaints.extend(private(source, private_paths));
    complaints
}

/// `x/tests.rs` and `x_tests.rs` belong to `x`, which has the words.
fn is_tests_of_a_module(path: &Path) -> bool {
    let stem = path.file_stem().unwrap_or_default().to_string_lossy();
    stem == "tests" || stem.ends_with("_tests")
}

fn without_words(source: &Source) -> Option<String> {
    let opens = source.text.trim_start_matches('\u{feff}').starts_with("//!");
    (!opens).then(|| {
        format!("{} does not open with `//!`: what is it for, and why in this shape?", source.path)
    })
}

fn without_name(path: &Path) -> Option<String> {
    let stem = path.file_stem()?.to_string_lossy();
    let nameless = NAMELESS.contains(&stem.as_ref())
        || (stem == "mod"
            && path
                .parent()
                .and_then(Path::file_name)
                .is_some_and(|folder| NAMELESS.iter().any(|name| folder == *name)));
    nameless.then(|| {
        format!("{} says nothing with its name; name it after what it holds", path.display())
    })
}

fn unfinished(source: &Source) -> Complaints {
    lines(source)
        .filter_map(|(number, line)| {
            let mark = UNFINISHED.iter().find(|mark| has_word(line, mark))?;
            Some(format!(
                "{}:{number} has `{mark}`; finish it, or file an issue and say what holds now",
                source.path
            ))
        })
        .collect()
}

fn private(source: &Source, private_paths: &[String]) -> Complaints {
    lines(source)
        .filter_map(|(number, line)| {
            let path = private_paths.iter().find(|path| has_path(line, path))?;
            Some(format!("{}:{number} names `{path}`, a path of one machine", source.path))
        })
        .collect()
}

fn lines(source: &Source) -> impl Iterator<Item = (usize, &str)> {
    source.text.lines().enumerate().map(|(at, line)| (at + 1, line))
}

/// Finds `mark` where no letter or digit touches it.
fn has_word(line: &str, mark: &str) -> bool {
    line.match_indices(mark).any(|(at, found)| {
        let before = line[..at].chars().next_back();
        let after = line[at + found.len()..].chars().next();
        let touches = |c: Option<char>| c.is_some_and(|c| c.is_alphanumeric() || c == '_');
        let ends_in_word = mark.ends_with(char::is_alphanumeric);
        !(touches(before) || ends_in_word && touches(after))
    })
}

/// Finds `path` as a whole path or the beginning of one.
fn has_path(line: &str, path: &str) -> bool {
    line.match_indices(path).any(|(at, found)| {
        let before = line[..at].chars().next_back();
        let after = line[at + found.len()..].chars().next();
        let inside = |c: char| c.is_alphanumeric() || "._-~}$".contains(c);
        !before.is_some_and(inside)
            && !after.is_some_and(|c| c.is_alphanumeric() || "_-".contains(c))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(path: &str, text: &str, complaint: Option<&str>) {
        let source = Source { path: path.to_owned(), text: text.to_owned() };
        let complaints = super::check(&[source], &["/srv/ada".to_owned()]);
        assert_eq!(complaints.first().map(String::as_str), complaint);
        assert!(complaints.len() <= 1, "{complaints:?}");
    }

    #[test]
    fn a_module_without_words_is_named() {
        check("a/b.rs", "//! Words.\n", None);
        check(
            "a/b.rs",
            "use std::fmt;\n//! Words.\n",
            Some("a/b.rs does not open with `//!`: what is it for, and why in this shape?"),
        );
        check("a/b/tests.rs", "use super::*;\n", None);
        check("a/b.py", "import os\n", None);
    }

    #[test]
    fn a_file_has_a_name_that_says_something() {
        check(
            "a/utils.rs",
            "//! Words.\n",
            Some("a/utils.rs says nothing with its name; name it after what it holds"),
        );
        check(
            "a/common/mod.rs",
            "//! Words.\n",
            Some("a/common/mod.rs says nothing with its name; name it after what it holds"),
        );
    }

    #[test]
    fn unfinished_work_is_named_with_its_line() {
        let text = format!("//! Words.\n\nfn f() {{ {}) }}\n", UNFINISHED[2]);
        check(
            "a.rs",
            &text,
            Some(&format!(
                "a.rs:3 has `{}`; finish it, or file an issue and say what holds now",
                UNFINISHED[2]
            )),
        );
        check("a.md", &format!("a MASTO{}N", &UNFINISHED[0][2..]), None);
    }

    #[test]
    fn a_path_of_one_machine_is_named() {
        check("a.md", "in /srv/ada/x", Some("a.md:1 names `/srv/ada`, a path of one machine"));
        check("a.md", "in /srv/adas or ./srv/ada", None);
    }
}
