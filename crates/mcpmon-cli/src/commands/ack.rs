//! `mcpmon ack`: somebody takes an alert on, so that nobody is reminded of it.

use mcpmon_core::alert::AlertPhase;
use mcpmon_core::monitor::MonitorCommand;
use mcpmon_core::store::{AlertQuery, AlertRecord};
use mcpmon_core::text::for_terminal;
use serde::Serialize;

use super::Form;
use super::archive::Archive;
use crate::exit::{CliError, Exit};
use crate::output::{self, Output};
use crate::paths::Paths;

/// No more alerts than this can fire and be found at once.
const MOST: usize = 10_000;

/// Takes alerts on: whoever was told of them is told that, and nobody is reminded until they get
/// worse.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The alert's id or the beginning of it, or what it is about: every alert that fires about
    /// this service, or else about this dependency or handler.
    #[arg(value_name = "ALERT|SUBJECT", required = true)]
    alerts: Vec<String>,
    /// What is being done about it.
    #[arg(long, value_name = "TEXT", default_value = "")]
    comment: String,
    /// How to answer.
    #[arg(long, value_enum, default_value_t)]
    output: Form,
}

#[derive(Serialize)]
struct Report {
    schema: &'static str,
    alerts: Vec<AlertRecord>,
}

pub(crate) async fn run(args: &Args, paths: &Paths, output: &Output) -> Result<Exit, CliError> {
    let archive = Archive::open(&paths.database())?;
    let query = AlertQuery { active: true, limit: MOST, ..AlertQuery::default() };
    let firing = archive.any().alerts(&query).await?;
    let mut meant: Vec<AlertRecord> = Vec::new();
    for name in &args.alerts {
        let found = matching(&firing, name)?;
        meant.extend(found.into_iter().cloned());
    }
    let by = std::env::var("USER").unwrap_or_default();
    let pending = archive.any().pending().await?;
    let mut told = Vec::new();
    for record in &meant {
        if let Some(known) = known(record, &pending, &args.comment) {
            told.push(already(record, &known));
            continue;
        }
        let command = MonitorCommand::Acknowledge {
            alert: record.alert.id.clone(),
            by: by.clone(),
            comment: args.comment.clone(),
        };
        archive.any().submit(&command).await?;
        told.push(format!(
            "acknowledged {}: {}",
            record.alert.id,
            for_terminal(&record.alert.message)
        ));
    }
    let is_any_new = told.iter().any(|line| line.starts_with("acknowledged "));
    match args.output {
        Form::Json => output.json(&Report { schema: "mcpmon/ack/v1", alerts: meant }),
        Form::Table => told.iter().for_each(|line| output.line(line)),
    }
    if is_any_new {
        say_if_nobody_listens(&archive);
    }
    Ok(Exit::Ok)
}

/// Who has taken an alert on already, if nothing new is said of it now: by what is stored, or by
/// what waits for a monitor.
fn known(record: &AlertRecord, pending: &[MonitorCommand], comment: &str) -> Option<Known> {
    let waiting = pending.iter().filter_map(|command| match command {
        MonitorCommand::Acknowledge { alert, by, comment } if *alert == record.alert.id => {
            Some(Known { by: by.clone(), comment: comment.clone() })
        }
        _ => None,
    });
    let stored = record.alert.acknowledgements.iter();
    let stored = stored.filter(|_| record.state == AlertPhase::Acknowledged);
    let all: Vec<Known> = stored
        .map(|one| Known { by: one.by.clone(), comment: one.comment.clone() })
        .chain(waiting)
        .collect();
    let is_new = !comment.is_empty() && all.iter().all(|known| known.comment != comment);
    all.into_iter().next_back().filter(|_| !is_new)
}

/// An acknowledgement there is.
#[derive(Debug, PartialEq)]
struct Known {
    by: String,
    comment: String,
}

fn already(record: &AlertRecord, known: &Known) -> String {
    let by = match known.by.as_str() {
        "" => String::new(),
        by => format!(" by {}", for_terminal(by)),
    };
    let comment = match known.comment.as_str() {
        "" => String::new(),
        comment => format!(" ({})", for_terminal(comment)),
    };
    format!(
        "{} is already acknowledged{by}{comment}; a new --comment is told",
        for_terminal(&record.alert.id)
    )
}

