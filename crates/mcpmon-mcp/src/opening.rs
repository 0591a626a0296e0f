//! Which way a conversation is opened, decided from what was seen and nothing else.
//!
//! Two ways exist, `server/discover` and `initialize`, and servers of either era answer the wrong
//! one in every way imaginable: standard error codes, bare 4xx, a redirect to a page, silence,
//! death. What decides is gathered in [`Seen`]; [`next`] is the whole policy, for HTTP (discovery
//! first) and stdio (`initialize` first) alike, so that it can be tested as a table.

use mcpmon_core::failure::{FailureCode, Phase};
use mcpmon_core::service::ProtocolChoice;
use mcpmon_core::status::Era;

use crate::error::CallError;
use crate::jsonrpc::codes;
use crate::protocol::{self, LATEST_LEGACY, LEGACY, MODERN};

/// An opening request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ask {
    /// `server/discover` in this revision.
    Discover(String),
    /// `initialize` with this revision.
    Initialize(String),
}

impl Ask {
    /// `server/discover` in the newest revision.
    pub fn discover() -> Self {
        Self::Discover(MODERN.to_owned())
    }

    /// `initialize` with the newest revision that has it.
    pub fn initialize() -> Self {
        Self::Initialize(LATEST_LEGACY.to_owned())
    }
}

/// What came of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Seen {
    /// A discovery, with the revisions it lists (none if it lists none).
    Discovered(Vec<String>),
    /// A handshake, with the revision the server chose.
    Initialized(String),
    /// A JSON-RPC error; revisions only with -32022.
    Refused {
        /// Its code.
        code: i64,
        /// The revisions it lists.
        supported: Vec<String>,
    },
    /// Something answered, but not this way: another 4xx, a page, JSON of another shape.
    Foreign,
    /// 404 or 405: nothing takes a POST there.
    NoSuchPlace,
    /// 5xx, a timeout, a connection cut: perhaps the way, perhaps not.
    Trouble,
    /// The process ended.
    Exited,
    /// Nothing another opening could change: credentials, rate limits, no connection.
    Barred,
}

impl Seen {
    /// What a failed request means for the opening.
    pub fn from_error(error: &CallError) -> Self {
        use FailureCode as F;
        if let Some(rpc) = &error.rpc
            && !matches!(error.code(), F::Unauthorized | F::Forbidden | F::RateLimited)
        {
            let supported = protocol::supported_versions(rpc);
            return Self::Refused { code: rpc.code, supported };
        }
        match error.code() {
            F::EndpointNotFound | F::MethodNotAllowed => Self::NoSuchPlace,
            F::ClientError
            | F::HtmlResponse
            | F::UnexpectedContentType
            | F::NotMcp
            | F::InvalidJson
            | F::InvalidMessage
            | F::WrongResponseId
            | F::StreamEnded => Self::Foreign,
            F::ServerError
            | F::UpstreamUnavailable
            | F::HandshakeTimeout
            | F::ResponseTimeout
            | F::ConnectionReset
            | F::TruncatedResponse
            | F::ClosedOutput => Self::Trouble,
            F::ExitedAtStart
            | F::Exited
            | F::KilledBySignal
            | F::MissingModule
            | F::UsageError
            | F::RuntimeUnsupported => Self::Exited,
            _ => Self::Barred,
        }
    }
}

/// What is known beside the last answer.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Situation {
    /// What the configuration allows.
    pub choice: ProtocolChoice,
    /// The era this service spoke before, if it ever did.
    pub remembered: Option<Era>,
    /// Times `server/discover` was asked, the one just answered included.
    pub discoveries: u8,
    /// Times `initialize` was asked, the one just answered included.
    pub handshakes: u8,
    /// Times nothing took a POST, the one just answered included.
    pub no_place: u8,
    /// Whether the deprecated HTTP+SSE transport may be looked for. Looking costs some servers a
    /// session, so whoever asks keeps count.
    pub may_look: bool,
}

