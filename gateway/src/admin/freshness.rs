//! Reads are linearizable unless they say `?consistency=stale` (contract, P4).

use std::sync::Arc;

use axum::{
    extract::{Query, Request, State},
    middleware::Next,
    response::Response,
};
use http::{HeaderName, Method};

use super::{
    Admin,
    problem::{Code, FieldError, Problem, Result},
};

/// The parameter that every read has.
pub(crate) const PARAMETER: &str = "consistency";
const STALENESS: HeaderName = HeaderName::from_static("tollgate-staleness-ms");

/// Waits until this replica has all that was answered before, or says how old it is. Changes are made from what is read,
/// so they wait too.
pub(crate) async fn layer(State(admin): State<Arc<Admin>>, request: Request, next: Next) -> Result<Response> {
    if request.method() == Method::GET && is_stale(&request)? {
        let age_ms = u64::try_from(admin.store.staleness().as_millis()).unwrap_or(u64::MAX);
        let mut response = next.run(request).await;
        response.headers_mut().insert(STALENESS, age_ms.into());
        return Ok(response);
    }
    admin.store.barrier().await?;
    Ok(next.run(request).await)
}

fn is_stale(request: &Request) -> Result<bool> {
    let Ok(Query(pairs)) = Query::<Vec<(String, String)>>::try_from_uri(request.uri()) else { return Ok(false) };
    match pairs.iter().find(|(name, _)| name == PARAMETER).map(|(_, value)| value.as_str()) {
        None | Some("linearizable") => Ok(false),
        Some("stale") => Ok(true),
        Some(other) => Err(Problem::invalid(
            Code::MalformedQuery,
            vec![FieldError {
                pointer: format!("?{PARAMETER}"),
                detail: format!("{other:?} does not fit; expected one of linearizable, stale"),
            }],
        )),
    }
}
