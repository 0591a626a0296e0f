//! Every revision over every transport it has, in every form answers come in: one table, one way
//! to look at a row.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use mcpmon_core::failure::FindingCode;
use mcpmon_core::observation::Phases;
use mcpmon_core::service::ProtocolChoice;
use mcpmon_core::status::Era;
use mcpmon_mcp::protocol::MODERN;
use mcpmon_mcp::server::{Answers, Behaviour, Eras, HttpOptions, Server, ServerSpec};
use mcpmon_mcp::{Endings, Session};

use crate::{only, open, options, over_http_with, prove, soon, spec, tool};

/// How a server is reached, and what its answers come in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    Stdio,
    StdioBatch,
    Json,
    JsonBatch,
    Sse,
    SseBatch,
    /// An event without data first (2025-11-25).
    Primed,
    /// The stream is closed, the answer fetched with another (2025-11-25).
    Polled,
    /// HTTP+SSE at a path that says so.
    Events,
    EventsBatch,
    /// HTTP+SSE at a path that does not.
    EventsFound,
}

impl Form {
    fn is_batch(self) -> bool {
        matches!(self, Self::StdioBatch | Self::JsonBatch | Self::SseBatch | Self::EventsBatch)
    }

    fn is_stdio(self) -> bool {
        matches!(self, Self::Stdio | Self::StdioBatch)
    }

    fn is_events(self) -> bool {
        matches!(self, Self::Events | Self::EventsBatch | Self::EventsFound)
    }

    fn http(self) -> HttpOptions {
        let options = HttpOptions::default();
        match self {
            Self::Sse | Self::SseBatch => options.answers(Answers::Sse),
            Self::Primed => options.answers(Answers::Primed),
            Self::Polled => options.answers(Answers::Polled),
            Self::Events | Self::EventsBatch => options.event_stream().path("/sse"),
            Self::EventsFound => options.event_stream(),
            Self::Stdio | Self::StdioBatch | Self::Json | Self::JsonBatch => options,
        }
    }
}

/// The version header each method came with, the last time.
type Versions = Arc<Mutex<BTreeMap<String, Option<String>>>>;

fn server(revision: &'static str, form: Form) -> (Server, Versions) {
    let mut offered: ServerSpec = spec().tool(tool("second"));
    offered = match revision {
        MODERN => offered.eras(Eras::Modern),
        legacy => offered.eras(Eras::Legacy).latest_legacy(legacy),
    };
    if form.is_batch() {
        offered = offered.batched();
    }
    let versions = Versions::default();
    let seen = Arc::clone(&versions);
    let noting = Behaviour::new(move |asked| {
        let version = asked.header("mcp-protocol-version").map(str::to_owned);
        seen.lock().unwrap().insert(asked.method.to_owned(), version);
        mcpmon_mcp::server::Conduct::default()
    });
    (Server::new(offered).behaving(noting), versions)
}

pub(super) async fn over_streams(server: &Server, revision: &str) -> Session {
    let (near, far) = tokio::io::duplex(64 * 1024);
    let server = server.clone();
    tokio::spawn(async move {
        let (input, output) = tokio::io::split(near);
        let _ = server.serve_stdio(input, output).await;
    });
    let (from, to) = tokio::io::split(far);
    // A modern-only server is asked again on another process, which there is only one of here.
    let options = if revision == MODERN { only(ProtocolChoice::Modern) } else { options() };
    Session::open_streams(from, to, &Arc::new(options), &mut Phases::default(), soon())
        .await
        .unwrap()
}

/// Two whole rounds on one session; then what the server was asked, and what is left of it.
async fn check(revision: &'static str, form: Form) {
    let row = format!("{revision} {form:?}");
    let (server, versions) = server(revision, form);
    let modern = revision == MODERN;
    let http = match form.is_stdio() {
        true => None,
        false => Some(over_http_with(&server, form.http()).await),
    };
    let mut session = match &http {
        None => over_streams(&server, revision).await,
        Some(http) => open(&http.url()).await.expect(&row),
    };

    let conversation = session.conversation();
    assert_eq!(conversation.protocol_version.as_deref(), Some(revision), "{row}");
    assert_eq!(session.era(), if modern { Era::Modern } else { Era::Legacy }, "{row}");
    assert_eq!(conversation.server.unwrap().name, "fixture", "{row}");
    let expected_findings = match form.is_events() {
        true => vec![FindingCode::DeprecatedTransport],
        false => Vec::new(),
    };
    for _ in 0..2 {
        let latency = prove(&mut session).await.expect(&row);
        assert!(!latency.is_zero(), "{row}");
        let reading = session.read_lists(&mut Phases::default(), soon()).await.expect(&row);
        let names: Vec<_> = reading.lists.tools.iter().map(|tool| tool.name.as_str()).collect();
        assert_eq!(names, ["hello", "second"], "{row}");
        assert_eq!(reading.findings, [], "{row}");
        let findings: Vec<_> = session.take_findings().iter().map(|found| found.code).collect();
        assert_eq!(findings, expected_findings, "{row}");
    }

    let asked: &[(&str, u64)] = match (modern, form) {
        (true, _) => &[("server/discover", 3), ("tools/list", 2)],
        (
            _,
            Form::Stdio | Form::StdioBatch | Form::Events | Form::EventsBatch | Form::EventsFound,
        ) => &[("initialize", 1), ("ping", 2), ("tools/list", 2)],
        _ => &[("initialize", 1), ("ping", 2), ("server/discover", 1), ("tools/list", 2)],
    };
    let asked: BTreeMap<_, _> =
        asked.iter().map(|(method, count)| ((*method).to_owned(), *count)).collect();
    assert_eq!(server.counts(), asked, "{row}");

    if !form.is_stdio() {
        let versions = versions.lock().unwrap();
        let named = (revision >= "2025-06-18").then(|| revision.to_owned());
        assert_eq!(versions["tools/list"], named, "{row}");
        if !modern {
            assert_eq!(versions["ping"], named, "{row}");
            assert_eq!(versions["initialize"], None, "{row}");
        }
    }

    let sessions = usize::from(!modern && !form.is_stdio() && !form.is_events());
    assert_eq!(server.sessions(), sessions, "{row}");
    assert_eq!(server.streams(), usize::from(form.is_events()), "{row}");
    assert_eq!(session.is_kept_by_server(), !modern || form.is_stdio(), "{row}");
    session.close(true, &mut Endings::default()).await;
    assert_eq!(server.sessions(), 0, "{row}");
    server.wait_for_streams(0).await;
}

