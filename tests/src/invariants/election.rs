//! Raft, election safety: at most one leader a term (Ongaro, figure 3.2).

use std::collections::BTreeMap;

use store::model::{GroupId, NodeId};

use super::Violation;

const LAW: &str = "election safety";

/// Who led when.
#[derive(Debug, Default)]
pub struct Elections {
    leaders: BTreeMap<(GroupId, u64), NodeId>,
}

impl Elections {
    /// A node leads a group in a term.
    ///
    /// # Errors
    /// Another one led in it.
    pub fn leads(&mut self, group: GroupId, term: u64, node: NodeId) -> Result<(), Violation> {
        let leader = *self.leaders.entry((group, term)).or_insert(node);
        if leader == node {
            return Ok(());
        }
        Err(Violation { law: LAW, what: format!("group {group}, term {term}: {leader} and {node} lead") })
    }

    /// Leaderships seen.
    pub fn terms(&self) -> usize {
        self.leaders.len()
    }
}
