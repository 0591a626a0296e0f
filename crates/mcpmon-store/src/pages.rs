//! Pages of checks, from head and blocks as if they were one.
//!
//! Both know which times their parts span: runs of the head by their marks, chunks by theirs. A
//! page takes the parts in the order their times begin, until what is still to come can only lie
//! behind it. Checks are ordered by time, then by service, then as they were appended; that order
//! is the same before and after sealing, so a cursor outlives it.

use std::ops::Range;

use mcpmon_core::store::{CheckRecord, Cursor, Page, RecordQuery};
use mcpmon_core::{ServiceName, Timestamp};
use rusqlite::Connection;

use crate::batch::Packed;
use crate::block;
use crate::head::{self, Mark, SPAN};
use crate::row::{Outcome, Row};
use crate::seal::{Chunk, SERVICE_BITS, Sealed};
use crate::services::Words;

/// Rows looked at for one page; a question that finds little says so and goes on with the next.
const SCAN_BUDGET: i64 = if cfg!(test) { 2_000 } else { 1_000_000 };
/// Bits of a cursor that tell checks of one service and moment apart.
const TIE_BITS: u32 = 20;

/// A check with its place in the order of all.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Placed {
    pub(crate) service: i64,
    /// Blocks before the head, older chunks before newer.
    source: (i64, i64),
    pub(crate) row: Row,
}

impl Placed {
    fn place(&self) -> (i64, i64, (i64, i64)) {
        (self.row.at, self.service, self.source)
    }
}

/// A part of the history that is read whole.
#[derive(Debug, Clone, Copy)]
enum Part {
    Run(Mark),
    Chunk(Chunk),
}

impl Part {
    fn min_at(&self) -> i64 {
        match self {
            Self::Run(mark) => mark.min_at,
            Self::Chunk(chunk) => chunk.min_at.max(chunk.pruned),
        }
    }
}

/// Reads checks of a span of time, from wherever they are.
pub(crate) struct Source<'a> {
    connection: &'a Connection,
    sealed: Sealed,
    /// Only of services from one number to another.
    services: Option<(i64, i64)>,
    from: i64,
    until: i64,
}

impl<'a> Source<'a> {
    pub(crate) fn new(
        connection: &'a Connection,
        services: Option<(i64, i64)>,
        from: i64,
        until: i64,
    ) -> rusqlite::Result<Self> {
        Ok(Self { connection, sealed: Sealed::load(connection)?, services, from, until })
    }

    /// Gives what every check said and whose it is, in no order.
    /// What is damaged is left out: sums are made of this, and go on.
    pub(crate) fn each(&self, mut give: impl FnMut(i64, &Outcome)) -> rusqlite::Result<()> {
        for part in self.parts()? {
            match part {
                Part::Run(mark) => {
                    head::each_sound(self.connection, mark.first, mark.last, |id, packed| {
                        if self.is_asked_for(id, &packed) {
                            give(packed.service, &packed.outcome()?);
                        }
                        Some(())
                    })?;
                }
                Part::Chunk(chunk) => self.each_block(&chunk, |id, service, packed| {
                    let inside = self.inside(&chunk);
                    let Some(outcomes) = block::outcomes(packed) else {
                        head::tell_damaged(id);
                        return Ok(());
                    };
                    let outcomes = outcomes.iter().filter(|check| inside.contains(&check.at));
                    outcomes.for_each(|check| give(service, check));
                    Ok(())
                })?,
            }
        }
        Ok(())
    }

    fn parts(&self) -> rusqlite::Result<Vec<Part>> {
        let sql = format!(
            "SELECT {} FROM head_mark WHERE min_at >= ?1 AND min_at < ?2 AND max_at >= ?3",
            Mark::COLUMNS
        );
        let mut marks = self.connection.prepare_cached(&sql)?;
        let begin = self.from.saturating_sub(SPAN);
        let marks = marks.query_map([begin, self.until, self.from], Mark::read)?;
        let mut parts: Vec<Part> =
            marks.map(|mark| mark.map(Part::Run)).collect::<Result<_, _>>()?;
        let chunks = Chunk::between(self.connection, self.from, self.until)?;
        parts.extend(chunks.into_iter().map(Part::Chunk));
        parts.sort_by_key(Part::min_at);
        Ok(parts)
    }

