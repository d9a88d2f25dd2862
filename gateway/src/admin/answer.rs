//! The forms of answers.

use axum::{
    Json,
    response::{IntoResponse, Response},
};
use http::{HeaderValue, StatusCode, header};
use serde::Serialize;
use store::model::Revision;

use super::etag;

/// An object with its revision as `ETag`.
pub(crate) fn object(status: StatusCode, revision: Revision, view: &impl Serialize) -> Response {
    let mut response = (status, Json(view)).into_response();
    response.headers_mut().insert(header::ETAG, etag::value(revision));
    uncached(response)
}

/// An object that was made, and where it is.
pub(crate) fn created(path: &str, revision: Revision, view: &impl Serialize) -> Response {
    let mut response = object(StatusCode::CREATED, revision, view);
    if let Ok(location) = HeaderValue::try_from(path) {
        response.headers_mut().insert(header::LOCATION, location);
    }
    response
}

/// A page of a list.
pub(crate) fn list(data: impl Serialize, next_cursor: Option<String>) -> Response {
    #[derive(Serialize)]
    struct Page<T> {
        data: T,
        next_cursor: Option<String>,
    }
    uncached(Json(Page { data, next_cursor }).into_response())
}

/// Anything else.
pub(crate) fn plain(view: &impl Serialize) -> Response {
    uncached(Json(view).into_response())
}

/// Done, nothing to show.
pub(crate) fn gone() -> Response {
    uncached(StatusCode::NO_CONTENT.into_response())
}

/// Answers hold secrets and change at any time: no cache keeps them.
fn uncached(mut response: Response) -> Response {
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}
