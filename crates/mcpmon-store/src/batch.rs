//! What one append brought, packed into one row of the head.
//!
//! A check takes some twenty bytes here, a third less than as a row of its own, and a fifth of the
//! time: a table's row costs a statement each. Every check says whose it is and how long it is
//! before it says anything else, so a question about one service steps over the others. Nothing is
//! foretold and no bit is packed: the head is small, and what leaves it becomes a block (`block`).

use crate::bits::{fold, unfold};
use crate::packed::{PackedProcess, Unpacker, push};
use crate::row::{Outcome, Row};
use crate::services::LARGEST_NUMBER;

/// First byte of a batch.
const VERSION: u8 = 1;

/// A bit for each of the six phases, from the lowest on; then what else there is.
const PHASES: u32 = 6;
const LATENCY: u64 = 1 << PHASES;
const RESTARTED: u64 = LATENCY << 1;
const PROCESS: u64 = RESTARTED << 1;
const FILES: u64 = PROCESS << 1;
const UNPROVEN: u64 = FILES << 1;

/// Packs checks one behind the other.
#[derive(Debug, Default)]
pub(crate) struct BatchWriter {
    out: Vec<u8>,
    check: Vec<u8>,
    at: i64,
}

impl BatchWriter {
    pub(crate) fn is_empty(&self) -> bool {
        self.out.is_empty()
    }

    pub(crate) fn push(&mut self, service: i64, row: &Row) {
        if self.out.is_empty() {
            self.out.push(VERSION);
        }
        self.check.clear();
        write(&mut self.check, row);
        push(&mut self.out, service.unsigned_abs());
        push(&mut self.out, fold(row.at.wrapping_sub(self.at)));
        push(&mut self.out, self.check.len() as u64);
        self.out.extend_from_slice(&self.check);
        self.at = row.at;
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        &self.out
    }

    /// Begins anew, in the same room.
    pub(crate) fn clear(&mut self) {
        self.out.clear();
        self.at = 0;
    }
}

fn write(out: &mut Vec<u8>, row: &Row) {
    // Numbers keep their bits: those below zero are damage, and come back as they were.
    let put = |out: &mut Vec<u8>, number: i64| push(out, number as u64);
    let Row { at: _, question, status, code, latency, total, phases, restarted, unproven, process } =
        row;
    let timed = (0..).zip(phases).fold(0, |bits, (n, part)| bits | u64::from(part.is_some()) << n);
    let flag = |bit: u64, is_set: bool| if is_set { bit } else { 0 };
    let has = timed
        | flag(LATENCY, latency.is_some())
        | flag(RESTARTED, *restarted)
        | flag(UNPROVEN, *unproven)
        | flag(PROCESS, process.is_some())
        | flag(FILES, process.is_some_and(|process| process.files.is_some()));
    put(out, *question);
    put(out, *status);
    put(out, *code);
    push(out, has);
    latency.iter().for_each(|latency| put(out, *latency));
    put(out, *total);
    phases.iter().flatten().for_each(|part| put(out, *part));
    if let Some(PackedProcess { cpu, memory, files, processes }) = process {
        put(out, *cpu);
        put(out, *memory);
        put(out, *processes);
        files.iter().for_each(|files| put(out, *files));
    }
}

/// A check of a batch, not yet taken apart.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Packed<'a> {
    pub(crate) service: i64,
    pub(crate) at: i64,
    rest: &'a [u8],
}

/// What every check begins with.
struct Begin {
    question: i64,
    status: i64,
    code: i64,
    has: u64,
    latency: Option<i64>,
}

impl Begin {
    fn read(from: &mut Unpacker<'_>) -> Option<Self> {
        let (question, status) = (from.int()? as i64, from.int()? as i64);
        let (code, has) = (from.int()? as i64, from.int()?);
        let latency = if has & LATENCY == 0 { None } else { Some(from.int()? as i64) };
        Some(Self { question, status, code, has, latency })
    }
}

impl Packed<'_> {
    /// All of it; `None` for a damaged one.
    pub(crate) fn row(&self) -> Option<Row> {
        let mut from = Unpacker(self.rest);
        let Begin { question, status, code, has, latency } = Begin::read(&mut from)?;
        let total = from.int()? as i64;
        let mut phases = [None; PHASES as usize];
        for (n, part) in phases.iter_mut().enumerate() {
            if has >> n & 1 == 1 {
                *part = Some(from.int()? as i64);
            }
        }
        let process = if has & PROCESS == 0 {
            None
        } else {
            let (cpu, memory) = (from.int()? as i64, from.int()? as i64);
            let processes = from.int()? as i64;
            let files = if has & FILES == 0 { None } else { Some(from.int()? as i64) };
            Some(PackedProcess { cpu, memory, files, processes })
        };
        let restarted = has & RESTARTED != 0;
        Some(Row {
            at: self.at,
            question,
            status,
            code,
            latency,
            total,
            phases,
            restarted,
            unproven: has & UNPROVEN != 0,
            process,
        })
    }

    /// What summing up needs of it; `None` for a damaged one.
    pub(crate) fn outcome(&self) -> Option<Outcome> {
        let Begin { question, status, code, latency, .. } = Begin::read(&mut Unpacker(self.rest))?;
        Some(Outcome { at: self.at, question, status, code, latency })
    }
}

