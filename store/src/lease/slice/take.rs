//! Units that were taken from a slice, until they end: spent, or given back.

use std::sync::{Arc, atomic::Ordering};

use super::Slice;
use crate::model::Unit;

/// Units taken from a slice, to be given to [`Slice::end`].
#[derive(Debug)]
pub(in crate::lease) struct Take {
    /// See [`crate::lease::handle::Handle::slice`].
    pub(in crate::lease) place: u32,
    /// Of the slice when it was taken: what was taken under another limit and is not used is lost to the period.
    pub(super) limits: u32,
    pub(in crate::lease) unit: Unit,
    pub(in crate::lease) period_start: i64,
    pub(in crate::lease) units: u64,
    /// See [`Slice::remaining`], right after.
    pub(in crate::lease) remaining: u64,
    /// More than the limit is used with it, as far as this node knows; units that other nodes hold count as used.
    pub(in crate::lease) is_over: bool,
}

/// Units taken for one who waits for them; they go back if nobody takes them over.
#[derive(Debug)]
pub(in crate::lease) struct Awaited {
    slice: Arc<Slice>,
    take: Option<Take>,
}

impl Slice {
    /// Makes a take what was truly used: less goes back to the slice, more is taken from it as far as there is. The units
    /// beyond that nobody reserved are the answer.
    pub(in crate::lease) fn adjust(&self, take: &mut Take, units: u64) -> u64 {
        let mut state = self.lock();
        let current = state.period_start == take.period_start && state.limits == take.limits;
        let beyond = if units <= take.units {
            if current {
                state.left = state.left.saturating_add(take.units - units);
            }
            0
        } else {
            let more = units - take.units;
            let covered = if current { more.min(state.left) } else { 0 };
            state.left -= covered;
            more - covered
        };
        drop(state);
        take.units = units;
        beyond
    }

    /// Ends a take of this slice: units that were not kept go back.
    pub(in crate::lease) fn end(&self, mut take: Take) {
        if take.units > 0 {
            self.adjust(&mut take, 0);
        }
        self.ended.fetch_add(1, Ordering::Release);
    }
}

impl Take {
    /// Leaves the units spent.
    pub(in crate::lease) fn keep(&mut self) {
        self.units = 0;
    }
}

impl Awaited {
    pub(super) fn new(slice: &Arc<Slice>, take: Take) -> Self {
        Self { slice: Arc::clone(slice), take: Some(take) }
    }

    /// Takes the units over.
    pub(in crate::lease) fn take(mut self) -> Take {
        self.take.take().expect("taken once")
    }
}

impl Drop for Awaited {
    fn drop(&mut self) {
        if let Some(take) = self.take.take() {
            self.slice.end(take);
        }
    }
}
