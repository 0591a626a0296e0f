//! `mcpmon silence`: says nothing of matching alerts for a while, and lists or ends silences.

mod named;

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::tz::TimeZone;
use mcpmon_core::alert::Silence;
use mcpmon_core::monitor::MonitorCommand;
use mcpmon_core::status::Level;
use mcpmon_core::text::for_terminal;
use mcpmon_core::{Clock as _, SystemClock, Timestamp};
use serde::Serialize;
use unicode_width::{UnicodeWidthChar as _, UnicodeWidthStr as _};

use super::Form;
use super::archive::{Archive, unknown_service};
use crate::exit::{CliError, Exit};
use crate::moment;
use crate::output::{self, Align, Cell, Indent, Look, Output, Table, local_day};
use crate::paths::Paths;

/// Says nothing of matching alerts for a while; they still exist, and `alerts` shows them.
///
/// What fires when the silence ends is told then; the end of what was told before is told at once.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Of these services; of all, if neither they nor anything else is named.
    #[arg(value_name = "NAME")]
    services: Vec<String>,
    /// Of alerts about this dependency, as `depends_on` writes it; may be given several times.
    #[arg(long = "dependency", value_name = "DEPENDENCY", conflicts_with = "labels")]
    dependencies: Vec<String>,
    /// Of alerts about this handler; may be given several times.
    #[arg(long = "handler", value_name = "HANDLER", conflicts_with = "labels")]
    handlers: Vec<String>,
    /// Of alerts of this rule.
    #[arg(long, value_name = "RULE")]
    rule: Option<String>,
    /// Of alerts of this level.
    #[arg(long, value_name = "LEVEL")]
    level: Option<Level>,
    /// Of services with this label; may be given several times.
    #[arg(long = "label", value_name = "NAME=VALUE", value_parser = label)]
    labels: Vec<(String, String)>,
    /// For so long, from now.
    #[arg(long = "for", value_name = "SPAN", value_parser = moment::limit, default_value = "1h")]
    span: Duration,
    /// Why, for whoever wonders.
    #[arg(long, value_name = "TEXT", default_value = "")]
    comment: String,
    /// Everything, although nothing is named.
    #[arg(long, conflicts_with_all = ["services", "dependencies", "handlers", "rule", "level", "labels"])]
    all: bool,
    /// Lists the silences that hold now or will.
    #[arg(long, conflicts_with_all = ["services", "dependencies", "handlers", "rule", "level", "labels", "all", "end"])]
    list: bool,
    /// Ends the silence of this id.
    #[arg(long, value_name = "ID", conflicts_with_all = ["services", "dependencies", "handlers", "rule", "level", "labels", "all"])]
    end: Option<String>,
    /// How to answer.
    #[arg(long, value_enum, default_value_t)]
    output: Form,
}

#[derive(Serialize)]
struct Report<'a> {
    schema: &'static str,
    silences: &'a [Listed],
}

/// A silence as it is listed.
#[derive(Debug, PartialEq, Serialize)]
struct Listed {
    #[serde(flatten)]
    silence: Silence,
    /// Whether no monitor took it up yet.
    pending: bool,
}

fn label(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
        _ => Err(format!("`{text}` is not NAME=VALUE, such as team=platform")),
    }
}

pub(crate) async fn run(args: &Args, paths: &Paths, output: &Output) -> Result<Exit, CliError> {
    let archive = Archive::open(&paths.database())?;
    let now = SystemClock.now();
    if args.list {
        tell(&listed(&archive, now).await?, args.output, output);
        return Ok(Exit::Ok);
    }
    if let Some(rule) = &args.rule {
        super::rules::named::check(rule, archive.any(), paths).await?;
    }
    let silences = match &args.end {
        Some(id) => vec![ended(&archive, id, now).await?],
        None => begun(args, &archive, paths, now).await?,
    };
    for silence in &silences {
        archive.any().submit(&MonitorCommand::Silence(silence.clone())).await?;
    }
    match (args.output, &args.end) {
        (Form::Json, _) => {
            let given: Vec<Listed> = silences.into_iter().map(Listed::pending).collect();
            tell(&given, Form::Json, output);
        }
        (Form::Table, Some(id)) => output.line(&format!("ended {id}")),
        (Form::Table, None) => silences.iter().for_each(|silence| {
            let until = local_day(silence.ends_at, &TimeZone::system());
            output.line(&format!("silent until {until}: {} (id {})", what(silence), silence.id));
        }),
    }
    super::ack::say_if_nobody_listens(&archive);
    Ok(Exit::Ok)
}

impl Listed {
    fn pending(silence: Silence) -> Self {
        Self { silence, pending: true }
    }
}

/// The silences there are at `now`, and those that no monitor took up yet.
async fn listed(archive: &Archive, now: Timestamp) -> Result<Vec<Listed>, CliError> {
    // What is taken up between the two questions is in both answers rather than in none.
    let pending = archive.any().pending().await?;
    Ok(with_pending(archive.any().silences(now).await?, pending, now))
}

