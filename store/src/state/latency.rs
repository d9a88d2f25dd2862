//! Latencies of a usage cell: a mergeable sketch with 0.8 % relative error.
//!
//! DDSketch (Masson, Rim, Lee 2019) with the linearly interpolated mapping of its section 4: a power of two is cut into 64
//! equal bins. The mapping is integer arithmetic alone, so that replicas on different machines put a duration into the same
//! bin; the logarithmic mapping depends on the platform's `ln`.

use super::codec::{Take, put_varint};

/// Bins a power of two.
const SUB_BITS: u32 = 6;

/// Sorted (bin, count); empty bins are left out.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Latency(Vec<(u16, u64)>);

/// The bin of a duration: exact below 128 us.
pub(super) fn bin(duration_us: u64) -> u16 {
    let exponent = 63 - (duration_us | 1).leading_zeros();
    if exponent <= SUB_BITS {
        return duration_us as u16;
    }
    let shift = exponent - SUB_BITS;
    // The mantissa with its leading one: 64 to 127.
    ((shift << SUB_BITS) as u16) + (duration_us >> shift) as u16
}

/// The middle of a bin.
fn middle(bin: u16) -> u64 {
    let bin = u64::from(bin);
    if bin < 2 << SUB_BITS {
        return bin;
    }
    let shift = (bin >> SUB_BITS) - 1;
    let mantissa = (bin & 63) | 64;
    (mantissa << shift) + (1 << shift >> 1)
}

impl Latency {
    /// Counts the bins of some durations; leaves them sorted.
    pub(super) fn of(bins: &mut [u16]) -> Self {
        bins.sort_unstable();
        Self(bins.chunk_by(|a, b| a == b).map(|same| (same[0], same.len() as u64)).collect())
    }

    pub(super) fn merge(&mut self, other: &Self) {
        if self.0.is_empty() {
            self.0.clone_from(&other.0);
            return;
        }
        if other.0.len() <= 4 {
            for &(bin, count) in &other.0 {
                match self.0.binary_search_by_key(&bin, |(bin, _)| *bin) {
                    Ok(at) => self.0[at].1 += count,
                    Err(at) => self.0.insert(at, (bin, count)),
                }
            }
            return;
        }
        let mut merged = Vec::with_capacity(self.0.len() + other.0.len());
        let (mut left, mut right) = (self.0.iter().peekable(), other.0.iter().peekable());
        while let (Some(a), Some(b)) = (left.peek(), right.peek()) {
            match a.0.cmp(&b.0) {
                std::cmp::Ordering::Less => merged.extend(left.next()),
                std::cmp::Ordering::Greater => merged.extend(right.next()),
                std::cmp::Ordering::Equal => {
                    merged.push((a.0, a.1 + b.1));
                    left.next();
                    right.next();
                }
            }
        }
        merged.extend(left);
        merged.extend(right);
        self.0 = merged;
    }

    /// The duration at quantile `q` in microseconds; 0 when empty.
    pub(super) fn quantile(&self, q: f64) -> u64 {
        let count: u64 = self.0.iter().map(|(_, count)| count).sum();
        let rank = (q * count.saturating_sub(1) as f64) as u64;
        let mut below = 0;
        for &(bin, count) in &self.0 {
            below += count;
            if below > rank {
                return middle(bin);
            }
        }
        0
    }

    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        put_varint(out, self.0.len() as u64);
        let mut last = 0;
        for &(bin, count) in &self.0 {
            put_varint(out, u64::from(bin - last));
            put_varint(out, count);
            last = bin;
        }
    }

    pub(super) fn decode(from: &mut Take<'_>) -> Option<Self> {
        let bins = usize::try_from(from.varint()?).ok().filter(|bins| *bins <= from.0.len() / 2)?;
        let mut last = 0u16;
        let mut next = || {
            last = last.checked_add(u16::try_from(from.varint()?).ok()?)?;
            Some((last, from.varint()?))
        };
        (0..bins).map(|_| next()).collect::<Option<Vec<_>>>().map(Self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bins_middle_is_within_one_percent_of_every_duration_in_it() {
        let durations = (0..200_000u64).chain((18..63).flat_map(|e| [(1 << e) - 1, 1 << e, (1 << e) + (1 << (e - 1))]));
        let mut last = 0;
        for us in durations.chain([u64::MAX]) {
            let (bin, middle) = (bin(us), middle(bin(us)));
            assert!(us.abs_diff(middle) <= us / 100, "{us} -> {bin} -> {middle}");
            assert!(bin >= last, "bins rise with durations");
            last = bin;
        }
    }

    #[test]
    fn merged_parts_are_the_whole() {
        let durations: Vec<u64> = (0..5_000u64).map(|n| n * n % 90_001).collect();
        let bins = |part: &[u64]| part.iter().map(|us| bin(*us)).collect::<Vec<_>>();
        let whole = Latency::of(&mut bins(&durations));
        let mut merged = Latency::default();
        for part in [&durations[..3], &durations[3..3_000], &durations[3_000..]] {
            merged.merge(&Latency::of(&mut bins(part)));
        }
        assert_eq!(merged, whole);
        let mut bytes = Vec::new();
        whole.encode(&mut bytes);
        assert_eq!(Latency::decode(&mut Take(&bytes)), Some(whole.clone()));
        let mut sorted = durations;
        sorted.sort_unstable();
        for q in [0.0, 0.5, 0.95, 0.99, 1.0] {
            let exact = sorted[(q * 4_999.0) as usize];
            assert!(whole.quantile(q).abs_diff(exact) <= exact / 100, "{q}");
        }
    }
}
