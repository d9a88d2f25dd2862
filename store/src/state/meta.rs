//! Applying changes of metadata: every operation is checked against what the ones before it left, and all happen or none.

mod object;
mod once;
mod trail;

use std::sync::Arc;

use bytes::Bytes;

#[cfg(test)]
pub(super) use self::once::COUNT;
use self::trail::Trail;
pub(super) use self::{
    object::Object,
    once::is_kept,
    trail::{after_line, before_line},
};
use super::{
    Change, StateError,
    codec::{self, text_key},
    layer::{Live, Puts},
    storage::Main,
    tables::Table,
    view::{self, Range},
};
use crate::model::{
    Account, CommandError, Expect, Key, KeyState, MetaOp, MetaWrite, Name, Revision, Route, Tier, Token, Upstream,
    WriteConflict,
};

/// Why a write stops: it is refused, the same everywhere, or this replica's disk fails.
pub(super) enum Stop {
    Conflict(WriteConflict),
    Error(StateError),
}

impl From<StateError> for Stop {
    fn from(error: StateError) -> Self {
        Self::Error(error)
    }
}

impl From<WriteConflict> for Stop {
    fn from(conflict: WriteConflict) -> Self {
        Self::Conflict(conflict)
    }
}

/// One entry's write: what it has changed so far, over what is there.
pub(super) struct Write<'a> {
    live: &'a Live,
    main: &'a Main,
    revision: Revision,
    write: &'a MetaWrite,
    /// The operation at work.
    op: u32,
    trail: Trail,
    puts: Puts,
    changes: Vec<Change>,
}

/// What a write has done.
pub(super) struct Done {
    pub(super) puts: Puts,
    pub(super) changes: Vec<Change>,
    /// SHA-256 of the newest audit line.
    pub(super) audit_head: Vec<u8>,
    /// Stored key of the newest audit line that was taken away.
    pub(super) audit_floor: Vec<u8>,
}

/// Tries a write. Nothing is changed here: the caller keeps what was done, or has the reason why not.
pub(super) fn apply(
    live: &Live,
    main: &Main,
    revision: Revision,
    write: &MetaWrite,
) -> Result<Result<Done, CommandError>, StateError> {
    let trail = Trail::new(live.vars.audit_head.clone(), live.vars.audit_floor.clone());
    let mut state = Write { live, main, revision, write, op: 0, trail, puts: Puts::new(), changes: Vec::new() };
    if let Some(once) = &write.once
        && let Some(happened) = state.happened(once)?
    {
        return Ok(Err(CommandError::Happened(happened)));
    }
    for (number, op) in (0..).zip(&write.ops) {
        state.op = number;
        match state.apply(op) {
            Ok(()) => {}
            Err(Stop::Error(error)) => return Err(error),
            Err(Stop::Conflict(conflict)) => {
                let (kind, id) = op.subject();
                let (kind, id) = (kind.to_owned(), id.to_owned());
                return Ok(Err(CommandError::Conflict { op: number, kind, id, conflict }));
            }
        }
    }
    state.note();
    state.forget_lines()?;
    if let Some(once) = &write.once
        && let Some(kept) = state.remember(once)?
    {
        return Ok(Err(CommandError::TooManyKept(kept)));
    }
    let Trail { head: audit_head, floor: audit_floor, .. } = state.trail;
    Ok(Ok(Done { puts: state.puts, changes: state.changes, audit_head, audit_floor }))
}

