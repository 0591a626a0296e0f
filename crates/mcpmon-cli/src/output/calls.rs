//! The configured calls of a round, each on its line.

use std::time::Duration;

use mcpmon_core::Status;
use mcpmon_core::contract::CheckReport;

use super::style::{Look, status_style};
use super::table::{Align, Cell, Table};
use super::words;

/// Every call that was asked for, with what is wrong beside the tool; nothing where there were none.
pub(crate) fn render_calls(report: &CheckReport, width: Option<usize>, look: Look) -> String {
    let mut table = Table::new(&[
        ("CALL", Align::Left),
        ("SERVICE", Align::Left),
        ("TOOL", Align::Left),
        ("TIME", Align::Right),
        ("WHY", Align::Left),
    ]);
    let mut rows = 0;
    for service in &report.services {
        for call in service.calls.iter().flatten() {
            let (status, word) = match &call.failure {
                None => (Status::Running, "ok"),
                Some(failure) if failure.code.status() == Status::Unknown => {
                    (Status::Unknown, "not judged")
                }
                Some(_) => (Status::Error, "failed"),
            };
            let why = call.failure.as_ref().map_or_else(String::new, ToString::to_string);
            table.row([
                Cell::new(format!("{} {word}", look.glyph(status))).styled(status_style(status)),
                Cell::new(service.service.as_str()),
                Cell::new(&call.tool),
                words::span(Duration::from_secs_f64(call.duration_ms.max(0.0) / 1_000.0)).into(),
                why.into(),
            ]);
            rows += 1;
        }
    }
    if rows == 0 { String::new() } else { format!("{}\n", table.render(width, look)) }
}

#[cfg(test)]
mod tests {
    use mcpmon_core::contract::{CallReport, ServiceReport};
    use mcpmon_core::{Failure, FailureCode, Phase, Timestamp};

    use super::*;

    fn report(calls: Vec<CallReport>) -> CheckReport {
        let mut service = ServiceReport::unasked("files".into(), "stdio", Status::Error);
        service.calls = Some(calls);
        CheckReport::new(Timestamp::default(), vec![service])
    }

    #[test]
    fn each_call_is_a_line_and_its_text_stays_in_it() {
        let call = |tool: &str, failure: Option<FailureCode>| CallReport {
            tool: tool.to_owned(),
            duration_ms: 12.4,
            failure: failure.map(|code| Failure::new(code, Phase::Call, "a\u{1b}[2Jb\nc")),
        };
        let report = report(vec![
            call("list", None),
            call("read", Some(FailureCode::FunctionalMismatch)),
            call("write", Some(FailureCode::FunctionalRefused)),
        ]);
        let text = render_calls(&report, Some(80), Look::plain());
        let lines: Vec<&str> = text.lines().collect();
        assert!(lines[1].starts_with("\u{25cf} ok"), "{text}");
        assert!(lines[2].contains("failed") && lines[2].contains("functional_mismatch"), "{text}");
        assert!(lines[3].contains("not judged"), "{text}");
        assert_eq!(lines.len(), 5, "a line each, and an empty one\n{text}");
        assert!(!text.contains('\u{1b}'));
    }

    #[test]
    fn no_calls_are_no_table() {
        assert_eq!(render_calls(&report(Vec::new()), None, Look::plain()), "");
    }
}
