//! Why a process ended, read from its exit status and its last words.
//!
//! Package runners, interpreters and frameworks each have their own phrases for the same few
//! causes. They stand here as data, each with the cause it means; order settles what wins when
//! several fit, the most specific first. Pure, so every phrase met in the field is a row of a test.

use mcpmon_core::failure::FailureCode;
use mcpmon_core::text::{MAX_TEXT, truncate};

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
pub struct Diagnosis {
    /// The cause.
    pub code: FailureCode,
    /// What happened, in a lowercase fragment.
    pub message: String,
}

/// Phrases of a line, in lower case, all of which must be in it, and what they mean.
const PHRASES: &[(&[&str], FailureCode)] = &[
    // Package runners: npm and npx, uv and uvx, pip, docker, bun, dotnet.
    (&["npm", "404 not found"], FailureCode::PackageNotFound),
    (&["npm", "code e404"], FailureCode::PackageNotFound),
    (&["npm", "is not in this registry"], FailureCode::PackageNotFound),
    (&["npm", "code etarget"], FailureCode::PackageNotFound),
    (&["no matching version found for"], FailureCode::PackageNotFound),
    (&["was not found in the package registry"], FailureCode::PackageNotFound),
    (&["there is no version of"], FailureCode::PackageNotFound),
    (&["there are no versions of"], FailureCode::PackageNotFound),
    (&["no matching distribution found"], FailureCode::PackageNotFound),
    (&["could not find a version that satisfies"], FailureCode::PackageNotFound),
    (&["registry.npmjs.org", "- 404"], FailureCode::PackageNotFound),
    (&["pull access denied"], FailureCode::PackageNotFound),
    (&["manifest unknown"], FailureCode::PackageNotFound),
    (&["manifest for", "not found"], FailureCode::PackageNotFound),
    // Runtimes.
    (&["ebadengine", "error"], FailureCode::RuntimeUnsupported),
    (&["ebadplatform"], FailureCode::RuntimeUnsupported),
    (&["unsupported engine"], FailureCode::RuntimeUnsupported),
    (&["unsupported platform"], FailureCode::RuntimeUnsupported),
    (&["requires node"], FailureCode::RuntimeUnsupported),
    (&["node.js version", "required"], FailureCode::RuntimeUnsupported),
    (&["node", "or higher is required"], FailureCode::RuntimeUnsupported),
    (&["requires a different python"], FailureCode::RuntimeUnsupported),
    (&["python", "or higher is required"], FailureCode::RuntimeUnsupported),
    (&["python", "or newer is required"], FailureCode::RuntimeUnsupported),
    (&["requires python"], FailureCode::RuntimeUnsupported),
    (&["current python version", "does not satisfy"], FailureCode::RuntimeUnsupported),
    (&["no interpreter found for python"], FailureCode::RuntimeUnsupported),
    (&["unsupportedclassversionerror"], FailureCode::RuntimeUnsupported),
    (&["version `glibc_", "not found"], FailureCode::RuntimeUnsupported),
    (&["exec format error"], FailureCode::RuntimeUnsupported),
    (&["you must install or update .net"], FailureCode::RuntimeUnsupported),
    // Modules.
    (&["cannot find module"], FailureCode::MissingModule),
    (&["cannot find package"], FailureCode::MissingModule),
    (&["err_module_not_found"], FailureCode::MissingModule),
    (&["err_package_path_not_exported"], FailureCode::MissingModule),
    (&["does not provide an export named"], FailureCode::MissingModule),
    (&["modulenotfounderror"], FailureCode::MissingModule),
    (&["no module named"], FailureCode::MissingModule),
    (&["importerror:"], FailureCode::MissingModule),
    (&["can't open file", "no such file"], FailureCode::MissingModule),
    (&["error while loading shared libraries"], FailureCode::MissingModule),
    (&["cannot load such file"], FailureCode::MissingModule),
    (&["could not find or load main class"], FailureCode::MissingModule),
    (&["unable to access jarfile"], FailureCode::MissingModule),
    (&["module not found"], FailureCode::MissingModule),
];

