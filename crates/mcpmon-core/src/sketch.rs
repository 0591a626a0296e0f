//! A mergeable sketch of latencies, so that a percentile over any span is right within a bound.
//!
//! Log-linear buckets: 64 to each power of two of a 10 µs tick, so a quantile is at most 1/128
//! (0.8 %) away from the sample it stands for. Sparse, because a service's latencies fall into few
//! buckets: a minute of checks is a handful of pairs.

use std::time::Duration;

/// Buckets to each power of two.
const SUB_BUCKETS: u64 = 64;
const SUB_BITS: u32 = SUB_BUCKETS.ilog2();
/// What one unit of a recorded value is.
const TICK_NANOS: u64 = 10_000;
const TICKS_PER_SECOND: u64 = 1_000_000_000 / TICK_NANOS;

/// Counts of latencies by bucket; two of them add up.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct LatencySketch {
    /// Sorted by bucket.
    buckets: Vec<(u16, u32)>,
    count: u64,
}

impl LatencySketch {
    /// Largest relative distance between a quantile and the sample it stands for (above 640 µs;
    /// below, values are exact to one tick of 10 µs).
    pub const RELATIVE_ERROR: f64 = 1.0 / 128.0;

    /// The bucket of the longest latency there is; a stored number beyond it is damage.
    pub const LARGEST_BUCKET: u16 =
        ((u64::BITS - SUB_BITS) as u64 * SUB_BUCKETS + SUB_BUCKETS - 1) as u16;

    /// Counts one latency.
    pub fn record(&mut self, latency: Duration) {
        self.add(bucket_of(latency), 1);
    }

    /// Adds every count of `other`.
    pub fn merge(&mut self, other: &Self) {
        // Both are sorted: one walk over the two costs less than a search for each bucket.
        let mine = std::mem::take(&mut self.buckets);
        self.buckets.reserve(mine.len() + other.buckets.len());
        let (mut left, mut right) = (mine.iter().peekable(), other.buckets.iter().peekable());
        while let (Some(&&(ours, count)), Some(&&(theirs, more))) = (left.peek(), right.peek()) {
            let next = match ours.cmp(&theirs) {
                std::cmp::Ordering::Less => (ours, count),
                std::cmp::Ordering::Greater => (theirs, more),
                std::cmp::Ordering::Equal => (ours, count.saturating_add(more)),
            };
            self.buckets.push(next);
            left.next_if(|(bucket, _)| *bucket == next.0);
            right.next_if(|(bucket, _)| *bucket == next.0);
        }
        self.buckets.extend(left.chain(right));
        self.count += other.count;
    }

    /// How many latencies were counted.
    pub fn count(&self) -> u64 {
        self.count
    }

    /// The latency below which a share `q` (0 to 1) of the samples lies; `None` when empty.
    pub fn quantile(&self, q: f64) -> Option<Duration> {
        let rank = (q.clamp(0.0, 1.0) * self.count as f64).ceil().max(1.0) as u64;
        let mut seen = 0;
        self.buckets.iter().find_map(|(bucket, count)| {
            seen += u64::from(*count);
            (seen >= rank).then(|| middle_of(*bucket))
        })
    }

    /// The mean of the samples, as exact as the buckets are; `None` when empty.
    pub fn mean(&self) -> Option<Duration> {
        let sum: f64 = self
            .buckets
            .iter()
            .map(|(bucket, count)| middle_of(*bucket).as_secs_f64() * f64::from(*count))
            .sum();
        (self.count > 0).then(|| Duration::from_secs_f64(sum / self.count as f64))
    }

    /// The median, and the median of the distances from it (MAD), as exact as the buckets are;
    /// `None` when empty.
    pub fn median_and_deviation(&self) -> Option<(Duration, Duration)> {
        let median = self.quantile(0.5)?;
        let distance = |bucket: u16| middle_of(bucket).abs_diff(median);
        // Buckets rise, so distances fall up to the median and rise from there: one walk outwards.
        let split = self.buckets.partition_point(|(bucket, _)| middle_of(*bucket) < median);
        let (below, above) = self.buckets.split_at(split);
        let (mut below, mut above) = (below.iter().rev().peekable(), above.iter().peekable());
        let rank = self.count.div_ceil(2);
        let mut seen = 0;
        loop {
            let nearer_below = match (below.peek(), above.peek()) {
                (Some((low, _)), Some((high, _))) => distance(*low) < distance(*high),
                (Some(_), None) => true,
                (None, _) => false,
            };
            let (bucket, count) = if nearer_below { below.next()? } else { above.next()? };
            seen += u64::from(*count);
            if seen >= rank {
                return Some((median, distance(*bucket)));
            }
        }
    }

