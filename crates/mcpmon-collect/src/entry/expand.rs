//! Fills in `${VAR}` and its relatives, in each client's own notation.
//!
//! What a client would not fill in stays as it is, because the client passes it on as it is. What
//! it would fill in but we cannot (an unset variable, a question to its user) is a [`Trouble`],
//! never an empty string: a server that starts with an empty token fails in ways that mislead.

use std::cell::Cell;
use std::path::{MAIN_SEPARATOR_STR, Path};

use mcpmon_core::Secret;

use crate::environment::Variables;

/// Most bytes that may be filled in while one file is read: `${PATH}` a million times over must
/// not cost a gigabyte.
const MOST_FILLED_IN: usize = 8 << 20;

/// Variables every program sees and none keeps secret. Redacting their values would blind the
/// evidence: a home directory stands in half of all messages.
const PUBLIC_VARIABLES: [&str; 18] = [
    "APPDATA",
    "HOME",
    "HOSTNAME",
    "LANG",
    "LOCALAPPDATA",
    "LOGNAME",
    "PATH",
    "PROGRAMFILES",
    "PWD",
    "SHELL",
    "TEMP",
    "TMP",
    "TMPDIR",
    "USER",
    "USERNAME",
    "USERPROFILE",
    "XDG_CONFIG_HOME",
    "XDG_DATA_HOME",
];

/// Which notation is filled in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Syntax {
    /// None: Claude Desktop, Zed, Codex.
    Literal,
    /// Our own file: `${VAR}`, `${VAR:-default}`, `${env:VAR}`; `$${` is a literal `${`.
    Own,
    /// A file of an unknown client: as our own, and what is no variable stays.
    Unknown,
    /// Claude Code: `${VAR}`, `${VAR:-default}`.
    ClaudeCode,
    /// Cursor, VS Code and its relatives: `${env:VAR}`, `${userHome}`, `${workspaceFolder}`, …
    Editor,
    /// Windsurf: `${env:VAR}`, `${file:/path}`.
    Windsurf,
    /// Gemini CLI: `$VAR`, `${VAR}`.
    Gemini,
    /// opencode: `{env:VAR}`, `{file:path}`.
    OpenCode,
}

/// What text can refer to.
pub(crate) struct Surroundings<'a> {
    pub(crate) vars: &'a Variables,
    pub(crate) home: Option<&'a Path>,
    /// The project's folder; relative paths are below it.
    pub(crate) folder: &'a Path,
    /// Reads a file of the entry's own, capped.
    pub(crate) read: &'a dyn Fn(&Path) -> Result<String, String>,
    /// Bytes filled in so far, over all entries of one file.
    pub(crate) filled_in: Cell<usize>,
}

/// Why something could not be filled in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Trouble {
    /// The variable that is not set.
    pub(crate) variable: Option<String>,
    /// What is wrong, a lowercase fragment.
    pub(crate) message: String,
    /// What to do about it, where more is known than "correct the entry".
    pub(crate) next_step: Option<String>,
}

impl Trouble {
    pub(crate) fn new(message: impl Into<String>) -> Self {
        Self { variable: None, message: message.into(), next_step: None }
    }

    pub(crate) fn unset(variable: &str) -> Self {
        Self {
            variable: Some(variable.to_owned()),
            message: format!("variable `{variable}` is not set"),
            next_step: Some(format!(
                "set {variable} in the environment mcpmon runs in, then reload"
            )),
        }
    }
}

