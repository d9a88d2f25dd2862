//! Coalescing of rejections: past some a second, one row a second stands for all of a key's.
//!
//! So a client that hammers against its limit costs neither a quorum nor a row a request. A crash may lose the last second.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use store::{
    model::{Completion, Name, Outcome, RequestId, Row, Timestamp},
    view::FoundKey,
};

use super::{
    Ledger,
    entry::{Entry, Known},
};

/// Rejections a second, a key and a node that have a row each.
const OWN_ROWS_A_SECOND: u32 = 10;
/// Keys counted at once; the rejections of one more have rows of their own.
const MAX_KEYS: usize = 16_384;
/// How often the coalesced rows are handed in.
const FLUSH_EVERY: Duration = Duration::from_secs(1);

/// Where a rejection goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Place {
    /// A row that the answer waits for.
    OwnRow,
    /// A row shared with others; the answer does not wait.
    Coalesced,
}

/// The node's counts; shared by its cores.
#[derive(Debug, Default)]
pub struct Rejections {
    counts: Mutex<Counts>,
}

#[derive(Debug, Default)]
struct Counts {
    /// By the key's slot: the second, and rejections seen in it.
    seconds: HashMap<u32, (i64, u32)>,
    /// By the key's slot, the outcome and what decided: the row to be.
    rows: HashMap<(u32, Outcome, Name), Row>,
    /// A flush is under way.
    flushing: bool,
}

impl Rejections {
    /// Nothing counted.
    pub fn new() -> Self {
        Self::default()
    }

    /// Counts a rejection, and says where it goes.
    pub(crate) fn place(&self, key: &FoundKey, now: Timestamp) -> Place {
        let second = now.unix_seconds();
        let mut counts = self.lock();
        let full = counts.seconds.len() >= MAX_KEYS;
        if full && !counts.seconds.contains_key(&key.slot) {
            // Second thoughts only at the bound: forget the keys that have been quiet for a second.
            counts.seconds.retain(|_, (at, _)| *at == second);
            if counts.seconds.len() >= MAX_KEYS {
                return Place::OwnRow;
            }
        }
        let (at, seen) = counts.seconds.entry(key.slot).or_insert((second, 0));
        if *at != second {
            (*at, *seen) = (second, 0);
        }
        *seen = seen.saturating_add(1);
        if *seen > OWN_ROWS_A_SECOND { Place::Coalesced } else { Place::OwnRow }
    }

    /// Adds a rejection to its shared row; the first one sets a flush for a second later.
    pub(crate) fn count<L: Ledger>(self: &Arc<Self>, entry: &Entry<L>, known: &Known, outcome: Outcome, status: u16) {
        let decided_by = entry.decided_by_names();
        let mut counts = self.lock();
        let place = (known.key.slot, outcome, decided_by.clone());
        let row = counts.rows.entry(place).or_insert_with(|| Row {
            request_id: RequestId::default(),
            ts: entry.ts,
            account: known.key.account.id.clone(),
            key_id: known.key.id(),
            tier: known.key.account.tier.clone(),
            route: entry.route.as_ref().map(|route| route.route.name.clone()).unwrap_or_default(),
            method: Name::default(),
            path: Name::default(),
            status,
            outcome,
            cost: 0,
            bytes_in: 0,
            bytes_out: 0,
            upstream_us: 0,
            duration_us: 0,
            client_ip: None,
            client_request_id: None,
            trace_id: 0,
            node: entry.shared.node.clone(),
            region: entry.shared.region.clone(),
            completion: Completion::Complete,
            count: 0,
            settles: false,
            charges: Vec::new(),
            decided_by,
            retention_days: known.key.account.policies.log_retention_days.unwrap_or(0),
        });
        row.count = row.count.saturating_add(1);
        if !std::mem::replace(&mut counts.flushing, true) {
            let (rejections, ledger) = (self.clone(), entry.shared.ledger.clone());
            tokio::spawn(async move {
                tokio::time::sleep(FLUSH_EVERY).await;
                rejections.flush(&*ledger);
            });
        }
    }

    /// Hands the coalesced rows in; also called at the end of a drain.
    pub fn flush<L: Ledger>(&self, ledger: &L) {
        let rows = {
            let mut counts = self.lock();
            counts.flushing = false;
            std::mem::take(&mut counts.rows)
        };
        for row in rows.into_values() {
            ledger.record(row, None);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Counts> {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
