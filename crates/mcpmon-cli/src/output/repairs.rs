//! A repair in one line: what was done and what became of it, then why and as which attempt.

use mcpmon_core::remedy::{AuditEntry, RepairOutcome};
use mcpmon_core::text;

use super::Look;

/// `restart helped · attempt 1, rpc_error · the check after it was good`; escaped for a terminal.
pub(crate) fn repair(entry: &AuditEntry, look: Look) -> String {
    let became = match entry.outcome {
        RepairOutcome::UnderWay => "begins",
        RepairOutcome::Helped => "helped",
        RepairOutcome::DidNotHelp => "did not help",
        RepairOutcome::Failed => "failed",
        RepairOutcome::DryRun => "would be done",
        RepairOutcome::Unverified => "was done",
        RepairOutcome::Interrupted => "was interrupted",
        RepairOutcome::GaveUp => "was given up",
        RepairOutcome::Resumed => "is possible again",
        other => other.as_str(),
    };
    let mut done = format!("{} {became}", entry.action);
    if !entry.argv.is_empty() && entry.outcome.is_attempt() {
        done.push_str(&format!(" ({})", text::for_terminal(&entry.argv.join(" "))));
    }
    let mut why = Vec::new();
    if entry.attempt > 0 {
        why.push(format!("attempt {}", entry.attempt));
    }
    why.extend(entry.code.map(|code| code.as_str().to_owned()));
    why.extend(
        entry.rule.as_deref().map(|rule| format!("asked for by {}", text::for_terminal(rule))),
    );
    let parts = [done, why.join(", "), text::for_terminal(&entry.result)];
    let parts: Vec<String> = parts.into_iter().filter(|part| !part.is_empty()).collect();
    parts.join(&format!(" {} ", look.dot()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use mcpmon_core::{FailureCode, Timestamp};

    fn entry() -> AuditEntry {
        AuditEntry {
            id: "files@1".to_owned(),
            at: Timestamp::from_millis(1),
            service: "files".into(),
            action: "systemd".to_owned(),
            argv: ["systemctl", "restart", "files\x1b[2J"].map(str::to_owned).to_vec(),
            rule: Some("web_down".to_owned()),
            code: Some(FailureCode::RpcError),
            attempt: 2,
            dry_run: false,
            outcome: RepairOutcome::Failed,
            result: "`systemctl` ended with exit status: 5".to_owned(),
            exit_status: Some(5),
            last_lines: Vec::new(),
            before: None,
            after: None,
        }
    }

    #[test]
    fn says_what_was_done_what_became_of_it_and_why() {
        let look = Look::plain();
        let dot = look.dot();
        assert_eq!(
            repair(&entry(), look),
            format!(
                "systemd failed (systemctl restart files\\x1b[2J) {dot} attempt 2, rpc_error, \
                 asked for by web_down {dot} `systemctl` ended with exit status: 5"
            )
        );
        let over = AuditEntry {
            outcome: RepairOutcome::GaveUp,
            attempt: 0,
            rule: None,
            code: None,
            result: "5 attempts within an hour".to_owned(),
            ..entry()
        };
        assert_eq!(
            repair(&over, look),
            format!("systemd was given up {dot} 5 attempts within an hour")
        );
    }
}
