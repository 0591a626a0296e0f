//! The history as people read it: a headline, a sparkline, a row for each step.

use std::time::Duration;

use jiff::tz::TimeZone;
use mcpmon_core::store::{HistoryPoint, Summary};
use mcpmon_core::{Status, Timestamp, text};

use super::is_known;
use crate::output::{self, Align, Cell, Look, Table, local_day, status_style};

/// Columns of the sparkline's name and of its scale.
const BESIDE_SPARKLINE: usize = 5 + 18;

/// How the page is drawn.
pub(super) struct Page {
    pub(super) look: Look,
    pub(super) width: Option<usize>,
    pub(super) zone: TimeZone,
    /// Where the history begins, if something earlier was asked for.
    pub(super) begins: Option<Timestamp>,
    /// The span of a row.
    pub(super) step: Option<Duration>,
}

impl Page {
    pub(super) fn render(&self, name: &str, whole: &Summary, points: &[HistoryPoint]) -> String {
        let mut page = format!(
            "{}: {} up, {}, {} failed\n",
            text::for_terminal(name),
            percent(whole.uptime()),
            output::count(usize::try_from(whole.counted()).unwrap_or(usize::MAX), "check"),
            whole.failed(),
        );
        let at = |q| latency(whole, q);
        page.push_str(&format!("latency: p50 {}, p95 {}, p99 {}\n", at(0.5), at(0.95), at(0.99)));
        for (status, ms) in whole.times.iter().filter(|(_, ms)| *ms > 0) {
            let word = self.look.paint(status.as_str(), status_style(status));
            let span = output::rough(Duration::from_millis(ms));
            page.push_str(&format!("  {} {word} {span}\n", self.look.glyph(status)));
        }
        page.push_str(&format!("p95  {}\n\n", self.sparkline(points)));
        if let Some(begins) = self.begins {
            page.push_str(&format!("nothing is known before {}\n", self.minute(begins)));
        }
        page.push_str(&self.table(points));
        page
    }

    /// One column for each point: p95 against the largest, which is named; a point without any is a
    /// blank.
    fn sparkline(&self, points: &[HistoryPoint]) -> String {
        const BARS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
        const PLAIN: [char; 8] = ['_', '.', '-', ':', '=', '+', '*', '#'];
        let bars = if self.look.unicode { BARS } else { PLAIN };
        let room = self.width.unwrap_or(80).saturating_sub(BESIDE_SPARKLINE).max(1);
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
        let drawn: String = heights.iter().map(bar).collect();
        match Duration::try_from_secs_f64(largest) {
            Ok(largest) if !largest.is_zero() => {
                format!("{drawn}  up to {}", output::span(largest))
            }
            _ => drawn,
        }
    }

    /// Seconds say nothing here unless rows are shorter than a minute, and 80 columns are few.
    fn minute(&self, at: Timestamp) -> String {
        let day = local_day(at, &self.zone);
        if self.step.is_some_and(|step| step < Duration::from_secs(60)) {
            return day;
        }
        day.get(..16).unwrap_or(&day).to_owned()
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
        ])
        .rigid(&["FROM"])
        .optional(&["P50", "P99"]);
        let mut points = points.iter().peekable();
        while let Some(point) = points.next() {
            let from = Cell::new(self.minute(point.at));
            if is_known(&point.summary) {
                table.row(std::iter::once(from).chain(numbers(&point.summary)));
                continue;
            }
            let mut until = point.until;
            while let Some(next) = points.next_if(|next| !is_known(&next.summary)) {
                until = next.until;
            }
            let gap = format!("unknown {}", output::rough(until.since(point.at)));
            let blank = || Cell::from("-");
            let blanks = std::iter::repeat_with(blank).take(6);
            let gap = Cell::new(gap).styled(status_style(Status::Unknown));
            table.row([from].into_iter().chain(blanks).chain([gap]));
        }
        table.render(self.width, self.look)
    }
}

/// What a row says of a step in which somebody looked.
fn numbers(summary: &Summary) -> [Cell; 7] {
    let latency = |q| Cell::new(latency(summary, q));
    // Time nobody looked says nothing of the service; without any other, its checks do.
    let told = summary.times.iter().chain(summary.checks.iter());
    let mut told = told.filter(|(_, number)| *number > 0).map(|(status, _)| status);
    let worst = told.find(|status| *status != Status::Unknown).unwrap_or_default();
    [
        Cell::new(percent(summary.uptime())),
        Cell::new(output::number(summary.counted())),
        Cell::new(output::number(summary.failed())),
        latency(0.5),
        latency(0.95),
        latency(0.99),
        Cell::new(worst.as_str()).styled(status_style(worst)),
    ]
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
            summary.record(
                mcpmon_core::CheckMeaning::health(Status::Running),
                None,
                Some(Duration::from_millis(*ms)),
            );
        }
        summary.times.add(Status::Running, up);
        summary.times.add(Status::Stopped, down);
        let at = |hour: i64| Timestamp::from_millis(1_795_356_000_000 + hour * 3_600_000);
        HistoryPoint { at: at(hour), until: at(hour + 1), summary }
    }

    fn page(look: Look, width: Option<usize>, step: u64) -> String {
        let points = [
            point(0, &[10, 12, 14], 3_600_000, 0),
            point(1, &[], 0, 0),
            point(2, &[], 0, 0),
            point(3, &[80, 95, 120], 3_000_000, 600_000),
            point(4, &[], 0, 0),
        ];
        let mut whole = Summary::default();
        points.iter().for_each(|point| whole.merge(&point.summary));
        let begins = Some(points[0].at);
        let step = Some(Duration::from_secs(step));
        Page { look, width, zone: TimeZone::UTC, begins, step }.render("files", &whole, &points)
    }

    #[test]
    fn rows_shorter_than_a_minute_say_at_which_second_they_begin() {
        for (step, is_short) in [(10, true), (60, false)] {
            let page = page(Look::plain(), None, step);
            assert_eq!(page.contains("14:00:00  "), is_short, "{page}");
        }
    }

    #[test]
    fn the_page_is_plain_in_a_pipe_and_fits_80_columns() {
        insta::assert_snapshot!("history", page(Look::plain(), None, 3_600));
        let narrow = page(Look { colour: false, unicode: false }, Some(80), 3_600);
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
}
