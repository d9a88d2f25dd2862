//! Applying a ledger's commands. None of its own is ever refused: what was committed has been answered for.

use std::sync::Arc;

use bytes::Bytes;

use super::{
    State, StateError,
    codec::{self, text_key},
    index::{BlockKey, BlockMeta},
    layer::{Live, QuotaKey},
    quota::{Counter, Noticed, Period},
    settled,
    tables::Table,
    tally::{COUNTED_BYTES, Tally},
    view::Range,
};
use crate::model::{
    AccountId, Alert, Carried, ColdCommand, CommandError, LogId, Name, OverageRecord, Profile, Reply, Reservation,
    RowBatch, Staged, Timestamp, Unpublished,
};

/// Retention class of rows whose tier does not name its days; the others' classes are their days.
pub(super) const DEFAULT_CLASS: u16 = 0;
/// Class of the files that settling records are in: they stay as long as any class's rows of their day.
pub(super) const SETTLED_CLASS: u16 = u16::MAX;
/// Days that alerts are kept beyond the rows of the default class.
const ALERTS_KEPT_DAYS: i32 = 60;
/// Days that overages are kept beyond the rows of the default class: bills are disputed late.
const OVERAGES_KEPT_DAYS: i32 = 400;
/// How long a profile that was staged and is not published stays: longer than a change takes from its first read to its
/// publishing (two deadlines), so that changes of one account at the same time never drop each other's.
const STAGE_KEPT_MS: u64 = 30_000;

impl State {
    /// A batch of rows: kept once, counted once.
    pub(super) fn apply_rows(&self, id: LogId, batch: &RowBatch) -> Result<Reply, StateError> {
        let RowBatch { node, incarnation, batch: number, class, ref block, .. } = *batch;
        if self.read().live.vars.landed.contains(node, incarnation, number) {
            return Ok(self.step(id, 0, |_| Reply::Rows(false)));
        }
        let tally = Tally::of(block, &mut self.texts.lock().expect("no panic while locked"));
        let tally = tally.map_err(|source| StateError::Block { index: id.index, source })?;
        self.know_quotas(tally.charges.iter().map(|(account, quota, ..)| (account, quota)))?;
        let (bytes, counted) = (block.len() as u64, Arc::new(tally.counted));
        Ok(self.step(id, bytes, |live| {
            live.vars.landed.insert(node, incarnation, number);
            let mut alerts = 0u32;
            for (account, quota, start, units) in tally.charges {
                let key = (account, quota);
                let (counter, vars) = live.change_quota(&key);
                let noticed = counter.charge(&vars.nodes, node, incarnation, start, units);
                if !noticed.thresholds.is_empty() || noticed.is_over {
                    let period = counter.period(start).cloned().unwrap_or_default();
                    keep_noticed(live, id.index, &mut alerts, tally.newest, (&key, &period, &noticed));
                }
            }
            live.active.usage.push(counted);
            live.active.bytes += u64::from(tally.rows) * COUNTED_BYTES;
            let first_seq = live.vars.next_seq;
            live.vars.next_seq += u64::from(tally.rows);
            for (record, request, ts, mut settled) in tally.settled {
                let day = settled::day_of(request, ts);
                if !live.vars.is_dropped((day, SETTLED_CLASS)) {
                    settled.seq = first_seq + u64::from(record);
                    live.active.settled.insert(request, (day, settled));
                }
            }
            let day = settled::day(tally.newest.unix_seconds());
            let key = BlockKey { at: id.index, day, class };
            let meta = BlockMeta {
                first: id.index,
                last: id.index,
                rows: tally.rows,
                min_ts: tally.min_ts,
                max_ts: tally.max_ts,
                bytes: bytes as u32,
                sealed: false,
                runs: vec![(first_seq, tally.rows)],
                newest: tally.newest,
            };
            put_block(live, key, meta);
            live.active.blocks.insert(key, block.clone());
            Reply::Rows(true)
        }))
    }

    /// Everything that is not hot.
    pub(super) fn apply_ledger(&self, id: LogId, bytes: u64, command: ColdCommand) -> Result<Reply, StateError> {
        match command {
            ColdCommand::Meta(_) | ColdCommand::Place { .. } | ColdCommand::Move { .. } => {
                Ok(self.step(id, bytes, |_| Reply::Refused(CommandError::WrongGroup)))
            }
            ColdCommand::StageProfile { account, stage, published, profile } => {
                self.stage_profiles(id, bytes, &[Staged { account, stage, published, profile }])
            }
            ColdCommand::StageProfiles(staged) => self.stage_profiles(id, bytes, &staged),
            ColdCommand::DropProfiles(gone) => self.drop_profiles(id, bytes, &gone),
            ColdCommand::Reserve(demands) => self.reserve(id, bytes, &demands),
            ColdCommand::TakeOver(carried) => self.take_over(id, bytes, &carried),
            ColdCommand::NodeStarted { node, incarnation } => Ok(self.step(id, bytes, |live| {
                let newest = live.vars.nodes.entry(node).or_default();
                *newest = incarnation.max(*newest);
                live.vars.landed.begin(node, incarnation);
                Reply::Done
            })),
            ColdCommand::Seal { from, to } => self.seal(id, from, to),
            ColdCommand::DropBefore { day, class } => {
                let old = if class == DEFAULT_CLASS { self.old_notices(day)? } else { Vec::new() };
                Ok(self.step(id, bytes, |live| {
                    for (table, key) in old {
                        live.put(table, key, None);
                    }
                    let floor = live.vars.floors.entry(class).or_insert(day);
                    *floor = day.max(*floor);
                    let gone: Vec<BlockKey> = live
                        .index
                        .iter()
                        .map(|(key, _)| key)
                        .filter(|key| key.class == class && key.day < day)
                        .collect();
                    for key in gone {
                        drop_block(live, key);
                    }
                    live.active.settled.retain(|_, (of, _)| class != SETTLED_CLASS || *of >= day);
                    live.active.drops = true;
                    Reply::Done
                }))
            }
        }
    }

