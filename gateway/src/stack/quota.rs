//! Fifth link: what the request came to is charged; a request that no upstream was called for is given back.

use http::Request;

use super::{Inbound, Ledger, entry::Entry, link::Link};
use crate::error::Fault;

/// The link.
#[derive(Debug)]
pub(crate) struct Quota<S> {
    inner: S,
}

impl<S> Quota<S> {
    pub(crate) fn new(inner: S) -> Self {
        Self { inner }
    }
}

impl<L: Ledger, B: Inbound, S: Link<L, Request<B>>> Link<L, Request<B>> for Quota<S> {
    type Response = S::Response;

    async fn call(&self, entry: &mut Entry<L>, request: Request<B>) -> Result<S::Response, Fault> {
        let answer = self.inner.call(entry, request).await;
        if !entry.executed() {
            entry.refund();
        } else if entry.upload.as_ref().is_none_or(|meter| meter.is_finished()) {
            entry.settle();
        }
        // An answer that comes while the request's body still does is settled with its last record, when all is known;
        // until then the reservation stands at its maximum.
        answer
    }
}
