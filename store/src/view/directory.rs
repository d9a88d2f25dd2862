//! Keys, accounts, tiers, routes and tokens as the request path reads them: in memory, without a lock on the reader's side.

use std::{
    hint::black_box,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
};

use arc_swap::{ArcSwap, Guard};
use ipnet::IpNet;
use tokio::sync::watch;

use super::{
    Attachment, Edit, Policies, RouteTable,
    edit::Writer,
    hold, number,
    placed::{PlaceOfAccount, Placed},
    tables::{self, Rare, Seen, Tables},
};
use crate::model::{
    AccountId, AccountState, Env, GroupId, KeyHash, KeyId, KeyState, Name, Overrides, Placement, Revision, Timestamp,
    Token,
};

/// A key as the request path sees it: a consistent copy.
#[derive(Debug, Clone)]
pub struct FoundKey {
    name: KeyText,
    /// Live or test.
    pub env: Env,
    /// Whether it works.
    pub state: KeyState,
    /// When it stops working.
    pub expires_at: Option<Timestamp>,
    rare: Option<Arc<Rare>>,
    /// Whose it is.
    pub account: Arc<AccountView>,
    /// Number of the key on this node, the same until a reset.
    pub slot: u32,
    /// Number made of the id alone, the same on every node; names its buckets.
    pub number: u64,
}

/// What a key's public id is made of: its text is needed once a request, and not to decide.
#[derive(Debug, Clone)]
enum KeyText {
    Ulid(u128),
    Other(KeyId),
}

impl KeyText {
    fn id(&self) -> KeyId {
        match self {
            Self::Ulid(ulid) => number::with_key_id(*ulid, |text| text.into()),
            Self::Other(id) => id.clone(),
        }
    }
}

impl FoundKey {
    /// Public id.
    pub fn id(&self) -> KeyId {
        self.name.id()
    }

    /// What it may do.
    pub fn scopes(&self) -> &[Name] {
        self.rare.as_ref().map_or(&[], |rare| &rare.scopes)
    }

    /// Networks it may come from; empty for any.
    pub fn allowed_ips(&self) -> &[IpNet] {
        self.rare.as_ref().map_or(&[], |rare| &rare.allowed_ips)
    }
}

/// An account as the request path sees it.
#[derive(Debug)]
pub struct AccountView {
    // What a decision reads comes first, so that it lies on few cache lines.
    pub(super) attachment: Attachment,
    /// The tier's policies with the account's overrides, compiled.
    pub policies: Arc<Policies>,
    /// Number made of the id alone, the same on every node; names its buckets.
    pub number: u64,
    pub(super) revision: Revision,
    /// Its id.
    pub id: AccountId,
    /// Whether its keys work.
    pub state: AccountState,
    /// Number of the account on this node, the same until a reset.
    pub slot: u32,
    /// Its tier's name.
    pub tier: Name,
    /// Region label; empty for none.
    pub region: Name,
    /// Kept for when the tier changes.
    pub(super) overrides: Option<Box<Overrides>>,
    /// The key whose own policies are laid over the account's; none in the account's own view.
    pub(super) of_key: Option<KeyId>,
}

impl AccountView {
    /// Reads a word of each of the cache lines that a decision about the account needs: see [`Attachment::touch`].
    pub(super) fn touch(self: &Arc<Self>) {
        // The first line, where its references are counted.
        black_box(Arc::strong_count(self));
        self.attachment.touch();
    }

    /// Grows whenever its policies change: by the account, by its tier, or by moving to another tier.
    pub fn policy_revision(&self) -> Revision {
        self.policies.revision.max(self.revision)
    }

    /// What a room above keeps with this view.
    pub fn attachment(&self) -> &Attachment {
        &self.attachment
    }

    /// The key whose own policies these are; none when they are the account's.
    pub fn of_key(&self) -> Option<&KeyId> {
        self.of_key.as_ref()
    }
}

/// The directory. One writer (apply), any number of readers.
#[derive(Debug)]
pub struct Directory {
    tables: Arc<ArcSwap<Tables>>,
    routes: ArcSwap<RouteTable>,
    keys: AtomicUsize,
    revision: AtomicU64,
    revisions: watch::Sender<Revision>,
    writer: Mutex<Writer>,
    placed: Placed,
}

impl Default for Directory {
    fn default() -> Self {
        Self {
            tables: Arc::default(),
            routes: ArcSwap::default(),
            keys: AtomicUsize::new(0),
            revision: AtomicU64::new(0),
            revisions: watch::Sender::new(0),
            writer: Mutex::default(),
            placed: Placed::default(),
        }
    }
}

impl Directory {
    /// Looks a key up by the hash of its secret. None too when its account is gone.
    pub fn key(&self, hash: &KeyHash) -> Option<FoundKey> {
        hold::with_newest(&self.tables, |tables| found(tables, || tables.by_hash(hash)))
    }

    /// To be called when a thread that looks keys up has nothing to do: it lets go of what it holds for the next look-up, which
    /// may be an old version of the directory by then.
    pub fn rest_thread() {
        hold::let_go();
    }

