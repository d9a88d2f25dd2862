//! Adding usage up: the counted columns of many blocks become records of accounts' minutes.

use std::{collections::BTreeMap, sync::Arc};

use super::{
    hash::FastMap,
    latency::{self, Latency},
    tally::Counted,
    usage::{Cell, Record, Split, stored_minute, usage_key},
};
use crate::model::{AccountId, Completion, UsageCounters};

/// Records by stored key.
pub(super) type Records = BTreeMap<Vec<u8>, Record>;

/// Numbers for values, in order of first appearance.
struct Numbers<T> {
    of: FastMap<T, u32>,
    values: Vec<T>,
}

impl<T: Clone + std::hash::Hash + Eq> Numbers<T> {
    fn new() -> Self {
        Self { of: FastMap::default(), values: Vec::new() }
    }

    fn number(&mut self, value: &T) -> u32 {
        if let Some(number) = self.of.get(value) {
            return *number;
        }
        let number = self.values.len() as u32;
        self.values.push(value.clone());
        self.of.insert(value.clone(), number);
        number
    }
}

/// The usage of some blocks; of one account alone if asked.
pub(super) fn add_up(blocks: &[Arc<Counted>], only: Option<&AccountId>) -> Records {
    let (mut accounts, mut splits) = (Numbers::<AccountId>::new(), Numbers::<Split>::new());
    let total = splits.number(&Split::Total);
    // (account, minute) and (minute's number, split), both of 32 bits.
    let (mut minutes, mut cells) = (Numbers::<u64>::new(), Numbers::<u64>::new());
    let mut sums: Vec<UsageCounters> = Vec::new();
    let mut bins: Vec<(u32, u16)> = Vec::new();
    for block in blocks {
        let principals: Vec<Option<(u32, u32)>> = (block.principals.values.iter())
            .map(|of| {
                let is_asked = only.is_none_or(|only| *only == of.account);
                is_asked.then(|| (accounts.number(&of.account), splits.number(&Split::Key(of.key_id.clone()))))
            })
            .collect();
        if principals.iter().all(Option::is_none) {
            continue;
        }
        let shapes: Vec<(u32, u32)> = (block.shapes.values.iter())
            .map(|of| (splits.number(&Split::Status(of.status)), splits.number(&Split::Route(of.route.clone()))))
            .collect();
        for (row, ts) in block.ts.iter().enumerate() {
            let Some((account, key)) = principals[block.principals.codes[row] as usize] else { continue };
            let (status, route) = shapes[block.shapes.codes[row] as usize];
            let minute = minutes.number(&(u64::from(account) << 32 | u64::from(stored_minute(ts.minute()))));
            let of = block.shapes.get(row);
            let bin = latency::bin(block.durations_us[row]);
            for split in [total, status, route, key] {
                let cell = cells.number(&(u64::from(minute) << 32 | u64::from(split)));
                if cell as usize == sums.len() {
                    sums.push(UsageCounters::default());
                }
                sums[cell as usize].add_record(
                    block.counts[row],
                    (of.settles, of.status, of.outcome, of.completion),
                    (block.bytes_in[row], block.bytes_out[row], block.costs[row]),
                );
                if of.completion != Completion::Open {
                    bins.push((cell, bin));
                }
            }
        }
    }
    let latencies = latencies(sums.len(), &bins);
    // Sorted by minute and then by split, whose rank is found once.
    let mut ranks: Vec<(u32, &Split)> = (0..).zip(&splits.values).collect();
    ranks.sort_unstable_by_key(|(_, split)| *split);
    let mut rank_of = vec![0u32; ranks.len()];
    for (rank, (split, _)) in (0..).zip(&ranks) {
        rank_of[*split as usize] = rank;
    }
    let mut order: Vec<(u64, u32)> = (0..)
        .zip(&cells.values)
        .map(|(cell, key)| (key & !u64::from(u32::MAX) | u64::from(rank_of[*key as u32 as usize]), cell))
        .collect();
    order.sort_unstable();
    let mut records = Records::new();
    let mut latencies: Vec<Option<Latency>> = latencies.into_iter().map(Some).collect();
    for minute in order.chunk_by(|(a, _), (b, _)| a >> 32 == b >> 32) {
        let cell = |&(key, cell): &(u64, u32)| {
            let latency = latencies[cell as usize].take().expect("each cell is in the order once");
            (ranks[key as u32 as usize].1.clone(), Cell { counters: sums[cell as usize], latency })
        };
        let record = Record(minute.iter().map(cell).collect());
        let of = minutes.values[(minute[0].0 >> 32) as usize];
        records.insert(usage_key(&accounts.values[(of >> 32) as usize], of as u32), record);
    }
    records
}

/// Each cell's latencies, by counting sort.
fn latencies(cells: usize, bins: &[(u32, u16)]) -> Vec<Latency> {
    let mut ends = vec![0usize; cells];
    for (cell, _) in bins {
        ends[*cell as usize] += 1;
    }
    let mut sum = 0;
    for end in &mut ends {
        sum += *end;
        *end = sum;
    }
    let mut sorted = vec![0u16; bins.len()];
    let mut places = ends.clone();
    for (cell, bin) in bins {
        places[*cell as usize] -= 1;
        sorted[places[*cell as usize]] = *bin;
    }
    // Going down, each place has come to its cell's start.
    places.iter().zip(&ends).map(|(start, end)| Latency::of(&mut sorted[*start..*end])).collect()
}
