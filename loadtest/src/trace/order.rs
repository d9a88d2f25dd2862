//! Puts records into the order of their times, within a bounded window.

use std::{cmp::Reverse, collections::BinaryHeap};

use super::Bad;

/// Records that are held back to be ordered, when nothing else is said.
pub(crate) const WINDOW: usize = 10_000;

/// Bytes of bodies that are held back, whatever the window: long ones make it shorter.
const MAX_HELD_BYTES: usize = 32 * 1024 * 1024;

/// Something with a time.
pub(crate) trait Timed {
    /// Its time; only the order counts.
    fn time(&self) -> i128;

    /// What it takes of the memory, apart from a small part that all have.
    fn held_bytes(&self) -> usize;
}

impl Timed for super::Record {
    fn time(&self) -> i128 {
        self.t.into()
    }

    fn held_bytes(&self) -> usize {
        match &self.b {
            Some(super::Body::Text(text)) => text.len(),
            Some(super::Body::Bytes(_)) | None => 0,
        }
    }
}

/// Orders a stream; what comes later than the window can bear is refused with its line.
pub(crate) struct Ordered<I, T> {
    inner: I,
    file: String,
    window: usize,
    /// Time, number (so that equal times keep their order), and place in `held`.
    heap: BinaryHeap<Reverse<(i128, u64, usize)>>,
    held: Vec<Option<T>>,
    free: Vec<usize>,
    number: u64,
    held_bytes: usize,
    last: i128,
    over: bool,
}

impl<I, T> Ordered<I, T> {
    /// Holds `window` records back.
    pub(crate) fn new(inner: I, file: &str, window: usize) -> Self {
        Self {
            inner,
            file: file.to_owned(),
            window,
            heap: BinaryHeap::new(),
            held: Vec::new(),
            free: Vec::new(),
            number: 0,
            held_bytes: 0,
            last: i128::MIN,
            over: false,
        }
    }
}

impl<T: Timed, I: Iterator<Item = Result<(u64, T), Bad>>> Ordered<I, T> {
    fn take(&mut self) -> Option<T> {
        let Reverse((time, _, place)) = self.heap.pop()?;
        self.last = time;
        self.free.push(place);
        let item = self.held[place].take()?;
        self.held_bytes -= item.held_bytes();
        Some(item)
    }
}

impl<T: Timed, I: Iterator<Item = Result<(u64, T), Bad>>> Iterator for Ordered<I, T> {
    type Item = Result<T, Bad>;

    fn next(&mut self) -> Option<Self::Item> {
        while !self.over && self.heap.len() <= self.window && self.held_bytes < MAX_HELD_BYTES {
            match self.inner.next() {
                None => self.over = true,
                Some(Err(bad)) => return Some(Err(bad)),
                Some(Ok((line, item))) => {
                    let time = item.time();
                    if time < self.last {
                        let what = format!(
                            "{:.3} s before the line that was sent last, and further from its place than the window of {} lines \
                             (and {} MiB of bodies): sort the file, or give a larger --sort-window",
                            (self.last - time) as f64 / 1e9,
                            self.window,
                            MAX_HELD_BYTES >> 20
                        );
                        return Some(Err(Bad::line(&self.file, line, 1, what)));
                    }
                    let place = self.free.pop().unwrap_or_else(|| {
                        self.held.push(None);
                        self.held.len() - 1
                    });
                    self.held_bytes += item.held_bytes();
                    self.held[place] = Some(item);
                    self.number += 1;
                    self.heap.push(Reverse((time, self.number, place)));
                }
            }
        }
        self.take().map(Ok)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::trace::Record;

    fn order(times: &[u64], window: usize) -> Result<Vec<u64>, Bad> {
        let records = times.iter().zip(1..).map(|(t, line)| Ok((line, Record { t: *t, ..Record::default() })));
        Ordered::new(records, "f", window).map(|record| record.map(|record| record.t)).collect()
    }

    #[test]
    fn disorder_within_the_window_is_put_right_and_beyond_it_refused_with_its_line() {
        assert_eq!(order(&[3, 1, 2, 5, 4, 9], 2), Ok(vec![1, 2, 3, 4, 5, 9]));
        assert_eq!(order(&[1, 2, 3], 0), Ok(vec![1, 2, 3]));
        let refused = order(&[10, 11, 12, 13, 14, 5], 3).expect_err("too late");
        assert_eq!((refused.line, refused.file.as_str()), (6, "f"));
        assert!(refused.what.contains("window of 3"), "{refused}");
    }

    /// The window was one of lines alone: a trace with bodies of a megabyte was read whole, ten gigabytes of it.
    #[test]
    fn long_bodies_are_held_back_by_their_bytes() {
        const MIB: usize = 1024 * 1024;
        let read = std::rc::Rc::new(std::cell::Cell::new(0));
        let counted = read.clone();
        let records = (0..100).map(move |n| {
            counted.set(n);
            let body = Some(crate::trace::Body::Text("x".repeat(MIB)));
            Ok((n, Record { t: n, b: body, ..Record::default() }))
        });
        let mut ordered = Ordered::new(records, "f", WINDOW);
        for n in 0..100 {
            assert_eq!(ordered.next().expect("one").expect("in order").t, n);
            assert!(read.get() <= n + (MAX_HELD_BYTES / MIB) as u64, "{n}: {}", read.get());
        }
        assert!(ordered.next().is_none() && ordered.held_bytes == 0);
    }

    proptest::proptest! {
        #[test]
        fn a_window_as_long_as_the_file_sorts_it(times in proptest::collection::vec(0u64..1_000, 0..200)) {
            let mut sorted = times.clone();
            sorted.sort_unstable();
            proptest::prop_assert_eq!(order(&times, times.len()), Ok(sorted));
        }
    }
}
