//! Changes between two checkpoints, in memory over the files.

use std::{collections::BTreeMap, sync::Arc};

use bytes::Bytes;

use super::{
    hash::FastMap,
    index::{BlockIndex, BlockKey},
    quota::Counter,
    settled::Settled,
    tables::Table,
    tally::Counted,
    vars::Vars,
};
use crate::model::{AccountId, Name, RequestId};

/// Counters of quotas that are kept decoded, at most; then they are forgotten and read from the layers and the file again.
const CACHED_QUOTAS: usize = 1 << 18;

/// An account's quota.
pub(super) type QuotaKey = (AccountId, Name);

/// Changes of table rows: what they are now, or that they are gone.
pub(super) type Puts = BTreeMap<(Table, Vec<u8>), Option<Bytes>>;

/// Changes since the layer below. Values are whole, but usage: that is differences.
#[derive(Debug, Default)]
pub(super) struct Layer {
    /// 1, 2, 3, …; the file knows the newest that it holds.
    pub(super) number: u64,
    pub(super) puts: Puts,
    /// Filled when the layer is closed.
    pub(super) quotas: FastMap<QuotaKey, Counter>,
    /// Blocks to add up.
    pub(super) usage: Vec<Arc<Counted>>,
    pub(super) blocks: BTreeMap<BlockKey, Bytes>,
    /// By day, for the files of rows.
    pub(super) settled: FastMap<RequestId, (i32, Settled)>,
    /// Whether files of rows are to be removed.
    pub(super) drops: bool,
    /// Bytes of the entries, about.
    pub(super) bytes: u64,
}

/// A counter at hand.
#[derive(Debug)]
struct Known {
    counter: Counter,
    /// Since the active layer began.
    is_changed: bool,
}

/// The replica's memory: the small things, the index of blocks, and the layers.
#[derive(Debug, Default)]
pub(super) struct Live {
    pub(super) vars: Vars,
    pub(super) index: BlockIndex,
    /// Where apply writes.
    pub(super) active: Layer,
    /// Oldest first; a checkpoint is writing them, or the next one will.
    pub(super) frozen: Vec<Arc<Layer>>,
    /// Counters at hand. The active layer's `quotas` are filled from here when it is closed.
    quotas: FastMap<QuotaKey, Known>,
    changed_quotas: Vec<QuotaKey>,
    /// Whether anything was applied since the active layer began.
    pub(super) touched: bool,
}

impl Live {
    /// The memory of a replica as its files are; they hold layers up to this number.
    pub(super) fn new(vars: Vars, index: BlockIndex, layer: u64) -> Self {
        let active = Layer { number: layer + 1, ..Layer::default() };
        Self { vars, index, active, ..Self::default() }
    }

    /// Closes the active layer, if anything changed, and begins the next one.
    pub(super) fn freeze(&mut self) {
        if self.touched {
            for key in std::mem::take(&mut self.changed_quotas) {
                if let Some(known) = self.quotas.get_mut(&key) {
                    known.is_changed = false;
                    self.active.quotas.insert(key, known.counter.clone());
                }
            }
            if self.quotas.len() > CACHED_QUOTAS {
                self.quotas.clear();
            }
            let next = Layer { number: self.active.number + 1, ..Layer::default() };
            self.frozen.push(Arc::new(std::mem::replace(&mut self.active, next)));
            self.touched = false;
        }
    }

    /// All layers, newest first.
    pub(super) fn layers(&self) -> impl Iterator<Item = &Layer> {
        std::iter::once(&self.active).chain(self.frozen.iter().rev().map(AsRef::as_ref))
    }

    /// A row of a table, when a layer has it: there, or known to be gone.
    pub(super) fn get(&self, key: &(Table, Vec<u8>)) -> Option<Option<Bytes>> {
        self.layers().find_map(|layer| layer.puts.get(key)).cloned()
    }

    pub(super) fn put(&mut self, table: Table, key: Vec<u8>, value: Option<Bytes>) {
        self.active.puts.insert((table, key), value);
    }

    /// A quota, when memory has it.
    pub(super) fn quota(&self, key: &QuotaKey) -> Option<Counter> {
        let frozen = || self.frozen.iter().rev().find_map(|layer| layer.quotas.get(key));
        self.quotas.get(key).map(|known| &known.counter).or_else(frozen).cloned()
    }

    /// An account's quotas, as far as memory has them.
    pub(super) fn quotas_of(&self, account: &AccountId) -> BTreeMap<Name, Counter> {
        let mut counters = BTreeMap::new();
        let known = self.quotas.iter().map(|(key, known)| (key, &known.counter));
        let frozen = self.frozen.iter().rev().flat_map(|layer| &layer.quotas);
        for ((_, quota), counter) in known.chain(frozen).filter(|((of, _), _)| of == account) {
            counters.entry(quota.clone()).or_insert_with(|| counter.clone());
        }
        counters
    }

    /// The quotas of some accounts, as far as memory has them.
    pub(super) fn quotas_that(&self, wanted: impl Fn(&str) -> bool) -> BTreeMap<QuotaKey, Counter> {
        let mut counters = BTreeMap::new();
        let known = self.quotas.iter().map(|(key, known)| (key, &known.counter));
        let frozen = self.frozen.iter().rev().flat_map(|layer| &layer.quotas);
        for (key, counter) in known.chain(frozen).filter(|((of, _), _)| wanted(of)) {
            counters.entry(key.clone()).or_insert_with(|| counter.clone());
        }
        counters
    }

    /// Whether a counter is at hand.
    pub(super) fn has_quota(&self, key: &QuotaKey) -> bool {
        self.quotas.contains_key(key)
    }

    /// Takes a counter to hand, as it is stored.
    pub(super) fn know_quota(&mut self, key: QuotaKey, counter: Counter) {
        self.quotas.insert(key, Known { counter, is_changed: false });
    }

    /// A counter that is at hand, to be changed.
    ///
    /// # Panics
    /// When it is not at hand.
    pub(super) fn change_quota(&mut self, key: &QuotaKey) -> (&mut Counter, &Vars) {
        let known = self.quotas.get_mut(key).expect("apply takes every counter to hand that it changes");
        if !known.is_changed {
            known.is_changed = true;
            self.changed_quotas.push(key.clone());
        }
        (&mut known.counter, &self.vars)
    }

    /// The first entry of which memory has a block's bytes.
    pub(super) fn oldest_block(&self) -> u64 {
        self.layers().filter_map(|layer| layer.blocks.keys().next()).map(|key| key.at).min().unwrap_or(u64::MAX)
    }

    /// A block's bytes, when memory has them.
    pub(super) fn block(&self, key: BlockKey) -> Option<Bytes> {
        self.layers().find_map(|layer| layer.blocks.get(&key)).cloned()
    }
}
