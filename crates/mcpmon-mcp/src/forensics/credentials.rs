//! Keys, tokens and variables that a text says are wanted.
//!
//! There are as many phrasings as authors, so two things are looked for together: that something
//! is wanted, and a name or a word for a credential. One alone is ordinary talk.

const WANTING: &[&str] = &[
    "required",
    "not set",
    "isn't set",
    "unset",
    "must be set",
    "must set",
    "should be set",
    "needs to be set",
    "must be provided",
    "must provide",
    "must be defined",
    "must be specified",
    "must be present",
    "not provided",
    "not supplied",
    "not specified",
    "not found in env",
    "please set",
    "please provide",
    "please specify",
    "please configure",
    "please export",
    "is missing",
    "missing",
    "not found",
    "not defined",
    "undefined",
    "is empty",
    "cannot be empty",
    "not configured",
    "no default",
    "keyerror:",
    "set the",
    "did you forget to set",
    "no api key",
    "no token",
    "no credentials",
    "could not find credentials",
    "unable to locate credentials",
    "could not load the default credentials",
    "default credentials were not found",
    "could not automatically determine credentials",
    "key error",
    "environment variable not found",
];

/// A credential that is there and no good is as good as missing.
const REFUSED: &[&str] =
    &["invalid", "incorrect", "expired", "rejected", "unauthorized", "bad credentials"];

const CREDENTIALS: &[&str] = &[
    "api key",
    "api-key",
    "api_key",
    "apikey",
    "api token",
    "access token",
    "access-token",
    "access key",
    "auth token",
    "authentication token",
    "personal access token",
    "bearer token",
    "bot token",
    "client secret",
    "client_secret",
    "secret key",
    "credentials",
    "environment variable",
    "environment variables",
    "env var",
    "password",
    "connection string",
    "database url",
];

/// Parts of a variable's name that make it a credential even without a word of wanting it.
const NAME_PARTS: &[&str] = &[
    "KEY",
    "APIKEY",
    "TOKEN",
    "SECRET",
    "PASSWORD",
    "PASS",
    "CREDENTIAL",
    "CREDENTIALS",
    "API",
    "AUTH",
    "PAT",
    "USER",
    "USERNAME",
    "URL",
    "URI",
    "DSN",
    "ID",
    "ACCOUNT",
    "HOST",
    "WEBHOOK",
];

/// A key, token or variable that is wanted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Wanted {
    /// The variable of this name.
    Variable(String),
    /// No name was given; this is the word for it.
    Word(&'static str),
}

impl Wanted {
    /// What it is called.
    pub fn name(&self) -> &str {
        match self {
            Self::Variable(name) => name,
            Self::Word(word) => word,
        }
    }
}

/// The key, token or variable a text says is wanted, if it says so.
pub fn missing_credential(text: &str) -> Option<Wanted> {
    let lower = text.to_lowercase();
    let has = |words: &[&str]| words.iter().any(|word| lower.contains(word));
    let wanting = has(WANTING);
    if !wanting && !has(REFUSED) {
        return None;
    }
    let of_environment = lower.contains("environment variable") || lower.contains("env var");
    let variable = variable_names(text).find(|name| is_credential(name) || of_environment);
    if let Some(name) = variable.filter(|_| wanting || of_environment) {
        return Some(Wanted::Variable(name.to_owned()));
    }
    let word = CREDENTIALS.iter().find(|word| lower.contains(**word))?;
    // "environment variable" is a credential only where one is wanted, not where one is odd.
    let named = !word.starts_with("env");
    (wanting || named).then_some(Wanted::Word(word))
}

/// The field a settings class of pydantic wants: the complaint stands below the field's name.
pub(super) fn wanted_setting(lines: &[&str]) -> Option<Wanted> {
    let is_settings = |line: &&str| {
        let lower = line.to_lowercase();
        lower.contains("validation error")
            && ["settings", "config", "env"].iter().any(|word| lower.contains(word))
    };
    let from = lines.iter().position(is_settings)?;
    lines[from..].windows(2).find_map(|pair| {
        let wanted = pair[1].trim().to_lowercase().starts_with("field required");
        let name = pair[0].trim();
        let is_name = !name.is_empty()
            && name.len() < 100
            && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
        (wanted && is_name).then(|| Wanted::Variable(name.to_ascii_uppercase()))
    })
}