    /// Adds the checks of a part; says how many were looked at.
    fn read(&self, part: &Part, found: &mut Vec<Placed>) -> rusqlite::Result<i64> {
        match part {
            Part::Run(mark) => self.read_run(mark, found),
            Part::Chunk(chunk) => self.read_chunk(chunk, found),
        }
    }

    fn read_run(&self, mark: &Mark, found: &mut Vec<Placed>) -> rusqlite::Result<i64> {
        self.each_of_run(mark, |id, packed| {
            let row = packed.row().ok_or_else(|| head::damaged(id))?;
            found.push(Placed { service: packed.service, source: (i64::MAX, id), row });
            Ok(())
        })?;
        Ok(mark.kept)
    }

    fn read_chunk(&self, chunk: &Chunk, found: &mut Vec<Placed>) -> rusqlite::Result<i64> {
        let mut read = 0;
        let inside = self.inside(chunk);
        self.each_block(chunk, |id, service, packed| {
            let rows = block::unpack(packed).ok_or_else(|| damaged_block(id))?;
            read += rows.len() as i64;
            let rows = (0..).zip(rows).filter(|(_, row)| inside.contains(&row.at));
            found.extend(rows.map(|(n, row)| Placed { service, source: (chunk.id, n), row }));
            Ok(())
        })?;
        Ok(read)
    }

    /// The checks of a run that are asked for, with their numbers.
    fn each_of_run(
        &self,
        mark: &Mark,
        mut give: impl FnMut(i64, Packed<'_>) -> rusqlite::Result<()>,
    ) -> rusqlite::Result<()> {
        head::each(self.connection, mark.first, mark.last, |id, packed| {
            if self.is_asked_for(id, &packed) { give(id, packed) } else { Ok(()) }
        })
    }

    fn is_asked_for(&self, id: i64, packed: &Packed<'_>) -> bool {
        let (low, high) = self.services.unwrap_or((0, i64::MAX));
        (low..=high).contains(&packed.service)
            && (self.from..self.until).contains(&packed.at)
            && !self.sealed.holds(id, packed.service)
    }

    /// The blocks of a chunk that are asked for, with their ids and services.
    fn each_block(
        &self,
        chunk: &Chunk,
        mut give: impl FnMut(i64, i64, &[u8]) -> rusqlite::Result<()>,
    ) -> rusqlite::Result<()> {
        let (first, last) = match self.services {
            Some((low, high)) => (chunk.id << SERVICE_BITS | low, chunk.id << SERVICE_BITS | high),
            None => chunk.blocks(),
        };
        let sql = "SELECT id, checks FROM block WHERE id BETWEEN ?1 AND ?2";
        let mut statement = self.connection.prepare_cached(sql)?;
        let mut rows = statement.query([first, last])?;
        while let Some(row) = rows.next()? {
            let id: i64 = row.get(0)?;
            give(id, id & ((1 << SERVICE_BITS) - 1), row.get_ref(1)?.as_blob()?)?;
        }
        Ok(())
    }

    fn inside(&self, chunk: &Chunk) -> Range<i64> {
        self.from.max(chunk.pruned)..self.until
    }
}

fn damaged_block(id: i64) -> rusqlite::Error {
    let message = format!("block {id} cannot be unpacked");
    rusqlite::Error::FromSqlConversionFailure(1, rusqlite::types::Type::Blob, message.into())
}

/// One page of checks, oldest first.
pub(crate) fn page(
    connection: &Connection,
    words: &Words,
    query: &RecordQuery,
) -> rusqlite::Result<Page<CheckRecord>> {
    let service = match &query.service {
        None => None,
        Some(name) => match words.number_of(name) {
            Some(number) => Some(number),
            None => return Ok(Page { items: Vec::new(), next: None }),
        },
    };
    let after = query.after.map(|cursor| (cursor.at.as_millis(), cursor.tie));
    let since = query.since.map_or(i64::MIN, Timestamp::as_millis);
    let from = since.max(after.map_or(i64::MIN, |(at, _)| at));
    let until = query.until.map_or(i64::MAX, Timestamp::as_millis);
    let services = service.map(|service| (service, service));
    let source = Source::new(connection, services, from, until)?;
    let limit = query.limit.clamp(1, RecordQuery::LARGEST_PAGE);
    let mut reading = Reading { after, limit, found: Vec::new() };
    let (mut scanned, mut start) = (0, None);
    for part in source.parts()? {
        let min_at = part.min_at();
        let start = *start.get_or_insert(min_at.max(from));
        if reading.is_settled_before(min_at) {
            break;
        }
        // Only where the next page would begin later than this one did.
        if scanned > SCAN_BUDGET && min_at > start {
            return Ok(reading.interrupted_before(min_at, words));
        }
        scanned += source.read(&part, &mut reading.found)?;
    }
    Ok(reading.finish(words))
}

/// The newest checks of a service, oldest first.
pub(crate) fn last(
    connection: &Connection,
    words: &Words,
    name: &ServiceName,
    count: usize,
) -> rusqlite::Result<Vec<CheckRecord>> {
    let Some(service) = words.number_of(name) else { return Ok(Vec::new()) };
    let source = Source::new(connection, Some((service, service)), i64::MIN, i64::MAX)?;
    let mut parts = source.parts()?;
    let end = |part: &Part| match part {
        Part::Run(mark) => mark.max_at,
        Part::Chunk(chunk) => chunk.max_at,
    };
    parts.sort_by_key(|part| std::cmp::Reverse(end(part)));
    let mut found: Vec<Placed> = Vec::new();
    for part in parts {
        // Enough, and nothing newer than the oldest of them can follow.
        if found.len() >= count {
            found.sort_by_key(Placed::place);
            found.drain(..found.len() - count);
            if found.first().is_none_or(|oldest| oldest.row.at > end(&part)) {
                break;
            }
        }
        source.read(&part, &mut found)?;
    }
    found.sort_by_key(Placed::place);
    found.drain(..found.len().saturating_sub(count));
    let mut names = Names { words, last: None };
    Ok(found.iter().filter_map(|placed| names.record(placed)).collect())
}

/// A page being read: the earliest checks found so far.
struct Reading {
    after: Option<(i64, i64)>,
    limit: usize,
    found: Vec<Placed>,
}

impl Reading {
    fn sort(&mut self) {
        // Checks come nearly in order; a stable sort finds the runs.
        self.found.sort_by_key(Placed::place);
    }

