//! The catalogue of failures and findings, cut into its sections.
//!
//! The page people read in `docs/` is the one text of it: `failures.md` beside this file is a link
//! to that page, which `cargo package` resolves into a copy. Its shape is plain: a heading per
//! code, a paragraph or two, and three bullets.

use mcpmon_core::contract::{CodeKind, ExplainedCode};
use mcpmon_core::{FailureCode, FindingCode};

const PAGE: &str = include_str!("failures.md");

/// Every code, failures first, in the order of the page.
pub(super) fn catalogue() -> Vec<ExplainedCode> {
    let failures = FailureCode::ALL.iter().map(|code| failure(*code));
    failures.chain(FindingCode::ALL.iter().map(|code| finding(*code))).collect()
}

/// The code of this name; `-` does for `_`, and case does not matter.
pub(super) fn find(word: &str) -> Option<ExplainedCode> {
    let word = word.to_ascii_lowercase().replace('-', "_");
    let failing = word.parse().ok().map(failure);
    failing.or_else(|| word.parse().ok().map(finding))
}

/// What the page says of a failure.
pub(super) fn failure(code: FailureCode) -> ExplainedCode {
    let section = Section::of(code.as_str());
    let meaning = section.meaning();
    let opening = format!("Status: {}. ", code.status());
    let meaning = meaning.strip_prefix(&opening).unwrap_or(&meaning).to_owned();
    section.explained(code.as_str(), CodeKind::Failure, meaning, Some(code.status()))
}

/// What the page says of a finding.
pub(super) fn finding(code: FindingCode) -> ExplainedCode {
    let section = Section::of(code.as_str());
    section.explained(code.as_str(), CodeKind::Finding, section.meaning(), None)
}

/// The text under one heading.
#[derive(Debug, Clone, Copy)]
struct Section(&'static str);

impl Section {
    fn of(code: &str) -> Self {
        let heading = format!("\n### `{code}`\n");
        let text = PAGE.split_once(&heading).map_or("", |(_, text)| text);
        let end = text.find("\n### ").into_iter().chain(text.find("\n## ")).min();
        Self(&text[..end.unwrap_or(text.len())])
    }

    /// Its paragraphs, without markup.
    fn meaning(self) -> String {
        let paragraphs = self.0.lines().filter(|line| !line.starts_with("- "));
        let plain: Vec<String> = paragraphs.filter(|line| !line.is_empty()).map(plain).collect();
        plain.join("\n")
    }

    fn bullet(self, name: &str) -> Option<String> {
        let start = format!("- {name}: ");
        self.0.lines().find_map(|line| line.strip_prefix(&start)).map(plain)
    }

    fn explained(
        self,
        code: &str,
        kind: CodeKind,
        meaning: String,
        status: Option<mcpmon_core::Status>,
    ) -> ExplainedCode {
        let degrading = self.0.trim_start().starts_with("*Degrading");
        // The first sentence that is one: after what only says how it counts.
        let first = meaning.lines().next().unwrap_or_default();
        let told =
            if degrading { first.split_once(". ").map_or(first, |(_, rest)| rest) } else { first };
        let summary = match told.split_once(". ") {
            Some((sentence, _)) => format!("{sentence}."),
            None => told.to_owned(),
        };
        ExplainedCode {
            code: code.to_owned(),
            kind,
            status,
            degrading,
            summary,
            evidence: self.bullet("Evidence"),
            usual_causes: self.bullet("Usual causes"),
            next_step: self.bullet("Next"),
            meaning,
        }
    }
}

/// A line of the page without its markup: emphasis and backticks go, a link leaves its words.
fn plain(line: &str) -> String {
    let mut out = String::with_capacity(line.len());
    let (mut in_code, mut rest) = (false, line);
    while let Some(c) = rest.chars().next() {
        let link = (c == '[' && !in_code)
            .then(|| rest[1..].split_once("]("))
            .flatten()
            .and_then(|(words, after)| after.split_once(')').map(|(_, after)| (words, after)));
        if let Some((words, after)) = link {
            out.push_str(&plain(words));
            rest = after;
            continue;
        }
        match c {
            '`' => in_code = !in_code,
            '*' if !in_code => {}
            c => out.push(c),
        }
        rest = &rest[c.len_utf8()..];
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_has_a_section_that_says_something() {
        for code in catalogue() {
            assert!(code.summary.len() > 8, "{code:?}");
            for text in [Some(&code.meaning), code.next_step.as_ref(), code.usual_causes.as_ref()] {
                let text = text.unwrap_or_else(|| panic!("{code:?}"));
                let is_heading = text.lines().any(|line| line.starts_with("# "));
                assert!(!text.contains('`') && !is_heading && !text.contains("]("), "{text}");
                assert!(!text.starts_with("Status:"), "{text}");
            }
        }
    }

    #[test]
    fn markup_leaves_its_words() {
        assert_eq!(
            plain("set `LC_*` **now**, see [the *page*](x.md)."),
            "set LC_* now, see the page."
        );
        assert_eq!(plain("a [bracket] alone"), "a [bracket] alone");
    }

    #[test]
    fn a_code_is_found_however_it_is_written() {
        for word in ["dns_failed", "DNS-FAILED", "dns-failed"] {
            assert_eq!(find(word).unwrap().code, "dns_failed");
        }
        assert_eq!(find("stdout_noise").unwrap().kind, CodeKind::Finding);
        assert_eq!(find("dns"), None);
    }

    #[test]
    fn a_section_ends_where_the_next_begins() {
        for code in ["closed_output", "monitor_overloaded", "clamped_hint", "tls_name_mismatch"] {
            let text = Section::of(code).0;
            assert!(!text.contains("\n#") && text.contains("- Next: "), "{code}: {text}");
        }
    }
}
