//! Changes between two checkpoints, in memory over the files.

use std::{collections::BTreeMap, sync::Arc};

use bytes::Bytes;

use super::{
    hash::FastMap,
    index::{BlockIndex, BlockKey},
    quota::Counter,
    settled::Settled,
    tables::Table,
    usage::Usage,
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
    pub(super) quotas: FastMap<QuotaKey, Arc<Counter>>,
    pub(super) usage: Usage,
    pub(super) blocks: BTreeMap<BlockKey, Bytes>,
    /// By day, for the files of rows.
    pub(super) settled: FastMap<RequestId, (i32, Settled)>,
    /// Whether files of rows are to be removed.
    pub(super) drops: bool,
    /// Bytes of the entries, about.
    pub(super) bytes: u64,
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
    quotas: FastMap<QuotaKey, Arc<Counter>>,
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
    pub(super) fn quota(&self, key: &QuotaKey) -> Option<Arc<Counter>> {
        self.quotas.get(key).or_else(|| self.layers().find_map(|layer| layer.quotas.get(key))).cloned()
    }

    /// An account's quotas, as far as layers have them.
    pub(super) fn quotas_of(&self, account: &AccountId) -> BTreeMap<Name, Arc<Counter>> {
        let mut counters = BTreeMap::new();
        for layer in self.layers() {
            for ((_, quota), counter) in layer.quotas.iter().filter(|((of, _), _)| of == account) {
                counters.entry(quota.clone()).or_insert_with(|| Arc::clone(counter));
            }
        }
        counters
    }

    pub(super) fn put_quota(&mut self, key: QuotaKey, counter: Arc<Counter>) {
        if self.quotas.len() >= CACHED_QUOTAS {
            self.quotas.clear();
        }
        self.quotas.insert(key.clone(), Arc::clone(&counter));
        self.active.quotas.insert(key, counter);
    }

    /// A block's bytes, when memory has them.
    pub(super) fn block(&self, key: BlockKey) -> Option<Bytes> {
        self.layers().find_map(|layer| layer.blocks.get(&key)).cloned()
    }
}
