//! `mcpmon export`: the history for other programs.

use std::path::{Path, PathBuf};

use clap::ValueEnum;
use mcpmon_core::settings::ExportFormat;
use mcpmon_core::{Clock as _, ServiceName, SystemClock, Timestamp};
use mcpmon_store::export::{ExportError, ExportQuery, ExportTarget, Exporter};

use super::archive::Archive;
use crate::config::Document;
use crate::exit::{CliError, Exit};
use crate::moment::Moment;
use crate::output::Output;
use crate::paths::Paths;

/// Writes the history to a file, or to standard output with `--file -`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The format; `data_collection.export_format` if not said.
    #[arg(value_enum)]
    format: Option<Format>,
    /// Only this service; CSV needs one.
    #[arg(long, value_name = "NAME")]
    service: Option<String>,
    /// From then on: `7d` ago, or `2026-11-22T14:00:00Z`.
    #[arg(long, value_name = "WHEN")]
    since: Option<Moment>,
    /// Before then.
    #[arg(long, value_name = "WHEN")]
    until: Option<Moment>,
    /// The file, `-` for standard output; a name with the local time if not said.
    #[arg(long, value_name = "FILE")]
    file: Option<PathBuf>,
    /// Replace a file that is there.
    #[arg(long)]
    force: bool,
    /// The configuration file, for the format.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    /// One indented object.
    Json,
    /// One object a line.
    Jsonl,
    /// A table of one service.
    Csv,
}

impl From<ExportFormat> for Format {
    fn from(format: ExportFormat) -> Self {
        match format {
            ExportFormat::Json => Self::Json,
            ExportFormat::Jsonl => Self::Jsonl,
            ExportFormat::Csv => Self::Csv,
        }
    }
}

pub(crate) async fn run(args: &Args, paths: &Paths, output: &Output) -> Result<Exit, CliError> {
    let format = match args.format {
        Some(format) => format,
        None => {
            let document = Document::find(args.config.as_deref(), paths)?;
            document.settings.data_collection.export_format.into()
        }
    };
    if format == Format::Csv && args.service.is_none() {
        return Err(CliError::Usage("CSV holds one service; name it with --service".to_owned()));
    }
    let archive = Archive::open(&paths.database())?;
    let now = SystemClock.now();
    let query = ExportQuery {
        service: args.service.as_deref().map(ServiceName::from),
        since: args.since.map(|moment| moment.before(now)),
        until: args.until.map(|moment| moment.before(now)),
        ..ExportQuery::default()
    };
    let exporter = Exporter::new(archive.store(), archive.store());
    let done = if args.file.as_deref() == Some(Path::new("-")) {
        to_stdout(&exporter, format, &query, now, output).await?
    } else {
        to_file(&exporter, format, &query, now, args, output).await?
    };
    if done {
        return Ok(Exit::Ok);
    }
    Err(CliError::Nothing(match &args.service {
        Some(name) => format!("service {name} has no monitoring data"),
        None => "there is no monitoring data".to_owned(),
    }))
}

async fn to_stdout(
    exporter: &Exporter<'_>,
    format: Format,
    query: &ExportQuery,
    now: Timestamp,
    output: &Output,
) -> Result<bool, CliError> {
    let mut out = output.clone();
    let written = match format {
        Format::Json => exporter.write_json(query, now, &mut out).await,
        Format::Jsonl => exporter.write_jsonl(query, now, &mut out).await,
        Format::Csv => exporter.write_csv(query, &mut out).await,
    };
    written.map_err(failed)
}

async fn to_file(
    exporter: &Exporter<'_>,
    format: Format,
    query: &ExportQuery,
    now: Timestamp,
    args: &Args,
    output: &Output,
) -> Result<bool, CliError> {
    let target =
        ExportTarget { file: args.file.clone(), force: args.force, ..ExportTarget::default() };
    let written = match format {
        Format::Json => exporter.to_json(query, &target, now).await,
        Format::Jsonl => exporter.to_jsonl(query, &target, now).await,
        Format::Csv => exporter.to_csv(query, &target, now).await,
    };
    let path = written.map_err(failed)?;
    if let Some(path) = &path {
        output.line(&path.display().to_string());
    }
    Ok(path.is_some())
}

fn failed(error: ExportError) -> CliError {
    match error {
        ExportError::Store(error) => CliError::Store(error),
        ExportError::Exists { path } => CliError::Usage(format!(
            "`{}` is there already; replace it with --force, or name another file",
            path.display()
        )),
        ExportError::ServiceNeeded => CliError::Usage(error.to_string()),
        error => CliError::Failed(error.to_string()),
    }
}
