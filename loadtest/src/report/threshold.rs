//! Thresholds: `p99<50ms`, `error_rate<0.1%`, `unsent==0`, `audit.lost==0`. A metric that is not known is a mistake that is
//! told before the run, never a threshold that is always met.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::RunResult;

/// What a value is counted in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Unit {
    Ms,
    Share,
    PerSecond,
    Count,
}

type Read = fn(&RunResult) -> f64;

const METRICS: &[(&str, Unit, Read)] = &[
    ("p50", Unit::Ms, |r| r.corrected.p50),
    ("p90", Unit::Ms, |r| r.corrected.p90),
    ("p95", Unit::Ms, |r| r.corrected.p95),
    ("p99", Unit::Ms, |r| r.corrected.p99),
    ("p99.9", Unit::Ms, |r| r.corrected.p999),
    ("max", Unit::Ms, |r| r.corrected.max),
    ("mean", Unit::Ms, |r| r.corrected.mean),
    ("service.p50", Unit::Ms, |r| r.service.p50),
    ("service.p99", Unit::Ms, |r| r.service.p99),
    ("service.p99.9", Unit::Ms, |r| r.service.p999),
    ("service.max", Unit::Ms, |r| r.service.max),
    ("lag.p50", Unit::Ms, |r| r.lag.p50),
    ("lag.p99", Unit::Ms, |r| r.lag.p99),
    ("lag.max", Unit::Ms, |r| r.lag.max),
    ("error_rate", Unit::Share, |r| r.error_rate),
    ("rejected_rate", Unit::Share, |r| r.rejected_rate),
    ("rate", Unit::PerSecond, |r| r.rate),
    ("planned", Unit::Count, |r| r.counts.planned as f64),
    ("sent", Unit::Count, |r| r.counts.sent as f64),
    ("finished", Unit::Count, |r| r.counts.finished as f64),
    ("settled", Unit::Count, |r| r.counts.settled as f64),
    ("retries", Unit::Count, |r| r.counts.retries as f64),
    ("resent", Unit::Count, |r| r.counts.resent as f64),
    ("unsent", Unit::Count, |r| r.counts.unsent as f64),
    ("audit.lost", Unit::Count, |r| of_audit(r, |a| a.lost)),
    ("audit.doubled", Unit::Count, |r| of_audit(r, |a| a.doubled)),
    ("audit.mismatched", Unit::Count, |r| of_audit(r, |a| a.mismatched)),
    ("audit.over_admitted", Unit::Count, |r| of_audit(r, |a| a.over_admitted)),
    ("audit.under_admitted", Unit::Count, |r| of_audit(r, |a| a.under_admitted)),
    ("audit.usage", Unit::Count, |r| of_audit(r, |a| a.usage_mismatches)),
    ("audit.unknown", Unit::Count, |r| of_audit(r, |a| a.unknown)),
];

fn of_audit(result: &RunResult, read: fn(&crate::audit::Verdict) -> u64) -> f64 {
    // Without an audit the threshold was refused before the run; NaN meets none.
    result.audit.as_ref().map_or(f64::NAN, |audit| read(audit) as f64)
}

/// How values are compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Operator {
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
    Equal,
}

/// Longest first, so that `<=` is not read as `<`.
const OPERATORS: [(&str, Operator); 5] = [
    ("<=", Operator::LessOrEqual),
    (">=", Operator::GreaterOrEqual),
    ("==", Operator::Equal),
    ("<", Operator::Less),
    (">", Operator::Greater),
];

/// What must hold.
#[derive(Debug, Clone)]
pub(crate) struct Threshold {
    text: String,
    metric: Metric,
    operator: Operator,
    bound: f64,
}

#[derive(Debug, Clone)]
enum Metric {
    Known(usize),
    /// `status.429`: how many answers had it.
    Status(u16),
}

/// A threshold and whether it held.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Judged {
    /// As it was given.
    pub(crate) threshold: String,
    /// The metric's value, in ms, a share, a second, or a count; none (null) where there was nothing to judge.
    #[serde(deserialize_with = "value_or_null")]
    pub(crate) value: f64,
    /// Whether it held.
    pub(crate) pass: bool,
}

