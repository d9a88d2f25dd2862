//! Layers put together, in the order and form in which files and snapshots take them.

use std::{collections::BTreeMap, sync::Arc};

use bytes::Bytes;

use super::{
    codec,
    index::{BlockKey, FileKey},
    layer::{Layer, Puts},
    ledger::quota_key,
    settled::Settled,
    tables::Table,
    usage::Cell,
};
use crate::model::RequestId;

/// What some layers change together.
#[derive(Debug, Default)]
pub(super) struct Flat {
    /// Whole values, quotas among them.
    pub(super) puts: Puts,
    /// Differences.
    pub(super) usage: BTreeMap<Vec<u8>, Cell>,
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
                flat.puts.insert(key, Some(codec::encode(&**counter).into()));
            }
            if layer.number > holds_usage {
                layer.usage.flatten_into(&mut flat.usage);
            }
            blocks.extend(layer.blocks.iter().map(|(key, block)| (*key, block.clone())));
            for (id, (day, settled)) in &layer.settled {
                flat.rows.entry((*day, 0)).or_default().settled.insert(*id, settled.clone());
            }
            flat.drops |= layer.drops;
        }
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
