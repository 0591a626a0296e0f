//! Why a process ended, read from its exit status and its last words.
//!
//! Package runners, interpreters and frameworks each have their own phrases for the same few
//! causes. They stand as data in `clues`, each with the cause it means; `credentials` reads the
//! many ways to ask for a key, `names` cuts out what is missing. Pure, so every phrase met in the
//! field is a row of a test. Only a process that ended before it answered is read at all: what a
//! server that works writes to its standard error says nothing about it.

mod clues;
mod credentials;
mod names;

use mcpmon_core::failure::FailureCode;
use mcpmon_core::text::{MAX_TEXT, truncate};

use self::clues::{CLUES, HINTS, USAGE_PHRASES, USAGE_STARTS};
pub use self::credentials::{Wanted, missing_credential};
use self::names::Names;

/// How a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// With this exit status.
    Code(i32),
    /// By this signal.
    Signal(i32),
    /// It cannot be known.
    Unknown,
}

/// What is known of a process that ended.
#[derive(Debug, Clone, Copy)]
pub struct Remains<'a> {
    /// How it ended.
    pub exit: Exit,
    /// Its last lines on standard error.
    pub stderr: &'a [String],
    /// Lines on standard output that were no messages.
    pub stdout: &'a [String],
    /// Whether it had answered anything.
    pub answered: bool,
}

/// The cause, and the words for it.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Diagnosis {
    /// The cause.
    pub code: FailureCode,
    /// What happened, in a lowercase fragment.
    pub message: String,
    /// What is missing or wrong, by its name, and the key it is kept under as evidence: `module`,
    /// `package`, `variable`, `command`, `required`, …
    pub subject: Option<(&'static str, String)>,
    /// What to do, where more is known than the code says.
    pub advice: Option<String>,
}

impl Diagnosis {
    fn new(code: FailureCode, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), subject: None, advice: None }
    }

    /// The same, naming what is missing, and what to do about that.
    fn about(mut self, key: &'static str, name: Option<String>) -> Self {
        if let Some(name) = name {
            self.advice = advice(self.code, &name).or(self.advice);
            self.subject = Some((key, name));
        }
        self
    }
}

/// The next step where the thing has a name.
fn advice(code: FailureCode, name: &str) -> Option<String> {
    match code {
        FailureCode::MissingModule => {
            Some(format!("install or restore `{name}` in the environment the server runs in"))
        }
        FailureCode::PackageNotFound => {
            Some(format!("check the name and version of `{name}` in `args`"))
        }
        FailureCode::MissingCredential => Some(format!("set `{name}` in the service's `env`")),
        FailureCode::CommandNotFound => {
            Some(format!("install `{name}`, or set `PATH` in the service's `env`"))
        }
        _ => None,
    }
}

/// Reads the cause of an end.
pub fn diagnose(remains: &Remains<'_>) -> Diagnosis {
    let how = describe(remains.exit);
    if let Exit::Signal(signal) = remains.exit {
        let message = format!("the process was killed by {}", signal_name(signal));
        return Diagnosis::new(FailureCode::KilledBySignal, message);
    }
    if remains.answered {
        let message = format!("the process answered before, then exited {how}");
        return Diagnosis::new(FailureCode::Exited, message);
    }
    if let Some(found) = cause(remains) {
        let message = format!("exited {how}: {}", found.message);
        return Diagnosis { message, ..found };
    }
    match remains.exit {
        Exit::Code(126) => Diagnosis::new(
            FailureCode::CommandNotExecutable,
            format!("a program it runs may not be executed ({how})"),
        ),
        Exit::Code(127) => Diagnosis::new(
            FailureCode::CommandNotFound,
            format!("a program it runs was not found ({how})"),
        ),
        // A shell or a runner reports its child's signal as 128 plus its number.
        Exit::Code(code @ (129 | 130 | 131 | 132 | 134..=137 | 139 | 141 | 143)) => Diagnosis::new(
            FailureCode::KilledBySignal,
            format!("the program it ran was killed by {} ({how})", signal_name(code - 128)),
        ),
        _ => {
            let last = last_words(remains)
                .map_or_else(|| ", saying nothing".to_owned(), |line| format!(": {line}"));
            let message = format!("exited {how} before it answered{last}");
            let found = Diagnosis::new(FailureCode::ExitedAtStart, message);
            Diagnosis { advice: hint(remains).map(str::to_owned), ..found }
        }
    }
}