/// Openings of a line, in lower case, that come with usage text.
const USAGE_STARTS: &[&str] = &["usage:", "usage ", "error: usage", "try '"];

/// Phrases that come with usage text.
const USAGE_PHRASES: &[&str] = &[
    "the following arguments are required",
    "the following required arguments were not provided",
    "the following required argument was not provided",
    "unrecognized arguments",
    "unrecognized option",
    "unexpected argument",
    "unknown option",
    "unknown command",
    "unknown argument",
    "missing required argument",
    "missing argument",
    "missing command",
    "required option",
    "requires a subcommand",
    "invalid choice:",
    "no such option",
    "too few arguments",
];

/// Reads the cause of an end.
pub fn diagnose(remains: &Remains<'_>) -> Diagnosis {
    let how = describe(remains.exit);
    if let Exit::Signal(signal) = remains.exit {
        return Diagnosis {
            code: FailureCode::KilledBySignal,
            message: format!("the process was killed by {}", signal_name(signal)),
        };
    }
    if remains.answered {
        return Diagnosis {
            code: FailureCode::Exited,
            message: format!("the process answered before, then exited {how}"),
        };
    }
    if let Some((code, line)) = cause_in(remains) {
        let line = truncate(line.trim(), MAX_TEXT);
        return Diagnosis { code, message: format!("exited {how}: {line}") };
    }
    let (code, message) = match remains.exit {
        Exit::Code(126) => (
            FailureCode::CommandNotExecutable,
            format!("a program it runs may not be executed ({how})"),
        ),
        Exit::Code(127) => {
            (FailureCode::CommandNotFound, format!("a program it runs was not found ({how})"))
        }
        // A shell or a runner reports its child's signal as 128 plus its number.
        Exit::Code(code @ (129 | 130 | 131 | 132 | 134..=137 | 139 | 141 | 143)) => (
            FailureCode::KilledBySignal,
            format!("the program it ran was killed by {} ({how})", signal_name(code - 128)),
        ),
        _ => {
            let last = last_words(remains)
                .map_or_else(|| ", saying nothing".to_owned(), |line| format!(": {line}"));
            (FailureCode::ExitedAtStart, format!("exited {how} before it answered{last}"))
        }
    };
    Diagnosis { code, message }
}

fn cause_in<'a>(remains: &Remains<'a>) -> Option<(FailureCode, &'a str)> {
    let lines = || remains.stderr.iter().chain(remains.stdout).map(String::as_str);
    for (phrases, code) in PHRASES {
        let fits = |line: &&str| {
            let line = line.to_lowercase();
            phrases.iter().all(|phrase| line.contains(phrase))
        };
        if let Some(line) = lines().find(fits) {
            return Some((*code, line));
        }
    }
    if remains.exit == Exit::Code(127)
        && let Some(line) = lines().find(|line| line.contains("not found"))
    {
        return Some((FailureCode::CommandNotFound, line));
    }
    if let Some(line) = lines().find(|line| missing_credential(line).is_some()) {
        return Some((FailureCode::MissingCredential, line));
    }
    let is_usage = |line: &&str| {
        let line = line.trim_start().to_lowercase();
        USAGE_STARTS.iter().any(|start| line.starts_with(start))
            || USAGE_PHRASES.iter().any(|phrase| line.contains(phrase))
    };
    lines().find(is_usage).map(|line| (FailureCode::UsageError, line))
}

/// The last line that says something, for when no phrase is known.
fn last_words(remains: &Remains<'_>) -> Option<String> {
    let lines = remains.stderr.iter().rev().chain(remains.stdout.iter().rev());
    // Traces and banners say less than the line with the error's name.
    let telling = |line: &&String| {
        let lower = line.to_lowercase();
        lower.contains("error") || lower.contains("exception") || lower.contains("panicked")
    };
    lines
        .clone()
        .find(telling)
        .or_else(|| lines.clone().find(|line| line.chars().any(char::is_alphanumeric)))
        .map(|line| truncate(line.trim(), MAX_TEXT))
}

