//! A run in ten parts: how far its own figures scatter.

use std::collections::BTreeMap;

use crate::measure::{Hdr, Point, Second, decode};

const BLOCKS: usize = 10;

/// Metrics of each tenth of the run; a part without requests is left out.
pub(super) fn blocks(points: &[Point]) -> BTreeMap<String, Vec<f64>> {
    let mut all: BTreeMap<String, Vec<f64>> = BTreeMap::new();
    let size = points.len().div_ceil(BLOCKS).max(1);
    for part in points.chunks(size) {
        let (mut planned, mut finished, mut settled, mut errors) = (0, 0, 0, 0);
        let mut merged = BTreeMap::<_, Hdr>::new();
        for point in part {
            planned += point.counts.planned;
            finished += point.counts.finished();
            settled += point.counts.settled();
            for (class, text) in &point.histograms {
                // Made by this process a moment ago.
                let Ok(hdr) = decode(text) else { continue };
                errors += if class.is_error() { hdr.len() } else { 0 };
                match merged.get_mut(class) {
                    Some(sum) => sum.add(&hdr).unwrap_or_default(),
                    None => {
                        merged.insert(*class, hdr);
                    }
                }
            }
        }
        let corrected = Second::all(&merged);
        if corrected.is_empty() {
            continue;
        }
        let ms = |quantile: f64| corrected.value_at_quantile(quantile) as f64 / 1_000.0;
        for (name, value) in [
            ("p50", ms(0.5)),
            ("p90", ms(0.9)),
            ("p99", ms(0.99)),
            ("p99.9", ms(0.999)),
            ("mean", corrected.mean() / 1_000.0),
            ("rate", settled as f64 / part.len() as f64),
            ("settled_share", settled as f64 / planned.max(1) as f64),
            ("error_rate", errors as f64 / finished.max(1) as f64),
        ] {
            all.entry(name.to_owned()).or_default().push(value);
        }
    }
    all
}
