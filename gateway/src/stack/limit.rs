//! Fourth link: a place in the commit queue, then a unit of concurrency, rates and quotas; all or none.

use std::{future::poll_fn, sync::Arc, time::Instant};

use http::Request;
use store::lease::{Acquiring, Demand, Denied};

use super::{Inbound, Ledger, auth, entry::Entry, ledger::Grant, link::Link, route};
use crate::error::Fault;

/// A request that waits for units while its policies change asks again under the new ones, so often at the most.
const ROUNDS: u32 = 3;

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
        let mut permit = entry.shared.ledger.permit(&entry.key().account.id, entry.view).map_err(Fault::Unavailable)?;
        let mut rounds = 0;
        loop {
            let declared = request.body().size_hint().exact();
            let waited = acquire(entry, declared).await?;
            // The instant of admission (P3). What was looked up before a wait may have been revoked, lowered, or taken away
            // since, and that write been answered.
            let stands = if waited { is_unchanged(entry, &request) } else { Ok(true) };
            let view = entry.view;
            match stands
                .and_then(|is_same| entry.shared.ledger.check(view).map(|()| is_same).map_err(Fault::Unavailable))
            {
                Ok(true) => break,
                Ok(false) if rounds < ROUNDS => rounds += 1,
                Ok(false) => {
                    entry.refund();
                    return Err(Fault::Busy("the policies changed again and again while the request waited"));
                }
                Err(fault) => {
                    entry.refund();
                    return Err(fault);
                }
            }
            entry.refund();
        }
        if let Some(grant) = &entry.grant {
            match entry.shared.ledger.bind(&mut permit, grant) {
                Ok(group) => entry.group = Some(group),
                Err(unavailable) => {
                    entry.refund();
                    return Err(Fault::Unavailable(unavailable));
                }
            }
        }
        entry.permit = Some(permit);
        self.inner.call(entry, request).await
    }
}

/// Takes the units of a request with a body of so many bytes; whether they were waited for.
async fn acquire<L: Ledger>(entry: &mut Entry<L>, declared: Option<u64>) -> Result<bool, Fault> {
    let content_bytes = declared.unwrap_or(entry.max_body_bytes);
    entry.demanded_bytes = content_bytes;
    let demand = Demand {
        key: entry.key(),
        route: entry.route(),
        content_bytes,
        cost: entry.reserved_cost(content_bytes),
        now: entry.ts,
    };
    let mut waited = None;
    let grant = match entry.shared.ledger.acquire(demand) {
        Acquiring::Decided(decided) => decided,
        Acquiring::Waits(mut waits) => {
            let polled = poll_fn(|context| {
                let polled = waits.as_mut().poll(context);
                if polled.is_pending() && waited.is_none() {
                    waited = Some(Instant::now());
                }
                polled
            });
            polled.await
        }
    };
    if let Some(since) = waited {
        entry.shared.telemetry.lease_wait.record(since.elapsed());
    }
    let grant = grant.map_err(|denied| match denied {
        Denied::Refused(refusal) => Fault::Refused(refusal),
        Denied::Unavailable(unavailable) => Fault::Unavailable(unavailable),
    })?;
    entry.shadows = grant.shadows();
    entry.grant = Some(grant);
    Ok(waited.is_some())
}

/// Looks key and route up again, and judges the request by them; whether account, policies and route are the same still.
fn is_unchanged<L: Ledger, B: Inbound>(entry: &mut Entry<L>, request: &Request<B>) -> Result<bool, Fault> {
    let (account, route) = (entry.key().account.clone(), entry.route.clone());
    auth::look_again(entry)?;
    route::find(entry, request)?;
    let is_same_route = route.zip(entry.route.as_ref()).is_some_and(|(before, now)| Arc::ptr_eq(&before, now));
    Ok(is_same_route && Arc::ptr_eq(&account, &entry.key().account))
}
