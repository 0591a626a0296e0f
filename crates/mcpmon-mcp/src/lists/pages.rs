//! Asks for the lists, page by page, and knows again what came before.
//!
//! Lists are read from the server each time, but they hardly ever change, and to build them, bring
//! them into canonical form and hash that costs several times what the exchange does. So the last
//! reading is remembered by a digest of each page, and pages that are byte for byte the same are
//! not taken apart again. A cryptographic digest, because a server must not be able to write two
//! lists that are taken for one; only digests, because the lists themselves of ten thousand
//! services do not fit in memory. Over HTTP a whole body is known again before even its envelope
//! is taken apart.

use std::collections::HashSet;

use bytes::Bytes;
use mcpmon_core::failure::{FailureCode, Phase};
use mcpmon_core::lists::ListKind;
use mcpmon_core::observation::Phases;
use serde_json::value::RawValue;
use sha2::{Digest, Sha256};
use tokio::time::Instant;

use super::templates::is_unknown_method;
use super::{Assembly, MAX_PAGES, Reading, list_method};
use crate::error::CallError;
use crate::inbox::Payload;
use crate::jsonrpc::{Echo, Recall};
use crate::protocol::Params;
use crate::session::Session;

/// What was answered at the last reading, in order; `None` before the first.
#[derive(Debug, Default)]
pub(crate) struct Known(Option<Vec<Mark>>);

/// One answer, by its digest.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Mark {
    kind: ListKind,
    trace: Trace,
    /// Bytes of it.
    length: usize,
    /// The cursor it held, if there was one.
    next: Option<String>,
}

/// What is left of an answer.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Trace {
    /// Of one that was a body of its own.
    Body(Echo),
    /// The digest of any other.
    Text([u8; 32]),
}

/// One answer as it came.
#[derive(Debug)]
enum Heard {
    Page(Box<RawValue>, Option<Echo>),
    /// The body its mark is of.
    Same(Bytes),
    /// The server does not give the list, because.
    Refused(String),
    /// The server has no such list and did not announce one.
    Absent,
}

impl Heard {
    /// What to know it again by, and its length; `None` if it was known again.
    fn trace(&self) -> Option<(Trace, usize)> {
        let (tag, text) = match self {
            Self::Same(_) => return None,
            Self::Page(result, Some(echo)) => {
                return Some((Trace::Body(echo.clone()), result.get().len()));
            }
            Self::Page(result, None) => (b'p', result.get()),
            Self::Refused(reason) => (b'r', reason.as_str()),
            Self::Absent => (b'a', ""),
        };
        let digest = Sha256::new().chain_update([tag]).chain_update(text).finalize();
        Some((Trace::Text(digest.into()), text.len()))
    }
}

/// Compares answers with those of the last reading, and takes apart what differs.
struct Listener {
    known: Option<Vec<Mark>>,
    marks: Vec<Mark>,
    /// What was the same so far; given up at the first difference.
    same: Option<Vec<(ListKind, Heard)>>,
    /// Bytes all answers together may still have.
    room: usize,
    assembly: Assembly,
}

impl Listener {
    fn new(known: Known, assembly: Assembly, room: usize) -> Self {
        Self { known: known.0, marks: Vec::new(), same: Some(Vec::new()), room, assembly }
    }

    /// The mark of the answer that comes next, if all was the same so far.
    fn expected(&self, kind: ListKind) -> Option<&Mark> {
        self.same.as_ref()?;
        self.known.as_ref()?.get(self.marks.len()).filter(|mark| mark.kind == kind)
    }

