//! Alerts as lines on a terminal or in a log: `ICON [YYYY-MM-DD HH:MM:SS] LEVEL: message`.

use std::fmt;
use std::io::{self, Write};
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use jiff::tz::TimeZone;
use mcpmon_core::alert::{Alert, DeliveryError, Handler, Notification, NotificationKind, Receipt};
use mcpmon_core::settings::{HandlerSettings, SettingsError};
use mcpmon_core::status::Level;
use mcpmon_core::text::for_terminal;
use mcpmon_core::time::{Clock, SystemClock, Timestamp};
use serde::Deserialize;

use super::taken_on::acknowledged;
use crate::message::readable_seconds;

/// How a line looks; whoever knows the terminal decides.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ConsoleStyle {
    /// Icons and text beyond ASCII; without it, letters and escapes.
    pub unicode: bool,
    /// The level in colour.
    pub color: bool,
}

impl Default for ConsoleStyle {
    fn default() -> Self {
        Self { unicode: true, color: false }
    }
}

/// Writes one line for each alert to the writer it is given.
pub struct ConsoleHandler {
    name: String,
    writer: Mutex<Box<dyn Write + Send>>,
    style: ConsoleStyle,
    zone: TimeZone,
    clock: Arc<dyn Clock>,
}

/// The console has no keys of its own, and says so to whoever writes one.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct ConsoleSettings {}

impl ConsoleHandler {
    /// A handler named `console` that writes to `writer`, in local time.
    pub fn new(writer: impl Write + Send + 'static) -> Self {
        Self {
            name: "console".to_owned(),
            writer: Mutex::new(Box::new(writer)),
            style: ConsoleStyle::default(),
            zone: TimeZone::system(),
            clock: Arc::new(SystemClock),
        }
    }

    /// Another name.
    #[must_use]
    pub fn named(mut self, name: impl Into<String>) -> Self {
        self.name = name.into();
        self
    }

    /// Another look.
    #[must_use]
    pub fn style(mut self, style: ConsoleStyle) -> Self {
        self.style = style;
        self
    }

    /// Times in UTC rather than local ones.
    #[must_use]
    pub fn utc(mut self) -> Self {
        self.zone = TimeZone::UTC;
        self
    }

    /// Another clock; it is asked when a reminder is written.
    #[must_use]
    pub fn clock(mut self, clock: Arc<dyn Clock>) -> Self {
        self.clock = clock;
        self
    }

    /// The factory of kind `console` for a [`HandlerRegistry`](crate::HandlerRegistry): `open`
    /// gives the writer.
    pub fn factory<W: Write + Send + 'static>(
        style: ConsoleStyle,
        open: impl Fn() -> W + Send + Sync + 'static,
    ) -> impl Fn(&HandlerSettings) -> Result<Box<dyn Handler>, SettingsError> + Send + Sync {
        move |settings| {
            let ConsoleSettings {} = settings.parse()?;
            let handler = Self::new(open()).named(&settings.name).style(style);
            Ok(Box::new(handler))
        }
    }

    fn line(&self, kind: NotificationKind, alert: &Alert) -> String {
        let (at, word, remark) = self.wording(kind, alert);
        let icon = icon(kind, alert.level, self.style.unicode);
        let time = self.local(at);
        let word = self.colored(kind, alert.level, word);
        let mut message = for_terminal(&alert.message);
        if !self.style.unicode {
            message = in_ascii(&message);
        }
        format!("{icon} [{time}] {word}: {message}{remark}\n")
    }

    /// When it was, the word that stands for the level, and what is added to the message.
    fn wording(&self, kind: NotificationKind, alert: &Alert) -> (Timestamp, String, String) {
        let level = alert.level.as_str().to_uppercase();
        let lasted = |until: Timestamp| {
            let seconds = until.since(alert.timestamp).as_secs_f64();
            readable_seconds(seconds.round())
        };
        match (kind, alert.resolved_at) {
            (NotificationKind::Test, _) => (self.clock.now(), "TEST".to_owned(), String::new()),
            (_, Some(end)) => {
                let (word, why) = match &alert.ended_because {
                    None => ("RESOLVED", String::new()),
                    Some(why) => ("ENDED", format!("{}; ", for_terminal(why))),
                };
                (end, word.to_owned(), format!(" ({why}{level}, lasted {})", lasted(end)))
            }
            (NotificationKind::Resolved, None) => {
                (self.clock.now(), "RESOLVED".to_owned(), format!(" ({level})"))
            }
            (NotificationKind::Reminder, None) => {
                let now = self.clock.now();
                (now, level, format!(" (still firing, for {})", lasted(now)))
            }
            (NotificationKind::Acknowledged, None) => {
                let taken_on = for_terminal(&acknowledged(alert));
                (self.clock.now(), level, format!(", {taken_on}"))
            }
            (_, None) => (alert.timestamp, level, String::new()),
        }
    }

    fn local(&self, at: Timestamp) -> String {
        match jiff::Timestamp::from_millisecond(at.as_millis()) {
            Ok(moment) => {
                moment.to_zoned(self.zone.clone()).strftime("%Y-%m-%d %H:%M:%S").to_string()
            }
            Err(_) => at.to_string(),
        }
    }

    fn colored(&self, kind: NotificationKind, level: Level, word: String) -> String {
        if !self.style.color {
            return word;
        }
        let code = match (kind, level) {
            (NotificationKind::Resolved, _) => "32",
            (_, Level::Critical) => "1;31",
            (_, Level::Error) => "31",
            (_, Level::Warning) => "33",
            (_, Level::Info) => "36",
        };
        format!("\u{1b}[{code}m{word}\u{1b}[0m")
    }
}

