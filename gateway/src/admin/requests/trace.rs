//! What decided a request that was: the step as its outcome says, and the policies as its row keeps them, beside what they
//! say now.

use serde::Serialize;
use store::{
    Store,
    model::{Decided, Name, Outcome, Row, Timestamp},
    view::FoundKey,
};

use crate::admin::explain::set_by;

/// See the module's head.
#[derive(Debug, Serialize)]
pub(super) struct Trace {
    /// The name that `explain` has for the step; none for a request that was let through.
    step: Option<&'static str>,
    detail: String,
    policies: Vec<Policy>,
}

#[derive(Debug, Serialize)]
struct Policy {
    policy: Name,
    kind: Option<&'static str>,
    setting: Name,
    shadow: bool,
    setting_now: Option<Name>,
    set_by: Option<String>,
}

impl Trace {
    pub(super) fn of(store: &Store, row: &Row) -> Self {
        let decided = Decided::read(&row.decided_by);
        let key = store.directory().key_by_id(&row.key_id);
        let now = Timestamp::now();
        let policies: Vec<Policy> = decided.into_iter().map(|decided| policy(decided, key.as_ref(), now)).collect();
        let (step, detail) = step(row, &policies);
        Self { step, detail, policies }
    }
}

fn policy(decided: Decided, key: Option<&FoundKey>, now: Timestamp) -> Policy {
    let Decided { policy, setting, shadow } = decided;
    let mut told = Policy { kind: None, setting, shadow, setting_now: None, set_by: None, policy };
    let Some(key) = key else { return told };
    let policies = &key.account.policies;
    let limit = policies.all_limits_at(now).find(|limit| limit.limit.name == told.policy);
    let quota = policies.quotas_at(now).find(|quota| quota.name == told.policy);
    let (kind, source) = match (limit, quota) {
        (Some(limit), _) => ("rate", Some(limit.source)),
        (None, Some(quota)) => ("quota", Some(quota.source)),
        (None, None) if told.policy.as_str() == "concurrency" && policies.concurrency.is_some() => {
            ("concurrency", None)
        }
        (None, None) => return told,
    };
    told.kind = Some(kind);
    told.setting_now = Some(policies.setting(&told.policy, now));
    told.set_by = Some(set_by(source, key));
    told
}

fn step(row: &Row, policies: &[Policy]) -> (Option<&'static str>, String) {
    let names: Vec<&str> =
        policies.iter().filter(|policy| !policy.shadow).map(|policy| policy.policy.as_str()).collect();
    let by = if names.is_empty() { "a policy".to_owned() } else { names.join(", ") };
    let tier = &row.tier;
    let route = &row.route;
    match row.outcome {
        Outcome::Admitted => (None, "the request was let through".into()),
        Outcome::MissingKey | Outcome::MalformedKey | Outcome::UnknownKey => {
            (Some("key"), "the key was not known".into())
        }
        Outcome::ExpiredKey => (Some("expiry"), "the key had expired".into()),
        Outcome::RevokedKey => (Some("key-state"), "the key was revoked".into()),
        Outcome::KeyDisabled => (Some("key-state"), "the key was switched off".into()),
        Outcome::AccountSuspended => (Some("account-state"), "the account was suspended".into()),
        Outcome::IpNotAllowed => (Some("ip"), "the key may not come from this address".into()),
        Outcome::ScopeMissing => (Some("scopes"), format!("the key lacked a scope that the route {route} asks for")),
        Outcome::RouteNotInTier => (Some("tier-routes"), format!("the tier {tier} did not have the route {route}")),
        Outcome::NoRoute => (Some("route"), "no route took it".into()),
        Outcome::BodyTooLarge => (Some("body-size"), "its body was too large".into()),
        Outcome::RateLimited => (Some("rate"), format!("{by} had no unit")),
        Outcome::QuotaExceeded => (Some("quota"), format!("{by} had no unit left in its period")),
        Outcome::ConcurrencyExceeded => {
            (Some("concurrency"), "as many requests were under way as may be at once".into())
        }
        Outcome::UpstreamUnreachable => (Some("upstream"), "it was let through; no upstream could be reached".into()),
        Outcome::UpstreamTimeout => {
            (Some("upstream"), "it was let through; the upstream did not answer in time".into())
        }
        Outcome::TemporaryReducedCapacity => (Some("capacity"), "the node could not commit its row in time".into()),
    }
}
