//! Tollgate's replicated ledger, as a library.
//!
//! [`Store`] is the handle: open it, ask [`Store::directory`] and [`Store::leases`] on the request path (memory only), hand
//! in each request's row and wait for its quorum, and read and write the metadata.
//!
//! Imports go down only: `platform` ◂ `model` ◂ `wal`, `state` ◂ `raft` ◂ `lease`, `view` ◂ this page.

#[doc(hidden)]
pub mod fuzz;
pub mod lease;
pub mod model;
mod platform;
mod raft;
pub mod state;
mod store;
pub mod view;
pub mod wal;

pub use platform::panics::end_process_on_panic;
pub use raft::PeerTls;
#[cfg(feature = "simulation")]
pub use store::simulation;
pub use store::{
    ClusterError, ClusterStatus, CommitError, Distribution, FirstToken, Followed, GroupStatus, LimitsNow, MemberStatus,
    OpenError, PolicyNow, ReadError, Readiness, RecordPlace, RowPage, RowPermit, RowQuery, Settings, Store,
    Unavailable, UsageBy, UsagePoint, UsageQuery, UsageStep, View, WriteError, Written,
};
