//! What must fit together in a configuration although each part of it is right by itself.

use mcpmon_alert::{Routing, RuleSet};
use mcpmon_core::calendar::Maintenance;

use super::document::Document;
use super::needs;
use super::problem::Problem;
use super::repairs;
use super::tree::{Step, read_path};

/// Everything that does not fit: rules, routes, maintenance windows, configured calls, dependencies,
/// repairs.
pub(crate) fn problems(document: &Document) -> Vec<Problem> {
    let settings = &document.settings;
    let mut problems = Vec::new();
    let rules = RuleSet::from_settings(settings).unwrap_or_else(|errors| {
        problems.extend(
            errors
                .iter()
                .map(|error| document.problem(&read_path(&error.path()), error.to_string())),
        );
        RuleSet::default()
    });
    if let Err(errors) = Routing::from_settings(settings, &rules) {
        problems.extend(
            errors
                .iter()
                .map(|error| document.problem(&read_path(&error.path()), error.message.clone())),
        );
    }
    problems.extend(maintenance(document));
    problems.extend(needs::problems(document));
    problems.extend(repairs::problems(document));
    problems
}

fn maintenance(document: &Document) -> Vec<Problem> {
    let windows = document.settings.maintenance.iter().enumerate();
    windows
        .filter_map(|(index, window)| {
            let error = Maintenance::read(window).err()?;
            let path: [Step; 3] = ["maintenance".into(), index.into(), error.key.into()];
            Some(document.problem(&path, error.message))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::parse::Format;
    use std::path::Path;

    fn told(text: &str) -> String {
        let document = Document::parse(Path::new("m.toml"), text, Format::Toml).unwrap();
        let lines: Vec<String> = problems(&document).iter().map(ToString::to_string).collect();
        lines.join("\n")
    }

    #[test]
    fn what_does_not_fit_is_told_with_its_place() {
        let text = r#"
[[rules]]
name = "mine"
when = "eror_rate > 0.1"
[[rules]]
name = "broken"
when = "error_rate >"
[[handlers]]
name = "ops"
type = "email"
[[routes]]
rules = ["servise_down"]
handlers = ["opps"]
[[routes]]
handlers = []
[[maintenance]]
start = "2 o'clock"
duration = "1h"
[[maintenance]]
start = "02:00"
duration = "1h"
timezone = "Europa/Berlin"
"#;
        insta::assert_snapshot!(told(text), @r#"
        m.toml:4:8: rule `mine`: `when`: a rule of scope `service` has no name `eror_rate`; did you mean `error_rate`? (at line 1, column 1 of `when`)
        m.toml:7:8: rule `broken`: `when`: bad syntax: the condition ends too early (at line 1, column 13 of `when`)
        m.toml:13:13: there is no handler `opps`; did you mean `ops`?
        m.toml:12:10: there is no rule `servise_down`; did you mean `service_down`?
        m.toml:15:12: a route needs at least one handler
        m.toml:17:9: `2 o'clock` is not a time of day such as "02:00"
        m.toml:22:12: `Europa/Berlin` is not a time zone such as "Europe/Berlin"
        "#);
    }

    #[test]
    fn a_sound_configuration_has_no_problems() {
        let text = "[[rules]]\nname='mine'\nwhen='error_rate > 0.1'\n[[handlers]]\nname='ops'\n\
                    type='email'\n[[routes]]\nrules=['mine','service_down']\nhandlers=['ops']\n\
                    [[maintenance]]\nstart='02:00'\nduration='1h'\ntimezone='Europe/Berlin'\n";
        assert_eq!(told(text), "");
    }
}
