//! `mcpmon man`: manual pages, for packagers and for `man -l -`.

use std::path::PathBuf;

use clap::CommandFactory as _;

use crate::app::Cli;
use crate::exit::{CliError, Exit};
use crate::output::Output;

/// Prints the manual page, or writes a page for every command.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Write one page per command into this directory instead.
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
}

pub(crate) fn run(args: &Args, output: &Output) -> Result<Exit, CliError> {
    let command = Cli::command();
    if let Some(dir) = &args.dir {
        let failed =
            |error| CliError::io(format!("cannot write pages to `{}`", dir.display()), error);
        std::fs::create_dir_all(dir).map_err(failed)?;
        clap_mangen::generate_to(command, dir).map_err(failed)?;
        return Ok(Exit::Ok);
    }
    let mut page = Vec::new();
    clap_mangen::Man::new(command)
        .render(&mut page)
        .map_err(|error| CliError::io("cannot draw the page", error))?;
    output.text(&String::from_utf8_lossy(&page));
    Ok(Exit::Ok)
}
