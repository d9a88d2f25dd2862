//! A quota, and the calendar's answer that it remembers.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use jiff::tz::TimeZone;

use super::Source;
use crate::{
    model::{KeyId, Name, Overage, Period, PeriodBounds, Quota, Timestamp, Unit, Watch},
    view::number,
};

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
    edition: Edition,
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

    pub(super) fn new(quota: &Quota, resets: u32, source: Source, key: Option<&KeyId>) -> Self {
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
            edition: Edition::next(),
        }
    }

    /// The same number means the same policy, on this node: who has seen it need not compare. Policies that are equal may have
    /// different ones.
    pub(crate) fn edition(&self) -> u64 {
        self.edition.0
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

/// Tells compiled policies apart without reading them.
#[derive(Debug, Clone)]
struct Edition(u64);

impl Edition {
    fn next() -> Self {
        static LAST: AtomicU64 = AtomicU64::new(0);
        Self(LAST.fetch_add(1, Ordering::Relaxed) + 1)
    }
}

/// When it was compiled does not distinguish two policies.
impl PartialEq for Edition {
    fn eq(&self, _: &Self) -> bool {
        true
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
