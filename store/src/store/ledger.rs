//! Reads of the ledger. They look at many blocks, so they run on a thread that may block.

use std::sync::Arc;

use super::{ReadError, RowPage, RowQuery, Store, UsagePoint, UsageQuery, merge};
use crate::{
    model::{AccountId, Alert, AlertPlace, Name, Overage, OverageRecord, RequestId, Row, Source, Timestamp},
    platform,
    state::{self, State},
    view::{AccountView, FoundKey, LimitPolicy, RouteView},
};

/// A limit or quota as it stands.
#[derive(Debug, Clone)]
pub struct PolicyNow {
    /// `rate`, `quota` or `concurrency`.
    pub kind: &'static str,
    /// Its name.
    pub name: Name,
    /// What it counts.
    pub unit: &'static str,
    /// For a limit counted per key or route: which one (`key=key_…,route=scan`); empty for the account.
    pub scope: String,
    /// Units a period, or the burst of a rate.
    pub limit: u64,
    /// Units used.
    pub used: u64,
    /// Units left.
    pub remaining: u64,
    /// Reserved by nodes and not yet used (quotas).
    pub reserved: u64,
    /// Reserved by incarnations that are gone; counted as used for the period.
    pub unsettled: u64,
    /// It never refuses.
    pub shadow: bool,
    /// Units used beyond the limit.
    pub overage: u64,
    /// Who set it; none for the concurrency, which is the tier's.
    pub source: Option<Source>,
    /// When it is whole again.
    pub resets_at: Option<Timestamp>,
}

/// All of an account's.
pub type LimitsNow = Vec<PolicyNow>;

/// Keys of an account whose own buckets are listed by [`Store::limits_now`].
const LISTED_KEYS: usize = 100;

/// Reads a state on a thread that may block.
pub(super) async fn read<T: Send + 'static>(
    state: Arc<State>,
    look: impl FnOnce(&State) -> Result<T, state::ReadError> + Send + 'static,
) -> Result<T, ReadError> {
    blocking(move || Ok(look(&state)?)).await
}

async fn blocking<T: Send + 'static>(
    look: impl FnOnce() -> Result<T, ReadError> + Send + 'static,
) -> Result<T, ReadError> {
    platform::blocking(look).await.map_err(|error| ReadError::Storage { reason: error.to_string(), file: None })?
}

