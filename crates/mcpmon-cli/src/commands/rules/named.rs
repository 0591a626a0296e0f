//! Whether a rule that somebody names exists, as far as that can be told beside a monitor.

use std::path::PathBuf;

use mcpmon_alert::RuleSet;
use mcpmon_core::settings::Settings;
use mcpmon_core::store::{AlertQuery, Store};

use crate::config::{Document, suggestion};
use crate::exit::CliError;
use crate::output;
use crate::paths::Paths;

/// Refuses a name that no rule of the configuration has. Where no configuration is found, or it
/// cannot be read, a rule nobody knows is only wondered at: the monitor may have been given
/// another file, with rules of its own.
///
/// # Errors
///
/// When there is no such rule, with the one that was probably meant.
pub(crate) async fn check(name: &str, store: &dyn Store, paths: &Paths) -> Result<(), CliError> {
    let document = Document::find(None, paths).ok().filter(|found| found.path.is_some());
    let usual = Settings::default();
    let settings = document.as_ref().map_or(&usual, |found| &found.settings);
    let set = RuleSet::from_settings(settings).unwrap_or_default();
    let mut known = set.known_names(settings);
    // What fired once is a rule of whatever the monitor was given.
    known.extend(store.states().await?.into_iter().map(|state| state.key.rule));
    let alerts = AlertQuery { limit: 1_000, ..AlertQuery::default() };
    known.extend(store.alerts(&alerts).await?.into_iter().map(|record| record.alert.rule_name));
    if known.iter().any(|rule| rule == name) {
        return Ok(());
    }
    let hint = suggestion(name, known.iter().map(String::as_str));
    let path: Option<PathBuf> = document.and_then(|found| found.path);
    match path {
        Some(path) => Err(CliError::Usage(format!(
            "there is no rule `{name}` in `{}`{hint}; `mcpmon rules list` shows those there are",
            path.display()
        ))),
        None => {
            let message = format!(
                "no rule `{name}` is built in or fired before{hint}; silenced all the same, \
                 since the monitor may have rules that are not known here"
            );
            output::say(&message);
            Ok(())
        }
    }
}
