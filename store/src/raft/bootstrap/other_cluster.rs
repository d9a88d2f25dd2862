//! A data directory of one cluster, and peers of `--join` in another: whoever wrote that command is told.

use std::time::Duration;

use super::CALL_DEADLINE;
use crate::raft::{
    node::Node,
    status::Status,
    wire::{self, Kind},
};

const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// Ends at once where no listed peer that answers is in another cluster, or one is in this node's.
pub(super) async fn check(node: &Node) {
    let own = &node.info().peer_addr;
    loop {
        let asked = node.join().iter().filter(|addr| *addr != own).map(|addr| async move {
            let answer = node.peers().anyone(addr).call(Kind::Status, wire::cbor(&()), CALL_DEADLINE).await;
            wire::from_cbor::<Status>(&answer.ok()?).ok()
        });
        let answered: Vec<Status> = futures_util::future::join_all(asked).await.into_iter().flatten().collect();
        let ours = node.meta().members();
        let is_ours =
            |one: &Status| ours.contains_key(&one.id.0) || one.members.iter().any(|member| member.id == node.me());
        // One that names no members is of an older build.
        let is_other = |one: &&Status| one.member && !one.members.is_empty();
        let Some(other) = answered.iter().find(is_other).filter(|_| !answered.iter().any(is_ours)) else { return };
        let names: Vec<String> = ours.values().map(|(info, _)| info.to_string()).collect();
        node.set_progress(format!(
            "this data directory ({}) belongs to a cluster of {}, and {} of --join is in another one: to join that one, start \
             with an empty --data-dir; to go on with this one, start without --join or with its own peers",
            node.data_dir().display(),
            names.join(" and "),
            other.info,
        ));
        tokio::time::sleep(LOOK_AGAIN).await;
    }
}