const WANTING: &[&str] = &[
    "required",
    "not set",
    "must be set",
    "must set",
    "must be provided",
    "must provide",
    "not provided",
    "please set",
    "please provide",
    "is missing",
    "missing",
    "not found",
    "not defined",
    "undefined",
    "is empty",
    "not configured",
    "no default",
    "keyerror:",
    "set the",
];

const CREDENTIALS: &[&str] = &[
    "api key",
    "api-key",
    "apikey",
    "api token",
    "access token",
    "access-token",
    "auth token",
    "personal access token",
    "bearer token",
    "client secret",
    "credentials",
    "environment variable",
    "password",
];

/// Parts of a variable's name that make it a credential even without a word of wanting it.
const NAME_PARTS: &[&str] =
    &["KEY", "TOKEN", "SECRET", "PASSWORD", "CREDENTIAL", "API", "AUTH", "PAT", "USER", "URL"];

/// The key, token or variable a text says is wanted, if it says so.
pub fn missing_credential(text: &str) -> Option<String> {
    let lower = text.to_lowercase();
    if !WANTING.iter().any(|word| lower.contains(word)) {
        return None;
    }
    if let Some(name) = variable_names(text).find(|name| {
        let is_key = name.split('_').any(|part| NAME_PARTS.contains(&part));
        is_key || lower.contains("environment variable") || lower.contains("env var")
    }) {
        return Some(name.to_owned());
    }
    CREDENTIALS.iter().find(|word| lower.contains(**word)).map(|word| (*word).to_owned())
}

/// Words such as `GITHUB_TOKEN`: capitals, digits and underscores, with an underscore in them.
fn variable_names(text: &str) -> impl Iterator<Item = &str> {
    text.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_')).filter(|word| {
        word.len() >= 4
            && word.contains('_')
            && word.starts_with(|c: char| c.is_ascii_uppercase())
            && word.chars().all(|c| c.is_ascii_uppercase() || c.is_ascii_digit() || c == '_')
            && !word.starts_with("ERR_")
    })
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
mod tests {
    use FailureCode as F;

    use super::*;

    #[track_caller]
    fn check(exit: Exit, stderr: &str, expected: F) {
        let stderr: Vec<String> = stderr.lines().map(str::to_owned).collect();
        let remains = Remains { exit, stderr: &stderr, stdout: &[], answered: false };
        let found = diagnose(&remains);
        assert_eq!(found.code, expected, "{exit:?} {stderr:?} gave {found:?}");
        assert!(!found.message.is_empty() && !found.message.contains('\n'));
    }

