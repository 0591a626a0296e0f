//! Server-sent events: however the body is cut into chunks the events are the same, and none holds
//! more than the cap.
#![no_main]

use libfuzzer_sys::fuzz_target;
use mcpmon_mcp::sse::{Event, Retry, SseParser};

const CAP: usize = 100;

/// The events up to the first that is too large, and whether there was one.
fn events(chunks: impl Iterator<Item = impl AsRef<[u8]>>) -> (Vec<Event>, bool) {
    let mut parser = SseParser::new(CAP);
    let mut found = Vec::new();
    for chunk in chunks {
        let refused = parser.push(chunk.as_ref()).is_err();
        found.extend(std::iter::from_fn(|| parser.next_event()));
        if refused {
            return (found, true);
        }
    }
    if let Some(asked) = parser.retry_ms() {
        let pause = Retry::from_millis(asked).pause;
        assert!((Retry::SHORTEST..=Retry::LONGEST).contains(&pause));
    }
    (found, false)
}

fuzz_target!(|bytes: &[u8]| {
    let Some((first, rest)) = bytes.split_first() else {
        return;
    };
    let whole = events(std::iter::once(rest));
    for event in &whole.0 {
        assert!(event.data.len() <= CAP, "{event:?}");
        assert!(!event.data.contains(&b'\r'));
    }
    assert_eq!(whole, events(rest.chunks(usize::from(*first % 17) + 1)));
});
