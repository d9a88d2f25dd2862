//! The result of a run. Its schema is `schema/result.schema.json`; a field that is added there stays.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::{blocks::blocks, threshold::Judged};
use crate::{
    audit,
    client::{NOT_CONNECTED, OUT_OF_FILES},
    exit::{Exit, Failure},
    measure::{CLASSES, Class, Label, Labels, Point, Quantiles, Second, Totals, encode, quantiles},
};

/// Format version.
const VERSION: u32 = 1;
/// The generator's lag (99 of 100) above which a run says nothing about the service.
pub(crate) const MOST_LAG_MS: f64 = 5.0;
/// What a reason begins with that makes the figures worthless.
const INVALID: &str = "INVALID: ";

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
    /// The generator was late, nothing was sent or judged, or the run did not go as it was planned.
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
    /// Requests that ended, retries among them.
    pub(crate) finished: u64,
    /// Planned requests whose last answer is known.
    #[serde(default)]
    pub(crate) settled: u64,
    /// Sent again.
    pub(crate) retries: u64,
    /// Sent again within a try, because nothing of it had been done.
    #[serde(default)]
    pub(crate) resent: u64,
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
    /// 429 by tier.
    #[serde(default)]
    pub(crate) rejected: BTreeMap<String, u64>,
    /// Most requests that were seen waiting for their answers.
    #[serde(default)]
    pub(crate) in_flight: Option<u64>,
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
    /// From the first intended send to the last answer, and at least to the end of the schedule.
    #[serde(default)]
    pub(crate) took: f64,
    /// How it ended.
    pub(crate) verdict: Verdict,
    /// It did not pass by a mistake of the caller, which was met on the way.
    #[serde(skip)]
    pub(crate) is_usage: bool,
    /// Why, when it did not pass.
    pub(crate) reasons: Vec<String>,
    /// What was run.
    pub(crate) about: About,
    /// How many.
    pub(crate) counts: Counts,
    /// Planned requests that were settled, a second of the time that it took; retries do not count.
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
    /// What finally became of the planned requests: their last answers, without those that a retry followed.
    #[serde(default)]
    pub(crate) finally: Vec<OutcomeCount>,
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
        settled: second.settled(),
        retries: second.retries,
        resent: second.resent,
        unsent: second.unsent_late + second.unsent_full,
        unsent_late: second.unsent_late,
        unsent_full: second.unsent_full,
    }
}

