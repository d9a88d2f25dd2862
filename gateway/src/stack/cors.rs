//! Pages of other origins: preflights are answered here, before any key is asked for (browsers send none), and answers tell
//! the browser that the page may read them. Protects browsers' users, never the upstream: keys decide as without it.

use std::sync::Arc;

use http::{HeaderMap, HeaderValue, Method, Request, Response, header};
use store::{
    model::{Cors, Route},
    view::RouteView,
};

use super::{Inbound, Ledger, body::Download, route};
use crate::error::PREFLIGHT;

/// How long a browser may keep a preflight's answer where the route does not say, seconds.
const MAX_AGE_SECONDS: u32 = 600;

/// An origin whose pages may call a route.
#[derive(Debug)]
pub(crate) struct Allowed {
    route: Arc<RouteView>,
    /// As the answer names it: the request's, or `*`.
    origin: HeaderValue,
}

impl Allowed {
    /// The route that a page asks for, when the page's origin is one of its origins.
    pub(crate) fn find<L: Ledger, B>(ledger: &L, request: &Request<B>) -> Option<Self> {
        let origin = request.headers().get(header::ORIGIN)?;
        let method = preflight_method(request).unwrap_or(request.method().as_str());
        let route = route::matching(ledger, request, method)?;
        let cors = route.route.cors.as_ref()?;
        if cors.origins.iter().any(|allowed| allowed == "*") {
            return Some(Self { route, origin: HeaderValue::from_static("*") });
        }
        let is_allowed = cors.origins.iter().any(|allowed| allowed.as_bytes() == origin.as_bytes());
        is_allowed.then(|| Self { origin: origin.clone(), route })
    }

    /// The answer to a preflight; none for another request.
    pub(crate) fn preflight<L: Ledger, B: Inbound>(&self, request: &Request<B>) -> Option<Response<Download<L, B>>> {
        let asked = preflight_method(request)?;
        let (route, cors) = self.cors()?;
        let methods = match (&cors.methods, &route.matches.methods) {
            (own, _) if !own.is_empty() => own.join(", "),
            (_, matched) if !matched.is_empty() => matched.join(", "),
            _ => asked.to_owned(),
        };
        let mut response = Response::new(Download::Whole(Default::default()));
        *response.status_mut() = PREFLIGHT;
        let headers = response.headers_mut();
        insert(headers, header::ACCESS_CONTROL_ALLOW_METHODS, &methods);
        if !cors.headers.is_empty() {
            insert(headers, header::ACCESS_CONTROL_ALLOW_HEADERS, &cors.headers.join(", "));
        } else if let Some(asked) = request.headers().get(header::ACCESS_CONTROL_REQUEST_HEADERS) {
            headers.insert(header::ACCESS_CONTROL_ALLOW_HEADERS, asked.clone());
        }
        let max_age = cors.max_age_seconds.unwrap_or(MAX_AGE_SECONDS);
        headers.insert(header::ACCESS_CONTROL_MAX_AGE, HeaderValue::from(max_age));
        self.stamp(headers);
        Some(response)
    }

    /// Lets the page read an answer; what the upstream says of it is replaced.
    pub(crate) fn stamp(&self, headers: &mut HeaderMap) {
        let Some((_, cors)) = self.cors() else { return };
        headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, self.origin.clone());
        vary(&self.route.route, headers);
        if cors.credentials {
            headers.insert(header::ACCESS_CONTROL_ALLOW_CREDENTIALS, HeaderValue::from_static("true"));
        }
        if !cors.expose.is_empty() {
            insert(headers, header::ACCESS_CONTROL_EXPOSE_HEADERS, &cors.expose.join(", "));
        }
    }

    fn cors(&self) -> Option<(&Route, &Cors)> {
        Some((&self.route.route, self.route.route.cors.as_deref()?))
    }
}

/// Tells caches that a route's answers depend on the origin, also an answer to whom it is not allowed or who names none: kept
/// without this it would be given to a page that may read it, and could not.
pub(crate) fn vary(route: &Route, headers: &mut HeaderMap) {
    let Some(cors) = route.cors.as_ref().filter(|cors| !cors.origins.iter().any(|origin| origin == "*")) else {
        return;
    };
    let says = |value: &HeaderValue| {
        value.to_str().is_ok_and(|text| text.split(',').any(|name| name.trim().eq_ignore_ascii_case("origin")))
    };
    if !cors.origins.is_empty() && !headers.get_all(header::VARY).iter().any(says) {
        headers.append(header::VARY, HeaderValue::from_static("origin"));
    }
}

/// The method that a preflight asks for.
fn preflight_method<B>(request: &Request<B>) -> Option<&str> {
    if *request.method() != Method::OPTIONS {
        return None;
    }
    request.headers().get(header::ACCESS_CONTROL_REQUEST_METHOD)?.to_str().ok()
}

fn insert(headers: &mut HeaderMap, name: header::HeaderName, text: &str) {
    if let Ok(value) = HeaderValue::from_str(text) {
        headers.insert(name, value);
    }
}
