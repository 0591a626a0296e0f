//! `mcpmon alerts`: what fired, newest first.

use jiff::tz::TimeZone;
use mcpmon_core::contract::AlertsReport;
use mcpmon_core::store::AlertQuery;
use mcpmon_core::{Clock as _, SystemClock};

use super::Form;
use super::archive::Archive;
use crate::exit::{CliError, Exit};
use crate::moment::Moment;
use crate::output::{self, Align, Cell, Output, Table, level_style, local_day};
use crate::paths::Paths;

/// No more alerts than this are shown at once.
const MOST: usize = 1_000;

/// Shows alerts, newest first.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Only those that fired or ended since then: `1h` ago, or `2026-11-22T14:00:00Z`.
    #[arg(long, value_name = "WHEN")]
    since: Option<Moment>,
    /// Only those that fire now.
    #[arg(long)]
    active: bool,
    /// How to answer.
    #[arg(long, value_enum, default_value_t)]
    output: Form,
}

pub(crate) async fn run(args: &Args, paths: &Paths, output: &Output) -> Result<Exit, CliError> {
    let archive = Archive::open(&paths.database())?;
    let query = AlertQuery {
        active: args.active,
        since: args.since.map(|moment| moment.before(SystemClock.now())),
        limit: MOST,
        ..AlertQuery::default()
    };
    let alerts = archive.any().alerts(&query).await?;
    let many = alerts.len() >= MOST;
    let report = AlertsReport::new(alerts);
    match args.output {
        Form::Json => output.json(&report),
        Form::Table => show(&report, output),
    }
    if many {
        output::say(&format!("only the newest {MOST} are shown; name a nearer --since"));
    }
    Ok(Exit::Ok)
}

fn show(report: &AlertsReport, output: &Output) {
    if report.alerts.is_empty() {
        return output::say("no alerts");
    }
    let zone = TimeZone::system();
    let mut table = Table::new(&[
        ("TIME", Align::Left),
        ("LEVEL", Align::Left),
        ("STATE", Align::Left),
        ("RULE", Align::Left),
        ("SERVICE", Align::Left),
        ("MESSAGE", Align::Left),
    ]);
    for record in &report.alerts {
        let alert = &record.alert;
        let service = alert.service_name.as_ref().map_or("-", |name| name.as_str());
        table.row([
            Cell::new(local_day(alert.timestamp, &zone)),
            Cell::new(alert.level.as_str()).styled(level_style(alert.level)),
            Cell::new(record.state.as_str()),
            Cell::new(&alert.rule_name),
            Cell::new(service),
            Cell::new(&alert.message),
        ]);
    }
    output.text(&table.render(output.width(), output.look()));
}