    /// The cursor's word for the check at `index`: its service, and which it is of those the
    /// service has at that moment.
    fn tie(&self, index: usize) -> i64 {
        let Placed { service, row, .. } = self.found[index];
        let same = |other: &&Placed| (other.row.at, other.service) == (row.at, service);
        let before = self.found[..index].iter().rev().take_while(same).count() as i64;
        service << TIE_BITS | before.min((1 << TIE_BITS) - 1)
    }

    /// How many of the sorted checks the pages before had already: they are all of one moment.
    fn skipped(&self) -> usize {
        let Some((at, tie)) = self.after else { return 0 };
        let known = |index: &usize| self.found[*index].row.at == at && self.tie(*index) <= tie;
        (0..self.found.len()).take_while(known).count()
    }

    /// Whether no part that begins at `min_at` or later can change the page any more.
    fn is_settled_before(&mut self, min_at: i64) -> bool {
        if self.found.len() <= self.limit {
            return false;
        }
        self.sort();
        let end = self.skipped() + self.limit + 1;
        self.found.truncate(end);
        self.found.len() == end && self.found[end - 1].row.at < min_at
    }

    fn finish(mut self, words: &Words) -> Page<CheckRecord> {
        self.sort();
        let skipped = self.skipped();
        let end = self.found.len().min(skipped + self.limit);
        let next = (self.found.len() > end).then(|| Cursor {
            at: Timestamp::from_millis(self.found[end - 1].row.at),
            tie: self.tie(end - 1),
        });
        let mut names = Names { words, last: None };
        let items =
            self.found[skipped..end].iter().filter_map(|placed| names.record(placed)).collect();
        Page { items, next }
    }

