//! Checks of one service, packed by columns.
//!
//! What a check *is* (question, status, code, which times it has) hardly changes from one to the
//! next, so it is a short list of shapes and the lengths of their runs. What is left are numbers:
//! each column says how it is best foretold (from its own recent past, or from another column of
//! the same check) and holds the distances as Rice codes. Failed checks have columns of their own,
//! because a timeout says nothing about the next answer. Why not a general codec:
//! `docs/adr/0050-blocks-of-rice-codes.md`.

use crate::bits::{BitReader, BitWriter, Lengths, fold, unfold};
use crate::packed::{PackedProcess, Unpacker, push};
use crate::row::{Outcome, Row};

/// First byte of a block.
const VERSION: u64 = 1;
/// Rows of one block; more is damage.
pub(crate) const MOST_ROWS: usize = 1 << 21;
/// Shapes of one block; more is damage.
const MOST_SHAPES: u64 = 1 << 16;
/// Values the middle of a column is taken from.
const MIDDLE_OF: usize = 33;
/// A column that needs no distances.
const ALL_FORETOLD: u32 = 63;
const K_BITS: u32 = 6;
const FORECAST_BITS: u32 = 2;
const MIDDLE_K: u32 = 10;
const RUN_K: u32 = 5;
const CODE_K: u32 = 4;

const LATENCY: usize = 0;
const FIRST_PHASE: usize = 1;
const TOTAL: usize = 7;
const CPU: usize = 8;
const MEMORY: usize = 9;
const FILES: usize = 10;
const PROCESSES: usize = 11;
const COLUMNS: usize = 12;

/// What a check is, apart from its numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Shape {
    question: i64,
    status: i64,
    code: i64,
    restarted: bool,
    unproven: bool,
    /// A bit for each column there is a number in.
    columns: u16,
    /// Whether the service answered.
    is_good: bool,
}

impl Shape {
    fn of(row: &Row) -> Self {
        let mut columns = 1 << TOTAL;
        columns |= u16::from(row.latency.is_some()) << LATENCY;
        for (phase, part) in row.phases.iter().enumerate() {
            columns |= u16::from(part.is_some()) << (FIRST_PHASE + phase);
        }
        if let Some(process) = &row.process {
            columns |= 1 << CPU | 1 << MEMORY | 1 << PROCESSES;
            columns |= u16::from(process.files.is_some()) << FILES;
        }
        let Row { question, status, code, restarted, unproven, .. } = *row;
        let is_good = is_good(status);
        Self { question, status, code, restarted, unproven, columns, is_good }
    }

    fn has(self, column: usize) -> bool {
        self.columns >> column & 1 == 1
    }

    fn write(self, out: &mut BitWriter) {
        out.rice(fold(self.question), CODE_K);
        out.rice(fold(self.status), CODE_K);
        out.rice(fold(self.code), CODE_K);
        out.put(u64::from(self.restarted), 1);
        out.put(u64::from(self.unproven), 1);
        out.put(u64::from(self.columns), COLUMNS as u32);
    }

    fn read(from: &mut BitReader<'_>) -> Option<Self> {
        let question = unfold(from.rice(CODE_K)?);
        let status = unfold(from.rice(CODE_K)?);
        let code = unfold(from.rice(CODE_K)?);
        let restarted = from.take(1)? == 1;
        let unproven = from.take(1)? == 1;
        let columns = from.take(COLUMNS as u32)? as u16;
        let is_good = is_good(status);
        Some(Self { question, status, code, restarted, unproven, columns, is_good })
    }

    /// A row of this shape, its numbers still zero.
    fn row(self, at: i64) -> Row {
        let phases = std::array::from_fn(|phase| self.has(FIRST_PHASE + phase).then_some(0));
        let process = self.has(CPU).then(|| PackedProcess {
            files: self.has(FILES).then_some(0),
            ..PackedProcess::default()
        });
        Row {
            at,
            question: self.question,
            status: self.status,
            code: self.code,
            latency: self.has(LATENCY).then_some(0),
            total: 0,
            phases,
            restarted: self.restarted,
            unproven: self.unproven,
            process,
        }
    }
}

