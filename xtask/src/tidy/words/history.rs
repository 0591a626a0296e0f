//! Which hits are new since the counts were last changed, as far as git knows.
//!
//! A count that rose names no hit. The commit that last changed `xtask/words.toml` had these
//! counts, so what was not there then is new. Where git has no answer, as in a source archive,
//! nothing here fails: every hit of the count is then listed.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::Command;

use super::baseline::{BASELINE_PATH, Baseline};
use super::scan::{Hit, Subject, find_package, scan_sources};
use crate::tidy::sources::Source;

/// The Rust files as they were when the counts were last committed.
pub(super) struct CommittedSources {
    sources: Vec<Source>,
    changed_paths: BTreeSet<String>,
}

impl CommittedSources {
    /// Reads the files that changed from git and takes the others from `current`. `None` without
    /// git or without that commit.
    pub(super) fn read_from_git(root: &Path, current: &[Source]) -> Option<Self> {
        Self::read_with(current, |arguments| run_git(root, arguments))
    }

    /// `run` returns what git with these arguments prints, and `None` if it fails.
    fn read_with(current: &[Source], run: impl Fn(&[&str]) -> Option<String>) -> Option<Self> {
        let commit = run(&["log", "-1", "--format=%H", "--", BASELINE_PATH])?;
        let commit = commit.trim();
        if commit.is_empty() {
            return None;
        }
        let changed = run(&["diff", "--name-only", "--no-renames", "-z", commit])?;
        let untracked = run(&["ls-files", "--others", "--exclude-standard", "-z"])?;
        let changed_paths: BTreeSet<String> = changed
            .split('\0')
            .chain(untracked.split('\0'))
            .filter(|path| find_package(path).is_some())
            .map(str::to_owned)
            .collect();
        let old = changed_paths.iter().filter_map(|path| {
            // A file that is new has no text in the commit.
            let text = run(&["show", &format!("{commit}:{path}")])?;
            Some(Source { path: path.clone(), text })
        });
        let kept = current.iter().filter(|source| !changed_paths.contains(&source.path));
        let kept =
            kept.map(|source| Source { path: source.path.clone(), text: source.text.clone() });
        Some(Self { sources: old.chain(kept).collect(), changed_paths })
    }

    /// Returns the hits among `hits` that were not there; all of them if the old ones are unknown.
    pub(super) fn find_new_hits<'a>(&self, hits: &[&'a Hit], baseline: &Baseline) -> Vec<&'a Hit> {
        let packages: BTreeSet<&str> =
            hits.iter().filter_map(|hit| find_package(&hit.path)).collect();
        let sources: Vec<&Source> = self
            .sources
            .iter()
            .filter(|source| find_package(&source.path).is_some_and(|p| packages.contains(p)))
            .collect();
        match scan_sources(&sources, baseline) {
            Ok(old) => subtract_hits(hits, &old, &self.changed_paths),
            Err(_) => hits.to_vec(),
        }
    }
}

/// Returns what is in `hits` more often than in `old`, by subject and text: code that only moved
/// is not new. Of equal hits the ones in files that did not change are taken for the old ones.
fn subtract_hits<'a>(
    hits: &[&'a Hit],
    old: &[Hit],
    changed_paths: &BTreeSet<String>,
) -> Vec<&'a Hit> {
    let mut known: BTreeMap<(&Subject, &str), usize> = BTreeMap::new();
    for hit in old {
        *known.entry((&hit.subject, &hit.text)).or_default() += 1;
    }
    let (changed, unchanged): (Vec<&Hit>, Vec<&Hit>) =
        hits.iter().partition(|hit| changed_paths.contains(&hit.path));
    let mut new = Vec::new();
    for hit in unchanged.into_iter().chain(changed) {
        match known.get_mut(&(&hit.subject, hit.text.as_str())) {
            Some(count) if *count > 0 => *count -= 1,
            _ => new.push(hit),
        }
    }
    new
}

fn run_git(root: &Path, arguments: &[&str]) -> Option<String> {
    let output = Command::new("git").current_dir(root).args(arguments).output().ok()?;
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tidy::words::scan::List;

    fn hit(path: &str, line: usize, text: &str) -> Hit {
        let subject = Subject::Listed { list: List::OneWordFunctions, package: "a".to_owned() };
        Hit { subject, path: path.to_owned(), line, text: text.to_owned() }
    }

    #[test]
    fn old_texts_come_from_the_commit_that_changed_the_counts() {
        let source =
            |path: &str, text: &str| Source { path: path.to_owned(), text: text.to_owned() };
        let current = [
            source("crates/a/src/kept.rs", "fn run() {}"),
            source("crates/a/src/changed.rs", "fn check() {}\nfn stop() {}"),
            source("crates/a/src/new.rs", "fn start() {}"),
        ];
        let git = |arguments: &[&str]| {
            let printed = match arguments.join(" ").as_str() {
                "log -1 --format=%H -- xtask/words.toml" => "c0ffee\n",
                "diff --name-only --no-renames -z c0ffee" => {
                    "crates/a/src/changed.rs\0crates/a/src/gone.rs\0docs/a.md\0"
                }
                "ls-files --others --exclude-standard -z" => "crates/a/src/new.rs\0",
                "show c0ffee:crates/a/src/changed.rs" => "fn check() {}",
                "show c0ffee:crates/a/src/gone.rs" => "fn stop() {}",
                _ => return None,
            };
            Some(printed.to_owned())
        };
        let old = CommittedSources::read_with(&current, git).unwrap();
        let hits = scan_sources(&current.each_ref(), &Baseline::default()).unwrap();
        let new = old.find_new_hits(&hits.iter().collect::<Vec<_>>(), &Baseline::default());
        let new: Vec<_> = new.iter().map(ToString::to_string).collect();
        assert_eq!(new, ["crates/a/src/new.rs:1: start"]);
    }

    #[test]
    fn without_git_or_that_commit_nothing_is_known() {
        assert!(CommittedSources::read_with(&[], |_| None).is_none());
        assert!(CommittedSources::read_with(&[], |_| Some(String::new())).is_none());
    }

    #[test]
    fn a_hit_that_moved_is_not_new() {
        let now = [hit("a.rs", 9, "run"), hit("b.rs", 1, "check")];
        let old = [hit("a.rs", 1, "run"), hit("c.rs", 1, "check"), hit("c.rs", 2, "gone")];
        let changed = ["a.rs", "b.rs"].map(str::to_owned).into();
        assert!(subtract_hits(&now.each_ref(), &old, &changed).is_empty());
    }

    #[test]
    fn of_equal_hits_the_one_in_a_changed_file_is_new() {
        let now = [hit("a.rs", 9, "run"), hit("b.rs", 1, "run"), hit("b.rs", 2, "stop")];
        let changed = ["a.rs".to_owned()].into();
        let new = subtract_hits(&now.each_ref(), &[hit("b.rs", 1, "run")], &changed);
        assert_eq!(new, [&now[2], &now[0]]);
    }
}
