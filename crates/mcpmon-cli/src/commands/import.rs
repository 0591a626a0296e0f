//! `mcpmon import jsonl`: puts an export back.

use std::io::{BufRead, BufReader, Read};
use std::path::PathBuf;

use clap::ValueEnum;
use mcpmon_core::store::SampleStore;
use mcpmon_store::import::{ImportError, Importer};
use mcpmon_store::{OpenOptions, SqliteStore};

use crate::exit::{CliError, Exit};
use crate::output::{self, Output};
use crate::paths::Paths;

/// Reads an export back into the history. The monitor must not be running.
///
/// Checks that are there already are left out, so a file may be read twice.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The format.
    #[arg(value_enum)]
    format: Format,
    /// The file, `-` for standard input.
    file: PathBuf,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    /// What `mcpmon export jsonl` writes.
    Jsonl,
}

pub(crate) async fn run(args: &Args, paths: &Paths, output: &Output) -> Result<Exit, CliError> {
    let Format::Jsonl = args.format;
    let input: Box<dyn Read + Send> = match args.file.to_str() {
        Some("-") => Box::new(std::io::stdin()),
        _ => Box::new(std::fs::File::open(&args.file).map_err(|error| {
            CliError::io(format!("cannot read `{}`", args.file.display()), error)
        })?),
    };
    let store = SqliteStore::open(paths.database(), OpenOptions::default())?;
    let mut lines: Box<dyn BufRead + Send> = Box::new(BufReader::new(input));
    let samples: &dyn SampleStore = &store;
    let done = Importer::new(samples, &store).read_jsonl(&mut lines).await;
    let done = done.map_err(|error| match error {
        ImportError::Store(error) => CliError::Store(error),
        error => CliError::Usage(format!("`{}`: {error}", args.file.display())),
    })?;
    output.line(&format!(
        "imported {} and {}",
        output::count(usize::try_from(done.checks).unwrap_or(usize::MAX), "check"),
        output::count(usize::try_from(done.alerts).unwrap_or(usize::MAX), "alert"),
    ));
    if done.known > 0 {
        output::say(&format!("{} were there already", done.known));
    }
    Ok(Exit::Ok)
}