    /// By what the body that comes next would be known again.
    fn recall(&self, kind: ListKind) -> Recall<'_> {
        match self.expected(kind) {
            Some(Mark { trace: Trace::Body(echo), .. }) => Recall::Expect(echo),
            _ => Recall::Learn,
        }
    }

    /// Takes one answer, and gives the cursor in it. An answer for which there is no room is
    /// refused before anything is made of it.
    fn take(&mut self, kind: ListKind, heard: Heard) -> Result<Option<String>, CallError> {
        let trace = heard.trace();
        let expected = self.expected(kind).filter(|mark| match &trace {
            Some((trace, _)) => mark.trace == *trace,
            None => true,
        });
        let length = match (&trace, expected) {
            (Some((_, length)), _) => *length,
            (None, Some(mark)) => mark.length,
            (None, None) => 0,
        };
        let room = self.room.checked_sub(length).ok_or_else(|| {
            let text = format!("with `{}` the lists are over `max_body` in all", list_method(kind));
            CallError::new(FailureCode::EndlessList, Phase::List, text)
        })?;
        if let Some(mark) = expected.cloned()
            && let Some(same) = &mut self.same
        {
            let next = mark.next.clone();
            same.push((kind, heard));
            self.marks.push(mark);
            self.room = room;
            return Ok(next);
        }
        self.room = room;
        self.take_apart_same()?;
        let next = self.take_apart(kind, heard)?;
        if let Some((trace, length)) = trace {
            self.marks.push(Mark { kind, trace, length, next: next.clone() });
        }
        Ok(next)
    }

    fn take_apart(&mut self, kind: ListKind, heard: Heard) -> Result<Option<String>, CallError> {
        match heard {
            Heard::Page(result, _) => self.assembly.take_page(kind, &result),
            Heard::Same(body) => self.assembly.take_page(kind, &Payload::Same(body).into_raw()),
            Heard::Refused(reason) => {
                self.assembly.forget(kind);
                self.assembly.notes.refused(kind, &reason);
                Ok(None)
            }
            Heard::Absent => Ok(None),
        }
    }

    fn take_apart_same(&mut self) -> Result<(), CallError> {
        for (kind, heard) in self.same.take().into_iter().flatten() {
            self.take_apart(kind, heard)?;
        }
        Ok(())
    }

    fn is_unchanged(&self) -> bool {
        // Fewer pages than last time are a difference too.
        self.same.is_some() && self.known.as_ref() == Some(&self.marks)
    }

    /// The reading, and what to remember of it.
    fn finish(mut self) -> Result<(Reading, Known), CallError> {
        self.take_apart_same()?;
        Ok((self.assembly.finish(), Known(Some(self.marks))))
    }
}

impl Session {
    /// Reads every list the server says it has.
    ///
    /// # Errors
    ///
    /// Why they could not be read whole. That prompts or resources are refused, though announced,
    /// is only a finding. So is that resource templates cannot be read, unless they were before; a
    /// server that does not know them has none.
    pub async fn read_lists(
        &mut self,
        phases: &mut Phases,
        deadline: Instant,
    ) -> Result<Reading, CallError> {
        self.known_lists = Known::default();
        let (reading, known) = self.hear_lists(phases, deadline).await?.finish()?;
        self.known_lists = known;
        Ok(reading)
    }

    /// Reads every list the server says it has; `None` if all of it came byte for byte as at the
    /// last reading on this session, so that what was said of that still holds.
    ///
    /// # Errors
    ///
    /// As [`Session::read_lists`].
    pub async fn read_changed_lists(
        &mut self,
        phases: &mut Phases,
        deadline: Instant,
    ) -> Result<Option<Reading>, CallError> {
        let listener = self.hear_lists(phases, deadline).await?;
        if listener.is_unchanged() {
            self.known_lists = Known(Some(listener.marks));
            return Ok(None);
        }
        let (reading, known) = listener.finish()?;
        self.known_lists = known;
        Ok(Some(reading))
    }

    /// Asks for every page. After an error nothing is known: the next reading is one in full.
    async fn hear_lists(
        &mut self,
        phases: &mut Phases,
        deadline: Instant,
    ) -> Result<Listener, CallError> {
        let started = Instant::now();
        let known = std::mem::take(&mut self.known_lists);
        let assembly = Assembly::new(self.era(), self.redactor().clone(), self.instructions());
        let mut listener = Listener::new(known, assembly, self.max_body());
        let has = self.capabilities();
        for (kind, announced) in [
            (ListKind::Tools, has.tools),
            (ListKind::Prompts, has.prompts),
            (ListKind::Resources, has.resources),
        ] {
            if !announced {
                continue;
            }
            match self.hear_list(kind, &mut listener, phases, deadline).await {
                Ok(()) => {}
                Err(error) if kind != ListKind::Tools && error.rpc.is_some() => {
                    listener.take(kind, Heard::Refused(error.failure.message))?;
                }
                Err(error) => return Err(error),
            }
        }
        // Last, so that the other lists are read whatever this request leads to.
        if has.resources {
            self.request_templates(&mut listener, phases, deadline).await?;
        }
        phases.list_ms = Some(started.elapsed().as_secs_f64() * 1_000.0);
        Ok(listener)
    }

