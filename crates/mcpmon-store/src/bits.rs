//! A stream of bits, and whole numbers in it whose cost follows their size.
//!
//! Rice codes: the low `k` bits as they are, the rest counted in ones. For numbers that scatter
//! around a middle that is within a few hundredths of a bit of the least there is, and it needs no
//! table beside the data. A number far out costs an escape instead of a row of ones.

/// So many ones mean: the number itself follows.
const ESCAPE: u32 = 20;
/// Bits that say how long an escaped number is.
const LENGTH_BITS: u32 = 7;
/// The largest `k` there is.
pub(crate) const LARGEST_K: u32 = 40;

/// Writes bits, highest first.
#[derive(Debug, Default)]
pub(crate) struct BitWriter {
    out: Vec<u8>,
    pending: u64,
    count: u32,
}

impl BitWriter {
    /// Writes behind bytes that are there already.
    pub(crate) fn after(out: Vec<u8>) -> Self {
        Self { out, pending: 0, count: 0 }
    }

    /// The low `bits` of `value`; at most 56 at once.
    pub(crate) fn put(&mut self, value: u64, bits: u32) {
        debug_assert!(bits <= 56);
        if bits == 0 {
            return;
        }
        self.pending = self.pending << bits | (value & (u64::MAX >> (64 - bits)));
        self.count += bits;
        while self.count >= 8 {
            self.count -= 8;
            self.out.push((self.pending >> self.count) as u8);
        }
    }

    /// A whole number by its Rice code.
    pub(crate) fn rice(&mut self, value: u64, k: u32) {
        let ones = value >> k;
        if ones < u64::from(ESCAPE) {
            let ones = ones as u32;
            self.put((1_u64 << (ones + 1)) - 2, ones + 1);
            self.put(value, k);
            return;
        }
        self.put((1 << ESCAPE) - 1, ESCAPE);
        let length = 64 - value.leading_zeros();
        self.put(u64::from(length), LENGTH_BITS);
        self.put(value >> 32, length.saturating_sub(32));
        self.put(value, length.min(32));
    }

    /// Everything, the last byte filled with zeros.
    pub(crate) fn finish(mut self) -> Vec<u8> {
        if self.count > 0 {
            let fill = 8 - self.count;
            self.put(0, fill);
        }
        self.out
    }
}

/// Reads what [`BitWriter`] wrote. Every method is `None` at the end of a damaged row.
#[derive(Debug)]
pub(crate) struct BitReader<'a> {
    bytes: &'a [u8],
    at: usize,
    pending: u64,
    count: u32,
}

impl<'a> BitReader<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0, pending: 0, count: 0 }
    }

    fn refill(&mut self) {
        while self.count <= 56 {
            let Some(byte) = self.bytes.get(self.at) else { return };
            self.pending |= u64::from(*byte) << (56 - self.count);
            self.at += 1;
            self.count += 8;
        }
    }

    fn skip(&mut self, bits: u32) -> Option<()> {
        if bits > self.count {
            return None;
        }
        self.pending = self.pending.checked_shl(bits).unwrap_or(0);
        self.count -= bits;
        Some(())
    }

    /// The next `bits`, at most 56.
    pub(crate) fn take(&mut self, bits: u32) -> Option<u64> {
        if bits == 0 {
            return Some(0);
        }
        if bits > self.count {
            self.refill();
        }
        let value = self.pending >> (64 - bits);
        self.skip(bits)?;
        Some(value)
    }

    /// The next whole number of this `k`.
    pub(crate) fn rice(&mut self, k: u32) -> Option<u64> {
        if self.count < ESCAPE + 1 {
            self.refill();
        }
        let ones = self.pending.leading_ones();
        if ones < ESCAPE {
            self.skip(ones + 1)?;
            return Some(u64::from(ones) << k | self.take(k)?);
        }
        self.skip(ESCAPE)?;
        let length = self.take(LENGTH_BITS).filter(|length| *length <= 64)? as u32;
        let high = self.take(length.saturating_sub(32))?;
        Some(high << length.min(32) | self.take(length.min(32))?)
    }
}

/// How many numbers have which length, from which the best `k` follows.
#[derive(Debug)]
pub(crate) struct Lengths {
    counts: [u32; 65],
    shortest: u32,
    longest: u32,
}

