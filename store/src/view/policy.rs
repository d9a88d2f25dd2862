//! Tiers and overrides, compiled for the request path.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use jiff::tz::TimeZone;

use super::number;
use crate::model::{
    Dimension, Gcra, Limit, Name, Overage, Overrides, Period, PeriodBounds, Quota, Revision, Tier, Timestamp, Unit,
};

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
    /// Names its buckets: a hash of name and dimensions. A changed rate or burst keeps the bucket and what was taken from
    /// it, so that changing a limit gives nobody a fresh burst.
    pub fingerprint: u64,
    /// The tier's limit of the same name, in force again when this override ends.
    pub fallback: Option<Box<LimitPolicy>>,
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
    /// When an override ends.
    pub expires_at: Option<Timestamp>,
    /// A hash of its name, the same on every node.
    pub number: u64,
    /// The tier's quota of the same name, in force again when this override ends.
    pub fallback: Option<Box<QuotaPolicy>>,
    bounds: Bounds,
}

impl Policies {
    /// A tier's, with an account's overrides: each replaces the tier's policy of the same name, or adds to them.
    pub fn compile(tier: &Tier, overrides: Option<&Overrides>, account_revision: Revision) -> Self {
        let mut limits: Vec<_> = tier.limits.iter().map(LimitPolicy::new).collect();
        let mut quotas: Vec<_> = tier.quotas.iter().map(QuotaPolicy::new).collect();
        for limit in overrides.iter().flat_map(|overrides| &overrides.limits) {
            let mut policy = LimitPolicy::new(limit);
            match limits.iter_mut().find(|other| other.limit.name == limit.name) {
                Some(other) => {
                    let replaced = std::mem::replace(other, policy);
                    other.fallback = other.limit.expires_at.map(|_| Box::new(replaced));
                }
                None => {
                    policy.fallback = None;
                    limits.push(policy);
                }
            }
        }
        for quota in overrides.iter().flat_map(|overrides| &overrides.quotas) {
            let policy = QuotaPolicy::new(quota);
            match quotas.iter_mut().find(|other| other.name == quota.name) {
                Some(other) => {
                    let replaced = std::mem::replace(other, policy);
                    other.fallback = other.expires_at.map(|_| Box::new(replaced));
                }
                None => quotas.push(policy),
            }
        }
        Self {
            limits,
            quotas,
            concurrency: tier.concurrency,
            max_body_bytes: tier.max_body_bytes,
            routes: tier.routes.as_deref().map(Arc::from),
            log_retention_days: tier.log_retention_days,
            revision: tier.revision.max(account_revision),
        }
    }

    /// Of an account whose tier is not there (apply refuses that, so only while a directory is filled): nothing is allowed.
    pub fn closed() -> Self {
        Self { routes: Some(Arc::default()), concurrency: Some(0), ..Self::compile(&Tier::default(), None, 0) }
    }

    /// The limits in force at a time.
    pub fn limits_at(&self, now: Timestamp) -> impl Iterator<Item = &LimitPolicy> {
        self.limits.iter().filter_map(move |policy| policy.in_force(now))
    }

    /// The quotas in force at a time.
    pub fn quotas_at(&self, now: Timestamp) -> impl Iterator<Item = &QuotaPolicy> {
        self.quotas.iter().filter_map(move |policy| policy.in_force(now))
    }
}

impl LimitPolicy {
    /// Itself, or when it has ended the tier's that it replaced.
    pub fn in_force(&self, now: Timestamp) -> Option<&Self> {
        let mut policy = self;
        while policy.limit.expires_at.is_some_and(|end| end <= now) {
            policy = policy.fallback.as_deref()?;
        }
        Some(policy)
    }

