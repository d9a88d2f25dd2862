//! One atomic change in the making: operations that see what the ones before them have done.
//!
//! A request's operations are laid over what is stored, each checked as if it came alone; then all of them are one write
//! ([`super::change`]). Nothing is written here. What was read stands in the write as an expectation, so that a change that
//! others made meanwhile refuses the whole and is seen.

use std::collections::{BTreeSet, HashMap, HashSet};

use http::StatusCode;
use serde_json::Value;
use store::{
    Store,
    model::{
        Account, AccountId, Expect, Key, MetaOp, Name, Profile, Revision, Role, Route, Tier, Timestamp, Token, Upstream,
    },
    view::are_rivals,
};

use super::{
    etag::Condition,
    input::{Object, escaped},
    problem::{Problem, Result},
};
use crate::operator::Caller;

/// What is changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Kind {
    Account,
    Key,
    Tier,
    Route,
    Upstream,
    Token,
}

/// What an operation comes to.
#[derive(Debug)]
pub(crate) struct Effect {
    /// Created, OK, or no content.
    pub(crate) status: StatusCode,
    pub(crate) kind: Kind,
    pub(crate) id: String,
    /// The object; null when it is gone. Its revision is filled in when it was written.
    pub(crate) view: Value,
    /// Its revision will be the write's; of an object that is left as it is, its own stays.
    pub(crate) is_written: bool,
}

/// An object as it is or will be.
#[derive(Debug, Clone)]
pub(crate) struct Slot<T> {
    pub(crate) value: Option<T>,
    /// An operation of this draft has changed it.
    touched: bool,
}

type Shelf<T> = HashMap<String, Slot<T>>;

/// The change.
#[derive(Debug)]
pub(crate) struct Draft<'a> {
    pub(crate) store: &'a Store,
    pub(crate) caller: &'a Caller,
    pub(crate) now: Timestamp,
    /// Which of the request's operations is at work.
    origin: usize,
    ops: Vec<(usize, Condition, MetaOp)>,
    /// Profiles to be staged: for which operation, the stage that is published, and the new one.
    profiles: Vec<(usize, String, Profile)>,
    /// Pointers to what operations change of profiles.
    changed: Vec<(u32, Vec<String>)>,
    accounts: Shelf<(Account, Profile)>,
    keys: Shelf<Key>,
    tiers: Shelf<Tier>,
    routes: Shelf<Route>,
    upstreams: Shelf<Upstream>,
    tokens: Shelf<Token>,
}

/// A draft that is done.
#[derive(Debug)]
pub(crate) struct Parts {
    pub(crate) now: Timestamp,
    /// With the number of the request's operation, and its condition.
    pub(crate) ops: Vec<(usize, Condition, MetaOp)>,
    pub(crate) profiles: Vec<(usize, String, Profile)>,
    pub(crate) changed: Vec<(u32, Vec<String>)>,
}

/// An object with a revision of its own.
pub(crate) trait Revised {
    fn revision(&self) -> Revision;
}

macro_rules! revised {
    ($($type:ty),*) => { $(impl Revised for $type {
        fn revision(&self) -> Revision {
            self.revision
        }
    })* };
}
revised!(Key, Tier, Route, Upstream, Token);

impl Revised for (Account, Profile) {
    fn revision(&self) -> Revision {
        self.0.revision
    }
}

impl Kind {
    pub(crate) fn noun(self) -> &'static str {
        match self {
            Self::Account => "account",
            Self::Key => "key",
            Self::Tier => "tier",
            Self::Route => "route",
            Self::Upstream => "upstream",
            Self::Token => "token",
        }
    }

    pub(crate) fn of(noun: &str) -> Option<Self> {
        let all = [Self::Account, Self::Key, Self::Tier, Self::Route, Self::Upstream, Self::Token];
        all.into_iter().find(|kind| kind.noun() == noun)
    }

    /// Where an object of the kind is.
    pub(crate) fn path(self, id: &str) -> String {
        format!("/v1/{}s/{id}", self.noun())
    }
}

impl Effect {
    pub(crate) fn created(kind: Kind, id: &str, view: Value) -> Self {
        Self { status: StatusCode::CREATED, kind, id: id.to_owned(), view, is_written: true }
    }

    pub(crate) fn changed(kind: Kind, id: &str, view: Value) -> Self {
        Self { status: StatusCode::OK, kind, id: id.to_owned(), view, is_written: true }
    }

    /// The object is as it was asked for already.
    pub(crate) fn kept(kind: Kind, id: &str, view: Value) -> Self {
        Self { is_written: false, ..Self::changed(kind, id, view) }
    }

    pub(crate) fn gone(kind: Kind, id: &str) -> Self {
        Self { status: StatusCode::NO_CONTENT, kind, id: id.to_owned(), view: Value::Null, is_written: true }
    }
}

impl<T: Revised> Slot<T> {
    fn stored(value: Option<T>) -> Self {
        Self { value, touched: false }
    }