    /// What is sure so far, and to go on where the reading stopped.
    fn interrupted_before(mut self, min_at: i64, words: &Words) -> Page<CheckRecord> {
        self.found.retain(|placed| placed.row.at < min_at);
        let mut page = self.finish(words);
        let frontier = Cursor { at: Timestamp::from_millis(min_at), tie: i64::MIN };
        page.next.get_or_insert(frontier);
        page
    }
}

/// Checks with their services' names.
struct Names<'a> {
    words: &'a Words,
    last: Option<(i64, &'a ServiceName)>,
}

impl Names<'_> {
    /// `None` for a service that is not in the directory.
    fn record(&mut self, placed: &Placed) -> Option<CheckRecord> {
        let name = match self.last {
            Some((service, name)) if service == placed.service => name,
            _ => self.words.service(placed.service)?,
        };
        self.last = Some((placed.service, name));
        Some(placed.row.record(name, self.words))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use mcpmon_core::store::{Batch, PrunePlan, SampleStore};
    use mcpmon_testkit::START;
    use mcpmon_testkit::samples::check;
    use proptest::prelude::*;

    use crate::{OpenOptions, SqliteStore};

    use super::*;

    const SERVICES: [&str; 3] = ["a", "b", "c"];

    fn in_order(mut checks: Vec<CheckRecord>) -> Vec<CheckRecord> {
        checks.sort_by(|a, b| (a.at, &a.service).cmp(&(b.at, &b.service)));
        checks
    }

    fn moment(second: i64) -> Timestamp {
        Timestamp::from_millis(START.as_millis() + second * 1_000)
    }

    /// Batches of checks, mostly in order, with clocks that jump; and the steps of upkeep after
    /// each batch.
    fn histories() -> impl Strategy<Value = Vec<(Vec<(usize, i64)>, usize)>> {
        let second = prop_oneof![6 => 0..90_i64, 1 => -40_000..40_000_i64];
        let batch = proptest::collection::vec((0..SERVICES.len(), second), 0..60);
        proptest::collection::vec((batch, 0..4_usize), 0..12)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(48))]

        #[test]
        fn sealing_at_any_moment_changes_no_answer(
            history in histories(),
            service in proptest::option::of(0..SERVICES.len()),
            limit in 1..40_usize,
            before in proptest::option::of(-1_000..1_500_i64),
        ) {
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            runtime.block_on(async {
                let directory = tempfile::tempdir().unwrap();
                let path = directory.path().join("mcpmon.db");
                let mut store = SqliteStore::open(&path, OpenOptions::default()).unwrap();
                let nothing = PrunePlan::default();
                let mut appended = Vec::new();
                for (number, (batch, steps)) in history.iter().enumerate() {
                    let checks: Vec<_> = (0..)
                        .zip(batch)
                        .map(|(n, (service, second))| CheckRecord {
                            // Tells checks of one moment apart.
                            total: Duration::from_millis(number as u64 * 1_000 + n),
                            ..check(SERVICES[*service], moment(number as i64 * 60 + second))
                        })
                        .collect();
                    appended.extend(checks.clone());
                    store.append(&Batch { checks, ..Batch::default() }).await.unwrap();
                    for _ in 0..*steps {
                        store.prune(&nothing).await.unwrap();
                    }
                    if number % 5 == 4 {
                        drop(store);
                        store = SqliteStore::open(&path, OpenOptions::default()).unwrap();
                    }
                }
                let last: Vec<_> = SERVICES
                    .iter()
                    .filter_map(|name| appended.iter().rfind(|check| check.service.as_str() == *name))
                    .cloned()
                    .collect();
                let wanted = |check: &&CheckRecord| {
                    service.is_none_or(|service| check.service.as_str() == SERVICES[service])
                };
                let expected = in_order(appended.iter().filter(wanted).cloned().collect());
                // The head is sealed between one page and the next.
                let name = service.map(|service| SERVICES[service].into());
                let mut query = RecordQuery { service: name, limit, ..RecordQuery::default() };
                let mut found = Vec::new();
                loop {
                    let page = store.checks(&query).await.unwrap();
                    found.extend(page.items);
                    query.after = page.next;
                    if query.after.is_none() {
                        break;
                    }
                    store.prune(&nothing).await.unwrap();
                }
                assert!(found.is_sorted_by_key(|check| check.at));
                assert_eq!(in_order(found), expected);
                let services = store.services().await.unwrap();
                let stored: Vec<_> = services.into_iter().filter_map(|s| s.last_check).collect();
                assert_eq!(stored, last);

                let plan = PrunePlan { checks_before: before.map(moment), ..nothing };
                while store.prune(&plan).await.unwrap().more {}
                appended.retain(|check| plan.checks_before.is_none_or(|at| check.at >= at));
                let all = store.checks(&RecordQuery::all()).await.unwrap();
                assert_eq!(all.items.len(), appended.len().min(RecordQuery::LARGEST_PAGE));
                if all.next.is_none() {
                    assert_eq!(in_order(all.items), in_order(appended));
                }
                let report = store.check().await.unwrap();
                assert!(report.ok, "{:?}", report.problems);
            });
        }
    }
}
