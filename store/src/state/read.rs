//! Plain reads: what is there now, memory over files.

use std::{collections::btree_map::Entry, ops::ControlFlow, sync::Arc};

use bytes::Bytes;

use super::{
    Change, QuotaNow, ReadError, State, StateError,
    codec::{self, text_key},
    layer::QuotaKey,
    ledger::{quota_key, staged_at_ms},
    meta::{Object, after_line, before_line, is_kept},
    quota::{Counter, Nodes, Period},
    tables::Table,
    view::Range,
};
use crate::model::{
    Account, AccountId, AuditRecord, Happened, Key, KeyHash, KeyId, Name, OverageRecord, Placement, Profile, Revision,
    Route, Tier, Timestamp, Token, Unpublished, Upstream, Watch,
};

/// An account, its quota's counter, the start of a period, and what is to be noticed about that.
pub(crate) type Unnoticed = (AccountId, Name, i64, Watch);

impl State {
    /// Where the slots are, in group 0; none while there is one ledger group.
    pub fn placement(&self) -> Option<Arc<Placement>> {
        self.read().live.vars.placement.clone()
    }

    /// Every object of group 0, as changes: the placement, tiers, upstreams, routes and accounts before the keys, then tokens.
    ///
    /// # Errors
    /// The disk or a stored value, as in all reads.
    pub fn load(&self, f: &mut dyn FnMut(Change)) -> Result<(), StateError> {
        if let Some(placement) = self.placement() {
            f(Change::Placement(placement));
        }
        self.load_all::<Tier>(f)?;
        self.load_all::<Upstream>(f)?;
        self.load_all::<Route>(f)?;
        self.load_all::<Account>(f)?;
        self.load_all::<Key>(f)?;
        self.load_all::<Token>(f)
    }

    fn load_all<T: Object>(&self, f: &mut dyn FnMut(Change)) -> Result<(), StateError> {
        self.each::<T>(&Range::all(), &mut |object| {
            f(T::change(Arc::new(object)));
            ControlFlow::Continue(())
        })
    }

    /// An account.
    ///
    /// # Errors
    /// The disk or a stored value.
    pub fn account(&self, id: &AccountId) -> Result<Option<Account>, ReadError> {
        self.object(id)
    }

    /// Accounts in order of id, after `after`.
    ///
    /// # Errors
    /// The disk or a stored value.
    pub fn accounts(&self, after: Option<&str>, limit: usize) -> Result<Vec<Account>, ReadError> {
        let range = after.map_or_else(Range::all, |after| Range::all().after(after.as_bytes().to_vec()));
        self.some(&range, limit)
    }

    /// A key.
    ///
    /// # Errors
    /// The disk or a stored value.
    pub fn key(&self, id: &KeyId) -> Result<Option<Key>, ReadError> {
        self.object(id)
    }

    /// A key by the hash of its secret.
    ///
    /// # Errors
    /// The disk or a stored value.
    pub fn key_by_hash(&self, hash: &KeyHash) -> Result<Option<Key>, ReadError> {
        let Some(id) = self.get(Table::KeyHashes, &hash.0)? else { return Ok(None) };
        self.object(&String::from_utf8_lossy(&id))
    }

    /// An account's keys in order of id, after `after`.
    ///
    /// # Errors
    /// The disk or a stored value.
    pub fn keys(&self, account: &AccountId, after: Option<&str>, limit: usize) -> Result<Vec<Key>, ReadError> {
        let prefix = text_key(account, &[]);
        let mut range = Range::prefix(prefix.clone());
        if let Some(after) = after {
            range = range.after(text_key(account, after.as_bytes()));
        }
        let mut ids = Vec::new();
        self.walk(Table::AccountKeys, &range, false, &mut |key, _| {
            if ids.len() < limit {
                ids.push(String::from_utf8_lossy(&key[prefix.len()..]).into_owned());
            }
            Ok(ids.len() < limit)
        })?;
        let mut keys = Vec::with_capacity(ids.len());
        for id in ids {
            // One that a later entry took away meanwhile is left out.
            keys.extend(self.object::<Key>(&id)?);
        }
        Ok(keys)
    }

