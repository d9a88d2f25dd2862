//! The text of a shape.
//!
//! `;` or a new line ends a segment. A level is a rate (`100/s`, `6000/m`, `0`) or a factor of the base rate (`10x`).
//! ```text
//! hold LEVEL TIME                     the same level
//! ramp [LEVEL..]LEVEL TIME            a straight line, from the level before when only one is given
//! step LEVEL TIME                     at once to a level
//! step LEVEL..LEVEL COUNT TIME        COUNT equal stairs
//! spike LEVEL TIME [rise T] [fall T]  up, and back to the base at its end; rise and fall are parts of TIME
//! sine LEVEL..LEVEL PERIOD TIME       waves
//! ```

use thiserror::Error;

use super::{Curve, Form, Piece};

/// Longest shape.
const MAX_SECONDS: f64 = 366.0 * 86_400.0;
/// Highest level.
const MAX_LEVEL: f64 = 10_000_000.0;
/// Most stairs of one step.
const MAX_STAIRS: u32 = 1_000;
/// Most segments.
const MAX_SEGMENTS: usize = 1_000;

/// Why a shape cannot be used.
#[derive(Debug, Error, PartialEq)]
#[error("shape, segment {segment} ({text:?}): {what}")]
pub(crate) struct Error {
    segment: usize,
    text: String,
    what: String,
}

/// What levels count in.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Unit {
    /// Requests a second. `Nx` is N times this, or times the first level of the text when that is not given.
    Requests(Option<f64>),
    /// Factors of what a trace has; `100/s` has no meaning there.
    Factor,
}

/// Reads a shape.
pub(crate) fn parse(text: &str, unit: Unit) -> Result<Curve, Error> {
    let segments: Vec<&str> = text.split([';', '\n']).map(str::trim).filter(|part| !part.is_empty()).collect();
    let mut reader = Reader {
        unit,
        base: match unit {
            Unit::Requests(base) => base,
            Unit::Factor => Some(1.0),
        },
        level: None,
        pieces: Vec::new(),
    };
    let refuse = |segment: usize, what: String| Error {
        segment,
        text: segments.get(segment - 1).copied().unwrap_or_default().to_owned(),
        what,
    };
    if segments.is_empty() || segments.len() > MAX_SEGMENTS {
        let what = format!("expected 1 to {MAX_SEGMENTS} segments like \"hold 100/s 30s\", separated by ';'");
        return Err(refuse(1, what));
    }
    for (n, segment) in segments.iter().enumerate() {
        reader.segment(segment).map_err(|what| refuse(n + 1, what))?;
    }
    let curve = Curve::new(reader.pieces);
    if curve.seconds() > MAX_SECONDS {
        return Err(refuse(segments.len(), "the shape lasts more than 366 days".to_owned()));
    }
    Ok(curve)
}

/// A time: `250ms`, `30s`, `5m`, `2h`, `1d`. In seconds.
pub(crate) fn duration(text: &str) -> Result<f64, String> {
    let split = text.find(|c: char| c.is_ascii_alphabetic()).unwrap_or(text.len());
    let factor = match &text[split..] {
        "ms" => 0.001,
        "s" => 1.0,
        "m" | "min" => 60.0,
        "h" => 3_600.0,
        "d" => 86_400.0,
        _ => return Err(format!("{text:?} is not a time; expected one like 250ms, 30s, 5m or 2h")),
    };
    let number: f64 = text[..split].parse().map_err(|_| format!("{text:?} is not a time; expected one like 30s"))?;
    if !(number >= 0.0 && number * factor <= MAX_SECONDS) {
        return Err(format!("{text:?} does not fit; expected 0 to 366d"));
    }
    Ok(number * factor)
}

/// A rate: `100/s`, `6000/m`, `100`. A second.
pub(crate) fn rate(text: &str) -> Result<f64, String> {
    let (number, per) = text.split_once('/').unwrap_or((text, "s"));
    let seconds = match per {
        "s" => 1.0,
        "m" | "min" => 60.0,
        "h" => 3_600.0,
        _ => return Err(format!("{text:?} is not a rate; expected one like 100/s or 6000/m")),
    };
    let number: f64 = number.parse().map_err(|_| format!("{text:?} is not a rate; expected one like 100/s"))?;
    if !(number >= 0.0 && number / seconds <= MAX_LEVEL) {
        return Err(format!("{text:?} does not fit; expected 0 to {MAX_LEVEL}/s"));
    }
    Ok(number / seconds)
}

