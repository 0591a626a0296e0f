//! The port of repair: decided by rules, carried out outside, run by the engine; and the record
//! that is kept of it.

use std::time::Duration;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

use crate::failure::FailureCode;
use crate::service::{RemediationSpec, RemedyAction, ServiceName, ServiceSpec, Transport};
use crate::store::CheckRecord;
use crate::time::Timestamp;

/// One attempt to repair a service.
#[derive(Clone, Copy)]
pub struct Repair<'a> {
    /// What is wrong.
    pub service: &'a ServiceSpec,
    /// What is to be done about it.
    pub action: &'a RemediationSpec,
    /// The rule that asked for it; `None` where the service's own entry did.
    pub rule: Option<&'a str>,
    /// Why the service is down.
    pub code: Option<FailureCode>,
    /// Which attempt of this outage it is; 1 is the first.
    pub attempt: u32,
    /// What is held of the service.
    pub grip: &'a dyn Grip,
}

/// What the monitor holds of a service: a process it started, or a session.
#[async_trait]
pub trait Grip: Send + Sync {
    /// Ends what is held, so that the next check begins anew. Resolves when nothing of it is alive;
    /// `false` if nobody holds the service.
    async fn release(&self) -> bool;
}

/// What came of carrying out an action; whether it helped, the next checks tell.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct RemedyReport {
    /// Why it could not be carried out, or ended badly; `None` if it was.
    pub error: Option<String>,
    /// The exit status of the command, if there was one and it exited.
    pub exit_status: Option<i32>,
    /// The last lines the command wrote, redacted and capped, as they came.
    pub last_lines: Vec<String>,
}

impl RemedyReport {
    /// It was carried out.
    pub fn done() -> Self {
        Self::default()
    }

    /// It was not, because.
    pub fn failed(error: impl Into<String>) -> Self {
        Self { error: Some(error.into()), ..Self::default() }
    }
}

/// Does one thing about a service that lives but is wrong.
#[async_trait]
pub trait Remedy: Send + Sync {
    /// Carries out the repair's action, once and within the action's `timeout`. The caller spaces
    /// attempts, counts them, gives up, makes one at a time for each service, and drops the future
    /// to cancel: then nothing it started may go on.
    async fn apply(&self, repair: &Repair<'_>) -> RemedyReport;
}

/// What became of a repair.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum RepairOutcome {
    /// It is under way, or the checks after it are.
    #[default]
    UnderWay,
    /// A check after it was good.
    Helped,
    /// It was carried out, and the checks after it still failed.
    DidNotHelp,
    /// It could not be carried out.
    Failed,
    /// It was only said, because the configuration asks for that.
    DryRun,
    /// It was carried out, but no check could tell whether it helped.
    Unverified,
    /// The monitor stopped, or the service was taken away, before it was over.
    Interrupted,
    /// Too many attempts in an hour: no more until the service is well again.
    GaveUp,
    /// The service is well again, or was changed: attempts are made again when needed.
    Resumed,
}

impl RepairOutcome {
    /// The contract's spelling.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::UnderWay => "under_way",
            Self::Helped => "helped",
            Self::DidNotHelp => "did_not_help",
            Self::Failed => "failed",
            Self::DryRun => "dry_run",
            Self::Unverified => "unverified",
            Self::Interrupted => "interrupted",
            Self::GaveUp => "gave_up",
            Self::Resumed => "resumed",
        }
    }

    /// Whether it says of an attempt what became of it, rather than that there are no more.
    pub const fn is_attempt(self) -> bool {
        !matches!(self, Self::GaveUp | Self::Resumed)
    }
}

