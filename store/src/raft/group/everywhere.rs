//! The write barrier (P3), on the leader: a write is answered when every node acts on it or can no longer decide by what was.

use std::{collections::BTreeMap, time::Duration};

use tokio::time::Instant;

use super::{Group, RETRY_PAUSE};
use crate::{
    model::{Name, NodeId, NodeInfo},
    platform::{lease_clock_ns, planted},
    raft::{
        view_lease::{end_of_grant, grants_of_predecessor},
        wait::Everywhere,
        wire::{self, Kind, WaitApplied},
    },
};

impl Group {
    /// Waits until each other node has the entry in force, or its lease on a view without it has run out.
    pub(super) async fn wait_everywhere(&self, term: u64, index: u64) -> Everywhere {
        if planted!(AnswersBeforeBarrier) {
            return Everywhere::default();
        }
        let started = Instant::now();
        let waits = self.leases_without(term).into_iter().map(|(id, (info, until_ns))| async move {
            let confirmed = self.confirms(NodeId(id), &info, index, until_ns).await;
            (!confirmed).then_some(info.name)
        });
        let waited_out: Vec<Name> = futures_util::future::join_all(waits).await.into_iter().flatten().collect();
        if !waited_out.is_empty() {
            tracing::warn!(index, nodes = ?waited_out, "nodes that did not confirm a write have no lease on their view any more");
        }
        Everywhere { took_us: u64::try_from(started.elapsed().as_micros()).unwrap_or(u64::MAX), waited_out }
    }

    /// Every other node, and until when a lease of its may run that names no entry as new as what is applied here now.
    fn leases_without(&self, term: u64) -> BTreeMap<u64, (NodeInfo, u64)> {
        let led = self.led.load();
        let since_ns = led.as_ref().filter(|led| led.term == term).map_or_else(lease_clock_ns, |led| led.since_ns);
        let from_before = grants_of_predecessor(since_ns);
        let members = self.members().into_iter().map(|(id, (info, _))| (id, (info, from_before)));
        let mut leases: BTreeMap<_, _> = members.filter(|(id, _)| *id != self.me.0).collect();
        let now_ns = lease_clock_ns();
        let mut grants = self.grants.lock().expect("no holder of this lock panics");
        grants.retain(|id, last| leases.contains_key(id) || end_of_grant(last.at_ns) > now_ns);
        for (id, last) in grants.iter() {
            let lease = leases.entry(*id).or_insert_with(|| (last.info.clone(), 0));
            lease.1 = lease.1.max(end_of_grant(last.at_ns));
        }
        leases
    }

    /// Asks a node until it has an entry in force; `false` when its lease has run out before.
    async fn confirms(&self, id: NodeId, info: &NodeInfo, index: u64, until_ns: u64) -> bool {
        let peer = self.peers.peer(id, &info.peer_addr);
        loop {
            let left = Duration::from_nanos(until_ns.saturating_sub(lease_clock_ns()));
            if left.is_zero() {
                return false;
            }
            let wait_ms = u64::try_from(left.as_millis()).unwrap_or(u64::MAX);
            let body = wire::cbor(&WaitApplied { group: self.id, index, wait_ms });
            if peer.call(Kind::WaitApplied, body, left).await.is_ok() {
                return true;
            }
            tokio::time::sleep(RETRY_PAUSE.min(left)).await;
        }
    }
}
