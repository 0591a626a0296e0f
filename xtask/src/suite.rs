//! `test` and `soak`: the tests of the whole workspace, with their real peers.

use std::path::Path;
use std::process::Command;
use std::sync::Mutex;

use anyhow::{Context as _, Result, bail};

use crate::peers;
use crate::step::Step;
use crate::tally::{self, Tally};
use crate::terminal::say;
use crate::workspace;

/// What a missing peer means for a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Peers {
    /// Its tests skip; the run says so and passes.
    Optional,
    /// The run fails.
    Required,
}

impl Peers {
    /// Required where nobody reads the words: `CI` set to anything but a "no".
    fn from_environment() -> Self {
        match std::env::var("CI").as_deref() {
            Err(_) | Ok("" | "0" | "false") => Self::Optional,
            Ok(_) => Self::Required,
        }
    }

    /// The value of `MCPMON_PEERS`, which the tests read.
    fn as_str(self) -> &'static str {
        match self {
            Self::Optional => "optional",
            Self::Required => "required",
        }
    }
}

/// How the tests are run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    Short,
    /// Full counts, one test at a time (figures are taken), and what tests print is shown.
    Long,
}

/// `cargo xtask test [--no-peers] [arguments of the runner]`
pub(crate) fn test(arguments: &[String]) -> Result<()> {
    let (install, arguments) = match arguments {
        [first, rest @ ..] if first == "--no-peers" => (false, rest),
        all => (true, all),
    };
    run(Form::Short, Peers::from_environment(), install, arguments)
}

/// `cargo xtask soak [arguments of the runner]`
pub(crate) fn soak(arguments: &[String]) -> Result<()> {
    run(Form::Long, Peers::Required, true, arguments)
}

/// The test step of CI.
pub(crate) fn for_ci() -> Result<()> {
    run(Form::Short, Peers::Required, true, &[])
}

fn run(form: Form, peers: Peers, install: bool, arguments: &[String]) -> Result<()> {
    if install {
        match (peers::install(false), peers) {
            (Ok(()), _) => {}
            (Err(error), Peers::Required) => return Err(error),
            (Err(error), Peers::Optional) => {
                say(format_args!("\nWARNING: {error:#}\n         their tests will skip\n"));
            }
        }
    }
    let log = workspace::root()?.join("target/peers/skipped.log");
    empty(&log)?;

    let tally = Mutex::new(Tally::default());
    let mut failed = Vec::new();
    for step in steps(form, has_nextest(), arguments)? {
        let step = step.env("MCPMON_PEERS", peers.as_str());
        let typed = step.as_typed();
        say(format_args!("    $ {typed}"));
        if !tally::run(step.into_command(), &tally)?.success() {
            failed.push(typed);
        }
    }
    let mut tally = tally.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
    let skips = std::fs::read_to_string(&log).unwrap_or_default();
    tally.take_skips(&skips);
    report_skips(&skips);
    say(format_args!("\n{tally}"));

    if !failed.is_empty() {
        let what = if tally.failed == 0 {
            "the tests could not be run to their end"
        } else {
            "tests failed"
        };
        bail!("{what}; repeat with `{}`", failed.join("`, `"));
    }
    if tally.skipped > 0 && peers == Peers::Required {
        bail!("{tally}; a skip is a failure here, `cargo xtask peers` says what is missing");
    }
    Ok(())
}

/// nextest does not run examples in docs, so they are a run of their own; `cargo test` does both.
fn steps(form: Form, nextest: bool, arguments: &[String]) -> Result<Vec<Step>> {
    let scope = if names_packages(arguments) { &[][..] } else { &["--workspace"] };
    let mut steps = Vec::new();
    if nextest {
        // A filter names what is wanted, and rustdoc would not understand it.
        if arguments.is_empty() && form == Form::Short {
            steps.push(Step::cargo(["test", "--workspace", "--doc", "--locked"])?);
        }
        let mut step =
            Step::cargo(["nextest", "run"])?.args(scope).args(["--locked", "--no-fail-fast"]);
        if form == Form::Long {
            step = step.args(["--profile", "soak"]);
        }
        steps.push(step.args(arguments));
    } else {
        let mut step = Step::cargo(["test"])?.args(scope).args(["--locked", "--no-fail-fast"]);
        step = step.args(arguments);
        if form == Form::Long {
            if !arguments.iter().any(|argument| argument == "--") {
                step = step.args(["--"]);
            }
            step = step.args(["--nocapture", "--test-threads=1"]);
        }
        steps.push(step);
    }
    Ok(match form {
        Form::Short => steps,
        Form::Long => steps.into_iter().map(|step| step.env("MCPMON_SOAK", "1")).collect(),
    })
}

/// Cargo takes every member where both `--workspace` and a package are given.
fn names_packages(arguments: &[String]) -> bool {
    arguments
        .iter()
        .take_while(|argument| *argument != "--")
        .any(|argument| argument.starts_with("-p") || argument.starts_with("--package"))
}

fn has_nextest() -> bool {
    let mut command: Command = workspace::cargo();
    command.args(["nextest", "--version"]).output().is_ok_and(|output| output.status.success())
}

fn empty(log: &Path) -> Result<()> {
    if let Some(folder) = log.parent() {
        std::fs::create_dir_all(folder)
            .with_context(|| format!("cannot create `{}`", folder.display()))?;
    }
    std::fs::write(log, "").with_context(|| format!("cannot empty `{}`", log.display()))
}

fn report_skips(log: &str) {
    if log.is_empty() {
        return;
    }
    say("\nWARNING: these tests did nothing, because a peer is missing (`cargo xtask peers`):");
    for line in log.lines() {
        say(format_args!("         {line}"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(form: Form, nextest: bool, arguments: &[&str], typed: &[&str]) {
        let arguments: Vec<String> = arguments.iter().map(|&a| a.to_owned()).collect();
        let steps = steps(form, nextest, &arguments).unwrap();
        assert_eq!(steps.iter().map(Step::as_typed).collect::<Vec<_>>(), typed);
    }

    #[test]
    fn examples_in_docs_are_a_run_of_their_own_under_nextest() {
        check(
            Form::Short,
            true,
            &[],
            &[
                "cargo test --workspace --doc --locked",
                "cargo nextest run --workspace --locked --no-fail-fast",
            ],
        );
    }

    #[test]
    fn arguments_reach_the_runner() {
        check(
            Form::Short,
            true,
            &["-E", "test(kill)"],
            &["cargo nextest run --workspace --locked --no-fail-fast -E 'test(kill)'"],
        );
        check(
            Form::Short,
            false,
            &["-p", "mcpmon-core"],
            &["cargo test --locked --no-fail-fast -p mcpmon-core"],
        );
        check(
            Form::Short,
            true,
            &["-p", "mcpmon-core"],
            &["cargo nextest run --locked --no-fail-fast -p mcpmon-core"],
        );
    }

    #[test]
    fn a_soak_runs_one_test_at_a_time_and_shows_its_figures() {
        check(
            Form::Long,
            true,
            &["kills"],
            &["MCPMON_SOAK=1 cargo nextest run --workspace --locked --no-fail-fast \
               --profile soak kills"],
        );
        check(
            Form::Long,
            false,
            &["kills"],
            &["MCPMON_SOAK=1 cargo test --workspace --locked --no-fail-fast kills -- \
               --nocapture --test-threads=1"],
        );
    }
}
