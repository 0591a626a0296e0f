//! Conversations over the deprecated HTTP+SSE: where its stream is, it is opened by `initialize`
//! and nothing else, since some servers would answer a discovery and know no handshake after it.

use std::sync::Arc;

use mcpmon_core::failure::{Finding, FindingCode};
use mcpmon_core::observation::Phases;
use mcpmon_core::service::ProtocolChoice;
use tokio::time::Instant;

use super::open::{Settled, attempt, settle};
use super::wire::{Wire, WireKind};
use super::{Agreed, SessionOptions};
use crate::error::CallError;
use crate::http::{EventStream, HttpChannel};
use crate::opening::{Ask, Seen, Situation};

/// Why there is no conversation over an event stream.
pub(super) struct NoConversation {
    pub(super) error: CallError,
    /// Whether this may be the wrong transport, so that another is worth trying.
    pub(super) may_be_another: bool,
}

/// Opens a stream at `home` and a conversation on it.
pub(super) async fn open(
    home: HttpChannel,
    only: bool,
    options: &Arc<SessionOptions>,
    phases: &mut Phases,
    deadline: Instant,
) -> Result<(Wire, Agreed), NoConversation> {
    let stream = EventStream::open(home, phases, deadline).await.map_err(|not| {
        let elsewhere = matches!(Seen::from_error(&not.error), Seen::NoSuchPlace | Seen::Foreign);
        let refused = not.error.rpc.is_some() || elsewhere;
        NoConversation {
            may_be_another: refused && !not.was_there,
            error: not.error.redacted(&options.redactor),
        }
    })?;
    let mut wire = Wire::new(WireKind::Events { stream: Box::new(stream), only }, options);
    match handshake(&mut wire, phases, deadline).await {
        Ok(agreed) => Ok((wire, agreed)),
        Err(error) => Err(NoConversation { error, may_be_another: false }),
    }
}

async fn handshake(
    wire: &mut Wire,
    phases: &mut Phases,
    deadline: Instant,
) -> Result<Agreed, CallError> {
    let options = Arc::clone(&wire.options);
    let mut situation = Situation { choice: ProtocolChoice::Legacy, ..Situation::default() };
    let mut ask = Ask::initialize();
    loop {
        let attempt = attempt(wire, &ask, phases, deadline).await;
        situation.count(&ask, &attempt.seen);
        match settle(&situation, &ask, attempt, None, &options) {
            Settled::Open(mut agreed) => {
                let text = "it speaks HTTP+SSE, which was deprecated in 2025-03-26";
                agreed.findings.push(Finding::new(FindingCode::DeprecatedTransport, text));
                return Ok(agreed);
            }
            Settled::Again(again, _) => ask = again,
            Settled::Failed(error) | Settled::Look(error) => return Err(error),
        }
    }
}
