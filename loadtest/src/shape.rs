//! The rate over time: what is planned before anything is sent.
//!
//! A shape is written as segments in one text (`"hold 100/s 30s; spike 10x 45s; hold 100/s 30s"`), becomes a [`Curve`] whose
//! integral is known in closed form, and so every arrival's time follows from its number alone: nothing that happens during
//! the run can move it. On a trace the same curve is a factor, 1 being the trace as it was.

mod arrivals;
mod curve;
mod draw;
mod preset;
mod text;

pub(crate) use arrivals::{Arrivals, Process};
pub(crate) use curve::{Curve, Form, Piece};
pub(crate) use draw::draw;
pub(crate) use preset::{PRESETS, Preset};
pub(crate) use text::{Unit, duration, parse, rate};