/// The alerts that fire and are about this service, else about this dependency or handler, else
/// have this id or begin with it.
fn matching<'a>(firing: &'a [AlertRecord], name: &str) -> Result<Vec<&'a AlertRecord>, CliError> {
    let of_service = |record: &&AlertRecord| {
        record.alert.service_name().is_some_and(|service| service.as_str() == name)
    };
    let of_other = |record: &&AlertRecord| record.alert.subject.name() == Some(name);
    let of_id = |record: &&AlertRecord| record.alert.id.starts_with(name);
    let found: Vec<&AlertRecord> = firing.iter().filter(of_service).collect();
    if !found.is_empty() {
        return Ok(found);
    }
    let not_of_tools = firing.iter().filter(|record| record.alert.tool_name().is_none());
    let found: Vec<&AlertRecord> = not_of_tools.filter(of_other).collect();
    if !found.is_empty() {
        return Ok(found);
    }
    let found: Vec<&AlertRecord> = firing.iter().filter(of_id).collect();
    match found.len() {
        0 => Err(CliError::Usage(format!(
            "no alert that fires has the id `{name}` or is about a service, dependency or handler \
             of that name; `mcpmon alerts --active` lists them"
        ))),
        1 => Ok(found),
        many => Err(CliError::Usage(format!("{many} alerts begin with `{name}`; give more of it"))),
    }
}

/// A command waits in the history until a monitor takes it.
pub(super) fn say_if_nobody_listens(archive: &Archive) {
    if !archive.monitor().running {
        output::say("no monitor is running on this history; the next one takes it up");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use mcpmon_core::alert::Acknowledgement;
    use mcpmon_core::{Alert, Subject, Timestamp};
    use mcpmon_testkit::samples;

    #[test]
    fn an_alert_is_meant_by_its_id_a_part_of_it_or_its_service() {
        let record = |id: &str, service: &str| {
            let mut alert = samples::alert("service_down", service);
            alert.id = id.to_owned();
            AlertRecord { alert, state: AlertPhase::Firing }
        };
        let about = |id: &str, subject: Subject| {
            let alert = samples::alert_about("rule", subject);
            AlertRecord { alert: Alert { id: id.to_owned(), ..alert }, state: AlertPhase::Firing }
        };
        let firing = [
            record("1a-x", "files"),
            record("1b-x", "files"),
            record("2a-y", "github"),
            about("3a-z", Subject::Dependency("tcp://db:5432".to_owned())),
            record("4a-z", "ops"),
            about("5a-z", Subject::Handler("ops".to_owned())),
            about("6a-z", Subject::Handler("chat".to_owned())),
            about("7a-z", Subject::tool_of("tools", "read")),
        ];
        let ids = |name: &str| -> Result<Vec<String>, String> {
            let found = matching(&firing, name).map_err(|error| error.to_string())?;
            Ok(found.into_iter().map(|record| record.alert.id.clone()).collect())
        };
        assert_eq!(ids("files").unwrap(), ["1a-x", "1b-x"]);
        assert_eq!(ids("2a-y").unwrap(), ["2a-y"]);
        assert_eq!(ids("1a").unwrap(), ["1a-x"]);
        assert_eq!(ids("tcp://db:5432").unwrap(), ["3a-z"]);
        assert_eq!(ids("ops").unwrap(), ["4a-z"], "the service, not the handler of its name");
        assert_eq!(ids("chat").unwrap(), ["6a-z"]);
        assert!(ids("read").unwrap_err().contains("alerts --active"), "a tool has no name alone");
        assert!(ids("1").unwrap_err().contains("2 alerts begin with `1`"));
        assert!(ids("nobody").unwrap_err().contains("alerts --active"));
    }

    #[test]
    fn what_is_taken_on_is_taken_on_again_only_with_something_new_to_say() {
        let mut alert = samples::alert("service_down", "files");
        alert.id = "1a-x".to_owned();
        let at = Timestamp::from_millis(1);
        let (by, comment) = ("ann".to_owned(), "on it".to_owned());
        alert.acknowledge(Acknowledgement { by, comment, at });
        let taken_on = AlertRecord { alert, state: AlertPhase::Acknowledged };
        for (comment, is_new) in [("", false), ("on it", false), ("found it", true)] {
            assert_eq!(known(&taken_on, &[], comment).is_none(), is_new, "{comment}");
        }
        let told = already(&taken_on, &known(&taken_on, &[], "").unwrap());
        assert!(told.starts_with("1a-x is already acknowledged by ann (on it)"), "{told}");
        // It got worse since: everybody is told, and somebody has to take it on again.
        let worse = AlertRecord { state: AlertPhase::Firing, ..taken_on };
        assert_eq!(known(&worse, &[], ""), None);
        let waits = |alert: &str| MonitorCommand::Acknowledge {
            alert: alert.to_owned(),
            by: "bob".to_owned(),
            comment: String::new(),
        };
        assert_eq!(known(&worse, &[waits("other")], ""), None);
        assert_eq!(known(&worse, &[waits("1a-x")], "").unwrap().by, "bob");
    }
}