/// The cause that is read from the words, with the line that gives it away as its message.
///
/// Warnings are read only where nothing louder was said: package runners warn of engines and
/// optional modules before a server that works, and before one that fails for another reason.
fn cause(remains: &Remains<'_>) -> Option<Diagnosis> {
    let lines: Vec<&str> =
        remains.stderr.iter().chain(remains.stdout).map(String::as_str).collect();
    let (asides, said): (Vec<&str>, Vec<&str>) = lines.into_iter().partition(|line| is_aside(line));
    let found = cause_in(&said, remains.exit);
    if found.is_none() && !said.iter().any(|line| is_telling(line)) {
        return cause_in(&asides, remains.exit);
    }
    found
}

fn cause_in(lines: &[&str], exit: Exit) -> Option<Diagnosis> {
    clue_in(lines)
        .or_else(|| missing_program(lines, exit))
        .or_else(|| credential_in(lines))
        .or_else(|| {
            let line = lines.iter().find(|line| is_usage(line))?;
            Some(Diagnosis::new(FailureCode::UsageError, quote(line)))
        })
}

fn clue_in(lines: &[&str]) -> Option<Diagnosis> {
    let lowered: Vec<String> = lines.iter().map(|line| line.to_lowercase()).collect();
    CLUES.iter().find_map(|clue| {
        let fits = |lower: &String| clue.phrases.iter().all(|phrase| lower.contains(phrase));
        let line = lines[lowered.iter().position(fits)?];
        let mut found = Diagnosis::new(clue.code, quote(line));
        if let Some((key, names)) = clue.names {
            found = found.about(key, names.find(line));
        }
        found.advice = clue.advice.map(str::to_owned).or(found.advice);
        Some(found)
    })
}

/// What a shell, a package runner or `env` says of a program that is not there.
fn missing_program(lines: &[&str], exit: Exit) -> Option<Diagnosis> {
    let of_shell = |line: &&&str| line.contains(": command not found");
    let of_status = |line: &&&str| {
        let lower = line.to_lowercase();
        lower.contains("not found") || lower.contains("no such file or directory")
    };
    let line = match exit {
        Exit::Code(127) => lines.iter().find(of_shell).or_else(|| lines.iter().find(of_status))?,
        _ => lines.iter().find(of_shell)?,
    };
    let before =
        [": command not found", ": not found", ": executable file not found", ": no such file"];
    let name = before.into_iter().find_map(|phrase| Names::Before(phrase).find(line));
    Some(Diagnosis::new(FailureCode::CommandNotFound, quote(line)).about("command", name))
}

fn credential_in(lines: &[&str]) -> Option<Diagnosis> {
    let (line, wanted) = lines
        .iter()
        .find_map(|line| Some((*line, missing_credential(line)?)))
        .or_else(|| Some((*lines.first()?, credentials::wanted_setting(lines)?)))?;
    let found = Diagnosis::new(FailureCode::MissingCredential, quote(line));
    Some(match wanted {
        Wanted::Variable(name) if !line.contains(&name) => {
            let message = format!("the setting {name} is required");
            Diagnosis { message, ..found }.about("variable", Some(name))
        }
        Wanted::Variable(name) => found.about("variable", Some(name)),
        Wanted::Word(_) => found,
    })
}

fn is_usage(line: &str) -> bool {
    let line = line.trim_start().to_lowercase();
    USAGE_STARTS.iter().any(|start| line.starts_with(start))
        || USAGE_PHRASES.iter().any(|phrase| line.contains(phrase))
}