/// Silences as they will be once the commands that wait are taken up.
fn with_pending(
    silences: Vec<Silence>,
    commands: Vec<MonitorCommand>,
    now: Timestamp,
) -> Vec<Listed> {
    let mut listed: Vec<Listed> =
        silences.into_iter().map(|silence| Listed { silence, pending: false }).collect();
    for command in commands {
        let MonitorCommand::Silence(silence) = command else { continue };
        match listed.iter_mut().find(|known| known.silence.id == silence.id) {
            Some(known) if known.silence == silence => {}
            Some(known) => *known = Listed::pending(silence),
            None => listed.push(Listed::pending(silence)),
        }
    }
    listed.retain(|known| known.silence.ends_at > now);
    listed
}

async fn ended(archive: &Archive, id: &str, now: Timestamp) -> Result<Silence, CliError> {
    let silences = listed(archive, now).await?;
    match silences.into_iter().find(|known| known.silence.id == id) {
        Some(known) => Ok(Silence { ends_at: now, ..known.silence }),
        None => Err(CliError::Usage(format!(
            "there is no silence `{id}`; `mcpmon silence --list` shows those there are"
        ))),
    }
}

async fn begun(
    args: &Args,
    archive: &Archive,
    paths: &Paths,
    now: Timestamp,
) -> Result<Vec<Silence>, CliError> {
    let named = args.rule.is_some() || args.level.is_some() || !args.labels.is_empty();
    let has_others = !args.dependencies.is_empty() || !args.handlers.is_empty();
    if args.services.is_empty() && !has_others && !named && !args.all {
        let message = "name a service, --dependency, --handler, --rule, --level or --label; \
                       --all silences everything";
        return Err(CliError::Usage(message.to_owned()));
    }
    let stored = archive.any().services().await?;
    let known = stored.iter().map(|stored| stored.facts.service.as_str());
    for name in &args.services {
        if !known.clone().any(|known| known == name) {
            return Err(unknown_service(name, known));
        }
    }
    // Of each a silence of its own: an alert is about one of them.
    let mut subjects: Vec<(&str, String)> =
        args.services.iter().map(|name| ("service_name", name.clone())).collect();
    if has_others {
        let known = named::Known::read_names(archive.any(), paths).await?;
        for text in &args.dependencies {
            subjects.push(("dependency", known.check_dependency(text)?));
        }
        for name in &args.handlers {
            subjects.push(("handler", known.check_handler(name)?));
        }
    }
    let mut common: BTreeMap<String, String> = args.labels.iter().cloned().collect();
    common.extend(args.rule.clone().map(|rule| ("rule_name".to_owned(), rule)));
    common.extend(args.level.map(|level| ("level".to_owned(), level.as_str().to_owned())));
    let by = std::env::var("USER").unwrap_or_default();
    let silence = |number: usize, matchers: BTreeMap<String, String>| Silence {
        // Two people in one millisecond are told apart by their processes.
        id: format!("{:x}-{:x}-{number}", now.as_millis(), std::process::id()),
        matchers,
        starts_at: now,
        ends_at: now.saturating_add(args.span),
        by: by.clone(),
        comment: args.comment.clone(),
    };
    if subjects.is_empty() {
        return Ok(vec![silence(0, common)]);
    }
    let one = |(number, (matcher, name)): (usize, (&str, String))| {
        let mut matchers = common.clone();
        matchers.insert(matcher.to_owned(), name);
        silence(number, matchers)
    };
    Ok(subjects.into_iter().enumerate().map(one).collect())
}

fn what(silence: &Silence) -> String {
    if silence.matchers.is_empty() {
        return "everything".to_owned();
    }
    let pairs = silence.matchers.iter().map(|(name, value)| format!("{name}={value}"));
    for_terminal(&pairs.collect::<Vec<_>>().join(" "))
}

fn tell(silences: &[Listed], form: Form, output: &Output) {
    if form == Form::Json {
        return output.json(&Report { schema: "mcpmon/silence/v1", silences });
    }
    if silences.is_empty() {
        return output::say("no silences");
    }
    let (zone, now) = (TimeZone::system(), SystemClock.now());
    output.text(&table(silences, output.width(), output.look(), now, &zone));
}

/// Narrower terminals are shown short times.
const WIDE: usize = 120;
/// However long ids and names are, matchers have so many columns.
const LEAST_MATCHERS: usize = 24;

