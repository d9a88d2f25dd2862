//! The gateway: the data plane, the admin API, the command line and what ties them together.
//!
//! The rooms meet only in [`app`]: it opens the store, starts the data plane and the admin listener, and ends them.
//! [`stack`] is the data plane; [`error`] is the only place with HTTP status codes; [`telemetry`] names the metrics;
//! [`otlp`] sends them, and traces, to a collector.

pub mod admin;
pub mod app;
pub mod cli;
pub mod config;
pub mod demo;
pub mod error;
#[doc(hidden)]
pub mod fuzz;
pub mod operator;
pub mod otlp;
pub mod stack;
pub mod telemetry;
pub mod tls;
