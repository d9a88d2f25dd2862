//! Blocks joined into one: how entries become sealed blocks.

use std::net::IpAddr;

use super::{
    Block, BlockError, Column, JoinError,
    gather::{Gather, JoinedError},
    names::Names,
    read::{RawCharges, Strings},
    write,
};
use crate::model::{RequestId, Timestamp};

/// Every column of a block, with its names as codes: what joining needs, and no text built for it.
pub(super) struct Part {
    pub(super) names: Names,
    /// account, key, tier
    pub(super) principals: [Vec<u64>; 3],
    pub(super) principal: Vec<u32>,
    /// route, method, node, region, status, outcome, completion, settles
    pub(super) shapes: [Vec<u64>; 8],
    pub(super) shape: Vec<u32>,
    pub(super) paths: Strings,
    pub(super) path: Vec<u32>,
    pub(super) decisions: Strings,
    pub(super) decision: Vec<u32>,
    pub(super) ips: Column<Option<IpAddr>>,
    /// Distinct lists of (quota, period start), and each row's.
    pub(super) lists: Vec<Vec<(u64, i64)>>,
    pub(super) list: Vec<u32>,
    /// Of all charges, row after row.
    pub(super) units: Vec<u64>,
    pub(super) ts: Vec<Timestamp>,
    pub(super) ids: Vec<RequestId>,
    pub(super) cost: Vec<u64>,
    pub(super) bytes_in: Vec<u64>,
    pub(super) bytes_out: Vec<u64>,
    pub(super) upstream_us: Vec<u64>,
    pub(super) duration_us: Vec<u64>,
    pub(super) count: Vec<u32>,
    /// None when no row has one.
    pub(super) client_ids: Option<Strings>,
    pub(super) traces: Vec<u128>,
}

impl Part {
    fn read(bytes: &[u8]) -> Result<Self, BlockError> {
        let block = Block::open(bytes)?;
        let names = block.names()?;
        let principals = block.principal_tuples()?;
        let shapes = block.shape_tuples()?;
        let (paths, path) = block.path_texts()?;
        let (decisions, decision) = block.decision_texts()?;
        let cost = block.costs()?;
        let RawCharges { lists, codes: list, units, .. } = block.raw_charges(&cost)?;
        let upstream_us = block.upstream_us()?;
        Ok(Self {
            principal: block.principal_codes(principals[0].len())?,
            shape: block.shape_codes(shapes[0].len())?,
            ips: block.client_ips()?,
            ts: block.timestamps()?,
            ids: block.request_ids()?,
            bytes_in: block.bytes_in()?,
            bytes_out: block.bytes_out()?,
            duration_us: block.durations_over(&upstream_us)?,
            count: block.counts()?,
            client_ids: block.client_id_texts()?,
            traces: block.trace_ids()?,
            names,
            principals,
            shapes,
            paths,
            path,
            decisions,
            decision,
            lists,
            list,
            units,
            cost,
            upstream_us,
        })
    }
}

/// One block of all rows, in order: byte for byte [`super::encode`] of the same rows, but no row is built on the way.
///
/// # Errors
/// A block that does not read, by its place; or more rows or text than one block holds.
pub fn join(blocks: &[&[u8]]) -> Result<Vec<u8>, JoinError> {
    let read = |(index, bytes): (usize, &&[u8])| Part::read(bytes).map_err(|source| JoinError::Block { index, source });
    let parts: Vec<Part> = blocks.iter().enumerate().map(read).collect::<Result<_, _>>()?;
    let mut gather = Gather::for_rows(parts.iter().map(|part| part.ts.len()).sum());
    for (index, part) in parts.iter().enumerate() {
        gather.append(part).map_err(|error| match error {
            JoinedError::Block(source) => JoinError::Block { index, source },
            JoinedError::Encode(error) => JoinError::Encode(error),
        })?;
    }
    Ok(write::block(&gather)?)
}
