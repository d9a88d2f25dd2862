//! The peers that this node talks to: one call connection an address, shared by all groups.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
};

use super::{lane::PeerTls, peer::Peer, version::Own};
use crate::model::NodeId;

/// Where members are that have said that they are elsewhere now; until the membership says so too, and as long as they are
/// not reached where it says. At most one address a member.
pub(super) type Moved = Arc<Mutex<HashMap<NodeId, String>>>;

/// Peers by id (and by address, where no id is known yet).
pub(super) struct Peers {
    own: Arc<Own>,
    tls: Option<Arc<PeerTls>>,
    known: Mutex<HashMap<(Option<NodeId>, String), Peer>>,
    moved: Moved,
}

impl Peers {
    pub(super) fn new(own: Own, tls: Option<Arc<PeerTls>>) -> Arc<Self> {
        Arc::new(Self { own: Arc::new(own), tls, known: Mutex::default(), moved: Moved::default() })
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

    /// A member is at another address now.
    pub(super) fn moved(&self, id: NodeId, addr: &str) {
        self.moved.lock().expect("no holder of this lock panics").insert(id, addr.to_owned());
    }

    fn find(&self, id: Option<NodeId>, addr: &str) -> Peer {
        let mut known = self.known.lock().expect("no holder of this lock panics");
        let (own, moved) = (Arc::clone(&self.own), Arc::clone(&self.moved));
        let peer = || Peer::new(own, id, addr.to_owned(), self.tls.clone(), moved);
        known.entry((id, addr.to_owned())).or_insert_with(peer).clone()
    }
}