    fn revision(&self) -> Option<Revision> {
        self.value.as_ref().map(Revised::revision)
    }

    /// For putting the object whether or not it is there.
    pub(crate) fn put(&self, condition: Condition) -> Result<Expect> {
        let current = self.revision();
        let holds = match condition {
            Condition::None => true,
            Condition::Absent => current.is_none(),
            Condition::Present => current.is_some(),
            Condition::Revision(expected) => current == Some(expected),
        };
        if !holds {
            return Err(Problem::moved(current));
        }
        Ok(if self.touched { Expect::Any } else { condition.expect() })
    }

    /// For changing or removing the object that was read.
    pub(crate) fn change(&self, kind: Kind, id: &str, condition: Condition) -> Result<(&T, Expect)> {
        let Some(value) = &self.value else {
            return Err(condition.refused(Problem::not_found(kind.noun(), id), None));
        };
        let expect = condition.check(value.revision())?;
        Ok((value, if self.touched { Expect::Any } else { expect }))
    }

    /// For removing it, whatever it is by then, unless the caller named a revision.
    pub(crate) fn remove(&self, kind: Kind, id: &str, condition: Condition) -> Result<Expect> {
        let (_, expect) = self.change(kind, id, condition)?;
        Ok(match (condition, expect) {
            (Condition::Revision(_), expect) => expect,
            (_, Expect::Any) => Expect::Any,
            _ => Expect::Present,
        })
    }
}

macro_rules! shelf {
    ($name:ident, $set:ident, $shelf:ident, $type:ty) => {
        /// The object as it is or will be.
        pub(crate) fn $name(&mut self, id: &str) -> Result<&Slot<$type>> {
            if !self.$shelf.contains_key(id) {
                let stored = self.store.$name(id)?;
                self.$shelf.insert(id.to_owned(), Slot::stored(stored));
            }
            Ok(&self.$shelf[id])
        }

        /// What an operation of this draft makes of it.
        pub(crate) fn $set(&mut self, id: &str, value: Option<$type>) {
            self.$shelf.insert(id.to_owned(), Slot { value, touched: true });
        }
    };
}

impl<'a> Draft<'a> {
    pub(crate) fn new(store: &'a Store, caller: &'a Caller) -> Self {
        Self {
            store,
            caller,
            now: Timestamp::now(),
            origin: 0,
            ops: Vec::new(),
            profiles: Vec::new(),
            changed: Vec::new(),
            accounts: HashMap::new(),
            keys: HashMap::new(),
            tiers: HashMap::new(),
            routes: HashMap::new(),
            upstreams: HashMap::new(),
            tokens: HashMap::new(),
        }
    }

    shelf!(tier, set_tier, tiers, Tier);
    shelf!(route, set_route, routes, Route);
    shelf!(upstream, set_upstream, upstreams, Upstream);
    shelf!(token, set_token, tokens, Token);

    /// The account and its profile. One that the caller may not see is not there.
    pub(crate) fn account(&mut self, id: &str) -> Result<&Slot<(Account, Profile)>> {
        if !self.accounts.contains_key(id) {
            let seen = self.caller.covers(id);
            let account = if seen { self.store.account(&AccountId::from(id))? } else { None };
            let stored = match account {
                Some(account) => {
                    let wanted = [(account.id.clone(), account.profile.clone())];
                    let profile = self.store.profiles(&wanted)?.pop().unwrap_or_default();
                    Some((account, profile))
                }
                None => None,
            };
            self.accounts.insert(id.to_owned(), Slot::stored(stored));
        }
        Ok(&self.accounts[id])
    }

    pub(crate) fn set_account(&mut self, id: &str, value: Option<(Account, Profile)>) {
        self.accounts.insert(id.to_owned(), Slot { value, touched: true });
    }

    /// A key. One whose account the caller may not see is not there.
    pub(crate) fn key(&mut self, id: &str) -> Result<&Slot<Key>> {
        if !self.keys.contains_key(id) {
            let stored = self.store.key(&id.into())?.filter(|key| self.caller.covers(&key.account));
            self.keys.insert(id.to_owned(), Slot::stored(stored));
        }
        Ok(&self.keys[id])
    }

    pub(crate) fn set_key(&mut self, id: &str, value: Option<Key>) {
        self.keys.insert(id.to_owned(), Slot { value, touched: true });
    }

    /// Another route between which and this one only their names would decide. Two of different requests that are under
    /// way at once are not seen; such routes are served all the same, the first by name.
    pub(crate) fn rival(&self, route: &Route) -> Option<Name> {
        let is_other = |name: &Name| *name != route.name;
        let is_touched = |name: &Name| self.routes.get(name.as_str()).is_some_and(|slot| slot.touched);
        let stored = self.store.directory().routes();
        let found = stored.rivals(&route.matches).map(|view| &view.route.name);
        let found = found.filter(|name| is_other(name) && !is_touched(name)).min().cloned();
        found.or_else(|| {
            let drafted = self.routes.values().filter(|slot| slot.touched).filter_map(|slot| slot.value.as_ref());
            let mut rivals =
                drafted.filter(|other| is_other(&other.name) && are_rivals(&other.matches, &route.matches));
            rivals.next().map(|other| other.name.clone())
        })
    }

