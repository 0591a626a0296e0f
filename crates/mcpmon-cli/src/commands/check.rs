//! `mcpmon check`: one round, then exit.

use std::io::IsTerminal as _;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use clap::ValueEnum;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use mcpmon_core::contract::CheckReport;
use mcpmon_core::{Clock as _, ServiceSpec, Status, SystemClock, text};
use mcpmon_mcp::Guardian;
use tokio::sync::mpsc;

use super::archive::unknown_service;
use crate::config::{Config, Surroundings};
use crate::consent::Consent;
use crate::exit::{CliError, Exit};
use crate::guard::probes;
use crate::moment;
use crate::output::{self, Output, json_line, render_calls, render_check};
use crate::round::{self, Round};
use crate::signals;

/// Checks every service once; exit code 0 only if all of them are running.
///
/// A file, URL or command that is named here is all that is looked at, and naming it is consent to
/// start what it says.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Only these services.
    #[arg(value_name = "NAME")]
    names: Vec<String>,
    /// The configuration file.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Any MCP client's file of servers; may be given several times.
    #[arg(long, value_name = "FILE")]
    mcp_config: Vec<PathBuf>,
    /// A server behind this URL; may be given several times.
    #[arg(long, value_name = "URL")]
    url: Vec<String>,
    /// One deadline per service, from when its check starts, in place of every other time limit.
    #[arg(long, value_name = "SPAN", value_parser = moment::limit)]
    timeout: Option<Duration>,
    /// Also make the calls configured under [[services.NAME.functional]], where the check went
    /// well; each may take its `call_timeout` on top, or SPAN if that is shorter.
    #[arg(long)]
    functional: bool,
    /// How to answer.
    #[arg(long, value_enum, default_value_t)]
    output: Form,
    /// A server started by this command.
    #[arg(last = true, value_name = "CMD")]
    command: Vec<String>,
}

/// How a check answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
enum Form {
    /// For people.
    #[default]
    Table,
    /// One object for programs.
    Json,
    /// One object a service, each on its line.
    Jsonl,
}

pub(crate) async fn run(
    args: &Args,
    surroundings: &Surroundings,
    guardian: Option<&Guardian>,
    output: &Output,
) -> Result<Exit, CliError> {
    let config = load(args, surroundings)?;
    config.notes.iter().for_each(|note| output::say(note));
    let mut services = config.services.clone();
    if !args.names.is_empty() {
        services = named(services, &args.names)?;
    }
    if services.is_empty() {
        return Err(nothing_found(&config));
    }
    pause_without_consent(&config, args, &mut services);
    if args.functional && services.iter().all(|service| service.functional.is_empty()) {
        output::say(
            "no calls are configured for these services; add [[services.NAME.functional]] to make \
             some",
        );
    }
    let checked_at = SystemClock.now();
    let round = Round {
        services,
        factory: Arc::new(probes(&config.document.settings, guardian)),
        timeout: args.timeout,
        functional: args.functional,
    };
    let reports = with_progress(round).await?;
    let report = CheckReport::new(checked_at, reports);
    match args.output {
        Form::Table => {
            output.text(&render_calls(&report, output.width(), output.look()));
            output.text(&render_check(&report, output.width(), output.look()));
        }
        Form::Json => output.json(&report),
        Form::Jsonl => report.services.iter().for_each(|s| output.text(&json_line(s))),
    }
    let well = report.services.iter().all(|service| service.status == Status::Running);
    Ok(if well { Exit::Ok } else { Exit::NotWell })
}

impl Args {
    /// Whether the services are given here, so that no file of anybody's is looked for.
    fn names_its_sources(&self) -> bool {
        !(self.mcp_config.is_empty() && self.url.is_empty() && self.command.is_empty())
    }
}

fn load(args: &Args, surroundings: &Surroundings) -> Result<Config, CliError> {
    if !args.names_its_sources() {
        return Ok(Config::load(args.config.as_deref(), surroundings)?);
    }
    // With sources of its own only a configuration that is named is read, and for its settings and
    // services alike.
    let mut config = match &args.config {
        Some(path) => Config::load(Some(path), surroundings)?,
        None => Config::empty(),
    };
    config.import(&args.mcp_config, surroundings)?;
    for url in &args.url {
        config.add(from_url(url)?);
    }
    if let Some((program, rest)) = args.command.split_first() {
        config.add(from_command(program, rest));
    }
    Ok(config)
}

