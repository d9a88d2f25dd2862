//! The summary on the terminal.

use std::fmt::Write as _;

use super::RunResult;
use crate::measure::Quantiles;

/// In some lines.
pub(crate) fn summary(result: &RunResult) -> String {
    let mut out = String::new();
    let counts = &result.counts;
    let _ = writeln!(
        out,
        "\n{} requests planned in {:.1} s, {} settled in {:.1} s ({:.1}/s), {} sent, {} of them retries, {} unsent{}",
        counts.planned,
        result.seconds,
        counts.settled,
        result.took,
        result.rate,
        counts.sent,
        counts.retries,
        counts.unsent,
        if counts.unsent > 0 {
            format!(" ({} the generator was late, {} too many in flight)", counts.unsent_late, counts.unsent_full)
        } else {
            String::new()
        }
    );
    let _ = writeln!(out, "errors {:.2} %, 429 {:.2} %", result.error_rate * 100.0, result.rejected_rate * 100.0);
    let _ = writeln!(out, "{:>22}{:>10}{:>10}{:>10}{:>10}{:>10}", "ms", "p50", "p90", "p99", "p99.9", "max");
    // Refusals are fast: what was served stands apart from them.
    let classes: Vec<(String, &Quantiles)> = match result.classes.len() {
        0 | 1 => Vec::new(),
        _ => result.classes.iter().map(|(class, of)| (format!("{} of them", class.name()), &of.corrected)).collect(),
    };
    let classes = classes.iter().map(|(name, of)| (name.as_str(), *of));
    let whole = [("from actual send", &result.service), ("generator's lag", &result.lag)];
    for (name, of) in std::iter::once(("from intended send", &result.corrected)).chain(classes).chain(whole) {
        let Quantiles { p50, p90, p99, p999, max, .. } = of;
        let _ = writeln!(out, "{name:>22}{p50:>10.2}{p90:>10.2}{p99:>10.2}{p999:>10.2}{max:>10.2}");
    }
    let tier_width = result.outcomes.iter().map(|of| of.tier.len()).max().unwrap_or(1).max(4);
    let _ = writeln!(out, "\n  {:<tier_width$}  {:<40} {:>10} {:>8}", "tier", "outcome", "count", "share");
    for of in &result.outcomes {
        let share = of.count as f64 / counts.finished.max(1) as f64 * 100.0;
        let _ = writeln!(out, "  {:<tier_width$}  {:<40} {:>10} {:>7.2}%", of.tier, of.outcome, of.count, share);
    }
    if counts.resent > 0 {
        let _ = writeln!(out, "  {} sent again: not processed (GOAWAY, REFUSED_STREAM) or not sent", counts.resent);
    }
    if counts.retries > 0 {
        let finals = result.finally.iter().map(|of| format!("{} {} ({})", of.count, of.outcome, of.tier));
        let _ = writeln!(out, "  finally, of {} planned: {}", counts.planned, finals.collect::<Vec<_>>().join(", "));
    }
    for event in &result.events {
        let _ = writeln!(out, "  at {:.1} s: {}", event.at, event.what);
    }
    for judged in &result.thresholds {
        let _ = writeln!(out, "  {judged}");
    }
    if let Some(audit) = &result.audit {
        let _ = writeln!(out, "\n{audit}");
    }
    let _ = write!(
        out,
        "\nverdict: {}",
        serde_json::to_value(result.verdict).ok().as_ref().and_then(|v| v.as_str()).unwrap_or("-")
    );
    for reason in &result.reasons {
        let _ = write!(out, "\n  {reason}");
    }
    out
}