fn is_good(status: i64) -> bool {
    crate::codec::to_status(status).is_available()
}

/// The number of a row in a column.
fn number(row: &Row, column: usize) -> Option<i64> {
    match column {
        LATENCY => row.latency,
        TOTAL => Some(row.total),
        CPU => row.process.map(|process| process.cpu),
        MEMORY => row.process.map(|process| process.memory),
        PROCESSES => row.process.map(|process| process.processes),
        FILES => row.process.and_then(|process| process.files),
        phase => *row.phases.get(phase - FIRST_PHASE)?,
    }
}

/// Where the number of a row in a column goes.
fn cell(row: &mut Row, column: usize) -> Option<&mut i64> {
    match column {
        LATENCY => row.latency.as_mut(),
        TOTAL => Some(&mut row.total),
        CPU => row.process.as_mut().map(|process| &mut process.cpu),
        MEMORY => row.process.as_mut().map(|process| &mut process.memory),
        PROCESSES => row.process.as_mut().map(|process| &mut process.processes),
        FILES => row.process.as_mut().and_then(|process| process.files.as_mut()),
        phase => row.phases.get_mut(phase - FIRST_PHASE).and_then(Option::as_mut),
    }
}

/// What a column's numbers are foretold from, besides their own past.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Forecast {
    /// Nothing: they scatter around a middle that may wander.
    Middle,
    /// The number before: they stay as they are for long.
    Before,
    /// The latency of the same check.
    Latency,
    /// All phases of the same check.
    Phases,
}

impl Forecast {
    const ALL: [Self; 1 << FORECAST_BITS] =
        [Self::Middle, Self::Before, Self::Latency, Self::Phases];

    /// Those worth trying for a column. A phase must not look at phases, not all of which are
    /// known when it is read.
    fn worth_trying(column: usize) -> &'static [Self] {
        match column {
            LATENCY | CPU => &[Self::Middle],
            TOTAL => &[Self::Middle, Self::Latency, Self::Phases],
            MEMORY | FILES | PROCESSES => &[Self::Middle, Self::Before],
            _ => &[Self::Middle, Self::Latency],
        }
    }

    fn base(self, row: &Row) -> i64 {
        let latency = row.latency.unwrap_or(0);
        let phases =
            || row.phases.iter().flatten().fold(0_i64, |sum, part| sum.wrapping_add(*part));
        match self {
            Self::Middle | Self::Before => 0,
            Self::Latency => latency,
            // The list phase of a check on a held session is beside its latency, not part of it.
            Self::Phases => phases().wrapping_add(latency),
        }
    }
}

/// Foretells the next number of a column from those before.
///
/// A wandering mean over about sixteen. One number far out moves it no further than twice the
/// usual distance, so that a slow answer does not spoil those after it.
struct Wandering {
    sixteenths: i64,
    follows: bool,
    reach: i64,
}

impl Wandering {
    fn new(forecast: Forecast, middle: i64, reach_k: u32) -> Self {
        Self {
            sixteenths: middle.wrapping_mul(16),
            follows: forecast == Forecast::Before,
            reach: 2 << reach_k.min(40),
        }
    }

    fn next(&self) -> i64 {
        self.sixteenths >> 4
    }

    fn see(&mut self, value: i64, distance: i64) {
        self.sixteenths = if self.follows {
            value.wrapping_mul(16)
        } else {
            self.sixteenths.wrapping_add(distance.clamp(-self.reach, self.reach))
        };
    }
}

/// A column as it will be written.
struct Plan {
    forecast: Forecast,
    middle: i64,
    reach_k: u32,
    k: u32,
    distances: Vec<u64>,
    cost: u64,
}

