//! `mcpmon db info|check`: the history as a file.

use mcpmon_core::Timestamp;
use mcpmon_store::StoreInfo;

use super::Form;
use super::archive::Archive;
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
}

#[derive(Debug, clap::Args)]
struct Answer {
    /// How to answer.
    #[arg(long, value_enum, default_value_t)]
    output: Form,
}

pub(crate) async fn run(args: &Args, paths: &Paths, output: &Output) -> Result<Exit, CliError> {
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
    }
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
