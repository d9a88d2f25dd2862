//! Third link: the route, whether tier and key may use it, and the size of the body as declared.

use std::sync::Arc;

use http::{Request, header, uri::Authority};
use store::view::RouteView;

use super::{Inbound, Ledger, entry::Entry, link::Link};
use crate::error::Fault;

/// The link.
#[derive(Debug)]
pub(crate) struct Routing<S> {
    inner: S,
}

impl<S> Routing<S> {
    pub(crate) fn new(inner: S) -> Self {
        Self { inner }
    }
}

impl<L: Ledger, B: Inbound, S: Link<L, Request<B>>> Link<L, Request<B>> for Routing<S> {
    type Response = S::Response;

    async fn call(&self, entry: &mut Entry<L>, request: Request<B>) -> Result<S::Response, Fault> {
        find(entry, &request)?;
        self.inner.call(entry, request).await
    }
}

/// Finds the route, and judges whether the request may use it.
pub(super) fn find<L: Ledger, B: Inbound>(entry: &mut Entry<L>, request: &Request<B>) -> Result<(), Fault> {
    let found = matching(&*entry.shared.ledger, request, request.method().as_str()).ok_or(Fault::NoRoute)?;
    let route = &entry.route.insert(found).route;

    let key = &entry.known.as_ref().expect("auth comes before route").key;
    let policies = &key.account.policies;
    if policies.routes.as_ref().is_some_and(|routes| !routes.contains(&route.name)) {
        return Err(Fault::RouteNotInTier);
    }
    if let Some(scope) = route.scopes.iter().find(|scope| !key.scopes().contains(scope)) {
        return Err(Fault::ScopeMissing(scope.clone()));
    }
    let bounds = [route.max_body_bytes, policies.max_body_bytes];
    let limit = bounds.into_iter().flatten().min().unwrap_or(entry.shared.settings.max_body_bytes);
    if request.body().size_hint().exact().is_some_and(|bytes| bytes > limit) {
        return Err(Fault::BodyTooLarge(limit));
    }
    entry.max_body_bytes = limit;
    Ok(())
}

/// The route of a request, were it made with `method`.
pub(crate) fn matching<L: Ledger, B>(ledger: &L, request: &Request<B>, method: &str) -> Option<Arc<RouteView>> {
    let host = host(request);
    let lower;
    let host = match host {
        Some(host) if host.bytes().any(|byte| byte.is_ascii_uppercase()) => {
            lower = host.to_ascii_lowercase();
            Some(lower.as_str())
        }
        host => host,
    };
    ledger.route(host, request.uri().path(), method)
}

/// The host that the client asks for, without port: HTTP/2's `:authority` or the `Host` header.
fn host<B>(request: &Request<B>) -> Option<&str> {
    if let Some(authority) = request.uri().authority() {
        return Some(Authority::host(authority));
    }
    let text = request.headers().get(header::HOST)?.to_str().ok()?;
    // An IPv6 literal keeps its brackets and loses what comes after them.
    let end = match text.rfind(']') {
        Some(bracket) => bracket + 1,
        None => text.find(':').unwrap_or(text.len()),
    };
    Some(&text[..end])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn host_is_without_port() {
        for (header, expected) in
            [("api.test", "api.test"), ("api.test:8080", "api.test"), ("[::1]:80", "[::1]"), ("[::1]", "[::1]")]
        {
            let request = Request::builder().header("host", header).body(()).expect("a request");
            assert_eq!(host(&request), Some(expected));
        }
        let request = Request::builder().uri("http://API.test:1/x").header("host", "other").body(()).expect("one");
        assert_eq!(host(&request), Some("API.test"));
    }
}
