//! From a notification to a mail: one subject, a text and an HTML part, and headers that thread.
//!
//! Every value goes through core's escape for where it stands: a server's name cannot add a
//! header, a line or a tag. Message ids are made of the notification's key, so that a mail that is
//! sent twice is recognised as one, and of the alert's first notification, so that its end stands
//! below its beginning.

use std::fmt::Write as _;
use std::time::{Duration, SystemTime};

use jiff::tz::TimeZone;
use lettre::Message;
use lettre::message::header::{Date, HeaderName, HeaderValue};
use lettre::message::{Mailbox, MultiPart};
use mcpmon_core::alert::{Alert, Notification, NotificationKind};
use mcpmon_core::text::{for_header, for_html, for_terminal, truncate};
use mcpmon_core::time::Timestamp;
use serde_json::Value;

use crate::handlers::wording::{color, headline, line};
use crate::identity::{fnv1a, notification_key};
use crate::message::readable_seconds;

/// Alerts of a digest that are written out; the rest is counted.
const MOST_ALERTS: usize = 50;
/// Rows of evidence and of numbers.
const MOST_ROWS: usize = 40;
/// Longest value of a row, in characters.
const LONGEST_VALUE: usize = 500;

/// What every mail of a handler shares.
#[derive(Debug, Clone)]
pub(super) struct Letterhead {
    from: Mailbox,
    to: Vec<Mailbox>,
    zone: TimeZone,
}

impl Letterhead {
    pub(super) fn new(from: Mailbox, to: Vec<Mailbox>) -> Self {
        Self { from, to, zone: TimeZone::system() }
    }

    /// Writes a mail.
    pub(super) fn write(
        &self,
        notification: &Notification,
        now: Timestamp,
    ) -> Result<Message, lettre::error::Error> {
        let since_epoch = Duration::from_millis(u64::try_from(now.as_millis()).unwrap_or(0));
        let mut mail = Message::builder()
            .from(self.from.clone())
            .header(Date::new(SystemTime::UNIX_EPOCH + since_epoch))
            .subject(subject(notification))
            .message_id(Some(self.message_id(&notification.key)))
            // RFC 3834: no vacation notice need answer this.
            .raw_header(HeaderValue::new(
                HeaderName::new_from_ascii_str("Auto-Submitted"),
                "auto-generated".to_owned(),
            ));
        for to in &self.to {
            mail = mail.to(to.clone());
        }
        if let [alert] = notification.alerts.as_slice() {
            let first = notification_key(&alert.id, NotificationKind::Firing, "");
            if first != notification.key {
                let first = self.message_id(&first);
                mail = mail.in_reply_to(first.clone()).references(first);
            }
        }
        let sections = self.sections(notification);
        let html = html(notification, &sections);
        mail.multipart(MultiPart::alternative_plain_html(text(&sections), html))
    }

    /// The same key gives the same id, whatever is in it.
    fn message_id(&self, key: &str) -> String {
        let readable: String =
            key.chars().take(60).map(|c| if c.is_ascii_alphanumeric() { c } else { '.' }).collect();
        let hash = fnv1a([key]);
        let domain = self.from.email.domain();
        format!("<{}.{hash:016x}@{domain}>", readable.trim_matches('.'))
    }

    fn sections(&self, notification: &Notification) -> Vec<Section> {
        let mut sections: Vec<Section> = notification
            .alerts
            .iter()
            .take(MOST_ALERTS)
            .map(|alert| self.section(notification.kind, alert))
            .collect();
        let left_out = notification.alerts.len().saturating_sub(MOST_ALERTS);
        if left_out > 0 {
            sections.push(Section {
                title: format!("and {left_out} more; `mcpmon alerts` lists them"),
                rows: Vec::new(),
            });
        }
        sections
    }

