//! Replicas that have applied the same entries hold the same.

use std::collections::BTreeMap;

use store::model::GroupId;

use super::Violation;

const LAW: &str = "equal states at equal index";

/// Digests seen, by group and last applied index.
#[derive(Debug, Default)]
pub struct States {
    digests: BTreeMap<(GroupId, u64), ([u8; 32], String)>,
    compared: u64,
}

impl States {
    /// A node's state at an index.
    ///
    /// # Errors
    /// Another node's differs at the same index.
    pub fn seen(&mut self, node: &str, group: GroupId, index: u64, digest: [u8; 32]) -> Result<(), Violation> {
        let (known, first) = self.digests.entry((group, index)).or_insert_with(|| (digest, node.to_owned()));
        if first != node {
            self.compared += 1;
        }
        if *known == digest {
            return Ok(());
        }
        Err(Violation { law: LAW, what: format!("group {group} at {index}: {first} and {node} differ") })
    }

    /// Digests that were compared with another node's.
    pub fn compared(&self) -> u64 {
        self.compared
    }
}
