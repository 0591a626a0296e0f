//! `mcpmon rules test`: what rules would have sent, had they been in force. Writes nothing, tells
//! nobody.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use jiff::tz::TimeZone;
use mcpmon_alert::handlers_or_console;
use mcpmon_core::settings::Settings;
use mcpmon_core::store::SampleStore;
use mcpmon_core::{Clock as _, ServiceName, SystemClock, Timestamp, text};
use mcpmon_engine::{Replay, ReplayError, ReplayReport, ReplayedMessage, RuleSummary};
use serde::Serialize;

use crate::commands::Form;
use crate::commands::archive::{Archive, unknown_service};
use crate::config::{Config, Document, Surroundings};
use crate::exit::{CliError, Exit};
use crate::moment::Moment;
use crate::output::{self, Align, Cell, Indent, Output, Table, level_style, local_day, wrap};

/// Messages shown to people; programs get all that are kept.
const SHOWN: usize = 200;

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// A configuration whose rules are tried in place of those in force; its handlers and routes
    /// too, if it has any. Without it, the configuration's own rules are tried.
    #[arg(value_name = "FILE")]
    file: Option<PathBuf>,
    /// From when on: a span such as 7d, or a time.
    #[arg(long, value_name = "WHEN", default_value = "7d")]
    since: Moment,
    /// Until when.
    #[arg(long, value_name = "WHEN", default_value = "0s")]
    until: Moment,
    /// Only of this service; may be given several times.
    #[arg(long = "service", value_name = "NAME")]
    services: Vec<String>,
    /// The configuration file that names services, labels, limits and handlers.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// How to answer.
    #[arg(long, value_enum, default_value_t)]
    output: Form,
}

#[derive(Serialize)]
struct Report<'a> {
    schema: &'static str,
    /// The file the rules are of; `null` where there is none and only built-in ones were tried.
    file: Option<&'a Path>,
    #[serde(flatten)]
    replay: &'a ReplayReport,
}

pub(super) async fn run(
    args: &Args,
    surroundings: &Surroundings,
    output: &Output,
) -> Result<Exit, CliError> {
    let config = Config::load(args.config.as_deref(), surroundings)?;
    let (settings, file) = match &args.file {
        None => (config.document.settings.clone(), config.document.path.clone()),
        Some(path) => {
            let tried = Document::read(path)?;
            tried.checked()?;
            say_what_is_passed_over(&tried.settings);
            let settings = with_rules_of(config.document.settings.clone(), tried.settings);
            (settings, Some(path.clone()))
        }
    };
    let archive = Archive::open(&surroundings.paths.database())?;
    let now = SystemClock.now();
    let (since, until) = (args.since.before(now), args.until.before(now));
    if until <= since {
        let message = "--until must be later than --since: nothing lies between them";
        return Err(CliError::Usage(message.to_owned()));
    }
    let replay = Replay {
        handlers: handlers_or_console(&settings).into_iter().map(|of| of.name).collect(),
        settings,
        services: config.services,
        since,
        until,
        only: chosen(&args.services, archive.store()).await?,
        silences: archive.any().silences(Timestamp::from_millis(i64::MIN)).await?,
    };
    let report = replay.run(archive.store()).await.map_err(|error| match error {
        ReplayError::Store(error) => CliError::from(error),
        other => CliError::Usage(other.to_string()),
    })?;
    match args.output {
        Form::Json => output.json(&Report {
            schema: "mcpmon/rules-test/v1",
            file: file.as_deref(),
            replay: &report,
        }),
        Form::Table => show(&report, output),
    }
    Ok(Exit::Ok)
}

async fn chosen(
    names: &[String],
    store: &dyn SampleStore,
) -> Result<BTreeSet<ServiceName>, CliError> {
    if names.is_empty() {
        return Ok(BTreeSet::new());
    }
    let stored = store.services().await?;
    let known = stored.iter().map(|stored| stored.facts.service.as_str());
    if let Some(unknown) = names.iter().find(|name| !known.clone().any(|known| known == *name)) {
        return Err(unknown_service(unknown, known));
    }
    Ok(names.iter().map(|name| ServiceName::from(name.as_str())).collect())
}

