//! Tiers and overrides, compiled for the request path. One file because overrides, resets and shadows are laid over the same
//! two lists of policies, one after the other.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use jiff::tz::TimeZone;

use super::number;
use crate::model::{
    Dimension, Gcra, KeyId, Limit, Name, Overage, Overrides, Period, PeriodBounds, Quota, Reset, Revision, Tier,
    Timestamp, Unit, Watch,
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
    /// Policies of the account that were reset.
    pub resets: Arc<[Reset]>,
    /// Some of them never refuse, and are evaluated all the same.
    pub has_shadow_limits: bool,
}

/// Who set a policy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    /// The tier.
    Tier,
    /// An override of the account.
    Account,
    /// An override of the key.
    Key,
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
    /// Who set it.
    pub source: Source,
    /// Revision of a key's override; units that were lent under an older one are void. 0 for all others.
    pub revision: u64,
    /// The limit of the same name that it replaced, in force again when this override ends.
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
    /// Day that its weeks or months begin on.
    pub anchor_day: u8,
    /// What happens above the limit; a shadow allows.
    pub overage: Overage,
    /// Evaluated and reported, never refusing.
    pub shadow: bool,
    /// Percentages of the limit that raise an alert.
    pub thresholds: Arc<[u16]>,
    /// The name of its counter in the ledger.
    pub counter: Name,
    /// Who set it.
    pub source: Source,
    /// When an override ends.
    pub expires_at: Option<Timestamp>,
    /// A hash of its counter's name, the same on every node.
    pub number: u64,
    /// The quota of the same name that it replaced, in force again when this override ends.
    pub fallback: Option<Box<QuotaPolicy>>,
    bounds: Bounds,
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

impl LimitPolicy {
    /// Itself, or when it has ended what it replaced.
    pub fn in_force(&self, now: Timestamp) -> Option<&Self> {
        let mut policy = self;
        while policy.limit.expires_at.is_some_and(|end| end <= now) {
            policy = policy.fallback.as_deref()?;
        }
        Some(policy)
    }

