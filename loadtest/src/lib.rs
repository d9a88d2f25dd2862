//! `tollgate-loadtest`: replays traffic, shapes spikes, and proves that nothing was lost.
//!
//! ```text
//! cli        the commands; the only room that knows all others
//!  ├ selftest   servers that stall, lose and over-admit: what the verdicts are worth
//!  ├ cluster    many generators, one judgement
//!  ├ run        one run: plan, clients, screen, chaos, audit, report
//!  ├ audit      the ledger's rows against what clients saw
//!  ├ chaos      kills nodes at set times
//!  ├ report     result.json, HTML, thresholds, comparison with an older result
//!  ├ screen     the live view, or a line now and then
//!  ├ client     threads that send on time
//!  ├ plan       what is sent when
//!  ├ admin      Tollgate's admin API, over HTTP
//!  ├ trace      recorded traffic
//!  ├ shape      rates over time
//!  └ measure    histograms that can be added
//! ```
//! Imports go down only. It speaks HTTP and knows none of Tollgate's types.

mod admin;
mod audit;
mod chaos;
mod cli;
mod client;
mod cluster;
mod exit;
#[doc(hidden)]
pub mod fuzz;
mod measure;
mod plan;
mod report;
mod run;
mod screen;
mod secure;
mod selftest;
mod shape;
mod trace;

/// Runs the command line.
pub fn main() -> std::process::ExitCode {
    cli::main()
}
