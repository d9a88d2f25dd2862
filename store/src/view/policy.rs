//! Tiers and overrides, compiled for the request path.

use std::sync::Arc;

use jiff::tz::TimeZone;

use crate::model::{Dimension, Gcra, Limit, Name, Overage, Period, Unit};

/// Everything that decides for an account: its tier with its overrides.
#[derive(Debug, Clone, PartialEq)]
pub struct Policies {
    /// Rate limits.
    pub limits: Vec<LimitPolicy>,
    /// Calendar quotas.
    pub quotas: Vec<QuotaPolicy>,
    /// Requests at once.
    pub concurrency: Option<u32>,
    /// Largest request body.
    pub max_body_bytes: Option<u64>,
    /// Routes allowed; none for all.
    pub routes: Option<Arc<[Name]>>,
    /// Days that rows are kept; none for the default.
    pub log_retention_days: Option<u16>,
    /// Revision of the tier or account that made them, the newer.
    pub revision: u64,
}

/// A compiled rate limit.
#[derive(Debug, Clone, PartialEq)]
pub struct LimitPolicy {
    /// As configured.
    pub limit: Limit,
    /// Its decision function.
    pub gcra: Gcra,
    /// What it counts apart, sorted.
    pub per: Vec<Dimension>,
    /// Distinguishes limits (and versions of one) in bucket names: a hash of name, dimensions, rate and burst.
    pub fingerprint: u64,
}

/// A compiled quota.
#[derive(Debug, Clone, PartialEq)]
pub struct QuotaPolicy {
    /// Its name.
    pub name: Name,
    /// What it counts.
    pub unit: Unit,
    /// Units a period.
    pub limit: u64,
    /// The calendar period.
    pub period: Period,
    /// Its timezone.
    pub zone: TimeZone,
    /// What happens above the limit.
    pub overage: Overage,
}