/// Gives the checks of a batch in their order; `None` stands for what is damaged, and is the last.
#[derive(Debug)]
pub(crate) struct BatchReader<'a> {
    from: Unpacker<'a>,
    at: i64,
    is_damaged: bool,
}

impl<'a> BatchReader<'a> {
    pub(crate) fn new(batch: &'a [u8]) -> Self {
        match batch.split_first() {
            Some((&VERSION, rest)) => Self { from: Unpacker(rest), at: 0, is_damaged: false },
            _ => Self { from: Unpacker(&[]), at: 0, is_damaged: true },
        }
    }

    fn read(&mut self) -> Option<Packed<'a>> {
        let service = i64::try_from(self.from.int()?).ok()?;
        // Such a number was never given; lists are sized by numbers.
        if service >= LARGEST_NUMBER as i64 {
            return None;
        }
        self.at = self.at.wrapping_add(unfold(self.from.int()?));
        let length = usize::try_from(self.from.int()?).ok()?;
        let (rest, behind) = self.from.0.split_at_checked(length)?;
        self.from.0 = behind;
        Some(Packed { service, at: self.at, rest })
    }
}

impl<'a> Iterator for BatchReader<'a> {
    type Item = Option<Packed<'a>>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.from.0.is_empty() && !self.is_damaged {
            return None;
        }
        let read = if self.is_damaged { None } else { self.read() };
        self.is_damaged = false;
        if read.is_none() {
            self.from = Unpacker(&[]);
        }
        Some(read)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn any_row() -> impl Strategy<Value = Row> {
        let number = || prop_oneof![8 => 0..100_000_i64, 1 => any::<i64>()];
        let maybe = move || proptest::option::of(number());
        let process =
            (number(), number(), maybe(), number()).prop_map(|(cpu, memory, files, processes)| {
                PackedProcess { cpu, memory, files, processes }
            });
        (
            (any::<i64>(), 0..6_i64, 0..8_i64, 0..60_i64, any::<bool>(), any::<bool>()),
            (maybe(), number(), proptest::array::uniform6(maybe()), proptest::option::of(process)),
        )
            .prop_map(|((at, question, status, code, restarted, unproven), numbers)| {
                let (latency, total, phases, process) = numbers;
                Row {
                    at,
                    question,
                    status,
                    code,
                    latency,
                    total,
                    phases,
                    restarted,
                    unproven,
                    process,
                }
            })
    }

    fn packed(rows: &[(i64, Row)]) -> BatchWriter {
        let mut writer = BatchWriter::default();
        rows.iter().for_each(|(service, row)| writer.push(*service, row));
        writer
    }

    proptest! {
        #[test]
        fn checks_come_back_as_they_were(
            rows in proptest::collection::vec((0..1_000_000_i64, any_row()), 0..40),
        ) {
            let mut writer = packed(&rows);
            let bytes = writer.bytes().to_vec();
            let back = |bytes: &[u8]| -> Option<Vec<(i64, Row)>> {
                let whole = |check: Option<Packed<'_>>| check.map(|check| (check.service, check.row()));
                let found = BatchReader::new(bytes).map(|check| {
                    let (service, row) = whole(check)?;
                    Some((service, row?))
                });
                found.collect()
            };
            if !rows.is_empty() {
                prop_assert_eq!(back(&bytes), Some(rows.clone()));
                for (check, (_, row)) in BatchReader::new(&bytes).zip(&rows) {
                    let Row { at, question, status, code, latency, .. } = *row;
                    let outcome = check.and_then(|check| check.outcome());
                    prop_assert_eq!(outcome, Some(Outcome { at, question, status, code, latency }));
                }
            }
            writer.clear();
            rows.iter().for_each(|(service, row)| writer.push(*service, row));
            prop_assert_eq!(writer.bytes(), bytes);
        }

        #[test]
        fn damaged_batches_are_no_panic_and_come_to_an_end(
            rows in proptest::collection::vec((0..1_000_i64, any_row()), 1..20),
            at in any::<prop::sample::Index>(),
            bit in 0..8_u32,
            cut in any::<prop::sample::Index>(),
        ) {
            let mut bytes = packed(&rows).bytes().to_vec();
            let short = &bytes[..cut.index(bytes.len())];
            let ends_early = BatchReader::new(short).map(|check| check.map(|check| check.row()));
            prop_assert!(ends_early.count() <= rows.len() + 1);
            let at = at.index(bytes.len());
            bytes[at] ^= 1_u8 << bit;
            let flipped = BatchReader::new(&bytes).map(|check| check.map(|check| check.row()));
            prop_assert!(flipped.count() <= bytes.len() + 1);
        }
    }

    #[test]
    fn a_usual_check_takes_some_twenty_bytes() {
        let mut phases = [None; 6];
        (phases[2], phases[5]) = (Some(212), Some(1_987));
        let row = Row {
            at: 1_767_225_600_000,
            question: 1,
            status: 1,
            latency: Some(2_500),
            total: 4_740,
            phases,
            ..Row::default()
        };
        let rows: Vec<_> = (0..100).map(|n| (300, Row { at: row.at + n * 60, ..row })).collect();
        let each = packed(&rows).bytes().len() / rows.len();
        assert!((12..=18).contains(&each), "{each} bytes");
    }
}
