//! `POST /v1/explain`: the decision that a request would meet now, step by step, with the numbers and who set each. Nothing
//! is consumed and nothing is called.
//!
//! It walks the same steps in the same order as the data plane (contract, "Data plane") over the same view of this node, and
//! asks the ledger's leader for the numbers. The first step that fails decides; the others are told as far as they can be.

use std::{net::IpAddr, sync::Arc};

use axum::{body::Bytes, extract::State, response::Response};
use serde::Serialize;
use store::{
    PolicyNow, Store,
    model::{
        AccountState, KeyHash, KeyId, KeyState, Name, Outcome, Overage, Secret, SecretKind, Source, Timestamp, Unit,
        is_within,
    },
    view::{FoundKey, LimitPolicy, RouteView},
};

use super::{
    Shared,
    access::Visitor,
    answer, forms,
    input::{self, Object},
    params::Params,
    problem::{Problem, Result},
};

/// A request as the caller tells it.
#[derive(Debug)]
struct Question {
    key: Presented,
    method: String,
    path: String,
    host: Option<String>,
    ip: Option<IpAddr>,
    body_bytes: u64,
}

#[derive(Debug)]
enum Presented {
    Id(KeyId),
    Secret(KeyHash),
    /// Its checksum is wrong.
    Malformed,
}

/// What was decided.
#[derive(Debug, Serialize)]
struct View {
    outcome: &'static str,
    admitted: bool,
    /// The step that decided; none when the request would be admitted.
    decided_by: Option<String>,
    account: Option<String>,
    key_id: Option<String>,
    tier: Option<String>,
    route: Option<String>,
    upstream: Option<String>,
    steps: Vec<Step>,
    policies: Vec<Policy>,
    at: Timestamp,
}

/// Something that the request has to pass.
#[derive(Debug, Serialize)]
pub(crate) struct Step {
    pub(crate) step: &'static str,
    pub(crate) passes: bool,
    /// What the request meets when it does not pass.
    pub(crate) outcome: Option<Outcome>,
    pub(crate) detail: String,
    /// The resource that set it.
    pub(crate) set_by: Option<String>,
}

/// A limit, quota or concurrency that counts the request.
#[derive(Debug, Serialize)]
struct Policy {
    name: Name,
    kind: &'static str,
    unit: &'static str,
    scope: Option<String>,
    limit: u64,
    used: u64,
    remaining: u64,
    /// Units that the request would take.
    needed: u64,
    passes: bool,
    /// It never refuses.
    shadow: bool,
    resets_at: Option<Timestamp>,
    set_by: String,
}

/// `POST /v1/explain`
pub(crate) async fn create(visitor: Visitor, State(admin): Shared, params: Params, body: Bytes) -> Result<Response> {
    params.finish()?;
    let question = input::read(input::required(&body)?, Question::read)?;
    let view = explain(&admin.store, &visitor, &question).await?;
    Ok(answer::plain(&view))
}

impl Question {
    fn read(object: &mut Object<'_>) -> Option<Self> {
        let secret = object.optional("key").map(|field| {
            field.text("an API key's text", |text| text.len() <= 256).map(|text| match Secret::check(&text) {
                Ok(SecretKind::Live | SecretKind::Test) => Presented::Secret(KeyHash::of(&text)),
                _ => Presented::Malformed,
            })
        });
        let id = object.optional("key_id").map(|field| {
            field.text("a key's id", |text| text.len() <= 64).map(|text| Presented::Id(text.as_str().into()))
        });
        let method = object.optional("method").map_or(Some("GET".to_owned()), |field| {
            field.text("a method in upper case, like POST", |text| {
                (1..=32).contains(&text.len()) && text.chars().all(|c| c.is_ascii_uppercase() || c == '-')
            })
        });
        let path = object.required("path").and_then(forms::path);
        let host = object.optional("host").map_or(Some(None), |field| {
            field
                .text("a host without port", |text| (1..=253).contains(&text.len()))
                .map(|text| Some(text.to_lowercase()))
        });
        let ip = object
            .optional("ip")
            .map_or(Some(None), |field| field.parsed("an address like 10.0.0.1 or 2001:db8::1", str::parse).map(Some));
        let body_bytes = object.optional("body_bytes").map_or(Some(0), |field| field.whole(0..=forms::MAX_WHOLE));
        let key = match (secret, id) {
            (Some(secret), None) => secret,
            (None, Some(id)) => id,
            _ => {
                object.tell("key_id", "give either key_id or key");
                None
            }
        };
        Some(Self { key: key?, method: method?, path: path?, host: host?, ip: ip?, body_bytes: body_bytes? })
    }
}

