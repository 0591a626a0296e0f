//! `mcpmon db …`: the history as a file.

use std::path::PathBuf;

use mcpmon_core::store::{Retention, SampleStore as _};
use mcpmon_core::{Clock as _, SystemClock, Timestamp};
use mcpmon_store::{OpenOptions, PruneReport, SqliteStore, StoreInfo};

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
    /// Shows what the database holds and what it takes.
    Info(Answer),
    /// Reads all of it and says whether it is sound; exit code 1 if it is not.
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
        Action::Info(answer) => {
            let info = archive.store().info().await?;
            match answer.output {
                Form::Json => output.json(&info),
                Form::Table => output.text(&table(&info).render(None, output.look())),
            }
            Ok(Exit::Ok)
        }
        Action::Check(answer) => {
            let report = archive.store().check().await?;
            match answer.output {
                Form::Json => output.json(&report),
                Form::Table if report.ok => output.line("sound"),
                Form::Table => report.problems.iter().for_each(|problem| output.line(problem)),
            }
            Ok(if report.ok { Exit::Ok } else { Exit::NotWell })
        }
        Action::Backup { file } => {
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
    let before = SqliteStore::restore(file, &database, SystemClock.now())?;
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
    let moment = |at: Option<Timestamp>| at.map_or_else(|| "-".to_owned(), |at| at.to_string());
    let plan = &report.plan;
    let mut table =
        Table::new(&[("WHAT", Align::Left), ("BEFORE", Align::Left), ("ROWS", Align::Right)]);
    for (what, before, rows) in [
        ("single checks", plan.checks_before, report.checks),
        ("15-minute summaries", plan.quarters_before, report.quarters),
        ("hourly summaries", plan.hours_before, report.hours),
        ("changes, alerts, messages, host", plan.incidents_before, report.others),
    ] {
        table.row([what.into(), moment(before).into(), rows.to_string().into()]);
    }
    let surplus = output::bytes(report.surplus_bytes as f64);
    let used = format!("{} in use", output::bytes(report.used_bytes as f64));
    table.row(["too much for the bound".into(), used.into(), surplus.into()]);
    table
}

fn table(info: &StoreInfo) -> Table {
    let size = |bytes: u64| output::bytes(bytes as f64);
    let moment = |at: Option<Timestamp>| at.map_or_else(|| "-".to_owned(), |at| at.to_string());
    let mut table = Table::new(&[("WHAT", Align::Left), ("VALUE", Align::Left)]);
    for (what, value) in [
        ("file", info.path.display().to_string()),
        ("written by a monitor now", if info.in_use { "yes" } else { "no" }.to_owned()),
        ("size", size(info.file_bytes)),
        ("write-ahead log", size(info.wal_bytes)),
        ("free inside", size(info.free_bytes)),
        ("schema", format!("{} (SQLite {})", info.schema_version, info.sqlite_version)),
        ("services", info.services.to_string()),
        ("checks", info.checks.to_string()),
        ("oldest check", moment(info.oldest_check)),
        ("newest check", moment(info.newest_check)),
        ("status changes", info.status_changes.to_string()),
        ("tool lists", info.tool_lists.to_string()),
        ("host samples", info.host_samples.to_string()),
        ("alerts", format!("{}, {} open", info.alerts, info.open_alerts)),
        (
            "notifications",
            format!(
                "{} queued, {} delivered, {} given up",
                info.outbox.queued, info.outbox.delivered, info.outbox.dead
            ),
        ),
    ] {
        table.row([what.into(), value.into()]);
    }
    table
}