    #[test]
    fn last_words_name_the_cause() {
        let cases = [
            (
                "npm error code E404\nnpm error 404 Not Found - GET https://registry.npmjs.org/nope - Not found",
                F::PackageNotFound,
            ),
            (
                "npm ERR! code ETARGET\nnpm ERR! notarget No matching version found for x@99.",
                F::PackageNotFound,
            ),
            (
                "  \u{d7} No solution found when resolving tool dependencies:\n  \u{2570}\u{2500}\u{25b6} Because nope was not found in the package registry and you require nope, we can conclude",
                F::PackageNotFound,
            ),
            ("ERROR: No matching distribution found for nope==3", F::PackageNotFound),
            ("docker: Error response from daemon: pull access denied for nope", F::PackageNotFound),
            ("npm error code EBADENGINE", F::RuntimeUnsupported),
            (
                "ERROR: Package 'x' requires a different Python: 3.8.1 not in '>=3.10'",
                F::RuntimeUnsupported,
            ),
            ("This server requires Node.js 20 or newer", F::RuntimeUnsupported),
            ("./srv: /lib/libc.so.6: version `GLIBC_2.38' not found", F::RuntimeUnsupported),
            (
                "node:internal/modules/cjs/loader:1228\n  throw err;\nError: Cannot find module '/srv/index.js'",
                F::MissingModule,
            ),
            (
                "Error [ERR_MODULE_NOT_FOUND]: Cannot find package 'zod' imported from /srv/a.js",
                F::MissingModule,
            ),
            (
                "Traceback (most recent call last):\nModuleNotFoundError: No module named 'mcp'",
                F::MissingModule,
            ),
            ("/usr/bin/python3: No module named nope", F::MissingModule),
            ("ImportError: cannot import name 'FastMCP' from 'mcp'", F::MissingModule),
            (
                "python3: can't open file '/x/server.py': [Errno 2] No such file or directory",
                F::MissingModule,
            ),
            (
                "./srv: error while loading shared libraries: libfoo.so.1: cannot open",
                F::MissingModule,
            ),
            (
                "Error: GITHUB_PERSONAL_ACCESS_TOKEN environment variable is not set",
                F::MissingCredential,
            ),
            (
                "Please set SLACK_BOT_TOKEN and SLACK_TEAM_ID environment variables",
                F::MissingCredential,
            ),
            ("KeyError: 'OPENAI_API_KEY'", F::MissingCredential),
            ("Missing required API key", F::MissingCredential),
            (
                "error: the following required arguments were not provided:\n  --api-key <KEY>",
                F::UsageError,
            ),
            (
                "Usage: mcp-server-filesystem [allowed-directory] [additional-directories...]",
                F::UsageError,
            ),
            (
                "usage: server [-h] --repo REPO\nserver: error: the following arguments are required: --repo",
                F::UsageError,
            ),
            ("TypeError: x is not a function", F::ExitedAtStart),
            ("", F::ExitedAtStart),
        ];
        for (stderr, expected) in cases {
            check(Exit::Code(1), stderr, expected);
        }
    }

    #[test]
    fn the_exit_status_speaks_where_words_do_not() {
        check(Exit::Code(0), "", F::ExitedAtStart);
        check(Exit::Code(127), "sh: 1: nope: not found", F::CommandNotFound);
        check(Exit::Code(127), "", F::CommandNotFound);
        check(Exit::Code(126), "", F::CommandNotExecutable);
        check(Exit::Code(137), "", F::KilledBySignal);
        check(Exit::Signal(9), "ModuleNotFoundError: x", F::KilledBySignal);
        check(Exit::Unknown, "", F::ExitedAtStart);
    }

    #[test]
    fn a_process_that_had_answered_has_exited_whatever_it_printed() {
        let stderr = ["Usage: x".to_owned()];
        let remains = Remains { exit: Exit::Code(3), stderr: &stderr, stdout: &[], answered: true };
        let found = diagnose(&remains);
        assert_eq!(found.code, F::Exited);
        assert!(found.message.contains("status 3"));
    }

    #[test]
    fn usage_on_standard_output_counts_too() {
        let stdout = ["Usage: tool <command>".to_owned()];
        let remains =
            Remains { exit: Exit::Code(2), stderr: &[], stdout: &stdout, answered: false };
        assert_eq!(diagnose(&remains).code, F::UsageError);
    }

    #[test]
    fn the_error_is_quoted_rather_than_the_trace() {
        let stderr: Vec<String> =
            ["ValueError: bad thing", "    at frame", "Node.js v22"].map(str::to_owned).to_vec();
        let remains =
            Remains { exit: Exit::Code(1), stderr: &stderr, stdout: &[], answered: false };
        assert!(diagnose(&remains).message.ends_with("ValueError: bad thing"));
    }

    #[test]
    fn credentials_are_named() {
        let cases = [
            ("GITHUB_TOKEN is not set", Some("GITHUB_TOKEN")),
            ("an API key is required", Some("api key")),
            ("FOO_BAR environment variable is required", Some("FOO_BAR")),
            ("listening on MY_SOCKET", None),
            ("tool not found", None),
            ("ERR_MODULE_NOT_FOUND missing", None),
        ];
        for (text, expected) in cases {
            assert_eq!(missing_credential(text).as_deref(), expected, "{text}");
        }
    }
}