    async fn request_templates(
        &mut self,
        listener: &mut Listener,
        phases: &mut Phases,
        deadline: Instant,
    ) -> Result<(), CallError> {
        let kind = ListKind::ResourceTemplates;
        let now = Instant::now();
        if !self.templates.should_request(now) {
            let reason = "they could not be read before, and are not requested for a while";
            listener.take(kind, Heard::Refused(reason.to_owned()))?;
            return Ok(());
        }
        let answers = listener.marks.len();
        let limit = self.templates.limit(now, deadline);
        let error = match self.hear_list(kind, listener, phases, limit).await {
            Ok(()) => {
                self.templates.on_read();
                return Ok(());
            }
            Err(error) => error,
        };
        let heard = match error.rpc_code() {
            Some(code) => {
                self.templates.on_refused();
                let is_first = listener.marks.len() == answers;
                match is_first && is_unknown_method(code) {
                    true => Heard::Absent,
                    false => Heard::Refused(error.failure.message),
                }
            }
            // A process that we lost ourselves is no answer of the server.
            None if self.templates.is_required() || self.is_lost() => return Err(error),
            None => {
                let has_exited = self.process_id().is_some() && self.has_ended();
                self.templates.on_unanswered(Instant::now(), has_exited);
                Heard::Refused(error.failure.message)
            }
        };
        listener.take(kind, heard)?;
        Ok(())
    }

    async fn hear_list(
        &mut self,
        kind: ListKind,
        listener: &mut Listener,
        phases: &mut Phases,
        deadline: Instant,
    ) -> Result<(), CallError> {
        let mut cursors = HashSet::new();
        let mut cursor: Option<String> = None;
        for _ in 0..MAX_PAGES {
            let params = Params::page(cursor.as_deref());
            let recall = listener.recall(kind);
            let method = list_method(kind);
            let answer = self.recall(method, params, Phase::List, recall, phases, deadline).await?;
            let heard = match answer.payload {
                Ok(Payload::New(result, echo)) => Heard::Page(result, echo),
                Ok(Payload::Same(body)) => Heard::Same(body),
                Err(_) => break,
            };
            cursor = listener.take(kind, heard)?;
            match &cursor {
                None => return Ok(()),
                Some(next) if !cursors.insert(next.clone()) => {
                    let text = format!("the cursor of `{}` goes round", list_method(kind));
                    return Err(self.error(FailureCode::EndlessList, Phase::List, text));
                }
                Some(_) => {}
            }
        }
        let text = format!("`{}` has more than {MAX_PAGES} pages", list_method(kind));
        Err(self.error(FailureCode::EndlessList, Phase::List, text))
    }
}

#[cfg(test)]
mod tests {
    use mcpmon_core::secret::Redactor;
    use mcpmon_core::status::Era;

    use super::*;

    fn page(text: &str) -> Heard {
        Heard::Page(RawValue::from_string(text.to_owned()).unwrap(), None)
    }

    fn tools(names: &[&str], next: Option<&str>) -> Heard {
        let tools: Vec<_> = names
            .iter()
            .map(|name| serde_json::json!({"name": name, "inputSchema": {"type": "object"}}))
            .collect();
        page(&serde_json::json!({"tools": tools, "nextCursor": next}).to_string())
    }

    fn assembly() -> Assembly {
        Assembly::new(Era::Legacy, Redactor::default(), None)
    }

    fn listen(known: Known, heard: Vec<(ListKind, Heard)>) -> Listener {
        let mut listener = Listener::new(known, assembly(), 100_000);
        for (kind, heard) in heard {
            listener.take(kind, heard).unwrap();
        }
        listener
    }

    /// What is known afterwards, and the names of the tools if anything was new.
    fn read(known: Known, heard: Vec<(ListKind, Heard)>) -> (Known, Option<Vec<String>>) {
        let listener = listen(known, heard);
        if listener.is_unchanged() {
            return (Known(Some(listener.marks)), None);
        }
        let (reading, known) = listener.finish().unwrap();
        let names = reading.lists.tools.into_iter().map(|tool| tool.name).collect();
        (known, Some(names))
    }

