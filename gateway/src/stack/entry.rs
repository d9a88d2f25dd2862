//! A request's entry in the ledger, from its arrival to its row.
//!
//! The links fill it in. Whoever holds it when the request ends hands the row in: the record link for an answer, the body of
//! a streamed answer for its end, and [`Drop`] for a client that went away first. So no request that was let through is
//! without a row, whatever drops its future.

use std::{
    borrow::Cow,
    net::{IpAddr, Ipv4Addr},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use http::{HeaderMap, HeaderValue, Method, Request};
use hyper::upgrade::OnUpgrade;
use store::{
    View,
    lease::{Demand, Standing},
    model::{Charge, Completion, GroupId, KeyHash, Name, Outcome, RequestId, Row, SaidCost, Timestamp},
    view::{FoundKey, RouteView},
};

use super::{
    Shared,
    cors::Allowed,
    id,
    ledger::{Grant, Ledger, Permit},
    trace::Tracing,
    upload::Meter,
};
use crate::{error::CLIENT_CLOSED_REQUEST, telemetry::Answer};

/// Longest path in a row, bytes; a longer one is cut.
const MAX_ROW_PATH_BYTES: usize = 1_024;

/// Who asks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Client {
    /// Its address: the peer's, or what a trusted proxy says.
    pub(crate) ip: IpAddr,
    /// The peer's address as text, made once a connection.
    pub(crate) peer_value: HeaderValue,
    /// The peer is a proxy that is believed.
    pub(crate) trusted: bool,
    /// The connection is encrypted.
    pub(crate) secure: bool,
}

impl Client {
    /// A client at an address.
    pub fn new(ip: IpAddr) -> Self {
        let ip = ip.to_canonical();
        let peer_value = HeaderValue::from_str(&ip.to_string()).expect("addresses are ASCII");
        Self { ip, peer_value, trusted: false, secure: false }
    }

    /// A client whose connection is encrypted, or not.
    pub fn secure(self, secure: bool) -> Self {
        Self { secure, ..self }
    }
}

impl Default for Client {
    /// An address that is not known.
    fn default() -> Self {
        Self::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED))
    }
}

/// See the module's head.
#[derive(Debug)]
pub(crate) struct Entry<L: Ledger> {
    pub(crate) shared: Arc<Shared<L>>,
    pub(crate) id: RequestId,
    /// `id` as text, for the upstream and the client.
    pub(crate) id_value: HeaderValue,
    pub(crate) ts: Timestamp,
    pub(crate) started: Instant,
    pub(crate) client: Client,
    /// As metrics name it.
    pub(crate) method: &'static str,
    /// A gRPC call: what the gateway answers itself is told in its way.
    pub(crate) grpc: bool,
    /// The lease on the view that all is looked up in.
    pub(crate) view: View,
    /// What is known once the key is.
    pub(crate) known: Option<Known>,
    /// The path, where access events are on: also a request whose key is not known has one.
    pub(crate) told_path: Option<Box<str>>,
    pub(crate) route: Option<Arc<RouteView>>,
    /// The page that asks may read the answer.
    pub(crate) cors: Option<Allowed>,
    /// Most bytes that the body may have.
    pub(crate) max_body_bytes: u64,
    pub(crate) permit: Option<L::Permit>,
    pub(crate) grant: Option<L::Grant>,
    /// The ledger group that gave the units: all of the request's records go there.
    pub(crate) group: Option<GroupId>,
    /// Bytes of the body that units were asked for.
    pub(crate) demanded_bytes: u64,
    /// Where the client stood when the units were refused or given back.
    pub(crate) stood: Vec<Standing>,
    /// Policies that refused the request.
    pub(crate) violated: Vec<Name>,
    /// Policies that would have, if they were no shadows.
    pub(crate) shadows: Vec<Name>,
    /// What the upstream's answer said of its cost; none before there is one.
    pub(crate) said_cost: Option<SaidCost>,
    /// The grant was turned into charges.
    settled: bool,
    /// What the grant came to, once settled.
    pub(crate) charges: Vec<Charge>,
    /// What the request's body came to; none when it has none.
    pub(crate) upload: Option<Arc<Meter>>,
    /// The client asks for another protocol.
    pub(crate) upgrade: Option<OnUpgrade>,
    pub(crate) trace_id: u128,
    /// Where traces are exported.
    pub(crate) tracing: Option<Box<Tracing>>,
    /// When the request was first handed to a connected upstream.
    pub(crate) called: Option<Instant>,
    pub(crate) upstream_us: u64,
    /// The row (the first of two, for a streamed answer) is in the ledger's hands, or there is none to be.
    recorded: bool,
}

/// A request whose key is known.
#[derive(Debug)]
pub(crate) struct Known {
    pub(crate) key: FoundKey,
    /// To look again while an answer is streamed.
    pub(crate) hash: KeyHash,
    method: Name,
    path: Name,
    client_request_id: Option<Box<str>>,
}

impl Known {
    pub(crate) fn method(&self) -> &str {
        &self.method
    }