    /// Its buckets with their counts, rising: what a store keeps.
    pub fn buckets(&self) -> &[(u16, u32)] {
        &self.buckets
    }

    /// A sketch of these buckets, in any order.
    pub fn from_buckets(buckets: impl IntoIterator<Item = (u16, u32)>) -> Self {
        let mut sketch = Self::default();
        for (bucket, count) in buckets.into_iter().filter(|(_, count)| *count > 0) {
            sketch.add(bucket, count);
        }
        sketch
    }

    fn add(&mut self, bucket: u16, count: u32) {
        self.count += u64::from(count);
        // Mostly in order, when a stored one is read.
        if self.buckets.last().is_none_or(|(last, _)| *last < bucket) {
            return self.buckets.push((bucket, count));
        }
        match self.buckets.binary_search_by_key(&bucket, |(known, _)| *known) {
            Ok(at) => self.buckets[at].1 = self.buckets[at].1.saturating_add(count),
            Err(at) => self.buckets.insert(at, (bucket, count)),
        }
    }
}

fn bucket_of(latency: Duration) -> u16 {
    let whole = latency.as_secs().saturating_mul(TICKS_PER_SECOND);
    let ticks = whole.saturating_add(u64::from(latency.subsec_nanos()) / TICK_NANOS);
    if ticks < SUB_BUCKETS {
        return ticks as u16;
    }
    let shift = ticks.ilog2() - SUB_BITS;
    let within = (ticks >> shift) - SUB_BUCKETS;
    (u64::from(shift + 1) * SUB_BUCKETS + within) as u16
}

fn middle_of(bucket: u16) -> Duration {
    let bucket = u64::from(bucket);
    let ticks = if bucket < SUB_BUCKETS {
        u128::from(bucket)
    } else {
        let shift = bucket / SUB_BUCKETS - 1;
        let low = u128::from(SUB_BUCKETS + bucket % SUB_BUCKETS) << shift;
        low + ((1_u128 << shift) >> 1)
    };
    let nanos = ticks.saturating_mul(u128::from(TICK_NANOS));
    Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_quantile_is_within_the_bound_of_the_sample_it_stands_for(
            mut micros in proptest::collection::vec(0_u64..600_000_000, 1..200),
            q in 0.0_f64..=1.0,
        ) {
            let mut sketch = LatencySketch::default();
            for value in &micros {
                sketch.record(Duration::from_micros(*value));
            }
            micros.sort_unstable();
            let rank = ((q * micros.len() as f64).ceil() as usize).max(1);
            let exact = micros[rank - 1] as f64;
            let got = sketch.quantile(q).unwrap().as_micros() as f64;
            let bound = exact * LatencySketch::RELATIVE_ERROR + 10.0;
            prop_assert!((got - exact).abs() <= bound, "{got} for {exact}");
        }

        #[test]
        fn merging_is_the_same_as_recording_all(
            a in proptest::collection::vec(0_u64..10_000_000, 0..50),
            b in proptest::collection::vec(0_u64..10_000_000, 0..50),
        ) {
            let (mut left, mut right, mut all) = <(LatencySketch, LatencySketch, LatencySketch)>::default();
            for value in &a { left.record(Duration::from_micros(*value)); all.record(Duration::from_micros(*value)); }
            for value in &b { right.record(Duration::from_micros(*value)); all.record(Duration::from_micros(*value)); }
            left.merge(&right);
            prop_assert_eq!(left, all);
        }
    }

    #[test]
    fn nothing_recorded_has_no_quantile() {
        assert_eq!(LatencySketch::default().quantile(0.5), None);
    }
}
