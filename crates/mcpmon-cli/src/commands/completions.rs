//! `mcpmon completions SHELL`: a completion script.

use clap::CommandFactory as _;

use crate::app::Cli;
use crate::exit::{CliError, Exit};
use crate::output::Output;

/// Prints a completion script for a shell.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Which shell.
    shell: clap_complete::Shell,
}

pub(crate) fn run(args: &Args, output: &Output) -> Result<Exit, CliError> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "mcpmon", &mut script);
    output.text(&String::from_utf8_lossy(&script));
    Ok(Exit::Ok)
}
