//! A summary of a quarter or an hour, packed: a year has 8,760 of them for each service.
//!
//! What is usual takes no room: a single status, no failure. Latencies are the buckets of core's
//! sketch as gaps and counts in Rice codes: about 33 bytes for the 120 checks of an hour, where
//! the histogram of a general library takes 65 for twelve.

use mcpmon_core::sketch::LatencySketch;
use mcpmon_core::store::{PerStatus, Summary};
use rusqlite::Transaction;

use crate::bits::{BitReader, BitWriter, Lengths};
use crate::codec;
use crate::packed::{Unpacker, push};
use crate::services::{Directory, Words};

const VERSION: u64 = 1;
const K_BITS: u32 = 6;
/// Causes of failure and buckets of one summary; more is damage.
const MOST_PARTS: u64 = 1 << 16;

/// Packs the summary of a span of `length` ms.
pub(crate) fn pack(
    transaction: &Transaction<'_>,
    directory: &mut Directory,
    summary: &Summary,
    length: i64,
) -> rusqlite::Result<Vec<u8>> {
    let mut out = Vec::with_capacity(64);
    push(&mut out, VERSION);
    push_counts(&mut out, &summary.checks, None);
    push_counts(&mut out, &summary.times, Some(length.unsigned_abs()));
    push(&mut out, summary.codes.len() as u64);
    for (code, count) in &summary.codes {
        push(&mut out, directory.code(transaction, *code)?.unsigned_abs());
        push(&mut out, *count);
    }
    Ok(pack_sketch(out, &summary.latency))
}

/// A mask of the statuses there are, and their numbers. The largest of those that sum up to
/// `whole` is not written.
fn push_counts(out: &mut Vec<u8>, counts: &PerStatus, whole: Option<u64>) {
    let mut present: Vec<(i64, u64)> = counts
        .iter()
        .filter(|(_, number)| *number > 0)
        .map(|(status, number)| (codec::from_status(status), number))
        .collect();
    present.sort_unstable();
    let mask = present.iter().fold(0, |mask, (status, _)| mask | 1 << status);
    push(out, mask);
    let sum = present.iter().fold(0_u64, |sum, (_, number)| sum.saturating_add(*number));
    // What is left is the last one's.
    let told = if whole == Some(sum) { 1 } else { 0 };
    if whole.is_some() {
        push(out, told);
    }
    let written = present.len().saturating_sub(told as usize);
    present.iter().take(written).for_each(|(_, number)| push(out, *number));
}

fn read_counts(from: &mut Unpacker<'_>, whole: Option<u64>) -> Option<PerStatus> {
    let mask = from.int()?;
    let told = if whole.is_some() { from.int()? } else { 0 };
    let mut left = whole.unwrap_or(0);
    let present: Vec<i64> = (0..64).filter(|status| mask >> status & 1 == 1).collect();
    let mut counts = PerStatus::default();
    for (n, status) in present.iter().enumerate() {
        let is_rest = told == 1 && n + 1 == present.len();
        let number = if is_rest { left } else { from.int()? };
        left = left.saturating_sub(number);
        counts.add(codec::to_status(*status), number);
    }
    Some(counts)
}

fn pack_sketch(mut out: Vec<u8>, sketch: &LatencySketch) -> Vec<u8> {
    let buckets = sketch.buckets();
    push(&mut out, buckets.len() as u64);
    let Some((first, _)) = buckets.first() else { return out };
    push(&mut out, u64::from(*first));
    let gaps: Vec<u64> =
        buckets.windows(2).map(|pair| u64::from(pair[1].0 - pair[0].0) - 1).collect();
    let counts: Vec<u64> = buckets.iter().map(|(_, count)| u64::from(*count) - 1).collect();
    let (gap_k, _) = Lengths::of(&gaps).best();
    let (count_k, _) = Lengths::of(&counts).best();
    let mut out = BitWriter::after(out);
    out.put(u64::from(gap_k), K_BITS);
    out.put(u64::from(count_k), K_BITS);
    counts.iter().for_each(|count| out.rice(*count, count_k));
    gaps.iter().for_each(|gap| out.rice(*gap, gap_k));
    out.finish()
}

