//! Tiers and overrides, compiled for the request path: overrides, resets and shadows are laid over two lists of policies, one
//! after the other.

mod limit;
mod quota;

use std::sync::Arc;

pub use limit::LimitPolicy;
pub use quota::QuotaPolicy;

use super::number;
use crate::model::{Dimension, KeyId, Limit, Name, Overrides, Quota, Reset, Revision, Source, Tier, Timestamp, Unit};

/// Everything that decides for an account: its tier with its overrides.
#[derive(Debug, Clone, PartialEq)]
pub struct Policies {
    /// Rate limits. Some may have ended: see [`Policies::limits_at`].
    pub limits: Vec<LimitPolicy>,
    /// Calendar quotas. Some may have ended: see [`Policies::quotas_at`].
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
    /// Policies of the account that were reset.
    pub resets: Arc<[Reset]>,
    /// Some of them never refuse, and are evaluated all the same.
    pub has_shadow_limits: bool,
}

impl Policies {
    /// A tier's, with an account's overrides: each replaces the tier's policy of the same name, or adds to them.
    pub fn compile(tier: &Tier, overrides: Option<&Overrides>, account_revision: Revision) -> Self {
        Self::compile_reset(tier, overrides, &[], account_revision)
    }

    /// The same, of an account some of whose policies were reset.
    pub fn compile_reset(
        tier: &Tier,
        overrides: Option<&Overrides>,
        resets: &[Reset],
        account_revision: Revision,
    ) -> Self {
        let count = |name: &Name| resets.iter().find(|reset| reset.policy == *name).map_or(0, |reset| reset.count);
        let limit = |source, limit: &Limit| LimitPolicy::new(limit, count(&limit.name), source);
        let quota = |source, quota: &Quota| QuotaPolicy::new(quota, count(&quota.name), source, None);
        let mut policies = Self {
            limits: tier.limits.iter().map(|of_tier| limit(Source::Tier, of_tier)).collect(),
            quotas: tier.quotas.iter().map(|of_tier| quota(Source::Tier, of_tier)).collect(),
            concurrency: tier.concurrency,
            max_body_bytes: tier.max_body_bytes,
            routes: tier.routes.as_deref().map(Arc::from),
            log_retention_days: tier.log_retention_days,
            revision: tier.revision.max(account_revision),
            resets: resets.into(),
            has_shadow_limits: false,
        };
        for own in overrides.iter().flat_map(|overrides| &overrides.limits) {
            policies.replace_limit(limit(Source::Account, own));
        }
        for own in overrides.iter().flat_map(|overrides| &overrides.quotas) {
            policies.replace_quota(quota(Source::Account, own));
        }
        policies.note_shadows();
        policies
    }

    /// With a key's own policies laid over them. Each counts the key alone, whatever else it counts apart.
    pub fn of_key(&self, key: &KeyId, overrides: &Overrides, key_revision: Revision) -> Self {
        let mut policies = self.clone();
        let count = |name: &Name| self.resets.iter().find(|reset| reset.policy == *name).map_or(0, |reset| reset.count);
        for own in &overrides.limits {
            let mut own = own.clone();
            own.per.push(Dimension::Key);
            let mut policy = LimitPolicy::new(&own, count(&own.name), Source::Key);
            // Never the bucket of an account's limit that happens to count keys apart in the same way: what was lent from
            // that one knows nothing of this key's revision.
            policy.fingerprint = number::join(policy.fingerprint, number::of_text("own", key));
            policy.revision = key_revision;
            policies.replace_limit(policy);
        }
        for own in &overrides.quotas {
            policies.replace_quota(QuotaPolicy::new(own, count(&own.name), Source::Key, Some(key)));
        }
        policies.note_shadows();
        policies
    }

    fn note_shadows(&mut self) {
        let chain = |policy| std::iter::successors(Some(policy), |policy: &&LimitPolicy| policy.fallback.as_deref());
        self.has_shadow_limits = self.limits.iter().flat_map(chain).any(|policy| policy.limit.shadow);
    }

    fn replace_limit(&mut self, policy: LimitPolicy) {
        match self.limits.iter_mut().find(|other| other.limit.name == policy.limit.name) {
            Some(other) => {
                let replaced = std::mem::replace(other, policy);
                other.fallback = other.limit.expires_at.map(|_| Box::new(replaced));
            }
            None => self.limits.push(policy),
        }
    }

    fn replace_quota(&mut self, policy: QuotaPolicy) {
        match self.quotas.iter_mut().find(|other| other.name == policy.name) {
            Some(other) => {
                let replaced = std::mem::replace(other, policy);
                other.fallback = other.expires_at.map(|_| Box::new(replaced));
            }
            None => self.quotas.push(policy),
        }
    }

    /// What rows are told of a policy: its setting at a time, by its name.
    pub fn setting(&self, name: &str, now: Timestamp) -> Name {
        if let Some(limit) =
            self.limits.iter().filter_map(|policy| policy.in_force(now)).find(|policy| *policy.limit.name == *name)
        {
            return format!("{} burst {}", limit.limit.rate, limit.limit.burst).into();
        }
        if let Some(quota) = self.quotas_at(now).find(|quota| *quota.name == *name) {
            let (unit, period) = (quota.unit.as_str(), quota.period.as_str());
            let unit = if quota.unit == Unit::Requests { String::new() } else { format!(" {unit}") };
            return format!("{}{unit}/{period}", quota.limit).into();
        }
        self.concurrency.map(|limit| limit.to_string()).unwrap_or_default().into()
    }

    /// Of an account whose tier is not there (apply refuses that, so only while a directory is filled): nothing is allowed.
    pub fn closed() -> Self {
        Self { routes: Some(Arc::default()), concurrency: Some(0), ..Self::compile(&Tier::default(), None, 0) }
    }

    /// The limits in force at a time that may refuse.
    pub fn limits_at(&self, now: Timestamp) -> impl Iterator<Item = &LimitPolicy> {
        self.all_limits_at(now).filter(|policy| !policy.limit.shadow)
    }

    /// The limits in force at a time, shadows among them.
    pub fn all_limits_at(&self, now: Timestamp) -> impl Iterator<Item = &LimitPolicy> {
        self.limits.iter().filter_map(move |policy| policy.in_force(now))
    }

    /// The limits in force at a time that never refuse.
    pub fn shadow_limits_at(&self, now: Timestamp) -> impl Iterator<Item = &LimitPolicy> {
        self.all_limits_at(now).filter(|policy| policy.limit.shadow)
    }

    /// The quotas in force at a time, shadows among them.
    pub fn quotas_at(&self, now: Timestamp) -> impl Iterator<Item = &QuotaPolicy> {
        self.quotas.iter().filter_map(move |policy| policy.in_force(now))
    }
}

#[cfg(test)]
mod tests;
