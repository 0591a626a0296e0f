//! `mcpmon history NAME`: how a service fared.

use std::time::Duration;

use jiff::tz::TimeZone;
use mcpmon_core::store::{HistoryPoint, HistoryQuery, PerStatus, Summary};
use mcpmon_core::{Clock as _, ServiceName, Status, SystemClock, Timestamp, duration, text};
use serde::Serialize;

use super::Form;
use super::archive::{Archive, unknown_service};
use crate::exit::{CliError, Exit};
use crate::moment::{self, Moment};
use crate::output::{self, Align, Cell, Look, Output, Table, local_day, status_style};
use crate::paths::Paths;

/// Rows a table has at most where no step is named.
const ROWS: u64 = 24;
/// Steps people count in, in seconds.
const STEPS: [u64; 13] = [
    60, 300, 900, 1_800, 3_600, 10_800, 21_600, 43_200, 86_400, 172_800, 604_800, 1_209_600,
    2_592_000,
];
const DEFAULT_SPAN: Duration = Duration::from_secs(86_400);

/// Shows how a service fared: uptime, failures and latencies, step by step.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The service.
    name: String,
    /// From then on: `30d` ago, or `2026-11-22T14:00:00Z`; a day ago if not said.
    #[arg(long, value_name = "WHEN")]
    since: Option<Moment>,
    /// Before then; now if not said.
    #[arg(long, value_name = "WHEN")]
    until: Option<Moment>,
    /// The span of one row; what makes about 24 rows if not said.
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
    service: ServiceName,
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
            total_checks: summary.checks.sum(),
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
    let services = archive.any().services().await?;
    let names = || services.iter().map(|stored| stored.facts.service.as_str());
    if !names().any(|name| name == args.name) {
        return Err(unknown_service(&args.name, names()));
    }
    let until = args.until.map_or(now, |moment| moment.before(now));
    let since = args.since.unwrap_or(Moment::Ago(DEFAULT_SPAN)).before(now);
    if since >= until {
        return Err(CliError::Usage("--since must be before --until".to_owned()));
    }
    let query = HistoryQuery {
        service: ServiceName::from(args.name.as_str()),
        since,
        until,
        step: Some(args.step.unwrap_or_else(|| step_for(until.since(since)))),
    };
    let history = archive.any().history(&query).await?;
    let whole = history.whole();
    match args.output {
        Form::Json => output.json(&Report {
            schema: "mcpmon/history/v1",
            service: query.service,
            since: history.points.first().map_or(since, |point| point.at),
            until,
            step_seconds: history.step.map(|step| step.as_secs_f64()),
            summary: Part::of(&whole),
            points: history
                .points
                .iter()
                .map(|point| Point {
                    at: point.at,
                    until: point.until,
                    part: Part::of(&point.summary),
                })
                .collect(),
        }),
        Form::Table => {
            let zone = TimeZone::system();
            let page = Page { look: output.look(), width: output.width(), zone };
            output.text(&page.render(&args.name, &whole, &history.points));
        }
    }
    Ok(Exit::Ok)
}

/// The finest usual step that makes no more than [`ROWS`] rows.
fn step_for(span: Duration) -> Duration {
    let enough = |step: &&u64| span.as_secs() <= **step * ROWS;
    Duration::from_secs(*STEPS.iter().find(enough).unwrap_or(&STEPS[STEPS.len() - 1]))
}

/// How the page is drawn.
struct Page {
    look: Look,
    width: Option<usize>,
    zone: TimeZone,
}

impl Page {
    fn render(&self, name: &str, whole: &Summary, points: &[HistoryPoint]) -> String {
        let mut page = format!(
            "{}: {} up, {}, {} failed\n",
            text::for_terminal(name),
            percent(whole.uptime()),
            output::count(usize::try_from(whole.checks.sum()).unwrap_or(usize::MAX), "check"),
            whole.failed(),
        );
        let at = |q| latency(whole, q);
        page.push_str(&format!("latency: p50 {}, p95 {}, p99 {}\n", at(0.5), at(0.95), at(0.99)));
        for (status, ms) in whole.times.iter().filter(|(_, ms)| *ms > 0) {
            let word = self.look.paint(status.as_str(), status_style(status));
            let span = duration::format(Duration::from_secs(ms / 1_000));
            page.push_str(&format!("  {} {word} {span}\n", self.look.glyph(status)));
        }
        page.push_str(&format!("p95  {}\n\n", self.sparkline(points)));
        page.push_str(&self.table(points));
        page
    }

