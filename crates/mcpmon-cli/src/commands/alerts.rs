//! `mcpmon alerts`: what fired, newest first.

use std::collections::HashSet;

use jiff::tz::TimeZone;
use mcpmon_core::alert::Silence;
use mcpmon_core::contract::AlertsReport;
use mcpmon_core::store::{AlertQuery, AlertRecord};
use mcpmon_core::{Clock as _, SystemClock, Timestamp};

use super::Form;
use super::archive::Archive;
use super::handlers::backlog::say_given_up;
use crate::exit::{CliError, Exit};
use crate::moment::Moment;
use crate::output::{self, Align, Cell, Look, Output, Table, level_style};
use crate::paths::Paths;
use crate::silenced;

/// No more alerts than this are shown at once.
const MOST: usize = 1_000;

/// Narrower terminals are shown short times.
const WIDE: usize = 120;
/// Columns of a message that say more than the name of its rule.
const LEAST_MESSAGE: usize = 30;
/// Characters of an id that say when its alert fired; more are shown only where two are alike so far.
const SHORT_ID: usize = 11;

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
    let now = SystemClock.now();
    let mut alerts = archive.any().alerts(&query).await?;
    let silences = archive.any().silences(now).await?;
    silenced::mark(&mut alerts, &silences, now);
    let many = alerts.len() >= MOST;
    let report = AlertsReport::new(alerts);
    match args.output {
        Form::Json => output.json(&report),
        Form::Table => {
            if report.alerts.is_empty() {
                output::say("no alerts");
            } else {
                let zone = TimeZone::system();
                let page = Page { now, zone, width: output.width(), look: output.look() };
                output.text(&page.render(&report.alerts, &silences, args.active));
            }
            say_given_up(&archive).await;
        }
    }
    if many {
        output::say(&format!("only the newest {MOST} are shown; name a nearer --since"));
    }
    Ok(Exit::Ok)
}

/// How alerts are drawn.
struct Page {
    now: Timestamp,
    zone: TimeZone,
    width: Option<usize>,
    look: Look,
}

impl Page {
    /// A row for each. Ids give way where there is no room, but not among those that fire: there
    /// they are looked for, to be acknowledged.
    fn render(&self, alerts: &[AlertRecord], silences: &[Silence], are_active: bool) -> String {
        let ends: Vec<_> =
            alerts.iter().map(|record| silenced::until(record, silences, self.now)).collect();
        let mut columns =
            vec![("TIME", Align::Left), ("LEVEL", Align::Left), ("STATE", Align::Left)];
        let is_any_silenced = ends.iter().any(Option::is_some);
        if is_any_silenced {
            columns.push(("UNTIL", Align::Left));
        }
        columns.extend(["RULE", "SUBJECT", "ID", "MESSAGE"].map(|name| (name, Align::Left)));
        let optional: &[&str] = if are_active { &["RULE"] } else { &["ID", "RULE"] };
        let mut table = Table::new(&columns)
            .rigid(&["TIME", "LEVEL", "STATE", "UNTIL", "ID"])
            .optional(optional);
        let is_narrow = self.width.is_some_and(|width| width < WIDE);
        let id = id_length(alerts);
        for (record, end) in alerts.iter().zip(ends) {
            let alert = &record.alert;
            let moment = |at| output::moment(at, self.now, &self.zone, is_narrow);
            let mut row = vec![
                Cell::new(moment(alert.timestamp)),
                Cell::new(alert.level.as_str()).styled(level_style(alert.level)),
                Cell::new(record.state.as_str()),
            ];
            if is_any_silenced {
                row.push(end.map_or_else(|| Cell::from("-"), |end| Cell::new(moment(end))));
            }
            row.extend([
                Cell::new(&alert.rule_name),
                Cell::new(alert.subject.to_string()),
                Cell::new(alert.id.chars().take(id).collect::<String>()),
                Cell::new(&alert.message).at_least(LEAST_MESSAGE),
            ]);
            table.row(row);
        }
        table.render(self.width, self.look)
    }
}