fn from_url(url: &str) -> Result<ServiceSpec, CliError> {
    let lower = url.to_ascii_lowercase();
    if !(lower.starts_with("http://") || lower.starts_with("https://")) {
        return Err(CliError::Usage(format!("`{url}` begins with neither http:// nor https://")));
    }
    let mut spec = ServiceSpec::http(host_and_path(url), url);
    spec.origin = "--url".to_owned();
    Ok(spec)
}

/// Host and path of a URL: no credentials, query or fragment, which may be secret.
fn host_and_path(url: &str) -> String {
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    let rest = rest.split(['?', '#']).next().unwrap_or_default();
    let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    let host = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
    text::truncate(&format!("{host}{}", path.trim_end_matches('/')), 200)
}

fn from_command(program: &str, args: &[String]) -> ServiceSpec {
    let name = std::path::Path::new(program)
        .file_name()
        .map_or_else(|| program.to_owned(), |name| name.to_string_lossy().into_owned());
    let mut spec = ServiceSpec::stdio(name, program, args.iter().cloned());
    spec.origin = "the command line".to_owned();
    spec
}

fn named(services: Vec<ServiceSpec>, names: &[String]) -> Result<Vec<ServiceSpec>, CliError> {
    let known: Vec<String> = services.iter().map(|service| service.name.to_string()).collect();
    if let Some(unknown) = names.iter().find(|name| !known.contains(name)) {
        return Err(unknown_service(unknown, known.iter().map(String::as_str)));
    }
    Ok(services.into_iter().filter(|s| names.iter().any(|name| name == s.name.as_str())).collect())
}

fn nothing_found(config: &Config) -> CliError {
    let mut message = "there is nothing to check; name a --url, a --mcp-config file or a command \
                       after --"
        .to_owned();
    if !config.looked.is_empty() {
        message.push_str("; looked in:");
        for path in &config.looked {
            message.push_str(&format!("\n  {}", path.display()));
        }
    }
    CliError::Usage(message)
}

fn pause_without_consent(config: &Config, args: &Args, services: &mut [ServiceSpec]) {
    if args.names_its_sources() {
        return;
    }
    let mut consent = Consent::default();
    consent.ask(services, &config.needs_consent);
    let paused = consent.apply(services, &config.needs_consent);
    if !paused.is_empty() {
        output::say(&format!(
            "not checked, because nobody agreed to use what was found in clients' files: {}; \
             name the file with --mcp-config to check it",
            paused.join(", ")
        ));
    }
}

async fn with_progress(
    round: Round,
) -> Result<Vec<mcpmon_core::contract::ServiceReport>, CliError> {
    let total = round.services.len();
    let (done, mut finished) = mpsc::unbounded_channel::<String>();
    let bar = progress_bar(total);
    let drawing = tokio::spawn({
        let bar = bar.clone();
        async move {
            while let Some(name) = finished.recv().await {
                bar.set_message(text::truncate(&text::for_terminal(&name), 40));
                bar.inc(1);
            }
        }
    });
    let stop = async {
        signals::interrupted().await;
    };
    let reports = round::run(round, &done, stop).await;
    drop(done);
    let _ = drawing.await;
    bar.finish_and_clear();
    reports.ok_or(CliError::Interrupted)
}

/// On standard error, and only where a person watches more than one check.
fn progress_bar(total: usize) -> ProgressBar {
    if total < 2 || !std::io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let style = ProgressStyle::with_template("checked {pos} of {len} services  {wide_msg}");
    let bar = ProgressBar::with_draw_target(Some(total as u64), ProgressDrawTarget::stderr());
    match style {
        Ok(style) => bar.with_style(style),
        Err(_) => bar,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ad_hoc_names_hold_no_secret() {
        for (url, name) in [
            ("https://api.example.com/mcp", "api.example.com/mcp"),
            ("http://user:pw@127.0.0.1:8080/mcp/?token=x#y", "127.0.0.1:8080/mcp"),
            ("HTTPS://example.com", "example.com"),
        ] {
            assert_eq!(from_url(url).unwrap().name.as_str(), name);
        }
        assert!(from_url("ftp://example.com").is_err());
        assert_eq!(from_command("/usr/bin/npx", &["-y".to_owned()]).name.as_str(), "npx");
    }

    #[test]
    fn an_unknown_name_is_wrong_usage() {
        let services = vec![ServiceSpec::http("github", "http://x")];
        let error = named(services.clone(), &["githib".to_owned()]).unwrap_err();
        assert_eq!(error.exit(), Exit::Usage);
        assert!(error.to_string().contains("did you mean `github`?"), "{error}");
        assert_eq!(named(services, &["github".to_owned()]).unwrap().len(), 1);
    }
}