    /// A tier.
    ///
    /// # Errors
    /// The disk or a stored value.
    pub fn tier(&self, name: &str) -> Result<Option<Tier>, ReadError> {
        self.object(name)
    }

    /// All tiers, by name.
    ///
    /// # Errors
    /// The disk or a stored value.
    pub fn tiers(&self) -> Result<Vec<Tier>, ReadError> {
        self.some(&Range::all(), usize::MAX)
    }

    /// A route.
    ///
    /// # Errors
    /// The disk or a stored value.
    pub fn route(&self, name: &str) -> Result<Option<Route>, ReadError> {
        self.object(name)
    }

    /// All routes, by name.
    ///
    /// # Errors
    /// The disk or a stored value.
    pub fn routes(&self) -> Result<Vec<Route>, ReadError> {
        self.some(&Range::all(), usize::MAX)
    }

    /// An upstream.
    ///
    /// # Errors
    /// The disk or a stored value.
    pub fn upstream(&self, name: &str) -> Result<Option<Upstream>, ReadError> {
        self.object(name)
    }

    /// All upstreams, by name.
    ///
    /// # Errors
    /// The disk or a stored value.
    pub fn upstreams(&self) -> Result<Vec<Upstream>, ReadError> {
        self.some(&Range::all(), usize::MAX)
    }

    /// A token.
    ///
    /// # Errors
    /// The disk or a stored value.
    pub fn token(&self, id: &str) -> Result<Option<Token>, ReadError> {
        self.object(id)
    }

    /// All admin tokens, by id.
    ///
    /// # Errors
    /// The disk or a stored value.
    pub fn tokens(&self) -> Result<Vec<Token>, ReadError> {
        self.some(&Range::all(), usize::MAX)
    }

    /// Audit lines, newest first, before one.
    ///
    /// # Errors
    /// The disk or a stored value.
    pub fn audit(&self, before: Option<(Revision, u32)>, limit: usize) -> Result<Vec<AuditRecord>, ReadError> {
        let mut lines: Vec<AuditRecord> = Vec::new();
        self.walk(Table::Audit, &before_line(before), true, &mut |_, value| {
            if lines.len() < limit {
                lines.push(codec::decode(value).map_err(|what| self.value_error(Table::Audit, what))?);
            }
            Ok(lines.len() < limit)
        })?;
        Ok(lines)
    }

    /// Audit lines as they are stored, oldest first, after one.
    ///
    /// # Errors
    /// The disk.
    pub fn audit_lines(&self, after: Option<(Revision, u32)>, limit: usize) -> Result<Vec<Bytes>, ReadError> {
        let mut lines = Vec::new();
        self.walk(Table::Audit, &after_line(after), false, &mut |_, value| {
            if lines.len() < limit {
                lines.push(Bytes::copy_from_slice(value));
            }
            Ok(lines.len() < limit)
        })?;
        Ok(lines)
    }

    /// What an account's quotas have used beyond their limits, by counter and period.
    ///
    /// # Errors
    /// The disk or a stored value.
    pub fn overages(&self, account: &AccountId) -> Result<Vec<OverageRecord>, ReadError> {
        let mut overages = Vec::new();
        self.walk(Table::Overages, &Range::prefix(text_key(account, &[])), false, &mut |_, value| {
            overages.push(codec::decode(value).map_err(|what| self.value_error(Table::Overages, what))?);
            Ok(true)
        })?;
        Ok(overages)
    }

    /// Accounts and stages whose profile's name begins so, without regard to case, by name; none when there are more than
    /// `most`.
    ///
    /// # Errors
    /// The disk.
    pub fn profiles_named(&self, prefix: &str, most: usize) -> Result<Option<Vec<(AccountId, String)>>, ReadError> {
        let mut found = Vec::new();
        let range = Range::prefix(prefix.to_lowercase().into_bytes());
        self.walk(Table::ProfileNames, &range, false, &mut |key, _| {
            let own = key.iter().position(|byte| *byte == 0).map_or(&[][..], |end| &key[end + 1..]);
            found.extend(account_and_rest(own));
            Ok(found.len() <= most)
        })?;
        Ok((found.len() <= most).then_some(found))
    }

