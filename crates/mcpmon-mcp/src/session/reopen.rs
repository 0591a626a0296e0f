//! Opens a conversation again that the server has forgotten, or whose era stopped holding.

use std::sync::Arc;

use mcpmon_core::failure::{FailureCode, Finding, FindingCode};
use mcpmon_core::observation::Phases;
use mcpmon_core::status::Era;
use tokio::time::Instant;

use super::wire::WireKind;
use super::{Session, events, open};
use crate::error::CallError;
use crate::http::HttpChannel;
use crate::lists::Known;
use crate::opening::{Ask, Next, Seen, Situation, next};

impl Session {
    /// Which way the conversation is opened again after this error, if it should be.
    pub(super) fn way_back(&self, error: &CallError) -> Option<Ask> {
        let WireKind::Http { session, .. } = &self.wire.kind else { return None };
        match self.agreed.era {
            Era::Legacy => {
                let forgotten = match (error.status, session) {
                    (Some(404), _) => true,
                    // Several SDKs say 400 for a session they do not know (any more).
                    (Some(400), Some(_)) => self.proven,
                    (Some(400), None) => true,
                    _ => false,
                };
                forgotten.then(Ask::initialize)
            }
            Era::Modern => {
                let situation = Situation {
                    choice: self.wire.options.protocol,
                    remembered: Some(Era::Modern),
                    discoveries: 1,
                    ..Situation::default()
                };
                match next(&situation, &Ask::discover(), &Seen::from_error(error)) {
                    Next::Try(ask) => Some(ask),
                    _ => None,
                }
            }
        }
    }

    pub(super) async fn reopen(
        &mut self,
        ask: Ask,
        error: CallError,
        phases: &mut Phases,
        deadline: Instant,
    ) -> Result<(), CallError> {
        let had_session = self.agreed.era == Era::Legacy && self.is_kept_by_server();
        let situation = Situation {
            choice: self.wire.options.protocol,
            remembered: Some(self.agreed.era),
            discoveries: u8::from(self.agreed.era == Era::Modern),
            ..Situation::default()
        };
        let opened =
            open::over_http(&mut self.wire, situation, ask, Some(error), phases, deadline).await;
        self.agreed = opened.map_err(|not| {
            // Perhaps it is reached another way by now, which a new session would find.
            self.lost = matches!(Seen::from_error(&not.error), Seen::NoSuchPlace | Seen::Foreign);
            not.error
        })?;
        self.begin_anew();
        if had_session {
            let text = "the server forgot the session; a new one was opened";
            self.wire.notes.push(Finding::new(FindingCode::SessionNotKept, text));
        }
        Ok(())
    }

    /// Whether the event stream, which is the session, is gone, and not for our own caps.
    pub(super) fn is_stream_lost(&self, error: &CallError) -> bool {
        let WireKind::Events { stream, .. } = &self.wire.kind else { return false };
        let forgotten = match error.status {
            Some(404) => true,
            Some(400) => self.proven,
            _ => false,
        };
        forgotten || (stream.has_ended() && error.code() != FailureCode::TooLarge)
    }

    pub(super) async fn reopen_stream(
        &mut self,
        phases: &mut Phases,
        deadline: Instant,
    ) -> Result<(), CallError> {
        let WireKind::Events { stream, only } = &self.wire.kind else { return Ok(()) };
        let (home, only): (HttpChannel, bool) = (stream.home().clone(), *only);
        let options = Arc::clone(&self.wire.options);
        let (wire, agreed) =
            events::open(home, only, &options, phases, deadline).await.map_err(|not| {
                self.lost = not.may_be_another && !only;
                not.error
            })?;
        let notes = std::mem::replace(&mut self.wire, wire).notes;
        self.wire.notes = notes;
        self.agreed = agreed;
        self.begin_anew();
        let text = "the event stream ended; a new one was opened";
        self.wire.notes.push(Finding::new(FindingCode::SessionNotKept, text));
        Ok(())
    }

    /// Nothing that was known on the session before holds on this one: the same words may mean
    /// another thing in another era.
    fn begin_anew(&mut self) {
        (self.greeted, self.proven, self.no_ping, self.lost) = (false, false, false, false);
        (self.discovered, self.known_lists) = (None, Known::default());
    }
}