    pub(crate) fn path(&self) -> &str {
        &self.path
    }
}

impl<L: Ledger> Entry<L> {
    pub(crate) fn new(shared: Arc<Shared<L>>, client: Client) -> Self {
        let ts = Timestamp::now();
        let id = shared.ids.request(ts);
        shared.telemetry.in_flight.increment(1.0);
        Self {
            id,
            id_value: HeaderValue::from_bytes(&id::request_id_text(id)).expect("digits and hyphens"),
            ts,
            started: Instant::now(),
            client,
            method: "_OTHER",
            grpc: false,
            view: shared.ledger.view(),
            known: None,
            told_path: None,
            route: None,
            cors: None,
            max_body_bytes: 0,
            permit: None,
            grant: None,
            demanded_bytes: 0,
            group: None,
            stood: Vec::new(),
            violated: Vec::new(),
            shadows: Vec::new(),
            said_cost: None,
            settled: false,
            charges: Vec::new(),
            upload: None,
            upgrade: None,
            trace_id: 0,
            tracing: None,
            called: None,
            upstream_us: 0,
            recorded: false,
            shared,
        }
    }

    /// The key is known: from now on the request has a row.
    pub(crate) fn know<B>(&mut self, key: FoundKey, hash: KeyHash, request: &Request<B>) {
        self.known = Some(Known {
            key,
            hash,
            method: self.shared.methods.name(request.method()),
            path: cut(request.uri().path()).into(),
            client_request_id: client_request_id(request.headers()),
        });
    }

    /// The known key; the links below `auth` are only called with one.
    pub(crate) fn key(&self) -> &FoundKey {
        &self.known.as_ref().expect("the links below auth have a key").key
    }

    /// The route; the links below `route` are only called with one.
    pub(crate) fn route(&self) -> &RouteView {
        self.route.as_ref().expect("the links below route have a route")
    }

    /// Cost units to be reserved for a body of at most so many bytes.
    pub(crate) fn reserved_cost(&self, body_bytes: u64) -> u64 {
        self.route.as_ref().map_or(0, |route| route.route.reserved_cost(body_bytes))
    }

    /// An answer with this status, as it is counted.
    pub(crate) fn counted(&self, status: u16) -> Answer<'_> {
        let route = self.route.as_deref();
        Answer { route, method: self.method, status, duration: self.started.elapsed() }
    }

    /// Cost units that the request came to, as far as it has come.
    pub(crate) fn cost(&self) -> u64 {
        self.route.as_ref().map_or(0, |route| route.route.settled_cost(self.bytes_in(), self.said_cost))
    }

    /// The upstream has answered: what it says of its cost.
    pub(crate) fn note_cost(&mut self, headers: &HeaderMap) {
        let Some(cost) = self.route.as_ref().and_then(|route| route.route.cost_header.as_ref()) else { return };
        let units = headers.get(&cost.name).and_then(|value| value.to_str().ok()?.trim().parse().ok());
        self.said_cost = Some(units.map_or(SaidCost::Nothing, SaidCost::Units));
    }

    /// Bytes of the request's body so far.
    pub(crate) fn bytes_in(&self) -> u64 {
        self.upload.as_ref().map_or(0, |meter| meter.bytes())
    }

    /// Where the client stands, if units were taken.
    pub(crate) fn standings(&self) -> Option<Cow<'_, [Standing]>> {
        match &self.grant {
            Some(grant) => Some(grant.standings().into()),
            None => (!self.stood.is_empty()).then_some(self.stood.as_slice().into()),
        }
    }

    /// Where the client stands as this node's memory knows, when no units were asked for.
    pub(crate) fn stands(&self) -> Option<Vec<Standing>> {
        let (known, route) = (self.known.as_ref()?, self.route.as_ref()?);
        let cost = self.reserved_cost(0);
        Some(self.shared.ledger.standings(Demand { key: &known.key, route, content_bytes: 0, cost, now: self.ts }))
    }

    /// Turns the grant into charges with what the request came to; once.
    pub(crate) fn settle(&mut self) {
        let (bytes, cost) = (self.bytes_in(), self.cost());
        if let (Some(grant), false) = (&mut self.grant, self.settled) {
            self.charges = grant.settle(bytes, cost);
            self.settled = true;
        }
    }

    /// Gives the units back: the upstream was never called.
    pub(crate) fn refund(&mut self) {
        if let Some(grant) = self.grant.take() {
            self.stood = grant.standings();
            grant.refund();
        }
    }

    /// The unit of concurrency was lost, and somebody else may have it.
    pub(crate) fn has_lapsed(&self) -> bool {
        self.grant.as_ref().is_some_and(Grant::has_lapsed)
    }

    /// When to look for it again: within `every`, and at the instant at which it may be lost.
    pub(crate) fn look_within(&self, every: Duration) -> Duration {
        const LEAST: Duration = Duration::from_millis(1);
        let lapses_after = self.grant.as_ref().and_then(Grant::lapses_after);
        lapses_after.map_or(every, |left| left.max(LEAST).min(every))
    }

    /// Whether the upstream was called.
    pub(crate) fn executed(&self) -> bool {
        self.called.is_some()
    }

    /// The request's row; `None` before the key is known.
    pub(crate) fn row(&mut self, end: &End) -> Option<Row> {
        self.recorded = true;
        if end.completion != Completion::Open {
            self.settle();
        }
        let charged = self.executed() || end.outcome == Outcome::Admitted;
        let known = self.known.as_ref()?;
        let account = &known.key.account;
        Some(Row {
            request_id: self.id,
            ts: self.ts,
            account: account.id.clone(),
            key_id: known.key.id(),
            tier: account.tier.clone(),
            route: self.route.as_ref().map(|route| route.route.name.clone()).unwrap_or_default(),
            method: known.method.clone(),
            path: known.path.clone(),
            status: end.status,
            outcome: end.outcome,
            cost: if charged { self.cost() } else { 0 },
            bytes_in: self.bytes_in(),
            bytes_out: end.bytes_out,
            upstream_us: self.upstream_us,
            duration_us: micros(self.started),
            client_ip: Some(self.client.ip),
            client_request_id: known.client_request_id.clone(),
            trace_id: self.trace_id,
            node: self.shared.node.clone(),
            region: self.shared.region.clone(),
            completion: end.completion,
            count: 1,
            settles: end.settles,
            charges: std::mem::take(&mut self.charges),
            decided_by: self.decided_by(),
            retention_days: account.policies.log_retention_days.unwrap_or(0),
        })
    }
}