impl Plan {
    fn make(values: &[i64], forecast: Forecast) -> Self {
        let mut first = values[..values.len().min(MIDDLE_OF)].to_vec();
        let half = first.len() / 2;
        // What only moves from its last place begins at its first.
        let middle = match forecast {
            Forecast::Before => values[0],
            _ => *first.select_nth_unstable(half).1,
        };
        let mut distances: Vec<u64> =
            values.iter().map(|value| fold(value.wrapping_sub(middle))).collect();
        let (reach_k, _) = Lengths::of(&distances).best();
        let mut wandering = Wandering::new(forecast, middle, reach_k);
        for (value, folded) in values.iter().zip(&mut distances) {
            let distance = value.wrapping_sub(wandering.next());
            *folded = fold(distance);
            wandering.see(*value, distance);
        }
        let (k, cost) = match distances.iter().all(|distance| *distance == 0) {
            true => (ALL_FORETOLD, 0),
            false => Lengths::of(&distances).best(),
        };
        Self { forecast, middle, reach_k, k, distances, cost }
    }

    fn write(&self, out: &mut BitWriter) {
        let forecast = Forecast::ALL.iter().position(|known| *known == self.forecast);
        out.put(forecast.unwrap_or(0) as u64, FORECAST_BITS);
        out.put(u64::from(self.k), K_BITS);
        out.put(u64::from(self.reach_k), K_BITS);
        out.rice(fold(self.middle), MIDDLE_K);
        if self.k != ALL_FORETOLD {
            self.distances.iter().for_each(|distance| out.rice(*distance, self.k));
        }
    }
}

/// Reads a column one number after the other.
struct ColumnReader {
    forecast: Forecast,
    wandering: Wandering,
    k: u32,
}

impl ColumnReader {
    fn begin(from: &mut BitReader<'_>) -> Option<Self> {
        let forecast = Forecast::ALL[from.take(FORECAST_BITS)? as usize];
        let k = from.take(K_BITS)? as u32;
        let reach_k = from.take(K_BITS)? as u32;
        let middle = unfold(from.rice(MIDDLE_K)?);
        Some(Self { forecast, wandering: Wandering::new(forecast, middle, reach_k), k })
    }

    fn next(&mut self, from: &mut BitReader<'_>) -> Option<i64> {
        let distance = if self.k == ALL_FORETOLD { 0 } else { unfold(from.rice(self.k)?) };
        let value = self.wandering.next().wrapping_add(distance);
        self.wandering.see(value, distance);
        Some(value)
    }
}

/// Packs rows, which are in order of time.
pub(crate) fn pack(rows: &[Row]) -> Vec<u8> {
    let mut out = Vec::with_capacity(32 + rows.len() * 7);
    push(&mut out, VERSION);
    push(&mut out, rows.len() as u64);
    let Some(first) = rows.first() else { return out };
    push(&mut out, fold(first.at));
    let mut out = BitWriter::after(out);
    let shapes = write_shapes(&mut out, rows);
    if rows.len() > 1 {
        let spans: Vec<i64> =
            rows.windows(2).map(|pair| pair[1].at.wrapping_sub(pair[0].at)).collect();
        Plan::make(&spans, Forecast::Middle).write(&mut out);
    }
    for good in [true, false] {
        write_group(&mut out, rows, &shapes, good);
    }
    out.finish()
}

/// Writes which shape each row has, as runs; gives them.
fn write_shapes(out: &mut BitWriter, rows: &[Row]) -> Vec<Shape> {
    let mut known: Vec<Shape> = Vec::new();
    let mut runs: Vec<(u64, u64)> = Vec::new();
    let mut shapes: Vec<Shape> = Vec::with_capacity(rows.len());
    for row in rows {
        let shape = Shape::of(row);
        if shapes.last() == Some(&shape)
            && let Some(run) = runs.last_mut()
        {
            run.1 += 1;
        } else {
            let place = known.iter().position(|other| *other == shape).unwrap_or_else(|| {
                known.push(shape);
                known.len() - 1
            });
            runs.push((place as u64, 1));
        }
        shapes.push(shape);
    }
    out.rice(known.len() as u64, 1);
    known.iter().for_each(|shape| shape.write(out));
    for (place, length) in runs {
        out.put(place, bits_for(known.len()));
        out.rice(length - 1, RUN_K);
    }
    shapes
}

