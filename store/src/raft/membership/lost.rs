//! Why there is no quorum, and what to do about it.

use std::collections::{BTreeMap, BTreeSet};

use super::STATUS_DEADLINE;
use crate::{
    model::{GroupId, NodeId, NodeInfo},
    raft::{
        node::Node,
        status::Status,
        wire::{self, Kind},
    },
};

/// A voter, and what answers at its address.
#[derive(Debug, Clone)]
pub(in crate::raft) struct Voter {
    id: NodeId,
    info: NodeInfo,
    answer: Option<Status>,
}

impl Voter {
    /// It is there with its data.
    fn is_there(&self) -> bool {
        self.answer.as_ref().is_some_and(|status| status.id == self.id)
    }

    /// Somebody without data, or another member, has its name or its address.
    fn is_lost(&self) -> bool {
        self.answer.as_ref().is_some_and(|status| status.id != self.id)
    }
}

/// Whether the leader of the cluster, which may have come after this node was last told of its members, knows no such node.
pub(super) async fn denied(node: &Node, seen: &[Voter]) -> bool {
    let leaders = seen.iter().filter_map(|voter| voter.answer.as_ref()).flat_map(|status| &status.leaders);
    let addrs: BTreeSet<&String> =
        leaders.filter(|leader| leader.group == GroupId::META).map(|leader| &leader.info.peer_addr).collect();
    for addr in addrs {
        let answer = node.peers().anyone(addr).call(Kind::Status, wire::cbor(&()), STATUS_DEADLINE).await;
        let Some(status) = answer.ok().and_then(|body| wire::from_cbor::<Status>(&body).ok()) else { continue };
        if status.confirmed && status.members.iter().all(|member| member.id != node.me()) {
            return true;
        }
    }
    false
}

/// Asks who answers at the addresses of some voters.
pub(in crate::raft) async fn look(node: &Node, voters: BTreeMap<u64, NodeInfo>) -> Vec<Voter> {
    let asked = voters.into_iter().map(|(id, info)| async move {
        let id = NodeId(id);
        let own = node.info();
        if id == node.me() || info.peer_addr == own.peer_addr {
            return Voter { id, info, answer: Some(node.status().await) };
        }
        let answer = node.peers().anyone(&info.peer_addr).call(Kind::Status, wire::cbor(&()), STATUS_DEADLINE).await;
        let mut answer = answer.ok().and_then(|body| wire::from_cbor(&body).ok());
        // Of its name, and nobody is there: this node has come in its place.
        if answer.is_none() && info.name == own.name {
            answer = Some(node.status().await);
        }
        Voter { id, info, answer }
    });
    let mut seen = futures_util::future::join_all(asked).await;
    // Ids are random; told in an order that people know.
    seen.sort_by(|a, b| a.info.name.cmp(&b.info.name));
    seen
}

/// What stands between these voters and a quorum; none when enough of them are there to elect a leader.
pub(in crate::raft) fn trouble(voters: &[Voter]) -> Option<String> {
    if voters.is_empty() {
        return None;
    }
    let needed = voters.len() / 2 + 1;
    let names = |of: &dyn Fn(&Voter) -> bool| -> Vec<String> {
        voters.iter().filter(|voter| of(voter)).map(|voter| voter.info.to_string()).collect()
    };
    let (there, lost) = (names(&Voter::is_there), names(&Voter::is_lost));
    let silent = names(&|voter: &Voter| !voter.is_there() && !voter.is_lost());
    let (all, count) = (voters.len(), there.len());
    if count >= needed {
        return None;
    }
    let is = |some: &[String]| if some.len() == 1 { "is" } else { "are" };
    let standing = format!("no quorum: {count} of {all} voters {} there, {needed} are needed", is(&there));
    if count + silent.len() >= needed {
        return Some(format!("{standing}; start {}", silent.join(" and ")));
    }
    let kept = if there.is_empty() { "no voter that answers".to_owned() } else { there.join(" and ") };
    Some(format!(
        "{standing}, and {} {} lost the data: a majority's answered rows may be on no other disk, so nobody takes their place \
         by itself. Bring back the data directory of {} as it was (an older copy has forgotten what it had promised) and start \
         it with its own command. If no such disk is left, this cluster cannot go on: save what {kept} still has \
         (tollgate export, reads with ?consistency=stale) and start a new one",
        lost.join(" and "),
        if lost.len() == 1 { "has" } else { "have" },
        lost.join(" or "),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `a` is there, `b!` silent, `c?` without its data.
    fn voters(text: &str) -> Vec<Voter> {
        let status = |id| Status { id: NodeId(id), voters: 3, ..Status::default() };
        let one = |(n, word): (usize, &str)| {
            let (id, info) = (n as u64 + 1, NodeInfo { name: word[..1].into(), ..NodeInfo::default() });
            let answer = match word.get(1..) {
                Some("!") => None,
                Some("?") => Some(status(99)),
                _ => Some(status(id)),
            };
            Voter { id: NodeId(id), info, answer }
        };
        text.split_whitespace().enumerate().map(one).collect()
    }

    #[test]
    fn a_quorum_that_is_there_is_no_trouble_and_one_that_may_come_back_is_waited_for() {
        for fine in ["", "a", "a b c", "a b c!", "a b c?", "a b c d! e?"] {
            assert_eq!(trouble(&voters(fine)), None, "{fine}");
        }
        let silent = trouble(&voters("a b! c!")).expect("no quorum");
        assert!(silent.contains("1 of 3 voters is there, 2 are needed; start b () and c ()"), "{silent}");
        let one_lost = trouble(&voters("a b! c?")).expect("no quorum");
        assert!(one_lost.contains("start b ()") && !one_lost.contains("Bring back"), "{one_lost}");
    }

    #[test]
    fn two_lost_disks_of_three_are_named_with_what_to_do() {
        let text = trouble(&voters("a b? c?")).expect("no quorum");
        for part in
            ["b () and c () have lost the data", "Bring back the data directory of b () or c ()", "save what a ()"]
        {
            assert!(text.contains(part), "{part:?}: {text}");
        }
    }
}