impl Situation {
    /// The way to start over HTTP: discovery first, unless it is known better.
    pub const fn first_over_http(&self) -> Era {
        match (self.choice, self.remembered) {
            (ProtocolChoice::Modern, _) => Era::Modern,
            (ProtocolChoice::Legacy, _) => Era::Legacy,
            (ProtocolChoice::Auto, Some(era)) => era,
            (ProtocolChoice::Auto, None) => Era::Modern,
        }
    }

    /// The way to start on a process: `initialize`, which every server takes without harm, unless
    /// it is known better.
    pub const fn first_on_process(&self) -> Era {
        match (self.choice, self.remembered) {
            (ProtocolChoice::Modern, _) => Era::Modern,
            (ProtocolChoice::Auto, Some(era)) => era,
            (ProtocolChoice::Legacy | ProtocolChoice::Auto, _) => Era::Legacy,
        }
    }

    /// What is left to do where no opening was taken.
    fn last_resort(&self) -> Next {
        let asked = self.discoveries + self.handshakes;
        let nowhere = self.handshakes > 0 && self.no_place == asked;
        if self.may_look && nowhere { Next::EventStream } else { Next::GiveUp }
    }

    fn may_discover(&self) -> bool {
        self.choice != ProtocolChoice::Legacy && self.discoveries < 2
    }

    fn may_initialize(&self) -> bool {
        self.choice != ProtocolChoice::Modern && self.handshakes < 2
    }
}

/// What to do next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Next {
    /// The conversation is open, modern, in this revision.
    Modern(String),
    /// The conversation is open, legacy, in this revision.
    Legacy(String),
    /// Ask this.
    Try(Ask),
    /// Look for the deprecated HTTP+SSE transport.
    EventStream,
    /// Both answered, and no revision is common.
    NoCommonVersion(Vec<String>),
    /// Report the failure that got furthest.
    GiveUp,
}

/// Decides what follows `asked`, given what was `seen`.
pub fn next(situation: &Situation, asked: &Ask, seen: &Seen) -> Next {
    match asked {
        Ask::Discover(version) => after_discover(situation, version, seen),
        Ask::Initialize(version) => after_initialize(situation, version, seen),
    }
}

fn after_discover(situation: &Situation, version: &str, seen: &Seen) -> Next {
    let fall_back = || {
        if situation.may_initialize() && situation.handshakes == 0 {
            Next::Try(Ask::initialize())
        } else {
            situation.last_resort()
        }
    };
    match seen {
        // A server that lists nothing was asked in a revision and answered in it.
        Seen::Discovered(listed) if listed.is_empty() => Next::Modern(version.to_owned()),
        Seen::Discovered(listed) => match best(listed) {
            Some((Era::Modern, best)) => Next::Modern(best.to_owned()),
            Some((Era::Legacy, best)) if situation.may_initialize() => {
                Next::Try(Ask::Initialize(best.to_owned()))
            }
            _ => Next::NoCommonVersion(listed.clone()),
        },
        Seen::Refused { code: codes::UNSUPPORTED_PROTOCOL_VERSION, supported } => {
            match best(supported) {
                // Also what was just refused: a server may list what it speaks only so.
                Some((Era::Modern, best)) if situation.may_discover() => {
                    Next::Try(Ask::Discover(best.to_owned()))
                }
                Some((Era::Legacy, best)) if situation.may_initialize() => {
                    Next::Try(Ask::Initialize(best.to_owned()))
                }
                _ => Next::NoCommonVersion(supported.clone()),
            }
        }
        Seen::Refused { code, .. } if codes::is_modern(*code) => Next::GiveUp,
        Seen::Refused { .. } | Seen::Foreign | Seen::NoSuchPlace | Seen::Exited => fall_back(),
        // Trouble on a service that is known tells of its health, not of its era.
        Seen::Trouble if situation.remembered.is_none() => fall_back(),
        Seen::Trouble | Seen::Barred | Seen::Initialized(_) => Next::GiveUp,
    }
}

