//! What a row block adds, found before the lock is taken: a pure function of the block's bytes.

use super::{
    block::{Block, BlockError, Charges, Column, Principal, Shape, SharedTexts},
    hash::FastMap,
    settled::Settled,
};
use crate::{
    model::{AccountId, Name, RequestId, Timestamp},
    platform::planted,
};

/// What a block adds to usage and quotas, and what its index says.
#[derive(Debug)]
pub(super) struct Tally {
    pub(super) rows: u32,
    /// The newest arrival of all records: names the day.
    pub(super) newest: Timestamp,
    /// Bounds of the arrivals of rows (records that settle another one are not rows of their own); empty when `min > max`.
    pub(super) min_ts: Timestamp,
    pub(super) max_ts: Timestamp,
    pub(super) counted: Counted,
    /// Account, quota, start of period, units.
    pub(super) charges: Vec<(AccountId, Name, i64, u64)>,
    /// By number of the record within the block.
    pub(super) settled: Vec<(u32, RequestId, Timestamp, Settled)>,
}

/// The columns of a block that usage counts: kept as they are until a checkpoint adds many blocks up at once, which costs
/// each row a tenth of adding up block by block.
#[derive(Debug)]
pub(super) struct Counted {
    pub(super) principals: Column<Principal>,
    pub(super) shapes: Column<Shape>,
    pub(super) ts: Vec<Timestamp>,
    pub(super) counts: Vec<u32>,
    pub(super) costs: Vec<u64>,
    pub(super) bytes_in: Vec<u64>,
    pub(super) bytes_out: Vec<u64>,
    pub(super) durations_us: Vec<u64>,
}

/// Bytes of memory that a row's counted columns take.
pub(super) const COUNTED_BYTES: u64 = 52;

impl Tally {
    /// Reads the columns that count.
    ///
    /// # Errors
    /// Bytes that are no block, or another version's.
    pub(super) fn of(bytes: &[u8], texts: &mut SharedTexts) -> Result<Self, BlockError> {
        let block = Block::open(bytes)?;
        let (names, costs) = (block.names()?, block.costs()?);
        let all_charges = block.charges_over(&names, &costs, texts)?;
        let mut counted = Counted {
            principals: block.principals_over(&names, texts)?,
            shapes: block.shapes_over(&names, texts)?,
            ts: block.timestamps()?,
            counts: block.counts()?,
            costs,
            bytes_in: block.bytes_in()?,
            bytes_out: block.bytes_out()?,
            durations_us: block.durations_us()?,
        };
        if planted!(MiscountsUsage)
            && let Some(first) = counted.counts.first_mut()
        {
            *first += 1;
        }
        let [accounts, ..] = block.principal_tuples()?;
        let charges = charges(&all_charges, &accounts, &counted.principals);
        let (mut min_ts, mut max_ts, mut settled) = (block.min_ts(), block.max_ts(), Vec::new());
        if counted.shapes.values.iter().any(|shape| shape.settles) {
            settled = settling(&block, &counted, &all_charges)?;
            let rows = counted.ts.iter().zip(counted.shapes.iter()).filter(|(_, shape)| !shape.settles);
            (min_ts, max_ts) = rows
                .fold((Timestamp(i64::MAX), Timestamp(i64::MIN)), |(min, max), (ts, _)| (min.min(*ts), max.max(*ts)));
        }
        Ok(Self { rows: block.rows() as u32, newest: block.max_ts(), min_ts, max_ts, counted, charges, settled })
    }
}

fn settling(
    block: &Block<'_>,
    counted: &Counted,
    charges: &Charges,
) -> Result<Vec<(u32, RequestId, Timestamp, Settled)>, BlockError> {
    let ids = block.request_ids()?;
    let records = (0..block.rows()).filter(|record| counted.shapes.get(*record).settles);
    Ok(records
        .map(|record| {
            let settled = Settled {
                seq: 0,
                bytes_out: counted.bytes_out[record],
                duration_us: counted.durations_us[record],
                cost: counted.costs[record],
                completion: counted.shapes.get(record).completion as u8,
                charges: charges.of(record).map(|(quota, start, units)| (quota.clone(), start, units)).collect(),
            };
            (record as u32, ids[record], counted.ts[record], settled)
        })
        .collect())
}

/// The block's charges, summed by account, list of quotas and place in it, in order of their first rows. `accounts`: each
/// principal's account, as a number.
fn charges(charges: &Charges, accounts: &[u64], principals: &Column<Principal>) -> Vec<(AccountId, Name, i64, u64)> {
    if charges.units.is_empty() {
        return Vec::new();
    }
    let mut places: FastMap<(u64, u32, u32), u32> = FastMap::default();
    let mut sums: Vec<(AccountId, Name, i64, u64)> = Vec::new();
    for (row, &code) in principals.codes.iter().enumerate() {
        let list = charges.lists.codes[row];
        for (place, (quota, start, units)) in (0..).zip(charges.of(row)) {
            let at = *places.entry((accounts[code as usize], list, place)).or_insert_with(|| {
                sums.push((principals.values[code as usize].account.clone(), quota.clone(), start, 0));
                sums.len() as u32 - 1
            });
            let sum = &mut sums[at as usize].3;
            *sum = sum.saturating_add(units);
        }
    }
    sums
}
