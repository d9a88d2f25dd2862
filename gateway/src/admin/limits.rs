//! `/v1/accounts/{id}/limits`: where an account stands with each of its policies, cluster-wide; and setting one of them back
//! to its beginning.

use axum::{
    body::Bytes,
    extract::{Path, State},
    response::Response,
};
use serde::Serialize;
use serde_json::{Value, json};
use store::{
    PolicyNow,
    model::{Account, Name, Overrides, Reset, Role, Timestamp},
};

use super::{
    Shared,
    access::Visitor,
    accounts, answer, change,
    draft::{Draft, Effect, Kind},
    etag::Condition,
    input,
    params::Params,
    problem::{Code, Problem, Result},
};

/// Policies of one account that can have been reset.
const MAX_RESETS: usize = 64;
/// Keys that are read at once.
const AT_ONCE: usize = 1_000;

/// A policy as the API shows it.
#[derive(Debug, Serialize)]
struct View {
    name: Name,
    kind: &'static str,
    unit: &'static str,
    /// Which key or route, for a limit that counts them apart.
    scope: Option<String>,
    limit: u64,
    used: u64,
    remaining: u64,
    reserved: u64,
    unsettled: u64,
    /// Units used beyond the limit.
    overage: u64,
    shadow: bool,
    resets_at: Option<Timestamp>,
}

impl From<PolicyNow> for View {
    fn from(now: PolicyNow) -> Self {
        Self {
            name: now.name,
            kind: now.kind,
            unit: now.unit,
            scope: Some(now.scope).filter(|scope| !scope.is_empty()),
            limit: now.limit,
            used: now.used,
            remaining: now.remaining,
            reserved: now.reserved,
            unsettled: now.unsettled,
            overage: now.overage,
            shadow: now.shadow,
            resets_at: now.resets_at,
        }
    }
}

/// `GET /v1/accounts/{id}/limits`
pub(crate) async fn get(
    visitor: Visitor,
    State(admin): Shared,
    Path(id): Path<String>,
    params: Params,
) -> Result<Response> {
    params.finish()?;
    let account = accounts::existing(&visitor, &admin.store, &id)?;
    let now = admin.store.limits_now(&account.id).await?;
    let views: Vec<View> = now.into_iter().map(View::from).collect();
    Ok(answer::list(views, None))
}

/// `POST /v1/accounts/{id}/limits/{name}/reset`: what was used of it is forgotten, by the account and by its keys.
pub(crate) async fn reset(
    visitor: Visitor,
    State(admin): Shared,
    Path((id, name)): Path<(String, String)>,
    condition: Condition,
    params: Params,
    body: Bytes,
) -> Result<Response> {
    let writer = visitor.require(Role::Operator)?;
    params.finish()?;
    let value = input::parse(&body)?;
    change::one(&admin, &writer, &body, |draft| draft_reset(draft, &id, &name, condition, value.clone())).await
}

/// An account one of whose policies begins anew: its counters get other names, so that no unit that was reserved or lent
/// under the old ones counts, and the change is in force everywhere like any other.
pub(crate) fn draft_reset(
    draft: &mut Draft<'_>,
    id: &str,
    name: &str,
    condition: Condition,
    body: Value,
) -> Result<Effect> {
    draft.require(Role::Operator)?;
    input::read(if body.is_null() { json!({}) } else { body }, |_| Some(()))?;
    let ((account, profile), expect) = draft.account(id)?.change(Kind::Account, id, condition)?;
    let (mut account, profile) = (account.clone(), profile.clone());
    if !has_policy(draft, &account, name)? {
        let detail = format!("the account {id:?} has no limit or quota named {name:?}");
        return Err(Problem::new(Code::NotFound, detail));
    }
    let (at, in_all) = (draft.now, account.resets.len());
    match account.resets.iter_mut().find(|reset| *reset.policy == *name) {
        Some(reset) => (reset.count, reset.at) = (reset.count.saturating_add(1), at),
        None if in_all >= MAX_RESETS => {
            let detail = format!("policies of {MAX_RESETS} names were reset already: no more can be");
            return Err(Problem::new(Code::NotPossible, detail));
        }
        None => account.resets.push(Reset { policy: name.into(), count: 1, at }),
    }
    let view = accounts::view(&account, &profile);
    draft.put_account(condition, expect, account, profile, false);
    Ok(Effect::changed(Kind::Account, id, view))
}

fn has_policy(draft: &mut Draft<'_>, account: &Account, name: &str) -> Result<bool> {
    let among = |overrides: &Overrides| {
        let mut names = overrides.limits.iter().map(|limit| &limit.name);
        names.any(|of| **of == *name) || overrides.quotas.iter().any(|quota| *quota.name == *name)
    };
    if among(&account.overrides) {
        return Ok(true);
    }
    if let Some(tier) = &draft.tier(&account.tier)?.value {
        let of_tier = Overrides { limits: tier.limits.clone(), quotas: tier.quotas.clone() };
        if among(&of_tier) {
            return Ok(true);
        }
    }
    let mut after: Option<String> = None;
    loop {
        let some = draft.store.keys(&account.id, after.as_deref(), AT_ONCE)?;
        let Some(last) = some.last() else { return Ok(false) };
        after = Some(last.id.to_string());
        if some.iter().any(|key| among(&key.overrides)) {
            return Ok(true);
        }
    }
}