impl<L: Ledger> Entry<L> {
    /// Whoever held the request let go of it: one that was let through and has no row yet gets it.
    fn abandon(&mut self) {
        if self.recorded || self.grant.is_none() && !self.executed() {
            return;
        }
        // Let through, and the client went away before its answer: the row says so.
        if !self.executed() {
            self.refund();
        }
        let end = End {
            status: CLIENT_CLOSED_REQUEST,
            outcome: Outcome::Admitted,
            completion: Completion::ClientAbort,
            bytes_out: 0,
            settles: false,
        };
        let Some(row) = self.row(&end) else { return };
        self.shared.telemetry.answered(end.outcome, self.counted(end.status));
        // Its place in the queue was taken; use it, if there still is a runtime to wait in.
        match (self.permit.take(), tokio::runtime::Handle::try_current()) {
            (Some(permit), Ok(runtime)) => {
                let late = LateRow::new(self.shared.late_rows.clone());
                runtime.spawn(async move {
                    // Nobody is there to be told when it fails; it is tried as long as the store tries.
                    let _ = permit.commit(row).await;
                    drop(late);
                });
            }
            (_, _) => self.shared.ledger.record(row, self.group),
        }
    }
}

impl<L: Ledger> Drop for Entry<L> {
    fn drop(&mut self) {
        self.shared.telemetry.in_flight.decrement(1.0);
        self.abandon();
        self.export();
    }
}

/// A row that is counted until its commit ended.
#[derive(Debug)]
struct LateRow(Arc<AtomicUsize>);

impl LateRow {
    fn new(count: Arc<AtomicUsize>) -> Self {
        count.fetch_add(1, Ordering::AcqRel);
        Self(count)
    }
}

impl Drop for LateRow {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

/// How a request ended, for its row.
#[derive(Debug, Clone, Copy)]
pub(crate) struct End {
    pub(crate) status: u16,
    pub(crate) outcome: Outcome,
    pub(crate) completion: Completion,
    pub(crate) bytes_out: u64,
    pub(crate) settles: bool,
}

/// Names of the common methods, so that a row costs no allocation for one.
#[derive(Debug)]
pub(crate) struct Methods([(Method, Name); 7]);

impl Methods {
    pub(crate) fn new() -> Self {
        Self(
            [Method::GET, Method::POST, Method::PUT, Method::DELETE, Method::PATCH, Method::HEAD, Method::OPTIONS].map(
                |method| {
                    let name = Name::from(method.as_str());
                    (method, name)
                },
            ),
        )
    }

    pub(super) fn name(&self, method: &Method) -> Name {
        let known = self.0.iter().find(|(known, _)| known == method);
        known.map_or_else(|| Name::from(method.as_str()), |(_, name)| name.clone())
    }
}

/// Microseconds since then.
pub(crate) fn micros(since: Instant) -> u64 {
    u64::try_from(since.elapsed().as_micros()).unwrap_or(u64::MAX)
}

/// A client's own request id is kept when it is at most 128 visible ASCII characters.
fn client_request_id(headers: &HeaderMap) -> Option<Box<str>> {
    let value = headers.get(&super::headers::X_REQUEST_ID)?.as_bytes();
    let valid = (1..=128).contains(&value.len()) && value.iter().all(u8::is_ascii_graphic);
    valid.then(|| std::str::from_utf8(value).ok().map(Box::from)).flatten()
}

pub(crate) fn cut(path: &str) -> &str {
    &path[..path.floor_char_boundary(MAX_ROW_PATH_BYTES)]
}
