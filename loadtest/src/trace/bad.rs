//! Lines that cannot be used: where, and what was expected.

use thiserror::Error;

/// Bad lines that are shown one by one; the rest is only counted.
const SHOWN: usize = 10;

/// A line that cannot be used.
#[derive(Debug, Error, Clone, PartialEq)]
#[error("{file}:{line}:{column}: {what}")]
pub(crate) struct Bad {
    /// The file as it was named.
    pub(crate) file: String,
    /// From 1.
    pub(crate) line: u64,
    /// From 1.
    pub(crate) column: usize,
    /// What was expected.
    pub(crate) what: String,
    /// Nothing after it can be read either.
    pub(crate) fatal: bool,
}

impl Bad {
    /// A line alone.
    pub(crate) fn line(file: &str, line: u64, column: usize, what: impl Into<String>) -> Self {
        Self { file: file.to_owned(), line, column, what: what.into(), fatal: false }
    }

    /// The file cannot be read on.
    pub(crate) fn fatal(file: &str, line: u64, what: impl Into<String>) -> Self {
        Self { fatal: true, ..Self::line(file, line, 1, what) }
    }
}

/// Leaves out up to so many bad lines and reports them on stderr; the next one ends the stream.
pub(crate) struct Tolerant<I> {
    inner: I,
    most: u64,
    skipped: u64,
    over: bool,
}

impl<I> Tolerant<I> {
    /// Tolerates `most` bad lines.
    pub(crate) fn new(inner: I, most: u64) -> Self {
        Self { inner, most, skipped: 0, over: false }
    }
}

impl<T, I: Iterator<Item = Result<T, Bad>>> Iterator for Tolerant<I> {
    type Item = Result<T, Bad>;

    fn next(&mut self) -> Option<Self::Item> {
        while !self.over {
            match self.inner.next() {
                Some(Err(bad)) if !bad.fatal && self.skipped < self.most => {
                    self.skipped += 1;
                    if self.skipped <= SHOWN as u64 {
                        eprintln!("skipped {bad}");
                    }
                }
                Some(Err(mut bad)) => {
                    self.over = true;
                    if !bad.fatal && self.most > 0 {
                        bad.what = format!("{} (and {} bad lines were skipped before it)", bad.what, self.skipped);
                    }
                    return Some(Err(bad));
                }
                None => {
                    self.over = true;
                    if self.skipped > 0 {
                        eprintln!("{} bad lines were skipped", self.skipped);
                    }
                }
                item => return item,
            }
        }
        None
    }
}
