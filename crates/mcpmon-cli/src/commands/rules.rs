//! `mcpmon rules list`: every rule as it is in force, built-in ones and the user's own.

use std::path::PathBuf;

use mcpmon_alert::{ConditionRule, RuleSet};
use mcpmon_core::rule::{Rule as _, RulePolicy};
use serde::Serialize;

use super::Form;
use crate::config::{Document, Surroundings};
use crate::exit::{CliError, Exit};
use crate::output::{self, Indent, Output, wrap};

/// Looks at the rules.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, clap::Subcommand)]
enum Action {
    /// Lists every rule with its condition, as it is in force.
    List(ListArgs),
}

#[derive(Debug, clap::Args)]
struct ListArgs {
    /// The configuration file.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// How to answer.
    #[arg(long, value_enum, default_value_t)]
    output: Form,
}

#[derive(Serialize)]
struct Report {
    schema: &'static str,
    rules: Vec<RuleReport>,
}

#[derive(Serialize)]
struct RuleReport {
    name: String,
    built_in: bool,
    scope: &'static str,
    level: &'static str,
    when: String,
    /// A condition that makes it worse, and how bad it is then.
    worse: Option<(String, &'static str)>,
    window_seconds: f64,
    hold_seconds: f64,
    keep_firing_seconds: f64,
    cooldown_seconds: f64,
    #[serde(rename = "match")]
    labels: std::collections::BTreeMap<String, String>,
    message: Option<String>,
}

pub(crate) fn run(
    args: &Args,
    surroundings: &Surroundings,
    output: &Output,
) -> Result<Exit, CliError> {
    let Action::List(args) = &args.action;
    let document = Document::find(args.config.as_deref(), &surroundings.paths)?;
    let settings = &document.settings;
    let rules = RuleSet::from_settings(settings).map_err(|errors| {
        let lines: Vec<String> = errors.iter().map(ToString::to_string).collect();
        CliError::Usage(lines.join("\n"))
    })?;
    let cooldown = settings.monitoring.alert_cooldown;
    let rules = rules.rules().iter().map(|rule| report(rule, cooldown)).collect();
    let report = Report { schema: "mcpmon/rules/v1", rules };
    match args.output {
        Form::Json => output.json(&report),
        Form::Table => show(&report, output),
    }
    if !settings.monitoring.alerts_enabled {
        output::say("`monitoring.alerts_enabled` is false: no rule is evaluated");
    }
    Ok(Exit::Ok)
}

fn report(rule: &ConditionRule, usual: std::time::Duration) -> RuleReport {
    let RulePolicy { hold, keep_firing, cooldown, window } = rule.policy();
    RuleReport {
        name: rule.name().to_owned(),
        built_in: rule.is_built_in(),
        scope: rule.scope().as_str(),
        level: rule.base_level().as_str(),
        when: rule.when().to_owned(),
        worse: rule.worse().map(|(when, level)| (when.to_owned(), level.as_str())),
        window_seconds: window.as_secs_f64(),
        hold_seconds: hold.as_secs_f64(),
        keep_firing_seconds: keep_firing.as_secs_f64(),
        cooldown_seconds: cooldown.unwrap_or(usual).as_secs_f64(),
        labels: rule.labels().clone(),
        message: rule.template().map(str::to_owned),
    }
}

fn show(report: &Report, output: &Output) {
    let width = output.width();
    for rule in &report.rules {
        let own = if rule.built_in { "" } else { ", your own" };
        output.line(&format!("{} ({}, {}{own})", rule.name, rule.scope, rule.level));
        let indent = Indent { first: "    ", rest: "      " };
        output.text(&wrap(&format!("when {}", rule.when), width, indent));
        if let Some((when, level)) = &rule.worse {
            output.text(&wrap(&format!("{level} when {when}"), width, indent));
        }
        for (word, seconds) in
            [("hold", rule.hold_seconds), ("keep_firing", rule.keep_firing_seconds)]
        {
            if seconds > 0.0 {
                let span = std::time::Duration::from_secs_f64(seconds);
                output.line(&format!("    {word} {}", mcpmon_core::duration::format(span)));
            }
        }
        if !rule.labels.is_empty() {
            let labels: Vec<String> =
                rule.labels.iter().map(|(name, value)| format!("{name}={value}")).collect();
            output.line(&format!("    match {}", labels.join(" ")));
        }
    }
}
