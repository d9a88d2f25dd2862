//! Sixth link: the request as the upstream gets it.

use http::{Request, Uri, Version, uri};
use hyper::upgrade::OnUpgrade;

use super::{Inbound, Ledger, Upload, entry::Entry, headers, link::Link, trace};
use crate::error::Fault;

/// The link.
#[derive(Debug)]
pub(crate) struct Proxy<S> {
    inner: S,
}

impl<S> Proxy<S> {
    pub(crate) fn new(inner: S) -> Self {
        Self { inner }
    }
}

impl<L: Ledger, B: Inbound, S: Link<L, Request<Upload<B>>>> Link<L, Request<B>> for Proxy<S> {
    type Response = S::Response;

    async fn call(&self, entry: &mut Entry<L>, request: Request<B>) -> Result<S::Response, Fault> {
        let (mut parts, body) = request.into_parts();
        let timeout = entry.shared.settings.timeouts.body_read;
        let body = Upload::new(body, entry.max_body_bytes, timeout, &entry.shared.key_headers);
        entry.upload = body.meter();
        entry.upgrade = parts.extensions.remove::<OnUpgrade>();
        let upgrade = entry.upgrade.is_some() && headers::upgrades(&parts.headers);
        let call = entry.shared.ids.next() | 1;
        let context = match &mut entry.tracing {
            None => trace::Context::of(&parts.headers, &entry.shared.ids),
            Some(tracing) => {
                tracing.call = call;
                tracing.context
            }
        };
        entry.trace_id = context.trace_id;
        if !upgrade {
            entry.upgrade = None;
        }
        headers::to_upstream(&mut parts, entry, upgrade);
        headers::frame(&mut parts.headers, &body);
        trace::insert(&mut parts.headers, context, call);
        let route = &entry.route().route;
        parts.uri = origin_form(&parts.uri, route.strip_prefix.as_deref());
        if let Some(prefix) = &route.add_prefix {
            parts.uri = prefixed(parts.uri, prefix);
        }
        parts.version = Version::HTTP_11;
        parts.extensions.clear();
        self.inner.call(entry, Request::from_parts(parts, body)).await
    }
}

/// Path and query, as an origin server is asked (RFC 9112 §3.2.1); the route's prefix taken off.
fn origin_form(uri: &Uri, strip_prefix: Option<&str>) -> Uri {
    let target = match (uri.path_and_query(), strip_prefix) {
        (Some(whole), None) => whole.clone(),
        (Some(whole), Some(prefix)) => {
            let text = whole.as_str();
            match text.strip_prefix(prefix) {
                // "/v3" off "/v3/scan?q", "/v3" and "/v3?q"; never a part of a segment ("/v3" off "/v30").
                Some(rest) if rest.starts_with('/') => rest.parse().unwrap_or_else(|_| whole.clone()),
                Some(rest) if rest.is_empty() || rest.starts_with('?') || prefix.ends_with('/') => {
                    format!("/{rest}").parse().unwrap_or_else(|_| whole.clone())
                }
                _ => whole.clone(),
            }
        }
        (None, _) => uri::PathAndQuery::from_static("/"),
    };
    Uri::from(target)
}

/// The path below a prefix; the query goes on.
fn prefixed(uri: Uri, prefix: &str) -> Uri {
    let rest = uri.path_and_query().map_or("/", uri::PathAndQuery::as_str);
    format!("{}{rest}", prefix.trim_end_matches('/')).parse().unwrap_or(uri)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prefix_is_put_before_the_path() {
        for (uri, prefix, expected) in
            [("/scan?q=1", "/internal", "/internal/scan?q=1"), ("/", "/a/", "/a/"), ("/x", "/", "/x")]
        {
            assert_eq!(prefixed(uri.parse().expect("a URI"), prefix), expected, "{uri} {prefix}");
        }
    }

    #[test]
    fn prefix_is_taken_off_on_segment_boundaries_and_the_query_goes_on() {
        for (uri, prefix, expected) in [
            ("/v3/scan?q=1", None, "/v3/scan?q=1"),
            ("http://api.test/v3/scan?q=1", None, "/v3/scan?q=1"),
            ("/v3/scan?q=1", Some("/v3"), "/scan?q=1"),
            ("/v3/scan", Some("/v3/"), "/scan"),
            ("/v3", Some("/v3"), "/"),
            ("/v3?q", Some("/v3"), "/?q"),
            ("/v30", Some("/v3"), "/v30"),
            ("http://api.test", None, "/"),
        ] {
            let uri: Uri = uri.parse().expect("a URI");
            assert_eq!(origin_form(&uri, prefix), expected, "{uri} {prefix:?}");
        }
    }
}
