//! What one conversation with a service teaches about how to open the next.
//!
//! Whoever holds sessions of a service holds one of these for it, since a session that ended can
//! teach nothing any more.

use std::time::Duration;

use mcpmon_core::status::Era;

use crate::lists::TemplateSupport;
use tokio::time::Instant;

/// How often the deprecated transport is looked for where nothing takes a POST: looking is a GET,
/// for which some servers open a session they never close.
const LOOK_AGAIN: Duration = Duration::from_secs(3_600);

/// What is remembered of a service from one opening to the next. New, it knows nothing.
#[derive(Debug, Clone, Default)]
pub struct Memory {
    /// The era it spoke last.
    pub era: Option<Era>,
    /// Whether it spoke the deprecated HTTP+SSE last, where it is reached over HTTP.
    pub events: Option<bool>,
    /// When HTTP+SSE was last looked for and not found.
    looked: Option<Instant>,
    /// What requests for its resource templates led to ([`super::Session::template_support`]).
    pub templates: TemplateSupport,
}

impl Memory {
    /// A memory of nothing but the era.
    pub fn of_era(era: Era) -> Self {
        Self { era: Some(era), ..Self::default() }
    }

    /// Whether an event stream is asked for first: where one was found last time, or where the
    /// path says so.
    pub(super) fn begins_with_events(&self, path: &str) -> bool {
        self.events.unwrap_or_else(|| path.trim_end_matches('/').ends_with("/sse"))
    }

    /// Whether one may be looked for at `now`, when nothing else is left.
    pub(super) fn may_look(&self, now: Instant) -> bool {
        self.looked.is_none_or(|then| now.saturating_duration_since(then) >= LOOK_AGAIN)
    }

    pub(super) fn looked_in_vain(&mut self, now: Instant) {
        self.looked = Some(now);
    }

    pub(super) fn found(&mut self, era: Era, events: bool) {
        let found = Self { era: Some(era), events: Some(events), ..Self::default() };
        *self = Self { templates: self.templates, ..found };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_deprecated_transport_is_asked_for_first_by_path_or_by_memory() {
        let memory = |events| Memory { events, ..Memory::default() };
        let cases = [
            (None, "/sse", true),
            (None, "/api/sse/", true),
            (None, "/mcp", false),
            (None, "/notsse", false),
            (Some(true), "/mcp", true),
            (Some(false), "/sse", false),
        ];
        for (events, path, expected) in cases {
            assert_eq!(memory(events).begins_with_events(path), expected, "{events:?} {path}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn it_is_looked_for_at_most_hourly() {
        let start = Instant::now();
        let mut memory = Memory::default();
        assert!(memory.may_look(start));
        memory.looked_in_vain(start);
        assert!(!memory.may_look(start + LOOK_AGAIN - Duration::from_secs(1)));
        assert!(memory.may_look(start + LOOK_AGAIN));
        memory.found(Era::Legacy, false);
        assert!(memory.may_look(start), "it worked since, so it is another server now");
    }
}