    /// A tier that names a route.
    pub(crate) fn tier_naming(&self, route: &str) -> Result<Option<Name>> {
        let drafted = self.tiers.values().filter(|slot| slot.touched).filter_map(|slot| slot.value.as_ref());
        let touched: HashSet<&str> =
            self.tiers.iter().filter(|(_, slot)| slot.touched).map(|(name, _)| name.as_str()).collect();
        let names = |tier: &Tier| tier.routes.iter().flatten().any(|name| **name == *route);
        if let Some(tier) = drafted.into_iter().find(|tier| names(tier)) {
            return Ok(Some(tier.name.clone()));
        }
        let stored = self.store.tiers()?;
        Ok(stored.into_iter().find(|tier| !touched.contains(tier.name.as_str()) && names(tier)).map(|tier| tier.name))
    }

    /// Keys that this draft has made or changed.
    pub(crate) fn drafted_keys(&self) -> impl Iterator<Item = &Key> {
        self.keys.values().filter(|slot| slot.touched).filter_map(|slot| slot.value.as_ref())
    }

    /// An operation of the write.
    pub(crate) fn op(&mut self, condition: Condition, op: MetaOp) {
        self.ops.push((self.origin, condition, op));
    }

    /// Puts an account; its profile is staged when it is a new one.
    pub(crate) fn put_account(
        &mut self,
        condition: Condition,
        expect: Expect,
        account: Account,
        profile: Profile,
        is_new_profile: bool,
    ) {
        if is_new_profile {
            let before = self.accounts.get(account.id.as_str()).and_then(|slot| slot.value.as_ref());
            let changed = differing(before.map(|(_, before)| before), &profile);
            if let (Ok(op), false) = (u32::try_from(self.ops.len()), changed.is_empty()) {
                self.changed.push((op, changed));
            }
            self.profiles.push((self.ops.len(), account.profile.clone(), profile.clone()));
        }
        let id = account.id.to_string();
        self.op(condition, MetaOp::PutAccount { account: account.clone(), expect });
        self.set_account(&id, Some((account, profile)));
    }

    /// Tells which of the request's operations comes next.
    pub(crate) fn begin(&mut self, origin: usize) {
        self.origin = origin;
    }

    /// Refuses the operation unless the caller has a role.
    pub(crate) fn require(&self, role: Role) -> Result<()> {
        self.caller.require(role)
    }

    /// Refuses the operation when the caller is limited to some accounts: what is changed concerns all.
    pub(crate) fn require_everywhere(&self, role: Role) -> Result<()> {
        self.caller.require(role)?;
        self.caller.require_everywhere()
    }

    /// Tells that a name in a body is not one of an object that is there.
    pub(crate) fn tell_missing(object: &Object<'_>, key: &str, kind: Kind, id: &str) {
        object.tell(key, Self::missing(kind, id));
    }

    /// What is said of a name that is not one of an object that is there.
    pub(crate) fn missing(kind: Kind, id: &str) -> String {
        format!("names the {} {id:?}, which does not exist", kind.noun())
    }

    pub(crate) fn into_parts(self) -> Parts {
        Parts { now: self.now, ops: self.ops, profiles: self.profiles, changed: self.changed }
    }
}

/// Longest name of an entry of metadata that the audit keeps.
const MAX_POINTER_CHARS: usize = 100;

/// Pointers to what tells two profiles apart, without a word of what they say.
fn differing(before: Option<&Profile>, after: &Profile) -> Vec<String> {
    let none = Profile::default();
    let before = before.unwrap_or(&none);
    let name = (before.name != after.name).then(|| "/name".to_owned());
    let keys: BTreeSet<&String> = before.metadata.keys().chain(after.metadata.keys()).collect();
    let keys = keys.into_iter().filter(|key| before.metadata.get(*key) != after.metadata.get(*key));
    let keys = keys.map(|key| format!("/metadata/{}", escaped(key)).chars().take(MAX_POINTER_CHARS).collect());
    name.into_iter().chain(keys).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn profiles_differ_by_pointers_without_their_values() {
        let profile = |name: &str, entries: &[(&str, &str)]| Profile {
            name: name.into(),
            metadata: entries.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect(),
        };
        let before = profile("ACME", &[("a/b", "1"), ("crm", "5"), ("vip", "true")]);
        let after = profile("ACME Ltd", &[("a/b", "2"), ("crm", "5"), ("new", "1")]);
        assert_eq!(differing(Some(&before), &after), ["/name", "/metadata/a~1b", "/metadata/new", "/metadata/vip"]);
        assert_eq!(differing(None, &profile("", &[])), Vec::<String>::new());
        assert_eq!(differing(Some(&after), &after), Vec::<String>::new());
    }
}
