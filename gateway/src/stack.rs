//! The data plane: the path of a request, on one page.
//!
//! ```text
//! client ─▶ record ▸ auth ▸ route ▸ limit ▸ quota ▸ proxy ▸ upstream ─▶ upstream
//!             │ id      │ key    │ scopes  │ permit  │ settle  │ headers   │ pool, timeouts
//!             │ row     │ state  │ body    │ units   │ refund  │           │
//!             ▼ commit  ▼ expiry ▼ size    ▼
//!           answer      ip
//! ```
//!
//! Each link is a `Link`: a `tower::Service` in async-fn form, so that no future is boxed and none is written by hand; the
//! links are put together with tower's `ServiceBuilder`, and the whole is a `tower::Service` ([`Stack::service`]) that
//! hyper serves and that mounts into an axum `Router`. A request has one `Entry`, which the links fill in and whose
//! row the record link commits before the answer is released.
//!
//! A `Stack` belongs to one core: its pools and caches are never contended. They are nevertheless `Send` (an uncontended
//! lock costs some 10 ns), so that the same stack also runs where tasks move.

mod alive;
mod auth;
mod body;
mod cors;
mod deadline;
mod decided;
mod entry;
mod forwarded;
pub(crate) mod fuzz;
mod grpc;
mod headers;
mod hold;
mod id;
mod ledger;
mod limit;
mod link;
mod problem;
mod proxy;
mod quota;
mod rate_headers;
mod record;
mod rejections;
mod route;
pub mod server;
mod settings;
#[cfg(test)]
mod tests;
mod trace;
mod tunnel;
mod upload;
mod upstream;

use std::{
    convert::Infallible,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use bytes::Bytes;
use http::{HeaderName, Request, Response};
use store::model::Name;
use tower::{ServiceBuilder, layer::layer_fn};

pub use body::Download;
pub use entry::Client;
pub use ledger::{Grant, Ledger, Permit};
pub use rejections::Rejections;
pub use server::{Handle, Server, StartError};
pub use settings::{CompatHeaders, Settings, Timeouts};
use upload::Upload;

use crate::telemetry::Telemetry;

/// Any error of a body.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// Why a request ends whose unit of concurrency may be another's by now.
const LAPSED: &str = "the node lost contact with the ledger while the request was under way";

/// What the links of one core's chain share.
#[derive(Debug)]
pub(crate) struct Shared<L> {
    pub(crate) ledger: Arc<L>,
    pub(crate) settings: Arc<Settings>,
    /// Copies of this core, so that rows share no reference count with another core's.
    pub(crate) node: Name,
    pub(crate) region: Name,
    pub(crate) key_headers: Arc<[HeaderName]>,
    pub(crate) telemetry: Telemetry,
    pub(crate) ids: id::Ids,
    pub(crate) methods: entry::Methods,
    pub(crate) rejections: Arc<Rejections>,
    /// Rows of requests whose client went away, on their way to the quorum: a drain waits for them.
    pub(crate) late_rows: Arc<AtomicUsize>,
}

/// The chain of one core.
#[derive(Debug)]
pub struct Stack<L: Ledger, B: Inbound> {
    record: record::Record<L, Chain<B>>,
    pools: Arc<upstream::Pools<B>>,
}

/// The chain's links below `record`, as types.
type Chain<B> = auth::Auth<route::Routing<limit::Limit<quota::Quota<proxy::Proxy<upstream::Upstream<B>>>>>>;

/// A request's body: hyper's, axum's, or a test's.
pub trait Inbound: http_body::Body<Data = Bytes, Error: Into<BoxError>> + Send + Unpin + 'static {}
impl<B: http_body::Body<Data = Bytes, Error: Into<BoxError>> + Send + Unpin + 'static> Inbound for B {}

/// A `tower::Service` as an axum `Router` wants it: infallible, `Clone` and `Send`.
pub trait MountableService<Req, Res>:
    tower::Service<Req, Response = Res, Error = Infallible, Future: Send> + Clone + Send + Sync + 'static
{
}

impl<S, Req, Res> MountableService<Req, Res> for S where
    S: tower::Service<Req, Response = Res, Error = Infallible, Future: Send> + Clone + Send + Sync + 'static
{
}

impl<L: Ledger, B: Inbound> Stack<L, B> {
    /// Puts the chain of one core together.
    pub fn new(ledger: Arc<L>, settings: Arc<Settings>, rejections: Arc<Rejections>) -> Self {
        let pools = Arc::new(upstream::Pools::new(&settings));
        let shared = Arc::new(Shared {
            ledger,
            node: settings.node.as_str().into(),
            region: settings.region.as_str().into(),
            key_headers: settings.key_headers.iter().cloned().collect(),
            telemetry: Telemetry::new(),
            ids: id::Ids::new(),
            methods: entry::Methods::new(),
            rejections,
            late_rows: Arc::default(),
            settings,
        });
        // The order of the contract: key, key state, expiry, address; route, scopes, body size; concurrency, rates,
        // quotas; upstream; settle. The first that fails decides.
        let record = ServiceBuilder::new()
            .layer(layer_fn(|inner| record::Record::new(shared.clone(), inner)))
            .layer(layer_fn(auth::Auth::new))
            .layer(layer_fn(route::Routing::new))
            .layer(layer_fn(limit::Limit::new))
            .layer(layer_fn(quota::Quota::new))
            .layer(layer_fn(proxy::Proxy::new))
            .service(upstream::Upstream::new(pools.clone()));
        Self { record, pools }
    }

    /// Serves one request of a client. Dropping the future is what a client that hangs up does: the row still lands.
    pub async fn serve(&self, client: Client, request: Request<B>) -> Response<Download<L, B>> {
        self.record.serve(client, request).await
    }

    /// The chain as a tower service. The client's address is the request's [`Client`] extension, if it has one.
    pub fn service(self: &Arc<Self>) -> impl MountableService<Request<B>, Response<Download<L, B>>> {
        let stack = self.clone();
        tower::service_fn(move |mut request: Request<B>| {
            let stack = stack.clone();
            async move {
                let client = request.extensions_mut().remove::<Client>().unwrap_or_default();
                Ok(stack.serve(client, request).await)
            }
        })
    }

    /// Closes upstream connections that have been idle too long; the server calls it each second.
    pub fn sweep(&self) {
        self.pools.sweep();
    }

    /// Rows of requests whose client went away that are not committed yet.
    pub(crate) fn late_rows(&self) -> usize {
        self.record.shared().late_rows.load(Ordering::Acquire)
    }

    /// Whether the node may decide about requests now.
    pub(crate) fn may_decide(&self) -> bool {
        let ledger = &self.record.shared().ledger;
        ledger.check(ledger.view()).is_ok()
    }

    pub(crate) fn settings(&self) -> &Settings {
        &self.record.shared().settings
    }

    pub(crate) fn telemetry(&self) -> &Telemetry {
        &self.record.shared().telemetry
    }
}
