//! What `mcpmon check` of many services costs, start-up included, beside a bare client that opens
//! them the same way.
//!
//! `one-shot [--services N] [--rounds N]` runs the release build of `mcpmon check` with a
//! configuration that names every service of a fleet, and `helper-once`, in turns, and prints the
//! median CPU of each and their ratio, then one JSON object.

use std::fmt::Write as _;
use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};

use mcpmon_benches::fleet::{FleetProcess, Speaks};
use mcpmon_benches::monitored::service_name;
use mcpmon_benches::spread::Spread;
use mcpmon_benches::{Failure, options, usage};
use serde_json::json;

/// As many as the monitor opens to one origin.
const CONNECTIONS: usize = 64;
/// How many times the floor's CPU ours may be.
const LIMIT: f64 = 3.0;

fn main() -> Result<(), Failure> {
    let [services, rounds] =
        options::numbers(std::env::args().skip(1), [("services", 2_000), ("rounds", 5)])?;
    let fleet = FleetProcess::start(services)?;
    let home = tempfile::tempdir()?;
    let config = home.path().join("mcpmon.toml");
    let mut text = String::new();
    for index in 0..services {
        let url = fleet.url(Speaks::Both, index);
        writeln!(text, "[services.{}]\nurl = \"{url}\"", service_name(index))?;
    }
    std::fs::write(&config, text)?;

    let (mut ours, mut bare) = (Vec::new(), Vec::new());
    for _ in 0..rounds {
        ours.push(cpu_of(&mut check(&config, home.path())?)?);
        bare.push(cpu_of(&mut once(&fleet, services)?)?);
    }
    let (ours, bare) = (Spread::of(ours).at(0.5), Spread::of(bare).at(0.5));
    let ratio = ours / bare;
    let mut out = std::io::stdout().lock();
    writeln!(
        out,
        "one check of {services} services: {ours:.2} s of CPU, bare {bare:.2} s, {ratio:.2} times \
         that (limit {LIMIT})"
    )?;
    let report = json!({
        "schema": "mcpmon/bench-one-shot/v1", "services": services, "rounds": rounds,
        "mcpmon_cpu_s": ours, "bare_cpu_s": bare, "ratio": ratio, "limit": LIMIT,
    });
    writeln!(out, "\n{report}")?;
    Ok(())
}

/// The monitor's one-shot check, with nothing of this user's about it.
fn check(config: &Path, home: &Path) -> Result<Command, Failure> {
    let mut command = beside("mcpmon")?;
    command
        .args(["check", "--output", "json", "--config"])
        .arg(config)
        .env("HOME", home)
        .env("XDG_CONFIG_HOME", home.join("config"))
        .env("XDG_STATE_HOME", home.join("state"));
    Ok(command)
}

fn once(fleet: &FleetProcess, services: usize) -> Result<Command, Failure> {
    let mut command = beside("helper-once")?;
    command.arg(fleet.address().to_string()).args([services.to_string(), CONNECTIONS.to_string()]);
    Ok(command)
}

fn beside(name: &str) -> Result<Command, Failure> {
    Ok(Command::new(std::env::current_exe()?.with_file_name(name)))
}

/// Runs a program and gives the CPU it used, in seconds.
fn cpu_of(command: &mut Command) -> Result<f64, Failure> {
    let before = usage::cpu_of_children()?;
    let done = command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .status()
        .map_err(|error| format!("cannot run {}: {error}", command.get_program().display()))?;
    if !done.success() {
        return Err(format!("{} failed: {done}", command.get_program().display()).into());
    }
    Ok(usage::cpu_of_children()?.saturating_sub(before).as_secs_f64())
}