/// The summary of a span of `length` ms; `None` for a damaged one.
pub(crate) fn unpack(packed: &[u8], words: &Words, length: i64) -> Option<Summary> {
    let mut buckets = Vec::new();
    let mut summary = read(packed, words, length, &mut buckets)?;
    summary.latency = LatencySketch::from_buckets(buckets);
    Some(summary)
}

/// Reads a summary; its buckets take the place of what is in `buckets`.
fn read(
    packed: &[u8],
    words: &Words,
    length: i64,
    buckets: &mut Vec<(u16, u32)>,
) -> Option<Summary> {
    let mut from = Unpacker(packed);
    from.int().filter(|version| *version == VERSION)?;
    let checks = read_counts(&mut from, None)?;
    let times = read_counts(&mut from, Some(length.unsigned_abs()))?;
    let mut summary = Summary { checks, times, ..Summary::default() };
    for _ in 0..from.int().filter(|codes| *codes <= MOST_PARTS)? {
        let (number, count) = (i64::try_from(from.int()?).ok()?, from.int()?);
        // A code of a newer build has no name here.
        if let Some(code) = words.code(number) {
            summary.codes.insert(code, count);
        }
    }
    buckets.clear();
    let count = from.int().filter(|buckets| *buckets <= MOST_PARTS)?;
    if count == 0 {
        return Some(summary);
    }
    let mut bucket = u16::try_from(from.int()?).ok()?;
    let mut from = BitReader::new(from.0);
    let (gap_k, count_k) = (from.take(K_BITS)? as u32, from.take(K_BITS)? as u32);
    for _ in 0..count {
        buckets.push((bucket, u32::try_from(from.rice(count_k)?.checked_add(1)?).ok()?));
    }
    for found in &mut buckets[1..] {
        let gap = u16::try_from(from.rice(gap_k)?.checked_add(1)?).ok()?;
        bucket = bucket.checked_add(gap)?;
        found.0 = bucket;
    }
    // They rise, so the last is the largest.
    (bucket <= LatencySketch::LARGEST_BUCKET).then_some(summary)
}

/// Adds up packed summaries of one service without making each of them: a day of a fleet is
/// 24 for every service.
///
/// Latencies are counted in a list with a place for every bucket. Merging sorted ones would walk
/// over what was added before for each summary, and make a new list each time.
#[derive(Debug, Default)]
pub(crate) struct Adder {
    whole: Summary,
    counts: Vec<u32>,
    /// The buckets there is something in lie from the first of these to before the second.
    filled: (usize, usize),
    buckets: Vec<(u16, u32)>,
}

impl Adder {
    /// Adds the summary of a span of `length` ms; `None`, and nothing added, for a damaged one.
    pub(crate) fn add(&mut self, packed: &[u8], words: &Words, length: i64) -> Option<()> {
        let summary = read(packed, words, length, &mut self.buckets)?;
        self.whole.merge(&summary);
        let (Some((first, _)), Some((last, _))) = (self.buckets.first(), self.buckets.last())
        else {
            return Some(());
        };
        let (begin, end) = (usize::from(*first), usize::from(*last) + 1);
        self.filled = match self.filled {
            (0, 0) => (begin, end),
            (low, high) => (low.min(begin), high.max(end)),
        };
        if self.counts.len() < end {
            self.counts.resize(end, 0);
        }
        for (bucket, count) in &self.buckets {
            let place = &mut self.counts[usize::from(*bucket)];
            *place = place.saturating_add(*count);
        }
        Some(())
    }

