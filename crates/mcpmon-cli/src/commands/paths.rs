//! `mcpmon paths`: which files are read and written.

use std::path::{Path, PathBuf};

use serde::Serialize;

use super::Form;
use crate::exit::{CliError, Exit};
use crate::output::{Align, Output, Table};
use crate::paths::Paths;

/// Shows which files mcpmon reads and writes.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// How to answer.
    #[arg(long, value_enum, default_value_t)]
    output: Form,
}

#[derive(Serialize)]
struct Report<'a> {
    schema: &'static str,
    /// The configuration that is read; `None` where there is none.
    config: Option<&'a Path>,
    config_candidates: &'a [PathBuf],
    state_dir: &'a Path,
    database: &'a Path,
}

pub(crate) fn run(args: &Args, paths: &Paths, output: &Output) -> Result<Exit, CliError> {
    let database = paths.database();
    if args.output == Form::Json {
        output.json(&Report {
            schema: "mcpmon/paths/v1",
            config: paths.found_config(),
            config_candidates: &paths.config_candidates,
            state_dir: &paths.state_dir,
            database: &database,
        });
        return Ok(Exit::Ok);
    }
    let mut table = Table::new(&[("WHAT", Align::Left), ("PATH", Align::Left)]);
    let found = paths.found_config();
    for candidate in &paths.config_candidates {
        let what = if found == Some(candidate) { "configuration" } else { "looked for" };
        table.row([what.into(), candidate.display().to_string().into()]);
    }
    table.row(["state".into(), paths.state_dir.display().to_string().into()]);
    table.row(["database".into(), database.display().to_string().into()]);
    output.text(&table.render(None, output.look()));
    Ok(Exit::Ok)
}