fn after_initialize(situation: &Situation, version: &str, seen: &Seen) -> Next {
    let discover = || {
        if situation.may_discover() && situation.discoveries == 0 {
            Next::Try(Ask::discover())
        } else {
            situation.last_resort()
        }
    };
    match seen {
        Seen::Initialized(chosen) if LEGACY.contains(&chosen.as_str()) => {
            Next::Legacy(chosen.clone())
        }
        Seen::Initialized(chosen) => Next::NoCommonVersion(vec![chosen.clone()]),
        Seen::Refused { code: codes::UNSUPPORTED_PROTOCOL_VERSION, supported } => {
            match best(supported) {
                Some((Era::Modern, best)) if situation.may_discover() => {
                    Next::Try(Ask::Discover(best.to_owned()))
                }
                Some((Era::Legacy, best)) if best != version && situation.may_initialize() => {
                    Next::Try(Ask::Initialize(best.to_owned()))
                }
                // A refusal in the modern way that names nothing is still a modern server.
                None if supported.is_empty() => discover(),
                _ => Next::NoCommonVersion(supported.clone()),
            }
        }
        Seen::Refused { code, .. }
            if codes::is_modern(*code)
                || matches!(
                    *code,
                    codes::METHOD_NOT_FOUND | codes::INVALID_REQUEST | codes::INVALID_PARAMS
                ) =>
        {
            discover()
        }
        Seen::NoSuchPlace | Seen::Foreign => discover(),
        Seen::Refused { .. }
        | Seen::Trouble
        | Seen::Exited
        | Seen::Barred
        | Seen::Discovered(_) => Next::GiveUp,
    }
}

/// The newest revision of a list that we speak.
fn best(listed: &[String]) -> Option<(Era, &'static str)> {
    std::iter::once(MODERN)
        .chain(LEGACY)
        .find(|known| listed.iter().any(|version| version == known))
        .and_then(|known| protocol::era_of(known).map(|era| (era, known)))
}

/// Of two failed openings, the one that got further and is worth telling; `first` came first.
///
/// An answer in the modern way is progress for a discovery; any other answer to it only says that
/// the server is of the older era, so the second opening is told, unless it did not get as far.
pub fn furthest(first: CallError, second: CallError) -> CallError {
    let modern = |error: &CallError| error.rpc_code().is_some_and(codes::is_modern);
    let reach = |error: &CallError| error.failure.phase.min(Phase::Handshake);
    let first_wins = (modern(&first) && !modern(&second)) || reach(&first) > reach(&second);
    if first_wins { first } else { second }
}

#[cfg(test)]
mod tests {
    use super::*;

    const UNSUPPORTED: i64 = codes::UNSUPPORTED_PROTOCOL_VERSION;

    fn refused(code: i64, supported: &[&str]) -> Seen {
        Seen::Refused { code, supported: supported.iter().map(|s| (*s).to_owned()).collect() }
    }

