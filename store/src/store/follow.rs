//! Following rows as they are committed, over all ledger groups: each has its own count of records.

use std::{fmt, str::FromStr};

use super::{ReadError, RowQuery, Store};
use crate::model::Row;

/// How far a follower is, in each ledger group: the number of the next record to look at. A group that it does not name (it
/// was added since) is followed from its beginning.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RecordPlace(Vec<u64>);

/// A record's number has at most 20 digits; no cluster has more groups than these.
const MOST_GROUPS: usize = 64;

impl RecordPlace {
    /// Whether there is something between this place and another.
    pub fn is_before(&self, other: &Self) -> bool {
        other.0.iter().enumerate().any(|(n, next)| self.0.get(n).copied().unwrap_or(0) < *next)
    }
}

impl fmt::Display for RecordPlace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (n, next) in self.0.iter().enumerate() {
            write!(f, "{}{next}", if n == 0 { "" } else { "." })?;
        }
        Ok(())
    }
}

impl FromStr for RecordPlace {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let all: Result<Vec<u64>, ()> = text.split('.').map(|next| next.parse().map_err(drop)).collect();
        all.ok().filter(|all| all.len() <= MOST_GROUPS).map(Self).ok_or(())
    }
}

/// Rows after a place, and where to go on.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Followed {
    /// In order of their numbers in each group, joined with what has settled them already.
    pub rows: Vec<Row>,
    /// Where to go on.
    pub next: RecordPlace,
}

impl Store {
    /// Where a follower of what comes from now on begins.
    pub fn next_record(&self) -> RecordPlace {
        RecordPlace(self.0.node.ledgers().iter().map(|group| group.state().next_record()).collect())
    }

    /// Matching rows from a place on, in the order in which each group committed them; `limit` of each at most.
    ///
    /// # Errors
    /// The disk.
    pub async fn requests_from(
        &self,
        from: &RecordPlace,
        query: RowQuery,
        limit: usize,
    ) -> Result<Followed, ReadError> {
        let mut followed = Followed::default();
        for (n, (_, state)) in self.ledger_states().into_iter().enumerate() {
            let (from, query) = (from.0.get(n).copied().unwrap_or(0), query.clone());
            let of_group = super::ledger::read(state, move |state| state.rows_from(from, &query, limit)).await?;
            followed.rows.extend(of_group.rows);
            followed.next.0.push(of_group.next);
        }
        Ok(followed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_a_number_for_each_group() {
        for place in [vec![7], vec![0, u64::MAX, 3]] {
            let place = RecordPlace(place);
            assert_eq!(place.to_string().parse(), Ok(place));
        }
        assert_eq!(RecordPlace(vec![7]).to_string(), "7");
        let (old, new) = (RecordPlace(vec![7]), RecordPlace(vec![7, 1]));
        assert!(old.is_before(&new) && !new.is_before(&old) && !old.is_before(&old));
        for bad in ["", ".", "7.", "a", "-1", "18446744073709551616", &"1.".repeat(64)] {
            assert_eq!(bad.parse::<RecordPlace>(), Err(()), "{bad}");
        }
    }
}
