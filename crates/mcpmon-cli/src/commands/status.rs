//! `mcpmon status`: the dashboard in text, read from the history.

use std::time::Duration;

use jiff::tz::TimeZone;
use mcpmon_core::contract::StatusReport;
use mcpmon_core::monitor::Snapshot;
use mcpmon_core::window::DEFAULT_WINDOW;
use mcpmon_core::{Clock as _, SystemClock};

use super::Form;
use super::archive::Archive;
use super::handlers::backlog::say_given_up;
use crate::exit::{CliError, Exit};
use crate::history;
use crate::moment;
use crate::output::{Output, StatusOptions, json_line, render_status_with};
use crate::paths::Paths;

/// Shows the services, their numbers and the latest alerts.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Add the machine: CPU, memory, disks, network.
    #[arg(long)]
    host: bool,
    /// Show it again and again, every 2 s if no interval is given.
    #[arg(long, value_name = "INTERVAL", num_args = 0..=1, default_missing_value = "2s",
          value_parser = moment::interval)]
    watch: Option<Duration>,
    /// How to answer; with --watch, `json` gives one object a line.
    #[arg(long, value_enum, default_value_t)]
    output: Form,
}

pub(crate) async fn run(args: &Args, paths: &Paths, output: &Output) -> Result<Exit, CliError> {
    let archive = Archive::open(&paths.database())?;
    let Some(interval) = args.watch else {
        let snapshot = read(&archive).await?;
        match args.output {
            Form::Json => output.json(&StatusReport::new(&snapshot, DEFAULT_WINDOW)),
            Form::Table => {
                output.text(&page(args, &snapshot, output));
                say_given_up(&archive).await;
            }
        }
        return Ok(Exit::Ok);
    };
    let mut ticks = tokio::time::interval(interval);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Skip);
    while !output.is_closed() {
        ticks.tick().await;
        let snapshot = read(&archive).await?;
        match args.output {
            Form::Json => output.text(&json_line(&StatusReport::new(&snapshot, DEFAULT_WINDOW))),
            // Home, then clear below, where the terminal takes such words: what stays the same does
            // not flicker.
            Form::Table if output.is_terminal() && output.look().colour => {
                output.text(&format!("\x1b[H\x1b[J{}", page(args, &snapshot, output)));
            }
            Form::Table => output.text(&format!("{}\n", page(args, &snapshot, output))),
        }
    }
    Ok(Exit::Ok)
}

async fn read(archive: &Archive) -> Result<Snapshot, CliError> {
    let now = SystemClock.now();
    Ok(history::snapshot(archive.any(), archive.monitor(), now).await?)
}

fn page(args: &Args, snapshot: &Snapshot, output: &Output) -> String {
    let options = StatusOptions {
        host: args.host,
        width: output.width(),
        look: output.look(),
        zone: TimeZone::system(),
    };
    let mut page = Vec::new();
    // Writing into memory does not fail.
    let _ = render_status_with(snapshot, &options, &mut page);
    String::from_utf8_lossy(&page).into_owned()
}
