//! `mcpmon db info`: what the database holds and takes, what the settings keep of it, and how it will
//! grow.

use std::time::Duration;

use jiff::tz::TimeZone;
use mcpmon_core::store::{PrunePlan, Retention, SampleStore as _};
use mcpmon_core::{Clock as _, SystemClock};
use mcpmon_store::{Forecast, PruneReport, StoreInfo, TableSize};
use serde::Serialize;

use super::{Info, local};
use crate::commands::Form;
use crate::commands::archive::Archive;
use crate::config::Document;
use crate::exit::{CliError, Exit};
use crate::output::{self, Align, Output, Table};
use crate::paths::Paths;

/// Tables that get a line each; the rest takes little.
const MOST_TABLES: usize = 6;

/// `mcpmon/db-info/v1`, as a command gives it: what the store says, and what the settings make of
/// it. The latter are null where the configuration cannot be read.
#[derive(Serialize)]
struct Report {
    #[serde(flatten)]
    info: StoreInfo,
    retention: Option<Kept>,
    /// What would be deleted now.
    prune: Option<PruneReport>,
    /// Null also where no service is watched.
    forecast: Option<Forecast>,
}

/// How long things are kept.
#[derive(Serialize)]
struct Kept {
    raw_seconds: u64,
    quarters_seconds: u64,
    hours_seconds: u64,
    most_bytes: u64,
}

pub(super) async fn run(
    args: &Info,
    archive: &Archive,
    paths: &Paths,
    output: &Output,
) -> Result<Exit, CliError> {
    let info = archive.store().info().await?;
    // What the file holds is worth knowing even beside a configuration that is not right.
    let retention = match Document::find(args.config.as_deref(), paths) {
        Ok(document) => Some(Retention::from_settings(&document.settings)),
        Err(error) if args.config.is_some() => return Err(error.into()),
        Err(error) => {
            output::say(&format!("how long things are kept is not known:\n{error}"));
            None
        }
    };
    let (mut prune, mut forecast) = (None, None);
    if let Some(retention) = &retention {
        let plan: PrunePlan = retention.plan(SystemClock.now());
        prune = Some(archive.store().would_prune(&plan).await?);
        let services = archive.store().services().await?;
        let watched = services.iter().filter(|stored| stored.facts.watched);
        let intervals = watched.filter_map(|stored| stored.facts.check_interval_ms);
        let intervals = intervals.map(Duration::from_millis);
        forecast = Forecast::of(intervals, &info.resolutions, retention);
    }
    let retention = retention.map(|kept| Kept {
        raw_seconds: kept.raw.as_secs(),
        quarters_seconds: kept.quarters.as_secs(),
        hours_seconds: kept.hours.as_secs(),
        most_bytes: kept.most_bytes,
    });
    let report = Report { info, retention, prune, forecast };
    match args.output {
        Form::Json => output.json(&report),
        Form::Table => output.text(&page(&report, output)),
    }
    Ok(Exit::Ok)
}

fn size(bytes: f64) -> String {
    output::bytes(bytes)
}

fn page(report: &Report, output: &Output) -> String {
    let zone = TimeZone::system();
    let (width, look) = (output.width(), output.look());
    let tables = [
        file(&report.info),
        resolutions(report, &zone),
        contents(&report.info),
        by_table(&report.info),
        future(report),
    ];
    let drawn: Vec<_> = tables.iter().map(|table| table.render(width, look)).collect();
    drawn.join("\n")
}

fn pairs(heading: &'static str, rows: impl IntoIterator<Item = (String, String)>) -> Table {
    let mut table = Table::new(&[(heading, Align::Left), ("", Align::Left)]).rigid(&[heading]);
    for (what, value) in rows {
        table.row([what.into(), value.into()]);
    }
    table
}

fn named<const N: usize>(rows: [(&str, String); N]) -> [(String, String); N] {
    rows.map(|(what, value)| (what.to_owned(), value))
}

fn file(info: &StoreInfo) -> Table {
    let monitor = if info.in_use { "yes" } else { "no" };
    pairs(
        "FILE",
        named([
            ("path", info.path.display().to_string()),
            ("monitor running", monitor.to_owned()),
            ("size", size(info.file_bytes as f64)),
            ("write-ahead log", size(info.wal_bytes as f64)),
            ("file system", file_system(info)),
            ("free inside", size(info.free_bytes as f64)),
            ("schema", format!("{} (SQLite {})", info.schema_version, info.sqlite_version)),
        ]),
    )
}

fn file_system(info: &StoreInfo) -> String {
    match &info.file_system {
        None => "-".to_owned(),
        Some(found) if found.is_network => {
            format!("{}, a network file system: not safe for a database", found.kind)
        }
        Some(found) => found.kind.clone(),
    }
}