    /// Alerts and overages that are kept no longer, when rows of days before `day` are dropped.
    fn old_notices(&self, day: i32) -> Result<Vec<(Table, Vec<u8>)>, StateError> {
        let mut old = Vec::new();
        let floor = |days: i32| i64::from(day.saturating_sub(days)) * 86_400;
        let (alerts_before, overages_before) = (floor(ALERTS_KEPT_DAYS), floor(OVERAGES_KEPT_DAYS));
        self.walk(Table::Alerts, &Range::prefix(Vec::new()), false, &mut |key, value| {
            let alert: Alert = codec::decode(value).map_err(|what| self.value_error(Table::Alerts, what))?;
            // Alerts lie in order of time, but for clocks.
            let is_old = alert.at.unix_seconds() < alerts_before;
            if is_old {
                old.push((Table::Alerts, key.to_vec()));
            }
            Ok(is_old)
        })?;
        self.walk(Table::Overages, &Range::prefix(Vec::new()), false, &mut |key, _| {
            let start = key.last_chunk().map_or(i64::MAX, |start| i64::from_be_bytes(*start));
            if start < overages_before {
                old.push((Table::Overages, key.to_vec()));
            }
            Ok(true)
        })?;
        Ok(old)
    }

    fn reserve(&self, id: LogId, bytes: u64, demands: &[Reservation]) -> Result<Reply, StateError> {
        self.know_quotas(demands.iter().map(|demand| (&demand.account, &demand.quota)))?;
        Ok(self.step(id, bytes, |live| {
            let mut alerts = 0;
            let grant = |demand: &Reservation| {
                let key = (demand.account.clone(), demand.quota.clone());
                let (counter, vars) = live.change_quota(&key);
                let granted = counter.reserve(&vars.nodes, demand);
                if let Some(at) = demand.look_at
                    && let Some((period, thresholds)) = counter.look(demand.period_start)
                {
                    // What is above a lowered limit was used before: no overage.
                    let (period, noticed) = (period.clone(), Noticed { thresholds, is_over: false });
                    keep_noticed(live, id.index, &mut alerts, at, (&key, &period, &noticed));
                }
                granted
            };
            Reply::Granted(demands.iter().map(grant).collect())
        }))
    }

    fn take_over(&self, id: LogId, bytes: u64, carried: &[Carried]) -> Result<Reply, StateError> {
        self.know_quotas(carried.iter().map(|carried| (&carried.account, &carried.quota)))?;
        Ok(self.step(id, bytes, |live| {
            for one in carried {
                let (counter, _) = live.change_quota(&(one.account.clone(), one.quota.clone()));
                counter.take_over(one);
            }
            Reply::Done
        }))
    }

    /// Keeps profiles, and drops those of their accounts that are neither new nor published. One that was staged a moment
    /// before stays too: its writer may be about to publish it, and what is published now is that writer's own knowledge.
    fn stage_profiles(&self, id: LogId, bytes: u64, staged: &[Staged]) -> Result<Reply, StateError> {
        let mut gone = Vec::new();
        for Staged { account, stage, published, .. } in staged {
            let old = staged_at_ms(stage.as_bytes()).saturating_sub(STAGE_KEPT_MS);
            let prefix = text_key(account, &[]);
            self.walk(Table::Profiles, &Range::prefix(prefix.clone()), false, &mut |key, value| {
                let kept = &key[prefix.len()..];
                if kept != stage.as_bytes() && kept != published.as_bytes() && staged_at_ms(kept) <= old {
                    let profile: Profile =
                        codec::decode(value).map_err(|what| self.value_error(Table::Profiles, what))?;
                    gone.push((Table::ProfileNames, name_key(&profile, key)));
                    gone.push((Table::Profiles, key.to_vec()));
                }
                Ok(true)
            })?;
        }
        Ok(self.step(id, bytes, |live| {
            for (table, key) in gone {
                live.put(table, key, None);
            }
            for Staged { account, stage, profile, .. } in staged {
                let key = text_key(account, stage.as_bytes());
                live.put(Table::ProfileNames, name_key(profile, &key), Some(Bytes::new()));
                live.put(Table::Profiles, key, Some(codec::encode(profile).into()));
            }
            Reply::Done
        }))
    }

