//! `tidy words`: names and comments that break the rules of `docs/architecture.md`.
//!
//! The rules are younger than much of the code, so today's hits are counted in
//! `xtask/words.toml`, and the counts only shrink. A count that fell fails as well until it is
//! written down: otherwise the next change could use up the difference unseen.

mod baseline;
mod comments;
mod declarations;
mod dictionary;
mod history;
mod names;
mod scan;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;

use anyhow::{Context as _, Result, bail};

use self::baseline::{BASELINE_PATH, Baseline, Change};
use self::dictionary::{PAGE_PATH, check_dictionary};
use self::history::CommittedSources;
use self::scan::{Hit, List, Subject, scan_sources};
use super::Complaints;
use super::sources::{Source, read};
use crate::expect_no_arguments;
use crate::terminal::say;
use crate::workspace;

/// `cargo xtask tidy words [--lower]`: lists every hit, or writes counts that fell into the
/// baseline and names those that rose.
///
/// # Errors
///
/// If a file cannot be read, written or parsed; with `--lower` also if something is left that
/// `cargo xtask tidy` would refuse.
pub(super) fn run_words(arguments: &[String]) -> Result<()> {
    let root = workspace::root()?;
    match arguments {
        [option] if option == "--lower" => lower_baseline(&root),
        _ => {
            expect_no_arguments("tidy words", arguments)?;
            let files = read(&root)?;
            let baseline = Baseline::load_committed(&root)?;
            say(describe_hits(&scan_files(&files, &baseline)?));
            Ok(())
        }
    }
}

/// Compares the hits in these files with the committed counts and the dictionary.
///
/// # Errors
///
/// If the counts cannot be read or a file is not Rust.
pub(super) fn check_words(files: &[Source], root: &Path) -> Result<Complaints> {
    let baseline = Baseline::load_committed(root)?;
    let hits = scan_files(files, &baseline)?;
    list_complaints(files, root, &baseline, &hits)
}

fn scan_files(files: &[Source], baseline: &Baseline) -> Result<Vec<Hit>> {
    scan_sources(&files.iter().collect::<Vec<_>>(), baseline)
}

fn lower_baseline(root: &Path) -> Result<()> {
    let files = read(root)?;
    let mut baseline = Baseline::load_committed(root)?;
    let hits = scan_files(&files, &baseline)?;
    let changes = baseline.compare_with(&hits);
    for change in changes.iter().filter(|change| !change.is_rise()) {
        let Change { subject, committed, found } = change;
        say(format_args!("    lowered from {committed} to {found}: {subject}"));
    }
    if changes.iter().any(|change| !change.is_rise()) {
        baseline.lower_counts(&changes);
        baseline.write_to(root)?;
    }
    let complaints = list_complaints(&files, root, &baseline, &hits)?;
    for complaint in &complaints {
        say(format_args!("    {complaint}"));
    }
    match complaints.len() {
        0 => Ok(()),
        1 => bail!("1 thing is left that lowering cannot change, see above"),
        many => bail!("{many} things are left that lowering cannot change, see above"),
    }
}

fn list_complaints(
    files: &[Source],
    root: &Path,
    baseline: &Baseline,
    hits: &[Hit],
) -> Result<Complaints> {
    let changes = baseline.compare_with(hits);
    let (rises, falls): (Vec<_>, Vec<_>) = changes.iter().partition(|change| change.is_rise());
    let mut complaints = Complaints::new();
    if !rises.is_empty() {
        let committed = CommittedSources::read_from_git(root, files);
        for rise in rises {
            let all: Vec<&Hit> = hits.iter().filter(|hit| hit.subject == rise.subject).collect();
            let new = committed
                .as_ref()
                .map(|committed| committed.find_new_hits(&all, baseline))
                .filter(|new| !new.is_empty());
            complaints.push(describe_rise(rise, new.as_deref(), &all));
        }
    }
    complaints.extend(describe_falls(&falls));
    let page = files.iter().find(|file| file.path == PAGE_PATH);
    let page = page.with_context(|| format!("{PAGE_PATH} is missing"))?;
    complaints.extend(check_dictionary(&page.text, &baseline.count_retired(hits)));
    Ok(complaints)
}

