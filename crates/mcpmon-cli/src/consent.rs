//! Whether services that were found, not written by the user for mcpmon, may be used.
//!
//! A client's file may have come with a cloned repository. So a discovered command is started only
//! after somebody saw it and said yes; until then its service is `paused`, and stderr says so.
//! What needs consent is decided where services are found; this only asks and remembers.

use std::collections::BTreeSet;
use std::io::{BufRead as _, IsTerminal as _};

use mcpmon_core::{Redactor, ServiceName, ServiceSpec, Transport};

use crate::output;

/// What a person agreed to, for as long as the process lives.
#[derive(Debug, Clone, Default)]
pub(crate) struct Consent {
    everything: bool,
    agreed: Vec<Transport>,
}

impl Consent {
    /// `--yes`.
    pub(crate) fn to_everything() -> Self {
        Self { everything: true, agreed: Vec::new() }
    }

    fn is_missing(&self, service: &ServiceSpec, needed: &BTreeSet<ServiceName>) -> bool {
        needed.contains(&service.name)
            && !self.everything
            && service.enabled
            && service.invalid.is_none()
            && !self.agreed.contains(&service.transport)
    }

    /// Asks once, on a terminal, about everything that needs it.
    pub(crate) fn ask(&mut self, services: &[ServiceSpec], needed: &BTreeSet<ServiceName>) {
        let open: Vec<&ServiceSpec> =
            services.iter().filter(|service| self.is_missing(service, needed)).collect();
        if open.is_empty() || !std::io::stdin().is_terminal() || !std::io::stderr().is_terminal() {
            return;
        }
        output::say(&question(&open));
        let mut answer = String::new();
        // End of input is a no.
        let _ = std::io::stdin().lock().read_line(&mut answer);
        if is_yes(&answer) {
            self.agreed.extend(open.iter().map(|service| service.transport.clone()));
        }
    }

    /// Pauses what is not agreed to, and gives the names.
    pub(crate) fn apply(
        &self,
        services: &mut [ServiceSpec],
        needed: &BTreeSet<ServiceName>,
    ) -> Vec<String> {
        let mut paused = Vec::new();
        for service in services.iter_mut().filter(|service| self.is_missing(service, needed)) {
            service.paused_because = Some("nobody agreed to use it".to_owned());
            paused.push(service.name.to_string());
        }
        paused
    }
}

fn question(open: &[&ServiceSpec]) -> String {
    let mut text = "Found in your clients' files:\n".to_owned();
    for service in open {
        text.push_str(&format!(
            "  {}: {}  [{}]\n",
            service.name,
            what_it_does(service),
            service.origin
        ));
    }
    text.push_str("Use them? [y/N]");
    text
}

/// The command as a person would type it, or the URL; secrets hidden.
fn what_it_does(service: &ServiceSpec) -> String {
    let redactor = Redactor::new(service.secrets());
    let stdio = match &service.transport {
        Transport::Stdio(stdio) => stdio,
        Transport::Http(http) | Transport::Sse(http) => {
            return format!("sends your variables to {}", redactor.redact(&http.url));
        }
    };
    let words = std::iter::once(&stdio.command).chain(&stdio.args);
    let quoted: Vec<String> = words
        .map(|word| match word.contains(char::is_whitespace) || word.is_empty() {
            true => format!("'{word}'"),
            false => word.clone(),
        })
        .collect();
    format!("starts {}", redactor.redact(&quoted.join(" ")))
}

/// Whether a person said yes to a question that ends in `[y/N]`.
pub(crate) fn is_yes(answer: &str) -> bool {
    matches!(answer.trim().to_ascii_lowercase().as_str(), "y" | "yes")
}

#[cfg(test)]
mod tests {
    use super::*;
    use mcpmon_core::Secret;

    fn services() -> Vec<ServiceSpec> {
        vec![
            ServiceSpec::stdio("files", "npx", ["-y", "server files"]),
            ServiceSpec::http("github", "http://127.0.0.1/mcp"),
        ]
    }

    fn needed() -> BTreeSet<ServiceName> {
        ["files".into()].into()
    }

    #[test]
    fn without_a_yes_only_what_needs_it_is_paused() {
        let mut services = services();
        assert_eq!(Consent::default().apply(&mut services, &needed()), ["files"]);
        assert!(services[0].paused_because.is_some() && services[1].paused_because.is_none());
        let mut services = self::services();
        assert!(Consent::to_everything().apply(&mut services, &needed()).is_empty());
        assert!(Consent::default().apply(&mut services, &BTreeSet::new()).is_empty());
    }

    #[test]
    fn a_changed_command_was_not_agreed_to() {
        let mut services = services();
        let consent = Consent { everything: false, agreed: vec![services[0].transport.clone()] };
        assert!(consent.apply(&mut services, &needed()).is_empty());
        services[0] = ServiceSpec::stdio("files", "npx", ["-y", "evil"]);
        assert_eq!(consent.apply(&mut services, &needed()), ["files"]);
    }

    #[test]
    fn the_question_shows_commands_and_hides_secrets() {
        let mut service = ServiceSpec::stdio("a", "run", ["--token=hunter22", "two words"]);
        service.secrets.push(Secret::new("hunter22"));
        service.origin = "cursor, /home/me/.cursor/mcp.json".to_owned();
        let text = question(&[&service]);
        assert!(text.contains("starts run --token=*** 'two words'"), "{text}");
    }

    #[test]
    fn only_yes_is_yes() {
        assert!(is_yes("y\n") && is_yes("YES"));
        assert!(!is_yes("") && !is_yes("n") && !is_yes("yep"));
    }
}
