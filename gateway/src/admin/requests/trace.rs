//! What decided a request that was, as `explain` tells it of one that would be: step by step, and policy by policy with the
//! numbers of that instant and who had set each.
//!
//! The steps follow from the outcome (the first that fails decides). The policies are what the row keeps: those that
//! refused and those beside them, shadows that would have, and of a request that was let through the quotas that it was
//! charged to. What nobody kept is `null`, never what it is now.

use serde::Serialize;
use store::{
    Store,
    model::{Decided, Name, Outcome, Part, Quota, Row, Timestamp, Unit},
    view::FoundKey,
};

use crate::admin::explain::{Step, set_by};

/// See the module's head.
#[derive(Debug, Serialize)]
pub(super) struct Trace {
    /// The step that decided; none for a request that was let through.
    step: Option<&'static str>,
    detail: String,
    steps: Vec<Step>,
    policies: Vec<Policy>,
}

/// As `explain` has it, and what the policy said then and says now.
#[derive(Debug, Serialize)]
struct Policy {
    name: Name,
    kind: Option<&'static str>,
    unit: Option<&'static str>,
    limit: Option<u64>,
    used: Option<u64>,
    remaining: Option<u64>,
    needed: Option<u64>,
    passes: bool,
    shadow: bool,
    resets_at: Option<Timestamp>,
    set_by: Option<String>,
    setting: Option<Name>,
    setting_now: Option<Name>,
}

impl Trace {
    pub(super) fn of(store: &Store, row: &Row) -> Self {
        Self::told(row, store.directory().key_by_id(&row.key_id).as_ref())
    }

    fn told(row: &Row, key: Option<&FoundKey>) -> Self {
        let now = Timestamp::now();
        let mut policies: Vec<Policy> =
            Decided::read(&row.decided_by).into_iter().map(|decided| policy(decided, row, key, now)).collect();
        let decided = policies.len();
        for charge in &row.charges {
            let name = Quota::name_of_counter(&charge.quota);
            // A streamed answer's two records charge one after the other.
            match policies.iter().position(|policy| policy.name.as_str() == name) {
                Some(at) if at < decided => {}
                Some(at) => policies[at].needed = policies[at].needed.map(|units| units.saturating_add(charge.units)),
                None => policies.push(charged(name.into(), charge.units, key, now)),
            }
        }
        let (step, detail) = decider(row, &policies);
        Self { step, steps: steps(row, step, &detail), detail, policies }
    }
}

fn policy(decided: Decided, row: &Row, key: Option<&FoundKey>, now: Timestamp) -> Policy {
    let Decided { policy: name, setting, part, numbers } = decided;
    let shadow = part == Part::WouldRefuse;
    let needed = numbers.and_then(|numbers| {
        // What a shadow would have taken is what the request came to.
        let came_to = || match numbers.counted.unit() {
            unit if unit == Unit::ContentBytes.as_str() => row.bytes_in,
            unit if unit == Unit::Cost.as_str() => row.cost,
            _ => 1,
        };
        numbers.needed.or_else(|| shadow.then(came_to))
    });
    let remaining = numbers.and_then(|numbers| numbers.remaining);
    Policy {
        kind: numbers.map(|numbers| numbers.counted.kind()),
        unit: numbers.map(|numbers| numbers.counted.unit()),
        limit: numbers.map(|numbers| numbers.limit),
        used: numbers.and_then(|numbers| Some(numbers.limit.saturating_sub(numbers.remaining?))),
        remaining,
        needed,
        passes: part == Part::Passed,
        shadow,
        resets_at: numbers.and_then(|numbers| numbers.resets_at),
        set_by: numbers.map(|numbers| set_by(numbers.source, &row.key_id, &row.account, &row.tier)),
        setting_now: setting_now(&name, key, now),
        setting: Some(setting),
        name,
    }
}

/// A quota that let the request through.
fn charged(name: Name, units: u64, key: Option<&FoundKey>, now: Timestamp) -> Policy {
    Policy {
        kind: Some("quota"),
        unit: None,
        limit: None,
        used: None,
        remaining: None,
        needed: Some(units),
        passes: true,
        shadow: false,
        resets_at: None,
        set_by: None,
        setting: None,
        setting_now: setting_now(&name, key, now),
        name,
    }
}

/// What a policy of this name says now; none when there is none.
fn setting_now(name: &Name, key: Option<&FoundKey>, now: Timestamp) -> Option<Name> {
    let policies = &key?.account.policies;
    let is_there = policies.all_limits_at(now).any(|limit| limit.limit.name == *name)
        || policies.quotas_at(now).any(|quota| quota.name == *name)
        || name.as_str() == "concurrency" && policies.concurrency.is_some();
    is_there.then(|| policies.setting(name, now))
}

/// What a request passes before its policies, in the data plane's order; all before the one that failed it has passed.
fn steps(row: &Row, decided: Option<&'static str>, detail: &str) -> Vec<Step> {
    let Row { key_id, account, tier, route, method, path, .. } = row;
    let at_key = || Some(format!("/v1/keys/{key_id}"));
    let at_tier = || Some(format!("/v1/tiers/{tier}"));
    let at_route = || Some(format!("/v1/routes/{route}")).filter(|_| !route.is_empty());
    let address = row.client_ip.map_or_else(|| "its address".to_owned(), |ip| ip.to_string());
    let all = [
        ("key-state", "the key was active".to_owned(), at_key()),
        ("account-state", "the account was active".to_owned(), Some(format!("/v1/accounts/{account}"))),
        ("expiry", "the key had not expired".to_owned(), at_key()),
        ("ip", format!("the key may come from {address}"), at_key()),
        ("route", format!("the route {route} took {method} {path}"), at_route()),
        ("tier-routes", format!("the tier {tier} had the route"), at_tier()),
        ("scopes", "the key had the scopes that the route asks for".to_owned(), at_route()),
        ("body-size", "its body was not too large".to_owned(), None),
    ];
    // Policies and what comes after them are met by a request that has passed all of these.
    let failed = all.iter().position(|(step, ..)| Some(*step) == decided);
    let met = failed.map_or(all.len(), |at| at + 1);
    let told = |(at, (step, passed, set_by)): (usize, (&'static str, String, Option<String>))| {
        let passes = Some(at) != failed;
        let detail = if passes { passed } else { detail.to_owned() };
        Step { step, passes, outcome: (!passes).then_some(row.outcome), detail, set_by }
    };
    all.into_iter().take(met).enumerate().map(told).collect()
}

/// The step that decided, and why.
fn decider(row: &Row, policies: &[Policy]) -> (Option<&'static str>, String) {
    let refused = policies.iter().filter(|policy| !policy.shadow && !policy.passes);
    let names: Vec<&str> = refused.map(|policy| policy.name.as_str()).collect();
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