async fn explain(store: &Store, visitor: &Visitor, question: &Question) -> Result<View> {
    let now = Timestamp::now();
    let mut view = View {
        outcome: "admitted",
        admitted: true,
        decided_by: None,
        account: None,
        key_id: None,
        tier: None,
        route: None,
        upstream: None,
        steps: Vec::new(),
        policies: Vec::new(),
        at: now,
    };
    let found = match &question.key {
        Presented::Id(id) => store.directory().key_by_id(id),
        Presented::Secret(hash) => store.directory().key(hash),
        Presented::Malformed => {
            view.step("key", Err((Outcome::MalformedKey, "its checksum is wrong: mistyped or cut".into())), None);
            return Ok(view);
        }
    };
    // What the caller may not see is not there, like a key that nobody has made.
    let Some(key) = found.filter(|key| visitor.caller().covers(&key.account.id)) else {
        if let Presented::Id(id) = &question.key {
            return Err(Problem::not_found("key", id));
        }
        view.step("key", Err((Outcome::UnknownKey, "no key has this text".into())), None);
        return Ok(view);
    };
    let account = &key.account;
    view.account = Some(account.id.to_string());
    view.key_id = Some(key.id().to_string());
    view.tier = Some(account.tier.to_string());
    view.about_key(&key, question, now);

    let routes = store.directory().routes();
    let found = routes.find(question.host.as_deref(), &question.path, &question.method).cloned();
    let Some(route) = found else {
        let detail = format!("no route takes {} {}", question.method, question.path);
        view.step("route", Err((Outcome::NoRoute, detail)), None);
        return Ok(view);
    };
    view.route = Some(route.route.name.to_string());
    view.upstream = Some(route.route.upstream.to_string());
    view.about_route(&key, &route, question);

    let stands = store.limits_of(account, std::slice::from_ref(&key), std::slice::from_ref(&route)).await?;
    view.about_policies(&key, &route, stands, question, now);
    Ok(view)
}

impl View {
    fn step(
        &mut self,
        step: &'static str,
        met: std::result::Result<String, (Outcome, String)>,
        set_by: Option<String>,
    ) {
        let (passes, outcome, detail) = match met {
            Ok(detail) => (true, None, detail),
            Err((outcome, detail)) => (false, Some(outcome), detail),
        };
        if let Some(outcome) = outcome
            && self.admitted
        {
            self.outcome = outcome.as_str();
            self.admitted = false;
            self.decided_by = Some(step.to_owned());
        }
        self.steps.push(Step { step, passes, outcome, detail, set_by });
    }

    fn about_key(&mut self, key: &FoundKey, question: &Question, now: Timestamp) {
        let at_key = Some(format!("/v1/keys/{}", key.id()));
        let at_account = Some(format!("/v1/accounts/{}", key.account.id));
        self.step(
            "key-state",
            match key.state {
                KeyState::Active => Ok("the key is active".into()),
                KeyState::Disabled => Err((Outcome::KeyDisabled, "the key is switched off".into())),
                KeyState::Revoked => Err((Outcome::RevokedKey, "the key is revoked, for ever".into())),
            },
            at_key.clone(),
        );
        self.step(
            "account-state",
            match key.account.state {
                AccountState::Active => Ok("the account is active".into()),
                AccountState::Suspended => Err((Outcome::AccountSuspended, "the account is suspended".into())),
            },
            at_account,
        );
        self.step(
            "expiry",
            match key.expires_at {
                Some(at) if at <= now => Err((Outcome::ExpiredKey, format!("the key has expired at {at}"))),
                Some(at) => Ok(format!("the key expires at {at}")),
                None => Ok("the key does not expire".into()),
            },
            at_key.clone(),
        );
        let nets = || key.allowed_ips().iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
        self.step(
            "ip",
            match question.ip.map(|ip| ip.to_canonical()) {
                _ if key.allowed_ips().is_empty() => Ok("the key may come from anywhere".into()),
                Some(ip) if is_within(key.allowed_ips(), ip) => Ok(format!("{ip} is in {}", nets())),
                Some(ip) => Err((Outcome::IpNotAllowed, format!("{ip} is not in {}", nets()))),
                None => Err((Outcome::IpNotAllowed, format!("the key may come from {} alone: say ip", nets()))),
            },
            at_key,
        );
    }

    fn about_route(&mut self, key: &FoundKey, route: &Arc<RouteView>, question: &Question) {
        let route = &route.route;
        let policies = &key.account.policies;
        let (at_route, at_tier) =
            (Some(format!("/v1/routes/{}", route.name)), Some(format!("/v1/tiers/{}", key.account.tier)));
        self.step(
            "route",
            Ok(format!("the route {} takes {} {}", route.name, question.method, question.path)),
            at_route.clone(),
        );
        self.step(
            "tier-routes",
            match &policies.routes {
                Some(routes) if !routes.contains(&route.name) => Err((
                    Outcome::RouteNotInTier,
                    format!("the tier {} does not have the route {}", key.account.tier, route.name),
                )),
                Some(_) => Ok(format!("the tier has the route {}", route.name)),
                None => Ok("the tier has all routes".into()),
            },
            at_tier.clone(),
        );
        let missing = route.scopes.iter().find(|scope| !key.scopes().contains(scope));
        self.step(
            "scopes",
            match missing {
                Some(scope) => Err((Outcome::ScopeMissing, format!("the key lacks the scope {scope}"))),
                None if route.scopes.is_empty() => Ok("the route asks for no scope".into()),
                None => Ok(format!("the key has {}", route.scopes.join(", "))),
            },
            at_route.clone(),
        );
        let bounds = [(route.max_body_bytes, &at_route), (policies.max_body_bytes, &at_tier)];
        let least = bounds.into_iter().filter_map(|(bound, by)| Some((bound?, by))).min_by_key(|(bound, _)| *bound);
        let (met, set_by) = match least {
            Some((bound, by)) if question.body_bytes > bound => (
                Err((Outcome::BodyTooLarge, format!("{} bytes are more than {bound}", question.body_bytes))),
                by.clone(),
            ),
            Some((bound, by)) => (Ok(format!("{} bytes of at most {bound}", question.body_bytes)), by.clone()),
            None => (Ok("only the node's own bound holds".into()), None),
        };
        self.step("body-size", met, set_by);
    }

