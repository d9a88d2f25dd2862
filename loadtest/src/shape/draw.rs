//! A curve as text, for `--dry-run`.

use std::fmt::Write as _;

use super::Curve;

const WIDTH: usize = 72;
const HEIGHT: usize = 12;
/// Eighths of a cell.
const BLOCKS: [char; 9] = [' ', '▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];

/// Draws it; `unit` names what the levels are.
pub(crate) fn draw(curve: &Curve, unit: &str) -> String {
    let peak = curve.peak();
    let column = |x: usize| {
        // The highest of a few looks, so that a short spike is not missed between two columns.
        let looks = (0..8).map(|n| curve.seconds() * (x as f64 + f64::from(n) / 8.0) / WIDTH as f64);
        looks.map(|t| curve.rate(t)).fold(0.0, f64::max)
    };
    let columns: Vec<f64> = (0..WIDTH).map(column).collect();
    let mut out = String::new();
    for row in (0..HEIGHT).rev() {
        let label = match row {
            row if row == HEIGHT - 1 => number(peak),
            row if row == HEIGHT / 2 => number(peak / 2.0),
            _ => String::new(),
        };
        let _ = write!(out, "{label:>10} │");
        for value in &columns {
            let eighths = if peak > 0.0 { (value / peak * (HEIGHT * 8) as f64).round() as usize } else { 0 };
            out.push(BLOCKS[eighths.saturating_sub(row * 8).min(8)]);
        }
        out.truncate(out.trim_end().len());
        out.push('\n');
    }
    let _ = writeln!(out, "{:>10} └{}", "0", "─".repeat(WIDTH));
    let end = format!("{:.0} s", curve.seconds());
    let _ = writeln!(out, "{:>12}{:>width$}   ({unit})", "0", end, width = WIDTH - 1);
    out
}

fn number(value: f64) -> String {
    if value >= 100.0 || value.fract() == 0.0 { format!("{value:.0}") } else { format!("{value:.1}") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shape::{Unit, parse};

    #[test]
    fn a_spike_stands_where_it_is() {
        let curve = parse("hold 100/s 30s; spike 10x 12s; hold 100/s 30s", Unit::Requests(None)).expect("a shape");
        let picture = draw(&curve, "requests/s");
        let lines: Vec<&str> = picture.lines().collect();
        assert_eq!(lines.len(), HEIGHT + 2);
        assert!(lines[0].starts_with("      1000 │") && lines[0].ends_with("████████████"), "{picture}");
        let top = lines[0].chars().filter(|c| *c == '█').count();
        // 12 of 72 s; the column beside it may still see it.
        assert!((12..=13).contains(&top), "{picture}");
        assert_eq!(lines[11].chars().skip(12).filter(|c| *c != ' ').count(), WIDTH, "{picture}");
    }
}
