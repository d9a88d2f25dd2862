//! Layers put together, in the order and form in which files and snapshots take them.

use std::{collections::BTreeMap, sync::Arc};

use bytes::Bytes;

use super::{
    codec,
    counting::{Records, add_up},
    index::{BlockKey, FileKey},
    layer::{Layer, Puts},
    ledger::{SETTLED_CLASS, quota_key},
    settled::Settled,
    tables::Table,
};
use crate::model::RequestId;

/// What some layers change together.
#[derive(Debug, Default)]
pub(super) struct Flat {
    /// Whole values, quotas among them.
    pub(super) puts: Puts,
    /// Differences.
    pub(super) usage: Records,
    /// By file of rows.
    pub(super) rows: BTreeMap<FileKey, FlatRows>,
    /// Whether files of rows are to be removed.
    pub(super) drops: bool,
}

/// What goes into one file of rows.
#[derive(Debug, Default)]
pub(super) struct FlatRows {
    pub(super) blocks: BTreeMap<BlockKey, Bytes>,
    pub(super) settled: BTreeMap<RequestId, Settled>,
}

impl Flat {
    /// Puts layers together, oldest first. `holds_usage`: the newest layer whose differences are in the file already.
    pub(super) fn of(layers: &[Arc<Layer>], holds_usage: u64) -> Self {
        let mut flat = Self::default();
        let mut blocks: BTreeMap<BlockKey, Bytes> = BTreeMap::new();
        for layer in layers {
            flat.puts.extend(layer.puts.iter().map(|(key, value)| (key.clone(), value.clone())));
            for ((account, quota), counter) in &layer.quotas {
                let key = (Table::Quotas, quota_key(account, quota));
                flat.puts.insert(key, Some(codec::encode(counter).into()));
            }
            blocks.extend(layer.blocks.iter().map(|(key, block)| (*key, block.clone())));
            for (id, (day, settled)) in &layer.settled {
                flat.rows.entry((*day, SETTLED_CLASS)).or_default().settled.insert(*id, settled.clone());
            }
            flat.drops |= layer.drops;
        }
        let newer = layers.iter().filter(|layer| layer.number > holds_usage);
        let counted: Vec<_> = newer.flat_map(|layer| layer.usage.iter().map(Arc::clone)).collect();
        flat.usage = add_up(&counted, None);
        for (key, block) in blocks {
            let stored = key.to_bytes().to_vec();
            if matches!(flat.puts.get(&(Table::Blocks, stored.clone())), Some(None)) {
                // Joined or dropped before it was ever written.
                flat.puts.remove(&(Table::Garbage, stored));
            } else {
                flat.rows.entry(key.file()).or_default().blocks.insert(key, block);
            }
        }
        flat
    }
}
