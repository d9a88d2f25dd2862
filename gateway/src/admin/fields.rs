//! `?fields=id,name`: of an object, or of each of a list, only these.

use axum::{
    body::{Body, to_bytes},
    extract::{MatchedPath, Query, Request, State},
    middleware::Next,
    response::{IntoResponse, Response},
};
use http::{Method, header};
use serde_json::Value;

use super::{
    api::Fields,
    problem::{Code, FieldError, Problem, Result},
};

/// The parameter that every read of objects has.
pub(crate) const PARAMETER: &str = "fields";
/// Largest answer that is cut: a page of a thousand of the largest objects.
const MAX_BYTES: usize = 64 << 20;

pub(crate) async fn layer(State(known): State<Fields>, request: Request, next: Next) -> Result<Response> {
    let wanted = if request.method() == Method::GET { wanted(&request)? } else { None };
    let Some(wanted) = wanted else { return Ok(next.run(request).await) };
    let path = request.extensions().get::<MatchedPath>().map(MatchedPath::as_str).unwrap_or_default();
    let Some(known) = known.0.get(path.strip_prefix("/v1").unwrap_or(path)) else {
        return Err(refused("is not a parameter here".to_owned()));
    };
    if let Some(unknown) = wanted.iter().find(|name| !known.contains(*name)) {
        let known: Vec<&str> = known.iter().map(String::as_str).collect();
        return Err(refused(format!("{unknown:?} is not a field; expected some of {}", known.join(", "))));
    }
    let response = next.run(request).await;
    if !response.status().is_success() {
        return Ok(response);
    }
    let (mut parts, body) = response.into_parts();
    let unreadable = || Problem::new(Code::Internal, "the answer could not be cut to its fields");
    let body = to_bytes(body, MAX_BYTES).await.map_err(|_| unreadable())?;
    let mut value: Value = serde_json::from_slice(&body).map_err(|_| unreadable())?;
    let keep = |object: &mut Value| {
        if let Some(map) = object.as_object_mut() {
            map.retain(|name, _| wanted.contains(name));
        }
    };
    // A list is told from an object by what it has beside its items; no object has that.
    let is_list = value.get("next_cursor").is_some();
    match value.get_mut("data").and_then(Value::as_array_mut) {
        Some(items) if is_list => items.iter_mut().for_each(keep),
        _ => keep(&mut value),
    }
    parts.headers.remove(header::CONTENT_LENGTH);
    Ok((parts, Body::from(value.to_string())).into_response())
}

fn wanted(request: &Request) -> Result<Option<Vec<String>>> {
    let Ok(Query(pairs)) = Query::<Vec<(String, String)>>::try_from_uri(request.uri()) else { return Ok(None) };
    let mut found = pairs.iter().filter(|(name, _)| name == PARAMETER).map(|(_, value)| value);
    let Some(names) = found.next() else { return Ok(None) };
    if found.next().is_some() {
        return Err(refused("is given more than once".to_owned()));
    }
    Ok(Some(names.split(',').map(str::to_owned).collect()))
}

fn refused(detail: String) -> Problem {
    Problem::invalid(Code::MalformedQuery, vec![FieldError { pointer: format!("?{PARAMETER}"), detail }])
}
