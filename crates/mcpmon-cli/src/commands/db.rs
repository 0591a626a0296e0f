//! `mcpmon db …`: the history as a file.

mod info;

use std::path::PathBuf;

use jiff::tz::TimeZone;
use mcpmon_core::store::{Retention, SampleStore as _};
use mcpmon_core::{Clock as _, StoreError, SystemClock, Timestamp};
use mcpmon_store::{OpenOptions, PruneReport, SqliteStore};

use super::Form;
use super::archive::Archive;
use crate::config::Document;
use crate::exit::{CliError, Exit};
use crate::output::{self, Align, Output, Table};
use crate::paths::Paths;

/// Looks at the database.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, clap::Subcommand)]
enum Action {
    /// Shows what the database holds, what it takes, and what will become of it.
    Info(Info),
    /// Reads all of it and says whether it is sound: SQLite's own checks, and that everything packed
    /// can be unpacked. Exit code 0 if it is, 1 if not, 3 if it cannot be read at all.
    Check(Answer),
    /// Writes a copy to a new file; the monitor may go on writing.
    Backup {
        /// The new file.
        file: PathBuf,
    },
    /// Puts a backup in the database's place. What stood there is kept under a dated name; the
    /// monitor must not be running.
    Restore {
        /// The backup.
        file: PathBuf,
    },
    /// Deletes what is older than the settings keep, and gives the room back. A running monitor
    /// does this by itself; beside one, only --dry-run works.
    Prune(Prune),
}

#[derive(Debug, clap::Args)]
struct Answer {
    /// How to answer.
    #[arg(long, value_enum, default_value_t)]
    output: Form,
}

#[derive(Debug, clap::Args)]
struct Info {
    /// The configuration file, for how long things are kept.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// How to answer.
    #[arg(long, value_enum, default_value_t)]
    output: Form,
}

#[derive(Debug, clap::Args)]
struct Prune {
    /// Delete nothing; say what would go.
    #[arg(long)]
    dry_run: bool,
    /// The configuration file, for how long things are kept.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// How to answer.
    #[arg(long, value_enum, default_value_t)]
    output: Form,
}

pub(crate) async fn run(args: &Args, paths: &Paths, output: &Output) -> Result<Exit, CliError> {
    if let Action::Restore { file } = &args.action {
        return restore(file, paths, output);
    }
    if let Action::Prune(prune) = &args.action {
        return run_prune(prune, paths, output).await;
    }
    let archive = Archive::open(&paths.database())?;
    match &args.action {
        Action::Info(args) => info::run(args, &archive, paths, output).await,
        Action::Check(answer) => {
            let report = archive.store().check().await?;
            match answer.output {
                Form::Json => output.json(&report),
                Form::Table if report.ok => output.line("sound"),
                Form::Table => {
                    report.problems.iter().for_each(|problem| output.line(problem));
                    output::say(
                        "the database is damaged; `mcpmon db backup FILE` saves what can be read, \
                         `mcpmon db restore FILE` puts an earlier backup back",
                    );
                }
            }
            Ok(if report.ok { Exit::Ok } else { Exit::NotWell })
        }
        Action::Backup { file } => {
            if file.symlink_metadata().is_ok() {
                let message = format!("`{}` is there already; name a new file", file.display());
                return Err(CliError::Usage(message));
            }
            archive.store().backup(file).await?;
            output.line(&file.display().to_string());
            Ok(Exit::Ok)
        }
        // Taken above: they need no history to read.
        Action::Restore { .. } | Action::Prune(_) => Ok(Exit::Ok),
    }
}

fn restore(file: &std::path::Path, paths: &Paths, output: &Output) -> Result<Exit, CliError> {
    let database = paths.database();
    let restored = SqliteStore::restore(file, &database, SystemClock.now());
    let before = restored.map_err(|error| match error {
        StoreError::Development { .. } => CliError::Failed(format!(
            "{error}; nothing was changed, name a backup that this version wrote"
        )),
        error => CliError::Store(error),
    })?;
    output.line(&format!("restored {}", database.display()));
    if let Some(before) = before {
        output::say(&format!("what was there is now `{}`", before.display()));
    }
    Ok(Exit::Ok)
}

async fn run_prune(args: &Prune, paths: &Paths, output: &Output) -> Result<Exit, CliError> {
    let document = Document::find(args.config.as_deref(), paths)?;
    let plan = Retention::from_settings(&document.settings).plan(SystemClock.now());
    let report = Archive::open(&paths.database())?.store().would_prune(&plan).await?;
    match args.output {
        Form::Json => output.json(&report),
        Form::Table => output.text(&prune_table(&report).render(None, output.look())),
    }
    if args.dry_run {
        return Ok(Exit::Ok);
    }
    let store = SqliteStore::open(paths.database(), OpenOptions::default())?;
    while store.prune(&plan).await?.more {}
    output::say("pruned");
    Ok(Exit::Ok)
}

fn prune_table(report: &PruneReport) -> Table {
    let zone = TimeZone::system();
    let moment = |at: Option<Timestamp>| local(at, &zone);
    let plan = &report.plan;
    let mut table =
        Table::new(&[("WHAT", Align::Left), ("BEFORE", Align::Left), ("ROWS", Align::Right)]);
    for (what, before, rows) in [
        ("single checks", plan.checks_before, report.checks),
        ("15-minute summaries", plan.quarters_before, report.quarters),
        ("hourly summaries", plan.hours_before, report.hours),
        ("changes, alerts, messages, host", plan.incidents_before, report.others),
    ] {
        table.row([what.into(), moment(before).into(), output::number(rows).into()]);
    }
    let surplus = output::bytes(report.surplus_bytes as f64);
    let used = format!("{} in use", output::bytes(report.used_bytes as f64));
    table.row(["too much for the bound".into(), used.into(), surplus.into()]);
    table
}

/// A moment as people read it here; seconds since 1970 say nothing to them, nor does another zone.
fn local(at: Option<Timestamp>, zone: &TimeZone) -> String {
    at.map_or_else(|| "-".to_owned(), |at| output::local_day(at, zone))
}
