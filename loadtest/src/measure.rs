//! What happened, in numbers that can be added: per second and class, HDR histograms of three digits.
//!
//! A generator thread writes into its own [`Recorder`]; once a second the run takes what is new (a [`Delta`]) and adds it to
//! its [`Totals`]. Workers send the same deltas to their coordinator, so one process and many are judged by the same code.

mod class;
mod delta;
mod hdr;
mod label;
mod recorder;
mod totals;

pub(crate) use class::{CLASSES, Class};
pub(crate) use delta::{Delta, Second, Unsent};
pub(crate) use hdr::{Hdr, Quantiles, decode, encode, quantiles};
pub(crate) use label::{Label, Labels};
pub(crate) use recorder::{Finished, Recorder};
pub(crate) use totals::{Point, Totals};
