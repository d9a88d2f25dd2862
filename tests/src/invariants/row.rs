//! P1: no acknowledged row is lost, none is there twice, none is there that nobody handed in.

use std::collections::{BTreeMap, BTreeSet};

use store::model::{RequestId, Row};

use super::Violation;

const LAW: &str = "no acknowledged row lost or doubled";

/// What became of the rows that were handed in.
#[derive(Debug, Default)]
pub struct Rows {
    tried: BTreeSet<u128>,
    acknowledged: BTreeSet<u128>,
}

impl Rows {
    /// A row is handed in.
    pub fn tried(&mut self, id: RequestId) {
        self.tried.insert(id.0);
    }

    /// Its client has its answer.
    pub fn acknowledged(&mut self, id: RequestId) {
        self.acknowledged.insert(id.0);
    }

    /// Compares with what a node's ledger has at the end.
    ///
    /// # Errors
    /// What is wrong.
    pub fn check(&self, node: &str, rows: &[Row]) -> Result<(), Violation> {
        let broken = |what: String| Err(Violation { law: LAW, what: format!("on {node}: {what}") });
        let mut found: BTreeMap<u128, u32> = BTreeMap::new();
        for row in rows {
            *found.entry(row.request_id.0).or_default() += 1;
        }
        if let Some((id, times)) = found.iter().find(|(_, times)| **times > 1) {
            return broken(format!("row {} is there {times} times", RequestId(*id)));
        }
        let lost: Vec<_> = self.acknowledged.iter().filter(|id| !found.contains_key(id)).collect();
        if let Some(first) = lost.first() {
            return broken(format!(
                "{} of {} acknowledged rows are lost, {} the first",
                lost.len(),
                self.acknowledged.len(),
                RequestId(**first)
            ));
        }
        match found.keys().find(|id| !self.tried.contains(id)) {
            Some(id) => broken(format!("row {} was never handed in", RequestId(*id))),
            None => Ok(()),
        }
    }
}