/// Checks every one of these forms, one after the other.
async fn check_all(revision: &'static str, forms: &[Form]) {
    for form in forms {
        check(revision, *form).await;
    }
}

#[tokio::test]
async fn revision_2024_11_05_in_every_form() {
    use Form::{Events, EventsFound, Json, Sse, Stdio};
    check_all("2024-11-05", &[Stdio, Json, Sse, Events, EventsFound]).await;
}

#[tokio::test]
async fn revision_2025_03_26_in_every_form() {
    use Form::*;
    let single = [Stdio, Json, Sse, Events, EventsFound];
    let batched = [StdioBatch, JsonBatch, SseBatch, EventsBatch];
    check_all("2025-03-26", &single).await;
    check_all("2025-03-26", &batched).await;
}

#[tokio::test]
async fn revision_2025_06_18_in_every_form() {
    use Form::{Events, EventsFound, Json, Sse, Stdio};
    check_all("2025-06-18", &[Stdio, Json, Sse, Events, EventsFound]).await;
}

#[tokio::test]
async fn revision_2025_11_25_in_every_form() {
    use Form::{Events, EventsFound, Json, Polled, Primed, Sse, Stdio};
    check_all("2025-11-25", &[Stdio, Json, Sse, Primed, Polled, Events, EventsFound]).await;
}

#[tokio::test]
async fn revision_2026_07_28_in_every_form() {
    use Form::{Json, Sse, Stdio};
    check_all(MODERN, &[Stdio, Json, Sse]).await;
}

#[tokio::test]
async fn a_batch_where_the_revision_has_none_is_understood_and_told() {
    for form in [Form::StdioBatch, Form::JsonBatch, Form::SseBatch, Form::EventsBatch] {
        let (server, _) = server("2025-06-18", form);
        let http = over_http_with(&server, form.http()).await;
        let mut session = match form {
            Form::StdioBatch => over_streams(&server, "2025-06-18").await,
            _ => open(&http.url()).await.unwrap(),
        };
        prove(&mut session).await.unwrap();
        let findings = session.take_findings();
        let told = findings.last().unwrap();
        assert_eq!(told.code, FindingCode::Nonconforming, "{form:?}");
        assert!(told.message.contains("in a batch"), "{told:?}");
    }
}

const ASKED: &[&str] = &["ping", "roots/list", "sampling/createMessage", "elicitation/create"];

#[tokio::test]
async fn what_a_server_asks_is_refused_but_for_a_ping_on_every_transport() {
    for form in [Form::Stdio, Form::Sse, Form::Polled, Form::Events] {
        let server = Server::new(spec().eras(Eras::Legacy).asks(ASKED));
        let http = over_http_with(&server, form.http()).await;
        let mut session = match form {
            Form::Stdio => over_streams(&server, "2025-11-25").await,
            _ => open(&http.url()).await.unwrap(),
        };
        prove(&mut session).await.unwrap();
        let reading = session.read_lists(&mut Phases::default(), soon()).await.unwrap();
        assert_eq!(reading.lists.tools.len(), 1);
        server.wait_for_answers(ASKED.len()).await;
        let answers = server.answers();
        assert_eq!(answers["ping"], None, "{form:?}");
        assert!(ASKED[1..].iter().all(|method| answers[*method] == Some(-32_601)), "{answers:?}");
        let findings: Vec<_> = session.take_findings().iter().map(|found| found.code).collect();
        let expected =
            if form == Form::Events { vec![FindingCode::DeprecatedTransport] } else { vec![] };
        assert_eq!(findings, expected, "{form:?}");
    }
}

#[tokio::test]
async fn a_modern_server_that_asks_is_told_of() {
    for form in [Form::Stdio, Form::Sse] {
        let server = Server::new(spec().eras(Eras::Modern).asks(&["sampling/createMessage"]));
        let http = over_http_with(&server, form.http()).await;
        let mut session = match form {
            Form::Stdio => over_streams(&server, MODERN).await,
            _ => open(&http.url()).await.unwrap(),
        };
        session.read_lists(&mut Phases::default(), soon()).await.unwrap();
        let findings = session.take_findings();
        assert_eq!(findings[0].code, FindingCode::Nonconforming, "{form:?}");
        assert!(findings[0].message.contains("sampling/createMessage"), "{findings:?}");
        if form == Form::Sse {
            assert_eq!(server.answers(), BTreeMap::new(), "there is no way to answer one");
        }
    }
}
