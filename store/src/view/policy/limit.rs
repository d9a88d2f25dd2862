//! A rate limit.

use super::Source;
use crate::{
    model::{Dimension, Gcra, Limit, Timestamp},
    view::number,
};

/// A compiled rate limit.
#[derive(Debug, Clone, PartialEq)]
pub struct LimitPolicy {
    /// As configured.
    pub limit: Limit,
    /// Its decision function.
    pub gcra: Gcra,
    /// What it counts apart, sorted.
    pub per: Vec<Dimension>,
    /// Names its buckets: a hash of name and dimensions. A changed rate or burst keeps the bucket and what was taken from
    /// it, so that changing a limit gives nobody a fresh burst.
    pub fingerprint: u64,
    /// Who set it.
    pub source: Source,
    /// Revision of a key's override; units that were lent under an older one are void. 0 for all others.
    pub revision: u64,
    /// The limit of the same name that it replaced, in force again when this override ends.
    pub fallback: Option<Box<LimitPolicy>>,
}

impl LimitPolicy {
    /// Itself, or when it has ended what it replaced.
    pub fn in_force(&self, now: Timestamp) -> Option<&Self> {
        let mut policy = self;
        while policy.limit.expires_at.is_some_and(|end| end <= now) {
            policy = policy.fallback.as_deref()?;
        }
        Some(policy)
    }

    pub(super) fn new(limit: &Limit, resets: u32, source: Source) -> Self {
        let mut per = limit.per.clone();
        per.sort_unstable();
        per.dedup();
        let mut fingerprint = number::of_text("limit", &limit.name);
        for dimension in &per {
            fingerprint = number::join(fingerprint, *dimension as u64);
        }
        if resets > 0 {
            fingerprint = number::join(fingerprint, u64::from(resets) << 8);
        }
        let (gcra, limit) = (limit.gcra(), limit.clone());
        Self { gcra, limit, per, fingerprint, source, revision: 0, fallback: None }
    }

    /// The name of the bucket that a request takes from. Always the account's own, whatever it counts apart within.
    pub fn bucket(&self, account: u64, key: u64, route: u64) -> u64 {
        let mut name = number::join(self.fingerprint, account);
        for dimension in &self.per {
            match dimension {
                Dimension::Account => {}
                Dimension::Key => name = number::join(name, key),
                Dimension::Route => name = number::join(name, route),
            }
        }
        name
    }
}