fn icon(kind: NotificationKind, level: Level, unicode: bool) -> &'static str {
    let says_level = matches!(
        kind,
        NotificationKind::Firing | NotificationKind::Reminder | NotificationKind::Digest
    );
    match (says_level, level, unicode) {
        (true, Level::Info, true) => "ℹ️",
        (true, Level::Warning, true) => "⚠️",
        (true, Level::Error, true) => "❌",
        (true, Level::Critical, true) => "🚨",
        (false, _, true) => "📢",
        (true, Level::Info, false) => "i",
        (true, Level::Warning, false) => "!",
        (true, Level::Error, false) => "X",
        (true, Level::Critical, false) => "!!",
        (false, _, false) => "*",
    }
}

fn in_ascii(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        if c.is_ascii() {
            out.push(c);
        } else {
            out.extend(c.escape_unicode());
        }
    }
    out
}

impl fmt::Debug for ConsoleHandler {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ConsoleHandler")
            .field("name", &self.name)
            .field("style", &self.style)
            .finish_non_exhaustive()
    }
}

#[async_trait]
impl Handler for ConsoleHandler {
    fn name(&self) -> &str {
        &self.name
    }

    async fn deliver(&self, notification: &Notification) -> Result<Receipt, DeliveryError> {
        let lines: String =
            notification.alerts.iter().map(|alert| self.line(notification.kind, alert)).collect();
        let mut writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
        let written = writer.write_all(lines.as_bytes()).and_then(|()| writer.flush());
        match written {
            Ok(()) => Ok(Receipt::accepted()),
            // Whoever read this has gone; nothing written later would be read either.
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {
                Err(DeliveryError::permanent(error))
            }
            Err(error) => Err(DeliveryError::transient(error)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use mcpmon_core::text::is_deceptive;
    use mcpmon_testkit::{FakeClock, HOSTILE, START, handler_conformance, samples};

    /// Keeps what was written where a test can read it.
    #[derive(Clone, Default)]
    struct Paper(Arc<Mutex<Vec<u8>>>);

    impl Write for Paper {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    impl Paper {
        fn text(&self) -> String {
            String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
        }
    }

    async fn written(style: ConsoleStyle, notification: &Notification) -> String {
        let paper = Paper::default();
        let later = START.saturating_add(std::time::Duration::from_secs(600));
        let handler = ConsoleHandler::new(paper.clone())
            .style(style)
            .utc()
            .clock(Arc::new(FakeClock::at(later)));
        handler.deliver(notification).await.unwrap();
        paper.text()
    }

    #[track_caller]
    fn check(line: &str, icon: &str, rest: &str) {
        let (found, after) = line.split_once(' ').unwrap();
        assert_eq!(found, icon, "{line}");
        let time = &after[..21];
        assert!(time.starts_with('[') && time.ends_with(']'), "{line}");
        assert_eq!(&after[22..], rest, "{line}");
    }

    #[tokio::test]
    async fn one_line_for_each_level() {
        let levels = [
            (Level::Info, "ℹ️", "i", "INFO"),
            (Level::Warning, "⚠️", "!", "WARNING"),
            (Level::Error, "❌", "X", "ERROR"),
            (Level::Critical, "🚨", "!!", "CRITICAL"),
        ];
        for (level, icon, letter, word) in levels {
            let mut notification = samples::notification("k", NotificationKind::Firing);
            notification.alerts[0].level = level;
            notification.alerts[0].message = "files är kaputt".to_owned();
            let line = written(ConsoleStyle::default(), &notification).await;
            check(&line, icon, &format!("{word}: files är kaputt\n"));
            let plain = ConsoleStyle { unicode: false, color: false };
            let line = written(plain, &notification).await;
            assert!(line.is_ascii());
            check(&line, letter, &format!("{word}: files \\u{{e4}}r kaputt\n"));
        }
    }

    #[tokio::test]
    async fn the_end_and_a_reminder_say_so() {
        let resolved = samples::notification("k", NotificationKind::Resolved);
        let line = written(ConsoleStyle::default(), &resolved).await;
        check(&line, "📢", "RESOLVED: files is stopped: connection_refused (ERROR, lasted 1m)\n");
        let reminder = samples::notification("k", NotificationKind::Reminder);
        let line = written(ConsoleStyle::default(), &reminder).await;
        check(&line, "❌", "ERROR: files is stopped: connection_refused (still firing, for 10m)\n");
    }

    #[tokio::test]
    async fn a_digest_is_a_line_for_each_alert() {
        let digest = samples::notification("k", NotificationKind::Digest);
        let text = written(ConsoleStyle::default(), &digest).await;
        assert_eq!(text.lines().count(), 3);
    }

    #[tokio::test]
    async fn only_our_own_colour_reaches_the_terminal() {
        let color = ConsoleStyle { unicode: true, color: true };
        for hostile in HOSTILE {
            let mut notification = samples::notification("k", NotificationKind::Firing);
            notification.alerts[0].message = (*hostile).to_owned();
            let plain = written(ConsoleStyle::default(), &notification).await;
            let line = plain.strip_suffix('\n').unwrap();
            assert!(!line.chars().any(is_deceptive), "{line:?}");
            let colored = written(color, &notification).await;
            let stripped = colored.replace("\u{1b}[31m", "").replace("\u{1b}[0m", "");
            assert_eq!(stripped, plain);
        }
    }

    #[tokio::test]
    async fn a_reader_that_is_gone_is_permanent_and_a_full_disk_is_not() {
        struct Failing(io::ErrorKind);
        impl Write for Failing {
            fn write(&mut self, _: &[u8]) -> io::Result<usize> {
                Err(self.0.into())
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let notification = samples::notification("k", NotificationKind::Firing);
        for (kind, is_transient) in
            [(io::ErrorKind::BrokenPipe, false), (io::ErrorKind::StorageFull, true)]
        {
            let handler = ConsoleHandler::new(Failing(kind));
            let error = handler.deliver(&notification).await.unwrap_err();
            assert_eq!(error.is_transient(), is_transient, "{kind}");
        }
    }

    #[test]
    fn its_factory_takes_a_name_and_refuses_other_keys() {
        let factory = ConsoleHandler::factory(ConsoleStyle::default(), Vec::new);
        let settings = HandlerSettings::new("screen", "console");
        assert_eq!(factory(&settings).unwrap().name(), "screen");
        let error = factory(&settings.with("colour", true)).err().unwrap();
        assert!(error.to_string().contains("colour"), "{error}");
    }

    #[tokio::test]
    async fn keeps_the_promises_of_a_handler() {
        handler_conformance(&ConsoleHandler::new(Paper::default())).await;
    }
}
