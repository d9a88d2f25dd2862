//! What is sent when: the whole schedule follows from the settings, the seed and the trace, before anything is sent.
//!
//! It is made while the run goes on, ahead of it, only to bound its memory: no answer has any influence on it.

mod factor;
mod feed;
mod keys;
mod mix;
mod replay;
mod spec;
mod synthetic;

pub(crate) use factor::{Amplitude, Factor};
pub(crate) use feed::feed;
pub(crate) use keys::{KeyLine, Keys, Principal};
pub(crate) use mix::Mix;
pub(crate) use replay::{Replay, ReplaySettings};
pub(crate) use spec::Spec;
pub(crate) use synthetic::Synthetic;

use std::sync::Arc;

/// A request at its time.
#[derive(Debug, Clone)]
pub(crate) struct Arrival {
    /// When, in nanoseconds of the schedule.
    pub(crate) due_ns: u64,
    /// What.
    pub(crate) spec: Arc<Spec>,
    /// Whose.
    pub(crate) principal: Arc<Principal>,
}

/// A schedule: arrivals in the order of their times. An error ends it.
pub(crate) type Schedule = Box<dyn Iterator<Item = anyhow::Result<Arrival>> + Send>;

/// Arrivals on their way to a thread of clients, in the order of their times.
pub(crate) type Batch = Vec<Arrival>;