    /// One column for each point: p95 against the largest; a point without any is a blank.
    fn sparkline(&self, points: &[HistoryPoint]) -> String {
        const BARS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
        const PLAIN: [char; 8] = ['_', '.', '-', ':', '=', '+', '*', '#'];
        let bars = if self.look.unicode { BARS } else { PLAIN };
        let room = self.width.unwrap_or(80).saturating_sub(5).max(1);
        let together = points.len().div_ceil(room).max(1);
        let heights: Vec<Option<f64>> = points
            .chunks(together)
            .map(|chunk| {
                let mut all = Summary::default();
                chunk.iter().for_each(|point| all.merge(&point.summary));
                all.latency.quantile(0.95).map(|p95| p95.as_secs_f64())
            })
            .collect();
        let largest = heights.iter().flatten().copied().fold(0.0, f64::max);
        let bar = |height: &Option<f64>| match height {
            Some(height) if largest > 0.0 => {
                bars[((height / largest * 7.0).round() as usize).min(7)]
            }
            Some(_) => bars[0],
            None => ' ',
        };
        heights.iter().map(bar).collect()
    }

    fn table(&self, points: &[HistoryPoint]) -> String {
        let mut table = Table::new(&[
            ("FROM", Align::Left),
            ("UPTIME", Align::Right),
            ("CHECKS", Align::Right),
            ("FAILED", Align::Right),
            ("P50", Align::Right),
            ("P95", Align::Right),
            ("P99", Align::Right),
            ("WORST", Align::Left),
        ]);
        for point in points {
            let summary = &point.summary;
            let latency = |q| Cell::new(latency(summary, q));
            // Time nobody looked says nothing of the service, unless there is no other.
            let mut told = summary.times.iter().filter(|(_, ms)| *ms > 0).map(|(status, _)| status);
            let worst = told.find(|status| *status != Status::Unknown).unwrap_or_default();
            let from = local_day(point.at, &self.zone);
            table.row([
                // Seconds say nothing here, and 80 columns are few.
                Cell::new(from.get(..16).unwrap_or(&from)),
                Cell::new(percent(summary.uptime())),
                Cell::new(summary.checks.sum().to_string()),
                Cell::new(summary.failed().to_string()),
                latency(0.5),
                latency(0.95),
                latency(0.99),
                Cell::new(worst.as_str()).styled(status_style(worst)),
            ]);
        }
        table.render(self.width, self.look)
    }
}

fn latency(summary: &Summary, q: f64) -> String {
    summary.latency.quantile(q).map_or_else(|| "-".to_owned(), output::span)
}

/// Never rounded up to 100 %: that is said of what was never down.
fn percent(share: Option<f64>) -> String {
    let Some(share) = share else { return "-".to_owned() };
    let hundredths = (share * 10_000.0).floor() / 100.0;
    if share >= 1.0 { "100%".to_owned() } else { format!("{hundredths:.2}%") }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn point(hour: i64, latencies: &[u64], up: u64, down: u64) -> HistoryPoint {
        let mut summary = Summary::default();
        for ms in latencies {
            summary.record(Status::Running, None, Some(Duration::from_millis(*ms)));
        }
        summary.times.add(Status::Running, up);
        summary.times.add(Status::Stopped, down);
        let at = |hour: i64| Timestamp::from_millis(1_795_356_000_000 + hour * 3_600_000);
        HistoryPoint { at: at(hour), until: at(hour + 1), summary }
    }

    fn page(look: Look, width: Option<usize>) -> String {
        let points = [
            point(0, &[10, 12, 14], 3_600_000, 0),
            point(1, &[], 0, 0),
            point(2, &[80, 95, 120], 3_000_000, 600_000),
        ];
        let mut whole = Summary::default();
        points.iter().for_each(|point| whole.merge(&point.summary));
        Page { look, width, zone: TimeZone::UTC }.render("files", &whole, &points)
    }

    #[test]
    fn the_page_is_plain_in_a_pipe_and_fits_80_columns() {
        insta::assert_snapshot!("history", page(Look::plain(), None));
        let narrow = page(Look { colour: false, unicode: false }, Some(80));
        assert!(narrow.is_ascii(), "{narrow}");
        let widest = |page: &str| page.lines().map(unicode_width::UnicodeWidthStr::width).max();
        assert!(widest(&narrow) <= Some(80), "{narrow}");
    }

    #[test]
    fn an_outage_is_never_rounded_away() {
        assert_eq!(percent(Some(0.999_999_9)), "99.99%");
        assert_eq!(percent(Some(1.0)), "100%");
        assert_eq!(percent(None), "-");
    }

    #[test]
    fn about_two_dozen_rows_if_no_step_is_named() {
        for (hours, step) in [(1, 300), (24, 3_600), (24 * 7, 43_200), (24 * 30, 172_800)] {
            assert_eq!(step_for(Duration::from_secs(hours * 3_600)).as_secs(), step, "{hours} h");
        }
    }
}