fn bits_for(count: usize) -> u32 {
    usize::BITS - count.saturating_sub(1).leading_zeros()
}

fn write_group(out: &mut BitWriter, rows: &[Row], shapes: &[Shape], good: bool) {
    let columns = columns_of(shapes, good);
    let mut above = Vec::with_capacity(rows.len());
    for column in (0..COLUMNS).filter(|column| columns >> column & 1 == 1) {
        let mut best: Option<Plan> = None;
        for forecast in Forecast::worth_trying(column) {
            let of_group = rows.iter().zip(shapes).filter(|(_, shape)| shape.is_good == good);
            above.clear();
            above.extend(of_group.filter_map(|(row, _)| {
                Some(number(row, column)?.wrapping_sub(forecast.base(row)))
            }));
            let plan = Plan::make(&above, *forecast);
            if best.as_ref().is_none_or(|best| plan.cost < best.cost) {
                best = Some(plan);
            }
        }
        if let Some(best) = best {
            best.write(out);
        }
    }
}

/// The rows of a block, oldest first; `None` for a damaged one.
pub(crate) fn unpack(packed: &[u8]) -> Option<Vec<Row>> {
    let Opened { mut from, shapes, times } = Opened::read(packed)?;
    let mut rows: Vec<Row> = shapes.iter().zip(times).map(|(shape, at)| shape.row(at)).collect();
    for good in [true, false] {
        let columns = columns_of(&shapes, good);
        for column in (0..COLUMNS).filter(|column| columns >> column & 1 == 1) {
            let mut reader = ColumnReader::begin(&mut from)?;
            for (row, shape) in rows.iter_mut().zip(&shapes) {
                if shape.is_good != good || !shape.has(column) {
                    continue;
                }
                let value = reader.next(&mut from)?.wrapping_add(reader.forecast.base(row));
                if let Some(cell) = cell(row, column) {
                    *cell = value;
                }
            }
        }
    }
    Some(rows)
}

/// What summing up needs of a block's checks, oldest first; `None` for a damaged one. What lies
/// behind the last number it needs is not read at all.
pub(crate) fn outcomes(packed: &[u8]) -> Option<Vec<Outcome>> {
    let Opened { mut from, shapes, times } = Opened::read(packed)?;
    let outcome = |(shape, at): (&Shape, i64)| {
        let Shape { question, status, code, .. } = *shape;
        Outcome { at, question, status, code, latency: None }
    };
    let mut outcomes: Vec<Outcome> = shapes.iter().zip(times).map(outcome).collect();
    for good in [true, false] {
        let columns = columns_of(&shapes, good);
        for column in (0..COLUMNS).filter(|column| columns >> column & 1 == 1) {
            let is_last = good && columns_of(&shapes, false) >> LATENCY & 1 == 0;
            if column != LATENCY && (is_last || !good) {
                break;
            }
            let mut reader = ColumnReader::begin(&mut from)?;
            for (outcome, shape) in outcomes.iter_mut().zip(&shapes) {
                if shape.is_good == good && shape.has(column) {
                    let value = reader.next(&mut from)?;
                    if column == LATENCY {
                        outcome.latency = Some(value);
                    }
                }
            }
        }
    }
    Some(outcomes)
}

/// The columns checks of one group have numbers in, a bit for each.
fn columns_of(shapes: &[Shape], good: bool) -> u16 {
    let of_group = shapes.iter().filter(|shape| shape.is_good == good);
    of_group.fold(0, |columns, shape| columns | shape.columns)
}

/// A block whose columns are still to be read.
struct Opened<'a> {
    from: BitReader<'a>,
    /// The shape of each row.
    shapes: Vec<Shape>,
    times: Vec<i64>,
}

