//! Generators, wherever they are.

use std::{sync::Arc, time::Duration};

use anyhow::Result;

use crate::{
    audit::Sent,
    client::Control,
    exit::{Failure, Usage},
    measure::{Delta, Labels},
    trace::Bad,
};

/// How far they are.
#[derive(Debug, Default)]
pub(crate) struct Status {
    /// What is new.
    pub(crate) delta: Delta,
    /// How far the schedule is.
    pub(crate) elapsed: Duration,
    /// Requests waiting for their answers.
    pub(crate) in_flight: u64,
    /// Nothing more will come.
    pub(crate) finished: bool,
}

/// Generators in this process or in others.
pub(crate) trait Fleet {
    /// What is new.
    fn poll(&mut self) -> Result<Status>;
    /// Names of outcomes and tiers.
    fn labels(&self) -> &Labels;
    /// The schedule's clock in this process.
    fn control(&self) -> Arc<Control>;
    /// Stops the schedule's clock, or lets it go on.
    fn pause(&mut self, pause: bool) -> Result<()>;
    /// Nothing more is sent; what is in flight may end.
    fn drain(&mut self) -> Result<()>;
    /// Everything ends now.
    fn abort(&mut self) -> Result<()>;
    /// Everything that was sent, for the audit, if all of it is known; and what went wrong on the way (a line of the trace, a
    /// worker that was lost).
    fn finish(&mut self) -> Result<(Option<Vec<Sent>>, Vec<Failure>)>;
}

/// Whether an error is a mistake of the caller: a flag, or a line of a trace.
pub(crate) fn is_usage(error: &anyhow::Error) -> bool {
    error.chain().any(|cause| cause.is::<Usage>() || cause.is::<Bad>())
}