    fn section(&self, kind: NotificationKind, alert: &Alert) -> Section {
        let mut rows = Rows::default();
        let subject = &alert.subject;
        let names = [
            ("Service", subject.service().map(|service| service.as_str())),
            ("Tool", subject.tool()),
            ("Dependency", subject.dependency()),
            ("Handler", subject.handler()),
        ];
        for (title, name) in names {
            rows.add(title, name.unwrap_or_default());
        }
        rows.add("Rule", &alert.rule_name);
        rows.add("Since", &self.local(alert.timestamp));
        if let Some(end) = alert.resolved_at {
            let lasted = end.since(alert.timestamp).as_secs_f64().round();
            let until = format!("{} (after {})", self.local(end), readable_seconds(lasted));
            rows.add("Until", &until);
        }
        if let Some(failure) = &alert.failure {
            let what = format!("{} in {}: {}", failure.code, failure.phase, failure.message);
            rows.add("Failure", &what);
            if alert.resolved_at.is_none() {
                rows.add("Next step", &failure.next_step);
            }
            for (name, fact) in failure.evidence.iter().take(MOST_ROWS) {
                rows.add(&format!("Evidence: {name}"), &plain(fact));
            }
        }
        for (name, value) in &alert.labels {
            rows.add(&format!("Label: {name}"), value);
        }
        for (name, value) in numbers(alert).take(MOST_ROWS) {
            rows.add(name, &value);
        }
        rows.add("Alert", &alert.id);
        Section { title: line(kind, alert), rows: rows.0 }
    }

    fn local(&self, at: Timestamp) -> String {
        match jiff::Timestamp::from_millisecond(at.as_millis()) {
            Ok(moment) => {
                moment.to_zoned(self.zone.clone()).strftime("%Y-%m-%d %H:%M:%S %:z").to_string()
            }
            Err(_) => at.to_string(),
        }
    }
}

/// One alert, written out: still as it came, not escaped for any part.
struct Section {
    title: String,
    rows: Vec<(String, String)>,
}

#[derive(Default)]
struct Rows(Vec<(String, String)>);

impl Rows {
    fn add(&mut self, name: &str, value: &str) {
        if !value.is_empty() {
            let value = truncate(value, LONGEST_VALUE);
            self.0.push((truncate(name, 80), value));
        }
    }
}

/// What the snapshot says that is not said already: plain values that exist.
fn numbers(alert: &Alert) -> impl Iterator<Item = (&str, String)> {
    let fields = alert.metrics.as_object().into_iter().flatten();
    fields
        .filter(|(name, value)| {
            !matches!(value, Value::Null | Value::Array(_) | Value::Object(_))
                && !matches!(name.as_str(), "service_name" | "tool_name" | "last_error")
        })
        .map(|(name, value)| (name.as_str(), plain(value)))
}

