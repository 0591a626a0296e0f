//! `tidy words`: names and comments that break the rules of `docs/architecture.md`.
//!
//! The rules are younger than much of the code, so today's hits are counted in
//! `xtask/words.toml`.

mod baseline;
mod comments;
mod declarations;
mod names;
mod scan;

use std::collections::BTreeMap;

use anyhow::Result;

use self::baseline::Baseline;
use self::scan::{Hit, Subject, scan_sources};
use super::sources::read;
use crate::expect_no_arguments;
use crate::terminal::say;
use crate::workspace;

/// `cargo xtask tidy words`: lists every hit.
///
/// # Errors
///
/// If a file cannot be read or parsed.
pub(super) fn run_words(arguments: &[String]) -> Result<()> {
    expect_no_arguments("tidy words", arguments)?;
    let root = workspace::root()?;
    let files = read(&root)?;
    let baseline = Baseline::load_committed(&root)?;
    let hits = scan_sources(&files.iter().collect::<Vec<_>>(), &baseline)?;
    say(describe_hits(&hits));
    Ok(())
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
    use crate::tidy::words::scan::List;

    fn hit(line: usize, text: &str) -> Hit {
        let subject =
            Subject::Listed { list: List::OneWordFunctions, package: "mcpmon-core".to_owned() };
        Hit { subject, path: "a.rs".to_owned(), line, text: text.to_owned() }
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
