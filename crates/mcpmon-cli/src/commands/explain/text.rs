//! An explanation as people read it: what is, since when, why, what to do, what was before.

use anstyle::Style;
use jiff::tz::TimeZone;
use mcpmon_core::contract::{CodeKind, ExplainedCode, ExplainedService, ServiceReport};
use mcpmon_core::failure::Evidence;
use mcpmon_core::observation::Phases;
use mcpmon_core::remedy::{AuditEntry, RepairOutcome};
use mcpmon_core::state::StatusChange;
use mcpmon_core::{Timestamp, text};
use serde_json::Value;
use std::time::Duration;
use unicode_width::UnicodeWidthStr as _;

use crate::output::{
    Align, Cell, Indent, Look, Table, local_day, repair, span, status_style, wrap,
};

/// How an explanation is drawn.
#[derive(Debug, Clone)]
pub(super) struct Drawing {
    pub(super) width: Option<usize>,
    pub(super) look: Look,
    pub(super) zone: TimeZone,
    pub(super) now: Timestamp,
}

impl Drawing {
    /// Every code in a line.
    pub(super) fn list(&self, codes: &[ExplainedCode]) -> String {
        let mut out = String::new();
        for (kind, heading, second) in
            [(CodeKind::Failure, "FAILURE", "STATUS"), (CodeKind::Finding, "FINDING", "COUNTS")]
        {
            let mut table = Table::new(&[
                (heading, Align::Left),
                (second, Align::Left),
                ("MEANS", Align::Left),
            ]);
            for code in codes.iter().filter(|code| code.kind == kind) {
                let counts = match code.status {
                    Some(status) => Cell::new(status.as_str()).styled(status_style(status)),
                    None if code.degrading => Cell::new("degrading"),
                    None => Cell::new("informs"),
                };
                table.row([Cell::new(&code.code), counts, Cell::new(&code.summary)]);
            }
            if !out.is_empty() {
                out.push('\n');
            }
            out.push_str(&table.render(self.width, self.look));
        }
        out
    }

    /// The catalogue's section on a code.
    pub(super) fn code(&self, code: &ExplainedCode) -> String {
        let what = match (code.kind, code.status) {
            (_, Some(status)) => format!("failure, {status}"),
            (_, None) if code.degrading => "finding, degrading".to_owned(),
            (_, None) => "finding, informs".to_owned(),
        };
        let name = self.look.paint(&code.code, Style::new().bold());
        let mut out = format!("{name} ({what})\n");
        for paragraph in code.meaning.lines() {
            out.push_str(&self.prose(paragraph, "  "));
        }
        for (name, body) in [
            ("Evidence", &code.evidence),
            ("Usual causes", &code.usual_causes),
            ("Next", &code.next_step),
        ] {
            if let Some(body) = body {
                out.push_str(&format!("\n  {}\n", self.heading(name)));
                out.push_str(&self.prose(body, "    "));
            }
        }
        out
    }

    /// A service: what is wrong with it, and the catalogue on that.
    pub(super) fn service(&self, service: &ExplainedService, codes: &[ExplainedCode]) -> String {
        let check = &service.check;
        let mut out = self.headline(service);
        if let Some(failure) = &check.failure {
            out.push('\n');
            let message = format!("{}: {}", failure.code, text::for_terminal(&failure.message));
            out.push_str(&self.prose(&message, ""));
            out.push_str(&self.fact("failed in", failure.phase.as_str()));
        }
        out.push_str(&self.last_check(service));
        if let Some(failure) = &check.failure {
            out.push_str(&self.evidence("Evidence", &failure.evidence));
        }
        out.push_str(&self.findings(check));
        if let Some(failure) = &check.failure {
            out.push_str(&format!("\n{}\n", self.heading("Next")));
            out.push_str(&self.prose(&text::for_terminal(&failure.next_step), "  "));
        }
        out.push_str(&self.repairs(&service.repairs));
        out.push_str(&self.changes(&service.changes));
        for code in codes {
            out.push('\n');
            out.push_str(&self.code(code));
        }
        out
    }

    fn headline(&self, service: &ExplainedService) -> String {
        let ServiceReport { service: name, status, failure, findings, .. } = &service.check;
        let look = self.look;
        let name = look.paint(&text::for_terminal(name.as_str()), Style::new().bold());
        let word = look.paint(&format!("{} {status}", look.glyph(*status)), status_style(*status));
        let since = local_day(service.since, &self.zone);
        let age = age(self.now.since(service.since));
        let mut out = format!("{name}  {word}  since {since} ({age})\n");
        if failure.is_none() && findings.is_empty() && status.is_available() {
            out.push_str("nothing is wrong with it\n");
        }
        if !service.watched {
            out.push_str("no monitor watches it now; this is how it was seen last\n");
        }
        out
    }

    fn last_check(&self, service: &ExplainedService) -> String {
        let check = &service.check;
        let Some(at) = service.last_check_at else {
            return self.fact("last check", "never yet, so there is nothing to go by");
        };
        let when = local_day(at, &self.zone);
        let ago = age(self.now.since(at));
        let mut out = self.fact("last check", &format!("{when} ({ago} ago)"));
        let timings = timings(&check.phases, check.latency_ms, check.total_ms);
        if !timings.is_empty() {
            out.push_str(&self.fact("took", &timings));
        }
        let spoken = [
            Some(check.transport.as_str()),
            check.era.as_ref().map(|era| era.as_str()),
            check.protocol_version.as_deref(),
        ];
        let spoken: Vec<&str> = spoken.into_iter().flatten().collect();
        out.push_str(&self.fact("speaks", &text::for_terminal(&spoken.join(" "))));
        if let Some(server) = &check.server {
            let server = format!("{} {}", server.name, server.version);
            out.push_str(&self.fact("server", text::for_terminal(&server).trim()));
        }
        out
    }