fn plain(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

/// The one subject: a line, however many the server's text had.
fn subject(notification: &Notification) -> String {
    for_header(&format!("[mcpmon] {}", headline(notification)))
}

fn text(sections: &[Section]) -> String {
    let mut out = String::new();
    for section in sections {
        let _ = writeln!(out, "{}\n", for_terminal(&section.title));
        for (name, value) in &section.rows {
            let _ = writeln!(out, "  {}: {}", for_terminal(name), for_terminal(value));
        }
        out.push('\n');
    }
    out
}

fn html(notification: &Notification, sections: &[Section]) -> String {
    const CELL: &str = "padding:2px 12px 2px 0;vertical-align:top";
    let mut out = String::from(
        "<!doctype html><html><head><meta charset=\"utf-8\"></head>\
         <body style=\"font-family:sans-serif\">",
    );
    for (section, alert) in
        sections.iter().zip(notification.alerts.iter().map(Some).chain(std::iter::repeat(None)))
    {
        let color = alert.map_or("#555", |alert| color(notification.kind, alert));
        let _ = write!(out, "<h3 style=\"color:{color}\">{}</h3><table>", for_html(&section.title));
        for (name, value) in &section.rows {
            let _ = write!(
                out,
                "<tr><td style=\"{CELL}\"><b>{}</b></td><td style=\"{CELL}\">{}</td></tr>",
                for_html(name),
                for_html(value)
            );
        }
        out.push_str("</table>\r\n");
    }
    out.push_str("</body></html>\r\n");
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use mcpmon_core::subject::Subject;
    use mcpmon_testkit::{HOSTILE, START, samples};

    fn letterhead() -> Letterhead {
        Letterhead {
            zone: TimeZone::UTC,
            ..Letterhead::new(
                "mcpmon <mcpmon@example.com>".parse().unwrap(),
                vec!["ops@example.com".parse().unwrap(), "Me <me@example.org>".parse().unwrap()],
            )
        }
    }

    fn written(notification: &Notification) -> (Message, String) {
        let mail = letterhead().write(notification, START).unwrap();
        let raw = String::from_utf8(mail.formatted()).unwrap();
        (mail, raw)
    }

    fn headers(raw: &str) -> Vec<(&str, &str)> {
        let (head, _) = raw.split_once("\r\n\r\n").unwrap();
        head.split("\r\n")
            .filter(|line| !line.starts_with([' ', '\t']))
            .map(|line| line.split_once(": ").unwrap())
            .collect()
    }

    fn header<'r>(raw: &'r str, name: &str) -> &'r str {
        let all: Vec<&str> = headers(raw)
            .into_iter()
            .filter(|(found, _)| *found == name)
            .map(|(_, value)| value)
            .collect();
        assert_eq!(all.len(), 1, "{name} in {raw}");
        all[0]
    }

    #[test]
    fn has_both_parts_and_says_what_happened_and_what_to_do() {
        let notification = samples::notification("k", NotificationKind::Firing);
        let (mail, raw) = written(&notification);
        assert!(header(&raw, "Content-Type").starts_with("multipart/alternative"));
        assert!(
            raw.contains("Content-Type: text/plain") && raw.contains("Content-Type: text/html")
        );
        assert_eq!(header(&raw, "Subject"), "[mcpmon] ERROR: files is stopped: connection_refused");
        assert_eq!(header(&raw, "Auto-Submitted"), "auto-generated");
        let sections = letterhead().sections(&notification);
        let (text, html) = (text(&sections), html(&notification, &sections));
        for part in [&text, &html] {
            for word in ["service_down", "connection_refused", "Next step", "platform"] {
                assert!(part.contains(word), "{word} is missing in {part}");
            }
        }
        let envelope = mail.envelope();
        assert_eq!(envelope.from().unwrap().to_string(), "mcpmon@example.com");
        let to: Vec<String> = envelope.to().iter().map(ToString::to_string).collect();
        assert_eq!(to, ["ops@example.com", "me@example.org"]);
    }

    #[test]
    fn a_row_names_what_the_alert_is_about() {
        let expected: [&[(&str, &str)]; 6] = [
            &[("Service", "same")],
            &[("Service", "same"), ("Tool", "same")],
            &[],
            &[],
            &[("Dependency", "same")],
            &[("Handler", "same")],
        ];
        for (subject, expected) in samples::subjects().into_iter().zip(expected) {
            let alert = samples::alert_about("rule", subject);
            let section = letterhead().section(NotificationKind::Firing, &alert);
            let names = section.rows.iter().take_while(|(name, _)| name != "Rule");
            let names: Vec<(&str, &str)> =
                names.map(|(name, value)| (name.as_str(), value.as_str())).collect();
            assert_eq!(names, expected);
            assert!(section.rows.iter().all(|(name, _)| name != "subject"), "not twice");
        }
    }

    #[test]
    fn a_recovery_says_so_and_threads_under_its_alert() {
        let mut firing = samples::notification("x", NotificationKind::Firing);
        firing.key = notification_key(&firing.alerts[0].id, NotificationKind::Firing, "");
        let mut resolved = samples::notification("x", NotificationKind::Resolved);
        resolved.key = notification_key(&resolved.alerts[0].id, NotificationKind::Resolved, "");
        let (first, second) = (written(&firing).1, written(&resolved).1);
        assert!(header(&second, "Subject").starts_with("[mcpmon] RESOLVED: files"));
        let id = header(&first, "Message-ID");
        assert_ne!(id, header(&second, "Message-ID"));
        assert_eq!(header(&second, "In-Reply-To"), id);
        assert_eq!(header(&second, "References"), id);
        assert!(headers(&first).iter().all(|(name, _)| *name != "In-Reply-To"));
        assert!(second.contains("after 1m"), "{second}");
    }

    #[test]
    fn every_attempt_has_the_same_message_id() {
        let notification = samples::notification("k", NotificationKind::Firing);
        let again = notification.clone().at_attempt(4);
        assert_eq!(
            header(&written(&notification).1, "Message-ID"),
            header(&written(&again).1, "Message-ID")
        );
    }

    #[test]
    fn no_text_of_a_server_gets_out_of_its_place() {
        let plain = samples::notification("k", NotificationKind::Firing);
        let usual: Vec<String> =
            headers(&written(&plain).1).into_iter().map(|(name, _)| name.to_owned()).collect();
        for hostile in HOSTILE {
            let mut notification = plain.clone();
            notification.key = (*hostile).to_owned();
            let alert = &mut notification.alerts[0];
            alert.message = (*hostile).to_owned();
            alert.subject = Subject::tool_of(*hostile, *hostile);
            alert.labels.insert((*hostile).to_owned(), (*hostile).to_owned());
            alert.metrics = serde_json::json!({ *hostile: *hostile });
            if let Some(failure) = &mut alert.failure {
                failure.message = (*hostile).to_owned();
                failure.evidence.insert((*hostile).to_owned(), Value::from(*hostile));
            }
            let (mail, raw) = written(&notification);
            let mut names: Vec<&str> = headers(&raw).into_iter().map(|(name, _)| name).collect();
            names.retain(|name| !matches!(*name, "In-Reply-To" | "References"));
            let mut expected: Vec<&str> = usual.iter().map(String::as_str).collect();
            expected.retain(|name| !matches!(*name, "In-Reply-To" | "References"));
            assert_eq!(names, expected, "{hostile:?}");
            assert_eq!(mail.envelope().to().len(), 2, "{hostile:?}");
            assert!(raw.split("\r\n").all(|line| line.len() <= 998), "{hostile:?}");
            check_parts(&notification, hostile);
        }
    }

    #[track_caller]
    fn check_parts(notification: &Notification, hostile: &str) {
        let sections = letterhead().sections(notification);
        let text = text(&sections);
        assert!(
            !text.replace('\n', "").chars().any(mcpmon_core::text::is_deceptive),
            "{hostile:?}"
        );
        let html = html(notification, &sections);
        let ours = [
            "<!doctype",
            "<html>",
            "<head>",
            "<meta ",
            "</head>",
            "<body ",
            "<h3 ",
            "</h3>",
            "<table>",
            "<tr>",
            "<td ",
            "<b>",
            "</b>",
            "</td>",
            "</tr>",
            "</table>",
            "</body>",
            "</html>",
        ];
        for (at, _) in html.match_indices('<') {
            let tag = &html[at..];
            assert!(ours.iter().any(|known| tag.starts_with(known)), "{hostile:?}: {tag:.40}");
        }
    }

    #[test]
    fn a_digest_counts_and_is_capped() {
        let mut digest = samples::notification("k", NotificationKind::Digest);
        let one = digest.alerts[0].clone();
        digest.alerts = vec![one; 1_000];
        let (_, raw) = written(&digest);
        assert!(header(&raw, "Subject").contains("1000 alerts, worst ERROR"));
        assert!(raw.contains("and 950 more"));
        assert!(raw.len() < 500_000, "{}", raw.len());
    }

    #[test]
    fn nothing_at_all_is_still_a_mail() {
        let empty = Notification::new("", NotificationKind::Test, Vec::new());
        assert!(written(&empty).1.contains("Subject: [mcpmon] no alert"));
    }
}