    fn new(limit: &Limit, resets: u32, source: Source) -> Self {
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

impl QuotaPolicy {
    /// Itself, or when it has ended what it replaced.
    pub fn in_force(&self, now: Timestamp) -> Option<&Self> {
        self.in_force_at(now).map(|(policy, _)| policy)
    }

    /// The same, and how many of those before it have ended.
    pub(crate) fn in_force_at(&self, now: Timestamp) -> Option<(&Self, usize)> {
        let (mut policy, mut ended) = (self, 0);
        while policy.expires_at.is_some_and(|end| end <= now) {
            policy = policy.fallback.as_deref()?;
            ended += 1;
        }
        Some((policy, ended))
    }

    /// What the ledger is to notice about a period's use.
    pub fn watch(&self, bounds: PeriodBounds) -> Watch {
        let thresholds = self.thresholds.to_vec();
        Watch { limit: self.limit, thresholds, shadow: self.shadow, period_end: bounds.end.unix_seconds() }
    }

    fn new(quota: &Quota, resets: u32, source: Source, key: Option<&KeyId>) -> Self {
        let counter = quota.counter(resets, key);
        Self {
            name: quota.name.clone(),
            unit: quota.unit,
            limit: quota.limit,
            period: quota.period,
            // Apply has looked the name up; a build that lost a timezone counts in UTC rather than not at all.
            zone: quota.time_zone().unwrap_or(TimeZone::UTC),
            anchor_day: quota.anchor_day.unwrap_or(1),
            overage: if quota.shadow { Overage::Allow } else { quota.overage },
            shadow: quota.shadow,
            thresholds: quota.thresholds().into(),
            source,
            expires_at: quota.expires_at,
            number: number::of_text("quota", &counter),
            counter,
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
        let bounds = self.period.bounds_from(&self.zone, self.anchor_day, at).unwrap_or_else(|_| beyond());
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
            shadow: false,
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
            anchor_day: None,
            thresholds: None,
            shadow: false,
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
        let compiled = |limit: &Limit| LimitPolicy::new(limit, 0, Source::Tier);
        let (old, new) = (compiled(&limit("a", "5/s", None)), compiled(&limit("a", "1/s", None)));
        assert_eq!(old.bucket(1, 2, 3), new.bucket(1, 2, 3));
        for (account, key, route) in [(9, 2, 3), (1, 9, 3), (1, 2, 9)] {
            assert_ne!(old.bucket(1, 2, 3), old.bucket(account, key, route));
        }
        let per_account = compiled(&Limit { per: vec![Dimension::Account], ..limit("a", "5/s", None) });
        assert_eq!(per_account.bucket(1, 2, 3), per_account.bucket(1, 8, 9));
        assert_ne!(per_account.fingerprint, old.fingerprint);
    }

    #[test]
    fn a_keys_own_policies_replace_by_name_count_alone_and_end_at_their_time() {
        let end = Timestamp::from_unix_seconds(1_000);
        let tier =
            Tier { limits: vec![limit("a", "5/s", None)], quotas: vec![quota("daily", 10, None)], ..Tier::default() };
        let base = Policies::compile(&tier, None, 3);
        let own = Overrides { limits: vec![limit("a", "9/s", Some(end))], quotas: vec![quota("daily", 7, Some(end))] };
        let of_key = |id: &str| base.of_key(&id.into(), &own, 8);
        let (one, two) = (of_key("key_1"), of_key("key_2"));
        let before = Timestamp::from_unix_seconds(999);
        let limit_of = |policies: &Policies, now| {
            let policy = policies.limits_at(now).next().expect("it has one");
            (policy.limit.rate.units, policy.source, policy.revision, policy.bucket(1, 2, 3))
        };
        let (shared, first, second) = (limit_of(&base, before), limit_of(&one, before), limit_of(&two, before));
        assert_eq!((first.0, first.1, first.2), (9, Source::Key, 8));
        assert!(first.3 != shared.3 && first.3 != second.3, "each its own bucket");
        assert_eq!(limit_of(&one, end), shared, "what it replaced is in force again");
        let counter = |policies: &Policies, now| policies.quotas_at(now).next().expect("it has one").counter.clone();
        assert_ne!(counter(&one, before), counter(&two, before));
        assert_eq!(counter(&one, end), counter(&base, before));
    }

    #[test]
    fn a_reset_begins_anew_for_the_policy_that_it_names_alone() {
        let tier = Tier {
            limits: vec![limit("a", "5/s", None), limit("b", "5/s", None)],
            quotas: vec![quota("daily", 10, None)],
            ..Tier::default()
        };
        let names = |resets: &[(&str, u32)]| {
            let reset =
                |(policy, count): &(&str, u32)| Reset { policy: (*policy).into(), count: *count, at: Timestamp(0) };
            let resets: Vec<Reset> = resets.iter().map(reset).collect();
            let policies = Policies::compile_reset(&tier, None, &resets, 0);
            let buckets: Vec<u64> = policies.limits.iter().map(|policy| policy.bucket(1, 2, 3)).collect();
            (buckets, policies.quotas[0].counter.clone())
        };
        let (never, once, twice) = (names(&[]), names(&[("a", 1)]), names(&[("a", 2), ("daily", 1)]));
        assert!(never.0[0] != once.0[0] && once.0[0] != twice.0[0] && never.0[0] != twice.0[0]);
        assert_eq!((never.0[1], &never.1), (twice.0[1], &once.1));
        assert_ne!(never.1, twice.1);
    }

    #[test]
    fn shadows_are_not_among_what_may_refuse() {
        let shadow = Limit { shadow: true, ..limit("s", "1/s", None) };
        let tier = Tier {
            limits: vec![limit("a", "5/s", None), shadow],
            quotas: vec![Quota { shadow: true, ..quota("q", 1, None) }],
            ..Tier::default()
        };
        let policies = Policies::compile(&tier, None, 0);
        let now = Timestamp(0);
        assert_eq!(policies.limits_at(now).map(|policy| policy.limit.name.to_string()).collect::<Vec<_>>(), ["a"]);
        assert_eq!(policies.shadow_limits_at(now).map(|p| p.limit.name.to_string()).collect::<Vec<_>>(), ["s"]);
        let quota = policies.quotas_at(now).next().expect("it is counted");
        assert_eq!((quota.overage, quota.shadow), (Overage::Allow, true));
        assert_eq!(policies.setting("s", now).as_str(), "1/s burst 3");
        assert_eq!(policies.setting("q", now).as_str(), "1/day");
    }

    #[test]
    fn remembered_bounds_are_the_calendars() {
        let policy = QuotaPolicy::new(&quota("daily", 1, None), 0, Source::Tier, None);
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
