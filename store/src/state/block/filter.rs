//! Which rows match, found with as few columns as the question needs.

use super::{Block, BlockError, names::Dictionary};
use crate::model::{AccountId, KeyId, Name, Outcome, RequestId, Timestamp};

/// Conditions that must all hold; the default matches every row.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Filter {
    /// Of this account.
    pub account: Option<AccountId>,
    /// With this key.
    pub key: Option<KeyId>,
    /// On this route.
    pub route: Option<Name>,
    /// With this status.
    pub status: Option<u16>,
    /// With this outcome.
    pub outcome: Option<Outcome>,
    /// Arrived at or after.
    pub since: Option<Timestamp>,
    /// Arrived before.
    pub until: Option<Timestamp>,
    /// This request's records.
    pub request_id: Option<RequestId>,
}

impl Filter {
    /// Whether a block with these bounds (the newest included) can hold a match: asked before its bytes are read.
    pub fn overlaps(&self, min_ts: Timestamp, max_ts: Timestamp) -> bool {
        self.since.is_none_or(|since| max_ts >= since) && self.until.is_none_or(|until| min_ts < until)
    }
}

impl Block<'_> {
    /// The matching rows' numbers, ascending.
    ///
    /// The head answers for times outside the block; then each dictionary's distinct values are tested, and only if one of
    /// them matches are the rows' codes read. Columns that the filter does not name are not touched.
    ///
    /// # Errors
    /// A column that it needs is damaged.
    pub fn matching(&self, filter: &Filter) -> Result<Vec<u32>, BlockError> {
        if !filter.overlaps(self.min_ts(), self.max_ts()) {
            return Ok(Vec::new());
        }
        let mut rows = Matches::All(self.rows());
        let by_name = filter.account.is_some() || filter.key.is_some() || filter.route.is_some();
        let names = if by_name { Some(self.names()?) } else { None };
        // A name's code; a name that the block does not have is none of its codes.
        let code = |of, name: Option<&str>| {
            name.map(|name| names.as_ref().and_then(|names| names.find(of, name)).unwrap_or(u64::MAX))
        };
        let account = code(Dictionary::Account, filter.account.as_deref());
        let key = code(Dictionary::Key, filter.key.as_deref());
        let route = code(Dictionary::Route, filter.route.as_deref());
        if account.is_some() || key.is_some() {
            let [accounts, keys, _] = self.principal_tuples()?;
            let keep = (0..accounts.len()).map(|p| holds(account, accounts[p]) && holds(key, keys[p]));
            rows.keep_codes(&keep.collect::<Vec<_>>(), || self.principal_codes(accounts.len()))?;
        }
        if route.is_some() || filter.status.is_some() || filter.outcome.is_some() {
            let [routes, _, _, _, statuses, outcomes, ..] = self.shape_tuples()?;
            let (status, outcome) = (filter.status.map(u64::from), filter.outcome.map(|outcome| outcome as u64));
            let keep = (0..routes.len())
                .map(|s| holds(route, routes[s]) && holds(status, statuses[s]) && holds(outcome, outcomes[s]));
            rows.keep_codes(&keep.collect::<Vec<_>>(), || self.shape_codes(routes.len()))?;
        }
        let since = filter.since.filter(|since| *since > self.min_ts());
        let until = filter.until.filter(|until| *until <= self.max_ts());
        if !rows.is_empty() && (since.is_some() || until.is_some()) {
            let ts = self.timestamps()?;
            rows.keep(|row| since.is_none_or(|since| ts[row] >= since) && until.is_none_or(|until| ts[row] < until));
        }
        if let Some(id) = filter.request_id.filter(|_| !rows.is_empty()) {
            let ids = self.request_ids()?;
            rows.keep(|row| ids[row] == id);
        }
        Ok(rows.into_vec())
    }
}

fn holds(wanted: Option<u64>, found: u64) -> bool {
    wanted.is_none_or(|wanted| wanted == found)
}

/// Rows that still match.
enum Matches {
    All(usize),
    Some(Vec<u32>),
}

impl Matches {
    fn is_empty(&self) -> bool {
        matches!(self, Self::Some(rows) if rows.is_empty())
    }

    /// Keeps rows by their codes, which are not read when all values or none of them match.
    fn keep_codes(
        &mut self,
        values: &[bool],
        codes: impl FnOnce() -> Result<Vec<u32>, BlockError>,
    ) -> Result<(), BlockError> {
        if self.is_empty() || values.iter().all(|keep| *keep) {
            return Ok(());
        }
        if !values.contains(&true) {
            *self = Self::Some(Vec::new());
            return Ok(());
        }
        let codes = codes()?;
        self.keep(|row| values[codes[row] as usize]);
        Ok(())
    }

    fn keep(&mut self, keep: impl Fn(usize) -> bool) {
        match self {
            Self::All(rows) => *self = Self::Some((0..*rows as u32).filter(|row| keep(*row as usize)).collect()),
            Self::Some(rows) => rows.retain(|row| keep(*row as usize)),
        }
    }

    fn into_vec(self) -> Vec<u32> {
        match self {
            Self::All(rows) => (0..rows as u32).collect(),
            Self::Some(rows) => rows,
        }
    }
}
