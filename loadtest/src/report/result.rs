//! The result of a run. Its schema is `schema/result.schema.json`; a field that is added there stays.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{blocks::blocks, threshold::Judged};
use crate::{
    audit,
    exit::Exit,
    measure::{CLASSES, Class, Labels, Point, Quantiles, Second, Totals, encode, quantiles},
};

/// Format version.
const VERSION: u32 = 1;
/// The generator's lag (99 of 100) above which a run says nothing about the service.
pub(crate) const MOST_LAG_MS: f64 = 5.0;

/// How it ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Verdict {
    /// All thresholds held and the audit found nothing.
    Pass,
    /// A threshold did not hold.
    Threshold,
    /// The audit found something.
    Audit,
    /// The generator was late.
    Invalid,
    /// A signal ended it.
    Interrupted,
}

impl Verdict {
    /// Its exit code.
    pub(crate) fn exit(self) -> Exit {
        match self {
            Self::Pass => Exit::Pass,
            Self::Threshold => Exit::Threshold,
            Self::Audit => Exit::Audit,
            Self::Invalid => Exit::Invalid,
            Self::Interrupted => Exit::Interrupted,
        }
    }
}

/// What was run.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct About {
    /// In one line.
    pub(crate) title: String,
    /// Where requests went.
    pub(crate) targets: Vec<String>,
    /// The shape's text, when there is one.
    pub(crate) shape: Option<String>,
    /// The trace's name, when there is one.
    pub(crate) trace: Option<String>,
    /// Settings that change what is sent.
    pub(crate) settings: BTreeMap<String, String>,
}

/// Something that happened at a time.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Event {
    /// Seconds since the start.
    pub(crate) at: f64,
    /// What.
    pub(crate) what: String,
}

/// How many.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Counts {
    /// Requests that came due.
    pub(crate) planned: u64,
    /// Requests sent, retries among them.
    pub(crate) sent: u64,
    /// Requests that ended.
    pub(crate) finished: u64,
    /// Sent again.
    pub(crate) retries: u64,
    /// Came due and were not sent.
    pub(crate) unsent: u64,
    /// Of these, because the generator was late.
    pub(crate) unsent_late: u64,
    /// Of these, because too many were in flight.
    pub(crate) unsent_full: u64,
}

/// Latency of a class.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct ClassResult {
    /// From the intended send, ms.
    pub(crate) corrected: Quantiles,
    /// From the actual send, ms.
    pub(crate) service: Quantiles,
    /// The corrected histogram, HdrHistogram V2 deflated, base64, microseconds.
    pub(crate) hdr: String,
}

/// How many of an outcome.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct OutcomeCount {
    /// The tier, or `-`.
    pub(crate) tier: String,
    /// Status and code.
    pub(crate) outcome: String,
    /// How many.
    pub(crate) count: u64,
}

/// A second.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct SecondResult {
    /// Its number; requests belong to the second in which they were due.
    pub(crate) second: u32,
    /// Counts.
    #[serde(flatten)]
    pub(crate) counts: Counts,
    /// How many ended in each class.
    pub(crate) classes: BTreeMap<Class, u64>,
    /// From the intended send, ms.
    pub(crate) corrected: Quantiles,
    /// From the actual send, ms.
    pub(crate) service: Quantiles,
    /// The generator's lag, ms.
    pub(crate) lag: Quantiles,
    /// The corrected histogram of each class.
    pub(crate) hdr: BTreeMap<Class, String>,
}

/// The result of a run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct RunResult {
    /// Format version; the name says what the file is.
    pub(crate) tollgate_loadtest: u32,
    /// RFC 3339.
    pub(crate) started_at: String,
    /// How long requests came due.
    pub(crate) seconds: f64,
    /// How it ended.
    pub(crate) verdict: Verdict,
    /// Why, when it did not pass.
    pub(crate) reasons: Vec<String>,
    /// What was run.
    pub(crate) about: About,
    /// How many.
    pub(crate) counts: Counts,
    /// Requests that ended a second.
    pub(crate) rate: f64,
    /// Errors among those that ended (4xx but 429, 5xx, no answer); 429 and our own hang-ups are none.
    pub(crate) error_rate: f64,
    /// 429 among those that ended.
    pub(crate) rejected_rate: f64,
    /// All classes but our hang-ups, from the intended send, ms. The headline.
    pub(crate) corrected: Quantiles,
    /// The same from the actual send, ms.
    pub(crate) service: Quantiles,
    /// The generator's own lag, ms.
    pub(crate) lag: Quantiles,
    /// By class.
    pub(crate) classes: BTreeMap<Class, ClassResult>,
    /// By tier and outcome.
    pub(crate) outcomes: Vec<OutcomeCount>,
    /// Thresholds.
    pub(crate) thresholds: Vec<Judged>,
    /// The audit, when there was one.
    pub(crate) audit: Option<audit::Verdict>,
    /// What was done to the service meanwhile.
    pub(crate) events: Vec<Event>,
    /// Metrics over ten parts of the run, for the noise of a comparison.
    pub(crate) blocks: BTreeMap<String, Vec<f64>>,
    /// Second by second.
    pub(crate) timeline: Vec<SecondResult>,
}

