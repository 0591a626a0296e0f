//! Secrets that are written out in an entry: `--api-key abc`, `?token=abc`, `scheme://user:pw@…`.
//!
//! Environment and headers are secrets as a whole. Arguments and URLs are not, but people put
//! tokens there, and an excerpt or a log line must not carry them on. A guess by name errs on the
//! side of hiding.

use mcpmon_core::Secret;
use mcpmon_core::service::Transport;

/// Parts of a flag's or parameter's name that say its value is a secret.
const TELLING: [&str; 12] = [
    "token",
    "secret",
    "password",
    "passwd",
    "apikey",
    "api-key",
    "api_key",
    "access-key",
    "access_key",
    "auth",
    "credential",
    "bearer",
];

/// Parameters of a URL that are secrets beside those.
const TELLING_PARAMETERS: [&str; 4] = ["key", "sig", "signature", "code"];

/// The secrets that stand in the arguments or the URL.
pub(crate) fn secrets(transport: &Transport) -> Vec<Secret> {
    let mut found = Vec::new();
    match transport {
        Transport::Stdio(stdio) => in_arguments(&stdio.args, &mut found),
        Transport::Http(http) | Transport::Sse(http) => in_url(&http.url, &mut found),
    }
    found.retain(|value| !value.is_empty());
    found.into_iter().map(Secret::new).collect()
}

/// The secrets that stand in a command's arguments.
pub(crate) fn secrets_in_arguments(args: &[String]) -> Vec<Secret> {
    let mut found = Vec::new();
    in_arguments(args, &mut found);
    found.into_iter().filter(|value| !value.is_empty()).map(Secret::new).collect()
}

fn in_arguments<'a>(args: &'a [String], found: &mut Vec<&'a str>) {
    let mut follows = false;
    for arg in args {
        if std::mem::take(&mut follows) && !arg.starts_with('-') {
            found.push(arg);
        }
        if arg.contains("://") {
            in_url(arg, found);
        }
        // `--header "Authorization: Bearer abc"`
        if let Some((name, value)) = arg.split_once(':')
            && tells(name)
            && !value.starts_with("//")
        {
            found.push(value.trim());
        }
        // `--api-key=abc`, and `-e GITHUB_TOKEN=abc`
        match arg.split_once('=') {
            Some((name, value)) if tells(name) => found.push(value),
            Some(_) => {}
            None => follows = arg.starts_with('-') && tells(arg),
        }
    }
}

fn in_url<'a>(text: &'a str, found: &mut Vec<&'a str>) {
    let Some((_, rest)) = text.split_once("://") else {
        return;
    };
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    if let Some((user, _)) = authority.rsplit_once('@') {
        found.push(user.split_once(':').map_or(user, |(_, password)| password));
    }
    let query = rest.split_once('?').map_or("", |(_, query)| query);
    let query = query.split('#').next().unwrap_or_default();
    for (name, value) in query.split('&').filter_map(|pair| pair.split_once('=')) {
        if tells(name) || TELLING_PARAMETERS.contains(&name.to_ascii_lowercase().as_str()) {
            found.push(value);
        }
    }
}

fn tells(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    TELLING.iter().any(|part| name.contains(part))
}

#[cfg(test)]
mod tests {
    use super::*;
    use mcpmon_core::ServiceSpec;

    #[track_caller]
    fn check_args(args: &[&str], expected: &[&str]) {
        let spec = ServiceSpec::stdio("x", "npx", args.iter().copied());
        let got = secrets(&spec.transport);
        assert_eq!(got.iter().map(Secret::expose).collect::<Vec<_>>(), expected);
    }

    #[test]
    fn arguments_that_say_so_by_name_are_secrets() {
        check_args(&["-y", "server", "--api-key", "abc"], &["abc"]);
        check_args(&["--token=abc", "--port", "80"], &["abc"]);
        check_args(&["run", "-e", "GITHUB_TOKEN=abc", "-e", "GITHUB_TOKEN"], &["abc"]);
        check_args(&["--header", "Authorization: Bearer abc"], &["Bearer abc"]);
        check_args(&["postgresql://me:pw@db:5432/x?sslmode=off"], &["pw"]);
        check_args(&["--no-auth", "--verbose"], &[]);
        check_args(&["--token", ""], &[]);
        check_args(&["https://auth.example.com/x"], &[]);
    }

    #[test]
    fn parameters_and_passwords_of_a_url_are_secrets() {
        for (url, expected) in [
            ("https://a.example/mcp?apiKey=abc&x=1#f", &["abc"][..]),
            ("https://me:pw@a.example/mcp?key=k", &["pw", "k"]),
            ("https://t0ken@a.example/", &["t0ken"]),
            ("https://a.example/a@b?q=1", &[]),
            ("no url", &[]),
        ] {
            let got = secrets(&ServiceSpec::http("x", url).transport);
            assert_eq!(got.iter().map(Secret::expose).collect::<Vec<_>>(), expected, "{url}");
        }
    }
}
