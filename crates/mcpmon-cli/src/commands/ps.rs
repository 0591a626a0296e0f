//! `mcpmon ps`: every MCP server process of this machine, and an end to those nobody needs.
//!
//! What is a server and what is flagged is decided in one pure function of the process table; here
//! it is shown, and after a yes ended. Between the question and the answer minutes may pass, so
//! what is ended is decided once more from a fresh table.

mod tree;

use std::io::{BufRead as _, IsTerminal as _};
use std::path::PathBuf;
use std::time::Duration;

use mcpmon_collect::census::{FoundServer, Reaped, census, read_table, reap, stdin_of};
use mcpmon_core::contract::{PsReport, PsServer};
use mcpmon_core::{Clock as _, ServiceSpec, SystemClock, text};

use self::tree::render;
use super::Form;
use crate::config::{Config, Surroundings};
use crate::consent::is_yes;
use crate::exit::{CliError, Exit};
use crate::output::{self, Output};

/// A process that was asked to end is given this long.
const GRACE: Duration = Duration::from_secs(5);

/// Shows the MCP server processes of this machine: client, wrapper, server.
///
/// A process counts as an MCP server when its command line is that of a service that is configured
/// or found in a client's file, or when the name of what it runs says MCP. Flagged are orphans
/// (their client is gone) and duplicates (their client has started the same command again since).
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Only these servers: a service's name, or the id of one of their processes.
    #[arg(value_name = "NAME|PID")]
    names: Vec<String>,
    /// The configuration file, whose services are known again by their command lines.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// End what is flagged and yours, after asking.
    #[arg(long)]
    reap: bool,
    /// Do not ask.
    #[arg(long, requires = "reap")]
    yes: bool,
    /// How to answer.
    #[arg(long, value_enum, default_value_t)]
    output: Form,
}

pub(crate) async fn run(
    args: &Args,
    surroundings: &Surroundings,
    output: &Output,
) -> Result<Exit, CliError> {
    let services = services(args, surroundings)?;
    let found = named(look(&services).await?, &args.names)?;
    if !args.reap {
        show(args, found.into_iter().map(|found| found.report).collect(), output);
        return Ok(Exit::Ok);
    }
    let flagged: Vec<FoundServer> = found.into_iter().filter(is_flagged).collect();
    let (own, foreign): (Vec<_>, Vec<_>) = flagged.into_iter().partition(|found| found.report.own);
    if !foreign.is_empty() {
        let pids: Vec<String> = foreign.iter().map(|found| root(found).to_string()).collect();
        output::say(&format!("left alone, because they are not yours: {}", pids.join(", ")));
    }
    if own.is_empty() {
        output::say("nothing of yours is flagged");
        show_json(args, Vec::new(), output);
        return Ok(Exit::Ok);
    }
    if args.output == Form::Table {
        output.text(&render(&reports(&own), output.width(), output.look()));
    }
    if !(args.yes || agreed(own.len()).await?) {
        output::say("nothing was ended");
        show_json(args, reports(&own), output);
        return Ok(Exit::Ok);
    }
    let ended = end(own, &services).await?;
    let well = ended.iter().all(|server| server.reaped.as_deref() != Some("failed"));
    show_json(args, ended, output);
    Ok(if well { Exit::Ok } else { Exit::NotWell })
}

/// Services to know command lines by. A configuration that cannot be used is no reason not to look,
/// unless it was named.
fn services(args: &Args, surroundings: &Surroundings) -> Result<Vec<ServiceSpec>, CliError> {
    match Config::load(args.config.as_deref(), surroundings) {
        Ok(config) => Ok(config.services),
        Err(error) if args.config.is_some() => Err(error.into()),
        Err(error) => {
            output::say(&format!("{error}\nno service is known again by its command line"));
            Ok(Vec::new())
        }
    }
}

async fn look(services: &[ServiceSpec]) -> Result<Vec<FoundServer>, CliError> {
    let services = services.to_vec();
    let looking = tokio::task::spawn_blocking(move || {
        let rows = read_table();
        (!rows.is_empty()).then(|| census(&rows, &services, &|pid| stdin_of(&rows, pid)))
    });
    let found = looking.await.ok().flatten();
    found.ok_or_else(|| CliError::Failed("the process table cannot be read".to_owned()))
}

