//! The gateway: the data plane's request path, and what it shares with the rooms beside it.
//!
//! [`stack`] is the data plane; [`error`] is the only place with HTTP status codes; [`telemetry`] names the metrics.

pub mod error;
pub mod stack;
pub mod telemetry;
