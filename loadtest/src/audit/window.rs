//! The worst window of a limit.
//!
//! Request `i` was admitted at some instant of `[a_i, b_i]`. For a window `[s, e]` only those count with `a_i >= s` and
//! `b_i <= e`. The worst excess over `burst + rate * (e - s)` is found by walking over the ends `e` and keeping, for each
//! start `s`, the count so far plus `rate * s` in a tree of maxima with range addition: n log n for all n² windows.

/// The first window in which more were admitted than may be: nothing before its end is a violation.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Excess {
    /// Its start, in the time of the intervals.
    pub(crate) from_us: i64,
    /// Its end.
    pub(crate) to_us: i64,
    /// Admitted within it, certainly.
    pub(crate) admitted: u64,
    /// What may be.
    pub(crate) allowed: f64,
    /// The most by which any window, this one or a later one, exceeds.
    pub(crate) most: f64,
}

/// Times are rounded down to microseconds: a window may be so much longer than it looks.
const ROUNDED_US: i64 = 2;
/// What the sum of many small numbers may be off, in units.
const NOISE: f64 = 1e-3;

/// The first window that exceeds, if any does; `intervals` are (earliest, latest) instants of admissions.
pub(crate) fn worst(intervals: &[(i64, i64)], burst: f64, per_us: f64, slack_us: i64) -> Option<Excess> {
    let mut starts: Vec<i64> = intervals.iter().map(|(a, _)| *a).collect();
    starts.sort_unstable();
    starts.dedup();
    let origin = *starts.first()?;
    let mut by_end: Vec<(i64, i64)> = intervals.iter().map(|(a, b)| (*b, *a)).collect();
    by_end.sort_unstable();
    let mut tree = Tree::new(starts.iter().map(|start| per_us * (start - origin) as f64).collect());
    let mut first: Option<Excess> = None;
    for (end, start) in by_end {
        let at = starts.partition_point(|s| *s < start);
        tree.add_up_to(at);
        let (best, place) = tree.max_up_to(starts.partition_point(|s| *s <= end) - 1);
        let excess = best - per_us * (end - origin + slack_us + ROUNDED_US) as f64 - burst;
        if excess <= NOISE {
            continue;
        }
        let found = first.get_or_insert_with(|| {
            let from = starts[place];
            let allowed = burst + per_us * (end - from + slack_us + ROUNDED_US) as f64;
            Excess { from_us: from, to_us: end, admitted: (excess + allowed).round() as u64, allowed, most: excess }
        });
        found.most = found.most.max(excess);
    }
    first
}

/// Maxima over ranges, with 1 added to all places up to one.
struct Tree {
    leaves: usize,
    /// (maximum, its place) below each node, without what is added above it.
    max: Vec<(f64, usize)>,
    added: Vec<f64>,
}

impl Tree {
    fn new(values: Vec<f64>) -> Self {
        let leaves = values.len().next_power_of_two();
        let mut max = vec![(f64::NEG_INFINITY, 0); 2 * leaves];
        for (at, value) in values.into_iter().enumerate() {
            max[leaves + at] = (value, at);
        }
        for node in (1..leaves).rev() {
            max[node] = larger(max[2 * node], max[2 * node + 1]);
        }
        Self { leaves, added: vec![0.0; 2 * leaves], max }
    }

    /// Adds 1 to the places 0 to `last`.
    fn add_up_to(&mut self, last: usize) {
        let mut node = self.leaves + last;
        self.bump(node);
        while node > 1 {
            if node % 2 == 1 {
                self.bump(node - 1);
            }
            node /= 2;
            let (best, place) = larger(self.max[2 * node], self.max[2 * node + 1]);
            self.max[node] = (best + self.added[node], place);
        }
    }

    fn bump(&mut self, node: usize) {
        self.max[node].0 += 1.0;
        self.added[node] += 1.0;
    }

    /// The maximum of the places 0 to `last`.
    fn max_up_to(&self, last: usize) -> (f64, usize) {
        let mut node = self.leaves + last;
        let mut best = self.max[node];
        while node > 1 {
            if node % 2 == 1 {
                best = larger(self.max[node - 1], best);
            }
            node /= 2;
            best.0 += self.added[node];
        }
        best
    }
}

fn larger(a: (f64, usize), b: (f64, usize)) -> (f64, usize) {
    if a.0 >= b.0 { a } else { b }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// All windows one by one.
    fn slow(intervals: &[(i64, i64)], burst: f64, per_us: f64) -> f64 {
        let mut worst = f64::NEG_INFINITY;
        for (from, _) in intervals {
            for (_, to) in intervals.iter().filter(|(_, to)| to >= from) {
                let admitted = intervals.iter().filter(|(a, b)| a >= from && b <= to).count() as f64;
                worst = worst.max(admitted - burst - per_us * (to - from + ROUNDED_US) as f64);
            }
        }
        worst
    }

    #[test]
    fn a_full_burst_and_the_rate_pass_and_one_more_does_not() {
        // 5 a second, 15 at once.
        let mut instants: Vec<(i64, i64)> = vec![(0, 0); 15];
        instants.extend((1..=50).map(|n| (n * 200_000, n * 200_000)));
        assert_eq!(worst(&instants, 15.0, 5e-6, 0), None);
        instants.push((400_000, 400_000));
        let excess = worst(&instants, 15.0, 5e-6, 0).expect("one too many");
        assert_eq!((excess.from_us, excess.to_us, excess.admitted), (0, 400_000, 18));
        assert!((excess.allowed - 17.0).abs() < 1e-4, "{excess:?}");
        // It may have been admitted later than its row's time.
        *instants.last_mut().expect("just put there") = (400_000, 11_000_000);
        assert_eq!(worst(&instants, 15.0, 5e-6, 0), None);
    }

    proptest::proptest! {
        #[test]
        fn as_all_windows_one_by_one(
            times in proptest::collection::vec((0i64..2_000_000, 0i64..50_000), 1..60),
            burst in 1u32..10,
            rate in 1u32..40,
        ) {
            let intervals: Vec<(i64, i64)> = times.iter().map(|(a, wait)| (*a, a + wait)).collect();
            let (burst, per_us) = (f64::from(burst), f64::from(rate) / 1e6);
            let fast = worst(&intervals, burst, per_us, 0);
            let slow = slow(&intervals, burst, per_us);
            proptest::prop_assert_eq!(fast.is_some(), slow > NOISE, "{:?} {}", fast, slow);
            if let Some(fast) = fast {
                proptest::prop_assert!((fast.most - slow).abs() < 1e-6);
            }
        }
    }
}