    fn drop_profiles(&self, id: LogId, bytes: u64, unpublished: &[Unpublished]) -> Result<Reply, StateError> {
        let mut gone = Vec::with_capacity(2 * unpublished.len());
        for Unpublished { account, stage } in unpublished {
            let key = text_key(account, stage.as_bytes());
            if let Some(value) = self.get(Table::Profiles, &key)? {
                let profile: Profile = codec::decode(&value).map_err(|what| self.value_error(Table::Profiles, what))?;
                gone.push((Table::ProfileNames, name_key(&profile, &key)));
                gone.push((Table::Profiles, key));
            }
        }
        Ok(self.step(id, bytes, |live| {
            for (table, key) in gone {
                live.put(table, key, None);
            }
            Reply::Done
        }))
    }

    /// Takes the counters of some quotas to hand, reading those that memory does not have.
    fn know_quotas<'q>(&self, quotas: impl Iterator<Item = (&'q AccountId, &'q Name)>) -> Result<(), StateError> {
        let (mut known, mut unknown): (Vec<(QuotaKey, Counter)>, Vec<QuotaKey>) = (Vec::new(), Vec::new());
        let main = {
            let replica = self.read();
            for (account, quota) in quotas {
                let key = (account.clone(), quota.clone());
                if !replica.live.has_quota(&key) {
                    match replica.live.quota(&key) {
                        Some(counter) => known.push((key, counter)),
                        None => unknown.push(key),
                    }
                }
            }
            if known.is_empty() && unknown.is_empty() {
                return Ok(());
            }
            replica.storage.read_main()?
        };
        let table = main.table(Table::Quotas)?;
        for key in unknown {
            let stored = table.get(&quota_key(&key.0, &key.1)[..]).map_err(main.error(Table::Quotas))?;
            let counter = match stored {
                Some(value) => codec::decode(value.value()).map_err(main.error(Table::Quotas))?,
                None => Counter::default(),
            };
            known.push((key, counter));
        }
        let mut replica = self.write();
        for (key, counter) in known {
            replica.live.know_quota(key, counter);
        }
        Ok(())
    }
}

/// When a stage was made, by its ULID; 0 for one that is none.
pub(super) fn staged_at_ms(stage: &[u8]) -> u64 {
    let text = std::str::from_utf8(stage).unwrap_or_default();
    ulid::Ulid::from_string(text).map_or(0, |ulid| ulid.timestamp_ms())
}

/// Keeps what a charge has made noticeable.
fn keep_noticed(
    live: &mut Live,
    index: u64,
    alerts: &mut u32,
    at: Timestamp,
    ((account, counter), period, noticed): (&QuotaKey, &Period, &Noticed),
) {
    let Some(watch) = &period.watch else { return };
    for threshold in &noticed.thresholds {
        let alert = Alert {
            at,
            account: account.clone(),
            counter: counter.clone(),
            period_start: period.start,
            period_end: watch.period_end,
            threshold: *threshold,
            limit: watch.limit,
            used: period.used,
            shadow: watch.shadow,
        };
        live.put(Table::Alerts, alert_key(index, *alerts), Some(codec::encode(&alert).into()));
        *alerts += 1;
    }
    if noticed.is_over {
        let overage = OverageRecord {
            counter: counter.clone(),
            period_start: period.start,
            period_end: watch.period_end,
            limit: watch.limit,
            used: period.used,
            shadow: watch.shadow,
        };
        let mut key = text_key(account, counter.as_bytes());
        // The counter's name ends where eight bytes are left.
        key.extend_from_slice(&period.start.to_be_bytes());
        live.put(Table::Overages, key, Some(codec::encode(&overage).into()));
    }
}

/// Where a profile is found by its name: the name without regard to case, 0, the profile's own key. Names have no control
/// characters, so the 0 ends them.
pub(super) fn name_key(profile: &Profile, key: &[u8]) -> Vec<u8> {
    [profile.name.to_lowercase().as_bytes(), &[0], key].concat()
}

/// The stored key of an alert: in order of time.
pub(super) fn alert_key(index: u64, number: u32) -> Vec<u8> {
    [&index.to_be_bytes()[..], &number.to_be_bytes()].concat()
}

/// The stored key of a quota's counter.
pub(super) fn quota_key(account: &AccountId, quota: &Name) -> Vec<u8> {
    text_key(account, quota.as_bytes())
}

pub(super) fn put_block(live: &mut Live, key: BlockKey, meta: BlockMeta) {
    live.put(Table::Blocks, key.to_bytes().to_vec(), Some(codec::encode(&meta).into()));
    live.index.insert(key, Arc::new(meta));
}

/// Takes a block out of the index; its bytes in memory go at once, those in a file at a later checkpoint.
pub(super) fn drop_block(live: &mut Live, key: BlockKey) {
    live.put(Table::Blocks, key.to_bytes().to_vec(), None);
    live.index.remove(key);
    live.active.blocks.remove(&key);
}
