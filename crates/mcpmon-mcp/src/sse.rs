//! Server-sent events, parsed as they arrive.
//!
//! Follows the WHATWG algorithm ("Interpreting an event stream") with a cap on what one event may
//! hold, checked before a byte is kept.

use std::collections::VecDeque;
use std::time::Duration;

/// One event.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Event {
    /// Its type; empty means `message`.
    pub kind: String,
    /// Its data, lines joined by `\n`. Empty for the priming events some servers send.
    pub data: Vec<u8>,
    /// The stream's last event id when it came.
    pub id: Option<String>,
    /// How long to wait before connecting again, in milliseconds, if it said so.
    pub retry_ms: Option<u64>,
}

impl Event {
    /// Whether this is an ordinary message, by type.
    pub fn is_message(&self) -> bool {
        self.kind.is_empty() || self.kind == "message"
    }
}

/// How long to wait before a stream is taken up again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Retry {
    /// What the server asked for, in milliseconds.
    pub asked_ms: u64,
    /// That, within sane bounds.
    pub pause: Duration,
}

impl Retry {
    /// The pause where the server asks for none.
    pub const DEFAULT: Duration = Duration::from_secs(1);
    /// Shorter ones would be a load on the server that it cannot have meant.
    pub const SHORTEST: Duration = Duration::from_millis(20);
    /// Longer ones would outlast any check.
    pub const LONGEST: Duration = Duration::from_secs(10);

    /// What a `retry` field of this many milliseconds comes to.
    pub fn from_millis(asked_ms: u64) -> Self {
        let pause = Duration::from_millis(asked_ms).clamp(Self::SHORTEST, Self::LONGEST);
        Self { asked_ms, pause }
    }

    /// Whether the bounds made another one of it.
    pub fn is_clamped(self) -> bool {
        Duration::from_millis(self.asked_ms) != self.pause
    }
}

/// An event, or one line of it, is over the cap.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("an event of more than {cap} bytes")]
pub struct EventTooLarge {
    cap: usize,
}

/// Turns chunks of a body into events.
#[derive(Debug)]
pub struct SseParser {
    cap: usize,
    line: Vec<u8>,
    event: Event,
    has_data: bool,
    last_id: Option<String>,
    retry_ms: Option<u64>,
    ready: VecDeque<Event>,
    after_cr: bool,
    first_line: bool,
}

impl SseParser {
    /// A parser whose events are at most `cap` bytes each.
    pub fn new(cap: usize) -> Self {
        Self {
            cap,
            line: Vec::new(),
            event: Event::default(),
            has_data: false,
            last_id: None,
            retry_ms: None,
            ready: VecDeque::new(),
            after_cr: false,
            first_line: true,
        }
    }

    /// Takes the next chunk; whole events are then given by [`SseParser::next_event`].
    ///
    /// # Errors
    ///
    /// [`EventTooLarge`]; the parser is of no more use then.
    pub fn push(&mut self, mut chunk: &[u8]) -> Result<(), EventTooLarge> {
        if self.after_cr {
            self.after_cr = false;
            chunk = chunk.strip_prefix(b"\n").unwrap_or(chunk);
        }
        while !chunk.is_empty() {
            let end = chunk.iter().position(|byte| matches!(byte, b'\n' | b'\r'));
            let part = &chunk[..end.unwrap_or(chunk.len())];
            if self.line.len() + self.event.data.len() + part.len() > self.cap {
                return Err(EventTooLarge { cap: self.cap });
            }
            let Some(end) = end else {
                self.line.extend_from_slice(part);
                break;
            };
            // Lines that lie whole inside a chunk, nearly all of them, are never copied.
            if self.line.is_empty() {
                self.take_line(part);
            } else {
                let mut line = std::mem::take(&mut self.line);
                line.extend_from_slice(part);
                self.take_line(&line);
                line.clear();
                self.line = line;
            }
            let is_cr = chunk[end] == b'\r';
            chunk = &chunk[end + 1..];
            if is_cr {
                self.after_cr = chunk.is_empty();
                chunk = chunk.strip_prefix(b"\n").unwrap_or(chunk);
            }
        }
        Ok(())
    }

    /// The next whole event.
    pub fn next_event(&mut self) -> Option<Event> {
        self.ready.pop_front()
    }

    /// The id of the last event, to go on after it on another stream. Events without data count.
    pub fn last_id(&self) -> Option<&str> {
        self.last_id.as_deref()
    }

    /// How long to wait before that, in milliseconds, if the stream said so.
    pub fn retry_ms(&self) -> Option<u64> {
        self.retry_ms
    }