/// How much of the ids tells them apart, so that `mcpmon ack` takes what is shown.
fn id_length(alerts: &[AlertRecord]) -> usize {
    let longest = alerts.iter().map(|record| record.alert.id.chars().count()).max().unwrap_or(0);
    let are_distinct = |length: &usize| {
        let begins = alerts.iter().map(|record| record.alert.id.chars().take(*length));
        let begins: HashSet<String> = begins.map(|begin| begin.collect()).collect();
        begins.len() == alerts.len()
    };
    (SHORT_ID..longest).find(are_distinct).unwrap_or(longest)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use mcpmon_core::Alert;
    use mcpmon_core::alert::AlertPhase;
    use mcpmon_testkit::{START, samples};

    use super::*;

    fn record(id: &str, service: &str, state: AlertPhase) -> AlertRecord {
        let mut alert = samples::alert("service_down", service);
        alert.id = id.to_owned();
        alert.message = format!("{service} is down: command_not_found: npx is not on PATH");
        alert.timestamp = START;
        AlertRecord { alert, state }
    }

    fn page(width: usize, silences: &[Silence], are_active: bool) -> String {
        let mut alerts = [
            record("19aab3c4d5e-0123456789abcdef", "files", AlertPhase::Firing),
            record("19aab3c4d5f-0123456789abcdef", "github", AlertPhase::Firing),
        ];
        let now = START.saturating_add(Duration::from_secs(60));
        silenced::mark(&mut alerts, silences, now);
        let page = Page { now, zone: TimeZone::UTC, width: Some(width), look: Look::plain() };
        page.render(&alerts, silences, are_active)
    }

    #[test]
    fn what_fires_is_shown_with_an_id_that_can_be_acknowledged() {
        for width in [160, 80] {
            let page = page(width, &[], true);
            assert!(page.contains(" 19aab3c4d5e ") && page.contains(" 19aab3c4d5f "), "{page}");
            assert!(!page.contains("19aab3c4d5e-"), "{page}");
        }
        assert!(page(160, &[], false).contains("19aab3c4d5e"));
        assert!(!page(60, &[], false).contains("19aab3c4d5e"), "gives way");
    }

    #[test]
    fn every_kind_of_subject_is_told_apart() {
        let record = |(number, subject)| {
            let alert = samples::alert_about("rule", subject);
            let (id, message) = (format!("{number}"), "m".to_owned());
            AlertRecord { alert: Alert { id, message, ..alert }, state: AlertPhase::Firing }
        };
        let alerts: Vec<AlertRecord> =
            samples::subjects().into_iter().enumerate().map(record).collect();
        let page = Page { now: START, zone: TimeZone::UTC, width: Some(100), look: Look::plain() };
        let page = page.render(&alerts, &[], true);
        insta::assert_snapshot!(page, @r"
        TIME      LEVEL  STATE   RULE  SUBJECT          ID  MESSAGE
        14:09:31  error  firing  rule  same             0   m
        14:09:31  error  firing  rule  same/same        1   m
        14:09:31  error  firing  rule  host             2   m
        14:09:31  error  firing  rule  monitor          3   m
        14:09:31  error  firing  rule  dependency same  4   m
        14:09:31  error  firing  rule  handler same     5   m
        ");
    }

    #[test]
    fn more_of_an_id_is_shown_where_two_fired_in_one_moment() {
        let same = |id: &str| record(id, "files", AlertPhase::Firing);
        assert_eq!(id_length(&[same("19aab3c4d5e-01"), same("19aab3c4d5e-02")]), 14);
        assert_eq!(id_length(&[same("19aab3c4d5e-01"), same("19aab3c4d5e-1")]), 13);
        assert_eq!(id_length(&[same("a")]), 1);
        assert_eq!(id_length(&[]), 0);
    }

    #[test]
    fn what_is_silenced_says_until_when() {
        let silence = Silence {
            id: "s".to_owned(),
            matchers: [("service_name".to_owned(), "files".to_owned())].into(),
            starts_at: START,
            ends_at: START.saturating_add(Duration::from_secs(3_600)),
            by: String::new(),
            comment: String::new(),
        };
        let until = output::local_time(silence.ends_at, &TimeZone::UTC);
        let page = page(80, &[silence], true);
        let lines: Vec<&str> = page.lines().collect();
        assert!(lines[0].contains("UNTIL"), "{page}");
        assert!(lines[1].contains("silenced") && lines[1].contains(&until), "{page}");
        assert!(lines[2].contains("firing") && !lines[2].contains(&until), "{page}");
    }
}