/// What stands for one reference.
enum Meaning<'a> {
    /// Not a reference in this notation.
    Text,
    Variable(&'a str),
    VariableOr(&'a str, &'a str),
    File(&'a str),
    Known(String),
    Unavailable(Trouble),
}

/// Fills in every reference in `text`; values that came from outside are added to `secrets`.
pub(crate) fn expand(
    text: &str,
    syntax: Syntax,
    around: &Surroundings<'_>,
    secrets: &mut Vec<Secret>,
) -> Result<String, Trouble> {
    if syntax == Syntax::Literal {
        return Ok(text.to_owned());
    }
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find(['$', '{']) {
        out.push_str(&rest[..at]);
        rest = &rest[at..];
        let (length, meaning) = reference(rest, syntax, around);
        match meaning {
            Meaning::Text => out.push_str(&rest[..length]),
            Meaning::Known(value) => out.push_str(&value),
            Meaning::Unavailable(trouble) => return Err(trouble),
            Meaning::File(path) => out.push_str(file(path, around, secrets)?.expose()),
            Meaning::Variable(name) => {
                let value = around.vars.get(name).ok_or_else(|| Trouble::unset(name))?;
                out.push_str(fill_in(name, value, around, secrets)?);
            }
            // As in a shell: a variable that is set but empty counts as not set.
            Meaning::VariableOr(name, default) => match around.vars.get(name) {
                Some(value) if !value.is_empty() => {
                    out.push_str(fill_in(name, value, around, secrets)?);
                }
                _ => out.push_str(default),
            },
        }
        rest = &rest[length..];
    }
    out.push_str(rest);
    Ok(out)
}

/// What `text`, which begins with `$` or `{`, begins with: its length in bytes and its meaning.
fn reference<'a>(text: &'a str, syntax: Syntax, around: &Surroundings<'_>) -> (usize, Meaning<'a>) {
    if syntax == Syntax::OpenCode {
        let Some(inner) = text.strip_prefix('{').and_then(|rest| rest.split('}').next()) else {
            return (1, Meaning::Text);
        };
        if inner.len() + 2 > text.len() {
            return (1, Meaning::Text);
        }
        return match inner.split_once(':') {
            Some(("env", name)) if is_name(name) => (inner.len() + 2, Meaning::Variable(name)),
            Some(("file", path)) => (inner.len() + 2, Meaning::File(path)),
            _ => (1, Meaning::Text),
        };
    }
    if syntax == Syntax::Own && text.starts_with("$${") {
        return (3, Meaning::Known("${".to_owned()));
    }
    if let Some(inner) = text.strip_prefix("${") {
        let Some(end) = inner.find('}') else {
            return (2, Meaning::Text);
        };
        let length = end + 3;
        return match braced(&inner[..end], syntax, around) {
            Meaning::Text => (2, Meaning::Text),
            meaning => (length, meaning),
        };
    }
    if syntax == Syntax::Gemini
        && let Some(name) = text.strip_prefix('$')
    {
        let length = name.bytes().take_while(|byte| is_name_byte(*byte)).count();
        if is_name(&name[..length]) {
            return (length + 1, Meaning::Variable(&name[..length]));
        }
    }
    (1, Meaning::Text)
}

/// What `${inner}` means.
fn braced<'a>(inner: &'a str, syntax: Syntax, around: &Surroundings<'_>) -> Meaning<'a> {
    use Syntax::{ClaudeCode, Editor, Gemini, Own, Unknown, Windsurf};
    if matches!(syntax, Own | Unknown | ClaudeCode | Gemini) && is_name(inner) {
        return Meaning::Variable(inner);
    }
    if matches!(syntax, Own | Unknown | ClaudeCode)
        && let Some((name, default)) = inner.split_once(":-")
        && is_name(name)
    {
        return Meaning::VariableOr(name, default);
    }
    match inner.split_once(':') {
        Some(("env", name)) if matches!(syntax, Own | Unknown | Editor | Windsurf) => {
            return Meaning::Variable(name);
        }
        Some(("file", path)) if syntax == Windsurf => return Meaning::File(path),
        Some(("input" | "command" | "config", _)) if matches!(syntax, Editor | Unknown) => {
            return Meaning::Unavailable(asked_by_the_client(inner));
        }
        _ => {}
    }
    match syntax {
        Editor => predefined(inner, around),
        Own => Meaning::Unavailable(Trouble::new(format!(
            "`${{{inner}}}` is not a variable (a literal `${{` is written `$${{`)"
        ))),
        Unknown if inner.starts_with('{') => Meaning::Unavailable(asked_by_the_client(inner)),
        _ => Meaning::Text,
    }
}

fn asked_by_the_client(inner: &str) -> Trouble {
    Trouble {
        variable: None,
        message: format!("only the client can fill in `${{{inner}}}`"),
        next_step: Some(
            "write the service in mcpmon.toml, with a variable in place of what the client asks for"
                .to_owned(),
        ),
    }
}

