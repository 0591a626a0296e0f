//! `mcpmon handlers list|test|retry|forget`: who would be told, whether telling them works, and what
//! becomes of what they could not be told.

pub(crate) mod backlog;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use mcpmon_alert::handlers_or_console;
use mcpmon_core::alert::{ALERT_SCHEMA, Alert, DeliveryError, Notification, NotificationKind};
use mcpmon_core::text::for_terminal;
use mcpmon_core::{Clock as _, Handler, Level, Receipt, Subject, SystemClock};
use serde::Serialize;

use self::backlog::{Backlog, Fate};
use super::Form;
use super::archive::Archive;
use crate::config::{Config, Surroundings, suggestion};
use crate::exit::{CliError, Exit};
use crate::output::{Align, Cell, Output, Table};

/// A handler keeps its own time; this is for one that does not.
const ATTEMPT: Duration = Duration::from_secs(60);

/// Looks at the handlers.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, clap::Subcommand)]
enum Action {
    /// Lists every handler that is configured, and what waits for it or was given up.
    List(FileArgs),
    /// Sends one marked test message, now, and says what the far side answered.
    Test(TestArgs),
    /// Sends once more what was given up for a handler: by the monitor that runs, or by the next.
    Retry(backlog::Args),
    /// Drops what was given up for a handler.
    Forget(backlog::Args),
}

#[derive(Debug, clap::Args)]
struct FileArgs {
    /// The configuration file.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// How to answer.
    #[arg(long, value_enum, default_value_t)]
    output: Form,
}

#[derive(Debug, clap::Args)]
struct TestArgs {
    /// The handler's name; every handler if none is given.
    #[arg(value_name = "NAME")]
    names: Vec<String>,
    #[command(flatten)]
    file: FileArgs,
}

#[derive(Serialize)]
struct Listed<'a> {
    schema: &'static str,
    handlers: Vec<Entry<'a>>,
}

#[derive(Serialize)]
struct Entry<'a> {
    name: &'a str,
    /// `null` where messages are left for one that is not configured any more.
    #[serde(rename = "type")]
    kind: Option<&'a str>,
    /// Absent where there is no history yet.
    #[serde(flatten)]
    backlog: Option<&'a Backlog>,
}

#[derive(Serialize)]
struct Tested {
    schema: &'static str,
    results: Vec<TestResult>,
}

#[derive(Serialize)]
struct TestResult {
    handler: String,
    delivered: bool,
    /// What the far side calls the message, if it said.
    receipt: Option<String>,
    error: Option<String>,
    /// Whether a real message would be tried again.
    transient: Option<bool>,
    took_ms: f64,
}

pub(crate) async fn run(
    args: &Args,
    surroundings: &Surroundings,
    output: &Output,
) -> Result<Exit, CliError> {
    match &args.action {
        Action::List(args) => list(args, surroundings, output).await,
        Action::Test(args) => test(args, surroundings, output).await,
        Action::Retry(args) => {
            backlog::clear(args, Fate::SentAgain, &surroundings.paths, output).await
        }
        Action::Forget(args) => {
            backlog::clear(args, Fate::Forgotten, &surroundings.paths, output).await
        }
    }
}

async fn list(
    args: &FileArgs,
    surroundings: &Surroundings,
    output: &Output,
) -> Result<Exit, CliError> {
    let config = Config::load(args.config.as_deref(), surroundings)?;
    let settings = handlers_or_console(&config.document.settings);
    let database = surroundings.paths.database();
    let backlogs = match database.exists() {
        true => {
            let names = settings.iter().map(|handler| handler.name.as_str());
            Some(backlog::read(&Archive::open(&database)?, names).await?)
        }
        false => None,
    };
    let of = |name: &str| backlogs.as_ref().and_then(|backlogs| backlogs.get(name));
    let mut handlers: Vec<Entry<'_>> = settings
        .iter()
        .map(|h| Entry { name: &h.name, kind: Some(&h.kind), backlog: of(&h.name) })
        .collect();
    // What was given up for one that is gone is not hidden by that.
    let left =
        backlogs.iter().flatten().filter(|(name, _)| settings.iter().all(|h| h.name != **name));
    handlers.extend(left.map(|(name, backlog)| Entry { name, kind: None, backlog: Some(backlog) }));
    match args.output {
        Form::Json => output.json(&Listed { schema: "mcpmon/handlers/v1", handlers }),
        Form::Table => output.text(&table(&handlers).render(output.width(), output.look())),
    }
    Ok(Exit::Ok)
}

