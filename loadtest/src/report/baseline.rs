//! This result beside an older one.
//!
//! Every metric scatters within a run; ten parts of each run show how much. A difference counts when it is larger than two
//! standard errors of the difference of the parts' means; smaller ones are called noise.

use std::fmt::Write as _;

use super::RunResult;

/// Whether more is worse.
const METRICS: [(&str, bool); 7] = [
    ("p50", true),
    ("p90", true),
    ("p99", true),
    ("p99.9", true),
    ("mean", true),
    ("error_rate", true),
    ("rate", false),
];

fn value(result: &RunResult, name: &str) -> f64 {
    match name {
        "p50" => result.corrected.p50,
        "p90" => result.corrected.p90,
        "p99" => result.corrected.p99,
        "p99.9" => result.corrected.p999,
        "mean" => result.corrected.mean,
        "error_rate" => result.error_rate,
        _ => result.rate,
    }
}

/// Variance of the mean.
fn error_of_mean(values: &[f64]) -> Option<f64> {
    let count = values.len() as f64;
    if values.len() < 2 {
        return None;
    }
    let mean = values.iter().sum::<f64>() / count;
    Some(values.iter().map(|value| (value - mean).powi(2)).sum::<f64>() / (count - 1.0) / count)
}

/// A table of the differences.
pub(crate) fn compare(old: &RunResult, new: &RunResult) -> String {
    let mut out = format!("against the run of {}\n", old.started_at);
    let _ = writeln!(out, "  {:<12}{:>12}{:>12}{:>12}{:>12}  ", "metric", "old", "new", "change", "noise");
    for (name, more_is_worse) in METRICS {
        let (before, after) = (value(old, name), value(new, name));
        let parts = |result: &RunResult| result.blocks.get(name).and_then(|parts| error_of_mean(parts));
        let noise = parts(old).zip(parts(new)).map(|(a, b)| 2.0 * (a + b).sqrt());
        let change = after - before;
        let word = match noise {
            None => "too short to tell",
            Some(noise) if change.abs() <= noise || change == 0.0 => "noise",
            Some(_) if (change > 0.0) == more_is_worse => "WORSE",
            Some(_) => "better",
        };
        let noise = noise.map_or_else(|| "-".to_owned(), |noise| format!("± {noise:.3}"));
        let _ = writeln!(out, "  {name:<12}{before:>12.3}{after:>12.3}{change:>+12.3}{noise:>12}  {word}");
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        measure::{Labels, Totals},
        report::About,
    };

    #[test]
    fn scatter_is_noise_and_a_shift_is_not() {
        let result = |p99: f64, parts: &[f64]| {
            let mut result =
                RunResult::new(&Totals::default(), &Labels::default(), About::default(), String::new(), 1.0);
            result.corrected.p99 = p99;
            result.blocks.insert("p99".into(), parts.to_vec());
            result
        };
        let line = |old: &RunResult, new: &RunResult| {
            let table = compare(old, new);
            table.lines().find(|line| line.trim_start().starts_with("p99 ")).expect("a line").to_owned()
        };
        let wide = result(10.0, &[5.0, 15.0, 8.0, 12.0]);
        assert!(line(&wide, &result(11.0, &[7.0, 15.0, 10.0, 12.0])).ends_with("noise"));
        let narrow = result(10.0, &[9.9, 10.1, 10.0, 10.0]);
        assert!(line(&narrow, &result(11.0, &[11.0, 11.1, 10.9, 11.0])).ends_with("WORSE"));
        assert!(line(&narrow, &result(9.0, &[9.0, 9.1, 8.9, 9.0])).ends_with("better"));
        assert!(line(&narrow, &result(9.0, &[9.0])).ends_with("too short to tell"));
    }
}