fn resolutions(report: &Report, zone: &TimeZone) -> Table {
    let mut table = Table::new(&[
        ("HISTORY", Align::Left),
        ("ROWS", Align::Right),
        ("SIZE", Align::Right),
        ("EACH", Align::Right),
        ("FROM", Align::Left),
        ("TO", Align::Left),
        ("KEPT", Align::Right),
    ])
    .rigid(&["HISTORY", "FROM", "TO"])
    .optional(&["TO", "EACH"]);
    let kept = report.retention.as_ref();
    let kept = kept.map(|kept| [kept.raw_seconds, kept.quarters_seconds, kept.hours_seconds]);
    for (place, one) in report.info.resolutions.iter().enumerate() {
        let what = ["single checks", "15-minute sums", "hourly sums"];
        let kept = kept.and_then(|kept| kept.get(place).copied()).map(Duration::from_secs);
        // A page is half empty while rows are few.
        let each =
            (one.rows >= 1_000).then(|| format!("{:.1} B", one.bytes as f64 / one.rows as f64));
        let minute = |at| {
            let day = local(at, zone);
            day.get(..16).unwrap_or(&day).to_owned()
        };
        table.row([
            what.get(place).copied().unwrap_or(&one.resolution).into(),
            output::number(one.rows).into(),
            size(one.bytes as f64).into(),
            each.unwrap_or_else(|| "-".to_owned()).into(),
            minute(one.oldest).into(),
            minute(one.newest).into(),
            kept.map_or_else(|| "-".to_owned(), output::rough).into(),
        ]);
    }
    table
}

fn contents(info: &StoreInfo) -> Table {
    let sent = format!(
        "{} queued, {} delivered, {} given up",
        output::number(info.outbox.queued),
        output::number(info.outbox.delivered),
        output::number(info.outbox.dead)
    );
    let alerts = match info.alerts {
        0 => "0".to_owned(),
        all => format!("{}, {} of them open", output::number(all), info.open_alerts),
    };
    pairs(
        "BESIDE IT",
        named([
            ("services", output::number(info.services)),
            ("status changes", output::number(info.status_changes)),
            ("tool lists", output::number(info.tool_lists)),
            ("host samples", output::number(info.host_samples)),
            ("alerts", alerts),
            ("notifications", sent),
            ("commands waiting", output::number(info.commands)),
        ]),
    )
}

fn by_table(info: &StoreInfo) -> Table {
    let (large, rest) = info.tables.split_at(info.tables.len().min(MOST_TABLES));
    let line = |table: &TableSize| (table.table.clone(), size(table.bytes as f64));
    let mut rows: Vec<_> = large.iter().map(line).collect();
    let (count, bytes) = (rest.len(), rest.iter().map(|table| table.bytes).sum::<u64>());
    if count > 0 {
        rows.push((output::count(count, "other"), size(bytes as f64)));
    }
    let mut table = Table::new(&[("TABLE", Align::Left), ("SIZE", Align::Right)]).rigid(&["TABLE"]);
    rows.into_iter().for_each(|(what, bytes)| table.row([what.into(), bytes.into()]));
    table
}

fn future(report: &Report) -> Table {
    let mut rows = Vec::new();
    if let (Some(kept), Some(prune)) = (&report.retention, &report.prune) {
        let used = format!("{} of {}", size(prune.used_bytes as f64), size(kept.most_bytes as f64));
        rows.push(("in use", used));
        let due = [
            (prune.checks, "check"),
            (prune.quarters, "15-minute sum"),
            (prune.hours, "hourly sum"),
            (prune.others, "other row"),
        ];
        let due: Vec<_> = due
            .into_iter()
            .filter(|(rows, _)| *rows > 0)
            .map(|(rows, what)| output::count(usize::try_from(rows).unwrap_or(usize::MAX), what))
            .collect();
        let mut due = if due.is_empty() { "nothing".to_owned() } else { due.join(", ") };
        if prune.surplus_bytes > 0 {
            due.push_str(&format!("; then {} of the oldest", size(prune.surplus_bytes as f64)));
        }
        rows.push(("pruned next", due));
    }
    if let Some(forecast) = &report.forecast {
        let pace = format!(
            "by {} a day ({} checks)",
            size(forecast.bytes_per_day),
            output::number(forecast.checks_per_day as u64)
        );
        rows.push(("grows", pace));
        let mut settles = format!("at about {}", size(forecast.settles_at_bytes));
        if forecast.exceeds_bound {
            settles.push_str(", more than the bound: the oldest will go before its time");
        }
        rows.push(("settles", settles));
    }
    if rows.is_empty() {
        rows.push(("forecast", "none: no service is watched".to_owned()));
    }
    pairs("FUTURE", rows.into_iter().map(|(what, value)| (what.to_owned(), value)))
}
