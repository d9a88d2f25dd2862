//! How an account stands with the leader, for the admin API.

use std::{sync::Arc, time::Duration};

use super::{Leases, bucket::Wanted, group::Wants, peek};
use crate::{
    model::{Dimension, KeyId, Name, Timestamp, Unavailable},
    view::{AccountView, FoundKey, LimitPolicy, RouteView},
};

/// Buckets looked at, at most: an account with a thousand keys on a hundred routes is shown in part.
const LEVELS: usize = 10_000;
/// Full ones among those of single keys and routes that are listed, at most: who asks wants to see what was used.
const FULL: usize = 1_000;

/// How an account stands with the leader: rates and concurrency. Quotas are in the replicated state.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Levels {
    /// Requests under way, cluster-wide; none without a concurrency limit.
    pub concurrent: Option<u64>,
    /// Rate limits: those of the whole account, and those of each key and route; of the latter that are full, not more
    /// than some.
    pub rates: Vec<Level>,
}

/// One rate bucket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Level {
    /// The limit's name.
    pub limit: Name,
    /// Of this key alone.
    pub key: Option<KeyId>,
    /// It never refuses.
    pub shadow: bool,
    /// On this route alone.
    pub route: Option<Name>,
    /// Units at most.
    pub burst: u64,
    /// Units that could be taken now.
    pub remaining: u64,
    /// Until it is full again.
    pub full_after: Duration,
}

/// A bucket's limit, key and route.
type Named<'a> = (&'a LimitPolicy, Option<&'a FoundKey>, Option<&'a Arc<RouteView>>);

impl Leases {
    /// How an account stands with the leader, for these of its keys and these routes.
    ///
    /// # Errors
    /// No leader to ask.
    pub async fn levels(
        &self,
        account: &AccountView,
        keys: &[FoundKey],
        routes: &[Arc<RouteView>],
        now: Timestamp,
    ) -> Result<Levels, Unavailable> {
        let mut named: Vec<Named<'_>> = Vec::new();
        for policy in account.policies.all_limits_at(now) {
            let keys = subjects(policy, Dimension::Key, keys);
            let routes = subjects(policy, Dimension::Route, routes);
            for key in &keys {
                named.extend(routes.iter().map(|route| (policy, *key, *route)));
            }
        }
        named.truncate(LEVELS);
        let wanted = |(policy, key, route): &Named<'_>| Wanted {
            name: policy.bucket(account.number, key.map_or(0, |key| key.number), route.map_or(0, |route| route.number)),
            emission_ns: policy.gcra.emission_ns,
            capacity_ns: policy.gcra.capacity_ns,
            revision: account.policy_revision().max(policy.revision),
            since_ns: 0,
        };
        let demand = Wants {
            account: account.number,
            slot: None,
            concurrency: account.policies.concurrency,
            rates: named.iter().map(wanted).collect(),
        };
        let group = self.inner.group(self.inner.authority.group(&account.id));
        let (verdict, clock_ns) = Box::pin(peek::look(&group, &demand)).await?;
        let rates = named.iter().zip(&verdict.rates).map(|((policy, key, route), level)| Level {
            limit: policy.limit.name.clone(),
            shadow: policy.limit.shadow,
            key: key.map(FoundKey::id),
            route: route.map(|route| route.route.name.clone()),
            burst: policy.limit.burst,
            remaining: policy.gcra.remaining(level.tat_ns, clock_ns),
            full_after: Duration::from_nanos(policy.gcra.full_after_ns(level.tat_ns, clock_ns)),
        });
        let mut full = 0;
        Ok(Levels {
            concurrent: account.policies.concurrency.map(|_| verdict.in_use),
            rates: rates
                .filter(|level| {
                    let is_wanted = (level.key.is_none() && level.route.is_none()) || !level.full_after.is_zero();
                    full += usize::from(!is_wanted);
                    is_wanted || full <= FULL
                })
                .collect(),
        })
    }
}

/// Each subject that a limit counts apart, or one for all.
fn subjects<'a, T>(policy: &LimitPolicy, dimension: Dimension, all: &'a [T]) -> Vec<Option<&'a T>> {
    if policy.per.contains(&dimension) { all.iter().map(Some).collect() } else { vec![None] }
}
