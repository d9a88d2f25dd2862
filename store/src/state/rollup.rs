//! Usage as it is asked: minutes put together into steps.

use std::collections::BTreeMap;

use super::{
    ReadError, State, UsageBy, UsagePoint, UsageQuery, UsageStep,
    replica::stored_layer,
    tables::Table,
    usage::{Cell, Split, dimension_key, split_and_minute, split_key, stored_minute},
};
use crate::model::{AccountId, KeyId, Timestamp};

impl UsageStep {
    fn minutes(self) -> u32 {
        match self {
            Self::Minute => 1,
            Self::Hour => 60,
            Self::Day => 24 * 60,
        }
    }
}

/// Cells by start of the step and stored text of the split.
type Steps = BTreeMap<(u32, Vec<u8>), Cell>;

impl State {
    /// Usage of an account, by step and then by what it is split by; hours and days are UTC's.
    ///
    /// # Errors
    /// The disk or a stored value.
    pub fn usage(&self, query: &UsageQuery) -> Result<Vec<UsagePoint>, ReadError> {
        let step = query.step.minutes();
        let since = stored_minute(query.since.minute()) / step * step;
        // The first minute that is not asked for.
        let until = stored_minute(query.until.0.saturating_sub(1).div_euclid(60_000_000)).saturating_add(1);
        let dimension = match query.by {
            None => 0,
            Some(UsageBy::Route) => 1,
            Some(UsageBy::Key) => 2,
            Some(UsageBy::Status) => 3,
        };
        let prefix = dimension_key(&query.account, dimension);
        let mut steps = Steps::new();
        let mut add = |split: &[u8], minute: u32, cell: &Cell| {
            let step = steps.entry((minute / step * step, split.to_vec())).or_default();
            step.merge(cell);
        };
        let main = {
            let replica = self.read();
            let main = replica.storage.read_main()?;
            let stored = stored_layer(&main)?;
            for layer in replica.live.layers().filter(|layer| layer.number > stored) {
                for (minute, cells) in layer.usage.of(&query.account) {
                    let minute = *minute;
                    for (split, cell) in cells.iter().filter(|(split, _)| split.number() == dimension) {
                        if (since..until).contains(&minute) {
                            let key = split_key(&query.account, split);
                            add(&key[prefix.len() + 2..], minute, cell);
                        }
                    }
                }
            }
            main
        };
        let error = |what: redb::StorageError| main.error(Table::Usage)(what);
        let table = main.table(Table::Usage)?;
        // Each split's minutes lie together, so the walk leaps from the end of one's interval to the next one's start.
        let mut from = prefix.clone();
        loop {
            let next = table.range::<&[u8]>(&from[..]..).map_err(error)?.next().transpose().map_err(error)?;
            let Some(split) = next.as_ref().and_then(|(key, _)| split_and_minute(key.value(), &prefix)) else { break };
            let key = |minute: u32| [&prefix[..], &text(split.0), &minute.to_be_bytes()].concat();
            for row in table.range::<&[u8]>(&key(since)[..]..&key(until)[..]).map_err(error)? {
                let (stored, value) = row.map_err(error)?;
                let (_, minute) = split_and_minute(stored.value(), &prefix).unwrap_or((&[], 0));
                add(split.0, minute, &Cell::decode(value.value()).map_err(main.error(Table::Usage))?);
            }
            from = key(u32::MAX);
            from.push(0);
        }
        Ok(steps.into_iter().map(|((minute, split), cell)| point(minute, query.by, &split, &cell)).collect())
    }

    /// The minute in which a key was last used.
    ///
    /// # Errors
    /// The disk or a stored value.
    pub fn key_last_used(&self, account: &AccountId, key: &KeyId) -> Result<Option<Timestamp>, ReadError> {
        let split = Split::Key(key.clone());
        let (newest, main) = {
            let replica = self.read();
            let minutes = replica.live.layers().flat_map(|layer| layer.usage.of(account));
            let newest = minutes.filter(|(_, cells)| cells.contains_key(&split)).map(|(minute, _)| *minute).max();
            (newest, replica.storage.read_main()?)
        };
        let prefix = split_key(account, &split);
        let end = [&prefix[..], &u32::MAX.to_be_bytes()].concat();
        let error = |what: redb::StorageError| main.error(Table::Usage)(what);
        let last = main.table(Table::Usage)?.range::<&[u8]>(&prefix[..]..=&end[..]).map_err(error)?.next_back();
        let stored = last.transpose().map_err(error)?.and_then(|(key, _)| key.value().last_chunk().copied());
        let minute = newest.max(stored.map(u32::from_be_bytes));
        Ok(minute.map(|minute| Timestamp::from_unix_seconds(i64::from(minute) * 60)))
    }
}

/// A split's text as keys hold it.
fn text(split: &[u8]) -> Vec<u8> {
    let mut text = Vec::with_capacity(2 + split.len());
    super::codec::put_text(&mut text, split);
    text
}

fn point(minute: u32, by: Option<UsageBy>, split: &[u8], cell: &Cell) -> UsagePoint {
    let group = by.map(|by| match (by, <[u8; 2]>::try_from(split)) {
        (UsageBy::Status, Ok(status)) => u16::from_be_bytes(status).to_string(),
        _ => String::from_utf8_lossy(split).into_owned(),
    });
    UsagePoint {
        start: Timestamp::from_unix_seconds(i64::from(minute) * 60),
        group,
        counters: cell.counters,
        p50_us: cell.latency.quantile(0.50),
        p95_us: cell.latency.quantile(0.95),
        p99_us: cell.latency.quantile(0.99),
    }
}
