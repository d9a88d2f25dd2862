//! What a row block adds, found before the lock is taken: a pure function of the block's bytes.

use super::{
    block::{Block, BlockError},
    hash::FastMap,
    latency::{self, Latency},
    settled::Settled,
    usage::{Cell, Split, stored_minute},
};
use crate::model::{AccountId, Completion, Name, RequestId, Timestamp, UsageCounters};

/// What a block adds to usage and quotas, and what its index says.
#[derive(Debug, Default)]
pub(super) struct Tally {
    pub(super) rows: u32,
    /// The newest arrival of all records: names the day.
    pub(super) newest: Timestamp,
    /// Bounds of the arrivals of rows (records that settle another one are not rows of their own); empty when `min > max`.
    pub(super) min_ts: Timestamp,
    pub(super) max_ts: Timestamp,
    /// By account and minute.
    pub(super) usage: Vec<(AccountId, u32, Vec<(Split, Cell)>)>,
    /// Account, quota, start of period, units.
    pub(super) charges: Vec<(AccountId, Name, i64, u64)>,
    /// By number of the record within the block.
    pub(super) settled: Vec<(u32, RequestId, Timestamp, Settled)>,
}

/// Sums of the rows that have the same principal, shape and minute.
#[derive(Default)]
struct Same {
    principal: u32,
    shape: u32,
    minute: u32,
    counters: UsageCounters,
    bins: Vec<u16>,
}

impl Tally {
    /// Reads the columns that count.
    ///
    /// # Errors
    /// Bytes that are no block, or another version's.
    pub(super) fn of(bytes: &[u8]) -> Result<Self, BlockError> {
        let block = Block::open(bytes)?;
        let (principals, shapes, ts) = (block.principals()?, block.shapes()?, block.timestamps()?);
        let (counts, costs) = (block.counts()?, block.costs()?);
        let (bytes_in, bytes_out, durations) = (block.bytes_in()?, block.bytes_out()?, block.durations_us()?);
        let (mut min_ts, mut max_ts) = (Timestamp(i64::MAX), Timestamp(i64::MIN));
        let mut places: FastMap<(u64, u32), u32> = FastMap::default();
        let mut sames: Vec<Same> = Vec::new();
        for row in 0..block.rows() {
            let (principal, shape, at) = (principals.codes[row], shapes.codes[row], ts[row]);
            let minute = stored_minute(at.minute());
            let key = (u64::from(principal) << 32 | u64::from(shape), minute);
            let place = *places.entry(key).or_insert_with(|| {
                sames.push(Same { principal, shape, minute, ..Same::default() });
                sames.len() as u32 - 1
            });
            let (same, of) = (&mut sames[place as usize], &shapes.values[shape as usize]);
            same.counters.add_record(
                counts[row],
                (of.settles, of.status, of.outcome, of.completion),
                (bytes_in[row], bytes_out[row], costs[row]),
            );
            if of.completion != Completion::Open {
                same.bins.push(latency::bin(durations[row]));
            }
            if !of.settles {
                min_ts = min_ts.min(at);
                max_ts = max_ts.max(at);
            }
        }
        let mut tally = Self {
            rows: block.rows() as u32,
            newest: block.max_ts(),
            min_ts,
            max_ts,
            usage: Vec::new(),
            charges: charges(&block, &principals.values, &principals.codes)?,
            settled: Vec::new(),
        };
        if shapes.values.iter().any(|shape| shape.settles) {
            let (ids, charges) = (block.request_ids()?, block.charges()?);
            for row in (0..block.rows()).filter(|row| shapes.get(*row).settles) {
                let settled = Settled {
                    seq: 0,
                    bytes_out: bytes_out[row],
                    duration_us: durations[row],
                    cost: costs[row],
                    completion: shapes.get(row).completion as u8,
                    charges: charges.of(row).map(|(quota, start, units)| (quota.clone(), start, units)).collect(),
                };
                tally.settled.push((row as u32, ids[row], ts[row], settled));
            }
        }
        // The order in which rows come, and so the same everywhere; but nothing below depends on it.
        let mut accounts: FastMap<(AccountId, u32), u32> = FastMap::default();
        let mut cells: FastMap<(u32, Split), u32> = FastMap::default();
        let mut bins: Vec<Vec<(UsageCounters, Vec<u16>)>> = Vec::new();
        let mut splits: Vec<Vec<Split>> = Vec::new();
        for same in &sames {
            let (principal, shape) = (&principals.values[same.principal as usize], &shapes.values[same.shape as usize]);
            let account = *accounts.entry((principal.account.clone(), same.minute)).or_insert_with(|| {
                tally.usage.push((principal.account.clone(), same.minute, Vec::new()));
                bins.push(Vec::new());
                splits.push(Vec::new());
                tally.usage.len() as u32 - 1
            });
            let of = [
                Split::Total,
                Split::Route(shape.route.clone()),
                Split::Key(principal.key_id.clone()),
                Split::Status(shape.status),
            ];
            for split in of {
                let (sums, names) = (&mut bins[account as usize], &mut splits[account as usize]);
                let place = *cells.entry((account, split)).or_insert_with_key(|(_, split)| {
                    sums.push((UsageCounters::default(), Vec::new()));
                    names.push(split.clone());
                    sums.len() as u32 - 1
                });
                let (counters, all) = &mut sums[place as usize];
                counters.merge(&same.counters);
                all.extend_from_slice(&same.bins);
            }
        }
        for ((account, sums), names) in tally.usage.iter_mut().zip(bins).zip(splits) {
            let cell = |(counters, mut bins): (UsageCounters, Vec<u16>)| Cell { counters, latency: Latency::of(&mut bins) };
            account.2 = names.into_iter().zip(sums.into_iter().map(cell)).collect();
        }
        Ok(tally)
    }
}

/// The block's charges, summed by account, quota and period.
fn charges(
    block: &Block<'_>,
    principals: &[super::block::Principal],
    codes: &[u32],
) -> Result<Vec<(AccountId, Name, i64, u64)>, BlockError> {
    let charges = block.charges()?;
    let mut sums: FastMap<(AccountId, Name, i64), u64> = FastMap::default();
    if charges.units.is_empty() {
        return Ok(Vec::new());
    }
    // By codes first: rows of one key mostly charge the same quotas.
    let mut by_code: FastMap<(u32, u32), Vec<u64>> = FastMap::default();
    for (row, &code) in codes.iter().enumerate() {
        let list = charges.lists.codes[row];
        let length = charges.lists.values[list as usize].len();
        if length == 0 {
            continue;
        }
        let units = by_code.entry((code, list)).or_insert_with(|| vec![0; length]);
        for (sum, (_, _, more)) in units.iter_mut().zip(charges.of(row)) {
            *sum = sum.saturating_add(more);
        }
    }
    for ((principal, list), units) in by_code {
        for ((quota, start), units) in charges.lists.values[list as usize].iter().zip(units) {
            let key = (principals[principal as usize].account.clone(), quota.clone(), *start);
            let sum = sums.entry(key).or_default();
            *sum = sum.saturating_add(units);
        }
    }
    let mut sums: Vec<_> = sums.into_iter().map(|((account, quota, start), units)| (account, quota, start, units)).collect();
    sums.sort_unstable();
    Ok(sums)
}
