//! What services ask to have done about them, held against how they are reached. What rules ask is
//! the rules' own affair.

use mcpmon_core::service::{RemediationSpec, RemedyAction};
use mcpmon_core::settings::ServiceEntry;

use super::document::Document;
use super::problem::Problem;
use super::tree::Step;

/// Repairs that cannot be made.
pub(super) fn problems(document: &Document) -> Vec<Problem> {
    let services = &document.settings.services;
    let wrong = services.iter().filter_map(|(name, entry)| Some((name, problem(entry)?)));
    wrong
        .map(|(name, (key, message))| {
            let path: [Step; 4] =
                ["services".into(), name.as_str().into(), "remediation".into(), key.into()];
            document.problem(&path, message)
        })
        .collect()
}

/// The key at fault, and why.
fn problem(entry: &ServiceEntry) -> Option<(&'static str, String)> {
    let remediation = entry.remediation.as_ref()?;
    let is_restart = remediation.action == RemedyAction::Restart;
    if is_restart && entry.command.is_none() && entry.url.is_some() {
        return Some(("action", RemediationSpec::NOTHING_TO_RESTART.to_owned()));
    }
    remediation.problem()
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::config::parse::Format;

    #[test]
    fn what_cannot_be_done_is_told_with_its_place_and_the_way_out() {
        let text = r#"
[services.a]
url = "http://127.0.0.1/"
remediation = { action = "restart" }
[services.b]
url = "http://127.0.0.1/"
[services.b.remediation]
action = "systemd"
user = true
[services.c]
command = "files"
[services.c.remediation]
action = "command"
container = "files"
[services.d]
command = "files"
remediation = { action = "restart", verify_within = "5s" }
"#;
        let document = Document::parse(Path::new("m.toml"), text, Format::Toml).unwrap();
        let told: String =
            problems(&document).iter().map(|problem| format!("{problem}\n")).collect();
        insta::assert_snapshot!(told, @r#"
        m.toml:4:26: `restart` ends a process that mcpmon started, and a service behind a URL has none; use `action = "command"`, `"systemd"` or `"docker"`
        m.toml:7:1: `action = "systemd"` needs `unit`, as in `unit = "files.service"`
        m.toml:14:13: `container` belongs to `action = "docker"`, and this is `command`
        "#);
    }
}