impl fmt::Display for Judged {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let word = if self.pass { "held" } else { "did not hold" };
        write!(f, "threshold {} {word}: ", self.threshold)?;
        // Its unit is known from its text.
        match self.threshold.parse::<Threshold>().map(|threshold| threshold.metric.unit()) {
            _ if self.value.is_nan() => f.write_str("nothing was judged"),
            Ok(Unit::Ms) => write!(f, "{:.2} ms", self.value),
            Ok(Unit::Share) => write!(f, "{:.4} %", self.value * 100.0),
            Ok(Unit::PerSecond) => write!(f, "{:.1}/s", self.value),
            Ok(Unit::Count) | Err(_) => write!(f, "{}", self.value),
        }
    }
}

/// JSON has no number for "none": it is written as null.
fn value_or_null<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<f64, D::Error> {
    Ok(Option::<f64>::deserialize(deserializer)?.unwrap_or(f64::NAN))
}

impl Metric {
    fn unit(&self) -> Unit {
        match self {
            Self::Known(at) => METRICS[*at].1,
            Self::Status(_) => Unit::Count,
        }
    }
}

impl std::str::FromStr for Threshold {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let found = OPERATORS.iter().find_map(|(sign, operator)| Some((text.split_once(sign)?, *operator)));
        let ((name, bound), operator) =
            found.ok_or_else(|| format!("{text:?}: expected METRIC<VALUE with one of < <= > >= =="))?;
        let (name, bound) = (name.trim(), bound.trim());
        let status = name.strip_prefix("status.").and_then(status);
        let (metric, unit) = match (METRICS.iter().position(|(known, ..)| *known == name), status) {
            (Some(at), _) => (Metric::Known(at), METRICS[at].1),
            (None, Some(status)) => (Metric::Status(status), Unit::Count),
            (None, None) => return Err(unknown(name)),
        };
        Ok(Self {
            text: text.to_owned(),
            metric,
            operator,
            bound: value(bound, unit).map_err(|w| format!("{text:?}: {w}"))?,
        })
    }
}

/// Three digits: what is no status would be met by nothing, and hold for ever.
fn status(text: &str) -> Option<u16> {
    let is_number = text.len() == 3 && text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse().ok().filter(|status| is_number && *status >= 100)
}

fn unknown(name: &str) -> String {
    let known: Vec<&str> = METRICS.iter().map(|(known, ..)| *known).collect();
    let near = known.iter().map(|known| (strsim::jaro_winkler(name, known), known)).max_by(|a, b| a.0.total_cmp(&b.0));
    let hint = near.filter(|(near, _)| *near > 0.8).map(|(_, known)| format!(" (did you mean {known}?)"));
    format!("{name:?} is not a metric{}; known are {} and status.NNN", hint.unwrap_or_default(), known.join(", "))
}

fn value(text: &str, unit: Unit) -> Result<f64, String> {
    let number = |text: &str| -> Result<f64, String> {
        let number: f64 = text.trim().parse().map_err(|_| format!("{text:?} is not a number"))?;
        if number.is_finite() && number >= 0.0 {
            Ok(number)
        } else {
            Err(format!("{text:?} does not fit; expected 0 or more"))
        }
    };
    match unit {
        Unit::Ms => {
            let units = [("us", 0.001), ("ms", 1.0), ("s", 1_000.0)];
            let found = units.iter().find_map(|(end, factor)| Some((text.strip_suffix(end)?, factor)));
            let (text, factor) =
                found.ok_or_else(|| format!("{text:?} has no unit; expected one like 50ms, 900us or 1.5s"))?;
            Ok(number(text)? * factor)
        }
        Unit::Share => {
            let share = match text.strip_suffix('%') {
                Some(percent) => number(percent)? / 100.0,
                None => number(text)?,
            };
            // 5 for 5 % would hold whatever happens.
            if share > 1.0 {
                return Err(format!("{text:?} is more than all; expected a share like 5% or 0.05"));
            }
            Ok(share)
        }
        Unit::PerSecond => number(text.strip_suffix("/s").unwrap_or(text)),
        Unit::Count => number(text),
    }
}

