//! Logs that know seconds only: their lines are spread over the second, by chance from a seed. All of a second at its first
//! instant would be a burst that never was.

use super::{Bad, formats::Seen};

/// Most lines of one second that are spread; what comes after them in that second stays where it is put last.
const MAX_LINES: usize = 1_000_000;
const SECOND_NS: i128 = 1_000_000_000;

/// Spreads a stream that is in order.
pub(crate) struct Spread<I: Iterator> {
    inner: std::iter::Peekable<I>,
    random: fastrand::Rng,
    /// Of the second at hand, last first.
    ready: Vec<Seen>,
    /// The time that was given last: order stays, whatever comes.
    last_ns: i128,
}

impl<I: Iterator<Item = Result<Seen, Bad>>> Spread<I> {
    /// With a seed.
    pub(crate) fn new(inner: I, seed: u64) -> Self {
        Self { inner: inner.peekable(), random: fastrand::Rng::with_seed(seed), ready: Vec::new(), last_ns: i128::MIN }
    }

    fn in_order(&mut self, mut seen: Seen) -> Seen {
        // After more lines of one second than are spread, or when a file becomes finer in its middle.
        seen.at_ns = seen.at_ns.max(self.last_ns);
        self.last_ns = seen.at_ns;
        seen
    }
}

impl<I: Iterator<Item = Result<Seen, Bad>>> Iterator for Spread<I> {
    type Item = Result<Seen, Bad>;

    fn next(&mut self) -> Option<Self::Item> {
        if let Some(seen) = self.ready.pop() {
            return Some(Ok(self.in_order(seen)));
        }
        let first = match self.inner.next()? {
            Ok(seen) if seen.whole_seconds => seen,
            Ok(seen) => return Some(Ok(self.in_order(seen))),
            Err(bad) => return Some(Err(bad)),
        };
        let second = first.at_ns.div_euclid(SECOND_NS);
        self.ready.push(first);
        while let Some(Ok(seen)) = self.inner.next_if(|next| {
            let same = |seen: &Seen| seen.whole_seconds && seen.at_ns.div_euclid(SECOND_NS) == second;
            self.ready.len() < MAX_LINES && next.as_ref().is_ok_and(same)
        }) {
            self.ready.push(seen);
        }
        let mut offsets: Vec<i128> = self.ready.iter().map(|_| i128::from(self.random.u64(..1_000_000_000))).collect();
        offsets.sort_unstable();
        // The file's order within the second stays.
        for (seen, offset) in self.ready.iter_mut().zip(offsets) {
            seen.at_ns = second * SECOND_NS + offset;
        }
        self.ready.reverse();
        let seen = self.ready.pop()?;
        Some(Ok(self.in_order(seen)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::trace::Record;

    #[test]
    fn a_second_is_filled_evenly_in_the_files_order_and_alike_with_the_same_seed() {
        let lines = |count: u16, second: i128| {
            (0..count).map(move |n| {
                let record = Record { s: Some(n), ..Record::default() };
                Ok(Seen { at_ns: second * SECOND_NS, whole_seconds: true, record })
            })
        };
        let run = |seed| -> Vec<(i128, Option<u16>)> {
            let spread = Spread::new(lines(1_000, 7).chain(lines(10, 8)), seed);
            spread.map(|seen| seen.expect("no bad line")).map(|seen| (seen.at_ns, seen.record.s)).collect()
        };
        let spread = run(1);
        assert_eq!((spread.len(), &spread), (1_010, &run(1)));
        assert_ne!(spread, run(2));
        assert!(spread.is_sorted_by_key(|(at, _)| *at));
        assert!(spread[..1_000].iter().zip(0..).all(|((at, s), n)| *s == Some(n) && at.div_euclid(SECOND_NS) == 7));
        let early = spread.iter().filter(|(at, _)| *at < 7 * SECOND_NS + SECOND_NS / 2).count();
        assert!((420..580).contains(&early), "{early}");
    }

    #[test]
    fn a_finer_line_among_whole_seconds_keeps_its_place() {
        let seen = |at_ns, whole_seconds, n| {
            Ok(Seen { at_ns, whole_seconds, record: Record { s: Some(n), ..Record::default() } })
        };
        let lines = [seen(0, true, 1), seen(0, true, 2), seen(1, false, 3), seen(SECOND_NS, true, 4)];
        let spread: Vec<Seen> = Spread::new(lines.into_iter(), 1).map(|seen| seen.expect("no bad line")).collect();
        assert!(spread.is_sorted_by_key(|seen| seen.at_ns), "{spread:?}");
        assert!(spread.iter().map(|seen| seen.record.s).eq((1..=4).map(Some)));
    }
}
