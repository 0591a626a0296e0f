//! Secrets of handlers, read from where the configuration says they are.

use std::io::Read as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use mcpmon_collect::{EntryContext, Variables, resolve_secret};
use mcpmon_core::Settings;
use mcpmon_core::settings::{HandlerSettings, SecretRef};

use super::document::Document;
use super::problem::Problem;
use super::tree::Step;

/// A command that gives a secret may take this long: a person may have to touch a key.
const COMMAND_TIME: Duration = Duration::from_secs(30);
/// More output than this is no secret.
const LARGEST_OUTPUT: u64 = 64 * 1024;

/// Runs a command and gives what it prints.
pub(crate) fn run_command(argv: &[String]) -> Result<String, String> {
    let (program, args) = argv.split_first().ok_or("it names no program")?;
    let mut child = Command::new(program)
        .args(args)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::inherit())
        .spawn()
        .map_err(|error| error.to_string())?;
    let (sender, output) = mpsc::channel();
    if let Some(stdout) = child.stdout.take() {
        std::thread::spawn(move || {
            let mut text = String::new();
            let read = stdout.take(LARGEST_OUTPUT).read_to_string(&mut text);
            // Whoever asked may have given up.
            let _ = sender.send(read.map(|_| text));
        });
    }
    let text = match output.recv_timeout(COMMAND_TIME) {
        Ok(Ok(text)) => text,
        Ok(Err(error)) => return Err(end(child, format!("its output cannot be read: {error}"))),
        Err(_) => {
            let waited = mcpmon_core::duration::format(COMMAND_TIME);
            return Err(end(child, format!("it gave nothing within {waited}")));
        }
    };
    match child.wait() {
        Ok(status) if status.success() => Ok(text),
        Ok(status) => Err(format!("it ended with {status}")),
        Err(error) => Err(error.to_string()),
    }
}

/// Ends a command that is of no more use; it may have ended by itself.
fn end(mut child: Child, why: String) -> String {
    let _ = child.kill();
    let _ = child.wait();
    why
}

/// Fills in every secret of every handler.
pub(crate) fn resolve_handlers(
    document: &Document,
    vars: &Variables,
    settings: &mut Settings,
) -> Vec<Problem> {
    let mut problems = Vec::new();
    for (index, handler) in settings.handlers.iter_mut().enumerate() {
        for (key, source) in sources(handler) {
            let context =
                EntryContext { dir: document.directory(), vars, origin: "", run: &run_command };
            match resolve_secret(&source, &context) {
                Ok(secret) => handler.resolve(&key, secret),
                Err(error) => {
                    let path: [Step; 3] = ["handlers".into(), index.into(), key.as_str().into()];
                    let message = format!("handler `{}`: `{key}`: {error}", handler.name);
                    problems.push(document.problem(&path, message));
                }
            }
        }
    }
    problems
}

/// The keys that name a secret's source: a table with one of `env`, `file`, `command` and nothing
/// else.
fn sources(handler: &HandlerSettings) -> Vec<(String, SecretRef)> {
    handler
        .values()
        .iter()
        .filter(|(_, value)| value.as_object().is_some_and(|table| table.len() == 1))
        .filter_map(|(key, value)| {
            let source = serde_json::from_value(value.clone()).ok()?;
            Some((key.clone(), source))
        })
        .collect()
}

/// The directory a file's relative paths begin at, as an absolute path where that can be told.
pub(crate) fn absolute(path: &Path) -> std::path::PathBuf {
    std::path::absolute(path).unwrap_or_else(|_| path.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::parse::Format;
    use mcpmon_core::Secret;

    fn argv(words: &[&str]) -> Vec<String> {
        words.iter().map(|word| (*word).to_owned()).collect()
    }

    #[test]
    fn a_command_gives_what_it_prints() {
        assert_eq!(run_command(&argv(&["printf", "a b"])).unwrap(), "a b");
        assert!(run_command(&argv(&["false"])).unwrap_err().contains("exit status: 1"));
        assert!(run_command(&argv(&["/nowhere/at/all"])).is_err());
        assert!(run_command(&[]).is_err());
    }

    #[test]
    fn a_handlers_secrets_are_filled_in_or_told_with_their_place() {
        let text = "[[handlers]]\nname = 'ops'\ntype = 'email'\n\
                    password = { env = 'PW' }\ntoken = { env = 'NOT_SET' }\n";
        let document = Document::parse(Path::new("m.toml"), text, Format::Toml).unwrap();
        let mut settings = document.settings.clone();
        let vars = Variables::new([("PW", "hunter22")]);
        let problems = resolve_handlers(&document, &vars, &mut settings);
        let exposed: Vec<&str> = settings.handlers[0].secrets().map(Secret::expose).collect();
        assert_eq!(exposed, ["hunter22"]);
        let [problem] = problems.as_slice() else { panic!("{problems:?}") };
        let text = problem.to_string();
        assert!(text.starts_with("m.toml:5:9: ") && text.contains("NOT_SET"), "{text}");
    }
}
