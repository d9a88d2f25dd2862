//! Usage as it is asked: minutes put together into steps.

use std::{collections::BTreeMap, sync::Arc};

use super::{
    ReadError, State, StateError, UsageBy, UsagePoint, UsageQuery, UsageStep,
    counting::{Records, add_up},
    replica::stored_layer,
    storage::Main,
    tables::Table,
    usage::{Cell, Dimension, Record, Split, minute_of, stored_minute, usage_key},
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

/// By start of the step (minutes since 1970) and what it is split by.
type Steps = BTreeMap<(u32, Split), Cell>;

/// Usage of an account that several groups have rows of, as [`State::usage`] of one.
///
/// # Errors
/// The disk or a stored value.
pub fn usage_over(states: &[&State], query: &UsageQuery) -> Result<Vec<UsagePoint>, ReadError> {
    let mut steps = Steps::new();
    for state in states {
        state.add_usage(query, &mut steps)?;
    }
    let is_split = query.by.is_some();
    Ok(steps.into_iter().map(|((minute, split), cell)| point(minute, is_split.then_some(&split), &cell)).collect())
}

impl State {
    /// Usage of an account, by step and then by what it is split by; hours and days are UTC's.
    ///
    /// # Errors
    /// The disk or a stored value.
    pub fn usage(&self, query: &UsageQuery) -> Result<Vec<UsagePoint>, ReadError> {
        usage_over(&[self], query)
    }

    /// Adds the sums of an account's steps.
    fn add_usage(&self, query: &UsageQuery, steps: &mut Steps) -> Result<(), ReadError> {
        let step = query.step.minutes();
        let since = stored_minute(query.since.minute()) / step * step;
        // The first minute that is not asked for.
        let until = stored_minute(query.until.0.saturating_sub(1).div_euclid(60_000_000)).saturating_add(1);
        let dimension = match query.by {
            None => Dimension::Total,
            Some(UsageBy::Status) => Dimension::Status,
            Some(UsageBy::Route) => Dimension::Route,
            Some(UsageBy::Key) => Dimension::Key,
        };
        let mut add = |minute: u32, record: Record| {
            for (split, cell) in record.0 {
                steps.entry((minute / step * step, split)).or_default().merge(&cell);
            }
        };
        let (main, recent) = self.recent_usage(&query.account)?;
        for (key, record) in recent {
            let is_asked = (since..until).contains(&minute_of(&key));
            let cells = record.0.into_iter().filter(|(split, _)| is_asked && split.dimension() == dimension);
            add(minute_of(&key), Record(cells.collect()));
        }
        let bounds = (usage_key(&query.account, since), usage_key(&query.account, until));
        if bounds.0 < bounds.1 {
            let stored = main.table(Table::Usage)?;
            let error = |what: redb::StorageError| main.error(Table::Usage)(what);
            for row in stored.range::<&[u8]>(&bounds.0[..]..&bounds.1[..]).map_err(error)? {
                let (key, value) = row.map_err(error)?;
                let record = Record::decode_one(value.value(), dimension).map_err(main.error(Table::Usage))?;
                add(minute_of(key.value()), record);
            }
        }
        Ok(())
    }

    /// The minute in which a key was last used.
    ///
    /// # Errors
    /// The disk or a stored value.
    pub fn key_last_used(&self, account: &AccountId, key: &KeyId) -> Result<Option<Timestamp>, ReadError> {
        Ok(self.keys_last_used(account, std::slice::from_ref(key))?.pop().flatten())
    }

    /// The minutes in which an account's keys were last used. One walk from the newest minute back to the last key's, at
    /// worst over all the account's minutes: ask for a page of keys at once.
    ///
    /// # Errors
    /// The disk or a stored value.
    pub fn keys_last_used(&self, account: &AccountId, keys: &[KeyId]) -> Result<Vec<Option<Timestamp>>, ReadError> {
        let mut last: BTreeMap<&KeyId, Option<u32>> = keys.iter().map(|key| (key, None)).collect();
        let mut unknown = last.len();
        let mut note = |minute: u32, record: &Record| {
            for (split, _) in &record.0 {
                if let Split::Key(key) = split
                    && let Some(used) = last.get_mut(key)
                {
                    unknown -= usize::from(used.is_none());
                    *used = (*used).max(Some(minute));
                }
            }
            unknown > 0
        };
        let (main, recent) = self.recent_usage(account)?;
        let mut goes_on = true;
        for (key, record) in recent.iter().rev() {
            goes_on &= note(minute_of(key), record);
        }
        let oldest_recent = recent.keys().next().map_or(u32::MAX, |key| minute_of(key));
        let stored = main.table(Table::Usage)?;
        let error = |what: redb::StorageError| main.error(Table::Usage)(what);
        let bounds = (usage_key(account, 0), usage_key(account, u32::MAX));
        for row in stored.range::<&[u8]>(&bounds.0[..]..=&bounds.1[..]).map_err(error)?.rev() {
            let (key, value) = row.map_err(error)?;
            let minute = minute_of(key.value());
            // Late rows can make what is in memory older than what is stored.
            if !goes_on && minute < oldest_recent {
                break;
            }
            goes_on =
                note(minute, &Record::decode_one(value.value(), Dimension::Key).map_err(main.error(Table::Usage))?);
        }
        let time = |minute: u32| Timestamp::from_unix_seconds(i64::from(minute) * 60);
        Ok(keys.iter().map(|key| last[key].map(time)).collect())
    }

    /// What memory has of an account's usage, and the main file as it was then.
    fn recent_usage(&self, account: &AccountId) -> Result<(Main, Records), StateError> {
        let (main, blocks) = {
            let replica = self.read();
            let main = replica.storage.read_main()?;
            let stored = stored_layer(&main)?;
            let layers = replica.live.layers().filter(|layer| layer.number > stored);
            (main, layers.flat_map(|layer| layer.usage.iter().map(Arc::clone)).collect::<Vec<_>>())
        };
        Ok((main, add_up(&blocks, Some(account))))
    }
}

fn point(minute: u32, split: Option<&Split>, cell: &Cell) -> UsagePoint {
    UsagePoint {
        start: Timestamp::from_unix_seconds(i64::from(minute) * 60),
        group: split.map(ToString::to_string),
        counters: cell.counters,
        p50_us: cell.latency.quantile(0.50),
        p95_us: cell.latency.quantile(0.95),
        p99_us: cell.latency.quantile(0.99),
    }
}
