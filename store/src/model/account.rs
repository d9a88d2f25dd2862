//! Accounts: what group 0 replicates everywhere, and the profile that stays with the account's rows.

use std::collections::BTreeMap;

use minicbor::{Decode, Encode};
use serde::{Deserialize, Serialize};

use super::{AccountId, Limit, Name, Quota, Revision, Timestamp};

/// Whether an account's keys work.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Encode, Decode, Serialize, Deserialize)]
#[cbor(index_only)]
#[serde(rename_all = "kebab-case")]
pub enum AccountState {
    /// Requests are served.
    #[default]
    #[n(0)]
    Active,
    /// Every request is refused with `account-suspended`.
    #[n(1)]
    Suspended,
}

/// Replaces a tier's policies of the same name, for one account.
#[derive(Debug, Clone, PartialEq, Default, Encode, Decode, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Overrides {
    /// Limits that replace the tier's of the same name, or add to them.
    #[n(0)]
    #[cbor(default)]
    pub limits: Vec<Limit>,
    /// Quotas that replace the tier's of the same name, or add to them.
    #[n(1)]
    #[cbor(default)]
    pub quotas: Vec<Quota>,
}

impl Overrides {
    /// Whether nothing is replaced.
    pub fn is_empty(&self) -> bool {
        self.limits.is_empty() && self.quotas.is_empty()
    }
}

/// A limit or quota of an account that an operator has set back to its beginning.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode, Serialize)]
pub struct Reset {
    /// The policy's name.
    #[n(0)]
    pub policy: Name,
    /// How often: each begins a counter of its own.
    #[n(1)]
    pub count: u32,
    /// When last.
    #[n(2)]
    pub at: Timestamp,
}

/// An account as group 0 knows it: no personal data.
#[derive(Debug, Clone, PartialEq, Encode, Decode)]
pub struct Account {
    /// `acct_` and a ULID, or the caller's slug.
    #[n(0)]
    pub id: AccountId,
    /// The tier that sets its policies.
    #[n(1)]
    pub tier: Name,
    /// Whether its keys work.
    #[n(2)]
    #[cbor(default)]
    pub state: AccountState,
    /// Region its data is pinned to; empty for none.
    #[n(3)]
    #[cbor(default)]
    pub region: Name,
    /// Policies of its own.
    #[n(4)]
    #[cbor(default)]
    pub overrides: Overrides,
    /// When it was made.
    #[n(5)]
    pub created_at: Timestamp,
    /// Which staged profile in its ledger group is the published one; empty for none.
    #[n(6)]
    #[cbor(default)]
    pub profile: String,
    /// Set by apply: the entry that last changed it.
    #[n(7)]
    #[cbor(default)]
    pub revision: Revision,
    /// Policies that were reset, by name.
    #[n(8)]
    #[cbor(default)]
    pub resets: Vec<Reset>,
}

/// Name and metadata of an account: kept in its ledger group, never in the global directory.
#[derive(Debug, Clone, PartialEq, Default, Encode, Decode)]
pub struct Profile {
    /// What people call it.
    #[n(0)]
    #[cbor(default)]
    pub name: String,
    /// The caller's JSON object, values as JSON text (kept verbatim).
    #[n(1)]
    #[cbor(default)]
    pub metadata: BTreeMap<String, String>,
}