/// The editors' own words.
fn predefined(word: &str, around: &Surroundings<'_>) -> Meaning<'static> {
    let known = |path: &Path| Meaning::Known(path.to_string_lossy().into_owned());
    match word {
        "userHome" => match around.home {
            Some(home) => known(home),
            None => Meaning::Unavailable(Trouble::new("the user has no home directory")),
        },
        "workspaceFolder" => known(around.folder),
        "workspaceFolderBasename" => {
            known(Path::new(around.folder.file_name().unwrap_or_default()))
        }
        "pathSeparator" | "/" => Meaning::Known(MAIN_SEPARATOR_STR.to_owned()),
        _ => Meaning::Text,
    }
}

fn fill_in<'a>(
    name: &str,
    value: &'a str,
    around: &Surroundings<'_>,
    secrets: &mut Vec<Secret>,
) -> Result<&'a str, Trouble> {
    charge(value.len(), around)?;
    if !value.is_empty() && !PUBLIC_VARIABLES.contains(&name.to_uppercase().as_str()) {
        secrets.push(Secret::new(value));
    }
    Ok(value)
}

/// What a file holds, without its last line break.
pub(crate) fn file(
    path: &str,
    around: &Surroundings<'_>,
    secrets: &mut Vec<Secret>,
) -> Result<Secret, Trouble> {
    let path = around.folder.join(path);
    let text = (around.read)(&path).map_err(|error| {
        Trouble::new(format!("its file `{}` cannot be read: {error}", path.display()))
    })?;
    let value = without_last_break(&text);
    if value.is_empty() {
        return Err(Trouble::new(format!("its file `{}` is empty", path.display())));
    }
    charge(value.len(), around)?;
    let secret = Secret::new(value);
    secrets.push(secret.clone());
    Ok(secret)
}

/// The text without one line break at its end.
pub(crate) fn without_last_break(text: &str) -> &str {
    let text = text.strip_suffix('\n').unwrap_or(text);
    text.strip_suffix('\r').unwrap_or(text)
}

fn charge(bytes: usize, around: &Surroundings<'_>) -> Result<(), Trouble> {
    let total = around.filled_in.get().saturating_add(bytes);
    around.filled_in.set(total);
    if total > MOST_FILLED_IN {
        return Err(Trouble::new(format!(
            "more than {} MB would have to be filled in",
            MOST_FILLED_IN >> 20
        )));
    }
    Ok(())
}

/// Whether this can be a variable's name: letters, digits and `_`, no digit first.
pub(crate) fn is_name(text: &str) -> bool {
    !text.is_empty()
        && !text.starts_with(|first: char| first.is_ascii_digit())
        && text.bytes().all(is_name_byte)
}

