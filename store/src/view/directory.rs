//! Keys, accounts, tiers, routes and tokens as the request path reads them: in memory, without a lock on the reader's side.

use std::sync::Arc;

use ipnet::IpNet;

use super::{Policies, RouteTable};
use crate::model::{AccountId, AccountState, Env, KeyHash, KeyId, KeyState, Name, Timestamp, Token};

/// A key as the request path sees it: a consistent copy.
#[derive(Debug, Clone)]
pub struct FoundKey {
    /// Public id.
    pub id: KeyId,
    /// Live or test.
    pub env: Env,
    /// Whether it works.
    pub state: KeyState,
    /// When it stops working.
    pub expires_at: Option<Timestamp>,
    /// What it may do.
    pub scopes: Arc<[Name]>,
    /// Networks it may come from; empty for any.
    pub allowed_ips: Arc<[IpNet]>,
    /// Whose it is.
    pub account: Arc<AccountView>,
    /// Stable number of the key on this node while it runs; names its buckets.
    pub slot: u32,
}

/// An account as the request path sees it.
#[derive(Debug)]
pub struct AccountView {
    /// Its id.
    pub id: AccountId,
    /// Whether its keys work.
    pub state: AccountState,
    /// Its tier's name.
    pub tier: Name,
    /// Region label; empty for none.
    pub region: Name,
    /// The tier's policies with the account's overrides, compiled.
    pub policies: Arc<Policies>,
    /// Stable number of the account on this node while it runs; names its buckets.
    pub slot: u32,
}

/// The directory. One writer (apply), any number of readers.
#[derive(Debug, Default)]
pub struct Directory {}

impl Directory {
    /// Looks a key up by the hash of its secret.
    pub fn key(&self, _hash: &KeyHash) -> Option<FoundKey> {
        todo!()
    }
    /// Looks a key up by its public id (explain, admin; not the hot path).
    pub fn key_by_id(&self, _id: &KeyId) -> Option<FoundKey> {
        todo!()
    }
    /// An account.
    pub fn account(&self, _id: &AccountId) -> Option<Arc<AccountView>> {
        todo!()
    }
    /// The routes and upstreams in force.
    pub fn routes(&self) -> arc_swap::Guard<Arc<RouteTable>> {
        todo!()
    }
    /// An admin token by the hash of its secret.
    pub fn token(&self, _hash: &KeyHash) -> Option<Arc<Token>> {
        todo!()
    }
    /// Keys held.
    pub fn len(&self) -> usize {
        todo!()
    }
    /// Whether it holds no key.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}
