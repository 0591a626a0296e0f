//! What services ask of their tools (`functional`) and of others (`depends_on`), held against what
//! can be asked and what is there.

use std::collections::BTreeMap;

use mcpmon_core::dependency;
use mcpmon_core::{Dependency, ServiceName, ServiceSpec};

use super::document::Document;
use super::problem::{Problem, suggestion};
use super::tree::Step;

/// Calls and dependencies that mean nothing, whatever services there are.
pub(super) fn problems(document: &Document) -> Vec<Problem> {
    let names = document.settings.services.keys();
    names
        .flat_map(|name| [functional(document, name), dependencies(document, name)])
        .flatten()
        .collect()
}

fn functional(document: &Document, name: &str) -> Vec<Problem> {
    let entry = &document.settings.services[name];
    let mut problems = Vec::new();
    for (index, check) in entry.functional.iter().enumerate() {
        let mut tell = |keys: &[&str], message: String| {
            let mut path: Vec<Step> =
                vec!["services".into(), name.into(), "functional".into(), index.into()];
            path.extend(keys.iter().map(|key| Step::from(*key)));
            problems.push(document.problem(&path, message));
        };
        if check.tool.trim().is_empty() {
            tell(&["tool"], "a configured call needs the name of a tool".to_owned());
        }
        if check.expect.within.is_some_and(|within| within.is_zero()) {
            tell(&["expect", "within"], "`within` must be longer than 0".to_owned());
        }
        for pointer in check.expect.pointers.keys() {
            if !(pointer.is_empty() || pointer.starts_with('/')) {
                let message = format!("`{pointer}` is no JSON pointer; write `/{pointer}`");
                tell(&["expect", "pointers"], message);
            }
        }
    }
    problems
}

/// Entries that mean nothing. Whether the services named are there is known only once all are
/// found.
fn dependencies(document: &Document, name: &str) -> Vec<Problem> {
    let entry = &document.settings.services[name];
    let mut problems = Vec::new();
    for (index, text) in entry.depends_on.iter().enumerate() {
        let path: [Step; 4] = ["services".into(), name.into(), "depends_on".into(), index.into()];
        if let Err(error) = text.parse::<Dependency>() {
            problems.push(document.problem(&path, error.to_string()));
        }
    }
    problems
}

/// Services that depend on one that is not there, or in a circle on themselves.
pub(super) fn service_dependencies(document: &Document, services: &[ServiceSpec]) -> Vec<Problem> {
    let mut problems = Vec::new();
    let mut needs: BTreeMap<ServiceName, Vec<ServiceName>> = BTreeMap::new();
    let known = || services.iter().map(|service| service.name.as_str());
    for (name, entry) in &document.settings.services {
        for (index, text) in entry.depends_on.iter().enumerate() {
            let Ok(Dependency::Service(needed)) = text.parse() else { continue };
            if known().any(|known| known == needed.as_str()) {
                needs.entry(name.as_str().into()).or_default().push(needed);
                continue;
            }
            let path: [Step; 4] =
                ["services".into(), name.as_str().into(), "depends_on".into(), index.into()];
            let message = format!("there is no service `{text}`{}", suggestion(text, known()));
            problems.push(document.problem(&path, message));
        }
    }
    if let Some(way) = dependency::cycle(&needs) {
        let path: [Step; 3] = ["services".into(), way[0].as_str().into(), "depends_on".into()];
        let way: Vec<String> = way.iter().map(|name| format!("`{name}`")).collect();
        let message = format!("services depend on each other in a circle: {}", way.join(" on "));
        problems.push(document.problem(&path, message));
    }
    problems
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::config::parse::Format;

    fn document(text: &str) -> Document {
        Document::parse(Path::new("m.toml"), text, Format::Toml).unwrap()
    }

    fn lines(problems: &[Problem]) -> String {
        problems.iter().map(|problem| format!("{problem}\n")).collect()
    }

    #[test]
    fn calls_and_dependencies_that_mean_nothing_are_told_with_their_place() {
        let text = r#"
[services.a]
url = "http://127.0.0.1/"
depends_on = ["redis://db", "tcp://db"]
[[services.a.functional]]
tool = ""
[[services.a.functional]]
tool = "t"
expect = { within = 0, pointers = { "n" = 1 } }
"#;
        insta::assert_snapshot!(lines(&problems(&document(text))), @r"
        m.toml:6:8: a configured call needs the name of a tool
        m.toml:9:21: `within` must be longer than 0
        m.toml:9:35: `n` is no JSON pointer; write `/n`
        m.toml:4:15: `redis://db` is none of `tcp://`, `http://`, `https://`, `file:///` and `env:`
        m.toml:4:29: `tcp://db` is not `tcp://host:port`
        ");
    }

    #[test]
    fn services_depend_on_services_that_are_there_and_in_no_circle() {
        let told = |needs: [&str; 3]| {
            let table = |(name, needed): (&str, &str)| {
                format!("[services.{name}]\nurl = \"http://{name}/\"\ndepends_on = [{needed}]\n")
            };
            let names = ["alpha", "beta", "gamma"];
            let text: String = names.into_iter().zip(needs).map(table).collect();
            let services: Vec<ServiceSpec> =
                names.map(|name| ServiceSpec::http(name, "http://x/")).into();
            lines(&service_dependencies(&document(&text), &services))
        };
        assert_eq!(told(["'beta', 'env:X'", "'gamma'", ""]), "");
        insta::assert_snapshot!(
            told(["'betta'", "", ""]),
            @"m.toml:3:15: there is no service `betta`; did you mean `beta`?"
        );
        insta::assert_snapshot!(
            told(["'gamma'", "'alpha'", "'beta'"]),
            @"m.toml:3:14: services depend on each other in a circle: `alpha` on `gamma` on `beta` on `alpha`"
        );
    }
}
