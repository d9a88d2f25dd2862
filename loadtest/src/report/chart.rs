//! A line chart as inline SVG.

use std::fmt::Write as _;

/// Second and value; without a value the line has a gap.
type Points = Vec<(f64, Option<f64>)>;

/// A line of a chart.
pub(super) struct Series {
    /// In the legend.
    pub(super) name: String,
    /// CSS colour.
    pub(super) colour: &'static str,
    /// In the order of their times.
    pub(super) points: Points,
}

/// How the vertical axis goes.
#[derive(Clone, Copy, PartialEq)]
pub(super) enum Scale {
    /// From 0.
    Linear,
    /// Powers of ten.
    Log,
}

const WIDTH: f64 = 900.0;
const HEIGHT: f64 = 240.0;
const LEFT: f64 = 64.0;
const RIGHT: f64 = 12.0;
const TOP: f64 = 28.0;
const BOTTOM: f64 = 28.0;
/// Labels of the horizontal axis, at most.
const MOST_TIMES: f64 = 9.0;
/// About the width of a letter of an event's text, and the distance of two rows of them.
const LETTER: f64 = 5.6;
const ROW: f64 = 12.0;
const ROWS: usize = 12;
/// Points of a line; more are put together, the largest of each group being shown.
const MAX_POINTS: usize = 450;

/// Draws it; `events` are vertical lines.
pub(super) fn chart(title: &str, unit: &str, scale: Scale, series: &[Series], events: &[(f64, String)]) -> String {
    let series: Vec<(&Series, Points)> = series.iter().map(|series| (series, thinned(&series.points))).collect();
    let last = series.iter().flat_map(|(_, points)| points).map(|(t, _)| *t).fold(1.0, f64::max);
    let values = || series.iter().flat_map(|(_, points)| points).filter_map(|(_, value)| *value);
    let most = values().fold(0.0, f64::max);
    let (low, high) = match scale {
        Scale::Linear => (0.0, nice(most)),
        Scale::Log => {
            let least = values().filter(|value| *value > 0.0).fold(f64::INFINITY, f64::min);
            let low = if least.is_finite() { least.log10().floor() } else { -1.0 };
            (low, most.max(1e-9).log10().ceil().max(low + 1.0))
        }
    };
    let x = |t: f64| LEFT + t / last * (WIDTH - LEFT - RIGHT);
    let y = |value: f64| {
        let at = match scale {
            Scale::Linear => value / high,
            Scale::Log => (value.max(1e-12).log10() - low) / (high - low),
        };
        HEIGHT - BOTTOM - at.clamp(0.0, 1.0) * (HEIGHT - TOP - BOTTOM)
    };
    let mut out = format!("<figure><figcaption>{} <small>{}</small></figcaption>", escape(title), escape(unit));
    let _ = write!(out, "<svg viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\" aria-label=\"{}\">", escape(title));
    let ticks: Vec<f64> = match scale {
        Scale::Linear => (0..=4).map(|n| high * f64::from(n) / 4.0).collect(),
        Scale::Log => (low as i32..=high as i32).map(|power| 10f64.powi(power)).collect(),
    };
    for tick in ticks {
        let at = y(tick);
        let _ = write!(
            out,
            "<line class=\"grid\" x1=\"{LEFT}\" x2=\"{}\" y1=\"{at:.1}\" y2=\"{at:.1}\"/><text class=\"tick\" x=\"{}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>",
            WIDTH - RIGHT,
            LEFT - 6.0,
            at + 4.0,
            number(tick)
        );
    }
    for t in times(last) {
        let _ = write!(
            out,
            "<text class=\"tick\" x=\"{:.1}\" y=\"{}\" text-anchor=\"middle\">{} s</text>",
            x(t),
            HEIGHT - 8.0,
            // Steps have at most two places behind the point.
            (t * 100.0).round() / 100.0
        );
    }
    let rows = rows(events.iter().map(|(at, what)| (x(*at), what.chars().count())));
    for ((at, what), row) in events.iter().zip(rows) {
        let at = x(*at);
        // A text that would leave the picture stands left of its line.
        let is_left = at + 3.0 + what.chars().count() as f64 * LETTER > WIDTH;
        let (text_at, anchor) = if is_left { (at - 3.0, "end") } else { (at + 3.0, "start") };
        let _ = write!(
            out,
            "<line class=\"event\" x1=\"{at:.1}\" x2=\"{at:.1}\" y1=\"{TOP}\" y2=\"{}\"><title>{}</title></line><text class=\"event-text\" x=\"{text_at:.1}\" y=\"{}\" text-anchor=\"{anchor}\">{}</text>",
            HEIGHT - BOTTOM,
            escape(what),
            TOP + 10.0 + row as f64 * ROW,
            escape(what)
        );
    }
    for (n, (series, points)) in series.iter().enumerate() {
        let mut path = String::new();
        let mut pen_down = false;
        for (t, value) in points {
            match value {
                Some(value) => {
                    let _ = write!(path, "{}{:.1} {:.1}", if pen_down { "L" } else { "M" }, x(*t), y(*value));
                    pen_down = true;
                }
                None => pen_down = false,
            }
        }
        let _ = write!(out, "<path d=\"{path}\" stroke=\"{}\" fill=\"none\"/>", series.colour);
        let _ = write!(
            out,
            "<rect x=\"{0:.0}\" y=\"8\" width=\"12\" height=\"4\" fill=\"{1}\"/><text class=\"legend\" x=\"{2:.0}\" y=\"14\">{3}</text>",
            LEFT + n as f64 * 130.0,
            series.colour,
            LEFT + n as f64 * 130.0 + 17.0,
            escape(&series.name)
        );
    }
    out.push_str("</svg></figure>");
    out
}

