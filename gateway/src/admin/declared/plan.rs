//! Lays a document over what is stored.
//!
//! What others need comes first and goes last: upstreams, tiers, routes, accounts, keys. Each object that differs is one
//! operation on the revision that was read, so a change that others made meanwhile refuses the whole.

use std::collections::HashSet;

use serde_json::{Value, json};
use store::model::{Account, AccountId, Expect, Key, KeyState, MetaOp, Revision};

use super::{
    deleted::{self, Made},
    differences::{between, removal},
    document::{self, Declared, DeclaredKey, Document},
    effect, overtaken, references,
};
use crate::admin::{
    accounts,
    draft::{Draft, Effect, Kind, Revised},
    etag::Condition,
    keys,
    named::Shelved,
    problem::{Code, FieldError, Problem, Result},
};

/// Keys and accounts that are read at once.
const AT_ONCE: usize = 1_000;

pub(super) struct Plan<'p, 'd> {
    pub(super) draft: &'p mut Draft<'d>,
    since: Option<Revision>,
    pub(super) prune: bool,
    effects: Vec<Effect>,
    /// What was changed after the document's revision.
    overtaken: Vec<FieldError>,
    /// What the document would make, of which nobody knows yet whether it was there and is deleted.
    made: Vec<Made>,
    pub(super) wrong: Vec<FieldError>,
}

pub(super) fn lay(draft: &mut Draft<'_>, value: Value, prune: bool) -> Result<Vec<Effect>> {
    let document = document::read(value, draft)?;
    let since = document.revision;
    let mut plan =
        Plan { draft, since, prune, effects: Vec::new(), overtaken: Vec::new(), made: Vec::new(), wrong: Vec::new() };
    plan.document(document)?;
    let Plan { draft, effects, overtaken: mut moved, made, wrong, .. } = plan;
    if !wrong.is_empty() {
        return Err(Problem::invalid(Code::InvalidBody, wrong));
    }
    let Some(since) = since else { return Ok(effects) };
    moved.extend(deleted::after(draft.store, since, made)?);
    if moved.is_empty() { Ok(effects) } else { Err(overtaken(since, moved)) }
}

impl Plan<'_, '_> {
    fn document(&mut self, document: Document) -> Result<()> {
        let Document { upstreams, tiers, routes, accounts, .. } = document;
        references::check(self, tiers.as_deref(), routes.as_deref())?;
        self.put_all(upstreams.as_deref())?;
        self.put_all(tiers.as_deref())?;
        self.put_all(routes.as_deref())?;
        let ids: Option<HashSet<String>> =
            accounts.as_ref().map(|accounts| accounts.iter().map(|account| account.id.clone()).collect());
        for (n, account) in accounts.into_iter().flatten().enumerate() {
            self.account(&format!("/accounts/{n}"), account)?;
        }
        if !self.prune {
            return Ok(());
        }
        if let Some(ids) = ids {
            self.accounts_gone(&ids)?;
        }
        self.all_gone_but(routes.as_deref())?;
        self.all_gone_but(tiers.as_deref())?;
        self.all_gone_but(upstreams.as_deref())
    }

    fn put_all<T: Shelved>(&mut self, wanted: Option<&[T]>) -> Result<()> {
        for (n, new) in wanted.into_iter().flatten().enumerate() {
            let slot = T::slot(self.draft, new.name())?.clone();
            let change =
                between(T::KIND.noun(), new.name(), slot.value.as_ref().map(|old| json!(old)).as_ref(), &json!(new));
            if let Some(change) = &change {
                let current = slot.value.as_ref().map(Revised::revision);
                self.note_revision(format!("/{}s/{n}", T::KIND.noun()), current, change);
                let expect = current.map_or(Expect::Absent, Expect::Revision);
                self.draft.op(Condition::None, new.clone().put_op(expect));
                T::set(self.draft, new.name(), Some(new.clone()));
            }
            self.effects.push(effect(T::KIND, new.name(), change));
        }
        Ok(())
    }

    /// Removes those that a document's list does not name, if it has such a list.
    fn all_gone_but<T: Shelved>(&mut self, wanted: Option<&[T]>) -> Result<()> {
        let Some(wanted) = wanted else { return Ok(()) };
        let names: HashSet<&str> = wanted.iter().map(|object| object.name().as_str()).collect();
        for old in T::all(self.draft.store)?.into_iter().filter(|old| !names.contains(old.name().as_str())) {
            let change = removal("delete", T::KIND.noun(), old.name());
            self.note_revision(format!("/{}s", T::KIND.noun()), Some(old.revision()), &change);
            self.draft.op(Condition::None, T::delete_op(old.name().clone(), Expect::Revision(old.revision())));
            T::set(self.draft, old.name(), None);
            self.effects.push(effect(T::KIND, old.name(), Some(change)));
        }
        Ok(())
    }

    /// Remembers an object that was changed after the document was made, or may have been deleted.
    fn note_revision(&mut self, pointer: String, current: Option<Revision>, change: &Value) {
        let Some(since) = self.since else { return };
        let of = |name: &str| change[name].as_str().unwrap_or_default().to_owned();
        let Some(current) = current else {
            return self.made.push(Made { pointer, kind: of("kind"), id: of("id") });
        };
        if current > since {
            let fields: Vec<String> = change["fields"]
                .as_array()
                .into_iter()
                .flatten()
                .map(|field| {
                    format!(
                        "{} is {}, the document says {}",
                        field["field"].as_str().unwrap_or_default(),
                        field["before"],
                        field["after"]
                    )
                })
                .collect();
            let what = if fields.is_empty() { of("action") } else { fields.join("; ") };
            let detail = format!("{} {:?} is at revision {current}: {what}", of("kind"), of("id"));
            self.overtaken.push(FieldError { pointer, detail });
        }
    }