fn counts(second: &Second) -> Counts {
    Counts {
        planned: second.planned,
        sent: second.sent,
        finished: second.finished(),
        retries: second.retries,
        unsent: second.unsent_late + second.unsent_full,
        unsent_late: second.unsent_late,
        unsent_full: second.unsent_full,
    }
}

fn second(point: &Point, labels: &Labels) -> SecondResult {
    let mut classes: BTreeMap<Class, u64> = BTreeMap::new();
    for ((_, outcome), count) in &point.counts.counts {
        *classes.entry(class_of(&labels.name(*outcome))).or_default() += count;
    }
    SecondResult {
        second: point.second,
        counts: counts(&point.counts),
        classes,
        corrected: point.corrected,
        service: point.service,
        lag: point.lag,
        hdr: point.histograms.clone(),
    }
}

/// The class of an outcome's name.
pub(crate) fn class_of(outcome: &str) -> Class {
    match outcome.split(' ').next().and_then(|status| status.parse().ok()) {
        Some(status) => Class::of(status),
        None if outcome == "hung-up" => Class::HungUp,
        None => Class::NoAnswer,
    }
}

impl RunResult {
    /// From the numbers; verdict, thresholds and audit follow.
    pub(crate) fn new(totals: &Totals, labels: &Labels, about: About, started_at: String, seconds: f64) -> Self {
        let sum = totals.sum();
        let points = totals.points();
        let class = |class: &Class| {
            let corrected = sum.corrected.get(class)?;
            let result = ClassResult {
                corrected: quantiles(corrected),
                service: sum.service.get(class).map(quantiles).unwrap_or_default(),
                hdr: encode(corrected),
            };
            Some((*class, result))
        };
        let classes: BTreeMap<Class, ClassResult> = CLASSES.iter().filter_map(class).collect();
        let counts = counts(sum);
        let ended = counts.finished.max(1) as f64;
        let share = |is: fn(Class) -> bool| {
            let counted = classes.iter().filter(|(class, _)| is(**class));
            counted.map(|(_, result)| result.corrected.count).sum::<u64>() as f64 / ended
        };
        let mut outcomes: Vec<OutcomeCount> = sum
            .counts
            .iter()
            .map(|((tier, outcome), count)| OutcomeCount {
                tier: labels.name(*tier),
                outcome: labels.name(*outcome),
                count: *count,
            })
            .collect();
        outcomes.sort_by(|a, b| (&a.tier, &a.outcome).cmp(&(&b.tier, &b.outcome)));
        Self {
            tollgate_loadtest: VERSION,
            started_at,
            seconds,
            verdict: Verdict::Pass,
            reasons: Vec::new(),
            about,
            rate: if seconds > 0.0 { counts.finished as f64 / seconds } else { 0.0 },
            error_rate: share(Class::is_error),
            rejected_rate: share(|class| class == Class::Rejected),
            counts,
            corrected: quantiles(&Second::all(&sum.corrected)),
            service: quantiles(&Second::all(&sum.service)),
            lag: sum.lag.as_ref().map(quantiles).unwrap_or_default(),
            classes,
            outcomes,
            thresholds: Vec::new(),
            audit: None,
            events: Vec::new(),
            blocks: blocks(&points),
            timeline: points.iter().map(|point| second(point, labels)).collect(),
        }
    }

    /// Decides. What makes all other figures worthless comes first.
    pub(crate) fn decide(&mut self, interrupted: bool, failures: Vec<String>) {
        let mut verdict = Verdict::Pass;
        let mut reasons = Vec::new();
        let failed: Vec<String> =
            self.thresholds.iter().filter(|judged| !judged.pass).map(ToString::to_string).collect();
        if !failed.is_empty() {
            verdict = Verdict::Threshold;
            reasons.extend(failed);
        }
        if let Some(audit) = self.audit.as_ref().filter(|audit| !audit.passes()) {
            verdict = Verdict::Audit;
            reasons.push(format!(
                "audit: lost {}, doubled {}, mismatched {}, over-admitted {}, usage {}",
                audit.lost, audit.doubled, audit.mismatched, audit.over_admitted, audit.usage_mismatches
            ));
        }
        if self.lag.p99 > MOST_LAG_MS {
            verdict = Verdict::Invalid;
            reasons.push(format!(
                "INVALID: the generator itself was late, p99 {:.1} ms (at most {MOST_LAG_MS} ms): fewer requests, more --threads, \
                 or more machines (coordinator)",
                self.lag.p99
            ));
        }
        if !failures.is_empty() {
            verdict = Verdict::Invalid;
            reasons.extend(failures);
        }
        if interrupted {
            verdict = Verdict::Interrupted;
            reasons.push("interrupted".into());
        }
        (self.verdict, self.reasons) = (verdict, reasons);
    }
}
