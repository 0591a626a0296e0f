//! What waits for each handler and what was given up: so that nobody has to guess whether a silent
//! handler is well, and can have said what it missed.

use std::collections::BTreeMap;

use mcpmon_core::Timestamp;
use mcpmon_core::monitor::MonitorCommand;
use mcpmon_core::text::{for_terminal, truncate};
use serde::Serialize;

use super::super::Form;
use super::super::ack::say_if_nobody_listens;
use super::super::archive::Archive;
use crate::config::suggestion;
use crate::exit::{CliError, Exit};
use crate::output::{self, Indent, Output, wrap};
use crate::paths::Paths;

/// No more messages than this are counted of a handler.
const MOST: usize = 10_000;

/// What becomes of messages that were given up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fate {
    SentAgain,
    Forgotten,
}

/// Chooses whose messages are meant.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The handler's name, as `mcpmon handlers list` shows it.
    #[arg(value_name = "NAME")]
    name: String,
    /// How to answer.
    #[arg(long, value_enum, default_value_t)]
    output: Form,
}

/// What a handler has not been told.
#[derive(Debug, Default, Clone, PartialEq, Eq, Serialize)]
pub(super) struct Backlog {
    /// Messages that wait for it, or for another attempt.
    pub(super) waiting: usize,
    /// Messages nobody tries to deliver any more.
    pub(super) given_up: usize,
    /// Why the last of them that failed did.
    pub(super) last_error: Option<String>,
}

#[derive(Serialize)]
struct Cleared<'a> {
    schema: &'static str,
    handler: &'a str,
    messages: usize,
}

/// What each of these handlers has not been told, and every other something was given up for.
pub(super) async fn read<'a>(
    archive: &Archive,
    handlers: impl Iterator<Item = &'a str>,
) -> Result<BTreeMap<String, Backlog>, CliError> {
    let mut backlogs = given_up(archive).await?;
    let ever = Timestamp::from_millis(i64::MAX);
    for handler in handlers {
        let waiting = archive.any().due(handler, ever, MOST).await?;
        let backlog = backlogs.entry(handler.to_owned()).or_default();
        backlog.waiting = waiting.len();
        let tried = waiting.into_iter().rev().find_map(|delivery| delivery.last_error);
        backlog.last_error = tried.or(backlog.last_error.take());
    }
    Ok(backlogs)
}

async fn given_up(archive: &Archive) -> Result<BTreeMap<String, Backlog>, CliError> {
    let mut backlogs: BTreeMap<String, Backlog> = BTreeMap::new();
    // The newest come first, so the first error of a handler is its last.
    for letter in archive.any().dead_letters(MOST).await? {
        let backlog = backlogs.entry(letter.handler).or_default();
        backlog.given_up += 1;
        backlog.last_error = backlog.last_error.take().or(letter.last_error);
    }
    Ok(backlogs)
}

/// Says on standard error for which handlers something was given up, and what can be done.
pub(crate) async fn say_given_up(archive: &Archive) {
    // Who only wants to look is not to fail by it.
    let Ok(backlogs) = given_up(archive).await else { return };
    for (handler, backlog) in backlogs.into_iter().filter(|(_, backlog)| backlog.given_up > 0) {
        output::say(&sentence(&handler, &backlog));
    }
}

fn sentence(handler: &str, backlog: &Backlog) -> String {
    let handler = for_terminal(&truncate(handler, 80));
    let (count, verb) = match backlog.given_up {
        1 => ("1 message".to_owned(), "was"),
        many => (format!("{many} messages"), "were"),
    };
    let error = backlog.last_error.as_deref().unwrap_or("no reason is known");
    let error = for_terminal(&truncate(error, 200));
    let told = format!("{count} to handler `{handler}` {verb} given up: {error}");
    let told = wrap(&told, Some(80), Indent { first: "", rest: "  " });
    format!(
        "{told}  send again: mcpmon handlers retry {handler}\n  \
         or forget:  mcpmon handlers forget {handler}"
    )
}

/// Asks the monitor to send again, or to forget, what was given up for a handler.
pub(super) async fn clear(
    args: &Args,
    fate: Fate,
    paths: &Paths,
    output: &Output,
) -> Result<Exit, CliError> {
    let archive = Archive::open(&paths.database())?;
    let backlogs = given_up(&archive).await?;
    let Some(backlog) = backlogs.get(&args.name) else {
        let hint = suggestion(&args.name, backlogs.keys().map(String::as_str));
        return Err(CliError::Usage(format!(
            "nothing was given up for a handler `{}`{hint}",
            for_terminal(&args.name)
        )));
    };
    let handler = args.name.clone();
    let (schema, command, done) = match fate {
        Fate::SentAgain => {
            let command = MonitorCommand::Redeliver { handler };
            ("mcpmon/handlers-retry/v1", command, "to be sent again")
        }
        Fate::Forgotten => {
            let command = MonitorCommand::ForgetUndelivered { handler };
            ("mcpmon/handlers-forget/v1", command, "to be forgotten")
        }
    };
    archive.any().submit(&command).await?;
    let messages = backlog.given_up;
    match args.output {
        Form::Json => output.json(&Cleared { schema, handler: &args.name, messages }),
        Form::Table => {
            let handler = for_terminal(&args.name);
            let plural = if messages == 1 { "message" } else { "messages" };
            output.line(&format!("{handler}: {messages} {plural} {done}"));
        }
    }
    say_if_nobody_listens(&archive);
    Ok(Exit::Ok)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_given_up_is_told_with_the_reason_and_the_way_out() {
        let backlog = |given_up, error: Option<&str>| Backlog {
            given_up,
            last_error: error.map(str::to_owned),
            ..Backlog::default()
        };
        let one = sentence("ops", &backlog(1, Some("535 wrong\u{1b}[2J password")));
        assert!(one.starts_with("1 message to handler `ops` was given up: 535 wrong"), "{one}");
        assert!(one.contains("mcpmon handlers retry ops\n") && !one.contains('\u{1b}'), "{one}");
        let long = sentence("ops", &backlog(7, Some(&"no route to host ".repeat(20))));
        assert!(long.lines().all(|line| line.chars().count() <= 80), "{long}");
        let many = sentence("ops", &backlog(7, None));
        assert!(many.starts_with("7 messages to handler `ops` were given up: no reason"), "{many}");
    }
}