/// Whether a line says itself that it is not why anything ended.
fn is_aside(line: &str) -> bool {
    const OPENINGS: &[&str] = &[
        "warning",
        "warn",
        "info",
        "debug",
        "trace",
        "hint:",
        "note:",
        "npm warn",
        "npm notice",
        "deprecat",
        "[warn",
        "[info",
        "[debug",
        "- warning",
        "- info",
    ];
    const INSIDE: &[&str] = &[
        "deprecationwarning",
        "experimentalwarning",
        "userwarning:",
        " - info - ",
        " - warning - ",
        " - debug - ",
        "[info]",
        "[warn]",
        "[warning]",
        "level=info",
        "level=warn",
        "level=debug",
        "\"level\":\"info\"",
        "\"level\":\"warn\"",
    ];
    // Loggers shout their levels; in lower case the words are ordinary.
    const SHOUTED: &[&str] = &[" INFO ", " WARN ", " WARNING ", " DEBUG "];
    if SHOUTED.iter().any(|level| line.contains(level)) {
        return true;
    }
    let lower = line.trim_start().to_lowercase();
    OPENINGS.iter().any(|opening| lower.starts_with(opening))
        || INSIDE.iter().any(|inside| lower.contains(inside))
}

/// Whether a line names an error rather than where it came from.
fn is_telling(line: &str) -> bool {
    let lower = line.to_lowercase();
    lower.contains("error") || lower.contains("exception") || lower.contains("panic")
}

fn hint(remains: &Remains<'_>) -> Option<&'static str> {
    remains.stderr.iter().chain(remains.stdout).find_map(|line| {
        let lower = line.to_lowercase();
        let fits = |phrases: &[&str]| phrases.iter().all(|phrase| lower.contains(phrase));
        HINTS.iter().find(|(phrases, _)| fits(phrases)).map(|(_, advice)| *advice)
    })
}

fn quote(line: &str) -> String {
    truncate(line.trim(), MAX_TEXT)
}

/// The last line that says something, for when no phrase is known.
fn last_words(remains: &Remains<'_>) -> Option<String> {
    let lines = remains.stderr.iter().rev().chain(remains.stdout.iter().rev());
    // Traces and banners say less than the line with the error's name; Go and Rust put what
    // happened into the first line of their panic.
    let telling = |line: &&String| is_telling(line) && !is_aside(line);
    let words = |line: &&String| line.chars().any(char::is_alphanumeric);
    let panic = remains.stderr.iter().position(|line| line.contains("panicked at"));
    let of_rust = panic.and_then(|at| remains.stderr.get(at + 1)).filter(words);
    of_rust
        .or_else(|| remains.stderr.iter().find(|line| line.starts_with("panic: ")))
        .or_else(|| lines.clone().find(telling))
        .or_else(|| lines.clone().find(words))
        .map(|line| quote(line))
}

fn describe(exit: Exit) -> String {
    match exit {
        Exit::Code(code) => format!("with status {code}"),
        Exit::Signal(signal) => format!("by {}", signal_name(signal)),
        Exit::Unknown => "in a way that could not be read".to_owned(),
    }
}

/// A signal's name, `SIGKILL` for 9.
pub fn signal_name(signal: i32) -> String {
    let name = match signal {
        1 => "SIGHUP",
        2 => "SIGINT",
        3 => "SIGQUIT",
        4 => "SIGILL",
        5 => "SIGTRAP",
        6 => "SIGABRT",
        7 => "SIGBUS",
        8 => "SIGFPE",
        9 => "SIGKILL",
        10 => "SIGUSR1",
        11 => "SIGSEGV",
        12 => "SIGUSR2",
        13 => "SIGPIPE",
        14 => "SIGALRM",
        15 => "SIGTERM",
        24 => "SIGXCPU",
        25 => "SIGXFSZ",
        31 => "SIGSYS",
        other => return format!("signal {other}"),
    };
    name.to_owned()
}

#[cfg(test)]
mod tests;
