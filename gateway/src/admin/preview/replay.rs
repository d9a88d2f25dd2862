//! Requests that were, decided once more by other policies: one account's, oldest first.
//!
//! It decides as the ledger's leader does (concurrency, rates, quotas; the first kind that refuses decides) over empty
//! buckets and quotas at the beginning. What a request would have taken had it not been refused then is what its route says.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BinaryHeap, HashMap},
    hash::{DefaultHasher, Hash, Hasher},
    sync::Arc,
};

use store::{
    model::{KeyId, Name, Overage, Timestamp, Unit},
    view::{LimitPolicy, Policies},
};

/// Requests that one row stands for and that are decided one by one; of a row with more the rest goes as the last one went.
const MOST_OF_A_ROW: u32 = 100_000;
const SECOND_US: i64 = 1_000_000;

/// A request that was.
#[derive(Debug, Clone)]
pub(super) struct Seen {
    pub(super) ts: Timestamp,
    pub(super) key: KeyId,
    pub(super) route: Name,
    pub(super) body_bytes: u64,
    pub(super) cost: u64,
    pub(super) duration_us: u64,
    /// It stands for so many, of the second that begins with it.
    pub(super) count: u32,
    /// It was refused then.
    pub(super) was_refused: bool,
}

/// What came of an account's requests.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Counts {
    pub(super) requests: u64,
    pub(super) refused: u64,
    pub(super) would_be_refused: u64,
    pub(super) by_policy: BTreeMap<Name, u64>,
    pub(super) by_shadow: BTreeMap<Name, u64>,
}

impl Counts {
    pub(super) fn add(&mut self, other: &Self) {
        self.requests += other.requests;
        self.refused += other.refused;
        self.would_be_refused += other.would_be_refused;
        for (mine, theirs) in [(&mut self.by_policy, &other.by_policy), (&mut self.by_shadow, &other.by_shadow)] {
            for (name, count) in theirs {
                *mine.entry(name.clone()).or_default() += count;
            }
        }
    }
}

/// An account's state while its requests are decided.
#[derive(Debug)]
pub(super) struct Replay {
    policies: Arc<Policies>,
    /// Of keys with policies of their own.
    of_keys: HashMap<KeyId, Arc<Policies>>,
    /// TATs, by bucket.
    buckets: HashMap<u64, u64>,
    /// By counter and start of the period.
    used: HashMap<(Name, i64), u64>,
    /// When those under way end, microseconds.
    under_way: BinaryHeap<Reverse<i64>>,
    counts: Counts,
}

impl Replay {
    pub(super) fn new(policies: Arc<Policies>, of_keys: HashMap<KeyId, Arc<Policies>>) -> Self {
        Self {
            policies,
            of_keys,
            buckets: HashMap::new(),
            used: HashMap::new(),
            under_way: BinaryHeap::new(),
            counts: Counts::default(),
        }
    }

    pub(super) fn into_counts(self) -> Counts {
        self.counts
    }

    /// Decides one; each must have arrived at or after those before it.
    pub(super) fn request(&mut self, seen: &Seen) {
        let all = u64::from(seen.count);
        self.counts.requests += all;
        self.counts.refused += if seen.was_refused { all } else { 0 };
        let one_by_one = seen.count.min(MOST_OF_A_ROW);
        for n in 0..one_by_one {
            let at = Timestamp(seen.ts.0 + i64::from(n) * SECOND_US / i64::from(seen.count.max(1)));
            let times = if n + 1 == one_by_one { all - u64::from(n) } else { 1 };
            let mut shadows = Vec::new();
            if let Err(policy) = self.decide(seen, at, &mut shadows) {
                self.counts.would_be_refused += times;
                *self.counts.by_policy.entry(policy).or_default() += times;
            }
            for policy in shadows {
                *self.counts.by_shadow.entry(policy).or_default() += times;
            }
        }
    }

    /// Takes what the request needs, or says what refuses it.
    fn decide(&mut self, seen: &Seen, at: Timestamp, shadows: &mut Vec<Name>) -> Result<(), Name> {
        let policies = self.of_keys.get(&seen.key).unwrap_or(&self.policies).clone();
        if policies.routes.as_ref().is_some_and(|routes| !routes.contains(&seen.route)) {
            return Err("routes".into());
        }
        if policies.max_body_bytes.is_some_and(|most| seen.body_bytes > most) {
            return Err("max_body_bytes".into());
        }
        while self.under_way.peek().is_some_and(|Reverse(end)| *end <= at.0) {
            self.under_way.pop();
        }
        if policies.concurrency.is_some_and(|most| self.under_way.len() as u64 >= u64::from(most)) {
            return Err("concurrency".into());
        }
        let now_ns = u64::try_from(at.0).unwrap_or(0).saturating_mul(1_000);
        let bucket = |policy: &LimitPolicy| policy.bucket(0, number(&seen.key), number(&seen.route));
        let mut taken = Vec::new();
        for policy in policies.limits_at(at) {
            let name = bucket(policy);
            let tat_ns = self.buckets.get(&name).copied().unwrap_or(0);
            match policy.gcra.take(tat_ns, now_ns, 1) {
                Ok(next) => taken.push((name, next)),
                Err(_) => return Err(policy.limit.name.clone()),
            }
        }
        let mut charged = Vec::new();
        for policy in policies.quotas_at(at) {
            let units = match policy.unit {
                Unit::Requests => 1,
                Unit::ContentBytes => seen.body_bytes,
                Unit::Cost => seen.cost,
            };
            let place = (policy.counter.clone(), policy.bounds(at).start.unix_seconds());
            let used = self.used.get(&place).copied().unwrap_or(0).saturating_add(units);
            if used > policy.limit {
                if policy.shadow {
                    shadows.push(policy.name.clone());
                } else if policy.overage == Overage::Block {
                    shadows.clear();
                    return Err(policy.name.clone());
                }
            }
            charged.push((place, used));
        }
        for policy in policies.shadow_limits_at(at) {
            let name = bucket(policy);
            match policy.gcra.take(self.buckets.get(&name).copied().unwrap_or(0), now_ns, 1) {
                Ok(next) => taken.push((name, next)),
                Err(_) => shadows.push(policy.limit.name.clone()),
            }
        }
        self.buckets.extend(taken);
        self.used.extend(charged);
        if policies.concurrency.is_some() {
            let lasts = i64::try_from(seen.duration_us).unwrap_or(i64::MAX);
            self.under_way.push(Reverse(at.0.saturating_add(lasts)));
        }
        Ok(())
    }
}