/// The configuration, but with the rules of another, and whom that one would tell.
fn with_rules_of(mut settings: Settings, tried: Settings) -> Settings {
    settings.rules = tried.rules;
    if !tried.handlers.is_empty() {
        (settings.handlers, settings.routes) = (tried.handlers, tried.routes);
    }
    settings
}

/// A threshold in the tried file would be expected to count.
fn say_what_is_passed_over(tried: &Settings) {
    let same = Settings {
        rules: tried.rules.clone(),
        handlers: tried.handlers.clone(),
        routes: tried.routes.clone(),
        ..Settings::default()
    };
    if *tried != same {
        output::say(
            "only rules, handlers and routes of the file are used; to try other settings of it \
             as well, give it as --config",
        );
    }
}

fn show(report: &ReplayReport, output: &Output) {
    let zone = TimeZone::system();
    let first = report.first_check.map(|first| local_day(first, &zone));
    let checks = output::count(usize::try_from(report.checks).unwrap_or(usize::MAX), "check");
    let seen = first.map_or_else(String::new, |first| format!(", the first of {first}"));
    output.line(&format!(
        "{} to {}: {checks} of {}{seen}",
        local_day(report.since, &zone),
        local_day(report.until, &zone),
        output::count(report.services, "service"),
    ));
    messages(report, &zone, output);
    summary(&report.rules, output);
    let silent: Vec<String> = report.rules.iter().filter_map(silence).collect();
    lines("rules that could not tell:", &silent, output);
    lines("not stored, so without data here:", &report.not_stored, output);
}

fn messages(report: &ReplayReport, zone: &TimeZone, output: &Output) {
    if report.messages.is_empty() {
        return output.line("nothing would have been sent");
    }
    let sent = output::count(report.messages.len(), "message");
    output.line(&format!("{sent} would have been sent:"));
    let mut table = Table::new(&[
        ("WHEN", Align::Left),
        ("WHAT", Align::Left),
        ("LEVEL", Align::Left),
        ("TO", Align::Left),
        ("MESSAGE", Align::Left),
    ]);
    for message in report.messages.iter().take(SHOWN) {
        table.row([
            Cell::new(local_day(message.at, zone)),
            Cell::new(message.kind.as_str()),
            Cell::new(message.level.as_str()).styled(level_style(message.level)),
            Cell::new(message.handlers.join(", ")),
            Cell::new(words(message)),
        ]);
    }
    output.text(&table.render(output.width(), output.look()));
    let more = report.messages.len().saturating_sub(SHOWN) as u64 + report.left_out;
    if more > 0 {
        output.line(&format!("and {more} more; --output json has them"));
    }
}

fn words(message: &ReplayedMessage) -> String {
    format!("{}: {}", message.rule, message.message)
}

fn summary(rules: &[RuleSummary], output: &Output) {
    let mut table = Table::new(&[
        ("RULE", Align::Left),
        ("FIRED", Align::Right),
        ("LONGEST", Align::Right),
        ("OPEN", Align::Right),
        ("SERVICES", Align::Left),
    ]);
    let fired = rules.iter().filter(|rule| rule.fired + rule.open > 0);
    let mut any = false;
    for rule in fired {
        any = true;
        let longest = std::time::Duration::from_secs(rule.longest_seconds);
        let names: Vec<&str> = rule.services.iter().map(ServiceName::as_str).collect();
        let more = rule.services_count - names.len();
        let more = if more > 0 { format!(" and {more} more") } else { String::new() };
        table.row([
            Cell::new(&rule.rule),
            Cell::new(rule.fired.to_string()),
            Cell::new(mcpmon_core::duration::format(longest)),
            Cell::new(rule.open.to_string()),
            Cell::new(format!("{}{more}", names.join(", "))),
        ]);
    }
    if any {
        output.line("");
        output.text(&table.render(output.width(), output.look()));
    }
}

fn silence(rule: &RuleSummary) -> Option<String> {
    let because = rule.silent_because.as_ref()?;
    Some(format!("{}: {because}", rule.rule))
}

fn lines(heading: &str, lines: &[String], output: &Output) {
    if lines.is_empty() {
        return;
    }
    output.line("");
    output.line(heading);
    let indent = Indent { first: "  ", rest: "    " };
    for line in lines {
        output.text(&wrap(&text::for_terminal(line), output.width(), indent));
    }
}
