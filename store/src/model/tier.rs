//! Tiers: the policies that accounts share.

use minicbor::{Decode, Encode};
use serde::{Deserialize, Serialize};

use super::{Limit, Name, Quota, Revision};

/// What a limit counts apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Encode, Decode, Serialize, Deserialize)]
#[cbor(index_only)]
#[serde(rename_all = "kebab-case")]
pub enum Dimension {
    /// Each account.
    #[n(0)]
    Account,
    /// Each key.
    #[n(1)]
    Key,
    /// Each route.
    #[n(2)]
    Route,
}

/// A usage tier.
#[derive(Debug, Clone, PartialEq, Default, Encode, Decode, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tier {
    /// Its name.
    #[n(0)]
    #[serde(default)]
    pub name: Name,
    /// Rate limits; a request takes a unit of all or of none.
    #[n(1)]
    #[cbor(default)]
    #[serde(default)]
    pub limits: Vec<Limit>,
    /// Calendar quotas.
    #[n(2)]
    #[cbor(default)]
    #[serde(default)]
    pub quotas: Vec<Quota>,
    /// Requests at once an account; none for no limit.
    #[n(3)]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub concurrency: Option<u32>,
    /// Largest request body in bytes; none for the gateway's own bound.
    #[n(4)]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_body_bytes: Option<u64>,
    /// Routes its accounts may use; none for all.
    #[n(5)]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub routes: Option<Vec<Name>>,
    /// Days that rows are kept; none for the cluster's default.
    #[n(6)]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub log_retention_days: Option<u16>,
    /// Set by apply: the entry that last changed it.
    #[n(7)]
    #[cbor(default)]
    #[serde(default, skip_deserializing)]
    pub revision: Revision,
}