fn named(found: Vec<FoundServer>, names: &[String]) -> Result<Vec<FoundServer>, CliError> {
    let is_named = |found: &FoundServer, name: &str| match name.parse::<u32>() {
        Ok(pid) => found.targets.iter().any(|target| target.pid == pid),
        Err(_) => found.report.service.as_ref().is_some_and(|service| service.as_str() == name),
    };
    if let Some(name) = names.iter().find(|name| !found.iter().any(|one| is_named(one, name))) {
        let message = format!("no MCP server process is `{name}`; `mcpmon ps` shows all there are");
        return Err(CliError::Usage(message));
    }
    let wanted =
        |one: &FoundServer| names.is_empty() || names.iter().any(|name| is_named(one, name));
    Ok(found.into_iter().filter(wanted).collect())
}

fn is_flagged(found: &FoundServer) -> bool {
    !found.report.flags.is_empty()
}

fn root(found: &FoundServer) -> u32 {
    found.targets.first().map_or(0, |target| target.pid)
}

fn reports(found: &[FoundServer]) -> Vec<PsServer> {
    found.iter().map(|found| found.report.clone()).collect()
}

fn show(args: &Args, servers: Vec<PsServer>, output: &Output) {
    match args.output {
        Form::Json => show_json(args, servers, output),
        Form::Table if servers.is_empty() => output::say("no MCP server processes were found"),
        Form::Table => output.text(&render(&servers, output.width(), output.look())),
    }
}

fn show_json(args: &Args, servers: Vec<PsServer>, output: &Output) {
    if args.output == Form::Json {
        output.json(&PsReport::new(SystemClock.now(), servers));
    }
}

async fn agreed(servers: usize) -> Result<bool, CliError> {
    if !std::io::stdin().is_terminal() || !std::io::stderr().is_terminal() {
        let message = "there is no terminal to ask on; --yes ends what is flagged without asking";
        return Err(CliError::Usage(message.to_owned()));
    }
    output::say(&format!("End {}? [y/N]", output::count(servers, "server")));
    let answer = tokio::task::spawn_blocking(|| {
        let mut answer = String::new();
        // End of input is a no.
        let _ = std::io::stdin().lock().read_line(&mut answer);
        answer
    });
    Ok(answer.await.is_ok_and(|answer| is_yes(&answer)))
}

/// Ends what was shown and is still flagged, one server after the other.
async fn end(shown: Vec<FoundServer>, services: &[ServiceSpec]) -> Result<Vec<PsServer>, CliError> {
    let mut ended = Vec::with_capacity(shown.len());
    for found in shown {
        // Looked at anew each time: ending one may be all that another needed.
        let now = look(services).await?;
        let same = now.into_iter().find(|now| now.targets.first() == found.targets.first());
        let mut report = found.report.clone();
        let (word, told) = match same {
            None => ("gone", "had ended by itself".to_owned()),
            Some(now) if !(is_flagged(&now) && now.report.own) => {
                ("kept", "is left alone: it is in use after all".to_owned())
            }
            Some(now) => what_came(&reap(&now.targets, GRACE).await),
        };
        report.reaped = Some(word.to_owned());
        let command = report.processes.first().map_or("", |process| process.command.as_str());
        let shown = text::truncate(command, 60);
        output::say(&format!("{} ({shown}) {told}", root(&found)));
        ended.push(report);
    }
    Ok(ended)
}

fn what_came(reaped: &Reaped) -> (&'static str, String) {
    match reaped {
        Reaped::Gone => ("gone", "had ended by itself".to_owned()),
        Reaped::Ended => ("ended", "ended".to_owned()),
        Reaped::Killed(count) => {
            ("killed", format!("ended; {count} of its processes had to be killed"))
        }
        Reaped::Failed(left) => {
            let each: Vec<String> =
                left.iter().map(|(pid, why)| format!("{pid} ({why})")).collect();
            ("failed", format!("could not be ended: {}", each.join(", ")))
        }
    }
}