    /// A word for what is next.
    fn word(next: &Next) -> &'static str {
        match next {
            Next::Modern(_) => "modern",
            Next::Legacy(_) => "legacy",
            Next::Try(Ask::Discover(_)) => "discover",
            Next::Try(Ask::Initialize(_)) => "initialize",
            Next::EventStream => "event-stream",
            Next::NoCommonVersion(_) => "no-common-version",
            Next::GiveUp => "give-up",
        }
    }

    #[track_caller]
    fn check(situation: &Situation, asked: &Ask, seen: &Seen, expected: &str) {
        let next = next(situation, asked, seen);
        assert_eq!(word(&next), expected, "{situation:?} {asked:?} {seen:?} gave {next:?}");
    }

    fn first_contact(discoveries: u8, handshakes: u8) -> Situation {
        Situation { discoveries, handshakes, may_look: true, ..Situation::default() }
    }

    #[test]
    fn first_contact_over_http_falls_back_as_servers_need() {
        let discover = Ask::discover();
        let cases = [
            (Seen::Discovered(vec![MODERN.into()]), "modern"),
            (Seen::Discovered(vec![]), "modern"),
            (Seen::Discovered(vec!["2025-06-18".into()]), "initialize"),
            (Seen::Discovered(vec!["2031-01-01".into()]), "no-common-version"),
            (refused(UNSUPPORTED, &["2025-11-25"]), "initialize"),
            (refused(UNSUPPORTED, &["2031-01-01"]), "no-common-version"),
            (refused(UNSUPPORTED, &[MODERN]), "discover"),
            (refused(codes::HEADER_MISMATCH, &[]), "give-up"),
            (refused(codes::MISSING_CLIENT_CAPABILITY, &[]), "give-up"),
            (refused(-32_000, &[]), "initialize"),
            (refused(-32_600, &[]), "initialize"),
            (refused(-32_601, &[]), "initialize"),
            (refused(-32_602, &[]), "initialize"),
            (Seen::Foreign, "initialize"),
            (Seen::NoSuchPlace, "initialize"),
            (Seen::Trouble, "initialize"),
            (Seen::Barred, "give-up"),
        ];
        for (seen, expected) in cases {
            check(&first_contact(1, 0), &discover, &seen, expected);
        }
    }

    #[test]
    fn initialize_is_the_last_word_over_http() {
        let initialize = Ask::initialize();
        let cases = [
            (Seen::Initialized("2024-11-05".into()), "legacy"),
            (Seen::Initialized("1999-01-01".into()), "no-common-version"),
            (refused(UNSUPPORTED, &[MODERN]), "discover"),
            (refused(UNSUPPORTED, &["2025-03-26"]), "initialize"),
            (refused(UNSUPPORTED, &["2025-11-25"]), "no-common-version"),
            (refused(UNSUPPORTED, &["2031-01-01"]), "no-common-version"),
            (refused(-32_601, &[]), "give-up"),
            (refused(-32_603, &[]), "give-up"),
            (Seen::NoSuchPlace, "give-up"),
            (Seen::Foreign, "give-up"),
            (Seen::Trouble, "give-up"),
            (Seen::Barred, "give-up"),
        ];
        for (seen, expected) in cases {
            check(&first_contact(1, 1), &initialize, &seen, expected);
        }
    }

    #[test]
    fn a_process_that_refuses_initialize_in_the_modern_way_is_discovered() {
        let initialize = Ask::initialize();
        let cases = [
            (refused(UNSUPPORTED, &[MODERN]), "discover"),
            (refused(UNSUPPORTED, &[]), "discover"),
            (refused(codes::HEADER_MISMATCH, &[]), "discover"),
            (refused(-32_601, &[]), "discover"),
            (refused(-32_602, &[]), "discover"),
            (refused(-32_603, &[]), "give-up"),
            (refused(-32_000, &[]), "give-up"),
            (Seen::Exited, "give-up"),
            (Seen::Trouble, "give-up"),
        ];
        for (seen, expected) in cases {
            check(&first_contact(0, 1), &initialize, &seen, expected);
        }
    }

    #[test]
    fn the_configuration_has_the_last_word() {
        let only = |choice, discoveries, handshakes| Situation {
            choice,
            discoveries,
            handshakes,
            ..Situation::default()
        };
        check(&only(ProtocolChoice::Modern, 1, 0), &Ask::discover(), &Seen::Foreign, "give-up");
        let listed = refused(UNSUPPORTED, &["2025-11-25"]);
        check(&only(ProtocolChoice::Modern, 1, 0), &Ask::discover(), &listed, "no-common-version");
        let listed = refused(UNSUPPORTED, &[MODERN]);
        check(
            &only(ProtocolChoice::Legacy, 0, 1),
            &Ask::initialize(),
            &listed,
            "no-common-version",
        );
    }

    #[test]
    fn an_event_stream_is_looked_for_only_where_nothing_takes_a_post() {
        use ProtocolChoice as P;
        let after = |choice, discoveries, handshakes, no_place, may_look| Situation {
            choice,
            discoveries,
            handshakes,
            no_place,
            may_look,
            remembered: None,
        };
        let cases = [
            (after(P::Auto, 1, 1, 2, true), "event-stream"),
            (after(P::Auto, 1, 1, 2, false), "give-up"),
            (after(P::Auto, 1, 1, 1, true), "give-up"),
            (after(P::Auto, 0, 1, 1, true), "discover"),
            (after(P::Legacy, 0, 1, 1, true), "event-stream"),
        ];
        for (situation, expected) in cases {
            check(&situation, &Ask::initialize(), &Seen::NoSuchPlace, expected);
        }
        let legacy_first = after(P::Auto, 1, 1, 2, true);
        check(&legacy_first, &Ask::discover(), &Seen::NoSuchPlace, "event-stream");
        let modern_only = after(P::Modern, 1, 0, 1, true);
        check(&modern_only, &Ask::discover(), &Seen::NoSuchPlace, "give-up");
        check(&after(P::Auto, 1, 1, 1, true), &Ask::initialize(), &Seen::Foreign, "give-up");
    }

    #[test]
    fn a_known_era_is_looked_up_again_only_when_it_stops_holding() {
        let known = |era, discoveries, handshakes| Situation {
            remembered: Some(era),
            discoveries,
            handshakes,
            ..Situation::default()
        };
        let modern = known(Era::Modern, 1, 0);
        check(&modern, &Ask::discover(), &Seen::Trouble, "give-up");
        check(&modern, &Ask::discover(), &Seen::NoSuchPlace, "initialize");
        check(&modern, &Ask::discover(), &Seen::Exited, "initialize");
        let legacy = known(Era::Legacy, 0, 1);
        check(&legacy, &Ask::initialize(), &Seen::Trouble, "give-up");
        check(&legacy, &Ask::initialize(), &Seen::NoSuchPlace, "discover");
        check(&legacy, &Ask::initialize(), &Seen::Foreign, "discover");
    }

    #[test]
    fn no_sequence_of_answers_goes_round_for_ever() {
        let answers = [
            refused(UNSUPPORTED, &[MODERN, "2025-11-25"]),
            refused(UNSUPPORTED, &["2025-03-26"]),
            refused(UNSUPPORTED, &[]),
            refused(-32_601, &[]),
            Seen::Foreign,
            Seen::NoSuchPlace,
            Seen::Trouble,
        ];
        for start in [Ask::discover(), Ask::initialize()] {
            for first in &answers {
                for second in &answers {
                    let (mut situation, mut ask) = (Situation::default(), start.clone());
                    let mut asked = 0;
                    loop {
                        asked += 1;
                        match &ask {
                            Ask::Discover(_) => situation.discoveries += 1,
                            Ask::Initialize(_) => situation.handshakes += 1,
                        }
                        let seen = if asked % 2 == 1 { first } else { second };
                        match next(&situation, &ask, seen) {
                            Next::Try(again) => ask = again,
                            _ => break,
                        }
                    }
                    assert!(asked <= 4, "{asked} openings for {first:?}, {second:?}");
                }
            }
        }
    }

    #[test]
    fn the_failure_told_is_that_of_the_opening_that_got_furthest() {
        let error = |code, phase| CallError::new(code, phase, "x");
        let plain = error(FailureCode::MethodNotAllowed, Phase::Handshake);
        let page = error(FailureCode::HtmlResponse, Phase::Handshake);
        let gone = error(FailureCode::ConnectionRefused, Phase::Connect);
        assert_eq!(furthest(plain.clone(), page.clone()).code(), FailureCode::HtmlResponse);
        assert_eq!(furthest(page, gone).code(), FailureCode::HtmlResponse);
        let modern = CallError::from_rpc(
            "server/discover",
            crate::jsonrpc::RpcError::new(codes::HEADER_MISMATCH, "header"),
            Phase::Handshake,
        );
        assert_eq!(furthest(modern, plain).rpc_code(), Some(codes::HEADER_MISMATCH));
    }
}
