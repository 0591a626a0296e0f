//! `mcpmon export`: the history for other programs.

use std::path::{Path, PathBuf};

use clap::ValueEnum;
use mcpmon_core::settings::ExportFormat;
use mcpmon_core::{Clock as _, ServiceName, SystemClock, Timestamp, text};
use mcpmon_store::export::{ExportError, ExportProgress, ExportQuery, ExportTarget, Exporter};

use super::archive::Archive;
use crate::config::{Document, near};
use crate::exit::{CliError, Exit};
use crate::moment::Moment;
use crate::output::{self, Meter, Output};
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
    /// From then on, that moment included: `7d` ago, or `2026-11-22T14:00:00Z`.
    #[arg(long, value_name = "WHEN")]
    since: Option<Moment>,
    /// Before then, that moment excluded: exports that meet there hold every check once.
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
    if query.since.zip(query.until).is_some_and(|(since, until)| since >= until) {
        return Err(CliError::Usage("--since must be before --until".to_owned()));
    }
    let meter = Meter::new();
    let info = archive.store().info().await?;
    let range = Range::new(&query, info.oldest_check, info.newest_check);
    let exporter = Exporter::new(archive.store(), archive.store())
        .watched(|progress| meter.show(&range.words(progress)));
    let done = if args.file.as_deref() == Some(Path::new("-")) {
        to_stdout(&exporter, format, &query, now, output).await?
    } else {
        to_file(&exporter, format, &query, now, args, output).await?
    };
    meter.clear();
    if let Some(note) = summarised(&query, info.oldest_check) {
        output::say(&note);
    }
    if done {
        return Ok(Exit::Ok);
    }
    Err(CliError::Nothing(match &args.service {
        Some(name) => {
            let services = archive.any().services().await?;
            let known = services.iter().map(|stored| stored.facts.service.as_str());
            let near =
                if known.clone().any(|known| known == name) { None } else { near(name, known) };
            let near = near.unwrap_or_default();
            format!("service {} has no monitoring data{near}", text::for_terminal(name))
        }
        None => "there is no monitoring data".to_owned(),
    }))
}

/// The time an export spans, for saying how much of it is done.
struct Range {
    since: Option<Timestamp>,
    until: Option<Timestamp>,
}

impl Range {
    fn new(query: &ExportQuery, oldest: Option<Timestamp>, newest: Option<Timestamp>) -> Self {
        Self { since: query.since.max(oldest), until: query.until.or(newest).min(newest) }
    }

    fn words(&self, progress: ExportProgress) -> String {
        let rows = output::number(progress.records);
        match self.since.zip(self.until) {
            Some((since, until)) if since < until => {
                let share =
                    progress.at.since(since).as_secs_f64() / until.since(since).as_secs_f64();
                format!("exporting: {rows} rows, {:.0} % of the time", share.min(1.0) * 100.0)
            }
            _ => format!("exporting: {rows} rows"),
        }
    }
}

/// Single checks are not kept for as long as their sums.
fn summarised(query: &ExportQuery, oldest: Option<Timestamp>) -> Option<String> {
    let (since, oldest) = (query.since?, oldest?);
    (since < oldest).then(|| {
        format!(
            "single checks are there from {oldest} on; `mcpmon history NAME --output json` has what \
             is known of the time before"
        )
    })
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