impl<'a> Opened<'a> {
    fn read(packed: &'a [u8]) -> Option<Self> {
        let mut head = Unpacker(packed);
        head.int().filter(|version| *version == VERSION)?;
        let count = usize::try_from(head.int()?).ok().filter(|count| *count <= MOST_ROWS)?;
        if count == 0 {
            let from = BitReader::new(&[]);
            return Some(Self { from, shapes: Vec::new(), times: Vec::new() });
        }
        let mut at = unfold(head.int()?);
        let mut from = BitReader::new(head.0);
        let shapes = read_shapes(&mut from, count)?;
        let mut times = Vec::with_capacity(count);
        times.push(at);
        if count > 1 {
            let mut spans = ColumnReader::begin(&mut from)?;
            for _ in 1..count {
                at = at.wrapping_add(spans.next(&mut from)?);
                times.push(at);
            }
        }
        Some(Self { from, shapes, times })
    }
}

/// The shape of each row.
fn read_shapes(from: &mut BitReader<'_>, count: usize) -> Option<Vec<Shape>> {
    let known = from.rice(1).filter(|known| (1..=MOST_SHAPES).contains(known))?;
    let known: Vec<Shape> = (0..known).map(|_| Shape::read(from)).collect::<Option<_>>()?;
    let bits = bits_for(known.len());
    // Grows as it is read: the count of a damaged block must not size it.
    let mut shapes = Vec::new();
    while shapes.len() < count {
        let shape = known.get(from.take(bits)? as usize)?;
        let length = from.rice(RUN_K)?.saturating_add(1);
        let length = usize::try_from(length).ok().filter(|n| *n <= count - shapes.len())?;
        shapes.resize(shapes.len() + length, *shape);
    }
    Some(shapes)
}

/// How many checks a block holds, without unpacking it.
pub(crate) fn count(packed: &[u8]) -> Option<u64> {
    let mut head = Unpacker(packed);
    head.int().filter(|version| *version == VERSION)?;
    head.int()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn any_row() -> impl Strategy<Value = Row> {
        let number = || prop_oneof![8 => 0..100_000_i64, 1 => any::<i64>()];
        let maybe = move || proptest::option::of(number());
        let phases = proptest::array::uniform6(maybe());
        let process =
            (number(), number(), maybe(), number()).prop_map(|(cpu, memory, files, processes)| {
                PackedProcess { cpu, memory, files, processes }
            });
        (
            (0..6_i64, 0..8_i64, 0..60_i64, any::<bool>(), any::<bool>()),
            (maybe(), number(), phases, proptest::option::of(process)),
        )
            .prop_map(|((question, status, code, restarted, unproven), numbers)| {
                let (latency, total, phases, process) = numbers;
                let at = 0;
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

    proptest! {
        #[test]
        fn rows_come_back_as_they_were(
            mut rows in proptest::collection::vec(any_row(), 0..60),
            times in proptest::collection::vec(any::<i64>(), 60),
        ) {
            for (row, at) in rows.iter_mut().zip(times) {
                row.at = at;
            }
            let packed = pack(&rows);
            prop_assert_eq!(count(&packed), Some(rows.len() as u64));
            let outcome = |row: &Row| {
                let Row { at, question, status, code, latency, .. } = *row;
                Outcome { at, question, status, code, latency }
            };
            prop_assert_eq!(outcomes(&packed), Some(rows.iter().map(outcome).collect()));
            prop_assert_eq!(unpack(&packed), Some(rows));
        }

        #[test]
        fn damaged_blocks_are_no_panic(
            rows in proptest::collection::vec(any_row(), 1..20),
            at in any::<prop::sample::Index>(),
            bit in 0..8_u32,
            cut in any::<prop::sample::Index>(),
        ) {
            let mut packed = pack(&rows);
            let at = at.index(packed.len());
            packed[at] ^= 1_u8 << bit;
            let _ = (unpack(&packed), outcomes(&packed));
            let _ = unpack(&packed[..cut.index(packed.len())]);
        }
    }

    #[test]
    fn equal_checks_take_hardly_anything() {
        let row =
            |n: i64| Row { at: n * 30_000, latency: Some(2_500), total: 4_000, ..Row::default() };
        let packed = pack(&(0..120).map(row).collect::<Vec<_>>());
        assert!(packed.len() < 32, "{} bytes", packed.len());
    }
}