    /// Every profile that is kept of an account, published or not.
    ///
    /// # Errors
    /// The disk.
    pub fn stages_of(&self, account: &AccountId) -> Result<Vec<Unpublished>, ReadError> {
        let prefix = text_key(account, &[]);
        let mut stages = Vec::new();
        self.walk(Table::Profiles, &Range::prefix(prefix.clone()), false, &mut |key, _| {
            let stage = String::from_utf8_lossy(&key[prefix.len()..]).into_owned();
            stages.push(Unpublished { account: account.clone(), stage });
            Ok(true)
        })?;
        Ok(stages)
    }

    /// Profiles that were staged before a time, by account and stage, after one.
    ///
    /// # Errors
    /// The disk.
    pub fn staged_before(
        &self,
        at: Timestamp,
        after: Option<&(AccountId, String)>,
        limit: usize,
    ) -> Result<Vec<(AccountId, String)>, ReadError> {
        let mut staged = Vec::new();
        let range =
            after.map_or_else(Range::all, |(account, stage)| Range::all().after(text_key(account, stage.as_bytes())));
        let until_ms = u64::try_from(at.0 / 1_000).unwrap_or(0);
        self.walk(Table::Profiles, &range, false, &mut |key, _| {
            staged.extend(account_and_rest(key).filter(|(_, stage)| staged_at_ms(stage.as_bytes()) < until_ms));
            Ok(staged.len() < limit)
        })?;
        Ok(staged)
    }

    /// What a write with this key was, if it happened within a day before `now`.
    ///
    /// # Errors
    /// The disk or a stored value.
    pub fn happened(&self, key: &[u8], now: Timestamp) -> Result<Option<Happened>, ReadError> {
        let Some(stored) = self.get(Table::Happened, key)? else { return Ok(None) };
        let happened: Happened = codec::decode(&stored).map_err(|what| self.value_error(Table::Happened, what))?;
        Ok(Some(happened).filter(|happened| is_kept(happened.at, now)))
    }

    /// The profile of an account under a stage.
    ///
    /// # Errors
    /// The disk or a stored value.
    pub fn profile(&self, account: &AccountId, stage: &str) -> Result<Option<Profile>, ReadError> {
        let found = self.get(Table::Profiles, &text_key(account, stage.as_bytes()))?;
        let decode = |bytes: bytes::Bytes| codec::decode(&bytes);
        Ok(found.map(decode).transpose().map_err(|what| self.value_error(Table::Profiles, what))?)
    }

    /// Profiles of accounts under stages, in the order asked.
    ///
    /// # Errors
    /// The disk or a stored value.
    pub fn profiles(&self, accounts: &[(AccountId, String)]) -> Result<Vec<Option<Profile>>, ReadError> {
        accounts.iter().map(|(account, stage)| self.profile(account, stage)).collect()
    }

    /// One period of an account's quota; zeros when nothing was ever reserved or used.
    ///
    /// # Errors
    /// The disk or a stored value.
    pub fn quota(&self, account: &AccountId, quota: &Name, period_start: i64) -> Result<QuotaNow, ReadError> {
        let key: QuotaKey = (account.clone(), quota.clone());
        let (known, nodes) = {
            let replica = self.read();
            (replica.live.quota(&key), replica.live.vars.nodes.clone())
        };
        let counter = match known {
            Some(counter) => counter,
            None => self.stored_counter(&key)?,
        };
        let period = counter.period(period_start).cloned().unwrap_or_default();
        Ok(QuotaNow { period_start, ..now(quota, &period, &nodes) })
    }

