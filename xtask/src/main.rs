//! `cargo xtask`: every chore of the workspace as one command, the same by hand and in CI.
//!
//! Nothing here is needed to build or use mcpmon. It is a program of its own, on few
//! dependencies, so that a chore starts in a moment and may rebuild everything else.

mod bench;
mod ci;
mod dist;
mod peers;
mod step;
mod suite;
mod tally;
mod terminal;
mod tidy;
mod workspace;

use std::process::ExitCode;

use anyhow::{Result, bail};

use crate::terminal::say;

const USAGE: &str = "\
usage: cargo xtask <chore>

  ci [STEP…]             every check, in order: format, tidy, clippy, docs, alone, package, test
  test [--no-peers] […]  all tests; what follows goes to the test runner
  soak […]               the tests with a long form, in full (MCPMON_SOAK=1)
  bench [NAME] [-- …]    the benchmarks of `benches/`, with optimisation
  peers [--force]        install the real servers the tests talk to, into target/peers
  tidy                   the house rules: crate map, licences, duplicates, module docs, words
  tidy words [--lower]   lists names and comments against the rules, or lowers xtask/words.toml
  dist                   the archive to ship, in target/dist";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match run(&arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            say(format_args!("\nerror: {error:#}"));
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &[String]) -> Result<()> {
    let (chore, rest) = match arguments {
        [chore, rest @ ..] => (chore.as_str(), rest),
        [] => ("help", arguments),
    };
    match chore {
        "ci" => ci::run(rest),
        "test" => suite::test(rest),
        "soak" => suite::soak(rest),
        "bench" => bench::run(rest),
        "peers" => peers::run(rest),
        "tidy" => tidy::run(rest),
        "dist" => dist::run(rest),
        "help" | "-h" | "--help" => {
            say(USAGE);
            Ok(())
        }
        other => bail!("no chore is called `{other}`\n\n{USAGE}"),
    }
}

/// Refuses arguments to a chore that has none, so that a misspelt option is never ignored.
fn expect_no_arguments(chore: &str, arguments: &[String]) -> Result<()> {
    match arguments.first() {
        Some(argument) => bail!("`cargo xtask {chore}` knows no argument `{argument}`"),
        None => Ok(()),
    }
}