fn second(point: &Point, labels: &Labels) -> SecondResult {
    let (mut classes, mut rejected) = (BTreeMap::new(), BTreeMap::new());
    for ((tier, outcome), count) in &point.counts.counts {
        let class = class_of(&labels.name(*outcome));
        *classes.entry(class).or_default() += count;
        if class == Class::Rejected {
            *rejected.entry(labels.name(*tier)).or_default() += count;
        }
    }
    SecondResult {
        second: point.second,
        counts: counts(&point.counts),
        classes,
        rejected,
        in_flight: None,
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
    /// From the numbers; verdict, thresholds and audit follow. `seconds` is the schedule's length, where that is known.
    pub(crate) fn new(
        totals: &Totals,
        labels: &Labels,
        about: About,
        started_at: String,
        seconds: Option<f64>,
    ) -> Self {
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
        let named = |less: &BTreeMap<(Label, Label), u64>| {
            let counts = sum.counts.iter().map(|(key, count)| (key, count - less.get(key).unwrap_or(&0).min(count)));
            let mut named: Vec<OutcomeCount> = counts
                .filter(|(_, count)| *count > 0)
                .map(|((tier, outcome), count)| OutcomeCount {
                    tier: labels.name(*tier),
                    outcome: labels.name(*outcome),
                    count,
                })
                .collect();
            named.sort_by(|a, b| (&a.tier, &a.outcome).cmp(&(&b.tier, &b.outcome)));
            named
        };
        let first = sum.first_due_us.unwrap_or(0) as f64 / 1e6;
        let last = (sum.last_end_us as f64 / 1e6).max(seconds.unwrap_or(0.0));
        let took = (last - first).max(0.0);
        Self {
            tollgate_loadtest: VERSION,
            started_at,
            seconds: seconds.unwrap_or_else(|| points.last().map_or(0.0, |point| f64::from(point.second) + 1.0)),
            took,
            verdict: Verdict::Pass,
            is_usage: false,
            reasons: Vec::new(),
            about,
            rate: if took > 0.0 { counts.settled as f64 / took } else { 0.0 },
            error_rate: share(Class::is_error),
            rejected_rate: share(|class| class == Class::Rejected),
            counts,
            corrected: quantiles(&Second::all(&sum.corrected)),
            service: quantiles(&Second::all(&sum.service)),
            lag: sum.lag.as_ref().map(quantiles).unwrap_or_default(),
            classes,
            outcomes: named(&BTreeMap::new()),
            finally: named(&sum.superseded),
            thresholds: Vec::new(),
            audit: None,
            events: Vec::new(),
            blocks: blocks(&points),
            timeline: points.iter().map(|point| second(point, labels)).collect(),
        }
    }

    /// The exit code of a run that ended so.
    pub(crate) fn exit(&self) -> Exit {
        if self.is_usage && self.verdict != Verdict::Audit { Exit::Usage } else { self.verdict.exit() }
    }

    /// Whether its figures say nothing about the service, whatever the verdict.
    pub(crate) fn is_invalid(&self) -> bool {
        self.verdict == Verdict::Invalid || self.reasons.iter().any(|reason| reason.starts_with(INVALID))
    }

    /// Decides. What the audit found comes first: a row that is not there is proof, and neither a late generator nor an early
    /// end can have made it. Then what makes all other figures worthless.
    pub(crate) fn decide(&mut self, interrupted: bool, failures: Vec<Failure>) {
        let mut verdict = Verdict::Pass;
        let mut reasons = Vec::new();
        let failed: Vec<String> =
            self.thresholds.iter().filter(|judged| !judged.pass).map(ToString::to_string).collect();
        if !failed.is_empty() {
            verdict = Verdict::Threshold;
            reasons.extend(failed);
        }
        let invalid = self.invalid();
        self.is_usage = failures.iter().any(|failure| failure.is_usage);
        let invalid = invalid.into_iter().chain(failures.into_iter().map(|failure| failure.what));
        let before = reasons.len();
        reasons.extend(invalid.map(|what| format!("{INVALID}{what}")));
        if reasons.len() > before {
            verdict = Verdict::Invalid;
        }
        let answered = self.outcomes.iter().any(|of| class_of(&of.outcome) != Class::NoAnswer);
        if verdict == Verdict::Pass && !answered && !self.outcomes.is_empty() {
            // A threshold would have said it; that there was none makes it no pass.
            verdict = Verdict::Invalid;
            let why = self.outcomes.iter().map(|of| of.outcome.as_str()).collect::<BTreeSet<_>>();
            let why = why.into_iter().collect::<Vec<_>>().join(", ");
            reasons.push(format!(
                "{INVALID}not one request was answered ({why}): is it the right service, and does it speak this version of HTTP?"
            ));
        }
        if interrupted {
            verdict = Verdict::Interrupted;
            reasons.push("interrupted".into());
        }
        if let Some(audit) = self.audit.as_ref().filter(|audit| audit.faults() > 0) {
            verdict = Verdict::Audit;
            let found = format!(
                "audit: lost {}, doubled {}, mismatched {}, over-admitted {}, usage {}",
                audit.lost, audit.doubled, audit.mismatched, audit.over_admitted, audit.usage_mismatches
            );
            reasons.insert(0, found);
        }
        (self.verdict, self.reasons) = (verdict, reasons);
    }

    /// Why the figures say nothing about the service.
    fn invalid(&self) -> Vec<String> {
        let mut why = Vec::new();
        match self.counts {
            Counts { planned: 0, .. } => why.push("nothing was to be sent, so nothing was tried".to_owned()),
            Counts { sent: 0, .. } => why.push("not one request was sent, so nothing was tried".to_owned()),
            _ => {}
        }
        let never_connected: Vec<&str> = self
            .outcomes
            .iter()
            .map(|counted| counted.outcome.as_str())
            .filter(|why| NOT_CONNECTED.contains(why))
            .collect();
        if !never_connected.is_empty() && never_connected.len() == self.outcomes.len() {
            let how = never_connected.into_iter().collect::<BTreeSet<_>>().into_iter().collect::<Vec<_>>().join(", ");
            let to = self.about.targets.join(", ");
            why.push(format!("not one connection could be made to {to} ({how}), so nothing was tried"));
        }
        let of_ours = self.outcomes.iter().filter(|of| of.outcome == OUT_OF_FILES).map(|of| of.count).sum::<u64>();
        if of_ours > 0 {
            why.push(format!(
                "{of_ours} requests found no file descriptor left in the generator: raise its limit (ulimit -n)"
            ));
        }
        if let Some(audit) = self.audit.as_ref().filter(|audit| audit.judged == 0 && audit.faults() == 0) {
            why.push(format!(
                "the audit could judge none of {} requests: none was answered to a key that the gateway knows",
                audit.requests
            ));
        }
        if self.lag.p99 > MOST_LAG_MS {
            why.push(format!(
                "the generator itself was late, p99 {:.1} ms (at most {MOST_LAG_MS} ms): fewer requests, more --threads, \
                 or more machines (coordinator)",
                self.lag.p99
            ));
        }
        why
    }
}

#[cfg(test)]
mod tests;
