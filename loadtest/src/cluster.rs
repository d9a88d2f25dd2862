//! Many generators, one judgement.
//!
//! ```text
//! coordinator ──POST /order──▶ worker      the whole order, and which part of it: accounts are shared out by hash
//!             ──GET  /clock──▶             its clock, so that "start at T" means the same instant everywhere
//!             ──POST /start──▶             the instant
//!             ──GET  /delta──▶             each second: what is new (histograms in their interchange form)
//!             ──POST /stop|/pause|/resume|/abort──▶
//!             ──GET  /journal──▶           at the end, when there is an audit: every request
//! ```
//! Every worker walks through the whole schedule and keeps what is its own, so nothing has to be agreed on but the order. A
//! trace must be at the same path on each. Histograms are added, never averaged; thresholds and audit see the whole.
//! Orders carry API keys: without TLS a worker listens on loopback unless `--insecure` says otherwise, and it takes orders
//! only with the token that both sides have in `TOLLGATE_LOADTEST_TOKEN`, when one is set.
//!
//! A worker belongs to one coordinator at a time: every message names its order. It refuses the order of another while the one
//! that it has still asks for what is new, and stops sending by itself when nobody has asked for a while.

mod remote;
mod worker;

pub(crate) use remote::Remote;
pub(crate) use worker::worker;

/// The environment's name of the token.
const TOKEN: &str = "TOLLGATE_LOADTEST_TOKEN";
/// The header that names the order which a message is about.
const ORDER: &str = "tollgate-loadtest-order";
/// Requests of a journal that are sent at once.
const JOURNAL_PART: usize = 20_000;