    fn account(&mut self, pointer: &str, declared: Declared) -> Result<()> {
        let Declared { id, form, keys } = declared;
        let stored = self.draft.account(&id)?.value.clone();
        let accounts::Form { tier, state, region, overrides, profile, .. } = form;
        let mut account = stored.as_ref().map_or_else(
            || Account {
                id: AccountId::from(id.as_str()),
                tier: tier.clone(),
                state,
                region: region.clone(),
                overrides: overrides.clone(),
                created_at: self.draft.now,
                profile: String::new(),
                revision: 0,
                resets: Vec::new(),
            },
            |(account, _)| account.clone(),
        );
        (account.tier, account.state, account.region, account.overrides) = (tier, state, region, overrides);
        let before = stored.as_ref().map(|(account, profile)| accounts::view(account, profile));
        let change = between("account", &id, before.as_ref(), &accounts::view(&account, &profile));
        if let Some(change) = &change {
            self.note_revision(pointer.to_owned(), stored.as_ref().map(|(account, _)| account.revision), change);
            let expect = stored.as_ref().map_or(Expect::Absent, |(account, _)| Expect::Revision(account.revision));
            let is_new_profile = stored.as_ref().is_none_or(|(_, old)| *old != profile);
            self.draft.put_account(Condition::None, expect, account, profile, is_new_profile);
        }
        self.effects.push(effect(Kind::Account, &id, change));
        let Some(keys) = keys else { return Ok(()) };
        let hashes: HashSet<_> = keys.iter().map(|key| key.hash).collect();
        for (n, key) in keys.into_iter().enumerate() {
            self.key(&format!("{pointer}/keys/{n}"), &id, key)?;
        }
        if self.prune && stored.is_some() {
            self.revoke_keys(pointer, &id, |key| !hashes.contains(&key.hash))?;
        }
        Ok(())
    }

    fn key(&mut self, pointer: &str, account: &str, declared: DeclaredKey) -> Result<()> {
        let found = self.draft.store.key_by_hash(&declared.hash)?;
        let wrong = match &found {
            Some(key) if key.account.as_str() != account => Some("is the hash of another account's key"),
            Some(key) if key.state == KeyState::Revoked => Some("is the hash of a key that is revoked, for ever"),
            _ => None,
        };
        if let Some(detail) = wrong {
            self.wrong.push(FieldError { pointer: format!("{pointer}/hash"), detail: detail.into() });
            return Ok(());
        }
        let fresh = || keys::declared(account, declared.hash, self.draft.now);
        let mut key = found.clone().unwrap_or_else(fresh);
        key.name = declared.name;
        key.scopes = declared.scopes;
        key.allowed_ips = declared.allowed_ips;
        key.expires_at = declared.expires_at;
        key.overrides = declared.overrides;
        key.state = declared.state;
        if found.is_none() {
            (key.env, key.last4) = (declared.env, declared.last4);
        }
        let before = found.as_ref().map(|key| keys::audited(key.clone()));
        let change = between("key", &key.id, before.as_ref(), &keys::audited(key.clone()));
        let id = key.id.to_string();
        if let Some(change) = &change {
            match &found {
                Some(key) => self.note_revision(pointer.to_owned(), Some(key.revision), change),
                // Keys go with their account only.
                None => self.made.push(Made {
                    pointer: pointer.to_owned(),
                    kind: Kind::Account.noun().to_owned(),
                    id: account.to_owned(),
                }),
            }
            let expect = found.map_or(Expect::Absent, |key| Expect::Revision(key.revision));
            self.draft.op(Condition::None, MetaOp::PutKey { key, expect });
        }
        self.effects.push(effect(Kind::Key, &id, change));
        Ok(())
    }

    fn revoke_keys(&mut self, pointer: &str, account: &str, which: impl Fn(&Key) -> bool) -> Result<()> {
        let mut after: Option<String> = None;
        loop {
            let some = self.draft.store.keys(&account.into(), after.as_deref(), AT_ONCE)?;
            let Some(last) = some.last() else { return Ok(()) };
            after = Some(last.id.to_string());
            for key in some.into_iter().filter(|key| key.state != KeyState::Revoked && which(key)) {
                let change = removal("revoke", "key", &key.id);
                self.note_revision(pointer.to_owned(), Some(key.revision), &change);
                let (id, expect) = (key.id.to_string(), Expect::Revision(key.revision));
                let key = keys::revoked(key, self.draft.now);
                self.draft.op(Condition::None, MetaOp::PutKey { key, expect });
                self.effects.push(effect(Kind::Key, &id, Some(change)));
            }
        }
    }

    fn accounts_gone(&mut self, ids: &HashSet<String>) -> Result<()> {
        let mut after: Option<String> = None;
        loop {
            let some = self.draft.store.accounts(after.as_deref(), AT_ONCE)?;
            let Some(last) = some.last() else { return Ok(()) };
            after = Some(last.id.to_string());
            for old in some.into_iter().filter(|old| !ids.contains(old.id.as_str())) {
                let change = removal("delete", "account", &old.id);
                self.note_revision("/accounts".to_owned(), Some(old.revision), &change);
                self.revoke_keys("/accounts", &old.id, |_| true)?;
                let expect = Expect::Revision(old.revision);
                self.draft.op(Condition::None, MetaOp::DeleteAccount { id: old.id.clone(), expect });
                self.effects.push(effect(Kind::Account, &old.id, Some(change)));
            }
        }
    }
}
