//! What `up` prints while it runs: one line for each thing that happened.

use jiff::tz::TimeZone;
use mcpmon_core::monitor::MonitorEvent;
use mcpmon_core::state::StatusChange;
use mcpmon_core::store::AlertRecord;
use mcpmon_core::{Timestamp, text};

use crate::output::{Look, level_style, local_time, repair, status_style};

/// How lines are drawn, and which of them somebody else draws.
#[derive(Debug, Clone)]
pub(super) struct Lines {
    pub(super) look: Look,
    pub(super) zone: TimeZone,
    /// Alerts are told by a console handler, and need not be told twice.
    pub(super) console: bool,
}

impl Lines {
    /// The line for an event that is worth one.
    pub(super) fn of(&self, event: &MonitorEvent) -> Option<String> {
        match event {
            MonitorEvent::StatusChanged(change) => self.status(change),
            MonitorEvent::AlertFired(record) if !self.console => Some(self.alert(record)),
            MonitorEvent::AlertResolved(record) if !self.console => {
                let ended = record.alert.resolved_at.unwrap_or(record.alert.timestamp);
                let message = text::for_terminal(&record.alert.message);
                Some(format!("[{}] resolved: {message}", self.time(ended)))
            }
            MonitorEvent::Repair(entry) => {
                let (at, service) =
                    (self.time(entry.at), text::for_terminal(entry.service.as_str()));
                Some(format!("[{at}] repair of {service}: {}", repair(entry, self.look)))
            }
            MonitorEvent::Missed { count } => Some(format!("({count} events were not shown)")),
            _ => None,
        }
    }

    /// A change of status, or of the cause while something is wrong.
    fn status(&self, change: &StatusChange) -> Option<String> {
        let look = self.look;
        let moved = change.from != change.status;
        if !moved && change.failure.is_none() {
            return None;
        }
        let word = look.paint(change.status.as_str(), status_style(change.status));
        let status = match moved {
            true => format!("{} {} {word}", change.from, look.arrow()),
            false => word,
        };
        let mut line = format!(
            "[{}] {} {}: {status}",
            self.time(change.at),
            look.glyph(change.status),
            text::for_terminal(change.service.as_str()),
        );
        if let Some(failure) = &change.failure {
            line.push_str(&format!("  {}", text::for_terminal(&failure.to_string())));
        } else if !change.findings.is_empty() {
            let codes: Vec<_> = change.findings.iter().map(|f| f.code.as_str()).collect();
            line.push_str(&format!("  {}", codes.join(", ")));
        }
        Some(line)
    }

    fn alert(&self, record: &AlertRecord) -> String {
        let alert = &record.alert;
        let level = self.look.paint(alert.level.as_str(), level_style(alert.level));
        let message = text::for_terminal(&alert.message);
        format!("[{}] {level}: {message}", self.time(alert.timestamp))
    }

    fn time(&self, at: Timestamp) -> String {
        local_time(at, &self.zone)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use mcpmon_core::{Failure, FailureCode, Phase, Status};

    fn lines() -> Lines {
        Lines { look: Look::plain(), zone: TimeZone::UTC, console: true }
    }

    fn change(from: Status, status: Status) -> StatusChange {
        let at = Timestamp::from_millis(1_795_356_571_120);
        let (failure, findings) = (None, Vec::new());
        StatusChange {
            service: "files".into(),
            at,
            from,
            status,
            since: at,
            failure,
            findings,
            origin: Default::default(),
        }
    }

    fn line(change: StatusChange) -> Option<String> {
        lines().of(&MonitorEvent::StatusChanged(Box::new(change)))
    }

    #[test]
    fn a_change_of_status_is_one_line_with_its_reason() {
        let mut stopped = change(Status::Running, Status::Stopped);
        let message = "exit status 1\nboom\x1b[2J";
        stopped.failure = Some(Failure::new(FailureCode::Exited, Phase::Request, message));
        assert_eq!(
            line(stopped).unwrap(),
            "[14:09:31] ○ files: running → stopped  exited: exit status 1\\nboom\\x1b[2J"
        );
        let running = change(Status::Unknown, Status::Running);
        assert_eq!(line(running).unwrap(), "[14:09:31] ● files: unknown → running");
    }

    #[test]
    fn a_finding_that_comes_or_goes_is_no_line() {
        assert_eq!(line(change(Status::Running, Status::Running)), None);
    }
}
