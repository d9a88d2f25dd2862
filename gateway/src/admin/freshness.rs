//! Reads are linearizable unless they say `?consistency=stale` (contract, P4).

use std::sync::Arc;

use axum::{
    extract::{Query, Request, State},
    middleware::Next,
    response::Response,
};
use http::{HeaderName, Method};
use store::Store;
use tokio::runtime::Handle;

use super::{
    Admin,
    problem::{Code, FieldError, Problem, Result},
};

/// The parameter that every read has.
pub(crate) const PARAMETER: &str = "consistency";
/// Reads of what others change all the time.
const READS: usize = 8;
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

/// Reads until what the metadata name is found in the ledger. A replica of the metadata can be ahead of the ledger's: an
/// account whose name and metadata are not here yet must not look as if it had none.
pub(crate) async fn caught_up<T>(store: &Store, mut read: impl FnMut() -> Result<T>) -> Result<T> {
    for _ in 1..READS {
        match read() {
            Err(problem) if problem.is_behind() => store.barrier().await?,
            other => return other,
        }
    }
    read()
}

/// As [`caught_up`], on a thread that may block.
pub(crate) fn caught_up_blocking<T>(store: &Store, read: impl FnMut() -> Result<T>) -> Result<T> {
    Handle::current().block_on(caught_up(store, read))
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
