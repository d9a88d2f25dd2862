//! A link of the chain.

use std::future::Future;

use super::{entry::Entry, ledger::Ledger};
use crate::error::Fault;

/// `tower::Service` in async-fn form: takes a request, fills in the entry, answers or says why not.
///
/// The links are always ready (bounds answer 503 at once and never queue without limit), hence no `poll_ready`.
pub(crate) trait Link<L: Ledger, Request>: Send + Sync + 'static {
    /// The answer of the links below.
    type Response;

    fn call(
        &self,
        entry: &mut Entry<L>,
        request: Request,
    ) -> impl Future<Output = Result<Self::Response, Fault>> + Send;
}
