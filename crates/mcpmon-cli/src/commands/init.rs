//! `mcpmon init`: a commented configuration to start from.

use std::io::Write as _;
use std::path::PathBuf;

use crate::exit::{CliError, Exit};
use crate::output::{self, Output};
use crate::paths::CONFIG_FILE;

/// Every setting with its default, commented out, and an example of everything else.
const TEMPLATE: &str = include_str!("init.toml");

/// Writes a commented configuration file; never over one that is there.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Where to write it.
    #[arg(value_name = "FILE", default_value = CONFIG_FILE)]
    file: PathBuf,
}

pub(crate) fn run(args: &Args, output: &Output) -> Result<Exit, CliError> {
    let shown = args.file.display();
    let mut file =
        std::fs::OpenOptions::new().write(true).create_new(true).open(&args.file).map_err(
            |error| match error.kind() {
                std::io::ErrorKind::AlreadyExists => CliError::Usage(format!(
                    "`{shown}` is there already and stays as it is; name another file"
                )),
                _ => CliError::io(format!("cannot write `{shown}`"), error),
            },
        )?;
    file.write_all(TEMPLATE.as_bytes())
        .map_err(|error| CliError::io(format!("cannot write `{shown}`"), error))?;
    output.line(&shown.to_string());
    output::say("edit it, then run: mcpmon up");
    Ok(Exit::Ok)
}

#[cfg(test)]
mod tests {
    use super::*;
    use mcpmon_core::Settings;

    /// The template with its settings' comments taken off, examples left out.
    fn uncommented() -> String {
        TEMPLATE
            .lines()
            .take_while(|line| !line.starts_with("# --- examples"))
            .map(|line| line.strip_prefix("#: ").unwrap_or(line))
            .map(|line| format!("{line}\n"))
            .collect()
    }

    #[test]
    fn the_template_as_written_changes_nothing() {
        let settings: Settings = toml::from_str(TEMPLATE).unwrap();
        assert_eq!(settings, Settings::default());
    }

    #[test]
    fn its_values_are_the_defaults_and_none_is_missing() {
        let settings: Settings = toml::from_str(&uncommented()).unwrap();
        assert_eq!(settings, Settings::default());
        let written: serde_json::Value = toml::from_str(&uncommented()).unwrap();
        let all = serde_json::to_value(Settings::default()).unwrap();
        for (section, keys) in all.as_object().unwrap() {
            for key in keys.as_object().unwrap().keys() {
                assert!(written[section].get(key).is_some(), "{section}.{key} is missing");
            }
        }
    }

    #[test]
    fn its_examples_are_valid() {
        let examples: String = TEMPLATE
            .lines()
            .skip_while(|line| !line.starts_with("# --- examples"))
            .filter_map(|line| line.strip_prefix("#: "))
            .map(|line| format!("{line}\n"))
            .collect();
        let settings: Settings = toml::from_str(&examples).unwrap();
        assert!(!settings.services.is_empty() && !settings.handlers.is_empty());
    }
}
