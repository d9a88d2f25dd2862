//! The node's Raft groups, and openraft nowhere else.
//!
//! A [`Node`] is a log, a group 0 (metadata) and ledger groups, a listener for peers, and for each ledger group a batcher of
//! rows. It forms, joins or resumes its cluster by itself (see `bootstrap`).

mod batcher;
mod bootstrap;
mod checkpointer;
mod codec;
mod config;
mod frame;
pub(crate) mod fuzz;
mod group;
mod identity;
mod lane;
mod log;
mod machine;
mod membership;
mod moving;
mod network;
mod node;
mod peer;
mod peers;
mod placing;
mod relay;
mod room;
mod server;
mod snapshot;
mod status;
#[cfg(test)]
mod suite;
#[cfg(test)]
mod tests;
mod types;
mod version;
mod view_lease;
mod wait;
mod whole;
mod wire;

pub(crate) use batcher::{Batcher, Counters, Place};
pub(crate) use group::{Group, Progress};
pub use lane::PeerTls;
pub(crate) use membership::OperateError;
pub(crate) use node::{Fail, Node, NodeSettings};
pub(crate) use status::Status;
pub(crate) use version::{LOOKS_AT_QUOTAS, SAYS_MORE_IN_AUDIT, Spoken};
pub(crate) use view_lease::VIEW_LEASE;
pub(crate) use wait::{Everywhere, ProposeError, Wait};