fn table(handlers: &[Entry<'_>]) -> Table {
    let mut table = Table::new(&[
        ("HANDLER", Align::Left),
        ("TYPE", Align::Left),
        ("WAITING", Align::Right),
        ("GIVEN UP", Align::Right),
        ("LAST ERROR", Align::Left),
    ]);
    for Entry { name, kind, backlog } in handlers {
        let count = |of: fn(&Backlog) -> usize| {
            backlog.map_or_else(|| "-".to_owned(), |backlog| of(backlog).to_string())
        };
        let error = backlog.and_then(|backlog| backlog.last_error.as_deref()).unwrap_or("-");
        table.row([
            Cell::new(*name),
            Cell::new(kind.unwrap_or("not configured")),
            Cell::new(count(|backlog| backlog.waiting)),
            Cell::new(count(|backlog| backlog.given_up)),
            Cell::new(error),
        ]);
    }
    table
}

async fn test(
    args: &TestArgs,
    surroundings: &Surroundings,
    output: &Output,
) -> Result<Exit, CliError> {
    let config = Config::load(args.file.config.as_deref(), surroundings)?;
    let handlers = config.handlers(surroundings)?;
    let known = handlers.iter().map(|handler| handler.name());
    for name in &args.names {
        if !known.clone().any(|known| known == name) {
            let hint = suggestion(name, known);
            return Err(CliError::Usage(format!("there is no handler `{name}`{hint}")));
        }
    }
    let meant = |handler: &&Arc<dyn Handler>| {
        args.names.is_empty() || args.names.iter().any(|name| name == handler.name())
    };
    let mut results = Vec::new();
    for handler in handlers.iter().filter(meant) {
        results.push(attempt(&**handler).await);
    }
    let all_well = results.iter().all(|result| result.delivered);
    match args.file.output {
        Form::Json => output.json(&Tested { schema: "mcpmon/handlers-test/v1", results }),
        Form::Table => results.iter().for_each(|result| output.line(&line(result))),
    }
    Ok(if all_well { Exit::Ok } else { Exit::NotWell })
}

async fn attempt(handler: &dyn Handler) -> TestResult {
    let notification = message();
    let started = tokio::time::Instant::now();
    let result = match tokio::time::timeout(ATTEMPT, handler.deliver(&notification)).await {
        Ok(result) => result,
        Err(_) => Err(DeliveryError::transient("no answer within a minute")),
    };
    let took_ms = (started.elapsed().as_secs_f64() * 1e6).round() / 1e3;
    let handler = handler.name().to_owned();
    match result {
        Ok(Receipt { id, .. }) => TestResult {
            handler,
            delivered: true,
            receipt: id,
            error: None,
            transient: None,
            took_ms,
        },
        Err(error) => TestResult {
            handler,
            delivered: false,
            receipt: None,
            transient: Some(error.is_transient()),
            error: Some(error.to_string()),
            took_ms,
        },
    }
}

fn line(result: &TestResult) -> String {
    let handler = for_terminal(&result.handler);
    let took = format!("{:.0} ms", result.took_ms);
    match (&result.error, &result.receipt) {
        (None, Some(receipt)) => {
            format!("{handler}: delivered in {took}: {}", for_terminal(receipt))
        }
        (None, None) => format!("{handler}: delivered in {took}"),
        (Some(error), _) => {
            let next = match result.transient {
                Some(true) => "a real message would be tried again",
                _ => "a real message would be given up",
            };
            format!("{handler}: not delivered after {took}: {}; {next}", for_terminal(error))
        }
    }
}

fn message() -> Notification {
    let now = SystemClock.now();
    let alert = Alert {
        schema: ALERT_SCHEMA.to_owned(),
        id: format!("test-{:x}", now.as_millis()),
        rule_name: "test".to_owned(),
        subject: Subject::Monitor,
        level: Level::Info,
        message: "this is a test of mcpmon's alerts; nothing is wrong".to_owned(),
        timestamp: now,
        resolved_at: None,
        metrics: serde_json::Value::Null,
        failure: None,
        labels: std::collections::BTreeMap::new(),
        acknowledgements: Vec::new(),
        ended_because: None,
    };
    Notification::new(alert.id.clone(), NotificationKind::Test, vec![alert])
}