    /// Every period of every quota of an account.
    ///
    /// # Errors
    /// The disk or a stored value.
    pub fn quotas(&self, account: &AccountId) -> Result<Vec<QuotaNow>, ReadError> {
        let prefix = text_key(account, &[]);
        let (mut counters, main, nodes) = {
            let replica = self.read();
            (replica.live.quotas_of(account), replica.storage.read_main()?, replica.live.vars.nodes.clone())
        };
        let none = super::view::Overlay::new();
        super::view::walk(&main, Table::Quotas, &Range::prefix(prefix.clone()), none, false, &mut |key, value| {
            let quota: Name = String::from_utf8_lossy(&key[prefix.len()..]).into_owned().into();
            if let Entry::Vacant(unknown) = counters.entry(quota) {
                unknown.insert(codec::decode(value).map_err(main.error(Table::Quotas))?);
            }
            Ok(true)
        })?;
        let all = counters.iter().flat_map(|(quota, counter)| {
            counter.periods().iter().map(|period| now(quota, period, &nodes)).collect::<Vec<_>>()
        });
        Ok(all.collect())
    }

    /// Quotas' periods whose use has passed thresholds that nobody was told of, when they are watched as `watch` says: of an
    /// account, a counter and a period's start; none for what is not watched any more. Looks at every counter.
    ///
    /// # Errors
    /// The disk or a stored value.
    pub(crate) fn unnoticed(
        &self,
        watch: &dyn Fn(&AccountId, &Name, i64) -> Option<Watch>,
    ) -> Result<Vec<Unnoticed>, ReadError> {
        let (counters, main) = {
            let replica = self.read();
            (replica.live.quotas_that(|_| true), replica.storage.read_main()?)
        };
        let mut found = Vec::new();
        let mut look = |(account, counter): &QuotaKey, kept: &Counter| {
            let pending = kept.would_notice(|start| watch(account, counter, start));
            found.extend(pending.map(|(start, watch)| (account.clone(), counter.clone(), start, watch)));
        };
        let none = super::view::Overlay::new();
        super::view::walk(&main, Table::Quotas, &Range::all(), none, false, &mut |key, value| {
            let key = account_and_rest(key).map(|(account, counter)| (account, Name::from(counter)));
            if let Some(key) = key.filter(|key| !counters.contains_key(key)) {
                look(&key, &codec::decode(value).map_err(main.error(Table::Quotas))?);
            }
            Ok(true)
        })?;
        counters.iter().for_each(|(key, counter)| look(key, counter));
        Ok(found)
    }

    fn stored_counter(&self, (account, quota): &QuotaKey) -> Result<Counter, StateError> {
        let main = self.read().storage.read_main()?;
        let stored = main.get(Table::Quotas, &quota_key(account, quota))?;
        stored.map_or(Ok(Counter::default()), |bytes| codec::decode(&bytes).map_err(main.error(Table::Quotas)))
    }

    fn object<T: Object>(&self, id: &str) -> Result<Option<T>, ReadError> {
        let found = self.get(T::TABLE, id.as_bytes())?;
        let decode = |bytes: bytes::Bytes| codec::decode(&bytes);
        Ok(found.map(decode).transpose().map_err(|what| self.value_error(T::TABLE, what))?)
    }

    fn some<T: Object>(&self, range: &Range, limit: usize) -> Result<Vec<T>, ReadError> {
        let mut some = Vec::new();
        if limit > 0 {
            self.each::<T>(range, &mut |object| {
                some.push(object);
                if some.len() < limit { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
            })?;
        }
        Ok(some)
    }

    fn each<T: Object>(&self, range: &Range, f: &mut dyn FnMut(T) -> ControlFlow<()>) -> Result<(), StateError> {
        self.walk(T::TABLE, range, false, &mut |_, value| {
            let object = codec::decode(value).map_err(|what| self.value_error(T::TABLE, what))?;
            Ok(f(object).is_continue())
        })
    }
}

/// Account and stage of a profile's key.
fn account_and_rest(key: &[u8]) -> Option<(AccountId, String)> {
    let mut rest = codec::Take(key);
    let length = rest.array().map(u16::from_be_bytes)?;
    let account = rest.bytes(usize::from(length))?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    Some((AccountId::from(text(account).as_str()), text(rest.0)))
}

fn now(quota: &Name, period: &Period, nodes: &Nodes) -> QuotaNow {
    let (reserved, unsettled) = period.reserved_and_unsettled(nodes);
    QuotaNow { quota: quota.clone(), period_start: period.start, used: period.used, reserved, unsettled }
}
