//! Matchers: the names and values by which silences and routes choose alerts.

use std::collections::BTreeMap;

use crate::status::Level;
use crate::subject::Subject;

/// The names of matchers that compare a property of the alert. Every other name compares the
/// service's label of that name; a label with one of these names cannot be matched.
pub const MATCHER_NAMES: [&str; 7] =
    ["rule_name", "service_name", "tool_name", "level", "subject_kind", "dependency", "handler"];

/// The properties of an alert that matchers compare.
#[derive(Debug, Clone, Copy)]
pub struct MatchedAlert<'a> {
    /// The rule's name.
    pub rule: &'a str,
    /// What the alert is about.
    pub subject: &'a Subject,
    /// How bad it is.
    pub level: Level,
    /// The service's labels.
    pub labels: &'a BTreeMap<String, String>,
}

impl MatchedAlert<'_> {
    /// Whether every matcher equals the alert's property of that name. `service_name` equals only
    /// the service of a service or a tool: a handler named `ops` is no service named `ops`.
    pub fn matches(&self, matchers: &BTreeMap<String, String>) -> bool {
        matchers.iter().all(|(name, wanted)| self.value_of(name) == Some(wanted))
    }

    fn value_of(&self, name: &str) -> Option<&str> {
        match name {
            "rule_name" => Some(self.rule),
            "service_name" => self.subject.service().map(|service| service.as_str()),
            "tool_name" => self.subject.tool(),
            "level" => Some(self.level.as_str()),
            "subject_kind" => Some(self.subject.kind().as_str()),
            "dependency" => self.subject.dependency(),
            "handler" => self.subject.handler(),
            label => self.labels.get(label).map(String::as_str),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn subjects() -> [Subject; 6] {
        [
            Subject::Service("ops".into()),
            Subject::tool_of("ops", "ops"),
            Subject::Host,
            Subject::Monitor,
            Subject::Dependency("ops".to_owned()),
            Subject::Handler("ops".to_owned()),
        ]
    }

    /// Which of the six subjects named `ops` a matcher chooses.
    #[track_caller]
    fn check(name: &str, value: &str, expected: &[&str]) {
        let matchers = BTreeMap::from([(name.to_owned(), value.to_owned())]);
        let labels = BTreeMap::from([("team".to_owned(), "web".to_owned())]);
        let all = subjects();
        let chosen = all.iter().filter(|subject| {
            let alert = MatchedAlert { rule: "r", subject, level: Level::Error, labels: &labels };
            alert.matches(&matchers)
        });
        let chosen: Vec<&str> = chosen.map(|subject| subject.kind().as_str()).collect();
        assert_eq!(chosen, expected, "{name} = {value}");
    }

    #[test]
    fn a_matcher_chooses_by_kind_and_name() {
        let all = ["service", "tool", "host", "monitor", "dependency", "handler"];
        check("service_name", "ops", &["service", "tool"]);
        check("tool_name", "ops", &["tool"]);
        check("dependency", "ops", &["dependency"]);
        check("handler", "ops", &["handler"]);
        for kind in all {
            check("subject_kind", kind, &[kind]);
        }
        for name in ["service_name", "tool_name", "dependency", "handler", "subject_kind"] {
            check(name, "other", &[]);
        }
        check("rule_name", "r", &all);
        check("rule_name", "other", &[]);
        check("level", "error", &all);
        check("level", "warning", &[]);
        check("team", "web", &all);
        check("team", "ops", &[]);
        check("subject", "ops", &[]);
    }

    #[test]
    fn a_label_with_the_name_of_a_matcher_is_not_compared() {
        let labels: BTreeMap<String, String> =
            MATCHER_NAMES.map(|name| (name.to_owned(), "label".to_owned())).into();
        let alert = MatchedAlert {
            rule: "r",
            subject: &Subject::Host,
            level: Level::Error,
            labels: &labels,
        };
        for name in MATCHER_NAMES {
            assert!(!alert.matches(&[(name.to_owned(), "label".to_owned())].into()), "{name}");
        }
    }
}