/// Where the horizontal axis is labelled: at round times, a handful of them, none twice.
fn times(last: f64) -> Vec<f64> {
    const STEPS: [f64; 16] =
        [0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 15.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1_800.0, 3_600.0, 7_200.0];
    let step = STEPS.into_iter().find(|step| last / step <= MOST_TIMES).unwrap_or_else(|| nice(last / MOST_TIMES));
    (0..=(last / step) as u32).map(|n| f64::from(n) * step).collect()
}

/// The row of each event's text, so that none is printed over another: the first in which the one before has ended. With
/// more than there are rows the texts are still on the lines (as their titles).
fn rows(events: impl Iterator<Item = (f64, usize)>) -> Vec<usize> {
    let mut ends = [f64::NEG_INFINITY; ROWS];
    let mut row = |(at, letters): (f64, usize)| {
        let width = letters as f64 * LETTER + 6.0;
        let (from, to) = if at + width > WIDTH { (at - width, at) } else { (at, at + width) };
        let row = ends.iter().position(|end| *end <= from).unwrap_or(ROWS - 1);
        ends[row] = to;
        row
    };
    events.map(&mut row).collect()
}

fn thinned(points: &[(f64, Option<f64>)]) -> Points {
    let size = points.len().div_ceil(MAX_POINTS).max(1);
    let largest = |part: &[(f64, Option<f64>)]| {
        let most = part.iter().filter_map(|(_, value)| *value).fold(f64::NEG_INFINITY, f64::max);
        (part[0].0, most.is_finite().then_some(most))
    };
    points.chunks(size).map(largest).collect()
}

/// A round number at least as large.
fn nice(value: f64) -> f64 {
    if value <= 0.0 {
        return 1.0;
    }
    let power = 10f64.powf(value.log10().floor());
    [1.0, 2.0, 2.5, 4.0, 5.0, 8.0, 10.0]
        .into_iter()
        .map(|step| step * power)
        .find(|round| *round >= value)
        .unwrap_or(value)
}

fn number(value: f64) -> String {
    match value {
        v if v >= 10_000.0 => format!("{:.0}k", v / 1_000.0),
        v if v >= 10.0 || v == 0.0 => format!("{v:.0}"),
        v if v >= 0.1 => format!("{v:.1}"),
        v => format!("{v:.3}"),
    }
}

/// Text in HTML.
pub(super) fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_run_is_thinned_and_keeps_its_peak() {
        let mut points: Vec<(f64, Option<f64>)> = (0..100_000).map(|t| (f64::from(t), Some(1.0))).collect();
        points[77_777].1 = Some(50.0);
        let thin = thinned(&points);
        assert!(thin.len() <= MAX_POINTS && thin.iter().any(|(_, value)| *value == Some(50.0)), "{}", thin.len());
        let svg = chart(
            "a<b",
            "ms",
            Scale::Log,
            &[Series { name: "x".into(), colour: "red", points }],
            &[(3.0, "kill".into())],
        );
        assert!(svg.len() < 20_000 && svg.contains("a&lt;b") && svg.contains("kill"));
    }

    #[test]
    fn labels_of_times_are_round_and_none_stands_twice() {
        for last in [1.0, 1.7, 3.0, 10.0, 59.0, 3_599.0, 1e6] {
            let times = times(last);
            assert!((2..=10).contains(&times.len()) && times.iter().all(|t| *t <= last), "{last}: {times:?}");
            let labels: std::collections::BTreeSet<String> =
                times.iter().map(|t| ((t * 100.0).round() / 100.0).to_string()).collect();
            assert_eq!(labels.len(), times.len(), "{last}: {times:?}");
        }
    }

    #[test]
    fn texts_of_events_are_not_printed_over_each_other() {
        let rows =
            rows([(100.0, 20), (101.0, 20), (102.0, 5), (300.0, 20), (WIDTH - 5.0, 20), (WIDTH - 4.0, 20)].into_iter());
        assert_eq!(rows, [0, 1, 2, 0, 0, 1]);
    }
}
