//! Whether a dependency or a handler that somebody names exists, as far as that can be known beside
//! a monitor.

use std::collections::BTreeSet;
use std::path::PathBuf;

use mcpmon_alert::handlers_or_console;
use mcpmon_core::store::{AlertQuery, Store};
use mcpmon_core::{Dependency, Settings, Subject};

use crate::config::{Document, suggestion};
use crate::exit::CliError;
use crate::output;
use crate::paths::Paths;

/// Stored alerts in which subjects are looked up.
const MOST: usize = 1_000;

/// The dependencies and handlers of the configuration, and those alerts were about.
#[derive(Debug, Default)]
pub(super) struct Known {
    dependencies: BTreeSet<String>,
    handlers: BTreeSet<String>,
    /// The configuration that was read, if there is one.
    path: Option<PathBuf>,
}

impl Known {
    /// Reads the configuration that is found, and what the history has alerts about.
    pub(super) async fn read_names(store: &dyn Store, paths: &Paths) -> Result<Self, CliError> {
        let document = Document::find(None, paths).ok().filter(|found| found.path.is_some());
        let mut known =
            document.as_ref().map(|found| Self::from_settings(&found.settings)).unwrap_or_default();
        known.path = document.and_then(|found| found.path);
        let query = AlertQuery { limit: MOST, ..AlertQuery::default() };
        let alerts = store.alerts(&query).await?.into_iter().map(|record| record.alert.subject);
        let states = store.states().await?.into_iter().map(|state| state.key.subject);
        alerts.chain(states).for_each(|subject| known.add_subject(subject));
        Ok(known)
    }

    fn from_settings(settings: &Settings) -> Self {
        let needs = settings.services.values().flat_map(|service| &service.depends_on);
        let dependencies = needs.filter_map(|need| match need.parse() {
            Ok(Dependency::Service(_)) | Err(_) => None,
            Ok(dependency) => Some(dependency.to_string()),
        });
        let handlers = handlers_or_console(settings).into_iter().map(|handler| handler.name);
        Self { dependencies: dependencies.collect(), handlers: handlers.collect(), path: None }
    }

    fn add_subject(&mut self, subject: Subject) {
        match subject {
            Subject::Dependency(name) => drop(self.dependencies.insert(name)),
            Subject::Handler(name) => drop(self.handlers.insert(name)),
            _ => {}
        }
    }

    /// The dependency as alerts about it name it.
    ///
    /// # Errors
    ///
    /// When it is a service, or nothing in the configuration depends on it.
    pub(super) fn check_dependency(&self, text: &str) -> Result<String, CliError> {
        let name = match text.parse() {
            Ok(Dependency::Service(service)) => {
                return Err(CliError::Usage(format!(
                    "`{service}` is no dependency with alerts of its own, such as \
                     `tcp://db:5432`; a service is named without --dependency"
                )));
            }
            Ok(dependency) => dependency.to_string(),
            Err(error) => return Err(CliError::Usage(error.to_string())),
        };
        self.refuse_unknown("dependency", &name, &self.dependencies)?;
        Ok(name)
    }

    /// The handler's name.
    ///
    /// # Errors
    ///
    /// When the configuration has no such handler.
    pub(super) fn check_handler(&self, name: &str) -> Result<String, CliError> {
        self.refuse_unknown("handler", name, &self.handlers)?;
        Ok(name.to_owned())
    }

    /// Refuses a name that is not known. Where no configuration was read, the name may be one of a
    /// file only the monitor was given: then the silence is accepted, with a warning.
    fn refuse_unknown(
        &self,
        what: &str,
        name: &str,
        known: &BTreeSet<String>,
    ) -> Result<(), CliError> {
        if known.contains(name) {
            return Ok(());
        }
        let hint = suggestion(name, known.iter().map(String::as_str));
        match &self.path {
            Some(path) => Err(CliError::Usage(format!(
                "there is no {what} `{name}` in `{}`{hint}",
                path.display()
            ))),
            None => {
                output::say(&format!(
                    "no alert was about a {what} `{name}` before{hint}; silenced all the same, \
                     since no configuration is found here"
                ));
                Ok(())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn known() -> Known {
        let settings = serde_json::json!({
            "services": {
                "files": {
                    "url": "http://localhost/",
                    "depends_on": ["other", "tcp://db:5432/", "env:TOKEN"],
                },
                "other": { "url": "http://localhost/" },
            },
            "handlers": [{ "name": "ops", "type": "console" }],
        });
        let mut known = Known::from_settings(&serde_json::from_value(settings).unwrap());
        known.path = Some("mcpmon.toml".into());
        known.add_subject(Subject::Handler("gone".to_owned()));
        known.add_subject(Subject::Dependency("tcp://old:1".to_owned()));
        known.add_subject(Subject::Service("files".into()));
        known
    }

    #[track_caller]
    fn refused(result: Result<String, CliError>, words: &[&str]) {
        let error = result.unwrap_err();
        assert!(matches!(error, CliError::Usage(_)), "{error}");
        for word in words {
            assert!(error.to_string().contains(word), "{word}: {error}");
        }
    }

    #[test]
    fn a_dependency_is_named_as_in_the_configuration_or_as_in_its_alerts() {
        let known = known();
        for text in ["tcp://db:5432", "tcp://db:5432/", "TCP://db:5432"] {
            assert_eq!(known.check_dependency(text).unwrap(), "tcp://db:5432", "{text}");
        }
        assert_eq!(known.check_dependency("env:TOKEN").unwrap(), "env:TOKEN");
        assert_eq!(known.check_dependency("tcp://old:1").unwrap(), "tcp://old:1");
        refused(known.check_dependency("tcp://db:5433"), &["mcpmon.toml", "tcp://db:5432"]);
        refused(known.check_dependency("other"), &["`other`", "without --dependency"]);
        refused(known.check_dependency("redis://x"), &["redis://x"]);
    }

    #[test]
    fn a_handler_is_one_of_the_configuration_or_of_an_alert() {
        let known = known();
        assert_eq!(known.check_handler("ops").unwrap(), "ops");
        assert_eq!(known.check_handler("gone").unwrap(), "gone");
        refused(known.check_handler("opps"), &["no handler `opps`", "did you mean `ops`"]);
        refused(known.check_handler("files"), &["no handler `files`"]);
        let elsewhere = Known::default();
        assert_eq!(elsewhere.check_handler("night").unwrap(), "night", "the monitor may know it");
    }
}
