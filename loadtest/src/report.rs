//! What a run leaves behind: a result for machines (`result.json`, with a published schema), a report for people (one HTML
//! file, no network), a summary on the terminal, thresholds, and the comparison with an older result.

mod baseline;
mod blocks;
mod chart;
mod html;
mod result;
mod summary;
mod threshold;

pub(crate) use baseline::compare;
pub(crate) use html::html;
pub(crate) use result::{About, Event, MOST_LAG_MS, RunResult, Verdict};
pub(crate) use summary::summary;
pub(crate) use threshold::Threshold;

/// The published schema of `result.json`.
pub(crate) const SCHEMA: &str = include_str!("../schema/result.schema.json");