    /// One named fact of the service.
    fn fact(&self, name: &str, value: &str) -> String {
        let first = format!("  {name:<11} ");
        wrap(value, self.width, Indent { first: &first, rest: &" ".repeat(14) })
    }

    /// What was kept, each fact on a line of its own and long ones below their name.
    fn evidence(&self, heading: &str, evidence: &Evidence) -> String {
        if evidence.is_empty() {
            return String::new();
        }
        let mut out = format!("\n{}\n", self.heading(heading));
        out.push_str(&facts(evidence, "  "));
        out
    }

    fn findings(&self, check: &ServiceReport) -> String {
        if check.findings.is_empty() {
            return String::new();
        }
        let mut out = format!("\n{}\n", self.heading("Findings"));
        for finding in &check.findings {
            let message = format!("{}: {}", finding.code, text::for_terminal(&finding.message));
            out.push_str(&wrap(&message, self.width, Indent { first: "  ", rest: "    " }));
            out.push_str(&facts(&finding.evidence, "    "));
        }
        out
    }

    /// What was done to repair it, newest first.
    fn repairs(&self, repairs: &[AuditEntry]) -> String {
        if repairs.is_empty() {
            return String::new();
        }
        let mut out = format!("\n{}\n", self.heading("Repairs"));
        for entry in repairs {
            let first = format!("  {}  ", local_day(entry.at, &self.zone));
            let rest = " ".repeat(first.width());
            let indent = Indent { first: &first, rest: &rest };
            out.push_str(&wrap(&repair(entry, self.look), self.width, indent));
            // What it wrote says why it went wrong; of one that helped it is noise.
            if entry.outcome == RepairOutcome::Failed {
                for line in &entry.last_lines {
                    let line = text::for_terminal(line);
                    let indent = Indent { first: &rest, rest: &rest };
                    out.push_str(&wrap(&format!("| {line}"), self.width, indent));
                }
            }
        }
        out
    }

    /// What happened before, newest first.
    fn changes(&self, changes: &[StatusChange]) -> String {
        if changes.is_empty() {
            return String::new();
        }
        let mut out = format!("\n{}\n", self.heading("Before"));
        let arrow = self.look.arrow();
        for change in changes {
            let when = local_day(change.at, &self.zone);
            let step = if change.from == change.status {
                format!("still {}", change.status)
            } else {
                format!("{} {arrow} {}", change.from, change.status)
            };
            let odd = change.findings.iter().map(|finding| finding.code.as_str());
            let why = match &change.failure {
                Some(failure) => text::for_terminal(&failure.to_string()),
                None => odd.collect::<Vec<_>>().join(", "),
            };
            let dot = self.look.dot();
            let line = if why.is_empty() { step } else { format!("{step} {dot} {why}") };
            let first = format!("  {when}  ");
            let rest = " ".repeat(first.width());
            out.push_str(&wrap(&line, self.width, Indent { first: &first, rest: &rest }));
        }
        out
    }

    fn heading(&self, text: &str) -> String {
        self.look.paint(text, Style::new().bold())
    }

    fn prose(&self, text: &str, indent: &str) -> String {
        wrap(text, self.width, Indent::all(indent))
    }
}

fn facts(evidence: &Evidence, indent: &str) -> String {
    let widest = evidence.keys().map(|key| key.width()).max().unwrap_or(0).min(20);
    let mut out = String::new();
    for (key, value) in evidence {
        let key = text::for_terminal(key);
        match value {
            Value::Array(lines) if !lines.is_empty() => {
                out.push_str(&format!("{indent}{key}\n"));
                for line in lines {
                    out.push_str(&format!("{indent}  {}\n", told(line)));
                }
            }
            value => out.push_str(&format!("{indent}{key:<widest$}  {}\n", told(value))),
        }
    }
    out
}

/// A fact on one line, quoted as little as can be.
fn told(value: &Value) -> String {
    match value {
        Value::String(text) => text::for_terminal(text),
        other => text::for_terminal(&other.to_string()),
    }
}

fn timings(phases: &Phases, latency_ms: Option<f64>, total_ms: Option<f64>) -> String {
    let parts = [
        ("spawn", phases.spawn_ms),
        ("DNS", phases.dns_ms),
        ("connect", phases.connect_ms),
        ("TLS", phases.tls_ms),
        ("handshake", phases.handshake_ms),
        ("list", phases.list_ms),
        ("response", latency_ms),
        ("in all", total_ms),
    ];
    let told = parts.into_iter().filter_map(|(name, millis)| {
        let time = Duration::try_from_secs_f64(millis? / 1_000.0).ok()?;
        Some(format!("{name} {}", span(time)))
    });
    told.collect::<Vec<_>>().join(", ")
}

/// `40 s`, `12 min`, `3 h`, `5 d`: how long ago, as far as it matters.
fn age(span: Duration) -> String {
    match span.as_secs() {
        seconds if seconds < 120 => format!("{seconds} s"),
        seconds if seconds < 120 * 60 => format!("{} min", seconds / 60),
        seconds if seconds < 48 * 3_600 => format!("{} h", seconds / 3_600),
        seconds => format!("{} d", seconds / 86_400),
    }
}
