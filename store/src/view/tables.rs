//! The directory's tables: what a reader takes hold of in one step.

use std::{collections::HashMap, sync::Arc};

use ipnet::IpNet;

use super::{
    AccountView,
    index::Index,
    number,
    own::OwnPolicies,
    record::{Record, Words},
    slots::{Chunks, Places, Slots},
};
use crate::model::{KeyHash, KeyId, Name, Token};

/// 256 KiB of records at a time.
const RECORDS: usize = 4_096;
const PLACES: usize = 1_024;

/// Flags in the low half of a record's `meta`.
pub(super) const HAS_EXPIRY: u64 = 1 << 0;
pub(super) const TEST_ENV: u64 = 1 << 1;
pub(super) const DISABLED: u64 = 1 << 2;
pub(super) const REVOKED: u64 = 1 << 3;

/// A clone shares indexes, records and places; it is made when one of them grew, and when accounts or tokens changed.
#[derive(Debug, Clone)]
pub(super) struct Tables {
    pub(super) key_by_hash: Arc<Index>,
    pub(super) key_by_id: Arc<Index>,
    pub(super) records: Chunks<Record>,
    pub(super) rares: Slots<Rare>,
    pub(super) account_by_id: Arc<Index>,
    pub(super) accounts: Places<AccountView>,
    pub(super) tokens: Arc<HashMap<KeyHash, Arc<Token>>>,
}

/// A record as it was when it was found.
#[derive(Debug, Clone, Copy)]
pub(super) struct Seen {
    pub(super) slot: u32,
    sequence: u64,
    pub(super) words: Words,
}

/// What most keys do not have.
#[derive(Debug)]
pub(super) struct Rare {
    /// An id that is not `key_` and a ULID.
    pub(super) id: Option<KeyId>,
    pub(super) scopes: Arc<[Name]>,
    pub(super) allowed_ips: Arc<[IpNet]>,
    /// Policies of its own.
    pub(super) own: Option<OwnPolicies>,
}

impl Default for Tables {
    fn default() -> Self {
        let index = || Arc::new(Index::with_room(0));
        Self {
            key_by_hash: Arc::new(Index::with_hints(0)),
            key_by_id: index(),
            records: Chunks::new(RECORDS),
            rares: Slots::new(PLACES),
            account_by_id: index(),
            accounts: Places::default(),
            tokens: Arc::default(),
        }
    }
}

impl Tables {
    /// The key with this hash of its secret.
    pub(super) fn by_hash(&self, hash: &KeyHash) -> Option<Seen> {
        let halves = hash_halves(hash);
        let hash = index_hash_of_secret(halves);
        // The account is on its way while the key is looked for: two chains of cache misses side by side.
        if let Some(account) = self.key_by_hash.hint(hash).and_then(|account| self.accounts.at(account)) {
            account.touch();
        }
        self.find(&self.key_by_hash, hash, |words| words.hash == halves)
    }

    /// The key with this id.
    pub(super) fn by_id(&self, id: &str) -> Option<Seen> {
        self.by_number(number::of_key(id), number::key_ulid(id), id)
    }

    /// As [`Tables::by_id`], with what has been made of the id already.
    pub(super) fn by_number(&self, number: u64, ulid: Option<u128>, id: &str) -> Option<Seen> {
        self.find(&self.key_by_id, index_hash(number), |words| match ulid {
            Some(ulid) => words.ulid == ulid_halves(ulid),
            None => self.rare(words).is_some_and(|rare| rare.id.as_deref() == Some(id)),
        })
    }

    /// The record that was confirmed is the one that is used: read again, its slot may have gone to another key.
    fn find(&self, index: &Index, hash: u32, is_it: impl Fn(&Words) -> bool) -> Option<Seen> {
        let mut seen = None;
        index.find(hash, |slot| {
            seen = self.records.at(slot).map(|record| {
                let (sequence, words) = record.read();
                Seen { slot, sequence, words }
            });
            seen.is_some_and(|seen| is_it(&seen.words))
        })?;
        seen
    }

    /// Whether nothing of the key has changed since it was seen.
    pub(super) fn is_still(&self, seen: &Seen) -> bool {
        self.records.at(seen.slot).is_some_and(|record| record.is_still(seen.sequence))
    }

    /// What most keys do not have, of this one.
    pub(super) fn rare(&self, words: &Words) -> Option<Arc<Rare>> {
        let slot = (words.rare as u32).checked_sub(1)?;
        self.rares.at(slot)?.load_full()
    }

    /// Slot and view of an account.
    pub(super) fn account(&self, id: &str) -> Option<(u32, Arc<AccountView>)> {
        let mut found = None;
        let slot = self.account_by_id.find(index_hash(number::of_text("account", id)), |slot| {
            found = self.accounts.at(slot).filter(|view| view.id.as_str() == id);
            found.is_some()
        })?;
        found.map(|view| (slot, Arc::clone(view)))
    }
}

/// The part of a secret's hash that a record keeps: 128 bits cannot be hit by anyone who does not have the secret.
pub(super) fn hash_halves(hash: &KeyHash) -> [u64; 2] {
    let half = |at: usize| u64::from_le_bytes(hash.0[at..at + 8].try_into().expect("eight bytes of a hash"));
    [half(0), half(8)]
}

pub(super) fn ulid_halves(ulid: u128) -> [u64; 2] {
    [(ulid >> 64) as u64, ulid as u64]
}

/// Place in the index of hashes: SHA-256 needs no more mixing.
pub(super) fn index_hash_of_secret(halves: [u64; 2]) -> u32 {
    halves[0] as u32
}

/// Place of a number in an index.
pub(super) fn index_hash(number: u64) -> u32 {
    (number >> 32) as u32
}
