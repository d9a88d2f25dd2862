//! The numbers of a moment.

use std::{collections::BTreeMap, time::Duration};

use crate::{
    chaos::Done,
    measure::{Labels, Quantiles, Second, Totals, quantiles},
    report::About,
};

/// Age in seconds from which the oldest request in flight is told.
const TOLD_AGE: u64 = 2;
/// Seconds that "now" is made of: the newest one is not over.
const NOW_SECONDS: u32 = 3;

/// A run at a moment.
pub(crate) struct View<'a> {
    /// What is run.
    pub(crate) about: &'a About,
    /// How far the schedule is.
    pub(crate) elapsed: Duration,
    /// How long it is, if that is known.
    pub(crate) seconds: Option<f64>,
    /// Requests waiting for their answers.
    pub(crate) in_flight: u64,
    /// All numbers.
    pub(crate) totals: &'a Totals,
    /// Names.
    pub(crate) labels: &'a Labels,
    /// The schedule stands still.
    pub(crate) paused: bool,
    /// Nothing more is sent.
    pub(crate) draining: bool,
    /// What was done to the service.
    pub(crate) events: &'a [Done],
}

/// The last seconds.
#[derive(Debug, Default)]
pub(crate) struct Now {
    /// Came due, a second.
    pub(crate) target: f64,
    /// Ended, of those, a second.
    pub(crate) achieved: f64,
    /// From the intended send.
    pub(crate) corrected: Quantiles,
    /// The generator's lag.
    pub(crate) lag: Quantiles,
}

impl View<'_> {
    /// How long the request that waits longest has been due at least, when that is worth to be told.
    pub(crate) fn oldest(&self) -> Option<u64> {
        let second = self.totals.oldest_outstanding()?;
        let age = self.elapsed.as_secs().saturating_sub(u64::from(second) + 1);
        (age >= TOLD_AGE).then_some(age)
    }

    /// The last whole seconds.
    pub(crate) fn now(&self) -> Now {
        let second = u32::try_from(self.elapsed.as_secs()).unwrap_or(u32::MAX);
        let from = second.saturating_sub(NOW_SECONDS);
        let recent = self.totals.recent(from);
        // The second at hand counts as far as it is.
        let seconds = (self.elapsed.as_secs_f64() - f64::from(from)).max(0.2);
        Now {
            target: recent.planned as f64 / seconds,
            achieved: recent.finished() as f64 / seconds,
            corrected: quantiles(&Second::all(&recent.corrected)),
            lag: recent.lag.as_ref().map(quantiles).unwrap_or_default(),
        }
    }

    /// How many of each outcome, largest first.
    pub(crate) fn outcomes(&self) -> Vec<(String, u64)> {
        let mut outcomes: BTreeMap<String, u64> = BTreeMap::new();
        for ((_, outcome), count) in &self.totals.sum().counts {
            *outcomes.entry(self.labels.name(*outcome)).or_default() += count;
        }
        let mut outcomes: Vec<(String, u64)> = outcomes.into_iter().collect();
        outcomes.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
        outcomes
    }

    /// 429 by tier.
    pub(crate) fn refused(&self) -> BTreeMap<String, u64> {
        let mut refused: BTreeMap<String, u64> = BTreeMap::new();
        for ((tier, outcome), count) in &self.totals.sum().counts {
            if self.labels.name(*outcome).starts_with("429") {
                *refused.entry(self.labels.name(*tier)).or_default() += count;
            }
        }
        refused
    }

    /// What it is doing.
    pub(crate) fn state(&self) -> &'static str {
        let is_over = self.seconds.is_some_and(|seconds| self.elapsed.as_secs_f64() > seconds);
        match (self.draining, self.paused) {
            (true, _) => "draining",
            (_, true) => "PAUSED",
            // What is left are answers, and retries.
            _ if is_over => "finishing",
            _ => "running",
        }
    }

    /// Requests that were not sent.
    pub(crate) fn unsent(&self) -> u64 {
        self.totals.sum().unsent_late + self.totals.sum().unsent_full
    }

    /// In one line.
    pub(crate) fn line(&self) -> String {
        let now = self.now();
        let length = self.seconds.map(|seconds| format!("/{seconds:.0}")).unwrap_or_default();
        let outcomes: Vec<String> =
            self.outcomes().iter().take(4).map(|(name, count)| format!("{name}: {count}")).collect();
        let refused: Vec<String> = self.refused().iter().map(|(tier, count)| format!("{tier} {count}")).collect();
        let refused = if refused.is_empty() { String::new() } else { format!("  429 by tier: {}", refused.join(", ")) };
        let event = self.events.last().map(|event| format!("  [{}]", event.what)).unwrap_or_default();
        let oldest = self.oldest().map(|age| format!(", the oldest {age} s")).unwrap_or_default();
        let Quantiles { p50, p99, p999, .. } = now.corrected;
        // While nothing is answered there is no latency, least of all one of 0.
        let latency = match now.corrected.count {
            0 => "no answers".to_owned(),
            _ => format!("p50 {p50:.2} p99 {p99:.2} p99.9 {p999:.2} ms"),
        };
        format!(
            "{:>4.0}{length} s {}  due {:.0}/s  ended {:.0}/s  in flight {}{oldest}  {latency}  lag p99 {:.2} ms  unsent {}  {}{refused}{event}",
            self.elapsed.as_secs_f64(),
            self.state(),
            now.target,
            now.achieved,
            self.in_flight,
            now.lag.p99,
            self.unsent(),
            outcomes.join(", ")
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::measure::{Class, Finished, Recorder};

    #[test]
    fn a_full_stall_shows_the_age_of_the_oldest_request() {
        let (labels, about, mut totals, mut recorder) =
            (Labels::default(), About::default(), Totals::default(), Recorder::default());
        // A request a second, of which the first ten are answered.
        for second in 0..30 {
            let due = Duration::from_secs(second);
            recorder.due(due, Duration::ZERO);
            recorder.sent(due, false);
            if second < 10 {
                let ms = Duration::from_millis(5);
                let (outcome, tier) = (labels.label("200"), labels.label("-"));
                recorder.finished(&Finished { due, class: Class::Ok, outcome, tier, corrected: ms, service: ms });
            }
        }
        totals.add(&recorder.take()).expect("adds");
        totals.close_before(20);
        let line = |elapsed| {
            let view = View {
                about: &about,
                elapsed: Duration::from_secs(elapsed),
                seconds: Some(30.0),
                in_flight: 20,
                totals: &totals,
                labels: &labels,
                paused: false,
                draining: false,
                events: &[],
            };
            view.line()
        };
        assert!(line(30).contains("in flight 20, the oldest 19 s  no answers  lag"), "{}", line(30));
        assert!(!line(11).contains("oldest"), "{}", line(11));
        assert!(line(30).contains(" s running ") && line(31).contains(" s finishing "), "{}", line(31));
    }
}
