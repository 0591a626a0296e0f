//! `mcpmon silence`: says nothing of matching alerts for a while, and lists or ends silences.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::tz::TimeZone;
use mcpmon_core::alert::Silence;
use mcpmon_core::monitor::MonitorCommand;
use mcpmon_core::status::Level;
use mcpmon_core::{Clock as _, SystemClock, Timestamp};
use serde::Serialize;

use super::Form;
use super::archive::{Archive, unknown_service};
use crate::exit::{CliError, Exit};
use crate::moment;
use crate::output::{self, Align, Cell, Output, Table, local_day};
use crate::paths::Paths;

/// Says nothing of matching alerts for a while; they still exist, and `alerts` shows them.
///
/// What fires when the silence ends is told then; the end of what was told before is told at once.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Of these services; of all, if neither they nor anything else is named.
    #[arg(value_name = "NAME")]
    services: Vec<String>,
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
    #[arg(long)]
    all: bool,
    /// Lists the silences that hold now or will.
    #[arg(long, conflicts_with_all = ["services", "rule", "level", "labels", "all", "end"])]
    list: bool,
    /// Ends the silence of this id.
    #[arg(long, value_name = "ID", conflicts_with_all = ["services", "rule", "level", "labels", "all"])]
    end: Option<String>,
    /// How to answer.
    #[arg(long, value_enum, default_value_t)]
    output: Form,
}

#[derive(Serialize)]
struct Report<'a> {
    schema: &'static str,
    silences: &'a [Silence],
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
        let silences = archive.any().silences(now).await?;
        tell(&silences, args.output, output);
        return Ok(Exit::Ok);
    }
    let silences = match &args.end {
        Some(id) => vec![ended(&archive, id, now).await?],
        None => begun(args, &archive, now).await?,
    };
    for silence in &silences {
        archive.any().submit(&MonitorCommand::Silence(silence.clone())).await?;
    }
    match (args.output, &args.end) {
        (Form::Json, _) => tell(&silences, Form::Json, output),
        (Form::Table, Some(id)) => output.line(&format!("ended {id}")),
        (Form::Table, None) => silences.iter().for_each(|silence| {
            let until = local_day(silence.ends_at, &TimeZone::system());
            output.line(&format!("silent until {until}: {} (id {})", what(silence), silence.id));
        }),
    }
    super::ack::say_if_nobody_listens(&archive);
    Ok(Exit::Ok)
}

async fn ended(archive: &Archive, id: &str, now: Timestamp) -> Result<Silence, CliError> {
    let silences = archive.any().silences(now).await?;
    match silences.into_iter().find(|silence| silence.id == id) {
        Some(silence) => Ok(Silence { ends_at: now, ..silence }),
        None => Err(CliError::Usage(format!(
            "there is no silence `{id}`; `mcpmon silence --list` shows those there are"
        ))),
    }
}

async fn begun(args: &Args, archive: &Archive, now: Timestamp) -> Result<Vec<Silence>, CliError> {
    let named = args.rule.is_some() || args.level.is_some() || !args.labels.is_empty();
    if args.services.is_empty() && !named && !args.all {
        let message = "name a service, --rule, --level or --label; --all silences everything";
        return Err(CliError::Usage(message.to_owned()));
    }
    let stored = archive.any().services().await?;
    let known = stored.iter().map(|stored| stored.facts.service.as_str());
    for name in &args.services {
        if !known.clone().any(|known| known == name) {
            return Err(unknown_service(name, known));
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
    if args.services.is_empty() {
        return Ok(vec![silence(0, common)]);
    }
    let one = |(number, name): (usize, &String)| {
        let mut matchers = common.clone();
        matchers.insert("service_name".to_owned(), name.clone());
        silence(number, matchers)
    };
    Ok(args.services.iter().enumerate().map(one).collect())
}

fn what(silence: &Silence) -> String {
    if silence.matchers.is_empty() {
        return "everything".to_owned();
    }
    let pairs = silence.matchers.iter().map(|(name, value)| format!("{name}={value}"));
    mcpmon_core::text::for_terminal(&pairs.collect::<Vec<_>>().join(" "))
}

fn tell(silences: &[Silence], form: Form, output: &Output) {
    if form == Form::Json {
        return output.json(&Report { schema: "mcpmon/silence/v1", silences });
    }
    if silences.is_empty() {
        return output::say("no silences");
    }
    let zone = TimeZone::system();
    let mut table = Table::new(&[
        ("ID", Align::Left),
        ("UNTIL", Align::Left),
        ("MATCHES", Align::Left),
        ("BY", Align::Left),
        ("COMMENT", Align::Left),
    ]);
    for silence in silences {
        table.row([
            Cell::new(&silence.id),
            Cell::new(local_day(silence.ends_at, &zone)),
            Cell::new(what(silence)),
            Cell::new(&silence.by),
            Cell::new(&silence.comment),
        ]);
    }
    output.text(&table.render(output.width(), output.look()));
}