impl Write<'_> {
    fn apply(&mut self, op: &MetaOp) -> Result<(), Stop> {
        match op {
            MetaOp::PutAccount { account, expect } => self.put_account(account, *expect),
            MetaOp::DeleteAccount { id, expect } => self.delete_account(id, *expect),
            MetaOp::PutKey { key, expect } => self.put_key(key, *expect),
            MetaOp::PutTier { tier, expect } => self.put(tier, *expect).map(drop),
            MetaOp::DeleteTier { name, expect } => {
                self.expect::<Tier>(name, *expect)?;
                self.unused("account", Table::TierAccounts, text_key(name, &[]))?;
                self.delete::<Tier>(name, *expect).map(drop)
            }
            MetaOp::PutRoute { route, expect } => {
                self.refers::<Upstream>(&route.upstream)?;
                self.put(route, *expect).map(drop)
            }
            MetaOp::DeleteRoute { name, expect } => self.delete::<Route>(name, *expect).map(drop),
            MetaOp::PutUpstream { upstream, expect } => self.put(upstream, *expect).map(drop),
            MetaOp::DeleteUpstream { name, expect } => {
                self.expect::<Upstream>(name, *expect)?;
                self.no_route_uses(name)?;
                self.delete::<Upstream>(name, *expect).map(drop)
            }
            MetaOp::PutToken { token, expect } => self.put(token, *expect).map(drop),
            MetaOp::DeleteToken { id, expect } => self.delete::<Token>(id, *expect).map(drop),
        }
    }

    fn put_account(&mut self, account: &Account, expect: Expect) -> Result<(), Stop> {
        self.refers::<Tier>(&account.tier)?;
        let old = self.put(account, expect)?;
        if let Some(old) = old.filter(|old| old.tier != account.tier) {
            self.set(Table::TierAccounts, text_key(&old.tier, old.id.as_bytes()), None);
        }
        self.set(Table::TierAccounts, text_key(&account.tier, account.id.as_bytes()), Some(Bytes::new()));
        Ok(())
    }

    fn delete_account(&mut self, id: &str, expect: Expect) -> Result<(), Stop> {
        self.expect::<Account>(id, expect)?;
        let mut keys = Vec::new();
        let prefix = text_key(id, &[]);
        self.walk(Table::AccountKeys, &Range::prefix(prefix.clone()), &mut |row| {
            keys.push(String::from_utf8_lossy(&row[prefix.len()..]).into_owned());
            true
        })?;
        for key in &keys {
            if let Some(found) = self.find::<Key>(key)?.filter(|found| found.state != KeyState::Revoked) {
                return Err(WriteConflict::InUse { kind: "key".into(), id: found.id.to_string() }.into());
            }
        }
        for key in &keys {
            if let Some(gone) = self.delete::<Key>(key, Expect::Any)? {
                self.set(Table::KeyHashes, gone.hash.0.to_vec(), None);
            }
            self.set(Table::AccountKeys, text_key(id, key.as_bytes()), None);
        }
        if let Some(gone) = self.delete::<Account>(id, Expect::Any)? {
            self.set(Table::TierAccounts, text_key(&gone.tier, id.as_bytes()), None);
        }
        Ok(())
    }

    fn put_key(&mut self, key: &Key, expect: Expect) -> Result<(), Stop> {
        let old = self.expect::<Key>(&key.id, expect)?;
        self.refers::<Account>(&key.account)?;
        if old.as_ref().is_some_and(|old| old.state == KeyState::Revoked && key.state != KeyState::Revoked) {
            return Err(WriteConflict::Revoked.into());
        }
        let holder = self.get(Table::KeyHashes, &key.hash.0)?;
        if holder.is_some_and(|holder| holder != key.id.as_bytes()) {
            return Err(WriteConflict::Exists.into());
        }
        if let Some(old) = &old {
            if old.hash != key.hash {
                self.set(Table::KeyHashes, old.hash.0.to_vec(), None);
                self.changes.push(Change::KeyGone { id: old.id.clone(), hash: old.hash });
            }
            if old.account != key.account {
                self.set(Table::AccountKeys, text_key(&old.account, old.id.as_bytes()), None);
            }
        }
        self.put(key, Expect::Any)?;
        self.set(Table::KeyHashes, key.hash.0.to_vec(), Some(Bytes::copy_from_slice(key.id.as_bytes())));
        self.set(Table::AccountKeys, text_key(&key.account, key.id.as_bytes()), Some(Bytes::new()));
        Ok(())
    }

    /// Stores an object at this entry's revision; says what was there.
    fn put<T: Object>(&mut self, object: &T, expect: Expect) -> Result<Option<T>, Stop> {
        let old = self.expect::<T>(object.id(), expect)?;
        let mut new = object.clone();
        if let Some(old) = &old {
            new.keep(old);
        }
        new.set_revision(self.revision);
        let value = Bytes::from(codec::encode(&new));
        self.audit::<T>("put", new.id(), Some(&value))?;
        self.set(T::TABLE, new.id().as_bytes().to_vec(), Some(value));
        self.changes.push(T::change(Arc::new(new)));
        Ok(old)
    }

    /// Takes an object away; one that is not there is no error if nothing was expected.
    fn delete<T: Object>(&mut self, id: &str, expect: Expect) -> Result<Option<T>, Stop> {
        let Some(old) = self.expect::<T>(id, expect)? else { return Ok(None) };
        self.audit::<T>("delete", id, None)?;
        self.set(T::TABLE, id.as_bytes().to_vec(), None);
        self.changes.push(old.gone());
        Ok(Some(old))
    }

    fn expect<T: Object>(&self, id: &str, expect: Expect) -> Result<Option<T>, Stop> {
        let found = self.find::<T>(id)?;
        match (expect, &found) {
            (Expect::Absent, Some(_)) => Err(WriteConflict::Exists.into()),
            (Expect::Present | Expect::Revision(_), None) => Err(WriteConflict::Missing.into()),
            (Expect::Revision(expected), Some(found)) if found.revision() != expected => {
                Err(WriteConflict::Revision { expected, current: found.revision() }.into())
            }
            _ => Ok(found),
        }
    }

    fn refers<T: Object>(&self, id: &str) -> Result<(), Stop> {
        match self.get(T::TABLE, id.as_bytes())? {
            Some(_) => Ok(()),
            None => Err(WriteConflict::Dangling { kind: T::KIND.into(), id: id.to_owned() }.into()),
        }
    }

    fn unused(&self, kind: &str, table: Table, prefix: Vec<u8>) -> Result<(), Stop> {
        let mut user = None;
        let skip = prefix.len();
        self.walk(table, &Range::prefix(prefix), &mut |row| {
            user = Some(String::from_utf8_lossy(&row[skip..]).into_owned());
            false
        })?;
        user.map_or(Ok(()), |id| Err(WriteConflict::InUse { kind: kind.to_owned(), id }.into()))
    }

    fn no_route_uses(&self, upstream: &Name) -> Result<(), Stop> {
        let mut names = Vec::new();
        self.walk(Table::Routes, &Range::all(), &mut |name| {
            names.push(String::from_utf8_lossy(name).into_owned());
            true
        })?;
        for name in names {
            if self.find::<Route>(&name)?.is_some_and(|route| route.upstream == *upstream) {
                return Err(WriteConflict::InUse { kind: "route".into(), id: name }.into());
            }
        }
        Ok(())
    }

    fn find<T: Object>(&self, id: &str) -> Result<Option<T>, StateError> {
        let found = self.get(T::TABLE, id.as_bytes())?;
        found.map(|bytes| codec::decode(&bytes).map_err(self.main.error(T::TABLE))).transpose()
    }

    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Bytes>, StateError> {
        let key = (table, key.to_vec());
        match self.puts.get(&key).cloned().or_else(|| self.live.get(&key)) {
            Some(found) => Ok(found),
            None => self.main.get(table, &key.1),
        }
    }

    fn walk(&self, table: Table, range: &Range, f: &mut dyn FnMut(&[u8]) -> bool) -> Result<(), StateError> {
        let overlay = view::overlay(self.live, Some(&self.puts), table, range);
        view::walk(self.main, table, range, overlay, false, &mut |key, _| Ok(f(key)))
    }

    fn set(&mut self, table: Table, key: Vec<u8>, value: Option<Bytes>) {
        self.puts.insert((table, key), value);
    }
}
