//! `mcpmon explain`: what a code means, or what is wrong with a service, since when, what was kept
//! of it, what came before, and what to do.

mod page;
mod text;

use std::collections::VecDeque;

use jiff::tz::TimeZone;
use mcpmon_core::contract::{ExplainReport, ExplainedCode, ExplainedService, ServiceReport};
use mcpmon_core::state::StatusChange;
use mcpmon_core::store::{AuditQuery, RecordQuery, StoredService};
use mcpmon_core::{Clock as _, ServiceName, SystemClock};

use super::Form;
use super::archive::Archive;
use super::rules;
use crate::config::near;
use crate::exit::{CliError, Exit};
use crate::output::{self, Output};
use crate::paths::Paths;

/// Changes of status that are shown.
const CHANGES: usize = 8;
/// Repairs that are shown: those of an hour, and a few before.
const REPAIRS: usize = 8;

/// Explains what is wrong with a service, or what a failure code or finding means.
///
/// Without a word it lists every code. A service is explained from what a monitor kept; none has to
/// run now.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// A service's name, or a code such as `command_not_found`; a rule's name shows the rule.
    #[arg(value_name = "NAME|CODE")]
    word: Option<String>,
    /// Take the word for a code, though a service has that name too.
    #[arg(long, requires = "word")]
    code: bool,
    /// How to answer.
    #[arg(long, value_enum, default_value_t)]
    output: Form,
}

pub(crate) async fn run(args: &Args, paths: &Paths, output: &Output) -> Result<Exit, CliError> {
    let report = match args.word.as_deref() {
        None => report(None, page::catalogue()),
        Some(word) if args.code => {
            report(None, vec![page::find(word).ok_or_else(|| no_code(word))?])
        }
        Some(word) => match of_word(word, paths).await {
            // Neither, as far as is known; a rule's name is in every alert.
            Err(CliError::Usage(_) | CliError::Failed(_))
                if args.output == Form::Table && rules::explain(word, paths, output) =>
            {
                return Ok(Exit::Ok);
            }
            report => report?,
        },
    };
    if args.output == Form::Json {
        output.json(&report);
        return Ok(Exit::Ok);
    }
    let drawing = text::Drawing {
        width: output.width(),
        look: output.look(),
        zone: TimeZone::system(),
        now: SystemClock.now(),
    };
    output.text(&match (&report.service, args.word.is_some()) {
        (Some(service), _) => drawing.service(service, &report.codes),
        (None, true) => report.codes.iter().map(|code| drawing.code(code)).collect(),
        (None, false) => drawing.list(&report.codes),
    });
    Ok(Exit::Ok)
}

fn report(service: Option<ExplainedService>, codes: Vec<ExplainedCode>) -> ExplainReport {
    ExplainReport { schema: ExplainReport::SCHEMA.to_owned(), service, codes }
}

/// A service of that name, else the code.
async fn of_word(word: &str, paths: &Paths) -> Result<ExplainReport, CliError> {
    let code = page::find(word);
    let archive = match Archive::open(&paths.database()) {
        Ok(archive) => archive,
        // What a code means is known without any history.
        Err(error) => {
            return match code {
                Some(code) => Ok(report(None, vec![code])),
                None => Err(nowhere(word, &error)),
            };
        }
    };
    let stored = archive.any().services().await?;
    match (stored.iter().find(|service| service.facts.service.as_str() == word), code) {
        (Some(service), code) => {
            if let Some(code) = code {
                output::say(&format!(
                    "there is a service `{word}`; `mcpmon explain --code {}` explains the code",
                    code.code
                ));
            }
            let service = explained(&archive, service).await?;
            let codes = codes_of(&service);
            Ok(report(Some(service), codes))
        }
        (None, Some(code)) => Ok(report(None, vec![code])),
        (None, None) => {
            let codes = page::catalogue();
            let known = stored.iter().map(|service| service.facts.service.as_str());
            let known = known.chain(codes.iter().map(|code| code.code.as_str()));
            let near = near(word, known);
            let advice = near.as_deref().unwrap_or("; `mcpmon status` lists the services");
            Err(CliError::Usage(format!("`{word}` is no service and no code{advice}")))
        }
    }
}

fn no_code(word: &str) -> CliError {
    let codes = page::catalogue();
    let near = near(word, codes.iter().map(|code| code.code.as_str()));
    let advice = near.as_deref().unwrap_or("; `mcpmon explain` lists the codes");
    CliError::Usage(format!("there is no code `{word}`{advice}"))
}

/// Neither a code, nor can it be known whether it is a service.
fn nowhere(word: &str, error: &CliError) -> CliError {
    let codes = page::catalogue();
    match near(word, codes.iter().map(|code| code.code.as_str())) {
        Some(near) => CliError::Usage(format!("there is no code `{word}`{near}")),
        None => CliError::Failed(format!(
            "`{word}` is no code, and {error}; `mcpmon check {word}` asks it now"
        )),
    }
}

async fn explained(
    archive: &Archive,
    stored: &StoredService,
) -> Result<ExplainedService, CliError> {
    let monitored = stored.facts.watched && archive.monitor().running;
    let service = Some(stored.facts.service.clone());
    let repairs = AuditQuery { service, since: None, limit: REPAIRS };
    Ok(ExplainedService {
        check: ServiceReport::of_stored(stored),
        since: stored.since,
        last_check_at: stored.last_check.as_ref().map(|check| check.at),
        watched: monitored,
        changes: last_changes(archive, &stored.facts.service).await?,
        repairs: archive.any().audit(&repairs).await?,
    })
}

/// The newest changes, newest first; the store gives them oldest first.
async fn last_changes(
    archive: &Archive,
    service: &ServiceName,
) -> Result<Vec<StatusChange>, CliError> {
    let mut last = VecDeque::with_capacity(CHANGES + 1);
    let mut query = RecordQuery::of(service.clone());
    loop {
        let page = archive.any().changes(&query).await?;
        for change in page.items.into_iter().filter(StatusChange::is_change) {
            last.push_front(change);
            last.truncate(CHANGES);
        }
        match page.next {
            Some(cursor) => query.after = Some(cursor),
            None => return Ok(last.into()),
        }
    }
}

/// The catalogue's words for what is wrong or odd now; each code once.
fn codes_of(service: &ExplainedService) -> Vec<ExplainedCode> {
    let mut codes: Vec<ExplainedCode> =
        service.check.failure.iter().map(|failure| page::failure(failure.code)).collect();
    for finding in &service.check.findings {
        if !codes.iter().any(|code| code.code == finding.code.as_str()) {
            codes.push(page::finding(finding.code));
        }
    }
    codes
}