    fn about_policies(
        &mut self,
        key: &FoundKey,
        route: &Arc<RouteView>,
        mut stands: Vec<PolicyNow>,
        question: &Question,
        now: Timestamp,
    ) {
        let policies = &key.account.policies;
        // Buckets that are full are not told; what nobody has used is whole.
        for limit in policies.all_limits_at(now) {
            if !stands.iter().any(|known| known.kind == "rate" && known.name == limit.limit.name) {
                stands.push(full(limit, key, route));
            }
        }
        let order = |policy: &PolicyNow| ["concurrency", "rate", "quota"].iter().position(|kind| *kind == policy.kind);
        stands.sort_by_key(order);
        for stand in stands {
            let quota = policies.quotas_at(now).find(|quota| stand.kind == "quota" && quota.name == stand.name);
            let needed = match quota.map(|quota| quota.unit) {
                None | Some(Unit::Requests) => 1,
                Some(Unit::ContentBytes) => question.body_bytes,
                Some(Unit::Cost) => route.route.reserved_cost(question.body_bytes),
            };
            let passes = stand.remaining >= needed
                || quota.is_some_and(|quota| quota.overage == Overage::Allow && !quota.shadow);
            let set_by = set_by(stand.source.unwrap_or(Source::Tier), &key.id(), &key.account.id, &key.account.tier);
            if !passes && !stand.shadow && self.admitted {
                let outcome = match stand.kind {
                    "rate" => Outcome::RateLimited,
                    "quota" => Outcome::QuotaExceeded,
                    _ => Outcome::ConcurrencyExceeded,
                };
                self.outcome = outcome.as_str();
                self.admitted = false;
                self.decided_by = Some(stand.name.to_string());
            }
            self.policies.push(Policy {
                name: stand.name,
                kind: stand.kind,
                unit: stand.unit,
                scope: Some(stand.scope).filter(|scope| !scope.is_empty()),
                limit: stand.limit,
                used: stand.used,
                remaining: stand.remaining,
                needed,
                passes,
                shadow: stand.shadow,
                resets_at: stand.resets_at,
                set_by,
            });
        }
    }
}

/// The resource that set a policy.
pub(crate) fn set_by(source: Source, key: &str, account: &str, tier: &str) -> String {
    match source {
        Source::Key => format!("/v1/keys/{key}"),
        Source::Account => format!("/v1/accounts/{account}"),
        Source::Tier => format!("/v1/tiers/{tier}"),
    }
}

/// A limit that nobody has used for a while.
fn full(policy: &LimitPolicy, key: &FoundKey, route: &Arc<RouteView>) -> PolicyNow {
    let limit = &policy.limit;
    let scope = policy.per.iter().filter_map(|dimension| match dimension {
        store::model::Dimension::Account => None,
        store::model::Dimension::Key => Some(format!("key={}", key.id())),
        store::model::Dimension::Route => Some(format!("route={}", route.route.name)),
    });
    PolicyNow {
        kind: "rate",
        name: limit.name.clone(),
        unit: "requests",
        scope: scope.collect::<Vec<_>>().join(","),
        limit: limit.burst,
        used: 0,
        remaining: limit.burst,
        reserved: 0,
        unsettled: 0,
        shadow: limit.shadow,
        overage: 0,
        source: Some(policy.source),
        resets_at: None,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn refused(body: Value) -> Vec<String> {
        let problem = input::read(body, Question::read).expect_err("refused");
        problem.errors().iter().map(|error| error.pointer.clone()).collect()
    }

    #[test]
    fn questions_read_and_refuse() {
        let good =
            json!({ "key_id": "key_1", "path": "/v3/scan", "method": "POST", "ip": "10.0.0.1", "host": "API.test" });
        let question = input::read(good, Question::read).expect("reads");
        assert_eq!((question.method.as_str(), question.host.as_deref()), ("POST", Some("api.test")));
        assert_eq!(refused(json!({})), ["/path", "/key_id"]);
        assert_eq!(refused(json!({ "key": "x", "key_id": "y", "path": "z", "ip": "1" })), ["/path", "/ip", "/key_id"]);
        let question = input::read(json!({ "key": "tg_live_nonsense", "path": "/" }), Question::read).expect("reads");
        assert!(matches!(question.key, Presented::Malformed));
    }
}