    #[test]
    fn a_reading_is_given_once_and_again_when_any_page_differs() {
        let first = |name| vec![(ListKind::Tools, tools(&[name], Some("2")))];
        let both = |name, last: &[&str]| {
            let mut pages = first(name);
            pages.push((ListKind::Tools, tools(last, None)));
            pages
        };
        let given = |names: &[&str]| Some(names.iter().map(|&name| name.to_owned()).collect());
        let (known, names) = read(Known::default(), both("a", &["b"]));
        assert_eq!(names, given(&["a", "b"]));
        let (known, names) = read(known, both("a", &["b"]));
        assert_eq!(names, None);
        let (known, names) = read(known, both("a", &["c"]));
        assert_eq!(names, given(&["a", "c"]), "the second page is another");
        let (known, names) = read(known, both("d", &["c"]));
        assert_eq!(names, given(&["d", "c"]), "the first page is another");
        let (known, names) = read(known, first("d"));
        assert_eq!(names, given(&["d"]), "a page less");
        let (known, names) = read(known, both("d", &["c"]));
        assert_eq!(names, given(&["d", "c"]), "a page more");
        assert_eq!(read(known, both("d", &["c"])).1, None);
    }

    #[test]
    fn lists_are_capped_over_all_their_pages() {
        let room = 2 * tools(&["a"], Some("2")).trace().unwrap().1;
        let mut listener = Listener::new(Known::default(), assembly(), room);
        for _ in 0..2 {
            listener.take(ListKind::Tools, tools(&["a"], Some("2"))).unwrap();
        }
        let error = listener.take(ListKind::Prompts, Heard::Refused("no".to_owned())).unwrap_err();
        assert_eq!(error.code(), FailureCode::EndlessList);
    }

    #[test]
    fn a_list_that_breaks_off_is_not_known_even_when_its_beginning_is() {
        let begun = || page(r#"{"prompts":[{"name":"p"}],"nextCursor":"2"}"#);
        let refused = || Heard::Refused("no".to_owned());
        let heard = || vec![(ListKind::Prompts, begun()), (ListKind::Prompts, refused())];
        let (reading, known) = listen(Known::default(), heard()).finish().unwrap();
        assert_eq!(reading.lists.prompts, []);
        assert_eq!(reading.findings.len(), 1);
        assert!(
            !reading.lists.covers_list(ListKind::Prompts)
                && reading.lists.covers_list(ListKind::Tools)
        );
        let listener = listen(known, heard());
        assert!(listener.is_unchanged());
        let whole = || page(r#"{"prompts":[{"name":"q"}]}"#);
        let heard = vec![(ListKind::Prompts, begun()), (ListKind::Prompts, whole())];
        let (reading, _) = listen(Known(Some(listener.marks)), heard).finish().unwrap();
        assert_eq!(reading.lists.prompts.len(), 2);
    }

    #[test]
    fn a_list_that_is_absent_is_no_finding() {
        let heard = || vec![(ListKind::ResourceTemplates, Heard::Absent)];
        let listener = listen(Known::default(), heard());
        let (reading, known) = listener.finish().unwrap();
        assert_eq!(reading.findings, []);
        assert!(listen(known, heard()).is_unchanged());
    }

    #[test]
    fn the_same_words_of_another_list_are_not_the_same() {
        let empty = |kind| vec![(kind, page(r#"{"prompts":[],"resources":[]}"#))];
        let (known, names) = read(Known::default(), empty(ListKind::Prompts));
        assert_eq!(names, Some(Vec::new()));
        let (known, names) = read(known, empty(ListKind::Resources));
        assert_eq!(names, Some(Vec::new()));
        let refused = vec![(ListKind::Resources, Heard::Refused("no".to_owned()))];
        let (known, names) = read(known, refused);
        assert_eq!(names, Some(Vec::new()));
        let refused = vec![(ListKind::Resources, Heard::Refused("no".to_owned()))];
        assert_eq!(read(known, refused).1, None);
    }

    #[test]
    fn a_cursor_is_followed_though_its_page_is_known() {
        let (known, _) = read(Known::default(), vec![(ListKind::Tools, tools(&["a"], Some("2")))]);
        let mut listener = listen(known, Vec::new());
        let next = listener.take(ListKind::Tools, tools(&["a"], Some("2"))).unwrap();
        assert_eq!(next.as_deref(), Some("2"));
    }
}
