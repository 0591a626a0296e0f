//! `mcpmon history NAME…`: how a service, or several as one, fared.

mod chosen;
mod page;
mod steps;

use std::path::PathBuf;
use std::time::Duration;

use jiff::tz::TimeZone;
use mcpmon_core::store::{History, HistoryQuery, PerStatus, Store, Summary, history};
use mcpmon_core::{Clock as _, ServiceName, Status, SystemClock, Timestamp};
use serde::Serialize;

use self::chosen::{Chosen, Label};
use self::page::Page;
use super::Form;
use super::archive::Archive;
use crate::exit::{CliError, Exit};
use crate::moment::{self, Moment};
use crate::output::{self, Output};
use crate::paths::Paths;

const DEFAULT_SPAN: Duration = Duration::from_secs(86_400);

/// Shows how a service fared: uptime, failures and latencies, step by step.
///
/// Several services are told as one: their time is added up, and a percentile is that of all their
/// answers together.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The service; several are told as one.
    #[arg(value_name = "NAME", required_unless_present = "label")]
    names: Vec<String>,
    /// Every service that the configuration gives this label; of several, those with all of them.
    #[arg(long, value_name = "KEY=VALUE", conflicts_with = "names")]
    label: Vec<Label>,
    /// The configuration file, for the labels.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// From then on: `30d` ago, or `2026-11-22T14:00:00Z`; a day ago if not said.
    #[arg(long, value_name = "WHEN")]
    since: Option<Moment>,
    /// Before then; now if not said.
    #[arg(long, value_name = "WHEN")]
    until: Option<Moment>,
    /// The span of one row; what makes about 24 rows if not said. Days begin at midnight here, and
    /// are an hour shorter or longer when the clocks change.
    #[arg(long, value_name = "SPAN", value_parser = moment::interval)]
    step: Option<Duration>,
    /// How to answer.
    #[arg(long, value_enum, default_value_t)]
    output: Form,
}

/// `mcpmon/history/v1`. Times are milliseconds; uptime is a share from 0 to 1, null where nobody
/// looked.
#[derive(Debug, Serialize)]
struct Report {
    schema: &'static str,
    /// Null where several are told as one.
    service: Option<ServiceName>,
    services: Vec<ServiceName>,
    since: Timestamp,
    until: Timestamp,
    step_seconds: Option<f64>,
    summary: Part,
    points: Vec<Point>,
}

#[derive(Debug, Serialize)]
struct Point {
    at: Timestamp,
    until: Timestamp,
    #[serde(flatten)]
    part: Part,
}

#[derive(Debug, Serialize)]
struct Part {
    uptime: Option<f64>,
    total_checks: u64,
    failed_checks: u64,
    checks: PerStatus,
    codes: std::collections::BTreeMap<mcpmon_core::FailureCode, u64>,
    times_ms: PerStatus,
    latency_p50_ms: Option<f64>,
    latency_p95_ms: Option<f64>,
    latency_p99_ms: Option<f64>,
}

impl Part {
    fn of(summary: &Summary) -> Self {
        let at = |q| summary.latency.quantile(q).map(|latency| latency.as_secs_f64() * 1_000.0);
        Self {
            uptime: summary.uptime(),
            total_checks: summary.counted(),
            failed_checks: summary.failed(),
            checks: summary.checks,
            codes: summary.codes.clone(),
            times_ms: summary.times,
            latency_p50_ms: at(0.5),
            latency_p95_ms: at(0.95),
            latency_p99_ms: at(0.99),
        }
    }
}

pub(crate) async fn run(args: &Args, paths: &Paths, output: &Output) -> Result<Exit, CliError> {
    let archive = Archive::open(&paths.database())?;
    let now = SystemClock.now();
    let chosen = Chosen::find(args, archive.any(), paths).await?;
    let until = args.until.map_or(now, |moment| moment.before(now));
    let since = args.since.unwrap_or(Moment::Ago(DEFAULT_SPAN)).before(now);
    if since >= until {
        return Err(CliError::Usage("--since must be before --until".to_owned()));
    }
    let zone = TimeZone::system();
    let ask = Question { store: archive.any(), services: &chosen.services, until, zone: &zone };
    match args.output {
        Form::Json => {
            let step = args.step.unwrap_or_else(|| steps::usual(until.since(since)));
            let history = ask.between(since, step).await?;
            say_if_widened(args.step, history.step);
            output.json(&Report::new(&chosen.services, (since, until), &history));
        }
        Form::Table => {
            let (history, begins) = ask.since_first_known(since, args.step).await?;
            if !history.points.iter().any(|point| is_known(&point.summary)) {
                return Err(nothing_known(&chosen, archive.any()).await?);
            }
            say_if_widened(args.step, history.step);
            let (look, width) = (output.look(), output.width());
            let page = Page { look, width, zone, begins, step: history.step };
            output.text(&page.render(&chosen.title, &history.whole(), &history.points));
        }
    }
    Ok(Exit::Ok)
}

