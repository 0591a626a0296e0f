//! `mcpmon rules list|test`: every rule as it is in force, built-in ones and the user's own, and
//! what rules would have sent.

pub(crate) mod named;
mod replay;

use std::path::PathBuf;

use mcpmon_alert::{ConditionRule, RuleSet};
use mcpmon_core::rule::{Rule as _, RulePolicy};
use mcpmon_core::settings::Settings;
use serde::Serialize;

use super::Form;
use crate::config::{Document, Surroundings};
use crate::exit::{CliError, Exit};
use crate::output::{self, Indent, Output, wrap};
use crate::paths::Paths;

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
    /// Tries rules on stored history and shows what would have been sent, to whom and when.
    ///
    /// Nothing is written and nobody is told. Several alerts of one cause are listed one by one,
    /// though a monitor would send them as one message.
    Test(replay::Args),
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

pub(crate) async fn run(
    args: &Args,
    surroundings: &Surroundings,
    output: &Output,
) -> Result<Exit, CliError> {
    match &args.action {
        Action::List(args) => list(args, surroundings, output),
        Action::Test(args) => replay::run(args, surroundings, output).await,
    }
}

fn list(args: &ListArgs, surroundings: &Surroundings, output: &Output) -> Result<Exit, CliError> {
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

/// Shows the rule of this name, where there is one: of the configuration, else as it is built in.
pub(super) fn explain(name: &str, paths: &Paths, output: &Output) -> bool {
    let settings = Document::find(None, paths).map(|document| document.settings);
    let settings = settings.unwrap_or_default();
    let usual = Settings::default();
    let shown = [&settings, &usual].into_iter().enumerate().find_map(|(place, settings)| {
        let rules = RuleSet::from_settings(settings).ok()?;
        let rule = rules.rules().iter().find(|rule| rule.name() == name)?;
        Some((place > 0, report(rule, settings.monitoring.alert_cooldown)))
    });
    let Some((is_off, rule)) = shown else { return false };
    output.line(&format!("`{name}` is a rule: what has to be so for an alert to fire."));
    if is_off {
        output.line("It is built in, and not in force with this configuration.");
    }
    output.line("");
    show(&Report { schema: "mcpmon/rules/v1", rules: vec![rule] }, output);
    output.line("");
    output.line(
        "`mcpmon rules list` shows every rule; docs/configuration.md says how to change one.",
    );
    true
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
