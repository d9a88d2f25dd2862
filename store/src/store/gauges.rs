//! The numbers that alerts stand on: who leads, who votes, what is full.

use super::{Readiness, Store};

impl Store {
    /// Name (Prometheus, with unit), help, value.
    pub(super) fn gauges(&self) -> Vec<(&'static str, &'static str, f64)> {
        let node = &self.0.node;
        let (meta, ledgers) = (node.meta(), node.ledgers());
        let members = meta.members();
        let voters = members.values().filter(|(_, votes)| *votes).count();
        let votes = members.get(&node.me().0).is_some_and(|(_, votes)| *votes);
        let flag = |set: bool| f64::from(u8::from(set));
        let mut gauges = vec![
            ("tollgate_ready", "1 when the node serves.", flag(matches!(self.readiness(), Readiness::Ready))),
            (
                "tollgate_members",
                "Members of the cluster, voters and learners, as this node knows them.",
                count(members.len()),
            ),
            ("tollgate_voters", "Voting members of the cluster, as this node knows them.", count(voters)),
            ("tollgate_is_voter", "1 on a voting member.", flag(votes)),
            ("tollgate_meta_is_leader", "1 on the leader of the metadata group.", flag(meta.is_leader())),
            (
                "tollgate_meta_in_contact",
                "1 when this node has fresh contact with the quorum of the metadata group.",
                flag(meta.is_in_contact()),
            ),
            ("tollgate_meta_term", "Raft term of the metadata group.", meta.progress().term as f64),
            (
                "tollgate_ledger_in_contact",
                "1 when this node has fresh contact with the quorums of all ledger groups.",
                flag(ledgers.iter().all(|ledger| ledger.is_in_contact())),
            ),
            (
                "tollgate_ledger_committed_index",
                "Newest index of a ledger group known to be committed.",
                ledgers.iter().map(|ledger| ledger.progress().committed).max().unwrap_or(0) as f64,
            ),
            (
                "tollgate_rows_waiting_limit",
                "Rows that may wait for their quorum; beyond it, 503.",
                count(self.0.lanes.max_waiting()),
            ),
        ];
        if let Ok(disk) = rustix::fs::statvfs(node.data_dir()) {
            let bytes = |blocks: u64| blocks.saturating_mul(disk.f_frsize) as f64;
            gauges.push((
                "tollgate_data_dir_size_bytes",
                "Size of the data directory's file system.",
                bytes(disk.f_blocks),
            ));
            gauges.push((
                "tollgate_data_dir_free_bytes",
                "Free bytes of the data directory's file system.",
                bytes(disk.f_bavail),
            ));
        }
        gauges
    }
}

fn count(number: usize) -> f64 {
    number as f64
}
