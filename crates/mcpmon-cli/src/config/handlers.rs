//! Handlers, made from the settings before anything else is opened.

use std::sync::Arc;

use mcpmon_alert::{HandlerRegistry, handlers_or_console};
use mcpmon_collect::Variables;
use mcpmon_core::Handler;
use mcpmon_core::settings::{HandlerSettings, SettingsError};

use super::document::Document;
use super::problem::{ConfigError, Problem, closest};
use super::secrets;
use super::tree::Step;

/// Makes every handler the file names, or the console where it names none. Reads secrets from where
/// they are; may block.
///
/// # Errors
///
/// Every secret that cannot be read and every handler that cannot be made, with their places.
pub(crate) fn build(
    document: &Document,
    registry: &HandlerRegistry,
    vars: &Variables,
) -> Result<Vec<Arc<dyn Handler>>, ConfigError> {
    let mut settings = document.settings.clone();
    let mut problems = secrets::resolve_handlers(document, vars, &mut settings);
    match registry.build_all(&handlers_or_console(&settings)) {
        Ok(handlers) if problems.is_empty() => return Ok(handlers),
        Ok(_) => {}
        Err(errors) => {
            let unresolved = problems.clone();
            for (index, error) in errors {
                let problem = describe(document, &settings.handlers[index], index, &error);
                // A secret that is missing is one mistake, not two.
                if !unresolved.iter().any(|known| same_handler(document, known, index)) {
                    problems.push(problem);
                }
            }
        }
    }
    Err(ConfigError::new(problems))
}

fn same_handler(document: &Document, problem: &Problem, index: usize) -> bool {
    let handler = &document.settings.handlers[index];
    let prefix = format!("handler `{}`:", handler.name);
    problem.message.starts_with(&prefix)
}

/// The error stands at the key it names, where the handler has that key.
fn describe(
    document: &Document,
    handler: &HandlerSettings,
    index: usize,
    error: &SettingsError,
) -> Problem {
    let mut path: Vec<Step> = vec!["handlers".into(), index.into()];
    let own = handler.values().keys().map(String::as_str);
    let named = own.chain(["name", "type"]).find(|key| error.message.contains(&format!("`{key}`")));
    path.extend(named.map(Step::from));
    let advice = meant(&error.message);
    document.key_problem(&path, format!("{error}{advice}"))
}

/// The key that was meant, where a handler's own reader says ``unknown field `a`, expected one of
/// `b`, `c` ``: serde's words, which every handler shares.
fn meant(message: &str) -> String {
    let mut words = message.split('`').skip(1).step_by(2);
    match (message.contains("unknown field"), words.next()) {
        (true, Some(unknown)) => closest(unknown, words)
            .map(|meant| format!("; did you mean `{meant}`?"))
            .unwrap_or_default(),
        _ => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::parse::Format;
    use std::path::Path;

    fn told(text: &str) -> String {
        let document = Document::parse(Path::new("m.toml"), text, Format::Toml).unwrap();
        let vars = Variables::new([("PW", "hunter22")]);
        match build(&document, &HandlerRegistry::new(), &vars) {
            Ok(handlers) => format!("{} handlers", handlers.len()),
            Err(error) => error.to_string(),
        }
    }

    #[test]
    fn handlers_that_cannot_be_made_are_told_with_their_place() {
        let text = r#"
[[handlers]]
name = "ops"
type = "emial"
[[handlers]]
name = "boss"
type = "email"
smtp = "smtp://mail.example.com"
form = "a@example.com"
to = ["b@example.com"]
[[handlers]]
name = "night"
type = "email"
smtp = "smtps://mail.example.com"
password = { env = "UNSET" }
from = "a@example.com"
to = ["b@example.com"]
"#;
        insta::assert_snapshot!(told(text), @r#"
        m.toml:4:1: handler `ops`: `type`: there is no type `emial`; did you mean `email`?
        m.toml:9:1: handler `boss`: unknown field `form`, expected one of `smtp`, `starttls`, `user`, `password`, `ca_file`, `from`, `to`, `timeout`; did you mean `from`?
        m.toml:15:12: handler `night`: `password`: variable `UNSET` is not set
        "#);
    }

    #[test]
    fn a_secret_reaches_its_handler() {
        let text = "[[handlers]]\nname='ops'\ntype='email'\nsmtp='smtps://u@mail.example.com'\n\
                    password={env='PW'}\nfrom='a@example.com'\nto=['b@example.com']\n";
        assert_eq!(told(text), "1 handlers");
    }
}