/// Rows are bounded in number, so a short step over a long time is made longer.
fn say_if_widened(asked: Option<Duration>, taken: Option<Duration>) {
    if let (Some(asked), Some(taken)) = (asked, taken)
        && taken > asked
    {
        let format = mcpmon_core::duration::format;
        output::say(&format!(
            "a step of {} is too short for this range; each row spans {}",
            format(asked),
            format(taken)
        ));
    }
}

impl Report {
    fn new(
        services: &[ServiceName],
        (since, until): (Timestamp, Timestamp),
        history: &History,
    ) -> Self {
        let points = history.points.iter().map(|point| Point {
            at: point.at,
            until: point.until,
            part: Part::of(&point.summary),
        });
        Self {
            schema: "mcpmon/history/v1",
            service: services.first().filter(|_| services.len() == 1).cloned(),
            services: services.to_vec(),
            since: history.points.first().map_or(since, |point| point.at),
            until,
            step_seconds: history.step.map(|step| step.as_secs_f64()),
            summary: Part::of(&history.whole()),
            points: points.collect(),
        }
    }
}

/// Whether somebody looked, or nobody was to look.
fn is_known(summary: &Summary) -> bool {
    let told = summary.times.iter().any(|(status, ms)| status != Status::Unknown && ms > 0);
    told || summary.checks.sum() > 0
}

/// What is asked of a store, but for where it begins and in which steps.
struct Question<'a> {
    store: &'a dyn Store,
    services: &'a [ServiceName],
    until: Timestamp,
    zone: &'a TimeZone,
}

impl Question<'_> {
    async fn between(&self, since: Timestamp, step: Duration) -> Result<History, CliError> {
        let local = steps::local_edges(since, self.until, step, self.zone);
        let Some(edges) = local else { return self.in_steps(since, self.until, step).await };
        let finest = steps::finest(&edges);
        let mut fine = History { points: Vec::new(), step: Some(finest) };
        for (since, until) in steps::stretches(since, self.until, finest) {
            fine.points.extend(self.in_steps(since, until, finest).await?.points);
        }
        Ok(steps::gather(&fine, &edges, step))
    }

    async fn in_steps(
        &self,
        since: Timestamp,
        until: Timestamp,
        step: Duration,
    ) -> Result<History, CliError> {
        let service = ServiceName::from("");
        let query = HistoryQuery { service, since, until, step: Some(step) };
        Ok(history::of_several(self.store, self.services, &query).await?)
    }

    /// The same, but beginning where something is known: a young history fills its rows. Says where
    /// that is, if it is later than asked for.
    async fn since_first_known(
        &self,
        asked: Timestamp,
        step: Option<Duration>,
    ) -> Result<(History, Option<Timestamp>), CliError> {
        let mut since = asked;
        loop {
            let taken = step.unwrap_or_else(|| steps::usual(self.until.since(since)));
            let mut history = self.between(since, taken).await?;
            let known = history.points.iter().position(|point| is_known(&point.summary));
            let unknown = known.unwrap_or(0);
            let begins = history.points.get(unknown).map_or(since, |point| point.at);
            // Each turn is finer than the last, and there is a finest.
            if unknown > 0 && step.is_none() && steps::usual(self.until.since(begins)) < taken {
                since = begins;
                continue;
            }
            history.points.drain(..unknown);
            let is_later = begins > asked;
            return Ok((history, is_later.then_some(begins)));
        }
    }
}

/// Nobody looked in all that time: perhaps at another.
async fn nothing_known(chosen: &Chosen, store: &dyn Store) -> Result<CliError, CliError> {
    let services = store.services().await?;
    let own = services.iter().filter(|stored| chosen.services.contains(&stored.facts.service));
    let last = own.filter_map(|stored| stored.last_check.as_ref()).map(|check| check.at).max();
    Ok(CliError::Nothing(match last {
        Some(last) => format!(
            "nothing is known of {} in that time; the last check was at {last}, name an earlier \
             --since",
            chosen.title
        ),
        None => format!("nothing is known of {} yet; it was never checked", chosen.title),
    }))
}