impl Lengths {
    pub(crate) fn of(values: &[u64]) -> Self {
        let mut counts = [0; 65];
        let (mut shortest, mut longest) = (64, 0);
        for value in values {
            let length = 64 - value.leading_zeros();
            counts[length as usize] += 1;
            (shortest, longest) = (shortest.min(length), longest.max(length));
        }
        Self { counts, shortest, longest: longest.max(shortest) }
    }

    /// The `k` that costs least, and about how many bits all numbers then take.
    pub(crate) fn best(&self) -> (u32, u64) {
        // Around the longest common length: elsewhere it only gets dearer.
        let all: u32 = self.counts.iter().sum();
        let mut seen = 0;
        let middle = self.counts.iter().position(|count| {
            seen += count;
            seen * 2 >= all
        });
        let middle = middle.unwrap_or(0) as u32;
        (middle.saturating_sub(3)..=(middle + 2).min(LARGEST_K))
            .map(|k| (k, self.cost(k)))
            .min_by_key(|(_, cost)| *cost)
            .unwrap_or((0, 0))
    }

    fn cost(&self, k: u32) -> u64 {
        let per_value = |length: u32| {
            // The middle of all numbers of this length, in quarters of ones.
            let quarters = match (length + 1).checked_sub(k) {
                None | Some(0) => 0,
                Some(over) if over < 8 => (3_u64 << over) / 2,
                Some(_) => u64::MAX,
            };
            match quarters.checked_div(4) {
                Some(ones) if ones < u64::from(ESCAPE) => 4 * u64::from(k + 1) + quarters,
                _ => 4 * u64::from(ESCAPE + LENGTH_BITS + length),
            }
        };
        let Self { counts, shortest, longest } = self;
        let lengths = (*shortest..=*longest).zip(&counts[*shortest as usize..]);
        let cost = |(length, count): (u32, &u32)| match *count {
            0 => 0,
            count => per_value(length) * u64::from(count),
        };
        lengths.map(cost).sum::<u64>() / 4
    }
}

/// A signed number as one without a sign, small for small distances from zero.
pub(crate) fn fold(value: i64) -> u64 {
    (value << 1 ^ value >> 63) as u64
}

/// The number [`fold`] folded.
pub(crate) fn unfold(value: u64) -> i64 {
    (value >> 1) as i64 ^ -((value & 1) as i64)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn numbers() -> impl Strategy<Value = Vec<u64>> {
        let number = (0_u32..=64, any::<u64>())
            .prop_map(|(bits, value)| value.checked_shr(64 - bits).unwrap_or(0));
        proptest::collection::vec(number, 0..100)
    }

    proptest! {
        #[test]
        fn numbers_come_back_whatever_k(values in numbers(), k in 0..=LARGEST_K) {
            let mut writer = BitWriter::default();
            for value in &values {
                writer.rice(*value, k);
                writer.put(*value, 13);
            }
            let bytes = writer.finish();
            let mut reader = BitReader::new(&bytes);
            for value in &values {
                prop_assert_eq!(reader.rice(k), Some(*value));
                prop_assert_eq!(reader.take(13), Some(value & 0x1fff));
            }
        }

        #[test]
        fn damaged_bits_are_no_panic(bytes in proptest::collection::vec(any::<u8>(), 0..40), k in 0..=LARGEST_K) {
            let mut reader = BitReader::new(&bytes);
            while reader.rice(k).is_some() {}
        }

        #[test]
        fn folding_is_undone(value: i64) {
            prop_assert_eq!(unfold(fold(value)), value);
        }
    }

    #[test]
    fn the_best_k_is_near_the_least_there_is() {
        let values: Vec<u64> = (0..1_000).map(|n| n * 7 % 1_000).collect();
        let (k, cost) = Lengths::of(&values).best();
        let real = |k| {
            let mut writer = BitWriter::default();
            values.iter().for_each(|value| writer.rice(*value, k));
            writer.finish().len()
        };
        let least = (0..=LARGEST_K).map(real).min().unwrap();
        assert!(real(k) as f64 <= least as f64 * 1.03, "{} bytes, {least} would do", real(k));
        assert!((cost / 8).abs_diff(real(k) as u64) < 100, "{cost} bits estimated");
        assert_eq!(Lengths::of(&[0; 9]).best().0, 0);
    }
}