struct Reader {
    unit: Unit,
    base: Option<f64>,
    /// Where the segment before ended.
    level: Option<f64>,
    pieces: Vec<Piece>,
}

impl Reader {
    fn segment(&mut self, text: &str) -> Result<(), String> {
        let mut words = text.split_whitespace().collect::<Vec<_>>().into_iter();
        let kind = words.next().expect("a segment is not empty");
        let mut word = |what: &str| words.next().ok_or_else(|| format!("{what} is missing"));
        match kind {
            "hold" => {
                let level = self.level(word("the level")?)?;
                self.line(level, level, duration(word("the time")?)?);
            }
            "step" => {
                let (from, to) = self.levels(word("the level")?)?;
                match from {
                    None => self.line(to, to, duration(word("the time")?)?),
                    Some(from) => {
                        let stairs: u32 = word("the count of stairs")?
                            .parse()
                            .map_err(|_| format!("expected a count of stairs, 2 to {MAX_STAIRS}"))?;
                        if !(2..=MAX_STAIRS).contains(&stairs) {
                            return Err(format!("{stairs} stairs do not fit; expected 2 to {MAX_STAIRS}"));
                        }
                        let each = duration(word("the time")?)? / f64::from(stairs);
                        for stair in 0..stairs {
                            let level = from + (to - from) * f64::from(stair) / f64::from(stairs - 1);
                            self.line(level, level, each);
                        }
                    }
                }
            }
            "ramp" => {
                let (from, to) = self.levels(word("the level")?)?;
                let from = from.or(self.level).unwrap_or(0.0);
                self.line(from, to, duration(word("the time")?)?);
            }
            "spike" => {
                let to = self.level(word("the level")?)?;
                let base = self.level.or(self.base).unwrap_or(0.0);
                let seconds = duration(word("the time")?)?;
                let (mut rise, mut fall) = (0.0, 0.0);
                while let Some(name) = words.next() {
                    let time = words.next().ok_or_else(|| format!("the time of {name:?} is missing"))?;
                    match name {
                        "rise" => rise = duration(time)?,
                        "fall" => fall = duration(time)?,
                        _ => return Err(format!("{name:?} is not known here; expected rise or fall")),
                    }
                }
                if rise + fall > seconds {
                    return Err("rise and fall together last longer than the spike".to_owned());
                }
                self.line(base, to, rise);
                self.line(to, to, seconds - rise - fall);
                self.line(to, base, fall);
                self.level = Some(base);
                return Ok(());
            }
            "sine" => {
                let (low, high) = self.levels(word("the two levels")?)?;
                let low = low.ok_or("expected two levels like 50/s..150/s")?;
                if low > high {
                    return Err("the first level of a sine is its lowest".to_owned());
                }
                let period = duration(word("the period")?)?;
                let seconds = duration(word("the time")?)?;
                if period <= 0.0 {
                    return Err("the period is zero".to_owned());
                }
                self.pieces.push(Piece { seconds, form: Form::Sine { low, high, period } });
                self.level = Some(f64::midpoint(low, high));
            }
            _ => return Err(format!("{kind:?} is not known; expected hold, ramp, step, spike or sine")),
        }
        match words.next() {
            Some(word) => Err(format!("{word:?} is one word too many")),
            None => Ok(()),
        }
    }

    fn line(&mut self, from: f64, to: f64, seconds: f64) {
        self.pieces.push(Piece { seconds, form: Form::Linear { from, to } });
        self.level = Some(to);
    }

    /// `A..B`, or `B` alone.
    fn levels(&mut self, text: &str) -> Result<(Option<f64>, f64), String> {
        match text.split_once("..") {
            Some((from, to)) => Ok((Some(self.level(from)?), self.level(to)?)),
            None => Ok((None, self.level(text)?)),
        }
    }