fn is_name_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_'
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use proptest::prelude::*;

    pub(crate) fn with_surroundings<T>(
        vars: &[(&str, &str)],
        then: impl FnOnce(&Surroundings<'_>) -> T,
    ) -> T {
        let vars = Variables::new(vars.iter().copied());
        let read = |path: &Path| match path.to_str() {
            Some("/run/token" | "/src/token") => Ok("from-file\n".to_owned()),
            Some("/src/empty") => Ok("\n".to_owned()),
            _ => Err("no such file".to_owned()),
        };
        then(&Surroundings {
            vars: &vars,
            home: Some(Path::new("/home/me")),
            folder: Path::new("/src"),
            read: &read,
            filled_in: Cell::new(0),
        })
    }

    fn filled(text: &str, syntax: Syntax) -> Result<String, String> {
        let vars = [("TOKEN", "t0ken-value"), ("EMPTY", ""), ("_A1", "a")];
        with_surroundings(&vars, |around| {
            expand(text, syntax, around, &mut Vec::new()).map_err(|trouble| trouble.message)
        })
    }

    #[test]
    fn each_client_has_its_own_notation() {
        use Syntax::*;
        let cases = [
            // No client fills in everything.
            (Literal, "${TOKEN} $TOKEN ${env:TOKEN}", "${TOKEN} $TOKEN ${env:TOKEN}"),
            (ClaudeCode, "Bearer ${TOKEN}", "Bearer t0ken-value"),
            (ClaudeCode, "${NOPE:-http://localhost}/x", "http://localhost/x"),
            (ClaudeCode, "${TOKEN:-x}${EMPTY:-y}${NOPE:-}", "t0ken-valuey"),
            (ClaudeCode, "$TOKEN ${env:TOKEN} ${a b} ${", "$TOKEN ${env:TOKEN} ${a b} ${"),
            (Editor, "${env:TOKEN}|${TOKEN}", "t0ken-value|${TOKEN}"),
            (Editor, "${userHome}/a ${workspaceFolder}/b", "/home/me/a /src/b"),
            (Editor, "${workspaceFolderBasename}${/}${pathSeparator}", "src//"),
            (
                Windsurf,
                "${env:TOKEN} ${file:/run/token} ${TOKEN}",
                "t0ken-value from-file ${TOKEN}",
            ),
            (Gemini, "$TOKEN/${TOKEN} $5 $ ${_A1}$_A1.", "t0ken-value/t0ken-value $5 $ aa."),
            (Gemini, "${TOKEN:-x}", "${TOKEN:-x}"),
            (OpenCode, "{env:TOKEN} {file:token} {x} {", "t0ken-value from-file {x} {"),
            (OpenCode, "${TOKEN} {env:TOKEN", "${TOKEN} {env:TOKEN"),
            (
                Own,
                "${TOKEN} ${env:TOKEN} ${NOPE:-d} $${TOKEN} $x {y}",
                "t0ken-value t0ken-value d ${TOKEN} $x {y}",
            ),
            (
                Unknown,
                "${TOKEN} ${env:TOKEN} ${NOPE:-d} ${a b}",
                "t0ken-value t0ken-value d ${a b}",
            ),
            (Own, "", ""),
            (Own, "é${TOKEN}é", "ét0ken-valueé"),
        ];
        for (syntax, text, expected) in cases {
            assert_eq!(filled(text, syntax).as_deref(), Ok(expected), "{syntax:?} {text}");
        }
    }

    #[test]
    fn what_cannot_be_filled_in_is_said_and_never_empty() {
        use Syntax::*;
        let cases = [
            (ClaudeCode, "a ${NOPE} b", "`NOPE` is not set"),
            (Own, "${env:NOPE}", "`NOPE` is not set"),
            (Gemini, "$NOPE", "`NOPE` is not set"),
            (OpenCode, "{env:NOPE}", "`NOPE` is not set"),
            (Editor, "${input:api-key}", "${input:api-key}"),
            (Editor, "${command:pick}", "${command:pick}"),
            (Unknown, "${{ secrets.X }}", "only the client"),
            (Own, "${not a name}", "`$${`"),
            (Windsurf, "${file:/nope}", "no such file"),
            (OpenCode, "{file:empty}", "is empty"),
        ];
        for (syntax, text, part) in cases {
            let message = filled(text, syntax).unwrap_err();
            assert!(message.contains(part), "{syntax:?} {text}: {message}");
        }
    }

    #[test]
    fn what_was_filled_in_is_a_secret_unless_everybody_knows_it() {
        with_surroundings(&[("TOKEN", "t0ken-value"), ("HOME", "/home/me")], |around| {
            let mut secrets = Vec::new();
            expand("${HOME} ${TOKEN} ${X:-default}", Syntax::Own, around, &mut secrets).unwrap();
            let values: Vec<_> = secrets.iter().map(Secret::expose).collect();
            assert_eq!(values, ["t0ken-value"]);
        });
    }

    #[test]
    fn a_file_cannot_make_us_fill_in_without_end() {
        let long = "x".repeat(1 << 20);
        with_surroundings(&[("LONG", &long)], |around| {
            let text = "${LONG}".repeat(100);
            let trouble = expand(&text, Syntax::Own, around, &mut Vec::new()).unwrap_err();
            assert!(trouble.message.contains("8 MB"), "{trouble:?}");
        });
    }

    proptest! {
        #[test]
        fn any_text_is_filled_in_or_refused(text in "[${}a-zA-Z:é -]{0,40}|.{0,40}") {
            use Syntax::*;
            for syntax in [Literal, Own, Unknown, ClaudeCode, Editor, Windsurf, Gemini, OpenCode] {
                let _ = filled(&text, syntax);
            }
            prop_assert_eq!(filled(&text, Literal), Ok(text));
        }
    }
}