impl Threshold {
    /// As it was given.
    pub(crate) fn text(&self) -> &str {
        &self.text
    }

    /// Whether it is about the audit.
    pub(crate) fn needs_audit(&self) -> bool {
        self.text.trim_start().starts_with("audit.")
    }

    /// Whether it holds.
    pub(crate) fn judge(&self, result: &RunResult) -> Judged {
        let value = match &self.metric {
            Metric::Known(at) => METRICS[*at].2(result),
            Metric::Status(status) => {
                let is = |outcome: &str| outcome.split(' ').next() == Some(status.to_string().as_str());
                result.outcomes.iter().filter(|of| is(&of.outcome)).map(|of| of.count as f64).sum()
            }
        };
        let pass = match self.operator {
            Operator::Less => value < self.bound,
            Operator::LessOrEqual => value <= self.bound,
            Operator::Greater => value > self.bound,
            Operator::GreaterOrEqual => value >= self.bound,
            Operator::Equal => (value - self.bound).abs() < 1e-9,
        };
        Judged { threshold: self.text.clone(), value, pass }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        measure::{Labels, Totals},
        report::About,
    };

    #[test]
    fn values_are_read_in_their_units_and_compared() {
        let mut result =
            RunResult::new(&Totals::default(), &Labels::default(), About::default(), String::new(), Some(1.0));
        result.corrected.p99 = 49.9;
        result.error_rate = 0.001;
        let judge = |text: &str| text.parse::<Threshold>().expect(text).judge(&result).pass;
        assert!(judge("p99<50ms") && judge("p99 <= 0.05s") && !judge("p99<49900us") && judge("p99>49ms"));
        assert!(!judge("error_rate<0.1%") && judge("error_rate<=0.1%") && judge("error_rate<0.002"));
        assert!(judge("unsent==0") && !judge("rate>1/s") && judge("status.500==0"));
        // Not audited: not met, whatever is asked.
        assert!(!judge("audit.lost==0") && "audit.lost==0".parse::<Threshold>().expect("known").needs_audit());
    }

    #[test]
    fn a_judgement_is_told_in_its_unit_and_comes_back_from_its_file() {
        let said = |text: &str, value: f64| {
            let judged = Judged { threshold: text.into(), value, pass: true };
            let file = serde_json::to_string(&judged).expect("plain values");
            let back: Judged = serde_json::from_str(&file).expect("its own form");
            assert_eq!(back.to_string(), judged.to_string());
            judged.to_string()
        };
        assert!(said("p99<50ms", 13.268).ends_with("held: 13.27 ms"));
        assert!(said("error_rate<1%", 0.0012).ends_with("held: 0.1200 %"));
        assert!(said("rate>1/s", 99.96).ends_with("held: 100.0/s"));
        assert!(said("unsent==0", 0.0).ends_with("held: 0"));
        assert!(said("audit.lost==0", f64::NAN).ends_with("nothing was judged"));
    }

    #[test]
    fn a_mistyped_metric_or_value_is_refused() {
        for (text, expected) in [
            ("p9<50ms", "not a metric"),
            ("eror_rate<1%", "did you mean error_rate?"),
            ("p99<50", "no unit"),
            ("p99=50ms", "expected METRIC<VALUE"),
            ("unsent==x", "not a number"),
            ("status.x==1", "not a metric"),
            ("status.4290==0", "not a metric"),
            ("status.42==0", "not a metric"),
            ("status.+42==0", "not a metric"),
            ("error_rate<5", "expected a share like 5% or 0.05"),
            ("error_rate<101%", "more than all"),
        ] {
            let refused = text.parse::<Threshold>().expect_err(text);
            assert!(refused.contains(expected), "{text}: {refused}");
        }
    }
}
