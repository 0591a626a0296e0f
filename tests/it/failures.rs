//! `docs/failures.md` and the code say the same: which codes there are, what each comes to, what is
//! kept of it, and which ones nothing looks for yet.

use std::fmt::Debug;
use std::path::Path;

use mcpmon_core::failure::CERTIFICATE_CRITICAL_DAYS;
use mcpmon_core::{FailureCode, FindingCode};

const PAGE: &str = include_str!("../../docs/failures.md");
const NOT_YET: &str = "Not set yet";

/// What stands under one code.
struct Section {
    code: &'static str,
    text: &'static str,
}

impl Section {
    fn is_not_yet(&self) -> bool {
        self.text.lines().any(|line| line.starts_with(NOT_YET))
    }

    fn evidence(&self) -> impl Iterator<Item = &'static str> {
        let line = self.text.lines().find(|line| line.starts_with("- Evidence:")).unwrap_or("");
        line.split('`')
            .skip(1)
            .step_by(2)
            .filter(|word| word.chars().all(|c| c.is_ascii_lowercase() || c == '_'))
            // The values of `code` are other codes.
            .filter(|word| word.parse::<FailureCode>().is_err())
    }
}

/// Everything before the findings, and the findings.
fn parts() -> (Vec<Section>, Vec<Section>) {
    let (failures, findings) = PAGE.split_once("\n## Findings\n").unwrap();
    (sections(failures), sections(findings))
}

fn sections(part: &'static str) -> Vec<Section> {
    let section = |found: &'static str| {
        let (code, rest) = found.split_once("`\n").unwrap();
        let text = rest.split_once("\n## ").map_or(rest, |(text, _)| text);
        Section { code, text }
    };
    part.split("\n### `").skip(1).map(section).collect()
}

#[test]
fn every_code_has_its_section_and_every_section_its_code() {
    let (failures, findings) = parts();
    let of_page: Vec<&str> = failures.iter().map(|section| section.code).collect();
    let of_core: Vec<&str> = FailureCode::ALL.iter().map(|code| code.as_str()).collect();
    assert_eq!(of_page, of_core);
    let of_page: Vec<&str> = findings.iter().map(|section| section.code).collect();
    let of_core: Vec<&str> = FindingCode::ALL.iter().map(|code| code.as_str()).collect();
    assert_eq!(of_page, of_core);
}

#[test]
fn a_section_says_what_the_code_comes_to() {
    let (failures, findings) = parts();
    for (section, code) in failures.iter().zip(FailureCode::ALL) {
        let opening = format!("\nStatus: `{}`. ", code.status());
        assert!(section.text.starts_with(&opening), "{code} does not open with {opening:?}");
    }
    for (section, code) in findings.iter().zip(FindingCode::ALL) {
        let degrades = section.text.starts_with("\n*Degrading.* ");
        assert_eq!(degrades, code.is_degrading(), "{code}");
        let days = CERTIFICATE_CRITICAL_DAYS;
        let at_times = format!("\n*Degrading in its last {days} days.* ");
        let is_certificate = *code == FindingCode::CertificateExpiring;
        assert_eq!(section.text.starts_with(&at_times), is_certificate, "{code}");
    }
}

#[test]
fn a_section_says_what_is_kept_why_it_happens_and_what_to_do() {
    let (failures, findings) = parts();
    for section in failures.iter().chain(&findings).filter(|section| !section.is_not_yet()) {
        for part in ["\n- Evidence: ", "\n- Usual causes: ", "\n- Next: "] {
            assert!(section.text.contains(part), "{} has no {part:?}", section.code);
        }
    }
}

#[test]
fn what_nothing_looks_for_is_marked_and_nothing_else_is() {
    let (failures, findings) = parts();
    let source = source();
    let check = |sections: &[Section], names: &[String]| {
        for (section, name) in sections.iter().zip(names) {
            assert_eq!(
                section.is_not_yet(),
                !mentions(&source, name),
                "`{}`: does anything use {name}? The page says \"{NOT_YET}\" or not",
                section.code
            );
        }
    };
    check(&failures, &spelled("FailureCode", FailureCode::ALL));
    check(&findings, &spelled("FindingCode", FindingCode::ALL));
}

#[test]
fn the_evidence_that_is_named_is_kept_somewhere() {
    let (failures, findings) = parts();
    let source = source();
    for section in failures.iter().chain(&findings) {
        for key in section.evidence() {
            assert!(source.contains(&format!("\"{key}\"")), "`{}`: {key}", section.code);
        }
    }
}

fn spelled<T: Debug>(of: &str, codes: &[T]) -> Vec<String> {
    codes.iter().map(|code| format!("{of}::{code:?}")).collect()
}

/// Finds a name that goes on no further: `Exited` is not in `ExitedAtStart`.
fn mentions(source: &str, name: &str) -> bool {
    source.match_indices(name).any(|(at, found)| {
        !source[at + found.len()..].starts_with(|c: char| c.is_alphanumeric() || c == '_')
    })
}

/// What the parts that look are made of, their tests left out.
fn source() -> String {
    let crates = Path::new(env!("CARGO_MANIFEST_DIR")).join("../crates");
    let mut source = String::new();
    // A change of lists is a stored record, from which core makes the finding.
    for part in
        ["mcpmon-mcp/src", "mcpmon-collect/src", "mcpmon-engine/src", "mcpmon-core/src/store"]
    {
        let mut folders = vec![crates.join(part)];
        while let Some(folder) = folders.pop() {
            for entry in std::fs::read_dir(folder).unwrap().flatten() {
                let path = entry.path();
                if path.is_dir() {
                    folders.push(path);
                } else if !path.file_stem().unwrap().to_string_lossy().ends_with("tests") {
                    let text = std::fs::read_to_string(&path).unwrap();
                    source.push_str(text.split("#[cfg(test)]\nmod tests").next().unwrap());
                }
            }
        }
    }
    source
}