    /// Looks a key up by its public id (explain, admin; not the hot path).
    pub fn key_by_id(&self, id: &KeyId) -> Option<FoundKey> {
        loop {
            let tables = self.tables.load();
            let found = found(&tables, || tables.by_id(id));
            // An account's number may be another's by now: see `hold`.
            if Arc::ptr_eq(&tables, &self.tables.load()) {
                return found;
            }
        }
    }

    /// An account.
    pub fn account(&self, id: &AccountId) -> Option<Arc<AccountView>> {
        self.tables.load().account(id).map(|(_, view)| view)
    }

    /// The ledger group that an account is in.
    pub fn group_of(&self, account: &AccountId) -> GroupId {
        self.placed.group_of(account)
    }

    /// Where an account is, and whether its slot is open.
    pub fn place_of(&self, account: &AccountId) -> PlaceOfAccount {
        self.placed.place_of(account)
    }

    /// A slot's group, whether it is open, and since when it is there on this node's lease clock (0: since before it began).
    pub fn slot(&self, slot: u16) -> (GroupId, bool, u64) {
        self.placed.slot(slot)
    }

    /// Whether slots have ever moved from one ledger group to another, or are about to.
    pub fn slots_have_moved(&self) -> bool {
        self.placed.has_moved()
    }

    /// Epoch of the newest placement that any slot is read from; 0 while there is none.
    pub fn placement_epoch(&self) -> Revision {
        self.placed.epoch()
    }

    /// Epoch of the placement that all slots are read from, or a newer one.
    pub fn placement_in_force(&self) -> Revision {
        self.placed.in_force()
    }

    /// The placement in force; none while there is one ledger group.
    pub fn placement(&self) -> Option<Arc<Placement>> {
        self.placed.placement()
    }

    /// For the writer: where the slots are from now on, which is `now_ns` on the lease clock.
    pub fn place(&self, placement: &Arc<Placement>, now_ns: u64) {
        self.placed.place(placement, now_ns);
    }

    /// The routes and upstreams in force.
    pub fn routes(&self) -> Guard<Arc<RouteTable>> {
        self.routes.load()
    }

    /// An admin token by the hash of its secret.
    pub fn token(&self, hash: &KeyHash) -> Option<Arc<Token>> {
        self.tables.load().tokens.get(hash).cloned()
    }

    /// Keys held, tombstones among them.
    pub fn len(&self) -> usize {
        self.keys.load(Ordering::Relaxed)
    }

    /// Whether it holds no key.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Index of the newest entry of group 0 that is in force here.
    pub fn revision(&self) -> Revision {
        self.revision.load(Ordering::Acquire)
    }

    /// Follows [`Directory::revision`], for waiting until an index is in force (`wait_for`).
    pub fn revisions(&self) -> watch::Receiver<Revision> {
        self.revisions.subscribe()
    }

    /// Set by the writer when an entry's last change is in force (its [`Edit`] has been dropped).
    pub fn set_revision(&self, revision: Revision) {
        self.revision.store(revision, Ordering::Release);
        self.revisions.send_if_modified(|newest| std::mem::replace(newest, revision) != revision);
    }

    /// For the writer: a run of changes. Those of keys are in force when their call returns; those of accounts, tiers, routes
    /// and upstreams together when the run is dropped, and after [`Edit::reset`] everything is.
    pub fn edit(&self) -> Edit<'_> {
        Edit::new(self.writer.lock().expect("no writer panics"), &self.tables, &self.routes, &self.keys)
    }
}

/// The key that is looked for, if its record, its account and its rare part belong together: the record that was found is
/// unchanged after all of them were read. (A slot that was freed and filled again in between would mix two keys.)
fn found(tables: &Tables, find: impl Fn() -> Option<Seen>) -> Option<FoundKey> {
    loop {
        let seen = find()?;
        let (slot, words) = (seen.slot, &seen.words);
        let account = tables.accounts.at((words.meta >> 32) as u32);
        let rare = tables.rare(words);
        if !tables.is_still(&seen) {
            continue;
        }
        let ulid = (u128::from(words.ulid[0]) << 64) | u128::from(words.ulid[1]);
        let flag = |flag: u64| words.meta & flag != 0;
        let (name, number) = match rare.as_ref().and_then(|rare| rare.id.as_ref()) {
            Some(id) => (KeyText::Other(id.clone()), number::of_key(id)),
            None => (KeyText::Ulid(ulid), number::of_key_ulid(ulid)),
        };
        let mut account = Arc::clone(account?);
        if let Some(own) = rare.as_ref().and_then(|rare| rare.own.as_ref()) {
            account = own.over(account, || name.id());
        }
        return Some(FoundKey {
            name,
            env: if flag(tables::TEST_ENV) { Env::Test } else { Env::Live },
            state: match (flag(tables::REVOKED), flag(tables::DISABLED)) {
                (true, _) => KeyState::Revoked,
                (false, true) => KeyState::Disabled,
                (false, false) => KeyState::Active,
            },
            expires_at: flag(tables::HAS_EXPIRY).then_some(Timestamp(words.expires_at)),
            rare,
            account,
            slot,
            number,
        });
    }
}

#[cfg(test)]
mod tests;
