//! What the whole-system tests are made of: real `tollgate` processes, a controllable upstream, clients.
//!
//! Everything drives the product from outside, through the contract; only the store bench links the store.

mod admin;
mod disk;
mod load;
mod node;
mod upstream;
mod wait;

pub use admin::{Admin, Answer, client, get, post};
pub use disk::{Cut, Disk};
pub use load::{Load, Received, Report};
pub use node::{Cluster, Node, Options, binary, free_addr};
pub use upstream::Upstream;
pub use wait::{PATIENCE, until};
