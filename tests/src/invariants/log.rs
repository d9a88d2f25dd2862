//! Raft, log matching and state machine safety (Ongaro, figure 3.2): an index and a term name one entry, everywhere; and
//! what is committed at an index is never another entry.

use std::collections::BTreeMap;

use store::model::GroupId;

use super::Violation;

const LAW: &str = "log matching";
/// Version, kind, then the term.
const TERM_AT: usize = 2;

/// Entries seen.
#[derive(Debug, Default)]
pub struct Logs {
    /// By group, index and term: the entry's sum, and the term of the entry before where that is known.
    entries: BTreeMap<(GroupId, u64, u64), (u32, Option<u64>)>,
    /// By group and index: the term of what is committed there.
    committed: BTreeMap<(GroupId, u64), u64>,
}

impl Logs {
    /// A node's log has these entries in a row, and knows them committed up to an index.
    ///
    /// # Errors
    /// It differs from what was seen before.
    pub fn seen(
        &mut self,
        node: &str,
        group: GroupId,
        entries: &[(u64, bytes::Bytes)],
        committed: u64,
    ) -> Result<(), Violation> {
        let broken = |what: String| Err(Violation { law: LAW, what: format!("{node}, group {group}: {what}") });
        let mut previous = None;
        for (index, bytes) in entries {
            let term = bytes[TERM_AT..TERM_AT + 8].try_into().map_or(0, u64::from_le_bytes);
            let sum = crc32c::crc32c(bytes);
            let (known, before) = self.entries.entry((group, *index, term)).or_insert((sum, previous));
            if *known != sum {
                return broken(format!("entry {index} of term {term} differs from another node's"));
            }
            match (*before, previous) {
                (None, previous) => *before = previous,
                (Some(known), Some(previous)) if known != previous => {
                    return broken(format!("before entry {index} of term {term} are terms {known} and {previous}"));
                }
                _ => {}
            }
            if *index <= committed {
                let known = *self.committed.entry((group, *index)).or_insert(term);
                if known != term {
                    return broken(format!("entry {index} was committed in terms {known} and {term}"));
                }
            }
            previous = Some(term);
        }
        Ok(())
    }
}