/// `new` are the hits that were not there when the count was committed, if that is known.
fn describe_rise(rise: &Change, new: Option<&[&Hit]>, all: &[&Hit]) -> String {
    let Change { subject, committed, found } = rise;
    let rule = match subject {
        Subject::Listed { list: List::SpeechInComments, .. } => "Prose",
        Subject::Listed { .. } => "Names",
        Subject::RetiredWord(_) | Subject::RetiredName { .. } => "Dictionary",
    };
    let which = if new.is_some() { "new" } else { "all of them, new and old" };
    let mut text = format!(
        "{subject} rose from {committed} to {found}; see \"{rule}\" in {PAGE_PATH}; {which}:"
    );
    for hit in new.unwrap_or(all) {
        // Writing into a `String` cannot fail.
        let _ = write!(text, "\n        {hit}");
    }
    text
}

fn describe_falls(falls: &[&Change]) -> Option<String> {
    if falls.is_empty() {
        return None;
    }
    let mut text = format!(
        "counts fell below those in {BASELINE_PATH}; run `cargo xtask tidy words --lower` and \
         commit the file:"
    );
    for Change { subject, committed, found } in falls {
        // Writing into a `String` cannot fail.
        let _ = write!(text, "\n        from {committed} to {found}: {subject}");
    }
    Some(text)
}

/// First the counts, then every hit under what it is counted under.
fn describe_hits(hits: &[Hit]) -> String {
    let mut by_subject: BTreeMap<&Subject, Vec<&Hit>> = BTreeMap::new();
    for hit in hits {
        by_subject.entry(&hit.subject).or_default().push(hit);
    }
    let counts = by_subject.iter().map(|(subject, hits)| format!("{:6} {subject}\n", hits.len()));
    let lists = by_subject.iter().map(|(subject, hits)| {
        let lines: String = hits.iter().map(|hit| format!("  {hit}\n")).collect();
        format!("\n{subject}\n{lines}")
    });
    let text: String = counts.chain(lists).collect();
    text.trim_end().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hit(line: usize, text: &str) -> Hit {
        let subject =
            Subject::Listed { list: List::OneWordFunctions, package: "mcpmon-core".to_owned() };
        Hit { subject, path: "a.rs".to_owned(), line, text: text.to_owned() }
    }

    fn change(committed: usize, found: usize) -> Change {
        Change { subject: hit(1, "run").subject, committed, found }
    }

    #[test]
    fn a_rise_names_the_new_hits_or_all_of_them() {
        let all = [&hit(1, "run"), &hit(2, "check")];
        assert_eq!(
            describe_rise(&change(1, 2), Some(&all[1..]), &all),
            "mcpmon-core: function names of one word rose from 1 to 2; see \"Names\" in \
             docs/architecture.md; new:\n        a.rs:2: check"
        );
        let unknown = describe_rise(&change(1, 2), None, &all);
        assert!(
            unknown
                .ends_with("all of them, new and old:\n        a.rs:1: run\n        a.rs:2: check"),
            "{unknown}"
        );
    }

    #[test]
    fn a_fall_names_the_command_that_writes_it_down() {
        assert_eq!(describe_falls(&[]), None);
        let text = describe_falls(&[&change(2, 1)]).unwrap();
        assert_eq!(
            text,
            "counts fell below those in xtask/words.toml; run `cargo xtask tidy words --lower` \
             and commit the file:\n        from 2 to 1: mcpmon-core: function names of one word"
        );
    }

    #[test]
    fn hits_are_listed_after_their_counts() {
        assert_eq!(
            describe_hits(&[hit(1, "run"), hit(2, "check")]),
            "     2 mcpmon-core: function names of one word\n\n\
             mcpmon-core: function names of one word\n  a.rs:1: run\n  a.rs:2: check"
        );
    }
}
