//! Whether resource templates are requested from a server, and what a missing answer means.
//!
//! A server that announces resources does not announce templates by that, and many servers have no
//! such list. A server that refuses the request as unknown has none. Some servers do not refuse
//! what they do not know: they do not answer, close the connection, or exit. Such a server works
//! for its clients, so the check must not fail because of this request: it gets only a part of the
//! check's time, and is not repeated for long. After a server has answered once, a missing answer
//! fails the reading as with every other list: a server that no longer answers is not well.

use std::time::Duration;

use tokio::time::Instant;

use crate::jsonrpc::codes;

/// Readings in a row without an answer after which the request is not sent for a while.
const ATTEMPTS: u8 = 2;
/// How long it is not sent then.
const PAUSE: Duration = Duration::from_secs(24 * 3_600);
/// Part of a check's remaining time that a first answer may take.
const SHARE: f64 = 0.5;

/// What earlier requests for a server's resource templates led to. Kept from one session to the
/// next; a new one knows nothing.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct TemplateSupport {
    /// The list was read at least once.
    has_answered: bool,
    /// Readings in a row without an answer of any kind, and when the last one was.
    unanswered: u8,
    unanswered_at: Option<Instant>,
    /// The server's process exited on the request.
    has_exited: bool,
}

impl TemplateSupport {
    /// Whether the list is to be requested at `now`.
    pub(super) fn should_request(&self, now: Instant) -> bool {
        let is_due = |at: Instant| now.saturating_duration_since(at) >= PAUSE;
        !self.has_exited && (self.unanswered < ATTEMPTS || self.unanswered_at.is_none_or(is_due))
    }

    /// Whether a reading fails without the list.
    pub(super) fn is_required(&self) -> bool {
        self.has_answered
    }

    /// The deadline for the list, given the deadline of the check.
    pub(super) fn limit(&self, now: Instant, deadline: Instant) -> Instant {
        if self.has_answered {
            return deadline;
        }
        now + deadline.saturating_duration_since(now).mul_f64(SHARE)
    }

    /// The list was read.
    pub(super) fn on_read(&mut self) {
        *self = Self { has_answered: true, ..Self::default() };
    }

    /// The request was refused, so the server is alive.
    pub(super) fn on_refused(&mut self) {
        *self = Self { has_answered: self.has_answered, ..Self::default() };
    }

    /// There was no usable answer; the server's process exited instead if `has_exited`.
    pub(super) fn on_unanswered(&mut self, now: Instant, has_exited: bool) {
        self.unanswered = self.unanswered.saturating_add(1);
        self.unanswered_at = Some(now);
        self.has_exited |= has_exited;
    }
}

/// Whether a refusal with this code means that the server has no such list. The standard has one
/// code for an unknown method; servers use three.
pub(super) const fn is_unknown_method(code: i64) -> bool {
    matches!(code, codes::METHOD_NOT_FOUND | codes::INVALID_REQUEST | codes::INVALID_PARAMS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_server_that_does_not_answer_gets_no_request_for_a_day() {
        let start = Instant::now();
        let mut support = TemplateSupport::default();
        assert!(support.should_request(start) && !support.is_required());
        support.on_unanswered(start, false);
        assert!(support.should_request(start), "once is a hiccup");
        support.on_unanswered(start, false);
        assert!(!support.should_request(start + PAUSE - Duration::from_secs(1)));
        assert!(support.should_request(start + PAUSE));
        support.on_unanswered(start + PAUSE, false);
        assert!(!support.should_request(start + PAUSE), "one more time is enough then");
        support.on_refused();
        assert!(support.should_request(start + PAUSE));
    }

    #[tokio::test(start_paused = true)]
    async fn a_process_that_exited_never_gets_the_request_again() {
        let start = Instant::now();
        let mut support = TemplateSupport::default();
        support.on_unanswered(start, true);
        assert!(!support.should_request(start + 30 * PAUSE));
    }

    #[tokio::test(start_paused = true)]
    async fn the_list_is_required_after_it_was_read_once() {
        let now = Instant::now();
        let deadline = now + Duration::from_secs(10);
        let mut support = TemplateSupport::default();
        assert_eq!(support.limit(now, deadline), now + Duration::from_secs(5));
        support.on_unanswered(now, false);
        support.on_read();
        assert!(support.is_required());
        assert_eq!(support.limit(now, deadline), deadline);
        support.on_refused();
        assert!(support.is_required());
    }
}