impl Store {
    /// Reads an account's state.
    async fn read_of<T: Send + 'static>(
        &self,
        account: &AccountId,
        look: impl FnOnce(&State) -> Result<T, state::ReadError> + Send + 'static,
    ) -> Result<T, ReadError> {
        read(self.state_of(account), look).await
    }

    /// Rows, newest first.
    ///
    /// # Errors
    /// The disk, or a bad cursor.
    pub async fn requests(&self, query: RowQuery) -> Result<RowPage, ReadError> {
        let states = match &query.account {
            Some(account) => self.states_of(account).into_iter().rev().collect(),
            None => self.ledger_states(),
        };
        match &states[..] {
            [(_, one)] => read(Arc::clone(one), move |state| state.rows(&query)).await,
            _ => blocking(move || merge::rows(&states, &query)).await,
        }
    }

    /// One row, joined.
    ///
    /// # Errors
    /// The disk.
    pub async fn request(&self, id: RequestId) -> Result<Option<Row>, ReadError> {
        for (_, state) in self.ledger_states() {
            if let Some(row) = read(state, move |state| state.row(id)).await? {
                return Ok(Some(row));
            }
        }
        Ok(None)
    }

    /// Alerts that quotas' use has raised, newest first, before one; each with its place.
    ///
    /// # Errors
    /// The disk.
    pub async fn alerts(
        &self,
        before: Option<AlertPlace>,
        limit: usize,
        mut takes: impl FnMut(&Alert) -> bool + Send + 'static,
    ) -> Result<Vec<(AlertPlace, Alert)>, ReadError> {
        let states = self.ledger_states();
        match &states[..] {
            [(_, one)] => read(Arc::clone(one), move |state| state.alerts(before, limit, &mut takes)).await,
            _ => blocking(move || merge::alerts(&states, before, limit, &mut takes)).await,
        }
    }

    /// What an account's quotas have used beyond their limits.
    ///
    /// # Errors
    /// The disk.
    pub async fn overages(&self, account: AccountId) -> Result<Vec<OverageRecord>, ReadError> {
        let mut all: Vec<OverageRecord> = Vec::new();
        for (_, state) in self.states_of(&account) {
            let account = account.clone();
            let older = read(state, move |state| state.overages(&account)).await?;
            // A period that went on in a younger group is counted on there.
            let is_new = |record: &OverageRecord| {
                !all.iter().any(|one| one.counter == record.counter && one.period_start == record.period_start)
            };
            let older: Vec<_> = older.into_iter().filter(is_new).collect();
            all.extend(older);
        }
        Ok(all)
    }

    /// Usage of an account.
    ///
    /// # Errors
    /// The disk.
    pub async fn usage(&self, query: UsageQuery) -> Result<Vec<UsagePoint>, ReadError> {
        let states = self.states_of(&query.account);
        match &states[..] {
            [(_, one)] => read(Arc::clone(one), move |state| state.usage(&query)).await,
            _ => {
                blocking(move || {
                    let states: Vec<&State> = states.iter().map(|(_, state)| &**state).collect();
                    Ok(state::usage_over(&states, &query)?)
                })
                .await
            }
        }
    }

    /// An account's limits and quotas as they stand, cluster-wide.
    ///
    /// # Errors
    /// No leader to ask.
    pub async fn limits_now(&self, account: &AccountId) -> Result<LimitsNow, ReadError> {
        let Some(view) = self.directory().account(account) else { return Ok(Vec::new()) };
        let keys = self.keys(account, None, LISTED_KEYS)?;
        let keys: Vec<_> = keys.iter().filter_map(|key| self.directory().key_by_id(&key.id)).collect();
        let (own, keys): (Vec<_>, Vec<_>) = keys.into_iter().partition(|key| key.account.of_key().is_some());
        let routes: Vec<_> =
            self.routes()?.iter().filter_map(|route| self.directory().routes().by_name(&route.name).cloned()).collect();
        let mut all = self.limits_of(&view, &keys, &routes).await?;
        for key in own {
            let of_key = self.limits_of(&key.account.clone(), &[key], &routes).await?;
            // What is not its own it shares with the account, or counts for itself under the account's limit.
            all.extend(of_key.into_iter().filter(|now| now.source == Some(Source::Key) || now.scope.contains("key=")));
        }
        Ok(all)
    }

    /// The same, of these keys and routes alone: what one request with one key on one route would meet.
    ///
    /// # Errors
    /// No leader to ask.
    pub async fn limits_of(
        &self,
        view: &AccountView,
        keys: &[FoundKey],
        routes: &[Arc<RouteView>],
    ) -> Result<LimitsNow, ReadError> {
        let now = Timestamp::now();
        let levels = self.leases().levels(view, keys, routes, now).await?;
        let mut all = Vec::new();
        for level in levels.rates {
            let key = level.key.map(|key| format!("key={key}"));
            let route = level.route.map(|route| format!("route={route}"));
            let scope: Vec<String> = key.into_iter().chain(route).collect();
            let source = view.policies.all_limits_at(now).find(|policy| policy.limit.name == level.limit);
            let full_after = i64::try_from(level.full_after.as_micros()).unwrap_or(i64::MAX);
            all.push(PolicyNow {
                kind: "rate",
                name: level.limit,
                unit: "requests",
                scope: scope.join(","),
                limit: level.burst,
                used: level.burst.saturating_sub(level.remaining),
                remaining: level.remaining,
                reserved: 0,
                unsettled: 0,
                shadow: level.shadow,
                overage: 0,
                source: source.map(|policy: &LimitPolicy| policy.source),
                resets_at: Some(Timestamp(now.0.saturating_add(full_after))),
            });
        }
        if let (Some(limit), Some(used)) = (view.policies.concurrency, levels.concurrent) {
            let limit = u64::from(limit);
            all.push(PolicyNow {
                kind: "concurrency",
                name: "concurrency".into(),
                unit: "concurrent-requests",
                scope: String::new(),
                limit,
                used,
                remaining: limit.saturating_sub(used),
                reserved: 0,
                unsettled: 0,
                shadow: false,
                overage: 0,
                source: None,
                resets_at: None,
            });
        }
        for quota in view.policies.quotas_at(now) {
            let bounds = quota.bounds(now);
            let (account, name) = (view.id.clone(), quota.counter.clone());
            let start = bounds.start.unix_seconds();
            let stands = self.read_of(&view.id, move |state| state.quota(&account, &name, start)).await?;
            let taken = stands.used.saturating_add(stands.reserved).saturating_add(stands.unsettled);
            all.push(PolicyNow {
                kind: "quota",
                name: quota.name.clone(),
                unit: quota.unit.as_str(),
                scope: match (quota.source, view.of_key()) {
                    (Source::Key, Some(key)) => format!("key={key}"),
                    _ => String::new(),
                },
                limit: quota.limit,
                used: stands.used,
                // What nodes hold and have not spent can still be spent.
                remaining: quota.limit.saturating_sub(taken.saturating_sub(stands.reserved)),
                reserved: stands.reserved,
                unsettled: stands.unsettled,
                shadow: quota.shadow,
                // A quota that refuses has none: what is above its limit was used before that was lowered.
                overage: if quota.overage == Overage::Allow { stands.used.saturating_sub(quota.limit) } else { 0 },
                source: Some(quota.source),
                resets_at: Some(bounds.end),
            });
        }
        Ok(all)
    }
}
