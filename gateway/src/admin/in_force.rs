//! A write's answer says how long it took until it was in force everywhere, and which nodes did not confirm it (P3).

use std::{cell::RefCell, time::Duration};

use axum::{extract::Request, middleware::Next, response::Response};
use http::{HeaderName, HeaderValue};
use store::{Written, model::Name};

const WRITE_MS: HeaderName = HeaderName::from_static("tollgate-write-ms");
const WAITED_OUT: HeaderName = HeaderName::from_static("tollgate-waited-out");

/// What the writes of one request came to.
#[derive(Debug, Default)]
struct Noted {
    took: Option<Duration>,
    waited_out: Vec<Name>,
}

tokio::task_local! {
    /// Handlers write by way of several helpers and answer with objects; this is beside all of them.
    static NOTED: RefCell<Noted>;
}

/// Remembers a write for the answer of the request that it is made for.
pub(crate) fn note(written: &Written) {
    // Outside of a request there is nobody to tell.
    let _ = NOTED.try_with(|noted| {
        let mut noted = noted.borrow_mut();
        noted.took = Some(noted.took.unwrap_or_default() + written.took);
        for name in &written.waited_out {
            if !noted.waited_out.contains(name) {
                noted.waited_out.push(name.clone());
            }
        }
    });
}

/// Adds the headers to answers of requests that wrote.
pub(crate) async fn layer(request: Request, next: Next) -> Response {
    let handled = async {
        let response = next.run(request).await;
        (response, NOTED.with(RefCell::take))
    };
    let (mut response, noted) = NOTED.scope(RefCell::default(), handled).await;
    let Some(took) = noted.took else { return response };
    let ms = u64::try_from(took.as_micros().div_ceil(1_000)).unwrap_or(u64::MAX);
    response.headers_mut().insert(WRITE_MS, ms.into());
    let names = noted.waited_out.iter().map(Name::as_str).collect::<Vec<_>>().join(", ");
    if let (false, Ok(names)) = (names.is_empty(), HeaderValue::try_from(names)) {
        response.headers_mut().insert(WAITED_OUT, names);
    }
    response
}