fn is_credential(name: &str) -> bool {
    name.split('_').any(|part| NAME_PARTS.contains(&part))
}

/// Words such as `GITHUB_TOKEN`: capitals, digits and underscores, with an underscore in them.
fn variable_names(text: &str) -> impl Iterator<Item = &str> {
    text.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_')).filter(|word| {
        word.len() >= 4
            && (word.contains('_') || is_credential(word))
            && word.starts_with(|c: char| c.is_ascii_uppercase())
            && word.chars().all(|c| c.is_ascii_uppercase() || c.is_ascii_digit() || c == '_')
            // Names of errors are written the same way.
            && !["ERR_", "E_", "ERROR_", "MODULE_NOT_FOUND"].iter().any(|start| word.starts_with(start))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credentials_are_named_however_they_are_asked_for() {
        for (text, expected) in [
            ("GITHUB_TOKEN is not set", "GITHUB_TOKEN"),
            ("an API key is required", "api key"),
            ("FOO_BAR environment variable is required", "FOO_BAR"),
            (
                "Error: Missing required environment variable: STRIPE_SECRET_KEY",
                "STRIPE_SECRET_KEY",
            ),
            (
                "Please set SLACK_BOT_TOKEN and SLACK_TEAM_ID environment variables",
                "SLACK_BOT_TOKEN",
            ),
            ("KeyError: 'OPENAI_API_KEY'", "OPENAI_API_KEY"),
            ("BRAVE_API_KEY must be provided", "BRAVE_API_KEY"),
            ("ValueError: NOTION_TOKEN isn't set", "NOTION_TOKEN"),
            ("Did you forget to set LINEAR_API_KEY?", "LINEAR_API_KEY"),
            ("You must provide a personal access token", "access token"),
            ("No API key found. Get one at https://example.com", "api key"),
            ("botocore.exceptions.NoCredentialsError: Unable to locate credentials", "credentials"),
            (
                "google.auth.exceptions.DefaultCredentialsError: Your default credentials were not found.",
                "credentials",
            ),
            ("Error: POSTGRES_URL is undefined", "POSTGRES_URL"),
            ("fatal: environment variable DATABASE_URL not found", "DATABASE_URL"),
            ("Configuration error: JIRA_HOST must be defined", "JIRA_HOST"),
            ("  TAVILY_API_KEY: [ 'Required' ]", "TAVILY_API_KEY"),
            ("AuthenticationError: Incorrect API key provided: sk-***", "api key"),
            ("error: invalid access token", "access token"),
            (
                "thread 'main' panicked at src/main.rs: GITLAB_TOKEN must be set: NotPresent",
                "GITLAB_TOKEN",
            ),
            ("Missing client secret", "client secret"),
        ] {
            let found = missing_credential(text);
            assert_eq!(found.as_ref().map(Wanted::name), Some(expected), "{text}");
        }
    }

    #[test]
    fn ordinary_talk_wants_nothing() {
        for text in [
            "listening on MY_SOCKET",
            "tool not found",
            "ERR_MODULE_NOT_FOUND missing",
            "TypeError: Cannot read properties of undefined (reading 'b')",
            "ReferenceError: foo is not defined",
            "using API key from environment",
            "loaded credentials",
            "Error: file not found: /srv/data.json",
            "SyntaxError: Invalid or unexpected token",
            "token bucket ready",
            "ENV is production",
            "invalid environment variable name in comment",
            "",
        ] {
            assert_eq!(missing_credential(text), None, "{text}");
        }
    }

    #[test]
    fn a_settings_class_names_its_field() {
        let lines = [
            "pydantic_core._pydantic_core.ValidationError: 1 validation error for Settings",
            "api_token",
            "  Field required [type=missing, input_value={}, input_type=dict]",
        ];
        assert_eq!(wanted_setting(&lines), Some(Wanted::Variable("API_TOKEN".to_owned())));
        let tool = ["1 validation error for AddArguments", "a", "  Field required [type=missing]"];
        assert_eq!(wanted_setting(&tool), None);
    }
}
