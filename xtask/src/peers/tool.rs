//! Finding the programs that install peers, running them, and remembering what they did.

use std::ffi::OsStr;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail};

use super::Place;

/// How often a command is tried that talks to a registry.
const ATTEMPTS: usize = 2;
/// pip names every version there is.
const LONGEST_REASON: usize = 240;

/// Finds a program: what `variable` names, else the first of `names` on PATH, as an absolute path.
///
/// # Errors
///
/// If there is none; `hint` says what to install.
pub(super) fn find(variable: &str, names: &[&str], hint: &str) -> Result<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    if let Some(named) = std::env::var(variable).ok().filter(|named| !named.is_empty()) {
        return find_on(&path, &[&named])
            .with_context(|| format!("{variable} names `{named}`, which is not there"));
    }
    find_on(&path, names).with_context(|| {
        format!("`{}` is not on PATH; {hint}, or set {variable}", names.join("` or `"))
    })
}

/// A name that is a path already comes back as it is, from any folder.
fn find_on(path: &OsStr, names: &[&str]) -> Option<PathBuf> {
    names.iter().find_map(|name| {
        std::env::split_paths(path)
            .filter(|folder| folder.is_absolute())
            .map(|folder| folder.join(name))
            .find(|program| program.is_file())
    })
}

/// The first line a command prints, for versions.
pub(super) fn first_line(command: &mut Command) -> Result<String> {
    let shown = shown(command);
    let output = command
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("`{shown}` could not be started"))?;
    if !output.status.success() {
        bail!("`{shown}` failed: {}", telling_line(&String::from_utf8_lossy(&output.stderr)));
    }
    let line = String::from_utf8_lossy(&output.stdout);
    Ok(line.lines().next().unwrap_or_default().trim().to_owned())
}

/// Runs a command with its output in `logs/NAME.log`, twice if need be: registries have bad
/// moments.
///
/// # Errors
///
/// The last thing the command said, and where the rest stands.
pub(super) fn run(place: &Place, name: &str, mut make: impl FnMut() -> Command) -> Result<()> {
    let path = place.into.join("logs").join(format!("{name}.log"));
    let shown = shown(&make());
    let mut outcome = Ok(());
    for _ in 0..ATTEMPTS {
        outcome = run_once(&path, &shown, make());
        if outcome.is_ok() {
            break;
        }
    }
    outcome
}

fn run_once(path: &Path, shown: &str, mut command: Command) -> Result<()> {
    let log = File::create(path).with_context(|| format!("cannot create `{}`", path.display()))?;
    let status = command
        .stdin(Stdio::null())
        .stdout(log.try_clone().context("cannot share the log")?)
        .stderr(log)
        .status()
        .with_context(|| format!("`{shown}` could not be started"))?;
    if status.success() {
        return Ok(());
    }
    let text = std::fs::read(path).unwrap_or_default();
    bail!(
        "`{shown}` failed: {} (all of it: target/peers/logs/{})",
        telling_line(&String::from_utf8_lossy(&text)),
        path.file_name().unwrap_or_default().display()
    );
}

/// Program and verb, without paths and options: enough to know what failed.
fn shown(command: &Command) -> String {
    let program = Path::new(command.get_program()).file_name().unwrap_or_default();
    let words = command.get_args().map(OsStr::to_string_lossy);
    let words = words.filter(|word| word.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-'));
    std::iter::once(program.to_string_lossy()).chain(words.take(3)).collect::<Vec<_>>().join(" ")
}

/// The line that tells most: the first that speaks of an error, else the last. What follows the
/// first is what follows *from* it.
fn telling_line(text: &str) -> String {
    let lines = || text.lines().map(str::trim).filter(|line| !line.is_empty());
    let line = lines()
        .find(|line| line.to_ascii_lowercase().contains("error"))
        .or_else(|| lines().next_back())
        .unwrap_or("it said nothing");
    line.chars().take(LONGEST_REASON).collect()
}

/// What a batch was made from, kept beside it; equal text means there is nothing to do.
#[derive(Debug)]
pub(super) struct Stamp {
    path: PathBuf,
    text: String,
}

impl Stamp {
    /// `made_from` is everything that makes a difference: manifests, versions, the folder itself.
    pub(super) fn new(folder: &Path, made_from: &[&str]) -> Self {
        let mut text = format!("{}\n", folder.display());
        for part in made_from {
            text.push_str(part.trim_end());
            text.push('\n');
        }
        Self { path: folder.join("stamp"), text }
    }

    /// Whether the folder was finished from just this.
    pub(super) fn holds(&self) -> bool {
        std::fs::read_to_string(&self.path).is_ok_and(|text| text == self.text)
    }

    /// Takes the old word back before the folder changes.
    pub(super) fn break_seal(&self) -> Result<()> {
        match std::fs::remove_file(&self.path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(error).with_context(|| format!("cannot remove `{}`", self.path.display()))
            }
            _ => Ok(()),
        }
    }

    /// Gives the word that the folder is whole.
    pub(super) fn seal(&self) -> Result<()> {
        std::fs::write(&self.path, &self.text)
            .with_context(|| format!("cannot write `{}`", self.path.display()))
    }
}

/// Reads a manifest of ours.
pub(super) fn read(path: &Path) -> Result<String> {
    std::fs::read_to_string(path).with_context(|| format!("cannot read `{}`", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_program_says_what_to_install() {
        let error =
            find("MCPMON_NO_SUCH_VARIABLE", &["no-such-program"], "install it").unwrap_err();
        assert_eq!(
            error.to_string(),
            "`no-such-program` is not on PATH; install it, or set MCPMON_NO_SUCH_VARIABLE"
        );
    }

    #[test]
    fn the_first_error_tells_more_than_what_follows() {
        let text = "Collecting x\nnpm error code ENOTFOUND\nnpm error A log of this run is there\n";
        assert_eq!(telling_line(text), "npm error code ENOTFOUND");
        assert_eq!(telling_line("one\ntwo\n"), "two");
        assert_eq!(telling_line(""), "it said nothing");
        assert_eq!(telling_line(&"an error ".repeat(100)).len(), LONGEST_REASON);
    }

    #[test]
    fn a_command_is_shown_without_its_paths() {
        let mut command = Command::new("/somewhere/bin/npm");
        command.args(["ci", "--cache", "/somewhere/cache", "--ignore-scripts"]);
        assert_eq!(shown(&command), "npm ci --cache --ignore-scripts");
    }
}
