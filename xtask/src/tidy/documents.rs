//! What the documents promise: that they are there and mention what there is.

use super::Complaints;
use super::sources::Source;
use crate::workspace::Package;

/// What a visitor looks for first.
const EXPECTED: &[&str] = &[
    "README.md",
    "CHANGELOG.md",
    "CONTRIBUTING.md",
    "LICENSE-MIT",
    "LICENSE-APACHE",
    "docs/architecture.md",
    ADR_INDEX,
];

const ADR_INDEX: &str = "docs/adr/README.md";

pub(super) fn check(files: &[Source], members: &[&Package]) -> Complaints {
    let text = |path: &str| files.iter().find(|f| f.path == path).map(|f| f.text.as_str());
    let mut complaints = Complaints::new();
    for path in EXPECTED {
        if text(path).is_none_or(|text| text.trim().is_empty()) {
            complaints.push(format!("{path} is not there"));
        }
    }
    if !text("CHANGELOG.md").unwrap_or_default().contains("## [Unreleased]") {
        complaints.push("CHANGELOG.md has no `## [Unreleased]`".to_owned());
    }
    let architecture = text("docs/architecture.md").unwrap_or_default();
    for member in members {
        if !architecture.contains(&format!("`{}`", member.name)) {
            complaints.push(format!("docs/architecture.md does not mention `{}`", member.name));
        }
    }
    let index = text(ADR_INDEX).unwrap_or_default();
    for page in files.iter().filter_map(|file| file.path.strip_prefix("docs/adr/")) {
        if page != "README.md" && !index.contains(&format!("]({page})")) {
            complaints.push(format!("{ADR_INDEX} does not list {page}"));
        }
    }
    complaints
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::workspace::fixture::package;

    fn house() -> Vec<Source> {
        let page = |path: &str, text: &str| Source { path: path.to_owned(), text: text.to_owned() };
        let mut files: Vec<_> = EXPECTED.iter().map(|path| page(path, "words")).collect();
        files.push(page("docs/adr/0001-a.md", "words"));
        for file in &mut files {
            match file.path.as_str() {
                "CHANGELOG.md" => file.text = "## [Unreleased]\n".to_owned(),
                "docs/architecture.md" => file.text = "`mcpmon-core`".to_owned(),
                ADR_INDEX => file.text = "[1](0001-a.md)".to_owned(),
                _ => {}
            }
        }
        files
    }

    #[test]
    fn a_whole_house_is_left_alone() {
        assert!(check(&house(), &[&package("mcpmon-core", "0.1.0", None)]).is_empty());
    }

    #[test]
    fn what_is_not_written_down_is_named() {
        let mut files = house();
        files.retain(|file| file.path != "LICENSE-MIT");
        files.push(Source { path: "docs/adr/0002-b.md".to_owned(), text: "words".to_owned() });
        assert_eq!(
            check(&files, &[&package("mcpmon-web", "0.1.0", None)]),
            [
                "LICENSE-MIT is not there",
                "docs/architecture.md does not mention `mcpmon-web`",
                "docs/adr/README.md does not list 0002-b.md",
            ]
        );
    }
}
