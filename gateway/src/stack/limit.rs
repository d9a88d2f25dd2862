//! Fourth link: a place in the commit queue, then a unit of concurrency, rates and quotas; all or none.

use http::Request;
use store::lease::{Demand, Denied};

use super::{Inbound, Ledger, entry::Entry, link::Link};
use crate::error::Fault;

/// The link.
#[derive(Debug)]
pub(crate) struct Limit<S> {
    inner: S,
}

impl<S> Limit<S> {
    pub(crate) fn new(inner: S) -> Self {
        Self { inner }
    }
}

impl<L: Ledger, B: Inbound, S: Link<L, Request<B>>> Link<L, Request<B>> for Limit<S> {
    type Response = S::Response;

    async fn call(&self, entry: &mut Entry<L>, request: Request<B>) -> Result<S::Response, Fault> {
        // First make sure that a row can be committed (P5), so that no unit is spent in vain.
        let permit = entry.shared.ledger.permit(&entry.key().account.id, entry.view).map_err(Fault::Unavailable)?;
        let declared = request.body().size_hint().exact();
        let demand = Demand {
            key: entry.key(),
            route: entry.route(),
            content_bytes: declared.unwrap_or(entry.max_body_bytes),
            cost: entry.cost(),
            now: entry.ts,
        };
        let grant = entry.shared.ledger.acquire(demand).await.map_err(|denied| match denied {
            Denied::Refused(refusal) => Fault::Refused(refusal),
            Denied::Unavailable(unavailable) => Fault::Unavailable(unavailable),
        })?;
        entry.permit = Some(permit);
        entry.grant = Some(grant);
        // Units may have been waited for, and the key revoked meanwhile: this is the instant of admission (P3).
        if let Err(unavailable) = entry.shared.ledger.check(entry.view) {
            entry.refund();
            return Err(Fault::Unavailable(unavailable));
        }
        self.inner.call(entry, request).await
    }
}
