//! `/v1/accounts/{id}/limits`: where an account stands with each of its policies, cluster-wide.

use axum::{
    extract::{Path, State},
    response::Response,
};
use serde::Serialize;
use store::{
    PolicyNow,
    model::{Name, Timestamp},
};

use super::{Shared, access::Visitor, accounts, answer, params::Params, problem::Result};

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
