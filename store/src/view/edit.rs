//! Changes to the directory, by its one writer.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{
        Arc, MutexGuard,
        atomic::{AtomicUsize, Ordering},
    },
};

use arc_swap::ArcSwap;

use super::{
    AccountView, Attachment, Policies, RouteTable,
    index::Fill,
    number,
    own::OwnPolicies,
    record::Words,
    slots::Numbers,
    tables::{self, Rare, Seen, Tables, hash_halves, index_hash, index_hash_of_secret, ulid_halves},
};
use crate::model::{
    Account, AccountId, Env, Key, KeyId, KeyState, Name, Overrides, Reset, Revision, Route, Tier, Token, Upstream,
};

/// What only the writer needs.
#[derive(Debug, Default)]
pub(super) struct Writer {
    key_fill: Fill,
    id_fill: Fill,
    account_fill: Fill,
    records: Numbers,
    rares: Numbers,
    accounts: Numbers,
    /// Keys of each account's slot. A slot that still has keys is not given to another account.
    keys_of: Vec<u32>,
    /// Slots of accounts that keys name and that are not there (yet, or any more).
    awaited: HashMap<AccountId, u32>,
    tiers: HashMap<Name, (Tier, Arc<Policies>)>,
    routes: BTreeMap<Name, Route>,
    upstreams: BTreeMap<Name, Upstream>,
    route_slots: HashMap<Name, u32>,
    /// Older versions of the tables that readers may hold still: freed here, where nobody waits for it.
    retired: Vec<Arc<Tables>>,
}

impl Writer {
    fn policies(
        &self,
        tier: &Name,
        overrides: Option<&Overrides>,
        resets: &[Reset],
        revision: Revision,
    ) -> Arc<Policies> {
        match (self.tiers.get(tier), overrides) {
            (None, _) => Arc::new(Policies::closed()),
            (Some((_, shared)), None) if resets.is_empty() => shared.clone(),
            (Some((tier, _)), _) => Arc::new(Policies::compile_reset(tier, overrides, resets, revision)),
        }
    }
}

/// A run of changes by the one writer; see [`super::Directory::edit`].
#[derive(Debug)]
pub struct Edit<'a> {
    writer: MutexGuard<'a, Writer>,
    /// What readers of `published` see, but for changes of accounts since; after a reset what they will see.
    tables: Tables,
    published: &'a ArcSwap<Tables>,
    routes: &'a ArcSwap<RouteTable>,
    keys: &'a AtomicUsize,
    routes_changed: bool,
    /// Some of `tables` that readers do not see yet …
    accounts_changed: bool,
    /// … a slot whose account went among them.
    slot_freed: bool,
    /// What there was before a reset.
    before: Option<Writer>,
}

impl<'a> Edit<'a> {
    pub(super) fn new(
        writer: MutexGuard<'a, Writer>,
        published: &'a ArcSwap<Tables>,
        routes: &'a ArcSwap<RouteTable>,
        keys: &'a AtomicUsize,
    ) -> Self {
        let tables = Tables::clone(&published.load());
        Self {
            writer,
            tables,
            published,
            routes,
            keys,
            routes_changed: false,
            accounts_changed: false,
            slot_freed: false,
            before: None,
        }
    }
}