    fn new(limit: &Limit) -> Self {
        let mut per = limit.per.clone();
        per.sort_unstable();
        per.dedup();
        let mut fingerprint = number::of_text("limit", &limit.name);
        for dimension in &per {
            fingerprint = number::join(fingerprint, *dimension as u64);
        }
        Self { gcra: limit.gcra(), limit: limit.clone(), per, fingerprint, fallback: None }
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

impl QuotaPolicy {
    /// Itself, or when it has ended the tier's that it replaced.
    pub fn in_force(&self, now: Timestamp) -> Option<&Self> {
        let mut policy = self;
        while policy.expires_at.is_some_and(|end| end <= now) {
            policy = policy.fallback.as_deref()?;
        }
        Some(policy)
    }

    fn new(quota: &Quota) -> Self {
        Self {
            name: quota.name.clone(),
            unit: quota.unit,
            limit: quota.limit,
            period: quota.period,
            // Apply has looked the name up; a build that lost a timezone counts in UTC rather than not at all.
            zone: quota.time_zone().unwrap_or(TimeZone::UTC),
            overage: quota.overage,
            expires_at: quota.expires_at,
            number: number::of_text("quota", &quota.name),
            fallback: None,
            bounds: Bounds::default(),
        }
    }

    /// The period that `at` falls in. The calendar is asked once a period.
    pub fn bounds(&self, at: Timestamp) -> PeriodBounds {
        if let Some(bounds) = self.bounds.holding(at) {
            return bounds;
        }
        // Beyond the calendar (year 9999) everything is one period.
        let beyond = || PeriodBounds { start: Timestamp(0), end: Timestamp(i64::MAX) };
        let bounds = self.period.bounds_in(&self.zone, at).unwrap_or_else(|_| beyond());
        self.bounds.remember(bounds);
        bounds
    }
}

/// The last period asked for. Start and length share one atomic, so that two threads at a boundary cannot mix them.
#[derive(Debug, Default)]
struct Bounds(AtomicU64);

/// Low bits hold the length in seconds (a month has under 2^22), the others the start in seconds since 1970.
const LENGTH_BITS: u32 = 22;

impl Bounds {
    fn holding(&self, at: Timestamp) -> Option<PeriodBounds> {
        let packed = self.0.load(Ordering::Relaxed);
        let start = (packed >> LENGTH_BITS).cast_signed() * 1_000_000;
        let end = start + (packed & ((1 << LENGTH_BITS) - 1)).cast_signed() * 1_000_000;
        (start <= at.0 && at.0 < end).then_some(PeriodBounds { start: Timestamp(start), end: Timestamp(end) })
    }

    fn remember(&self, bounds: PeriodBounds) {
        let (start, end) = (bounds.start.0, bounds.end.0);
        let seconds = (end.saturating_sub(start) / 1_000_000).cast_unsigned();
        let whole = start % 1_000_000 == 0 && end % 1_000_000 == 0;
        if start >= 0 && whole && seconds < 1 << LENGTH_BITS {
            self.0.store(((start / 1_000_000).cast_unsigned() << LENGTH_BITS) | seconds, Ordering::Relaxed);
        }
    }
}

impl Clone for Bounds {
    fn clone(&self) -> Self {
        Self(AtomicU64::new(self.0.load(Ordering::Relaxed)))
    }
}

/// What is remembered does not distinguish two policies.
impl PartialEq for Bounds {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limit(name: &str, rate: &str, expires_at: Option<Timestamp>) -> Limit {
        Limit {
            name: name.into(),
            per: vec![Dimension::Route, Dimension::Key, Dimension::Route],
            rate: rate.parse().expect("a rate"),
            burst: 3,
            expires_at,
        }
    }

    fn quota(name: &str, limit: u64, expires_at: Option<Timestamp>) -> Quota {
        Quota {
            name: name.into(),
            unit: Unit::Requests,
            limit,
            period: Period::Day,
            timezone: "Europe/Berlin".into(),
            overage: Overage::Block,
            expires_at,
        }
    }

    #[test]
    fn overrides_replace_by_name_or_add_and_end_at_their_time() {
        let end = Timestamp::from_unix_seconds(1_000);
        let tier = Tier {
            limits: vec![limit("a", "5/s", None), limit("b", "6/s", None)],
            quotas: vec![quota("daily", 10, None)],
            revision: 7,
            ..Tier::default()
        };
        let overrides = Overrides {
            limits: vec![limit("b", "60/s", Some(end)), limit("c", "1/s", Some(end))],
            quotas: vec![quota("daily", 100, Some(end)), quota("other", 1, None)],
        };
        let policies = Policies::compile(&tier, Some(&overrides), 9);
        let at = |seconds| {
            let now = Timestamp::from_unix_seconds(seconds);
            let limits: Vec<_> =
                policies.limits_at(now).map(|p| format!("{} {}", p.limit.name, p.limit.rate)).collect();
            let quotas: Vec<_> = policies.quotas_at(now).map(|p| format!("{} {}", p.name, p.limit)).collect();
            (limits.join(", "), quotas.join(", "))
        };
        assert_eq!(at(999), ("a 5/s, b 60/s, c 1/s".into(), "daily 100, other 1".into()));
        assert_eq!(at(1_000), ("a 5/s, b 6/s".into(), "daily 10, other 1".into()));
        assert_eq!(policies.revision, 9);
    }

    #[test]
    fn a_changed_rate_keeps_the_bucket_and_other_dimensions_have_another() {
        let (old, new) = (LimitPolicy::new(&limit("a", "5/s", None)), LimitPolicy::new(&limit("a", "1/s", None)));
        assert_eq!(old.bucket(1, 2, 3), new.bucket(1, 2, 3));
        for (account, key, route) in [(9, 2, 3), (1, 9, 3), (1, 2, 9)] {
            assert_ne!(old.bucket(1, 2, 3), old.bucket(account, key, route));
        }
        let per_account = LimitPolicy::new(&Limit { per: vec![Dimension::Account], ..limit("a", "5/s", None) });
        assert_eq!(per_account.bucket(1, 2, 3), per_account.bucket(1, 8, 9));
        assert_ne!(per_account.fingerprint, old.fingerprint);
    }

    #[test]
    fn remembered_bounds_are_the_calendars() {
        let policy = QuotaPolicy::new(&quota("daily", 1, None));
        // Two days around each daylight-saving change of Europe/Berlin in 2026, hour by hour, twice.
        for first in ["2026-03-28T00:30:00Z", "2026-10-24T00:30:00Z"] {
            let first: Timestamp = first.parse().expect("a time");
            for hour in (0..72).chain((0..72).rev()) {
                let at = first.plus_seconds(hour * 3_600);
                assert_eq!(Ok(policy.bounds(at)), Period::Day.bounds_in(&policy.zone, at));
            }
        }
        let before_1970 = Timestamp::from_unix_seconds(-5);
        assert_eq!(Ok(policy.bounds(before_1970)), Period::Day.bounds_in(&policy.zone, before_1970));
        assert_eq!(policy.bounds(Timestamp(i64::MAX)).end, Timestamp(i64::MAX));
    }
}
