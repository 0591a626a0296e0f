//! One step of a chore: a command whose failure names itself and how to repeat it.

use std::ffi::OsStr;
use std::process::Command;

use anyhow::{Context as _, Result, bail};

use crate::terminal::{Stopwatch, say};
use crate::workspace;

/// A command that is shown before it runs and can be typed again after it failed.
pub(crate) struct Step {
    command: Command,
    environment: Vec<(&'static str, &'static str)>,
}

impl Step {
    /// `cargo` with these arguments, in the root of the workspace.
    pub(crate) fn cargo<S: AsRef<OsStr>>(arguments: impl IntoIterator<Item = S>) -> Result<Self> {
        let mut command = workspace::cargo();
        command.args(arguments).current_dir(workspace::root()?);
        Ok(Self { command, environment: Vec::new() })
    }

    /// Sets a variable, which is then part of the command shown.
    pub(crate) fn env(mut self, name: &'static str, value: &'static str) -> Self {
        self.command.env(name, value);
        self.environment.push((name, value));
        self
    }

    /// Appends arguments.
    pub(crate) fn args<S: AsRef<OsStr>>(mut self, arguments: impl IntoIterator<Item = S>) -> Self {
        self.command.args(arguments);
        self
    }

    /// What a person would type.
    pub(crate) fn as_typed(&self) -> String {
        let variables =
            self.environment.iter().map(|(name, value)| format!("{name}={}", quoted(value)));
        let arguments = self.command.get_args().map(|a| quoted(&a.to_string_lossy()));
        variables
            .chain(std::iter::once("cargo".to_owned()))
            .chain(arguments)
            .collect::<Vec<_>>()
            .join(" ")
    }

    /// Runs it with our own input and output, and waits.
    ///
    /// # Errors
    ///
    /// If it cannot start or ends badly; the message is the command to repeat.
    pub(crate) fn run(mut self) -> Result<()> {
        let typed = self.as_typed();
        say(format_args!("    $ {typed}"));
        let status =
            self.command.status().with_context(|| format!("`{typed}` could not be started"))?;
        if !status.success() {
            bail!("`{typed}` failed ({status})");
        }
        Ok(())
    }

    /// The bare command, for whoever reads its output.
    pub(crate) fn into_command(self) -> Command {
        self.command
    }
}

/// Runs a named part of a chore and says how long it took.
///
/// # Errors
///
/// What the part gave, with the name and `repeat`, the command that runs this part alone.
pub(crate) fn timed(name: &str, repeat: &str, part: impl FnOnce() -> Result<()>) -> Result<()> {
    say(format_args!("\n==> {name}"));
    let watch = Stopwatch::start();
    let outcome = part();
    let elapsed = watch.elapsed();
    match outcome {
        Ok(()) => {
            say(format_args!("    {name}: ok, {elapsed}"));
            Ok(())
        }
        Err(error) => {
            say(format_args!("    {name}: FAILED, {elapsed}"));
            Err(blamed(error, name, repeat))
        }
    }
}

fn blamed(error: anyhow::Error, name: &str, repeat: &str) -> anyhow::Error {
    error.context(format!("step `{name}` failed; repeat it with `{repeat}`"))
}

fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./=:,@+".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        word.to_owned()
    } else {
        format!("'{}'", word.replace('\'', r"'\''"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_step_reads_as_it_would_be_typed() {
        let step = Step::cargo(["doc", "--no-deps"]).unwrap().env("RUSTDOCFLAGS", "-D warnings");
        assert_eq!(step.as_typed(), "RUSTDOCFLAGS='-D warnings' cargo doc --no-deps");
    }

    #[test]
    fn a_failed_part_names_itself_and_its_repetition() {
        let error = blamed(anyhow::anyhow!("no such page"), "docs", "cargo xtask ci docs");
        assert_eq!(
            format!("{error:#}"),
            "step `docs` failed; repeat it with `cargo xtask ci docs`: no such page"
        );
    }
}