    fn level(&mut self, text: &str) -> Result<f64, String> {
        if let Some(factor) = text.strip_suffix('x') {
            let factor: f64 =
                factor.parse().map_err(|_| format!("{text:?} is not a factor; expected one like 10x or 0.5x"))?;
            let base = self.base.ok_or(
                "a factor needs a base rate: give --rate, or begin the shape with a level like \"hold 100/s 30s\"",
            )?;
            let level = factor * base;
            if !(0.0..=MAX_LEVEL).contains(&level) {
                return Err(format!("{text:?} does not fit; expected 0 to {MAX_LEVEL}"));
            }
            return Ok(level);
        }
        if self.unit == Unit::Factor && text != "0" {
            return Err(format!(
                "{text:?} is a rate, but a shape on a trace counts in factors of it: expected 2x, 0.5x"
            ));
        }
        if !text.contains('/') && text != "0" {
            return Err(format!("{text:?} has no unit; expected a rate like 100/s, or a factor like 10x"));
        }
        let level = rate(text)?;
        if self.base.is_none() && level > 0.0 {
            self.base = Some(level);
        }
        Ok(level)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn requests(text: &str) -> Curve {
        parse(text, Unit::Requests(None)).expect("a shape")
    }

    #[test]
    fn the_issues_example() {
        let curve = requests("hold 100/s 30s; spike 10x 45s; hold 100/s 30s");
        assert_eq!(curve.seconds(), 105.0);
        assert_eq!(curve.total(), 3_000.0 + 45_000.0 + 3_000.0);
        assert_eq!((curve.rate(10.0), curve.rate(31.0), curve.rate(80.0)), (100.0, 1_000.0, 100.0));
    }

    #[test]
    fn every_kind_of_segment() {
        let curve = requests("ramp 200/s 10s; step 400/s 5s; step 100/s..300/s 3 30s; sine 0..100/s 2s 8s; ramp 0 10s");
        assert_eq!(curve.seconds(), 63.0);
        let total = 1_000.0 + 2_000.0 + 1_000.0 + 2_000.0 + 3_000.0 + 400.0 + 250.0;
        assert!((curve.total() - total).abs() < 1e-6, "{}", curve.total());
        assert_eq!((curve.rate(16.0), curve.rate(26.0), curve.rate(44.0)), (100.0, 200.0, 300.0));
        let spike = requests("hold 10/s 1s; spike 5x 10s rise 2s fall 4s; hold 1x 1s");
        assert!((spike.total() - (10.0 + 60.0 + 200.0 + 120.0 + 10.0)).abs() < 1e-6);
    }

    #[test]
    fn on_a_trace_levels_are_factors() {
        let curve = parse("hold 1x 10s; step 20x 5s", Unit::Factor).expect("a shape");
        assert_eq!((curve.rate(3.0), curve.rate(12.0)), (1.0, 20.0));
        let refused = parse("hold 100/s 10s", Unit::Factor).expect_err("a rate on a trace").to_string();
        assert!(refused.contains("factors"), "{refused}");
    }

    #[test]
    fn what_is_wrong_is_said_where() {
        for (text, expected) in [
            ("", "expected 1 to"),
            ("hold 100/s", "segment 1 (\"hold 100/s\"): the time is missing"),
            ("hold 100/s 30s; spiek 10x 5s", "segment 2 (\"spiek 10x 5s\"): \"spiek\" is not known"),
            ("hold 10x 5s", "needs a base rate"),
            ("hold 100 30s", "\"100\" has no unit"),
            ("ramp 50..100/s 30s", "\"50\" has no unit"),
            ("hold 100/s 30s 4", "one word too many"),
            ("hold 100/s 30", "is not a time"),
            ("hold -5/s 30s", "does not fit"),
            ("hold NaN/s 30s", "does not fit"),
            ("step 1/s..5/s 1 30s", "1 stairs do not fit"),
            ("spike 5/s 3s rise 2s fall 2s", "longer than the spike"),
            ("sine 5/s..1/s 2s 3s", "lowest"),
        ] {
            let refused = parse(text, Unit::Requests(None)).expect_err(text).to_string();
            assert!(refused.contains(expected), "{text}: {refused}");
        }
    }
}
