//! Whole nodes in a simulated world: the store as it is, on simulated network, clocks and disks, all on one thread.
//!
//! A [`Plan`] (a seed, above all) decides everything that happens; [`run`] plays it and checks the laws of
//! [`crate::invariants`] all the while. The same plan in a fresh process runs the same way; within one process a second
//! run may differ (thread-local generators of crates live on), so: one process a seed. What remains real: small files and directories
//! beside the databases, whose calls return at once.

mod chaos;
mod client;
mod clock;
mod cluster;
mod disk;
mod node;
mod operator;
mod planted;
mod run;

pub use self::{
    clock::DRIFT_PPM,
    disk::Fault,
    planted::laws_broken_by,
    run::{Outcome, Plan, run},
};