fn number(text: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    text.hash(&mut hasher);
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};
    use store::model::Tier;

    use super::*;

    fn replayed(tier: Value, requests: impl IntoIterator<Item = Seen>) -> Counts {
        let mut tier = tier;
        tier["name"] = "t".into();
        let tier: Tier = serde_json::from_value(tier).expect("a tier");
        let mut replay = Replay::new(Arc::new(Policies::compile(&tier, None, 0)), HashMap::new());
        requests.into_iter().for_each(|seen| replay.request(&seen));
        replay.into_counts()
    }

    fn at(ms: i64) -> Seen {
        Seen {
            ts: Timestamp(1_790_000_000_000_000 + ms * 1_000),
            key: "key_1".into(),
            route: "scan".into(),
            body_bytes: 1_000,
            cost: 3,
            duration_us: 50_000,
            count: 1,
            was_refused: false,
        }
    }

    fn of(counts: &Counts, name: &str) -> u64 {
        counts.by_policy.get(name).copied().unwrap_or(0)
    }

    #[test]
    fn limits_and_quotas_refuse_as_they_would_have() {
        let tier = json!({ "limits": [{ "name": "s", "rate": "5/s", "burst": 5 }] });
        // Ten a second for ten seconds against five: the burst, then every other one.
        let counts = replayed(tier, (0..100).map(|n| at(n * 100)));
        assert_eq!((counts.requests, counts.would_be_refused), (100, of(&counts, "s")));
        assert!((44..=48).contains(&counts.would_be_refused), "{counts:?}");
        let tier = json!({ "quotas": [{ "name": "d", "limit": 30, "period": "month", "unit": "cost" }] });
        let counts = replayed(tier, (0..100).map(|n| at(n * 100)));
        assert_eq!(of(&counts, "d"), 90, "ten times three units");
        let tier = json!({ "quotas": [{ "name": "d", "limit": 30, "period": "month", "overage": "allow" }] });
        assert_eq!(replayed(tier, (0..100).map(|n| at(n * 100))).would_be_refused, 0);
    }

    #[test]
    fn what_is_refused_by_one_policy_takes_from_no_other() {
        let tier = json!({
            "limits": [{ "name": "s", "rate": "1/h", "burst": 2 }],
            "quotas": [{ "name": "d", "limit": 3, "period": "month" }],
        });
        let counts = replayed(tier, (0..10).map(|n| at(n * 100)));
        assert_eq!((of(&counts, "s"), of(&counts, "d")), (8, 0));
    }

    #[test]
    fn concurrency_counts_what_overlaps_and_coalesced_rows_count_as_many() {
        let tier = json!({ "concurrency": 2 });
        // Four that overlap, then one when all have ended.
        let counts = replayed(tier, [at(0), at(10), at(20), at(30), at(100)]);
        assert_eq!(of(&counts, "concurrency"), 2);
        let tier = json!({ "limits": [{ "name": "s", "rate": "10/s", "burst": 10 }] });
        let many = Seen { count: 100, was_refused: true, ..at(0) };
        let counts = replayed(tier.clone(), [many]);
        assert_eq!((counts.requests, counts.refused), (100, 100));
        assert!((79..=82).contains(&counts.would_be_refused), "{counts:?}");
        let flood = Seen { count: 1_000_000, was_refused: true, ..at(0) };
        let counts = replayed(tier, [flood]);
        assert_eq!(counts.requests, 1_000_000);
        assert!(counts.would_be_refused > 999_900, "the rest goes as the last one went");
    }

    #[test]
    fn shadows_tell_and_never_refuse() {
        let tier = json!({
            "limits": [{ "name": "s", "rate": "1/h", "burst": 2, "shadow": true }],
            "quotas": [{ "name": "d", "limit": 3, "period": "month", "shadow": true }],
            "routes": ["scan"],
        });
        let counts = replayed(tier.clone(), (0..10).map(|n| at(n * 100)));
        assert_eq!(counts.would_be_refused, 0);
        assert_eq!(counts.by_shadow, BTreeMap::from([("s".into(), 8), ("d".into(), 7)]));
        let elsewhere = replayed(tier, [Seen { route: "other".into(), ..at(0) }]);
        assert_eq!(of(&elsewhere, "routes"), 1);
    }
}