    /// All that was added; what is added from now on is another's.
    pub(crate) fn finish(&mut self) -> Summary {
        let (begin, end) = std::mem::take(&mut self.filled);
        let counts = self.counts[begin..end].iter_mut().map(std::mem::take);
        let buckets = (begin as u16..).zip(counts);
        let latency = LatencySketch::from_buckets(buckets);
        Summary { latency, ..std::mem::take(&mut self.whole) }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use mcpmon_core::{FailureCode, Status};
    use proptest::prelude::*;
    use rusqlite::Connection;

    use super::*;

    fn summaries() -> impl Strategy<Value = Summary> {
        let status = || (0..Status::WORST_FIRST.len()).prop_map(|n| Status::WORST_FIRST[n]);
        let code =
            proptest::option::of((0..FailureCode::ALL.len()).prop_map(|n| FailureCode::ALL[n]));
        let latency = proptest::option::of((0..200_000_000_u64).prop_map(Duration::from_micros));
        let checks = proptest::collection::vec((status(), code, latency), 0..150);
        let times = proptest::collection::vec((status(), 0..2_000_000_u64), 0..4);
        (checks, times).prop_map(|(checks, times)| {
            let mut summary = Summary::default();
            checks.into_iter().for_each(|(status, code, latency)| {
                summary.record(mcpmon_core::CheckMeaning::health(status), code, latency);
            });
            times.into_iter().for_each(|(status, ms)| summary.times.add(status, ms));
            summary
        })
    }

    proptest! {
        #[test]
        fn a_summary_comes_back_as_it_was(summary in summaries(), is_whole: bool) {
            let mut connection = Connection::open_in_memory().unwrap();
            crate::schema::migrate(std::path::Path::new(":memory:"), &mut connection).unwrap();
            let transaction = connection.transaction().unwrap();
            let mut directory = Directory::default();
            let sum = summary.times.sum() as i64;
            let length = if is_whole { sum } else { sum + 1 };
            let packed = pack(&transaction, &mut directory, &summary, length).unwrap();
            let words = std::sync::Arc::new(Words::default()).refreshed(&transaction).unwrap();
            prop_assert_eq!(unpack(&packed, &words, length), Some(summary));
        }

        #[test]
        fn adding_packed_ones_is_merging_them(
            all in proptest::collection::vec(proptest::collection::vec(summaries(), 0..6), 1..4),
        ) {
            let mut connection = Connection::open_in_memory().unwrap();
            crate::schema::migrate(std::path::Path::new(":memory:"), &mut connection).unwrap();
            let transaction = connection.transaction().unwrap();
            let mut directory = Directory::default();
            let mut adder = Adder::default();
            for of_service in all {
                let packed: Vec<_> = of_service
                    .iter()
                    .map(|summary| pack(&transaction, &mut directory, summary, 900_000).unwrap())
                    .collect();
                let words = std::sync::Arc::new(Words::default()).refreshed(&transaction).unwrap();
                let mut merged = Summary::default();
                for (packed, summary) in packed.iter().zip(&of_service) {
                    merged.merge(summary);
                    prop_assert!(adder.add(&packed[..packed.len() / 2], &words, 900_000).is_none());
                    prop_assert!(adder.add(packed, &words, 900_000).is_some());
                }
                prop_assert_eq!(adder.finish(), merged);
            }
        }

        #[test]
        fn a_bucket_no_latency_has_is_damage(bucket: u16) {
            let latency = LatencySketch::from_buckets([(3, 1), (bucket, 2)]);
            let mut connection = Connection::open_in_memory().unwrap();
            crate::schema::migrate(std::path::Path::new(":memory:"), &mut connection).unwrap();
            let transaction = connection.transaction().unwrap();
            let summary = Summary { latency, ..Summary::default() };
            let packed = pack(&transaction, &mut Directory::default(), &summary, 900_000).unwrap();
            let words = Words::default();
            let is_sound = bucket <= LatencySketch::LARGEST_BUCKET;
            let mut adder = Adder::default();
            prop_assert_eq!(adder.add(&packed, &words, 900_000).is_some(), is_sound);
            prop_assert_eq!(adder.finish().latency.mean().is_some(), is_sound);
        }

        #[test]
        fn damaged_summaries_are_no_panic(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            let _ = unpack(&bytes, &Words::default(), 900_000);
        }
    }
}
