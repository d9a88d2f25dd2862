//! This result beside an older one.
//!
//! Every metric scatters within a run; ten parts of each run show how much. A difference counts when it is larger than two
//! standard errors of the difference of the parts' means; smaller ones are called noise. The rate follows its shape, and that
//! is no scatter: its noise is that of the share of what was planned that was settled, and the last answer's own latency,
//! with which the time ends that it is counted over.

use std::{collections::BTreeSet, fmt::Write as _};

use super::{RunResult, Verdict};

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

/// Two standard errors of the difference of two runs' parts, each in a unit.
fn noise(old: &RunResult, new: &RunResult, name: &str, unit: impl Fn(&RunResult) -> f64) -> Option<f64> {
    let parts = |result: &RunResult| Some(error_of_mean(result.blocks.get(name)?)? * unit(result).powi(2));
    parts(old).zip(parts(new)).map(|(a, b)| 2.0 * (a + b).sqrt())
}

fn noise_of_rate(old: &RunResult, new: &RunResult) -> Option<f64> {
    let planned = |result: &RunResult| result.counts.planned as f64 / result.took.max(f64::MIN_POSITIVE);
    let end = |result: &RunResult| result.rate * result.corrected.max / 1_000.0 / result.took.max(f64::MIN_POSITIVE);
    Some(noise(old, new, "settled_share", planned)? + end(old).max(end(new)))
}

/// Settings without an influence on what the figures mean.
const NO_MATTER: [&str; 2] = ["seed", "threads"];

/// Why the two cannot be compared, or not as they are.
fn warnings(old: &RunResult, new: &RunResult) -> Vec<String> {
    let mut warnings = Vec::new();
    for (result, name) in [(old, "old"), (new, "new")] {
        if result.is_invalid() {
            warnings.push(format!("the {name} run was INVALID"));
        } else if result.verdict == Verdict::Interrupted {
            warnings.push(format!("the {name} run was interrupted"));
        }
    }
    let mut differs = |name: &str, before: Option<&String>, after: Option<&String>| {
        if before != after {
            let text = |value: Option<&String>| value.map_or("nothing".to_owned(), |value| format!("{value:?}"));
            warnings.push(format!("another {name}: {} then, {} now", text(before), text(after)));
        }
    };
    differs("shape", old.about.shape.as_ref(), new.about.shape.as_ref());
    differs("trace", old.about.trace.as_ref(), new.about.trace.as_ref());
    let names: BTreeSet<&String> = old.about.settings.keys().chain(new.about.settings.keys()).collect();
    for name in names.into_iter().filter(|name| *name != "shape" && !NO_MATTER.contains(&name.as_str())) {
        differs(name, old.about.settings.get(name), new.about.settings.get(name));
    }
    warnings
}

/// A table of the differences.
pub(crate) fn compare(old: &RunResult, new: &RunResult) -> String {
    let mut out = format!("against the run of {}\n", old.started_at);
    for warning in warnings(old, new) {
        let _ = writeln!(out, "  WARNING: {warning}");
    }
    let _ = writeln!(out, "  {:<12}{:>12}{:>12}{:>12}{:>12}  ", "metric", "old", "new", "change", "noise");
    for (name, more_is_worse) in METRICS {
        let (before, after) = (value(old, name), value(new, name));
        let noise = if name == "rate" { noise_of_rate(old, new) } else { noise(old, new, name, |_| 1.0) };
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
    fn runs_that_are_not_alike_are_told() {
        let result = |verdict, shape: &str, rate: &str| {
            let settings = [("rate".to_owned(), rate.to_owned()), ("seed".to_owned(), rate.to_owned())];
            let about = About { shape: Some(shape.into()), settings: settings.into(), ..About::default() };
            let result = RunResult::new(&Totals::default(), &Labels::default(), about, String::new(), Some(1.0));
            RunResult { verdict, ..result }
        };
        let new = result(Verdict::Pass, "hold 1x 1s", "5");
        assert!(!compare(&new, &new).contains("WARNING"));
        let said = compare(&result(Verdict::Invalid, "hold 2x 1s", "6"), &new);
        let warned: Vec<&str> = said.lines().filter_map(|line| line.trim().strip_prefix("WARNING: ")).collect();
        assert_eq!(warned.len(), 3, "{said}");
        assert!(warned[0].contains("old run was INVALID") && warned[1].contains("shape") && warned[2].contains("rate"));
    }

    #[test]
    fn scatter_is_noise_and_a_shift_is_not() {
        let result = |p99: f64, parts: &[f64]| {
            let mut result =
                RunResult::new(&Totals::default(), &Labels::default(), About::default(), String::new(), Some(1.0));
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

    #[test]
    fn the_shape_of_a_run_is_no_scatter_of_its_rate() {
        // A spike of ten times in the middle; the second run settles half of what it planned.
        let result = |settled: f64| {
            let mut result =
                RunResult::new(&Totals::default(), &Labels::default(), About::default(), String::new(), Some(10.0));
            (result.took, result.rate, result.counts.planned, result.corrected.max) =
                (10.0, 280.0 * settled, 2_800, 20.0);
            let planned = [100.0, 100.0, 100.0, 100.0, 1_000.0, 1_000.0, 100.0, 100.0, 100.0, 100.0];
            result.blocks.insert("rate".into(), planned.map(|planned| planned * settled).to_vec());
            result.blocks.insert("settled_share".into(), planned.map(|_| settled).to_vec());
            result
        };
        let word = |new: f64| {
            let table = compare(&result(1.0), &result(new));
            let line = table.lines().find(|line| line.trim_start().starts_with("rate ")).expect("a line").to_owned();
            line.split_whitespace().last().expect("a word").to_owned()
        };
        // The last answer's 20 ms in 10 s are 0.2 %.
        assert_eq!((word(0.5).as_str(), word(0.999).as_str(), word(0.99).as_str()), ("WORSE", "noise", "WORSE"));
    }
}
