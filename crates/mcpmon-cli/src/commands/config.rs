//! `mcpmon config check|schema|show`.

mod masking;

use std::path::{Path, PathBuf};

use mcpmon_alert::RuleSet;
use mcpmon_core::ServiceSpec;
use serde::Serialize;
use serde_json::Value;

use super::Form;
use crate::config::{Config, Document, Problem, Surroundings};
use crate::exit::{CliError, Exit};
use crate::output::{self, Output};
use crate::paths::Paths;

/// Looks at the configuration.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, clap::Subcommand)]
enum Action {
    /// Says whether the configuration is right, and what in it has no effect yet.
    Check(FileArgs),
    /// Shows every setting as it is in effect, secrets hidden.
    Show(FileArgs),
    /// Prints the JSON Schema of the configuration, for editors.
    Schema,
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

pub(crate) fn run(
    args: &Args,
    surroundings: &Surroundings,
    output: &Output,
) -> Result<Exit, CliError> {
    match &args.action {
        Action::Check(args) => check(args, surroundings, output),
        Action::Show(args) => show(args, &surroundings.paths, output),
        Action::Schema => {
            output.json(&schemars::schema_for!(mcpmon_core::Settings));
            Ok(Exit::Ok)
        }
    }
}

#[derive(Serialize)]
struct CheckReport<'a> {
    schema: &'static str,
    /// The file that was read; `None` where there is none.
    path: Option<&'a Path>,
    ok: bool,
    problems: &'a [Problem],
    /// What was passed over or cannot be used, although nothing stops because of it.
    notes: &'a [String],
    /// Keys that have no effect in this version: there are none, and programs read it.
    not_in_effect: [(); 0],
    services: usize,
    /// Rules in force, built-in ones among them.
    rules: usize,
    /// Handlers there will be: the console, where the file names none.
    handlers: usize,
}

impl CheckReport<'_> {
    const SCHEMA: &'static str = "mcpmon/config-check/v1";
}

fn check(args: &FileArgs, surroundings: &Surroundings, output: &Output) -> Result<Exit, CliError> {
    let (config, handlers) = match Config::load_whole(args.config.as_deref(), surroundings) {
        Ok(whole) => whole,
        Err(error) if args.output == Form::Json => {
            output.json(&CheckReport {
                schema: CheckReport::SCHEMA,
                path: args.config.as_deref().or(surroundings.paths.found_config()),
                ok: false,
                problems: error.problems(),
                notes: &[],
                not_in_effect: [],
                services: 0,
                rules: 0,
                handlers: 0,
            });
            return Ok(Exit::Usage);
        }
        Err(error) => return Err(error.into()),
    };
    let mut notes = config.notes.clone();
    notes.extend(config.services.iter().filter_map(unusable));
    let rules = RuleSet::from_settings(&config.document.settings).unwrap_or_default();
    let report = CheckReport {
        schema: CheckReport::SCHEMA,
        path: config.document.path.as_deref(),
        ok: true,
        problems: &[],
        notes: &notes,
        not_in_effect: [],
        services: config.services.len(),
        rules: rules.rules().len(),
        handlers: handlers.len(),
    };
    match args.output {
        Form::Json => output.json(&report),
        Form::Table => show_check(&report, output),
    }
    Ok(Exit::Ok)
}

/// Why a service's entry cannot be used here and now.
fn unusable(service: &ServiceSpec) -> Option<String> {
    let failure = service.invalid.as_ref()?;
    Some(format!("{} is not checked: {}", service.name, failure.message))
}

fn show_check(report: &CheckReport<'_>, output: &Output) {
    report.notes.iter().for_each(|note| output::say(note));
    let file = report.path.map_or_else(
        || "no configuration file: every setting has its default".to_owned(),
        |path| format!("{}: right", path.display()),
    );
    output.line(&format!(
        "{file}; {}, {}, {}",
        output::count(report.services, "service"),
        output::count(report.rules, "rule"),
        output::count(report.handlers, "handler"),
    ));
}

fn show(args: &FileArgs, paths: &Paths, output: &Output) -> Result<Exit, CliError> {
    let document = Document::find(args.config.as_deref(), paths)?;
    let mut settings = serde_json::to_value(&document.settings)
        .map_err(|error| CliError::Failed(format!("cannot show the settings: {error}")))?;
    masking::hide_secrets(&mut settings);
    if args.output == Form::Json {
        output.json(&serde_json::json!({
            "schema": "mcpmon/config-show/v1",
            "path": document.path,
            "settings": settings,
        }));
        return Ok(Exit::Ok);
    }
    drop_nulls(&mut settings);
    let text = toml::to_string_pretty(&settings)
        .map_err(|error| CliError::Failed(format!("cannot show the settings: {error}")))?;
    match &document.path {
        Some(path) => output.line(&format!("# {}", path.display())),
        None => output.line("# no configuration file: every setting has its default"),
    }
    output.text(&text);
    Ok(Exit::Ok)
}

fn drop_nulls(value: &mut Value) {
    match value {
        Value::Object(map) => {
            map.retain(|_, value| !value.is_null());
            map.values_mut().for_each(drop_nulls);
        }
        Value::Array(items) => {
            items.retain(|value| !value.is_null());
            items.iter_mut().for_each(drop_nulls);
        }
        _ => {}
    }
}
