//! Rows as they come: what was committed after a point, in the order in which it was.
//!
//! A listing is in order of arrival, and a request that took long comes into it behind others that are newer. Who follows
//! wants every row once, so this is in order of the rows' numbers, which only grow.

use super::{
    ReadError, RowQuery, State,
    block::{Block, Filter},
    page::{again, damaged, listed},
};
use crate::model::Row;

/// Records that one step looks at, at most; a follower that fell further behind takes several.
const STEP_RECORDS: u64 = 65_536;

/// Rows after a point, and where to go on.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Followed {
    /// In order of their numbers, joined with what has settled them already.
    pub rows: Vec<Row>,
    /// The number of the next record to look at.
    pub next: u64,
}

impl State {
    /// The number that the next record will have: where a follower of what comes from now on begins.
    pub fn next_record(&self) -> u64 {
        self.read().live.vars.next_seq
    }

    /// Matching rows whose number is `from` or greater, in order of their numbers; `limit` at most. Those that were dropped
    /// with their day are left out. The query's cursor and limit say nothing here.
    ///
    /// # Errors
    /// The disk or a damaged block.
    pub fn rows_from(&self, from: u64, query: &RowQuery, limit: usize) -> Result<Followed, ReadError> {
        let filter = Filter {
            account: query.account.clone(),
            key: query.key.clone(),
            route: query.route.clone(),
            status: query.status,
            outcome: query.outcome,
            since: query.since,
            until: query.until,
            request_id: None,
        };
        let end = self.next_record().min(from.saturating_add(STEP_RECORDS));
        let followed = again(|| {
            let mut found: Vec<(u64, Row)> = Vec::new();
            for source in self.sources(&Filter::default()) {
                let inside = |(first, count): &(u64, u32)| *first < end && first + u64::from(*count) > from;
                if !source.meta.runs.iter().any(inside) {
                    continue;
                }
                let bytes = self.bytes_of(&source)?;
                let block = Block::open(&bytes).map_err(damaged(source.key))?;
                let records = listed(&block, &filter).map_err(damaged(source.key))?;
                let (seqs, records): (Vec<u64>, Vec<u32>) = records
                    .into_iter()
                    .map(|(record, _)| (source.meta.seq(record), record))
                    .filter(|(seq, _)| (from..end).contains(seq))
                    .unzip();
                let rows = block.rows_at(&records).map_err(damaged(source.key))?;
                found.extend(seqs.into_iter().zip(rows));
                if found.len() > limit.saturating_mul(2) {
                    found.select_nth_unstable_by_key(limit, |(seq, _)| *seq);
                    found.truncate(limit + 1);
                }
            }
            found.sort_unstable_by_key(|(seq, _)| *seq);
            // One more than the limit says where the next step begins.
            let next = found.get(limit).map_or(end, |(seq, _)| *seq);
            found.truncate(limit);
            let mut rows = Vec::with_capacity(found.len());
            for (_, mut row) in found {
                self.settle(&mut row)?;
                rows.push(row);
            }
            Ok(Followed { rows, next: next.max(from) })
        })?;
        Ok(followed)
    }
}