/// A silence a row, and further rows where its matchers are many: all of them decide whether an
/// alert is told, so none is cut off.
fn table(
    silences: &[Listed],
    width: Option<usize>,
    look: Look,
    now: Timestamp,
    zone: &TimeZone,
) -> String {
    let is_narrow = width.is_some_and(|width| width < WIDE);
    let mut names = vec!["ID", "UNTIL", "STATE"];
    let is_signed = silences.iter().any(|known| !known.silence.by.is_empty());
    if is_signed {
        names.push("BY");
    }
    let rows: Vec<(Vec<String>, String)> = silences
        .iter()
        .map(|Listed { silence, pending }| {
            let until = output::moment(silence.ends_at, now, zone, is_narrow);
            let state = if *pending { "pending" } else { "in effect" };
            let mut row = vec![silence.id.clone(), until, state.to_owned()];
            if is_signed {
                row.push(for_terminal(&silence.by));
            }
            let said = match silence.comment.as_str() {
                "" => String::new(),
                comment => format!(" ({})", for_terminal(comment)),
            };
            (row, format!("{}{said}", what(silence)))
        })
        .collect();
    let beside: usize = names
        .iter()
        .enumerate()
        .map(|(place, name)| {
            let cells = rows.iter().filter_map(|(row, _)| row.get(place));
            cells.map(|cell| cell.width()).max().unwrap_or(0).max(name.width()) + 2
        })
        .sum();
    let room = width.map(|width| width.saturating_sub(beside).max(LEAST_MATCHERS));
    let mut columns: Vec<_> = names.iter().map(|name| (*name, Align::Left)).collect();
    columns.push(("MATCHES", Align::Left));
    let mut table = Table::new(&columns).rigid(&["ID", "UNTIL", "STATE"]);
    for (row, matches) in rows {
        let blank = vec![String::new(); row.len()];
        let mut before = Some(row);
        for line in broken(&matches, room) {
            let before = before.take().unwrap_or_else(|| blank.clone());
            table.row(before.into_iter().map(Cell::from).chain([Cell::from(line)]));
        }
    }
    table.render(width, look)
}

/// Lines no wider than `room`, broken between words where words are short enough.
fn broken(text: &str, room: Option<usize>) -> Vec<String> {
    let Some(room) = room else { return vec![text.to_owned()] };
    let mut lines = Vec::new();
    for line in output::wrap(text, Some(room), Indent::all("")).lines() {
        let mut part = String::new();
        for c in line.chars() {
            if part.width() + c.width().unwrap_or(0) > room {
                lines.push(std::mem::take(&mut part));
            }
            part.push(c);
        }
        lines.push(part);
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    fn silence(id: &str, ends: i64) -> Silence {
        Silence {
            id: id.to_owned(),
            matchers: BTreeMap::new(),
            starts_at: Timestamp::from_millis(0),
            ends_at: Timestamp::from_millis(ends),
            by: String::new(),
            comment: String::new(),
        }
    }

    #[test]
    fn what_no_monitor_took_up_yet_is_listed_as_pending() {
        let known = vec![silence("a", 100), silence("b", 100), silence("c", 100)];
        let commands = vec![
            MonitorCommand::Silence(silence("d", 100)),
            MonitorCommand::Approve { service: "files".into() },
            // Ended, and prolonged; and one taken up in this moment.
            MonitorCommand::Silence(silence("a", 50)),
            MonitorCommand::Silence(silence("b", 200)),
            MonitorCommand::Silence(silence("c", 100)),
        ];
        let listed = with_pending(known, commands, Timestamp::from_millis(60));
        let told: Vec<(&str, bool)> =
            listed.iter().map(|known| (known.silence.id.as_str(), known.pending)).collect();
        assert_eq!(told, [("b", true), ("c", false), ("d", true)]);
    }

    #[test]
    fn at_80_columns_no_time_and_no_matcher_is_cut_and_no_column_is_empty() {
        let mut known = silence("19aab3c4d5e-1f2a3-0", 3_600_000);
        let pairs = [("level", "error"), ("rule_name", "slow_response"), ("service_name", "files")];
        known.matchers = pairs.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
        known.matchers.insert("team".to_owned(), "p".repeat(60));
        let listed = [Listed { silence: known, pending: false }];
        let now = Timestamp::from_millis(0);
        let draw =
            |listed: &[Listed], width| table(listed, width, Look::plain(), now, &TimeZone::UTC);
        let page = draw(&listed, Some(80));
        assert!(page.lines().all(|line| line.width() <= 80), "{page}");
        assert!(!page.contains("BY") && !page.contains('…'), "{page}");
        for words in ["01:00:00", "rule_name=slow_response", "service_name=files"] {
            assert!(page.contains(words), "{words}: {page}");
        }
        assert_eq!(page.matches('p').count(), 60 + "slow_response".matches('p').count(), "{page}");
        assert_eq!(draw(&listed, None).lines().count(), 2, "a pipe gets a line for each");
        let mut signed = silence("a", 100);
        (signed.by, signed.comment) = ("ann".to_owned(), "planned work".to_owned());
        let page = draw(&[Listed::pending(signed)], Some(80));
        for words in ["BY", "ann", "everything (planned work)"] {
            assert!(page.contains(words), "{words}: {page}");
        }
    }
}