impl Edit<'_> {
    /// Puts an account, new or changed.
    pub fn put_account(&mut self, account: Account) {
        let Account { id, tier, state, region, overrides, resets, revision, .. } = account;
        let overrides = (overrides != Overrides::default()).then(|| Box::new(overrides));
        let policies = self.writer.policies(&tier, overrides.as_deref(), &resets, revision);
        let (slot, known) = match self.tables.account(&id) {
            Some((slot, _)) => (slot, true),
            None => (self.writer.awaited.remove(&id).unwrap_or_else(|| self.new_account_slot()), false),
        };
        let number = number::of_text("account", &id);
        let view = AccountView {
            id,
            state,
            tier,
            region,
            policies,
            slot,
            number,
            overrides,
            revision,
            of_key: None,
            attachment: Attachment::default(),
        };
        self.set_account(slot, Some(Arc::new(view)));
        if !known
            && let Some(grown) =
                self.writer.account_fill.insert(&self.tables.account_by_id, index_hash(number), slot, 0)
        {
            self.tables.account_by_id = Arc::new(grown);
            self.publish();
        }
    }

    /// Takes an account away; its keys are found no more.
    pub fn remove_account(&mut self, id: &AccountId) {
        let Some((slot, view)) = self.tables.account(id) else { return };
        let writer = &mut *self.writer;
        writer.account_fill.remove(&self.tables.account_by_id, index_hash(view.number), slot);
        if writer.keys_of[slot as usize] > 0 {
            writer.awaited.insert(id.clone(), slot);
        } else {
            writer.accounts.give_back(slot);
            self.slot_freed = true;
        }
        self.set_account(slot, None);
    }

    /// Puts a key, new or changed. Its account may come later; until then it is not found.
    pub fn put_key(&mut self, key: &Key) {
        let account = self.account_slot(&key.account);
        let ulid = number::key_ulid(&key.id);
        let has_own = !key.overrides.is_empty();
        let is_rare = ulid.is_none() || !key.scopes.is_empty() || !key.allowed_ips.is_empty() || has_own;
        let rare = is_rare.then(|| {
            let slot = self.writer.rares.take();
            if self.tables.rares.make_room(slot) {
                self.publish();
            }
            let id = ulid.is_none().then(|| key.id.clone());
            let rare = Rare {
                id,
                scopes: key.scopes.as_slice().into(),
                allowed_ips: key.allowed_ips.as_slice().into(),
                own: has_own.then(|| OwnPolicies::new(key)),
            };
            self.tables.rares.at(slot).expect("room was made").store(Some(Arc::new(rare)));
            u64::from(slot) + 1
        });
        let flag = |on: bool, flag: u64| if on { flag } else { 0 };
        let words = Words {
            hash: hash_halves(&key.hash),
            meta: (u64::from(account) << 32)
                | flag(key.expires_at.is_some(), tables::HAS_EXPIRY)
                | flag(key.env == Env::Test, tables::TEST_ENV)
                | flag(key.state == KeyState::Disabled, tables::DISABLED)
                | flag(key.state == KeyState::Revoked, tables::REVOKED),
            ulid: ulid.map_or([0, 0], ulid_halves),
            expires_at: key.expires_at.map_or(0, |at| at.0),
            rare: rare.unwrap_or(0),
        };
        self.writer.keys_of[account as usize] += 1;
        let number = ulid.map_or_else(|| number::of_key(&key.id), number::of_key_ulid);
        match self.tables.by_number(number, ulid, &key.id) {
            Some(seen) => self.change_key(seen.slot, &words),
            None => self.add_key(number, account, &words),
        }
    }

    fn add_key(&mut self, number: u64, account: u32, words: &Words) {
        let slot = self.writer.records.take();
        if self.tables.records.make_room(slot) {
            self.publish();
        }
        self.tables.records.at(slot).expect("room was made").write(words);
        let by_id = self.writer.id_fill.insert(&self.tables.key_by_id, index_hash(number), slot, 0);
        let hash = index_hash_of_secret(words.hash);
        let by_hash = self.writer.key_fill.insert(&self.tables.key_by_hash, hash, slot, account);
        let grown = by_id.is_some() || by_hash.is_some();
        if let Some(index) = by_id {
            self.tables.key_by_id = Arc::new(index);
        }
        if let Some(index) = by_hash {
            self.tables.key_by_hash = Arc::new(index);
        }
        if grown {
            self.publish();
        }
    }

    fn change_key(&mut self, slot: u32, words: &Words) {
        let record = self.tables.records.at(slot).expect("the index names slots that exist");
        let old = record.read().1;
        record.write(words);
        if old.hash != words.hash {
            // A new secret under the same id. The old one has stopped working with the record's change.
            let hash = index_hash_of_secret(words.hash);
            let account = (words.meta >> 32) as u32;
            if let Some(grown) = self.writer.key_fill.insert(&self.tables.key_by_hash, hash, slot, account) {
                self.tables.key_by_hash = Arc::new(grown);
                self.publish();
            }
            self.writer.key_fill.remove(&self.tables.key_by_hash, index_hash_of_secret(old.hash), slot);
        }
        self.let_go(&old);
    }

    /// Takes a key away.
    pub fn remove_key(&mut self, id: &KeyId) {
        let Some(Seen { slot, .. }) = self.tables.by_id(id) else { return };
        let record = self.tables.records.at(slot).expect("the index names slots that exist");
        let old = record.read().1;
        self.writer.key_fill.remove(&self.tables.key_by_hash, index_hash_of_secret(old.hash), slot);
        self.writer.id_fill.remove(&self.tables.key_by_id, index_hash(number::of_key(id)), slot);
        record.write(&Words::default());
        self.writer.records.give_back(slot);
        self.let_go(&old);
    }

    /// Frees what a record referred to before it was written anew.
    fn let_go(&mut self, old: &Words) {
        if let Some(rare) = (old.rare as u32).checked_sub(1) {
            self.tables.rares.at(rare).expect("records name slots that exist").store(None);
            self.writer.rares.give_back(rare);
        }
        let account = (old.meta >> 32) as u32;
        self.writer.keys_of[account as usize] -= 1;
        if self.writer.keys_of[account as usize] == 0 && !self.writer.awaited.is_empty() {
            let writer = &mut *self.writer;
            let gone = writer.awaited.iter().find(|(_, slot)| **slot == account).map(|(id, _)| id.clone());
            if let Some(id) = gone {
                writer.awaited.remove(&id);
                writer.accounts.give_back(account);
                self.slot_freed = true;
            }
        }
    }

    /// Puts a tier; its accounts are resolved anew, which takes a moment each.
    pub fn put_tier(&mut self, tier: Tier) {
        let shared = Arc::new(Policies::compile(&tier, None, 0));
        let name = tier.name.clone();
        self.writer.tiers.insert(name.clone(), (tier, shared));
        self.resolve_accounts(&name);
    }

    /// Takes a tier away. Accounts that still name it (apply refuses that) may do nothing.
    pub fn remove_tier(&mut self, name: &Name) {
        self.writer.tiers.remove(name);
        self.resolve_accounts(name);
    }

    fn resolve_accounts(&mut self, tier: &Name) {
        let writer = &*self.writer;
        self.accounts_changed |= self.tables.accounts.replace(|old| {
            (old.tier == *tier).then(|| {
                Arc::new(AccountView {
                    id: old.id.clone(),
                    state: old.state,
                    tier: old.tier.clone(),
                    region: old.region.clone(),
                    policies: writer.policies(tier, old.overrides.as_deref(), &old.policies.resets, old.revision),
                    slot: old.slot,
                    number: old.number,
                    overrides: old.overrides.clone(),
                    revision: old.revision,
                    attachment: Attachment::default(),
                    of_key: None,
                })
            })
        });
    }

    /// Puts a route.
    pub fn put_route(&mut self, route: Route) {
        self.writer.routes.insert(route.name.clone(), route);
        self.routes_changed = true;
    }

    /// Takes a route away.
    pub fn remove_route(&mut self, name: &Name) {
        self.routes_changed |= self.writer.routes.remove(name).is_some();
    }

    /// Puts an upstream.
    pub fn put_upstream(&mut self, upstream: Upstream) {
        self.writer.upstreams.insert(upstream.name.clone(), upstream);
        self.routes_changed = true;
    }

    /// Takes an upstream away.
    pub fn remove_upstream(&mut self, name: &Name) {
        self.routes_changed |= self.writer.upstreams.remove(name).is_some();
    }

    /// Puts an admin token. Tokens are few: their map is copied.
    pub fn put_token(&mut self, token: Token) {
        let tokens = Arc::make_mut(&mut self.tables.tokens);
        tokens.retain(|_, other| other.id != token.id);
        tokens.insert(token.hash, Arc::new(token));
        self.publish();
    }

    /// Takes an admin token away.
    pub fn remove_token(&mut self, id: &Name) {
        Arc::make_mut(&mut self.tables.tokens).retain(|_, token| token.id != *id);
        self.publish();
    }

    /// Takes everything away, because a snapshot follows. Readers go on with what was there until this run is dropped, so
    /// that filling the directory anew never makes a good key look unknown.
    pub fn reset(&mut self) {
        if self.accounts_changed {
            self.publish();
        }
        let (route_slots, retired) = (self.writer.route_slots.clone(), std::mem::take(&mut self.writer.retired));
        let before = std::mem::replace(&mut *self.writer, Writer { route_slots, retired, ..Writer::default() });
        self.tables = Tables::default();
        self.routes_changed = true;
        self.before.get_or_insert(before);
    }

    /// Forgets this run's reset and everything after it, because the snapshot could not be read: all stays as it was.
    /// Without a reset it does nothing.
    pub fn abandon(mut self) {
        if let Some(before) = self.before.take() {
            let retired = std::mem::take(&mut self.writer.retired);
            *self.writer = Writer { retired, ..before };
            self.tables = Tables::clone(&self.published.load());
            self.accounts_changed = false;
        }
    }

    fn account_slot(&mut self, id: &AccountId) -> u32 {
        if let Some((slot, _)) = self.tables.account(id) {
            return slot;
        }
        if let Some(slot) = self.writer.awaited.get(id) {
            return *slot;
        }
        let slot = self.new_account_slot();
        self.writer.awaited.insert(id.clone(), slot);
        slot
    }

    fn new_account_slot(&mut self) -> u32 {
        if self.slot_freed {
            // Its number may be given to another account now, whose keys would be found with what readers see there still.
            self.publish();
        }
        let slot = self.writer.accounts.take();
        if self.writer.keys_of.len() <= slot as usize {
            self.writer.keys_of.resize(slot as usize + 1, 0);
        }
        slot
    }

    fn set_account(&mut self, slot: u32, view: Option<Arc<AccountView>>) {
        self.tables.accounts.set(slot, view);
        self.accounts_changed = true;
    }

    /// Shows readers a table that grew, and accounts as they are now.
    fn publish(&mut self) {
        if self.before.is_none() {
            self.show();
            (self.accounts_changed, self.slot_freed) = (false, false);
        }
    }

    fn show(&mut self) {
        let old = self.published.swap(Arc::new(self.tables.clone()));
        self.writer.retired.push(old);
        self.writer.retired.retain(|old| Arc::strong_count(old) > 1);
    }
}

impl Drop for Edit<'_> {
    fn drop(&mut self) {
        self.keys.store(self.writer.key_fill.entries, Ordering::Relaxed);
        if self.before.is_some() || self.accounts_changed {
            self.show();
        }
        if self.routes_changed {
            let writer = &mut *self.writer;
            for name in writer.routes.keys() {
                if !writer.route_slots.contains_key(name) {
                    let next = writer.route_slots.len() as u32;
                    writer.route_slots.insert(name.clone(), next);
                }
            }
            let table = RouteTable::new(writer.routes.values(), writer.upstreams.values(), &writer.route_slots);
            self.routes.store(Arc::new(table));
        }
    }
}
