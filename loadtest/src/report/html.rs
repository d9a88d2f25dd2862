//! The report: one HTML file that needs nothing else, with its charts as inline SVG.

use std::{collections::BTreeSet, fmt::Write as _};

use super::{
    RunResult, Verdict,
    chart::{Scale, Series, chart, escape},
    result::SecondResult,
};
use crate::measure::{Class, Quantiles};

const STYLE: &str = "
:root { color-scheme: light dark; --line: #8884; --ink: #222; --paper: #fff; --soft: #666 }
@media (prefers-color-scheme: dark) { :root { --ink: #ddd; --paper: #16181c; --soft: #999 } }
body { font: 15px/1.45 system-ui, sans-serif; color: var(--ink); background: var(--paper); max-width: 960px; margin: 2em auto; padding: 0 1em }
h1 { font-size: 1.4em } h2 { font-size: 1.1em; margin-top: 2em }
table { border-collapse: collapse; margin: .6em 0 } td, th { padding: .25em .8em; text-align: right; border-bottom: 1px solid var(--line) }
td:first-child, th:first-child, td.text, th.text { text-align: left }
.verdict { padding: .6em 1em; border-radius: 6px; color: #fff; font-weight: 600 }
.pass { background: #1a7f37 } .fail { background: #b3261e } .warn { background: #9a6700 }
figure { margin: 1.2em 0 } figcaption { font-weight: 600 } small { color: var(--soft); font-weight: 400 }
svg { width: 100%; height: auto } path { stroke-width: 1.6 } .grid { stroke: var(--line) }
.tick, .legend, .event-text { font: 11px system-ui, sans-serif; fill: var(--soft) } .event { stroke: #b3261e; stroke-dasharray: 4 3 } .event-text { fill: #b3261e }
pre { white-space: pre-wrap; background: var(--line); padding: .8em; border-radius: 6px }
";

/// Of lines without a meaning of their own.
const COLOURS: [&str; 6] = ["#9a6700", "#0969da", "#1a7f37", "#8250df", "#b3261e", "#888"];

/// The whole page.
pub(crate) fn html(result: &RunResult, comparison: Option<&str>) -> String {
    let mut out = String::new();
    let (class, word) = match result.verdict {
        Verdict::Pass => ("pass", "passed"),
        Verdict::Threshold => ("fail", "a threshold did not hold"),
        Verdict::Audit if result.is_invalid() => {
            ("fail", "the audit found something; INVALID besides: the other figures say nothing about the service")
        }
        Verdict::Audit => ("fail", "the audit found something"),
        Verdict::Invalid => ("warn", "INVALID: these figures say nothing about the service"),
        Verdict::Interrupted => ("warn", "interrupted"),
    };
    let _ = write!(
        out,
        "<!doctype html><html lang=\"en\"><meta charset=\"utf-8\"><meta name=\"viewport\" content=\"width=device-width\">\
         <title>{0}</title><style>{STYLE}</style><h1>{0}</h1><p>{1}, {2:.0} s, to {3}</p><p class=\"verdict {class}\">{word}</p>",
        escape(&result.about.title),
        escape(&result.started_at),
        result.seconds,
        escape(&result.about.targets.join(", "))
    );
    if !result.reasons.is_empty() {
        out.push_str("<ul>");
        for reason in &result.reasons {
            let _ = write!(out, "<li>{}</li>", escape(reason));
        }
        out.push_str("</ul>");
    }
    figures(result, &mut out);
    charts(result, &mut out);
    outcomes(result, &mut out);
    if !result.thresholds.is_empty() {
        out.push_str("<h2>Thresholds</h2><table><tr><th>threshold<th>value<th>held</tr>");
        for judged in &result.thresholds {
            let held = if judged.pass { "yes" } else { "no" };
            let _ = write!(out, "<tr><td>{}<td>{:.4}<td>{held}</tr>", escape(&judged.threshold), judged.value);
        }
        out.push_str("</table>");
    }
    if let Some(audit) = &result.audit {
        let _ = write!(out, "<h2>Audit</h2><pre>{}</pre>", escape(&audit.to_string()));
    }
    if let Some(comparison) = comparison {
        let _ = write!(out, "<h2>Comparison</h2><pre>{}</pre>", escape(comparison));
    }
    out.push_str("<h2>Settings</h2><table>");
    for (name, value) in &result.about.settings {
        let _ = write!(out, "<tr><td>{}<td class=\"text\">{}</tr>", escape(name), escape(value));
    }
    out.push_str("</table></html>\n");
    out
}

fn figures(result: &RunResult, out: &mut String) {
    let counts = &result.counts;
    let _ = write!(
        out,
        "<h2>Figures</h2><table><tr><th>planned<th>settled<th>settled/s<th>sent<th>errors<th>429<th>retries<th>resent<th>unsent</tr>\
         <tr><td>{}<td>{}<td>{:.1}<td>{}<td>{:.3} %<td>{:.2} %<td>{}<td>{}<td>{}</tr></table>",
        counts.planned,
        counts.settled,
        result.rate,
        counts.sent,
        result.error_rate * 100.0,
        result.rejected_rate * 100.0,
        counts.retries,
        counts.resent,
        counts.unsent
    );
    out.push_str("<table><tr><th>ms<th>p50<th>p90<th>p95<th>p99<th>p99.9<th>max</tr>");
    for (name, of) in [
        ("from the intended send", &result.corrected),
        ("from the actual send", &result.service),
        ("the generator's own lag", &result.lag),
    ] {
        let Quantiles { p50, p90, p95, p99, p999, max, .. } = of;
        let _ =
            write!(out, "<tr><td>{name}<td>{p50:.2}<td>{p90:.2}<td>{p95:.2}<td>{p99:.2}<td>{p999:.2}<td>{max:.2}</tr>");
    }
    out.push_str("</table>");
}

fn charts(result: &RunResult, out: &mut String) {
    let line = |name: &str, colour, of: &dyn Fn(&SecondResult) -> Option<f64>| {
        let name = name.to_owned();
        let mut points = Vec::with_capacity(result.timeline.len());
        let mut next = 0;
        for second in &result.timeline {
            if second.second > next {
                // Nothing was due in between.
                points.push((f64::from(next), None));
            }
            points.push((f64::from(second.second), of(second)));
            next = second.second + 1;
        }
        Series { name, colour, points }
    };
    let count = |class: Class| move |s: &SecondResult| Some(s.classes.get(&class).copied().unwrap_or(0) as f64);
    let errors = |s: &SecondResult| {
        Some(s.classes.iter().filter(|(class, _)| class.is_error()).map(|(_, count)| *count as f64).sum())
    };
    let events: Vec<(f64, String)> = result.events.iter().map(|event| (event.at, event.what.clone())).collect();
    let some = |quantiles: &Quantiles, value: f64| (quantiles.count > 0).then_some(value);
    out.push_str("<h2>Over time</h2>");
    out.push_str(&chart(
        "Requests",
        "a second, by the second in which they were due",
        Scale::Linear,
        &[
            line("planned", "#888", &|s| Some(s.counts.planned as f64)),
            line("ok", "#1a7f37", &count(Class::Ok)),
            line("429", "#9a6700", &count(Class::Rejected)),
            line("errors", "#b3261e", &errors),
            line("unsent", "#8250df", &|s| Some(s.counts.unsent as f64)),
        ],
        &events,
    ));
    let tiers: BTreeSet<&String> = result.timeline.iter().flat_map(|second| second.rejected.keys()).collect();
    if !tiers.is_empty() {
        let tiers = tiers.iter().take(COLOURS.len()).zip(COLOURS);
        let lines = tiers
            .map(|(tier, colour)| line(tier, colour, &|s| Some(s.rejected.get(*tier).copied().unwrap_or(0) as f64)));
        let lines: Vec<Series> = lines.collect();
        out.push_str(&chart("429 by tier", "a second", Scale::Linear, &lines, &events));
    }
    if result.timeline.iter().any(|second| second.in_flight.is_some()) {
        let lines = [line("in flight", "#8250df", &|s| s.in_flight.map(|count| count as f64))];
        out.push_str(&chart("In flight", "most that were seen waiting in a second", Scale::Linear, &lines, &events));
    }
    out.push_str(&chart(
        "Latency from the intended send",
        "ms",
        Scale::Log,
        &[
            line("p50", "#1a7f37", &|s| some(&s.corrected, s.corrected.p50)),
            line("p99", "#0969da", &|s| some(&s.corrected, s.corrected.p99)),
            line("p99.9", "#b3261e", &|s| some(&s.corrected, s.corrected.p999)),
        ],
        &events,
    ));
    out.push_str(&chart(
        "p99 corrected and raw, and the generator's lag",
        "ms; where corrected is far above raw, requests waited before they were sent",
        Scale::Log,
        &[
            line("corrected", "#0969da", &|s| some(&s.corrected, s.corrected.p99)),
            line("raw", "#9a6700", &|s| some(&s.service, s.service.p99)),
            line("lag", "#888", &|s| some(&s.lag, s.lag.p99)),
        ],
        &events,
    ));
}

fn outcomes(result: &RunResult, out: &mut String) {
    out.push_str("<h2>Outcomes</h2><table><tr><th>tier<th class=\"text\">outcome<th>count<th>share</tr>");
    for of in &result.outcomes {
        let share = of.count as f64 / result.counts.finished.max(1) as f64 * 100.0;
        let _ = write!(
            out,
            "<tr><td>{}<td class=\"text\">{}<td>{}<td>{share:.2} %</tr>",
            escape(&of.tier),
            escape(&of.outcome),
            of.count
        );
    }
    out.push_str("</table>");
}
