//! HDR histograms of microseconds, three digits, and their interchange form (V2, deflated, base64: what the HdrHistogram
//! libraries of other languages read).

use anyhow::{Context, Result};
use base64::{Engine, engine::general_purpose::STANDARD};
use hdrhistogram::{
    Histogram,
    serialization::{Deserializer, Serializer, V2DeflateSerializer},
};
use serde::{Deserialize, Serialize};

/// A histogram that grows with what it sees.
pub(crate) type Hdr = Histogram<u64>;

/// Longest time that is kept apart, an hour; what is longer counts as this.
const LONGEST_US: u64 = 3_600_000_000;

/// An empty one.
pub(crate) fn empty() -> Hdr {
    let mut hdr = Hdr::new(3).expect("three digits are allowed");
    hdr.auto(true);
    hdr
}

/// Adds a time.
pub(crate) fn record(hdr: &mut Hdr, us: u64) {
    hdr.record(us.clamp(1, LONGEST_US)).expect("the histogram grows up to an hour");
}

/// Adds all of another.
pub(crate) fn add(hdr: &mut Hdr, other: &Hdr) {
    hdr.add(other).expect("both grow");
}

/// The interchange form.
pub(crate) fn encode(hdr: &Hdr) -> String {
    let mut bytes = Vec::new();
    V2DeflateSerializer::new().serialize(hdr, &mut bytes).expect("writing to memory");
    STANDARD.encode(bytes)
}

/// From the interchange form.
pub(crate) fn decode(text: &str) -> Result<Hdr> {
    let bytes = STANDARD.decode(text).context("read a histogram's base64")?;
    let mut hdr: Hdr = Deserializer::new()
        .deserialize(&mut bytes.as_slice())
        .map_err(|error| anyhow::anyhow!("read a histogram: {error:?}"))?;
    hdr.auto(true);
    Ok(hdr)
}

/// What a report shows of a histogram, in milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
pub(crate) struct Quantiles {
    /// How many times.
    pub(crate) count: u64,
    /// Mean.
    pub(crate) mean: f64,
    /// Median.
    pub(crate) p50: f64,
    /// 90 of 100 took at most so long.
    pub(crate) p90: f64,
    /// 95 of 100.
    pub(crate) p95: f64,
    /// 99 of 100.
    pub(crate) p99: f64,
    /// 999 of 1,000.
    pub(crate) p999: f64,
    /// The longest.
    pub(crate) max: f64,
}

/// Reads them off.
pub(crate) fn quantiles(hdr: &Hdr) -> Quantiles {
    if hdr.is_empty() {
        return Quantiles::default();
    }
    let ms = |quantile: f64| hdr.value_at_quantile(quantile) as f64 / 1_000.0;
    Quantiles {
        count: hdr.len(),
        mean: hdr.mean() / 1_000.0,
        p50: ms(0.5),
        p90: ms(0.9),
        p95: ms(0.95),
        p99: ms(0.99),
        p999: ms(0.999),
        max: hdr.max() as f64 / 1_000.0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_histogram_comes_back_from_its_text() {
        let mut hdr = empty();
        for n in 1..=100_000u64 {
            record(&mut hdr, n * n % 3_700_000);
        }
        record(&mut hdr, u64::MAX);
        let back = decode(&encode(&hdr)).expect("its own text");
        assert_eq!((back.len(), quantiles(&back)), (hdr.len(), quantiles(&hdr)));
        assert!(decode("AAAA").is_err() && decode("no base64!").is_err());
    }
}
