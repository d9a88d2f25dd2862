//! A node as its peers know it.

use minicbor::{Decode, Encode};
use serde::{Deserialize, Serialize};

use super::Name;

/// What Raft's membership stores of a node.
#[derive(Debug, Clone, PartialEq, Eq, Default, Encode, Decode, Serialize, Deserialize)]
pub struct NodeInfo {
    /// The operator's name for the place; a replaced node keeps it under a new id.
    #[n(0)]
    pub name: Name,
    /// Where peers connect (`host:port`).
    #[n(1)]
    pub peer_addr: String,
    /// Where the admin API listens.
    #[n(2)]
    #[cbor(default)]
    pub admin_addr: String,
    /// Where the data plane listens.
    #[n(3)]
    #[cbor(default)]
    pub data_addr: String,
    /// Region label; empty when regions are not used.
    #[n(4)]
    #[cbor(default)]
    pub region: Name,
}

impl std::fmt::Display for NodeInfo {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} ({})", self.name, self.peer_addr)
    }
}