    fn take_line(&mut self, line: &[u8]) {
        let line = if std::mem::take(&mut self.first_line) {
            line.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(line)
        } else {
            line
        };
        if line.is_empty() {
            return self.dispatch();
        }
        let (field, value) = match line.iter().position(|byte| *byte == b':') {
            Some(0) => return,
            Some(colon) => {
                let value = &line[colon + 1..];
                (&line[..colon], value.strip_prefix(b" ").unwrap_or(value))
            }
            None => (line, &b""[..]),
        };
        match field {
            b"data" => {
                if self.has_data {
                    self.event.data.push(b'\n');
                }
                self.has_data = true;
                self.event.data.extend_from_slice(value);
            }
            b"event" => self.event.kind = String::from_utf8_lossy(value).into_owned(),
            b"id" if !value.contains(&0) => {
                self.last_id = Some(String::from_utf8_lossy(value).into_owned());
            }
            b"retry" if !value.is_empty() && value.iter().all(u8::is_ascii_digit) => {
                self.event.retry_ms =
                    std::str::from_utf8(value).ok().and_then(|digits| digits.parse().ok());
                self.retry_ms = self.event.retry_ms.or(self.retry_ms);
            }
            _ => {}
        }
    }

    fn dispatch(&mut self) {
        let mut event = std::mem::take(&mut self.event);
        if std::mem::take(&mut self.has_data) {
            event.id.clone_from(&self.last_id);
            self.ready.push_back(event);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn events(chunks: &[&[u8]]) -> Vec<Event> {
        let mut parser = SseParser::new(1_000);
        for chunk in chunks {
            parser.push(chunk).unwrap();
        }
        std::iter::from_fn(|| parser.next_event()).collect()
    }

    fn data(text: &str) -> Vec<String> {
        let events = events(&[text.as_bytes()]);
        events.into_iter().map(|event| String::from_utf8(event.data).unwrap()).collect()
    }

    #[test]
    fn reads_what_the_standard_says() {
        assert_eq!(data("data: a\n\n"), ["a"]);
        assert_eq!(data("data:a\ndata: b\r\n\r\n"), ["a\nb"]);
        assert_eq!(data(": comment\n\ndata: x\r\rdata: y\n\n"), ["x", "y"]);
        assert_eq!(data("\u{FEFF}data: a\n\n"), ["a"]);
        assert_eq!(data("data\n\n"), [""]);
        assert_eq!(data("event: ping\n\n"), [""; 0]);
        assert_eq!(data("data: cut off\n"), [""; 0]);
    }

    #[test]
    fn keeps_type_id_and_retry() {
        let got = events(&[b"id: 7\nevent: endpoint\nretry: 250\ndata: /m\n\ndata: z\n\n"]);
        assert_eq!(got[0].kind, "endpoint");
        assert_eq!(got[0].retry_ms, Some(250));
        assert!(!got[0].is_message() && got[1].is_message());
        assert_eq!(got[1].id.as_deref(), Some("7"));
    }

    #[test]
    fn where_to_go_on_is_known_from_events_without_data_too() {
        let mut parser = SseParser::new(1_000);
        parser.push(b"id: 7\nretry: 0\n\n").unwrap();
        assert_eq!(
            (parser.next_event(), parser.last_id(), parser.retry_ms()),
            (None, Some("7"), Some(0))
        );
    }

    #[test]
    fn a_pause_is_kept_within_bounds() {
        for (asked, pause, clamped) in [
            (0, 20, true),
            (20, 20, false),
            (500, 500, false),
            (10_001, 10_000, true),
            (u64::MAX, 10_000, true),
        ] {
            let retry = Retry::from_millis(asked);
            assert_eq!((retry.pause.as_millis(), retry.is_clamped()), (pause, clamped), "{asked}");
        }
    }

    #[test]
    fn an_event_over_the_cap_is_refused_before_it_is_kept() {
        let mut parser = SseParser::new(10);
        assert_eq!(parser.push(b"data: 123"), Ok(()));
        assert_eq!(parser.push(&[b'4'; 64]), Err(EventTooLarge { cap: 10 }));
        let mut parser = SseParser::new(10);
        assert_eq!(
            parser.push(b"data: 12\ndata: 34\ndata: 567890"),
            Err(EventTooLarge { cap: 10 })
        );
    }

    proptest! {
        #[test]
        fn chunking_never_changes_the_events(
            text in "(data: ?[a-z]{0,6}|id: [0-9]|event: m|:c|retry: [0-9]{1,3}|\u{FEFF}|x)?(\r|\n|\r\n){1,2}.{0,40}(\n|\r){0,3}data: q\r\n\r\n",
            cuts in prop::collection::vec(1_usize..9, 1..40),
        ) {
            let bytes = text.as_bytes();
            let mut chunks = Vec::new();
            let mut rest = bytes;
            for cut in cuts.iter().cycle() {
                if rest.is_empty() {
                    break;
                }
                let (chunk, tail) = rest.split_at((*cut).min(rest.len()));
                chunks.push(chunk);
                rest = tail;
            }
            prop_assert_eq!(events(&chunks), events(&[bytes]));
        }

        #[test]
        fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..500)) {
            let mut parser = SseParser::new(64);
            for chunk in bytes.chunks(7) {
                if parser.push(chunk).is_err() {
                    break;
                }
            }
        }
    }
}
