//! All of a run: sums, and the seconds one by one. Seconds in which nothing can end any more are kept in their compressed
//! form, so that a run of hours needs megabytes.

use std::collections::BTreeMap;

use anyhow::Result;

use super::{
    Class, Delta, Hdr, Quantiles, Second,
    hdr::{self, decode, encode, quantiles},
};

/// Counts and histograms of many seconds.
pub(crate) type Sum = Second;

/// A second as a report shows it.
#[derive(Debug, Clone)]
pub(crate) struct Point {
    /// Its number since the start.
    pub(crate) second: u32,
    /// Counts; its histograms are empty when the point came from the compressed form.
    pub(crate) counts: Second,
    /// Of all requests that were answered or broke, from the intended send.
    pub(crate) corrected: Quantiles,
    /// From the actual send.
    pub(crate) service: Quantiles,
    /// The generator's lag.
    pub(crate) lag: Quantiles,
    /// The corrected times by class, in their interchange form.
    pub(crate) histograms: BTreeMap<Class, String>,
}

/// A compressed second: its point, and what that does not hold: the times from the actual send, and the lag.
type Closed = (Point, BTreeMap<Class, String>, Option<String>);

/// The run so far.
#[derive(Debug, Default)]
pub(crate) struct Totals {
    open: BTreeMap<u32, Second>,
    closed: BTreeMap<u32, Closed>,
    sum: Sum,
}

impl Totals {
    /// Adds what is new.
    ///
    /// # Errors
    /// A compressed second cannot be read back: memory is broken.
    pub(crate) fn add(&mut self, delta: &Delta) -> Result<()> {
        for (number, second) in &delta.seconds {
            self.sum.add(second);
            if let Some(closed) = self.closed.remove(number) {
                self.open.insert(*number, reopen(closed)?);
            }
            self.open.entry(*number).or_default().add(second);
        }
        Ok(())
    }

    /// Compresses the seconds before this one. A late answer opens its second again.
    pub(crate) fn close_before(&mut self, number: u32) {
        let kept = self.open.split_off(&number);
        for (number, second) in std::mem::replace(&mut self.open, kept) {
            let service = second.service.iter().map(|(class, hdr)| (*class, encode(hdr))).collect();
            let lag = second.lag.as_ref().map(encode);
            let mut point = point(number, &second);
            point.counts = Second { corrected: BTreeMap::new(), service: BTreeMap::new(), lag: None, ..second };
            self.closed.insert(number, (point, service, lag));
        }
    }

    /// All of it.
    pub(crate) fn sum(&self) -> &Sum {
        &self.sum
    }

    /// The seconds in order; a second in which nothing was due is not among them.
    pub(crate) fn points(&self) -> Vec<Point> {
        let closed = self.closed.iter().map(|(number, (point, ..))| (*number, point.clone()));
        let open = self.open.iter().map(|(number, second)| (*number, point(*number, second)));
        let points: BTreeMap<u32, Point> = closed.chain(open).collect();
        points.into_values().collect()
    }

    /// The first second with requests that have not ended.
    pub(crate) fn oldest_outstanding(&self) -> Option<u32> {
        let closed = self.closed.iter().map(|(number, (point, ..))| (*number, point.counts.outstanding()));
        let open = self.open.iter().map(|(number, second)| (*number, second.outstanding()));
        closed.chain(open).filter(|(_, outstanding)| *outstanding > 0).map(|(number, _)| number).min()
    }

    /// The sum of the seconds from one on, as far as they are still open.
    pub(crate) fn recent(&self, from: u32) -> Sum {
        let mut sum = Sum::default();
        for second in self.open.range(from..).map(|(_, second)| second) {
            sum.add(second);
        }
        sum
    }
}

impl Second {
    /// All classes together but our own hang-ups, whose time says nothing about the service.
    pub(crate) fn all(of: &BTreeMap<Class, Hdr>) -> Hdr {
        let mut all = hdr::empty();
        for (_, hdr) in of.iter().filter(|(class, _)| **class != Class::HungUp) {
            hdr::add(&mut all, hdr);
        }
        all
    }
}

fn point(number: u32, second: &Second) -> Point {
    Point {
        second: number,
        corrected: quantiles(&Second::all(&second.corrected)),
        service: quantiles(&Second::all(&second.service)),
        lag: second.lag.as_ref().map(quantiles).unwrap_or_default(),
        histograms: second.corrected.iter().map(|(class, hdr)| (*class, encode(hdr))).collect(),
        counts: second.clone(),
    }
}

fn reopen((point, service, lag): Closed) -> Result<Second> {
    let read = |texts: &BTreeMap<Class, String>| -> Result<BTreeMap<Class, Hdr>> {
        texts.iter().map(|(class, text)| Ok((*class, decode(text)?))).collect()
    };
    Ok(Second {
        corrected: read(&point.histograms)?,
        service: read(&service)?,
        lag: lag.as_deref().map(decode).transpose()?,
        ..point.counts
    })
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::measure::{Finished, Labels, Recorder};

    fn delta(labels: &Labels, seconds: u64, ms: u64) -> Delta {
        let mut recorder = Recorder::default();
        for n in 0..1_000 * seconds {
            let due = Duration::from_millis(n);
            recorder.due(due, Duration::from_micros(n % 50));
            recorder.sent(due, false);
            let (class, name) = if n % 10 == 0 { (Class::Rejected, "429 rate-limited") } else { (Class::Ok, "200") };
            recorder.finished(&Finished {
                due,
                class,
                outcome: labels.label(name),
                tier: labels.label("free"),
                corrected: Duration::from_millis(ms + n % 7),
                service: Duration::from_millis(1),
            });
        }
        recorder.take()
    }

    #[test]
    fn closing_seconds_and_sending_them_between_processes_loses_nothing() {
        let (labels, far) = (Labels::default(), Labels::default());
        far.label("other numbers than here");
        let parts = [delta(&labels, 5, 3), delta(&labels, 5, 90)];
        let mut whole = Totals::default();
        for part in &parts {
            whole.add(part).expect("adds");
        }
        let mut split = Totals::default();
        for part in &parts {
            let sent = Delta::from_json(part.to_json(&labels), &far).expect("its own form");
            split.add(&sent).expect("adds");
            // Closed in between, so that the second part opens them again.
            split.close_before(4);
        }
        assert_eq!(split.open.len(), 1);
        let view = |totals: &Totals| -> Vec<_> {
            let points = totals.points().into_iter();
            points.map(|p| (p.second, p.corrected, p.service, p.lag, p.histograms, p.counts.finished())).collect()
        };
        assert_eq!(view(&whole), view(&split));
        assert_eq!(whole.sum().counts.values().collect::<Vec<_>>(), split.sum().counts.values().collect::<Vec<_>>());
        assert_eq!(whole.points().len(), 5);
        assert_eq!(quantiles(&Sum::all(&whole.sum().corrected)).count, 10_000);
    }
}