/// Something mcpmon did to a service, or said that it would do.
///
/// Recorded before it is done, and again, under the same id, with what became of it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct AuditEntry {
    /// Tells entries apart; a store replaces the entry of an id it has.
    pub id: String,
    /// When it began.
    pub at: Timestamp,
    /// The service.
    pub service: ServiceName,
    /// What was done: a [`RemedyAction`] in the contract's spelling.
    pub action: String,
    /// The command as configured, secrets taken out; that of the service where it is restarted.
    pub argv: Vec<String>,
    /// The rule that asked for it; `None` where the service's own entry did.
    pub rule: Option<String>,
    /// Why the service was down.
    pub code: Option<FailureCode>,
    /// Which attempt of this outage it was; 0 where none was made.
    pub attempt: u32,
    /// Whether it was only said.
    pub dry_run: bool,
    /// What became of it.
    pub outcome: RepairOutcome,
    /// What became of it, in words. May hold text of the command.
    pub result: String,
    /// The exit status of the command, if there was one and it exited.
    pub exit_status: Option<i32>,
    /// The last lines the command wrote. Hostile until escaped.
    pub last_lines: Vec<String>,
    /// The check before.
    pub before: Option<CheckRecord>,
    /// The check after.
    pub after: Option<CheckRecord>,
}

/// Which entries are asked for; newest first.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct AuditQuery {
    /// Only of this service.
    pub service: Option<ServiceName>,
    /// Only what began at this moment or later.
    pub since: Option<Timestamp>,
    /// At most so many.
    pub limit: usize,
}

impl RemediationSpec {
    /// The command that is run, exactly; `None` for a restart of what the monitor holds itself.
    pub fn argv(&self) -> Option<Vec<String>> {
        let words = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect();
        match self.action {
            RemedyAction::Restart => None,
            RemedyAction::Command => Some(self.command.clone()),
            RemedyAction::Systemd => {
                let unit = self.unit.as_deref().unwrap_or_default();
                Some(match self.user {
                    true => words(&["systemctl", "--user", "restart", unit]),
                    false => words(&["systemctl", "restart", unit]),
                })
            }
            RemedyAction::Docker => {
                let container = self.container.as_deref().unwrap_or_default();
                Some(words(&["docker", "restart", container]))
            }
        }
    }

    /// How long an action may take, and its verification.
    const LONGEST: Duration = Duration::from_secs(86_400);

    /// What is wrong with it by itself: the key, and why.
    pub fn problem(&self) -> Option<(&'static str, String)> {
        use RemedyAction::{Command, Docker, Systemd};
        let action = self.action.as_str();
        let of_another = [
            ("command", !self.command.is_empty(), Command),
            ("unit", self.unit.is_some(), Systemd),
            ("user", self.user, Systemd),
            ("container", self.container.is_some(), Docker),
        ];
        for (key, is_written, owner) in of_another {
            if is_written && owner != self.action {
                let owner = owner.as_str();
                return Some((
                    key,
                    format!("`{key}` belongs to `action = \"{owner}\"`, and this is `{action}`"),
                ));
            }
        }
        for (key, span) in [("timeout", self.timeout), ("verify_within", self.verify_within)] {
            if span > Self::LONGEST {
                return Some((key, format!("`{key}` is a day at most")));
            }
        }
        let (key, word, example) = match self.action {
            RemedyAction::Restart => return None,
            Command => ("command", self.command.first(), "command = [\"/usr/local/bin/mend\"]"),
            Systemd => ("unit", self.unit.as_ref(), "unit = \"files.service\""),
            Docker => ("container", self.container.as_ref(), "container = \"files\""),
        };
        match word.map(|word| word.trim()) {
            None | Some("") => {
                Some((key, format!("`action = \"{action}\"` needs `{key}`, as in `{example}`")))
            }
            // A name that is an option would make another command of it.
            Some(word) if word.starts_with('-') && self.action != Command => {
                Some((key, format!("`{word}` would be read as an option")))
            }
            Some(_) => None,
        }
    }

    /// What is wrong with it for a service that is reached this way: the key, and why.
    pub fn problem_for(&self, transport: &Transport) -> Option<(&'static str, String)> {
        let is_held = matches!(transport, Transport::Stdio(_));
        if self.action == RemedyAction::Restart && !is_held {
            return Some(("action", Self::NOTHING_TO_RESTART.to_owned()));
        }
        self.problem()
    }

