//! The peers that this node talks to: one call connection an address, shared by all groups.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
};

use super::{lane::PeerTls, peer::Peer, version::Own};
use crate::model::NodeId;

/// Peers by id (and by address, where no id is known yet).
pub(super) struct Peers {
    own: Arc<Own>,
    tls: Option<Arc<PeerTls>>,
    known: Mutex<HashMap<(Option<NodeId>, String), Peer>>,
}

impl Peers {
    pub(super) fn new(own: Own, tls: Option<Arc<PeerTls>>) -> Arc<Self> {
        Arc::new(Self { own: Arc::new(own), tls, known: Mutex::default() })
    }

    /// This node, as it presents itself.
    pub(super) fn own(&self) -> &Arc<Own> {
        &self.own
    }

    /// The certificates of this node's connections; none where they are plain.
    pub(super) fn tls(&self) -> Option<&PeerTls> {
        self.tls.as_deref()
    }

    /// The connection to a member. An address that answers with another id is refused.
    pub(super) fn peer(&self, id: NodeId, addr: &str) -> Peer {
        self.find(Some(id), addr)
    }

    /// The connection to whoever answers at an address (bootstrap only).
    pub(super) fn anyone(&self, addr: &str) -> Peer {
        self.find(None, addr)
    }

    fn find(&self, id: Option<NodeId>, addr: &str) -> Peer {
        let mut known = self.known.lock().expect("no holder of this lock panics");
        let peer = || Peer::new(Arc::clone(&self.own), id, addr.to_owned(), self.tls.clone());
        known.entry((id, addr.to_owned())).or_insert_with(peer).clone()
    }
}
