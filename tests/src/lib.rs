//! What the whole-system tests are made of: real `tollgate` processes, a controllable upstream, clients.
//!
//! Everything drives the product from outside, through the contract; only the store bench and the simulation link the store.

mod admin;
mod authority;
mod collector;
mod disk;
#[cfg(feature = "simulation")]
pub mod invariants;
mod load;
mod net;
mod node;
mod program;
mod raw;
pub mod rounds;
pub mod seeds;
#[cfg(feature = "simulation")]
pub mod sim;
mod time;
mod upstream;
mod wait;

pub use admin::{Admin, Answer, client, get, post, send};
pub use authority::Authority;
pub use collector::{Collector, attribute};
pub use disk::{Cut, Disk};
pub use load::{Load, Received, Report, spend};
pub use net::{Net, SmallDisk};
pub use node::{Cluster, Node, Options, command, free_addr};
pub use program::{binary, loadtest};
pub use raw::Raw;
pub use time::{rfc3339, unix_seconds};
pub use upstream::Upstream;
pub use wait::{PATIENCE, until};
