//! Gives every admin request an id and writes problems out with it.

use std::fmt;

use axum::{extract::Request, middleware::Next, response::Response};
use http::{HeaderName, HeaderValue, header};

use super::problem::Problem;

const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// The id of an admin request, a UUIDv7; the audit log has it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct AdminRequestId(uuid::Uuid);

impl fmt::Display for AdminRequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The outermost layer.
pub(crate) async fn layer(mut request: Request, next: Next) -> Response {
    let id = AdminRequestId(uuid::Uuid::now_v7());
    request.extensions_mut().insert(id);
    let mut response = next.run(request).await;
    let problem = response.extensions_mut().remove::<Problem>();
    let status = response.status();
    if problem.is_some() || ((status.is_client_error() || status.is_server_error()) && !has_body(&response)) {
        let problem = problem.unwrap_or_else(|| Problem::of_status(status));
        let mut rendered = problem.render(&id.to_string());
        // What else was said stays: Allow of a 405.
        if let Some(allow) = response.headers_mut().remove(header::ALLOW) {
            rendered.headers_mut().insert(header::ALLOW, allow);
        }
        response = rendered;
    }
    let value = HeaderValue::try_from(id.to_string()).expect("a UUID is a header's value");
    response.headers_mut().insert(X_REQUEST_ID, value);
    response
}

/// Whether a handler has written an error out itself, as the probes do.
fn has_body(response: &Response) -> bool {
    response.headers().get(header::CONTENT_TYPE).is_some_and(|kind| kind == "application/json")
}
