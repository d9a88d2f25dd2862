//! What the ledger notices about quotas by itself: thresholds that were passed, and what was used beyond a limit.

use minicbor::{Decode, Encode};

use super::{AccountId, GroupId, Name, Timestamp};

/// Where an alert is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct AlertPlace {
    /// The ledger group.
    pub group: GroupId,
    /// Its entry.
    pub index: u64,
    /// Its number there.
    pub number: u32,
}

/// A quota's use has passed a threshold. Raised once a threshold and period, by the row that passed it.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Alert {
    /// When the newest row of the batch arrived that passed it.
    #[n(0)]
    pub at: Timestamp,
    /// Whose quota.
    #[n(1)]
    pub account: AccountId,
    /// The counter's name (see [`super::Quota::counter`]).
    #[n(2)]
    pub counter: Name,
    /// Start of the period, seconds since 1970.
    #[n(3)]
    pub period_start: i64,
    /// First instant of the next one.
    #[n(4)]
    pub period_end: i64,
    /// Percentage of the limit.
    #[n(5)]
    pub threshold: u16,
    /// The limit.
    #[n(6)]
    pub limit: u64,
    /// Units used with that row.
    #[n(7)]
    pub used: u64,
    /// The quota never refuses: it is a shadow.
    #[n(8)]
    #[cbor(default)]
    pub shadow: bool,
}

/// Units that a period has used beyond its quota's limit: what is billed apart.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct OverageRecord {
    /// The counter's name (see [`super::Quota::counter`]).
    #[n(0)]
    pub counter: Name,
    /// Start of the period, seconds since 1970.
    #[n(1)]
    pub period_start: i64,
    /// First instant of the next one.
    #[n(2)]
    pub period_end: i64,
    /// The limit.
    #[n(3)]
    pub limit: u64,
    /// Units used in all.
    #[n(4)]
    pub used: u64,
    /// The quota never refuses: it is a shadow, and nothing is to be billed.
    #[n(5)]
    #[cbor(default)]
    pub shadow: bool,
}