    /// Why `action = "restart"` cannot be for a service behind a URL.
    pub const NOTHING_TO_RESTART: &'static str = "`restart` ends a process that mcpmon started, and a service behind a URL has none; use `action = \"command\"`, `\"systemd\"` or `\"docker\"`";
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(json: serde_json::Value) -> Result<RemediationSpec, String> {
        serde_json::from_value(json).map_err(|error| error.to_string())
    }

    #[test]
    fn no_time_is_longer_than_a_day() {
        let mut spec = RemediationSpec::new(RemedyAction::Restart);
        (spec.timeout, spec.verify_within) = (RemediationSpec::LONGEST, RemediationSpec::LONGEST);
        assert_eq!(spec.problem(), None);
        spec.verify_within = Duration::from_secs_f64(1e19);
        assert_eq!(spec.problem().map(|(key, _)| key), Some("verify_within"));
        spec.timeout = Duration::from_secs_f64(1e19);
        assert_eq!(spec.problem().map(|(key, _)| key), Some("timeout"));
    }

    #[test]
    fn presets_are_the_commands_people_would_type() {
        for (json, argv) in [
            (serde_json::json!({ "action": "restart" }), None),
            (
                serde_json::json!({ "action": "command", "command": ["mend", "a b"] }),
                Some(vec!["mend", "a b"]),
            ),
            (
                serde_json::json!({ "action": "systemd", "unit": "files.service" }),
                Some(vec!["systemctl", "restart", "files.service"]),
            ),
            (
                serde_json::json!({ "action": "systemd", "unit": "files", "user": true }),
                Some(vec!["systemctl", "--user", "restart", "files"]),
            ),
            (
                serde_json::json!({ "action": "docker", "container": "files" }),
                Some(vec!["docker", "restart", "files"]),
            ),
        ] {
            let spec = read(json.clone()).unwrap();
            assert_eq!(spec.problem(), None, "{json}");
            let argv = argv.map(|words| words.into_iter().map(str::to_owned).collect::<Vec<_>>());
            assert_eq!(spec.argv(), argv, "{json}");
        }
    }

    #[test]
    fn what_is_missing_or_belongs_elsewhere_is_told_with_its_key() {
        for (json, key, word) in [
            (serde_json::json!({ "action": "command" }), "command", "needs `command`"),
            (serde_json::json!({ "action": "command", "command": [" "] }), "command", "needs"),
            (serde_json::json!({ "action": "systemd" }), "unit", "needs `unit`"),
            (serde_json::json!({ "action": "systemd", "unit": "-f" }), "unit", "option"),
            (serde_json::json!({ "action": "docker", "unit": "a" }), "unit", "systemd"),
            (serde_json::json!({ "action": "docker" }), "container", "needs `container`"),
            (serde_json::json!({ "action": "restart", "command": ["x"] }), "command", "belongs"),
            (serde_json::json!({ "action": "restart", "user": true }), "user", "systemd"),
        ] {
            let (at, message) = read(json.clone()).unwrap().problem().unwrap();
            assert_eq!(at, key, "{json}");
            assert!(message.contains(word), "{json}: {message}");
        }
        assert!(read(serde_json::json!({ "action": "restart", "timeout": 0 })).is_err());
        assert!(read(serde_json::json!({ "action": "restart", "tries": 9 })).is_err());
        assert!(read(serde_json::json!({ "action": "reboot" })).is_err());
    }

    #[test]
    fn only_what_the_monitor_holds_can_be_restarted() {
        let restart = read(serde_json::json!({ "action": "restart" })).unwrap();
        let url = ServiceSpec::http("a", "http://a.test/mcp").transport;
        let command = ServiceSpec::stdio("a", "files", [""; 0]).transport;
        let (key, message) = restart.problem_for(&url).unwrap();
        assert_eq!(key, "action");
        assert!(message.contains("\"command\""), "{message}");
        assert_eq!(restart.problem_for(&command), None);
    }
}
